//! Forced-inclusion epochs over DA heights (wire section 4.6).

use crate::types::DaHeight;

/// A run of DA heights whose forced transactions are taken together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// Counted from one; zero for heights before the first epoch.
    pub number: u64,
    /// The first DA height.
    pub start: DaHeight,
    /// The last DA height; forced transactions are fetched when it is reached.
    pub end: DaHeight,
}

impl Epoch {
    /// The epoch of a DA height, when the chain begins at `start` and epochs have `size` heights.
    ///
    /// A height before `start` gets number zero and the bounds of the first epoch. A size of zero, which
    /// no valid genesis has, makes one epoch of one height, as in ev-node. Bounds saturate.
    #[must_use]
    pub const fn of(height: DaHeight, start: DaHeight, size: u64) -> Self {
        if size == 0 {
            return Self { number: (height.0 >= start.0) as u64, start, end: start };
        }
        if height.0 < start.0 {
            return Self { number: 0, start, end: DaHeight(start.0.saturating_add(size - 1)) };
        }
        let before = (height.0 - start.0) / size;
        let first = start.0 + before * size;
        Self {
            number: before.saturating_add(1),
            start: DaHeight(first),
            end: DaHeight(first.saturating_add(size - 1)),
        }
    }
}
