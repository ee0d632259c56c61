//! A chain's home, its DA server, and how its node is started.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io::Write};

use baton::home::Home;
use baton_messages::da::Namespace;
use baton_messages::genesis::Genesis;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::child::{Child, free_ports};
use super::da_scan::{self, NAMESPACES};
use super::scrape::Scrape;
use crate::client::Oracle;

/// A node's home, its DA server with a disk of its own, and what clients were told.
#[derive(Debug)]
pub struct Site {
    directory: Option<TempDir>,
    /// The node's home.
    pub home: Home,
    /// What the clients were told.
    pub oracle: Oracle,
    da: Option<Child>,
    port: u16,
    flags: Vec<String>,
    http: reqwest::Client,
}

impl Site {
    /// Makes a home with `baton init` and starts the DA server. The flags are for every start.
    ///
    /// # Panics
    ///
    /// When something does not work; that is true of all functions here.
    pub async fn new(flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = directory.path();
        let passphrase = root.join("passphrase");
        let mut file = fs::OpenOptions::new();
        let file = file.write(true).create_new(true).mode(0o600).open(&passphrase);
        writeln!(file.expect("a new file"), "a passphrase for tests").expect("a line is written");
        let mut site = Self {
            home: Home::new(root.join("node")),
            oracle: Oracle::default(),
            da: None,
            port: free_ports(3),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            http: reqwest::Client::builder().build().expect("an HTTP client"),
            directory: Some(directory),
        };
        let mut init = site.args("init");
        init.extend(["--insecure-fast-kdf", "--chain_id", "chaos"].map(str::to_owned));
        let init = Child::start("init", &init, &[], &site.log()).ended(Duration::from_secs(30)).await;
        assert!(init.is_some_and(|status| status.success()), "{}", site.tail());
        site.start_da(&[]).await;
        site
    }

    fn root(&self) -> &Path {
        self.directory.as_ref().expect("there is one until the end").path()
    }

