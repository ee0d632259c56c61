//! Shows that planted bugs are found: each mutation runs over the same seeds as everything else,
//! until a promise breaks.

use std::fmt::Write;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use baton_messages::mutation::{Mutation, plant};

use crate::history::{Broken, History};

/// So many seeds may pass before a mutation must be found.
pub const LIMIT: u64 = 200;

/// How a mutation was found, or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hunt {
    /// The planted bug.
    pub mutation: Mutation,
    /// The first seed that broke a promise, and which.
    pub found: Option<(u64, Broken)>,
}

/// Runs a history with a bug planted in it.
fn broken_by(mutation: Mutation, seed: u64) -> Option<Broken> {
    plant(Some(mutation));
    let outcome = History::of(seed).run();
    plant(None);
    outcome.broken
}

/// Looks for a mutation in these seeds, one after the other. A seed that breaks a promise without
/// it shows nothing.
#[must_use]
pub fn hunt(mutation: Mutation, seeds: Range<u64>) -> Hunt {
    let found = seeds.into_iter().find_map(|seed| {
        let broken = broken_by(mutation, seed)?;
        History::of(seed).run().broken.is_none().then_some((seed, broken))
    });
    Hunt { mutation, found }
}

/// Looks for all of them on so many threads; `told` hears of each. Returned in order.
#[allow(clippy::disallowed_methods)] // Threads of their own: nothing of a run is left in their locals.
pub fn hunt_all(
    mutations: &[Mutation],
    seeds: &Range<u64>,
    threads: usize,
    told: impl Fn(&Hunt) + Sync,
) -> Vec<Hunt> {
    let (next, hunts) = (AtomicUsize::new(0), Mutex::new(vec![]));
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while let Some(mutation) = mutations.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let hunt = hunt(*mutation, seeds.clone());
                    told(&hunt);
                    hunts.lock().unwrap_or_else(PoisonError::into_inner).push(hunt);
                }
            });
        }
    });
    let mut hunts = hunts.into_inner().unwrap_or_else(PoisonError::into_inner);
    hunts.sort_by_key(|hunt| hunt.mutation);
    hunts
}

/// The table as `docs/hazards.md` has it.
#[must_use]
pub fn table(hunts: &[Hunt]) -> String {
    let mut text = String::from(
        "| mutation | hazards | what the changed line does | file | seeds | broken |\n|---|---|---|---|---|---|\n",
    );
    for Hunt { mutation, found } in hunts {
        let (seeds, promise) = match found {
            Some((seed, broken)) => ((seed + 1).to_string(), broken.promise.clone()),
            None => ("not found".to_owned(), String::new()),
        };
        let _ = writeln!(
            text,
            "| {mutation} | {} | {} | `{}` | {seeds} | {promise} |",
            mutation.hazard(),
            mutation.change(),
            mutation.place()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mutation_that_was_not_found_is_in_the_table() {
        let broken = Broken { promise: "I6".to_owned(), at_ms: 1, text: "I6: time".to_owned() };
        let hunts = [
            Hunt { mutation: Mutation::EqualTime, found: Some((0, broken)) },
            Hunt { mutation: Mutation::NoDaFence, found: None },
        ];
        let table = table(&hunts);
        assert!(table.contains("| `storage/src/verdict.rs` | 1 | I6 |\n"), "{table}");
        assert!(table.contains("| `actors/src/da.rs` | not found |  |\n"), "{table}");
    }
}
