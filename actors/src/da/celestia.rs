//! Celestia's JSON-RPC as a [`DaLayer`] (wire section 5).
//!
//! An `http(s)://` address is spoken to by HTTP POST. A `ws(s)://` address is spoken to over one
//! WebSocket; while that is away, by HTTP POST to the same place (see ADR 0005).

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use baton_messages::da::{Blob, DaError, DaHead, Namespace, blob_commitment};
use baton_messages::types::{DaHeight, Hash, Timestamp};
use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{StatusCode, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use zeroize::Zeroizing;

use crate::da::accounts::{self, Accounts, Outcome, Payers};
use crate::da::json::{
    BlobJson, CommitmentJson, HeaderJson, NamespaceJson, SubmissionJson, SubscriptionJson, is_object,
};
use crate::da::socket::{Channel, NoAnswer, Socket};
use crate::da::{DaLayer, Proof, rpc};

pub use crate::da::json::SubmitOptions;

/// A secret that lets this node use the DA node. `Debug` does not show it.
#[derive(Clone)]
pub struct AuthToken(Zeroizing<String>);

impl AuthToken {
    /// A token, without the white space around it.
    #[must_use]
    pub fn new(token: &str) -> Self {
        Self(Zeroizing::new(token.trim().to_owned()))
    }
}

impl fmt::Debug for AuthToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthToken(…)")
    }
}

/// How to reach a DA node.
#[derive(Clone, Debug)]
pub struct Config {
    /// `http://`, `https://`, `ws://` or `wss://`.
    pub address: String,
    /// Sent as `Authorization: Bearer` when there is one.
    pub auth_token: Option<AuthToken>,
    /// How long a request may take.
    pub request_timeout: Duration,
    /// The options of each submission.
    pub submit_options: SubmitOptions,
    /// Accounts that take turns as `signer_address`; none leaves the one of the options.
    pub signing_addresses: Vec<String>,
    /// Submissions that each of these accounts may have under way.
    pub submits_per_account: usize,
    /// The longest answer that is read, in bytes.
    pub max_answer: usize,
}

impl Config {
    /// The usual limits, no token and no options.
    #[must_use]
    pub fn at(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            auth_token: None,
            request_timeout: Duration::from_secs(60),
            submit_options: SubmitOptions::default(),
            signing_addresses: Vec::new(),
            submits_per_account: 1,
            max_answer: 256 << 20,
        }
    }
}

/// Why there can be no client.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The address cannot be used.
    #[error(
        "the DA address {address:?} is not usable: {reason}; write it as http://host:port or ws://host:port"
    )]
    Address {
        /// What was configured.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The token has characters that no header can carry.
    #[error(
        "the DA auth token has characters that an HTTP header cannot carry; check the file it was read from"
    )]
    AuthToken,
    /// The HTTP client could not be set up.
    #[error("cannot set up the HTTP client: {0}")]
    Http(reqwest::Error),
}

/// A client of one DA node. It connects when it is first asked for something.
pub struct Celestia {
    http: reqwest::Client,
    url: Url,
    socket: Option<Socket>,
    request_timeout: Duration,
    submit_options: SubmitOptions,
    payers: Payers,
    max_answer: usize,
    last_id: AtomicU64,
    /// What the DA node announces, once somebody waits for it.
    announcements: tokio::sync::Mutex<Option<(Namespace, Subscription)>>,
}

impl fmt::Debug for Celestia {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Celestia")
            .field("url", &self.url.origin().ascii_serialization())
            .finish_non_exhaustive()
    }
}

