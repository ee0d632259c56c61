//! The protobuf messages of package `evnode.v1` as they lie on the wire (wire section 1).
//!
//! They mirror the chain types and are only converted from and to them: hashes and signatures
//! are over what these encode, never over received bytes (wire section 1.0). Sub-messages that
//! ev-node always writes are `Some` in every conversion.
//!
//! A known field with the wrong wire type is an error here where Go takes it for an unknown
//! one. Nobody honest sends that; it is the one known difference in decoding.

use bytes::{Buf, BufMut, Bytes};
use prost::encoding::wire_type::WireType;
use prost::encoding::{self, DecodeContext};
use prost::{DecodeError, Message};
use serde::{Deserialize, Serialize};

use super::json;
use crate::chain::LegacyHeaderFields;

/// The longest legacy header field that is decoded, in bytes (wire section 1.1).
pub const MAX_LEGACY_FIELD: usize = 1024;
/// Unknown bytes in one header beyond which it is refused (wire section 1.1).
pub const MAX_UNKNOWN_HEADER_BYTES: usize = 1024 * 1024;

/// Protocol versions.
#[derive(Clone, Copy, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Version {
    /// Block version.
    #[prost(uint64, tag = "1")]
    #[serde(with = "json::u64", skip_serializing_if = "json::is_zero")]
    pub block: u64,
    /// Application version.
    #[prost(uint64, tag = "2")]
    #[serde(with = "json::u64", skip_serializing_if = "json::is_zero")]
    pub app: u64,
}

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
    pub(super) unknown: usize,
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
        self.unknown += encoding::key_len(tag) + (before - buf.remaining());
        if self.unknown > MAX_UNKNOWN_HEADER_BYTES {
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
pub(super) struct LegacyPayload {
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

/// Who signed.
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Signer {
    /// SHA-256 of the raw public key.
    #[prost(bytes = "bytes", tag = "1")]
    #[serde(with = "json::bytes", skip_serializing_if = "Bytes::is_empty")]
    pub address: Bytes,
    /// libp2p's `PublicKey`, verbatim.
    #[prost(bytes = "bytes", tag = "2")]
    #[serde(with = "json::bytes", skip_serializing_if = "Bytes::is_empty", alias = "pub_key")]
    pub pub_key: Bytes,
}

/// A header with its signature.
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SignedHeader {
    /// The header. Absence is an error when it is converted.
    #[prost(message, optional, tag = "1")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<Header>,
    /// The signature.
    #[prost(bytes = "bytes", tag = "2")]
    #[serde(with = "json::bytes", skip_serializing_if = "Bytes::is_empty")]
    pub signature: Bytes,
    /// Who signed.
    #[prost(message, optional, tag = "3")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signer: Option<Signer>,
}

/// The blob in the header namespace.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct DaHeaderEnvelope {
    /// As in `SignedHeader`.
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    /// As in `SignedHeader`.
    #[prost(bytes = "bytes", tag = "2")]
    pub signature: Bytes,
    /// As in `SignedHeader`.
    #[prost(message, optional, tag = "3")]
    pub signer: Option<Signer>,
    /// Signature over the canonical `SignedHeader`.
    #[prost(bytes = "bytes", tag = "4")]
    pub envelope_signature: Bytes,
}

/// A signed header in gossip and exchange.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct P2pSignedHeader {
    /// As in `SignedHeader`.
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    /// As in `SignedHeader`.
    #[prost(bytes = "bytes", tag = "2")]
    pub signature: Bytes,
    /// As in `SignedHeader`.
    #[prost(message, optional, tag = "3")]
    pub signer: Option<Signer>,
    /// Always written, also zero.
    #[prost(uint64, optional, tag = "4")]
    pub da_height_hint: Option<u64>,
}

