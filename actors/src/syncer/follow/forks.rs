//! Two headers of the proposer that cannot both be in one chain.
//!
//! Both are kept. A node that executes goes on with the first and makes nothing final from there on;
//! a light node, which has nothing but the proposer's word, takes no further header.

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use baton_messages::chain::SignedHeader;
use baton_messages::follow::{ForkFound, Origin};
use baton_messages::types::Tip;
use baton_storage::Evidence;
use tracing::{error, warn};

use super::super::{Error, Syncer};

/// What is said of a fork, and what to do.
#[must_use]
pub fn said(evidence: &Evidence, headers_only: bool) -> String {
    let height = evidence.height;
    let consequence = match headers_only {
        false => format!("nothing from height {height} on becomes final here"),
        true => "no further header is taken here".to_owned(),
    };
    format!(
        "the proposer signed two chains, which fork at height {height}: {} ({}) and {} ({}) at heights {} and {}; \
         {consequence}; find out which one is the chain's before you trust either",
        evidence.first.header.hash(),
        evidence.first_from,
        evidence.second.header.hash(),
        evidence.second_from,
        evidence.first.header.height,
        evidence.second.header.height,
    )
}

impl Syncer {
    /// The proposer went on from another block than the one that stands here.
    pub(super) fn end_at_fork(
        &mut self,
        second: &SignedHeader,
        from: &Origin,
        tip: Tip,
        reason: String,
        ctx: &mut Context<Self>,
    ) {
        let Some(follow) = &mut self.follow else { return };
        let first = self.reader.signed_header(tip.height, &follow.record.signer);
        let first = first.ok().flatten().unwrap_or_default();
        let evidence = Evidence {
            height: tip.height,
            first,
            first_from: "the chain here".to_owned(),
            second: second.clone(),
            second_from: from.to_string(),
            found: follow.world.wall(),
        };
        let goes_on_without = follow.is_headers_only();
        self.keep(evidence, ctx);
        // Where only headers are kept, following stops at any fork and the node stays up.
        if !goes_on_without {
            self.end_in_trouble(&Error::OtherParent { height: second.header.height, reason });
        }
    }

    /// Keeps evidence, stops finality below it, or following where only headers are kept, and tells.
    pub(super) fn keep(&mut self, evidence: Evidence, ctx: &mut Context<Self>) {
        let Some(follow) = &mut self.follow else { return };
        let height = evidence.height;
        follow.forked_at = Some(follow.forked_at.map_or(height, |known| known.min(height)));
        let reason = said(&evidence, follow.is_headers_only());
        error!(%reason, "a fork");
        let (writer, reader, metrics) = (follow.writer.clone(), self.reader.clone(), follow.metrics.clone());
        let (forks, told) = (follow.links.forks.clone(), ForkFound { height, reason });
        let kept = async move {
            let kept = writer.keep_evidence(evidence).await;
            metrics.forks.set(i64::try_from(reader.evidence().len()).unwrap_or(i64::MAX));
            // Told also when it cannot be kept: a person is needed more than ever then.
            for fork in &forks {
                fork.do_send(told.clone());
            }
            kept
        };
        ctx.spawn(kept.into_actor(self).map(|kept, _, _| {
            if let Err(error) = kept {
                warn!(%error, "evidence of a fork was not kept");
            }
        }));
    }
}
