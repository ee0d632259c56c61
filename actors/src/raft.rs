//! The Raft actor owns consensus: openraft, its store and its transport.
//!
//! It replicates what producers propose and tells everybody what was applied and who leads. It
//! fences: a proposal goes to openraft with the term of its grant, and openraft refuses it
//! before the append when that term is over; apply checks again. A storage error stops Raft,
//! never the process: the store is opened again with growing pauses (P8).

pub mod network;
pub mod transport;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, MessageResult, Recipient, ResponseFuture,
    WrapFuture,
};
use baton_messages::command::{BlockEntry, Command, Verdict};
use baton_messages::raft::{
    Applied, Committed, GetRaftView, LeadershipChanged, LeaseChanged, ProposeBlock, ProposeError,
    RaftHealthChanged, RaftView, Record, Settle, TermApplied,
};
use baton_messages::supervisor::{IntegrityStop, Shutdown};
use baton_messages::types::{LogIndex, Member, MemberId, Role, Term};
use baton_storage::backend::StoreError;
use baton_storage::raft_types::TypeConfig;
use baton_storage::{OpenError, StateMachine, Store};
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, Fatal, ForwardReason, ForwardToLeader};
use openraft::impls::ProgressResponder;
use openraft::{Instant, RaftMetrics, ServerState, SnapshotPolicy};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tracing::{debug, error, info, warn};

type Openraft = openraft::Raft<TypeConfig, StateMachine>;

/// How Raft behaves. The relations between the times are checked by the node's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// This member, as it stands in the membership.
    pub member: Member,
    /// Pause between two heartbeats.
    pub heartbeat_interval: Duration,
    /// The shortest election time-out.
    pub election_timeout_min: Duration,
    /// The longest, which is also the leader's lease.
    pub election_timeout_max: Duration,
    /// Log entries between two snapshots.
    pub snapshot_after: u64,
    /// Log entries kept behind a snapshot.
    pub keep_entries: u64,
    /// The first pause before the store is opened again; it doubles up to `longest_pause`.
    pub reopen_after: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
}

/// Everything Raft says, and to whom.
#[derive(Clone, Debug)]
pub struct Links {
    /// Hear who leads.
    pub leadership: Vec<Recipient<LeadershipChanged>>,
    /// Hear that this term's first own entry is applied.
    pub term_applied: Vec<Recipient<TermApplied>>,
    /// Hears whether a quorum acknowledges this leader.
    pub lease: Recipient<LeaseChanged>,
    /// Hear that the store grew.
    pub applied: Vec<Recipient<Applied>>,
    /// Hears whether Raft runs.
    pub health: Recipient<RaftHealthChanged>,
    /// Ends the process when a person is needed.
    pub integrity_stop: Recipient<IntegrityStop>,
}

/// What Raft counts.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// The last log index.
    pub last_log: Gauge,
    /// The last committed index.
    pub committed: Gauge,
    /// The last applied index.
    pub applied: Gauge,
    /// Voters.
    pub voters: Gauge,
    /// Proposals refused before the append because their term is over or there is no quorum.
    pub fenced: Counter,
    /// Proposals refused by apply.
    pub refused: Counter,
    /// Times the store had to be opened again.
    pub reopened: Counter,
}

impl Metrics {
    /// Makes the metrics visible.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("raft");
        registry.register("last_log_index", "Last index in the log", self.last_log.clone());
        registry.register("committed_index", "Last committed index", self.committed.clone());
        registry.register("applied_index", "Last applied index", self.applied.clone());
        registry.register("voters", "Voters in the membership", self.voters.clone());
        registry.register("fenced", "Proposals refused before the append", self.fenced.clone());
        registry.register("refused", "Proposals refused by apply", self.refused.clone());
        registry.register("reopened", "Times the store was opened again", self.reopened.clone());
    }
}

/// Why Raft does not run.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("raft cannot start: {0}")]
    Start(String),
    #[error("the store cannot be opened: {0}")]
    Open(#[from] OpenError),
}

/// The Raft actor.
#[derive(Debug)]
pub struct Raft {
    config: Config,
    links: Links,
    metrics: Metrics,
    store: Store,
    raft: Option<Openraft>,
    /// Why there is none.
    trouble: Option<String>,
    failures: u32,
    /// When Raft began to run.
    opened_at: Option<tokio::time::Instant>,
    told: Option<LeadershipChanged>,
    told_applied: Option<Term>,
    lease_held: bool,
    proposing: Rc<Cell<bool>>,
    /// Wakes who waits for the end of a proposal.
    settled: Rc<tokio::sync::Notify>,
    closing: bool,
}

