//! Baton and ev-node on one chain: either follows what the other produces, over DA.
//!
//! They run where `BATON_EVNODE` names ev-node's `testapp` (docs/interop.md says how it is built).
#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

use std::path::PathBuf;

use serde_json::{Value, json};
use sim::process::{EvNode, Follower, Members, Site, Wish};
use sim::skip;

/// Times of a cluster that elects nobody anew while the machine is busy with other tests.
const CALM: [&str; 6] = [
    "--raft.heartbeat_interval",
    "150ms",
    "--raft.election_timeout_min",
    "700ms",
    "--raft.election_timeout_max",
    "1400ms",
];
const TESTAPP: [&str; 2] = ["--engine.kv_roots", "testapp"];

/// ev-node's program, or a word about its absence.
fn evnode(check: &str) -> Option<PathBuf> {
    let program = EvNode::program();
    if program.is_none() {
        skip(check, "ev-node", "BATON_EVNODE does not name ev-node's testapp");
    }
    program
}

async fn ours(follower: &Follower, height: u64) -> Value {
    follower.store_service("GetBlock", &json!({"height": height.to_string()})).await["block"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_node_follows_ev_nodes_aggregator_from_da_through_restarts_of_either_side() {
    let check = "a_full_node_follows_ev_nodes_aggregator_from_da_through_restarts_of_either_side";
    let Some(program) = evnode(check) else { return };
    // The DA layer is ours; its site's node never starts.
    let site = Site::new(&[]).await;
    let url = site.da_url();
    let place = ["--evnode.da.address", &url, "--evnode.da.namespace", "interop"];
    let pace = [
        "--evnode.node.block_time",
        "100ms",
        "--evnode.node.scrape_interval",
        "100ms",
        "--evnode.da.block_time",
        "1s",
    ];
    let flags = [&place[..], &pace, &["--evnode.da.batching_strategy", "immediate"]].concat();
    let mut aggregator = EvNode::aggregator(&program, &flags).await;
    aggregator.start().await;
    for number in 0..20 {
        aggregator.post(&format!("k{number}=v{number}")).await;
    }
    let place = [("--da.address", url.as_str()), ("--da.namespace", "interop")];
    let flags = [&TESTAPP[..], &["--evnode.da.block_time", "1s"]].concat();
    let mut follower = Follower::of(&aggregator.genesis(), &place, &flags).await;
    follower.start();
    aggregator.until("blocks", || async { aggregator.height().await > 100 }).await;
    follower.reach(50).await;
    follower.kill().await;
    aggregator.stop().await;
    aggregator.start().await;
    aggregator.post("after=restart").await;
    follower.start();
    aggregator.until("blocks", || async { aggregator.height().await > 200 }).await;
    let goal = aggregator.height().await;
    follower.reach(goal).await;
    assert_eq!(follower.kv("/kv?key=k7").await, (200, "v7".to_owned()));
    assert_eq!(follower.kv("/kv?key=after").await, (200, "restart".to_owned()));
    let mut with_txs = 0;
    for height in 1..=goal {
        let (theirs, ours) = (aggregator.block(height).await, ours(&follower, height).await);
        assert!(theirs.is_object(), "height {height}");
        assert_eq!(ours, theirs, "height {height}");
        with_txs += u32::from(theirs["data"]["txs"].is_array());
    }
    assert!(with_txs >= 2, "blocks with transactions are followed too");
    follower.terminate().await;
    aggregator.stop().await;
}

/// Waits until ev-node's full node has a height, and compares it with ours from the first block on.
async fn follows(full: &EvNode, goal: u64, block: impl AsyncFn(u64) -> Value) {
    full.until("a height", || async { full.height().await >= goal }).await;
    for height in 1..=goal {
        let theirs = full.block(height).await;
        assert!(theirs.is_object(), "height {height}: {}", full.tail());
        assert_eq!(theirs, block(height).await, "height {height}");
    }
    let log = std::fs::read_to_string(full.log()).expect("it has a log");
    // Errors about our data would be errors of these parts of it.
    for line in log.lines().filter(|line| line.contains(" ERR ") || line.contains("\"level\":\"error\"")) {
        let ours = ["syncer", "da_retriever", "da_follower", "executor"];
        assert!(!ours.iter().any(|part| line.contains(&format!("component={part}"))), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ev_nodes_full_node_follows_a_node_from_da() {
    let Some(program) = evnode("ev_nodes_full_node_follows_a_node_from_da") else { return };
    let flags =
        [&TESTAPP[..], &["--evnode.node.block_time", "200ms", "--evnode.da.block_time", "1s"]].concat();
    let site = Site::new(&flags).await;
    let node = site.started().await;
    for number in 0..10 {
        let (code, why) = site.post(&format!("k{number}=v{number}"), "committed").await;
        assert_eq!(code, 200, "{why}");
    }
    let url = site.da_url();
    let place = [
        "--evnode.da.address",
        &url,
        "--evnode.da.namespace",
        "chaos-headers",
        "--evnode.da.data_namespace",
        "chaos-data",
    ];
    let flags = [&place[..], &["--evnode.da.block_time", "1s"]].concat();
    let mut full = EvNode::full(&program, &site.home.genesis(), &flags).await;
    full.start().await;
    site.until("blocks", || async { site.height().await >= 40 }).await;
    site.drain().await;
    let block = async |height: u64| {
        site.store_service("GetBlock", &json!({"height": height.to_string()})).await["block"].clone()
    };
    follows(&full, 40, block).await;
    full.stop().await;
    assert_eq!(node.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ev_nodes_full_node_follows_a_cluster_through_a_failover_from_da() {
    let Some(program) = evnode("ev_nodes_full_node_follows_a_cluster_through_a_failover_from_da") else {
        return;
    };
    let flags = [&TESTAPP[..], &["--evnode.node.block_time", "200ms", "--evnode.da.block_time", "1s"], &CALM]
        .concat();
    let mut members = Members::new(Wish::of(3, &flags)).await;
    members.start_all().await;
    let url = members.da_url();
    let place = [
        "--evnode.da.address",
        &url,
        "--evnode.da.namespace",
        "chaos-headers",
        "--evnode.da.data_namespace",
        "chaos-data",
    ];
    let flags = [&place[..], &["--evnode.da.block_time", "1s"]].concat();
    let mut full = EvNode::full(&program, &members.home(0).genesis(), &flags).await;
    full.start().await;
    full.until("blocks", || async { full.height().await >= 5 }).await;
    let leader = members.leader().await;
    let before = members.height_of(leader).await;
    members.kill(leader).await;
    members.reach(before + 10).await;
    members.start(leader, &[]);
    members.drain().await;
    let block = async |height: u64| {
        let url = format!("{}/evnode.v1.StoreService/GetBlock", members.rpc_url(0));
        let request = reqwest::Client::new().post(url).json(&json!({"height": height.to_string()}));
        let answer: Value = request.send().await.expect("it answers").json().await.expect("JSON");
        answer["block"].clone()
    };
    follows(&full, before + 10, block).await;
    full.stop().await;
    members.verify().await;
}
