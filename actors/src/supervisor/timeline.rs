//! How long a failover takes, stage by stage: detected, elected, granted, first block.

use std::time::Duration;

use baton_messages::supervisor::Failover;
use baton_messages::types::{MemberId, Role, Term};

use super::peers::Moment;

/// Why there is another leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// None was known before.
    Start,
    /// The one before gave leadership away.
    HandOff,
    /// The one before stopped its heartbeats.
    Silent,
    /// The one before was not heard any more.
    Lost,
}

impl Cause {
    /// The word in logs, metrics and audit record.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::HandOff => "hand-off",
            Self::Silent => "silent",
            Self::Lost => "lost",
        }
    }
}

/// A stage of a failover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// From the last sign of the leader before to knowing that it does not lead any more.
    Detected,
    /// From there to a leader of a later term.
    Elected,
    /// From there to the grant; on the new leader only.
    Granted,
    /// From there to the first block, or from the election where the grant is not seen.
    FirstBlock,
}

impl Stage {
    /// The word in logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Detected => "detected",
            Self::Elected => "elected",
            Self::Granted => "granted",
            Self::FirstBlock => "first block",
        }
    }
}

/// A stage that ended, and how long it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Which.
    pub stage: Stage,
    /// The term, once it is known.
    pub term: Term,
    /// Why there is another leader.
    pub cause: Cause,
    /// How long it took.
    pub took: Duration,
}

/// What is known of the failover that is on its way.
#[derive(Debug, Default)]
pub struct Timeline {
    known: Option<(Term, MemberId)>,
    /// The last sign of a leader.
    sign: Moment,
    /// The end of the last stage; `None` while nothing is on its way.
    since: Option<Moment>,
    /// Its leader is elected.
    elected: bool,
    cause: Option<Cause>,
    last: Option<Failover>,
}

impl Timeline {
    /// A sign of the leader: a condition, a heartbeat, a block.
    pub fn sign(&mut self, now: Moment) {
        if self.since.is_none() {
            self.sign = now;
        }
    }

    /// The leader that is known, and its term.
    #[must_use]
    pub const fn known(&self) -> Option<(Term, MemberId)> {
        self.known
    }

    /// Why there is, or will be, another leader.
    #[must_use]
    pub fn cause(&self) -> Cause {
        self.cause.unwrap_or(Cause::Start)
    }

    /// The last failover that ended in a block.
    #[must_use]
    pub const fn last(&self) -> Option<&Failover> {
        self.last.as_ref()
    }

    /// Role, term or leader changed. `cause`: what the last condition of the leader before says.
    pub fn leadership_changed(
        &mut self,
        now: Moment,
        term: Term,
        role: Role,
        leader: Option<MemberId>,
        cause: Cause,
    ) -> Vec<Ended> {
        let is_news = match (self.known, leader) {
            (Some(known), Some(leader)) => known != (term, leader),
            (Some((known, _)), None) => term != known || role == Role::Candidate,
            (None, _) => true,
        };
        if !is_news {
            return vec![];
        }
        let mut ended = Vec::new();
        if self.since.is_none() || self.elected {
            self.elected = false;
            let cause = if self.known.is_some() { cause } else { Cause::Start };
            self.cause = Some(cause);
            self.since = Some(now);
            let took = now.saturating_sub(self.sign);
            ended.push(Ended { stage: Stage::Detected, term, cause, took });
        }
        if let Some(leader) = leader {
            self.known = Some((term, leader));
            self.elected = true;
            ended.extend(self.end(Stage::Elected, term, now));
        }
        ended
    }

    /// This node got a grant.
    pub fn granted(&mut self, now: Moment, term: Term) -> Option<Ended> {
        if !self.elected {
            return None;
        }
        self.end(Stage::Granted, term, now)
    }

    /// A block of this term is applied.
    pub fn applied(&mut self, now: Moment, term: Term) -> Option<Ended> {
        if !self.elected || self.known.is_none_or(|(known, _)| term != known) {
            self.sign(now);
            return None;
        }
        let ended = self.end(Stage::FirstBlock, term, now)?;
        let took_ms = u64::try_from(now.saturating_sub(self.sign).as_millis()).unwrap_or(u64::MAX);
        self.last = Some(Failover { term, cause: self.cause().name(), took_ms });
        self.since = None;
        self.elected = false;
        self.sign(now);
        Some(ended)
    }

    /// An operator wants no blocks: an election that is over ends the failover, and the block that
    /// comes one day says nothing about it. Whether there was one on its way.
    pub fn expects_no_block(&mut self) -> bool {
        let ended = self.elected && self.since.is_some();
        if ended {
            self.since = None;
            self.elected = false;
        }
        ended
    }

