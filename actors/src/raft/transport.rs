//! The seam to the cluster transport: bytes to a member and back.
//!
//! What is in the bytes is this actor's matter (`wire`), how they get there is the transport's:
//! connections, TLS, handshake, frames. `node/src/cluster` has the one over TCP; a simulation
//! runs the same one over a simulated network.

use std::sync::Arc;
use std::time::Duration;

use baton_messages::types::{Member, MemberId};
use bytes::Bytes;
use futures::future::BoxFuture;
use uuid::Uuid;

/// What a call is for. Each class has a connection of its own to each member: a heartbeat never
/// waits behind a block, and a block never behind history (hazard S15).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Heartbeats, votes, transfers, conditions: small, at once.
    Urgent,
    /// Log entries.
    Append,
    /// Snapshots, history, forwarded transactions, questions of operators.
    Bulk,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Urgent, Self::Append, Self::Bulk];

    /// The word in logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Urgent => "urgent",
            Self::Append => "append",
            Self::Bulk => "bulk",
        }
    }
}

/// Who is at the other end, as the handshake showed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The id that follows from its storage.
    pub id: MemberId,
    /// Its name; with TLS the name in its certificate.
    pub name: String,
    /// The UUID of its storage.
    pub storage: Uuid,
    /// The life of its storage.
    pub boot: u64,
    /// The cluster it belongs to; `None` when it belongs to none yet.
    pub cluster: Option<Uuid>,
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Nobody is there, or the connection broke. The call may have been carried out.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// No answer in time. The call may have been carried out.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The handshake failed: another cluster, chain, version, life or certificate.
    #[error("refused in the handshake: {0}")]
    Refused(String),
    /// The other end has read the call and will not answer it.
    #[error("refused: {0}")]
    Denied(String),
    /// A frame over the limit of its class. Nothing was sent.
    #[error("{bytes} bytes are over the limit of {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

/// Answers what other members ask. An error becomes [`CallError::Denied`] at the caller.
pub type Serve = Arc<dyn Fn(Caller, Class, Bytes) -> BoxFuture<'static, Result<Bytes, String>> + Send + Sync>;

/// The name under which the membership has a storage; `None` when it is not in it.
pub type Names = Arc<dyn Fn(Uuid) -> Option<String> + Send + Sync>;

/// A way to other members, and of them to here. One per process.
pub trait Transport: Send + Sync + 'static {
    /// Calls a member and waits for its answer. Connects when there is no connection. The storage
    /// UUID at the other end must be the member's; otherwise the call is refused. `to.storage` is
    /// nil for a node that is only known by its address (joining, bootstrap): then anybody of the
    /// right chain answers.
    fn call(
        &self,
        to: Member,
        class: Class,
        request: Bytes,
        within: Duration,
    ) -> BoxFuture<'static, Result<(Caller, Bytes), CallError>>;

    /// From now on calls of others are answered by this; `None`: by nobody.
    fn serve(&self, serve: Option<Serve>);

    /// From now on a storage that the membership has under another name than its node says is
    /// turned away: a copy of a member's disk under a name of its own.
    fn know(&self, _: Option<Names>) {}

    /// This node belongs to this cluster now; shown in handshakes. Others are refused from now on.
    fn belongs_to(&self, cluster: Uuid);

    /// The largest request and answer of a class, bytes.
    fn limit(&self, class: Class) -> usize;
}

/// A transport that reaches nobody: for a sole voter without an address.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nobody;

impl Transport for Nobody {
    fn call(
        &self,
        to: Member,
        _: Class,
        _: Bytes,
        _: Duration,
    ) -> BoxFuture<'static, Result<(Caller, Bytes), CallError>> {
        let reason = format!("this node has no cluster address, {} cannot be reached", to.name);
        Box::pin(std::future::ready(Err(CallError::Unreachable(reason))))
    }

    fn serve(&self, _: Option<Serve>) {}

    fn belongs_to(&self, _: Uuid) {}

    fn limit(&self, _: Class) -> usize {
        usize::MAX
    }
}
