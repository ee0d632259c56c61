//! Clusters of real processes on bad networks, disks and clocks. Each fault has a form that needs
//! no privileges: a proxy on every line, fail points, signals, an offset in the clock.
#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use sim::process::{Load, Members, Weather, Wish};
use tokio::time::{Instant, sleep};

/// Times of a fast local network.
const TIMES: [&str; 10] = [
    "--evnode.node.block_time",
    "100ms",
    "--evnode.da.block_time",
    "1s",
    "--raft.heartbeat_interval",
    "50ms",
    "--raft.election_timeout_min",
    "150ms",
    "--raft.election_timeout_max",
    "250ms",
];

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
async fn a_disk_that_hangs_costs_its_node_the_lead_and_not_the_chain() {
    let mut members = Members::new(Wish::of(3, &TIMES)).await;
    let marks: Vec<_> = (0..3).map(|number| members.log(number).with_extension("hang")).collect();
    for (number, mark) in marks.iter().enumerate() {
        members.start(number, &[("BATON_HANG_AT", format!("storage.before_append:{}", mark.display()))]);
    }
    let leader = members.leader().await;
    let load = clients(&members);
    sleep(Duration::from_secs(1)).await;
    fs::write(&marks[leader], "").expect("a mark");
    let began = Instant::now();
    let next = successor(&members, leader).await;
    let height = members.height_of(next).await;
    members.reach(height + 5).await;
    println!("a hanging disk: others made blocks after {:?}", began.elapsed());
    let (_, reason) =
        members.answer(leader, "/health/ready").await.expect("RPC answers with a disk that hangs");
    assert!(reason.contains("disk"), "it does not say why: {reason}");
    fs::remove_file(&marks[leader]).expect("the mark");
    heals(members, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_costs_its_node_the_lead_and_not_the_chain() {
    let mut members = Members::new(Wish::of(3, &TIMES)).await;
    members.start_all().await;
    let load = clients(&members);
    let leader = members.leader().await;
    members.terminate(leader).await;
    // Less room than it wants: it may follow and may not lead.
    members.set_flags(leader, &["--disk.min_free", "1000000GiB"]);
    members.start(leader, &[]);
    members
        .until("it says what is wrong", || async {
            members.answer(leader, "/health/ready").await.is_some_and(|(_, reason)| reason.contains("disk"))
        })
        .await;
    let next = members.leader().await;
    assert_ne!(next, leader);
    members.kill(next).await;
    let last = successor(&members, leader).await;
    assert_ne!(last, next);
    members.start(next, &[]);
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_disk_comes_back_as_a_stranger_and_another_member_is_put_in_its_place() {
    let mut members = Members::new(Wish { later: 1, ..Wish::of(3, &TIMES) }).await;
    members.start_all().await;
    let leader = members.leader().await;
    let lost = (leader + 1) % 3;
    // What the lost disk alone has accepted is lost with it: nobody posts there.
    let urls: Vec<_> = (0..3).filter(|number| *number != lost).map(|number| members.kv_url(number)).collect();
    let load = Load::over(&urls, &members.oracle, 3, Duration::from_millis(20));
    members.kill(lost).await;
    members.replace_disk(lost).await;
    members.start(lost, &[]);
    // Its name is taken by a storage that is gone: only an operator can know that.
    sleep(A_WHILE).await;
    let voters = members.get(leader, "/raft/node").await.expect("it answers")["voters"].clone();
    assert_eq!(voters.as_array().map(Vec::len), Some(3), "a stranger votes: {voters}");
    assert_eq!(members.height_of(lost).await, 0, "a stranger was fed");

    members.start(3, &[]);
    joined(&members, 3).await;
    let leader = members.leader().await;
    let name = members.name(lost).to_owned();
    let (code, said) = members.command(leader, &["cluster", "replace", &name, "n3"]).await;
    assert_eq!(code, Some(0), "{said}");
    let voters = members.get(leader, "/raft/node").await.expect("it answers")["voters"].clone();
    assert!(voters.to_string().contains("n3") && !voters.to_string().contains(&name), "{voters}");
    // Now the name is free, and the stranger becomes a learner.
    joined(&members, lost).await;
    let leader = members.leader().await;
    members.kill(leader).await;
    successor(&members, leader).await;
    members.start(leader, &[]);
    heals(members, load).await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_disk_and_an_old_one_are_refused_while_the_chain_goes_on() {
    let mut members = Members::new(Wish { later: 1, ..Wish::of(3, &TIMES) }).await;
    members.start_all().await;
    let load = clients(&members);
    let leader = members.leader().await;
    let copied = (leader + 1) % 3;
    members.terminate(copied).await;
    // The copy lives in the place of the fourth, with its ports.
    fs::remove_dir_all(members.home(3).root()).expect("there is a home");
    copy(members.home(copied).root(), members.home(3).root());
    // The list of peers would be refused: the copy has other addresses.
    let config = members.home(3).config();
    let text = fs::read_to_string(&config).expect("there is a configuration");
    let lines: Vec<_> = text.lines().filter(|line| !line.contains("n0@127.0.0.1")).collect();
    fs::write(&config, lines.join("\n")).expect("it can be written");
    members.start(copied, &[]);
    let height = members.height().await;
    members.reach(height + 5).await;
    let name = members.name(copied).to_owned();
    members.set_flags(3, &["--evnode.raft.node_id", &name]);
    members.start(3, &[]);
    let refused = || async {
        (0..4).any(|number| {
            let log = fs::read_to_string(members.log(number)).unwrap_or_default();
            log.contains("refused in the cluster handshake") && log.contains("copy")
        })
    };
    members.until("the copy is refused with the reason", refused).await;
    let height = members.height().await;
    members.reach(height + 5).await;
    members.kill(3).await;
    members
        .until("the chain goes on with all three", || async { members.height_of(copied).await > height })
        .await;
    heals(members, load).await;
}

/// Hazard A11: what a service manager would do with a disk that was put back to a snapshot: start
/// it again and again. Each start is another life, soon a newer one than the original's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_put_back_to_an_earlier_state_has_no_say_however_often_it_is_started() {
    let mut members = Members::new(Wish::of(3, &TIMES)).await;
    members.start_all().await;
    let load = clients(&members);
    let leader = members.leader().await;
    let (reverted, other) = ((leader + 1) % 3, (leader + 2) % 3);
    members.terminate(reverted).await;
    let snapshot = tempfile::tempdir().expect("a directory");
    copy(&members.home(reverted).root().join("data"), snapshot.path());
    members.start(reverted, &[]);
    let height = members.height().await;
    members.reach(height + 20).await;
    members.until("it is level", || async { members.height_of(reverted).await > height + 10 }).await;
    members.kill(reverted).await;
    let data = members.home(reverted).root().join("data");
    fs::remove_dir_all(&data).expect("there is a store");
    copy(&snapshot.path().join("data"), members.home(reverted).root());
    for _ in 0..3 {
        members.start(reverted, &[]);
        sleep(Duration::from_secs(2)).await;
        members.kill(reverted).await;
    }
    members.start(reverted, &[]);
    let name = members.name(reverted).to_owned();
    let found = || async {
        [leader, other].iter().any(|number| {
            let log = fs::read_to_string(members.log(*number)).unwrap_or_default();
            log.contains("a member has lost what it had") && log.contains(&name)
        })
    };
    members.until("somebody notices what it lacks", found).await;
    // The two others go on; with one of them gone the third is alone, and elects nobody with it.
    let height = members.height().await;
    members.reach(height + 5).await;
    members.kill(leader).await;
    sleep(A_WHILE).await;
    let height = members.height_of(other).await;
    sleep(A_WHILE).await;
    assert_eq!(members.height_of(other).await, height, "a block was committed with a disk that lacks others");
    members.kill(reverted).await;
    members.start(leader, &[]);
    members.until("the two go on", || async { members.height_of(other).await > height + 5 }).await;
    load.stop().await;
}

fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").args([from, to]).status().expect("cp runs");
    assert!(copied.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_grows_to_three_and_to_five_under_load_and_shrinks_back() {
    let mut members = Members::new(Wish { later: 4, ..Wish::of(1, &TIMES) }).await;
    members.start_all().await;
    let load = clients(&members);
    for (new, names) in [([1, 2], ["n1", "n2"]), ([3, 4], ["n3", "n4"])] {
        for number in new {
            members.start(number, &[]);
        }
        for number in new {
            joined(&members, number).await;
        }
        let leader = members.leader().await;
        let promote = [&["cluster", "promote"], &names[..]].concat();
        let (code, said) = members.command(leader, &promote).await;
        assert_eq!(code, Some(0), "{said}");
    }
    let voters = members.get(0, "/raft/node").await.expect("it answers")["voters"].clone();
    assert_eq!(voters.as_array().map(Vec::len), Some(5), "{voters}");
    let leader = members.leader().await;
    members.kill(leader).await;
    successor(&members, leader).await;
    members.start(leader, &[]);
    for gone in [3, 4] {
        let leader = match members.leader().await {
            leader if leader == gone => {
                let (code, said) = members.command(leader, &["handoff", "--to", "n1"]).await;
                assert_eq!(code, Some(0), "{said}");
                successor(&members, leader).await
            }
            leader => leader,
        };
        let name = members.name(gone).to_owned();
        let (code, said) = members.command(leader, &["cluster", "remove", &name]).await;
        assert_eq!(code, Some(0), "{said}");
        members.terminate(gone).await;
    }
    let height = members.height().await;
    members.reach(height + 5).await;
    load_without(members, load).await;
}

/// The clients ask those who are left; the ones that are gone keep what they were told only if it
/// had gone on to a leader, so their queues were empty when they left.
async fn load_without(mut members: Members, load: Load) {
    load.stop().await;
    let found = members.verify().await;
    assert!(found.acknowledged > 5, "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_under_load_loses_nothing_and_misses_no_slot_it_need_not() {
    let mut members = Members::new(Wish::of(3, &TIMES)).await;
    members.start_all().await;
    let load = clients(&members);
    for _ in 0..2 {
        for number in 0..3 {
            members.terminate(number).await;
            members.start(number, &[]);
            members
                .until("it is level", || async {
                    members.height_of(number).await + 3 >= members.height().await
                })
                .await;
        }
    }
    heals(members, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_witness_and_two_machines_survive_the_loss_of_either() {
    let mut members = Members::new(Wish { witnesses: vec![2], ..Wish::of(3, &TIMES) }).await;
    members.start_all().await;
    let load = clients(&members);
    for _ in 0..2 {
        let leader = members.leader().await;
        assert_ne!(leader, 2, "a witness produces");
        members.kill(leader).await;
        let next = successor(&members, leader).await;
        assert_ne!(next, 2, "a witness produces");
        members.start(leader, &[]);
        members
            .until("it is level", || async { members.height_of(leader).await + 3 >= members.height().await })
            .await;
    }
    heals(members, load).await;
}
