//! The HTTP API of the key-value app.
//!
//! `POST /tx`, `POST /tx/batch`, `GET /kv`, `GET /store` and `GET /stats` answer with the statuses
//! and bodies of ev-node's testapp, so that programs written for it run unchanged. Two things
//! differ: a transaction is accepted only once it is on disk, and what is too large is refused
//! instead of cut off. `POST /tx?wait=accepted|committed|executed[&timeout=5s]` answers in JSON
//! how far the transaction came. Every node takes transactions, whoever leads; an answer that is
//! not final names the leader. A client that posts again says `since=HEIGHT` of the earlier answer.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use actix::{MailboxError, Recipient};
use axum::Router;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, RawQuery, Request, State};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::any;
use baton_actors::engine::kv::View;
use baton_messages::cluster::{GetCluster, LeaderHint};
use baton_messages::sequencer::{AwaitError, AwaitTx, Level, Outcome, PostTxs, Posted, Receipt, SubmitError};
use baton_messages::types::{Hash, Height, Tx};
use baton_storage::StoreError;
use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tracing::{debug, error};

mod answer;
pub mod pool;
#[cfg(test)]
mod tests;

use crate::body::{Budget, Unread};
use answer::{Answer, Stats, accepted, error_text, json_line, refusal, text, value};

/// What can be set.
#[derive(Clone, Debug)]
pub struct Config {
    /// The largest body of `POST /tx`.
    pub max_tx_bytes: usize,
    /// The largest body of `POST /tx/batch`.
    pub max_batch_bytes: usize,
    /// How long a client may take to send its body, and how long the node may take to accept it.
    pub request_timeout: Duration,
    /// How long `wait` waits when the request does not say.
    pub default_wait: Duration,
    /// The longest `timeout` a request may ask for.
    pub max_wait: Duration,
    /// Most requests at a time; more are refused.
    pub max_requests: usize,
    /// Most bytes of bodies at a time; requests beyond it are refused.
    pub max_body_bytes: usize,
    /// Most `GET /store` at a time; a few more wait, and further ones are refused.
    pub max_listings: usize,
    /// Most entries `GET /store` lists.
    pub max_entries: usize,
    /// Most bytes `GET /store` lists.
    pub max_listing_bytes: usize,
    /// How long the node may take to say who leads.
    pub leader_within: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_tx_bytes: 1 << 20,
            max_batch_bytes: 4 << 20,
            request_timeout: Duration::from_secs(10),
            default_wait: Duration::from_secs(10),
            max_wait: Duration::from_secs(60),
            max_requests: 8_192,
            max_body_bytes: 128 << 20,
            max_listings: 2,
            max_entries: 100_000,
            max_listing_bytes: 16 << 20,
            leader_within: Duration::from_millis(250),
        }
    }
}

/// What the API counts.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Transactions accepted since the start.
    pub accepted: Counter,
    /// Transactions refused since the start.
    pub refused: Counter,
    /// Requests refused because too many ran.
    pub overloaded: Counter,
}

impl Metrics {
    /// Adds the metrics to a registry, all with the prefix `kv_http`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("kv_http");
        registry.register("txs_accepted", "Transactions accepted over HTTP", self.accepted.clone());
        registry.register("txs_refused", "Transactions refused over HTTP", self.refused.clone());
        registry.register("overloaded", "Requests refused: too many at a time", self.overloaded.clone());
    }
}

/// The API and what it talks to.
#[derive(Clone, Debug)]
pub struct KvHttp {
    /// Takes transactions: the sequencer.
    pub post: Recipient<PostTxs>,
    /// Says how far a transaction came.
    pub await_tx: Recipient<AwaitTx>,
    /// Transactions are in a pool in memory first, which is looked into so often; until then the
    /// sequencer does not know them. `None`: the sequencer has them when they are accepted.
    pub pooled: Option<Duration>,
    /// Says who leads; `None` where nobody else could.
    pub cluster: Option<Recipient<GetCluster>>,
    /// The app's state.
    pub view: View,
    /// Limits.
    pub config: Config,
    /// Counters.
    pub metrics: Metrics,
}

/// How many listings may wait for each one that runs.
const WAITING_EACH: usize = 4;

/// What the handlers share.
struct Api {
    http: KvHttp,
    bodies: Budget,
    listings: Semaphore,
    listings_and_waiting: Semaphore,
}

impl Deref for Api {
    type Target = KvHttp;

    fn deref(&self) -> &KvHttp {
        &self.http
    }
}

impl Api {
    /// Reads the state on a thread where a slow disk holds up nobody else.
    async fn read<T: Send + 'static>(
        &self,
        what: impl FnOnce(&View) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, String> {
        let view = self.view.clone();
        #[allow(clippy::disallowed_methods, reason = "the HTTP server is no part of the simulation")]
        let read = tokio::task::spawn_blocking(move || what(&view).map_err(|error| error.to_string()));
        read.await.unwrap_or_else(|failed| Err(failed.to_string()))
    }
}

