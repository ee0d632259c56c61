//! What the engine is asked, one handler per message.

use std::cell::Cell;
use std::rc::Rc;

use actix::{Context, Handler, ResponseFuture};
use baton_messages::engine::{
    EngineError, EnginePosition, ExecuteBlock, Executed, ExecutionInfo, FilterStatus, FilterTxs,
    GetExecutionInfo, GetPosition, InitChain, PendingTxs, Prune, Rollback, SetFinal,
};
use baton_messages::sequencer::{Receipt, SubmitError, SubmitTxs};
use baton_messages::types::{StateRoot, Tx};
use futures::FutureExt;
use tokio::time::Instant;

use super::record::Asked;
use super::{Answer, Engine, Execution};

/// Looks nothing up.
fn nothing<T>(_: &mut Engine) -> Option<Answer<T>> {
    None
}

/// Takes nothing over.
fn unchanged<T>(_: &mut Engine, _: &mut Context<Engine>, _: &Answer<T>) {}

impl Handler<InitChain> for Engine {
    type Result = ResponseFuture<Answer<StateRoot>>;

    fn handle(&mut self, message: InitChain, ctx: &mut Self::Context) -> Self::Result {
        let call = |mut engine: Box<dyn Execution>| async move {
            let answer = engine.init_chain(message).await;
            (engine, answer)
        };
        self.ask(ctx, "init_chain", nothing, call, unchanged)
    }
}

impl Handler<PendingTxs> for Engine {
    type Result = ResponseFuture<Answer<Vec<Tx>>>;

    fn handle(&mut self, message: PendingTxs, ctx: &mut Self::Context) -> Self::Result {
        let call = move |mut engine: Box<dyn Execution>| async move {
            let answer = engine.pending_txs(message.max_bytes).await;
            (engine, answer)
        };
        self.ask(ctx, "pending_txs", nothing, call, unchanged)
    }
}

impl Handler<FilterTxs> for Engine {
    type Result = ResponseFuture<Answer<Vec<FilterStatus>>>;

    fn handle(&mut self, message: FilterTxs, ctx: &mut Self::Context) -> Self::Result {
        let call = |mut engine: Box<dyn Execution>| async move {
            let asked = message.txs.len();
            let answer = match engine.filter_txs(message).await {
                Ok(statuses) if statuses.len() != asked => Err(EngineError::Unavailable(format!(
                    "the engine classified {} of {asked} transactions",
                    statuses.len()
                ))),
                answer => answer,
            };
            (engine, answer)
        };
        self.ask(ctx, "filter_txs", nothing, call, unchanged)
    }
}

impl Handler<ExecuteBlock> for Engine {
    type Result = ResponseFuture<Answer<Executed>>;

    fn handle(&mut self, message: ExecuteBlock, ctx: &mut Self::Context) -> Self::Result {
        let asked = Asked { height: message.block.height(), hash: message.block.hash() };
        let began = Rc::new(Cell::new(Instant::now()));
        let started = Rc::clone(&began);
        let call = move |mut engine: Box<dyn Execution>| async move {
            started.set(Instant::now());
            let answer = engine.execute_block(message.block).await;
            (engine, answer)
        };
        let end = move |this: &mut Self, ctx: &mut Context<Self>, answer: &Answer<Executed>| {
            this.end_execute(ctx, began.get(), answer);
        };
        self.ask(ctx, "execute_block", move |this| this.record.answer(asked), call, end)
    }
}

impl Handler<SetFinal> for Engine {
    type Result = ResponseFuture<Answer<()>>;

    fn handle(&mut self, message: SetFinal, ctx: &mut Self::Context) -> Self::Result {
        let call = move |mut engine: Box<dyn Execution>| async move {
            let answer = engine.set_final(message.height).await;
            (engine, answer)
        };
        self.ask(ctx, "set_final", nothing, call, unchanged)
    }
}

impl Handler<GetExecutionInfo> for Engine {
    type Result = ResponseFuture<Answer<ExecutionInfo>>;

    fn handle(&mut self, _: GetExecutionInfo, ctx: &mut Self::Context) -> Self::Result {
        let call = |mut engine: Box<dyn Execution>| async move {
            let answer = engine.execution_info().await;
            (engine, answer)
        };
        self.ask(ctx, "execution_info", nothing, call, unchanged)
    }
}

impl Handler<GetPosition> for Engine {
    type Result = ResponseFuture<Answer<EnginePosition>>;

    fn handle(&mut self, _: GetPosition, ctx: &mut Self::Context) -> Self::Result {
        let call = |mut engine: Box<dyn Execution>| async move {
            let answer = engine.position().await;
            (engine, answer)
        };
        self.ask(ctx, "position", nothing, call, |this, _, answer| this.end_position(answer))
    }
}

impl Handler<Rollback> for Engine {
    type Result = ResponseFuture<Answer<EnginePosition>>;

    fn handle(&mut self, message: Rollback, ctx: &mut Self::Context) -> Self::Result {
        let call = move |mut engine: Box<dyn Execution>| async move {
            let answer = engine.rollback(message.height).await;
            (engine, answer)
        };
        self.ask(ctx, "rollback", nothing, call, |this, _, answer| this.end_rollback(answer))
    }
}

impl Handler<Prune> for Engine {
    type Result = ResponseFuture<Answer<()>>;

    fn handle(&mut self, message: Prune, ctx: &mut Self::Context) -> Self::Result {
        let call = move |mut engine: Box<dyn Execution>| async move {
            let answer = engine.prune(message.height).await;
            (engine, answer)
        };
        self.ask(ctx, "prune", nothing, call, unchanged)
    }
}

/// For engines with a pool of their own: RPC hands transactions to the engine instead of to
/// the sequencer, and the reaper brings them there.
impl Handler<SubmitTxs> for Engine {
    type Result = ResponseFuture<Result<Vec<Receipt>, SubmitError>>;

    fn handle(&mut self, message: SubmitTxs, ctx: &mut Self::Context) -> Self::Result {
        let call = |mut engine: Box<dyn Execution>| async move {
            let answer = engine.submit_txs(message.txs).await;
            (engine, Ok(answer))
        };
        let answer = self.ask(ctx, "submit_txs", nothing, call, unchanged);
        let refused = |error: EngineError| Err(SubmitError::NotReady(error.to_string()));
        Box::pin(answer.map(move |answer| answer.unwrap_or_else(refused)))
    }
}
