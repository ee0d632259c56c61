//! What is done to the full node beside a cluster, and what must come of it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use baton_messages::engine::GetPosition;
use baton_messages::p2p::PeerId;
use baton_messages::types::{Height, Timestamp};
use serde::{Deserialize, Serialize};

use super::deeds::{End, fail, keep};
use super::drive::Drive;
use super::forced::Rule;
use super::lies::{Lie, Told};
use super::{DiskFault, EventKind, Left, Situation};
use crate::cluster::{FULL, FULL_NAME, Sources};
use crate::node::START;
use crate::p2p_net::P2pNet;

/// A full node beside the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FullNode {
    /// Where it finds blocks.
    pub sources: Sources,
    /// When it is started first, virtual milliseconds.
    pub from_ms: u64,
    /// A light node in its place: it follows headers only.
    #[serde(default)]
    pub light: bool,
}

/// What can be done to the full node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // The fields say what they are.
pub enum FullDeed {
    /// It ends and starts again after a while.
    Crash { left: Left, down_ms: u64 },
    /// It ends instead of an effect to come (the so-and-so-many-th of its disk), and starts again.
    CrashAt { after: u64, left: Left, down_ms: u64 },
    /// Its ways are cut.
    Cut { ways: Sources, for_ms: u64 },
    /// It does not run for a while (SIGSTOP).
    Freeze { for_ms: u64 },
    /// Its disk, which is also that of its engine, misbehaves for a while; its store is opened again with
    /// so much of what was not synced.
    Disk { fault: DiskFault, left: Left, for_ms: u64 },
    /// A peer comes to it that lies.
    Lie { lie: Lie, for_ms: u64 },
    /// Somebody writes into the chain's namespaces on DA.
    Scribble,
}

/// Between two lies of a peer.
const LIES_EVERY_MS: u64 = 150;
/// The full node must have everything so soon after everybody else has, and after DA does.
const LEVEL_MS: u64 = 30_000;

/// What is done to the full node, as far as it goes on.
pub(super) struct Beside {
    pub(super) told: Told,
    net: Option<P2pNet>,
    liars: usize,
    /// Its power goes off at an effect, and this follows.
    doomed: Option<(Left, u64)>,
    /// It is cut off from peers.
    away: bool,
}

impl Beside {
    pub(super) fn new(seed: u64, net: Option<P2pNet>) -> Self {
        Self { told: Told::new(seed), net, liars: 0, doomed: None, away: false }
    }
}

impl Drive {
    /// `None`: it does not apply.
    pub(super) fn full_deed(&mut self, deed: &FullDeed) -> Option<()> {
        let full = self.cluster.full()?;
        if !full.is_up() && !matches!(deed, FullDeed::Lie { .. } | FullDeed::Scribble) {
            return None;
        }
        match deed {
            FullDeed::Crash { left, down_ms } => self.crash_full(*left, *down_ms, "crash"),
            FullDeed::CrashAt { after, left, down_ms } => {
                full.power().cut_at("disk.", *after);
                self.beside.doomed = Some((*left, *down_ms));
            }
            FullDeed::Cut { ways, for_ms } => {
                self.cut_full(*ways, true);
                self.later(*for_ms, End::FullJoins(*ways));
            }
            FullDeed::Freeze { for_ms } => {
                self.cluster.freeze_full(true);
                self.later(*for_ms, End::FullThaws);
            }
            FullDeed::Disk { fault, left, for_ms } => {
                full.machine().disk.keep_at_reopen(keep(*left));
                fail(&full.power(), *fault);
                self.later(*for_ms, End::FullDisk);
            }
            FullDeed::Lie { lie, for_ms } => {
                let net = self.beside.net.clone()?;
                self.beside.liars += 1;
                let (id, told, lie) = (format!("liar{}", self.beside.liars), self.beside.told.clone(), *lie);
                net.script(&id, move |service, request| told.answer(lie, service, request));
                let until_ms = self.now_ms() + for_ms;
                self.later(0, End::Lie { id, lie, until_ms });
            }
            FullDeed::Scribble => {
                self.learn();
                let blobs = self.beside.told.scribbled();
                self.cluster.ledger().append(blobs);
            }
        }
        Some(())
    }

    /// Liars hear what the chain is.
    fn learn(&self) {
        let Some(leader) = self.cluster.leader().filter(|leader| self.cluster.is_up(*leader)) else { return };
        let signer = self.cluster.machine(leader).signer();
        self.beside.told.learn(&self.cluster.reader(leader), &signer);
    }

    /// A lying peer goes on, or goes.
    pub(super) fn lie_on(&mut self, id: String, lie: Lie, until_ms: u64) {
        let Some(net) = self.beside.net.clone() else { return };
        if self.now_ms() >= until_ms {
            return net.leave(&id);
        }
        self.learn();
        let gossip = self.beside.told.gossip(lie);
        if let Some(full) = self.cluster.full().filter(|full| full.node().is_some()) {
            let banned = net.bans().contains(&(PeerId::from(FULL_NAME), PeerId::from(id.as_str())));
            if !banned && !self.beside.away && !net.are_connected(&id, FULL_NAME) {
                net.connect(&id, FULL_NAME);
            }
            let from = id.clone();
            full.send(move |_| async move {
                for (service, bytes) in gossip {
                    net.gossip(&from, FULL_NAME, service, bytes);
                }
            });
        }
        self.later(LIES_EVERY_MS, End::Lie { id, lie, until_ms });
    }

