//! The Raft actor owns consensus: openraft, its store and its transport.
//!
//! It replicates what producers propose and tells everybody what was applied and who leads. It
//! fences: a proposal goes to openraft with the term of its grant, and openraft refuses it
//! before the append when that term is over; apply checks again. A storage error stops Raft,
//! never the process: the store is opened again with growing pauses (P8).

pub mod admit;
mod asking;
pub mod bootstrap;
mod change;
mod joining;
mod kept;
mod meeting;
pub mod members;
pub mod metrics;
pub mod network;
mod opening;
pub mod outside;
mod pausing;
pub mod plausible;
mod ports;
mod proposing;
pub mod retention;
mod serve;
mod shared;
mod telling;
mod tending;
mod transfer;
pub mod transport;
pub mod wire;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, MessageResult, Recipient, ResponseFuture,
    WrapFuture,
};
use baton_messages::cluster::{ForwardedTxs, MemberTold, MembersChanged, StandingChanged};
use baton_messages::da::GetDaHead;
use baton_messages::raft::{
    Applied, BlocksApplied, GetRaftView, LeadershipChanged, LeaseChanged, RaftHealthChanged, RaftView,
    TermApplied,
};
use baton_messages::sequencer::CountAccepted;
use baton_messages::supervisor::{IntegrityStop, Shutdown};
use baton_messages::types::{LogIndex, Member, MemberId, Term};
use baton_storage::backend::StoreError;
use baton_storage::raft_types::TypeConfig;
use baton_storage::{OpenError, StateMachine, Store};
use openraft::async_runtime::WatchReceiver;
use openraft::errors::Fatal;
use tracing::{error, info, warn};
use uuid::Uuid;

pub use bootstrap::{Bootstrap, Peer};
pub use metrics::Metrics;

use network::Network;
use opening::{open, released};
use shared::{Shared, Times};
use telling::role;
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
    /// Says what this node has accepted, to a leader that is to remove it.
    pub accepted: Recipient<CountAccepted>,
    /// Hears whether the others take this node for a member.
    pub standing: Recipient<StandingChanged>,
    /// Says how far DA is; a witness has none.
    pub da_head: Option<Recipient<GetDaHead>>,
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
    /// The term it leads, and when that was seen first.
    leads_since: Option<(Term, tokio::time::Instant)>,
    tended: tending::Tended,
    /// Members that a condition is on its way to.
    telling: BTreeSet<MemberId>,
    /// Who of them takes this node for a stranger.
    outside: outside::Outside,
    /// What was told of that.
    told_standing: StandingChanged,
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
            links.accepted.clone(),
            links.da_head.clone(),
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
            leads_since: None,
            tended: tending::Tended::default(),
            telling: BTreeSet::new(),
            outside: outside::Outside::default(),
            told_standing: StandingChanged { stranger_to: None },
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
            kept: self.shared.kept.clone(),
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

    fn end_in_fatal(&mut self, fatal: &Fatal<TypeConfig>, ctx: &mut Context<Self>) {
        if self.closing {
            return;
        }
        error!(%fatal, "raft stopped");
        self.begin_reopen(fatal.to_string(), ctx);
    }

    /// A store can fail where openraft writes nothing, on a node that waits to belong to a cluster:
    /// nobody else opens it again.
    fn mind_the_store(&mut self, ctx: &mut Context<Self>) {
        if self.raft.is_some()
            && let Some(trouble) = self.store.trouble()
        {
            error!(%trouble, "the store failed under raft");
            self.begin_reopen(trouble.to_string(), ctx);
        }
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
}

impl Actor for Raft {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        if let Some(cluster) = self.store.cluster() {
            self.shared.transport.belongs_to(cluster);
        }
        let shared = Arc::downgrade(&self.shared);
        self.shared.transport.know(Some(Arc::new(move |storage| shared.upgrade()?.name_of(storage))));
        self.shared.transport.serve(Some(serve::serve(self.shared.clone())));
        self.begin_open(ctx);
        ctx.run_interval(self.config.heartbeat_interval, |this, ctx| {
            this.mind_the_store(ctx);
            this.check_lease();
            this.tend(ctx);
        });
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
