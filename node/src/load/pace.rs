//! When each transaction is due.

use std::time::Duration;

/// A steady rate, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    per_second: Option<u64>,
}

impl Pace {
    /// A rate per second; without one everything is due at once.
    pub fn new(per_second: Option<u64>) -> Self {
        Self { per_second }
    }

    /// Returns how long after the start transaction `number` is due. The rate does not drift:
    /// second `n` starts with transaction `n * rate`.
    pub fn due(&self, number: u64) -> Duration {
        let Some(rate) = self.per_second else { return Duration::ZERO };
        let within = u128::from(number % rate) * 1_000_000_000 / u128::from(rate);
        let within = u64::try_from(within).expect("less than a second in nanoseconds");
        Duration::from_secs(number / rate) + Duration::from_nanos(within)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_to_the_second() {
        let pace = Pace::new(Some(3));
        assert_eq!(pace.due(0), Duration::ZERO);
        assert_eq!(pace.due(1), Duration::from_nanos(333_333_333));
        assert_eq!(pace.due(3_000_000), Duration::from_secs(1_000_000));
    }

    #[test]
    fn flat_out_everything_is_due_at_once() {
        assert_eq!(Pace::new(None).due(u64::MAX), Duration::ZERO);
    }
}
