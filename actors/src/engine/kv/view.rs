//! The read side of the key-value app, for its HTTP API.

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use baton_messages::types::Height;
use baton_storage::backend::{Backend, Direction, Family, StoreError};
use bytes::Bytes;

use super::head::Head;

/// Reads the newest executed state. Any number of copies may read while blocks are executed.
#[derive(Clone)]
pub struct View {
    backend: Arc<dyn Backend>,
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").finish_non_exhaustive()
    }
}

/// Part of the state, or all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Keys and values, by key.
    pub entries: Vec<(Bytes, Bytes)>,
    /// There is more than was asked for.
    pub truncated: bool,
}

/// How much has been executed since the first block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// The last executed height.
    pub height: Height,
    /// Executed blocks.
    pub blocks: u64,
    /// Transactions that took effect.
    pub txs: u64,
}

/// Entries read at once: a page holds the whole page in memory.
const PAGE: usize = 256;

impl View {
    /// Reads the state in this store.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        Self { backend }
    }

    /// The newest value of a key.
    ///
    /// # Errors
    ///
    /// `StoreError` when the device fails or the data is damaged.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.backend.get(Family::KvState, key)
    }

    /// Keys and values by key, up to both limits. Blocks executed meanwhile may show in part.
    ///
    /// # Errors
    ///
    /// `StoreError` when the device fails or the data is damaged.
    pub fn all(&self, max_entries: usize, max_bytes: usize) -> Result<Listing, StoreError> {
        let mut listing = Listing::default();
        let mut bytes = 0;
        loop {
            let from = match listing.entries.last() {
                Some((key, _)) => Bound::Excluded(&key[..]),
                None => Bound::Unbounded,
            };
            let page =
                self.backend.scan(Family::KvState, (from, Bound::Unbounded), Direction::Forward, PAGE)?;
            let last = page.len() < PAGE;
            for (key, value) in page {
                bytes += key.len() + value.len();
                if listing.entries.len() == max_entries || bytes > max_bytes {
                    listing.truncated = true;
                    return Ok(listing);
                }
                listing.entries.push((key, value));
            }
            if last {
                return Ok(listing);
            }
        }
    }

    /// The last executed height; zero before the chain began.
    ///
    /// # Errors
    ///
    /// `StoreError` when the device fails or the data is damaged.
    pub fn height(&self) -> Result<Height, StoreError> {
        Ok(self.stats()?.height)
    }

    /// How much has been executed since the first block.
    ///
    /// # Errors
    ///
    /// `StoreError` when the device fails or the data is damaged.
    pub fn stats(&self) -> Result<Stats, StoreError> {
        let head = Head::load(self.backend.as_ref())?;
        Ok(head.map_or_else(Stats::default, |head| Stats {
            height: head.mark.height,
            blocks: head.mark.blocks,
            txs: head.mark.txs,
        }))
    }
}
