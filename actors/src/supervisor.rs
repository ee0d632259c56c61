//! The failover supervisor decides whether this node produces.
//!
//! It alone starts and stops producers. What it decides by is in [`plan`]; this actor hears
//! what Raft, the syncer, the engine and the disk say, and does what the plan says. A change
//! of leadership is a message to it, never the end of the process (P8).

pub mod plan;

use std::fmt;
use std::time::Duration;

use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, MessageResult, Recipient, ResponseActFuture,
    WrapFuture,
};
use baton_messages::da::DaStateChanged;
use baton_messages::engine::EngineHealthChanged;
use baton_messages::executor::ProductionChanged;
use baton_messages::raft::{Applied, LeadershipChanged, LeaseChanged, RaftHealthChanged, TermApplied};
use baton_messages::supervisor::{
    DiskHealthChanged, Eligibility, GetSupervisorView, IntegrityStop, Shutdown, SupervisorView,
};
use baton_messages::syncer::{ExecutionFollowed, ExecutionTrouble};
use baton_messages::types::{Grant, Role, Term};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tracing::{error, info, warn};

use crate::child::Child;
use plan::{Action, Part, Plan};

/// One kind of producer: its name and how to start it under a grant.
pub struct Producer {
    name: &'static str,
    start: Box<dyn Fn(Grant) -> Child>,
}

impl Producer {
    /// A producer that is started by this function, on the supervisor's thread.
    pub fn new(name: &'static str, start: impl Fn(Grant) -> Child + 'static) -> Self {
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
    /// How often it looks whether a producer has ended by itself.
    pub look_after: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { look_after: Duration::from_millis(500) }
    }
}

/// Everything the supervisor says, and to whom. Producers are started by it, they are not linked.
#[derive(Clone, Debug)]
pub struct Links {
    /// Ends the process when a person is needed.
    pub integrity_stop: Recipient<IntegrityStop>,
}

/// What the supervisor counts.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// One while this node holds a grant.
    pub producing: Gauge,
    /// One while this node leads.
    pub leader: Gauge,
    /// The Raft term.
    pub term: Gauge,
    /// Changes of leadership seen.
    pub leadership_changes: Counter,
    /// Grants given.
    pub grants: Counter,
    /// Times production was stopped.
    pub stops: Counter,
}

impl Metrics {
    /// Makes the metrics visible.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("failover");
        registry.register("producing", "1 while this node holds a grant", self.producing.clone());
        registry.register("leader", "1 while this node leads", self.leader.clone());
        registry.register("term", "The Raft term", self.term.clone());
        registry.register(
            "leadership_changes",
            "Changes of term or role seen by this node",
            self.leadership_changes.clone(),
        );
        registry.register("grants", "Grants given to the producers", self.grants.clone());
        registry.register("stops", "Times the producers were stopped", self.stops.clone());
    }
}

/// The failover supervisor.
#[derive(Debug)]
pub struct Supervisor {
    config: Config,
    links: Links,
    metrics: Metrics,
    /// In the order in which they are started: from the last stage to the first.
    producers: Vec<Producer>,
    running: Vec<Child>,
    plan: Plan,
    /// Why the executor pauses.
    pause: Option<String>,
    /// A quorum stopped acknowledging the leader of this grant.
    lease_lapsed: bool,
    da_trouble: Option<String>,
    last_seen: Option<(Term, Role)>,
}

impl Supervisor {
    /// A supervisor of these producers, given from the last stage to the first.
    #[must_use]
    pub fn new(config: Config, links: Links, metrics: Metrics, producers: Vec<Producer>) -> Self {
        Self {
            config,
            links,
            metrics,
            producers,
            running: Vec::new(),
            plan: Plan::new(),
            pause: None,
            lease_lapsed: false,
            da_trouble: None,
            last_seen: None,
        }
    }

    fn act(&mut self, actions: Vec<Action>, ctx: &mut Context<Self>) {
        for action in actions {
            match action {
                Action::StartProducers(grant) => self.start_producers(grant),
                Action::StopProducers(reason) => self.begin_stop(reason, ctx),
            }
        }
    }

    fn start_producers(&mut self, grant: Grant) {
        info!(term = grant.term.0, "granted: starting the producers");
        self.pause = None;
        self.lease_lapsed = false;
        self.metrics.grants.inc();
        self.metrics.producing.set(1);
        self.running = self.producers.iter().map(|producer| (producer.start)(grant)).collect();
    }

    /// Messages wait until the producers are gone: nothing can start beside them.
    fn begin_stop(&mut self, reason: String, ctx: &mut Context<Self>) {
        warn!(%reason, "stopping the producers");
        self.metrics.stops.inc();
        self.metrics.producing.set(0);
        let children = std::mem::take(&mut self.running);
        let stopping = futures::future::join_all(children.into_iter().map(Child::stop));
        ctx.wait(stopping.into_actor(self).map(|_, this, ctx| this.end_stop(ctx)));
    }

    fn end_stop(&mut self, ctx: &mut Context<Self>) {
        info!("the producers have stopped");
        let actions = self.plan.producers_ended();
        self.act(actions, ctx);
    }

    fn look_after_producers(&mut self, ctx: &mut Context<Self>) {
        if let Some(ended) = self.running.iter().find(|child| child.has_ended()) {
            error!(producer = ended.name(), "a producer ended by itself");
            self.begin_stop(format!("the {} ended by itself", ended.name()), ctx);
        }
    }

