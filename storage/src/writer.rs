//! The one way into the chain: `commit`, `install_head`, `backfill`.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLockWriteGuard};

use baton_messages::chain::Block;
use baton_messages::codec::encode;
use baton_messages::command::{
    BlockEntry, Command, FIRST_COMMAND_VERSION, FORCED_VERSION, HeaderSignature, Lane, Refusal, Submitted,
    Verdict,
};
use baton_messages::mutation::{Mutation, planted};
use baton_messages::types::{DaHeight, Hash, Height, LogIndex, Term, Tip};
use bytes::Bytes;
use fail::fail_point;
use openraft::EntryPayload;

use crate::backend::{Batch, Family, StoreError};
use crate::chain::{self, Chain};
use crate::follow::{self, FollowRecord};
use crate::head::{Head, HeadError};
use crate::jobs::Kind;
use crate::raft_types::{Entry, StoredMembership};
use crate::records::{
    Applied, HeaderRecord, LogIdRecord, MembershipRecord, RangeRecord, SignatureRecord, body_key, meta,
    number_key, range_key,
};
use crate::store::Inner;
use crate::verdict::{self, Decision, in_window};

/// What a batch of applied entries came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedEvent {
    /// The tip now.
    pub tip: Tip,
    /// The last applied entry.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
    /// Blocks of this batch, each with the entry that carried it.
    pub blocks: Vec<(LogIndex, Tip)>,
    /// Entries of this batch that were refused, and why.
    pub refused: Vec<(LogIndex, Refusal)>,
}

/// Called after every applied batch, on the thread that applies. It must not block and must
/// not call the writer.
pub type Notify = Box<dyn Fn(AppliedEvent) + Send + Sync>;

/// A block that was missing, and what is known about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backfill {
    /// The block.
    pub block: Arc<Block>,
    /// The signature of its header, if known.
    pub signature: Option<Bytes>,
    /// Where on DA its header and data are, if known.
    pub da: Option<(DaHeight, DaHeight)>,
}

/// Why a block was not filled in. Blocks before it in the same call were not either.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackfillError {
    /// Nothing is missing.
    #[error("no block body is missing here")]
    Complete,
    /// It is not the block that is wanted next.
    #[error("block {found} at height {height} is not the missing one: that is {wanted} at {wanted_height}")]
    NotLinked {
        /// The height of the offered block.
        height: Height,
        /// Its hash.
        found: Hash,
        /// The height that is wanted.
        wanted_height: Height,
        /// The hash that is wanted.
        wanted: Hash,
    },
    /// Its data are not what its header says, or the block above.
    #[error("block {0} has other data than its header or the block above says")]
    Contradiction(Height),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Writes the chain. There is one for a store at a time: on a cluster member the Raft state
/// machine holds it, on a full node the syncer.
#[derive(Clone)]
pub struct Writer {
    pub(crate) inner: Arc<Inner>,
    pub(crate) notify: Arc<Notify>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

/// What a batch of entries changes, before anything is written.
struct Draft<'a> {
    inner: &'a Inner,
    applied: Applied,
    membership: Option<StoredMembership>,
    batch: Batch,
    blocks: Vec<Arc<Block>>,
    places: BTreeMap<Hash, Tip>,
    headers: BTreeMap<Height, Hash>,
    with_bodies: bool,
    command_version: u8,
    /// What became of an operator's pause, when entries of the batch changed it.
    pause: Option<Option<Arc<str>>>,
    /// The last block's time is late enough for the next one.
    equal_times: bool,
}

impl Writer {
    pub(crate) fn new(inner: Arc<Inner>, notify: Notify) -> Self {
        Self { inner, notify: Arc::new(notify) }
    }

