//! What must hold before a restored sequencer produces. Pure; what is known comes in.

use std::time::Duration;

use baton_messages::follow::DaRead;
use baton_messages::types::{Hash, Height, Tip};

/// What peers say of the chain's end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heads {
    /// How many have answered with a header of the proposer.
    pub answered: usize,
    /// The highest height of those.
    pub highest: Height,
    /// A height at which one of them has another header than this node.
    pub differs: Option<Height>,
}

/// What is known at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The last block here.
    pub tip: Tip,
    /// Its signature is here.
    pub signed: bool,
    /// The engine is that far.
    pub executed: Height,
    /// The highest header of the proposer that was seen anywhere.
    pub highest: Height,
    /// What is wrong with the node, forks among it.
    pub troubles: Vec<String>,
    /// How far DA was read, or why that is not known.
    pub da: Result<DaRead, String>,
    /// What peers say, or why they say nothing.
    pub peers: Result<Heads, String>,
    /// The last header that the key was to sign, as its guard knows, and the block that stands here
    /// at its height.
    pub guarded: Result<Option<Guarded>, String>,
}

/// What the guard beside the key says, compared with the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guarded {
    /// The height of the last header that the key was to sign.
    pub height: Height,
    /// That header.
    pub hash: Hash,
    /// What stands here at that height; `None`: nothing.
    pub here: Option<Hash>,
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// The chain may be gone on with.
    Ready,
    /// It may not; every reason.
    Waits(Vec<String>),
}

/// When a restored sequencer may produce.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Nobody may have made a block for so long: otherwise the old sequencer may be running.
    quiet: Duration,
    /// After so long it is said with more weight.
    patience: Duration,
    /// The end of the chain as it was seen last, and since when.
    still: Option<(Height, Duration)>,
}

impl Plan {
    /// A plan with these times.
    #[must_use]
    pub const fn new(quiet: Duration, patience: Duration) -> Self {
        Self { quiet, patience, still: None }
    }

    /// Whether the operator's patience is over. It changes nothing but what is said: what was signed
    /// and is not known here does not become known by waiting for less (P2).
    #[must_use]
    pub fn is_late(&self, now: Duration) -> bool {
        now >= self.patience
    }

    /// Looks; `now` is time since the beginning.
    pub fn look(&mut self, now: Duration, seen: &Seen) -> Look {
        let end = seen.tip.height.max(seen.highest);
        let mut waits = of_sources(seen);
        // The chain is not seen to stand still by who cannot see it.
        let since = match self.still {
            Some((height, since)) if height == end && waits.is_empty() => since,
            _ => now,
        };
        self.still = Some((end, since));
        waits.extend(of_chain(seen));
        waits.extend(of_guard(seen));
        let still = now.saturating_sub(since);
        if waits.is_empty() && still < self.quiet {
            waits.push(format!(
                "the chain has stood still for {}s of {}s: as long as blocks come, another sequencer makes them",
                still.as_secs(),
                self.quiet.as_secs()
            ));
        }
        if waits.is_empty() { Look::Ready } else { Look::Waits(waits) }
    }
}

fn of_sources(seen: &Seen) -> Vec<String> {
    let mut waits = seen.troubles.clone();
    match &seen.da {
        Err(why) => waits.push(format!("DA does not say how far the chain is: {why}")),
        Ok(read) if read.next <= read.head => {
            waits.push(format!("DA is read up to {} of {}", read.next.0.saturating_sub(1), read.head));
        }
        Ok(_) => {}
    }
    match &seen.peers {
        Err(why) => waits.push(format!("no peer says how far the chain is: {why}")),
        Ok(Heads { answered: 0, .. }) => {
            waits.push("no peer has a header of this chain".to_owned());
        }
        Ok(Heads { differs: Some(height), .. }) => waits.push(format!(
            "a peer has another header at height {height}: the key has signed two chains, find out which one is right"
        )),
        Ok(heads) if heads.highest > seen.tip.height => {
            waits.push(format!("a peer has block {}, the last one here is {}", heads.highest, seen.tip.height));
        }
        Ok(_) => {}
    }
    waits
}

fn of_chain(seen: &Seen) -> Vec<String> {
    let (tip, mut waits) = (seen.tip.height, vec![]);
    if tip == Height(0) {
        waits.push(
            "no block of the chain was found: where the chain begins here, unset node.catchup_timeout"
                .to_owned(),
        );
        return waits;
    }
    if seen.highest > tip {
        waits.push(format!("block {} was seen, the last one here is {tip}", seen.highest));
    }
    if seen.executed < tip {
        waits.push(format!("block {tip} is not executed yet"));
    }
    if !seen.signed {
        waits.push(format!("the signature of the last block, at height {tip}, is not here"));
    }
    waits
}

