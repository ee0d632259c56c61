//! The Raft actor owns consensus: openraft, its store and its transport.
//!
//! It replicates what producers propose and tells everybody what was applied and who leads. It
//! fences: a proposal goes to openraft with the term of its grant, and openraft refuses it
//! before the append when that term is over; apply checks again. A storage error stops Raft,
//! never the process: the store is opened again with growing pauses (P8).

pub mod admit;
pub mod bootstrap;
mod change;
mod joining;
pub mod members;
pub mod metrics;
pub mod network;
mod ports;
pub mod retention;
mod serve;
mod shared;
mod tending;
mod transfer;
pub mod transport;
pub mod wire;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, MessageResult, Recipient, ResponseFuture,
    WrapFuture,
};
use baton_messages::cluster::{ForwardedTxs, MemberTold, MembersChanged};
use baton_messages::command::{BlockEntry, Command, Verdict};
use baton_messages::raft::{
    Applied, BlocksApplied, Committed, GetRaftView, LeadershipChanged, LeaseChanged, ProposeBlock,
    ProposeError, RaftHealthChanged, RaftView, Record, Settle, TermApplied,
};
use baton_messages::supervisor::{IntegrityStop, Shutdown};
use baton_messages::types::{LogIndex, Member, MemberId, Role, Term};
use baton_storage::backend::StoreError;
use baton_storage::raft_types::TypeConfig;
use baton_storage::{OpenError, StateMachine, Store};
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, Fatal, ForwardReason, ForwardToLeader};
use openraft::impls::ProgressResponder;
use openraft::{Instant, RaftMetrics, ServerState, SnapshotPolicy, StepDownPolicy};
use tracing::{debug, error, info, warn};
use uuid::Uuid;

pub use bootstrap::{Bootstrap, Peer};
pub use metrics::Metrics;

use network::Network;
use shared::{Shared, Times};
use transport::Transport;

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
    /// Bytes of log records (without block bodies, which stay) that are kept at the most.
    pub keep_bytes: u64,
    /// How a node without a membership comes to one.
    pub bootstrap: Bootstrap,
    /// The identity of a cluster that this node makes; random, and only used then.
    pub fresh_cluster: Uuid,
    /// How long a question to another member may take: blocks, a snapshot, forwarded transactions.
    pub question_within: Duration,
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
    /// Hears how other members are.
    pub told: Recipient<MemberTold>,
    /// Hear that the membership is another.
    pub members: Vec<Recipient<MembersChanged>>,
    /// Keep a record of every block. What is lost on the way shows as a gap.
    pub blocks: Vec<Recipient<BlocksApplied>>,
    /// Takes transactions that other members forward to this leader.
    pub forwarded: Recipient<ForwardedTxs>,
    /// Ends the process when a person is needed.
    pub integrity_stop: Recipient<IntegrityStop>,
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
    shared: Arc<Shared>,
    raft: Option<Openraft>,
    /// Lives as long as the state machine of the instance: one that was shut down may still
    /// apply what it began.
    machine: Arc<()>,
    /// Why there is none.
    trouble: Option<String>,
    failures: u32,
    /// Counts the instances of openraft: what an earlier one says counts no more.
    instance: u64,
    /// When Raft began to run.
    opened_at: Option<tokio::time::Instant>,
    told: Option<LeadershipChanged>,
    told_applied: Option<Term>,
    told_members: Option<MembersChanged>,
    /// Whether it may stand when no leader is heard; kept over a new instance.
    may_campaign: bool,
    /// Whether heartbeats are sent; kept over a new instance.
    heartbeats: bool,
    /// Whether nothing is said as a leader now.
    silent: Arc<AtomicBool>,
    lease_held: bool,
    tended: tending::Tended,
    /// Members that a condition is on its way to.
    telling: BTreeSet<MemberId>,
    proposing: Rc<Cell<bool>>,
    /// Wakes who waits for the end of a proposal.
    settled: Rc<tokio::sync::Notify>,
    closing: bool,
}

impl Raft {
    /// Raft over this store and transport; it starts when the actor does.
    #[must_use]
    pub fn new(
        config: Config,
        links: Links,
        metrics: Metrics,
        store: Store,
        transport: Arc<dyn Transport>,
    ) -> Self {
        let shared = Arc::new(Shared::new(
            config.member.clone(),
            store.clone(),
            transport,
            metrics.clone(),
            links.told.clone(),
            links.forwarded.clone(),
            config.bootstrap.names(&config.member.name),
            Times { election_max: config.election_timeout_max, question: config.question_within },
        ));
        Self {
            config,
            links,
            metrics,
            store,
            shared,
            machine: Arc::default(),
            raft: None,
            trouble: None,
            failures: 0,
            instance: 0,
            opened_at: None,
            told: None,
            told_applied: None,
            told_members: None,
            may_campaign: true,
            heartbeats: true,
            silent: Arc::default(),
            lease_held: false,
            tended: tending::Tended::default(),
            telling: BTreeSet::new(),
            proposing: Rc::default(),
            settled: Rc::default(),
            closing: false,
        }
    }

