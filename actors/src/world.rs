//! Everything outside the process that is not an adapter of its own: time and chance.
//!
//! Storage, network, DA, engine and signer come in through their own traits; a simulation
//! replaces those and this, and a whole node runs in one thread from one seed.

mod pace;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use baton_messages::types::Timestamp;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::Instant;

use pace::Pace;

/// Tells the wall clock's time. Block times come from it, and nothing else does: everything
/// that waits uses tokio's time.
pub trait Clock: Send + Sync + 'static {
    /// Nanoseconds since the Unix epoch.
    fn now(&self) -> Timestamp;

    /// Time since some moment by a clock that nobody sets and that counts while the machine
    /// sleeps. `None`: tokio's is as good.
    fn elapsed(&self) -> Option<Duration> {
        None
    }
}

/// Time and chance, as a node sees them.
#[derive(Clone)]
pub struct World {
    clock: Arc<dyn Clock>,
    seed: u64,
    started: Instant,
    /// Part of the clock, which is why it is shared: nobody waits while holding it.
    pace: Arc<Mutex<Pace>>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("seed", &self.seed).finish_non_exhaustive()
    }
}

impl World {
    /// A world with this clock, whose chance all comes from the seed.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, seed: u64) -> Self {
        Self::bounded(clock, seed, Duration::MAX)
    }

    /// The same, with a bound on how far [`World::now`] jumps ahead (hazard A19). All clones
    /// share it.
    #[must_use]
    pub fn bounded(clock: Arc<dyn Clock>, seed: u64, limit: Duration) -> Self {
        let pace = Pace::new(limit, clock.now(), clock.elapsed().unwrap_or_default());
        Self { clock, seed, started: Instant::now(), pace: Arc::new(Mutex::new(pace)) }
    }

    /// The time for a block: the wall clock's, or less when that jumped ahead.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.with_pace(Pace::bounded)
    }

    /// The wall clock's time as it is.
    #[must_use]
    pub fn wall(&self) -> Timestamp {
        self.clock.now()
    }

    /// Time since some moment by a clock that nobody sets.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.clock.elapsed().unwrap_or_else(|| self.started.elapsed())
    }

    /// How far clocks may differ before block times are held back and a person is told.
    #[must_use]
    pub fn limit(&self) -> Duration {
        self.with_pace(|pace, _, _| pace.limit())
    }

    /// By how much [`World::now`] lags behind the wall clock.
    #[must_use]
    pub fn held_back(&self) -> Duration {
        self.with_pace(Pace::held_back)
    }

    /// Blocks that come as they are made say that it is so late.
    pub fn follow(&self, chain: Timestamp) {
        self.with_pace(|pace, wall, elapsed| pace.follow(chain, wall, elapsed));
    }

    fn with_pace<T>(&self, read: impl FnOnce(&mut Pace, Timestamp, Duration) -> T) -> T {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        read(&mut pace, self.clock.now(), self.elapsed())
    }

    /// A generator of its own for whoever is named; the same name and seed give the same numbers.
    #[must_use]
    pub fn generator(&self, name: &str) -> StdRng {
        let digest = baton_messages::types::Hash::of(name.as_bytes()).0;
        let mut seed = digest;
        for (byte, of_seed) in seed.iter_mut().zip(self.seed.to_le_bytes()) {
            *byte ^= of_seed;
        }
        StdRng::from_seed(seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    struct Stopped;

    impl Clock for Stopped {
        fn now(&self) -> Timestamp {
            Timestamp(7)
        }
    }

    #[test]
    fn a_name_and_a_seed_fix_the_numbers() {
        let world = World::new(Arc::new(Stopped), 1);
        let other = World::new(Arc::new(Stopped), 2);
        let draw = |world: &World, name| world.generator(name).next_u64();
        assert_eq!(draw(&world, "a"), draw(&world, "a"));
        assert_ne!(draw(&world, "a"), draw(&world, "b"));
        assert_ne!(draw(&world, "a"), draw(&other, "a"));
        assert_eq!(world.now(), Timestamp(7));
    }
}
