//! All hosts on one runtime, on one virtual clock.
//!
//! Each host has a set of tasks of its own. A crash drops the set with everything it was doing,
//! wherever that was; a host that sleeps is not polled while its timers run out, which is what
//! SIGSTOP is. Time jumps to the next timer of anybody: a cluster that waits costs nothing.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::{Builder, RngSeed, Runtime, UnhandledPanic};
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep_until};

use crate::history::panics::turn_of;
use crate::power::Touched;

struct Host {
    tasks: LocalSet,
    asleep: bool,
}

pub(super) struct Together {
    runtime: Option<Runtime>,
    started: Instant,
    hosts: BTreeMap<usize, Host>,
    touched: Touched,
}

impl Together {
    pub(super) fn new(seed: u64) -> Self {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .rng_seed(RngSeed::from_bytes(&seed.to_le_bytes()))
            .build()
            .expect("a runtime without i/o can be built");
        let started = {
            let _entered = runtime.enter();
            Instant::now()
        };
        Self { runtime: Some(runtime), started, hosts: BTreeMap::new(), touched: Touched::default() }
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it is there until the end")
    }

    pub(super) fn touched(&self) -> Touched {
        self.touched.clone()
    }

    pub(super) const fn started(&self) -> Instant {
        self.started
    }

    pub(super) fn elapsed(&self) -> Duration {
        let _entered = self.runtime().enter();
        self.started.elapsed()
    }

    /// Starts a life of a host.
    pub(super) fn start(&mut self, index: usize, life: impl Future<Output = ()> + 'static) {
        let mut tasks = LocalSet::new();
        tasks.unhandled_panic(UnhandledPanic::ShutdownRuntime);
        tasks.spawn_local(life);
        self.end(index);
        self.hosts.insert(index, Host { tasks, asleep: false });
    }

    /// Drops everything that a host was doing.
    pub(super) fn end(&mut self, index: usize) {
        let host = self.hosts.remove(&index);
        let _entered = self.runtime().enter();
        drop(host);
    }

    /// A host does not run until it is told otherwise.
    pub(super) fn sleep(&mut self, index: usize, asleep: bool) {
        if let Some(host) = self.hosts.get_mut(&index) {
            host.asleep = asleep;
        }
    }

    /// Runs everybody until something was touched, or until a time. Says whether that time has
    /// come.
    ///
    /// # Panics
    ///
    /// When a task of a host did.
    pub(super) fn run(&mut self, until: Duration) -> bool {
        let Self { runtime, started, hosts, touched } = self;
        let runtime = runtime.as_ref().expect("it is there until the end");
        let deadline = *started + until;
        runtime.block_on(async move {
            let mut time = pin!(sleep_until(deadline));
            let came = poll_fn(|cx| {
                for (index, host) in hosts.iter_mut().filter(|(_, host)| !host.asleep) {
                    turn_of(Some(*index));
                    // A host without tasks has nothing to do; it stays.
                    let _ = Pin::new(&mut host.tasks).poll(cx);
                }
                turn_of(None);
                if touched.take() {
                    return Poll::Ready(false);
                }
                time.as_mut().poll(cx).map(|()| true)
            })
            .await;
            // Whoever has yielded is woken when the runtime goes round: it forgets them with us.
            tokio::task::yield_now().await;
            came
        })
    }
}

impl Drop for Together {
    fn drop(&mut self) {
        let hosts = std::mem::take(&mut self.hosts);
        if let Some(runtime) = self.runtime.take() {
            {
                // What is dropped here may set up timers once more.
                let _entered = runtime.enter();
                drop(hosts);
            }
            drop(runtime);
        }
    }
}
