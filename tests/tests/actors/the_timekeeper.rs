//! The timekeeper beside a chain that somebody else makes.

use sim::{MAX_CLOCK_DRIFT, SimClock};

use super::*;

const START: Timestamp = Timestamp(1_700_000_000_000_000_000);

struct Rig {
    clock: SimClock,
    world: World,
    metrics: timekeeper::Metrics,
    timekeeper: Addr<Timekeeper>,
    height: Height,
}

impl Rig {
    /// A node whose clock shows this, beside a chain whose blocks begin at `START`.
    fn showing(wall: Timestamp) -> Self {
        let clock = SimClock::showing(wall);
        let world = World::bounded(Arc::new(clock.clone()), 1, MAX_CLOCK_DRIFT);
        let metrics = timekeeper::Metrics::default();
        let timekeeper = Timekeeper::new(metrics.clone(), world.clone()).start();
        Self { clock, world, metrics, timekeeper, height: Height(0) }
    }

    /// A block of this time is applied.
    fn apply(&mut self, time: Timestamp) {
        self.height = self.height.next();
        let tip = Tip { height: self.height, time, ..Tip::default() };
        self.timekeeper.do_send(Applied { tip });
    }

    /// Blocks every 100 ms that come 30 ms after their time, which begins with this one.
    async fn live(&mut self, from: Timestamp, blocks: u64) -> Timestamp {
        let mut time = from;
        for _ in 0..blocks {
            pass(30).await;
            self.apply(time);
            pass(70).await;
            time = time.plus(Duration::from_millis(100));
        }
        time
    }
}

#[test]
fn a_leaders_clock_that_agrees_with_this_one_is_no_news() {
    sim_run(1, || async {
        let mut rig = Rig::showing(START);
        rig.live(START, 300).await;
        assert_eq!(rig.metrics.alarms.get(), 0);
        assert!(rig.metrics.chain_offset.get().abs() < 0.1, "{}", rig.metrics.chain_offset.get());
        assert_eq!(rig.world.now(), rig.clock.now());
    });
}

#[test]
fn a_follower_tells_that_the_leaders_clock_is_ahead_and_that_it_agrees_again() {
    sim_run(1, || async {
        let mut rig = Rig::showing(START);
        let time = rig.live(START.plus(Duration::from_secs(60)), 300).await;
        assert_eq!(rig.metrics.alarms.get(), 1);
        assert!((rig.metrics.chain_offset.get() - 60.0).abs() < 0.1, "{}", rig.metrics.chain_offset.get());
        rig.clock.jump(60_000_000_000);
        rig.live(time, 100).await;
        assert!(rig.metrics.chain_offset.get().abs() < 0.1);
        assert_eq!(rig.metrics.alarms.get(), 1);
        assert_eq!(rig.world.now(), rig.clock.now(), "the corrected clock is believed at once");
    });
}

#[test]
fn a_node_whose_clock_was_ahead_from_the_start_leads_with_the_time_of_the_chain() {
    sim_run(1, || async {
        let mut rig = Rig::showing(START.plus(Duration::from_secs(3_600)));
        let time = rig.live(START, 300).await;
        let ahead = Duration::from_nanos(rig.world.now().0 - time.0);
        assert!(ahead <= MAX_CLOCK_DRIFT + Duration::from_secs(2), "A19: {ahead:?}");
        assert_eq!(rig.metrics.alarms.get(), 1);
        assert!(rig.metrics.held_back.get() > 3_500.0);
    });
}

#[test]
fn a_replay_says_nothing_about_clocks() {
    sim_run(1, || async {
        let mut rig = Rig::showing(START.plus(Duration::from_secs(36_000)));
        for second in 0..600 {
            rig.apply(START.plus(Duration::from_secs(second)));
            pass(50).await;
        }
        assert_eq!(rig.metrics.alarms.get(), 0);
        assert_eq!(rig.world.now(), rig.clock.now());
    });
}
