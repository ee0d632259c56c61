//! The home of a devnet node: made once, complete or not at all.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use crate::devnet::plan::{Member, TlsPlace, passphrase_file};

/// Why there is no home.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory cannot be made.
    #[error("cannot make {path}: {source}")]
    File {
        /// The path.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// `baton init` or `baton tls` failed.
    #[error("`baton {command}` failed for {path}: {output}")]
    Init {
        /// The command.
        command: String,
        /// The home.
        path: String,
        /// What it said.
        output: String,
    },
}

/// Makes the home of a node with `baton init`, unless there is one. Returns whether it was made.
///
/// A marker beside it says that it is being made, so a devnet that is killed half way starts over
/// instead of finding half a home. No node ever ran in a home with a marker.
pub async fn make(executable: &Path, member: &Member) -> Result<bool, Error> {
    let (home, marker) = (&member.home, marker(&member.home));
    if home.exists() && !marker.exists() {
        return Ok(false);
    }
    make_dir(home.parent().expect("a member's home is inside the devnet's")).map_err(at(home))?;
    fs::write(&marker, "this home is being made\n").map_err(at(&marker))?;
    if home.exists() {
        fs::remove_dir_all(home).map_err(at(home))?;
    }
    make_dir(home).map_err(at(home))?;
    let passphrase = member.passphrase();
    let bytes = match &member.key_of {
        None => fresh_passphrase().map_err(at(&passphrase))?,
        Some(first) => fs::read(passphrase_file(first)).map_err(at(&passphrase_file(first)))?,
    };
    write_passphrase(&passphrase, &bytes).map_err(at(&passphrase))?;
    run(executable, home, &member.init).await?;
    fs::remove_file(&marker).map_err(at(&marker))?;
    Ok(true)
}

/// Makes the certificates of a node, and first those of the authority, unless they are there.
pub async fn certify(executable: &Path, member: &Member) -> Result<(), Error> {
    let Some(TlsPlace { authority, own }) = &member.tls else { return Ok(()) };
    let text = |path: &Path| path.display().to_string();
    if is_half_made(authority, &["ca.pem", "ca.key"]).map_err(at(authority))? {
        run(executable, authority, &["tls", "ca", "--out", &text(authority)].map(str::to_owned)).await?;
    }
    if is_half_made(own, &["ca.pem", "node.pem", "node.key"]).map_err(at(own))? {
        let args = ["tls", "node", &member.name, "--ca", &text(authority), "--out", &text(own)];
        let address = ["--address", "127.0.0.1"];
        run(
            executable,
            own,
            &[&args[..], &address[..]].concat().into_iter().map(str::to_owned).collect::<Vec<_>>(),
        )
        .await?;
    }
    Ok(())
}

/// Whether a directory of certificates lacks one of its files; then what there is of it goes.
fn is_half_made(directory: &Path, files: &[&str]) -> io::Result<bool> {
    if files.iter().all(|file| directory.join(file).is_file()) {
        return Ok(false);
    }
    if directory.exists() {
        fs::remove_dir_all(directory)?;
    }
    Ok(true)
}

async fn run(executable: &Path, home: &Path, args: &[String]) -> Result<(), Error> {
    let command = args.iter().take_while(|arg| !arg.starts_with('-')).cloned().collect::<Vec<_>>().join(" ");
    let fail = |output: String| Error::Init { command, path: home.display().to_string(), output };
    let output = Command::new(executable).args(args).stdin(Stdio::null()).kill_on_drop(true).output().await;
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(fail(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        Err(error) => Err(fail(error.to_string())),
    }
}

fn fresh_passphrase() -> io::Result<Vec<u8>> {
    let mut secret = [0_u8; 24];
    fs::File::open("/dev/urandom").and_then(|mut source| io::Read::read_exact(&mut source, &mut secret))?;
    Ok(format!("{}\n", hex::encode(secret)).into_bytes())
}

/// Writes a passphrase that only the owner can read.
fn write_passphrase(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn marker(home: &Path) -> PathBuf {
    let name = home.file_name().expect("a member has a name").to_string_lossy();
    home.with_file_name(format!(".{name}.incomplete"))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.display().to_string();
    move |source| Error::File { path, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::devnet::plan::{Ports, Role};

    fn member(home: PathBuf) -> Member {
        let ports = Ports { rpc: 1, kv: Some(2), p2p: None, raft: None };
        Member {
            name: "node1".to_owned(),
            role: Role::Node,
            ports,
            log: home.join("log"),
            home,
            args: vec![],
            init: vec!["init".to_owned(), "--insecure-fast-kdf".to_owned()],
            key_of: None,
            tls: None,
        }
    }

    #[tokio::test]
    async fn a_failed_init_is_started_over_and_says_why() {
        let dir = tempfile::tempdir().unwrap();
        // Stands for a program that refuses its arguments.
        let program = Path::new("ls");
        let member = member(dir.path().join("net/node1"));
        let error = make(program, &member).await.unwrap_err().to_string();
        assert!(error.contains("--insecure-fast-kdf"), "{error}");
        // The way a killed devnet leaves it, too.
        fs::write(member.home.join("half"), "").unwrap();
        let program = Path::new("true");
        assert!(make(program, &member).await.unwrap());
        assert!(!member.home.join("half").exists());
    }

    #[tokio::test]
    async fn a_home_is_made_once_with_a_passphrase_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let program = Path::new("true");
        let member = member(dir.path().join("net/node1"));
        assert!(make(program, &member).await.unwrap());
        let passphrase = fs::read(member.passphrase()).unwrap();
        assert_eq!(fs::metadata(member.passphrase()).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!make(program, &member).await.unwrap());
        assert_eq!(fs::read(member.passphrase()).unwrap(), passphrase);
        assert_eq!(passphrase.len(), 49);

        // The key is encrypted under the passphrase of where it was made.
        let other = Member { key_of: Some(member.home), ..self::member(dir.path().join("net/node2")) };
        assert!(make(program, &other).await.unwrap());
        assert_eq!(fs::read(other.passphrase()).unwrap(), passphrase);
    }
}
