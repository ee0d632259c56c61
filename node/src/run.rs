//! `baton start`: one node, from checked configuration to clean exit.
//!
//! Opens store, guard, key and ports, wires the actors, and waits for a signal or for the news
//! that a person is needed. The actors never end the process; this does.

mod catch_up;
mod full;
mod members;
mod ports;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, Context, Handler};
use baton_actors::da::DaLayer;
use baton_actors::da::celestia::{self, AuthToken, Celestia};
use baton_actors::engine::kv::{Kv, Roots};
use baton_actors::engine::{self, Execution};
use baton_actors::journal::{self, Journal};
use baton_actors::record_file::Rotation;
use baton_actors::signer::audit::FileAudit;
use baton_actors::signer::guard::Progress;
use baton_actors::signer::key::FileKey;
use baton_actors::signer::slot::ChainId;
use baton_actors::signer::{self, FileGuard};
use baton_actors::world::{Clock, World};
use baton_actors::{da, da_submitter, executor, inbox, raft, reaper, sequencer, supervisor, syncer};
use baton_messages::chain::Signer;
use baton_messages::codec::MAX_BLOCK_BYTES;
use baton_messages::da::Namespace;
use baton_messages::genesis::Genesis;
use baton_messages::supervisor::{IntegrityStop, Shutdown};
use baton_messages::types::{Hash, Timestamp};
use baton_storage::{Reader, Store};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, oneshot};
use tracing::{error, info, warn};

use self::ports::{Ports, Servers};
use crate::admin;
use crate::admin::answer::{Desk, Patience};
use crate::cli::place::open_options;
use crate::cli::start::{self, Start};
use crate::cluster;
use crate::config::Config;
use crate::config::rules::{BLOB_OVERHEAD, TX_FRAME};
use crate::disk::{self, DiskWatch};
use crate::exit::ExitError;
use crate::failpoints;
use crate::home::Home;
use crate::import;
use crate::keys;
use crate::kv_http::pool::PoolIntake;
use crate::kv_http::{self, KvHttp};
use crate::metrics;
use crate::p2p;
use crate::rpc::{self, Limits};
use crate::status::{self, Board};
use crate::wiring::{Make, Node, Parts, Settings, Threads, Wiring};

/// Bytes held back on the disk to get out of trouble with.
const RESERVE: u64 = 32 << 20;
/// Bytes of log records that are kept at the most; block bodies are not among them.
const LOG_BYTES: u64 = 256 << 20;
/// Lines that wait to be recorded at the most; what is over it is read from the store.
const JOURNAL: usize = 4096;
/// What each part of a stop may take before it is cut short: the parts of the node, hand-off
/// included, the store, and the ports. Together they are below the 30 seconds after which the
/// service manager kills.
const PARTS_WITHIN: Duration = Duration::from_secs(15);
const CLOSE_WITHIN: Duration = Duration::from_secs(8);
/// For a part that comes after one that took all the time.
const LEAST_WITHIN: Duration = Duration::from_secs(2);

/// Runs the node until it is told to stop.
///
/// # Errors
///
/// Why it ended before that, with the code for the service manager.
pub fn run(start: Start) -> Result<(), ExitError> {
    fail_stop_on_panic();
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).enable_all().build().expect("the operating system gives threads")
    };
    let system = actix_rt::System::with_tokio_rt(runtime);
    let ended = system.block_on(async {
        if start.config.node.aggregator && !catch_up::is_due(&start)? {
            return serve(start).await.map(|()| false);
        }
        full::serve(start).await
    });
    // What still runs is dropped with the system. A request to DA that is dropped gives its
    // connection back, which spawns: outside of a runtime that is a panic, and exit code 1.
    let runtime = system.runtime().tokio_runtime().handle().clone();
    let _entered = runtime.enter();
    drop(system);
    match ended? {
        true => Err(catch_up::start_anew()),
        false => Ok(()),
    }
}

/// A panic leaves state nobody vouches for: the process ends and starts anew from the disk.
fn fail_stop_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        error!(%panic, "a part of the node panicked: ending the process");
        std::process::exit(1);
    }));
}

/// The wall clock of this machine, off by so many nanoseconds where a test wants it.
pub(crate) struct SystemClock(pub(crate) i64);

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods)] // The one place where the wall clock comes in.
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = since.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
        Timestamp(now.saturating_add_signed(self.0))
    }

    fn elapsed(&self) -> Option<Duration> {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        #[allow(unsafe_code)]
        // SAFETY: the call only writes to the struct it is given.
        let status = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) };
        let seconds = u64::try_from(now.tv_sec).ok().filter(|_| status == 0)?;
        Some(Duration::new(seconds, u32::try_from(now.tv_nsec).ok()?))
    }
}

