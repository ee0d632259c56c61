//! Members that come and go while blocks are made.

use std::time::Duration;

use baton_actors::raft::Bootstrap;
use baton_messages::cluster::{ChangeError, MemberChange, TransferError};
use baton_messages::types::Height;
use baton_storage::memory::Keep;
use sim::{Cluster, ClusterPlan, HEARTBEAT, address, cluster_run, name};

fn promote(members: &[usize]) -> MemberChange {
    MemberChange::Promote(members.iter().map(|index| name(*index)).collect())
}

/// Whoever joins gets everything from the log.
fn long_log() -> ClusterPlan {
    ClusterPlan { keep_entries: 100_000, ..ClusterPlan::default() }
}

/// Load on whoever leads while something else happens.
fn load(cluster: &mut Cluster, tag: &str, count: usize) {
    for number in 0..count {
        let leader = cluster.wait_for_leader();
        cluster.submit(leader, &format!("{tag}{number}=v"));
        cluster.pass(Duration::from_millis(40));
    }
}

fn voters(cluster: &mut Cluster, index: usize) -> Vec<String> {
    let view = cluster.view(index);
    let mut names: Vec<String> =
        view.members.into_iter().filter(|member| member.voter).map(|member| member.member.name).collect();
    names.sort();
    names
}

#[test]
fn one_node_grows_to_three_and_to_five_under_load_and_shrinks_back() {
    cluster_run(11, |seed| {
        let mut cluster = Cluster::start_with(1, seed, long_log());
        cluster.reach(5);
        let (second, third) = (cluster.join(), cluster.join());
        load(&mut cluster, "a", 20);
        cluster.change_at_leader(&promote(&[second, third]));
        assert_eq!(voters(&mut cluster, 0), ["n0", "n1", "n2"]);
        load(&mut cluster, "b", 10);
        let (fourth, fifth) = (cluster.join(), cluster.join());
        load(&mut cluster, "c", 20);
        cluster.change_at_leader(&promote(&[fourth, fifth]));
        load(&mut cluster, "d", 10);
        let leader = cluster.wait_for_leader();
        assert_eq!(voters(&mut cluster, leader).len(), 5);
        // Five voters survive two.
        cluster.kill(leader);
        let next = cluster.wait_for_leader();
        cluster.kill(next);
        let height = cluster.heights().into_iter().max().expect("five");
        cluster.reach(height.0 + 5);
        cluster.restart(leader);
        cluster.restart(next);
        let now = cluster.wait_for_leader();
        let out: Vec<usize> = (0..5).filter(|index| *index != now).take(2).collect();
        cluster.change_at_leader(&MemberChange::Demote(name(out[0])));
        cluster.change_at_leader(&MemberChange::Remove(name(out[1])));
        let leader = cluster.wait_for_leader();
        assert_eq!(voters(&mut cluster, leader).len(), 3);
        // A node that was removed hears nothing more; it is switched off.
        cluster.crash(out[1], Keep::All);
        let height = cluster.heights().into_iter().max().expect("five");
        cluster.reach(height.0 + 10);
        cluster.check();
    });
}

#[test]
fn two_voters_are_refused_without_a_persons_word() {
    cluster_run(12, |seed| {
        let mut cluster = Cluster::start(1, seed);
        cluster.reach(3);
        let second = cluster.join();
        cluster.reach_everywhere(10);
        let refused = cluster.change(0, promote(&[second]), false);
        assert!(
            matches!(&refused, Err(ChangeError::Refused(reason)) if reason.contains("--force")),
            "{refused:?}"
        );
        cluster.change(0, promote(&[second]), true).expect("forced");
        cluster.come_to_rest();
    });
}

