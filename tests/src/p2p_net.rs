//! A peer-to-peer network in virtual time, behind the same seam as the swarm: nodes of real actors
//! and scripted peers, seeded delays, messages that get lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use baton_actors::p2p::network::{AskFailure, AskId, Command, Event, Network, Overloaded, Token};
use baton_actors::p2p::{self, Parts};
use baton_messages::chain::Signer;
use baton_messages::p2p::{PeerId, Verdict};
use baton_messages::wire::exchange::{HeaderRequest, HeaderResponse};
use baton_messages::wire::p2p::Service;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::mpsc;
use tokio::time::sleep;

/// What a scripted peer does with a question: after how long it answers what; `None` never does.
pub type Script = Box<
    dyn FnMut(Service, &HeaderRequest) -> Option<(Duration, Result<Vec<HeaderResponse>, AskFailure>)> + Send,
>;

enum Peer {
    Node(mpsc::Sender<Event>),
    Scripted(Script),
}

struct State {
    chance: StdRng,
    peers: BTreeMap<PeerId, Peer>,
    links: BTreeSet<(PeerId, PeerId)>,
    /// Nobody reaches them, and they reach nobody.
    away: BTreeSet<PeerId>,
    /// What waits for the word of a node: who published and who forwarded it, and the message.
    gossip: BTreeMap<Token, (PeerId, PeerId, Service, Bytes)>,
    /// Who asked whom what under which name.
    asked: BTreeMap<Token, (PeerId, AskId, PeerId)>,
    tokens: u64,
    loss: f64,
    delay: (Duration, Duration),
    published: Vec<(PeerId, Service, Bytes)>,
    verdicts: Vec<(PeerId, Service, Verdict)>,
    bans: Vec<(PeerId, PeerId)>,
    dialled: Vec<(PeerId, PeerId)>,
}

/// The network. Clones are the same.
#[derive(Clone)]
pub struct P2pNet(Arc<Mutex<State>>);

impl std::fmt::Debug for P2pNet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("P2pNet").finish_non_exhaustive()
    }
}

/// A node's place in the network.
#[derive(Clone, Debug)]
pub struct Peering {
    /// The network.
    pub net: P2pNet,
    /// Its name there.
    pub id: String,
    /// Whom it dials.
    pub dials: Vec<String>,
}

impl Peering {
    /// How its peer-to-peer actor behaves on a chain with this signer.
    #[must_use]
    pub fn config(&self, signer: Signer) -> p2p::Config {
        let seed = |id: &String| (PeerId::from(id.as_str()), format!("/memory/{id}"));
        let seeds = self.dials.iter().map(seed).collect();
        p2p::Config { seeds, ..p2p::Config::new(PeerId::from(self.id.as_str()), signer) }
    }

    /// Joins; in the `LocalSet` of the node.
    #[must_use]
    pub fn join(&self) -> Parts {
        self.net.join(&self.id)
    }
}

/// A node's end of the network.
struct End(mpsc::UnboundedSender<Command>);

impl Network for End {
    fn tell(&mut self, command: Command) -> Result<(), Overloaded> {
        self.0.send(command).map_err(|_| Overloaded)
    }
}

