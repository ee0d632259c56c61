//! The wiring of a node that follows a chain: no Raft, no key, no producers.
//!
//! The retriever and the peers offer, the syncer checks and holds the `Writer`, the engine executes,
//! the observer knows how everything is. A light node is the same without an engine: the syncer keeps
//! headers, and nobody asks for data. As in [`crate::wiring`], what is outside comes in as parts,
//! so that a simulation runs the same actors.

use std::fmt;
use std::rc::Rc;

use actix::{Actor, Addr, AsyncContext, Context, Handler, MessageResult, Recipient};
use baton_actors::checker::Checker;
use baton_actors::da::{self, Da, DaLayer};
use baton_actors::da_retriever::{self, DaRetriever};
use baton_actors::engine::{self, Engine, Execution};
use baton_actors::gatherer::{self, Gatherer};
use baton_actors::observer::{self, Observer};
use baton_actors::p2p::{self, P2p};
use baton_actors::syncer::{self, Syncer, follow, forced};
use baton_actors::world::World;
use baton_messages::follow::{DaHint, ForkFound, GetObserverView, GetSyncView, Offer, ProductionWaits};
use baton_messages::p2p::{
    FetchData, FetchHead, FetchHeaders, GetNetInfo, Gossiped, PeerChanged, ReportPeer,
};
use baton_messages::raft::Applied;
use baton_messages::sequencer::{AwaitError, AwaitTx, PostTxs, SubmitError};
use baton_messages::supervisor::{DiskHealthChanged, IntegrityStop, Shutdown};
use baton_storage::{FollowError, Reader, Store};
use prometheus_client::registry::Registry;

use crate::wiring::{EnginePorts, Hears, Make, Threads, context, port, start_blocking};
use crate::witness::Absent;

/// How the actors behave, one part each.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The engine actor.
    pub engine: engine::Config,
    /// The DA adapter's actor.
    pub da: da::Config,
    /// The DA retriever; `from` is set from the store when that is further.
    pub retriever: da_retriever::Config,
    /// The syncer.
    pub syncer: syncer::Config,
    /// Following. Where it says that headers alone are kept, the syncer must not be told to execute.
    pub follow: follow::Config,
    /// Asking peers.
    pub gatherer: gatherer::Config,
    /// The peer-to-peer actor; used where [`Parts::p2p`] is set.
    pub p2p: Option<p2p::Config>,
    /// Checking forced inclusion, where DA is followed; `None` where the chain has none.
    pub forced: Option<forced::Config>,
}

/// What every actor counts.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct Metrics {
    pub engine: engine::Metrics,
    pub da: da::Metrics,
    pub retriever: da_retriever::Metrics,
    pub syncer: syncer::Metrics,
    pub follow: follow::Metrics,
    pub gatherer: gatherer::Metrics,
    pub p2p: p2p::Metrics,
}

impl Metrics {
    /// Makes all of them visible.
    pub fn register(&self, registry: &mut Registry) {
        self.engine.register(registry);
        self.da.register(registry);
        self.retriever.register(registry);
        self.syncer.register(registry);
        self.follow.register(registry);
        self.gatherer.register(registry);
        self.p2p.register(registry);
    }
}

/// What is outside of the actors.
pub struct Parts {
    /// Time and chance.
    pub world: World,
    /// The store.
    pub store: Store,
    /// The execution engine; `None` on a light node.
    pub execution: Option<Make<Box<dyn Execution>>>,
    /// The DA layer; `None` where only peers are followed.
    pub da: Option<Rc<dyn DaLayer>>,
    /// The network of peers; `None` where only DA is followed.
    pub p2p: Option<p2p::Parts>,
    /// Instead of the peer-to-peer actor.
    pub peers: Option<PeerPorts>,
    /// Where blocking actors run.
    pub threads: Threads,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("threads", &self.threads).finish_non_exhaustive()
    }
}

/// What can be said to a peer-to-peer actor by a node that follows.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct PeerPorts {
    pub head: Recipient<FetchHead>,
    pub headers: Recipient<FetchHeaders>,
    pub data: Recipient<FetchData>,
    pub report: Recipient<ReportPeer>,
}

