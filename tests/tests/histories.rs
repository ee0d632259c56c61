//! Hostile histories of a cluster, many of them, each from its seed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use sim::history::{
    Coverage, Deed, EventKind, Form, FullDeed, FullNode, History, Left, Lie, Outcome, Shape, Situation,
    Sources, What,
};
use sim::{listed, story};

/// As in the program `sim`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Histories that run when nobody says how many.
const USUAL: u64 = 1_000;
/// A batch that is smaller need not come to every situation.
const COVERED: u64 = 1_000;

/// Histories of clusters of other forms that run when nobody says how many. `make sim SHAPE=5 SEEDS=1000`
/// runs a thousand.
const OTHERS: [(&str, u64); 5] = [("1", 40), ("2", 20), ("3+w", 25), ("5", 25), ("7", 12)];

/// Both tests count the processor time of this process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// So many events before a broken promise are printed.
const LAST: usize = 80;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{name}={text} is no number: {error}")))
}

#[derive(Default)]
struct Batch {
    coverage: Coverage,
    virtual_seconds: f64,
    broken: Vec<(Form, u64, String)>,
}

/// Runs histories on two threads; `after` looks at each.
fn batch(seeds: &[(Form, u64)]) -> Batch {
    let (next, all) = (AtomicU64::new(0), Mutex::new(Batch::default()));
    #[allow(clippy::disallowed_methods)] // Each history has a thread of its own; these wait for them.
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((form, seed)) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let outcome = History::with(*form, *seed).run();
                    add(&mut all.lock().expect("nobody panics with it"), (*form, *seed), &outcome);
                }
            });
        }
    });
    all.into_inner().expect("nobody panicked with it")
}

fn add(batch: &mut Batch, (form, seed): (Form, u64), outcome: &Outcome) {
    batch.coverage.merge(&outcome.coverage);
    batch.virtual_seconds += outcome.virtual_time.as_secs_f64();
    if let Some(broken) = &outcome.broken {
        eprintln!(
            "seed {seed} of clusters of {form} at {} ms: {}: {}",
            broken.at_ms, broken.promise, broken.text
        );
        // What came before says most; blocks say little.
        let told = outcome.events.iter().filter(|event| {
            !matches!(
                event.what,
                EventKind::Applied { .. }
                    | EventKind::Committed { .. }
                    | EventKind::Signed { .. }
                    | EventKind::Included { .. }
                    | EventKind::Posted { .. }
            )
        });
        let told: Vec<_> = told.collect();
        for event in &told[told.len().saturating_sub(LAST)..] {
            eprintln!("  {:>8} {:?} {:?}", event.at_ms, event.node, event.what);
        }
        batch.broken.push((form, seed, broken.promise.clone()));
    }
}

/// The processor time of this process, in seconds.
fn processor_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = text.rsplit(')').next().unwrap_or_default();
    let fields: Vec<f64> = after.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    // utime and stime are the 14th and 15th field, in ticks of a hundredth of a second; the state
    // before them is a letter.
    fields.get(10..12).map_or(0.0, |times| times.iter().sum::<f64>() / 100.0)
}

/// Runs histories, says how fast, and requires that no promise is broken.
fn measured(seeds: &[(Form, u64)]) -> Batch {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let before = processor_seconds();
    let batch = batch(seeds);
    let seconds = processor_seconds() - before;
    println!(
        "{} histories, {:.1} virtual minutes, {:.0} times real time per core\n{}",
        seeds.len(),
        batch.virtual_seconds / 60.0,
        batch.virtual_seconds / seconds,
        batch.coverage
    );
    assert!(batch.broken.is_empty(), "broken promises: {:?}", batch.broken);
    batch
}

fn full_history(sources: Sources, seed: u64, deeds: Vec<(u64, FullDeed)>) -> Outcome {
    let calm = History::calm(seed);
    let full = Some(FullNode { sources, from_ms: 3_000, light: false });
    let deeds = deeds.into_iter().map(|(at_ms, deed)| Deed { at_ms, what: What::Full(deed) }).collect();
    History { shape: Shape { full, ..calm.shape.clone() }, deeds, ..calm }.run()
}

#[test]
fn a_full_node_beside_a_hostile_history_has_what_the_cluster_committed() {
    let crash = FullDeed::Crash { left: Left::Nothing, down_ms: 1_500 };
    let crash_at = FullDeed::CrashAt { after: 9, left: Left::Torn(2), down_ms: 1_500 };
    for lie in Lie::ALL {
        let sources = Sources { peers: true, da: false };
        let deeds = vec![(2_900, FullDeed::Lie { lie, for_ms: 6_000 }), (6_000, crash.clone())];
        let outcome = full_history(sources, 1, deeds);
        assert_eq!(outcome.broken, None, "{lie:?}");
        assert!(outcome.coverage.count(Situation::FullFromPeers) >= 1, "{lie:?}");
        let quiet = matches!(lie, Lie::Withheld | Lie::Silent);
        let noticed =
            outcome.coverage.count(Situation::FullRefused) + outcome.coverage.count(Situation::FullBanned);
        assert!(quiet || noticed > 0, "{lie:?} was not noticed");
    }
    let sources = Sources { peers: false, da: true };
    let cut = FullDeed::Cut { ways: sources, for_ms: 2_000 };
    let deeds = vec![(2_500, FullDeed::Scribble), (3_100, crash_at), (6_000, cut), (8_500, crash)];
    let outcome = full_history(sources, 2, deeds);
    assert_eq!(outcome.broken, None);
    assert!(outcome.coverage.count(Situation::FullFromDa) >= 2, "{:?}", outcome.coverage);
}

#[test]
fn no_history_of_one_to_seven_voters_or_with_a_witness_breaks_a_promise() {
    let mut seeds = vec![];
    for (form, count) in OTHERS {
        let form: Form = form.parse().expect("a form");
        seeds.extend(listed(&story::listed_as(form)).into_iter().chain(0..count).map(|seed| (form, seed)));
    }
    let batch = measured(&seeds);
    let reached = [Situation::HandedOff, Situation::SnapshotInstalled, Situation::LeaderInMinority];
    for situation in reached {
        assert!(batch.coverage.count(situation) > 0, "no history came to: {situation}");
    }
}

#[test]
fn no_history_breaks_a_promise_and_a_thousand_come_to_every_situation() {
    if std::env::var_os("RUST_LOG").is_some() {
        // Of one seed, for who looks for the reason.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).without_time().with_ansi(false).init();
    }
    let seeds: Vec<u64> = match number("BATON_SEED") {
        Some(seed) => vec![seed],
        None => {
            let first = number("BATON_FIRST_SEED").unwrap_or_default();
            let others = first..first + number("BATON_SEEDS").unwrap_or(USUAL);
            listed(story::HISTORIES).into_iter().chain(others).collect()
        }
    };
    let seeds: Vec<_> = seeds.into_iter().map(|seed| (Form::USUAL, seed)).collect();
    let batch = measured(&seeds);
    if seeds.len() as u64 >= COVERED {
        assert_eq!(batch.coverage.missing(), [], "situations that no history came to");
    }
}
