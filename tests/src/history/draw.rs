//! The history of a seed.
//!
//! Swarm testing: each history has a few kinds of faults only, each with a frequency of its own.
//! A history with all of them at once would come nowhere.

mod full;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Among, DaFault, Deed, DiskFault, EngineFault, Form, History, Left, Shape, Storm, What, Who};

/// How long things are done to a cluster.
const SPAN_MS: u64 = 20_000;
/// Nothing is done to a cluster that forms.
const CALM_MS: u64 = 400;
/// The longest a node is away, now and then.
const LONGEST_MS: u64 = 1_000_000;

/// What can be chosen for a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Crash,
    CrashAt,
    Partition,
    CutOneWay,
    Hold,
    Weather,
    Freeze,
    Clock,
    Disk,
    Hang,
    Damage,
    Engine,
    Da,
    Members,
    Transfer,
    HandOff,
    Pause,
    Upgrade,
    Mistake,
    Stale,
}

const KINDS: [Kind; 20] = [
    Kind::Crash,
    Kind::CrashAt,
    Kind::Partition,
    Kind::CutOneWay,
    Kind::Hold,
    Kind::Weather,
    Kind::Freeze,
    Kind::Clock,
    Kind::Disk,
    Kind::Hang,
    Kind::Damage,
    Kind::Engine,
    Kind::Da,
    Kind::Members,
    Kind::Transfer,
    Kind::HandOff,
    Kind::Pause,
    Kind::Upgrade,
    Kind::Mistake,
    Kind::Stale,
];

/// Chance that follows from a seed.
pub(super) struct Chance(StdRng);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// A number below another one.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0.next_u64() % end.max(1)
    }

    pub(super) fn index(&mut self, end: usize) -> usize {
        usize::try_from(self.below(end as u64)).unwrap_or_default()
    }

    fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to.saturating_sub(from) + 1)
    }

    /// Whether something that happens so often in a hundred does.
    pub(super) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.index(of.len())]
    }

    /// A duration whose logarithm is spread evenly: short ones are as usual as long ones.
    fn spread(&mut self, from: u64, to: u64) -> u64 {
        let (mut low, mut steps) = (from.max(1), 0);
        while low < to {
            low *= 2;
            steps += 1;
        }
        let base = from.max(1) << self.below(steps + 1);
        (base + self.below(base)).min(to)
    }
}

pub(super) fn history(seed: u64, form: Form) -> History {
    let mut chance = Chance::new(seed ^ 0x6869_7374_6f72_7900);
    let shape = shape(&mut chance, form);
    // Versions of before do not know where forced inclusion stands.
    let forced_ms = if shape.older.is_empty() { forced_ms(seed) } else { 0 };
    let (full, mut deeds) =
        full::full(seed, forced_ms).map_or((None, vec![]), |(full, deeds)| (Some(full), deeds));
    let shape = Shape { forced_ms, full, rates_ppm: rates_ppm(seed, form), ..shape };
    // Between one and six kinds; rarely none, which shows what a calm cluster does.
    let kinds: Vec<Kind> = {
        let often = chance.pick(&[5, 15, 25, 35]);
        KINDS.into_iter().filter(|_| chance.percent(often)).collect()
    };
    for kind in kinds {
        let every = chance.spread(250, 8_000);
        let mut at_ms = CALM_MS + chance.below(every);
        while at_ms < SPAN_MS {
            let what = deed(kind, &mut chance, &shape);
            deeds.push(Deed { at_ms, what });
            at_ms += 1 + chance.below(2 * every);
        }
    }
    if !shape.older.is_empty() {
        for node in shape.older.clone() {
            let at_ms = chance.between(CALM_MS, SPAN_MS);
            deeds.push(Deed { at_ms, what: What::Upgrade { node: Who::Node(node), down_ms: 50 } });
        }
    }
    deeds.extend(now_and_then(seed));
    deeds.sort_by_key(|deed| deed.at_ms);
    History { seed, form, shape, span_ms: SPAN_MS, deeds }
}

