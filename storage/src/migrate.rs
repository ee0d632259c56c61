//! Stores of an older format are brought to the current one at start.
//!
//! A step works in small pieces. Each piece and the note of how far it came are one batch, so a
//! migration that is interrupted goes on where it stopped, and a piece that is done twice
//! changes nothing.

use baton_messages::codec::encode;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tracing::info;

use crate::backend::{Backend, Batch, Family, StoreError};
use crate::records::{decode, meta};

/// The format this version writes.
pub const FORMAT: u32 = 1;

/// What one piece of a step came to.
#[cfg_attr(not(test), expect(dead_code, reason = "format 1 is the first; the tests have a step"))]
pub(crate) enum Piece {
    /// More is to be done: the changes, and where to go on.
    More(Batch, Bytes),
    /// The last changes of the step.
    Last(Batch),
}

/// Does one piece of a step, from a place that an earlier piece named (empty: the beginning).
pub(crate) type Run = fn(&dyn Backend, &[u8]) -> Result<Piece, StoreError>;

/// One step from a format to the next.
#[derive(Clone, Copy)]
pub(crate) struct Step {
    /// The format it reads; it writes the one after.
    pub(crate) from: u32,
    /// Does one piece.
    pub(crate) run: Run,
}

/// Every step there is, from the oldest format that can be read.
pub(crate) const STEPS: &[Step] = &[];

/// How far a step has come.
#[derive(Serialize, Deserialize)]
struct Progress {
    from: u32,
    #[serde(with = "serde_bytes")]
    at: Vec<u8>,
}

/// The format of a store; `None` when there is no store.
pub(crate) fn format(backend: &dyn Backend) -> Result<Option<u32>, StoreError> {
    let Some(bytes) = backend.get(Family::Meta, meta::FORMAT)? else { return Ok(None) };
    let number = <[u8; 4]>::try_from(&bytes[..])
        .map_err(|_| StoreError::Corrupt(format!("the format number has {} bytes", bytes.len())))?;
    Ok(Some(u32::from_be_bytes(number)))
}

/// Notes the format in a batch.
pub(crate) fn set_format(batch: &mut Batch, format: u32) {
    batch.put(Family::Meta, meta::FORMAT, Bytes::copy_from_slice(&format.to_be_bytes()));
}

/// Brings a store from one format to another. Durable when it returns.
pub(crate) fn migrate(backend: &dyn Backend, from: u32, to: u32, steps: &[Step]) -> Result<(), StoreError> {
    let mut format = from;
    while format < to {
        let step = steps.iter().find(|step| step.from == format).ok_or_else(|| {
            StoreError::Corrupt(format!("format {format} cannot be migrated by this version of baton"))
        })?;
        info!(from = format, to = format + 1, "migrating the store");
        run(backend, *step)?;
        format += 1;
    }
    Ok(())
}

fn run(backend: &dyn Backend, step: Step) -> Result<(), StoreError> {
    let mut at = match backend.get(Family::Meta, meta::MIGRATION)? {
        Some(bytes) => {
            let progress: Progress = decode("migration progress", &bytes)?;
            if progress.from == step.from { progress.at } else { vec![] }
        }
        None => vec![],
    };
    loop {
        match (step.run)(backend, &at)? {
            Piece::More(mut batch, next) => {
                at = next.to_vec();
                batch.put(
                    Family::Meta,
                    meta::MIGRATION,
                    encode(&Progress { from: step.from, at: at.clone() }),
                );
                backend.write(batch)?;
            }
            Piece::Last(mut batch) => {
                batch.delete(Family::Meta, meta::MIGRATION);
                set_format(&mut batch, step.from + 1);
                backend.write(batch)?;
                return backend.sync();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Bound;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use baton_messages::command::COMMAND_VERSION;
    use baton_messages::types::Tx;
    use uuid::Uuid;

    use super::*;
    use crate::backend::Direction;
    use crate::memory::{Disk, EffectOutcome, Keep, options};
    use crate::records::number_key;
    use crate::{OpenError, Store};

    const TXS: u64 = 10;

    /// From a fake old format, in which the queue held transactions as they are.
    fn wrap_queue(backend: &dyn Backend, at: &[u8]) -> Result<Piece, StoreError> {
        let from = if at.is_empty() { Bound::Unbounded } else { Bound::Excluded(at) };
        let found = backend.scan(Family::Queue, (from, Bound::Unbounded), Direction::Forward, 3)?;
        let mut batch = Batch::default();
        for (key, value) in &found {
            batch.put(Family::Queue, key.clone(), encode(&Tx(value.clone())));
        }
        Ok(match found.last() {
            Some((last, _)) => Piece::More(batch, last.clone()),
            None => Piece::Last(batch),
        })
    }

    const OLD: &[Step] = &[Step { from: 0, run: wrap_queue }];

    fn old_store() -> Disk {
        let disk = Disk::new();
        Store::create_in_memory(&disk, options("old"), Uuid::nil()).expect("an empty disk").close();
        let backend = disk.attach();
        let mut batch = Batch::default();
        set_format(&mut batch, 0);
        for number in 0..TXS {
            batch.put(Family::Queue, number_key(number), tx(number).0);
        }
        backend.write(batch).expect("no hook");
        backend.sync().expect("no hook");
        disk
    }

    fn tx(number: u64) -> Tx {
        Tx(format!("transaction {number}").into())
    }

    fn open(disk: &Disk, steps: &[Step]) -> Result<Store, OpenError> {
        Store::start(Arc::new(disk.attach()), options("old"), false, steps, COMMAND_VERSION)
    }

    fn assert_migrated(store: &Store) {
        let expected: Vec<_> = (0..TXS).map(|number| (number, tx(number))).collect();
        assert_eq!(store.queue().load(), Ok(expected));
        let backend = store.backend();
        assert_eq!(format(&*backend), Ok(Some(1)));
        assert_eq!(backend.get(Family::Meta, meta::MIGRATION), Ok(None));
    }

    #[test]
    fn an_older_format_is_migrated_at_start_and_stays_migrated() {
        let disk = old_store();
        assert_migrated(&open(&disk, OLD).expect("a step for its format"));
        disk.crash(Keep::None);
        assert_migrated(&open(&disk, &[]).expect("the current format"));
    }

    #[test]
    fn a_migration_goes_on_where_a_crash_stopped_it() {
        for (effect, keep) in (1..16).flat_map(|effect| (0..4).map(move |keep| (effect, keep))) {
            let disk = old_store();
            let seen = AtomicUsize::new(0);
            disk.set_hook(Some(Arc::new(move |_| {
                if seen.fetch_add(1, Ordering::Relaxed) + 1 == effect {
                    EffectOutcome::PowerOff
                } else {
                    EffectOutcome::Continue
                }
            })));
            let interrupted = open(&disk, OLD);
            assert!(matches!(interrupted, Err(OpenError::Io(_))), "effect {effect}: {interrupted:?}");
            disk.set_hook(None);
            disk.crash(Keep::Prefix(keep));
            assert_migrated(&open(&disk, OLD).expect("the power is on"));
        }
    }

    #[test]
    fn a_format_that_nobody_can_migrate_is_damage_and_is_left_alone() {
        let disk = old_store();
        let writes = disk.writes();
        let error = open(&disk, STEPS).expect_err("no step for format 0");
        assert!(matches!(&error, OpenError::Damaged(reason) if reason.contains("format 0")), "{error}");
        assert_eq!(disk.writes(), writes);
    }
}
