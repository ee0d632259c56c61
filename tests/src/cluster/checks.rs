//! What must hold after every step, over all nodes and all their lives.

use std::collections::BTreeMap;
use std::rc::Rc;

use baton_actors::signer::audit::Event;
use baton_messages::types::{Hash, Height, MemberId};

use super::host::Host;

/// Everything that was ever seen.
#[derive(Debug, Default)]
pub(super) struct Checks {
    /// The block of each height that anybody applied.
    committed: BTreeMap<Height, Hash>,
    /// The header of each height that anybody signed.
    signed: BTreeMap<Height, Hash>,
    /// Who led each term.
    leaders: BTreeMap<u64, MemberId>,
    /// How far each node was looked at.
    seen: BTreeMap<usize, Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    tip: Height,
    audited: usize,
}

impl Checks {
    pub(super) fn step(&mut self, hosts: &[Rc<Host>]) {
        for host in hosts.iter().filter(|host| host.is_up()) {
            self.commits(host);
            self.signatures(host);
            self.terms(host);
            if let Some(node) = host.node() {
                let alarms = node.alarms();
                let allowed = node.announced_alarms();
                assert!(
                    alarms.iter().all(|alarm| allowed.iter().any(|word| alarm.contains(word))),
                    "n{} asks for a person: {alarms:?}",
                    host.index()
                );
            }
        }
    }

    /// I2, I6: one block per height, whoever applies it, and each on top of the one before.
    fn commits(&mut self, host: &Host) {
        let Some(node) = host.node() else { return };
        let seen = self.seen.entry(host.index()).or_default();
        let tip = node.tip().height;
        if tip == seen.tip {
            return;
        }
        // After a crash what was applied and not synced is applied again.
        let mut height = if tip < seen.tip { tip } else { seen.tip.next() };
        while height <= tip {
            // A store whose power is off, or that goes on from a snapshot, does not have it all.
            if height > Height(0)
                && let Ok(Some(hash)) = node.reader().hash(height)
            {
                let before = self.committed.insert(height, hash);
                assert!(
                    before.is_none_or(|before| before == hash),
                    "I2: n{} applied {hash} at height {height}, another one {before:?}",
                    host.index()
                );
                let header = node.reader().header(height).ok().flatten();
                let below = self.committed.get(&height.previous());
                if let (Some(header), Some(below)) = (header, below) {
                    assert_eq!(header.last_header_hash, below.to_bytes(), "I6: the parent is linked");
                }
            }
            height = height.next();
        }
        seen.tip = tip;
    }

    /// I1, P2: one header per height is signed, and only a committed one.
    fn signatures(&mut self, host: &Host) {
        let seen = self.seen.entry(host.index()).or_default();
        let lines = host.machine().audit.since(seen.audited);
        seen.audited += lines.len();
        for line in lines {
            if let Event::Signed { height, hash, .. } = line.event {
                let before = self.signed.insert(height, hash);
                assert!(before.is_none_or(|before| before == hash), "I1: two headers of {height} signed");
                let committed = self.committed.get(&height);
                assert!(
                    committed.is_none_or(|committed| *committed == hash),
                    "P2: n{} signed {hash} of height {height}, committed is {committed:?}",
                    host.index()
                );
            }
        }
    }

    /// One leader per term.
    fn terms(&mut self, host: &Host) {
        let Some(vote) = host.vote().filter(|vote| vote.committed) else { return };
        let before = self.leaders.insert(vote.leader_id.term, vote.leader_id.voted_for);
        assert!(
            before.is_none_or(|before| before == vote.leader_id.voted_for),
            "A8: two leaders of term {}",
            vote.leader_id.term
        );
    }
}
