//! One node of real actors on a machine that can lose its power, and the checks on what is left.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use actix::{Actor, Context, Handler, Recipient};
use baton::wiring::{self, Parts, Settings, Threads, Wiring};
use baton_actors::da::DaLayer;
use baton_actors::engine::Execution;
use baton_actors::engine::kv::{self, Kv};
use baton_actors::raft::transport::{Nobody, Transport};
use baton_actors::signer::audit::{Event, MemoryAudit};
use baton_actors::signer::guard::{Guard, Progress};
use baton_actors::signer::key::{FileKey, Key};
use baton_actors::signer::slot::ChainId;
use baton_actors::signer::{self, MemoryGuard};
use baton_actors::world::{Clock, World};
use baton_actors::{da, da_submitter, engine, executor, inbox, raft, reaper, sequencer, supervisor, syncer};
use baton_messages::chain::Signer;
use baton_messages::command::COMMAND_VERSION;
use baton_messages::da::Namespace;
use baton_messages::genesis::Genesis;
use baton_messages::sequencer::{AwaitTx, Level, Outcome, Receipt, SubmitError, SubmitTxs};
use baton_messages::supervisor::{GetSupervisorView, IntegrityStop, SupervisorView};
use baton_messages::types::{DaHeight, Hash, Height, Member, Place, Timestamp, Tip, Tx};
use baton_storage::memory::{Disk, Effect, EffectOutcome, Hook, Keep};
use baton_storage::raft_types::Vote;
use baton_storage::{Completion, OpenError, OpenOptions, Reader, Stats, Store};
use bytes::Bytes;

use crate::client::{Ack, Oracle};
use crate::da::{FakeDa, Ledger};
use crate::net::SeenLives;
use crate::p2p_net::Peering;
use crate::power::Power;
use crate::rate::Rate;
use crate::run::SimClock;

/// What survives a crash: disk, guard, DA layer, audit record, and what clients remember.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The store's disk.
    pub disk: Disk,
    /// The disk of an engine that keeps its state by itself (see `FakeEngine`).
    pub engine_disk: Disk,
    /// The guard's file.
    pub guard: MemoryGuard,
    /// The DA layer.
    pub ledger: Ledger,
    /// Every signature ever made.
    pub audit: MemoryAudit,
    /// What clients were told.
    pub oracle: Oracle,
    /// The chain's genesis.
    pub genesis: Genesis,
    /// The identity of its store.
    pub storage: uuid::Uuid,
    /// The lives of other storages that it has met.
    pub lives: SeenLives,
    seed: u64,
}

