//! What supervisor, sequencer, syncer and operators ask of Raft in a cluster.

use std::sync::Arc;

use actix::{AsyncContext, Context, Handler, MessageResult, ResponseFuture, WrapFuture};
use baton_messages::cluster::{
    Campaign, ChangeError, ChangeMembers, FetchBlocks, FetchError, FetchedBlock, ForwardError, ForwardTxs,
    GetCluster, Heartbeats, Stand, TellCondition,
};
use baton_messages::sequencer::Receipt;
use baton_messages::types::{LogIndex, Member};
use tracing::{debug, info, warn};

use super::shared::Shared;
use super::transport::{CallError, Class};
use super::wire::{Answer, Request};
use super::{Raft, change};

impl Handler<TellCondition> for Raft {
    type Result = ();

    fn handle(&mut self, message: TellCondition, ctx: &mut Context<Self>) {
        self.begin_telling(message.0, ctx);
    }
}

impl Handler<Campaign> for Raft {
    type Result = ();

    fn handle(&mut self, message: Campaign, _: &mut Context<Self>) {
        if self.may_campaign != message.allowed {
            info!(allowed = message.allowed, "standing for election when no leader is heard");
        }
        self.may_campaign = message.allowed;
        if let Some(raft) = &self.raft {
            raft.runtime_config().elect(message.allowed);
        }
    }
}

impl Handler<Stand> for Raft {
    type Result = ();

    fn handle(&mut self, _: Stand, ctx: &mut Context<Self>) {
        let Some(raft) = self.raft.clone() else { return };
        info!("standing for election");
        let stood = async move {
            if let Err(fatal) = raft.trigger().elect(true).await {
                warn!(%fatal, "cannot stand for election");
            }
        };
        ctx.spawn(stood.into_actor(self));
    }
}

impl Handler<Heartbeats> for Raft {
    type Result = ();

    fn handle(&mut self, message: Heartbeats, _: &mut Context<Self>) {
        if self.heartbeats != message.enabled {
            warn!(enabled = message.enabled, "heartbeats");
        }
        self.heartbeats = message.enabled;
        // Entries that are sent would hold the followers as well.
        self.check_lease();
        if let Some(raft) = &self.raft {
            raft.runtime_config().heartbeat(message.enabled);
        }
    }
}

impl Handler<GetCluster> for Raft {
    type Result = MessageResult<GetCluster>;

    fn handle(&mut self, _: GetCluster, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.shared.cluster_view())
    }
}

impl Handler<ChangeMembers> for Raft {
    type Result = ResponseFuture<Result<LogIndex, ChangeError>>;

    fn handle(&mut self, message: ChangeMembers, _: &mut Context<Self>) -> Self::Result {
        let shared = self.shared.clone();
        let ChangeMembers { change, version, force } = message;
        Box::pin(async move { change::carry_out(&shared, &change, version, force, None).await })
    }
}

impl Handler<ForwardTxs> for Raft {
    type Result = ResponseFuture<Result<Vec<Receipt>, ForwardError>>;

    fn handle(&mut self, message: ForwardTxs, _: &mut Context<Self>) -> Self::Result {
        let shared = self.shared.clone();
        Box::pin(async move { forward(&shared, message).await })
    }
}

async fn forward(shared: &Shared, message: ForwardTxs) -> Result<Vec<Receipt>, ForwardError> {
    let ForwardTxs { leader: meant, txs, checked } = message;
    let nobody = |reason: String| Err(ForwardError::NoLeader(reason));
    let Some((leader, hint)) = shared.leader() else { return nobody("nobody is known to lead".to_owned()) };
    if hint.id == shared.id() {
        return nobody("this node leads itself".to_owned());
    }
    // Who sent them has not heard of this leader, which has not got what comes before them (B7).
    if hint.id != meant {
        return nobody(format!("{} leads by now, not member {meant}", hint.name));
    }
    let count = txs.len() as u64;
    let request = Request::Forward { txs, checked };
    match shared.ask(leader, Class::Bulk, &request, shared.times.question).await {
        Ok(Answer::Forward(taken)) => {
            if taken.is_ok() {
                shared.metrics.forwarded.inc_by(count);
            }
            taken
        }
        Ok(other) => nobody(format!("{} answered something else: {other:?}", hint.name)),
        Err(error @ CallError::TooLarge { .. }) => Err(ForwardError::Refused(error.to_string())),
        Err(error) => nobody(format!("{}: {error}", hint.name)),
    }
}

impl Handler<FetchBlocks> for Raft {
    type Result = ResponseFuture<Result<Vec<FetchedBlock>, FetchError>>;

    fn handle(&mut self, message: FetchBlocks, _: &mut Context<Self>) -> Self::Result {
        let shared = self.shared.clone();
        Box::pin(async move { fetch(&shared, message).await })
    }
}

/// Asks one member after the other, those first that said they have the block, followers before
/// the leader: it has more to do.
async fn fetch(shared: &Arc<Shared>, message: FetchBlocks) -> Result<Vec<FetchedBlock>, FetchError> {
    let FetchBlocks { from, hash, max_bytes, down_to, .. } = message;
    let max_bytes = max_bytes as u64;
    for member in sources(shared, &message) {
        let name = member.name.clone();
        let request = Request::Fetch { from, hash, max_bytes, down_to };
        match shared.ask(member, Class::Bulk, &request, shared.times.question).await {
            Ok(Answer::Fetch(Ok(blocks)))
                if blocks.first().is_some_and(|first| first.block.hash() == hash) =>
            {
                return Ok(blocks);
            }
            Ok(Answer::Fetch(Err(error))) => debug!(%name, %error, "a member has no blocks"),
            Ok(_) => warn!(%name, height = from.0, "a member answered with another block than was asked for"),
            Err(error) => debug!(%name, %error, "a member sent no blocks"),
        }
    }
    Err(FetchError::Nobody(from))
}

fn sources(shared: &Shared, message: &FetchBlocks) -> Vec<Member> {
    let Some(view) = shared.view() else { return vec![] };
    let conditions = shared.conditions();
    let leader = view.current_leader;
    let others = view.membership_config.membership().nodes().filter(|(id, _)| **id != shared.id());
    let mut ranked: Vec<_> = others
        .map(|(id, member)| {
            let told = conditions.get(id);
            let has = told.is_some_and(|(condition, _)| {
                condition.first_body <= message.from && condition.tip >= message.from
            });
            let age = told.map(|(_, age)| *age);
            // `None` sorts first: who never said anything comes last by the first part.
            ((!has, leader == Some(*id), age), member.clone())
        })
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    let mut members: Vec<Member> = ranked.into_iter().map(|(_, member)| member).collect();
    // What the first gave was of no use: it comes last.
    let turns = usize::try_from(message.attempt).unwrap_or(0).checked_rem(members.len());
    members.rotate_left(turns.unwrap_or(0));
    members
}
