//! Leaders that make no blocks: a storage thread that hangs, blocks that are due and do not come.
//!
//! Every watch has hysteresis, and a node gives leadership away only to somebody better; when
//! everybody is in the same trouble the leader stays (hazards E3, L3, S5, S6).

use std::time::Duration;

use baton_messages::mutation::{Mutation, planted};
use baton_messages::types::Height;

use super::peers::{Moment, Peers, Times, differs_in_settings_only, hangs};

/// A change of a trouble: what is wrong, or `None` when it has passed.
pub type Change = Option<Option<String>>;

/// Looks whether the storage thread comes back from the disk.
#[derive(Debug)]
pub struct StorageWatch {
    limit: Duration,
    in_trouble: bool,
    well_since: Option<Moment>,
}

/// How many limits the storage must be well before it counts as healthy again.
const WELL_FOR: u32 = 4;

impl StorageWatch {
    /// A watch that reports work of longer than this.
    #[must_use]
    pub const fn new(limit: Duration) -> Self {
        Self { limit, in_trouble: false, well_since: None }
    }

    /// Whether it hangs, or did a moment ago.
    #[must_use]
    pub const fn is_in_trouble(&self) -> bool {
        self.in_trouble
    }

    /// Looks again: for how long the storage thread has been busy with one piece of work.
    pub fn look(&mut self, now: Moment, busy_for: Option<Duration>) -> Change {
        let busy_for = busy_for.unwrap_or_default();
        if busy_for > self.limit && !planted(Mutation::SpeakWhileDiskHangs) {
            self.well_since = None;
            let before = std::mem::replace(&mut self.in_trouble, true);
            let reason = format!("the disk has not answered for {:?}", self.limit);
            return (!before).then_some(Some(reason));
        }
        if !self.in_trouble {
            return None;
        }
        if busy_for > self.limit / 2 {
            self.well_since = None;
            return None;
        }
        let since = *self.well_since.get_or_insert(now);
        if now.saturating_sub(since) < self.limit * WELL_FOR {
            return None;
        }
        self.in_trouble = false;
        Some(None)
    }
}

/// Looks whether the blocks come that are due.
#[derive(Debug)]
pub struct StallWatch {
    limit: Duration,
    /// How long the trouble is told after this node stopped producing.
    hold: Duration,
    tip: Height,
    due_since: Option<Moment>,
    in_trouble: bool,
    released: Option<Moment>,
}

impl StallWatch {
    /// A watch that reports when no block came for so long.
    #[must_use]
    pub const fn new(limit: Duration, hold: Duration) -> Self {
        Self { limit, hold, tip: Height(0), due_since: None, in_trouble: false, released: None }
    }

    /// Whether blocks do not come, or did not a while ago.
    #[must_use]
    pub const fn is_in_trouble(&self) -> bool {
        self.in_trouble
    }

    /// Looks again. `due`: this node holds a grant and there is something to produce.
    pub fn look(&mut self, now: Moment, due: bool, tip: Height) -> Change {
        let grew = std::mem::replace(&mut self.tip, tip) < tip;
        if !due {
            self.due_since = None;
            // Who could not make a block is no better a moment later: somebody else's turn.
            let released = *self.released.get_or_insert(now);
            return self.passed(now.saturating_sub(released) >= self.hold);
        }
        self.released = None;
        if grew {
            self.due_since = Some(now);
            return self.passed(true);
        }
        let since = *self.due_since.get_or_insert(now);
        if now.saturating_sub(since) < self.limit {
            return None;
        }
        let before = std::mem::replace(&mut self.in_trouble, true);
        (!before).then(|| Some(format!("no block for {:?} although one is due", self.limit)))
    }

    fn passed(&mut self, passed: bool) -> Change {
        (passed && std::mem::take(&mut self.in_trouble)).then_some(None)
    }
}

/// How often a node may give leadership away because blocks do not come.
#[derive(Debug)]
pub struct Abdication {
    pause: Duration,
    last: Option<Moment>,
}