impl Machine {
    /// A new machine with an empty store for a chain of its own key.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let genesis = Genesis {
            chain_id: "simulated".to_owned(),
            start_time: START,
            initial_height: Height(1),
            proposer_address: Signer::ed25519(&key(seed).public()).address,
            da_start_height: DaHeight(1),
            da_epoch_forced_inclusion: 50,
        };
        Self {
            disk: Disk::new(),
            engine_disk: Disk::new(),
            guard: MemoryGuard::default(),
            ledger: Ledger::default(),
            audit: MemoryAudit::default(),
            oracle: Oracle::default(),
            genesis,
            storage: uuid::Uuid::from_u64_pair(seed, 1),
            lives: SeenLives::default(),
            seed,
        }
    }

    /// Another machine for the same chain: with a disk and a guard of its own, the same key, DA
    /// layer and clients.
    #[must_use]
    pub fn another(&self, number: usize) -> Self {
        let storage = uuid::Uuid::from_u64_pair(self.seed ^ ((number as u64 + 1) << 32), number as u64 + 1);
        Self {
            disk: Disk::new(),
            engine_disk: Disk::new(),
            guard: MemoryGuard::default(),
            audit: MemoryAudit::default(),
            storage,
            lives: SeenLives::default(),
            ..self.clone()
        }
    }

    /// A machine beside this one with a copy of its disk, guard and configuration.
    #[must_use]
    pub fn twin(&self, disk: Disk) -> Self {
        let twin = Self {
            disk,
            engine_disk: Disk::new(),
            guard: MemoryGuard::default(),
            audit: MemoryAudit::default(),
            lives: SeenLives::default(),
            ..self.clone()
        };
        twin.guard.replace(self.guard.slots());
        twin
    }

    /// This machine beside another DA layer.
    #[must_use]
    pub fn beside(&self, ledger: Ledger) -> Self {
        Self { ledger, ..self.clone() }
    }

    /// This machine after its disk was lost: an empty one with a new identity. The guard's file,
    /// which lies beside the key, is still there.
    #[must_use]
    pub fn wiped(&self, times: u64) -> Self {
        let (first, second) = self.storage.as_u64_pair();
        let storage = uuid::Uuid::from_u64_pair((first << 16 >> 16) | (times << 48), second);
        Self { disk: Disk::new(), engine_disk: Disk::new(), storage, ..self.clone() }
    }

    /// The crash itself: what was not synced is lost but for `keep`.
    pub fn lose_power(&self, keep: Keep) {
        self.disk.set_hook(None);
        self.disk.set_sync_wait(None);
        self.disk.crash(keep);
    }

    /// Who proposes and signs on this machine's chain.
    #[must_use]
    pub fn signer(&self) -> Signer {
        Signer::ed25519(&key(self.seed).public())
    }

    /// The chain's key.
    #[must_use]
    pub fn key(&self) -> FileKey {
        key(self.seed)
    }

    /// A signature by the chain's key; the guard does not hear of it.
    ///
    /// # Panics
    ///
    /// When the key fails, which this one does not.
    #[must_use]
    pub fn sign(&self, payload: &[u8]) -> Bytes {
        key(self.seed).sign(payload).expect("a key in memory signs")
    }

    fn options(&self) -> OpenOptions {
        OpenOptions {
            path: PathBuf::from("memory"),
            chain_id: self.genesis.chain_id.clone(),
            genesis: self.genesis.clone(),
            completion: Completion::Inline,
        }
    }

    /// Opens the store; makes it the first time.
    ///
    /// # Panics
    ///
    /// When what is on the disk is not a store of this chain.
    #[must_use]
    pub fn open(&self) -> Store {
        self.open_knowing(COMMAND_VERSION)
    }

    /// As `open`, as a version of baton that knows log entries up to this version.
    ///
    /// # Panics
    ///
    /// As `open`.
    #[must_use]
    pub fn open_knowing(&self, version: u8) -> Store {
        self.try_open(version).unwrap_or_else(|error| panic!("the store does not open again: {error}"))
    }

    /// As `open_knowing`.
    ///
    /// # Errors
    ///
    /// When what is on the disk is not a store of this chain, or is damaged.
    pub fn try_open(&self, version: u8) -> Result<Store, OpenError> {
        match Store::in_memory_knowing(&self.disk, self.options(), version) {
            Err(OpenError::NotInitialised(_)) => {
                let store = Store::create_in_memory(&self.disk, self.options(), self.storage)?;
                store.pretend_to_know(version);
                Ok(store)
            }
            opened => opened,
        }
    }
}

/// How far a simulated node's clock may jump ahead at once (hazard A19).
pub const MAX_CLOCK_DRIFT: Duration = Duration::from_secs(5);

/// The genesis time of simulated chains.
pub(crate) const START: Timestamp = Timestamp(1_700_000_000_000_000_000);

fn key(seed: u64) -> FileKey {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    FileKey::from_seed(&bytes)
}

/// Makes an engine over a node's store.
pub type MakeEngine = Box<dyn Fn(&Store) -> Box<dyn Execution>>;

/// Changes a wiring before it starts.
pub type Adjust = Box<dyn Fn(&mut Wiring)>;

