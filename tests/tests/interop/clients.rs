//! ev-node's own clients against a node: its Rust client, as it is on crates.io and as it lies in
//! ev-node's repository, and its stress client.
//!
//! They run where `BATON_EV_CLIENT` and `BATON_EV_CLIENT_REPOSITORY` name what `scripts/ev-client.sh`
//! builds, and `BATON_EV_STRESS` ev-node's `stress-test`.

use std::path::PathBuf;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};
use sim::process::{Child, Follower, Site};
use sim::skip;
use tokio::process::Command;

/// A program that a variable names, or a word about its absence.
fn named(variable: &str, check: &str, capability: &str) -> Option<PathBuf> {
    let program = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.exists());
    if program.is_none() {
        skip(check, capability, &format!("{variable} names no program (docs/interop.md)"));
    }
    program
}

/// What the node's own JSON API answers.
async fn call(site: &Site, method: &str, request: &Value) -> Value {
    let url = format!("{}/evnode.v1.{method}", site.rpc_url());
    let answer = reqwest::Client::new().post(url).json(request).send().await.expect("the node answers");
    assert!(answer.status().is_success(), "{method}: {}", answer.status());
    answer.json().await.expect("the answer is JSON")
}

/// Asks a node everything that a client can ask, and compares it with what its JSON API says.
async fn ask_everything(probe: PathBuf, also: impl AsyncFn(&Site, &Value)) {
    let site = Site::new(&["--evnode.node.block_time", "500ms", "--evnode.da.block_time", "1s"]).await;
    let node = site.started().await;
    let address = site.peer_address().await;
    let mut follower = Follower::of(&site.home.genesis(), &[("--p2p.peers", &address)], &[]).await;
    follower.start();
    let (code, why) = site.post("a=1", "executed").await;
    assert_eq!(code, 200, "{why}");
    let place: Value = serde_json::from_str(&why).expect("the answer is JSON");
    let height = place["height"].as_u64().unwrap_or_else(|| panic!("{place}"));
    site.drain().await;
    site.until("a peer", || async {
        call(&site, "P2PService/GetPeerInfo", &json!({})).await["peers"].is_array()
    })
    .await;

    let block = call(&site, "StoreService/GetBlock", &json!({"height": height.to_string()})).await;
    let hash = place["header_hash"].as_str().expect("an executed transaction has a block").to_owned();
    let key = format!("rhb/{height}/h");
    // The state moves with every block: nothing is compared across one.
    let (state, told) = loop {
        let before = call(&site, "StoreService/GetState", &json!({})).await["state"].clone();
        let mut asked = Command::new(&probe);
        asked.arg(site.rpc_url()).args([&height.to_string(), &hash, &key]);
        let output = asked.output().await.expect("the program runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let told: Value = serde_json::from_slice(&output.stdout).expect("it prints JSON");
        if call(&site, "StoreService/GetState", &json!({})).await["state"] == before {
            break (before, told);
        }
    };
    assert_eq!(told["block"], block);
    assert_eq!(told["block by hash"], block);
    assert_eq!(told["block"]["block"]["data"]["txs"], json!([BASE64_STANDARD.encode("a=1")]));
    assert_eq!([&told["no block"], &told["no metadata"]], ["Internal", "NotFound"]);
    for field in ["version", "chainId", "initialHeight", "lastBlockHeight", "daHeight", "appHash"] {
        assert_eq!(told["state"][field], state[field], "{field}");
    }
    let last = json!({"height": state["lastBlockHeight"]});
    site.until("the signature of that block", || async {
        site.store_service("GetBlock", &last).await["block"].is_object()
    })
    .await;
    let last = site.store_service("GetBlock", &last).await;
    let time = last["block"]["header"]["header"]["time"].as_str().expect("nanoseconds");
    assert_eq!(Some(&*told["state"]["lastBlockSeconds"].to_string()), time.get(..time.len() - 9));
    let metadata = call(&site, "StoreService/GetMetadata", &json!({"key": key})).await;
    assert_eq!(told["metadata"], metadata["value"]);
    assert_eq!(told["peers"], call(&site, "P2PService/GetPeerInfo", &json!({})).await["peers"]);
    assert_eq!(told["net info"], call(&site, "P2PService/GetNetInfo", &json!({})).await["netInfo"]);
    // ev-node has that service in its protobuf, and serves it as little.
    assert_eq!([&told["sign"], &told["public key"]], ["Unimplemented", "Unimplemented"]);
    also(&site, &told).await;
    follower.terminate().await;
    node.terminate().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ev_nodes_rust_client_from_crates_io_is_answered_as_the_json_api_is() {
    let check = "ev_nodes_rust_client_from_crates_io_is_answered_as_the_json_api_is";
    let Some(probe) = named("BATON_EV_CLIENT", check, "ev-client") else { return };
    ask_everything(probe, async |_, told| assert_eq!(told["health"], "PASS")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ev_nodes_rust_client_from_its_repository_is_answered_as_the_json_api_is() {
    let check = "ev_nodes_rust_client_from_its_repository_is_answered_as_the_json_api_is";
    let Some(probe) = named("BATON_EV_CLIENT_REPOSITORY", check, "ev-client-repository") else { return };
    ask_everything(probe, async |site, told| {
        assert_eq!(told["namespaces"], call(site, "ConfigService/GetNamespace", &json!({})).await);
        assert_eq!(told["signer"], call(site, "ConfigService/GetSignerInfo", &json!({})).await);
    })
    .await;
}

/// It posts the same transaction as fast as it can; docs/interop.md says how fast that is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ev_nodes_stress_client_is_served_without_a_failure() {
    let check = "ev_nodes_stress_client_is_served_without_a_failure";
    let Some(program) = named("BATON_EV_STRESS", check, "ev-stress") else { return };
    let site = Site::new(&["--evnode.node.block_time", "100ms"]).await;
    let node = site.started().await;
    let address = site.kv_url().replace("http://", "");
    let args = ["-addr", &address, "-duration", "3s", "-workers", "100"].map(str::to_owned);
    let log = site.log().with_file_name("stress");
    let ended = Child::of(&program, "stress-test", &args, &[], &log).ended(Duration::from_secs(60)).await;
    let told = std::fs::read_to_string(&log).expect("it says what it did");
    assert!(ended.is_some_and(|status| status.success()), "{told}");
    // A table at the end: `| Failed | 1,234 |`.
    let number = |name: &str| -> u64 {
        let mut rows = told.lines().map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
        let row = rows.find(|cells| cells.get(1) == Some(&name)).unwrap_or_else(|| panic!("{name}: {told}"));
        row[2].replace(',', "").parse().unwrap_or_else(|_| panic!("{row:?}"))
    };
    let (succeeded, failed) = (number("Successful (202)"), number("Failed"));
    assert!(succeeded > 100 && failed == 0, "{told}");
    site.until("its transaction", || site.kv_has("s")).await;
    node.terminate().await;
}
