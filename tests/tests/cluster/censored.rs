//! Full nodes and a proposer that leaves out what was forced through DA.

use std::time::Duration;

use baton_messages::command::FORCED_VERSION;
use baton_messages::da::{Blob, Namespace};
use baton_messages::epoch::Epoch;
use baton_messages::types::{DaHeight, Height, Tx};
use baton_storage::memory::Keep;
use bytes::Bytes;
use sim::{Cut, FollowPlan, FollowingNode, Machine, Node, Plan, Power, check_follows, listed_seeds, sim_run};

/// DA blocks per epoch.
const EPOCH: u64 = 4;

fn machine(seed: u64) -> Machine {
    let mut machine = Machine::new(seed);
    machine.genesis.da_epoch_forced_inclusion = EPOCH;
    machine
}

/// A user posts these transactions in one DA block.
fn post(machine: &Machine, texts: &[&str]) {
    let blob = |text: &&str| {
        let data = Bytes::copy_from_slice(text.as_bytes());
        machine.oracle.attempt(&Tx(data.clone()));
        Blob { namespace: Namespace::of("forced"), data }
    };
    machine.ledger.append(texts.iter().map(blob).collect());
}

/// A proposer makes blocks while users force transactions, which it puts into them or not.
fn produced(seed: u64, honest: bool) -> Machine {
    let machine = machine(seed);
    let made = machine.clone();
    sim_run(seed, move || async move {
        let node = Node::start(&Plan { forced: honest, ..Plan::on(made.clone(), Power::default()) });
        node.until("entries that can say the position", |node| {
            node.reader().command_version() >= FORCED_VERSION
        })
        .await;
        for number in 0..8 {
            // Nobody is to blame for one that no block may hold.
            post(&made, &[&format!("forced{number}=v"), "", &"x".repeat(6 << 20)]);
            node.submit(&format!("k{number}=v")).await.expect("accepted");
            tokio::time::sleep(Duration::from_millis(1_500)).await;
        }
        node.drain().await;
    });
    machine
}

fn included(machine: &Machine) -> Height {
    machine.open().reader().da_progress().included
}

fn checking(machine: Machine, power: Power) -> FollowPlan {
    FollowPlan { forced: true, ..FollowPlan::on(machine, power) }
}

#[test]
fn a_full_node_follows_a_proposer_that_leaves_nothing_out() {
    let machine = produced(71, true);
    let goal = included(&machine);
    let full = machine.another(1);
    let held = full.clone();
    sim_run(71, move || async move {
        let node = FollowingNode::start(&checking(held, Power::default())).await.expect("on");
        node.reach(goal).await;
        assert_eq!((node.alarms(), node.observer().await.reasons), (vec![], vec![]));
    });
    check_follows(&full, &machine);
}

#[test]
fn power_lost_at_any_effect_changes_no_judgement() {
    let machine = produced(72, true);
    let goal = included(&machine);
    listed_seeds("power_lost_at_any_effect_changes_no_judgement", 20, |seed| {
        let follower = machine.another(2);
        let cut = Power::new(Cut::AtEffect(10 + seed * 9));
        let plan = checking(follower.clone(), cut.clone());
        sim_run(seed, move || async move {
            if let Some(node) = FollowingNode::start(&plan).await {
                node.reach(goal).await;
            }
        });
        cut.cut();
        follower.lose_power(if seed % 2 == 0 { Keep::None } else { Keep::All });
        let plan = checking(follower.clone(), Power::default());
        sim_run(seed, move || async move {
            let node = FollowingNode::start(&plan).await.expect("on");
            node.reach(goal).await;
            assert_eq!(node.observer().await.left_out, None);
        });
        check_follows(&follower, &machine);
    });
}

#[test]
fn a_full_node_takes_no_block_of_a_proposer_that_leaves_something_out_and_keeps_the_evidence() {
    let machine = produced(73, false);
    let goal = included(&machine);
    let full = machine.another(1);
    let plan = checking(full.clone(), Power::default());
    let (_, first) = machine.ledger.places_of(Namespace::of("forced"))[0];
    let epoch = Epoch::of(first, DaHeight(1), EPOCH);
    sim_run(73, move || async move {
        let node = FollowingNode::start(&plan).await.expect("on");
        node.until("the alarm", |node| node.reader().left_out().is_some()).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let left_out = node.reader().left_out().expect("it stays");
        assert_eq!((left_out.from, left_out.to, left_out.count), (epoch.start, epoch.end, 1));
        assert_eq!(left_out.txs, [Tx(Bytes::from_static(b"forced0=v")).hash()]);
        assert!(left_out.da_height.0 > epoch.end.0 + EPOCH, "beyond the grace");
        let (stopped, view) = (node.tip(), node.observer().await);
        assert!(stopped.height < goal && node.reader().da_progress().included < left_out.height);
        assert!(view.reasons.iter().any(|reason| reason.contains("left out 1")), "{view:?}");
        assert_eq!(node.alarms(), [""; 0], "it goes on answering what it knows");
        assert_eq!(node.metrics.follow.left_out.get(), 1);
    });
    let stopped = full.open().reader().tip();
    let again = checking(full.clone(), Power::default());
    sim_run(74, move || async move {
        let node = FollowingNode::start(&again).await.expect("on");
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(node.tip(), stopped, "a restart forgives nothing");
        assert!(node.observer().await.left_out.is_some());
    });
    let plan = FollowPlan::on(full.clone(), Power::default());
    sim_run(75, move || async move {
        let node = FollowingNode::start(&plan).await.expect("on");
        node.reach(goal).await;
        assert_eq!(node.observer().await.reasons, [""; 0], "an operator may follow all the same");
    });
    check_follows(&full, &machine);
}
