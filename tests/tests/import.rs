//! From a single sequencer to a cluster, as real processes. Where ev-node is not there, a Baton node
//! of its own stands in for the old sequencer: its home has the same files.
#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use baton::home::Home;
use baton_messages::genesis::Genesis;
use serde_json::Value;
use sim::process::{Child, Site, baton, free_ports, hashes};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

const FAST: [&str; 4] = ["--evnode.node.block_time", "100ms", "--evnode.da.block_time", "1s"];

/// The machines that the chain moves to.
struct Target {
    directory: TempDir,
    port: u16,
    passphrase: PathBuf,
    http: reqwest::Client,
}

impl Target {
    fn new(passphrase: &Path) -> Self {
        Self {
            directory: tempfile::tempdir().expect("a temporary directory"),
            port: free_ports(9),
            passphrase: passphrase.to_owned(),
            http: reqwest::Client::builder().timeout(Duration::from_secs(5)).build().expect("a client"),
        }
    }

    fn home(&self, number: u16) -> Home {
        Home::new(self.directory.path().join(format!("n{number}")))
    }

    fn address(&self, number: u16, offset: u16) -> String {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port + number * 3 + offset)).to_string()
    }

    fn log(&self, number: u16) -> PathBuf {
        self.directory.path().join(format!("log{number}"))
    }

    fn tail(&self, number: u16) -> String {
        let log = fs::read(self.log(number)).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Runs a command on a home. Returns its code, and stdout and stderr together.
    async fn command(&self, number: u16, words: &[&str]) -> (i32, String) {
        let output = Command::new(baton())
            .args(words)
            .arg("--home")
            .arg(self.home(number).root())
            .stdin(Stdio::null())
            .output()
            .await
            .expect("the program can be started");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
    }

    /// Starts a node with its addresses and these flags.
    fn start(&self, number: u16, flags: &[&str]) -> Child {
        let home = self.home(number).root().display().to_string();
        let (rpc, kv) = (self.address(number, 0), self.address(number, 1));
        let passphrase = self.passphrase.display().to_string();
        let fixed = ["start", "--home", &home, "--rpc.address", &rpc, "--kv-endpoint", &kv];
        let fixed = [&fixed[..], &["--signer.passphrase_file", &passphrase]].concat();
        // All of them are on one machine.
        let fixed = [&fixed[..], &["--p2p.listen_address", "/ip4/127.0.0.1/tcp/0"]].concat();
        let args: Vec<String> = fixed.iter().chain(flags).map(|word| (*word).to_owned()).collect();
        Child::start("target", &args, &[], &self.log(number))
    }

    async fn status(&self, number: u16) -> Value {
        let answer = self.http.get(format!("http://{}/status", self.address(number, 0))).send().await;
        match answer {
            Ok(answer) => answer.json().await.unwrap_or_default(),
            Err(_) => Value::Null,
        }
    }

    async fn height(&self, number: u16) -> u64 {
        self.status(number).await["tip"]["height"].as_u64().unwrap_or_default()
    }

    async fn is_leader(&self, number: u16) -> bool {
        let answer = self.http.get(format!("http://{}/health/leader", self.address(number, 0))).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    async fn post(&self, number: u16, tx: &str) -> bool {
        let url = format!("http://{}/tx?wait=executed&timeout=5s", self.address(number, 1));
        let answer = self.http.post(url).body(tx.to_owned()).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    async fn until<F: Future<Output = bool>>(&self, what: &str, holds: impl Fn() -> F) {
        let deadline = Instant::now() + Duration::from_secs(120);
        while !holds().await {
            let logs = (0..3).map(|number| self.tail(number)).collect::<Vec<_>>().join("\n---\n");
            assert!(Instant::now() < deadline, "waited two minutes for {what}:\n{logs}");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Every file below a directory but those of a database, with what is in it.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).expect("readable").flatten() {
        let path = entry.path();
        if path.is_file() {
            found.insert(path.clone(), fs::read(&path).expect("readable"));
        }
    }
    found
}

fn import_args(old: &Home, passphrase: &Path) -> Vec<String> {
    let (old, passphrase) = (old.root().display().to_string(), passphrase.display().to_string());
    let words = ["import", "--from", &old, "--signer.passphrase_file", &passphrase];
    words
        .iter()
        .chain(&["--engine.kv_roots", "tree", "--raft.node_id", "n0"])
        .map(|word| (*word).to_owned())
        .collect()
}

fn words(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

/// The old sequencer makes no block any more, and everything is on DA: its last height.
async fn rest(site: &Site) -> u64 {
    let output = Command::new(baton()).args(["pause", "--home"]).arg(site.home.root()).output().await;
    assert!(output.expect("the program can be started").status.success());
    site.until("everything on DA", || async {
        let status = site.status().await.unwrap_or_default();
        status["da"]["included"].is_u64() && status["da"]["included"] == status["tip"]["height"]
    })
    .await;
    let height = site.height().await;
    sleep(Duration::from_millis(500)).await;
    assert_eq!(site.height().await, height, "it rests");
    height
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_chain_of_a_single_sequencer_goes_on_in_a_cluster() {
    let site = Site::new(&FAST).await;
    let old = site.started().await;
    let (code, why) = site.post("before=1", "executed").await;
    assert_eq!(code, 200, "{why}");
    let passphrase = site.home.root().with_file_name("passphrase");
    let target = Target::new(&passphrase);
    let before = files(&site.home.root().join("config"));

    let import = import_args(&site.home, &passphrase);
    let (code, said) = target.command(0, &words(&import)).await;
    assert_eq!(code, 0, "{said}");
    let guard = site.home.guard();
    let unchanged = |found: BTreeMap<PathBuf, Vec<u8>>| -> BTreeMap<_, _> {
        found.into_iter().filter(|(path, _)| *path != guard).collect()
    };
    assert_eq!(
        unchanged(files(&site.home.root().join("config"))),
        unchanged(before),
        "nothing of the old home is changed"
    );
    let (code, said) = target.command(0, &words(&import)).await;
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("was imported already"), "{said}");

    // Whatever the settings say, a home that follows never produces.
    let mut eager = target.start(0, &["--node.aggregator=true"]);
    assert_eq!(eager.ended(Duration::from_secs(30)).await.and_then(|end| end.code()), Some(78));
    assert!(target.tail(0).contains("baton import --finish"), "{}", target.tail(0));

    let follower = target.start(0, &["--da.block_time", "1s"]);
    target.until("the follower to follow", || async { target.height(0).await > 10 }).await;
    let (code, said) = target.command(0, &["import", "--finish", "--at", "10"]).await;
    assert_eq!(code, 75, "the node runs: {said}");
    assert_eq!(follower.terminate().await, Some(0));
    let (code, said) = target.command(0, &["import", "--finish", "--at", "10"]).await;
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("has the old sequencer's database"), "M1: the old sequencer runs: {said}");

    let last = rest(&site).await;
    assert_eq!(old.terminate().await, Some(0));
    let follower = target.start(0, &["--da.block_time", "1s"]);
    target.until("the old chain's last block", || async { target.height(0).await >= last }).await;
    assert_eq!(follower.terminate().await, Some(0));

    let at = last.to_string();
    for (height, reason) in [(last - 1, "went on"), (last + 1, "follows to there")] {
        let (code, said) = target.command(0, &["import", "--finish", "--at", &height.to_string()]).await;
        assert_eq!(code, 78, "{said}");
        assert!(said.contains(reason), "{said}");
    }
    let (code, said) = target.command(0, &["import", "--finish", "--at", &at]).await;
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("key is still at"), "M1: {said}");
    fs::rename(site.home.signer(), site.home.signer().with_extension("retired")).expect("it is there");
    for _ in 0..2 {
        let (code, said) = target.command(0, &["import", "--finish", "--at", &at]).await;
        assert_eq!(code, 0, "it can be done again: {said}");
    }

    // It goes on where the old one stopped, alone first.
    let cluster = target.address(0, 2);
    let own = ["--node.block_time", "100ms", "--da.block_time", "1s", "--raft.enable"];
    let own = [&own[..], &["--raft.raft_addr", &cluster, "--raft.tls.insecure_loopback"]].concat();
    let mut nodes = vec![target.start(0, &own)];
    target.until("the chain to go on", || async { target.height(0).await > last + 5 }).await;
    target.until("a transaction", || async { target.post(0, "alone=1").await }).await;

    let first = target.home(0);
    for number in [1, 2] {
        let (genesis, keys) = (first.genesis().display().to_string(), first.root().join("config"));
        let (keys, name) = (keys.display().to_string(), format!("n{number}"));
        let passphrase = passphrase.display().to_string();
        let (own, da) = (target.address(number, 2), site.da_url());
        let member = ["init", "--member", "--genesis", &genesis, "--signer-from", &keys];
        let member =
            [&member[..], &["--signer.passphrase_file", &passphrase, "--raft.node_id", &name]].concat();
        let member =
            [&member[..], &["--raft.enable", "--raft.raft_addr", &own, "--raft.join", &cluster]].concat();
        let member = [&member[..], &["--raft.tls.insecure_loopback", "--da.address", &da]].concat();
        let namespaces = target_namespaces(&first);
        let names = ["--da.namespace", &namespaces[0], "--da.data_namespace", &namespaces[1]];
        let (code, said) = target.command(number, &[&member[..], &names].concat()).await;
        assert_eq!(code, 0, "{said}");
        assert!(target.home(number).import_record().exists(), "M3: it waits for the same block");
        nodes.push(target.start(number, &["--node.block_time", "100ms", "--da.block_time", "1s"]));
    }
    target
        .until("two learners to be level and promoted", || async {
            target.command(0, &["cluster", "promote", "n1", "n2"]).await.0 == 0
        })
        .await;
    target
        .until("the others to have it", || async {
            target.height(1).await > last + 5 && target.height(2).await > last + 5
        })
        .await;

    // The machine that took over dies, and the chain goes on.
    let before = target.height(1).await;
    nodes.remove(0).kill().await;
    target.until("a new leader", || async { target.is_leader(1).await || target.is_leader(2).await }).await;
    target.until("more blocks", || async { target.height(1).await > before + 5 }).await;
    target.until("a transaction", || async { target.post(1, "after=1").await }).await;
    for node in nodes {
        assert_eq!(node.terminate().await, Some(0));
    }

    let genesis: Genesis = site.genesis();
    let old = hashes(&site.home, &genesis);
    assert_eq!(old.len() as u64, last);
    for number in 0..3 {
        let new = hashes(&target.home(number), &genesis);
        assert!(new.len() > old.len() + 5, "{} blocks", new.len());
        assert_eq!(new[..old.len()], old[..], "one chain, on node {number}");
    }
}

/// The namespaces of a home, as its configuration has them.
fn target_namespaces(home: &Home) -> [String; 2] {
    let text = fs::read_to_string(home.config()).expect("there is one");
    let value = |key: &str| {
        let line = text.lines().find(|line| line.trim_start().starts_with(&format!("{key}:")));
        let value = line.and_then(|line| line.split_once(':')).expect("it is set").1;
        value.trim().trim_matches(['"', '\'']).to_owned()
    };
    [value("namespace"), value("data_namespace")]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_imported_is_refused_and_nothing_is_made() {
    let site = Site::new(&FAST).await;
    let passphrase = site.home.root().with_file_name("passphrase");
    let target = Target::new(&passphrase);
    let refused = |number: u16, reason: &'static str| {
        let (target, import) = (&target, import_args(&site.home, &passphrase));
        async move {
            let (code, said) = target.command(number, &words(&import)).await;
            assert!(code == 78 || code == 64, "{code}: {said}");
            assert!(said.contains(reason), "{reason}: {said}");
            assert!(!target.home(number).store().exists(), "{said}");
        }
    };
    let config = site.home.config();
    let text = fs::read_to_string(&config).expect("init wrote it");
    let write = |more: &str| fs::write(&config, format!("{text}\n{more}")).expect("it can be written");
    write("nonsense:\n  key: 1\n");
    refused(0, "unknown key").await;
    write("pruning:\n  pruning_mode: all\n");
    refused(0, "pruning").await;
    fs::write(&config, &text).expect("it can be written");

    let evm = site.home.data().join("evm-single");
    fs::create_dir_all(&evm).expect("it can be made");
    refused(0, "EVM").await;
    fs::remove_dir(&evm).expect("it is there");

    let aside = site.home.signer().with_extension("aside");
    fs::rename(site.home.signer(), &aside).expect("it is there");
    refused(0, "there is no").await;
    fs::rename(&aside, site.home.signer()).expect("it is there");

    let inside = ["import", "--from", &site.home.root().display().to_string()].map(str::to_owned);
    let output = Command::new(baton()).args(&inside).arg("--home").arg(site.home.root()).output().await;
    let output = output.expect("the program can be started");
    assert_eq!(output.status.code(), Some(64), "{}", String::from_utf8_lossy(&output.stderr));

    // A home that was cut short is completed, and never becomes another chain's beginning.
    let (code, said) = target.command(0, &words(&import_args(&site.home, &passphrase))).await;
    assert_eq!(code, 0, "{said}");
    fs::remove_dir_all(target.home(0).store()).expect("it is there");
    let (code, said) = target.command(0, &["init"]).await;
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("baton import"), "M4: {said}");
    let (code, said) = target.command(0, &words(&import_args(&site.home, &passphrase))).await;
    assert_eq!(code, 0, "{said}");
}
