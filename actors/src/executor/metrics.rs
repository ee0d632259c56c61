//! What the executor counts and measures.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// What the executor counts.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Blocks this node had committed.
    pub blocks: Counter,
    /// Transactions in them; a gauge that only rises, as in ev-node.
    pub txs: Gauge,
    /// Transactions in the last block.
    pub last_txs: Gauge,
    /// Transaction bytes in the last block.
    pub last_bytes: Gauge,
    /// Height of the last block made here.
    pub last_height: Gauge,
    /// Transactions per block.
    pub txs_per_block: Histogram,
    /// Seconds by operation: `block_production` is from asking for a batch to the executed block.
    pub operations: Family<Operation, Histogram>,
    /// Seconds from proposing to committed.
    pub commit: Histogram,
    /// Seconds the engine took for a block.
    pub execution: Histogram,
    /// Seconds from asking for a signature to having it, guard included.
    pub signing: Histogram,
    /// Proposals whose outcome was unknown at first.
    pub unknown: Counter,
    /// Rounds that ended without a block although one was due.
    pub failures: Counter,
}

/// The label of a duration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Operation {
    /// ev-node's word for it.
    pub operation: &'static str,
}

/// Durations from a quarter of a millisecond to ten seconds.
fn seconds() -> Histogram {
    Histogram::new([
        0.000_25, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
    ])
}

impl Default for Metrics {
    fn default() -> Self {
        let txs = [0.0, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10_000.0];
        Self {
            blocks: Counter::default(),
            txs: Gauge::default(),
            last_txs: Gauge::default(),
            last_bytes: Gauge::default(),
            last_height: Gauge::default(),
            txs_per_block: Histogram::new(txs),
            operations: Family::new_with_constructor(seconds),
            commit: seconds(),
            execution: seconds(),
            signing: seconds(),
            unknown: Counter::default(),
            failures: Counter::default(),
        }
    }
}

impl Metrics {
    /// Makes the metrics visible, under ev-node's names where the meaning is equal.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("sequencer");
        registry.register("latest_block_height", "Last block made here", self.last_height.clone());
        registry.register("num_txs", "Transactions in the last block", self.last_txs.clone());
        registry.register("block_size_bytes", "Transaction bytes in the last block", self.last_bytes.clone());
        registry.register("blocks_produced", "Blocks committed by this producer", self.blocks.clone());
        registry.register("total_txs", "Transactions in blocks made here", self.txs.clone());
        registry.register("txs_per_block", "Transactions per block", self.txs_per_block.clone());
        registry.register("operation_duration_seconds", "Duration by operation", self.operations.clone());
        registry.register("block_commit_seconds", "Proposed to committed", self.commit.clone());
        registry.register("block_execution_seconds", "The engine's time", self.execution.clone());
        registry.register("block_signing_seconds", "Guard and signature", self.signing.clone());
        registry.register("proposals_unknown", "Proposals of unknown outcome", self.unknown.clone());
        registry.register("production_failures", "Due blocks that were not made", self.failures.clone());
    }
}
