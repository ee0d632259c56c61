//! The Raft log as it is held in memory: its ends, its vote, and a tail of recent entries.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use baton_messages::chain::Block;
use baton_messages::command::{BlockEntry, Command};
use baton_messages::types::{Hash, Height};
use openraft::EntryPayload;

use crate::backend::{Backend, Direction, Family, StoreError};
use crate::chain;
use crate::raft_types::{Entry, LogId, Payload, Vote, log_id};
use crate::records::{
    BlockRecord, Content, LogIdRecord, LogRecord, VoteRecord, decode, key_number, meta, number_key,
};

/// Most entries that are kept in memory once they are written.
const TAIL_ENTRIES: usize = 1024;
/// Most bytes of transactions in them.
const TAIL_BYTES: usize = 64 << 20;
/// How many records are read from the disk at a time.
const CHUNK: usize = 64;

/// An entry in memory.
struct Tailed {
    entry: Entry,
    bytes: usize,
    /// The job that writes it.
    job: u64,
}

/// What is known of the log without reading the disk.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
    pub(crate) purged: Option<LogId>,
    /// The last entry, or the last purged one.
    pub(crate) last: Option<LogId>,
    tail: VecDeque<Tailed>,
    tail_bytes: usize,
    /// How many retained entries refer to each body.
    bodies: BTreeMap<(Height, Hash), usize>,
    /// Bytes of each retained record on the disk, without bodies; the last is that of `last`.
    sizes: VecDeque<u32>,
    /// How often entries were cut off at either end.
    cuts: u64,
}

/// The log of one store.
pub(crate) struct Log {
    state: Mutex<State>,
    /// The end of what has reached the disk.
    durable: Arc<Mutex<Option<LogId>>>,
}

impl Log {
    /// Reads the ends of the log and which bodies it refers to; no bodies.
    pub(crate) fn load(backend: &dyn Backend) -> Result<Self, StoreError> {
        let position = |key: &[u8], what: &str| -> Result<Option<LogId>, StoreError> {
            let found = backend.get(Family::Meta, key)?;
            found.map(|bytes| decode::<LogIdRecord>(what, &bytes).map(Into::into)).transpose()
        };
        let vote = backend.get(Family::Meta, meta::VOTE)?;
        let vote = vote.map(|bytes| decode::<VoteRecord>("vote", &bytes)).transpose()?;
        let purged = position(meta::PURGED, "purged position")?;
        let mut state = State {
            vote: vote.map(Into::into),
            committed: position(meta::COMMITTED, "committed position")?,
            purged,
            last: purged,
            ..State::default()
        };
        let mut from = 0;
        loop {
            let records = records(backend, from, u64::MAX, CHUNK)?;
            let Some((last, record, _)) = records.last() else { break };
            let before = state.sizes.len();
            let first = if before == 0 { records[0].0 } else { from };
            if let Some(hole) = (first..).zip(&records).find_map(|(at, found)| (found.0 != at).then_some(at))
            {
                return Err(hole_at(hole));
            }
            state.last = Some(log_id(record.term, *last));
            from = last + 1;
            for (_, record, bytes) in &records {
                state.refer(record);
                state.sizes.push_back(*bytes);
            }
        }
        // Nothing may be re-applied that the log does not hold (a lost, unsynced tail).
        state.committed = state.committed.min(state.last);
        let durable = Arc::new(Mutex::new(state.last));
        Ok(Self { state: Mutex::new(state), durable })
    }

    /// Reads everything anew, after the backend was opened again.
    pub(crate) fn reload(&self, backend: &dyn Backend) -> Result<(), StoreError> {
        let Self { state: loaded, durable } = Self::load(backend)?;
        let loaded = loaded.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.lock();
        let cuts = state.cuts + 1;
        *state = State { cuts, ..loaded };
        *end(&self.durable) = *end(&durable);
        Ok(())
    }

    /// The last entry that is on the disk for good, or the last purged one.
    pub(crate) fn durable(&self) -> Option<LogId> {
        (*end(&self.durable)).max(self.lock().purged)
    }

