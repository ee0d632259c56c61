//! What the storage thread is doing, for metrics and the watchdog.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A moment's view of the storage jobs of one store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Syncs of the write-ahead log that succeeded.
    pub fsyncs: u64,
    /// Groups of jobs that were written together.
    pub batches: u64,
    /// Jobs taken.
    pub jobs: u64,
    /// Jobs waiting now.
    pub queue_length: u64,
    /// How long the last sync took. Zero when jobs run inline: no clock is read then.
    pub last_fsync: Duration,
    /// Since when the storage thread works on the group it has not finished.
    pub busy_since: Option<Instant>,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) fsyncs: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) jobs: AtomicU64,
    pub(crate) queue_length: AtomicU64,
    pub(crate) last_fsync_nanos: AtomicU64,
    pub(crate) busy_since: Mutex<Option<Instant>>,
}

impl Counters {
    pub(crate) fn view(&self) -> Stats {
        Stats {
            fsyncs: self.fsyncs.load(Ordering::Relaxed),
            batches: self.batches.load(Ordering::Relaxed),
            jobs: self.jobs.load(Ordering::Relaxed),
            queue_length: self.queue_length.load(Ordering::Relaxed),
            last_fsync: Duration::from_nanos(self.last_fsync_nanos.load(Ordering::Relaxed)),
            busy_since: *self.busy_since.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }
}
