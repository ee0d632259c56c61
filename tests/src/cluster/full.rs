//! A full node beside the cluster: it follows by what the members tell, from DA or both, on a machine of
//! its own.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use baton_messages::types::{Height, Tip};
use baton_storage::LeftOut;
use baton_storage::memory::Keep;
use futures::future::LocalBoxFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Cluster, Ground, name};
use crate::following::{FollowPlan, FollowingNode};
use crate::node::Machine;
use crate::p2p_net::{P2pNet, Peering};
use crate::power::{Power, Touched};

/// The number of the full node.
pub(crate) const FULL: usize = 200;
/// Its name among peers.
pub(crate) const FULL_NAME: &str = "full";

/// Where a full node finds blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// Members and others tell it, and answer it.
    pub peers: bool,
    /// It reads DA.
    pub da: bool,
}

/// Something for the running full node to do.
type Job = Box<dyn FnOnce(Rc<FollowingNode>) -> LocalBoxFuture<'static, ()>>;

/// The full node, over all its lives.
pub(crate) struct Full {
    machine: Machine,
    sources: Sources,
    net: Option<P2pNet>,
    /// Whether it judges what the proposer does with forced transactions.
    forced: bool,
    /// Whether it follows headers only.
    light: bool,
    /// Whom it dials.
    dials: Vec<String>,
    started: Instant,
    touched: Touched,
    power: RefCell<Power>,
    node: RefCell<Option<Rc<FollowingNode>>>,
    jobs: RefCell<Option<mpsc::UnboundedSender<Job>>>,
    up: Cell<bool>,
    lives: Cell<u64>,
    da_cut: Arc<AtomicBool>,
    /// What it had when it was last looked at.
    last: Cell<Tip>,
}

impl Full {
    pub(crate) const fn sources(&self) -> Sources {
        self.sources
    }

    pub(crate) const fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Whether it judges what the proposer does with forced transactions.
    pub(crate) const fn judges_forced(&self) -> bool {
        self.forced
    }

    pub(crate) const fn is_light(&self) -> bool {
        self.light
    }

    pub(crate) fn is_up(&self) -> bool {
        self.up.get()
    }

    pub(crate) fn node(&self) -> Option<Rc<FollowingNode>> {
        self.node.borrow().clone()
    }

    pub(crate) fn power(&self) -> Power {
        self.power.borrow().clone()
    }

    /// How often it was started.
    pub(super) fn lives(&self) -> u64 {
        self.lives.get()
    }

    /// What it has, or had last.
    pub(crate) fn tip(&self) -> Tip {
        if let Some(node) = self.node() {
            self.last.set(node.tip());
        }
        self.last.get()
    }

    /// What DA is known there to hold without a gap.
    pub(crate) fn included(&self) -> Height {
        self.node().map_or(Height(0), |node| node.reader().da_progress().included)
    }

    /// What it found left out that was forced.
    pub(crate) fn left_out(&self) -> Option<LeftOut> {
        self.node().and_then(|node| node.reader().left_out())
    }

