//! Changes of the membership: what is asked, what is checked, what becomes of it.
//!
//! One change at a time, compare-and-set on the entry that carried the membership (I12). Voters
//! change in one joint step. Nothing that could lose quorum is done, also not when it is forced.

use std::collections::{BTreeMap, BTreeSet};

use baton_messages::cluster::{ChangeError, Condition, MemberChange};
use baton_messages::types::{Height, LogIndex, Member, MemberId};
use baton_storage::raft_types::Membership;
use openraft::ChangeMembers;
use uuid::Uuid;

use super::wire::Identity;

/// A learner may lag the end of the log by this many entries and still be promoted.
const NEAR: u64 = 256;

/// What the leader knows when it is asked.
#[derive(Clone, Debug)]
pub struct Situation {
    /// The leader.
    pub own: MemberId,
    /// Its cluster.
    pub cluster: Option<Uuid>,
    /// The effective membership.
    pub membership: Membership,
    /// The entry that carried it.
    pub version: LogIndex,
    /// The last index in the leader's log.
    pub last_log: u64,
    /// Up to where each member's log is known to be the leader's.
    pub matched: BTreeMap<MemberId, u64>,
    /// Who answered a heartbeat lately; the leader too.
    pub reachable: BTreeSet<MemberId>,
    /// How each member is, as it said last.
    pub conditions: BTreeMap<MemberId, Condition>,
    /// From here to its tip the leader has every body.
    pub first_body: Height,
    /// What the member holds that is to go, as it said just now; `None`: it does not answer.
    pub holds: Option<Holds>,
}

/// Accepted transactions that a member holds and that are in no block it has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holds {
    /// So many.
    Known(u64),
    /// It is there, and this is why it did not say.
    Unknown(String),
}

/// Who is no member any more after a change.
#[must_use]
pub fn leaver(change: &MemberChange) -> Option<&str> {
    match change {
        MemberChange::Remove(name) | MemberChange::Replace { old: name, .. } => Some(name),
        MemberChange::Add { .. } | MemberChange::Promote(_) | MemberChange::Demote(_) => None,
    }
}

/// What is to be proposed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// In openraft's words.
    pub change: ChangeMembers<MemberId, Member>,
    /// Whether voters that are removed stay as learners.
    pub retain: bool,
}

fn refused<T>(reason: impl Into<String>) -> Result<T, ChangeError> {
    Err(ChangeError::Refused(reason.into()))
}

impl Situation {
    /// Decides about a change. `identified` is who answers at the address of an addition.
    /// `None`: it is so already.
    ///
    /// # Errors
    ///
    /// Why it is not done. Nothing is changed then.
    pub fn plan(
        &self,
        change: &MemberChange,
        force: bool,
        identified: Option<&Identity>,
    ) -> Result<Option<Change>, ChangeError> {
        if self.membership.get_joint_config().len() > 1 {
            return Err(ChangeError::InProgress);
        }
        match change {
            MemberChange::Add { name, address } => self.add(name, address, identified),
            MemberChange::Promote(names) => self.promote(names, force),
            MemberChange::Demote(name) => {
                let id = self.voter(name)?;
                self.not_the_leader(id, name)?;
                self.keeps_quorum(|voters| voters.retain(|voter| *voter != id), force)?;
                let change = ChangeMembers::RemoveVoters(BTreeSet::from([id]));
                Ok(Some(Change { change, retain: true }))
            }
            MemberChange::Remove(name) => self.remove(name, force),
            MemberChange::Replace { old, new } => self.replace(old, new, force),
        }
    }

