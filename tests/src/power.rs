//! The power switch: every effect of a node on the outside passes here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use baton_storage::backend::StoreError;

/// When the power goes off by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cut {
    /// Never.
    #[default]
    Never,
    /// Instead of the effect with this number, counted from one.
    AtEffect(u64),
}

#[derive(Debug, Default)]
struct State {
    effects: u64,
    off: bool,
    last: Option<&'static str>,
    seen: BTreeMap<&'static str, u64>,
    /// Disk effects that fail instead of happening, and how.
    failing: BTreeMap<&'static str, StoreError>,
    /// How many have failed.
    failed: u64,
    /// The cut does not come any more.
    disarmed: bool,
}

/// Shared by everything that has effects: disk, guard, DA, clients.
#[derive(Clone, Debug, Default)]
pub struct Power {
    cut: Cut,
    state: Arc<Mutex<State>>,
}

impl Power {
    /// A switch that is on, and goes off by itself as said.
    #[must_use]
    pub fn new(cut: Cut) -> Self {
        Self { cut, state: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks before an effect; `false`: the power is off, the effect must not happen.
    pub fn effect(&self, name: &'static str) -> bool {
        let mut state = self.state();
        if state.off {
            return false;
        }
        state.effects += 1;
        *state.seen.entry(name).or_default() += 1;
        if self.cut == Cut::AtEffect(state.effects) && !state.disarmed {
            state.off = true;
            state.last = Some(name);
        }
        !state.off
    }

    /// From now on this disk effect (`disk.write`, `disk.written`, `disk.sync`, `disk.synced`)
    /// fails like this; the power stays on. After `disk.written` and `disk.synced` it has
    /// happened, but who asked is told otherwise.
    pub fn fail(&self, effect: &'static str, error: StoreError) {
        self.state().failing.insert(effect, error);
    }

    /// The disk works again.
    pub fn heal(&self) {
        self.state().failing.clear();
    }

    /// How an effect fails, if it does.
    #[must_use]
    pub fn failure(&self, effect: &'static str) -> Option<StoreError> {
        let mut state = self.state();
        let error = state.failing.get(effect).cloned();
        state.failed += u64::from(error.is_some());
        error
    }

    /// How many effects have failed.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.state().failed
    }

    /// It does not go off by itself any more.
    pub fn disarm(&self) {
        self.state().disarmed = true;
    }

    /// Turns the power off now.
    pub fn cut(&self) {
        self.state().off = true;
    }

    /// Whether it is off.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.state().off
    }

    /// How many effects there were.
    #[must_use]
    pub fn effects(&self) -> u64 {
        self.state().effects
    }

    /// Instead of which effect the power went off.
    #[must_use]
    pub fn last(&self) -> Option<&'static str> {
        self.state().last
    }

    /// How often each effect came.
    #[must_use]
    pub fn seen(&self) -> BTreeMap<&'static str, u64> {
        self.state().seen.clone()
    }
}
