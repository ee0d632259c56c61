//! What a review found by reading, as scenarios.

use std::time::Duration;

use baton_actors::raft::Bootstrap;
use baton_actors::raft::transport::{CallError, Class};
use baton_actors::raft::wire::{self, Append, Ballot, Call, Content, RaftCall, Record, Request};
use baton_messages::cluster::{ChangeMembers, MemberChange};
use baton_messages::supervisor::DiskHealthChanged;
use baton_messages::types::{MemberId, Term};
use baton_storage::memory::Keep;
use baton_storage::{LogIdRecord, VoteRecord};
use sim::{Cluster, HEARTBEAT, Weather, address, cluster_run, member, name};

/// A member hears that its disk is nearly full: it may not produce.
fn not_fit(cluster: &mut Cluster, index: usize) {
    let told = cluster.ask(index, |node| async move {
        for disk in &node.ports().disk {
            disk.do_send(DiskHealthChanged { trouble: Some("nearly full by script".to_owned()) });
        }
    });
    told.expect("the node is up");
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
            not_fit(&mut cluster, *other);
        }
        cluster.hang_disk(leader);
        let before = cluster.heights()[leader];
        cluster.until("the others to have what the leader will lose", |cluster| {
            others.iter().all(|other| cluster.heights()[*other] > before)
        });
        assert_eq!(cluster.leader(), Some(leader), "it leads still");
        let had = cluster.heights()[others[0]];
        cluster.crash(leader, Keep::None);
        cluster.release_disk(leader);
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

/// Of how many configurations the applied membership is.
fn configurations(cluster: &Cluster, index: usize) -> usize {
    cluster.reader(index).membership().membership().get_joint_config().len()
}

fn begin_change(cluster: &mut Cluster, index: usize, change: MemberChange) {
    drop(cluster.begin(index, move |node| async move {
        let message = ChangeMembers { change, version: None, force: false };
        node.ports().cluster.change.send(message).await
    }));
}

/// A leader dies between the two steps of a change; while the next one is elected, an operator's
/// question keeps it from ending that change at once. Without a second look it stayed half done for
/// the whole term, and every other change and every hand-over was refused.
#[test]
fn a_change_that_was_left_half_done_is_ended_however_busy_the_next_leader_was() {
    cluster_run(62, |seed| {
        let mut cluster = Cluster::start(3, seed);
        cluster.reach_everywhere(5);
        let learner = cluster.join();
        cluster.until("the learner to follow", |cluster| cluster.heights()[learner].0 >= 10);
        // It is there and answers nobody.
        let mute = cluster.add_machine(Bootstrap::Join((0..3).map(address).collect()));
        cluster.restart(mute);
        cluster.partition(&[mute]);
        cluster.net().set_weather(Weather { min_ms: 8, max_ms: 10, ..Weather::default() });
        let old = cluster.wait_for_leader();
        begin_change(&mut cluster, old, MemberChange::Promote(vec![name(learner)]));
        cluster.pass(Duration::from_millis(4));
        let joint = cluster.reader(old).last_log();
        let others: Vec<usize> = (0..3).filter(|index| *index != old).collect();
        cluster.until("the others to have the first step", |cluster| {
            others.iter().all(|other| cluster.reader(*other).last_log() >= joint)
        });
        assert_eq!(configurations(&cluster, old), 1, "the leader does not know yet that it is committed");
        cluster.kill(old);
        cluster.until("another leader", |cluster| cluster.leader().is_some_and(|leader| leader != old));
        let next = cluster.wait_for_leader();
        let add = MemberChange::Add { name: name(mute), address: address(mute) };
        begin_change(&mut cluster, next, add);
        cluster.pass(Duration::from_secs(1));
        assert_eq!(configurations(&cluster, next), 2, "it waits for an answer to the question");
        cluster.until("the end of the change", |cluster| configurations(cluster, next) == 1);
        assert_eq!(cluster.leader(), Some(next));
        cluster.come_to_rest();
    });
}

