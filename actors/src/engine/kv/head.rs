//! What the key-value app stores about itself: where it stands, and the way back.

use baton_messages::codec;
use baton_messages::types::{Hash, Height};
use baton_storage::backend::{Backend, Batch, Family, StoreError};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

const HEAD: &[u8] = b"head";

/// Where the app stands. Written with every block, in the block's batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub chain_id: String,
    pub initial_height: Height,
    pub mark: Mark,
    pub final_height: Height,
    /// The lowest height to which there is a way back.
    pub oldest: Height,
}

/// A state the app was in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    pub height: Height,
    /// The block; `None` before the first.
    pub hash: Option<Hash>,
    pub root: Hash,
    /// Executed blocks since the first.
    pub blocks: u64,
    /// Transactions that took effect since the first block.
    pub txs: u64,
}

/// The way back from a block to the one before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Undo {
    pub before: Mark,
    /// Keys the block changed, with the values they had.
    pub values: Vec<(Bytes, Option<Bytes>)>,
}

impl Head {
    pub(super) fn load(backend: &dyn Backend) -> Result<Option<Self>, StoreError> {
        let bytes = backend.get(Family::KvMeta, HEAD)?;
        let decode = |bytes: Bytes| {
            codec::decode(&bytes)
                .map_err(|error| StoreError::Corrupt(format!("the engine's position: {error}")))
        };
        bytes.map(decode).transpose()
    }

    pub(super) fn store(&self, batch: &mut Batch) {
        batch.put(Family::KvMeta, HEAD, codec::encode(self));
    }
}

impl Undo {
    fn key(height: Height) -> [u8; 8] {
        height.0.to_be_bytes()
    }

    /// The way back from a height.
    pub(super) fn load(backend: &dyn Backend, height: Height) -> Result<Self, StoreError> {
        let damaged = |what: &dyn std::fmt::Display| {
            StoreError::Corrupt(format!("the engine's undo record of height {height}: {what}"))
        };
        let bytes = backend.get(Family::KvUndo, &Self::key(height))?;
        codec::decode(&bytes.ok_or_else(|| damaged(&"missing"))?).map_err(|error| damaged(&error))
    }

    pub(super) fn store(&self, batch: &mut Batch, height: Height) {
        batch.put(Family::KvUndo, Bytes::copy_from_slice(&Self::key(height)), codec::encode(self));
    }

    /// Removes the way back from `first` to `last`, both included.
    pub(super) fn delete(batch: &mut Batch, first: Height, last: Height) {
        let key = |height| Bytes::copy_from_slice(&Self::key(height));
        if first == last {
            batch.delete(Family::KvUndo, key(first));
        } else if first < last {
            batch.delete_range(Family::KvUndo, key(first), key(last.next()));
        }
    }
}