type Shared = Arc<Api>;

impl KvHttp {
    /// The routes, to be served by any server that limits connections and header sizes.
    pub fn router(self) -> Router {
        let slots = Arc::new(Semaphore::new(self.config.max_requests));
        let overloaded = self.metrics.overloaded.clone();
        let limit = middleware::from_fn(move |request: Request, next: Next| {
            let (slots, overloaded) = (Arc::clone(&slots), overloaded.clone());
            async move {
                let Ok(_slot) = slots.try_acquire() else {
                    overloaded.inc();
                    return refusal(StatusCode::TOO_MANY_REQUESTS, "full", "too many requests at a time");
                };
                next.run(request).await
            }
        });
        Router::new()
            .route("/tx", any(post_tx))
            .route("/tx/batch", any(post_batch))
            .route("/kv", any(get_value))
            .route("/store", any(get_store))
            .route("/stats", any(get_stats))
            .fallback(|| async { error_text(StatusCode::NOT_FOUND, "404 page not found") })
            .layer(limit)
            .with_state(Arc::new(Api {
                bodies: Budget::new(self.config.max_body_bytes),
                listings: Semaphore::new(self.config.max_listings),
                listings_and_waiting: Semaphore::new(self.config.max_listings * (1 + WAITING_EACH)),
                http: self,
            }))
    }

    /// Hands transactions in; the error is the response to give.
    async fn accept(&self, txs: Vec<Tx>, since: Option<Height>) -> Result<Posted, Response> {
        let count = txs.len() as u64;
        let answer = self.post.send(PostTxs { txs, since }).timeout(self.config.request_timeout).await;
        let refused = match answer {
            Ok(Ok(posted)) => {
                self.metrics.accepted.inc_by(count);
                return Ok(posted);
            }
            Ok(Err(error)) => self.refused(&error).await,
            Err(MailboxError::Timeout) => {
                let reason = format!(
                    "not accepted within {:?}; it may be queued, sending it again is safe",
                    self.config.request_timeout
                );
                let answer = Answer::nameless("unknown").because(reason);
                // It is not refused: nobody knows.
                return Err(self.pointing(answer, StatusCode::GATEWAY_TIMEOUT).await);
            }
            Err(MailboxError::Closed) => {
                let answer = Answer::nameless("not_ready").because("the node is stopping".to_owned());
                self.pointing(answer, StatusCode::SERVICE_UNAVAILABLE).await
            }
        };
        self.metrics.refused.inc_by(count);
        Err(refused)
    }

    /// What each refusal is in HTTP.
    async fn refused(&self, error: &SubmitError) -> Response {
        let (status, word) = match error {
            SubmitError::QueueFull { .. } => (StatusCode::TOO_MANY_REQUESTS, "full"),
            SubmitError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            SubmitError::TooOld { .. } => (StatusCode::CONFLICT, "too_old"),
            SubmitError::Empty => return error_text(StatusCode::BAD_REQUEST, "Empty transaction"),
            SubmitError::NotReady(reason) => {
                let answer = Answer::nameless("not_ready").because(format!("not ready: {reason}"));
                return self.pointing(answer, StatusCode::SERVICE_UNAVAILABLE).await;
            }
        };
        refusal(status, word, error.to_string())
    }

    /// An answer of a node that does not come any further by itself: it says who leads.
    async fn pointing(&self, answer: Answer, status: StatusCode) -> Response {
        answer.led_by(self.leader().await).respond(status)
    }

    async fn leader(&self) -> Option<LeaderHint> {
        let asked = self.cluster.as_ref()?.send(GetCluster).timeout(self.config.leader_within);
        asked.await.ok()?.leader
    }

