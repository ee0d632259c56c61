//! The header, which keeps fields of old chains and writes them at the end (wire section 2.2).

use bytes::{Buf, BufMut, Bytes};
use prost::encoding::wire_type::WireType;
use prost::encoding::{self, DecodeContext};
use prost::{DecodeError, Message};
use serde::{Deserialize, Serialize};

use super::Version;
use crate::chain::LegacyHeaderFields;
use crate::wire::json;

/// The longest legacy header field that is decoded, in bytes (wire section 1.1).
pub const MAX_LEGACY_FIELD: usize = 1024;
/// Unknown bytes in one header beyond which it is refused (wire section 1.1).
pub const MAX_UNKNOWN_HEADER_BYTES: usize = 1024 * 1024;

/// A count that is not part of what a header is: headers that differ in it alone are equal.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::wire) struct UnknownBytes(usize);

impl PartialEq for UnknownBytes {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for UnknownBytes {}

/// A block header. Fields 5, 7 and 9 of old chains are kept and written at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Header {
    /// Field 1.
    pub version: Option<Version>,
    /// Field 2.
    #[serde(with = "json::u64", skip_serializing_if = "json::is_zero")]
    pub height: u64,
    /// Field 3, nanoseconds since the Unix epoch.
    #[serde(with = "json::u64", skip_serializing_if = "json::is_zero")]
    pub time: u64,
    /// Field 4.
    #[serde(with = "json::bytes", skip_serializing_if = "Bytes::is_empty", alias = "last_header_hash")]
    pub last_header_hash: Bytes,
    /// Field 6.
    #[serde(with = "json::bytes", skip_serializing_if = "Bytes::is_empty", alias = "data_hash")]
    pub data_hash: Bytes,
    /// Field 8.
    #[serde(with = "json::bytes", skip_serializing_if = "Bytes::is_empty", alias = "app_hash")]
    pub app_hash: Bytes,
    /// Field 10.
    #[serde(with = "json::bytes", skip_serializing_if = "Bytes::is_empty", alias = "proposer_address")]
    pub proposer_address: Bytes,
    /// Field 11.
    #[serde(with = "json::bytes", skip_serializing_if = "Bytes::is_empty", alias = "validator_hash")]
    pub validator_hash: Bytes,
    /// Field 12.
    #[serde(with = "json::string", skip_serializing_if = "String::is_empty", alias = "chain_id")]
    pub chain_id: String,
    /// Fields 5, 7 and 9; unknown to JSON.
    #[serde(skip)]
    pub legacy: LegacyHeaderFields,
    /// How many unknown bytes were met while decoding.
    #[serde(skip)]
    pub(in crate::wire) unknown: UnknownBytes,
}

impl Header {
    fn legacy_field(&mut self, tag: u32) -> Option<&mut Bytes> {
        match tag {
            5 => Some(&mut self.legacy.last_commit_hash),
            7 => Some(&mut self.legacy.consensus_hash),
            9 => Some(&mut self.legacy.last_results_hash),
            _ => None,
        }
    }

    fn merge_unknown(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        let before = buf.remaining();
        match self.legacy_field(tag).filter(|_| wire_type == WireType::LengthDelimited) {
            Some(field) => {
                encoding::bytes::merge(wire_type, field, buf, ctx)?;
                if field.len() > MAX_LEGACY_FIELD {
                    return Err(refusal(format!(
                        "legacy field {tag} has {} bytes, the limit is {MAX_LEGACY_FIELD}",
                        field.len()
                    )));
                }
            }
            None => encoding::skip_field(wire_type, tag, buf, ctx)?,
        }
        self.unknown.0 += encoding::key_len(tag) + (before - buf.remaining());
        if self.unknown.0 > MAX_UNKNOWN_HEADER_BYTES {
            return Err(refusal(format!(
                "more than {MAX_UNKNOWN_HEADER_BYTES} bytes of unknown header fields"
            )));
        }
        Ok(())
    }
}

#[allow(deprecated, reason = "prost has no other way to build an error of one's own")]
fn refusal(reason: String) -> DecodeError {
    DecodeError::new(reason)
}

fn put_uint64(tag: u32, value: u64, buf: &mut impl BufMut) {
    if value != 0 {
        encoding::uint64::encode(tag, &value, buf);
    }
}