    fn add(
        &self,
        name: &str,
        address: &str,
        identified: Option<&Identity>,
    ) -> Result<Option<Change>, ChangeError> {
        let Some(found) = identified else { return refused(format!("nobody answers at {address}")) };
        let member = Member { name: name.to_owned(), address: address.to_owned(), ..found.member.clone() };
        let id = MemberId::of(member.storage);
        if found.member.name != name {
            return refused(format!("the node at {address} is called {}, not {name}", found.member.name));
        }
        if let Some(known) = self.membership.get_node(&id) {
            if *known == member {
                return Ok(None);
            }
            if known.name != name {
                return refused(format!("the storage at {address} is that of member {} already", known.name));
            }
            // The same storage under another address: it has moved.
            let change = ChangeMembers::SetNodes(BTreeMap::from([(id, member)]));
            return Ok(Some(Change { change, retain: true }));
        }
        if self.membership.nodes().any(|(_, known)| known.name == name) {
            return refused(format!(
                "there is a member {name} already, with another storage: a node that lost its disk is a \
                 stranger. Add it under a new name and replace {name}, or remove {name} first"
            ));
        }
        match found.cluster {
            Some(other) if self.cluster != Some(other) => {
                return refused(format!("the node at {address} belongs to cluster {other}"));
            }
            Some(_) | None => {}
        }
        if found.initialised && found.cluster.is_none() {
            return refused(format!("the node at {address} has a membership of its own"));
        }
        Ok(Some(Change { change: ChangeMembers::AddNodes(BTreeMap::from([(id, member)])), retain: true }))
    }

    fn promote(&self, names: &[String], force: bool) -> Result<Option<Change>, ChangeError> {
        if names.is_empty() {
            return refused("name at least one learner");
        }
        let mut ids = BTreeSet::new();
        for name in names {
            let id = self.learner(name)?;
            self.is_level(id, name, force)?;
            ids.insert(id);
        }
        let add = |voters: &mut BTreeSet<MemberId>| voters.extend(&ids);
        self.keeps_quorum(add, force)?;
        self.keeps_bodies(add)?;
        Ok(Some(Change { change: ChangeMembers::AddVoterIds(ids), retain: true }))
    }

    fn remove(&self, name: &str, force: bool) -> Result<Option<Change>, ChangeError> {
        let id = self.id(name)?;
        self.holds_nothing(name, force)?;
        if !self.is_voter(id) {
            let change = ChangeMembers::RemoveNodes(BTreeSet::from([id]));
            return Ok(Some(Change { change, retain: true }));
        }
        self.not_the_leader(id, name)?;
        self.keeps_quorum(|voters| voters.retain(|voter| *voter != id), force)?;
        Ok(Some(Change { change: ChangeMembers::RemoveVoters(BTreeSet::from([id])), retain: false }))
    }

    fn replace(&self, old: &str, new: &str, force: bool) -> Result<Option<Change>, ChangeError> {
        let (out, into) = (self.voter(old)?, self.learner(new)?);
        self.not_the_leader(out, old)?;
        self.holds_nothing(old, force)?;
        self.is_level(into, new, force)?;
        let swap = |voters: &mut BTreeSet<MemberId>| {
            voters.remove(&out);
            voters.insert(into);
        };
        self.keeps_quorum(swap, force)?;
        self.keeps_bodies(swap)?;
        let change = ChangeMembers::Batch(vec![
            ChangeMembers::AddVoterIds(BTreeSet::from([into])),
            ChangeMembers::RemoveVoters(BTreeSet::from([out])),
        ]);
        Ok(Some(Change { change, retain: false }))
    }

    fn id(&self, name: &str) -> Result<MemberId, ChangeError> {
        let found = self.membership.nodes().find(|(_, member)| member.name == name);
        found.map_or_else(|| refused(format!("there is no member {name}")), |(id, _)| Ok(*id))
    }

    fn is_voter(&self, id: MemberId) -> bool {
        self.membership.voter_ids().any(|voter| voter == id)
    }

    fn voter(&self, name: &str) -> Result<MemberId, ChangeError> {
        let id = self.id(name)?;
        if self.is_voter(id) { Ok(id) } else { refused(format!("{name} is a learner")) }
    }

    fn learner(&self, name: &str) -> Result<MemberId, ChangeError> {
        let id = self.id(name)?;
        if self.is_voter(id) { refused(format!("{name} votes already")) } else { Ok(id) }
    }

    fn not_the_leader(&self, id: MemberId, name: &str) -> Result<(), ChangeError> {
        if id == self.own {
            return refused(format!("{name} leads: hand leadership over first (`baton handoff`)"));
        }
        Ok(())
    }

