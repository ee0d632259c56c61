//! Who may call what: the rules, without the network around them.
//!
//! Raft's calls come from members of the effective membership, known by the UUID of their
//! storage (hazards A9, E4). A node that has no membership yet takes them from anybody of the
//! right chain: somebody is adding it. A member that was away for long may not know those who
//! lead today; it hears them when they speak for its own cluster, or it would never learn of them.

use std::fmt;

use baton_messages::types::MemberId;
use baton_storage::LogIdRecord;
use uuid::Uuid;

use super::wire::{Call, RaftCall, Request};

/// What this node knows when it is called.
#[derive(Clone, Copy, Debug, Default)]
pub struct Here {
    /// The cluster its store belongs to.
    pub cluster: Option<Uuid>,
    /// It has a membership.
    pub initialised: bool,
    /// The entry that carried its membership.
    pub membership: Option<LogIdRecord>,
    /// It leads.
    pub leads: bool,
}

/// What the membership here says of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It votes, in one of the configurations.
    Voter,
    /// It learns.
    Learner,
    /// It is not in it.
    Stranger,
}

/// Why a call is not answered; also the label in the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Denial {
    /// The bytes are no call.
    Malformed,
    /// It means another cluster.
    OtherCluster,
    /// It is not in the membership.
    Stranger,
    /// It does not vote and asks for votes or leads.
    NotVoter,
    /// It speaks in the name of another member, or with its disk.
    Impostor,
    /// Its disk lacks what it had acknowledged.
    Reverted,
    /// Raft does not run here now.
    Stopped,
    /// Too much is being served already.
    Busy,
}

impl Denial {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Malformed,
        Self::OtherCluster,
        Self::Stranger,
        Self::NotVoter,
        Self::Impostor,
        Self::Reverted,
        Self::Stopped,
        Self::Busy,
    ];

    /// The label in the metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::OtherCluster => "other_cluster",
            Self::Stranger => "stranger",
            Self::NotVoter => "not_voter",
            Self::Impostor => "impostor",
            Self::Reverted => "reverted",
            Self::Stopped => "stopped",
            Self::Busy => "busy",
        }
    }

    /// Whether this is why a member of any version denied a call: a denial travels as its text.
    #[must_use]
    pub fn is_said_in(self, reason: &str) -> bool {
        reason == self.to_string()
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the bytes are no call that this version of baton knows",
            Self::OtherCluster => "this node belongs to another cluster",
            Self::Stranger => "the caller's storage is not in the membership: add it as a learner first",
            Self::NotVoter => "the caller does not vote",
            Self::Impostor => "the caller speaks in the name of another member",
            Self::Reverted => {
                "the caller's disk was put back to an earlier state: wipe it and add the node anew"
            }
            Self::Stopped => "raft does not run here now",
            Self::Busy => "too much is being served already",
        })
    }
}

/// Whether a storage is called what the membership calls it. Who asks for nothing but a place is
/// answered in any case.
///
/// # Errors
///
/// `Impostor`: a copy of a member's disk runs under another name.
pub fn admit_name(known: Option<&str>, name: &str, request: &Request) -> Result<(), Denial> {
    match request {
        Request::Identify | Request::Join { .. } => Ok(()),
        Request::Raft(_)
        | Request::Condition(_)
        | Request::Forward { .. }
        | Request::Fetch { .. }
        | Request::Pause { .. }
        | Request::Peer { .. }
        | Request::Accepted
        | Request::DaHead => match known {
            Some(known) if !known.eq_ignore_ascii_case(name) => Err(Denial::Impostor),
            Some(_) | None => Ok(()),
        },
    }
}

