//! `baton start` of a sequencer that was restored: it follows first, takes its chain over, and starts
//! anew in its own place.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use baton_actors::signer::FileGuard;
use baton_actors::world::World;
use baton_messages::genesis::Genesis;
use baton_messages::types::{Hash, Height, Member};
use baton_storage::Store;
use tracing::info;
use uuid::Uuid;

use crate::catch_up::plan::Plan;
use crate::catch_up::{CatchUp, Links};
use crate::cli::place::open_options;
use crate::cli::start::Start;
use crate::config::Config;
use crate::exit::ExitError;
use crate::following::FullNode;
use crate::import::finish;
use crate::import::record::{Finished, Record};

/// The chain stands still when no block came for so many block times, and for so long at least.
const BLOCKS: u32 = 10;
const LEAST: Duration = Duration::from_secs(5);

/// Whether a node that would produce is to follow first: it was told to, and its store belongs to no
/// cluster. A home that an import made goes its own way.
///
/// # Errors
///
/// When the store or the record of an import cannot be read.
pub(super) fn is_due(start: &Start) -> Result<bool, ExitError> {
    let config = &start.config;
    if config.node.catch_up.is_none() || Record::read(&config.files)?.is_some() {
        return Ok(false);
    }
    let store = Store::open(open_options(&config.files, &start.genesis))?;
    let reader = store.reader();
    let belongs = store.cluster().is_some()
        || reader.applied().is_some()
        || reader.last_log().is_some()
        || reader.membership().membership().voter_ids().next().is_some();
    store.close();
    Ok(!belongs)
}

/// What a node that follows does until it may produce; `None` where it is not to.
///
/// # Errors
///
/// When the guard cannot be looked at.
pub(super) fn begin(
    config: &Config,
    node: &FullNode,
    world: World,
) -> Result<Option<CatchUp<FileGuard>>, ExitError> {
    let Some(patience) = config.node.catch_up.filter(|_| config.node.aggregator) else { return Ok(None) };
    let between = match config.node.lazy_mode {
        true => config.node.lazy_block_interval * 2,
        false => config.node.block_time * BLOCKS,
    };
    let quiet = between.max(config.da.block_time * 2).max(LEAST);
    info!(?quiet, ?patience, "this node would produce: it catches up with its chain first");
    Ok(Some(CatchUp {
        plan: Plan::new(quiet, patience),
        links: Links {
            observer: node.observer.clone(),
            sync: node.sync.clone(),
            heads: node.heads.clone(),
            waits: node.waits.clone(),
        },
        reader: node.reader.clone(),
        guard: FileGuard::open(&config.files.guard()).map_err(ExitError::retry_later)?,
        world,
    }))
}

/// The chain goes on here, after this block: first the guard, so that the key never signs below it,
/// then the store, in one batch. Cut short between the two, it is done again.
///
/// # Errors
///
/// When something came between, to be tried again; the store follows on then.
pub(super) async fn take_over(
    config: &Config,
    genesis: &Genesis,
    store: &Store,
    (height, hash): (Height, Hash),
) -> Result<(), ExitError> {
    let seen = finish::guard(&config.files, genesis, &store.reader(), Finished { height, hash })?;
    let member =
        Member { name: config.raft.node_id.clone(), storage: store.identity().storage, ..Member::default() };
    let writer = store.writer(Box::new(|_| {}));
    writer.take_over(height, hash, member, Uuid::new_v4(), seen).await.map_err(ExitError::retry_later)?;
    info!(height = height.0, %hash, "caught up: the chain goes on here, the node starts anew to produce");
    Ok(())
}

/// Puts a new life in the place of this one: producing begins where it always begins. Returns only
/// when that cannot be.
pub(super) fn start_anew() -> ExitError {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return ExitError::retry_later(format!("caught up, start it again: {error}")),
    };
    let error = Command::new(program).args(std::env::args_os().skip(1)).exec();
    ExitError::retry_later(format!("caught up, start it again: {error}"))
}
