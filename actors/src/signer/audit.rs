//! The record of everything that was signed or refused, one JSON object per line.
//!
//! Over the records of all runs and members there is at most one header hash per height
//! (hazard I1). A line is written before the signature leaves; it survives the end of the
//! process, and the guard, not this file, is what survives a power cut. A file that has grown is
//! put aside; it may also be moved away between runs, or copied and truncated at any time.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use baton_messages::types::{Hash, Height, Term, Timestamp};
use serde::{Deserialize, Serialize};

use crate::record_file::{RecordFile, Rotation};

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When; RFC 3339 in the file.
    #[serde(with = "rfc3339")]
    pub time: Timestamp,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened to the key or its guard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The header was signed.
    Signed {
        /// Its height.
        height: Height,
        /// Its hash.
        #[serde(with = "hex_hash")]
        hash: Hash,
        /// The term of the grant.
        term: Term,
    },
    /// Something was not signed. The same refusal in a row is written once.
    Refused {
        /// What was asked for: `header`, `envelope`, `data`, `note`.
        what: String,
        /// Its height.
        height: Height,
        /// The header's hash.
        #[serde(with = "hex_hash")]
        hash: Hash,
        /// Why not.
        reason: String,
    },
    /// A signature made elsewhere moved the guard.
    Noted {
        /// The height.
        height: Height,
        /// The header's hash.
        #[serde(with = "hex_hash")]
        hash: Hash,
    },
    /// A chain without blocks got its guard.
    GuardCreated {
        /// The height below the first block.
        height: Height,
    },
    /// An operator set the guard.
    GuardSet {
        /// The height it holds now.
        height: Height,
        /// The hash it holds now.
        #[serde(with = "hex_hash")]
        hash: Hash,
        /// What was there before.
        before: String,
    },
    /// An operator put a key in place.
    KeyImported {
        /// The key's address.
        #[serde(with = "hex_hash")]
        address: Hash,
    },
    /// An operator took the key out.
    KeyExported {
        /// The key's address.
        #[serde(with = "hex_hash")]
        address: Hash,
    },
}

pub(crate) mod hex_hash {
    use baton_messages::types::Hash;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(hash: &Hash, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(hash)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Hash, D::Error> {
        let mut hash = [0; 32];
        let text = String::deserialize(deserializer)?;
        hex::decode_to_slice(text, &mut hash).map_err(D::Error::custom)?;
        Ok(Hash(hash))
    }
}

pub(crate) mod rfc3339 {
    use baton_messages::types::Timestamp;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error, ser};

    pub(crate) fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        let time = jiff::Timestamp::from_nanosecond(time.0.into()).map_err(ser::Error::custom)?;
        time.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let time = jiff::Timestamp::deserialize(deserializer)?;
        u64::try_from(time.as_nanosecond()).map(Timestamp).map_err(D::Error::custom)
    }
}

/// The record was not written or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("audit log {}: {reason}", path.display())]
pub struct AuditIo {
    /// The file.
    pub path: PathBuf,
    /// Why not.
    pub reason: String,
}

/// Where lines go.
pub trait Audit: Send + 'static {
    /// Writes a line. It survives the end of the process when this returns.
    ///
    /// # Errors
    ///
    /// `AuditIo`; then no signature leaves.
    fn record(&mut self, line: &Line) -> Result<(), AuditIo>;
}

/// Lines at the end of a file.
#[derive(Debug)]
pub struct FileAudit(RecordFile);

impl FileAudit {
    /// Opens the file, or makes it (mode 0600). It only grows.
    ///
    /// # Errors
    ///
    /// `AuditIo` when the system refuses.
    pub fn open(path: &Path) -> Result<Self, AuditIo> {
        Self::open_rotating(path, Rotation::NEVER)
    }

    /// As `open`; the file is put aside when it has grown.
    ///
    /// # Errors
    ///
    /// `AuditIo` when the system refuses.
    pub fn open_rotating(path: &Path, rotation: Rotation) -> Result<Self, AuditIo> {
        RecordFile::open(path, rotation).map(Self).map_err(|error| failure(path, &error))
    }
}

fn failure(path: &Path, error: &dyn std::error::Error) -> AuditIo {
    AuditIo { path: path.to_path_buf(), reason: error.to_string() }
}

impl Audit for FileAudit {
    fn record(&mut self, line: &Line) -> Result<(), AuditIo> {
        let Self(file) = self;
        let mut bytes = serde_json::to_vec(line).map_err(|error| failure(file.path(), &error))?;
        bytes.push(b'\n');
        file.append(&bytes).map_err(|error| failure(file.path(), &error))
    }
}

/// Reads the lines of a file; none when there is no file. What is not a line, for example one
/// that was cut off, is counted and left out.
///
/// # Errors
///
/// `AuditIo` when the file cannot be read.
pub fn read(path: &Path) -> Result<(Vec<Line>, usize), AuditIo> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((vec![], 0)),
        Err(error) => return Err(failure(path, &error)),
    };
    let (mut lines, mut unreadable) = (vec![], 0);
    for bytes in BufReader::new(file).split(b'\n') {
        let bytes = bytes.map_err(|error| failure(path, &error))?;
        match serde_json::from_slice(&bytes) {
            Ok(line) => lines.push(line),
            Err(_) if bytes.is_empty() => {}
            Err(_) => unreadable += 1,
        }
    }
    Ok((lines, unreadable))
}

/// Lines in memory: for tests. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct MemoryAudit(Arc<Mutex<Vec<Line>>>);

impl MemoryAudit {
    /// What was recorded so far.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Audit for MemoryAudit {
    fn record(&mut self, line: &Line) -> Result<(), AuditIo> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(height: u64) -> Line {
        let event = Event::Signed { height: Height(height), hash: Hash([7; 32]), term: Term(3) };
        Line { time: Timestamp(1_735_787_046_123_456_790), event }
    }

    #[test]
    fn a_line_looks_as_documented() {
        let seven = "07".repeat(32);
        assert_eq!(
            serde_json::to_string(&line(8)).unwrap(),
            format!(
                r#"{{"time":"2025-01-02T03:04:06.12345679Z","event":"signed","height":8,"hash":"{seven}","term":3}}"#
            )
        );
    }

    #[test]
    fn lines_of_several_runs_come_back_in_order() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("audit.jsonl");
        assert_eq!(read(&path), Ok((vec![], 0)));
        for run in 0..3 {
            let mut audit = FileAudit::open(&path).unwrap();
            audit.record(&line(2 * run)).unwrap();
            audit.record(&line(2 * run + 1)).unwrap();
        }
        assert_eq!(read(&path), Ok(((0..6).map(line).collect(), 0)));
    }

    #[test]
    fn a_line_that_was_cut_off_spoils_no_other() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("audit.jsonl");
        FileAudit::open(&path).unwrap().record(&line(1)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[..], &whole[..20]].concat()).unwrap();
        FileAudit::open(&path).unwrap().record(&line(2)).unwrap();
        assert_eq!(read(&path), Ok((vec![line(1), line(2)], 1)));
    }
}
