//! One listener for HTTP/1.1 and h2c on which nobody can hold a place for nothing.
//!
//! Connections are counted; the one too many is told so and closed. A connection has a short
//! time for its first request and a longer one between requests, so that clients that send
//! nothing, or one byte at a time, cost a bounded number of places for a bounded time.

use std::future::Future;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower::ServiceExt;
use tracing::{debug, error, warn};

use crate::body::{Budget, Unsent};

/// How much a client may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections open at once; further ones get 503 and are closed.
    pub connections: usize,
    /// From the connection to the end of its first request's header.
    pub first_request: Duration,
    /// Between the end of one request and the end of the next one's header. Reading the
    /// answer is in it too.
    pub idle: Duration,
    /// From a request's header to its answer, the body's arrival included.
    pub request: Duration,
    /// Bytes of a request's body. No request of these services needs more than a few hundred.
    pub body: usize,
    /// Bytes of all bodies of RPC calls at once; calls beyond it get `unavailable`.
    pub bodies: usize,
    /// Bytes of all large answers that are not read yet; further ones become 503. A connection
    /// has a quarter of it at the most, and its first small answers do not count.
    pub answers: usize,
    /// RPC calls worked on at once; further ones get `unavailable`.
    pub calls: usize,
    /// RPC calls that read the store at once; further ones wait.
    pub reads: usize,
    /// After a stop, for the requests under way to end.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            first_request: Duration::from_secs(10),
            idle: Duration::from_secs(120),
            request: Duration::from_secs(10),
            body: 1 << 20,
            bodies: 64 << 20,
            answers: 128 << 20,
            calls: 64,
            reads: 8,
            drain: Duration::from_secs(5),
        }
    }
}

impl Limits {
    /// Files that the process needs for other things than these connections: the store's, and
    /// connections of peers.
    const OTHER_FILES: u64 = 832;
    /// Ports with connections: RPC, metrics, key-value.
    const PORTS: u64 = 3;

    /// These limits for a process that may open so many files: a connection is one, and a store
    /// that cannot open its files is worse than a client that is turned away.
    #[must_use]
    pub fn within(self, open_files: u64) -> Self {
        let each = open_files.saturating_sub(Self::OTHER_FILES) / Self::PORTS;
        let each = usize::try_from(each).unwrap_or(usize::MAX).max(16);
        Self { connections: self.connections.min(each), ..self }
    }
}

/// Raises the number of files this process may open to what the system allows it, and returns it.
/// Shells and service managers start with 1024, which is for programs that use `select`.
pub fn raise_open_files() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    if let Err(error) = raised {
        debug!(%error, "cannot raise the limit of open files");
        return current.unwrap_or(u64::MAX);
    }
    maximum.unwrap_or(u64::MAX)
}

/// Streams one HTTP/2 connection may have open, as in ev-node.
const STREAMS: u32 = 100;
/// HTTP/2: silence after which a ping goes out, and how long its answer may take.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(15));
/// Bytes of a request's header.
const HEADER: usize = 64 << 10;
/// Clients that may wait to be accepted, as far as the system lets them (`somaxconn`).
const BACKLOG: u32 = 4096;
/// For a polite good-bye to an idle connection.
const GOODBYE: Duration = Duration::from_secs(1);
/// Before accepting again after an error, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The answer to a connection too many.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-type: text/plain\r\n\
    content-length: 21\r\n\r\ntoo many connections\n";

/// What happens on a listener.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    open: Gauge,
    refused: Counter,
}

impl Metrics {
    /// Puts the handles into a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("connections", "Open connections", self.open.clone());
        registry.register(
            "connections_refused",
            "Connections closed because there were too many",
            self.refused.clone(),
        );
    }
}

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else listens there.
    #[error("{address} is taken by another process: stop it or choose another address")]
    Taken {
        /// What was asked for.
        address: String,
    },
    /// The operating system refuses.
    #[error("cannot listen on {address}: {source}")]
    Refused {
        /// What was asked for.
        address: String,
        /// What it says.
        source: io::Error,
    },
}

/// A bound port that does not answer yet.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
    limits: Limits,
    metrics: Metrics,
}

impl Listener {
    /// Binds `host:port`; port zero takes a free one.
    ///
    /// # Errors
    ///
    /// `BindError` when the address is taken or cannot be bound.
    pub async fn bind(address: &str, limits: Limits, metrics: Metrics) -> Result<Self, BindError> {
        let refused = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::Taken { address: address.to_owned() },
            _ => BindError::Refused { address: address.to_owned(), source },
        };
        let listener = listen(address).await.map_err(refused)?;
        let bound = listener.local_addr().map_err(refused)?;
        Ok(Self { listener, address: bound, limits, metrics })
    }

    /// Where it listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `shutdown` completes, then lets requests under way end for a while.
    pub async fn serve(self, router: Router, shutdown: impl Future<Output = ()>) {
        let Self { listener, limits, metrics, .. } = self;
        let places = Arc::new(Semaphore::new(limits.connections));
        let answers = Budget::new(limits.answers);
        let (stop, stopping) = watch::channel(false);
        let mut connections = JoinSet::new();
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(ended) = connections.join_next() => report(ended),
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => match Arc::clone(&places).try_acquire_owned() {
                        Ok(place) => {
                            let place = Place::taken(place, metrics.open.clone());
                            connections.spawn(converse(stream, router.clone(), answers.clone(), limits, stopping.clone(), place));
                        }
                        Err(_) => {
                            debug!(%peer, "refused a connection: too many are open");
                            metrics.refused.inc();
                            refuse(stream);
                        }
                    },
                    Err(error) => {
                        warn!(%error, "cannot accept connections for a moment");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(listener);
        stop.send_replace(true);
        let drained = async {
            while let Some(ended) = connections.join_next().await {
                report(ended);
            }
        };
        if tokio::time::timeout(limits.drain, drained).await.is_err() {
            connections.shutdown().await;
        }
    }
}

