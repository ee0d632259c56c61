//! One process: started, told something, waited for.

use std::fs::OpenOptions;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::process::Command;
use tokio::time::timeout;

/// The program under test: `BATON_BIN`, or what `cargo test --workspace` built beside the tests.
///
/// # Panics
///
/// When there is none; the message says how to build it.
#[must_use]
pub fn baton() -> PathBuf {
    if let Some(path) = std::env::var_os("BATON_BIN") {
        return PathBuf::from(path);
    }
    let tests = std::env::current_exe().expect("a test knows its own path");
    let directory = tests.parent().and_then(Path::parent).expect("tests lie in target/<profile>/deps");
    let path = directory.join("baton");
    assert!(
        path.exists(),
        "{} is missing: build it as the tests were, `cargo build -p baton --features failpoints` with the same \
         profile, or name another one in BATON_BIN",
        path.display()
    );
    path
}

/// Ports that nobody listens on, in a row from the first one.
///
/// They lie below the range that the system takes ports for outgoing connections from, so nothing
/// takes one by accident while a killed process is away.
///
/// # Panics
///
/// When there are none.
#[must_use]
pub fn free_ports(count: u16) -> u16 {
    let free = |port| TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).is_ok();
    for _ in 0..1_000 {
        let first = 10_000 + rand::random::<u16>() % 20_000;
        if (first..first + count).all(free) {
            return first;
        }
    }
    panic!("there are no {count} free ports in a row");
}

/// A running process. It is killed when this is dropped.
#[derive(Debug)]
pub struct Child {
    child: tokio::process::Child,
    name: String,
}

impl Child {
    /// Starts the program with its output at the end of a log file.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    #[must_use]
    pub fn start(name: &str, args: &[String], env: &[(&str, String)], log: &Path) -> Self {
        Self::of(&baton(), name, args, env, log)
    }

    /// Starts this program, which may be another version, as [`Child::start`] does.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    #[must_use]
    pub fn of(program: &Path, name: &str, args: &[String], env: &[(&str, String)], log: &Path) -> Self {
        let log = OpenOptions::new().append(true).create(true).open(log).expect("the log can be written");
        let child = Command::new(program)
            .args(args)
            .envs(env.iter().map(|(name, value)| (*name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log can be shared"))
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Self { child, name: name.to_owned() }
    }

    /// Its process id.
    ///
    /// # Panics
    ///
    /// When it has ended and was waited for.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap_or_else(|| panic!("{} has ended", self.name))
    }

    /// Sends it a signal; one that has ended hears nothing.
    pub fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Whether it has ended, and how.
    ///
    /// # Panics
    ///
    /// When the system does not say.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits for its end. `None`: it still runs after that time.
    ///
    /// # Panics
    ///
    /// When the system does not say.
    pub async fn ended(&mut self, within: Duration) -> Option<ExitStatus> {
        timeout(within, self.child.wait()).await.ok().map(|status| status.expect("a child can be waited for"))
    }

    /// `kill -9`, and waits until it is gone.
    ///
    /// # Panics
    ///
    /// When it ended in another way before that.
    pub async fn kill(mut self) {
        self.signal(Signal::KILL);
        let status = self.ended(Duration::from_secs(10)).await.expect("nothing survives SIGKILL");
        assert_eq!(status.signal(), Some(9), "{} ended by itself before it was killed: {status}", self.name);
    }

    /// SIGTERM, and waits for its exit code.
    ///
    /// # Panics
    ///
    /// When it does not end by itself.
    pub async fn terminate(mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        let ended = self.ended(Duration::from_secs(30)).await;
        ended.unwrap_or_else(|| panic!("{} does not stop on SIGTERM", self.name)).code()
    }
}