    fn health(&mut self, part: Part, trouble: Option<String>, ctx: &mut Context<Self>) {
        match &trouble {
            Some(trouble) => warn!(part = part.name(), %trouble, "in trouble"),
            None => info!(part = part.name(), "healthy"),
        }
        let actions = self.plan.health_changed(part, trouble);
        self.act(actions, ctx);
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.run_interval(self.config.look_after, Self::look_after_producers);
    }
}

impl Handler<LeadershipChanged> for Supervisor {
    type Result = ();

    fn handle(&mut self, message: LeadershipChanged, ctx: &mut Context<Self>) {
        if self.last_seen != Some((message.term, message.role)) {
            self.last_seen = Some((message.term, message.role));
            self.metrics.leadership_changes.inc();
            info!(term = message.term.0, role = ?message.role, leader = ?message.leader, "leadership changed");
        }
        self.metrics.leader.set(i64::from(message.role == Role::Leader));
        self.metrics.term.set(i64::try_from(message.term.0).unwrap_or(i64::MAX));
        let actions = self.plan.leadership_changed(message.term, message.role);
        self.act(actions, ctx);
    }
}

impl Handler<TermApplied> for Supervisor {
    type Result = ();

    fn handle(&mut self, message: TermApplied, ctx: &mut Context<Self>) {
        let actions = self.plan.term_applied(message.term, message.tip.height);
        self.act(actions, ctx);
    }
}

impl Handler<Applied> for Supervisor {
    type Result = ();

    fn handle(&mut self, message: Applied, ctx: &mut Context<Self>) {
        let actions = self.plan.applied(message.tip.height);
        self.act(actions, ctx);
    }
}

impl Handler<ExecutionFollowed> for Supervisor {
    type Result = ();

    fn handle(&mut self, message: ExecutionFollowed, ctx: &mut Context<Self>) {
        let actions = self.plan.executed_to(message.height);
        self.act(actions, ctx);
    }
}

impl Handler<ExecutionTrouble> for Supervisor {
    type Result = ();

    fn handle(&mut self, message: ExecutionTrouble, ctx: &mut Context<Self>) {
        if message.integrity {
            let reason = message.trouble.clone().unwrap_or_default();
            self.links.integrity_stop.do_send(IntegrityStop { reason });
        }
        self.health(Part::Execution, message.trouble, ctx);
    }
}

impl Handler<LeaseChanged> for Supervisor {
    type Result = ();

    /// A lapsed lease only pauses: the executor's proposals are refused before the append.
    fn handle(&mut self, message: LeaseChanged, _: &mut Context<Self>) {
        if self.plan.grant().is_some_and(|grant| grant.term == message.term) {
            self.lease_lapsed = !message.held;
        }
    }
}

impl Handler<RaftHealthChanged> for Supervisor {
    type Result = ();

    fn handle(&mut self, message: RaftHealthChanged, ctx: &mut Context<Self>) {
        self.health(Part::Raft, message.trouble, ctx);
    }
}

impl Handler<EngineHealthChanged> for Supervisor {
    type Result = ();

    fn handle(&mut self, message: EngineHealthChanged, ctx: &mut Context<Self>) {
        self.health(Part::Engine, message.trouble, ctx);
    }
}

impl Handler<DiskHealthChanged> for Supervisor {
    type Result = ();

    fn handle(&mut self, message: DiskHealthChanged, ctx: &mut Context<Self>) {
        self.health(Part::Disk, message.trouble, ctx);
    }
}

impl Handler<ProductionChanged> for Supervisor {
    type Result = ();

    fn handle(&mut self, message: ProductionChanged, _: &mut Context<Self>) {
        if self.plan.grant().is_some_and(|grant| grant.term == message.term) {
            self.pause = message.pause;
        }
    }
}

impl Handler<DaStateChanged> for Supervisor {
    type Result = ();

    fn handle(&mut self, message: DaStateChanged, _: &mut Context<Self>) {
        self.da_trouble = message.trouble;
    }
}

impl Handler<IntegrityStop> for Supervisor {
    type Result = ();

    fn handle(&mut self, message: IntegrityStop, ctx: &mut Context<Self>) {
        self.health(Part::Signer, Some(message.reason.clone()), ctx);
        self.links.integrity_stop.do_send(message);
    }
}

impl Handler<Shutdown> for Supervisor {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, _: Shutdown, _: &mut Context<Self>) -> Self::Result {
        let _ = self.plan.close();
        self.metrics.producing.set(0);
        let children = std::mem::take(&mut self.running);
        let stopping = futures::future::join_all(children.into_iter().map(Child::stop));
        Box::pin(stopping.into_actor(self).map(|_, _, _| info!("the producers have stopped")))
    }
}

impl Handler<GetSupervisorView> for Supervisor {
    type Result = MessageResult<GetSupervisorView>;

    fn handle(&mut self, _: GetSupervisorView, _: &mut Context<Self>) -> Self::Result {
        let pause = match self.plan.grant() {
            Some(_) if self.lease_lapsed => Some("no quorum acknowledges this leader".to_owned()),
            Some(_) => self.pause.clone(),
            None => self.plan.waiting_for(),
        };
        MessageResult(SupervisorView {
            grant: self.plan.grant(),
            executed: self.plan.executed(),
            eligibility: Eligibility { reasons: self.plan.reasons() },
            pause,
            da_trouble: self.da_trouble.clone(),
        })
    }
}
