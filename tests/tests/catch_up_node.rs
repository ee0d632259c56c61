//! A sequencer that lost its machine and not its key, as a real process.
#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

use std::time::Duration;

use baton::cli::place::open_options;
use baton_messages::chain::{Header, SignedHeader, Signer};
use baton_messages::types::Height;
use baton_storage::Store;
use serde_json::json;
use sim::Machine;
use sim::process::{Follower, Site, hashes};
use tokio::time::sleep;

const FAST: [&str; 4] = ["--evnode.node.block_time", "100ms", "--evnode.da.block_time", "1s"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sequencer_without_store_and_guard_goes_on_with_its_chain_and_signs_nothing_twice() {
    let mut site = Site::new(&FAST).await;
    let node = site.started().await;
    let (code, why) = site.post("a=1", "executed").await;
    assert_eq!(code, 200, "{why}");
    let peer = site.peer_address().await;
    let mut full = Follower::of(&site.home.genesis(), &[("--evnode.p2p.peers", &peer)], &[]).await;
    full.start();
    full.execute(20).await;
    // The last blocks are with peers only: DA goes away before they are posted.
    site.take_da().kill().await;
    let (code, why) = site.post("b=2", "executed").await;
    assert_eq!(code, 200, "{why}");
    let height = site.height().await;
    full.execute(height + 10).await;
    node.kill().await;
    let last = full.status().await["tip"]["height"].as_u64().expect("it answers");
    site.start_da(&[]).await;
    site.restore().await;

    // Nobody but DA to ask: no time-out makes a block.
    let alone = [("BATON_NODE_CATCHUP_TIMEOUT", "2s".to_owned())];
    let node = site.start(&alone);
    site.until("what it waits for", || async { site.unready().await.contains("no peer says") }).await;
    sleep(Duration::from_secs(10)).await;
    let status = site.status().await.expect("it answers");
    assert_eq!((&status["follow"]["mode"], &status["raft"]), (&json!("catch-up"), &json!(null)), "{status}");
    assert!(status["tip"]["height"].as_u64().is_some_and(|height| height < last), "DA lacks the last ones");
    let log = std::fs::read_to_string(site.log()).expect("there is a log");
    assert!(log.contains("node.catchup_timeout is over"), "{}", site.tail());
    let (code, why) = site.post("c=3", "executed").await;
    assert_eq!(code, 503, "{why}");
    node.kill().await;

    // A peer has the rest, and the chain goes on from there.
    let env = [("BATON_NODE_CATCHUP_TIMEOUT", "2s".to_owned()), ("BATON_P2P_PEERS", full.peer_address())];
    let node = site.start(&env);
    site.until("production", || async { site.unready().await.is_empty() }).await;
    let (code, why) = site.post("d=4", "executed").await;
    assert_eq!(code, 200, "{why}");
    assert!(site.height().await > last, "it goes on after block {last}");
    full.execute(last + 10).await;
    let status = full.status().await;
    assert_eq!(status["follow"]["evidence"], json!(0), "P1, P2: two headers of one height: {status}");
    assert_eq!(full.kv("/kv?key=b").await, (200, "2".to_owned()));
    assert_eq!(full.kv("/kv?key=d").await, (200, "4".to_owned()));

    // A later start is one as any other, and looks for nobody.
    assert_eq!(node.terminate().await, Some(0));
    let node = site.start(&alone);
    site.until("production", || async { site.unready().await.is_empty() }).await;
    full.terminate().await;
    site.drain().await;
    assert_eq!(node.terminate().await, Some(0));
    let (followed, chain) = (full.hashes(), hashes(&site.home, &site.genesis()));
    assert!(followed.len() as u64 > last);
    assert_eq!(followed, chain[..followed.len()]);
}

/// The guard is fenced by terms (P2): those of the new cluster begin above its.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sequencer_whose_guard_outlived_its_store_signs_on_in_later_terms() {
    let site = Site::new(&FAST).await;
    let mut node = site.started().await;
    for _ in 0..3 {
        assert_eq!(node.terminate().await, Some(0));
        node = site.started().await;
    }
    let peer = site.peer_address().await;
    let mut full = Follower::of(&site.home.genesis(), &[("--evnode.p2p.peers", &peer)], &[]).await;
    full.start();
    full.execute(10).await;
    site.drain().await;
    let height = site.height().await;
    full.execute(height).await;
    assert_eq!(node.terminate().await, Some(0));
    full.execute(store_height(&site)).await;
    site.lose_store().await;
    let env = [("BATON_NODE_CATCHUP_TIMEOUT", "10s".to_owned()), ("BATON_P2P_PEERS", full.peer_address())];
    let node = site.start(&env);
    site.until("production", || async { site.unready().await.is_empty() }).await;
    let (code, why) = site.post("a=1", "executed").await;
    assert_eq!(code, 200, "{why}");
    // What is not signed is on no DA.
    site.drain().await;
    assert_eq!(node.terminate().await, Some(0));
    full.terminate().await;
}

