//! The conversation with the execution engine.
//!
//! Modelled on ev-node's core execution interface. Executor, syncer, sequencer, reaper and
//! RPC ask; the engine's adapter answers. Identity of what was executed is the block hash,
//! never a time (hazard E6). A timeout says nothing about the effect: ask again, execution
//! of a height is idempotent.

use std::sync::Arc;

use actix::Message;
use bytes::Bytes;

use crate::chain::Block;
use crate::types::{Hash, Height, StateRoot, Timestamp, Tx};

/// Prepare the state before the first block, or say what it was. Idempotent.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<StateRoot, EngineError>")]
pub struct InitChain {
    /// The genesis time.
    pub time: Timestamp,
    /// The height of the first block.
    pub initial_height: Height,
    /// The chain.
    pub chain_id: String,
}

/// List what waits in the engine's own pool. Nothing is consumed.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Vec<Tx>, EngineError>")]
pub struct PendingTxs {
    /// At most this many bytes.
    pub max_bytes: usize,
}

/// What to do with a transaction before it enters a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterStatus {
    /// It may go into the block.
    Ok,
    /// It never may; forget it.
    Remove,
    /// Not into this block.
    Postpone,
}

/// Classify transactions for the next block (P10). One status for each, in order.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Vec<FilterStatus>, EngineError>")]
pub struct FilterTxs {
    /// The transactions.
    pub txs: Vec<Tx>,
    /// The most bytes the block takes.
    pub max_bytes: usize,
    /// The first so many were forced through DA.
    pub forced: usize,
}

/// What a transaction did.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum TxResult {
    /// It took effect; the engine's answer.
    Applied(Bytes),
    /// It was invalid and did nothing; the reason.
    Skipped(String),
}

/// What executing a block gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executed {
    /// The block's height.
    pub height: Height,
    /// The block's header hash.
    pub hash: Hash,
    /// The state root after it.
    pub root: StateRoot,
    /// Per transaction, in order. Empty when the height had been executed in an earlier
    /// life of the process and the engine keeps no results.
    pub results: Arc<Vec<TxResult>>,
}

/// Execute a *committed* block (P5).
///
/// The height must follow the last executed one, or be it: then the block must be the same and
/// the recorded answer is given again. Durable when the store's WAL is: a crash may take back
/// the last executions, never more than the log can replay.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Executed, EngineError>")]
pub struct ExecuteBlock {
    /// The block.
    pub block: Arc<Block>,
}

/// A block is included on DA and cannot be undone. Idempotent; heights never fall.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), EngineError>")]
pub struct SetFinal {
    /// The height.
    pub height: Height,
}

/// Limits the engine puts on blocks.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<ExecutionInfo, EngineError>")]
pub struct GetExecutionInfo;

/// Limits the engine puts on blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExecutionInfo {
    /// Most gas per block; zero is "no gas".
    pub max_gas: u64,
}

/// Ask how far the engine is.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<EnginePosition, EngineError>")]
pub struct GetPosition;

/// How far the engine is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnginePosition {
    /// The last executed height; the height before the first block after `InitChain`.
    pub height: Height,
    /// The hash of that block, when the engine knows it.
    pub hash: Option<Hash>,
    /// The state root after it.
    pub root: StateRoot,
    /// The last height made final.
    pub final_height: Height,
}

/// Go back to the state after a height.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<EnginePosition, EngineError>")]
pub struct Rollback {
    /// The height to stand at afterwards.
    pub height: Height,
}

/// Forget what is only needed to roll back below a height.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), EngineError>")]
pub struct Prune {
    /// Nothing will be rolled back below this height any more.
    pub height: Height,
}

/// A committed block was executed. The engine tells the sequencer and the supervisor.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct BlockExecuted(pub Executed);

/// The engine answers in time again, or has stopped doing so. Told to the supervisor.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct EngineHealthChanged {
    /// `None` is healthy; otherwise what is wrong.
    pub trouble: Option<String>,
}

/// What an engine can refuse, and what to do next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// Not reachable, timed out or failing in a way that may pass. Try again.
    #[error("the engine is not available: {0}")]
    Unavailable(String),
    /// The height does not follow the last executed one. Ask for the position.
    #[error("height {asked} does not follow the engine's height {at}")]
    NotNext {
        /// What was asked for.
        asked: Height,
        /// Where the engine is.
        at: Height,
    },
    /// Another block stands at that height in the engine. Roll it back to before it.
    #[error("the engine executed block {executed} at height {height}, not {asked}")]
    OtherBlock {
        /// The height.
        height: Height,
        /// What the engine has.
        executed: Hash,
        /// What was asked for.
        asked: Hash,
    },
    /// The block fails deterministically (P10). Production stops; a person is needed.
    #[error("block {height} cannot be executed, transaction {index:?}: {reason}")]
    Poison {
        /// The height.
        height: Height,
        /// The transaction that fails, when known.
        index: Option<u32>,
        /// What the engine says.
        reason: String,
    },
    /// The engine cannot go back that far.
    #[error("cannot roll back to {asked}: the engine keeps states from {oldest}")]
    CannotRollBack {
        /// What was asked for.
        asked: Height,
        /// The oldest state kept.
        oldest: Height,
    },
    /// The engine's own state is damaged. Stop; do not restart.
    #[error("the engine's state is damaged: {0}")]
    Corrupt(String),
}
