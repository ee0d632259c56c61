//! What the other members told, and who of them could lead.

use std::collections::BTreeMap;
use std::time::Duration;

use baton_messages::cluster::{Condition, LeaderHint, MembersChanged, StopRefused};
use baton_messages::types::{Hash, Height, LogIndex, Member, MemberId, Term};

use super::plan::Part;

/// A moment, as the time since the supervisor started.
pub type Moment = Duration;

/// How long members of a cluster wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Pause between two heartbeats, and between two conditions.
    pub heartbeat: Duration,
    /// The shortest election time-out.
    pub election_min: Duration,
    /// The longest.
    pub election_max: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(30),
            election_min: Duration::from_millis(90),
            election_max: Duration::from_millis(150),
        }
    }
}

/// Where this member's own log and chain are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Term and index of the last log entry, as votes compare them.
    pub last_log: (Term, LogIndex),
    /// The last applied block.
    pub tip: Height,
}

impl Position {
    /// Whether the log of the member in this condition is not behind.
    #[must_use]
    pub fn is_matched_by(&self, condition: &Condition) -> bool {
        (condition.last_log_term, condition.last_log) >= self.last_log
    }
}

#[derive(Debug)]
struct Heard {
    condition: Condition,
    at: Moment,
}

/// The membership, and the last condition of every other member.
#[derive(Debug, Default)]
pub struct Peers {
    own: MemberId,
    voters: BTreeMap<MemberId, Member>,
    learners: BTreeMap<MemberId, Member>,
    heard: BTreeMap<MemberId, Heard>,
    /// To whom a transfer failed, and until when somebody else is chosen.
    cooling: BTreeMap<MemberId, Moment>,
    /// To whom leadership was given last.
    last_target: Option<MemberId>,
}

impl Peers {
    /// The membership is another.
    pub fn changed(&mut self, members: MembersChanged) {
        self.own = members.own;
        self.voters = members.voters.into_iter().collect();
        self.learners = members.learners.into_iter().collect();
        let Self { voters, learners, heard, cooling, .. } = self;
        let is_member = |id: &MemberId| voters.contains_key(id) || learners.contains_key(id);
        heard.retain(|id, _| is_member(id));
        cooling.retain(|id, _| is_member(id));
    }

    /// A member told how it is. What an earlier life of it said is no news.
    pub fn told(&mut self, condition: Condition, now: Moment) {
        let id = condition.member;
        let is_member = self.voters.contains_key(&id) || self.learners.contains_key(&id);
        if id == self.own || !is_member {
            return;
        }
        if self.heard.get(&id).is_some_and(|heard| heard.condition.boot > condition.boot) {
            return;
        }
        self.heard.insert(id, Heard { condition, at: now });
    }

    /// This member, once the membership is known.
    #[must_use]
    pub fn own(&self) -> Option<MemberId> {
        (!self.voters.is_empty()).then_some(self.own)
    }

    /// Whether this member votes.
    #[must_use]
    pub fn is_voter(&self) -> bool {
        self.voters.contains_key(&self.own)
    }

    /// Whether this member is the only voter.
    #[must_use]
    pub fn is_sole_voter(&self) -> bool {
        self.is_voter() && self.voters.len() == 1
    }

    /// How many voters make a quorum.
    #[must_use]
    pub fn quorum(&self) -> usize {
        self.voters.len() / 2 + 1
    }

    /// The place of this member among the voters, from zero.
    #[must_use]
    pub fn rank(&self) -> u32 {
        u32::try_from(self.voters.keys().take_while(|id| **id != self.own).count()).unwrap_or(u32::MAX)
    }

    /// The name of a member, or its id when it is no member.
    #[must_use]
    pub fn name(&self, id: MemberId) -> String {
        let member = self.voters.get(&id).or_else(|| self.learners.get(&id));
        member.map_or_else(|| id.to_string(), |member| member.name.clone())
    }

    /// What clients and operators need to reach a leader.
    #[must_use]
    pub fn hint(&self, id: MemberId, term: Term) -> LeaderHint {
        let member = self.voters.get(&id).or_else(|| self.learners.get(&id)).cloned().unwrap_or_default();
        let condition = self.heard.get(&id).map(|heard| heard.condition.clone()).unwrap_or_default();
        let (rpc, intake) = (condition.rpc, condition.intake);
        LeaderHint { id, name: member.name, address: member.address, rpc, intake, term }
    }