/// How a node is started.
pub struct Plan {
    /// On which machine.
    pub machine: Machine,
    /// With which power switch.
    pub power: Power,
    /// Time between two blocks.
    pub block_time: Duration,
    /// Whether blocks wait for transactions.
    pub lazy: bool,
    /// Most blocks that wait for DA.
    pub max_da_backlog: u64,
    /// How long DA takes for an answer.
    pub da_latency: Duration,
    /// Whether this node's way to DA is cut.
    pub da_cut: Arc<AtomicBool>,
    /// How far the wall clock is off, nanoseconds.
    pub clock_offset: i64,
    /// How fast its clocks run.
    pub rate: Rate,
    /// Instead of the key-value app.
    pub execution: Option<MakeEngine>,
    /// With the key-value app's own pool, and the reaper that empties it.
    pub pool: bool,
    /// Changes the wiring before it starts.
    pub adjust: Option<Adjust>,
    /// As which member of a cluster; a sole one when not said.
    pub member: Option<Member>,
    /// How it comes to a membership.
    pub bootstrap: raft::Bootstrap,
    /// The way to other members.
    pub transport: Option<Arc<dyn Transport>>,
    /// Log entries between two snapshots.
    pub snapshot_after: u64,
    /// Log entries kept behind a snapshot.
    pub keep_entries: u64,
    /// Whether it has neither engine nor key nor DA layer.
    pub witness: bool,
    /// Whether transactions can be forced through DA.
    pub forced: bool,
    /// The place in the network of its peer-to-peer actor, if it has one.
    pub peering: Option<Peering>,
}

impl Default for Plan {
    fn default() -> Self {
        Self::on(Machine::new(1), Power::default())
    }
}

impl Plan {
    /// A node on this machine.
    #[must_use]
    pub fn on(machine: Machine, power: Power) -> Self {
        Self {
            machine,
            power,
            block_time: Duration::from_millis(100),
            lazy: false,
            max_da_backlog: 100,
            da_latency: Duration::from_millis(20),
            da_cut: Arc::default(),
            clock_offset: 0,
            rate: Rate::default(),
            execution: None,
            pool: false,
            adjust: None,
            member: None,
            bootstrap: raft::Bootstrap::Sole,
            transport: None,
            snapshot_after: 50,
            keep_entries: 20,
            witness: false,
            forced: false,
            peering: None,
        }
    }
}

/// Hears that a person is needed.
struct Alarm(Rc<std::cell::RefCell<Vec<String>>>, Power);

impl Actor for Alarm {
    type Context = Context<Self>;
}

impl Handler<IntegrityStop> for Alarm {
    type Result = ();

    fn handle(&mut self, message: IntegrityStop, _: &mut Context<Self>) {
        self.0.borrow_mut().push(message.reason);
        self.1.touch();
    }
}

/// A running node.
pub struct Node {
    wired: wiring::Node,
    machine: Machine,
    power: Power,
    alarms: Rc<std::cell::RefCell<Vec<String>>>,
    announced: std::cell::RefCell<Vec<String>>,
    clock: SimClock,
    store: Store,
}

impl Node {
    /// Starts a node. It ends with the simulation it runs in.
    #[must_use]
    pub fn start(plan: &Plan) -> Self {
        let store = plan.machine.open();
        Self::start_over(plan, store)
    }

    /// Starts a node over the opened store of its machine.
    #[must_use]
    pub fn start_over(plan: &Plan, store: Store) -> Self {
        let machine = plan.machine.clone();
        let switch = plan.power.clone();
        machine.disk.set_hook(Some(hook(&switch)));
        let clock =
            SimClock::showing(Timestamp(START.0.saturating_add_signed(plan.clock_offset))).at(plan.rate);
        let alarms: Rc<std::cell::RefCell<Vec<String>>> = Rc::default();
        let integrity_stop: Recipient<IntegrityStop> =
            Alarm(alarms.clone(), plan.power.clone()).start().recipient();
        let parts = parts(plan, &machine, &store, &clock);
        let settings = plan.rate.settings(settings(plan, &store));
        let mut wiring = Wiring::new(settings, parts, integrity_stop);
        if let Some(adjust) = &plan.adjust {
            adjust(&mut wiring);
        }
        let announced = std::cell::RefCell::default();
        let wired = wiring.start();
        Self { wired, machine, power: plan.power.clone(), alarms, announced, clock, store }
    }

    /// The vote its store holds.
    #[must_use]
    pub fn vote(&self) -> Option<Vote> {
        self.store.log().vote()
    }