/// So many of the longest election time-outs lie between two abdications for lack of progress.
pub const ABDICATION_PAUSE: u32 = 10;

impl Abdication {
    /// Nothing was given away yet.
    #[must_use]
    pub fn new(times: Times) -> Self {
        Self { pause: times.election_max * ABDICATION_PAUSE, last: None }
    }

    /// Whether it may, for a reason that the target may share (S6). A target that is better by
    /// what it says of itself may be chosen at any time.
    #[must_use]
    pub fn may(&self, now: Moment, strictly_better: bool) -> bool {
        strictly_better || self.last.is_none_or(|last| now.saturating_sub(last) >= self.pause)
    }

    /// Leadership is being given away.
    pub fn begun(&mut self, now: Moment) {
        self.last = Some(now);
    }
}

/// What a leader in trouble sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scene {
    /// It leads.
    pub leads: bool,
    /// Its storage hangs.
    pub hangs: bool,
    /// Its blocks do not come.
    pub stalls: bool,
    /// Nobody can be given leadership, or it was tried in vain.
    pub transfer_is_vain: bool,
    /// The others are enough to elect one of them who is better.
    pub others_can: bool,
}

/// Whether heartbeats are withheld so that others elect.
#[derive(Debug, Default)]
pub struct Silence {
    on: bool,
}

impl Silence {
    /// Whether they are withheld.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.on
    }

    /// Looks again. Says whether heartbeats are sent, when that is another answer than before.
    pub fn look(&mut self, scene: Scene) -> Option<bool> {
        let in_trouble = scene.leads && (scene.hangs || scene.stalls);
        let on = in_trouble && (self.on || (scene.transfer_is_vain && scene.others_can));
        (std::mem::replace(&mut self.on, on) != on).then_some(!on)
    }
}

/// Whether the other voters can elect a better leader without this one's vote: a quorum of them is
/// there with disks that answer. Any of those leads better than one whose disk hangs; who only
/// makes no blocks gives way to somebody fit to make them, with whatever settings.
#[must_use]
pub fn others_can_elect(peers: &Peers, now: Moment, times: Times, own_disk_hangs: bool) -> bool {
    let able: Vec<_> = peers
        .recent_voters(now, times.election_max)
        .filter(|told| !hangs(told) && !told.closing && !told.silent)
        .collect();
    let better = own_disk_hangs || able.iter().any(|told| differs_in_settings_only(told));
    better && able.len() >= peers.quorum()
}

#[cfg(test)]
mod tests {
    use super::super::peers::tests::{at, cluster, fit, unfit};
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn a_disk_that_hangs_is_reported_once_and_its_end_only_when_it_lasts() {
        let mut watch = StorageWatch::new(MS(500));
        assert_eq!(watch.look(at(0), Some(MS(500))), None);
        let hangs = watch.look(at(30), Some(MS(501)));
        assert_eq!(hangs, Some(Some("the disk has not answered for 500ms".to_owned())));
        assert_eq!(watch.look(at(60), Some(MS(531))), None);
        assert_eq!(watch.look(at(1_000), None), None);
        assert_eq!(watch.look(at(2_000), Some(MS(400))), None, "slow is not well");
        assert_eq!(watch.look(at(2_100), Some(MS(10))), None);
        assert_eq!(watch.look(at(4_099), Some(MS(10))), None);
        assert_eq!(watch.look(at(4_100), Some(MS(10))), Some(None));
        assert!(!watch.is_in_trouble());
    }

    #[test]
    fn work_after_work_is_not_a_disk_that_hangs() {
        let mut watch = StorageWatch::new(MS(500));
        for now in 0..1_000 {
            assert_eq!(watch.look(at(now * 30), Some(MS(now % 500))), None, "S6");
        }
    }

    fn stall_watch() -> StallWatch {
        StallWatch::new(MS(1_000), MS(1_500))
    }

