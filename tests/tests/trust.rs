//! Why the simulation can be relied on: a seed gives one history, wherever it runs, and what is
//! planted is found.

use std::collections::BTreeMap;
use std::process::Command;

use sim::history::History;

const SEEDS: std::ops::Range<u64> = 0..20;

/// The digest of each seed's history, two seeds at a time.
#[allow(clippy::disallowed_methods)] // Two histories at once, each in a thread of its own.
fn traces() -> BTreeMap<u64, String> {
    let trace = |seed: u64| (seed, History::of(seed).run().trace.to_string());
    std::thread::scope(|scope| {
        let even = scope.spawn(|| SEEDS.step_by(2).map(trace).collect::<Vec<_>>());
        let odd: Vec<_> = SEEDS.skip(1).step_by(2).map(trace).collect();
        even.join().expect("a history never panics").into_iter().chain(odd).collect()
    })
}

#[test]
fn twenty_seeds_give_the_same_histories_again_beside_others_and_in_another_process() {
    let here = traces();
    assert_eq!(here.len(), 20);
    assert_eq!(here.values().collect::<std::collections::BTreeSet<_>>().len(), 20, "no two are the same");
    let other = Command::new(env!("CARGO_BIN_EXE_sim")).args(["traces", "--seeds", "0..20"]).output();
    let other = other.expect("the program runs");
    assert!(other.status.success(), "{}", String::from_utf8_lossy(&other.stderr));
    let printed = String::from_utf8(other.stdout).expect("text");
    let there: BTreeMap<u64, String> = printed
        .lines()
        .map(|line| line.split_once(' ').expect("seed and digest"))
        .map(|(seed, trace)| (seed.parse().expect("a seed"), trace.to_owned()))
        .collect();
    assert_eq!(there, here);
}

#[cfg(feature = "mutations")]
#[test]
fn every_planted_bug_is_found_within_two_hundred_seeds() {
    use baton_messages::mutation::Mutation;
    use sim::mutants::{self, LIMIT};

    let hunts = mutants::hunt_all(Mutation::ALL, &(0..LIMIT), 2, |_| {});
    println!("{}", mutants::table(&hunts));
    let lost = hunts.iter().filter(|hunt| hunt.found.is_none());
    let lost: Vec<&str> = lost.map(|hunt| hunt.mutation.name()).collect();
    assert!(lost.is_empty(), "planted and not found: {lost:?}");
}
