//! What the sequencer hears.

use actix::{Actor, AsyncContext, Context, Handler, MessageResult, ResponseFuture};
use baton_messages::cluster::{ForwardError, ForwardedTxs, StandingChanged};
use baton_messages::engine::BlockExecuted;
use baton_messages::mutation::{Mutation, planted};
use baton_messages::raft::{Applied, LeadershipChanged};
use baton_messages::sequencer::{
    AwaitError, AwaitTx, AwaitTxs, Batch, CountAccepted, DropTxs, GetQueueView, Level, NextBatch, Outcome,
    PostTxs, Posted, QueueView, Receipt, SubmitError, SubmitTxs,
};
use baton_messages::supervisor::DiskHealthChanged;
use baton_messages::syncer::ExecutionFollowed;
use baton_messages::types::{Role, Tx};
use tokio::sync::oneshot;
use tracing::{debug, info, warn};

use super::metrics::Cause;
use super::{MAX_IDLE, Sequencer, forward};

impl Handler<SubmitTxs> for Sequencer {
    type Result = ResponseFuture<Result<Vec<Receipt>, SubmitError>>;

    fn handle(&mut self, message: SubmitTxs, ctx: &mut Context<Self>) -> Self::Result {
        let posted = self.submit(message.txs, None, ctx);
        Box::pin(async move { Ok(posted.await?.receipts) })
    }
}

impl Handler<PostTxs> for Sequencer {
    type Result = ResponseFuture<Result<Posted, SubmitError>>;

    fn handle(&mut self, message: PostTxs, ctx: &mut Context<Self>) -> Self::Result {
        self.submit(message.txs, message.since, ctx)
    }
}

impl Handler<ForwardedTxs> for Sequencer {
    type Result = ResponseFuture<Result<Vec<Receipt>, ForwardError>>;

    /// Whether this node leads is Raft's to know: what it takes by mistake it forwards itself.
    fn handle(&mut self, message: ForwardedTxs, ctx: &mut Context<Self>) -> Self::Result {
        let ForwardedTxs { from, txs, checked } = message;
        let window = self.window_begins();
        if checked < window.previous() {
            let error = ForwardError::TooOld { checked, window };
            self.metrics.take_over_failures.get_or_create(&Cause { cause: forward::cause(&error) }).inc();
            return Box::pin(std::future::ready(Err(error)));
        }
        let (mut fresh, mut refused) = (Vec::with_capacity(txs.len()), Vec::with_capacity(txs.len()));
        for tx in txs {
            let hash = tx.hash();
            let reason = if self.is_known(&hash) { None } else { self.refusals.tell(&hash) };
            if reason.is_none() {
                fresh.push(tx);
            }
            refused.push(reason.map(|reason| Receipt::Dropped(hash, reason)));
        }
        debug!(%from, txs = fresh.len(), refused = refused.len() - fresh.len(), "takes transactions over");
        let taken_over = self.take_over(fresh, ctx);
        Box::pin(async move {
            let mut taken = taken_over.await?.into_iter();
            Ok(refused.into_iter().filter_map(|refused| refused.or_else(|| taken.next())).collect())
        })
    }
}

impl Sequencer {
    fn take_over(
        &mut self,
        txs: Vec<Tx>,
        ctx: &mut Context<Self>,
    ) -> ResponseFuture<Result<Vec<Receipt>, ForwardError>> {
        if txs.is_empty() {
            return Box::pin(std::future::ready(Ok(vec![])));
        }
        let posted = self.submit(txs, None, ctx);
        let metrics = self.metrics.clone();
        Box::pin(async move {
            match posted.await {
                Ok(posted) => {
                    metrics.taken_over.inc_by(posted.receipts.len() as u64);
                    Ok(posted.receipts)
                }
                Err(error) => {
                    let error = not_taken(&error);
                    metrics.take_over_failures.get_or_create(&Cause { cause: forward::cause(&error) }).inc();
                    Err(error)
                }
            }
        })
    }
}

/// What a refusal is to another member.
fn not_taken(error: &SubmitError) -> ForwardError {
    match error {
        SubmitError::QueueFull { .. } => ForwardError::Full,
        SubmitError::TooLarge { .. } | SubmitError::Empty => ForwardError::Refused(error.to_string()),
        SubmitError::NotReady(reason) => ForwardError::NoLeader(reason.clone()),
        SubmitError::TooOld { since, window } => ForwardError::TooOld { checked: *since, window: *window },
    }
}

impl Handler<LeadershipChanged> for Sequencer {
    type Result = ();

    fn handle(&mut self, message: LeadershipChanged, ctx: &mut Context<Self>) {
        self.leads = message.role == Role::Leader;
        let other = if self.leads { None } else { message.leader };
        self.forwarder.led_by(message.term, other);
        if let (Some(leader), false) = (other, self.queue.is_empty()) {
            info!(term = message.term.0, %leader, txs = self.queue.len(), "forwarding to the leader");
        }
        self.begin_forward(ctx);
    }
}

impl Handler<StandingChanged> for Sequencer {
    type Result = ();

    /// What is queued stays and is sent again and again: the node may be added again.
    fn handle(&mut self, message: StandingChanged, _: &mut Context<Self>) {
        match &message.stranger_to {
            Some(member) => {
                warn!(%member, txs = self.queue.len(), "no member any more: transactions are refused, and wait here");
            }
            None => info!("a member again: transactions are accepted"),
        }
        self.stranger_to = message.stranger_to;
    }
}

impl Handler<CountAccepted> for Sequencer {
    type Result = Option<u64>;