    /// Gives it something to do; nothing while it does not run.
    pub(crate) fn send<Fut>(&self, job: impl FnOnce(Rc<FollowingNode>) -> Fut + 'static)
    where
        Fut: Future<Output = ()> + 'static,
    {
        if let Some(jobs) = &*self.jobs.borrow() {
            // One that is going down does nothing any more.
            let _ = jobs.send(Box::new(move |node| Box::pin(job(node))));
        }
    }

    fn plan(&self) -> FollowPlan {
        let elapsed = i64::try_from(self.started.elapsed().as_nanos()).unwrap_or(i64::MAX);
        let peering =
            self.net.clone().map(|net| Peering { net, id: FULL_NAME.to_owned(), dials: self.dials.clone() });
        FollowPlan {
            reads_da: self.sources.da,
            da_cut: self.da_cut.clone(),
            peering,
            clock_offset: elapsed,
            forced: self.forced,
            light: self.light,
            ..FollowPlan::on(self.machine.clone(), self.power())
        }
    }

    fn ended(&self) {
        let _ = self.tip();
        self.power.borrow().cut();
        self.up.set(false);
        *self.node.borrow_mut() = None;
        *self.jobs.borrow_mut() = None;
    }

    pub(super) fn describe(&self) -> String {
        let state = if self.is_up() { "up" } else { "down" };
        format!("full {state} at {}, included {}", self.tip(), self.included())
    }
}

/// A life of the full node; it ends with a crash.
async fn live(full: Rc<Full>) {
    let (jobs, mut waiting) = mpsc::unbounded_channel::<Job>();
    *full.jobs.borrow_mut() = Some(jobs);
    full.lives.set(full.lives.get() + 1);
    // Without power it does not start; whoever looks for lost power finds that.
    let Some(node) = FollowingNode::start(&full.plan()).await else { return };
    let node = Rc::new(node);
    *full.node.borrow_mut() = Some(node.clone());
    full.touched.touch();
    while let Some(job) = waiting.recv().await {
        tokio::task::spawn_local(job(node.clone()));
    }
}

impl Cluster {
    /// A machine for a full node, switched off.
    ///
    /// # Panics
    ///
    /// Over simulated TCP, or before there is a member.
    pub(crate) fn add_full(&mut self, sources: Sources, light: bool) {
        let Ground::Together(together) = &self.ground else { panic!("full nodes run on the common clock") };
        let full = Full {
            machine: self.hosts[0].machine().another(FULL),
            sources,
            net: self.plan.p2p.clone().filter(|_| sources.peers),
            forced: sources.da && !light && self.plan.forced_epoch.is_some(),
            light,
            dials: (0..self.hosts.len()).map(name).collect(),
            started: together.started(),
            touched: together.touched(),
            power: RefCell::default(),
            node: RefCell::default(),
            jobs: RefCell::default(),
            up: Cell::new(false),
            lives: Cell::new(0),
            da_cut: Arc::default(),
            last: Cell::default(),
        };
        self.full = Some(Rc::new(full));
    }

    /// The full node, if there is one.
    pub(crate) fn full(&self) -> Option<Rc<Full>> {
        self.full.clone()
    }

    /// Starts the full node, if there is one and it does not run.
    pub(crate) fn start_full(&mut self) {
        let Some(full) = self.full().filter(|full| !full.is_up()) else { return };
        *full.power.borrow_mut() = Power::default().watched(&full.touched);
        full.up.set(true);
        if let Ground::Together(together) = &mut self.ground {
            together.start(FULL, live(full));
        }
    }

    /// Ends the full node as a power cut does: what was not synced is lost but for `keep`.
    pub(crate) fn crash_full(&mut self, keep: Keep) {
        let Some(full) = self.full().filter(|full| full.is_up()) else { return };
        full.ended();
        if let Ground::Together(together) = &mut self.ground {
            together.end(FULL);
        }
        if let Some(net) = &full.net {
            net.leave(FULL_NAME);
        }
        full.machine.lose_power(keep);
    }

    /// The full node does not run, or runs again (SIGSTOP, SIGCONT).
    pub(crate) fn freeze_full(&mut self, frozen: bool) {
        if let Ground::Together(together) = &mut self.ground {
            together.sleep(FULL, frozen);
        }
    }

    /// Cuts the full node's ways, or lets it go again.
    pub(crate) fn cut_full(&self, ways: Sources, cut: bool) {
        let Some(full) = &self.full else { return };
        if ways.da {
            full.da_cut.store(cut, Ordering::Relaxed);
        }
        if let Some(net) = full.net.as_ref().filter(|_| ways.peers) {
            net.set_away(FULL_NAME, cut);
        }
    }

    /// Whether the full node has what the cluster has, as far as its sources tell: a block that
    /// nobody has posted yet is not on DA. One that takes no further block, because something forced
    /// was left out, has what it wants.
    pub(crate) fn full_is_level(&self, goal: Height) -> bool {
        let Some(full) = &self.full else { return true };
        if full.left_out().is_some() {
            return true;
        }
        let executed = full.node().map_or(0, |node| node.metrics.engine.height.get());
        let has_executed = u64::try_from(executed).is_ok_and(|executed| executed >= goal.0);
        let final_here = match full.light {
            // It does not see that data are there; but it has read DA up to the header.
            true => {
                let place = full.machine.ledger.header_places().get(&goal).copied();
                let follow = full.node().and_then(|node| node.reader().follow());
                place.is_none_or(|place| follow.is_some_and(|follow| follow.cursor >= place))
            }
            false => full.included() >= goal,
        };
        full.tip().height >= goal && (full.light || has_executed) && (!full.sources.da || final_here)
    }
}
