//! openraft's state machine around the writer.

use std::io;

use baton_messages::command::Verdict;
use futures::{Stream, StreamExt};
use openraft::OptionalSend;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};

use crate::backend::StoreError;
use crate::head::Head;
use crate::log_store::io_error;
use crate::raft_types::{Entry, LogId, SnapshotMeta, StoredMembership, TypeConfig};
use crate::writer::Writer;

/// Most entries that are applied in one batch.
const BATCH: usize = 64;

/// A snapshot as openraft hands it around.
pub type Snapshot = openraft::alias::SnapshotOf<TypeConfig, Head>;

/// Applies what is committed, and builds and installs snapshots.
#[derive(Clone, Debug)]
pub struct StateMachine {
    writer: Writer,
}

impl StateMachine {
    pub(crate) fn new(writer: Writer) -> Self {
        Self { writer }
    }

    /// Waits until an entry is in the write-ahead log. A leader may be told to apply before its
    /// own append is written: an apply must never get ahead of its entry (P4).
    async fn until_logged(&self, index: u64) -> Result<(), StoreError> {
        let inner = &self.writer.inner;
        let job = inner.log.lock().job_of(index);
        match job {
            Some(job) if job > inner.jobs.written() => inner.jobs.until_written(job).await,
            Some(_) | None => Ok(()),
        }
    }

    async fn commit(&self, entries: &[Entry]) -> Result<Vec<Verdict>, StoreError> {
        if let Some(last) = entries.last() {
            self.until_logged(last.log_id.index).await?;
        }
        self.writer.commit(entries)
    }
}

fn snapshot(head: Head) -> Result<Snapshot, StoreError> {
    Ok(Snapshot { meta: head.meta()?, snapshot: head })
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    type SnapshotData = Head;

    /// Not durable when it returns; ahead in the write-ahead log of any later purge.
    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        self.writer.build_head().and_then(snapshot).map_err(io_error)
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Head;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let chain = self.writer.inner.chain.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok((chain.applied.log.map(Into::into), chain.membership.clone()))
    }

    /// Visible when it returns, not synced: see `Writer::commit`.
    async fn apply<Strm>(&mut self, entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut chunks = entries.ready_chunks(BATCH);
        while let Some(chunk) = chunks.next().await {
            let mut failure = None;
            let mut entries = Vec::with_capacity(chunk.len());
            let mut responders = Vec::with_capacity(chunk.len());
            for item in chunk {
                match item {
                    Ok((entry, responder)) => {
                        entries.push(entry);
                        responders.push(responder);
                    }
                    Err(error) => {
                        failure = Some(error);
                        break;
                    }
                }
            }
            let verdicts = self.commit(&entries).await.map_err(io_error)?;
            for (responder, verdict) in responders.into_iter().zip(verdicts) {
                if let Some(responder) = responder {
                    responder.send(verdict);
                }
            }
            if let Some(error) = failure {
                return Err(error);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        self.clone()
    }

    /// Durable when it returns: the leader counts what the snapshot covers as stored here.
    async fn install_snapshot(&mut self, meta: &SnapshotMeta, head: Head) -> Result<(), io::Error> {
        if head.meta().map_err(io_error)? != *meta {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the snapshot is not what its description says",
            ));
        }
        self.writer.install_head(head).await.map_err(io::Error::other)
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        self.writer.current_head().and_then(|head| head.map(snapshot).transpose()).map_err(io_error)
    }
}
