//! One node in virtual time: what it promises when nothing goes wrong, and when the power does.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use baton_actors::timekeeper;
use baton_actors::world::Clock;
use baton_messages::sequencer::Level;
use baton_messages::types::Height;
use baton_storage::memory::Keep;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sim::{Cut, MAX_CLOCK_DRIFT, Machine, Node, Plan, Power, check_chain, listed_seeds, sim_run};

#[test]
fn a_new_node_produces_blocks_with_the_transactions_it_is_given() {
    sim_run(1, || async {
        let machine = Machine::new(1);
        let node = Node::start(&Plan::on(machine.clone(), Power::default()));
        let outcome = node.submit_and_wait("a=1", Level::Executed).await.expect("executed");
        assert!(outcome.result.is_some());
        let again = node.submit_and_wait("a=1", Level::Committed).await.expect("known");
        assert_eq!(again.place, outcome.place, "P3: a duplicate is answered with the place of the first");
        node.reach(10).await;
        node.drain().await;
        assert!(node.alarms().is_empty());
        check_chain(&machine);
    });
}

#[test]
fn the_same_seed_gives_the_same_chain() {
    let run = |seed| {
        sim_run(seed, move || async move {
            let machine = Machine::new(seed);
            let node = Node::start(&Plan::on(machine, Power::default()));
            for number in 0..20 {
                let _ = node.submit(&format!("k{number}={seed}")).await;
            }
            node.reach(30).await;
            (node.reader().hash(Height(30)).expect("readable"), node.reader().applied())
        })
    };
    for seed in 0..5 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}

#[test]
fn an_idle_lazy_node_makes_no_blocks_and_wakes_for_a_transaction() {
    sim_run(2, || async {
        let machine = Machine::new(2);
        let plan = Plan { lazy: true, ..Plan::on(machine.clone(), Power::default()) };
        let node = Node::start(&plan);
        node.reach(1).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let before = node.tip().height;
        assert!(before <= Height(2), "an idle lazy node made {before} blocks in five seconds");
        let outcome = node.submit_and_wait("a=1", Level::Committed).await.expect("committed");
        assert_eq!(outcome.place.height, before.next());
        tokio::time::sleep(Duration::from_secs(25)).await;
        assert!(node.tip().height > before.next(), "the longest interval without a block is ten seconds");
        node.drain().await;
        check_chain(&machine);
    });
}

#[test]
fn production_pauses_at_the_da_backlog_and_drains_in_order() {
    sim_run(3, || async {
        let machine = Machine::new(3);
        let plan = Plan { max_da_backlog: 20, ..Plan::on(machine.clone(), Power::default()) };
        let node = Node::start(&plan);
        node.reach(5).await;
        machine.ledger.set_away(true);
        tokio::time::sleep(Duration::from_secs(20)).await;
        let stuck = node.tip().height;
        let included = node.reader().da_progress().included;
        assert_eq!(stuck.0 - included.0, 20, "blocks go on up to the backlog and no further");
        let view = node.supervisor().await;
        assert!(view.pause.expect("paused").contains("DA"), "it says why");
        assert!(view.da_trouble.is_some());
        machine.ledger.set_away(false);
        node.reach(stuck.0 + 20).await;
        node.drain().await;
        let view = node.supervisor().await;
        assert_eq!(view.pause, None);
        assert_eq!(view.da_trouble, None);
        check_chain(&machine);
    });
}

#[test]
fn blobs_that_are_too_big_together_go_in_smaller_groups() {
    sim_run(4, || async {
        let machine = Machine::new(4);
        let node = Node::start(&Plan::on(machine.clone(), Power::default()));
        machine.ledger.set_away(true);
        for number in 0..40 {
            node.submit(&format!("k{number}={}", "v".repeat(500))).await.expect("accepted");
        }
        node.reach(30).await;
        machine.ledger.set_away(false);
        node.drain().await;
        check_chain(&machine);
    });
}

#[test]
fn time_rises_strictly_when_the_clock_jumps_back() {
    sim_run(5, || async {
        let machine = Machine::new(5);
        let node = Node::start(&Plan::on(machine.clone(), Power::default()));
        node.reach(5).await;
        node.clock().jump(-3_600_000_000_000);
        node.reach(10).await;
        node.clock().jump(7_200_000_000_000);
        node.reach(15).await;
        node.drain().await;
        check_chain(&machine);
    });
}

