//! `baton import`: from a single ev-node sequencer to a cluster, in two acts.
//!
//! The first makes a home from the sequencer's: configuration, genesis and keys. Nothing of the
//! old home is changed. Its node follows the chain while the old sequencer goes on. The second,
//! once the old sequencer has stopped for good, ends the following at the chain's last block and
//! makes a cluster of one voter of it; more members join as always.
//!
//! Two sequencers with one key are a fork that nobody can take back. So a home of the first act
//! never produces, the second looks for everything that speaks against it, and from then on the
//! node refuses to produce before it holds the old chain's last block (hazards M1 to M6).

pub mod facts;
pub mod finish;
pub mod judge;
pub mod record;

use std::path::{Path, PathBuf};

use baton_actors::signer::files::{self, Overwrite};
use baton_messages::command::ForcedPosition;
use baton_messages::genesis::Genesis;
use baton_storage::rocks::Rocks;
use baton_storage::{OpenError, Store};
use futures::executor::block_on;
use uuid::Uuid;

use crate::cli::args::ImportArgs;
use crate::cli::place::{home, open_options};
use crate::config::template::template;
use crate::config::value::reachable;
use crate::config::{Config, Env, Flags, Settings, config_file};
use crate::exit::ExitError;
use crate::home::Home;
use crate::init::member::place;
use crate::logging::{note, print};
use crate::{genesis, keys};
use record::Record;

/// The largest key file.
const LIMIT: u64 = 64 << 10;

/// Runs one of the two acts.
///
/// # Errors
///
/// What cannot be taken over, what speaks against it, a file that contradicts another.
pub fn run(args: &ImportArgs) -> Result<(), ExitError> {
    let root = home(args.node.home.as_deref())?;
    match (&args.from, args.finish, args.at) {
        (Some(from), false, _) => begin(&root, from, args),
        (None, true, Some(at)) => finish::run(&root, at, args),
        (None, true, None) => Err(ExitError::usage(
            "say --at HEIGHT: the height of the old sequencer's last block, as it told it before or after it stopped",
        )),
        (Some(_), true, _) | (None, false, _) => Err(ExitError::usage(
            "say --from EVNODE_HOME to begin, or --finish --at HEIGHT once the old sequencer has stopped",
        )),
    }
}

/// Makes a home that follows the chain of another home.
fn begin(root: &Path, from: &Path, args: &ImportArgs) -> Result<(), ExitError> {
    let from = std::fs::canonicalize(from)
        .map_err(|error| ExitError::config(format!("--from {}: {error}", from.display())))?;
    apart(root, &from)?;
    let old = Old::read(&from, &args.node.flags)?;
    let config = configure(root, &old, args)?;
    let files = &config.files;
    refuse_complete(files, &from)?;
    let passphrase = config.passphrase_file.as_deref().ok_or_else(|| {
        ExitError::config(
            "signer.passphrase_file is not set: say --signer.passphrase_file FILE with the passphrase of the old \
             sequencer's signer.json, so that it is known now that it fits",
        )
    })?;
    let passphrase = keys::read_passphrase(passphrase)?;
    let record = Record {
        from: from.clone(),
        chain_id: old.genesis.chain_id.clone(),
        genesis: old.genesis.hash().to_string(),
        old_rpc: reachable(args.old_rpc.as_deref().unwrap_or(&old.rpc)),
        old_data: old.databases.clone(),
        old_key: old.files.signer(),
        finished: None,
    };
    // From here on the home is one of an import: nothing forms a cluster in it.
    record.write_new(files)?;
    let path = config_file(root);
    let text = template(&config.settings);
    place(
        &path,
        text.as_bytes(),
        Path::new("the settings that follow from the old home and the command line"),
    )?;
    place(&files.genesis(), &old.genesis_bytes, &from.join("config/genesis.json"))?;
    let signer = files::read_private(&old.files.signer(), LIMIT).map_err(keys::KeysError::from)?;
    place(&files.signer(), &signer, &old.files.signer())?;
    let address = keys::open(files, &passphrase)?.address();
    genesis::check_proposer(&files.genesis(), &old.genesis, &files.signer(), address)?;
    bring_node_key(files, &old.files)?;
    let store = Store::create(open_options(files, &old.genesis), Uuid::new_v4())?;
    // With this in the store no setting makes the node produce.
    let follows = block_on(store.writer(Box::new(|_| {})).begin_follow(old.genesis.da_start_height));
    store.close();
    follows.map_err(ExitError::config)?;
    note(&format!(
        "made {0} for chain {1} from {2}, which was not changed. Start it with `baton start --home {0}`: it follows the chain \
         and makes no block. Once the old sequencer has stopped for good, end it with `baton import --home {0} --finish --at HEIGHT`",
        root.display(),
        old.genesis.chain_id,
        from.display(),
    ));
    print(&format!("{}\n", root.display()))
}

