//! The network between simulated members: calls take time, are lost, come twice or late; links are
//! cut or held, members are gone.
//!
//! It implements the seam that the real transport implements, and asks the real transport's rules
//! who may speak with whom (`baton::cluster`). Delays are drawn from the seed; a call is carried
//! out by the member that is called, and dies with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use baton::cluster::hello::{Cause, Expected, Hello, Refusal};
use baton::cluster::lives::{Life, Seen, judge};
use baton_actors::raft::transport::{CallError, Caller, Class, Serve, Transport};
use baton_messages::types::{Hash, Member};
use bytes::Bytes;
use futures::future::BoxFuture;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sha2::{Digest, Sha256};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

/// The newest life of each storage that a member has met.
pub type SeenLives = Arc<Mutex<Seen>>;

/// How the network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weather {
    /// The shortest way of a message, milliseconds.
    pub min_ms: u64,
    /// The longest usual way.
    pub max_ms: u64,
    /// Messages in a thousand that are lost.
    pub lost: u64,
    /// Requests in a thousand that come twice.
    pub twice: u64,
    /// Messages in a thousand that take far longer: sixteen milliseconds in the median, four
    /// seconds at the most, log-normal. Others overtake them.
    pub late: u64,
}

impl Default for Weather {
    fn default() -> Self {
        Self { min_ms: 0, max_ms: 2, lost: 0, twice: 0, late: 0 }
    }
}

#[derive(Clone)]
struct Envelope {
    due: Instant,
    caller: Arc<Hello>,
    /// What the caller knows of other lives.
    seen: SeenLives,
    /// Whom the caller means.
    name: String,
    storage: Uuid,
    class: Class,
    request: Bytes,
}

/// A request on its way, and where its answer goes; who sent a copy hears no answer.
type Sent = (Envelope, Option<oneshot::Sender<Answer>>);
/// What comes back: who answered, and what.
type Answer = Result<(Arc<Hello>, Bytes), CallError>;

struct Inner {
    random: StdRng,
    weather: Weather,
    /// Who listens, by address.
    inboxes: BTreeMap<String, mpsc::UnboundedSender<Sent>>,
    /// Links on which nothing arrives: from, to.
    cuts: BTreeSet<(String, String)>,
    /// Links on which everything waits, and what does.
    held: BTreeMap<(String, String), Vec<Sent>>,
    calls: BTreeMap<&'static str, u64>,
    refused: BTreeMap<&'static str, u64>,
    trace: Sha256,
    traced: u64,
    runs: u64,
}

/// The network. Clones are the same.
#[derive(Clone)]
pub struct Net {
    inner: Arc<Mutex<Inner>>,
    released: Arc<Notify>,
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Net").field("cuts", &self.lock().cuts).finish_non_exhaustive()
    }
}

impl Net {
    /// A network whose chance comes from a seed.
    #[must_use]
    pub fn new(seed: u64, weather: Weather) -> Self {
        let inner = Inner {
            random: StdRng::seed_from_u64(seed ^ 0x6e65_7400),
            weather,
            inboxes: BTreeMap::new(),
            cuts: BTreeSet::new(),
            held: BTreeMap::new(),
            calls: BTreeMap::new(),
            refused: BTreeMap::new(),
            trace: Sha256::new(),
            traced: 0,
            runs: 0,
        };
        Self { inner: Arc::new(Mutex::new(inner)), released: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the weather.
    pub fn set_weather(&self, weather: Weather) {
        self.lock().weather = weather;
    }

    /// From now on nothing arrives from one at the other.
    pub fn cut_one_way(&self, from: &str, to: &str) {
        self.lock().cuts.insert((from.to_owned(), to.to_owned()));
    }

    /// From now on nothing arrives between the two.
    pub fn cut(&self, a: &str, b: &str) {
        self.cut_one_way(a, b);
        self.cut_one_way(b, a);
    }

    /// One link works again, if it was cut.
    pub fn join(&self, from: &str, to: &str) {
        self.lock().cuts.remove(&(from.to_owned(), to.to_owned()));
    }

    /// From now on everything from one to the other waits.
    pub fn hold(&self, from: &str, to: &str) {
        self.lock().held.entry((from.to_owned(), to.to_owned())).or_default();
    }

    /// What waits on a link arrives, and what follows does not wait.
    pub fn release(&self, from: &str, to: &str) {
        self.lock().release(&(from.to_owned(), to.to_owned()));
        self.released.notify_waiters();
    }

    /// Every link works again.
    pub fn heal(&self) {
        let mut inner = self.lock();
        inner.cuts.clear();
        let held: Vec<(String, String)> = inner.held.keys().cloned().collect();
        for link in held {
            inner.release(&link);
        }
        drop(inner);
        self.released.notify_waiters();
    }

    /// A member is gone: who calls it is refused.
    pub fn gone(&self, address: &str) {
        self.lock().inboxes.remove(address);
    }

    /// How many calls of each kind were delivered.
    #[must_use]
    pub fn calls(&self) -> BTreeMap<&'static str, u64> {
        self.lock().calls.clone()
    }

    /// How many calls were refused because of who called, or who answered, by the cause.
    #[must_use]
    pub fn refused(&self, cause: Cause) -> u64 {
        self.lock().refused.get(cause.name()).copied().unwrap_or_default()
    }

    /// A digest over everything that was ever sent, in order, and how much that was.
    #[must_use]
    pub fn trace(&self) -> (Hash, u64) {
        let inner = self.lock();
        (Hash(inner.trace.clone().finalize().into()), inner.traced)
    }

    /// Puts something that was seen into the digest.
    pub(crate) fn note(&self, bytes: &[u8]) {
        self.lock().trace.update(bytes);
    }

    /// Puts a member onto the network. Must be called among its tasks; `boot` is its life, `seen`
    /// the lives of others that it knows of.
    #[must_use]
    pub fn attach(
        &self,
        member: &Member,
        chain: (&str, Hash),
        boot: u64,
        seen: SeenLives,
    ) -> Arc<dyn Transport> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let run = {
            let mut inner = self.lock();
            inner.inboxes.insert(member.address.clone(), sender);
            inner.runs += 1;
            Uuid::from_u64_pair(0, inner.runs)
        };
        let hello = Hello {
            chain_id: chain.0.to_owned(),
            genesis: chain.1,
            cluster: None,
            name: member.name.clone(),
            storage: member.storage,
            boot,
            run,
            class: 0,
        };
        let own = Arc::new(Mutex::new(Arc::new(hello)));
        let line = Line {
            net: self.clone(),
            own,
            address: member.address.as_str().into(),
            seen,
            serve: Arc::default(),
        };
        tokio::task::spawn_local(line.clone().listen(receiver));
        Arc::new(line)
    }
}

