//! Commands on the configuration, the keys and the engine of a stopped node.

use std::fmt::Write;
use std::fs::File;
use std::io;
use std::path::Path;

use baton_actors::engine::Execution;
use baton_actors::engine::kv::{self, Kv};
use baton_actors::signer::key_file::Kdf;
use baton_messages::engine::EngineError;
use baton_messages::types::{Hash, Height};
use baton_storage::{Reader, Store};
use futures::executor::block_on;
use rustix::fs::FlockOperation;

use crate::cli::args::{CleanArgs, ConfigCommand, KeysCommand, NodeArgs, RollbackArgs};
use crate::cli::place::{Place, home};
use crate::cli::start;
use crate::config::{Config, Env, Settings, config_file, reference};
use crate::exit::{ExitCode, ExitError};
use crate::logging::{note, print};
use crate::{keys, store_tool};

/// `baton config`.
///
/// # Errors
///
/// What is refused.
pub fn config(command: ConfigCommand) -> Result<(), ExitError> {
    match command {
        ConfigCommand::Reference => print(&reference::page()),
        ConfigCommand::Show(args) => {
            let root = home(args.home.as_deref())?;
            let file = config_file(&root);
            let settings = Settings::gather(Some(&file), &args.flags, &Env::of_process())?;
            print(&shown(&settings))
        }
        ConfigCommand::Check(args) => {
            let root = home(args.home.as_deref())?;
            let (config, warnings) = Config::load(&root, &args.flags, &Env::of_process())?;
            for warning in warnings {
                note(&format!("warning: {warning}"));
            }
            let genesis = start::check(&config)?;
            print(&format!("{} is in order for chain {}\n", root.display(), genesis.chain_id))
        }
    }
}

/// One line per setting: the value and, as a comment, who said it.
fn shown(settings: &Settings) -> String {
    let mut text = String::new();
    for setting in settings.iter() {
        let (name, value, source) = (setting.key.name, setting.shown(), &setting.source);
        let _ = writeln!(text, "{name}: {value:?} # {source}");
    }
    text
}

/// `baton keys`.
///
/// # Errors
///
/// What is refused.
pub fn keys(command: KeysCommand) -> Result<(), ExitError> {
    match command {
        KeysCommand::Show(args) => {
            let shown = keys::show(&Place::of(&args)?.files)?;
            print(&(serde_json::to_string(&shown).expect("two texts are valid JSON") + "\n"))
        }
        KeysCommand::Export(args) => {
            let place = Place::of(&args)?;
            let passphrase = keys::read_passphrase(&place.passphrase_file()?)?;
            let hex = keys::export(&place.files, &passphrase)?;
            print(&hex)?;
            print("\n")
        }
        KeysCommand::Import { file, force, node } => {
            let place = Place::of(&node)?;
            let passphrase_file = place.passphrase_file()?;
            if passphrase_file == Path::new("-") && file == Path::new("-") {
                return Err(ExitError::usage("key and passphrase cannot both come from stdin"));
            }
            let passphrase = keys::read_passphrase(&passphrase_file)?;
            let private = keys::read_private_hex(&file)?;
            let how = keys::Import { force, kdf: Kdf::EVNODE };
            let shown = keys::import(&place.files, &private, &passphrase, how)?;
            print(&(serde_json::to_string(&shown).expect("two texts are valid JSON") + "\n"))
        }
        KeysCommand::Guard(args) => print(&format!("{}\n", keys::show_guard(&Place::of(&args)?.files)?)),
        KeysCommand::GuardFromCommitted { yes, node } => {
            let place = Place::of(&node)?;
            let genesis = place.genesis()?;
            let store = place.open_store(&genesis)?;
            let committed = committed(&store.reader())?;
            store.close();
            let plan = keys::guard_from_committed(&place.files, &genesis, &committed, yes)?;
            print(&format!("the guard {} holds height {} now\n", plan.path.display(), plan.height))
        }
    }
}

