//! What the supervisor counts and measures.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::plan::Part;
use super::timeline::Ended;

/// What the supervisor counts.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// One while this node holds a grant.
    pub producing: Gauge,
    /// One while this node leads.
    pub leader: Gauge,
    /// One while it leads without being fit to produce.
    pub caretaker: Gauge,
    /// One while it leads and sends no heartbeats.
    pub silent: Gauge,
    /// One while an operator has stopped production.
    pub paused: Gauge,
    /// The Raft term.
    pub term: Gauge,
    /// Changes of leadership seen.
    pub leadership_changes: Counter,
    /// New leaders, by cause.
    pub transitions: Family<ByCause, Counter>,
    /// Seconds of each stage of a failover.
    pub stages: Family<ByStage, Histogram>,
    /// Grants given.
    pub grants: Counter,
    /// Times production was stopped.
    pub stops: Counter,
    /// Producers that were not gone in time after they were told to stop.
    pub slow_stops: Counter,
    /// One for each part in trouble.
    pub ineligible: Family<ByPart, Gauge>,
    /// Leadership given away, or heartbeats stopped, because a part is in trouble.
    pub abdications: Family<ByPart, Counter>,
    /// Hand-overs that ended, by who wanted them and how they ended.
    pub hand_overs: Family<ByOutcome, Counter>,
    /// Times the others were asked how far their DA layers are.
    pub da_questions: Counter,
    /// Milliseconds since a member was heard.
    pub heard: Family<ByMember, Gauge>,
}

/// The label of a change of leader.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByCause {
    /// Why there is another leader.
    pub cause: &'static str,
}

/// The labels of a stage.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByStage {
    /// Which stage.
    pub stage: &'static str,
    /// Why there is another leader.
    pub cause: &'static str,
}

/// The label of a trouble.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByPart {
    /// What is in trouble.
    pub part: &'static str,
}

/// The labels of a hand-over.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByOutcome {
    /// Why it began.
    pub why: &'static str,
    /// How it ended: `done`, `aborted` or `failed`.
    pub outcome: &'static str,
}

/// The label of a member.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByMember {
    /// Its name.
    pub member: String,
}

/// From a millisecond to half a minute.
fn seconds() -> Histogram {
    Histogram::new([
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 2.0, 5.0,
        30.0,
    ])
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            producing: Gauge::default(),
            leader: Gauge::default(),
            caretaker: Gauge::default(),
            silent: Gauge::default(),
            paused: Gauge::default(),
            term: Gauge::default(),
            leadership_changes: Counter::default(),
            transitions: Family::default(),
            stages: Family::new_with_constructor(seconds),
            grants: Counter::default(),
            stops: Counter::default(),
            slow_stops: Counter::default(),
            ineligible: Family::default(),
            abdications: Family::default(),
            hand_overs: Family::default(),
            da_questions: Counter::default(),
            heard: Family::default(),
        }
    }
}

impl Metrics {
    /// Makes the metrics visible.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("failover");
        registry.register("producing", "1 while this node holds a grant", self.producing.clone());
        registry.register("leader", "1 while this node leads", self.leader.clone());
        let caretaker = "1 while this node leads without being fit to produce";
        registry.register("caretaker", caretaker, self.caretaker.clone());
        let silent = "1 while this node leads and sends no heartbeats, so that others elect";
        registry.register("silent", silent, self.silent.clone());
        let paused = "1 while an operator has stopped production, on every member";
        registry.register("paused", paused, self.paused.clone());
        registry.register("term", "The Raft term", self.term.clone());
        registry.register(
            "leadership_changes",
            "Changes of term or role seen by this node",
            self.leadership_changes.clone(),
        );
        registry.register("transitions", "New leaders, by cause", self.transitions.clone());
        let stages = "Seconds of each stage of a failover, by its cause";
        registry.register("stage_seconds", stages, self.stages.clone());
        registry.register("grants", "Grants given to the producers", self.grants.clone());
        registry.register("stops", "Times the producers were stopped", self.stops.clone());
        registry.register("slow_stops", "Producers that were not gone in time", self.slow_stops.clone());
        registry.register("ineligible", "1 for each part in trouble", self.ineligible.clone());
        let abdications = "Leadership given away or heartbeats stopped, by the part in trouble";
        registry.register("abdications", abdications, self.abdications.clone());
        registry.register("hand_overs", "Hand-overs by reason and outcome", self.hand_overs.clone());
        let da_questions =
            "Times the others were asked how far their DA layers are, as blocks do not come to DA";
        registry.register("da_questions", da_questions, self.da_questions.clone());
        let heard = "Milliseconds since each other member told its condition";
        registry.register("heard_ms", heard, self.heard.clone());
    }

    pub(super) fn ended(&self, ended: &Ended) {
        let by = ByStage { stage: ended.stage.name(), cause: ended.cause.name() };
        self.stages.get_or_create(&by).observe(ended.took.as_secs_f64());
    }

    pub(super) fn in_trouble(&self, parts: impl Iterator<Item = Part>) {
        let parts: Vec<Part> = parts.collect();
        for part in Part::ALL {
            let in_trouble = i64::from(parts.contains(&part));
            self.ineligible.get_or_create(&ByPart { part: part.name() }).set(in_trouble);
        }
    }

    pub(super) fn abdicates(&self, parts: impl Iterator<Item = Part>) {
        for part in parts {
            self.abdications.get_or_create(&ByPart { part: part.name() }).inc();
        }
    }

    pub(super) fn heard(&self, ages: impl Iterator<Item = (String, Option<Duration>)>) {
        for (member, age) in ages {
            let Some(age) = age else { continue };
            let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
            self.heard.get_or_create(&ByMember { member }).set(age);
        }
    }
}
