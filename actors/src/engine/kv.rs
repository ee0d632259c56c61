//! The key-value app: the engine that is built in.
//!
//! A transaction is `key=value` bytes, as in ev-node's testapp (wire section 7.1). A transaction that
//! is none is skipped, always and everywhere, so no block is ever poison (P10). The state root
//! comes from a hash tree that is updated, not rebuilt (ADR 0004).
//!
//! Everything a block changes goes into one batch, unsynced: state, tree, the way back and the
//! position. It follows the block in the store's write-ahead log, so after a crash the
//! engine may be behind the blocks but never ahead of them (P4), and is replayed.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use baton_messages::chain::Block;
use baton_messages::engine::{
    EngineError, EnginePosition, Executed, ExecutionInfo, FilterStatus, FilterTxs, InitChain, TxResult,
};
use baton_messages::sequencer::{Receipt, SubmitError};
use baton_messages::types::{Hash, Height, StateRoot, Tx};
use baton_storage::backend::{Backend, Batch, Family, StoreError};
use bytes::Bytes;

use super::Execution;

mod head;
mod pool;
mod testapp;
#[cfg(test)]
mod tests;
mod tree;
mod tx;
mod view;

use head::{Head, Mark, Undo};
pub use pool::Limits as PoolLimits;
use pool::Pool;
use testapp::Testapp;
pub use view::{Listing, Stats, View};

/// What the state roots are. The same on every node of a chain, for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Roots {
    /// The root of a hash tree, 32 bytes (ADR 0004).
    #[default]
    Tree,
    /// What ev-node's testapp computes: the text of everything that was ever set.
    Testapp,
}

/// What can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// What the state roots are.
    pub roots: Roots,
    /// So many of the last blocks can be taken back.
    pub undo_blocks: u64,
    /// With a pool, transactions go to the engine and the reaper brings them to the sequencer.
    /// Without, the sequencer takes them, durably.
    pub pool: Option<PoolLimits>,
}

impl Default for Config {
    fn default() -> Self {
        Self { roots: Roots::Tree, undo_blocks: 1_000, pool: None }
    }
}

/// The key-value app.
pub struct Kv {
    backend: Arc<dyn Backend>,
    config: Config,
    /// `None` before `init_chain`.
    head: Option<Head>,
    /// A write failed: what is stored is read again before anything else.
    doubtful: bool,
    /// The store's generation that the head was read in.
    generation: u64,
    pool: Option<Pool>,
    /// All entries, where roots are testapp's.
    testapp: Option<Testapp>,
}

/// What each failure of the store means to who asks the engine.
fn failed(error: StoreError) -> EngineError {
    match error {
        StoreError::Io(_) | StoreError::Full(_) => EngineError::Unavailable(error.to_string()),
        StoreError::Corrupt(reason) | StoreError::Newer(reason) => EngineError::Corrupt(reason),
    }
}

impl Kv {
    /// Opens the app's state in a store; a new store is empty.
    ///
    /// # Errors
    ///
    /// `Unavailable` when the device fails, `Corrupt` when the position cannot be read.
    pub fn open(backend: Arc<dyn Backend>, config: Config) -> Result<Self, EngineError> {
        let generation = backend.generation();
        let head = Head::load(backend.as_ref()).map_err(failed)?;
        let height = head.as_ref().map_or(Height(0), |head| head.mark.height);
        let pool = config.pool.map(|limits| Pool::new(limits, height));
        let testapp = load_testapp(config, backend.as_ref())?;
        Ok(Self { backend, config, head, doubtful: false, generation, pool, testapp })
    }

    /// The root of the newest state, which has this hash.
    fn state_root(&self, root: Hash) -> StateRoot {
        self.testapp.as_ref().map_or_else(|| StateRoot(root.to_bytes()), Testapp::root)
    }

    fn genesis_root(&self) -> StateRoot {
        match self.config.roots {
            Roots::Tree => StateRoot(tree::empty_root().to_bytes()),
            Roots::Testapp => StateRoot::default(),
        }
    }

    fn first_root(&self) -> Hash {
        if self.testapp.is_some() { Hash::of(&[]) } else { tree::empty_root() }
    }

    /// The read side.
    #[must_use]
    pub fn view(&self) -> View {
        View::new(Arc::clone(&self.backend))
    }

    /// Where the app stands, if the chain has begun.
    fn begun(&mut self) -> Result<Option<&Head>, EngineError> {
        // A store that was opened again may have lost the last executions.
        let generation = self.backend.generation();
        if self.doubtful || generation != self.generation {
            self.head = Head::load(self.backend.as_ref()).map_err(failed)?;
            self.testapp = load_testapp(self.config, self.backend.as_ref())?;
            self.doubtful = false;
            self.generation = generation;
        }
        Ok(self.head.as_ref())
    }

    fn head(&mut self) -> Result<Head, EngineError> {
        let head = self.begun()?.cloned();
        head.ok_or_else(|| EngineError::Unavailable("the chain is not initialised".into()))
    }

