//! The only place that knows every actor: who hears what from whom.
//!
//! Addresses first, actors second: the long-lived actors of this thread are contexts made early
//! and run late. [`Wiring`] is public before anything starts, so that a test replaces any actor
//! or outside link by its own.

mod inside;

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, Recipient};
use actix_rt::Arbiter;
use baton_actors::child;
use baton_actors::da::{self, Da, DaLayer};
use baton_actors::da_submitter::{self, DaSubmitter};
use baton_actors::engine::{self, Engine, Execution};
use baton_actors::executor::{self, Executor};
use baton_actors::inbox::{self, Inbox};
use baton_actors::notary::{self, Notary};
use baton_actors::p2p::{self, P2p};
use baton_actors::raft::transport::Transport;
use baton_actors::raft::{self, Raft};
use baton_actors::reaper::{self, Reaper};
use baton_actors::sequencer::{self, Sequencer};
use baton_actors::signer::{self, Signer};
use baton_actors::supervisor::{self, Producer, Supervisor};
use baton_actors::syncer::{self, Syncer, backfill};
use baton_actors::timekeeper::{self, Timekeeper};
use baton_actors::world::World;
use baton_messages::chain;
use baton_messages::cluster::{
    Campaign, ChangeMembers, FetchBlocks, ForwardTxs, ForwardedTxs, GetCluster, HandOff, Heartbeats,
    MemberTold, MembersChanged, Pause, PrepareStop, Resume, Stand, TellCondition, TransferLeadership,
};
use baton_messages::da::{GetBlobs, GetDaHead, SubmitBlobs};
use baton_messages::engine::{
    ExecuteBlock, FilterTxs, GetPosition, InitChain, PendingTxs, Rollback, SetFinal,
};
use baton_messages::p2p::{
    FetchByHash, FetchData, FetchHead, FetchHeaders, GetNetInfo, PublishBlock, PublishTail, ReportPeer,
};
use baton_messages::raft::{BlocksApplied, GetRaftView, ProposeBlock, Record, Settle};
use baton_messages::sequencer::{AwaitTx, AwaitTxs, DropTxs, GetQueueView, NextBatch, PostTxs, SubmitTxs};
use baton_messages::signer::{CheckGuard, GetSignerView, NoteSigned, SignData, SignEnvelope, SignHeader};
use baton_messages::supervisor::{
    DiskHealthChanged, GetSupervisorView, IntegrityStop, LeadershipAudited, Shutdown, StartProducing,
    StopProducing,
};
use baton_messages::types::Grant;
use baton_storage::{Reader, Store};
use prometheus_client::registry::Registry;

use crate::witness::Absent;
pub use inside::{Between, SupervisorPorts, SyncerPorts};

/// How the actors behave, one part each.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Raft.
    pub raft: raft::Config,
    /// The sequencer.
    pub sequencer: sequencer::Config,
    /// The engine actor.
    pub engine: engine::Config,
    /// The executor.
    pub executor: executor::Config,
    /// The reaper; `None` for engines without a pool of their own.
    pub reaper: Option<reaper::Config>,
    /// The DA adapter's actor.
    pub da: da::Config,
    /// The DA submitter.
    pub da_submitter: da_submitter::Config,
    /// The syncer.
    pub syncer: syncer::Config,
    /// The supervisor.
    pub supervisor: supervisor::Config,
    /// The signer.
    pub signer: signer::Config,
    /// The peer-to-peer actor; used where [`Parts::p2p`] is set.
    pub p2p: Option<p2p::Config>,
    /// Forced inclusion; `None` where the chain has none.
    pub inbox: Option<inbox::Config>,
}

/// What every actor counts.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct Metrics {
    pub raft: raft::Metrics,
    pub sequencer: sequencer::Metrics,
    pub engine: engine::Metrics,
    pub executor: executor::Metrics,
    pub reaper: reaper::Metrics,
    pub da: da::Metrics,
    pub da_submitter: da_submitter::Metrics,
    pub syncer: syncer::Metrics,
    pub timekeeper: timekeeper::Metrics,
    pub supervisor: supervisor::Metrics,
    pub p2p: p2p::Metrics,
    pub inbox: inbox::Metrics,
}

