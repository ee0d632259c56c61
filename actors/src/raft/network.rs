//! What openraft says to other members, over the transport.
//!
//! Heartbeats, votes and transfers go on the urgent class, entries and snapshots on classes of
//! their own: a heartbeat never waits behind a block (hazard S15).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use baton_messages::mutation::{Mutation, planted};
use baton_messages::types::{Member, MemberId};
use baton_storage::raft_types::{TypeConfig, Vote};
use baton_storage::{Snapshot, StateMachine, Store, VoteRecord};
use bytes::Bytes;
use openraft::OptionalSend;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{Backoff, RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::storage::RaftStateMachine;
use tracing::{debug, warn};

use super::kept::{Kept, Lost};
use super::metrics::Metrics;
use super::plausible;
use super::transport::{CallError, Class, Transport};
use super::wire::{self, Answer, Append, Appended, Call, RaftCall, Request};

type SnapshotData = <StateMachine as RaftStateMachine<TypeConfig>>::SnapshotData;

/// Makes lines to members.
#[derive(Clone)]
pub struct Network {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) store: Store,
    pub(super) own: MemberId,
    pub(super) metrics: Metrics,
    /// What each member is known to have had.
    pub(super) kept: Arc<Kept>,
    /// Between two attempts to reach a member that is not there: it must be found soon after it
    /// came back.
    pub(super) heartbeat: Duration,
    /// How long an append may take, fsync at the other end included.
    pub(super) append_within: Duration,
    /// How long a snapshot may take.
    pub(super) snapshot_within: Duration,
    /// Nothing is said as a leader: entries that are sent again and again would keep followers
    /// from electing another as well as heartbeats do.
    pub(super) silent: Arc<AtomicBool>,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network").field("own", &self.own).finish_non_exhaustive()
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Line;

    async fn new_client(&mut self, _: MemberId, member: &Member) -> Line {
        Line { network: self.clone(), member: member.clone(), append: Class::Append }
    }

    async fn new_heartbeat_client(&mut self, _: MemberId, member: &Member) -> Line {
        Line { network: self.clone(), member: member.clone(), append: Class::Urgent }
    }
}

/// A line to one member.
#[derive(Debug)]
pub struct Line {
    network: Network,
    member: Member,
    /// Heartbeats and entries have lines of their own.
    append: Class,
}

impl Line {
    fn target(&self) -> MemberId {
        MemberId::of(self.member.storage)
    }

    /// The member where it is now: it may have moved since openraft made the line (hazard S17).
    fn member(&self) -> Member {
        self.network.store.reader().member(self.target()).unwrap_or_else(|| self.member.clone())
    }

    async fn call(&self, class: Class, call: Call, within: Duration) -> Result<(u64, Answer), CallError> {
        let Some(cluster) = self.network.store.cluster() else {
            return Err(CallError::Unreachable("this node belongs to no cluster yet".to_owned()));
        };
        let request = wire::encode(&Request::Raft(RaftCall { cluster, call }));
        self.send(class, request, within).await
    }

    /// The answer, and the life of the member that gave it.
    async fn send(&self, class: Class, request: Bytes, within: Duration) -> Result<(u64, Answer), CallError> {
        let Network { transport, metrics, .. } = &self.network;
        let limit = transport.limit(class);
        if request.len() > limit {
            return Err(CallError::TooLarge { bytes: request.len(), limit });
        }
        let (caller, answer) = transport
            .call(self.member(), class, request, within)
            .await
            .inspect_err(|error| metrics.call_failed(&self.member.name, class, error))?;
        metrics.heard(&self.member.name);
        let answer = wire::answer(&answer);
        let answer = answer.map_err(|error| CallError::Denied(format!("no answer but {error}")))?;
        Ok((caller.boot, answer))
    }

    /// What a member that has lost something answers does not count.
    fn judge(&self, judged: Result<(), Lost>) -> Result<(), CallError> {
        judged.map_err(|lost| {
            self.network.metrics.found_reverted(&self.member.name, &lost);
            CallError::Denied(lost.to_string())
        })
    }

