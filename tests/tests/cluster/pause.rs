//! An operator's pause is in the log: every leader honours it, until it is lifted, on any member.

use std::collections::BTreeMap;
use std::time::Duration;

use baton_messages::cluster::{ChangeError, HandOff, Pause, Resume};
use baton_messages::command::PAUSE_VERSION;
use baton_messages::types::LogIndex;
use sim::{Cluster, ClusterPlan, cluster_run};

fn pause(cluster: &mut Cluster, index: usize) -> Result<LogIndex, ChangeError> {
    let asked = Pause { reason: "scripted".to_owned() };
    let answer = cluster.ask(index, |node| async move { node.ports().pause.send(asked).await });
    answer.expect("the node is up").expect("raft answers")
}

fn resume(cluster: &mut Cluster, index: usize) -> Result<LogIndex, ChangeError> {
    let answer = cluster.ask(index, |node| async move { node.ports().resume.send(Resume).await });
    answer.expect("the node is up").expect("raft answers")
}

/// A cluster that makes blocks and knows entries of the version of a pause.
fn started(seed: u64) -> Cluster {
    let mut cluster = Cluster::start(3, seed);
    cluster.reach_everywhere(5);
    cluster.until("entries of the newer version", |cluster| {
        (0..3).all(|index| cluster.reader(index).command_version() >= PAUSE_VERSION)
    });
    cluster
}

/// Nobody makes a block for some seconds.
fn rests(cluster: &mut Cluster) {
    cluster.pass(Duration::from_millis(500));
    let before = cluster.heights().into_iter().max();
    cluster.pass(Duration::from_secs(3));
    assert_eq!(cluster.heights().into_iter().max(), before, "a block was made although an operator said no");
}

#[test]
fn a_paused_leader_keeps_leadership_and_goes_on_when_it_is_resumed() {
    cluster_run(54, |seed| {
        let mut cluster = started(seed);
        let leader = cluster.wait_for_leader();
        pause(&mut cluster, leader).expect("it leads");
        rests(&mut cluster);
        assert_eq!(cluster.leader(), Some(leader));
        resume(&mut cluster, leader).expect("it is paused");
        let height = cluster.reader(leader).tip().height.0;
        cluster.reach(height + 5);
        cluster.come_to_rest();
    });
}

#[test]
fn a_pause_outlives_its_leader_and_every_restart_and_is_lifted_on_any_member() {
    cluster_run(55, |seed| {
        let mut cluster = started(seed);
        for round in 0..4 {
            let leader = cluster.wait_for_leader();
            let (one, other) = ((leader + 1) % 3, (leader + 2) % 3);
            // Asked of one that follows: it is handed on.
            pause(&mut cluster, if round % 2 == 0 { one } else { leader }).expect("somebody leads");
            rests(&mut cluster);
            cluster.kill(leader);
            cluster.until("another leader", |cluster| cluster.leader().is_some());
            rests(&mut cluster);
            cluster.restart(leader);
            if round == 3 {
                (0..3).for_each(|index| cluster.kill(index));
                (0..3).for_each(|index| cluster.restart(index));
                cluster.until("another leader", |cluster| cluster.leader().is_some());
            }
            rests(&mut cluster);
            let height = cluster.heights().into_iter().max().expect("three").0;
            resume(&mut cluster, other).expect("somebody leads");
            cluster.reach_everywhere(height + 5);
            let nothing = resume(&mut cluster, one);
            assert!(matches!(nothing, Err(ChangeError::Refused(_))), "success without effect: {nothing:?}");
        }
        cluster.come_to_rest();
    });
}

/// Everything that is committed anywhere is on DA and known to be there, and no block came meanwhile.
fn drains(cluster: &mut Cluster) {
    let tip = cluster.heights().into_iter().max().expect("three");
    cluster.until("everything committed to be DA-included", |cluster| {
        cluster.up().all(|index| {
            let reader = cluster.reader(index);
            reader.tip().height == tip && reader.da_progress().included == tip
        })
    });
    assert_eq!(
        cluster.heights().into_iter().max(),
        Some(tip),
        "a block was made although an operator said no"
    );
    assert_eq!(cluster.machine(0).ledger.tip(), tip);
}

