//! What `baton keys` does: the sequencer's key, its guard, and the key of the host.
//!
//! Secrets come from files or stdin, never from the command line, and what is done with them
//! is in the audit record.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use baton_actors::signer::FileGuard;
use baton_actors::signer::audit::{Audit, AuditIo, Event, FileAudit, Line};
use baton_actors::signer::files::{self, FileError, Overwrite};
use baton_actors::signer::guard::{Guard, GuardIo, GuardStore, Progress, Refusal};
use baton_actors::signer::key::{FileKey, Key};
use baton_actors::signer::key_file::{self, Kdf, KeyFileError, Passphrase};
use baton_actors::signer::slot::{self, ChainId, Verdict};
use baton_messages::genesis::Genesis;
use baton_messages::types::{Hash, Height, Term, Timestamp, Tip};
use serde::{Deserialize, Serialize};
use serde_with::base64::Base64;
use serde_with::serde_as;
use zeroize::{Zeroize, Zeroizing};

use crate::home::Home;

/// A private key in hex has 128 digits; nothing much longer is read.
const LIMIT: u64 = 4096;

/// Why a key command did nothing.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The key file or passphrase is at fault.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// A file was not read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Standard input was not read.
    #[error("cannot read the private key from stdin: {0}")]
    Stdin(std::io::Error),
    /// What was given is no private key. It is not repeated here.
    #[error("the private key must be 128 hex digits (seed, then public key), as `keys export` prints it")]
    NotAKey,
    /// The host's key file is at fault.
    #[error("{} is damaged: {reason}; remove it to get a new identity", path.display())]
    NodeKey {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The guard was not read or written.
    #[error(transparent)]
    Guard(#[from] GuardIo),
    /// The guard must not be replaced, or not like this.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is nothing to resolve.
    #[error("the guard {place} is in order at height {height}; it is not replaced")]
    GuardInOrder {
        /// Where it is.
        place: String,
        /// What it guards.
        height: Height,
    },
    /// The operator has not confirmed.
    #[error("{0}\nTo do it, run the command again with --yes.")]
    Confirm(Box<Plan>),
    /// The record was not written, and so nothing was done.
    #[error(transparent)]
    Audit(#[from] AuditIo),
}

/// The public side of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// The address in hex: SHA-256 of the public key.
    pub address: String,
    /// The raw public key in hex.
    pub public_key: String,
}

impl Shown {
    fn of(public: &[u8; 32]) -> Self {
        Self { address: Hash::of(public).to_string(), public_key: hex::encode(public) }
    }
}

/// Reads a passphrase from a file, or from stdin when the file is `-`.
///
/// # Errors
///
/// `KeysError` when the file is missing, open to others or empty.
pub fn read_passphrase(file: &Path) -> Result<Passphrase, KeysError> {
    Ok(if file == Path::new("-") {
        Passphrase::from_reader(std::io::stdin().lock())?
    } else {
        Passphrase::from_file(file)?
    })
}

/// Reads a private key in hex from a file, or from stdin when the file is `-`.
///
/// # Errors
///
/// `KeysError` when the file is missing, open to others or too long.
pub fn read_private_hex(file: &Path) -> Result<Zeroizing<Vec<u8>>, KeysError> {
    if file != Path::new("-") {
        return Ok(files::read_private(file, LIMIT)?);
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(LIMIT as usize + 1));
    std::io::stdin().lock().take(LIMIT).read_to_end(&mut bytes).map_err(KeysError::Stdin)?;
    Ok(bytes)
}

/// Decrypts the sequencer's key.
///
/// # Errors
///
/// `KeysError` when the file is missing, open to others, damaged, or the passphrase is wrong.
pub fn open(home: &Home, passphrase: &Passphrase) -> Result<FileKey, KeysError> {
    Ok(key_file::read(&home.signer(), passphrase)?)
}

/// Makes a sequencer key, encrypted under the passphrase.
///
/// # Errors
///
/// `KeysError` when there is a key already, or it cannot be written.
pub fn create(home: &Home, passphrase: &Passphrase, kdf: Kdf) -> Result<Shown, KeysError> {
    let key = FileKey::generate(&mut system_random());
    key_file::write(&home.signer(), &key, passphrase, kdf, Overwrite::Refuse, &mut system_random())?;
    Ok(Shown::of(&key.public()))
}

/// The private key in hex, not encrypted. It is for the one who asked and nobody else.
///
/// # Errors
///
/// `KeysError` as `open`, or when it cannot be put on record.
pub fn export(home: &Home, passphrase: &Passphrase) -> Result<Zeroizing<String>, KeysError> {
    let key = open(home, passphrase)?;
    record(home, Event::KeyExported { address: key.address() })?;
    Ok(Zeroizing::new(hex::encode(key.to_pair().as_slice())))
}

/// How a key is imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Import {
    /// Replace a key that is there.
    pub force: bool,
    /// How the passphrase becomes a key; `Kdf::INSECURE` is for tests.
    pub kdf: Kdf,
}

