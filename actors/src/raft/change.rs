//! Carrying out a change of the membership on the leader.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use baton_messages::cluster::{ChangeError, MemberChange};
use baton_messages::types::{LogIndex, MemberId};
use baton_storage::raft_types::TypeConfig;
use openraft::ChangeMembers;
use openraft::ServerState;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::raft::Precondition;
use tracing::{info, warn};

use super::Openraft;
use super::members::{Change, Holds, Situation, leaver};
use super::shared::{self, Shared, View};
use super::transport::Class;
use super::wire::{Answer, Identity, JoinRefusal, Request};

/// Decides about a change and carries it out. Returns the new config version.
///
/// # Errors
///
/// Why it was not done, or was not confirmed.
pub(super) async fn carry_out(
    shared: &Arc<Shared>,
    change: &MemberChange,
    expected: Option<LogIndex>,
    force: bool,
    identified: Option<Identity>,
) -> Result<LogIndex, ChangeError> {
    let _turn = shared.changing.try_lock().map_err(|_| ChangeError::InProgress)?;
    leading(shared)?;
    let identified = match (change, identified) {
        (MemberChange::Add { address, .. }, None) => Some(identify(shared, address).await?),
        (_, identified) => identified,
    };
    let holds = match leaver(change).filter(|_| !force) {
        Some(name) => accepted(shared, name).await,
        None => None,
    };
    // What was true before the questions may be over.
    let (raft, view) = leading(shared)?;
    let current = shared::version(&view);
    if let Some(expected) = expected
        && expected != current
    {
        return Err(ChangeError::Version { current, expected });
    }
    let planned = Situation { holds, ..situation(shared, &view) }.plan(change, force, identified.as_ref())?;
    let Some(Change { change: planned, retain }) = planned else { return Ok(current) };
    info!(?change, version = current.0, "changing the membership");
    let unchanged =
        Precondition::LastMembershipLogId { last_membership_log_id: *view.membership_config.log_id() };
    let changed = raft.change_membership_if(planned, retain, [unchanged]).await;
    let version = changed.map(|written| LogIndex(written.log_id.index));
    let version = version.map_err(|error| unchanged_because(shared, error))?;
    info!(version = version.0, "changed the membership");
    shows(shared, &raft, version).await;
    Ok(version)
}

/// Waits until this node's views show the change: who has the answer reads it there. The change
/// stands whether or not they do.
async fn shows(shared: &Shared, raft: &Openraft, version: LogIndex) {
    let shown = raft.wait(Some(shared.times.question));
    let shown = shown.metrics(|view| shared::version(view) >= version, "the change is shown");
    if let Err(error) = shown.await {
        warn!(%error, version = version.0, "the membership was changed and is not shown yet");
    }
}

pub(super) fn leading(shared: &Shared) -> Result<(Openraft, View), ChangeError> {
    let raft = shared.raft().map_err(|denial| ChangeError::Unconfirmed(denial.to_string()))?;
    let view = shared.view().filter(|view| view.state == ServerState::Leader);
    view.map(|view| (raft, view)).ok_or_else(|| ChangeError::NotLeader(shared.hint()))
}

async fn identify(shared: &Shared, address: &str) -> Result<Identity, ChangeError> {
    let asked = shared.ask(shared::somebody(address), Class::Bulk, &Request::Identify, shared.times.question);
    match asked.await {
        Ok(Answer::Identity(identity)) => Ok(identity),
        Ok(other) => Err(ChangeError::Refused(format!("{address} answered something else: {other:?}"))),
        Err(error) => Err(ChangeError::Refused(format!("nobody can be added at {address}: {error}"))),
    }
}

/// Who answered a heartbeat lately; this node too.
fn reachable(shared: &Shared, view: &View) -> BTreeSet<MemberId> {
    let fresh = shared.times.election_max * 2;
    let answered = view
        .heartbeat
        .iter()
        .flatten()
        .filter(|(_, at)| at.as_ref().is_some_and(|at| openraft::Instant::elapsed(&**at) < fresh));
    answered.map(|(id, _)| *id).chain([shared.id()]).collect()
}

fn situation(shared: &Shared, view: &View) -> Situation {
    let own = shared.id();
    let last_log = view.last_log_index.unwrap_or(0);
    let matched = view.replication.iter().flatten();
    let matched = matched.map(|(id, matched)| (*id, matched.map_or(0, |id| id.index)));
    let conditions = shared.conditions();
    Situation {
        own,
        cluster: shared.store.cluster(),
        membership: view.membership_config.membership().clone(),
        version: shared::version(view),
        last_log,
        matched: matched.chain([(own, last_log)]).collect(),
        reachable: reachable(shared, view),
        conditions: conditions.into_iter().map(|(id, (condition, _))| (id, condition)).collect(),
        first_body: shared.reader().first_height_with_body(),
        holds: None,
    }
}

