//! The conversation with the failover supervisor.
//!
//! It alone starts and stops producers. A grant is valid for exactly one term.

use actix::Message;

use crate::types::{Grant, Height, MemberId, Term};

/// Start producing. Each producer is made for one of these, and lives as long as its grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct StartProducing {
    /// The permission.
    pub grant: Grant,
}

/// Make no further block, and finish the one that is on its way.
///
/// The supervisor asks a producer before it gives leadership away. Answered when the last proposal
/// is decided and, where the engine can, executed; from then on nothing is proposed or recorded.
/// After a time-out the producer is dropped as it is.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct StopProducing {
    /// Why; goes into log, metric and status.
    pub reason: String,
}

/// The disk has room and answers, or not. From the disk watch of the node.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct DiskHealthChanged {
    /// `None` is healthy; otherwise what is wrong.
    pub trouble: Option<String>,
}

/// Something an operator must look at, and the process must end for (exit code 70).
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct IntegrityStop {
    /// What is wrong and how to resolve it.
    pub reason: String,
}

/// End everything in order: producers first. Answered when they have stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct Shutdown;

/// How eligible this node is to produce (P6).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Eligibility {
    /// Empty is eligible; otherwise every reason why not.
    pub reasons: Vec<String>,
}

/// What the supervisor does now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SupervisorView {
    /// The grant in force.
    pub grant: Option<Grant>,
    /// The last executed height.
    pub executed: Height,
    /// Eligibility.
    pub eligibility: Eligibility,
    /// Why nothing is produced although this node leads.
    pub pause: Option<String>,
    /// Why an operator has stopped production, on whoever leads.
    pub paused: Option<String>,
    /// It leads, and no quorum acknowledges that now.
    pub lease_lapsed: bool,
    /// It leads without being fit to produce, until somebody who is can take over (P6).
    pub caretaker: bool,
    /// Why it has stopped its heartbeats, when it has.
    pub silent: Option<String>,
    /// The hand-over that is on its way.
    pub hand_over: Option<String>,
    /// The last change of leader after which blocks were made.
    pub last_failover: Option<Failover>,
    /// What the DA layer says, when it is in trouble.
    pub da_trouble: Option<String>,
}

/// A change of leader as this member saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failover {
    /// The term of the new leader.
    pub term: Term,
    /// Why there was another one: `start`, `hand-off`, `silent` or `lost`.
    pub cause: &'static str,
    /// From the last sign of the old leader to the first block of the new one, milliseconds.
    pub took_ms: u64,
}

/// A leader is known, in a term in which none was known here before. The supervisor tells whoever
/// keeps the record; once per term and leader in the life of a process.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct LeadershipAudited {
    /// The term.
    pub term: Term,
    /// Who leads it.
    pub leader: MemberId,
    /// Why it is another one: `start`, `hand-off`, `silent` or `lost`.
    pub cause: &'static str,
}

/// Ask what the supervisor does now.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "SupervisorView")]
pub struct GetSupervisorView;
