//! What the store is doing.

use std::fmt;

use baton_storage::Store;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// Reads the store's counters at each scrape.
#[derive(Debug)]
pub(super) struct Storage(pub(super) Store);

impl Collector for Storage {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let Self(store) = self;
        let stats = store.stats();
        let counters = [
            ("fsyncs", "Syncs of the write-ahead log", stats.fsyncs),
            ("batches", "Groups of jobs that were written together", stats.batches),
            ("jobs", "Jobs taken", stats.jobs),
        ];
        for (name, help, value) in counters {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter);
            metric?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        let mut gauge = |name: &str, help: &str, value: f64| {
            encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
        };
        gauge("queue_length", "Jobs waiting", stats.queue_length as f64)?;
        gauge("last_fsync_seconds", "How long the last sync took", stats.last_fsync.as_secs_f64())?;
        if let Ok(Some(bytes)) = store.free_space() {
            gauge("free_bytes", "Free space on the store's file system", bytes as f64)?;
        }
        Ok(())
    }
}
