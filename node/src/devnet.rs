//! `baton devnet`: a DA server and nodes as child processes, for trying things out and for tests.
//!
//! It only starts processes, looks at them and says what it sees. A process that ends is reported
//! with the command that starts it again; everything else goes on. What it prints is described in
//! `docs/devnet.md`.
#![allow(clippy::disallowed_methods, reason = "a tool around processes, outside of the simulation")]

mod fleet;
pub mod home;
pub mod member_state;
pub mod plan;
pub mod printer;
pub mod probe;
pub mod process;
pub mod report;
pub mod sample;
pub mod succession;
pub mod table;

use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::devnet::fleet::Fleet;
use crate::devnet::plan::{Member, Wish, loopback};
use crate::devnet::printer::Printer;
use crate::devnet::probe::Probe;
use crate::exit::{ExitCode, ExitError};

pub use crate::devnet::process::die_with_parent;

/// Starts a chain to try things out: a dev DA server and nodes, as child processes.
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    /// How many nodes to start, from 1 to 7: one voter each of one cluster.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub nodes: u16,

    /// Encrypt what the nodes say to each other, with certificates of an authority of its own.
    #[arg(long)]
    pub tls: bool,

    /// Where everything is kept; the same directory resumes the chain [default: ~/.baton-devnet].
    #[arg(long, value_name = "DIR")]
    pub home: Option<PathBuf>,

    /// The port of the DA server; node 1 has the four from this one plus 10, node 2 plus 20, and so on.
    #[arg(long, value_name = "P", default_value_t = 27000)]
    pub base_port: u16,

    /// The time between two blocks of the chain.
    #[arg(long, value_name = "D", default_value = "100ms", value_parser = humantime::parse_duration)]
    pub block_time: Duration,

    /// The time between two blocks of the DA server.
    #[arg(long, value_name = "D", default_value = "1s", value_parser = humantime::parse_duration)]
    pub da_block_time: Duration,

    /// Stop after this time instead of running until Ctrl-C.
    #[arg(long = "for", value_name = "D", value_parser = humantime::parse_duration)]
    pub run_for: Option<Duration>,

    /// Post one transaction when all listen, and show where it went.
    #[arg(long)]
    pub sample: bool,

    /// Write JSON to stdout, one object per line.
    #[arg(long)]
    pub json: bool,

    /// Flags for every node, after `--`.
    #[arg(last = true, value_name = "NODE FLAGS")]
    pub node_flags: Vec<String>,
}

/// Why there is no devnet.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A number of nodes that is not supported.
    #[error("--nodes {0}: a devnet has from 1 to 7 nodes")]
    Nodes(u16),
    /// A block time of nothing.
    #[error("{0} must be longer than zero")]
    NoTime(&'static str),
    /// The ports do not fit.
    #[error(transparent)]
    NoRoom(#[from] plan::NoRoom),
    /// Somebody has a port.
    #[error("port {port} ({what} of {name}) is taken: {source}; free it or choose another --base-port")]
    PortTaken {
        /// The port.
        port: u16,
        /// What it is for.
        what: &'static str,
        /// Whose it is.
        name: String,
        /// What the system says.
        source: io::Error,
    },
    /// No home directory.
    #[error("there is no HOME to keep the devnet in; say --home DIR")]
    NoHome,
    /// A node could not be initialised.
    #[error(transparent)]
    Init(#[from] home::Error),
    /// A process could not be started.
    #[error("cannot start {name} ({executable}): {source}")]
    Start {
        /// The member.
        name: String,
        /// The program.
        executable: String,
        /// What the system says.
        source: io::Error,
    },
    /// A process ended before it listened, at the start of the devnet.
    #[error("{name} did not start: its log is {log}")]
    NeverListened {
        /// The member.
        name: String,
        /// Its log.
        log: String,
        /// Its exit code.
        code: Option<i32>,
    },
    /// No HTTP client.
    #[error("cannot make an HTTP client: {0}")]
    Client(reqwest::Error),
    /// Something of the system does not work.
    #[error("{what}: {source}")]
    System {
        /// What was attempted.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

impl From<Error> for ExitError {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Nodes(_) | Error::NoTime(_) | Error::NoRoom(_) | Error::NoHome => ExitCode::Usage,
            Error::PortTaken { .. } => ExitCode::RetryLater,
            Error::NeverListened { code, .. } => code_of_child(*code),
            Error::Init(_) | Error::Start { .. } | Error::Client(_) | Error::System { .. } => ExitCode::Other,
        };
        Self::new(code, error)
    }
}

/// A child that says what its end means says it for the devnet, too.
fn code_of_child(code: Option<i32>) -> ExitCode {
    let codes = [ExitCode::Usage, ExitCode::Integrity, ExitCode::RetryLater, ExitCode::Config];
    codes.into_iter().find(|known| code == Some(*known as i32)).unwrap_or(ExitCode::Other)
}

/// Runs a devnet until it is told to stop. Everything has stopped when this returns.
pub async fn run(args: Args) -> Result<(), ExitError> {
    let mut stop =
        StopSignals::new().map_err(|source| Error::System { what: "cannot listen for signals", source })?;
    let deadline = args.run_for.map(|run_for| Instant::now() + run_for);
    let mut fleet = prepare(&args)?;
    let outcome = fleet.run(&mut stop, deadline).await;
    let reason = match &outcome {
        Ok(reason) => reason,
        Err(_) => "a process did not start",
    };
    fleet.stop(reason, &mut stop).await;
    outcome?;
    Ok(())
}

/// Checks everything that can be checked before anything is made or started.
fn prepare(args: &Args) -> Result<Fleet, Error> {
    let members = plan::members(&wish(args)?)?;
    check_ports(&members)?;
    let executable = std::env::current_exe()
        .map_err(|source| Error::System { what: "cannot find this program", source })?;
    let probe = Probe::new().map_err(Error::Client)?;
    Ok(Fleet::new(executable, members, Printer::new(args.json), probe, args.sample))
}

/// The signals that stop a devnet.
struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl StopSignals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => "interrupted",
            _ = self.terminate.recv() => "told to terminate",
            _ = self.hangup.recv() => "the terminal is gone",
        }
    }
}

