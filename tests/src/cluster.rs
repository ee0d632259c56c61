//! A cluster of real nodes in one thread, on virtual time, from one seed.
//!
//! Each node is a host of its own: a crash drops everything it was doing, wherever it was. Real actors, real openraft and real storage logic run inside, over a disk that loses what
//! was not synced and a network that is slow, cut or gone. The promises are checked after every
//! millisecond, over all nodes.
//!
//! ```
//! use sim::{Cluster, cluster_run};
//!
//! cluster_run(7, |seed| {
//!     let mut cluster = Cluster::start(3, seed);
//!     cluster.reach(5);
//!     let leader = cluster.leader().expect("somebody leads");
//!     cluster.kill(leader);
//!     cluster.reach(10);
//!     cluster.restart(leader);
//!     cluster.come_to_rest();
//! });
//! ```

mod checks;
mod faults;
mod full;
mod gate;
mod host;
mod proposals;
mod relay;
mod tcp;
mod together;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use baton::wiring::Metrics;
use baton_actors::raft::{Bootstrap, Peer};
use baton_actors::signer::audit::MemoryAudit;
use baton_messages::cluster::{
    ChangeError, ChangeMembers, ClusterView, GetCluster, MemberChange, TransferError, TransferLeadership,
};
use baton_messages::command::Command;
use baton_messages::mutation::inherit;
use baton_messages::raft::{ProposeError, Record};
use baton_messages::sequencer::{AwaitTx, GetQueueView, Level};
use baton_messages::supervisor::GetSupervisorView;
use baton_messages::types::{Grant, Height, LogIndex, Member, MemberId, Term, Tx};
use baton_storage::Reader;
use baton_storage::memory::Keep;
use baton_storage::runtime::{keep_to_task_sets, seed_chance};
use bytes::Bytes;

use crate::client::{Ack, Oracle};
use crate::net::{Net, Weather};
use crate::node::{Machine, Node, check_chains};
use crate::p2p_net::P2pNet;
use crate::power::{Cut, Power, Touched};

use checks::{Checks, Notes};
pub(crate) use faults::Accepting;
pub use full::Sources;
pub(crate) use full::{FULL, FULL_NAME, Full};
pub(crate) use host::Host;
use together::Together;

/// Pause between two heartbeats in simulated clusters.
pub const HEARTBEAT: Duration = Duration::from_millis(30);

