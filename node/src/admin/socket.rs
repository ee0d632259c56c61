//! The Unix socket: bound in the home, for its owner only.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use rustix::fs::{Mode, OFlags};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::admin::answer::{Desk, Peer};
use crate::admin::protocol::{Answer, Kind, LONGEST, Refusal, Request, Response, VERSION};

/// The longest path of a socket that the system takes, with some room.
const LONGEST_PATH: usize = 100;

/// How the socket behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it is.
    pub path: PathBuf,
    /// The users that may ask.
    pub users: Vec<u32>,
    /// Connections at a time.
    pub connections: usize,
    /// How long a line may take to arrive, and an answer to be taken.
    pub line_within: Duration,
}

impl Config {
    /// The socket of a home: for the user of this process and for root.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        let users = vec![rustix::process::geteuid().as_raw(), 0];
        Self { path, users, connections: 16, line_within: Duration::from_secs(10) }
    }
}

/// What the socket counts.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Commands that could change something, and did not fail.
    pub done: Counter,
    /// Commands that were refused.
    pub refused: Counter,
    /// Connections that were turned away.
    pub turned_away: Counter,
}

impl Metrics {
    /// Makes the metrics visible.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("admin");
        registry.register("commands", "Commands of operators that were carried out", self.done.clone());
        registry.register("refused", "Commands of operators that were refused", self.refused.clone());
        registry.register(
            "turned_away",
            "Connections to the admin socket by other users, or too many",
            self.turned_away.clone(),
        );
    }
}

/// The socket cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("the admin socket {} cannot be made: {source}", path.display())]
pub struct BindError {
    /// Where.
    pub path: PathBuf,
    /// What the system says.
    pub source: io::Error,
}

/// The socket, bound and not yet answering.
#[derive(Debug)]
pub struct Admin {
    config: Config,
    listener: UnixListener,
    metrics: Metrics,
}

impl Admin {
    /// Binds the socket. One that an earlier process left is replaced: who has the store has the
    /// home, so the store must be open before.
    ///
    /// # Errors
    ///
    /// When the system refuses, or something that is no socket is in its place.
    pub fn bind(config: Config, metrics: Metrics) -> Result<Self, BindError> {
        let listener =
            bind(&config.path).map_err(|source| BindError { path: config.path.clone(), source })?;
        Ok(Self { config, listener, metrics })
    }

    /// Answers until `closed` completes; then the socket is gone.
    pub async fn serve(self, desk: Desk, closed: impl Future<Output = ()>) {
        let (desk, metrics) = (Arc::new(desk), self.metrics);
        let config = Arc::new(self.config);
        let places = Arc::new(Semaphore::new(config.connections));
        tokio::pin!(closed);
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut closed => break,
                accepted = self.listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, most likely: it may pass.
                    warn!(%error, "the admin socket cannot accept");
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(place) = places.clone().try_acquire_owned() else {
                metrics.turned_away.inc();
                let busy =
                    Answer::Refused(Refusal::new(Kind::Busy, "too many connections to the admin socket"));
                tokio::spawn(last_words(stream, busy));
                continue;
            };
            let (desk, config, metrics) = (desk.clone(), config.clone(), metrics.clone());
            tokio::spawn(async move {
                if let Err(error) = converse(stream, &desk, &config, &metrics).await {
                    debug!(%error, "a connection to the admin socket ended");
                }
                drop(place);
            });
        }
        let _gone = fs::remove_file(&config.path);
    }
}

