//! The home of a devnet node: made once, complete or not at all.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use crate::devnet::plan::{CHAIN_ID, Member, NAMESPACE};

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
    /// `baton init` failed.
    #[error("`baton init` failed for {path}: {output}")]
    Init {
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
    write_passphrase(&passphrase).map_err(at(&passphrase))?;
    init(executable, home, &passphrase).await?;
    fs::remove_file(&marker).map_err(at(&marker))?;
    Ok(true)
}

async fn init(executable: &Path, home: &Path, passphrase: &Path) -> Result<(), Error> {
    let fail = |output: String| Error::Init { path: home.display().to_string(), output };
    let output = Command::new(executable)
        .arg("init")
        // The passphrase lies beside the key: a slow derivation would protect nothing.
        .args(["--insecure-fast-kdf", "--chain_id", CHAIN_ID])
        .arg("--home")
        .arg(home)
        .args(["--evnode.node.aggregator", "--evnode.da.namespace", NAMESPACE])
        .arg("--evnode.signer.passphrase_file")
        .arg(passphrase)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| fail(error.to_string()))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(fail(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

/// Writes a fresh passphrase that only the owner can read.
fn write_passphrase(path: &Path) -> io::Result<()> {
    let mut secret = [0_u8; 24];
    fs::File::open("/dev/urandom").and_then(|mut source| io::Read::read_exact(&mut source, &mut secret))?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{}", hex::encode(secret))?;
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
    }
}
