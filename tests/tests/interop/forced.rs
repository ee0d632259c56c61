//! Forced inclusion, with ev-node on either side of the chain.
//!
//! ev-node's aggregator can only be followed here while it catches up: docs/interop.md says why it halts
//! at the first forced transaction otherwise.

use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};
use sim::process::{EvNode, Follower, Site};

use super::{TESTAPP, evnode, ours};

const FORCED: [&str; 2] = ["--evnode.da.forced_inclusion_namespace", "forced"];
/// DA heights in an epoch of a chain whose genesis is made here: blocks come on DA much faster.
const EPOCH: u64 = 100;

/// How often a transaction stands in these blocks.
fn times(blocks: &[Value], tx: &str) -> usize {
    let tx = Value::String(BASE64_STANDARD.encode(tx));
    let txs = blocks.iter().filter_map(|block| block["data"]["txs"].as_array());
    txs.flatten().filter(|held| **held == tx).count()
}

/// Makes the DA layer so many blocks longer, slowly enough for nodes to get their blocks in between.
async fn lengthen(site: &Site, blocks: u64) {
    for _ in 0..blocks {
        site.empty_da_block().await;
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
}

/// Makes the DA layer so long that an epoch begins.
async fn begin_epoch(site: &Site, start: u64, size: u64) {
    let height = site.da_height().await;
    lengthen(site, size - (height + size - start) % size).await;
}

/// Whether a full node answers, and has executed what sets a key.
async fn has(node: &Follower, key: &str) -> bool {
    !node.status().await.is_null() && node.kv(&format!("/kv?key={key}")).await == (200, "1".to_owned())
}

/// ev-node's aggregator of a chain whose epochs are short and begin with the DA layer.
async fn aggregator(program: &std::path::Path, site: &Site) -> EvNode {
    let url = site.da_url();
    let flags = [
        "--evnode.da.address",
        &url,
        "--evnode.da.namespace",
        "interop",
        "--evnode.node.block_time",
        "100ms",
        "--evnode.da.block_time",
        "1s",
        // Once in a DA block: it reads one DA height for each block it makes, and must keep up.
        "--evnode.da.batching_strategy",
        "time",
    ];
    let aggregator = EvNode::aggregator(program, &flags).await;
    let text = std::fs::read(aggregator.genesis()).expect("init made one");
    let mut genesis: Value = serde_json::from_slice(&text).expect("a genesis is JSON");
    genesis["da_start_height"] = 1.into();
    genesis["da_epoch_forced_inclusion"] = EPOCH.into();
    std::fs::write(aggregator.genesis(), genesis.to_string()).expect("it can be written");
    aggregator
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_node_sees_that_ev_nodes_aggregator_takes_what_is_forced_and_when_it_does_not() {
    let check = "a_full_node_sees_that_ev_nodes_aggregator_takes_what_is_forced_and_when_it_does_not";
    let Some(program) = evnode(check) else { return };
    let site = Site::new(&[]).await;
    let mut aggregator = aggregator(&program, &site).await;
    let url = site.da_url();
    let place = [("--da.address", url.as_str()), ("--da.namespace", "interop")];
    let flags = [&TESTAPP[..], &FORCED, &["--evnode.da.block_time", "1s"]].concat();
    let mut full = Follower::of(&aggregator.genesis(), &place, &flags).await;
    full.start();

    // What was forced while it was away it takes when it comes back: its first start, and another.
    let mut forced = vec![];
    for round in 0..2 {
        begin_epoch(&site, 1, EPOCH).await;
        let txs = [format!("forced{round}=1"), "no assignment".to_owned(), format!("more{round}=1")];
        site.force("forced", &[&txs[0], &txs[1], &txs[2]]).await;
        forced.extend([txs[0].clone(), txs[2].clone()]);
        begin_epoch(&site, 1, EPOCH).await;
        aggregator.start_with(&FORCED).await;
        let key = format!("more{round}");
        full.until("what was forced", || has(&full, &key)).await;
        if round == 1 {
            // Beyond the grace of everything.
            lengthen(&site, 2 * EPOCH).await;
        }
        let goal = aggregator.height().await + 10;
        aggregator.until("blocks", || async { aggregator.height().await >= goal }).await;
        full.reach(goal).await;
        aggregator.stop().await;
    }
    let unready = full.unready().await;
    assert!(!unready.contains("left out"), "{unready}");
    let mut blocks = vec![];
    for height in 1..=full.status().await["follow"]["executed"].as_u64().expect("it follows") {
        blocks.push(ours(&full, height).await);
    }
    assert_eq!(forced.iter().map(|tx| times(&blocks, tx)).collect::<Vec<_>>(), [1; 4]);
    assert_eq!(times(&blocks, "no assignment"), 0, "nobody can be forced to take that");

    // Without the namespace it is a proposer that censors.
    site.force("forced", &["censored=1"]).await;
    aggregator.start_with(&[]).await;
    lengthen(&site, 2 * EPOCH).await;
    full.until("the alarm", || async { full.unready().await.contains("left out 1 transactions") }).await;
    for (height, block) in (1..).zip(&blocks) {
        assert_eq!(*block, aggregator.block(height).await, "height {height}");
    }
    full.terminate().await;
    aggregator.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ev_nodes_full_node_sees_that_a_node_takes_what_is_forced_and_when_it_does_not() {
    let check = "ev_nodes_full_node_sees_that_a_node_takes_what_is_forced_and_when_it_does_not";
    let Some(program) = evnode(check) else { return };
    let pace = ["--evnode.node.block_time", "200ms", "--evnode.da.block_time", "1s"];
    let site = Site::new(&[&TESTAPP[..], &pace].concat()).await;
    let honest = ("BATON_DA_FORCED_INCLUSION_NAMESPACE", "forced".to_owned());
    let mut node = site.start(std::slice::from_ref(&honest));
    site.until("readiness", || async { site.unready().await.is_empty() }).await;
    let url = site.da_url();
    let place = [
        "--evnode.da.address",
        &url,
        "--evnode.da.namespace",
        "chaos-headers",
        "--evnode.da.data_namespace",
        "chaos-data",
    ];
    let mut full =
        EvNode::full(&program, &site.home.genesis(), &[&place[..], &FORCED, &pace[2..]].concat()).await;
    full.start().await;

    let epoch = site.genesis().da_epoch_forced_inclusion;
    for round in 0..2 {
        let (first, more) = (format!("forced{round}=1"), format!("more{round}=1"));
        begin_epoch(&site, 0, epoch).await;
        site.force("forced", &[&first, "no assignment", &more]).await;
        // A client's own transaction between them.
        let (code, why) = site.post(&format!("sent{round}=1"), "committed").await;
        assert_eq!(code, 200, "{why}");
        begin_epoch(&site, 0, epoch).await;
        let key = format!("more{round}");
        site.until("what was forced", || site.kv_has(&key)).await;
        site.drain().await;
        // Beyond the grace.
        lengthen(&site, 2 * epoch).await;
        node.kill().await;
        node = site.start(std::slice::from_ref(&honest));
        site.until("readiness", || async { site.unready().await.is_empty() }).await;
    }
    site.drain().await;
    let goal = site.status().await.expect("it answers")["da"]["included"].as_u64().expect("a height");
    let block = async |height: u64| {
        site.store_service("GetBlock", &json!({"height": height.to_string()})).await["block"].clone()
    };
    super::follows(&full, goal, block).await;
    let mut blocks = vec![];
    for height in 1..=goal {
        blocks.push(full.block(height).await);
    }
    for tx in ["forced0=1", "more0=1", "sent0=1", "forced1=1", "more1=1", "sent1=1"] {
        assert_eq!(times(&blocks, tx), 1, "{tx}");
    }

    // It is not that ev-node does not look: without the setting the node is a proposer that censors.
    node.terminate().await;
    node = site.start(&[]);
    site.until("readiness", || async { site.unready().await.is_empty() }).await;
    site.force("forced", &["censored=1"]).await;
    lengthen(&site, 3 * epoch).await;
    full.until("ev-node's word on it", || async {
        full.errors().iter().any(|line| line.contains("SEQUENCER IS MALICIOUS"))
    })
    .await;
    full.stop().await;
    node.terminate().await;
}
