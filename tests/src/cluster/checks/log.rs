//! The logs of all members: what Raft promises of them.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use baton_messages::types::{Hash, MemberId};

use crate::cluster::host::Host;

/// An entry: its term and a digest of its record.
type Entry = (u64, Hash);

/// Every entry that was ever in any log.
#[derive(Debug, Default)]
pub(super) struct Logs {
    /// By index and term: the record, and the term of the entry before.
    entries: BTreeMap<(u64, u64), (Hash, Option<u64>)>,
    /// What was decided at each index.
    decided: BTreeMap<u64, Entry>,
    /// Members whose disk is gone.
    pub(super) lost: BTreeSet<MemberId>,
}

/// How far the log of one life was looked at.
#[derive(Debug, Default)]
pub(super) struct SeenLog {
    /// The term of each entry that it holds.
    terms: BTreeMap<u64, u64>,
    applied: u64,
    /// The disk's writes when it was looked at.
    writes: Option<u64>,
    went_back: bool,
}

impl SeenLog {
    /// It begins with what its disk holds: what was not synced may be gone.
    pub(super) fn restarted(&mut self) {
        self.went_back = true;
        self.writes = None;
        self.terms.clear();
    }
}

impl Logs {
    pub(super) fn step(&mut self, host: &Host, hosts: &[Rc<Host>], seen: &mut SeenLog) {
        let Some(node) = host.node() else { return };
        let writes = host.with_machine(|machine| machine.disk.writes());
        if seen.writes == Some(writes) {
            return;
        }
        seen.writes = Some(writes);
        let reader = node.reader();
        if let Some((_, last)) = reader.last_log() {
            self.matching(host, last.0, seen);
        }
        if let Some((applied, term)) = reader.applied() {
            let entry = host.with_machine(|machine| machine.disk.entry(applied.0, false));
            if entry.is_some_and(|entry| entry.0 == term.0) {
                self.applied(host, hosts, applied.0, seen);
            } else {
                // It went on from a snapshot; its log, if there is one still, is none of it.
                seen.applied = applied.0;
            }
        }
    }

    /// Log matching: entries of one index and term are the same, and so is everything before.
    fn matching(&mut self, host: &Host, last: u64, seen: &mut SeenLog) {
        seen.terms.split_off(&(last + 1));
        let entry = |index| host.with_machine(|machine| machine.disk.entry(index, false));
        let mut index = last;
        // What is in memory only is not looked at yet.
        let mut found = entry(index);
        while found.is_none() && index > 0 && !seen.terms.contains_key(&index) && last - index < 64 {
            index -= 1;
            found = entry(index);
        }
        while let Some((term, hash)) = found {
            if seen.terms.insert(index, term) == Some(term) {
                return;
            }
            let before = index.checked_sub(1).and_then(entry);
            let previous = before.map(|(term, _)| term);
            let known = self.entries.entry((index, term)).or_insert((hash, previous));
            assert_eq!(
                known.0,
                hash,
                "log matching: n{} holds another entry {index} of term {term}",
                host.index()
            );
            if let (Some(known), Some(previous)) = (known.1, previous) {
                assert_eq!(known, previous, "log matching: below entry {index} of term {term}");
            }
            known.1 = known.1.or(previous);
            index = index.saturating_sub(1);
            found = before;
        }
    }

    /// What is decided never changes, a quorum of voters holds it durably, and nobody goes back.
    fn applied(&mut self, host: &Host, hosts: &[Rc<Host>], applied: u64, seen: &mut SeenLog) {
        let Some(node) = host.node() else { return };
        if applied < seen.applied {
            assert!(seen.went_back, "n{} applied {} and now {applied}", host.index(), seen.applied);
            seen.applied = applied;
        }
        seen.went_back = false;
        for index in seen.applied + 1..=applied {
            let Some(entry) = host.with_machine(|machine| machine.disk.entry(index, false)) else { continue };
            match self.decided.get(&index) {
                Some(before) => {
                    assert_eq!(
                        *before,
                        entry,
                        "I2: entry {index} was decided otherwise, n{} says, which has applied {:?}",
                        host.index(),
                        node.reader().applied()
                    );
                }
                None => {
                    self.durable(host, hosts, index, entry);
                    self.decided.insert(index, entry);
                }
            }
        }
        seen.applied = applied;
    }

    fn durable(&self, host: &Host, hosts: &[Rc<Host>], index: u64, entry: Entry) {
        let Some(node) = host.node() else { return };
        let membership = node.reader().membership();
        if membership.log_id().is_some_and(|log| log.index > index) {
            // It was decided under the membership before, which is not known any more.
            return;
        }
        // Of two, the newer one is enough once it has been entered alone, which may be so already.
        if let Some(voters) = membership.membership().get_joint_config().last() {
            let holds = |id: &MemberId| {
                let member = hosts.iter().find(|host| host.id() == *id);
                member.is_none_or(|member| {
                    self.lost.contains(id) || member.with_machine(|machine| machine.disk.holds(index, entry))
                })
            };
            let held = voters.iter().filter(|id| holds(id)).count();
            assert!(
                held * 2 > voters.len(),
                "P3: n{} applied entry {index} of term {}, {held} of {} voters hold it durably ({membership})",
                host.index(),
                entry.0,
                voters.len()
            );
        }
    }

    pub(super) fn holds_decided(&self, host: &Host) -> bool {
        let Some((index, decided)) = self.decided.last_key_value() else { return true };
        host.with_machine(|machine| machine.disk.holds(*index, *decided))
    }

    /// Leader completeness: the leader of a newer term than any before holds what was decided.
    pub(super) fn complete(&self, host: &Host) {
        let Some((index, decided)) = self.decided.last_key_value() else { return };
        let Some(node) = host.node() else { return };
        let last = node.reader().last_log().map_or(0, |(_, last)| last.0);
        assert!(
            last >= *index,
            "leader completeness: n{} leads with {last} entries, {index} are decided",
            host.index()
        );
        let own = host.with_machine(|machine| machine.disk.entry(*index, false));
        assert!(
            own.is_none_or(|own| own == *decided),
            "leader completeness: n{} leads with another entry {index}",
            host.index()
        );
    }
}
