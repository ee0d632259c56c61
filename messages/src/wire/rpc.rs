//! The messages of ev-node's RPC services, as protobuf and as protojson (wire sections 1.3, 7.2).
//!
//! Binary: `prost::Message`. JSON: serde; lowerCamelCase is written and both spellings are
//! read, 64-bit numbers are decimal strings, bytes are base64, default values are omitted and
//! unknown fields are ignored.

use bytes::Bytes;
use prost::{Message, Oneof};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::json;
use super::proto::{Data, SignedHeader, State, Timestamp};
use crate::chain;
use crate::da::Namespace;
use crate::types::{DaHeight, Height};

/// `google.protobuf.Empty`: what methods without arguments take.
#[derive(Clone, Copy, PartialEq, Eq, Message, Serialize, Deserialize)]
pub struct Empty {}

/// A block as the store service answers it.
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Block {
    /// The signed header.
    #[prost(message, optional, tag = "1")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<SignedHeader>,
    /// The data.
    #[prost(message, optional, tag = "2")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Data>,
}

/// Which block is asked for.
#[derive(Clone, PartialEq, Eq, Oneof)]
pub enum Identifier {
    /// By height; zero is the latest.
    #[prost(uint64, tag = "1")]
    Height(u64),
    /// By hash. ev-node's index holds the SHA-256 of the encoded signed header (wire section 1.4).
    #[prost(bytes = "bytes", tag = "2")]
    Hash(Bytes),
}

/// Ask for a block. Neither member set is an invalid argument.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct GetBlockRequest {
    /// Which block.
    #[prost(oneof = "Identifier", tags = "1, 2")]
    pub identifier: Option<Identifier>,
}

/// The members of the oneof as JSON has them.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct GetBlockRequestJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<JsonNumber>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<JsonBytes>,
}

#[derive(Serialize, Deserialize)]
struct JsonNumber(#[serde(with = "json::u64")] u64);

#[derive(Serialize, Deserialize)]
struct JsonBytes(#[serde(with = "json::bytes")] Bytes);

impl Serialize for GetBlockRequest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (height, hash) = match self.identifier.clone() {
            Some(Identifier::Height(height)) => (Some(JsonNumber(height)), None),
            Some(Identifier::Hash(hash)) => (None, Some(JsonBytes(hash))),
            None => (None, None),
        };
        GetBlockRequestJson { height, hash }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for GetBlockRequest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let GetBlockRequestJson { height, hash } = Deserialize::deserialize(deserializer)?;
        let identifier = match (height, hash) {
            (Some(_), Some(_)) => return Err(de::Error::custom("height and hash exclude each other")),
            (Some(JsonNumber(height)), None) => Some(Identifier::Height(height)),
            (None, Some(JsonBytes(hash))) => Some(Identifier::Hash(hash)),
            (None, None) => None,
        };
        Ok(Self { identifier })
    }
}

/// A block and where on DA it lies.
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GetBlockResponse {
    /// The block.
    #[prost(message, optional, tag = "1")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block: Option<Block>,
    /// DA height of the header; zero is unknown.
    #[prost(uint64, tag = "2")]
    #[serde(with = "json::u64", skip_serializing_if = "json::is_zero", alias = "header_da_height")]
    pub header_da_height: u64,
    /// DA height of the data; zero is unknown.
    #[prost(uint64, tag = "3")]
    #[serde(with = "json::u64", skip_serializing_if = "json::is_zero", alias = "data_da_height")]
    pub data_da_height: u64,
}

impl GetBlockResponse {
    /// The answer with this block; `None` where the DA height is not known.
    #[must_use]
    pub fn of(
        signed: &chain::SignedHeader,
        data: &chain::Data,
        header_da_height: Option<DaHeight>,
        data_da_height: Option<DaHeight>,
    ) -> Self {
        Self {
            block: Some(Block { header: Some(signed.into()), data: Some(data.into()) }),
            header_da_height: header_da_height.unwrap_or_default().0,
            data_da_height: data_da_height.unwrap_or_default().0,
        }
    }

