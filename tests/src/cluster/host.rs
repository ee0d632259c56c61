//! One machine of a simulated cluster, over all the lives of its node.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::{Actor, Addr};
use baton::wiring::{Between, DaPorts, Metrics, RaftPorts, SupervisorPorts, Wiring};
use baton_actors::da::Da;
use baton_actors::raft::Bootstrap;
use baton_actors::world::World;
use baton_messages::command::COMMAND_VERSION;
use baton_messages::types::{Member, MemberId, Tip};
use baton_storage::OpenError;
use baton_storage::memory::Disk;
use baton_storage::raft_types::Vote;
use futures::future::LocalBoxFuture;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::faults::FIRST_GUEST;
use super::gate::Gate;
use super::proposals::Proposals;
use super::relay::{Late, Relay};
use super::{AdjustNode, ClusterPlan, Way, member, name, tcp};
use crate::engine::{FakeEngine, Script};
use crate::net::Net;
use crate::node::{Machine, Node, Plan, START};
use crate::p2p_net::Peering;
use crate::power::{Power, Touched};
use crate::rate::Rate;
use crate::run::SimClock;

/// Something for a running node to do.
pub(super) type Job = Box<dyn FnOnce(Rc<Node>) -> LocalBoxFuture<'static, ()>>;

pub(crate) struct Host {
    index: usize,
    machine: RefCell<Machine>,
    bootstrap: Bootstrap,
    net: Net,
    plan: ClusterPlan,
    power: RefCell<Power>,
    node: RefCell<Option<Rc<Node>>>,
    jobs: RefCell<Option<mpsc::UnboundedSender<Job>>>,
    registered: Cell<bool>,
    up: Cell<bool>,
    /// What it had when it was last looked at.
    last: Cell<Tip>,
    wiped: Cell<u64>,
    /// The version of log entries that its version of baton knows; `None`: this one's.
    knows: Cell<Option<u8>>,
    /// When the cluster was made, on the clock that all hosts share, if they do.
    started: Option<Instant>,
    touched: Touched,
    /// Lets syncs of its disk wait.
    gate: Gate,
    /// What its engine does, if it is by script.
    script: Script,
    /// Whether its way to DA is cut.
    da_cut: Arc<AtomicBool>,
    /// How far its wall clock is off, nanoseconds.
    skew: Cell<i64>,
    /// Its wall clock does not run at its own rate any more.
    disciplined: Cell<bool>,
    /// What its node counts in this life.
    metrics: RefCell<Option<Rc<Metrics>>>,
    /// Its DA adapter in this life.
    da: RefCell<Option<DaPorts>>,
    /// Between Raft and its supervisor.
    relay: Rc<RefCell<Option<Addr<Relay>>>>,
    lives: Cell<u64>,
    /// Lines of its audit that lives before this one have written.
    audited_before: Cell<usize>,
    /// The boot counter of its life, or of the last one.
    boot: Cell<u64>,
    /// Its store may be damaged: it may refuse to start, or ask for a person.
    damage_expected: Cell<bool>,
    refused_to_start: Cell<bool>,
    /// Its disk as it was before this life.
    image: RefCell<Option<Disk>>,
    /// Whose name it bears, when that is not its own.
    called: Option<usize>,
}

impl Host {
    pub(super) fn new(
        index: usize,
        machine: Machine,
        bootstrap: Bootstrap,
        net: Net,
        plan: ClusterPlan,
        started: Option<Instant>,
        touched: Touched,
    ) -> Self {
        let gate = Gate::new(machine.storage.as_u64_pair().0, plan.fsync);
        let knows = Cell::new(plan.command_versions.get(&index).copied());
        Self {
            index,
            machine: RefCell::new(machine),
            bootstrap,
            net,
            plan,
            power: RefCell::default(),
            node: RefCell::default(),
            jobs: RefCell::default(),
            registered: Cell::new(false),
            up: Cell::new(false),
            last: Cell::default(),
            wiped: Cell::new(0),
            knows,
            started,
            touched,
            gate,
            script: Script::default(),
            da_cut: Arc::default(),
            skew: Cell::new(0),
            disciplined: Cell::new(false),
            metrics: RefCell::default(),
            da: RefCell::default(),
            relay: Rc::default(),
            lives: Cell::new(0),
            audited_before: Cell::new(0),
            boot: Cell::new(0),
            damage_expected: Cell::new(false),
            refused_to_start: Cell::new(false),
            image: RefCell::default(),
            called: None,
        }
    }

