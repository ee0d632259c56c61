//! Three nodes form a cluster, produce, and go on when one is gone.

use std::time::Duration;

use sim::{Cluster, cluster_run};

#[test]
fn three_nodes_form_a_cluster_and_produce_one_chain() {
    cluster_run(1, |seed| {
        let mut cluster = Cluster::start(3, seed);
        let leader = cluster.wait_for_leader();
        for number in 0..10 {
            cluster.submit(leader, &format!("k{number}=v"));
        }
        cluster.reach_everywhere(20);
        cluster.come_to_rest();
    });
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let run = |seed| {
        cluster_run(seed, |seed| {
            let mut cluster = Cluster::start(3, seed);
            cluster.reach(5);
            let leader = cluster.wait_for_leader();
            cluster.kill(leader);
            cluster.reach(10);
            cluster.restart(leader);
            cluster.pass(Duration::from_secs(1));
            (cluster.net().trace(), cluster.heights())
        })
    };
    for seed in 0..3 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}

#[test]
fn a_killed_leader_is_succeeded_and_comes_back_as_a_follower() {
    cluster_run(2, |seed| {
        let mut cluster = Cluster::start(3, seed);
        cluster.reach(5);
        let leader = cluster.wait_for_leader();
        cluster.kill(leader);
        let before = cluster.heights().into_iter().max().expect("three nodes");
        cluster.reach(before.0 + 5);
        assert_ne!(cluster.leader(), Some(leader));
        cluster.restart(leader);
        cluster.come_to_rest();
    });
}
