//! What lies in the store: keys, and values in own structs behind the versioned codec.
//!
//! openraft's serde layouts are not stable between its versions, so nothing of openraft's is
//! written. A change of any struct here changes golden bytes in the tests and needs a new
//! store format with a migration step.

use std::collections::{BTreeMap, BTreeSet};

use baton_messages::chain::Header;
use baton_messages::codec::{self, CodecError};
use baton_messages::command::{DaProgress, ForcedPosition, HeaderSignature, Lane, Submitted};
use baton_messages::genesis::Genesis;
use baton_messages::types::{DaHeight, Hash, Height, Member, MemberId, Term, Tip};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::backend::StoreError;
use crate::raft_types::{LogId, Membership, StoredMembership, Vote, log_id};

/// Keys in `Family::Meta`.
pub(crate) mod meta {
    /// The store's format, four bytes, big-endian: readable whatever the format is.
    pub(crate) const FORMAT: &[u8] = b"format";
    /// How far a migration has come.
    pub(crate) const MIGRATION: &[u8] = b"migration";
    /// `Identified`.
    pub(crate) const IDENTITY: &[u8] = b"identity";
    /// How often the store was opened.
    pub(crate) const BOOT: &[u8] = b"boot";
    /// `VoteRecord`.
    pub(crate) const VOTE: &[u8] = b"vote";
    /// `LogIdRecord`: the last entry known to be committed.
    pub(crate) const COMMITTED: &[u8] = b"committed";
    /// `LogIdRecord`: the last purged entry.
    pub(crate) const PURGED: &[u8] = b"purged";
    /// `Applied`.
    pub(crate) const APPLIED: &[u8] = b"applied";
    /// `MembershipRecord`.
    pub(crate) const MEMBERSHIP: &[u8] = b"membership";
    /// Ranges of heights whose bodies are missing.
    pub(crate) const MISSING: &[u8] = b"missing";
    /// The current snapshot.
    pub(crate) const SNAPSHOT: &[u8] = b"snapshot";
    /// The next sequence number of the queue.
    pub(crate) const QUEUE_NEXT: &[u8] = b"queue_next";
    /// The UUID of the cluster it belongs to; absent before it belongs to one.
    pub(crate) const CLUSTER: &[u8] = b"cluster";
    /// The version of log entries in force, one byte; absent while it is the first.
    pub(crate) const COMMAND_VERSION: &[u8] = b"command_version";
    pub(crate) const PAUSE: &[u8] = b"pause";
    /// A height, eight bytes, big-endian: no block up to it holds a queued transaction.
    pub(crate) const QUEUE_CHECKED: &[u8] = b"queue_checked";
    /// `FollowRecord`: present on a node that follows a chain and has no log.
    pub(crate) const FOLLOW: &[u8] = b"follow";
    /// A DA height, eight bytes, big-endian: above it headers have envelopes. Absent before one was seen.
    pub(crate) const STRICT_FROM: &[u8] = b"strict_from";
    /// Present in the store of a node that follows headers only; empty.
    pub(crate) const HEADERS_ONLY: &[u8] = b"headers_only";
    /// `Evidence`, with a number of one byte behind it.
    pub(crate) const EVIDENCE: &[u8] = b"evidence";
    /// Present, and empty, once a membership that was applied here named this store.
    pub(crate) const BELONGED: &[u8] = b"belonged";
    /// `LeftOut`.
    pub(crate) const LEFT_OUT: &[u8] = b"left_out";
}

/// Decodes a stored value; failure means damage.
pub(crate) fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, StoreError> {
    codec::decode(bytes).map_err(|error: CodecError| StoreError::Corrupt(format!("{what}: {error}")))
}

/// The key of a height, an index or a sequence number.
pub(crate) fn number_key(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

/// The number in such a key.
pub(crate) fn key_number(what: &str, key: &[u8]) -> Result<u64, StoreError> {
    let bytes =
        key.try_into().map_err(|_| StoreError::Corrupt(format!("{what}: a key of {} bytes", key.len())))?;
    Ok(u64::from_be_bytes(bytes))
}

/// The key of a block body.
pub(crate) fn body_key(height: Height, hash: Hash) -> Bytes {
    let mut key = Vec::with_capacity(40);
    key.extend_from_slice(&height.0.to_be_bytes());
    key.extend_from_slice(&hash.0);
    key.into()
}

/// The key of a range on DA.
pub(crate) fn range_key(lane: Lane, last: Height) -> Bytes {
    let mut key = vec![match lane {
        Lane::Header => 0,
        Lane::Data => 1,
    }];
    key.extend_from_slice(&last.0.to_be_bytes());
    key.into()
}

/// Whose store it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identified {
    pub(crate) storage: Uuid,
    pub(crate) genesis: Genesis,
}