    fn is_level(&self, id: MemberId, name: &str, force: bool) -> Result<(), ChangeError> {
        if !self.reachable.contains(&id) {
            return refused(format!("{name} does not answer"));
        }
        if force {
            return Ok(());
        }
        let matched = self.matched.get(&id).copied().unwrap_or(0);
        if matched.saturating_add(NEAR) < self.last_log {
            return refused(format!(
                "{name} has the log up to {matched} of {}: wait until it is level",
                self.last_log
            ));
        }
        let Some(condition) = self.conditions.get(&id) else {
            return refused(format!("{name} has not said yet how it is: wait a moment"));
        };
        if condition.first_body > self.first_body {
            return refused(format!(
                "{name} has block bodies from {} only, not yet from {}: wait until they are filled in",
                condition.first_body, self.first_body
            ));
        }
        Ok(())
    }

    /// What a member has accepted stays on its disk when it goes, and nobody takes it from a stranger
    /// (P3). Of a dead one nothing can be had.
    fn holds_nothing(&self, name: &str, force: bool) -> Result<(), ChangeError> {
        match &self.holds {
            _ if force => Ok(()),
            None | Some(Holds::Known(0)) => Ok(()),
            Some(Holds::Known(count)) => refused(format!(
                "{name} holds {count} accepted transactions that are in no block yet: let nobody post to it, \
                 demote it, and wait until they are sequenced; --force leaves them on its disk"
            )),
            Some(Holds::Unknown(reason)) => refused(format!(
                "{name} answers, and does not say whether it holds accepted transactions ({reason}): wait until \
                 its evnode_queue_txs is 0, then use --force"
            )),
        }
    }

    /// Of the voters there will be a majority must have what this leader has of the chain, also when
    /// a person insists: history that only a minority holds is lost with that minority.
    fn keeps_bodies(&self, change: impl FnOnce(&mut BTreeSet<MemberId>)) -> Result<(), ChangeError> {
        let mut voters: BTreeSet<MemberId> = self.membership.voter_ids().collect();
        change(&mut voters);
        let whole = |id: &&MemberId| {
            let told = self.conditions.get(id).map(|condition| condition.first_body);
            **id == self.own || told.is_some_and(|first| first <= self.first_body)
        };
        let whole = voters.iter().filter(whole).count();
        if whole <= voters.len() / 2 {
            return refused(format!(
                "of the {} voters there would be then only {whole} have block bodies from {}: wait until they \
                 are filled in",
                voters.len(),
                self.first_body
            ));
        }
        Ok(())
    }

