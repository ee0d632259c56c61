//! What goes over a connection: frames with a length, a kind and a body.
//!
//! ```text
//! length u32 BE (of what follows) | kind u8 | fixed fields, LE | body
//! ```
//!
//! A length is checked against the limit of the connection before anything is reserved for it.
//! The first frame of either side is a hello; what is in a refusal is text in every version of
//! the protocol, so that an older and a newer node can tell each other why they part.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio_util::codec::Decoder;
use uuid::Uuid;

/// Bytes of a frame that are not its body, the length aside.
pub(super) const OVERHEAD: usize = 1 + 8 + 4;
/// The longest body of a hello, and so of everything that strangers can send.
pub(super) const HELLO: usize = 4096;
/// The longest text of a refusal or a denial; longer ones are cut.
const REASON: usize = 1024;
/// Bodies up to this size are sent together with their head.
const TOGETHER: usize = 16 << 10;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Who speaks: the protocol version and an encoded [`Hello`](super::hello::Hello).
    Hello {
        /// The protocol version.
        version: u16,
        /// The rest, in the encoding of that version.
        body: Bytes,
    },
    /// The sender ends the connection for this reason.
    Refused(String),
    /// The dialler has checked the other's hello and begins.
    Welcome,
    /// A call.
    Call {
        /// Its number on this connection.
        id: u64,
        /// After so many milliseconds nobody waits for the answer any more.
        within: u32,
        /// What is asked.
        body: Bytes,
    },
    /// The answer to a call.
    Answer {
        /// The number of the call.
        id: u64,
        /// The answer.
        body: Bytes,
    },
    /// The call was read and will not be answered.
    Denied {
        /// The number of the call.
        id: u64,
        /// Why.
        reason: String,
    },
    /// Is anybody there?
    Ping,
    /// Yes.
    Pong,
    /// The sender belongs to this cluster now.
    Belongs(Uuid),
}

