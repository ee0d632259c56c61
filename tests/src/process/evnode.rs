//! ev-node's own program (`testapp`), named by `BATON_EVNODE`: the other side of interoperability.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::child::{Child, free_ports};

/// Names where ev-node's `testapp` is.
pub const EVNODE: &str = "BATON_EVNODE";

/// A node of ev-node's program.
#[derive(Debug)]
pub struct EvNode {
    directory: Option<TempDir>,
    program: PathBuf,
    child: Option<Child>,
    port: u16,
    aggregator: bool,
    flags: Vec<String>,
    http: reqwest::Client,
}

impl EvNode {
    /// ev-node's program; `None` where this machine has none.
    #[must_use]
    pub fn program() -> Option<PathBuf> {
        std::env::var_os(EVNODE).map(PathBuf::from).filter(|path| path.exists())
    }

    /// Makes the home of a node that produces a new chain.
    ///
    /// # Panics
    ///
    /// When something does not work; that is true of all functions here.
    pub async fn aggregator(program: &Path, flags: &[&str]) -> Self {
        Self::make(program, None, flags).await
    }

    /// Makes the home of a full node of the chain with this genesis.
    pub async fn full(program: &Path, genesis: &Path, flags: &[&str]) -> Self {
        Self::make(program, Some(genesis), flags).await
    }

    async fn make(program: &Path, genesis: Option<&Path>, flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::write(directory.path().join("passphrase"), "a passphrase for tests\n")
            .expect("it can be written");
        let node = Self {
            program: program.to_owned(),
            child: None,
            port: free_ports(3),
            aggregator: genesis.is_none(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            http: reqwest::Client::builder().timeout(Duration::from_secs(5)).build().expect("a client"),
            directory: Some(directory),
        };
        let mut init = vec!["init".to_owned(), "--home".to_owned(), node.home().display().to_string()];
        if node.aggregator {
            init.extend(node.key_flags());
        }
        let made =
            Child::of(program, "testapp init", &init, &[], &node.log()).ended(Duration::from_secs(30)).await;
        assert!(made.is_some_and(|status| status.success()), "{}", node.tail());
        if let Some(genesis) = genesis {
            fs::copy(genesis, node.genesis()).expect("a full node takes the chain's genesis over");
        }
        node
    }

    fn key_flags(&self) -> [String; 3] {
        let passphrase = self.root().join("passphrase").display().to_string();
        ["--evnode.node.aggregator".to_owned(), "--evnode.signer.passphrase_file".to_owned(), passphrase]
    }

    fn root(&self) -> &Path {
        self.directory.as_ref().expect("there is one until the end").path()
    }

    fn home(&self) -> PathBuf {
        self.root().join("node")
    }

    /// Its genesis.
    #[must_use]
    pub fn genesis(&self) -> PathBuf {
        self.home().join("config/genesis.json")
    }

    /// Its log; every life adds to it.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.root().join("log")
    }