#[test]
fn a_dead_machine_is_replaced_while_blocks_are_made() {
    cluster_run(13, |seed| {
        let mut cluster = Cluster::start(3, seed);
        cluster.reach_everywhere(5);
        let leader = cluster.wait_for_leader();
        let dead = (0..3).find(|index| *index != leader).expect("three");
        cluster.crash(dead, Keep::None);
        let fresh = cluster.join();
        load(&mut cluster, "a", 20);
        cluster.change_at_leader(&MemberChange::Replace { old: name(dead), new: name(fresh) });
        let leader = cluster.wait_for_leader();
        let now = voters(&mut cluster, leader);
        assert!(now.contains(&name(fresh)) && !now.contains(&name(dead)), "{now:?}");
        // The dead one comes back with its disk: nobody takes its calls, and it disturbs nobody.
        cluster.restart(dead);
        cluster.pass(Duration::from_secs(3));
        assert_eq!(cluster.leader(), Some(leader));
        cluster.crash(dead, Keep::All);
        let height = cluster.heights().into_iter().max().expect("four");
        cluster.until("the fresh one to follow", |cluster| cluster.heights()[fresh] >= height);
        cluster.check();
    });
}

/// Hazards A9 and E4: a disk that was lost is another member, whatever the node is called.
#[test]
fn a_wiped_disk_comes_back_as_a_stranger_and_is_refused() {
    cluster_run(14, |seed| {
        let mut cluster = Cluster::start_with(3, seed, long_log());
        cluster.reach_everywhere(5);
        let leader = cluster.wait_for_leader();
        let victim = (0..3).find(|index| *index != leader).expect("three");
        cluster.kill(victim);
        cluster.wipe(victim);
        cluster.restart(victim);
        cluster.pass(Duration::from_secs(5));
        let view = cluster.view(victim);
        assert!(view.members.is_empty(), "it belongs to nothing: {view:?}");
        let waits = view.waits_for.expect("it says what it waits for");
        assert!(waits.contains("another storage"), "{waits}");
        assert_eq!(cluster.heights()[victim].0, 0, "it has not a single block");
        // A person removes the old one; then it joins.
        cluster.change(leader, MemberChange::Remove(name(victim)), true).expect("two voters, forced");
        cluster.until("the stranger to follow", |cluster| cluster.heights()[victim].0 > 10);
        cluster.change_at_leader(&promote(&[victim]));
        cluster.come_to_rest();
    });
}

/// Two of three lost their disks: nothing forms a new cluster from what is empty.
#[test]
fn empty_nodes_never_form_a_cluster_beside_the_one_there_is() {
    cluster_run(15, |seed| {
        let mut cluster = Cluster::start(3, seed);
        cluster.reach_everywhere(5);
        for index in [0, 1] {
            cluster.kill(index);
            cluster.wipe(index);
        }
        cluster.kill(2);
        cluster.restart(0);
        cluster.restart(1);
        cluster.pass(Duration::from_secs(5));
        assert_eq!(cluster.heights()[0].0, 0, "E4: it waits for the third");
        cluster.restart(2);
        cluster.pass(Duration::from_secs(5));
        assert_eq!(cluster.heights()[0].0, 0);
        let waits = cluster.view(0).waits_for.expect("it says what it waits for");
        assert!(waits.contains("nobody leads"), "{waits}");
    });
}

#[test]
fn leadership_is_handed_over_and_the_old_leader_follows() {
    cluster_run(16, |seed| {
        let mut cluster = Cluster::start(3, seed);
        cluster.reach_everywhere(5);
        for round in 0..6 {
            let from = cluster.wait_for_leader();
            let to = (from + 1 + round % 2) % 3;
            let mut handed = None;
            for _ in 0..50 {
                match cluster.transfer(from, to) {
                    Ok((term, leader)) => {
                        handed = Some((term, leader));
                        break;
                    }
                    // A block was on its way: nothing was done.
                    Err(TransferError::Behind { .. }) => cluster.pass(Duration::from_millis(3)),
                    Err(error) => panic!("not handed over: {error}"),
                }
            }
            assert!(handed.is_some(), "it is always behind");
            assert_eq!(cluster.leader(), Some(to));
            let height = cluster.heights().into_iter().max().expect("three");
            cluster.reach_everywhere(height.0 + 5);
        }
        cluster.come_to_rest();
    });
}

