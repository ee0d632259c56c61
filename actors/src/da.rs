//! The DA adapter puts blobs on the data availability layer and reads them back.
//!
//! It owns the connection and nothing else: what was submitted and what is included is the DA
//! submitter's to remember. It refuses producers whose term is over.

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Handler, ResponseFuture};
use async_trait::async_trait;
use baton_messages::da::{AwaitDaBlock, Blob, DaError, DaHead, GetBlobs, GetDaHead, Namespace, SubmitBlobs};
use baton_messages::mutation::{Mutation, planted};
use baton_messages::types::{DaHeight, Grant, Hash, Term};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tracing::debug;

pub mod accounts;
pub mod celestia;
pub mod json;
mod rpc;
mod socket;

/// A data availability layer, as much of it as a sequencer needs. Part of `World`.
///
/// An error of [`DaLayer::submit`] does not say that nothing was stored (hazard D4).
#[async_trait(?Send)]
pub trait DaLayer {
    /// Puts blobs on DA, all or none. Returns the height of the block that holds them.
    async fn submit(&self, blobs: &[Blob]) -> Result<DaHeight, DaError>;

    /// All blobs of some namespaces at a height, in their order. None is not an error, a height
    /// that does not exist yet is.
    async fn get_all(&self, height: DaHeight, namespaces: &[Namespace]) -> Result<Vec<Blob>, DaError>;

    /// One blob by its commitment; `None` when it is not at that height.
    async fn get(
        &self,
        height: DaHeight,
        namespace: Namespace,
        commitment: Hash,
    ) -> Result<Option<Blob>, DaError>;

    /// The proof that a blob is at a height; `None` when it is not.
    async fn proof(
        &self,
        height: DaHeight,
        namespace: Namespace,
        commitment: Hash,
    ) -> Result<Option<Proof>, DaError>;

    /// Whether the DA node accepts a proof.
    async fn included(
        &self,
        height: DaHeight,
        namespace: Namespace,
        proof: &Proof,
        commitment: Hash,
    ) -> Result<bool, DaError>;

    /// The newest block of the DA network.
    async fn head(&self) -> Result<DaHead, DaError>;

    /// The block at a height.
    async fn header(&self, height: DaHeight) -> Result<DaHead, DaError>;

    /// The next block that the DA layer announces, with or without blobs of the namespace. Blocks
    /// that are announced while nobody waits are kept for a while.
    ///
    /// `Other` where the DA layer announces nothing.
    async fn announced(&self, namespace: Namespace) -> Result<DaHead, DaError> {
        Err(DaError::Other(format!("this DA layer announces no blocks of {namespace}")))
    }
}

/// A proof of inclusion. Only the DA node that issued it looks inside.
#[derive(Clone, Debug, PartialEq)]
pub struct Proof(pub serde_json::Value);

/// The adapter's limits.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long any request may take (wire section 5.3).
    pub request_timeout: Duration,
    /// How many submissions may be under way. A submission that its caller gave up counts until
    /// it ends.
    pub submits_in_flight: usize,
    /// How many other requests may be under way. Reading never takes the place of submitting.
    pub reads_in_flight: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { request_timeout: Duration::from_secs(60), submits_in_flight: 4, reads_in_flight: 32 }
    }
}

/// The label of the request metrics.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// `submit`, `get_all` or `head`.
    pub request: &'static str,
}

/// The label of the failure metric.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FailureLabels {
    /// `submit`, `get_all` or `head`.
    pub request: &'static str,
    /// [`DaError::reason`].
    pub reason: &'static str,
}

/// What the adapter counts.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Requests under way.
    pub in_flight: Family<RequestLabels, Gauge>,
    /// Requests that were answered with an error.
    pub failures: Family<FailureLabels, Counter>,
    /// How long requests took, in seconds.
    pub seconds: Family<RequestLabels, Histogram>,
    /// What is counted of the accounts that pay.
    pub accounts: accounts::Metrics,
}

impl Default for Metrics {
    fn default() -> Self {
        let histogram = || Histogram::new(exponential_buckets(0.001, 2.0, 17));
        Self {
            in_flight: Family::default(),
            failures: Family::default(),
            seconds: Family::new_with_constructor(histogram),
            accounts: accounts::Metrics::default(),
        }
    }
}

impl Metrics {
    /// Makes the metrics visible in a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "da_requests_in_flight",
            "Requests to the DA layer under way",
            self.in_flight.clone(),
        );
        registry.register(
            "da_request_failures",
            "Requests to the DA layer that failed",
            self.failures.clone(),
        );
        registry.register("da_request_seconds", "Duration of requests to the DA layer", self.seconds.clone());
        self.accounts.register(registry);
    }
}

