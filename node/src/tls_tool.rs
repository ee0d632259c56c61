//! `baton tls`: an authority for a cluster, and a certificate for each of its nodes.
//!
//! For those who have no authority of their own. The authority's key stays where it was made; a
//! node gets the authority's certificate, its own, and its key.

use std::fmt::Write;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use baton_actors::signer::files::{self, FileError, Overwrite};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use zeroize::Zeroizing;

use crate::cli::args::TlsCommand;
use crate::cluster::certificates::read_certificate;
use crate::exit::{ExitCode, ExitError};
use crate::logging::{note, print};

/// The largest file that is read.
const LIMIT: u64 = 1 << 20;
/// A clock that is a day behind takes a new certificate too.
const EARLIER: Duration = Duration::from_secs(24 * 3600);

/// Why no certificate was made. No file was changed.
#[derive(Debug, thiserror::Error)]
pub enum TlsToolError {
    /// A file that would be written is there.
    #[error("{} exists already and is not overwritten: choose another --out, or remove it", .0.display())]
    Exists(PathBuf),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The name cannot be in a certificate.
    #[error(
        "{0:?} is no name for a node in a certificate: letters, digits, '-', '_' and '.', as in the name of a \
         host, with at least one letter"
    )]
    Name(String),
    /// The directory holds no authority.
    #[error("{} holds no authority: {reason}; `baton tls ca --out DIR` makes one", path.display())]
    Authority {
        /// The directory.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The authority has run out.
    #[error("the authority in {} has run out: make another one, and certificates for all nodes", .0.display())]
    RunOut(PathBuf),
    /// The library refuses.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
}

impl From<TlsToolError> for ExitError {
    fn from(error: TlsToolError) -> Self {
        let code = match &error {
            TlsToolError::Exists(_) | TlsToolError::Name(_) => ExitCode::Usage,
            TlsToolError::Authority { .. } | TlsToolError::RunOut(_) => ExitCode::Config,
            TlsToolError::File(_) | TlsToolError::Certificate(_) => ExitCode::Other,
        };
        Self::new(code, error)
    }
}

/// A certificate and its key, PEM.
pub struct Pair {
    /// The certificate.
    pub cert: String,
    /// The key; wiped when dropped.
    pub key: Zeroizing<String>,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair").finish_non_exhaustive()
    }
}

/// From when to when a certificate holds, seconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub from: u64,
    /// The last second.
    pub to: u64,
}

impl Validity {
    /// From a day ago for so many days.
    #[must_use]
    pub fn days(now: u64, days: u32) -> Self {
        let to = now.saturating_add(u64::from(days) * 24 * 3600);
        Self { from: now.saturating_sub(EARLIER.as_secs()), to }
    }

    fn set(self, params: &mut CertificateParams) {
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        params.not_before = epoch + Duration::from_secs(self.from);
        params.not_after = epoch + Duration::from_secs(self.to);
    }
}

/// Makes an authority.
///
/// # Errors
///
/// What the library says.
pub fn make_authority(validity: Validity) -> Result<Pair, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    // Two authorities must not look alike: certificates name theirs.
    let id = hex::encode(&key.public_key_raw()[1..9]);
    params.distinguished_name.push(DnType::CommonName, format!("baton cluster authority {id}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    validity.set(&mut params);
    let cert = params.self_signed(&key)?.pem();
    Ok(Pair { cert, key: Zeroizing::new(key.serialize_pem()) })
}

/// Makes a certificate for a node, signed by the authority.
///
/// # Errors
///
/// What the library says, for example that a name cannot be in a certificate.
pub fn make_node(
    authority: &Pair,
    name: &str,
    addresses: &[String],
    validity: Validity,
) -> Result<Pair, rcgen::Error> {
    let issuer = Issuer::from_ca_cert_pem(&authority.cert, KeyPair::from_pem(&authority.key)?)?;
    let key = KeyPair::generate()?;
    let mut names = vec![name.to_owned()];
    names.extend(addresses.iter().filter(|address| *address != name).cloned());
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // Members dial and are dialled.
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    validity.set(&mut params);
    let cert = params.signed_by(&key, &issuer)?.pem();
    Ok(Pair { cert, key: Zeroizing::new(key.serialize_pem()) })
}

/// Runs the command.
///
/// # Errors
///
/// Why nothing was made, with the code for the shell.
pub fn run(command: &TlsCommand) -> Result<(), ExitError> {
    let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0);
    match command {
        TlsCommand::Ca { out, days } => authority(out, Validity::days(now, *days)),
        TlsCommand::Node { name, ca, out, address, days } => {
            node(name, ca, out, address, Validity::days(now, *days), now)
        }
    }
}

fn authority(out: &Path, validity: Validity) -> Result<(), ExitError> {
    let (cert, key) = (out.join("ca.pem"), out.join("ca.key"));
    write(&make_authority(validity).map_err(TlsToolError::from)?, &cert, &key, &[])?;
    let (cert, key, out) = (cert.display(), key.display(), out.display());
    note(&format!("the key {key} signs nodes: keep it away from them"));
    print(&format!("made {cert} and {key}\nnext, for each node: baton tls node NAME --ca {out} --out NAME\n"))
}

