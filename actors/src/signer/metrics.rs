//! What the signer counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// The signer's counters.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Headers signed.
    pub signed: Counter,
    /// Requests refused.
    pub refused: Counter,
    /// One while an operator is needed.
    pub refusing: Gauge,
    /// Seconds a guard write takes, its sync included.
    pub guard_write: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            signed: Counter::default(),
            refused: Counter::default(),
            refusing: Gauge::default(),
            guard_write: Histogram::new(exponential_buckets(0.0001, 2.0, 16)),
        }
    }
}

impl Metrics {
    /// Shows the counters to the outside.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("signer");
        registry.register("signed_headers", "Headers signed", self.signed.clone());
        registry.register("refused", "Requests to sign that were refused", self.refused.clone());
        registry.register("refusing", "One while the guard needs an operator", self.refusing.clone());
        let (name, help) = ("guard_write", "Time of a guard write with its sync");
        registry.register_with_unit(name, help, Unit::Seconds, self.guard_write.clone());
    }
}
