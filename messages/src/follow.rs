//! The conversation of a node that follows a chain: what was found outside goes to the syncer.
//!
//! The DA retriever and the peer-to-peer side offer headers and data as they find them, in any
//! order, twice, or wrong. The syncer alone decides what enters the store.

use std::fmt;
use std::sync::Arc;

use actix::Message;

use crate::chain::{Data, SignedHeader};
use crate::types::{DaHeight, Height};
use crate::wire::validate::{Invalid, Payload};

/// Where a piece came from: who is to blame when it is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It lies on DA at this height.
    Da(DaHeight),
    /// This peer gave it.
    Peer(Arc<str>),
}

impl Origin {
    /// Where on DA it is.
    #[must_use]
    pub const fn da(&self) -> Option<DaHeight> {
        match self {
            Self::Da(height) => Some(*height),
            Self::Peer(_) => None,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Da(height) => write!(f, "DA height {height}"),
            Self::Peer(peer) => write!(f, "peer {peer}"),
        }
    }
}

/// One half of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A signed header; nothing of it is checked yet.
    Header(Arc<SignedHeader>),
    /// A header that is well-formed and bears its signer's signature in the current encoding, as
    /// [`CheckHeaders`] has found. Whether that is the chain's proposer is not checked yet.
    Checked(Arc<SignedHeader>),
    /// A block's data, with metadata. From DA, its signature is the proposer's.
    Data(Arc<Data>),
}

/// A piece and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The piece.
    pub piece: Piece,
    /// Where it came from.
    pub origin: Origin,
}

/// How far DA has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DaRead {
    /// Everything below was read and offered, this offer included.
    pub next: DaHeight,
    /// The newest DA block known.
    pub head: DaHeight,
    /// Above this height headers without an envelope are not the proposer's; `None`: no envelope of
    /// the proposer was seen.
    pub strict_from: Option<DaHeight>,
}

/// Check headers as far as that takes nothing but themselves: form, time and signature.
///
/// The gatherer asks the checker, which has a thread of its own, so that what costs most goes on
/// beside storing and executing. Replies with one verdict for each, in order: what the signature is
/// over, or what is wrong.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Vec<Result<Payload, Invalid>>")]
pub struct CheckHeaders(pub Vec<Arc<SignedHeader>>);

/// Offer pieces to the syncer.
///
/// Replies when they are judged and, while it holds as much as it may and has work to do, when
/// there is room again. After a timeout offer the same again.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Taken")]
pub struct Offer {
    /// In the order in which they were found.
    pub candidates: Vec<Candidate>,
    /// How far DA has been read with this; `None` when that is not from reading in order.
    pub read: Option<DaRead>,
}

/// What became of offered pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// One for each, in order.
    pub judged: Vec<Judged>,
    /// Go on reading DA here instead of at `DaRead::next`: something that is needed now did not
    /// find room when it was read.
    pub reread: Option<DaHeight>,
    /// The highest header of the proposer that was seen, from wherever it came.
    pub highest: Height,
}

/// What became of one piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judged {
    /// It is kept until its block can enter the store.
    New,
    /// It is kept, and only the header of its height, which is not here, says whether it is right.
    Unproven,
    /// It is here already.
    Known,
    /// It may be good, but there is no room for it now, or it cannot be judged yet.
    Ignored,
    /// Nobody honest makes it; why.
    Invalid(String),
    /// It contradicts another header of the same proposer; both are kept as evidence.
    Fork,
}

/// Blocks may be on DA at this height: read it before its turn. A hint, from the header or data of
/// a peer; wrong ones cost one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct DaHint(pub DaHeight);

/// The retriever reads DA, or cannot. Told to the observer when it changes.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct RetrievalChanged {
    /// `None` works; otherwise what the DA layer says.
    pub trouble: Option<String>,
}

/// Two headers of the proposer cannot both be in one chain. The syncer tells the observer; both
/// are in the store then.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct ForkFound {
    /// The height at which the chain forks.
    pub height: Height,
    /// Hashes and places of both.
    pub reason: String,
}

/// The proposer has left out what was forced through DA. The syncer tells the observer; no further
/// block is taken.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct ForcedLeftOut {
    /// What, and what to do.
    pub reason: String,
}

/// What keeps a sequencer that catches up from producing. Told to the observer at every look.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct ProductionWaits {
    /// Every reason.
    pub reasons: Vec<String>,
}

/// Ask the syncer how following goes.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "SyncView")]
pub struct GetSyncView;

/// How following goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncView {
    /// The highest header of the proposer that was seen.
    pub highest: Height,
    /// Headers and data that wait for their turn or their other half.
    pub pending: usize,
    /// Their bytes.
    pub pending_bytes: usize,
    /// How far DA has been read; `None` where DA is not followed.
    pub read: Option<DaRead>,
    /// What is left when the node catches up.
    pub catch_up: Option<CatchUpView>,
    /// Pairs of headers that cannot both be in one chain.
    pub evidence: usize,
}

/// A node that catches up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CatchUpView {
    /// Blocks known to be missing.
    pub blocks_left: u64,
    /// DA blocks that are not read yet.
    pub da_left: u64,
    /// Blocks in a second lately, in thousandths.
    pub milliblocks_per_second: u64,
    /// How long the rest takes at that rate; `None`: not known yet.
    pub seconds_left: Option<u64>,
}

/// Ask the observer how a following node is.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "ObserverView")]
pub struct GetObserverView;

/// How a following node is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObserverView {
    /// The last executed height.
    pub executed: Height,
    /// What is wrong; empty is healthy.
    pub reasons: Vec<String>,
    /// What the DA layer says instead of answering; following from peers goes on.
    pub da_trouble: Option<String>,
    /// Where the chain forks, when it does.
    pub fork: Option<String>,
    /// What the proposer has left out though it was forced through DA, when it did.
    pub left_out: Option<String>,
    /// What keeps a sequencer that catches up from producing.
    pub waits: Vec<String>,
}

/// A following node in one answer, part of `NodeStatus`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FollowView {
    /// What it follows: `full`, `da`, `p2p`, `light`, or `catch-up` before it produces.
    pub mode: &'static str,
    /// How it is; `None`: the observer does not answer.
    pub observer: Option<ObserverView>,
    /// How following goes; `None`: the syncer does not answer.
    pub sync: Option<SyncView>,
    /// Most blocks that a node that is ready lags behind; zero: none.
    pub max_behind: u64,
    /// Most seconds since the last block of a node that is ready; zero: not looked at.
    pub readiness_window: u64,
}
