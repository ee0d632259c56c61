//! Answering what other members ask: decode, admit, carry out, encode.

use std::sync::Arc;

use baton_messages::cluster::{
    FetchError, FetchedBlock, ForwardError, ForwardedTxs, MemberChange, MemberTold,
};
use baton_messages::p2p::MAX_ADDRESS;
use baton_messages::sequencer::CountAccepted;
use baton_messages::types::{Hash, Height, Member, MemberId, Tx};
use baton_storage::raft_types::{LogId, TypeConfig};
use baton_storage::{Completion, Head, Reader, Snapshot, StoreError, VoteRecord};
use bytes::Bytes;
use openraft::errors::{Fatal, RaftError};
use openraft::raft::{AppendEntriesRequest, TransferLeaderRequest};
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::admit::{self, Denial, Standing};
use super::asking;
use super::change;
use super::pausing;
use super::plausible::{self, Known};
use super::shared::{Shared, View, record};
use super::transport::{Caller, Class, Serve};
use super::wire::{self, Answer, Append, Call, JoinRefusal, RaftCall, Request};

/// Most bytes of blocks in one answer, whatever is asked for.
const MAX_FETCH: u64 = 4 << 20;

/// The function that answers calls.
pub(super) fn serve(shared: Arc<Shared>) -> Serve {
    Arc::new(move |caller, class, bytes| {
        let shared = shared.clone();
        Box::pin(async move {
            let name = caller.name.clone();
            answer(&shared, &caller, bytes).await.map(|answer| wire::encode(&answer)).map_err(|refusal| {
                if let Some(denial) = refusal.denial {
                    shared.metrics.deny(denial);
                }
                debug!(%name, class = class.name(), reason = %refusal.reason, "denied a call");
                refusal.reason
            })
        })
    })
}

/// Why a call has no answer.
struct Refusal {
    denial: Option<Denial>,
    reason: String,
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        Self { denial: Some(denial), reason: denial.to_string() }
    }
}

impl From<Fatal<TypeConfig>> for Refusal {
    fn from(fatal: Fatal<TypeConfig>) -> Self {
        Self { denial: Some(Denial::Stopped), reason: fatal.to_string() }
    }
}

impl From<RaftError<TypeConfig>> for Refusal {
    fn from(error: RaftError<TypeConfig>) -> Self {
        error.unwrap_fatal().into()
    }
}

fn malformed(reason: impl std::fmt::Display) -> Refusal {
    Refusal { denial: Some(Denial::Malformed), reason: format!("{}: {reason}", Denial::Malformed) }
}

fn unreadable(error: StoreError) -> Refusal {
    Refusal { denial: Some(Denial::Stopped), reason: error.to_string() }
}

async fn answer(shared: &Arc<Shared>, caller: &Caller, bytes: Bytes) -> Result<Answer, Refusal> {
    let request = wire::request(&bytes).map_err(malformed)?;
    let (here, view) = shared.here();
    let standing = Shared::standing(view.as_ref(), caller.id);
    admit::admit(&here, caller.id, standing, &request)?;
    let member = view.as_ref().and_then(|view| view.membership_config.membership().get_node(&caller.id));
    admit::admit_name(member.map(|member| &*member.name), &caller.name, &request)?;
    admit_disk(shared, caller, standing, &request, view.as_ref())?;
    shared.metrics.heard(&caller.name);
    match request {
        Request::Raft(call) => {
            let known = view.as_ref().map_or_else(Known::default, known);
            plausible::call(&call.call, &known).map_err(malformed)?;
            raft(shared, call, &known).await
        }
        // A node without a membership answers everybody, and remembers nobody: there is no end of them.
        Request::Condition(_) if standing == Standing::Stranger => Ok(Answer::Taken),
        Request::Condition(condition) => {
            shared.told(condition.clone());
            let leads = shared.is_heard_leading(caller.id);
            // Who does not hear it now hears the next one in a heartbeat's time.
            if shared.told.try_send(MemberTold { condition, leads }).is_err() {
                shared.metrics.conditions_dropped.inc();
            }
            Ok(Answer::Taken)
        }
        Request::Forward { txs, checked } => forwarded(shared, caller.id, here.leads, txs, checked).await,
        Request::Fetch { from, hash, max_bytes, down_to } => {
            fetch(shared, from, hash, max_bytes, down_to).await
        }
        Request::Peer { address } if address.len() > MAX_ADDRESS => {
            Err(malformed(format!("an address of {} bytes", address.len())))
        }
        Request::Peer { address } => {
            shared.has_peer(caller.id, address);
            Ok(Answer::Taken)
        }
        // A node without a membership answers strangers too, and asks nobody for them.
        Request::DaHead if standing == Standing::Stranger => Ok(Answer::DaHead(None)),
        Request::DaHead => Ok(Answer::DaHead(asking::answer(shared).await)),
        Request::Identify => Ok(Answer::Identity(shared.identity())),
        Request::Join { member } => Ok(Answer::Join(join(shared, caller, member, here.leads).await)),
        Request::Pause { reason } => {
            info!(from = %caller.name, ?reason, "a member hands on what an operator asked for");
            Ok(Answer::Pause(pausing::record(shared, reason).await))
        }
        Request::Accepted => {
            let count = shared.accepted.send(CountAccepted).timeout(shared.times.question);
            Ok(Answer::Accepted(count.await.ok().flatten()))
        }
    }
}

