//! Hostile histories of a cluster, many of them, each from its seed.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use sim::history::{Coverage, EventKind, History, Outcome};
use sim::listed;

/// As in the program `sim`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Histories that run when nobody says how many.
const USUAL: u64 = 1_000;
/// A batch that is smaller need not come to every situation.
const COVERED: u64 = 1_000;

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
    broken: Vec<(u64, String)>,
}

/// Runs histories on two threads; `after` looks at each.
fn batch(seeds: &[u64]) -> Batch {
    let (next, all) = (AtomicU64::new(0), Mutex::new(Batch::default()));
    #[allow(clippy::disallowed_methods)] // Each history has a thread of its own; these wait for them.
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let outcome = History::of(*seed).run();
                    add(&mut all.lock().expect("nobody panics with it"), *seed, &outcome);
                }
            });
        }
    });
    all.into_inner().expect("nobody panicked with it")
}

fn add(batch: &mut Batch, seed: u64, outcome: &Outcome) {
    batch.coverage.merge(&outcome.coverage);
    batch.virtual_seconds += outcome.virtual_time.as_secs_f64();
    if let Some(broken) = &outcome.broken {
        eprintln!("seed {seed} at {} ms: {}: {}", broken.at_ms, broken.promise, broken.text);
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
        batch.broken.push((seed, broken.promise.clone()));
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
            listed("no_history_breaks_a_promise").into_iter().chain(others).collect()
        }
    };
    let before = processor_seconds();
    let batch = batch(&seeds);
    let seconds = processor_seconds() - before;
    println!(
        "{} histories, {:.1} virtual minutes, {:.0} times real time per core\n{}",
        seeds.len(),
        batch.virtual_seconds / 60.0,
        batch.virtual_seconds / seconds,
        batch.coverage
    );
    assert!(batch.broken.is_empty(), "broken promises: {:?}", batch.broken);
    if seeds.len() as u64 >= COVERED {
        assert_eq!(batch.coverage.missing(), [], "situations that no history came to");
    }
}