    /// A machine that is configured as another one is.
    pub(super) fn called(self, index: usize) -> Self {
        Self { called: Some(index), ..self }
    }

    /// A copy of its disk as it was before this life.
    pub(crate) fn image(&self) -> Option<Disk> {
        self.image.borrow().as_ref().map(Disk::copy)
    }

    /// Virtual time since the cluster was made; in its runtime only.
    fn elapsed(&self) -> Duration {
        match self.started {
            Some(started) => started.elapsed(),
            None => turmoil::sim_elapsed().unwrap_or_default(),
        }
    }

    pub(crate) const fn index(&self) -> usize {
        self.index
    }

    pub(crate) fn machine(&self) -> Machine {
        self.machine.borrow().clone()
    }

    pub(crate) fn power(&self) -> Power {
        self.power.borrow().clone()
    }

    pub(super) fn registered(&self) -> bool {
        self.registered.replace(true)
    }

    pub(crate) fn is_up(&self) -> bool {
        self.up.get()
    }

    pub(crate) fn node(&self) -> Option<Rc<Node>> {
        self.node.borrow().clone()
    }

    pub(crate) fn id(&self) -> MemberId {
        MemberId::of(self.machine.borrow().storage)
    }

    pub(crate) fn vote(&self) -> Option<Vote> {
        self.node.borrow().as_ref()?.vote()
    }

    pub(super) fn tip(&self) -> Tip {
        if let Some(node) = &*self.node.borrow() {
            self.last.set(node.tip());
        }
        self.last.get()
    }

    /// Before a life.
    pub(super) fn prepare(&self, power: Power) {
        *self.power.borrow_mut() = power.watched(&self.touched);
        if self.plan.observed {
            *self.image.borrow_mut() = Some(self.machine.borrow().disk.copy());
        }
        let (jobs, _) = mpsc::unbounded_channel();
        *self.jobs.borrow_mut() = Some(jobs);
        self.up.set(true);
    }

    /// After a life: nothing of it has effects any more.
    pub(super) fn ended(&self) {
        let _ = self.tip();
        self.power.borrow().cut();
        self.up.set(false);
        *self.node.borrow_mut() = None;
        *self.jobs.borrow_mut() = None;
        *self.metrics.borrow_mut() = None;
        *self.da.borrow_mut() = None;
    }

    pub(super) fn storage(&self) -> uuid::Uuid {
        self.machine.borrow().storage
    }

    pub(super) fn with_machine<T>(&self, look: impl FnOnce(&Machine) -> T) -> T {
        look(&self.machine.borrow())
    }

    pub(super) const fn gate(&self) -> &Gate {
        &self.gate
    }

    pub(super) const fn script(&self) -> &Script {
        &self.script
    }

    /// It reaches DA, or not.
    pub(super) fn cut_da(&self, cut: bool) {
        self.da_cut.store(cut, Ordering::Relaxed);
    }

    pub(crate) fn metrics(&self) -> Option<Rc<Metrics>> {
        self.metrics.borrow().clone()
    }

    pub(crate) fn da(&self) -> Option<DaPorts> {
        self.da.borrow().clone()
    }

    pub(super) fn boot(&self) -> u64 {
        self.boot.get()
    }

    pub(super) fn expect_damage(&self, expected: bool) {
        self.damage_expected.set(expected);
        self.refused_to_start.set(false);
        if let Some(node) = self.node().filter(|_| expected) {
            announce_damage(&node);
        }
    }

    pub(super) fn refused_to_start(&self) -> bool {
        self.refused_to_start.get()
    }

    /// How often its node was started.
    pub(crate) fn lives(&self) -> u64 {
        self.lives.get()
    }

