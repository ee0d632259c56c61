//! The cluster transport: calls to other members over TCP, encrypted and within limits.
//!
//! One connection per member and class, made when it is needed, from each side to the other; a
//! connection carries calls one way and answers the other. Before the first call both ends say
//! who they are (`hello`) and part if they do not belong together, with a reason that both sides
//! log and count. It is the way of `actors::raft::transport::Transport`; what is in the calls is
//! not its matter.
//!
//! Runs on any tokio runtime, without actors, threads, or clocks but tokio's and the `World`'s: a
//! simulation brings another [`Net`].

mod backoff;
pub(crate) mod certificates;
mod conversation;
mod dialler;
pub mod frame;
mod gate;
mod handshake;
pub mod hello;
mod inbound;
pub mod limits;
mod link;
pub mod lives;
pub mod metrics;
pub mod net;
mod places;
pub mod refusals;
pub mod security;
#[cfg(test)]
mod tests;
pub mod tls;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use baton_actors::raft::transport::{CallError, Caller, Class, Names, Serve, Transport};
use baton_actors::world::World;
use baton_messages::types::{Hash, Member};
use bytes::Bytes;
use futures::future::BoxFuture;
use rand::rngs::StdRng;
use rand::{Rng, RngExt};
use tokio::runtime::Handle;
use tokio::time::Instant;
use uuid::Uuid;

use crate::cluster::gate::Gate;
use crate::cluster::hello::{Cause, Hello, Refusal};
use crate::cluster::link::Link;
use crate::cluster::lives::Lives;
use crate::cluster::net::Listen;
use crate::cluster::refusals::Refusals;
use crate::cluster::tls::{Tls, TlsError};

pub use crate::cluster::limits::{ClassLimits, Limits};
pub use crate::cluster::lives::{FileLives, MemoryLives};
pub use crate::cluster::metrics::Metrics;
pub use crate::cluster::net::{Net, Tcp};
pub use crate::cluster::refusals::{Audit, Refused};
pub use crate::cluster::security::Security;

/// How often somebody looks whether the certificates are others.
const LOOK: Duration = Duration::from_secs(1);

/// Who this node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The chain's name.
    pub chain_id: String,
    /// The hash of its genesis.
    pub genesis: Hash,
    /// The cluster, when it belongs to one already.
    pub cluster: Option<Uuid>,
    /// Its name (`raft.node_id`); with TLS a name in its certificate.
    pub name: String,
    /// The UUID of its storage.
    pub storage: Uuid,
    /// The life of its storage.
    pub boot: u64,
}

/// What the transport is told to do.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who this node is.
    pub identity: Identity,
    /// `host:port` to bind; port zero takes a free one.
    pub listen: String,
    /// Certificates, or plaintext.
    pub security: Security,
    /// How much and how long.
    pub limits: Limits,
}

/// What the transport is given.
#[derive(Clone)]
pub struct Parts {
    /// The clock for certificates, and chance for the run's id and for pauses.
    pub world: World,
    /// Where seen lives are kept.
    pub lives: Arc<dyn Lives>,
    /// Hears of refused handshakes.
    pub audit: Option<Audit>,
    /// What is counted.
    pub metrics: Metrics,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("world", &self.world).finish_non_exhaustive()
    }
}

/// Why there is no transport. Nothing was opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The certificates are refused.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The lives that were seen cannot be read.
    #[error(
        "cannot read which lives of members were seen: {0}; without the file (config/lives.json) the node \
         starts and forgets them: remove it only when no copy of a member's disk is in use"
    )]
    Lives(io::Error),
    /// Without TLS off the machine.
    #[error(
        "{0} can be reached from other machines: raft.tls.insecure_loopback is for loopback addresses only; \
         set raft.tls.ca, raft.tls.cert and raft.tls.key (`baton tls` makes them)"
    )]
    Plaintext(SocketAddr),
    /// Somebody else listens there.
    #[error("{address} is taken by another process: stop it or choose another raft.raft_addr")]
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

/// What links and connections share.
struct Shared<N: Net> {
    net: N,
    gate: Arc<Gate>,
    limits: Limits,
    /// Where tasks run, whoever calls: an actor's own runtime ends with the actor.
    runtime: Handle,
    serve: RwLock<Option<Serve>>,
    chance: Mutex<StdRng>,
}

impl<N: Net> Shared<N> {
    fn chance(&self) -> f64 {
        self.chance.lock().unwrap_or_else(PoisonError::into_inner).random()
    }

    fn serving(&self) -> Option<Serve> {
        self.serve.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The other end says which cluster it belongs to now.
    fn belongs(&self, cluster: Uuid, peer: &mut Caller) -> Result<(), Refusal> {
        match *self.gate.cluster.borrow() {
            Some(own) if own != cluster => {
                let reason = format!("it belongs to cluster {cluster} now, this node to {own}");
                Err(Refusal::new(Cause::Cluster, reason))
            }
            Some(_) | None => {
                peer.cluster = Some(cluster);
                Ok(())
            }
        }
    }
}

/// Whom a link leads to: another storage behind the same address is another link.
type Target = (String, Uuid, String, Class);

/// The transport of one process.
pub struct Cluster<N: Net> {
    shared: Arc<Shared<N>>,
    links: Arc<Mutex<BTreeMap<Target, Link>>>,
    address: SocketAddr,
}

impl<N: Net> fmt::Debug for Cluster<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("address", &self.address).finish_non_exhaustive()
    }
}