impl Metrics {
    /// Makes all of them visible.
    pub fn register(&self, registry: &mut Registry) {
        self.raft.register(registry);
        self.sequencer.register(registry);
        self.engine.register(registry);
        self.executor.register(registry);
        self.reaper.register(registry);
        self.da.register(registry);
        self.da_submitter.register(registry);
        self.syncer.register(registry);
        self.timekeeper.register(registry);
        self.supervisor.register(registry);
        self.p2p.register(registry);
        self.inbox.register(registry);
    }
}

/// Whether actors that block get threads of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// Engine and signer run on arbiters of their own; needs an actix `System`.
    Dedicated,
    /// Everything runs on the caller's thread, in order: simulation.
    Shared,
}

/// Makes an adapter on the thread that will use it.
pub type Make<T> = Box<dyn FnOnce() -> T + Send>;

/// What is outside of the actors.
pub struct Parts {
    /// Time and chance.
    pub world: World,
    /// The store.
    pub store: Store,
    /// The way to other members.
    pub transport: Arc<dyn Transport>,
    /// The execution engine; a witness has none.
    pub execution: Option<Make<Box<dyn Execution>>>,
    /// The DA layer; a witness has none.
    pub da: Option<Rc<dyn DaLayer>>,
    /// Key, guard and audit record; a witness has none.
    pub signer: Option<signer::Parts>,
    /// What the guard is compared with first.
    pub progress: signer::guard::Progress,
    /// Where blocking actors run.
    pub threads: Threads,
    /// The peer-to-peer network; `None` where it is off.
    pub p2p: Option<p2p::Parts>,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("threads", &self.threads).finish_non_exhaustive()
    }
}

/// What can be said to an engine.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct EnginePorts {
    pub init_chain: Recipient<InitChain>,
    pub position: Recipient<GetPosition>,
    pub pending_txs: Recipient<PendingTxs>,
    pub filter: Recipient<FilterTxs>,
    pub execute: Recipient<ExecuteBlock>,
    pub rollback: Recipient<Rollback>,
    pub set_final: Recipient<SetFinal>,
    /// Takes transactions into the engine's own pool, where it has one.
    pub pool: Option<Recipient<SubmitTxs>>,
}

impl EnginePorts {
    /// The ports of an actor that hears all of it.
    pub fn of<A>(actor: &Addr<A>) -> Self
    where
        A: Hears<InitChain>
            + Hears<GetPosition>
            + Hears<PendingTxs>
            + Hears<FilterTxs>
            + Hears<ExecuteBlock>
            + Hears<Rollback>
            + Hears<SetFinal>,
    {
        Self {
            init_chain: port(actor),
            position: port(actor),
            pending_txs: port(actor),
            filter: port(actor),
            execute: port(actor),
            rollback: port(actor),
            set_final: port(actor),
            pool: None,
        }
    }
}

/// What can be said to a sequencer.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct SequencerPorts {
    pub submit_txs: Recipient<SubmitTxs>,
    pub post_txs: Recipient<PostTxs>,
    pub forwarded: Recipient<ForwardedTxs>,
    pub next_batch: Recipient<NextBatch>,
    pub await_txs: Recipient<AwaitTxs>,
    pub drop_txs: Recipient<DropTxs>,
    pub await_tx: Recipient<AwaitTx>,
    pub view: Recipient<GetQueueView>,
}

impl SequencerPorts {
    /// The ports of an actor that hears all of it.
    pub fn of<A>(actor: &Addr<A>) -> Self
    where
        A: Hears<SubmitTxs>
            + Hears<PostTxs>
            + Hears<ForwardedTxs>
            + Hears<NextBatch>
            + Hears<AwaitTxs>
            + Hears<DropTxs>
            + Hears<AwaitTx>
            + Hears<GetQueueView>,
    {
        Self {
            submit_txs: port(actor),
            post_txs: port(actor),
            forwarded: port(actor),
            next_batch: port(actor),
            await_txs: port(actor),
            drop_txs: port(actor),
            await_tx: port(actor),
            view: port(actor),
        }
    }
}

/// What can be said to Raft.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct RaftPorts {
    pub propose: Recipient<ProposeBlock>,
    pub settle: Recipient<Settle>,
    pub record: Recipient<Record>,
    pub view: Recipient<GetRaftView>,
}

impl RaftPorts {
    /// The ports of an actor that hears all of it.
    pub fn of<A>(actor: &Addr<A>) -> Self
    where
        A: Hears<ProposeBlock> + Hears<Settle> + Hears<Record> + Hears<GetRaftView>,
    {
        Self { propose: port(actor), settle: port(actor), record: port(actor), view: port(actor) }
    }
}

