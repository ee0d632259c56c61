//! The ports of a node and what is served on them, the same for every kind of node.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::info;

use crate::config::Config;
use crate::exit::ExitError;
use crate::kv_http::KvHttp;
use crate::metrics;
use crate::rpc::serve::{BindError, Listener};
use crate::rpc::{self, Limits};

/// What the servers may take at the end, all together.
const END_WITHIN: Duration = Duration::from_secs(2);

/// The bound ports of a node, before anything is answered there.
#[derive(Debug)]
pub(super) struct Ports {
    kv: Option<Listener>,
    rpc: Listener,
    metrics: Option<(Listener, Limits)>,
}

impl Ports {
    /// Binds what the configuration names and makes the counters of the ports visible. Ports come
    /// before actors: a taken one is named before anything was produced or followed.
    ///
    /// # Errors
    ///
    /// The address that is taken or cannot be bound, to be tried again later.
    pub(super) async fn bind(
        config: &Config,
        limits: Limits,
        rpc: &rpc::Metrics,
        registry: &mut metrics::Builder,
    ) -> Result<Self, ExitError> {
        let (kv, metrics) = (rpc::serve::Metrics::default(), rpc::serve::Metrics::default());
        kv.register(registry.registry().sub_registry_with_prefix("kv_http"));
        metrics.register(registry.registry().sub_registry_with_prefix("metrics_http"));
        let later = |error: BindError| ExitError::retry_later(error);
        let kv = match &config.kv.listen {
            Some(address) => Some(Listener::bind(address, limits, kv).await.map_err(later)?),
            None => None,
        };
        let rpc = Listener::bind(&config.rpc.address, limits, rpc.connections()).await.map_err(later)?;
        let metrics = match &config.metrics {
            Some(wish) => {
                let limits = Limits { connections: wish.max_connections.min(limits.connections), ..limits };
                let bound = rpc::Server::listen_for_metrics(&wish.address, limits, metrics).await;
                Some((bound.map_err(later)?, limits))
            }
            None => None,
        };
        Ok(Self { kv, rpc, metrics })
    }

    /// Answers on all of them from now on; `kv` is the key-value app's, where the node has one.
    pub(super) fn serve(self, rpc: rpc::Parts, kv: Option<KvHttp>, servers: &mut Servers) {
        let scraped = rpc.metrics.clone();
        let server = rpc::Server::on(self.rpc, rpc);
        info!(address = %server.local_addr(), "rpc listens");
        servers.add(|closed| server.serve(closed));
        if let (Some(listener), Some(kv)) = (self.kv, kv) {
            info!(address = %listener.local_addr(), "kv listens");
            servers.add(|closed| listener.serve(kv.router(), closed));
        }
        if let Some((listener, limits)) = self.metrics {
            let server = rpc::Server::for_metrics(listener, scraped, limits);
            servers.add(|closed| server.serve(closed));
        }
    }
}

/// What runs until the node is told to stop.
#[derive(Debug)]
pub(super) struct Servers {
    closing: watch::Sender<bool>,
    running: Vec<JoinHandle<()>>,
}

impl Servers {
    pub(super) fn new() -> Self {
        Self { closing: watch::channel(false).0, running: Vec::new() }
    }

    /// Runs one more, which gets what completes when it is to end.
    pub(super) fn add<F>(&mut self, server: impl FnOnce(Closed) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.running.push(tokio::spawn(server(closed(self.closing.subscribe()))));
    }

    /// Tells them to take nothing new.
    pub(super) fn close(&self) {
        let _ = self.closing.send(true);
    }

    /// Waits for their end, for a while.
    pub(super) async fn end(self) {
        let _ = tokio::time::timeout(END_WITHIN, futures::future::join_all(self.running)).await;
    }
}

type Closed = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

fn closed(mut closing: watch::Receiver<bool>) -> Closed {
    Box::pin(async move {
        let _ = closing.wait_for(|closing| *closing).await;
    })
}
