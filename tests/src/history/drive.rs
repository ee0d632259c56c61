//! Running a history: deeds and their ends, clients, the operator, by virtual time.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::Duration;

use baton_messages::mutation::inherit;
use baton_messages::types::Hash;
use baton_storage::runtime::seed_chance;

use super::clients::Clients;
use super::deeds::{End, HandingOff};
use super::draw::Chance;
use super::full::Beside;
use super::operator::Operator;
use super::sinks::{Asked, Refusals};
use super::{Broken, Coverage, Deed, EventKind, History, Left, Outcome, Situation, What, forced, panics};
use crate::cluster::{Cluster, ClusterPlan};
use crate::net::Weather;
use crate::p2p_net::P2pNet;
use crate::rate::Rate;

/// Longer than this no history runs, in real time.
const LIMIT: Duration = Duration::from_secs(300);

pub(super) fn run(history: &History) -> Outcome {
    let (sender, receiver) = mpsc::channel();
    let history = history.clone();
    let inherit = inherit();
    #[allow(clippy::disallowed_methods)] // A fresh thread: no state of an earlier run is in its locals.
    let thread = std::thread::spawn(move || {
        inherit();
        seed_chance(Some(history.seed));
        panics::listen();
        // Nobody listens any more when it took too long.
        let _ = sender.send(in_thread(&history));
    });
    match receiver.recv_timeout(LIMIT) {
        Ok(outcome) => {
            let _ = thread.join();
            outcome
        }
        Err(mpsc::RecvTimeoutError::Timeout) => lost(format!("progress: it did not end within {LIMIT:?}")),
        Err(mpsc::RecvTimeoutError::Disconnected) => lost("panic: the cluster was not built".to_owned()),
    }
}

fn in_thread(history: &History) -> Outcome {
    let mut drive = Drive::new(history);
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drive.go(history)));
    let at = drive.cluster.elapsed();
    let broken = ended.err().map(|_| broken(at));
    let (events, mut coverage) = drive.cluster.notes().take();
    coverage.merge(&drive.coverage);
    let net = drive.cluster.net().clone();
    net.note(format!("{events:?} {broken:?}").as_bytes());
    // What is dropped after a panic may panic once more; nobody wants to hear it.
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(drive)));
    Outcome { broken, trace: net.trace().0, coverage, events, virtual_time: at }
}

fn lost(text: String) -> Outcome {
    let promise = text.split(':').next().unwrap_or_default().to_owned();
    Outcome {
        broken: Some(Broken { promise, at_ms: 0, text }),
        trace: Hash::default(),
        coverage: Coverage::default(),
        events: vec![],
        virtual_time: Duration::ZERO,
    }
}

