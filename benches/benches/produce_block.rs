//! From transactions in the queue to their executed block: `produce_block/store=… txs=…`.

use std::time::Duration;

use baton_benches::feed::Feed;
use baton_benches::node::{Node, Pace, Place};
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};

fn produce_block(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("produce_block");
    group.sampling_mode(SamplingMode::Flat).sample_size(20).measurement_time(Duration::from_secs(4));
    for txs in [0, 1, 100, 10_000] {
        // The first has no transactions to count.
        if txs > 0 {
            group.throughput(Throughput::Elements(txs as u64));
        }
        for place in [Place::Memory, Place::Disk] {
            let id = BenchmarkId::from_parameter(format_args!("store={place} txs={txs}"));
            // Made when it is first needed, so that a filter leaves the others alone.
            let mut node = None;
            let mut feed = Feed::default();
            group.bench_function(id, |bencher| {
                let pace = Pace { lazy: txs > 0, max_txs: txs.max(1) };
                let node = node.get_or_insert_with(|| Node::start(place, pace));
                bencher.iter_custom(|count| match txs {
                    0 => node.blocks(count),
                    txs => (0..count).map(|_| node.execute(feed.txs(txs))).sum(),
                });
            });
        }
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    produce_block(&mut criterion);
    criterion.final_summary();
}
