//! Health, condition and metrics.

use baton_messages::cluster::{ClusterView, LeaderHint};
use baton_messages::raft::RaftView;
use baton_messages::sequencer::QueueView;
use baton_messages::supervisor::SupervisorView;
use baton_messages::types::{Grant, Height, Member, MemberId, Role};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::node::{Setup, TERM, log};
use crate::rpc::serve::Metrics;
use crate::rpc::{Limits, Server};

/// A node that leads and produces.
fn leading() -> Setup {
    let mut setup = Setup::new(log());
    let itself = (MemberId(1), Member { name: "n1".to_owned(), ..Member::default() });
    setup.status.raft = Some(RaftView {
        id: MemberId(1),
        role: Role::Leader,
        term: TERM,
        leader: Some(itself.clone()),
        voters: vec![itself],
        ..RaftView::default()
    });
    setup.status.supervisor = Some(SupervisorView {
        grant: Some(Grant { term: TERM }),
        executed: Height(3),
        ..SupervisorView::default()
    });
    setup.status.queue = Some(QueueView { txs: 5, max_txs: 10, ..QueueView::default() });
    setup
}

#[tokio::test]
async fn a_producing_leader_is_live_and_ready() {
    leading()
        .run(async |node| {
            assert_eq!(node.get("/health/live").await, (200, "OK\n".to_owned()));
            assert_eq!(node.get("/health/ready").await, (200, "READY\n".to_owned()));
        })
        .await;
}

#[tokio::test]
async fn a_node_that_is_not_ready_is_live_and_says_why_in_one_line() {
    let mut setup = Setup::new(vec![]);
    setup.status = leading().status;
    setup.status.tip = Default::default();
    setup.status.supervisor.as_mut().unwrap().pause = Some("the disk\nis full".to_owned());
    setup
        .run(async |node| {
            assert_eq!(node.get("/health/live").await, (200, "OK\n".to_owned()));
            let expected = "UNREADY: no blocks yet; not producing: the disk is full\n";
            assert_eq!(node.get("/health/ready").await, (503, expected.to_owned()));
        })
        .await;
}

#[tokio::test]
async fn a_node_whose_actors_are_silent_still_answers() {
    Setup::new(log())
        .run(async |node| {
            assert_eq!(node.get("/health/live").await, (200, "OK\n".to_owned()));
            let (status, body) = node.get("/health/ready").await;
            assert_eq!(
                (status, body.as_str()),
                (503, "UNREADY: raft does not answer; the supervisor does not answer\n")
            );
            let (status, body) = node.get("/raft/node").await;
            let body: Value = serde_json::from_str(&body).unwrap();
            assert_eq!((status, &body["is_leader"], &body["node_id"]), (200, &json!(false), &json!("n1")));
            assert_eq!(node.get("/status").await.0, 200);
            assert_eq!(node.get("/metrics").await.0, 200);
        })
        .await;
}

#[tokio::test]
async fn only_the_leader_calls_itself_so_and_the_others_name_it() {
    leading()
        .run(async |node| {
            assert_eq!(node.get("/health/leader").await, (200, "LEADER\n".to_owned()));
        })
        .await;
    let mut setup = leading();
    let other = (MemberId(2), Member { name: "n2".to_owned(), ..Member::default() });
    let raft = setup.status.raft.as_mut().unwrap();
    (raft.role, raft.leader) = (Role::Follower, Some(other));
    let hint = LeaderHint { id: MemberId(2), rpc: "h2:7331".to_owned(), ..LeaderHint::default() };
    setup.status.cluster = Some(ClusterView { leader: Some(hint), ..ClusterView::default() });
    setup
        .run(async |node| {
            let answer = reqwest::get(format!("http://{}/health/leader", node.address)).await.unwrap();
            assert_eq!(answer.status().as_u16(), 503);
            let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
            assert_eq!(
                (header("baton-leader"), header("baton-leader-rpc")),
                ("n2".to_owned(), "h2:7331".to_owned())
            );
            assert_eq!(header("baton-term"), "1");
            assert_eq!(answer.text().await.unwrap(), "NOT LEADER: n2 leads in term 1, rpc h2:7331\n");
            // Whoever serves is ready, leader or not.
            assert_eq!(node.get("/health/ready").await.0, 200);
        })
        .await;
}

