//! One more fault while everything else is well: nobody may wait for it to pass (L3).

use std::time::Duration;

use baton_messages::cluster::MemberChange;
use baton_messages::sequencer::SubmitError;
use baton_messages::types::Tx;
use bytes::Bytes;

use super::draw::Chance;
use super::drive::Drive;
use super::rest::LEVEL_MS;
use super::{DiskFault, History, Situation};
use crate::cluster::name;

/// A leader whose disk hangs is succeeded so soon: its watch, a hand-over in vain, an election.
const DISK_MS: u64 = 3_000;
/// A leader whose engine hangs is succeeded so soon: the limit of a call, and a hand-over.
const ENGINE_MS: u64 = 2_000 + 2_500;
/// A leader that lost and regained leadership unseen makes blocks again so soon.
const FLAP_MS: u64 = 2_500;
/// A leader that alone has lost DA is succeeded, and what waited is on DA, so soon: its watch, which
/// is a quarter of this, a question to the others, a hand-over, and the backlog.
const DA_MS: u64 = 20_000;
/// Whether a member is removed is answered so soon.
const REMOVED_MS: u64 = 12_000;
/// Who is removed knows it so soon: the longest election time-out, and a few heartbeats.
const TOLD_MS: u64 = 1_000;
/// Of a hundred histories so many have this second trial, and as many that.
const SECOND_OFTEN: u64 = 8;
/// Blocks that must come meanwhile.
const BLOCKS: u64 = 3;
/// How often Raft is asked for a transfer that a block on its way keeps from happening.
const ATTEMPTS: usize = 30;

impl Drive {
    /// Which one follows from the seed; histories in between are tried with something else.
    pub(super) fn trial(&mut self, history: &History) {
        let Some(leader) = self.cluster.leader().filter(|_| self.voters_up().len() >= 3) else { return };
        match history.seed % 4 {
            1 => {
                self.cluster.hang_disk(leader);
                self.blocks("L3: no block while the leader's disk hangs", DISK_MS);
                self.disk_is_well(leader, DiskFault::Hang);
            }
            2 => {
                self.cluster.script(leader).hang();
                self.blocks("L3: no block while the leader's engine hangs", ENGINE_MS);
                self.engine_is_well(leader);
            }
            3 => self.flap(leader),
            _ => {}
        }
    }

    /// Some have another one, by a chance of its own.
    pub(super) fn second_trial(&mut self, history: &History) {
        let Some(leader) = self.cluster.leader().filter(|_| self.voters_up().len() >= 3) else { return };
        let drawn = Chance::new(history.seed ^ 0x7365_636f_6e64).below(100);
        if drawn < SECOND_OFTEN {
            self.loses_da(leader);
        } else if drawn < 2 * SECOND_OFTEN {
            self.removed_runs_on(leader);
        }
    }

    /// L3: the others have their own ways to DA, and blocks come there (docs/adr/0019).
    fn loses_da(&mut self, leader: usize) {
        let heir = |index: &usize| *index != leader && !self.cluster.host(*index).is_witness();
        if !self.voters_up().iter().any(heir) {
            return;
        }
        self.cluster.cut_da(leader, true);
        let wanted = self.cluster.reached_heights().0.0 + BLOCKS;
        self.wait("L3: nothing comes to DA while the leader alone has lost it", DA_MS, |drive| {
            let leads = drive.cluster.leader().filter(|index| drive.cluster.is_up(*index));
            leads.is_some_and(|index| drive.cluster.reader(index).da_progress().included.0 >= wanted)
        });
        self.reached(Situation::DaSucceeded);
        self.cluster.cut_da(leader, false);
    }

    /// P3: nobody will ever take what a member accepts that is none any more, however well it runs.
    fn removed_runs_on(&mut self, leader: usize) {
        let others = self.voters_up().into_iter();
        let out =
            others.filter(|index| *index != leader).find(|index| !self.cluster.host(*index).is_witness());
        let Some(out) = out else { return };
        let id = self.cluster.id_of(out);
        self.operator.change(leader, MemberChange::Remove(name(out)), true, &mut self.cluster);
        self.wait("L1: a removal is not answered", REMOVED_MS, |drive| !drive.operator.is_busy());
        self.wait("L1: nobody leads", REMOVED_MS, |drive| drive.cluster.membership().is_some());
        let members = self.cluster.membership();
        if members.is_none_or(|members| members.nodes().any(|(member, _)| *member == id)) {
            // The others may not be able to do without it.
            return;
        }
        let oracle = self.cluster.machine(out).oracle;
        // What it had accepted stays there: that was forced.
        oracle.lost(out);
        let told = self.now_ms() + self.slowed(TOLD_MS);
        self.wait("L1: time does not pass", TOLD_MS * 2, |drive| drive.now_ms() >= told);
        let answer = self.cluster.post(out, Tx(Bytes::from_static(b"removed=1")));
        self.wait("P3: a removed member does not answer", TOLD_MS * 3, |_| answer.borrow().is_some());
        let answer = answer.borrow_mut().take();
        assert!(
            matches!(answer, Some(Ok(Err(SubmitError::NotReady(_))))),
            "P3: n{out} was removed, nobody will take what it accepts, and it says {answer:?}"
        );
        self.reached(Situation::RemovedRefused);
        self.wait("L1: nobody leads without it", LEVEL_MS, |drive| {
            let Self { operator, cluster, .. } = drive;
            operator.retire(cluster);
            operator.retired.contains(&out)
        });
    }

    /// Whether it is fit to lead; a witness never is.
    pub(super) fn can_lead(&self, index: usize) -> bool {
        self.cluster.host(index).is_witness() || self.cluster.is_fit(index)
    }

    pub(super) fn voters_up(&self) -> Vec<usize> {
        let Some(membership) = self.cluster.membership() else { return vec![] };
        let voters = membership.membership().voter_ids();
        let voters = voters.filter_map(|id| self.cluster.index_of(id));
        voters.filter(|index| self.cluster.is_up(*index)).collect()
    }

    fn blocks(&mut self, what: &str, within_ms: u64) {
        let wanted = self.cluster.reached_heights().0.0 + BLOCKS;
        self.wait(what, within_ms, |drive| drive.cluster.reached_heights().0.0 >= wanted);
    }

    /// Somebody else leads in between, and the supervisor hears of the end only (E14).
    fn flap(&mut self, leader: usize) {
        let other = self
            .voters_up()
            .into_iter()
            .find(|index| *index != leader && !self.cluster.host(*index).is_witness());
        let Some(other) = other else { return };
        self.cluster.late_hints(leader, true);
        if self.moved(leader, other) {
            self.blocks("L3: no block by the one in between", FLAP_MS);
            self.moved(other, leader);
        }
        self.cluster.late_hints(leader, false);
        self.blocks("L3: no block after leadership was lost and regained unseen", FLAP_MS);
    }

    /// Whether Raft moved leadership, sooner or later.
    fn moved(&mut self, from: usize, to: usize) -> bool {
        for _ in 0..ATTEMPTS {
            if self.cluster.leader() == Some(to) {
                return true;
            }
            drop(self.cluster.begin_transfer(from, to));
            let until = self.cluster.elapsed() + Duration::from_millis(70);
            while self.cluster.elapsed() < until && self.cluster.leader() != Some(to) {
                self.turn(&mut [].iter().peekable(), self.now_ms() + 5);
            }
        }
        self.cluster.leader() == Some(to)
    }
}
