//! A network of pipes: in memory, in virtual time, and it can be cut.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::{mpsc, watch};

use crate::cluster::net::{Listen, Net};

/// The bytes that are on their way in one direction.
const BUFFER: usize = 64 << 10;

/// The network.
#[derive(Clone)]
pub(super) struct Wires(Arc<Mutex<State>>);

struct State {
    listeners: BTreeMap<SocketAddr, mpsc::Sender<(DuplexStream, SocketAddr)>>,
    /// Nothing passes any more. What was connected stays so, and dead.
    cut: watch::Sender<bool>,
    /// Bytes per second of each direction of each connection; zero: no limit.
    rate: usize,
    dials: usize,
}

impl Wires {
    pub(super) fn new() -> Self {
        let cut = watch::Sender::new(false);
        Self(Arc::new(Mutex::new(State { listeners: BTreeMap::new(), cut, rate: 0, dials: 0 })))
    }

    /// What the host with this address sees of it.
    pub(super) fn host(&self, address: &str) -> Host {
        Host { wires: self.clone(), address: address.parse().unwrap() }
    }

    pub(super) fn set_rate(&self, rate: usize) {
        self.0.lock().unwrap().rate = rate;
    }

    pub(super) fn dials(&self) -> usize {
        self.0.lock().unwrap().dials
    }

    /// From now on nothing passes and nobody is told.
    pub(super) fn cut(&self) {
        self.0.lock().unwrap().cut.send_replace(true);
    }

    /// New connections pass again; those from before stay dead.
    pub(super) fn heal(&self) {
        self.0.lock().unwrap().cut = watch::Sender::new(false);
    }
}

/// One host's network.
#[derive(Clone)]
pub(super) struct Host {
    wires: Wires,
    address: SocketAddr,
}

impl Net for Host {
    type Stream = DuplexStream;
    type Listener = Listener;

    async fn connect(&self, address: &str) -> io::Result<(DuplexStream, SocketAddr)> {
        let to: SocketAddr = address.parse().map_err(io::Error::other)?;
        let (listener, cut, rate) = {
            let mut state = self.wires.0.lock().unwrap();
            state.dials += 1;
            (state.listeners.get(&to).cloned(), state.cut.subscribe(), state.rate)
        };
        if *cut.borrow() {
            std::future::pending::<()>().await;
        }
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let listener = listener.ok_or_else(refused)?;
        let ((near, near_end), (far_end, far)) = (duplex(BUFFER), duplex(BUFFER));
        let (near_read, near_write) = split(near_end);
        let (far_read, far_write) = split(far_end);
        tokio::spawn(pump(near_read, far_write, cut.clone(), rate));
        tokio::spawn(pump(far_read, near_write, cut, rate));
        listener.send((far, self.address)).await.map_err(|_| refused())?;
        Ok((near, to))
    }

    async fn bind(&self, address: &str) -> io::Result<Listener> {
        let address: SocketAddr = address.parse().map_err(io::Error::other)?;
        let (sender, accepted) = mpsc::channel(64);
        let mut state = self.wires.0.lock().unwrap();
        if state.listeners.get(&address).is_some_and(|listener| !listener.is_closed()) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        state.listeners.insert(address, sender);
        Ok(Listener { accepted, address })
    }
}

/// A bound address.
pub(super) struct Listener {
    accepted: mpsc::Receiver<(DuplexStream, SocketAddr)>,
    address: SocketAddr,
}

impl Listen for Listener {
    type Stream = DuplexStream;

    async fn accept(&mut self) -> io::Result<(DuplexStream, SocketAddr)> {
        self.accepted.recv().await.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

async fn pump(
    mut from: ReadHalf<DuplexStream>,
    mut to: WriteHalf<DuplexStream>,
    mut cut: watch::Receiver<bool>,
    rate: usize,
) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = tokio::select! {
            biased;
            Ok(_) = cut.wait_for(|cut| *cut) => break,
            read = from.read(&mut buffer) => read,
        };
        let Ok(read @ 1..) = read else {
            let _ = to.shutdown().await;
            return;
        };
        if rate > 0 {
            tokio::time::sleep(Duration::from_secs_f64(read as f64 / rate as f64)).await;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
    // Dead, not closed: neither end learns of it.
    std::future::pending::<()>().await;
}
