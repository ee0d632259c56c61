//! The failover supervisor decides whether this node produces, and who should lead.
//!
//! It alone starts and stops producers. It hears how the parts of this node are and how the other
//! members are, and does what the rules say: grants ([`plan`]), the campaign gate ([`election`]),
//! hand-overs ([`handoff`]), watchdogs ([`watchdog`]). A change of leadership is a message to it,
//! never the end of the process (P8).

pub mod da;
pub mod election;
mod handlers;
pub mod handoff;
mod leading;
mod metrics;
pub mod peers;
pub mod plan;
pub mod timeline;
pub mod watchdog;

use std::fmt;
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Recipient, WrapFuture};
use baton_messages::cluster::{
    AskDa, Campaign, Condition, HandOffError, HandedOff, Heartbeats, Stand, TellCondition, TransferLeadership,
};
use baton_messages::mutation::{Mutation, planted};
use baton_messages::signer::GetSignerView;
use baton_messages::supervisor::{IntegrityStop, LeadershipAudited, StartProducing};
use baton_messages::types::{Grant, Hash, Height, LogIndex, MemberId, Role, Term};
use baton_storage::{Reader, Store};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{Span, error, info, warn};

use crate::child::Child;
use da::DaWatch;
use election::Gate;
use handoff::HandOver;
pub use metrics::{ByCause, ByMember, ByOutcome, ByPart, ByStage, Metrics};
use peers::{Moment, Peers, Position, Times};
use plan::{Action, Part, Plan};
use timeline::Timeline;
use watchdog::{ABDICATION_PAUSE, Abdication, Silence, StallWatch, StorageWatch};

/// One kind of producer: its name and how to start it under a grant.
pub struct Producer {
    name: &'static str,
    start: Box<dyn Fn(StartProducing) -> Child>,
}

impl Producer {
    /// A producer that this function makes when the supervisor says so, on the supervisor's thread.
    pub fn new(name: &'static str, start: impl Fn(StartProducing) -> Child + 'static) -> Self {
        Self { name, start: Box::new(start) }
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("name", &self.name).finish_non_exhaustive()
    }
}

/// How the supervisor behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// How often it looks whether a producer has ended by itself, and how the signer is.
    pub look_after: Duration,
    /// How long members wait for each other, as Raft does.
    pub times: Times,
    /// This node has no engine and no key, and never produces.
    pub witness: bool,
    /// The chain was begun elsewhere, up to this block: nothing is produced before it is here.
    pub begins_after: Option<(Height, Hash)>,
    /// Where its RPC is reached, told to the other members.
    pub rpc: String,
    /// Where its transaction intake is reached.
    pub intake: String,
    /// A hash over the settings in which members must agree.
    pub settings: Hash,
    /// The storage thread may be busy with one piece of work for so long (hazard E3).
    pub disk_limit: Duration,
    /// A leader may go without a block that is due for so long (hazard L3).
    pub stalled_after: Duration,
    /// What waits for DA may wait for so long before the others are asked whether their DA layers answer.
    pub da_limit: Duration,
    /// The pause between two of those questions.
    pub da_every: Duration,
    /// What a hand-over may take until Raft is asked.
    pub hand_over_within: Duration,
    /// How long a producer may take for its last block, and to be gone.
    pub stop_within: Duration,
    /// How long an answer may take before it counts as missing.
    pub reply_within: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            look_after: Duration::from_millis(500),
            times: Times::default(),
            witness: false,
            begins_after: None,
            rpc: String::new(),
            intake: String::new(),
            settings: Hash::default(),
            disk_limit: Duration::from_millis(500),
            stalled_after: Duration::from_secs(5),
            da_limit: Duration::from_secs(60),
            da_every: Duration::from_secs(6),
            hand_over_within: Duration::from_secs(5),
            stop_within: Duration::from_secs(2),
            reply_within: Duration::from_secs(5),
        }
    }
}

/// What the supervisor reads, without asking anybody.
pub struct Sources {
    /// This member.
    pub member: MemberId,
    /// The life of its storage.
    pub boot: u64,
    /// The newest version of log entries it can apply.
    pub command_version: u8,
    /// The chain and the end of the log.
    pub reader: Reader,
    /// For how long the storage thread has been busy with one piece of work; `None` when idle.
    pub busy_for: Box<dyn Fn() -> Option<Duration>>,
}

impl Sources {
    /// A store's.
    #[must_use]
    pub fn of(store: &Store) -> Self {
        let identity = store.identity();
        let busy = store.clone();
        Self {
            member: MemberId::of(identity.storage),
            boot: identity.boot,
            command_version: store.known_command_version(),
            reader: store.reader(),
            busy_for: Box::new(move || busy.stats().busy_since.map(|since| since.elapsed())),
        }
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources")
            .field("member", &self.member)
            .field("boot", &self.boot)
            .finish_non_exhaustive()
    }
}