    fn end(&mut self, stage: Stage, term: Term, now: Moment) -> Option<Ended> {
        let took = now.saturating_sub(self.since.replace(now)?);
        Some(Ended { stage, term, cause: self.cause(), took })
    }
}

#[cfg(test)]
mod tests {
    use super::super::peers::tests::at;
    use super::*;

    const ONE: Option<MemberId> = Some(MemberId(1));
    const TWO: Option<MemberId> = Some(MemberId(2));

    fn led_by_one() -> Timeline {
        let mut timeline = Timeline::default();
        timeline.leadership_changed(at(0), Term(1), Role::Follower, ONE, Cause::Lost);
        timeline.applied(at(10), Term(1));
        timeline
    }

    fn stages(ended: impl IntoIterator<Item = Ended>) -> Vec<(Stage, u128)> {
        ended.into_iter().map(|ended| (ended.stage, ended.took.as_millis())).collect()
    }

    #[test]
    fn a_failover_has_four_stages_on_the_new_leader() {
        let mut timeline = led_by_one();
        timeline.sign(at(100));
        let lost = timeline.leadership_changed(at(400), Term(2), Role::Candidate, None, Cause::Lost);
        assert_eq!(stages(lost), [(Stage::Detected, 300)]);
        let won = timeline.leadership_changed(at(410), Term(2), Role::Leader, TWO, Cause::Lost);
        assert_eq!(stages(won), [(Stage::Elected, 10)]);
        assert_eq!(stages(timeline.granted(at(415), Term(2))), [(Stage::Granted, 5)]);
        assert_eq!(stages(timeline.applied(at(422), Term(2))), [(Stage::FirstBlock, 7)]);
        assert_eq!(timeline.last(), Some(&Failover { term: Term(2), cause: "lost", took_ms: 322 }));
        assert_eq!(timeline.applied(at(500), Term(2)), None, "only the first");
    }

    #[test]
    fn a_follower_sees_it_too() {
        let mut timeline = led_by_one();
        timeline.sign(at(100));
        let won = timeline.leadership_changed(at(120), Term(2), Role::Follower, TWO, Cause::HandOff);
        assert_eq!(stages(won), [(Stage::Detected, 20), (Stage::Elected, 0)]);
        assert_eq!(stages(timeline.applied(at(150), Term(2))), [(Stage::FirstBlock, 30)]);
        assert_eq!(timeline.last().map(|last| (last.cause, last.took_ms)), Some(("hand-off", 50)));
    }

    #[test]
    fn a_leader_that_fails_before_its_first_block_prolongs_the_same_failover() {
        let mut timeline = led_by_one();
        timeline.sign(at(100));
        timeline.leadership_changed(at(400), Term(2), Role::Follower, TWO, Cause::Lost);
        timeline.sign(at(420));
        timeline.leadership_changed(at(800), Term(3), Role::Follower, ONE, Cause::Lost);
        timeline.applied(at(900), Term(3));
        assert_eq!(timeline.last().map(|last| last.took_ms), Some(800), "F5");
    }

    #[test]
    fn the_first_leader_is_a_start_and_the_same_news_is_none() {
        let mut timeline = Timeline::default();
        let first = timeline.leadership_changed(at(5), Term(1), Role::Leader, ONE, Cause::Lost);
        assert!(first.iter().all(|ended| ended.cause == Cause::Start));
        assert_eq!(timeline.leadership_changed(at(6), Term(1), Role::Leader, ONE, Cause::Lost), []);
        assert_eq!(timeline.known(), Some((Term(1), MemberId(1))));
    }

    #[test]
    fn the_first_block_after_an_operators_pause_does_not_count_as_slow_failover() {
        let mut timeline = led_by_one();
        timeline.leadership_changed(at(400), Term(2), Role::Candidate, None, Cause::Lost);
        assert!(!timeline.expects_no_block(), "nobody is elected yet: that is still measured");
        timeline.leadership_changed(at(410), Term(2), Role::Leader, TWO, Cause::Lost);
        assert!(timeline.expects_no_block());
        assert!(!timeline.expects_no_block());
        assert_eq!(timeline.applied(at(90_000), Term(2)), None);
        assert_eq!(timeline.last().map(|last| last.term), Some(Term(1)));
        let lost = timeline.leadership_changed(at(90_100), Term(3), Role::Candidate, None, Cause::Lost);
        assert_eq!(stages(lost), [(Stage::Detected, 100)]);
    }

    #[test]
    fn a_block_of_an_older_term_is_not_the_first_of_the_new_one() {
        let mut timeline = led_by_one();
        timeline.leadership_changed(at(400), Term(2), Role::Leader, TWO, Cause::Lost);
        assert_eq!(timeline.applied(at(401), Term(1)), None, "A7: it was on its way");
        assert!(timeline.applied(at(402), Term(2)).is_some());
    }
}