    /// Applies committed entries: a compare-and-set on the tip for each. Returns their verdicts.
    ///
    /// Headers, index, signatures, positions and the applied log id are one batch, visible when
    /// this returns and not synced: the entries must be in the write-ahead log already, so what
    /// survives a crash of an apply implies its entries, and what does not is applied again (P4).
    ///
    /// # Errors
    ///
    /// `StoreError` when the device failed; then nothing of the batch is applied.
    pub fn commit(&self, entries: &[Entry]) -> Result<Vec<Verdict>, StoreError> {
        self.apply(entries, false)
    }

    /// As `commit`, for a store without a log of its own: the bodies are written too.
    ///
    /// # Errors
    ///
    /// As `commit`.
    pub fn import(&self, entries: &[Entry]) -> Result<Vec<Verdict>, StoreError> {
        self.apply(entries, true)
    }

    fn apply(&self, entries: &[Entry], with_bodies: bool) -> Result<Vec<Verdict>, StoreError> {
        let Some(last) = entries.last() else { return Ok(vec![]) };
        let inner = &*self.inner;
        let turn = inner.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome =
            self.draft_and_write(entries, with_bodies).inspect_err(|error| inner.jobs.report(error))?;
        drop(turn);
        let (verdicts, tip) = outcome;
        let refused = entries.iter().zip(&verdicts).filter_map(|(entry, verdict)| match verdict {
            Verdict::Refused(refusal, _) => Some((LogIndex(entry.log_id.index), *refusal)),
            Verdict::Committed(_) | Verdict::Recorded | Verdict::Internal => None,
        });
        let blocks = entries.iter().zip(&verdicts).filter_map(|(entry, verdict)| match verdict {
            Verdict::Committed(tip) => Some((LogIndex(entry.log_id.index), *tip)),
            Verdict::Refused(..) | Verdict::Recorded | Verdict::Internal => None,
        });
        (self.notify)(AppliedEvent {
            tip,
            index: LogIndex(last.log_id.index),
            term: Term(last.log_id.leader_id.term),
            blocks: blocks.collect(),
            refused: refused.collect(),
        });
        Ok(verdicts)
    }

