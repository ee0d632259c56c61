//! ev-node's records for replication and for its sequencer (wire section 1.2).
//!
//! The cluster replicates with a codec of its own; these are read and written where ev-node's
//! data is.

use bytes::Bytes;
use prost::Message;

use crate::types::{Hash, Tx};

/// ev-node's Raft log entry and snapshot content.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RaftBlockState {
    /// The block's height.
    #[prost(uint64, tag = "1")]
    pub height: u64,
    /// Headers up to here are on DA.
    #[prost(uint64, tag = "2")]
    pub last_submitted_da_header_height: u64,
    /// Data up to here is on DA.
    #[prost(uint64, tag = "3")]
    pub last_submitted_da_data_height: u64,
    /// The header hash.
    #[prost(bytes = "bytes", tag = "4")]
    pub hash: Bytes,
    /// The header time in nanoseconds.
    #[prost(uint64, tag = "5")]
    pub timestamp: u64,
    /// The encoded signed header.
    #[prost(bytes = "bytes", tag = "6")]
    pub header: Bytes,
    /// The encoded data.
    #[prost(bytes = "bytes", tag = "7")]
    pub data: Bytes,
}

/// How far forced inclusion was consumed.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct SequencerDaCheckpoint {
    /// DA height.
    #[prost(uint64, tag = "1")]
    pub da_height: u64,
    /// Transactions of it already taken.
    #[prost(uint64, tag = "2")]
    pub tx_index: u64,
}

/// A batch in the sequencer's queue.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Batch {
    /// The transactions.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub txs: Vec<Bytes>,
}

impl From<&[Tx]> for Batch {
    fn from(txs: &[Tx]) -> Self {
        Self { txs: txs.iter().map(|tx| tx.0.clone()).collect() }
    }
}

impl Batch {
    /// The batch hash; it is on no wire.
    #[must_use]
    pub fn hash(&self) -> Hash {
        if self.txs.is_empty() {
            return Hash::of(&[]);
        }
        let mut bytes = (self.txs.len() as u64).to_be_bytes().to_vec();
        for tx in &self.txs {
            bytes.extend_from_slice(&(tx.len() as u64).to_be_bytes());
            bytes.extend_from_slice(tx);
        }
        Hash::of(&bytes)
    }
}
