//! Each member has its own way to DA.

use std::time::Duration;

use baton_messages::types::Height;
use sim::{Cluster, ClusterPlan, cluster_run, listed_seeds};

/// So long DA is away before the others are asked, in simulated clusters.
const LIMIT: Duration = Duration::from_secs(5);

/// What is on DA, as far as somebody knows.
fn included(cluster: &Cluster) -> Height {
    cluster.up().map(|index| cluster.reader(index).da_progress().included).max().unwrap_or_default()
}

fn reach_on_da(cluster: &mut Cluster, height: Height) {
    cluster.until(&format!("{height} on DA"), |cluster| included(cluster) >= height);
}

/// Its DA node dies; the others have their own.
fn the_leader_alone_loses_da(seed: u64, plan: ClusterPlan) {
    let mut cluster = Cluster::start_with(3, seed, plan);
    cluster.reach_everywhere(5);
    reach_on_da(&mut cluster, Height(5));
    let cut = cluster.wait_for_leader();
    cluster.cut_da(cut, true);
    let since = cluster.elapsed();
    cluster.until("another leader", |cluster| cluster.leader().is_some_and(|leader| leader != cut));
    let took = cluster.elapsed() - since;
    assert!(took >= LIMIT, "S6: DA comes back mostly, and it took {took:?}");
    assert!(took < LIMIT * 2, "L3: it took {took:?}");
    let tip = cluster.heights().into_iter().max().expect("three");
    reach_on_da(&mut cluster, Height(tip.0 + 10));
    // It stays with who has it, also when the one without DA is well otherwise.
    let leader = cluster.wait_for_leader();
    cluster.pass(LIMIT * 4);
    assert_eq!(cluster.leader(), Some(leader));
    // Somebody without DA may be elected all the same, and gives it away again.
    cluster.elect(cut);
    let tip = cluster.heights().into_iter().max().expect("three");
    reach_on_da(&mut cluster, Height(tip.0 + 100));
    assert_ne!(cluster.leader(), Some(cut));
    cluster.cut_da(cut, false);
    cluster.come_to_rest();
}

#[test]
fn a_leader_that_alone_loses_da_is_succeeded_and_inclusion_goes_on() {
    listed_seeds("a_leader_that_alone_loses_da_is_succeeded_and_inclusion_goes_on", 3, |seed| {
        cluster_run(seed, |seed| the_leader_alone_loses_da(seed, ClusterPlan::default()));
    });
}

/// No block is due while it is not known what users have forced.
#[test]
fn a_leader_that_alone_cannot_read_what_is_forced_is_succeeded() {
    listed_seeds("a_leader_that_alone_cannot_read_what_is_forced_is_succeeded", 2, |seed| {
        cluster_run(seed, |seed| {
            let plan = ClusterPlan { forced_epoch: Some(4), ..ClusterPlan::default() };
            the_leader_alone_loses_da(seed, plan);
        });
    });
}

/// The backlog fills, blocks stop; whoever led would find the same.
#[test]
fn an_outage_that_all_share_moves_no_leadership() {
    listed_seeds("an_outage_that_all_share_moves_no_leadership", 4, |seed| {
        cluster_run(seed, |seed| {
            let mut cluster = Cluster::start(3, seed);
            cluster.reach_everywhere(5);
            let leader = cluster.wait_for_leader();
            let term = cluster.reader(leader).tip().term;
            if seed % 2 == 0 {
                cluster.machine(0).ledger.set_away(true);
            } else {
                // As nodes of their own that fail one after the other.
                for index in 0..3 {
                    cluster.cut_da(index, true);
                    cluster.pass(Duration::from_secs(1));
                }
            }
            cluster.pass(LIMIT * 6);
            assert_eq!(cluster.leader(), Some(leader), "S5");
            let view = cluster.ask(leader, |node| async move { node.supervisor().await }).expect("up");
            assert!(
                view.pause.is_some_and(|why| why.contains("wait for the DA layer")),
                "the backlog is full"
            );
            assert!(view.eligibility.reasons.is_empty(), "it can still be handed over, and is ready");
            assert!(cluster.metrics(leader).supervisor.da_questions.get() > 10, "it goes on looking");
            cluster.machine(0).ledger.heal();
            for index in 0..3 {
                cluster.cut_da(index, false);
            }
            let tip = cluster.reader(leader).tip();
            reach_on_da(&mut cluster, Height(tip.height.0 + 20));
            assert_eq!((cluster.leader(), cluster.reader(leader).tip().term), (Some(leader), term), "S5");
            cluster.come_to_rest();
        });
    });
}

#[test]
fn a_leader_whose_da_comes_and_goes_keeps_leadership() {
    listed_seeds("a_leader_whose_da_comes_and_goes_keeps_leadership", 3, |seed| {
        cluster_run(seed, |seed| {
            let mut cluster = Cluster::start(3, seed);
            cluster.reach_everywhere(5);
            let leader = cluster.wait_for_leader();
            for _ in 0..10 {
                cluster.cut_da(leader, true);
                cluster.pass(LIMIT - Duration::from_millis(600));
                cluster.cut_da(leader, false);
                cluster.pass(Duration::from_secs(2));
            }
            assert_eq!(cluster.leader(), Some(leader), "S6");
            cluster.come_to_rest();
        });
    });
}
