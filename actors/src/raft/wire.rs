//! What members say to each other, in bytes: own records behind the versioned codec.
//!
//! openraft's layouts are not stable between its versions, so nothing of openraft's is sent. A
//! change of any type here changes golden bytes and needs a new format version: nodes of two
//! versions talk to each other while an upgrade rolls through.

use baton_messages::cluster::{ChangeError, Condition, FetchError, FetchedBlock, ForwardError, LeaderHint};
use baton_messages::codec::{self, CodecError};
use baton_messages::command::Command;
use baton_messages::sequencer::Receipt;
use baton_messages::types::{DaHeight, Hash, Height, LogIndex, Member, MemberId, Tx};
use baton_storage::raft_types::{Entry, Membership, Payload, TypeConfig};
use baton_storage::{Head, LogIdRecord, MembersRecord, VoteRecord};
use bytes::Bytes;
use openraft::EntryPayload;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest, VoteRequest,
    VoteResponse,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Most reasons a condition may carry.
const MAX_REASONS: usize = 8;
/// Most bytes of each.
const MAX_REASON: usize = 200;

/// A question to another member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// One of Raft's own calls.
    Raft(RaftCall),
    /// How the caller is. Answered with [`Answer::Taken`].
    Condition(Condition),
    /// Transactions for the leader's queue.
    Forward {
        /// The transactions.
        txs: Vec<Tx>,
        /// None of them is in a block at or below this height.
        checked: Height,
    },
    /// Blocks, downwards from a height.
    Fetch {
        /// The highest.
        from: Height,
        /// Its header hash.
        hash: Hash,
        /// Most bytes; one block in any case.
        max_bytes: u64,
        /// The lowest.
        down_to: Height,
    },
    /// Who are you?
    Identify,
    /// The caller asks to become a learner.
    Join {
        /// As it should stand in the membership; its storage must be the caller's.
        member: Member,
    },
    /// An operator asked the caller to stop production, or to let it go on.
    Pause {
        /// Why; `None` lets it go on.
        reason: Option<String>,
    },
    /// Where the caller's peer-to-peer network is reached, a multiaddress. Answered with
    /// [`Answer::Taken`].
    Peer {
        /// Ends in `/p2p/<id>`.
        address: String,
    },
    /// How many accepted transactions does the member hold? A leader asks that is to remove it.
    Accepted,
    /// How far is your DA layer? The caller leads, and its blocks do not come to its own.
    DaHead,
}

impl Request {
    /// The word in logs and metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Raft(call) => call.call.name(),
            Self::Condition(_) => "condition",
            Self::Forward { .. } => "forward",
            Self::Fetch { .. } => "fetch",
            Self::Identify => "identify",
            Self::Join { .. } => "join",
            Self::Pause { .. } => "pause",
            Self::Peer { .. } => "peer",
            Self::Accepted => "accepted",
            Self::DaHead => "da_head",
        }
    }
}

/// One of Raft's own calls, and in which cluster it is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftCall {
    /// The caller's cluster. A connection may be older than the caller's membership, so the
    /// handshake cannot say it.
    pub cluster: Uuid,
    /// The call.
    pub call: Call,
}

/// Raft's own calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Call {
    /// Asks for a vote.
    Vote(Ballot),
    /// Asks whether a vote would be given.
    PreVote(Ballot),
    /// Entries, or a heartbeat.
    Append(Append),
    /// A snapshot: an encoded [`Head`].
    Snapshot {
        /// The leader's vote.
        vote: VoteRecord,
        /// The head.
        head: Bytes,
    },
    /// The leader hands over.
    Transfer {
        /// The leader's vote.
        from: VoteRecord,
        /// To whom.
        to: MemberId,
        /// What the new leader must have.
        last: Option<LogIdRecord>,
    },
}

impl Call {
    /// The word in logs and metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Vote(_) => "vote",
            Self::PreVote(_) => "pre-vote",
            Self::Append(_) => "append",
            Self::Snapshot { .. } => "snapshot",
            Self::Transfer { .. } => "transfer",
        }
    }

    /// In whose name it speaks: a candidate, or the leader of a term.
    #[must_use]
    pub const fn speaker(&self) -> MemberId {
        match self {
            Self::Vote(ballot) | Self::PreVote(ballot) => ballot.vote.voted_for,
            Self::Append(append) => append.vote.voted_for,
            Self::Snapshot { vote, .. } => vote.voted_for,
            Self::Transfer { from, .. } => from.voted_for,
        }
    }
}

