//! What the executor is told and asked.

use actix::Message;

use crate::types::Term;

/// Production paused or goes on. The executor tells the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct ProductionChanged {
    /// The term of the executor's grant.
    pub term: Term,
    /// `None` produces; otherwise why it pauses.
    pub pause: Option<String>,
    /// A block is due. Not so while it waits for transactions (lazy mode), for the DA layer or
    /// for the genesis time: another leader would make none either.
    pub due: bool,
}