/// What happens now and then beside the kinds of a seed: to all nodes at once, or to an engine that
/// takes as long as a signature needs to get into the log. It follows from chance of its own: what
/// else a seed has does not depend on it.
fn now_and_then(seed: u64) -> Vec<Deed> {
    let mut chance = Chance::new(seed ^ 0x6576_6572_7977_6865);
    let mut deeds = vec![];
    if chance.percent(8) {
        let (left, down_ms, apart_ms) =
            (left(&mut chance), down(&mut chance).min(4_000), chance.spread(1, 500));
        let what = What::Blackout { left, down_ms, apart_ms };
        deeds.push(Deed { at_ms: chance.between(CALM_MS, SPAN_MS), what });
    }
    if chance.percent(8) {
        let what = What::Apart { for_ms: chance.spread(100, 6_000) };
        deeds.push(Deed { at_ms: chance.between(CALM_MS, SPAN_MS), what });
    }
    if chance.percent(8) {
        let (fault, for_ms) =
            (EngineFault::Slow(chance.pick(&[400, 700, 1_000])), chance.spread(1_000, 6_000));
        let what = What::Engine { node: Who::Leader, fault, for_ms };
        deeds.push(Deed { at_ms: chance.between(CALM_MS, SPAN_MS), what });
    }
    deeds.extend(da_of_one(seed));
    deeds
}

/// A member loses its own way to DA for a while, or several do, one after the other.
fn da_of_one(seed: u64) -> Vec<Deed> {
    let mut chance = Chance::new(seed ^ 0x6461_6f66_6f6e_6500);
    if !chance.percent(10) {
        return vec![];
    }
    let times = chance.between(1, 4);
    let cut = |_| {
        let node = chance.pick(&[Who::Leader, Who::Leader, Who::Node(0), Who::Node(1), Who::Node(2)]);
        let what = What::DaOf { node, for_ms: chance.spread(100, 12_000) };
        Deed { at_ms: chance.between(CALM_MS, SPAN_MS), what }
    };
    (0..times).map(cut).collect()
}

fn shape(chance: &mut Chance, form: Form) -> Shape {
    let voters = form.voters();
    let older =
        if chance.percent(15) { (0..voters).filter(|_| chance.percent(50)).collect() } else { vec![] };
    let max_ms = chance.pick(&[0, 1, 2, 2, 4, 8]);
    let weather = Storm {
        min_ms: 0,
        max_ms,
        lost: chance.pick(&[0, 0, 0, 1, 5]),
        twice: chance.pick(&[0, 0, 2, 10]),
        late: chance.pick(&[0, 0, 2, 5]),
    };
    let (snapshot_after, keep_entries) = chance.pick(&[(20, 5), (50, 20), (50, 20), (1_000, 1_000)]);
    Shape {
        voters,
        learners: usize::from(chance.percent(10)),
        witness: form.witness(chance.percent(15)),
        older,
        block_time_ms: 100,
        snapshot_after,
        keep_entries,
        weather,
        fsync_ms: chance.pick(&[0, 0, 0, 1, 3]),
        clients: chance.index(4) + 1,
        client_ms: chance.spread(20, 300),
        forced_ms: 0,
        full: None,
        rates_ppm: vec![],
    }
}

/// Every fifth history has forced inclusion. By a chance of its own, so that nothing else follows from
/// it.
fn forced_ms(seed: u64) -> u64 {
    let mut chance = Chance::new(seed ^ 0x666f_7263_6564);
    if chance.percent(20) { chance.spread(100, 1_500) } else { 0 }
}

/// In every eighth history clocks run faster or slower than time does, by a tenth of a thousandth up to a
/// tenth. By a chance of its own, too.
fn rates_ppm(seed: u64, form: Form) -> Vec<i64> {
    let mut chance = Chance::new(seed ^ 0x7261_7465_7300);
    if !chance.percent(12) {
        return vec![];
    }
    let rate = |_| {
        let off = i64::try_from(chance.spread(100, 100_000)).unwrap_or_default();
        chance.pick(&[0, off, off, -off, -off])
    };
    (0..form.voters()).map(rate).collect()
}

/// Somebody, the leader more often than others.
fn who(chance: &mut Chance, shape: &Shape) -> Who {
    match chance.below(5) {
        0 | 1 => Who::Leader,
        2 => Who::Follower(chance.index(shape.voters)),
        _ => Who::Node(chance.index(shape.voters + shape.learners)),
    }
}

/// Long enough for an election, or hardly noticed.
fn a_while(chance: &mut Chance) -> u64 {
    chance.spread(10, 4_000)
}

/// From at once to a quarter of an hour; that is rare.
fn down(chance: &mut Chance) -> u64 {
    match chance.below(200) {
        0 => chance.spread(10_000, LONGEST_MS),
        1..=20 => 0,
        _ => chance.spread(10, 4_000),
    }
}

fn left(chance: &mut Chance) -> Left {
    match chance.below(4) {
        0 => Left::All,
        1 => Left::Nothing,
        2 => Left::Prefix(chance.index(6)),
        _ => Left::Torn(chance.index(6)),
    }
}