/// Hears that a person is needed.
struct Alarm(Option<oneshot::Sender<String>>);

impl Actor for Alarm {
    type Context = Context<Self>;
}

impl Handler<IntegrityStop> for Alarm {
    type Result = ();

    fn handle(&mut self, message: IntegrityStop, _: &mut Context<Self>) {
        error!(reason = %message.reason, "integrity stop");
        if let Some(alarm) = self.0.take() {
            let _ = alarm.send(message.reason);
        }
    }
}

async fn serve(start: Start) -> Result<(), ExitError> {
    let Start { config, genesis, key } = start;
    let limits = Limits::default().within(rpc::serve::raise_open_files());
    let signals = Signals::listen()?;
    let network = p2p::Config::of(&config.p2p).map_err(ExitError::config)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock(failpoints::clock_offset()));
    let accounts = da::accounts::Metrics::default();
    let da = match config.raft.witness {
        true => None,
        false => {
            Some(Celestia::counted(celestia_config(&config)?, accounts.clone()).map_err(ExitError::config)?)
        }
    };
    let store = Store::open(open_options(&config.files, &genesis))?;
    check_queue(&store, config.max_block_bytes)?;
    let identity = store.identity();
    info!(chain = %identity.chain_id, storage = %identity.storage, boot = identity.boot,
        tip = store.reader().tip().height.0, "opened the store");
    let begins = import::begins_at(&config.files, &store.reader(), config.da.forced_namespace.is_some())?;
    start::check_produces(&store)?;
    start::check_first(&config, store.reader().membership().membership().voter_ids().next().is_some())?;
    failpoints::pass("node.store_opened");
    let kv = match config.raft.witness {
        true => None,
        false => Some(Kv::open(store.backend(), full::kv_config(&config))?),
    };
    let view = kv.as_ref().map(Kv::view);
    let signer = match &key {
        Some(key) => Signer::ed25519(&signer::key::Key::public(key)),
        // A witness knows the proposer's address from the genesis, and not its public key.
        None => Signer { address: genesis.proposer_address.clone(), ..Signer::default() },
    };
    let now: Arc<dyn Fn() -> Timestamp + Send + Sync> = {
        let clock = clock.clone();
        Arc::new(move || clock.now())
    };
    let signer_metrics = signer::Metrics::default();
    let rotation = Rotation { max_bytes: config.audit.max_bytes, keep: config.audit.keep };
    let signer_parts = match key {
        Some(key) => Some(signer_parts(&config, key, rotation, now.clone(), signer_metrics.clone())?),
        None => None,
    };
    let cluster_metrics = cluster::Metrics::default();
    let (journal, journal_metrics) = open_journal(&config.files, rotation, store.reader(), now.clone())?;
    let world = World::bounded(clock, seed(), config.node.max_clock_drift);
    let heard = journal.clone().recipient();
    let transport =
        members::listen(&config, &genesis, &store, &world, cluster_metrics.clone(), heard).await?;
    let network_metrics = p2p::Metrics::default();
    let (network, network_config) =
        open_network(network, &config, &genesis, &signer, network_metrics.clone()).await?;
    let parts = Parts {
        world,
        store: store.clone(),
        transport,
        execution: kv.map(|kv| Box::new(move || Box::new(kv) as Box<dyn Execution>) as Make<_>),
        da: da.map(|da| Rc::new(da) as Rc<dyn DaLayer>),
        signer: signer_parts,
        progress: progress(&store.reader())?,
        threads: Threads::Dedicated,
        p2p: network,
    };
    let (alarm, alarmed) = oneshot::channel();
    let alarm = Alarm(Some(alarm)).start();
    let mut settings = settings(&config, &genesis, &store, &signer);
    settings.p2p = network_config;
    let mut wiring = Wiring::new(settings, parts, alarm.recipient());
    wiring.settings.supervisor.begins_after = begins.map(|finished| (finished.height, finished.hash));
    wiring.blocks = vec![journal.clone().recipient()];
    wiring.leadership_audit = vec![journal.clone().recipient()];
    wiring.members.push(journal.clone().recipient());

    let mut registry = metrics::Builder::new(&genesis.chain_id, &config.metrics_namespace);
    wiring.metrics.da.accounts = accounts;
    wiring.metrics.register(registry.registry());
    signer_metrics.register(registry.registry());
    let (kv_metrics, rpc_metrics, disk_metrics) =
        (kv_http::Metrics::default(), rpc::Metrics::default(), disk::Metrics::default());
    kv_metrics.register(registry.registry());
    journal_metrics.register(registry.registry());
    cluster_metrics.register(registry.registry());
    rpc_metrics.register(registry.registry());
    disk_metrics.register(registry.registry());
    network_metrics.register(registry.registry());
    let admin_metrics = admin::Metrics::default();
    admin_metrics.register(registry.registry());
    let socket = admin::Config::new(config.files.admin_socket());
    let socket = admin::Admin::bind(socket, admin_metrics).map_err(|error| match error.source.kind() {
        // Something else is in its place, and stays there.
        std::io::ErrorKind::AlreadyExists => ExitError::config(error),
        _ => ExitError::retry_later(error),
    })?;
    let ports = Ports::bind(&config, limits, &rpc_metrics, &mut registry).await?;
    failpoints::pass("node.before_actors");
    let node = wiring.start();
    let links = status::Links {
        raft_view: node.raft.view.clone(),
        supervisor_view: node.supervisor.clone(),
        queue_view: node.sequencer.view.clone(),
        signer_view: (!config.raft.witness).then(|| node.signer.view.clone()),
        cluster_view: Some(node.cluster.view.clone()),
    };
    let board = Board::new(status::Config::default(), links, store.clone()).start();
    let condition = rpc::Condition {
        node_status: board.clone().recipient(),
        now,
        stale_after: Some(match config.node.lazy_mode {
            true => config.node.lazy_block_interval * 2,
            false => config.node.block_time * 5,
        }),
    };
    let rpc_parts = rpc::Parts {
        node: config.raft.node_id.clone(),
        chain: rpc::Chain {
            store: store.clone(),
            genesis: Arc::new(genesis),
            signer,
            header_namespace: Namespace::of(&config.da.namespace),
            data_namespace: Namespace::of(&config.da.data_namespace),
            engine_position: (!config.raft.witness).then(|| node.engine.position.clone()),
        },
        condition: condition.clone(),
        metrics: registry.build(condition.clone(), store.clone()),
        counters: rpc_metrics,
        limits,
        net_info: node.p2p.as_ref().map(|p2p| p2p.net_info.clone()),
    };
    let stop_asked = Arc::new(Notify::new());
    let desk = Desk {
        node: config.raft.node_id.clone(),
        links: admin::Links {
            node_status: condition.node_status.clone(),
            changed: board.recipient(),
            hand_off: node.hand_off.clone(),
            pause: node.pause.clone(),
            resume: node.resume.clone(),
            prepare_stop: node.prepare_stop.clone(),
            stop: stop_asked.clone(),
            change: node.cluster.change.clone(),
            journal: Some(journal.recipient()),
        },
        patience: Patience::default(),
    };
    let pool = node.engine.pool.clone().filter(|_| config.engine.kv_pool);
    let post = match pool {
        None => node.sequencer.post_txs.clone(),
        Some(pool) => {
            let (supervisor, reader) = (node.supervisor.clone(), node.reader.clone());
            let replay_window = config.replay_window;
            PoolIntake { pool, supervisor, reader, replay_window }.start().recipient()
        }
    };
    let kv = view.map(|view| KvHttp {
        post,
        pooled: config.engine.kv_pool.then_some(config.node.scrape_interval),
        await_tx: node.sequencer.await_tx.clone(),
        cluster: Some(node.cluster.view.clone()),
        view,
        config: kv_http::Config { max_tx_bytes: config.queue.max_tx_bytes, ..kv_http::Config::default() },
        metrics: kv_metrics,
    });
    let mut servers = Servers::new();
    servers.add(|closed| socket.serve(desk, closed));
    ports.serve(rpc_parts, kv, &mut servers);
    let watch = disk::Config {
        directory: config.files.data().to_owned(),
        min_free: config.min_free_disk,
        reserve: RESERVE,
        interval: Duration::from_secs(1),
    };
    DiskWatch::start(watch, node.disk.clone(), disk_metrics);

    let ended = signals.told_to_stop(alarmed, &stop_asked).await;
    servers.close();
    stop(&node, &store).await;
    servers.end().await;
    info!("stopped");
    ended
}