    /// Writes a batch with the new head; only then the head holds.
    fn commit(&mut self, mut batch: Batch, head: Head) -> Result<(), EngineError> {
        head.store(&mut batch);
        batch.only_in = Some(self.generation);
        self.doubtful = true;
        fail::fail_point!("engine.before_write");
        self.backend.write(batch).map_err(failed)?;
        fail::fail_point!("engine.after_write");
        self.head = Some(head);
        self.doubtful = false;
        Ok(())
    }

    /// Brings values and tree from one state to another; returns the new root.
    fn change<'a>(
        &self,
        batch: &mut Batch,
        root: Hash,
        values: impl Iterator<Item = (&'a Bytes, Option<&'a Bytes>)>,
    ) -> Result<Hash, EngineError> {
        let mut changes = Vec::new();
        for (key, value) in values {
            changes.push((Hash::of(key), value.map(|value| Hash::of(value))));
            match value {
                Some(value) => batch.put(Family::KvState, key.clone(), value.clone()),
                None => batch.delete(Family::KvState, key.clone()),
            }
        }
        if self.testapp.is_some() {
            return Ok(root);
        }
        changes.sort_unstable();
        tree::update(self.backend.as_ref(), batch, root, &changes).map_err(failed)
    }

    fn execute(&mut self, block: &Block) -> Result<Executed, EngineError> {
        let mut head = self.head()?;
        let (height, hash, before) = (block.height(), block.hash(), head.mark);
        if height == before.height
            && let Some(executed) = before.hash
        {
            return if executed == hash {
                Ok(Executed { height, hash, root: self.state_root(before.root), results: Arc::default() })
            } else {
                Err(EngineError::OtherBlock { height, executed, asked: hash })
            };
        }
        if height != before.height.next() {
            return Err(EngineError::NotNext { asked: height, at: before.height });
        }

        let mut results = Vec::with_capacity(block.txs().len());
        let mut changed = BTreeMap::new();
        let mut sets = vec![];
        let mut applied = 0;
        for tx in block.txs() {
            results.push(match tx::parse(tx) {
                Ok(set) => {
                    applied += 1;
                    if self.testapp.is_some() {
                        sets.push(set.clone());
                    }
                    changed.insert(set.key, set.value);
                    TxResult::Applied(Bytes::new())
                }
                Err(reason) => TxResult::Skipped(reason.to_owned()),
            });
        }
        let mut values = Vec::with_capacity(changed.len());
        for key in changed.keys() {
            values.push((key.clone(), self.backend.get(Family::KvState, key).map_err(failed)?));
        }
        values.retain(|(key, old)| old.as_ref() != changed.get(key));

        let mut batch = Batch::default();
        let new = values.iter().map(|(key, _)| (key, changed.get(key)));
        let mut root = self.change(&mut batch, before.root, new)?;
        if let Some(testapp) = &mut self.testapp {
            // Until the batch is written, what is in memory may be ahead.
            self.doubtful = true;
            root = testapp.execute(&mut batch, height, &sets);
        }
        Undo { before, values }.store(&mut batch, height);
        head.mark =
            Mark { height, hash: Some(hash), root, blocks: before.blocks + 1, txs: before.txs + applied };
        forget(&mut batch, &mut head, Height(height.0.saturating_sub(self.config.undo_blocks)));
        self.commit(batch, head)?;
        if let Some(pool) = &mut self.pool {
            pool.executed(height, hash, block.txs());
        }
        Ok(Executed { height, hash, root: self.state_root(root), results: Arc::new(results) })
    }

    /// What looks damaged while the store is opened again is read anew.
    fn settled<T>(&self, answer: Result<T, EngineError>) -> Result<T, EngineError> {
        match answer {
            Err(EngineError::Corrupt(reason)) if self.backend.generation() != self.generation => {
                Err(EngineError::Unavailable(format!("the store was opened again: {reason}")))
            }
            answer => answer,
        }
    }

    /// Takes the last block back.
    fn step_back(&mut self) -> Result<(), EngineError> {
        let mut head = self.head()?;
        let height = head.mark.height;
        let undo = Undo::load(self.backend.as_ref(), height).map_err(failed)?;
        let mut batch = Batch::default();
        let old = undo.values.iter().map(|(key, value)| (key, value.as_ref()));
        let mut root = self.change(&mut batch, head.mark.root, old)?;
        if let Some(testapp) = &mut self.testapp {
            self.doubtful = true;
            root = testapp.step_back(self.backend.as_ref(), &mut batch, height).map_err(failed)?;
        }
        if root != undo.before.root || undo.before.height != height.previous() {
            return Err(EngineError::Corrupt(format!(
                "taking back height {height} gives root {root}, recorded was {}",
                undo.before.root
            )));
        }
        Undo::delete(&mut batch, height, height);
        head.mark = undo.before;
        head.final_height = head.final_height.min(head.mark.height);
        self.commit(batch, head)
    }
}

