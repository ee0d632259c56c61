//! What is counted while a chain is followed.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Where a block came from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Source {
    /// `da` or `p2p`.
    pub source: &'static str,
}

/// Why a piece was not kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Refused {
    /// `invalid`, `no_room`, `future`, `foreign`.
    pub reason: &'static str,
}

/// What is counted.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Blocks that entered the store, by where their header came from.
    pub blocks: Family<Source, Counter>,
    /// Pieces that were not kept.
    pub refused: Family<Refused, Counter>,
    /// Pieces that wait.
    pub pending: Gauge,
    /// Bytes of the data that wait.
    pub pending_bytes: Gauge,
    /// The highest header of the proposer that was seen.
    pub highest: Gauge,
    /// From here DA would be read after a restart.
    pub cursor: Gauge,
    /// Blocks that are known to be missing.
    pub blocks_left: Gauge,
    /// DA blocks that are not read.
    pub da_left: Gauge,
    /// Seconds until the node is level, at the rate of late; -1 when that is not known.
    pub seconds_left: Gauge,
    /// Pairs of headers that cannot both be in one chain. Anything but zero needs a person.
    pub forks: Gauge,
    /// Transactions that the proposer left out though they were forced. Anything but zero needs a
    /// person.
    pub left_out: Counter,
}

impl Metrics {
    /// Makes the metrics visible.
    pub fn register(&self, registry: &mut Registry) {
        registry.sub_registry_with_prefix("sequencer").register(
            "forced_inclusion_txs_malicious",
            "Forced transactions that the proposer left out",
            self.left_out.clone(),
        );
        let registry = registry.sub_registry_with_prefix("sync");
        registry.register("blocks_synchronized", "Blocks that entered the store", self.blocks.clone());
        registry.register("refused", "Headers and data that were not kept", self.refused.clone());
        registry.register("pending", "Headers and data that wait for their turn", self.pending.clone());
        registry.register("pending_bytes", "Bytes of the data that wait", self.pending_bytes.clone());
        registry.register("highest", "Highest header of the proposer that was seen", self.highest.clone());
        registry.register("da_cursor", "Where reading DA begins after a restart", self.cursor.clone());
        registry.register("blocks_left", "Blocks known to be missing", self.blocks_left.clone());
        registry.register("da_left", "DA blocks not read yet", self.da_left.clone());
        registry.register(
            "seconds_left",
            "Estimated time until level; -1: not known",
            self.seconds_left.clone(),
        );
        registry.register("forks", "Pairs of headers that cannot both be in one chain", self.forks.clone());
    }

    pub(super) fn refuse(&self, reason: &'static str) {
        self.refused.get_or_create(&Refused { reason }).inc();
    }
}
