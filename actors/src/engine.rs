//! The engine executes committed blocks, one call at a time.
//!
//! One `Execution` adapter per kind of engine does the work; this actor keeps the calls in
//! order, gives the recorded answer when a block is asked for again, and tells when the
//! engine stops answering. It never cancels a call: what an engine does after a cancelled
//! one is anybody's guess. While a call hangs, everything else is refused, so nothing piles up.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, Recipient, ResponseFuture, SpawnHandle, WrapFuture,
    dev::SendError,
};
use async_trait::async_trait;
use baton_messages::chain::Block;
use baton_messages::engine::{
    BlockExecuted, EngineError, EngineHealthChanged, EnginePosition, Executed, ExecutionInfo, FilterStatus,
    FilterTxs, InitChain, TxResult,
};
use baton_messages::mutation::{Mutation, planted};
use baton_messages::sequencer::{Receipt, SubmitError};
use baton_messages::types::{Height, StateRoot, Tx};
use futures::future::LocalBoxFuture;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

mod handlers;
mod health;
pub mod kv;
mod metrics;
mod record;
#[cfg(test)]
mod tests;

use health::Health;
pub use metrics::Metrics;
use record::Record;

/// What an engine does, one adapter per kind.
///
/// The actor calls one method at a time and waits for it to return. A method must return at
/// some point: an adapter that talks to another process puts a limit on each exchange. Errors
/// have the meaning of `EngineError`; in particular `Poison` only for what would fail on
/// every member, always (P10), and `Unavailable` for everything that may pass.
#[async_trait(?Send)]
pub trait Execution: 'static {
    /// Prepares the state before the first block. Idempotent; returns the root before the
    /// first block, also when blocks have been executed since.
    async fn init_chain(&mut self, genesis: InitChain) -> Result<StateRoot, EngineError>;

    /// Lists transactions of the engine's own pool, at most `max_bytes`. Consumes nothing.
    async fn pending_txs(&mut self, max_bytes: usize) -> Result<Vec<Tx>, EngineError>;

    /// Classifies transactions for the next block, one status for each.
    async fn filter_txs(&mut self, request: FilterTxs) -> Result<Vec<FilterStatus>, EngineError>;

    /// Executes the block that follows the last executed one. For the last executed block
    /// itself it returns the same height, hash and root, with or without results.
    async fn execute_block(&mut self, block: Arc<Block>) -> Result<Executed, EngineError>;

    /// Marks a height as final. Idempotent; a lower height than before changes nothing.
    async fn set_final(&mut self, height: Height) -> Result<(), EngineError>;

    /// Limits the engine puts on blocks.
    async fn execution_info(&mut self) -> Result<ExecutionInfo, EngineError>;

    /// How far the engine is.
    async fn position(&mut self) -> Result<EnginePosition, EngineError>;

    /// Goes back to the state after a height.
    async fn rollback(&mut self, height: Height) -> Result<EnginePosition, EngineError>;

    /// Forgets what is only needed to go back below a height.
    async fn prune(&mut self, height: Height) -> Result<(), EngineError>;

    /// Takes transactions into the engine's own pool, in memory: a crash loses them. Only
    /// engines with such a pool do.
    async fn submit_txs(&mut self, txs: Vec<Tx>) -> Result<Vec<Receipt>, SubmitError> {
        let _ = txs;
        Err(SubmitError::NotReady("this engine has no pool, the sequencer takes transactions".into()))
    }
}

/// What can be set.
#[derive(Clone, Debug)]
pub struct Config {
    /// A call that takes longer hangs: the engine counts as unhealthy until it returns.
    pub call_timeout: Duration,
    /// Most requests that wait for their turn; more are refused.
    pub max_waiting: usize,
    /// Results of so many of the last blocks stay in memory, for who asks again.
    pub results_kept: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { call_timeout: Duration::from_secs(10), max_waiting: 64, results_kept: 16 }
    }
}

/// Everything the engine says, and to whom.
#[derive(Clone, Debug)]
pub struct Links {
    /// Learn of each executed block.
    pub executed: Vec<Recipient<BlockExecuted>>,
    /// Learns when the engine stops answering, and when it answers again.
    pub health: Recipient<EngineHealthChanged>,
}

/// The actor.
pub struct Engine {
    config: Config,
    links: Links,
    metrics: Metrics,
    /// Away while a call runs.
    execution: Option<Box<dyn Execution>>,
    waiting: VecDeque<Job>,
    running: Option<Running>,
    record: Record,
    health: Health,
}