/// A failed check begins with the promise it is about.
fn broken(at: Duration) -> Broken {
    let text = panics::first().unwrap_or_else(|| "a panic without words".to_owned());
    let said = text.strip_prefix("assertion `left == right` failed: ").unwrap_or(&text);
    let promise = match said.split_once(':') {
        Some((promise, _)) if promise.len() <= 20 && !promise.contains('(') => promise.to_owned(),
        _ if text.starts_with("no progress") => "progress".to_owned(),
        _ if text.contains("asks for a person") => "alarm".to_owned(),
        _ => "panic".to_owned(),
    };
    let promise = if promise.starts_with("no progress") { "progress".to_owned() } else { promise };
    Broken { promise, at_ms: millis(at), text }
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A history on its way.
pub(super) struct Drive {
    pub(super) cluster: Cluster,
    pub(super) coverage: Coverage,
    pub(super) chance: Chance,
    pub(super) clients: Clients,
    pub(super) users: forced::Users,
    pub(super) operator: Operator,
    pub(super) usual: Weather,
    /// What ends or follows, by time and order.
    pub(super) later: BTreeMap<(u64, u64), End>,
    order: u64,
    /// Nodes whose power goes off at an effect, and what follows.
    pub(super) doomed: BTreeMap<usize, (Left, u64)>,
    pub(super) handing_off: Vec<HandingOff>,
    pub(super) asked: Vec<Asked>,
    pub(super) refusals: Refusals,
    /// What goes on at the full node, if there is one.
    pub(super) beside: Beside,
    /// The slowest clock.
    slowest: Rate,
    pub(super) voters: usize,
    /// The version of log entries that a node is started with from now on.
    pub(super) knows: BTreeMap<usize, u8>,
    /// Whether a node of before is set up anew when its time has come.
    pub(super) joined: usize,
}

impl Drive {
    fn new(history: &History) -> Self {
        let shape = &history.shape;
        let usual = shape.weather.weather();
        let knows: BTreeMap<usize, u8> = match shape.older.is_empty() {
            true => BTreeMap::new(),
            false => (0..16).map(|index| (index, if shape.older.contains(&index) { 1 } else { 2 })).collect(),
        };
        let p2p = shape.full.filter(|full| full.sources.peers).map(|_| {
            let net = P2pNet::new(history.seed ^ 0x7065_6572_7300);
            net.lose(shape.weather.lost as f64 / 1_000.0);
            net
        });
        let plan = ClusterPlan {
            block_time: Duration::from_millis(shape.block_time_ms),
            weather: usual,
            snapshot_after: shape.snapshot_after,
            keep_entries: shape.keep_entries,
            fsync: Duration::from_millis(shape.fsync_ms),
            witness: shape.witness.then(|| shape.voters.saturating_sub(1)),
            observed: true,
            command_versions: knows.clone(),
            rates_ppm: shape.rates_ppm.clone(),
            p2p: p2p.clone(),
            // A node of its own may hear who is cut off, or stand on the other side, too.
            partitions_cut_peers: Chance::new(history.seed ^ 0x7061_7274_6564).percent(50),
            forced_epoch: (shape.forced_ms > 0).then_some(forced::EPOCH),
            ..ClusterPlan::default()
        };
        let mut cluster = Cluster::of(shape.voters, history.seed, plan);
        cluster.notes().begin();
        for index in 0..shape.voters {
            cluster.restart(index);
        }
        if let Some(full) = shape.full {
            cluster.add_full(full.sources, full.light);
        }
        Self {
            cluster,
            coverage: Coverage::default(),
            chance: Chance::new(history.seed ^ 0x6472_6976_6500),
            clients: Clients::new(shape.clients, shape.client_ms),
            users: forced::Users::new(shape.forced_ms),
            operator: Operator::default(),
            usual,
            later: BTreeMap::new(),
            order: 0,
            doomed: BTreeMap::new(),
            handing_off: vec![],
            asked: vec![],
            refusals: Refusals::default(),
            slowest: Rate { ppm: shape.rates_ppm.iter().copied().min().unwrap_or_default().min(0) },
            beside: Beside::new(history.seed, p2p),
            voters: shape.voters,
            knows,
            joined: 0,
        }
    }

    /// How long the node with the slowest clock takes for what takes others so long.
    pub(super) fn slowed(&self, ms: u64) -> u64 {
        millis(self.slowest.takes(Duration::from_millis(ms)))
    }

    pub(super) fn now_ms(&self) -> u64 {
        millis(self.cluster.elapsed())
    }

    pub(super) fn note(&mut self, node: Option<usize>, what: EventKind) {
        self.cluster.notes().note(node, || what);
    }

    pub(super) fn reached(&mut self, situation: Situation) {
        self.coverage.reached(situation);
    }

    pub(super) fn later(&mut self, in_ms: u64, end: End) {
        let at_ms = self.now_ms().saturating_add(in_ms);
        self.order += 1;
        self.later.insert((at_ms, self.order), end);
    }

    fn go(&mut self, history: &History) {
        if !history.shape.rates_ppm.is_empty() {
            self.reached(Situation::ClocksApart);
        }
        for _ in 0..history.shape.learners {
            self.deed(&What::Join);
        }
        if let Some(full) = history.shape.full {
            self.later(full.from_ms, End::FullStarts);
        }
        let mut deeds = history.deeds.iter().peekable();
        while self.now_ms() < history.span_ms {
            self.turn(&mut deeds, history.span_ms);
        }
        self.note(None, EventKind::RestBegins);
        self.rest(history);
        self.note(None, EventKind::RestEnds);
    }

    /// Does what is due, and lets time pass until something else is, or something happens.
    pub(super) fn turn(&mut self, deeds: &mut std::iter::Peekable<std::slice::Iter<'_, Deed>>, end_ms: u64) {
        let now = self.now_ms();
        while let Some(deed) = deeds.next_if(|deed| deed.at_ms <= now) {
            self.deed(&deed.what);
        }
        let next = deeds.peek().map_or(u64::MAX, |deed| deed.at_ms);
        self.chores();
        let next = next.min(end_ms).min(self.next_chore());
        self.cluster.run_until(Duration::from_millis(next.max(now + 1)));
    }

    /// When something is due that is no deed.
    fn next_chore(&self) -> u64 {
        let later = self.later.first_key_value().map_or(u64::MAX, |((at, _), _)| *at);
        let operator = if self.operator.is_busy() { self.operator.next_ms() } else { u64::MAX };
        later.min(operator).min(self.clients.next_ms()).min(self.users.next_ms())
    }

    /// What is due that is no deed.
    pub(super) fn chores(&mut self) {
        for index in self.cluster.lost_power() {
            if let Some((left, down_ms)) = self.doomed.remove(&index) {
                self.crash(index, left, down_ms, "power lost at an effect");
            }
        }
        self.look_after_full();
        let now = self.now_ms();
        while let Some(entry) = self.later.first_entry().filter(|entry| entry.key().0 <= now) {
            let end = entry.remove();
            self.end(end);
        }
        self.answers();
        self.refusals.check(&self.cluster);
        let Self { cluster, clients, users, operator, chance, .. } = self;
        users.step(now, cluster);
        clients.step(now, cluster, chance);
        operator.step(now, cluster);
    }
}
