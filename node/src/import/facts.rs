//! What is looked at before a chain is taken over: the old sequencer's database, key and RPC, and
//! the DA layer.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use baton_actors::da::DaLayer;
use baton_actors::da::celestia::Celestia;
use baton_actors::da_retriever::decode::{Decoder, Found};
use baton_messages::da::Namespace;
use baton_messages::follow::Piece;
use baton_messages::genesis::Genesis;
use baton_messages::types::{DaHeight, Hash, Height};
use rustix::fs::FlockOperation;

use super::judge::Seen;
use crate::config::Config;
use crate::exit::ExitError;

/// How long a question may take.
const WITHIN: Duration = Duration::from_secs(3);

/// DA blocks that are read here at the most; a node that follows reads more, and faster.
const MOST_DA_BLOCKS: u64 = 2_000;

/// The first of these databases that a process has open. Nothing is written: the lock is asked
/// for on the directory, as ev-node's database takes it, and on Baton's own lock file.
#[must_use]
pub fn in_use(databases: &[PathBuf]) -> Option<PathBuf> {
    databases.iter().find(|path| is_locked(path)).cloned()
}

fn is_locked(path: &Path) -> bool {
    let directory = File::open(path).is_ok_and(|directory| {
        rustix::fs::flock(&directory, FlockOperation::NonBlockingLockShared)
            == Err(rustix::io::Errno::WOULDBLOCK)
    });
    let lock = File::options().read(true).write(true).open(path.join("LOCK"));
    directory
        || lock.is_ok_and(|lock| {
            let held = rustix::fs::fcntl_lock(&lock, FlockOperation::NonBlockingLockExclusive);
            matches!(held, Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::ACCESS))
        })
}

/// Whether something answers at an address as a node's RPC does.
pub async fn answers(address: &str) -> bool {
    let client = reqwest::Client::builder().no_proxy().connect_timeout(WITHIN).timeout(WITHIN).build();
    let Ok(client) = client else { return false };
    match client.get(format!("http://{address}/health/live")).send().await {
        Ok(_) => true,
        // What takes a connection and does not answer is alive, too.
        Err(error) => !error.is_connect(),
    }
}

/// The highest header of the proposer on DA from this height on.
pub async fn highest_on_da(config: &Config, genesis: &Genesis, da: &Celestia, from: DaHeight) -> Seen {
    match read_da(config, genesis, da, from).await {
        Ok(highest) => Seen::Highest(highest),
        Err(why) => Seen::Silent(why),
    }
}

async fn read_da(
    config: &Config,
    genesis: &Genesis,
    da: &Celestia,
    from: DaHeight,
) -> Result<Option<(Height, Hash)>, String> {
    let limit = WITHIN.max(config.da.request_timeout);
    let head = tokio::time::timeout(limit, da.head()).await;
    let head = head.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())?.height;
    let from = from.0.max(1);
    if head.0.saturating_sub(from) > MOST_DA_BLOCKS {
        return Err(format!(
            "{} DA blocks are not read yet: start the node again, so that it follows on",
            head.0 - from
        ));
    }
    let (chain, proposer) = (genesis.chain_id.clone(), genesis.proposer_address.clone());
    let mut decoder = Decoder::new(chain, proposer, config.da.max_blob_bytes.max(8 << 20));
    let namespaces = [Namespace::of(&config.da.namespace)];
    let mut highest: Option<(Height, Hash)> = None;
    for height in from..=head.0 {
        let blobs = tokio::time::timeout(limit, da.get_all(DaHeight(height), &namespaces)).await;
        let blobs = blobs.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())?;
        for blob in blobs {
            let Found::Piece(Piece::Header(signed)) = decoder.read(&blob) else { continue };
            // Anybody may write there: only what the key has signed counts.
            if signed.verify_signature().is_err() {
                continue;
            }
            let found = (signed.header.height, signed.header.hash());
            if highest.is_none_or(|(known, _)| found.0 > known) {
                highest = Some(found);
            }
        }
    }
    Ok(highest)
}

/// Where reading DA begins: what lies below was read while the node followed.
///
/// # Errors
///
/// When the store does not follow.
pub fn cursor(reader: &baton_storage::Reader) -> Result<DaHeight, ExitError> {
    reader.follow().map(|record| record.cursor).ok_or_else(|| {
        ExitError::config("this store follows no chain: it is not one that `baton import --from` made")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_is_open_is_found_and_is_free_again_when_it_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let databases = [dir.path().join("gone"), dir.path().to_owned()];
        assert_eq!(in_use(&databases), None);
        let open = File::open(dir.path()).unwrap();
        rustix::fs::flock(&open, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert_eq!(in_use(&databases), Some(dir.path().to_owned()));
        drop(open);
        assert_eq!(in_use(&databases), None);
    }
}
