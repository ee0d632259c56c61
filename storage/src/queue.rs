//! The durable queue of accepted transactions (P3).

use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};

use baton_messages::codec::encode;
use baton_messages::types::Tx;
use tokio::sync::oneshot;

use crate::backend::{Backend, Batch, Direction, Family, StoreError};
use crate::jobs::{Done, Job, Kind};
use crate::records::{decode, key_number, meta, number_key};
use crate::store::Inner;

/// How many transactions are read at a time.
const CHUNK: usize = 1024;

/// The transactions this node has accepted and not yet seen committed.
#[derive(Clone)]
pub struct QueueStore {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for QueueStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueueStore").finish_non_exhaustive()
    }
}

/// Where the queue goes on.
#[derive(Debug)]
pub(crate) struct Sequence(Mutex<u64>);

impl Sequence {
    pub(crate) fn load(backend: &dyn Backend) -> Result<Self, StoreError> {
        let next = match backend.get(Family::Meta, meta::QUEUE_NEXT)? {
            Some(bytes) => key_number("queue position", &bytes)?,
            None => 0,
        };
        Ok(Self(Mutex::new(next)))
    }
}

impl QueueStore {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    /// Appends transactions, all or none, and resolves to their sequence numbers.
    ///
    /// The numbers are given out when this is called, and rise for ever. Durable when the
    /// future resolves to `Ok`; after an error, or when the future is dropped, the
    /// transactions may or may not be in the queue after a restart.
    pub fn append(
        &self,
        txs: Vec<Tx>,
    ) -> impl Future<Output = Result<Vec<u64>, StoreError>> + Send + 'static + use<> {
        let inner = self.inner.clone();
        let first = {
            let mut next = inner.sequence.0.lock().unwrap_or_else(PoisonError::into_inner);
            let first = *next;
            *next += txs.len() as u64;
            first
        };
        async move {
            let mut batch = Batch::default();
            let mut numbers = Vec::with_capacity(txs.len());
            for (number, tx) in (first..).zip(&txs) {
                batch.put(Family::Queue, number_key(number), encode(tx));
                numbers.push(number);
            }
            if numbers.is_empty() {
                return Ok(numbers);
            }
            let room = inner.jobs.room().await;
            let (sender, receiver) = oneshot::channel();
            let done: Done = Box::new(move |result| {
                // Whoever asked may have gone away.
                let _ = sender.send(result);
            });
            {
                // Under the lock, so that no later job writes an earlier position.
                let next = inner.sequence.0.lock().unwrap_or_else(PoisonError::into_inner);
                batch.put(Family::Meta, meta::QUEUE_NEXT, number_key(*next));
                inner.jobs.push(Job { kind: Kind::Queue, batch, sync: true, done, room });
            }
            receiver.await.unwrap_or_else(|_| Err(StoreError::Io("the storage thread is gone".into())))?;
            Ok(numbers)
        }
    }

    /// How often the store was opened again in place: removals that were not synced may be
    /// undone since, load it again.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.inner.backend.generation()
    }

    /// Everything in the queue, in order. Meant for the start, and after each reopening.
    ///
    /// # Errors
    ///
    /// `StoreError` when the device fails or the data is damaged.
    pub fn load(&self) -> Result<Vec<(u64, Tx)>, StoreError> {
        let mut found = Vec::new();
        let mut from = Bound::Unbounded;
        loop {
            let range = (from.as_ref().map(|key: &bytes::Bytes| &key[..]), Bound::Unbounded);
            let chunk = self.inner.backend.scan(Family::Queue, range, Direction::Forward, CHUNK)?;
            let Some((last, _)) = chunk.last() else { return Ok(found) };
            from = Bound::Excluded(last.clone());
            for (key, value) in chunk {
                found.push((key_number("queue entry", &key)?, decode("queued transaction", &value)?));
            }
        }
    }

    /// Removes transactions. Returns at once; nothing is durable then, and removed
    /// transactions may be back after a crash: the replay window drops them again.
    pub fn remove(&self, numbers: &[u64]) {
        let mut batch = Batch::default();
        for number in numbers {
            batch.delete(Family::Queue, number_key(*number));
        }
        if !batch.is_empty() {
            self.inner.jobs.background(batch);
        }
    }
}
