//! Health and condition as plain HTTP: ev-node's bodies, and more in JSON.

mod following;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actix::Recipient;
use baton_messages::cluster::LeaderHint;
use baton_messages::raft::RaftView;
use baton_messages::status::{GetNodeStatus, NodeStatus};
use baton_messages::types::{Member, MemberId, Role, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};
use tracing::debug;

use crate::admin::status::{leader, status as cluster_status};

/// Longer than the board gives the actors it asks: an answer with parts missing is better
/// than none.
const BOARD_REPLIES_WITHIN: Duration = Duration::from_secs(3);

/// Asks for the node's condition and judges it.
#[derive(Clone)]
pub struct Condition {
    /// The status board.
    pub node_status: Recipient<GetNodeStatus>,
    /// The wall clock.
    pub now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// How old the tip may get while this node produces: five block times, or two lazy block
    /// intervals in lazy mode, as in ev-node. `None` does not look at it.
    pub stale_after: Option<Duration>,
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condition").field("stale_after", &self.stale_after).finish_non_exhaustive()
    }
}

/// A leader that was not heard for so long is none; it tells how it is every heartbeat interval.
const LEADER_SILENT_MS: u64 = 3_000;

/// What the board said, and why the node is not ready; without reasons it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What the board said.
    pub status: NodeStatus,
    /// Every reason why not.
    pub reasons: Vec<String>,
}

impl Condition {
    /// Asks now. `None` when the board does not answer, that is, the actors are stuck.
    pub async fn ask(&self) -> Option<Report> {
        match self.node_status.send(GetNodeStatus).timeout(BOARD_REPLIES_WITHIN).await {
            Ok(status) => {
                let reasons = unready(&status, (self.now)(), self.stale_after);
                Some(Report { status, reasons })
            }
            Err(error) => {
                debug!(%error, "the status board does not answer");
                None
            }
        }
    }
}

/// Why the node is not ready; empty is ready.
///
/// Ready is: the store answers and holds a block, a leader is known, and this node is able to do
/// its part: eligible, and producing if it leads. `stale_after` is how old the tip of a leader may
/// get before it counts as not producing, as in ev-node (features section 7.3).
#[must_use]
pub fn unready(status: &NodeStatus, now: Timestamp, stale_after: Option<Duration>) -> Vec<String> {
    let mut reasons = Vec::new();
    if let Some(trouble) = &status.store_trouble {
        reasons.push(format!("storage error: {trouble}"));
    }
    if status.tip.height.0 == 0 {
        reasons.push("no blocks yet".to_owned());
    }
    if let Some(follow) = &status.follow {
        reasons.extend(following::unready(status, follow, now));
        return reasons;
    }
    let leads = match &status.raft {
        None => {
            reasons.push("raft does not answer".to_owned());
            false
        }
        Some(raft) if raft.leader.is_none() => {
            reasons.push(format!("no quorum: no leader is known in term {}", raft.term));
            false
        }
        Some(raft) => {
            reasons.extend(unheard(status, raft));
            raft.role == Role::Leader
        }
    };
    let Some(supervisor) = &status.supervisor else {
        reasons.push("the supervisor does not answer".to_owned());
        return reasons;
    };
    reasons.extend(supervisor.eligibility.reasons.iter().cloned());
    if !leads {
        return reasons;
    }
    match (&supervisor.pause, supervisor.grant) {
        (Some(pause), _) => reasons.push(format!("not producing: {pause}")),
        (None, None) => reasons.push("not producing: no grant yet for this term".to_owned()),
        (None, Some(_)) => reasons.extend(stale(status, now, stale_after)),
    }
    reasons
}

/// Why a node that follows does not follow: Raft asks the others before it gives a leader up, and one
/// that reaches nobody would name the last one for ever.
fn unheard(status: &NodeStatus, raft: &RaftView) -> Option<String> {
    let (id, member) = raft.leader.as_ref().filter(|(id, _)| *id != raft.id)?;
    let members = &status.cluster.as_ref()?.members;
    let age = members.iter().find(|known| known.id == *id)?.told_ms_ago?;
    (age > LEADER_SILENT_MS).then(|| {
        let age = humantime::format_duration(Duration::from_millis(age));
        format!("no quorum: the leader {} was last heard {age} ago", member.name)
    })
}