    /// Lines of its audit that lives before this one have written.
    pub(super) fn audited_before(&self) -> usize {
        self.audited_before.get()
    }

    pub(crate) fn is_witness(&self) -> bool {
        self.plan.witness == Some(self.index)
    }

    /// Its place among peers: members tell the others what they tell anybody. Guests and witnesses
    /// have none.
    fn peering(&self) -> Option<Peering> {
        let net = self.plan.p2p.clone().filter(|_| !self.is_witness())?;
        let Bootstrap::Peers(members) = &self.bootstrap else {
            // Others dial who forms a cluster alone; who joins knows whom to ask.
            let dials = (0..self.index).map(name).collect();
            return (self.index < FIRST_GUEST).then(|| Peering { net, id: name(self.index), dials });
        };
        let others = members.iter().map(|member| member.name.clone());
        let dials = others.filter(|other| *other != name(self.index)).collect();
        Some(Peering { net, id: name(self.index), dials })
    }

    /// Its wall clock jumps, and is off by that much from now on.
    pub(super) fn jump(&self, nanoseconds: i64) {
        self.skew.set(self.skew.get().saturating_add(nanoseconds));
        if let Some(node) = self.node() {
            node.clock().jump(nanoseconds);
        }
    }

    /// How fast its clocks run.
    fn rate(&self) -> Rate {
        Rate { ppm: self.plan.rates_ppm.get(self.index).copied().unwrap_or_default() }
    }

    /// How fast its wall clock runs, which somebody may have put right.
    fn wall_rate(&self) -> Rate {
        if self.disciplined.get() { Rate::default() } else { self.rate() }
    }

    /// Its wall clock is right, and stays so: it is set by a better one from now on. `elapsed`: since the
    /// cluster was made.
    pub(super) fn set_clock(&self, elapsed: Duration) {
        self.jump(self.skew.get().saturating_neg());
        let rate = self.rate();
        if self.disciplined.replace(true) || rate == Rate::default() {
            return;
        }
        let nanoseconds = |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        if let Some(node) = self.node() {
            if let Some(started) = self.started {
                node.clock().run_true(started + elapsed);
            }
            node.clock().jump(nanoseconds(elapsed) - nanoseconds(rate.counted(elapsed)));
        }
    }

    /// Another disk, with whatever is on it.
    pub(super) fn replace_disk(&self, disk: Disk) {
        self.machine.borrow_mut().disk = disk;
    }

    /// Looks at a wiring before it starts: what it counts, and its DA adapter.
    fn look_at(&self, wiring: &mut Wiring) {
        *self.metrics.borrow_mut() = Some(Rc::new(wiring.metrics.clone()));
        if self.plan.observed
            && let Some(layer) = wiring.parts.da.clone()
        {
            let da = Da::new(layer, wiring.settings.da.clone(), wiring.metrics.da.clone()).start();
            let ports = DaPorts::of(&da);
            *self.da.borrow_mut() = Some(ports.clone());
            wiring.da = Some(ports);
        }
        if self.plan.observed {
            let here = self.relay.clone();
            wiring.supervisor = Some(Between::new(move |ports: SupervisorPorts| {
                let relay = Relay::new(ports.leadership.clone()).start();
                *here.borrow_mut() = Some(relay.clone());
                SupervisorPorts { leadership: relay.recipient(), ..ports }
            }));
            let index = self.index;
            wiring.proposals = Some(Between::new(move |ports: RaftPorts| {
                let propose = Proposals::new(index, ports.propose).start().recipient();
                RaftPorts { propose, ..ports }
            }));
        }
    }

    /// What its supervisor hears of leadership is late, and of several changes it hears the last.
    pub(super) fn late_hints(&self, late: bool) {
        if let Some(relay) = &*self.relay.borrow() {
            relay.do_send(Late(late));
        }
    }

    /// An empty disk with a new identity; the guard's file and the key stay.
    pub(super) fn wipe(&self) {
        self.wiped.set(self.wiped.get() + 1);
        let wiped = self.machine.borrow().wiped(self.wiped.get());
        *self.machine.borrow_mut() = wiped;
    }

