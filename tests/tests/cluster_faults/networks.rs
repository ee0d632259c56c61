//! Bad networks and clocks, and processes that stand still.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_stopped_and_wakes_up_does_nothing_of_its_old_term() {
    let mut members = Members::new(Wish::of(3, &TIMES)).await;
    members.start_all().await;
    let load = clients(&members);
    for _ in 0..2 {
        let leader = members.leader().await;
        members.signal(leader, Signal::STOP);
        let next = successor(&members, leader).await;
        let height = members.height_of(next).await;
        members.reach(height + 5).await;
        members.signal(leader, Signal::CONT);
        members
            .until("the one that woke up follows", || async {
                members.height_of(leader).await > height + 5 && !does_lead(&members, leader).await
            })
            .await;
    }
    heals(members, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_in_the_minority_makes_no_block_and_says_why_and_comes_back() {
    let (members, load) = linked().await;
    let leader = members.leader().await;
    members.isolate(leader, Weather { cut: true, ..Weather::default() });
    let next = successor(&members, leader).await;
    let frozen = members.height_of(leader).await;
    members.reach(frozen + 10).await;
    assert!(members.height_of(leader).await <= frozen + 1, "it made blocks without a quorum");
    let (code, reason) = members.answer(leader, "/health/ready").await.expect("RPC answers without a quorum");
    assert_eq!(code, 503, "{reason}");
    assert!(reason.contains("quorum"), "{reason}");
    let (code, _) = members.answer(next, "/health/leader").await.expect("the new leader answers");
    assert_eq!(code, 200);
    members.isolate(leader, Weather::default());
    heals(members, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_way_and_flapping_links_stop_nobody_for_long() {
    let (members, load) = linked().await;
    // What others send to the leader is held: it hears nobody, they hear it.
    let leader = members.leader().await;
    for other in (0..3).filter(|other| *other != leader) {
        members.weather(other, leader, Weather { deaf: true, ..Weather::default() });
        members.weather(leader, other, Weather { mute: true, ..Weather::default() });
    }
    let height = members.height().await;
    members.reach(height + 5).await;
    members.isolate(leader, Weather::default());
    // A follower that comes and goes.
    let leader = members.leader().await;
    let follower = (leader + 1) % 3;
    let height = members.height().await;
    for round in 0..10 {
        let cut = round % 2 == 0;
        members.weather(leader, follower, Weather { cut, ..Weather::default() });
        members.weather(follower, leader, Weather { cut, ..Weather::default() });
        sleep(Duration::from_millis(300)).await;
    }
    members.reach(height + 10).await;
    heals(members, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delay_that_fits_is_served_and_delay_that_does_not_halts_safely_and_says_why() {
    let (members, load) = linked().await;
    let every = |weather| (0..3).for_each(|number| members.isolate(number, weather));
    every(Weather { delay: Duration::from_millis(15), loss: 2, ..Weather::default() });
    sleep(A_WHILE).await;
    let height = members.height().await;
    members.reach(height + 10).await;
    every(Weather { delay: Duration::from_millis(700), ..Weather::default() });
    // Followers may go on hearing heartbeats, only late; the leader hears no answer in time.
    members
        .until("the leader says why it halts", || async {
            for number in 0..3 {
                let (code, reason) = members.answer(number, "/health/ready").await.unwrap_or_default();
                if code == 503 && reason.contains("quorum") {
                    return true;
                }
            }
            false
        })
        .await;
    let height = members.height().await;
    sleep(A_WHILE).await;
    assert!(members.height().await <= height + 1, "blocks are made without a quorum in time");
    every(Weather::default());
    heals(members, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_an_hour_off_neither_stops_the_chain_nor_takes_its_time_along() {
    let mut members = Members::new(Wish::of(3, &TIMES)).await;
    for (number, minutes) in [(0, 60), (1, 0), (2, -60)] {
        let offset = (minutes * 60_000_i64).to_string();
        members.start(number, &[("BATON_CLOCK_OFFSET_MS", offset)]);
    }
    members.leader().await;
    let load = clients(&members);
    for _ in 0..3 {
        let leader = members.leader().await;
        let before = members.height().await;
        members.reach(before + 5).await;
        members.terminate(leader).await;
        let offset = (["60", "0", "-60"][leader].parse::<i64>().expect("a number") * 60_000).to_string();
        members.reach(before + 8).await;
        members.start(leader, &[("BATON_CLOCK_OFFSET_MS", offset)]);
        members.until("it is level", || async { members.height_of(leader).await > before + 8 }).await;
    }
    heals(members, load).await;
}
