//! What the engine counts and measures.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// What the engine counts and measures.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// The last executed height.
    pub height: Gauge,
    /// Executed blocks.
    pub blocks: Counter,
    /// Transactions that took effect.
    pub applied: Counter,
    /// Transactions that were invalid and skipped.
    pub skipped: Counter,
    /// How long blocks take.
    pub duration: Histogram,
    /// Requests that wait for their turn.
    pub waiting: Gauge,
    /// Requests refused because a call hung or too many waited.
    pub refused: Counter,
    /// One while the engine answers, otherwise zero.
    pub healthy: Gauge,
    /// Announcements of executed blocks that did not reach their receiver.
    pub lost: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let healthy = Gauge::default();
        healthy.set(1);
        Self {
            height: Gauge::default(),
            blocks: Counter::default(),
            applied: Counter::default(),
            skipped: Counter::default(),
            duration: Histogram::new(exponential_buckets(0.0001, 2.0, 18)),
            waiting: Gauge::default(),
            refused: Counter::default(),
            healthy,
            lost: Counter::default(),
        }
    }
}

impl Metrics {
    /// Adds the metrics to a registry, all with the prefix `engine`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("engine");
        registry.register("height", "The last executed height", self.height.clone());
        registry.register("blocks", "Executed blocks", self.blocks.clone());
        registry.register("txs_applied", "Transactions that took effect", self.applied.clone());
        registry.register("txs_skipped", "Invalid transactions in blocks", self.skipped.clone());
        registry.register_with_unit(
            "execute",
            "Time to execute a block",
            Unit::Seconds,
            self.duration.clone(),
        );
        registry.register("waiting", "Requests that wait for their turn", self.waiting.clone());
        registry.register(
            "refused",
            "Requests refused: a call hung or too many waited",
            self.refused.clone(),
        );
        registry.register("healthy", "One while the engine answers", self.healthy.clone());
        registry.register("announcements_lost", "Executed blocks that were not heard of", self.lost.clone());
    }
}
