//! What makes headers, data and blobs acceptable (wire sections 3, 4.4, 6.3).
//!
//! Stricter than ev-node in two ways: a first block must stand at the initial height, and a
//! wrong link is never tolerated (ev-node steps over one per process).

use std::time::Duration;

use bytes::Bytes;

use super::keys::KeyError;
use crate::chain::{
    Block, DaHeaderEnvelope, Data, Header, Metadata, SignedData, SignedHeader, Signer, State,
};
use crate::genesis::Genesis;
use crate::types::{Hash, Height, StateRoot, Timestamp};

/// How far ahead of the clock a header or data may be when it is validated.
pub const MAX_DRIFT: Duration = Duration::from_secs(60);
/// How far ahead of the clock a header or data from gossip or exchange may be.
pub const MAX_P2P_DRIFT: Duration = Duration::from_secs(10);
/// Times from here on are negative to ev-node and refused (wire section 10).
const TIME_LIMIT: u64 = 1 << 63;

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

/// Why a header is not the next block of a state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotNext {
    /// Another proposer's turn.
    #[error("the proposer is {found}, expected {expected}")]
    Proposer {
        /// The header's, in hex.
        found: String,
        /// The state's, in hex.
        expected: String,
    },
    /// Another chain's.
    #[error("the header belongs to chain {found}, not to {expected}")]
    Chain {
        /// The header's.
        found: String,
        /// The state's.
        expected: String,
    },
    /// Not the height after the last.
    #[error("the height is {found}, expected {expected}")]
    Height {
        /// The header's.
        found: Height,
        /// The one after the last.
        expected: Height,
    },
    /// Before the last block.
    #[error("the time {found} is before the last block's, {last}")]
    Time {
        /// The header's.
        found: Timestamp,
        /// The last block's.
        last: Timestamp,
    },
    /// The parent is another: two chains exist. A person is needed.
    #[error("the header links to {found}, the last header is {expected}")]
    Parent {
        /// The header's link, in hex.
        found: String,
        /// The last header's hash, in hex.
        expected: String,
    },
    /// The state root before the block is another. A person is needed (P5).
    #[error("the header says state root {found}, here it is {expected}")]
    StateRoot {
        /// The header's, in hex.
        found: String,
        /// The state's, in hex.
        expected: String,
    },
}

impl NotNext {
    /// Whether the chain or this node's state is broken, rather than the block to be dropped.
    #[must_use]
    pub const fn is_integrity(&self) -> bool {
        matches!(self, Self::Parent { .. } | Self::StateRoot { .. })
    }
}

/// How a header blob was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnvelopeKind {
    /// With a verified envelope signature. The first one turns strict mode on.
    Signed,
    /// Without: a blob of an older version.
    Plain,
}

fn check_time(time: Timestamp, now: Timestamp, limit: Duration) -> Result<(), Invalid> {
    if time.0 == 0 || time.0 >= TIME_LIMIT {
        return Err(Invalid::Time(time));
    }
    if time > now.plus(limit) {
        return Err(Invalid::FromTheFuture { time, now, limit });
    }
    Ok(())
}

impl Signer {
    /// Checks that the address is the key's.
    fn check_address(&self) -> Result<(), Invalid> {
        let expected = Hash::of(&self.raw_key()?);
        if self.address != expected.0[..] {
            return Err(Invalid::Address { address: hex::encode(&self.address), expected });
        }
        Ok(())
    }
}

impl Header {
    /// Checks what can be checked of a header alone: a proposer and a time that is not too far
    /// ahead (wire section 3, "header basic").
    ///
    /// # Errors
    ///
    /// `NoProposer`, `Time` or `FromTheFuture`.
    pub fn validate(&self, now: Timestamp) -> Result<(), Invalid> {
        if self.proposer_address.is_empty() {
            return Err(Invalid::NoProposer);
        }
        check_time(self.time, now, MAX_DRIFT)
    }

    /// Checks that data belongs to this header (wire section 3, "header vs data").
    ///
    /// # Errors
    ///
    /// `Metadata` or `Commitment`.
    pub fn validate_data(&self, data: &Data) -> Result<(), Invalid> {
        if let Some(metadata) = &data.metadata {
            let fields = [
                ("chain id", metadata.chain_id == self.chain_id),
                ("height", metadata.height == self.height),
                ("time", metadata.time == self.time),
            ];
            for (field, equal) in fields {
                if !equal {
                    return Err(Invalid::Metadata { field });
                }
            }
        }
        let commitment = data.commitment();
        if self.data_hash != commitment.0[..] {
            return Err(Invalid::Commitment { header: hex::encode(&self.data_hash), data: commitment });
        }
        Ok(())
    }

