//! What must hold of a full node after every effect: it has what the cluster committed, signed by the
//! chain's key, and within a life it never goes back.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use baton_actors::syncer::follow::{Refused, Source};
use baton_messages::types::{Hash, Height};

use super::notes::Notes;
use crate::cluster::full::{FULL, Full};
use crate::cluster::host::Host;
use crate::history::{EventKind, Situation};

/// A full node that is so far behind when it starts has something to catch up with.
const BEHIND: u64 = 10;
/// A block that a full node has is committed, as far as anybody knows, so soon: a member whose power
/// goes off while it tells of a block is not looked at any more.
const KNOWN_MS: u64 = 5_000;

/// What was seen of the full node.
#[derive(Debug, Default)]
pub(super) struct Followed {
    lives: u64,
    tip: Height,
    included: Height,
    executed: u64,
    /// Heights whose block has not been compared with a member's, and since when.
    open: BTreeMap<Height, u64>,
    /// What it has lost in a crash, or when its store was opened again.
    lost: bool,
    /// How often its store was opened again in place.
    generation: u64,
    /// What it had when its store was opened: that is on its disk for good.
    floor: Height,
    /// Its engine was not asked since its store was opened.
    unasked: bool,
    /// Where it began in this life, if that was behind.
    behind: Option<Behind>,
    invalid: u64,
    banned: u64,
}

#[derive(Clone, Copy, Debug)]
struct Behind {
    from_da: u64,
    from_peers: u64,
    crashed: bool,
}

/// What the cluster has.
pub(super) struct Chain<'a> {
    pub(super) committed: &'a BTreeMap<Height, Hash>,
    pub(super) hosts: &'a [Rc<Host>],
}

impl Followed {
    /// Looks at the full node.
    ///
    /// # Panics
    ///
    /// When a promise is broken.
    pub(super) fn step(&mut self, full: &Full, chain: &Chain<'_>, notes: &mut Notes) {
        let Some(node) = full.node() else { return };
        let reader = node.reader();
        let tip = reader.tip().height;
        let generation = full.machine().disk.generation();
        if self.lives != full.lives() {
            self.begins(full, chain, generation);
            notes.note(Some(FULL), || EventKind::Started { boot: full.lives() });
        } else if self.generation != generation {
            // Of what was not synced, a store that is opened again after a failure has what is left.
            let (before, floor, invalid, banned) = (self.tip, self.floor, self.invalid, self.banned);
            assert!(tip >= floor, "P4: the full node had {floor} when its store was opened, and has {tip}");
            self.begins(full, chain, generation);
            (self.invalid, self.banned) = (invalid, banned);
            if tip < before {
                notes.reached(Situation::FullReopened);
                notes.note(Some(FULL), || EventKind::Trouble { text: Some(format!("back at {tip}")) });
            }
        }
        assert!(tip >= self.tip, "P1: the full node had {}, and has {tip} in the same life", self.tip);
        let mut grown = self.tip.max(reader.initial_height().previous());
        while grown < tip {
            grown = grown.next();
            self.open.insert(grown, notes.now_ms);
        }
        if tip > self.tip {
            notes.note(Some(FULL), || EventKind::Applied { height: tip.0 });
        }
        self.tip = tip;
        self.compare(full, chain, notes.now_ms);
        let executed = u64::try_from(node.metrics.engine.height.get()).unwrap_or_default();
        self.unasked &= executed > tip.0;
        let ahead = executed > tip.0 && !self.unasked;
        assert!(!ahead, "P5: the full node's engine is at {executed}, its chain at {tip}");
        if !self.unasked {
            assert!(executed >= self.executed, "P5: the full node's engine was at {}", self.executed);
            self.executed = executed;
        }
        self.finality(full);
        let forks = reader.evidence();
        assert!(forks.is_empty(), "I1: the full node found a fork where nobody signed two chains: {forks:?}");
        let alarms = node.alarms();
        assert!(alarms.is_empty(), "the full node asks for a person: {alarms:?}");
        self.situations(full, chain, notes);
    }

    /// A new life begins where its disk says, and a store that is opened again.
    fn begins(&mut self, full: &Full, chain: &Chain<'_>, generation: u64) {
        let Some(node) = full.node() else { return };
        let lives = full.lives();
        let tip = node.tip().height;
        let crashed = self.lives > 0;
        let lost = crashed && tip < self.tip;
        let ahead = chain.committed.last_key_value().map_or(0, |(height, _)| height.0);
        let behind = Behind { from_da: 0, from_peers: 0, crashed: self.lost || lost };
        *self = Self {
            lives,
            lost: self.lost || lost,
            behind: (ahead >= tip.0 + BEHIND).then_some(behind),
            generation,
            floor: tip,
            unasked: true,
            // All of it is looked at again: the disk may have kept something else.
            ..Self::default()
        };
    }