/// A member whose disk was put back to an earlier state has no say until it is level again.
fn admit_disk(
    shared: &Shared,
    caller: &Caller,
    standing: Standing,
    request: &Request,
    view: Option<&View>,
) -> Result<(), Refusal> {
    let (kept, boot) = (&shared.kept, caller.boot);
    let judged = match request {
        // Strangers are not remembered: there is no end of them.
        Request::Condition(_) if standing == Standing::Stranger => Ok(()),
        Request::Condition(condition) => shared.is_whole(condition, view),
        Request::Raft(RaftCall { call: Call::Vote(ballot) | Call::PreVote(ballot), .. }) => {
            kept.shown(caller.id, boot, ballot.last)
        }
        Request::Raft(_)
        | Request::Forward { .. }
        | Request::Fetch { .. }
        | Request::Pause { .. }
        | Request::Accepted => kept.check(caller.id, boot),
        Request::Identify | Request::Join { .. } | Request::Peer { .. } | Request::DaHead => Ok(()),
    };
    judged.map_err(|lost| {
        shared.metrics.found_reverted(&caller.name, &lost);
        Refusal { denial: Some(Denial::Reverted), reason: lost.to_string() }
    })
}

/// What calls are compared with.
fn known(view: &View) -> Known {
    Known { term: view.current_term, committed: record(view.local_committed) }
}

/// A leader is heard when its call arrives, as openraft has it: the answer may wait for the disk.
fn hear(shared: &Shared, vote: &VoteRecord, known: &Known) {
    if vote.term >= known.term {
        shared.led_by(vote.voted_for);
    }
}

async fn raft(shared: &Shared, call: RaftCall, known: &Known) -> Result<Answer, Refusal> {
    let raft = shared.raft()?;
    match call.call {
        Call::Vote(ballot) => Ok(raft.vote(ballot.into()).await?.into()),
        Call::PreVote(ballot) => Ok(raft.pre_vote(ballot.into()).await?.into()),
        Call::Append(append) => {
            hear(shared, &append.vote, known);
            let request = request_of(append)?;
            adopt(shared, call.cluster).await?;
            let answer = raft.append_entries(request).await?;
            Ok(Answer::Append(answer.into()))
        }
        Call::Snapshot { vote, head } => {
            hear(shared, &vote, known);
            let head = Head::decode(&head).map_err(malformed)?;
            plausible::snapshot(&vote, record(head.log_id()), known).map_err(malformed)?;
            shared.reader().check_head(&head).map_err(malformed)?;
            let meta = head.meta().map_err(malformed)?;
            adopt(shared, call.cluster).await?;
            // openraft takes the end of a snapshot for the end of the log, and its count of what is
            // written would go back. Who holds everything that is covered needs no snapshot.
            let log = shared.store.log();
            if let Some(covered) = head.log_id()
                && log.vote().map(VoteRecord::from) == Some(vote)
                && log.holds(covered).map_err(unreadable)?
            {
                debug!(%covered, "needs no snapshot: its log goes on from there");
                return Ok(Answer::Snapshot(vote));
            }
            let (tip, covered) = (head.tip(), head.log_id());
            let snapshot = Snapshot { meta, snapshot: head };
            let answer = raft.install_full_snapshot(vote.into(), snapshot).await?.vote.into();
            // Who voted in a newer term took nothing.
            if answer == vote {
                gone_on(shared, covered).await?;
                info!(%tip, "went on from a snapshot of the leader");
            }
            Ok(Answer::Snapshot(answer))
        }
        Call::Transfer { from, to, last } => {
            let request = TransferLeaderRequest::new(from.into(), to, last.map(Into::into));
            let taken = raft.handle_transfer_leader(request).await?;
            Ok(Answer::Transfer(taken.map_err(Into::into)))
        }
    }
}

fn request_of(append: Append) -> Result<AppendEntriesRequest<TypeConfig>, Refusal> {
    append.try_into().map_err(|reason: String| malformed(reason))
}

/// A snapshot is in place. openraft says so at once while an earlier call of the same is still being
/// carried out, on a disk that is slow: its leader would take for durable what is not (B13).
async fn gone_on(shared: &Shared, covered: Option<LogId>) -> Result<(), Refusal> {
    let Some(covered) = covered else { return Ok(()) };
    if !shared.store.rests_on(covered).await.map_err(unreadable)? {
        debug!(%covered, "an earlier call is still putting this snapshot in place");
        return Err(Denial::Busy.into());
    }
    shared.metrics.snapshot_index.set(i64::try_from(covered.index).unwrap_or(i64::MAX));
    shared.metrics.snapshots_installed.inc();
    Ok(())
}