#[test]
fn a_clock_that_jumps_an_hour_ahead_does_not_take_the_chain_along() {
    const HOUR: i64 = 3_600_000_000_000;
    sim_run(5, || async {
        let machine = Machine::new(5);
        let metrics = Rc::new(RefCell::new(timekeeper::Metrics::default()));
        let mut plan = Plan::on(machine.clone(), Power::default());
        let counted = metrics.clone();
        plan.adjust = Some(Box::new(move |wiring| *counted.borrow_mut() = wiring.metrics.timekeeper.clone()));
        let node = Node::start(&plan);
        node.reach(50).await;
        let (began, before) = (node.clock().now(), node.tip().height);
        node.clock().jump(HOUR);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let (tip, passed) = (node.tip(), Duration::from_secs(60));
        assert!(tip.time <= began.plus(passed * 2 + MAX_CLOCK_DRIFT * 2), "A19: {} ns", tip.time.0 - began.0);
        assert!(tip.time >= began.plus(passed), "a clock that is right after all is reached");
        assert!(tip.height.0 > before.0 + 500, "blocks go on");
        let metrics = metrics.borrow().clone();
        assert_eq!(metrics.alarms.get(), 1, "a person is told once");
        assert!(metrics.held_back.get() > 3_000.0, "{}", metrics.held_back.get());

        node.clock().jump(-HOUR);
        tokio::time::sleep(Duration::from_secs(180)).await;
        let late = node.clock().now().0.abs_diff(node.tip().time.0);
        assert!(late < 1_000_000_000, "the corrected clock is followed again: {late} ns");
        assert_eq!(metrics.held_back.get(), 0.0);
        node.drain().await;
        check_chain(&machine);
    });
}

#[test]
fn a_full_queue_refuses_and_loses_nothing() {
    sim_run(6, || async {
        let machine = Machine::new(6);
        let node = Node::start(&Plan::on(machine.clone(), Power::default()));
        let mut refused = 0;
        for number in 0..3_000 {
            refused += u32::from(node.submit(&format!("k{number}=v")).await.is_err());
        }
        assert!(refused > 0, "the queue holds a thousand");
        let empty = node.until("an empty queue", |node| {
            let tip = node.tip().height;
            tip.0 > 5 && node.reader().block(tip).ok().flatten().is_some_and(|block| block.txs().is_empty())
        });
        empty.await;
        node.drain().await;
        check_chain(&machine);
    });
}

/// One life: load until the power goes off, or for so long.
fn live(machine: &Machine, life: u64, cut: Cut) -> Power {
    let power = Power::new(cut);
    let (machine, switch) = (machine.clone(), power.clone());
    sim_run(life, move || async move {
        let node = Node::start(&Plan::on(machine.clone(), switch.clone()));
        for number in 0..12 {
            if switch.is_off() {
                break;
            }
            let level = if number % 3 == 0 { Level::Executed } else { Level::Committed };
            let text = format!("l{life}n{number}=v");
            match number % 4 {
                0 => drop(node.submit_and_wait(&text, level).await),
                _ => drop(node.submit(&text).await),
            }
        }
        if node.reach(node.tip().height.0 + 8).await {
            node.drain().await;
        }
        switch.cut();
    });
    power
}

/// The last life: nothing happens to it, and everything comes to rest.
fn rest(machine: &Machine) {
    let resting = machine.clone();
    sim_run(99, move || async move {
        let node = Node::start(&Plan::on(resting.clone(), Power::default()));
        let before = node.tip().height;
        node.submit_and_wait("last=1", Level::Executed).await.expect("P8: it goes on after any crash");
        node.reach(before.0 + 5).await;
        node.drain().await;
        assert!(node.alarms().is_empty(), "{:?}", node.alarms());
    });
    check_chain(machine);
}

fn keep(random: &mut StdRng) -> Keep {
    match random.next_u32() % 4 {
        0 => Keep::All,
        1 => Keep::None,
        _ => Keep::Prefix((random.next_u32() % 6) as usize),
    }
}

/// The main check of issue and design: the power goes off instead of any effect, un-synced
/// writes are lost, and again in the next life; then the chain, DA, guard and clients agree.
#[test]
fn a_crash_between_any_two_effects_loses_nothing_that_was_acknowledged() {
    let undisturbed = live(&Machine::new(0), 1, Cut::Never);
    let effects = undisturbed.effects();
    for name in ["disk.write", "disk.synced", "da.submit", "da.submitted", "guard.write", "guard.written"] {
        assert!(undisturbed.seen().contains_key(name), "no effect {name} in an undisturbed life");
    }
    let test = "a_crash_between_any_two_effects_loses_nothing_that_was_acknowledged";
    listed_seeds(test, effects, |seed| {
        let mut random = StdRng::seed_from_u64(seed);
        let machine = Machine::new(seed);
        // The first cuts walk through every effect of a life, the second ones are anywhere.
        live(&machine, 1, Cut::AtEffect(1 + seed % effects));
        machine.lose_power(keep(&mut random));
        live(&machine, 2, Cut::AtEffect(1 + random.next_u64() % effects));
        machine.lose_power(keep(&mut random));
        rest(&machine);
    });
}
