//! Reading certificates, and what makes one acceptable.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use baton_actors::signer::files::{read_private, read_public};
use baton_actors::world::World;
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

use crate::cluster::tls::{Files, TlsError, server_name};

/// The longest file that is read.
const LONGEST: u64 = 1 << 20;
/// What both sides must say they speak: another TLS server does not pass for a member.
const ALPN: &[u8] = b"baton-cluster";

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
pub(super) struct Loaded {
    pub(super) stamps: Stamps,
    pub(super) client: Arc<ClientConfig>,
    pub(super) server: Arc<ServerConfig>,
    /// When this node's certificate ends, seconds since the Unix epoch.
    pub(super) ends: i64,
}

/// What changes when somebody replaces a file.
pub(super) type Stamps = [Option<(u64, u64, i64, i64)>; 3];

pub(super) fn stamps(files: &Files) -> Stamps {
    let stamp = |path: &Path| {
        let file = std::fs::metadata(path).ok()?;
        Some((file.ino(), file.len(), file.mtime(), file.mtime_nsec()))
    };
    [stamp(&files.ca), stamp(&files.cert), stamp(&files.key)]
}

/// Reads and checks the files as other members will.
pub(super) fn load(files: &Files, node: &str, world: &World) -> Result<Loaded, TlsError> {
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