    /// Those on their way to the disk count: they are answered in a moment.
    fn handle(&mut self, _: CountAccepted, ctx: &mut Context<Self>) -> Self::Result {
        self.catch_up_or_report(ctx);
        let count = self.queue.len() + self.incoming_txs;
        if self.trouble.is_some() { None } else { u64::try_from(count).ok() }
    }
}

impl Handler<NextBatch> for Sequencer {
    type Result = MessageResult<NextBatch>;

    fn handle(&mut self, message: NextBatch, ctx: &mut Context<Self>) -> Self::Result {
        self.catch_up_or_report(ctx);
        // Everything in the queue is checked up to here, then (P3).
        let current = self.seen.next() == message.height;
        let txs = if current { self.queue.first(message.max_bytes) } else { Vec::new() };
        if planted(Mutation::DrainEarly) {
            let orders: Vec<u64> = txs.iter().filter_map(|tx| self.queue.remove(&tx.hash())).collect();
            self.store.remove(&orders);
        }
        debug!(height = message.height.0, txs = txs.len(), current, "showed the next batch");
        MessageResult(Batch { txs, current })
    }
}

impl Handler<AwaitTxs> for Sequencer {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: AwaitTxs, _: &mut Context<Self>) -> Self::Result {
        self.idle.retain(|waiting| !waiting.is_closed());
        if !self.queue.is_empty() || self.idle.len() >= MAX_IDLE {
            return Box::pin(std::future::ready(()));
        }
        let (reply, available) = oneshot::channel();
        self.idle.push(reply);
        // Who asked may have given up; this future would hold its place for ever.
        let waiting = tokio::time::timeout(self.config.longest_wait, available);
        Box::pin(async move {
            let _ = waiting.await;
        })
    }
}

impl Handler<DropTxs> for Sequencer {
    type Result = ();

    fn handle(&mut self, message: DropTxs, _: &mut Context<Self>) {
        for hash in &message.hashes {
            warn!(%hash, reason = %message.reason, "the engine refused a transaction for good");
        }
        self.drop_txs(message.hashes.iter().map(|hash| (*hash, message.reason.as_str())));
    }
}

impl Handler<Applied> for Sequencer {
    type Result = ();

    fn handle(&mut self, _: Applied, ctx: &mut Context<Self>) {
        self.catch_up_or_report(ctx);
    }
}

impl Handler<BlockExecuted> for Sequencer {
    type Result = ();

    fn handle(&mut self, message: BlockExecuted, ctx: &mut Context<Self>) {
        self.catch_up_or_report(ctx);
        self.waiters.executed(message.0.height, message.0.results);
        self.gauge();
    }
}

impl Handler<ExecutionFollowed> for Sequencer {
    type Result = ();

    /// After a restart nobody executes again what the engine has.
    fn handle(&mut self, message: ExecutionFollowed, _: &mut Context<Self>) {
        self.waiters.followed(message.height);
        self.gauge();
    }
}

impl Handler<AwaitTx> for Sequencer {
    type Result = ResponseFuture<Result<Outcome, AwaitError>>;

    fn handle(&mut self, message: AwaitTx, _: &mut Context<Self>) -> Self::Result {
        let refuse = |error| -> Self::Result { Box::pin(std::future::ready(Err(error))) };
        // What is known needs no place to wait in.
        let has_room = self.waiters.len() < self.config.max_waiting;
        let (reply, outcome) = oneshot::channel();
        match (self.window.place(&message.hash), message.level) {
            (Some(place), Level::Committed) => {
                let _ = reply.send(Ok(Outcome { place, result: None }));
            }
            (Some(place), Level::Executed) if has_room || self.waiters.is_executed(place.height) => {
                self.waiters.wait_for_execution(place, reply);
            }
            (None, level) if has_room && self.queue.contains(&message.hash) => {
                self.waiters.wait_for_commit(message.hash, level, reply);
            }
            (Some(_), Level::Executed) => return refuse(AwaitError::TooMany(self.waiters.len())),
            (None, _) if self.queue.contains(&message.hash) => {
                return refuse(AwaitError::TooMany(self.waiters.len()));
            }
            (None, _) => {
                return match self.refusals.reason(&message.hash) {
                    Some(reason) => refuse(AwaitError::Dropped(reason)),
                    None => refuse(AwaitError::Unknown),
                };
            }
        }
        self.gauge();
        // Who asked may have given up; this future would hold its place for ever.
        let waiting = tokio::time::timeout(self.config.longest_wait, outcome);
        Box::pin(async move {
            match waiting.await {
                Ok(outcome) => outcome.unwrap_or(Err(AwaitError::Unknown)),
                Err(_) => Err(AwaitError::TooLong),
            }
        })
    }
}

impl Handler<DiskHealthChanged> for Sequencer {
    type Result = ();

    fn handle(&mut self, message: DiskHealthChanged, _: &mut Context<Self>) {
        self.disk_trouble = message.trouble;
    }
}

impl Handler<GetQueueView> for Sequencer {
    type Result = MessageResult<GetQueueView>;

    fn handle(&mut self, _: GetQueueView, _: &mut Context<Self>) -> Self::Result {
        MessageResult(QueueView {
            txs: self.queue.len(),
            bytes: self.queue.bytes(),
            max_txs: self.config.max_txs,
            max_bytes: self.config.max_bytes,
            waiting: self.waiters.len(),
            window: self.window.len(),
        })
    }
}

impl Actor for Sequencer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        // Bounded by the protocol: the queue's limits, one hint per block, the RPC's connections.
        ctx.set_mailbox_capacity(1024);
        self.catch_up_or_report(ctx);
        info!(txs = self.queue.len(), height = self.seen.0, "read the queue and the replay window");
        ctx.run_interval(super::TICK, Self::tick);
    }
}
