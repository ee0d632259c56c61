//! Names of protocols and topics (wire sections 6.2, 6.3, 6.5).

use prost::DecodeError;
use prost::encoding::{self, DecodeContext};

use super::WireError;
use crate::chain::{Data, P2pData, SignedHeader};
use crate::types::Hash;

/// The only pubsub protocol that ev-node speaks since v1.1.1.
pub const PUBSUB_PROTOCOL: &str = "/floodsub/1.0.0";
/// The DHT protocol, the public one.
pub const KAD_PROTOCOL: &str = "/ipfs/kad/1.0.0";
/// The largest pubsub RPC, in bytes; larger ones reset the stream at the receiver.
pub const MAX_PUBSUB_RPC: usize = 5_242_880;

/// The most transactions in one block's data. A transaction takes more memory than its bytes,
/// and one without bytes takes two on the wire: without a bound a small message becomes a large
/// one here. Nothing that is made here has more.
pub const MAX_TXS: usize = 1 << 18;

/// What a transaction takes in memory beside its bytes.
const TX_OVERHEAD: usize = 32;
/// What a header, or data without transactions, take beside the bytes that they hold.
const OVERHEAD: usize = 512;

impl P2pData {
    /// Decodes what a peer sent.
    ///
    /// # Errors
    ///
    /// `WireError::Malformed`, and `WireError::Excessive` with more than [`MAX_TXS`] transactions:
    /// those are counted before anything is decoded.
    pub fn decode_from_peer(bytes: &[u8]) -> Result<Self, WireError> {
        const WHAT: &str = "P2pData";
        match count_txs(bytes) {
            Ok(count) if count > MAX_TXS => {
                Err(WireError::excessive(WHAT, format!("{count} transactions, at most {MAX_TXS}")))
            }
            Ok(_) => Self::decode(bytes),
            Err(error) => Err(WireError::malformed(WHAT, error.to_string())),
        }
    }
}

impl Data {
    /// What the data take in memory, about: a bound that is a bound counts this, and not their
    /// bytes on the wire.
    #[must_use]
    pub fn weight(&self) -> usize {
        let metadata = self
            .metadata
            .as_ref()
            .map_or(0, |metadata| metadata.chain_id.len() + metadata.last_data_hash.len());
        let txs: usize = self.txs.iter().map(|tx| tx.0.len()).sum();
        OVERHEAD + metadata + txs + TX_OVERHEAD * self.txs.len()
    }
}

impl SignedHeader {
    /// What the header takes in memory, about.
    #[must_use]
    pub fn weight(&self) -> usize {
        let Self { header, signature, signer } = self;
        let legacy = header.legacy.as_ref().map_or(0, |legacy| {
            legacy.last_commit_hash.len() + legacy.consensus_hash.len() + legacy.last_results_hash.len()
        });
        let fields = [
            &header.last_header_hash,
            &header.data_hash,
            &header.app_hash,
            &header.proposer_address,
            &header.validator_hash,
            signature,
            &signer.address,
            &signer.pub_key,
        ];
        let fields: usize = fields.iter().map(|field| field.len()).sum();
        OVERHEAD + header.chain_id.len() + legacy + fields
    }
}

fn count_txs(mut bytes: &[u8]) -> Result<usize, DecodeError> {
    const TXS: u32 = 2;
    let mut count = 0;
    while !bytes.is_empty() {
        let (tag, wire_type) = encoding::decode_key(&mut bytes)?;
        count += usize::from(tag == TXS);
        encoding::skip_field(wire_type, tag, &mut bytes, DecodeContext::default())?;
    }
    Ok(count)
}

/// Headers or data: both services work alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// `P2pSignedHeader`s.
    Headers,
    /// `P2pData`.
    Data,
}

impl Service {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Headers => "headerSync",
            Self::Data => "dataSync",
        }
    }

    /// The gossip topic of a chain.
    #[must_use]
    pub fn topic(self, chain_id: &str) -> String {
        format!("/{chain_id}-{}/header-sub/v0.0.1", self.prefix())
    }

    /// The exchange protocol of a chain.
    #[must_use]
    pub fn exchange_protocol(self, chain_id: &str) -> String {
        format!("/{chain_id}-{}/header-ex/v0.0.3", self.prefix())
    }
}

/// The DHT key under which a chain's nodes announce themselves: the multihash of the chain id.
#[must_use]
pub fn rendezvous_key(chain_id: &str) -> [u8; 34] {
    let mut key = [0; 34];
    // SHA-256, 32 bytes.
    key[..2].copy_from_slice(&[0x12, 0x20]);
    key[2..].copy_from_slice(&Hash::of(chain_id.as_bytes()).0);
    key
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::types::Tx;

    #[derive(Clone, PartialEq, Message)]
    struct Empty {
        #[prost(bytes = "vec", repeated, tag = "2")]
        txs: Vec<Vec<u8>>,
    }

    #[test]
    fn a_message_of_millions_of_empty_transactions_is_refused_before_it_is_decoded() {
        let most = Empty { txs: vec![vec![]; MAX_TXS] }.encode_to_vec();
        assert_eq!(P2pData::decode_from_peer(&most).map(|data| data.data.txs.len()), Ok(MAX_TXS));
        let more = Empty { txs: vec![vec![]; MAX_TXS + 1] }.encode_to_vec();
        assert!(more.len() < MAX_PUBSUB_RPC / 8, "it is small");
        let refused = P2pData::decode_from_peer(&more);
        assert!(matches!(refused, Err(WireError::Excessive { .. })), "{refused:?}");
        let cut = P2pData::decode_from_peer(&more[..more.len() - 1]);
        assert!(matches!(cut, Err(WireError::Malformed { .. })), "{cut:?}");
    }

    #[test]
    fn what_data_take_in_memory_is_more_than_their_bytes() {
        let data = Data { metadata: None, txs: vec![Tx(bytes::Bytes::new()); 1000] };
        assert!(data.weight() > 32_000, "{}", data.weight());
        let data = Data { metadata: None, txs: vec![Tx(vec![0; 1000].into())] };
        assert!((1000..2000).contains(&data.weight()), "{}", data.weight());
    }
}
