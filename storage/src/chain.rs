//! The applied chain as it is held in memory, and how it is read from the store.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use baton_messages::chain::{Block, Data};
use baton_messages::command::FIRST_COMMAND_VERSION;
use baton_messages::genesis::Genesis;
use baton_messages::types::{Hash, Height, Tip};

use crate::backend::{Backend, Direction, Family, StoreError};
use crate::follow::{self, Evidence, FollowRecord, LeftOut};
use crate::head::Head;
use crate::raft_types::StoredMembership;
use crate::records::{
    Applied, HeaderRecord, MembershipRecord, body_key, decode, key_number, meta, number_key,
};
use crate::verdict::{WINDOW, in_window};

/// Most blocks that are kept in memory for readers.
const RECENT_BLOCKS: usize = 64;
/// Most bytes of transactions in them.
const RECENT_BYTES: usize = 64 << 20;

/// The state that apply works on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chain {
    pub(crate) applied: Applied,
    pub(crate) membership: StoredMembership,
    /// Ranges of committed heights (both ends inclusive) whose bodies are not here.
    pub(crate) missing: Vec<(Height, Height)>,
    pub(crate) recent: Recent,
    /// The version of log entries in force.
    pub(crate) command_version: u8,
    /// Why an operator has stopped production.
    pub(crate) pause: Option<Arc<str>>,
    /// Where following stands; `None` where this node produces.
    pub(crate) follow: Option<FollowRecord>,
    /// Two headers for one height.
    pub(crate) evidence: Vec<Evidence>,
    /// What the proposer of the chain that is followed has left out.
    pub(crate) left_out: Option<LeftOut>,
}

/// The last blocks, shared with whoever reads them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recent {
    blocks: BTreeMap<Height, Arc<Block>>,
    bytes: usize,
}

impl Recent {
    pub(crate) fn insert(&mut self, block: Arc<Block>) {
        self.bytes += block.tx_bytes();
        if let Some(old) = self.blocks.insert(block.height(), block) {
            self.bytes -= old.tx_bytes();
        }
        while self.blocks.len() > RECENT_BLOCKS || (self.bytes > RECENT_BYTES && self.blocks.len() > 1) {
            if let Some((_, old)) = self.blocks.pop_first() {
                self.bytes -= old.tx_bytes();
            }
        }
    }

    pub(crate) fn get(&self, height: Height) -> Option<&Arc<Block>> {
        self.blocks.get(&height)
    }
}

impl Chain {
    /// The state of a chain without blocks. DA progress stands just below the first height, so
    /// that "the next" is right on chains that do not begin at one.
    pub(crate) fn empty(genesis: &Genesis) -> Applied {
        let mut applied = Applied::default();
        let before = genesis.initial_height.previous();
        applied.da.headers = before;
        applied.da.data = before;
        applied.da.included = before;
        applied
    }

    pub(crate) fn load(backend: &dyn Backend, genesis: &Genesis) -> Result<Self, StoreError> {
        let applied = match backend.get(Family::Meta, meta::APPLIED)? {
            Some(bytes) => decode("applied state", &bytes)?,
            None => Self::empty(genesis),
        };
        let membership = match backend.get(Family::Meta, meta::MEMBERSHIP)? {
            Some(bytes) => decode::<MembershipRecord>("membership", &bytes)?.try_into()?,
            None => StoredMembership::default(),
        };
        let mut missing = match backend.get(Family::Meta, meta::MISSING)? {
            Some(bytes) => decode("missing bodies", &bytes)?,
            None => vec![],
        };
        let command_version = match backend.get(Family::Meta, meta::COMMAND_VERSION)?.as_deref() {
            None => FIRST_COMMAND_VERSION,
            Some([version]) => *version,
            Some(other) => {
                let reason = format!("the version of log entries has {} bytes", other.len());
                return Err(StoreError::Corrupt(reason));
            }
        };
        let pause = match backend.get(Family::Meta, meta::PAUSE)? {
            Some(bytes) => decode::<Option<String>>("pause", &bytes)?.map(Arc::from),
            None => None,
        };
        let recent = Recent::default();
        let (follow, evidence) = (follow::load(backend)?, follow::load_evidence(backend)?);
        let left_out = follow::load_left_out(backend)?;
        if follow.as_ref().is_some_and(|follow| follow.headers_only) {
            missing = all_missing(genesis, applied.tip.height);
        }
        let chain =
            Self { applied, membership, missing, recent, command_version, pause, follow, evidence, left_out };
        chain.check(backend)?;
        Ok(chain)
    }

