//! Between the producers of a node and its Raft: whoever does not know what became of a block
//! proposes the same bytes again or none, never another one of its height (hazard A6).

use actix::{Actor, ActorFutureExt, Context, Handler, Recipient, ResponseActFuture, WrapFuture};
use baton_messages::raft::{Committed, ProposeBlock, ProposeError};
use baton_messages::types::{Grant, Hash, Height};

/// Hands proposals on and remembers the one whose outcome is not known.
pub(super) struct Proposals {
    index: usize,
    to: Recipient<ProposeBlock>,
    doubt: Option<(Grant, Height, Hash)>,
}

impl Proposals {
    pub(super) const fn new(index: usize, to: Recipient<ProposeBlock>) -> Self {
        Self { index, to, doubt: None }
    }
}

impl Actor for Proposals {
    type Context = Context<Self>;
}

impl Handler<ProposeBlock> for Proposals {
    type Result = ResponseActFuture<Self, Result<Committed, ProposeError>>;

    fn handle(&mut self, message: ProposeBlock, _: &mut Context<Self>) -> Self::Result {
        let (grant, height, hash) = (message.grant, message.block.height(), message.block.hash());
        if let Some((under, at, what)) = self.doubt {
            assert!(
                under != grant || at != height || what == hash,
                "A6: n{} proposed {hash} at height {height}, and does not know what became of {what}",
                self.index
            );
        }
        let before = self.doubt.replace((grant, height, hash));
        let asked = self.to.send(message).into_actor(self);
        Box::pin(asked.map(move |answer, this, _| {
            let answer = answer.unwrap_or_else(|error| Err(ProposeError::Unknown(error.to_string())));
            match &answer {
                Ok(_) | Err(ProposeError::Refused { .. }) => this.doubt = None,
                // Nothing was appended now: what was in doubt before still is.
                Err(ProposeError::NotLeader { .. } | ProposeError::NoQuorum) => this.doubt = before,
                Err(ProposeError::Unknown(_) | ProposeError::Stopped(_)) => {}
            }
            answer
        }))
    }
}