impl Raft {
    /// Raft over this store; it starts when the actor does.
    #[must_use]
    pub fn new(config: Config, links: Links, metrics: Metrics, store: Store) -> Self {
        Self {
            config,
            links,
            metrics,
            store,
            raft: None,
            trouble: None,
            failures: 0,
            opened_at: None,
            told: None,
            told_applied: None,
            lease_held: false,
            proposing: Rc::default(),
            settled: Rc::default(),
            closing: false,
        }
    }

    fn begin_open(&mut self, ctx: &mut Context<Self>) {
        let opening = open(self.config.clone(), self.links.applied.clone(), self.store.clone());
        ctx.spawn(opening.into_actor(self).map(|raft, this, ctx| this.end_open(raft, ctx)));
    }

    fn end_open(&mut self, raft: Result<Openraft, Error>, ctx: &mut Context<Self>) {
        match raft {
            Ok(raft) => {
                info!(member = %raft.node_id(), "raft runs");
                let watch = raft.metrics();
                self.raft = Some(raft);
                self.opened_at = Some(tokio::time::Instant::now());
                if self.trouble.take().is_some() {
                    self.links.health.do_send(RaftHealthChanged { trouble: None });
                }
                self.observe(&watch, ctx);
            }
            Err(error) => self.begin_reopen(error.to_string(), ctx),
        }
    }

    /// Tells what the metrics say and waits for the next change.
    fn observe(&mut self, watch: &MetricsWatch, ctx: &mut Context<Self>) {
        if self.closing {
            return;
        }
        let metrics = watch.borrow_watched().clone();
        if let Err(fatal) = &metrics.running_state {
            return self.end_in_fatal(fatal, ctx);
        }
        self.tell(&metrics);
        let mut next = watch.clone();
        let changed = async move {
            let alive = next.changed().await.is_ok();
            (next, alive)
        };
        ctx.spawn(changed.into_actor(self).map(|(watch, alive), this, ctx| {
            if alive {
                this.observe(&watch, ctx);
            } else if this.raft.is_some() {
                this.begin_reopen("raft ended".to_owned(), ctx);
            }
        }));
    }

    fn tell(&mut self, metrics: &RaftMetrics<TypeConfig>) {
        let term = Term(metrics.current_term);
        let role = role(metrics.state);
        let index = |id: Option<_>| id.map_or(0, |id: baton_storage::raft_types::LogId| id.index);
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.metrics.last_log.set(gauge(metrics.last_log_index.unwrap_or(0)));
        self.metrics.committed.set(gauge(index(metrics.local_committed)));
        self.metrics.applied.set(gauge(index(metrics.last_applied)));
        self.metrics.voters.set(gauge(metrics.membership_config.membership().voter_ids().count() as u64));

        let leadership = LeadershipChanged { term, role, leader: metrics.current_leader };
        if self.told.as_ref() != Some(&leadership) {
            self.told = Some(leadership.clone());
            for link in &self.links.leadership {
                link.do_send(leadership.clone());
            }
        }
        let own_entry_applied =
            metrics.last_applied.is_some_and(|id| id.committed_leader_id().term == term.0);
        if role == Role::Leader && own_entry_applied && self.told_applied != Some(term) {
            self.told_applied = Some(term);
            let applied = TermApplied { term, tip: self.store.reader().tip() };
            for link in &self.links.term_applied {
                link.do_send(applied);
            }
        }
    }

    /// The leader's lease: openraft refuses proposals when it has lapsed, this tells why.
    fn check_lease(&mut self) {
        let Some(raft) = &self.raft else { return };
        let (term, held) = {
            let watch = raft.metrics();
            let metrics = watch.borrow_watched();
            let leads = metrics.state == ServerState::Leader;
            let sole = metrics.membership_config.membership().voter_ids().count() == 1;
            let acknowledged = metrics.last_quorum_acked.as_ref();
            let fresh = acknowledged.is_some_and(|at| at.elapsed() < self.config.election_timeout_max);
            (Term(metrics.current_term), leads && (sole || fresh))
        };
        if held != self.lease_held {
            self.lease_held = held;
            self.links.lease.do_send(LeaseChanged { term, held });
        }
    }

    fn end_in_fatal(&mut self, fatal: &Fatal<TypeConfig>, ctx: &mut Context<Self>) {
        if self.closing {
            return;
        }
        error!(%fatal, "raft stopped");
        self.begin_reopen(fatal.to_string(), ctx);
    }