impl PeerPorts {
    /// The ports of an actor that hears all of it.
    pub fn of<A>(actor: &Addr<A>) -> Self
    where
        A: Hears<FetchHead> + Hears<FetchHeaders> + Hears<FetchData> + Hears<ReportPeer>,
    {
        Self { head: port(actor), headers: port(actor), data: port(actor), report: port(actor) }
    }
}

/// A following node before it starts.
#[derive(Debug)]
pub struct Following {
    /// How the actors behave.
    pub settings: Settings,
    /// What they count.
    pub metrics: Metrics,
    /// What is outside.
    pub parts: Parts,
    /// Hear that a block entered the store.
    pub applied: Vec<Recipient<Applied>>,
    /// Hear that the proposer signed two chains, beside the observer.
    pub forks: Vec<Recipient<ForkFound>>,
    /// Hears that a person is needed and the process must end.
    pub integrity_stop: Recipient<IntegrityStop>,
}

/// A running node, as its RPC and its tests see it.
#[derive(Clone, Debug)]
pub struct FullNode {
    /// The engine; on a light node one that is away.
    pub engine: EnginePorts,
    /// How the node is.
    pub observer: Recipient<GetObserverView>,
    /// How following goes.
    pub sync: Recipient<GetSyncView>,
    /// Takes headers and data, whoever found them.
    pub offer: Recipient<Offer>,
    /// Judges what peers gossip.
    pub gossiped: Recipient<Gossiped>,
    /// Hears who comes and goes among peers; `None` where only DA is followed.
    pub peers: Option<Recipient<PeerChanged>>,
    /// Says who is connected; `None` without a network.
    pub net_info: Option<Recipient<GetNetInfo>>,
    /// Asks peers how far they are; `None` where only DA is followed.
    pub heads: Option<Recipient<FetchHead>>,
    /// Hears what keeps a sequencer that catches up from producing.
    pub waits: Recipient<ProductionWaits>,
    /// Hears where on DA blocks may be; `None` where DA is not followed.
    pub hint: Option<Recipient<DaHint>>,
    /// Hear how the disk is.
    pub disk: Vec<Recipient<DiskHealthChanged>>,
    /// End the node, in this order; each answers when it has.
    pub shutdown: Vec<Recipient<Shutdown>>,
    /// The store, to read.
    pub reader: Reader,
}

