//! A node that follows a chain, as a real process.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use baton::cli::place::open_options;
use baton::home::Home;
use baton_messages::genesis::Genesis;
use baton_messages::types::{Hash, Height};
use baton_storage::Store;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::child::{Child, free_ports};
use super::da_scan::NAMESPACES;
use super::footprint::Footprint;

/// A following node: its home, and its process while it runs.
#[derive(Debug)]
pub struct Follower {
    directory: Option<TempDir>,
    /// Its home.
    pub home: Home,
    child: Option<Child>,
    port: u16,
    flags: Vec<String>,
    http: reqwest::Client,
}

impl Follower {
    /// Makes a home from a genesis with `baton init` and the namespaces of the tests' chains. The
    /// flags are for every start.
    ///
    /// # Panics
    ///
    /// When something does not work; that is true of all functions here.
    pub async fn new(genesis: &Path, da_url: &str, flags: &[&str]) -> Self {
        Self::of(
            genesis,
            &[
                ("--da.address", da_url),
                ("--da.namespace", NAMESPACES[0]),
                ("--da.data_namespace", NAMESPACES[1]),
            ],
            flags,
        )
        .await
    }

    /// As [`Follower::new`], of a chain with other namespaces.
    pub async fn of(genesis: &Path, place: &[(&str, &str)], flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let place = place.iter().flat_map(|(name, value)| [(*name).to_owned(), (*value).to_owned()]);
        let follower = Self {
            home: Home::new(directory.path().join("node")),
            child: None,
            port: free_ports(3),
            flags: place.chain(flags.iter().map(|flag| (*flag).to_owned())).collect(),
            http: reqwest::Client::builder().timeout(Duration::from_secs(5)).build().expect("a client"),
            directory: Some(directory),
        };
        let mut init = follower.args("init");
        init.extend(["--genesis".to_owned(), genesis.display().to_string()]);
        let init = Child::start("init", &init, &[], &follower.log()).ended(Duration::from_secs(30)).await;
        assert!(init.is_some_and(|status| status.success()), "{}", follower.tail());
        assert!(!follower.home.signer().exists(), "a node that follows has no key");
        follower
    }

    fn args(&self, command: &str) -> Vec<String> {
        let address = |offset| SocketAddr::from((Ipv4Addr::LOCALHOST, self.port + offset)).to_string();
        let flags = [
            ("--home", self.home.root().display().to_string()),
            ("--evnode.p2p.listen_address", self.listens()),
            ("--evnode.rpc.address", address(0)),
            ("--kv-endpoint", address(1)),
        ];
        let flags = flags.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
        let flags = flags.chain(["--node.aggregator=false".to_owned()]);
        std::iter::once(command.to_owned()).chain(flags).chain(self.flags.iter().cloned()).collect()
    }

    fn listens(&self) -> String {
        format!("/ip4/127.0.0.1/tcp/{}", self.port + 2)
    }

    /// Where its peers find it, whenever it runs.
    #[must_use]
    pub fn peer_address(&self) -> String {
        let key = baton::keys::node_key(&self.home).expect("the home can be written");
        format!("{}/p2p/{}", self.listens(), baton::p2p::peer_id(&key))
    }

