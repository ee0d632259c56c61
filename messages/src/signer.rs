//! The conversation with the signer: the key and its double-sign guard (P2).
//!
//! The signer takes only things it can check: a committed header, an envelope around a header
//! it signed, data of a block. It never signs bytes it was merely given.

use std::sync::Arc;

use actix::Message;
use bytes::Bytes;

use crate::chain::{Block, SignedHeader, Signer};
use crate::types::{Grant, Hash, Height};

/// Sign the header of a committed block.
///
/// Replies after the guard {chain, height, hash} is on disk. The same header again gives the
/// same signature; another header at a guarded height is refused, always.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Bytes, SignError>")]
pub struct SignHeader {
    /// The term in which the caller may produce.
    pub grant: Grant,
    /// The committed block.
    pub block: Arc<Block>,
}

/// Sign the DA envelope around a signed header. The header's own signature is checked first.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Bytes, SignError>")]
pub struct SignEnvelope {
    /// The signed header.
    pub signed: Arc<SignedHeader>,
}

/// Sign a block's data for DA. The block must not be above the guard.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Bytes, SignError>")]
pub struct SignData {
    /// The block.
    pub block: Arc<Block>,
}

/// Take note of a header that this identity has signed elsewhere.
///
/// A member that follows tells its guard which signatures are in the log, so that it can sign
/// the tail when it leads. The signature is checked, it is the proof. Only the newest matters:
/// the heights between may be left out. When it replies the guard is on disk.
///
/// Not where this member is the only voter: there all signatures are its own, and a guard that is
/// behind them is an old copy. Where others vote that is the normal case, and this ends a refusal
/// for it (`docs/adr/0007-double-sign-guard.md`).
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), SignError>")]
pub struct NoteSigned {
    /// The committed header with the signature from the log.
    pub signed: Arc<SignedHeader>,
}

/// Compare the guard with what this node knows to be committed (P2).
///
/// Asked once everything committed is applied, and again after a refusal. Until it is asked,
/// the comparison made when the signer was opened holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Message)]
#[rtype(result = "Result<(), SignError>")]
pub struct CheckGuard {
    /// The highest block this node holds, zero before the first.
    pub last_block: Height,
    /// The highest block whose signature is in the log. Where others vote, the guard is told that
    /// signature before ([`NoteSigned`]).
    pub last_signed: Option<(Height, Hash)>,
}

/// Ask who signs.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "SignerView")]
pub struct GetSignerView;

/// Who signs, and how far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignerView {
    /// Address and public key.
    pub signer: Signer,
    /// The last guarded height and hash.
    pub guarded: Option<(Height, Hash)>,
    /// Why nothing is signed until an operator has resolved it; `None` when all is well.
    pub refusal: Option<String>,
}

/// Why there is no signature.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// Another header was guarded at this height. Never sign; a person is needed.
    #[error("the guard holds {guarded} at height {height}; {asked} is not signed")]
    DoubleSign {
        /// The height.
        height: Height,
        /// What the guard holds.
        guarded: Hash,
        /// What was asked for.
        asked: Hash,
    },
    /// The height is below the guard.
    #[error("height {asked} is below the guard's height {guarded}")]
    BelowGuard {
        /// What was asked for.
        asked: Height,
        /// Where the guard is.
        guarded: Height,
    },
    /// The height is not the one after the guard. Say the heights between first.
    #[error("height {asked} does not follow the guard's height {guarded}")]
    Gap {
        /// What was asked for.
        asked: Height,
        /// Where the guard is.
        guarded: Height,
    },
    /// What is asked for is above the guard, which has not followed the chain so far yet. Not a
    /// refusal: ask again when the guard was compared with the chain in this term.
    #[error("height {asked} is above the guard, which has followed the chain to {guarded}")]
    NotFollowed {
        /// What was asked for.
        asked: Height,
        /// Where the guard is.
        guarded: Height,
    },
    /// The grant is of a term that is over.
    #[error("the grant of term {asked} is over; the guard has seen term {seen}")]
    StaleGrant {
        /// The caller's term.
        asked: u64,
        /// The newest term seen.
        seen: u64,
    },
    /// The guard could not be written: nothing was signed.
    #[error("the guard cannot be written: {0}")]
    Guard(String),
    /// The guard is missing, damaged, older than the log or ahead of it. Nothing is signed until
    /// an operator has resolved it.
    #[error("the guard refuses: {0}")]
    Refused(String),
    /// The guard holds another header than the log, or is of another chain: no waiting and no
    /// replay makes that right. Never sign; a person is needed.
    #[error("the guard contradicts the chain: {0}")]
    Contradiction(String),
    /// The thing to sign is not what it should be.
    #[error("not signed: {0}")]
    Invalid(String),
    /// The key or its service fails.
    #[error("the signer fails: {0}")]
    Key(String),
}
