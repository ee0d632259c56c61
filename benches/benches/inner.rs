//! The inner loops of block production, each on its own.

use std::hint::black_box;
use std::time::Duration;

use baton_actors::engine::Execution;
use baton_actors::engine::kv::{self, Kv};
use baton_actors::signer::FileGuard;
use baton_actors::signer::guard::{Guard, GuardStore};
use baton_actors::signer::slot::ChainId;
use baton_benches::feed::{CHAIN, Chain, Feed};
use baton_benches::place;
use baton_messages::chain::Block;
use baton_messages::codec::{decode, encode};
use baton_messages::command::{BlockEntry, Command, ForcedPosition};
use baton_messages::engine::InitChain;
use baton_messages::types::{Height, Term};
use baton_storage::raft_types::{Entry, Payload, log_id};
use baton_storage::{Completion, OpenOptions, Store, TypeConfig};
use criterion::{BenchmarkId, Criterion, Throughput};
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::time::Instant;
use uuid::Uuid;

/// Transactions per block where the number matters.
const SIZES: [usize; 4] = [1, 100, 1_000, 10_000];

fn txs(count: usize) -> BenchmarkId {
    BenchmarkId::from_parameter(format_args!("txs={count}"))
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime can be built")
}

/// A RocksDB store of its own, gone when dropped.
fn store(chain: &Chain) -> (TempDir, Store) {
    let directory = place::directory();
    let options = OpenOptions {
        path: directory.path().join("store"),
        chain_id: CHAIN.to_owned(),
        genesis: chain.genesis().clone(),
        completion: Completion::Thread,
    };
    (directory, Store::create(options, Uuid::from_u128(1)).expect("a new store can be made"))
}

fn headers(criterion: &mut Criterion) {
    let block = Chain::default().block(1);
    let header = block.header();
    criterion.bench_function("encode/header", |bencher| bencher.iter(|| black_box(header).encode()));
    criterion.bench_function("hash/header", |bencher| bencher.iter(|| black_box(header).hash()));
}

fn blocks(criterion: &mut Criterion) {
    let blocks: Vec<_> = SIZES.map(|size| (size, Chain::default().block(size))).into();
    let mut group = criterion.benchmark_group("commitment/data");
    for (size, block) in &blocks {
        group.throughput(Throughput::Elements(*size as u64));
        group.bench_function(txs(*size), |bencher| bencher.iter(|| black_box(block.data()).commitment()));
    }
    group.finish();

    let mut group = criterion.benchmark_group("codec/block");
    for (size, block) in &blocks {
        let bytes = encode(block);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        let id = |what| BenchmarkId::from_parameter(format_args!("{what} txs={size}"));
        group.bench_function(id("encode"), |bencher| bencher.iter(|| encode(black_box(block))));
        group.bench_function(id("decode"), |bencher| {
            bencher.iter(|| decode::<Block>(black_box(&bytes)).expect("it was just encoded"));
        });
    }
    group.finish();
}

/// The key-value app on RocksDB; its writes are not synced.
fn execution(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("kv_execute");
    group.sample_size(20).measurement_time(Duration::from_secs(3));
    for size in SIZES {
        group.throughput(Throughput::Elements(size as u64));
        let mut running = None;
        group.bench_function(txs(size), |bencher| {
            let (runtime, chain, _store, kv) = running.get_or_insert_with(|| {
                let (runtime, chain) = (runtime(), Chain::default());
                let store = store(&chain);
                let mut kv = Kv::open(store.1.backend(), kv::Config::default()).expect("a new state");
                let genesis = chain.genesis();
                let init = InitChain {
                    time: genesis.start_time,
                    initial_height: genesis.initial_height,
                    chain_id: genesis.chain_id.clone(),
                };
                runtime.block_on(kv.init_chain(init)).expect("a new chain");
                (runtime, chain, store, kv)
            });
            bencher.iter_custom(|count| {
                let mut spent = Duration::ZERO;
                for _ in 0..count {
                    let block = chain.block(size);
                    let began = Instant::now();
                    runtime.block_on(kv.execute_block(block)).expect("the next block");
                    spent += began.elapsed();
                }
                spent
            });
        });
    }
    group.finish();
}

/// The guard's file: one slot and its fsync.
fn guard(criterion: &mut Criterion) {
    let directory = place::directory();
    let mut file = FileGuard::open(&directory.path().join("guard")).expect("a new guard");
    let chain = ChainId { name: CHAIN.to_owned(), genesis: Chain::default().genesis().hash() };
    let slot = Guard::new(&chain, Height(1)).expect("a short name").record().encode();
    file.create(&slot).expect("a new guard");
    let mut turn = 0;
    criterion.bench_function("guard/write", |bencher| {
        bencher.iter(|| {
            turn = 1 - turn;
            file.write(turn, &slot).expect("the guard can be written");
            file.sync().expect("the guard can be synced");
        });
    });
}

/// Accepting transactions: the batch and its fsync.
fn queue(criterion: &mut Criterion) {
    let (runtime, mut feed) = (runtime(), Feed::default());
    let (_directory, store) = store(&Chain::default());
    let queue = store.queue();
    let mut group = criterion.benchmark_group("queue/append");
    for size in [1, 256] {
        group.throughput(Throughput::Elements(size as u64));
        group.bench_function(txs(size), |bencher| {
            bencher.iter_custom(|count| {
                let mut spent = Duration::ZERO;
                for _ in 0..count {
                    let batch = feed.txs(size);
                    let began = Instant::now();
                    let numbers =
                        runtime.block_on(queue.append(batch, Height(0))).expect("the disk takes it");
                    spent += began.elapsed();
                    queue.remove(&numbers);
                }
                spent
            });
        });
    }
    group.finish();
    store.close();
}

/// Appending a block to the log: body, entry and the fsync before which nothing is committed.
fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append/fsync");
    for size in [1, 100, 10_000] {
        group.throughput(Throughput::Elements(size as u64));
        let mut running = None;
        group.bench_function(txs(size), |bencher| {
            let (runtime, chain, (_, store), index) = running.get_or_insert_with(|| {
                let chain = Chain::default();
                let store = store(&chain);
                (runtime(), chain, store, 0)
            });
            let mut log = store.log();
            bencher.iter_custom(|count| {
                let mut spent = Duration::ZERO;
                for _ in 0..count {
                    *index += 1;
                    let block = chain.block(size);
                    let forced = ForcedPosition::default();
                    let entry = BlockEntry { term: Term(1), block, tail: None, forced };
                    let payload = Payload::Normal(Command::Block(entry));
                    let entry = Entry { log_id: log_id(1, *index), payload };
                    let began = Instant::now();
                    runtime.block_on(async {
                        let (sender, flushed) = TypeConfig::oneshot();
                        log.append([entry], IOFlushed::signal(sender)).await.expect("it can be queued");
                        flushed.await.expect("the callback is called").expect("the disk takes it");
                    });
                    spent += began.elapsed();
                }
                spent
            });
        });
        if let Some((_, _, (_, store), _)) = &running {
            store.close();
        }
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    headers(&mut criterion);
    blocks(&mut criterion);
    execution(&mut criterion);
    guard(&mut criterion);
    queue(&mut criterion);
    append(&mut criterion);
    criterion.final_summary();
}
