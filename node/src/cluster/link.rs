//! Calls to one member in one class, over one connection that is made when it is needed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use baton_actors::raft::transport::{CallError, Caller, Class};
use baton_messages::types::Member;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use crate::cluster::Shared;
use crate::cluster::dialler::Dialler;
use crate::cluster::limits::ClassLimits;
use crate::cluster::metrics::{Held, Metrics};
use crate::cluster::net::Net;

type Answer = Result<(Caller, Bytes), CallError>;

/// A place among the calls under way.
#[derive(Debug)]
struct Place {
    _permit: OwnedSemaphorePermit,
    _counted: Held,
}

/// A call on its way to the connection.
pub(super) struct Request {
    pub(super) id: u64,
    pub(super) body: Bytes,
    pub(super) deadline: Instant,
    pub(super) waiting: Waiting,
}

/// Somebody who waits for an answer.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) answer: oneshot::Sender<Answer>,
    _place: Place,
}

impl Waiting {
    pub(super) fn fail(self, error: &CallError) {
        // Nobody waits any more: nobody to tell.
        let _ = self.answer.send(Err(error.clone()));
    }
}

/// Everybody who waits, by the number of the call.
#[derive(Clone, Debug, Default)]
pub(super) struct Pending(Arc<Mutex<BTreeMap<u64, Waiting>>>);

impl Pending {
    pub(super) fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take(&self, id: u64) -> Option<Waiting> {
        self.lock().remove(&id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    pub(super) fn fail(&self, error: &CallError) {
        let all = std::mem::take(&mut *self.lock());
        all.into_values().for_each(|waiting| waiting.fail(error));
    }
}

/// Removes a call whose future is dropped, so that its place is free again.
struct Forgotten {
    pending: Pending,
    id: u64,
}

impl Drop for Forgotten {
    fn drop(&mut self) {
        drop(self.pending.take(self.id));
    }
}

/// The way to one member in one class.
#[derive(Clone, Debug)]
pub(super) struct Link {
    name: Arc<str>,
    class: Class,
    limits: ClassLimits,
    requests: mpsc::Sender<Request>,
    places: Arc<Semaphore>,
    queue: Arc<Semaphore>,
    pending: Pending,
    next: Arc<AtomicU64>,
    metrics: Metrics,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Link {
    /// A way to a member; its task is spawned.
    pub(super) fn start<N: Net>(shared: &Arc<Shared<N>>, member: Member, class: Class) -> Self {
        let limits = shared.limits.of(class);
        let (requests, received) = mpsc::channel(limits.in_flight.max(1));
        let pending = Pending::default();
        let link = Self {
            name: describe(&member).into(),
            class,
            limits,
            requests,
            places: Arc::new(Semaphore::new(limits.in_flight)),
            queue: Arc::new(Semaphore::new(limits.waiting)),
            pending: pending.clone(),
            next: Arc::default(),
            metrics: shared.gate.metrics.clone(),
        };
        let dialler = Dialler { shared: shared.clone(), member, class, limits, pending };
        shared.runtime.spawn(dialler.run(received));
        link
    }

    /// Whether its task has ended.
    pub(super) fn is_over(&self) -> bool {
        self.requests.is_closed()
    }

    /// Calls, and waits for the answer until the deadline; the caller cuts it off there.
    pub(super) async fn call(&self, body: Bytes, deadline: Instant) -> Answer {
        let place = self.place().await?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        let _forgotten = Forgotten { pending: self.pending.clone(), id };
        let request = Request { id, body, deadline, waiting: Waiting { answer, _place: place } };
        let gone = || CallError::Unreachable(format!("the connection to {} was closed", self.name));
        self.requests.send(request).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    async fn place(&self) -> Result<Place, CallError> {
        let permit = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let full = || {
                    CallError::Unreachable(format!(
                        "{} calls of class {} to {} are under way and {} wait",
                        self.limits.in_flight,
                        self.class.name(),
                        self.name,
                        self.limits.waiting
                    ))
                };
                let _queued = self.queue.try_acquire().map_err(|_| full())?;
                let _counted = self.metrics.waits(self.class);
                Arc::clone(&self.places).acquire_owned().await.map_err(|_| full())?
            }
        };
        let counted = Metrics::gauge(&self.metrics.in_flight, self.class, "out");
        Ok(Place { _permit: permit, _counted: counted })
    }
}

/// The name and the address of a member, as far as they are known.
pub(super) fn describe(member: &Member) -> String {
    match member.name.is_empty() {
        true => member.address.clone(),
        false => format!("{} at {}", member.name, member.address),
    }
}