/// Encrypts a private key given in hex and puts it in place.
///
/// # Errors
///
/// `KeysError` when it is not a key, there is one already, or it cannot be written.
pub fn import(
    home: &Home,
    private_hex: &[u8],
    passphrase: &Passphrase,
    how: Import,
) -> Result<Shown, KeysError> {
    let mut pair = Zeroizing::new([0; 64]);
    hex::decode_to_slice(private_hex.trim_ascii(), &mut *pair).map_err(|_| KeysError::NotAKey)?;
    let key = FileKey::from_pair(&pair).ok_or(KeysError::NotAKey)?;
    let overwrite = if how.force { Overwrite::Replace } else { Overwrite::Refuse };
    if overwrite == Overwrite::Refuse && home.signer().exists() {
        return Err(FileError::Exists { path: home.signer() }.into());
    }
    record(home, Event::KeyImported { address: key.address() })?;
    key_file::write(&home.signer(), &key, passphrase, how.kdf, overwrite, &mut system_random())?;
    Ok(Shown::of(&key.public()))
}

/// The public side of the sequencer's key; needs no passphrase.
///
/// # Errors
///
/// `KeysError` when the file is missing, open to others or damaged.
pub fn show(home: &Home) -> Result<Shown, KeysError> {
    Ok(Shown::of(&key_file::read_public(&home.signer())?))
}

/// The address of the sequencer's key; needs no passphrase.
///
/// # Errors
///
/// As `show`.
pub fn address(home: &Home) -> Result<Hash, KeysError> {
    Ok(Hash::of(&key_file::read_public(&home.signer())?))
}

/// What the guard holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GuardShown {
    /// Where it is.
    pub path: PathBuf,
    /// `missing`, `damaged`, `newer`, `fresh` (nothing was signed) or `set`.
    pub state: &'static str,
    /// What is wrong with it, or with the slot that does not rule.
    pub trouble: Option<String>,
    /// Its chain.
    pub chain_id: Option<String>,
    /// The genesis hash in hex.
    pub genesis: Option<String>,
    /// The height it guards.
    pub height: Option<u64>,
    /// The guarded header's hash in hex.
    pub hash: Option<String>,
    /// The newest term it has seen.
    pub term: Option<u64>,
}

impl fmt::Display for GuardShown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "guard {}: {}", self.path.display(), self.state)?;
        if let (Some(chain), Some(height), Some(term)) = (&self.chain_id, self.height, self.term) {
            write!(f, ", chain {chain:?}, height {height}, term {term}")?;
        }
        if let Some(hash) = &self.hash {
            write!(f, ", header {hash}")?;
        }
        self.trouble.as_ref().map_or(Ok(()), |trouble| write!(f, " ({trouble})"))
    }
}

/// Looks at the guard, also while a node uses it.
///
/// # Errors
///
/// `KeysError` when it cannot be read.
pub fn show_guard(home: &Home) -> Result<GuardShown, KeysError> {
    let path = home.guard();
    let verdict = slot::judge(&FileGuard::peek(&path)?);
    let mut shown = GuardShown {
        path,
        state: "missing",
        trouble: None,
        chain_id: None,
        genesis: None,
        height: None,
        hash: None,
        term: None,
    };
    match verdict {
        Verdict::Missing => {}
        Verdict::Damaged(reason) => (shown.state, shown.trouble) = ("damaged", Some(reason)),
        Verdict::Newer(version) => {
            (shown.state, shown.trouble) = ("newer", Some(format!("format version {version}")));
        }
        Verdict::Rules { record, torn } => {
            let signed = record.hash != Hash::default();
            shown.state = if signed { "set" } else { "fresh" };
            shown.trouble = torn.map(|reason| format!("one slot was torn: {reason}"));
            shown.chain_id = Some(record.chain.name);
            shown.genesis = Some(record.chain.genesis.to_string());
            shown.height = Some(record.height.0);
            shown.hash = signed.then(|| record.hash.to_string());
            shown.term = Some(record.term.0);
        }
    }
    Ok(shown)
}

/// What the store says about the chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// The last committed block.
    pub tip: Tip,
    /// The last block whose signature is in the store.
    pub last_signed: Option<(Height, Hash)>,
}

/// What setting the guard means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where the guard is.
    pub path: PathBuf,
    /// What is there now.
    pub before: String,
    /// The height it will hold.
    pub height: Height,
    /// The header it will hold; zeroes when nothing was signed.
    pub hash: Hash,
    /// The store's last block.
    pub tip: Height,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, height) = (self.path.display(), self.height);
        writeln!(f, "{}", self.before)?;
        writeln!(
            f,
            "The guard {path} will be replaced: it will hold height {height}, header {}.",
            self.hash
        )?;
        write!(
            f,
            "The key will then sign what follows, up to the store's last block {} and beyond. If this key signed \
             anything above height {height} that the store does not hold, those heights can be signed twice. Make \
             sure that no other node uses this key, and that this store is the newest there is.",
            self.tip
        )
    }
}