/// What data says about its header.
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Metadata {
    /// The chain.
    #[prost(string, tag = "1")]
    #[serde(with = "json::string", skip_serializing_if = "String::is_empty", alias = "chain_id")]
    pub chain_id: String,
    /// The height.
    #[prost(uint64, tag = "2")]
    #[serde(with = "json::u64", skip_serializing_if = "json::is_zero")]
    pub height: u64,
    /// Nanoseconds since the Unix epoch.
    #[prost(uint64, tag = "3")]
    #[serde(with = "json::u64", skip_serializing_if = "json::is_zero")]
    pub time: u64,
    /// Hash of the data before.
    #[prost(bytes = "bytes", tag = "4")]
    #[serde(with = "json::bytes", skip_serializing_if = "Bytes::is_empty", alias = "last_data_hash")]
    pub last_data_hash: Bytes,
}

/// A block's transactions.
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Data {
    /// What it says about its header.
    #[prost(message, optional, tag = "1")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
    /// The transactions.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    #[serde(with = "json::repeated_bytes", skip_serializing_if = "Vec::is_empty")]
    pub txs: Vec<Bytes>,
}

/// Data in gossip and exchange.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct P2pData {
    /// As in `Data`.
    #[prost(message, optional, tag = "1")]
    pub metadata: Option<Metadata>,
    /// As in `Data`.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub txs: Vec<Bytes>,
    /// Always written, also zero.
    #[prost(uint64, optional, tag = "3")]
    pub da_height_hint: Option<u64>,
}

/// The blob in the data namespace.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SignedData {
    /// The data.
    #[prost(message, optional, tag = "1")]
    pub data: Option<Data>,
    /// Signature over the canonical data.
    #[prost(bytes = "bytes", tag = "2")]
    pub signature: Bytes,
    /// Who signed.
    #[prost(message, optional, tag = "3")]
    pub signer: Option<Signer>,
}

/// `google.protobuf.Timestamp`. RFC 3339 in JSON.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Timestamp {
    /// Seconds since the Unix epoch; -62135596800 is Go's zero time.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds of the second, 0 to 999999999.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// The chain's state after a block.
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct State {
    /// Versions, always written.
    #[prost(message, optional, tag = "1")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// The chain.
    #[prost(string, tag = "2")]
    #[serde(with = "json::string", skip_serializing_if = "String::is_empty", alias = "chain_id")]
    pub chain_id: String,
    /// Height of the first block.
    #[prost(uint64, tag = "3")]
    #[serde(with = "json::u64", skip_serializing_if = "json::is_zero", alias = "initial_height")]
    pub initial_height: u64,
    /// Height of the last block.
    #[prost(uint64, tag = "4")]
    #[serde(with = "json::u64", skip_serializing_if = "json::is_zero", alias = "last_block_height")]
    pub last_block_height: u64,
    /// Time of the last block, always written.
    #[prost(message, optional, tag = "5")]
    #[serde(skip_serializing_if = "Option::is_none", alias = "last_block_time")]
    pub last_block_time: Option<Timestamp>,
    /// DA height.
    #[prost(uint64, tag = "6")]
    #[serde(with = "json::u64", skip_serializing_if = "json::is_zero", alias = "da_height")]
    pub da_height: u64,
    /// State root after the last block.
    #[prost(bytes = "bytes", tag = "8")]
    #[serde(with = "json::bytes", skip_serializing_if = "Bytes::is_empty", alias = "app_hash")]
    pub app_hash: Bytes,
    /// Hash of the last header.
    #[prost(bytes = "bytes", tag = "9")]
    #[serde(with = "json::bytes", skip_serializing_if = "Bytes::is_empty", alias = "last_header_hash")]
    pub last_header_hash: Bytes,
    /// Address of the next proposer.
    #[prost(bytes = "bytes", tag = "10")]
    #[serde(with = "json::bytes", skip_serializing_if = "Bytes::is_empty", alias = "next_proposer_address")]
    pub next_proposer_address: Bytes,
}