#[tokio::test]
async fn status_says_everything() {
    leading()
        .run(async |node| {
            let (status, body) = node.get("/status").await;
            let body: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(status, 200);
            assert_eq!(body["chain_id"], json!("test-chain"));
            assert_eq!(body["ready"], json!(true));
            assert_eq!(body["tip"]["height"], json!(3));
            assert_eq!(body["da"], json!({"headers": 2, "data": 2, "included": 2, "da_height": 8}));
            assert_eq!(body["raft"]["role"], json!("leader"));
            assert_eq!(body["supervisor"]["grant"], json!(1));
            assert_eq!(body["queue"]["txs"], json!(5));
            assert_eq!(body["signer"], Value::Null);
            let (_, body) = node.get("/raft/node").await;
            let body: Value = serde_json::from_str(&body).unwrap();
            assert_eq!((&body["is_leader"], &body["leader"]["name"]), (&json!(true), &json!("n1")));
        })
        .await;
}

#[tokio::test]
async fn other_methods_and_paths_are_refused() {
    leading()
        .run(async |node| {
            for path in
                ["/health/live", "/health/ready", "/health/leader", "/raft/node", "/status", "/metrics"]
            {
                assert_eq!(
                    node.ask(Method::POST, path).await,
                    (405, "method not allowed\n".to_owned()),
                    "{path}"
                );
                assert_eq!(node.ask(Method::DELETE, path).await.0, 405, "{path}");
                assert_eq!(node.ask(Method::HEAD, path).await, (200, String::new()), "{path}");
            }
            assert_eq!(node.get("/nothing").await, (404, "not found\n".to_owned()));
            assert_eq!(node.get("/").await.0, 404);
        })
        .await;
}

#[tokio::test]
async fn metrics_say_what_the_node_knows_and_every_name_once() {
    leading().run(async |node| {
        let (_, answer) = node.json("StoreService/GetBlock", json!({"height": "9"})).await;
        assert_eq!(answer["code"], json!("internal"));
        let (status, text) = node.get("/metrics").await;
        assert_eq!(status, 200);
        let expected = [
            "evnode_node_tip_height{chain_id=\"test-chain\"} 3",
            "evnode_node_da_included_height{chain_id=\"test-chain\"} 2",
            "evnode_node_ready{chain_id=\"test-chain\"} 1",
            "evnode_node_leader{chain_id=\"test-chain\"} 1",
            "evnode_node_producing{chain_id=\"test-chain\"} 1",
            "evnode_node_executed_height{chain_id=\"test-chain\"} 3",
            "evnode_node_queue_txs{chain_id=\"test-chain\"} 5",
            "evnode_rpc_connections{chain_id=\"test-chain\"} 1",
            "evnode_rpc_calls_total{chain_id=\"test-chain\",method=\"evnode.v1.StoreService/GetBlock\",code=\"internal\"} 1",
            "baton_build_info{chain_id=\"test-chain\",version=",
            "evnode_storage_fsyncs_total{chain_id=\"test-chain\"} ",
            "process_resident_memory_bytes{chain_id=\"test-chain\"} ",
            "process_open_fds{chain_id=\"test-chain\"} ",
            "process_cpu_seconds_total{chain_id=\"test-chain\"} ",
        ];
        for line in expected {
            assert!(text.lines().any(|found| found.starts_with(line)), "no line {line} in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"), "{text}");
        let mut names: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all, "a name twice in\n{text}");
    })
    .await;
}

#[tokio::test]
async fn a_reason_is_a_series_while_it_holds() {
    let mut setup = leading();
    setup.status.supervisor.as_mut().unwrap().pause = Some("say \"DA\"".to_owned());
    setup
        .run(async |node| {
            let (_, text) = node.get("/metrics").await;
            let line =
                "evnode_node_unready{chain_id=\"test-chain\",reason=\"not producing: say \\\"DA\\\"\"} 1";
            assert!(text.lines().any(|found| found == line), "{text}");
        })
        .await;
}

#[tokio::test]
async fn metrics_have_a_port_of_their_own() {
    leading()
        .run(async |node| {
            let limits = Limits::default();
            let listener = Server::listen_for_metrics("127.0.0.1:0", limits, Metrics::default());
            let server = Server::for_metrics(listener.await.unwrap(), node.metrics.clone(), limits);
            let address = server.local_addr();
            let (stop, stopped) = oneshot::channel::<()>();
            let serving = tokio::spawn(server.serve(async {
                let _ = stopped.await;
            }));
            let response = reqwest::get(format!("http://{address}/metrics")).await.unwrap();
            let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
            assert!(content_type.starts_with("application/openmetrics-text"), "{content_type}");
            assert!(response.text().await.unwrap().contains("evnode_node_tip_height"));
            assert_eq!(reqwest::get(format!("http://{address}/status")).await.unwrap().status(), 404);
            drop(stop);
            serving.await.unwrap();
        })
        .await;
}
