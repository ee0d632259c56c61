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

/// What is wrong with a genesis.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenesisError {
    /// Not the JSON of a genesis: broken, a key missing or unknown, a value of another type.
    #[error("the genesis cannot be read: {0}")]
    Malformed(String),
    /// No name.
    #[error("chain_id is empty: give the chain a name")]
    NoChainId,
    /// The start time does not fit.
    #[error("start_time {0} is out of range: it must lie after 1970 and before 2262")]
    StartTime(String),
    /// Heights begin at one.
    #[error("initial_height must be at least 1")]
    InitialHeight,
    /// Nobody may propose.
    #[error("proposer_address is empty: give the base64 address of the proposer's key")]
    NoProposer,
    /// Epochs must have a length.
    #[error("da_epoch_forced_inclusion must be at least 1")]
    Epoch,
}

/// `genesis.json` as it is written.
#[serde_with::serde_as]
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GenesisFile {
    chain_id: String,
    start_time: jiff::Timestamp,
    initial_height: u64,
    /// ev-node writes null where it has no key.
    #[serde_as(as = "Option<serde_with::base64::Base64>")]
    proposer_address: Option<Vec<u8>>,
    #[serde(default)]
    da_start_height: u64,
    #[serde(default = "default_epoch")]
    da_epoch_forced_inclusion: u64,
}

/// ev-node's default; files older than forced inclusion do not have the key.
const fn default_epoch() -> u64 {
    50
}

impl Genesis {
    /// Reads `genesis.json` and validates it. A missing `da_epoch_forced_inclusion` is 50 and a
    /// missing `da_start_height` 0, as in ev-node; unknown keys are refused.
    ///
    /// # Errors
    ///
    /// `GenesisError`, naming the key.
    pub fn from_json(text: &str) -> Result<Self, GenesisError> {
        let file: GenesisFile =
            serde_json::from_str(text).map_err(|error| GenesisError::Malformed(error.to_string()))?;
        let nanos = u64::try_from(file.start_time.as_nanosecond())
            .map_err(|_| GenesisError::StartTime(file.start_time.to_string()))?;
        let genesis = Self {
            chain_id: file.chain_id,
            start_time: Timestamp(nanos),
            initial_height: Height(file.initial_height),
            proposer_address: file.proposer_address.unwrap_or_default().into(),
            da_start_height: DaHeight(file.da_start_height),
            da_epoch_forced_inclusion: file.da_epoch_forced_inclusion,
        };
        genesis.validate()?;
        Ok(genesis)
    }

    /// Writes `genesis.json`, indented, as ev-node reads it.
    ///
    /// # Errors
    ///
    /// As `validate`: what cannot be read again is not written.
    pub fn to_json(&self) -> Result<String, GenesisError> {
        self.validate()?;
        let file = GenesisFile {
            chain_id: self.chain_id.clone(),
            start_time: jiff::Timestamp::from_nanosecond(i128::from(self.start_time.0))
                .map_err(|_| GenesisError::StartTime(self.start_time.to_string()))?,
            initial_height: self.initial_height.0,
            proposer_address: Some(self.proposer_address.to_vec()),
            da_start_height: self.da_start_height.0,
            da_epoch_forced_inclusion: self.da_epoch_forced_inclusion,
        };
        serde_json::to_string_pretty(&file).map_err(|error| GenesisError::Malformed(error.to_string()))
    }

    /// Checks the values.
    ///
    /// # Errors
    ///
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), GenesisError> {
        if self.chain_id.is_empty() {
            return Err(GenesisError::NoChainId);
        }
        if self.start_time.0 == 0 || self.start_time.0 >= 1 << 63 {
            return Err(GenesisError::StartTime(format!("of {} ns", self.start_time)));
        }
        if self.initial_height == Height(0) {
            return Err(GenesisError::InitialHeight);
        }
        if self.proposer_address.is_empty() {
            return Err(GenesisError::NoProposer);
        }
        if self.da_epoch_forced_inclusion == 0 {
            return Err(GenesisError::Epoch);
        }
        Ok(())
    }
}
