//! Requests and responses of the exchange on a stream (wire section 6.5).
//!
//! Everything that comes in is bounded before it is read: a request, a frame, a whole answer.

use std::io;

use baton_actors::p2p::network::MAX_ANSWER;
use baton_messages::wire::exchange::{
    HeaderRequest, HeaderResponse, MAX_AMOUNT, MAX_MESSAGE, Status, split_frame,
};
use bytes::BytesMut;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::StreamProtocol;
use libp2p::request_response;

/// The longest request: a hash, or two numbers.
const MAX_REQUEST: usize = 1024;
/// Bytes read at a time.
const CHUNK: usize = 64 << 10;

/// The codec of both services.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Codec;

fn malformed(reason: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_string())
}

/// Reads frames, of which none is longer than a limit.
struct Frames<'a, T> {
    stream: &'a mut T,
    received: BytesMut,
    limit: usize,
}

impl<'a, T: AsyncRead + Unpin> Frames<'a, T> {
    fn new(stream: &'a mut T, limit: usize) -> Self {
        Self { stream, received: BytesMut::new(), limit }
    }

    /// The next message; `None` at the end of the stream between two of them.
    async fn next(&mut self) -> io::Result<Option<BytesMut>> {
        let mut chunk = vec![0; CHUNK.min(self.limit + 10)];
        loop {
            if let Some(message) = self.split()? {
                return Ok(Some(message));
            }
            let count = self.stream.read(&mut chunk).await?;
            if count == 0 {
                return match self.received.is_empty() {
                    true => Ok(None),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
            self.received.extend_from_slice(&chunk[..count]);
        }
    }

    fn split(&mut self) -> io::Result<Option<BytesMut>> {
        let framed = split_frame(&self.received).map_err(malformed)?;
        let Some(framed) = framed else {
            // The length of a frame says soon enough that it is too long.
            let too_long = self.received.len() > self.limit + 10;
            return if too_long { Err(malformed("a frame is too long")) } else { Ok(None) };
        };
        if framed.message.len() > self.limit {
            return Err(malformed("a frame is too long"));
        }
        let (length, rest) = (framed.message.len(), framed.rest.len());
        let header = self.received.len() - rest - length;
        let _ = self.received.split_to(header);
        Ok(Some(self.received.split_to(length)))
    }
}

impl request_response::Codec for Codec {
    type Protocol = StreamProtocol;
    type Request = HeaderRequest;
    /// Empty: the stream is reset.
    type Response = Vec<HeaderResponse>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<HeaderRequest>
    where
        T: AsyncRead + Unpin + Send,
    {
        let message = Frames::new(io, MAX_REQUEST).next().await?;
        let message = message.ok_or(io::ErrorKind::UnexpectedEof)?;
        HeaderRequest::decode(&message).map_err(malformed)
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<HeaderResponse>>
    where
        T: AsyncRead + Unpin + Send,
    {
        let mut frames = Frames::new(io, MAX_MESSAGE);
        let (mut responses, mut bytes) = (vec![], 0);
        loop {
            let message = match frames.next().await {
                Ok(Some(message)) => message,
                Ok(None) if responses.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(None) => return Ok(responses),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(error),
                // What came before it is as good as a short answer.
                Err(_) if !responses.is_empty() => return Ok(responses),
                Err(error) => return Err(error),
            };
            if responses.len() as u64 >= MAX_AMOUNT {
                return Err(malformed("more responses than anybody asks for"));
            }
            if bytes > 0 && bytes + message.len() > MAX_ANSWER {
                return Ok(responses);
            }
            bytes += message.len();
            let response = HeaderResponse::decode(&message).map_err(malformed)?;
            let over = response.status != Status::Ok;
            responses.push(response);
            if over {
                return Ok(responses);
            }
        }
    }

    async fn write_request<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        request: HeaderRequest,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&request.to_frame()).await?;
        io.flush().await
    }

    async fn write_response<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        responses: Vec<HeaderResponse>,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        if responses.is_empty() {
            return Err(io::Error::other("the question is not answered"));
        }
        for response in responses {
            io.write_all(&response.to_frame()).await?;
        }
        io.flush().await
    }
}

