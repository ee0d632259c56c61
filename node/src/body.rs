//! Request bodies and answers: each is bounded in size and time, and all together in memory.
//!
//! Connections are many and cheap; what they carry is not. Strangers who send bodies without an
//! end, or read no answers, fill a budget of bytes and no more, and those who have sent little
//! hold little of it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes that may be in memory at a time.
#[derive(Clone, Debug)]
pub struct Budget {
    room: Arc<Semaphore>,
    bytes: usize,
}

/// Bytes of a budget; given back when dropped.
#[derive(Debug)]
pub struct Held(Vec<OwnedSemaphorePermit>);

/// Why there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// The client ended in the middle, or does not keep to the protocol.
    #[error("the body cannot be read to its end")]
    Broken,
    /// It is too long.
    #[error("the body is over the limit of {0} bytes")]
    TooLarge(usize),
    /// It came too slowly.
    #[error("the body did not arrive within {0:?}")]
    TooSlow(Duration),
    /// Others fill the budget.
    #[error("more than {0} bytes are on their way at a time")]
    NoRoom(usize),
}

impl Budget {
    /// A budget of so many bytes, at most 4 GiB.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let bytes = bytes.min(u32::MAX as usize);
        Self { room: Arc::new(Semaphore::new(bytes)), bytes }
    }

    fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes).ok()?;
        Arc::clone(&self.room).try_acquire_many_owned(bytes).ok()
    }

    /// Reads a body up to a limit of size and time. What has arrived counts against the budget
    /// until the second value is dropped.
    ///
    /// # Errors
    ///
    /// `Unread`.
    pub async fn read(&self, body: Body, limit: usize, within: Duration) -> Result<(Bytes, Held), Unread> {
        let mut parts = body.into_data_stream();
        let all = async {
            let (mut all, mut held) = (BytesMut::new(), Held(vec![]));
            while let Some(part) = parts.next().await {
                let part = part.map_err(|_| Unread::Broken)?;
                if all.len() + part.len() > limit {
                    return Err(Unread::TooLarge(limit));
                }
                let permit = self.take(part.len()).ok_or(Unread::NoRoom(self.bytes))?;
                match held.0.first_mut() {
                    Some(first) => first.merge(permit),
                    None => held.0.push(permit),
                }
                all.extend_from_slice(&part);
            }
            Ok((all.freeze(), held))
        };
        tokio::time::timeout(within, all).await.unwrap_or(Err(Unread::TooSlow(within)))
    }

    /// Counts an answer against the budget until it is sent. `None` when there is no room for it:
    /// clients do not read what they asked for.
    #[must_use]
    pub fn hold(&self, answer: Response) -> Option<Response> {
        let Some(bytes) = answer.body().size_hint().exact() else { return Some(answer) };
        let permit = self.take(usize::try_from(bytes).ok()?)?;
        Some(answer.map(|body| Body::new(Answer { body, held: Arc::new(permit) })))
    }
}

/// An answer on its way.
struct Answer {
    body: Body,
    held: Arc<OwnedSemaphorePermit>,
}

/// Part of an answer. The server takes parts out of the body at once and keeps them until the
/// client has read what was before.
struct Part {
    bytes: Bytes,
    _held: Arc<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        let part = |bytes| Bytes::from_owner(Part { bytes, _held: self.held.clone() });
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    const SOON: Duration = Duration::from_secs(1);

    /// A body that sends these bytes and then nothing, without an end.
    fn stuck(bytes: &'static [u8]) -> Body {
        let first = futures::stream::once(async move { Ok::<_, Infallible>(Bytes::from_static(bytes)) });
        Body::from_stream(first.chain(futures::stream::pending()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_bounded_in_size_and_in_time() {
        let budget = Budget::new(100);
        let (read, _held) = budget.read(Body::from("12345"), 5, SOON).await.unwrap();
        assert_eq!(&read[..], b"12345");
        assert_eq!(budget.read(Body::from("123456"), 5, SOON).await.unwrap_err(), Unread::TooLarge(5));
        assert_eq!(budget.read(stuck(b"1"), 5, SOON).await.unwrap_err(), Unread::TooSlow(SOON));
        let broken = futures::stream::once(async { Err::<Bytes, _>("gone") });
        let broken = budget.read(Body::from_stream(broken), 5, SOON).await;
        assert_eq!(broken.unwrap_err(), Unread::Broken);
    }

    #[tokio::test(start_paused = true)]
    async fn all_bodies_share_a_budget_and_slow_ones_hold_what_they_have_sent() {
        let budget = Budget::new(10);
        let (slow, other) = (budget.clone(), budget.clone());
        let slow = tokio::spawn(async move { slow.read(stuck(b"1234"), 100, SOON).await.map(|_| ()) });
        tokio::time::sleep(SOON / 2).await;
        assert_eq!(other.read(Body::from("1234567"), 100, SOON).await.unwrap_err(), Unread::NoRoom(10));
        let (_, held) = other.read(Body::from("123456"), 100, SOON).await.unwrap();
        assert_eq!(other.read(Body::from("1"), 100, SOON).await.unwrap_err(), Unread::NoRoom(10));
        drop(held);
        assert_eq!(slow.await.unwrap(), Err(Unread::TooSlow(SOON)));
        assert!(other.read(Body::from("1234567890"), 100, SOON).await.is_ok());
    }

    #[tokio::test]
    async fn answers_that_nobody_reads_fill_a_budget_and_no_more() {
        let budget = Budget::new(10);
        let answer = || Response::new(Body::from("123456"));
        let unread = budget.hold(answer()).unwrap();
        assert_eq!(unread.body().size_hint().exact(), Some(6));
        assert!(budget.hold(answer()).is_none());
        // Taken out of the body is not sent yet.
        let parts: Vec<_> = unread.into_body().into_data_stream().collect().await;
        assert_eq!(parts.len(), 1);
        assert_eq!(parts[0].as_deref().unwrap(), b"123456");
        assert!(budget.hold(answer()).is_none());
        drop(parts);
        assert!(budget.hold(answer()).is_some());
    }
}