/// One call, from request to reply.
struct Job {
    name: &'static str,
    run: Run,
    /// Drops the sender of the reply: who asked is answered "unavailable".
    abandon: Box<dyn FnOnce()>,
}

/// Takes its turn.
type Run = Box<dyn FnOnce(&mut Engine, Box<dyn Execution>) -> Step>;

/// What a job does in its turn.
enum Step {
    /// It was answered from memory.
    Answered(Box<dyn Execution>),
    /// The engine has to be asked.
    Call(LocalBoxFuture<'static, (Box<dyn Execution>, Finish)>),
}

/// Takes over the result of a call: state changes here, not in the future.
type Finish = Box<dyn FnOnce(&mut Engine, &mut Context<Engine>)>;

struct Running {
    name: &'static str,
    abandon: Option<Box<dyn FnOnce()>>,
    limit: SpawnHandle,
}

type Answer<T> = Result<T, EngineError>;

/// The sender of a reply, shared by the job and by whoever has to drop it.
struct Reply<T>(Rc<RefCell<Option<oneshot::Sender<Answer<T>>>>>);

impl<T> Clone for Reply<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<T> Reply<T> {
    fn send(&self, answer: Answer<T>) {
        if let Some(sender) = self.0.borrow_mut().take() {
            // Who asked may have given up: the effect is recorded, asking again is safe.
            sender.send(answer).ok();
        }
    }
}

impl Engine {
    /// Puts the actor together; `start` it where blocking it does no harm (an arbiter of its own).
    #[must_use]
    pub fn new(execution: Box<dyn Execution>, config: Config, links: Links, metrics: Metrics) -> Self {
        let record = Record::new(config.results_kept);
        Self {
            config,
            links,
            metrics,
            execution: Some(execution),
            waiting: VecDeque::new(),
            running: None,
            record,
            health: Health::default(),
        }
    }

    /// Queues a call and returns the future of its answer.
    ///
    /// `lookup` may answer from memory when its turn comes; `end` takes the result over.
    fn ask<T: 'static, F>(
        &mut self,
        ctx: &mut Context<Self>,
        name: &'static str,
        lookup: impl FnOnce(&mut Self) -> Option<Answer<T>> + 'static,
        call: impl FnOnce(Box<dyn Execution>) -> F + 'static,
        end: impl FnOnce(&mut Self, &mut Context<Self>, &Answer<T>) + 'static,
    ) -> ResponseFuture<Answer<T>>
    where
        F: Future<Output = (Box<dyn Execution>, Answer<T>)> + 'static,
    {
        if let Some(reason) = self.refusal() {
            self.metrics.refused.inc();
            return Box::pin(async move { Err(EngineError::Unavailable(reason)) });
        }
        let (sender, receiver) = oneshot::channel();
        let reply = Reply(Rc::new(RefCell::new(Some(sender))));
        let dropped = reply.clone();
        self.waiting.push_back(Job {
            name,
            abandon: Box::new(move || drop(dropped.0.borrow_mut().take())),
            run: Box::new(move |this, execution| {
                if let Some(answer) = lookup(this) {
                    reply.send(answer);
                    return Step::Answered(execution);
                }
                let future = call(execution);
                Step::Call(Box::pin(async move {
                    let (execution, answer) = future.await;
                    let finish: Finish = Box::new(move |this, ctx| {
                        this.health.answered(answer.as_ref().err());
                        end(this, ctx, &answer);
                        reply.send(answer);
                    });
                    (execution, finish)
                }))
            }),
        });
        self.begin_calls(ctx);
        let limit = self.config.call_timeout;
        Box::pin(async move {
            receiver.await.unwrap_or_else(|_| {
                Err(EngineError::Unavailable(format!("no answer within {limit:?}; ask again")))
            })
        })
    }

    /// Why a new request is not taken, when it is not.
    fn refusal(&self) -> Option<String> {
        if let Some(trouble) = self.health.hung() {
            return Some(trouble.to_owned());
        }
        let waiting = self.waiting.len();
        (waiting >= self.config.max_waiting).then(|| format!("{waiting} requests wait for the engine"))
    }

    /// Starts the next call, if none runs.
    fn begin_calls(&mut self, ctx: &mut Context<Self>) {
        while let Some(execution) = self.execution.take() {
            let Some(job) = self.waiting.pop_front() else {
                self.execution = Some(execution);
                break;
            };
            match (job.run)(self, execution) {
                Step::Answered(execution) => self.execution = Some(execution),
                Step::Call(future) => {
                    let limit = ctx.run_later(self.config.call_timeout, Self::hang);
                    self.running = Some(Running { name: job.name, abandon: Some(job.abandon), limit });
                    ctx.spawn(future.into_actor(self).map(Self::end_call));
                }
            }
        }
        self.metrics.waiting.set(i64::try_from(self.waiting.len()).unwrap_or(i64::MAX));
    }

