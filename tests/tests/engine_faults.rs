//! The engine is slow, hangs, fails, is ahead, behind, elsewhere, or has met a block it cannot
//! execute: the stated behaviour, a supervisor that tells the truth about it, and recovery.

use std::time::Duration;

use baton_messages::sequencer::Level;
use baton_messages::types::Height;
use baton_storage::memory::Keep;
use sim::{CALLS, FakeEngine, Machine, Node, Plan, Power, Script, check_chain, sim_run};

fn plan(machine: &Machine, script: &Script) -> Plan {
    let execution = Some(FakeEngine::by(machine, script));
    Plan { execution, ..Plan::on(machine.clone(), Power::default()) }
}

/// Everything works: a transaction gets through, everything reaches DA, nobody is called.
async fn check_working(node: &Node, machine: &Machine) {
    let before = node.tip().height;
    node.submit_and_wait(&format!("working{before}=1"), Level::Executed).await.expect("executed");
    node.reach(before.0 + 5).await;
    node.drain().await;
    let view = node.supervisor().await;
    assert_eq!(view.eligibility.reasons, Vec::<String>::new());
    assert_eq!(view.pause, None);
    assert_eq!(node.alarms(), Vec::<String>::new());
    check_chain(machine);
}

/// Waits until the supervisor says that this node may not produce, for a reason with this word.
async fn wait_for_reason(node: &Node, word: &str) {
    for _ in 0..100_000 {
        let view = node.supervisor().await;
        if view.eligibility.reasons.iter().any(|reason| reason.contains(word)) {
            assert!(view.pause.is_some(), "who may not produce says why it does not");
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("no reason with {word:?}: {:?}", node.supervisor().await);
}

/// Lives on a machine until a height, and is killed as soon as that is executed.
fn live(machine: &Machine, script: &Script, seed: u64, height: u64) {
    let (machine, script) = (machine.clone(), script.clone());
    sim_run(seed, move || async move {
        let power = Power::default();
        let node = Node::start(&Plan { power: power.clone(), ..plan(&machine, &script) });
        for number in 0..height {
            node.submit(&format!("s{seed}n{number}=v")).await.expect("accepted");
        }
        node.until("execution", |_| script.executed().last() >= Some(&Height(height))).await;
        power.cut();
    });
}

#[test]
fn a_slow_engine_slows_production_down_and_nothing_else() {
    sim_run(10, || async {
        let (machine, script) = (Machine::new(10), Script::default());
        let node = Node::start(&plan(&machine, &script));
        node.reach(5).await;
        script.slow(Duration::from_millis(400));
        let before = node.tip().height.0;
        tokio::time::sleep(Duration::from_secs(20)).await;
        let made = node.tip().height.0 - before;
        assert!((5..60).contains(&made), "{made} blocks in twenty seconds at 0.4 seconds per call");
        let view = node.supervisor().await;
        assert!(view.eligibility.reasons.is_empty(), "slow is not broken: {view:?}, at {:?}", node.tip());
        assert!(node.tip().height.0 - view.executed.0 <= 2, "P6: execution keeps up");
        script.slow(Duration::ZERO);
        check_working(&node, &machine).await;
    });
}

#[test]
fn a_hanging_engine_stops_production_until_it_answers_again() {
    sim_run(11, || async {
        let (machine, script) = (Machine::new(11), Script::default());
        let node = Node::start(&plan(&machine, &script));
        node.reach(5).await;
        script.hang();
        wait_for_reason(&node, "has not answered").await;
        let stuck = node.tip().height;
        node.submit("meanwhile=1").await.expect("P8: transactions are accepted without an engine");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(node.tip().height, stuck, "nothing is produced on an engine that hangs");
        wait_for_reason(&node, "has not answered").await;
        script.release();
        check_working(&node, &machine).await;
    });
}

#[test]
fn a_restart_gets_rid_of_an_engine_that_never_answers() {
    let (machine, script) = (Machine::new(12), Script::default());
    let (first, hanging) = (machine.clone(), script.clone());
    sim_run(12, move || async move {
        let node = Node::start(&plan(&first, &hanging));
        node.reach(5).await;
        hanging.hang();
        node.submit("meanwhile=1").await.expect("accepted");
        wait_for_reason(&node, "has not answered").await;
    });
    machine.lose_power(Keep::None);
    script.release();
    sim_run(13, move || async move {
        let node = Node::start(&plan(&machine, &script));
        check_working(&node, &machine).await;
    });
}

#[test]
fn an_engine_that_is_away_for_a_while_stops_production_for_a_while() {
    sim_run(14, || async {
        let (machine, script) = (Machine::new(14), Script::default());
        let node = Node::start(&plan(&machine, &script));
        node.reach(5).await;
        script.unavailable(&CALLS);
        wait_for_reason(&node, "not available").await;
        let stuck = node.tip().height;
        node.submit("meanwhile=1").await.expect("accepted");
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(node.tip().height, stuck);
        script.unavailable(&[]);
        check_working(&node, &machine).await;
    });
}

/// Whoever notices the failure is stopped because of it: somebody else has to ask again.
#[test]
fn a_failure_that_only_a_producer_has_seen_passes_without_a_restart() {
    for call in ["filter_txs", "position", "set_final", "execute_block"] {
        sim_run(15, move || async move {
            let (machine, script) = (Machine::new(15), Script::default());
            let lazy = Plan { lazy: true, ..plan(&machine, &script) };
            let node = Node::start(&lazy);
            node.reach(1).await;
            tokio::time::sleep(Duration::from_secs(3)).await;
            script.unavailable(&[call]);
            node.submit("meanwhile=1").await.expect("accepted");
            wait_for_reason(&node, "not available").await;
            script.unavailable(&[]);
            node.submit_and_wait("after=1", Level::Executed).await.expect("it goes on");
            node.until("no trouble", |_| true).await;
            tokio::time::sleep(Duration::from_secs(5)).await;
            let view = node.supervisor().await;
            assert!(view.eligibility.reasons.is_empty(), "{call}: {view:?}");
            node.drain().await;
            check_chain(&machine);
        });
    }
}

/// After the crash the engine has executed what the store has yet to apply again from its log:
/// that is no reason to take anything back.
#[test]
fn an_engine_ahead_after_a_crash_waits_for_the_committed_tip_and_keeps_what_it_has() {
    let (machine, script) = (Machine::new(16), Script::default());
    live(&machine, &script, 16, 12);
    let executed = script.executed();
    machine.lose_power(Keep::None);
    machine.engine_disk.crash(Keep::All);
    sim_run(17, move || async move {
        let store_tip = machine.open().reader().tip().height;
        let node = Node::start(&plan(&machine, &script));
        assert!(store_tip < *executed.last().expect("some"), "the crash took applied blocks back");
        check_working(&node, &machine).await;
        assert!(script.rolled_back().is_empty(), "P5: nothing committed was taken back");
        let again: Vec<Height> = script.executed()[executed.len()..].to_vec();
        assert!(again.iter().all(|height| !executed.contains(height)), "nothing was executed twice");
    });
}

#[test]
fn an_engine_that_was_used_elsewhere_is_rolled_back_to_the_committed_tip() {
    let (elsewhere, script) = (Machine::new(18), Script::default());
    live(&elsewhere, &script, 18, 15);
    elsewhere.engine_disk.crash(Keep::All);
    // The same chain by name, genesis and key; its store is new.
    let mut machine = Machine::new(18);
    machine.engine_disk = elsewhere.engine_disk;
    sim_run(19, move || async move {
        let node = Node::start(&plan(&machine, &script));
        node.reach(3).await;
        assert_eq!(script.rolled_back().first(), Some(&Height(0)), "back to where the chain is");
        check_working(&node, &machine).await;
    });
}

#[test]
fn an_engine_that_says_it_rolled_back_and_did_not_stops_its_node() {
    let (elsewhere, script) = (Machine::new(34), Script::default());
    live(&elsewhere, &script, 34, 15);
    elsewhere.engine_disk.crash(Keep::All);
    let mut machine = Machine::new(34);
    machine.engine_disk = elsewhere.engine_disk;
    script.stay_when_rolled_back(true);
    sim_run(35, move || async move {
        let node = Node::start(&plan(&machine, &script));
        node.until("an alarm", |node| !node.alarms().is_empty()).await;
        let alarm = node.alarms().remove(0);
        assert!(alarm.contains("go back to height 0") && alarm.contains("restore the engine"), "{alarm}");
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(node.tip().height, Height(0), "nothing is built on an engine that is elsewhere");
        let asked = script.rolled_back().len();
        assert!(asked <= 310, "it is asked at a pace, ten times a second at most: {asked} times");
    });
}

#[test]
fn an_engine_with_another_block_at_the_same_height_is_rolled_back_and_led_through_ours() {
    let (elsewhere, foreign) = (Machine::new(20), Script::default());
    live(&elsewhere, &foreign, 21, 6);
    let (mut machine, script) = (Machine::new(20), Script::default());
    live(&machine, &script, 20, 15);
    elsewhere.engine_disk.crash(Keep::All);
    machine.lose_power(Keep::All);
    machine.engine_disk = elsewhere.engine_disk;
    sim_run(22, move || async move {
        let script = Script::default();
        let node = Node::start(&plan(&machine, &script));
        node.submit_and_wait("after=1", Level::Executed).await.expect("executed");
        // The first blocks without transactions may be the same on both.
        let lowest = script.rolled_back().last().copied().expect("rolled back");
        assert_eq!(script.executed().first(), Some(&lowest.next()), "replayed from there");
        check_working(&node, &machine).await;
    });
}

#[test]
fn an_engine_that_is_behind_is_replayed_before_anything_is_produced() {
    let (machine, script) = (Machine::new(23), Script::default());
    live(&machine, &script, 23, 20);
    machine.lose_power(Keep::All);
    let tip = machine.open().reader().tip().height;
    // An engine that never synced lost everything.
    machine.engine_disk.crash(Keep::None);
    sim_run(24, move || async move {
        let script = Script::default();
        let node = Node::start(&plan(&machine, &script));
        node.reach(tip.0 + 1).await;
        let replayed: Vec<u64> = script.executed().iter().map(|height| height.0).collect();
        assert_eq!(replayed[..20], (1..=20).collect::<Vec<u64>>());
        check_working(&node, &machine).await;
    });
}

/// The recorded answers of before must not hide that the engine does not have them any more.
#[test]
fn an_engine_restarted_in_the_middle_without_its_state_is_replayed() {
    for lazy in [false, true] {
        sim_run(25, move || async move {
            let (machine, script) = (Machine::new(25), Script::default());
            let node = Node::start(&Plan { lazy, ..plan(&machine, &script) });
            for number in 0..30 {
                node.submit_and_wait(&format!("k{number}=v"), Level::Committed).await.expect("committed");
            }
            script.restart(Keep::None);
            node.submit_and_wait("after=1", Level::Executed).await.expect("executed");
            let lost = script.executed().iter().filter(|height| **height == Height(1)).count();
            assert_eq!(lost, 2, "replayed from the beginning");
            check_working(&node, &machine).await;
        });
    }
}

#[test]
fn another_root_at_the_start_stops_the_node_with_height_and_both_roots() {
    let (machine, script) = (Machine::new(26), Script::default());
    live(&machine, &script, 26, 10);
    machine.lose_power(Keep::All);
    let chain = machine.open().reader().header(Height(5)).expect("readable").expect("there").app_hash;
    machine.engine_disk.crash(Keep::None);
    sim_run(27, move || async move {
        let script = Script::default();
        script.other_root_from(Some(Height(4)));
        let node = Node::start(&plan(&machine, &script));
        node.until("an alarm", |node| !node.alarms().is_empty()).await;
        let own = baton_messages::types::Hash::of(&chain);
        let alarm = node.alarms().remove(0);
        let (own, chain) = (own.to_string(), hex::encode(&chain));
        assert!(alarm.contains("height 4") && alarm.contains(&own) && alarm.contains(&chain), "{alarm}");
        wait_for_reason(&node, "state root").await;
        let stuck = node.tip().height;
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(node.tip().height, stuck, "nothing is built on a root that is not the chain's");
        check_chain(&machine);
    });
}

#[test]
fn another_root_in_the_middle_stops_the_node() {
    // Idle: nobody but the watch would notice. Busy: the next block carries the other root.
    for lazy in [true, false] {
        sim_run(28, move || async move {
            let (machine, script) = (Machine::new(28), Script::default());
            let node = Node::start(&Plan { lazy, ..plan(&machine, &script) });
            node.submit_and_wait("a=1", Level::Executed).await.expect("executed");
            tokio::time::sleep(Duration::from_secs(2)).await;
            script.other_root_from(Some(Height(1)));
            script.restart(Keep::None);
            node.until("an alarm", |node| !node.alarms().is_empty()).await;
            let alarm = node.alarms().remove(0);
            assert!(alarm.contains("state root after height"), "{alarm}");
            wait_for_reason(&node, "state root").await;
        });
    }
}

const POISON: &str = "poison=1";

/// Produces until the poison block is committed and has stopped production. Returns its height.
async fn poisoned(node: &Node, machine: &Machine, script: &Script) -> Height {
    node.reach(5).await;
    script.poison(Some(POISON));
    for text in ["before=1", POISON, "behind=1"] {
        node.submit(text).await.expect("accepted");
    }
    wait_for_reason(node, "cannot be executed").await;
    let height = node.tip().height;
    let block = node.reader().block(height).expect("readable").expect("there");
    let index = block.txs().iter().position(|tx| &tx.0[..] == POISON.as_bytes()).expect("in the block");
    let view = node.supervisor().await;
    let reason = view.eligibility.reasons.join("; ");
    assert!(reason.contains(&format!("block {height} ")), "names the height: {reason}");
    assert!(reason.contains(&format!("transaction Some({index})")), "names the transaction: {reason}");
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(node.tip().height, height, "P10: nothing is built on a block that cannot be executed");
    let on_da = machine.ledger.headers();
    assert!(on_da.keys().all(|on_da| *on_da < height), "P10: the poison block got out");
    assert!(machine.ledger.data().keys().all(|on_da| *on_da < height), "P10: its data got out");
    node.submit("meanwhile=1").await.expect("accepted");
    height
}

#[test]
fn a_poison_block_stops_production_and_stays_inside_until_the_engine_is_fixed() {
    sim_run(30, || async {
        let (machine, script) = (Machine::new(30), Script::default());
        let node = Node::start(&plan(&machine, &script));
        poisoned(&node, &machine, &script).await;
        script.poison(None);
        check_working(&node, &machine).await;
    });
}

#[test]
fn a_poison_block_still_stops_a_restarted_node_until_the_engine_is_fixed() {
    let (machine, script) = (Machine::new(31), Script::default());
    let (first, scripted) = (machine.clone(), script.clone());
    let height = sim_run(31, move || async move {
        let node = Node::start(&plan(&first, &scripted));
        poisoned(&node, &first, &scripted).await
    });
    machine.lose_power(Keep::None);
    machine.engine_disk.crash(Keep::Prefix(3));
    sim_run(32, move || async move {
        let node = Node::start(&plan(&machine, &script));
        wait_for_reason(&node, "cannot be executed").await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(node.tip().height, height);
        assert!(machine.ledger.headers().keys().all(|on_da| *on_da < height), "P10");
        script.poison(None);
        check_working(&node, &machine).await;
    });
}

#[test]
fn a_pool_of_the_engine_is_emptied_by_the_reaper_into_the_chain_exactly_once() {
    sim_run(33, || async {
        let (machine, script) = (Machine::new(33), Script::default());
        let node = Node::start(&Plan { pool: true, ..plan(&machine, &script) });
        let texts: Vec<String> = (0..40).map(|number| format!("p{number}=v")).collect();
        for text in &texts {
            machine.oracle.attempt(&baton_messages::types::Tx(text.clone().into()));
            script.into_pool(text);
        }
        // What is in the pool stays listed until it is executed: it is handed over many times.
        for text in &texts {
            node.submit_and_wait(text, Level::Executed).await.expect("known and executed");
        }
        check_working(&node, &machine).await;
    });
}
