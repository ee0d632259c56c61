//! What Raft's actor and the calls of other members share.
//!
//! Calls are answered where they arrive, without a hop through the actor's mailbox.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix::Recipient;
use baton_messages::cluster::{ClusterView, Condition, ForwardedTxs, LeaderHint, MemberTold, MemberView};
use baton_messages::da::GetDaHead;
use baton_messages::sequencer::CountAccepted;
use baton_messages::types::{LogIndex, Member, MemberId, Term};
use baton_storage::raft_types::{LogId, Membership, TypeConfig};
use baton_storage::{LogIdRecord, Reader, Store};
use openraft::async_runtime::WatchReceiver;
use openraft::{RaftMetrics, ServerState};
use tokio::time::Instant;
use uuid::Uuid;

use super::Openraft;
use super::admit::{Denial, Here, Standing};
use super::kept::{Kept, Lost};
use super::metrics::Metrics;
use super::transport::{CallError, Class, Transport};
use super::wire::{self, Answer, Request};

/// What the answering of calls needs to know.
pub struct Shared {
    pub(super) own: Member,
    pub(super) store: Store,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) metrics: Metrics,
    pub(super) told: Recipient<MemberTold>,
    pub(super) forwarded: Recipient<ForwardedTxs>,
    pub(super) accepted: Recipient<CountAccepted>,
    /// Says how far DA is; a witness has none.
    pub(super) da: Option<Recipient<GetDaHead>>,
    /// One question to DA at a time is for others.
    pub(super) asking_da: tokio::sync::Semaphore,
    /// The names with which this node wants to form a cluster.
    pub(super) forming: Vec<String>,
    /// One change of the membership at a time.
    pub(super) changing: tokio::sync::Mutex<()>,
    /// Few at a time read the disk for others.
    pub(super) serving_blocks: Arc<tokio::sync::Semaphore>,
    pub(super) times: Times,
    /// What each member is known to have had.
    pub(super) kept: Arc<Kept>,
    state: Mutex<State>,
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// The longest election time-out.
    pub election_max: Duration,
    /// How long a question on the bulk class may take.
    pub question: Duration,
}

#[derive(Default)]
struct State {
    raft: Option<Openraft>,
    /// What every member said last, this one too.
    conditions: BTreeMap<MemberId, (Condition, Instant)>,
    /// Where the peer-to-peer network of every other member is reached, as it said.
    peers: BTreeMap<MemberId, String>,
    /// Which leader was heard last, and when.
    led_by: Option<(MemberId, Instant)>,
    /// What a node without a membership waits for.
    waiting: Option<String>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("own", &self.own).finish_non_exhaustive()
    }
}

/// A moment's view of openraft.
pub(super) type View = RaftMetrics<TypeConfig>;

pub(super) fn record(id: Option<LogId>) -> Option<LogIdRecord> {
    id.map(Into::into)
}

