//! Requests and responses of header exchange, and their frames (wire section 6.5).
//!
//! One request per stream. Every message is a frame: its length as a varint, then the message.

use bytes::Bytes;
use prost::encoding;
use prost::{Message, Oneof};

use super::WireError;
use crate::types::{Hash, Height};

/// The largest message, in bytes.
pub const MAX_MESSAGE: usize = 10_485_760;
/// The most items that one request may ask for.
pub const MAX_AMOUNT: u64 = 64;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderRequest {
    /// The newest item.
    Head,
    /// The items from a height upwards.
    Range {
        /// The first height, not zero.
        from: Height,
        /// How many. The server resets the stream for zero and for more than `MAX_AMOUNT`.
        amount: u64,
    },
    /// The item with this hash.
    ByHash(Bytes),
}

impl HeaderRequest {
    /// The request for one item by its true hash.
    #[must_use]
    pub fn by_hash(hash: Hash) -> Self {
        Self::ByHash(hash.to_bytes())
    }
}

/// How a request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Not a status anyone sends.
    Invalid,
    /// The body is an item.
    Ok,
    /// There is no such item.
    NotFound,
}

/// One item, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderResponse {
    /// How it went.
    pub status: Status,
    /// An encoded `P2pSignedHeader` or `P2pData`; empty without one.
    pub body: Bytes,
}

impl HeaderResponse {
    /// The response with one encoded item.
    #[must_use]
    pub const fn item(body: Bytes) -> Self {
        Self { status: Status::Ok, body }
    }

    /// The response of a server that does not have the item.
    #[must_use]
    pub const fn not_found() -> Self {
        Self { status: Status::NotFound, body: Bytes::new() }
    }
}

#[derive(Clone, PartialEq, Eq, Message)]
struct RequestMessage {
    #[prost(oneof = "Origin", tags = "1, 2")]
    origin: Option<Origin>,
    #[prost(uint64, tag = "3")]
    amount: u64,
}

#[derive(Clone, PartialEq, Eq, Oneof)]
enum Origin {
    /// Zero is written: it asks for the head.
    #[prost(uint64, tag = "1")]
    Height(u64),
    #[prost(bytes = "bytes", tag = "2")]
    Hash(Bytes),
}

#[derive(Clone, PartialEq, Eq, Message)]
struct ResponseMessage {
    #[prost(bytes = "bytes", tag = "1")]
    body: Bytes,
    #[prost(int32, tag = "2")]
    status: i32,
}

impl HeaderRequest {
    /// The encoded message without its frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (origin, amount) = match self {
            Self::Head => (Origin::Height(0), 1),
            Self::Range { from, amount } => (Origin::Height(from.0), *amount),
            Self::ByHash(hash) => (Origin::Hash(hash.clone()), 1),
        };
        RequestMessage { origin: Some(origin), amount }.encode_to_vec()
    }

    /// Decodes a message without its frame.
    ///
    /// # Errors
    ///
    /// `WireError` when it is malformed or says neither height nor hash; reset the stream.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let message = RequestMessage::decode(bytes).map_err(|error| malformed(REQUEST, &error))?;
        match message.origin {
            Some(Origin::Height(0)) => Ok(Self::Head),
            Some(Origin::Height(from)) => Ok(Self::Range { from: Height(from), amount: message.amount }),
            Some(Origin::Hash(hash)) => Ok(Self::ByHash(hash)),
            None => Err(malformed(REQUEST, &"neither a height nor a hash")),
        }
    }

    /// The whole frame.
    #[must_use]
    pub fn to_frame(&self) -> Vec<u8> {
        frame(&self.encode())
    }
}

impl HeaderResponse {
    /// The encoded message without its frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let status = match self.status {
            Status::Invalid => 0,
            Status::Ok => 1,
            Status::NotFound => 2,
        };
        ResponseMessage { body: self.body.clone(), status }.encode_to_vec()
    }

    /// Decodes a message without its frame. A status that is not known is `Invalid`.
    ///
    /// # Errors
    ///
    /// `WireError` when it is malformed; drop the peer.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let message = ResponseMessage::decode(bytes).map_err(|error| malformed(RESPONSE, &error))?;
        let status = match message.status {
            1 => Status::Ok,
            2 => Status::NotFound,
            _ => Status::Invalid,
        };
        Ok(Self { status, body: message.body })
    }

    /// The whole frame.
    #[must_use]
    pub fn to_frame(&self) -> Vec<u8> {
        frame(&self.encode())
    }
}

const REQUEST: &str = "HeaderRequest";
const RESPONSE: &str = "HeaderResponse";

fn malformed(what: &'static str, reason: &impl ToString) -> WireError {
    WireError::malformed(what, reason.to_string())
}

/// Puts a message into a frame.
#[must_use]
pub fn frame(message: &[u8]) -> Vec<u8> {
    let length = message.len() as u64;
    let mut frame = Vec::with_capacity(encoding::encoded_len_varint(length) + message.len());
    encoding::encode_varint(length, &mut frame);
    frame.extend_from_slice(message);
    frame
}

/// A message taken out of received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framed<'a> {
    /// The message.
    pub message: &'a [u8],
    /// What follows its frame.
    pub rest: &'a [u8],
}

/// Takes the first message out of what has been received so far; `None` when more bytes are
/// needed.
///
/// # Errors
///
/// `WireError` when the length is malformed or above `MAX_MESSAGE`; reset the stream.
pub fn split_frame(received: &[u8]) -> Result<Option<Framed<'_>>, WireError> {
    const FRAME: &str = "frame";
    let mut rest = received;
    let length = match encoding::decode_varint(&mut rest) {
        Ok(length) => length,
        // A varint has at most ten bytes and ends with one below 0x80.
        Err(_) if received.len() < 10 && received.iter().all(|byte| byte & 0x80 != 0) => return Ok(None),
        Err(error) => return Err(malformed(FRAME, &error)),
    };
    match usize::try_from(length).ok().filter(|length| *length <= MAX_MESSAGE) {
        None => Err(malformed(FRAME, &format!("{length} bytes, the limit is {MAX_MESSAGE}"))),
        Some(length) => Ok(rest.split_at_checked(length).map(|(message, rest)| Framed { message, rest })),
    }
}
