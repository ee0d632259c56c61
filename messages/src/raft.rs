//! The conversation with Raft.
//!
//! The executor proposes blocks, the DA submitter and the executor record what became of
//! them. Raft tells everybody what was applied and who leads.

use std::sync::Arc;

use actix::Message;

use crate::chain::Block;
use crate::command::{Command, ForcedPosition, HeaderSignature, Refusal};
use crate::types::{Grant, LogIndex, Member, MemberId, Role, Term, Tip};

/// Replicate a block and reply once a quorum holds it and it is applied here.
///
/// The executor asks Raft; one proposal is in flight at a time. After `Unknown` or a timeout
/// the block may still be committed: learn the tip, then propose the same bytes or none.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Committed, ProposeError>")]
pub struct ProposeBlock {
    /// The term in which the proposer may produce.
    pub grant: Grant,
    /// The block to agree on.
    pub block: Arc<Block>,
    /// The signature of the block before, if it is not in the log yet.
    pub tail: Option<HeaderSignature>,
    /// The forced-inclusion position after the block.
    pub forced: ForcedPosition,
}

/// The block stands in the chain: it survives the loss of any minority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The block's place, now the tip.
    pub tip: Tip,
    /// The log entry that carried it.
    pub index: LogIndex,
}

/// Why a proposal has no success to report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Nothing was stored, signed or told to anyone: refused before the append.
    #[error("rejected before the append in term {term}: {reason}")]
    NotLeader {
        /// The term Raft is in.
        term: Term,
        /// Why.
        reason: String,
    },
    /// The log holds something else; the proposal does not extend the tip.
    #[error("refused by apply ({refusal:?}): the tip is {tip}")]
    Refused {
        /// Which rule.
        refusal: Refusal,
        /// The last committed block.
        tip: Tip,
    },
    /// The leader's lease is over; try again when a quorum answers.
    #[error("no quorum acknowledges this leader now")]
    NoQuorum,
    /// It may or may not be committed. Learn the tip before anything else.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
    /// Raft has stopped on a storage error.
    #[error("raft has stopped: {0}")]
    Stopped(String),
}

/// Put a record other than a block into the log.
///
/// Replies when it is applied here. Idempotent: repeating a record changes nothing.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), ProposeError>")]
pub struct Record {
    /// The term in which the caller may produce.
    pub grant: Grant,
    /// A signature, a submitted range or an inclusion.
    pub command: Command,
}

/// Reply when no proposal is in flight any more.
///
/// A new executor asks before it looks at the tip: what the one before proposed is decided then,
/// and no sibling of it is built (hazard A6).
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Settle;

/// The role or the term of this node changed. Raft tells the supervisor; changes may coalesce.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct LeadershipChanged {
    /// The term.
    pub term: Term,
    /// What this node is in it.
    pub role: Role,
    /// Who leads, when known.
    pub leader: Option<MemberId>,
}

/// The first own entry of this term is applied here: everything committed before it is too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct TermApplied {
    /// The term this node leads.
    pub term: Term,
    /// The tip then.
    pub tip: Tip,
}

/// A quorum acknowledges this leader, or stopped doing so (its lease lapsed).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct LeaseChanged {
    /// The term.
    pub term: Term,
    /// Whether the lease holds.
    pub held: bool,
}

/// The store grew or learned something: a hint without a body. Read the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct Applied {
    /// The tip now.
    pub tip: Tip,
}

/// Blocks were applied here, each with the entry that carried it. Raft tells who keeps a record;
/// what is lost on the way shows as a gap, and is read from the store.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct BlocksApplied {
    /// In the order of the log.
    pub blocks: Vec<(LogIndex, Tip)>,
}

/// Raft has stopped, or runs again. Told to the supervisor (P8).
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct RaftHealthChanged {
    /// `None` runs; otherwise why it stopped.
    pub trouble: Option<String>,
}

/// Ask what Raft knows now.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "RaftView")]
pub struct GetRaftView;

/// What Raft knows, taken from the live instance when asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RaftView {
    /// This member.
    pub id: MemberId,
    /// Its role.
    pub role: Role,
    /// The term.
    pub term: Term,
    /// Who leads, when known.
    pub leader: Option<(MemberId, Member)>,
    /// The last log index here.
    pub last_log: LogIndex,
    /// The last index known to be committed.
    pub committed: LogIndex,
    /// The last index applied here.
    pub applied: LogIndex,
    /// Voters.
    pub voters: Vec<(MemberId, Member)>,
    /// Learners.
    pub learners: Vec<(MemberId, Member)>,
}
