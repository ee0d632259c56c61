//! What the blobs of a DA height are: header envelopes, older plain headers, signed data, or
//! somebody else's business (wire section 4.4).
//!
//! Anybody may write into the namespaces. What does not decode or is not signed by the chain's
//! proposer is counted and costs nothing more.

use std::sync::Arc;

use baton_messages::chain::{DaHeaderEnvelope, SignedData, SignedHeader};
use baton_messages::da::Blob;
use baton_messages::follow::Piece;
use baton_messages::types::DaHeight;
use baton_messages::wire::validate::EnvelopeKind;
use bytes::Bytes;

/// What a blob turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Half of a block.
    Piece(Piece),
    /// Nothing of this chain's proposer; why.
    Foreign(&'static str),
}

/// Reads blobs.
#[derive(Clone, Debug)]
pub struct Decoder {
    chain_id: String,
    proposer: Bytes,
    max_blob: usize,
    /// Where the proposer began to sign envelopes: above, headers without one are not taken.
    strict_from: Option<DaHeight>,
}

impl Decoder {
    /// A decoder for the chain of this proposer. Larger blobs are not looked at.
    #[must_use]
    pub const fn new(chain_id: String, proposer: Bytes, max_blob: usize) -> Self {
        Self { chain_id, proposer, max_blob, strict_from: None }
    }

    /// A decoder that remembers where envelopes began.
    #[must_use]
    pub const fn remember(mut self, strict_from: Option<DaHeight>) -> Self {
        self.strict_from = strict_from;
        self
    }

    /// Above which height headers need an envelope signature; `None`: nowhere yet.
    #[must_use]
    pub const fn strict_from(&self) -> Option<DaHeight> {
        self.strict_from
    }

    /// Says what a blob at a DA height is, whatever namespace it is from: ev-node may be told to use
    /// one for both.
    pub fn read(&mut self, at: DaHeight, blob: &Blob) -> Found {
        if blob.data.is_empty() || blob.data.len() > self.max_blob {
            return Found::Foreign("size");
        }
        if let Some(found) = self.header(at, &blob.data) {
            return found;
        }
        self.data(&blob.data)
    }

    /// `None`: it may be data.
    fn header(&mut self, at: DaHeight, bytes: &[u8]) -> Option<Found> {
        // What lies below is read again now and then, and was signed before there were envelopes.
        let strict = self.strict_from.is_some_and(|from| at > from);
        let (signed, kind) = match DaHeaderEnvelope::decode(bytes) {
            Ok(envelope) => {
                // Signed data decode as an envelope too now and then: a header names its proposer.
                if envelope.signed.header.proposer_address.is_empty() {
                    return None;
                }
                match envelope.verify(strict) {
                    Ok(kind) => (envelope.signed, kind),
                    Err(_) => return Some(Found::Foreign("envelope")),
                }
            }
            Err(_) if strict => return None,
            Err(_) => (SignedHeader::decode(bytes).ok()?, EnvelopeKind::Plain),
        };
        let header = &signed.header;
        if header.chain_id != self.chain_id {
            return Some(Found::Foreign("chain"));
        }
        if header.proposer_address != self.proposer || signed.signer.address != self.proposer {
            return Some(Found::Foreign("proposer"));
        }
        // Only the proposer's own envelope says that there are envelopes on this chain.
        if kind == EnvelopeKind::Signed {
            self.strict_from = Some(self.strict_from.map_or(at, |known| known.min(at)));
        }
        Some(Found::Piece(Piece::Header(Arc::new(signed))))
    }

    fn data(&self, bytes: &[u8]) -> Found {
        let Ok(signed) = SignedData::decode(bytes) else { return Found::Foreign("undecodable") };
        let chain = signed.data.metadata.as_ref().map(|metadata| metadata.chain_id.as_str());
        if chain != Some(self.chain_id.as_str()) {
            return Found::Foreign("chain");
        }
        if signed.signer.address != self.proposer || !is_key_of(&signed, &self.proposer) {
            return Found::Foreign("proposer");
        }
        match signed.verify() {
            Ok(()) => Found::Piece(Piece::Data(Arc::new(signed.data))),
            Err(_) => Found::Foreign("signature"),
        }
    }
}

/// Whether the key in signed data is that of an address.
fn is_key_of(signed: &SignedData, address: &Bytes) -> bool {
    let key = signed.signer.raw_key();
    key.is_ok_and(|key| baton_messages::types::Hash::of(&key).0[..] == address[..])
}

#[cfg(test)]
mod tests;
