//! One versioned codec for everything the cluster and the store encode.
//!
//! Changing an encoded type changes its golden bytes (`tests/golden.rs`), the format version
//! here and the changelog.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The format version that `encode` writes, the first byte of everything.
pub const FORMAT_VERSION: u8 = 1;

/// The largest value that is decoded, in bytes; a length in hostile input cannot make the
/// decoder reserve more. A full block with its proof and signatures is far below.
pub const MAX_ENCODED: usize = 64 * 1024 * 1024;

/// The most bytes of transactions in any block, whatever the settings, forced ones included: with what
/// is around them, and with as many of them as a block may have, they are decoded by every member.
pub const MAX_BLOCK_BYTES: usize = 48 * 1024 * 1024;

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

const fn configuration<const LIMIT: usize>() -> Configuration<LittleEndian, Varint, Limit<LIMIT>> {
    bincode::config::standard().with_limit::<LIMIT>()
}

/// Encodes a value: the format version byte, then bincode.
///
/// # Panics
///
/// Never for the types of this crate: they serialise without failing.
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = vec![FORMAT_VERSION];
    bincode::serde::encode_into_std_write(value, &mut bytes, configuration::<MAX_ENCODED>())
        .expect("the types of this crate serialise, and a vector takes every byte");
    bytes
}

/// Decodes what `encode` wrote; trailing bytes are an error.
///
/// # Errors
///
/// `CodecError` when the version is unknown or the bytes are not a `T`.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    decode_within::<T, MAX_ENCODED>(bytes)
}

/// Decodes as `decode` does what strangers sent: a length in it cannot make the decoder reserve
/// more than `LIMIT` bytes.
///
/// # Errors
///
/// `CodecError` when the version is unknown or the bytes are not a `T` of at most `LIMIT` bytes.
pub fn decode_within<T: DeserializeOwned, const LIMIT: usize>(bytes: &[u8]) -> Result<T, CodecError> {
    match bytes.split_first() {
        None => Err(CodecError::Malformed("no bytes".to_owned())),
        Some((&FORMAT_VERSION, body)) => {
            let (value, read) = bincode::serde::decode_from_slice(body, configuration::<LIMIT>())
                .map_err(|error| CodecError::Malformed(error.to_string()))?;
            if read == body.len() {
                Ok(value)
            } else {
                Err(CodecError::Malformed(format!("{} bytes too many", body.len() - read)))
            }
        }
        Some((&version, _)) => Err(CodecError::Version(version)),
    }
}
