//! The conversation with the sequencer: transactions in, batches out.
//!
//! RPC and the reaper hand transactions in; the executor is *shown* the next batch, nothing is
//! taken until the block is committed (hazard B3). What a node that does not lead has accepted it
//! forwards to the leader (`cluster::ForwardTxs`).

use std::sync::Arc;

use actix::Message;

use crate::engine::TxResult;
use crate::types::{Hash, Height, Place, Tx};

/// Take transactions into this node's durable queue.
///
/// The reply comes when they are on disk (*accepted*, P3). All or nothing. After a timeout they
/// may be queued; submitting again is safe.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Vec<Receipt>, SubmitError>")]
pub struct SubmitTxs {
    /// The transactions, in the order in which they shall be sequenced.
    pub txs: Vec<Tx>,
}

/// Take transactions that their sender may have posted before, to this node or another one.
///
/// The intake asks. As [`SubmitTxs`], but what was posted first longer ago than the replay window
/// reaches is refused: nobody knows any more whether it was sequenced (P3, hazard B5).
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Posted, SubmitError>")]
pub struct PostTxs {
    /// The transactions, in the order in which they shall be sequenced.
    pub txs: Vec<Tx>,
    /// When they were posted first the chain was at least that high, says their sender: it is the
    /// `since` of an earlier answer. `None`: they are posted for the first time.
    pub since: Option<Height>,
}

/// What became of posted transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posted {
    /// One for each, in order.
    pub receipts: Vec<Receipt>,
    /// What is queued is in no block up to here. Whoever posts it again says so.
    pub since: Height,
}

/// What became of one submitted transaction.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Receipt {
    /// It is in the queue, new or from before.
    Queued(Hash),
    /// It is in the chain already, within the replay window.
    InChain(Hash, Place),
    /// The leader's engine has refused it for good, and why. To a member that forwards it again.
    Dropped(Hash, String),
}

/// Why nothing was queued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The queue has no room. Slow down and try again.
    #[error("the queue is full: {txs} transactions, {bytes} bytes")]
    QueueFull {
        /// Transactions waiting.
        txs: usize,
        /// Bytes waiting.
        bytes: usize,
    },
    /// No block will ever hold it.
    #[error("a transaction of {bytes} bytes is over the limit of {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Empty transactions mean nothing.
    #[error("an empty transaction")]
    Empty,
    /// Not able to accept now; the reason. Try again.
    #[error("not ready: {0}")]
    NotReady(String),
    /// It is not in the replay window, and was posted first before that begins: it may be in an
    /// older block. Look there; then post it as a new one or not at all.
    #[error(
        "posted first after height {since}, but only blocks from {window} on are searched for repetitions: \
         look in the blocks from {} to {}, and post it without since if it is in none",
        since.next(),
        window.previous()
    )]
    TooOld {
        /// What the sender said.
        since: Height,
        /// The first height in the window.
        window: Height,
    },
}

/// Show what the next block should hold, in order. Nothing is taken.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Batch")]
pub struct NextBatch {
    /// The height of the next block; the queue must have seen everything below it.
    pub height: Height,
    /// The most bytes.
    pub max_bytes: usize,
}

/// What the next block should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The transactions, in order.
    pub txs: Vec<Tx>,
    /// Everything below the asked height has been taken into account. When false, ask again.
    pub current: bool,
}

/// Drop transactions that the engine will never take. From the executor, after a filter.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct DropTxs {
    /// Their hashes.
    pub hashes: Vec<Hash>,
    /// What the engine said.
    pub reason: String,
}

/// Wait until there is something to sequence. The executor asks in lazy mode.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct AwaitTxs;

/// How far a transaction should get before the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// In a committed block.
    Committed,
    /// Executed.
    Executed,
}

/// Wait until a submitted transaction has come that far. The caller sets the timeout.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Outcome, AwaitError>")]
pub struct AwaitTx {
    /// The transaction.
    pub hash: Hash,
    /// How far.
    pub level: Level,
}

/// Where a transaction ended up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Where in the chain.
    pub place: Place,
    /// The engine's result, at level executed, when the engine keeps it.
    pub result: Option<TxResult>,
}

/// Why there is nothing to wait for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AwaitError {
    /// Neither queued nor in the replay window.
    #[error("the transaction is not known here")]
    Unknown,
    /// The engine refused it before it entered a block.
    #[error("the engine refused the transaction: {0}")]
    Dropped(String),
    /// It has not come that far in the longest time a request may wait. It stays queued.
    #[error("still waiting; the transaction stays queued")]
    TooLong,
    /// Too many are waiting.
    #[error("too many requests are waiting ({0})")]
    TooMany(usize),
}

/// Ask how full the queue is.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "QueueView")]
pub struct GetQueueView;

/// Ask how many accepted transactions are in no block that this node has seen. Raft asks, for a leader
/// that is to remove this member. `None`: the queue cannot be read now.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Option<u64>")]
pub struct CountAccepted;

/// How full the queue is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueView {
    /// Transactions waiting.
    pub txs: usize,
    /// Bytes waiting.
    pub bytes: usize,
    /// Most transactions.
    pub max_txs: usize,
    /// Most bytes.
    pub max_bytes: usize,
    /// Requests waiting for an outcome.
    pub waiting: usize,
    /// Transactions remembered in the replay window.
    pub window: usize,
}

/// The results of an executed block, for those who wait (from the engine).
pub type Results = Arc<Vec<TxResult>>;
