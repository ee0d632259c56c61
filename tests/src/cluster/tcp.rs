//! The real transport over simulated TCP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use baton::cluster::net::Listen;
use baton::cluster::{Cluster, Config, Identity, Limits, MemoryLives, Metrics, Net, Parts, Security};
use baton_actors::raft::transport::Transport;
use baton_actors::world::World;
use baton_messages::types::Member;
use baton_storage::Store;
use turmoil::net::{TcpListener, TcpStream};

/// TCP between simulated hosts.
#[derive(Clone, Copy, Debug)]
struct SimTcp;

/// A bound address of a simulated host.
struct Listener(TcpListener);

impl Net for SimTcp {
    type Stream = TcpStream;
    type Listener = Listener;

    async fn connect(&self, address: &str) -> io::Result<(TcpStream, SocketAddr)> {
        let stream = TcpStream::connect(address).await?;
        let peer = stream.peer_addr()?;
        Ok((stream, peer))
    }

    async fn bind(&self, address: &str) -> io::Result<Listener> {
        TcpListener::bind(address).await.map(Listener)
    }

    /// Nobody but the simulation is on this network.
    fn is_private(&self, _: SocketAddr) -> bool {
        true
    }
}

impl Listen for Listener {
    type Stream = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        self.0.accept().await
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// The transport of a node's life, on its host.
pub(super) async fn transport(store: &Store, member: &Member, world: World) -> Arc<dyn Transport> {
    let identity = store.identity();
    let config = Config {
        identity: Identity {
            chain_id: identity.chain_id,
            genesis: identity.genesis_hash,
            cluster: store.cluster(),
            name: member.name.clone(),
            storage: identity.storage,
            boot: identity.boot,
        },
        listen: "0.0.0.0:7000".to_owned(),
        security: Security::InsecureLoopback,
        limits: Limits::default(),
    };
    let parts =
        Parts { world, lives: Arc::new(MemoryLives::default()), audit: None, metrics: Metrics::default() };
    Cluster::listen(config, SimTcp, parts).await.expect("a fresh host has its port")
}