/// A voter whose memory or program is damaged: what openraft asserts, or does not look at, would end
/// the others, leave a hole in their logs, or a term from which no election goes on (P9).
#[test]
fn what_contradicts_the_protocol_is_refused_whoever_says_it() {
    cluster_run(63, |seed| {
        let mut cluster = Cluster::start(3, seed);
        cluster.reach_everywhere(5);
        let leader = cluster.wait_for_leader();
        let damaged = (0..3).find(|index| *index != leader).expect("three");
        let witness = (0..3).find(|index| ![leader, damaged].contains(index)).expect("three");
        let belongs = cluster.view(leader).cluster.expect("it belongs to a cluster");
        cluster.kill(damaged);
        let (term, last) = cluster.reader(witness).last_log().expect("it has a log");
        let (machine, net) = (cluster.machine(damaged), cluster.net().clone());
        let (own, target) = (member(damaged, &machine), member(witness, &cluster.machine(witness)));
        let id = MemberId::of(machine.storage);
        let elected = |term: Term| VoteRecord { term: term.0 + 1, voted_for: id, committed: true };
        let previous = Some(LogIdRecord { term: term.0, index: last.0 });
        let after = LogIdRecord { term: term.0, index: last.0 + 2 };
        let entries = vec![Record { id: after, content: Content::Blank }];
        let hole = Call::Append(Append { vote: elected(term), previous, committed: None, entries });
        let vote = VoteRecord { term: u64::MAX, voted_for: id, committed: false };
        let ballot = Call::Vote(Ballot { vote, last: Some(after), transfer: true });
        let genesis = machine.genesis.clone();
        let said = [hole, ballot];
        let boot = 1_000;
        let answers = cluster.ask(leader, move |_| async move {
            let chain = (genesis.chain_id.as_str(), genesis.hash());
            let line = net.attach(&own, chain, boot, machine.lives.clone());
            let mut answers = vec![];
            for call in said {
                let request = wire::encode(&Request::Raft(RaftCall { cluster: belongs, call }));
                let within = Duration::from_millis(500);
                answers.push(line.call(target.clone(), Class::Append, request, within).await);
            }
            answers
        });
        for answer in answers.expect("the node is up") {
            let denied = matches!(&answer, Err(CallError::Denied(reason)) if reason.contains("no call"));
            assert!(denied, "{answer:?}");
        }
        assert_eq!(cluster.reader(witness).last_log().map(|(term, _)| term), Some(term));
        cluster.kill(witness);
        cluster.restart(witness);
        let height = cluster.heights()[leader];
        cluster.until("more blocks on both", |cluster| {
            [leader, witness].iter().all(|index| cluster.heights()[*index].0 >= height.0 + 5)
        });
        cluster.check();
    });
}

/// Elected, and from that moment on unheard: no quorum ever acknowledged it, and its heartbeats arrive.
#[test]
fn a_leader_that_is_never_acknowledged_is_succeeded_although_everybody_hears_it() {
    cluster_run(64, |seed| {
        let mut cluster = Cluster::start(3, seed);
        cluster.reach_everywhere(5);
        cluster.net().set_weather(Weather { min_ms: 8, max_ms: 10, ..Weather::default() });
        let old = cluster.wait_for_leader();
        let next = (old + 1) % 3;
        let before = cluster.heights()[old];
        // A block may be on its way: then nothing is done.
        for _ in 0..50 {
            drop(cluster.begin_transfer(old, next));
            cluster.pass(Duration::from_millis(3));
            for _ in 0..40 {
                if cluster.leader() == Some(next) {
                    break;
                }
                cluster.step();
            }
            if cluster.leader() == Some(next) {
                break;
            }
        }
        assert_eq!(cluster.leader(), Some(next));
        for other in (0..3).filter(|index| *index != next) {
            cluster.cut_one_way(other, next);
        }
        let since = cluster.elapsed();
        cluster.until("another leader", |cluster| cluster.leader() != Some(next));
        let took = cluster.elapsed() - since;
        assert!(took < Duration::from_secs(3), "S9: it took {took:?}");
        cluster.reach(before.0 + 5);
        cluster.heal();
        cluster.come_to_rest();
    });
}