    /// Waits until an accepted transaction came that far.
    async fn follow(
        &self,
        hash: Hash,
        wait: Wait,
        timeout: Duration,
        receipt: Receipt,
        since: Height,
    ) -> Response {
        let dropped = |reason: String| {
            Answer::new("dropped", hash).because(reason).respond(StatusCode::UNPROCESSABLE_ENTITY)
        };
        let level = match (wait, receipt) {
            (_, Receipt::Dropped(_, reason)) => return dropped(reason),
            (Wait::Accepted, Receipt::Queued(_)) => {
                return Answer::accepted(hash, since).respond(StatusCode::ACCEPTED);
            }
            (Wait::Accepted | Wait::Committed, Receipt::InChain(_, place)) => {
                return Answer::committed(hash, place).respond(StatusCode::OK);
            }
            (Wait::Committed, Receipt::Queued(_)) => Level::Committed,
            (Wait::Executed, Receipt::Queued(_) | Receipt::InChain(..)) => Level::Executed,
        };
        let waits = match self.pooled {
            Some(_) => "in the engine's pool",
            None => "queued",
        };
        let (status, reason) = match self.arrival(hash, level, timeout).await {
            Ok(Ok(outcome)) => {
                return match level {
                    Level::Committed => Answer::committed(hash, outcome.place).respond(StatusCode::OK),
                    Level::Executed => Answer::executed(hash, outcome).respond(StatusCode::OK),
                };
            }
            Ok(Err(AwaitError::Dropped(reason))) => return dropped(reason),
            Ok(Err(error @ AwaitError::Unknown)) => {
                let answer = Answer::new("unknown", hash).because(error.to_string());
                return answer.respond(StatusCode::NOT_FOUND);
            }
            Ok(Err(error @ AwaitError::TooMany(_))) => {
                (StatusCode::TOO_MANY_REQUESTS, format!("{error}; the transaction stays {waits}"))
            }
            Ok(Err(AwaitError::TooLong)) | Err(MailboxError::Timeout) => {
                let word = wait.word();
                let reason = format!("not {word} within {timeout:?}; the transaction stays {waits}");
                (StatusCode::GATEWAY_TIMEOUT, reason)
            }
            Err(MailboxError::Closed) => {
                let reason = match self.pooled {
                    Some(_) => "the node is stopping, and its pool with it: post it again with since",
                    None => "the node is stopping; the transaction stays queued",
                };
                let reason = reason.to_owned();
                (StatusCode::SERVICE_UNAVAILABLE, reason)
            }
        };
        self.pointing(Answer::accepted(hash, since).because(reason), status).await
    }
}

impl KvHttp {
    /// Waits until a transaction came that far. One in a pool is asked for until the sequencer
    /// has it.
    async fn arrival(
        &self,
        hash: Hash,
        level: Level,
        timeout: Duration,
    ) -> Result<Result<Outcome, AwaitError>, MailboxError> {
        let asked = async {
            loop {
                let answer = self.await_tx.send(AwaitTx { hash, level }).await;
                match (answer, self.pooled) {
                    (Ok(Err(AwaitError::Unknown)), Some(again)) => tokio::time::sleep(again).await,
                    (answer, _) => return answer,
                }
            }
        };
        tokio::time::timeout(timeout, asked).await.unwrap_or(Err(MailboxError::Timeout))
    }
}

/// How far a transaction should get before the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Wait {
    Accepted,
    Committed,
    Executed,
}

impl Wait {
    const fn word(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Committed => "committed",
            Self::Executed => "executed",
        }
    }
}

