//! One versioned codec for everything the cluster and the store encode.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why bytes could not be read or a value not be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The format byte is of a newer or unknown version.
    #[error("format version {0} is not known to this version of baton")]
    Version(u8),
    /// The bytes are not a value of the type.
    #[error("malformed: {0}")]
    Malformed(String),
}

/// Encodes a value: the format version byte, then bincode.
///
/// # Panics
///
/// Never for the types of this crate: they serialise without failing.
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let _ = value;
    todo!()
}

/// Decodes what `encode` wrote; trailing bytes are an error.
///
/// # Errors
///
/// `CodecError` when the version is unknown or the bytes are not a `T`.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let _ = bytes;
    todo!()
}
