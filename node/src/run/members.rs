//! The way to the other members, from the settings.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::Recipient;
use baton_actors::raft::transport::{CallError, Caller, Class, Names, Nobody, Serve, Transport};
use baton_actors::raft::{self, Bootstrap};
use baton_actors::world::World;
use baton_messages::cluster::HandshakeRefused;
use baton_messages::genesis::Genesis;
use baton_messages::types::Member;
use baton_storage::Store;
use bytes::Bytes;
use futures::future::BoxFuture;
use tracing::{info, warn};
use uuid::Uuid;

use crate::cluster::{self, Audit, FileLives, Refused};
use crate::config::{Config, First};
use crate::exit::ExitError;

/// This member as it stands in the membership.
pub(super) fn own(config: &Config, store: &Store) -> Member {
    Member {
        name: config.raft.node_id.clone(),
        address: config.raft.cluster.as_ref().map(|cluster| cluster.advertise.clone()).unwrap_or_default(),
        storage: store.identity().storage,
        witness: config.raft.witness,
    }
}

/// How this node comes to a cluster, when it belongs to none.
pub(super) fn bootstrap(config: &Config) -> Bootstrap {
    match config.raft.cluster.as_ref().map(|cluster| &cluster.first) {
        None | Some(First::Alone) => Bootstrap::Sole,
        Some(First::Join(addresses)) => Bootstrap::Join(addresses.clone()),
        Some(First::Peers(peers)) => {
            let peer = |peer: &crate::config::Peer| raft::Peer {
                name: peer.name.clone(),
                address: peer.address.clone(),
            };
            Bootstrap::Peers(peers.iter().map(peer).collect())
        }
    }
}

/// Listens to the other members; to nobody when there is no address for them.
///
/// # Errors
///
/// When the address is taken, or certificates are refused.
pub(super) async fn listen(
    config: &Config,
    genesis: &Genesis,
    store: &Store,
    world: &World,
    metrics: cluster::Metrics,
    journal: Recipient<HandshakeRefused>,
) -> Result<Arc<dyn Transport>, ExitError> {
    let Some(settings) = &config.raft.cluster else { return Ok(Arc::new(Nobody)) };
    let identity = store.identity();
    let told = cluster::Config {
        identity: cluster::Identity {
            chain_id: genesis.chain_id.clone(),
            genesis: genesis.hash(),
            cluster: store.cluster(),
            name: config.raft.node_id.clone(),
            storage: identity.storage,
            boot: identity.boot,
        },
        listen: settings.listen.clone(),
        security: config.raft.tls.choose(settings.addresses())?,
        limits: cluster::Limits::default(),
    };
    let audit: Audit = Arc::new(move |refused| put_on_record(&journal, refused));
    let parts = cluster::Parts {
        world: world.clone(),
        lives: Arc::new(FileLives::new(config.files.lives())),
        audit: Some(audit),
        metrics,
    };
    let transport = cluster::Cluster::listen(told, cluster::Tcp, parts).await?;
    info!(address = %transport.local_address(), advertised = settings.advertise, "the cluster transport listens");
    if settings.dial.is_empty() {
        return Ok(transport);
    }
    let names = match &settings.first {
        First::Peers(peers) => peers.iter().map(|peer| (peer.address.clone(), peer.name.clone())).collect(),
        First::Alone | First::Join(_) => BTreeMap::new(),
    };
    Ok(Arc::new(Redialled { transport, dial: settings.dial.clone(), names }))
}

/// A transport that dials some members elsewhere than where the membership has them (`raft.dial`).
struct Redialled {
    transport: Arc<dyn Transport>,
    dial: BTreeMap<String, String>,
    /// The names of those who are known by their address only, before there is a membership.
    names: BTreeMap<String, String>,
}

impl Transport for Redialled {
    fn call(
        &self,
        mut to: Member,
        class: Class,
        request: Bytes,
        within: Duration,
    ) -> BoxFuture<'static, Result<(Caller, Bytes), CallError>> {
        let name = if to.name.is_empty() { self.names.get(&to.address) } else { Some(&to.name) };
        if let Some(address) = name.and_then(|name| self.dial.get(name)) {
            to.address.clone_from(address);
        }
        self.transport.call(to, class, request, within)
    }

    fn serve(&self, serve: Option<Serve>) {
        self.transport.serve(serve);
    }

    fn know(&self, names: Option<Names>) {
        self.transport.know(names);
    }

    fn belongs_to(&self, cluster: Uuid) {
        self.transport.belongs_to(cluster);
    }

    fn limit(&self, class: Class) -> usize {
        self.transport.limit(class)
    }
}

fn put_on_record(journal: &Recipient<HandshakeRefused>, refused: Refused) {
    let Refused { by, cause, reason, address, name, .. } = refused;
    let line = HandshakeRefused {
        address,
        name: name.unwrap_or_default(),
        cause: cause.name().to_owned(),
        reason: format!("by {}: {reason}", by.name()),
    };
    if journal.try_send(line).is_err() {
        warn!(cause = cause.name(), "a refused handshake is in the log but not in the record of events");
    }
}
