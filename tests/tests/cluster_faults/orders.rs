//! What operators order: pauses, stops, another address, other settings.

use super::*;

/// What a member says in `baton cluster status`.
async fn page(members: &Members, number: usize) -> String {
    let (code, said) = members.command(number, &["cluster", "status"]).await;
    assert_eq!(code, Some(0), "{said}");
    said
}

/// Pauses, as soon as every voter is known to understand that.
async fn pause(members: &Members, number: usize) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let (code, said) = members.command(number, &["pause", "--reason", "a look"]).await;
        if code == Some(0) {
            return;
        }
        assert!(said.contains("every voter") && Instant::now() < deadline, "{code:?} {said}");
        sleep(Duration::from_millis(100)).await;
    }
}

async fn rests(members: &Members) {
    sleep(Duration::from_millis(500)).await;
    let height = members.height().await;
    sleep(A_WHILE).await;
    assert_eq!(members.height().await, height, "a block was made although an operator said no");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_survives_kills_and_restarts_of_everybody_and_is_lifted_on_any_member() {
    let mut members = Members::new(Wish::of(3, &TIMES)).await;
    members.start_all().await;
    let load = clients(&members);
    let leader = members.leader().await;
    let (one, other) = ((leader + 1) % 3, (leader + 2) % 3);
    // Given to one that follows: it is handed on to the leader.
    pause(&members, one).await;
    rests(&members).await;
    for number in 0..3 {
        let known = members.get(number, "/raft/node").await.expect("it answers");
        assert_eq!(known["paused"], "a look", "n{number}: {known}");
        let (_, metrics) = members.answer(number, "/metrics").await.expect("it answers");
        let shown = |line: &str| line.starts_with("evnode_failover_paused{") && line.ends_with(" 1");
        assert!(metrics.lines().any(shown), "n{number} does not export it");
        let page = page(&members, number).await;
        assert!(page.contains("production is paused: a look"), "{page}");
    }
    members.kill(leader).await;
    rests(&members).await;
    for number in [one, other] {
        members.kill(number).await;
    }
    for number in 0..3 {
        members.start(number, &[]);
    }
    members.until("everybody answers", || async { members.status(other).await.is_some() }).await;
    rests(&members).await;
    let resumed = Instant::now() + Duration::from_secs(20);
    loop {
        let (code, said) = members.command(other, &["resume"]).await;
        if code == Some(0) {
            break;
        }
        // Nobody leads yet.
        assert!(code == Some(75) && Instant::now() < resumed, "{code:?} {said}");
        sleep(Duration::from_millis(100)).await;
    }
    let leader = members.leader().await;
    let (code, said) = members.command(leader, &["resume"]).await;
    assert!(code == Some(64) && said.contains("not paused"), "success without effect: {code:?} {said}");
    heals(members, load).await;
}

/// F8: a rolling restart that is faster than catching up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_needed_is_not_stopped_on_command_and_a_signal_stops_it_with_a_warning() {
    let mut members = Members::new(Wish::of(3, &TIMES)).await;
    members.start_all().await;
    let load = clients(&members);
    let leader = members.leader().await;
    let (one, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let (code, said) = members.command(one, &["stop"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(members.ended(one, Duration::from_secs(10)).await, Some(0), "it said that it has stopped");
    members
        .until("the others see that they are a bare quorum", || async {
            page(&members, other).await.contains("a bare quorum of the 3 voters is heard")
        })
        .await;
    for number in [leader, other] {
        let (code, said) = members.command(number, &["stop"]).await;
        assert_eq!(code, Some(64), "{said}");
        assert!(said.contains("1 of 3 voters") && said.contains("--force"), "{said}");
    }
    let height = members.height().await;
    members.reach(height + 5).await;
    // A signal is an order of the system: it is followed, and said loudly what that means.
    members.terminate(other).await;
    let log = fs::read_to_string(members.log(other)).expect("it has a log");
    assert!(log.contains("stopping although this node is needed"), "{}", members.tail(other));
    let page = page(&members, leader).await;
    assert!(page.contains("no quorum of the 3 voters is heard") || page.contains("bare quorum"), "{page}");
    members.start(one, &[]);
    let leader = members.leader().await;
    let (code, said) = members.command(leader, &["stop", "--force"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(members.ended(leader, Duration::from_secs(10)).await, Some(0));
    for number in [leader, other] {
        members.start(number, &[]);
    }
    heals(members, load).await;
}

/// S17: every member moves to another address, one after the other, while the others run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_move_to_other_addresses_are_found_by_those_that_run() {
    let mut members = Members::new(Wish::of(3, &TIMES)).await;
    members.start_all().await;
    let load = clients(&members);
    for number in 0..3 {
        members.terminate(number).await;
        let before = members.cluster_address(number);
        members.move_to_another_port(number);
        let now = members.cluster_address(number);
        assert_ne!(before, now);
        members.start(number, &[]);
        members
            .until("everybody has its new address and it is level", || async {
                for seen_by in 0..3 {
                    let known = members.get(seen_by, "/raft/node").await.unwrap_or_default();
                    let voters = known["voters"].to_string();
                    if !voters.contains(&now) || voters.contains(&before) {
                        return false;
                    }
                }
                members.height_of(number).await + 3 >= members.height().await
            })
            .await;
    }
    let leader = members.leader().await;
    members.kill(leader).await;
    successor(&members, leader).await;
    members.start(leader, &[]);
    heals(members, load).await;
}

/// D11: settings in which members must agree are changed by a rolling restart, the leader last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_of_all_members_are_changed_one_after_the_other_without_a_loss() {
    let mut members = Members::new(Wish::of(3, &TIMES)).await;
    members.start_all().await;
    let load = clients(&members);
    let leader = members.leader().await;
    for number in [(leader + 1) % 3, (leader + 2) % 3, leader] {
        members.terminate(number).await;
        members.set_flags(number, &["--sequencer.replay_window", "500"]);
        members.start(number, &[]);
        members
            .until("it is level", || async {
                members.height_of(number).await + 3 >= members.height().await
                    && members.granted().await.is_some()
            })
            .await;
        members
            .until("it knows whether its settings are the leader's", || async {
                let Some(known) = members.get(number, "/raft/node").await else { return false };
                known["reasons"].to_string().contains("other settings than the leader's")
                    == (number != leader)
            })
            .await;
    }
    members
        .until("everybody is well again", || async {
            for number in 0..3 {
                let known = members.get(number, "/raft/node").await.unwrap_or_default();
                if known["eligible"] != true {
                    return false;
                }
            }
            true
        })
        .await;
    let log = fs::read_to_string(members.log(leader)).expect("it has a log");
    assert!(log.contains("leadership was handed over"), "it stopped without a successor");
    heals(members, load).await;
}
