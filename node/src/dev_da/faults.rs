//! The troubles a dev DA layer makes on purpose, the same ones for the same seed and order of
//! requests.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    /// It waits for so long before it is carried out.
    pub delay: Duration,
    /// Then it fails like this.
    pub failure: Option<Failure>,
}

/// A failure on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What the answer says.
    pub message: &'static str,
    /// The request is carried out nevertheless (hazard D4).
    pub carried_out: bool,
}

/// What a submission may be answered with (wire section 5.3), and whether it may be carried out
/// nevertheless.
const SUBMIT_FAILURES: [(&str, bool); 4] = [
    ("timed out waiting for tx to be included in a block", true),
    ("context deadline exceeded", true),
    ("tx already in mempool", false),
    ("incorrect account sequence", false),
];
const READ_FAILURE: &str = "context deadline exceeded";

/// Draws the fate of requests.
pub struct Faults {
    latency: Duration,
    error_rate: f64,
    random: Mutex<StdRng>,
}

impl Faults {
    /// Delays of half to one and a half times the latency, and failures of this share of requests
    /// (0 to 1).
    pub fn new(latency: Duration, error_rate: f64, seed: u64) -> Self {
        Self { latency, error_rate, random: Mutex::new(StdRng::seed_from_u64(seed)) }
    }

    /// The fate of the next request.
    pub fn draw(&self, submits: bool) -> Fate {
        // Drawing cannot panic half way.
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        let delay = self.latency.mul_f64(random.random_range(0.5..1.5));
        let fails = random.random_bool(self.error_rate);
        let (message, uncertain) = SUBMIT_FAILURES[random.random_range(0..SUBMIT_FAILURES.len())];
        let carried_out = random.random_bool(0.5);
        let failure = match (fails, submits) {
            (false, _) => None,
            (true, true) => Some(Failure { message, carried_out: uncertain && carried_out }),
            (true, false) => Some(Failure { message: READ_FAILURE, carried_out: false }),
        };
        Fate { delay, failure }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fates(seed: u64, error_rate: f64) -> Vec<Fate> {
        let faults = Faults::new(Duration::from_secs(1), error_rate, seed);
        (0..200).map(|_| faults.draw(true)).collect()
    }

    #[test]
    fn the_same_seed_makes_the_same_trouble() {
        assert_eq!(fates(7, 0.5), fates(7, 0.5));
        assert_ne!(fates(7, 0.5), fates(8, 0.5));
    }

    #[test]
    fn the_error_rate_is_kept_and_every_kind_of_failure_occurs() {
        assert!(fates(1, 0.0).iter().all(|fate| fate.failure.is_none()));
        assert!(fates(1, 1.0).iter().all(|fate| fate.failure.is_some()));
        let half = fates(1, 0.5).iter().filter(|fate| fate.failure.is_some()).count();
        assert!((70..130).contains(&half), "{half} of 200");
        for (message, uncertain) in SUBMIT_FAILURES {
            for carried_out in [false, uncertain] {
                let failure = Some(Failure { message, carried_out });
                assert!(fates(1, 1.0).iter().any(|fate| fate.failure == failure), "{failure:?}");
            }
        }
    }

    #[test]
    fn delays_stay_around_the_latency() {
        let (least, most) = (Duration::from_millis(500), Duration::from_millis(1500));
        assert!(fates(1, 0.0).iter().all(|fate| (least..most).contains(&fate.delay)));
        assert_eq!(Faults::new(Duration::ZERO, 0.0, 1).draw(false).delay, Duration::ZERO);
    }
}
