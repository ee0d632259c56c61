//! Whether what a member says can be what one says that keeps to the protocol.
//!
//! openraft takes that for granted. What it asserts would end this process, a hole in the log it
//! looks for in debug builds only, and a term near the end of its numbers would be stored and
//! overflow at the next election, after every restart again (P9). A member that is damaged or of
//! a wrong version must not take the others with it.

use baton_storage::{LogIdRecord, VoteRecord};

use super::wire::{Append, Ballot, Call};

/// A term may be ahead of the one here by so many: more than a cluster comes to in all its life.
const MAX_AHEAD: u64 = 1 << 32;
/// No log comes to an index like this.
const MAX_INDEX: u64 = 1 << 60;

/// What is known here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The term.
    pub term: u64,
    /// What is committed, as far as is known here.
    pub committed: Option<LogIdRecord>,
}

/// Whether a call is plausible, but for the head of a snapshot.
///
/// # Errors
///
/// What contradicts the protocol.
pub fn call(call: &Call, known: &Known) -> Result<(), String> {
    match call {
        Call::Vote(ballot) | Call::PreVote(ballot) => candidate(ballot, known),
        Call::Append(append) => entries(append, known),
        Call::Snapshot { vote, .. } => leader(vote, known),
        Call::Transfer { from, last, .. } => {
            leader(from, known)?;
            position("the last entry", *last, from.term)
        }
    }
}

/// Whether a vote is one that can be taken over: asked for, or named in an answer.
///
/// # Errors
///
/// Why not.
pub fn vote(vote: &VoteRecord, term: u64) -> Result<(), String> {
    if vote.term > term.saturating_add(MAX_AHEAD) {
        return Err(format!("term {} cannot be reached from {term}", vote.term));
    }
    Ok(())
}

/// Whether a snapshot that covers the log up to here can come from the leader with this vote.
///
/// # Errors
///
/// Why not.
pub fn snapshot(vote: &VoteRecord, covered: Option<LogIdRecord>, known: &Known) -> Result<(), String> {
    position("the end of the snapshot", covered, vote.term)?;
    let (Some(covered), Some(committed)) = (covered, known.committed) else { return Ok(()) };
    if covered.term > committed.term && covered.index <= committed.index {
        return Err(format!(
            "the snapshot ends with entry {} of term {}, but entry {} of term {} is committed here",
            covered.index, covered.term, committed.index, committed.term
        ));
    }
    Ok(())
}

fn candidate(ballot: &Ballot, known: &Known) -> Result<(), String> {
    if ballot.vote.committed {
        return Err("a candidate's vote is not committed yet".to_owned());
    }
    vote(&ballot.vote, known.term)?;
    position("the last entry", ballot.last, ballot.vote.term)
}

fn leader(leader: &VoteRecord, known: &Known) -> Result<(), String> {
    if !leader.committed {
        return Err(format!("no quorum made the speaker the leader of term {}", leader.term));
    }
    vote(leader, known.term)
}

/// A leader has only entries of its own term and of earlier ones, each index once.
fn entries(append: &Append, known: &Known) -> Result<(), String> {
    let term = append.vote.term;
    leader(&append.vote, known)?;
    position("the entry before", append.previous, term)?;
    position("the last committed entry", append.committed, term)?;
    let mut previous = append.previous;
    for entry in &append.entries {
        let wanted = previous.map_or(0, |previous| previous.index + 1);
        if entry.id.index != wanted {
            return Err(format!("entry {} where {wanted} must be", entry.id.index));
        }
        if previous.is_some_and(|previous| entry.id.term < previous.term) {
            return Err(format!("entry {} is of an earlier term than the one before it", entry.id.index));
        }
        position("an entry", Some(entry.id), term)?;
        previous = Some(entry.id);
    }
    Ok(())
}

