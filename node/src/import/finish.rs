//! The second act: the following ends at the old chain's last block, and the store becomes that of
//! a cluster of one voter.
//!
//! Every step can be done again. The intent is on disk first; then the guard, so that the key
//! never signs the heights below; then the store, in one batch; then host key and configuration.
//! An act that was cut short is completed by running it again with the same height.

use std::path::{Path, PathBuf};

use baton_actors::da::celestia::Celestia;
use baton_actors::signer::FileGuard;
use baton_actors::signer::files::{self, Overwrite};
use baton_actors::signer::guard::Guard;
use baton_actors::signer::slot::ChainId;
use baton_messages::genesis::Genesis;
use baton_messages::types::{Height, Member, Term};
use baton_storage::{Reader, Store};
use uuid::Uuid;

use super::facts::{self, Old};
use super::judge::{Facts, Seen, Waived, judge};
use super::record::{Finished, Record, parse_hash};
use crate::cli::args::ImportArgs;
use crate::cli::place::open_options;
use crate::cli::tools::committed;
use crate::config::template::template;
use crate::config::value::reachable;
use crate::config::{Config, Env, Flags, Settings, config_file};
use crate::exit::ExitError;
use crate::genesis;
use crate::home::Home;
use crate::keys::{self, KeysError};
use crate::logging::{note, print};
use crate::run::celestia_config;

/// Takes the chain over at this height.
pub(super) fn run(root: &Path, at: u64, args: &ImportArgs) -> Result<(), ExitError> {
    let hash = match args.hash.as_deref() {
        None => None,
        Some(text) => Some(
            parse_hash(text)
                .ok_or_else(|| ExitError::usage(format!("--hash {text}: a header hash has 64 hex digits")))?,
        ),
    };
    let (config, _) = Config::load(root, &args.node.flags, &Env::of_process())?;
    let files = &config.files;
    let genesis = genesis::load(&files.genesis())?;
    let mut record = match Record::read(files)? {
        Some(record) => record,
        // A person ends what a restored sequencer waits for.
        None if config.node.catch_up.is_some() => Record {
            from: root.to_owned(),
            chain_id: genesis.chain_id.clone(),
            genesis: genesis.hash().to_string(),
            old_rpc: String::new(),
            old_data: vec![],
            old_key: PathBuf::new(),
            finished: None,
        },
        None => {
            return Err(ExitError::config(format!(
                "{} was not made by `baton import --from`: there is nothing to finish",
                root.display()
            )));
        }
    };
    if let Some(address) = &args.old_rpc {
        record.old_rpc = reachable(address);
    }
    let store = Store::open(open_options(files, &genesis))?;
    let done = take_over(&config, &genesis, &store, &mut record, Height(at), hash, args);
    store.close();
    let finished = done?;
    produce_from_now_on(root, files)?;
    print(&format!(
        "the chain goes on from height {} with block {}: start it with `baton start --home {}`. The old sequencer must never \
         run again\n",
        finished.height,
        finished.hash,
        root.display()
    ))
}

/// Judges, and does what cannot be taken back; or goes on with what was begun.
fn take_over(
    config: &Config,
    genesis: &Genesis,
    store: &Store,
    record: &mut Record,
    height: Height,
    hash: Option<baton_messages::types::Hash>,
    args: &ImportArgs,
) -> Result<Finished, ExitError> {
    let (files, reader) = (&config.files, store.reader());
    if reader.follow().is_none() {
        return go_on(record, &reader, height);
    }
    let tip = reader.tip();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| ExitError::other(format!("cannot start a runtime: {error}")))?;
    let facts = runtime.block_on(async {
        let mut others = vec![("DA", ask_da(config, genesis, &reader).await?)];
        let old = facts::old_sequencer(&record.old_rpc).await;
        let answers = (old == Old::Answers).then(|| record.old_rpc.clone());
        if let Old::Unknown(why) = old {
            others.push(("the old sequencer", Seen::Silent(why)));
        }
        Ok::<_, ExitError>(Facts {
            height,
            hash,
            tip: (tip.height, tip.hash),
            in_use: facts::in_use(&record.old_data),
            answers,
            key: Some(record.old_key.clone()).filter(|path| path.exists()),
            others,
        })
    })?;
    let waived = Waived { key_stays: args.old_key_stays, silence: args.unreachable_ok };
    let notes = judge(&facts, waived).map_err(ExitError::config)?;
    notes.iter().for_each(|text| note(&format!("warning: {text}")));
    let finished = Finished { height: tip.height, hash: tip.hash };
    record.finished = Some(finished);
    record.write(files, Overwrite::Replace)?;
    let seen = guard(files, genesis, &reader, finished)?;
    let member =
        Member { name: config.raft.node_id.clone(), storage: store.identity().storage, ..Member::default() };
    let writer = store.writer(Box::new(|_| {}));
    let taken = writer.take_over(finished.height, finished.hash, member, Uuid::new_v4(), seen);
    runtime.block_on(taken).map_err(ExitError::config)?;
    Ok(finished)
}

