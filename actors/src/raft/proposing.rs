//! Putting entries into the log: one block at a time, fenced by the term of its grant.

use actix::{Context, Handler, ResponseFuture};
use baton_messages::command::{BlockEntry, Command, Verdict};
use baton_messages::mutation::{Mutation, planted};
use baton_messages::raft::{Committed, ProposeBlock, ProposeError, Record, Settle};
use baton_messages::types::{LogIndex, Term};
use baton_storage::raft_types::TypeConfig;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, Fatal, ForwardReason, ForwardToLeader};
use openraft::impls::ProgressResponder;
use tracing::{debug, error};

use super::{Openraft, Raft};

impl Raft {
    pub(super) fn write(
        &self,
        term: Term,
        command: Command,
    ) -> impl Future<Output = Result<(LogIndex, Verdict), ProposeError>> + use<> {
        let raft = self.raft.clone();
        let trouble = self.trouble.clone().unwrap_or_else(|| "not started yet".to_owned());
        async move { write(raft.ok_or(ProposeError::Stopped(trouble))?, term, command).await }
    }

    /// What is said of a proposal while the one before is not decided.
    fn undecided(&mut self, term: Term) -> ProposeError {
        self.check_lease();
        match self.lease_held {
            true => ProposeError::NotLeader { term, reason: "another proposal is in flight".to_owned() },
            // That is why: it is decided when a quorum answers, or another leader is elected.
            false => ProposeError::NoQuorum,
        }
    }
}

/// Appends an entry in a term and waits until it is applied.
pub(super) async fn write(
    raft: Openraft,
    term: Term,
    command: Command,
) -> Result<(LogIndex, Verdict), ProposeError> {
    fail::fail_point!("raft.before_write");
    let (responder, done) = ProgressResponder::complete_only();
    let stopped = |fatal: Fatal<TypeConfig>| ProposeError::Stopped(fatal.to_string());
    let write = raft.write(command);
    let write = if planted(Mutation::NoTermFence) { write } else { write.with_leader(term.0) };
    write.responder(responder).await.map_err(stopped)?;
    // From here on the entry may be in the log.
    let reply = done.await.map_err(|_| ProposeError::Unknown("raft stopped".to_owned()))?;
    let reply = reply.map_err(|error| unwritten(&raft, error))?;
    fail::fail_point!("raft.after_write");
    Ok((LogIndex(reply.log_id.index), reply.data))
}

impl Handler<ProposeBlock> for Raft {
    type Result = ResponseFuture<Result<Committed, ProposeError>>;

    fn handle(&mut self, message: ProposeBlock, _: &mut Context<Self>) -> Self::Result {
        let term = message.grant.term;
        if self.proposing.replace(true) {
            return Box::pin(std::future::ready(Err(self.undecided(term))));
        }
        let ProposeBlock { block, tail, forced, .. } = message;
        let written = self.write(term, Command::Block(BlockEntry { term, block, tail, forced }));
        let metrics = self.metrics.clone();
        let (proposing, settled) = (self.proposing.clone(), self.settled.clone());
        let began = tokio::time::Instant::now();
        Box::pin(async move {
            let outcome = match written.await {
                Ok((index, Verdict::Committed(tip))) => Ok(Committed { tip, index }),
                Ok((index, Verdict::Refused(_, tip))) if planted(Mutation::IgnoreVerdict) => {
                    Ok(Committed { tip, index })
                }
                Ok((_, Verdict::Refused(refusal, tip))) => {
                    metrics.refused.inc();
                    error!(?refusal, %tip, "apply refused a block");
                    Err(ProposeError::Refused { refusal, tip })
                }
                Ok((index, verdict)) => Err(ProposeError::Unknown(format!("entry {index} became {verdict}"))),
                Err(error) => Err(error),
            };
            if matches!(outcome, Err(ProposeError::NotLeader { .. } | ProposeError::NoQuorum)) {
                metrics.fenced.inc();
            }
            if outcome.is_ok() {
                metrics.commit.observe(began.elapsed().as_secs_f64());
            }
            proposing.set(false);
            settled.notify_waiters();
            outcome
        })
    }
}

impl Handler<Settle> for Raft {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Settle, _: &mut Context<Self>) -> Self::Result {
        let (proposing, settled) = (self.proposing.clone(), self.settled.clone());
        Box::pin(async move {
            while proposing.get() {
                settled.notified().await;
            }
        })
    }
}

impl Handler<Record> for Raft {
    type Result = ResponseFuture<Result<(), ProposeError>>;

    fn handle(&mut self, message: Record, _: &mut Context<Self>) -> Self::Result {
        debug!(command = %message.command, "recording");
        let written = self.write(message.grant.term, message.command);
        Box::pin(async move {
            match written.await? {
                (_, Verdict::Refused(refusal, tip)) => Err(ProposeError::Refused { refusal, tip }),
                (_, Verdict::Committed(_) | Verdict::Recorded | Verdict::Internal) => Ok(()),
            }
        })
    }
}

/// Chooses the outcome of a proposal that has no verdict: every case of openraft's is named.
fn unwritten(raft: &Openraft, error: ClientWriteError<TypeConfig>) -> ProposeError {
    let term = Term(raft.metrics().borrow_watched().current_term);
    match error {
        ClientWriteError::ForwardToLeader(ForwardToLeader {
            reason: ForwardReason::LeaseExpired, ..
        }) => ProposeError::NoQuorum,
        ClientWriteError::ForwardToLeader(forward) => {
            ProposeError::NotLeader { term, reason: forward.to_string() }
        }
        ClientWriteError::PreconditionFailed(failed) => {
            ProposeError::NotLeader { term, reason: failed.to_string() }
        }
        ClientWriteError::ChangeMembershipError(error) => {
            ProposeError::NotLeader { term, reason: error.to_string() }
        }
        ClientWriteError::LogEntryDiscarded(_) => ProposeError::Unknown(error.to_string()),
    }
}
