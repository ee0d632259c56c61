//! A node that follows a chain, of real actors on a machine that can lose its power.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use actix::{Actor, Context, Handler};
use baton::following::{Following, FullNode, Metrics, Parts, PeerPorts, Settings};
use baton::wiring::{Make, Threads};
use baton_actors::da::DaLayer;
use baton_actors::engine::kv::{self, Kv};
use baton_actors::syncer::candidates::Limits;
use baton_actors::syncer::{self, follow, forced};
use baton_actors::world::World;
use baton_actors::{da, da_retriever, engine, gatherer, p2p};
use baton_messages::chain::Signer;
use baton_messages::da::Namespace;
use baton_messages::follow::{GetObserverView, GetSyncView, ObserverView, SyncView};
use baton_messages::p2p::PeerId;
use baton_messages::supervisor::IntegrityStop;
use baton_messages::types::{Height, Timestamp, Tip};
use baton_storage::{Reader, Store};

use crate::P2pNet;
use crate::da::FakeDa;
use crate::node::{MAX_CLOCK_DRIFT, Machine, START, SendOnSameThread, hook};
use crate::p2p_net::Peering;
use crate::power::Power;
use crate::run::SimClock;

/// How a following node is started.
#[derive(Clone, Debug)]
pub struct FollowPlan {
    /// On which machine: one `another` of the chain's, which shares its DA layer.
    pub machine: Machine,
    /// With which power switch.
    pub power: Power,
    /// How much may wait in it.
    pub limits: Limits,
    /// How long DA takes for an answer.
    pub da_latency: Duration,
    /// Whether DA is read.
    pub reads_da: bool,
    /// Whether this node's way to DA is cut.
    pub da_cut: Arc<AtomicBool>,
    /// The way to peers, instead of the peer-to-peer actor.
    pub peers: Option<PeerPorts>,
    /// The place in the network of its peer-to-peer actor, if it has one.
    pub peering: Option<Peering>,
    /// How far the wall clock is ahead of the genesis time, nanoseconds.
    pub clock_offset: i64,
    /// Whether forced inclusion is checked.
    pub forced: bool,
    /// Whether headers only are followed.
    pub light: bool,
    /// The network of peers, and this node's name in it: with a peer-to-peer actor of its own.
    pub network: Option<(P2pNet, &'static str)>,
}

impl FollowPlan {
    /// A following node on this machine.
    #[must_use]
    pub fn on(machine: Machine, power: Power) -> Self {
        Self {
            machine,
            power,
            limits: Limits::default(),
            da_latency: Duration::from_millis(20),
            reads_da: true,
            da_cut: Arc::default(),
            peers: None,
            peering: None,
            clock_offset: 0,
            forced: false,
            light: false,
            network: None,
        }
    }
}

/// Hears that a person is needed.
struct Alarm(Rc<RefCell<Vec<String>>>);

impl Actor for Alarm {
    type Context = Context<Self>;
}

impl Handler<IntegrityStop> for Alarm {
    type Result = ();

    fn handle(&mut self, message: IntegrityStop, _: &mut Context<Self>) {
        self.0.borrow_mut().push(message.reason);
    }
}

/// A running following node.
pub struct FollowingNode {
    /// What it is wired to.
    pub wired: FullNode,
    /// What it counts.
    pub metrics: Metrics,
    power: Power,
    alarms: Rc<RefCell<Vec<String>>>,
    store: Store,
}

impl FollowingNode {
    /// Starts a following node; `None` when the power goes off before it runs. It ends with the
    /// simulation it runs in.
    ///
    /// # Panics
    ///
    /// When the store belongs to a node that produces.
    pub async fn start(plan: &FollowPlan) -> Option<Self> {
        let machine = &plan.machine;
        let store = machine.open();
        machine.disk.set_hook(Some(hook(&plan.power)));
        let alarms: Rc<RefCell<Vec<String>>> = Rc::default();
        let integrity_stop = Alarm(alarms.clone()).start().recipient();
        let execution = (!plan.light).then(|| {
            let app = Kv::open(store.backend(), kv::Config::default()).expect("the app's state opens");
            let app = SendOnSameThread(Box::new(app));
            Box::new(move || app.take()) as Make<_>
        });
        let metrics = Metrics::default();
        let clock = SimClock::showing(Timestamp(START.0.saturating_add_signed(plan.clock_offset)));
        let following = Following {
            settings: settings(plan),
            metrics: metrics.clone(),
            parts: Parts {
                world: World::bounded(Arc::new(clock), 1, MAX_CLOCK_DRIFT),
                store: store.clone(),
                execution,
                da: plan.reads_da.then(|| {
                    let da = FakeDa::new(machine.ledger.clone(), plan.power.clone(), plan.da_latency);
                    Rc::new(da.over(plan.da_cut.clone())) as Rc<dyn DaLayer>
                }),
                p2p: match &plan.network {
                    Some((net, name)) => Some(net.join(name)),
                    None => plan.peering.as_ref().map(Peering::join),
                },
                peers: plan.peers.clone(),
                threads: Threads::Shared,
            },
            applied: vec![],
            forks: vec![],
            integrity_stop,
        };
        match following.start().await {
            Ok(wired) => Some(Self { wired, metrics, power: plan.power.clone(), alarms, store }),
            Err(error) => {
                assert!(plan.power.is_off(), "{error}");
                None
            }
        }
    }

