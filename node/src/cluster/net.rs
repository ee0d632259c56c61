//! Connections as the transport needs them: real ones, and those of a simulation.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, lookup_host};

/// A network on which addresses are dialled and bound.
///
/// Addresses are `host:port`; a name is looked up at each dial, so that a member may move to
/// another address behind its name (hazard S17).
pub trait Net: Send + Sync + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// A bound address.
    type Listener: Listen<Stream = Self::Stream>;

    /// Connects, and says to which address the name led.
    fn connect(&self, address: &str) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send;

    /// Binds; port zero takes a free one.
    fn bind(&self, address: &str) -> impl Future<Output = io::Result<Self::Listener>> + Send;

    /// Whether connections with this address never leave the machine, so that nobody else can
    /// read them or speak on them: the only ones allowed without TLS.
    fn is_private(&self, address: SocketAddr) -> bool {
        address.ip().to_canonical().is_loopback()
    }
}

/// A bound address that takes connections.
pub trait Listen: Send + 'static {
    /// A connection.
    type Stream;

    /// The next connection and where it comes from.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send;

    /// Where it listens.
    ///
    /// # Errors
    ///
    /// When the system does not say.
    fn local_address(&self) -> io::Result<SocketAddr>;
}

/// For each address of a name but the last one.
const EACH: Duration = Duration::from_millis(300);

/// TCP of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Net for Tcp {
    type Stream = TcpStream;
    type Listener = TcpListener;

    async fn connect(&self, address: &str) -> io::Result<(TcpStream, SocketAddr)> {
        let candidates: Vec<_> = lookup_host(address).await?.collect();
        let mut refused = None;
        for (number, candidate) in candidates.iter().copied().enumerate() {
            let connecting = TcpStream::connect(candidate);
            let connected = match number + 1 == candidates.len() {
                true => connecting.await,
                false => tokio::time::timeout(EACH, connecting).await.unwrap_or_else(|late| Err(late.into())),
            };
            match connected {
                Ok(stream) => {
                    // A frame is written whole: waiting for more of it only delays it.
                    stream.set_nodelay(true)?;
                    return Ok((stream, candidate));
                }
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address")))
    }

    async fn bind(&self, address: &str) -> io::Result<TcpListener> {
        TcpListener::bind(address).await
    }
}

impl Listen for TcpListener {
    type Stream = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = TcpListener::accept(self).await?;
        // One that is gone again fails in its handshake.
        let _ = stream.set_nodelay(true);
        Ok((stream, peer))
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }
}