/// A candidate and its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ballot {
    /// The vote it asks for.
    pub vote: VoteRecord,
    /// The end of its log.
    pub last: Option<LogIdRecord>,
    /// The leader told it to stand: leases do not count.
    pub transfer: bool,
}

/// Entries to append.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Append {
    /// The leader's vote.
    pub vote: VoteRecord,
    /// What must stand before the entries.
    pub previous: Option<LogIdRecord>,
    /// What the leader knows to be committed.
    pub committed: Option<LogIdRecord>,
    /// The entries.
    pub entries: Vec<Record>,
}

/// A log entry with everything in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its identity.
    pub id: LogIdRecord,
    /// What it holds.
    pub content: Content,
}

/// What an entry holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// Nothing: a new leader's first entry.
    Blank,
    /// A membership.
    Membership(MembersRecord),
    /// A command.
    Command(Command),
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To a vote or a pre-vote.
    Vote {
        /// The vote there is now.
        vote: VoteRecord,
        /// Whether it was given.
        granted: bool,
        /// The end of the log there.
        last: Option<LogIdRecord>,
    },
    /// To an append.
    Append(Appended),
    /// To a snapshot: the vote there is now.
    Snapshot(VoteRecord),
    /// To a transfer.
    Transfer(Result<(), TransferRefusal>),
    /// To a condition.
    Taken,
    /// To forwarded transactions.
    Forward(Result<Vec<Receipt>, ForwardError>),
    /// To a fetch.
    Fetch(Result<Vec<FetchedBlock>, FetchError>),
    /// To "who are you".
    Identity(Identity),
    /// To a wish to join.
    Join(Result<(), JoinRefusal>),
    /// To a pause: the entry.
    Pause(Result<LogIndex, ChangeError>),
    /// To the question what is accepted: how many, when it can be read now.
    Accepted(Option<u64>),
    /// To the question about DA; `None`: there is no DA layer, or it does not answer in time.
    DaHead(Option<DaHeight>),
}

/// What became of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Appended {
    /// They are durable there.
    Success,
    /// Those up to here are.
    Partial(Option<LogIdRecord>),
    /// What must stand before them does not.
    Conflict,
    /// There is a higher vote.
    HigherVote(VoteRecord),
}

/// Why a member does not take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransferRefusal {
    /// The term is over.
    VoteChanged {
        /// What the call says.
        expected: VoteRecord,
        /// What there is.
        actual: VoteRecord,
    },
    /// Its log is not there yet.
    NotFlushed {
        /// What it must have.
        expected: Option<LogIdRecord>,
        /// What it has.
        actual: Option<LogIdRecord>,
    },
}

/// Who somebody is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// As it says it should stand in a membership.
    pub member: Member,
    /// The cluster it belongs to.
    pub cluster: Option<Uuid>,
    /// It has a membership.
    pub initialised: bool,
    /// Who leads, when it knows.
    pub leader: Option<LeaderHint>,
    /// The names with which it wants to form a cluster, sorted; empty when it does not.
    pub forming: Vec<String>,
}

/// Why somebody did not become a learner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinRefusal {
    /// Ask the leader.
    NotLeader(Option<LeaderHint>),
    /// Not now: another change is on its way, or there is no quorum.
    Later(String),
    /// An operator must do something first.
    Refused(String),
}

/// Encodes a question or an answer.
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Bytes {
    codec::encode(value).into()
}

/// Decodes a question; what is too much in it is cut off.
///
/// # Errors
///
/// `CodecError` when it is none.
pub fn request(bytes: &[u8]) -> Result<Request, CodecError> {
    let mut request = codec::decode(bytes)?;
    if let Request::Condition(condition) = &mut request {
        condition.reasons.truncate(MAX_REASONS);
        for reason in &mut condition.reasons {
            let mut end = reason.len().min(MAX_REASON);
            while !reason.is_char_boundary(end) {
                end -= 1;
            }
            reason.truncate(end);
        }
    }
    Ok(request)
}

/// Decodes an answer.
///
/// # Errors
///
/// `CodecError` when it is none.
pub fn answer(bytes: &[u8]) -> Result<Answer, CodecError> {
    codec::decode(bytes)
}

/// An entry as it is sent.
#[must_use]
pub fn record_of(entry: Entry) -> Record {
    let content = match entry.payload {
        EntryPayload::Blank => Content::Blank,
        EntryPayload::Membership(membership) => Content::Membership((&membership).into()),
        EntryPayload::Normal(command) => Content::Command(command),
    };
    Record { id: entry.log_id.into(), content }
}

