//! The chain's state from block to block (wire section 3).

use bytes::Bytes;

use crate::chain::{Block, Header, State};
use crate::genesis::Genesis;
use crate::types::{Height, StateRoot, Timestamp};

/// Why a header is not the next block of a state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotNext {
    /// Another proposer's turn.
    #[error("the proposer is {found}, expected {expected}")]
    Proposer {
        /// The header's, in hex.
        found: String,
        /// The state's, in hex.
        expected: String,
    },
    /// Another chain's.
    #[error("the header belongs to chain {found}, not to {expected}")]
    Chain {
        /// The header's.
        found: String,
        /// The state's.
        expected: String,
    },
    /// Not the height after the last.
    #[error("the height is {found}, expected {expected}")]
    Height {
        /// The header's.
        found: Height,
        /// The one after the last.
        expected: Height,
    },
    /// Before the last block.
    #[error("the time {found} is before the last block's, {last}")]
    Time {
        /// The header's.
        found: Timestamp,
        /// The last block's.
        last: Timestamp,
    },
    /// The parent is another: two chains exist. A person is needed.
    #[error("the header links to {found}, the last header is {expected}")]
    Parent {
        /// The header's link, in hex.
        found: String,
        /// The last header's hash, in hex.
        expected: String,
    },
    /// The state root before the block is another. A person is needed (P5).
    #[error("the header says state root {found}, here it is {expected}")]
    StateRoot {
        /// The header's, in hex.
        found: String,
        /// The state's, in hex.
        expected: String,
    },
}

impl NotNext {
    /// Whether the chain or this node's state is broken, rather than the block to be dropped.
    #[must_use]
    pub const fn is_integrity(&self) -> bool {
        matches!(self, Self::Parent { .. } | Self::StateRoot { .. })
    }
}

impl State {
    /// The state before the first block; `root` is what the engine's chain initialisation gave.
    #[must_use]
    pub fn before_first(genesis: &Genesis, root: &StateRoot) -> Self {
        Self {
            chain_id: genesis.chain_id.clone(),
            initial_height: genesis.initial_height,
            last_block_height: genesis.initial_height.previous(),
            last_block_time: Some(genesis.start_time),
            da_height: genesis.da_start_height.0,
            app_hash: root.0.clone(),
            next_proposer_address: genesis.proposer_address.clone(),
            ..Self::default()
        }
    }

    /// Checks that a header is the next block's (wire section 3, "against current state").
    ///
    /// # Errors
    ///
    /// The first rule that is broken; `NotNext::is_integrity` says what that means.
    pub fn validate_next(&self, header: &Header) -> Result<(), NotNext> {
        if !self.next_proposer_address.is_empty() && header.proposer_address != self.next_proposer_address {
            return Err(NotNext::Proposer {
                found: hex::encode(&header.proposer_address),
                expected: hex::encode(&self.next_proposer_address),
            });
        }
        if header.chain_id != self.chain_id {
            return Err(NotNext::Chain { found: header.chain_id.clone(), expected: self.chain_id.clone() });
        }
        let first = self.last_header_hash.is_empty();
        let expected = if first { self.initial_height } else { self.last_block_height.next() };
        if header.height != expected {
            return Err(NotNext::Height { found: header.height, expected });
        }
        if first {
            return Ok(());
        }
        if let Some(last) = self.last_block_time.filter(|last| header.time < *last) {
            return Err(NotNext::Time { found: header.time, last });
        }
        if header.last_header_hash != self.last_header_hash {
            return Err(NotNext::Parent {
                found: hex::encode(&header.last_header_hash),
                expected: hex::encode(&self.last_header_hash),
            });
        }
        if header.app_hash != self.app_hash {
            return Err(NotNext::StateRoot {
                found: hex::encode(&header.app_hash),
                expected: hex::encode(&self.app_hash),
            });
        }
        Ok(())
    }

    /// The state after a block: `root` and `next_proposer` are the engine's; an empty proposer
    /// is no change (wire section 3, "state after block"). The DA height stays.
    #[must_use]
    pub fn after(&self, block: &Block, root: &StateRoot, next_proposer: &Bytes) -> Self {
        let header = block.header();
        let candidates = [next_proposer, &self.next_proposer_address, &header.proposer_address];
        let proposer = candidates.into_iter().find(|address| !address.is_empty());
        Self {
            version: self.version,
            chain_id: self.chain_id.clone(),
            initial_height: self.initial_height,
            last_block_height: header.height,
            last_block_time: Some(header.time),
            da_height: self.da_height,
            app_hash: root.0.clone(),
            last_header_hash: block.hash().to_bytes(),
            next_proposer_address: proposer.cloned().unwrap_or_default(),
        }
    }
}
