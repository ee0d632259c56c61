//! Forced transactions: whatever becomes of leaders, each is in the chain exactly once, in the order of
//! DA and within its deadline (hazards E7, B8, B9, I8).

use std::collections::BTreeMap;
use std::time::Duration;

use baton_messages::command::FORCED_VERSION;
use baton_messages::da::{Blob, Namespace};
use baton_messages::epoch::Epoch;
use baton_messages::types::{DaHeight, Height, Tx};
use baton_storage::Reader;
use baton_storage::memory::Keep;
use bytes::Bytes;
use sim::{Cluster, ClusterPlan, Cut, HEARTBEAT, Machine, cluster_run, listed_seeds};

/// DA blocks per epoch: here DA makes one for each submission, up to twenty in a second, and is asked how
/// far it is five times.
const EPOCH: u64 = 20;

/// A cluster whose chain has forced inclusion.
fn started(seed: u64) -> Cluster {
    let mut cluster = Cluster::start_with(3, seed, plan());
    cluster.reach_everywhere(3);
    cluster.until("entries that can say the position", |cluster| {
        (0..3).all(|index| cluster.reader(index).command_version() >= FORCED_VERSION)
    });
    cluster
}

fn plan() -> ClusterPlan {
    ClusterPlan { forced_epoch: Some(EPOCH), ..ClusterPlan::default() }
}

/// What users have put on DA, in its order.
#[derive(Default)]
struct Users {
    posted: Vec<Tx>,
}

impl Users {
    /// A user posts so many transactions in one DA block.
    fn post(&mut self, machine: &Machine, count: usize) {
        let sizes = [0, 40, 3_000];
        let blobs = (0..count).map(|_| {
            let number = self.posted.len();
            let text = format!("forced{number}={}", "x".repeat(sizes[number % sizes.len()]));
            let tx = Tx(Bytes::from(text));
            machine.oracle.attempt(&tx);
            self.posted.push(tx.clone());
            Blob { namespace: Namespace::of("forced"), data: tx.0 }
        });
        machine.ledger.append(blobs.collect());
    }

    /// Where each stands in a chain; each must stand there once, and in order.
    fn places(&self, reader: &Reader) -> Vec<Height> {
        let mut found: BTreeMap<Tx, Vec<(Height, usize)>> = BTreeMap::new();
        for height in (1..=reader.tip().height.0).map(Height) {
            let Some(block) = reader.block(height).expect("readable") else { continue };
            for (index, tx) in block.txs().iter().enumerate() {
                found.entry(tx.clone()).or_default().push((height, index));
            }
        }
        let mut places = vec![];
        for tx in &self.posted {
            match found.get(tx).map(Vec::as_slice) {
                Some([place]) => places.push(*place),
                Some(places) => panic!("E7: {tx:?} was forced {} times: {places:?}", places.len()),
                None => {}
            }
        }
        assert!(places.is_sorted(), "E7: forced transactions are not in the order of DA: {places:?}");
        places.into_iter().map(|(height, _)| height).collect()
    }

    fn are_in(&self, reader: &Reader) -> bool {
        self.places(reader).len() == self.posted.len()
    }
}

/// Everything that was posted comes into the chain, once.
fn all_come_in(cluster: &mut Cluster, users: &Users) {
    // DA goes on as long as blocks are posted there: the last epoch ends.
    for _ in 0..400 {
        cluster.pass(HEARTBEAT * 10);
        let leader = cluster.wait_for_leader();
        if users.are_in(&cluster.reader(leader)) {
            return;
        }
    }
    let leader = cluster.wait_for_leader();
    let reader = cluster.reader(leader);
    let (places, position) = (users.places(&reader), reader.forced());
    panic!("E7: {} of {} are in the chain, which is at {position:?}", places.len(), users.posted.len());
}

/// How a full node sees it: no block lies on DA beyond the grace of an epoch whose transactions are not
/// all in the chain up to that block.
fn in_time(machine: &Machine, reader: &Reader, users: &Users) {
    let mut places: BTreeMap<Tx, Height> = BTreeMap::new();
    for (tx, height) in users.posted.iter().zip(users.places(reader)) {
        places.insert(tx.clone(), height);
    }
    let headers = machine.ledger.header_places();
    for (tx, da) in machine.ledger.places_of(Namespace::of("forced")) {
        let epoch = Epoch::of(da, DaHeight(1), EPOCH);
        let height = places[&Tx(tx)];
        let late = headers.iter().find(|(block, at)| **block < height && at.0 > epoch.end.0 + EPOCH);
        assert!(late.is_none(), "forced at DA height {da} and in block {height}, behind {late:?}");
    }
}

#[test]
fn forced_transactions_come_first_in_the_order_of_da_once_their_epoch_is_over() {
    cluster_run(61, |seed| {
        let mut cluster = started(seed);
        let mut users = Users::default();
        let machine = cluster.machine(0);
        for round in 0..6 {
            users.post(&machine, round % 4 + 1);
            cluster.submit(round % 3, &format!("queued{round}=v"));
            cluster.pass(Duration::from_millis(700));
        }
        all_come_in(&mut cluster, &users);
        let leader = cluster.wait_for_leader();
        let reader = cluster.reader(leader);
        for height in users.places(&reader) {
            let block = reader.block(height).expect("readable").expect("there");
            let forced: Vec<bool> = block.txs().iter().map(|tx| users.posted.contains(tx)).collect();
            assert!(forced.is_sorted_by(|before, after| before >= after), "{height}: {forced:?}");
        }
        in_time(&machine, &reader, &users);
        cluster.come_to_rest();
    });
}

