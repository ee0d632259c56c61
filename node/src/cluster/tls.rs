//! Mutual TLS 1.3: who is who, proven by certificates of one authority.
//!
//! Both sides show a certificate that the authority in `raft.tls.ca` signed, with the node's name
//! among its DNS names; the handshake compares it with the name in the hello. The three files are
//! read again when they change, so certificates are renewed without a restart (hazard S18).
//! Connections that are open stay open.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use baton_actors::signer::files::FileError;
use baton_actors::world::World;
use tokio::time::Instant;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tracing::{error, info, warn};

use crate::cluster::certificates::{Loaded, Stamps, load, stamps};
use crate::cluster::hello::{Cause, Refusal};
use crate::cluster::metrics::{By, Metrics, ReloadLabels};

/// Files that were refused are tried again after this.
const AGAIN: Duration = Duration::from_secs(300);
/// Before the certificate runs out, a warning a day.
const EARLY: i64 = 14 * 24 * 3600;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Where the certificates are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Certificates of the authorities that sign nodes, PEM.
    pub ca: PathBuf,
    /// This node's certificate and what leads from it to the authority, PEM.
    pub cert: PathBuf,
    /// Its key, PEM; readable by its owner only.
    pub key: PathBuf,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file does not hold what it should.
    #[error("{} holds no {what}: {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// Why it does not.
        reason: String,
    },
    /// Certificate and key do not go together.
    #[error("certificate {} and key {} do not go together: {reason}", cert.display(), key.display())]
    Mismatch {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
        /// What rustls says.
        reason: String,
    },
    /// No other node would accept the certificate.
    #[error("the certificate {} is not accepted with the authority {}: {reason}", cert.display(), ca.display())]
    Untrusted {
        /// The certificate.
        cert: PathBuf,
        /// The authority.
        ca: PathBuf,
        /// Why.
        reason: String,
    },
    /// The certificate is another node's.
    #[error("the certificate {} is for {names}, this node is {node:?}: `baton tls node {node}` makes one", cert.display())]
    Name {
        /// The certificate.
        cert: PathBuf,
        /// Its names.
        names: String,
        /// The node's name.
        node: String,
    },
}

/// Checks the files as a start does; nothing is kept.
///
/// # Errors
///
/// What other members would refuse.
pub fn check(files: &Files, node: &str, world: &World) -> Result<(), TlsError> {
    load(files, node, world).map(drop)
}

/// The certificates in use.
pub(super) struct Tls {
    files: Files,
    node: String,
    world: World,
    metrics: Metrics,
    state: Mutex<State>,
}

struct State {
    loaded: Loaded,
    /// The files that were refused when they were looked at last, and when that was.
    refused: Option<(Stamps, Instant)>,
    warned: Option<Instant>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads and checks the files: what another member would refuse is refused here, at the start.
    pub(super) fn open(files: Files, node: &str, world: World, metrics: Metrics) -> Result<Self, TlsError> {
        let loaded = load(&files, node, &world)?;
        let state = State { loaded, refused: None, warned: None };
        let tls = Self { files, node: node.to_owned(), world, metrics, state: Mutex::new(state) };
        tls.watch_expiry(&mut tls.lock());
        Ok(tls)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the files again if they are others, and tells how long the certificate lasts. Blocks
    /// as long as the disk does; connections are made with what was read before.
    pub(super) fn look(&self) {
        let current = stamps(&self.files);
        let is_due = {
            let state = self.lock();
            // A certificate that is not good yet is good later, and the same file then.
            let tried = |(stamps, at): &(Stamps, Instant)| *stamps == current && at.elapsed() < AGAIN;
            current != state.loaded.stamps && !state.refused.as_ref().is_some_and(tried)
        };
        if is_due {
            let loaded = load(&self.files, &self.node, &self.world);
            let mut state = self.lock();
            let outcome = match loaded {
                Ok(loaded) => {
                    info!(ends = loaded.ends, "read the cluster certificates anew");
                    state.loaded = loaded;
                    state.refused = None;
                    "loaded"
                }
                // Somebody may be in the middle of replacing them; the next change is looked at.
                Err(error) => {
                    warn!(%error, "the changed cluster certificates are refused, the old ones stay in use");
                    state.refused = Some((current, Instant::now()));
                    "refused"
                }
            };
            self.metrics.reloads.get_or_create(&ReloadLabels { outcome }).inc();
        }
        self.watch_expiry(&mut self.lock());
    }

    fn watch_expiry(&self, state: &mut State) {
        let now = i64::try_from(self.world.now().0 / 1_000_000_000).unwrap_or(i64::MAX);
        let left = state.loaded.ends.saturating_sub(now);
        self.metrics.certificate_expiry.set(left);
        let due = state.warned.is_none_or(|warned| warned.elapsed() >= DAY);
        if left < EARLY && due {
            state.warned = Some(Instant::now());
            let path = self.files.cert.display();
            match left {
                ..=0 => {
                    error!(%path, "the cluster certificate has run out: members refuse this node; replace it, no restart is needed")
                }
                _ => {
                    warn!(%path, days = left / 86_400, "the cluster certificate runs out soon: replace it, no restart is needed")
                }
            }
        }
    }

    /// For a connection to be made.
    pub(super) fn connector(&self) -> TlsConnector {
        self.lock().loaded.client.clone().into()
    }

    /// For a connection that was accepted.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.lock().loaded.server.clone().into()
    }
}

/// What a dialler calls the other side. The certificate is checked against the hello's name.
pub(super) fn server_name(member: &str) -> ServerName<'static> {
    ServerName::try_from(member.to_owned())
        .or_else(|_| ServerName::try_from("member.invalid"))
        .expect("it is a name of a host")
}

/// Who refused and why, when an error of a connection is about TLS.
pub(super) fn trouble(error: &io::Error) -> Option<(By, Refusal)> {
    use rustls::AlertDescription as Alert;
    use rustls::Error as Tls;
    let tls = error.get_ref()?.downcast_ref::<Tls>()?;
    Some(match tls {
        Tls::InvalidCertificate(_) | Tls::NoCertificatesPresented => {
            let reason = format!("its certificate is not accepted: {tls}");
            (By::Us, Refusal::new(Cause::Certificate, reason))
        }
        Tls::AlertReceived(
            Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::DecryptError
            | Alert::CertificateRequired,
        ) => {
            let reason = format!("it does not accept this node's certificate: {tls}");
            (By::Them, Refusal::new(Cause::Certificate, reason))
        }
        Tls::AlertReceived(_) => (By::Them, Refusal::new(Cause::Malformed, tls.to_string())),
        _ => (By::Us, Refusal::new(Cause::Malformed, format!("not the cluster protocol: {tls}"))),
    })
}