    /// What its store did.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.store.stats()
    }

    /// What its store is in trouble with.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.store.trouble().map(|trouble| trouble.to_string())
    }

    /// Up to where its log is purged.
    #[must_use]
    pub fn purged(&self) -> u64 {
        self.store.log().newest_within(0).0
    }

    /// Its store.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// It is a version of baton that knows log entries up to this one, whatever it has told.
    pub fn pretend_to_know(&self, version: u8) {
        self.store.pretend_to_know(version);
    }

    /// A person may be asked for with these words: what follows is meant to happen.
    pub fn announce_alarm(&self, words: &str) {
        self.announced.borrow_mut().push(words.to_owned());
    }

    /// The announced ones.
    #[must_use]
    pub fn announced_alarms(&self) -> Vec<String> {
        self.announced.borrow().clone()
    }

    /// The ports of its actors.
    #[must_use]
    pub const fn ports(&self) -> &wiring::Node {
        &self.wired
    }

    /// Its chain.
    #[must_use]
    pub const fn reader(&self) -> &Reader {
        &self.wired.reader
    }

    /// Its tip.
    #[must_use]
    pub fn tip(&self) -> Tip {
        self.wired.reader.tip()
    }

    /// Its clock.
    #[must_use]
    pub const fn clock(&self) -> &SimClock {
        &self.clock
    }

    /// For what it wanted a person.
    #[must_use]
    pub fn alarms(&self) -> Vec<String> {
        self.alarms.borrow().clone()
    }

    /// What its supervisor does.
    ///
    /// # Panics
    ///
    /// When the supervisor does not answer.
    pub async fn supervisor(&self) -> SupervisorView {
        self.wired.supervisor.send(GetSupervisorView).await.expect("the supervisor answers in every state")
    }

    /// Hands a transaction in and waits until it is *accepted*.
    ///
    /// # Errors
    ///
    /// What the sequencer says.
    pub async fn submit(&self, text: &str) -> Result<Hash, SubmitError> {
        let tx = Tx(Bytes::copy_from_slice(text.as_bytes()));
        self.machine.oracle.attempt(&tx);
        let submit = self.wired.sequencer.submit_txs.send(SubmitTxs { txs: vec![tx.clone()] });
        let reply = submit.timeout(Duration::from_secs(10)).await;
        let receipts = reply.map_err(|error| SubmitError::NotReady(error.to_string()))??;
        if !self.power.is_off() {
            match receipts[..] {
                [Receipt::Queued(_)] => self.machine.oracle.told(&tx, Ack::Accepted),
                [Receipt::InChain(_, place)] => self.machine.oracle.told(&tx, Ack::Committed(place)),
                _ => panic!("one transaction, {} receipts", receipts.len()),
            }
        }
        Ok(tx.hash())
    }

    /// Hands a transaction in and waits until it has come so far. `None`: it did not in time.
    pub async fn submit_and_wait(&self, text: &str, level: Level) -> Option<Outcome> {
        let hash = self.submit(text).await.ok()?;
        let wait = self.wired.sequencer.await_tx.send(AwaitTx { hash, level });
        let outcome = wait.timeout(Duration::from_secs(30)).await.ok()?.ok()?;
        if !self.power.is_off() {
            let tx = Tx(Bytes::copy_from_slice(text.as_bytes()));
            self.machine.oracle.told(&tx, Ack::Committed(outcome.place));
        }
        Some(outcome)
    }

    /// Waits until something holds, or the power is off. Says whether it held.
    ///
    /// # Panics
    ///
    /// When it takes longer than ten virtual minutes: the node makes no progress.
    pub async fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) -> bool {
        for _ in 0..600_000 {
            if self.power.is_off() {
                return false;
            }
            if holds(self) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("no progress: waited ten minutes for {what}; {:?}, {:?}", self.tip(), self.supervisor().await);
    }

    /// Waits for a height.
    pub async fn reach(&self, height: u64) -> bool {
        self.until("a height", |node| node.tip().height >= Height(height)).await
    }

    /// Waits until everything up to the height of now is on DA and recorded.
    pub async fn drain(&self) -> bool {
        let height = self.tip().height;
        self.until("inclusion on DA", |node| node.reader().da_progress().included >= height).await
    }
}

