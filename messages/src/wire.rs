//! ev-node's wire formats: protobuf encoding, hashing, signature payloads, validation.

mod convert;
pub mod exchange;
pub mod glance;
mod hash;
mod invalid;
mod json;
pub mod keys;
pub mod p2p;
pub mod proto;
pub mod records;
pub mod rpc;
mod sequence;
pub mod validate;

use prost::Message;

use crate::chain::{
    DaHeaderEnvelope, Data, Header, P2pData, P2pSignedHeader, SignedData, SignedHeader, State,
};

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Not decodable.
    #[error("malformed {what}: {reason}")]
    Malformed {
        /// Which type.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// ev-node decodes it, and may have forwarded it; but nobody honest makes it.
    #[error("{what} as nobody makes it: {reason}")]
    Excessive {
        /// Which type.
        what: &'static str,
        /// What is too much.
        reason: String,
    },
}

impl WireError {
    pub(crate) const fn malformed(what: &'static str, reason: String) -> Self {
        Self::Malformed { what, reason }
    }

    pub(crate) const fn excessive(what: &'static str, reason: String) -> Self {
        Self::Excessive { what, reason }
    }
}

macro_rules! wire {
    ($($type:ident),*) => {$(
        impl $type {
            /// The canonical protobuf encoding (wire section 1.0).
            #[must_use]
            pub fn encode(&self) -> Vec<u8> {
                proto::$type::from(self).encode_to_vec()
            }

            /// Decodes ev-node's protobuf.
            ///
            /// # Errors
            ///
            /// `WireError` on malformed input.
            #[allow(clippy::useless_conversion, reason = "some of the types convert without failing")]
            pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
                let message = proto::$type::decode(bytes)
                    .map_err(|error| WireError::malformed(stringify!($type), error.to_string()))?;
                Self::try_from(message).map_err(Into::into)
            }
        }
    )*};
}
wire!(Header, SignedHeader, Data, SignedData, DaHeaderEnvelope, P2pSignedHeader, P2pData, State);

impl From<std::convert::Infallible> for WireError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}
