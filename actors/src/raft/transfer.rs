//! Handing leadership to another voter.
//!
//! Up to openraft's transfer everything can be called off. After it this leader takes no entries
//! any more, for ever: openraft never clears its mark. So when nobody takes over, the instance is
//! built anew in place, and this node follows or is elected like any other.

use std::time::Duration;

use actix::{ActorFutureExt, AsyncContext, Context, Handler, ResponseActFuture, WrapFuture};
use baton_messages::cluster::{TransferError, TransferLeadership};
use baton_messages::raft::RaftHealthChanged;
use baton_messages::types::{LogIndex, MemberId, Term};
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use tracing::{info, warn};

use super::shared::View;
use super::{Openraft, Raft};

/// What openraft is asked before there is no way back.
fn check(view: &View, own: MemberId, term: Term, to: MemberId) -> Result<(), TransferError> {
    if view.state != ServerState::Leader || view.current_term != term.0 {
        return Err(TransferError::NotLeader(term));
    }
    let membership = view.membership_config.membership();
    if to == own {
        return Err(TransferError::Target("it leads already".to_owned()));
    }
    if !membership.voter_ids().any(|voter| voter == to) {
        return Err(TransferError::Target(format!("member {to} does not vote")));
    }
    if membership.get_joint_config().len() > 1 {
        return Err(TransferError::Target("a change of the membership is on its way".to_owned()));
    }
    let matched = view.replication.as_ref().and_then(|all| all.get(&to)).and_then(|matched| *matched);
    let (last, matched) = (view.last_log_index.unwrap_or(0), matched.map_or(0, |id| id.index));
    if matched < last {
        return Err(TransferError::Behind { last: LogIndex(last), matched: LogIndex(matched) });
    }
    Ok(())
}

/// Whether the target has answered a heartbeat lately.
fn answers(view: &View, to: MemberId, within: Duration) -> bool {
    let at = view.heartbeat.as_ref().and_then(|all| all.get(&to)).and_then(Option::as_ref);
    at.is_some_and(|at| openraft::Instant::elapsed(&**at) < within)
}

enum Outcome {
    Done(Term, MemberId),
    Refused(TransferError),
    /// There is no way back, and nobody took over.
    Nobody,
}

async fn hand_over(raft: Openraft, view: View, term: Term, to: MemberId, within: Duration) -> Outcome {
    let own = *raft.node_id();
    if let Err(refused) = check(&view, own, term, to) {
        return Outcome::Refused(refused);
    }
    if !answers(&view, to, within / 2) {
        return Outcome::Refused(TransferError::Target("it does not answer".to_owned()));
    }
    info!(term = term.0, %to, "handing leadership over");
    if let Err(fatal) = raft.trigger().transfer_leader(to).await {
        return Outcome::Refused(TransferError::Stopped(fatal.to_string()));
    }
    let mut watch = raft.metrics();
    let successor = async {
        loop {
            let (now, leader) = {
                let view = watch.borrow_watched();
                (Term(view.current_term), view.current_leader)
            };
            if now > term
                && let Some(leader) = leader
            {
                return Some((now, leader));
            }
            if watch.changed().await.is_err() {
                return None;
            }
        }
    };
    match tokio::time::timeout(within, successor).await {
        Ok(Some((term, leader))) => Outcome::Done(term, leader),
        Ok(None) => Outcome::Refused(TransferError::Stopped("raft ended meanwhile".to_owned())),
        Err(_) => Outcome::Nobody,
    }
}

impl Handler<TransferLeadership> for Raft {
    type Result = ResponseActFuture<Self, Result<(Term, MemberId), TransferError>>;

