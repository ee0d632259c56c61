//! The genesis file, as ev-node has it (wire section 7.3).

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::types::{DaHeight, Hash, Height, Timestamp};

/// What a chain begins with. Read from and written to `genesis.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Genesis {
    /// The chain's name; never empty.
    pub chain_id: String,
    /// The time of the first block, nanoseconds since the Unix epoch.
    pub start_time: Timestamp,
    /// The height of the first block, at least one.
    pub initial_height: Height,
    /// SHA-256 of the proposer's raw public key.
    pub proposer_address: Bytes,
    /// Where on DA the chain begins.
    pub da_start_height: DaHeight,
    /// DA blocks per forced-inclusion epoch, at least one.
    pub da_epoch_forced_inclusion: u64,
}

impl Genesis {
    /// Identifies the chain beyond its name: nodes with another genesis are refused.
    #[must_use]
    pub fn hash(&self) -> Hash {
        let mut bytes = Vec::new();
        for part in [self.chain_id.as_bytes(), &self.proposer_address] {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        let numbers = [
            self.start_time.0,
            self.initial_height.0,
            self.da_start_height.0,
            self.da_epoch_forced_inclusion,
        ];
        for number in numbers {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        Hash::of(&bytes)
    }
}
