//! Clusters of real processes on bad networks, disks and clocks, among strangers and operators. Each
//! fault has a form that needs no privileges: a proxy on every line, fail points, signals, an offset
//! in the clock. `apart` has those that need namespaces.
#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

mod apart;
mod disks;
mod membership;
mod networks;
mod orders;
mod strangers;
mod telling;

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use sim::process::{Load, Members, TIMES, Weather, Wish};
use tokio::time::{Instant, sleep};

/// Long enough for several elections.
const A_WHILE: Duration = Duration::from_secs(3);

/// Three members behind links, and clients.
async fn linked() -> (Members, Load) {
    let mut members = Members::new(Wish { links: true, ..Wish::of(3, &TIMES) }).await;
    members.start_all().await;
    let load = clients(&members);
    (members, load)
}

fn clients(members: &Members) -> Load {
    Load::over(&members.kv_urls(), &members.oracle, 3, Duration::from_millis(20))
}

/// Faults are over: every member makes progress again, and nothing is lost.
async fn heals(mut members: Members, load: Load) {
    let height = members.height().await;
    members
        .until("every member goes on", || async {
            for number in 0..members.count() {
                if members.is_up(number) && members.height_of(number).await < height + 5 {
                    return false;
                }
            }
            true
        })
        .await;
    load.stop().await;
    let found = members.verify().await;
    assert!(found.acknowledged > 5 && found.blocks > 10, "{found:?}");
}

/// Waits until somebody else than this one leads, and says who.
async fn successor(members: &Members, of: usize) -> usize {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let leader = members.leader().await;
        if leader != of {
            return leader;
        }
        assert!(Instant::now() < deadline, "n{of} still leads:\n{}", members.tail(of));
        sleep(Duration::from_millis(20)).await;
    }
}

async fn does_lead(members: &Members, number: usize) -> bool {
    let status = members.status(number).await.unwrap_or_default();
    status["raft"]["role"] == "leader"
        && status["supervisor"]["grant"].is_u64()
        && status["supervisor"]["pause"].is_null()
}

/// Waits until a member is a learner and level.
async fn joined(members: &Members, number: usize) {
    members
        .until("the learner is level", || async {
            let known = members.get(number, "/raft/node").await.unwrap_or_default();
            let level = members.height_of(number).await + 3 >= members.height().await;
            known["voters"].as_array().is_some_and(|voters| !voters.is_empty()) && level
        })
        .await;
}

fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").args([from, to]).status().expect("cp runs");
    assert!(copied.success());
}
