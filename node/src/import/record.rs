//! The record of an import, `config/import.json`: where from, and where the chain goes on.
//!
//! It stands beside the key and not in the store: whoever removes or restores the store leaves it
//! in place.

use std::path::{Path, PathBuf};

use baton_actors::signer::files::{self, FileError, Overwrite};
use baton_messages::types::{Hash, Height};
use serde::{Deserialize, Serialize};

use crate::exit::ExitError;
use crate::home::Home;
use crate::keys::KeysError;

/// A record is a page of text; nothing longer is read.
const LIMIT: u64 = 64 << 10;

/// Where the chain goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The height of the old chain's last block.
    pub height: Height,
    /// Its hash.
    pub hash: Hash,
}

/// The record of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The old home.
    pub from: PathBuf,
    /// The chain.
    pub chain_id: String,
    /// The genesis hash in hex.
    pub genesis: String,
    /// Where the old sequencer's RPC was reached.
    pub old_rpc: String,
    /// The old sequencer's databases; a running one holds a lock on one of them.
    pub old_data: Vec<PathBuf>,
    /// The old sequencer's key file.
    pub old_key: PathBuf,
    /// Where the chain goes on; `None` while the node follows.
    pub finished: Option<Finished>,
}

#[derive(Serialize, Deserialize)]
struct FinishedJson {
    height: u64,
    hash: String,
}

#[derive(Serialize, Deserialize)]
struct RecordJson {
    from: PathBuf,
    chain_id: String,
    genesis: String,
    old_rpc: String,
    old_data: Vec<PathBuf>,
    old_key: PathBuf,
    finished: Option<FinishedJson>,
}

impl Record {
    /// Reads the record of a home; `None` when it has none.
    ///
    /// # Errors
    ///
    /// When it cannot be read or is damaged.
    pub fn read(files: &Home) -> Result<Option<Self>, ExitError> {
        Self::read_file(&files.import_record())
    }

    /// Reads the record that stands beside a key file in a directory, or in the `config` in it.
    ///
    /// # Errors
    ///
    /// As `read`.
    pub fn read_beside(directory: &Path) -> Result<Option<Self>, ExitError> {
        for place in [directory.join("import.json"), directory.join("config/import.json")] {
            if let Some(record) = Self::read_file(&place)? {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    fn read_file(path: &Path) -> Result<Option<Self>, ExitError> {
        let damaged = |reason: String| {
            ExitError::config(format!(
                "{} is damaged: {reason}; it says where the chain goes on, so restore it and do not remove it",
                path.display()
            ))
        };
        if !path.exists() {
            return Ok(None);
        }
        let bytes = files::read_public(path, LIMIT).map_err(KeysError::from)?;
        let json: RecordJson = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        let finished = match json.finished {
            None => None,
            Some(FinishedJson { height, hash }) => {
                let hash = parse_hash(&hash).ok_or_else(|| damaged(format!("{hash:?} is no hash")))?;
                Some(Finished { height: Height(height), hash })
            }
        };
        let RecordJson { from, chain_id, genesis, old_rpc, old_data, old_key, .. } = json;
        Ok(Some(Self { from, chain_id, genesis, old_rpc, old_data, old_key, finished }))
    }

    /// Writes it, unless there is one already. Durable when it returns.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn write_new(&self, files: &Home) -> Result<(), ExitError> {
        match Self::read(files)? {
            Some(_) => Ok(()),
            None => self.write(files, Overwrite::Refuse),
        }
    }

    /// Writes it. Durable when it returns.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn write(&self, files: &Home, overwrite: Overwrite) -> Result<(), ExitError> {
        let json = RecordJson {
            from: self.from.clone(),
            chain_id: self.chain_id.clone(),
            genesis: self.genesis.clone(),
            old_rpc: self.old_rpc.clone(),
            old_data: self.old_data.clone(),
            old_key: self.old_key.clone(),
            finished: self
                .finished
                .map(|finished| FinishedJson { height: finished.height.0, hash: finished.hash.to_string() }),
        };
        let text = serde_json::to_string_pretty(&json).map_err(ExitError::other)? + "\n";
        match files::write_private(&files.import_record(), text.as_bytes(), overwrite) {
            Ok(()) => Ok(()),
            Err(FileError::Exists { path }) => {
                Err(ExitError::config(format!("{} appeared meanwhile: run it again", path.display())))
            }
            Err(error) => Err(KeysError::from(error).into()),
        }
    }
}

/// 64 hex digits.
#[must_use]
pub fn parse_hash(text: &str) -> Option<Hash> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text.trim(), &mut bytes).ok()?;
    Some(Hash(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(finished: Option<Finished>) -> Record {
        Record {
            from: PathBuf::from("/old"),
            chain_id: "chain-1".to_owned(),
            genesis: Hash::of(b"genesis").to_string(),
            old_rpc: "127.0.0.1:7331".to_owned(),
            old_data: vec![PathBuf::from("/old/data/testapp")],
            old_key: PathBuf::from("/old/config/signer.json"),
            finished,
        }
    }

    #[test]
    fn a_record_comes_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let files = Home::new(dir.path());
        assert_eq!(Record::read(&files).unwrap(), None);
        record(None).write_new(&files).unwrap();
        assert_eq!(Record::read(&files).unwrap(), Some(record(None)));
        let finished = record(Some(Finished { height: Height(7), hash: Hash::of(b"seven") }));
        finished.write_new(&files).unwrap();
        assert_eq!(Record::read(&files).unwrap(), Some(record(None)), "what is there stays");
        finished.write(&files, Overwrite::Replace).unwrap();
        assert_eq!(Record::read(&files).unwrap(), Some(finished.clone()));
        assert_eq!(Record::read_beside(dir.path()).unwrap(), Some(finished.clone()));
        assert_eq!(Record::read_beside(&dir.path().join("config")).unwrap(), Some(finished));
    }

    #[test]
    fn a_damaged_record_is_not_taken_for_none() {
        let dir = tempfile::tempdir().unwrap();
        let files = Home::new(dir.path());
        record(None).write_new(&files).unwrap();
        let path = files.import_record();
        for damage in ["", "{}", "{\"finished\": 3}"] {
            std::fs::write(&path, damage).unwrap();
            let refusal = Record::read(&files).unwrap_err().to_string();
            assert!(refusal.contains("import.json") && refusal.contains("do not remove"), "{refusal}");
        }
    }
}
