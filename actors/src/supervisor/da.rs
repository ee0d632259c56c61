//! A leader whose blocks do not come to DA, while the DA layers of other members answer.
//!
//! Each member has its own way to DA, often a DA node of its own, and only the leader posts. No block is
//! due while DA has no room, so blocks that do not come tell nothing. Once what waits for DA has waited
//! for longer than a limit, the leader asks the others how far their DA layers are, and gives leadership
//! to one whose answers where its own does not, or is well ahead of its own. When everybody shares the
//! outage nobody is better, and the leader stays (hazards L3, S5). It goes on producing meanwhile: DA is
//! no part of being eligible.

use std::collections::BTreeMap;
use std::time::Duration;

use actix::{ActorFutureExt, AsyncContext, Context, MailboxError, WrapFuture};
use baton_messages::cluster::AskDa;
use baton_messages::mutation::{Mutation, planted};
use baton_messages::types::{DaHeight, Grant, MemberId};
use tracing::{debug, info, warn};

use super::Supervisor;
use super::handoff::Why;
use super::peers::Moment;

/// DA blocks by which a DA layer that answers may be behind another one: they are asked one after the
/// other, and are nodes of one network.
const BEHIND: u64 = 10;

/// Looks for how long what waits for DA has waited.
#[derive(Debug)]
pub struct DaWatch {
    limit: Duration,
    /// The pause between two questions to the others.
    every: Duration,
    since: Option<Moment>,
    asked: Option<Moment>,
    /// The answers to the last question are not here yet.
    asking: bool,
}

impl DaWatch {
    /// A watch that lets the others be asked after so long, and so often.
    #[must_use]
    pub const fn new(limit: Duration, every: Duration) -> Self {
        Self { limit, every, since: None, asked: None, asking: false }
    }

    /// Whether it has waited for longer than the limit.
    #[must_use]
    pub fn is_in_trouble(&self, now: Moment) -> bool {
        self.since.is_some_and(|since| now.saturating_sub(since) >= self.limit)
    }

    /// Looks again. `waits`: this node holds a grant, and DA takes or shows nothing. Says whether the
    /// others are to be asked now.
    pub fn look(&mut self, now: Moment, waits: bool) -> bool {
        if !waits {
            self.since = None;
            return false;
        }
        if planted(Mutation::LeadWithoutDa) {
            return false;
        }
        self.since.get_or_insert(now);
        let rests = self.asked.is_some_and(|at| now.saturating_sub(at) < self.every);
        if self.asking || rests || !self.is_in_trouble(now) {
            return false;
        }
        self.asking = true;
        self.asked = Some(now);
        true
    }

    /// The answers are here, or will never be.
    pub fn answered(&mut self) {
        self.asking = false;
    }
}

/// Why a member's DA layer is no better than this node's own.
fn no_better(own: Option<DaHeight>, other: Option<DaHeight>) -> Result<(), String> {
    match (own, other) {
        (_, None) => Err("its DA layer does not answer".to_owned()),
        (None, Some(_)) => Ok(()),
        (Some(own), Some(other)) if other.0.saturating_sub(own.0) > BEHIND => Ok(()),
        (Some(_), Some(_)) => Err("its DA layer is no better".to_owned()),
    }
}

impl Supervisor {
    /// What waits for DA, or for what DA holds.
    fn waits_for_da(&self) -> bool {
        let is_held_up = self.pause.is_some() && !self.due && self.plan.pause().is_none();
        self.da_trouble.is_some() || is_held_up
    }

    pub(super) fn review_da(&mut self, ctx: &mut Context<Self>) {
        let Some(grant) = self.plan.grant() else {
            self.da.look(self.now(), false);
            return;
        };
        let may = !self.lease_lapsed && !self.closing && self.hand_over.is_none();
        let has_others = self.peers.own().is_some() && !self.peers.is_sole_voter();
        if !self.da.look(self.now(), may && has_others && self.waits_for_da()) {
            return;
        }
        self.metrics.da_questions.inc();
        let asked = self.links.cluster.ask_da.send(AskDa).timeout(self.config.reply_within * 2);
        ctx.spawn(
            asked.into_actor(self).map(move |heads, this, ctx| this.end_da_question(grant, heads, ctx)),
        );
    }

    fn end_da_question(
        &mut self,
        grant: Grant,
        heads: Result<BTreeMap<MemberId, DaHeight>, MailboxError>,
        ctx: &mut Context<Self>,
    ) {
        self.da.answered();
        let now = self.now();
        let is_over = self.plan.grant() != Some(grant) || self.hand_over.is_some() || self.closing;
        if is_over || !self.da.is_in_trouble(now) {
            return;
        }
        let heads = match heads {
            Ok(heads) => heads,
            Err(error) => return debug!(%error, "raft did not say how far the others' DA layers are"),
        };
        let own = heads.get(&self.sources.member).copied();
        let within = self.config.times.election_max;
        let is_better = |id: MemberId| {
            if self.peers.is_cooling(id, now) {
                return Err("it could not take over a moment ago".to_owned());
            }
            no_better(own, heads.get(&id).copied())
        };
        match self.peers.best_of(&self.position(), self.settings(), now, within, is_better) {
            Ok(to) => {
                warn!(to = %self.peers.name(to), ?own, "blocks do not come to DA from here: its DA layer is better");
                if let Err(error) = self.begin_hand_over(Some(to), Why::Da, ctx) {
                    warn!(%error, "cannot give leadership away");
                }
            }
            Err(reason) => info!(reason, "blocks do not come to DA, and nobody's DA layer is better"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::peers::tests::at;
    use super::*;

    fn watch() -> DaWatch {
        DaWatch::new(Duration::from_secs(10), Duration::from_secs(2))
    }

    #[test]
    fn the_others_are_asked_after_the_limit_and_again_once_they_have_answered() {
        let mut watch = watch();
        assert!(!watch.look(at(0), true));
        assert!(!watch.look(at(9_999), true));
        assert!(watch.look(at(10_000), true));
        assert!(!watch.look(at(13_000), true), "one question at a time");
        watch.answered();
        assert!(watch.look(at(13_001), true));
        watch.answered();
        assert!(!watch.look(at(15_000), true), "not all the time");
        assert!(watch.look(at(15_001), true));
    }

    #[test]
    fn a_da_layer_that_answers_now_and_then_is_no_trouble() {
        let mut watch = watch();
        for now in 0..100 {
            assert!(!watch.look(at(now * 1_000), now % 9 != 0), "S6");
        }
        assert!(!watch.is_in_trouble(at(100_000)));
    }

    #[test]
    fn who_has_waited_long_and_has_got_on_is_not_in_trouble_when_the_answers_come() {
        let mut watch = watch();
        watch.look(at(0), true);
        assert!(watch.look(at(10_000), true));
        watch.look(at(10_030), false);
        watch.answered();
        assert!(!watch.is_in_trouble(at(10_060)));
        assert!(!watch.look(at(10_060), true), "the limit begins anew");
        assert!(watch.look(at(20_060), true));
    }

    #[test]
    fn a_da_layer_is_better_that_answers_or_is_well_ahead() {
        let height = |height| Some(DaHeight(height));
        assert!(no_better(None, height(1)).is_ok());
        assert!(no_better(height(100), height(111)).is_ok(), "this node's DA node has lost the network");
        for (own, other) in
            [(None, None), (height(1), None), (height(100), height(110)), (height(9), height(1))]
        {
            assert!(no_better(own, other).is_err(), "S5: {own:?} {other:?}");
        }
    }
}