/// Why there is no frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Over the limit of the connection.
    #[error("a frame of {bytes} bytes is over the limit of {limit}")]
    TooLarge {
        /// What its head says.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Not a frame of this protocol.
    #[error("not a frame of the cluster protocol")]
    Malformed,
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Frame {
    const HELLO: u8 = 1;
    const REFUSED: u8 = 2;
    const WELCOME: u8 = 3;
    const CALL: u8 = 4;
    const ANSWER: u8 = 5;
    const DENIED: u8 = 6;
    const PING: u8 = 7;
    const PONG: u8 = 8;
    const BELONGS: u8 = 9;

    /// Reads what follows the length. `None`: it is no frame.
    #[must_use]
    pub fn decode(mut bytes: Bytes) -> Option<Self> {
        let kind = bytes.try_get_u8().ok()?;
        let text = |bytes: &Bytes| String::from_utf8_lossy(&bytes[..bytes.len().min(REASON)]).into_owned();
        Some(match kind {
            Self::HELLO => Self::Hello { version: bytes.try_get_u16_le().ok()?, body: bytes },
            Self::REFUSED => Self::Refused(text(&bytes)),
            Self::CALL => {
                let id = bytes.try_get_u64_le().ok()?;
                Self::Call { id, within: bytes.try_get_u32_le().ok()?, body: bytes }
            }
            Self::ANSWER => Self::Answer { id: bytes.try_get_u64_le().ok()?, body: bytes },
            Self::DENIED => Self::Denied { id: bytes.try_get_u64_le().ok()?, reason: text(&bytes) },
            Self::BELONGS => Self::Belongs(Uuid::from_slice(&bytes).ok()?),
            Self::WELCOME if bytes.is_empty() => Self::Welcome,
            Self::PING if bytes.is_empty() => Self::Ping,
            Self::PONG if bytes.is_empty() => Self::Pong,
            _ => return None,
        })
    }

    /// The head, length included, and the body.
    fn encode(&self) -> (BytesMut, Bytes) {
        let mut head = BytesMut::with_capacity(4 + OVERHEAD);
        head.put_u32(0);
        let text = |text: &str| Bytes::copy_from_slice(&text.as_bytes()[..text.len().min(REASON)]);
        let body = match self {
            Self::Hello { version, body } => {
                head.put_u8(Self::HELLO);
                head.put_u16_le(*version);
                body.clone()
            }
            Self::Refused(reason) => {
                head.put_u8(Self::REFUSED);
                text(reason)
            }
            Self::Welcome => {
                head.put_u8(Self::WELCOME);
                Bytes::new()
            }
            Self::Call { id, within, body } => {
                head.put_u8(Self::CALL);
                head.put_u64_le(*id);
                head.put_u32_le(*within);
                body.clone()
            }
            Self::Answer { id, body } => {
                head.put_u8(Self::ANSWER);
                head.put_u64_le(*id);
                body.clone()
            }
            Self::Denied { id, reason } => {
                head.put_u8(Self::DENIED);
                head.put_u64_le(*id);
                text(reason)
            }
            Self::Ping => {
                head.put_u8(Self::PING);
                Bytes::new()
            }
            Self::Pong => {
                head.put_u8(Self::PONG);
                Bytes::new()
            }
            Self::Belongs(cluster) => {
                head.put_u8(Self::BELONGS);
                Bytes::copy_from_slice(cluster.as_bytes())
            }
        };
        let length = u32::try_from(head.len() - 4 + body.len()).unwrap_or(u32::MAX);
        head[..4].copy_from_slice(&length.to_be_bytes());
        (head, body)
    }

    /// Sends the frame.
    ///
    /// # Errors
    ///
    /// When the connection fails.
    pub async fn write(&self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let (mut head, body) = self.encode();
        if body.len() <= TOGETHER {
            head.extend_from_slice(&body);
            to.write_all(&head).await?;
        } else {
            to.write_all(&head).await?;
            to.write_all(&body).await?;
        }
        to.flush().await
    }
}

/// The least that is reserved for what is to come.
const AT_A_TIME: usize = 64 << 10;

/// Takes frames out of a stream of bytes.
#[derive(Clone, Copy, Debug)]
pub struct Frames {
    limit: usize,
}

impl Frames {
    /// For a connection on which bodies have at most so many bytes.
    #[must_use]
    pub const fn up_to(body: usize) -> Self {
        Self { limit: body.saturating_add(OVERHEAD) }
    }
}

impl Decoder for Frames {
    type Item = Frame;
    type Error = FrameError;

    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let Some(head) = bytes.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*head) as usize;
        if length > self.limit {
            return Err(FrameError::TooLarge { bytes: length, limit: self.limit });
        }
        if bytes.len() < 4 + length {
            // What is announced need not come: room grows with what is here.
            let more = (4 + length - bytes.len()).min(bytes.len().max(AT_A_TIME));
            bytes.reserve(more);
            return Ok(None);
        }
        bytes.advance(4);
        Frame::decode(bytes.split_to(length).freeze()).map(Some).ok_or(FrameError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, RngExt, SeedableRng};

    use super::*;

    fn all() -> Vec<Frame> {
        let body = Bytes::from_static(b"body");
        vec![
            Frame::Hello { version: 7, body: body.clone() },
            Frame::Refused("why".to_owned()),
            Frame::Welcome,
            Frame::Call { id: u64::MAX, within: 5, body: body.clone() },
            Frame::Answer { id: 1, body },
            Frame::Denied { id: 2, reason: "no".to_owned() },
            Frame::Ping,
            Frame::Pong,
            Frame::Belongs(Uuid::from_u128(9)),
        ]
    }

    fn bytes_of(frame: &Frame) -> BytesMut {
        let (mut head, body) = frame.encode();
        head.extend_from_slice(&body);
        head
    }

    #[test]
    fn every_frame_comes_back_as_it_was_also_byte_by_byte() {
        let mut stream = BytesMut::new();
        let mut seen = vec![];
        for frame in all() {
            for byte in bytes_of(&frame) {
                stream.put_u8(byte);
                seen.extend(Frames::up_to(100).decode(&mut stream).unwrap());
            }
        }
        assert_eq!(seen, all());
    }

    #[test]
    fn a_head_looks_as_documented() {
        let call = Frame::Call { id: 1, within: 2, body: Bytes::from_static(b"x") };
        assert_eq!(hex::encode(bytes_of(&call)), "0000000e04010000000000000002000000".to_owned() + "78");
        assert_eq!(hex::encode(bytes_of(&Frame::Refused("x".to_owned()))), "000000020278");
        let hello = Frame::Hello { version: 1, body: Bytes::from_static(b"x") };
        assert_eq!(hex::encode(bytes_of(&hello)), "0000000401010078");
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_anything_is_reserved() {
        let mut stream = BytesMut::from(&u32::MAX.to_be_bytes()[..]);
        let refused = Frames::up_to(1000).decode(&mut stream);
        assert!(matches!(refused, Err(FrameError::TooLarge { bytes: 0xffff_ffff, limit: 1013 })));
        assert!(stream.capacity() < 100);
        let largest = Frame::Call { id: 0, within: 0, body: vec![0; 1000].into() };
        assert!(Frames::up_to(1000).decode(&mut bytes_of(&largest)).unwrap().is_some());
        assert!(Frames::up_to(999).decode(&mut bytes_of(&largest)).is_err());
    }

    #[test]
    fn a_long_reason_is_cut_and_stays_text() {
        let long = Frame::Refused("ü".repeat(2000));
        let Ok(Some(Frame::Refused(text))) = Frames::up_to(HELLO).decode(&mut bytes_of(&long)) else {
            panic!("a refusal is a refusal");
        };
        assert!(text.starts_with("üü") && text.len() <= REASON + 3);
    }

    #[test]
    fn what_is_announced_takes_no_more_memory_than_twice_what_has_come() {
        let mut frames = Frames::up_to(64 << 20);
        let length = 64_u32 << 20;
        let mut bytes = BytesMut::from(&length.to_be_bytes()[..]);
        assert!(frames.decode(&mut bytes).unwrap().is_none());
        assert!(bytes.capacity() <= 2 * AT_A_TIME, "{}", bytes.capacity());
        bytes.resize(1 << 20, 0);
        assert!(frames.decode(&mut bytes).unwrap().is_none());
        assert!(bytes.capacity() <= (2 << 20) + AT_A_TIME, "{}", bytes.capacity());
    }

    #[test]
    fn whatever_comes_the_decoder_does_not_panic_and_takes_no_more_than_the_limit() {
        let mut chance = StdRng::seed_from_u64(3);
        for round in 0..20_000 {
            let mut bytes = match round % 3 {
                0 => BytesMut::zeroed(chance.random_range(0..64)),
                _ => bytes_of(&all()[chance.random_range(0..9)]),
            };
            match round % 3 {
                0 => chance.fill_bytes(&mut bytes),
                1 => {
                    let at = chance.random_range(0..bytes.len());
                    bytes[at] = chance.random();
                }
                _ => bytes.truncate(chance.random_range(0..bytes.len())),
            }
            let _ = Frames::up_to(256).decode(&mut bytes);
            assert!(bytes.capacity() < 1024);
            let _ = Frame::decode(bytes.freeze());
        }
    }
}
