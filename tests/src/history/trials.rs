//! One more fault while everything else is well: nobody may wait for it to pass (L3).

use std::time::Duration;

use super::drive::Drive;
use super::{DiskFault, History};

/// A leader whose disk hangs is succeeded so soon: its watch, a hand-over in vain, an election.
const DISK_MS: u64 = 3_000;
/// A leader whose engine hangs is succeeded so soon: the limit of a call, and a hand-over.
const ENGINE_MS: u64 = 2_000 + 2_500;
/// A leader that lost and regained leadership unseen makes blocks again so soon.
const FLAP_MS: u64 = 2_500;
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