    fn handle(&mut self, message: TransferLeadership, _: &mut Context<Self>) -> Self::Result {
        let TransferLeadership { term, to } = message;
        let within = self.config.election_timeout_max * 2;
        let (Some(raft), Some(view)) = (self.raft.clone(), self.shared.view()) else {
            let reason = self.trouble.clone().unwrap_or_else(|| "not started yet".to_owned());
            let stopped = std::future::ready(Err(TransferError::Stopped(reason)));
            return Box::pin(stopped.into_actor(self));
        };
        let instance = self.instance;
        let handed = hand_over(raft, view, term, to, within).into_actor(self);
        Box::pin(handed.map(move |outcome, this, ctx| match outcome {
            Outcome::Done(term, leader) => {
                info!(term = term.0, %leader, "leadership was handed over");
                Ok((term, leader))
            }
            Outcome::Refused(refused) => Err(refused),
            Outcome::Nobody => {
                if this.instance == instance {
                    this.begin_rebuild(ctx);
                }
                Err(TransferError::NoSuccessor(u64::try_from(within.as_millis()).unwrap_or(u64::MAX)))
            }
        }))
    }
}

impl Raft {
    /// Ends the instance and builds another over the same open store. Nobody leads here meanwhile.
    pub(super) fn begin_rebuild(&mut self, ctx: &mut Context<Self>) {
        let Some(raft) = self.raft.take() else { return };
        let trouble = "nobody took leadership over: building raft anew";
        warn!("{trouble}");
        self.links.health.do_send(RaftHealthChanged { trouble: Some(trouble.to_owned()) });
        self.trouble = Some(trouble.to_owned());
        self.metrics.rebuilt.inc();
        self.instance += 1;
        self.shared.set_raft(None);
        self.told_applied = None;
        self.tell_nobody_leads();
        let ended = async move { drop(raft.shutdown().await) };
        ctx.spawn(ended.into_actor(self).map(|(), this, ctx| {
            if !this.closing {
                this.begin_open(ctx);
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use baton_messages::types::Member;
    use baton_storage::raft_types::{Membership, StoredMembership, log_id};

    use super::*;

    const OWN: MemberId = MemberId(1);
    const OTHER: MemberId = MemberId(2);

    fn leading(voters: &[u64], matched: u64) -> View {
        let nodes: BTreeMap<_, _> = (1..=3).map(|id| (MemberId(id), Member::default())).collect();
        let config: BTreeSet<_> = voters.iter().map(|id| MemberId(*id)).collect();
        let membership = Membership::new(vec![config], nodes).expect("coherent");
        let mut view = View::new_initial(OWN);
        view.state = ServerState::Leader;
        view.current_term = 3;
        view.last_log_index = Some(10);
        view.membership_config = Arc::new(StoredMembership::new(Some(log_id(1, 1)), membership));
        view.replication = Some(BTreeMap::from([(OTHER, Some(log_id(3, matched)))]));
        view
    }

    #[test]
    fn only_a_voter_with_everything_takes_over() {
        assert_eq!(check(&leading(&[1, 2, 3], 10), OWN, Term(3), OTHER), Ok(()));
        let behind = TransferError::Behind { last: LogIndex(10), matched: LogIndex(9) };
        assert_eq!(check(&leading(&[1, 2, 3], 9), OWN, Term(3), OTHER), Err(behind));
        let learner = check(&leading(&[1, 3], 10), OWN, Term(3), OTHER);
        assert!(matches!(learner, Err(TransferError::Target(_))), "{learner:?}");
        let itself = check(&leading(&[1, 2, 3], 10), OWN, Term(3), OWN);
        assert!(matches!(itself, Err(TransferError::Target(_))), "{itself:?}");
    }

    #[test]
    fn only_the_leader_of_that_term_hands_over() {
        assert_eq!(
            check(&leading(&[1, 2, 3], 10), OWN, Term(2), OTHER),
            Err(TransferError::NotLeader(Term(2)))
        );
        let mut follower = leading(&[1, 2, 3], 10);
        follower.state = ServerState::Follower;
        assert_eq!(check(&follower, OWN, Term(3), OTHER), Err(TransferError::NotLeader(Term(3))));
    }

    #[test]
    fn who_has_never_answered_a_heartbeat_does_not_answer() {
        assert!(!answers(&leading(&[1, 2, 3], 10), OTHER, Duration::from_secs(1)));
    }
}