    /// What a member told, when that is not older than so long.
    #[must_use]
    pub fn recent(&self, id: MemberId, now: Moment, within: Duration) -> Option<&Condition> {
        let heard = self.heard.get(&id)?;
        (now.saturating_sub(heard.at) <= within).then_some(&heard.condition)
    }

    /// How long ago each other member was heard, by name.
    pub fn ages(&self, now: Moment) -> impl Iterator<Item = (String, Option<Duration>)> + '_ {
        self.voters.iter().chain(&self.learners).filter(|(id, _)| **id != self.own).map(
            move |(id, member)| {
                let age = self.heard.get(id).map(|heard| now.saturating_sub(heard.at));
                (member.name.clone(), age)
            },
        )
    }

    /// The other voters that were heard within so long.
    pub fn recent_voters(&self, now: Moment, within: Duration) -> impl Iterator<Item = &Condition> {
        self.voters.keys().filter(|id| **id != self.own).filter_map(move |id| self.recent(*id, now, within))
    }

    /// The voter of this name.
    #[must_use]
    pub fn voter_named(&self, name: &str) -> Option<MemberId> {
        self.voters.iter().find(|(_, member)| member.name == name).map(|(id, _)| *id)
    }

    /// Why a member cannot take leadership over now. A witness has no settings that others could
    /// differ from: its `own_config` is `None`.
    ///
    /// # Errors
    ///
    /// The reason, short.
    pub fn fitness(
        &self,
        id: MemberId,
        own_config: Option<Hash>,
        now: Moment,
        within: Duration,
    ) -> Result<(), String> {
        let Some(member) = self.voters.get(&id) else { return Err("it is no voter".to_owned()) };
        if id == self.own {
            return Err("it leads already".to_owned());
        }
        if member.witness {
            return Err("it is a witness".to_owned());
        }
        let Some(condition) = self.recent(id, now, within) else {
            return Err("it is not heard".to_owned());
        };
        if condition.closing {
            return Err("it is shutting down".to_owned());
        }
        if own_config.is_some_and(|own| own != condition.config) {
            return Err("it has other settings".to_owned());
        }
        if condition.is_eligible() {
            return Ok(());
        }
        Err(condition.reasons.first().cloned().unwrap_or_else(|| "it is a witness".to_owned()))
    }

    /// What another voter told, if it could produce but for its settings: who stops anyway, or makes no
    /// blocks, may hand over to it, for it would be elected next (hazard D11).
    #[must_use]
    pub fn but_for_settings(&self, id: MemberId, now: Moment, within: Duration) -> Option<&Condition> {
        let member = self.voters.get(&id).filter(|member| id != self.own && !member.witness);
        member.and_then(|_| self.recent(id, now, within)).filter(|told| differs_in_settings_only(told))
    }

    /// The best of those who could produce but for their settings.
    #[must_use]
    pub fn best_with_other_settings(
        &self,
        position: &Position,
        now: Moment,
        within: Duration,
    ) -> Option<MemberId> {
        let fit = self.voters.keys().filter_map(|id| Some((*id, self.but_for_settings(*id, now, within)?)));
        fit.min_by_key(|(id, told)| (self.is_cooling(*id, now), !position.is_matched_by(told), *id))
            .map(|(id, _)| id)
    }

    /// Whether the others can do without this member (hazard F8).
    ///
    /// # Errors
    ///
    /// What would be missing.
    pub fn can_spare_own(
        &self,
        position: &Position,
        own_config: Option<Hash>,
        is_eligible: bool,
        now: Moment,
        within: Duration,
    ) -> Result<(), StopRefused> {
        if !self.is_voter() {
            return Ok(());
        }
        let (voters, quorum) = (self.voters.len(), self.quorum());
        let is_here = |told: &&Condition| {
            let (_, last) = position.last_log;
            !told.closing && !told.silent && !hangs(told) && last.0.saturating_sub(told.last_log.0) <= LEVEL
        };
        let left = self.recent_voters(now, within).filter(is_here).count();
        if left < quorum {
            return Err(StopRefused::NoQuorum { left, voters, quorum });
        }
        match self.best(position, own_config, now, within) {
            Err(reasons) if is_eligible && self.best_with_other_settings(position, now, within).is_none() => {
                Err(StopRefused::NobodyProduces(reasons))
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// The best voter to give leadership to: level before behind, then the next in turn, and
    /// nobody to whom a transfer failed just now while there is somebody else (hazard S5).
    ///
    /// # Errors
    ///
    /// Why each of the others cannot.
    pub fn best(
        &self,
        position: &Position,
        own_config: Option<Hash>,
        now: Moment,
        within: Duration,
    ) -> Result<MemberId, String> {
        self.best_of(position, own_config, now, within, |_| Ok(()))
    }

    /// As `best`, of those who are also good enough otherwise.
    ///
    /// # Errors
    ///
    /// As `best`.
    pub fn best_of(
        &self,
        position: &Position,
        own_config: Option<Hash>,
        now: Moment,
        within: Duration,
        also: impl Fn(MemberId) -> Result<(), String>,
    ) -> Result<MemberId, String> {
        let mut reasons = Vec::new();
        let mut fit = Vec::new();
        for id in self.voters.keys().filter(|id| **id != self.own) {
            match self.fitness(*id, own_config, now, within).and_then(|()| also(*id)) {
                Ok(()) => fit.push(*id),
                Err(reason) => reasons.push(format!("{}: {reason}", self.name(*id))),
            }
        }
        let in_turn = |id: MemberId| (self.last_target.is_some_and(|last| id <= last), id);
        let order = |id: &MemberId| {
            let cooling = self.is_cooling(*id, now);
            let behind = !self.recent(*id, now, within).is_some_and(|told| position.is_matched_by(told));
            (cooling, behind, in_turn(*id))
        };
        match fit.into_iter().min_by_key(order) {
            Some(best) => Ok(best),
            None if reasons.is_empty() => Err("there is no other voter".to_owned()),
            None => Err(reasons.join("; ")),
        }
    }

    /// Leadership is being given to a member.
    pub fn chosen(&mut self, target: MemberId) {
        self.last_target = Some(target);
    }

    /// A transfer to a member failed: until then somebody else is preferred.
    pub fn failed(&mut self, target: MemberId, until: Moment) {
        self.cooling.insert(target, until);
    }

    /// Whether a transfer to this member failed not long ago.
    #[must_use]
    pub fn is_cooling(&self, target: MemberId, now: Moment) -> bool {
        self.cooling.get(&target).is_some_and(|until| now < *until)
    }
}

/// Entries by which a voter may lag and count as level: it has them within a heartbeat or two.
const LEVEL: u64 = 64;

/// Whether a member could produce but for its settings.
#[must_use]
pub fn differs_in_settings_only(condition: &Condition) -> bool {
    let prefix = Part::Settings.name();
    let mut reasons = condition.reasons.iter();
    !condition.witness && !condition.closing && reasons.all(|reason| reason.split(':').next() == Some(prefix))
}

/// Whether a member says that its own storage hangs: then it can neither vote nor lead.
#[must_use]
pub fn hangs(condition: &Condition) -> bool {
    let prefix = Part::Storage.name();
    condition.reasons.iter().any(|reason| reason.split(':').next() == Some(prefix))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub const WITHIN: Duration = Duration::from_millis(150);

    pub const fn at(ms: u64) -> Moment {
        Duration::from_millis(ms)
    }

    pub fn member(id: u64) -> (MemberId, Member) {
        let names = ["zero", "one", "two", "three", "four", "five"];
        let name = names[usize::try_from(id).expect("small")].to_owned();
        (MemberId(id), Member { name, ..Member::default() })
    }

    /// Voters `1..=count`; this member is the first.
    pub fn cluster(count: u64) -> Peers {
        let mut peers = Peers::default();
        let voters = (1..=count).map(member).collect();
        peers.changed(MembersChanged { own: MemberId(1), voters, ..MembersChanged::default() });
        peers
    }

    /// A fit member whose log ends at this index of term 1, level with its chain of that height.
    pub fn fit(id: u64, index: u64) -> Condition {
        Condition {
            member: MemberId(id),
            last_log: LogIndex(index),
            last_log_term: Term(1),
            tip: Height(index),
            executed: Height(index),
            ..Condition::default()
        }
    }

    pub fn unfit(id: u64, index: u64, reason: &str) -> Condition {
        Condition { reasons: vec![reason.to_owned()], ..fit(id, index) }
    }

    pub fn position(index: u64) -> Position {
        Position { last_log: (Term(1), LogIndex(index)), tip: Height(index) }
    }

    fn best(peers: &Peers, now: u64) -> Result<MemberId, String> {
        peers.best(&position(10), Some(Hash::default()), at(now), WITHIN)
    }

    #[test]
    fn a_level_voter_is_better_than_one_that_is_behind() {
        let mut peers = cluster(3);
        peers.told(fit(2, 9), at(0));
        peers.told(fit(3, 10), at(0));
        assert_eq!(best(&peers, 10), Ok(MemberId(3)));
    }

    #[test]
    fn votes_compare_the_term_of_the_last_entry_before_its_index() {
        let behind = Condition { last_log_term: Term(1), ..fit(2, 99) };
        let own = Position { last_log: (Term(2), LogIndex(7)), tip: Height(0) };
        assert!(!own.is_matched_by(&behind));
        assert!(own.is_matched_by(&Condition { last_log_term: Term(3), ..fit(2, 1) }));
    }

    #[test]
    fn nobody_fit_is_said_with_every_reason() {
        let mut peers = cluster(4);
        peers.told(unfit(2, 10, "engine: away"), at(0));
        peers.told(Condition { closing: true, ..fit(3, 10) }, at(0));
        let reasons = "two: engine: away; three: it is shutting down; four: it is not heard";
        assert_eq!(best(&peers, 10), Err(reasons.to_owned()));
        assert_eq!(best(&cluster(1), 10), Err("there is no other voter".to_owned()));
    }

    #[test]
    fn what_was_told_grows_old() {
        let mut peers = cluster(2);
        peers.told(fit(2, 10), at(0));
        assert_eq!(best(&peers, 150), Ok(MemberId(2)));
        assert_eq!(best(&peers, 151), Err("two: it is not heard".to_owned()));
    }

    #[test]
    fn a_target_that_failed_is_passed_over_while_there_is_another() {
        let mut peers = cluster(3);
        peers.told(fit(2, 10), at(0));
        peers.told(fit(3, 10), at(0));
        assert_eq!(best(&peers, 0), Ok(MemberId(2)));
        peers.failed(MemberId(2), at(100));
        assert_eq!(best(&peers, 50), Ok(MemberId(3)));
        peers.failed(MemberId(3), at(100));
        assert_eq!(best(&peers, 50), Ok(MemberId(2)), "one of them is better than none");
        assert_eq!(best(&peers, 100), Ok(MemberId(2)), "it is tried again");
    }

    #[test]
    fn equals_take_turns() {
        let mut peers = cluster(3);
        peers.told(fit(2, 10), at(0));
        peers.told(fit(3, 10), at(0));
        peers.chosen(MemberId(2));
        assert_eq!(best(&peers, 0), Ok(MemberId(3)));
        peers.chosen(MemberId(3));
        assert_eq!(best(&peers, 0), Ok(MemberId(2)));
    }

    #[test]
    fn an_earlier_life_a_stranger_and_a_witness_are_never_chosen() {
        let mut peers = cluster(2);
        peers.told(Condition { boot: 2, closing: true, ..fit(2, 10) }, at(0));
        peers.told(Condition { boot: 1, ..fit(2, 10) }, at(1));
        peers.told(fit(5, 10), at(1));
        assert_eq!(best(&peers, 1), Err("two: it is shutting down".to_owned()));
        let (id, witness) = member(2);
        let voters = vec![member(1), (id, Member { witness: true, ..witness })];
        peers.changed(MembersChanged { own: MemberId(1), voters, ..MembersChanged::default() });
        assert_eq!(best(&peers, 1), Err("two: it is a witness".to_owned()));
    }

    #[test]
    fn a_member_with_other_settings_is_never_chosen() {
        let mut peers = cluster(2);
        peers.told(Condition { config: Hash::of(b"other"), ..fit(2, 10) }, at(0));
        assert_eq!(best(&peers, 1), Err("two: it has other settings".to_owned()));
    }

    #[test]
    fn a_witness_has_no_settings_that_others_differ_from() {
        let mut peers = cluster(3);
        peers.told(Condition { config: Hash::of(b"one"), ..fit(2, 9) }, at(0));
        peers.told(Condition { config: Hash::of(b"another"), ..fit(3, 10) }, at(0));
        assert_eq!(peers.best(&position(10), None, at(1), WITHIN), Ok(MemberId(3)));
        assert_eq!(peers.fitness(MemberId(2), None, at(1), WITHIN), Ok(()));
        peers.told(unfit(2, 9, "settings: other settings than the leader's"), at(1));
        assert!(peers.fitness(MemberId(2), None, at(1), WITHIN).is_err(), "what it says of itself counts");
    }

    fn spare(peers: &Peers, now: u64) -> Result<(), StopRefused> {
        peers.can_spare_own(&position(100), Some(Hash::default()), true, at(now), WITHIN)
    }

    #[test]
    fn a_voter_is_spared_only_by_a_level_majority_of_which_one_produces() {
        let mut peers = cluster(3);
        peers.told(fit(2, 100), at(0));
        let missing = StopRefused::NoQuorum { left: 1, voters: 3, quorum: 2 };
        assert_eq!(spare(&peers, 10), Err(missing.clone()), "three is not heard");
        peers.told(fit(3, 30), at(0));
        assert_eq!(spare(&peers, 10), Err(missing.clone()), "three lags");
        peers.told(Condition { closing: true, ..fit(3, 100) }, at(0));
        assert_eq!(spare(&peers, 10), Err(missing), "three is shutting down");
        peers.told(unfit(3, 100, "engine: away"), at(0));
        assert_eq!(spare(&peers, 10), Ok(()), "three votes and two produces");
        peers.told(unfit(2, 100, "engine: away"), at(0));
        assert!(matches!(spare(&peers, 10), Err(StopRefused::NobodyProduces(_))));
        let unfit_itself = peers.can_spare_own(&position(100), Some(Hash::default()), false, at(10), WITHIN);
        assert_eq!(unfit_itself, Ok(()), "it does not produce either");
        let nobody = StopRefused::NoQuorum { left: 0, voters: 3, quorum: 2 };
        assert_eq!(spare(&peers, 500), Err(nobody), "long ago");
    }

    #[test]
    fn a_sole_voter_is_never_spared_and_a_learner_always() {
        assert_eq!(spare(&cluster(1), 0), Err(StopRefused::NoQuorum { left: 0, voters: 1, quorum: 1 }));
        let mut peers = cluster(1);
        let (voters, learners) = (vec![member(2)], vec![member(1)]);
        peers.changed(MembersChanged { own: MemberId(1), voters, learners, ..MembersChanged::default() });
        assert_eq!(spare(&peers, 0), Ok(()));
    }

    #[test]
    fn who_differs_in_settings_only_comes_after_everybody_else() {
        let mut peers = cluster(3);
        let other = |id, index| Condition {
            config: Hash::of(b"new"),
            ..unfit(id, index, "settings: other settings than the leader's")
        };
        peers.told(other(2, 9), at(0));
        peers.told(other(3, 10), at(0));
        assert!(best(&peers, 1).is_err());
        assert_eq!(peers.best_with_other_settings(&position(10), at(1), WITHIN), Some(MemberId(3)));
        peers.told(Condition { reasons: vec!["disk: full".to_owned()], ..other(3, 10) }, at(0));
        assert_eq!(peers.best_with_other_settings(&position(10), at(1), WITHIN), Some(MemberId(2)));
    }

    #[test]
    fn who_leaves_the_membership_is_forgotten() {
        let mut peers = cluster(3);
        peers.told(fit(3, 10), at(0));
        let voters = (1..=2).map(member).collect();
        peers.changed(MembersChanged { own: MemberId(1), voters, ..MembersChanged::default() });
        assert_eq!(peers.recent(MemberId(3), at(0), WITHIN), None);
    }
}