impl Celestia {
    /// Checks the configuration; touches no network.
    ///
    /// # Errors
    ///
    /// What is wrong with the configuration.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        Self::counted(config, accounts::Metrics::default())
    }

    /// As [`Celestia::new`], and counts what its accounts pay for.
    ///
    /// # Errors
    ///
    /// What is wrong with the configuration.
    pub fn counted(config: Config, metrics: accounts::Metrics) -> Result<Self, ConfigError> {
        let mut url = parse_address(&config.address)?;
        let authorization = config.auth_token.as_ref().map(bearer).transpose()?;
        let socket = url
            .scheme()
            .starts_with("ws")
            .then(|| Socket::new(url.clone(), authorization.clone(), config.max_answer));
        let scheme = if matches!(url.scheme(), "https" | "wss") { "https" } else { "http" };
        url.set_scheme(scheme).expect("http and ws are both special schemes");
        Ok(Self {
            http: http_client(&url, authorization)?,
            url,
            socket,
            request_timeout: config.request_timeout,
            submit_options: config.submit_options,
            payers: Payers::new(
                Accounts::new(&config.signing_addresses, config.submits_per_account),
                metrics,
            ),
            max_answer: config.max_answer,
            last_id: AtomicU64::new(0),
            announcements: tokio::sync::Mutex::default(),
        })
    }

    /// Follows a namespace: one event for each DA block, also for those without a blob in it.
    /// Needs a WebSocket address. The stream ends with the connection; subscribe again then.
    ///
    /// # Errors
    ///
    /// [`DaError::Other`] with an HTTP address, otherwise what the DA layer says.
    pub async fn subscribe(&self, namespace: Namespace) -> Result<Subscription, DaError> {
        const METHOD: &str = "blob.Subscribe";
        let Some(socket) = &self.socket else {
            let advice = "a subscription needs a ws:// address; poll the head over HTTP instead";
            return Err(DaError::Other(advice.to_owned()));
        };
        let (id, text) = self.write(METHOD, &(NamespaceJson::from(namespace),))?;
        let channel = self.in_time(METHOD, socket.subscribe(id, METHOD, text)).await?;
        Ok(Subscription { channel })
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: &'static str,
        params: &impl Serialize,
        repeat: Repeat,
    ) -> Result<T, DaError> {
        let (id, text) = self.write(method, params)?;
        let answer = self.in_time(method, self.exchange(id, text, repeat)).await?;
        rpc::response(method, &answer)
    }

    fn write(&self, method: &str, params: &impl Serialize) -> Result<(u64, Utf8Bytes), DaError> {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        Ok((id, rpc::request(id, method, params)?.into()))
    }

    async fn in_time<T>(
        &self,
        method: &str,
        work: impl Future<Output = Result<T, DaError>>,
    ) -> Result<T, DaError> {
        let limit = self.request_timeout;
        let late = || DaError::Unavailable(format!("no answer to {method} within {limit:?}"));
        timeout(limit, work).await.unwrap_or_else(|_| Err(late()))
    }

    /// Sends a request over the WebSocket or, when that is not possible, over HTTP.
    async fn exchange(&self, id: u64, text: Utf8Bytes, repeat: Repeat) -> Result<Bytes, DaError> {
        if let Some(socket) = &self.socket {
            match (socket.call(id, text.clone()).await, repeat) {
                (Ok(answer), _) => return Ok(answer.into()),
                (Err(NoAnswer::Lost(why)), Repeat::Never) => return Err(DaError::Unavailable(why)),
                (Err(NoAnswer::Lost(_)), Repeat::Freely) | (Err(NoAnswer::NotSent(_)), _) => {}
            }
        }
        self.post(text.into()).await
    }

    async fn post(&self, text: Bytes) -> Result<Bytes, DaError> {
        let away = |error: reqwest::Error| DaError::Unavailable(describe(&error.without_url()));
        let mut response = self.http.post(self.url.clone()).body(text).send().await.map_err(away)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(away)? {
            if body.len() + chunk.len() > self.max_answer {
                return Err(DaError::Other(format!("the answer is over {} bytes", self.max_answer)));
            }
            body.extend_from_slice(&chunk);
        }
        check_status(status, &body)?;
        Ok(body.into())
    }
}

/// Whether a request may be sent again when its outcome is unknown.
#[derive(Clone, Copy)]
enum Repeat {
    Freely,
    Never,
}