/// What can be said to Raft about the cluster.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct ClusterPorts {
    pub view: Recipient<GetCluster>,
    pub change: Recipient<ChangeMembers>,
    pub pause: Recipient<Pause>,
    pub resume: Recipient<Resume>,
    pub transfer: Recipient<TransferLeadership>,
    pub tell: Recipient<TellCondition>,
    pub campaign: Recipient<Campaign>,
    pub stand: Recipient<Stand>,
    pub heartbeats: Recipient<Heartbeats>,
    pub forward: Recipient<ForwardTxs>,
    pub fetch: Recipient<FetchBlocks>,
}

impl ClusterPorts {
    /// The ports of an actor that hears all of it.
    pub fn of<A>(actor: &Addr<A>) -> Self
    where
        A: Hears<GetCluster>
            + Hears<ChangeMembers>
            + Hears<Pause>
            + Hears<Resume>
            + Hears<TransferLeadership>
            + Hears<TellCondition>
            + Hears<Campaign>
            + Hears<Stand>
            + Hears<Heartbeats>
            + Hears<ForwardTxs>
            + Hears<FetchBlocks>,
    {
        Self {
            view: port(actor),
            change: port(actor),
            pause: port(actor),
            resume: port(actor),
            transfer: port(actor),
            tell: port(actor),
            campaign: port(actor),
            stand: port(actor),
            heartbeats: port(actor),
            forward: port(actor),
            fetch: port(actor),
        }
    }
}

/// What can be said to a signer.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct SignerPorts {
    pub check_guard: Recipient<CheckGuard>,
    pub note_signed: Recipient<NoteSigned>,
    pub sign: Recipient<SignHeader>,
    pub sign_envelope: Recipient<SignEnvelope>,
    pub sign_data: Recipient<SignData>,
    pub view: Recipient<GetSignerView>,
}

impl SignerPorts {
    /// The ports of an actor that hears all of it.
    pub fn of<A>(actor: &Addr<A>) -> Self
    where
        A: Hears<CheckGuard>
            + Hears<NoteSigned>
            + Hears<SignHeader>
            + Hears<SignEnvelope>
            + Hears<SignData>
            + Hears<GetSignerView>,
    {
        Self {
            check_guard: port(actor),
            note_signed: port(actor),
            sign: port(actor),
            sign_envelope: port(actor),
            sign_data: port(actor),
            view: port(actor),
        }
    }
}

/// What can be said to a DA adapter.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct DaPorts {
    pub submit: Recipient<SubmitBlobs>,
    pub get: Recipient<GetBlobs>,
    pub head: Recipient<GetDaHead>,
}

impl DaPorts {
    /// The ports of an actor that hears all of it.
    pub fn of<A>(actor: &Addr<A>) -> Self
    where
        A: Hears<SubmitBlobs> + Hears<GetBlobs> + Hears<GetDaHead>,
    {
        Self { submit: port(actor), get: port(actor), head: port(actor) }
    }
}

/// What can be said to the peer-to-peer actor.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct P2pPorts {
    pub publish: Recipient<PublishBlock>,
    pub publish_tail: Recipient<PublishTail>,
    pub fetch_headers: Recipient<FetchHeaders>,
    pub fetch_data: Recipient<FetchData>,
    pub fetch_head: Recipient<FetchHead>,
    pub fetch_by_hash: Recipient<FetchByHash>,
    pub report: Recipient<ReportPeer>,
    pub net_info: Recipient<GetNetInfo>,
}

impl P2pPorts {
    /// The ports of an actor that hears all of it.
    pub fn of<A>(actor: &Addr<A>) -> Self
    where
        A: Hears<PublishBlock>
            + Hears<PublishTail>
            + Hears<FetchHeaders>
            + Hears<FetchData>
            + Hears<FetchHead>
            + Hears<FetchByHash>
            + Hears<ReportPeer>
            + Hears<GetNetInfo>,
    {
        Self {
            publish: port(actor),
            publish_tail: port(actor),
            fetch_headers: port(actor),
            fetch_data: port(actor),
            fetch_head: port(actor),
            fetch_by_hash: port(actor),
            report: port(actor),
            net_info: port(actor),
        }
    }
}

