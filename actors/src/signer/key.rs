//! Whoever holds the private key.

use std::fmt;

use baton_messages::types::Hash;
use bytes::Bytes;
use ed25519_dalek::{Signer as _, SigningKey};
use zeroize::Zeroizing;

/// The key or its service fails.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeyFailure(pub String);

/// An Ed25519 key that signs whatever it is given; the signer in front of it decides what.
///
/// May block: the signer has an arbiter of its own.
pub trait Key: Send + 'static {
    /// The raw public key.
    fn public(&self) -> [u8; 32];

    /// Signs a message. The same message gives the same 64 bytes.
    ///
    /// # Errors
    ///
    /// `KeyFailure` when the key cannot be reached.
    fn sign(&self, message: &[u8]) -> Result<Bytes, KeyFailure>;
}

/// A key held in memory, from a key file. Wiped when dropped; `Debug` shows the address only.
#[derive(Clone)]
pub struct FileKey(SigningKey);

impl FileKey {
    /// The key with this seed.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// A new key.
    pub fn generate(random: &mut dyn rand::CryptoRng) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        random.fill_bytes(&mut *seed);
        Self::from_seed(&seed)
    }

    /// The key in Go's 64-byte form: seed, then public key. `None` when the halves differ.
    #[must_use]
    pub fn from_pair(pair: &[u8; 64]) -> Option<Self> {
        SigningKey::from_keypair_bytes(pair).ok().map(Self)
    }

    /// Seed, then public key.
    #[must_use]
    pub fn to_pair(&self) -> Zeroizing<[u8; 64]> {
        Zeroizing::new(self.0.to_keypair_bytes())
    }

    /// SHA-256 of the raw public key (wire section 2.6).
    #[must_use]
    pub fn address(&self) -> Hash {
        Hash::of(&self.public())
    }
}

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileKey({})", self.address())
    }
}

impl Key for FileKey {
    fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    fn sign(&self, message: &[u8]) -> Result<Bytes, KeyFailure> {
        Ok(Bytes::copy_from_slice(&self.0.sign(message).to_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_whose_halves_differ_is_no_key() {
        let key = FileKey::from_seed(&[7; 32]);
        let mut pair = *key.to_pair();
        assert_eq!(FileKey::from_pair(&pair).unwrap().public(), key.public());
        pair[63] ^= 1;
        assert!(FileKey::from_pair(&pair).is_none());
    }

    #[test]
    fn debug_shows_the_address_and_no_secret() {
        let key = FileKey::from_seed(&[7; 32]);
        let shown = format!("{key:?}");
        assert_eq!(shown, format!("FileKey({})", key.address()));
        assert!(!shown.contains(&hex::encode([7; 32])));
    }
}