    /// Checks a header from gossip or exchange against the newest known one (wire section 6.3).
    /// Only adjacent headers are checked to be linked.
    ///
    /// # Errors
    ///
    /// `Chain`, `Known`, `Backwards`, `Time`, `FromTheFuture` or `Link`.
    pub fn verify_after(&self, known: &Self, now: Timestamp) -> Result<(), Invalid> {
        let (new, old) = ((self.height, self.time), (known.height, known.time));
        check_follows((&self.chain_id, &known.chain_id), new, old, now)?;
        if self.height == known.height.next() {
            check_link(&self.last_header_hash, known.hash())?;
        }
        Ok(())
    }
}

fn check_follows(
    (found, expected): (&str, &str),
    new: (Height, Timestamp),
    old: (Height, Timestamp),
    now: Timestamp,
) -> Result<(), Invalid> {
    // As in go-header: case makes no difference to the chain.
    if !found.eq_ignore_ascii_case(expected) {
        return Err(Invalid::Chain { found: found.to_owned(), expected: expected.to_owned() });
    }
    if new.0 <= old.0 {
        return Err(Invalid::Known { found: new.0, known: old.0 });
    }
    if new.1 < old.1 {
        return Err(Invalid::Backwards { found: new.1, known: old.1 });
    }
    check_time(new.1, now, MAX_P2P_DRIFT)
}

fn check_link(found: &Bytes, expected: Hash) -> Result<(), Invalid> {
    if found[..] != expected.0 {
        return Err(Invalid::Link { found: hex::encode(found), expected });
    }
    Ok(())
}

impl SignedHeader {
    /// Checks everything that can be checked without the chain's state: the header, the signer
    /// and the signature (wire section 3, "signed header").
    ///
    /// # Errors
    ///
    /// The first rule that is broken.
    pub fn validate(&self, now: Timestamp) -> Result<(), Invalid> {
        self.header.validate(now)?;
        if self.signature.is_empty() {
            return Err(Invalid::NoSignature);
        }
        self.signer.check_address()?;
        if self.header.proposer_address != self.signer.address {
            return Err(Invalid::Proposer {
                proposer: hex::encode(&self.header.proposer_address),
                signer: hex::encode(&self.signer.address),
            });
        }
        self.verify_signature()
    }

    /// Checks the signature over the header's payloads, in the order of wire section 2.5.
    ///
    /// # Errors
    ///
    /// `Key` when none of them verifies.
    pub fn verify_signature(&self) -> Result<(), Invalid> {
        self.verify_signature_with(None)
    }

    /// As `verify_signature`, trying first the payload that an application signs instead of the
    /// header's encoding (wire section 2.5, custom providers).
    ///
    /// # Errors
    ///
    /// `Key` when none of them verifies.
    pub fn verify_signature_with(&self, custom: Option<&[u8]>) -> Result<(), Invalid> {
        let key = self.signer.public_key()?;
        let [wire, legacy] = self.header.signature_payloads();
        let mut outcome = Err(KeyError::Mismatch);
        for payload in custom.into_iter().chain([wire.as_slice(), legacy.as_slice()]) {
            if payload.is_empty() {
                continue;
            }
            outcome = key.verify(payload, &self.signature);
            if outcome != Err(KeyError::Mismatch) {
                break;
            }
        }
        Ok(outcome?)
    }
}

impl DaHeaderEnvelope {
    /// Checks the envelope's signature over the canonical signed header (wire section 4.4).
    ///
    /// The header's own validation comes after it. In strict mode a blob without an envelope
    /// signature is refused; the first `Signed` one turns strict mode on.
    ///
    /// # Errors
    ///
    /// `Key`, `Address` or `NoEnvelope`: the blob is not a header.
    pub fn verify(&self, strict: bool) -> Result<EnvelopeKind, Invalid> {
        if self.envelope_signature.is_empty() {
            return if strict { Err(Invalid::NoEnvelope) } else { Ok(EnvelopeKind::Plain) };
        }
        self.signed.signer.check_address()?;
        self.signed.signer.public_key()?.verify(&self.signed.encode(), &self.envelope_signature)?;
        Ok(EnvelopeKind::Signed)
    }
}

impl Data {
    /// Checks what can be checked of data alone (wire section 3, "data basic").
    ///
    /// # Errors
    ///
    /// `NoMetadata`, `NoChain`, `NoHeight`, `Time` or `FromTheFuture`.
    pub fn validate(&self, now: Timestamp) -> Result<(), Invalid> {
        let metadata = self.metadata()?;
        if metadata.chain_id.is_empty() {
            return Err(Invalid::NoChain);
        }
        if metadata.height == Height(0) {
            return Err(Invalid::NoHeight);
        }
        check_time(metadata.time, now, MAX_DRIFT)
    }

