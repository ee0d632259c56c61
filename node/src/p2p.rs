//! The peer-to-peer network adapter: a libp2p swarm that speaks to ev-node's (wire section 6).
//!
//! TCP with Noise and Yamux; gossip over FloodSub where the peer speaks nothing newer, as ev-node
//! since v1.1.1; the header exchange; the public DHT to find others. Everything that knows about
//! the chain is in the actor, behind [`baton_actors::p2p::network::Network`].

mod answering;
mod behaviour;
mod codec;
mod host;
#[cfg(test)]
mod recorder;
#[cfg(test)]
mod tests;
mod waiting;

use std::collections::BTreeSet;
use std::time::Duration;

use baton_actors::p2p::{self, Parts};
use baton_actors::signer::key::FileKey;
use baton_messages::chain::Signer;
use baton_messages::p2p::PeerId as Peer;
use baton_messages::wire::p2p::Service;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, Swarm, SwarmBuilder, noise, tcp, yamux};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tracing::warn;

use behaviour::{Behaviour, services};
use host::{COMMANDS, EVENTS, Handle, Host};

pub use host::Metrics;

/// A connection without any stream lives on: gossip may come at any time.
const IDLE: Duration = Duration::from_secs(365 * 24 * 3600);

/// Where this node listens and whom it knows; the configuration, understood.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen.
    pub listen: Multiaddr,
    /// Peers to dial, with their addresses.
    pub peers: Vec<(Peer, String)>,
    /// Peers with which nothing is exchanged.
    pub blocked: BTreeSet<Peer>,
    /// Look for others in the DHT, and help others to.
    pub discovers: bool,
    /// Headers only: neither gossip nor exchange of data.
    pub headers_only: bool,
}

/// Why there is no peer-to-peer network.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("p2p.listen_address {address}: {reason}")]
    Listen {
        /// The address.
        address: Multiaddr,
        /// Why.
        reason: String,
    },
    /// A configured address is none.
    #[error("{key}: {address:?} is not the address of a peer: {reason}")]
    Address {
        /// The setting.
        key: &'static str,
        /// The address.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The swarm cannot be made.
    #[error("the peer-to-peer host cannot be made: {0}")]
    Host(String),
}

impl Config {
    /// Understands the settings; `None` where no listen address is set, which turns the
    /// network off.
    ///
    /// # Errors
    ///
    /// `Address` naming the setting.
    pub fn of(settings: &crate::config::P2p) -> Result<Option<Self>, Error> {
        if settings.listen_address.is_empty() {
            return Ok(None);
        }
        let listen = settings.listen_address.parse().map_err(|error| Error::Address {
            key: "p2p.listen_address",
            address: settings.listen_address.clone(),
            reason: format!("{error}"),
        })?;
        let named = |key, addresses: &[String]| -> Result<Vec<(Peer, String)>, Error> {
            addresses.iter().map(|address| with_id(key, address)).collect()
        };
        let peers = named("p2p.peers", &settings.peers)?;
        let blocked = named("p2p.blocked_peers", &settings.blocked_peers)?;
        let allowed = named("p2p.allowed_peers", &settings.allowed_peers)?;
        // As in ev-node: the second list takes names off the first, and the switch turns both off.
        let mut blocked: BTreeSet<Peer> = match settings.disable_connection_gater {
            true => BTreeSet::new(),
            false => blocked.into_iter().map(|(peer, _)| peer).collect(),
        };
        for (peer, _) in &allowed {
            blocked.remove(peer);
        }
        Ok(Some(Self { listen, peers, blocked, discovers: true, headers_only: false }))
    }

    /// How the actor is to behave on a chain with this signer.
    #[must_use]
    pub fn for_actor(&self, key: &FileKey, signer: Signer) -> p2p::Config {
        let mut config = p2p::Config::new(peer_id(key), signer);
        config.seeds.clone_from(&self.peers);
        config.seeds.retain(|(peer, _)| *peer != config.id);
        config.blocked.clone_from(&self.blocked);
        config
    }
}

