//! Forced inclusion with real processes: a user, a node, and a full node that sees to it.
#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

use std::collections::BTreeMap;

use baton::cli::place::open_options;
use baton_messages::types::{Height, Tx};
use baton_storage::Store;
use sim::process::{Child, Follower, Site};

const FORCED: [&str; 2] = ["--da.forced_inclusion_namespace", "forced"];
const FAST: [&str; 4] = ["--evnode.node.block_time", "100ms", "--evnode.da.block_time", "1s"];
/// What makes a proposer take what is forced.
const HONEST: (&str, &str) = ("BATON_DA_FORCED_INCLUSION_NAMESPACE", "forced");

/// Starts a proposer that leaves nothing out, and waits until it makes blocks.
async fn started(site: &Site) -> Child {
    let node = site.start(&[(HONEST.0, HONEST.1.to_owned())]);
    site.until("readiness", || async { site.unready().await.is_empty() }).await;
    node
}

/// A user puts transactions on DA.
async fn force(site: &Site, txs: &[&str]) {
    site.force("forced", txs).await;
}

/// Whether a node answers, and has executed what sets a key.
async fn has(node: &Follower, key: &str) -> bool {
    !node.status().await.is_null() && node.kv(&format!("/kv?key={key}")).await == (200, "1".to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_user_forces_comes_in_once_and_a_full_node_stops_at_a_proposer_that_leaves_it_out() {
    let site = Site::new(&FAST).await;
    // Fifty DA blocks are an epoch, and the DA server makes one for each submission.
    let mut node = started(&site).await;
    let flags = [&FORCED[..], &FAST[2..]].concat();
    let mut full = Follower::new(&site.home.genesis(), &site.da_url(), &flags).await;
    full.start();

    force(&site, &["forced0=1", "forced1=1"]).await;
    full.until("what was forced first", || has(&full, "forced1")).await;
    for round in 2..4 {
        let text = format!("forced{round}=1");
        force(&site, &[&text]).await;
        node.kill().await;
        node = started(&site).await;
        full.kill().await;
        full.start();
        let key = format!("forced{round}");
        full.until("what was forced then", || has(&full, &key)).await;
    }
    let metrics = full.metrics().await;
    assert!(metrics.contains("sequencer_forced_inclusion_txs_malicious_total"), "{metrics}");
    full.until("readiness", || async { full.unready().await.is_empty() }).await;

    // The same node without the setting is a proposer that censors.
    node.terminate().await;
    node = site.start(&[]);
    force(&site, &["forced4=1"]).await;
    full.until("the alarm", || async { full.unready().await.contains("left out 1 transactions") }).await;
    assert!(has(&full, "forced3").await, "it answers what it knows");
    full.terminate().await;
    node.terminate().await;

    let genesis = site.genesis();
    let store = Store::open(open_options(&site.home, &genesis)).expect("the store opens");
    let reader = store.reader();
    let mut times: BTreeMap<Tx, u32> = BTreeMap::new();
    for height in (1..=reader.tip().height.0).map(Height) {
        for tx in reader.block(height).expect("readable").expect("no gap").txs() {
            *times.entry(tx.clone()).or_default() += 1;
        }
    }
    store.close();
    let forced: Vec<u32> = (0..5)
        .map(|number| times.get(&Tx(format!("forced{number}=1").into())).copied().unwrap_or_default())
        .collect();
    assert_eq!(forced, [1, 1, 1, 1, 0], "each once, but for the one that was left out");
}
