//! The key file `signer.json`, as ev-node writes it (wire section 7.3).
//!
//! Argon2id turns the passphrase into a key; AES-256-GCM under it hides the 64 bytes seed,
//! then public key. A file with the extra field `kdf` has weaker parameters: for tests only,
//! and ev-node cannot open it.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use aes_gcm::aead::{Aead, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};
use serde_with::base64::Base64;
use serde_with::serde_as;
use zeroize::Zeroizing;

use super::files::{self, FileError, Overwrite};
use super::key::{FileKey, Key};

/// No passphrase and no key file is longer.
const LIMIT: u64 = 64 * 1024;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file was not read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The passphrase could not be read from where it comes from.
    #[error("cannot read the passphrase: {0}")]
    Passphrase(std::io::Error),
    /// Nothing but white space.
    #[error("the passphrase is empty")]
    EmptyPassphrase,
    /// More than a passphrase can be.
    #[error("the passphrase is longer than {LIMIT} bytes")]
    LongPassphrase,
    /// The file is not a key file.
    #[error("{} is damaged: {reason}; restore it from a backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The file is from before key files had a salt.
    #[error(
        "{} has no salt: a very old ev-node wrote it, and its encryption is too weak to keep; \
         convert it: export the key with ev-node (`keys export`), then `baton keys import --force`",
        path.display()
    )]
    NoSalt {
        /// The file.
        path: PathBuf,
    },
    /// The key does not open with this passphrase.
    #[error("wrong passphrase for {}, or the file is damaged", path.display())]
    WrongPassphrase {
        /// The file.
        path: PathBuf,
    },
    /// The parameters asked for are beyond reason.
    #[error("key derivation with {0} is refused")]
    Kdf(Kdf),
}

/// What opens a key file. Wiped when dropped, never shown.
pub struct Passphrase(Zeroizing<Vec<u8>>);

impl Passphrase {
    /// A passphrase without the white space around it, as ev-node takes it.
    ///
    /// # Errors
    ///
    /// `EmptyPassphrase` when nothing is left.
    pub fn new(bytes: &[u8]) -> Result<Self, KeyFileError> {
        let trimmed = match std::str::from_utf8(bytes) {
            Ok(text) => text.trim().as_bytes(),
            Err(_) => bytes.trim_ascii(),
        };
        if trimmed.is_empty() {
            return Err(KeyFileError::EmptyPassphrase);
        }
        Ok(Self(Zeroizing::new(trimmed.to_vec())))
    }

    /// Reads a passphrase file, which only its owner may read.
    ///
    /// # Errors
    ///
    /// `KeyFileError` when the file is missing, open to others or empty.
    pub fn from_file(path: &Path) -> Result<Self, KeyFileError> {
        Self::new(&files::read_private(path, LIMIT)?)
    }

    /// Reads a passphrase to the end of the input, for example of stdin.
    ///
    /// # Errors
    ///
    /// `KeyFileError` when the input fails, is empty or endless.
    pub fn from_reader(input: impl Read) -> Result<Self, KeyFileError> {
        // Room for everything at once: a vector that grows leaves copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(LIMIT as usize + 2));
        input.take(LIMIT + 1).read_to_end(&mut bytes).map_err(KeyFileError::Passphrase)?;
        if bytes.len() as u64 > LIMIT {
            return Err(KeyFileError::LongPassphrase);
        }
        Self::new(&bytes)
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(...)")
    }
}

/// Parameters of Argon2id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kdf {
    /// Passes over the memory.
    pub time: u32,
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Kdf {
    /// ev-node's parameters.
    pub const EVNODE: Self = Self { time: 3, memory_kib: 32 * 1024, lanes: 4 };
    /// Takes no time and protects nothing: for tests.
    pub const INSECURE: Self = Self { time: 1, memory_kib: 32, lanes: 1 };

    fn derive(self, passphrase: &Passphrase, salt: &[u8]) -> Result<Zeroizing<[u8; 32]>, KeyFileError> {
        // A key file must not be able to ask for all memory there is.
        if self.time > 64 || self.memory_kib > 1024 * 1024 || self.lanes > 64 {
            return Err(KeyFileError::Kdf(self));
        }
        let params = Params::new(self.memory_kib, self.time, self.lanes, Some(32))
            .map_err(|_| KeyFileError::Kdf(self))?;
        let mut derived = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(&passphrase.0, salt, &mut *derived)
            .map_err(|_| KeyFileError::Kdf(self))?;
        Ok(derived)
    }
}