#[cfg(test)]
mod tests {
    use baton_messages::types::Height;
    use bytes::Bytes;
    use futures::executor::block_on;
    use futures::io::Cursor;
    use libp2p::request_response::Codec as _;

    use super::*;

    const PROTOCOL: StreamProtocol = StreamProtocol::new("/test");

    fn read(bytes: &[u8]) -> io::Result<Vec<HeaderResponse>> {
        block_on(Codec.read_response(&PROTOCOL, &mut Cursor::new(bytes)))
    }

    fn items(count: usize, length: usize) -> Vec<HeaderResponse> {
        (0..count).map(|item| HeaderResponse::item(Bytes::from(vec![item as u8; length]))).collect()
    }

    fn written(responses: Vec<HeaderResponse>) -> Vec<u8> {
        let mut stream = Cursor::new(vec![]);
        block_on(Codec.write_response(&PROTOCOL, &mut stream, responses)).expect("memory takes it");
        stream.into_inner()
    }

    #[test]
    fn a_request_is_read_as_it_was_written() {
        let requests = [
            HeaderRequest::Head,
            HeaderRequest::Range { from: Height(7), amount: 64 },
            HeaderRequest::ByHash(Bytes::from_static(&[3; 32])),
        ];
        for request in requests {
            let mut stream = Cursor::new(vec![]);
            block_on(Codec.write_request(&PROTOCOL, &mut stream, request.clone())).expect("memory takes it");
            let read = block_on(Codec.read_request(&PROTOCOL, &mut Cursor::new(stream.into_inner())));
            assert_eq!(read.expect("it is well formed"), request);
        }
    }

    #[test]
    fn an_answer_ends_with_the_stream_or_where_there_is_no_more() {
        let all = items(5, 100_000);
        assert_eq!(read(&written(all.clone())).expect("well formed"), all);
        let mut ended = items(2, 10);
        ended.push(HeaderResponse::not_found());
        let more = [written(ended.clone()), written(items(1, 10))].concat();
        assert_eq!(read(&more).expect("well formed"), ended);
    }

    #[test]
    fn a_stream_that_breaks_off_is_a_short_answer_or_none() {
        let bytes = written(items(3, 100));
        assert_eq!(read(&bytes[..bytes.len() - 1]).expect("two are whole"), items(2, 100));
        for cut in [0, 1, 50] {
            let error = read(&bytes[..cut]).expect_err("not one is whole");
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_is_read() {
        let mut frame = vec![];
        frame.extend_from_slice(&[0xff, 0xff, 0xff, 0x7f]);
        assert_eq!(read(&frame).expect_err("too long").kind(), io::ErrorKind::InvalidData);
        let many = written(items(65, 1));
        assert_eq!(read(&many).expect_err("too many").kind(), io::ErrorKind::InvalidData);
        let request = written(items(1, MAX_REQUEST));
        let request = block_on(Codec.read_request(&PROTOCOL, &mut Cursor::new(request)));
        assert_eq!(request.expect_err("too long").kind(), io::ErrorKind::InvalidData);
        assert_eq!(read(b"\x05junk!").expect_err("no response").kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_whole_answer_is_cut_at_its_limit_and_one_item_is_let_through() {
        let large = items(10, 4 << 20);
        let read_back = read(&written(large.clone())).expect("well formed");
        assert_eq!(read_back, large[..3]);
        let one = items(1, 9 << 20);
        assert_eq!(read(&written(one.clone())).expect("well formed"), one);
    }

    #[test]
    fn no_answer_resets_the_stream() {
        let mut stream = Cursor::new(vec![]);
        assert!(block_on(Codec.write_response(&PROTOCOL, &mut stream, vec![])).is_err());
    }
}