/// The last height in the store of a node that has stopped.
fn store_height(site: &Site) -> u64 {
    let store = Store::open(open_options(&site.home, &site.genesis())).expect("the store opens");
    let height = store.reader().tip().height.0;
    store.close();
    height
}

/// A header far up that names the proposer, and that another key has signed.
fn forged(site: &Site) -> Vec<u8> {
    let stranger = Machine::new(1);
    let genesis = site.genesis();
    let header = Header {
        height: Height(1_000_000_000),
        chain_id: genesis.chain_id.clone(),
        proposer_address: genesis.proposer_address.clone(),
        time: genesis.start_time,
        ..Header::default()
    };
    let signature = stranger.sign(&header.encode());
    let signer = Signer { address: genesis.proposer_address, ..stranger.signer() };
    SignedHeader { header, signature, signer }.encode()
}

/// There is no peer any more, and a person knows where the chain ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_persons_word_ends_the_waiting_and_the_guard_has_the_last_one() {
    let mut site = Site::new(&FAST).await;
    let node = site.started().await;
    let (code, why) = site.post("a=1", "executed").await;
    assert_eq!(code, 200, "{why}");
    site.drain().await;
    let included = site.status().await.expect("it answers")["da"]["included"].as_u64().expect("a height");
    // This one nobody will ever show.
    site.take_da().kill().await;
    let (code, why) = site.post("lost=1", "executed").await;
    assert_eq!(code, 200, "{why}");
    assert_eq!(node.terminate().await, Some(0));
    let guard = std::fs::read(site.home.guard()).expect("there is a guard");
    site.start_da(&[]).await;
    site.restore().await;
    let node = site.start(&[("BATON_NODE_CATCHUP_TIMEOUT", "1m".to_owned())]);
    site.until("what DA has", || async { site.height().await >= included }).await;
    site.until("what it waits for", || async { site.unready().await.contains("no peer says") }).await;
    assert_eq!(node.terminate().await, Some(0));
    let tip = store_height(&site);
    let at = tip.to_string();
    let finish = ["--evnode.node.catchup_timeout", "1m", "--finish", "--at", &at];
    let finish_anyway = [&finish[..], &["--unreachable-ok"]].concat();

    // Nobody was asked about a later block, and nobody answers for the old sequencer.
    assert_eq!(site.command("import", &finish).await, Some(78));
    assert!(site.tail().contains("--unreachable-ok"), "{}", site.tail());
    // The guard that outlived the machine knows of a later block.
    let fresh = std::fs::read(site.home.guard()).expect("init made one");
    std::fs::write(site.home.guard(), &guard).expect("it can be written");
    assert_eq!(site.command("import", &finish_anyway).await, Some(78));
    assert!(site.tail().contains("the double-sign guard"), "{}", site.tail());
    std::fs::write(site.home.guard(), fresh).expect("it can be written");
    // In the proposer's name, and signed by anybody: it says nothing of the chain.
    site.write_on_da(&forged(&site)).await;
    assert_eq!(site.command("import", &finish_anyway).await, Some(0), "{}", site.tail());
    let node = site.started().await;
    let (code, why) = site.post("b=2", "executed").await;
    assert_eq!(code, 200, "{why}");
    assert!(site.height().await > tip);
    site.drain().await;
    assert_eq!(node.terminate().await, Some(0));
}
