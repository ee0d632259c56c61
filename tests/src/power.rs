//! The power switch: every effect of a node on the outside passes here.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
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

/// Set by whoever has an effect: what must hold is looked at then. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Touched(Arc<AtomicBool>);

impl Touched {
    /// Something happened.
    pub fn touch(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether something has happened since this was asked last.
    #[must_use]
    pub fn take(&self) -> bool {
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::Relaxed)
    }
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
    /// The power goes off instead of an effect whose name begins like this, after so many more.
    next_cut: Option<(&'static str, u64)>,
}

/// Shared by everything that has effects: disk, guard, DA, clients.
#[derive(Clone, Debug, Default)]
pub struct Power {
    cut: Cut,
    state: Arc<Mutex<State>>,
    touched: Touched,
}

impl Power {
    /// A switch that is on, and goes off by itself as said.
    #[must_use]
    pub fn new(cut: Cut) -> Self {
        Self { cut, ..Self::default() }
    }

    /// The same, and whoever waits for something to happen hears of every effect.
    #[must_use]
    pub fn watched(self, touched: &Touched) -> Self {
        Self { touched: touched.clone(), ..self }
    }

    /// Something happened that is no effect of its own.
    pub fn touch(&self) {
        self.touched.touch();
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
        self.touched.touch();
        let now = match &mut state.next_cut {
            Some((prefix, left)) if name.starts_with(*prefix) => {
                *left = left.saturating_sub(1);
                *left == 0
            }
            _ => false,
        };
        if (now || self.cut == Cut::AtEffect(state.effects)) && !state.disarmed {
            state.off = true;
            state.last = Some(name);
        }
        !state.off
    }

    /// The power goes off instead of an effect to come: the so-and-so-many-th from now on whose
    /// name begins like this.
    pub fn cut_at(&self, prefix: &'static str, after: u64) {
        self.state().next_cut = Some((prefix, after.max(1)));
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
        let mut state = self.state();
        state.disarmed = true;
        state.next_cut = None;
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