/// Lets every effect of a disk pass the power switch.
pub(crate) fn hook(power: &Power) -> Hook {
    let switch = power.clone();
    Arc::new(move |effect| {
        let name = match effect {
            Effect::BeforeWrite => "disk.write",
            Effect::AfterWrite => "disk.written",
            Effect::BeforeSync => "disk.sync",
            Effect::AfterSync => "disk.synced",
        };
        match (switch.failure(name), switch.effect(name)) {
            (_, false) => EffectOutcome::PowerOff,
            (Some(error), true) => EffectOutcome::Fail(error),
            (None, true) => EffectOutcome::Continue,
        }
    })
}

fn parts(plan: &Plan, machine: &Machine, store: &Store, clock: &SimClock) -> Parts {
    let execution: Box<dyn Execution> = match &plan.execution {
        Some(make) => make(store),
        None => {
            let pool = plan.pool.then(|| kv::PoolLimits { tx_bytes: 10_000, ..kv::PoolLimits::default() });
            let config = kv::Config { pool, ..kv::Config::default() };
            Box::new(Kv::open(store.backend(), config).expect("the app's state opens"))
        }
    };
    let execution = SendOnSameThread(execution);
    Parts {
        world: World::bounded(Arc::new(clock.clone()), machine.seed, MAX_CLOCK_DRIFT),
        store: store.clone(),
        transport: plan.transport.clone().unwrap_or_else(|| Arc::new(Nobody)),
        execution: (!plan.witness)
            .then(|| -> wiring::Make<Box<dyn Execution>> { Box::new(move || execution.take()) }),
        da: (!plan.witness).then(|| -> Rc<dyn DaLayer> {
            let da = FakeDa::new(machine.ledger.clone(), plan.power.clone(), plan.da_latency);
            Rc::new(da.by(machine.storage).over(plan.da_cut.clone()))
        }),
        signer: (!plan.witness).then(|| signer_parts(&plan.power, machine, clock)),
        progress: Progress { last_block: store.reader().tip().height, last_signed: None },
        threads: Threads::Shared,
        p2p: plan.peering.as_ref().map(Peering::join),
    }
}

/// Key, guard and audit record of a machine.
pub(crate) fn signer_parts(power: &Power, machine: &Machine, clock: &SimClock) -> signer::Parts {
    let (power, now) = (power.clone(), clock.clone());
    let effects: signer::Effects = Arc::new(move |name| power.effect(name));
    signer::Parts {
        key: Box::new(key(machine.seed)),
        guard: Box::new(machine.guard.restart(effects)),
        audit: Box::new(machine.audit.clone()),
        now: Arc::new(move || now.now()),
        metrics: signer::Metrics::default(),
    }
}

/// An engine made and used on the one thread of a simulation, through a wiring that could also
/// make it on another.
pub(crate) struct SendOnSameThread(pub(crate) Box<dyn Execution>);

#[allow(unsafe_code)]
// SAFETY: with `Threads::Shared` the wiring calls the maker on the thread that made it.
unsafe impl Send for SendOnSameThread {}

impl SendOnSameThread {
    pub(crate) fn take(self) -> Box<dyn Execution> {
        self.0
    }
}

