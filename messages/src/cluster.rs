//! What members of a cluster tell each other, and what operators ask of them.
//!
//! Members exchange their conditions every heartbeat interval, forward transactions to the leader
//! and fetch blocks from each other. Operators change the membership and hand leadership over.
//! All of it goes through the `Raft` actor, which owns the transport.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix::Message;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::chain::Block;
use crate::sequencer::Receipt;
use crate::types::{DaHeight, Hash, Height, LogIndex, Member, MemberId, Term, Tx};

/// How a member is, as it says itself; a hint that repeats every heartbeat interval.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Who says it.
    pub member: MemberId,
    /// The life of its storage.
    pub boot: u64,
    /// The term it is in.
    pub term: Term,
    /// Empty: it may produce. Otherwise every reason why not, at most eight of 200 bytes.
    pub reasons: Vec<String>,
    /// It has no engine and no key, and never produces.
    pub witness: bool,
    /// It is shutting down and will not stand.
    pub closing: bool,
    /// It leads and has stopped its heartbeats, so that others elect (hazard E3).
    pub silent: bool,
    /// It holds a grant.
    pub producing: bool,
    /// Its last applied block.
    pub tip: Height,
    /// Its last executed block.
    pub executed: Height,
    /// The last index in its log that is on its disk for good.
    pub last_log: LogIndex,
    /// The term of that entry: votes compare it before the index.
    pub last_log_term: Term,
    /// From here to its tip it has every body.
    pub first_body: Height,
    /// The newest version of log entries it can apply.
    pub command_version: u8,
    /// A hash over the settings in which members must agree (hazard D11).
    pub config: Hash,
    /// Where its RPC is reached, `host:port`; for clients, in every not-leader answer.
    pub rpc: String,
    /// Where its transaction intake is reached, `host:port`; empty when it has none.
    pub intake: String,
}

impl Condition {
    /// Whether it may produce.
    #[must_use]
    pub fn is_eligible(&self) -> bool {
        self.reasons.is_empty() && !self.witness && !self.closing
    }
}

/// Tell the other members how this one is. The supervisor asks Raft.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct TellCondition(pub Condition);

/// Another member told how it is. Raft tells the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct MemberTold {
    /// What it told.
    pub condition: Condition,
    /// Raft here has taken something from it as from a leader within the longest election
    /// time-out. Whom the stored vote names may have come back and lead nothing any more.
    pub leads: bool,
}

/// How far the DA layers of the voters are, this one's own among them. The supervisor of a leader whose
/// blocks do not come to DA asks Raft, which asks the other members.
///
/// Whoever is not in the answer has a DA layer that does not answer in time, is not reached, or is of a
/// version that does not know the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Message)]
#[rtype(result = "BTreeMap<MemberId, DaHeight>")]
pub struct AskDa;

/// The effective membership is another. Raft tells the supervisor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct MembersChanged {
    /// This member.
    pub own: MemberId,
    /// The index of the entry that says so: the config version (compare-and-set).
    pub version: LogIndex,
    /// A joint configuration: a change is on its way.
    pub joint: bool,
    /// Voters.
    pub voters: Vec<(MemberId, Member)>,
    /// Learners.
    pub learners: Vec<(MemberId, Member)>,
}

/// Whether the others take this node for a member is another. Raft tells the sequencer: what a node
/// accepts that is none, nobody takes.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct StandingChanged {
    /// The name of a member that says this node is none; `None`: it is one, as far as is known.
    pub stranger_to: Option<String>,
}

/// May this node stand for election when no leader is heard? The supervisor tells Raft.
///
/// Honoured by election time-outs only; a transfer to this node or [`Stand`] overrides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct Campaign {
    /// Whether it may.
    pub allowed: bool,
}

/// Stand for election now, with a pre-vote. The supervisor asks Raft (caretaker).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct Stand;

/// Keep sending heartbeats, or stop (E3: a leader that cannot commit must not hold its followers).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct Heartbeats {
    /// Whether they are sent.
    pub enabled: bool,
}

/// Give leadership to another voter.
///
/// Replies when a leader of a later term is known here. Admission must be closed before: there is
/// no way back after openraft's transfer. Without a new leader within two of the longest election
/// time-outs the Raft instance is rebuilt in place and `NoSuccessor` is the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Message)]
#[rtype(result = "Result<(Term, MemberId), TransferError>")]
pub struct TransferLeadership {
    /// The term this node leads.
    pub term: Term,
    /// To whom.
    pub to: MemberId,
}

/// Why leadership was not handed over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// This node does not lead that term. Nothing was done.
    #[error("this node does not lead term {0}")]
    NotLeader(Term),
    /// The target is no voter, or does not answer. Nothing was done.
    #[error("the target cannot lead: {0}")]
    Target(String),
    /// The target has not matched the last log index. Nothing was done.
    #[error("the target has not the last entry {last}, it is at {matched}")]
    Behind {
        /// The last index here.
        last: LogIndex,
        /// What the target has.
        matched: LogIndex,
    },
    /// Nobody took over in time; this node rebuilt its Raft instance and follows.
    #[error("no new leader within {0} ms; raft was restarted in place")]
    NoSuccessor(u64),
    /// Raft does not run.
    #[error("raft has stopped: {0}")]
    Stopped(String),
}

