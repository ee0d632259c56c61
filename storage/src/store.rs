//! Opening a store, and the handle everything else is reached through.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use baton_messages::codec::encode;
use baton_messages::command::COMMAND_VERSION;
use baton_messages::genesis::Genesis;
use baton_messages::mutation::{Mutation, planted};
use baton_messages::types::{Hash, MemberId};
use uuid::Uuid;

use crate::backend::{Backend, Batch, Family, StoreError};
use crate::chain::Chain;
use crate::filler::Filler;
use crate::jobs::{Completion, Jobs, Kind};
use crate::log::Log;
use crate::log_store::LogStore;
use crate::memory::Disk;
use crate::migrate::{self, FORMAT, STEPS, Step};
use crate::queue::{QueueStore, Sequence};
use crate::raft_types::{LogId, StoredMembership};
use crate::reader::Reader;
use crate::records::{Identified, decode, key_number, meta, number_key};
use crate::rocks::{Rocks, is_lock_error};
use crate::state_machine::StateMachine;
use crate::stats::Stats;
use crate::writer::{Notify, Writer};

/// What to open, and for which chain.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// The RocksDB directory; not used in memory.
    pub path: PathBuf,
    /// The chain's name.
    pub chain_id: String,
    /// What the chain begins with.
    pub genesis: Genesis,
    /// How storage jobs complete.
    pub completion: Completion,
}

/// Why a store was not opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// There is no store. An empty directory never forms a cluster by itself.
    #[error("there is no store in {0}: run `baton init` first")]
    NotInitialised(PathBuf),
    /// There is a store already, where one should be made.
    #[error("there is a store in {0} already: nothing was changed")]
    AlreadyInitialised(PathBuf),
    /// The store belongs to another chain.
    #[error("the store belongs to {found}, not to {wanted}: check the genesis file and the data directory")]
    OtherChain {
        /// Whose it is.
        found: String,
        /// Whose it should be.
        wanted: String,
    },
    /// A newer version of baton wrote it.
    #[error("the store has format {found}, this version of baton knows up to {known}: use the newer version")]
    NewerFormat {
        /// Its format.
        found: u32,
        /// The newest known format.
        known: u32,
    },
    /// The chain in it has moved on to entries that this version cannot apply.
    #[error("a newer version of baton is needed: {0}")]
    NewerEntries(String),
    /// Somebody has it open.
    #[error("the store in {0} is in use by another process: stop that one first")]
    InUse(PathBuf),
    /// What is stored contradicts itself.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// The device or file system failed.
    #[error("the store cannot be opened: {0}")]
    Io(String),
}

impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Corrupt(reason) => Self::Damaged(reason),
            StoreError::Newer(reason) => Self::NewerEntries(reason),
            StoreError::Io(_) | StoreError::Full(_) => Self::Io(error.to_string()),
        }
    }
}

/// Why a store did not become part of a cluster. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// It belongs to another one.
    #[error("this store belongs to cluster {here} and never joins another one ({asked})")]
    Other {
        /// Its cluster.
        here: Uuid,
        /// The other one.
        asked: Uuid,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Whose store this is, and which of its lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Random, made with the store, never changed.
    pub storage: Uuid,
    /// How often the store was opened; this opening is counted durably.
    pub boot: u64,
    /// The chain's name.
    pub chain_id: String,
    /// The genesis' hash.
    pub genesis_hash: Hash,
}

/// What every handle shares.
pub(crate) struct Inner {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) jobs: Jobs,
    pub(crate) chain: RwLock<Chain>,
    pub(crate) log: Log,
    pub(crate) sequence: Sequence,
    pub(crate) genesis: Genesis,
    pub(crate) identity: Identity,
    /// Changes of the chain come one after another.
    pub(crate) turn: Mutex<()>,
    /// So do installing a head and filling in bodies, which wait for the disk.
    pub(crate) repair: tokio::sync::Mutex<()>,
    /// The newest version of log entries that can be applied.
    pub(crate) known: AtomicU8,
    /// The cluster this store belongs to.
    pub(crate) cluster: Mutex<Option<Uuid>>,
    path: Option<PathBuf>,
}