fn settings(plan: &Plan, store: &Store) -> Settings {
    let reply_within = Duration::from_secs(5);
    let identity = store.identity();
    let genesis = &plan.machine.genesis;
    let da_block_time = Duration::from_millis(200);
    Settings {
        raft: raft::Config {
            member: plan.member.clone().unwrap_or_else(|| Member {
                name: "one".to_owned(),
                storage: identity.storage,
                ..Member::default()
            }),
            heartbeat_interval: Duration::from_millis(30),
            election_timeout_min: Duration::from_millis(90),
            election_timeout_max: Duration::from_millis(150),
            snapshot_after: plan.snapshot_after,
            keep_entries: plan.keep_entries,
            keep_bytes: 1 << 20,
            bootstrap: plan.bootstrap.clone(),
            fresh_cluster: uuid::Uuid::from_u64_pair(identity.storage.as_u64_pair().0, 2),
            question_within: Duration::from_secs(2),
            reopen_after: Duration::from_millis(100),
            longest_pause: Duration::from_secs(2),
        },
        sequencer: sequencer::Config {
            max_txs: 1_000,
            max_bytes: 1 << 20,
            max_tx_bytes: 9_900,
            replay_window: 500,
            max_waiting: 1_000,
            longest_wait: Duration::from_secs(60),
            forward: sequencer::forward::Config::default(),
        },
        engine: engine::Config { call_timeout: Duration::from_secs(2), ..engine::Config::default() },
        executor: executor::Config {
            block_time: plan.block_time,
            lazy: plan.lazy,
            lazy_interval: Duration::from_secs(10),
            max_bytes: 10_000,
            max_da_backlog: plan.max_da_backlog,
            // Short: outcomes are unknown and the grant goes on, which is where siblings come from (A6).
            reply_within: Duration::from_secs(2),
            retry_after: Duration::from_millis(100),
            record_signature_after: plan.block_time * 3,
        },
        reaper: plan.pool.then(|| reaper::Config {
            interval: Duration::from_millis(100),
            longest_pause: Duration::from_secs(2),
            reply_within,
            max_bytes: 20_000,
        }),
        da: da::Config { request_timeout: Duration::from_secs(2), ..da::Config::default() },
        da_submitter: da_submitter::Config {
            header_namespace: Namespace::of("headers"),
            data_namespace: Namespace::of("data"),
            signer: Signer::ed25519(&key(plan.machine.seed).public()),
            batching: da_submitter::batching::Batching::default(),
            max_bytes: 20_000,
            max_blobs: 16,
            interval: Duration::from_millis(100),
            da_block_time,
            submit_within: Duration::from_secs(3),
            reply_within,
            search_depth: 10_000,
        },
        syncer: syncer::Config {
            reply_within,
            retry_after: Duration::from_millis(100),
            log_every: 1_000,
            backfill: syncer::backfill::Config::default(),
            executes: !plan.witness,
        },
        supervisor: supervisor::Config {
            stalled_after: plan.block_time * 50,
            da_limit: da_block_time * 25,
            da_every: Duration::from_secs(1),
            witness: plan.witness,
            // A witness needs none of the settings in which members must agree: what it hashes is nothing.
            settings: if plan.witness { Hash::of(b"no settings") } else { Hash::default() },
            ..supervisor::Config::default()
        },
        signer: signer::Config {
            chain: ChainId { name: genesis.chain_id.clone(), genesis: genesis.hash() },
            initial_height: genesis.initial_height,
        },
        p2p: plan.peering.as_ref().map(|peering| peering.config(plan.machine.signer())),
        inbox: plan.forced.then(|| inbox::Config {
            namespace: Namespace::of("forced"),
            max_tx_bytes: 15_000,
            max_bytes: 40_000,
            max_txs: 1_000,
            da_block_time,
            reply_within,
        }),
    }
}

/// Checks what a machine holds after everything has come to rest: the chain has no gap, every
/// acknowledged transaction is in it exactly once, DA says the same as the store, at most one
/// header hash was ever signed per height and the guard is not behind.
///
/// # Panics
///
/// When a promise is broken.
pub fn check_chain(machine: &Machine) {
    check_chains(std::slice::from_ref(machine), std::slice::from_ref(&machine.audit));
}

