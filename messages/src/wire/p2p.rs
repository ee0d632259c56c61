//! Names of protocols and topics (wire sections 6.2, 6.3, 6.5).

use crate::types::Hash;

/// The only pubsub protocol that ev-node speaks since v1.1.1.
pub const PUBSUB_PROTOCOL: &str = "/floodsub/1.0.0";
/// The DHT protocol, the public one.
pub const KAD_PROTOCOL: &str = "/ipfs/kad/1.0.0";
/// The largest pubsub RPC, in bytes; larger ones reset the stream at the receiver.
pub const MAX_PUBSUB_RPC: usize = 5_242_880;

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
