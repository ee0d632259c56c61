//! Transactions and blocks to measure with.

use std::sync::Arc;

use baton_actors::executor::build;
use baton_messages::chain::Block;
use baton_messages::genesis::Genesis;
use baton_messages::types::{DaHeight, Height, StateRoot, Timestamp, Tx};
use bytes::Bytes;

/// Bytes of every transaction.
pub const TX_BYTES: usize = 32;

/// What each takes of a block's limit, with its tag and length: so many fill a block exactly.
pub const ENCODED_TX_BYTES: usize = TX_BYTES + 2;

/// Keys that are written; more transactions than this overwrite, so that the state stops growing.
const KEYS: u64 = 100_000;

/// The chain that is measured.
pub const CHAIN: &str = "benchmark";

/// Transactions of the key-value app, no two of them alike, all of [`TX_BYTES`] bytes.
#[derive(Debug, Default)]
pub struct Feed(u64);

impl Feed {
    /// The next transactions.
    #[must_use]
    pub fn txs(&mut self, count: usize) -> Vec<Tx> {
        (0..count).map(|_| self.tx()).collect()
    }

    fn tx(&mut self) -> Tx {
        let number = self.0;
        self.0 += 1;
        // Neighbours in the queue are no neighbours in the state.
        let key = number.wrapping_mul(7_919) % KEYS;
        let text = format!("k{key:010}={number:020}");
        debug_assert_eq!(text.len(), TX_BYTES);
        Tx(Bytes::from(text))
    }
}

/// A genesis whose time is past.
#[must_use]
pub fn genesis(proposer_address: Bytes) -> Genesis {
    Genesis {
        chain_id: CHAIN.to_owned(),
        start_time: Timestamp(1_700_000_000_000_000_000),
        initial_height: Height(1),
        proposer_address,
        da_start_height: DaHeight(1),
        da_epoch_forced_inclusion: 50,
    }
}

/// Blocks on top of each other.
#[derive(Debug)]
pub struct Chain {
    genesis: Genesis,
    parent: Option<Arc<Block>>,
    feed: Feed,
}

impl Default for Chain {
    fn default() -> Self {
        Self { genesis: genesis(Bytes::from_static(&[7; 32])), parent: None, feed: Feed::default() }
    }
}

impl Chain {
    /// The genesis of the chain.
    #[must_use]
    pub const fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// The next block, with so many transactions.
    #[must_use]
    pub fn block(&mut self, txs: usize) -> Arc<Block> {
        let txs = self.feed.txs(txs);
        let root = StateRoot(Bytes::from_static(&[1; 32]));
        let proposer = &self.genesis.proposer_address;
        let now = Timestamp(0);
        let block = build::next_block(&self.genesis, self.parent.as_deref(), &root, proposer, now, txs);
        let block = Arc::new(block);
        self.parent = Some(block.clone());
        block
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_transactions_are_alike_and_all_have_one_size() {
        let mut feed = Feed::default();
        let txs: Vec<Tx> = feed.txs(5_000).into_iter().chain(feed.txs(5_000)).collect();
        assert!(txs.iter().all(|tx| tx.0.len() == TX_BYTES));
        let different: HashSet<_> = txs.iter().map(Tx::hash).collect();
        assert_eq!(different.len(), 10_000);
    }
}
