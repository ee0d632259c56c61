//! Clusters of real processes whose leaders are killed and stopped under load.
#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

use std::time::Duration;

use sim::process::{COARSE, Load, Members, Stalls, TIMES, Wish};
use tokio::time::{Instant, sleep};

/// Rounds in a short run; `BATON_FAILOVERS` sets more.
const ROUNDS: usize = 5;

/// How leaders end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Killed,
    Told,
}

/// Ends leader after leader while clients post, and checks what is left.
async fn ends_of_leaders(count: usize, end: End) {
    let rounds =
        std::env::var("BATON_FAILOVERS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS);
    let mut members = Members::new(Wish::of(count, &TIMES)).await;
    members.start_all().await;
    let load = Load::over(&members.kv_urls(), &members.oracle, 4, Duration::from_millis(10));
    let stalls = Stalls::watch();
    for _ in 0..rounds {
        let leader = members.leader().await;
        let before = members.height_of(leader).await;
        let began = Instant::now();
        match end {
            End::Killed => members.kill(leader).await,
            End::Told => members.terminate(leader).await,
        }
        members.reach(before + 3).await;
        let took = began.elapsed();
        let stalled = stalls.since(began);
        assert!(took < COARSE + stalled * 4, "no block for {took:?}, the machine stalled for {stalled:?}");
        members.start(leader, &[]);
        members
            .until("the member is level again", || async {
                members.height_of(leader).await + 3 >= members.height().await
            })
            .await;
        sleep(Duration::from_millis(rand::random::<u64>() % 300)).await;
    }
    load.stop().await;
    let found = members.verify().await;
    assert!(found.acknowledged > rounds * 10, "{found:?}");
    report(count, end, &found.times);
}

/// The longest times between two headers are what clients saw of it.
fn report(count: usize, end: End, times: &[baton_messages::types::Timestamp]) {
    // The first block has the genesis' time, which is when the homes were made.
    let mut gaps: Vec<u64> = times[1..].windows(2).map(|pair| (pair[1].0 - pair[0].0) / 1_000_000).collect();
    gaps.sort_unstable();
    let at = |share: usize| gaps[(gaps.len() - 1) * share / 1000];
    let missed = gaps.iter().filter(|gap| **gap > 150).count();
    println!(
        "{count} nodes, leaders {end:?}: {} blocks, ms between headers p50 {} p99 {} p99.9 {} max {}, \
         gaps over 1.5 block times: {missed}",
        times.len(),
        at(500),
        at(990),
        at(999),
        at(1000),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_of_three_are_killed_under_load_and_nothing_is_lost() {
    ends_of_leaders(3, End::Killed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_of_three_are_told_to_stop_under_load_and_nothing_is_lost() {
    ends_of_leaders(3, End::Told).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_of_five_are_told_to_stop_under_load_and_nothing_is_lost() {
    ends_of_leaders(5, End::Told).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_of_five_are_killed_under_load_and_nothing_is_lost() {
    ends_of_leaders(5, End::Killed).await;
}
