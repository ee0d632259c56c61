//! Why a header, data or blob is not accepted.

use std::time::Duration;

use super::keys::KeyError;
use crate::types::{Hash, Height, Timestamp};

/// Why a header, data or blob is not accepted. It is dropped and whoever sent it is scored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Nobody claims the block.
    #[error("the proposer address is empty")]
    NoProposer,
    /// The time is zero, or 2^63 ns and beyond.
    #[error("the time {0} is out of range")]
    Time(Timestamp),
    /// The time is too far ahead of this node's clock.
    #[error("the time {time} is more than {limit:?} ahead of the clock, {now}")]
    FromTheFuture {
        /// The time.
        time: Timestamp,
        /// This node's clock.
        now: Timestamp,
        /// How far it may be ahead.
        limit: Duration,
    },
    /// It is not signed.
    #[error("the signature is empty")]
    NoSignature,
    /// The key or the signature is wrong.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The address is not the key's.
    #[error("the signer's address {address} is not of its key, {expected}")]
    Address {
        /// What the signer says, in hex.
        address: String,
        /// The SHA-256 of the raw key.
        expected: Hash,
    },
    /// The proposer is another than the signer.
    #[error("the proposer {proposer} is not the signer {signer}")]
    Proposer {
        /// The header's proposer address, in hex.
        proposer: String,
        /// The signer's address, in hex.
        signer: String,
    },
    /// Data must say which header it belongs to.
    #[error("the data has no metadata")]
    NoMetadata,
    /// The chain id is empty.
    #[error("the chain id is empty")]
    NoChain,
    /// The height is zero.
    #[error("the height is zero")]
    NoHeight,
    /// There is nothing in it.
    #[error("signed data without transactions")]
    NoTransactions,
    /// Data says something else than its header.
    #[error("the data's {field} is not the header's")]
    Metadata {
        /// Which field.
        field: &'static str,
    },
    /// The header commits to other transactions.
    #[error("the header commits to the transactions {header}, these are {data}")]
    Commitment {
        /// `Header.data_hash`, in hex.
        header: String,
        /// The commitment of the data.
        data: Hash,
    },
    /// It belongs to another chain.
    #[error("it belongs to chain {found}, not to {expected}")]
    Chain {
        /// What it says.
        found: String,
        /// This chain.
        expected: String,
    },
    /// It does not come after what is known.
    #[error("height {found} does not come after {known}")]
    Known {
        /// Its height.
        found: Height,
        /// The newest known height.
        known: Height,
    },
    /// Its time is before that of what is known.
    #[error("the time {found} is before {known}")]
    Backwards {
        /// Its time.
        found: Timestamp,
        /// The time known.
        known: Timestamp,
    },
    /// The one before is another.
    #[error("it links to {found}, the one before is {expected}")]
    Link {
        /// Its link, in hex.
        found: String,
        /// The hash of the one before.
        expected: Hash,
    },
    /// Signed headers without an envelope are not accepted any more (wire section 4.4).
    #[error("the header blob is not signed as an envelope")]
    NoEnvelope,
}
