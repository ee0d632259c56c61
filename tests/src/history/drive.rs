//! Running a history.

use std::time::Duration;

use baton_messages::mutation::inherit;
use baton_messages::types::Hash;
use baton_storage::memory::Keep;
use baton_storage::runtime::seed_chance;

use super::draw::Chance;
use super::ghost::Ghosts;
use super::{Broken, Coverage, Event, EventKind, History, Left, Outcome, What, Who, panics};
use crate::cluster::{Cluster, ClusterPlan};
use crate::net::Weather;

pub(super) fn run(history: &History) -> Outcome {
    let history = history.clone();
    let inherit = inherit();
    #[allow(clippy::disallowed_methods)] // A fresh thread: no state of an earlier run is in its locals.
    let thread = std::thread::spawn(move || {
        inherit();
        seed_chance(Some(history.seed));
        panics::listen();
        let mut drive = Drive::new(&history);
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drive.go(&history)));
        let broken = ended.err().map(|_| broken(drive.cluster.elapsed()));
        let outcome = Outcome {
            broken,
            trace: drive.cluster.net().trace().0,
            coverage: drive.coverage.clone(),
            events: std::mem::take(&mut drive.events),
            virtual_time: drive.cluster.elapsed(),
        };
        // What is dropped after a panic may panic once more; nobody wants to hear it.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(drive)));
        outcome
    });
    thread.join().unwrap_or_else(|_| Outcome {
        broken: Some(Broken { promise: "panic".into(), at_ms: 0, text: "the cluster was not built".into() }),
        trace: Hash::default(),
        coverage: Coverage::default(),
        events: vec![],
        virtual_time: Duration::ZERO,
    })
}

/// A failed check begins with the promise it is about.
fn broken(at: Duration) -> Broken {
    let text = panics::first().unwrap_or_else(|| "a panic without words".to_owned());
    let promise = match text.split_once(':') {
        Some((promise, _)) if promise.len() <= 8 && !promise.contains(' ') => promise.to_owned(),
        _ if text.starts_with("no progress") => "progress".to_owned(),
        _ => "panic".to_owned(),
    };
    Broken { promise, at_ms: millis(at), text }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What ends something that was done.
struct Later {
    at_ms: u64,
    order: usize,
    what: End,
}

enum End {
    Start(usize),
    Heal,
    Weather,
}

struct Drive {
    cluster: Cluster,
    coverage: Coverage,
    events: Vec<Event>,
    later: Vec<Later>,
    chance: Chance,
    usual: Weather,
    sent: u64,
    ghosts: Ghosts,
}

impl Drive {
    fn new(history: &History) -> Self {
        let shape = &history.shape;
        let usual = shape.weather.weather();
        let plan = ClusterPlan {
            block_time: Duration::from_millis(shape.block_time_ms),
            weather: usual,
            snapshot_after: shape.snapshot_after,
            keep_entries: shape.keep_entries,
            ..ClusterPlan::default()
        };
        Self {
            cluster: Cluster::start_with(shape.voters, history.seed, plan),
            coverage: Coverage::default(),
            events: vec![],
            later: vec![],
            chance: Chance::new(history.seed),
            usual,
            sent: 0,
            ghosts: Ghosts::default(),
        }
    }

    fn note(&mut self, node: Option<usize>, what: EventKind) {
        self.events.push(Event { at_ms: millis(self.cluster.elapsed()), node, what });
    }

    fn go(&mut self, history: &History) {
        let mut deeds = history.deeds.iter().peekable();
        loop {
            let now = millis(self.cluster.elapsed());
            if now >= history.span_ms {
                break;
            }
            while let Some(deed) = deeds.next_if(|deed| deed.at_ms <= now) {
                self.done(&deed.what);
            }
            self.over(now);
            if now.is_multiple_of(history.shape.client_ms.max(1)) {
                self.load();
            }
            self.cluster.step();
            self.ghosts.check(&self.cluster);
        }
        self.note(None, EventKind::RestBegins);
        self.cluster.come_to_rest();
        self.ghosts.check(&self.cluster);
        self.note(None, EventKind::RestEnds);
    }

    fn load(&mut self) {
        let up: Vec<usize> = self.cluster.up().collect();
        if !up.is_empty() {
            let asked = up[usize::try_from(self.chance.below(up.len() as u64)).unwrap_or_default()];
            self.sent += 1;
            let text = format!("k{}=v", self.sent);
            self.cluster.submit(asked, &text);
        }
    }

    fn who(&self, who: Who) -> Option<usize> {
        let leader = self.cluster.leader();
        let found = match who {
            Who::Node(index) => Some(index),
            Who::Leader => leader,
            Who::Follower(number) => {
                let others: Vec<usize> = self.cluster.up().filter(|index| Some(*index) != leader).collect();
                (!others.is_empty()).then(|| others[number % others.len()])
            }
        };
        found.filter(|index| *index < self.cluster.len())
    }

    fn later(&mut self, in_ms: u64, what: End) {
        let at_ms = millis(self.cluster.elapsed()) + in_ms;
        let order = self.later.len();
        self.later.push(Later { at_ms, order, what });
        self.later.sort_by_key(|later| (later.at_ms, later.order));
    }

    fn over(&mut self, now: u64) {
        while self.later.first().is_some_and(|later| later.at_ms <= now) {
            match self.later.remove(0).what {
                End::Start(index) => {
                    if !self.cluster.up().any(|up| up == index) {
                        self.cluster.restart(index);
                        self.note(Some(index), EventKind::Started { boot: 0 });
                    }
                }
                End::Heal => self.cluster.heal(),
                End::Weather => self.cluster.net().set_weather(self.usual),
            }
        }
    }

    fn done(&mut self, what: &What) {
        self.note(None, EventKind::Done { what: what.clone() });
        match what {
            What::Crash { node, left, down_ms } => {
                let Some(index) = self.who(*node) else { return };
                if !self.cluster.up().any(|up| up == index) {
                    return;
                }
                let keep = match left {
                    Left::All => Keep::All,
                    Left::Nothing => Keep::None,
                    Left::Prefix(count) | Left::Torn(count) => Keep::Prefix(*count),
                };
                self.cluster.crash(index, keep);
                self.note(Some(index), EventKind::Ended { reason: "crash".into() });
                self.later(*down_ms, End::Start(index));
            }
            What::Partition { away, for_ms } => {
                let away: Vec<usize> = away.iter().filter_map(|who| self.who(*who)).collect();
                self.cluster.partition(&away);
                self.later(*for_ms, End::Heal);
            }
            What::Weather { storm, for_ms } => {
                self.cluster.net().set_weather(storm.weather());
                self.later(*for_ms, End::Weather);
            }
            What::Ghost { node, asks } => {
                if let Some(index) = self.who(*node) {
                    self.ghosts.ask(&mut self.cluster, index, *asks);
                }
            }
            _ => {}
        }
    }
}