fn load_testapp(config: Config, backend: &dyn Backend) -> Result<Option<Testapp>, EngineError> {
    match config.roots {
        Roots::Tree => Ok(None),
        Roots::Testapp => Testapp::load(backend).map(Some).map_err(failed),
    }
}

/// Removes the way back below a height, which is at most the head's.
fn forget(batch: &mut Batch, head: &mut Head, height: Height) {
    if height > head.oldest {
        Undo::delete(batch, head.oldest.next(), height);
        head.oldest = height;
    }
}

#[async_trait(?Send)]
impl Execution for Kv {
    async fn init_chain(&mut self, genesis: InitChain) -> Result<StateRoot, EngineError> {
        let InitChain { initial_height, chain_id, .. } = genesis;
        if let Some(head) = self.begun()? {
            if head.chain_id != chain_id || head.initial_height != initial_height {
                return Err(EngineError::Corrupt(format!(
                    "the engine holds chain {} from height {}, not {chain_id} from height {initial_height}",
                    head.chain_id, head.initial_height
                )));
            }
            return Ok(self.genesis_root());
        }
        let height = initial_height.previous();
        let root = self.first_root();
        let mark = Mark { height, hash: None, root, blocks: 0, txs: 0 };
        let head = Head { chain_id, initial_height, mark, final_height: height, oldest: height };
        self.commit(Batch::default(), head)?;
        Ok(self.genesis_root())
    }

    async fn pending_txs(&mut self, max_bytes: usize) -> Result<Vec<Tx>, EngineError> {
        Ok(self.pool.as_ref().map_or_else(Vec::new, |pool| pool.pending(max_bytes)))
    }

    /// Empty transactions and those that no block can hold are removed; from the first that does not
    /// fit the rest is postponed, so the order stays. Malformed transactions were accepted and get
    /// their place in the chain (P3); execution skips them. Nobody accepted what was forced: with
    /// testapp's roots it is removed as testapp does it, or a chain of ev-node would be judged wrongly.
    async fn filter_txs(&mut self, request: FilterTxs) -> Result<Vec<FilterStatus>, EngineError> {
        let mut left = Some(request.max_bytes);
        let strict = if self.testapp.is_some() { request.forced } else { 0 };
        let classify = |(place, tx): (usize, &Tx)| {
            let malformed = place < strict && tx::parse(tx).is_err();
            if tx.0.is_empty() || tx.0.len() > request.max_bytes || malformed {
                return FilterStatus::Remove;
            }
            left = left.and_then(|left| left.checked_sub(tx.0.len()));
            if left.is_some() { FilterStatus::Ok } else { FilterStatus::Postpone }
        };
        Ok(request.txs.iter().enumerate().map(classify).collect())
    }

    async fn execute_block(&mut self, block: Arc<Block>) -> Result<Executed, EngineError> {
        let executed = self.execute(&block);
        self.settled(executed)
    }

    async fn set_final(&mut self, height: Height) -> Result<(), EngineError> {
        let head = self.head()?;
        if height > head.mark.height {
            return Err(EngineError::NotNext { asked: height, at: head.mark.height });
        }
        if height <= head.final_height {
            return Ok(());
        }
        let head = Head { final_height: height, ..head };
        self.commit(Batch::default(), head)
    }

    async fn execution_info(&mut self) -> Result<ExecutionInfo, EngineError> {
        Ok(ExecutionInfo { max_gas: 0 })
    }

    async fn position(&mut self) -> Result<EnginePosition, EngineError> {
        let Some(Head { mark, final_height, .. }) = self.begun()?.cloned() else {
            return Ok(EnginePosition::default());
        };
        let root = self.state_root(mark.root);
        Ok(EnginePosition { height: mark.height, hash: mark.hash, root, final_height })
    }

    async fn rollback(&mut self, height: Height) -> Result<EnginePosition, EngineError> {
        let head = self.head()?;
        let (at, oldest) = (head.mark.height, head.oldest);
        if height < oldest {
            return Err(EngineError::CannotRollBack { asked: height, oldest });
        }
        if height > at {
            return Err(EngineError::NotNext { asked: height, at });
        }
        // One batch per block: each is a whole state, and memory stays bounded.
        for _ in height.0..at.0 {
            let stepped = self.step_back();
            self.settled(stepped)?;
        }
        if let Some(pool) = &mut self.pool {
            pool.rolled_back(height);
        }
        self.position().await
    }

    async fn prune(&mut self, height: Height) -> Result<(), EngineError> {
        let mut head = self.head()?;
        if height <= head.oldest {
            return Ok(());
        }
        let mut batch = Batch::default();
        let height = height.min(head.mark.height);
        forget(&mut batch, &mut head, height);
        self.commit(batch, head)
    }

    async fn submit_txs(&mut self, txs: Vec<Tx>) -> Result<Vec<Receipt>, SubmitError> {
        match &mut self.pool {
            Some(pool) => pool.submit(txs),
            None => Err(SubmitError::NotReady("the key-value app runs without a pool".into())),
        }
    }
}