    /// The answer of a node that holds headers only: the block has no data.
    #[must_use]
    pub fn of_header(signed: &chain::SignedHeader) -> Self {
        let block = Some(Block { header: Some(signed.into()), data: None });
        Self { block, header_da_height: 0, data_da_height: 0 }
    }
}

/// The chain's state.
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GetStateResponse {
    /// The state.
    #[prost(message, optional, tag = "1")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
}

impl GetStateResponse {
    /// The answer with this state. As ev-node's it leaves the last header hash out.
    #[must_use]
    pub fn of(state: &chain::State) -> Self {
        Self { state: Some(State { last_header_hash: Bytes::new(), ..state.into() }) }
    }
}

/// Ask for a metadata value.
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GetMetadataRequest {
    /// Its key (wire section 1.4).
    #[prost(string, tag = "1")]
    #[serde(with = "json::string", skip_serializing_if = "String::is_empty")]
    pub key: String,
}

/// A metadata value.
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GetMetadataResponse {
    /// The value; numbers are eight bytes, little-endian.
    #[prost(bytes = "bytes", tag = "1")]
    #[serde(with = "json::bytes", skip_serializing_if = "Bytes::is_empty")]
    pub value: Bytes,
}

/// Where on DA the chain begins.
#[derive(Clone, Copy, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GetGenesisDaHeightResponse {
    /// The DA height. Field 3, not 1.
    #[prost(uint64, tag = "3")]
    #[serde(with = "json::u64", skip_serializing_if = "json::is_zero")]
    pub height: u64,
}

/// An end of a P2P store.
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct P2pStoreEntry {
    /// Its height.
    #[prost(uint64, tag = "1")]
    #[serde(with = "json::u64", skip_serializing_if = "json::is_zero")]
    pub height: u64,
    /// Its hash.
    #[prost(bytes = "bytes", tag = "2")]
    #[serde(with = "json::bytes", skip_serializing_if = "Bytes::is_empty")]
    pub hash: Bytes,
    /// Its time.
    #[prost(message, optional, tag = "3")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
}

/// A P2P store.
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct P2pStoreSnapshot {
    /// `Header Store` or `Data Store`.
    #[prost(string, tag = "1")]
    #[serde(with = "json::string", skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// Its height.
    #[prost(uint64, tag = "2")]
    #[serde(with = "json::u64", skip_serializing_if = "json::is_zero")]
    pub height: u64,
    /// The newest item.
    #[prost(message, optional, tag = "4")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<P2pStoreEntry>,
    /// The oldest item.
    #[prost(message, optional, tag = "6")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tail: Option<P2pStoreEntry>,
}

/// The P2P stores.
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GetP2pStoreInfoResponse {
    /// Header store and data store.
    #[prost(message, repeated, tag = "1")]
    #[serde(deserialize_with = "json::repeated", skip_serializing_if = "Vec::is_empty")]
    pub stores: Vec<P2pStoreSnapshot>,
}

/// A connected peer.
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PeerInfo {
    /// Its peer id.
    #[prost(string, tag = "1")]
    #[serde(with = "json::string", skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Go's `AddrInfo` as text: `{id: [addresses]}`.
    #[prost(string, tag = "2")]
    #[serde(with = "json::string", skip_serializing_if = "String::is_empty")]
    pub address: String,
}

/// The connected peers.
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GetPeerInfoResponse {
    /// The peers.
    #[prost(message, repeated, tag = "1")]
    #[serde(deserialize_with = "json::repeated", skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<PeerInfo>,
}

