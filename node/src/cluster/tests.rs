//! Whole transports talk to each other: over a network of pipes in virtual time, and over TCP.

mod calls;
mod certificates;
mod handshakes;
mod strangers;
mod wires;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use baton_actors::world::Clock;
use baton_messages::types::{MemberId, Timestamp};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use super::*;
use crate::cluster::metrics::{CallLabels, RefusedLabels, WayLabels};
use crate::cluster::tls::Files;
use crate::tls_tool::{Pair, Validity, make_authority, make_node};
use wires::{Host, Wires};

/// Seconds since the epoch at which tests begin.
const NOW: u64 = 1_800_000_000;
const DAY: u64 = 86_400;

/// A wall clock that a test sets.
#[derive(Clone, Default)]
struct Hand(Arc<AtomicU64>);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp((NOW + self.0.load(Ordering::Relaxed)) * 1_000_000_000)
    }
}

/// A node to be: what a test changes before it starts.
#[derive(Clone)]
struct Spec {
    config: Config,
    seed: u64,
    clock: Hand,
    lives: Arc<dyn Lives>,
}

impl Spec {
    /// A node called `n<number>` on an address of its own, without TLS.
    fn new(number: u8) -> Self {
        let identity = Identity {
            chain_id: "chain".to_owned(),
            genesis: Hash::of(b"genesis"),
            cluster: Some(Uuid::from_u128(77)),
            name: format!("n{number}"),
            storage: Uuid::from_u128(u128::from(number) << 64),
            boot: 1,
        };
        let config = Config {
            identity,
            listen: format!("127.0.0.{number}:100"),
            security: Security::InsecureLoopback,
            limits: Limits::default(),
        };
        Self { config, seed: number.into(), clock: Hand::default(), lives: Arc::new(MemoryLives::default()) }
    }

    fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    fn identity(self, change: impl FnOnce(&mut Identity)) -> Self {
        self.with(|config| change(&mut config.identity))
    }

    /// With certificates in a directory.
    fn certified(self, files: &Path) -> Self {
        self.with(|config| config.security = Security::Tls(files_in(files)))
    }

    async fn listen<N: Net>(self, net: N) -> Result<Node<N>, ListenError> {
        let told: Arc<Mutex<Vec<Refused>>> = Arc::default();
        let audit: Audit = {
            let told = told.clone();
            Arc::new(move |refused| told.lock().unwrap().push(refused))
        };
        let metrics = Metrics::default();
        let parts = Parts {
            world: World::new(Arc::new(self.clock), self.seed),
            lives: self.lives,
            audit: Some(audit),
            metrics: metrics.clone(),
        };
        let identity = self.config.identity.clone();
        let cluster = Cluster::listen(self.config, net, parts).await?;
        let member = Member {
            name: identity.name.clone(),
            address: cluster.local_address().to_string(),
            storage: identity.storage,
            witness: false,
        };
        Ok(Node { cluster, member, told, metrics })
    }

    /// On the network of pipes.
    async fn start(self, wires: &Wires) -> Node<Host> {
        let host = wires.host(&self.config.listen);
        self.listen(host).await.unwrap()
    }

    /// On TCP, at a free port.
    async fn start_on_tcp(self) -> Node<Tcp> {
        self.with(|config| config.listen = "127.0.0.1:0".to_owned()).listen(Tcp).await.unwrap()
    }
}

/// A running node.
struct Node<N: Net> {
    cluster: Arc<Cluster<N>>,
    member: Member,
    told: Arc<Mutex<Vec<Refused>>>,
    metrics: Metrics,
}

impl<N: Net> Node<N> {
    async fn call(&self, to: &Member, class: Class, body: &[u8]) -> Result<(Caller, Bytes), CallError> {
        self.call_within(to, class, body, Duration::from_secs(10)).await
    }

    async fn call_within(
        &self,
        to: &Member,
        class: Class,
        body: &[u8],
        within: Duration,
    ) -> Result<(Caller, Bytes), CallError> {
        self.cluster.call(to.clone(), class, Bytes::copy_from_slice(body), within).await
    }

    /// Answers with what it was asked, in front of it the caller's name.
    fn echo(&self) {
        self.cluster.serve(Some(Arc::new(|caller: Caller, class: Class, body: Bytes| {
            let answer = [caller.name.as_bytes(), class.name().as_bytes(), &body].concat();
            Box::pin(std::future::ready(Ok(answer.into())))
        })));
    }

    /// Answers after a time.
    fn answer_after(&self, pause: Duration) {
        self.cluster.serve(Some(Arc::new(move |_, _, body: Bytes| {
            Box::pin(async move {
                tokio::time::sleep(pause).await;
                Ok(body)
            })
        })));
    }

    fn told(&self) -> Vec<(metrics::By, Cause)> {
        self.told.lock().unwrap().iter().map(|refused| (refused.by, refused.cause)).collect()
    }

    fn refusals(&self, by: metrics::By, cause: Cause) -> u64 {
        let labels = RefusedLabels { by: by.name(), cause: cause.name() };
        self.metrics.refused_handshakes.get_or_create(&labels).get()
    }

    fn calls(&self, class: Class, outcome: &'static str) -> u64 {
        let counter: Counter =
            self.metrics.calls.get_or_create_owned(&CallLabels { class: class.name(), outcome });
        counter.get()
    }

    fn gauge(
        family: &prometheus_client::metrics::family::Family<WayLabels, Gauge>,
        class: Class,
        way: &'static str,
    ) -> i64 {
        family.get_or_create(&WayLabels { class: class.name(), way }).get()
    }

    fn connections(&self, class: Class, way: &'static str) -> i64 {
        Self::gauge(&self.metrics.connections, class, way)
    }

    fn in_flight(&self, class: Class, way: &'static str) -> i64 {
        Self::gauge(&self.metrics.in_flight, class, way)
    }
}

/// Two nodes that echo, on pipes.
async fn two(wires: &Wires) -> (Node<Host>, Node<Host>) {
    let (one, two) = (Spec::new(1).start(wires).await, Spec::new(2).start(wires).await);
    one.echo();
    two.echo();
    (one, two)
}

fn files_in(directory: &Path) -> Files {
    Files { ca: directory.join("ca.pem"), cert: directory.join("node.pem"), key: directory.join("node.key") }
}

/// An authority that is good for the tests' time.
fn authority() -> Pair {
    make_authority(Validity { from: NOW - 10 * DAY, to: NOW + 1000 * DAY }).unwrap()
}

/// Puts a node's certificates into a directory. Good from a day ago for so many days.
fn certify(authority: &Pair, name: &str, directory: &Path, days: u64) {
    use std::os::unix::fs::PermissionsExt;
    let pair = make_node(authority, name, &[], Validity { from: NOW - DAY, to: NOW + days * DAY }).unwrap();
    std::fs::create_dir_all(directory).unwrap();
    let files = files_in(directory);
    std::fs::write(&files.ca, &authority.cert).unwrap();
    std::fs::write(&files.cert, pair.cert).unwrap();
    std::fs::write(&files.key, &*pair.key).unwrap();
    std::fs::set_permissions(&files.key, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// Until something holds, at most for so long.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let looked = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(10), looked).await.is_ok(), "never {what}");
}