impl Inner {
    fn note(&mut self, from: &str, to: &str, class: Class, bytes: &[u8]) {
        self.trace.update(from);
        self.trace.update(to);
        self.trace.update([class as u8]);
        self.trace.update(bytes);
        self.traced += 1;
        *self.calls.entry(class.name()).or_default() += 1;
    }

    fn is_cut(&self, from: &str, to: &str) -> bool {
        !self.cuts.is_empty() && self.cuts.contains(&(from.to_owned(), to.to_owned()))
    }

    fn is_held(&self, from: &str, to: &str) -> bool {
        !self.held.is_empty() && self.held.contains_key(&(from.to_owned(), to.to_owned()))
    }

    /// How long a message takes; `None`: it never arrives.
    fn way(&mut self, from: &str, to: &str) -> Option<Duration> {
        let Weather { min_ms, max_ms, lost, late, .. } = self.weather;
        let drawn = self.random.next_u64();
        if self.is_cut(from, to) || drawn % 1000 < lost {
            return None;
        }
        if late > 0 && self.random.next_u64() % 1000 < late {
            // Sixteen coins: the exponent is as good as normally distributed.
            let exponent = (self.random.next_u64() & 0xffff).count_ones();
            return Some(Duration::from_millis(((1 << exponent) >> 4).max(min_ms)));
        }
        let spread = max_ms.saturating_sub(min_ms) + 1;
        Some(Duration::from_millis(min_ms + (drawn >> 32) % spread))
    }

    fn comes_twice(&mut self) -> bool {
        let twice = self.weather.twice;
        twice > 0 && self.random.next_u64() % 1000 < twice
    }

    /// `false`: nobody listens there.
    fn send(&mut self, from: &str, to: &str, sent: Sent) -> bool {
        if self.is_held(from, to) {
            self.held.entry((from.to_owned(), to.to_owned())).or_default().push(sent);
            return true;
        }
        self.inboxes.get(to).is_some_and(|inbox| inbox.send(sent).is_ok())
    }

    fn release(&mut self, link: &(String, String)) {
        for sent in self.held.remove(link).unwrap_or_default() {
            // Whoever was meant may be gone.
            let _ = self.inboxes.get(&link.1).map(|inbox| inbox.send(sent));
        }
    }
}

/// One member's end of the network.
#[derive(Clone)]
struct Line {
    net: Net,
    own: Arc<Mutex<Arc<Hello>>>,
    address: Arc<str>,
    seen: SeenLives,
    serve: Arc<Mutex<Option<Serve>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A member may speak with another one: the checks of the real transport.
fn admit(expected: &Expected<'_>, peer: &Hello, seen: &SeenLives) -> Result<(), Refusal> {
    expected.check(peer)?;
    let mut seen: MutexGuard<'_, Seen> = locked(seen);
    if judge(&seen, peer)? {
        seen.insert(peer.storage, Life { boot: peer.boot, run: peer.run });
    }
    Ok(())
}

impl Line {
    fn own(&self) -> Arc<Hello> {
        locked(&self.own).clone()
    }

