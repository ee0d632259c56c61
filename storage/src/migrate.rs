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
