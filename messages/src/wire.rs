//! ev-node's wire formats: protobuf encoding, hashing, signature payloads, validation.

use crate::chain::{Data, DaHeaderEnvelope, Header, P2pData, P2pSignedHeader, SignedData, SignedHeader, Signer, State};
use crate::types::Hash;

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Not decodable.
    #[error("malformed {what}: {reason}")]
    Malformed {
        /// Which type.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
}

macro_rules! wire {
    ($($type:ty),*) => {$(
        impl $type {
            /// The canonical protobuf encoding (wire section 1.0).
            #[must_use]
            pub fn encode(&self) -> Vec<u8> { todo!() }
            /// Decodes ev-node's protobuf.
            ///
            /// # Errors
            ///
            /// `WireError` on malformed input.
            pub fn decode(bytes: &[u8]) -> Result<Self, WireError> { let _ = bytes; todo!() }
        }
    )*};
}
wire!(Header, SignedHeader, Data, SignedData, DaHeaderEnvelope, P2pSignedHeader, P2pData, State);

impl Header {
    /// The header hash (wire section 2.1, 2.2).
    #[must_use]
    pub fn hash(&self) -> Hash { todo!() }
}

impl Data {
    /// `SHA-256(00 || Data with metadata)`: the next block's `last_data_hash` (wire section 2.4).
    #[must_use]
    pub fn hash(&self) -> Hash { todo!() }

    /// `SHA-256(00 || Data without metadata)`: `Header.data_hash` (wire section 2.4).
    #[must_use]
    pub fn commitment(&self) -> Hash { todo!() }
}

impl Signer {
    /// The signer with this raw Ed25519 public key.
    #[must_use]
    pub fn ed25519(public_key: &[u8; 32]) -> Self { let _ = public_key; todo!() }
}
