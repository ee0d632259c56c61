//! How a test says that it cannot run here.

use std::fs::OpenOptions;
use std::io::Write;

/// Says that a check does not run because this machine lacks a capability: `root`,
/// `network-namespaces`, `mount` or `go`. The caller returns after it.
///
/// The line goes to the file that `BATON_SKIPS` names, because the output of a test that passes is
/// hidden; `make test` reads it, and fails when `tests/allowed-skips.txt` does not allow it.
///
/// # Panics
///
/// When the line cannot be written: a skip that nobody hears of would look like a pass.
pub fn skip(check: &str, capability: &str, reason: &str) {
    let line = format!("BATON-SKIP {check} {capability} {reason}\n");
    eprint!("{line}");
    let Some(path) = std::env::var_os("BATON_SKIPS") else { return };
    let file = OpenOptions::new().append(true).create(true).open(&path);
    // One write, so that lines of tests that run at the same time do not mix.
    let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
    written.unwrap_or_else(|error| panic!("cannot write a skip to {}: {error}", path.display()));
}
