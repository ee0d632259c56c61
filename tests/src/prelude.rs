//! Everything that a test of a swapped actor names.

pub use std::time::Duration;

pub use actix::{Actor, Context, Handler, Recipient};
pub use baton::wiring::{
    Between, DaPorts, EnginePorts, RaftPorts, SequencerPorts, SignerPorts, SupervisorPorts, SyncerPorts,
    Wiring, finishing_producer, producer,
};
pub use baton_messages::cluster::{ForwardError, ForwardedTxs};
pub use baton_messages::da::{DaError, DaHead, GetBlobs, GetDaHead, SubmitBlobs};
pub use baton_messages::engine::{
    EngineError, EnginePosition, ExecuteBlock, Executed, FilterStatus, FilterTxs, GetPosition, InitChain,
    PendingTxs, Rollback, SetFinal,
};
pub use baton_messages::raft::{
    Applied, GetRaftView, LeadershipChanged, ProposeBlock, ProposeError, RaftView, Record, Settle,
    TermApplied,
};
pub use baton_messages::sequencer::{
    AwaitError, AwaitTx, AwaitTxs, Batch, DropTxs, GetQueueView, NextBatch, PostTxs, QueueView, SubmitError,
    SubmitTxs,
};
pub use baton_messages::signer::{
    CheckGuard, GetSignerView, NoteSigned, SignData, SignEnvelope, SignError, SignHeader, SignerView,
};
pub use baton_messages::supervisor::DiskHealthChanged;
pub use baton_messages::types::{DaHeight, Height, StateRoot};
pub use bytes::Bytes;

pub use crate::{Cluster, ClusterPlan, Machine, Node, Plan, Power, cluster_run, probe, sim_run, tx};

/// A producer that does nothing.
#[derive(Clone, Copy, Debug)]
pub struct Idle;

impl Actor for Idle {
    type Context = Context<Self>;
}
