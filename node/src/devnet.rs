//! `baton devnet`: a DA server and nodes as child processes, for trying things out and for tests.
//!
//! It only starts processes, looks at them and says what it sees. A process that ends is reported
//! with the command that starts it again; everything else goes on. What it prints is described in
//! `docs/devnet.md`.
#![allow(clippy::disallowed_methods, reason = "a tool around processes, outside of the simulation")]

pub mod home;
pub mod member_state;
pub mod plan;
pub mod printer;
pub mod probe;
pub mod process;
pub mod report;
pub mod table;

use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args as ClapArgs;
use rustix::process::Signal;
use tokio::process::Child;
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tracing::warn;

use crate::devnet::member_state::{Change, Seen, State};
use crate::devnet::plan::{Member, Role, Wish, loopback};
use crate::devnet::printer::Printer;
use crate::devnet::probe::{NodeView, Probe};
use crate::devnet::report::{Detail, Event, Listening};
use crate::devnet::table::Row;

pub use crate::devnet::process::die_with_parent;

/// How often every process is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How long a process has to stop before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// How many lines of a log are shown when its process ends.
const TAIL_LINES: usize = 10;

/// Starts a chain to try things out: a dev DA server and a node, as child processes.
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    /// How many nodes to start (one, until clusters are supported).
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub nodes: u16,

    /// Where everything is kept; the same directory resumes the chain [default: ~/.baton-devnet].
    #[arg(long, value_name = "DIR")]
    pub home: Option<PathBuf>,

    /// The port of the DA server; node 1 has the four from this one plus 10.
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
    #[error("--nodes {0}: a devnet has exactly one node for now; use --nodes 1")]
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

/// Runs a devnet until it is told to stop. Everything has stopped when this returns.
pub async fn run(args: Args) -> Result<(), Error> {
    let mut stop =
        StopSignals::new().map_err(|source| Error::System { what: "cannot listen for signals", source })?;
    let deadline = args.run_for.map(|run_for| Instant::now() + run_for);
    let mut devnet = Devnet::prepare(&args)?;
    let outcome = devnet.run(&mut stop, deadline).await;
    let reason = match &outcome {
        Ok(reason) => reason,
        Err(_) => "a process did not start",
    };
    devnet.stop(reason, &mut stop).await;
    outcome?;
    Ok(())
}

/// The signals that stop a devnet.
struct StopSignals {
    interrupt: SignalStream,
    terminate: SignalStream,
    hangup: SignalStream,
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

/// One process and what is known about it.
struct Running {
    member: Member,
    state: State,
    child: Option<Child>,
    /// What it said last, if it answered.
    view: Option<NodeView>,
    /// The role and term that were told.
    role: Option<(String, Option<u64>)>,
    /// The height it had when it listened.
    first_height: Option<u64>,
    /// It was told that it makes blocks.
    moved: bool,
}

impl Running {
    fn new(member: Member, child: Child, pid: u32) -> Self {
        let state = State::Starting(pid);
        Self { member, state, child: Some(child), view: None, role: None, first_height: None, moved: false }
    }

    /// What was told of an earlier process says nothing about the next one.
    fn forget(&mut self) {
        (self.view, self.role, self.first_height, self.moved) = (None, None, None, false);
    }
}

struct Devnet {
    executable: PathBuf,
    /// Not started yet, the next one last.
    waiting: Vec<Member>,
    running: Vec<Running>,
    printer: Printer,
    probe: Probe,
}

impl Devnet {
    /// Checks everything that can be checked, and only then makes the homes.
    fn prepare(args: &Args) -> Result<Self, Error> {
        let mut waiting = plan::members(&wish(args)?)?;
        check_ports(&waiting)?;
        let executable = std::env::current_exe()
            .map_err(|source| Error::System { what: "cannot find this program", source })?;
        waiting.reverse();
        let printer = Printer::new(args.json);
        let probe = Probe::new().map_err(Error::Client)?;
        Ok(Self { executable, waiting, running: vec![], printer, probe })
    }

