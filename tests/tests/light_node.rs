//! Light nodes as real processes: of a single node, of a cluster whose leaders are killed, of ev-node.
#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

use std::time::Duration;

use baton::cli::place::open_options;
use baton::home::Home;
use baton_messages::genesis::Genesis;
use baton_messages::types::{Hash, Height};
use baton_storage::Store;
use serde_json::{Value, json};
use sim::process::{EvNode, Follower, Load, Members, Site, TIMES, Wish, hashes};
use sim::skip;
use tokio::time::sleep;

const LIGHT: [&str; 1] = ["--evnode.node.light"];

async fn tip(light: &Follower) -> u64 {
    light.status().await["tip"]["height"].as_u64().unwrap_or_default()
}

async fn reach(light: &Follower, height: u64) {
    light.until("a header", || async { tip(light).await >= height }).await;
}

/// The hash of every header in the store of a light node that has stopped; each is signed, and no
/// body is there.
fn header_hashes(home: &Home, genesis: &Genesis) -> Vec<(Height, Hash)> {
    let store = Store::open(open_options(home, genesis)).expect("the store opens");
    let reader = store.reader();
    assert!(reader.is_headers_only());
    let signer = reader.follow().expect("it follows").signer;
    let all = (genesis.initial_height.0..=reader.tip().height.0).map(Height).map(|height| {
        let signed = reader.signed_header(height, &signer).expect("readable").expect("no gap");
        signed.verify_signature().expect("only signed headers are kept");
        assert_eq!(reader.block(height).expect("readable"), None);
        (height, signed.header.hash())
    });
    let all = all.collect();
    store.close();
    all
}