/// Hand transactions to the leader's sequencer. The sequencer asks Raft, on a node that does not
/// lead. After a time-out they may be queued there; sending them again is safe.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "Result<Vec<Receipt>, ForwardError>")]
pub struct ForwardTxs {
    /// They are for this leader: it has taken what this node accepted before them. Another one,
    /// which may lead by now without the sequencer knowing, must not get them first (B7).
    pub leader: MemberId,
    /// The transactions.
    pub txs: Vec<Tx>,
    /// None of them is in a block at or below this height: the sender has looked. The leader
    /// refuses when its replay window does not reach down to it (P3).
    pub checked: Height,
}

/// Why the leader did not take them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum ForwardError {
    /// Nobody is known to lead, or it does not answer. They stay here and are sent again.
    #[error("no leader takes transactions: {0}")]
    NoLeader(String),
    /// The leader's queue is full. They stay here and are sent again later.
    #[error("the leader's queue is full")]
    Full,
    /// They were checked below the leader's replay window: follow the chain further, then again.
    #[error("checked up to {checked}, the leader's replay window begins at {window}")]
    TooOld {
        /// What the sender said.
        checked: Height,
        /// The first height in the window.
        window: Height,
    },
    /// The leader will never take one of them.
    #[error("refused by the leader: {0}")]
    Refused(String),
}

/// Another member forwards transactions. Raft hands them to the sequencer of the leader. They are
/// durable in the leader's queue when this is answered.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "Result<Vec<Receipt>, ForwardError>")]
pub struct ForwardedTxs {
    /// Who forwards.
    pub from: MemberId,
    /// The transactions.
    pub txs: Vec<Tx>,
    /// As in [`ForwardTxs`].
    pub checked: Height,
}

/// A block with what is known about it, to fill a gap with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchedBlock {
    /// The block.
    pub block: Arc<Block>,
    /// The signature of its header.
    pub signature: Option<Bytes>,
    /// Where on DA its header and its data are.
    pub da: Option<(DaHeight, DaHeight)>,
}

/// Fetch blocks from another member, downwards from a height. The syncer asks Raft, when bodies
/// are missing here after a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Message)]
#[rtype(result = "Result<Vec<FetchedBlock>, FetchError>")]
pub struct FetchBlocks {
    /// The highest wanted height.
    pub from: Height,
    /// Its header hash.
    pub hash: Hash,
    /// At most so many bytes; one block in any case.
    pub max_bytes: usize,
    /// The lowest wanted height.
    pub down_to: Height,
    /// How often it was asked in vain: somebody else is asked first then.
    pub attempt: u32,
}

/// Why no blocks came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum FetchError {
    /// No member that answers has the block. Try again.
    #[error("no member serves block {0} now")]
    Nobody(Height),
    /// The member asked does not have it.
    #[error("the body of block {0} is not there")]
    Missing(Height),
}

/// A change of the membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberChange {
    /// Add a learner. Its storage UUID is asked of it.
    Add {
        /// Its name.
        name: String,
        /// Its advertised address.
        address: String,
    },
    /// Make learners voters, all in one joint change.
    Promote(Vec<String>),
    /// Make a voter a learner.
    Demote(String),
    /// Remove a learner or a voter.
    Remove(String),
    /// Put a learner in a voter's place, in one joint change.
    Replace {
        /// The voter to remove.
        old: String,
        /// The learner to promote.
        new: String,
    },
}

/// Change the membership. The admin socket asks Raft; the leader's Raft does it.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "Result<LogIndex, ChangeError>")]
pub struct ChangeMembers {
    /// What to change.
    pub change: MemberChange,
    /// The config version the operator has seen; `None` does not compare.
    pub version: Option<LogIndex>,
    /// Do it although it makes two voters, or a member is not level. Never overrides quorum.
    pub force: bool,
}

/// Why the membership, or an operator's pause, was not changed. Nothing was changed, unless it is
/// unconfirmed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum ChangeError {
    /// Ask the leader.
    #[error("this node does not lead; {}", leader_words(.0.as_ref()))]
    NotLeader(Option<LeaderHint>),
    /// Somebody else changed it meanwhile: look at the status again.
    #[error("the config version is {current}, not {expected}: look at `baton cluster status` again")]
    Version {
        /// What it is.
        current: LogIndex,
        /// What the operator has seen.
        expected: LogIndex,
    },
    /// A change is on its way.
    #[error("another change of the membership is on its way")]
    InProgress,
    /// It would lose quorum, or is against another rule.
    #[error("refused: {0}")]
    Refused(String),
    /// Raft failed or has no quorum; the outcome may be unknown: look at the status.
    #[error("the change was not confirmed: {0}")]
    Unconfirmed(String),
}

