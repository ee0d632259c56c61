//! Hashes and signature payloads (wire section 2).

use bytes::Bytes;
use prost::Message;
use prost::encoding::{self, WireType};
use sha2::{Digest, Sha256};

use super::proto;
use crate::chain::{Data, Header, LegacyHeaderFields};
use crate::types::{Hash, Tx};

/// What field 7 of the legacy payload is when the header has none.
static ZERO_CONSENSUS_HASH: [u8; 32] = [0; 32];

impl Header {
    /// The header hash: over the canonical encoding, or over the legacy payload when the header
    /// carries legacy fields (wire sections 2.1, 2.2).
    #[must_use]
    pub fn hash(&self) -> Hash {
        if self.is_legacy() { Hash::of(&self.legacy_payload()) } else { Hash::of(&self.encode()) }
    }

    /// Whether fields of old chains are present (wire section 2.2).
    #[must_use]
    pub fn is_legacy(&self) -> bool {
        self.legacy.as_ref().is_some_and(|legacy| {
            !(legacy.last_commit_hash.is_empty()
                && legacy.consensus_hash.is_empty()
                && legacy.last_results_hash.is_empty())
        })
    }

    /// The encoding that old chains hashed and signed (wire section 2.2).
    #[must_use]
    pub fn legacy_payload(&self) -> Vec<u8> {
        let proto::Header { version, last_header_hash, data_hash, app_hash, legacy, .. } = self.into();
        let consensus_hash = if legacy.consensus_hash.is_empty() {
            Bytes::from_static(&ZERO_CONSENSUS_HASH)
        } else {
            legacy.consensus_hash
        };
        let payload = proto::LegacyPayload {
            version,
            height: Some(self.height.0),
            time: Some(self.time.0),
            last_header_hash,
            last_commit_hash: legacy.last_commit_hash,
            data_hash,
            consensus_hash,
            app_hash,
            last_results_hash: legacy.last_results_hash,
            proposer_address: self.proposer_address.clone(),
            validator_hash: self.validator_hash.clone(),
            chain_id: self.chain_id.clone(),
        };
        payload.encode_to_vec()
    }

    /// The other header with the same legacy payload, which one signature over that payload signs as well
    /// (hazard H21): an absent consensus hash and one of zeros are the same there, and make a header of the
    /// current format and one of old chains, with a hash each. `None`: there is no other.
    #[must_use]
    pub fn twin(&self) -> Option<Self> {
        let zeros = Bytes::from_static(&ZERO_CONSENSUS_HASH);
        if !self.is_legacy() {
            let legacy = LegacyHeaderFields { consensus_hash: zeros, ..LegacyHeaderFields::default() };
            return Some(Self { legacy: Some(legacy), ..self.clone() });
        }
        let legacy = self.legacy.as_ref()?;
        let alone = legacy.last_commit_hash.is_empty() && legacy.last_results_hash.is_empty();
        (alone && legacy.consensus_hash == zeros).then(|| Self { legacy: None, ..self.clone() })
    }

    /// What a header signature may be over, in the order in which verifiers try it. New
    /// signatures are over the first (wire section 2.5).
    #[must_use]
    pub fn signature_payloads(&self) -> [Vec<u8>; 2] {
        [self.encode(), self.legacy_payload()]
    }
}

impl Data {
    /// `SHA-256(00 || Data with metadata)`: the next block's `last_data_hash` (wire section 2.4).
    #[must_use]
    pub fn hash(&self) -> Hash {
        let mut digest = leaf();
        if let Some(metadata) = &self.metadata {
            let mut field = Vec::new();
            encoding::message::encode(1, &proto::Metadata::from(metadata), &mut field);
            digest.update(&field);
        }
        digest_txs(&mut digest, &self.txs);
        Hash(digest.finalize().into())
    }

    /// `SHA-256(00 || Data without metadata)`: `Header.data_hash` (wire section 2.4).
    #[must_use]
    pub fn commitment(&self) -> Hash {
        let mut digest = leaf();
        digest_txs(&mut digest, &self.txs);
        Hash(digest.finalize().into())
    }
}

fn leaf() -> Sha256 {
    Sha256::new_with_prefix([0])
}

/// Hashes field 2 of `Data` as it is encoded, without building the encoding: blocks are large.
fn digest_txs(digest: &mut Sha256, txs: &[Tx]) {
    let mut prefix = Vec::with_capacity(11);
    for tx in txs {
        prefix.clear();
        encoding::encode_key(2, WireType::LengthDelimited, &mut prefix);
        encoding::encode_varint(tx.0.len() as u64, &mut prefix);
        digest.update(&prefix);
        digest.update(&tx.0);
    }
}
