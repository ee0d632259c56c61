//! What Raft does every heartbeat interval besides consensus: measures, purges what is not needed
//! any more, activates a newer version of log entries once every voter knows it, and tells the
//! leader when this node has moved to another address.

use std::collections::VecDeque;
use std::time::Duration;

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use baton_messages::cluster::{Condition, StandingChanged};
use baton_messages::command::Command;
use baton_messages::mutation::{Mutation, planted};
use baton_messages::types::{MemberId, Term};
use baton_storage::raft_types::TypeConfig;
use openraft::ServerState;
use openraft::errors::Fatal;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::admit::Denial;
use super::joining;
use super::metrics::Metrics;
use super::retention::{self, Holder, Limits, Situation};
use super::shared::View;
use super::transport::CallError;
use super::wire::Answer;
use super::{Raft, change};

/// Conditions older than so many heartbeat intervals are not counted any more.
const STALE: u32 = 100;
/// The log is looked at every so many heartbeat intervals.
const EVERY: u32 = 16;
/// Most commits that are waited for, for the histogram.
const MAX_MEASURED: usize = 64;

/// What is being watched from one time to the next.
#[derive(Debug, Default)]
pub(super) struct Tended {
    beats: u32,
    /// Committed, not yet applied: index and since when.
    committing: VecDeque<(u64, Instant)>,
    activating: bool,
    /// This node is telling the leader where it is now.
    announcing: bool,
    /// A change of the membership that was left half done is being ended.
    finishing: bool,
}

impl Tended {
    /// Measures how long applying takes.
    pub(super) fn observe(&mut self, view: &View, metrics: &Metrics) {
        let committed = view.local_committed.map_or(0, |id| id.index);
        let applied = view.last_applied.map_or(0, |id| id.index);
        let newest = self.committing.back().map_or(0, |(index, _)| *index);
        if committed > newest.max(applied) && self.committing.len() < MAX_MEASURED {
            self.committing.push_back((committed, Instant::now()));
        }
        while let Some((index, since)) = self.committing.front().copied() {
            if index > applied {
                break;
            }
            metrics.apply.observe(since.elapsed().as_secs_f64());
            self.committing.pop_front();
        }
    }
}

impl Raft {
    pub(super) fn tend(&mut self, ctx: &mut Context<Self>) {
        let Some(view) = self.shared.view() else { return };
        let last = view.last_log_index.unwrap_or(0);
        let membership = view.membership_config.membership();
        if view.state == ServerState::Leader {
            for (id, matched) in view.replication.iter().flatten() {
                if let Some(member) = membership.get_node(id)
                    && *id != self.shared.id()
                {
                    self.metrics.progress(&member.name, matched.map_or(0, |id| id.index), last);
                }
            }
        }
        self.metrics.age_contacts(|name| membership.nodes().any(|(_, member)| member.name == name));
        self.metrics.command_version.set(i64::from(self.shared.reader().command_version()));
        self.tended.beats = self.tended.beats.wrapping_add(1);
        if self.tended.beats.is_multiple_of(EVERY) {
            self.begin_purge(&view, ctx);
            self.begin_activation(&view, ctx);
            self.begin_announcing(&view, ctx);
            let leads = view.state == ServerState::Leader;
            if leads && self.told_applied == Some(Term(view.current_term)) && change::is_half_done(&view) {
                self.begin_finishing(ctx);
            }
        }
    }