    /// Its log; every life adds to it.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.directory.as_ref().expect("there is one until the end").path().join("log")
    }

    /// The last lines of its log.
    #[must_use]
    pub fn tail(&self) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Starts it, and does not wait for it.
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// As [`Follower::start`], with more variables in its environment.
    pub fn start_with(&mut self, env: &[(&str, String)]) {
        assert!(self.child.is_none(), "it runs");
        self.child = Some(Child::start("follower", &self.args("start"), env, &self.log()));
    }

    /// Starts it with these flags instead of its own, each in one word; it must be refused with code
    /// 78. What it says.
    pub async fn refused(&self, flags: &[&str]) -> String {
        assert!(self.child.is_none(), "it runs");
        let name = |flag: &str| flag.split('=').next().map(str::to_owned);
        let mut args = self.args("start");
        args.retain(|arg| !flags.iter().any(|flag| name(flag) == name(arg)));
        args.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let ended = Child::start("follower", &args, &[], &self.log()).ended(Duration::from_secs(30)).await;
        assert_eq!(ended.and_then(|status| status.code()), Some(78), "{}", self.tail());
        self.tail()
    }

    /// What its process takes from the machine.
    #[must_use]
    pub fn footprint(&self) -> Footprint {
        Footprint::of(self.child.as_ref().expect("it runs").pid())
    }

    /// `kill -9`.
    pub async fn kill(&mut self) {
        self.child.take().expect("it runs").kill().await;
    }

    /// SIGTERM; must end with code 0.
    pub async fn terminate(&mut self) {
        let code = self.child.take().expect("it runs").terminate().await;
        assert_eq!(code, Some(0), "{}", self.tail());
    }

    /// Waits for its end and gives its exit code; `None` when a signal ended it.
    pub async fn ended(&mut self) -> Option<i32> {
        let ended = self.child.as_mut().expect("it runs").ended(Duration::from_secs(30)).await;
        let ended = ended.unwrap_or_else(|| panic!("it does not end:\n{}", self.tail()));
        self.child = None;
        ended.code()
    }

    /// A JSON answer of its RPC.
    pub async fn get(&self, path: &str) -> Option<Value> {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        self.http.get(url).send().await.ok()?.json().await.ok()
    }

    /// What it says of itself in `/status`; null when it does not answer.
    pub async fn status(&self) -> Value {
        self.get("/status").await.unwrap_or_default()
    }

    /// Calls a method of StoreService in Connect JSON.
    pub async fn store_service(&self, method: &str, request: &Value) -> Value {
        let url = format!("http://127.0.0.1:{}/evnode.v1.StoreService/{method}", self.port);
        let answer = self.http.post(url).json(request).send().await.expect("it answers");
        answer.json().await.expect("the answer is JSON")
    }

    /// The status code and body of an answer of its key-value app.
    pub async fn kv(&self, path: &str) -> (u16, String) {
        let url = format!("http://127.0.0.1:{}{path}", self.port + 1);
        let answer = self.http.get(url).send().await.expect("it answers");
        (answer.status().as_u16(), answer.text().await.unwrap_or_default())
    }

    /// Posts a transaction to it.
    pub async fn post(&self, tx: &str) -> (u16, String) {
        let url = format!("http://127.0.0.1:{}/tx", self.port + 1);
        let answer = self.http.post(url).body(tx.to_owned()).send().await.expect("it answers");
        (answer.status().as_u16(), answer.text().await.unwrap_or_default())
    }

    /// Why it is not ready; empty when it is.
    pub async fn unready(&self) -> String {
        let ready = self.http.get(format!("http://127.0.0.1:{}/health/ready", self.port)).send().await;
        match ready {
            Ok(ready) if ready.status().is_success() => String::new(),
            Ok(ready) => ready.text().await.unwrap_or_default(),
            Err(error) => error.to_string(),
        }
    }

    /// The text of its `/metrics`.
    pub async fn metrics(&self) -> String {
        let answer = self.http.get(format!("http://127.0.0.1:{}/metrics", self.port)).send().await;
        answer.expect("it answers").text().await.expect("metrics are text")
    }

    /// Waits until it has executed a height and knows it to be on DA.
    pub async fn reach(&self, height: u64) {
        self.until("a height, executed and included", || async {
            let status = self.status().await;
            status["follow"]["executed"].as_u64().is_some_and(|executed| executed >= height)
                && status["da"]["included"].as_u64().is_some_and(|included| included >= height)
        })
        .await;
    }

    /// Waits until it has executed a height, whether or not that is on DA.
    pub async fn execute(&self, height: u64) {
        self.until("a height, executed", || async {
            self.status().await["follow"]["executed"].as_u64().is_some_and(|executed| executed >= height)
        })
        .await;
    }

    /// Waits until something holds.
    pub async fn until<F: Future<Output = bool>>(&self, what: &str, holds: impl Fn() -> F) {
        let deadline = Instant::now() + Duration::from_secs(120);
        while !holds().await {
            assert!(Instant::now() < deadline, "waited two minutes for {what}:\n{}", self.tail());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The hash of every header in its store, by height. It must have stopped.
    #[must_use]
    pub fn hashes(&self) -> Vec<(Height, Hash)> {
        assert!(self.child.is_none(), "it runs");
        let genesis = baton::genesis::load(&self.home.genesis()).expect("init took it over");
        hashes(&self.home, &genesis)
    }
}

/// The hash of every header in the store of a node that has stopped, by height; every body is there.
///
/// # Panics
///
/// When the store does not open, or has a gap.
#[must_use]
pub fn hashes(home: &Home, genesis: &Genesis) -> Vec<(Height, Hash)> {
    let store = Store::open(open_options(home, genesis)).expect("the store opens");
    let reader = store.reader();
    let all = (genesis.initial_height.0..=reader.tip().height.0).map(Height).map(|height| {
        let block = reader.block(height).expect("readable").expect("no gap");
        (height, block.hash())
    });
    let all = all.collect();
    store.close();
    all
}

impl Drop for Follower {
    /// What a failed test leaves is kept to be looked at.
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(directory) = self.directory.take()
        {
            eprintln!("kept {}", directory.keep().display());
        }
    }
}
