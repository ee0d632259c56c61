//! Three real nodes, as an operator sees them: the devnet's events, commands over the socket, what
//! every port refuses, the record of events, the names in dashboard and alert rules.
#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use baton::home::Home;
use baton_actors::journal::{self, Event};
use baton_messages::types::{Hash, Height};
use reqwest::{Client, Method};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};
use sim::process::{Devnet, Scrape, baton, free_ports, pid};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_secs(60);

/// A devnet of three nodes that make blocks.
struct Site {
    directory: TempDir,
    devnet: Devnet,
    /// What each node said when it listened, by its name.
    nodes: BTreeMap<String, Value>,
    client: Client,
}

impl Site {
    async fn start(more: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let args = [&["--nodes", "3"], more].concat();
        let mut devnet = Devnet::start(&directory.path().join("net"), free_ports(44), &args);
        let mut nodes = BTreeMap::new();
        devnet.listening().await;
        for _ in 0..3 {
            let node = devnet.listening().await;
            nodes.insert(node["name"].as_str().expect("a name").to_owned(), node);
        }
        let client = Client::builder().timeout(Duration::from_secs(5)).build().expect("an HTTP client");
        let mut site = Self { directory, devnet, nodes, client };
        site.devnet.event("producing").await;
        site
    }

    fn home(&self, name: &str) -> PathBuf {
        PathBuf::from(self.nodes[name]["home"].as_str().expect("a home"))
    }

