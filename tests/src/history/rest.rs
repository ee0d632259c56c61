//! Faults are over: what must come then (L1 to L4).

use std::time::Duration;

use baton::cluster::hello::Cause;
use baton_messages::cluster::HandOff;
use baton_messages::types::Height;

use super::deeds::{End, RESUME_AGAIN_MS};
use super::drive::Drive;
use super::{DiskFault, EventKind, History, Left, Situation};
use crate::cluster::name;
use crate::net::Weather;

/// Two blocks must come so soon after the last fault: twenty election time-outs, and the longest
/// pause between two attempts to open a store again.
const FIRST_BLOCK_MS: u64 = 3_000 + 2_000;
/// Everybody must have everything so soon afterwards, also who was set up anew.
pub(super) const LEVEL_MS: u64 = 30_000;
/// Whoever heard no leader before the faults ended may still stand: for two of the longest election
/// time-outs. What comes of that is the faults'.
const STOOD_MS: u64 = 300;
/// A pause must be over so soon: the operator says so again whenever it is in force.
const RESUMED_MS: u64 = 2_000;
/// Everybody must be fit to lead again so soon afterwards: the longest that a watch holds on.
const FIT_MS: u64 = 3_000;
/// DA must have everything so soon afterwards.
const DRAINED_MS: u64 = 15_000;
/// Everything forced must be in the chain so soon afterwards: an epoch, and what spills over.
const FORCED_MS: u64 = 30_000;
/// New blocks that must come at full rate.
const BLOCKS: u64 = 10;
/// Every so-many-th history hands leadership over at the end.
const HAND_OFF_EVERY: u64 = 4;

impl Drive {
    pub(super) fn rest(&mut self, history: &History) {
        self.faults_end();
        let block_time = history.shape.block_time_ms;
        let before = self.cluster.reached_heights().0;
        // The first may have been on its way before; the second shows that somebody is fit to lead.
        let second = before.next().next();
        self.wait("L1: no new block", FIRST_BLOCK_MS, |drive| drive.cluster.reached_heights().0 >= second);
        self.wait("L1: not everybody has everything", LEVEL_MS, |drive| {
            let Self { operator, cluster, .. } = drive;
            operator.retire(cluster);
            !operator.is_busy() && drive.is_level()
        });
        // What an operator wants is no fault: a pause whose entry was on its way when everybody was told
        // to go on is lifted first.
        self.wait("L1: the pause does not end", RESUMED_MS, |drive| !drive.is_paused());
        let stood = self.now_ms() + self.slowed(STOOD_MS);
        self.wait("L1: time does not pass", STOOD_MS + 1_000, |drive| drive.now_ms() >= stood);
        self.full_rate(block_time);
        let drained = self.cluster.reached_heights().0;
        self.wait("L1: DA does not get everything", DRAINED_MS, |drive| {
            let leader = drive.cluster.leader().filter(|leader| drive.cluster.is_up(*leader));
            leader.is_some_and(|leader| drive.cluster.reader(leader).da_progress().included >= drained)
        });
        self.full_is_level(drained);
        self.wait("L1: somebody is not fit to lead again", FIT_MS, |drive| {
            // Whose store is open again is fit until it has heard what it lacks.
            drive.is_level() && drive.voters_up().into_iter().all(|index| drive.can_lead(index))
        });
        self.users.end();
        self.wait("E7: not everything that was forced comes in", FORCED_MS, |drive| {
            let leader = drive.cluster.leader().filter(|leader| drive.cluster.is_up(*leader));
            let reader = leader.map(|leader| drive.cluster.reader(leader));
            reader.is_some_and(|reader| drive.users.are_in(&reader))
        });
        if history.seed.is_multiple_of(HAND_OFF_EVERY) {
            self.hand_off(block_time);
        }
        self.trial(history);
        self.second_trial(history);
        self.wait("L1: not everybody has everything in the end", LEVEL_MS, |drive| drive.is_level());
        self.full_comes_to_rest();
        self.note_refusals();
        let retired = self.operator.retired.clone();
        self.cluster.leave_out(retired);
        self.cluster.settle();
    }

