//! What makes headers, data and blobs acceptable (wire sections 3, 4.4, 6.3).
//!
//! Stricter than ev-node in two ways: a first block must stand at the initial height, and a
//! wrong link is never tolerated (ev-node steps over one per process).

use std::time::Duration;

use bytes::Bytes;

pub use super::invalid::Invalid;
use super::keys::KeyError;
pub use super::sequence::NotNext;
use crate::chain::{DaHeaderEnvelope, Data, Header, Metadata, SignedData, SignedHeader, Signer};
use crate::types::{Hash, Height, Timestamp};

/// How far ahead of the clock a header or data may be when it is validated.
pub const MAX_DRIFT: Duration = Duration::from_secs(60);
/// How far ahead of the clock a header or data from gossip or exchange may be.
pub const MAX_P2P_DRIFT: Duration = Duration::from_secs(10);
/// Times from here on are negative to ev-node and refused (wire section 10).
const TIME_LIMIT: u64 = 1 << 63;

/// How a header blob was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnvelopeKind {
    /// With a verified envelope signature. The first one turns strict mode on.
    Signed,
    /// Without: a blob of an older version.
    Plain,
}

/// What a header's signature is over (wire section 2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// What an application signs instead of the header's encoding.
    Custom,
    /// The header's encoding on the wire.
    Wire,
    /// The encoding of old chains. The header may have a twin ([`Header::twin`]).
    Legacy,
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
    /// and the signature (wire section 3, "signed header"). Returns what the signature is over.
    ///
    /// # Errors
    ///
    /// The first rule that is broken; `FromTheFuture`, which time may cure, only of a header that is
    /// right otherwise.
    pub fn validate(&self, now: Timestamp) -> Result<Payload, Invalid> {
        let timely = self.header.validate(now);
        if let Err(Invalid::FromTheFuture { .. }) | Ok(()) = timely {
            let payload = self.verify_signer()?;
            return timely.map(|()| payload);
        }
        timely.map(|()| Payload::Wire)
    }

    /// Checks that the proposer signed the header: the signer is the proposer, the address is the
    /// key's, and the signature is the key's. Returns what it is over.
    ///
    /// # Errors
    ///
    /// The first rule that is broken.
    pub fn verify_signer(&self) -> Result<Payload, Invalid> {
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

    /// Checks the signature over the header's payloads, in the order of wire section 2.5. Returns which
    /// one it is over.
    ///
    /// # Errors
    ///
    /// `Key` when none of them verifies.
    pub fn verify_signature(&self) -> Result<Payload, Invalid> {
        self.verify_signature_with(None)
    }

    /// As `verify_signature`, trying first the payload that an application signs instead of the
    /// header's encoding (wire section 2.5, custom providers).
    ///
    /// # Errors
    ///
    /// `Key` when none of them verifies.
    pub fn verify_signature_with(&self, custom: Option<&[u8]>) -> Result<Payload, Invalid> {
        let key = self.signer.public_key()?;
        let [wire, legacy] = self.header.signature_payloads();
        let custom = custom.map(|custom| (Payload::Custom, custom));
        let own = [(Payload::Wire, wire.as_slice()), (Payload::Legacy, legacy.as_slice())];
        for (payload, bytes) in custom.into_iter().chain(own).filter(|(_, bytes)| !bytes.is_empty()) {
            match key.verify(bytes, &self.signature) {
                Ok(()) => return Ok(payload),
                Err(KeyError::Mismatch) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(KeyError::Mismatch.into())
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
