//! What the actor hears from other actors.

use actix::{ActorContext, Context, Handler, MessageResult, ResponseFuture};
use baton_messages::chain::{P2pData, P2pSignedHeader};
use baton_messages::p2p::{
    FetchByHash, FetchData, FetchError, FetchHead, FetchHeaders, Fetched, GetNetInfo, Item, NotPublished,
    Offence, PeerId, PublishBlock, PublishTail, ReportPeer,
};
use baton_messages::raft::LeadershipChanged;
use baton_messages::supervisor::Shutdown;
use baton_messages::syncer::ExecutionFollowed;
use baton_messages::types::{Grant, Height};
use baton_messages::wire::p2p::MAX_PUBSUB_RPC;
use tokio::sync::oneshot;
use tracing::{debug, info, warn};

use super::network::Command;
use super::peers::Deed;
use super::telling::{Messages, Telling};
use super::{P2p, gauge};

impl P2p {
    fn publish(&mut self, messages: Messages) -> Result<(), NotPublished> {
        let Messages { messages, too_large } = messages;
        if !messages.is_empty() && !self.tell(Command::Publish(messages)) {
            return Err(NotPublished::Network("the network adapter is overloaded".to_owned()));
        }
        match too_large {
            None => Ok(()),
            Some(bytes) => {
                self.metrics.too_large.inc();
                Err(NotPublished::TooLarge { bytes, limit: MAX_PUBSUB_RPC })
            }
        }
    }

    fn publish_tail(&mut self, below: Option<Height>) -> Result<(), NotPublished> {
        let tail = self.telling.tail(&self.library, below);
        let (messages, newest) = tail.map_err(|error| NotPublished::Network(error.to_string()))?;
        if !messages.messages.is_empty() {
            info!(newest = newest.0, blocks = messages.messages.len() / 2, "told the newest blocks again");
        }
        self.publish(messages)
    }

    fn check(&mut self, grant: Grant) -> Result<(), NotPublished> {
        Telling::check_grant(grant, self.term)?;
        self.term = grant.term;
        Ok(())
    }

    fn publish_block(&mut self, message: &PublishBlock) -> Result<(), NotPublished> {
        let PublishBlock { grant, signed, block } = message;
        self.check(*grant)?;
        let messages = self.telling.block(signed, block)?;
        let height = block.height();
        // Whoever says so has executed it.
        self.library.executed(height);
        self.library.learn(signed);
        if self.telling.is_tail_due(*grant)
            && let Err(error) = self.publish_tail(Some(height))
        {
            debug!(%error, "the blocks before are not told again");
        }
        let told = self.publish(messages);
        if told.is_ok() {
            debug!(%height, "told a block");
            self.metrics.published.inc();
            self.metrics.published_height.set(i64::try_from(height.0).unwrap_or(i64::MAX));
        }
        told
    }
}

impl Handler<PublishBlock> for P2p {
    type Result = Result<(), NotPublished>;

    fn handle(&mut self, message: PublishBlock, _: &mut Context<Self>) -> Self::Result {
        self.publish_block(&message)
    }
}

impl Handler<PublishTail> for P2p {
    type Result = Result<(), NotPublished>;

    fn handle(&mut self, message: PublishTail, _: &mut Context<Self>) -> Self::Result {
        self.check(message.grant)?;
        match self.telling.is_tail_due(message.grant) {
            true => self.publish_tail(None),
            false => Ok(()),
        }
    }
}

impl Handler<FetchHeaders> for P2p {
    type Result = ResponseFuture<Result<Fetched<P2pSignedHeader>, FetchError>>;

    fn handle(&mut self, message: FetchHeaders, _: &mut Context<Self>) -> Self::Result {
        let (reply, answer) = oneshot::channel();
        self.fetches.headers(message.from, message.count, reply);
        self.ask_on();
        self.metrics.fetches.set(gauge(self.fetches.len()));
        Box::pin(answered(answer))
    }
}

impl Handler<FetchData> for P2p {
    type Result = ResponseFuture<Result<Fetched<P2pData>, FetchError>>;

    fn handle(&mut self, message: FetchData, _: &mut Context<Self>) -> Self::Result {
        let (reply, answer) = oneshot::channel();
        self.fetches.data(message.from, message.count, reply);
        self.ask_on();
        self.metrics.fetches.set(gauge(self.fetches.len()));
        Box::pin(answered(answer))
    }
}

impl Handler<FetchHead> for P2p {
    type Result = ResponseFuture<Result<Fetched<P2pSignedHeader>, FetchError>>;

    fn handle(&mut self, _: FetchHead, _: &mut Context<Self>) -> Self::Result {
        let (reply, answer) = oneshot::channel();
        self.begin_head(reply);
        Box::pin(answered(answer))
    }
}

impl Handler<FetchByHash> for P2p {
    type Result = ResponseFuture<Result<(PeerId, Item), FetchError>>;

    fn handle(&mut self, message: FetchByHash, _: &mut Context<Self>) -> Self::Result {
        let (reply, answer) = oneshot::channel();
        self.begin_hash(message.service, message.hash, reply);
        Box::pin(answered(answer))
    }
}

async fn answered<T>(answer: oneshot::Receiver<Result<T, FetchError>>) -> Result<T, FetchError> {
    answer.await.unwrap_or_else(|_| Err(FetchError::Failed("the request was dropped".to_owned())))
}

impl Handler<ReportPeer> for P2p {
    type Result = ();

    fn handle(&mut self, message: ReportPeer, _: &mut Context<Self>) {
        let ReportPeer { peer, offence, reason } = message;
        let deed = match offence {
            Offence::Lie => {
                warn!(%peer, reason, "a peer gave what nobody honest gives");
                Deed::Lied
            }
            Offence::Useless => {
                debug!(%peer, reason, "a peer is of no use");
                Deed::HadNothing
            }
        };
        self.note(&peer, deed);
    }
}

impl Handler<GetNetInfo> for P2p {
    type Result = MessageResult<GetNetInfo>;

    fn handle(&mut self, _: GetNetInfo, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.view())
    }
}

impl Handler<LeadershipChanged> for P2p {
    type Result = ();

    fn handle(&mut self, message: LeadershipChanged, _: &mut Context<Self>) {
        self.term = self.term.max(message.term);
    }
}

impl Handler<ExecutionFollowed> for P2p {
    type Result = ();

    fn handle(&mut self, message: ExecutionFollowed, _: &mut Context<Self>) {
        self.library.executed(message.height);
    }
}

/// Leaves the network: the adapter ends with the handle on it that is dropped here.
impl Handler<Shutdown> for P2p {
    type Result = ();

    fn handle(&mut self, _: Shutdown, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}