/// How far the store's chain and its signatures go.
///
/// # Errors
///
/// When the store cannot be read.
pub fn committed(reader: &Reader) -> Result<keys::Committed, ExitError> {
    let tip = reader.tip();
    let mut height = tip.height;
    let mut last_signed = None;
    // Only the tail can be unsigned, and it is short; a chain without signatures ends below.
    while height >= reader.initial_height() && height > Height(0) {
        if reader.signature(height)?.is_some() {
            let hash = reader.hash(height)?;
            last_signed = Some((height, hash.unwrap_or_else(Hash::default)));
            break;
        }
        height = height.previous();
    }
    Ok(keys::Committed { tip, last_signed })
}

/// `baton rollback`.
///
/// # Errors
///
/// When the engine cannot go there.
pub fn rollback(args: &RollbackArgs) -> Result<(), ExitError> {
    let place = Place::of(&args.node)?;
    let store = place.open_store(&place.genesis()?)?;
    let moved = take_back(&store, args.height.map(Height));
    store.close();
    let (from, to) = moved?;
    let tip = store_tip_text(&store);
    print(&format!(
        "the engine stood at height {from} and stands at height {to} now. No block was removed: the store's {tip}, \
         and the next start executes everything above height {to} again\n"
    ))
}

fn store_tip_text(store: &Store) -> String {
    format!("last block is {}", store.reader().tip().height)
}

fn take_back(store: &Store, wanted: Option<Height>) -> Result<(Height, Height), ExitError> {
    let mut engine = Kv::open(store.backend(), kv::Config::default())?;
    let from = block_on(engine.position())?.height;
    let wanted = wanted.unwrap_or_else(|| from.previous());
    if wanted > from {
        let message = format!(
            "the engine is at height {from}, it cannot go back to height {wanted}; a start executes what is missing"
        );
        return Err(ExitError::other(message));
    }
    let position = block_on(engine.rollback(wanted)).map_err(|error| match error {
        EngineError::CannotRollBack { .. } => ExitError::other(error),
        other => ExitError::from(other),
    })?;
    store.backend().sync()?;
    Ok((from, position.height))
}

/// `baton unsafe-clean`.
///
/// # Errors
///
/// Without `--yes`, when the store is in use, when it cannot be removed.
pub fn unsafe_clean(args: &CleanArgs) -> Result<(), ExitError> {
    let place = Place::of(&args.node)?;
    let path = place.files.store();
    if !path.exists() {
        return print(&format!("there is no store in {}\n", path.display()));
    }
    if place.files.guard().starts_with(&path) || place.files.signer().starts_with(&path) {
        let message = format!(
            "the key or its guard is inside {}: move them out with signer.signer_path first",
            path.display()
        );
        return Err(ExitError::config(message));
    }
    let guard = keys::show_guard(&place.files)?;
    let cost = format!(
        "{} holds the chain, the log, the vote and accepted transactions that are in no block yet. They cannot be brought \
         back from here. The {guard}; it stays, so this key signs nothing until the chain is back at that height, by a copy \
         of the store or from the cluster.",
        path.display()
    );
    if !args.yes {
        note(&cost);
        return Err(ExitError::usage("nothing was removed: run it again with --yes to remove the store"));
    }
    let _lock = lock(&path)?;
    std::fs::remove_dir_all(&path)
        .map_err(|error| ExitError::other(format!("{} cannot be removed: {error}", path.display())))?;
    note(&cost);
    print(&format!("removed {}; `baton init` makes a new, empty store\n", path.display()))
}

/// Takes the lock that a process with the store open holds.
fn lock(path: &Path) -> Result<Option<File>, ExitError> {
    let lock = path.join("LOCK");
    let file = match File::options().write(true).open(&lock) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            let message = format!(
                "{} cannot be opened, so nobody knows whether the store is in use: {error}",
                lock.display()
            );
            return Err(ExitError::other(message));
        }
    };
    let in_use = |_| {
        let message =
            format!("the store in {} is in use by another process: stop that one first", path.display());
        ExitError::new(ExitCode::RetryLater, message)
    };
    rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).map_err(in_use)?;
    Ok(Some(file))
}

/// `baton store inspect`.
///
/// # Errors
///
/// When the store cannot be opened or read.
pub fn inspect(args: &NodeArgs) -> Result<(), ExitError> {
    let place = Place::of(args)?;
    let store = place.open_store(&place.genesis()?)?;
    let view = store_tool::inspect(&store);
    store.close();
    print(&(serde_json::to_string_pretty(&view?).expect("texts and numbers are valid JSON") + "\n"))
}
