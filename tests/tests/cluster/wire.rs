//! The same nodes over the real transport and simulated TCP.

use std::time::Duration;

use sim::{Cluster, ClusterPlan, HEARTBEAT, Way, Weather, cluster_run, listed_seeds};

fn over_tcp() -> ClusterPlan {
    ClusterPlan { way: Way::Tcp, ..ClusterPlan::default() }
}

#[test]
fn over_tcp_three_nodes_form_a_cluster_and_survive_their_leader() {
    cluster_run(41, |seed| {
        let mut cluster = Cluster::start_with(3, seed, over_tcp());
        cluster.reach_everywhere(5);
        let mut worst = Duration::ZERO;
        for round in 0..10 {
            let leader = cluster.wait_for_leader();
            cluster.submit(leader, &format!("r{round}=v"));
            cluster.pass(Duration::from_millis(13 * round));
            let before = cluster.heights().into_iter().max().expect("three");
            let since = cluster.elapsed();
            cluster.kill(leader);
            cluster.reach(before.0 + 1);
            worst = worst.max(cluster.elapsed() - since);
            cluster.restart(leader);
            cluster.reach_everywhere(before.0 + 5);
        }
        println!("the longest of ten failovers over TCP: {worst:?}");
        assert!(worst < HEARTBEAT * 24, "{worst:?}");
        cluster.come_to_rest();
    });
}

#[test]
fn over_tcp_a_leader_that_is_cut_off_is_succeeded_and_follows_when_the_link_is_back() {
    cluster_run(42, |seed| {
        let mut cluster = Cluster::start_with(3, seed, over_tcp());
        cluster.reach_everywhere(5);
        for _ in 0..3 {
            let old = cluster.wait_for_leader();
            cluster.partition(&[old]);
            let height = cluster.heights().into_iter().max().expect("three");
            cluster.reach(height.0 + 10);
            assert_ne!(cluster.leader(), Some(old));
            cluster.heal();
            let height = cluster.heights().into_iter().max().expect("three");
            cluster.reach_everywhere(height.0 + 5);
        }
        cluster.come_to_rest();
    });
}

#[test]
fn over_tcp_one_node_grows_to_three() {
    cluster_run(43, |seed| {
        let mut cluster = Cluster::start_with(1, seed, over_tcp());
        cluster.reach(5);
        let (second, third) = (cluster.join(), cluster.join());
        cluster.reach_everywhere(20);
        let names = vec![sim::name(second), sim::name(third)];
        cluster.change_at_leader(&baton_messages::cluster::MemberChange::Promote(names));
        cluster.kill(0);
        let height = cluster.heights().into_iter().max().expect("three");
        cluster.reach(height.0 + 5);
        cluster.come_to_rest();
    });
}

#[test]
fn over_tcp_slow_links_slow_the_chain_and_break_nothing() {
    listed_seeds("over_tcp_slow_links_slow_the_chain_and_break_nothing", 3, |seed| {
        cluster_run(seed, |seed| {
            let weather = Weather { min_ms: 1, max_ms: 8, ..Weather::default() };
            let mut cluster = Cluster::start_with(3, seed, ClusterPlan { weather, ..over_tcp() });
            cluster.reach_everywhere(15);
            cluster.come_to_rest();
        });
    });
}

#[test]
fn over_tcp_the_same_seed_gives_the_same_chain() {
    let run = |seed| {
        cluster_run(seed, |seed| {
            let mut cluster = Cluster::start_with(3, seed, over_tcp());
            cluster.reach(5);
            let leader = cluster.wait_for_leader();
            cluster.kill(leader);
            cluster.reach(12);
            (cluster.elapsed(), cluster.heights(), cluster.leader())
        })
    };
    for seed in 0..2 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}