impl fmt::Display for Kdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "time {}, memory {} KiB, lanes {}", self.time, self.memory_kib, self.lanes)
    }
}

#[serde_as]
#[derive(Serialize, Deserialize)]
struct Json {
    #[serde_as(as = "Base64")]
    priv_key_encrypted: Vec<u8>,
    #[serde_as(as = "Base64")]
    nonce: Vec<u8>,
    #[serde_as(as = "Base64")]
    pub_key: Vec<u8>,
    #[serde_as(as = "Option<Base64>")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    salt: Option<Vec<u8>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kdf: Option<Kdf>,
}

/// Encrypts a key and writes its file (mode 0600). Durable when it returns.
///
/// # Errors
///
/// `KeyFileError` when there is a file that must stay, or the system refuses.
pub fn write(
    path: &Path,
    key: &FileKey,
    passphrase: &Passphrase,
    kdf: Kdf,
    overwrite: Overwrite,
    random: &mut dyn rand::CryptoRng,
) -> Result<(), KeyFileError> {
    let (mut salt, mut nonce) = (vec![0; 16], vec![0; 12]);
    random.fill_bytes(&mut salt);
    random.fill_bytes(&mut nonce);
    let json = seal(key, passphrase, kdf, salt, nonce)?;
    Ok(files::write_private(path, &json, overwrite)?)
}

fn seal(
    key: &FileKey,
    passphrase: &Passphrase,
    kdf: Kdf,
    salt: Vec<u8>,
    nonce: Vec<u8>,
) -> Result<Vec<u8>, KeyFileError> {
    let derived = kdf.derive(passphrase, &salt)?;
    let priv_key_encrypted = cipher(&derived)
        .encrypt(Nonce::from_slice(&nonce), key.to_pair().as_slice())
        .expect("64 bytes are not too long for AES-GCM");
    let kdf = (kdf != Kdf::EVNODE).then_some(kdf);
    let json = Json { priv_key_encrypted, nonce, pub_key: key.public().to_vec(), salt: Some(salt), kdf };
    Ok(serde_json::to_vec(&json).expect("bytes and numbers are valid JSON"))
}

/// Reads a key file and decrypts the key. Takes about 0.1 s and 32 MiB with ev-node's parameters.
///
/// # Errors
///
/// `KeyFileError` when the file is missing, open to others, damaged or of a version without
/// salt, or the passphrase is wrong.
pub fn read(path: &Path, passphrase: &Passphrase) -> Result<FileKey, KeyFileError> {
    let json = parse(path)?;
    let wrong = || KeyFileError::WrongPassphrase { path: path.to_path_buf() };
    let salt = json.salt.as_deref().unwrap_or_default();
    let derived = json.kdf.unwrap_or(Kdf::EVNODE).derive(passphrase, salt);
    // What the file asks for is the file's fault.
    let derived = derived.map_err(|error| damaged(path, &error.to_string()))?;
    let opened = cipher(&derived).decrypt(Nonce::from_slice(&json.nonce), json.priv_key_encrypted.as_slice());
    let plain = Zeroizing::new(opened.map_err(|_| wrong())?);
    let damaged = |reason: &str| damaged(path, reason);
    let pair = plain.as_slice().try_into().map_err(|_| damaged("the private key has not 64 bytes"))?;
    let key = FileKey::from_pair(pair).ok_or_else(|| damaged("the private key is not one"))?;
    if key.public().as_slice() != json.pub_key {
        return Err(damaged("pub_key is not the public key of the private key"));
    }
    Ok(key)
}

/// Reads the public key of a key file, which needs no passphrase.
///
/// # Errors
///
/// `KeyFileError` when the file is missing, open to others, damaged or without salt.
pub fn read_public(path: &Path) -> Result<[u8; 32], KeyFileError> {
    let json = parse(path)?;
    json.pub_key.as_slice().try_into().map_err(|_| damaged(path, "pub_key has not 32 bytes"))
}