fn storm(chance: &mut Chance) -> Storm {
    Storm {
        min_ms: chance.pick(&[0, 0, 1, 5]),
        max_ms: chance.spread(2, 60),
        lost: chance.pick(&[0, 10, 50, 200]),
        twice: chance.pick(&[0, 10, 50]),
        late: chance.pick(&[0, 10, 50]),
    }
}

fn deed(kind: Kind, chance: &mut Chance, shape: &Shape) -> What {
    let node = who(chance, shape);
    let for_ms = a_while(chance);
    match kind {
        Kind::Crash => What::Crash { node, left: left(chance), down_ms: down(chance) },
        Kind::CrashAt => {
            let among = chance.pick(&[Among::All, Among::Disk, Among::Guard, Among::Da]);
            let after = chance.between(1, if among == Among::All { 60 } else { 12 });
            What::CrashAt { node, among, after, left: left(chance), down_ms: down(chance) }
        }
        Kind::Partition => {
            let mut away = vec![node];
            if chance.percent(20) {
                away.push(who(chance, shape));
            }
            What::Partition { away, for_ms }
        }
        Kind::CutOneWay => What::CutOneWay { from: node, to: who(chance, shape), for_ms },
        Kind::Hold => What::Hold { from: node, to: who(chance, shape), for_ms },
        Kind::Weather => What::Weather { storm: storm(chance), for_ms },
        Kind::Freeze => What::Freeze { node, for_ms },
        Kind::Clock => {
            let by = i64::try_from(chance.spread(1, 3_600_000)).unwrap_or_default();
            What::Clock { node, by_ms: if chance.percent(50) { by } else { -by } }
        }
        Kind::Disk => {
            let faults =
                [DiskFault::Full, DiskFault::Write, DiskFault::Sync, DiskFault::Synced, DiskFault::Slow(20)];
            What::Disk { node, fault: chance.pick(&faults), for_ms }
        }
        Kind::Hang => What::Disk { node, fault: DiskFault::Hang, for_ms },
        Kind::Damage => {
            let down_ms = down(chance).min(4_000);
            match chance.below(3) {
                0 => What::Flip { node, pick: chance.below(1 << 32), down_ms },
                1 => What::Wipe { node, down_ms },
                _ => What::Restore { node, age_ms: a_while(chance), down_ms },
            }
        }
        Kind::Engine => {
            let faults = [EngineFault::Slow(30), EngineFault::Hang, EngineFault::Away, EngineFault::Lost];
            What::Engine { node, fault: chance.pick(&faults), for_ms }
        }
        Kind::Da => {
            let faults = [DaFault::Away, DaFault::Slow(500), DaFault::FalseError, DaFault::Late(700)];
            What::Da { fault: chance.pick(&faults), for_ms }
        }
        Kind::Members => match chance.below(5) {
            0 => What::Join,
            1 | 2 => What::Promote { node },
            3 => What::Demote { node },
            _ => What::Remove { node },
        },
        Kind::Transfer => What::Transfer { to: node },
        Kind::HandOff => What::HandOff { to: node },
        Kind::Pause => What::Pause { for_ms },
        Kind::Upgrade => What::Upgrade { node, down_ms: down(chance).min(4_000) },
        Kind::Stale => What::Stale,
        Kind::Mistake => match chance.below(3) {
            0 => What::Twin { node, for_ms },
            1 => What::Stray { for_ms },
            _ => What::WrongCluster { for_ms },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(seed: u64) -> History {
        history(seed, Form::USUAL)
    }

    #[test]
    fn a_history_follows_from_its_seed_and_from_nothing_else() {
        for seed in 0..50 {
            assert_eq!(of(seed), of(seed));
        }
        assert_ne!(of(1).deeds, of(2).deeds);
    }

    #[test]
    fn every_kind_of_deed_comes_within_a_few_hundred_seeds() {
        let mut names = std::collections::BTreeSet::new();
        for seed in 0..400 {
            for deed in of(seed).deeds {
                let value = serde_json::to_value(&deed.what).expect("plain data");
                names.insert(
                    value.as_object().map_or_else(|| value.to_string(), |map| map.keys().cloned().collect()),
                );
            }
        }
        assert_eq!(names.len(), 30, "{names:?}");
    }

    #[test]
    fn a_history_survives_being_written_down() {
        let before = of(3);
        let text = serde_json::to_string(&before).expect("plain data");
        assert_eq!(serde_json::from_str::<History>(&text).expect("the same"), before);
    }
}
