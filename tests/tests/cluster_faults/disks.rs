//! Disks that hang, are full, lost, copied or old.

use super::*;

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
