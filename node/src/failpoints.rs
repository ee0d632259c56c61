//! Places where a test ends the process or makes a call fail. Release builds have none.

#[cfg(all(feature = "failpoints", not(debug_assertions)))]
compile_error!("the feature `failpoints` is for tests: release builds refuse it");

/// Arms what the environment asks for: `FAILPOINTS` as the `fail` crate has it, and
/// `BATON_KILL_AT=name:count`, which ends the process like `kill -9` when the place is passed
/// for the count-th time, and `BATON_HANG_AT=name:path`, where the place hangs while there is a
/// file of that path.
#[cfg(feature = "failpoints")]
pub fn arm() {
    use std::sync::atomic::{AtomicU64, Ordering};

    // The scenario lives as long as the process: leaking it is meant.
    std::mem::forget(fail::FailScenario::setup());
    if let Ok(hang) = std::env::var("BATON_HANG_AT") {
        let (name, path) = hang.split_once(':').expect("BATON_HANG_AT is name:path");
        let path = std::path::PathBuf::from(path);
        let hang = move || {
            while path.exists() {
                // A disk that hangs blocks the thread, whichever it is.
                #[allow(clippy::disallowed_methods)]
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        };
        fail::cfg_callback(name, hang).expect("the place can be armed");
    }
    let Ok(kill) = std::env::var("BATON_KILL_AT") else { return };
    let (name, count) = kill.split_once(':').expect("BATON_KILL_AT is name:count");
    let count: u64 = count.parse().expect("BATON_KILL_AT is name:count");
    let passed = AtomicU64::new(0);
    let at = name.to_owned();
    let end = move || {
        if passed.fetch_add(1, Ordering::SeqCst) + 1 == count {
            eprintln!("BATON_KILL_AT: {at} was passed for the {count}th time");
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    };
    fail::cfg_callback(name, end).expect("the place can be armed");
}

/// There is nothing to arm.
#[cfg(not(feature = "failpoints"))]
pub const fn arm() {}

/// A place of this crate where the process may be made to end.
#[cfg(feature = "failpoints")]
pub fn pass(name: &str) {
    fail::fail_point!(name);
}

/// A place of this crate where nothing happens.
#[cfg(not(feature = "failpoints"))]
pub const fn pass(_: &str) {}

/// How far a test wants the wall clock to be off, nanoseconds.
#[cfg(feature = "failpoints")]
#[must_use]
pub fn clock_offset() -> i64 {
    let milliseconds = std::env::var("BATON_CLOCK_OFFSET_MS").ok();
    milliseconds.map_or(0, |text| text.parse::<i64>().expect("BATON_CLOCK_OFFSET_MS is a number") * 1_000_000)
}

/// The wall clock is as the system has it.
#[cfg(not(feature = "failpoints"))]
#[must_use]
pub const fn clock_offset() -> i64 {
    0
}