#[derive(Debug, Deserialize)]
struct TxQuery {
    wait: Option<Wait>,
    #[serde(default, with = "humantime_serde")]
    timeout: Option<Duration>,
    since: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct BatchQuery {
    since: Option<u64>,
}

async fn post_tx(
    State(api): State<Shared>,
    method: Method,
    query: Result<Query<TxQuery>, QueryRejection>,
    body: Body,
) -> Response {
    if method != Method::POST {
        return error_text(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed");
    }
    let Query(TxQuery { wait, timeout, since }) = match query {
        Ok(query) => query,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, "invalid", error.body_text()),
    };
    let longest = api.config.max_wait;
    let timeout = timeout.unwrap_or(api.config.default_wait);
    if timeout > longest || timeout.is_zero() {
        let reason = format!("timeout is {timeout:?}, allowed is more than zero and at most {longest:?}");
        return refusal(StatusCode::BAD_REQUEST, "invalid", reason);
    }
    if api.pooled.is_some() && wait == Some(Wait::Accepted) {
        let reason = "the pool of this node is in memory (engine.kv_pool): wait for committed";
        return refusal(StatusCode::BAD_REQUEST, "invalid", reason);
    }
    let read = api.bodies.read(body, api.config.max_tx_bytes, api.config.request_timeout).await;
    let (tx, held) = match read {
        Ok((body, held)) => (Tx(body), held),
        Err(error) => return unread(error),
    };
    if tx.0.is_empty() {
        return error_text(StatusCode::BAD_REQUEST, "Empty transaction");
    }
    let hash = tx.hash();
    let Posted { receipts, since } = match api.accept(vec![tx], since.map(Height)).await {
        Ok(posted) => posted,
        Err(refused) => return refused,
    };
    // From here on it counts in the queue.
    drop(held);
    let receipt = receipts.into_iter().next().unwrap_or(Receipt::Queued(hash));
    debug!(%hash, "accepted a transaction");
    match wait {
        None => accepted(since),
        Some(wait) => api.follow(hash, wait, timeout, receipt, since).await,
    }
}

/// One transaction per line; all are accepted or none.
async fn post_batch(
    State(api): State<Shared>,
    method: Method,
    query: Result<Query<BatchQuery>, QueryRejection>,
    body: Body,
) -> Response {
    if method != Method::POST {
        return error_text(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed");
    }
    let Query(BatchQuery { since }) = match query {
        Ok(query) => query,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, "invalid", error.body_text()),
    };
    let read = api.bodies.read(body, api.config.max_batch_bytes, api.config.request_timeout).await;
    let (body, _held) = match read {
        Ok(read) => read,
        Err(error) => return unread(error),
    };
    if body.is_empty() {
        return text(StatusCode::BAD_REQUEST, "Empty body");
    }
    let lines = body.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    // Copied: a slice would keep the whole body in memory as long as its transaction.
    let lines = lines.filter(|line| !line.is_empty());
    let txs: Vec<Tx> = lines.map(|line| Tx(Bytes::copy_from_slice(line))).collect();
    let accepted = txs.len();
    if accepted == 0 {
        return json_line(&serde_json::json!({ "accepted": accepted }));
    }
    match api.accept(txs, since.map(Height)).await {
        Ok(posted) => json_line(&serde_json::json!({ "accepted": accepted, "since": posted.since.0 })),
        Err(refused) => refused,
    }
}

async fn get_value(State(api): State<Shared>, method: Method, RawQuery(query): RawQuery) -> Response {
    if method != Method::GET {
        return error_text(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed");
    }
    let key = key_of(query.as_deref().unwrap_or_default());
    if key.is_empty() {
        return error_text(StatusCode::BAD_REQUEST, "Missing key parameter");
    }
    match api.read(move |view| view.get(&key)).await {
        Ok(Some(found)) => value(found),
        Ok(None) => error_text(StatusCode::NOT_FOUND, "Key not found"),
        Err(error) => {
            error!(%error, "read no value");
            error_text(StatusCode::INTERNAL_SERVER_ERROR, "Failed to retrieve key")
        }
    }
}

/// The whole state, up to the limits; then the header `baton-truncated` says so.
async fn get_store(State(api): State<Shared>, method: Method) -> Response {
    if method != Method::GET {
        return error_text(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed");
    }
    let Ok(_waiting) = api.listings_and_waiting.try_acquire() else {
        api.metrics.overloaded.inc();
        return refusal(StatusCode::TOO_MANY_REQUESTS, "full", "too many listings at a time");
    };
    // A listing takes several times its size for a moment.
    let _turn = api.listings.acquire().await.expect("the semaphore is never closed");
    let (max_entries, max_bytes) = (api.config.max_entries, api.config.max_listing_bytes);
    let listed = api.read(move |view| {
        let listing = view.all(max_entries, max_bytes)?;
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let map: serde_json::Map<String, serde_json::Value> =
            listing.entries.iter().map(|(key, value)| (text(key), text(value).into())).collect();
        Ok((json_line(&map), listing.truncated))
    });
    match listed.await {
        Ok((mut response, truncated)) => {
            if truncated {
                response.headers_mut().insert("baton-truncated", HeaderValue::from_static("true"));
            }
            response
        }
        Err(error) => {
            error!(%error, "listed no values");
            error_text(StatusCode::INTERNAL_SERVER_ERROR, "Failed to list the store")
        }
    }
}

/// `injected_txs` counts since the process started, the others since the first block.
async fn get_stats(State(api): State<Shared>, method: Method) -> Response {
    if method != Method::GET {
        return error_text(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed");
    }
    match api.read(View::stats).await {
        Ok(stats) => json_line(&Stats {
            injected_txs: api.metrics.accepted.get(),
            executed_txs: stats.txs,
            blocks_produced: stats.blocks,
        }),
        Err(error) => {
            error!(%error, "read no counters");
            error_text(StatusCode::INTERNAL_SERVER_ERROR, "Failed to read the counters")
        }
    }
}

/// The first `key` of a query. Keys are bytes, so this is not the usual lossy decoding.
fn key_of(query: &str) -> Vec<u8> {
    let decode =
        |text: &str| -> Vec<u8> { percent_encoding::percent_decode_str(&text.replace('+', " ")).collect() };
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut values = pairs.filter(|(name, _)| decode(name) == b"key").map(|(_, value)| decode(value));
    values.next().unwrap_or_default()
}

fn unread(unread: Unread) -> Response {
    let (status, word) = match unread {
        Unread::Broken => return error_text(StatusCode::BAD_REQUEST, "Failed to read request body"),
        Unread::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
        Unread::TooSlow(_) => (StatusCode::REQUEST_TIMEOUT, "too_slow"),
        Unread::NoRoom(_) => (StatusCode::TOO_MANY_REQUESTS, "full"),
    };
    refusal(status, word, unread.to_string())
}
