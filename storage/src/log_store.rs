//! openraft's log on the store.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, PoisonError};

use baton_messages::codec::encode;
use baton_messages::mutation::{Mutation, planted};
use baton_messages::types::{Hash, Height};
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};

use crate::backend::{Batch, Family, Operation, StoreError};
use crate::chain;
use crate::jobs::{Job, Kind};
use crate::log::{State, block_of, record_of};
use crate::raft_types::{Entry, LogId, TypeConfig, Vote};
use crate::records::{LogIdRecord, LogRecord, VoteRecord, body_key, decode, meta, number_key};
use crate::store::Inner;

/// Most bytes of entries that replication gets at a time.
const READ_BYTES: usize = 4 << 20;

/// The Raft log. Clones are the same log.
///
/// Block bodies lie beside the log under height and hash; entries with the same block share
/// one (P4).
#[derive(Clone)]
pub struct LogStore {
    inner: Arc<Inner>,
}

impl Debug for LogStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogStore").finish_non_exhaustive()
    }
}

pub(crate) fn io_error(error: StoreError) -> io::Error {
    io::Error::other(error)
}

impl LogStore {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    /// The last purged index, and how many entries at the end have records (without bodies) of at
    /// most so many bytes together.
    #[must_use]
    pub fn newest_within(&self, bytes: u64) -> (u64, u64) {
        let state = self.inner.log.lock();
        (state.purged.map_or(0, |purged| purged.index), state.newest_within(bytes))
    }

    /// The lowest height whose block an entry of the log carries; `None` without any.
    #[must_use]
    pub fn lowest_block(&self) -> Option<Height> {
        self.inner.log.lock().lowest_block()
    }

    /// The vote this member gave last.
    #[must_use]
    pub fn vote(&self) -> Option<Vote> {
        self.inner.log.lock().vote
    }

    /// Whether this entry is in the log for good, and with it everything before it.
    ///
    /// # Errors
    ///
    /// `StoreError` when the device fails or the data is damaged.
    pub fn holds(&self, id: LogId) -> Result<bool, StoreError> {
        if self.inner.log.durable().is_none_or(|last| last.index < id.index) {
            return Ok(false);
        }
        let found = self.inner.seen(self.inner.backend.get(Family::Log, &number_key(id.index)))?;
        let Some(bytes) = found else { return Ok(false) };
        let record: LogRecord = self.inner.seen(decode("log entry", &bytes))?;
        Ok(record.term == id.leader_id.term)
    }

    /// Whether something other than the log needs a body: a committed header.
    fn is_committed(&self, height: Height, hash: Hash) -> Result<bool, StoreError> {
        Ok(chain::header(&*self.inner.backend, height)?.is_some_and(|record| record.hash == hash))
    }

    /// Whether a body may be that of a committed block: below the tip also when the header there is
    /// not here yet. It may be filled in at this moment, and find the body stored.
    fn may_be_committed(&self, height: Height, hash: Hash) -> Result<bool, StoreError> {
        let header = chain::header(&*self.inner.backend, height)?;
        let tip = self.inner.chain.read().unwrap_or_else(PoisonError::into_inner).tip();
        Ok(header.map_or(height <= tip.height, |record| record.hash == hash))
    }

    /// Removes bodies from a batch's point of view: those nobody refers to any more.
    fn release(
        &self,
        state: &mut State,
        bodies: Vec<(Height, Hash)>,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        for (height, hash) in bodies {
            if state.release(height, hash).is_some() && !self.may_be_committed(height, hash)? {
                batch.delete(Family::Bodies, body_key(height, hash));
            }
        }
        Ok(())
    }

    /// Adds an entry to a batch, and its body unless it is stored already.
    fn write_entry(&self, state: &mut State, entry: &Entry, batch: &mut Batch) -> Result<(), StoreError> {
        let record = record_of(entry);
        if let Some(block) = block_of(entry) {
            let (height, hash) = (block.height(), block.hash());
            if !state.refers_to(height, hash) {
                let key = body_key(height, hash);
                let stored = self.is_committed(height, hash)?
                    && self.inner.backend.get(Family::Bodies, &key)?.is_some();
                if !stored {
                    batch.put(Family::Bodies, key, encode(block.data()));
                }
            }
        }
        state.refer(&record);
        let record = encode(&record);
        state.measure(record.len());
        batch.put(Family::Log, number_key(entry.log_id.index), record);
        Ok(())
    }

    /// Queues a change that nobody waits for: what follows in the queue follows it on disk.
    async fn queue(
        &self,
        kind: Kind,
        change: impl FnOnce(&mut State, &mut Batch) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let room = self.inner.jobs.room().await;
        if let Some(trouble) = self.inner.jobs.trouble() {
            return Err(trouble);
        }
        let mut state = self.inner.log.lock();
        let mut batch = Batch::default();
        change(&mut state, &mut batch).inspect_err(|error| self.inner.jobs.report(error))?;
        self.inner.jobs.push(Job { kind, batch, sync: false, done: Box::new(|_| {}), room });
        Ok(())
    }