    /// Checks data from gossip or exchange against the newest known one (wire section 6.3). Only
    /// adjacent data is checked to be linked.
    ///
    /// # Errors
    ///
    /// `NoMetadata`, `Chain`, `Known`, `Backwards`, `Time`, `FromTheFuture` or `Link`.
    pub fn verify_after(&self, known: &Self, now: Timestamp) -> Result<(), Invalid> {
        let (new, old) = (self.metadata()?, known.metadata()?);
        check_follows((&new.chain_id, &old.chain_id), (new.height, new.time), (old.height, old.time), now)?;
        if new.height == old.height.next() {
            check_link(&new.last_data_hash, known.hash())?;
        }
        Ok(())
    }

    fn metadata(&self) -> Result<&Metadata, Invalid> {
        self.metadata.as_ref().ok_or(Invalid::NoMetadata)
    }
}

impl SignedData {
    /// Checks a data blob by itself: it has metadata and transactions and a signature by
    /// *whatever key is in it*. Only `Header::validate_data` says whether it belongs to the
    /// chain (wire section 3).
    ///
    /// # Errors
    ///
    /// `NoMetadata`, `NoTransactions`, `NoSignature` or `Key`.
    pub fn verify(&self) -> Result<(), Invalid> {
        self.data.metadata()?;
        if self.data.txs.is_empty() {
            return Err(Invalid::NoTransactions);
        }
        if self.signature.is_empty() {
            return Err(Invalid::NoSignature);
        }
        Ok(self.signer.public_key()?.verify(&self.data.encode(), &self.signature)?)
    }
}

impl State {
    /// The state before the first block; `root` is what the engine's chain initialisation gave.
    #[must_use]
    pub fn before_first(genesis: &Genesis, root: &StateRoot) -> Self {
        Self {
            chain_id: genesis.chain_id.clone(),
            initial_height: genesis.initial_height,
            last_block_height: genesis.initial_height.previous(),
            last_block_time: Some(genesis.start_time),
            da_height: genesis.da_start_height.0,
            app_hash: root.0.clone(),
            next_proposer_address: genesis.proposer_address.clone(),
            ..Self::default()
        }
    }

    /// Checks that a header is the next block's (wire section 3, "against current state").
    ///
    /// # Errors
    ///
    /// The first rule that is broken; `NotNext::is_integrity` says what that means.
    pub fn validate_next(&self, header: &Header) -> Result<(), NotNext> {
        if !self.next_proposer_address.is_empty() && header.proposer_address != self.next_proposer_address {
            return Err(NotNext::Proposer {
                found: hex::encode(&header.proposer_address),
                expected: hex::encode(&self.next_proposer_address),
            });
        }
        if header.chain_id != self.chain_id {
            return Err(NotNext::Chain { found: header.chain_id.clone(), expected: self.chain_id.clone() });
        }
        let first = self.last_header_hash.is_empty();
        let expected = if first { self.initial_height } else { self.last_block_height.next() };
        if header.height != expected {
            return Err(NotNext::Height { found: header.height, expected });
        }
        if first {
            return Ok(());
        }
        if let Some(last) = self.last_block_time.filter(|last| header.time < *last) {
            return Err(NotNext::Time { found: header.time, last });
        }
        if header.last_header_hash != self.last_header_hash {
            return Err(NotNext::Parent {
                found: hex::encode(&header.last_header_hash),
                expected: hex::encode(&self.last_header_hash),
            });
        }
        if header.app_hash != self.app_hash {
            return Err(NotNext::StateRoot {
                found: hex::encode(&header.app_hash),
                expected: hex::encode(&self.app_hash),
            });
        }
        Ok(())
    }

    /// The state after a block: `root` and `next_proposer` are the engine's; an empty proposer
    /// is no change (wire section 3, "state after block"). The DA height stays.
    #[must_use]
    pub fn after(&self, block: &Block, root: &StateRoot, next_proposer: &Bytes) -> Self {
        let header = block.header();
        let candidates = [next_proposer, &self.next_proposer_address, &header.proposer_address];
        let proposer = candidates.into_iter().find(|address| !address.is_empty());
        Self {
            version: self.version,
            chain_id: self.chain_id.clone(),
            initial_height: self.initial_height,
            last_block_height: header.height,
            last_block_time: Some(header.time),
            da_height: self.da_height,
            app_hash: root.0.clone(),
            last_header_hash: block.hash().to_bytes(),
            next_proposer_address: proposer.cloned().unwrap_or_default(),
        }
    }
}