    /// Ends a change of the membership that is half done, when nobody is at it.
    pub(super) fn begin_finishing(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.tended.finishing, true) {
            return;
        }
        let finished = change::finish(self.shared.clone());
        ctx.spawn(finished.into_actor(self).map(|(), this, _| this.tended.finishing = false));
    }

    /// What the log may lose is decided by what members said last.
    fn begin_purge(&mut self, view: &View, ctx: &mut Context<Self>) {
        let Some(raft) = self.raft.clone() else { return };
        let Some(to) = retention::purge_to(&self.limits(), &self.log_situation(view)) else { return };
        let purge = async move { raft.trigger().purge_log(to).await };
        ctx.spawn(purge.into_actor(self).map(
            move |purged: Result<(), Fatal<TypeConfig>>, _, _| match purged {
                Ok(()) => debug!(to, "purging the log"),
                Err(error) => debug!(%error, "the log was not purged"),
            },
        ));
    }

    const fn limits(&self) -> Limits {
        Limits { entries: self.config.keep_entries, bytes: self.config.keep_bytes }
    }

    fn log_situation(&self, view: &View) -> Situation {
        let log = self.store.log();
        let (purged, newest_within) = log.newest_within(self.config.keep_bytes);
        let reader = self.shared.reader();
        let (own, last) = (self.shared.id(), view.last_log_index.unwrap_or(0));
        let conditions = self.shared.conditions();
        let fresh = self.config.heartbeat_interval * STALE;
        let membership = view.membership_config.membership();
        let members = membership.nodes().map(|(id, _)| {
            let voter = membership.voter_ids().any(|voter| voter == *id);
            if *id == own {
                let (first_body, tip) = (reader.first_height_with_body(), reader.tip().height);
                return Holder { voter, last_log: Some(last), first_body, tip };
            }
            let told = conditions.get(id).filter(|(_, age)| *age < fresh);
            told.map_or(Holder { voter, last_log: None, ..Holder::default() }, |(condition, _)| Holder {
                voter,
                last_log: Some(condition.last_log.0),
                first_body: condition.first_body,
                tip: condition.tip,
            })
        });
        Situation {
            purged,
            last,
            snapshot: view.snapshot.map_or(0, |id| id.index),
            newest_within,
            lowest_block: log.lowest_block(),
            tip: reader.tip().height,
            members: members.collect(),
        }
    }

    /// The leader activates a newer version of log entries once every voter can apply it (A25).
    fn begin_activation(&mut self, view: &View, ctx: &mut Context<Self>) {
        let term = Term(view.current_term);
        if view.state != ServerState::Leader || self.told_applied != Some(term) || self.tended.activating {
            return;
        }
        let conditions = self.shared.conditions();
        let (own, known) = (self.shared.id(), self.store.known_command_version());
        let fresh = self.config.heartbeat_interval * STALE;
        let voters = view.membership_config.membership().voter_ids().map(|id| match conditions.get(&id) {
            _ if id == own => Some(known),
            Some((condition, age)) if *age < fresh => Some(condition.command_version),
            Some(_) | None => None,
        });
        let Some(version) = common_version(voters) else { return };
        if version <= self.shared.reader().command_version() {
            return;
        }
        info!(version, "every voter knows log entries of this version: activating it");
        self.tended.activating = true;
        let written = self.write(term, Command::Activate(version));
        ctx.spawn(written.into_actor(self).map(move |written, this, _| {
            this.tended.activating = false;
            match written {
                Ok((index, _)) => info!(version, index = index.0, "activated"),
                Err(error) => warn!(version, %error, "not activated"),
            }
        }));
    }

    /// A member that was started at another address than the membership has asks the leader to write
    /// down where it is (hazard S17). A leader does that for itself.
    fn begin_announcing(&mut self, view: &View, ctx: &mut Context<Self>) {
        if view.state == ServerState::Leader || self.tended.announcing || !self.shared.has_moved(view) {
            return;
        }
        self.tended.announcing = true;
        let told = joining::announce(self.shared.clone());
        ctx.spawn(told.into_actor(self).map(|told, this, _| {
            this.tended.announcing = false;
            match told {
                Ok(()) => {
                    info!(address = %this.config.member.address, "the cluster knows where this node is now")
                }
                Err(reason) => warn!(%reason, "the cluster does not know yet where this node is now"),
            }
        }));
    }

    /// Tells every other member how this one is. One condition is on its way to each at a time.
    pub(super) fn begin_telling(&mut self, condition: Condition, ctx: &mut Context<Self>) {
        self.shared.told(condition.clone());
        let Some(view) = self.shared.view() else { return };
        let own = self.shared.id();
        let membership = view.membership_config.membership();
        self.outside.retain(|id| membership.get_node(&id).is_some());
        self.tell_standing(view.state == ServerState::Leader);
        for (id, member) in membership.nodes() {
            if *id == own {
                continue;
            }
            if !self.telling.insert(*id) {
                self.metrics.conditions_dropped.inc();
                continue;
            }
            let (shared, member, id) = (self.shared.clone(), member.clone(), *id);
            let request = super::wire::Request::Condition(condition.clone());
            let within = self.config.election_timeout_max.max(Duration::from_millis(50));
            let told = async move {
                let name = member.name.clone();
                // Who does not answer hears the next one.
                let answer = shared.ask(member, super::transport::Class::Urgent, &request, within).await;
                (name, answer)
            };
            ctx.spawn(told.into_actor(self).map(move |(name, answer), this, _| {
                this.telling.remove(&id);
                this.end_telling(id, &name, answer);
            }));
        }
    }
}

impl Raft {
    fn end_telling(&mut self, id: MemberId, name: &str, answer: Result<Answer, CallError>) {
        let denied = match answer {
            Ok(_) => false,
            Err(CallError::Denied(reason)) if Denial::Stranger.is_said_in(&reason) => true,
            // That says nothing about the membership.
            Err(_) => return,
        };
        self.outside.answered(id, name, denied, Instant::now());
        let leads = self.shared.view().is_some_and(|view| view.state == ServerState::Leader);
        self.tell_standing(leads);
    }

    fn tell_standing(&mut self, leads: bool) {
        let led_by = self.shared.heard_leader();
        let by = self.outside.by(led_by, Instant::now(), self.config.election_timeout_max);
        let standing = StandingChanged { stranger_to: by.filter(|_| !leads).map(str::to_owned) };
        // Who says so is no news.
        if standing.stranger_to.is_some() != self.told_standing.stranger_to.is_some() {
            self.told_standing = standing.clone();
            self.links.standing.do_send(standing);
        }
    }
}

/// The newest version that all of them know; `None` when one has not said.
fn common_version(voters: impl Iterator<Item = Option<u8>>) -> Option<u8> {
    let known = voters.collect::<Option<Vec<u8>>>()?.into_iter();
    if planted(Mutation::ActivateEarly) { known.max() } else { known.min() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_common_once_every_voter_has_said_so() {
        assert_eq!(common_version([Some(2), Some(3)].into_iter()), Some(2));
        assert_eq!(common_version([Some(2), None].into_iter()), None);
        assert_eq!(common_version(std::iter::empty()), None);
    }
}
