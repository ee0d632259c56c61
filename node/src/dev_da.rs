//! A DA layer for development: Celestia's JSON-RPC on one port, blocks in one file.
//!
//! It answers as ev-node's local-da does (wire section 5.6), over HTTP POST and WebSocket at any
//! path, without authentication. Differences: blocks survive a restart, a submission is stored
//! whole or not at all, commitments are checked, and delays and failures can be ordered.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::extract::ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tracing::{debug, info, warn};

use crate::body::{Budget, Unread};

use self::faults::Faults;
use self::rpc::{Request, RpcError, response};
use self::store::Store;

mod faults;
mod frame;
mod methods;
mod rpc;
mod socket;
mod store;

/// The longest request, as go-jsonrpc has it.
const MAX_REQUEST: usize = 100 << 20;
/// How long a client may take to send a request.
const REQUEST_WITHIN: Duration = Duration::from_secs(60);
/// Connections at the same time, WebSockets not counted. More wait in the listener's queue.
const CONNECTIONS: usize = 256;
/// WebSocket connections at the same time.
const SOCKETS: usize = 256;
/// Bytes of HTTP requests in memory at the same time.
const BODIES: usize = 4 * MAX_REQUEST;
/// HTTP requests being worked on at the same time.
const REQUESTS: usize = 16;
/// How long running requests may take to end after the sign to stop.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// How a dev DA layer behaves.
#[derive(Clone, Debug)]
pub struct DevDaConfig {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The directory of the block file, made when it is missing. `None` forgets everything at
    /// the end.
    pub home: Option<PathBuf>,
    /// The time between empty blocks. Every submission makes a block of its own at once.
    pub block_time: Duration,
    /// The largest blob, in bytes.
    pub max_blob_size: usize,
    /// The mean delay of each request. Each delay is between half and one and a half of it.
    pub latency: Duration,
    /// The share of requests that fail, from 0 to 1. Some submissions "fail" after their blobs
    /// were stored, as it happens in life.
    pub error_rate: f64,
    /// Delays and failures are the same for the same seed and order of requests.
    pub seed: u64,
}

impl Default for DevDaConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7980)),
            home: None,
            block_time: Duration::from_secs(1),
            max_blob_size: 7 << 20,
            latency: Duration::ZERO,
            error_rate: 0.0,
            seed: 0,
        }
    }
}

/// Why there is no dev DA layer.
#[derive(Debug, thiserror::Error)]
pub enum DevDaError {
    /// A value makes no sense.
    #[error("{key} is {value}; it must be {rule}")]
    Config {
        /// The name of the setting.
        key: &'static str,
        /// What it is.
        value: String,
        /// What it must be.
        rule: &'static str,
    },
    /// The port cannot be had.
    #[error("cannot listen on {address}: {source}; choose another port or stop what uses it")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The file cannot be read or written.
    #[error("cannot use the block file {path}: {source}")]
    Store {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is something else.
    #[error("{path} is not a block file of this program; choose another home directory")]
    NotOurs {
        /// The file.
        path: PathBuf,
    },
    /// Another process has it open.
    #[error("{path} is in use by another process; stop it or choose another home directory")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A block in the middle cannot be read.
    #[error(
        "{path} is damaged at byte {offset}, with more blocks behind; restore it from a copy, or move it away \
         to start an empty DA layer"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the damaged block starts.
        offset: u64,
    },
}

/// A dev DA layer that has its port and its file, and does not run yet.
pub struct DevDa {
    listener: TcpListener,
    address: SocketAddr,
    block_time: Duration,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
}

/// What all requests share.
struct Shared {
    store: Store,
    faults: Faults,
    max_blob_size: usize,
    bodies: Budget,
    requests: Semaphore,
    sockets: Arc<Semaphore>,
    stop: watch::Receiver<bool>,
}

impl Shared {
    /// Waits for the sign to stop.
    async fn stopped(&self) {
        // An error means that the server is gone, which is the same.
        let _ = self.stop.clone().wait_for(|stop| *stop).await;
    }

