//! The key-value store underneath: column families, batches, one write-ahead log.

use std::ops::Bound;

use bytes::Bytes;

/// The column families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Identity, format, vote, applied state, positions.
    Meta,
    /// Raft log entries, without block bodies; key: big-endian index.
    Log,
    /// Block bodies; key: big-endian height, then header hash. Written once, by the append.
    Bodies,
    /// Committed headers; key: big-endian height.
    Headers,
    /// Header hash to the block's place: height, time, term.
    Index,
    /// Signatures; key: big-endian height.
    Signatures,
    /// Ranges of heights on DA; key: lane, then the big-endian last height of the range.
    DaHeights,
    /// Accepted transactions; key: big-endian sequence number.
    Queue,
    /// The key-value engine's current state.
    KvState,
    /// The key-value engine's hash tree.
    KvTree,
    /// What the key-value engine needs to go back.
    KvUndo,
    /// The key-value engine's position.
    KvMeta,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Meta,
        Self::Log,
        Self::Bodies,
        Self::Headers,
        Self::Index,
        Self::Signatures,
        Self::DaHeights,
        Self::Queue,
        Self::KvState,
        Self::KvTree,
        Self::KvUndo,
        Self::KvMeta,
    ];

    /// The name on disk.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Log => "log",
            Self::Bodies => "bodies",
            Self::Headers => "headers",
            Self::Index => "index",
            Self::Signatures => "signatures",
            Self::DaHeights => "da_heights",
            Self::Queue => "queue",
            Self::KvState => "kv_state",
            Self::KvTree => "kv_tree",
            Self::KvUndo => "kv_undo",
            Self::KvMeta => "kv_meta",
        }
    }
}

/// Changes that become visible and durable together.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// In order; later ones win.
    pub operations: Vec<Operation>,
    /// Written only while this is the backend's generation: what the batch was computed from
    /// may be gone in a later one.
    pub only_in: Option<u64>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Set a key.
    Put(Family, Bytes, Bytes),
    /// Remove a key.
    Delete(Family, Bytes),
    /// Remove all keys from the first (inclusive) to the second (exclusive).
    DeleteRange(Family, Bytes, Bytes),
}

impl Batch {
    /// Whether there is nothing to change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Sets a key.
    pub fn put(&mut self, family: Family, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.operations.push(Operation::Put(family, key.into(), value.into()));
    }

    /// Removes a key.
    pub fn delete(&mut self, family: Family, key: impl Into<Bytes>) {
        self.operations.push(Operation::Delete(family, key.into()));
    }

    /// Removes a range, end exclusive.
    pub fn delete_range(&mut self, family: Family, from: impl Into<Bytes>, to: impl Into<Bytes>) {
        self.operations.push(Operation::DeleteRange(family, from.into(), to.into()));
    }
}

/// Why the store underneath failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The device or file system failed. Close the store and reopen with back-off (P8).
    #[error("storage i/o: {0}")]
    Io(String),
    /// No space. Stop producing until there is room (P9).
    #[error("no space left for the store: {0}")]
    Full(String),
    /// What is stored contradicts itself. Stop; do not restart (exit code 70).
    #[error("the store is damaged: {0}")]
    Corrupt(String),
    /// The chain has moved on to entries that this version of baton cannot apply. Stop; start a
    /// newer version (exit code 70).
    #[error("a newer version of baton is needed: {0}")]
    Newer(String),
}

/// What is said of a device between letting go of it and having it again.
const REOPENING: &str = "the store is being opened again";

impl StoreError {
    /// What is answered while the device is being opened again.
    pub(crate) fn reopening() -> Self {
        Self::Io(REOPENING.into())
    }

    /// Whether it is only that. It says nothing about the device.
    pub(crate) fn is_reopening(&self) -> bool {
        matches!(self, Self::Io(text) if text == REOPENING)
    }

    /// What a batch of an earlier generation is answered.
    pub(crate) fn reopened() -> Self {
        Self::Io("the store was opened again meanwhile".into())
    }
}

/// Goes on with a sync.
pub type Go = Box<dyn FnOnce() + Send>;

/// Direction of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Ascending keys.
    Forward,
    /// Descending keys.
    Reverse,
}

/// One store with one write-ahead log.
///
/// Writes become visible at once and durable in WAL order: after a crash the surviving writes
/// are a prefix of all writes, at least up to the last `sync` (P4).
pub trait Backend: Send + Sync + 'static {
    /// The value of a key.
    ///
    /// # Errors
    ///
    /// `StoreError` when the device fails or the data is damaged.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Keys and values in a range, at most `limit`.
    ///
    /// # Errors
    ///
    /// `StoreError` when the device fails or the data is damaged.
    fn scan(
        &self,
        family: Family,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError>;

    /// Writes a batch atomically; visible when it returns, durable after the next `sync`.
    ///
    /// # Errors
    ///
    /// `StoreError` when the device fails; then nothing of the batch is visible.
    fn write(&self, batch: Batch) -> Result<(), StoreError>;

    /// Makes everything written before durable (one fsync of the WAL).
    ///
    /// # Errors
    ///
    /// `StoreError` when the device fails; then nothing is promised about unsynced writes.
    fn sync(&self) -> Result<(), StoreError>;

    /// Asked before a sync when jobs run inline, in simulations: the way back when it may begin at
    /// once, `None` when it is called later.
    fn wait_to_sync(&self, go: Go) -> Option<Go> {
        Some(go)
    }

    /// Gives up the device: every later call fails. Returns when its lock is released.
    fn close(&self) {}

    /// Lets go of the device and takes it again after a failure; what was written and is still
    /// there is read anew. Blocks while a write-ahead log is replayed; other calls do not wait for
    /// that, they fail.
    ///
    /// # Errors
    ///
    /// `StoreError` when it still fails; then every call fails until this succeeds.
    fn reopen(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// How often it was opened again in place. Whoever keeps in memory what it has read looks at
    /// this first: writes that were not synced may be gone since.
    fn generation(&self) -> u64 {
        0
    }
}