    /// Nobody leads here until the store is open again.
    fn begin_reopen(&mut self, trouble: String, ctx: &mut Context<Self>) {
        if self.closing {
            return;
        }
        let raft = self.raft.take();
        // A store that opens and fails at once must not start over with the shortest pause.
        if self.opened_at.take().is_some_and(|at| at.elapsed() > self.config.longest_pause) {
            self.failures = 0;
        }
        self.failures += 1;
        self.told_applied = None;
        let (term, role) = (self.told.as_ref().map_or(Term(0), |told| told.term), Role::Learner);
        let leadership = LeadershipChanged { term, role, leader: None };
        self.told = Some(leadership.clone());
        for link in &self.links.leadership {
            link.do_send(leadership.clone());
        }
        let trouble = self.store.trouble().map_or(trouble, |trouble| trouble.to_string());
        self.links.health.do_send(RaftHealthChanged { trouble: Some(trouble.clone()) });
        self.trouble = Some(trouble);
        if let Some(StoreError::Corrupt(reason)) = self.store.trouble() {
            // Opening it again would forget what was seen.
            return self.links.integrity_stop.do_send(IntegrityStop { reason });
        }
        let pause =
            (self.config.reopen_after * 2u32.pow(self.failures.min(16) - 1)).min(self.config.longest_pause);
        warn!(?pause, "opening the store again");
        let store = self.store.clone();
        let reopened = async move {
            if let Some(raft) = raft {
                let _ = raft.shutdown().await;
            }
            tokio::time::sleep(pause).await;
            store.reopen().await
        };
        ctx.spawn(reopened.into_actor(self).map(|reopened, this, ctx| match reopened {
            Ok(()) if this.closing => {}
            Ok(()) => {
                this.metrics.reopened.inc();
                this.begin_open(ctx);
            }
            Err(OpenError::Damaged(reason)) => {
                this.links.integrity_stop.do_send(IntegrityStop { reason });
            }
            Err(error) => this.begin_reopen(error.to_string(), ctx),
        }));
    }

    fn write(
        &self,
        term: Term,
        command: Command,
    ) -> impl Future<Output = Result<(LogIndex, Verdict), ProposeError>> + use<> {
        let raft = self.raft.clone();
        let trouble = self.trouble.clone().unwrap_or_else(|| "not started yet".to_owned());
        async move {
            let raft = raft.ok_or(ProposeError::Stopped(trouble))?;
            fail::fail_point!("raft.before_write");
            let (responder, done) = ProgressResponder::complete_only();
            let stopped = |fatal: Fatal<TypeConfig>| ProposeError::Stopped(fatal.to_string());
            raft.write(command).with_leader(term.0).responder(responder).await.map_err(stopped)?;
            // From here on the entry may be in the log.
            let reply = done.await.map_err(|_| ProposeError::Unknown("raft stopped".to_owned()))?;
            let reply = reply.map_err(|error| unwritten(&raft, error))?;
            fail::fail_point!("raft.after_write");
            Ok((LogIndex(reply.log_id.index), reply.data))
        }
    }
}

type MetricsWatch = openraft::alias::WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>;

impl Actor for Raft {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.begin_open(ctx);
        ctx.run_interval(self.config.heartbeat_interval, |this, _| this.check_lease());
    }
}

impl Handler<ProposeBlock> for Raft {
    type Result = ResponseFuture<Result<Committed, ProposeError>>;

    fn handle(&mut self, message: ProposeBlock, _: &mut Context<Self>) -> Self::Result {
        let term = message.grant.term;
        if self.proposing.replace(true) {
            let reason = "another proposal is in flight".to_owned();
            return Box::pin(std::future::ready(Err(ProposeError::NotLeader { term, reason })));
        }
        let ProposeBlock { block, tail, forced, .. } = message;
        let written = self.write(term, Command::Block(BlockEntry { term, block, tail, forced }));
        let metrics = self.metrics.clone();
        let (proposing, settled) = (self.proposing.clone(), self.settled.clone());
        Box::pin(async move {
            let outcome = match written.await {
                Ok((index, Verdict::Committed(tip))) => Ok(Committed { tip, index }),
                Ok((_, Verdict::Refused(refusal, tip))) => {
                    metrics.refused.inc();
                    error!(?refusal, %tip, "apply refused a block");
                    Err(ProposeError::Refused { refusal, tip })
                }
                Ok((index, verdict)) => Err(ProposeError::Unknown(format!("entry {index} became {verdict}"))),
                Err(error) => Err(error),
            };
            if matches!(outcome, Err(ProposeError::NotLeader { .. } | ProposeError::NoQuorum)) {
                metrics.fenced.inc();
            }
            proposing.set(false);
            settled.notify_waiters();
            outcome
        })
    }
}

impl Handler<Settle> for Raft {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Settle, _: &mut Context<Self>) -> Self::Result {
        let (proposing, settled) = (self.proposing.clone(), self.settled.clone());
        Box::pin(async move {
            while proposing.get() {
                settled.notified().await;
            }
        })
    }
}

impl Handler<Record> for Raft {
    type Result = ResponseFuture<Result<(), ProposeError>>;

    fn handle(&mut self, message: Record, _: &mut Context<Self>) -> Self::Result {
        debug!(command = %message.command, "recording");
        let written = self.write(message.grant.term, message.command);
        Box::pin(async move {
            match written.await? {
                (_, Verdict::Refused(refusal, tip)) => Err(ProposeError::Refused { refusal, tip }),
                (_, Verdict::Committed(_) | Verdict::Recorded | Verdict::Internal) => Ok(()),
            }
        })
    }
}