async fn ask_da(config: &Config, genesis: &Genesis, reader: &Reader) -> Result<Seen, ExitError> {
    if config.da.address.is_empty() {
        return Ok(Seen::Nobody("da.address is not set".to_owned()));
    }
    let da = Celestia::new(celestia_config(config)?).map_err(ExitError::config)?;
    Ok(facts::highest_on_da(config, genesis, &da, facts::cursor(reader)?).await)
}

/// The store is a cluster's already: the act was done, or cut short after it.
fn go_on(record: &Record, reader: &Reader, height: Height) -> Result<Finished, ExitError> {
    let Some(finished) = record.finished else {
        return Err(ExitError::config(
            "this store follows no chain and its import was not finished: it is not the store of this home",
        ));
    };
    if finished.height != height {
        return Err(ExitError::config(format!(
            "the chain was taken over at height {} already, not at {height}",
            finished.height
        )));
    }
    if reader.hash(finished.height)? != Some(finished.hash) {
        return Err(ExitError::integrity(format!(
            "the chain was taken over at height {} with block {}, and the store holds another one there",
            finished.height, finished.hash
        )));
    }
    Ok(finished)
}

/// The key signs what follows this block and nothing else. Gives the term in which it signed last, as far as
/// the guard knows: one that outlived its store keeps it.
pub(crate) fn guard(
    files: &Home,
    genesis: &Genesis,
    reader: &Reader,
    finished: Finished,
) -> Result<Term, ExitError> {
    let committed = committed(reader)?;
    if committed.last_signed != Some((finished.height, finished.hash)) {
        return Err(ExitError::config(format!(
            "the signature of the last block, at height {}, is not here",
            finished.height
        )));
    }
    refuse_ahead(files, genesis, finished.height)?;
    match keys::guard_from_committed(files, genesis, &committed, true) {
        Ok(_) => {}
        // From an act that was cut short, or from before the store was lost.
        Err(KeysError::GuardInOrder { height, .. }) if height == finished.height => {}
        Err(error) => return Err(error.into()),
    }
    let slots = FileGuard::peek(&files.guard()).map_err(ExitError::retry_later)?;
    let chain = ChainId { name: genesis.chain_id.clone(), genesis: genesis.hash() };
    Guard::open(&slots, &chain)
        .map(|guard| guard.map_or(Term(0), |guard| guard.record().term))
        .map_err(ExitError::config)
}

/// The key has signed above this block: to go on here would sign those heights again (P2).
fn refuse_ahead(files: &Home, genesis: &Genesis, height: Height) -> Result<(), ExitError> {
    let chain = ChainId { name: genesis.chain_id.clone(), genesis: genesis.hash() };
    let slots = FileGuard::peek(&files.guard()).map_err(ExitError::retry_later)?;
    // One that cannot be read is looked at where it is set.
    let Ok(Some(guard)) = Guard::open(&slots, &chain) else { return Ok(()) };
    let signed = guard.record().height;
    match signed > height {
        true => Err(ExitError::config(format!(
            "the double-sign guard {} says that block {signed} was signed, above {height}: the chain does not go on from \
             here; bring a peer or a DA node that has that block",
            files.guard().display()
        ))),
        false => Ok(()),
    }
}

/// Host key and configuration, once the store is the cluster's.
fn produce_from_now_on(root: &Path, files: &Home) -> Result<(), ExitError> {
    let old = files.old_node_key();
    if old.exists() {
        let bytes = files::read_private(&old, 64 << 10).map_err(KeysError::from)?;
        files::write_private(&files.node_key(), &bytes, Overwrite::Replace).map_err(KeysError::from)?;
    }
    let path = config_file(root);
    let flags = Flags([("node.aggregator", "true".to_owned())].into());
    let settings = Settings::gather(Some(&path), &flags, &Env::default())?;
    files::write_private(&path, template(&settings).as_bytes(), Overwrite::Replace)
        .map_err(KeysError::from)?;
    Ok(())
}
