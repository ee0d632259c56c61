use std::sync::Arc;

use baton_messages::chain::{Data, Header};
use baton_messages::codec::encode;
use baton_messages::command::ForcedPosition;
use baton_messages::types::Term;

use super::*;
use crate::backend::Batch;
use crate::memory::{Disk, Memory};
use crate::records::body_key;

/// A device on which something happens just before the first body is read.
struct Meanwhile {
    device: Arc<Memory>,
    act: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Backend for Meanwhile {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<bytes::Bytes>, StoreError> {
        if let Some(act) = self.act.lock().expect("one thread").take() {
            act();
        }
        self.device.get(family, key)
    }

    fn scan(
        &self,
        family: Family,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(bytes::Bytes, bytes::Bytes)>, StoreError> {
        self.device.scan(family, range, direction, limit)
    }

    fn write(&self, batch: Batch) -> Result<(), StoreError> {
        self.device.write(batch)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.device.sync()
    }
}

fn block_entry(index: u64) -> Entry {
    let header = Header { height: Height(index), ..Header::default() };
    let block = Block::shared(header, Data::default());
    let command = BlockEntry { term: Term(1), block, tail: None, forced: ForcedPosition::default() };
    entry(log_id(1, index), EntryPayload::Normal(Command::Block(command)))
}

/// A device with entries `0..=last`, of which the first is blank.
fn written(last: u64) -> Arc<Memory> {
    let device = Arc::new(Disk::new().attach());
    let mut batch = Batch::default();
    let mut entries = vec![entry(log_id(1, 0), EntryPayload::Blank)];
    entries.extend((1..=last).map(block_entry));
    for entry in &entries {
        batch.put(Family::Log, number_key(entry.log_id.index), encode(&record_of(entry)));
        if let Some(block) = block_of(entry) {
            batch.put(Family::Bodies, body_key(block.height(), block.hash()), encode(block.data()));
        }
    }
    device.write(batch).expect("memory takes it");
    device
}

/// Takes the bodies away from an entry on, and its record too or not.
fn lose(device: &Memory, from: u64, records: bool) {
    let mut batch = Batch::default();
    if records {
        batch.delete_range(Family::Log, number_key(from), number_key(u64::MAX));
    }
    for entry in (from..4).map(block_entry) {
        let block = block_of(&entry).expect("a block").clone();
        batch.delete(Family::Bodies, body_key(block.height(), block.hash()));
    }
    device.write(batch).expect("memory takes it");
}

#[test]
fn what_is_cut_off_while_it_is_read_is_no_damage() {
    let device = written(3);
    let log = Arc::new(Log::load(&*device).expect("it loads"));
    let (cut, disk) = (log.clone(), device.clone());
    let truncate = move || {
        cut.lock().cut_after(Some(log_id(1, 1)));
        lose(&disk, 2, true);
    };
    let first = block_entry(1);
    let meanwhile = Meanwhile { device, act: Mutex::new(Some(Box::new(truncate))) };
    let read = log.read(&meanwhile, 0, 4, usize::MAX).expect("a truncation is no damage");
    assert_eq!(read, [entry(log_id(1, 0), EntryPayload::Blank), first]);
}

#[test]
fn a_body_that_is_gone_without_a_truncation_is_damage() {
    let device = written(3);
    let log = Log::load(&*device).expect("it loads");
    let disk = device.clone();
    let meanwhile = Meanwhile { device, act: Mutex::new(Some(Box::new(move || lose(&disk, 2, false)))) };
    let read = log.read(&meanwhile, 0, 4, usize::MAX);
    assert!(matches!(read, Err(StoreError::Corrupt(_))), "{read:?}");
}

#[test]
fn a_hole_is_seen_when_the_log_is_loaded() {
    let device = written(3);
    let mut batch = Batch::default();
    batch.delete(Family::Log, number_key(2));
    device.write(batch).expect("memory takes it");
    let loaded = Log::load(&*device).map(|_| ());
    assert_eq!(loaded, Err(hole_at(2)));
}