    /// To be called with what an append ended with, once it is synced. Appends are synced in order.
    pub(crate) fn note_durable(&self) -> impl Fn(Option<LogId>) + Send + use<> {
        let durable = self.durable.clone();
        move |last| *end(&durable) = last
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Entries of a range (end exclusive) that the log holds: all of them, or as many as fit the
    /// budget of bytes, but at least one.
    pub(crate) fn read(
        &self,
        backend: &dyn Backend,
        from: u64,
        to: u64,
        budget: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        loop {
            let (cuts, planned) = {
                let state = self.lock();
                (state.cuts, state.plan(from, to))
            };
            match self.read_planned(backend, planned, budget) {
                // What was to be read was cut off or purged meanwhile: that is no damage. Who has
                // just lost leadership reads for its followers while its log is truncated.
                Err(StoreError::Corrupt(_)) if self.lock().cuts != cuts => {}
                read => return read,
            }
        }
    }

    fn read_planned(
        &self,
        backend: &dyn Backend,
        (from, on_disk, in_memory): (u64, u64, Vec<Entry>),
        budget: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let mut found: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        let mut next = from;
        while next < on_disk {
            let chunk = records(backend, next, on_disk, CHUNK)?;
            if chunk.is_empty() {
                break;
            }
            for (index, record, _) in chunk {
                if index != next {
                    self.tolerate_gap(next, &mut found)?;
                }
                next = index + 1;
                let Some(entry) = self.complete(backend, index, record)? else { continue };
                bytes += size(&entry);
                if bytes > budget && !found.is_empty() {
                    return Ok(found);
                }
                found.push(entry);
            }
        }
        for entry in in_memory {
            let index = entry.log_id.index;
            if index != next {
                self.tolerate_gap(next, &mut found)?;
            }
            next = index + 1;
            bytes += size(&entry);
            if bytes > budget && !found.is_empty() {
                break;
            }
            found.push(entry);
        }
        Ok(found)
    }

    /// Entries may be absent at the beginning only: before the first that the log holds, also when a
    /// purge has taken them since.
    fn tolerate_gap(&self, at: u64, found: &mut Vec<Entry>) -> Result<(), StoreError> {
        if at < self.lock().begins() {
            found.clear();
            Ok(())
        } else {
            Err(hole_at(at))
        }
    }

    /// Puts record and body together; `None` when the entry was purged meanwhile.
    fn complete(
        &self,
        backend: &dyn Backend,
        index: u64,
        record: LogRecord,
    ) -> Result<Option<Entry>, StoreError> {
        let id = log_id(record.term, index);
        let payload = match record.content {
            Content::Blank => EntryPayload::Blank,
            Content::Membership(members) => EntryPayload::Membership(members.try_into()?),
            Content::Signature(signature) => EntryPayload::Normal(Command::Signature(signature)),
            Content::Submitted(range) => EntryPayload::Normal(Command::Submitted(range)),
            Content::Included(height) => EntryPayload::Normal(Command::Included(height)),
            Content::Activate(version) => EntryPayload::Normal(Command::Activate(version)),
            Content::Pause(reason) => EntryPayload::Normal(Command::Pause(reason)),
            Content::Block(record) => {
                let height = record.header.height;
                let Some(data) = chain::body(backend, height, record.hash)? else {
                    if self.lock().purged.is_some_and(|purged| index <= purged.index) {
                        return Ok(None);
                    }
                    return Err(StoreError::Corrupt(format!("log entry {index} has lost its block body")));
                };
                let block = Block::shared(record.header, data);
                if block.hash() != record.hash {
                    return Err(StoreError::Corrupt(format!(
                        "log entry {index} has another block than its hash"
                    )));
                }
                let entry = BlockEntry { term: record.term, block, tail: record.tail, forced: record.forced };
                EntryPayload::Normal(Command::Block(entry))
            }
        };
        Ok(Some(entry(id, payload)))
    }
}

impl State {
    /// The first index that is not on the disk alone.
    fn disk_end(&self) -> u64 {
        match self.tail.front() {
            Some(first) => first.entry.log_id.index,
            None => self.next(),
        }
    }

