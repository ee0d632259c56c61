//! What the supervisor hears.

use actix::{ActorFutureExt, Context, Handler, MessageResult, ResponseActFuture, ResponseFuture, WrapFuture};
use baton_messages::cluster::{
    HandOff, HandOffError, HandedOff, MemberTold, MembersChanged, PrepareStop, StopRefused,
};
use baton_messages::da::DaStateChanged;
use baton_messages::engine::{BlockExecuted, EngineHealthChanged};
use baton_messages::executor::ProductionChanged;
use baton_messages::raft::{Applied, LeadershipChanged, LeaseChanged, RaftHealthChanged, TermApplied};
use baton_messages::supervisor::{
    DiskHealthChanged, Eligibility, GetSupervisorView, IntegrityStop, LeadershipAudited, Shutdown,
    SupervisorView,
};
use baton_messages::syncer::{ExecutionFollowed, ExecutionTrouble};
use baton_messages::types::Role;
use tokio::sync::oneshot;
use tracing::{Span, error, info, info_span};

use super::Supervisor;
use super::handoff::Why;
use super::metrics::ByCause;
use super::plan::Part;
use super::timeline::Cause;

impl Supervisor {
    /// What the last condition of the leader before says about the change.
    fn cause(&self) -> Cause {
        let within = self.config.times.election_max;
        let Some((term, before)) = self.timeline.known() else { return Cause::Start };
        if before == self.sources.member {
            let gave_away = self.hand_over.as_ref().is_some_and(|hand_over| hand_over.term == term);
            return match self.silence.is_on() {
                true => Cause::Silent,
                false if gave_away => Cause::HandOff,
                false => Cause::Lost,
            };
        }
        match self.peers.recent(before, self.now(), within) {
            Some(told) if told.silent => Cause::Silent,
            Some(told) if !told.producing || told.closing => Cause::HandOff,
            Some(_) | None => Cause::Lost,
        }
    }

    fn follow_failover(&mut self, message: &LeadershipChanged) {
        let (now, cause) = (self.now(), self.cause());
        let known = self.timeline.known();
        let ended = self.timeline.leadership_changed(now, message.term, message.role, message.leader, cause);
        if ended.is_empty() {
            return;
        }
        if self.failover.is_none() {
            self.failover = info_span!("failover", term = tracing::field::Empty);
        }
        self.failover.record("term", message.term.0);
        self.failover.clone().in_scope(|| self.end_stage(ended));
        let now_known = self.timeline.known();
        if let Some((term, leader)) = now_known.filter(|_| now_known != known) {
            let cause = self.timeline.cause().name();
            self.metrics.transitions.get_or_create(&ByCause { cause }).inc();
            for audit in &self.links.audit {
                audit.do_send(LeadershipAudited { term, leader, cause });
            }
        }
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
        self.follow_failover(&message);
        self.leader = message.leader;
        // Its own settings are the leader's now.
        if message.role == Role::Leader && self.plan.trouble(Part::Settings).is_some() {
            self.health(Part::Settings, None, ctx);
        }
        self.gate.leader_changed(message.leader, self.now());
        let actions = self.plan.leadership_changed(message.term, message.role);
        self.act(actions, ctx);
        self.review(ctx);
    }
}

impl Handler<TermApplied> for Supervisor {
    type Result = ();

    fn handle(&mut self, message: TermApplied, ctx: &mut Context<Self>) {
        let actions = self.plan.term_applied(message.term, message.tip.height);
        self.act(actions, ctx);
        self.tell_if_changed();
    }
}

impl Handler<Applied> for Supervisor {
    type Result = ();

    fn handle(&mut self, message: Applied, ctx: &mut Context<Self>) {
        if let Some(ended) = self.timeline.applied(self.now(), message.tip.term) {
            let failover = std::mem::replace(&mut self.failover, Span::none());
            failover.in_scope(|| self.end_stage([ended]));
        }
        self.follow_pause();
        let actions = self.plan.applied(message.tip.height);
        self.act(actions, ctx);
        self.tell_if_changed();
    }
}

impl Handler<ExecutionFollowed> for Supervisor {
    type Result = ();

    fn handle(&mut self, message: ExecutionFollowed, ctx: &mut Context<Self>) {
        let actions = self.plan.executed_to(message.height);
        self.act(actions, ctx);
        self.tell_if_changed();
    }
}

impl Handler<BlockExecuted> for Supervisor {
    type Result = ();

