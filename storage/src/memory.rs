//! The in-memory twin: a disk that survives crashes and loses what was not synced.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use baton_messages::genesis::Genesis;
use baton_messages::types::{DaHeight, Hash, Height, Timestamp};
use bytes::Bytes;

use crate::backend::{Backend, Batch, Direction, Family, Go, Operation, StoreError};
use crate::jobs::Completion;
use crate::records::{Applied, LogRecord, decode, meta, number_key};
use crate::store::OpenOptions;

/// How much of the unsynced write-ahead log a crash leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Everything: the process died, the machine did not.
    All,
    /// Nothing: only what was synced.
    None,
    /// The first so many unsynced batches.
    Prefix(usize),
    /// The first so many, and a part of the next: its checksum does not fit, so recovery leaves
    /// it out and ends there.
    Torn(usize),
}

/// The moments at which a simulation may interfere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// A batch is about to be written.
    BeforeWrite,
    /// A batch is visible, not durable.
    AfterWrite,
    /// Everything written is about to become durable.
    BeforeSync,
    /// Everything written is durable; the caller does not know it yet.
    AfterSync,
}

/// What a simulation decides at such a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EffectOutcome {
    /// Go on.
    Continue,
    /// The power is gone: nothing more happens until `Disk::crash`.
    PowerOff,
    /// The device fails in this way. Nothing happened.
    Fail(StoreError),
}

/// Lets a sync wait: takes the way on and uses it later, or gives it back.
pub type SyncWait = Arc<dyn Fn(Go) -> Option<Go> + Send + Sync>;

/// Decides at every effect.
pub type Hook = Arc<dyn Fn(Effect) -> EffectOutcome + Send + Sync>;

type Table = BTreeMap<Bytes, Bytes>;
type Tables = BTreeMap<Family, Table>;

#[derive(Default)]
struct Platter {
    durable: Tables,
    visible: Tables,
    unsynced: Vec<Batch>,
    powered_off: bool,
    epoch: u64,
    generation: u64,
    kept_at_reopen: Option<Keep>,
    writes: u64,
    syncs: u64,
    hook: Option<Hook>,
    sync_wait: Option<SyncWait>,
    /// Records whose checksum does not fit what lies there.
    damaged: BTreeSet<(Family, Bytes)>,
    /// How often a damaged record was read.
    damage_seen: u64,
    torn: u64,
    lost: u64,
}

impl Platter {
    /// What was not synced is lost but for `keep`; the rest is durable.
    fn lose(&mut self, keep: Keep) {
        let all = self.unsynced.len();
        let kept = match keep {
            Keep::All => all,
            Keep::None => 0,
            Keep::Prefix(count) | Keep::Torn(count) => count.min(all),
        };
        self.torn += u64::from(matches!(keep, Keep::Torn(_)) && kept < all);
        self.lost += (all - kept) as u64;
        let survivors: Vec<Batch> = self.unsynced.drain(..).take(kept).collect();
        for batch in survivors {
            apply(&mut self.durable, batch);
        }
        self.visible = self.durable.clone();
    }
}

/// What a store in memory is opened with where it matters little which chain it is of: one that begins
/// with height one, and DA height one.
#[must_use]
pub fn options(chain_id: &str) -> OpenOptions {
    let genesis = Genesis {
        chain_id: chain_id.to_owned(),
        start_time: Timestamp(1),
        initial_height: Height(1),
        proposer_address: Bytes::new(),
        da_start_height: DaHeight(1),
        da_epoch_forced_inclusion: 1,
    };
    OpenOptions {
        path: "memory".into(),
        chain_id: chain_id.to_owned(),
        genesis,
        completion: Completion::Inline,
    }
}

/// The platter. Clones are the same platter; it outlives the process that uses it.
#[derive(Clone, Default)]
pub struct Disk {
    platter: Arc<Mutex<Platter>>,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let platter = self.lock();
        f.debug_struct("Disk")
            .field("writes", &platter.writes)
            .field("syncs", &platter.syncs)
            .field("unsynced", &platter.unsynced.len())
            .finish_non_exhaustive()
    }
}

impl Disk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Platter> {
        // A panic in a hook leaves the platter as it was: every change happens after its hook.
        self.platter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends every process that uses this disk and loses what was not synced but for `keep`.
    ///
    /// The power is on again afterwards; backends attached before stay dead.
    pub fn crash(&self, keep: Keep) {
        let mut platter = self.lock();
        platter.lose(keep);
        platter.powered_off = false;
        platter.epoch += 1;
    }

    /// Calls this at every effect from now on; `None` stops it.
    pub fn set_hook(&self, hook: Option<Hook>) {
        self.lock().hook = hook;
    }

    /// Says what is left of unsynced writes when a process opens the disk again in place: after
    /// a failed sync nobody knows. Everything, if not said.
    pub fn keep_at_reopen(&self, keep: Keep) {
        self.lock().kept_at_reopen = Some(keep);
    }

