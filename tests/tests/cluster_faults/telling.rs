//! How soon a member tells what has changed.

use baton_actors::journal::{self, Event};
use sim::process::Stalls;

use super::*;

/// S21: what `/raft/node` says is true this soon after a change, on a machine that does not stall.
const SOON: Duration = Duration::from_millis(100);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// A wall clock, as the record of events has one.
fn now() -> Duration {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("after 1970")
}

/// The leader of this term or a later one, as a member tells it, with the moment when it was told.
async fn told(members: &Members, number: usize, after: u64) -> (String, u64, Duration) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let known = members.get(number, "/raft/node").await.unwrap_or_default();
        let (name, term) = (known["leader"]["name"].as_str(), known["leader"]["term"].as_u64());
        if let (Some(name), Some(term)) = (name, term.filter(|term| *term > after)) {
            return (name.to_owned(), term, now());
        }
        assert!(Instant::now() < deadline, "n{number} names no new leader for a minute");
        sleep(LOOK).await;
    }
}

/// When a member put on record that this term has this leader.
async fn recorded(members: &Members, number: usize, term: u64) -> Duration {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let lines = journal::read(&members.home(number).events()).expect("a record");
        let line = lines.iter().find(|line| match &line.event {
            Event::Leadership { term: known, .. } => known.0 == term,
            _ => false,
        });
        if let Some(line) = line {
            return Duration::from_nanos(line.time.0);
        }
        assert!(Instant::now() < deadline, "n{number} has no line for term {term}");
        sleep(LOOK).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_member_names_a_new_leader_within_a_tenth_of_a_second_of_knowing_it() {
    let mut members = Members::new(Wish::of(3, &TIMES)).await;
    members.start_all().await;
    let stalls = Stalls::watch();
    let mut late = vec![];
    for round in 0..6 {
        let leader = members.leader().await;
        let known = members.get(leader, "/raft/node").await.expect("it answers");
        let term = known["term"].as_u64().expect("a term");
        let others = [(leader + 1) % 3, (leader + 2) % 3];
        let began = Instant::now();
        if round % 2 == 0 {
            members.kill(leader).await;
        } else {
            let (code, said) = members.command(leader, &["handoff"]).await;
            assert_eq!(code, Some(0), "{said}");
        }
        let (one, other) = tokio::join!(told(&members, others[0], term), told(&members, others[1], term));
        for (number, (name, term, at)) in others.into_iter().zip([one, other]) {
            let known = recorded(&members, number, term).await;
            assert!(!name.is_empty());
            late.push((at.saturating_sub(known), stalls.since(began)));
        }
        if round % 2 == 0 {
            members.start(leader, &[]);
        }
        let height = members.height().await;
        members
            .until("everybody is level", || async {
                for number in 0..3 {
                    if members.height_of(number).await < height {
                        return false;
                    }
                }
                true
            })
            .await;
    }
    late.sort_unstable();
    println!("ms from knowing a leader to naming it, and what the machine stalled: {late:?}");
    let slow = late.iter().filter(|(late, stalled)| *late > SOON + LOOK + *stalled * 4).count();
    assert!(slow == 0, "{slow} of {late:?}");
}
