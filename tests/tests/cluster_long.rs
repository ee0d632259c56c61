//! What takes a cluster of real processes long: catching up over a long history, and an upgrade
//! that rolls through and back.
#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

use std::path::PathBuf;
use std::time::Duration;

use sim::process::{Load, Members, TIMES, Wish};
use tokio::time::{Instant, sleep};

/// Blocks that a new member lacks in a short run; `BATON_BEHIND` sets more.
const BEHIND: u64 = 3_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_far_behind_catches_up_while_blocks_are_made_and_does_not_produce_before() {
    let behind = number("BATON_BEHIND").unwrap_or(BEHIND);
    let mut members = Members::new(Wish { later: 2, ..Wish::of(1, &TIMES) }).await;
    let history = ["store", "generate", "--txs", "0", "--blocks", &behind.to_string()];
    let (code, said) = members.command(0, &history).await;
    assert_eq!(code, Some(0), "{said}");
    members.start_all().await;
    let load = Load::over(&[members.kv_url(0)], &members.oracle, 2, Duration::from_millis(20));
    members.start(1, &[]);
    members.start(2, &[]);
    let (began, mut checked) = (Instant::now(), 0);
    while !is_level(&members).await {
        let status = members.status(1).await.unwrap_or_default();
        let height = status["tip"]["height"].as_u64().unwrap_or(0);
        if height > 0 && height + 100 < behind {
            assert_ne!(status["raft"]["role"], "leader", "it leads and lacks blocks");
        }
        // An empty one knows of nothing that it lacks.
        if status["supervisor"]["executed"].as_u64().is_some_and(|executed| executed + 100 < height) {
            assert_ne!(status["supervisor"]["eligible"], true, "it may produce and lacks blocks: {status}");
            checked += 1;
        }
        assert!(began.elapsed() < Duration::from_secs(600), "it does not catch up:\n{}", members.tail(1));
        sleep(Duration::from_millis(20)).await;
    }
    let took = began.elapsed();
    println!("{behind} blocks and what was made meanwhile in {took:?}, looked at {checked} times");
    assert!(checked > 0, "it was never seen behind");
    let (code, said) = members.command(0, &["cluster", "promote", "n1", "n2"]).await;
    assert_eq!(code, Some(0), "{said}");
    members.kill(0).await;
    let next = members.leader().await;
    assert_ne!(next, 0);
    members.start(0, &[]);
    members.until("the old leader follows", || async { members.height_of(0).await > behind + 5 }).await;
    load.stop().await;
    let found = members.verify().await;
    assert!(found.blocks > behind && found.acknowledged > 5);
}

/// Both new members have every block and have executed it.
async fn is_level(members: &Members) -> bool {
    let height = members.height_of(0).await;
    for number in [1, 2] {
        let status = members.status(number).await.unwrap_or_default();
        let executed = status["supervisor"]["executed"].as_u64().unwrap_or(0);
        if height == 0 || executed + 3 < height {
            return false;
        }
    }
    true
}

/// From the version in `BATON_OLD` to this one, back before the last member has it, and here again,
/// one member after the other. Once all have it and newer entries are in force there is no way back:
/// the old program says so and writes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_rolls_through_and_back_under_load() {
    let check = "an_upgrade_rolls_through_and_back_under_load";
    let Some(old) = std::env::var_os("BATON_OLD").map(PathBuf::from) else {
        return sim::skip(
            check,
            "by-hand",
            "an older program is needed: scripts/upgrade.sh builds one and runs this",
        );
    };
    // The homes are the old program's, too: a newer one may have settings that it does not know.
    let mut members = Members::new(Wish { program: Some(old.clone()), ..Wish::of(3, &TIMES) }).await;
    members.start_all().await;
    let load = Load::over(&members.kv_urls(), &members.oracle, 3, Duration::from_millis(20));
    let program = |new: bool| if new { None } else { Some(old.as_path()) };
    for (new, changed) in [(true, 0..2), (false, 0..2), (true, 0..3)] {
        for number in changed {
            members.terminate(number).await;
            members.set_program(number, program(new));
            members.start(number, &[]);
            members
                .until("it is level", || async {
                    members.height_of(number).await + 3 >= members.height().await
                        && members.granted().await.is_some()
                })
                .await;
        }
        let height = members.height().await;
        members.reach(height + 5).await;
    }
    let versions = || async {
        let known = members.get(0, "/raft/node").await.unwrap_or_default();
        known["command_version"].as_u64().unwrap_or(0)
    };
    let before = versions().await;
    let knows_more = u64::from(baton_messages::command::COMMAND_VERSION) > before;
    if knows_more {
        members.until("entries of this version", || async { versions().await > before }).await;
    }
    let in_force = versions().await;
    if number("BATON_OLD_VERSION").is_some_and(|old| old < in_force) {
        members.terminate(2).await;
        members.set_program(2, Some(&old));
        members.start(2, &[]);
        let code = members.ended(2, Duration::from_secs(30)).await;
        assert_ne!(code, Some(0), "an older program runs on entries that it does not know");
        assert!(members.tail(2).contains("install the newer version"), "{}", members.tail(2));
        members.set_program(2, None);
        members.start(2, &[]);
        members
            .until("it is level", || async { members.height_of(2).await + 3 >= members.height().await })
            .await;
    }
    load.stop().await;
    let found = members.verify().await;
    assert!(found.acknowledged > 20, "{found:?}");
}
