//! What the executor is told and asked.

use actix::Message;

use crate::types::Height;

/// Ask the producer how it is doing. Answered by the executor of the current grant.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "ProducerView")]
pub struct GetProducerView;

/// Why no block is being made, when none is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerView {
    /// The last height this producer saw committed.
    pub height: Height,
    /// `None` produces; otherwise why it pauses.
    pub pause: Option<String>,
}

/// Production paused or goes on. The executor tells the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct ProductionChanged {
    /// The term of the executor's grant.
    pub term: crate::types::Term,
    /// `None` produces; otherwise why it pauses.
    pub pause: Option<String>,
    /// A block is due. Not so while it waits for transactions (lazy mode), for the DA layer or
    /// for the genesis time: another leader would make none either.
    pub due: bool,
}
