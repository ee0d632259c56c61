//! The in-memory twin: a disk that survives crashes and loses what was not synced.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::backend::{Backend, Batch, Direction, Family, Operation, StoreError};

/// How much of the unsynced write-ahead log a crash leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Everything: the process died, the machine did not.
    All,
    /// Nothing: only what was synced.
    None,
    /// The first so many unsynced batches.
    Prefix(usize),
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
    syncs_late: bool,
    writes: u64,
    syncs: u64,
    hook: Option<Hook>,
}

impl Platter {
    /// What was not synced is lost but for `keep`; the rest is durable.
    fn lose(&mut self, keep: Keep) {
        let kept = match keep {
            Keep::All => self.unsynced.len(),
            Keep::None => 0,
            Keep::Prefix(count) => count.min(self.unsynced.len()),
        };
        let survivors: Vec<Batch> = self.unsynced.drain(..).take(kept).collect();
        for batch in survivors {
            apply(&mut self.durable, batch);
        }
        self.visible = self.durable.clone();
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
        platter.syncs_late = false;
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

    /// From now on, until the next crash, a sync is answered and comes later: what a leader counted as
    /// its own is lost with its power, although others hold it and it is committed.
    pub fn sync_late(&self) {
        self.lock().syncs_late = true;
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
        let platter = self.live()?;
        Ok(platter.visible.get(&family).and_then(|table| table.get(key)).cloned())
    }

    fn scan(
        &self,
        family: Family,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let platter = self.live()?;
        let Some(table) = platter.visible.get(&family) else { return Ok(vec![]) };
        if is_empty(&range) {
            return Ok(vec![]);
        }
        let pair = |(key, value): (&Bytes, &Bytes)| (key.clone(), value.clone());
        let found = table.range::<[u8], _>(range);
        Ok(match direction {
            Direction::Forward => found.take(limit).map(pair).collect(),
            Direction::Reverse => found.rev().take(limit).map(pair).collect(),
        })
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
            let batches = if platter.syncs_late { vec![] } else { std::mem::take(&mut platter.unsynced) };
            for batch in batches {
                apply(&mut platter.durable, batch);
            }
        }
        self.disk.ask(Effect::AfterSync)
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