    pub(super) fn know(&self, version: u8) {
        self.knows.set(Some(version));
    }

    pub(super) fn send(&self, job: Job) {
        if let Some(jobs) = &*self.jobs.borrow() {
            // A node that is going down answers nothing any more.
            let _ = jobs.send(job);
        }
    }

    pub(super) fn describe(&self) -> String {
        let state = if self.is_up() { "up" } else { "down" };
        let node = self.node();
        let trouble =
            node.and_then(|node| node.trouble()).map_or_else(String::new, |text| format!(" ({text})"));
        let vote = self.vote().map_or_else(|| "no vote".to_owned(), |vote| vote.to_string());
        format!("n{} {} {state} at {}, {vote}{trouble}", self.index, self.id(), self.tip())
    }
}

fn announce_damage(node: &Node) {
    node.announce_alarm("damaged");
    node.announce_alarm("checksum");
}

/// A life of a node; it ends with a crash.
pub(super) async fn live(host: Rc<Host>) {
    let (jobs, mut waiting) = mpsc::unbounded_channel::<Job>();
    *host.jobs.borrow_mut() = Some(jobs);
    let machine = host.machine();
    host.lives.set(host.lives.get() + 1);
    host.audited_before.set(machine.audit.lines().len());
    machine.disk.set_sync_wait(host.gate.wait());
    let store = match machine.try_open(host.knows.get().unwrap_or(COMMAND_VERSION)) {
        Ok(store) => store,
        Err(OpenError::Damaged(_)) if host.damage_expected.get() => {
            host.refused_to_start.set(true);
            host.touched.touch();
            return;
        }
        Err(error) => panic!("the store does not open again: {error}"),
    };
    let mut member = Member { witness: host.is_witness(), ..member(host.index, &machine) };
    if let Some(called) = host.called {
        member.name = name(called);
    }
    let identity = store.identity();
    host.boot.set(identity.boot);
    let clock = SimClock::showing(START.plus(host.elapsed()));
    let transport = match host.plan.way {
        Way::Calls => {
            let chain = (identity.chain_id.as_str(), identity.genesis_hash);
            host.net.attach(&member, chain, identity.boot, machine.lives.clone())
        }
        Way::Tcp => {
            let seed = identity.storage.as_u64_pair().0 ^ identity.boot;
            tcp::transport(&store, &member, World::new(Arc::new(clock), seed)).await
        }
    };
    let counted = host.wall_rate().counted(host.elapsed());
    let elapsed = i64::try_from(counted.as_nanos()).unwrap_or(i64::MAX);
    let clock_offset = elapsed.saturating_add(host.skew.get());
    let adjust: Option<AdjustNode> = host.plan.adjust.clone();
    let (index, looking) = (host.index, host.clone());
    let adjust = move |wiring: &mut Wiring| {
        looking.look_at(wiring);
        if let Some(adjust) = &adjust {
            adjust(index, wiring);
        }
    };
    let execution = host.plan.observed.then(|| FakeEngine::by(&machine, &host.script));
    let plan = Plan {
        block_time: host.plan.block_time,
        clock_offset,
        rate: host.rate(),
        member: Some(member),
        bootstrap: host.bootstrap.clone(),
        transport: Some(transport),
        snapshot_after: host.plan.snapshot_after,
        keep_entries: host.plan.keep_entries,
        adjust: Some(Box::new(adjust)),
        execution,
        da_cut: host.da_cut.clone(),
        witness: host.is_witness(),
        forced: host.plan.forced_epoch.is_some(),
        peering: host.peering(),
        ..Plan::on(machine, host.power())
    };
    let node = Rc::new(Node::start_over(&plan, store));
    if host.disciplined.get() {
        node.clock().run_true(Instant::now());
    }
    if host.damage_expected.get() {
        announce_damage(&node);
    }
    *host.node.borrow_mut() = Some(node.clone());
    while let Some(job) = waiting.recv().await {
        tokio::task::spawn_local(job(node.clone()));
    }
}
