//! The durable queue of accepted transactions (P3).
//!
//! With it goes one height: no block up to there holds anything that is in the queue. Whoever
//! opens the queue looks at the blocks above before it shows or sends what is in it, however long
//! ago it was accepted. It is a record of its own, not a part of every entry: versions that do not
//! know it leave it low, and low is always right.

use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};

use baton_messages::codec::encode;
use baton_messages::mutation::{Mutation, planted};
use baton_messages::types::{Height, Tx};
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

    /// Appends transactions, all or none, and resolves to their sequence numbers. No block up to
    /// `checked` holds one of them, nor anything else in the queue.
    ///
    /// The numbers are given out when this is called, and rise for ever. Durable when the
    /// future resolves to `Ok`; after an error, or when the future is dropped, the
    /// transactions may or may not be in the queue after a restart.
    pub fn append(
        &self,
        txs: Vec<Tx>,
        checked: Height,
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
            // In one batch: a queue never survives without the height it was checked to.
            batch.put(Family::Meta, meta::QUEUE_CHECKED, number_key(checked.0));
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
                let sync = !planted(Mutation::AcceptBeforeSync);
                inner.jobs.push(Job { kind: Kind::Queue, batch, sync, done, room });
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
            let chunk = self.inner.backend.scan(Family::Queue, range, Direction::Forward, CHUNK);
            let chunk = self.inner.seen(chunk)?;
            let Some((last, _)) = chunk.last() else { return Ok(found) };
            from = Bound::Excluded(last.clone());
            for (key, value) in chunk {
                let number = self.inner.seen(key_number("queue entry", &key))?;
                found.push((number, self.inner.seen(decode("queued transaction", &value))?));
            }
        }
    }

    /// No block up to this height holds anything that is in the queue; `None` when that was never
    /// noted. May be lower than what was noted last, never higher.
    ///
    /// # Errors
    ///
    /// `StoreError` when the device fails or the data is damaged.
    pub fn checked(&self) -> Result<Option<Height>, StoreError> {
        let found = self.inner.seen(self.inner.backend.get(Family::Meta, meta::QUEUE_CHECKED))?;
        self.inner.seen(found.map(|bytes| key_number("checked height", &bytes).map(Height)).transpose())
    }

    /// Notes that no block up to this height holds anything that is in the queue: what they hold
    /// was removed before. No append may be under way. Returns at once; nothing is durable then.
    pub fn note_checked(&self, height: Height) {
        let mut batch = Batch::default();
        batch.put(Family::Meta, meta::QUEUE_CHECKED, number_key(height.0));
        // After the removals in the log: it never survives without them.
        self.inner.jobs.background(batch);
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;
    use crate::Store;
    use crate::memory::{Disk, Keep, options};

    fn tx(text: &'static str) -> Tx {
        Tx(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn the_checked_height_survives_with_what_was_appended_and_never_without_what_was_removed() {
        for kept in 0..4 {
            let disk = Disk::new();
            let store = Store::create_in_memory(&disk, options("queue"), Uuid::nil()).expect("an empty disk");
            let queue = store.queue();
            assert_eq!(queue.checked(), Ok(None));
            assert_eq!(queue.append(vec![tx("a"), tx("b")], Height(7)).await, Ok(vec![0, 1]));
            queue.remove(&[0]);
            queue.note_checked(Height(9));
            disk.crash(Keep::Prefix(kept));
            let queue = Store::in_memory(&disk, options("queue")).expect("its store").queue();
            let (checked, left) = (queue.checked().expect("readable"), queue.load().expect("readable"));
            match kept {
                0 => assert_eq!((checked, left.len()), (Some(Height(7)), 2)),
                1 => assert_eq!((checked, left.len()), (Some(Height(7)), 1), "low is right"),
                _ => assert_eq!((checked, left), (Some(Height(9)), vec![(1, tx("b"))])),
            }
        }
    }

    #[tokio::test]
    async fn damage_in_the_queue_is_trouble_of_the_store() {
        let damage: [fn(&Disk); 2] = [
            |disk| disk.damage_record(Family::Queue, number_key(1)),
            |disk| disk.damage_record(Family::Meta, meta::QUEUE_CHECKED),
        ];
        for damage in damage {
            let disk = Disk::new();
            let store = Store::create_in_memory(&disk, options("queue"), Uuid::nil()).expect("an empty disk");
            assert_eq!(store.queue().append(vec![tx("a"), tx("b")], Height(7)).await, Ok(vec![0, 1]));
            damage(&disk);
            let read = store.queue().load().and_then(|_| store.queue().checked());
            let trouble = read.expect_err("its checksum does not fit");
            assert!(matches!(trouble, StoreError::Corrupt(_)), "{trouble:?}");
            assert_eq!(
                store.trouble(),
                Some(trouble),
                "P8: nobody else would look at it before the next start"
            );
        }
    }

    #[tokio::test]
    async fn the_checked_height_keeps_its_bytes() {
        let store =
            Store::create_in_memory(&Disk::new(), options("queue"), Uuid::nil()).expect("an empty disk");
        assert_eq!(store.queue().append(vec![tx("a")], Height(0x0102_0304)).await, Ok(vec![0]));
        let bytes = store.backend().get(Family::Meta, b"queue_checked").expect("readable");
        assert_eq!(bytes.as_deref(), Some(&[0, 0, 0, 0, 1, 2, 3, 4][..]));
    }
}
