//! Members that go while they hold what they have accepted (P3).

use std::time::Duration;

use baton_messages::cluster::{ChangeError, MemberChange, Pause, Resume};
use baton_messages::command::PAUSE_VERSION;
use baton_messages::sequencer::{GetQueueView, Receipt, SubmitError, SubmitTxs};
use baton_messages::types::Tx;
use baton_storage::memory::Keep;
use bytes::Bytes;
use sim::{Cluster, ClusterPlan, HEARTBEAT, address, cluster_run, name};

/// Whoever is added again gets everything from the log.
fn long_log() -> ClusterPlan {
    ClusterPlan { keep_entries: 100_000, ..ClusterPlan::default() }
}

/// A client posts at a node, and hears what the node says.
fn post(cluster: &mut Cluster, index: usize, text: &str) -> Result<Vec<Receipt>, SubmitError> {
    let tx = Tx(Bytes::copy_from_slice(text.as_bytes()));
    cluster.machine(index).oracle.attempt(&tx);
    let asked = cluster.ask(index, |node| async move {
        node.ports().sequencer.submit_txs.send(SubmitTxs { txs: vec![tx] }).await
    });
    asked.expect("the node runs").expect("the sequencer answers in every state")
}

fn waiting(cluster: &mut Cluster, index: usize) -> usize {
    let asked =
        cluster.ask(index, |node| async move { node.ports().sequencer.view.send(GetQueueView).await });
    asked.expect("the node runs").expect("the sequencer answers in every state").txs
}

/// Nobody makes a block: what is accepted now stays where it is.
fn pause(cluster: &mut Cluster) -> usize {
    cluster.until("entries of the version of a pause", |cluster| {
        cluster.up().all(|index| cluster.reader(index).command_version() >= PAUSE_VERSION)
    });
    let leader = cluster.wait_for_leader();
    let asked = Pause { reason: "scripted".to_owned() };
    let answer = cluster.ask(leader, |node| async move { node.ports().pause.send(asked).await });
    answer.expect("it runs").expect("raft answers").expect("it leads");
    cluster.pass(Duration::from_millis(300));
    leader
}

fn resume(cluster: &mut Cluster, leader: usize) {
    let answer = cluster.ask(leader, |node| async move { node.ports().resume.send(Resume).await });
    answer.expect("it runs").expect("raft answers").expect("it is paused");
}

fn reason_of(refused: Result<impl std::fmt::Debug, ChangeError>) -> String {
    match refused {
        Err(ChangeError::Refused(reason)) => reason,
        other => panic!("not refused: {other:?}"),
    }
}

fn refuses_posts(cluster: &mut Cluster, index: usize, text: &str) {
    let posted = post(cluster, index, text);
    assert!(
        matches!(&posted, Err(SubmitError::NotReady(reason)) if reason.contains("no member")),
        "P3: nobody will ever take it: {posted:?}"
    );
}

/// Without this, it answered *accepted* for what nobody would ever take, and went on after a restart.
#[test]
fn a_member_that_was_removed_accepts_nothing_until_it_is_one_again() {
    cluster_run(71, |seed| {
        let mut cluster = Cluster::start_with(4, seed, long_log());
        cluster.reach_everywhere(5);
        let leader = cluster.wait_for_leader();
        let out = (leader + 1) % 4;
        cluster.change_at_leader(&MemberChange::Remove(name(out)));
        cluster.pass(HEARTBEAT * 3);
        refuses_posts(&mut cluster, out, "removed=1");
        // An election, and a restart: it still knows whom it was a member with.
        cluster.elect((leader + 2) % 4);
        cluster.pass(Duration::from_secs(1));
        refuses_posts(&mut cluster, out, "elected=1");
        cluster.kill(out);
        cluster.restart(out);
        cluster.pass(Duration::from_secs(1));
        refuses_posts(&mut cluster, out, "restarted=1");
        assert_eq!(waiting(&mut cluster, out), 0);
        // It is added again, by a person.
        cluster.change_at_leader(&MemberChange::Add { name: name(out), address: address(out) });
        cluster.pass(HEARTBEAT * 10);
        cluster.submit(out, "added=1");
        cluster.until("its transaction to be in the chain", |cluster| {
            let reader = cluster.reader(out);
            let holds = |height| {
                let block = reader.block(baton_messages::types::Height(height)).ok().flatten();
                block.is_some_and(|block| block.txs().iter().any(|tx| &tx.0[..] == b"added=1"))
            };
            (1..=reader.tip().height.0).any(holds)
        });
        cluster.come_to_rest();
    });
}

