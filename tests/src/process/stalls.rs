//! What a machine did to everybody: a task that only sleeps sees it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// A task that only sleeps: how long this machine stalled everybody is measured by it.
#[derive(Debug)]
pub struct Stalls(tokio::task::JoinHandle<()>, Arc<Mutex<Vec<(Instant, Duration)>>>);

impl Stalls {
    /// Begins to watch.
    #[must_use]
    pub fn watch() -> Self {
        let seen: Arc<Mutex<Vec<(Instant, Duration)>>> = std::sync::Arc::default();
        let found = seen.clone();
        let step = Duration::from_millis(5);
        let task = tokio::spawn(async move {
            loop {
                let began = Instant::now();
                sleep(step).await;
                let late = began.elapsed().saturating_sub(step);
                if late > Duration::from_millis(10) {
                    found.lock().expect("nobody panics with it").push((began, late));
                }
            }
        });
        Self(task, seen)
    }

    /// How long everybody stalled since then, together.
    #[must_use]
    pub fn since(&self, then: Instant) -> Duration {
        let seen = self.1.lock().expect("nobody panics with it");
        seen.iter().filter(|(at, _)| *at >= then).map(|(_, late)| *late).sum()
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.0.abort();
    }
}
