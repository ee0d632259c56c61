//! How far the DA layers of the members are: a leader asks when blocks do not come to its own.
//!
//! Nothing is asked while all is well. Members of a version that does not know the question refuse it,
//! and are not known to be better.

use std::collections::BTreeMap;
use std::time::Duration;

use actix::{Context, Handler, ResponseFuture};
use baton_messages::cluster::AskDa;
use baton_messages::da::GetDaHead;
use baton_messages::types::{DaHeight, Member, MemberId};
use futures::future::join_all;

use super::Raft;
use super::shared::Shared;
use super::transport::Class;
use super::wire::{Answer, Request};

impl Handler<AskDa> for Raft {
    type Result = ResponseFuture<BTreeMap<MemberId, DaHeight>>;

    fn handle(&mut self, _: AskDa, _: &mut Context<Self>) -> Self::Result {
        let shared = self.shared.clone();
        Box::pin(async move { heads(&shared).await })
    }
}

async fn heads(shared: &Shared) -> BTreeMap<MemberId, DaHeight> {
    let Some(view) = shared.view() else { return BTreeMap::new() };
    let membership = view.membership_config.membership();
    let others = membership.voter_ids().filter(|id| *id != shared.id());
    let others: Vec<(MemberId, Member)> =
        others.filter_map(|id| Some((id, membership.get_node(&id)?.clone()))).collect();
    let asked = others.into_iter().map(|(id, member)| async move {
        match shared.ask(member, Class::Bulk, &Request::DaHead, shared.times.question).await {
            Ok(Answer::DaHead(head)) => Some((id, head?)),
            Ok(_) | Err(_) => None,
        }
    });
    let mut heads: BTreeMap<MemberId, DaHeight> = join_all(asked).await.into_iter().flatten().collect();
    // Last: an outage of all that ends meanwhile makes nobody better.
    heads.extend(own(shared, answer_within(shared)).await.map(|head| (shared.id(), head)));
    heads
}

/// What this member answers another one. One question to DA at a time: others get no answer.
pub(super) async fn answer(shared: &Shared) -> Option<DaHeight> {
    let _one = shared.asking_da.try_acquire().ok()?;
    own(shared, answer_within(shared)).await
}

/// The answer must be there before who asked gives up.
fn answer_within(shared: &Shared) -> Duration {
    shared.times.question / 2
}

async fn own(shared: &Shared, within: Duration) -> Option<DaHeight> {
    let asked = shared.da.as_ref()?.send(GetDaHead).timeout(within).await;
    Some(asked.ok()?.ok()?.height)
}
