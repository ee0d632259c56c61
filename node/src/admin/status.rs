//! The cluster as a member sees it, for `baton cluster status`, `/raft/node` and `/status`.

use baton_messages::cluster::{ClusterView, LeaderHint, MemberView};
use baton_messages::status::NodeStatus;
use baton_messages::types::{MemberId, Role};
use serde::{Deserialize, Serialize};

/// The cluster as one member sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The node that answers.
    pub node: String,
    /// Its member id, in hex.
    pub member_id: Option<String>,
    /// What it is.
    pub role: Option<Role>,
    /// The term it is in.
    pub term: Option<u64>,
    /// The cluster's identity; `None` before the node belongs to one.
    pub cluster: Option<String>,
    /// The config version: what `--version` compares with.
    pub version: u64,
    /// A change of the membership is on its way.
    pub joint: bool,
    /// Who leads.
    pub leader: Option<Leader>,
    /// The version of log entries in force.
    pub command_version: u8,
    /// What a node waits for that belongs to no cluster yet.
    pub waits_for: Option<String>,
    /// Why this node produces nothing although it leads.
    pub pause: Option<String>,
    /// Why an operator has stopped production, on whoever leads.
    #[serde(default)]
    pub paused: Option<String>,
    /// So many voters that are heard now may stop before the chain does. `None`: there is no quorum.
    #[serde(default)]
    pub spare_voters: Option<usize>,
    /// Why this node may not produce.
    pub reasons: Vec<String>,
    /// Every member, this one too, voters first.
    pub members: Vec<Line>,
}

/// Who leads, as clients and operators are told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// Its member id, in hex.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its cluster address.
    pub address: String,
    /// Its RPC address; empty when it is not known.
    pub rpc: String,
    /// Its intake address; empty when it has none, or it is not known.
    pub intake: String,
    /// The term.
    pub term: u64,
}

impl From<&LeaderHint> for Leader {
    fn from(hint: &LeaderHint) -> Self {
        let LeaderHint { id, name, address, rpc, intake, term } = hint.clone();
        Self { id: id.to_string(), name, address, rpc, intake, term: term.0 }
    }
}

/// After so many milliseconds a member's last word says nothing about now: many heartbeats.
pub(super) const SILENT_MS: u64 = 1_000;

/// One member, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Its id, in hex.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its cluster address.
    pub address: String,
    /// `leader`, `voter`, `witness` or `learner`.
    pub role: String,
    /// It votes.
    pub voter: bool,
    /// It has neither engine nor key.
    pub witness: bool,
    /// It holds a grant.
    pub producing: bool,
    /// It may produce. `None`: it has not said.
    pub eligible: Option<bool>,
    /// Why not.
    pub reasons: Vec<String>,
    /// Its last applied block.
    pub height: Option<u64>,
    /// Its last executed block.
    pub executed: Option<u64>,
    /// Blocks behind the highest that any member has applied.
    pub lag: Option<u64>,
    /// The first block of which it has the body, and all after.
    pub first_body: Option<u64>,
    /// The last index in its log, as it says.
    pub last_log: Option<u64>,
    /// The last index in its log, as the leader knows. `None` on a node that does not lead.
    pub matched: Option<u64>,
    /// The newest version of log entries it can apply.
    pub command_version: Option<u8>,
    /// The life of its storage.
    pub boot: Option<u64>,
    /// A hash over the settings in which members must agree.
    pub config: Option<String>,
    /// How long ago it said so, milliseconds.
    pub told_ms_ago: Option<u64>,
}

/// Puts together what the parts of the node say.
#[must_use]
pub fn status(node: &str, status: &NodeStatus) -> Status {
    let view = status.cluster.clone().unwrap_or_default();
    let own = status.raft.as_ref().map(|raft| raft.id);
    let leader = leader(status);
    let supervisor = status.supervisor.as_ref();
    let members = lines(&view, status, leader.as_ref().map(|leader| leader.id));
    Status {
        node: node.to_owned(),
        member_id: own.map(|id| id.to_string()),
        role: status.raft.as_ref().map(|raft| raft.role),
        term: status.raft.as_ref().map(|raft| raft.term.0),
        cluster: view.cluster.map(|cluster| cluster.to_string()),
        version: view.version.0,
        joint: view.joint,
        command_version: view.command_version,
        waits_for: view.waits_for.clone(),
        pause: supervisor.and_then(|supervisor| supervisor.pause.clone()),
        reasons: supervisor.map(|supervisor| supervisor.eligibility.reasons.clone()).unwrap_or_default(),
        paused: supervisor.and_then(|supervisor| supervisor.paused.clone()),
        spare_voters: spare_voters(&members),
        members,
        leader: leader.as_ref().map(Leader::from),
    }
}

