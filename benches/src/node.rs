//! One node of real actors, in real time.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Handler, System};
use baton::wiring::{self, Parts, Settings, Threads, Wiring};
use baton_actors::engine::Execution;
use baton_actors::engine::kv::{self, Kv};
use baton_actors::signer::audit::{Audit, FileAudit, MemoryAudit};
use baton_actors::signer::guard::{GuardStore, Progress};
use baton_actors::signer::key::{FileKey, Key};
use baton_actors::signer::slot::ChainId;
use baton_actors::signer::{self, FileGuard, MemoryGuard};
use baton_actors::world::{Clock, World};
use baton_actors::{da, da_submitter, engine, executor, raft, sequencer, supervisor, syncer};
use baton_messages::chain::Signer;
use baton_messages::da::Namespace;
use baton_messages::sequencer::{AwaitTx, Level, SubmitTxs};
use baton_messages::supervisor::{IntegrityStop, Shutdown};
use baton_messages::types::{Hash, Height, Member, Timestamp, Tx};
use baton_storage::memory::Disk;
use baton_storage::{Completion, OpenOptions, Store};
use tempfile::TempDir;
use tokio::time::Instant;
use uuid::Uuid;

use crate::da::Accepting;
use crate::feed::{CHAIN, ENCODED_TX_BYTES, TX_BYTES, genesis};
use crate::place;
use crate::timings::Timings;

/// Where store and guard are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In memory, where a sync costs nothing.
    Memory,
    /// RocksDB and the guard's file on a disk, with every fsync.
    Disk,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Disk => "rocksdb",
        })
    }
}

/// When a block is made, and how many transactions it takes at the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Only when there are transactions.
    pub lazy: bool,
    /// Most transactions of the feed in a block.
    pub max_txs: usize,
}

/// No answer of the node takes longer, on any machine.
const WITHIN: Duration = Duration::from_secs(120);
/// What the queue takes: a whole run is put into it at once.
const QUEUE: usize = 2_000_000;

/// A node of real actors on a runtime of its own.
pub struct Node {
    system: Option<actix::SystemRunner>,
    wired: wiring::Node,
    metrics: executor::Metrics,
    store: Store,
    _directory: Option<TempDir>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("tip", &self.wired.reader.tip()).finish_non_exhaustive()
    }
}

