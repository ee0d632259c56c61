//! The network between simulated members: calls take time, links are cut, members are gone.
//!
//! It implements the seam that the real transport implements. Delays are drawn from the seed; a
//! call is carried out on the runtime of the member that is called, and dies with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use baton_actors::raft::transport::{CallError, Caller, Class, Serve, Transport};
use baton_messages::types::{Hash, Member, MemberId};
use bytes::Bytes;
use futures::future::BoxFuture;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

/// How the network is.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// The shortest way of a message, milliseconds.
    pub min_ms: u64,
    /// The longest.
    pub max_ms: u64,
    /// Messages in a thousand that are lost.
    pub lost: u64,
}

impl Default for Weather {
    fn default() -> Self {
        Self { min_ms: 0, max_ms: 2, lost: 0 }
    }
}

struct Envelope {
    delay: Duration,
    caller: Caller,
    /// Whom the caller means; nil: anybody.
    wanted: Uuid,
    chain: Hash,
    class: Class,
    request: Bytes,
    reply: oneshot::Sender<Result<(Caller, Bytes), CallError>>,
}

struct Inner {
    random: StdRng,
    weather: Weather,
    /// Who listens, by address.
    inboxes: BTreeMap<String, mpsc::UnboundedSender<Envelope>>,
    /// Links on which nothing arrives: from, to.
    cuts: BTreeSet<(String, String)>,
    calls: BTreeMap<&'static str, u64>,
    trace: Hash,
    traced: u64,
}

/// The network. Clones are the same.
#[derive(Clone)]
pub struct Net(Arc<Mutex<Inner>>);

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Net").field("cuts", &self.lock().cuts).finish_non_exhaustive()
    }
}

impl Net {
    /// A network whose chance comes from a seed.
    #[must_use]
    pub fn new(seed: u64, weather: Weather) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            random: StdRng::seed_from_u64(seed ^ 0x6e65_7400),
            weather,
            inboxes: BTreeMap::new(),
            cuts: BTreeSet::new(),
            calls: BTreeMap::new(),
            trace: Hash::default(),
            traced: 0,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Every link works again.
    pub fn heal(&self) {
        self.lock().cuts.clear();
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

    /// A digest over everything that was ever sent, in order, and how much that was.
    #[must_use]
    pub fn trace(&self) -> (Hash, u64) {
        let inner = self.lock();
        (inner.trace, inner.traced)
    }

    /// Puts a member onto the network. Must be called in its runtime; `boot` is its life.
    #[must_use]
    pub fn attach(&self, member: &Member, chain: Hash, boot: u64) -> Arc<dyn Transport> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.lock().inboxes.insert(member.address.clone(), sender);
        let own = Own {
            caller: Caller {
                id: MemberId::of(member.storage),
                name: member.name.clone(),
                storage: member.storage,
                boot,
                cluster: None,
            },
            address: member.address.clone(),
            chain,
        };
        let line = Line { net: self.clone(), own: Arc::new(Mutex::new(own)), serve: Arc::default() };
        tokio::task::spawn_local(line.clone().listen(receiver));
        Arc::new(line)
    }
}

impl Inner {
    fn note(&mut self, from: &str, to: &str, class: Class, bytes: &[u8]) {
        let mut all = self.trace.0.to_vec();
        all.extend_from_slice(from.as_bytes());
        all.extend_from_slice(to.as_bytes());
        all.push(class as u8);
        all.extend_from_slice(bytes);
        self.trace = Hash::of(&all);
        self.traced += 1;
        *self.calls.entry(class.name()).or_default() += 1;
    }

    /// How long a message takes; `None`: it never arrives.
    fn way(&mut self, from: &str, to: &str) -> Option<Duration> {
        let Weather { min_ms, max_ms, lost } = self.weather;
        let drawn = self.random.next_u64();
        if self.cuts.contains(&(from.to_owned(), to.to_owned())) || drawn % 1000 < lost {
            return None;
        }
        let spread = max_ms.saturating_sub(min_ms) + 1;
        Some(Duration::from_millis(min_ms + (drawn >> 32) % spread))
    }
}