fn leader_words(leader: Option<&LeaderHint>) -> String {
    leader.map_or_else(|| "no leader is known".to_owned(), |leader| format!("ask {}", leader.name))
}

/// Who leads; part of every not-leader answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderHint {
    /// Its member id.
    pub id: MemberId,
    /// Its name.
    pub name: String,
    /// Its cluster address.
    pub address: String,
    /// Its RPC address, when it told one.
    pub rpc: String,
    /// Its intake address, when it told one.
    pub intake: String,
    /// The term.
    pub term: Term,
}

/// Give leadership to a voter by name, or to the best one. The admin socket and a shutdown ask the
/// supervisor. Answered when it is done or has been aborted.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "Result<HandedOff, HandOffError>")]
pub struct HandOff {
    /// To whom; `None`: the best eligible voter.
    pub to: Option<String>,
    /// Why; for log, metric and audit record.
    pub reason: String,
}

/// Leadership was handed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandedOff {
    /// Who leads now.
    pub to: String,
    /// The new term.
    pub term: Term,
}

/// Why it was not. Up to the transfer it is aborted cleanly and this node goes on producing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum HandOffError {
    /// This node does not lead.
    #[error("this node does not lead; {}", leader_words(.0.as_ref()))]
    NotLeader(Option<LeaderHint>),
    /// No voter is fit to take over: each with its reason.
    #[error("nobody can take over: {0}")]
    NoTarget(String),
    /// Another hand-off is on its way.
    #[error("a hand-off is on its way already")]
    InProgress,
    /// Aborted before the transfer; this node goes on.
    #[error("aborted: {0}")]
    Aborted(String),
    /// After the transfer nobody took over in time.
    #[error("the transfer did not succeed: {0}")]
    Failed(String),
}

/// Stop producing on whoever leads this cluster, until [`Resume`]; leadership is not touched.
///
/// The admin socket asks Raft, which puts it into the log, or asks the leader to: it holds through
/// restarts and changes of leader. Answered with its entry once that is applied on the leader; at
/// most the block that is on its way comes after it.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "Result<LogIndex, ChangeError>")]
pub struct Pause {
    /// Why.
    pub reason: String,
}

/// Produce again. As [`Pause`], on any member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Message)]
#[rtype(result = "Result<LogIndex, ChangeError>")]
pub struct Resume;

/// May this node stop? The admin socket asks the supervisor before it stops the node (hazard F8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Message)]
#[rtype(result = "Result<(), StopRefused>")]
pub struct PrepareStop {
    /// It stops whatever that means for the others.
    pub force: bool,
}

/// Why this node is needed now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopRefused {
    /// The others are no majority.
    #[error(
        "without this node {left} of {voters} voters are here and level, and {quorum} are needed: \
         the chain would stop"
    )]
    NoQuorum {
        /// Voters that are left, heard and level.
        left: usize,
        /// All voters.
        voters: usize,
        /// How many are needed.
        quorum: usize,
    },
    /// The others are a majority, and none of them may produce.
    #[error("nobody else could produce blocks: {0}")]
    NobodyProduces(String),
}

/// Ask what this node knows of the cluster.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "ClusterView")]
pub struct GetCluster;

/// The cluster as one member sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterView {
    /// The cluster's identity; `None` before this node belongs to one.
    pub cluster: Option<uuid::Uuid>,
    /// The config version.
    pub version: LogIndex,
    /// A change is on its way.
    pub joint: bool,
    /// Who leads, when known.
    pub leader: Option<LeaderHint>,
    /// The version of log entries in force.
    pub command_version: u8,
    /// Every member, this one too.
    pub members: Vec<MemberView>,
    /// What a node without a membership waits for before it belongs to a cluster.
    pub waits_for: Option<String>,
}

/// One member as another sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberView {
    /// Its id.
    pub id: MemberId,
    /// What the membership says of it.
    pub member: Member,
    /// Whether it votes.
    pub voter: bool,
    /// What it told last.
    pub condition: Option<Condition>,
    /// How long ago, milliseconds.
    pub told_ms_ago: Option<u64>,
    /// What the leader knows to be in its log. `None` on a node that does not lead.
    pub matched: Option<LogIndex>,
}

/// An operator asked for something, and this became of it. The admin socket tells the journal.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct CommandAudited {
    /// What was asked for.
    pub command: String,
    /// Whose process asked.
    pub uid: u32,
    /// Which process, where the system says it.
    pub pid: Option<i32>,
    /// What became of it.
    pub outcome: String,
}

/// The other end of a connection of the cluster transport was turned away. The transport tells
/// the journal.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct HandshakeRefused {
    /// Its address.
    pub address: String,
    /// The name it gave; empty before it gave one.
    pub name: String,
    /// In one word.
    pub cause: String,
    /// What was wrong.
    pub reason: String,
}
