//! What the times of blocks say about the clock of whoever makes them.

use std::collections::VecDeque;
use std::time::Duration;

use baton_messages::types::Timestamp;

/// Blocks that are looked at.
const SEEN: usize = 16;
/// The least time between two of them.
const APART: Duration = Duration::from_millis(250);
/// The least time between the first and the last of them that says anything.
const SPAN: Duration = Duration::from_secs(3);
/// Blocks whose times pass faster than this were not made while they came: a replay. A leader
/// whose clock is held back lets time pass twice as fast.
const FASTEST: u32 = 3;

/// The newest blocks and when they came.
#[derive(Clone, Debug, Default)]
pub struct Following(VecDeque<(Timestamp, Duration)>);

impl Following {
    /// A block of this time came, so long after some moment.
    pub fn saw(&mut self, time: Timestamp, elapsed: Duration) {
        match self.0.back() {
            Some((last, at)) if time <= *last || elapsed < *at + APART => return,
            Some(_) | None => self.0.push_back((time, elapsed)),
        }
        if self.0.len() > SEEN {
            self.0.pop_front();
        }
    }

    /// What the time is by the blocks, or nothing as long as they do not come as they are made.
    ///
    /// A block comes some time after it was made, so the one that came soonest is the measure.
    #[must_use]
    pub fn time(&self, elapsed: Duration) -> Option<Timestamp> {
        let ((first, began), (last, ended)) = (self.0.front()?, self.0.back()?);
        let came = *ended - *began;
        let made = Duration::from_nanos(last.0 - first.0);
        if self.0.len() < 3 || came < SPAN || made > came * FASTEST {
            return None;
        }
        self.0.iter().map(|(time, at)| time.plus(elapsed.saturating_sub(*at))).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp(1_700_000_000_000_000_000);

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// Blocks every 100 ms that come 20 to 80 ms after their time.
    fn live(following: &mut Following, from: u64, to: u64) {
        for now in (from..to).step_by(100) {
            following.saw(START.plus(ms(now)), ms(now + 20 + now % 60));
        }
    }

    #[test]
    fn blocks_that_come_as_they_are_made_tell_the_time() {
        let mut following = Following::default();
        live(&mut following, 0, 2_500);
        assert_eq!(following.time(ms(2_500)), None, "too short to tell");
        live(&mut following, 2_500, 10_000);
        let off = START.plus(ms(10_000)).0 - following.time(ms(10_000)).expect("live").0;
        assert!(off <= 40_000_000, "{off} ns");
    }

    #[test]
    fn when_blocks_stop_time_does_not() {
        let mut following = Following::default();
        live(&mut following, 0, 10_000);
        let later = following.time(ms(70_000)).expect("live");
        assert!(later >= START.plus(ms(69_900)) && later <= START.plus(ms(70_000)));
    }

    #[test]
    fn a_replay_tells_nothing_until_it_is_over() {
        let mut following = Following::default();
        for now in (0..20_000).step_by(100) {
            // A second of the chain every 100 ms.
            following.saw(START.plus(ms(now * 10)), ms(now));
        }
        assert_eq!(following.time(ms(20_000)), None);
        for now in (20_000..30_000).step_by(100) {
            following.saw(START.plus(ms(180_000 + now)), ms(now));
        }
        assert_eq!(following.time(ms(30_000)), Some(START.plus(ms(210_000))));
    }

    #[test]
    fn a_gap_in_the_chain_is_forgotten_after_some_blocks() {
        let mut following = Following::default();
        following.saw(START, ms(10));
        for now in (0..10_000).step_by(500) {
            following.saw(START.plus(Duration::from_secs(3_600)).plus(ms(now)), ms(now + 100));
        }
        let time = following.time(ms(10_000)).expect("live");
        assert_eq!(time, START.plus(Duration::from_secs(3_600)).plus(ms(9_900)));
    }
}