impl Handler<Shutdown> for Raft {
    type Result = ResponseFuture<()>;

    /// Ends openraft before the store is closed under it.
    fn handle(&mut self, _: Shutdown, _: &mut Context<Self>) -> Self::Result {
        self.closing = true;
        let raft = self.raft.take();
        Box::pin(async move {
            if let Some(raft) = raft {
                let _ = raft.shutdown().await;
            }
        })
    }
}

impl Handler<GetRaftView> for Raft {
    type Result = MessageResult<GetRaftView>;

    fn handle(&mut self, _: GetRaftView, _: &mut Context<Self>) -> Self::Result {
        let id = MemberId::of(self.config.member.storage);
        let Some(raft) = &self.raft else {
            return MessageResult(RaftView { id, ..RaftView::default() });
        };
        let watch = raft.metrics();
        let metrics = watch.borrow_watched();
        let membership = metrics.membership_config.membership();
        let known = |id: MemberId| (id, membership.get_node(&id).cloned().unwrap_or_default());
        let index = |id: Option<_>| LogIndex(id.map_or(0, |id: baton_storage::raft_types::LogId| id.index));
        MessageResult(RaftView {
            id,
            role: role(metrics.state),
            term: Term(metrics.current_term),
            leader: metrics.current_leader.map(known),
            last_log: LogIndex(metrics.last_log_index.unwrap_or(0)),
            committed: index(metrics.local_committed),
            applied: index(metrics.last_applied),
            voters: membership.voter_ids().map(known).collect(),
            learners: membership.learner_ids().map(known).collect(),
        })
    }
}

/// Starts openraft over the store. A store that was initialised by an operator and never led
/// anything becomes a cluster of one (bootstrap is explicit: an empty directory has no store).
async fn open(config: Config, applied: Vec<Recipient<Applied>>, store: Store) -> Result<Openraft, Error> {
    let id = MemberId::of(config.member.storage);
    let settings = settings(&config).map_err(|error| Error::Start(error.to_string()))?;
    let log = store.log();
    let machine = store.state_machine(Box::new(move |event| {
        for link in &applied {
            link.do_send(Applied { tip: event.tip });
        }
    }));
    let start = |error: Fatal<TypeConfig>| Error::Start(error.to_string());
    let raft = Openraft::new(id, settings, network::Nobody, log, machine).await.map_err(start)?;
    if !raft.is_initialized().await.map_err(start)? {
        info!(member = %id, name = %config.member.name, "forming a cluster of one");
        let members = BTreeMap::from([(id, config.member)]);
        raft.initialize(members).await.map_err(|error| Error::Start(error.to_string()))?;
    }
    Ok(raft)
}

fn settings(config: &Config) -> Result<Arc<openraft::Config>, openraft::ConfigError> {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let settings = openraft::Config {
        cluster_name: "baton".to_owned(),
        heartbeat_interval: millis(config.heartbeat_interval),
        election_timeout_min: millis(config.election_timeout_min),
        election_timeout_max: millis(config.election_timeout_max),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_after),
        max_in_snapshot_log_to_keep: config.keep_entries,
        // A sequencer that comes back asks again: nobody knows what happened meanwhile.
        enable_leader_restore: Some(false),
        enable_pre_vote: Some(true),
        ..openraft::Config::default()
    };
    Ok(Arc::new(settings.validate()?))
}

const fn role(state: ServerState) -> Role {
    match state {
        ServerState::Learner | ServerState::Shutdown => Role::Learner,
        ServerState::Follower => Role::Follower,
        ServerState::Candidate => Role::Candidate,
        ServerState::Leader => Role::Leader,
    }
}

/// Chooses the outcome of a proposal that has no verdict: every case of openraft's is named.
fn unwritten(raft: &Openraft, error: ClientWriteError<TypeConfig>) -> ProposeError {
    let term = Term(raft.metrics().borrow_watched().current_term);
    match error {
        ClientWriteError::ForwardToLeader(ForwardToLeader {
            reason: ForwardReason::LeaseExpired, ..
        }) => ProposeError::NoQuorum,
        ClientWriteError::ForwardToLeader(forward) => {
            ProposeError::NotLeader { term, reason: forward.to_string() }
        }
        ClientWriteError::PreconditionFailed(failed) => {
            ProposeError::NotLeader { term, reason: failed.to_string() }
        }
        ClientWriteError::ChangeMembershipError(error) => {
            ProposeError::NotLeader { term, reason: error.to_string() }
        }
        ClientWriteError::LogEntryDiscarded(_) => ProposeError::Unknown(error.to_string()),
    }
}