/// An actor that hears a message, wherever it runs.
pub trait Hears<M>: Actor<Context: ToEnvelope<Self, M>> + Handler<M>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
}

impl<A, M> Hears<M> for A
where
    A: Actor<Context: ToEnvelope<A, M>> + Handler<M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
}

pub(crate) fn port<A, M>(actor: &Addr<A>) -> Recipient<M>
where
    A: Hears<M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    actor.clone().recipient()
}

/// A node before it starts. `None` is the real actor; whoever is set takes its place.
#[derive(Debug)]
pub struct Wiring {
    /// How the actors behave.
    pub settings: Settings,
    /// What they count.
    pub metrics: Metrics,
    /// What is outside.
    pub parts: Parts,
    /// Instead of Raft.
    pub raft: Option<RaftPorts>,
    /// Between Raft and the producers.
    pub proposals: Option<Between<RaftPorts>>,
    /// Hears how other members are, instead of the supervisor.
    pub told: Option<Recipient<MemberTold>>,
    /// Hear that the membership is another, beside the supervisor.
    pub members: Vec<Recipient<MembersChanged>>,
    /// Keep a record of every block.
    pub blocks: Vec<Recipient<BlocksApplied>>,
    /// Instead of the sequencer.
    pub sequencer: Option<SequencerPorts>,
    /// Instead of the engine actor.
    pub engine: Option<EnginePorts>,
    /// Instead of the signer.
    pub signer: Option<SignerPorts>,
    /// Instead of the DA adapter.
    pub da: Option<DaPorts>,
    /// Instead of the syncer.
    pub syncer: Option<SyncerPorts>,
    /// Between the supervisor and those who talk to it; the real one runs in any case, and starts
    /// the producers when it hears that it may.
    pub supervisor: Option<Between<SupervisorPorts>>,
    /// Instead of the peer-to-peer actor.
    pub p2p: Option<P2pPorts>,
    /// Instead of the executor.
    pub executor: Option<Producer>,
    /// Instead of the reaper.
    pub reaper: Option<Producer>,
    /// Instead of the DA submitter.
    pub da_submitter: Option<Producer>,
    /// Hears that a person is needed and the process must end.
    pub integrity_stop: Recipient<IntegrityStop>,
    /// Keep the record of who led when.
    pub leadership_audit: Vec<Recipient<LeadershipAudited>>,
}

/// A running node, as its RPC and its tests see it.
#[derive(Clone, Debug)]
pub struct Node {
    /// Raft.
    pub raft: RaftPorts,
    /// Raft, about the cluster.
    pub cluster: ClusterPorts,
    /// The sequencer.
    pub sequencer: SequencerPorts,
    /// The engine.
    pub engine: EnginePorts,
    /// The signer.
    pub signer: SignerPorts,
    /// The DA adapter.
    pub da: DaPorts,
    /// The peer-to-peer actor; `None` where the network is off.
    pub p2p: Option<P2pPorts>,
    /// End the node, in this order; each answers when it has.
    pub shutdown: Vec<Recipient<Shutdown>>,
    /// What the supervisor does.
    pub supervisor: Recipient<GetSupervisorView>,
    /// Gives leadership away.
    pub hand_off: Recipient<HandOff>,
    /// Stops production until it is resumed.
    pub pause: Recipient<Pause>,
    /// Resumes production.
    pub resume: Recipient<Resume>,
    /// Says whether the others can do without this node.
    pub prepare_stop: Recipient<PrepareStop>,
    /// Hear how the disk is.
    pub disk: Vec<Recipient<DiskHealthChanged>>,
    /// The store, to read.
    pub reader: Reader,
}

/// Hints of the long-lived actors wait here at the most; the bounds are in the protocols.
const MAILBOX: usize = 1024;

impl Wiring {
    /// A node of real actors around these parts.
    #[must_use]
    pub fn new(settings: Settings, parts: Parts, integrity_stop: Recipient<IntegrityStop>) -> Self {
        Self {
            settings,
            metrics: Metrics::default(),
            parts,
            raft: None,
            proposals: None,
            told: None,
            members: vec![],
            blocks: vec![],
            sequencer: None,
            engine: None,
            signer: None,
            da: None,
            syncer: None,
            supervisor: None,
            p2p: None,
            executor: None,
            reaper: None,
            da_submitter: None,
            integrity_stop,
            leadership_audit: Vec::new(),
        }
    }