fn position(what: &str, id: Option<LogIdRecord>, term: u64) -> Result<(), String> {
    let Some(id) = id else { return Ok(()) };
    if id.term > term {
        return Err(format!("{what} is of term {}, but the speaker is in term {term}", id.term));
    }
    if id.index > MAX_INDEX {
        return Err(format!("{what} has index {}, which no log comes to", id.index));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use baton_messages::types::MemberId;
    use bytes::Bytes;

    use super::super::wire::{Content, Record};
    use super::*;

    const KNOWN: Known = Known { term: 3, committed: Some(LogIdRecord { term: 2, index: 10 }) };

    const fn id(term: u64, index: u64) -> LogIdRecord {
        LogIdRecord { term, index }
    }

    const fn elected(term: u64) -> VoteRecord {
        VoteRecord { term, voted_for: MemberId(7), committed: true }
    }

    const fn asked(term: u64) -> VoteRecord {
        VoteRecord { committed: false, ..elected(term) }
    }

    fn append(previous: Option<LogIdRecord>, ids: &[LogIdRecord]) -> Call {
        let entries = ids.iter().map(|id| Record { id: *id, content: Content::Blank }).collect();
        Call::Append(Append { vote: elected(3), previous, committed: Some(id(2, 10)), entries })
    }

    fn refused(said: &Call) -> String {
        call(said, &KNOWN).expect_err("it contradicts the protocol")
    }

    #[test]
    fn what_a_leader_sends_is_taken() {
        assert_eq!(call(&append(Some(id(2, 10)), &[id(2, 11), id(3, 12)]), &KNOWN), Ok(()));
        assert_eq!(call(&append(None, &[id(0, 0), id(1, 1)]), &KNOWN), Ok(()), "from the beginning");
        assert_eq!(call(&append(None, &[]), &KNOWN), Ok(()), "a heartbeat");
        assert_eq!(call(&Call::Snapshot { vote: elected(4), head: Bytes::new() }, &KNOWN), Ok(()));
        let transfer = Call::Transfer { from: elected(3), to: MemberId(1), last: Some(id(3, 12)) };
        assert_eq!(call(&transfer, &KNOWN), Ok(()));
        let ballot = Ballot { vote: asked(4), last: Some(id(3, 12)), transfer: false };
        assert_eq!(call(&Call::Vote(ballot), &KNOWN), Ok(()));
        assert_eq!(call(&Call::PreVote(ballot), &KNOWN), Ok(()));
    }

    #[test]
    fn entries_without_a_hole_in_rising_terms_up_to_the_leaders() {
        assert_eq!(refused(&append(Some(id(2, 10)), &[id(3, 12)])), "entry 12 where 11 must be");
        assert_eq!(refused(&append(Some(id(2, 10)), &[id(3, 11), id(3, 13)])), "entry 13 where 12 must be");
        assert_eq!(refused(&append(Some(id(2, 10)), &[id(3, 10)])), "entry 10 where 11 must be");
        assert_eq!(refused(&append(None, &[id(3, 1)])), "entry 1 where 0 must be");
        assert!(refused(&append(Some(id(2, 10)), &[id(3, 11), id(2, 12)])).contains("earlier term"));
        assert!(refused(&append(Some(id(2, 10)), &[id(4, 11)])).contains("of term 4"));
        assert!(refused(&append(Some(id(4, 10)), &[])).contains("of term 4"));
        assert!(refused(&append(Some(id(2, u64::MAX)), &[id(2, 0)])).contains("index"));
    }

    #[test]
    fn a_term_that_no_cluster_comes_to_is_refused_from_everybody() {
        for said in [
            Call::Vote(Ballot { vote: asked(u64::MAX), last: Some(id(3, 12)), transfer: false }),
            Call::PreVote(Ballot { vote: asked(u64::MAX), last: None, transfer: true }),
            Call::Append(Append {
                vote: elected(u64::MAX),
                previous: None,
                committed: None,
                entries: vec![],
            }),
            Call::Snapshot { vote: elected(u64::MAX), head: Bytes::new() },
            Call::Transfer { from: elected(u64::MAX), to: MemberId(1), last: None },
        ] {
            assert!(refused(&said).contains("cannot be reached"), "{said:?}");
        }
        assert_eq!(vote(&elected(MAX_AHEAD), 0), Ok(()), "whoever joins comes from the beginning");
        assert!(vote(&asked(u64::MAX), u64::MAX).is_ok(), "no overflow");
    }

    #[test]
    fn candidates_ask_and_leaders_are_elected() {
        let ballot = Ballot { vote: elected(4), last: None, transfer: false };
        assert!(refused(&Call::Vote(ballot)).contains("not committed"));
        let ballot = Ballot { vote: asked(4), last: Some(id(5, 1)), transfer: false };
        assert!(refused(&Call::PreVote(ballot)).contains("of term 5"));
        let nobody = Append { vote: asked(3), previous: None, committed: None, entries: vec![] };
        assert!(refused(&Call::Append(nobody)).contains("no quorum"));
        let last = Some(id(4, 1));
        assert!(refused(&Call::Transfer { from: elected(3), to: MemberId(1), last }).contains("of term 4"));
    }

    #[test]
    fn a_snapshot_is_of_its_leaders_past_and_of_ours() {
        assert_eq!(snapshot(&elected(3), Some(id(3, 50)), &KNOWN), Ok(()));
        assert_eq!(snapshot(&elected(3), Some(id(2, 9)), &KNOWN), Ok(()), "an old one: openraft ignores it");
        assert_eq!(snapshot(&elected(3), None, &KNOWN), Ok(()));
        assert!(snapshot(&elected(3), Some(id(4, 50)), &KNOWN).is_err());
        let contradicts =
            snapshot(&elected(3), Some(id(3, 10)), &KNOWN).expect_err("two entries of an index");
        assert!(contradicts.contains("entry 10 of term 2 is committed here"), "{contradicts}");
        assert!(snapshot(&elected(3), Some(id(3, u64::MAX)), &KNOWN).is_err());
    }
}