impl Inner {
    /// Remembers an error before it is handed on: a store that fails to read is in trouble. One that
    /// is being opened again was in trouble before, and may be open by now.
    pub(crate) fn seen<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error) = &result
            && !error.is_reopening()
        {
            self.jobs.report(error);
        }
        result
    }

    /// Whether a membership names this store.
    pub(crate) fn is_named_by(&self, membership: &StoredMembership) -> bool {
        membership.membership().get_node(&MemberId::of(self.identity.storage)).is_some()
    }

    /// Writes down that this store belonged to its cluster once a membership names it.
    pub(crate) fn note_belonging(&self, membership: &StoredMembership, batch: &mut Batch) {
        if self.is_named_by(membership) {
            batch.put(Family::Meta, meta::BELONGED, vec![]);
        }
    }

    /// Makes durable what was written before: a head that a member goes on from (B13).
    pub(crate) async fn make_head_durable(&self) -> Result<(), StoreError> {
        let durable = !planted(Mutation::HeadWithoutSync);
        self.jobs.run(Kind::Other, Batch::default(), durable).await
    }
}

/// An open store. Clones are the same store; it closes with `close` or its last handle.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("identity", &self.inner.identity).finish_non_exhaustive()
    }
}

impl Store {
    /// Makes a store in a directory and opens it. Durable when it returns.
    ///
    /// `storage` is its random identity; it is chosen by the caller and never changes.
    ///
    /// # Errors
    ///
    /// `AlreadyInitialised` when there is one; otherwise as `open`.
    pub fn create(options: OpenOptions, storage: Uuid) -> Result<Self, OpenError> {
        std::fs::create_dir_all(&options.path)
            .map_err(|error| OpenError::Io(format!("{}: {error}", options.path.display())))?;
        let backend = open_rocks(&options.path)?;
        initialise(&backend, &options, storage)?;
        Self::start(Arc::new(backend), options, true, STEPS, COMMAND_VERSION)
    }

    /// Opens the store in a directory. The boot counter is durable when it returns.
    ///
    /// # Errors
    ///
    /// `OpenError`, saying what to do.
    pub fn open(options: OpenOptions) -> Result<Self, OpenError> {
        if !Rocks::exists(&options.path) {
            return Err(OpenError::NotInitialised(options.path));
        }
        let backend = open_rocks(&options.path)?;
        Self::start(Arc::new(backend), options, true, STEPS, COMMAND_VERSION)
    }

    /// Makes a store on an in-memory disk and opens it. Durable when it returns.
    ///
    /// # Errors
    ///
    /// As `create`.
    pub fn create_in_memory(disk: &Disk, options: OpenOptions, storage: Uuid) -> Result<Self, OpenError> {
        let backend = disk.attach();
        initialise(&backend, &options, storage)?;
        Self::start(Arc::new(backend), options, false, STEPS, COMMAND_VERSION)
    }

    /// Opens the store on an in-memory disk.
    ///
    /// # Errors
    ///
    /// As `open`.
    pub fn in_memory(disk: &Disk, options: OpenOptions) -> Result<Self, OpenError> {
        Self::in_memory_knowing(disk, options, COMMAND_VERSION)
    }

    /// As `in_memory`, as a version of baton that knows log entries up to this version: for
    /// simulations of rolling upgrades.
    ///
    /// # Errors
    ///
    /// As `open`.
    pub fn in_memory_knowing(disk: &Disk, options: OpenOptions, known: u8) -> Result<Self, OpenError> {
        Self::start(Arc::new(disk.attach()), options, false, STEPS, known)
    }

