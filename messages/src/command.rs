//! What the cluster agrees on: the entries of the Raft log and their verdicts.
//!
//! The log is the block log. `apply` is a compare-and-set on the tip and its verdict is the
//! reply (P1, hazard E1). A verdict depends on the log alone (P5).

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::chain::Block;
use crate::types::{DaHeight, Hash, Height, Term, Tip};

/// Which of the two kinds of blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// Header envelopes.
    Header,
    /// Signed data.
    Data,
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "header",
            Self::Data => "data",
        })
    }
}

/// The proposer's signature over a committed header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderSignature {
    /// The header's height.
    pub height: Height,
    /// The header's hash.
    pub hash: Hash,
    /// Ed25519, 64 bytes.
    pub signature: Bytes,
}

/// How far forced inclusion has been consumed (hazards E7, I8). Positions are ordered.
///
/// Everything on DA below the height was taken; zero is the beginning of the chain, whatever
/// height the genesis says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ForcedPosition {
    /// The first DA height of the epoch being consumed.
    pub da_height: DaHeight,
    /// Transactions of it already taken.
    pub tx_index: u64,
}

/// A block to agree on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockEntry {
    /// The term of the grant it was built under; apply refuses it in any other.
    pub term: Term,
    /// The block. Its body is written once, by the append (P4).
    pub block: Arc<Block>,
    /// The signature of the block before, when it is known.
    pub tail: Option<HeaderSignature>,
    /// The forced-inclusion position after this block.
    pub forced: ForcedPosition,
}

/// A contiguous range of heights whose blobs the DA layer has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitted {
    /// Headers or data.
    pub lane: Lane,
    /// First height. Empty blocks have no data blob; a data range spans them.
    pub from: Height,
    /// Last height.
    pub to: Height,
    /// Where the blobs are.
    pub da_height: DaHeight,
}

/// The newest version of log entries that this version of baton can apply.
///
/// A new kind of entry, or a new meaning of an old one, gets the next number and is proposed only
/// once [`Command::Activate`] of that number is applied (hazard A25).
pub const COMMAND_VERSION: u8 = 3;

/// The version in force on every chain from its beginning.
pub const FIRST_COMMAND_VERSION: u8 = 1;

/// From this version on the log may hold [`Command::Pause`].
pub const PAUSE_VERSION: u8 = 2;

/// From this version on blocks move the position of forced inclusion, and none moves it back.
pub const FORCED_VERSION: u8 = 3;

/// Most bytes of the reason in [`Command::Pause`].
pub const MAX_PAUSE_REASON: usize = 256;

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// A block.
    Block(BlockEntry),
    /// A signature on its own, when no block follows soon.
    Signature(HeaderSignature),
    /// The DA layer took a range.
    Submitted(Submitted),
    /// Everything up to this height is on DA, header and data; it may be made final.
    Included(Height),
    /// From here on entries up to this version may come: every voter can apply them. Whoever
    /// cannot stops here and says which version is needed.
    Activate(u8),
    /// An operator stops production on whoever leads, and says why; `None` lets it go on. From
    /// version 2 on.
    Pause(Option<String>),
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Block(entry) => write!(f, "block {} of term {}", entry.block.height(), entry.term),
            Self::Signature(signature) => write!(f, "signature of {}", signature.height),
            Self::Submitted(range) => {
                write!(f, "{} {}..={} on DA at {}", range.lane, range.from, range.to, range.da_height)
            }
            Self::Included(height) => write!(f, "included {height}"),
            Self::Activate(version) => write!(f, "entries of version {version} from here on"),
            Self::Pause(Some(reason)) => write!(f, "pause: {reason}"),
            Self::Pause(None) => f.write_str("resume"),
        }
    }
}

/// Why apply refused an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The block does not stand on the tip.
    Height,
    /// The parent's hash is another.
    Parent,
    /// The time does not rise strictly.
    Time,
    /// The entry's term is not the term of its grant.
    Term,
    /// The block belongs to another chain.
    Chain,
    /// The block contradicts itself: its data are not what its header says.
    Data,
    /// A signature, range, inclusion or position of forced inclusion that does not continue what
    /// is recorded.
    OutOfOrder,
}

/// What apply decided. The same on every member, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The block stands at its height: just applied, or it stood there already.
    Committed(Tip),
    /// The block does not; the tip says what does.
    Refused(Refusal, Tip),
    /// A record other than a block was taken, or was known.
    Recorded,
    /// An entry of Raft's own.
    Internal,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Committed(tip) => write!(f, "committed {tip}"),
            Self::Refused(refusal, tip) => write!(f, "refused ({refusal:?}), the tip is {tip}"),
            Self::Recorded => f.write_str("recorded"),
            Self::Internal => f.write_str("internal"),
        }
    }
}

/// What the chain agrees on besides blocks; part of the applied state and of snapshots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaProgress {
    /// Headers up to this height are on DA.
    pub headers: Height,
    /// Data up to this height is on DA, empty blocks counted as they come.
    pub data: Height,
    /// Up to here both are, and it was recorded: may be made final.
    pub included: Height,
    /// The highest DA height of any recorded range.
    pub da_height: DaHeight,
}
