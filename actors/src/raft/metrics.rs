//! What Raft counts and measures.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use tokio::time::Instant;
use tracing::error;

use super::admit::Denial;
use super::kept::Lost;
use super::transport::{CallError, Class};

/// How often a member that has lost something is named in the log.
const NAMED_EVERY: Duration = Duration::from_secs(60);

/// About one other member.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Peer {
    /// Its name.
    pub member: String,
}

/// Calls to a member that have no answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Failure {
    /// Its name.
    pub member: String,
    /// The class of the call.
    pub class: &'static str,
    /// Why there is none.
    pub cause: &'static str,
}

/// Calls of others that were not answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Refused {
    /// Why.
    pub cause: &'static str,
}

/// What Raft counts.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// The last log index.
    pub last_log: Gauge,
    /// The last committed index.
    pub committed: Gauge,
    /// The last applied index.
    pub applied: Gauge,
    /// The last purged index.
    pub purged: Gauge,
    /// Voters.
    pub voters: Gauge,
    /// Learners.
    pub learners: Gauge,
    /// The version of log entries in force.
    pub command_version: Gauge,
    /// Proposals refused before the append because their term is over or there is no quorum.
    pub fenced: Counter,
    /// Proposals refused by apply.
    pub refused: Counter,
    /// Times the store had to be opened again.
    pub reopened: Counter,
    /// Times Raft was built anew over an open store, after a transfer nobody took.
    pub rebuilt: Counter,
    /// Times this node stood for election.
    pub elections: Counter,
    /// Changes of the leader seen here.
    pub leader_changes: Counter,
    /// Snapshots sent to members behind the log.
    pub snapshots_sent: Counter,
    /// Snapshots taken over from a leader.
    pub snapshots_installed: Counter,
    /// The last index that the newest of them covers.
    pub snapshot_index: Gauge,
    /// Transactions forwarded to a leader.
    pub forwarded: Counter,
    /// Transactions taken for others while leading.
    pub forwarded_here: Counter,
    /// Blocks served to others.
    pub blocks_served: Counter,
    /// Conditions dropped because the one before was still on its way.
    pub conditions_dropped: Counter,
    /// From a proposal to its verdict: one quorum round, fsync and apply.
    pub commit: Histogram,
    /// From commit to apply, here.
    pub apply: Histogram,
    /// From sending entries to a member to their being durable there.
    pub append: Family<Peer, Histogram, fn() -> Histogram>,
    /// Entries a member's log is behind this leader's.
    pub lag: Family<Peer, Gauge>,
    /// Up to where a member's log is this leader's.
    pub matched: Family<Peer, Gauge>,
    /// Seconds since a member answered.
    pub last_contact: Family<Peer, Gauge<f64, AtomicU64>>,
    /// Calls to members without an answer.
    pub failures: Family<Failure, Counter>,
    /// Calls of others that were denied.
    pub denied: Family<Refused, Counter>,
    /// Words of members whose disk was put back to an earlier state.
    pub reverted: Family<Peer, Counter>,
    contacts: Arc<Mutex<BTreeMap<String, Instant>>>,
    /// When such a member was named in the log last.
    named: Arc<Mutex<BTreeMap<String, Instant>>>,
}

fn latency() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 2.0, 18))
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            last_log: Gauge::default(),
            committed: Gauge::default(),
            applied: Gauge::default(),
            purged: Gauge::default(),
            voters: Gauge::default(),
            learners: Gauge::default(),
            command_version: Gauge::default(),
            fenced: Counter::default(),
            refused: Counter::default(),
            reopened: Counter::default(),
            rebuilt: Counter::default(),
            elections: Counter::default(),
            leader_changes: Counter::default(),
            snapshots_sent: Counter::default(),
            snapshots_installed: Counter::default(),
            snapshot_index: Gauge::default(),
            forwarded: Counter::default(),
            forwarded_here: Counter::default(),
            blocks_served: Counter::default(),
            conditions_dropped: Counter::default(),
            commit: latency(),
            apply: latency(),
            append: Family::new_with_constructor(latency),
            lag: Family::default(),
            matched: Family::default(),
            last_contact: Family::default(),
            failures: Family::default(),
            denied: Family::default(),
            reverted: Family::default(),
            contacts: Arc::default(),
            named: Arc::default(),
        }
    }
}