    fn end_call(done: (Box<dyn Execution>, Finish), this: &mut Self, ctx: &mut Context<Self>) {
        let (execution, finish) = done;
        this.execution = Some(execution);
        if let Some(running) = this.running.take() {
            ctx.cancel_future(running.limit);
        }
        finish(this, ctx);
        this.report_health();
        this.begin_calls(ctx);
    }

    /// The running call takes too long: everybody who waits is answered, nobody else may wait.
    fn hang(&mut self, _: &mut Context<Self>) {
        if planted(Mutation::HangingEngineIsWell) {
            return;
        }
        let Some(running) = &mut self.running else { return };
        self.health.hangs(running.name, self.config.call_timeout);
        if let Some(abandon) = running.abandon.take() {
            abandon();
        }
        let refused = self.waiting.len() as u64 + 1;
        // Dropping a job drops the sender of its reply.
        self.waiting.clear();
        self.metrics.waiting.set(0);
        self.metrics.refused.inc_by(refused);
        self.report_health();
    }

    fn report_health(&mut self) {
        let Some(trouble) = self.health.changed() else { return };
        match &trouble {
            Some(trouble) => error!(%trouble, "the engine is in trouble"),
            None => info!("the engine answers again"),
        }
        self.metrics.healthy.set(i64::from(trouble.is_none()));
        // Reports stay in order and are few; `do_send` keeps both true with a full mailbox.
        self.links.health.do_send(EngineHealthChanged { trouble });
    }

    fn end_execute(&mut self, ctx: &mut Context<Self>, began: Instant, answer: &Answer<Executed>) {
        let executed = match answer {
            Ok(executed) => executed,
            Err(error @ (EngineError::Poison { .. } | EngineError::Corrupt(_))) => {
                return error!(%error, "executed no block; a person is needed");
            }
            Err(error) => {
                if let EngineError::NotNext { at, .. } = error {
                    self.record.keep_to(*at);
                }
                return warn!(%error, "executed no block");
            }
        };
        self.health.executed();
        self.metrics.duration.observe(began.elapsed().as_secs_f64());
        self.show(executed.height);
        self.metrics.blocks.inc();
        let skipped = executed.results.iter().filter(|result| matches!(result, TxResult::Skipped(_))).count();
        self.metrics.skipped.inc_by(skipped as u64);
        self.metrics.applied.inc_by((executed.results.len() - skipped) as u64);
        info!(height = executed.height.0, root = %executed.root, txs = executed.results.len(), "executed");
        self.record.push(executed.clone());
        for link in &self.links.executed {
            match link.try_send(BlockExecuted(executed.clone())) {
                Ok(()) => {}
                Err(SendError::Full(executed)) => {
                    let told = link.send(executed).timeout(self.config.call_timeout);
                    ctx.spawn(told.into_actor(self).map(|told, this, _| {
                        if let Err(error) = told {
                            this.metrics.lost.inc();
                            warn!(%error, "an executed block was not heard of");
                        }
                    }));
                }
                Err(SendError::Closed(_)) => {
                    self.metrics.lost.inc();
                    debug!("nobody hears of executed blocks any more");
                }
            }
        }
    }

    /// An engine that was restarted may have lost its last executions: what it does not have is
    /// not answered from memory either, or it would never be replayed.
    fn end_position(&mut self, answer: &Answer<EnginePosition>) {
        if let Ok(position) = answer {
            self.record.keep_to(position.height);
            self.show(position.height);
        }
    }

    /// Also before the first block of a life: how far the engine is does not begin with zero.
    fn show(&self, height: Height) {
        self.metrics.height.set(i64::try_from(height.0).unwrap_or(i64::MAX));
    }

    fn end_rollback(&mut self, answer: &Answer<EnginePosition>) {
        // Also after an error: a rollback may have gone part of the way.
        match answer {
            Ok(position) => {
                self.health.rolled_back();
                self.record.keep_to(position.height);
                self.show(position.height);
                info!(height = position.height.0, root = %position.root, "rolled back");
            }
            Err(error) => {
                self.record.clear();
                warn!(%error, "not rolled back");
            }
        }
    }
}

impl Actor for Engine {
    type Context = Context<Self>;
}
