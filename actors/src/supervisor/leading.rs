//! Who should lead: standing, handing over, giving leadership away, falling silent.

use actix::{ActorFutureExt, AsyncContext, Context, MailboxError, WrapFuture};
use baton_messages::cluster::{
    Campaign, HandOffError, HandedOff, Heartbeats, Stand, TransferError, TransferLeadership,
};
use baton_messages::signer::GetSignerView;
use baton_messages::supervisor::StopProducing;
use baton_messages::types::{Hash, MemberId, Term};
use tracing::{error, info, warn};

use super::handoff::{Action, HandOver, View, Why};
use super::metrics::ByOutcome;
use super::plan::Part;
use super::timeline::Ended;
use super::watchdog::{ABDICATION_PAUSE, Scene, others_can_elect};
use super::{Supervisor, election};

impl Supervisor {
    pub(super) fn review_election(&mut self) {
        let (_, role) = self.plan.role();
        let view = election::View {
            now: self.now(),
            peers: &self.peers,
            eligible: self.plan.reasons().is_empty(),
            closing: self.closing,
            role,
            position: self.position(),
        };
        let actions = self.gate.look(&view);
        let cluster = &self.links.cluster;
        for action in actions {
            match action {
                election::Action::Campaign(allowed) => {
                    info!(allowed, "may stand for election");
                    cluster.campaign.do_send(Campaign { allowed });
                }
                election::Action::Stand => {
                    warn!("no leader appears: standing as caretaker");
                    cluster.stand.do_send(Stand);
                }
            }
        }
    }

    /// The term this node leads and can give away.
    pub(super) fn may_hand_over(&self) -> Result<Term, HandOffError> {
        let Some(term) = self.leads() else {
            let (term, _) = self.plan.role();
            return Err(HandOffError::NotLeader(self.leader.map(|leader| self.peers.hint(leader, term))));
        };
        if self.hand_over.is_some() || self.plan.is_given_away() {
            return Err(HandOffError::InProgress);
        }
        Ok(term)
    }

    /// Begins to give leadership to a voter, or to the best one.
    pub(super) fn begin_hand_over(
        &mut self,
        to: Option<MemberId>,
        why: Why,
        ctx: &mut Context<Self>,
    ) -> Result<(), HandOffError> {
        let term = self.may_hand_over()?;
        let (now, times) = (self.now(), self.config.times);
        let fit = match to {
            Some(to) => {
                let fit = self.fit(to, why);
                fit.map(|()| to).map_err(|reason| format!("{}: {reason}", self.peers.name(to)))
            }
            None => self.best(why),
        };
        let to = fit.map_err(HandOffError::NoTarget)?;
        let within = match self.storage.is_in_trouble() {
            true => times.election_max * 2,
            false => self.config.hand_over_within,
        };
        let name = self.peers.name(to);
        info!(%name, term = term.0, why = why.name(), "handing leadership over");
        self.peers.chosen(to);
        self.hand_overs += 1;
        self.hand_over = Some(HandOver::new((to, name), term, why, times, now, within));
        self.review_hand_over(ctx);
        Ok(())
    }

    /// The settings that others must share; a witness has none.
    pub(super) fn settings(&self) -> Option<Hash> {
        (!self.config.witness).then_some(self.config.settings)
    }

    /// Whether somebody with other settings is better than nobody. Who stops would be succeeded by it
    /// anyway, and who makes no blocks keeps the chain from going on.
    fn takes_other_settings(&self, why: Why) -> bool {
        match why {
            Why::Shutdown => true,
            Why::Unfit => self.plan.grant().is_none() || self.stall.is_in_trouble(),
            Why::Operator | Why::Da => false,
        }
    }

    /// To whom.
    fn best(&self, why: Why) -> Result<MemberId, String> {
        let (now, within, position) = (self.now(), self.config.times.election_max, self.position());
        let best = self.peers.best(&position, self.settings(), now, within);
        best.or_else(|reasons| {
            let other = self.peers.best_with_other_settings(&position, now, within);
            other.filter(|_| self.takes_other_settings(why)).ok_or(reasons)
        })
    }

    /// Whether leadership can be given to a member.
    fn fit(&self, to: MemberId, why: Why) -> Result<(), String> {
        let (now, within) = (self.now(), self.config.times.election_max);
        let fit = self.peers.fitness(to, self.settings(), now, within);
        let other = self.takes_other_settings(why) && self.peers.but_for_settings(to, now, within).is_some();
        if other { Ok(()) } else { fit }
    }