impl<N: Net> Cluster<N> {
    /// Checks the certificates, binds, and answers from now on; calls of others are denied until
    /// somebody serves. Ends when it is dropped or closed.
    ///
    /// # Errors
    ///
    /// `ListenError`; then nothing is open.
    pub async fn listen(config: Config, net: N, parts: Parts) -> Result<Arc<Self>, ListenError> {
        let Config { identity, listen, security, limits } = config;
        let Parts { world, lives, audit, metrics } = parts;
        let mut chance = world.generator("cluster transport");
        let tls = match security {
            Security::Tls(files) => Some(Tls::open(files, &identity.name, world.clone(), metrics.clone())?),
            Security::InsecureLoopback => None,
        };
        let mut run = [0; 16];
        chance.fill_bytes(&mut run);
        let own = Hello {
            chain_id: identity.chain_id,
            genesis: identity.genesis,
            cluster: identity.cluster,
            name: identity.name,
            storage: identity.storage,
            boot: identity.boot,
            run: Uuid::from_bytes(run),
            class: 0,
        };
        let refusals = Refusals::new(audit, metrics.clone());
        let gate = Gate::new(own, tls, lives, refusals, metrics).map_err(ListenError::Lives)?;
        let refused = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => ListenError::Taken { address: listen.clone() },
            _ => ListenError::Refused { address: listen.clone(), source },
        };
        let listener = net.bind(&listen).await.map_err(refused)?;
        let address = listener.local_address().map_err(refused)?;
        if gate.tls.is_none() && !net.is_private(address) {
            return Err(ListenError::Plaintext(address));
        }
        let shared = Arc::new(Shared {
            net,
            gate: Arc::new(gate),
            limits,
            runtime: Handle::current(),
            serve: RwLock::default(),
            chance: Mutex::new(chance),
        });
        tokio::spawn(inbound::accept_all(shared.clone(), listener));
        if shared.gate.tls.is_some() {
            tokio::spawn(watch_certificates(shared.gate.clone()));
        }
        Ok(Arc::new(Self { shared, links: Arc::default(), address }))
    }

    /// Where it listens.
    #[must_use]
    pub const fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every connection and accepts no more. Calls fail from now on.
    pub fn close(&self) {
        self.shared.gate.closing.cancel();
    }

    fn link(&self, to: Member, class: Class) -> Result<Link, CallError> {
        if self.shared.gate.closing.is_cancelled() {
            return Err(CallError::Unreachable("this node closes its connections".to_owned()));
        }
        let target = (to.address.clone(), to.storage, to.name.clone(), class);
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        match links.get(&target) {
            Some(link) if !link.is_over() => Ok(link.clone()),
            Some(_) | None => {
                links.retain(|_, link| !link.is_over());
                let link = Link::start(&self.shared, to, class);
                links.insert(target, link.clone());
                Ok(link)
            }
        }
    }
}

impl<N: Net> Drop for Cluster<N> {
    fn drop(&mut self) {
        self.close();
    }
}

/// Counts a call that nobody waits for any more.
struct Dropped {
    metrics: Metrics,
    class: Class,
    ended: bool,
}

impl Drop for Dropped {
    fn drop(&mut self) {
        if !self.ended {
            self.metrics.ended(self.class, "dropped");
        }
    }
}

impl<N: Net> Transport for Cluster<N> {
    fn call(
        &self,
        to: Member,
        class: Class,
        request: Bytes,
        within: Duration,
    ) -> BoxFuture<'static, Result<(Caller, Bytes), CallError>> {
        let limit = self.limit(class);
        let metrics = self.shared.gate.metrics.clone();
        let link = match request.len() > limit {
            true => Err(CallError::TooLarge { bytes: request.len(), limit }),
            false => self.link(to, class),
        };
        Box::pin(async move {
            let mut dropped = Dropped { metrics: metrics.clone(), class, ended: false };
            let started = Instant::now();
            let result = match link {
                Ok(link) => tokio::time::timeout(within, link.call(request, started + within))
                    .await
                    .unwrap_or(Err(CallError::TimedOut(within))),
                Err(error) => Err(error),
            };
            dropped.ended = true;
            metrics.ended(class, metrics::outcome(result.as_ref().map(drop)));
            if result.is_ok() {
                metrics.answered_after(class, started.elapsed());
            }
            result
        })
    }

    fn serve(&self, serve: Option<Serve>) {
        *self.shared.serve.write().unwrap_or_else(PoisonError::into_inner) = serve;
    }

    fn know(&self, names: Option<Names>) {
        self.shared.gate.know(names);
    }

    fn belongs_to(&self, cluster: Uuid) {
        self.shared.gate.cluster.send_if_modified(|known| {
            let changes = *known != Some(cluster);
            *known = Some(cluster);
            changes
        });
    }

    fn limit(&self, class: Class) -> usize {
        self.shared.limits.of(class).bytes
    }
}

/// Looks at the certificates, where a slow disk holds up no connection.
async fn watch_certificates(gate: Arc<Gate>) {
    let mut tick = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            biased;
            () = gate.closing.cancelled() => return,
            _ = tick.tick() => {
                let gate = gate.clone();
                let look = move || {
                    if let Some(tls) = &gate.tls {
                        tls.look();
                    }
                };
                #[allow(clippy::disallowed_methods, reason = "files are no part of a simulation")]
                let looked = tokio::task::spawn_blocking(look);
                if looked.await.is_err() {
                    return;
                }
            }
        }
    }
}
