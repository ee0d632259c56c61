//! A real node is killed at every fail point and at random moments, and loses nothing.
#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use baton_messages::types::Tx;
use bytes::Bytes;
use futures::FutureExt;
use rustix::process::Signal;
use sim::Ack;
use sim::process::{Child, Follower, Found, Load, Site, check_guard, fail_points, hashes, verify};
use tokio::time::{Instant, sleep};

/// Kills at each fail point, at least; more with `BATON_KILLS`.
const KILLS: usize = 5;
/// The counts at which a place kills, in turn: early in a life and in full swing.
const COUNTS: [u64; 5] = [1, 3, 2, 9, 20];
/// How long a node may run before it must have come to the place that kills it.
const PATIENCE: Duration = Duration::from_secs(20);

/// Blocks every 20 ms, an election at once, snapshots and purges all the time.
const FAST: [&str; 14] = [
    "--evnode.node.block_time",
    "20ms",
    "--evnode.da.block_time",
    "400ms",
    "--raft.heartbeat_interval",
    "10ms",
    "--raft.election_timeout_min",
    "40ms",
    "--raft.election_timeout_max",
    "80ms",
    "--evnode.raft.snapshot_threshold",
    "12",
    "--evnode.raft.trailing_logs",
    "4",
];

/// As often as the chain's DA layer has blocks.
const FOLLOWING: [&str; 2] = ["--evnode.da.block_time", "400ms"];

/// How often a place is passed in one life, which decides how a node is brought to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    /// All the time, under load.
    Often,
    /// Once, when a node starts.
    AtStart,
    /// Once, when a node stops.
    AtStop,
    /// When a store whose disk has failed is opened again.
    AtReopening,
    /// All the time, by a node that follows a chain.
    Following,
}

fn pass_of(place: &str) -> Pass {
    match place {
        "node.store_opened" | "node.before_actors" | "storage.vote_after_sync" => Pass::AtStart,
        "node.before_close" | "node.after_close" => Pass::AtStop,
        "storage.reopening" => Pass::AtReopening,
        "storage.before_follow" | "storage.after_follow" => Pass::Following,
        _ => Pass::Often,
    }
}

/// One life: it ends at this place, when it is passed for the count-th time. Says whether it did.
async fn die_at(site: &Site, place: &str, count: u64) -> bool {
    let pass = pass_of(place);
    let count = if pass == Pass::Often { count } else { 1 };
    let mut env = vec![("BATON_KILL_AT", format!("{place}:{count}"))];
    if pass == Pass::AtReopening {
        env.push(("FAILPOINTS", "storage.fsync_error=30*off->1*return->off".to_owned()));
    }
    let mut node = site.start(&env);
    if pass == Pass::AtStop {
        live(site, &mut node, Duration::from_millis(300)).await;
        node.signal(Signal::TERM);
    }
    match node.ended(PATIENCE).await {
        Some(status) => {
            assert_eq!(status.signal(), Some(9), "{place}:{count} ended as {status}:\n{}", site.tail());
            true
        }
        None => {
            node.kill().await;
            false
        }
    }
}

/// Lets a node start and run for a while.
async fn live(site: &Site, node: &mut Child, time: Duration) {
    let began = Instant::now();
    while site.status().await.is_none() {
        assert_eq!(node.has_ended(), None, "{}", site.tail());
        assert!(began.elapsed() < PATIENCE, "the node does not answer:\n{}", site.tail());
        sleep(Duration::from_millis(5)).await;
    }
    sleep(time).await;
}