fn parse(path: &Path) -> Result<Json, KeyFileError> {
    let bytes = files::read_private(path, LIMIT)?;
    let json: Json = serde_json::from_slice(&bytes).map_err(|error| damaged(path, &error.to_string()))?;
    if json.salt.as_ref().is_none_or(Vec::is_empty) {
        return Err(KeyFileError::NoSalt { path: path.to_path_buf() });
    }
    for (field, length, expected) in [
        ("nonce", json.nonce.len(), 12),
        ("pub_key", json.pub_key.len(), 32),
        ("priv_key_encrypted", json.priv_key_encrypted.len(), 64 + 16),
    ] {
        if length != expected {
            return Err(damaged(path, &format!("{field} has {length} bytes instead of {expected}")));
        }
    }
    if json.salt.as_ref().is_none_or(|salt| salt.len() < 8) {
        return Err(damaged(path, "salt has fewer than 8 bytes"));
    }
    Ok(json)
}

fn cipher(derived: &[u8; 32]) -> Aes256Gcm {
    Aes256Gcm::new(derived.into())
}

fn damaged(path: &Path, reason: &str) -> KeyFileError {
    KeyFileError::Damaged { path: path.to_path_buf(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by another program from the specification: key «keys-ed25519-sequencer»,
    /// passphrase "correct horse", salt a0..af, nonce b0..bb.
    const EVNODE_FILE: &str = include_str!("testdata/signer.json");

    fn passphrase() -> Passphrase {
        Passphrase::new(b"correct horse").unwrap()
    }

    fn key() -> FileKey {
        FileKey::from_seed(&std::array::from_fn(|i| u8::try_from(i).unwrap()))
    }

    fn random() -> rand::rngs::StdRng {
        rand::SeedableRng::seed_from_u64(7)
    }

    struct Fixture(tempfile::TempDir);

    impl Fixture {
        fn new(content: &str) -> Self {
            let fixture = Self(tempfile::tempdir().unwrap());
            files::write_private(&fixture.path(), content.as_bytes(), Overwrite::Refuse).unwrap();
            fixture
        }

        fn path(&self) -> PathBuf {
            self.0.path().join("signer.json")
        }
    }

    fn edited(edit: impl FnOnce(&mut serde_json::Value)) -> Fixture {
        let mut json = serde_json::from_str(EVNODE_FILE).unwrap();
        edit(&mut json);
        Fixture::new(&json.to_string())
    }

    #[test]
    fn a_file_made_elsewhere_from_the_specification_opens() {
        let file = Fixture::new(EVNODE_FILE);
        let opened = read(&file.path(), &passphrase()).unwrap();
        assert_eq!(opened.to_pair(), key().to_pair());
        assert_eq!(read_public(&file.path()).unwrap(), key().public());
        assert_eq!(
            opened.address().to_string(),
            "56475aa75463474c0285df5dbf2bcab73da651358839e9b77481b2eab107708c"
        );
    }

    #[test]
    fn the_same_key_salt_and_nonce_give_the_same_file() {
        let sealed = seal(&key(), &passphrase(), Kdf::EVNODE, (0xa0..0xb0).collect(), (0xb0..0xbc).collect());
        assert_eq!(String::from_utf8(sealed.unwrap()).unwrap(), EVNODE_FILE.trim_end());
    }

    #[test]
    fn a_written_file_opens_again_and_has_only_evnodes_fields() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("signer.json");
        write(&path, &key(), &passphrase(), Kdf::EVNODE, Overwrite::Refuse, &mut random()).unwrap();
        assert_eq!(read(&path, &passphrase()).unwrap().to_pair(), key().to_pair());
        let json: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let fields: Vec<_> = json.keys().map(String::as_str).collect();
        assert_eq!(fields, ["nonce", "priv_key_encrypted", "pub_key", "salt"]);
    }

    #[test]
    fn a_fast_file_says_so_and_opens() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("signer.json");
        write(&path, &key(), &passphrase(), Kdf::INSECURE, Overwrite::Refuse, &mut random()).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().contains("\"kdf\""));
        assert_eq!(read(&path, &passphrase()).unwrap().to_pair(), key().to_pair());
    }

    #[test]
    fn a_passphrase_is_trimmed_as_go_trims() {
        for bytes in ["correct horse\n", "\t correct horse\r\n", "\u{b}\u{c}correct horse\u{a0}\u{85}"] {
            assert_eq!(*Passphrase::new(bytes.as_bytes()).unwrap().0, b"correct horse");
        }
        assert_eq!(*Passphrase::new(b" \xff\xfe\n").unwrap().0, b"\xff\xfe");
        assert!(matches!(Passphrase::new(b" \n"), Err(KeyFileError::EmptyPassphrase)));
    }

    #[test]
    fn a_passphrase_is_never_shown() {
        assert_eq!(format!("{:?}", passphrase()), "Passphrase(...)");
    }

    #[test]
    fn a_passphrase_has_an_end() {
        assert!(Passphrase::from_reader(&b"correct horse\n"[..]).is_ok());
        assert!(matches!(Passphrase::from_reader(std::io::repeat(b'a')), Err(KeyFileError::LongPassphrase)));
    }

    #[test]
    fn a_wrong_passphrase_is_refused() {
        let file = Fixture::new(EVNODE_FILE);
        let wrong = Passphrase::new(b"incorrect horse").unwrap();
        assert!(matches!(read(&file.path(), &wrong), Err(KeyFileError::WrongPassphrase { .. })));
    }

    #[test]
    fn a_file_without_salt_says_how_to_convert_it() {
        let without = edited(|json| {
            json.as_object_mut().unwrap().remove("salt");
        });
        let refused = read(&without.path(), &passphrase()).unwrap_err();
        assert!(matches!(refused, KeyFileError::NoSalt { .. }));
        assert!(refused.to_string().contains("baton keys import --force"), "{refused}");
    }

    #[test]
    fn damaged_files_are_named_and_never_panic() {
        let damages: [(&str, serde_json::Value); 6] = [
            ("nonce", "AAAA".into()),
            ("pub_key", "AAAA".into()),
            ("priv_key_encrypted", "AAAA".into()),
            ("salt", "AAAA".into()),
            ("nonce", "not base64!".into()),
            ("pub_key", 7.into()),
        ];
        for (field, value) in damages {
            let file = edited(|json| json[field] = value.clone());
            let refused = read(&file.path(), &passphrase()).unwrap_err();
            assert!(matches!(refused, KeyFileError::Damaged { .. }), "{field} {value}: {refused}");
        }
        for content in ["", "{", "[]", "{}", "\0\0\0\0", "{\"nonce\":"] {
            let file = Fixture::new(content);
            assert!(
                matches!(read(&file.path(), &passphrase()), Err(KeyFileError::Damaged { .. })),
                "{content}"
            );
        }
    }

    #[test]
    fn no_changed_byte_of_a_file_goes_unnoticed() {
        let sealed = seal(&key(), &passphrase(), Kdf::INSECURE, vec![1; 16], vec![2; 12]).unwrap();
        for flip in 0..sealed.len() {
            let mut bytes = sealed.clone();
            bytes[flip] = if bytes[flip] == b'A' { b'B' } else { b'A' };
            let file = Fixture::new(&String::from_utf8(bytes).unwrap());
            assert!(read(&file.path(), &passphrase()).is_err(), "byte {flip}");
        }
    }

    #[test]
    fn a_public_key_that_is_not_the_private_keys_is_damage() {
        use base64::Engine;
        let other = base64::engine::general_purpose::STANDARD.encode(FileKey::from_seed(&[9; 32]).public());
        let file = edited(|json| json["pub_key"] = other.into());
        let refused = read(&file.path(), &passphrase()).unwrap_err();
        assert!(matches!(refused, KeyFileError::Damaged { .. }), "{refused}");
    }

    #[test]
    fn a_file_cannot_ask_for_all_memory() {
        let greedy = serde_json::json!({"time": 1, "memory_kib": u32::MAX, "lanes": 1});
        let file = edited(|json| json["kdf"] = greedy);
        let refused = read(&file.path(), &passphrase()).unwrap_err();
        assert!(matches!(refused, KeyFileError::Damaged { .. }), "{refused}");
        assert!(refused.to_string().contains("is refused"), "{refused}");
    }

    #[test]
    fn a_key_or_passphrase_file_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let file = Fixture::new(EVNODE_FILE);
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o640)).unwrap();
        let refusals =
            [read(&file.path(), &passphrase()).map(|_| ()), Passphrase::from_file(&file.path()).map(|_| ())];
        for refused in refusals {
            let refused = refused.unwrap_err();
            assert!(matches!(refused, KeyFileError::File(FileError::Permissions { .. })), "{refused}");
        }
    }
}
