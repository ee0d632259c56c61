//! The processes of a running devnet: started in order, looked at, stopped.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use tokio::process::Child;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tracing::warn;

use crate::devnet::member_state::{Change, Seen, State};
use crate::devnet::plan::{Member, Role};
use crate::devnet::printer::{self, Printer};
use crate::devnet::probe::{NodeView, Probe};
use crate::devnet::report::{Detail, Event, Listening};
use crate::devnet::succession::{Succession, TakenOver, longest};
use crate::devnet::table::{self, Row};
use crate::devnet::{Error, StopSignals, home, process, sample};

/// How many lines of a log are shown when its process ends.
const TAIL_LINES: usize = 10;

/// How long a process has to stop before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// How often every process is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Most blocks around a change of leadership whose times are looked up.
const LOOKED_UP: u64 = 64;
/// No longer than this, whoever answers slowly.
const LOOK_UP_WITHIN: Duration = Duration::from_secs(2);

/// One process and what is known about it.
struct Running {
    member: Member,
    state: State,
    child: Option<Child>,
    /// What it said last, if it answered.
    view: Option<NodeView>,
    /// The role and term that were told.
    role: Option<(String, Option<u64>)>,
    /// Whether it was told to be ready.
    ready: Option<bool>,
    /// The height it had when it listened.
    first_height: Option<u64>,
    /// It was told that it makes blocks.
    moved: bool,
    /// Milliseconds between two blocks when it took over last.
    failover: Option<u64>,
}

impl Running {
    fn new(member: Member, child: Child, pid: u32) -> Self {
        let state = State::Starting(pid);
        Self {
            member,
            state,
            child: Some(child),
            view: None,
            role: None,
            ready: None,
            first_height: None,
            moved: false,
            failover: None,
        }
    }

    fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_) | State::Adopted(_))
    }

    /// What was told of an earlier process says nothing about the next one.
    fn forget(&mut self) {
        (self.view, self.role, self.ready) = (None, None, None);
        (self.first_height, self.moved) = (None, false);
    }
}

/// All processes of a devnet.
pub(super) struct Fleet {
    executable: PathBuf,
    /// Not started yet, the next one last.
    waiting: Vec<Member>,
    running: Vec<Running>,
    printer: Printer,
    probe: Probe,
    sample: Sample,
    succession: Succession,
}

/// Whether a sample transaction is wanted, on its way, or done with.
enum Sample {
    Wanted,
    OnItsWay(JoinHandle<Result<Detail, sample::Error>>),
    Done,
}

impl Fleet {
    /// Takes what is to be started, in that order. Nothing is started yet.
    pub(super) fn new(
        executable: PathBuf,
        mut members: Vec<Member>,
        printer: Printer,
        probe: Probe,
        sample: bool,
    ) -> Self {
        members.reverse();
        let sample = if sample { Sample::Wanted } else { Sample::Done };
        let succession = Succession::default();
        Self { executable, waiting: members, running: vec![], printer, probe, sample, succession }
    }