/// Why clients must not take this node for the leader; `None`: it leads, holds the grant of its
/// term, and a quorum acknowledges it.
#[must_use]
pub fn not_leading(status: &NodeStatus) -> Option<String> {
    if status.follow.is_some() {
        return Some("this node follows the chain and is no member of its cluster".to_owned());
    }
    let Some(raft) = &status.raft else { return Some("raft does not answer".to_owned()) };
    let leader = leader(status);
    if raft.role != Role::Leader {
        return Some(
            leader.as_ref().map_or_else(|| format!("no leader is known in term {}", raft.term), named),
        );
    }
    let Some(supervisor) = &status.supervisor else {
        return Some("the supervisor does not answer".to_owned());
    };
    match supervisor.grant {
        Some(grant) if grant.term == raft.term && supervisor.paused.is_none() => {
            supervisor.lease_lapsed.then(|| "no quorum acknowledges this leader now".to_owned())
        }
        Some(_) | None => {
            let why = supervisor.pause.as_deref().unwrap_or("it has no grant yet");
            Some(format!("this node leads term {} and does not produce: {why}", raft.term))
        }
    }
}

fn named(leader: &LeaderHint) -> String {
    let at = |what: &str, address: &str| match address {
        "" => String::new(),
        address => format!(", {what} {address}"),
    };
    let (rpc, intake) = (at("rpc", &leader.rpc), at("intake", &leader.intake));
    format!("{} leads in term {}{rpc}{intake}", leader.name, leader.term)
}

fn stale(status: &NodeStatus, now: Timestamp, stale_after: Option<Duration>) -> Option<String> {
    let limit = stale_after.filter(|_| status.tip.height.0 > 0)?;
    let age = Duration::from_nanos(now.0.saturating_sub(status.tip.time.0));
    (age > limit).then(|| {
        let age = humantime::format_duration(Duration::from_millis(
            u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
        ));
        format!("aggregator not producing blocks at expected rate: the last one is {age} old")
    })
}

/// A member as `/raft/node` and `/status` show it.
#[derive(Debug, Serialize)]
struct Node<'a> {
    id: String,
    name: &'a str,
    address: &'a str,
    witness: bool,
}

impl<'a> From<&'a (MemberId, Member)> for Node<'a> {
    fn from((id, member): &'a (MemberId, Member)) -> Self {
        Self { id: id.to_string(), name: &member.name, address: &member.address, witness: member.witness }
    }
}

fn nodes(members: &[(MemberId, Member)]) -> Vec<Node<'_>> {
    members.iter().map(Node::from).collect()
}

/// The body of `/raft/node`. `is_leader` and `node_id` are ev-node's; a node whose Raft does
/// not answer is no leader.
#[must_use]
pub fn raft_node(node: &str, status: &NodeStatus, reasons: &[String]) -> Value {
    let supervisor = status.supervisor.as_ref();
    let cluster = status.cluster.as_ref();
    let mut body = json!({
        "is_leader": false,
        "node_id": node,
        "role": null,
        "executed": supervisor.map(|supervisor| supervisor.executed.0),
        "eligible": supervisor.map(|supervisor| supervisor.eligibility.reasons.is_empty()),
        "reasons": reasons,
        "producing": supervisor.map(|supervisor| supervisor.grant.is_some() && supervisor.pause.is_none()),
        "pause": supervisor.map(|supervisor| supervisor.pause.clone()),
        "paused": supervisor.map(|supervisor| supervisor.paused.clone()),
        "cluster_id": cluster.map(|cluster| cluster.cluster.map(|id| id.to_string())),
        "config_version": cluster.map(|cluster| cluster.version.0),
        "joint": cluster.map(|cluster| cluster.joint),
        "command_version": cluster.map(|cluster| cluster.command_version),
        "waits_for": cluster.map(|cluster| cluster.waits_for.clone()),
    });
    if let (Some(raft), Some(body)) = (&status.raft, body.as_object_mut())
        && let Value::Object(raft) = raft_fields(raft, leader(status).as_ref())
    {
        body.extend(raft);
    }
    if let (Some(follow), Some(body)) = (&status.follow, body.as_object_mut()) {
        body.insert("role".to_owned(), json!(follow.mode));
        body.insert("executed".to_owned(), json!(following::executed(follow)));
    }
    body
}

