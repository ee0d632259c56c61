//! A store with a chain and nobody else: the ground one actor among probes stands on.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use baton_actors::executor::build;
use baton_messages::chain::{Block, Signer};
use baton_messages::command::{BlockEntry, Command, ForcedPosition, HeaderSignature, Verdict};
use baton_messages::raft::Committed;
use baton_messages::types::{Grant, Height, LogIndex, Member, MemberId, StateRoot, Term, Timestamp, Tip, Tx};
use baton_storage::raft_types::{Entry, Membership, Payload, log_id};
use baton_storage::{Reader, Store, Writer};
use bytes::Bytes;

use crate::node::Machine;

/// A store whose chain grows by hand. Clones are the same.
#[derive(Clone, Debug)]
pub struct Stage {
    /// What survives.
    pub machine: Machine,
    /// The store.
    pub store: Store,
    writer: Writer,
    index: Rc<Cell<u64>>,
}

/// The grant actors on a stage work under.
pub const GRANT: Grant = Grant { term: Term(1) };

impl Stage {
    /// An empty chain on a new machine.
    #[must_use]
    pub fn new() -> Self {
        let machine = Machine::new(1);
        let store = machine.open();
        let writer = store.writer(Box::new(|_| {}));
        Self { machine, store, writer, index: Rc::default() }
    }

    /// The chain, to read.
    #[must_use]
    pub fn reader(&self) -> Reader {
        self.store.reader()
    }

    /// Who proposes and signs.
    #[must_use]
    pub fn signer(&self) -> Signer {
        self.machine.signer()
    }

    /// Applies a log entry.
    ///
    /// # Panics
    ///
    /// When the store fails.
    pub fn apply(&self, command: Command) -> Verdict {
        let index = self.index.get();
        self.index.set(index + 1);
        let entry = Entry { log_id: log_id(GRANT.term.0, index), payload: Payload::Normal(command) };
        self.writer.import(&[entry]).expect("the memory takes it")[0]
    }

    /// Makes this member the only voter.
    ///
    /// # Panics
    ///
    /// When the store fails.
    pub fn vote_alone(&self) {
        let own = MemberId::of(self.store.identity().storage);
        let members = BTreeMap::from([(own, Member::default())]);
        let membership =
            Membership::new(vec![BTreeSet::from([own])], members).expect("its voter is a member");
        let index = self.index.get();
        self.index.set(index + 1);
        let entry = Entry { log_id: log_id(GRANT.term.0, index), payload: Payload::Membership(membership) };
        self.writer.import(&[entry]).expect("the memory takes it");
    }

    /// Commits a block.
    pub fn commit(&self, block: &Arc<Block>) -> Verdict {
        let (block, forced) = (block.clone(), ForcedPosition::default());
        self.apply(Command::Block(BlockEntry { term: GRANT.term, block, tail: None, forced }))
    }

    /// Commits a block that must be accepted.
    ///
    /// # Panics
    ///
    /// When apply refuses it.
    pub fn committed(&self, block: &Arc<Block>) -> Committed {
        match self.commit(block) {
            Verdict::Committed(tip) => Committed { tip, index: LogIndex(self.index.get()) },
            verdict => panic!("{verdict} instead of committed"),
        }
    }

    /// A block on top of the tip with these transactions and the state root before it.
    ///
    /// # Panics
    ///
    /// When the store fails.
    #[must_use]
    pub fn next_block(&self, root: &StateRoot, texts: &[&str]) -> Arc<Block> {
        let reader = self.reader();
        let parent = reader.block(reader.tip().height).expect("readable");
        let txs = texts.iter().map(|text| tx(text)).collect();
        let (genesis, now) = (reader.genesis(), Timestamp(0));
        let address = self.signer().address;
        Arc::new(build::next_block(genesis, parent.as_deref(), root, &address, now, txs))
    }

    /// Commits so many blocks with one transaction each, `k<height>=v`, whose roots are `root_of`.
    pub fn grow(&self, count: u64) {
        for _ in 0..count {
            let below = self.tip().height;
            let text = format!("k{}=v", below.next());
            self.committed(&self.next_block(&root_of(below), &[&text]));
        }
    }

    /// Records a signature of a committed block.
    ///
    /// # Panics
    ///
    /// When there is no such block.
    pub fn sign(&self, height: u64) {
        let hash = self.reader().hash(Height(height)).expect("readable").expect("committed");
        let signature = Bytes::from(vec![9; 64]);
        self.apply(Command::Signature(HeaderSignature { height: Height(height), hash, signature }));
    }

    /// The tip.
    #[must_use]
    pub fn tip(&self) -> Tip {
        self.store.reader().tip()
    }
}

impl Default for Stage {
    fn default() -> Self {
        Self::new()
    }
}

/// A transaction.
#[must_use]
pub fn tx(text: &str) -> Tx {
    Tx(Bytes::copy_from_slice(text.as_bytes()))
}

/// The state root after a height, of an engine that is no more than this function.
#[must_use]
pub fn root_of(height: Height) -> StateRoot {
    StateRoot(baton_messages::types::Hash::of(&height.0.to_be_bytes()).to_bytes())
}
