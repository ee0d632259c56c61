//! The node's metrics as Prometheus scrapes them.
//!
//! ev-node's names stand where the meaning is the same (features section 11.1), everything else
//! is `evnode_<actor>_…`. Every series carries the label `chain_id`. What actors count they count
//! in handles of their own; what they merely know, and what the store and the process are like,
//! is asked when somebody scrapes.

mod node;
mod process;
mod storage;

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use baton_storage::Store;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tracing::error;

use crate::rpc::Condition;

/// What the text is, as scrapers negotiate it.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Collects what shall be scraped, before the node starts.
#[derive(Debug)]
pub struct Builder {
    registry: Registry,
    namespace: String,
}

impl Builder {
    /// A registry for this chain that knows the process and the build. The namespace is the first
    /// part of the names, `evnode` in ev-node and by default.
    #[must_use]
    pub fn new(chain_id: &str, namespace: &str) -> Self {
        let labels = [("chain_id".into(), escaped(chain_id).into())];
        let mut registry = Registry::with_labels(labels.into_iter());
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("baton_build", "Which build this is", build);
        registry.register_collector(Box::new(process::Process));
        Self { registry, namespace: namespace.to_owned() }
    }

    /// Where the actors register what they count, below the namespace. ev-node's own names are
    /// below its `sequencer_`, everything else below a prefix of the actor's own. A name may be
    /// registered once: Prometheus refuses a scrape with a series in it twice.
    pub fn registry(&mut self) -> &mut Registry {
        self.registry.sub_registry_with_prefix(self.namespace.clone())
    }

    /// Everything is registered. Condition and store are asked at each scrape.
    #[must_use]
    pub fn build(mut self, condition: Condition, store: Store) -> Metrics {
        let snapshot = node::Snapshot::default();
        let registry = self.registry();
        registry.sub_registry_with_prefix("node").register_collector(Box::new(node::Node(snapshot.clone())));
        registry.sub_registry_with_prefix("storage").register_collector(Box::new(storage::Storage(store)));
        Metrics { registry: Arc::new(self.registry), snapshot, condition }
    }
}

/// What can be scraped.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    snapshot: node::Snapshot,
    condition: Condition,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Everything as text. Parts that do not answer in time are left out.
    ///
    /// # Errors
    ///
    /// `fmt::Error` when a collector cannot be written.
    pub async fn scrape(&self) -> Result<String, fmt::Error> {
        self.snapshot.set(self.condition.ask().await);
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// `GET /metrics`, for the RPC port and the Prometheus port.
    pub fn router(self) -> Router {
        Router::new().route("/metrics", get(answer)).with_state(self)
    }
}

/// A label's value as the text format wants it; the library writes it as it is.
fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n")
}

async fn answer(State(metrics): State<Metrics>) -> Response {
    match metrics.scrape().await {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            error!(%error, "cannot write the metrics");
            (StatusCode::INTERNAL_SERVER_ERROR, "cannot write the metrics\n").into_response()
        }
    }
}