/// Puts the guard where the store's signatures end, after it was lost, damaged or left behind.
///
/// Above the last signature stand only committed blocks, and only their headers can be signed;
/// so the unsigned tail is signed as after any crash. The node must be stopped. Audited;
/// durable when it returns.
///
/// # Errors
///
/// `Confirm` with the plan unless `yes`; `GuardInOrder` when nothing is wrong; other
/// `KeysError` when the guard is in use, of another chain or of a newer version.
pub fn guard_from_committed(
    home: &Home,
    genesis: &Genesis,
    committed: &Committed,
    yes: bool,
) -> Result<Plan, KeysError> {
    let chain = ChainId { name: genesis.chain_id.clone(), genesis: genesis.hash() };
    let mut store = FileGuard::open(&home.guard())?;
    let progress = Progress { last_block: committed.tip.height, last_signed: committed.last_signed };
    let before = match Guard::open(&store.read()?, &chain) {
        Ok(None) if committed.tip.height == Height(0) => {
            "There is no guard, and no block: the node makes one when it starts.".to_owned()
        }
        Ok(None) => Refusal::Missing(committed.tip.height).to_string(),
        Ok(Some(guard)) => match guard.check(&progress) {
            Ok(()) => {
                let (place, height) = (store.place(), guard.record().height);
                return Err(KeysError::GuardInOrder { place, height });
            }
            Err(reason) => format!("{reason}\n{}", show_guard(home)?),
        },
        Err(reason @ (Refusal::OtherChain { .. } | Refusal::Newer(_))) => return Err(reason.into()),
        Err(reason) => reason.to_string(),
    };
    let unsigned = (genesis.initial_height.previous(), Hash::default());
    let (height, hash) = committed.last_signed.unwrap_or(unsigned);
    let term = if hash == Hash::default() { Term(0) } else { committed.tip.term };
    let guard = Guard::at(&chain, height, hash, term)?;
    let plan = Plan { path: home.guard(), before, height, hash, tip: committed.tip.height };
    if !yes {
        return Err(KeysError::Confirm(Box::new(plan)));
    }
    record(home, Event::GuardSet { height, hash, before: plan.before.clone() })?;
    store.create(&guard.record().encode())?;
    Ok(plan)
}

#[serde_as]
#[derive(Serialize, Deserialize)]
struct NodeKeyJson {
    #[serde_as(as = "Base64")]
    priv_key: Vec<u8>,
    #[serde_as(as = "Base64")]
    pub_key: Vec<u8>,
}

impl Drop for NodeKeyJson {
    fn drop(&mut self) {
        self.priv_key.zeroize();
    }
}

/// The key of the peer-to-peer host, made when there is none (wire section 6.1). It is not the
/// sequencer's key.
///
/// # Errors
///
/// `KeysError` when the file is open to others, damaged, or cannot be written.
pub fn node_key(home: &Home) -> Result<FileKey, KeysError> {
    let path = home.node_key();
    let bytes = match files::read_private(&path, LIMIT) {
        Ok(bytes) => bytes,
        Err(FileError::Missing { .. }) => return create_node_key(&path),
        Err(error) => return Err(error.into()),
    };
    let damaged = |reason: String| KeysError::NodeKey { path: path.clone(), reason };
    let json: NodeKeyJson = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    let pair =
        json.priv_key.as_slice().try_into().map_err(|_| damaged("priv_key has not 64 bytes".into()))?;
    let key = FileKey::from_pair(pair).ok_or_else(|| damaged("priv_key is not a key".into()))?;
    if key.public().as_slice() != json.pub_key {
        return Err(damaged("pub_key is not the public key of priv_key".into()));
    }
    Ok(key)
}

fn create_node_key(path: &Path) -> Result<FileKey, KeysError> {
    let key = FileKey::generate(&mut system_random());
    files::write_private(path, &node_key_json(&key), Overwrite::Refuse)?;
    Ok(key)
}

fn node_key_json(key: &FileKey) -> Zeroizing<Vec<u8>> {
    let json = NodeKeyJson { priv_key: key.to_pair().to_vec(), pub_key: key.public().to_vec() };
    Zeroizing::new(serde_json::to_vec(&json).expect("bytes are valid JSON"))
}

fn record(home: &Home, event: Event) -> Result<(), KeysError> {
    let time = u64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(0);
    files::create_directory(home.root())?;
    Ok(FileAudit::open(&home.audit())?.record(&Line { time: Timestamp(time), event })?)
}

#[allow(
    clippy::disallowed_methods,
    reason = "keys are made of the system's randomness, outside of any simulation"
)]
fn system_random() -> impl rand::CryptoRng {
    rand::rng()
}

#[cfg(test)]
mod tests;
