//! Where the benchmarks put their files.

use std::path::PathBuf;

use tempfile::TempDir;

/// A fresh directory on the disk that is measured; it is gone when dropped.
///
/// Not in the system's temporary directory: that is often in memory, where an fsync costs nothing.
/// `BATON_BENCH_DIR` names the disk; without it, it is the disk of the benchmark's executable.
///
/// # Panics
///
/// When there is no such directory or it cannot be written.
#[must_use]
pub fn directory() -> TempDir {
    let parent = std::env::var_os("BATON_BENCH_DIR").map_or_else(beside_the_executable, PathBuf::from);
    let made = tempfile::Builder::new().prefix("baton-bench-").tempdir_in(&parent);
    made.unwrap_or_else(|error| panic!("no directory in {}: {error}", parent.display()))
}

fn beside_the_executable() -> PathBuf {
    let mut path = std::env::current_exe().expect("the operating system knows what it runs");
    path.pop();
    path
}
