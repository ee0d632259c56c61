//! Transactions given to any member, while leaders come and go (P3, E23, B2 to B7).

use std::time::Duration;

use baton_messages::cluster::{ForwardError, ForwardTxs};
use baton_messages::sequencer::Receipt;
use baton_messages::types::{Hash, Height, MemberId, Tx};
use baton_storage::Reader;
use sim::{Cluster, ClusterPlan, cluster_run};

/// How often a transaction is in the bodies that a node has.
fn times(reader: &Reader, text: &str) -> usize {
    let (hash, tip) = (Hash::of(text.as_bytes()), reader.tip().height);
    let block = |height| reader.block(Height(height)).expect("readable");
    let blocks = (reader.first_height_with_body().0..=tip.0).filter_map(block);
    blocks.map(|block| block.txs().iter().filter(|tx| tx.hash() == hash).count()).sum()
}

fn follower(cluster: &mut Cluster) -> usize {
    let leader = cluster.wait_for_leader();
    (0..cluster.len()).find(|index| *index != leader).expect("more than one")
}

#[test]
fn a_transaction_given_to_any_member_is_in_the_chain_once() {
    cluster_run(41, |seed| {
        let mut cluster = Cluster::start(3, seed);
        cluster.reach_everywhere(3);
        for index in 0..3 {
            cluster.submit(index, &format!("only{index}=1"));
            cluster.submit(index, "everywhere=1");
        }
        let texts = ["only0=1", "only1=1", "only2=1", "everywhere=1"];
        cluster.until("every transaction on every node", |cluster| {
            (0..3).all(|index| texts.iter().all(|text| times(&cluster.reader(index), text) == 1))
        });
        cluster.come_to_rest();
    });
}

#[test]
fn what_a_member_has_accepted_outlives_leader_after_leader() {
    cluster_run(42, |seed| {
        let mut cluster = Cluster::start(3, seed);
        cluster.reach_everywhere(3);
        for round in 0..8 {
            let leader = cluster.wait_for_leader();
            let other = follower(&mut cluster);
            for number in 0..5 {
                cluster.submit(other, &format!("follower{round}-{number}=1"));
                cluster.submit(leader, &format!("leader{round}-{number}=1"));
            }
            // Some are accepted, some are forwarded, some are in a block by now.
            cluster.pass(Duration::from_millis(5 * round));
            cluster.kill(leader);
            let height = cluster.heights().into_iter().max().expect("three");
            cluster.reach(height.0 + 3);
            cluster.restart(leader);
        }
        cluster.come_to_rest();
    });
}

/// What a follower sends when its sequencer has not heard of the new leader yet. Its predecessor has
/// what comes before, and the new leader has not: it would be in the chain first (B7).
#[test]
fn what_is_for_a_leader_of_before_is_not_given_to_its_successor() {
    cluster_run(46, |seed| {
        let mut cluster = Cluster::start(3, seed);
        cluster.reach_everywhere(3);
        let before = cluster.wait_for_leader();
        let (after, follower) = ((before + 1) % 3, (before + 2) % 3);
        let tx = Tx(bytes::Bytes::from_static(b"second=1"));
        cluster.machine(follower).oracle.attempt(&tx);
        let forward = |cluster: &mut Cluster, leader: usize| {
            let leader = MemberId::of(cluster.machine(leader).storage);
            let message = ForwardTxs { leader, txs: vec![tx.clone()], checked: Height(1) };
            let asked = cluster.ask(follower, |node| async move {
                node.ports().cluster.forward.send(message).await.expect("raft answers in every state")
            });
            asked.expect("the node runs")
        };
        cluster.elect(after);
        let refused = forward(&mut cluster, before);
        assert!(matches!(refused, Err(ForwardError::NoLeader(_))), "B7: {refused:?}");
        cluster.pass(Duration::from_secs(1));
        assert_eq!(times(&cluster.reader(after), "second=1"), 0);
        assert_eq!(forward(&mut cluster, after), Ok(vec![Receipt::Queued(tx.hash())]));
        cluster.until("it to be in the chain", |cluster| times(&cluster.reader(after), "second=1") == 1);
        cluster.come_to_rest();
    });
}