/// A log entry's identity, as it is stored and sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogIdRecord {
    /// The term of the leader that made the entry.
    pub term: u64,
    /// Its place in the log.
    pub index: u64,
}

impl From<LogId> for LogIdRecord {
    fn from(id: LogId) -> Self {
        Self { term: id.leader_id.term, index: id.index }
    }
}

impl From<LogIdRecord> for LogId {
    fn from(record: LogIdRecord) -> Self {
        log_id(record.term, record.index)
    }
}

/// A vote, as it is stored and sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteRecord {
    /// The term.
    pub term: u64,
    /// For whom.
    pub voted_for: MemberId,
    /// A quorum gave it: that member leads the term.
    pub committed: bool,
}

impl From<Vote> for VoteRecord {
    fn from(vote: Vote) -> Self {
        Self { term: vote.leader_id.term, voted_for: vote.leader_id.voted_for, committed: vote.committed }
    }
}

impl From<VoteRecord> for Vote {
    fn from(record: VoteRecord) -> Self {
        if record.committed {
            Self::new_committed(record.term, record.voted_for)
        } else {
            Self::new(record.term, record.voted_for)
        }
    }
}

/// Voters (two sets while a change is under way) and everybody's address, as stored and sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembersRecord {
    /// The voters of each configuration.
    pub configs: Vec<BTreeSet<MemberId>>,
    /// Voters and learners.
    pub nodes: BTreeMap<MemberId, Member>,
}

impl From<&Membership> for MembersRecord {
    fn from(membership: &Membership) -> Self {
        Self {
            configs: membership.get_joint_config().clone(),
            nodes: membership.nodes().map(|(id, member)| (*id, member.clone())).collect(),
        }
    }
}

impl TryFrom<MembersRecord> for Membership {
    type Error = StoreError;

    fn try_from(record: MembersRecord) -> Result<Self, StoreError> {
        if record.configs.is_empty() && record.nodes.is_empty() {
            return Ok(Self::default());
        }
        Self::new(record.configs, record.nodes)
            .map_err(|error| StoreError::Corrupt(format!("membership: {error}")))
    }
}

/// A membership and the entry that carried it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MembershipRecord {
    pub(crate) log: Option<LogIdRecord>,
    pub(crate) members: MembersRecord,
}

impl From<&StoredMembership> for MembershipRecord {
    fn from(stored: &StoredMembership) -> Self {
        Self { log: stored.log_id().map(Into::into), members: stored.membership().into() }
    }
}

impl TryFrom<MembershipRecord> for StoredMembership {
    type Error = StoreError;

    fn try_from(record: MembershipRecord) -> Result<Self, StoreError> {
        Ok(Self::new(record.log.map(Into::into), record.members.try_into()?))
    }
}

/// A log entry without the body of its block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogRecord {
    pub(crate) term: u64,
    pub(crate) content: Content,
}

/// What a log entry holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Content {
    Blank,
    Membership(MembersRecord),
    Block(Box<BlockRecord>),
    Signature(HeaderSignature),
    Submitted(Submitted),
    Included(Height),
    Activate(u8),
    Pause(Option<String>),
}

/// A block entry; the body is in `Family::Bodies` under height and hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BlockRecord {
    pub(crate) term: Term,
    pub(crate) hash: Hash,
    pub(crate) header: Header,
    pub(crate) tail: Option<HeaderSignature>,
    pub(crate) forced: ForcedPosition,
}

/// The applied state: small, written with every apply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Applied {
    pub(crate) log: Option<LogIdRecord>,
    pub(crate) tip: Tip,
    pub(crate) da: DaProgress,
    pub(crate) forced: ForcedPosition,
}

/// A committed header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HeaderRecord {
    pub(crate) hash: Hash,
    pub(crate) header: Header,
}

/// A signature and the header it is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SignatureRecord {
    pub(crate) hash: Hash,
    pub(crate) signature: Bytes,
}