    fn begin_open(&mut self, ctx: &mut Context<Self>) {
        let opening = self.opening();
        ctx.spawn(opening.into_actor(self).map(|raft, this, ctx| this.end_open(raft, ctx)));
    }

    /// Builds an instance over the open store, once the one before has let go of it.
    fn opening(&self) -> impl Future<Output = Result<Openraft, Error>> + use<> {
        let network = Network {
            transport: self.shared.transport.clone(),
            store: self.store.clone(),
            own: self.shared.id(),
            metrics: self.metrics.clone(),
            heartbeat: self.config.heartbeat_interval,
            append_within: self.config.election_timeout_max,
            snapshot_within: self.config.question_within,
            silent: self.silent.clone(),
        };
        open(
            self.config.clone(),
            (self.links.applied.clone(), self.links.blocks.clone()),
            self.shared.clone(),
            network,
            self.machine.clone(),
        )
    }

    fn end_open(&mut self, raft: Result<Openraft, Error>, ctx: &mut Context<Self>) {
        match raft {
            Ok(raft) if self.closing => {
                ctx.spawn(async move { drop(raft.shutdown().await) }.into_actor(self));
            }
            Ok(raft) => {
                info!(member = %raft.node_id(), "raft runs");
                let watch = raft.metrics();
                self.run(raft, ctx);
                self.opened_at = Some(tokio::time::Instant::now());
                if self.trouble.take().is_some() {
                    self.links.health.do_send(RaftHealthChanged { trouble: None });
                }
                self.observe(&watch, self.instance, ctx);
            }
            Err(error) => self.begin_reopen(error.to_string(), ctx),
        }
    }

    /// From now on this instance is Raft here.
    fn run(&mut self, raft: Openraft, ctx: &mut Context<Self>) {
        self.instance += 1;
        raft.runtime_config().elect(self.may_campaign);
        raft.runtime_config().heartbeat(self.heartbeats);
        self.shared.set_raft(Some(raft.clone()));
        self.raft = Some(raft.clone());
        self.begin_joining(raft, ctx);
    }

    /// Tells what the metrics say and waits for the next change.
    fn observe(&mut self, watch: &MetricsWatch, instance: u64, ctx: &mut Context<Self>) {
        if self.closing || self.instance != instance {
            return;
        }
        let metrics = watch.borrow_watched().clone();
        if let Err(fatal) = &metrics.running_state {
            // An instance that was shut down here on purpose says so too.
            if self.instance == instance {
                self.end_in_fatal(fatal, ctx);
            }
            return;
        }
        self.tell(&metrics, ctx);
        let mut next = watch.clone();
        let changed = async move {
            let alive = next.changed().await.is_ok();
            (next, alive)
        };
        ctx.spawn(changed.into_actor(self).map(move |(watch, alive), this, ctx| {
            if alive {
                this.observe(&watch, instance, ctx);
            } else if this.raft.is_some() && this.instance == instance {
                this.begin_reopen("raft ended".to_owned(), ctx);
            }
        }));
    }

    fn tell(&mut self, metrics: &RaftMetrics<TypeConfig>, ctx: &mut Context<Self>) {
        let term = Term(metrics.current_term);
        let role = role(metrics.state);
        let index = |id: Option<_>| id.map_or(0, |id: baton_storage::raft_types::LogId| id.index);
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.metrics.last_log.set(gauge(metrics.last_log_index.unwrap_or(0)));
        self.metrics.committed.set(gauge(index(metrics.local_committed)));
        self.metrics.applied.set(gauge(index(metrics.last_applied)));
        self.metrics.purged.set(gauge(index(metrics.purged)));
        self.tell_members(metrics);
        self.tell_leadership(LeadershipChanged { term, role, leader: metrics.current_leader });
        let own_entry_applied =
            metrics.last_applied.is_some_and(|id| id.committed_leader_id().term == term.0);
        if role == Role::Leader && own_entry_applied && self.told_applied != Some(term) {
            self.told_applied = Some(term);
            let applied = TermApplied { term, tip: self.store.reader().tip() };
            for link in &self.links.term_applied {
                link.do_send(applied);
            }
            ctx.spawn(change::finish(self.shared.clone()).into_actor(self));
        }
        self.tended.observe(metrics, &self.metrics);
    }