    /// Starts everything and watches it. Returns why it should stop.
    async fn run(
        &mut self,
        stop: &mut StopSignals,
        deadline: Option<Instant>,
    ) -> Result<&'static str, Error> {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                reason = stop.next() => return Ok(reason),
                () = at(deadline) => return Ok("the time is over"),
                done = self.step(&mut look) => done?,
            }
            if self.printer.is_closed() {
                return Ok("nobody reads what it prints");
            }
        }
    }

    /// One look at every process. Nothing is lost when it is dropped half way.
    async fn step(&mut self, look: &mut tokio::time::Interval) -> Result<(), Error> {
        look.tick().await;
        self.start_next().await?;
        for index in 0..self.running.len() {
            let seen = self.look_at(index).await;
            if let Some(change) = self.running[index].state.see(seen) {
                self.report(index, change)?;
            }
            self.look_into(index).await;
        }
        self.printer.table(|| self.running.iter().map(row).collect());
        Ok(())
    }

    /// Starts one more member once those before it listen: a node wants its DA server.
    async fn start_next(&mut self) -> Result<(), Error> {
        if self.running.iter().any(|running| matches!(running.state, State::Starting(_))) {
            return Ok(());
        }
        let Some(member) = self.waiting.last() else {
            self.printer.release();
            return Ok(());
        };
        if member.role == Role::Node && home::make(&self.executable, member).await? {
            let detail = Detail::Initialised { home: member.home.display().to_string() };
            self.printer.event("initialised", &member.name, detail);
        }
        let child = process::start(&self.executable, member).map_err(|source| Error::Start {
            name: member.name.clone(),
            executable: self.executable.display().to_string(),
            source,
        })?;
        let pid = child.id().expect("a child has an id until it was waited for");
        let detail = Detail::Process { pid, log: member.log.display().to_string() };
        self.printer.event("started", &member.name, detail);
        let member = self.waiting.pop().expect("the next member is still there");
        self.running.push(Running::new(member, child, pid));
        Ok(())
    }

    async fn look_at(&mut self, index: usize) -> Seen {
        let Running { member, state, child, .. } = &mut self.running[index];
        let ended = child.as_mut().and_then(|child| child.try_wait().ok().flatten());
        if ended.is_some() {
            *child = None;
        }
        let stranger = match state {
            State::Down => process::find(&self.executable, member, None),
            State::Adopted(pid) if process::is_member(*pid, &self.executable, member) => Some(*pid),
            State::Adopted(_) => process::find(&self.executable, member, None),
            State::Starting(_) | State::Up(_) => None,
        };
        let asked = ended.is_none() && (stranger.is_some() || *state != State::Down);
        let listening = asked && process::listens(member).await;
        Seen { ended: ended.map(Into::into), listening, stranger }
    }

    fn report(&mut self, index: usize, change: Change) -> Result<(), Error> {
        let running = &mut self.running[index];
        running.forget();
        let member = &running.member;
        match change {
            Change::Listens { pid, again } => {
                self.printer.listening(&Listening::of(member, pid));
                if again {
                    let detail = Detail::Process { pid, log: member.log.display().to_string() };
                    self.printer.event("restarted", &member.name, detail);
                }
                Ok(())
            }
            Change::Ended { pid, ending } => {
                let tail = process::tail(&member.log, TAIL_LINES);
                let event = Event::ended(printer::now(), member, &self.executable, pid, ending, tail);
                self.printer.print(&event);
                Ok(())
            }
            Change::NeverListened { pid, ending } => {
                let tail = process::tail(&member.log, TAIL_LINES);
                let event = Event::ended(printer::now(), member, &self.executable, pid, ending, tail);
                let log = member.log.display().to_string();
                let error = Error::NeverListened { name: member.name.clone(), log, code: ending.code };
                self.printer.release();
                self.printer.print(&event);
                Err(error)
            }
        }
    }

    /// Asks a node how it is and tells what changed.
    async fn look_into(&mut self, index: usize) {
        let running = &mut self.running[index];
        let answers = matches!(running.state, State::Up(_) | State::Adopted(_));
        if !answers || running.member.role != Role::Node {
            return;
        }
        let view = self.probe.ask(&running.member).await;
        if let Some(now) = &view {
            let name = &running.member.name;
            let role = (now.role.clone(), now.term);
            if running.role.as_ref() != Some(&role) {
                let detail = Detail::Role { role: now.role.clone(), term: now.term };
                self.printer.event("role", name, detail);
                running.role = Some(role);
            }
            if let (Some(height), first) = (now.height, running.first_height)
                && !running.moved
            {
                running.first_height = first.or(Some(height));
                if first.is_some_and(|first| height > first) {
                    running.moved = true;
                    self.printer.event("producing", name, Detail::Block { height });
                }
            }
        }
        running.view = view;
    }

    /// Stops every process, nodes before the DA server. A second signal kills what is left.
    async fn stop(&mut self, reason: &'static str, signals: &mut StopSignals) {
        self.printer.release();
        self.printer.event("stopping", "devnet", Detail::Stop { reason });
        while let Some(running) = self.running.pop() {
            stop_one(&self.executable, running, signals).await;
        }
        self.printer.event("stopped", "devnet", Detail::Stop { reason });
    }
}

async fn stop_one(executable: &Path, running: Running, signals: &mut StopSignals) {
    let Running { member, state, child, .. } = running;
    let Some(pid) = state.pid() else { return };
    let gone = async {
        match child {
            Some(mut child) => drop(child.wait().await),
            None => adopted_gone(executable, &member, pid).await,
        }
    };
    // A process started by hand is stopped only while it is surely still that one.
    let ours = matches!(state, State::Starting(_) | State::Up(_));
    if !ours && !process::is_member(pid, executable, &member) {
        return;
    }
    process::signal(pid, Signal::TERM);
    tokio::pin!(gone);
    tokio::select! {
        biased;
        () = &mut gone => return,
        () = sleep(STOP_WITHIN) => warn!(name = member.name, pid, "did not stop in time, is killed"),
        _ = signals.next() => warn!(name = member.name, pid, "is killed: told to stop a second time"),
    }
    process::signal(pid, Signal::KILL);
    gone.await;
}

async fn adopted_gone(executable: &Path, member: &Member, pid: u32) {
    while process::is_member(pid, executable, member) {
        sleep(Duration::from_millis(50)).await;
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn wish(args: &Args) -> Result<Wish, Error> {
    if args.nodes != 1 {
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

fn row(running: &Running) -> Row {
    let (name, pid) = (&running.member.name, running.state.pid());
    match (running.member.role, running.state) {
        (Role::Node, State::Up(_) | State::Adopted(_)) => Row::of_node(name, pid, running.view.as_ref()),
        (_, State::Starting(_)) => Row::of_other(name, pid, "starting"),
        (_, State::Down) => Row::of_other(name, pid, "down"),
        (Role::Da, State::Up(_) | State::Adopted(_)) => Row::of_other(name, pid, "da"),
    }
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
    fn more_than_one_node_is_refused_before_anything_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("net");
        for nodes in ["0", "3"] {
            let args = parse(&["--nodes", nodes, "--home", home.to_str().unwrap()]);
            assert!(matches!(Devnet::prepare(&args), Err(Error::Nodes(_))));
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
    fn a_relative_home_is_made_absolute() {
        let wish = wish(&parse(&["--home", "net"])).unwrap();
        assert!(wish.home.is_absolute());
    }
}