fn parse_address(address: &str) -> Result<Url, ConfigError> {
    let refused = |reason: String| ConfigError::Address { address: address.to_owned(), reason };
    let url = Url::parse(address).map_err(|error| refused(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https" | "ws" | "wss") {
        return Err(refused(format!("the scheme {:?} is not known", url.scheme())));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let reason = "it holds a user name; use the auth token instead".to_owned();
        return Err(ConfigError::Address { address: "…".to_owned(), reason });
    }
    Ok(url)
}

fn bearer(token: &AuthToken) -> Result<HeaderValue, ConfigError> {
    let text = Zeroizing::new(format!("Bearer {}", token.0.as_str()));
    let mut value = HeaderValue::from_str(&text).map_err(|_| ConfigError::AuthToken)?;
    value.set_sensitive(true);
    Ok(value)
}

fn http_client(url: &Url, authorization: Option<HeaderValue>) -> Result<reqwest::Client, ConfigError> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(authorization) = authorization {
        headers.insert(AUTHORIZATION, authorization);
    }
    // A redirect would turn the POST into a GET, or carry the blobs to a host nobody configured.
    let builder = reqwest::Client::builder().default_headers(headers).redirect(Policy::none());
    // As in Go, a proxy from the environment is not for this machine's own services.
    let builder = if is_local(url) { builder.no_proxy() } else { builder };
    // Shorter than servers keep idle connections: a POST on one that just closed would fail.
    let builder = builder.pool_idle_timeout(Duration::from_secs(10));
    builder.connect_timeout(Duration::from_secs(5)).build().map_err(ConfigError::Http)
}

fn is_local(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// go-jsonrpc puts errors of its library into bodies of status 400 and 500.
fn check_status(status: StatusCode, body: &[u8]) -> Result<(), DaError> {
    match status.as_u16() {
        200..=299 => Ok(()),
        400 | 500 if is_object(body) => Ok(()),
        401 | 403 => Err(DaError::Other(format!("{status}; check the DA auth token"))),
        413 => Err(DaError::TooBig(status.to_string())),
        300..=499 if status != StatusCode::TOO_MANY_REQUESTS && status != StatusCode::REQUEST_TIMEOUT => {
            Err(DaError::Other(format!("{status}; check the DA address")))
        }
        _ => Err(DaError::Unavailable(status.to_string())),
    }
}

/// An error with its causes; the outermost alone says little.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    rpc::shorten(&text)
}

#[async_trait(?Send)]
impl DaLayer for Celestia {
    async fn submit(&self, blobs: &[Blob]) -> Result<DaHeight, DaError> {
        let payer = self.payers.next().await;
        let mut options = self.submit_options.clone();
        if let Some(payer) = &payer {
            options.signer_address.clone_from(&payer.address);
        }
        let params = (SubmissionJson(blobs), options);
        // After a loss it may be on DA: the submitter looks before it tries again.
        let taken = self.call("blob.Submit", &params, Repeat::Never).await.map(DaHeight);
        if let Some(payer) = payer {
            payer.end(Outcome::of(&taken));
        }
        taken
    }

    async fn get_all(&self, height: DaHeight, namespaces: &[Namespace]) -> Result<Vec<Blob>, DaError> {
        if namespaces.is_empty() {
            return Ok(Vec::new());
        }
        let namespaces: Vec<NamespaceJson> = namespaces.iter().copied().map(NamespaceJson::from).collect();
        let answer = self.call("blob.GetAll", &(height.0, namespaces), Repeat::Freely).await;
        let blobs: Option<Vec<BlobJson>> = unless_not_found(answer)?.flatten();
        Ok(blobs.unwrap_or_default().into_iter().filter_map(BlobJson::into_blob).collect())
    }

