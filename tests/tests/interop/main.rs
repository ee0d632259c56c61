//! Baton and ev-node on one chain: either follows what the other produces, over DA and from peers.
//!
//! They run where `BATON_EVNODE` names ev-node's `testapp` (docs/interop.md says how it is built).
#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

mod clients;
mod forced;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use sim::process::{EvNode, Follower, Load, Members, Site, Wish, peer_address};
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

/// Where a full node has its blocks from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Da,
    Peers,
    Both,
}

/// Baton follows a thousand blocks of ev-node's aggregator, through restarts of either side.
async fn follows_ev_node(program: &Path, from: From) {
    // The DA layer is ours; its site's node never starts.
    let site = Site::new(&[]).await;
    let url = site.da_url();
    let pace = [
        "--evnode.da.address",
        &url,
        "--evnode.da.namespace",
        "interop",
        "--evnode.node.block_time",
        "30ms",
        "--evnode.node.scrape_interval",
        "30ms",
        "--evnode.da.block_time",
        "1s",
        "--evnode.da.batching_strategy",
        "immediate",
    ];
    let mut aggregator = EvNode::aggregator(program, &pace).await;
    aggregator.start().await;
    for number in 0..20 {
        aggregator.post(&format!("k{number}=v{number}")).await;
    }
    let peer = aggregator.peer_address().await;
    let da = [("--da.address", url.as_str()), ("--da.namespace", "interop")];
    let peers = [("--p2p.peers", peer.as_str())];
    let place = match from {
        From::Da => da.to_vec(),
        From::Peers => peers.to_vec(),
        From::Both => [&da[..], &peers].concat(),
    };
    let flags = [&TESTAPP[..], &["--evnode.da.block_time", "1s"]].concat();
    let mut follower = Follower::of(&aggregator.genesis(), &place, &flags).await;
    let reached = async |follower: &Follower, height: u64| match from {
        From::Peers => follower.execute(height).await,
        From::Da | From::Both => follower.reach(height).await,
    };
    follower.start();
    aggregator.until("blocks", || async { aggregator.height().await > 300 }).await;
    reached(&follower, 150).await;
    follower.kill().await;
    aggregator.stop().await;
    aggregator.start().await;
    aggregator.post("after=restart").await;
    follower.start();
    for number in 0..20 {
        aggregator.post(&format!("more{number}=v{number}")).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    aggregator.until("blocks", || async { aggregator.height().await > 1_000 }).await;
    let goal = 1_000;
    reached(&follower, goal).await;
    assert_eq!(follower.kv("/kv?key=k7").await, (200, "v7".to_owned()));
    assert_eq!(follower.kv("/kv?key=after").await, (200, "restart".to_owned()));
    let mut with_txs = 0;
    for height in 1..=goal {
        let (theirs, ours) = (aggregator.block(height).await, ours(&follower, height).await);
        assert!(theirs.is_object(), "height {height}");
        assert_eq!(ours, theirs, "height {height}");
        with_txs += u32::from(theirs["data"]["txs"].is_array());
    }
    assert!(with_txs >= 10, "blocks with transactions are followed too: {with_txs}");
    follower.terminate().await;
    aggregator.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_node_follows_ev_nodes_aggregator_from_da_through_restarts_of_either_side() {
    let check = "a_full_node_follows_ev_nodes_aggregator_from_da_through_restarts_of_either_side";
    let Some(program) = evnode(check) else { return };
    follows_ev_node(&program, From::Da).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_node_follows_ev_nodes_aggregator_from_peers_through_restarts_of_either_side() {
    let check = "a_full_node_follows_ev_nodes_aggregator_from_peers_through_restarts_of_either_side";
    let Some(program) = evnode(check) else { return };
    follows_ev_node(&program, From::Peers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_node_follows_ev_nodes_aggregator_from_both_through_restarts_of_either_side() {
    let check = "a_full_node_follows_ev_nodes_aggregator_from_both_through_restarts_of_either_side";
    let Some(program) = evnode(check) else { return };
    follows_ev_node(&program, From::Both).await;
}

/// Waits until ev-node's full node has a height, and compares it with ours from the first block on.
async fn follows(full: &EvNode, goal: u64, block: impl AsyncFn(u64) -> Value) {
    full.until("a height", || async { full.height().await >= goal }).await;
    for height in 1..=goal {
        let theirs = full.block(height).await;
        assert!(theirs.is_object(), "height {height}: {}", full.tail());
        assert_eq!(theirs, block(height).await, "height {height}");
    }
    // Errors about our data would be errors of these parts of it.
    for line in full.errors() {
        let ours = ["syncer", "da_retriever", "da_follower", "executor", "sync"];
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

/// ev-node's full node of a cluster, which knows these peers; its namespace of DA is empty or ours.
async fn full_node(program: &Path, members: &Members, from: From) -> EvNode {
    let url = members.da_url();
    let mut peers = Vec::new();
    for number in 0..3 {
        peers.push(peer_address(&reqwest::Client::new(), &members.rpc_url(number)).await);
    }
    let peers = peers.join(",");
    let [headers, data] = match from {
        From::Peers => ["nobody-posts-here"; 2],
        From::Da | From::Both => ["chaos-headers", "chaos-data"],
    };
    let mut flags = vec!["--evnode.da.address", &url, "--evnode.da.block_time", "1s"];
    flags.extend(["--evnode.da.namespace", headers, "--evnode.da.data_namespace", data]);
    if from != From::Da {
        flags.extend(["--evnode.p2p.peers", &peers]);
    }
    EvNode::full(program, &members.home(0).genesis(), &flags).await
}

async fn follows_a_cluster_through_a_failover(program: &Path, from: From) {
    let flags = [&TESTAPP[..], &["--evnode.node.block_time", "200ms", "--evnode.da.block_time", "1s"], &CALM]
        .concat();
    let mut members = Members::new(Wish::of(3, &flags)).await;
    members.start_all().await;
    let load = Load::over(&members.kv_urls(), &members.oracle, 1, Duration::from_millis(300));
    let mut full = full_node(program, &members, from).await;
    full.start().await;
    full.until("blocks", || async { full.height().await >= 5 }).await;
    let leader = members.leader().await;
    let before = members.height_of(leader).await;
    members.kill(leader).await;
    members.reach(before + 10).await;
    members.start(leader, &[]);
    load.stop().await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ev_nodes_full_node_follows_a_cluster_through_a_failover_from_da() {
    let check = "ev_nodes_full_node_follows_a_cluster_through_a_failover_from_da";
    let Some(program) = evnode(check) else { return };
    follows_a_cluster_through_a_failover(&program, From::Da).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ev_nodes_full_node_follows_a_cluster_through_a_failover_from_peers() {
    let check = "ev_nodes_full_node_follows_a_cluster_through_a_failover_from_peers";
    let Some(program) = evnode(check) else { return };
    follows_a_cluster_through_a_failover(&program, From::Peers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ev_nodes_full_node_follows_a_node_from_peers() {
    let Some(program) = evnode("ev_nodes_full_node_follows_a_node_from_peers") else { return };
    let flags = [&TESTAPP[..], &["--evnode.node.block_time", "100ms"]].concat();
    let site = Site::new(&flags).await;
    let node = site.started().await;
    let peer = peer_address(&reqwest::Client::new(), &site.rpc_url()).await;
    // Some history first, which the full node must ask for.
    site.until("a history", || async { site.height().await >= 50 }).await;
    let url = site.da_url();
    let place = ["--evnode.da.address", &url, "--evnode.da.namespace", "nobody-posts-here"];
    let flags = [&place[..], &["--evnode.da.block_time", "1s", "--evnode.p2p.peers", &peer]].concat();
    let mut full = EvNode::full(&program, &site.home.genesis(), &flags).await;
    full.start().await;
    for number in 0..50 {
        let (code, why) = site.post(&format!("k{number}=v{number}"), "committed").await;
        assert_eq!(code, 200, "{why}");
    }
    site.until("blocks", || async { site.height().await >= 220 }).await;
    let block = async |height: u64| {
        site.store_service("GetBlock", &json!({"height": height.to_string()})).await["block"].clone()
    };
    follows(&full, 200, block).await;
    full.stop().await;
    assert_eq!(node.terminate().await, Some(0));
}