    /// Nothing is done any more, and what was done is over.
    fn faults_end(&mut self) {
        self.doomed.clear();
        for index in 0..self.cluster.len() {
            self.cluster.freeze(index, false);
            self.cluster.host(index).power().disarm();
        }
        for index in self.cluster.lost_power() {
            self.crash(index, Left::All, 0, "power lost at an effect");
        }
        for (_, end) in std::mem::take(&mut self.later) {
            match end {
                End::Anew(index) => self.end(End::Anew(index)),
                End::Lie { id, lie, .. } => self.lie_on(id, lie, 0),
                End::Guest(guest) | End::WrongCluster(guest) => self.cluster.end_guest(guest),
                // It has got its signal, and may be in the middle of it.
                End::Stopped(index, ..) => self.crash(index, Left::All, 0, "told to stop"),
                _ => {}
            }
        }
        self.full_faults_end();
        self.cluster.heal();
        self.cluster.net().set_weather(Weather::default());
        self.cluster.ledger().heal();
        self.cluster.set_clocks();
        for index in 0..self.cluster.len() {
            self.disk_is_well(index, DiskFault::Hang);
            self.engine_is_well(index);
            self.cluster.cut_da(index, false);
            if !self.cluster.is_up(index) && !self.operator.retired.contains(&index) {
                self.start(index);
            }
        }
        self.later.clear();
        self.resume();
    }

    /// Lets time pass, without deeds, until something holds.
    pub(super) fn wait(&mut self, what: &str, within_ms: u64, mut holds: impl FnMut(&mut Self) -> bool) {
        // What is promised is promised by the clock of who does it.
        let within_ms = self.slowed(within_ms);
        let since = self.now_ms();
        let mut resumed = since;
        while !holds(self) {
            let waited = self.now_ms() - since;
            // The entry of a pause may have been on its way when everybody was told to go on.
            if self.now_ms() >= resumed + RESUME_AGAIN_MS && self.is_paused() {
                resumed = self.now_ms();
                self.resume();
            }
            assert!(waited < within_ms, "{what} within {within_ms} ms; {}", self.cluster.describe());
            self.turn(&mut [].iter().peekable(), since + within_ms);
        }
    }

    /// Whether everybody that runs has what anybody has, and nobody lacks a body.
    fn is_level(&self) -> bool {
        let tip = self.cluster.reached_heights().0;
        self.cluster.up().all(|index| {
            let reader = self.cluster.host(index).node().map(|node| node.reader().clone());
            reader.is_some_and(|reader| reader.tip().height.0 + 1 >= tip.0 && reader.missing() == Ok(None))
        })
    }

    /// L1: the chain goes on at full rate.
    fn full_rate(&mut self, block_time: u64) {
        let height = self.cluster.reached_heights().0;
        let wanted = Height(height.0 + BLOCKS);
        // One more than the blocks, for the one that is on its way, and half of one for luck.
        let within = block_time * (BLOCKS + 1) + block_time / 2;
        self.wait("L1: no blocks at full rate", within, |drive| drive.cluster.reached_heights().0 >= wanted);
    }

    /// L4: a hand-off misses no slot.
    fn hand_off(&mut self, block_time: u64) {
        let block_time = self.slowed(block_time);
        let Some(leader) = self.cluster.leader() else { return };
        let Some(membership) = self.cluster.membership() else { return };
        let voters: Vec<usize> =
            membership.membership().voter_ids().filter_map(|id| self.cluster.index_of(id)).collect();
        let able = |index: &usize| {
            *index != leader && self.cluster.is_up(*index) && !self.cluster.host(*index).is_witness()
        };
        let Some(to) = voters.into_iter().find(able) else { return };
        let asked = HandOff { to: Some(name(to)), reason: "the end of a history".to_owned() };
        let answer = self.cluster.begin(leader, move |node| async move {
            node.ports().hand_off.send(asked).timeout(Duration::from_secs(10)).await
        });
        let (from, mut last, mut tip) = (self.now_ms(), None, self.cluster.reached_heights().0);
        let (until, mut longest) = (from + block_time * 8, 0);
        while self.now_ms() < until {
            self.turn(&mut [].iter().peekable(), until);
            let now = self.cluster.reached_heights().0;
            if now > tip {
                tip = now;
                let at = self.now_ms();
                longest = longest.max(last.map_or(0, |last| at - last));
                last = Some(at);
            }
        }
        let answer = answer.borrow_mut().take();
        if let Some(Ok(Ok(_))) = answer {
            self.reached(Situation::HandedOff);
            assert!(
                longest * 2 <= block_time * 3 + 20,
                "L4: {longest} ms between two blocks while leadership was handed over; {}",
                self.cluster.describe()
            );
        }
        self.note(
            None,
            EventKind::HandedOff {
                ok: matches!(answer, Some(Ok(Ok(_)))),
                text: format!("{answer:?} after {} ms", self.now_ms() - from),
            },
        );
    }

    fn note_refusals(&mut self) {
        let net = self.cluster.net().clone();
        if net.refused(Cause::Clone) + net.refused(Cause::OlderBoot) > 0 {
            self.reached(Situation::OldDiskRefused);
        }
        if self.cluster.ledger().false_errors() > 0 {
            self.reached(Situation::FalseError);
        }
    }
}