    /// Starts everything and watches it. Returns why it should stop.
    pub(super) async fn run(
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
        self.sample().await;
        self.printer.table(|| {
            let mut rows: Vec<_> = self.running.iter().map(row).collect();
            table::compare(&mut rows);
            rows
        });
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
        home::certify(&self.executable, member).await?;
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

    /// Posts the sample once everything listens, and tells what became of it.
    async fn sample(&mut self) {
        match &mut self.sample {
            Sample::Wanted if self.waiting.is_empty() => {
                let up = |running: &&Running| running.member.role == Role::Node && running.is_up();
                if let Some(node) = self.running.iter().find(up) {
                    self.sample = Sample::OnItsWay(tokio::spawn(sample::follow(node.member.clone())));
                }
            }
            Sample::OnItsWay(task) if task.is_finished() => {
                let outcome = task.await;
                self.sample = Sample::Done;
                let failed = |error: String| ("sample_failed", Detail::SampleFailed { error });
                let (event, detail) = match outcome {
                    Ok(Ok(detail)) => ("sample", detail),
                    Ok(Err(error)) => failed(error.to_string()),
                    Err(error) => failed(error.to_string()),
                };
                self.printer.event(event, "node1", detail);
            }
            Sample::Wanted | Sample::OnItsWay(_) | Sample::Done => {}
        }
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
        if !running.is_up() || running.member.role != Role::Node {
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
            if let Some(ready) = now.ready.filter(|ready| running.ready != Some(*ready)) {
                let event = if ready { "ready" } else { "not_ready" };
                self.printer.event(
                    event,
                    name,
                    Detail::Ready { reasons: if ready { vec![] } else { now.reasons.clone() } },
                );
                running.ready = Some(ready);
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
        let (name, member) = (running.member.name.clone(), running.member.clone());
        let taken = view.as_ref().and_then(|view| self.succession.see(&name, view));
        running.view = view;
        if let Some(taken) = taken {
            self.took_over(taken, &member).await;
        }
    }

    /// Looks up in the chain of a node for how long there was no block.
    async fn took_over(&mut self, taken: TakenOver, asked: &Member) {
        let TakenOver { from, to, term, last, first } = taken;
        let mut times = vec![];
        // Everything else waits meanwhile: a node that answers slowly is not asked for all of them.
        let until = Instant::now() + LOOK_UP_WITHIN;
        for height in last.max(first.saturating_sub(LOOKED_UP)).max(1)..=first {
            if Instant::now() >= until {
                break;
            }
            if let Some(time) = self.probe.time_of(asked, height).await {
                times.push((height, time));
            }
        }
        let Some((gap_ms, height)) = longest(&times) else { return };
        if let Some(running) = self.running.iter_mut().find(|running| running.member.name == to) {
            running.failover = Some(gap_ms);
        }
        self.printer.event("failover", &to, Detail::Failover { from, term, height, gap_ms });
    }

    /// Stops every process: the nodes at the same time, then the DA server. A further signal kills
    /// those that are waited for.
    pub(super) async fn stop(&mut self, reason: &'static str, signals: &mut StopSignals) {
        self.printer.release();
        self.printer.event("stopping", "devnet", Detail::Stop { reason });
        let (nodes, rest): (Vec<_>, Vec<_>) =
            self.running.drain(..).partition(|running| running.member.role == Role::Node);
        stop_all(&self.executable, nodes, signals).await;
        stop_all(&self.executable, rest, signals).await;
        self.printer.event("stopped", "devnet", Detail::Stop { reason });
    }
}

/// Asks processes to stop, and kills those that do not.
async fn stop_all(executable: &Path, all: Vec<Running>, signals: &mut StopSignals) {
    let (kill, killed) = watch::channel(false);
    let stops = all.into_iter().map(|running| stop_one(executable, running, killed.clone()));
    let gone = futures::future::join_all(stops);
    tokio::pin!(gone);
    tokio::select! {
        biased;
        _ = &mut gone => return,
        () = sleep(STOP_WITHIN) => warn!("some did not stop in time, they are killed"),
        _ = signals.next() => warn!("killing the rest: told to stop a second time"),
    }
    let _nobody_waits = kill.send(true);
    gone.await;
}

async fn stop_one(executable: &Path, running: Running, mut killed: watch::Receiver<bool>) {
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
        _ = killed.wait_for(|killed| *killed) => warn!(name = member.name, pid, "is killed"),
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

fn row(running: &Running) -> Row {
    let (name, pid) = (&running.member.name, running.state.pid());
    match (running.member.role, running.state) {
        (Role::Node, State::Up(_) | State::Adopted(_)) => {
            Row { failover: running.failover, ..Row::of_node(name, pid, running.view.as_ref()) }
        }
        (_, State::Starting(_)) => Row::of_other(name, pid, "starting"),
        (_, State::Down) => Row::of_other(name, pid, "down"),
        (Role::Da, State::Up(_) | State::Adopted(_)) => Row::of_other(name, pid, "da"),
    }
}