/// Opens the peer-to-peer network, where it is on, and says how its actor is to behave.
async fn open_network(
    network: Option<p2p::Config>,
    config: &Config,
    genesis: &Genesis,
    signer: &Signer,
    metrics: p2p::Metrics,
) -> Result<(Option<baton_actors::p2p::Parts>, Option<baton_actors::p2p::Config>), ExitError> {
    let Some(network) = network else {
        info!("p2p is off: no listen address is set");
        return Ok((None, None));
    };
    let key = keys::node_key(&config.files).map_err(ExitError::config)?;
    let parts =
        p2p::open(&network, &key, &genesis.chain_id, metrics).await.map_err(ExitError::retry_later)?;
    Ok((Some(parts), Some(network.for_actor(&key, signer.clone()))))
}

/// Opens the record of events and starts to write it, on a thread of its own.
fn open_journal(
    files: &Home,
    rotation: Rotation,
    reader: Reader,
    now: journal::Now,
) -> Result<(Addr<Journal>, journal::Metrics), ExitError> {
    let (path, metrics) = (files.events(), journal::Metrics::default());
    let journal = Journal::open(&path, rotation, reader, now, metrics.clone());
    let journal = journal.map_err(|error| ExitError::retry_later(format!("{}: {error}", path.display())))?;
    let journal = Journal::start_in_arbiter(&actix_rt::Arbiter::new().handle(), |ctx| {
        ctx.set_mailbox_capacity(JOURNAL);
        journal
    });
    Ok((journal, metrics))
}

