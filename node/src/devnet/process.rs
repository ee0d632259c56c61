//! Processes of a devnet: started, found, asked to stop, killed.
#![allow(clippy::disallowed_methods, reason = "processes are outside of the simulation")]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::devnet::plan::{Member, loopback};

/// A process that gets the id of its parent in this variable ends when that parent does.
const DIE_WITH: &str = "BATON_DIE_WITH_PARENT";

/// How much of the end of a log is looked at.
const TAIL_BYTES: u64 = 16 * 1024;

/// How long one connection on the loopback address may take.
const CONNECT_WITHIN: Duration = Duration::from_millis(300);

/// Starts a member. Its output goes to the end of its log file.
///
/// It gets a process group of its own, so that Ctrl-C reaches the devnet alone, which then stops
/// everything in order. It still ends with the devnet: the kernel tells it (see `die_with_parent`).
pub fn start(executable: &Path, member: &Member) -> io::Result<Child> {
    fs::create_dir_all(&member.home)?;
    let log = OpenOptions::new().append(true).create(true).mode(0o600).open(&member.log)?;
    Command::new(executable)
        .args(&member.args)
        .env(DIE_WITH, std::process::id().to_string())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// Ends this process when the devnet that started it is gone. Does nothing for a process that was
/// started otherwise, so a node restarted by hand does not depend on the devnet.
///
/// Called first thing in `main`, on the main thread, before there are others. The kernel sends SIGTERM, a clean stop. Where it
/// refuses, the process goes on; `docs/devnet.md` says what to do then.
pub fn die_with_parent() {
    let Some(parent) = std::env::var(DIE_WITH).ok().and_then(|parent| parent.parse::<i32>().ok()) else {
        return;
    };
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::TERM)) {
        eprintln!("this process will not end with its devnet: {error}");
    }
    // The parent may have ended before the request; then nobody will send the signal.
    let current = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    if current != Some(parent) {
        std::process::exit(0);
    }
}

/// Reports whether every port of a member that should answer accepts connections.
pub async fn listens(member: &Member) -> bool {
    for port in member.ports.served() {
        let connected = timeout(CONNECT_WITHIN, TcpStream::connect(loopback(port))).await;
        if !matches!(connected, Ok(Ok(_))) {
            return false;
        }
    }
    true
}

/// Returns the process that was started with a member's command line, other than `child`.
///
/// The command line is what identifies it: a port alone could belong to anything.
pub fn find(executable: &Path, member: &Member, child: Option<u32>) -> Option<u32> {
    let entries = fs::read_dir("/proc").ok()?;
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| Some(*pid) != child).find(|pid| is_member(*pid, executable, member))
}

/// Reports whether a process runs this executable with a member's arguments. A process that has
/// ended but was not collected yet has no command line and does not count.
pub fn is_member(pid: u32, executable: &Path, member: &Member) -> bool {
    let Ok(bytes) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let same_program = || {
        let running = fs::read_link(format!("/proc/{pid}/exe"));
        // The kernel marks a program that was rebuilt since; it is still the same member.
        running.is_ok_and(|path| {
            let path = path.to_string_lossy();
            Path::new(path.strip_suffix(" (deleted)").unwrap_or(&path)) == executable
        })
    };
    same_args(&bytes, &member.args) && same_program()
}

/// Compares `/proc/<pid>/cmdline` (words that each end in NUL, the program first) with arguments.
fn same_args(cmdline: &[u8], args: &[String]) -> bool {
    let Some(words) = cmdline.strip_suffix(b"\0") else { return false };
    words.split(|byte| *byte == 0).skip(1).eq(args.iter().map(String::as_bytes))
}

/// Sends a signal. A process that is gone already is no error.
pub fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        let _gone = rustix::process::kill_process(pid, signal);
    }
}

/// Returns the last lines of a log; none when it cannot be read.
pub fn tail(log: &Path, lines: usize) -> Vec<String> {
    let text = read_end(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].iter().map(|line| (*line).to_owned()).collect()
}

fn read_end(log: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_the_last_lines_and_never_the_whole_log() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let text: String = (0..10_000).map(|number| format!("line {number}\n")).collect();
        fs::write(&log, text).unwrap();
        assert_eq!(tail(&log, 2), ["line 9998", "line 9999"]);
        assert!(tail(&log, usize::MAX).len() < 10_000);
        assert!(tail(&dir.path().join("none"), 2).is_empty());
    }

    #[test]
    fn only_the_very_same_arguments_are_the_member() {
        let args = ["start".to_owned(), "--home".to_owned(), "/a b".to_owned()];
        assert!(same_args(b"/bin/baton\0start\0--home\0/a b\0", &args));
        assert!(!same_args(b"/bin/baton\0start\0--home\0/a b\0--more\0", &args));
        assert!(!same_args(b"/bin/baton\0start\0--home\0", &args));
        assert!(!same_args(b"", &args));
    }
}
