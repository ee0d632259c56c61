//! Full nodes as real processes: they follow a single node and a cluster from DA.
#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

use std::time::Duration;

use baton_messages::types::{Hash, Height};
use serde_json::json;
use sim::process::{Follower, Load, Members, Site, Wish, hashes, peer_address};
use tokio::time::sleep;

const FAST: [&str; 4] = ["--evnode.node.block_time", "100ms", "--evnode.da.block_time", "1s"];
/// Times of a cluster that elects nobody anew while the machine is busy with other tests.
const CALM: [&str; 6] = [
    "--raft.heartbeat_interval",
    "150ms",
    "--raft.election_timeout_min",
    "700ms",
    "--raft.election_timeout_max",
    "1400ms",
];
const FOLLOW: [&str; 2] = ["--evnode.da.block_time", "1s"];

/// Both have the same header at every height that the follower has, and that is many.
fn same(followed: &[(Height, Hash)], chain: &[(Height, Hash)], at_least: usize) {
    assert!(followed.len() >= at_least, "{} blocks were followed", followed.len());
    assert_eq!(followed, &chain[..followed.len()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_node_follows_a_single_node_from_da_through_restarts_of_either_side() {
    let site = Site::new(&FAST).await;
    let mut node = site.started().await;
    let (code, why) = site.post("before=1", "executed").await;
    assert_eq!(code, 200, "{why}");
    let mut follower = Follower::new(&site.home.genesis(), &site.da_url(), &FOLLOW).await;
    follower.start();
    // The third block is asked for below.
    follower.reach(site.height().await.max(3)).await;
    assert_eq!(follower.kv("/kv?key=before").await, (200, "1".to_owned()));

    // Its RPC answers as the other's does.
    let request = json!({"height": "3"});
    let ours = follower.store_service("GetBlock", &request).await;
    assert_eq!(ours["block"], site.store_service("GetBlock", &request).await["block"]);
    assert!(ours["headerDaHeight"].is_string(), "{ours}");
    let raft = follower.get("/raft/node").await.expect("it answers");
    assert_eq!((&raft["is_leader"], &raft["role"]), (&json!(false), &json!("da")));
    let (code, why) = follower.post("a=1").await;
    assert_eq!(code, 503, "{why}");
    assert!(why.contains("follows the chain"), "{why}");
    let metrics = follower.metrics().await;
    assert!(metrics.contains("sync_blocks_synchronized_total"), "{metrics}");

    for round in 0..2 {
        follower.kill().await;
        site.post(&format!("round{round}=1"), "executed").await;
        node.kill().await;
        follower.start();
        node = site.started().await;
        sleep(Duration::from_millis(500)).await;
        follower.terminate().await;
        follower.start();
        let (code, _) = site.post(&format!("round{round}=2"), "executed").await;
        assert_eq!(code, 200);
        follower.reach(site.height().await).await;
        assert_eq!(follower.kv(&format!("/kv?key=round{round}")).await, (200, "2".to_owned()));
    }
    site.until("blocks enough to compare", || async { site.height().await >= 60 }).await;
    follower.reach(60).await;
    follower.until("readiness", || async { follower.unready().await.is_empty() }).await;
    follower.terminate().await;
    site.drain().await;
    assert_eq!(node.terminate().await, Some(0));
    same(&follower.hashes(), &hashes(&site.home, &site.genesis()), 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_node_catches_up_over_a_thousand_blocks_and_says_how_far_it_is() {
    let site = Site::new(&["--evnode.node.block_time", "10ms", "--evnode.da.block_time", "1s"]).await;
    let node = site.started().await;
    let load = Load::over(&[site.kv_url()], &site.oracle, 2, Duration::from_millis(20));
    // As long as it makes blocks at all: how fast depends on what else the machine does.
    let mut height = 0;
    while height < 1_000 {
        site.until("more blocks", || async { site.height().await > height }).await;
        height = site.height().await;
        sleep(Duration::from_millis(500)).await;
    }
    load.stop().await;
    site.drain().await;
    let goal = 1_000;
    let mut follower = Follower::new(&site.home.genesis(), &site.da_url(), &FOLLOW).await;
    follower.start();
    // Killed in the middle, and on it goes.
    follower
        .until("some blocks", || async { follower.status().await["tip"]["height"].as_u64() > Some(200) })
        .await;
    follower.kill().await;
    follower.start();
    follower.reach(goal).await;
    let metrics = follower.metrics().await;
    assert!(metrics.contains("blocks_left") && metrics.contains("seconds_left"), "{metrics}");
    follower.terminate().await;

    // One that is not killed says when it begins and when it is done, however soon that is.
    let mut another = Follower::new(&site.home.genesis(), &site.da_url(), &FOLLOW).await;
    another.start();
    another.reach(goal).await;
    let read = || std::fs::read_to_string(another.log()).unwrap_or_default();
    another.until("the end of the catch-up", || async { read().contains("caught up") }).await;
    let log = read();
    let line = |what: &str| log.lines().find(|line| line.contains(what)).unwrap_or_default().to_owned();
    assert!(line("catching up").contains("blocks_left"), "{log}");
    assert!(line("caught up").contains("blocks_per_second"), "{log}");
    another.terminate().await;
    assert_eq!(node.terminate().await, Some(0));
    let chain = hashes(&site.home, &site.genesis());
    same(&follower.hashes(), &chain, 1_000);
    same(&another.hashes(), &chain, 1_000);
}

/// It is connected to one member only, which does not lead: what the leader tells comes over the
/// members, who know each other without being told by anybody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_node_hears_the_leader_over_a_member_that_does_not_lead() {
    let mut members = Members::new(Wish::of(3, &[&FAST[..], &CALM].concat())).await;
    members.start_all().await;
    let load = Load::over(&members.kv_urls(), &members.oracle, 1, Duration::from_millis(50));
    let leader = members.leader().await;
    let near = (leader + 1) % 3;
    let peer = peer_address(&reqwest::Client::new(), &members.rpc_url(near)).await;
    let place = [("--p2p.peers", peer.as_str())];
    let mut follower = Follower::of(&members.home(0).genesis(), &place, &[]).await;
    follower.start();
    follower.execute(members.height_of(leader).await + 20).await;
    // Blocks alone would not show it: they can be asked of the member. Nobody but the leader tells.
    follower
        .until("gossip of the leader", || async {
            follower.metrics().await.lines().any(|line| {
                let gossip = line.starts_with("evnode_p2p_gossip_total") && line.contains("accept");
                gossip && !line.ends_with(" 0")
            })
        })
        .await;
    assert_eq!(members.leader().await, leader, "it is the leader's gossip that was heard");
    members.kill(leader).await;
    let next = members.leader().await;
    let goal = members.height_of(next).await + 20;
    members.reach(goal).await;
    follower.execute(goal).await;
    members.start(leader, &[]);
    load.stop().await;
    follower.terminate().await;
    let found = members.verify().await;
    assert!(found.blocks > 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_node_follows_a_cluster_whose_leaders_are_killed() {
    let mut members = Members::new(Wish::of(3, &[&FAST[..], &CALM].concat())).await;
    members.start_all().await;
    let mut follower = Follower::new(&members.home(0).genesis(), &members.da_url(), &FOLLOW).await;
    follower.start();
    let load = Load::over(&members.kv_urls(), &members.oracle, 2, Duration::from_millis(20));
    for _ in 0..3 {
        let leader = members.leader().await;
        let before = members.height_of(leader).await;
        members.kill(leader).await;
        members.reach(before + 5).await;
        members.start(leader, &[]);
        follower.reach(before).await;
    }
    members.reach(40).await;
    load.stop().await;
    members.drain().await;
    follower.reach(members.height().await).await;
    assert_eq!(follower.status().await["follow"]["evidence"], json!(0), "one chain is seen from outside");
    follower.terminate().await;
    let genesis = baton::genesis::load(&members.home(0).genesis()).expect("there is one");
    members.verify().await;
    same(&follower.hashes(), &hashes(members.home(0), &genesis), 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_another_mode_or_chain_is_refused_with_a_reason() {
    let site = Site::new(&FAST).await;
    let node = site.started().await;
    site.until("blocks", || async { site.height().await > 2 }).await;
    site.drain().await;
    assert_eq!(node.terminate().await, Some(0));
    // The producer's home, told to follow.
    let mut producer = site.start(&[("BATON_NODE_AGGREGATOR", "false".to_owned())]);
    let ended = producer.ended(Duration::from_secs(30)).await.expect("it does not run");
    assert_eq!(ended.code(), Some(78), "{}", site.tail());
    assert!(site.tail().contains("belongs to a node that produces blocks"), "{}", site.tail());

    // The follower's store under the producer's settings.
    let mut follower = Follower::new(&site.home.genesis(), &site.da_url(), &FOLLOW).await;
    follower.start();
    follower.reach(2).await;
    follower.terminate().await;
    std::fs::remove_dir_all(site.home.store()).expect("it is there");
    std::fs::rename(follower.home.store(), site.home.store()).expect("the same file system");
    let mut node = site.start(&[]);
    let ended = node.ended(Duration::from_secs(30)).await.expect("it does not run");
    assert_eq!(ended.code(), Some(78), "{}", site.tail());
    assert!(site.tail().contains("belongs to a node that follows the chain"), "{}", site.tail());

    // Another chain's genesis over the follower's store.
    std::fs::rename(site.home.store(), follower.home.store()).expect("the same file system");
    let genesis = std::fs::read_to_string(follower.home.genesis()).expect("init took it over");
    let other = genesis.replace("\"chaos\"", "\"other\"");
    assert_ne!(genesis, other);
    std::fs::write(follower.home.genesis(), other).expect("it can be written");
    follower.start();
    assert_eq!(follower.ended().await, Some(78), "{}", follower.tail());
    assert!(follower.tail().contains("the store belongs to chain \"chaos\""), "{}", follower.tail());
}