    /// The last lines of its log.
    #[must_use]
    pub fn tail(&self) -> String {
        let lines = self.lines();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Starts it and waits until its RPC answers.
    pub async fn start(&mut self) {
        self.start_with(&[]).await;
    }

    /// As [`EvNode::start`], with further flags for this life.
    pub async fn start_with(&mut self, flags: &[&str]) {
        let address = |offset| SocketAddr::from((Ipv4Addr::LOCALHOST, self.port + offset)).to_string();
        let mut args = vec![
            "start".to_owned(),
            "--home".to_owned(),
            self.home().display().to_string(),
            "--evnode.rpc.address".to_owned(),
            address(0),
            "--evnode.p2p.listen_address".to_owned(),
            format!("/ip4/127.0.0.1/tcp/{}", self.port + 2),
        ];
        if self.aggregator {
            args.extend(self.key_flags());
            args.extend(["--kv-endpoint".to_owned(), address(1)]);
        }
        args.extend(self.flags.iter().cloned());
        args.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self.child = Some(Child::of(&self.program, "testapp", &args, &[], &self.log()));
        let live = format!("http://{}/health/live", address(0));
        self.until("its RPC", || async { self.http.get(&live).send().await.is_ok() }).await;
    }

    /// SIGTERM, and waits for its end. Its code says little: a full node that is told to stop while it
    /// waits for peers ends with an error.
    pub async fn stop(&mut self) {
        let _ = self.child.take().expect("it runs").terminate().await;
    }

    /// `kill -9`.
    pub async fn kill(&mut self) {
        self.child.take().expect("it runs").kill().await;
    }

    /// Posts a transaction.
    pub async fn post(&self, tx: &str) {
        let url = format!("http://127.0.0.1:{}/tx", self.port + 1);
        let answer = self.http.post(url).body(tx.to_owned()).send().await.expect("it answers");
        assert_eq!(answer.status().as_u16(), 202, "{tx}");
    }

    /// Calls a method of StoreService in Connect JSON; null when it does not answer.
    pub async fn store_service(&self, method: &str, request: &Value) -> Value {
        let url = format!("http://127.0.0.1:{}/evnode.v1.StoreService/{method}", self.port);
        match self.http.post(url).json(request).send().await {
            Ok(answer) => answer.json().await.unwrap_or_default(),
            Err(_) => Value::Null,
        }
    }

    /// Where peers find it.
    pub async fn peer_address(&self) -> String {
        let rpc = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        peer_address(&self.http, &format!("http://{rpc}")).await
    }

    /// The lines of its log that are errors.
    #[must_use]
    pub fn errors(&self) -> Vec<String> {
        self.lines().into_iter().filter(|line| line.contains(" ERR ")).collect()
    }

    /// Its log, without the colours that it has also in a file.
    fn lines(&self) -> Vec<String> {
        let log = fs::read(self.log()).unwrap_or_default();
        String::from_utf8_lossy(&log).lines().map(without_colours).collect()
    }

    /// The height of its newest block.
    pub async fn height(&self) -> u64 {
        let newest = self.store_service("GetBlock", &json!({"height": "0"})).await;
        let height = newest["block"]["header"]["header"]["height"].as_str();
        height.and_then(|height| height.parse().ok()).unwrap_or(0)
    }

    /// A block as it serves it.
    pub async fn block(&self, height: u64) -> Value {
        self.store_service("GetBlock", &json!({"height": height.to_string()})).await["block"].clone()
    }

    /// Waits until something holds.
    pub async fn until<F: Future<Output = bool>>(&self, what: &str, holds: impl Fn() -> F) {
        let deadline = Instant::now() + Duration::from_secs(120);
        while !holds().await {
            assert!(Instant::now() < deadline, "waited two minutes for {what}:\n{}", self.tail());
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A line without what tells a terminal its colours.
fn without_colours(line: &str) -> String {
    let mut parts = line.split("\u{1b}[");
    let first = parts.next().unwrap_or_default().to_owned();
    // After each escape come numbers and an `m`.
    let rest = parts.map(|part| part.split_once('m').map_or(part, |(_, text)| text));
    std::iter::once(first.as_str()).chain(rest).collect()
}

/// The multiaddress of a node, with its peer id, as its P2PService says it: Baton's and ev-node's are
/// alike.
///
/// # Panics
///
/// When the node does not answer or does not listen.
pub async fn peer_address(http: &reqwest::Client, rpc: &str) -> String {
    let url = format!("{rpc}/evnode.v1.P2PService/GetNetInfo");
    let answer = http.post(url).json(&json!({})).send().await.expect("it answers");
    let info: Value = answer.json().await.expect("the answer is JSON");
    let address = info["netInfo"]["listenAddresses"][0].as_str().expect("it listens");
    match address.contains("/p2p/") {
        true => address.to_owned(),
        false => format!("{address}/p2p/{}", info["netInfo"]["id"].as_str().expect("it has an id")),
    }
}

impl Drop for EvNode {
    /// What a failed test leaves is kept to be looked at.
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(directory) = self.directory.take()
        {
            eprintln!("kept {}", directory.keep().display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_a_terminal_is_read_without_its_colours() {
        let line = "\u{1b}[90m8:36PM\u{1b}[0m \u{1b}[31mERR\u{1b}[0m no \u{1b}[36mcomponent=\u{1b}[0mmain";
        assert_eq!(without_colours(line), "8:36PM ERR no component=main");
    }
}