/// What a member holds, when it was heard lately; a dead one is not asked.
async fn accepted(shared: &Shared, name: &str) -> Option<Holds> {
    let view = shared.view()?;
    let membership = view.membership_config.membership();
    let (id, member) = membership.nodes().find(|(_, member)| member.name == name)?;
    if *id == shared.id() || !is_heard(shared, &view, *id) {
        return None;
    }
    let within = shared.times.question.min(Duration::from_secs(1));
    let asked = shared.ask(member.clone(), Class::Bulk, &Request::Accepted, within).await;
    Some(match asked {
        Ok(Answer::Accepted(Some(count))) => Holds::Known(count),
        Ok(Answer::Accepted(None)) => Holds::Unknown("its queue cannot be read now".to_owned()),
        Ok(other) => Holds::Unknown(format!("it answered something else: {other:?}")),
        Err(error) if is_heard(shared, &shared.view()?, *id) => Holds::Unknown(error.to_string()),
        // It has died meanwhile.
        Err(_) => return None,
    })
}

/// Whether a member has told how it is, or answered a heartbeat, lately.
fn is_heard(shared: &Shared, view: &View, id: MemberId) -> bool {
    let told = shared.conditions().get(&id).map(|(_, age)| *age);
    told.is_some_and(|age| age < shared.times.election_max * 2) || reachable(shared, view).contains(&id)
}

/// Every error of openraft's is named.
fn unchanged_because(
    shared: &Shared,
    error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>,
) -> ChangeError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => match shared.hint() {
            Some(hint) if hint.id == shared.id() => ChangeError::Unconfirmed(forward.to_string()),
            hint => ChangeError::NotLeader(hint),
        },
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => {
            ChangeError::Refused(error.to_string())
        }
        RaftError::APIError(ClientWriteError::PreconditionFailed(_)) => ChangeError::InProgress,
        RaftError::APIError(error @ ClientWriteError::LogEntryDiscarded(_)) => {
            ChangeError::Unconfirmed(error.to_string())
        }
        RaftError::Fatal(fatal) => ChangeError::Unconfirmed(fatal.to_string()),
    }
}

/// What a node that asked to join is told.
pub(super) fn join_refusal(error: ChangeError) -> JoinRefusal {
    match error {
        ChangeError::NotLeader(hint) => JoinRefusal::NotLeader(hint),
        ChangeError::InProgress | ChangeError::Unconfirmed(_) | ChangeError::Version { .. } => {
            JoinRefusal::Later(error.to_string())
        }
        ChangeError::Refused(reason) => JoinRefusal::Refused(reason),
    }
}

/// Whether both configurations of a change are in force: the step to the new one is missing.
pub(super) fn is_half_done(view: &View) -> bool {
    view.membership_config.membership().get_joint_config().len() > 1
}

/// A leader that finds a change half done ends it, once nobody is carrying one out: an earlier
/// leader left it, or this one's second step was refused, for its lease had lapsed. Until then every
/// other change and every hand-over is refused. Who was removed stays as a learner: what was meant
/// is not known any more.
pub(super) async fn finish(shared: Arc<Shared>) {
    let _turn = shared.changing.lock().await;
    let Ok((raft, view)) = leading(&shared) else { return };
    if !is_half_done(&view) {
        return introduce(&shared, &raft, &view).await;
    }
    warn!("a change of the membership was left half done: ending it");
    let nothing = ChangeMembers::AddVoterIds(BTreeSet::new());
    let unchanged =
        Precondition::LastMembershipLogId { last_membership_log_id: *view.membership_config.log_id() };
    match raft.change_membership_if(nothing, true, [unchanged]).await {
        Ok(written) => info!(version = written.log_id.index, "ended the change of the membership"),
        Err(error) => warn!(%error, "the change of the membership is still half done"),
    }
}

/// A leader that was given another name or address since the membership was made says so: a sole
/// voter without an address could not be joined by anybody.
async fn introduce(shared: &Shared, raft: &Openraft, view: &View) {
    let (own, id) = (shared.own.clone(), shared.id());
    let known = view.membership_config.membership().get_node(&id);
    let Some(known) = known.filter(|known| known.storage == own.storage && **known != own) else { return };
    // A node that is started without its address for once is still where it was.
    if own.address.is_empty() {
        return;
    }
    let taken = view.membership_config.membership().nodes();
    if taken.into_iter().any(|(other, member)| *other != id && member.name == own.name) {
        return warn!(name = own.name, "another member has the name of this node: it keeps its old one");
    }
    info!(?known, now = ?own, "telling the cluster this node's name and address");
    let nodes = ChangeMembers::SetNodes([(id, own)].into());
    let unchanged =
        Precondition::LastMembershipLogId { last_membership_log_id: *view.membership_config.log_id() };
    if let Err(error) = raft.change_membership_if(nodes, true, [unchanged]).await {
        warn!(%error, "the cluster does not know this node's name and address yet");
    }
}