impl P2pNet {
    /// A network without anybody; its chance comes from the seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            chance: StdRng::seed_from_u64(seed),
            peers: BTreeMap::new(),
            links: BTreeSet::new(),
            away: BTreeSet::new(),
            gossip: BTreeMap::new(),
            asked: BTreeMap::new(),
            tokens: 0,
            loss: 0.0,
            delay: (Duration::from_millis(1), Duration::from_millis(20)),
            published: vec![],
            verdicts: vec![],
            bans: vec![],
            dialled: vec![],
        })))
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Loses so large a share of gossiped messages on every link.
    pub fn lose(&self, share: f64) {
        self.with(|state| state.loss = share);
    }

    /// A node joins; it is connected to nobody yet. Call it in a `LocalSet`.
    #[must_use]
    pub fn join(&self, id: &str) -> Parts {
        let (event, events) = mpsc::channel(1024);
        let (command, mut commands) = mpsc::unbounded_channel();
        let (id, net) = (PeerId::from(id), self.clone());
        self.with(|state| state.peers.insert(id.clone(), Peer::Node(event)));
        tokio::task::spawn_local(async move {
            while let Some(command) = commands.recv().await {
                net.obey(&id, command);
            }
        });
        Parts { network: Box::new(End(command)), events }
    }

    /// A scripted peer joins.
    pub fn script(
        &self,
        id: &str,
        script: impl FnMut(Service, &HeaderRequest) -> Option<(Duration, Result<Vec<HeaderResponse>, AskFailure>)>
        + Send
        + 'static,
    ) {
        self.with(|state| state.peers.insert(PeerId::from(id), Peer::Scripted(Box::new(script))));
    }

    /// A node or a scripted peer is gone, with all its connections and what it was asked.
    pub fn leave(&self, id: &str) {
        let id = PeerId::from(id);
        let linked = self.with(|state| {
            state.peers.remove(&id);
            state.gossip.retain(|_, (_, from, ..)| *from != id);
            state.bans.retain(|(by, _)| *by != id);
            let others = state.links.iter().filter(|(from, _)| *from == id).map(|(_, to)| to.clone());
            others.collect::<Vec<_>>()
        });
        for other in linked {
            self.cut(&id, &other);
        }
    }

    /// Cuts one from everybody, until it is said otherwise; dialling is in vain meanwhile.
    pub fn set_away(&self, id: &str, away: bool) {
        let id = PeerId::from(id);
        let linked = self.with(|state| {
            match away {
                true => state.away.insert(id.clone()),
                false => state.away.remove(&id),
            };
            let others = state.links.iter().filter(|(from, _)| *from == id).map(|(_, to)| to.clone());
            if away { others.collect::<Vec<_>>() } else { vec![] }
        });
        for other in linked {
            self.cut(&id, &other);
        }
    }

    /// Connects two; both serve the chain and listen to its gossip.
    pub fn connect(&self, one: &str, other: &str) {
        let (one, other) = (PeerId::from(one), PeerId::from(other));
        self.with(|state| {
            state.links.insert((one.clone(), other.clone()));
            state.links.insert((other.clone(), one.clone()));
        });
        for (to, peer, outbound) in [(&one, &other, true), (&other, &one, false)] {
            let address = format!("/memory/{peer}");
            self.tell(to, Event::Connected { peer: peer.clone(), address, outbound });
            let identified = Event::Identified {
                peer: peer.clone(),
                agent: "sim".to_owned(),
                addresses: vec![],
                serves: true,
            };
            self.tell(to, identified);
            for service in [Service::Headers, Service::Data] {
                self.tell(to, Event::Subscribed { peer: peer.clone(), service, on: true });
            }
        }
    }

    /// Whether two are connected.
    #[must_use]
    pub fn are_connected(&self, one: &str, other: &str) -> bool {
        self.with(|state| state.links.contains(&(PeerId::from(one), PeerId::from(other))))
    }

    /// Cuts two from each other.
    pub fn disconnect(&self, one: &str, other: &str) {
        self.cut(&PeerId::from(one), &PeerId::from(other));
    }

    fn cut(&self, one: &PeerId, other: &PeerId) {
        let linked = self.with(|state| {
            state.links.remove(&(one.clone(), other.clone()))
                | state.links.remove(&(other.clone(), one.clone()))
        });
        if !linked {
            return;
        }
        // Who waits for an answer of the other one learns that none comes.
        let unanswered = self.with(|state| {
            let between = |asker: &PeerId, asked: &PeerId| {
                (asker == one && asked == other) || (asker == other && asked == one)
            };
            let open = state.asked.iter().filter(|(_, (asker, _, asked))| between(asker, asked));
            let open: Vec<_> = open.map(|(token, (asker, id, _))| (*token, asker.clone(), *id)).collect();
            for (token, ..) in &open {
                state.asked.remove(token);
            }
            open
        });
        for (_, asker, id) in unanswered {
            let (outcome, took) = (Err(AskFailure::Closed), Duration::ZERO);
            self.tell(&asker, Event::Answered { id, outcome, took });
        }
        self.tell(one, Event::Disconnected(other.clone()));
        self.tell(other, Event::Disconnected(one.clone()));
    }

    /// A scripted peer gossips to a node.
    pub fn gossip(&self, from: &str, to: &str, service: Service, data: impl Into<Bytes>) {
        self.relay(from, from, to, service, data);
    }

    /// A scripted peer forwards to a node what somebody has published.
    pub fn relay(&self, publisher: &str, from: &str, to: &str, service: Service, data: impl Into<Bytes>) {
        let (publisher, from, to) = (PeerId::from(publisher), PeerId::from(from), PeerId::from(to));
        self.carry(&publisher, &from, &to, service, data.into());
    }

    /// A node asks a node, or a scripted peer does.
    pub fn ask(&self, from: &str, to: &str, service: Service, request: HeaderRequest) {
        self.question(&PeerId::from(from), AskId(0), &PeerId::from(to), service, &request);
    }

    /// Takes what nodes have published, in order.
    #[must_use]
    pub fn published(&self) -> Vec<(PeerId, Service, Bytes)> {
        self.with(|state| std::mem::take(&mut state.published))
    }

    /// Takes what nodes have said about gossip: whose message, of which service, what became of it.
    #[must_use]
    pub fn verdicts(&self) -> Vec<(PeerId, Service, Verdict)> {
        self.with(|state| std::mem::take(&mut state.verdicts))
    }

    /// Who banned whom so far.
    #[must_use]
    pub fn bans(&self) -> Vec<(PeerId, PeerId)> {
        self.with(|state| state.bans.clone())
    }

    /// Who dialled whom so far.
    #[must_use]
    pub fn dialled(&self) -> Vec<(PeerId, PeerId)> {
        self.with(|state| state.dialled.clone())
    }

    fn tell(&self, to: &PeerId, event: Event) {
        let node = self.with(|state| match state.peers.get(to) {
            Some(Peer::Node(node)) => Some(node.clone()),
            _ => None,
        });
        // A node that is gone hears nothing; one that is behind loses events as from a busy swarm.
        if let Some(node) = node {
            let _ = node.try_send(event);
        }
    }

    fn after(&self, delay: Duration, act: impl FnOnce(&Self) + 'static) {
        let net = self.clone();
        tokio::task::spawn_local(async move {
            sleep(delay).await;
            act(&net);
        });
    }

    fn delay(&self) -> Duration {
        self.with(|state| {
            let (from, to) = state.delay;
            state.chance.random_range(from..=to)
        })
    }

    fn token(&self) -> Token {
        self.with(|state| {
            state.tokens += 1;
            Token(state.tokens)
        })
    }

    fn carry(&self, publisher: &PeerId, from: &PeerId, to: &PeerId, service: Service, data: Bytes) {
        let lost = self.with(|state| state.loss > 0.0 && state.chance.random_bool(state.loss));
        if lost || !self.with(|state| state.links.contains(&(from.clone(), to.clone()))) {
            return;
        }
        let (from, to, delay) = (from.clone(), to.clone(), self.delay());
        let publisher = publisher.clone();
        self.after(delay, move |net| {
            let token = net.token();
            let kept = (publisher.clone(), from.clone(), service, data.clone());
            net.with(|state| state.gossip.insert(token, kept));
            net.tell(&to, Event::Gossip { token, peer: from, publisher, service, data });
        });
    }

    fn neighbours(&self, of: &PeerId) -> Vec<PeerId> {
        self.with(|state| {
            state.links.iter().filter(|(from, _)| from == of).map(|(_, to)| to.clone()).collect()
        })
    }

    fn obey(&self, node: &PeerId, command: Command) {
        match command {
            Command::Publish(messages) => {
                for (service, data) in messages {
                    self.with(|state| state.published.push((node.clone(), service, data.clone())));
                    for peer in self.neighbours(node) {
                        self.carry(node, node, &peer, service, data.clone());
                    }
                }
            }
            Command::Judge { token, verdict } => {
                let Some((publisher, from, service, data)) = self.with(|state| state.gossip.remove(&token))
                else {
                    return;
                };
                self.with(|state| state.verdicts.push((from.clone(), service, verdict)));
                if verdict == Verdict::Accept {
                    for peer in self.neighbours(node).into_iter().filter(|peer| *peer != from) {
                        self.carry(&publisher, node, &peer, service, data.clone());
                    }
                }
            }
            Command::Ask { id, peer, service, request } => self.question(node, id, &peer, service, &request),
            Command::Answer { token, answer } => {
                let Some((to, id, _)) = self.with(|state| state.asked.remove(&token)) else { return };
                let outcome = answer.ok_or(AskFailure::Closed);
                let delay = self.delay();
                self.after(delay, move |net| net.tell(&to, Event::Answered { id, outcome, took: delay }));
            }
            Command::Dial { peer, .. } => {
                self.with(|state| state.dialled.push((node.clone(), peer.clone())));
                let there = self.with(|state| {
                    let away = state.away.contains(&peer) || state.away.contains(node);
                    state.peers.contains_key(&peer) && !away
                });
                let banned = self.with(|state| state.bans.contains(&(peer.clone(), node.clone())));
                match there && !banned {
                    true => self.connect(&node.0, &peer.0),
                    false => self.tell(node, Event::DialFailed { peer, reason: "nobody there".to_owned() }),
                }
            }
            Command::Ban(peer) => {
                self.with(|state| state.bans.push((node.clone(), peer.clone())));
                self.cut(node, &peer);
            }
            Command::Unban(peer) => {
                self.with(|state| state.bans.retain(|ban| *ban != (node.clone(), peer.clone())));
            }
            Command::Discover => {}
        }
    }

    fn question(&self, from: &PeerId, id: AskId, to: &PeerId, service: Service, request: &HeaderRequest) {
        let linked = self.with(|state| state.links.contains(&(from.clone(), to.clone())));
        if !linked {
            let (outcome, took) = (Err(AskFailure::Closed), Duration::ZERO);
            return self.tell(from, Event::Answered { id, outcome, took });
        }
        // The script runs without the lock: it may look at the network.
        let scripted = self.with(|state| match state.peers.remove(to) {
            Some(Peer::Scripted(script)) => Some(script),
            Some(node) => {
                state.peers.insert(to.clone(), node);
                None
            }
            None => None,
        });
        if let Some(mut script) = scripted {
            let answer = script(service, request);
            self.with(|state| state.peers.insert(to.clone(), Peer::Scripted(script)));
            if let Some((took, outcome)) = answer {
                let from = from.clone();
                self.after(took, move |net| net.tell(&from, Event::Answered { id, outcome, took }));
            }
            return;
        }
        let token = self.token();
        self.with(|state| state.asked.insert(token, (from.clone(), id, to.clone())));
        let (from, to, request, delay) = (from.clone(), to.clone(), request.clone(), self.delay());
        self.after(delay, move |net| net.tell(&to, Event::Asked { token, peer: from, service, request }));
    }
}
