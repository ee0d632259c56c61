//! A TCP proxy in front of one address, for what a network can do to it: cuts, silence in one
//! direction, delay, stalls.
//!
//! It needs no privileges. What is lost on a real network comes late over TCP, or not at all: loss
//! is a stall as long as a retransmission takes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

/// How long a chunk that was "lost" is held up, as long as Linux' shortest retransmission.
const RETRANSMISSION: Duration = Duration::from_millis(200);

/// Chunks on their way in one direction, at the most.
const IN_FLIGHT: usize = 256;

/// What the network does now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Weather {
    /// Nothing gets through and connections are reset.
    pub cut: bool,
    /// What is sent to the address is swallowed until this ends; connections stay.
    pub deaf: bool,
    /// What the address answers is swallowed.
    pub mute: bool,
    /// Delay in each direction.
    pub delay: Duration,
    /// How many chunks of a thousand are held up by a retransmission.
    pub loss: u16,
}

/// A proxy in front of one address.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    weather: Arc<watch::Sender<Weather>>,
    accepting: JoinHandle<()>,
}

impl Link {
    /// A link to an address, in fair weather.
    ///
    /// # Panics
    ///
    /// When there is no port.
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a port");
        let address = listener.local_addr().expect("it is bound");
        let weather = Arc::new(watch::Sender::new(Weather::default()));
        let seen = weather.clone();
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((stream, _)) = accepted else { continue };
                        if !seen.borrow().cut {
                            connections.spawn(connect(stream, target, seen.subscribe()));
                        }
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Self { address, weather, accepting }
    }

    /// Where to dial.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the weather, for connections that are open too.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn connect(near: TcpStream, target: SocketAddr, weather: watch::Receiver<Weather>) {
    let Ok(far) = TcpStream::connect(target).await else { return };
    for stream in [&near, &far] {
        let _ = stream.set_nodelay(true);
    }
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let mut until_cut = weather.clone();
    let (there, back) = (weather.clone(), weather);
    tokio::select! {
        _ = until_cut.wait_for(|weather| weather.cut) => {}
        () = carry(near_read, far_write, there, |weather| weather.deaf) => {}
        () = carry(far_read, near_write, back, |weather| weather.mute) => {}
    }
}

/// Carries one direction until it ends.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    weather: watch::Receiver<Weather>,
    is_silent: fn(&Weather) -> bool,
) {
    let (sender, mut chunks) = mpsc::channel::<(Instant, Vec<u8>)>(IN_FLIGHT);
    let mut now = weather.clone();
    let reading = async move {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let Ok(read) = from.read(&mut buffer).await else { return };
            let delay = weather.borrow().delay;
            if read == 0 || sender.send((Instant::now() + delay, buffer[..read].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((due, chunk)) = chunks.recv().await {
            sleep_until(due).await;
            let loss = now.borrow().loss;
            if rand::random::<u16>() % 1_000 < loss {
                sleep(RETRANSMISSION).await;
            }
            // TCP keeps what is not acknowledged: it comes when the silence ends.
            if now.wait_for(|weather| !is_silent(weather)).await.is_err()
                || to.write_all(&chunk).await.is_err()
            {
                return;
            }
        }
    };
    tokio::join!(reading, writing);
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.into_split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        address
    }

    async fn says(stream: &mut TcpStream, word: &[u8], within: Duration) -> bool {
        stream.write_all(word).await.expect("written");
        let mut heard = vec![0; word.len()];
        let answer = tokio::time::timeout(within, stream.read_exact(&mut heard)).await;
        answer.is_ok_and(|answer| answer.is_ok() && heard == word)
    }

    #[tokio::test]
    async fn a_link_carries_holds_and_cuts() {
        let link = Link::to(echo().await).await;
        let mut stream = TcpStream::connect(link.address()).await.expect("connected");
        assert!(says(&mut stream, b"fair", Duration::from_secs(10)).await);

        link.set(Weather { mute: true, ..Weather::default() });
        assert!(!says(&mut stream, b"mute", Duration::from_millis(100)).await);
        link.set(Weather::default());
        let mut heard = [0; 4];
        stream.read_exact(&mut heard).await.expect("what was held comes");
        assert_eq!(&heard, b"mute");

        link.set(Weather { cut: true, ..Weather::default() });
        assert!(stream.read_exact(&mut heard).await.is_err(), "the connection ended");
    }
}
