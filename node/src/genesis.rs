//! The genesis file: read, checked against the key, written.

use std::path::{Path, PathBuf};

use baton_actors::signer::files::{self, FileError, Overwrite};
use baton_messages::genesis::{Genesis, GenesisError};
use baton_messages::types::Hash;

/// A genesis is a page of text; nothing longer is read.
const LIMIT: u64 = 1024 * 1024;

/// Why there is no genesis.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no file.
    #[error(
        "{} does not exist; copy the chain's genesis there, or start a new chain with `baton init`",
        path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file was not read or written.
    #[error(transparent)]
    File(FileError),
    /// The file is not text.
    #[error("{} is not UTF-8 text", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// A field breaks a rule.
    #[error("{}: {source}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Which one.
        source: GenesisError,
    },
    /// The chain's proposer is somebody else.
    #[error(
        "{}: proposer_address is {proposer}, but the address of the key in {} is {address}; \
         use the chain's key or the key's chain",
        path.display(),
        key.display()
    )]
    OtherProposer {
        /// The genesis file.
        path: PathBuf,
        /// The proposer it names, in hex.
        proposer: String,
        /// The key file.
        key: PathBuf,
        /// The key's address.
        address: Hash,
    },
}

/// Reads and checks a genesis file.
///
/// # Errors
///
/// `Error`, naming the file and, where one is at fault, the field and the rule.
pub fn load(path: &Path) -> Result<Genesis, Error> {
    let bytes = files::read_public(path, LIMIT).map_err(|error| match error {
        FileError::Missing { path } => Error::Missing { path },
        other => Error::File(other),
    })?;
    let text = std::str::from_utf8(&bytes).map_err(|_| Error::NotText { path: path.to_path_buf() })?;
    Genesis::from_json(text).map_err(|source| Error::Invalid { path: path.to_path_buf(), source })
}

/// Writes a genesis file, whole or not at all. Durable when it returns.
///
/// # Errors
///
/// `Error` when the genesis breaks a rule, the file exists and must stay, or the system refuses.
pub fn write(path: &Path, genesis: &Genesis, overwrite: Overwrite) -> Result<(), Error> {
    let json = genesis.to_json().map_err(|source| Error::Invalid { path: path.to_path_buf(), source })?;
    files::write_private(path, json.as_bytes(), overwrite).map_err(Error::File)
}

/// Checks that the key is the chain's proposer.
///
/// # Errors
///
/// `OtherProposer`.
pub fn check_proposer(path: &Path, genesis: &Genesis, key: &Path, address: Hash) -> Result<(), Error> {
    if genesis.proposer_address == address.0.as_slice() {
        return Ok(());
    }
    let proposer = hex::encode(&genesis.proposer_address);
    Err(Error::OtherProposer { path: path.to_path_buf(), proposer, key: key.to_path_buf(), address })
}

#[cfg(test)]
mod tests {
    use baton_messages::types::{DaHeight, Height, Timestamp};

    use super::*;

    fn genesis() -> Genesis {
        Genesis {
            chain_id: "chain-1".into(),
            start_time: Timestamp(1_735_787_046_123_456_789),
            initial_height: Height(1),
            proposer_address: Hash::of(b"key").to_bytes(),
            da_start_height: DaHeight(3),
            da_epoch_forced_inclusion: 50,
        }
    }

    #[test]
    fn what_was_written_is_read_and_not_overwritten_unasked() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("config/genesis.json");
        write(&path, &genesis(), Overwrite::Refuse).unwrap();
        assert_eq!(load(&path).unwrap(), genesis());
        let again = write(&path, &genesis(), Overwrite::Refuse);
        assert!(matches!(again, Err(Error::File(FileError::Exists { .. }))));
    }

    #[test]
    fn a_genesis_that_breaks_a_rule_is_not_written() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("genesis.json");
        let nameless = Genesis { chain_id: String::new(), ..genesis() };
        assert!(matches!(write(&path, &nameless, Overwrite::Refuse), Err(Error::Invalid { .. })));
        assert!(!path.exists());
    }

    #[test]
    fn errors_name_the_file_the_field_and_the_rule() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("genesis.json");
        assert!(load(&path).unwrap_err().to_string().contains("baton init"));
        for (from, to, said) in [
            ("\"chain-1\"", "\"\"", "chain_id is empty"),
            ("\"initial_height\": 1", "\"initial_height\": 0", "initial_height must be at least 1"),
            ("\"initial_height\": 1", "\"initial_height\": \"x\"", "invalid type: string \"x\""),
            ("\"chain_id\"", "\"chain\"", "chain"),
        ] {
            let json = genesis().to_json().unwrap().replace(from, to);
            files::write_private(&path, json.as_bytes(), Overwrite::Replace).unwrap();
            let error = load(&path).unwrap_err().to_string();
            assert!(error.contains(&path.display().to_string()) && error.contains(said), "{error}");
        }
        for garbage in [&b""[..], b"{", b"\xff\xfe", b"[]", b"null"] {
            files::write_private(&path, garbage, Overwrite::Replace).unwrap();
            assert!(load(&path).unwrap_err().to_string().contains(&path.display().to_string()));
        }
    }

    #[test]
    fn another_key_than_the_proposers_is_refused() {
        let (path, key) = (Path::new("genesis.json"), Path::new("signer.json"));
        assert!(check_proposer(path, &genesis(), key, Hash::of(b"key")).is_ok());
        let refused = check_proposer(path, &genesis(), key, Hash::of(b"other")).unwrap_err().to_string();
        assert!(refused.contains(&Hash::of(b"key").to_string()), "{refused}");
        assert!(refused.contains(&Hash::of(b"other").to_string()), "{refused}");
    }
}
