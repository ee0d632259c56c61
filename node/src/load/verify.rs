//! Whether everything that was acknowledged is in the chain.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, sleep};

use crate::load::Error;
use crate::load::target::Target;

/// How long what was accepted may take to be executed.
const EXECUTED_WITHIN: Duration = Duration::from_secs(30);

/// Between two looks for one transaction.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Which transactions were acknowledged: one bit each.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    words: Vec<u64>,
    count: u64,
}

impl Numbers {
    /// Remembers a transaction if it was taken.
    pub fn note(&mut self, number: u64, taken: bool) {
        let Ok(word) = usize::try_from(number / 64) else { return };
        if !taken {
            return;
        }
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        let bit = 1 << (number % 64);
        self.count += u64::from(self.words[word] & bit == 0);
        self.words[word] |= bit;
    }

    /// How many.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        let bits = |(word, bits): (usize, &u64)| {
            let (word, bits) = (word as u64 * 64, *bits);
            (0..64).filter(move |bit| bits & (1 << bit) != 0).map(move |bit| word + bit)
        };
        self.words.iter().enumerate().flat_map(bits)
    }
}

/// Looks all of them up. Returns those that are not in the chain after the time they may take.
///
/// # Errors
///
/// When no node answers any more.
pub async fn missing(target: &Target, numbers: &Numbers, connections: u32) -> Result<Vec<u64>, Error> {
    let all: Vec<u64> = numbers.iter().collect();
    let (next, missing) = (AtomicUsize::new(0), Mutex::new(vec![]));
    let deadline = Instant::now() + EXECUTED_WITHIN;
    let look = async || {
        while let Some(number) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            if !find(target, *number, deadline).await {
                missing.lock().expect("nobody panics with the list").push(*number);
            }
        }
    };
    join_all((0..connections).map(|_| look())).await;
    // Silence is not a loss: who is there to say so is asked once more.
    target.counters().await?;
    let mut missing = missing.into_inner().expect("nobody panics with the list");
    missing.sort_unstable();
    Ok(missing)
}

/// The first one that is missing is waited for; after that the time is over for all.
async fn find(target: &Target, number: u64, deadline: Instant) -> bool {
    loop {
        if target.has(number).await == Some(true) {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        sleep(LOOK_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_in_order_and_count_once() {
        let mut numbers = Numbers::default();
        for number in [200, 3, 64, 3, 63] {
            numbers.note(number, true);
        }
        numbers.note(5, false);
        assert_eq!(numbers.iter().collect::<Vec<_>>(), [3, 63, 64, 200]);
        assert_eq!((numbers.len(), numbers.is_empty()), (4, false));
    }
}
