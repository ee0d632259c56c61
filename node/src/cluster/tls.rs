//! Mutual TLS 1.3: who is who, proven by certificates of one authority.
//!
//! Both sides show a certificate that the authority in `raft.tls.ca` signed, with the node's name
//! among its DNS names; the handshake compares it with the name in the hello. The three files are
//! read again when they change, so certificates are renewed without a restart (hazard S18).
//! Connections that are open stay open.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use baton_actors::signer::files::{FileError, read_private, read_public};
use baton_actors::world::World;
use tokio::time::Instant;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use tokio_rustls::rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use tokio_rustls::rustls::time_provider::TimeProvider;
use tokio_rustls::rustls::{
    self, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme, version,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tracing::{error, info, warn};

use crate::cluster::metrics::{By, Metrics, ReloadLabels};

/// The longest file that is read.
const LONGEST: u64 = 1 << 20;
/// The files are looked at no more often than this.
const LOOK: Duration = Duration::from_secs(1);
/// Before the certificate runs out, a warning a day.
const EARLY: i64 = 14 * 24 * 3600;
const DAY: Duration = Duration::from_secs(24 * 3600);
/// What both sides must say they speak: another TLS server does not pass for a member.
const ALPN: &[u8] = b"baton-cluster";

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

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    /// Its DNS names.
    pub(crate) names: Vec<String>,
    /// When it ends, seconds since the Unix epoch.
    pub(crate) ends: i64,
}

/// Reads a certificate.
pub(crate) fn read_certificate(certificate: &[u8]) -> Result<Said, String> {
    use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
    let alternatives = parsed.subject_alternative_name().map_err(|error| error.to_string())?;
    let names = alternatives.map_or(&[][..], |extension| &extension.value.general_names);
    let names = names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    });
    Ok(Said { names: names.collect(), ends: parsed.validity().not_after.timestamp() })
}

/// The time of the node's clock, for the validity of certificates.
#[derive(Debug)]
struct Now(World);

impl Now {
    fn time(&self) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_nanos(self.0.now().0))
    }
}

impl TimeProvider for Now {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.time())
    }
}

/// Accepts whom the authority signed, whatever the name: the hello's is compared afterwards, and a
/// node that joins by address cannot know it before.
#[derive(Debug)]
struct Signed {
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Signed {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only TLS 1.3 is spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The files as they were read last.
struct Loaded {
    stamps: Stamps,
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    ends: i64,
}

/// What changes when somebody replaces a file.
type Stamps = [Option<(u64, u64, i64, i64)>; 3];

fn stamps(files: &Files) -> Stamps {
    let stamp = |path: &Path| {
        let file = std::fs::metadata(path).ok()?;
        Some((file.ino(), file.len(), file.mtime(), file.mtime_nsec()))
    };
    [stamp(&files.ca), stamp(&files.cert), stamp(&files.key)]
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
    looked: Instant,
    /// The files that were refused when they were looked at last.
    refused: Option<Stamps>,
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
        let state = State { loaded, looked: Instant::now(), refused: None, warned: None };
        let tls = Self { files, node: node.to_owned(), world, metrics, state: Mutex::new(state) };
        tls.watch_expiry(&mut tls.lock());
        Ok(tls)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the files again if they are others, and tells how long the certificate lasts.
    pub(super) fn look(&self) {
        self.look_at(&mut self.lock());
    }

    fn look_at(&self, state: &mut State) {
        let now = Instant::now();
        if now.saturating_duration_since(state.looked) < LOOK {
            return;
        }
        state.looked = now;
        let current = stamps(&self.files);
        if current != state.loaded.stamps && state.refused != Some(current) {
            let outcome = match load(&self.files, &self.node, &self.world) {
                Ok(loaded) => {
                    info!(ends = loaded.ends, "read the cluster certificates anew");
                    state.loaded = loaded;
                    state.refused = None;
                    "loaded"
                }
                // Somebody may be in the middle of replacing them; the next change is looked at.
                Err(error) => {
                    warn!(%error, "the changed cluster certificates are refused, the old ones stay in use");
                    state.refused = Some(current);
                    "refused"
                }
            };
            self.metrics.reloads.get_or_create(&ReloadLabels { outcome }).inc();
        }
        self.watch_expiry(state);
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
        let mut state = self.lock();
        self.look_at(&mut state);
        state.loaded.client.clone().into()
    }

    /// For a connection that was accepted.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let mut state = self.lock();
        self.look_at(&mut state);
        state.loaded.server.clone().into()
    }
}

/// What a dialler calls the other side. The certificate is checked against the hello's name.
pub(super) fn server_name(member: &str) -> ServerName<'static> {
    ServerName::try_from(member.to_owned())
        .or_else(|_| ServerName::try_from("member.invalid"))
        .expect("it is a name of a host")
}