/// An entry as it was sent.
///
/// # Errors
///
/// Why its membership contradicts itself.
pub fn entry_of(record: Record) -> Result<Entry, String> {
    let payload: Payload = match record.content {
        Content::Blank => EntryPayload::Blank,
        Content::Membership(members) => {
            let membership = Membership::try_from(members).map_err(|error| error.to_string())?;
            EntryPayload::Membership(membership)
        }
        Content::Command(command) => EntryPayload::Normal(command),
    };
    Ok(Entry { log_id: record.id.into(), payload })
}

impl From<VoteRequest<TypeConfig>> for Ballot {
    fn from(request: VoteRequest<TypeConfig>) -> Self {
        Self {
            vote: request.vote.into(),
            last: request.last_log_id.map(Into::into),
            transfer: request.leadership_transfer,
        }
    }
}

impl From<Ballot> for VoteRequest<TypeConfig> {
    fn from(ballot: Ballot) -> Self {
        let mut request = Self::new(ballot.vote.into(), ballot.last.map(Into::into));
        request.leadership_transfer = ballot.transfer;
        request
    }
}

impl From<VoteResponse<TypeConfig>> for Answer {
    fn from(response: VoteResponse<TypeConfig>) -> Self {
        Self::Vote {
            vote: response.vote.into(),
            granted: response.vote_granted,
            last: response.last_log_id.map(Into::into),
        }
    }
}

impl From<AppendEntriesRequest<TypeConfig>> for Append {
    fn from(request: AppendEntriesRequest<TypeConfig>) -> Self {
        Self {
            vote: request.vote.into(),
            previous: request.prev_log_id.map(Into::into),
            committed: request.leader_commit.map(Into::into),
            entries: request.entries.into_iter().map(record_of).collect(),
        }
    }
}

impl TryFrom<Append> for AppendEntriesRequest<TypeConfig> {
    type Error = String;

    fn try_from(append: Append) -> Result<Self, String> {
        Ok(Self {
            vote: append.vote.into(),
            prev_log_id: append.previous.map(Into::into),
            entries: append.entries.into_iter().map(entry_of).collect::<Result<_, _>>()?,
            leader_commit: append.committed.map(Into::into),
        })
    }
}

impl From<AppendEntriesResponse<TypeConfig>> for Appended {
    fn from(response: AppendEntriesResponse<TypeConfig>) -> Self {
        match response {
            AppendEntriesResponse::Success => Self::Success,
            AppendEntriesResponse::PartialSuccess(to) => Self::Partial(to.map(Into::into)),
            AppendEntriesResponse::Conflict => Self::Conflict,
            AppendEntriesResponse::HigherVote(vote) => Self::HigherVote(vote.into()),
        }
    }
}

impl From<Appended> for AppendEntriesResponse<TypeConfig> {
    fn from(appended: Appended) -> Self {
        match appended {
            Appended::Success => Self::Success,
            Appended::Partial(to) => Self::PartialSuccess(to.map(Into::into)),
            Appended::Conflict => Self::Conflict,
            Appended::HigherVote(vote) => Self::HigherVote(vote.into()),
        }
    }
}

impl From<TransferLeaderRequest<TypeConfig>> for Call {
    fn from(request: TransferLeaderRequest<TypeConfig>) -> Self {
        Self::Transfer {
            from: (*request.from_leader()).into(),
            to: *request.to_node_id(),
            last: request.last_log_id().copied().map(Into::into),
        }
    }
}

impl From<TransferLeaderError<TypeConfig>> for TransferRefusal {
    fn from(error: TransferLeaderError<TypeConfig>) -> Self {
        match error {
            TransferLeaderError::VoteChanged { expected, actual } => {
                Self::VoteChanged { expected: expected.into(), actual: actual.into() }
            }
            TransferLeaderError::LogNotFlushed { expected, actual } => {
                Self::NotFlushed { expected: expected.map(Into::into), actual: actual.map(Into::into) }
            }
        }
    }
}

impl From<TransferRefusal> for TransferLeaderError<TypeConfig> {
    fn from(refusal: TransferRefusal) -> Self {
        match refusal {
            TransferRefusal::VoteChanged { expected, actual } => {
                Self::VoteChanged { expected: expected.into(), actual: actual.into() }
            }
            TransferRefusal::NotFlushed { expected, actual } => {
                Self::LogNotFlushed { expected: expected.map(Into::into), actual: actual.map(Into::into) }
            }
        }
    }
}