    /// Lets syncs wait as this says, where store jobs run inline; `None` stops it.
    pub fn set_sync_wait(&self, wait: Option<SyncWait>) {
        self.lock().sync_wait = wait;
    }

    /// Damages one durable record, chosen by a number: its checksum does not fit any more, and
    /// whoever reads it is told so. Says which; `None` when there is nothing.
    pub fn damage(&self, pick: u64) -> Option<(Family, Bytes)> {
        let mut platter = self.lock();
        let count: usize = platter.durable.values().map(BTreeMap::len).sum();
        let at = usize::try_from(pick % (count.max(1) as u64)).unwrap_or_default();
        let mut all =
            platter.durable.iter().flat_map(|(family, table)| table.keys().map(|key| (*family, key)));
        let found = all.nth(at).map(|(family, key)| (family, key.clone()))?;
        platter.damaged.insert(found.clone());
        Some(found)
    }

    /// Damages this record: see `damage`.
    pub fn damage_record(&self, family: Family, key: impl Into<Bytes>) {
        self.lock().damaged.insert((family, key.into()));
    }

    /// How often a damaged record was read, and its reader told.
    #[must_use]
    pub fn damage_seen(&self) -> u64 {
        self.lock().damage_seen
    }

    /// How many crashes tore a write in two, and how many writes were lost in all.
    #[must_use]
    pub fn losses(&self) -> (u64, u64) {
        let platter = self.lock();
        (platter.torn, platter.lost)
    }

    /// Another disk with what is durable on this one now: a copy made while it runs.
    #[must_use]
    pub fn copy(&self) -> Self {
        let platter = self.lock();
        let (durable, damaged) = (platter.durable.clone(), platter.damaged.clone());
        let copy = Platter { visible: durable.clone(), durable, damaged, ..Platter::default() };
        Self { platter: Arc::new(Mutex::new(copy)) }
    }

    /// The term of a log entry and a digest of its record, as it is visible or as it is durable;
    /// `None` when the disk does not hold it. For comparing the logs of members.
    #[must_use]
    pub fn entry(&self, index: u64, durable: bool) -> Option<(u64, Hash)> {
        let bytes = {
            let platter = self.lock();
            let tables = if durable { &platter.durable } else { &platter.visible };
            tables.get(&Family::Log)?.get(&number_key(index)[..])?.clone()
        };
        let record: LogRecord = decode("log entry", &bytes).ok()?;
        Some((record.term, Hash::of(&bytes)))
    }

    /// Whether anything is durable on it.
    #[must_use]
    pub fn holds_anything(&self) -> bool {
        self.lock().durable.values().any(|table| !table.is_empty())
    }

    /// Whether a log entry, or a state that came after it, is durable here.
    #[must_use]
    pub fn holds(&self, index: u64, entry: (u64, Hash)) -> bool {
        if let Some(found) = self.entry(index, true) {
            return found == entry;
        }
        let applied = {
            let platter = self.lock();
            let bytes =
                platter.durable.get(&Family::Meta).and_then(|table| table.get(meta::APPLIED).cloned());
            bytes.and_then(|bytes| decode::<Applied>("applied state", &bytes).ok())
        };
        applied.and_then(|applied| applied.log).is_some_and(|log| log.index >= index)
    }

    /// The index of the last entry that what is durable has applied; zero before any.
    #[must_use]
    pub fn durably_applied(&self) -> u64 {
        let platter = self.lock();
        let applied = platter.durable.get(&Family::Meta).and_then(|meta| meta.get(meta::APPLIED).cloned());
        let applied = applied.and_then(|bytes| decode::<Applied>("applied state", &bytes).ok());
        applied.and_then(|applied| applied.log).map_or(0, |log| log.index)
    }

    /// How often it was opened again in place.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.lock().generation
    }

    /// How many batches were written since the disk was made.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.lock().writes
    }

    /// How many syncs succeeded since the disk was made.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// How many batches a crash could lose now.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        self.lock().unsynced.len()
    }

    /// Whether a hook took the power away and no crash has been declared since.
    #[must_use]
    pub fn powered_off(&self) -> bool {
        self.lock().powered_off
    }

    /// Attaches a process to the disk.
    #[must_use]
    pub fn attach(&self) -> Memory {
        let epoch = self.lock().epoch;
        Memory { disk: self.clone(), epoch, closed: Mutex::new(false) }
    }

    fn ask(&self, effect: Effect) -> Result<(), StoreError> {
        // Outside the lock: a hook may look at the disk.
        let hook = self.lock().hook.clone();
        match hook.map_or(EffectOutcome::Continue, |hook| hook(effect)) {
            EffectOutcome::Continue => Ok(()),
            EffectOutcome::Fail(error) => Err(error),
            EffectOutcome::PowerOff => {
                self.lock().powered_off = true;
                Err(power_off())
            }
        }
    }
}