/// As `check_chain`, for all machines of a cluster: they hold the same chain, as far as they are,
/// and nobody signed another header than anybody else; also nobody who left, whose record is
/// among the audits.
///
/// # Panics
///
/// When a promise is broken.
pub fn check_chains(machines: &[Machine], audits: &[MemoryAudit]) {
    let mut signed: BTreeMap<Height, Hash> = BTreeMap::new();
    for line in audits.iter().flat_map(MemoryAudit::lines) {
        if let Event::Signed { height, hash, .. } = line.event {
            let before = signed.insert(height, hash);
            assert!(before.is_none_or(|before| before == hash), "I1: two headers of height {height} signed");
        }
    }
    let mut chains: Vec<Held> = vec![];
    for machine in machines {
        machine.disk.set_hook(None);
        chains.push(check_one(machine));
    }
    // One of them has everything; the others have ends of it.
    let Some(longest) = chains.iter().max_by_key(|held| held.hashes.len()) else { return };
    for (machine, held) in machines.iter().zip(&chains) {
        for (height, hash) in &held.hashes {
            let whole = longest.hashes.get(height);
            assert!(whole.is_none_or(|whole| whole == hash), "I2: two blocks at height {height}");
        }
        check_guard(machine, &longest.hashes);
    }
    for (height, hash) in &signed {
        let committed = longest.hashes.get(height);
        assert_eq!(committed, Some(hash), "P2: a header was signed that is not committed");
    }
    let machine = &machines[0];
    machine.oracle.check(&longest.places);
    for (height, hash) in machine.ledger.headers() {
        assert_eq!(longest.hashes.get(&height), Some(&hash), "P7: DA holds a header the chain does not");
        assert!(signed.contains_key(&height), "P7: DA holds a header nobody signed");
    }
}

/// What a machine holds.
struct Held {
    hashes: BTreeMap<Height, Hash>,
    places: BTreeMap<Hash, Vec<Place>>,
}

/// Where a member went on from a snapshot, what is below it is not looked at.
fn check_one(machine: &Machine) -> Held {
    // Whatever version of baton it was.
    let reader = machine.open_knowing(u8::MAX).reader();
    let tip = reader.tip().height;
    let first = reader.first_height_with_body();
    let mut places: BTreeMap<Hash, Vec<Place>> = BTreeMap::new();
    let mut hashes: BTreeMap<Height, Hash> = BTreeMap::new();
    let mut parent: Option<Arc<baton_messages::chain::Block>> = None;
    for height in first.0.max(1)..=tip.0 {
        let height = Height(height);
        let block = reader.block(height).expect("readable").expect("P1: heights have no gap");
        assert_eq!(block.height(), height);
        if let Some(parent) = &parent {
            assert_eq!(block.header().last_header_hash, parent.hash().to_bytes(), "I6: the parent is linked");
            assert!(block.header().time > parent.header().time, "I6: time rises");
        }
        for (index, tx) in block.txs().iter().enumerate() {
            let index = u32::try_from(index).expect("small");
            let place = Place { height, index, header_hash: block.hash() };
            places.entry(tx.hash()).or_default().push(place);
        }
        hashes.insert(height, block.hash());
        parent = Some(block);
    }
    let on_da = machine.ledger.data();
    for height in first.0.max(1)..=reader.da_progress().included.0 {
        let height = Height(height);
        assert!(machine.ledger.headers().contains_key(&height), "P7: header {height} is not on DA");
        let block = reader.block(height).expect("readable").expect("there");
        let data = on_da.get(&height).map(|signed| &signed.data);
        assert_eq!(data.is_some(), !block.txs().is_empty(), "P7: data of {height} on DA");
        assert!(data.is_none_or(|data| data == block.data()), "P7: DA holds other data of {height}");
    }
    Held { hashes, places }
}

/// The guard is at or beyond what this machine signed last, and holds a header of the chain.
fn check_guard(machine: &Machine, hashes: &BTreeMap<Height, Hash>) {
    let own = machine.audit.lines().into_iter().filter_map(|line| match line.event {
        Event::Signed { height, .. } => Some(height),
        _ => None,
    });
    let Some(last) = own.max() else { return };
    let chain = ChainId { name: machine.genesis.chain_id.clone(), genesis: machine.genesis.hash() };
    let guard = Guard::open(&machine.guard.slots(), &chain).expect("the guard is readable");
    let (height, hash) = guard.and_then(|guard| guard.guarded()).expect("P2: signed without a guard");
    assert!(height >= last, "P2: the guard is at {height}, but {last} was signed");
    assert_eq!(hashes.get(&height), Some(&hash), "P2: the guard holds a header that is not in the chain");
}
