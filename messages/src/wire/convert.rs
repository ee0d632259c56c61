//! Chain types to protobuf messages and back.

use super::keys::{KeyError, PublicKey};
use super::{WireError, proto};
use crate::chain::{
    DaHeaderEnvelope, Data, Header, LegacyHeaderFields, Metadata, P2pData, P2pSignedHeader, SignedData,
    SignedHeader, Signer, State, Version,
};
use crate::types::{Height, Timestamp, Tx};

/// Go's zero time, the first second of the year one.
const GO_ZERO_SECONDS: i64 = -62_135_596_800;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

impl From<Version> for proto::Version {
    fn from(version: Version) -> Self {
        Self { block: version.block, app: version.app }
    }
}

impl From<proto::Version> for Version {
    fn from(version: proto::Version) -> Self {
        Self { block: version.block, app: version.app }
    }
}

impl From<&Header> for proto::Header {
    fn from(header: &Header) -> Self {
        Self {
            version: Some(header.version.into()),
            height: header.height.0,
            time: header.time.0,
            last_header_hash: header.last_header_hash.clone(),
            data_hash: header.data_hash.clone(),
            app_hash: header.app_hash.clone(),
            proposer_address: header.proposer_address.clone(),
            validator_hash: header.validator_hash.clone(),
            chain_id: header.chain_id.clone(),
            legacy: header.legacy.clone().unwrap_or_default(),
            unknown: Default::default(),
        }
    }
}

impl From<proto::Header> for Header {
    fn from(header: proto::Header) -> Self {
        Self {
            version: header.version.unwrap_or_default().into(),
            height: Height(header.height),
            time: Timestamp(header.time),
            last_header_hash: header.last_header_hash,
            data_hash: header.data_hash,
            app_hash: header.app_hash,
            proposer_address: header.proposer_address,
            validator_hash: header.validator_hash,
            chain_id: header.chain_id,
            legacy: Some(header.legacy).filter(|legacy| *legacy != LegacyHeaderFields::default()),
        }
    }
}

impl From<&Signer> for proto::Signer {
    fn from(signer: &Signer) -> Self {
        if signer.pub_key.is_empty() {
            return Self::default();
        }
        Self { address: signer.address.clone(), pub_key: signer.pub_key.clone() }
    }
}

impl TryFrom<proto::Signer> for Signer {
    type Error = WireError;

    fn try_from(signer: proto::Signer) -> Result<Self, WireError> {
        if signer.pub_key.is_empty() {
            return Ok(Self::default());
        }
        PublicKey::parse(&signer.pub_key).map_err(|error| match error {
            KeyError::Padded(_) => WireError::excessive("Signer", error.to_string()),
            _ => WireError::malformed("Signer", error.to_string()),
        })?;
        Ok(Self { address: signer.address, pub_key: signer.pub_key })
    }
}

impl From<&SignedHeader> for proto::SignedHeader {
    fn from(signed: &SignedHeader) -> Self {
        Self {
            header: Some((&signed.header).into()),
            signature: signed.signature.clone(),
            signer: Some((&signed.signer).into()),
        }
    }
}

impl TryFrom<proto::SignedHeader> for SignedHeader {
    type Error = WireError;

    fn try_from(signed: proto::SignedHeader) -> Result<Self, WireError> {
        let header = signed
            .header
            .ok_or_else(|| WireError::malformed("SignedHeader", "the header is missing".to_owned()))?;
        Ok(Self {
            header: header.into(),
            signature: signed.signature,
            signer: signed.signer.unwrap_or_default().try_into()?,
        })
    }
}

impl From<&DaHeaderEnvelope> for proto::DaHeaderEnvelope {
    fn from(envelope: &DaHeaderEnvelope) -> Self {
        let proto::SignedHeader { header, signature, signer } = (&envelope.signed).into();
        Self { header, signature, signer, envelope_signature: envelope.envelope_signature.clone() }
    }
}

impl TryFrom<proto::DaHeaderEnvelope> for DaHeaderEnvelope {
    type Error = WireError;

    fn try_from(envelope: proto::DaHeaderEnvelope) -> Result<Self, WireError> {
        let proto::DaHeaderEnvelope { header, signature, signer, envelope_signature } = envelope;
        let signed = proto::SignedHeader { header, signature, signer }.try_into()?;
        Ok(Self { signed, envelope_signature })
    }
}

impl From<&P2pSignedHeader> for proto::P2pSignedHeader {
    fn from(message: &P2pSignedHeader) -> Self {
        let proto::SignedHeader { header, signature, signer } = (&message.signed).into();
        Self { header, signature, signer, da_height_hint: Some(message.da_height_hint) }
    }
}

impl TryFrom<proto::P2pSignedHeader> for P2pSignedHeader {
    type Error = WireError;

    fn try_from(message: proto::P2pSignedHeader) -> Result<Self, WireError> {
        let proto::P2pSignedHeader { header, signature, signer, da_height_hint } = message;
        let signed = proto::SignedHeader { header, signature, signer }.try_into()?;
        Ok(Self { signed, da_height_hint: da_height_hint.unwrap_or_default() })
    }
}