fn node(
    name: &str,
    ca: &Path,
    out: &Path,
    addresses: &[String],
    validity: Validity,
    now: u64,
) -> Result<(), ExitError> {
    for name in
        std::iter::once(&name.to_owned()).chain(addresses.iter().filter(|a| a.parse::<IpAddr>().is_err()))
    {
        if !is_host_name(name) {
            return Err(TlsToolError::Name(name.clone()).into());
        }
    }
    let (authority, ends) = read_authority(ca)?;
    if ends <= now {
        return Err(TlsToolError::RunOut(ca.to_owned()).into());
    }
    let validity = Validity { to: validity.to.min(ends), ..validity };
    let (cert, key, root) = (out.join("node.pem"), out.join("node.key"), out.join("ca.pem"));
    let made = make_node(&authority, name, addresses, validity).map_err(TlsToolError::from)?;
    write(&made, &cert, &key, &[(&root, &authority.cert)])?;
    let mut text = String::new();
    let days = validity.to.saturating_sub(now) / (24 * 3600);
    let _ = writeln!(
        text,
        "made {}, {} and {} for {name}, good for {days} days",
        root.display(),
        cert.display(),
        key.display()
    );
    let _ =
        writeln!(text, "next: copy the three to the directory config/tls of the node's home, and set there:");
    let _ = writeln!(text, "raft:\n  node_id: {name}\n  tls:\n    ca: config/tls/ca.pem");
    let _ = writeln!(text, "    cert: config/tls/node.pem\n    key: config/tls/node.key");
    print(&text)
}

/// Letters, digits, hyphens and dots, and not all of it a number: what a certificate can hold and
/// what is no address.
fn is_host_name(name: &str) -> bool {
    let labels_hold = name.split('.').all(|label| {
        !label.is_empty()
            && label.len() <= 63
            && label.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_".contains(letter))
            && !label.starts_with('-')
            && !label.ends_with('-')
    });
    labels_hold && name.len() <= 253 && name.chars().any(|letter| letter.is_ascii_alphabetic())
}

/// The authority in a directory, and when it ends.
fn read_authority(directory: &Path) -> Result<(Pair, u64), TlsToolError> {
    let none = |reason: String| TlsToolError::Authority { path: directory.to_owned(), reason };
    let read = |result: Result<Vec<u8>, FileError>| match result {
        Ok(bytes) => String::from_utf8(bytes).map_err(|error| none(error.to_string())),
        Err(FileError::Missing { path }) => Err(none(format!("{} does not exist", path.display()))),
        Err(error) => Err(error.into()),
    };
    let cert = read(files::read_public(&directory.join("ca.pem"), LIMIT))?;
    let key = files::read_private(&directory.join("ca.key"), LIMIT).map(|key| key.to_vec());
    let key = Zeroizing::new(read(key)?);
    let block = x509_parser::pem::parse_x509_pem(cert.as_bytes()).map_err(|error| none(error.to_string()))?.1;
    let said = read_certificate(&block.contents).map_err(none)?;
    Ok((Pair { cert, key }, u64::try_from(said.ends).unwrap_or(0)))
}

/// Writes certificate and key, and others beside them; nothing when one of them exists.
fn write(pair: &Pair, cert: &Path, key: &Path, others: &[(&Path, &String)]) -> Result<(), TlsToolError> {
    let public = std::iter::once((cert, &pair.cert)).chain(others.iter().copied());
    for path in public.clone().map(|(path, _)| path).chain([key]) {
        if path.symlink_metadata().is_ok() {
            return Err(TlsToolError::Exists(path.to_owned()));
        }
    }
    let mut written = vec![];
    let all = write_all(pair, key, public, &mut written);
    if all.is_err() {
        for path in written {
            // What cannot be removed is named by the error at the next attempt.
            let _ = std::fs::remove_file(path);
        }
    }
    Ok(all?)
}

