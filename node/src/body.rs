//! Request bodies and answers: each is bounded in size and time, and all together in memory.
//!
//! Connections are many and cheap; what they carry is not. Strangers who send bodies without an
//! end, or read no answers, fill a budget of bytes and no more, and those who have sent little
//! hold little of it.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

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
}

/// Bytes of answers that one connection may leave unread before they count against the budget:
/// what strangers leave unread elsewhere takes nothing from those who read. Every answer about the
/// node's health is far smaller.
const FREE: usize = 128 << 10;

/// The answers of one connection that are not sent yet.
#[derive(Debug)]
pub struct Unsent {
    budget: Budget,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    bytes: usize,
    next: u64,
    /// Since when each waits to be read.
    since: BTreeMap<u64, Instant>,
}

impl Unsent {
    /// Nothing of a new connection. All connections of a port share the budget.
    #[must_use]
    pub fn new(budget: Budget) -> Arc<Self> {
        Arc::new(Self { budget, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds an answer until it is sent. `None` when there is no room for it: this client does not
    /// read what it asked for, and has a quarter of the budget already, or others have the rest.
    #[must_use]
    pub fn hold(self: &Arc<Self>, answer: Response) -> Option<Response> {
        let Some(bytes) = answer.body().size_hint().exact() else { return Some(answer) };
        let bytes = usize::try_from(bytes).ok()?;
        let mut state = self.state();
        let permit = if state.bytes + bytes <= FREE {
            None
        } else if state.bytes > 0 && state.bytes + bytes > self.budget.bytes / 4 {
            return None;
        } else {
            Some(self.budget.take(bytes)?)
        };
        let number = state.next;
        state.next += 1;
        state.bytes += bytes;
        state.since.insert(number, Instant::now());
        drop(state);
        let held = Arc::new(Waiting { unsent: self.clone(), number, bytes, _permit: permit });
        Some(answer.map(|body| Body::new(Answer { body, held })))
    }

    /// Since when the oldest answer waits to be read.
    #[must_use]
    pub fn oldest(&self) -> Option<Instant> {
        self.state().since.values().next().copied()
    }
}

/// An answer that is not sent yet, in the books of its connection.
struct Waiting {
    unsent: Arc<Unsent>,
    number: u64,
    bytes: usize,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = self.unsent.state();
        state.bytes -= self.bytes;
        state.since.remove(&self.number);
    }
}

/// An answer on its way.
struct Answer {
    body: Body,
    held: Arc<Waiting>,
}

/// Part of an answer. The server takes parts out of the body at once and keeps them until the
/// client has read what was before.
struct Part {
    bytes: Bytes,
    _held: Arc<Waiting>,
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

    fn answer(bytes: usize) -> Response {
        Response::new(Body::from(vec![7; bytes]))
    }

    #[tokio::test]
    async fn an_answer_is_held_until_it_is_sent() {
        let unsent = Unsent::new(Budget::new(10 * FREE));
        assert_eq!(unsent.oldest(), None);
        let unread = unsent.hold(answer(FREE + 1)).unwrap();
        assert_eq!(unread.body().size_hint().exact(), Some(FREE as u64 + 1));
        // Taken out of the body is not sent yet.
        let parts: Vec<_> = unread.into_body().into_data_stream().collect().await;
        assert_eq!(parts.len(), 1);
        assert_eq!(parts[0].as_deref().unwrap().len(), FREE + 1);
        assert!(unsent.oldest().is_some() && unsent.budget.room.available_permits() < 9 * FREE);
        drop(parts);
        assert_eq!((unsent.oldest(), unsent.budget.room.available_permits()), (None, 10 * FREE));
    }

    #[test]
    fn what_strangers_leave_unread_takes_nothing_from_those_who_read() {
        let budget = Budget::new(10 * FREE);
        let strangers: Vec<_> = (0..5).map(|_| Unsent::new(budget.clone())).collect();
        let unread: Vec<_> = strangers.iter().map(|stranger| stranger.hold(answer(2 * FREE))).collect();
        assert!(unread.iter().all(Option::is_some) && budget.take(1).is_none(), "the budget is used up");
        let client = Unsent::new(budget.clone());
        assert!(client.hold(answer(2 * FREE)).is_none(), "large answers have to wait");
        let small: Vec<_> = (0..4).map(|_| client.hold(answer(FREE / 4))).collect();
        assert!(small.iter().all(Option::is_some), "those of health and metrics do not");
        assert!(client.hold(answer(1)).is_none(), "unless the client leaves them unread too");
    }

    #[test]
    fn one_connection_has_a_quarter_of_the_budget_and_one_answer_in_any_case() {
        let unsent = Unsent::new(Budget::new(8 * FREE));
        let first = unsent.hold(answer(3 * FREE));
        assert!(first.is_some(), "one alone may be larger");
        assert!(unsent.hold(answer(FREE)).is_none());
        drop(first);
        let both = (unsent.hold(answer(FREE + 1)), unsent.hold(answer(FREE - 1)));
        assert!(both.0.is_some() && both.1.is_some());
        assert!(unsent.hold(answer(1)).is_none());
    }
}