/// What is read of the old home. Everything is checked before anything is made.
struct Old {
    files: Home,
    settings: Settings,
    genesis: Genesis,
    genesis_bytes: Vec<u8>,
    /// Where its RPC listens.
    rpc: String,
    /// The directories of its databases.
    databases: Vec<PathBuf>,
}

impl Old {
    fn read(from: &Path, flags: &Flags) -> Result<Self, ExitError> {
        let file = config_file(from);
        if !file.exists() {
            return Err(ExitError::config(format!(
                "there is no {}: --from must be the home of an ev-node sequencer",
                file.display()
            )));
        }
        let settings = Settings::gather(Some(&file), &Flags::default(), &Env::default())?;
        // ev-node writes the directory as `init` was told it, also relative to where that ran.
        let files = settings.files(from);
        let files = if files.signer().exists() { files } else { files.with_signer_path("config") };
        refuse_raft(&settings, flags)?;
        let databases = databases(&files)?;
        let path = files.genesis();
        let genesis = genesis::load(&path)?;
        let genesis_bytes = files::read_public(&path, 1 << 20).map_err(keys::KeysError::from)?;
        if !files.signer().exists() {
            return Err(ExitError::config(format!(
                "there is no {}: the chain goes on with the sequencer's key, so --from must be the home of the sequencer, \
                 and its signer a file",
                files.signer().display()
            )));
        }
        genesis::check_proposer(&path, &genesis, &files.signer(), keys::address(&files)?)?;
        let rpc = settings.text("rpc.address");
        Ok(Self { files, settings, genesis, genesis_bytes, rpc, databases })
    }
}

/// A member of an ev-node cluster is not the whole sequencer.
fn refuse_raft(settings: &Settings, flags: &Flags) -> Result<(), ExitError> {
    let said = flags.0.get("raft.enable").is_some_and(|said| said == "false");
    if settings.bool("raft.enable") && !said {
        return Err(ExitError::config(
            "raft.enable is true: this home is a member of an ev-node Raft cluster. The import takes a single sequencer: stop \
             the whole old cluster for good before the second act, name all its machines in your plan, and say \
             --raft.enable=false",
        ));
    }
    Ok(())
}

/// The old node's databases; those of engines that cannot be taken over are refused.
fn databases(files: &Home) -> Result<Vec<PathBuf>, ExitError> {
    let data = files.data();
    let evm = data.join("evm-single");
    if evm.exists() {
        return Err(ExitError::config(format!(
            "{} is there: this sequencer runs an EVM chain, and the EVM engine is not supported yet",
            evm.display()
        )));
    }
    // One that is not on this machine any more is not looked at later.
    let Ok(entries) = std::fs::read_dir(data) else { return Ok(vec![]) };
    let mut found: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect();
    found.sort();
    Ok(found)
}

/// The old settings with the flags over them, as a node needs them that follows for now.
fn configure(root: &Path, old: &Old, args: &ImportArgs) -> Result<Config, ExitError> {
    let mut flags = args.node.flags.clone();
    let unsaid = |flags: &Flags, key: &str| !flags.0.contains_key(key);
    flags.0.insert("node.aggregator", "false".to_owned());
    // The key is copied, and the guard comes to stand beside the copy.
    if unsaid(&flags, "signer.signer_path") {
        flags.0.insert("signer.signer_path", "config".to_owned());
    }
    if unsaid(&flags, "db_path") && Path::new(&old.settings.text("db_path")).is_absolute() {
        flags.0.insert("db_path", "data".to_owned());
    }
    // ev-node's key-value app computes its own roots.
    if unsaid(&flags, "engine.kv_roots") && !old.settings.is_said("engine.kv_roots") {
        flags.0.insert("engine.kv_roots", "testapp".to_owned());
    }
    if let Some(file) =
        flags.0.get_mut("signer.passphrase_file").filter(|file| !matches!(file.as_str(), "" | "-"))
    {
        let absolute = std::path::absolute(&*file)
            .map_err(|error| ExitError::config(format!("signer.passphrase_file {file}: {error}")))?;
        *file = absolute.display().to_string();
    }
    let file = config_file(old.files.root());
    let (config, warnings) = Config::load_file(&file, root, &flags, &Env::of_process())?;
    warnings.iter().for_each(|warning| note(&format!("warning: {warning}")));
    config.check_start()?;
    if config.da.forced_namespace.is_some() {
        return Err(forced());
    }
    Ok(config)
}