    pub(crate) fn start(
        backend: Arc<dyn Backend>,
        options: OpenOptions,
        on_disk: bool,
        steps: &[Step],
        known: u8,
    ) -> Result<Self, OpenError> {
        let identified = admit(&*backend, &options, steps)?;
        let genesis = identified.genesis;
        let chain = Chain::load(&*backend, &genesis)?;
        chain.expect_known(known)?;
        let boot = count_boot(&*backend)?;
        let log = Log::load(&*backend)?;
        let sequence = Sequence::load(&*backend)?;
        let jobs = Jobs::start(backend.clone(), options.completion)
            .map_err(|error| OpenError::Io(format!("no storage thread: {error}")))?;
        let identity = Identity {
            storage: identified.storage,
            boot,
            chain_id: genesis.chain_id.clone(),
            genesis_hash: genesis.hash(),
        };
        let path = on_disk.then_some(options.path);
        let chain = RwLock::new(chain);
        let turn = Mutex::default();
        let repair = tokio::sync::Mutex::default();
        let cluster = Mutex::new(read_cluster(&*backend)?);
        let known = AtomicU8::new(known);
        let inner = Inner {
            backend,
            jobs,
            chain,
            log,
            sequence,
            genesis,
            identity,
            turn,
            repair,
            known,
            cluster,
            path,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Whose store this is, and which of its lives.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.inner.identity.clone()
    }

    /// The cluster this store belongs to; `None` before it belongs to one.
    #[must_use]
    pub fn cluster(&self) -> Option<Uuid> {
        *self.inner.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on this store belongs to a cluster, for ever. Durable when it returns.
    ///
    /// # Errors
    ///
    /// `Other` when it belongs to another one already; `Store` when the device fails.
    pub async fn join_cluster(&self, cluster: Uuid) -> Result<(), ClusterError> {
        match self.cluster() {
            Some(here) if here == cluster => return Ok(()),
            Some(here) => return Err(ClusterError::Other { here, asked: cluster }),
            None => {}
        }
        let mut batch = Batch::default();
        batch.put(Family::Meta, meta::CLUSTER, encode(&cluster));
        self.inner.jobs.run(Kind::Other, batch, true).await?;
        *self.inner.cluster.lock().unwrap_or_else(PoisonError::into_inner) = Some(cluster);
        Ok(())
    }

    /// Whether what is applied covers this entry of the log. If so, it is durable when it returns.
    ///
    /// # Errors
    ///
    /// `StoreError` when the device fails.
    pub async fn rests_on(&self, id: LogId) -> Result<bool, StoreError> {
        let applied = self.inner.chain.read().unwrap_or_else(PoisonError::into_inner).applied.log;
        if applied.is_none_or(|applied| applied.index < id.index) {
            return Ok(false);
        }
        self.inner.make_head_durable().await?;
        Ok(true)
    }

    /// From now on behaves like a version of baton that knows log entries up to this version: for
    /// simulations of rolling upgrades.
    pub fn pretend_to_know(&self, version: u8) {
        self.inner.known.store(version, Ordering::Relaxed);
    }

    /// The newest version of log entries that can be applied here.
    #[must_use]
    pub fn known_command_version(&self) -> u8 {
        self.inner.known.load(Ordering::Relaxed)
    }

    /// openraft's log.
    #[must_use]
    pub fn log(&self) -> LogStore {
        LogStore::new(self.inner.clone())
    }

    /// The one way into the chain. `notify` is called after every batch that is applied, on
    /// the thread that applies; it must not block and must not call the writer.
    #[must_use]
    pub fn writer(&self, notify: Notify) -> Writer {
        Writer::new(self.inner.clone(), notify)
    }

    /// The writer's entrance for missing bodies, for who fetches them.
    #[must_use]
    pub fn filler(&self) -> Filler {
        Filler::new(self.writer(Box::new(|_| {})))
    }

    /// openraft's state machine, around a writer.
    #[must_use]
    pub fn state_machine(&self, notify: Notify) -> StateMachine {
        StateMachine::new(self.writer(notify))
    }

    /// The chain, for reading.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::new(self.inner.clone())
    }

    /// The queue of accepted transactions.
    #[must_use]
    pub fn queue(&self) -> QueueStore {
        QueueStore::new(self.inner.clone())
    }

    /// The key-value store underneath, for the families of the key-value engine.
    #[must_use]
    pub fn backend(&self) -> Arc<dyn Backend> {
        self.inner.backend.clone()
    }

    /// What the storage jobs are doing.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.inner.jobs.stats()
    }

    /// The first error of the store, if there was one. Every later change fails with it until
    /// the store is closed and opened again.
    #[must_use]
    pub fn trouble(&self) -> Option<StoreError> {
        self.inner.jobs.trouble()
    }

    /// Whether blocking work goes on threads of its own, or inline in a simulation.
    #[must_use]
    pub fn completion(&self) -> Completion {
        self.inner.jobs.completion()
    }

    /// Opens the store again in place after a failure: every handle works again, and sees what
    /// survived. No log store or state machine of before may be in use (stop Raft first).
    ///
    /// What was not synced before the failure may be gone; what is visible afterwards is durable.
    ///
    /// # Errors
    ///
    /// `OpenError` when the device still fails, or what it holds is damaged. Try again later.
    pub async fn reopen(&self) -> Result<(), OpenError> {
        let store = self.clone();
        match self.inner.jobs.completion() {
            Completion::Inline => store.reopen_now(),
            Completion::Thread => {
                let (sender, receiver) = tokio::sync::oneshot::channel();
                let thread = std::thread::Builder::new().name("reopen".into());
                let spawned = thread.spawn(move || {
                    // Whoever asked may have gone away.
                    let _ = sender.send(store.reopen_now());
                });
                spawned.map_err(|error| OpenError::Io(error.to_string()))?;
                let gone = || OpenError::Io("the thread that opened the store is gone".into());
                receiver.await.unwrap_or_else(|_| Err(gone()))
            }
        }
    }

