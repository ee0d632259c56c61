//! Leaders that die, are cut off, or are half cut off.

use std::time::Duration;

use baton_storage::memory::Keep;
use sim::{Cluster, HEARTBEAT, cluster_run, listed_seeds};

/// From the kill to the next committed block, in virtual time. One cluster is killed many times.
fn gaps(seed: u64, kills: usize) -> Vec<Duration> {
    cluster_run(seed, move |seed| {
        let mut cluster = Cluster::start(3, seed);
        cluster.reach_everywhere(3);
        let mut gaps = vec![];
        for kill in 0..kills {
            let leader = cluster.wait_for_leader();
            // Anywhere between two heartbeats and two blocks.
            cluster.pass(Duration::from_millis((seed * 7 + kill as u64 * 13) % 130));
            let before = cluster.heights().into_iter().max().unwrap_or_default();
            let since = cluster.elapsed();
            cluster.kill(leader);
            cluster.reach(before.0 + 1);
            gaps.push(cluster.elapsed() - since);
            cluster.restart(leader);
            let height = cluster.heights().into_iter().max().unwrap_or_default();
            cluster.reach_everywhere(height.0 + 3);
        }
        cluster.check();
        gaps
    })
}

/// The numbers of the design: p50 at most 11 heartbeats, p99 at most 16.
#[test]
fn after_a_killed_leader_the_next_block_comes_within_its_bound() {
    let mut all: Vec<f64> = (0..10)
        .flat_map(|seed| gaps(seed, 30))
        .map(|gap| gap.as_secs_f64() / HEARTBEAT.as_secs_f64())
        .collect();
    all.sort_by(f64::total_cmp);
    let at = |share: f64| all[((all.len() - 1) as f64 * share).round() as usize];
    println!(
        "{} kills, heartbeats from the kill to the next block: p50 {:.1}, p90 {:.1}, p99 {:.1}, max {:.1}",
        all.len(),
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    );
    assert!(at(0.5) <= 11.0, "p50 is {:.1} heartbeats", at(0.5));
    assert!(at(0.99) <= 16.0, "p99 is {:.1} heartbeats", at(0.99));
}

#[test]
fn a_leader_in_the_minority_makes_no_block_and_comes_back() {
    cluster_run(3, |seed| {
        let mut cluster = Cluster::start(3, seed);
        cluster.reach_everywhere(5);
        let old = cluster.wait_for_leader();
        cluster.partition(&[old]);
        cluster.pass(Duration::from_millis(200));
        let stuck = cluster.reader(old).tip().height;
        let others: Vec<usize> = (0..3).filter(|index| *index != old).collect();
        cluster.until("a leader among the majority", |cluster| {
            others.iter().any(|index| cluster.leader() == Some(*index))
        });
        cluster.reach(stuck.0 + 20);
        assert!(cluster.reader(old).tip().height <= stuck.next(), "P1: cut off, it made blocks");
        cluster.heal();
        cluster.come_to_rest();
    });
}

/// Its heartbeats arrive, nothing comes back: without the silence of a leader without a quorum its
/// followers would hear it for ever (hazard S9).
#[test]
fn a_leader_that_hears_nobody_is_succeeded_although_everybody_hears_it() {
    cluster_run(4, |seed| {
        let mut cluster = Cluster::start(3, seed);
        cluster.reach_everywhere(5);
        let old = cluster.wait_for_leader();
        for other in (0..3).filter(|index| *index != old) {
            cluster.cut_one_way(other, old);
        }
        let before = cluster.heights().into_iter().max().expect("three");
        let since = cluster.elapsed();
        cluster.reach(before.0 + 5);
        let took = cluster.elapsed() - since;
        assert_ne!(cluster.leader(), Some(old));
        assert!(took < Duration::from_secs(5), "it took {took:?}");
        cluster.heal();
        cluster.come_to_rest();
    });
}

/// It hears everybody and nobody hears it: with pre-votes it does not depose the new leader.
#[test]
fn a_node_that_is_not_heard_disturbs_nobody() {
    cluster_run(5, |seed| {
        let mut cluster = Cluster::start(3, seed);
        cluster.reach_everywhere(5);
        let leader = cluster.wait_for_leader();
        let mute = (0..3).find(|index| *index != leader).expect("three");
        for other in (0..3).filter(|index| *index != mute) {
            cluster.cut_one_way(mute, other);
        }
        cluster.pass(Duration::from_secs(5));
        assert_eq!(cluster.leader(), Some(leader));
        cluster.heal();
        cluster.pass(Duration::from_secs(1));
        assert_eq!(cluster.leader(), Some(leader), "S7: who comes back does not depose the leader");
        cluster.come_to_rest();
    });
}

#[test]
fn a_flapping_link_does_not_stop_the_chain() {
    cluster_run(6, |seed| {
        let mut cluster = Cluster::start(3, seed);
        cluster.reach_everywhere(5);
        for round in 0..40 {
            let away = round % 3;
            cluster.partition(&[away]);
            cluster.pass(HEARTBEAT * (1 + round as u32 % 12));
            cluster.heal();
            cluster.pass(HEARTBEAT * 6);
        }
        cluster.come_to_rest();
    });
}

#[test]
fn the_whole_cluster_loses_power_and_comes_back() {
    cluster_run(7, |seed| {
        let mut cluster = Cluster::start(3, seed);
        for round in 0..10_u64 {
            let height = cluster.heights().into_iter().max().unwrap_or_default();
            cluster.reach(height.0 + 4);
            let leader = cluster.wait_for_leader();
            cluster.submit(leader, &format!("r{round}=v"));
            cluster.pass(Duration::from_millis(17 * round));
            for index in 0..3 {
                cluster.crash(index, if round % 2 == 0 { Keep::None } else { Keep::Prefix(2) });
            }
            for index in 0..3 {
                cluster.restart((index + round as usize) % 3);
            }
        }
        cluster.come_to_rest();
    });
}

/// Any number of fresh nodes, started in any order, within seconds of each other or not.
#[test]
fn fresh_nodes_started_in_any_order_produce_within_three_seconds() {
    for count in [3, 5, 7] {
        listed_seeds("fresh_nodes_started_in_any_order_produce_within_three_seconds", 6, |seed| {
            cluster_run(seed, move |seed| {
                let mut cluster = Cluster::of(count, seed, sim::ClusterPlan::default());
                let step = 1 + (seed as usize * 2) % (count - 1);
                let step = if count.is_multiple_of(step) { 1 } else { step };
                for position in 0..count {
                    cluster.restart((seed as usize + position * step) % count);
                    cluster.pass(Duration::from_millis(seed * 37 % 150));
                }
                let since = cluster.elapsed();
                cluster.reach(2);
                let took = cluster.elapsed() - since;
                assert!(took < Duration::from_secs(3), "{count} nodes, seed {seed}: {took:?}");
                cluster.come_to_rest();
            });
        });
    }
}