/// The first height of a range on DA, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RangeRecord {
    pub(crate) from: Height,
    pub(crate) da_height: DaHeight,
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use baton_messages::command::Command;
    use baton_messages::types::Timestamp;
    use openraft::EntryPayload;

    use super::*;
    use crate::log::record_of;
    use crate::raft_types::Entry;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// A change here is a change of the store's format: it needs a migration step.
    fn assert_golden<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T, golden: &str) {
        let bytes = codec::encode(value);
        assert_eq!(hex(&bytes), golden, "{value:?}");
        assert_eq!(&decode::<T>("golden", &bytes).expect("just encoded"), value);
    }

    fn members() -> Membership {
        let member = Member {
            name: "a".into(),
            address: "h:1".into(),
            storage: Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
            witness: true,
        };
        let nodes = BTreeMap::from([(MemberId(1), member.clone()), (MemberId(2), member)]);
        Membership::new(vec![BTreeSet::from([MemberId(1)])], nodes).expect("the voter is a node")
    }

    #[test]
    fn votes_and_positions_keep_their_bytes() {
        assert_golden(&VoteRecord::from(Vote::new_committed(300, MemberId(5))), "01fb2c010501");
        assert_golden(&VoteRecord::from(Vote::new(3, MemberId(5))), "01030500");
        assert_golden(&LogIdRecord::from(log_id(2, 70_000)), "0102fc70110100");
    }

    #[test]
    fn log_records_keep_their_bytes() {
        let entry = |payload| record_of(&Entry { log_id: log_id(2, 3), payload });
        assert_golden(&entry(EntryPayload::Blank), "010200");
        let membership = "01020101010102010161\
            03683a31100102030405060708090a0b0c0d0e0f1001020161\
            03683a31100102030405060708090a0b0c0d0e0f1001";
        assert_golden(&entry(EntryPayload::Membership(members())), membership);
        let signature = HeaderSignature {
            height: Height(9),
            hash: Hash([1; 32]),
            signature: Bytes::from_static(&[2; 3]),
        };
        let ones = "01".repeat(32);
        let golden = format!("01020309{ones}03020202");
        assert_golden(&entry(EntryPayload::Normal(Command::Signature(signature.clone()))), &golden);
        let range = Submitted { lane: Lane::Data, from: Height(1), to: Height(2), da_height: DaHeight(3) };
        assert_golden(&entry(EntryPayload::Normal(Command::Submitted(range))), "01020401010203");
        assert_golden(&entry(EntryPayload::Normal(Command::Included(Height(4)))), "01020504");
        assert_golden(&entry(EntryPayload::Normal(Command::Activate(2))), "01020602");
        assert_golden(&entry(EntryPayload::Normal(Command::Pause(None))), "01020700");
        let paused = Command::Pause(Some("da".to_owned()));
        assert_golden(&entry(EntryPayload::Normal(paused)), "01020701026461");
        let block = BlockRecord {
            term: Term(2),
            hash: Hash([1; 32]),
            header: Header {
                height: Height(9),
                time: Timestamp(8),
                chain_id: "c".into(),
                ..Header::default()
            },
            tail: Some(signature),
            forced: ForcedPosition { da_height: DaHeight(6), tx_index: 7 },
        };
        let record = LogRecord { term: 2, content: Content::Block(Box::new(block)) };
        let golden =
            format!("01020202{ones}000009080000000000016300{}", format_args!("0109{ones}030202020607"));
        assert_golden(&record, &golden);
    }

    #[test]
    fn the_applied_state_keeps_its_bytes() {
        let applied = Applied {
            log: Some(LogIdRecord { term: 2, index: 3 }),
            tip: Tip { height: Height(4), hash: Hash([1; 32]), time: Timestamp(5), term: Term(2) },
            da: baton_messages::command::DaProgress {
                headers: Height(6),
                data: Height(7),
                included: Height(8),
                da_height: DaHeight(9),
            },
            forced: ForcedPosition { da_height: DaHeight(10), tx_index: 11 },
        };
        let ones = "01".repeat(32);
        assert_golden(&applied, &format!("0101020304{ones}0502060708090a0b"));
        assert_golden(&RangeRecord { from: Height(1), da_height: DaHeight(2) }, "010102");
        let record = SignatureRecord { hash: Hash([1; 32]), signature: Bytes::from_static(&[2; 3]) };
        assert_golden(&record, &format!("01{ones}03020202"));
    }

    #[test]
    fn openrafts_types_come_back_as_they_were() {
        for vote in [Vote::new(1, MemberId(2)), Vote::new_committed(3, MemberId(4))] {
            assert_eq!(Vote::from(VoteRecord::from(vote)), vote);
        }
        let stored = StoredMembership::new(Some(log_id(1, 2)), members());
        let back = StoredMembership::try_from(MembershipRecord::from(&stored));
        assert_eq!(back, Ok(stored));
        let none = StoredMembership::default();
        assert_eq!(StoredMembership::try_from(MembershipRecord::from(&none)), Ok(none));
    }

    #[test]
    fn keys_sort_as_their_numbers() {
        assert!(number_key(255) < number_key(256));
        assert!(body_key(Height(255), Hash([9; 32])) < body_key(Height(256), Hash([0; 32])));
        assert!(range_key(Lane::Header, Height(u64::MAX)) < range_key(Lane::Data, Height(0)));
    }
}