fn lag(cluster: &Cluster, index: usize) -> u64 {
    let reader = cluster.reader(index);
    reader.tip().height.0 - reader.da_progress().included.0
}

#[test]
fn everything_committed_before_a_pause_is_included_by_a_slow_da_while_it_lasts() {
    cluster_run(57, |seed| {
        let mut cluster = started(seed);
        cluster.machine(0).ledger.set_slow(Duration::from_millis(1_500));
        let leader = cluster.wait_for_leader();
        let height = cluster.reader(leader).tip().height.0;
        cluster.reach(height + 30);
        cluster.submit(leader, "last=1");
        cluster.empty_queues();
        pause(&mut cluster, leader).expect("it leads");
        cluster.pass(Duration::from_millis(500));
        assert!(lag(&cluster, leader) > 10, "P7: there is a tail to bring to DA");
        drains(&mut cluster);
        let view = cluster.ask(leader, |node| async move { node.supervisor().await }).expect("it is up");
        assert_eq!(view.pause.as_deref(), Some("operator: paused: scripted"), "it still says so");
        assert_eq!(view.paused.as_deref(), Some("scripted"));
        assert!(view.grant.is_some() && view.eligibility.reasons.is_empty(), "{view:?}");
        assert_eq!(cluster.leader(), Some(leader));
        resume(&mut cluster, leader).expect("it is paused");
        cluster.come_to_rest();
    });
}

#[test]
fn a_leader_elected_in_a_pause_brings_what_the_one_before_left_to_da() {
    cluster_run(58, |seed| {
        let mut cluster = started(seed);
        for round in 0..3 {
            cluster.machine(0).ledger.set_away(true);
            let leader = cluster.wait_for_leader();
            let height = cluster.reader(leader).tip().height.0;
            cluster.reach(height + 20);
            pause(&mut cluster, leader).expect("it leads");
            cluster.pass(Duration::from_millis(500));
            assert!(lag(&cluster, leader) > 10, "P7: there is a tail to bring to DA");
            // The first time it is handed over, then it is lost, before or after DA is back.
            match round {
                0 => {
                    let asked = HandOff { to: None, reason: "scripted".to_owned() };
                    let done =
                        cluster.ask(leader, |node| async move { node.ports().hand_off.send(asked).await });
                    done.expect("it is up").expect("it answers").expect("somebody is level");
                }
                _ => cluster.kill(leader),
            }
            cluster.until("another leader", |cluster| cluster.leader().is_some_and(|now| now != leader));
            if round == 2 {
                cluster.pass(Duration::from_secs(5));
            }
            cluster.machine(0).ledger.set_away(false);
            drains(&mut cluster);
            if round > 0 {
                cluster.restart(leader);
            }
            let height = cluster.heights().into_iter().max().expect("three").0;
            let leader = cluster.wait_for_leader();
            resume(&mut cluster, leader).expect("it leads");
            cluster.reach_everywhere(height + 5);
        }
        cluster.come_to_rest();
    });
}

#[test]
fn a_pause_without_a_quorum_or_before_every_voter_knows_it_is_no_success() {
    cluster_run(56, |seed| {
        let command_versions = BTreeMap::from([(2, PAUSE_VERSION - 1)]);
        let plan = ClusterPlan { command_versions, ..ClusterPlan::default() };
        let mut cluster = Cluster::start_with(3, seed, plan);
        cluster.reach_everywhere(20);
        let leader = cluster.wait_for_leader();
        let early = pause(&mut cluster, leader);
        assert!(matches!(&early, Err(ChangeError::Refused(why)) if why.contains("every voter")), "{early:?}");
        cluster.kill(2);
        cluster.restart_knowing(2, PAUSE_VERSION);
        cluster.until("entries of the newer version", |cluster| {
            (0..3).all(|index| cluster.reader(index).command_version() == PAUSE_VERSION)
        });
        let leader = cluster.wait_for_leader();
        cluster.partition(&[leader]);
        let alone = pause(&mut cluster, leader);
        assert!(matches!(alone, Err(ChangeError::Unconfirmed(_) | ChangeError::NotLeader(_))), "{alone:?}");
        cluster.heal();
    });
}
