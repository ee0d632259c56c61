//! The conversation with the failover supervisor.
//!
//! It alone starts and stops producers. A grant is valid for exactly one term.

use actix::Message;

use crate::types::{Grant, Height};

/// Start producing. The supervisor gives it to each producer as it spawns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct StartProducing {
    /// The permission.
    pub grant: Grant,
}

/// Stop the producers, for good or for a while. Answered when they have stopped.
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
    /// What the DA layer says, when it is in trouble.
    pub da_trouble: Option<String>,
}

/// Ask what the supervisor does now.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "SupervisorView")]
pub struct GetSupervisorView;