    fn draft_and_write(
        &self,
        entries: &[Entry],
        with_bodies: bool,
    ) -> Result<(Vec<Verdict>, Tip), StoreError> {
        let inner = &*self.inner;
        if let Some(trouble) = inner.jobs.trouble() {
            return Err(trouble);
        }
        let (applied, command_version) = {
            let chain = inner.chain.read().unwrap_or_else(PoisonError::into_inner);
            (chain.applied, chain.command_version)
        };
        // A member's entries come from its log; openraft's own suite applies some of no log.
        if inner.cluster.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            follows(applied.log, entries)?;
        }
        let mut draft = Draft {
            inner,
            applied,
            membership: None,
            batch: Batch::default(),
            blocks: vec![],
            places: BTreeMap::new(),
            headers: BTreeMap::new(),
            with_bodies,
            command_version,
            pause: None,
            equal_times: false,
        };
        let verdicts = entries.iter().map(|entry| draft.entry(entry)).collect::<Result<Vec<_>, _>>()?;
        let Draft { applied, membership, mut batch, blocks, command_version, pause, .. } = draft;
        batch.put(Family::Meta, meta::APPLIED, encode(&applied));
        if let Some(membership) = &membership {
            batch.put(Family::Meta, meta::MEMBERSHIP, encode(&MembershipRecord::from(membership)));
        }
        if let Some(pause) = &pause {
            put_pause(&mut batch, pause.as_deref());
        }
        fail_point!("storage.before_apply");
        inner.backend.write(batch)?;
        fail_point!("storage.after_apply");
        let mut chain = self.chain();
        chain.applied = applied;
        chain.command_version = command_version;
        if let Some(membership) = membership {
            chain.membership = membership;
        }
        if let Some(pause) = pause {
            chain.pause = pause;
        }
        for block in blocks {
            chain.recent.insert(block);
        }
        Ok((verdicts, applied.tip))
    }

    pub(crate) fn apply_followed(
        &self,
        commands: &[Command],
        record: &FollowRecord,
    ) -> Result<Vec<Verdict>, StoreError> {
        let inner = &*self.inner;
        let turn = inner.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = self.draft_followed(commands, record).inspect_err(|error| inner.jobs.report(error))?;
        drop(turn);
        let (verdicts, tip) = outcome;
        let blocks = verdicts.iter().filter_map(|verdict| match verdict {
            Verdict::Committed(tip) => Some((LogIndex(0), *tip)),
            Verdict::Refused(..) | Verdict::Recorded | Verdict::Internal => None,
        });
        let refused = verdicts.iter().filter_map(|verdict| match verdict {
            Verdict::Refused(refusal, _) => Some((LogIndex(0), *refusal)),
            Verdict::Committed(_) | Verdict::Recorded | Verdict::Internal => None,
        });
        let (blocks, refused) = (blocks.collect(), refused.collect());
        (self.notify)(AppliedEvent { tip, index: LogIndex(0), term: Term(0), blocks, refused });
        Ok(verdicts)
    }

    fn draft_followed(
        &self,
        commands: &[Command],
        record: &FollowRecord,
    ) -> Result<(Vec<Verdict>, Tip), StoreError> {
        let inner = &*self.inner;
        if let Some(trouble) = inner.jobs.trouble() {
            return Err(trouble);
        }
        let (applied, command_version) = {
            let chain = inner.chain.read().unwrap_or_else(PoisonError::into_inner);
            (chain.applied, chain.command_version)
        };
        let mut draft = Draft {
            inner,
            applied,
            membership: None,
            batch: Batch::default(),
            blocks: vec![],
            places: BTreeMap::new(),
            headers: BTreeMap::new(),
            with_bodies: true,
            command_version,
            // A node that follows makes no blocks.
            pause: None,
            equal_times: true,
        };
        let apply = |command: &Command| draft.command(Term(0), command);
        let verdicts = commands.iter().map(apply).collect::<Result<Vec<_>, _>>()?;
        let Draft { applied, mut batch, blocks, .. } = draft;
        batch.put(Family::Meta, meta::APPLIED, encode(&applied));
        follow::put(&mut batch, record);
        fail_point!("storage.before_follow");
        inner.backend.write(batch)?;
        fail_point!("storage.after_follow");
        let mut chain = self.chain();
        chain.applied = applied;
        chain.follow = Some(record.clone());
        for block in blocks {
            chain.recent.insert(block);
        }
        Ok((verdicts, applied.tip))
    }

    pub(crate) fn chain(&self) -> RwLockWriteGuard<'_, Chain> {
        self.inner.chain.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a snapshot of what is applied, and keeps it as the current one.
    ///
    /// Not durable when it returns, but ahead in the write-ahead log of any later purge.
    ///
    /// # Errors
    ///
    /// `StoreError` when the device fails or the data is damaged.
    pub fn build_head(&self) -> Result<Head, StoreError> {
        // What is found damaged here nobody else may look at: it must not be tried for ever.
        self.make_head().inspect_err(|error| self.inner.jobs.report(error))
    }

    fn make_head(&self) -> Result<Head, StoreError> {
        let inner = &*self.inner;
        let _turn = inner.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let (applied, membership, horizon, command_version, pause) = {
            let chain = inner.chain.read().unwrap_or_else(PoisonError::into_inner);
            let horizon = chain.missing.last().map_or(inner.genesis.initial_height, |(_, last)| last.next());
            let pause = chain.pause.as_deref().map(str::to_owned);
            (chain.applied, MembershipRecord::from(&chain.membership), horizon, chain.command_version, pause)
        };
        let head = Head {
            genesis_hash: inner.identity.genesis_hash,
            log: applied.log,
            membership,
            header: chain::header(&*inner.backend, applied.tip.height)?.map(|record| record.header),
            tip: applied.tip,
            window: chain::window(&*inner.backend, applied.tip, self.current_head()?)?,
            da: applied.da,
            forced: applied.forced,
            replay_horizon: horizon,
            command_version,
            pause,
        };
        let mut batch = Batch::default();
        batch.put(Family::Meta, meta::SNAPSHOT, head.encode());
        fail_point!("storage.before_snapshot");
        inner.backend.write(batch)?;
        Ok(head)
    }

    /// The current snapshot: the last one that was built or installed.
    ///
    /// # Errors
    ///
    /// `StoreError` when the device fails or the data is damaged.
    pub fn current_head(&self) -> Result<Option<Head>, StoreError> {
        let read = |bytes: Bytes| {
            Head::decode(&bytes).map_err(|error| StoreError::Corrupt(format!("snapshot: {error}")))
        };
        let found = self.inner.backend.get(Family::Meta, meta::SNAPSHOT);
        let found = found.and_then(|found| found.map(read).transpose());
        found.inspect_err(|error| self.inner.jobs.report(error))
    }

    /// Continues from a snapshot instead of the log before it. Durable when it returns.
    ///
    /// The bodies between the old tip and the new one are missing then; `backfill` takes them.
    ///
    /// # Errors
    ///
    /// `HeadError` when the snapshot is not acceptable or the store fails.
    pub async fn install_head(&self, head: Head) -> Result<(), HeadError> {
        let inner = &*self.inner;
        let _repair = inner.repair.lock().await;
        // What was queued before, such as a truncation, must come before in the log too.
        inner.jobs.run(Kind::Other, Batch::default(), false).await?;
        self.write_head(&head)?;
        Ok(inner.make_head_durable().await?)
    }

    fn write_head(&self, head: &Head) -> Result<(), HeadError> {
        let inner = &*self.inner;
        let _turn = inner.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let (tip, mut missing) = {
            let chain = inner.chain.read().unwrap_or_else(PoisonError::into_inner);
            (chain.tip(), chain.missing.clone())
        };
        head.check(&inner.genesis, &tip)?;
        let known = inner.known.load(Ordering::Relaxed);
        if head.command_version > known {
            let newer = chain::newer(head.command_version, known);
            inner.jobs.report(&newer);
            return Err(HeadError::Store(newer));
        }
        let membership = StoredMembership::try_from(head.membership.clone())?;
        let mut batch = Batch::default();
        if let Some(header) = &head.header {
            let record = HeaderRecord { hash: head.tip.hash, header: header.clone() };
            batch.put(Family::Headers, number_key(head.tip.height.0), encode(&record));
        }
        for place in head.window.iter().filter(|place| in_window(head.tip.height, place.height)) {
            batch.put(Family::Index, place.hash.to_bytes(), encode(place));
        }
        if head.tip.height > tip.height {
            let from = if tip.height == Height(0) { inner.genesis.initial_height } else { tip.height.next() };
            missing.push((from, head.tip.height));
        }
        let applied = head.applied();
        batch.put(Family::Meta, meta::MISSING, encode(&missing));
        batch.put(Family::Meta, meta::APPLIED, encode(&applied));
        batch.put(Family::Meta, meta::MEMBERSHIP, encode(&head.membership));
        inner.note_belonging(&membership, &mut batch);
        batch.put(Family::Meta, meta::SNAPSHOT, head.encode());
        if head.command_version != FIRST_COMMAND_VERSION {
            put_command_version(&mut batch, head.command_version);
        }
        let paused_before = self.inner.chain.read().unwrap_or_else(PoisonError::into_inner).pause.is_some();
        if head.pause.is_some() || paused_before {
            put_pause(&mut batch, head.pause.as_deref());
        }
        inner.backend.write(batch).inspect_err(|error| inner.jobs.report(error))?;
        let mut chain = self.chain();
        chain.applied = applied;
        chain.membership = membership;
        chain.missing = missing;
        chain.command_version = head.command_version;
        chain.pause = head.pause.as_deref().map(Arc::from);
        Ok(())
    }

    /// Fills in missing bodies, downwards from the head: each block's hash must be the parent
    /// hash of the one above. All of them or none; durable when it returns. Returns what is
    /// wanted next.
    ///
    /// # Errors
    ///
    /// `BackfillError` when a block is not the wanted one or the store fails.
    pub async fn backfill(&self, blocks: &[Backfill]) -> Result<Option<(Height, Hash)>, BackfillError> {
        let inner = &*self.inner;
        let _repair = inner.repair.lock().await;
        let mut missing = inner.chain.read().unwrap_or_else(PoisonError::into_inner).missing.clone();
        let mut batch = Batch::default();
        let mut above: Option<Arc<Block>> = None;
        for backfill in blocks {
            self.backfill_one(backfill, above.as_deref(), &mut missing, &mut batch)?;
            above = Some(backfill.block.clone());
        }
        batch.put(Family::Meta, meta::MISSING, encode(&missing));
        inner.jobs.run(Kind::Other, batch, true).await?;
        self.chain().missing.clone_from(&missing);
        let Some((_, height)) = missing.last().copied() else { return Ok(None) };
        Ok(Some((height, chain::wanted_hash(&*inner.backend, height)?)))
    }

    /// Notes the signature of a committed header that did not come in the log; it must have been
    /// verified. Durable when it returns.
    ///
    /// # Errors
    ///
    /// `BackfillError` when it is for another header or the store fails.
    pub async fn note_signature(&self, signature: &HeaderSignature) -> Result<(), BackfillError> {
        let inner = &*self.inner;
        let _repair = inner.repair.lock().await;
        let HeaderSignature { height, hash, .. } = *signature;
        let record = chain::header(&*inner.backend, height)?;
        let wanted = record.map_or_else(Hash::default, |record| record.hash);
        if wanted != hash {
            return Err(BackfillError::NotLinked { height, found: hash, wanted_height: height, wanted });
        }
        let mut batch = Batch::default();
        put_signature(&mut batch, height, hash, signature.signature.clone());
        Ok(inner.jobs.run(Kind::Other, batch, true).await?)
    }

    fn backfill_one(
        &self,
        backfill: &Backfill,
        above: Option<&Block>,
        missing: &mut Vec<(Height, Height)>,
        batch: &mut Batch,
    ) -> Result<(), BackfillError> {
        let backend = &*self.inner.backend;
        let Some((from, wanted_height)) = missing.pop() else { return Err(BackfillError::Complete) };
        let block = &backfill.block;
        let (height, found) = (block.height(), block.hash());
        let wanted = match above {
            Some(above) if above.height() == wanted_height.next() => parent_of(above)?,
            Some(_) | None => chain::wanted_hash(backend, wanted_height)?,
        };
        if height != wanted_height || found != wanted {
            return Err(BackfillError::NotLinked { height, found, wanted_height, wanted });
        }
        let stored = match above {
            Some(_) => None,
            None => chain::block(backend, height.next())?,
        };
        let above = above.or(stored.as_deref());
        let agrees = above.is_none_or(|above| verdict::agrees_with_above(block, above));
        if !agrees || !verdict::agrees_with_itself(block) {
            return Err(BackfillError::Contradiction(height));
        }
        if height == from {
            self.check_joint(block)?;
        } else {
            missing.push((from, height.previous()));
        }
        let record = HeaderRecord { hash: found, header: block.header().clone() };
        batch.put(Family::Headers, number_key(height.0), encode(&record));
        batch.put(Family::Bodies, body_key(height, found), encode(block.data()));
        if chain::place(backend, found)?.is_none() {
            // Below the window nobody asks for the term.
            let place = Tip { height, hash: found, time: block.header().time, term: Term(0) };
            batch.put(Family::Index, found.to_bytes(), encode(&place));
        }
        if let Some(signature) = &backfill.signature {
            put_signature(batch, height, found, signature.clone());
        }
        if let Some((header, data)) = backfill.da {
            for (lane, da_height) in [(Lane::Header, header), (Lane::Data, data)] {
                put_range(batch, &Submitted { lane, from: height, to: height, da_height });
            }
        }
        Ok(())
    }

    /// The lowest block of a gap must stand on what was here before the gap.
    fn check_joint(&self, block: &Block) -> Result<(), BackfillError> {
        if block.height() == self.inner.genesis.initial_height {
            return Ok(());
        }
        let below = chain::header(&*self.inner.backend, block.height().previous())?;
        let parent = parent_of(block)?;
        if below.as_ref().is_some_and(|record| record.hash == parent) {
            return Ok(());
        }
        let found = below.map_or_else(|| "nothing".to_owned(), |record| record.hash.to_string());
        let reason = format!("block {} stands on {parent}, but {found} is below it here", block.height());
        Err(BackfillError::Store(StoreError::Corrupt(reason)))
    }
}