fn raft_fields(raft: &RaftView, hint: Option<&LeaderHint>) -> Value {
    let leader = raft.leader.as_ref().map(|(id, member)| {
        json!({
            "id": id.to_string(),
            "name": member.name,
            "address": member.address,
            "witness": member.witness,
            "rpc": hint.map(|hint| &hint.rpc),
            "intake": hint.map(|hint| &hint.intake),
            "term": raft.term.0,
        })
    });
    json!({
        "is_leader": raft.leader.as_ref().map_or(raft.role == Role::Leader, |(leader, _)| *leader == raft.id),
        "member_id": raft.id.to_string(),
        "role": raft.role,
        "leader": leader,
        "term": raft.term.0,
        "last_log": raft.last_log.0,
        "committed": raft.committed.0,
        "applied": raft.applied.0,
        "voters": nodes(&raft.voters),
        "learners": nodes(&raft.learners),
    })
}

/// The body of `/status`: everything the board knows. A part that did not answer is null.
#[must_use]
pub fn status(chain_id: &str, node: &str, status: &NodeStatus, reasons: &[String]) -> Value {
    json!({
        "chain_id": chain_id,
        "node_id": node,
        "version": env!("CARGO_PKG_VERSION"),
        "ready": reasons.is_empty(),
        "reasons": reasons,
        "tip": {
            "height": status.tip.height.0,
            "hash": status.tip.hash.to_string(),
            "time": status.tip.time.0,
            "term": status.tip.term.0,
        },
        "da": {
            "headers": status.da.headers.0,
            "data": status.da.data.0,
            "included": status.da.included.0,
            "da_height": status.da.da_height.0,
        },
        "storage": { "trouble": status.store_trouble },
        "follow": status.follow.as_ref().map(following::status),
        "raft": status.raft.as_ref().map(|raft| raft_fields(raft, leader(status).as_ref())),
        "cluster": status.cluster.as_ref().map(|_| cluster_status(node, status)),
        "supervisor": status.supervisor.as_ref().map(|supervisor| json!({
            "grant": supervisor.grant.map(|grant| grant.term.0),
            "executed": supervisor.executed.0,
            "eligible": supervisor.eligibility.reasons.is_empty(),
            "reasons": supervisor.eligibility.reasons,
            "pause": supervisor.pause,
            "caretaker": supervisor.caretaker,
            "silent": supervisor.silent,
            "hand_over": supervisor.hand_over,
            "last_failover": supervisor.last_failover.as_ref().map(|failover| json!({
                "term": failover.term.0,
                "cause": failover.cause,
                "took_ms": failover.took_ms,
            })),
            "da_trouble": supervisor.da_trouble,
        })),
        "queue": status.queue.map(|queue| json!({
            "txs": queue.txs,
            "bytes": queue.bytes,
            "max_txs": queue.max_txs,
            "max_bytes": queue.max_bytes,
            "waiting": queue.waiting,
            "window": queue.window,
        })),
        "signer": status.signer.as_ref().map(|signer| json!({
            "address": hex::encode(&signer.signer.address),
            "guarded": signer.guarded.map(|(height, hash)| json!({
                "height": height.0,
                "hash": hash.to_string(),
            })),
        })),
    })
}

#[cfg(test)]
mod tests {
    use baton_messages::cluster::{ClusterView, MemberView};
    use baton_messages::command::DaProgress;
    use baton_messages::supervisor::{Eligibility, SupervisorView};
    use baton_messages::types::{Grant, Height, Term, Tip};

    use super::*;

    const NOW: Timestamp = Timestamp(100_000_000_000);
    const STALE: Option<Duration> = Some(Duration::from_secs(5));

