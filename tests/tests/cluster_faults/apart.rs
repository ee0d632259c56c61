//! Faults of real networks and file systems: members in network namespaces, lines that are cut in
//! one direction, narrow, slow; a file system without a free byte. What these need a machine may
//! not allow; the other modules have the same faults in a form that always runs.

use std::io::Write;
use std::sync::Arc;

use sim::process::{Apart, Namespaces};

use super::*;

/// The test of this name, inside namespaces of its own; `None` outside.
async fn apart(test: &str) -> Option<(Members, Arc<Namespaces>, Load)> {
    if Apart::of(test) == Apart::Done {
        return None;
    }
    let namespaces = Arc::new(Namespaces::new(3));
    let wish = Wish { tls: true, apart: Some(namespaces.clone()), ..Wish::of(3, &TIMES) };
    let mut members = Members::new(wish).await;
    members.start_all().await;
    let load = clients(&members);
    Some((members, namespaces, load))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_that_are_thrown_away_in_one_direction_or_both_stop_nobody_for_long() {
    let test = "apart::packets_that_are_thrown_away_in_one_direction_or_both_stop_nobody_for_long";
    let Some((members, nets, load)) = apart(test).await else { return };
    // Both directions: the leader is in the minority.
    let leader = members.leader().await;
    let others: Vec<usize> = (0..3).filter(|number| *number != leader).collect();
    for other in &others {
        nets.silence(leader, *other);
        nets.silence(*other, leader);
    }
    let next = successor(&members, leader).await;
    let frozen = members.height_of(leader).await;
    let height = members.height_of(next).await;
    members.reach(height + 10).await;
    assert!(members.height_of(leader).await <= frozen + 1, "it made blocks without a quorum");
    members
        .until("it says why, without a quorum", || async {
            let (code, reason) = members.answer(leader, "/health/ready").await.unwrap_or_default();
            code == 503 && reason.contains("quorum")
        })
        .await;
    for other in &others {
        nets.hear(leader, *other);
        nets.hear(*other, leader);
    }
    let height = members.height().await;
    members.until("the old leader follows", || async { members.height_of(leader).await > height + 5 }).await;
    // One direction: what others send to the leader is lost.
    let leader = members.leader().await;
    let others: Vec<usize> = (0..3).filter(|number| *number != leader).collect();
    others.iter().for_each(|other| nets.silence(*other, leader));
    let next = successor(&members, leader).await;
    let height = members.height_of(next).await;
    members.reach(height + 10).await;
    others.iter().for_each(|other| nets.hear(*other, leader));
    heals(members, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn narrow_slow_and_lossy_lines_are_served_or_halt_the_chain_safely() {
    let test = "apart::narrow_slow_and_lossy_lines_are_served_or_halt_the_chain_safely";
    let Some((members, nets, load)) = apart(test).await else { return };
    // A megabit carries blocks of this load and heartbeats beside them.
    (0..3).for_each(|number| nets.narrow(number, 1_000));
    let height = members.height().await;
    members.reach(height + 20).await;
    (0..3).for_each(|number| nets.clear(number));
    if (0..3).all(|number| nets.delay(number, 5, 1)) {
        let height = members.height().await;
        members.reach(height + 20).await;
        (0..3).for_each(|number| nets.clear(number));
        assert!((0..3).all(|number| nets.delay(number, 700, 0)));
        sleep(A_WHILE).await;
        let height = members.height().await;
        sleep(A_WHILE).await;
        assert!(members.height().await <= height + 1, "blocks are made without a quorum in time");
        (0..3).for_each(|number| nets.clear(number));
    } else {
        println!("this kernel has no netem: delay and loss are tested by proxies only");
    }
    heals(members, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_file_system_is_really_full_is_succeeded_and_comes_back() {
    let test = "apart::a_leader_whose_file_system_is_really_full_is_succeeded_and_comes_back";
    if Apart::of(test) == Apart::Done {
        return;
    }
    let _lo = Namespaces::new(0);
    let small = tempfile::tempdir().expect("a directory");
    let mut members = Members::new(Wish::of(3, &TIMES)).await;
    // Each on a file system of its own.
    for number in 0..3 {
        let place = small.path().join(number.to_string());
        fs::create_dir(&place).expect("a directory");
        let mut mount = std::process::Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", "size=320m", "tmpfs"]).arg(&place).status();
        assert!(mounted.is_ok_and(|status| status.success()), "the mount namespace is the test's own");
        members.move_home(number, &place.join("home"));
        // So large that the reserve alone, once it is given up, is not room enough.
        members.set_flags(number, &["--disk.min_free", "67108864"]);
    }
    members.start_all().await;
    let load = clients(&members);
    sleep(Duration::from_secs(2)).await;
    for _ in 0..2 {
        let leader = members.leader().await;
        let filler = small.path().join(leader.to_string()).join("filler");
        fill(&filler);
        let next = successor(&members, leader).await;
        let height = members.height_of(next).await;
        members.reach(height + 10).await;
        let (code, reason) = members.answer(leader, "/health/ready").await.expect("RPC answers");
        assert!(code == 503 && reason.contains("bytes are free") || reason.contains("storage"), "{reason}");
        fs::remove_file(&filler).expect("it was written");
        let height = members.height().await;
        members.until("it follows again", || async { members.height_of(leader).await > height + 5 }).await;
    }
    heals(members, load).await;
}

/// Writes until there is no room for one more byte.
fn fill(path: &Path) {
    let mut file = fs::File::create(path).expect("a file");
    for length in [1 << 20, 4 << 10, 1] {
        let piece = vec![7; length];
        while file.write_all(&piece).is_ok() {}
    }
}