/// This node in the network.
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NetInfo {
    /// Its peer id.
    #[prost(string, tag = "1")]
    #[serde(with = "json::string", skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Its addresses, each ending in `/p2p/<id>`.
    #[prost(string, repeated, tag = "2")]
    #[serde(
        deserialize_with = "json::repeated",
        skip_serializing_if = "Vec::is_empty",
        alias = "listen_addresses"
    )]
    pub listen_addresses: Vec<String>,
    /// ev-node never fills it.
    #[prost(string, repeated, tag = "3")]
    #[serde(
        deserialize_with = "json::repeated",
        skip_serializing_if = "Vec::is_empty",
        alias = "connected_peers"
    )]
    pub connected_peers: Vec<String>,
}

/// This node in the network.
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GetNetInfoResponse {
    /// The node.
    #[prost(message, optional, tag = "1")]
    #[serde(skip_serializing_if = "Option::is_none", alias = "net_info")]
    pub net_info: Option<NetInfo>,
}

/// The DA namespaces.
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GetNamespaceResponse {
    /// Of headers, `0x` and 58 hex digits.
    #[prost(string, tag = "1")]
    #[serde(with = "json::string", skip_serializing_if = "String::is_empty", alias = "header_namespace")]
    pub header_namespace: String,
    /// Of data, `0x` and 58 hex digits.
    #[prost(string, tag = "2")]
    #[serde(with = "json::string", skip_serializing_if = "String::is_empty", alias = "data_namespace")]
    pub data_namespace: String,
}

impl GetNamespaceResponse {
    /// The answer with these namespaces.
    #[must_use]
    pub fn of(header: Namespace, data: Namespace) -> Self {
        Self { header_namespace: header.to_string(), data_namespace: data.to_string() }
    }
}

/// How a node is; of a service that ev-node had before v1.2, and clients still call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum HealthStatus {
    /// Nobody knows.
    Unknown = 0,
    /// It works.
    Pass = 1,
    /// It works, and something is wrong.
    Warn = 2,
    /// It does not work.
    Fail = 3,
}

/// How the node is.
#[derive(Clone, PartialEq, Eq, Message, Serialize)]
pub struct GetHealthResponse {
    /// A [`HealthStatus`].
    #[prost(enumeration = "HealthStatus", tag = "1")]
    #[serde(serialize_with = "by_name")]
    pub status: i32,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn by_name<S: Serializer>(status: &i32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(match HealthStatus::try_from(*status) {
        Ok(HealthStatus::Pass) => "PASS",
        Ok(HealthStatus::Warn) => "WARN",
        Ok(HealthStatus::Fail) => "FAIL",
        Ok(HealthStatus::Unknown) | Err(_) => "UNKNOWN",
    })
}

impl GetHealthResponse {
    /// The answer with this status.
    #[must_use]
    pub fn of(status: HealthStatus) -> Self {
        Self { status: status.into() }
    }
}

/// Who signs.
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GetSignerInfoResponse {
    /// The genesis' proposer address.
    #[prost(bytes = "bytes", tag = "1")]
    #[serde(with = "json::bytes", skip_serializing_if = "Bytes::is_empty")]
    pub address: Bytes,
}

/// Ask a remote signer for a signature. ev-node generates but does not serve it.
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SignRequest {
    /// What to sign.
    #[prost(bytes = "bytes", tag = "1")]
    #[serde(with = "json::bytes", skip_serializing_if = "Bytes::is_empty")]
    pub message: Bytes,
}

/// A remote signer's signature.
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SignResponse {
    /// The signature.
    #[prost(bytes = "bytes", tag = "1")]
    #[serde(with = "json::bytes", skip_serializing_if = "Bytes::is_empty")]
    pub signature: Bytes,
}

/// A remote signer's key.
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GetPublicResponse {
    /// The key.
    #[prost(bytes = "bytes", tag = "1")]
    #[serde(with = "json::bytes", skip_serializing_if = "Bytes::is_empty", alias = "public_key")]
    pub public_key: Bytes,
}

impl P2pStoreEntry {
    /// An entry for a header or data with this height, hash and time.
    #[must_use]
    pub fn of(height: Height, hash: crate::types::Hash, time: crate::types::Timestamp) -> Self {
        Self { height: height.0, hash: hash.to_bytes(), time: Some(time.into()) }
    }
}