    /// The new voters must have a majority that answers; two of them need a person's word, for
    /// then each of them is needed always.
    fn keeps_quorum(
        &self,
        change: impl FnOnce(&mut BTreeSet<MemberId>),
        force: bool,
    ) -> Result<(), ChangeError> {
        let mut voters: BTreeSet<MemberId> = self.membership.voter_ids().collect();
        change(&mut voters);
        let reachable = voters.intersection(&self.reachable).count();
        if reachable <= voters.len() / 2 {
            return refused(format!(
                "of the {} voters there would be then only {reachable} answer now: that is no majority",
                voters.len()
            ));
        }
        if voters.len() == 2 && !force {
            return refused("two voters stop when either of them does: have one or three, or use --force");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> MemberId {
        MemberId::of(storage(number))
    }

    fn storage(number: u64) -> Uuid {
        Uuid::from_u64_pair(number, 0)
    }

    fn member(number: u64) -> Member {
        Member {
            name: format!("n{number}"),
            address: format!("h:{number}"),
            storage: storage(number),
            witness: false,
        }
    }

    /// The first leads; everybody answers and is level.
    fn situation(voters: u64, learners: u64) -> Situation {
        let nodes: BTreeMap<_, _> = (1..=voters + learners).map(|n| (id(n), member(n))).collect();
        let config: BTreeSet<_> = (1..=voters).map(id).collect();
        let condition = Condition { first_body: Height(1), ..Condition::default() };
        Situation {
            own: id(1),
            cluster: Some(Uuid::from_u128(1)),
            membership: Membership::new(vec![config], nodes.clone()).expect("coherent"),
            version: LogIndex(1),
            last_log: 1000,
            matched: nodes.keys().map(|id| (*id, 1000)).collect(),
            reachable: nodes.keys().copied().collect(),
            conditions: nodes.keys().map(|id| (*id, condition.clone())).collect(),
            first_body: Height(1),
            holds: None,
        }
    }

    fn planned(now: &Situation, change: &MemberChange) -> Result<Option<Change>, ChangeError> {
        now.plan(change, false, None)
    }

    fn words(result: Result<Option<Change>, ChangeError>) -> String {
        result.expect_err("refused").to_string()
    }

    fn promote(names: &[&str]) -> MemberChange {
        MemberChange::Promote(names.iter().map(|name| (*name).to_owned()).collect())
    }

    fn add(number: u64) -> MemberChange {
        MemberChange::Add { name: format!("n{number}"), address: format!("h:{number}") }
    }

    fn identity(number: u64) -> Identity {
        Identity { member: member(number), ..Identity::default() }
    }

    #[test]
    fn an_empty_node_is_added_once() {
        let now = situation(1, 0);
        let planned = now.plan(&add(2), false, Some(&identity(2))).expect("an empty node");
        let nodes = BTreeMap::from([(id(2), member(2))]);
        assert_eq!(planned, Some(Change { change: ChangeMembers::AddNodes(nodes), retain: true }));
        let now = situation(1, 1);
        assert_eq!(now.plan(&add(2), false, Some(&identity(2))), Ok(None));
    }

    #[test]
    fn a_member_that_moved_gets_its_new_address() {
        let now = situation(2, 0);
        let moved = MemberChange::Add { name: "n2".into(), address: "elsewhere:2".into() };
        let planned = now.plan(&moved, false, Some(&identity(2))).expect("the same storage");
        let change = planned.expect("another address").change;
        let ChangeMembers::SetNodes(nodes) = change else { panic!("{change:?}") };
        assert_eq!(nodes[&id(2)].address, "elsewhere:2");
    }

    #[test]
    fn a_wiped_disk_is_a_stranger_whatever_the_node_is_called() {
        let now = situation(3, 0);
        let mut wiped = identity(3);
        wiped.member.storage = storage(99);
        let reason = words(now.plan(&add(3), false, Some(&wiped)));
        assert!(reason.contains("another storage"), "{reason}");
    }

    #[test]
    fn nobody_of_another_cluster_or_name_is_added() {
        let now = situation(1, 0);
        let other = Identity { cluster: Some(Uuid::from_u128(2)), ..identity(2) };
        assert!(words(now.plan(&add(2), false, Some(&other))).contains("belongs to cluster"));
        let formed = Identity { initialised: true, ..identity(2) };
        assert!(words(now.plan(&add(2), false, Some(&formed))).contains("membership of its own"));
        assert!(words(now.plan(&add(2), false, Some(&identity(3)))).contains("is called n3"));
        assert!(words(now.plan(&add(2), false, None)).contains("nobody answers"));
    }

    #[test]
    fn two_voters_need_a_persons_word() {
        let now = situation(1, 2);
        assert!(words(planned(&now, &promote(&["n2"]))).contains("--force"));
        assert!(now.plan(&promote(&["n2"]), true, None).is_ok());
        let both = planned(&now, &promote(&["n2", "n3"])).expect("three voters").expect("a change");
        assert_eq!(both.change, ChangeMembers::AddVoterIds(BTreeSet::from([id(2), id(3)])));
        let now = situation(3, 0);
        assert!(words(planned(&now, &MemberChange::Remove("n3".into()))).contains("--force"));
    }

    #[test]
    fn who_is_not_level_is_not_promoted() {
        let both = promote(&["n2", "n3"]);
        let mut now = situation(1, 2);
        now.matched.insert(id(3), 1000 - NEAR - 1);
        assert!(words(planned(&now, &both)).contains("wait until it is level"));
        let mut now = situation(1, 2);
        now.conditions.get_mut(&id(2)).expect("there").first_body = Height(5);
        assert!(words(planned(&now, &both)).contains("filled in"));
        assert!(now.plan(&both, true, None).is_ok(), "forced");
        now.conditions.get_mut(&id(3)).expect("there").first_body = Height(5);
        let hollow = words(now.plan(&both, true, None));
        assert!(hollow.contains("only 1 have block bodies"), "also not by force: {hollow}");
        let mut now = situation(1, 2);
        now.conditions.remove(&id(2));
        assert!(words(planned(&now, &both)).contains("how it is"));
    }

    #[test]
    fn quorum_is_never_given_away_also_not_by_force() {
        let mut now = situation(3, 0);
        now.reachable = BTreeSet::from([id(1), id(2)]);
        let remove = MemberChange::Remove("n2".into());
        assert!(words(now.plan(&remove, true, None)).contains("no majority"));
        let mut now = situation(1, 2);
        now.reachable = BTreeSet::from([id(1)]);
        assert!(words(now.plan(&promote(&["n2", "n3"]), true, None)).contains("does not answer"));
    }

    #[test]
    fn a_dead_voter_is_replaced_in_one_change() {
        let mut now = situation(3, 1);
        now.reachable.remove(&id(3));
        let replace = MemberChange::Replace { old: "n3".into(), new: "n4".into() };
        let change = planned(&now, &replace).expect("a majority answers").expect("a change");
        assert!(!change.retain, "the dead one is no member afterwards");
        let ChangeMembers::Batch(steps) = change.change else { panic!("one joint change") };
        assert_eq!(steps.len(), 2);
    }

    #[test]
    fn the_leader_hands_over_before_it_goes() {
        let now = situation(3, 0);
        for change in [MemberChange::Remove("n1".into()), MemberChange::Demote("n1".into())] {
            assert!(words(planned(&now, &change)).contains("hand leadership over"));
        }
    }

    #[test]
    fn a_demoted_voter_stays_as_a_learner_and_a_removed_one_goes() {
        let now = situation(5, 1);
        let demoted = planned(&now, &MemberChange::Demote("n5".into())).expect("four").expect("a change");
        assert!(demoted.retain);
        let removed = planned(&now, &MemberChange::Remove("n5".into())).expect("four").expect("a change");
        assert!(!removed.retain);
        let learner =
            planned(&now, &MemberChange::Remove("n6".into())).expect("a learner").expect("a change");
        assert_eq!(learner.change, ChangeMembers::RemoveNodes(BTreeSet::from([id(6)])));
    }

    #[test]
    fn who_holds_accepted_transactions_does_not_go_without_a_persons_word() {
        let (remove, learner) = (MemberChange::Remove("n3".into()), MemberChange::Remove("n5".into()));
        let replace = MemberChange::Replace { old: "n3".into(), new: "n5".into() };
        for change in [&remove, &learner, &replace] {
            assert!(leaver(change).is_some());
            let mut now = situation(4, 1);
            now.holds = Some(Holds::Known(7));
            let reason = words(planned(&now, change));
            assert!(reason.contains("holds 7 accepted transactions"), "{reason}");
            assert!(now.plan(change, true, None).is_ok(), "forced");
            now.holds = Some(Holds::Unknown("an older version".to_owned()));
            let reason = words(planned(&now, change));
            assert!(reason.contains("an older version") && reason.contains("--force"), "{reason}");
            for nothing in [Some(Holds::Known(0)), None] {
                now.holds = nothing;
                assert!(planned(&now, change).is_ok());
            }
        }
        let demote = MemberChange::Demote("n3".into());
        let mut now = situation(4, 0);
        now.holds = Some(Holds::Known(7));
        assert!(
            leaver(&demote).is_none() && planned(&now, &demote).is_ok(),
            "learners hand on what they hold"
        );
    }

    #[test]
    fn names_that_are_not_there_and_steps_that_make_no_sense_are_named() {
        let now = situation(3, 1);
        assert!(words(planned(&now, &promote(&["n9"]))).contains("no member n9"));
        assert!(words(planned(&now, &promote(&["n2"]))).contains("votes already"));
        assert!(words(planned(&now, &promote(&[]))).contains("at least one"));
        assert!(words(planned(&now, &MemberChange::Demote("n4".into()))).contains("is a learner"));
    }

    #[test]
    fn one_change_at_a_time() {
        let mut now = situation(3, 1);
        let nodes: BTreeMap<_, _> = (1..=4).map(|n| (id(n), member(n))).collect();
        let configs = vec![(1..=3).map(id).collect(), (1..=4).map(id).collect()];
        now.membership = Membership::new(configs, nodes).expect("coherent");
        assert_eq!(planned(&now, &promote(&["n4"])), Err(ChangeError::InProgress));
    }
}