/// Who leads: Raft's own word, with the addresses that members told.
#[must_use]
pub fn leader(status: &NodeStatus) -> Option<LeaderHint> {
    let hint = status.cluster.as_ref().and_then(|view| view.leader.clone());
    let Some(raft) = &status.raft else { return hint };
    let (id, member) = raft.leader.as_ref()?;
    let told = hint.filter(|hint| hint.id == *id).unwrap_or_default();
    Some(LeaderHint {
        id: *id,
        name: member.name.clone(),
        address: member.address.clone(),
        rpc: told.rpc,
        intake: told.intake,
        term: raft.term,
    })
}

/// How many of the voters that are heard may stop; a quorum of all must be left.
fn spare_voters(members: &[Line]) -> Option<usize> {
    let voters = members.iter().filter(|line| line.voter);
    let heard = voters.clone().filter(|line| line.told_ms_ago.is_some_and(|ms| ms <= SILENT_MS)).count();
    heard.checked_sub(voters.count() / 2 + 1)
}

fn lines(view: &ClusterView, status: &NodeStatus, leader: Option<MemberId>) -> Vec<Line> {
    let own = status.raft.as_ref().map(|raft| raft.id);
    let paused = status.supervisor.as_ref().is_some_and(|supervisor| supervisor.paused.is_some());
    let mut lines: Vec<_> = view.members.iter().map(|member| line(member, leader, paused)).collect();
    // What this node says of itself is newer than what it told the others.
    for (line, member) in lines.iter_mut().zip(&view.members) {
        if Some(member.id) != own {
            continue;
        }
        line.height = Some(status.tip.height.0);
        line.last_log = status.raft.as_ref().map(|raft| raft.last_log.0);
        line.told_ms_ago = Some(0);
        if let Some(supervisor) = &status.supervisor {
            line.executed = Some(supervisor.executed.0);
            line.eligible = Some(supervisor.eligibility.reasons.is_empty() && !member.member.witness);
            line.reasons.clone_from(&supervisor.eligibility.reasons);
            line.producing = supervisor.grant.is_some() && supervisor.paused.is_none();
        }
    }
    let highest = lines.iter().filter_map(|line| line.height).max();
    for line in &mut lines {
        line.lag = line.height.and_then(|height| Some(highest? - height));
    }
    lines.sort_by(|one, other| (!one.voter, &one.name).cmp(&(!other.voter, &other.name)));
    lines
}

fn line(view: &MemberView, leader: Option<MemberId>, paused: bool) -> Line {
    let condition = view.condition.as_ref();
    let role = match (view.voter, view.member.witness) {
        _ if leader == Some(view.id) => "leader",
        (true, true) => "witness",
        (true, false) => "voter",
        (false, _) => "learner",
    };
    Line {
        id: view.id.to_string(),
        name: view.member.name.clone(),
        address: view.member.address.clone(),
        role: role.to_owned(),
        voter: view.voter,
        witness: view.member.witness,
        producing: !paused && condition.is_some_and(|condition| condition.producing),
        eligible: condition.map(baton_messages::cluster::Condition::is_eligible),
        reasons: condition.map(reasons).unwrap_or_default(),
        height: condition.map(|condition| condition.tip.0),
        executed: condition.map(|condition| condition.executed.0),
        lag: None,
        first_body: condition.map(|condition| condition.first_body.0),
        last_log: condition.map(|condition| condition.last_log.0),
        matched: view.matched.map(|matched| matched.0),
        command_version: condition.map(|condition| condition.command_version),
        boot: condition.map(|condition| condition.boot),
        config: condition.map(|condition| condition.config.to_string()),
        told_ms_ago: view.told_ms_ago,
    }
}

fn reasons(condition: &baton_messages::cluster::Condition) -> Vec<String> {
    let mut reasons = condition.reasons.clone();
    if condition.closing {
        reasons.push("it is shutting down".to_owned());
    }
    reasons
}

#[cfg(test)]
pub(super) mod tests {
    use baton_messages::cluster::Condition;
    use baton_messages::raft::RaftView;
    use baton_messages::supervisor::{Eligibility, SupervisorView};
    use baton_messages::types::{Grant, Height, LogIndex, Member, Term, Tip};

