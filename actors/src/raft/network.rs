//! The seam where the cluster transport goes: what openraft says to other members.
//!
//! A sole voter has nobody to talk to. Until members of other processes can be reached, every
//! call is answered with "unreachable", which is how Raft sees a peer that is down.

use baton_messages::types::{Member, MemberId};
use baton_storage::StateMachine;
use baton_storage::raft_types::{TypeConfig, Vote};
use openraft::alias::SnapshotOf;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::storage::RaftStateMachine;

type SnapshotData = <StateMachine as RaftStateMachine<TypeConfig>>::SnapshotData;

/// A transport that reaches nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nobody;

/// The other end of a line that is not there.
#[derive(Clone, Copy, Debug)]
pub struct Unreached(MemberId);

/// There is no transport to a member.
#[derive(Debug, thiserror::Error)]
#[error("no transport to member {0}: this node runs a cluster of one voter")]
struct NoTransport(MemberId);

impl Unreached {
    fn unreachable(self) -> Unreachable<TypeConfig> {
        Unreachable::new(&NoTransport(self.0))
    }
}

impl RaftNetworkFactory<TypeConfig> for Nobody {
    type Network = Unreached;

    async fn new_client(&mut self, target: MemberId, _: &Member) -> Unreached {
        Unreached(target)
    }
}

impl RaftNetworkV2<TypeConfig> for Unreached {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        _: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        Err(RPCError::Unreachable(self.unreachable()))
    }

    async fn vote(
        &mut self,
        _: VoteRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        Err(RPCError::Unreachable(self.unreachable()))
    }

    /// Without this, openraft takes every pre-vote as granted.
    async fn pre_vote(
        &mut self,
        _: VoteRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        Err(RPCError::Unreachable(self.unreachable()))
    }

    async fn full_snapshot(
        &mut self,
        _: Vote,
        _: SnapshotOf<TypeConfig, Self::SnapshotData>,
        _: impl Future<Output = ReplicationClosed> + openraft::OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        Err(StreamingError::Unreachable(self.unreachable()))
    }
}
