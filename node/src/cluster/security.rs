//! Certificates or plaintext: decided from the settings, before anything is opened.

use std::net::IpAddr;
use std::path::PathBuf;

use crate::cluster::tls::Files;

/// How connections are protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Security {
    /// Mutual TLS 1.3.
    Tls(Files),
    /// Not at all, and only between addresses of this machine: for tests and development.
    InsecureLoopback,
}

/// Why the settings name no protection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecurityError {
    /// Nothing is set.
    #[error(
        "a cluster needs certificates: set raft.tls.ca, raft.tls.cert and raft.tls.key (`baton tls ca` and \
         `baton tls node` make them); raft.tls.insecure_loopback allows plaintext on loopback addresses"
    )]
    Nothing,
    /// Some files are set and others are not.
    #[error("{0} is not set: raft.tls.ca, raft.tls.cert and raft.tls.key are needed together")]
    Incomplete(&'static str),
    /// Both are set.
    #[error("raft.tls.insecure_loopback and certificates exclude each other: remove one of them")]
    Both,
    /// An address is not of this machine.
    #[error(
        "{0} is no loopback address: raft.tls.insecure_loopback is for clusters on one machine; \
         set raft.tls.ca, raft.tls.cert and raft.tls.key"
    )]
    NotLoopback(String),
}

/// The settings `raft.tls.*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// `raft.tls.ca`, inside the home unless absolute.
    pub ca: Option<PathBuf>,
    /// `raft.tls.cert`, inside the home unless absolute.
    pub cert: Option<PathBuf>,
    /// `raft.tls.key`, inside the home unless absolute.
    pub key: Option<PathBuf>,
    /// `raft.tls.insecure_loopback`.
    pub insecure_loopback: bool,
}

impl TlsSettings {
    /// The files, when all three are set.
    ///
    /// # Errors
    ///
    /// `Incomplete` when only some are set, `Both` when plaintext is allowed too.
    pub fn files(&self) -> Result<Option<Files>, SecurityError> {
        let files = match (&self.ca, &self.cert, &self.key) {
            (None, None, None) => return Ok(None),
            (None, ..) => return Err(SecurityError::Incomplete("raft.tls.ca")),
            (_, None, _) => return Err(SecurityError::Incomplete("raft.tls.cert")),
            (.., None) => return Err(SecurityError::Incomplete("raft.tls.key")),
            (Some(ca), Some(cert), Some(key)) => {
                Files { ca: ca.clone(), cert: cert.clone(), key: key.clone() }
            }
        };
        match self.insecure_loopback {
            true => Err(SecurityError::Both),
            false => Ok(Some(files)),
        }
    }

    /// How a cluster with these addresses (its own bind and advertised ones, the peers') is
    /// protected.
    ///
    /// # Errors
    ///
    /// `SecurityError` when nothing is set, only a part, or plaintext with an address of another
    /// machine.
    pub fn choose<'a>(
        &self,
        addresses: impl IntoIterator<Item = &'a str>,
    ) -> Result<Security, SecurityError> {
        if let Some(files) = self.files()? {
            return Ok(Security::Tls(files));
        }
        if !self.insecure_loopback {
            return Err(SecurityError::Nothing);
        }
        match addresses.into_iter().find(|address| !is_loopback(address)) {
            Some(address) => Err(SecurityError::NotLoopback(address.to_owned())),
            None => Ok(Security::InsecureLoopback),
        }
    }
}

/// Whether `host:port` names this machine and cannot name another one.
fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(files: [bool; 3], insecure_loopback: bool) -> TlsSettings {
        let file = |set: bool, name: &str| set.then(|| PathBuf::from(name));
        TlsSettings {
            ca: file(files[0], "ca"),
            cert: file(files[1], "cert"),
            key: file(files[2], "key"),
            insecure_loopback,
        }
    }

    #[test]
    fn a_cluster_has_certificates_or_says_that_it_wants_none() {
        let all = ["127.0.0.1:1", "10.0.0.1:1"];
        let chosen = |files, insecure| settings(files, insecure).choose(all);
        assert!(matches!(chosen([true; 3], false), Ok(Security::Tls(_))));
        assert_eq!(chosen([false; 3], false), Err(SecurityError::Nothing));
        assert_eq!(chosen([true; 3], true), Err(SecurityError::Both));
        for (missing, name) in [(0, "raft.tls.ca"), (1, "raft.tls.cert"), (2, "raft.tls.key")] {
            let mut files = [true; 3];
            files[missing] = false;
            assert_eq!(chosen(files, false), Err(SecurityError::Incomplete(name)));
        }
    }

    #[test]
    fn plaintext_is_refused_as_soon_as_one_address_is_not_loopback() {
        let settings = settings([false; 3], true);
        let local = ["127.0.0.1:0", "127.3.2.1:7", "localhost:7", "[::1]:7", "[::ffff:127.0.0.1]:7"];
        assert_eq!(settings.choose(local), Ok(Security::InsecureLoopback));
        for other in ["0.0.0.0:7", "10.0.0.1:7", "n1:7", "[::]:7", ":7", "localhost.example:7"] {
            let refused = settings.choose(["127.0.0.1:1", other]);
            assert_eq!(refused, Err(SecurityError::NotLoopback(other.to_owned())));
        }
    }
}