    async fn get(&self, name: &str, path: &str) -> Option<(u16, String)> {
        let url = format!("{}{path}", self.nodes[name]["http"].as_str().expect("a URL"));
        let answer = self.client.get(url).send().await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    /// The node that calls itself leader; there is one, or there will be.
    async fn leader(&self) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            for name in self.nodes.keys() {
                if self.get(name, "/health/leader").await.is_some_and(|(status, _)| status == 200) {
                    return name.clone();
                }
            }
            assert!(Instant::now() < deadline, "waited a minute for a leader");
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn other_than(&self, name: &str) -> String {
        self.nodes.keys().find(|other| *other != name).expect("there are three").clone()
    }

    /// Runs a command on a node. Returns its code, and stdout and stderr together.
    async fn command(&self, name: &str, args: &[&str]) -> (i32, String) {
        let output = Command::new(baton())
            .args(args)
            .arg("--home")
            .arg(self.home(name))
            .stdin(Stdio::null())
            .output()
            .await
            .expect("the program can be started");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
    }

    async fn cluster(&self, name: &str) -> Value {
        let (code, text) = self.command(name, &["cluster", "status", "--json"]).await;
        assert_eq!(code, 0, "{text}");
        serde_json::from_str(&text).expect("the status is JSON")
    }

    async fn until_cluster(&self, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.cluster(name).await;
            if holds(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "waited a minute for {what}: {status:#}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Posts a transaction and waits until it was executed there.
    async fn post(&self, name: &str, tx: &str) {
        let url = format!("{}/tx?wait=executed", self.nodes[name]["kv"].as_str().expect("a URL"));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.client.post(&url).body(tx.to_owned()).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            assert!(Instant::now() < deadline, "{name} did not take {tx} within a minute");
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn end(self) {
        self.devnet.signal(Signal::TERM);
        let (rest, status) = self.devnet.end().await;
        assert_eq!(status.code(), Some(0), "{rest:?}");
        drop(self.directory);
    }
}

/// What members say of a status that everybody is in it and could take over.
fn all_are_well(status: &Value) -> bool {
    let members = status["members"].as_array().map_or(&[][..], Vec::as_slice);
    members.len() == 3 && members.iter().all(|member| member["voter"] == true && member["eligible"] == true)
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_moves_on_command_and_after_a_kill_and_everything_is_on_record() {
    let mut site = Site::start(&[]).await;
    let first = site.leader().await;
    site.until_cluster(&first, "three voters that are well", all_are_well).await;
    for name in site.nodes.keys() {
        site.post(name, &format!("{name}=1")).await;
    }

    // Whoever does not lead says who does.
    let follower = site.other_than(&first);
    let (code, said) = site.command(&follower, &["handoff"]).await;
    assert_eq!(code, 75, "{said}");
    assert!(said.contains(&first), "{said}");
    let (code, said) = site.command(&follower, &["cluster", "remove", &first]).await;
    assert!(code == 75 && said.contains(&first), "{said}");

    let (code, said) = site.command(&first, &["handoff", "--to", &follower]).await;
    assert_eq!(code, 0, "{said}");
    assert_eq!(site.leader().await, follower);
    let told = site.devnet.event("failover").await;
    assert_eq!((told["name"].as_str(), told["from"].as_str()), (Some(&*follower), Some(&*first)), "{told}");
    assert!(told["gap_ms"].as_u64().is_some());

    // Refused until entries that can say it are in force, a moment after the start.
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let (code, said) = site.command(&follower, &["pause", "--reason", "a look"]).await;
        if code == 0 {
            break;
        }
        assert!(code == 64 && said.contains("entries of version") && Instant::now() < until, "{said}");
        sleep(Duration::from_millis(100)).await;
    }
    site.until_cluster(&follower, "the pause", |status| status["pause"].is_string()).await;
    assert_eq!(site.command(&follower, &["resume"]).await.0, 0);
    site.until_cluster(&follower, "its end", |status| status["pause"].is_null()).await;

    // A change that somebody has overtaken, and one that is against the rules.
    let version = site.cluster(&follower).await["version"].as_u64().expect("a version");
    let old = (version + 1).to_string();
    let (code, said) = site.command(&follower, &["cluster", "demote", &first, "--version", &old]).await;
    assert_eq!(code, 75, "{said}");
    let (code, said) = site.command(&follower, &["cluster", "promote", "nobody"]).await;
    assert_eq!(code, 64, "{said}");

    kill_process(pid(&site.nodes[&follower]), Signal::KILL).expect("it runs");
    let exited = site.devnet.event("exited").await;
    assert_eq!(exited["name"].as_str(), Some(&*follower));
    let told = site.devnet.event("failover").await;
    assert_eq!(told["from"].as_str(), Some(&*follower), "{told}");
    let second = site.leader().await;
    assert_ne!(second, follower);
    site.post(&second, "after=the kill").await;

    let restart = exited["restart"].as_str().expect("the event says how").to_owned();
    let mut again = Command::new("sh");
    let again = again.arg("-c").arg(format!("exec {restart}")).stdin(Stdio::null());
    let _again =
        again.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn().expect("a shell");
    site.devnet.event("restarted").await;
    site.until_cluster(&second, "the killed one to be well again", all_are_well).await;

    check_records(&site, &follower).await;
    site.end().await;
}

/// One hash per height over all members; the commands are on record where they were given.
async fn check_records(site: &Site, paused: &str) {
    let mut hashes: BTreeMap<Height, BTreeSet<Hash>> = BTreeMap::new();
    for name in site.nodes.keys() {
        let lines = journal::read(&Home::new(site.home(name)).events()).expect("a record");
        let mut last = Height(0);
        let (mut led, mut members) = (false, false);
        for line in &lines {
            match &line.event {
                Event::Block { height, hash, .. } => {
                    assert!(*height > last, "{name} has {height} after {last}");
                    last = *height;
                    hashes.entry(*height).or_default().insert(*hash);
                }
                Event::Leadership { .. } => led = true,
                Event::Members { voters, .. } => members |= voters.len() == 3,
                Event::Unrecorded { .. } | Event::Command { .. } => {}
                Event::HandshakeRefused { .. } | Event::Fork { .. } => {}
            }
        }
        assert!(led && members && last > Height(10), "{name}: {lines:?}");
        if name == paused {
            let is_paused = |event: &Event| {
                matches!(event, Event::Command { command, outcome, .. }
                    if command == "pause: a look" && outcome.starts_with("paused"))
            };
            assert!(lines.iter().any(|line| is_paused(&line.event)), "{lines:?}");
        }
    }
    let forked: Vec<_> = hashes.iter().filter(|(_, hashes)| hashes.len() > 1).collect();
    assert!(forked.is_empty(), "{forked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_port_takes_a_command_and_nothing_that_is_sent_to_one_changes_the_cluster() {
    let site = Site::start(&[]).await;
    let leader = site.leader().await;
    let before = site.until_cluster(&leader, "three voters that are well", all_are_well).await;
    let words = [
        "handoff",
        "pause",
        "resume",
        "shutdown",
        "cluster",
        "cluster/add",
        "cluster/promote",
        "cluster/remove",
    ];
    let roots = [
        "",
        "admin/",
        "raft/",
        "v1/",
        "api/",
        "health/",
        "evnode.v1.AdminService/",
        "evnode.v1.ConfigService/",
    ];
    let methods = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::GET];
    let body = json!({ "v": 1, "command": { "pause": { "reason": "over TCP" } } }).to_string();
    for node in site.nodes.values() {
        let http = node["http"].as_str().expect("a URL");
        let kv = node["kv"].as_str().expect("a URL");
        for base in [http, kv] {
            for path in roots.iter().flat_map(|root| words.iter().map(move |word| format!("{root}{word}"))) {
                for method in &methods {
                    let request =
                        site.client.request(method.clone(), format!("{base}/{path}")).body(body.clone());
                    let answer = request.header("content-type", "application/json").send().await;
                    let status = answer.expect("an answer").status().as_u16();
                    assert!((400..=599).contains(&status), "{method} {base}/{path}: {status}");
                }
            }
            for path in ["/raft/node", "/status", "/health/leader", "/health/ready"] {
                let answer = site.client.post(format!("{base}{path}")).body(body.clone()).send().await;
                assert!(answer.expect("an answer").status().is_client_error(), "{base}{path}");
            }
        }
        // The cluster's port speaks to members only, and the words of the socket are no handshake.
        let raft = node["raft"].as_str().expect("a URL").trim_start_matches("tcp://");
        let mut stream = tokio::net::TcpStream::connect(raft).await.expect("the port is open");
        let _refused = tokio::io::AsyncWriteExt::write_all(&mut stream, format!("{body}\n").as_bytes()).await;
        let mut answer = vec![];
        let _closed = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(!answer.contains("paused"), "{answer}");
    }
    let after = site.cluster(&leader).await;
    for field in ["version", "term", "leader", "pause"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    for name in site.nodes.keys() {
        let lines = journal::read(&Home::new(site.home(name)).events()).expect("a record");
        assert!(!lines.iter().any(|line| matches!(line.event, Event::Command { .. })), "{name}");
    }
    site.end().await;
}

/// Every metric that is named in a text.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let metric = |word: &&str| {
        word.starts_with("evnode_") || word.starts_with("process_") || word.starts_with("baton_")
    };
    words.filter(metric).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn dashboard_and_alert_rules_name_nothing_that_a_running_cluster_does_not_export() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let read = |name: &str| std::fs::read_to_string(docs.join(name)).expect("the documentation is here");
    let (dashboard, alerts) = (read("grafana/baton.json"), read("alerts.yml"));
    serde_json::from_str::<Value>(&dashboard).expect("the dashboard is JSON");
    let mut names = named(&dashboard);
    names.extend(named(&alerts));
    assert!(names.len() > 30, "{names:?}");

    let site = Site::start(&["--tls"]).await;
    let leader = site.leader().await;
    site.until_cluster(&leader, "three voters that are well", all_are_well).await;
    for name in site.nodes.keys() {
        site.post(name, &format!("{name}=1")).await;
    }
    // What only one who stood, led or was led exports.
    let to = site.other_than(&leader);
    assert_eq!(site.command(&leader, &["handoff", "--to", &to]).await.0, 0);
    site.leader().await;
    let mut families = BTreeSet::new();
    let is_exported = |families: &BTreeSet<String>, name: &str| {
        let suffixes = ["", "_total", "_bucket", "_sum", "_count", "_info"];
        suffixes.iter().filter_map(|suffix| name.strip_suffix(suffix)).any(|family| families.contains(family))
    };
    // A family with labels is exported from its first sample on: a leader's first answer from a
    // member, for example.
    let until = Instant::now() + Duration::from_secs(20);
    let missing = loop {
        for name in site.nodes.keys() {
            let (status, text) = site.get(name, "/metrics").await.expect("an answer");
            assert_eq!(status, 200);
            let scrape =
                Scrape::parse(&text).unwrap_or_else(|wrong| panic!("/metrics is not valid: {wrong}"));
            families.extend(scrape.families().into_iter().map(str::to_owned));
        }
        let missing: Vec<_> = names.iter().filter(|name| !is_exported(&families, name)).collect();
        if missing.is_empty() || Instant::now() >= until {
            break missing;
        }
        sleep(Duration::from_millis(100)).await;
    };
    assert!(missing.is_empty(), "nobody exports {missing:?}; there are {families:#?}");
    site.end().await;
}

/// A node beside a devnet, made with `baton init --member` and started with `--join`.
async fn joiner(site: &Path, first: &Value, name: &str, port: u16) -> tokio::process::Child {
    let home = site.join(name).display().to_string();
    let first_home = first["home"].as_str().expect("a home");
    let (genesis, keys) = (format!("{first_home}/config/genesis.json"), format!("{first_home}/config"));
    let passphrase = format!("{first_home}/passphrase");
    let raft = format!("127.0.0.1:{port}");
    let join = first["raft"].as_str().expect("a URL").trim_start_matches("tcp://");
    let init = ["init", "--member", "--home", &home, "--genesis", &genesis, "--signer-from", &keys];
    let own =
        ["--insecure-fast-kdf", "--signer.passphrase_file", &passphrase, "--da.namespace", "baton-devnet"];
    let cluster =
        ["--raft.node_id", name, "--raft.raft_addr", &raft, "--join", join, "--raft.tls.insecure_loopback"];
    let made = Command::new(baton()).args(init).args(own).args(cluster).output().await.expect("it runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let (rpc, kv) = (format!("127.0.0.1:{}", port + 1), format!("127.0.0.1:{}", port + 2));
    let start = [
        "start",
        "--home",
        &home,
        "--rpc.address",
        &rpc,
        "--kv.listen",
        &kv,
        "--node.block_time",
        "50ms",
        "--p2p.listen_address",
        "",
    ];
    let log = std::fs::File::create(site.join(format!("{name}.log"))).expect("a log");
    let mut command = Command::new(baton());
    let command = command.args(start).args(["--da.address", "http://127.0.0.1:1"]).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(log).kill_on_drop(true).spawn().expect("the program can be started")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_node_grows_to_three_by_command_while_it_produces_and_shrinks_again() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut devnet = Devnet::start(&directory.path().join("net"), free_ports(14), &[]);
    devnet.listening().await;
    let node = devnet.listening().await;
    devnet.event("producing").await;
    let nodes = BTreeMap::from([("node1".to_owned(), node.clone())]);
    let client = Client::builder().timeout(Duration::from_secs(5)).build().expect("an HTTP client");
    let port = free_ports(6);
    let _second = joiner(directory.path(), &node, "node2", port).await;
    let _third = joiner(directory.path(), &node, "node3", port + 3).await;
    let site = Site { directory, devnet, nodes, client };

    let learners = |status: &Value| {
        let members = status["members"].as_array().map_or(&[][..], Vec::as_slice);
        members.iter().filter(|member| member["role"] == "learner" && member["eligible"] == true).count() == 2
    };
    let status = site.until_cluster("node1", "two learners that are level", learners).await;
    let version = status["version"].as_u64().expect("a version").to_string();

    let (code, said) = site.command("node1", &["cluster", "promote", "node2"]).await;
    assert_eq!(code, 64, "two voters are worse than one: {said}");
    let promote = ["cluster", "promote", "node2", "node3", "--version", &version];
    let (code, said) = site.command("node1", &promote).await;
    assert_eq!(code, 0, "{said}");
    site.until_cluster("node1", "three voters that are well", all_are_well).await;
    site.post("node1", "grown=yes").await;
    let (code, said) = site.command("node1", &promote).await;
    assert_eq!(code, 75, "the version is over: {said}");

    let (code, said) = site.command("node1", &["cluster", "remove", "node3"]).await;
    assert_eq!(code, 64, "two voters would be left: {said}");
    assert_eq!(site.command("node1", &["cluster", "demote", "node3", "--force"]).await.0, 0);
    assert_eq!(site.command("node1", &["cluster", "remove", "node3"]).await.0, 0);
    assert_eq!(site.command("node1", &["cluster", "demote", "node2"]).await.0, 0);
    let status = site.until_cluster("node1", "one voter", |status| {
        let members = status["members"].as_array().map_or(&[][..], Vec::as_slice);
        members.iter().filter(|member| member["voter"] == true).count() == 1
    });
    assert_eq!(status.await["members"].as_array().map(Vec::len), Some(2));
    site.post("node1", "shrunk=yes").await;
    site.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_with_a_pool_of_its_own_is_fed_into_the_chain_by_the_leaders_reaper() {
    let site = Site::start(&["--", "--engine.kv_pool=true", "--evnode.node.scrape_interval=50ms"]).await;
    let leader = site.leader().await;
    let post = async |name: &str, tx: &str, wait: &str| {
        let url = format!("{}/tx{wait}", site.nodes[name]["kv"].as_str().expect("a URL"));
        let answer = site.client.post(url).body(tx.to_owned()).send().await.expect("it answers");
        (answer.status().as_u16(), answer.text().await.unwrap_or_default())
    };
    let (code, said) = post(&leader, "a=1", "?wait=executed&timeout=5s").await;
    assert_eq!(code, 200, "{said}");
    let first: Value = serde_json::from_str(&said).expect("JSON");
    assert!(first["height"].as_u64().is_some_and(|height| height > 0), "{said}");
    // As ev-node's testapp, and once however often it is posted.
    assert_eq!(post(&leader, "b=1", "").await.0, 202);
    let (code, said) = post(&leader, "b=1", "?wait=committed&timeout=5s").await;
    assert_eq!(code, 200, "{said}");
    let (code, said) = post(&leader, "a=1", "?wait=committed&timeout=5s").await;
    let again: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((code, &again["height"], &again["index"]), (200, &first["height"], &first["index"]), "{said}");
    let (code, said) = post(&leader, "c=1", "?wait=accepted").await;
    assert!(code == 400 && said.contains("in memory"), "{said}");
    let follower = site.nodes.keys().find(|name| **name != leader).expect("another");
    let (code, said) = post(follower, "d=1", "?wait=committed&timeout=5s").await;
    assert!(code == 503 && said.contains("does not lead") && said.contains(&leader), "{said}");
    let metrics = site.get(&leader, "/metrics").await.expect("it answers").1;
    let moved = metrics.lines().find(|line| line.starts_with("evnode_reaper_moved_total")).expect("counted");
    assert!(!moved.ends_with(" 0"), "{moved}");
    site.end().await;
}