/// Longer than this nothing is waited for, in virtual time.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs a check on a cluster in a thread of its own: nothing of an earlier run is left in its
/// locals, and openraft's chance comes from the seed.
///
/// # Panics
///
/// When the check does.
#[allow(clippy::disallowed_methods)] // A fresh thread: no state of an earlier run is in its locals.
pub fn cluster_run<T: Send + 'static>(seed: u64, check: impl FnOnce(u64) -> T + Send + 'static) -> T {
    let inherit = inherit();
    let thread = std::thread::spawn(move || {
        inherit();
        seed_chance(Some(seed));
        check(seed)
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Changes the wiring of one node before it starts.
pub type AdjustNode = Rc<dyn Fn(usize, &mut baton::wiring::Wiring)>;

/// How members reach each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// By calls that take time or are lost: fast, and in one direction at a time.
    #[default]
    Calls,
    /// By the real transport, over simulated TCP.
    Tcp,
}

/// How a cluster is.
#[derive(Clone)]
pub struct ClusterPlan {
    /// How members reach each other.
    pub way: Way,
    /// Time between two blocks.
    pub block_time: Duration,
    /// The network.
    pub weather: Weather,
    /// Log entries between two snapshots.
    pub snapshot_after: u64,
    /// Log entries kept behind a snapshot.
    pub keep_entries: u64,
    /// Changes the wiring of a node before it starts.
    pub adjust: Option<AdjustNode>,
    /// How long an fsync of the store takes, at the most.
    pub fsync: Duration,
    /// Which of the first machines is a witness.
    pub witness: Option<usize>,
    /// Whether engines are by script and DA adapters can be reached from outside.
    pub observed: bool,
    /// What a version of baton each node pretends to be, as far as log entries go.
    pub command_versions: BTreeMap<usize, u8>,
    /// DA blocks per epoch, where transactions can be forced.
    pub forced_epoch: Option<u64>,
    /// How fast the clocks of each of the first machines run, parts per million off true time.
    pub rates_ppm: Vec<i64>,
    /// Where members tell others of blocks, if they do. A witness does not.
    pub p2p: Option<P2pNet>,
    /// Whether members that are partitioned off are cut off from full nodes, too.
    pub partitions_cut_peers: bool,
}

impl Default for ClusterPlan {
    fn default() -> Self {
        Self {
            way: Way::Calls,
            block_time: Duration::from_millis(100),
            weather: Weather::default(),
            snapshot_after: 50,
            keep_entries: 20,
            adjust: None,
            fsync: Duration::ZERO,
            witness: None,
            observed: false,
            command_versions: BTreeMap::new(),
            forced_epoch: None,
            rates_ppm: vec![],
            p2p: None,
            partitions_cut_peers: false,
        }
    }
}

/// What the hosts run on.
enum Ground {
    /// One runtime for all.
    Together(Together),
    /// One for each, for the sake of its TCP.
    Turmoil(Box<turmoil::Sim<'static>>),
}

/// A cluster, driven from outside: every method lets virtual time pass or looks.
pub struct Cluster {
    ground: Ground,
    net: Net,
    plan: ClusterPlan,
    hosts: Vec<Rc<Host>>,
    /// Machines that are no members, and disturb.
    guests: BTreeMap<usize, Rc<Host>>,
    /// A node that follows, if there is one.
    full: Option<Rc<Full>>,
    /// Machines that do not belong to the cluster any more.
    left_out: BTreeSet<usize>,
    checks: Checks,
    seed: u64,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("heights", &self.heights()).finish_non_exhaustive()
    }
}

impl Cluster {
    /// A cluster of so many voters that form it together.
    #[must_use]
    pub fn start(count: usize, seed: u64) -> Self {
        Self::start_with(count, seed, ClusterPlan::default())
    }

    /// As `start`, with a plan.
    #[must_use]
    pub fn start_with(count: usize, seed: u64, plan: ClusterPlan) -> Self {
        let mut cluster = Self::of(count, seed, plan);
        for index in 0..count {
            cluster.restart(index);
        }
        cluster
    }

    /// As `start`; this changes the wiring of each node before each of its starts.
    #[must_use]
    pub fn swapped(
        count: usize,
        seed: u64,
        adjust: impl Fn(usize, &mut baton::wiring::Wiring) + 'static,
    ) -> Self {
        let plan = ClusterPlan { adjust: Some(Rc::new(adjust)), ..ClusterPlan::default() };
        Self::start_with(count, seed, plan)
    }

    /// Machines that form a cluster once they are started; none is.
    #[must_use]
    pub fn of(count: usize, seed: u64, plan: ClusterPlan) -> Self {
        let ground = match plan.way {
            Way::Calls => Ground::Together(Together::new(seed)),
            Way::Tcp => Ground::Turmoil(Box::new(turmoil_of(seed, plan.weather))),
        };
        keep_to_task_sets(plan.way == Way::Calls);
        let net = Net::new(seed, plan.weather);
        let mut cluster = Self {
            ground,
            net,
            plan,
            hosts: vec![],
            guests: BTreeMap::new(),
            full: None,
            left_out: BTreeSet::new(),
            checks: Checks::default(),
            seed,
        };
        let peer = |index| Peer { name: name(index), address: address(index) };
        let peers: Vec<Peer> = (0..count).map(peer).collect();
        let bootstrap = if count == 1 { Bootstrap::Sole } else { Bootstrap::Peers(peers) };
        for _ in 0..count {
            cluster.add_machine(bootstrap.clone());
        }
        cluster
    }

    /// One more machine, empty and switched off. Returns its number.
    pub fn add_machine(&mut self, bootstrap: Bootstrap) -> usize {
        let index = self.hosts.len();
        let machine = match self.hosts.first() {
            Some(first) => first.machine().another(index),
            None => {
                let mut machine = Machine::new(self.seed);
                machine.genesis.da_epoch_forced_inclusion = self.plan.forced_epoch.unwrap_or(50);
                machine
            }
        };
        let host = self.make_host(index, machine, bootstrap);
        self.hosts.push(Rc::new(host));
        index
    }

    fn make_host(&self, index: usize, machine: Machine, bootstrap: Bootstrap) -> Host {
        let started = match &self.ground {
            Ground::Together(together) => Some(together.started()),
            Ground::Turmoil(_) => None,
        };
        let touched = match &self.ground {
            Ground::Together(together) => together.touched(),
            Ground::Turmoil(_) => Touched::default(),
        };
        Host::new(index, machine, bootstrap, self.net.clone(), self.plan.clone(), started, touched)
    }

    /// One more machine that joins the cluster as a learner, switched on.
    pub fn join(&mut self) -> usize {
        let addresses = (0..self.hosts.len()).map(address).collect();
        let index = self.add_machine(Bootstrap::Join(addresses));
        self.restart(index);
        index
    }

    /// The network.
    #[must_use]
    pub const fn net(&self) -> &Net {
        &self.net
    }

    /// How many machines there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// A machine: what survives a crash.
    #[must_use]
    pub fn machine(&self, index: usize) -> Machine {
        self.hosts[index].machine()
    }

    /// Virtual time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        match &self.ground {
            Ground::Together(together) => together.elapsed(),
            Ground::Turmoil(sim) => sim.elapsed(),
        }
    }

    /// Lets a millisecond pass and checks every promise.
    ///
    /// # Panics
    ///
    /// When a promise is broken or a node asks for a person.
    pub fn step(&mut self) {
        match &mut self.ground {
            Ground::Together(together) => {
                let until = together.elapsed() + Duration::from_millis(1);
                loop {
                    let reached = together.run(until);
                    let now = u64::try_from(together.elapsed().as_millis()).unwrap_or(u64::MAX);
                    if reached {
                        self.checks.notes.now_ms = now;
                        return;
                    }
                    self.checks.step(now, &self.hosts);
                    self.checks.full(self.full.as_deref(), &self.hosts);
                }
            }
            Ground::Turmoil(sim) => {
                if let Err(error) = sim.step() {
                    panic!("a node ended: {error}");
                }
            }
        }
        let now = u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.checks.step(now, &self.hosts);
    }

    /// Lets time pass.
    pub fn pass(&mut self, time: Duration) {
        let until = self.elapsed() + time;
        while self.elapsed() < until {
            self.step();
        }
    }

    /// Lets time pass until something holds.
    ///
    /// # Panics
    ///
    /// When that takes longer than two virtual minutes.
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let since = self.elapsed();
        while !holds(self) {
            let waited = self.elapsed() - since;
            if waited >= PATIENCE {
                let views = self.supervisors();
                panic!("no progress: waited {waited:?} for {what}: {}; {views:?}", self.describe());
            }
            self.step();
        }
    }

    /// Waits until somebody has a height.
    pub fn reach(&mut self, height: u64) {
        self.until(&format!("height {height}"), |cluster| {
            cluster.heights().into_iter().max().unwrap_or_default() >= Height(height)
        });
    }

    /// Waits until every running node has a height.
    pub fn reach_everywhere(&mut self, height: u64) {
        self.until(&format!("height {height} everywhere"), |cluster| {
            cluster.up().all(|index| cluster.hosts[index].tip().height >= Height(height))
        });
    }

    /// The height of every node; of one that is down, what it had last.
    #[must_use]
    pub fn heights(&self) -> Vec<Height> {
        self.hosts.iter().map(|host| host.tip().height).collect()
    }

    /// The numbers of the nodes that run.
    pub fn up(&self) -> impl Iterator<Item = usize> + '_ {
        self.hosts.iter().filter(|host| host.is_up()).map(|host| host.index())
    }

    /// The chain of a running node.
    ///
    /// # Panics
    ///
    /// When it is down.
    #[must_use]
    pub fn reader(&self, index: usize) -> Reader {
        self.node(index).reader().clone()
    }

    /// A running node.
    ///
    /// # Panics
    ///
    /// When it is down.
    #[must_use]
    pub fn node(&self, index: usize) -> Rc<Node> {
        self.hosts[index].node().unwrap_or_else(|| panic!("node {index} is down"))
    }

    /// What a node that is up counts.
    ///
    /// # Panics
    ///
    /// When it is down.
    #[must_use]
    pub fn metrics(&self, index: usize) -> Rc<Metrics> {
        self.hosts[index].metrics().unwrap_or_else(|| panic!("node {index} is down"))
    }

    /// Who leads the newest term among those that run, as their stores say.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        let votes = self.up().filter_map(|index| Some((index, self.hosts[index].vote()?)));
        let (_, newest) = votes.max_by_key(|(_, vote)| (vote.leader_id.term, vote.committed))?;
        let leads = |index: &usize| self.hosts[*index].id() == newest.leader_id.voted_for;
        let runs = |index: &usize| self.hosts[*index].node().is_some();
        self.up().find(leads).filter(runs).filter(|_| newest.committed)
    }

    /// Waits until somebody leads; returns who.
    pub fn wait_for_leader(&mut self) -> usize {
        self.until("a leader", |cluster| cluster.leader().is_some());
        self.leader().unwrap_or_default()
    }

    /// Makes a node the leader.
    pub fn elect(&mut self, index: usize) {
        self.until("the wanted leader", |cluster| cluster.leader().is_some());
        for _ in 0..20 {
            let leader = self.wait_for_leader();
            if leader == index {
                return;
            }
            let _ = self.transfer(leader, index);
            self.pass(HEARTBEAT * 5);
        }
        panic!("node {index} does not become the leader: {}", self.describe());
    }

    /// Ends a node as `kill -9` does: what was written stays.
    pub fn kill(&mut self, index: usize) {
        self.crash(index, Keep::All);
    }

    /// Ends a node as a power cut does: what was not synced is lost but for `keep`.
    pub fn crash(&mut self, index: usize, keep: Keep) {
        let host = self.hosts[index].clone();
        host.ended();
        host.gate().forget();
        match &mut self.ground {
            Ground::Together(together) => together.end(index),
            Ground::Turmoil(sim) => sim.crash(name(index)),
        }
        self.net.gone(&address(index));
        if let Some(p2p) = &self.plan.p2p {
            p2p.leave(&name(index));
        }
        host.machine().lose_power(keep);
    }

    /// Starts a node, or starts it again.
    pub fn restart(&mut self, index: usize) {
        self.restart_with(index, Cut::Never);
    }

    /// As `restart`; the power goes off by itself as said. `lost_power` tells when it has.
    pub fn restart_with(&mut self, index: usize, cut: Cut) {
        let host = self.hosts[index].clone();
        host.prepare(Power::new(cut));
        match &mut self.ground {
            Ground::Together(together) => together.start(index, host::live(host)),
            Ground::Turmoil(sim) if host.registered() => sim.bounce(name(index)),
            Ground::Turmoil(sim) => sim.host(name(index), move || {
                let life = host::live(host.clone());
                async move {
                    life.await;
                    Ok(())
                }
            }),
        }
    }

    /// Running nodes whose power has gone off.
    #[must_use]
    pub fn lost_power(&self) -> Vec<usize> {
        self.up().filter(|index| self.hosts[*index].power().is_off()).collect()
    }

    /// The disk of a node that is down is replaced by an empty one.
    pub fn wipe(&mut self, index: usize) {
        self.hosts[index].wipe();
    }

    /// Cuts some nodes off from all others, in both directions.
    pub fn partition(&mut self, away: &[usize]) {
        self.cut_from_peers(away, true);
        for inside in away {
            for outside in (0..self.hosts.len()).filter(|other| !away.contains(other)) {
                self.net.cut(&address(*inside), &address(outside));
                if let Ground::Turmoil(sim) = &self.ground {
                    // TCP sends again what was lost: it arrives when the link is back.
                    sim.hold(name(*inside), name(outside));
                }
            }
        }
    }

    /// Nothing that one node sends arrives at the other.
    pub fn cut_one_way(&mut self, from: usize, to: usize) {
        self.net.cut_one_way(&address(from), &address(to));
    }

    /// Every link works.
    pub fn heal(&mut self) {
        self.net.heal();
        self.cut_from_peers(&(0..self.hosts.len()).collect::<Vec<_>>(), false);
        if let Ground::Turmoil(sim) = &self.ground {
            for (one, other) in (0..self.hosts.len()).flat_map(|one| (0..one).map(move |other| (one, other)))
            {
                sim.release(name(one), name(other));
            }
        }
    }

    /// Asks a running node something and lets time pass until it has answered; `None`: it went
    /// down or never did.
    pub fn ask<T, Fut>(&mut self, index: usize, question: impl FnOnce(Rc<Node>) -> Fut + 'static) -> Option<T>
    where
        T: 'static,
        Fut: Future<Output = T> + 'static,
    {
        let answer = self.begin(index, question);
        let since = self.elapsed();
        while answer.borrow().is_none() && self.hosts[index].is_up() && self.elapsed() - since < PATIENCE {
            self.step();
        }
        answer.borrow_mut().take()
    }

    /// Asks a running node something; the answer appears here when it comes.
    pub fn begin<T, Fut>(
        &mut self,
        index: usize,
        question: impl FnOnce(Rc<Node>) -> Fut + 'static,
    ) -> Rc<RefCell<Option<T>>>
    where
        T: 'static,
        Fut: Future<Output = T> + 'static,
    {
        let answer: Rc<RefCell<Option<T>>> = Rc::default();
        let slot = answer.clone();
        self.hosts[index].send(Box::new(move |node| {
            Box::pin(async move {
                let found = question(node).await;
                *slot.borrow_mut() = Some(found);
            })
        }));
        answer
    }

    /// What the supervisors of running nodes do, for messages.
    fn supervisors(&mut self) -> Vec<String> {
        let up: Vec<usize> = self.up().collect();
        let views = up.into_iter().map(|index| {
            let asked = self
                .begin(index, |node| async move { node.ports().supervisor.send(GetSupervisorView).await });
            self.pass(HEARTBEAT);
            let answer = asked.borrow_mut().take();
            format!("n{index}: {answer:?}")
        });
        views.collect()
    }

    /// The cluster as a node sees it.
    ///
    /// # Panics
    ///
    /// When its Raft does not answer.
    pub fn view(&mut self, index: usize) -> ClusterView {
        let asked = self.ask(index, |node| async move { node.ports().cluster.view.send(GetCluster).await });
        asked.expect("the node runs").expect("raft answers in every state")
    }

    /// Changes the membership at a node.
    ///
    /// # Errors
    ///
    /// What Raft says.
    pub fn change(
        &mut self,
        index: usize,
        change: MemberChange,
        force: bool,
    ) -> Result<LogIndex, ChangeError> {
        let asked = self.ask(index, move |node| async move {
            let message = ChangeMembers { change, version: None, force };
            node.ports().cluster.change.send(message).timeout(Duration::from_secs(20)).await
        });
        match asked {
            Some(Ok(changed)) => changed,
            Some(Err(error)) => Err(ChangeError::Unconfirmed(error.to_string())),
            None => Err(ChangeError::Unconfirmed("the node went down".to_owned())),
        }
    }

    /// Changes the membership at whoever leads, again and again until it is done.
    ///
    /// # Panics
    ///
    /// When it never is.
    pub fn change_at_leader(&mut self, change: &MemberChange) {
        let mut last = None;
        for _ in 0..100 {
            let leader = self.wait_for_leader();
            match self.change(leader, change.clone(), false) {
                Ok(_) => return,
                Err(error) => last = Some(error),
            }
            self.pass(HEARTBEAT * 4);
        }
        panic!("{change:?} is never done: {last:?}; {}", self.describe());
    }

    /// Hands leadership over.
    ///
    /// # Errors
    ///
    /// What Raft says.
    pub fn transfer(&mut self, from: usize, to: usize) -> Result<(Term, MemberId), TransferError> {
        let asked = self.begin_transfer(from, to);
        let since = self.elapsed();
        while asked.borrow().is_none() && self.hosts[from].is_up() && self.elapsed() - since < PATIENCE {
            self.step();
        }
        let asked = asked.borrow_mut().take();
        match asked {
            Some(Ok(transferred)) => transferred,
            Some(Err(error)) => Err(TransferError::Stopped(error.to_string())),
            None => Err(TransferError::Stopped("the node went down".to_owned())),
        }
    }

    /// As `transfer`, without waiting.
    pub fn begin_transfer(&mut self, from: usize, to: usize) -> Transferring {
        let term = Term(self.hosts[from].vote().map_or(0, |vote| vote.leader_id.term));
        let to = self.hosts[to].id();
        self.begin(from, move |node| async move {
            let message = TransferLeadership { term, to };
            node.ports().cluster.transfer.send(message).timeout(Duration::from_secs(20)).await
        })
    }

    /// Puts a record into the log at a node.
    ///
    /// # Errors
    ///
    /// What Raft says.
    pub fn record(&mut self, index: usize, command: Command) -> Result<(), ProposeError> {
        let term = Term(self.hosts[index].vote().map_or(0, |vote| vote.leader_id.term));
        let asked = self.ask(index, move |node| async move {
            let message = Record { grant: Grant { term }, command };
            node.ports().raft.record.send(message).timeout(Duration::from_secs(20)).await
        });
        match asked {
            Some(Ok(recorded)) => recorded,
            Some(Err(error)) => Err(ProposeError::Unknown(error.to_string())),
            None => Err(ProposeError::Unknown("the node went down".to_owned())),
        }
    }

    /// As `restart`, as another version of baton, as far as log entries go.
    pub fn restart_knowing(&mut self, index: usize, version: u8) {
        self.hosts[index].know(version);
        self.restart(index);
    }

    /// A client hands a transaction in at a node and waits for its commit in the background. What
    /// it is told is remembered and checked at the end.
    pub fn submit(&mut self, index: usize, text: &str) {
        drop(self.hand_in(index, Tx(Bytes::copy_from_slice(text.as_bytes())), None));
    }

    /// Faults are over: everybody runs, every link works; everybody comes to the same chain, new
    /// blocks are made, and everything that was ever promised holds.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub fn come_to_rest(&mut self) {
        self.heal();
        self.net.set_weather(Weather::default());
        for host in &self.hosts {
            host.power().disarm();
        }
        for index in self.lost_power() {
            self.crash(index, Keep::All);
        }
        for index in 0..self.hosts.len() {
            if !self.hosts[index].is_up() {
                self.restart(index);
            }
        }
        self.settle();
    }

    /// Everybody that runs comes to the same chain, it grows, and everything that was ever
    /// promised holds. Nobody runs afterwards.
    pub(crate) fn settle(&mut self) {
        let height = self.heights().into_iter().max().unwrap_or_default();
        self.reach_everywhere(height.0 + 10);
        self.empty_queues();
        self.check();
    }

    /// Waits until every transaction that any node accepted is in the chain.
    ///
    /// # Panics
    ///
    /// When one never is.
    pub fn empty_queues(&mut self) {
        let since = self.elapsed();
        loop {
            let up: Vec<usize> = self.up().collect();
            let mut waiting = 0;
            for index in up {
                let asked = self
                    .ask(index, |node| async move { node.ports().sequencer.view.send(GetQueueView).await });
                waiting += asked.and_then(Result::ok).map_or(0, |view| view.txs);
            }
            if waiting == 0 {
                return;
            }
            assert!(self.elapsed() - since < PATIENCE, "{waiting} transactions are never committed");
            self.pass(HEARTBEAT * 4);
        }
    }

    /// Compares all machines with each other, with DA and with what clients were told.
    ///
    /// # Panics
    ///
    /// When a promise is broken.
    pub fn check(&mut self) {
        for index in 0..self.hosts.len() {
            let host = self.hosts[index].clone();
            if host.is_up() {
                self.crash(index, Keep::All);
            }
        }
        self.crash_full(Keep::All);
        if let Some(full) = &self.full {
            self.checks.followed_chain(full);
        }
        let belong = self.hosts.iter().filter(|host| !self.left_out.contains(&host.index()));
        let machines: Vec<Machine> = belong.map(|host| host.machine()).collect();
        let all: Vec<MemoryAudit> = self.hosts.iter().map(|host| host.machine().audit).collect();
        check_chains(&machines, &all);
    }

    /// What every node is at, for messages.
    #[must_use]
    pub fn describe(&self) -> String {
        let hosts = self.hosts.iter().map(|host| host.describe());
        let full = self.full.iter().map(|full| full.describe());
        format!("at {:?}: {}", self.elapsed(), hosts.chain(full).collect::<Vec<_>>().join("; "))
    }
}

