//! Which life of each storage was seen last.
//!
//! A storage counts how often it was opened. A copied or restored disk comes back with a number
//! that was seen already, or a lower one; two processes on copies live the same number and differ
//! in a random id of the process. Either would vote twice in a term (hazard A11), so only the
//! newest life is spoken with, and it alone.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::cluster::hello::{Cause, Hello, Refusal};

/// The most storages that are remembered; a cluster meets a new one only when a disk is new.
pub(super) const MOST: usize = 4096;
/// The longest file that is read.
const LONGEST: u64 = 4 << 20;

/// One life of a storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// Its number.
    pub boot: u64,
    /// The process that lives it.
    pub run: Uuid,
}

/// The newest life of each storage.
pub type Seen = BTreeMap<Uuid, Life>;

/// Where the lives that were seen outlast this process.
pub trait Lives: Send + Sync + 'static {
    /// What was saved last; nothing the first time.
    ///
    /// # Errors
    ///
    /// When there is something that cannot be read.
    fn load(&self) -> io::Result<Seen>;

    /// Saves, durably and whole or not at all.
    fn save(&self, seen: Seen) -> BoxFuture<'static, io::Result<()>>;
}

/// Whether this life may go on, given what was seen. `true`: it is new and should be remembered.
///
/// # Errors
///
/// A refusal of an older life, of a clone, and of one storage too many.
pub fn judge(seen: &Seen, peer: &Hello) -> Result<bool, Refusal> {
    let Hello { name, storage, boot, run, .. } = peer;
    let Some(life) = seen.get(storage) else {
        if seen.len() < MOST {
            return Ok(true);
        }
        let reason = format!("{MOST} storages were seen already: remove config/lives.json of this node");
        return Err(Refusal::new(Cause::TooMany, reason));
    };
    if *boot < life.boot {
        let reason = format!(
            "{name} runs life {boot} of storage {storage}, life {} was seen: a copied or restored disk; \
             wipe it and add the node anew",
            life.boot
        );
        return Err(Refusal::new(Cause::OlderBoot, reason));
    }
    if *boot == life.boot && *run != life.run {
        let reason = format!(
            "{name} runs life {boot} of storage {storage}, and so does another process: a copied disk; \
             stop both and wipe the copy"
        );
        return Err(Refusal::new(Cause::Clone, reason));
    }
    Ok(*boot > life.boot)
}

/// Remembers for as long as the process runs.
#[derive(Debug, Default)]
pub struct MemoryLives(Mutex<Seen>);

impl Lives for MemoryLives {
    fn load(&self) -> io::Result<Seen> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn save(&self, seen: Seen) -> BoxFuture<'static, io::Result<()>> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = seen;
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Remembers in a file: `config/lives.json` of the home.
#[derive(Clone, Debug)]
pub struct FileLives {
    path: PathBuf,
}

impl FileLives {
    /// In this file; it need not exist yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

impl Lives for FileLives {
    fn load(&self) -> io::Result<Seen> {
        let path = &self.path;
        match std::fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Seen::new()),
            Err(error) => return Err(error),
            Ok(file) if file.len() > LONGEST => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("it has {} bytes", file.len()),
                ));
            }
            Ok(_) => {}
        }
        serde_json::from_slice(&std::fs::read(path)?)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    fn save(&self, seen: Seen) -> BoxFuture<'static, io::Result<()>> {
        let path = self.path.clone();
        Box::pin(async move {
            let bytes = serde_json::to_vec_pretty(&seen)?;
            #[allow(clippy::disallowed_methods, reason = "it is waited for, alone")]
            let replaced = tokio::task::spawn_blocking(move || replace(&path, &bytes)).await;
            replaced.map_err(io::Error::other)?
        })
    }
}

/// Writes a file beside the old one, makes it durable, and puts it in the old one's place. With
/// the standard library's files: a write of tokio's ends in the background, and its error with it.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = path.with_extension("json.new");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    std::fs::rename(&temporary, path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use baton_messages::types::Hash;

    use super::*;

    fn peer(boot: u64, run: u128) -> Hello {
        Hello {
            chain_id: String::new(),
            genesis: Hash::default(),
            cluster: None,
            name: "n2".to_owned(),
            storage: Uuid::from_u128(2),
            boot,
            run: Uuid::from_u128(run),
            class: 1,
        }
    }

    fn seen(boot: u64, run: u128) -> Seen {
        Seen::from([(Uuid::from_u128(2), Life { boot, run: Uuid::from_u128(run) })])
    }

    #[test]
    fn only_the_newest_life_of_a_storage_goes_on() {
        let cause = |seen: &Seen, peer: &Hello| judge(seen, peer).map_err(|refusal| refusal.cause);
        assert_eq!(cause(&Seen::new(), &peer(1, 1)), Ok(true));
        assert_eq!(cause(&seen(5, 1), &peer(5, 1)), Ok(false), "the same process again");
        assert_eq!(cause(&seen(5, 1), &peer(6, 2)), Ok(true), "restarted");
        assert_eq!(cause(&seen(5, 1), &peer(4, 2)), Err(Cause::OlderBoot));
        assert_eq!(cause(&seen(5, 1), &peer(4, 1)), Err(Cause::OlderBoot));
        assert_eq!(cause(&seen(5, 1), &peer(5, 2)), Err(Cause::Clone));
    }

    #[test]
    fn there_is_an_end_to_how_many_storages_are_remembered() {
        let full: Seen = (100..100 + MOST as u128)
            .map(|storage| (Uuid::from_u128(storage), Life { boot: 1, run: Uuid::nil() }))
            .collect();
        assert_eq!(judge(&full, &peer(1, 1)).unwrap_err().cause, Cause::TooMany);
    }

    #[tokio::test]
    async fn what_was_seen_outlasts_the_process() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("lives.json");
        let lives = FileLives::new(&path);
        assert_eq!(lives.load().unwrap(), Seen::new());
        for boot in 1..4 {
            lives.save(seen(boot, 9)).await.unwrap();
        }
        assert_eq!(FileLives::new(&path).load().unwrap(), seen(3, 9));
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1, "no temporary file is left");
        std::fs::write(&path, "{").unwrap();
        assert_eq!(lives.load().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    /// Everything that is written to it is refused with `ENOSPC`, as on a full disk.
    #[tokio::test]
    async fn a_full_disk_leaves_what_was_there() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("lives.json");
        let lives = FileLives::new(&path);
        lives.save(seen(1, 9)).await.unwrap();
        std::os::unix::fs::symlink("/dev/full", path.with_extension("json.new")).unwrap();
        let refused = lives.save(seen(2, 9)).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
        assert_eq!(lives.load().unwrap(), seen(1, 9));
    }

    #[tokio::test]
    async fn a_save_that_fails_leaves_what_was_there() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("lives.json");
        let lives = FileLives::new(&path);
        lives.save(seen(1, 9)).await.unwrap();
        std::fs::create_dir(path.with_extension("json.new")).unwrap();
        assert!(lives.save(seen(2, 9)).await.is_err());
        assert_eq!(lives.load().unwrap(), seen(1, 9));
    }
}