    use super::*;

    fn member(id: u64) -> Member {
        Member { name: format!("n{id}"), address: format!("h{id}:5001"), ..Member::default() }
    }

    fn view(id: u64, voter: bool, tip: u64) -> MemberView {
        let condition = Condition {
            member: MemberId(id),
            tip: Height(tip),
            executed: Height(tip - 1),
            last_log: LogIndex(tip + 5),
            ..Condition::default()
        };
        MemberView {
            id: MemberId(id),
            member: member(id),
            voter,
            condition: Some(condition),
            told_ms_ago: Some(20),
            matched: Some(LogIndex(tip + 5)),
        }
    }

    /// n1 leads term 3 with block 9; n2 votes and has block 7; n3 is a silent learner.
    pub(in crate::admin) fn node_status() -> NodeStatus {
        let hint = LeaderHint {
            id: MemberId(1),
            rpc: "h1:7331".to_owned(),
            intake: "h1:9090".to_owned(),
            ..LeaderHint::default()
        };
        let mut silent = view(3, false, 1);
        (silent.condition, silent.told_ms_ago, silent.matched) = (None, None, None);
        NodeStatus {
            tip: Tip { height: Height(9), ..Tip::default() },
            raft: Some(RaftView {
                id: MemberId(1),
                role: Role::Leader,
                term: Term(3),
                leader: Some((MemberId(1), member(1))),
                last_log: LogIndex(14),
                ..RaftView::default()
            }),
            supervisor: Some(SupervisorView {
                grant: Some(Grant { term: Term(3) }),
                executed: Height(9),
                eligibility: Eligibility::default(),
                ..SupervisorView::default()
            }),
            cluster: Some(ClusterView {
                cluster: Some(uuid::Uuid::from_u128(7)),
                version: LogIndex(4),
                leader: Some(hint),
                command_version: 1,
                members: vec![silent, view(2, true, 7), view(1, true, 8)],
                ..ClusterView::default()
            }),
            ..NodeStatus::default()
        }
    }

    #[test]
    fn members_stand_in_order_with_what_is_known_of_each() {
        let status = status("n1", &node_status());
        let rows: Vec<_> = status.members.iter().map(|line| (&*line.name, &*line.role, line.lag)).collect();
        assert_eq!(rows, [("n1", "leader", Some(0)), ("n2", "voter", Some(2)), ("n3", "learner", None)]);
        assert_eq!((status.version, status.term), (4, Some(3)));
        // Its own numbers are of this moment, not of its last word to the others.
        assert_eq!((status.members[0].height, status.members[0].executed), (Some(9), Some(9)));
        assert!(status.members[0].producing);
        assert_eq!((status.members[2].eligible, status.members[2].told_ms_ago), (None, None));
    }

    #[test]
    fn the_leader_is_whom_raft_names_with_the_addresses_it_told() {
        let leader = leader(&node_status()).unwrap();
        assert_eq!((&*leader.name, &*leader.address, &*leader.rpc), ("n1", "h1:5001", "h1:7331"));
        let mut other = node_status();
        other.raft.as_mut().unwrap().leader = Some((MemberId(2), member(2)));
        let leader = super::leader(&other).unwrap();
        assert_eq!((&*leader.name, &*leader.rpc), ("n2", ""), "the address was told for another leader");
        other.raft.as_mut().unwrap().leader = None;
        assert_eq!(super::leader(&other), None);
    }

    #[test]
    fn how_many_voters_may_stop_is_counted_from_those_that_are_heard() {
        let line = |voter, told_ms_ago| Line { voter, told_ms_ago, ..Line::default() };
        let (here, silent, learner) = (line(true, Some(20)), line(true, Some(5_000)), line(false, Some(1)));
        let spare =
            |lines: &[&Line]| spare_voters(&lines.iter().map(|line| (*line).clone()).collect::<Vec<_>>());
        assert_eq!(spare(&[&here, &here, &here, &learner]), Some(1));
        assert_eq!(spare(&[&here, &here, &silent, &learner]), Some(0), "a learner does not vote");
        assert_eq!(spare(&[&here, &silent, &silent]), None);
        assert_eq!(spare(&[&here]), Some(0));
    }

    #[test]
    fn a_node_that_belongs_to_nothing_yet_says_so() {
        let status = status("n9", &NodeStatus::default());
        assert_eq!((status.cluster, status.leader, status.members.len()), (None, None, 0));
    }
}
