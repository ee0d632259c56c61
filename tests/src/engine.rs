//! An engine by script: the key-value app on a disk of its own, which can be slow, hang, fail,
//! lose its state or lie. It is strict about what the protocol forbids.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use baton_actors::engine::Execution;
use baton_actors::engine::kv::{self, Kv};
use baton_messages::chain::Block;
use baton_messages::engine::{
    EngineError, EnginePosition, Executed, ExecutionInfo, FilterStatus, FilterTxs, InitChain,
};
use baton_messages::types::{Hash, Height, StateRoot, Tx};
use baton_storage::Reader;
use baton_storage::memory::{Disk, Keep};
use bytes::Bytes;
use tokio::sync::Notify;

use crate::node::{Machine, MakeEngine};

#[derive(Debug, Default)]
struct State {
    slow: Duration,
    hanging: bool,
    unavailable: BTreeSet<&'static str>,
    poison: Option<Tx>,
    other_root_from: Option<Height>,
    restart: Option<Keep>,
    stays: bool,
    pool: Vec<Tx>,
    executed: Vec<Height>,
    rolled_back: Vec<Height>,
}

/// What a `FakeEngine` shall do, and what it did. Clones are the same script.
#[derive(Clone, Debug, Default)]
pub struct Script {
    state: Arc<Mutex<State>>,
    released: Arc<Notify>,
}

/// Every call an engine may be asked for in a running node.
pub const CALLS: [&str; 7] =
    ["init_chain", "pending_txs", "filter_txs", "execute_block", "set_final", "position", "rollback"];

impl Script {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every call takes so long.
    pub fn slow(&self, each: Duration) {
        self.state().slow = each;
    }

    /// Calls do not return until `release`.
    pub fn hang(&self) {
        self.state().hanging = true;
    }

    /// Calls return again, also those that hang.
    pub fn release(&self) {
        self.state().hanging = false;
        self.released.notify_waiters();
    }

    /// These calls fail with `Unavailable`; an empty list ends it.
    pub fn unavailable(&self, calls: &[&'static str]) {
        self.state().unavailable = calls.iter().copied().collect();
    }

    /// A block with this transaction fails deterministically; `None` is the engine after a fix.
    pub fn poison(&self, text: Option<&'static str>) {
        self.state().poison = text.map(|text| Tx(Bytes::from_static(text.as_bytes())));
    }

    /// Roots of this height and above are not what they should be; `None` ends it.
    pub fn other_root_from(&self, height: Option<Height>) {
        self.state().other_root_from = height;
    }

    /// Whether it says it has rolled back and has not.
    pub fn stay_when_rolled_back(&self, stays: bool) {
        self.state().stays = stays;
    }

    /// The engine's process dies before the next call and is started again; what it had not
    /// synced is lost but for `keep`.
    pub fn restart(&self, keep: Keep) {
        self.state().restart = Some(keep);
    }

    /// Puts a transaction into the engine's own pool.
    pub fn into_pool(&self, text: &str) {
        self.state().pool.push(Tx(Bytes::copy_from_slice(text.as_bytes())));
    }

    /// The heights that were executed, in order.
    #[must_use]
    pub fn executed(&self) -> Vec<Height> {
        self.state().executed.clone()
    }

    /// The heights it was rolled back to, in order.
    #[must_use]
    pub fn rolled_back(&self) -> Vec<Height> {
        self.state().rolled_back.clone()
    }
}

/// The engine.
pub struct FakeEngine {
    inner: Kv,
    disk: Disk,
    config: kv::Config,
    reader: Reader,
    script: Script,
}

impl FakeEngine {
    /// For `Plan::execution`: an engine whose state is on the machine's `engine_disk`.
    #[must_use]
    pub fn by(machine: &Machine, script: &Script) -> MakeEngine {
        let (disk, script) = (machine.engine_disk.clone(), script.clone());
        let limits = kv::PoolLimits { tx_bytes: 10_000, ..kv::PoolLimits::default() };
        let config = kv::Config { pool: Some(limits), ..kv::Config::default() };
        Box::new(move |store| {
            let inner = Kv::open(Arc::new(disk.attach()), config).expect("the engine's state opens");
            let (disk, script) = (disk.clone(), script.clone());
            Box::new(Self { inner, disk, config, reader: store.reader(), script })
        })
    }

