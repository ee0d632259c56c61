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
/// `guard.written` (everything has, but nobody was told). After the power went off everything
/// fails until `restart`.
#[derive(Clone)]
pub struct MemoryGuard {
    disk: Arc<Mutex<Disk>>,
    effects: Effects,
}

struct Disk {
    slots: Option<[Vec<u8>; 2]>,
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
        let disk = Disk { slots: None, powered: true, tear: SLOT_BYTES / 2 };
        Self { disk: Arc::new(Mutex::new(disk)), effects }
    }

    /// The same disk under another power switch, powered again.
    #[must_use]
    pub fn restart(&self, effects: Effects) -> Self {
        self.disk().powered = true;
        Self { disk: self.disk.clone(), effects }
    }

    /// How many bytes of a torn write reach the disk; half of them if not said.
    pub fn tear_at(&self, bytes: usize) {
        self.disk().tear = bytes.min(SLOT_BYTES);
    }

    /// What is on the disk.
    #[must_use]
    pub fn slots(&self) -> Slots {
        self.disk().slots.clone().map_or(Slots::Missing, Slots::Present)
    }

    /// Puts something else onto the disk: an old copy, damage, nothing.
    pub fn replace(&self, slots: Slots) {
        self.disk().slots = match slots {
            Slots::Missing => None,
            Slots::Present(slots) => Some(slots),
        };
    }

    fn disk(&self) -> std::sync::MutexGuard<'_, Disk> {
        // A disk has no invariant that a panic elsewhere could break.
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs an effect on the powered disk, unless the power goes off before or during it.
    fn effect(&self, torn: impl FnOnce(&mut Disk), whole: impl FnOnce(&mut Disk)) -> Result<(), GuardIo> {
        if !self.disk().powered {
            return Err(power_off());
        }
        // The hook is asked without the lock: it may look at the disk.
        let (before, during) = ((self.effects)("guard.write"), (self.effects)("guard.tear"));
        match (before, during) {
            (false, _) => {}
            (true, false) => torn(&mut self.disk()),
            (true, true) => {
                whole(&mut self.disk());
                if (self.effects)("guard.written") {
                    return Ok(());
                }
            }
        }
        self.disk().powered = false;
        Err(power_off())
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
        Ok(self.slots())
    }

    fn write(&mut self, slot: usize, bytes: &[u8]) -> Result<(), GuardIo> {
        if self.disk().slots.is_none() {
            return Err(GuardIo("there is no guard".into()));
        }
        let put = |disk: &mut Disk, length: usize| {
            if let Some(slots) = &mut disk.slots {
                slots[slot].resize(SLOT_BYTES, 0);
                slots[slot][..length].copy_from_slice(&bytes[..length]);
            }
        };
        self.effect(|disk| put(disk, disk.tear.min(bytes.len())), |disk| put(disk, bytes.len()))
    }

    fn create(&mut self, slot: &[u8]) -> Result<(), GuardIo> {
        // A new file gets its name once it is whole: there is nothing to tear.
        self.effect(|_| (), |disk| disk.slots = Some([slot.to_vec(), vec![0; SLOT_BYTES]]))
    }

    fn place(&self) -> String {
        "memory".into()
    }
}