#[test]
fn a_member_whose_disk_is_all_that_is_left_of_a_transaction_brings_it_into_the_chain() {
    cluster_run(43, |seed| {
        let mut cluster = Cluster::start(3, seed);
        cluster.reach_everywhere(3);
        let away = follower(&mut cluster);
        cluster.partition(&[away]);
        cluster.submit(away, "alone=1");
        cluster.pass(Duration::from_secs(2));
        cluster.kill(away);
        cluster.heal();
        cluster.restart(away);
        cluster.until("the transaction on every node", |cluster| {
            (0..3).all(|index| times(&cluster.reader(index), "alone=1") == 1)
        });
        cluster.come_to_rest();
    });
}

/// It accepted a transaction, was cut off, and the same one was committed by others: so long ago
/// that no window reaches there and its own log does not go on from where it was.
#[test]
fn a_member_away_for_longer_than_the_window_runs_nothing_twice() {
    cluster_run(44, |seed| {
        let adjust = |_: usize, wiring: &mut baton::wiring::Wiring| {
            wiring.settings.sequencer.replay_window = 20;
        };
        let plan = ClusterPlan {
            snapshot_after: 20,
            keep_entries: 10,
            adjust: Some(std::rc::Rc::new(adjust)),
            ..ClusterPlan::default()
        };
        let mut cluster = Cluster::start_with(3, seed, plan);
        cluster.reach_everywhere(3);
        let away = follower(&mut cluster);
        cluster.partition(&[away]);
        cluster.submit(away, "twice=1");
        cluster.submit(away, "once=1");
        cluster.pass(Duration::from_millis(500));
        let leader = cluster.wait_for_leader();
        cluster.submit(leader, "twice=1");
        let height = cluster.heights().into_iter().max().expect("three");
        cluster.reach(height.0 + 100);
        assert_eq!(times(&cluster.reader(leader), "twice=1"), 1);
        cluster.heal();
        cluster.until("everything on every node", |cluster| {
            (0..3).all(|index| {
                let reader = cluster.reader(index);
                reader.gaps().is_empty() && times(&reader, "once=1") == 1
            })
        });
        cluster.pass(Duration::from_secs(10));
        for index in 0..3 {
            assert_eq!(times(&cluster.reader(index), "twice=1"), 1, "P3: node {index}");
        }
        cluster.come_to_rest();
    });
}

#[test]
fn a_learner_behind_the_log_fills_in_every_body_executes_and_takes_transactions() {
    cluster_run(45, |seed| {
        let plan = ClusterPlan { snapshot_after: 20, keep_entries: 10, ..ClusterPlan::default() };
        let mut cluster = Cluster::start_with(3, seed, plan);
        cluster.reach_everywhere(150);
        let late = cluster.join();
        cluster.until("the learner to have every body", |cluster| {
            cluster.heights()[late].0 > 150 && cluster.reader(late).gaps().is_empty()
        });
        assert!(cluster.reader(late).block(Height(1)).expect("readable").is_some());
        let tip = cluster.reader(late).tip().height;
        let executed = |cluster: &mut Cluster| {
            cluster.ask(late, |node| async move { node.supervisor().await.executed }).expect("it answers")
        };
        for _ in 0..100 {
            if executed(&mut cluster) >= tip {
                break;
            }
            cluster.pass(Duration::from_millis(100));
        }
        assert!(executed(&mut cluster) >= tip, "replayed from the first block on");
        cluster.submit(late, "learner=1");
        cluster.until("the transaction on every node", |cluster| {
            (0..4).all(|index| times(&cluster.reader(index), "learner=1") == 1)
        });
        cluster.come_to_rest();
    });
}