    /// Runs what reads or writes the file.
    #[allow(clippy::disallowed_methods, reason = "a server of its own, never part of a simulation")]
    async fn off_thread<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        match tokio::task::spawn_blocking(work).await {
            Ok(done) => done,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

/// Opens the file and the port. Blocks are made and requests answered once it is served.
///
/// # Errors
///
/// A setting that makes no sense, a file that cannot be used, a port that is taken.
pub async fn bind(config: DevDaConfig) -> Result<DevDa, DevDaError> {
    check(&config)?;
    let store = Store::open(config.home.as_deref())?;
    let listen = |source| DevDaError::Listen { address: config.listen, source };
    let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    let (stop, stopped) = watch::channel(false);
    let shared = Arc::new(Shared {
        store,
        faults: Faults::new(config.latency, config.error_rate, config.seed),
        max_blob_size: config.max_blob_size,
        bodies: Budget::new(BODIES),
        requests: Semaphore::new(REQUESTS),
        sockets: Arc::new(Semaphore::new(SOCKETS)),
        stop: stopped,
    });
    Ok(DevDa { listener, address, block_time: config.block_time, shared, stop })
}

fn check(config: &DevDaConfig) -> Result<(), DevDaError> {
    let refuse = |key, value, rule| Err(DevDaError::Config { key, value, rule });
    if !(0.0..=1.0).contains(&config.error_rate) {
        return refuse("error-rate", config.error_rate.to_string(), "from 0 to 1");
    }
    if config.block_time.is_zero() {
        return refuse("block-time", format!("{:?}", config.block_time), "longer than zero");
    }
    if config.latency > Duration::from_secs(3600) {
        return refuse("latency", format!("{:?}", config.latency), "at most one hour");
    }
    if !(1..=64 << 20).contains(&config.max_blob_size) {
        return refuse("max-blob-size", config.max_blob_size.to_string(), "from 1 byte to 64 MiB");
    }
    Ok(())
}

impl DevDa {
    /// Where it listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The height of the newest block; zero before the first.
    #[must_use]
    pub fn height(&self) -> u64 {
        self.shared.store.height()
    }

    /// Makes blocks and answers requests until `shutdown` ends. Everything that was answered is
    /// in the file then; connections still open are dropped after two seconds.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        info!(address = %self.address, height = self.height(), "the dev DA layer runs");
        let app = Router::new().fallback(entry).with_state(self.shared.clone());
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        let mut ticks = interval_at(Instant::now() + self.block_time, self.block_time);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut shutdown = pin!(shutdown);
        loop {
            let accept = async {
                let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
                (self.listener.accept().await, permit)
            };
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                _ = ticks.tick() => make_empty_block(&self.shared).await,
                Some(_) = connections.join_next() => {}
                (accepted, permit) = accept => match accepted {
                    Ok((stream, _)) => {
                        let connection = serve_connection(stream, app.clone(), self.shared.clone());
                        connections.spawn(async move {
                            connection.await;
                            drop(permit);
                        });
                    }
                    Err(error) => {
                        warn!(%error, "cannot accept a connection");
                        sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
        self.stop.send_replace(true);
        let all_ended = async { while connections.join_next().await.is_some() {} };
        if timeout(STOP_WITHIN, all_ended).await.is_err() {
            debug!("dropped connections that did not end in time");
        }
        info!(height = self.height(), "the dev DA layer stopped");
    }
}

async fn make_empty_block(shared: &Arc<Shared>) {
    let store = shared.clone();
    let made = shared.off_thread(move || store.store.append(now(), &[])).await;
    if let Err(error) = made {
        warn!(%error, "made no block");
    }
}

async fn serve_connection(stream: TcpStream, app: Router, shared: Arc<Shared>) {
    // Answers are small and waited for.
    let _ = stream.set_nodelay(true);
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(REQUEST_WITHIN);
    let service = TowerToHyperService::new(app);
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service).with_upgrades());
    let ended = tokio::select! {
        biased;
        () = shared.stopped() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        ended = &mut connection => ended,
    };
    if let Err(error) = ended {
        debug!(%error, "a connection ended");
    }
}

/// Any path, any method: a WebSocket, or a request in the body.
async fn entry(
    State(shared): State<Arc<Shared>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    body: Body,
) -> Response {
    let Ok(upgrade) = upgrade else { return post(&shared, body).await };
    let Ok(permit) = shared.sockets.clone().try_acquire_owned() else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    upgrade.max_message_size(MAX_REQUEST).max_frame_size(MAX_REQUEST).on_upgrade(move |socket| async move {
        socket::serve(socket, shared).await;
        drop(permit);
    })
}

async fn post(shared: &Arc<Shared>, body: Body) -> Response {
    let (text, _held) = match shared.bodies.read(body, MAX_REQUEST, REQUEST_WITHIN).await {
        Ok(read) => read,
        Err(Unread::TooSlow(_)) => return StatusCode::REQUEST_TIMEOUT.into_response(),
        Err(Unread::NoRoom(_)) => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Err(error @ (Unread::Broken | Unread::TooLarge(_))) => {
            let error = RpcError::invalid_request(format!("cannot read a request: {error}"));
            return respond(StatusCode::PAYLOAD_TOO_LARGE, response(None, &Err(error)));
        }
    };
    // Taken for a request that is there: one that trickles in holds up nobody.
    let _permit = shared.requests.acquire().await.expect("the semaphore is never closed");
    let (id, answer) = answer(shared, text).await;
    let status = answer.as_ref().err().map_or(200, RpcError::status);
    let status = StatusCode::from_u16(status).expect("the statuses of errors are valid");
    if id.is_none() && answer.is_ok() {
        return status.into_response();
    }
    respond(status, response(id.as_ref(), &answer))
}

fn respond(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// Carries out one request: its id, and the result as JSON.
async fn answer(shared: &Arc<Shared>, text: Bytes) -> (Option<Value>, Result<String, RpcError>) {
    let request = match Request::read(&text) {
        Ok(request) => request,
        Err(error) => return (None, Err(error)),
    };
    let id = request.id.clone();
    let fate = shared.faults.draw(methods::submits(&request.method));
    if !fate.delay.is_zero() {
        sleep(fate.delay).await;
    }
    if let Some(failure) = fate.failure.filter(|failure| !failure.carried_out) {
        return (id, Err(RpcError::application(failure.message)));
    }
    let worker = shared.clone();
    let text = text.clone();
    let done = shared.off_thread(move || {
        let request = Request::read(&text)?;
        methods::call(&worker.store, worker.max_blob_size, now(), &request)
    });
    let answer = done.await;
    match fate.failure {
        Some(failure) if answer.is_ok() => (id, Err(RpcError::application(failure.message))),
        _ => (id, answer),
    }
}

/// Nanoseconds since 1970.
#[allow(clippy::disallowed_methods, reason = "a server of its own, never part of a simulation")]
fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