    fn reopen_now(&self) -> Result<(), OpenError> {
        let inner = &self.inner;
        let _turn = inner.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // What is asked of the store meanwhile fails before it reaches the device.
        inner.jobs.report(&StoreError::reopening());
        inner.backend.reopen()?;
        let chain = Chain::load(&*inner.backend, &inner.genesis)?;
        chain.expect_known(self.known_command_version())?;
        inner.log.reload(&*inner.backend)?;
        *inner.cluster.lock().unwrap_or_else(PoisonError::into_inner) = read_cluster(&*inner.backend)?;
        *inner.chain.write().unwrap_or_else(PoisonError::into_inner) = chain;
        inner.jobs.forgive();
        Ok(())
    }

    /// Bytes that are free for this process on the store's file system; `None` in memory.
    ///
    /// # Errors
    ///
    /// `Io` when the file system does not answer.
    pub fn free_space(&self) -> Result<Option<u64>, StoreError> {
        let Some(path) = &self.inner.path else { return Ok(None) };
        let stat = rustix::fs::statvfs(path)
            .map_err(|error| StoreError::Io(format!("{}: {error}", path.display())))?;
        Ok(Some(stat.f_bavail.saturating_mul(stat.f_frsize)))
    }

    /// Finishes and syncs what is queued, ends the storage thread and releases the lock of the
    /// directory. Blocks until then. Every later call on any handle fails.
    pub fn close(&self) {
        self.inner.jobs.close();
    }
}

fn open_rocks(path: &Path) -> Result<Rocks, OpenError> {
    Rocks::open(path)
        .map_err(|error| if is_lock_error(&error) { OpenError::InUse(path.to_owned()) } else { error.into() })
}

/// Writes the identity of a new store.
fn initialise(backend: &dyn Backend, options: &OpenOptions, storage: Uuid) -> Result<(), OpenError> {
    if migrate::format(backend)?.is_some() {
        return Err(OpenError::AlreadyInitialised(options.path.clone()));
    }
    let mut batch = Batch::default();
    migrate::set_format(&mut batch, FORMAT);
    batch.put(
        Family::Meta,
        meta::IDENTITY,
        encode(&Identified { storage, genesis: options.genesis.clone() }),
    );
    backend.write(batch)?;
    Ok(backend.sync()?)
}

/// Checks that the store is one of ours, migrated, and of the wanted chain.
fn admit(backend: &dyn Backend, options: &OpenOptions, steps: &[Step]) -> Result<Identified, OpenError> {
    let format = migrate::format(backend)?.ok_or_else(|| OpenError::NotInitialised(options.path.clone()))?;
    if format > FORMAT {
        return Err(OpenError::NewerFormat { found: format, known: FORMAT });
    }
    migrate::migrate(backend, format, FORMAT, steps)?;
    let bytes = backend
        .get(Family::Meta, meta::IDENTITY)?
        .ok_or_else(|| OpenError::Damaged("the store has no identity".into()))?;
    let found: Identified = decode("identity", &bytes)?;
    let wanted = &options.genesis;
    if found.genesis.hash() != wanted.hash() || options.chain_id != found.genesis.chain_id {
        let name =
            |chain_id: &str, genesis: &Genesis| format!("chain {chain_id:?} (genesis {})", genesis.hash());
        return Err(OpenError::OtherChain {
            found: name(&found.genesis.chain_id, &found.genesis),
            wanted: name(&options.chain_id, wanted),
        });
    }
    Ok(found)
}

fn read_cluster(backend: &dyn Backend) -> Result<Option<Uuid>, StoreError> {
    let found = backend.get(Family::Meta, meta::CLUSTER)?;
    found.map(|bytes| decode("the cluster's identity", &bytes)).transpose()
}

fn count_boot(backend: &dyn Backend) -> Result<u64, StoreError> {
    let before = match backend.get(Family::Meta, meta::BOOT)? {
        Some(bytes) => key_number("boot counter", &bytes)?,
        None => 0,
    };
    let mut batch = Batch::default();
    batch.put(Family::Meta, meta::BOOT, number_key(before + 1));
    backend.write(batch)?;
    backend.sync()?;
    Ok(before + 1)
}