/// The old home and the new one must not share anything.
fn apart(root: &Path, from: &Path) -> Result<(), ExitError> {
    let new = std::fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
    if new.starts_with(from) || from.starts_with(&new) {
        return Err(ExitError::usage(format!(
            "--home {} and --from {} share a directory: say another --home, so that the old one stays as it is",
            root.display(),
            from.display()
        )));
    }
    Ok(())
}

/// A complete home is left alone; one that an import left half-way is completed.
fn refuse_complete(files: &Home, from: &Path) -> Result<(), ExitError> {
    let store = files.store();
    let exists = Rocks::exists(&store);
    match Record::read(files)? {
        Some(record) if record.from != from => Err(ExitError::config(format!(
            "{} was begun from {}: say that --from, or another --home",
            files.root().display(),
            record.from.display()
        ))),
        Some(Record { finished: Some(finished), .. }) => Err(ExitError::config(format!(
            "the chain was taken over here at height {} already: a home that lost its store joins the cluster again, as a new \
             member",
            finished.height
        ))),
        Some(_) if exists => Err(ExitError::config(format!(
            "{0} was imported already: start it with `baton start --home {0}`, and end it with \
             `baton import --home {0} --finish --at HEIGHT`",
            files.root().display()
        ))),
        None if exists => Err(OpenError::AlreadyInitialised(store).into()),
        Some(_) | None => Ok(()),
    }
}

/// The old host's key waits until the old host is gone: two hosts with one identity do not talk to
/// each other, and here one follows the other.
fn bring_node_key(files: &Home, old: &Home) -> Result<(), ExitError> {
    if old.node_key().exists() {
        let bytes = files::read_private(&old.node_key(), LIMIT).map_err(keys::KeysError::from)?;
        keys::node_key(old)?;
        place(&files.old_node_key(), &bytes, &old.node_key())?;
    } else {
        note("the old home has no node_key.json: peers will see a new identity");
    }
    keys::node_key(files)?;
    Ok(())
}

/// Where the chain goes on after an import, for a node that produces. A store that holds another
/// block there, or a home whose import was not finished, is refused.
///
/// # Errors
///
/// With code 70 when the store contradicts the record, 78 when the import is not finished.
pub fn begins_at(
    files: &Home,
    reader: &baton_storage::Reader,
    forces: bool,
) -> Result<Option<record::Finished>, ExitError> {
    let Some(record) = Record::read(files)? else { return Ok(None) };
    let Some(finished) = record.finished else {
        return Err(ExitError::config(format!(
            "this home follows the chain of {}: it produces after `baton import --finish --at HEIGHT`, and not before",
            record.from.display()
        )));
    };
    match reader.hash(finished.height)? {
        _ if forces && reader.forced() == ForcedPosition::default() => Err(forced()),
        Some(hash) if hash != finished.hash => Err(ExitError::integrity(format!(
            "the chain was taken over at height {} with block {}, and the store holds {hash} there: it is the store of \
             another chain; stop every node with this key and find out which one is right",
            finished.height, finished.hash
        ))),
        _ => Ok(Some(finished)),
    }
}

/// ev-node keeps where forced inclusion stands in a database of its own: begun anew, everything that
/// was ever forced would be in the chain twice (hazard E7).
fn forced() -> ExitError {
    ExitError::config(
        "da.forced_inclusion_namespace is set, and where forced inclusion stands on this chain is not taken over from \
         ev-node: unset it, on every member",
    )
}

/// Refuses to make another chain's beginning of a home that an import made.
///
/// # Errors
///
/// When there is a record of an import.
pub fn refuse_init(root: &Path) -> Result<(), ExitError> {
    let Some(record) = Record::read(&Home::new(root))? else { return Ok(()) };
    Err(ExitError::config(format!(
        "{} goes on with the chain of {}: `baton import --from` makes its store again, `baton init` would begin the chain anew \
         with its key",
        root.display(),
        record.from.display()
    )))
}

/// Takes the record of a takeover along to another member, so that it waits for the same block.
///
/// # Errors
///
/// When the record cannot be read or written.
pub fn bring_record(from: &Path, files: &Home) -> Result<(), ExitError> {
    let Some(record) = Record::read_beside(from)?.filter(|record| record.finished.is_some()) else {
        return Ok(());
    };
    record.write(files, Overwrite::Replace)
}
