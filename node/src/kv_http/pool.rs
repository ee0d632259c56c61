//! The intake of a key-value app that keeps a pool of its own (`engine.kv_pool`).

use actix::{Actor, Context, Handler, Recipient, ResponseFuture};
use baton_messages::sequencer::{PostTxs, Posted, SubmitError, SubmitTxs};
use baton_messages::supervisor::GetSupervisorView;
use baton_storage::Reader;

/// Stands where the sequencer takes transactions otherwise, and puts them into the engine's pool:
/// the reaper of a leader brings them from there to the sequencer. Nobody looks into the pool of
/// a node that does not lead, so that one refuses.
#[derive(Clone, Debug)]
pub struct PoolIntake {
    /// The engine.
    pub pool: Recipient<SubmitTxs>,
    /// Says whether this node leads.
    pub supervisor: Recipient<GetSupervisorView>,
    /// The chain, for the height up to which what is new is in no block.
    pub reader: Reader,
    /// Blocks in which the sequencer finds what is posted again.
    pub replay_window: u64,
}

impl Actor for PoolIntake {
    type Context = Context<Self>;
}

impl Handler<PostTxs> for PoolIntake {
    type Result = ResponseFuture<Result<Posted, SubmitError>>;

    fn handle(&mut self, message: PostTxs, _: &mut Context<Self>) -> Self::Result {
        let Self { pool, supervisor, reader, replay_window } = self.clone();
        Box::pin(async move {
            let PostTxs { txs, since } = message;
            let gone = |_| SubmitError::NotReady("the node is stopping".to_owned());
            if supervisor.send(GetSupervisorView).await.map_err(gone)?.grant.is_none() {
                let why = "this node does not lead, and transactions wait in the pool of the leader's engine";
                return Err(SubmitError::NotReady(why.to_owned()));
            }
            let tip = reader.tip().height;
            let window = baton_messages::types::Height(tip.0.saturating_sub(replay_window) + 1);
            if let Some(since) = since.filter(|since| since.next() < window) {
                return Err(SubmitError::TooOld { since, window });
            }
            let receipts = pool.send(SubmitTxs { txs }).await.map_err(gone)??;
            Ok(Posted { receipts, since: tip })
        })
    }
}
