//! What is done to a cluster, and how it ends.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use actix::MailboxError;
use baton_messages::cluster::{HandOff, HandOffError, HandedOff, MemberChange, Pause, Resume};
use baton_storage::backend::StoreError;
use baton_storage::memory::Keep;

use super::drive::Drive;
use super::lies::Lie;
use super::{Among, DaFault, DiskFault, EngineFault, EventKind, Left, Situation, What, Who};
use crate::cluster::{Sources, address, name};
use crate::engine::CALLS;
use crate::power::Power;

/// A hand-off that was asked for, and its answer.
pub(super) type HandingOff = Rc<RefCell<Option<Result<Result<HandedOff, HandOffError>, MailboxError>>>>;
/// A node that was told to stop.
type Stopping = Rc<RefCell<Option<Result<(), MailboxError>>>>;

/// An operator that is not heard resumes again after so long.
pub(super) const RESUME_AGAIN_MS: u64 = 200;

/// What comes later.
pub(super) enum End {
    /// A node starts again.
    Start(usize),
    /// A node that is down, or refused, is set up anew.
    Anew(usize),
    Rejoin(Vec<usize>),
    RejoinOneWay(usize, usize),
    Release(usize, usize),
    Weather,
    Thaw(usize),
    Disk(usize, DiskFault),
    Engine(usize),
    Da,
    DaOf(usize),
    Resume,
    /// A node that was told to stop is looked at.
    Stopped(usize, Stopping, u64),
    Guest(usize),
    WrongCluster(usize),
    FullStarts,
    FullThaws,
    FullDisk,
    /// The full node's ways are whole again.
    FullJoins(Sources),
    /// A peer goes on lying until then.
    Lie {
        id: String,
        lie: Lie,
        until_ms: u64,
    },
}

/// What may be lost when the machine goes off.
pub(super) fn keep(left: Left) -> Keep {
    match left {
        Left::All => Keep::All,
        Left::Nothing => Keep::None,
        Left::Prefix(count) => Keep::Prefix(count),
        Left::Torn(count) => Keep::Torn(count),
    }
}

/// What a disk is asked to do fails. Here it neither hangs nor is it slow.
pub(super) fn fail(power: &Power, fault: DiskFault) {
    let io = || StoreError::Io("scripted".to_owned());
    match fault {
        DiskFault::Full => power.fail("disk.write", StoreError::Full("scripted".to_owned())),
        DiskFault::Write => power.fail("disk.write", io()),
        DiskFault::Written => power.fail("disk.written", io()),
        DiskFault::Sync => power.fail("disk.sync", io()),
        DiskFault::Synced => power.fail("disk.synced", io()),
        DiskFault::Hang | DiskFault::Slow(_) => {}
    }
}

/// The most machines that join while it runs.
const MOST_JOINED: usize = 2;
/// A node that is refused is set up anew so long after its start.
const NOTICED_MS: u64 = 1_200;

impl Drive {
    pub(super) fn who(&self, who: Who) -> Option<usize> {
        let leader = self.cluster.leader();
        let found = match who {
            Who::Node(index) => Some(index),
            Who::Leader => leader,
            Who::Follower(number) => {
                let others: Vec<usize> = self.cluster.up().filter(|index| Some(*index) != leader).collect();
                (!others.is_empty()).then(|| others[number % others.len()])
            }
        };
        found.filter(|index| *index < self.cluster.len())
    }

    fn up(&self, who: Who) -> Option<usize> {
        self.who(who).filter(|index| self.cluster.is_up(*index))
    }

    /// A node whose disk the cluster can do without, while no other one is being set up anew.
    fn spare(&self, who: Who) -> Option<usize> {
        let index = self.up(who)?;
        let pending = self.later.values().any(|end| matches!(end, End::Anew(_)));
        let all = !self.operator.is_busy() && !pending && self.cluster.can_spare(index);
        all.then_some(index)
    }