/// A snapshot as it is sent.
#[must_use]
pub fn head_bytes(head: &Head) -> Bytes {
    head.encode().into()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fmt::Debug;

    use baton_messages::types::Term;
    use baton_storage::raft_types::log_id;
    use serde::de::DeserializeOwned;

    use super::*;

    fn golden<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T, expected: &str) {
        assert_eq!(hex::encode(encode(value)), expected, "{value:?}");
        let bytes = hex::decode(expected).expect("hexadecimal");
        assert_eq!(codec::decode::<T>(&bytes).as_ref(), Ok(value));
    }

    const CLUSTER: Uuid = Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);

    fn raft(call: Call) -> Request {
        Request::Raft(RaftCall { cluster: CLUSTER, call })
    }

    fn vote() -> VoteRecord {
        VoteRecord { term: 3, voted_for: MemberId(5), committed: true }
    }

    fn id(term: u64, index: u64) -> LogIdRecord {
        LogIdRecord { term, index }
    }

    const RAFT: &str = "0100100102030405060708090a0b0c0d0e0f10";

    #[test]
    fn raft_calls_keep_their_bytes() {
        let ballot = Ballot { vote: vote(), last: Some(id(2, 9)), transfer: true };
        golden(&raft(Call::Vote(ballot)), &format!("{RAFT}0003050101020901"));
        golden(&raft(Call::PreVote(ballot)), &format!("{RAFT}0103050101020901"));
        let members = MembersRecord {
            configs: vec![BTreeSet::from([MemberId(1)])],
            nodes: BTreeMap::from([(MemberId(1), Member { name: "a".into(), ..Member::default() })]),
        };
        let content =
            [Content::Blank, Content::Membership(members), Content::Command(Command::Included(Height(4)))];
        let entries = content
            .into_iter()
            .zip(10..)
            .map(|(content, index)| Record { id: id(3, index), content })
            .collect();
        let append = Append { vote: vote(), previous: Some(id(2, 9)), committed: None, entries };
        let nil = "00".repeat(16);
        golden(
            &raft(Call::Append(append)),
            &format!(
                "{RAFT}0203050101020900\
                03030a00030b0101010101010161\
                0010{nil}00030c020304"
            ),
        );
        let snapshot = Call::Snapshot { vote: vote(), head: Bytes::from_static(&[7, 8]) };
        golden(&raft(snapshot), &format!("{RAFT}03030501020708"));
        let transfer = Call::Transfer { from: vote(), to: MemberId(6), last: None };
        golden(&raft(transfer), &format!("{RAFT}040305010600"));
    }

    #[test]
    fn other_questions_keep_their_bytes() {
        let condition = Condition {
            member: MemberId(1),
            boot: 2,
            term: Term(3),
            reasons: vec!["r".into()],
            witness: true,
            closing: false,
            silent: false,
            producing: true,
            tip: Height(4),
            executed: Height(5),
            last_log: LogIndex(6),
            last_log_term: Term(11),
            first_body: Height(7),
            command_version: 8,
            config: Hash([9; 32]),
            rpc: "h:1".into(),
            intake: "h:2".into(),
        };
        let nines = "09".repeat(32);
        let expected =
            format!("0101010203010172010000010405060b0708{nines}03683a3103683a32").replace(' ', "");
        golden(&Request::Condition(condition), &expected);
        let forward = Request::Forward { txs: vec![Tx(Bytes::from_static(b"a"))], checked: Height(3) };
        golden(&forward, "010201016103");
        let fetch =
            Request::Fetch { from: Height(9), hash: Hash([9; 32]), max_bytes: 300, down_to: Height(1) };
        golden(&fetch, &format!("010309{nines}fb2c0101"));
        golden(&Request::Identify, "0104");
        let nil = "00".repeat(16);
        golden(&Request::Join { member: Member::default() }, &format!("0105000010{nil}00"));
        golden(&Request::Pause { reason: None }, "010600");
        golden(&Request::Pause { reason: Some("da".to_owned()) }, "010601026461");
        golden(&Request::Peer { address: "/p2p/a".to_owned() }, "0107062f7032702f61");
        golden(&Request::Accepted, "0108");
        golden(&Request::DaHead, "0109");
    }

    #[test]
    fn answers_keep_their_bytes() {
        golden(&Answer::Vote { vote: vote(), granted: true, last: None }, "01000305010100");
        golden(&Answer::Append(Appended::Success), "010100");
        golden(&Answer::Append(Appended::Partial(Some(id(2, 9)))), "010101010209");
        golden(&Answer::Append(Appended::Conflict), "010102");
        golden(&Answer::Append(Appended::HigherVote(vote())), "010103030501");
        golden(&Answer::Snapshot(vote()), "0102030501");
        golden(&Answer::Transfer(Ok(())), "010300");
        let refusal = TransferRefusal::VoteChanged { expected: vote(), actual: vote() };
        golden(&Answer::Transfer(Err(refusal)), "01030100030501030501");
        let refusal = TransferRefusal::NotFlushed { expected: None, actual: Some(id(1, 1)) };
        golden(&Answer::Transfer(Err(refusal)), "0103010100010101");
        golden(&Answer::Taken, "0104");
        golden(&Answer::Forward(Err(ForwardError::Full)), "01050101");
        golden(&Answer::Forward(Ok(vec![])), "01050000");
        golden(&Answer::Fetch(Err(FetchError::Missing(Height(4)))), "0106010104");
        let nil = "00".repeat(16);
        golden(&Answer::Identity(Identity::default()), &format!("0107000010{nil}0000000000"));
        golden(&Answer::Join(Ok(())), "010800");
        golden(&Answer::Join(Err(JoinRefusal::NotLeader(None))), "0108010000");
        golden(&Answer::Join(Err(JoinRefusal::Later("a".into()))), "010801010161");
        golden(&Answer::Join(Err(JoinRefusal::Refused("a".into()))), "010801020161");
        golden(&Answer::Pause(Ok(LogIndex(7))), "01090007");
        golden(&Answer::Pause(Err(ChangeError::NotLeader(None))), "0109010000");
        golden(&Answer::Accepted(Some(3)), "010a0103");
        golden(&Answer::Accepted(None), "010a00");
        golden(&Answer::DaHead(None), "010b00");
        golden(&Answer::DaHead(Some(DaHeight(7))), "010b0107");
    }

    /// A block that a member could not read would never be committed, and anybody can force one.
    #[test]
    fn the_largest_block_there_can_be_is_read_whatever_its_transactions_are() {
        use baton_messages::chain::{Block, Data, Header};
        use baton_messages::codec::{MAX_BLOCK_BYTES, MAX_ENCODED};
        use baton_messages::command::BlockEntry;
        use baton_messages::wire::p2p::MAX_TXS;

        let entry = |count: usize, bytes: usize| {
            let txs = vec![Tx(Bytes::from(vec![7; bytes / count])); count];
            let block = Block::shared(Header::default(), Data { metadata: None, txs });
            let content = Content::Command(Command::Block(BlockEntry {
                term: Term(3),
                block,
                tail: None,
                forced: Default::default(),
            }));
            let entries = vec![Record { id: id(3, 10), content }];
            raft(Call::Append(Append { vote: vote(), previous: None, committed: None, entries }))
        };
        for count in [1, MAX_TXS] {
            let sent = encode(&entry(count, MAX_BLOCK_BYTES));
            assert!(sent.len() <= MAX_ENCODED, "{count} transactions are {} bytes", sent.len());
            assert!(request(&sent).is_ok(), "{count} transactions of {MAX_BLOCK_BYTES} bytes together");
        }
        assert!(request(&encode(&entry(1, MAX_ENCODED))).is_err(), "more than that nobody reads");
    }

    #[test]
    fn an_entry_is_the_same_after_it_was_sent() {
        let nodes = BTreeMap::from([(MemberId(1), Member::default()), (MemberId(2), Member::default())]);
        let membership = Membership::new(vec![BTreeSet::from([MemberId(1)])], nodes).expect("coherent");
        for payload in [
            EntryPayload::Blank,
            EntryPayload::Membership(membership),
            EntryPayload::Normal(Command::Activate(2)),
        ] {
            let entry = Entry { log_id: log_id(2, 3), payload };
            assert_eq!(entry_of(record_of(entry.clone())), Ok(entry));
        }
    }

    #[test]
    fn a_membership_that_contradicts_itself_is_refused() {
        let members = MembersRecord { configs: vec![BTreeSet::from([MemberId(1)])], nodes: BTreeMap::new() };
        let record = Record { id: id(1, 1), content: Content::Membership(members) };
        assert!(entry_of(record).is_err());
    }

    #[test]
    fn a_condition_with_too_much_in_it_is_cut() {
        let reasons = vec!["ä".repeat(150); 20];
        let bytes = encode(&Request::Condition(Condition { reasons, ..Condition::default() }));
        let Ok(Request::Condition(condition)) = request(&bytes) else { panic!("a condition") };
        assert_eq!(condition.reasons, vec!["ä".repeat(100); 8]);
    }

    #[test]
    fn arbitrary_bytes_are_an_error_and_no_panic() {
        let bytes = encode(&Request::Join { member: Member::default() });
        for end in 0..bytes.len() {
            assert!(request(&bytes[..end]).is_err());
        }
        for flipped in 0..bytes.len() {
            let mut bytes = bytes.to_vec();
            bytes[flipped] ^= 0xff;
            let _ = request(&bytes);
        }
    }
}