impl From<&Metadata> for proto::Metadata {
    fn from(metadata: &Metadata) -> Self {
        Self {
            chain_id: metadata.chain_id.clone(),
            height: metadata.height.0,
            time: metadata.time.0,
            last_data_hash: metadata.last_data_hash.clone(),
        }
    }
}

impl From<proto::Metadata> for Metadata {
    fn from(metadata: proto::Metadata) -> Self {
        Self {
            chain_id: metadata.chain_id,
            height: Height(metadata.height),
            time: Timestamp(metadata.time),
            last_data_hash: metadata.last_data_hash,
        }
    }
}

impl From<&Data> for proto::Data {
    fn from(data: &Data) -> Self {
        Self {
            metadata: data.metadata.as_ref().map(Into::into),
            txs: data.txs.iter().map(|tx| tx.0.clone()).collect(),
        }
    }
}

impl From<proto::Data> for Data {
    fn from(data: proto::Data) -> Self {
        Self { metadata: data.metadata.map(Into::into), txs: data.txs.into_iter().map(Tx).collect() }
    }
}

impl From<&P2pData> for proto::P2pData {
    fn from(message: &P2pData) -> Self {
        let proto::Data { metadata, txs } = (&message.data).into();
        Self { metadata, txs, da_height_hint: Some(message.da_height_hint) }
    }
}

impl From<proto::P2pData> for P2pData {
    fn from(message: proto::P2pData) -> Self {
        let proto::P2pData { metadata, txs, da_height_hint } = message;
        Self {
            data: proto::Data { metadata, txs }.into(),
            da_height_hint: da_height_hint.unwrap_or_default(),
        }
    }
}

impl From<&SignedData> for proto::SignedData {
    fn from(signed: &SignedData) -> Self {
        Self {
            data: Some((&signed.data).into()),
            signature: signed.signature.clone(),
            signer: Some((&signed.signer).into()),
        }
    }
}

impl TryFrom<proto::SignedData> for SignedData {
    type Error = WireError;

    fn try_from(signed: proto::SignedData) -> Result<Self, WireError> {
        Ok(Self {
            data: signed.data.unwrap_or_default().into(),
            signature: signed.signature,
            signer: signed.signer.unwrap_or_default().try_into()?,
        })
    }
}

impl From<Timestamp> for proto::Timestamp {
    fn from(time: Timestamp) -> Self {
        let seconds = i64::try_from(time.0 / NANOS_PER_SECOND).expect("u64::MAX / 10^9 fits in an i64");
        let nanos = i32::try_from(time.0 % NANOS_PER_SECOND).expect("a remainder by 10^9 fits in an i32");
        Self { seconds, nanos }
    }
}

impl proto::Timestamp {
    /// Go's zero time: year one.
    pub const GO_ZERO: Self = Self { seconds: GO_ZERO_SECONDS, nanos: 0 };

    /// The instant as nanoseconds since the Unix epoch; `None` for Go's zero time.
    ///
    /// # Errors
    ///
    /// `WireError` for other instants before the epoch or beyond 64 bits of nanoseconds.
    pub fn to_time(self) -> Result<Option<Timestamp>, WireError> {
        if self == Self::GO_ZERO {
            return Ok(None);
        }
        let out_of_range = || {
            WireError::malformed("Timestamp", format!("{}s {}ns is out of range", self.seconds, self.nanos))
        };
        let seconds = u64::try_from(self.seconds).map_err(|_| out_of_range())?;
        let nanos = u64::try_from(self.nanos).ok().filter(|nanos| *nanos < NANOS_PER_SECOND);
        let nanos = nanos.ok_or_else(out_of_range)?;
        let total = seconds.checked_mul(NANOS_PER_SECOND).and_then(|total| total.checked_add(nanos));
        total.map(|total| Some(Timestamp(total))).ok_or_else(out_of_range)
    }
}

impl From<&State> for proto::State {
    fn from(state: &State) -> Self {
        Self {
            version: Some(state.version.into()),
            chain_id: state.chain_id.clone(),
            initial_height: state.initial_height.0,
            last_block_height: state.last_block_height.0,
            last_block_time: Some(state.last_block_time.map_or(proto::Timestamp::GO_ZERO, Into::into)),
            da_height: state.da_height,
            app_hash: state.app_hash.clone(),
            last_header_hash: state.last_header_hash.clone(),
            next_proposer_address: state.next_proposer_address.clone(),
        }
    }
}

impl TryFrom<proto::State> for State {
    type Error = WireError;

    fn try_from(state: proto::State) -> Result<Self, WireError> {
        Ok(Self {
            version: state.version.unwrap_or_default().into(),
            chain_id: state.chain_id,
            initial_height: Height(state.initial_height),
            last_block_height: Height(state.last_block_height),
            // Absent is the Unix epoch to Go's `AsTime`.
            last_block_time: state.last_block_time.unwrap_or_default().to_time()?,
            da_height: state.da_height,
            app_hash: state.app_hash,
            last_header_hash: state.last_header_hash,
            next_proposer_address: state.next_proposer_address,
        })
    }
}
