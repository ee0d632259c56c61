//! When a member that could not be reached is tried again.

use std::time::Duration;

use tokio::time::Instant;

/// The pause after the first failure.
const FIRST: Duration = Duration::from_millis(20);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(1);
/// An urgent call does not wait longer than this.
const URGENT: Duration = Duration::from_millis(50);

/// Pauses that double from 20 ms to one second, each shortened by chance by up to a half, so
/// that nodes which lost the same peer do not come back to it in step (hazard S20).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    failed: Option<(Instant, Duration)>,
}

impl Backoff {
    /// Whether to try now.
    pub(super) fn may_dial(&self, now: Instant, urgent: bool) -> bool {
        self.failed.is_none_or(|(at, pause)| {
            let since = now.saturating_duration_since(at);
            since >= pause || (urgent && since >= URGENT)
        })
    }

    /// It failed. `chance` is from zero to one.
    pub(super) fn failed(&mut self, now: Instant, chance: f64) {
        let full = FIRST.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        self.failed = Some((now, full.mul_f64(1.0 - chance / 2.0)));
    }

    /// It worked.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pause(backoff: &Backoff) -> Duration {
        backoff.failed.unwrap().1
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_double_up_to_a_second_and_success_forgets_them() {
        let now = Instant::now();
        let mut backoff = Backoff::default();
        assert!(backoff.may_dial(now, false));
        let mut pauses = vec![];
        for _ in 0..8 {
            backoff.failed(now, 0.0);
            pauses.push(pause(&backoff).as_millis());
        }
        assert_eq!(pauses, [20, 40, 80, 160, 320, 640, 1000, 1000]);
        backoff.succeeded();
        assert!(backoff.may_dial(now, false));
        backoff.failed(now, 1.0);
        assert_eq!(pause(&backoff).as_millis(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn an_urgent_call_waits_at_most_fifty_milliseconds() {
        let now = Instant::now();
        let mut backoff = Backoff::default();
        (0..8).for_each(|_| backoff.failed(now, 0.0));
        let later = |millis| now + Duration::from_millis(millis);
        assert!(!backoff.may_dial(later(49), true));
        assert!(backoff.may_dial(later(50), true));
        assert!(!backoff.may_dial(later(999), false));
        assert!(backoff.may_dial(later(1000), false));
    }
}