/// What the supervisor says to Raft.
#[derive(Clone, Debug)]
pub struct ClusterLinks {
    /// Tells the other members how this one is.
    pub tell: Recipient<TellCondition>,
    /// Hears whether this node may stand for election.
    pub campaign: Recipient<Campaign>,
    /// Stands for election.
    pub stand: Recipient<Stand>,
    /// Sends heartbeats, or not.
    pub heartbeats: Recipient<Heartbeats>,
    /// Gives leadership away.
    pub transfer: Recipient<TransferLeadership>,
    /// Asks the members how far their DA layers are.
    pub ask_da: Recipient<AskDa>,
}

/// Everything the supervisor says, and to whom. Producers are started by it, they are not linked.
#[derive(Clone, Debug)]
pub struct Links {
    /// Ends the process when a person is needed.
    pub integrity_stop: Recipient<IntegrityStop>,
    /// Raft.
    pub cluster: ClusterLinks,
    /// Says whether the guard refuses; a witness has none.
    pub signer_view: Option<Recipient<GetSignerView>>,
    /// Keep the record of who led when.
    pub audit: Vec<Recipient<LeadershipAudited>>,
}

/// The failover supervisor.
#[derive(Debug)]
pub struct Supervisor {
    config: Config,
    links: Links,
    metrics: Metrics,
    sources: Sources,
    /// In the order in which they are started: from the last stage to the first.
    producers: Vec<Producer>,
    running: Vec<Child>,
    began: Instant,
    plan: Plan,
    peers: Peers,
    gate: Gate,
    storage: StorageWatch,
    stall: StallWatch,
    abdication: Abdication,
    da: DaWatch,
    silence: Silence,
    timeline: Timeline,
    /// Carries the events of the failover that is on its way.
    failover: Span,
    leader: Option<MemberId>,
    hand_over: Option<HandOver>,
    /// How many were begun: an answer to an earlier one says nothing.
    hand_overs: u64,
    /// Who wants to know how it ends.
    asked: Option<oneshot::Sender<Result<HandedOff, HandOffError>>>,
    /// The producers were asked for their last block; whether they have made it, once that is known.
    finishing: Option<Option<bool>>,
    /// Since when it leads and is not fit to produce.
    unfit_since: Option<Moment>,
    /// Why a caretaker cannot give leadership away.
    waits_for: Option<String>,
    /// What the others were told last, in short.
    told: Option<Told>,
    /// Why the executor pauses.
    pause: Option<String>,
    /// A block is due, as the executor says.
    due: bool,
    /// A quorum stopped acknowledging the leader of this grant.
    lease_lapsed: bool,
    da_trouble: Option<String>,
    last_seen: Option<(Term, Role)>,
    /// Who waits for the end of everything.
    shutdown: Vec<oneshot::Sender<()>>,
    closing: bool,
}

/// What the others must know at once when it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    eligible: bool,
    producing: bool,
    closing: bool,
    silent: bool,
    /// The leader makes no blocks any more: it may wait for who is level.
    leader_rests: bool,
    /// Where this member was level, while the leader rests.
    level: Option<LogIndex>,
}

impl Supervisor {
    /// A supervisor of these producers, given from the last stage to the first.
    #[must_use]
    pub fn new(
        config: Config,
        links: Links,
        metrics: Metrics,
        sources: Sources,
        producers: Vec<Producer>,
    ) -> Self {
        let times = config.times;
        let mut plan = Plan::new();
        if config.witness {
            plan.health_changed(Part::Witness, Some("it has no engine and no key".to_owned()));
        }
        if let Some(waits) = begins(config.begins_after, &sources.reader) {
            plan.health_changed(Part::Takeover, Some(waits));
        }
        Self {
            links,
            metrics,
            sources,
            producers,
            running: Vec::new(),
            began: Instant::now(),
            plan,
            peers: Peers::default(),
            gate: Gate::new(times),
            storage: StorageWatch::new(config.disk_limit),
            stall: StallWatch::new(config.stalled_after, times.election_max * ABDICATION_PAUSE),
            abdication: Abdication::new(times),
            da: DaWatch::new(config.da_limit, config.da_every),
            silence: Silence::default(),
            timeline: Timeline::default(),
            failover: Span::none(),
            leader: None,
            hand_over: None,
            hand_overs: 0,
            asked: None,
            finishing: None,
            unfit_since: None,
            waits_for: None,
            told: None,
            pause: None,
            due: true,
            lease_lapsed: false,
            da_trouble: None,
            last_seen: None,
            shutdown: Vec::new(),
            closing: false,
            config,
        }
    }

