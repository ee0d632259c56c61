//! Bugs that histories found: one test named after each promise that was broken, with the shortest
//! history that shows it, mostly as `make shrink` wrote it down. Each is red with its bug.

use sim::history::{Deed, History, Left, What, Who};
use sim::story;

fn holds(written: &str) {
    nothing_breaks(&serde_json::from_str(written).expect("as `make shrink` wrote it"));
}

fn nothing_breaks(history: &History) {
    let outcome = history.run();
    assert_eq!(outcome.broken, None, "{}", story::story(history, &outcome));
}

/// Seed 1079, hazard H22: a leader's clock jumped ahead, and a full node that was away took no block
/// from peers until the time of the newest had come.
#[test]
fn l1_a_full_node_takes_what_is_due_below_blocks_of_the_future() {
    holds(include_str!("found/l1_below_the_future.json"));
}

/// Seed 2676, hazard H22: it read no further on DA than the first block of the future. What it had from
/// peers did not become final, though DA held it.
#[test]
fn l1_what_a_full_node_has_becomes_final_below_blocks_of_the_future() {
    holds(include_str!("found/l1_final_below_the_future.json"));
}

/// Seed 530, hazard B13: a member whose disk hung answered for a snapshot that an earlier call was still
/// writing.
#[test]
fn b13_a_member_does_not_answer_for_a_snapshot_that_is_still_being_written() {
    holds(include_str!("found/b13_a_snapshot_being_written.json"));
}

/// Seed 557: a leader that nobody else hears makes a newcomer a member, and is gone before anybody knows.
/// The newcomer has its log, asked nobody again, and belonged nowhere.
#[test]
fn l1_who_was_left_out_by_a_change_of_leader_asks_to_join_again() {
    let crash = What::Crash { node: Who::Leader, left: Left::Nothing, down_ms: 4_000 };
    let deeds = [(1_000, What::Apart { for_ms: 1_300 }), (1_010, What::Join), (1_600, crash)];
    let deeds = deeds.map(|(at_ms, what)| Deed { at_ms, what });
    nothing_breaks(&History { deeds: deeds.into(), ..History::calm(557) });
}