    /// The index after the last entry.
    pub(crate) fn next(&self) -> u64 {
        self.last.map_or(0, |last| last.index + 1)
    }

    /// The first index that the log holds, or the next one.
    fn begins(&self) -> u64 {
        self.next().saturating_sub(self.sizes.len() as u64)
    }

    fn first(&self) -> u64 {
        self.purged.map_or(0, |purged| purged.index + 1)
    }

    /// Where a range lies: its first index, the end of the part on disk, the part in memory.
    fn plan(&self, from: u64, to: u64) -> (u64, u64, Vec<Entry>) {
        let (from, to) = (from.max(self.first()), to.min(self.next()));
        let on_disk = to.min(self.disk_end());
        let wanted = |tailed: &&Tailed| (from..to.max(from)).contains(&tailed.entry.log_id.index);
        (from, on_disk, self.tail.iter().filter(wanted).map(|tailed| tailed.entry.clone()).collect())
    }

    /// The job that writes an entry; `None` when it is on the disk already.
    pub(crate) fn job_of(&self, index: u64) -> Option<u64> {
        let first = self.tail.front()?.entry.log_id.index;
        let position = usize::try_from(index.checked_sub(first)?).ok()?;
        self.tail.get(position).map(|tailed| tailed.job)
    }

    pub(crate) fn refers_to(&self, height: Height, hash: Hash) -> bool {
        self.bodies.contains_key(&(height, hash))
    }

    pub(crate) fn refer(&mut self, record: &LogRecord) {
        if let Content::Block(block) = &record.content {
            *self.bodies.entry((block.header.height, block.hash)).or_default() += 1;
        }
    }

    /// Forgets a reference; the body when it was the last one.
    pub(crate) fn release(&mut self, height: Height, hash: Hash) -> Option<(Height, Hash)> {
        let count = self.bodies.get_mut(&(height, hash))?;
        *count -= 1;
        if *count > 0 {
            return None;
        }
        self.bodies.remove(&(height, hash));
        Some((height, hash))
    }

    /// The bodies that entries of a range refer to, once per entry.
    pub(crate) fn bodies_of(
        &self,
        backend: &dyn Backend,
        from: u64,
        to: u64,
    ) -> Result<Vec<(Height, Hash)>, StoreError> {
        let (mut next, on_disk, in_memory) = self.plan(from, to);
        let mut found = Vec::new();
        while next < on_disk {
            let records = records(backend, next, on_disk, CHUNK)?;
            let Some((last, _, _)) = records.last() else { break };
            next = last + 1;
            for (_, record, _) in records {
                if let Content::Block(block) = record.content {
                    found.push((block.header.height, block.hash));
                }
            }
        }
        found.extend(in_memory.iter().filter_map(block_of).map(|block| (block.height(), block.hash())));
        Ok(found)
    }

    /// How many entries at the end have records of at most so many bytes together.
    pub(crate) fn newest_within(&self, bytes: u64) -> u64 {
        let mut left = bytes;
        let fits = |size: &&u32| {
            let rest = left.checked_sub(u64::from(**size));
            left = rest.unwrap_or(0);
            rest.is_some()
        };
        self.sizes.iter().rev().take_while(fits).count() as u64
    }

    /// The lowest height whose block a retained entry carries.
    pub(crate) fn lowest_block(&self) -> Option<Height> {
        self.bodies.first_key_value().map(|((height, _), _)| *height)
    }