    /// Starts the actors. Must be called in a `LocalSet`, or on an actix `System`'s thread.
    #[must_use]
    pub fn start(self) -> Node {
        let Self { settings, metrics, parts, .. } = self;
        let Parts { world, store, transport, execution, da, signer, progress, threads, p2p } = parts;
        let reader = store.reader();

        let sequencer_ctx = context::<Sequencer>();
        let raft_ctx = context::<Raft>();
        let syncer_ctx = context::<Syncer>();
        let supervisor_ctx = context::<Supervisor>();
        let (sequencer, raft) = (sequencer_ctx.address(), raft_ctx.address());
        let (syncer, supervisor) = (syncer_ctx.address(), supervisor_ctx.address());
        let supervisor = SupervisorPorts::of(&supervisor);
        let supervisor = match self.supervisor {
            Some(Between(between)) => between(supervisor),
            None => supervisor,
        };
        let is_swapped = self.syncer.is_some();
        let syncer = self.syncer.unwrap_or_else(|| SyncerPorts::of(&syncer));

        let engine_ports = self.engine.unwrap_or_else(|| {
            let links = engine::Links {
                executed: vec![sequencer.clone().recipient(), supervisor.executed.clone()],
                health: supervisor.engine_health.clone(),
            };
            let Some(execution) = execution else { return EnginePorts::of(&Absent.start()) };
            let (config, metrics) = (settings.engine.clone(), metrics.engine.clone());
            let engine = start_blocking(threads, move || Engine::new(execution(), config, links, metrics));
            EnginePorts { pool: Some(port(&engine)), ..EnginePorts::of(&engine) }
        });
        let signer_ports = self.signer.unwrap_or_else(|| {
            let Some(signer) = signer else { return SignerPorts::of(&Absent.start()) };
            let config = settings.signer.clone();
            let signer = start_blocking(threads, move || Signer::open(config, signer, &progress));
            SignerPorts::of(&signer)
        });
        let reads_da = da.is_some();
        let da_ports = self.da.unwrap_or_else(|| match da {
            Some(da) => DaPorts::of(&Da::new(da, settings.da, metrics.da.clone()).start()),
            None => DaPorts::of(&Absent.start()),
        });
        let sequencer_ports = self.sequencer.unwrap_or_else(|| SequencerPorts::of(&sequencer));
        let raft_ports = self.raft.unwrap_or_else(|| RaftPorts::of(&raft));
        let cluster_ports = ClusterPorts::of(&raft);
        let timekeeper =
            context::<Timekeeper>().run(Timekeeper::new(metrics.timekeeper.clone(), world.clone()));

        let p2p = p2p.zip(settings.p2p).map(|(parts, config)| {
            // A member takes blocks from the log only: the actor judges gossip by the store.
            let links = p2p::Links { members: Some(port(&raft)), ..p2p::Links::default() };
            let metrics = metrics.p2p.clone();
            let (world, reader) = (world.clone(), reader.clone());
            start_blocking(threads, move || P2p::new(config, links, metrics, world, reader, parts))
        });
        let p2p_ports = self.p2p.or_else(|| p2p.as_ref().map(P2pPorts::of));

        // Every member reads ahead: whoever leads next has what is due at hand.
        let inbox = settings.inbox.filter(|_| reads_da).map(|config| {
            let links = inbox::Links { get: da_ports.get.clone(), head: da_ports.head.clone() };
            let every = config.da_block_time;
            let inbox = Inbox::new(config, links, metrics.inbox.clone(), reader.clone());
            executor::Inbox { next: context::<Inbox>().run(inbox).recipient(), every }
        });
        let producers = Producers {
            world,
            inbox,
            reader: reader.clone(),
            engine: engine_ports.clone(),
            sequencer: sequencer_ports.clone(),
            raft: match self.proposals {
                Some(Between(between)) => between(raft_ports.clone()),
                None => raft_ports.clone(),
            },
            signer: signer_ports.clone(),
            da: da_ports.clone(),
            p2p: p2p_ports.clone(),
            supervisor: supervisor.clone(),
            integrity_stop: self.integrity_stop.clone(),
        };
        let identity = settings.da_submitter.signer.clone();
        // From the last stage to the first: who is fed is there before who feeds.
        let mut stages = vec![
            self.da_submitter
                .unwrap_or_else(|| producers.da_submitter(settings.da_submitter.clone(), &metrics)),
            self.executor.unwrap_or_else(|| {
                let signer = settings.da_submitter.signer.clone();
                producers.executor(settings.executor.clone(), signer, &metrics)
            }),
        ];
        let reaper = settings.reaper.map(|config| producers.reaper(config, &metrics));
        stages.extend(self.reaper.or(reaper));

        let links = supervisor::Links {
            integrity_stop: self.integrity_stop.clone(),
            cluster: supervisor::ClusterLinks {
                tell: cluster_ports.tell.clone(),
                campaign: cluster_ports.campaign.clone(),
                stand: cluster_ports.stand.clone(),
                heartbeats: cluster_ports.heartbeats.clone(),
                transfer: cluster_ports.transfer.clone(),
                ask_da: port(&raft),
            },
            signer_view: (!settings.supervisor.witness).then(|| signer_ports.view.clone()),
            audit: self.leadership_audit,
        };
        let sources = supervisor::Sources::of(&store);
        supervisor_ctx.run(Supervisor::new(settings.supervisor, links, metrics.supervisor, sources, stages));
        let links = notary::Links {
            note_signed: signer_ports.note_signed.clone(),
            integrity_stop: self.integrity_stop.clone(),
        };
        Notary::new(notary::Config::default(), links, reader.clone(), identity.clone()).start();
        sequencer_ctx.run(Sequencer::new(
            settings.sequencer,
            sequencer::Links { forward: Some(raft.clone().recipient()) },
            metrics.sequencer,
            &producers.world,
            reader.clone(),
            store.queue(),
        ));
        let links = syncer::Links {
            init_chain: engine_ports.init_chain.clone(),
            position: engine_ports.position.clone(),
            execute: engine_ports.execute.clone(),
            rollback: engine_ports.rollback.clone(),
            set_final: engine_ports.set_final.clone(),
            followed: [supervisor.followed.clone(), sequencer.clone().recipient()]
                .into_iter()
                .chain(p2p.clone().map(Addr::recipient))
                .collect(),
            trouble: supervisor.execution_trouble.clone(),
            source: Some(backfill::Source {
                fetch: raft.clone().recipient(),
                filler: store.filler(),
                signer: identity.clone(),
            }),
        };
        if !is_swapped {
            syncer_ctx.run(Syncer::new(settings.syncer, links, metrics.syncer, reader.clone()));
        }
        let mut leadership = vec![supervisor.leadership.clone(), sequencer.clone().recipient()];
        leadership.extend(p2p.clone().map(Addr::recipient));
        let links = raft::Links {
            leadership,
            term_applied: vec![syncer.term_applied, supervisor.term_applied.clone()],
            lease: supervisor.lease.clone(),
            applied: vec![
                sequencer.clone().recipient(),
                syncer.applied,
                supervisor.applied.clone(),
                timekeeper.recipient(),
            ],
            health: supervisor.raft_health.clone(),
            told: self.told.unwrap_or_else(|| supervisor.told.clone()),
            members: [vec![supervisor.members.clone()], self.members].concat(),
            blocks: self.blocks,
            forwarded: sequencer_ports.forwarded.clone(),
            accepted: sequencer.clone().recipient(),
            standing: sequencer.clone().recipient(),
            da_head: reads_da.then(|| da_ports.head.clone()),
            integrity_stop: self.integrity_stop,
        };
        raft_ctx.run(Raft::new(settings.raft, links, metrics.raft, store, transport));

        Node {
            raft: raft_ports,
            pause: cluster_ports.pause.clone(),
            resume: cluster_ports.resume.clone(),
            cluster: cluster_ports,
            sequencer: sequencer_ports,
            engine: engine_ports,
            signer: signer_ports,
            p2p: p2p_ports,
            da: da_ports,
            shutdown: [supervisor.shutdown, raft.recipient()]
                .into_iter()
                .chain(p2p.map(Addr::recipient))
                .collect(),
            supervisor: supervisor.view,
            hand_off: supervisor.hand_off,
            prepare_stop: supervisor.prepare_stop,
            disk: vec![sequencer.recipient(), supervisor.disk],
            reader,
        }
    }
}

