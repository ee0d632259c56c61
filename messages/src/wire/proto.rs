//! The protobuf messages of package `evnode.v1` as they lie on the wire (wire section 1).
//!
//! They mirror the chain types and are only converted from and to them: hashes and signatures
//! are over what these encode, never over received bytes (wire section 1.0). Sub-messages that
//! ev-node always writes are `Some` in every conversion.
//!
//! A known field with the wrong wire type is an error here where Go takes it for an unknown
//! one. Nobody honest makes that, but ev-node forwards it: see [`super::glance`].

mod header;

use bytes::Bytes;
use prost::Message;
use serde::{Deserialize, Serialize};

pub(super) use self::header::LegacyPayload;
pub use self::header::{Header, MAX_LEGACY_FIELD, MAX_UNKNOWN_HEADER_BYTES};
use super::json;

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