#[test]
fn more_than_a_block_holds_spills_over_into_the_next_ones() {
    cluster_run(62, |seed| {
        let mut cluster = started(seed);
        let mut users = Users::default();
        users.post(&cluster.machine(0), 40);
        all_come_in(&mut cluster, &users);
        let leader = cluster.wait_for_leader();
        let mut heights = users.places(&cluster.reader(leader));
        heights.dedup();
        assert!(heights.len() > 3, "40 KB in blocks of 10 KB: {heights:?}");
        cluster.come_to_rest();
    });
}

#[test]
fn leaders_that_die_between_any_two_effects_force_nothing_twice_and_skip_nothing() {
    let test = "leaders_that_die_between_any_two_effects_force_nothing_twice_and_skip_nothing";
    listed_seeds(test, 24, leaders_die);
}

/// Users force transactions while leaders end, at once or instead of some effect.
fn leaders_die(seed: u64) {
    cluster_run(seed, move |seed| {
        let mut cluster = started(seed);
        let mut users = Users::default();
        let machine = cluster.machine(0);
        for round in 0..8 {
            let number = seed + round;
            users.post(&machine, number as usize % 3 + 1);
            cluster.submit(number as usize % 3, &format!("queued{round}=v"));
            cluster.pass(HEARTBEAT * (4 + number as u32 % 7));
            let leader = cluster.wait_for_leader();
            cluster.crash(leader, if seed % 2 == 0 { Keep::None } else { Keep::All });
            // Its next life ends somewhere in what follows, every other time.
            let effects = 40 + (seed * 13 + round * 29) % 60;
            cluster.restart_with(leader, if round % 2 == 0 { Cut::AtEffect(effects) } else { Cut::Never });
            cluster.pass(HEARTBEAT * 20);
            for index in cluster.lost_power() {
                cluster.crash(index, Keep::All);
                cluster.restart(index);
            }
        }
        all_come_in(&mut cluster, &users);
        let leader = cluster.wait_for_leader();
        in_time(&machine, &cluster.reader(leader), &users);
        cluster.come_to_rest();
    });
}

/// The position is the node's own: what ev-node does.
#[cfg(feature = "mutations")]
#[test]
fn a_local_position_of_forced_inclusion_is_found() {
    use baton_messages::mutation::{Mutation, plant};
    plant(Some(Mutation::LocalForcedPosition));
    let found = (0..10).find(|seed| std::panic::catch_unwind(|| leaders_die(*seed)).is_err());
    plant(None);
    assert!(found.is_some(), "ten seeds did not show it");
}

#[test]
fn a_member_that_comes_by_snapshot_and_leads_goes_on_where_the_last_one_was() {
    cluster_run(63, |seed| {
        let plan = ClusterPlan { snapshot_after: 20, keep_entries: 5, ..plan() };
        let mut cluster = Cluster::start_with(3, seed, plan);
        let mut users = Users::default();
        let machine = cluster.machine(0);
        cluster.reach_everywhere(5);
        cluster.elect(0);
        cluster.kill(2);
        for _ in 0..10 {
            users.post(&machine, 2);
            cluster.pass(Duration::from_secs(1));
        }
        all_come_in(&mut cluster, &users);
        cluster.restart(2);
        let height = cluster.reader(0).tip().height.0;
        cluster.reach_everywhere(height + 5);
        assert!(cluster.reader(2).forced().da_height > DaHeight(EPOCH), "it came with the snapshot");
        users.post(&machine, 3);
        cluster.elect(2);
        all_come_in(&mut cluster, &users);
        cluster.come_to_rest();
    });
}

#[test]
fn while_da_is_away_nothing_is_passed_over_and_blocks_end_before_the_grace_does() {
    cluster_run(64, |seed| {
        let mut cluster = started(seed);
        let mut users = Users::default();
        let machine = cluster.machine(0);
        users.post(&machine, 2);
        cluster.pass(Duration::from_secs(1));
        machine.ledger.set_away(true);
        users.post(&machine, 3);
        // What is left of the epoch and half of one more, by estimate.
        cluster.pass(Duration::from_secs(7));
        let before = cluster.heights().into_iter().max();
        cluster.pass(Duration::from_secs(5));
        assert_eq!(
            cluster.heights().into_iter().max(),
            before,
            "a block was made that may leave something out"
        );
        machine.ledger.set_away(false);
        all_come_in(&mut cluster, &users);
        cluster.come_to_rest();
    });
}

#[test]
fn nobody_moves_the_position_before_every_voter_can_read_it() {
    cluster_run(65, |seed| {
        let command_versions = BTreeMap::from([(2, FORCED_VERSION - 1)]);
        let mut cluster = Cluster::start_with(3, seed, ClusterPlan { command_versions, ..plan() });
        let mut users = Users::default();
        users.post(&cluster.machine(0), 3);
        cluster.reach_everywhere(40);
        let position = cluster.reader(0).forced();
        assert_eq!((position.da_height, users.places(&cluster.reader(0)).len()), (DaHeight(0), 0));
        cluster.kill(2);
        cluster.restart_knowing(2, FORCED_VERSION);
        all_come_in(&mut cluster, &users);
        cluster.come_to_rest();
    });
}
