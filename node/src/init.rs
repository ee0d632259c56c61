//! `baton init`: the one explicit act that makes a chain's first home.
//!
//! The store comes last: a home with a store is complete. An init that was cut short is
//! resumed, what is there is kept and checked, and a complete home is refused. Nothing but
//! this forms a cluster, so an empty data directory never does; and a home made with `--member`
//! forms one only with others.

pub(crate) mod member;

use baton_actors::signer::files::{self, Overwrite};
use baton_actors::signer::key_file::Kdf;
use baton_messages::genesis::Genesis;
use baton_messages::types::{DaHeight, Hash, Height, Timestamp};
use baton_storage::rocks::Rocks;
use baton_storage::{OpenError, Store};
use rand::RngExt;
use uuid::Uuid;

use crate::cli::args::InitArgs;
use crate::cli::place::{home, open_options};
use crate::config::template::template;
use crate::config::{Config, Env, Flags, config_file};
use crate::exit::ExitError;
use crate::home::Home;
use crate::logging::{note, print};
use crate::{genesis, import, keys};

/// The chain's name when nobody says one.
const CHAIN_ID: &str = "baton";

/// Makes a home. Everything is durable when it returns.
///
/// # Errors
///
/// A home that is complete already, a value that is refused, a file that contradicts another.
pub fn run(args: &InitArgs) -> Result<(), ExitError> {
    let root = home(args.node.home.as_deref())?;
    if !args.member {
        import::refuse_init(&root)?;
    }
    let config = configure(&root, args)?;
    let files = &config.files;
    member::bring(&config, args)?;
    let follows = !config.node.aggregator;
    let address = match config.raft.witness || follows {
        true => None,
        false => Some(provide_key(&config, args.insecure_fast_kdf)?),
    };
    keys::node_key(files)?;
    let genesis = match address {
        Some(address) => provide_genesis(files, args.chain_id.as_deref(), address)?,
        None => genesis::load(&files.genesis())?,
    };
    if address.is_some() && keys::show_guard(files)?.state == "missing" {
        keys::guard_from_committed(files, &genesis, &keys::Committed::default(), true)?;
    }
    if args.member {
        member::mark(files)?;
    }
    let store = Store::create(open_options(files, &genesis), Uuid::new_v4())?;
    store.close();
    note(&format!(
        "made {} for chain {}; start it with `baton start --home {0}`",
        root.display(),
        genesis.chain_id
    ));
    print(&format!("{}\n", root.display()))
}

/// Reads the configuration that is there, or writes one.
fn configure(root: &std::path::Path, args: &InitArgs) -> Result<Config, ExitError> {
    let (env, flags) = (Env::of_process(), &args.node.flags);
    let path = config_file(root);
    if path.exists() {
        let (config, warnings) = Config::load(root, flags, &env)?;
        refuse_complete(&config.files)?;
        member::check(&config, args)?;
        warnings.iter().for_each(|warning| note(&format!("warning: {warning}")));
        note(&format!("kept {}", path.display()));
        return Ok(config);
    }
    let flags = with_defaults(flags, &env, args.member)?;
    let (config, warnings) = Config::without_file(root, &flags, &env)?;
    refuse_complete(&config.files)?;
    warnings.iter().for_each(|warning| note(&format!("warning: {warning}")));
    // Refused before anything is made.
    member::check(&config, args)?;
    let has_key = config.files.signer().exists() || args.signer_from.is_some();
    let has_key = has_key || config.raft.witness || !config.node.aggregator;
    if config.passphrase_file.is_none() && !has_key {
        return Err(no_key());
    }
    files::write_private(&path, template(&config.settings).as_bytes(), Overwrite::Refuse)
        .map_err(keys::KeysError::from)?;
    Ok(config)
}

fn refuse_complete(files: &Home) -> Result<(), ExitError> {
    let store = files.store();
    if Rocks::exists(&store) { Err(OpenError::AlreadyInitialised(store).into()) } else { Ok(()) }
}

