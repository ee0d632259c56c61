//! Records that are damaged on the disk of one member.

use baton_messages::types::Height;
use baton_storage::backend::Family;
use sim::{Cluster, ClusterPlan, cluster_run};

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
