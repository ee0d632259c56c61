//! Nodes that do not belong here: another authority, another cluster with the same key.

use super::*;

/// Waits until somebody's log has all of these words in one line.
async fn is_said(members: &Members, by: impl Fn() -> Vec<usize>, words: &[&str]) {
    members
        .until(&format!("{words:?} in a log"), || async {
            by().into_iter().any(|number| {
                let log = fs::read_to_string(members.log(number)).unwrap_or_default();
                log.lines().any(|line| words.iter().all(|word| line.contains(word)))
            })
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_with_a_certificate_of_another_authority_is_alone_until_it_has_the_right_one() {
    let mut members = Members::new(Wish { tls: true, ..Wish::of(3, &TIMES) }).await;
    members.start_all().await;
    let load = clients(&members);
    let leader = members.leader().await;
    let stranger = (leader + 1) % 3;
    members.terminate(stranger).await;
    members.certify_elsewhere(stranger).await;
    members.start(stranger, &[]);
    // Both sides say so, and the others go on.
    is_said(&members, || vec![stranger], &["certificate"]).await;
    is_said(&members, || (0..3).filter(|number| *number != stranger).collect(), &["certificate"]).await;
    let height = members.height().await;
    members.reach(height + 10).await;
    assert!(members.height_of(stranger).await < height, "it follows without a certificate");
    let known = members.get(stranger, "/raft/node").await.expect("it answers");
    assert_ne!(known["role"], "leader", "{known}");
    // A right one: everybody gets one of a new authority, one member after the other would do too.
    members.terminate(stranger).await;
    members.recertify(stranger).await;
    members.start(stranger, &[]);
    members.until("it follows", || async { members.height_of(stranger).await > height + 10 }).await;
    heals(members, load).await;
}

/// A second cluster from the same genesis and key, started by mistake: it is another cluster, and
/// neither takes anything from the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stray_node_with_the_same_key_joins_nobody_and_disturbs_nobody() {
    let mut members = Members::new(Wish { later: 1, ..Wish::of(3, &TIMES) }).await;
    members.start_all().await;
    let load = clients(&members);
    // The fourth home has genesis and key of the others, and makes a cluster of its own.
    let alone = ["--raft.join", "", "--evnode.da.address", "http://127.0.0.1:9"];
    members.set_flags(3, &alone);
    members.found_alone(3).await;
    members.start(3, &[]);
    members
        .until("the stray node makes blocks of its own", || async { members.height_of(3).await > 5 })
        .await;
    let ours = members.get(0, "/raft/node").await.expect("it answers");
    let strays = members.get(3, "/raft/node").await.expect("it answers");
    assert_ne!(ours["cluster_id"], strays["cluster_id"]);
    // An operator who adds it is refused with the reason.
    let leader = members.leader().await;
    let added = format!("n3@{}", members.cluster_address(3));
    let (code, said) = members.command(leader, &["cluster", "add", &added]).await;
    assert!(code == Some(64) && said.contains("cluster"), "{code:?} {said}");
    // Told to join, it stays what it is: a store belongs to one cluster for ever.
    members.terminate(3).await;
    members.set_flags(3, &alone[2..]);
    members.start(3, &[]);
    let height = members.height_of(leader).await;
    members.reach(height + 20).await;
    let voters = members.get(leader, "/raft/node").await.expect("it answers");
    assert_eq!(voters["voters"].as_array().map(Vec::len), Some(3), "{voters}");
    assert_eq!(voters["learners"].as_array().map(Vec::len), Some(0), "{voters}");
    members.kill(3).await;
    members.set_flags(3, &[]);
    members.replace_disk(3).await;
    heals(members, load).await;
}
