//! What a review found by reading, as scenarios.

use baton_messages::cluster::Pause;
use baton_storage::memory::Keep;
use sim::{Cluster, HEARTBEAT, cluster_run};

fn pause(cluster: &mut Cluster, index: usize) {
    let asked = cluster.ask(index, |node| async move {
        node.ports().pause.send(Pause { reason: "unfit by script".to_owned() }).await
    });
    asked.expect("the node is up").expect("the supervisor hears it");
}

/// The only fit member leads, commits with the others before its own disk has it, loses that with
/// its power and is back at once: nobody votes for it, and its conditions are no leader's (P6).
#[test]
fn a_leader_that_lost_its_tail_and_is_back_keeps_nobody_from_leading() {
    cluster_run(61, |seed| {
        let mut cluster = Cluster::start(3, seed);
        cluster.reach_everywhere(5);
        let leader = cluster.wait_for_leader();
        let others: Vec<usize> = (0..3).filter(|index| *index != leader).collect();
        for other in &others {
            pause(&mut cluster, *other);
        }
        cluster.machine(leader).disk.sync_late();
        let before = cluster.heights()[leader];
        cluster.until("the others to have what the leader will lose", |cluster| {
            let last = cluster.reader(leader).last_log();
            let level = others.iter().all(|other| {
                let reader = cluster.reader(*other);
                reader.last_log() == last && reader.tip() == cluster.reader(leader).tip()
            });
            level && cluster.heights()[leader].0 >= before.0 + 3
        });
        let had = cluster.heights()[leader];
        cluster.crash(leader, Keep::None);
        cluster.pass(HEARTBEAT);
        cluster.restart(leader);
        cluster.pass(HEARTBEAT);
        assert!(cluster.heights()[leader] < had, "it lost its tail");
        // The only one that may produce is it: somebody brings it level and hands over.
        cluster.reach(had.0 + 10);
        assert_eq!(cluster.leader(), Some(leader));
        cluster.come_to_rest();
    });
}