/// Whether a call is answered.
///
/// # Errors
///
/// Why not.
pub fn admit(here: &Here, caller: MemberId, standing: Standing, request: &Request) -> Result<(), Denial> {
    match request {
        // Anybody of the right chain may ask; the handshake has checked the chain.
        Request::Identify | Request::Join { .. } => Ok(()),
        Request::Condition(condition) if condition.member != caller => Err(Denial::Impostor),
        // A member may ask for what it could also propose as the leader.
        Request::Condition(_)
        | Request::Forward { .. }
        | Request::Fetch { .. }
        | Request::Pause { .. }
        | Request::Peer { .. }
        | Request::Accepted
        | Request::DaHead => {
            if standing == Standing::Stranger && here.initialised {
                Err(Denial::Stranger)
            } else {
                Ok(())
            }
        }
        Request::Raft(call) => admit_raft(here, caller, standing, call),
    }
}

fn admit_raft(here: &Here, caller: MemberId, standing: Standing, call: &RaftCall) -> Result<(), Denial> {
    if here.cluster.is_some_and(|cluster| cluster != call.cluster) {
        return Err(Denial::OtherCluster);
    }
    if call.call.speaker() != caller {
        return Err(Denial::Impostor);
    }
    if !here.initialised || standing == Standing::Voter {
        return Ok(());
    }
    match &call.call {
        // Its log may hold a membership that is newer than the one here. One that was removed
        // has nothing beyond the entry that removed it.
        Call::Vote(ballot) | Call::PreVote(ballot) => {
            let newer = ballot.last.map(|last| (last.term, last.index))
                > here.membership.map(|here| (here.term, here.index));
            match standing {
                _ if newer => Ok(()),
                Standing::Learner => Err(Denial::NotVoter),
                Standing::Stranger | Standing::Voter => Err(Denial::Stranger),
            }
        }
        // Who leads was elected by a quorum of its cluster, whatever is known of it here; Raft
        // compares the terms.
        Call::Append(_) | Call::Snapshot { .. } | Call::Transfer { .. } if here.cluster.is_some() => Ok(()),
        Call::Append(_) | Call::Snapshot { .. } | Call::Transfer { .. } => Err(Denial::Stranger),
    }
}

#[cfg(test)]
mod tests {
    use baton_messages::cluster::Condition;
    use baton_messages::types::{Hash, Height, Member};
    use baton_storage::VoteRecord;

    use super::*;
    use crate::raft::wire::{Append, Ballot};

    const OWN: Uuid = Uuid::from_u128(1);
    const OTHER: Uuid = Uuid::from_u128(2);
    const CALLER: MemberId = MemberId(7);

    fn here() -> Here {
        let membership = Some(LogIdRecord { term: 2, index: 10 });
        Here { cluster: Some(OWN), initialised: true, membership, leads: false }
    }

    fn vote(voted_for: MemberId) -> VoteRecord {
        VoteRecord { term: 3, voted_for, committed: true }
    }

    fn raft(cluster: Uuid, call: Call) -> Request {
        Request::Raft(RaftCall { cluster, call })
    }

    fn ballot(index: u64) -> Call {
        let last = Some(LogIdRecord { term: 2, index });
        Call::Vote(Ballot { vote: vote(CALLER), last, transfer: false })
    }

    fn append(from: MemberId) -> Call {
        Call::Append(Append { vote: vote(from), previous: None, committed: None, entries: vec![] })
    }

    fn asked(standing: Standing, request: &Request) -> Result<(), Denial> {
        admit(&here(), CALLER, standing, request)
    }

    /// Members of other versions say it in these words, and who is removed must understand it.
    #[test]
    fn what_a_stranger_is_told_keeps_its_words() {
        let words = "the caller's storage is not in the membership: add it as a learner first";
        assert_eq!(Denial::Stranger.to_string(), words);
        assert!(Denial::Stranger.is_said_in(words));
        for other in Denial::ALL.into_iter().filter(|denial| *denial != Denial::Stranger) {
            assert!(!Denial::Stranger.is_said_in(&other.to_string()));
        }
    }

    #[test]
    fn a_voter_may_stand_and_lead() {
        assert_eq!(asked(Standing::Voter, &raft(OWN, ballot(10))), Ok(()));
        assert_eq!(asked(Standing::Voter, &raft(OWN, append(CALLER))), Ok(()));
    }

