//! What a process takes from the machine.

use std::fs;

/// Memory, files and threads of a process, as the kernel counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Resident memory in bytes.
    pub memory: u64,
    /// Open files, sockets among them.
    pub files: usize,
    /// Threads.
    pub threads: u64,
}

impl Footprint {
    /// What a process takes now.
    ///
    /// # Panics
    ///
    /// When the process is gone.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
        let field = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel says it");
            let number = line.trim_start_matches(':').split_whitespace().next();
            number.and_then(|number| number.parse().ok()).expect("a number")
        };
        let files = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process runs").count();
        Self { memory: field("VmRSS") * 1024, files, threads: field("Threads") }
    }
}
