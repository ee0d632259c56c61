//! Looking at a store, and filling one with a long valid chain for tests.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use baton_actors::engine::Execution;
use baton_actors::engine::kv::{self, Kv};
use baton_actors::signer::key::{FileKey, Key};
use baton_messages::chain::{Block, Data, Header, Metadata, State};
use baton_messages::command::{BlockEntry, Command, ForcedPosition, HeaderSignature, Verdict};
use baton_messages::engine::InitChain;
use baton_messages::genesis::Genesis;
use baton_messages::types::{Height, Member, MemberId, StateRoot, Term, Tx};
use baton_storage::raft_types::{Entry, Membership, Payload, Vote, log_id};
use baton_storage::{LogStore, Store, Writer};
use bytes::Bytes;
use futures::executor::block_on;
use openraft::storage::{IOFlushed, RaftLogStorage};
use serde::Serialize;

use crate::cli::args::GenerateArgs;
use crate::cli::place::Place;
use crate::exit::ExitError;
use crate::keys;
use crate::logging::print;

/// Blocks that are appended and committed together.
const TOGETHER: u64 = 256;

/// Between the times of two blocks of a generated chain: short, so that none is in the future.
const APART: Duration = Duration::from_micros(1);

/// The term in which a generated chain was made.
const TERM: u64 = 1;

/// What a store holds.
#[derive(Clone, Debug, Serialize)]
pub struct View {
    /// The store's identity.
    pub storage: String,
    /// How often it was opened, this time included.
    pub boot: u64,
    /// The chain.
    pub chain_id: String,
    /// The genesis hash in hex.
    pub genesis_hash: String,
    /// The last block.
    pub tip: TipView,
    /// The first height whose transactions are here.
    pub first_height_with_body: u64,
    /// A height whose transactions are missing.
    pub missing: Option<u64>,
    /// The last applied log entry and its term.
    pub applied: Option<(u64, u64)>,
    /// Members by identity, with name.
    pub members: BTreeMap<String, String>,
    /// The last height of which everything is on DA.
    pub da_included: u64,
    /// Transactions that were accepted and are in no block yet.
    pub queued: usize,
    /// The last height that the key-value engine executed.
    pub engine_height: Option<u64>,
    /// The engine's state root in hex.
    pub engine_root: Option<String>,
    /// Free bytes beside the store.
    pub free_space: Option<u64>,
}

/// The last block.
#[derive(Clone, Debug, Serialize)]
pub struct TipView {
    /// Its height.
    pub height: u64,
    /// Its header hash in hex.
    pub hash: String,
    /// Its time in nanoseconds since the Unix epoch.
    pub time: u64,
    /// Whether its signature is here.
    pub signed: bool,
}

/// Looks at an open store.
///
/// # Errors
///
/// When it cannot be read.
pub fn inspect(store: &Store) -> Result<View, ExitError> {
    let (reader, identity) = (store.reader(), store.identity());
    let tip = reader.tip();
    let mut engine = Kv::open(store.backend(), kv::Config::default())?;
    // An engine that never ran has no position, which is no error.
    let position = block_on(engine.position()).ok();
    let membership = reader.membership();
    let members = membership.membership().nodes();
    Ok(View {
        storage: identity.storage.to_string(),
        boot: identity.boot,
        chain_id: identity.chain_id,
        genesis_hash: identity.genesis_hash.to_string(),
        tip: TipView {
            height: tip.height.0,
            hash: tip.hash.to_string(),
            time: tip.time.0,
            signed: tip.height > Height(0) && reader.signature(tip.height)?.is_some(),
        },
        first_height_with_body: reader.first_height_with_body().0,
        missing: reader.missing()?.map(|(height, _)| height.0),
        applied: reader.applied().map(|(index, term)| (index.0, term.0)),
        members: members.map(|(id, member)| (id.to_string(), member.name.clone())).collect(),
        da_included: reader.da_progress().included.0,
        queued: store.queue().load()?.len(),
        engine_height: position.as_ref().map(|position| position.height.0),
        engine_root: position.as_ref().map(|position| position.root.to_string()),
        free_space: store.free_space()?,
    })
}

/// `baton store generate`.
///
/// # Errors
///
/// When the store holds blocks already, or a file is refused.
pub fn run_generate(args: &GenerateArgs) -> Result<(), ExitError> {
    let place = Place::of(&args.node)?;
    let genesis = place.genesis()?;
    let key = place.key()?;
    crate::genesis::check_proposer(&place.files.genesis(), &genesis, &place.files.signer(), key.address())?;
    let store = place.open_store(&genesis)?;
    let name = place.settings.node_id();
    let made = Generator::begin(&store, &genesis, key, &name)
        .and_then(|generator| generator.run(args, &mut progress(args.blocks)));
    store.close();
    let committed = made?;
    keys::guard_from_committed(&place.files, &genesis, &committed, true)?;
    print(&format!("the chain ends at height {}, {}\n", committed.tip.height, committed.tip.hash))
}

/// Says on a terminal how far it is.
fn progress(blocks: u64) -> impl FnMut(u64) {
    let terminal = io::stderr().is_terminal();
    move |done| {
        if terminal {
            let _ =
                write!(io::stderr(), "\r{done} of {blocks} blocks{}", if done == blocks { "\n" } else { "" });
        }
    }
}

/// Makes blocks as the node does: body and entry into the log, commit, execution, signature.
struct Generator<'a> {
    store: &'a Store,
    log: LogStore,
    writer: Writer,
    engine: Kv,
    key: FileKey,
    id: MemberId,
    state: State,
    genesis: &'a Genesis,
    last_data_hash: Bytes,
    tail: Option<HeaderSignature>,
    index: u64,
}