impl Metrics {
    /// Makes the metrics visible.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("raft");
        registry.register("last_log_index", "Last index in the log", self.last_log.clone());
        registry.register("committed_index", "Last committed index", self.committed.clone());
        registry.register("applied_index", "Last applied index", self.applied.clone());
        registry.register("purged_index", "Last purged index", self.purged.clone());
        registry.register("voters", "Voters in the membership", self.voters.clone());
        registry.register("learners", "Learners in the membership", self.learners.clone());
        registry.register("command_version", "Version of log entries in force", self.command_version.clone());
        registry.register("fenced", "Proposals refused before the append", self.fenced.clone());
        registry.register("refused", "Proposals refused by apply", self.refused.clone());
        registry.register("reopened", "Times the store was opened again", self.reopened.clone());
        registry.register(
            "reverted",
            "Words of members whose disk was put back to an earlier state, which count for nothing",
            self.reverted.clone(),
        );
        registry.register(
            "rebuilt",
            "Times Raft was built anew because nobody took leadership over",
            self.rebuilt.clone(),
        );
        registry.register("elections", "Times this node stood for election", self.elections.clone());
        registry.register("leader_changes", "Changes of the leader seen here", self.leader_changes.clone());
        registry.register("snapshots_sent", "Snapshots sent to members", self.snapshots_sent.clone());
        registry.register(
            "snapshots_installed",
            "Snapshots taken over from a leader",
            self.snapshots_installed.clone(),
        );
        registry.register(
            "snapshot_index",
            "Last index that the newest snapshot taken over from a leader covers",
            self.snapshot_index.clone(),
        );
        registry.register("txs_forwarded", "Transactions forwarded to a leader", self.forwarded.clone());
        registry.register(
            "txs_forwarded_here",
            "Transactions taken for other members while leading",
            self.forwarded_here.clone(),
        );
        registry.register("blocks_served", "Blocks served to other members", self.blocks_served.clone());
        registry.register(
            "conditions_dropped",
            "Conditions not sent because the one before was still on its way",
            self.conditions_dropped.clone(),
        );
        let seconds = Unit::Seconds;
        registry.register_with_unit(
            "commit",
            "From a proposal to its verdict",
            seconds.clone(),
            self.commit.clone(),
        );
        registry.register_with_unit("apply", "From commit to apply", seconds.clone(), self.apply.clone());
        registry.register_with_unit(
            "append",
            "From sending entries to a member to their being durable there",
            seconds.clone(),
            self.append.clone(),
        );
        registry.register("member_lag", "Entries a member is behind this leader", self.lag.clone());
        registry.register(
            "member_matched_index",
            "Up to where a member's log is this leader's",
            self.matched.clone(),
        );
        registry.register_with_unit(
            "member_last_contact",
            "Since a member answered last",
            seconds,
            self.last_contact.clone(),
        );
        registry.register("call_failures", "Calls to members without an answer", self.failures.clone());
        registry.register("calls_denied", "Calls of others that were denied", self.denied.clone());
        for denial in Denial::ALL {
            drop(self.denied.get_or_create(&Refused { cause: denial.name() }));
        }
    }

    /// A call has no answer.
    pub(super) fn call_failed(&self, member: &str, class: Class, error: &CallError) {
        let cause = match error {
            CallError::Unreachable(_) => "unreachable",
            CallError::TimedOut(_) => "timed_out",
            CallError::Refused(_) => "refused",
            CallError::Denied(_) => "denied",
            CallError::TooLarge { .. } => "too_large",
        };
        let label = Failure { member: member.to_owned(), class: class.name(), cause };
        self.failures.get_or_create(&label).inc();
    }

    /// A call of another is not answered.
    pub(super) fn deny(&self, denial: Denial) {
        self.denied.get_or_create(&Refused { cause: denial.name() }).inc();
    }

    /// A member has lost what it had. Named in the log once a minute.
    pub(super) fn found_reverted(&self, member: &str, lost: &Lost) {
        self.reverted.get_or_create(&Peer { member: member.to_owned() }).inc();
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if named.get(member).is_none_or(|at| at.elapsed() >= NAMED_EVERY) {
            named.insert(member.to_owned(), Instant::now());
            error!(member, reason = %lost, "a member has lost what it had: it has no say");
        }
    }

    /// A member answered.
    pub(super) fn heard(&self, member: &str) {
        self.contacts().insert(member.to_owned(), Instant::now());
    }

    /// Entries are durable at a member.
    pub(super) fn appended(&self, member: &str, took: Duration) {
        self.append.get_or_create(&Peer { member: member.to_owned() }).observe(took.as_secs_f64());
    }

    fn contacts(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Instant>> {
        self.contacts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says how long members have not answered; those that are no members are forgotten.
    pub(super) fn age_contacts(&self, is_member: impl Fn(&str) -> bool) {
        self.contacts().retain(|name, at| {
            let peer = Peer { member: name.clone() };
            let kept = is_member(name);
            if kept {
                self.last_contact.get_or_create(&peer).set(at.elapsed().as_secs_f64());
            } else {
                self.last_contact.remove(&peer);
                self.lag.remove(&peer);
                self.matched.remove(&peer);
            }
            kept
        });
    }

    /// Up to where a member's log is this leader's.
    pub(super) fn progress(&self, member: &str, matched: u64, last: u64) {
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let peer = Peer { member: member.to_owned() };
        self.matched.get_or_create(&peer).set(gauge(matched));
        self.lag.get_or_create(&peer).set(gauge(last.saturating_sub(matched)));
    }

    /// This node does not lead: it knows nobody's progress.
    pub(super) fn forget_progress(&self) {
        self.matched.clear();
        self.lag.clear();
    }
}