    fn read(&self, from: u64, to: u64, budget: usize) -> Result<Vec<Entry>, io::Error> {
        let found = self.inner.log.read(&*self.inner.backend, from, to, budget);
        found.inspect_err(|error| self.inner.jobs.report(error)).map_err(io_error)
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(from) => from.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(to) => to.saturating_add(1),
            Bound::Excluded(to) => *to,
            Bound::Unbounded => u64::MAX,
        };
        self.read(from, to, usize::MAX)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.inner.log.lock().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.read(start, end, READ_BYTES)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let state = self.inner.log.lock();
        Ok(LogState { last_purged_log_id: state.purged, last_log_id: state.last })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    /// The vote is durable when this returns. It waits for no room in the queue, and for what was
    /// queued before it: a vote on disk without those entries would be a promise about a log that a
    /// crash takes away (ADR 3).
    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let mut batch = Batch::default();
        batch.put(Family::Meta, meta::VOTE, encode(&VoteRecord::from(*vote)));
        let durable = !planted(Mutation::VoteWithoutSync);
        self.inner.jobs.run(Kind::Vote, batch, durable).await.map_err(io_error)?;
        self.inner.log.lock().vote = Some(*vote);
        Ok(())
    }

    /// Not durable when this returns: written with the next job. It never gets ahead of the
    /// entries, because it is written after all that are queued.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.inner.log.lock().committed = committed;
        if let Some(committed) = committed {
            let record = encode(&LogIdRecord::from(committed));
            let key = bytes::Bytes::from_static(meta::COMMITTED);
            self.inner.jobs.hint(Operation::Put(Family::Meta, key, record.into()));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.inner.log.lock().committed)
    }

    /// The entries are readable when this returns, and durable when the callback is called. A store
    /// in trouble takes none: openraft must not go on as if it could read them.
    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let room = self.inner.jobs.room().await;
        if let Some(trouble) = self.inner.jobs.trouble() {
            return Err(io_error(trouble));
        }
        let mut state = self.inner.log.lock();
        let mut batch = Batch::default();
        for entry in &entries {
            self.write_entry(&mut state, entry, &mut batch)
                .inspect_err(|error| self.inner.jobs.report(error))
                .map_err(io_error)?;
        }
        let (durable, last) = (self.inner.log.note_durable(), entries.last().map(|entry| entry.log_id));
        let done = Box::new(move |result: Result<(), StoreError>| {
            if result.is_ok() {
                durable(last);
            }
            callback.io_completed(result.map_err(io_error));
        });
        let sync = !planted(Mutation::AckBeforeSync);
        let job = self.inner.jobs.push(Job { kind: Kind::Append, batch, sync, done, room });
        let written = self.inner.jobs.written();
        for entry in entries {
            state.push(entry, job, written);
        }
        Ok(())
    }

    /// In effect when this returns, not durable: a later append is durable only together with
    /// it. Bodies that no entry and no committed header refers to go too.
    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let change = |state: &mut State, batch: &mut Batch| {
            let last = last_log_id.max(state.purged);
            let from = last.map_or(0, |last| last.index + 1);
            if from >= state.next() {
                return Ok(());
            }
            let from = if planted(Mutation::CutMatchingEntry) { from.saturating_sub(1) } else { from };
            let bodies = state.bodies_of(&*self.inner.backend, from, u64::MAX)?;
            self.release(state, bodies, batch)?;
            batch.delete_range(Family::Log, number_key(from), number_key(u64::MAX));
            state.cut_after(last);
            Ok(())
        };
        self.queue(Kind::Other, change).await.map_err(io_error)
    }

    /// In effect when this returns, not durable: a purge that is lost is done again. Bodies of
    /// committed blocks stay.
    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        let change = |state: &mut State, batch: &mut Batch| {
            if state.purged.is_some_and(|purged| purged.index >= log_id.index) {
                return Ok(());
            }
            let bodies = state.bodies_of(&*self.inner.backend, 0, log_id.index + 1)?;
            self.release(state, bodies, batch)?;
            batch.delete_range(Family::Log, number_key(0), number_key(log_id.index + 1));
            batch.put(Family::Meta, meta::PURGED, encode(&LogIdRecord::from(log_id)));
            state.cut_before(log_id);
            Ok(())
        };
        self.queue(Kind::Purge, change).await.map_err(io_error)
    }
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;
    use uuid::Uuid;

    use super::*;
    use crate::Store;
    use crate::memory::{Disk, options};
    use crate::raft_types::log_id;

    #[test]
    fn an_entry_is_held_when_its_index_is_there_for_good_in_its_term() {
        let disk = Disk::new();
        let store = Store::create_in_memory(&disk, options("log"), Uuid::nil()).expect("an empty disk");
        let mut batch = Batch::default();
        for index in 0..3 {
            let entry = Entry { log_id: log_id(4, index), payload: EntryPayload::Blank };
            batch.put(Family::Log, number_key(index), encode(&record_of(&entry)));
        }
        store.backend().write(batch).expect("no hook");
        store.backend().sync().expect("no hook");
        drop(store);
        let log = Store::in_memory(&disk, options("log")).expect("its store").log();
        assert_eq!(log.holds(log_id(4, 2)), Ok(true));
        assert_eq!(log.holds(log_id(3, 2)), Ok(false), "another leader's");
        assert_eq!(log.holds(log_id(4, 3)), Ok(false), "beyond its end");
    }
}