    fn refused(&self, refusal: Refusal) -> CallError {
        *self.net.lock().refused.entry(refusal.cause.name()).or_default() += 1;
        CallError::Refused(refusal.reason)
    }

    async fn listen(self, mut inbox: mpsc::UnboundedReceiver<Sent>) {
        while let Some(sent) = inbox.recv().await {
            tokio::task::spawn_local(self.clone().take(sent));
        }
    }

    async fn take(self, (envelope, reply): Sent) {
        let Envelope { due, caller, seen, name, storage, class, request } = envelope;
        tokio::time::sleep_until(due).await;
        let own = self.own();
        // Both ends look before anything is asked.
        let (theirs, ours) = (
            Expected { own: &caller, certified: None, name: &name, storage },
            Expected { own: &own, certified: None, name: "", storage: Uuid::nil() },
        );
        let admitted = admit(&theirs, &own, &seen).and_then(|()| admit(&ours, &caller, &self.seen));
        let answer = match admitted {
            Err(refusal) => Err(self.refused(refusal)),
            Ok(()) => {
                let serve = locked(&self.serve).clone();
                match serve {
                    None => Err(CallError::Unreachable("nobody serves there".to_owned())),
                    Some(serve) => match serve(caller.caller(), class, request).await {
                        Ok(answer) => Ok((own, answer)),
                        Err(reason) => Err(CallError::Denied(reason)),
                    },
                }
            }
        };
        if let Some(reply) = reply {
            // Who asked may have given up.
            let _ = reply.send(answer);
        }
    }

    async fn called(self, to: Member, class: Class, request: Bytes) -> Result<(Caller, Bytes), CallError> {
        let own = self.own();
        let (reply, answered) = oneshot::channel();
        let refused = {
            let mut inner = self.net.lock();
            inner.note(&self.address, &to.address, class, &request);
            let way = inner.way(&self.address, &to.address);
            match way {
                None => {
                    drop(reply);
                    None
                }
                Some(delay) => {
                    let due = Instant::now() + delay;
                    let Member { name, storage, .. } = to.clone();
                    let (caller, seen) = (own, self.seen.clone());
                    let envelope = Envelope { due, caller, seen, name, storage, class, request };
                    if inner.comes_twice()
                        && let Some(delay) = inner.way(&self.address, &to.address)
                    {
                        let copy = Envelope { due: Instant::now() + delay, ..envelope.clone() };
                        inner.send(&self.address, &to.address, (copy, None));
                    }
                    let sent = inner.send(&self.address, &to.address, (envelope, Some(reply)));
                    (!sent).then_some(delay)
                }
            }
        };
        if let Some(delay) = refused {
            tokio::time::sleep(delay).await;
            return Err(CallError::Unreachable("connection refused".to_owned()));
        }
        let answer = match answered.await {
            Ok(answer) => answer,
            // Never delivered: nothing is heard of it.
            Err(_) => {
                let reset = {
                    let inner = self.net.lock();
                    !inner.is_cut(&self.address, &to.address) && !inner.inboxes.contains_key(&to.address)
                };
                match reset {
                    true => Err(CallError::Unreachable("connection reset".to_owned())),
                    false => std::future::pending().await,
                }
            }
        };
        loop {
            let released = self.net.released.notified();
            if !self.net.lock().is_held(&to.address, &self.address) {
                break;
            }
            released.await;
        }
        let way = self.net.lock().way(&to.address, &self.address);
        match way {
            Some(delay) => tokio::time::sleep(delay).await,
            None => std::future::pending().await,
        }
        answer.map(|(peer, answer)| (peer.caller(), answer))
    }
}

impl Transport for Line {
    fn call(
        &self,
        to: Member,
        class: Class,
        request: Bytes,
        within: Duration,
    ) -> BoxFuture<'static, Result<(Caller, Bytes), CallError>> {
        let called = self.clone().called(to, class, request);
        Box::pin(async move {
            tokio::time::timeout(within, called).await.unwrap_or(Err(CallError::TimedOut(within)))
        })
    }

    fn serve(&self, serve: Option<Serve>) {
        *locked(&self.serve) = serve;
    }

    fn belongs_to(&self, cluster: Uuid) {
        let mut own = locked(&self.own);
        *own = Arc::new(Hello { cluster: Some(cluster), ..(**own).clone() });
    }

    fn limit(&self, class: Class) -> usize {
        match class {
            Class::Urgent => 64 << 10,
            Class::Append | Class::Bulk => 4 << 20,
        }
    }
}
