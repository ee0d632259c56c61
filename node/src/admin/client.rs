//! The other end of the admin socket: what the commands use.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::admin::protocol::{Answer, Command, LONGEST, Request, Response, VERSION};
use crate::admin::socket::Near;

/// Longer than the node gives any of its parts.
const ANSWER_WITHIN: Duration = Duration::from_secs(90);

/// An answer may name every member with all its reasons.
const LONGEST_ANSWER: u64 = 16 * LONGEST as u64;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody is there.
    #[error("no node runs with the home {}: there is no {} or nobody listens there ({source}); \
             start it, or say its --home", home.display(), path.display())]
    NotRunning {
        /// The home.
        home: PathBuf,
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Somebody is, and the system does not let this user in.
    #[error("{} may only be used by the node's own user and by root: run it as that user, with sudo -u", path.display())]
    Forbidden {
        /// The socket.
        path: PathBuf,
    },
    /// The connection broke. What was asked for may have been done.
    #[error("the node did not answer ({0}); it may have done what was asked: look at `baton cluster status`")]
    Broken(io::Error),
    /// Silence.
    #[error("no answer within {0:?}; look at `baton cluster status`")]
    TimedOut(Duration),
    /// Somebody else's words.
    #[error(
        "the node speaks version {0} of the admin protocol, this program {VERSION}: use the program of the node"
    )]
    OtherVersion(u32),
}

/// Asks a running node.
///
/// # Errors
///
/// When there is no answer.
pub async fn ask(home: &Path, path: &Path, command: Command) -> Result<Answer, Error> {
    let near = Near::to(path).map_err(|error| unreachable(home, path, error))?;
    let stream = UnixStream::connect(near.path()).await.map_err(|error| unreachable(home, path, error))?;
    match timeout(ANSWER_WITHIN, exchange(stream, command)).await {
        Ok(Ok(response)) if response.v == VERSION => Ok(response.answer),
        Ok(Ok(response)) => Err(Error::OtherVersion(response.v)),
        Ok(Err(error)) => Err(Error::Broken(error)),
        Err(_) => Err(Error::TimedOut(ANSWER_WITHIN)),
    }
}

fn unreachable(home: &Path, path: &Path, source: io::Error) -> Error {
    match source.kind() {
        io::ErrorKind::PermissionDenied => Error::Forbidden { path: path.to_owned() },
        _ => Error::NotRunning { home: home.to_owned(), path: path.to_owned(), source },
    }
}

async fn exchange(mut stream: UnixStream, command: Command) -> io::Result<Response> {
    let mut line = serde_json::to_vec(&Request { v: VERSION, command })?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let mut answer = vec![];
    let mut from = BufReader::new(stream.take(LONGEST_ANSWER));
    from.read_until(b'\n', &mut answer).await?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let response: Response = serde_json::from_slice(&answer)?;
    if response.answer == Answer::Stopping {
        // It ends with the process; how does not matter.
        let _ended = from.read_to_end(&mut answer).await;
    }
    Ok(response)
}