/// What the producers of one node are wired with, again for every grant.
struct Producers {
    world: World,
    reader: Reader,
    engine: EnginePorts,
    sequencer: SequencerPorts,
    raft: RaftPorts,
    signer: SignerPorts,
    da: DaPorts,
    supervisor: SupervisorPorts,
    p2p: Option<P2pPorts>,
    inbox: Option<executor::Inbox>,
    integrity_stop: Recipient<IntegrityStop>,
}

impl Producers {
    fn executor(&self, config: executor::Config, signer: chain::Signer, metrics: &Metrics) -> Producer {
        let links = executor::Links {
            next_batch: self.sequencer.next_batch.clone(),
            await_txs: self.sequencer.await_txs.clone(),
            drop_txs: self.sequencer.drop_txs.clone(),
            filter: self.engine.filter.clone(),
            position: self.engine.position.clone(),
            execute: self.engine.execute.clone(),
            propose: self.raft.propose.clone(),
            settle: self.raft.settle.clone(),
            record: self.raft.record.clone(),
            note_signed: self.signer.note_signed.clone(),
            check_guard: self.signer.check_guard.clone(),
            sign: self.signer.sign.clone(),
            production: self.supervisor.production.clone(),
            integrity_stop: self.integrity_stop.clone(),
            publish: self
                .p2p
                .as_ref()
                .map(|p2p| executor::Publish { block: p2p.publish.clone(), tail: p2p.publish_tail.clone() }),
            inbox: self.inbox.clone(),
        };
        let (metrics, world, reader) = (metrics.executor.clone(), self.world.clone(), self.reader.clone());
        finishing_producer("executor", move |grant| {
            Executor::new(
                config.clone(),
                links.clone(),
                metrics.clone(),
                world.clone(),
                reader.clone(),
                grant,
                signer.clone(),
            )
        })
    }