    fn tell_leadership(&mut self, leadership: LeadershipChanged) {
        if self.told.as_ref() == Some(&leadership) {
            return;
        }
        let before = self.told.replace(leadership.clone());
        if before.as_ref().and_then(|told| told.leader) != leadership.leader && leadership.leader.is_some() {
            self.metrics.leader_changes.inc();
        }
        if leadership.role == Role::Candidate {
            self.metrics.elections.inc();
        }
        if leadership.role != Role::Leader {
            self.metrics.forget_progress();
        }
        for link in &self.links.leadership {
            link.do_send(leadership.clone());
        }
    }

    fn tell_members(&mut self, metrics: &RaftMetrics<TypeConfig>) {
        let membership = metrics.membership_config.membership();
        let version = shared::version(metrics);
        let joint = membership.get_joint_config().len() > 1;
        let told = self.told_members.as_ref();
        if !shared::is_initialised(metrics)
            || told.is_some_and(|told| told.version == version && told.joint == joint)
        {
            return;
        }
        let known = |id: MemberId| (id, membership.get_node(&id).cloned().unwrap_or_default());
        let changed = MembersChanged {
            own: self.shared.id(),
            version,
            joint,
            voters: membership.voter_ids().map(known).collect(),
            learners: membership.learner_ids().map(known).collect(),
        };
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.voters.set(gauge(changed.voters.len()));
        self.metrics.learners.set(gauge(changed.learners.len()));
        self.shared.forget_strangers(membership);
        self.told_members = Some(changed.clone());
        for link in &self.links.members {
            link.do_send(changed.clone());
        }
    }

    /// The leader's lease: openraft refuses proposals when it has lapsed, this tells why.
    fn check_lease(&mut self) {
        let Some(raft) = &self.raft else { return };
        let longest = self.config.election_timeout_max;
        let (term, held, unheard) = {
            let watch = raft.metrics();
            let metrics = watch.borrow_watched();
            let leads = metrics.state == ServerState::Leader;
            let sole = metrics.membership_config.membership().voter_ids().count() == 1;
            let age = metrics.last_quorum_acked.as_ref().map(|at| at.elapsed());
            let unheard = (leads && !sole).then_some(age).flatten();
            (Term(metrics.current_term), leads && (sole || age.is_some_and(|age| age < longest)), unheard)
        };
        let silent = !self.heartbeats || unheard.is_some_and(|age| is_silent(age, longest));
        if self.silent.swap(silent, Ordering::Relaxed) != silent {
            warn!(silent, ?unheard, "whether this leader speaks");
        }
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
        self.instance += 1;
        self.shared.set_raft(None);
        // A store that opens and fails at once must not start over with the shortest pause.
        if self.opened_at.take().is_some_and(|at| at.elapsed() > self.config.longest_pause) {
            self.failures = 0;
        }
        self.failures += 1;
        self.told_applied = None;
        self.tell_nobody_leads();
        let trouble = self.store.trouble().map_or(trouble, |trouble| trouble.to_string());
        self.links.health.do_send(RaftHealthChanged { trouble: Some(trouble.clone()) });
        self.trouble = Some(trouble);
        if let Some(trouble @ (StoreError::Corrupt(_) | StoreError::Newer(_))) = self.store.trouble() {
            // Opening it again would forget what was seen, or change nothing.
            let reason = match trouble {
                StoreError::Corrupt(reason) => reason,
                other => other.to_string(),
            };
            return self.links.integrity_stop.do_send(IntegrityStop { reason });
        }
        let pause =
            (self.config.reopen_after * 2u32.pow(self.failures.min(16) - 1)).min(self.config.longest_pause);
        warn!(?pause, "opening the store again");
        let (store, machine) = (self.store.clone(), self.machine.clone());
        let reopened = async move {
            if let Some(raft) = raft {
                let _ = raft.shutdown().await;
            }
            tokio::time::sleep(pause).await;
            released(&machine).await;
            store.reopen().await
        };
        ctx.spawn(reopened.into_actor(self).map(|reopened, this, ctx| match reopened {
            Ok(()) if this.closing => {}
            Ok(()) => {
                this.metrics.reopened.inc();
                this.begin_open(ctx);
            }
            Err(OpenError::Damaged(reason) | OpenError::NewerEntries(reason)) => {
                this.links.integrity_stop.do_send(IntegrityStop { reason });
            }
            Err(error) => this.begin_reopen(error.to_string(), ctx),
        }));
    }

