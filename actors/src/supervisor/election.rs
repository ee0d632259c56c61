//! Who stands for election: the campaign gate and the caretaker's call.
//!
//! A node that may not produce leaves the election to one that may and can win. When no leader
//! appears it stands all the same, as caretaker: a cluster without a leader helps nobody (P6).

use std::time::Duration;

use baton_messages::types::{MemberId, Role};

use super::peers::{Moment, Peers, Position, Times};

/// What Raft is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Whether an election time-out makes this member stand.
    Campaign(bool),
    /// Stand now.
    Stand,
}

/// This member at the moment of a decision.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The moment.
    pub now: Moment,
    /// The others.
    pub peers: &'a Peers,
    /// It may produce.
    pub eligible: bool,
    /// It is shutting down.
    pub closing: bool,
    /// What it is.
    pub role: Role,
    /// Its log.
    pub position: Position,
}

/// The gate, and how long no leader was heard.
#[derive(Debug)]
pub struct Gate {
    times: Times,
    told: Option<bool>,
    leader: Option<MemberId>,
    /// When the leader was seen or heard last, or the node began to listen.
    led_at: Moment,
    stood_at: Option<Moment>,
}

impl Gate {
    /// A gate that begins to listen now, which is the beginning of time.
    #[must_use]
    pub const fn new(times: Times) -> Self {
        Self { times, told: None, leader: None, led_at: Duration::ZERO, stood_at: None }
    }

    /// Whoever is made leader counts as heard at that moment.
    pub fn leader_changed(&mut self, leader: Option<MemberId>, now: Moment) {
        if self.leader != leader && leader.is_some() {
            self.led_at = now;
        }
        self.leader = leader;
    }

    /// A leader was heard, by Raft too. That a member is there which once led says nothing: openraft
    /// names whom the stored vote names, also when that one came back and leads nothing any more.
    pub fn heard(&mut self, leader: MemberId, now: Moment) {
        if self.leader == Some(leader) {
            self.led_at = self.led_at.max(now);
        }
    }

    /// Raft was started again and knows nothing of what it was told.
    pub fn forget(&mut self) {
        self.told = None;
    }

    /// Whether some leader was heard not longer ago than the longest election time-out.
    #[must_use]
    pub fn is_led(&self, now: Moment) -> bool {
        now.saturating_sub(self.led_at) < self.times.election_max
    }

    /// Looks again.
    pub fn look(&mut self, view: &View<'_>) -> Vec<Action> {
        let mut actions = Vec::new();
        if view.role == Role::Leader {
            self.led_at = view.now;
        }
        if let Some(allowed) = self.may_stand(view)
            && self.told != Some(allowed)
        {
            self.told = Some(allowed);
            actions.push(Action::Campaign(allowed));
        }
        if self.must_stand(view) {
            self.stood_at = Some(view.now);
            actions.push(Action::Stand);
        }
        actions
    }

    /// `None`: the membership is not known, leave it as it is.
    fn may_stand(&self, view: &View<'_>) -> Option<bool> {
        view.peers.own()?;
        if view.closing {
            return Some(false);
        }
        if view.eligible || view.peers.is_sole_voter() {
            return Some(true);
        }
        if self.is_led(view.now) || view.now < self.times.election_max * 2 {
            return Some(false);
        }
        Some(self.is_overdue(view) || !self.somebody_can(view))
    }

    /// Somebody who may produce is heard from and can win: votes compare last entries.
    fn somebody_can(&self, view: &View<'_>) -> bool {
        let within = self.times.election_max * 2;
        let mut others = view.peers.recent_voters(view.now, within);
        others.any(|told| told.is_eligible() && !told.silent && view.position.is_matched_by(told))
    }

    fn must_stand(&self, view: &View<'_>) -> bool {
        let free = view.peers.is_voter() && !view.closing && !view.eligible && view.role == Role::Follower;
        let since = self.stood_at.map_or(Duration::ZERO, |at| view.now.saturating_sub(at));
        free && self.is_overdue(view) && (self.stood_at.is_none() || since >= self.patience(view))
    }

    fn is_overdue(&self, view: &View<'_>) -> bool {
        view.now.saturating_sub(self.led_at) >= self.patience(view)
    }

    /// Two rounds of elections, and a turn of one's own: two caretakers must not split the votes.
    fn patience(&self, view: &View<'_>) -> Duration {
        let Times { heartbeat, election_min, election_max } = self.times;
        (election_min + election_max) * 2 + heartbeat * 2 * view.peers.rank()
    }
}

#[cfg(test)]
mod tests {
    use baton_messages::cluster::{Condition, MembersChanged};

    use super::super::peers::tests::{at, cluster, fit, member, position, unfit};
    use super::*;

    const OPEN: Action = Action::Campaign(true);
    const SHUT: Action = Action::Campaign(false);