    async fn pass(&mut self, call: &'static str) -> Result<(), EngineError> {
        let slow = self.script.state().slow;
        if !slow.is_zero() {
            tokio::time::sleep(slow).await;
        }
        while self.script.state().hanging {
            self.script.released.notified().await;
        }
        let restart = self.script.state().restart.take();
        if let Some(keep) = restart {
            self.disk.crash(keep);
            self.inner = Kv::open(Arc::new(self.disk.attach()), self.config)?;
        }
        match self.script.state().unavailable.contains(call) {
            true => Err(EngineError::Unavailable(format!("scripted {call}"))),
            false => Ok(()),
        }
    }

    fn root(&self, height: Height, root: StateRoot) -> StateRoot {
        match self.script.state().other_root_from {
            Some(from) if height >= from => StateRoot(Hash::of(&root.0).to_bytes()),
            _ => root,
        }
    }
}

#[async_trait(?Send)]
impl Execution for FakeEngine {
    async fn init_chain(&mut self, genesis: InitChain) -> Result<StateRoot, EngineError> {
        self.pass("init_chain").await?;
        self.inner.init_chain(genesis).await
    }

    async fn pending_txs(&mut self, max_bytes: usize) -> Result<Vec<Tx>, EngineError> {
        self.pass("pending_txs").await?;
        let txs = std::mem::take(&mut self.script.state().pool);
        self.inner.submit_txs(txs).await.expect("the pool has room");
        self.inner.pending_txs(max_bytes).await
    }

    async fn filter_txs(&mut self, request: FilterTxs) -> Result<Vec<FilterStatus>, EngineError> {
        self.pass("filter_txs").await?;
        self.inner.filter_txs(request).await
    }

    async fn execute_block(&mut self, block: Arc<Block>) -> Result<Executed, EngineError> {
        if let Ok(committed) = self.reader.hash(block.height()) {
            assert_eq!(committed, Some(block.hash()), "P5: the engine was given an uncommitted block");
        }
        self.pass("execute_block").await?;
        let poison = self.script.state().poison.clone();
        if let Some(index) = poison.and_then(|poison| block.txs().iter().position(|tx| *tx == poison)) {
            let index = u32::try_from(index).ok();
            return Err(EngineError::Poison { height: block.height(), index, reason: "scripted".to_owned() });
        }
        let mut executed = self.inner.execute_block(block).await?;
        executed.root = self.root(executed.height, executed.root);
        self.script.state().executed.push(executed.height);
        Ok(executed)
    }

    async fn set_final(&mut self, height: Height) -> Result<(), EngineError> {
        let included = self.reader.da_progress().included;
        assert!(height <= included, "P7: {height} was made final, {included} is included");
        self.pass("set_final").await?;
        self.inner.set_final(height).await
    }

    async fn execution_info(&mut self) -> Result<ExecutionInfo, EngineError> {
        self.inner.execution_info().await
    }

    async fn position(&mut self) -> Result<EnginePosition, EngineError> {
        self.pass("position").await?;
        let mut position = self.inner.position().await?;
        position.root = self.root(position.height, position.root);
        Ok(position)
    }

    async fn rollback(&mut self, height: Height) -> Result<EnginePosition, EngineError> {
        self.pass("rollback").await?;
        self.script.state().rolled_back.push(height);
        if self.script.state().stays {
            return self.position().await;
        }
        self.inner.rollback(height).await
    }

    async fn prune(&mut self, height: Height) -> Result<(), EngineError> {
        self.inner.prune(height).await
    }
}