fn of_guard(seen: &Seen) -> Option<String> {
    match &seen.guarded {
        Err(why) => Some(format!("the double-sign guard: {why}")),
        Ok(Some(Guarded { height, here: None, .. })) => Some(format!(
            "the double-sign guard says that block {height} was signed, and nobody shows it: bring a peer or a DA node \
             that has it"
        )),
        Ok(Some(Guarded { height, hash, here: Some(here) })) if hash != here => Some(format!(
            "the double-sign guard holds {hash} at height {height}, the chain that was found has {here}: the key has signed \
             two chains, find out which one is right"
        )),
        Ok(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use baton_messages::types::DaHeight;

    use super::*;

    const QUIET: Duration = Duration::from_secs(10);

    fn second(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn read(next: u64, head: u64) -> Result<DaRead, String> {
        Ok(DaRead { next: DaHeight(next), head: DaHeight(head), strict_from: None })
    }

    /// Everything is here, up to a height.
    fn level(height: u64) -> Seen {
        Seen {
            tip: Tip { height: Height(height), ..Tip::default() },
            signed: true,
            executed: Height(height),
            highest: Height(height),
            troubles: vec![],
            da: read(8, 7),
            peers: Ok(Heads { answered: 1, highest: Height(height), differs: None }),
            guarded: Ok(None),
        }
    }

    /// What it waits for, once nothing has moved for long.
    fn waits(seen: &Seen) -> Vec<String> {
        let mut plan = Plan::new(QUIET, second(60));
        plan.look(second(0), seen);
        match plan.look(second(3600), seen) {
            Look::Ready => vec![],
            Look::Waits(waits) => waits,
        }
    }

    #[test]
    fn a_node_that_holds_everything_goes_on_once_the_chain_stands_still() {
        let mut plan = Plan::new(QUIET, second(60));
        assert!(
            matches!(plan.look(second(1), &level(7)), Look::Waits(why) if why[0].contains("another sequencer"))
        );
        assert!(matches!(plan.look(second(9), &level(7)), Look::Waits(_)));
        assert!(matches!(plan.look(second(10), &level(8)), Look::Waits(_)), "somebody still makes blocks");
        assert!(matches!(plan.look(second(19), &level(8)), Look::Waits(_)));
        assert_eq!(plan.look(second(20), &level(8)), Look::Ready);
    }

    #[test]
    fn time_in_which_a_source_was_silent_is_no_time_in_which_the_chain_stood_still() {
        let mut plan = Plan::new(QUIET, second(60));
        let nobody = Seen { peers: Err("no peer to ask".to_owned()), ..level(7) };
        let no_da = Seen { da: Err("away".to_owned()), ..level(7) };
        plan.look(second(0), &level(7));
        for (blind, at) in [(nobody, 100), (no_da, 200)] {
            plan.look(second(at), &blind);
            assert!(matches!(plan.look(second(at + 9), &level(7)), Look::Waits(_)));
            assert_eq!(plan.look(second(at + 10), &level(7)), Look::Ready);
        }
    }

    #[test]
    fn what_any_source_shows_and_this_node_lacks_is_waited_for() {
        let behind = Seen { highest: Height(9), ..level(7) };
        assert_eq!(waits(&behind), ["block 9 was seen, the last one here is 7"]);
        let peers = Ok(Heads { answered: 2, highest: Height(8), differs: None });
        assert_eq!(waits(&Seen { peers, ..level(7) }), ["a peer has block 8, the last one here is 7"]);
        assert_eq!(waits(&Seen { da: read(7, 7), ..level(7) }), ["DA is read up to 6 of 7"]);
        assert!(waits(&Seen { executed: Height(6), ..level(7) })[0].contains("not executed"));
        assert!(waits(&Seen { signed: false, ..level(7) })[0].contains("signature"));
    }

    #[test]
    fn silence_of_a_source_is_no_word_that_there_is_nothing() {
        let silent = Seen { da: Err("away".to_owned()), peers: Err("no peer to ask".to_owned()), ..level(7) };
        let waits_for = waits(&silent);
        assert_eq!(waits_for.len(), 2, "{waits_for:?}");
        assert!(waits_for[0].contains("away") && waits_for[1].contains("no peer to ask"));
        let nobody = Seen { peers: Ok(Heads::default()), ..level(7) };
        assert_eq!(waits(&nobody), ["no peer has a header of this chain"]);
        assert!(
            waits(&level(0))[0].contains("unset node.catchup_timeout"),
            "nothing is no chain to go on with"
        );
    }

    #[test]
    fn patience_that_is_over_makes_no_block() {
        let mut plan = Plan::new(QUIET, second(60));
        let silent = Seen { peers: Err("no peer to ask".to_owned()), ..level(7) };
        assert!(!plan.is_late(second(59)) && plan.is_late(second(60)));
        for at in [0, 60, 3600, 1_000_000] {
            assert!(matches!(plan.look(second(at), &silent), Look::Waits(_)));
        }
    }

    #[test]
    fn what_the_key_has_signed_must_stand_in_the_chain() {
        let guarded = |height, here: Option<u8>| {
            let here = here.map(|byte| Hash([byte; 32]));
            Seen {
                guarded: Ok(Some(Guarded { height: Height(height), hash: Hash([1; 32]), here })),
                ..level(7)
            }
        };
        assert_eq!(waits(&guarded(5, Some(1))), [""; 0]);
        assert!(waits(&guarded(9, None))[0].contains("block 9 was signed"), "P2");
        assert!(waits(&guarded(5, Some(2)))[0].contains("two chains"), "P2");
        assert!(waits(&Seen { guarded: Err("damaged".to_owned()), ..level(7) })[0].contains("damaged"));
    }

    #[test]
    fn a_fork_and_any_trouble_of_the_node_keep_it_from_producing() {
        let fork = Seen { troubles: vec!["the proposer signed two chains".to_owned()], ..level(7) };
        assert_eq!(waits(&fork), ["the proposer signed two chains"]);
        let peers = Ok(Heads { answered: 1, highest: Height(7), differs: Some(Height(6)) });
        assert!(waits(&Seen { peers, ..level(7) })[0].contains("two chains"));
    }
}
