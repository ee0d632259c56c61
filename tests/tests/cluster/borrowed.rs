//! Bugs that others had, one test named after each: `docs/hazards.md` lists them.

use std::time::Duration;

use actix::{Actor, Context};
use baton::wiring::producer;
use baton_actors::supervisor::plan::{Action, Plan};
use baton_messages::cluster::{HandOff, HandOffError, MemberChange};
use baton_messages::supervisor::{DiskHealthChanged, GetSupervisorView, SupervisorView};
use baton_messages::types::{Grant, Height, Role, Term};
use baton_storage::memory::Keep;
use sim::history::{Among, Deed, DiskFault, EngineFault, EventKind, History, Left, Outcome, What, Who};
use sim::{Cluster, ClusterPlan, Cut, HEARTBEAT, cluster_run, name};

/// A calm cluster of three to which these things are done.
fn done_to_three(seed: u64, deeds: &[(u64, What)]) -> Outcome {
    let deeds = deeds.iter().map(|(at_ms, what)| Deed { at_ms: *at_ms, what: what.clone() }).collect();
    let history = History { deeds, ..History::calm(seed) };
    let outcome = history.run();
    assert_eq!(outcome.broken, None, "{}", sim::story::story(&history, &outcome));
    outcome
}

/// The longest time without a block between two moments.
fn longest_pause(outcome: &Outcome, from_ms: u64, to_ms: u64) -> u64 {
    let blocks = outcome.events.iter().filter(|event| matches!(event.what, EventKind::Committed { .. }));
    let times = blocks.map(|event| event.at_ms).filter(|at_ms| (from_ms..=to_ms).contains(at_ms));
    let times: Vec<u64> = std::iter::once(from_ms).chain(times).chain([to_ms]).collect();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

/// Who led while things were done.
fn leaders(outcome: &Outcome) -> Vec<usize> {
    let done = outcome.events.iter().take_while(|event| event.what != EventKind::RestBegins);
    let leads = done.filter(|event| matches!(event.what, EventKind::Leads { .. }));
    leads.filter_map(|event| event.node).collect()
}

fn view(cluster: &mut Cluster, index: usize) -> SupervisorView {
    let asked =
        cluster.ask(index, |node| async move { node.ports().supervisor.send(GetSupervisorView).await });
    asked.expect("the node runs").expect("the supervisor answers")
}

fn highest(cluster: &Cluster) -> Height {
    cluster.heights().into_iter().max().unwrap_or_default()
}

fn term(cluster: &mut Cluster, index: usize) -> Term {
    cluster.view(index).leader.map_or(Term(0), |leader| leader.term)
}

/// A write of the leader hangs without an error: its heartbeats go on and the chain stands for ever.
#[test]
fn hashicorp_raft_503_a_leader_whose_disk_hangs_is_succeeded() {
    let hang = What::Disk { node: Who::Leader, fault: DiskFault::Hang, for_ms: 5_000 };
    let outcome = done_to_three(1, &[(2_000, hang)]);
    let pause = longest_pause(&outcome, 2_000, 7_000);
    assert!(pause < 2_500, "no block for {pause} ms while the disk hung");
}

/// A leader whose disk is full panics, is elected again, and so on, for ten minutes.
#[test]
fn hashicorp_raft_614_a_leader_whose_disk_is_full_is_succeeded() {
    let full = What::Disk { node: Who::Leader, fault: DiskFault::Full, for_ms: 5_000 };
    let outcome = done_to_three(2, &[(2_000, full)]);
    let pause = longest_pause(&outcome, 2_000, 7_000);
    assert!(pause < 2_500, "no block for {pause} ms while the disk was full");
}

/// A heartbeat of a newer term arrives while the leader is still appending in the older one.
#[test]
fn hashicorp_raft_695_what_an_old_leader_sends_late_changes_nothing() {
    let hold = |to| What::Hold { from: Who::Leader, to: Who::Follower(to), for_ms: 900 };
    let deeds: Vec<(u64, What)> =
        (1..6).flat_map(|round| [(round * 1_500, hold(0)), (round * 1_500, hold(1))]).collect();
    let outcome = done_to_three(3, &deeds);
    assert!(leaders(&outcome).len() > 1, "nobody was succeeded: nothing came late");
}

/// Leadership lost and regained between two looks is taken for leadership that was never lost.
#[test]
fn nomad_4749_leadership_lost_and_regained_at_once_is_another_grant() {
    let mut plan = Plan::new();
    plan.leadership_changed(Term(1), Role::Leader);
    plan.executed_to(Height(5));
    let grant = |term| Grant { term: Term(term) };
    assert_eq!(plan.term_applied(Term(1), Height(5)), [Action::StartProducers(grant(1))]);
    let stopped = plan.leadership_changed(Term(3), Role::Leader);
    assert!(matches!(stopped[..], [Action::StopProducers(_)]), "{stopped:?}");
    plan.producers_ended();
    assert_eq!(plan.term_applied(Term(3), Height(5)), [Action::StartProducers(grant(3))]);
}

/// A commit is counted without a quorum of voters, from four voters on.
#[test]
fn openraft_1802_a_leader_with_half_of_its_voters_or_less_commits_nothing() {
    for count in [4, 5] {
        cluster_run(11, move |seed| {
            let mut cluster = Cluster::start(count, seed);
            cluster.reach_everywhere(5);
            let leader = cluster.wait_for_leader();
            let beside = (leader + 1) % count;
            cluster.partition(&[leader, beside]);
            // What was under way may still come.
            cluster.pass(Duration::from_millis(50));
            let stood = cluster.reader(leader).tip().height;
            cluster.pass(Duration::from_secs(3));
            assert!(cluster.reader(leader).tip().height <= stood.next(), "{count} voters");
            cluster.heal();
            cluster.come_to_rest();
        });
    }
}

/// A node that starts says that it is ready before it has applied what was committed.
#[test]
fn openraft_1246_a_cluster_that_starts_again_produces_on_everything_that_was_committed() {
    cluster_run(12, |seed| {
        let mut cluster = Cluster::start(3, seed);
        for round in 0..5_u64 {
            let height = highest(&cluster);
            cluster.reach(height.0 + 5);
            cluster.pass(Duration::from_millis(round * 13));
            let before = highest(&cluster);
            (0..3).for_each(|index| cluster.crash(index, Keep::All));
            (0..3).for_each(|index| cluster.restart(index));
            let granted = loop {
                cluster.pass(Duration::from_millis(5));
                if let Some(index) = (0..3).find(|index| view(&mut cluster, *index).grant.is_some()) {
                    break index;
                }
            };
            assert!(cluster.reader(granted).tip().height >= before, "S16");
        }
        cluster.come_to_rest();
    });
}

/// Appends that complete out of order acknowledge what is not there.
#[test]
fn openraft_1960_appends_on_a_slow_disk_are_acknowledged_in_order() {
    let slow = |node| What::Disk { node, fault: DiskFault::Slow(25), for_ms: 4_000 };
    let crash = What::Crash { node: Who::Leader, left: Left::Nothing, down_ms: 200 };
    let deeds = [
        (1_000, slow(Who::Node(0))),
        (1_000, slow(Who::Node(1))),
        (1_500, slow(Who::Node(2))),
        (3_000, crash.clone()),
        (4_000, crash),
    ];
    done_to_three(4, &deeds);
}

/// A snapshot brings an older membership than the one in force.
#[test]
fn openraft_1808_who_goes_on_from_a_snapshot_knows_the_membership_of_now() {
    cluster_run(13, |seed| {
        let plan = ClusterPlan { snapshot_after: 10, keep_entries: 2, ..ClusterPlan::default() };
        let mut cluster = Cluster::start_with(3, seed, plan);
        cluster.reach_everywhere(30);
        let third = cluster.join();
        cluster.reach_everywhere(60);
        let away = (0..3).find(|index| cluster.leader() != Some(*index)).expect("three");
        cluster.kill(away);
        cluster.change_at_leader(&MemberChange::Remove(name(third)));
        let height = highest(&cluster);
        cluster.reach(height.0 + 60);
        cluster.restart(away);
        let height = highest(&cluster);
        cluster.until("the node to be level", |cluster| cluster.heights()[away] > height);
        let leader = cluster.wait_for_leader();
        let members = |cluster: &mut Cluster, index| {
            cluster.view(index).members.into_iter().map(|member| member.member.name).collect::<Vec<_>>()
        };
        assert_eq!(members(&mut cluster, away), members(&mut cluster, leader));
    });
}

/// Two survivors with time-outs that are drawn once tie for ever.
#[test]
fn fluree_db_1845_two_survivors_elect_one_of_them_every_time() {
    cluster_run(14, |seed| {
        let mut cluster = Cluster::start(3, seed);
        cluster.reach_everywhere(3);
        for _ in 0..40 {
            let leader = cluster.wait_for_leader();
            let (height, since) = (highest(&cluster), cluster.elapsed());
            cluster.kill(leader);
            cluster.reach(height.0 + 2);
            let took = cluster.elapsed() - since;
            assert!(took < Duration::from_secs(2), "two survivors took {took:?}");
            cluster.restart(leader);
            let height = highest(&cluster);
            cluster.reach_everywhere(height.0 + 2);
        }
        cluster.come_to_rest();
    });
}

/// A node that was isolated comes back with a higher term and deposes the leader.
#[test]
fn zksync_os_server_1295_a_node_that_comes_back_does_not_depose_the_leader() {
    cluster_run(15, |seed| {
        let mut cluster = Cluster::start(3, seed);
        cluster.reach_everywhere(5);
        let leader = cluster.wait_for_leader();
        let before = term(&mut cluster, leader);
        for round in 0..10 {
            let away = (leader + 1 + round % 2) % 3;
            cluster.partition(&[away]);
            cluster.pass(Duration::from_millis(700));
            cluster.heal();
            cluster.pass(HEARTBEAT * 10);
        }
        assert_eq!((cluster.leader(), term(&mut cluster, leader)), (Some(leader), before), "S7");
        cluster.come_to_rest();
    });
}

/// A follower deletes what it has from the first entry of an append on, and crashes before it writes.
#[test]
fn async_raft_9540c904_a_follower_that_crashes_in_an_append_keeps_what_is_committed() {
    cluster_run(16, |seed| {
        let mut cluster = Cluster::start(3, seed);
        for effect in 1..30_u64 {
            let height = highest(&cluster);
            cluster.reach_everywhere(height.0 + 2);
            let leader = cluster.wait_for_leader();
            let follower = (leader + 1) % 3;
            cluster.kill(follower);
            cluster.restart_with(follower, Cut::AtEffect(effect));
            cluster.until("the power to go", |cluster| !cluster.lost_power().is_empty());
            cluster.crash(follower, if effect % 2 == 0 { Keep::None } else { Keep::Prefix(1) });
            // The other two of the quorum that counts now: the old leader is not one of them.
            cluster.kill(leader);
            cluster.restart(follower);
            let height = highest(&cluster);
            cluster.reach(height.0 + 2);
            cluster.restart(leader);
        }
        cluster.come_to_rest();
    });
}

/// The first thing that a restarted follower hears is a heartbeat, by which it commits an entry
/// that the leader does not have.
#[test]
fn async_raft_6202138f_a_heartbeat_commits_nothing_that_the_leader_does_not_have() {
    for seed in 0..6 {
        cluster_run(seed, |seed| {
            let mut cluster = Cluster::start(3, seed);
            cluster.reach_everywhere(5);
            let old = cluster.wait_for_leader();
            cluster.pass(Duration::from_millis(seed * 17));
            cluster.partition(&[old]);
            cluster.submit(old, "never=seen");
            cluster.pass(Duration::from_millis(110));
            cluster.kill(old);
            let height = highest(&cluster);
            cluster.reach(height.0 + 5);
            cluster.heal();
            cluster.restart(old);
            cluster.come_to_rest();
        });
    }
}

/// A node that restarts in the middle of a change of the membership thinks that it is alone.
#[test]
fn async_raft_6c0ccaf3_a_node_that_restarts_while_the_membership_changes_does_not_elect_itself() {
    for delay in 0..12_u64 {
        cluster_run(delay, move |seed| {
            let mut cluster = Cluster::start(1, seed);
            cluster.reach(5);
            let joined = [cluster.join(), cluster.join()];
            cluster.until("both to be level", |cluster| {
                let heights = cluster.heights();
                joined.iter().all(|index| heights[*index].0 + 2 >= heights[0].0 && heights[0] > Height(5))
            });
            cluster.pass(Duration::from_secs(1));
            let names = joined.iter().map(|index| name(*index)).collect();
            let promote = MemberChange::Promote(names);
            drop(cluster.begin(0, move |node| async move {
                let message =
                    baton_messages::cluster::ChangeMembers { change: promote, version: None, force: false };
                node.ports().cluster.change.send(message).timeout(Duration::from_secs(20)).await
            }));
            cluster.pass(Duration::from_millis(delay));
            cluster.kill(0);
            cluster.partition(&[0]);
            cluster.restart(0);
            cluster.pass(Duration::from_secs(3));
            // Whether the change had begun or not: there is one chain, and it goes on.
            cluster.heal();
            cluster.come_to_rest();
        });
    }
}

/// A leader that is cut off passes a check of its leadership, because it asks one member too few.
#[test]
fn async_raft_d60f1e85_a_leader_that_is_cut_off_says_so_itself() {
    cluster_run(17, |seed| {
        let mut cluster = Cluster::start(3, seed);
        cluster.reach_everywhere(5);
        let leader = cluster.wait_for_leader();
        assert!(!view(&mut cluster, leader).lease_lapsed);
        cluster.partition(&[leader]);
        cluster.pass(Duration::from_millis(250));
        let cut_off = view(&mut cluster, leader);
        assert!(cut_off.grant.is_none() || cut_off.lease_lapsed, "{cut_off:?}");
        cluster.heal();
        cluster.come_to_rest();
    });
}

fn fall_ill(cluster: &mut Cluster, index: usize) {
    cluster.ask(index, |node| async move {
        for port in &node.ports().disk {
            port.do_send(DiskHealthChanged { trouble: Some("scripted".to_owned()) });
        }
    });
}

/// Two ill nodes pass leadership to and fro, and the healthy third never gets it.
#[test]
fn optimism_9248_and_18697_the_one_healthy_node_leads() {
    cluster_run(18, |seed| {
        let mut cluster = Cluster::start(3, seed);
        cluster.reach_everywhere(5);
        let leader = cluster.wait_for_leader();
        let healthy = (leader + 2) % 3;
        fall_ill(&mut cluster, (leader + 1) % 3);
        fall_ill(&mut cluster, leader);
        cluster.until("the healthy one to lead", |cluster| cluster.leader() == Some(healthy));
        let before = (highest(&cluster), term(&mut cluster, healthy));
        cluster.pass(Duration::from_secs(10));
        assert_eq!((cluster.leader(), term(&mut cluster, healthy)), (Some(healthy), before.1), "S5");
        assert!(highest(&cluster).0 > before.0.0 + 80, "it produces");
    });
}

/// A new leader that was two or more blocks behind cannot get at the blocks that it lacks.
#[test]
fn optimism_22143_and_ev_node_3255_a_member_that_was_far_behind_leads_and_produces() {
    cluster_run(19, |seed| {
        let mut cluster = Cluster::start(3, seed);
        cluster.reach_everywhere(5);
        let leader = cluster.wait_for_leader();
        let behind = (leader + 1) % 3;
        cluster.partition(&[behind]);
        let height = highest(&cluster);
        cluster.reach(height.0 + 150);
        cluster.heal();
        // Whoever has its blocks goes; the one that was behind is needed.
        let height = highest(&cluster);
        cluster.pass(HEARTBEAT * 2);
        cluster.kill(leader);
        cluster.reach(height.0 + 5);
        cluster.elect(behind);
        let height = highest(&cluster);
        cluster.until("blocks by the one that was behind", |cluster| highest(cluster).0 > height.0 + 5);
        assert_eq!(cluster.leader(), Some(behind));
        cluster.restart(leader);
        cluster.come_to_rest();
    });
}

/// The engine of a new leader is behind its log.
#[test]
fn optimism_10707_and_ev_node_3330_an_engine_that_is_behind_is_led_through_the_log_first() {
    let lost = |node| What::Engine { node, fault: EngineFault::Lost, for_ms: 100 };
    let deeds = [
        (2_000, lost(Who::Follower(0))),
        (2_010, lost(Who::Follower(1))),
        (2_050, What::Crash { node: Who::Leader, left: Left::All, down_ms: 1_000 }),
    ];
    let outcome = done_to_three(5, &deeds);
    let pause = longest_pause(&outcome, 2_000, 6_000);
    assert!(pause < 2_000, "no block for {pause} ms");
}

struct Idle;

impl Actor for Idle {
    type Context = Context<Self>;
}

/// A snapshot that was taken before there was a block.
#[test]
fn optimism_13363_a_snapshot_without_a_block_is_as_good_as_any() {
    cluster_run(20, |seed| {
        let plan = ClusterPlan {
            snapshot_after: 1,
            keep_entries: 0,
            adjust: Some(std::rc::Rc::new(|_, wiring| wiring.executor = Some(producer("idle", |_| Idle)))),
            ..ClusterPlan::default()
        };
        let mut cluster = Cluster::start_with(3, seed, plan);
        cluster.pass(Duration::from_secs(2));
        let leader = cluster.wait_for_leader();
        let joined = cluster.join();
        cluster.pass(HEARTBEAT);
        cluster.until("the node to have joined", |cluster| {
            cluster
                .reader(joined)
                .applied()
                .is_some_and(|(index, _)| index >= cluster.reader(leader).applied().expect("it leads").0)
        });
        assert_eq!(highest(&cluster), Height(0));
        let names = vec![name(joined)];
        cluster.change_at_leader(&MemberChange::Promote(names));
        let left = |index: usize| index != leader;
        cluster.kill(leader);
        cluster.until("another leader", |cluster| cluster.leader().is_some_and(left));
    });
}

/// A health check that cries wolf gives leadership away without need.
#[test]
fn optimism_14585_a_slow_engine_and_a_slow_disk_cost_no_leadership() {
    let deeds = [
        (2_000, What::Engine { node: Who::Leader, fault: EngineFault::Slow(30), for_ms: 3_000 }),
        (5_500, What::Disk { node: Who::Leader, fault: DiskFault::Slow(20), for_ms: 3_000 }),
    ];
    let outcome = done_to_three(6, &deeds);
    assert_eq!(leaders(&outcome).len(), 1, "leadership moved: {:?}", leaders(&outcome));
}

/// A single node that becomes a cluster stops making blocks.
#[test]
fn optimism_17899_one_node_that_becomes_three_makes_blocks_all_the_time() {
    cluster_run(21, |seed| {
        let mut cluster = Cluster::start(1, seed);
        cluster.reach(10);
        let joined = [cluster.join(), cluster.join()];
        let (since, height) = (cluster.elapsed(), highest(&cluster));
        cluster.until("both to be level", |cluster| {
            let heights = cluster.heights();
            joined.iter().all(|index| heights[*index].0 + 2 >= heights[0].0)
        });
        cluster.pass(Duration::from_secs(1));
        let names = joined.iter().map(|index| name(*index)).collect();
        cluster.change_at_leader(&MemberChange::Promote(names));
        cluster.pass(Duration::from_secs(2));
        let slots = (cluster.elapsed() - since).as_millis() / 100;
        let made = u128::from(highest(&cluster).0 - height.0);
        assert!(made + 3 >= slots, "{made} blocks in {slots} slots");
        cluster.come_to_rest();
    });
}

/// A transfer that is asked for again, because the first answer was slow, happens twice.
#[test]
fn optimism_22925_a_transfer_that_is_asked_for_twice_happens_once() {
    cluster_run(22, |seed| {
        let mut cluster = Cluster::start(3, seed);
        cluster.reach_everywhere(5);
        let from = cluster.wait_for_leader();
        let to = (from + 1) % 3;
        let before = term(&mut cluster, from);
        let mut ask = || {
            let asked = HandOff { to: Some(name(to)), reason: "scripted".to_owned() };
            cluster.begin(from, move |node| async move {
                node.ports().hand_off.send(asked).timeout(Duration::from_secs(10)).await
            })
        };
        let (first, second) = (ask(), ask());
        cluster.until("both answers", |_| first.borrow().is_some() && second.borrow().is_some());
        let again = second.borrow_mut().take().expect("an answer").expect("the supervisor answers");
        assert_eq!(again, Err(HandOffError::InProgress));
        cluster.pass(Duration::from_secs(2));
        assert_eq!(cluster.leader(), Some(to), "F1");
        assert_eq!(term(&mut cluster, to).0, before.0 + 1, "F1: one transfer, one term");
        cluster.come_to_rest();
    });
}

/// The status says who leads ten to a hundred and forty-eight seconds late.
#[test]
fn ev_node_3265_who_leads_is_known_everywhere_within_a_few_heartbeats() {
    cluster_run(23, |seed| {
        let mut cluster = Cluster::start(3, seed);
        cluster.reach_everywhere(5);
        for _ in 0..5 {
            let old = cluster.wait_for_leader();
            cluster.kill(old);
            cluster.until("another leader", |cluster| cluster.leader().is_some_and(|leader| leader != old));
            cluster.pass(HEARTBEAT * 3);
            let leader = cluster.leader().expect("nothing happens to it");
            for index in cluster.up().collect::<Vec<_>>() {
                let hint = cluster.view(index).leader.expect("it knows");
                assert_eq!(hint.name, name(leader), "n{index}");
            }
            cluster.restart(old);
            let height = highest(&cluster);
            cluster.reach_everywhere(height.0 + 3);
        }
    });
}

/// Two of three disks are full, and nobody leads any more; with room they go on by themselves.
#[test]
fn horcrux_95_full_disks_stop_nobody_for_longer_than_they_are_full() {
    let full = |node| What::Disk { node, fault: DiskFault::Full, for_ms: 2_000 };
    let outcome = done_to_three(7, &[(2_000, full(Who::Leader)), (2_000, full(Who::Follower(0)))]);
    let pause = longest_pause(&outcome, 6_500, 10_000);
    assert!(pause < 1_000, "no block for {pause} ms although there is room");
}

/// The state of the signer is written and not synced.
#[test]
fn tmkms_1220_power_lost_around_a_write_of_the_guard_signs_nothing_twice() {
    for after in 1..5 {
        let crash = |at_ms| {
            let (among, left) = (Among::Guard, Left::Nothing);
            (at_ms, What::CrashAt { node: Who::Leader, among, after, left, down_ms: 100 })
        };
        done_to_three(after, &[crash(1_000), crash(4_000), crash(7_000)]);
    }
}

/// An append is acknowledged and lost with the power.
#[test]
fn yugabyte_db_32875_what_was_acknowledged_is_there_when_everybody_lost_power() {
    cluster_run(24, |seed| {
        let mut cluster = Cluster::start(3, seed);
        for round in 0..8_u64 {
            let height = highest(&cluster);
            cluster.reach(height.0 + 3);
            cluster.pass(Duration::from_millis(round * 11));
            let before = highest(&cluster);
            (0..3).for_each(|index| cluster.crash(index, Keep::None));
            (0..3).for_each(|index| cluster.restart(index));
            cluster.reach(before.0 + 1);
        }
        cluster.come_to_rest();
    });
}

/// Two leaders of one term are logged, and the cluster goes on.
#[cfg(feature = "mutations")]
#[test]
fn nuraft_531_two_leaders_of_one_term_end_the_run() {
    use baton_messages::mutation::{Mutation, plant};
    plant(Some(Mutation::FormAlone));
    let broken =
        (0..20).find_map(|seed| History::of(seed).run().broken.filter(|broken| broken.promise == "A8"));
    plant(None);
    assert!(broken.is_some(), "two clusters that formed beside each other were not seen");
}