    fn failed(&self, action: RPCTypes, error: CallError) -> RPCError<TypeConfig> {
        match error {
            CallError::TimedOut(timeout) => {
                RPCError::Timeout(Timeout { action, id: self.network.own, target: self.target(), timeout })
            }
            // Said again at once it would be said very often; the pause is short.
            CallError::Unreachable(_)
            | CallError::Refused(_)
            | CallError::Denied(_)
            | CallError::TooLarge { .. } => RPCError::Unreachable(Unreachable::new(&error)),
        }
    }

    /// A vote that is named in an answer is taken over when it is newer: it must be one that a
    /// cluster comes to.
    fn plausible(&self, vote: VoteRecord) -> Result<VoteRecord, CallError> {
        let term = self.network.store.log().vote().map_or(0, |vote| vote.leader_id.term);
        plausible::vote(&vote, term).map_err(CallError::Denied)?;
        Ok(vote)
    }

    fn unexpected(answer: &Answer) -> RPCError<TypeConfig> {
        RPCError::Network(NetworkError::from_string(format!("an answer to another question: {answer:?}")))
    }

    async fn ballot(
        &self,
        call: Call,
        option: &RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        // The answer to a pre-vote gives nothing away, and names the term that is over.
        let is_vote = matches!(call, Call::Vote(_));
        match self.call(Class::Urgent, call, option.soft_ttl()).await {
            Ok((boot, Answer::Vote { vote, granted, last })) => {
                let vote = self.plausible(vote).map_err(|error| self.failed(RPCTypes::Vote, error))?;
                let (kept, target) = (&self.network.kept, self.target());
                self.judge(kept.shown(target, boot, last))
                    .map_err(|error| self.failed(RPCTypes::Vote, error))?;
                let granted = granted && (!is_vote || kept.may_vote(target, boot, vote.term));
                Ok(VoteResponse::new(Vote::from(vote), last.map(Into::into), granted))
            }
            Ok((_, answer)) => Err(Self::unexpected(&answer)),
            Err(error) => Err(self.failed(RPCTypes::Vote, error)),
        }
    }

    /// As many of the entries as fit a frame: the encoded call, and up to which entry it goes when
    /// it is not all.
    fn fitting(&self, mut append: Append) -> Result<(Bytes, Option<wire::Record>), CallError> {
        let Some(cluster) = self.network.store.cluster() else {
            return Err(CallError::Unreachable("this node belongs to no cluster yet".to_owned()));
        };
        let limit = self.network.transport.limit(self.append);
        let mut last_sent = None;
        loop {
            let count = append.entries.len();
            let request = Request::Raft(RaftCall { cluster, call: Call::Append(append) });
            let bytes = wire::encode(&request);
            if bytes.len() <= limit {
                return Ok((bytes, last_sent));
            }
            if count <= 1 {
                return Err(CallError::TooLarge { bytes: bytes.len(), limit });
            }
            let Request::Raft(RaftCall { call: Call::Append(mut larger), .. }) = request else {
                return Err(CallError::TooLarge { bytes: bytes.len(), limit });
            };
            larger.entries.truncate(count / 2);
            last_sent = larger.entries.last().cloned();
            append = larger;
        }
    }