impl Following {
    /// Starts the actors. Must be called in a `LocalSet`, or on an actix `System`'s thread.
    ///
    /// # Errors
    ///
    /// `FollowError` when the store belongs to a node of another kind, or fails.
    pub async fn start(self) -> Result<FullNode, FollowError> {
        let Self { settings, metrics, parts, applied, forks, integrity_stop } = self;
        let Parts { world, store, execution, da, p2p, peers, threads } = parts;
        let reader = store.reader();
        let headers_only = settings.follow.headers_only;
        let observer_ctx = context::<Observer>();
        let syncer_ctx = context::<Syncer>();
        let (observer, syncer) = (observer_ctx.address(), syncer_ctx.address());

        let gatherer_ctx = context::<Gatherer>();
        let gatherer = gatherer_ctx.address();
        let p2p = p2p.zip(settings.p2p).map(|(parts, config)| {
            let links = p2p::Links {
                gossiped: Some(syncer.clone().recipient()),
                peers: vec![gatherer.clone().recipient()],
                members: None,
            };
            let (metrics, world, reader) = (metrics.p2p, world.clone(), reader.clone());
            start_blocking(threads, move || P2p::new(config, links, metrics, world, reader, parts))
        });
        let peers = peers.or_else(|| p2p.as_ref().map(PeerPorts::of));
        let (da_config, da_metrics) = (settings.da, metrics.da);
        let retriever_ctx =
            da.map(|da| (Da::new(da, da_config, da_metrics).start(), context::<DaRetriever>()));
        let hint = retriever_ctx.as_ref().map(|(_, ctx)| ctx.address().recipient());
        let links = follow::Links {
            applied,
            forks: forks.into_iter().chain([observer.clone().recipient()]).collect(),
            hint: hint.clone(),
            report: peers.as_ref().map(|peers| peers.report.clone()),
        };
        let following =
            follow::Following::begin(settings.follow, links, metrics.follow, world.clone(), store);
        let following = following.await?;
        let (cursor, strict_from) = (following.cursor(), following.strict_from());

        let links = engine::Links {
            executed: vec![observer.clone().recipient()],
            health: observer.clone().recipient(),
        };
        let (config, engine_metrics) = (settings.engine, metrics.engine);
        let engine_ports = match execution {
            Some(execution) => EnginePorts::of(&start_blocking(threads, move || {
                Engine::new(execution(), config, links, engine_metrics)
            })),
            None => EnginePorts::of(&Absent.start()),
        };
        let mut left_out = None;
        let following = match (settings.forced, &retriever_ctx) {
            (Some(config), Some((da, _))) => {
                left_out = reader.left_out().map(|left_out| forced::said(&left_out));
                let links = forced::Links {
                    get: da.clone().recipient(),
                    filter: engine_ports.filter.clone(),
                    left_out: observer.clone().recipient(),
                };
                following.checking(config, links)?
            }
            (Some(_) | None, _) => following,
        };

        let evidence = reader.evidence();
        // The lowest: from there on nothing becomes final.
        let lowest = evidence.iter().min_by_key(|evidence| evidence.height);
        let fork = lowest.map(|evidence| follow::forks::said(evidence, headers_only));
        observer_ctx.run(Observer::new(observer::Links { integrity_stop }, fork, left_out));
        let links = syncer::Links {
            init_chain: engine_ports.init_chain.clone(),
            position: engine_ports.position.clone(),
            execute: engine_ports.execute.clone(),
            rollback: engine_ports.rollback.clone(),
            set_final: engine_ports.set_final.clone(),
            followed: std::iter::once(observer.clone().recipient())
                .chain(p2p.clone().map(Addr::recipient))
                .collect(),
            trouble: observer.clone().recipient(),
            source: None,
        };
        let actor = Syncer::new(settings.syncer, links, metrics.syncer, reader.clone()).following(following);
        syncer_ctx.run(actor);
        if let Some((da, ctx)) = retriever_ctx {
            let config =
                da_retriever::Config { from: settings.retriever.from.max(cursor), ..settings.retriever };
            let links = da_retriever::Links {
                get: da.clone().recipient(),
                head: da.clone().recipient(),
                announced: da.recipient(),
                offer: syncer.clone().recipient(),
                state: observer.clone().recipient(),
            };
            ctx.run(DaRetriever::new(config, links, metrics.retriever).strict_from(strict_from));
        }
        let heads = peers.as_ref().map(|peers| peers.head.clone());
        let peers = peers.map(|peers| {
            let check = start_blocking(threads, move || Checker::new(world)).recipient();
            let links = gatherer::Links {
                head: peers.head,
                headers: peers.headers,
                data: (!headers_only).then_some(peers.data),
                check,
                offer: syncer.clone().recipient(),
                report: peers.report,
                hint: hint.clone(),
            };
            gatherer_ctx.run(Gatherer::new(settings.gatherer, links, metrics.gatherer, reader.clone()));
            gatherer.recipient()
        });
        Ok(FullNode {
            engine: engine_ports,
            observer: observer.clone().recipient(),
            sync: syncer.clone().recipient(),
            offer: syncer.clone().recipient(),
            gossiped: syncer.clone().recipient(),
            peers,
            net_info: p2p.clone().map(Addr::recipient),
            heads,
            waits: observer.clone().recipient(),
            hint,
            disk: vec![observer.recipient()],
            shutdown: [syncer.recipient()].into_iter().chain(p2p.map(Addr::recipient)).collect(),
            reader,
        })
    }
}

/// Stands where a following node has no sequencer, and says where transactions go instead.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoIntake;

impl Actor for NoIntake {
    type Context = Context<Self>;
}

impl Handler<PostTxs> for NoIntake {
    type Result = MessageResult<PostTxs>;

    fn handle(&mut self, _: PostTxs, _: &mut Context<Self>) -> Self::Result {
        let why = "this node follows the chain and takes no transactions: post to a node of the sequencer";
        MessageResult(Err(SubmitError::NotReady(why.to_owned())))
    }
}

impl Handler<AwaitTx> for NoIntake {
    type Result = MessageResult<AwaitTx>;

    fn handle(&mut self, _: AwaitTx, _: &mut Context<Self>) -> Self::Result {
        MessageResult(Err(AwaitError::Unknown))
    }
}