struct Own {
    caller: Caller,
    address: String,
    chain: Hash,
}

/// One member's end of the network.
#[derive(Clone)]
struct Line {
    net: Net,
    own: Arc<Mutex<Own>>,
    serve: Arc<Mutex<Option<Serve>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Line {
    async fn listen(self, mut inbox: mpsc::UnboundedReceiver<Envelope>) {
        while let Some(envelope) = inbox.recv().await {
            tokio::task::spawn_local(self.clone().take(envelope));
        }
    }

    async fn take(self, envelope: Envelope) {
        let Envelope { delay, caller, wanted, chain, class, request, reply } = envelope;
        tokio::time::sleep(delay).await;
        let (own, own_chain) = {
            let own = locked(&self.own);
            (own.caller.clone(), own.chain)
        };
        let answer = match handshake(&own, own_chain, &caller, chain, wanted) {
            Err(reason) => Err(CallError::Refused(reason)),
            Ok(()) => {
                let serve = locked(&self.serve).clone();
                match serve {
                    None => Err(CallError::Unreachable("nobody serves there".to_owned())),
                    Some(serve) => match serve(caller, class, request).await {
                        Ok(answer) => Ok((own, answer)),
                        Err(reason) => Err(CallError::Denied(reason)),
                    },
                }
            }
        };
        // Who asked may have given up.
        let _ = reply.send(answer);
    }
}

fn handshake(
    own: &Caller,
    own_chain: Hash,
    caller: &Caller,
    chain: Hash,
    wanted: Uuid,
) -> Result<(), String> {
    if own_chain != chain {
        return Err("another chain".to_owned());
    }
    if !wanted.is_nil() && wanted != own.storage {
        return Err(format!("the storage there is {}, not {wanted}", own.storage));
    }
    match (own.cluster, caller.cluster) {
        (Some(here), Some(theirs)) if here != theirs => Err("another cluster".to_owned()),
        _ => Ok(()),
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
        let (net, own) = (self.net.clone(), self.own.clone());
        Box::pin(async move {
            let (caller, from, chain) = {
                let own = locked(&own);
                (own.caller.clone(), own.address.clone(), own.chain)
            };
            let called = async {
                let (reply, answered) = oneshot::channel();
                let refused = {
                    let mut inner = net.lock();
                    inner.note(&from, &to.address, class, &request);
                    match (inner.way(&from, &to.address), inner.inboxes.get(&to.address)) {
                        (None, _) => None,
                        (Some(delay), None) => Some(delay),
                        (Some(delay), Some(inbox)) => {
                            let wanted = to.storage;
                            let envelope = Envelope { delay, caller, wanted, chain, class, request, reply };
                            inbox.send(envelope).is_err().then_some(delay)
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
                    Err(_) if net.lock().cuts.contains(&(from.clone(), to.address.clone())) => {
                        std::future::pending().await
                    }
                    Err(_) if net.lock().inboxes.contains_key(&to.address) => std::future::pending().await,
                    Err(_) => Err(CallError::Unreachable("connection reset".to_owned())),
                };
                let way = net.lock().way(&to.address, &from);
                match way {
                    Some(delay) => tokio::time::sleep(delay).await,
                    None => std::future::pending().await,
                }
                answer
            };
            tokio::time::timeout(within, called).await.unwrap_or(Err(CallError::TimedOut(within)))
        })
    }

    fn serve(&self, serve: Option<Serve>) {
        *locked(&self.serve) = serve;
    }

    fn belongs_to(&self, cluster: Uuid) {
        locked(&self.own).caller.cluster = Some(cluster);
    }

    fn limit(&self, class: Class) -> usize {
        match class {
            Class::Urgent => 64 << 10,
            Class::Append | Class::Bulk => 4 << 20,
        }
    }
}
