//! Running a simulation: a fresh thread, a fresh runtime, virtual time, one seed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use baton_actors::world::Clock;
use baton_messages::types::Timestamp;
use tokio::runtime::{Builder, RngSeed};
use tokio::task::LocalSet;

// rustdoc does not get the flags of the build; its code links what was built with them.
#[cfg(not(any(tokio_unstable, doc, doctest)))]
compile_error!("the simulation needs --cfg tokio_unstable (see .cargo/config.toml; is RUSTFLAGS exported?)");

/// Runs a future on virtual time in a thread of its own, with tokio's choices seeded.
///
/// Everything the future started is dropped when it ends, wherever it was: that is the crash.
/// A panic inside is a panic outside.
///
/// # Panics
///
/// When the future does.
#[allow(clippy::disallowed_methods)] // A fresh thread: no state of an earlier run is in its locals.
pub fn sim_run<F, Fut, T>(seed: u64, make: F) -> T
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = T>,
    T: Send + 'static,
{
    let thread = std::thread::spawn(move || {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .rng_seed(RngSeed::from_bytes(&seed.to_le_bytes()))
            .build()
            .expect("a runtime without i/o can be built");
        let local = LocalSet::new();
        let result = local.block_on(&runtime, make());
        drop(local);
        drop(runtime);
        result
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Runs a check for each seed and names the seed that failed.
///
/// # Panics
///
/// When a check does; the seed stands on stderr then.
pub fn seeds(range: impl IntoIterator<Item = u64>, check: impl Fn(u64)) {
    for seed in range {
        let run = std::panic::AssertUnwindSafe(|| check(seed));
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!("seed {seed} failed; run it alone with BATON_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// A wall clock on virtual time: it can be set, and keeps running while a node is down.
#[derive(Clone, Debug)]
pub struct SimClock {
    base: Arc<AtomicU64>,
    started: tokio::time::Instant,
}

impl SimClock {
    /// A clock that shows this time now.
    #[must_use]
    pub fn showing(now: Timestamp) -> Self {
        Self { base: Arc::new(AtomicU64::new(now.0)), started: tokio::time::Instant::now() }
    }

    /// Moves the clock, forwards or backwards.
    pub fn jump(&self, nanoseconds: i64) {
        let base = self.base.load(Ordering::Relaxed);
        self.base.store(base.saturating_add_signed(nanoseconds), Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.base.load(Ordering::Relaxed)).plus(self.started.elapsed())
    }
}