    fn member(id: u64) -> (MemberId, Member) {
        (MemberId(id), Member { name: format!("n{id}"), address: format!("h{id}:5001"), ..Member::default() })
    }

    /// Leads term 3 and has just produced block 7.
    fn leader() -> NodeStatus {
        let raft = RaftView {
            id: MemberId(1),
            role: Role::Leader,
            term: Term(3),
            leader: Some(member(1)),
            voters: vec![member(1)],
            ..RaftView::default()
        };
        let supervisor = SupervisorView {
            grant: Some(Grant { term: Term(3) }),
            executed: Height(7),
            ..SupervisorView::default()
        };
        NodeStatus {
            tip: Tip { height: Height(7), time: NOW, term: Term(3), ..Tip::default() },
            da: DaProgress { included: Height(5), ..DaProgress::default() },
            raft: Some(raft),
            supervisor: Some(supervisor),
            ..NodeStatus::default()
        }
    }

    fn follower() -> NodeStatus {
        let mut status = leader();
        if let (Some(raft), Some(supervisor)) = (&mut status.raft, &mut status.supervisor) {
            (raft.id, raft.role, supervisor.grant) = (MemberId(2), Role::Follower, None);
        }
        status
    }

    fn reasons(status: &NodeStatus) -> Vec<String> {
        unready(status, NOW, STALE)
    }

    /// The leader, with a change to what its supervisor says.
    fn supervised(change: impl FnOnce(&mut SupervisorView)) -> NodeStatus {
        let mut status = leader();
        status.supervisor.as_mut().map(change);
        status
    }

    #[test]
    fn a_producing_leader_and_an_eligible_follower_are_ready() {
        assert_eq!(reasons(&leader()), [""; 0]);
        assert_eq!(reasons(&follower()), [""; 0]);
    }

    #[test]
    fn a_chain_without_blocks_is_not_ready() {
        let status = NodeStatus { tip: Tip::default(), ..leader() };
        assert_eq!(reasons(&status), ["no blocks yet"]);
    }

    #[test]
    fn a_paused_leader_says_why() {
        let status = supervised(|view| view.pause = Some("1000 blocks wait for the DA layer".to_owned()));
        assert_eq!(reasons(&status), ["not producing: 1000 blocks wait for the DA layer"]);
        let status = supervised(|view| view.grant = None);
        assert_eq!(reasons(&status), ["not producing: no grant yet for this term"]);
    }

    #[test]
    fn trouble_of_engine_and_disk_is_all_named() {
        let why = ["the engine does not answer".to_owned(), "less than 1 GiB free".to_owned()];
        let status = supervised(|view| view.eligibility = Eligibility { reasons: why.to_vec() });
        assert_eq!(reasons(&status), why);
    }

    #[test]
    fn da_trouble_alone_keeps_the_node_ready() {
        let status = supervised(|view| view.da_trouble = Some("connection refused".to_owned()));
        assert_eq!(reasons(&status), [""; 0]);
    }

    #[test]
    fn without_a_leader_there_is_no_quorum() {
        let mut status = follower();
        status.raft.as_mut().unwrap().leader = None;
        assert_eq!(reasons(&status), ["no quorum: no leader is known in term 3"]);
    }

    #[test]
    fn a_follower_that_no_longer_hears_its_leader_is_not_ready() {
        let heard = |ms| {
            let view = MemberView { id: MemberId(1), told_ms_ago: Some(ms), ..MemberView::default() };
            let cluster = Some(ClusterView { members: vec![view], ..ClusterView::default() });
            reasons(&NodeStatus { cluster, ..follower() })
        };
        assert_eq!(heard(3_000), [""; 0]);
        assert_eq!(heard(3_500), ["no quorum: the leader n1 was last heard 3s 500ms ago"], "S21");
    }

    #[test]
    fn trouble_of_the_store_is_named() {
        let status = NodeStatus { store_trouble: Some("i/o".to_owned()), ..leader() };
        assert_eq!(reasons(&status), ["storage error: i/o"]);
    }

    #[test]
    fn parts_that_do_not_answer_are_named() {
        let status = NodeStatus { raft: None, supervisor: None, ..leader() };
        assert_eq!(reasons(&status), ["raft does not answer", "the supervisor does not answer"]);
    }

