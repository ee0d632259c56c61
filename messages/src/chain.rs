//! The chain's types, as ev-node has them (wire sections 1 and 2).
//!
//! The structs are what the node works with; `wire` turns them into ev-node's bytes and
//! back. Hashes and signature payloads are always over the canonical re-encoding, never over
//! received bytes (wire section 1.0).

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::types::{Hash, Height, Timestamp, Tx};

/// Protocol versions of block and application. 0/0 on chains that ev-node started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Version {
    /// Block version.
    pub block: u64,
    /// Application version.
    pub app: u64,
}

/// Header fields 5, 7 and 9 of chains older than ev-node 1.0 (wire section 2.2).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LegacyHeaderFields {
    /// Field 5.
    pub last_commit_hash: Bytes,
    /// Field 7.
    pub consensus_hash: Bytes,
    /// Field 9.
    pub last_results_hash: Bytes,
}

/// A block header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Header {
    /// Versions.
    pub version: Version,
    /// Height.
    pub height: Height,
    /// Nanoseconds since the Unix epoch.
    pub time: Timestamp,
    /// Hash of the header before; empty for the first block.
    pub last_header_hash: Bytes,
    /// Commitment to the transactions (`Data::commitment`).
    pub data_hash: Bytes,
    /// State root after the block *before* this one.
    pub app_hash: Bytes,
    /// Address of the proposer: SHA-256 of its raw public key.
    pub proposer_address: Bytes,
    /// Empty unless an application sets it.
    pub validator_hash: Bytes,
    /// The chain.
    pub chain_id: String,
    /// Set only on headers of old chains.
    pub legacy: Option<LegacyHeaderFields>,
}

/// Who signed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Signer {
    /// SHA-256 of the raw public key.
    pub address: Bytes,
    /// The libp2p protobuf encoding of the public key, verbatim.
    pub pub_key: Bytes,
}

/// A header with its signature.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SignedHeader {
    /// The header.
    pub header: Header,
    /// Signature over the canonical header encoding.
    pub signature: Bytes,
    /// Who signed.
    pub signer: Signer,
}

/// What a block's data says about its header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Metadata {
    /// The header's chain.
    pub chain_id: String,
    /// The header's height.
    pub height: Height,
    /// The header's time.
    pub time: Timestamp,
    /// `Data::hash` of the block before; empty for the first block.
    pub last_data_hash: Bytes,
}

/// A block's transactions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Data {
    /// Present in every honest block.
    pub metadata: Option<Metadata>,
    /// The transactions in order.
    pub txs: Vec<Tx>,
}

/// Data with the proposer's signature; the blob in the data namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SignedData {
    /// The data.
    pub data: Data,
    /// Signature over the canonical encoding of the data, metadata included.
    pub signature: Bytes,
    /// Who signed.
    pub signer: Signer,
}

/// A signed header with a signature over it; the blob in the header namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DaHeaderEnvelope {
    /// The signed header.
    pub signed: SignedHeader,
    /// Signature over the canonical encoding of the signed header.
    pub envelope_signature: Bytes,
}

/// A signed header as gossip and exchange carry it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct P2pSignedHeader {
    /// The signed header.
    pub signed: SignedHeader,
    /// Where on DA it may be found; zero is "no hint". Always written.
    pub da_height_hint: u64,
}

/// Data as gossip and exchange carry it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct P2pData {
    /// The data.
    pub data: Data,
    /// Where on DA it may be found; zero is "no hint". Always written.
    pub da_height_hint: u64,
}

/// The chain's state after a block, as ev-node stores and serves it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct State {
    /// Versions.
    pub version: Version,
    /// The chain.
    pub chain_id: String,
    /// Height of the first block.
    pub initial_height: Height,
    /// Height of the last block.
    pub last_block_height: Height,
    /// Time of the last block; `None` is Go's zero time (year 1).
    pub last_block_time: Option<Timestamp>,
    /// DA height.
    pub da_height: u64,
    /// State root after the last block.
    pub app_hash: Bytes,
    /// Hash of the last header.
    pub last_header_hash: Bytes,
    /// Address of the next proposer.
    pub next_proposer_address: Bytes,
}

/// A header and its data, with the header's hash computed once. Shared, never cloned.
///
/// Stored and sent without the hash: it is computed anew when a block is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BlockBody")]
pub struct Block {
    header: Header,
    data: Data,
    #[serde(skip)]
    hash: Hash,
}

#[derive(Deserialize)]
struct BlockBody {
    header: Header,
    data: Data,
}

impl From<BlockBody> for Block {
    fn from(body: BlockBody) -> Self {
        Self::new(body.header, body.data)
    }
}

impl Block {
    /// Puts a block together and computes its hash.
    #[must_use]
    pub fn new(header: Header, data: Data) -> Self {
        let hash = header.hash();
        Self { header, data, hash }
    }

    /// Shares a new block.
    #[must_use]
    pub fn shared(header: Header, data: Data) -> Arc<Self> {
        Arc::new(Self::new(header, data))
    }

    /// The header.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The data.
    #[must_use]
    pub const fn data(&self) -> &Data {
        &self.data
    }

    /// The header's hash: the identity of the block.
    #[must_use]
    pub const fn hash(&self) -> Hash {
        self.hash
    }

    /// The header's height.
    #[must_use]
    pub const fn height(&self) -> Height {
        self.header.height
    }

    /// The transactions.
    #[must_use]
    pub fn txs(&self) -> &[Tx] {
        &self.data.txs
    }

    /// Bytes of all transactions together.
    #[must_use]
    pub fn tx_bytes(&self) -> usize {
        self.data.txs.iter().map(|tx| tx.0.len()).sum()
    }
}
