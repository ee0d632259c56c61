//! `baton start` of a node that follows a chain: from checked configuration to clean exit.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::Actor;
use baton_actors::da::celestia::Celestia;
use baton_actors::da::{self, DaLayer};
use baton_actors::da_retriever;
use baton_actors::engine::kv::{self, Kv};
use baton_actors::engine::{self, Execution};
use baton_actors::gatherer;
use baton_actors::record_file::Rotation;
use baton_actors::syncer::{self, follow, forced};
use baton_actors::world::{Clock, World};
use baton_messages::chain::Signer;
use baton_messages::da::Namespace;
use baton_messages::genesis::Genesis;
use baton_messages::supervisor::Shutdown;
use baton_messages::types::DaHeight;
use baton_storage::{FollowError, Store};
use tokio::sync::{Notify, oneshot};
use tracing::{info, warn};

use super::ports::{Ports, Servers};
use super::{
    Alarm, PARTS_WITHIN, RESERVE, Signals, SystemClock, catch_up, celestia_config, close, open_journal,
    open_network, seed,
};
use crate::cli::place::open_options;
use crate::cli::start::Start;
use crate::config::Config;
use crate::disk::{self, DiskWatch};
use crate::exit::ExitError;
use crate::failpoints;
use crate::following::{self, Following, FullNode, NoIntake};
use crate::kv_http::{self, KvHttp};
use crate::metrics;
use crate::rpc::{self, Limits};
use crate::status::following as board;
use crate::wiring::{Make, Threads};

/// Runs a node that follows until it is told to stop. `true`: it would produce, has caught up, and is
/// to start anew.
pub(super) async fn serve(start: Start) -> Result<bool, ExitError> {
    let Start { config, genesis, .. } = start;
    let mode = if config.node.aggregator { "catch-up" } else { config.node.mode() };
    let limits = Limits::default().within(rpc::serve::raise_open_files());
    let signals = Signals::listen()?;
    let light = config.node.light;
    let network = crate::p2p::Config::of(&config.p2p).map_err(ExitError::config)?;
    let network = network.map(|network| crate::p2p::Config { headers_only: light, ..network });
    let clock: Arc<dyn Clock> = Arc::new(SystemClock(failpoints::clock_offset()));
    let da = match config.da.address.is_empty() {
        true => None,
        false => Some(Celestia::new(celestia_config(&config)?).map_err(ExitError::config)?),
    };
    let store = Store::open(open_options(&config.files, &genesis))?;
    let identity = store.identity();
    info!(chain = %identity.chain_id, storage = %identity.storage, boot = identity.boot,
        tip = store.reader().tip().height.0, mode, "opened the store to follow");
    failpoints::pass("node.store_opened");
    let kv = match light {
        true => None,
        false => Some(Kv::open(store.backend(), kv_config(&config))?),
    };
    let view = kv.as_ref().map(Kv::view);
    let now: Arc<dyn Fn() -> baton_messages::types::Timestamp + Send + Sync> = {
        let clock = clock.clone();
        Arc::new(move || clock.now())
    };
    // The public key is in the headers; the store knows it once it has one.
    let signer = store.reader().follow().map(|follow| follow.signer).unwrap_or_default();
    let signer = match signer.pub_key.is_empty() {
        true => Signer { address: genesis.proposer_address.clone(), ..Signer::default() },
        false => signer,
    };
    let rotation = Rotation { max_bytes: config.audit.max_bytes, keep: config.audit.keep };
    let (journal, journal_metrics) = open_journal(&config.files, rotation, store.reader(), now.clone())?;
    let network_metrics = crate::p2p::Metrics::default();
    let (network, network_config) =
        open_network(network, &config, &genesis, &signer, network_metrics.clone()).await?;
    let (alarm, alarmed) = oneshot::channel();
    let alarm = Alarm(Some(alarm)).start();
    let world = World::bounded(clock, seed(), config.node.max_clock_drift);
    let following = Following {
        settings: following::Settings { p2p: network_config, ..settings(&config, &genesis) },
        metrics: following::Metrics::default(),
        parts: following::Parts {
            world: world.clone(),
            store: store.clone(),
            execution: kv.map(|kv| Box::new(move || Box::new(kv) as Box<dyn Execution>) as Make<_>),
            da: da.map(|da| Rc::new(da) as Rc<dyn DaLayer>),
            p2p: network,
            peers: None,
            threads: Threads::Dedicated,
        },
        applied: vec![journal.clone().recipient()],
        forks: vec![journal.recipient()],
        integrity_stop: alarm.recipient(),
    };
    let mut registry = metrics::Builder::new(&genesis.chain_id, &config.metrics_namespace);
    following.metrics.register(registry.registry());
    network_metrics.register(registry.registry());
    journal_metrics.register(registry.registry());
    let (kv_metrics, rpc_metrics, disk_metrics) =
        (kv_http::Metrics::default(), rpc::Metrics::default(), disk::Metrics::default());
    kv_metrics.register(registry.registry());
    rpc_metrics.register(registry.registry());
    disk_metrics.register(registry.registry());

    let ports = Ports::bind(&config, limits, &rpc_metrics, &mut registry).await?;
    let node = following.start().await.map_err(|error| match error {
        FollowError::HasLog | FollowError::HeadersOnly | FollowError::WholeBlocks => ExitError::config(error),
        FollowError::Store(error) => ExitError::from(error),
    })?;
    let board = board::Board::new(
        board::Config {
            reply_within: Duration::from_secs(1),
            mode,
            max_behind: config.node.readiness_max_behind,
            readiness_window: config.node.readiness_window,
        },
        node.observer.clone(),
        node.sync.clone(),
        store.clone(),
    );
    let condition = rpc::Condition { node_status: board.start().recipient(), now, stale_after: None };
    let rpc_parts = rpc::Parts {
        node: config.raft.node_id.clone(),
        chain: rpc::Chain {
            store: store.clone(),
            signer,
            genesis: Arc::new(genesis.clone()),
            header_namespace: Namespace::of(&config.da.namespace),
            data_namespace: Namespace::of(&config.da.data_namespace),
            engine_position: (!light).then(|| node.engine.position.clone()),
        },
        metrics: registry.build(condition.clone(), store.clone()),
        condition,
        counters: rpc_metrics,
        limits,
        net_info: node.net_info.clone(),
    };
    let intake = NoIntake.start();
    let kv = view.map(|view| KvHttp {
        post: intake.clone().recipient(),
        await_tx: intake.recipient(),
        pooled: None,
        cluster: None,
        view,
        config: kv_http::Config { max_tx_bytes: config.queue.max_tx_bytes, ..kv_http::Config::default() },
        metrics: kv_metrics,
    });
    let mut servers = Servers::new();
    ports.serve(rpc_parts, kv, &mut servers);
    let watch = disk::Config {
        directory: config.files.data().to_owned(),
        min_free: config.min_free_disk,
        reserve: RESERVE,
        interval: Duration::from_secs(1),
    };
    DiskWatch::start(watch, node.disk.clone(), disk_metrics);

    let asked = Notify::new();
    let ended = match catch_up::begin(&config, &node, world)? {
        None => signals.told_to_stop(alarmed, &asked).await.map(|()| None),
        Some(catch_up) => tokio::select! {
            biased;
            ended = signals.told_to_stop(alarmed, &asked) => ended.map(|()| None),
            last = catch_up.done() => Ok(Some(last)),
        },
    };
    servers.close();
    stop(&node).await;
    let taken = match &ended {
        Ok(Some(last)) => catch_up::take_over(&config, &genesis, &store, *last).await,
        Ok(None) | Err(_) => Ok(()),
    };
    close(&store).await;
    servers.end().await;
    info!("stopped");
    taken.and(ended).map(|last| last.is_some())
}

