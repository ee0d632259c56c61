//! `baton start`: everything is checked before anything is opened.

use std::path::Path;
use std::sync::Arc;

use baton_actors::signer::key::FileKey;
use baton_actors::world::World;
use baton_messages::genesis::Genesis;
use baton_storage::Store;
use tracing::warn;

use crate::cli::args::NodeArgs;
use crate::cli::place::home;
use crate::cluster::security::Security;
use crate::cluster::tls;
use crate::config::{Config, Env, First};
use crate::exit::ExitError;
use crate::run::SystemClock;
use crate::{failpoints, genesis, keys, logging};

/// What a start has checked and read. Nothing is open yet: no store, no guard, no port.
#[derive(Debug)]
pub struct Start {
    /// The configuration.
    pub config: Config,
    /// The genesis; its proposer is the key.
    pub genesis: Genesis,
    /// The key; a witness and a node that follows have none.
    pub key: Option<FileKey>,
}

/// Reads and checks everything a start needs, and starts logging.
///
/// # Errors
///
/// What is refused, with exit code 78.
pub fn prepare(args: &NodeArgs) -> Result<Start, ExitError> {
    let root = home(args.home.as_deref())?;
    let (config, warnings) = Config::load(&root, &args.flags, &Env::of_process())?;
    logging::start(&config.log)?;
    for warning in warnings {
        warn!("{warning}");
    }
    config.check_start()?;
    check_certificates(&config)?;
    let files = &config.files;
    let genesis = genesis::load(&files.genesis())?;
    if config.raft.witness || !config.node.aggregator {
        return Ok(Start { config, genesis, key: None });
    }
    let passphrase_file = config.passphrase_file.as_deref().expect("check_start asks for it");
    let key = keys::open(files, &keys::read_passphrase(passphrase_file)?)?;
    genesis::check_proposer(&files.genesis(), &genesis, &files.signer(), key.address())?;
    Ok(Start { config, genesis, key: Some(key) })
}

/// Refuses certificates that the other members would refuse.
fn check_certificates(config: &Config) -> Result<(), ExitError> {
    let Some(cluster) = &config.raft.cluster else { return Ok(()) };
    if let Security::Tls(files) = config.raft.tls.choose(cluster.addresses())? {
        let world = World::new(Arc::new(SystemClock(failpoints::clock_offset())), 0);
        tls::check(&files, &config.raft.node_id, &world).map_err(ExitError::config)?;
    }
    Ok(())
}

/// Checks as `prepare` does but does not decrypt the key: for `config check`.
///
/// # Errors
///
/// What a start would refuse.
pub fn check(config: &Config) -> Result<Genesis, ExitError> {
    config.check_start()?;
    check_certificates(config)?;
    let files = &config.files;
    let genesis = genesis::load(&files.genesis())?;
    if config.raft.witness || !config.node.aggregator {
        return Ok(genesis);
    }
    genesis::check_proposer(&files.genesis(), &genesis, &files.signer(), keys::address(files)?)?;
    // Stdin can be read once only, and here it is not for us.
    if let Some(file) = config.passphrase_file.as_deref().filter(|file| *file != Path::new("-")) {
        keys::read_passphrase(file)?;
    }
    Ok(genesis)
}

/// Refuses to produce on top of what a node that follows has collected.
///
/// # Errors
///
/// When the store is one of a node that follows.
pub fn check_produces(store: &Store) -> Result<(), ExitError> {
    if store.reader().follow().is_none() {
        return Ok(());
    }
    Err(ExitError::config(
        "this store belongs to a node that follows the chain, and node.aggregator is true: set it to false, or make          another home for a node that produces",
    ))
}

/// Refuses a node that would form a cluster alone although it was made to be one of several.
///
/// # Errors
///
/// When its store belongs to no cluster and nobody said with whom it shall.
pub fn check_first(config: &Config, belongs: bool) -> Result<(), ExitError> {
    let alone = config.raft.cluster.as_ref().is_none_or(|cluster| cluster.first == First::Alone);
    if belongs || !alone || !config.files.member_mark().exists() {
        return Ok(());
    }
    Err(ExitError::config(
        "this home was made to be a member of a cluster (`baton init --member`) and belongs to none yet: say \
         --join HOST:PORT of a member, or raft.peers with all first members; alone it would begin a chain beside theirs",
    ))
}