/// Refuses a start with a transaction in the queue that fits into no block any more: it was
/// accepted, so it is not dropped (P3), and nothing may overtake it.
fn check_queue(store: &Store, max_block_bytes: usize) -> Result<(), ExitError> {
    let room = max_block_bytes.saturating_sub(TX_FRAME);
    let largest = store.queue().load()?.into_iter().map(|(_, tx)| tx.0.len()).max().unwrap_or(0);
    match largest > room {
        true => Err(ExitError::config(format!(
            "the queue holds an accepted transaction of {largest} bytes, and block.max_bytes: {max_block_bytes} \
             leaves room for {room}: set block.max_bytes to at least {} until it is in a block",
            largest + TX_FRAME
        ))),
        false => Ok(()),
    }
}

/// The signals that end the node cleanly; listened to before anything is opened.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> Result<Self, ExitError> {
        let terminate = signal(SignalKind::terminate()).map_err(ExitError::other)?;
        let interrupt = signal(SignalKind::interrupt()).map_err(ExitError::other)?;
        Ok(Self { terminate, interrupt })
    }

    /// Waits for a signal, an operator's command, or for the news that a person is needed.
    async fn told_to_stop(
        mut self,
        alarmed: oneshot::Receiver<String>,
        asked: &Notify,
    ) -> Result<(), ExitError> {
        tokio::select! {
            biased;
            Ok(reason) = alarmed => Err(ExitError::integrity(reason)),
            _ = self.terminate.recv() => {
                info!("SIGTERM: stopping");
                Ok(())
            }
            () = asked.notified() => {
                info!("an operator's command: stopping");
                Ok(())
            }
            _ = self.interrupt.recv() => {
                info!("SIGINT: stopping");
                Ok(())
            }
        }
    }
}

/// Producers first, then consensus, then the store.
async fn stop(node: &Node, store: &Store) {
    let until = tokio::time::Instant::now() + PARTS_WITHIN;
    for part in &node.shutdown {
        let left = until.saturating_duration_since(tokio::time::Instant::now()).max(LEAST_WITHIN);
        if let Err(error) = part.send(Shutdown).timeout(left).await {
            warn!(%error, "a part did not stop in time");
        }
    }
    close(store).await;
}

/// Closes the store, or gives it up when the disk hangs.
async fn close(store: &Store) {
    failpoints::pass("node.before_close");
    // A disk that hangs must not keep the process from ending with the code that was decided.
    let (closed, close) = (store.clone(), oneshot::channel());
    let closing = std::thread::Builder::new().name("close".to_owned()).spawn(move || {
        closed.close();
        let _ = close.0.send(());
    });
    if closing.is_ok() && tokio::time::timeout(CLOSE_WITHIN, close.1).await.is_err() {
        warn!("the store did not close in time");
    }
    failpoints::pass("node.after_close");
}

