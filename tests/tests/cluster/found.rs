//! Bugs that histories found: one test named after each promise that was broken, with the shortest
//! history that showed it, as `make shrink` wrote it down. Each was red before its bug was fixed.

use sim::history::History;
use sim::story;

fn holds(written: &str) {
    let history: History = serde_json::from_str(written).expect("as `make shrink` wrote it");
    let outcome = history.run();
    assert_eq!(outcome.broken, None, "{}", story::story(&history, &outcome));
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
