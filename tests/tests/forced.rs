//! Forced inclusion with real processes: a user, a node, and a full node that sees to it.
#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

use std::collections::BTreeMap;
use std::path::Path;

use baton::cli::place::open_options;
use baton_messages::types::{Height, Tx};
use baton_storage::Store;
use sim::process::{Follower, Members, Wish};

const FORCED: [&str; 2] = ["--da.forced_inclusion_namespace", "forced"];
const FAST: [&str; 6] = [
    "--evnode.node.block_time",
    "100ms",
    "--evnode.da.block_time",
    "1s",
    "--da.forced_inclusion_namespace",
    "forced",
];

/// Epochs of six DA blocks, of a second each.
fn short_epochs(genesis: &Path) {
    let text = std::fs::read_to_string(genesis).expect("there is a genesis");
    let long = "\"da_epoch_forced_inclusion\": 50";
    assert!(text.contains(long), "{text}");
    std::fs::write(genesis, text.replace(long, "\"da_epoch_forced_inclusion\": 6")).expect("written");
}

/// Whether a node answers, and has executed what sets a key.
async fn has(node: &Follower, key: &str) -> bool {
    !node.status().await.is_null() && node.kv(&format!("/kv?key={key}")).await == (200, "1".to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_user_forces_comes_in_once_and_a_full_node_stops_at_a_proposer_that_leaves_it_out() {
    let mut members = Members::new(Wish { later: 1, ..Wish::of(1, &FAST) }).await;
    short_epochs(members.home(0).genesis().as_path());
    members.found_alone(1).await;
    members.start(1, &[]);
    let genesis = members.home(1).genesis();
    let mut full = Follower::new(&genesis, &members.da_url(), &[&FORCED[..], &FAST[2..4]].concat()).await;
    full.start();

    let da = members.da_url();
    let place = ["--da.address", &da, FORCED[0], FORCED[1]];
    let (code, told) = members.command(1, &[&["force", "forced0=1", "forced1=1"], &place[..]].concat()).await;
    assert_eq!((code, told.matches(" at DA height ").count()), (Some(0), 2), "{told}");
    full.until("what was forced first", || has(&full, "forced1")).await;
    for round in 2..4 {
        let text = format!("forced{round}=1");
        let (code, told) = members.command(1, &[&["force", &text], &place[..]].concat()).await;
        assert_eq!(code, Some(0), "{told}");
        members.kill(1).await;
        members.start(1, &[]);
        full.kill().await;
        full.start();
        let key = format!("forced{round}");
        full.until("what was forced then", || has(&full, &key)).await;
    }
    let metrics = full.metrics().await;
    assert!(metrics.contains("sequencer_forced_inclusion_txs_malicious_total"), "{metrics}");
    full.until("readiness", || async { full.unready().await.is_empty() }).await;

    // The same node with another setting is a proposer that censors.
    members.terminate(1).await;
    members.set_flags(1, &[FORCED[0], ""]);
    members.start(1, &[]);
    let (code, told) = members.command(1, &[&["force", "forced4=1"], &place[..]].concat()).await;
    assert_eq!(code, Some(0), "{told}");
    full.until("the alarm", || async { full.unready().await.contains("left out 1 transactions") }).await;
    assert!(has(&full, "forced3").await, "it answers what it knows");
    full.terminate().await;
    members.terminate(1).await;

    let genesis = baton::genesis::load(&genesis).expect("it is there");
    let store = Store::open(open_options(members.home(1), &genesis)).expect("the store opens");
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