/// Answers one line after the other.
async fn converse(stream: UnixStream, desk: &Desk, config: &Config, metrics: &Metrics) -> io::Result<()> {
    let credentials = stream.peer_cred()?;
    let peer = Peer { uid: credentials.uid(), pid: credentials.pid() };
    if !config.users.contains(&peer.uid) {
        metrics.turned_away.inc();
        let why = format!("user {} may not give commands to this node", peer.uid);
        desk.turned_away(peer, &why).await;
        last_words(stream, Answer::Refused(Refusal::new(Kind::Forbidden, why))).await;
        return Ok(());
    }
    let (reading, mut writing) = stream.into_split();
    let mut reading = BufReader::new(reading);
    loop {
        let line = match timeout(config.line_within, read_line(&mut reading)).await {
            Ok(Ok(Some(line))) => line,
            // The end, or silence. Whoever is slow connects again.
            Ok(Ok(None)) | Err(_) => return Ok(()),
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                metrics.refused.inc();
                let answer = Answer::Refused(Refusal::new(Kind::BadRequest, error));
                return write(&mut writing, answer, config.line_within).await;
            }
            Ok(Err(error)) => return Err(error),
        };
        let answer = match read(&line) {
            Ok(request) => desk.answer(request.command, peer).await,
            Err(refusal) => Answer::Refused(refusal),
        };
        match &answer {
            Answer::Refused(_) => metrics.refused.inc(),
            Answer::Status(_) => 0,
            Answer::HandedOff { .. }
            | Answer::Paused
            | Answer::Resumed
            | Answer::Stopping
            | Answer::Changed { .. } => metrics.done.inc(),
        };
        let stops = answer == Answer::Stopping;
        let written = write(&mut writing, answer, config.line_within).await;
        if stops {
            desk.links.stop.notify_one();
            // The other end sees when this node has stopped: the connection ends with the process.
            std::future::pending::<()>().await;
        }
        written?;
    }
}

/// A line without its end; `None` at the end. Never more than the longest line is read.
async fn read_line(from: &mut (impl AsyncBufReadExt + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut line = vec![];
    let read = from.take(LONGEST as u64 + 1).read_until(b'\n', &mut line).await?;
    match line.last() {
        None => Ok(None),
        Some(b'\n') => {
            line.pop();
            Ok(Some(line))
        }
        Some(_) if read > LONGEST => {
            let message = format!("a line has at most {LONGEST} bytes");
            Err(io::Error::new(io::ErrorKind::InvalidData, message))
        }
        Some(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "the line has no end")),
    }
}

fn read(line: &[u8]) -> Result<Request, Refusal> {
    let bad = |message: String| Refusal::new(Kind::BadRequest, message);
    // The version first: another one may have other words.
    let value: serde_json::Value =
        serde_json::from_slice(line).map_err(|error| bad(format!("this is not a request: {error}")))?;
    match value.get("v").and_then(serde_json::Value::as_u64) {
        Some(version) if version == u64::from(VERSION) => {}
        Some(version) => {
            return Err(bad(format!(
                "version {version} of the protocol is not known here, this node has {VERSION}"
            )));
        }
        None => return Err(bad("a request has the version of the protocol in \"v\"".to_owned())),
    }
    serde_json::from_value(value).map_err(|error| bad(format!("this is not a request: {error}")))
}

async fn write(to: &mut (impl AsyncWriteExt + Unpin), answer: Answer, within: Duration) -> io::Result<()> {
    let mut line = serde_json::to_vec(&Response { v: VERSION, answer })?;
    line.push(b'\n');
    timeout(within, to.write_all(&line)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn last_words(mut stream: UnixStream, answer: Answer) {
    let _nobody_hears = write(&mut stream, answer, Duration::from_secs(1)).await;
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(there) if there.file_type().is_socket() => fs::remove_file(path)?,
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it is there and no socket")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let near = Near::to(path)?;
    let listener = UnixListener::bind(near.path())?;
    // Whoever connects before this is asked for the user all the same.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// A socket's path, short enough for the system: a long one goes through its open directory.
#[derive(Debug)]
pub(super) struct Near {
    path: PathBuf,
    _directory: Option<OwnedFd>,
}

impl Near {
    pub(super) fn to(path: &Path) -> io::Result<Self> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        if path.as_os_str().len() <= LONGEST_PATH {
            return Ok(Self { path: path.to_path_buf(), _directory: None });
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(parent, flags, Mode::empty())?;
        let path = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
        Ok(Self { path, _directory: Some(directory) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