    fn now(&self) -> Moment {
        self.began.elapsed()
    }

    fn position(&self) -> Position {
        let last_log = self.sources.reader.last_log().unwrap_or_default();
        Position { last_log, tip: self.sources.reader.tip().height }
    }

    /// The term this node leads.
    fn leads(&self) -> Option<Term> {
        let (term, role) = self.plan.role();
        (role == Role::Leader).then_some(term)
    }

    fn act(&mut self, actions: Vec<Action>, ctx: &mut Context<Self>) {
        for action in actions {
            match action {
                Action::StartProducers(grant) => self.start_producers(grant),
                Action::StopProducers(reason) => self.begin_stop(&reason, ctx),
            }
        }
    }

    fn start_producers(&mut self, grant: Grant) {
        self.pause = None;
        self.due = true;
        self.lease_lapsed = false;
        self.finishing = None;
        self.metrics.grants.inc();
        self.metrics.producing.set(1);
        let granted = self.timeline.granted(self.now(), grant.term);
        self.failover.clone().in_scope(|| {
            info!(term = grant.term.0, "granted: starting the producers");
            self.end_stage(granted);
        });
        // What they do under this grant is a consequence of the failover that it ends.
        let failover = self.failover.clone();
        let message = StartProducing { grant };
        let start = || self.producers.iter().map(|producer| (producer.start)(message)).collect();
        self.running = failover.in_scope(start);
    }

    /// Nothing starts until they are gone: the plan knows that they are stopping.
    fn begin_stop(&mut self, reason: &str, ctx: &mut Context<Self>) {
        warn!(%reason, "stopping the producers");
        if planted(Mutation::ExitOnDemotion) {
            self.links.integrity_stop.do_send(IntegrityStop { reason: reason.to_owned() });
        }
        self.metrics.stops.inc();
        self.metrics.producing.set(0);
        let children = std::mem::take(&mut self.running);
        self.wait_for_end(children, ctx);
    }

    fn wait_for_end(&mut self, children: Vec<Child>, ctx: &mut Context<Self>) {
        let limit = self.config.stop_within;
        let stopping = futures::future::join_all(children.into_iter().map(|child| child.stop_within(limit)));
        ctx.spawn(stopping.into_actor(self).map(move |ends, this, ctx| {
            let left: Vec<Child> = ends.into_iter().filter_map(Result::err).collect();
            if left.is_empty() {
                return this.end_stop(ctx);
            }
            for child in &left {
                this.metrics.slow_stops.inc();
                error!(producer = child.name(), ?limit, "is not gone yet: nothing starts beside it");
            }
            this.wait_for_end(left, ctx);
        }));
    }

    fn end_stop(&mut self, ctx: &mut Context<Self>) {
        info!("the producers have stopped");
        let actions = self.plan.producers_ended();
        self.act(actions, ctx);
        self.end_close(ctx);
        self.end_shutdown(ctx);
        self.review(ctx);
    }

    fn look_after_producers(&mut self, ctx: &mut Context<Self>) {
        if let Some(ended) = self.running.iter().find(|child| child.has_ended()) {
            error!(producer = ended.name(), "a producer ended by itself");
            let reason = format!("the {} ended by itself", ended.name());
            self.plan.producers_stopping();
            self.begin_stop(&reason, ctx);
        }
    }

    fn health(&mut self, part: Part, trouble: Option<String>, ctx: &mut Context<Self>) {
        match &trouble {
            Some(trouble) => warn!(part = part.name(), %trouble, "in trouble"),
            None => info!(part = part.name(), "healthy"),
        }
        let actions = self.plan.health_changed(part, trouble);
        self.metrics.in_trouble(self.plan.parts());
        self.act(actions, ctx);
        self.review(ctx);
    }

    /// A change of a watch that may be no change.
    fn health_if_changed(&mut self, part: Part, change: watchdog::Change, ctx: &mut Context<Self>) {
        if let Some(trouble) = change {
            self.health(part, trouble, ctx);
        }
    }

    /// An operator's pause is in the log: whoever has applied it knows it.
    fn follow_pause(&mut self) {
        let pause = self.sources.reader.pause();
        if self.plan.pause() == pause.as_deref() {
            return;
        }
        match pause.as_deref() {
            Some(reason) => warn!(reason, "an operator has stopped production"),
            None => info!("an operator lets production go on"),
        }
        self.metrics.paused.set(i64::from(pause.is_some()));
        self.plan.pause_changed(pause.as_deref().map(str::to_owned));
    }

    /// Does what is due, whatever made it so.
    fn review(&mut self, ctx: &mut Context<Self>) {
        self.review_election();
        self.review_hand_over(ctx);
        self.review_fitness(ctx);
        self.tell_if_changed();
    }

