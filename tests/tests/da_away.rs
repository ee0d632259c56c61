//! The DA layer goes away, comes back, is slow and fails; all of it real processes.

use std::collections::BTreeSet;
use std::time::Duration;

use baton_messages::chain::DaHeaderEnvelope;
use rustix::process::Signal;
use sim::process::{Load, Site, verify};

const WITHIN: Duration = Duration::from_secs(30);
const PAUSED: &str = "blocks wait for the DA layer, the limit is 20";
const FLAGS: [&str; 6] =
    ["--node.block_time", "50ms", "--node.max_pending_headers_and_data", "20", "--da.block_time", "300ms"];

/// Every header is on DA, and none before the one below it.
async fn check_order(site: &Site) {
    let [headers, _] = site.on_da().await;
    let mut seen = BTreeSet::new();
    for blob in headers {
        let height = DaHeaderEnvelope::decode(&blob).expect("an envelope").signed.header.height.0;
        let next = seen.len() as u64 + 1;
        assert!(seen.contains(&height) || height == next, "header {height} is on DA before header {next}");
        seen.insert(height);
    }
}

async fn goes_away_and_comes_back(signal: Signal) {
    let mut site = Site::new(&FLAGS).await;
    let node = site.started().await;
    let load = Load::start(&site.kv_url(), &site.oracle, 2, Duration::from_millis(20));
    site.drain().await;

    let mut da = site.take_da();
    da.signal(signal);
    da.ended(WITHIN).await.expect("the DA server ends");
    let before = site.height().await;
    site.until("the backlog to be full", || async { site.unready().await.contains(PAUSED) }).await;
    let paused_at = site.height().await;
    assert!(paused_at > before, "blocks go on while there is room for them");

    // What waits is bounded, and everybody is told why.
    let status = site.status().await.expect("the node answers");
    let included = status["da"]["included"].as_u64().expect("a height");
    assert_eq!(paused_at - included, 20, "{status}");
    assert!(status["supervisor"]["pause"].as_str().is_some_and(|why| why.contains(PAUSED)), "{status}");
    assert!(status["supervisor"]["da_trouble"].is_string(), "{status}");
    let scrape = site.scrape().await;
    assert_eq!(
        (scrape.value("evnode_node_ready"), scrape.value("evnode_node_producing")),
        (Some(0.0), Some(0.0))
    );
    assert_eq!(scrape.value("evnode_node_da_trouble"), Some(1.0));
    assert!(scrape.value("evnode_sequencer_da_submitter_pending_blobs").is_some_and(|blobs| blobs >= 20.0));
    assert!(scrape.value("evnode_sequencer_da_submitter_failures_total").is_some_and(|count| count > 0.0));
    let log = std::fs::read_to_string(site.log()).expect("a log");
    assert!(
        log.lines().any(|line| line.contains("production pauses") && line.contains(PAUSED)),
        "no line in the log"
    );

    // Transactions are still taken; they are not committed, and no height is made meanwhile.
    let (code, answer) = site.post("while-da-is-away=1", "committed").await;
    assert_eq!(code, 504, "{answer}");
    assert!(answer.contains("accepted"), "{answer}");
    assert_eq!(site.height().await, paused_at);
    load.stop().await;

    site.start_da(&[]).await;
    site.until("readiness", || async { site.unready().await.is_empty() }).await;
    let (code, answer) = site.post("while-da-is-away=1", "executed").await;
    assert_eq!(code, 200, "{answer}");
    // Nobody but the test itself sent this one.
    let tx = baton_messages::types::Tx(bytes::Bytes::from_static(b"while-da-is-away=1"));
    site.oracle.told(&tx, sim::Ack::Accepted);
    site.drain().await;
    site.until("no trouble", || async {
        let scrape = site.scrape().await;
        scrape.value("evnode_node_da_trouble") == Some(0.0) && scrape.value("evnode_node_ready") == Some(1.0)
    })
    .await;
    assert_eq!(node.terminate().await, Some(0));
    check_order(&site).await;
    let found = verify(&site).await;
    assert!(found.acknowledged > 0 && found.blocks > paused_at, "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_da_layer_that_stops_pauses_production_and_is_caught_up_with_in_order() {
    goes_away_and_comes_back(Signal::TERM).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_da_layer_that_is_killed_pauses_production_and_is_caught_up_with_in_order() {
    goes_away_and_comes_back(Signal::KILL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_da_layer_that_fails_one_time_in_ten_gets_everything_once_and_without_gaps() {
    let mut site = Site::new(&["--node.block_time", "50ms", "--da.block_time", "200ms"]).await;
    assert_eq!(site.take_da().terminate().await, Some(0));
    site.start_da(&["--latency", "20ms", "--error-rate", "0.1", "--seed", "7"]).await;
    let node = site.started().await;
    let load = Load::start(&site.kv_url(), &site.oracle, 2, Duration::from_millis(20));
    site.until("failures of every kind, also of submissions that were stored", || async {
        let scrape = site.scrape().await;
        let count = |name| scrape.value(name).unwrap_or_default();
        count("evnode_sequencer_da_submitter_found_total") >= 1.0
            && count("evnode_sequencer_da_submitter_failures_total") >= 10.0
    })
    .await;
    load.stop().await;
    site.drain().await;
    assert_eq!(node.terminate().await, Some(0));
    // What is read for the checks must not fail on purpose.
    assert_eq!(site.take_da().terminate().await, Some(0));
    site.start_da(&[]).await;
    check_order(&site).await;
    let found = verify(&site).await;
    assert!(found.acknowledged > 0, "{found:?}");
}
