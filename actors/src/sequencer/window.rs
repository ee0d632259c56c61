//! The replay window: which transactions the last blocks hold (P3).
//!
//! It is a function of the chain alone, so every member rebuilds the same one before it leads.

use std::collections::{HashMap, VecDeque};

use baton_messages::chain::Block;
use baton_messages::types::{Hash, Height, Place};

/// The transactions of the last blocks.
#[derive(Debug)]
pub struct Window {
    blocks: usize,
    heights: VecDeque<(Height, Vec<Hash>)>,
    places: HashMap<Hash, Place>,
}

impl Window {
    /// An empty window of so many blocks.
    #[must_use]
    pub fn new(blocks: usize) -> Self {
        Self { blocks, heights: VecDeque::new(), places: HashMap::new() }
    }

    /// How many transactions it remembers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether it remembers nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The last block it has seen.
    #[must_use]
    pub fn tip(&self) -> Option<Height> {
        self.heights.back().map(|(height, _)| *height)
    }

    /// Where a transaction stands.
    #[must_use]
    pub fn place(&self, hash: &Hash) -> Option<Place> {
        self.places.get(hash).copied()
    }

    /// Takes the next block in and forgets the oldest. Gives the places of its transactions.
    pub fn push(&mut self, block: &Block) -> Vec<(Hash, Place)> {
        let mut places = Vec::with_capacity(block.txs().len());
        for (index, tx) in block.txs().iter().enumerate() {
            let index = u32::try_from(index).expect("a block holds fewer than 2^32 transactions");
            let place = Place { height: block.height(), index, header_hash: block.hash() };
            places.push((tx.hash(), place));
        }
        for (hash, place) in &places {
            self.places.entry(*hash).or_insert(*place);
        }
        self.heights.push_back((block.height(), places.iter().map(|(hash, _)| *hash).collect()));
        while self.heights.len() > self.blocks {
            self.forget_oldest();
        }
        places
    }

    fn forget_oldest(&mut self) {
        let Some((height, hashes)) = self.heights.pop_front() else { return };
        for hash in hashes {
            if self.places.get(&hash).is_some_and(|place| place.height == height) {
                self.places.remove(&hash);
            }
        }
    }
}
