//! What each member is known to have had on its disk.
//!
//! A member whose disk was put back to an earlier state (a snapshot of its machine, a restored
//! copy) votes and acknowledges with a log that lacks what it had acknowledged before: entries
//! that a quorum holds would not be held by one any more (hazard A11). So every node remembers up to where
//! it has heard each member to be at least, and takes nothing from a later life of it that lacks some
//! of that, until it has been brought level again.
//!
//! Remembered is a *committed* entry that the member's durable log reached in the very term of
//! that entry: such a log holds the entry, and no leader ever takes it back. A later life whose log ends
//! before it has lost it for certain.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use baton_messages::types::MemberId;
use baton_storage::LogIdRecord;

/// A member has lost what it had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The life that lacks it.
    pub boot: u64,
    /// The index it had reached before.
    pub had: u64,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "life {} of its storage lacks log entries up to {} that an earlier life had: its disk was put \
             back to an earlier state; stop it, wipe it and add the node anew",
            self.boot, self.had
        )
    }
}

/// What is known of one member.
#[derive(Clone, Copy, Debug)]
struct Known {
    boot: u64,
    /// A committed entry it had.
    at: Option<LogIdRecord>,
    /// The newest term it spoke of.
    term: u64,
    /// The newest term that an earlier life of it spoke of: it may have voted in it.
    before: u64,
    lost: Option<Lost>,
    /// What a life of it acknowledged to this node as the leader of a term.
    acknowledged: Option<Acknowledged>,
}

/// While its term lasts nobody else may take it back: a later life that lacks it has lost it.
#[derive(Clone, Copy, Debug)]
struct Acknowledged {
    boot: u64,
    term: u64,
    index: u64,
}

/// What is known of every member. Kept in memory: a node that starts anew begins to learn.
#[derive(Debug, Default)]
pub struct Kept(Mutex<BTreeMap<MemberId, Known>>);

/// An order that logs have, whoever wrote them.
fn order(at: Option<LogIdRecord>) -> Option<(u64, u64)> {
    at.map(|at| (at.term, at.index))
}