    pub(super) fn cut_full(&mut self, ways: Sources, cut: bool) {
        self.cluster.cut_full(ways, cut);
        if ways.peers {
            self.beside.away = cut;
        }
    }

    fn crash_full(&mut self, left: Left, down_ms: u64, reason: &str) {
        if self.cluster.full().is_none_or(|full| !full.is_up()) {
            return;
        }
        self.beside.doomed = None;
        self.cluster.crash_full(keep(left));
        self.note(Some(FULL), EventKind::Ended { reason: reason.to_owned() });
        self.later(down_ms, End::FullStarts);
    }

    /// Its disk works again.
    pub(super) fn full_disk_is_well(&mut self) {
        if let Some(full) = self.cluster.full() {
            full.power().heal();
        }
    }

    /// Whether its power has gone off at an effect.
    pub(super) fn look_after_full(&mut self) {
        let off = self.cluster.full().is_some_and(|full| full.is_up() && full.power().is_off());
        if off && let Some((left, down_ms)) = self.beside.doomed {
            self.crash_full(left, down_ms, "power lost at an effect");
        }
    }

    /// Nothing is done to it any more, and what was done is over.
    pub(super) fn full_faults_end(&mut self) {
        let Some(full) = self.cluster.full() else { return };
        full.power().disarm();
        self.look_after_full();
        self.beside.doomed = None;
        self.cluster.freeze_full(false);
        self.full_disk_is_well();
        self.cut_full(Sources { peers: true, da: true }, false);
        self.cluster.start_full();
    }

    /// L1: the full node has what its sources have.
    pub(super) fn full_is_level(&mut self, goal: Height) {
        if self.cluster.full().is_none() {
            return;
        }
        self.wait("L1: the full node does not have everything", LEVEL_MS, |drive| {
            drive.cluster.full_is_level(drive.past(goal))
        });
    }

    /// The highest height up to this one whose time has come. A leader whose clock was ahead has made
    /// blocks of the future, which no node that follows takes before.
    fn past(&self, goal: Height) -> Height {
        let now = START.plus(self.cluster.elapsed());
        let readers: Vec<_> = self.cluster.up().map(|index| self.cluster.reader(index)).collect();
        let time = |height: u64| {
            let headers = readers.iter().filter_map(|reader| reader.header(Height(height)).ok().flatten());
            headers.map(|header| header.time).next().unwrap_or(Timestamp(0))
        };
        let (mut past, mut future) = (0, goal.0 + 1);
        while past + 1 < future {
            let middle = past.midpoint(future);
            match time(middle) <= now {
                true => past = middle,
                false => future = middle,
            }
        }
        Height(past)
    }

    /// E7: it has stopped where something forced was left out, and nowhere else. A proposer that was away
    /// for longer than the grace of an epoch leaves out what was forced meanwhile, by ev-node's rule, when it
    /// posts what it had made before (docs/adr/0018-forced-inclusion-after-an-outage.md).
    fn full_judged_rightly(&mut self) {
        let Some(full) = self.cluster.full().filter(|full| full.judges_forced()) else { return };
        let Some(leader) = self.cluster.leader().filter(|leader| self.cluster.is_up(*leader)) else { return };
        let (reader, da_start) = (self.cluster.reader(leader), full.machine().genesis.da_start_height);
        let rule = Rule::of(&reader, &self.cluster.ledger(), da_start);
        if let Some(found) = full.left_out() {
            assert!(full.included() < found.height, "P7: a block that leaves something out is final");
            rule.check_found(&found);
            self.reached(Situation::FullStopped);
        }
        rule.check_final(full.included());
    }

    /// L1, P5: in the end it has everything that its sources have, and the state that the next header
    /// says.
    pub(super) fn full_comes_to_rest(&mut self) {
        let Some(full) = self.cluster.full() else { return };
        let goal = match full.sources().peers {
            true => self.cluster.reached_heights().1,
            false => self.cluster.ledger().tip(),
        };
        self.full_is_level(goal);
        if full.is_light() {
            return;
        }
        self.full_judged_rightly();
        let found = Rc::new(RefCell::new(None));
        let slot = found.clone();
        full.send(move |node| async move {
            let asked = node.wired.engine.position.send(GetPosition).timeout(Duration::from_secs(5)).await;
            *slot.borrow_mut() = Some(asked);
        });
        self.wait("L1: the full node's engine does not answer", LEVEL_MS, |_| found.borrow().is_some());
        let position = match found.borrow_mut().take() {
            Some(Ok(Ok(position))) => position,
            other => panic!("L1: the full node's engine says {other:?}"),
        };
        self.wait("L1: no block after the full node's", LEVEL_MS, |drive| {
            drive.cluster.reached_heights().0 > position.height
        });
        let above = self.cluster.up().find_map(|index| {
            let header = self.cluster.reader(index).header(position.height.next());
            header.ok().flatten()
        });
        let above = above.expect("somebody has what was committed last");
        let at = position.height;
        assert_eq!(position.root.0, above.app_hash, "P5: the full node has another state after {at}");
    }
}