/// The first leader that is heard decides to which cluster an empty node belongs, for ever.
async fn adopt(shared: &Shared, cluster: Uuid) -> Result<(), Refusal> {
    if shared.store.cluster() == Some(cluster) {
        return Ok(());
    }
    let stopped = |error: baton_storage::ClusterError| Refusal {
        denial: Some(Denial::OtherCluster),
        reason: error.to_string(),
    };
    shared.store.join_cluster(cluster).await.map_err(stopped)?;
    info!(%cluster, "this node belongs to a cluster now");
    shared.transport.belongs_to(cluster);
    Ok(())
}

async fn forwarded(
    shared: &Shared,
    from: MemberId,
    leads: bool,
    txs: Vec<Tx>,
    checked: Height,
) -> Result<Answer, Refusal> {
    if !leads {
        let leader = shared.hint().map_or_else(|| "nobody is known to lead".to_owned(), |hint| hint.name);
        let refused = ForwardError::NoLeader(format!("{} does not lead, but {leader}", shared.own.name));
        return Ok(Answer::Forward(Err(refused)));
    }
    let count = txs.len() as u64;
    let taken = shared.forwarded.send(ForwardedTxs { from, txs, checked });
    let taken = match taken.timeout(shared.times.question).await {
        Ok(taken) => taken,
        Err(error) => Err(ForwardError::NoLeader(format!("the leader's sequencer: {error}"))),
    };
    if taken.is_ok() {
        shared.metrics.forwarded_here.inc_by(count);
    }
    Ok(Answer::Forward(taken))
}

/// Answers with blocks, downwards. They are read where a slow disk holds up no heartbeat.
async fn fetch(
    shared: &Shared,
    from: Height,
    hash: Hash,
    max_bytes: u64,
    down_to: Height,
) -> Result<Answer, Refusal> {
    let turn = shared.serving_blocks.clone().try_acquire_owned().map_err(|_| Denial::Busy)?;
    // Room for what is around the blocks.
    let limit = shared.transport.limit(Class::Bulk) as u64;
    let budget = max_bytes.min(MAX_FETCH).min(limit.saturating_sub(64 << 10));
    let reader = shared.reader();
    let read = move || {
        // Also when nobody waits any more, few read at a time.
        let _turn = turn;
        read_down(&reader, from, hash, budget, down_to)
    };
    let stopped = |reason: String| Refusal { denial: Some(Denial::Stopped), reason };
    let read = match shared.store.completion() {
        Completion::Inline => read(),
        #[allow(clippy::disallowed_methods, reason = "a simulation does not come here")]
        Completion::Thread => {
            tokio::task::spawn_blocking(read).await.map_err(|failed| stopped(failed.to_string()))?
        }
    };
    let fetched = read.map_err(|error| stopped(error.to_string()))?;
    if let Ok(blocks) = &fetched {
        shared.metrics.blocks_served.inc_by(blocks.len() as u64);
    }
    Ok(Answer::Fetch(fetched))
}

/// Blocks downwards from one that is known by its hash: as many as fit, and one in any case.
fn read_down(
    reader: &Reader,
    from: Height,
    hash: Hash,
    budget: u64,
    down_to: Height,
) -> Result<Result<Vec<FetchedBlock>, FetchError>, StoreError> {
    if reader.hash(from)? != Some(hash) {
        return Ok(Err(FetchError::Missing(from)));
    }
    let mut bytes = 0;
    let mut blocks = vec![];
    let mut height = from;
    while height >= down_to && height > Height(0) {
        let Some(block) = reader.block(height)? else { break };
        bytes += block.tx_bytes() as u64 + 1024;
        if bytes > budget && !blocks.is_empty() {
            break;
        }
        let (signature, da) = (reader.signature(height)?, reader.da_heights(height)?);
        blocks.push(FetchedBlock { block, signature, da });
        height = height.previous();
    }
    if blocks.is_empty() { Ok(Err(FetchError::Missing(from))) } else { Ok(Ok(blocks)) }
}

/// A node asks to become a learner. That takes nothing from anybody's quorum.
async fn join(shared: &Arc<Shared>, caller: &Caller, member: Member, leads: bool) -> Result<(), JoinRefusal> {
    if member.storage != caller.storage || member.name != caller.name {
        return Err(JoinRefusal::Refused("the node that asks is another one than it says".to_owned()));
    }
    if member.name.is_empty() || member.address.is_empty() {
        return Err(JoinRefusal::Refused("a member needs a name and an address".to_owned()));
    }
    if !leads {
        return Err(JoinRefusal::NotLeader(shared.hint()));
    }
    let change = MemberChange::Add { name: member.name.clone(), address: member.address.clone() };
    let identity = wire::Identity { member, cluster: caller.cluster, ..wire::Identity::default() };
    match change::carry_out(shared, &change, None, false, Some(identity)).await {
        Ok(version) => {
            info!(name = %caller.name, storage = %caller.storage, version = version.0, "a node joined as a learner");
            Ok(())
        }
        Err(error) => {
            warn!(name = %caller.name, storage = %caller.storage, %error, "a node asked to join");
            Err(change::join_refusal(error))
        }
    }
}
