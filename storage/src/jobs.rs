//! Storage jobs and how they complete: a thread with group commit, or inline.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use fail::fail_point;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::time::Instant;
use tracing::{debug, error};

use crate::backend::{Backend, Batch, Operation, StoreError};
use crate::stats::{Counters, Stats};

/// The most jobs that wait. A job more waits for room before it enters the queue.
const MAX_JOBS: usize = 1024;

/// How storage jobs complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Completion {
    /// On one dedicated thread per store, with group commit.
    #[default]
    Thread,
    /// At once, on the caller. For simulations: no thread, no clock. Where the backend lets a
    /// sync wait, what is queued meanwhile goes with the next group.
    Inline,
}

/// What a job is for; decides its order and its fail points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A vote: it waits for no room, but not ahead of what was queued before it.
    Vote,
    /// Log entries.
    Append,
    /// Accepted transactions.
    Queue,
    /// Log entries removed from the front.
    Purge,
    /// Anything else.
    Other,
}

/// Told when a job is done, or has failed.
pub(crate) type Done = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// One change to write, and whether it must be durable before it counts as done.
pub(crate) struct Job {
    pub(crate) kind: Kind,
    pub(crate) batch: Batch,
    pub(crate) sync: bool,
    pub(crate) done: Done,
    /// Room in the queue, given back when the job is done.
    pub(crate) room: Option<OwnedSemaphorePermit>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Changes nobody waits for; they follow the jobs that were queued before them.
    background: Batch,
    /// A change that may be lost and is not worth a write of its own; the newest counts.
    hint: Option<Operation>,
    /// Number of the last queued job that is not a vote.
    pushed: u64,
    closing: bool,
    /// A group that ran inline waits for its sync.
    waiting: bool,
}

impl Queue {
    fn take_background(&mut self) -> Batch {
        let mut batch = std::mem::take(&mut self.background);
        batch.operations.extend(self.hint.take());
        batch
    }

    fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.background.is_empty()
    }
}

struct Shared {
    backend: Arc<dyn Backend>,
    completion: Completion,
    queue: Mutex<Queue>,
    wake: Condvar,
    room: Arc<Semaphore>,
    counters: Counters,
    trouble: Mutex<Option<StoreError>>,
    /// Number of the last job that is written, though perhaps not synced.
    written: watch::Sender<u64>,
    /// One group at a time, also when jobs run inline.
    one_at_a_time: Mutex<()>,
}