    #[test]
    fn another_cluster_is_refused_whoever_speaks() {
        for standing in [Standing::Voter, Standing::Learner, Standing::Stranger] {
            assert_eq!(asked(standing, &raft(OTHER, append(CALLER))), Err(Denial::OtherCluster));
            assert_eq!(asked(standing, &raft(OTHER, ballot(99))), Err(Denial::OtherCluster));
        }
    }

    #[test]
    fn nobody_speaks_for_another_member() {
        assert_eq!(asked(Standing::Voter, &raft(OWN, append(MemberId(8)))), Err(Denial::Impostor));
        let condition = Condition { member: MemberId(8), ..Condition::default() };
        assert_eq!(asked(Standing::Voter, &Request::Condition(condition)), Err(Denial::Impostor));
    }

    #[test]
    fn a_members_disk_under_another_name_is_answered_nothing_but_who_is_here() {
        let ballot = raft(OWN, ballot(10));
        assert_eq!(admit_name(Some("n1"), "n4", &ballot), Err(Denial::Impostor));
        let condition = Request::Condition(Condition { member: CALLER, ..Condition::default() });
        assert_eq!(admit_name(Some("n1"), "n4", &condition), Err(Denial::Impostor));
        assert_eq!(admit_name(Some("n1"), "N1", &ballot), Ok(()), "names of hosts have no case");
        assert_eq!(admit_name(None, "n4", &ballot), Ok(()), "the rules for strangers hold");
        assert_eq!(admit_name(Some("n1"), "n4", &Request::Identify), Ok(()));
    }

    #[test]
    fn a_learner_gets_no_vote() {
        assert_eq!(asked(Standing::Learner, &raft(OWN, ballot(10))), Err(Denial::NotVoter));
    }

    #[test]
    fn a_removed_member_gets_no_vote_and_a_newer_membership_does() {
        assert_eq!(asked(Standing::Stranger, &raft(OWN, ballot(9))), Err(Denial::Stranger));
        assert_eq!(asked(Standing::Stranger, &raft(OWN, ballot(10))), Err(Denial::Stranger));
        assert_eq!(asked(Standing::Stranger, &raft(OWN, ballot(11))), Ok(()));
        assert_eq!(asked(Standing::Learner, &raft(OWN, ballot(11))), Ok(()));
    }

    #[test]
    fn a_member_that_was_away_hears_leaders_it_does_not_know_yet() {
        assert_eq!(asked(Standing::Stranger, &raft(OWN, append(CALLER))), Ok(()));
        let legacy = Here { cluster: None, ..here() };
        let refused = admit(&legacy, CALLER, Standing::Stranger, &raft(OWN, append(CALLER)));
        assert_eq!(refused, Err(Denial::Stranger));
    }

    #[test]
    fn an_empty_node_takes_its_first_calls_from_anybody() {
        let empty = Here::default();
        for call in [ballot(10), append(CALLER)] {
            assert_eq!(admit(&empty, CALLER, Standing::Stranger, &raft(OTHER, call)), Ok(()));
        }
        let promised = Here { cluster: Some(OWN), ..Here::default() };
        let refused = admit(&promised, CALLER, Standing::Stranger, &raft(OTHER, append(CALLER)));
        assert_eq!(refused, Err(Denial::OtherCluster));
    }

    #[test]
    fn strangers_ask_who_is_there_and_to_join_and_nothing_else() {
        assert_eq!(asked(Standing::Stranger, &Request::Identify), Ok(()));
        assert_eq!(asked(Standing::Stranger, &Request::Join { member: Member::default() }), Ok(()));
        let condition = Condition { member: CALLER, ..Condition::default() };
        let fetch =
            Request::Fetch { from: Height(1), hash: Hash::default(), max_bytes: 1, down_to: Height(1) };
        let forward = Request::Forward { txs: vec![], checked: Height(0) };
        let pause = Request::Pause { reason: None };
        let peer = Request::Peer { address: String::new() };
        for request in [Request::Condition(condition), fetch, forward, pause, peer, Request::DaHead] {
            assert_eq!(asked(Standing::Stranger, &request), Err(Denial::Stranger));
            assert_eq!(asked(Standing::Learner, &request), Ok(()));
        }
    }
}
