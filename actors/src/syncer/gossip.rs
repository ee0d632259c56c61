//! What peers gossip: judged at once, forwarded only when it is new and right.

use std::sync::Arc;

use actix::{Context, Handler, MessageResult};
use baton_messages::follow::{Candidate, DaHint, Judged, Origin, Piece};
use baton_messages::p2p::{Gossiped, Item, Verdict};
use baton_messages::types::DaHeight;

use super::Syncer;

impl Handler<Gossiped> for Syncer {
    type Result = MessageResult<Gossiped>;

    fn handle(&mut self, message: Gossiped, ctx: &mut Context<Self>) -> Self::Result {
        let Gossiped { publisher, item, .. } = message;
        if self.follow.is_none() {
            // A member of a cluster takes blocks from its log only.
            return MessageResult(Verdict::Ignore);
        }
        let (piece, hint) = match item {
            Item::Header(header) => {
                (Piece::Header(Arc::new(header.signed.clone())), DaHeight(header.da_height_hint))
            }
            Item::Data(data) => (Piece::Data(Arc::new(data.data.clone())), DaHeight(data.da_height_hint)),
        };
        let judged = self.judge(vec![Candidate { piece, origin: Origin::Peer(publisher.0) }], ctx).pop();
        let verdict = match judged {
            // Others must see a fork too; the first header of it has been forwarded already.
            Some(Judged::New | Judged::Fork) => Verdict::Accept,
            Some(Judged::Invalid(_)) => Verdict::Reject,
            // Data that anybody may have made up are not spread.
            Some(Judged::Unproven | Judged::Known | Judged::Ignored) | None => Verdict::Ignore,
        };
        if verdict == Verdict::Accept
            && hint > DaHeight(0)
            && let Some(hints) = self.follow.as_ref().and_then(|follow| follow.hint())
        {
            hints.do_send(DaHint(hint));
        }
        self.go_on(ctx);
        MessageResult(verdict)
    }
}
