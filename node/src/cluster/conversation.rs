//! One connection after its handshake: what both directions have in common.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use baton_actors::raft::transport::{Caller, Class};
use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::codec::FramedRead;
use uuid::Uuid;

use crate::cluster::frame::{Frame, Frames};
use crate::cluster::gate::Admission;

/// A connection, encrypted or not.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Bodies over this size do not fit into buffers of the system.
const LARGE: usize = 64 << 10;

/// The half that frames come from.
pub(super) type Reader = FramedRead<Counted<ReadHalf<Box<dyn Wire>>>, Frames>;
/// The half that frames go to.
pub(super) type Writer = Counted<WriteHalf<Box<dyn Wire>>>;

/// A connection whose ends know each other.
pub(super) struct Conversation {
    pub(super) reader: Reader,
    pub(super) writer: Writer,
    pub(super) peer: Caller,
    pub(super) class: Class,
    pub(super) admission: Admission,
    pub(super) pulse: Arc<Pulse>,
    pub(super) address: String,
    /// The cluster that this node's hello named.
    pub(super) said: Option<Uuid>,
}

/// Counts bytes, and notes when some came.
#[derive(Debug)]
pub(super) struct Counted<T> {
    inner: T,
    pulse: Arc<Pulse>,
    pub(super) count: Option<Counter>,
}

impl<T> Counted<T> {
    pub(super) const fn new(inner: T, pulse: Arc<Pulse>) -> Self {
        Self { inner, pulse, count: None }
    }

    fn add(&self, bytes: usize) {
        if let Some(count) = &self.count {
            count.inc_by(bytes as u64);
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(context, buffer);
        let read = buffer.filled().len() - before;
        if read > 0 {
            self.pulse.heard();
            self.add(read);
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(context, buffer);
        if let Poll::Ready(Ok(written)) = polled {
            self.pulse.sent();
            self.add(written);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

/// Whether the other end shows signs of life.
#[derive(Debug)]
pub(super) struct Pulse(Mutex<Beat>);

#[derive(Clone, Copy, Debug)]
struct Beat {
    /// When something came last.
    heard: Instant,
    /// When something was asked since, first; while a large frame goes out, its last progress.
    asked: Option<Instant>,
    /// A large frame goes out.
    large: bool,
}

impl Pulse {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Beat { heard: Instant::now(), asked: None, large: false })))
    }

    fn beat(&self) -> MutexGuard<'_, Beat> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes came.
    fn heard(&self) {
        let mut beat = self.beat();
        beat.heard = Instant::now();
        beat.asked = None;
    }

    /// Bytes went out. Small frames go into a buffer of the system whether anybody reads or not;
    /// a large one only progresses when they do.
    fn sent(&self) {
        let mut beat = self.beat();
        if beat.large {
            beat.asked = Some(Instant::now());
        }
    }

    fn begins(&self, bytes: usize) {
        self.beat().large = bytes > LARGE;
    }

    /// Something is to come.
    pub(super) fn asked(&self) {
        self.beat().asked.get_or_insert_with(Instant::now);
    }

    /// For how long something should have come and nothing did.
    pub(super) fn silence(&self) -> Duration {
        self.beat().asked.map_or(Duration::ZERO, |asked| asked.elapsed())
    }

    /// How long ago something came.
    pub(super) fn quiet(&self) -> Duration {
        self.beat().heard.elapsed()
    }
}

/// Something to send.
pub(super) enum Item<Hold> {
    /// A frame, and what is let go of when it is written.
    Frame(Frame, Option<Hold>),
    /// A call, if somebody still waits for its answer then.
    Call {
        /// Its number.
        id: u64,
        /// When nobody waits any more.
        deadline: Instant,
        /// What is asked.
        body: Bytes,
    },
}

impl<Hold> Item<Hold> {
    pub(super) const fn bare(frame: Frame) -> Self {
        Self::Frame(frame, None)
    }
}

/// Sends what comes in until the channel closes, then ends the connection politely. A frame that
/// is not sent within `stall` ends it too. Returns why it could not go on.
pub(super) async fn write_all<Hold>(
    mut writer: Writer,
    mut items: mpsc::Receiver<Item<Hold>>,
    pulse: Arc<Pulse>,
    stall: Duration,
    is_wanted: impl Fn(u64) -> bool,
) -> Option<String> {
    while let Some(item) = items.recv().await {
        let (frame, _hold) = match item {
            Item::Frame(frame, hold) => (frame, hold),
            Item::Call { id, deadline, body } => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() || !is_wanted(id) {
                    continue;
                }
                // Rounded up: a call with any time left is carried out.
                let within = u32::try_from(left.as_millis()).unwrap_or(u32::MAX).saturating_add(1);
                (Frame::Call { id, within, body }, None)
            }
        };
        let body = if let Frame::Call { body, .. } = &frame { body.len() } else { 0 };
        pulse.begins(body);
        if matches!(frame, Frame::Call { .. } | Frame::Ping) {
            pulse.asked();
        }
        let written = tokio::time::timeout(stall, frame.write(&mut writer)).await;
        pulse.begins(0);
        match written {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Some(format!("the connection broke: {error}")),
            Err(_) => return Some(format!("a frame could not be sent within {stall:?}")),
        }
    }
    // Whoever does not take the good-bye has gone.
    let _ = tokio::time::timeout(Duration::from_secs(1), writer.shutdown()).await;
    None
}

/// A task that ends with its owner.
#[derive(Debug)]
pub(super) struct Owned<T>(pub(super) tokio::task::JoinHandle<T>);

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
