//! When a lane posts: ev-node's four batching strategies as one pure rule.
//!
//! They say *when* blobs go out and never what is in them: blobs are built from the chain alone
//! (P7). Two things differ from ev-node. A producer that has posted nothing yet counts as one
//! whose delay is over, so that a failover never makes a block wait twice. And no strategy holds
//! back more than half of what may wait for DA: there, ev-node with `size` pauses production for
//! blobs that its strategy does not post (hazard D12).

use std::collections::VecDeque;
use std::time::Duration;

use baton_messages::types::Height;

/// What a lane waits for before it posts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Strategy {
    /// Nothing. Blobs gather only while a submission is on its way.
    #[default]
    Immediate,
    /// Enough bytes.
    Size,
    /// The delay since the last submission.
    Time,
    /// Enough bytes or the delay, whichever comes first.
    Adaptive,
}

/// When a lane posts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batching {
    /// What it waits for.
    pub strategy: Strategy,
    /// Bytes that are enough, without signatures.
    pub enough_bytes: usize,
    /// The delay.
    pub max_delay: Duration,
    /// Fewer blobs than this wait, unless the strategy is to post at once.
    pub min_items: usize,
    /// So many heights that are not on DA go out whatever the strategy says.
    pub most_waiting: u64,
}

impl Default for Batching {
    fn default() -> Self {
        Self {
            strategy: Strategy::Immediate,
            enough_bytes: 4 << 20,
            max_delay: Duration::from_secs(6),
            min_items: 1,
            most_waiting: 50_000,
        }
    }
}

/// Why a lane posts now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The strategy is to post at once.
    Immediate,
    /// There are enough bytes.
    Size,
    /// The delay is over.
    Time,
    /// Too many heights wait.
    Backlog,
    /// An operator has paused production: nothing comes that could be waited for.
    Pause,
    /// The blocks are empty: there is nothing to post, only to record.
    Empty,
}

impl Reason {
    /// The value of the metric's label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Immediate => "immediate",
            Self::Size => "size",
            Self::Time => "time",
            Self::Backlog => "backlog",
            Self::Pause => "pause",
            Self::Empty => "empty",
        }
    }
}

/// What waits in a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Waiting {
    /// Heights above what is on DA.
    pub heights: u64,
    /// Blobs among them; empty blocks have none in the data lane.
    pub blobs: usize,
    /// Their bytes, without signatures.
    pub bytes: usize,
    /// How long ago this producer posted last; `None`: it has not yet.
    pub since_last: Option<Duration>,
    /// The other lane is ahead: inclusion waits for this one.
    pub behind: bool,
    /// An operator wants no blocks: these are the last.
    pub paused: bool,
}

impl Batching {
    /// Whether a lane posts now, and why.
    #[must_use]
    pub fn verdict(&self, waiting: &Waiting) -> Option<Reason> {
        if waiting.heights == 0 {
            return None;
        }
        if self.strategy == Strategy::Immediate {
            return Some(Reason::Immediate);
        }
        if waiting.heights >= self.most_waiting {
            return Some(Reason::Backlog);
        }
        if waiting.paused {
            return Some(Reason::Pause);
        }
        if waiting.blobs == 0 {
            return waiting.behind.then_some(Reason::Empty);
        }
        if waiting.blobs < self.min_items {
            return None;
        }
        let enough = waiting.bytes >= self.enough_bytes;
        let over = waiting.since_last.is_none_or(|since| since >= self.max_delay);
        match self.strategy {
            Strategy::Size | Strategy::Adaptive if enough => Some(Reason::Size),
            Strategy::Time | Strategy::Adaptive if over => Some(Reason::Time),
            Strategy::Immediate | Strategy::Size | Strategy::Time | Strategy::Adaptive => None,
        }
    }
}

/// The sizes of a lane's blobs, counted once for each block.
#[derive(Clone, Debug, Default)]
pub struct Pile {
    counted: Height,
    sizes: VecDeque<(Height, usize)>,
    bytes: usize,
}

impl Pile {
    /// The next height to count, given that everything up to `done` is on DA.
    pub fn settle(&mut self, done: Height) -> Height {
        while self.sizes.front().is_some_and(|(height, _)| *height <= done) {
            let (_, size) = self.sizes.pop_front().expect("the front was looked at");
            self.bytes -= size;
        }
        self.counted = self.counted.max(done);
        self.counted.next()
    }

    /// Counts the next height; `None` when its block is empty.
    pub fn count(&mut self, height: Height, size: Option<usize>) {
        self.counted = height;
        if let Some(size) = size {
            self.sizes.push_back((height, size));
            self.bytes += size;
        }
    }

