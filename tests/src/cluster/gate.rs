//! How long the syncs of a disk take: no time, a while, or for ever.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use baton_storage::backend::Go;
use baton_storage::memory::SyncWait;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

struct State {
    random: StdRng,
    /// The longest a sync usually takes.
    usual: Duration,
    /// How long each takes, while the disk is slow.
    slow: Option<Duration>,
    hanging: bool,
    /// Syncs that hang.
    waiting: Vec<Go>,
    hung: u64,
}

/// Lets syncs wait. Clones are the same.
#[derive(Clone)]
pub(super) struct Gate(Arc<Mutex<State>>);

impl Gate {
    pub(super) fn new(seed: u64, usual: Duration) -> Self {
        Self(Arc::new(Mutex::new(State {
            random: StdRng::seed_from_u64(seed ^ 0x6761_7465),
            usual,
            slow: None,
            hanging: false,
            waiting: vec![],
            hung: 0,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Each sync takes so long from now on; `None`: as usual.
    pub(super) fn slow(&self, slow: Option<Duration>) {
        self.lock().slow = slow;
    }

    /// Syncs do not return until they are released.
    pub(super) fn hang(&self) {
        self.lock().hanging = true;
    }

    /// Syncs return again; the ways on of those that hung, to be gone among the node's tasks.
    pub(super) fn release(&self) -> Vec<Go> {
        let mut state = self.lock();
        state.hanging = false;
        std::mem::take(&mut state.waiting)
    }

    /// The machine is off: nothing hangs any more.
    pub(super) fn forget(&self) {
        self.lock().waiting.clear();
    }

    /// How many syncs have hung.
    pub(super) fn hung(&self) -> u64 {
        self.lock().hung
    }

    /// For the disk of a life.
    pub(super) fn wait(&self) -> Option<SyncWait> {
        let gate = self.clone();
        Some(Arc::new(move |go| gate.pass(go)))
    }

    fn pass(&self, go: Go) -> Option<Go> {
        let mut state = self.lock();
        if state.hanging {
            state.hung += 1;
            state.waiting.push(go);
            return None;
        }
        let takes = match state.slow {
            Some(slow) => slow,
            None if state.usual.is_zero() => return Some(go),
            None => {
                let longest = u64::try_from(state.usual.as_millis()).unwrap_or(u64::MAX);
                Duration::from_millis(state.random.next_u64() % (longest + 1))
            }
        };
        if takes.is_zero() {
            return Some(go);
        }
        tokio::task::spawn_local(async move {
            tokio::time::sleep(takes).await;
            go();
        });
        None
    }
}