    fn tell_nobody_leads(&mut self) {
        let term = self.told.as_ref().map_or(Term(0), |told| told.term);
        self.tell_leadership(LeadershipChanged { term, role: Role::Learner, leader: None });
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
        if let Some(cluster) = self.store.cluster() {
            self.shared.transport.belongs_to(cluster);
        }
        self.shared.transport.serve(Some(serve::serve(self.shared.clone())));
        self.begin_open(ctx);
        ctx.run_interval(self.config.heartbeat_interval, |this, ctx| {
            this.check_lease();
            this.tend(ctx);
        });
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
        let began = tokio::time::Instant::now();
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
            if outcome.is_ok() {
                metrics.commit.observe(began.elapsed().as_secs_f64());
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
        self.shared.transport.serve(None);
        self.shared.set_raft(None);
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

/// Waits until the state machine of an instance that was shut down is gone: it may be applying
/// still, and two of them would apply the same entries twice.
async fn released(machine: &Arc<()>) {
    // This one, and the one the actor keeps.
    while Arc::strong_count(machine) > 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Starts openraft over the store. A sole node without a membership becomes a cluster of one here;
/// one with peers goes on with `joining`.
async fn open(
    config: Config,
    (applied, records): (Vec<Recipient<Applied>>, Vec<Recipient<BlocksApplied>>),
    shared: Arc<Shared>,
    network: Network,
    machine: Arc<()>,
) -> Result<Openraft, Error> {
    released(&machine).await;
    let id = MemberId::of(config.member.storage);
    let settings = settings(&config).map_err(|error| Error::Start(error.to_string()))?;
    let log = shared.store.log();
    let state_machine = shared.store.state_machine(Box::new(move |event| {
        // Held for as long as the state machine is.
        let _alive = &machine;
        for link in &applied {
            link.do_send(Applied { tip: event.tip });
        }
        for link in records.iter().filter(|_| !event.blocks.is_empty()) {
            if link.try_send(BlocksApplied { blocks: event.blocks.clone() }).is_err() {
                debug!(tip = event.tip.height.0, "the record of blocks is behind");
            }
        }
    }));
    let start = |error: Fatal<TypeConfig>| Error::Start(error.to_string());
    let raft = Openraft::new(id, settings, network, log, state_machine).await.map_err(start)?;
    let initialised = raft.is_initialized().await.map_err(start)?;
    // A sole voter of before there were clusters has a membership and no cluster.
    let legacy = initialised && shared.store.cluster().is_none();
    if legacy || (!initialised && config.bootstrap == Bootstrap::Sole) {
        info!(member = %id, name = %config.member.name, "forming a cluster of one");
        joining::initialise(&shared, &raft, config.fresh_cluster, [(id, config.member)].into())
            .await
            .map_err(Error::Start)?;
    }
    Ok(raft)
}

/// Log records that openraft sends at a time; their bytes are bounded by the transport's frame.
const MAX_ENTRIES: u64 = 256;

fn settings(config: &Config) -> Result<Arc<openraft::Config>, openraft::ConfigError> {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let settings = openraft::Config {
        cluster_name: "baton".to_owned(),
        heartbeat_interval: millis(config.heartbeat_interval),
        election_timeout_min: millis(config.election_timeout_min),
        election_timeout_max: millis(config.election_timeout_max),
        install_snapshot_timeout: millis(config.question_within),
        max_payload_entries: MAX_ENTRIES,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_after),
        // What is purged is decided in `retention`.
        max_in_snapshot_log_to_keep: u64::MAX,
        // A sequencer that comes back asks again: nobody knows what happened meanwhile.
        enable_leader_restore: Some(false),
        enable_pre_vote: Some(true),
        // A leader hands over before it is removed.
        removed_leader_step_down: StepDownPolicy::Never,
        ..openraft::Config::default()
    };
    Ok(Arc::new(settings.validate()?))
}

/// A leader that a quorum does not answer is silent for long enough that its followers can elect
/// another, then speaks for as long, and so on: with a cut in one direction only they would hear
/// it for ever (hazard S9). Followers wait for up to two of the longest election time-outs.
fn is_silent(unheard: Duration, longest: Duration) -> bool {
    let slot = longest * 3;
    match unheard.checked_sub(longest) {
        None => false,
        Some(since) => (since.as_nanos() / slot.as_nanos().max(1)).is_multiple_of(2),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_without_a_quorum_is_silent_and_speaks_in_turns() {
        let longest = Duration::from_millis(100);
        let at = |millis| is_silent(Duration::from_millis(millis), longest);
        assert!(!at(0) && !at(99), "its lease holds");
        assert!(at(100) && at(399), "long enough for an election");
        assert!(!at(400) && !at(699), "somebody may hear it again");
        assert!(at(700));
    }
}