    /// The node's log; every life adds to it.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.root().join("log")
    }

    /// The last lines of the node's log.
    #[must_use]
    pub fn tail(&self) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    fn args(&self, command: &str) -> Vec<String> {
        let root = self.root();
        let address = |offset| SocketAddr::from((Ipv4Addr::LOCALHOST, self.port + offset)).to_string();
        let flags = [
            ("--home", self.home.root().display().to_string()),
            ("--evnode.signer.passphrase_file", root.join("passphrase").display().to_string()),
            ("--evnode.da.address", self.da_url()),
            ("--evnode.da.namespace", NAMESPACES[0].to_owned()),
            ("--evnode.da.data_namespace", NAMESPACES[1].to_owned()),
            ("--evnode.p2p.listen_address", "/ip4/127.0.0.1/tcp/0".to_owned()),
            ("--evnode.rpc.address", address(1)),
            ("--kv-endpoint", address(2)),
        ];
        let flags = flags.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
        std::iter::once(command.to_owned()).chain(flags).chain(self.flags.iter().cloned()).collect()
    }

    /// The machine is lost and its key is not: the store and the guard are gone, and `baton init` makes
    /// the home again. The node must have stopped.
    pub async fn restore(&self) {
        fs::remove_file(self.home.guard()).expect("there was a guard");
        self.lose_store().await;
    }

    /// The store is lost, and neither the key nor its guard; `baton init` makes an empty one. The node
    /// must have stopped.
    pub async fn lose_store(&self) {
        fs::remove_dir_all(self.home.data()).expect("there was a store");
        assert_eq!(self.command("init", &[]).await, Some(0), "{}", self.tail());
    }

    /// Runs another command on the home while the node does not run; its exit code. What it says is in
    /// the log.
    pub async fn command(&self, command: &str, words: &[&str]) -> Option<i32> {
        let mut args = self.args(command);
        args.extend(words.iter().map(|word| (*word).to_owned()));
        let ended = Child::start(command, &args, &[], &self.log()).ended(Duration::from_secs(30)).await;
        ended.and_then(|status| status.code())
    }

    /// Fills the store with so many blocks, before the node's first start.
    pub async fn generate(&self, blocks: u64, txs: u32, tx_bytes: u32) {
        let mut args = self.args("store");
        args.insert(1, "generate".to_owned());
        let numbers = [("--blocks", blocks), ("--txs", txs.into()), ("--tx-bytes", tx_bytes.into())];
        args.extend(numbers.into_iter().flat_map(|(name, value)| [name.to_owned(), value.to_string()]));
        let within = Duration::from_secs(600);
        let made = Child::start("store generate", &args, &[], &self.log()).ended(within).await;
        assert!(made.is_some_and(|status| status.success()), "{}", self.tail());
    }

    /// Where its peers find the node, which runs.
    pub async fn peer_address(&self) -> String {
        let url = format!("{}/evnode.v1.P2PService/GetNetInfo", self.rpc_url());
        let answer = self.http.post(url).json(&serde_json::json!({})).send().await.expect("it answers");
        let info: Value = answer.json().await.expect("the answer is JSON");
        info["netInfo"]["listenAddresses"][0].as_str().expect("it listens").to_owned()
    }

    /// Starts the DA server, with further flags, on the disk it had before.
    pub async fn start_da(&mut self, flags: &[&str]) {
        let home = self.root().join("da");
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)).to_string();
        let home = home.display().to_string();
        let args = [&["da", "--listen", &listen, "--block-time", "1s", "--home", &home], flags].concat();
        let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
        let da = Child::start("da", &args, &[], &self.root().join("da-log"));
        self.da = Some(da);
        let url = self.da_url();
        self.until("the DA server", || async { self.http.get(&url).send().await.is_ok() }).await;
    }

    /// Takes the DA server away, to be ended in one way or another.
    pub fn take_da(&mut self) -> Child {
        self.da.take().expect("it runs")
    }

    /// The DA server.
    #[must_use]
    pub fn da(&self) -> &Child {
        self.da.as_ref().expect("it runs")
    }

    /// `/metrics` of the node.
    pub async fn scrape(&self) -> Scrape {
        let answer =
            self.http.get(format!("{}/metrics", self.rpc_url())).send().await.expect("the node answers");
        let text = answer.text().await.expect("metrics are text");
        Scrape::parse(&text).unwrap_or_else(|wrong| panic!("/metrics is not valid: {wrong}"))
    }

    /// Why the node is not ready; empty when it is.
    pub async fn unready(&self) -> String {
        let ready = self.http.get(format!("{}/health/ready", self.rpc_url())).send().await;
        match ready {
            Ok(ready) if ready.status().is_success() => String::new(),
            Ok(ready) => ready.text().await.unwrap_or_default(),
            Err(error) => error.to_string(),
        }
    }

    /// The height of the newest block.
    pub async fn height(&self) -> u64 {
        let status = self.status().await.unwrap_or_default();
        status["tip"]["height"].as_u64().unwrap_or_default()
    }

    /// Posts a transaction and says what was answered.
    pub async fn post(&self, tx: &str, wait: &str) -> (u16, String) {
        let url = format!("{}/tx?wait={wait}&timeout=5s", self.kv_url());
        let answer = self.http.post(url).body(tx.to_owned()).send().await.expect("the node answers");
        (answer.status().as_u16(), answer.text().await.unwrap_or_default())
    }

    /// Starts the node and does not wait for it.
    #[must_use]
    pub fn start(&self, env: &[(&str, String)]) -> Child {
        Child::start("node", &self.args("start"), env, &self.log())
    }

    /// Starts the node and waits until it makes blocks.
    pub async fn started(&self) -> Child {
        let node = self.start(&[]);
        self.until("readiness", || async { self.is_ready().await }).await;
        node
    }

    async fn is_ready(&self) -> bool {
        let ready = self.http.get(format!("{}/health/ready", self.rpc_url())).send().await;
        ready.is_ok_and(|ready| ready.status().is_success())
    }

    /// The key-value app.
    #[must_use]
    pub fn kv_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port + 2)
    }

    /// RPC, health, status, metrics.
    #[must_use]
    pub fn rpc_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port + 1)
    }

    /// The DA server.
    #[must_use]
    pub fn da_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Calls a method of the DA server.
    pub async fn da_call(&self, method: &str, params: Value) -> Value {
        let request = serde_json::json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let answer = self.http.post(self.da_url()).json(&request).send().await.expect("it answers");
        let answer: Value = answer.json().await.expect("the answer is JSON");
        assert!(answer["error"].is_null(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// Anybody writes this to where the chain's headers are on DA.
    pub async fn write_on_da(&self, data: &[u8]) {
        let namespace = Namespace::of(NAMESPACES[0]).to_base64();
        let data = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, data);
        let blob = serde_json::json!({"namespace": namespace, "data": data, "share_version": 0});
        self.da_call("blob.Submit", serde_json::json!([[blob], {}])).await;
    }

    /// Makes the DA layer one block longer.
    pub async fn empty_da_block(&self) {
        self.da_call("blob.Submit", serde_json::json!([[], {}])).await;
    }

    /// The newest height of the DA layer.
    pub async fn da_height(&self) -> u64 {
        let head = self.da_call("header.NetworkHead", serde_json::json!([])).await;
        // Zero is left out.
        head["height"].as_str().map_or(0, |height| height.parse().expect("a height is a number"))
    }

    /// A user puts transactions on DA with `baton force`.
    pub async fn force(&self, namespace: &str, txs: &[&str]) {
        let mut command = tokio::process::Command::new(super::baton());
        command.arg("force").args(txs).args(["--da.address", &self.da_url()]);
        command.args(["--da.forced_inclusion_namespace", namespace]);
        let output = command.output().await.expect("the program runs");
        let told = String::from_utf8_lossy(&output.stdout);
        let at = (output.status.code(), told.matches(" at DA height ").count());
        assert_eq!(at, (Some(0), txs.len()), "{told}");
    }

    /// Whether the key-value app knows a key.
    pub async fn kv_has(&self, key: &str) -> bool {
        let url = format!("{}/kv?key={key}", self.kv_url());
        self.http.get(url).send().await.is_ok_and(|answer| answer.status().is_success())
    }

    /// The genesis.
    #[must_use]
    pub fn genesis(&self) -> Genesis {
        baton::genesis::load(&self.home.genesis()).expect("init made one")
    }

    /// What the node says of itself; `None` when it does not answer.
    pub async fn status(&self) -> Option<Value> {
        self.http.get(format!("{}/status", self.rpc_url())).send().await.ok()?.json().await.ok()
    }

    /// Calls a method of StoreService in Connect JSON.
    pub async fn store_service(&self, method: &str, request: &Value) -> Value {
        let url = format!("{}/evnode.v1.StoreService/{method}", self.rpc_url());
        let answer = self.http.post(url).json(request).send().await.expect("the node answers");
        answer.json().await.expect("the answer is JSON")
    }

    /// Waits until the queue is empty and every block up to now is on DA and recorded as included.
    pub async fn drain(&self) {
        let goal = self.status().await.and_then(|status| status["tip"]["height"].as_u64());
        let goal = goal.expect("the node runs") + 1;
        self.until("an empty queue and everything on DA", || async {
            let status = self.status().await.unwrap_or_default();
            status["queue"]["txs"] == 0
                && status["da"]["included"].as_u64().is_some_and(|height| height >= goal)
        })
        .await;
    }

    /// Waits until something holds.
    ///
    /// # Panics
    ///
    /// After a minute, with the end of the log.
    pub async fn until<F: Future<Output = bool>>(&self, what: &str, holds: impl Fn() -> F) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !holds().await {
            assert!(Instant::now() < deadline, "waited a minute for {what}:\n{}", self.tail());
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Everything on DA in the order of DA: the blobs of headers, and those of data.
    pub async fn on_da(&self) -> [Vec<Vec<u8>>; 2] {
        da_scan::on_da(&self.http, &self.da_url()).await
    }
}

impl Drop for Site {
    /// What a failed test leaves is kept to be looked at.
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(directory) = self.directory.take()
        {
            eprintln!("kept {}", directory.keep().display());
        }
    }
}
