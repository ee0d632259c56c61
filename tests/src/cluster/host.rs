//! One machine of a simulated cluster, over all the lives of its node.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use baton_actors::raft::Bootstrap;
use baton_actors::world::World;
use baton_messages::types::{MemberId, Tip};
use baton_storage::raft_types::Vote;
use futures::future::LocalBoxFuture;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{AdjustNode, ClusterPlan, Way, member, tcp};
use crate::net::Net;
use crate::node::{Machine, Node, Plan, START};
use crate::power::Power;
use crate::run::SimClock;

/// Something for a running node to do.
pub(super) type Job = Box<dyn FnOnce(Rc<Node>) -> LocalBoxFuture<'static, ()>>;

pub(super) struct Host {
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
}

impl Host {
    pub(super) fn new(
        index: usize,
        machine: Machine,
        bootstrap: Bootstrap,
        net: Net,
        plan: ClusterPlan,
        started: Option<Instant>,
    ) -> Self {
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
        }
    }

    /// Virtual time since the cluster was made; in its runtime only.
    fn elapsed(&self) -> Duration {
        match self.started {
            Some(started) => started.elapsed(),
            None => turmoil::sim_elapsed().unwrap_or_default(),
        }
    }

    pub(super) const fn index(&self) -> usize {
        self.index
    }

    pub(super) fn machine(&self) -> Machine {
        self.machine.borrow().clone()
    }

    pub(super) fn power(&self) -> Power {
        self.power.borrow().clone()
    }

    pub(super) fn registered(&self) -> bool {
        self.registered.replace(true)
    }

    pub(super) fn is_up(&self) -> bool {
        self.up.get()
    }

    pub(super) fn node(&self) -> Option<Rc<Node>> {
        self.node.borrow().clone()
    }

    pub(super) fn id(&self) -> MemberId {
        MemberId::of(self.machine.borrow().storage)
    }

    pub(super) fn vote(&self) -> Option<Vote> {
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
        *self.power.borrow_mut() = power;
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

/// A life of a node; it ends with a crash.
pub(super) async fn live(host: Rc<Host>) {
    let (jobs, mut waiting) = mpsc::unbounded_channel::<Job>();
    *host.jobs.borrow_mut() = Some(jobs);
    let machine = host.machine();
    let store = match host.knows.get() {
        Some(version) => machine.open_knowing(version),
        None => machine.open(),
    };
    let member = member(host.index, &machine);
    let identity = store.identity();
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
    let clock_offset = i64::try_from(host.elapsed().as_nanos()).unwrap_or(i64::MAX);
    let adjust: Option<AdjustNode> = host.plan.adjust.clone();
    let index = host.index;
    let plan = Plan {
        block_time: host.plan.block_time,
        clock_offset,
        member: Some(member),
        bootstrap: host.bootstrap.clone(),
        transport: Some(transport),
        snapshot_after: host.plan.snapshot_after,
        keep_entries: host.plan.keep_entries,
        adjust: adjust.map(|adjust| -> crate::node::Adjust { Box::new(move |wiring| adjust(index, wiring)) }),
        ..Plan::on(machine, host.power())
    };
    let node = Rc::new(Node::start_over(&plan, store));
    *host.node.borrow_mut() = Some(node.clone());
    while let Some(job) = waiting.recv().await {
        tokio::task::spawn_local(job(node.clone()));
    }
}