/// The check of issue and design: every place, several times each, and random moments between;
/// then everything comes to rest, and store, DA layer, guard, record and clients must agree.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_fail_point_and_at_random_moments_it_loses_nothing() {
    let mut places = fail_points();
    places.retain(|place| pass_of(place) != Pass::Following);
    assert!(places.len() >= 20, "only {} fail points", places.len());
    let kills = std::env::var("BATON_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(KILLS);
    let began = Instant::now();
    let site = Site::new(&FAST).await;
    let load = Load::start(&site.kv_url(), &site.oracle, 3, Duration::from_millis(8));
    let mut died: BTreeMap<&str, usize> = BTreeMap::new();
    let mut random = 0;
    for round in 0..kills {
        for (number, place) in places.iter().enumerate() {
            let count = COUNTS[round % COUNTS.len()];
            if die_at(&site, place, count).await || die_at(&site, place, 1).await {
                *died.entry(place).or_default() += 1;
            }
            check_guard(&site.home);
            if (number + round) % 4 == 0 {
                let mut node = site.start(&[]);
                let time = Duration::from_millis(rand::random::<u64>() % 400);
                match rand::random() {
                    true => live(&site, &mut node, time).await,
                    false => sleep(time).await,
                }
                node.kill().await;
                random += 1;
                check_guard(&site.home);
            }
        }
    }
    let missed: BTreeSet<_> =
        places.iter().filter(|place| died.get(place.as_str()).copied().unwrap_or(0) < kills).collect();
    assert!(missed.is_empty(), "places that were not passed {kills} times: {missed:?}\n{}", site.tail());

    let node = site.started().await;
    load.stop().await;
    site.drain().await;
    assert_eq!(node.terminate().await, Some(0));
    let found = verify(&site).await;
    let took = began.elapsed().as_secs();
    println!(
        "{} fail points, {} kills there, {random} elsewhere, {took} s; {found:?}",
        places.len(),
        died.values().sum::<usize>()
    );
    assert!(found.acknowledged > 500 && found.blocks > 500, "hardly anything was tested: {found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_node_killed_where_it_writes_what_it_follows_has_the_same_chain_without_a_gap() {
    let mut places = fail_points();
    places.retain(|place| pass_of(place) == Pass::Following);
    assert!(!places.is_empty(), "nobody writes what it follows");
    let site = Site::new(&FAST).await;
    let node = site.started().await;
    let load = Load::start(&site.kv_url(), &site.oracle, 2, Duration::from_millis(20));
    let mut follower = Follower::new(&site.home.genesis(), &site.da_url(), &FOLLOWING).await;
    for count in COUNTS {
        for place in &places {
            follower.start_with(&[("BATON_KILL_AT", format!("{place}:{count}"))]);
            assert_eq!(follower.ended().await, None, "{place}:{count} did not kill it:\n{}", follower.tail());
        }
    }
    load.stop().await;
    site.drain().await;
    let height = site.height().await;
    follower.start();
    follower.reach(height).await;
    follower.terminate().await;
    assert_eq!(node.terminate().await, Some(0));
    let (followed, chain) = (follower.hashes(), hashes(&site.home, &site.genesis()));
    assert!(followed.len() as u64 >= height, "{} of {height} blocks", followed.len());
    assert_eq!(followed, chain[..followed.len()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_to_stop_under_load_it_exits_with_0_and_loses_nothing() {
    let site = Site::new(&["--evnode.node.block_time", "50ms", "--evnode.da.block_time", "400ms"]).await;
    let load = Load::start(&site.kv_url(), &site.oracle, 8, Duration::ZERO);
    for _ in 0..3 {
        let before = load.acknowledged();
        let node = site.started().await;
        site.until("transactions", || async { load.acknowledged() > before + 100 }).await;
        assert_eq!(node.terminate().await, Some(0), "{}", site.tail());
        assert!(!site.tail().contains("raft stopped"), "a clean stop is no error:\n{}", site.tail());
        check_guard(&site.home);
    }
    let node = site.started().await;
    load.stop().await;
    site.drain().await;
    assert_eq!(node.terminate().await, Some(0));
    let Found { acknowledged, .. } = verify(&site).await;
    assert!(acknowledged > 300);
}

#[tokio::test]
async fn told_to_stop_at_any_moment_it_exits_with_0() {
    let site = Site::new(&FAST).await;
    for _ in 0..15 {
        let mut node = site.start(&[]);
        live(&site, &mut node, Duration::from_millis(rand::random::<u64>() % 200)).await;
        assert_eq!(node.terminate().await, Some(0), "{}", site.tail());
        let tail = site.tail();
        assert!(!tail.contains("network adapter has ended"), "leaving the network is no fault:\n{tail}");
        check_guard(&site.home);
    }
}

#[tokio::test]
async fn interrupted_from_the_keyboard_it_exits_with_0() {
    let site = Site::new(&FAST).await;
    let mut node = site.started().await;
    node.signal(Signal::INT);
    let ended = node.ended(Duration::from_secs(30)).await;
    assert_eq!(ended.and_then(|status| status.code()), Some(0), "{}", site.tail());
    check_guard(&site.home);
}

#[tokio::test]
async fn a_guard_that_contradicts_the_chain_stops_the_node_with_70() {
    use baton_actors::signer::FileGuard;
    use baton_actors::signer::guard::{Guard, GuardStore};
    use baton_actors::signer::slot::{ChainId, Verdict, judge};
    use baton_messages::types::Hash;

    let site = Site::new(&["--evnode.node.block_time", "50ms"]).await;
    let node = site.started().await;
    site.until("a few blocks", || async {
        site.status().await.is_some_and(|status| status["tip"]["height"].as_u64() > Some(5))
    })
    .await;
    assert_eq!(node.terminate().await, Some(0));
    let Verdict::Rules { record, .. } = judge(&FileGuard::peek(&site.home.guard()).expect("readable")) else {
        panic!("there is a guard")
    };
    let whole = std::fs::read(site.home.guard()).expect("readable");
    let other_chain = ChainId { name: "other".to_owned(), ..record.chain.clone() };
    let cases = [
        (&record.chain, Hash::of(b"another header"), "the guard holds"),
        (&other_chain, record.hash, "the guard is for chain \"other\""),
    ];
    for (chain, hash, reason) in cases {
        let contradicting = Guard::at(chain, record.height, hash, record.term).expect("short names");
        FileGuard::open(&site.home.guard())
            .and_then(|mut file| file.create(&contradicting.record().encode()))
            .expect("the node has stopped");
        let ended = site.start(&[]).ended(Duration::from_secs(30)).await;
        assert_eq!(ended.and_then(|status| status.code()), Some(70), "{}", site.tail());
        let tail = site.tail();
        let last = tail.lines().last().unwrap_or_default();
        assert!(last.starts_with("baton: ") && last.contains(reason), "{tail}");
    }
    std::fs::write(site.home.guard(), whole).expect("writable");
    let node = site.started().await;
    assert_eq!(node.terminate().await, Some(0));
}

#[tokio::test]
async fn a_store_in_use_and_a_taken_port_are_worth_another_try() {
    let site = Site::new(&["--evnode.node.block_time", "50ms"]).await;
    let node = site.started().await;
    let second = site.start(&[]).ended(Duration::from_secs(30)).await;
    assert_eq!(second.and_then(|status| status.code()), Some(75), "{}", site.tail());
    assert!(site.tail().contains("in use by another process"), "{}", site.tail());
    assert_eq!(node.terminate().await, Some(0));

    for url in [site.rpc_url(), site.kv_url()] {
        let address = url.trim_start_matches("http://").to_owned();
        let holder = std::net::TcpListener::bind(&address).expect("the node has left it");
        let refused = site.start(&[]).ended(Duration::from_secs(30)).await;
        assert_eq!(refused.and_then(|status| status.code()), Some(75), "{}", site.tail());
        assert!(site.tail().contains(&address), "the taken port is named:\n{}", site.tail());
        drop(holder);
    }
    let node = site.started().await;
    assert_eq!(node.terminate().await, Some(0), "the port is free again");
}

/// Whether the checks find something wrong.
async fn is_refused(site: &Site) -> bool {
    std::panic::AssertUnwindSafe(verify(site)).catch_unwind().await.is_err()
}

#[tokio::test]
async fn the_checks_find_what_is_wrong() {
    let site = Site::new(&["--evnode.node.block_time", "50ms", "--evnode.da.block_time", "400ms"]).await;
    let load = Load::start(&site.kv_url(), &site.oracle, 1, Duration::from_millis(5));
    let node = site.started().await;
    let young_guard = std::fs::read(site.home.guard()).expect("readable");
    site.until("transactions", || async { load.acknowledged() > 50 }).await;
    load.stop().await;
    site.drain().await;
    assert_eq!(node.terminate().await, Some(0));
    let found = verify(&site).await;
    assert!(found.blocks > 2 && found.acknowledged > 50 && found.signed > 2 && found.blobs > 2, "{found:?}");

    let audit = std::fs::read_to_string(site.home.audit()).expect("readable");
    let last = audit.lines().last().expect("something was signed");
    let hash = last.split("\"hash\":\"").nth(1).and_then(|rest| rest.get(..64)).expect("the line has a hash");
    let sibling = last.replace(hash, &"ab".repeat(32));
    std::fs::write(site.home.audit(), format!("{audit}{sibling}\n")).expect("writable");
    assert!(is_refused(&site).await, "two headers of one height were signed");
    std::fs::write(site.home.audit(), audit).expect("writable");

    let guard = std::fs::read(site.home.guard()).expect("readable");
    std::fs::write(site.home.guard(), young_guard).expect("writable");
    assert!(is_refused(&site).await, "the guard is behind");
    std::fs::write(site.home.guard(), guard).expect("writable");

    verify(&site).await;
    site.oracle.told(&Tx(Bytes::from_static(b"lost=1")), Ack::Accepted);
    assert!(is_refused(&site).await, "an acknowledged transaction is lost");
}