/// Nothing enters the store after this.
async fn stop(node: &FullNode) {
    for part in &node.shutdown {
        if let Err(error) = part.send(Shutdown).timeout(PARTS_WITHIN).await {
            warn!(%error, "a part did not stop in time");
        }
    }
}

/// How the key-value app behaves.
pub(super) fn kv_config(config: &Config) -> kv::Config {
    let pool = config.engine.kv_pool.then(|| kv::PoolLimits {
        txs: config.queue.max_txs,
        bytes: config.queue.max_bytes,
        tx_bytes: config.queue.max_tx_bytes,
        ..kv::PoolLimits::default()
    });
    kv::Config { roots: config.engine.kv_roots, pool, ..kv::Config::default() }
}

fn settings(config: &Config, genesis: &Genesis) -> following::Settings {
    let call_timeout = config.engine.call_timeout;
    let reply_within = call_timeout + Duration::from_secs(2);
    let header_namespace = Namespace::of(&config.da.namespace);
    following::Settings {
        engine: engine::Config { call_timeout, ..engine::Config::default() },
        da: da::Config { request_timeout: config.da.request_timeout, ..da::Config::default() },
        retriever: da_retriever::Config {
            chain_id: genesis.chain_id.clone(),
            proposer: genesis.proposer_address.clone(),
            header_namespace,
            data_namespace: match config.node.light {
                true => header_namespace,
                false => Namespace::of(&config.da.data_namespace),
            },
            from: DaHeight(config.da.start_height).max(genesis.da_start_height),
            max_blob: config.da.max_blob_bytes.max(8 << 20),
            in_flight: 16,
            together: 64,
            da_block_time: config.da.block_time,
            reply_within: config.da.request_timeout + Duration::from_secs(2),
            taken_within: Duration::from_secs(60),
        },
        syncer: syncer::Config {
            reply_within,
            retry_after: Duration::from_millis(250),
            log_every: 1_000,
            backfill: syncer::backfill::Config::default(),
            executes: !config.node.light,
        },
        follow: follow::Config { headers_only: config.node.light, ..follow::Config::default() },
        gatherer: gatherer::Config::default(),
        p2p: None,
        // Headers do not say what is in a block.
        forced: config.da.forced_namespace.as_ref().filter(|_| !config.node.light).map(|namespace| {
            forced::Config {
                namespace: Namespace::of(namespace),
                reply_within: reply_within.max(config.da.request_timeout + Duration::from_secs(2)),
            }
        }),
    }
}
