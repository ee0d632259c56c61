//! libp2p public keys, addresses and signatures (wire section 2.6).

use bytes::Bytes;
use ed25519_dalek::{Signature, VerifyingKey};
use prost::Message;

use crate::chain::Signer;
use crate::types::Hash;

/// The bytes before a raw Ed25519 key in libp2p's `PublicKey`.
const ED25519_PREFIX: [u8; 4] = [0x08, 0x01, 0x12, 0x20];
/// The longest encoding of a public key: RSA of 8192 bits, the largest that libp2p takes, has 1074.
const MAX_ENCODED: usize = 1100;

/// The kinds of key that libp2p knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    /// RSA, PKIX-encoded.
    Rsa,
    /// Ed25519, 32 bytes. What every stock signer uses.
    Ed25519,
    /// secp256k1, a compressed point of 33 bytes.
    Secp256k1,
    /// ECDSA, PKIX-encoded.
    Ecdsa,
}

/// Why a public key or a signature is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The bytes are not libp2p's `PublicKey`.
    #[error("not a libp2p public key: {0}")]
    Malformed(String),
    /// There are bytes around the key that no encoder writes. No signature covers a header's key,
    /// so anybody could add them to a true header.
    #[error("{0} bytes that are not the only encoding of a libp2p public key")]
    Padded(usize),
    /// A signature of this kind of key cannot be checked by this node.
    #[error("signatures of {0:?} keys are not supported")]
    Unsupported(KeyType),
    /// There is no key.
    #[error("the signer has no public key")]
    Missing,
    /// The signature is not the key's over this payload.
    #[error("the signature does not verify")]
    Mismatch,
}

/// A libp2p public key as it was parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// Its kind.
    pub key_type: KeyType,
    /// The raw key; its SHA-256 is the address.
    pub raw: Bytes,
}

/// libp2p's own message; proto2, both fields required.
#[derive(Clone, PartialEq, Eq, Message)]
struct PublicKeyMessage {
    #[prost(uint64, optional, tag = "1")]
    key_type: Option<u64>,
    #[prost(bytes = "bytes", optional, tag = "2")]
    data: Option<Bytes>,
}

impl PublicKey {
    /// Parses libp2p's encoding, of which a key has one. Ed25519 keys are checked to be points of
    /// the curve, the other kinds for their structure.
    ///
    /// # Errors
    ///
    /// `KeyError::Malformed`, or `KeyError::Padded` where only the encoding is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, KeyError> {
        let malformed = |reason: &str| KeyError::Malformed(reason.to_owned());
        let message =
            PublicKeyMessage::decode(bytes).map_err(|error| KeyError::Malformed(error.to_string()))?;
        if bytes.len() > MAX_ENCODED || message.encode_to_vec() != bytes {
            return Err(KeyError::Padded(bytes.len()));
        }
        let raw = message.data.ok_or_else(|| malformed("the key itself is missing"))?;
        let key_type = match message.key_type.ok_or_else(|| malformed("the key type is missing"))? {
            0 => KeyType::Rsa,
            1 => KeyType::Ed25519,
            2 => KeyType::Secp256k1,
            3 => KeyType::Ecdsa,
            other => return Err(KeyError::Malformed(format!("key type {other} is not known"))),
        };
        let valid = match key_type {
            KeyType::Ed25519 => ed25519_point(&raw).is_some(),
            KeyType::Secp256k1 => is_sec1_point(&raw),
            // A DER sequence whose length is the rest, as every PKIX key begins.
            KeyType::Rsa | KeyType::Ecdsa => is_der_sequence(&raw),
        };
        if !valid {
            return Err(KeyError::Malformed(format!(
                "the raw {key_type:?} key of {} bytes is invalid",
                raw.len()
            )));
        }
        Ok(Self { key_type, raw })
    }

    /// Checks a signature: RFC 8032, cofactorless, as Go's `crypto/ed25519` does it.
    ///
    /// # Errors
    ///
    /// `Mismatch`, or `Unsupported` for kinds other than Ed25519.
    pub fn verify(&self, payload: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        if self.key_type != KeyType::Ed25519 {
            return Err(KeyError::Unsupported(self.key_type));
        }
        let key = ed25519_point(&self.raw).ok_or(KeyError::Mismatch)?;
        let signature = Signature::from_slice(signature).map_err(|_| KeyError::Mismatch)?;
        ed25519_dalek::Verifier::verify(&key, payload, &signature).map_err(|_| KeyError::Mismatch)
    }
}

fn ed25519_point(raw: &[u8]) -> Option<VerifyingKey> {
    VerifyingKey::from_bytes(raw.try_into().ok()?).ok()
}

fn is_sec1_point(raw: &[u8]) -> bool {
    matches!((raw.first(), raw.len()), (Some(2 | 3), 33) | (Some(4), 65))
}

fn is_der_sequence(raw: &[u8]) -> bool {
    let Some((&0x30, rest)) = raw.split_first() else { return false };
    let Some((&first, rest)) = rest.split_first() else { return false };
    if first < 0x80 {
        return rest.len() == usize::from(first);
    }
    let count = usize::from(first & 0x7f);
    if count == 0 || count > 4 || rest.len() < count {
        return false;
    }
    let (length, body) = rest.split_at(count);
    body.len() == length.iter().fold(0, |sum, &byte| (sum << 8) | usize::from(byte))
}

impl Signer {
    /// The signer with this raw Ed25519 public key.
    #[must_use]
    pub fn ed25519(public_key: &[u8; 32]) -> Self {
        let pub_key = [&ED25519_PREFIX[..], public_key].concat();
        Self { address: Hash::of(public_key).to_bytes(), pub_key: pub_key.into() }
    }

    /// The public key.
    ///
    /// # Errors
    ///
    /// `Missing` when there is none, `Malformed` when it is not libp2p's.
    pub fn public_key(&self) -> Result<PublicKey, KeyError> {
        if self.pub_key.is_empty() {
            return Err(KeyError::Missing);
        }
        PublicKey::parse(&self.pub_key)
    }

    /// The raw public key; its SHA-256 is the address.
    ///
    /// # Errors
    ///
    /// As `public_key`.
    pub fn raw_key(&self) -> Result<Bytes, KeyError> {
        Ok(self.public_key()?.raw)
    }
}