impl Platter {
    /// A record that was written again has a checksum that fits.
    fn mend(&mut self, batch: &Batch) {
        if self.damaged.is_empty() {
            return;
        }
        for operation in &batch.operations {
            match operation {
                Operation::Put(family, key, _) | Operation::Delete(family, key) => {
                    self.damaged.remove(&(*family, key.clone()));
                }
                Operation::DeleteRange(family, from, to) => {
                    self.damaged.retain(|(other, key)| other != family || key < from || key >= to);
                }
            }
        }
    }

    fn whole(&mut self, family: Family, key: &[u8]) -> Result<(), StoreError> {
        if self.damaged.is_empty() || !self.damaged.iter().any(|(other, at)| *other == family && at == key) {
            return Ok(());
        }
        self.damage_seen += 1;
        Err(StoreError::Corrupt(format!("a checksum in {} does not fit", family.name())))
    }
}

fn power_off() -> StoreError {
    StoreError::Io("power off".into())
}

fn apply(tables: &mut Tables, batch: Batch) {
    for operation in batch.operations {
        match operation {
            Operation::Put(family, key, value) => {
                tables.entry(family).or_default().insert(key, value);
            }
            Operation::Delete(family, key) => {
                tables.entry(family).or_default().remove(&key);
            }
            Operation::DeleteRange(family, from, to) => {
                tables.entry(family).or_default().retain(|key, _| *key < from || *key >= to);
            }
        }
    }
}

/// A process' view of a `Disk`.
#[derive(Debug)]
pub struct Memory {
    disk: Disk,
    epoch: u64,
    closed: Mutex<bool>,
}

impl Memory {
    fn live(&self) -> Result<MutexGuard<'_, Platter>, StoreError> {
        if *self.closed.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(StoreError::Io("the store is closed".into()));
        }
        let platter = self.disk.lock();
        if platter.powered_off || platter.epoch != self.epoch {
            return Err(power_off());
        }
        Ok(platter)
    }
}

impl Backend for Memory {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let mut platter = self.live()?;
        platter.whole(family, key)?;
        Ok(platter.visible.get(&family).and_then(|table| table.get(key)).cloned())
    }

    fn scan(
        &self,
        family: Family,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let mut platter = self.live()?;
        let Some(table) = platter.visible.get(&family) else { return Ok(vec![]) };
        if is_empty(&range) {
            return Ok(vec![]);
        }
        let pair = |(key, value): (&Bytes, &Bytes)| (key.clone(), value.clone());
        let found = table.range::<[u8], _>(range);
        let found: Vec<(Bytes, Bytes)> = match direction {
            Direction::Forward => found.take(limit).map(pair).collect(),
            Direction::Reverse => found.rev().take(limit).map(pair).collect(),
        };
        for (key, _) in &found {
            platter.whole(family, key)?;
        }
        Ok(found)
    }

    fn write(&self, batch: Batch) -> Result<(), StoreError> {
        drop(self.live()?);
        self.disk.ask(Effect::BeforeWrite)?;
        {
            let mut platter = self.live()?;
            if batch.only_in.is_some_and(|generation| generation != platter.generation) {
                return Err(StoreError::reopened());
            }
            platter.writes += 1;
            platter.mend(&batch);
            apply(&mut platter.visible, batch.clone());
            platter.unsynced.push(batch);
        }
        self.disk.ask(Effect::AfterWrite)
    }

    fn sync(&self) -> Result<(), StoreError> {
        drop(self.live()?);
        self.disk.ask(Effect::BeforeSync)?;
        {
            let mut platter = self.live()?;
            platter.syncs += 1;
            let batches = std::mem::take(&mut platter.unsynced);
            for batch in batches {
                apply(&mut platter.durable, batch);
            }
        }
        self.disk.ask(Effect::AfterSync)
    }

    fn wait_to_sync(&self, go: Go) -> Option<Go> {
        // Outside the lock: the way on leads back here.
        let wait = self.disk.lock().sync_wait.clone();
        match wait {
            Some(wait) => wait(go),
            None => Some(go),
        }
    }

    /// A device that does not take writes cannot be opened again either.
    fn reopen(&self) -> Result<(), StoreError> {
        drop(self.live()?);
        self.disk.ask(Effect::BeforeWrite)?;
        self.disk.ask(Effect::BeforeSync)?;
        let mut platter = self.live()?;
        let keep = platter.kept_at_reopen.unwrap_or(Keep::All);
        platter.lose(keep);
        platter.generation += 1;
        Ok(())
    }

    fn generation(&self) -> u64 {
        self.disk.lock().generation
    }

    fn close(&self) {
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }
}

/// `BTreeMap::range` panics where this is true.
pub(crate) fn is_empty(range: &(Bound<&[u8]>, Bound<&[u8]>)) -> bool {
    match range {
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(to))
        | (Bound::Excluded(from), Bound::Included(to)) => from >= to,
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
    }
}
