//! What is looked at before a chain is taken over: the old sequencer's database, key and RPC, and
//! the DA layer.

use std::error::Error;
use std::fs::File;
use std::io;
use std::ops::RangeInclusive;
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

/// What is known of the old sequencer from its RPC address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Old {
    /// Something answers there, or takes connections at least.
    Answers,
    /// Its machine says that nothing listens there any more.
    Stopped,
    /// Nothing is known: a name that is not found or a machine that cannot be reached says nothing
    /// about a process on it. Why.
    Unknown(String),
}

/// Asks at an address as one does a node's RPC.
pub async fn old_sequencer(address: &str) -> Old {
    // Whoever cannot be reached is told apart from who is silent.
    let client = reqwest::Client::builder().no_proxy().connect_timeout(WITHIN).timeout(WITHIN * 2).build();
    let client = match client {
        Ok(client) => client,
        Err(error) => return Old::Unknown(error.to_string()),
    };
    match client.get(format!("http://{address}/health/live")).send().await {
        Ok(_) => Old::Answers,
        Err(error) if error.is_builder() => Old::Unknown(format!("{address} is no address")),
        // What takes a connection and does not answer is alive, too.
        Err(error) if !error.is_connect() => Old::Answers,
        Err(error) if is_refused(&error) => Old::Stopped,
        Err(error) => Old::Unknown(format!("{address} cannot be reached: {}", innermost(&error))),
    }
}

fn is_refused(error: &reqwest::Error) -> bool {
    causes(error).any(|cause| {
        let cause = cause.downcast_ref::<io::Error>();
        cause.is_some_and(|cause| cause.kind() == io::ErrorKind::ConnectionRefused)
    })
}

fn innermost(error: &reqwest::Error) -> String {
    causes(error).last().map_or_else(|| error.to_string(), ToString::to_string)
}

/// An error, what caused it, and so on.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    let error: &(dyn Error + 'static) = error;
    std::iter::successors(Some(error), |error| (*error).source())
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
    let unread = unread(from, head)?;
    let (chain, proposer) = (genesis.chain_id.clone(), genesis.proposer_address.clone());
    let mut decoder = Decoder::new(chain, proposer, config.da.max_blob_bytes.max(8 << 20));
    let namespaces = [Namespace::of(&config.da.namespace)];
    let mut highest: Option<(Height, Hash)> = None;
    for height in unread {
        let blobs = tokio::time::timeout(limit, da.get_all(DaHeight(height), &namespaces)).await;
        let blobs = blobs.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())?;
        for blob in blobs {
            let Found::Piece(Piece::Header(signed)) = decoder.read(DaHeight(height), &blob) else { continue };
            // Anybody may write there, with a key of their own and the proposer's address: only what the
            // proposer's key has signed counts.
            if signed.verify_signer().is_err() {
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

/// The DA blocks that were not read yet. A DA node that has not even those that were read is behind,
/// or another one: what it does not have says nothing.
fn unread(from: DaHeight, head: DaHeight) -> Result<RangeInclusive<u64>, String> {
    let from = from.0.max(1);
    if head.0.saturating_add(1) < from {
        return Err(format!(
            "its newest block is {head}, and this node has read up to {}: it is behind, or another DA layer",
            from - 1
        ));
    }
    if head.0.saturating_sub(from) > MOST_DA_BLOCKS {
        return Err(format!(
            "{} DA blocks are not read yet: start the node again, so that it follows on",
            head.0 - from
        ));
    }
    Ok(from..=head.0)
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
    fn a_da_node_that_has_less_than_was_read_says_nothing_about_later_blocks() {
        let unread = |from, head| super::unread(DaHeight(from), DaHeight(head));
        assert_eq!(unread(0, 3), Ok(1..=3));
        assert_eq!(unread(7, 9), Ok(7..=9));
        assert!(unread(7, 6).is_ok_and(|unread| unread.is_empty()), "all of it was read");
        let behind = unread(7, 5).expect_err("it lacks what was read");
        assert!(behind.contains("is 5") && behind.contains("up to 6"), "{behind}");
        assert!(unread(1, 0).is_ok_and(|unread| unread.is_empty()), "nothing was read yet");
        assert!(unread(1, 3_000).is_err());
    }

    #[tokio::test]
    async fn only_a_refused_connection_says_that_the_old_sequencer_has_stopped() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        assert_eq!(old_sequencer(&address).await, Old::Answers, "it takes a connection and says nothing");
        drop(listener);
        assert_eq!(old_sequencer(&address).await, Old::Stopped);
        for nowhere in ["no-such-host.invalid:7331", "[fe80::1%none]:7331", "255.255.255.255:7331"] {
            let asked = old_sequencer(nowhere).await;
            assert!(matches!(asked, Old::Unknown(_)), "{nowhere}: {asked:?}");
        }
    }

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
