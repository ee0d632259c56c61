//! The guard in memory, with a power switch: for simulations and tests.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::guard::{GuardIo, GuardStore};
use super::slot::{SLOT_BYTES, Slots};

/// Asked at every effect; `false` turns the power off there.
pub type Effects = Arc<dyn Fn(&'static str) -> bool + Send + Sync>;

/// A guard that outlives the node it belongs to: clones share the disk.
///
/// The effects are `guard.write` (nothing has reached the disk), `guard.tear` (a part has) and
/// `guard.written` (everything has, but nobody was told). What was written and not synced is lost
/// with the power. After the power went off everything fails until `restart`.
#[derive(Clone)]
pub struct MemoryGuard {
    disk: Arc<Mutex<Disk>>,
    effects: Effects,
}

struct Disk {
    slots: Option<[Vec<u8>; 2]>,
    /// A slot that is written and not synced.
    unsynced: Option<(usize, Vec<u8>)>,
    powered: bool,
    tear: usize,
}

impl fmt::Debug for MemoryGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryGuard(..)")
    }
}

impl Default for MemoryGuard {
    fn default() -> Self {
        Self::new(Arc::new(|_| true))
    }
}

impl MemoryGuard {
    /// An empty place for a guard.
    #[must_use]
    pub fn new(effects: Effects) -> Self {
        let disk = Disk { slots: None, unsynced: None, powered: true, tear: SLOT_BYTES / 2 };
        Self { disk: Arc::new(Mutex::new(disk)), effects }
    }

    /// The same disk under another power switch, powered again.
    #[must_use]
    pub fn restart(&self, effects: Effects) -> Self {
        let mut disk = self.disk();
        disk.powered = true;
        disk.unsynced = None;
        drop(disk);
        Self { disk: self.disk.clone(), effects }
    }

    /// How many bytes of a torn write reach the disk; half of them if not said.
    pub fn tear_at(&self, bytes: usize) {
        self.disk().tear = bytes.min(SLOT_BYTES);
    }

    /// What is on the disk, and stays there without power.
    #[must_use]
    pub fn slots(&self) -> Slots {
        self.disk().slots.clone().map_or(Slots::Missing, Slots::Present)
    }

    /// Puts something else onto the disk: an old copy, damage, nothing.
    pub fn replace(&self, slots: Slots) {
        let mut disk = self.disk();
        disk.unsynced = None;
        disk.slots = match slots {
            Slots::Missing => None,
            Slots::Present(slots) => Some(slots),
        };
    }

    fn disk(&self) -> std::sync::MutexGuard<'_, Disk> {
        // A disk has no invariant that a panic elsewhere could break.
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes something, unless the power goes off before or during it.
    fn begin(&self, torn: impl FnOnce(&mut Disk), whole: impl FnOnce(&mut Disk)) -> Result<(), GuardIo> {
        if !self.disk().powered {
            return Err(power_off());
        }
        // The hook is asked without the lock: it may look at the disk.
        match ((self.effects)("guard.write"), (self.effects)("guard.tear")) {
            (true, true) => {
                whole(&mut self.disk());
                return Ok(());
            }
            (true, false) => torn(&mut self.disk()),
            (false, _) => {}
        }
        self.disk().powered = false;
        Err(power_off())
    }

    /// What was written is on the disk; the power may go off before anybody is told.
    fn end(&self) -> Result<(), GuardIo> {
        if !self.disk().powered {
            return Err(power_off());
        }
        if (self.effects)("guard.written") {
            return Ok(());
        }
        self.disk().powered = false;
        Err(power_off())
    }
}

impl Disk {
    fn put(&mut self, slot: usize, bytes: &[u8]) {
        if let Some(slots) = &mut self.slots {
            slots[slot].resize(SLOT_BYTES, 0);
            slots[slot][..bytes.len()].copy_from_slice(bytes);
        }
    }
}

fn power_off() -> GuardIo {
    GuardIo("the power is off".into())
}

impl GuardStore for MemoryGuard {
    fn read(&mut self) -> Result<Slots, GuardIo> {
        if !self.disk().powered {
            return Err(power_off());
        }
        let mut slots = self.slots();
        if let (Slots::Present(slots), Some((slot, bytes))) = (&mut slots, &self.disk().unsynced) {
            slots[*slot].clone_from(bytes);
        }
        Ok(slots)
    }

    fn write(&mut self, slot: usize, bytes: &[u8]) -> Result<(), GuardIo> {
        if self.disk().slots.is_none() {
            return Err(GuardIo("there is no guard".into()));
        }
        let mut whole = bytes.to_vec();
        whole.resize(SLOT_BYTES, 0);
        self.begin(
            |disk| disk.put(slot, &bytes[..disk.tear.min(bytes.len())]),
            |disk| disk.unsynced = Some((slot, whole)),
        )
    }

    fn sync(&mut self) -> Result<(), GuardIo> {
        let mut disk = self.disk();
        if let Some((slot, bytes)) = disk.unsynced.take() {
            disk.put(slot, &bytes);
        }
        drop(disk);
        self.end()
    }

    fn create(&mut self, slot: &[u8]) -> Result<(), GuardIo> {
        // A new file gets its name once it is whole: there is nothing to tear.
        self.begin(|_| (), |disk| disk.slots = Some([slot.to_vec(), vec![0; SLOT_BYTES]]))?;
        self.end()
    }

    fn place(&self) -> String {
        "memory".into()
    }
}
