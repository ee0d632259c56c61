//! The disk fails under a running node, for a while or for good (P8, P9): Raft stops, the view
//! says why, the store is opened again in place, and nothing acknowledged is lost.

use std::time::Duration;

use baton_messages::sequencer::Level;
use baton_messages::types::Role;
use baton_storage::backend::{Backend, Batch, Family, StoreError};
use baton_storage::memory::Keep;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sim::{Machine, Node, Plan, Power, check_chain, listed_seeds, sim_run};

fn io() -> StoreError {
    StoreError::Io("scripted".to_owned())
}

/// Waits until the supervisor names Raft as the reason.
async fn wait_for_raft_trouble(node: &Node, word: &str) {
    for _ in 0..100_000 {
        let view = node.supervisor().await;
        if view.eligibility.reasons.iter().any(|reason| reason.contains("raft: ") && reason.contains(word)) {
            assert_eq!(view.grant, None);
            assert!(view.pause.is_some());
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("raft is in no trouble with {word:?}: {:?}", node.supervisor().await);
}

async fn check_working(node: &Node, machine: &Machine) {
    let before = node.tip().height;
    let text = format!("working{before}=1");
    until_accepted(node, &text).await;
    node.submit_and_wait(&text, Level::Executed).await.expect("executed");
    node.reach(before.0 + 5).await;
    node.drain().await;
    let view = node.supervisor().await;
    assert_eq!(view.eligibility.reasons, Vec::<String>::new());
    assert_eq!(view.pause, None);
    assert_eq!(node.alarms(), Vec::<String>::new());
    check_chain(machine);
}

async fn until_accepted(node: &Node, text: &str) {
    for _ in 0..10_000 {
        if node.submit(text).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{text} is not accepted: {:?}", node.supervisor().await);
}

/// One fault of the disk for ten seconds.
fn fault(seed: u64, effect: &'static str, error: StoreError, keep: Keep) {
    let word = match &error {
        StoreError::Full(_) => "no space left",
        StoreError::Io(_) | StoreError::Corrupt(_) | StoreError::Newer(_) => "storage i/o",
    };
    sim_run(seed, move || async move {
        let (machine, power) = (Machine::new(seed), Power::default());
        machine.disk.keep_at_reopen(keep);
        let node = Node::start(&Plan::on(machine.clone(), power.clone()));
        node.reach(8).await;
        for number in 0..5 {
            node.submit(&format!("before{number}=v")).await.expect("accepted");
        }
        power.fail(effect, error);
        wait_for_raft_trouble(&node, word).await;
        let refused = node.submit("refused=1").await.expect_err("nothing is acknowledged on a broken disk");
        assert!(refused.to_string().contains(word), "it says why: {refused}");
        let raft = node.ports().raft.view.send(baton_messages::raft::GetRaftView).await;
        assert_ne!(raft.expect("P8: raft answers without a store").role, Role::Leader);
        let stuck = node.tip().height;
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(node.tip().height <= stuck, "nothing is produced on a broken disk");
        wait_for_raft_trouble(&node, word).await;
        power.heal();
        until_accepted(&node, "refused=1").await;
        check_working(&node, &machine).await;
        // And what was promised holds after a crash on top of it.
        power.cut();
        machine.lose_power(Keep::None);
        check_chain(&machine);
    });
}

#[test]
fn a_failing_fsync_stops_raft_until_the_disk_works_again() {
    for (seed, keep) in [(40, Keep::All), (41, Keep::None), (42, Keep::Prefix(1))] {
        fault(seed, "disk.sync", io(), keep);
        fault(seed, "disk.synced", io(), keep);
    }
}

#[test]
fn a_failing_write_stops_raft_until_the_disk_works_again() {
    fault(43, "disk.write", io(), Keep::All);
    fault(44, "disk.written", io(), Keep::None);
}

#[test]
fn a_full_disk_stops_production_until_there_is_room() {
    fault(45, "disk.write", StoreError::Full("scripted".to_owned()), Keep::All);
    fault(46, "disk.sync", StoreError::Full("scripted".to_owned()), Keep::None);
}

#[test]
fn a_broken_disk_is_tried_again_with_growing_pauses() {
    sim_run(47, || async {
        let (machine, power) = (Machine::new(47), Power::default());
        let node = Node::start(&Plan::on(machine.clone(), power.clone()));
        node.reach(5).await;
        power.fail("disk.write", io());
        wait_for_raft_trouble(&node, "storage i/o").await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let before = power.failed();
        tokio::time::sleep(Duration::from_secs(60)).await;
        let tries = power.failed() - before;
        assert!((25..=40).contains(&tries), "{tries} tries in a minute, one every two seconds is wanted");
        power.heal();
        check_working(&node, &machine).await;
    });
}

/// A removal from the queue that the reopening lost must not bring a transaction back when the
/// replay window has gone on and the node is restarted.
#[test]
fn a_transaction_whose_removal_was_lost_is_not_run_again_behind_the_window() {
    let machine = Machine::new(48);
    let first = machine.clone();
    sim_run(48, move || async move {
        let power = Power::default();
        let window = Box::new(|wiring: &mut baton::wiring::Wiring| {
            wiring.settings.sequencer.replay_window = 10;
        });
        let node = Node::start(&Plan { adjust: Some(window), ..Plan::on(first.clone(), power.clone()) });
        first.disk.keep_at_reopen(Keep::None);
        node.reach(5).await;
        for number in 0..20 {
            node.submit_and_wait(&format!("k{number}=v"), Level::Committed).await.expect("committed");
            power.fail("disk.sync", io());
            wait_for_raft_trouble(&node, "storage i/o").await;
            power.heal();
            until_accepted(&node, &format!("after{number}=1")).await;
        }
        node.reach(node.tip().height.0 + 40).await;
        node.drain().await;
        power.cut();
    });
    machine.lose_power(Keep::All);
    sim_run(49, move || async move {
        let node = Node::start(&Plan::on(machine.clone(), Power::default()));
        check_working(&node, &machine).await;
    });
}

#[test]
fn corruption_ends_the_node_and_says_what_is_damaged() {
    sim_run(50, || async {
        let (machine, power) = (Machine::new(50), Power::default());
        let node = Node::start(&Plan::on(machine.clone(), power.clone()));
        node.reach(5).await;
        power.fail("disk.write", StoreError::Corrupt("scripted".to_owned()));
        node.until("an alarm", |node| !node.alarms().is_empty()).await;
        assert!(node.alarms()[0].contains("scripted"), "{:?}", node.alarms());
        wait_for_raft_trouble(&node, "damaged").await;
        // A damaged store is not tried again, although it would open now.
        power.heal();
        let stuck = node.tip().height;
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(node.tip().height, stuck);
        assert_eq!(node.alarms().len(), 1);
    });
}

#[test]
fn damage_that_a_reader_meets_ends_the_node_too() {
    sim_run(51, || async {
        let machine = Machine::new(51);
        let node = Node::start(&Plan::on(machine.clone(), Power::default()));
        node.reach(5).await;
        let mut batch = Batch::default();
        for height in 1_u64..200 {
            batch.put(Family::Signatures, height.to_be_bytes().to_vec(), &b"nonsense"[..]);
        }
        machine.disk.attach().write(batch).expect("written");
        node.until("an alarm", |node| !node.alarms().is_empty()).await;
        assert!(node.alarms()[0].contains("signature"), "{:?}", node.alarms());
        wait_for_raft_trouble(&node, "damaged").await;
    });
}

/// Faults of any kind at any moment, some with losses, with clients all the while and a power
/// cut at the end.
#[test]
fn whatever_fails_whenever_nothing_acknowledged_is_lost() {
    listed_seeds("whatever_fails_whenever_nothing_acknowledged_is_lost", 40, |seed| {
        let machine = Machine::new(seed);
        let first = machine.clone();
        sim_run(seed, move || async move {
            let mut random = StdRng::seed_from_u64(seed);
            let power = Power::default();
            let node = Node::start(&Plan::on(first.clone(), power.clone()));
            for round in 0..6 {
                let effects = ["disk.write", "disk.written", "disk.sync", "disk.synced"];
                let keep = match random.next_u32() % 3 {
                    0 => Keep::All,
                    1 => Keep::None,
                    _ => Keep::Prefix((random.next_u32() % 6) as usize),
                };
                first.disk.keep_at_reopen(keep);
                for number in 0..random.next_u32() % 6 {
                    drop(node.submit(&format!("r{round}n{number}=v")).await);
                    tokio::time::sleep(Duration::from_micros(u64::from(random.next_u32() % 90_000))).await;
                }
                power.fail(effects[(random.next_u32() % 4) as usize], io());
                for number in 0..random.next_u32() % 4 {
                    drop(node.submit(&format!("r{round}n{number}=v")).await);
                    tokio::time::sleep(Duration::from_micros(u64::from(random.next_u32() % 900_000))).await;
                }
                power.heal();
            }
            check_working(&node, &first).await;
            power.cut();
        });
        machine.lose_power(Keep::None);
        sim_run(seed, move || async move {
            let node = Node::start(&Plan::on(machine.clone(), Power::default()));
            check_working(&node, &machine).await;
        });
    });
}