/// Who refused a certificate and why, when an error of a connection is about that.
pub(super) fn certificate_trouble(error: &io::Error) -> Option<(By, String)> {
    use rustls::Error as Tls;
    let tls = error.get_ref()?.downcast_ref::<Tls>()?;
    match tls {
        Tls::InvalidCertificate(_) | Tls::NoCertificatesPresented => {
            Some((By::Us, format!("its certificate is not accepted: {tls}")))
        }
        Tls::AlertReceived(_) => {
            Some((By::Them, format!("it does not accept this node's certificate: {tls}")))
        }
        _ => None,
    }
}

fn load(files: &Files, node: &str, world: &World) -> Result<Loaded, TlsError> {
    let stamps = stamps(files);
    let now = Arc::new(Now(world.clone()));
    let provider = Arc::new(ring::default_provider());
    let roots = Arc::new(read_roots(&files.ca)?);
    let chain = read_chain(&files.cert)?;
    let key = read_key(&files.key)?;
    let said = read_certificate(&chain[0]).map_err(|reason| TlsError::Content {
        path: files.cert.clone(),
        what: "certificate",
        reason,
    })?;
    if !said.names.iter().any(|name| name.eq_ignore_ascii_case(node)) {
        let names = if said.names.is_empty() { "no DNS name".to_owned() } else { said.names.join(", ") };
        return Err(TlsError::Name { cert: files.cert.clone(), names, node: node.to_owned() });
    }
    let untrusted =
        |reason: String| TlsError::Untrusted { cert: files.cert.clone(), ca: files.ca.clone(), reason };
    let signed = Signed { roots: roots.clone(), algorithms: provider.signature_verification_algorithms };
    let members = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
        .build()
        .map_err(|error| untrusted(error.to_string()))?;
    // As the others will: they see this certificate from both sides.
    let (end_entity, intermediates) = chain.split_first().expect("a chain that was read is not empty");
    let name = server_name(node);
    signed
        .verify_server_cert(end_entity, intermediates, &name, &[], now.time())
        .map_err(|error| untrusted(error.to_string()))?;
    members
        .verify_client_cert(end_entity, intermediates, now.time())
        .map_err(|error| untrusted(error.to_string()))?;
    let (client, server) = configure(provider, now, signed, members, chain, key).map_err(|error| {
        TlsError::Mismatch { cert: files.cert.clone(), key: files.key.clone(), reason: error.to_string() }
    })?;
    Ok(Loaded { stamps, client: Arc::new(client), server: Arc::new(server), ends: said.ends })
}

/// No session is resumed: a resumed one would not look at certificates again.
fn configure(
    provider: Arc<CryptoProvider>,
    now: Arc<Now>,
    signed: Signed,
    members: Arc<dyn ClientCertVerifier>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<(ClientConfig, ServerConfig), rustls::Error> {
    let mut client = ClientConfig::builder_with_details(provider.clone(), now.clone())
        .with_protocol_versions(&[&version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(signed))
        .with_client_auth_cert(chain.clone(), key.clone_key())?;
    client.resumption = Resumption::disabled();
    client.alpn_protocols = vec![ALPN.to_vec()];
    let mut server = ServerConfig::builder_with_details(provider, now)
        .with_protocol_versions(&[&version::TLS13])?
        .with_client_cert_verifier(members)
        .with_single_cert(chain, key)?;
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    server.alpn_protocols = vec![ALPN.to_vec()];
    Ok((client, server))
}

fn read_roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in read_chain(path)? {
        roots.add(certificate).map_err(|error| TlsError::Content {
            path: path.to_owned(),
            what: "certificate of an authority",
            reason: error.to_string(),
        })?;
    }
    Ok(roots)
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let content = |reason: String| TlsError::Content { path: path.to_owned(), what: "certificate", reason };
    let pem = read_public(path, LONGEST)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.map_err(|error| content(error.to_string()))?;
    if chain.is_empty() {
        return Err(content("there is no CERTIFICATE section in it".to_owned()));
    }
    Ok(chain)
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = read_private(path, LONGEST)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| TlsError::Content {
        path: path.to_owned(),
        what: "private key",
        reason: error.to_string(),
    })
}
