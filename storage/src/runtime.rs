//! openraft's runtime: tokio, with chance that comes from a seed when one is set.
//!
//! openraft draws its election time-outs; in a simulation they must come from the run's seed.

use std::cell::Cell;
use std::convert::Infallible;
use std::time::Duration;

use openraft_rt::{AsyncRuntime, OptionalSend};
use openraft_rt_tokio::TokioRuntime;
use rand::rngs::{SmallRng, ThreadRng};
use rand::{SeedableRng, TryRng};

thread_local! {
    /// What the next generator on this thread is seeded with; `None`: the machine's entropy.
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
    /// Whether tasks belong to the set of tasks they are started from.
    static TASK_SETS: Cell<bool> = const { Cell::new(false) };
}

/// From now on what openraft starts on this thread belongs to the `LocalSet` it is started from,
/// and ends with it. For simulations, where several nodes share a runtime and one crashes.
pub fn keep_to_task_sets(keep: bool) {
    TASK_SETS.set(keep);
}

/// From now on what openraft draws on this thread follows from this seed. For simulations, which
/// run every node on one thread; `None` goes back to the machine's entropy.
pub fn seed_chance(seed: Option<u64>) {
    SEED.set(seed);
}

/// Tokio, as openraft's runtime.
#[derive(Debug)]
pub struct Runtime(TokioRuntime);

/// Where one draw comes from.
#[derive(Debug)]
enum Source {
    Seeded(Box<SmallRng>),
    Entropy(ThreadRng),
}

/// A generator for openraft.
#[derive(Debug)]
pub struct Chance(Source);

impl Chance {
    #[allow(clippy::disallowed_methods, reason = "the machine's entropy, where no seed is set")]
    fn next() -> Self {
        match SEED.get() {
            Some(seed) => {
                // Each generator has a seed of its own: the golden ratio walks through all of them.
                SEED.set(Some(seed.wrapping_add(0x9e37_79b9_7f4a_7c15)));
                Self(Source::Seeded(Box::new(SmallRng::seed_from_u64(seed))))
            }
            None => Self(Source::Entropy(rand::rng())),
        }
    }
}

impl TryRng for Chance {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        match &mut self.0 {
            Source::Seeded(generator) => generator.try_next_u32(),
            Source::Entropy(generator) => generator.try_next_u32(),
        }
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        match &mut self.0 {
            Source::Seeded(generator) => generator.try_next_u64(),
            Source::Entropy(generator) => generator.try_next_u64(),
        }
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        match &mut self.0 {
            Source::Seeded(generator) => generator.try_fill_bytes(bytes),
            Source::Entropy(generator) => generator.try_fill_bytes(bytes),
        }
    }
}

impl AsyncRuntime for Runtime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = Chance;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = <TokioRuntime as AsyncRuntime>::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        if TASK_SETS.get() { tokio::task::spawn_local(future) } else { TokioRuntime::spawn(future) }
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        Chance::next()
    }

    fn new(threads: usize) -> Self {
        Self(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_draws_and_each_generator_draws_anew() {
        let draws = |seed| {
            seed_chance(Some(seed));
            let drawn: Vec<u64> = (0..4).map(|_| Runtime::thread_rng().next_u64()).collect();
            seed_chance(None);
            drawn
        };
        let first = draws(7);
        assert_eq!(first, draws(7));
        assert_ne!(first, draws(8));
        assert!(first.windows(2).all(|pair| pair[0] != pair[1]), "{first:?}");
    }
}