    /// P1, I6: the same header and data as everybody's, and the chain's signature over it.
    fn compare(&mut self, full: &Full, chain: &Chain<'_>, now_ms: u64) {
        let Some(node) = full.node().filter(|_| !self.open.is_empty()) else { return };
        let reader = node.reader();
        let signer = full.machine().signer();
        let mut done = BTreeSet::new();
        for (height, since) in &self.open {
            // A store whose power is off, or that is in trouble, says nothing.
            let Ok(Some(header)) = reader.header(*height) else { continue };
            let Some(committed) = chain.committed.get(height) else {
                assert!(
                    now_ms - since < KNOWN_MS,
                    "P1: the full node has {} at height {height}, where nothing is committed",
                    header.hash()
                );
                continue;
            };
            assert_eq!(*committed, header.hash(), "P1: the full node has another block at height {height}");
            let Ok(signed) = reader.signed_header(*height, &signer) else { continue };
            let signed =
                signed.unwrap_or_else(|| panic!("P2: the full node has {height} without a signature"));
            let verified = signed.verify_signature();
            assert!(verified.is_ok(), "P2: the full node has {height}, which nobody signed: {verified:?}");
            let Ok(block) = reader.block(*height) else { continue };
            assert_eq!(block.is_none(), full.is_light(), "P1: a light node has no bodies, a full node all");
            let others = chain.hosts.iter().filter_map(|host| host.node());
            let theirs = others.filter_map(|node| node.reader().block(*height).ok().flatten()).next();
            // Who went on from a snapshot and those who are down do not have it.
            if let (Some(theirs), Some(block)) = (theirs, block) {
                assert_eq!(*theirs, *block, "P1: the full node has other data at height {height}");
            }
            done.insert(*height);
        }
        self.open.retain(|height, _| !done.contains(height));
    }

    /// P7: what is final for it is on DA.
    fn finality(&mut self, full: &Full) {
        let included = full.included();
        assert!(
            !full.is_light() || included == Height(0),
            "P7: a light node does not see that data are there"
        );
        assert!(included <= self.tip, "P7: {included} is final for the full node, its tip is {}", self.tip);
        assert!(
            included >= self.included,
            "P7: {} was final for the full node, now {included}",
            self.included
        );
        while self.included < included {
            self.included = self.included.next();
            let there = full.machine().ledger.header(self.included);
            assert!(there.is_some(), "P7: {} is final for the full node and not on DA", self.included);
        }
    }

    fn situations(&mut self, full: &Full, chain: &Chain<'_>, notes: &mut Notes) {
        let Some(node) = full.node() else { return };
        let ahead = chain.committed.last_key_value().map_or(0, |(height, _)| height.0);
        if let Some(behind) = &mut self.behind {
            let blocks = &node.metrics.follow.blocks;
            let of = |source| blocks.get(&Source { source }).map_or(0, |count| count.get());
            (behind.from_da, behind.from_peers) = (of("da"), of("p2p"));
            let level =
                self.tip.0 + 2 >= ahead || (!full.sources().peers && self.tip == full.machine().ledger.tip());
            if level && self.tip > Height(0) {
                let (most, crashed) = (behind.from_da > behind.from_peers, behind.crashed);
                self.behind = None;
                notes.reached(match (full.is_light(), most) {
                    (true, _) => Situation::LightLevel,
                    (false, true) => Situation::FullFromDa,
                    (false, false) => Situation::FullFromPeers,
                });
                if crashed {
                    notes.reached(Situation::FullAfterLoss);
                }
                notes.note(Some(FULL), || EventKind::Level { height: self.tip.0 });
            }
        }
        let refused =
            |reason| node.metrics.follow.refused.get(&Refused { reason }).map_or(0, |count| count.get());
        let invalid = node.metrics.gatherer.wrong.get() + refused("invalid") + refused("foreign");
        if invalid > self.invalid {
            self.invalid = invalid;
            notes.reached(Situation::FullRefused);
            notes.note(Some(FULL), || EventKind::Refused {
                by: "full".to_owned(),
                text: "what a peer gave".to_owned(),
            });
        }
        let banned = node.metrics.p2p.bans.get();
        if banned > self.banned {
            notes.reached(Situation::FullBanned);
            notes
                .note(Some(FULL), || EventKind::Refused { by: "full".to_owned(), text: "a peer".to_owned() });
        }
        self.banned = banned;
    }

    /// P1, P7: what is on its disk in the end is the chain, without a gap, and what is final is on DA,
    /// data too.
    pub(super) fn rest(&self, full: &Full, committed: &BTreeMap<Height, Hash>) {
        let open: Vec<_> = self.open.keys().collect();
        assert!(open.is_empty(), "P1: the full node has {open:?}, of which nobody knows");
        let machine = full.machine();
        machine.disk.set_hook(None);
        let reader = machine.open().reader();
        let (tip, included) = (reader.tip().height, reader.da_progress().included);
        let data = machine.ledger.data();
        let mut height = reader.initial_height();
        while height <= tip {
            let header = reader.header(height).ok().flatten();
            let header = header.unwrap_or_else(|| panic!("P1: the full node's chain has a gap at {height}"));
            assert_eq!(committed.get(&height), Some(&header.hash()), "P1: another block at {height}");
            if !full.is_light() {
                let block = reader.block(height).ok().flatten();
                let block = block.unwrap_or_else(|| panic!("P1: the full node lacks the body of {height}"));
                let there = block.txs().is_empty() || data.contains_key(&height);
                assert!(
                    height > included || there,
                    "P7: the data of {height}, which is final, are not on DA"
                );
            }
            height = height.next();
        }
    }
}