/// Writes the files and notes which there are.
fn write_all<'a>(
    pair: &Pair,
    key: &'a Path,
    public: impl Iterator<Item = (&'a Path, &'a String)>,
    written: &mut Vec<&'a Path>,
) -> Result<(), FileError> {
    files::write_private(key, pair.key.as_bytes(), Overwrite::Refuse)?;
    written.push(key);
    for (path, text) in public {
        files::write_private(path, text.as_bytes(), Overwrite::Refuse)?;
        written.push(path);
        let everybody = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(path, everybody).map_err(|source| FileError::Io {
            action: "set the permissions of",
            path: path.to_owned(),
            source,
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn ca(out: &Path) -> TlsCommand {
        TlsCommand::Ca { out: out.to_owned(), days: 3650 }
    }

    fn node(name: &str, ca: &Path, out: &Path) -> TlsCommand {
        let address = vec!["10.0.0.7".to_owned(), "host.example".to_owned()];
        TlsCommand::Node { name: name.to_owned(), ca: ca.to_owned(), out: out.to_owned(), address, days: 365 }
    }

    #[test]
    fn what_cannot_be_written_whole_leaves_nothing_behind() {
        let home = tempfile::tempdir().unwrap();
        let pair = Pair { cert: "certificate".to_owned(), key: Zeroizing::new("key".to_owned()) };
        let (key, cert) = (home.path().join("node.key"), home.path().join("none").join("node.pem"));
        // Nothing is in the way; the directory cannot be made.
        std::fs::write(home.path().join("none"), "").unwrap();
        write(&pair, &cert, &key, &[]).unwrap_err();
        assert!(!key.exists());
    }

    #[test]
    fn every_name_that_a_certificate_can_hold_is_one_that_the_settings_take() {
        for name in ["n1", "a-b", "a_b", "host.example", "1a"] {
            assert!(is_host_name(name) && crate::config::cluster::is_name(name), "{name}");
        }
        for name in ["a..b", "a-.b", "a.-b", "-a", "a-", ".a", "a.", ""] {
            assert!(!is_host_name(name) && !crate::config::cluster::is_name(name), "{name}");
        }
    }

    #[test]
    fn an_authority_and_a_node_are_made_with_private_keys() {
        let home = tempfile::tempdir().unwrap();
        let (authority, out) = (home.path().join("ca"), home.path().join("n1"));
        run(&ca(&authority)).unwrap();
        run(&node("n1", &authority, &out)).unwrap();
        for (path, expected) in [
            (authority.join("ca.pem"), 0o644),
            (authority.join("ca.key"), 0o600),
            (out.join("ca.pem"), 0o644),
            (out.join("node.pem"), 0o644),
            (out.join("node.key"), 0o600),
        ] {
            assert_eq!(mode(&path), expected, "{}", path.display());
        }
        let pem = std::fs::read(out.join("node.pem")).unwrap();
        let said = read_certificate(&x509_parser::pem::parse_x509_pem(&pem).unwrap().1.contents).unwrap();
        assert_eq!(said.names, ["n1", "host.example"]);
        let days = (said.ends - jiff::Timestamp::now().as_second()) / 86_400;
        assert!((363..=365).contains(&days), "{days}");
    }

    #[test]
    fn what_exists_is_not_overwritten_and_nothing_is_half_done() {
        let home = tempfile::tempdir().unwrap();
        let (authority, out) = (home.path().join("ca"), home.path().join("n1"));
        run(&ca(&authority)).unwrap();
        let refused = run(&ca(&authority)).unwrap_err();
        assert_eq!(refused.code, ExitCode::Usage);
        assert!(refused.message.contains("ca.pem exists already"), "{refused}");
        std::fs::create_dir(&out).unwrap();
        std::fs::write(out.join("node.key"), "old").unwrap();
        assert!(run(&node("n1", &authority, &out)).is_err());
        assert_eq!(std::fs::read_dir(&out).unwrap().count(), 1);
        assert_eq!(std::fs::read(out.join("node.key")).unwrap(), b"old");
    }

    #[test]
    fn without_an_authority_or_a_name_the_cause_and_the_remedy_are_said() {
        let home = tempfile::tempdir().unwrap();
        let (authority, out) = (home.path().join("ca"), home.path().join("n1"));
        let refused = run(&node("n1", &authority, &out)).unwrap_err();
        assert!(refused.message.contains("baton tls ca --out DIR"), "{refused}");
        run(&ca(&authority)).unwrap();
        for name in ["", "a b", "10.0.0.1", "-a", "a..b", "ü", "a/b"] {
            let refused = run(&node(name, &authority, &out)).unwrap_err();
            assert_eq!(refused.code, ExitCode::Usage, "{name:?}");
        }
        std::fs::set_permissions(authority.join("ca.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
        let refused = run(&node("n1", &authority, &out)).unwrap_err();
        assert!(refused.message.contains("chmod 600"), "{refused}");
        assert!(!out.exists());
    }

    #[test]
    fn a_node_does_not_outlast_its_authority() {
        let home = tempfile::tempdir().unwrap();
        let (authority, out) = (home.path().join("ca"), home.path().join("n1"));
        run(&TlsCommand::Ca { out: authority.clone(), days: 30 }).unwrap();
        run(&node("n1", &authority, &out)).unwrap();
        let ends = |path: PathBuf| {
            let pem = std::fs::read(path).unwrap();
            read_certificate(&x509_parser::pem::parse_x509_pem(&pem).unwrap().1.contents).unwrap().ends
        };
        assert_eq!(ends(out.join("node.pem")), ends(authority.join("ca.pem")));
        let past = Validity { from: 1, to: 2 };
        let old = home.path().join("old");
        write(&make_authority(past).unwrap(), &old.join("ca.pem"), &old.join("ca.key"), &[]).unwrap();
        let refused = run(&node("n2", &old, &home.path().join("n2"))).unwrap_err();
        assert!(refused.message.contains("has run out"), "{refused}");
    }
}