    fn view(peers: &Peers, now: u64) -> View<'_> {
        View {
            now: at(now),
            peers,
            eligible: false,
            closing: false,
            role: Role::Follower,
            position: position(10),
        }
    }

    fn gate() -> Gate {
        Gate::new(Times::default())
    }

    #[test]
    fn who_may_produce_may_stand() {
        let peers = cluster(3);
        assert_eq!(gate().look(&View { eligible: true, ..view(&peers, 0) }), [OPEN]);
    }

    #[test]
    fn who_may_not_produce_leaves_it_to_one_who_may_and_can_win() {
        let (mut gate, mut peers) = (gate(), cluster(3));
        assert_eq!(gate.look(&view(&peers, 0)), [SHUT]);
        peers.told(fit(2, 10), at(290));
        assert_eq!(gate.look(&view(&peers, 400)), []);
        // It is not heard any more: now anybody may.
        let mut late = Gate::new(Times::default());
        assert_eq!(late.look(&view(&peers, 400)), [SHUT]);
        peers.told(Condition { closing: true, ..fit(2, 10) }, at(401));
        assert_eq!(late.look(&view(&peers, 402)), [OPEN]);
    }

    #[test]
    fn an_eligible_voter_whose_log_is_behind_cannot_win() {
        let (mut gate, mut peers) = (gate(), cluster(3));
        peers.told(fit(2, 9), at(300));
        assert_eq!(gate.look(&view(&peers, 300)), [OPEN], "the witness alone has the last entry");
    }

    #[test]
    fn at_its_start_a_node_listens_before_it_takes_silence_for_absence() {
        let (mut gate, peers) = (gate(), cluster(3));
        assert_eq!(gate.look(&view(&peers, 299)), [SHUT]);
        assert_eq!(gate.look(&view(&peers, 300)), [OPEN]);
    }

    #[test]
    fn it_does_not_stand_beside_a_leader_that_is_heard() {
        let (mut gate, mut peers) = (gate(), cluster(3));
        gate.leader_changed(Some(MemberId(2)), at(0));
        for now in (0..2_000).step_by(30) {
            peers.told(unfit(2, 10, "engine: away"), at(now));
            gate.heard(MemberId(2), at(now));
            let expected = if now == 0 { vec![SHUT] } else { vec![] };
            assert_eq!(gate.look(&view(&peers, now)), expected, "a caretaker leads");
        }
    }

    /// It came back and lacks what it had: it tells how it is, and nobody leads.
    #[test]
    fn who_led_once_and_leads_nothing_now_keeps_nobody_from_standing() {
        let (mut gate, mut peers) = (gate(), cluster(3));
        gate.leader_changed(Some(MemberId(2)), at(300));
        let mut actions = vec![];
        for now in (300..=900).step_by(30) {
            peers.told(fit(2, 9), at(now));
            gate.heard(MemberId(3), at(now));
            actions.extend(gate.look(&view(&peers, now)));
        }
        assert_eq!(actions, [SHUT, OPEN, Action::Stand]);
    }

    #[test]
    fn when_no_leader_appears_it_stands_as_caretaker_again_and_again() {
        let (mut gate, mut peers) = (gate(), cluster(3));
        let mut stood = vec![];
        for now in (0..1_500).step_by(30) {
            // Somebody could, and does not.
            peers.told(fit(2, 10), at(now));
            if gate.look(&view(&peers, now)).contains(&Action::Stand) {
                stood.push(now);
            }
        }
        assert_eq!(stood, [480, 960, 1_440]);
    }

    #[test]
    fn two_caretakers_do_not_stand_at_once() {
        let mut peers = cluster(3);
        let voters = (1..=3).map(member).collect();
        peers.changed(MembersChanged { own: MemberId(3), voters, ..MembersChanged::default() });
        let mut gate = gate();
        assert!(!gate.look(&view(&peers, 599)).contains(&Action::Stand));
        assert!(gate.look(&view(&peers, 600)).contains(&Action::Stand));
    }

    #[test]
    fn a_sole_voter_always_may() {
        let peers = cluster(1);
        assert_eq!(gate().look(&view(&peers, 0)), [OPEN]);
    }

    #[test]
    fn who_is_shutting_down_never_stands() {
        let (mut gate, peers) = (gate(), cluster(3));
        assert_eq!(gate.look(&View { closing: true, eligible: true, ..view(&peers, 0) }), [SHUT]);
        assert_eq!(gate.look(&View { closing: true, ..view(&peers, 9_000) }), []);
        let sole = cluster(1);
        assert_eq!(Gate::new(Times::default()).look(&View { closing: true, ..view(&sole, 0) }), [SHUT]);
    }

    #[test]
    fn a_learner_and_a_node_without_a_cluster_never_stand() {
        let mut gate = gate();
        assert_eq!(gate.look(&view(&Peers::default(), 9_000)), []);
        let mut peers = cluster(1);
        let voters = vec![member(2)];
        let learners = vec![member(1)];
        peers.changed(MembersChanged { own: MemberId(1), voters, learners, ..MembersChanged::default() });
        assert!(!gate.look(&view(&peers, 9_000)).contains(&Action::Stand));
    }

    #[test]
    fn a_raft_that_was_started_again_is_told_again() {
        let (mut gate, peers) = (gate(), cluster(3));
        let eligible = View { eligible: true, ..view(&peers, 0) };
        assert_eq!(gate.look(&eligible), [OPEN]);
        assert_eq!(gate.look(&eligible), []);
        gate.forget();
        assert_eq!(gate.look(&eligible), [OPEN]);
    }
}
