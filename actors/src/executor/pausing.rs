//! What an executor does while an operator wants no blocks: it makes none.
//!
//! Its grant holds. What is committed is signed, executed and told as ever, and goes to DA (P7). The
//! pause is read where blocks begin, from what is applied: whoever asked for it has its answer from
//! the same log.

use std::sync::Arc;

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use baton_messages::chain::Block;
use baton_messages::raft::Settle;
use tracing::{debug, warn};

use super::Executor;

impl Executor {
    /// A round that makes no block. One in doubt may be in the log: that is found out, and it is not
    /// proposed again.
    pub(super) fn begin_paused_round(&mut self, reason: &str, ctx: &mut Context<Self>) {
        self.pause(Some(format!("operator: paused: {reason}")), false);
        let Some(proposal) = self.in_doubt.clone() else {
            return self.rest(self.config.retry_after, ctx);
        };
        let settled = self.links.settle.send(Settle).timeout(self.config.reply_within).into_actor(self);
        ctx.spawn(settled.map(move |reply, this, ctx| match reply {
            Ok(()) => this.end_doubt(&proposal.block, ctx),
            Err(error) => {
                warn!(%error, "raft has not decided the last block before the pause");
                this.rest(this.config.retry_after, ctx);
            }
        }));
    }

    /// Nothing is on its way any more: what stands at its height decides.
    fn end_doubt(&mut self, block: &Arc<Block>, ctx: &mut Context<Self>) {
        match self.reader.hash(block.height()) {
            Ok(Some(hash)) if hash == block.hash() => return self.committed(block, ctx),
            Ok(Some(other)) => {
                debug!(height = block.height().0, %other, "another block stands");
                self.in_doubt = None;
                self.executed = None;
            }
            // Kept: after the pause it is proposed again, never a sibling.
            Ok(None) if self.stopping.is_empty() => {}
            Ok(None) => return self.close(),
            Err(error) => warn!(%error, "what became of the last block before the pause is not known"),
        }
        self.rest(self.config.retry_after, ctx);
    }
}