impl Known {
    /// This life of it shows up to where its log goes.
    fn show(&mut self, boot: u64, end: Option<LogIdRecord>) -> Result<(), Lost> {
        if let Some(lost) = self.lost.filter(|lost| boot >= lost.boot) {
            return Err(lost);
        }
        match self.at {
            Some(at) if boot > self.boot && order(end) < order(self.at) => {
                let lost = Lost { boot, had: at.index };
                self.lost = Some(lost);
                Err(lost)
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl Kept {
    fn known(&self) -> MutexGuard<'_, BTreeMap<MemberId, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A member tells of itself: its life, its term and the end of its durable log. `committed` is
    /// what is committed as far as this node knows.
    ///
    /// # Errors
    ///
    /// It has lost something. No error once it has everything again.
    pub fn told(
        &self,
        member: MemberId,
        boot: u64,
        term: u64,
        end: Option<LogIdRecord>,
        committed: Option<LogIdRecord>,
    ) -> Result<(), Lost> {
        let mut all = self.known();
        let first = Known { boot, at: None, term, before: 0, lost: None, acknowledged: None };
        let known = all.entry(member).or_insert(first);
        if order(end) >= order(known.at) {
            // Whoever led it has brought it level.
            known.lost = None;
        }
        known.show(boot, end)?;
        if boot < known.boot {
            return Ok(());
        }
        if boot > known.boot {
            (known.boot, known.before) = (boot, known.before.max(known.term));
        }
        known.term = known.term.max(term);
        let has =
            |entry: &LogIdRecord| end.is_some_and(|end| end.term == entry.term && end.index >= entry.index);
        if let Some(entry) = committed.filter(has)
            && order(Some(entry)) > order(known.at)
        {
            known.at = Some(entry);
        }
        Ok(())
    }

    /// A member stands for election, or answers one, with a log that ends there.
    ///
    /// # Errors
    ///
    /// It has lost something.
    pub fn shown(&self, member: MemberId, boot: u64, end: Option<LogIdRecord>) -> Result<(), Lost> {
        self.known().get_mut(&member).map_or(Ok(()), |known| known.show(boot, end))
    }

    /// Whether a vote of this life counts: not in a term in which an earlier life may have voted.
    pub fn may_vote(&self, member: MemberId, boot: u64, term: u64) -> bool {
        self.known().get(&member).is_none_or(|known| {
            let before = if boot > known.boot { known.term } else { known.before };
            term > before
        })
    }

    /// A member has acknowledged entries up to this one to the leader of a term, which is this node.
    pub fn acknowledged(&self, member: MemberId, boot: u64, term: u64, index: u64) {
        let mut all = self.known();
        let Some(known) = all.get_mut(&member) else { return };
        let before = known.acknowledged.filter(|before| (before.term, before.index) >= (term, index));
        known.acknowledged = before.or(Some(Acknowledged { boot, term, index }));
    }

    /// A member says to the leader of this term, which is this node, that its log does not hold
    /// this entry, on which others follow.
    ///
    /// # Errors
    ///
    /// An earlier life had it.
    pub fn lacks(
        &self,
        member: MemberId,
        boot: u64,
        term: u64,
        entry: Option<LogIdRecord>,
    ) -> Result<(), Lost> {
        let mut all = self.known();
        let Some(known) = all.get_mut(&member) else { return Ok(()) };
        let Some(entry) = entry else { return Ok(()) };
        let committed = known.at.filter(|_| boot > known.boot).map(|at| at.index);
        let acknowledged = known.acknowledged.filter(|one| boot > one.boot && term == one.term);
        let had = committed.max(acknowledged.map(|one| one.index));
        if let Some(had) = had.filter(|had| entry.index <= *had) {
            known.lost.get_or_insert(Lost { boot, had });
        }
        refuse(known, boot)
    }

    /// Whether this life of a member is one that has lost something.
    ///
    /// # Errors
    ///
    /// It is.
    pub fn check(&self, member: MemberId, boot: u64) -> Result<(), Lost> {
        self.known().get(&member).map_or(Ok(()), |known| refuse(known, boot))
    }

    /// Forgets all but these.
    pub fn retain(&self, is_member: impl Fn(MemberId) -> bool) {
        self.known().retain(|member, _| is_member(*member));
    }
}

fn refuse(known: &Known, boot: u64) -> Result<(), Lost> {
    known.lost.filter(|lost| boot >= lost.boot).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    const M: MemberId = MemberId(7);

    fn at(term: u64, index: u64) -> Option<LogIdRecord> {
        Some(LogIdRecord { term, index })
    }

    /// A member in its first life, heard to have the committed entry 9 of term 3 on its disk.
    fn level() -> Kept {
        let kept = Kept::default();
        assert_eq!(kept.told(M, 1, 3, at(3, 10), at(3, 9)), Ok(()));
        kept
    }

    #[test]
    fn a_disk_put_back_to_an_earlier_state_is_found_however_it_shows() {
        let lost = Err(Lost { boot: 2, had: 9 });
        assert_eq!(level().told(M, 2, 3, at(3, 8), at(3, 9)), lost, "in what it tells");
        assert_eq!(level().told(M, 2, 2, None, at(3, 9)), lost, "with an empty log too");
        assert_eq!(level().shown(M, 2, at(3, 8)), lost, "in an election");
        assert_eq!(level().shown(M, 2, at(2, 50)), lost, "with a longer log of an older term too");
        assert_eq!(level().lacks(M, 2, 3, at(3, 9)), lost, "in an answer to entries");
    }

    #[test]
    fn what_was_acknowledged_to_a_leader_is_not_gone_while_its_term_lasts() {
        let kept = level();
        kept.acknowledged(M, 1, 3, 12);
        assert_eq!(kept.lacks(M, 1, 3, at(3, 13)), Ok(()));
        assert_eq!(kept.lacks(M, 2, 4, at(3, 12)), Ok(()), "another leader may have taken it back");
        assert_eq!(kept.lacks(M, 2, 3, at(3, 12)), Err(Lost { boot: 2, had: 12 }));
    }

    #[test]
    fn what_it_had_and_was_not_committed_may_be_gone() {
        // Entry 10 was written and not committed; another leader took it back.
        for end in [at(3, 9), at(3, 10), at(4, 10)] {
            assert_eq!(level().told(M, 2, 4, end, at(3, 9)), Ok(()));
            assert_eq!(level().shown(M, 2, end), Ok(()));
        }
        assert_eq!(level().lacks(M, 2, 4, at(3, 10)), Ok(()));
        // A log of an older leader says nothing about what this one has committed.
        let kept = Kept::default();
        kept.told(M, 1, 3, at(2, 50), at(3, 9)).unwrap();
        assert_eq!(kept.told(M, 2, 3, at(2, 5), at(3, 9)), Ok(()));
    }

    #[test]
    fn the_same_life_is_not_doubted_and_late_words_of_an_older_one_change_nothing() {
        let kept = level();
        assert_eq!(kept.shown(M, 1, at(3, 4)), Ok(()), "said before, heard later");
        assert_eq!(kept.told(M, 2, 4, at(3, 12), at(3, 11)), Ok(()));
        assert_eq!(kept.told(M, 1, 3, at(3, 4), at(3, 11)), Ok(()));
        assert_eq!(kept.told(M, 3, 4, at(3, 10), at(3, 11)), Err(Lost { boot: 3, had: 11 }));
    }

    #[test]
    fn it_stays_refused_in_every_later_life_until_it_was_brought_level() {
        let kept = level();
        kept.shown(M, 2, at(3, 5)).unwrap_err();
        assert!(kept.check(M, 2).is_err() && kept.check(M, 3).is_err());
        assert!(kept.check(M, 1).is_ok(), "the life that had it has it");
        assert!(kept.told(M, 3, 4, at(3, 8), at(4, 20)).is_err());
        assert_eq!(kept.told(M, 3, 4, at(4, 20), at(4, 20)), Ok(()));
        assert_eq!(kept.check(M, 3), Ok(()));
        kept.retain(|_| false);
        assert_eq!(kept.shown(M, 4, None), Ok(()), "no member any more");
    }

    #[test]
    fn a_vote_counts_only_beyond_the_terms_in_which_an_earlier_life_may_have_voted() {
        let kept = level();
        assert!(kept.may_vote(M, 1, 3), "the same life knows what it did");
        assert!(!kept.may_vote(M, 2, 3) && kept.may_vote(M, 2, 4));
        kept.told(M, 2, 3, at(3, 10), at(3, 10)).unwrap();
        assert!(!kept.may_vote(M, 2, 3) && kept.may_vote(M, 2, 4), "also once it was heard");
        assert!(kept.may_vote(MemberId(8), 1, 1), "nothing is known of somebody else");
    }
}