/// The peer that an address names.
fn with_id(key: &'static str, address: &str) -> Result<(Peer, String), Error> {
    let wrong = |reason: String| Error::Address { key, address: address.to_owned(), reason };
    let parsed: Multiaddr = address.trim().parse().map_err(|error| wrong(format!("{error}")))?;
    match parsed.iter().last() {
        Some(Protocol::P2p(peer)) => Ok((peer_of(&peer), parsed.to_string())),
        _ => Err(wrong("it does not end in /p2p/ and the peer's id".to_owned())),
    }
}

/// A peer's id as the actors know it.
pub(crate) fn peer_of(peer: &PeerId) -> Peer {
    Peer::from(&*peer.to_base58())
}

/// The peer id of a node with this key.
#[must_use]
pub fn peer_id(key: &FileKey) -> Peer {
    peer_of(&keypair(key).public().to_peer_id())
}

fn keypair(key: &FileKey) -> Keypair {
    let pair = key.to_pair();
    let seed: [u8; 32] = pair[..32].try_into().expect("a pair begins with the seed");
    Keypair::ed25519_from_bytes(seed).expect("32 bytes are a key")
}

/// Listens, and starts the swarm's task on the current runtime. It ends with the actor.
///
/// # Errors
///
/// When the address is taken or is not one that can be listened on.
pub async fn open(config: &Config, key: &FileKey, chain_id: &str, metrics: Metrics) -> Result<Parts, Error> {
    let services = services(config.headers_only);
    let mut swarm = swarm(chain_id, &keypair(key), config.discovers, services).map_err(Error::Host)?;
    let refused = |reason: String| Error::Listen { address: config.listen.clone(), reason };
    check_free(&config.listen).await.map_err(|error| refused(error.to_string()))?;
    swarm.listen_on(config.listen.clone()).map_err(|error| refused(error.to_string()))?;
    let (command, commands) = mpsc::channel(COMMANDS);
    let (event, events) = mpsc::channel(EVENTS);
    let host = Host::new(swarm, chain_id.to_owned(), services, commands, event, metrics);
    #[allow(clippy::disallowed_methods)] // The adapter is outside of the simulation.
    tokio::spawn(host.run());
    Ok(Parts { network: Box::new(Handle(command)), events })
}

/// The swarm shares its port with whoever allows it, for the sake of dialling from it: two nodes
/// would each get half of the connections. So first it is asked for alone.
async fn check_free(address: &Multiaddr) -> std::io::Result<()> {
    let mut parts = address.iter();
    let ip: std::net::IpAddr = match parts.next() {
        Some(Protocol::Ip4(ip)) => ip.into(),
        Some(Protocol::Ip6(ip)) => ip.into(),
        _ => return Ok(()),
    };
    match parts.next() {
        Some(Protocol::Tcp(port)) if port != 0 => TcpListener::bind((ip, port)).await.map(drop),
        _ => Ok(()),
    }
}

fn swarm(
    chain_id: &str,
    keypair: &Keypair,
    discovers: bool,
    services: &[Service],
) -> Result<Swarm<Behaviour>, String> {
    let behaviour = Behaviour::new(chain_id, keypair, discovers, services)?;
    let transport = || {
        SwarmBuilder::with_existing_identity(keypair.clone())
            .with_tokio()
            .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
            .map_err(|error| error.to_string())
    };
    let tune = |config: libp2p::swarm::Config| config.with_idle_connection_timeout(IDLE);
    match transport()?.with_dns() {
        Ok(builder) => Ok(builder
            .with_behaviour(|_| behaviour)
            .map_err(|never| format!("{never:?}"))?
            .with_swarm_config(tune)
            .build()),
        Err(error) => {
            warn!(%error, "no resolver: peers with names instead of numbers cannot be dialled");
            Ok(transport()?
                .with_behaviour(|_| behaviour)
                .map_err(|never| format!("{never:?}"))?
                .with_swarm_config(tune)
                .build())
        }
    }
}
