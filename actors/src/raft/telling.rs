//! What Raft tells of itself: terms, roles, members, the lease.

use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use baton_messages::cluster::MembersChanged;
use baton_messages::mutation::{Mutation, planted};
use baton_messages::raft::{LeadershipChanged, LeaseChanged, TermApplied};
use baton_messages::types::{MemberId, Role, Term};
use baton_storage::raft_types::TypeConfig;
use openraft::async_runtime::WatchReceiver;
use openraft::{Instant, RaftMetrics, ServerState};
use tracing::warn;

use super::{Raft, shared};

type MetricsWatch = openraft::alias::WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>;

impl Raft {
    /// Tells what the metrics say and waits for the next change.
    pub(super) fn observe(&mut self, watch: &MetricsWatch, instance: u64, ctx: &mut Context<Self>) {
        if self.closing || self.instance != instance {
            return;
        }
        let metrics = watch.borrow_watched().clone();
        if let Err(fatal) = &metrics.running_state {
            return self.end_in_fatal(fatal, ctx);
        }
        self.tell(&metrics, ctx);
        let mut next = watch.clone();
        let changed = async move {
            let alive = next.changed().await.is_ok();
            (next, alive)
        };
        ctx.spawn(changed.into_actor(self).map(move |(watch, alive), this, ctx| {
            if alive {
                this.observe(&watch, instance, ctx);
            } else if this.raft.is_some() && this.instance == instance {
                this.begin_reopen("raft ended".to_owned(), ctx);
            }
        }));
    }

    fn tell(&mut self, metrics: &RaftMetrics<TypeConfig>, ctx: &mut Context<Self>) {
        let term = Term(metrics.current_term);
        let role = role(metrics.state);
        let index = |id: Option<_>| id.map_or(0, |id: baton_storage::raft_types::LogId| id.index);
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.metrics.last_log.set(gauge(metrics.last_log_index.unwrap_or(0)));
        self.metrics.committed.set(gauge(index(metrics.local_committed)));
        self.metrics.applied.set(gauge(index(metrics.last_applied)));
        self.metrics.purged.set(gauge(index(metrics.purged)));
        self.tell_members(metrics);
        self.tell_leadership(LeadershipChanged { term, role, leader: metrics.current_leader });
        let own_entry_applied =
            metrics.last_applied.is_some_and(|id| id.committed_leader_id().term == term.0)
                || planted(Mutation::LeadBeforeOwnEntry);
        if role == Role::Leader && own_entry_applied && self.told_applied != Some(term) {
            self.told_applied = Some(term);
            let applied = TermApplied { term, tip: self.store.reader().tip() };
            for link in &self.links.term_applied {
                link.do_send(applied);
            }
            self.begin_finishing(ctx);
        }
        self.tended.observe(metrics, &self.metrics);
    }

    fn tell_leadership(&mut self, leadership: LeadershipChanged) {
        if self.told.as_ref() == Some(&leadership) {
            return;
        }
        let before = self.told.replace(leadership.clone());
        if before.as_ref().and_then(|told| told.leader) != leadership.leader && leadership.leader.is_some() {
            self.metrics.leader_changes.inc();
        }
        if leadership.role == Role::Candidate {
            self.metrics.elections.inc();
        }
        if leadership.role != Role::Leader {
            self.metrics.forget_progress();
        }
        for link in &self.links.leadership {
            link.do_send(leadership.clone());
        }
    }

    fn tell_members(&mut self, metrics: &RaftMetrics<TypeConfig>) {
        let membership = metrics.membership_config.membership();
        let version = shared::version(metrics);
        let joint = membership.get_joint_config().len() > 1;
        let told = self.told_members.as_ref();
        if !shared::is_initialised(metrics)
            || told.is_some_and(|told| told.version == version && told.joint == joint)
        {
            return;
        }
        let known = |id: MemberId| (id, membership.get_node(&id).cloned().unwrap_or_default());
        let changed = MembersChanged {
            own: self.shared.id(),
            version,
            joint,
            voters: membership.voter_ids().map(known).collect(),
            learners: membership.learner_ids().map(known).collect(),
        };
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.voters.set(gauge(changed.voters.len()));
        self.metrics.learners.set(gauge(changed.learners.len()));
        self.shared.forget_strangers(membership);
        self.told_members = Some(changed.clone());
        for link in &self.links.members {
            link.do_send(changed.clone());
        }
    }

    /// The leader's lease: openraft refuses proposals when it has lapsed, this tells why.
    pub(super) fn check_lease(&mut self) {
        let Some(raft) = &self.raft else { return };
        let longest = self.config.election_timeout_max;
        let (term, leads, sole, age) = {
            let watch = raft.metrics();
            let metrics = watch.borrow_watched();
            let leads = metrics.state == ServerState::Leader;
            let sole = metrics.membership_config.membership().voter_ids().count() == 1;
            let age = metrics.last_quorum_acked.as_ref().map(|at| at.elapsed());
            (Term(metrics.current_term), leads, sole, age)
        };
        let held = leads && (sole || age.is_some_and(|age| age < longest));
        let now = tokio::time::Instant::now();
        self.leads_since = leads.then(|| match self.leads_since {
            Some((known, since)) if known == term => (term, since),
            Some(_) | None => (term, now),
        });
        // Who was never acknowledged is unheard since it leads.
        let unheard = self.leads_since.filter(|_| !sole).map(|(_, since)| age.unwrap_or(now - since));
        let silent = !self.heartbeats || unheard.is_some_and(|age| is_silent(age, longest));
        if self.silent.swap(silent, Ordering::Relaxed) != silent {
            warn!(silent, ?unheard, "whether this leader speaks");
        }
        if held != self.lease_held {
            self.lease_held = held;
            self.links.lease.do_send(LeaseChanged { term, held });
        }
    }

    pub(super) fn tell_nobody_leads(&mut self) {
        let term = self.told.as_ref().map_or(Term(0), |told| told.term);
        self.tell_leadership(LeadershipChanged { term, role: Role::Learner, leader: None });
    }
}

/// A leader that a quorum does not answer is silent for long enough that its followers can elect
/// another, then speaks for as long, and so on: with a cut in one direction only they would hear
/// it for ever (hazard S9). Followers wait for up to two of the longest election time-outs.
///
/// openraft's own `quorum_loss_probe_interval` is not used: it leaves out heartbeats only, and
/// entries that are sent again and again hold followers as well.
fn is_silent(unheard: Duration, longest: Duration) -> bool {
    let slot = longest * 3;
    match unheard.checked_sub(longest) {
        None => false,
        Some(since) => (since.as_nanos() / slot.as_nanos().max(1)).is_multiple_of(2),
    }
}

pub(super) const fn role(state: ServerState) -> Role {
    match state {
        ServerState::Learner | ServerState::Shutdown => Role::Learner,
        ServerState::Follower => Role::Follower,
        ServerState::Candidate => Role::Candidate,
        ServerState::Leader => Role::Leader,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_without_a_quorum_is_silent_and_speaks_in_turns() {
        let longest = Duration::from_millis(100);
        let at = |millis| is_silent(Duration::from_millis(millis), longest);
        assert!(!at(0) && !at(99), "its lease holds");
        assert!(at(100) && at(399), "long enough for an election");
        assert!(!at(400) && !at(699), "somebody may hear it again");
        assert!(at(700));
    }
}