/// Each entry of a log is applied once and none is left out: verdicts that agree depend on it.
fn follows(applied: Option<LogIdRecord>, entries: &[Entry]) -> Result<(), StoreError> {
    let mut wanted = applied.map(|applied| applied.index + 1);
    for entry in entries {
        let found = entry.log_id.index;
        if let Some(wanted) = wanted.filter(|wanted| *wanted != found) {
            let reason = format!("log entry {found} was to be applied where {wanted} follows");
            return Err(StoreError::Corrupt(reason));
        }
        wanted = Some(found + 1);
    }
    Ok(())
}

fn parent_of(block: &Block) -> Result<Hash, StoreError> {
    <[u8; 32]>::try_from(&block.header().last_header_hash[..])
        .map(Hash)
        .map_err(|_| StoreError::Corrupt(format!("the header at {} has no parent hash", block.height())))
}

pub(crate) fn put_signature(batch: &mut Batch, height: Height, hash: Hash, signature: Bytes) {
    batch.put(Family::Signatures, number_key(height.0), encode(&SignatureRecord { hash, signature }));
}

fn put_command_version(batch: &mut Batch, version: u8) {
    batch.put(Family::Meta, meta::COMMAND_VERSION, Bytes::copy_from_slice(&[version]));
}

fn put_pause(batch: &mut Batch, pause: Option<&str>) {
    batch.put(Family::Meta, meta::PAUSE, encode(&pause));
}