    /// The newest header must be the tip: both are written together.
    fn check(&self, backend: &dyn Backend) -> Result<(), StoreError> {
        let all = (Bound::Unbounded, Bound::Unbounded);
        let newest = backend.scan(Family::Headers, all, Direction::Reverse, 1)?;
        let height = match newest.first() {
            Some((key, _)) => Height(key_number("header", key)?),
            None => Height(0),
        };
        if height == self.applied.tip.height {
            Ok(())
        } else {
            let tip = self.applied.tip;
            Err(StoreError::Corrupt(format!("the newest header has height {height}, but the tip is {tip}")))
        }
    }

    /// Entries that may follow must be known.
    pub(crate) fn expect_known(&self, known: u8) -> Result<(), StoreError> {
        if self.command_version > known { Err(newer(self.command_version, known)) } else { Ok(()) }
    }

    pub(crate) fn tip(&self) -> Tip {
        self.applied.tip
    }
}

/// The chain has moved on to entries that this version of baton does not know.
pub(crate) fn newer(version: u8, known: u8) -> StoreError {
    StoreError::Newer(format!(
        "the chain uses log entries of version {version}, this version of baton knows up to {known}: \
         install the newer version on this node"
    ))
}

/// What is missing where no body is kept.
pub(crate) fn all_missing(genesis: &Genesis, tip: Height) -> Vec<(Height, Height)> {
    if tip == Height(0) { vec![] } else { vec![(genesis.initial_height, tip)] }
}

/// The committed header at a height.
pub(crate) fn header(backend: &dyn Backend, height: Height) -> Result<Option<HeaderRecord>, StoreError> {
    let found = backend.get(Family::Headers, &number_key(height.0))?;
    found.map(|bytes| decode("header", &bytes)).transpose()
}

/// The place of the committed block with this hash.
pub(crate) fn place(backend: &dyn Backend, hash: Hash) -> Result<Option<Tip>, StoreError> {
    let found = backend.get(Family::Index, &hash.0)?;
    found.map(|bytes| decode("place", &bytes)).transpose()
}

/// The body of a block, committed or not.
pub(crate) fn body(backend: &dyn Backend, height: Height, hash: Hash) -> Result<Option<Data>, StoreError> {
    let found = backend.get(Family::Bodies, &body_key(height, hash))?;
    found.map(|bytes| decode("block body", &bytes)).transpose()
}

/// The committed block at a height, from the disk.
pub(crate) fn block(backend: &dyn Backend, height: Height) -> Result<Option<Arc<Block>>, StoreError> {
    let Some(record) = header(backend, height)? else { return Ok(None) };
    let Some(data) = body(backend, height, record.hash)? else { return Ok(None) };
    let block = Block::new(record.header, data);
    if block.hash() == record.hash {
        Ok(Some(Arc::new(block)))
    } else {
        Err(StoreError::Corrupt(format!(
            "the header at {height} has hash {}, not {}",
            block.hash(),
            record.hash
        )))
    }
}

/// The hash of the block at a height whose body is missing: its own header says it, or the
/// header above.
pub(crate) fn wanted_hash(backend: &dyn Backend, height: Height) -> Result<Hash, StoreError> {
    if let Some(record) = header(backend, height)? {
        return Ok(record.hash);
    }
    let above = header(backend, height.next())?
        .ok_or_else(|| StoreError::Corrupt(format!("no header above the missing body at {height}")))?;
    let hash = <[u8; 32]>::try_from(&above.header.last_header_hash[..])
        .map_err(|_| StoreError::Corrupt(format!("the header at {} has no parent hash", height.next())))?;
    Ok(Hash(hash))
}

/// The places of the blocks in the window below the tip, ascending. Heights whose headers are
/// not here are taken from the last snapshot.
pub(crate) fn window(
    backend: &dyn Backend,
    tip: Tip,
    snapshot: Option<Head>,
) -> Result<Vec<Tip>, StoreError> {
    let known = snapshot.into_iter().flat_map(|head| head.window);
    let mut places: BTreeMap<Height, Tip> = known.map(|place| (place.height, place)).collect();
    let all = (Bound::Unbounded, Bound::Unbounded);
    let newest = usize::try_from(WINDOW).unwrap_or(usize::MAX);
    for (key, value) in backend.scan(Family::Headers, all, Direction::Reverse, newest)? {
        let height = Height(key_number("header", &key)?);
        let record: HeaderRecord = decode("header", &value)?;
        // A header that was filled in has the snapshot's place: it knows the term.
        if let Some(place) = place(backend, record.hash)? {
            places.insert(height, place);
        }
    }
    Ok(places.into_values().filter(|place| in_window(tip.height, place.height)).collect())
}
