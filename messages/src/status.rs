//! The node's condition in one answer, for RPC, health and the live table.

use actix::Message;

use crate::cluster::ClusterView;
use crate::command::DaProgress;
use crate::follow::FollowView;
use crate::raft::RaftView;
use crate::sequencer::QueueView;
use crate::signer::SignerView;
use crate::supervisor::SupervisorView;
use crate::types::Tip;

/// Ask for the node's condition. The node's status board answers, from live answers of the
/// actors; a part whose actor does not answer in time is `None`.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "NodeStatus")]
pub struct GetNodeStatus;

/// The node was just changed by a command: who asks for its condition from now on gets an answer
/// begun after this, not one shared with those who asked before.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct NodeChanged;

/// The node's condition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeStatus {
    /// The last applied block.
    pub tip: Tip,
    /// DA progress as applied.
    pub da: DaProgress,
    /// What is wrong with the store; tip and DA progress are as last known then.
    pub store_trouble: Option<String>,
    /// Raft.
    pub raft: Option<RaftView>,
    /// The supervisor.
    pub supervisor: Option<SupervisorView>,
    /// The queue.
    pub queue: Option<QueueView>,
    /// The signer.
    pub signer: Option<SignerView>,
    /// The cluster as Raft sees it.
    pub cluster: Option<ClusterView>,
    /// What a node that follows says; a member of a cluster has none.
    pub follow: Option<FollowView>,
}
