//! How fast the time of blocks may pass (hazard A19).

use std::time::Duration;

use baton_messages::types::Timestamp;

/// Bounds the wall clock by a clock that nobody sets.
///
/// A wall clock that jumps ahead would take the chain's time along: every later leader would have
/// to follow with blocks a nanosecond apart, and engines refuse blocks from the future. The first
/// `limit` of a jump passes at once, the rest at most twice as fast as time passes, so a person has
/// the time to correct it, and a clock that is right after all is reached without a decision.
/// A clock set back is followed at once: apply keeps time rising (I6).
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    limit: Duration,
    /// The wall clock's time as far as it is believed.
    believed: Timestamp,
    /// When it was believed, by the clock that nobody sets.
    at: Duration,
}

impl Pace {
    /// Believes the wall clock as it is now.
    #[must_use]
    pub const fn new(limit: Duration, wall: Timestamp, elapsed: Duration) -> Self {
        Self { limit, believed: wall, at: elapsed }
    }

    /// How far ahead of what it believes it lets times go.
    #[must_use]
    pub const fn limit(&self) -> Duration {
        self.limit
    }

    /// The time for a block, given the wall clock's and the time elapsed since some moment.
    pub fn bounded(&mut self, wall: Timestamp, elapsed: Duration) -> Timestamp {
        self.advance(wall, elapsed);
        wall.min(self.believed.plus(self.limit))
    }

    /// By how much block times lag behind the wall clock, because it jumped.
    pub fn held_back(&mut self, wall: Timestamp, elapsed: Duration) -> Duration {
        let bounded = self.bounded(wall, elapsed);
        Duration::from_nanos(wall.0 - bounded.0)
    }

    /// Blocks that come as they are made say that it is so late. A wall clock that is ahead of them
    /// from the start must not take the chain along either when this node leads; one that they
    /// confirm is believed again.
    pub fn follow(&mut self, chain: Timestamp, wall: Timestamp, elapsed: Duration) {
        self.advance(wall, elapsed);
        if chain.plus(self.limit) < wall {
            // This node's own blocks are ahead of what is believed: that is never raised here.
            self.believed = self.believed.min(chain);
        } else if chain.plus(self.limit / 2) >= wall {
            self.believed = wall;
        }
    }

    fn advance(&mut self, wall: Timestamp, elapsed: Duration) {
        let passed = elapsed.saturating_sub(self.at);
        self.at = self.at.max(elapsed);
        // A long time in which nobody asked says nothing about the jump in it.
        let faster = passed.saturating_add(passed.min(self.limit));
        self.believed = wall.min(self.believed.plus(faster));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);
    const HOUR: Duration = Duration::from_secs(3_600);
    const START: Timestamp = Timestamp(1_700_000_000_000_000_000);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Asks every second from one second on, with a clock that is ahead by so much.
    fn run(pace: &mut Pace, from: u64, to: u64, ahead: Duration) -> Timestamp {
        let mut last = START;
        for now in from..=to {
            last = pace.bounded(START.plus(seconds(now)).plus(ahead), seconds(now));
        }
        last
    }

    #[test]
    fn a_clock_that_runs_is_believed() {
        let mut pace = Pace::new(LIMIT, START, Duration::ZERO);
        assert_eq!(run(&mut pace, 1, 1_000, Duration::ZERO), START.plus(seconds(1_000)));
        assert_eq!(pace.held_back(START.plus(seconds(1_000)), seconds(1_000)), Duration::ZERO);
    }

    #[test]
    fn a_correction_within_the_limit_passes_at_once() {
        let mut pace = Pace::new(LIMIT, START, Duration::ZERO);
        assert_eq!(run(&mut pace, 1, 1, LIMIT), START.plus(seconds(1)).plus(LIMIT));
    }

    #[test]
    fn a_jump_of_an_hour_passes_at_most_twice_as_fast_as_time() {
        let mut pace = Pace::new(LIMIT, START, Duration::ZERO);
        run(&mut pace, 1, 10, Duration::ZERO);
        assert_eq!(run(&mut pace, 11, 11, HOUR), START.plus(seconds(12)).plus(LIMIT));
        assert_eq!(run(&mut pace, 12, 610, HOUR), START.plus(seconds(1_210)).plus(LIMIT));
        let wall = START.plus(seconds(610)).plus(HOUR);
        assert_eq!(pace.held_back(wall, seconds(610)), HOUR - seconds(600) - LIMIT);
        assert_eq!(run(&mut pace, 611, 3_610, HOUR), START.plus(seconds(3_610)).plus(HOUR), "reached");
    }

    #[test]
    fn a_jump_while_nobody_asked_is_held_back_too() {
        let mut pace = Pace::new(LIMIT, START, Duration::ZERO);
        let time = pace.bounded(START.plus(seconds(36_000)).plus(HOUR), seconds(36_000));
        assert_eq!(time, START.plus(seconds(36_000)).plus(LIMIT * 2));
    }

    #[test]
    fn a_clock_set_back_is_followed_at_once() {
        let mut pace = Pace::new(LIMIT, START, Duration::ZERO);
        run(&mut pace, 1, 10, HOUR);
        assert_eq!(run(&mut pace, 11, 11, Duration::ZERO), START.plus(seconds(11)));
    }

    #[test]
    fn a_clock_ahead_of_the_chain_from_the_start_is_held_back_to_it() {
        let wall = START.plus(HOUR);
        let mut pace = Pace::new(LIMIT, wall, Duration::ZERO);
        pace.follow(START.plus(seconds(4)), wall.plus(seconds(4)), seconds(4));
        let time = pace.bounded(wall.plus(seconds(5)), seconds(5));
        assert_eq!(time, START.plus(seconds(6)).plus(LIMIT));
    }

    #[test]
    fn a_jump_that_the_blocks_of_others_confirm_is_believed() {
        let mut pace = Pace::new(LIMIT, START, Duration::ZERO);
        let wall = START.plus(HOUR);
        assert!(pace.bounded(wall, seconds(1)) < wall);
        pace.follow(wall, wall.plus(seconds(1)), seconds(2));
        assert_eq!(pace.bounded(wall.plus(seconds(2)), seconds(3)), wall.plus(seconds(2)));
    }

    #[test]
    fn blocks_of_its_own_that_are_held_back_do_not_add_up() {
        let mut pace = Pace::new(LIMIT, START, Duration::ZERO);
        let mut last = START;
        for now in 1..=600 {
            let wall = START.plus(seconds(now)).plus(HOUR);
            last = pace.bounded(wall, seconds(now));
            pace.follow(last, wall, seconds(now));
        }
        assert_eq!(last, START.plus(seconds(1_200)).plus(LIMIT));
    }

    #[test]
    fn without_a_limit_everything_is_believed() {
        let mut pace = Pace::new(Duration::MAX, START, Duration::ZERO);
        assert_eq!(run(&mut pace, 1, 1, HOUR), START.plus(seconds(1)).plus(HOUR));
        pace.follow(START, START.plus(HOUR), seconds(2));
        assert_eq!(run(&mut pace, 3, 3, HOUR), START.plus(seconds(3)).plus(HOUR));
    }
}
