//! Entries, their versions and what they cost.

use std::collections::BTreeMap;
use std::time::Duration;

use baton_messages::command::{BlockEntry, Command};
use baton_messages::types::Height;
use sim::{Cluster, ClusterPlan, cluster_run};

/// One quorum round and at most one fsync per node before a block is acknowledged (E19).
#[test]
fn a_block_costs_one_round_and_one_fsync_per_node() {
    cluster_run(31, |seed| {
        let mut cluster = Cluster::start(3, seed);
        cluster.reach_everywhere(10);
        let leader = cluster.wait_for_leader();
        let before: Vec<u64> = (0..3).map(|index| cluster.machine(index).disk.syncs()).collect();
        let rounds = cluster.net().calls()["append"];
        let from = cluster.reader(leader).applied().expect("blocks").0;
        let height = cluster.heights()[leader];
        cluster.reach(height.0 + 50);
        let entries = cluster.reader(leader).applied().expect("blocks").0.0 - from.0;
        for (index, before) in before.into_iter().enumerate() {
            let syncs = cluster.machine(index).disk.syncs() - before;
            assert!(syncs <= entries + 2, "n{index}: {syncs} fsyncs for {entries} entries");
        }
        // Each entry goes to each follower once; telling them that it is committed needs no fsync.
        let calls = cluster.net().calls()["append"] - rounds;
        assert!(calls <= 4 * entries + 4, "{calls} calls for {entries} entries to two followers");
        cluster.come_to_rest();
    });
}

/// Hazard A25: a newer version of entries is used once every voter knows it, and not before.
#[test]
fn a_newer_version_of_entries_is_activated_once_every_voter_knows_it() {
    cluster_run(32, |seed| {
        let command_versions = BTreeMap::from([(0, 2), (1, 2), (2, 1)]);
        let plan = ClusterPlan { command_versions, ..ClusterPlan::default() };
        let mut cluster = Cluster::start_with(3, seed, plan);
        cluster.reach_everywhere(30);
        for index in 0..3 {
            assert_eq!(cluster.reader(index).command_version(), 1, "one voter does not know it");
        }
        cluster.kill(2);
        cluster.restart_knowing(2, 2);
        cluster.until("the newer version in force", |cluster| {
            (0..3).all(|index| cluster.reader(index).command_version() == 2)
        });
        cluster.kill(1);
        cluster.restart_knowing(1, 2);
        cluster.pass(Duration::from_secs(1));
        assert_eq!(cluster.reader(1).command_version(), 2, "it is part of what is stored");
        let height = cluster.heights().into_iter().max().expect("three");
        cluster.reach_everywhere(height.0 + 10);
    });
}

/// A version that does not know an entry stops and names the upgrade; it does not guess.
#[test]
fn an_entry_of_a_version_that_is_not_known_stops_the_node_and_names_the_upgrade() {
    cluster_run(33, |seed| {
        let command_versions = BTreeMap::from([(0, 2), (1, 2), (2, 2)]);
        let plan = ClusterPlan { command_versions, ..ClusterPlan::default() };
        let mut cluster = Cluster::start_with(3, seed, plan);
        cluster.step();
        cluster.node(2).announce_alarm("a newer version of baton is needed");
        // It tells the others that it knows the newer version, and does not.
        cluster.node(2).pretend_to_know(1);
        cluster.elect(0);
        cluster.until("the older node to stop", |cluster| !cluster.node(2).alarms().is_empty());
        let alarm = cluster.node(2).alarms().remove(0);
        assert!(alarm.contains("install the newer version"), "{alarm}");
        // The others go on.
        let height = cluster.heights().into_iter().max().expect("three");
        cluster.reach(height.0 + 10);
    });
}

/// Hazard A7: an entry that a deposed leader left behind commits under the next one, or is refused
/// by apply on every member alike. Hazard A6: its proposer never makes a sibling.
#[test]
fn an_entry_of_a_deposed_leader_is_decided_the_same_everywhere() {
    for seed in 0..12 {
        cluster_run(seed, |seed| {
            let mut cluster = Cluster::start(3, seed);
            cluster.reach_everywhere(5);
            let old = cluster.wait_for_leader();
            cluster.submit(old, "first=v");
            // The next entry reaches nobody, or one, or everybody, and its acknowledgement is lost.
            cluster.pass(Duration::from_millis(seed * 11 % 100));
            let heard = (old + 1 + seed as usize % 2) % 3;
            for other in (0..3).filter(|index| *index != old) {
                if seed % 3 == 0 && other == heard {
                    cluster.cut_one_way(other, old);
                } else {
                    cluster.partition(&[old]);
                }
            }
            cluster.pass(Duration::from_millis(120));
            let others: Vec<usize> = (0..3).filter(|index| *index != old).collect();
            cluster
                .until("a successor", |cluster| others.iter().any(|index| cluster.leader() == Some(*index)));
            let height = cluster.heights().into_iter().max().expect("three");
            cluster.reach(height.0 + 3);
            cluster.heal();
            cluster.come_to_rest();
        });
    }
}

/// The same entry in another term than its own is refused by apply, on every member, for ever.
#[test]
fn every_member_refuses_what_apply_refuses() {
    cluster_run(34, |seed| {
        let mut cluster = Cluster::start(3, seed);
        cluster.reach_everywhere(5);
        let leader = cluster.wait_for_leader();
        let block = cluster.reader(leader).block(Height(2)).expect("readable").expect("there");
        let term = cluster.reader(leader).tip().term;
        let stale = BlockEntry { term, block, tail: None, forced: cluster.reader(leader).forced() };
        let outcome = cluster.record(leader, Command::Block(stale));
        assert!(outcome.is_ok(), "the very block that stands there: {outcome:?}");
        cluster.come_to_rest();
    });
}