fn wish(args: &Args) -> Result<Wish, Error> {
    if !(1..=7).contains(&args.nodes) {
        return Err(Error::Nodes(args.nodes));
    }
    for (what, time) in [("--block-time", args.block_time), ("--da-block-time", args.da_block_time)] {
        if time.is_zero() {
            return Err(Error::NoTime(what));
        }
    }
    let home = match &args.home {
        Some(home) => home.clone(),
        None => std::env::home_dir().ok_or(Error::NoHome)?.join(".baton-devnet"),
    };
    // A printed command must work in any directory.
    let home = std::path::absolute(&home)
        .map_err(|source| Error::System { what: "cannot find the current directory", source })?;
    Ok(Wish {
        nodes: args.nodes,
        home,
        base_port: args.base_port,
        block_time: args.block_time,
        da_block_time: args.da_block_time,
        tls: args.tls,
        node_flags: args.node_flags.clone(),
    })
}

/// Binds every port once, so that a taken one is named before anything starts.
fn check_ports(members: &[Member]) -> Result<(), Error> {
    for member in members {
        for (what, port) in member.ports.all() {
            let taken = |source| Error::PortTaken { port, what, name: member.name.clone(), source };
            TcpListener::bind(loopback(port)).map_err(taken)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn parse(words: &[&str]) -> Args {
        Cli::try_parse_from(std::iter::once(&"devnet").chain(words)).unwrap().args
    }

    #[test]
    fn no_node_and_more_than_seven_are_refused_before_anything_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("net");
        for nodes in ["0", "8"] {
            let args = parse(&["--nodes", nodes, "--home", home.to_str().unwrap()]);
            assert!(matches!(prepare(&args), Err(Error::Nodes(_))));
        }
        assert!(!home.exists());
    }

    #[test]
    fn what_follows_the_dashes_goes_to_the_node() {
        let args = parse(&["--for", "90s", "--", "--evnode.log.level", "debug"]);
        assert_eq!(args.run_for, Some(Duration::from_secs(90)));
        assert_eq!(args.node_flags, ["--evnode.log.level", "debug"]);
    }

    #[test]
    fn a_taken_port_is_named_with_what_it_is_for() {
        let holder = TcpListener::bind(loopback(0)).unwrap();
        let port = holder.local_addr().unwrap().port();
        let wish = Wish { base_port: port, ..wish(&parse(&[])).unwrap() };
        let error = check_ports(&plan::members(&wish).unwrap()[..1]).unwrap_err().to_string();
        assert!(error.contains(&format!("port {port} (rpc of da) is taken")), "{error}");
    }

    #[test]
    fn the_end_of_a_child_is_the_end_of_the_devnet() {
        let ended = |code| Error::NeverListened { name: "node1".to_owned(), log: "/l".to_owned(), code };
        assert_eq!(ExitError::from(ended(Some(78))).code, ExitCode::Config);
        assert_eq!(ExitError::from(ended(Some(70))).code, ExitCode::Integrity);
        assert_eq!(ExitError::from(ended(Some(101))).code, ExitCode::Other);
        assert_eq!(ExitError::from(ended(None)).code, ExitCode::Other);
        assert_eq!(ExitError::from(Error::Nodes(8)).code, ExitCode::Usage);
    }

    #[test]
    fn a_relative_home_is_made_absolute() {
        let wish = wish(&parse(&["--home", "net"])).unwrap();
        assert!(wish.home.is_absolute());
    }
}