/// The queue of a store.
pub(crate) struct Jobs {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    closed: Mutex<bool>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Jobs {
    pub(crate) fn start(backend: Arc<dyn Backend>, completion: Completion) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            backend,
            completion,
            queue: Mutex::default(),
            wake: Condvar::new(),
            room: Arc::new(Semaphore::new(MAX_JOBS)),
            counters: Counters::default(),
            trouble: Mutex::default(),
            written: watch::channel(0).0,
            one_at_a_time: Mutex::default(),
        });
        let thread = match completion {
            Completion::Inline => None,
            Completion::Thread => {
                let shared = shared.clone();
                Some(std::thread::Builder::new().name("storage".into()).spawn(move || shared.work())?)
            }
        };
        Ok(Self { shared, thread: Mutex::new(thread), closed: Mutex::new(false) })
    }

    /// Waits for room in the queue.
    pub(crate) async fn room(&self) -> Option<OwnedSemaphorePermit> {
        self.shared.room.clone().acquire_owned().await.ok()
    }

    /// Queues a job and returns its number, or runs it when jobs run inline.
    pub(crate) fn push(&self, job: Job) -> u64 {
        let mut queue = lock(&self.shared.queue);
        if queue.closing {
            drop(queue);
            (job.done)(Err(closed()));
            return 0;
        }
        self.shared.counters.jobs.fetch_add(1, Ordering::Relaxed);
        if job.kind != Kind::Vote {
            queue.pushed += 1;
        }
        let number = queue.pushed;
        match self.shared.completion {
            Completion::Inline => {
                queue.jobs.push_back(job);
                drop(queue);
                self.shared.run_inline();
            }
            Completion::Thread => {
                queue.jobs.push_back(job);
                self.shared.counters.queue_length.fetch_add(1, Ordering::Relaxed);
                drop(queue);
                self.shared.wake.notify_one();
            }
        }
        number
    }

    /// Queues a job and waits for it.
    pub(crate) async fn run(&self, kind: Kind, batch: Batch, sync: bool) -> Result<(), StoreError> {
        // A vote does not wait for room: an election must not wait for appends.
        let room = if kind == Kind::Vote { None } else { self.room().await };
        let (sender, receiver) = oneshot::channel();
        let done: Done = Box::new(move |result| {
            // Whoever asked may have gone away.
            let _ = sender.send(result);
        });
        self.push(Job { kind, batch, sync, done, room });
        receiver.await.unwrap_or_else(|_| Err(StoreError::Io("the storage thread is gone".into())))
    }

    /// Writes changes that nobody waits for, after all jobs queued so far.
    ///
    /// What is in the batch must be bounded by its nature: no room is waited for.
    pub(crate) fn background(&self, batch: Batch) {
        let mut queue = lock(&self.shared.queue);
        queue.background.operations.extend(batch.operations);
        drop(queue);
        match self.shared.completion {
            Completion::Inline => self.shared.run_inline(),
            Completion::Thread => self.shared.wake.notify_one(),
        }
    }

    /// Writes a change with the next job, or when the store closes. Only the newest counts.
    pub(crate) fn hint(&self, change: Operation) {
        lock(&self.shared.queue).hint = Some(change);
    }

    /// The number of the last job that is written.
    pub(crate) fn written(&self) -> u64 {
        *self.shared.written.borrow()
    }

    /// Waits until a job is written (visible, in the WAL, perhaps not durable).
    pub(crate) async fn until_written(&self, number: u64) -> Result<(), StoreError> {
        let mut written = self.shared.written.subscribe();
        let reached = written.wait_for(|written| *written >= number).await.is_ok();
        match self.trouble() {
            Some(trouble) => Err(trouble),
            None if reached => Ok(()),
            None => Err(closed()),
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        self.shared.counters.view()
    }

    pub(crate) fn trouble(&self) -> Option<StoreError> {
        lock(&self.shared.trouble).clone()
    }

    /// Remembers an error: every later job fails with the first one.
    pub(crate) fn report(&self, trouble: &StoreError) {
        self.shared.report(trouble);
    }

    pub(crate) fn completion(&self) -> Completion {
        self.shared.completion
    }

    /// The backend was opened again: what fails from here on is a new failure.
    pub(crate) fn forgive(&self) {
        let queue = lock(&self.shared.queue);
        *lock(&self.shared.trouble) = None;
        self.shared.written.send_replace(queue.pushed);
    }

    /// Finishes what is queued, syncs, ends the thread and closes the backend.
    pub(crate) fn close(&self) {
        let mut over = lock(&self.closed);
        if std::mem::replace(&mut *over, true) {
            return;
        }
        lock(&self.shared.queue).closing = true;
        self.shared.wake.notify_one();
        if let Some(thread) = lock(&self.thread).take() {
            // A panic of the thread is reported as trouble by the thread itself.
            let _ = thread.join();
        }
        let (left, background) = {
            let mut queue = lock(&self.shared.queue);
            (std::mem::take(&mut queue.jobs), queue.take_background())
        };
        // Only where a sync waits inline: nobody comes back to them.
        for job in left {
            (job.done)(Err(closed()));
        }
        self.shared.run(vec![], background, self.written());
        if self.trouble().is_none()
            && let Err(trouble) = self.shared.backend.sync()
        {
            self.report(&trouble);
        }
        self.shared.backend.close();
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        self.close();
    }
}

fn closed() -> StoreError {
    StoreError::Io("the store is closed".into())
}

/// Says that the thread is gone, also when it panics: nobody may wait for ever.
struct Farewell<'a>(&'a Shared);

impl Drop for Farewell<'_> {
    fn drop(&mut self) {
        let mut queue = lock(&self.0.queue);
        queue.closing = true;
        if std::thread::panicking() {
            self.0.report(&StoreError::Io("the storage thread panicked".into()));
        }
        let left: Vec<Job> = queue.jobs.drain(..).collect();
        drop(queue);
        for job in left {
            (job.done)(Err(closed()));
        }
        self.0.written.send_replace(u64::MAX);
    }
}

impl Shared {
    fn report(&self, trouble: &StoreError) {
        let mut first = lock(&self.trouble);
        if first.is_none() {
            error!(%trouble, "the store has failed");
            *first = Some(trouble.clone());
        }
    }