    pub(super) fn crash(&mut self, index: usize, left: Left, down_ms: u64, reason: &str) {
        if !self.cluster.is_up(index) {
            return;
        }
        self.crashing(index);
        let before = self.cluster.machine(index).disk.losses();
        self.doomed.remove(&index);
        self.cluster.crash(index, keep(left));
        let machine = self.cluster.machine(index);
        let after = machine.disk.losses();
        if after.0 > before.0 {
            self.reached(Situation::TornWrite);
        }
        if after.1 > before.1 {
            self.reached(Situation::LostWrites);
        }
        // The engine is another process on the same machine.
        machine.engine_disk.crash(match left {
            Left::All => Keep::All,
            _ => Keep::Prefix(self.chance.index(12)),
        });
        self.clients.gone(index);
        self.note(Some(index), EventKind::Ended { reason: reason.to_owned() });
        self.later(down_ms, End::Start(index));
    }

    /// Where in the life of a block a leader ends.
    fn crashing(&mut self, index: usize) {
        if self.cluster.host(index).power().last() == Some("guard.tear") {
            self.reached(Situation::TornGuard);
        }
        if self.cluster.leader() != Some(index) {
            return;
        }
        let (tip, signed) = self.cluster.reached_heights();
        if tip > signed {
            self.reached(Situation::CrashBetweenCommitAndSign);
        }
        let posted = self.cluster.ledger().tip();
        if signed > posted {
            self.reached(Situation::CrashBetweenSignAndDa);
        }
        if posted > self.cluster.reader(index).da_progress().headers {
            self.reached(Situation::CrashBetweenDaAndRecord);
        }
    }

    pub(super) fn deed(&mut self, what: &What) {
        if self.act(what).is_some() {
            self.note(None, EventKind::Done { what: what.clone() });
        }
    }