    /// The chain, to read.
    #[must_use]
    pub fn reader(&self) -> Reader {
        self.store.reader()
    }

    /// Its last block.
    #[must_use]
    pub fn tip(&self) -> Tip {
        self.reader().tip()
    }

    /// What a person was asked for.
    #[must_use]
    pub fn alarms(&self) -> Vec<String> {
        self.alarms.borrow().clone()
    }

    /// How it is.
    ///
    /// # Panics
    ///
    /// When the observer is gone.
    pub async fn observer(&self) -> ObserverView {
        self.wired.observer.send(GetObserverView).await.expect("the observer lives")
    }

    /// How following goes.
    ///
    /// # Panics
    ///
    /// When the syncer is gone.
    pub async fn sync(&self) -> SyncView {
        self.wired.sync.send(GetSyncView).await.expect("the syncer lives")
    }

    /// Waits until something holds; `false` when the power goes off before.
    ///
    /// # Panics
    ///
    /// When it takes longer than ten virtual minutes.
    pub async fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) -> bool {
        for _ in 0..60_000 {
            if self.power.is_off() {
                return false;
            }
            if holds(self) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let (tip, sync, observer) = (self.tip(), self.sync().await, self.observer().await);
        panic!("no progress: waited ten minutes for {what}; {tip:?}, {sync:?}, {observer:?}");
    }

    /// Waits until a height is here and included.
    pub async fn reach(&self, height: Height) -> bool {
        self.until("a height", |node| {
            node.tip().height >= height && node.reader().da_progress().included >= height
        })
        .await
    }
}

fn settings(plan: &FollowPlan) -> Settings {
    let reply_within = Duration::from_secs(5);
    let genesis = &plan.machine.genesis;
    Settings {
        engine: engine::Config { call_timeout: Duration::from_secs(2), ..engine::Config::default() },
        da: da::Config { request_timeout: Duration::from_secs(2), ..da::Config::default() },
        retriever: da_retriever::Config {
            chain_id: genesis.chain_id.clone(),
            proposer: genesis.proposer_address.clone(),
            header_namespace: Namespace::of("headers"),
            data_namespace: Namespace::of(if plan.light { "headers" } else { "data" }),
            from: genesis.da_start_height,
            max_blob: 1 << 20,
            in_flight: 4,
            together: 16,
            da_block_time: Duration::from_millis(200),
            reply_within,
            taken_within: Duration::from_secs(10),
        },
        syncer: syncer::Config {
            reply_within,
            retry_after: Duration::from_millis(100),
            log_every: 1_000,
            backfill: syncer::backfill::Config::default(),
            executes: !plan.light,
        },
        follow: follow::Config {
            limits: plan.limits,
            reopen_after: Duration::from_millis(100),
            headers_only: plan.light,
            ..follow::Config::default()
        },
        gatherer: gatherer::Config { count: 16, ..gatherer::Config::default() },
        p2p: match &plan.network {
            Some((_, name)) => {
                let address = genesis.proposer_address.clone();
                Some(p2p::Config::new(PeerId::from(*name), Signer { address, ..Signer::default() }))
            }
            None => plan.peering.as_ref().map(|peering| peering.config(plan.machine.signer())),
        },
        forced: plan.forced.then(|| forced::Config { namespace: Namespace::of("forced"), reply_within }),
    }
}

/// Checks a machine that followed the chain of another one: the same headers and data at every height,
/// signed, without a gap, and nothing included that DA does not hold.
///
/// # Panics
///
/// When a promise is broken.
pub fn check_follows(follower: &Machine, producer: &Machine) {
    follower.disk.set_hook(None);
    let (ours, theirs) = (follower.open().reader(), producer.open().reader());
    let tip = ours.tip().height;
    assert!(tip <= theirs.tip().height, "P1: a block was followed that is not committed");
    let signer = ours.follow().expect("it follows").signer;
    for height in (ours.initial_height().0..=tip.0).map(Height) {
        let block = ours.block(height).expect("readable").expect("heights have no gap");
        assert_eq!(Some(block), theirs.block(height).expect("readable"), "P1: another block at {height}");
        let signed = ours.signed_header(height, &signer).expect("readable").expect("every block is signed");
        signed.verify_signature().expect("only signed blocks are followed");
    }
    let (included, headers, data) =
        (ours.da_progress().included, producer.ledger.headers(), producer.ledger.data());
    assert!(included <= tip, "P7: {included} is final, the tip is {tip}");
    for height in (ours.initial_height().0..=included.0).map(Height) {
        assert!(headers.contains_key(&height), "P7: header {height} is not on DA");
        let block = ours.block(height).expect("readable").expect("there");
        assert!(block.txs().is_empty() || data.contains_key(&height), "P7: data of {height} are not on DA");
    }
    assert_eq!(ours.evidence(), [], "nobody signed two chains");
}