    async fn get(
        &self,
        height: DaHeight,
        namespace: Namespace,
        commitment: Hash,
    ) -> Result<Option<Blob>, DaError> {
        let params = (height.0, NamespaceJson::from(namespace), CommitmentJson::from(commitment));
        let answer = self.call("blob.Get", &params, Repeat::Freely).await;
        let Some(blob): Option<Blob> =
            unless_not_found::<Option<BlobJson>>(answer)?.flatten().and_then(BlobJson::into_blob)
        else {
            return Ok(None);
        };
        if blob.namespace != namespace || blob_commitment(&namespace, &blob.data) != commitment {
            return Err(DaError::Other("the blob is not the one that was asked for".to_owned()));
        }
        Ok(Some(blob))
    }

    async fn proof(
        &self,
        height: DaHeight,
        namespace: Namespace,
        commitment: Hash,
    ) -> Result<Option<Proof>, DaError> {
        let params = (height.0, NamespaceJson::from(namespace), CommitmentJson::from(commitment));
        let answer = self.call("blob.GetProof", &params, Repeat::Freely).await;
        Ok(unless_not_found(answer)?.map(Proof))
    }

    async fn included(
        &self,
        height: DaHeight,
        namespace: Namespace,
        proof: &Proof,
        commitment: Hash,
    ) -> Result<bool, DaError> {
        let namespace = NamespaceJson::from(namespace);
        let params = (height.0, namespace, &proof.0, CommitmentJson::from(commitment));
        let answer = self.call("blob.Included", &params, Repeat::Freely).await;
        Ok(unless_not_found(answer)?.unwrap_or(false))
    }

    async fn head(&self) -> Result<DaHead, DaError> {
        let header: HeaderJson = self.call("header.NetworkHead", &[(); 0], Repeat::Freely).await?;
        Ok(header.head())
    }

    async fn header(&self, height: DaHeight) -> Result<DaHead, DaError> {
        let header: HeaderJson = self.call("header.GetByHeight", &(height.0,), Repeat::Freely).await?;
        Ok(header.head())
    }

    async fn announced(&self, namespace: Namespace) -> Result<DaHead, DaError> {
        let mut announcements = self.announcements.lock().await;
        if announcements.as_ref().is_none_or(|(of, _)| *of != namespace) {
            *announcements = Some((namespace, self.subscribe(namespace).await?));
        }
        let Some((_, subscription)) = &mut *announcements else {
            return Err(DaError::Unavailable("there is no subscription".to_owned()));
        };
        match subscription.next().await {
            Some(event) => {
                event.map(|event| DaHead { height: event.height, time: event.time.unwrap_or_default() })
            }
            None => {
                *announcements = None;
                Err(DaError::Unavailable("the DA node ended the subscription".to_owned()))
            }
        }
    }
}

fn unless_not_found<T>(answer: Result<T, DaError>) -> Result<Option<T>, DaError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if rpc::is_not_found(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The DA blocks from the time of the subscription on. Dropping it ends it.
pub struct Subscription {
    channel: Channel,
}

/// One DA block, as a subscription tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaEvent {
    /// Its height.
    pub height: DaHeight,
    /// The blobs of the namespace in it.
    pub blobs: Vec<Blob>,
    /// Its time, when the server sends it.
    pub time: Option<Timestamp>,
}

impl Subscription {
    /// The next block. A reader that is too slow sees a gap in the heights. `None` when the
    /// server or the connection ended the stream.
    ///
    /// # Errors
    ///
    /// An event that cannot be read; the next one may be readable.
    pub async fn next(&mut self) -> Option<Result<DaEvent, DaError>> {
        #[derive(Deserialize)]
        struct Frame {
            params: (u64, SubscriptionJson),
        }
        let text = self.channel.next().await?;
        let event = serde_json::from_str::<Frame>(&text)
            .map(|frame| to_event(frame.params.1))
            .map_err(|error| DaError::Other(format!("cannot read an event of a DA subscription: {error}")));
        Some(event)
    }
}

fn to_event(event: SubscriptionJson) -> DaEvent {
    let time = event.header.map(|header| header.head().time).filter(|time| time.0 != 0);
    let blobs = event.blobs.unwrap_or_default().into_iter().filter_map(BlobJson::into_blob).collect();
    DaEvent { height: DaHeight(event.height), blobs, time }
}

#[cfg(test)]
mod tests;
