//! The person who sets nodes up anew that were lost, and looks after the membership.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use baton_messages::cluster::{ChangeMembers, MemberChange};
use baton_storage::memory::Keep;

use crate::cluster::{Cluster, name};

/// Between two looks.
const EVERY_MS: u64 = 100;

/// A change of the membership that somebody was asked for.
struct Changing {
    at: usize,
    /// Who begins another life has forgotten it.
    lives: u64,
    answered: Rc<RefCell<Option<()>>>,
}

/// What must be done about the membership.
#[derive(Default)]
pub(super) struct Operator {
    /// Machines that shall be voters again with the disk they have now.
    anew: BTreeSet<usize>,
    /// Machines that do not belong to the cluster any more; they stay off.
    pub(super) retired: BTreeSet<usize>,
    changing: Option<Changing>,
    next_ms: u64,
}

impl Operator {
    /// Whether something is still to be done.
    pub(super) fn is_busy(&self) -> bool {
        !self.anew.is_empty() || self.changing.is_some()
    }

    /// When it looks again.
    pub(super) const fn next_ms(&self) -> u64 {
        self.next_ms
    }

    /// A node that is down comes back with an empty disk and becomes a voter again.
    pub(super) fn set_up_anew(&mut self, index: usize, cluster: &mut Cluster) {
        cluster.write_off(index);
        cluster.expect_damage(index, false);
        cluster.wipe(index);
        self.anew.insert(index);
    }

    /// Asks for a change at a node, without waiting.
    pub(super) fn change(&mut self, at: usize, change: MemberChange, force: bool, cluster: &mut Cluster) {
        if self.changing.is_some() {
            return;
        }
        let lives = cluster.host(at).lives();
        let answered = cluster.begin(at, move |node| async move {
            let message = ChangeMembers { change, version: None, force };
            // Refusals are looked at again at the next look.
            let _ = node.ports().cluster.change.send(message).timeout(Duration::from_secs(10)).await;
        });
        self.changing = Some(Changing { at, lives, answered });
    }

    pub(super) fn step(&mut self, now_ms: u64, cluster: &mut Cluster) {
        if now_ms < self.next_ms {
            return;
        }
        self.next_ms = now_ms + EVERY_MS;
        if let Some(Changing { at, lives, answered }) = &self.changing {
            let remembers = cluster.is_up(*at) && cluster.host(*at).lives() == *lives;
            if answered.borrow().is_none() && remembers {
                return;
            }
            self.changing = None;
        }
        let (Some(leader), Some(membership)) = (cluster.leader(), cluster.membership()) else { return };
        let voters: BTreeSet<_> = membership.membership().voter_ids().collect();
        for index in self.anew.clone() {
            let id = cluster.id_of(index);
            let old = membership.nodes().find(|(other, member)| **other != id && member.name == name(index));
            if old.is_some() {
                return self.change(leader, MemberChange::Remove(name(index)), true, cluster);
            }
            if voters.contains(&id) {
                self.anew.remove(&index);
            } else if membership.nodes().any(|(other, _)| *other == id) {
                return self.change(leader, MemberChange::Promote(vec![name(index)]), true, cluster);
            }
            // Otherwise it asks to join by itself.
        }
    }

    /// Machines that were taken out of the membership are switched off.
    pub(super) fn retire(&mut self, cluster: &mut Cluster) {
        let Some(membership) = cluster.membership() else { return };
        for index in 0..cluster.len() {
            let id = cluster.id_of(index);
            let is_member = membership.nodes().any(|(other, _)| *other == id);
            if is_member || self.anew.contains(&index) || !cluster.was_member(index) {
                continue;
            }
            if cluster.is_up(index) {
                cluster.crash(index, Keep::All);
            }
            cluster.write_off(index);
            self.retired.insert(index);
        }
    }
}
