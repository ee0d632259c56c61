//! Forced-inclusion epochs over DA heights (wire section 4.6).

use crate::command::ForcedPosition;
use crate::genesis::Genesis;
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

/// Which DA heights belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epochs {
    start: DaHeight,
    size: u64,
}

impl Epochs {
    /// Epochs of so many DA heights, from one on.
    #[must_use]
    pub const fn new(start: DaHeight, size: u64) -> Self {
        Self { start, size }
    }

    /// The epochs of a chain.
    #[must_use]
    pub const fn of(genesis: &Genesis) -> Self {
        Self { start: genesis.da_start_height, size: genesis.da_epoch_forced_inclusion }
    }

    /// The first epoch.
    #[must_use]
    pub const fn first(&self) -> Epoch {
        self.at(self.start)
    }

    /// The epoch of a DA height.
    #[must_use]
    pub const fn at(&self, height: DaHeight) -> Epoch {
        Epoch::of(height, self.start, self.size)
    }

    /// DA heights in an epoch.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Where forced inclusion stands when the log says so; the beginning of the chain when it says
    /// nothing.
    #[must_use]
    pub fn position(&self, logged: ForcedPosition) -> ForcedPosition {
        let first = ForcedPosition { da_height: self.at(self.start).start, tx_index: 0 };
        logged.max(first)
    }
}