    /// Blobs and bytes that were counted and are not on DA.
    #[must_use]
    pub fn waiting(&self) -> (usize, usize) {
        (self.sizes.len(), self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batching(strategy: Strategy) -> Batching {
        let max_delay = Duration::from_secs(6);
        Batching { strategy, enough_bytes: 1000, max_delay, min_items: 3, most_waiting: 100 }
    }

    fn waiting(blobs: usize, bytes: usize, since_last: u64) -> Waiting {
        let since_last = Some(Duration::from_secs(since_last));
        Waiting { heights: blobs as u64, blobs, bytes, since_last, ..Waiting::default() }
    }

    #[test]
    fn at_once_waits_for_nothing() {
        let immediate = batching(Strategy::Immediate);
        assert_eq!(immediate.verdict(&waiting(1, 1, 0)), Some(Reason::Immediate));
        assert_eq!(immediate.verdict(&waiting(0, 0, 99)), None);
    }

    #[test]
    fn size_waits_for_bytes_and_never_for_time() {
        let size = batching(Strategy::Size);
        assert_eq!(size.verdict(&waiting(9, 999, 3_600)), None);
        assert_eq!(size.verdict(&waiting(9, 1000, 0)), Some(Reason::Size));
    }

    #[test]
    fn time_waits_for_the_delay_and_never_for_bytes() {
        let time = batching(Strategy::Time);
        assert_eq!(time.verdict(&waiting(9, 5_000, 5)), None);
        assert_eq!(time.verdict(&waiting(9, 1, 6)), Some(Reason::Time));
    }

    #[test]
    fn adaptive_takes_whichever_comes_first() {
        let adaptive = batching(Strategy::Adaptive);
        assert_eq!(adaptive.verdict(&waiting(9, 999, 5)), None);
        assert_eq!(adaptive.verdict(&waiting(9, 1000, 5)), Some(Reason::Size));
        assert_eq!(adaptive.verdict(&waiting(9, 999, 6)), Some(Reason::Time));
    }

    #[test]
    fn fewer_blobs_than_the_least_wait_whatever_else_holds() {
        for strategy in [Strategy::Size, Strategy::Time, Strategy::Adaptive] {
            assert_eq!(batching(strategy).verdict(&waiting(2, 5_000, 99)), None, "{strategy:?}");
        }
    }

    #[test]
    fn no_strategy_waits_for_blocks_that_an_operator_does_not_want() {
        for strategy in [Strategy::Immediate, Strategy::Size, Strategy::Time, Strategy::Adaptive] {
            let last = Waiting { paused: true, ..waiting(1, 1, 0) };
            assert!(batching(strategy).verdict(&last).is_some(), "{strategy:?}");
            let none = Waiting { paused: true, ..waiting(0, 0, 99) };
            assert_eq!(batching(strategy).verdict(&none), None);
        }
    }

    #[test]
    fn a_producer_that_has_posted_nothing_does_not_wait_for_a_delay() {
        let first = Waiting { since_last: None, ..waiting(3, 3, 0) };
        assert_eq!(batching(Strategy::Time).verdict(&first), Some(Reason::Time));
        assert_eq!(batching(Strategy::Size).verdict(&first), None);
    }

    #[test]
    fn no_strategy_holds_back_so_much_that_production_would_pause() {
        for strategy in [Strategy::Size, Strategy::Time, Strategy::Adaptive] {
            let few = Waiting { heights: 100, ..waiting(1, 1, 0) };
            assert_eq!(batching(strategy).verdict(&few), Some(Reason::Backlog), "{strategy:?}");
        }
    }

    #[test]
    fn empty_blocks_are_recorded_once_their_headers_are_on_da() {
        let empty = Waiting { heights: 5, ..Waiting::default() };
        assert_eq!(batching(Strategy::Size).verdict(&empty), None);
        let behind = Waiting { behind: true, ..empty };
        assert_eq!(batching(Strategy::Size).verdict(&behind), Some(Reason::Empty));
    }

    #[test]
    fn a_pile_counts_each_block_once_and_forgets_what_is_on_da() {
        let mut pile = Pile::default();
        assert_eq!(pile.settle(Height(4)), Height(5));
        pile.count(Height(5), Some(10));
        pile.count(Height(6), None);
        pile.count(Height(7), Some(30));
        assert_eq!((pile.settle(Height(4)), pile.waiting()), (Height(8), (2, 40)));
        assert_eq!((pile.settle(Height(6)), pile.waiting()), (Height(8), (1, 30)));
        // Found on DA further than it was counted.
        assert_eq!((pile.settle(Height(20)), pile.waiting()), (Height(21), (0, 0)));
    }
}
