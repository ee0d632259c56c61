//! Anything at any time.

use std::time::Duration;

use baton_storage::memory::Keep;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sim::{Cluster, Cut, HEARTBEAT, Weather, cluster_run, listed_seeds};

fn keep(random: &mut StdRng) -> Keep {
    match random.next_u32() % 4 {
        0 => Keep::All,
        1 => Keep::None,
        _ => Keep::Prefix((random.next_u32() % 6) as usize),
    }
}

/// A client asks any node that runs.
fn submit_anywhere(cluster: &mut Cluster, random: &mut StdRng, number: usize) {
    let up: Vec<usize> = cluster.up().collect();
    if !up.is_empty() {
        let asked = up[random.next_u32() as usize % up.len()];
        cluster.submit(asked, &format!("k{number}=v"));
    }
}

/// Power lost at any effect of any node, un-synced writes lost with it; another node at the same
/// time, in some runs.
#[test]
fn power_lost_at_any_effect_of_any_member_breaks_no_promise() {
    listed_seeds("power_lost_at_any_effect_of_any_member_breaks_no_promise", 12, |seed| {
        cluster_run(seed, |seed| {
            let mut random = StdRng::seed_from_u64(seed);
            let mut cluster = Cluster::of(3, seed, sim::ClusterPlan::default());
            for index in 0..3 {
                let cut = if index as u64 == seed % 3 {
                    Cut::AtEffect(1 + random.next_u64() % 400)
                } else {
                    Cut::Never
                };
                cluster.restart_with(index, cut);
            }
            for number in 0..60 {
                submit_anywhere(&mut cluster, &mut random, number);
                cluster.pass(Duration::from_millis(50));
                for index in cluster.lost_power() {
                    cluster.crash(index, keep(&mut random));
                    cluster.restart_with(index, Cut::AtEffect(1 + random.next_u64() % 600));
                }
            }
            cluster.come_to_rest();
        });
    });
}

/// Crashes, cuts in both and in one direction, bad weather, restarts, transfers: at any time, in
/// any order. Afterwards everybody has the same chain, and it grows.
#[test]
fn nothing_that_happens_breaks_a_promise() {
    listed_seeds("nothing_that_happens_breaks_a_promise", 10, |seed| {
        cluster_run(seed, |seed| {
            let mut random = StdRng::seed_from_u64(seed);
            let count = if seed % 3 == 2 { 5 } else { 3 };
            let mut cluster = Cluster::start(count, seed);
            for number in 0..60 {
                disturb(&mut cluster, &mut random);
                submit_anywhere(&mut cluster, &mut random, number);
                cluster.pass(HEARTBEAT * (1 + random.next_u32() % 15));
            }
            cluster.come_to_rest();
        });
    });
}

fn disturb(cluster: &mut Cluster, random: &mut StdRng) {
    let count = cluster.len();
    let mut any = || random.next_u32() as usize % count;
    let (one, other) = (any(), any());
    let up = cluster.up().collect::<Vec<_>>();
    match random.next_u32() % 10 {
        0 | 1 if up.contains(&one) => {
            let keep = keep(random);
            cluster.crash(one, keep);
        }
        2..=4 => {
            for index in (0..count).filter(|index| !up.contains(index)) {
                cluster.restart(index);
            }
        }
        5 => cluster.partition(&[one]),
        6 if one != other => cluster.cut_one_way(one, other),
        7 => cluster.heal(),
        8 => {
            let lost = u64::from(random.next_u32() % 30);
            let max_ms = u64::from(random.next_u32() % 20);
            cluster.net().set_weather(Weather { min_ms: 0, max_ms, lost, ..Weather::default() });
        }
        9 => {
            if let Some(leader) = cluster.leader()
                && leader != other
                && up.contains(&leader)
            {
                drop(cluster.begin_transfer(leader, other));
            }
        }
        _ => {}
    }
}