/// A new home produces blocks, in a namespace of its own, and finds its passphrase from anywhere.
fn with_defaults(flags: &Flags, env: &Env, member: bool) -> Result<Flags, ExitError> {
    let mut flags = flags.clone();
    let said =
        |flags: &Flags, key: &str, variable: &str| flags.0.contains_key(key) || env.0.contains_key(variable);
    if !said(&flags, "node.aggregator", "BATON_NODE_AGGREGATOR") {
        let light = flags.0.get("node.light").or_else(|| env.0.get("BATON_NODE_LIGHT"));
        let produces = light.is_none_or(|said| said != "true");
        flags.0.insert("node.aggregator", produces.to_string());
    }
    let implied =
        |flags: &Flags, key: &str| flags.0.get(key).is_some_and(|said| !matches!(&**said, "" | "false"));
    let implied = implied(&flags, "raft.join") || implied(&flags, "raft.witness");
    if implied && !said(&flags, "raft.enable", "BATON_RAFT_ENABLE") {
        flags.0.insert("raft.enable", "true".to_owned());
    }
    // That of a chain that exists cannot be guessed.
    let follows = flags.0.get("node.aggregator").or_else(|| env.0.get("BATON_NODE_AGGREGATOR"));
    let follows = follows.is_some_and(|said| said == "false");
    if !member && !follows && !said(&flags, "da.namespace", "BATON_DA_NAMESPACE") {
        flags.0.insert("da.namespace", random_namespace());
    }
    if let Some(file) =
        flags.0.get_mut("signer.passphrase_file").filter(|file| !matches!(file.as_str(), "" | "-"))
    {
        let absolute = std::path::absolute(&*file)
            .map_err(|error| ExitError::config(format!("signer.passphrase_file {file}: {error}")))?;
        *file = absolute.display().to_string();
    }
    Ok(flags)
}

/// Ten letters and digits, as ev-node does it.
#[allow(clippy::disallowed_methods, reason = "a command, outside of any simulation")]
fn random_namespace() -> String {
    let mut random = rand::rng();
    (0..10).map(|_| char::from(random.sample(rand::distr::Alphanumeric))).collect()
}

fn no_key() -> ExitError {
    ExitError::config(
        "signer.passphrase_file is not set: a node that produces blocks needs a key, and a passphrase to encrypt it; \
         say --signer.passphrase_file FILE (only its owner may read it)",
    )
}

/// The address of the key that is there, or of a new one.
fn provide_key(config: &Config, insecure_fast_kdf: bool) -> Result<Hash, ExitError> {
    let files = &config.files;
    let Some(file) = &config.passphrase_file else {
        return if files.signer().exists() { Ok(keys::address(files)?) } else { Err(no_key()) };
    };
    let passphrase = keys::read_passphrase(file)?;
    if files.signer().exists() {
        // A passphrase that does not fit is better found now than at the first start.
        return Ok(keys::open(files, &passphrase)?.address());
    }
    let kdf = if insecure_fast_kdf { Kdf::INSECURE } else { Kdf::EVNODE };
    keys::create(files, &passphrase, kdf)?;
    Ok(keys::address(files)?)
}

/// The genesis that is there, or a new one that begins now.
#[allow(clippy::disallowed_methods, reason = "a command, outside of any simulation")]
fn provide_genesis(files: &Home, chain_id: Option<&str>, proposer: Hash) -> Result<Genesis, ExitError> {
    let path = files.genesis();
    if path.exists() {
        let genesis = genesis::load(&path)?;
        genesis::check_proposer(&path, &genesis, &files.signer(), proposer)?;
        if chain_id.is_some_and(|chain_id| chain_id != genesis.chain_id) {
            let (path, chain) = (path.display(), &genesis.chain_id);
            return Err(ExitError::config(format!(
                "{path} is of chain {chain}, not of the one in --chain_id"
            )));
        }
        note(&format!("kept {}", path.display()));
        return Ok(genesis);
    }
    let now = jiff::Timestamp::now().as_nanosecond();
    let genesis = Genesis {
        chain_id: chain_id.unwrap_or(CHAIN_ID).to_owned(),
        start_time: Timestamp(u64::try_from(now).unwrap_or(0)),
        initial_height: Height(1),
        proposer_address: proposer.to_bytes(),
        da_start_height: DaHeight(0),
        da_epoch_forced_inclusion: 50,
    };
    genesis::write(&path, &genesis, Overwrite::Refuse)?;
    Ok(genesis)
}
