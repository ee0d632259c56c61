//! Disks of single members that fail or are damaged.

use std::sync::Arc;
use std::time::Duration;

use baton_actors::raft::Bootstrap;
use baton_messages::types::Height;
use baton_storage::backend::{Family, StoreError};
use baton_storage::memory::{Effect, EffectOutcome};
use sim::{Cluster, ClusterPlan, HEARTBEAT, address, cluster_run};

/// A record that nobody reads but who builds the next snapshot: the node tells it and stops (P8).
/// It does not open its store again and again, and the others go on.
#[test]
fn damage_that_only_a_snapshot_meets_is_told_and_ends_the_node() {
    cluster_run(71, |seed| {
        let plan = ClusterPlan { snapshot_after: 20, keep_entries: 10, ..ClusterPlan::default() };
        let mut cluster = Cluster::start_with(3, seed, plan);
        cluster.reach_everywhere(10);
        let leader = cluster.wait_for_leader();
        let victim = (leader + 1) % 3;
        let hash = cluster.reader(victim).hash(Height(5)).expect("readable").expect("there");
        cluster.machine(victim).disk.damage_record(Family::Index, hash.to_bytes());
        cluster.node(victim).announce_alarm("checksum in index");
        cluster.until("a person is asked for", |cluster| !cluster.node(victim).alarms().is_empty());
        cluster.kill(victim);
        let height = cluster.heights().into_iter().max().expect("three");
        cluster.reach(height.0 + 10);
    });
}

/// Nobody but the sequencer reads the queue, and it asks again every second: what is damaged there
/// was neither accepted nor forwarded nor told, for ever (P8).
#[test]
fn a_damaged_queue_is_told_and_ends_the_node() {
    cluster_run(74, |seed| {
        let mut cluster = Cluster::start(3, seed);
        cluster.reach_everywhere(5);
        let leader = cluster.wait_for_leader();
        let victim = (leader + 1) % 3;
        cluster.partition(&[victim]);
        cluster.submit(victim, "a=1");
        cluster.pass(Duration::from_secs(1));
        cluster.kill(victim);
        cluster.heal();
        cluster.machine(victim).disk.damage_record(Family::Queue, 0_u64.to_be_bytes().to_vec());
        cluster.expect_damage(victim, true);
        cluster.restart(victim);
        cluster.pass(HEARTBEAT);
        cluster.until("a person is asked for", |cluster| !cluster.node(victim).alarms().is_empty());
        cluster.kill(victim);
        let height = cluster.heights().into_iter().max().expect("three");
        cluster.reach(height.0 + 10);
    });
}

/// Whatever is damaged, and whoever reads it first, is refused: the chain never shows it.
#[test]
fn a_damaged_body_is_never_served_to_others() {
    cluster_run(72, |seed| {
        let plan = ClusterPlan { snapshot_after: 20, keep_entries: 10, ..ClusterPlan::default() };
        let mut cluster = Cluster::start_with(3, seed, plan);
        cluster.submit(0, "a=1");
        cluster.reach_everywhere(60);
        let leader = cluster.wait_for_leader();
        for victim in (0..3).filter(|index| *index != leader) {
            let reader = cluster.reader(victim);
            let hash = reader.hash(Height(3)).expect("readable").expect("there");
            let key = [&3_u64.to_be_bytes()[..], &hash.to_bytes()[..]].concat();
            cluster.machine(victim).disk.damage_record(Family::Bodies, key);
            for word in ["checksum", "damaged"] {
                cluster.node(victim).announce_alarm(word);
            }
        }
        // Whoever joins now needs the body of height 3, and gets it from the one member that has it.
        let joined = cluster.join();
        cluster.until("the newcomer to have every block", |cluster| {
            cluster.heights()[joined].0 >= 60 && cluster.reader(joined).missing() == Ok(None)
        });
        let block = cluster.reader(joined).block(Height(3)).expect("readable").expect("fetched");
        let original = cluster.reader(leader).block(Height(3)).expect("readable").expect("there");
        assert_eq!(block.hash(), original.hash());
    });
}

/// Nothing is written by Raft on a node that belongs to no cluster yet: the store is opened again
/// all the same (P8).
#[test]
fn a_node_that_waits_for_a_cluster_opens_its_store_again_after_a_failure() {
    cluster_run(73, |seed| {
        let mut cluster = Cluster::of(1, seed, ClusterPlan::default());
        let joining = cluster.add_machine(Bootstrap::Join(vec![address(0)]));
        cluster.restart(joining);
        cluster.pass(Duration::from_millis(200));
        let disk = cluster.machine(joining).disk;
        disk.set_hook(Some(Arc::new(|effect| match effect {
            Effect::BeforeSync => EffectOutcome::Fail(StoreError::Io("cable".into())),
            _ => EffectOutcome::Continue,
        })));
        cluster.submit(joining, "a=1");
        cluster.until("the store to fail", |cluster| cluster.node(joining).trouble().is_some());
        disk.set_hook(None);
        cluster.until("the store to be open again", |cluster| cluster.node(joining).trouble().is_none());
        cluster.restart(0);
        cluster.until("the learner to follow", |cluster| cluster.heights()[joining].0 > 5);
        cluster.come_to_rest();
    });
}