    fn reaper(&self, config: reaper::Config, metrics: &Metrics) -> Producer {
        let links = reaper::Links {
            pending_txs: self.engine.pending_txs.clone(),
            submit_txs: self.sequencer.submit_txs.clone(),
        };
        let metrics = metrics.reaper.clone();
        producer("reaper", move |_| Reaper::new(config.clone(), links.clone(), metrics.clone()))
    }

    fn da_submitter(&self, config: da_submitter::Config, metrics: &Metrics) -> Producer {
        let links = da_submitter::Links {
            submit: self.da.submit.clone(),
            get: self.da.get.clone(),
            head: self.da.head.clone(),
            sign_envelope: self.signer.sign_envelope.clone(),
            sign_data: self.signer.sign_data.clone(),
            position: self.engine.position.clone(),
            record: self.raft.record.clone(),
            state: self.supervisor.da_state.clone(),
        };
        let (metrics, world, reader) =
            (metrics.da_submitter.clone(), self.world.clone(), self.reader.clone());
        producer("da submitter", move |grant| {
            let (config, links, metrics) = (config.clone(), links.clone(), metrics.clone());
            DaSubmitter::new(config, links, metrics, world.clone(), reader.clone(), grant)
        })
    }
}

/// A producer that is made anew for every grant.
pub fn producer<A>(name: &'static str, make: impl Fn(Grant) -> A + 'static) -> Producer
where
    A: Actor<Context = Context<A>>,
{
    Producer::new(name, move |StartProducing { grant }| child::spawn(name, |_| make(grant)).1)
}

/// As [`producer`], of an actor that makes its last block when it is asked to.
pub fn finishing_producer<A>(name: &'static str, make: impl Fn(Grant) -> A + 'static) -> Producer
where
    A: Hears<StopProducing> + Actor<Context = Context<A>>,
{
    Producer::new(name, move |StartProducing { grant }| {
        let (actor, child) = child::spawn(name, |_| make(grant));
        child.finishing_by(actor.recipient())
    })
}

pub(crate) fn context<A: Actor<Context = Context<A>>>() -> Context<A> {
    let mut context = Context::new();
    context.set_mailbox_capacity(MAILBOX);
    context
}

/// Starts an actor that may block: on an arbiter of its own, or in place.
pub(crate) fn start_blocking<A>(threads: Threads, make: impl FnOnce() -> A + Send + 'static) -> Addr<A>
where
    A: Actor<Context = Context<A>>,
{
    match threads {
        Threads::Dedicated => A::start_in_arbiter(&Arbiter::new().handle(), |ctx| {
            ctx.set_mailbox_capacity(MAILBOX);
            make()
        }),
        Threads::Shared => make().start(),
    }
}
