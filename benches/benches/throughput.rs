//! Full blocks flat out, from a queue that never runs dry: `throughput/nodes=… txs=…`.

use std::time::Duration;

use baton_benches::feed::Feed;
use baton_benches::node::{Node, Pace, Place};
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};

/// So many transactions are in the queue at a time.
const IN_QUEUE: usize = 200_000;

fn throughput(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("throughput");
    group.sampling_mode(SamplingMode::Flat).sample_size(10).measurement_time(Duration::from_secs(8));
    for txs in [100, 1_000, 10_000] {
        group.throughput(Throughput::Elements(txs as u64));
        let id = BenchmarkId::from_parameter(format_args!("nodes=1 txs={txs}"));
        let mut node = None;
        let mut feed = Feed::default();
        group.bench_function(id, |bencher| {
            let pace = Pace { lazy: true, max_txs: txs };
            let node = node.get_or_insert_with(|| Node::start(Place::Disk, pace));
            bencher.iter_custom(|blocks| {
                let mut left = usize::try_from(blocks).expect("fewer blocks than that") * txs;
                let mut spent = Duration::ZERO;
                while left > 0 {
                    let now = left.min(IN_QUEUE);
                    spent += node.execute(feed.txs(now));
                    left -= now;
                }
                spent
            });
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    throughput(&mut criterion);
    criterion.final_summary();
}