    /// `None`: it does not apply.
    fn act(&mut self, what: &What) -> Option<()> {
        match what {
            What::Crash { node, left, down_ms } => {
                let index = self.up(*node)?;
                self.crash(index, *left, *down_ms, "crash");
            }
            What::CrashAt { node, among, after, left, down_ms } => {
                let index = self.up(*node)?;
                let prefix = match among {
                    Among::All => "",
                    Among::Disk => "disk.",
                    Among::Guard => "guard.",
                    Among::Da => "da.",
                };
                self.cluster.host(index).power().cut_at(prefix, *after);
                self.doomed.insert(index, (*left, *down_ms));
            }
            What::Blackout { left, down_ms, apart_ms } => {
                let all: Vec<usize> = self.cluster.up().collect();
                for (count, index) in (0..).zip(all) {
                    self.crash(index, *left, down_ms + apart_ms * count, "power lost everywhere");
                }
                self.reached(Situation::Blackout);
            }
            What::Apart { for_ms } => {
                let all: Vec<usize> = (0..self.cluster.len()).collect();
                for index in &all {
                    self.cluster.partition(&[*index]);
                }
                if *for_ms > 150 {
                    self.reached(Situation::Apart);
                }
                for index in all {
                    self.later(*for_ms, End::Rejoin(vec![index]));
                }
            }
            What::Partition { away, for_ms } => {
                let mut away: Vec<usize> = away.iter().filter_map(|who| self.who(*who)).collect();
                away.sort_unstable();
                away.dedup();
                if away.is_empty() {
                    return None;
                }
                let led = self.cluster.leader().is_some_and(|leader| away.contains(&leader));
                if led && away.len() * 2 < self.voters && *for_ms > 100 {
                    self.reached(Situation::LeaderInMinority);
                }
                self.cluster.partition(&away);
                self.later(*for_ms, End::Rejoin(away));
            }
            What::CutOneWay { from, to, for_ms } => {
                let (from, to) = self.pair(*from, *to)?;
                self.cluster.cut_one_way(from, to);
                self.later(*for_ms, End::RejoinOneWay(from, to));
            }
            What::Hold { from, to, for_ms } => {
                let (from, to) = self.pair(*from, *to)?;
                self.cluster.hold(from, to);
                self.later(*for_ms, End::Release(from, to));
            }
            What::Weather { storm, for_ms } => {
                self.cluster.net().set_weather(storm.weather());
                self.later(*for_ms, End::Weather);
            }
            What::Freeze { node, for_ms } => {
                let index = self.up(*node)?;
                self.cluster.freeze(index, true);
                if *for_ms > 150 {
                    self.reached(Situation::Slept);
                }
                self.later(*for_ms, End::Thaw(index));
            }
            What::Clock { node, by_ms } => {
                let index = self.who(*node)?;
                self.cluster.jump_clock(index, *by_ms);
            }
            What::Disk { node, fault, for_ms } => {
                let index = self.up(*node)?;
                self.disk(index, *fault);
                self.later(*for_ms, End::Disk(index, *fault));
            }
            What::Flip { .. } | What::Wipe { .. } | What::Restore { .. } => return self.damage(what),
            What::Engine { node, fault, for_ms } => {
                let index = self.up(*node)?;
                let script = self.cluster.script(index);
                match fault {
                    EngineFault::Slow(ms) => script.slow(Duration::from_millis(*ms)),
                    EngineFault::Hang => script.hang(),
                    EngineFault::Away => script.unavailable(&CALLS),
                    EngineFault::Lost => script.restart(Keep::Prefix(self.chance.index(12))),
                }
                self.later(*for_ms, End::Engine(index));
            }
            What::Da { fault, for_ms } => {
                let ledger = self.cluster.ledger();
                match fault {
                    DaFault::Away => ledger.set_away(true),
                    DaFault::Slow(ms) => ledger.set_slow(Duration::from_millis(*ms)),
                    DaFault::FalseError => ledger.set_false_error(true),
                    DaFault::Late(ms) => ledger.set_late(Duration::from_millis(*ms)),
                }
                self.later(*for_ms, End::Da);
            }
            What::DaOf { node, for_ms } => {
                let index = self.who(*node)?;
                self.cluster.cut_da(index, true);
                self.later(*for_ms, End::DaOf(index));
            }
            What::Join => {
                if self.joined >= MOST_JOINED {
                    return None;
                }
                self.joined += 1;
                self.cluster.join();
            }
            What::Promote { .. } | What::Demote { .. } | What::Remove { .. } => return self.members(what),
            What::Transfer { to } => {
                let (leader, to) = (self.cluster.leader()?, self.up(*to)?);
                if leader == to {
                    return None;
                }
                drop(self.cluster.begin_transfer(leader, to));
            }
            What::HandOff { to } => {
                let (leader, to) = (self.cluster.leader()?, self.who(*to)?);
                let asked = HandOff { to: Some(name(to)), reason: "scripted".to_owned() };
                let answer = self.cluster.begin(leader, move |node| async move {
                    node.ports().hand_off.send(asked).timeout(Duration::from_secs(10)).await
                });
                self.handing_off.push(answer);
            }
            What::Pause { for_ms } => {
                let leader = self.cluster.leader()?;
                drop(self.cluster.begin(leader, |node| async move {
                    node.ports().pause.do_send(Pause { reason: "scripted".to_owned() });
                }));
                self.later(*for_ms, End::Resume);
            }
            What::Upgrade { node, down_ms } => {
                let index = self.up(*node)?;
                let stopping = self.cluster.begin_shutdown(index);
                self.later(20, End::Stopped(index, stopping, *down_ms));
            }
            What::Twin { .. } | What::Stray { .. } | What::WrongCluster { .. } => return self.mistake(what),
            What::Full(deed) => return self.full_deed(deed),
            What::Stale => {
                let leader = self.cluster.leader()?;
                self.ask_sinks(leader)?;
            }
        }
        Some(())
    }

    fn pair(&self, from: Who, to: Who) -> Option<(usize, usize)> {
        let (from, to) = (self.who(from)?, self.who(to)?);
        (from != to).then_some((from, to))
    }

    fn disk(&mut self, index: usize, fault: DiskFault) {
        let (power, disk) = (self.cluster.host(index).power(), self.cluster.machine(index).disk);
        let left = Keep::Prefix(self.chance.index(4));
        if fault == DiskFault::Sync {
            disk.keep_at_reopen(left);
        }
        fail(&power, fault);
        match fault {
            DiskFault::Hang => self.cluster.hang_disk(index),
            DiskFault::Slow(ms) => self.cluster.slow_disk(index, Some(Duration::from_millis(ms))),
            _ => {}
        }
    }