    #[test]
    fn a_producing_leader_whose_tip_grows_old_is_not_ready() {
        let mut status = leader();
        status.tip.time = Timestamp(NOW.0 - 5_000_000_000);
        assert_eq!(reasons(&status), [""; 0]);
        status.tip.time = Timestamp(NOW.0 - 5_001_000_000);
        assert_eq!(
            reasons(&status),
            ["aggregator not producing blocks at expected rate: the last one is 5s 1ms old"]
        );
        assert_eq!(unready(&status, NOW, None), [""; 0]);
        let mut follower = follower();
        follower.tip.time = status.tip.time;
        assert_eq!(reasons(&follower), [""; 0]);
    }

    #[test]
    fn raft_node_has_the_fields_of_ev_node_and_more() {
        let body = raft_node("n2", &follower(), &[]);
        assert_eq!(body["is_leader"], json!(false));
        assert_eq!(body["node_id"], json!("n2"));
        assert_eq!(body["role"], json!("follower"));
        assert_eq!(body["leader"]["name"], json!("n1"));
        assert_eq!(body["leader"]["address"], json!("h1:5001"));
        assert_eq!(body["leader"]["id"], json!("0000000000000001"));
        assert_eq!(body["term"], json!(3));
        assert_eq!(body["executed"], json!(7));
        assert_eq!(body["eligible"], json!(true));
        assert_eq!(body["voters"].as_array().map(Vec::len), Some(1));
        assert_eq!(raft_node("n1", &leader(), &[])["is_leader"], json!(true));
    }

    #[test]
    fn only_a_leader_with_grant_and_quorum_is_one_for_clients() {
        assert_eq!(not_leading(&leader()), None);
        assert_eq!(not_leading(&follower()).as_deref(), Some("n1 leads in term 3"));
        let status = supervised(|view| view.grant = None);
        let said = "this node leads term 3 and does not produce: it has no grant yet";
        assert_eq!(not_leading(&status).as_deref(), Some(said));
        let status = supervised(|view| view.grant = Some(Grant { term: Term(2) }));
        assert!(not_leading(&status).is_some(), "a grant of an older term");
        let status = supervised(|view| view.lease_lapsed = true);
        assert!(not_leading(&status).unwrap().contains("no quorum"));
        // It still takes transactions.
        let status = supervised(|view| view.pause = Some("1000 blocks wait for the DA layer".to_owned()));
        assert_eq!(not_leading(&status), None);
        let mut status = follower();
        status.raft.as_mut().unwrap().leader = None;
        assert_eq!(not_leading(&status).as_deref(), Some("no leader is known in term 3"));
    }

    #[test]
    fn raft_node_knows_the_cluster_and_where_clients_reach_the_leader() {
        let hint = LeaderHint {
            id: MemberId(1),
            rpc: "h1:7331".to_owned(),
            intake: "h1:9090".to_owned(),
            ..LeaderHint::default()
        };
        let mut status = follower();
        status.cluster = Some(ClusterView {
            version: baton_messages::types::LogIndex(4),
            leader: Some(hint),
            ..ClusterView::default()
        });
        let body = raft_node("n2", &status, &[]);
        assert_eq!(
            (&body["leader"]["rpc"], &body["leader"]["intake"]),
            (&json!("h1:7331"), &json!("h1:9090"))
        );
        assert_eq!((&body["config_version"], &body["cluster_id"]), (&json!(4), &Value::Null));
        assert_eq!(body["producing"], json!(false));
        assert!(not_leading(&status).unwrap().ends_with("rpc h1:7331, intake h1:9090"));
    }

    #[test]
    fn a_node_whose_raft_does_not_answer_is_no_leader() {
        let status = NodeStatus { raft: None, ..leader() };
        let body = raft_node("n1", &status, &reasons(&status));
        assert_eq!(body["is_leader"], json!(false));
        assert_eq!(body["node_id"], json!("n1"));
        assert_eq!(body["reasons"], json!(["raft does not answer"]));
    }
}