fn put_bytes(tag: u32, value: &Bytes, buf: &mut impl BufMut) {
    if !value.is_empty() {
        encoding::bytes::encode(tag, value, buf);
    }
}

fn uint64_len(tag: u32, value: u64) -> usize {
    if value == 0 { 0 } else { encoding::uint64::encoded_len(tag, &value) }
}

fn bytes_len(tag: u32, value: &Bytes) -> usize {
    if value.is_empty() { 0 } else { encoding::bytes::encoded_len(tag, value) }
}

impl Message for Header {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        if let Some(version) = &self.version {
            encoding::message::encode(1, version, buf);
        }
        put_uint64(2, self.height, buf);
        put_uint64(3, self.time, buf);
        put_bytes(4, &self.last_header_hash, buf);
        put_bytes(6, &self.data_hash, buf);
        put_bytes(8, &self.app_hash, buf);
        put_bytes(10, &self.proposer_address, buf);
        put_bytes(11, &self.validator_hash, buf);
        if !self.chain_id.is_empty() {
            encoding::string::encode(12, &self.chain_id, buf);
        }
        put_bytes(5, &self.legacy.last_commit_hash, buf);
        put_bytes(7, &self.legacy.consensus_hash, buf);
        put_bytes(9, &self.legacy.last_results_hash, buf);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            1 => encoding::message::merge(wire_type, self.version.get_or_insert_default(), buf, ctx),
            2 => encoding::uint64::merge(wire_type, &mut self.height, buf, ctx),
            3 => encoding::uint64::merge(wire_type, &mut self.time, buf, ctx),
            4 => encoding::bytes::merge(wire_type, &mut self.last_header_hash, buf, ctx),
            6 => encoding::bytes::merge(wire_type, &mut self.data_hash, buf, ctx),
            8 => encoding::bytes::merge(wire_type, &mut self.app_hash, buf, ctx),
            10 => encoding::bytes::merge(wire_type, &mut self.proposer_address, buf, ctx),
            11 => encoding::bytes::merge(wire_type, &mut self.validator_hash, buf, ctx),
            12 => encoding::string::merge(wire_type, &mut self.chain_id, buf, ctx),
            _ => self.merge_unknown(tag, wire_type, buf, ctx),
        }
    }

    fn encoded_len(&self) -> usize {
        self.version.as_ref().map_or(0, |version| encoding::message::encoded_len(1, version))
            + uint64_len(2, self.height)
            + uint64_len(3, self.time)
            + bytes_len(4, &self.last_header_hash)
            + bytes_len(6, &self.data_hash)
            + bytes_len(8, &self.app_hash)
            + bytes_len(10, &self.proposer_address)
            + bytes_len(11, &self.validator_hash)
            + if self.chain_id.is_empty() { 0 } else { encoding::string::encoded_len(12, &self.chain_id) }
            + bytes_len(5, &self.legacy.last_commit_hash)
            + bytes_len(7, &self.legacy.consensus_hash)
            + bytes_len(9, &self.legacy.last_results_hash)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// The legacy payload of a header: all fields in ascending order (wire section 2.2).
#[derive(Clone, PartialEq, Eq, Message)]
pub(in crate::wire) struct LegacyPayload {
    #[prost(message, optional, tag = "1")]
    pub version: Option<Version>,
    /// Written even when zero.
    #[prost(uint64, optional, tag = "2")]
    pub height: Option<u64>,
    /// Written even when zero.
    #[prost(uint64, optional, tag = "3")]
    pub time: Option<u64>,
    #[prost(bytes = "bytes", tag = "4")]
    pub last_header_hash: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    pub last_commit_hash: Bytes,
    #[prost(bytes = "bytes", tag = "6")]
    pub data_hash: Bytes,
    #[prost(bytes = "bytes", tag = "7")]
    pub consensus_hash: Bytes,
    #[prost(bytes = "bytes", tag = "8")]
    pub app_hash: Bytes,
    #[prost(bytes = "bytes", tag = "9")]
    pub last_results_hash: Bytes,
    #[prost(bytes = "bytes", tag = "10")]
    pub proposer_address: Bytes,
    #[prost(bytes = "bytes", tag = "11")]
    pub validator_hash: Bytes,
    #[prost(string, tag = "12")]
    pub chain_id: String,
}
