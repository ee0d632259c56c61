//! The conversation with the data availability layer.
//!
//! The DA submitter (and later the retriever) ask the adapter; the adapter speaks Celestia's
//! JSON-RPC (wire section 5).

use std::fmt;
use std::time::Duration;

use actix::Message;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

pub use crate::commitment::blob_commitment;
use crate::types::{DaHeight, Grant, Hash, Height, Timestamp};

/// A version-0 Celestia namespace, 29 bytes (wire section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(pub [u8; 29]);

impl Namespace {
    /// The namespace that a configured name stands for. The name is always hashed, also when it
    /// looks like hex (wire section 4.1).
    #[must_use]
    pub fn of(name: &str) -> Self {
        let mut bytes = [0; 29];
        bytes[19..].copy_from_slice(&Hash::of(name.as_bytes()).0[..10]);
        Self(bytes)
    }

    /// Standard base64, as the DA layer's JSON has it.
    #[must_use]
    pub fn to_base64(self) -> String {
        STANDARD.encode(self.0)
    }

    /// Reads what `to_base64` writes; `None` when it is not base64 of 29 bytes.
    #[must_use]
    pub fn from_base64(text: &str) -> Option<Self> {
        STANDARD.decode(text).ok()?.try_into().ok().map(Self)
    }
}

impl fmt::Display for Namespace {
    /// `0x` and 58 lower-case hex digits, as ev-node prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{}", hex::encode(self.0))
    }
}

/// A blob as it lies on DA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Where.
    pub namespace: Namespace,
    /// What. Never empty.
    pub data: Bytes,
}

impl Blob {
    /// The blob's share commitment (wire section 5.4).
    #[must_use]
    pub fn commitment(&self) -> Hash {
        blob_commitment(&self.namespace, &self.data)
    }
}

/// Put blobs on DA, all or none. Replies when they are in a DA block.
///
/// After a timeout they may be there: look before submitting again (hazard D4).
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<DaHeight, DaError>")]
pub struct SubmitBlobs {
    /// The term in which the caller may produce; older ones are refused by the adapter.
    pub grant: Grant,
    /// The blobs; one namespace or several.
    pub blobs: Vec<Blob>,
}

/// All blobs of some namespaces at a DA height, in their order. Empty when there are none.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Vec<Blob>, DaError>")]
pub struct GetBlobs {
    /// The DA height.
    pub height: DaHeight,
    /// The namespaces.
    pub namespaces: Vec<Namespace>,
}

/// The newest DA block.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<DaHead, DaError>")]
pub struct GetDaHead;

/// Wait for the DA layer to announce a block with or without blobs of a namespace.
///
/// Replies with its height and time. An older block may be announced than was asked about: look at
/// the height. `Other` when this DA layer announces nothing: ask for the head from time to time.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<DaHead, DaError>")]
pub struct AwaitDaBlock {
    /// The namespace.
    pub namespace: Namespace,
    /// How long to wait.
    pub within: Duration,
}

/// A DA block's height and time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DaHead {
    /// The height.
    pub height: DaHeight,
    /// The time.
    pub time: Timestamp,
}

/// What the DA layer answered instead (wire section 5.3).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DaError {
    /// A blob or the whole submission is over the limit. Split it.
    #[error("too big for the DA layer: {0}")]
    TooBig(String),
    /// The DA layer's pool has it already; wait for its inclusion.
    #[error("already in the DA layer's pool: {0}")]
    AlreadyInMempool(String),
    /// It did not get into a block in time. It still may.
    #[error("not included in time: {0}")]
    NotIncluded(String),
    /// The account's sequence is off. Try again.
    #[error("wrong account sequence: {0}")]
    AccountSequence(String),
    /// The height does not exist yet.
    #[error("the DA height is from the future: {0}")]
    FromTheFuture(String),
    /// Not reachable, or no answer in time.
    #[error("the DA layer is not available: {0}")]
    Unavailable(String),
    /// The grant is of a term that is over.
    #[error("the grant of term {0} is over")]
    StaleGrant(u64),
    /// Something else; the DA layer's words.
    #[error("the DA layer refused: {0}")]
    Other(String),
}

impl DaError {
    /// The value of the `reason` label of the failure metric; ev-node's words where it has one.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::TooBig(_) => "too_big",
            Self::AlreadyInMempool(_) => "already_in_mempool",
            Self::NotIncluded(_) => "not_included_in_block",
            Self::AccountSequence(_) => "account_sequence",
            Self::FromTheFuture(_) => "from_the_future",
            Self::Unavailable(_) => "timeout",
            Self::StaleGrant(_) => "stale_grant",
            Self::Other(_) => "unknown",
        }
    }
}

/// The DA submitter tells the supervisor how it stands; health and metrics read it there.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct DaStateChanged {
    /// `None` is fine; otherwise what the DA layer says.
    pub trouble: Option<String>,
    /// The last height whose header and data are on DA.
    pub included: Height,
}