    /// Every heartbeat interval.
    fn tick(&mut self, ctx: &mut Context<Self>) {
        let now = self.now();
        if self.leads().is_some() {
            self.timeline.sign(now);
        }
        // A snapshot may have brought one.
        self.follow_pause();
        if self.plan.pause().is_some() && self.timeline.expects_no_block() {
            // The first block after it ends no failover: nobody waited for it.
            self.failover = Span::none();
        }
        let hangs = self.storage.look(now, (self.sources.busy_for)());
        self.health_if_changed(Part::Storage, hangs, ctx);
        let may = self.plan.grant().is_some() && self.plan.pause().is_none();
        let due = may && self.due && !self.lease_lapsed && self.finishing.is_none();
        let stalls = self.stall.look(now, due, self.plan.tip());
        self.health_if_changed(Part::Progress, stalls, ctx);
        let lacks = self.sources.reader.first_height_with_body() > self.sources.reader.initial_height();
        let lacks = lacks.then(|| "bodies of old blocks are missing".to_owned());
        if lacks.is_some() != self.plan.parts().any(|part| part == Part::Bodies) {
            self.health(Part::Bodies, lacks, ctx);
        }
        let waits = begins(self.config.begins_after, &self.sources.reader);
        if waits.is_some() != self.plan.parts().any(|part| part == Part::Takeover) {
            self.health(Part::Takeover, waits, ctx);
        }
        self.metrics.in_trouble(self.plan.parts());
        self.metrics.heard(self.peers.ages(now));
        self.review_da(ctx);
        self.review(ctx);
        self.tell();
    }

    fn condition(&self) -> Condition {
        let (term, _) = self.plan.role();
        let position = self.position();
        // Others remember what it had: only what no loss of power takes away may be told.
        let (last_log_term, last_log) = self.sources.reader.durable_log().unwrap_or_default();
        let mut reasons = self.plan.reasons();
        reasons.truncate(MOST_REASONS);
        for reason in &mut reasons {
            let end = (0..=LONGEST_REASON.min(reason.len())).rev().find(|end| reason.is_char_boundary(*end));
            reason.truncate(end.unwrap_or_default());
        }
        Condition {
            member: self.sources.member,
            boot: self.sources.boot,
            term,
            reasons,
            witness: self.config.witness,
            closing: self.closing,
            silent: self.silence.is_on(),
            producing: self.plan.grant().is_some(),
            tip: position.tip,
            executed: self.plan.executed(),
            last_log,
            last_log_term,
            first_body: self.sources.reader.first_height_with_body(),
            command_version: self.sources.command_version,
            config: self.config.settings,
            rpc: self.config.rpc.clone(),
            intake: self.config.intake.clone(),
        }
    }

    fn told(&self) -> Told {
        let within = self.config.times.election_max;
        let leader = self.leader.filter(|leader| *leader != self.sources.member);
        let told = leader.and_then(|leader| self.peers.recent(leader, self.now(), within));
        let leader_rests = told.is_some_and(|told| !told.producing);
        let position = self.position();
        let is_level = leader_rests && self.plan.executed() == position.tip;
        Told {
            eligible: self.plan.reasons().is_empty(),
            producing: self.plan.grant().is_some(),
            closing: self.closing,
            silent: self.silence.is_on(),
            leader_rests,
            level: is_level.then_some(position.last_log.1),
        }
    }

    fn tell_if_changed(&mut self) {
        if self.told != Some(self.told()) {
            self.tell();
        }
    }

    fn tell(&mut self) {
        self.told = Some(self.told());
        // One that does not fit is followed by the next in a heartbeat's time.
        let _ = self.links.cluster.tell.try_send(TellCondition(self.condition()));
    }
}

/// Why nothing may be produced yet on a chain that was begun elsewhere (hazard M3).
fn begins(after: Option<(Height, Hash)>, reader: &Reader) -> Option<String> {
    let (height, hash) = after?;
    let tip = reader.tip().height;
    if tip < height {
        return Some(format!("the chain goes on after height {height}, and this node has it up to {tip}"));
    }
    match reader.hash(height) {
        // What is filled in later is linked to the tip by hash, and missing bodies are a reason of their own.
        Ok(None) => None,
        Ok(Some(here)) => (here != hash)
            .then(|| format!("the chain goes on after {hash} at height {height}, here is {here}")),
        Err(error) => Some(format!("the block at height {height} cannot be read: {error}")),
    }
}

/// Bounds of what the others are told.
const MOST_REASONS: usize = 8;
const LONGEST_REASON: usize = 200;

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.follow_pause();
        ctx.run_interval(self.config.look_after, |this, ctx| {
            this.look_after_producers(ctx);
            this.begin_signer_look(ctx);
        });
        ctx.run_interval(self.config.times.heartbeat, Self::tick);
    }
}
