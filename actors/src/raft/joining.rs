//! How a node without a membership comes to one: asks, decides by `bootstrap`, acts, asks again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::{AsyncContext, Context, WrapFuture};
use baton_messages::types::{Member, MemberId};
use openraft::errors::{InitializeError, RaftError};
use tracing::{info, warn};
use uuid::Uuid;

use super::bootstrap::{self, Bootstrap, Step};
use super::shared::{self, Shared};
use super::transport::Class;
use super::wire::{Answer, Identity, JoinRefusal, Request};
use super::{Openraft, Raft};

/// The first pause between two rounds of questions; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

impl Raft {
    /// Goes on in the background until this node has a membership.
    pub(super) fn begin_joining(&mut self, raft: Openraft, ctx: &mut Context<Self>) {
        let shared = self.shared.clone();
        let (bootstrap, cluster) = (self.config.bootstrap.clone(), self.config.fresh_cluster);
        ctx.spawn(come_to_a_membership(shared, raft, bootstrap, cluster).into_actor(self));
    }
}

async fn come_to_a_membership(shared: Arc<Shared>, raft: Openraft, bootstrap: Bootstrap, fresh: Uuid) {
    let mut pause = FIRST_PAUSE;
    let mut said = None;
    // It ends with the instance: the next one begins anew.
    while let Ok(led) = raft.is_initialized().await
        && shared.reader().has_belonged() == Ok(false)
    {
        // A leader was here, and its log will come. But who made this node a member may have lost
        // leadership before that was committed: then nobody knows of it, and it has to ask again.
        if led {
            tokio::time::sleep(LONGEST_PAUSE).await;
            if shared.reader().has_belonged() != Ok(false) {
                break;
            }
        }
        let waiting = round(&shared, &raft, &bootstrap, fresh, led).await.err();
        if waiting != said
            && let Some(reason) = &waiting
        {
            warn!(%reason, "waiting to belong to a cluster");
        }
        shared.set_waiting(waiting.clone());
        said = waiting;
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    shared.set_waiting(None);
}

/// Asks everybody once and does what follows; one that a leader has been at makes no cluster. Says
/// what is waited for.
async fn round(
    shared: &Arc<Shared>,
    raft: &Openraft,
    bootstrap: &Bootstrap,
    fresh: Uuid,
    led: bool,
) -> Result<(), String> {
    let own = &shared.own;
    let questions = bootstrap.addresses(own).into_iter().map(|address| async move {
        let answer = identify(shared, &address).await;
        (address, answer)
    });
    let answers: BTreeMap<_, _> = futures::future::join_all(questions).await.into_iter().collect();
    match bootstrap::decide(bootstrap, own, shared.store.cluster(), &answers) {
        Step::Initialise(_) if led => Ok(()),
        Step::Initialise(members) => {
            info!(members = members.len(), "everybody is there and empty: making a cluster");
            let cluster = shared.store.cluster().unwrap_or(fresh);
            initialise(shared, raft, cluster, members).await
        }
        Step::Join(addresses) => join(shared, addresses).await,
        Step::Wait(reason) => Err(reason),
    }
}

async fn identify(shared: &Shared, address: &str) -> Result<Identity, String> {
    let within = shared.times.question.min(Duration::from_secs(1));
    match shared.ask(shared::somebody(address), Class::Bulk, &Request::Identify, within).await {
        Ok(Answer::Identity(identity)) => Ok(identity),
        Ok(other) => Err(format!("an answer to another question: {other:?}")),
        Err(error) => Err(error.to_string()),
    }
}

/// Makes a cluster. Its identity is on the disk before its first entry.
pub(super) async fn initialise(
    shared: &Shared,
    raft: &Openraft,
    cluster: Uuid,
    members: BTreeMap<MemberId, Member>,
) -> Result<(), String> {
    shared.store.join_cluster(cluster).await.map_err(|error| error.to_string())?;
    shared.transport.belongs_to(cluster);
    match raft.initialize(members).await {
        // A leader was faster, or there is a membership from before.
        Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Tells the leader where this member is now: the same storage at another address.
pub(super) async fn announce(shared: Arc<Shared>) -> Result<(), String> {
    let addresses = shared.addresses();
    ask_to_join(&shared, addresses).await
}

/// Asks to become a learner, following the hint to the leader.
async fn join(shared: &Shared, addresses: Vec<String>) -> Result<(), String> {
    ask_to_join(shared, addresses).await?;
    Err("a learner now: waiting for the leader's log".to_owned())
}

async fn ask_to_join(shared: &Shared, addresses: Vec<String>) -> Result<(), String> {
    let request = Request::Join { member: shared.own.clone() };
    let mut next: Vec<String> = addresses.into_iter().rev().collect();
    let mut asked = vec![];
    let mut reason = "nobody to ask".to_owned();
    while let Some(address) = next.pop() {
        // A hint may name this machine: as what it was before its disk was replaced.
        if asked.contains(&address) || address == shared.own.address {
            continue;
        }
        let answer =
            shared.ask(shared::somebody(&address), Class::Bulk, &request, shared.times.question).await;
        match answer {
            Ok(Answer::Join(Ok(()))) => return Ok(()),
            Ok(Answer::Join(Err(JoinRefusal::NotLeader(hint)))) => {
                reason = "nobody leads that cluster now".to_owned();
                next.extend(hint.map(|hint| hint.address));
            }
            Ok(Answer::Join(Err(JoinRefusal::Later(later)))) => reason = later,
            Ok(Answer::Join(Err(JoinRefusal::Refused(refused)))) => return Err(refused),
            Ok(other) => reason = format!("{address} answered something else: {other:?}"),
            Err(error) => reason = format!("{address}: {error}"),
        }
        asked.push(address);
    }
    Err(reason)
}