fn turmoil_of(seed: u64, weather: Weather) -> turmoil::Sim<'static> {
    turmoil::Builder::new()
        .rng_seed(seed)
        .epoch(std::time::UNIX_EPOCH)
        .tick_duration(Duration::from_millis(1))
        .min_message_latency(Duration::from_millis(weather.min_ms))
        .max_message_latency(Duration::from_millis(weather.max_ms))
        .tcp_capacity(4096)
        .simulation_duration(Duration::from_secs(1 << 32))
        .build()
}

/// Waits until a transaction is committed, and remembers that a client was told so.
async fn await_commit(node: &Node, tx: &Tx, oracle: &Oracle, power: &Power, index: usize) {
    let waiting = AwaitTx { hash: tx.hash(), level: Level::Committed };
    let outcome = node.ports().sequencer.await_tx.send(waiting).timeout(Duration::from_secs(30)).await;
    if let Ok(Ok(outcome)) = outcome
        && !power.is_off()
    {
        oracle.told_by(index, tx, Ack::Committed(outcome.place));
    }
}

/// The outcome of a transfer, once there is one.
pub type Transferring =
    Rc<RefCell<Option<Result<Result<(Term, MemberId), TransferError>, actix::MailboxError>>>>;

/// The name of a node.
#[must_use]
pub fn name(index: usize) -> String {
    format!("n{index}")
}

/// The cluster address of a node.
#[must_use]
pub fn address(index: usize) -> String {
    format!("n{index}:7000")
}

/// A node as it stands in the membership.
#[must_use]
pub fn member(index: usize, machine: &Machine) -> Member {
    Member { name: name(index), address: address(index), storage: machine.storage, witness: false }
}
