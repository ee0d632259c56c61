//! Leadership that is given away: by an order, by a node that shuts down, by one that is not fit.

use std::time::Duration;

use baton_messages::cluster::{HandOff, HandOffError, HandedOff};
use baton_messages::supervisor::{DiskHealthChanged, Shutdown};
use baton_messages::types::Height;
use sim::{Cluster, cluster_run, listed_seeds, name};

const BLOCK_TIME: Duration = Duration::from_millis(100);

fn hand_off(cluster: &mut Cluster, from: usize, to: Option<usize>) -> Result<HandedOff, HandOffError> {
    let asked = HandOff { to: to.map(name), reason: "scripted".to_owned() };
    let answer = cluster.ask(from, move |node| async move {
        node.ports().hand_off.send(asked).timeout(Duration::from_secs(20)).await
    });
    answer.expect("the node is up").expect("the supervisor answers")
}

/// The longest time between two headers from one height on, as a part of a block time.
fn longest_gap(cluster: &Cluster, from: u64) -> f64 {
    let reader = cluster.reader(cluster.up().next().expect("somebody is up"));
    let time = |height| reader.header(Height(height)).expect("readable").expect("there").time.0;
    let tip = reader.tip().height.0;
    let gaps = (from..tip).map(|height| time(height + 1) - time(height));
    gaps.max().unwrap_or_default() as f64 / BLOCK_TIME.as_nanos() as f64
}

/// The design's number: no missed slot (L4), at any moment between two blocks and two heartbeats.
#[test]
fn a_hand_off_misses_no_slot() {
    listed_seeds("a_hand_off_misses_no_slot", 10, |seed| {
        cluster_run(seed, |seed| {
            let mut cluster = Cluster::start(3, seed);
            cluster.reach_everywhere(5);
            let mut longest = 0.0_f64;
            for order in 0..30_u64 {
                let from = cluster.wait_for_leader();
                cluster.submit(from, &format!("s{seed}o{order}=v"));
                cluster.pass(Duration::from_millis((seed * 31 + order * 17) % 130));
                let before = cluster.reader(from).tip().height.0;
                let to = (from + 1 + order as usize % 2) % 3;
                let done = hand_off(&mut cluster, from, Some(to)).expect("everybody is well");
                assert_eq!(done.to, name(to));
                cluster.reach(before + 4);
                assert_eq!(cluster.leader(), Some(to));
                longest = longest.max(longest_gap(&cluster, before - 1));
            }
            assert!(longest <= 1.5, "seed {seed}: {longest:.2} block times between two headers");
            cluster.come_to_rest();
        });
    });
}

#[test]
fn a_leader_that_is_told_to_stop_hands_over_first_and_no_slot_is_missed() {
    cluster_run(51, |seed| {
        let mut cluster = Cluster::start(3, seed);
        cluster.reach_everywhere(5);
        for _ in 0..10 {
            let from = cluster.wait_for_leader();
            let before = cluster.reader(from).tip().height.0;
            let stopped = cluster.ask(from, |node| async move {
                for part in &node.ports().shutdown {
                    part.send(Shutdown).timeout(Duration::from_secs(10)).await.expect("it ends in time");
                }
            });
            assert!(stopped.is_some());
            cluster.kill(from);
            cluster.reach(before + 5);
            assert!(longest_gap(&cluster, before - 1) <= 1.5, "L4");
            assert_ne!(cluster.leader(), Some(from));
            cluster.restart(from);
            cluster.reach_everywhere(before + 15);
        }
        cluster.come_to_rest();
    });
}

#[test]
fn a_target_that_dies_at_any_moment_of_a_hand_off_costs_one_failover_at_the_most() {
    for moment in 0..25_u64 {
        cluster_run(moment, move |seed| {
            let mut cluster = Cluster::start(3, seed);
            cluster.reach_everywhere(5);
            let from = cluster.wait_for_leader();
            let to = (from + 1) % 3;
            let asked = HandOff { to: Some(name(to)), reason: "scripted".to_owned() };
            let answer = cluster.begin(from, move |node| async move {
                node.ports().hand_off.send(asked).timeout(Duration::from_secs(20)).await
            });
            cluster.pass(Duration::from_millis(moment * 4));
            let height = cluster.heights().into_iter().max().expect("three");
            cluster.kill(to);
            let since = cluster.elapsed();
            cluster.reach(height.0 + 5);
            let took = cluster.elapsed() - since;
            assert!(took < Duration::from_secs(3), "F4, F5: no block for {took:?}, {moment}");
            cluster.until("an answer", |_| answer.borrow().is_some());
            cluster.restart(to);
            cluster.come_to_rest();
        });
    }
}

#[test]
fn a_leader_whose_disk_is_filling_up_is_succeeded_by_one_who_is_fit() {
    cluster_run(53, |seed| {
        let mut cluster = Cluster::start(3, seed);
        cluster.reach_everywhere(5);
        let ill = cluster.wait_for_leader();
        let before = cluster.reader(ill).tip().height.0;
        let trouble = || DiskHealthChanged { trouble: Some("scripted".to_owned()) };
        cluster.ask(ill, move |node| async move {
            for port in &node.ports().disk {
                port.do_send(trouble());
            }
        });
        cluster.reach(before + 10);
        assert_ne!(cluster.leader(), Some(ill), "E18, S2");
        assert!(longest_gap(&cluster, before - 1) <= 2.5, "a block or two late");
        let view = cluster.ask(ill, |node| async move { node.supervisor().await }).expect("up");
        assert_eq!(view.eligibility.reasons, ["disk: scripted"]);
        // It is not given leadership back, and does not take it, while it is ill.
        let leader = cluster.wait_for_leader();
        assert!(matches!(hand_off(&mut cluster, leader, Some(ill)), Err(HandOffError::NoTarget(_))));
        cluster.kill(leader);
        cluster.reach(before + 20);
        assert_ne!(cluster.leader(), Some(ill), "P6");
    });
}