    fn damage(&mut self, what: &What) -> Option<()> {
        let (node, down_ms) = match what {
            What::Flip { node, down_ms, .. } | What::Wipe { node, down_ms } => (*node, *down_ms),
            What::Restore { node, down_ms, .. } => (*node, *down_ms),
            _ => return None,
        };
        let index = self.spare(node)?;
        if let What::Wipe { .. } = what {
            self.crash(index, Left::Nothing, u64::MAX / 2, "its disk is lost");
            self.cluster.write_off(index);
            self.later(down_ms, End::Anew(index));
            return Some(());
        }
        let image = self.cluster.host(index).image();
        if let What::Restore { .. } = what {
            // A disk that was empty then would be a new one with the old name.
            image.as_ref().filter(|image| image.holds_anything())?;
        }
        self.crash(index, Left::All, down_ms, "down");
        self.cluster.write_off(index);
        let disk = self.cluster.machine(index).disk;
        match what {
            What::Flip { pick, .. } => {
                let (family, key) = disk.damage(*pick)?;
                let text = format!("{} {:02x?} is damaged", family.name(), &key[..]);
                self.note(Some(index), EventKind::Trouble { text: Some(text) });
                self.cluster.expect_damage(index, true);
            }
            _ => self.cluster.replace_disk(index, image?),
        }
        self.later(down_ms + NOTICED_MS, End::Anew(index));
        Some(())
    }

    fn members(&mut self, what: &What) -> Option<()> {
        let leader = self.cluster.leader()?;
        // A learner of an older version would rightly stop when the voters' entries become newer.
        if self.operator.is_busy() || !self.knows.is_empty() {
            return None;
        }
        let change = match what {
            What::Promote { node } => MemberChange::Promote(vec![name(self.who(*node)?)]),
            What::Demote { node } => MemberChange::Demote(name(self.who(*node)?)),
            What::Remove { node } => MemberChange::Remove(name(self.who(*node)?)),
            _ => return None,
        };
        self.operator.change(leader, change, false, &mut self.cluster);
        Some(())
    }

    fn mistake(&mut self, what: &What) -> Option<()> {
        match what {
            What::Twin { node, for_ms } => {
                let index = self.spare(*node)?;
                let guest = self.cluster.start_twin(index)?;
                self.later(*for_ms, End::Guest(guest));
            }
            What::Stray { for_ms } => {
                let guest = self.cluster.start_stray(self.cluster.leader()?)?;
                self.later(*for_ms, End::Guest(guest));
            }
            What::WrongCluster { for_ms } => {
                let leader = self.cluster.leader()?;
                let guest = self.cluster.start_stray(leader)?;
                self.later((*for_ms).max(400), End::WrongCluster(guest));
            }
            _ => return None,
        }
        Some(())
    }

    pub(super) fn end(&mut self, end: End) {
        match end {
            End::Start(index) => {
                if !self.cluster.is_up(index) && !self.operator.retired.contains(&index) {
                    self.start(index);
                }
            }
            End::Anew(index) => self.anew(index),
            End::Rejoin(away) => self.cluster.rejoin(&away),
            End::RejoinOneWay(from, to) => self.cluster.rejoin_one_way(from, to),
            End::Release(from, to) => self.cluster.release(from, to),
            End::Weather => self.cluster.net().set_weather(self.usual),
            End::Thaw(index) => self.cluster.freeze(index, false),
            End::Disk(index, fault) => self.disk_is_well(index, fault),
            End::Engine(index) => self.engine_is_well(index),
            End::Da => self.cluster.ledger().heal(),
            End::DaOf(index) => self.cluster.cut_da(index, false),
            End::Resume => {
                self.resume();
                // Nobody may have led: an operator looks, and says it again.
                if self.is_paused() {
                    self.later(RESUME_AGAIN_MS, End::Resume);
                }
            }
            End::Stopped(index, stopping, down_ms) => {
                if !self.cluster.is_up(index) {
                    return;
                }
                if stopping.borrow().is_none() {
                    return self.later(20, End::Stopped(index, stopping, down_ms));
                }
                if !self.knows.is_empty() {
                    self.knows.insert(index, 2);
                }
                self.crash(index, Left::All, down_ms, "told to stop");
            }
            End::Guest(guest) => self.cluster.end_guest(guest),
            End::FullStarts => self.cluster.start_full(),
            End::FullThaws => self.cluster.freeze_full(false),
            End::FullDisk => self.full_disk_is_well(),
            End::FullJoins(ways) => self.cut_full(ways, false),
            End::Lie { id, lie, until_ms } => self.lie_on(id, lie, until_ms),
            End::WrongCluster(guest) => {
                if let Some(leader) = self.cluster.leader() {
                    let (name, address) = (name(guest), address(guest));
                    let change = MemberChange::Add { name, address };
                    self.operator.change(leader, change, false, &mut self.cluster);
                }
                self.later(400, End::Guest(guest));
            }
        }
    }