    pub(super) fn review_hand_over(&mut self, ctx: &mut Context<Self>) {
        let (now, leads, position) = (self.now(), self.leads(), self.position());
        let within = self.config.times.election_max;
        let Some(fit) = self.hand_over.as_ref().map(|order| self.fit(order.to, order.why)) else { return };
        let Some(hand_over) = &mut self.hand_over else { return };
        let target = match &fit {
            Ok(()) => self.peers.recent(hand_over.to, now, within).ok_or("it is not heard"),
            Err(reason) => Err(reason.as_str()),
        };
        let producing = !self.running.is_empty();
        let actions = hand_over.look(&View { now, leads, producing, position, target });
        self.carry_out(actions, ctx);
    }

    fn carry_out(&mut self, actions: Vec<Action>, ctx: &mut Context<Self>) {
        for action in actions {
            match action {
                Action::Close => self.begin_close(ctx),
                Action::Transfer { term, to } => self.begin_transfer(term, to, ctx),
                Action::End(end) => self.end_hand_over(end, ctx),
            }
        }
    }

    /// Lets the producers finish what they are at. They go on running until all have answered.
    fn begin_close(&mut self, ctx: &mut Context<Self>) {
        let Some(hand_over) = &self.hand_over else { return };
        let reason = format!("leadership goes to {}", hand_over.name);
        let generation = self.hand_overs;
        self.plan.hand_over(reason.clone());
        self.finishing = Some(None);
        let within = self.config.stop_within;
        let asked = self.running.iter().filter_map(|child| child.finish()).map(|finish| {
            let stop = StopProducing { reason: reason.clone() };
            finish.send(stop).timeout(within)
        });
        let finished = futures::future::join_all(asked);
        ctx.spawn(finished.into_actor(self).map(move |answers, this, ctx| {
            let finished = answers.iter().all(Result::is_ok);
            if this.hand_overs != generation || this.finishing != Some(None) {
                return;
            }
            this.finishing = Some(Some(finished));
            match this.running.is_empty() {
                // Something else stopped them meanwhile.
                true => this.end_close(ctx),
                false => {
                    this.plan.producers_stopping();
                    this.begin_stop(&reason, ctx);
                }
            }
        }));
    }

    /// The producers are gone, and they were asked for their last block.
    pub(super) fn end_close(&mut self, ctx: &mut Context<Self>) {
        let Some(Some(finished)) = self.finishing else { return };
        if !self.running.is_empty() {
            return;
        }
        self.finishing = None;
        let now = self.now();
        let Some(hand_over) = &mut self.hand_over else { return };
        let actions = hand_over.closed(finished, now);
        self.carry_out(actions, ctx);
    }

    fn begin_transfer(&mut self, term: Term, to: MemberId, ctx: &mut Context<Self>) {
        let cluster = &self.links.cluster;
        info!(term = term.0, to = %self.peers.name(to), "asking raft to transfer leadership");
        self.plan.give_away(term);
        // Raft gives up by itself after two of the longest election time-outs.
        let within = self.config.times.election_max * 4 + self.config.reply_within;
        let transfer = cluster.transfer.send(TransferLeadership { term, to }).timeout(within);
        ctx.spawn(transfer.into_actor(self).map(|answer, this, ctx| this.end_transfer(answer, ctx)));
    }

    fn end_transfer(
        &mut self,
        answer: Result<Result<(Term, MemberId), TransferError>, MailboxError>,
        ctx: &mut Context<Self>,
    ) {
        let now = self.now();
        let Self { hand_over, peers, .. } = self;
        let Some(hand_over) = hand_over else { return };
        let actions = hand_over.transferred(now, answer.ok(), |id| peers.name(id));
        if !hand_over.is_transferring() {
            ctx.run_later(hand_over.rest(), Self::review_hand_over);
        }
        self.carry_out(actions, ctx);
        self.review(ctx);
    }

    fn end_hand_over(&mut self, end: Result<HandedOff, HandOffError>, ctx: &mut Context<Self>) {
        let Some(hand_over) = self.hand_over.take() else { return };
        let outcome = match &end {
            Ok(_) => "done",
            Err(HandOffError::Failed(_)) => "failed",
            Err(_) => "aborted",
        };
        match &end {
            Ok(done) => info!(to = %done.to, term = done.term.0, "leadership was handed over"),
            Err(error) => warn!(to = %hand_over.name, %error, "leadership was not handed over"),
        }
        let by = ByOutcome { why: hand_over.why.name(), outcome };
        self.metrics.hand_overs.get_or_create(&by).inc();
        if end.is_err() {
            let until = self.now() + self.config.times.election_max * ABDICATION_PAUSE;
            self.peers.failed(hand_over.to, until);
        }
        let closing = self.finishing.take().is_some();
        let actions = match &end {
            _ if self.closing => self.plan.close(),
            Ok(_) | Err(HandOffError::Failed(_)) => self.plan.handed_over(),
            Err(_) => {
                if closing && !self.running.is_empty() {
                    // They were told to make no further block: others take their place at once.
                    self.plan.producers_stopping();
                    self.begin_stop("starting again after a hand-over that was aborted", ctx);
                }
                self.plan.keep()
            }
        };
        self.act(actions, ctx);
        if let Some(asked) = self.asked.take() {
            let _ = asked.send(end);
        }
        self.end_shutdown(ctx);
    }