    /// Notes the size of a record that is about to be pushed.
    pub(crate) fn measure(&mut self, bytes: usize) {
        self.sizes.push_back(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    pub(crate) fn push(&mut self, entry: Entry, job: u64, written: u64) {
        let bytes = size(&entry);
        self.last = Some(entry.log_id);
        self.tail_bytes += bytes;
        self.tail.push_back(Tailed { entry, bytes, job });
        while self.tail.len() > TAIL_ENTRIES || self.tail_bytes > TAIL_BYTES {
            // An entry that is not written can be read from here only.
            match self.tail.front() {
                Some(first) if first.job <= written => self.drop_first(),
                _ => break,
            }
        }
    }

    fn drop_first(&mut self) {
        if let Some(first) = self.tail.pop_front() {
            self.tail_bytes -= first.bytes;
        }
    }

    /// Drops entries from an index on; the log ends with `last` then.
    pub(crate) fn cut_after(&mut self, last: Option<LogId>) {
        self.cuts += 1;
        let next = last.map_or(0, |last| last.index + 1);
        let dropped = self.last.map_or(0, |last| (last.index + 1).saturating_sub(next));
        let kept = self.sizes.len().saturating_sub(usize::try_from(dropped).unwrap_or(usize::MAX));
        self.sizes.truncate(kept);
        while self.tail.back().is_some_and(|tailed| tailed.entry.log_id.index >= next) {
            if let Some(tailed) = self.tail.pop_back() {
                self.tail_bytes -= tailed.bytes;
            }
        }
        self.last = last;
    }

    /// Drops entries up to an index.
    pub(crate) fn cut_before(&mut self, purged: LogId) {
        self.cuts += 1;
        let kept = self.last.map_or(0, |last| last.index.saturating_sub(purged.index));
        let kept = usize::try_from(kept).unwrap_or(usize::MAX);
        self.sizes.drain(..self.sizes.len().saturating_sub(kept));
        while self.tail.front().is_some_and(|tailed| tailed.entry.log_id.index <= purged.index) {
            self.drop_first();
        }
        self.purged = Some(purged);
        if self.last.is_none_or(|last| last.index <= purged.index) {
            self.last = Some(purged);
        }
    }
}

fn end(durable: &Mutex<Option<LogId>>) -> MutexGuard<'_, Option<LogId>> {
    durable.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hole_at(index: u64) -> StoreError {
    StoreError::Corrupt(format!("the log has a hole at {index}"))
}

fn entry(id: LogId, payload: Payload) -> Entry {
    Entry { log_id: id, payload }
}

/// The block an entry carries.
pub(crate) fn block_of(entry: &Entry) -> Option<&Arc<Block>> {
    match &entry.payload {
        EntryPayload::Normal(Command::Block(entry)) => Some(&entry.block),
        _ => None,
    }
}

/// What an entry counts for in memory; small entries count for something too.
fn size(entry: &Entry) -> usize {
    256 + block_of(entry).map_or(0, |block| block.tx_bytes())
}

/// The record of an entry.
pub(crate) fn record_of(entry: &Entry) -> LogRecord {
    let content = match &entry.payload {
        EntryPayload::Blank => Content::Blank,
        EntryPayload::Membership(membership) => Content::Membership(membership.into()),
        EntryPayload::Normal(Command::Signature(signature)) => Content::Signature(signature.clone()),
        EntryPayload::Normal(Command::Submitted(range)) => Content::Submitted(*range),
        EntryPayload::Normal(Command::Included(height)) => Content::Included(*height),
        EntryPayload::Normal(Command::Activate(version)) => Content::Activate(*version),
        EntryPayload::Normal(Command::Pause(reason)) => Content::Pause(reason.clone()),
        EntryPayload::Normal(Command::Block(entry)) => Content::Block(Box::new(BlockRecord {
            term: entry.term,
            hash: entry.block.hash(),
            header: entry.block.header().clone(),
            tail: entry.tail.clone(),
            forced: entry.forced,
        })),
    };
    LogRecord { term: entry.log_id.leader_id.term, content }
}

/// Records of a range (end exclusive), in order: index, record, bytes on the disk.
fn records(
    backend: &dyn Backend,
    from: u64,
    to: u64,
    limit: usize,
) -> Result<Vec<(u64, LogRecord, u32)>, StoreError> {
    let (from, to) = (number_key(from), number_key(to));
    let range = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
    let found = backend.scan(Family::Log, range, Direction::Forward, limit)?;
    let read = |(key, value): (bytes::Bytes, bytes::Bytes)| {
        let bytes = u32::try_from(value.len()).unwrap_or(u32::MAX);
        Ok((key_number("log entry", &key)?, decode("log entry", &value)?, bytes))
    };
    found.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests;
