//! What the sequencer counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Why a batch was not taken by the leader.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Cause {
    /// One word.
    pub cause: &'static str,
}

/// What the sequencer counts.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Transactions waiting.
    pub txs: Gauge,
    /// Bytes waiting.
    pub bytes: Gauge,
    /// How long the first of them has been waiting here, whole seconds.
    pub oldest: Gauge,
    /// Requests waiting for an outcome.
    pub waiting: Gauge,
    /// Transactions accepted.
    pub accepted: Counter,
    /// Transactions that were known already.
    pub duplicates: Counter,
    /// Submissions refused because the queue was full.
    pub refused_full: Counter,
    /// Submissions refused because they were posted first before the replay window.
    pub refused_old: Counter,
    /// Transactions the engine will never take.
    pub dropped: Counter,
    /// Transactions this node's leader has not taken yet.
    pub to_forward: Gauge,
    /// Transactions the leader has taken.
    pub forwarded: Counter,
    /// Transactions that were sent once more to a leader that had taken them.
    pub sent_again: Counter,
    /// Batches the leader did not take, by cause.
    pub forward_failures: Family<Cause, Counter>,
    /// Transactions other members forwarded to this one.
    pub taken_over: Counter,
    /// Batches of other members that were refused here, by cause.
    pub take_over_failures: Family<Cause, Counter>,
}

impl Metrics {
    /// Makes the metrics visible.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("queue");
        registry.register("txs", "Transactions waiting to be sequenced", self.txs.clone());
        registry.register("bytes", "Bytes waiting to be sequenced", self.bytes.clone());
        registry.register("oldest_seconds", "Age of the first waiting transaction", self.oldest.clone());
        registry.register("waiting", "Requests waiting for an outcome", self.waiting.clone());
        registry.register("accepted", "Transactions accepted", self.accepted.clone());
        registry.register("duplicates", "Submitted transactions that were known", self.duplicates.clone());
        registry.register("refused_full", "Submissions refused, queue full", self.refused_full.clone());
        registry.register(
            "refused_old",
            "Submissions refused, posted first before the replay window",
            self.refused_old.clone(),
        );
        registry.register("dropped", "Transactions the engine refused for good", self.dropped.clone());
        registry.register(
            "to_forward",
            "Transactions the leader has not taken from this node yet",
            self.to_forward.clone(),
        );
        registry.register("forwarded", "Transactions handed to the leader", self.forwarded.clone());
        registry.register("sent_again", "Transactions sent to the leader once more", self.sent_again.clone());
        registry.register(
            "forward_failures",
            "Batches the leader did not take, by cause",
            self.forward_failures.clone(),
        );
        registry.register("taken_over", "Transactions forwarded by other members", self.taken_over.clone());
        registry.register(
            "take_over_failures",
            "Batches of other members refused here, by cause",
            self.take_over_failures.clone(),
        );
    }
}
