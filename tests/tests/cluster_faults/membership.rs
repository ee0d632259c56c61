//! Growing and shrinking, restarts one after the other, witnesses.

use super::*;

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
    members
        .until("the first of them knows of five voters", || async {
            let node = members.get(0, "/raft/node").await.unwrap_or_default();
            node["voters"].as_array().is_some_and(|voters| voters.len() == 5)
        })
        .await;
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

/// Both machines with an engine die while the witness alone has the last entries: it must lead for
/// a moment, and may not produce.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_witness_that_alone_has_the_last_entry_brings_it_to_the_others_and_makes_no_block() {
    let mut members = Members::new(Wish { witnesses: vec![2], links: true, ..Wish::of(3, &TIMES) }).await;
    members.start_all().await;
    let load = clients(&members);
    for _ in 0..2 {
        let leader = members.leader().await;
        let other = 1 - leader;
        // The other machine is cut off: what is committed now is here and on the witness.
        let before = members.height_of(other).await;
        members.isolate(other, Weather { cut: true, ..Weather::default() });
        members.reach(before + 10).await;
        let witnessed = members.height_of(2).await;
        assert!(witnessed > before + 3, "the witness has {witnessed}, the other {before}");
        members.kill(leader).await;
        members.isolate(other, Weather::default());
        members
            .until("the other machine has everything and produces", || async {
                does_lead(&members, other).await && members.height_of(other).await > witnessed + 5
            })
            .await;
        let known = members.get(2, "/raft/node").await.expect("the witness answers");
        assert_eq!((&known["producing"], &known["eligible"]), (&false.into(), &false.into()), "{known}");
        members.start(leader, &[]);
        members
            .until("it is level", || async { members.height_of(leader).await + 3 >= members.height().await })
            .await;
    }
    heals(members, load).await;
}

/// No member has executed what is committed: nobody produces before somebody has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_all_engines_are_behind_somebody_catches_up_first_and_then_produces() {
    let mut members = Members::new(Wish::of(3, &TIMES)).await;
    members.start_all().await;
    let load = clients(&members);
    // What is not on DA is not final, and may be taken back.
    members.end_da().await;
    let height = members.height().await;
    members.reach(height + 40).await;
    for number in 0..3 {
        members.kill(number).await;
    }
    for number in 0..3 {
        let (code, said) =
            members.command(number, &["rollback", "--height", &(height + 10).to_string()]).await;
        assert_eq!(code, Some(0), "{said}");
    }
    let tip = height + 40;
    members.start_da().await;
    for number in 0..3 {
        members.start(number, &[]);
    }
    let leader = members.leader().await;
    let status = members.status(leader).await.expect("it leads");
    let executed = status["supervisor"]["executed"].as_u64().unwrap_or(0);
    assert!(executed >= tip, "it leads and has executed {executed} of {tip}");
    heals(members, load).await;
}
