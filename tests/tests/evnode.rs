//! ev-node's own full node beside a Baton node, on loopback. Needs ev-node's `testapp`
//! (`docs/interop.md` says how to build it), named in `BATON_EVNODE`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use sim::process::{Child, Site, free_ports};
use tokio::time::{Instant, sleep};

/// ev-node's program, or a skip.
fn evnode(check: &str) -> Option<PathBuf> {
    let program = std::env::var_os("BATON_EVNODE").map(PathBuf::from);
    if program.is_none() {
        sim::skip(check, "ev-node", "BATON_EVNODE names no program");
    }
    program
}

struct FullNode {
    child: Child,
    directory: tempfile::TempDir,
    rpc: String,
    http: reqwest::Client,
}

impl FullNode {
    /// An ev-node full node of the site's chain, which knows these peers and no namespace of DA.
    async fn start(program: &Path, site: &Site, peers: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let home = directory.path().join("home").display().to_string();
        let log = directory.path().join("log");
        let flag = |name: &str, value: &str| format!("--{name}={value}");
        let init = ["init".to_owned(), flag("home", &home), flag("chain_id", "chaos")];
        let init = Child::of(program, "ev-node init", &init, &[], &log).ended(Duration::from_secs(60)).await;
        assert!(init.is_some_and(|status| status.success()), "testapp init fails");
        std::fs::copy(site.home.genesis(), format!("{home}/config/genesis.json")).expect("a genesis");
        let port = free_ports(3);
        let rpc = format!("127.0.0.1:{port}");
        let args = [
            "start".to_owned(),
            flag("home", &home),
            flag("kv-endpoint", &format!("127.0.0.1:{}", port + 1)),
            flag("evnode.node.block_time", "100ms"),
            flag("evnode.da.address", &site.da_url()),
            // Nothing is there: what it knows comes from peers.
            flag("evnode.da.namespace", "nobody-posts-here"),
            flag("evnode.da.block_time", "1s"),
            flag("evnode.rpc.address", &rpc),
            flag("evnode.p2p.listen_address", &format!("/ip4/127.0.0.1/tcp/{}", port + 2)),
            flag("evnode.p2p.peers", peers),
        ];
        let child = Child::of(program, "ev-node", &args, &[], &log);
        Self { child, directory, rpc, http: reqwest::Client::new() }
    }

    async fn block(&self, height: u64) -> Option<Value> {
        let url = format!("http://{}/evnode.v1.StoreService/GetBlock", self.rpc);
        let answer = self.http.post(url).json(&json!({ "height": height.to_string() })).send().await.ok()?;
        answer.json::<Value>().await.ok()?.get("block").cloned()
    }

    /// The lines of its log that are errors.
    fn errors(&self) -> Vec<String> {
        let log = std::fs::read(self.directory.path().join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).into_owned();
        log.lines().filter(|line| line.contains("ERR")).map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn an_ev_node_full_node_follows_what_a_baton_node_publishes() {
    let Some(program) = evnode("an_ev_node_full_node_follows_what_a_baton_node_publishes") else { return };
    let site = Site::new(&["--engine.kv_roots", "testapp", "--evnode.node.block_time", "100ms"]).await;
    let node = site.started().await;
    let http = reqwest::Client::new();
    let url = format!("{}/evnode.v1.P2PService/GetNetInfo", site.rpc_url());
    let info: Value =
        http.post(url).json(&json!({})).send().await.expect("it answers").json().await.expect("JSON");
    let address = info["netInfo"]["listenAddresses"][0].as_str().expect("it listens").to_owned();
    // Some history first, which the full node must ask for.
    site.until("a history", || async { site.height().await >= 50 }).await;
    let mut full = FullNode::start(&program, &site, &address).await;
    let deadline = Instant::now() + Duration::from_secs(180);
    let mut sent = 0;
    let mut height = 1;
    while height <= 200 {
        assert!(Instant::now() < deadline, "it stands at {height}: {:#?}", full.errors());
        assert!(full.child.has_ended().is_none(), "ev-node has ended: {:#?}", full.errors());
        if sent < 50 {
            site.post(&format!("k{sent}=v{sent}"), "accepted").await;
            sent += 1;
        }
        // A block is told before its signature is in the log, from which our RPC has it.
        let ours = site.store_service("GetBlock", &json!({ "height": height.to_string() })).await;
        match full.block(height).await {
            Some(theirs) if !ours["block"].is_null() => {
                assert_eq!(theirs, ours["block"], "block {height}");
                height += 1;
            }
            _ => sleep(Duration::from_millis(100)).await,
        }
    }
    let about_us: Vec<_> = full
        .errors()
        .into_iter()
        // It looks for blobs where nobody posts.
        .filter(|line| !line.contains("DA") && !line.contains("da_"))
        .collect();
    assert_eq!(about_us, Vec::<String>::new());
    full.child.kill().await;
    assert_eq!(node.terminate().await, Some(0));
}
