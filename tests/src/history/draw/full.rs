//! The full node of a seed, and what is done to it: by a chance of its own, so that nothing else of the
//! seed follows from it.

use super::{CALM_MS, Chance, SPAN_MS, left};
use crate::cluster::Sources;
use crate::history::full::{FullDeed, FullNode};
use crate::history::lies::Lie;
use crate::history::{Deed, DiskFault, Left, What};

/// Of a hundred histories so many have a full node.
const OFTEN: u64 = 15;
/// It is away for so long at the most.
const LONGEST_MS: u64 = 4_000;

pub(super) fn full(seed: u64, forced_ms: u64) -> Option<(FullNode, Vec<Deed>)> {
    let mut chance = Chance::new(seed ^ 0x6675_6c6c_6e6f_6465);
    if !chance.percent(OFTEN) {
        return None;
    }
    let both = Sources { peers: true, da: true };
    let sources =
        chance.pick(&[both, both, Sources { peers: true, da: false }, Sources { peers: false, da: true }]);
    let from_ms = if chance.percent(30) { 0 } else { chance.spread(1_000, 14_000) };
    let every = chance.spread(600, 4_000);
    let mut deeds = vec![];
    if sources.peers && chance.percent(60) {
        // Whoever has much to catch up with is worth most to a liar.
        let what = What::Full(FullDeed::Lie { lie: chance.pick(&Lie::ALL), for_ms: LONGEST_MS });
        deeds.push(Deed { at_ms: from_ms.max(CALM_MS), what });
    }
    let mut at_ms = from_ms.max(CALM_MS) + chance.below(every / 2);
    while at_ms < SPAN_MS {
        let what = What::Full(deed(&mut chance, sources));
        deeds.push(Deed { at_ms, what });
        at_ms += 1 + chance.below(2 * every);
    }
    let (light, failures) = beside(seed);
    deeds.extend(failures.into_iter().filter(|deed| deed.at_ms > from_ms));
    // A light node judges nothing of what users force.
    Some((FullNode { sources, from_ms, light: light && forced_ms == 0 }, deeds))
}

/// What came to full nodes later, by yet another chance: whether it is a light node, and how its disk
/// fails.
fn beside(seed: u64) -> (bool, Vec<Deed>) {
    let mut chance = Chance::new(seed ^ 0x6265_7369_6465);
    let light = chance.percent(25);
    let mut deeds = vec![];
    if chance.percent(30) {
        for _ in 0..=chance.below(3) {
            // It syncs nothing of what it follows: what it loses, it reads again.
            let fault = chance.pick(&[DiskFault::Full, DiskFault::Write, DiskFault::Written]);
            let left = chance.pick(&[Left::All, Left::Nothing, Left::Nothing, Left::Prefix(2)]);
            let what = What::Full(FullDeed::Disk { fault, left, for_ms: chance.spread(10, LONGEST_MS) });
            deeds.push(Deed { at_ms: chance.between(CALM_MS, SPAN_MS), what });
        }
    }
    (light, deeds)
}

fn deed(chance: &mut Chance, sources: Sources) -> FullDeed {
    let for_ms = chance.spread(10, LONGEST_MS);
    match chance.below(10) {
        0 | 1 => FullDeed::Crash { left: left(chance), down_ms: for_ms },
        2 | 3 => FullDeed::CrashAt { after: chance.between(1, 40), left: left(chance), down_ms: for_ms },
        4 => FullDeed::Cut { ways: ways(chance, sources), for_ms },
        5 => FullDeed::Freeze { for_ms },
        6 if sources.da => FullDeed::Scribble,
        _ if sources.peers => FullDeed::Lie { lie: chance.pick(&Lie::ALL), for_ms: for_ms.max(500) },
        _ => FullDeed::Scribble,
    }
}

/// One of its ways or all of them.
fn ways(chance: &mut Chance, sources: Sources) -> Sources {
    match sources {
        Sources { peers: true, da: true } => {
            let all = [sources, Sources { peers: true, da: false }, Sources { peers: false, da: true }];
            chance.pick(&all)
        }
        one => one,
    }
}