/// What the guard is compared with before Raft has applied everything again: a guard ahead of
/// this is refused only until then. Signatures in the log are this member's own where nobody else
/// votes; else its guard may be behind them, and follows (docs/adr/0007-double-sign-guard.md).
fn progress(reader: &Reader) -> Result<Progress, ExitError> {
    let mut height = reader.tip().height;
    let last_block = height;
    if !reader.is_sole_voter() {
        return Ok(Progress { last_block, last_signed: None });
    }
    while height >= reader.initial_height() {
        if let (Some(_), Some(hash)) = (reader.signature(height)?, reader.hash(height)?) {
            return Ok(Progress { last_block, last_signed: Some((height, hash)) });
        }
        height = height.previous();
    }
    Ok(Progress { last_block, last_signed: None })
}

fn signer_parts(
    config: &Config,
    key: FileKey,
    rotation: Rotation,
    now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    metrics: signer::Metrics,
) -> Result<signer::Parts, ExitError> {
    let guard = FileGuard::open(&config.files.guard()).map_err(ExitError::retry_later)?;
    let audit = FileAudit::open_rotating(&config.files.audit(), rotation).map_err(ExitError::retry_later)?;
    Ok(signer::Parts { key: Box::new(key), guard: Box::new(guard), audit: Box::new(audit), now, metrics })
}

pub(crate) fn celestia_config(config: &Config) -> Result<celestia::Config, ExitError> {
    let options = match config.da.submit_options.trim() {
        "" => "{}",
        options => options,
    };
    let submit_options = serde_json::from_str(options).map_err(|error| {
        ExitError::config(format!("da.submit_options is not what a DA node takes: {error}"))
    })?;
    Ok(celestia::Config {
        address: config.da.address.clone(),
        auth_token: config.da.auth_token.as_ref().map(|token| AuthToken::new(token.reveal())),
        request_timeout: config.da.request_timeout,
        submit_options,
        signing_addresses: config.da.signing_addresses.clone(),
        submits_per_account: config.da.submits_per_account,
        max_answer: config.da.max_response_bytes,
    })
}

fn settings(config: &Config, genesis: &Genesis, store: &Store, signer: &Signer) -> Settings {
    let call_timeout = config.engine.call_timeout;
    let reply_within = call_timeout + Duration::from_secs(2);
    let retry_after = Duration::from_millis(250);
    Settings {
        raft: raft::Config {
            member: members::own(config, store),
            heartbeat_interval: config.raft.heartbeat_interval,
            election_timeout_min: config.raft.election_timeout_min,
            election_timeout_max: config.raft.election_timeout_max,
            snapshot_after: config.raft.snapshot_threshold,
            keep_entries: config.raft.trailing_logs,
            keep_bytes: LOG_BYTES,
            bootstrap: members::bootstrap(config),
            fresh_cluster: uuid::Uuid::new_v4(),
            question_within: Duration::from_secs(5),
            reopen_after: Duration::from_millis(500),
            longest_pause: Duration::from_secs(30),
        },
        sequencer: sequencer::Config {
            max_txs: config.queue.max_txs,
            max_bytes: config.queue.max_bytes,
            max_tx_bytes: config.queue.max_tx_bytes,
            replay_window: usize::try_from(config.replay_window).unwrap_or(usize::MAX),
            max_waiting: config.queue.max_waiting,
            longest_wait: kv_http::Config::default().max_wait,
            forward: sequencer::forward::Config::default(),
        },
        engine: engine::Config { call_timeout, ..engine::Config::default() },
        executor: executor::Config {
            block_time: config.node.block_time,
            lazy: config.node.lazy_mode,
            lazy_interval: config.node.lazy_block_interval,
            max_bytes: config.max_block_bytes,
            max_da_backlog: config.node.max_pending,
            reply_within,
            retry_after,
            record_signature_after: (config.node.block_time * 2).max(Duration::from_millis(50)),
        },
        reaper: config.engine.kv_pool.then(|| reaper::Config {
            interval: config.node.scrape_interval,
            longest_pause: Duration::from_secs(30),
            reply_within,
            max_bytes: config.max_block_bytes,
        }),
        da: da::Config { request_timeout: config.da.request_timeout, ..da::Config::default() },
        da_submitter: da_submitter::Config {
            header_namespace: Namespace::of(&config.da.namespace),
            data_namespace: Namespace::of(&config.da.data_namespace),
            signer: signer.clone(),
            batching: config.da.batching,
            max_bytes: config.da.max_blob_bytes,
            max_blobs: 512,
            interval: (config.da.block_time / 4).max(Duration::from_millis(100)),
            da_block_time: config.da.block_time,
            submit_within: config.da.request_timeout + Duration::from_secs(2),
            reply_within,
            search_depth: 1_000,
        },
        syncer: syncer::Config {
            reply_within,
            retry_after,
            log_every: 1_000,
            backfill: syncer::backfill::Config::default(),
            executes: !config.raft.witness,
        },
        supervisor: supervisor::Config {
            times: supervisor::peers::Times {
                heartbeat: config.raft.heartbeat_interval,
                election_min: config.raft.election_timeout_min,
                election_max: config.raft.election_timeout_max,
            },
            witness: config.raft.witness,
            rpc: config.rpc.advertise.clone(),
            intake: config.kv.advertise.clone(),
            settings: common_settings(config),
            disk_limit: (config.raft.election_timeout_max * 3).max(Duration::from_millis(500)),
            stalled_after: (config.node.block_time * 10).max(config.raft.election_timeout_max * 10),
            // One call that hangs, and a few DA blocks that are full, are no outage.
            da_limit: (config.da.block_time * 5).max(config.da.request_timeout),
            da_every: config.da.block_time.max(Duration::from_secs(1)),
            ..supervisor::Config::default()
        },
        signer: signer::Config {
            chain: ChainId { name: genesis.chain_id.clone(), genesis: genesis.hash() },
            initial_height: genesis.initial_height,
        },
        p2p: None,
        inbox: config.da.forced_namespace.as_ref().map(|namespace| inbox::Config {
            namespace: Namespace::of(namespace),
            max_tx_bytes: largest_forced(config.da.max_blob_bytes),
            max_bytes: config.da.max_blob_bytes * 4,
            max_txs: 100_000,
            da_block_time: config.da.block_time,
            reply_within: config.da.request_timeout + Duration::from_secs(2),
        }),
    }
}

