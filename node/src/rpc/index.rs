//! Finds a block by ev-node's index hash: SHA-256 over the signed header's bytes (wire section 1.4).
//!
//! The store knows header hashes, which identify a block. ev-node's clients may ask with the
//! other hash; it is computed for the newest blocks when somebody does.

use std::collections::BTreeMap;

use baton_messages::types::{Hash, Height};

/// How many of the newest blocks are found.
pub(super) const WINDOW: u64 = 10_000;

/// The index hashes computed so far.
#[derive(Debug, Default)]
pub(super) struct Index {
    heights: BTreeMap<Hash, Height>,
    hashes: BTreeMap<Height, Hash>,
}

impl Index {
    /// Finds a hash among the newest blocks; `compute` says a block's.
    pub(super) fn find<E>(
        &mut self,
        hash: Hash,
        newest: Height,
        mut compute: impl FnMut(Height) -> Result<Option<Hash>, E>,
    ) -> Result<Option<Height>, E> {
        let oldest = Height(newest.0.saturating_sub(WINDOW - 1).max(1));
        while let Some(entry) = self.hashes.first_entry().filter(|entry| *entry.key() < oldest) {
            self.heights.remove(&entry.remove());
        }
        for height in (oldest.0..=newest.0).rev().map(Height) {
            if let Some(found) = self.heights.get(&hash) {
                return Ok(Some(*found));
            }
            if self.hashes.contains_key(&height) {
                continue;
            }
            if let Some(computed) = compute(height)? {
                self.heights.insert(computed, height);
                self.hashes.insert(height, computed);
            }
        }
        Ok(self.heights.get(&hash).copied())
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn of(height: Height) -> Result<Option<Hash>, Infallible> {
        Ok(Some(Hash::of(&height.0.to_be_bytes())))
    }

    fn hash(height: u64) -> Hash {
        Hash::of(&height.to_be_bytes())
    }

    #[test]
    fn a_block_in_the_window_is_found_and_one_below_it_is_forgotten() {
        let mut index = Index::default();
        assert_eq!(index.find(hash(3), Height(5), of), Ok(Some(Height(3))));
        assert_eq!(index.find(hash(9), Height(5), of), Ok(None));
        assert_eq!(index.find(hash(3), Height(WINDOW + 3), of), Ok(None));
        assert_eq!(index.find(hash(4), Height(WINDOW + 3), of), Ok(Some(Height(4))));
        assert!(index.hashes.len() as u64 <= WINDOW);
    }

    #[test]
    fn a_hash_is_computed_once() {
        let mut index = Index::default();
        assert_eq!(index.find(hash(0), Height(100), of), Ok(None));
        let mut computed = Vec::new();
        let again = index.find(hash(0), Height(101), |height| {
            computed.push(height);
            of(height)
        });
        assert_eq!(again, Ok(None));
        assert_eq!(computed, [Height(101)]);
    }
}
