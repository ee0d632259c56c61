//! What can be said to the actors that nobody outside of a node talks to, but its own parts do.

use std::fmt;

use actix::{Addr, Recipient};
use baton_messages::cluster::{HandOff, MemberTold, MembersChanged, PrepareStop};
use baton_messages::da::DaStateChanged;
use baton_messages::engine::{BlockExecuted, EngineHealthChanged};
use baton_messages::executor::ProductionChanged;
use baton_messages::raft::{Applied, LeadershipChanged, LeaseChanged, RaftHealthChanged, TermApplied};
use baton_messages::supervisor::{DiskHealthChanged, GetSupervisorView, Shutdown};
use baton_messages::syncer::{ExecutionFollowed, ExecutionTrouble};

use super::{Hears, port};

/// What can be said to a supervisor.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct SupervisorPorts {
    pub leadership: Recipient<LeadershipChanged>,
    pub term_applied: Recipient<TermApplied>,
    pub lease: Recipient<LeaseChanged>,
    pub applied: Recipient<Applied>,
    pub raft_health: Recipient<RaftHealthChanged>,
    pub told: Recipient<MemberTold>,
    pub members: Recipient<MembersChanged>,
    pub executed: Recipient<BlockExecuted>,
    pub engine_health: Recipient<EngineHealthChanged>,
    pub followed: Recipient<ExecutionFollowed>,
    pub execution_trouble: Recipient<ExecutionTrouble>,
    pub production: Recipient<ProductionChanged>,
    pub da_state: Recipient<DaStateChanged>,
    pub disk: Recipient<DiskHealthChanged>,
    pub view: Recipient<GetSupervisorView>,
    pub hand_off: Recipient<HandOff>,
    pub prepare_stop: Recipient<PrepareStop>,
    pub shutdown: Recipient<Shutdown>,
}

impl SupervisorPorts {
    /// The ports of an actor that hears all of it.
    pub fn of<A>(actor: &Addr<A>) -> Self
    where
        A: Hears<LeadershipChanged>
            + Hears<TermApplied>
            + Hears<LeaseChanged>
            + Hears<Applied>
            + Hears<RaftHealthChanged>
            + Hears<MemberTold>
            + Hears<MembersChanged>
            + Hears<BlockExecuted>
            + Hears<EngineHealthChanged>
            + Hears<ExecutionFollowed>
            + Hears<ExecutionTrouble>
            + Hears<ProductionChanged>
            + Hears<DaStateChanged>
            + Hears<DiskHealthChanged>
            + Hears<GetSupervisorView>
            + Hears<HandOff>
            + Hears<PrepareStop>
            + Hears<Shutdown>,
    {
        Self {
            leadership: port(actor),
            term_applied: port(actor),
            lease: port(actor),
            applied: port(actor),
            raft_health: port(actor),
            told: port(actor),
            members: port(actor),
            executed: port(actor),
            engine_health: port(actor),
            followed: port(actor),
            execution_trouble: port(actor),
            production: port(actor),
            da_state: port(actor),
            disk: port(actor),
            view: port(actor),
            hand_off: port(actor),
            prepare_stop: port(actor),
            shutdown: port(actor),
        }
    }
}

/// What can be said to a syncer.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct SyncerPorts {
    pub applied: Recipient<Applied>,
    pub term_applied: Recipient<TermApplied>,
}

impl SyncerPorts {
    /// The ports of an actor that hears all of it.
    pub fn of<A>(actor: &Addr<A>) -> Self
    where
        A: Hears<Applied> + Hears<TermApplied>,
    {
        Self { applied: port(actor), term_applied: port(actor) }
    }
}

/// Puts something between an actor and those who talk to it: it is given the ports of the real one
/// and returns those that the others get.
pub struct Between<T>(pub Box<dyn FnOnce(T) -> T>);

impl<T> Between<T> {
    /// By this function.
    pub fn new(between: impl FnOnce(T) -> T + 'static) -> Self {
        Self(Box::new(between))
    }
}

impl<T> fmt::Debug for Between<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Between(..)")
    }
}
