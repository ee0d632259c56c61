//! The replay window: which transactions the last blocks hold (P3).
//!
//! It is a function of the chain alone, so every member rebuilds the same one before it leads.

use std::collections::{HashMap, VecDeque};

use baton_messages::chain::Block;
use baton_messages::types::{Hash, Height, Place};

/// Most transactions it remembers, about 100 bytes each: full blocks make it shorter than its
/// number of blocks.
pub const MAX_TXS: usize = 1_000_000;

/// A block in the window: its place and what it holds.
#[derive(Debug)]
struct Remembered {
    height: Height,
    header_hash: Hash,
    txs: Vec<Hash>,
}

/// The transactions of the last blocks.
#[derive(Debug)]
pub struct Window {
    blocks: usize,
    max_txs: usize,
    remembered: VecDeque<Remembered>,
    places: HashMap<Hash, Stands>,
}

/// Where a transaction stands, height and index. What is forced through DA may stand in several blocks.
#[derive(Clone, Copy, Debug)]
struct Stands {
    first: (Height, u32),
    last: (Height, u32),
}

impl Window {
    /// An empty window of so many blocks with at most so many transactions together, but of one
    /// block at least.
    #[must_use]
    pub fn new(blocks: usize, max_txs: usize) -> Self {
        Self { blocks, max_txs, remembered: VecDeque::new(), places: HashMap::new() }
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

    /// The first height it remembers; `None` when it remembers no block.
    #[must_use]
    pub fn first(&self) -> Option<Height> {
        self.remembered.front().map(|block| block.height)
    }

    /// Where a transaction stands.
    #[must_use]
    pub fn place(&self, hash: &Hash) -> Option<Place> {
        let (height, index) = self.places.get(hash)?.first;
        let oldest = self.remembered.front()?.height;
        let block = self.remembered.get(usize::try_from(height.0 - oldest.0).ok()?)?;
        Some(Place { height, index, header_hash: block.header_hash })
    }

    /// Takes the next block in and forgets the oldest. Gives the places of its transactions.
    pub fn push(&mut self, block: &Block) -> Vec<(Hash, Place)> {
        let (height, header_hash) = (block.height(), block.hash());
        let mut places = Vec::with_capacity(block.txs().len());
        for (index, tx) in block.txs().iter().enumerate() {
            let index = u32::try_from(index).expect("a block holds fewer than 2^32 transactions");
            let hash = tx.hash();
            let here = (height, index);
            let stands = self.places.entry(hash).or_insert(Stands { first: here, last: here });
            stands.last = here;
            places.push((hash, Place { height, index, header_hash }));
        }
        let txs = places.iter().map(|(hash, _)| *hash).collect();
        self.remembered.push_back(Remembered { height, header_hash, txs });
        while self.remembered.len() > self.blocks
            || (self.places.len() > self.max_txs && self.remembered.len() > 1)
        {
            self.forget_oldest();
        }
        places
    }

    fn forget_oldest(&mut self) {
        let Some(block) = self.remembered.pop_front() else { return };
        for hash in block.txs {
            let Some(stands) = self.places.get_mut(&hash) else { continue };
            match stands.last.0 == block.height {
                true => drop(self.places.remove(&hash)),
                false => stands.first = stands.last,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use baton_messages::chain::{Data, Header};
    use baton_messages::types::Tx;
    use bytes::Bytes;

    use super::*;

    fn block(height: u64, txs: &[u8]) -> Block {
        let header = Header { height: Height(height), ..Header::default() };
        let txs = txs.iter().map(|byte| Tx(Bytes::copy_from_slice(&[*byte]))).collect();
        Block::new(header, Data { metadata: None, txs })
    }

    fn heights(window: &Window) -> Vec<Option<u64>> {
        let place = |byte: u8| window.place(&Hash::of(&[byte])).map(|place| place.height.0);
        (1..=5).map(place).collect()
    }

    #[test]
    fn the_window_is_so_many_blocks_long() {
        let mut window = Window::new(2, 100);
        for height in 1..=3 {
            window.push(&block(height, &[u8::try_from(height).expect("small")]));
        }
        assert_eq!(heights(&window), [None, Some(2), Some(3), None, None]);
        assert_eq!(window.place(&Hash::of(&[3])).expect("there").header_hash, block(3, &[3]).hash());
    }

    #[test]
    fn what_stands_twice_is_remembered_until_the_last_one_leaves() {
        let mut window = Window::new(2, 100);
        window.push(&block(1, &[1, 1]));
        window.push(&block(2, &[1]));
        assert_eq!(heights(&window)[0], Some(1), "the first is the answer");
        window.push(&block(3, &[2]));
        assert_eq!(heights(&window)[0], Some(2));
        window.push(&block(4, &[]));
        assert_eq!((heights(&window)[0], window.len()), (None, 1));
    }

    #[test]
    fn full_blocks_make_it_shorter() {
        let mut window = Window::new(10, 3);
        window.push(&block(7, &[1, 2]));
        window.push(&block(8, &[3, 4]));
        assert_eq!(heights(&window), [None, None, Some(8), Some(8), None]);
        assert_eq!(window.len(), 2);
    }
}