    fn handle(&mut self, message: BlockExecuted, ctx: &mut Context<Self>) {
        let actions = self.plan.block_executed(message.0.height);
        self.act(actions, ctx);
        self.tell_if_changed();
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
        // Another instance of openraft has not heard what the one before was told.
        self.gate.forget();
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
            self.due = message.due;
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

impl Handler<MembersChanged> for Supervisor {
    type Result = ();

    fn handle(&mut self, message: MembersChanged, ctx: &mut Context<Self>) {
        info!(
            version = message.version.0,
            joint = message.joint,
            voters = message.voters.len(),
            learners = message.learners.len(),
            "the membership changed"
        );
        self.peers.changed(message);
        self.metrics.heard.clear();
        self.review(ctx);
    }
}

impl Handler<MemberTold> for Supervisor {
    type Result = ();

    fn handle(&mut self, message: MemberTold, ctx: &mut Context<Self>) {
        let MemberTold { condition, leads } = message;
        let now = self.now();
        if self.leader == Some(condition.member) {
            if leads && !condition.silent {
                self.timeline.sign(now);
                self.gate.heard(condition.member, now);
            }
            // A witness has no settings: what it hashes is not what it would produce with.
            let has_settings = !condition.witness && !self.config.witness;
            let differs = has_settings && condition.config != self.config.settings;
            let differs = differs.then(|| "other settings than the leader's".to_owned());
            if self.plan.trouble(Part::Settings) != differs.as_deref() {
                self.health(Part::Settings, differs, ctx);
            }
        }
        self.peers.told(condition, now);
        self.review(ctx);
    }
}

impl Handler<HandOff> for Supervisor {
    type Result = ResponseFuture<Result<HandedOff, HandOffError>>;

    fn handle(&mut self, message: HandOff, ctx: &mut Context<Self>) -> Self::Result {
        info!(to = message.to.as_deref(), reason = %message.reason, "asked to hand leadership over");
        let to = match &message.to {
            None => Ok(None),
            Some(name) => match self.peers.voter_named(name) {
                Some(to) => Ok(Some(to)),
                None => Err(HandOffError::NoTarget(format!("{name}: it is no voter"))),
            },
        };
        if self.closing {
            return ready(Err(HandOffError::InProgress));
        }
        let to = match to {
            Ok(to) => to,
            // Whether this node leads, and is not at it already, is said before whether there is such
            // a voter.
            Err(error) => return ready(Err(self.may_hand_over().err().unwrap_or(error))),
        };
        let (ended, end) = oneshot::channel();
        let before = self.asked.replace(ended);
        if let Err(error) = self.begin_hand_over(to, Why::Operator, ctx) {
            self.asked = before;
            return ready(Err(error));
        }
        Box::pin(async move {
            let gone = || Err(HandOffError::Failed("the node is shutting down".to_owned()));
            end.await.unwrap_or_else(|_| gone())
        })
    }
}

fn ready<T: 'static>(answer: T) -> ResponseFuture<T> {
    Box::pin(std::future::ready(answer))
}

impl Supervisor {
    /// Whether the others can do without this node.
    fn can_be_spared(&self) -> Result<(), StopRefused> {
        let (now, within) = (self.now(), self.config.times.election_max * 2);
        let eligible = self.plan.reasons().is_empty();
        self.peers.can_spare_own(&self.position(), self.settings(), eligible, now, within)
    }
}

impl Handler<PrepareStop> for Supervisor {
    type Result = Result<(), StopRefused>;

    fn handle(&mut self, message: PrepareStop, _: &mut Context<Self>) -> Self::Result {
        match self.can_be_spared() {
            Err(refused) if !message.force => Err(refused),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

impl Handler<Shutdown> for Supervisor {
    type Result = ResponseActFuture<Self, ()>;

    /// A leader gives leadership away first, when somebody can take it.
    fn handle(&mut self, _: Shutdown, ctx: &mut Context<Self>) -> Self::Result {
        if !self.closing
            && !self.peers.is_sole_voter()
            && let Err(needed) = self.can_be_spared()
        {
            error!(%needed, "stopping although this node is needed: start it again soon");
        }
        let may_hand_over = !self.closing && self.hand_over.is_none() && self.leads().is_some();
        if may_hand_over && let Err(error) = self.begin_hand_over(None, Why::Shutdown, ctx) {
            info!(%error, "shutting down without a successor");
        }
        self.closing = true;
        let (ended, end) = oneshot::channel();
        self.shutdown.push(ended);
        self.review(ctx);
        self.end_shutdown(ctx);
        let ended = async move {
            let _ = end.await;
        };
        Box::pin(ended.into_actor(self).map(|(), _, _| info!("the supervisor has ended")))
    }
}

impl Handler<GetSupervisorView> for Supervisor {
    type Result = MessageResult<GetSupervisorView>;

    fn handle(&mut self, _: GetSupervisorView, _: &mut Context<Self>) -> Self::Result {
        let caretaker = self.unfit_since.is_some() && self.plan.grant().is_none();
        let pause = match self.plan.grant() {
            Some(_) if self.lease_lapsed => Some("no quorum acknowledges this leader".to_owned()),
            Some(_) => self.plan.waiting_for().or_else(|| self.pause.clone()),
            None if self.closing => Some("shutting down".to_owned()),
            None => self.plan.waiting_for().map(|waits| match &self.waits_for {
                Some(nobody) => format!("{waits}; nobody can take over: {nobody}"),
                None => waits,
            }),
        };
        let hand_over = self.hand_over.as_ref().map(|hand_over| hand_over.waits_for());
        let silent = self.silence.is_on().then(|| self.plan.reasons().join("; "));
        MessageResult(SupervisorView {
            grant: self.plan.grant(),
            executed: self.plan.executed(),
            eligibility: Eligibility { reasons: self.plan.reasons() },
            pause,
            paused: self.plan.pause().map(str::to_owned),
            lease_lapsed: self.lease_lapsed,
            caretaker,
            silent,
            hand_over,
            last_failover: self.timeline.last().cloned(),
            da_trouble: self.da_trouble.clone(),
        })
    }
}
