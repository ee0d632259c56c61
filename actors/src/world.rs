//! Everything outside the process that is not an adapter of its own: time and chance.
//!
//! Storage, network, DA, engine and signer come in through their own traits; a simulation
//! replaces those and this, and a whole node runs in one thread from one seed.

use std::fmt;
use std::sync::Arc;

use baton_messages::types::Timestamp;
use rand::SeedableRng;
use rand::rngs::StdRng;

/// Tells the wall clock's time. Block times come from it, and nothing else does: everything
/// that waits uses tokio's time.
pub trait Clock: Send + Sync + 'static {
    /// Nanoseconds since the Unix epoch.
    fn now(&self) -> Timestamp;
}

/// Time and chance, as a node sees them.
#[derive(Clone)]
pub struct World {
    clock: Arc<dyn Clock>,
    seed: u64,
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
        Self { clock, seed }
    }

    /// The wall clock's time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
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
