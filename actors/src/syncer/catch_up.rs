//! How catching up goes: what is left, at which rate, and when it will be done.

use std::time::Duration;

use baton_messages::follow::{CatchUpView, DaRead};
use baton_messages::types::Height;

/// So many blocks behind is following, not catching up.
const LEVEL: u64 = 3;
/// So many blocks behind is catching up at first sight, however soon it will be over.
const FAR: u64 = 100;
/// So many DA blocks behind is following.
const DA_LEVEL: u64 = 3;
/// The rate is that of about so long.
const WINDOW: Duration = Duration::from_secs(10);

/// Where the chain was at a moment.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Duration,
    tip: Height,
    da: u64,
}

/// A catch-up that is on its way.
#[derive(Debug, Default)]
pub struct CatchUp {
    began: Option<Mark>,
    /// The beginning of the window that the rate is taken of, and of the one before.
    marks: Option<(Mark, Mark)>,
    view: Option<CatchUpView>,
}

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// There is much to catch up with.
    Began,
    /// It is done: so many blocks in so long.
    Done(u64, Duration),
}

impl Change {
    /// Blocks per second of a catch-up that is done.
    #[must_use]
    pub fn rate(blocks: u64, spent: Duration) -> u64 {
        to_whole(as_float(blocks) / spent.as_secs_f64().max(0.001))
    }
}

/// When it is looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glance {
    /// From time to time: whoever is still behind by then does not follow by itself.
    Now,
    /// Something came or got in. A DA block of many blocks is nothing to catch up with.
    Meanwhile,
}

impl CatchUp {
    /// The node is here now. `now` is time since any fixed moment.
    pub fn look(
        &mut self,
        glance: Glance,
        now: Duration,
        (tip, highest): (Height, Height),
        read: Option<DaRead>,
    ) -> Change {
        let blocks_left = highest.0.saturating_sub(tip.0);
        let da_left = read.map_or(0, |read| read.head.0.saturating_add(1).saturating_sub(read.next.0));
        let mark = Mark { at: now, tip, da: read.map_or(0, |read| read.next.0) };
        if blocks_left <= LEVEL && da_left <= DA_LEVEL {
            self.view = None;
            self.marks = None;
            let done =
                |began: Mark| Change::Done(tip.0.saturating_sub(began.tip.0), now.saturating_sub(began.at));
            return self.began.take().map_or(Change::None, done);
        }
        if self.began.is_none() && glance == Glance::Meanwhile && blocks_left < FAR {
            return Change::None;
        }
        let change = if self.began.is_none() { Change::Began } else { Change::None };
        self.began.get_or_insert(mark);
        let (older, newer) = self.marks.get_or_insert((mark, mark));
        if now.saturating_sub(newer.at) >= WINDOW {
            (*older, *newer) = (*newer, mark);
        }
        let since = *older;
        let spent = now.saturating_sub(since.at).as_secs_f64();
        let per_second = |done: u64| if spent > 0.0 { as_float(done) / spent } else { 0.0 };
        let (blocks, da) =
            (per_second(tip.0 - since.tip.0.min(tip.0)), per_second(mark.da.saturating_sub(since.da)));
        // Reading again goes back on DA, and what is on DA only is not known as blocks yet: the slower
        // of the two says how long it takes.
        let lasts = |left: u64, rate: f64| match left {
            0 => Some(0.0),
            _ if rate <= 0.0 => None,
            left => Some(as_float(left) / rate),
        };
        let seconds = lasts(blocks_left, blocks).zip(lasts(da_left, da)).map(|(one, other)| one.max(other));
        self.view = Some(CatchUpView {
            blocks_left,
            da_left,
            milliblocks_per_second: to_whole(blocks * 1000.0),
            seconds_left: seconds.map(to_whole),
        });
        change
    }

    /// One is on its way.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.began.is_some()
    }

    /// What is left; `None` when the node is level.
    #[must_use]
    pub const fn view(&self) -> Option<CatchUpView> {
        self.view
    }
}

fn as_float(count: u64) -> f64 {
    u32::try_from(count).map_or(f64::from(u32::MAX), f64::from)
}

fn to_whole(number: f64) -> u64 {
    Duration::try_from_secs_f64(number).map_or(u64::MAX, |duration| duration.as_secs())
}

#[cfg(test)]
mod tests {
    use baton_messages::types::DaHeight;

    use super::*;

    fn second(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_rest_is_estimated_from_the_rate_of_late() {
        let mut catch_up = CatchUp::default();
        let mut look = |seconds, tip| {
            let change = catch_up.look(Glance::Now, second(seconds), (Height(tip), Height(1000)), None);
            (change, catch_up.view())
        };
        let (began, view) = look(0, 0);
        assert_eq!(began, Change::Began);
        assert_eq!(view.and_then(|view| view.seconds_left), None, "nothing is known yet");
        let (change, view) = look(2, 200);
        assert_eq!(change, Change::None);
        let view = view.expect("it is behind");
        assert_eq!((view.blocks_left, view.milliblocks_per_second), (800, 100_000));
        assert_eq!(view.seconds_left, Some(8));
        // It slows down: the window forgets how fast it was.
        let views = [(12, 210), (22, 220), (32, 230)].map(|(at, tip)| look(at, tip).1);
        assert_eq!(views[2].expect("behind").milliblocks_per_second, 1_000);
        assert_eq!(look(40, 999), (Change::Done(999, second(40)), None));
        assert_eq!(look(41, 1000), (Change::None, None));
        assert_eq!((Change::rate(999, second(40)), Change::rate(500, Duration::ZERO)), (24, 500_000));
    }

    #[test]
    fn a_catch_up_that_is_over_in_a_moment_begins_and_ends_too() {
        let mut catch_up = CatchUp::default();
        let mut look = |milliseconds, tip, highest| {
            let now = Duration::from_millis(milliseconds);
            catch_up.look(Glance::Meanwhile, now, (Height(tip), Height(highest)), None)
        };
        assert_eq!(look(0, 0, 99), Change::None, "a DA block brings as many");
        assert_eq!(look(1, 0, 1_000), Change::Began);
        assert_eq!(look(2, 980, 1_000), Change::None, "it is not over before it is level");
        let took = Duration::from_millis(699);
        assert_eq!(look(700, 997, 1_000), Change::Done(997, took), "between two looks of a second");
    }

    #[test]
    fn unread_da_is_left_too_and_the_slower_one_counts() {
        let read =
            |next, head| Some(DaRead { next: DaHeight(next), head: DaHeight(head), strict_from: None });
        let mut catch_up = CatchUp::default();
        catch_up.look(Glance::Now, second(0), (Height(0), Height(0)), read(1, 100));
        catch_up.look(Glance::Now, second(10), (Height(50), Height(50)), read(11, 100));
        let view = catch_up.view().expect("DA is unread");
        assert_eq!((view.blocks_left, view.da_left, view.seconds_left), (0, 90, Some(90)));
        assert_eq!(
            catch_up.look(Glance::Now, second(11), (Height(50), Height(50)), read(99, 100)),
            Change::Done(50, second(11))
        );
    }
}