/// The actor.
pub struct Da {
    layer: Rc<dyn DaLayer>,
    config: Config,
    metrics: Metrics,
    newest: Term,
    submits: Arc<Semaphore>,
    reads: Arc<Semaphore>,
}

impl Da {
    /// An adapter to a DA layer. It talks to it only when asked.
    #[must_use]
    pub fn new(layer: Rc<dyn DaLayer>, config: Config, metrics: Metrics) -> Self {
        let submits = Arc::new(Semaphore::new(config.submits_in_flight));
        let reads = Arc::new(Semaphore::new(config.reads_in_flight));
        Self { layer, config, metrics, newest: Term::default(), submits, reads }
    }

    /// A producer of an older term may still be alive; it has nothing to say any more.
    fn admit(&mut self, grant: Grant) -> Result<(), DaError> {
        if grant.term < self.newest && !planted(Mutation::NoDaFence) {
            return Err(DaError::StaleGrant(grant.term.0));
        }
        self.newest = grant.term;
        Ok(())
    }

    /// Runs one request, if there is room for it, for as long as it may take.
    fn run<T: 'static>(
        &self,
        request: &'static str,
        room: &Arc<Semaphore>,
        work: impl Future<Output = Result<T, DaError>> + 'static,
    ) -> ResponseFuture<Result<T, DaError>> {
        let Ok(permit) = Arc::clone(room).try_acquire_owned() else {
            let busy = DaError::Unavailable(format!("too many {request} requests are under way"));
            return self.refuse(request, busy);
        };
        let metrics = self.metrics.clone();
        let limit = self.config.request_timeout;
        Box::pin(async move {
            let labels = RequestLabels { request };
            let in_flight = metrics.in_flight.get_or_create(&labels).clone();
            in_flight.inc();
            let started = Instant::now();
            let late = || DaError::Unavailable(format!("no answer to {request} within {limit:?}"));
            let answer = timeout(limit, work).await.unwrap_or_else(|_| Err(late()));
            in_flight.dec();
            drop(permit);
            metrics.seconds.get_or_create(&labels).observe(started.elapsed().as_secs_f64());
            if let Err(error) = &answer {
                count_failure(&metrics, request, error);
            }
            answer
        })
    }

    fn refuse<T: 'static>(
        &self,
        request: &'static str,
        error: DaError,
    ) -> ResponseFuture<Result<T, DaError>> {
        count_failure(&self.metrics, request, &error);
        Box::pin(std::future::ready(Err(error)))
    }
}

impl Actor for Da {
    type Context = Context<Self>;
}

impl Handler<SubmitBlobs> for Da {
    type Result = ResponseFuture<Result<DaHeight, DaError>>;

    fn handle(&mut self, message: SubmitBlobs, _: &mut Context<Self>) -> Self::Result {
        if let Err(error) = self.admit(message.grant) {
            return self.refuse("submit", error);
        }
        let layer = Rc::clone(&self.layer);
        self.run("submit", &self.submits, async move { layer.submit(&message.blobs).await })
    }
}

impl Handler<GetBlobs> for Da {
    type Result = ResponseFuture<Result<Vec<Blob>, DaError>>;

    fn handle(&mut self, message: GetBlobs, _: &mut Context<Self>) -> Self::Result {
        let layer = Rc::clone(&self.layer);
        let work = async move { layer.get_all(message.height, &message.namespaces).await };
        self.run("get_all", &self.reads, work)
    }
}

impl Handler<GetDaHead> for Da {
    type Result = ResponseFuture<Result<DaHead, DaError>>;

    fn handle(&mut self, _: GetDaHead, _: &mut Context<Self>) -> Self::Result {
        let layer = Rc::clone(&self.layer);
        self.run("head", &self.reads, async move { layer.head().await })
    }
}

impl Handler<AwaitDaBlock> for Da {
    type Result = ResponseFuture<Result<DaHead, DaError>>;

    /// Waiting takes no place of a request.
    fn handle(&mut self, message: AwaitDaBlock, _: &mut Context<Self>) -> Self::Result {
        let layer = Rc::clone(&self.layer);
        Box::pin(async move {
            let late = || DaError::Unavailable(format!("no DA block within {:?}", message.within));
            timeout(message.within, layer.announced(message.namespace)).await.unwrap_or_else(|_| Err(late()))
        })
    }
}

fn count_failure(metrics: &Metrics, request: &'static str, error: &DaError) {
    debug!(%error, request, "the DA layer gave no result");
    metrics.failures.get_or_create(&FailureLabels { request, reason: error.reason() }).inc();
}

#[cfg(test)]
mod tests;
