//! Full nodes that follow a chain from peers alone, as real processes over real connections.
#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

use std::time::Duration;

use baton::cli::place::open_options;
use baton_actors::engine::Execution;
use baton_actors::engine::kv::{Config, Kv};
use baton_messages::engine::InitChain;
use baton_messages::types::Height;
use baton_storage::Store;
use serde_json::json;
use sim::process::{Follower, Load, Members, Site, TIMES, Wish, hashes};
use tokio::time::{Instant, sleep};

/// Blocks that a full node lacks in a short run; `BATON_BEHIND` sets more.
const BEHIND: u64 = 3_000;
/// Blocks of so many transactions of so many bytes: one kilobyte, as `BATON_TXS` and `BATON_TX_BYTES` say.
const SHAPE: (u32, u32) = (10, 100);

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

async fn executed(follower: &Follower) -> u64 {
    follower.status().await["follow"]["executed"].as_u64().unwrap_or_default()
}

/// Seconds that an engine alone takes for the same blocks, one after the other.
async fn engine_alone(site: &Site, blocks: u64) -> f64 {
    let genesis = site.genesis();
    let source = Store::open(open_options(&site.home, &genesis)).expect("the node has stopped");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let home = baton::home::Home::new(directory.path().join("engine"));
    std::fs::create_dir_all(home.data()).expect("it can be made");
    let own = Store::create(open_options(&home, &genesis), uuid::Uuid::from_u128(1)).expect("a new store");
    let mut engine = Kv::open(own.backend(), Config::default()).expect("it opens");
    let init = InitChain {
        time: genesis.start_time,
        initial_height: genesis.initial_height,
        chain_id: genesis.chain_id.clone(),
    };
    engine.init_chain(init).await.expect("an empty engine");
    let reader = source.reader();
    let began = Instant::now();
    for height in (1..=blocks).map(Height) {
        let block = reader.block(height).expect("readable").expect("no gap");
        engine.execute_block(block).await.expect("it was executed before");
    }
    let took = began.elapsed();
    source.close();
    own.close();
    took.as_secs_f64()
}

/// The gate is coarse, and a share of what an engine alone does in the same run, because the machine does
/// other things as well. What is printed is what counts (docs/benchmarks.md).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_node_far_behind_catches_up_from_peers_with_flat_memory() {
    let behind = number("BATON_BEHIND").unwrap_or(BEHIND);
    let shape =
        |name, default: u32| number(name).map_or(default, |number| u32::try_from(number).expect("small"));
    let (txs, tx_bytes) = (shape("BATON_TXS", SHAPE.0), shape("BATON_TX_BYTES", SHAPE.1));
    let mut site = Site::new(&["--evnode.node.block_time", "100ms"]).await;
    site.generate(behind, txs, tx_bytes).await;
    // Nothing goes to DA meanwhile, and nothing comes from there.
    site.take_da().kill().await;
    let node = site.started().await;
    let peer = site.peer_address().await;
    let mut follower = Follower::of(&site.home.genesis(), &[("--evnode.p2p.peers", &peer)], &[]).await;
    follower.start();
    follower.until("the first blocks", || async { executed(&follower).await > 0 }).await;
    let (began, from) = (Instant::now(), executed(&follower).await);
    let (mut first, mut most) = (None, 0);
    let height = loop {
        let (height, memory) = (executed(&follower).await, follower.footprint().memory);
        // Once everything that is needed has been touched.
        if height >= behind / 4 {
            first.get_or_insert(memory);
        }
        most = most.max(memory);
        if height >= behind {
            break height;
        }
        assert!(began.elapsed() < Duration::from_secs(600), "it stands at {height}:\n{}", follower.tail());
        sleep(Duration::from_millis(50)).await;
    };
    let took = began.elapsed().as_secs_f64();
    let (first, last) = (first.expect("the loop passed a quarter"), follower.footprint().memory);
    follower
        .until("the head", || async { site.height().await.saturating_sub(executed(&follower).await) < 10 })
        .await;
    follower.terminate().await;
    assert_eq!(node.terminate().await, Some(0));
    let (followed, chain) = (follower.hashes(), hashes(&site.home, &site.genesis()));
    assert!(followed.len() as u64 > behind, "it goes on with what is made now");
    assert_eq!(followed, chain[..followed.len()]);
    let rate = (height - from) as f64 / took;
    let alone = behind as f64 / engine_alone(&site, behind).await;
    let mib = |bytes: u64| bytes >> 20;
    println!(
        "{behind} blocks of {txs} x {tx_bytes} bytes: {rate:.0} blocks/s, {:.0} times as fast as they are made at ten \
         per second, {:.0} % of the engine alone ({alone:.0} blocks/s); memory {} MiB after a quarter, {} MiB at \
         the end, {} MiB at most",
        rate / 10.0,
        100.0 * rate / alone,
        mib(first),
        mib(last),
        mib(most),
    );
    assert!(rate > alone / 10.0, "{rate} blocks per second, the engine alone {alone}");
    assert!(most < first + (64 << 20), "memory grows: {} MiB, then {} MiB", mib(first), mib(most));
}

/// In a short run; `BATON_KILLS` sets more, twenty in the long command.
const KILLS: u64 = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_node_that_hears_all_gossip_sees_one_chain_whatever_leaders_are_killed() {
    let mut members = Members::new(Wish::of(3, &TIMES)).await;
    // It hears of blocks from peers alone. Every member dials it and tells it what there is to tell; it
    // knows one of them by name, and not where that one is.
    let key = baton::keys::node_key(members.home(0)).expect("init made one");
    let peer = format!("/ip4/127.0.0.1/tcp/1/p2p/{}", baton::p2p::peer_id(&key));
    let mut observer = Follower::of(&members.home(0).genesis(), &[("--evnode.p2p.peers", &peer)], &[]).await;
    let env = [("BATON_P2P_PEERS", observer.peer_address())];
    observer.start();
    for number in 0..3 {
        members.start(number, &env);
    }
    members.leader().await;
    let load = Load::over(&members.kv_urls(), &members.oracle, 2, Duration::from_millis(20));
    for kill in 0..number("BATON_KILLS").unwrap_or(KILLS) {
        let leader = members.leader().await;
        let before = members.height_of(leader).await;
        members.reach(before + 3).await;
        observer.until("the blocks so far", || async { executed(&observer).await >= before }).await;
        sleep(Duration::from_millis(37 * kill % 100)).await;
        members.kill(leader).await;
        members.reach(before + 8).await;
        members.start(leader, &env);
    }
    load.stop().await;
    let height = members.height().await;
    members.reach(height + 5).await;
    observer.until("the last blocks", || async { executed(&observer).await >= height }).await;
    let status = observer.status().await;
    assert_eq!(
        status["follow"]["evidence"],
        json!(0),
        "P1: two headers of one height were gossiped: {status}"
    );
    let metrics = observer.metrics().await;
    let gossip = metrics.lines().any(|line| line.starts_with("evnode_p2p_gossip") && !line.ends_with(" 0"));
    assert!(gossip, "nothing was gossiped: {metrics}");
    observer.terminate().await;
    members.drain().await;
    let genesis = baton::genesis::load(&members.home(0).genesis()).expect("there is one");
    members.verify().await;
    let (seen, chain) = (observer.hashes(), hashes(members.home(0), &genesis));
    assert!(seen.len() as u64 >= height);
    assert_eq!(seen, chain[..seen.len()]);
}