/// The largest transaction that is taken when it is forced. A block with it fits into a blob, and into what
/// every member can read: anybody may put one on DA, and a block that reaches nobody would end the chain.
fn largest_forced(max_blob_bytes: usize) -> usize {
    max_blob_bytes.saturating_sub(BLOB_OVERHEAD).min(MAX_BLOCK_BYTES)
}

/// A hash over the settings in which the members of a cluster must agree: blobs would go to another
/// place, or a transaction be taken for new (hazard D11). `block.max_bytes` is not among them: blocks
/// of any size are understood, and whoever differs in these settings is not chosen to lead. A witness
/// needs none of them, and nobody compares its hash with theirs.
fn common_settings(config: &Config) -> Hash {
    let Config { da, replay_window, engine, .. } = config;
    let mut text = format!("{}\n{}\n{replay_window}", da.namespace, da.data_namespace);
    // Said only where it is not the usual, so that members of an older version agree.
    if engine.kv_roots == Roots::Testapp {
        text.push_str("\ntestapp");
    }
    if let Some(namespace) = &da.forced_namespace {
        text.push_str("\nforced ");
        text.push_str(namespace);
    }
    Hash::of(text.as_bytes())
}

/// Where this life's chance comes from.
#[allow(clippy::disallowed_methods)] // The one place where entropy comes in.
fn seed() -> u64 {
    rand::random()
}

#[cfg(test)]
mod tests {
    use baton_messages::types::{Height, Tx};
    use baton_storage::memory::{Disk, options};
    use bytes::Bytes;

    use super::*;

    #[test]
    fn no_forced_transaction_is_too_large_for_the_way_to_the_other_members() {
        let limits = crate::cluster::Limits::default();
        for max_blob_bytes in [131_072, 5 << 20, 32 << 20, 1 << 30, usize::MAX] {
            let largest = largest_forced(max_blob_bytes);
            let room = limits.append.bytes.min(limits.bulk.bytes);
            assert!(largest + (8 << 20) <= room, "{largest} of {max_blob_bytes} bytes, {room} fit");
        }
        assert_eq!(largest_forced(5 << 20), (5 << 20) - BLOB_OVERHEAD);
    }

    #[tokio::test]
    async fn a_start_is_refused_while_an_accepted_transaction_fits_into_no_block() {
        let store =
            Store::create_in_memory(&Disk::new(), options("chain"), uuid::Uuid::from_u128(1)).unwrap();
        assert!(check_queue(&store, 0).is_ok(), "nothing waits");
        store.queue().append(vec![Tx(Bytes::from(vec![7; 1000]))], Height(0)).await.unwrap();
        assert!(check_queue(&store, 1000 + TX_FRAME).is_ok());
        let refused = check_queue(&store, 999 + TX_FRAME).unwrap_err();
        assert!(refused.to_string().contains("at least 1016"), "{refused}");
        assert_eq!(refused.code, crate::exit::ExitCode::Config);
    }
}