/// A member that only cannot hear its leader goes on accepting: it is still one.
#[test]
fn a_member_that_hears_no_leader_accepts_and_what_it_accepted_is_sequenced_later() {
    cluster_run(72, |seed| {
        let mut cluster = Cluster::start(3, seed);
        cluster.reach_everywhere(5);
        let away = (cluster.wait_for_leader() + 1) % 3;
        cluster.partition(&[away]);
        cluster.pass(Duration::from_secs(3));
        post(&mut cluster, away, "away=1").expect("it is a member");
        cluster.come_to_rest();
    });
}

/// Its queue would stay on its disk for ever.
#[test]
fn a_live_member_is_not_removed_or_replaced_while_it_holds_accepted_transactions() {
    cluster_run(73, |seed| {
        let mut cluster = Cluster::start_with(4, seed, long_log());
        let fresh = cluster.join();
        cluster.reach_everywhere(10);
        let leader = pause(&mut cluster);
        let out = (leader + 1) % 4;
        post(&mut cluster, out, "a=1").expect("accepted");
        post(&mut cluster, out, "b=1").expect("accepted");
        let remove = MemberChange::Remove(name(out));
        let replace = MemberChange::Replace { old: name(out), new: name(fresh) };
        for change in [&remove, &replace] {
            let reason = reason_of(cluster.change(leader, change.clone(), false));
            assert!(reason.contains("holds 2 accepted transactions"), "{reason}");
        }
        // As a learner it hands on what it holds, too.
        cluster.change(leader, MemberChange::Demote(name(out)), false).expect("three voters are left");
        let reason = reason_of(cluster.change(leader, remove.clone(), false));
        assert!(reason.contains("holds 2 accepted transactions"), "{reason}");
        resume(&mut cluster, leader);
        while waiting(&mut cluster, out) > 0 {
            cluster.pass(HEARTBEAT);
        }
        cluster.change(leader, remove, false).expect("it holds nothing");
        cluster.pass(HEARTBEAT * 3);
        refuses_posts(&mut cluster, out, "c=1");
        cluster.crash(out, Keep::All);
        let height = cluster.heights().into_iter().max().expect("five");
        cluster.reach(height.0 + 5);
        cluster.check();
    });
}

/// What a person insists on is done, and a dead member is asked for nothing.
#[test]
fn a_member_with_accepted_transactions_is_removed_by_force_or_once_it_is_dead() {
    for by_force in [true, false] {
        cluster_run(74, move |seed| {
            let mut cluster = Cluster::start_with(4, seed, long_log());
            cluster.reach_everywhere(5);
            let leader = pause(&mut cluster);
            let out = (leader + 1) % 4;
            post(&mut cluster, out, "a=1").expect("accepted");
            if !by_force {
                cluster.kill(out);
                cluster.pass(Duration::from_secs(2));
            }
            let remove = MemberChange::Remove(name(out));
            cluster.change(leader, remove, by_force).expect("nothing is asked of it");
            // Nobody lost it: it is on its disk, and is handed on when the node is a member again.
            if !by_force {
                cluster.restart(out);
            }
            cluster.pass(Duration::from_secs(1));
            refuses_posts(&mut cluster, out, "b=1");
            cluster.change_at_leader(&MemberChange::Add { name: name(out), address: address(out) });
            resume(&mut cluster, leader);
            cluster.come_to_rest();
        });
    }
}
