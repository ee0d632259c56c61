//! What the node knows at a scrape: the status board's answer as series.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use baton_messages::types::Role;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use crate::rpc::Report;

/// The newest answer of the status board, if it gave one.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot(Arc<Mutex<Option<Report>>>);

impl Snapshot {
    pub(super) fn set(&self, report: Option<Report>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = report;
    }

    fn get(&self) -> Option<Report> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Writes gauges one after the other; a value that is not known is left out.
struct Gauges<'a>(DescriptorEncoder<'a>);

impl Gauges<'_> {
    fn put(&mut self, name: &str, help: &str, value: Option<u64>) -> fmt::Result {
        match value {
            Some(value) => {
                self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
            }
            None => Ok(()),
        }
    }

    /// One series that is 1 while there is something to say.
    fn say(&mut self, name: &str, help: &str, label: &str, words: &[String]) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for word in words {
            metric.encode_family(&[(label, super::escaped(word))])?.encode_gauge(&1_u64)?;
        }
        Ok(())
    }
}

/// What the board said.
#[derive(Debug)]
pub(super) struct Node(pub(super) Snapshot);

impl Collector for Node {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let Some(Report { status, reasons }) = self.0.get() else { return Ok(()) };
        let mut gauges = Gauges(encoder);
        gauges.put("ready", "1 when /health/ready says so", Some(reasons.is_empty().into()))?;
        gauges.say("unready", "Why not, one series per reason", "reason", &reasons)?;
        gauges.put(
            "store_trouble",
            "1 when something is wrong with the store",
            Some(status.store_trouble.is_some().into()),
        )?;
        gauges.put("tip_height", "The last applied block", Some(status.tip.height.0))?;
        gauges.put("da_headers_height", "Headers up to this height are on DA", Some(status.da.headers.0))?;
        gauges.put("da_data_height", "Data up to this height is on DA", Some(status.da.data.0))?;
        gauges.put(
            "da_included_height",
            "Both up to this height, as recorded",
            Some(status.da.included.0),
        )?;

        let raft = status.raft.as_ref();
        gauges.put("leader", "1 on the leader", raft.map(|raft| (raft.role == Role::Leader).into()))?;
        gauges.put(
            "leader_known",
            "1 when a leader is known",
            raft.map(|raft| raft.leader.is_some().into()),
        )?;
        gauges.put("term", "Raft's term", raft.map(|raft| raft.term.0))?;
        gauges.put("raft_last_log", "The last log index here", raft.map(|raft| raft.last_log.0))?;
        gauges.put(
            "raft_committed",
            "The last index known to be committed",
            raft.map(|raft| raft.committed.0),
        )?;
        gauges.put("raft_applied", "The last index applied here", raft.map(|raft| raft.applied.0))?;
        gauges.put("raft_voters", "Voters", raft.map(|raft| raft.voters.len() as u64))?;
        gauges.put("raft_learners", "Learners", raft.map(|raft| raft.learners.len() as u64))?;

        if let Some(observer) = status.follow.as_ref().and_then(|follow| follow.observer.as_ref()) {
            gauges.put("executed_height", "The last executed height", Some(observer.executed.0))?;
            gauges.put(
                "da_trouble",
                "1 when the DA layer is in trouble",
                Some(observer.da_trouble.is_some().into()),
            )?;
        }
        let supervisor = status.supervisor.as_ref();
        let producing = supervisor.map(|view| view.grant.is_some() && view.pause.is_none());
        gauges.put("executed_height", "The last executed height", supervisor.map(|view| view.executed.0))?;
        gauges.put(
            "eligible",
            "1 when this node may produce",
            supervisor.map(|view| view.eligibility.reasons.is_empty().into()),
        )?;
        gauges.put("producing", "1 when this node produces", producing.map(u64::from))?;
        gauges.put(
            "da_trouble",
            "1 when the DA layer is in trouble",
            supervisor.map(|view| view.da_trouble.is_some().into()),
        )?;

        let queue = status.queue.as_ref();
        gauges.put("queue_txs", "Transactions waiting", queue.map(|queue| queue.txs as u64))?;
        gauges.put("queue_bytes", "Bytes waiting", queue.map(|queue| queue.bytes as u64))?;
        gauges.put(
            "queue_max_txs",
            "Most transactions that may wait",
            queue.map(|queue| queue.max_txs as u64),
        )?;
        gauges.put(
            "queue_max_bytes",
            "Most bytes that may wait",
            queue.map(|queue| queue.max_bytes as u64),
        )?;
        gauges.put(
            "queue_waiting",
            "Requests waiting for an outcome",
            queue.map(|queue| queue.waiting as u64),
        )?;
        gauges.put(
            "replay_window_txs",
            "Transactions in the replay window",
            queue.map(|queue| queue.window as u64),
        )?;

        let guarded = status.signer.as_ref().and_then(|signer| signer.guarded);
        gauges.put(
            "guarded_height",
            "The last height the double-sign guard holds",
            guarded.map(|(height, _)| height.0),
        )
    }
}