    async fn append(
        &self,
        append: Append,
        option: &RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, CallError> {
        if self.network.silent.load(Ordering::Relaxed) {
            return Err(CallError::Unreachable("this leader is silent".to_owned()));
        }
        let (entries, previous, term) = (append.entries.len(), append.previous, append.vote.term);
        let last = append.entries.last().map(|entry| entry.id.index);
        let (request, last_sent) = self.fitting(append)?;
        let within = match self.append {
            Class::Urgent => option.hard_ttl(),
            // openraft's own time for an append is one heartbeat interval; a block and its fsync
            // may take longer, and heartbeats have their own line.
            Class::Append | Class::Bulk => {
                self.network.append_within.max(option.soft_ttl()) + on_the_way(request.len())
            }
        };
        let began = tokio::time::Instant::now();
        let (boot, answer) = self.send(self.append, request, within).await?;
        let (kept, target) = (&self.network.kept, self.target());
        self.judge(match answer {
            Answer::Append(wire::Appended::Conflict) => kept.lacks(target, boot, term, previous),
            _ => kept.check(target, boot),
        })?;
        if matches!(answer, Answer::Append(Appended::Success)) {
            let part = last_sent.as_ref().map(|last| last.id.index);
            let index = part.or(last).or(previous.map(|previous| previous.index));
            kept.acknowledged(target, boot, term, index.unwrap_or_default());
        }
        if entries > 0 {
            self.network.metrics.appended(&self.member.name, began.elapsed());
        }
        match (answer, last_sent) {
            (Answer::Append(Appended::Success), Some(last)) => {
                debug!(member = %self.member.name, index = last.id.index, of = entries, "sent a part of the entries");
                Ok(AppendEntriesResponse::PartialSuccess(Some(last.id.into())))
            }
            (Answer::Append(Appended::HigherVote(vote)), _) => {
                Ok(AppendEntriesResponse::HigherVote(self.plausible(vote)?.into()))
            }
            // How far a part goes is said by who sends it.
            (Answer::Append(Appended::Partial(_)), _) => {
                Err(CallError::Denied("it took a part of what it was sent".to_owned()))
            }
            (Answer::Append(appended), _) => Ok(appended.into()),
            (other, _) => Err(CallError::Denied(format!("an answer to another question: {other:?}"))),
        }
    }
}

/// How long so many bytes are on their way, to the other end and to its disk, where that takes in 4 MiB in a
/// second. A large block that is given up before it can be there is sent again and again, and nothing after
/// it is committed.
fn on_the_way(bytes: usize) -> Duration {
    let units = u64::try_from(bytes >> 16).unwrap_or(u64::MAX);
    Duration::from_millis(units.saturating_mul(16))
}

impl RaftNetworkV2<TypeConfig> for Line {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let appended = self.append(request.into(), &option).await;
        if appended.is_err() && planted(Mutation::CommitWithoutQuorum) {
            return Ok(AppendEntriesResponse::Success);
        }
        appended.map_err(|error| self.failed(RPCTypes::AppendEntries, error))
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ballot(Call::Vote(request.into()), &option).await
    }

    /// Without this, openraft takes every pre-vote as granted.
    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ballot(Call::PreVote(request.into()), &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let call = Call::Snapshot { vote: vote.into(), head: wire::head_bytes(&snapshot.snapshot) };
        let sent = self.call(Class::Bulk, call, self.network.snapshot_within);
        let answer = tokio::select! {
            biased;
            closed = cancel => return Err(StreamingError::Closed(closed)),
            answer = sent => answer,
        };
        match answer {
            Ok((_, Answer::Snapshot(vote))) => {
                let vote =
                    self.plausible(vote).map_err(|error| self.failed(RPCTypes::InstallSnapshot, error))?;
                warn!(member = %self.member.name, "sent a snapshot: the member was behind the log");
                self.network.metrics.snapshots_sent.inc();
                Ok(SnapshotResponse::new(vote.into()))
            }
            Ok((_, answer)) => Err(Self::unexpected(&answer).into()),
            Err(error) => Err(self.failed(RPCTypes::InstallSnapshot, error).into()),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.call(Class::Urgent, request.into(), option.soft_ttl()).await {
            Ok((_, Answer::Transfer(taken))) => Ok(taken.map_err(Into::into)),
            Ok((_, answer)) => Err(Self::unexpected(&answer)),
            Err(error) => Err(self.failed(RPCTypes::TransferLeader, error)),
        }
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(self.network.heartbeat)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_block_has_the_time_that_it_takes_and_a_small_one_no_more() {
        assert_eq!([0, 1_000, 65_535].map(on_the_way), [Duration::ZERO; 3]);
        assert_eq!(on_the_way(4 << 20), Duration::from_millis(1_024));
        assert_eq!(on_the_way(48 << 20), Duration::from_millis(12_288));
        assert!(on_the_way(usize::MAX) > Duration::from_secs(3_600), "no overflow");
    }
}