    fn work(&self) {
        let _farewell = Farewell(self);
        loop {
            let mut queue = lock(&self.queue);
            while queue.is_empty() && !queue.closing {
                queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            if queue.is_empty() {
                return;
            }
            // Everything that waits goes in one group, in order. openraft wants votes and appends
            // serialised: a vote on disk without the membership entry queued just before it would
            // leave a member of nothing.
            let group = Vec::from(std::mem::take(&mut queue.jobs));
            let background = queue.take_background();
            let number = queue.pushed;
            drop(queue);
            self.counters.queue_length.fetch_sub(group.len() as u64, Ordering::Relaxed);
            self.run(group, background, number);
        }
    }

    /// Runs what is queued on the caller, unless a sync is waited for.
    fn run_inline(self: &Arc<Self>) {
        loop {
            let mut queue = lock(&self.queue);
            if queue.waiting || queue.is_empty() {
                return;
            }
            let group = Vec::from(std::mem::take(&mut queue.jobs));
            let background = queue.take_background();
            let number = queue.pushed;
            queue.waiting = group.iter().any(|job| job.sync);
            let sync = queue.waiting;
            drop(queue);
            if !sync {
                self.run(group, background, number);
                continue;
            }
            let generation = self.backend.generation();
            let (shared, began) = (self.clone(), Instant::now());
            let (group, written) = {
                let mut group = group;
                let written = self.write_group(&mut group, background, number);
                (group, written)
            };
            *lock(&self.counters.busy_since) = Some(began);
            let go = Box::new(move || {
                let result = written.and_then(|()| {
                    // Somebody opened the store again meanwhile: what was written may be gone.
                    match shared.backend.generation() == generation {
                        true => shared.sync_group(&group),
                        false => Err(StoreError::reopened()),
                    }
                });
                *lock(&shared.counters.busy_since) = None;
                lock(&shared.queue).waiting = false;
                shared.finish(group, &result);
                shared.run_inline();
            });
            match self.backend.wait_to_sync(go) {
                Some(go) => go(),
                None => return,
            }
        }
    }

    /// Writes a group, syncs once, and says so in order.
    fn run(&self, mut group: Vec<Job>, background: Batch, number: u64) {
        if group.is_empty() && background.is_empty() {
            return;
        }
        let result = {
            let _turn = lock(&self.one_at_a_time);
            *lock(&self.counters.busy_since) = self.now();
            let result = self.write(&mut group, background, number);
            *lock(&self.counters.busy_since) = None;
            result
        };
        self.finish(group, &result);
    }

    /// Tells everybody how their group went.
    fn finish(&self, group: Vec<Job>, result: &Result<(), StoreError>) {
        if let Err(trouble) = result {
            // Under the lock that `forgive` takes: no trouble and everything written would be a lie.
            let _queue = lock(&self.queue);
            self.report(trouble);
            // Those who wait for a write look for trouble when they wake.
            self.written.send_replace(u64::MAX);
        }
        debug!(jobs = group.len(), ok = result.is_ok(), "storage group done");
        for job in group {
            (job.done)(result.clone());
            drop(job.room);
        }
    }

    fn write(&self, group: &mut [Job], background: Batch, number: u64) -> Result<(), StoreError> {
        self.write_group(group, background, number)?;
        self.sync_group(group)
    }

    fn write_group(&self, group: &mut [Job], background: Batch, number: u64) -> Result<(), StoreError> {
        if let Some(trouble) = lock(&self.trouble).clone() {
            return Err(trouble);
        }
        fail_point!("storage.full", |_| Err(StoreError::Full("fail point".into())));
        let has = |kind| group.iter().any(|job: &Job| job.kind == kind);
        let (append, queue, purge) = (has(Kind::Append), has(Kind::Queue), has(Kind::Purge));
        if append {
            fail_point!("storage.before_append");
        }
        if purge {
            fail_point!("storage.before_purge");
        }
        let mut batch = Batch::default();
        for job in group.iter_mut() {
            batch.operations.append(&mut job.batch.operations);
        }
        batch.operations.extend(background.operations);
        if !batch.is_empty() {
            self.backend.write(batch)?;
        }
        self.counters.batches.fetch_add(1, Ordering::Relaxed);
        self.written.send_if_modified(|written| {
            let later = number > *written;
            *written = number.max(*written);
            later
        });
        if append {
            fail_point!("storage.after_append_before_sync");
        }
        if purge {
            fail_point!("storage.after_purge");
        }
        if queue {
            fail_point!("storage.queue_before_sync");
        }
        Ok(())
    }

    fn sync_group(&self, group: &[Job]) -> Result<(), StoreError> {
        let has = |kind| group.iter().any(|job: &Job| job.kind == kind);
        let (append, queue, vote) = (has(Kind::Append), has(Kind::Queue), has(Kind::Vote));
        if group.iter().any(|job| job.sync) {
            self.sync()?;
        }
        if append {
            fail_point!("storage.after_sync");
        }
        if queue {
            fail_point!("storage.queue_after_sync");
        }
        if vote {
            fail_point!("storage.vote_after_sync");
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        fail_point!("storage.fsync_error", |_| Err(StoreError::Io("fail point".into())));
        let began = self.now();
        self.backend.sync()?;
        self.counters.fsyncs.fetch_add(1, Ordering::Relaxed);
        let took = began.map_or(Duration::ZERO, |began| began.elapsed());
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.counters.last_fsync_nanos.store(nanos, Ordering::Relaxed);
        Ok(())
    }

    /// The time, on the storage thread only: a simulation has none of its own.
    fn now(&self) -> Option<Instant> {
        match self.completion {
            Completion::Inline => None,
            Completion::Thread => Some(Instant::now()),
        }
    }
}
