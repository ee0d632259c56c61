//! Finds the shortest history that breaks the same promise.

use crate::history::{Deed, History, Outcome};

/// Drops the deeds that are not needed for a history to break the promise that it breaks, and
/// ends it soon after. `None`: it breaks none. `told` hears how far it is.
pub fn shrink(history: &History, mut told: impl FnMut(&str)) -> Option<(History, Outcome)> {
    let first = history.run();
    let promise = first.broken.as_ref()?.promise.clone();
    told(&format!("{} deeds break {promise}", history.deeds.len()));
    let run = |deeds: &[Deed], span_ms: u64| {
        let shorter = History { deeds: deeds.to_vec(), span_ms, ..history.clone() };
        let outcome = shorter.run();
        let same = outcome.broken.as_ref().is_some_and(|broken| broken.promise == promise);
        same.then_some((shorter, outcome))
    };
    // What was to be done later was not needed.
    let at_ms = first.broken.as_ref().map_or(history.span_ms, |broken| broken.at_ms);
    let mut best = (history.clone(), first);
    let before: Vec<Deed> = history.deeds.iter().filter(|deed| deed.at_ms <= at_ms).cloned().collect();
    if let Some(shorter) = run(&before, history.span_ms) {
        best = shorter;
    }
    let deeds = best.0.deeds.clone();
    let least = least(&deeds, |fewer| {
        let found = run(fewer, history.span_ms);
        let breaks = found.is_some();
        told(&format!("{} deeds: {}", fewer.len(), if breaks { "still broken" } else { "holds" }));
        if let Some(found) = found {
            best = found;
        }
        breaks
    });
    let mut span_ms = best.0.span_ms;
    while span_ms > 500 {
        span_ms = span_ms * 3 / 4;
        let Some(shorter) = run(&least, span_ms) else { break };
        told(&format!("{span_ms} ms: still broken"));
        best = shorter;
    }
    Some(best)
}

/// The fewest items for which something still holds, as far as leaving out parts of them tells
/// (delta debugging: complements of ever smaller parts).
pub fn least<T: Clone>(items: &[T], mut holds: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let mut left = items.to_vec();
    let mut parts = 2;
    if !left.is_empty() && holds(&[]) {
        return vec![];
    }
    while left.len() >= 2 {
        let size = left.len().div_ceil(parts);
        let without = |start: usize| {
            let end = (start + size).min(left.len());
            [&left[..start], &left[end..]].concat()
        };
        let shorter = (0..left.len()).step_by(size).map(without).find(|fewer| holds(fewer));
        match shorter {
            Some(fewer) => {
                left = fewer;
                parts = parts.saturating_sub(1).max(2);
            }
            None if size == 1 => break,
            None => parts = (parts * 2).min(left.len()),
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_is_left_in_order() {
        let items: Vec<u32> = (0..100).collect();
        let mut asked = 0;
        let left = least(&items, |fewer| {
            asked += 1;
            [17, 18, 60].iter().all(|needed| fewer.contains(needed))
        });
        assert_eq!(left, [17, 18, 60]);
        assert!(asked < 100, "asked {asked} times");
    }

    #[test]
    fn what_holds_without_anything_needs_nothing() {
        assert_eq!(least(&[1, 2, 3], |_| true), Vec::<i32>::new());
        assert_eq!(least(&[1], |fewer| !fewer.is_empty()), [1]);
        assert_eq!(least(&[] as &[i32], |_| true), Vec::<i32>::new());
    }
}