    #[test]
    fn due_blocks_that_do_not_come_are_reported_and_a_block_ends_it() {
        let mut watch = stall_watch();
        assert_eq!(watch.look(at(0), true, Height(5)), None);
        assert_eq!(watch.look(at(999), true, Height(5)), None);
        assert!(matches!(watch.look(at(1_000), true, Height(5)), Some(Some(_))));
        assert_eq!(watch.look(at(1_500), true, Height(5)), None, "once");
        assert_eq!(watch.look(at(1_600), true, Height(6)), Some(None));
    }

    #[test]
    fn who_waits_for_transactions_or_da_is_not_stalled() {
        let mut watch = stall_watch();
        for now in 0..100 {
            let due = now % 10 == 0;
            assert_eq!(watch.look(at(now * 200), due, Height(5)), None, "S6");
        }
    }

    #[test]
    fn who_could_make_no_block_is_not_chosen_again_at_once() {
        let mut watch = stall_watch();
        watch.look(at(0), true, Height(5));
        assert!(watch.look(at(1_000), true, Height(5)).is_some());
        assert_eq!(watch.look(at(1_100), false, Height(5)), None);
        assert_eq!(watch.look(at(2_000), false, Height(9)), None, "those are another leader's blocks");
        assert!(watch.is_in_trouble());
        assert_eq!(watch.look(at(2_600), false, Height(9)), Some(None));
    }

    #[test]
    fn abdications_for_lack_of_progress_are_rare() {
        let mut abdication = Abdication::new(Times::default());
        assert!(abdication.may(at(0), false));
        abdication.begun(at(0));
        assert!(!abdication.may(at(1_499), false));
        assert!(abdication.may(at(1_499), true), "to somebody strictly better always");
        assert!(abdication.may(at(1_500), false));
    }

    const HANGS: Scene =
        Scene { leads: true, hangs: true, stalls: false, transfer_is_vain: true, others_can: true };

    #[test]
    fn heartbeats_stop_when_nothing_else_helps_and_come_back_with_health() {
        let mut silence = Silence::default();
        assert_eq!(silence.look(Scene { transfer_is_vain: false, ..HANGS }), None);
        assert_eq!(silence.look(HANGS), Some(false));
        assert_eq!(silence.look(Scene { others_can: false, ..HANGS }), None, "not before it is healthy");
        assert_eq!(silence.look(Scene { hangs: false, ..HANGS }), Some(true));
        assert_eq!(silence.look(Scene { hangs: false, stalls: true, ..HANGS }), Some(false));
        assert_eq!(silence.look(Scene { leads: false, ..HANGS }), Some(true));
    }

    #[test]
    fn when_everybody_is_in_the_same_trouble_the_leader_stays() {
        let mut silence = Silence::default();
        for _ in 0..10 {
            assert_eq!(silence.look(Scene { others_can: false, ..HANGS }), None, "S5");
        }
    }

    #[test]
    fn others_can_elect_with_a_quorum_of_disks_that_answer() {
        let (mut peers, times) = (cluster(3), Times::default());
        let can = |peers: &Peers, hangs| others_can_elect(peers, at(100), times, hangs);
        peers.told(fit(2, 9), at(100));
        assert!(!can(&peers, true), "one of three is no quorum");
        peers.told(unfit(3, 9, "storage: the disk has not answered for 500ms"), at(100));
        assert!(!can(&peers, true), "that one cannot vote");
        peers.told(unfit(3, 9, "engine: away"), at(100));
        assert!(can(&peers, true));
        peers.told(unfit(2, 9, "engine: away"), at(100));
        assert!(can(&peers, true), "a caretaker is better than a disk that hangs");
        assert!(!can(&peers, false), "and no better than a leader without progress");
        peers.told(unfit(2, 9, "settings: other settings than the leader's"), at(100));
        assert!(can(&peers, false), "who only has other settings makes blocks");
    }
}
