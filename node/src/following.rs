//! The wiring of a node that follows a chain: no Raft, no key, no producers.
//!
//! The retriever and the peers offer, the syncer checks and holds the `Writer`, the engine executes,
//! the observer knows how everything is. As in [`crate::wiring`], what is outside comes in as parts,
//! so that a simulation runs the same actors.

use std::fmt;
use std::rc::Rc;

use actix::{Actor, Addr, AsyncContext, Context, Handler, MessageResult, Recipient};
use baton_actors::da::{self, Da, DaLayer};
use baton_actors::da_retriever::{self, DaRetriever};
use baton_actors::engine::{self, Engine, Execution};
use baton_actors::observer::{self, Observer};
use baton_actors::syncer::follow;
use baton_actors::syncer::{self, Syncer};
use baton_actors::world::World;
use baton_messages::follow::{DaHint, GetObserverView, GetSyncView, Offer};
use baton_messages::raft::Applied;
use baton_messages::sequencer::{AwaitError, AwaitTx, PostTxs, SubmitError};
use baton_messages::supervisor::{DiskHealthChanged, IntegrityStop, Shutdown};
use baton_storage::{FollowError, Reader, Store};
use prometheus_client::registry::Registry;

use crate::wiring::{EnginePorts, Make, Threads, context, start_blocking};

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
    /// Following.
    pub follow: follow::Config,
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
}

impl Metrics {
    /// Makes all of them visible.
    pub fn register(&self, registry: &mut Registry) {
        self.engine.register(registry);
        self.da.register(registry);
        self.retriever.register(registry);
        self.syncer.register(registry);
        self.follow.register(registry);
    }
}

/// What is outside of the actors.
pub struct Parts {
    /// Time and chance.
    pub world: World,
    /// The store.
    pub store: Store,
    /// The execution engine.
    pub execution: Make<Box<dyn Execution>>,
    /// The DA layer; `None` where only peers are followed.
    pub da: Option<Rc<dyn DaLayer>>,
    /// Where blocking actors run.
    pub threads: Threads,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("threads", &self.threads).finish_non_exhaustive()
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
    /// Hears that a person is needed and the process must end.
    pub integrity_stop: Recipient<IntegrityStop>,
}

/// A running node, as its RPC and its tests see it.
#[derive(Clone, Debug)]
pub struct FullNode {
    /// The engine.
    pub engine: EnginePorts,
    /// How the node is.
    pub observer: Recipient<GetObserverView>,
    /// How following goes.
    pub sync: Recipient<GetSyncView>,
    /// Takes headers and data, whoever found them.
    pub offer: Recipient<Offer>,
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
    /// `FollowError` when the store belongs to a node that produces, or fails.
    pub async fn start(self) -> Result<FullNode, FollowError> {
        let Self { settings, metrics, parts, applied, integrity_stop } = self;
        let Parts { world, store, execution, da, threads } = parts;
        let reader = store.reader();
        let observer_ctx = context::<Observer>();
        let syncer_ctx = context::<Syncer>();
        let (observer, syncer) = (observer_ctx.address(), syncer_ctx.address());

        let links = follow::Links { applied, fork: observer.clone().recipient() };
        let following = follow::Following::begin(settings.follow, links, metrics.follow, world, store);
        let following = following.await?;
        let cursor = following.cursor();

        let links = engine::Links {
            executed: vec![observer.clone().recipient()],
            health: observer.clone().recipient(),
        };
        let (config, engine_metrics) = (settings.engine, metrics.engine);
        let engine = start_blocking(threads, move || Engine::new(execution(), config, links, engine_metrics));
        let engine_ports = EnginePorts::of(&engine);

        let evidence = reader.evidence();
        let fork = evidence.first().map(|evidence| {
            format!(
                "the proposer signed two chains, which fork at height {}: {} and {}; nothing from there on becomes \
                 final here",
                evidence.height,
                evidence.first.header.hash(),
                evidence.second.header.hash()
            )
        });
        observer_ctx.run(Observer::new(observer::Links { integrity_stop }, fork));
        let links = syncer::Links {
            init_chain: engine_ports.init_chain.clone(),
            position: engine_ports.position.clone(),
            execute: engine_ports.execute.clone(),
            rollback: engine_ports.rollback.clone(),
            set_final: engine_ports.set_final.clone(),
            followed: observer.clone().recipient(),
            trouble: observer.clone().recipient(),
            source: None,
        };
        let actor = Syncer::new(settings.syncer, links, metrics.syncer, reader.clone()).following(following);
        syncer_ctx.run(actor);
        let hint = da.map(|da| {
            let da = Da::new(da, settings.da, metrics.da).start();
            let config =
                da_retriever::Config { from: settings.retriever.from.max(cursor), ..settings.retriever };
            let retriever = retriever(&da, &syncer, &observer, config, metrics.retriever);
            retriever.recipient()
        });
        Ok(FullNode {
            engine: engine_ports,
            observer: observer.clone().recipient(),
            sync: syncer.clone().recipient(),
            offer: syncer.clone().recipient(),
            hint,
            disk: vec![observer.recipient()],
            shutdown: vec![syncer.recipient()],
            reader,
        })
    }
}

fn retriever(
    da: &Addr<Da>,
    syncer: &Addr<Syncer>,
    observer: &Addr<Observer>,
    config: da_retriever::Config,
    metrics: da_retriever::Metrics,
) -> Addr<DaRetriever> {
    let links = da_retriever::Links {
        get: da.clone().recipient(),
        head: da.clone().recipient(),
        announced: da.clone().recipient(),
        offer: syncer.clone().recipient(),
        state: observer.clone().recipient(),
    };
    DaRetriever::new(config, links, metrics).start()
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