    /// A leader that is not fit gives leadership to somebody who is; when that is vain it stops its
    /// heartbeats, if that helps; else it stays (P6, L3).
    pub(super) fn review_fitness(&mut self, ctx: &mut Context<Self>) {
        let now = self.now();
        let unfit = self.leads().is_some()
            && !self.plan.reasons().is_empty()
            && !self.closing
            && self.peers.own().is_some()
            && !self.peers.is_sole_voter();
        self.metrics.caretaker.set(i64::from(unfit && self.plan.grant().is_none()));
        if !unfit {
            self.unfit_since = None;
            self.waits_for = None;
            return self.review_silence(true);
        }
        let since = *self.unfit_since.get_or_insert(now);
        // An engine that is only about to say where it is gets a moment.
        let is_starting = self.plan.parts().all(|part| part == Part::Execution);
        let patience = if is_starting { self.config.times.election_max } else { Default::default() };
        if self.hand_over.is_some() || now.saturating_sub(since) < patience {
            return;
        }
        let only_progress = self.plan.parts().all(|part| part == Part::Progress);
        let vain = match self.best(Why::Unfit) {
            Err(reason) => Some(reason),
            // Never a second transfer in a term (F1).
            Ok(_) if self.plan.is_given_away() => Some("a transfer did not succeed".to_owned()),
            Ok(to) if self.peers.is_cooling(to, now) => {
                Some(format!("{}: it could not take over a moment ago", self.peers.name(to)))
            }
            Ok(_) if !self.abdication.may(now, !only_progress) => {
                self.waits_for = Some("leadership was given away a moment ago".to_owned());
                return;
            }
            Ok(to) => {
                self.metrics.abdicates(self.plan.parts());
                if only_progress {
                    self.abdication.begun(now);
                }
                if let Err(error) = self.begin_hand_over(Some(to), Why::Unfit, ctx) {
                    warn!(%error, "cannot give leadership away");
                }
                None
            }
        };
        let is_vain = vain.is_some();
        if is_vain && self.waits_for != vain {
            warn!(reason = vain.as_deref(), "not fit to produce, and nobody can take over");
        }
        self.waits_for = vain;
        self.review_silence(is_vain);
    }

    fn review_silence(&mut self, transfer_is_vain: bool) {
        let (now, times) = (self.now(), self.config.times);
        let hangs = self.storage.is_in_trouble();
        let scene = Scene {
            leads: self.leads().is_some() && !self.peers.is_sole_voter(),
            hangs,
            stalls: self.stall.is_in_trouble(),
            transfer_is_vain,
            others_can: others_can_elect(&self.peers, now, times, hangs),
        };
        let Some(enabled) = self.silence.look(scene) else { return };
        match enabled {
            true => info!("sending heartbeats again"),
            false => {
                error!(reasons = ?self.plan.reasons(), "no heartbeats any more: others are to elect");
                self.metrics.abdicates(self.plan.parts());
            }
        }
        self.metrics.silent.set(i64::from(!enabled));
        self.links.cluster.heartbeats.do_send(Heartbeats { enabled });
    }

    /// Answers who waits for the end, once everything has ended.
    pub(super) fn end_shutdown(&mut self, ctx: &mut Context<Self>) {
        if !self.closing || self.hand_over.is_some() {
            return;
        }
        let actions = self.plan.close();
        self.act(actions, ctx);
        if self.running.is_empty() && !self.plan.is_stopping() {
            for waiting in self.shutdown.drain(..) {
                let _ = waiting.send(());
            }
        }
    }

    pub(super) fn begin_signer_look(&mut self, ctx: &mut Context<Self>) {
        let Some(signer_view) = &self.links.signer_view else { return };
        let view = signer_view.send(GetSignerView).timeout(self.config.reply_within);
        ctx.spawn(view.into_actor(self).map(|view, this, ctx| {
            let refusal = match view {
                Ok(view) => view.refusal,
                Err(_) => Some("the signer does not answer".to_owned()),
            };
            let known = this.plan.trouble(Part::Guard);
            if known != refusal.as_deref() {
                this.health(Part::Guard, refusal, ctx);
            }
        }));
    }

    /// Measures and logs stages of a failover, in its span.
    pub(super) fn end_stage(&self, ended: impl IntoIterator<Item = Ended>) {
        for ended in ended {
            self.metrics.ended(&ended);
            let (stage, cause) = (ended.stage.name(), ended.cause.name());
            info!(stage, cause, term = ended.term.0, took = ?ended.took, "failover");
        }
    }
}