/// Hazard F4: openraft never forgets a transfer; the instance is built anew instead.
#[test]
fn a_transfer_that_nobody_takes_ends_with_raft_built_anew() {
    cluster_run(17, |seed| {
        let mut cluster = Cluster::start(3, seed);
        cluster.reach_everywhere(5);
        let from = cluster.wait_for_leader();
        let to = (from + 1) % 3;
        // The leader is alone from the moment of the transfer on.
        let outcome = loop {
            cluster.partition(&[from]);
            match cluster.transfer(from, to) {
                Err(TransferError::Behind { .. }) => {
                    cluster.heal();
                    cluster.pass(Duration::from_millis(7));
                }
                other => break other,
            }
        };
        assert!(matches!(outcome, Err(TransferError::NoSuccessor(_))), "nobody heard of it: {outcome:?}");
        cluster.heal();
        let height = cluster.heights().into_iter().max().expect("three");
        cluster.reach_everywhere(height.0 + 10);
        cluster.come_to_rest();
    });
}

#[test]
fn a_learner_behind_the_log_goes_on_from_a_snapshot_and_fetches_what_it_lacks() {
    cluster_run(18, |seed| {
        let plan = ClusterPlan { snapshot_after: 20, keep_entries: 10, ..ClusterPlan::default() };
        let mut cluster = Cluster::start_with(3, seed, plan);
        cluster.reach_everywhere(150);
        cluster
            .until("the logs to be purged", |cluster| (0..3).all(|index| cluster.node(index).purged() > 50));
        let late = cluster.join();
        cluster.until("the learner to have every block", |cluster| {
            cluster.heights()[late].0 > 150 && cluster.reader(late).missing() == Ok(None)
        });
        let reader = cluster.reader(late);
        assert_eq!(reader.first_height_with_body(), Height(1));
        assert!(reader.block(Height(1)).expect("readable").is_some());
        cluster.change_at_leader(&promote(&[late]));
        cluster.elect(late);
        let height = cluster.heights().into_iter().max().expect("four");
        cluster.reach_everywhere(height.0 + 30);
        cluster.come_to_rest();
    });
}

/// A voter that was away while everybody else was replaced hears leaders it does not know.
#[test]
fn a_member_that_was_away_finds_a_cluster_it_does_not_know() {
    cluster_run(19, |seed| {
        let mut cluster = Cluster::start(3, seed);
        cluster.reach_everywhere(5);
        let leader = cluster.wait_for_leader();
        let away = (0..3).find(|index| *index != leader).expect("three");
        let other = (0..3).find(|index| *index != leader && *index != away).expect("three");
        cluster.kill(away);
        let first = cluster.join();
        cluster.until("the first to follow", |cluster| cluster.heights()[first].0 > 8);
        cluster.change_at_leader(&MemberChange::Replace { old: name(other), new: name(first) });
        cluster.kill(other);
        let second = cluster.join();
        cluster.until("the second to follow", |cluster| cluster.heights()[second].0 > 12);
        cluster.elect(first);
        cluster.change_at_leader(&MemberChange::Replace { old: name(leader), new: name(second) });
        cluster.kill(leader);
        // Two of the three voters run, and neither is known to the third.
        cluster.restart(away);
        let height = cluster.heights().into_iter().max().expect("five");
        cluster.until("the one that was away to follow", |cluster| cluster.heights()[away].0 > height.0 + 5);
        cluster.check();
    });
}

#[test]
fn a_joining_node_waits_for_a_cluster_and_then_joins_it() {
    cluster_run(20, |seed| {
        let mut cluster = Cluster::of(1, seed, ClusterPlan::default());
        let joining = cluster.add_machine(Bootstrap::Join(vec![address(0)]));
        cluster.restart(joining);
        cluster.pass(Duration::from_secs(2));
        let waits = cluster.view(joining).waits_for.expect("it says what it waits for");
        assert!(waits.contains("no answer"), "{waits}");
        cluster.restart(0);
        cluster.until("the learner to follow", |cluster| cluster.heights()[joining].0 > 5);
        cluster.pass(HEARTBEAT);
        let view = cluster.view(0);
        assert_eq!(view.members.len(), 2);
        assert_eq!(cluster.view(joining).cluster, view.cluster);
        assert!(view.members.iter().any(|member| !member.voter && member.condition.is_some()), "{view:?}");
        cluster.come_to_rest();
    });
}