    pub(super) fn start(&mut self, index: usize) {
        match self.knows.get(&index).copied() {
            Some(version) => self.cluster.restart_knowing(index, version),
            None => self.cluster.restart(index),
        }
    }

    pub(super) fn disk_is_well(&mut self, index: usize, fault: DiskFault) {
        let power = self.cluster.host(index).power();
        match fault {
            DiskFault::Full if power.failed() > 0 => self.reached(Situation::DiskFull),
            DiskFault::Hang if self.cluster.hung(index) > 0 => self.reached(Situation::DiskHung),
            _ => {}
        }
        power.heal();
        self.cluster.slow_disk(index, None);
        self.cluster.release_disk(index);
    }

    pub(super) fn engine_is_well(&mut self, index: usize) {
        let script = self.cluster.script(index);
        script.slow(Duration::ZERO);
        script.unavailable(&[]);
        script.release();
    }

    /// Whether somebody that runs has applied a pause and not its end.
    pub(super) fn is_paused(&self) -> bool {
        let mut nodes = self.cluster.up().filter_map(|index| self.cluster.host(index).node());
        nodes.any(|node| node.reader().pause().is_some())
    }

    pub(super) fn resume(&mut self) {
        for index in self.cluster.up().collect::<Vec<_>>() {
            drop(self.cluster.begin(index, |node| async move { node.ports().resume.do_send(Resume) }));
        }
    }

    /// A node that is refused, or refuses itself, is found by a person and set up anew.
    fn anew(&mut self, index: usize) {
        self.looked_after(index);
        if self.cluster.is_up(index) {
            self.crash(index, Left::All, u64::MAX / 2, "a person sets it up anew");
        }
        self.operator.set_up_anew(index, &mut self.cluster);
        if !self.knows.is_empty() {
            // With the newest version.
            self.knows.insert(index, 2);
        }
        self.start(index);
    }

    /// Whether damage and old disks were refused loudly.
    fn looked_after(&mut self, index: usize) {
        let disk = self.cluster.machine(index).disk;
        if disk.damage_seen() > 0 {
            let host = self.cluster.host(index);
            let told = host.node().is_some_and(|node| !node.alarms().is_empty() || node.trouble().is_some());
            assert!(
                told || self.cluster.refused_to_start(index) || !host.is_up(),
                "P8: n{index} read a damaged record and says nothing; {}",
                self.cluster.describe()
            );
            if told || self.cluster.refused_to_start(index) {
                self.reached(Situation::DamageRefused);
            }
        }
    }

    /// Takes the answers that have come.
    pub(super) fn answers(&mut self) {
        let mut answered = vec![];
        self.handing_off.retain(|asked| match asked.borrow_mut().take() {
            Some(answer) => {
                answered.push(answer);
                false
            }
            None => true,
        });
        for answer in answered {
            let Ok(answer) = answer else { continue };
            match &answer {
                Ok(_) => self.reached(Situation::HandedOff),
                Err(HandOffError::Aborted(_)) => self.reached(Situation::HandOffAborted),
                Err(_) => {}
            }
            let (ok, text) = (answer.is_ok(), format!("{answer:?}"));
            self.note(None, EventKind::HandedOff { ok, text });
        }
        self.sink_answers();
    }
}