/// The wall clock of this machine.
struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "a benchmark runs in real time")]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Timestamp(since.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Nothing here may need a person.
struct Alarm;

impl Actor for Alarm {
    type Context = Context<Self>;
}

impl Handler<IntegrityStop> for Alarm {
    type Result = ();

    fn handle(&mut self, message: IntegrityStop, _: &mut Context<Self>) {
        panic!("integrity stop: {}", message.reason);
    }
}

impl Node {
    /// Starts a node and waits for its first block.
    ///
    /// # Panics
    ///
    /// When the machine does not give what it needs.
    #[must_use]
    pub fn start(place: Place, pace: Pace) -> Self {
        let directory = (place == Place::Disk).then(place::directory);
        let runtime = || {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(2).enable_all().build().expect("the operating system gives threads")
        };
        let system = System::with_tokio_rt(runtime);
        let key = FileKey::from_seed(&[7; 32]);
        let signer = Signer::ed25519(&key.public());
        let store = create_store(directory.as_ref(), &signer);
        let settings = settings(&store, &signer, pace);
        let (wired, metrics) = system.block_on(async {
            let parts = parts(directory.as_ref(), &store, key);
            let wiring = Wiring::new(settings, parts, Alarm.start().recipient());
            let metrics = wiring.metrics.executor.clone();
            (wiring.start(), metrics)
        });
        let node = Self { system: Some(system), wired, metrics, store, _directory: directory };
        node.block_on(node.wait_for(Height(1)));
        node
    }

    fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.system.as_ref().expect("it runs until it is dropped").block_on(future)
    }

    async fn wait_for(&self, height: Height) -> Height {
        loop {
            let tip = self.wired.reader.tip().height;
            if tip >= height {
                return tip;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// What the executor measured, once it has finished with the block that is the tip now.
    #[must_use]
    pub fn timings(&self) -> Timings {
        // Every block of the chain was made here.
        let tip = self.wired.reader.tip().height.0;
        self.block_on(async {
            loop {
                let timings = Timings::of(&self.metrics);
                if timings.blocks >= tip {
                    return timings;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
    }

    /// Makes so many blocks, whatever is in them, and returns how long that took.
    ///
    /// The tip is looked at every millisecond, so more blocks may be made: the time is that of
    /// as many as were asked for, in proportion.
    ///
    /// # Panics
    ///
    /// When there are so many that a whole number of them is not exact any more.
    #[must_use]
    pub fn blocks(&self, count: u64) -> Duration {
        self.block_on(async {
            let (from, began) = (self.wired.reader.tip().height, Instant::now());
            let tip = self.wait_for(Height(from.0 + count)).await;
            let made = u32::try_from(tip.0 - from.0).expect("fewer blocks than that");
            began.elapsed() / made * u32::try_from(count).expect("fewer blocks than that")
        })
    }

    /// Puts transactions into the queue, all in one durable step, and returns how long it took
    /// from there until the last of them was executed.
    ///
    /// # Panics
    ///
    /// When the node does not take or not execute them.
    #[must_use]
    pub fn execute(&self, txs: Vec<Tx>) -> Duration {
        let last = txs.last().expect("there are transactions").hash();
        self.block_on(async {
            let submit = self.wired.sequencer.submit_txs.send(SubmitTxs { txs }).timeout(WITHIN);
            let submitted = submit.await.expect("the sequencer answers");
            let began = Instant::now();
            submitted.expect("the queue has room");
            self.executed(last).await;
            began.elapsed()
        })
    }

    async fn executed(&self, hash: Hash) {
        let wait = AwaitTx { hash, level: Level::Executed };
        let outcome = self.wired.sequencer.await_tx.send(wait).timeout(WITHIN).await;
        outcome.expect("the sequencer answers").expect("the transaction is known");
    }
}

impl Drop for Node {
    #[allow(clippy::disallowed_methods, reason = "whoever made the system ends it")]
    fn drop(&mut self) {
        let Some(system) = self.system.take() else { return };
        system.block_on(async {
            for part in &self.wired.shutdown {
                // What does not stop is dropped with its thread.
                let _ = part.send(Shutdown).timeout(Duration::from_secs(10)).await;
            }
            self.store.close();
            System::current().stop();
        });
        // The arbiters end with the system, and with them what engine and signer hold.
        let _ = system.run();
    }
}

fn create_store(directory: Option<&TempDir>, signer: &Signer) -> Store {
    let options = OpenOptions {
        path: directory.map_or_else(|| "memory".into(), |directory| directory.path().join("store")),
        chain_id: CHAIN.to_owned(),
        genesis: genesis(signer.address.clone()),
        completion: Completion::Thread,
    };
    let storage = Uuid::from_u128(1 << 64 | 1);
    let store = match directory {
        Some(_) => Store::create(options, storage),
        None => Store::create_in_memory(&Disk::new(), options, storage),
    };
    store.expect("a new store can be made")
}

fn parts(directory: Option<&TempDir>, store: &Store, key: FileKey) -> Parts {
    let (guard, audit): (Box<dyn GuardStore>, Box<dyn Audit>) = match directory {
        Some(directory) => (
            Box::new(FileGuard::open(&directory.path().join("guard")).expect("a new guard")),
            Box::new(FileAudit::open(&directory.path().join("audit.log")).expect("a new record")),
        ),
        None => (Box::new(MemoryGuard::default()), Box::new(MemoryAudit::default())),
    };
    let kv = Kv::open(store.backend(), kv::Config::default()).expect("a new state");
    Parts {
        world: World::new(Arc::new(SystemClock), 1),
        store: store.clone(),
        transport: Arc::new(raft::transport::Nobody),
        execution: Some(Box::new(move || Box::new(kv) as Box<dyn Execution>)),
        da: Some(Rc::new(Accepting::default())),
        signer: Some(signer::Parts {
            key: Box::new(key),
            guard,
            audit,
            now: Arc::new(|| SystemClock.now()),
            metrics: signer::Metrics::default(),
        }),
        progress: Progress::default(),
        threads: Threads::Dedicated,
        p2p: None,
    }
}

/// The node's defaults, but for the pace and the room in the queue.
fn settings(store: &Store, signer: &Signer, pace: Pace) -> Settings {
    let identity = store.identity();
    Settings {
        raft: raft::Config {
            member: Member { name: "one".to_owned(), storage: identity.storage, ..Member::default() },
            heartbeat_interval: Duration::from_millis(70),
            election_timeout_min: Duration::from_millis(210),
            election_timeout_max: Duration::from_millis(350),
            snapshot_after: 500,
            keep_entries: 200,
            keep_bytes: 64 << 20,
            bootstrap: raft::Bootstrap::Sole,
            fresh_cluster: Uuid::from_u128(2),
            question_within: Duration::from_secs(5),
            reopen_after: Duration::from_millis(500),
            longest_pause: Duration::from_secs(30),
        },
        sequencer: sequencer::Config {
            max_txs: QUEUE,
            max_bytes: QUEUE * TX_BYTES,
            max_tx_bytes: TX_BYTES,
            replay_window: 1_000,
            max_waiting: 1_000,
            longest_wait: Duration::from_secs(60),
            forward: sequencer::forward::Config::default(),
        },
        engine: engine::Config { call_timeout: WITHIN, ..engine::Config::default() },
        executor: executor::Config {
            block_time: Duration::ZERO,
            lazy: pace.lazy,
            lazy_interval: Duration::from_secs(3_600),
            max_bytes: pace.max_txs * ENCODED_TX_BYTES,
            max_da_backlog: 0,
            reply_within: WITHIN,
            retry_after: Duration::from_millis(10),
            record_signature_after: Duration::from_millis(50),
        },
        reaper: None,
        da: da::Config::default(),
        da_submitter: da_submitter::Config {
            header_namespace: Namespace::of("headers"),
            data_namespace: Namespace::of("data"),
            signer: signer.clone(),
            batching: da_submitter::batching::Batching::default(),
            max_bytes: 8 << 20,
            max_blobs: 512,
            interval: Duration::from_millis(250),
            da_block_time: Duration::from_secs(1),
            submit_within: WITHIN,
            reply_within: WITHIN,
            search_depth: 1_000,
        },
        syncer: syncer::Config {
            reply_within: WITHIN,
            retry_after: Duration::from_millis(250),
            log_every: 1_000,
            backfill: syncer::backfill::Config::default(),
            executes: true,
        },
        supervisor: supervisor::Config::default(),
        signer: signer::Config {
            chain: ChainId { name: identity.chain_id, genesis: identity.genesis_hash },
            initial_height: Height(1),
        },
        p2p: None,
        inbox: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::Feed;

    #[test]
    fn a_node_executes_what_it_is_given_in_full_blocks() {
        for place in [Place::Memory, Place::Disk] {
            let node = Node::start(place, Pace { lazy: true, max_txs: 10 });
            let before = node.wired.reader.tip().height.0;
            assert!(node.execute(Feed::default().txs(30)) > Duration::ZERO);
            assert_eq!(node.wired.reader.tip().height.0, before + 3, "{place}");
            let spent = node.timings();
            assert!(spent.commit > 0.0 && spent.execution > 0.0, "{spent:?}");
            assert!(spent.production >= spent.commit + spent.execution, "{spent:?}");
        }
    }
}