impl<'a> Generator<'a> {
    fn begin(store: &'a Store, genesis: &'a Genesis, key: FileKey, name: &str) -> Result<Self, ExitError> {
        let tip = store.reader().tip();
        if tip.height > Height(0) || store.reader().applied().is_some() {
            let message =
                format!("the store is not empty, its last block is {}: generate into a new home", tip.height);
            return Err(ExitError::config(message));
        }
        let mut engine = Kv::open(store.backend(), kv::Config::default())?;
        let root = block_on(engine.init_chain(InitChain {
            time: genesis.start_time,
            initial_height: genesis.initial_height,
            chain_id: genesis.chain_id.clone(),
        }))?;
        let id = MemberId::of(store.identity().storage);
        let mut generator = Self {
            log: store.log(),
            writer: store.writer(Box::new(|_| {})),
            engine,
            key,
            id,
            state: State::before_first(genesis, &root),
            genesis,
            last_data_hash: Bytes::new(),
            tail: None,
            index: 0,
            store,
        };
        generator.form_cluster(name)?;
        Ok(generator)
    }

    /// A cluster of one voter, as the first start makes it.
    fn form_cluster(&mut self, name: &str) -> Result<(), ExitError> {
        let storage = self.store.identity().storage;
        let member = Member { name: name.to_owned(), storage, ..Member::default() };
        let voters = vec![[self.id].into()];
        let membership = Membership::new(voters, BTreeMap::from([(self.id, member)]))
            .map_err(|error| ExitError::other(format!("no membership: {error}")))?;
        let vote = Vote::new_committed(TERM, self.id);
        block_on(self.log.save_vote(&vote)).map_err(storage_failed)?;
        // The first entry is always of the term before the first.
        let entry = Entry { log_id: log_id(0, 0), payload: Payload::Membership(membership) };
        self.take(vec![entry])
    }

    fn run(
        mut self,
        args: &GenerateArgs,
        progress: &mut dyn FnMut(u64),
    ) -> Result<keys::Committed, ExitError> {
        let blocks = args.blocks;
        let mut entries = vec![];
        for number in 1..=blocks {
            let block = self.next_block(args.txs, args.tx_bytes as usize);
            let entry = BlockEntry {
                term: Term(TERM),
                block: block.clone(),
                tail: self.tail.take(),
                forced: ForcedPosition::default(),
            };
            entries.push(self.entry(Command::Block(entry)));
            let executed = block_on(self.engine.execute_block(block.clone()))?;
            self.follow(&block, &executed.root)?;
            if number % TOGETHER == 0 || number == blocks {
                self.take(std::mem::take(&mut entries))?;
                progress(number);
            }
        }
        let last = self.tail.take().expect("at least one block was made");
        let signed = (last.height, last.hash);
        let entry = self.entry(Command::Signature(last));
        self.take(vec![entry])?;
        self.store.backend().sync()?;
        Ok(keys::Committed { tip: self.store.reader().tip(), last_signed: Some(signed) })
    }

    fn next_block(&self, txs: u32, tx_bytes: usize) -> Arc<Block> {
        let height = self.state.last_block_height.next();
        let begin = self.state.last_block_time.unwrap_or(self.genesis.start_time);
        let first = height == self.genesis.initial_height;
        let time = if first { begin } else { begin.plus(APART) };
        let chain_id = self.genesis.chain_id.clone();
        let last_data_hash = self.last_data_hash.clone();
        let metadata = Metadata { chain_id: chain_id.clone(), height, time, last_data_hash };
        let tx = |number| {
            let tx = format!("key-{height}-{number}=value-{height}-{number}");
            Tx(Bytes::from(format!("{tx:.<tx_bytes$}")))
        };
        let txs = (0..txs).map(tx);
        let data = Data { metadata: Some(metadata), txs: txs.collect() };
        let header = Header {
            height,
            time,
            last_header_hash: self.state.last_header_hash.clone(),
            data_hash: data.commitment().to_bytes(),
            app_hash: self.state.app_hash.clone(),
            proposer_address: self.genesis.proposer_address.clone(),
            chain_id,
            ..Header::default()
        };
        Block::shared(header, data)
    }

    /// Signs a block and goes on from it.
    fn follow(&mut self, block: &Block, root: &StateRoot) -> Result<(), ExitError> {
        let [payload, _] = block.header().signature_payloads();
        let signature = self.key.sign(&payload).map_err(ExitError::other)?;
        self.tail = Some(HeaderSignature { height: block.height(), hash: block.hash(), signature });
        self.last_data_hash = block.data().hash().to_bytes();
        self.state = self.state.after(block, root, &Bytes::new());
        Ok(())
    }

    fn entry(&mut self, command: Command) -> Entry {
        self.index += 1;
        Entry { log_id: log_id(TERM, self.index), payload: Payload::Normal(command) }
    }

    /// Appends entries to the log and commits them.
    fn take(&mut self, entries: Vec<Entry>) -> Result<(), ExitError> {
        block_on(self.log.append(entries.clone(), IOFlushed::noop())).map_err(storage_failed)?;
        for verdict in self.writer.commit(&entries)? {
            if let Verdict::Refused(refusal, tip) = verdict {
                return Err(ExitError::integrity(format!(
                    "a generated block was refused at {tip}: {refusal:?}"
                )));
            }
        }
        Ok(())
    }
}

fn storage_failed(error: io::Error) -> ExitError {
    ExitError::retry_later(format!("the store failed: {error}"))
}
