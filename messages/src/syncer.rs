//! What the syncer tells: it follows the chain and keeps the engine level with it.

use actix::Message;

use crate::types::{Height, StateRoot};

/// The engine stands level with the store up to a height. The syncer tells the supervisor,
/// and the sequencer, whose clients wait for execution.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct ExecutionFollowed {
    /// The last executed height.
    pub height: Height,
    /// The state root after it.
    pub root: StateRoot,
}

/// Execution cannot go on. The syncer tells the supervisor, which stops production and, for an
/// integrity error, ends the process with code 70.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct ExecutionTrouble {
    /// Where.
    pub height: Height,
    /// What is wrong; `None` when it has passed.
    pub trouble: Option<String>,
    /// State roots differ, or the engine is damaged: a person is needed (P5).
    pub integrity: bool,
}
