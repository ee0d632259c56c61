//! A real `baton devnet`, as another program uses it: lines of JSON.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use super::child::baton;

/// How long a devnet may print nothing.
const PATIENCE: Duration = Duration::from_secs(60);

/// A devnet and what it prints.
#[derive(Debug)]
pub struct Devnet {
    /// The process.
    pub child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Devnet {
    /// Starts it with a block time of 50 ms.
    ///
    /// # Panics
    ///
    /// When something does not work; that is true of all functions here.
    #[must_use]
    pub fn start(home: &Path, port: u16, more: &[&str]) -> Self {
        let mut child = Command::new(baton())
            .args(["devnet", "--json", "--block-time", "50ms", "--base-port", &port.to_string(), "--home"])
            .arg(home)
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program can be started");
        let stdout = child.stdout.take().expect("it is a pipe");
        Self { child, lines: BufReader::new(stdout).lines() }
    }

    /// The next line; `None` at the end.
    pub async fn next(&mut self) -> Option<Value> {
        let line = timeout(PATIENCE, self.lines.next_line()).await.expect("it prints something in a minute");
        line.expect("the pipe works").map(|line| serde_json::from_str(&line).expect("every line is JSON"))
    }

    /// The next process that listens; events before it are passed over.
    pub async fn listening(&mut self) -> Value {
        loop {
            let line = self.next().await.expect("a process listens before the end");
            if line.get("event").is_none() {
                return line;
            }
        }
    }

    /// The next event of this kind; other lines are passed over.
    pub async fn event(&mut self, event: &str) -> Value {
        loop {
            let line = self.next().await.unwrap_or_else(|| panic!("no event {event} before the end"));
            if line["event"] == event {
                return line;
            }
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = self.child.id().expect("it runs");
        kill_process(pid_of(u64::from(pid)), signal).expect("it is ours");
    }

    /// The rest of the lines, and how it ended.
    pub async fn end(mut self) -> (Vec<Value>, ExitStatus) {
        let mut rest = vec![];
        while let Some(line) = self.next().await {
            rest.push(line);
        }
        let status = timeout(PATIENCE, self.child.wait()).await.expect("it ends").expect("it was a child");
        (rest, status)
    }
}

fn pid_of(pid: u64) -> Pid {
    i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id")
}

/// The process in a line.
///
/// # Panics
///
/// When it names none.
#[must_use]
pub fn pid(line: &Value) -> Pid {
    pid_of(line["pid"].as_u64().expect("the line names a process"))
}