fn same(followed: &[(Height, Hash)], chain: &[(Height, Hash)], at_least: u64) {
    assert!(followed.len() as u64 >= at_least, "{} headers were followed", followed.len());
    assert_eq!(followed, &chain[..followed.len()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_light_node_follows_headers_is_killed_and_gives_them_to_another_light_node() {
    let site = Site::new(&["--evnode.node.block_time", "100ms", "--evnode.da.block_time", "1s"]).await;
    let node = site.started().await;
    site.post("a=1", "executed").await;
    let (genesis, peer) = (site.home.genesis(), site.peer_address().await);
    let mut light = Follower::of(&genesis, &[("--evnode.p2p.peers", &peer)], &LIGHT).await;
    light.start();
    reach(&light, 10).await;
    light.kill().await;
    site.post("b=2", "executed").await;
    light.start();
    let goal = site.height().await;
    reach(&light, goal).await;

    // What it says of itself.
    light.until("readiness", || async { light.unready().await.is_empty() }).await;
    let status = light.status().await;
    let follow = &status["follow"];
    assert_eq!((&follow["mode"], &follow["executed"]), (&json!("light"), &Value::Null), "{status}");
    assert_eq!((&follow["evidence"], &status["da"]["included"]), (&json!(0), &json!(0)), "{status}");
    let role = light.get("/raft/node").await.expect("it answers");
    assert_eq!((&role["is_leader"], &role["role"]), (&json!(false), &json!("light")));
    let metrics = light.metrics().await;
    let headers =
        metrics.lines().find(|line| line.contains("blocks_synchronized_total") && line.contains("p2p"));
    assert!(headers.is_some_and(|line| !line.ends_with(" 0")), "{metrics}");

    // A block without its data, by height and by hash; the state in the newest header; one store.
    let theirs = site.store_service("GetBlock", &json!({"height": "5"})).await;
    let ours = light.store_service("GetBlock", &json!({"height": "5"})).await;
    assert_eq!(ours["block"]["header"], theirs["block"]["header"]);
    assert_eq!((&ours["block"]["data"], &ours["headerDaHeight"]), (&Value::Null, &Value::Null), "{ours}");
    let hash = light.store_service("GetBlock", &json!({"height": "6"})).await["block"]["header"]["header"]
        ["lastHeaderHash"]
        .clone();
    assert_eq!(light.store_service("GetBlock", &json!({"hash": hash})).await, ours);
    let newest = light.store_service("GetBlock", &json!({"height": "0"})).await;
    assert!(newest["block"]["header"]["signature"].is_string(), "{newest}");
    let state = light.store_service("GetState", &json!({})).await;
    assert!(state["state"]["appHash"].is_string(), "{state}");
    let missing = light.store_service("GetBlock", &json!({"height": "999999"})).await;
    assert_eq!(missing["code"], json!("internal"), "as ev-node: {missing}");
    let stores = light.store_service("GetP2PStoreInfo", &json!({})).await;
    let labels: Vec<_> = stores["stores"].as_array().expect("stores").iter().map(|it| &it["label"]).collect();
    assert_eq!(labels, [&json!("Header Store")], "{stores}");

    // Another one has nobody but the first to ask.
    let near = light.peer_address();
    let mut far = Follower::of(&genesis, &[("--evnode.p2p.peers", &near)], &LIGHT).await;
    far.start();
    reach(&far, goal).await;
    let later = site.height().await + 10;
    reach(&far, later).await;
    far.terminate().await;
    light.terminate().await;

    // Headers for good: it never becomes a node of whole blocks, nor the other way round.
    let whole = light.refused(&["--evnode.node.light=false"]).await;
    assert!(whole.contains("holds headers only"), "{whole}");
    site.drain().await;
    assert_eq!(node.terminate().await, Some(0));
    let (genesis, chain) = (site.genesis(), hashes(&site.home, &site.genesis()));
    same(&header_hashes(&light.home, &genesis), &chain, goal);
    same(&header_hashes(&far.home, &genesis), &chain, later);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_light_node_of_a_cluster_sees_one_chain_whatever_leaders_are_killed() {
    let mut members = Members::new(Wish::of(3, &TIMES)).await;
    let key = baton::keys::node_key(members.home(0)).expect("init made one");
    let peer = format!("/ip4/127.0.0.1/tcp/1/p2p/{}", baton::p2p::peer_id(&key));
    let genesis = members.home(0).genesis();
    let mut light = Follower::of(&genesis, &[("--evnode.p2p.peers", &peer)], &LIGHT).await;
    // Every member dials it, and tells it what there is to tell.
    let env = [("BATON_P2P_PEERS", light.peer_address())];
    light.start();
    for number in 0..3 {
        members.start(number, &env);
    }
    members.leader().await;
    let load = Load::over(&members.kv_urls(), &members.oracle, 2, Duration::from_millis(20));
    for kill in 0..2 {
        let leader = members.leader().await;
        let before = members.height_of(leader).await;
        members.reach(before + 3).await;
        reach(&light, before).await;
        if kill == 1 {
            light.kill().await;
            light.start();
        }
        sleep(Duration::from_millis(37 * kill)).await;
        members.kill(leader).await;
        members.reach(before + 8).await;
        members.start(leader, &env);
    }
    load.stop().await;
    let height = members.height().await;
    members.reach(height + 5).await;
    reach(&light, height).await;
    let status = light.status().await;
    assert_eq!(status["follow"]["evidence"], json!(0), "P1: two headers of one height: {status}");
    light.terminate().await;
    members.drain().await;
    let genesis = baton::genesis::load(&genesis).expect("there is one");
    members.verify().await;
    same(&header_hashes(&light.home, &genesis), &hashes(members.home(0), &genesis), height);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_light_node_follows_ev_nodes_aggregator_through_restarts_of_either_side() {
    let check = "a_light_node_follows_ev_nodes_aggregator_through_restarts_of_either_side";
    let Some(program) = EvNode::program() else {
        return skip(check, "ev-node", "BATON_EVNODE does not name ev-node's testapp");
    };
    // The DA layer is ours; its site's node never starts.
    let site = Site::new(&[]).await;
    let url = site.da_url();
    let pace = [
        ["--evnode.da.address", &url],
        ["--evnode.da.namespace", "light"],
        ["--evnode.node.block_time", "50ms"],
        ["--evnode.node.scrape_interval", "50ms"],
        ["--evnode.da.block_time", "1s"],
    ]
    .concat();
    let mut aggregator = EvNode::aggregator(&program, &pace).await;
    aggregator.start().await;
    for number in 0..10 {
        aggregator.post(&format!("k{number}=v{number}")).await;
    }
    let peer = aggregator.peer_address().await;
    let mut light = Follower::of(&aggregator.genesis(), &[("--p2p.peers", &peer)], &LIGHT).await;
    light.start();
    aggregator.until("blocks", || async { aggregator.height().await > 150 }).await;
    reach(&light, 100).await;
    light.kill().await;
    aggregator.stop().await;
    aggregator.start().await;
    aggregator.post("after=restart").await;
    light.start();
    aggregator.until("blocks", || async { aggregator.height().await > 300 }).await;
    reach(&light, 300).await;
    for height in 1..=300 {
        let theirs = aggregator.block(height).await;
        let ours = light.store_service("GetBlock", &json!({"height": height.to_string()})).await;
        assert!(theirs.is_object(), "height {height}");
        assert_eq!(ours["block"]["header"], theirs["header"], "height {height}");
    }
    // ev-node serves what it says, and says nothing against the light node.
    let status = light.status().await;
    assert_eq!(status["follow"]["evidence"], json!(0), "{status}");
    light.terminate().await;
    aggregator.stop().await;
}
