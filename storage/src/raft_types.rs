//! openraft's types, with Baton's commands and members filled in.

use baton_messages::command::{Command, Verdict};
use baton_messages::types::{Member, MemberId};
use openraft::alias::{EntryOf, LogIdOf, SnapshotMetaOf, StoredMembershipOf, VoteOf};

openraft::declare_raft_types!(
    /// What openraft replicates here, and between whom.
    ///
    /// `leader_id_std`: at most one leader per term, so the term is the fencing token (P1).
    pub TypeConfig:
        D = Command,
        R = Verdict,
        NodeId = MemberId,
        Node = Member,
        Term = u64,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, MemberId>,
        AsyncRuntime = crate::runtime::Runtime,
);

/// A vote.
pub type Vote = VoteOf<TypeConfig>;
/// The identity of a log entry: term and index.
pub type LogId = LogIdOf<TypeConfig>;
/// A log entry.
pub type Entry = EntryOf<TypeConfig>;
/// A log entry's content.
pub type Payload = openraft::EntryPayload<Command, MemberId, Member>;
/// Voters and learners.
pub type Membership = openraft::Membership<MemberId, Member>;
/// A membership and the entry that carried it.
pub type StoredMembership = StoredMembershipOf<TypeConfig>;
/// What a snapshot covers.
pub type SnapshotMeta = SnapshotMetaOf<TypeConfig>;

/// Puts a log identity together.
#[must_use]
pub fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(term.into(), index)
}