/// As `TcpListener::bind`, which lets no more than 128 clients wait to be accepted: of a thousand
/// that come at once the others would wait for a second each, until they ask again.
async fn listen(address: &str) -> io::Result<TcpListener> {
    let mut refused = io::Error::new(io::ErrorKind::InvalidInput, "the name has no address");
    for address in tokio::net::lookup_host(address).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        match socket.bind(address).and_then(|()| socket.listen(BACKLOG)) {
            Ok(listener) => return Ok(listener),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// One of the places for connections; counted while it is held.
struct Place {
    _permit: OwnedSemaphorePermit,
    open: Gauge,
}

impl Place {
    fn taken(permit: OwnedSemaphorePermit, open: Gauge) -> Self {
        open.inc();
        Self { _permit: permit, open }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.dec();
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        error!(%error, "a connection ended in a panic");
    }
}

/// Tells the client why, as far as one write goes.
fn refuse(stream: TcpStream) {
    if let Ok(mut stream) = stream.into_std()
        && let Err(error) = stream.write_all(FULL)
    {
        debug!(%error, "closed a connection without a word");
    }
}

/// Serves one connection to its end, or until it has asked for nothing for too long.
async fn converse(
    stream: TcpStream,
    router: Router,
    answers: Budget,
    limits: Limits,
    mut stopping: watch::Receiver<bool>,
    _place: Place,
) {
    let pace = Arc::new(Pace::new(limits));
    let unsent = Unsent::new(answers);
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        let busy = pace.begin();
        let answer = router.clone().oneshot(request.map(Body::new));
        let unsent = unsent.clone();
        async move {
            let answer = answer.await;
            drop(busy);
            answer.map(|answer| {
                let full = || (StatusCode::SERVICE_UNAVAILABLE, "too many answers are not read\n");
                unsent.hold(answer).unwrap_or_else(|| full().into_response())
            })
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.idle).max_buf_size(HEADER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(HEADER).unwrap_or(u32::MAX))
        .keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let mut last = None;
    loop {
        // Who reads no answers gets no time for further requests.
        let due = last.unwrap_or_else(|| pace.due().min(Instant::now() + limits.idle / 4));
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    debug!(%error, "a connection ended with an error");
                }
                return;
            }
            _ = stopping.changed(), if last.is_none() => {
                connection.as_mut().graceful_shutdown();
                last = Some(Instant::now() + limits.drain);
            }
            () = tokio::time::sleep_until(due) => {
                if last.is_some() {
                    return;
                }
                if unsent.oldest().is_some_and(|since| since.elapsed() >= limits.idle) {
                    debug!("closed a connection that reads no answers");
                    return;
                }
                if pace.is_over() {
                    connection.as_mut().graceful_shutdown();
                    last = Some(Instant::now() + GOODBYE);
                }
            }
        }
    }
}

/// When a connection has asked for nothing for too long.
struct Pace {
    since: Instant,
    idle: Duration,
    /// Requests being worked on.
    busy: AtomicUsize,
    /// Milliseconds from `since`.
    deadline: AtomicU64,
}

impl Pace {
    fn new(limits: Limits) -> Self {
        let deadline = AtomicU64::new(millis(limits.first_request));
        Self { since: Instant::now(), idle: limits.idle, busy: AtomicUsize::new(0), deadline }
    }

    fn begin(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::SeqCst);
        Busy(Arc::clone(self))
    }

    /// When to look again.
    fn due(&self) -> Instant {
        match self.busy.load(Ordering::SeqCst) {
            0 => self.since + Duration::from_millis(self.deadline.load(Ordering::SeqCst)),
            _ => Instant::now() + self.idle,
        }
    }

    fn is_over(&self) -> bool {
        self.busy.load(Ordering::SeqCst) == 0 && self.due() <= Instant::now()
    }
}

/// A request being worked on.
struct Busy(Arc<Pace>);

impl Drop for Busy {
    fn drop(&mut self) {
        let deadline = millis(self.0.since.elapsed() + self.0.idle);
        self.0.deadline.store(deadline, Ordering::SeqCst);
        self.0.busy.fetch_sub(1, Ordering::SeqCst);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
