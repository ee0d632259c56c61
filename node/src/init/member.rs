//! `baton init --member`: what a member of a cluster takes over from the chain, and what it
//! never does.

use std::path::{Path, PathBuf};

use baton_actors::signer::files::{self, Overwrite};

use crate::cli::args::InitArgs;
use crate::config::Config;
use crate::exit::ExitError;
use crate::home::Home;
use crate::logging::note;
use crate::{genesis, keys};

/// The largest key file.
const LIMIT: u64 = 64 << 10;

/// Refuses what cannot become a member, before anything is made.
pub(super) fn check(config: &Config, args: &InitArgs) -> Result<(), ExitError> {
    let files = &config.files;
    if config.raft.witness && !args.member {
        return Err(ExitError::usage("a witness belongs to others: make it with --member"));
    }
    if config.raft.witness && args.signer_from.is_some() {
        return Err(ExitError::usage("a witness has no key: leave --signer-from out"));
    }
    if !config.node.aggregator {
        return check_follows(config, args);
    }
    if !args.member {
        return Ok(());
    }
    if args.genesis.is_none() && !files.genesis().exists() {
        return Err(ExitError::usage(format!(
            "a member takes part in a chain that has a genesis: say --genesis FILE (config/genesis.json of \
             another member), or put it at {}",
            files.genesis().display()
        )));
    }
    if !config.raft.witness && args.signer_from.is_none() && !files.signer().exists() {
        return Err(ExitError::usage(format!(
            "the members of a cluster share one sequencer key: say --signer-from DIR (the config directory of \
             another member), or put its signer.json at {}; never copy its guard",
            files.signer().display()
        )));
    }
    if !config.raft.witness && config.da.namespace.is_empty() {
        return Err(ExitError::config(
            "da.namespace is not set: it must be the one of the other members (`baton config show` there)",
        ));
    }
    Ok(())
}

/// Refuses what cannot follow a chain.
fn check_follows(config: &Config, args: &InitArgs) -> Result<(), ExitError> {
    if args.member || args.signer_from.is_some() {
        return Err(ExitError::usage(
            "node.aggregator is false: a node that follows a chain is no member of its cluster and has no key; leave \
             --member and --signer-from out",
        ));
    }
    if args.genesis.is_none() && !config.files.genesis().exists() {
        return Err(ExitError::usage(format!(
            "a node that follows a chain needs its genesis: say --genesis FILE (config/genesis.json of a node of the \
             chain), or put it at {}",
            config.files.genesis().display()
        )));
    }
    let only_peers = config.da.address.is_empty() && !config.p2p.peers.is_empty();
    if config.da.namespace.is_empty() && !only_peers {
        return Err(ExitError::config(
            "da.namespace is not set: it must be that of the chain that is followed (`baton config show` there); a node \
             that follows peers alone needs p2p.peers instead, and no da.address",
        ));
    }
    Ok(())
}

/// Copies genesis and key from where they are. The guard of another machine says what that one
/// signed: a copy would let this one sign what it must not (hazards A11, A15), so it stays there.
pub(super) fn bring(config: &Config, args: &InitArgs) -> Result<(), ExitError> {
    let files = &config.files;
    if let Some(from) = &args.genesis {
        // Read as a genesis first: what is no genesis is not put in place.
        genesis::load(from)?;
        let bytes = files::read_public(from, 1 << 20).map_err(keys::KeysError::from)?;
        place(&files.genesis(), &bytes, from)?;
    }
    if let Some(directory) = &args.signer_from {
        crate::import::bring_record(directory, files)?;
        let from = signer_in(directory)?;
        let bytes = files::read_private(&from, LIMIT).map_err(keys::KeysError::from)?;
        place(&files.signer(), &bytes, &from)?;
        note(&format!(
            "took the key from {}; the double-sign guard beside it stays there, this machine gets its own",
            from.display()
        ));
    }
    Ok(())
}

/// Says that this home forms no cluster by itself.
pub(super) fn mark(files: &Home) -> Result<(), ExitError> {
    let text = b"This home was made with `baton init --member`. Its node forms no cluster by itself.\n";
    files::write_private(&files.member_mark(), text, Overwrite::Replace).map_err(keys::KeysError::from)?;
    Ok(())
}

/// Puts a file in place; the same one may be there already, as after an init that was cut short.
pub(crate) fn place(to: &Path, bytes: &[u8], from: &Path) -> Result<(), ExitError> {
    if std::fs::read(to).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    match files::write_private(to, bytes, Overwrite::Refuse) {
        Err(files::FileError::Exists { path }) => Err(ExitError::config(format!(
            "{} is there and differs from {}: remove one of them",
            path.display(),
            from.display()
        ))),
        written => Ok(written.map_err(keys::KeysError::from)?),
    }
}

/// The key file of a home, or of the `config` directory in it.
fn signer_in(directory: &Path) -> Result<PathBuf, ExitError> {
    let places = [directory.join("signer.json"), directory.join("config/signer.json")];
    let found = places.iter().find(|place| place.exists()).cloned();
    found.ok_or_else(|| {
        ExitError::usage(format!("there is no signer.json in {} nor in its config", directory.display()))
    })
}
