//! A real `baton devnet`, as another program uses it: lines of JSON, a killed node, signals.
#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;
use sim::process::{Devnet, free_ports, pid};
use tokio::process::Command;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

fn is_alive(pid: Pid) -> bool {
    test_kill_process(pid).is_ok()
}

async fn height(node: &Value) -> u64 {
    let url = format!("{}/status", node["http"].as_str().expect("a node has HTTP"));
    let status: Value = reqwest::get(url).await.expect("the node answers").json().await.expect("JSON");
    status["tip"]["height"].as_u64().expect("a height")
}

/// Posts a transaction and waits until it was executed.
async fn post(node: &Value, tx: &str) {
    let url = format!("{}/tx?wait=executed", node["kv"].as_str().expect("a node has the key-value app"));
    let answer = reqwest::Client::new().post(url).body(tx.to_owned()).send().await.expect("the node answers");
    assert_eq!(answer.status().as_u16(), 200, "{tx}");
}

async fn value(node: &Value, key: &str) -> String {
    let url = format!("{}/kv?key={key}", node["kv"].as_str().expect("a node has the key-value app"));
    reqwest::get(url).await.expect("the node answers").text().await.expect("text")
}

#[tokio::test]
async fn a_killed_node_is_reported_restarted_by_its_command_and_recognised_and_the_chain_resumes() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (home, port) = (directory.path().join("a net"), free_ports(14));
    let mut devnet = Devnet::start(&home, port, &[]);

    let da = devnet.next().await.expect("the first line is a process");
    assert_eq!(
        (da["role"].as_str(), da["rpc"].as_str()),
        (Some("da"), Some(&*format!("http://127.0.0.1:{port}")))
    );
    let node = devnet.next().await.expect("the second line is a process");
    assert_eq!((node["role"].as_str(), node["name"].as_str()), (Some("node"), Some("node1")));
    for (field, scheme) in
        [("rpc", "http"), ("http", "http"), ("kv", "http"), ("p2p", "tcp"), ("raft", "tcp")]
    {
        let url = node[field].as_str().expect("a node has all addresses");
        assert!(url.starts_with(&format!("{scheme}://127.0.0.1:")), "{field} {url}");
    }
    devnet.event("producing").await;
    post(&node, "a=1").await;

    kill_process(pid(&node), Signal::KILL).expect("it runs");
    let exited = devnet.event("exited").await;
    assert_eq!((exited["name"].as_str(), exited["signal"].as_i64()), (Some("node1"), Some(9)));
    assert_eq!(exited["pid"], node["pid"]);
    assert!(is_alive(pid(&da)), "the rest goes on");

    let command = exited["restart"].as_str().expect("the event says how to restart");
    let mut again = Command::new("sh");
    again.arg("-c").arg(format!("exec {command}")).stdin(Stdio::null()).stdout(Stdio::null());
    let mut again = again.stderr(Stdio::null()).kill_on_drop(true).spawn().expect("a shell");
    let back = devnet.listening().await;
    assert_eq!(back["pid"].as_u64(), again.id().map(u64::from), "the new process is recognised");
    devnet.event("restarted").await;
    devnet.event("producing").await;
    assert_eq!(value(&back, "a").await, "1");
    post(&back, "b=2").await;
    let before = height(&back).await;

    // What was restarted by hand is stopped too.
    devnet.signal(Signal::TERM);
    let (rest, status) = devnet.end().await;
    assert_eq!(status.code(), Some(0), "{rest:?}");
    assert_eq!(rest.last().expect("a last line")["event"], "stopped");
    let ended = timeout(PATIENCE, again.wait()).await.expect("it was told to stop").expect("it was a child");
    assert_eq!(ended.code(), Some(0));
    assert!(!is_alive(pid(&da)), "a child was left");

    let mut devnet = Devnet::start(&home, port, &["--for", "8s"]);
    let (da, node) = (devnet.listening().await, devnet.listening().await);
    devnet.event("producing").await;
    assert!(height(&node).await >= before, "the same home resumes the chain");
    assert_eq!((value(&node, "a").await, value(&node, "b").await), ("1".to_owned(), "2".to_owned()));
    let (rest, status) = devnet.end().await;
    assert_eq!(status.code(), Some(0), "{rest:?}");
    assert!(!is_alive(pid(&da)) && !is_alive(pid(&node)), "a child was left");
}

#[tokio::test]
async fn a_taken_port_is_named_before_anything_starts() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (home, port) = (directory.path().join("net"), free_ports(14));
    for offset in [0, 10, 11, 13] {
        let taken = port + offset;
        let _holder = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, taken))).expect("it was free");
        let devnet = Devnet::start(&home, port, &[]).child.wait_with_output();
        let output = timeout(PATIENCE, devnet).await.expect("it ends").expect("it was a child");
        assert_eq!(output.status.code(), Some(75), "worth another try");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(&format!("port {taken} (")), "{said}");
        assert!(!home.exists(), "nothing was made");
    }
}