impl Shared {
    #[allow(clippy::too_many_arguments, reason = "made in one place")]
    pub(super) fn new(
        own: Member,
        store: Store,
        transport: Arc<dyn Transport>,
        metrics: Metrics,
        told: Recipient<MemberTold>,
        forwarded: Recipient<ForwardedTxs>,
        accepted: Recipient<CountAccepted>,
        da: Option<Recipient<GetDaHead>>,
        forming: Vec<String>,
        times: Times,
    ) -> Self {
        Self {
            own,
            store,
            transport,
            metrics,
            told,
            forwarded,
            accepted,
            da,
            asking_da: tokio::sync::Semaphore::new(1),
            forming,
            changing: tokio::sync::Mutex::default(),
            serving_blocks: Arc::new(tokio::sync::Semaphore::new(2)),
            times,
            kept: Arc::default(),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn id(&self) -> MemberId {
        MemberId::of(self.own.storage)
    }

    pub(super) fn reader(&self) -> Reader {
        self.store.reader()
    }

    pub(super) fn set_raft(&self, raft: Option<Openraft>) {
        self.state().raft = raft;
    }

    pub(super) fn raft(&self) -> Result<Openraft, Denial> {
        self.state().raft.clone().ok_or(Denial::Stopped)
    }

    /// What openraft knows now; `None` while it does not run.
    pub(super) fn view(&self) -> Option<View> {
        let raft = self.state().raft.clone()?;
        let view = raft.metrics().borrow_watched().clone();
        Some(view)
    }

    pub(super) fn set_waiting(&self, waiting: Option<String>) {
        self.state().waiting = waiting;
    }

    pub(super) fn waiting(&self) -> Option<String> {
        self.state().waiting.clone()
    }

    /// A leader was heard.
    pub(super) fn led_by(&self, leader: MemberId) {
        self.state().led_by = Some((leader, Instant::now()));
    }

    /// Which leader was heard last, and when.
    pub(super) fn heard_leader(&self) -> Option<(MemberId, Instant)> {
        self.state().led_by
    }

    /// Whether a member was heard as a leader lately.
    pub(super) fn is_heard_leading(&self, id: MemberId) -> bool {
        let led_by = self.state().led_by;
        led_by.is_some_and(|(leader, at)| leader == id && at.elapsed() < self.times.election_max)
    }

    /// Remembers how a member is.
    pub(super) fn told(&self, condition: Condition) {
        self.state().conditions.insert(condition.member, (condition, Instant::now()));
    }

    /// Remembers where a member's peer-to-peer network is reached.
    pub(super) fn has_peer(&self, member: MemberId, address: String) {
        self.state().peers.insert(member, address);
    }

    /// Where those of the members are reached, as they said.
    pub(super) fn peers(&self) -> BTreeMap<MemberId, String> {
        self.state().peers.clone()
    }

    /// Compares what another member tells with what it is known to have had.
    pub(super) fn is_whole(&self, condition: &Condition, view: Option<&View>) -> Result<(), Lost> {
        let end = LogIdRecord { term: condition.last_log_term.0, index: condition.last_log.0 };
        let end = (condition.last_log_term > Term(0)).then_some(end);
        let committed = view.and_then(|view| record(view.local_committed));
        self.kept.told(condition.member, condition.boot, condition.term.0, end, committed)
    }

    /// What the membership calls a storage.
    pub(super) fn name_of(&self, storage: Uuid) -> Option<String> {
        let view = self.view()?;
        let member = view.membership_config.membership().get_node(&MemberId::of(storage))?;
        Some(member.name.clone())
    }

    /// What every member said last, and how long ago.
    pub(super) fn conditions(&self) -> BTreeMap<MemberId, (Condition, Duration)> {
        let state = self.state();
        let aged = |(id, (condition, at)): (&MemberId, &(Condition, Instant))| {
            (*id, (condition.clone(), at.elapsed()))
        };
        state.conditions.iter().map(aged).collect()
    }

    /// Forgets those who are no members any more.
    pub(super) fn forget_strangers(&self, membership: &Membership) {
        let own = self.id();
        self.state().conditions.retain(|id, _| *id == own || membership.get_node(id).is_some());
        self.state().peers.retain(|id, _| membership.get_node(id).is_some());
        self.kept.retain(|id| membership.get_node(&id).is_some());
    }

    /// What decides whether a call is answered.
    pub(super) fn here(&self) -> (Here, Option<View>) {
        let view = self.view();
        let initialised = view.as_ref().is_some_and(is_initialised);
        let membership = view.as_ref().and_then(|view| record(*view.membership_config.log_id()));
        let leads = view.as_ref().is_some_and(|view| view.state == ServerState::Leader);
        (Here { cluster: self.store.cluster(), initialised, membership, leads }, view)
    }

    /// What the membership says of somebody.
    pub(super) fn standing(view: Option<&View>, id: MemberId) -> Standing {
        let Some(view) = view else { return Standing::Stranger };
        let membership = view.membership_config.membership();
        if membership.voter_ids().any(|voter| voter == id) {
            Standing::Voter
        } else if membership.get_node(&id).is_some() {
            Standing::Learner
        } else {
            Standing::Stranger
        }
    }

    /// Whether the membership has another address for this member than it is started with. One that
    /// is started without an address for once is still where it was.
    pub(super) fn has_moved(&self, view: &View) -> bool {
        let known = view.membership_config.membership().get_node(&self.id());
        let address = &self.own.address;
        !address.is_empty() && known.is_some_and(|known| known.address != *address)
    }

    /// Where the other members are, the leader first.
    pub(super) fn addresses(&self) -> Vec<String> {
        let Some(view) = self.view() else { return vec![] };
        let (own, leader) = (self.id(), view.current_leader);
        let others = view.membership_config.membership().nodes().filter(|(id, _)| **id != own);
        let mut others: Vec<_> = others.map(|(id, member)| (leader != Some(*id), &member.address)).collect();
        others.sort_unstable();
        others.into_iter().map(|(_, address)| address.clone()).collect()
    }

    /// Who leads, as far as this node knows.
    pub(super) fn leader(&self) -> Option<(Member, LeaderHint)> {
        let view = self.view()?;
        let id = view.current_leader?;
        let member = view.membership_config.membership().get_node(&id)?.clone();
        let state = self.state();
        let condition = state.conditions.get(&id).map(|(condition, _)| condition);
        let hint = LeaderHint {
            id,
            name: member.name.clone(),
            address: member.address.clone(),
            rpc: condition.map_or_else(String::new, |condition| condition.rpc.clone()),
            intake: condition.map_or_else(String::new, |condition| condition.intake.clone()),
            term: Term(view.current_term),
        };
        Some((member, hint))
    }

    pub(super) fn hint(&self) -> Option<LeaderHint> {
        self.leader().map(|(_, hint)| hint)
    }

    /// This node as it describes itself to others.
    pub(super) fn identity(&self) -> wire::Identity {
        let (here, _) = self.here();
        wire::Identity {
            member: self.own.clone(),
            cluster: here.cluster,
            initialised: here.initialised,
            leader: self.hint(),
            forming: self.forming.clone(),
        }
    }

    /// The cluster as this node sees it.
    pub(super) fn cluster_view(&self) -> ClusterView {
        let cluster = self.store.cluster();
        let command_version = self.reader().command_version();
        let waits_for = self.waiting();
        let Some(view) = self.view() else {
            return ClusterView { cluster, command_version, waits_for, ..ClusterView::default() };
        };
        let conditions = self.conditions();
        let membership = view.membership_config.membership();
        let leads = view.state == ServerState::Leader;
        let own = self.id();
        let matched = |id: &MemberId| {
            let last = view.last_log_index.unwrap_or(0);
            let known = view.replication.as_ref().and_then(|all| all.get(id));
            match (leads, *id == own) {
                (true, true) => Some(LogIndex(last)),
                (true, false) => Some(LogIndex(known.and_then(|id| *id).map_or(0, |id| id.index))),
                (false, _) => None,
            }
        };
        let members = membership.nodes().map(|(id, member)| {
            let told = conditions.get(id);
            MemberView {
                id: *id,
                member: member.clone(),
                voter: membership.voter_ids().any(|voter| voter == *id),
                condition: told.map(|(condition, _)| condition.clone()),
                told_ms_ago: told.map(|(_, age)| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
                matched: matched(id),
            }
        });
        ClusterView {
            cluster,
            version: version(&view),
            joint: membership.get_joint_config().len() > 1,
            leader: self.hint(),
            command_version,
            members: members.collect(),
            waits_for,
        }
    }

    /// Asks a member something.
    pub(super) async fn ask(
        &self,
        member: Member,
        class: Class,
        request: &Request,
        within: Duration,
    ) -> Result<Answer, CallError> {
        let bytes = wire::encode(request);
        let limit = self.transport.limit(class);
        if bytes.len() > limit {
            return Err(CallError::TooLarge { bytes: bytes.len(), limit });
        }
        // Whoever is asked before it is known has no name yet.
        let name = if member.name.is_empty() { member.address.clone() } else { member.name.clone() };
        let (_, answer) = self
            .transport
            .call(member, class, bytes, within)
            .await
            .inspect_err(|error| self.metrics.call_failed(&name, class, error))?;
        self.metrics.heard(&name);
        wire::answer(&answer).map_err(|error| CallError::Denied(format!("no answer but {error}")))
    }
}

/// Somebody who is known by the address only.
pub(super) fn somebody(address: &str) -> Member {
    Member { address: address.to_owned(), ..Member::default() }
}

pub(super) fn is_initialised(view: &View) -> bool {
    view.membership_config.membership().nodes().next().is_some()
}

/// The config version: the entry that carried the effective membership.
pub(super) fn version(view: &View) -> LogIndex {
    LogIndex(view.membership_config.log_id().map_or(0, |id| id.index))
}