fn put_range(batch: &mut Batch, range: &Submitted) {
    let record = RangeRecord { from: range.from, da_height: range.da_height };
    batch.put(Family::DaHeights, range_key(range.lane, range.to), encode(&record));
}

impl Draft<'_> {
    fn entry(&mut self, entry: &Entry) -> Result<Verdict, StoreError> {
        let term = Term(entry.log_id.leader_id.term);
        self.applied.log = Some(LogIdRecord::from(entry.log_id));
        match &entry.payload {
            EntryPayload::Blank => Ok(Verdict::Internal),
            EntryPayload::Membership(membership) => {
                let membership = StoredMembership::new(Some(entry.log_id), membership.clone());
                self.inner.note_belonging(&membership, &mut self.batch);
                self.membership = Some(membership);
                Ok(Verdict::Internal)
            }
            EntryPayload::Normal(command) => self.command(term, command),
        }
    }

    fn command(&mut self, term: Term, command: &Command) -> Result<Verdict, StoreError> {
        match command {
            Command::Block(entry) => self.block(term, entry),
            Command::Signature(signature) => self.signature(signature),
            Command::Submitted(range) => {
                let first = self.inner.genesis.initial_height;
                let (verdict, progress) =
                    verdict::submitted(&self.applied.tip, &self.applied.da, first, range);
                if let Some(progress) = progress {
                    self.applied.da = progress;
                    put_range(&mut self.batch, range);
                }
                Ok(verdict)
            }
            Command::Included(height) => {
                let (verdict, progress) = verdict::included(&self.applied.tip, &self.applied.da, *height);
                self.applied.da = progress.unwrap_or(self.applied.da);
                Ok(verdict)
            }
            Command::Activate(version) => self.activate(*version),
            Command::Pause(reason) => {
                self.pause = Some(reason.as_deref().map(Arc::from));
                Ok(Verdict::Recorded)
            }
        }
    }

    /// The only entry that can stop a member: going on would give other verdicts than the others
    /// give (hazard A25).
    fn activate(&mut self, version: u8) -> Result<Verdict, StoreError> {
        let known = self.inner.known.load(Ordering::Relaxed);
        if version > known {
            return Err(chain::newer(version, known));
        }
        if version > self.command_version {
            self.command_version = version;
            put_command_version(&mut self.batch, version);
        }
        Ok(Verdict::Recorded)
    }

    fn block(&mut self, term: Term, entry: &BlockEntry) -> Result<Verdict, StoreError> {
        let standing = self.standing(entry.block.hash())?;
        let decide = if self.equal_times { verdict::followed } else { verdict::block };
        let decision = decide(&self.inner.genesis, &self.applied.tip, standing, term, entry);
        let decision = if self.command_version >= FORCED_VERSION {
            verdict::forced(decision, self.applied.forced, entry.forced)
        } else {
            decision
        };
        if let Decision::Commit(tip) = decision {
            let header = HeaderRecord { hash: tip.hash, header: entry.block.header().clone() };
            self.batch.put(Family::Headers, number_key(tip.height.0), encode(&header));
            self.batch.put(Family::Index, tip.hash.to_bytes(), encode(&tip));
            if planted(Mutation::Register) {
                let before = self.applied.tip;
                self.batch.delete(Family::Bodies, body_key(before.height, before.hash));
            }
            if self.with_bodies {
                self.batch.put(Family::Bodies, body_key(tip.height, tip.hash), encode(entry.block.data()));
            }
            self.applied.tip = tip;
            self.applied.forced = entry.forced;
            self.places.insert(tip.hash, tip);
            self.headers.insert(tip.height, tip.hash);
            self.blocks.push(entry.block.clone());
        }
        if let Some(tail) = &entry.tail {
            self.signature(tail)?;
        }
        Ok(match decision {
            Decision::Commit(tip) | Decision::Standing(tip) => Verdict::Committed(tip),
            Decision::Refuse(refusal) => Verdict::Refused(refusal, self.applied.tip),
        })
    }

    fn signature(&mut self, signature: &HeaderSignature) -> Result<Verdict, StoreError> {
        let standing = self.standing(signature.hash)?;
        let verdict = verdict::signature(&self.applied.tip, standing, signature);
        let height = signature.height;
        if verdict == Verdict::Recorded && (standing.is_some() || self.may_fit(height, signature.hash)?) {
            put_signature(&mut self.batch, height, signature.hash, signature.signature.clone());
        }
        Ok(verdict)
    }

    /// Whether the header at a height below the window has this hash, as far as is known here.
    fn may_fit(&self, height: Height, hash: Hash) -> Result<bool, StoreError> {
        if let Some(found) = self.headers.get(&height) {
            return Ok(*found == hash);
        }
        let record = chain::header(&*self.inner.backend, height)?;
        Ok(record.is_none_or(|record| record.hash == hash))
    }

    /// The place of the block with a hash, when it is in the window below the tip.
    fn standing(&self, hash: Hash) -> Result<Option<Tip>, StoreError> {
        let place = match self.places.get(&hash) {
            Some(place) => Some(*place),
            None => chain::place(&*self.inner.backend, hash)?,
        };
        Ok(place.filter(|place| in_window(self.applied.tip.height, place.height)))
    }
}
