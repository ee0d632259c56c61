//! Running a simulation: a fresh thread, a fresh runtime, virtual time, one seed.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use baton_actors::world::Clock;
use baton_messages::mutation::inherit;
use baton_messages::types::Timestamp;
use tokio::runtime::{Builder, RngSeed};
use tokio::task::LocalSet;

use crate::rate::Rate;

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
    let inherit = inherit();
    let thread = std::thread::spawn(move || {
        inherit();
        let runtime = Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .rng_seed(RngSeed::from_bytes(&seed.to_le_bytes()))
            .build()
            .expect("a runtime without i/o can be built");
        let local = LocalSet::new();
        let result = local.block_on(&runtime, make());
        {
            // What is dropped here may set up timers once more.
            let _entered = runtime.enter();
            drop(local);
        }
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

/// Runs a check for the seeds that `tests/seeds.txt` lists for this test, and then for `usual`
/// others; `BATON_SEEDS` sets another number of those, `BATON_SEED` runs one alone. Long runs
/// say how far they are.
///
/// # Panics
///
/// When a check does, or the list cannot be read.
pub fn listed_seeds(test: &str, usual: u64, check: impl Fn(u64)) {
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().unwrap_or_else(|error| panic!("{name}={text} is no number: {error}")))
    };
    if let Some(seed) = number("BATON_SEED") {
        return seeds([seed], check);
    }
    let count = number("BATON_SEEDS").unwrap_or(usual);
    seeds(listed(test), &check);
    seeds(0..count, |seed| {
        if seed > 0 && seed.is_multiple_of(PROGRESS_EVERY) {
            eprintln!("{test}: {seed} of {count} seeds");
        }
        check(seed);
    });
}

/// The seeds that `tests/seeds.txt` lists for a test.
///
/// # Panics
///
/// When the list cannot be read.
#[must_use]
pub fn listed(test: &str) -> Vec<u64> {
    regressions(include_str!("../seeds.txt"), test)
}

/// A line about progress after so many seeds.
const PROGRESS_EVERY: u64 = 250;

/// The seeds listed for a test: `test seed comment` per line.
fn regressions(list: &str, test: &str) -> Vec<u64> {
    let lines = list.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (name, seed) = (words.next()?, words.next());
            let seed = seed.and_then(|seed| seed.parse().ok());
            let seed = seed.unwrap_or_else(|| panic!("tests/seeds.txt: no seed in {line:?}"));
            (name == test).then_some(seed)
        })
        .collect()
}

/// A wall clock on virtual time: it can be set, keeps running while a node is down, and may run faster
/// or slower than time does.
#[derive(Clone, Debug)]
pub struct SimClock {
    base: Arc<AtomicU64>,
    /// At which rate it runs, until somebody sets it all the time.
    ppm: Arc<AtomicI64>,
    /// At which rate the clock beside it runs that nobody sets.
    rate: Rate,
    started: tokio::time::Instant,
}

impl SimClock {
    /// A clock that shows this time now.
    #[must_use]
    pub fn showing(now: Timestamp) -> Self {
        Self {
            base: Arc::new(AtomicU64::new(now.0)),
            ppm: Arc::default(),
            rate: Rate::default(),
            started: tokio::time::Instant::now(),
        }
    }

    /// The same, at a rate of its own.
    #[must_use]
    pub fn at(self, rate: Rate) -> Self {
        self.ppm.store(rate.ppm, Ordering::Relaxed);
        Self { rate, ..self }
    }

    fn wall_rate(&self) -> Rate {
        Rate { ppm: self.ppm.load(Ordering::Relaxed) }
    }

    /// From now on it runs as time does; it shows what it showed. Outside of the simulation's runtime the
    /// time of now is not known by itself.
    pub fn run_true(&self, now: tokio::time::Instant) {
        let (elapsed, rate) = (now.duration_since(self.started), self.wall_rate());
        self.ppm.store(0, Ordering::Relaxed);
        let nanoseconds = |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        self.jump(nanoseconds(rate.counted(elapsed)) - nanoseconds(elapsed));
    }

    /// Moves the clock, forwards or backwards.
    pub fn jump(&self, nanoseconds: i64) {
        let base = self.base.load(Ordering::Relaxed);
        self.base.store(base.saturating_add_signed(nanoseconds), Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.base.load(Ordering::Relaxed)).plus(self.wall_rate().counted(self.started.elapsed()))
    }

    fn elapsed(&self) -> Option<Duration> {
        (self.rate != Rate::default()).then(|| self.rate.counted(self.started.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_runs_true_again_shows_what_it_showed() {
        let shown = sim_run(1, || async {
            let clock = SimClock::showing(Timestamp(5_000_000_000)).at(Rate { ppm: 100_000 });
            tokio::time::sleep(Duration::from_secs(10)).await;
            let fast = clock.now();
            clock.run_true(tokio::time::Instant::now());
            let same = clock.now();
            tokio::time::sleep(Duration::from_secs(10)).await;
            [fast, same, clock.now()].map(|time| time.0 / 1_000_000_000)
        });
        assert_eq!(shown, [16, 16, 26]);
    }

    #[test]
    fn a_listed_seed_belongs_to_its_test() {
        let list = "# a comment\n\none 7 why\nother 8\none 9\n";
        assert_eq!(regressions(list, "one"), [7, 9]);
        assert_eq!(regressions(list, "none"), Vec::<u64>::new());
    }
}
