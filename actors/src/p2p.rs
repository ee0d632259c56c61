//! The peer-to-peer actor: gossip and exchange of headers and data with nodes that are no members.
//!
//! It tells the network what this node made, judges what peers tell (or lets the syncer judge),
//! fetches ranges from several peers at once, serves the history, and keeps the book of peers.
//! Bytes and connections are the network adapter's, behind [`network::Network`].

pub mod answers;
pub mod dialling;
mod fetching;
mod handlers;
pub mod intake;
pub mod judge;
pub mod library;
pub mod metrics;
pub mod network;
pub mod peers;
pub mod range;
mod telling;

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::time::Duration;

use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, MailboxError, Recipient, StreamHandler, WrapFuture,
};
use baton_messages::chain::Signer;
use baton_messages::p2p::{Gossiped, Item, MAX_JUDGED, MeetMembers, NetView, PeerChanged, PeerId, Verdict};
use baton_messages::types::Term;
use baton_messages::wire::exchange::HeaderRequest;
use baton_messages::wire::p2p::{MAX_PUBSUB_RPC, Service};
use baton_storage::Reader;
use bytes::Bytes;
use futures::stream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use crate::world::World;
use dialling::Dialling;
use fetching::Fetches;
use intake::{Intake, Key, Stopped};
use judge::{Judge, Judgement};
use library::Library;
pub use metrics::Metrics;
use network::{AskId, Command, Event, Network, Token};
use peers::{Consequence, Deed, Peers};
use telling::{ENVELOPE, Telling};

/// How the actor behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node's peer id.
    pub id: PeerId,
    /// Peers that are dialled, each with one of its multiaddrs.
    pub seeds: Vec<(PeerId, String)>,
    /// Peers with which nothing is ever exchanged.
    pub blocked: BTreeSet<PeerId>,
    /// Who signs this chain's headers; with an empty key until one is seen where it is unknown.
    pub signer: Signer,
    /// How peers are treated.
    pub peers: peers::Config,
    /// How ranges are fetched.
    pub range: range::Config,
    /// Requests of other actors that may be on their way.
    pub max_fetches: usize,
    /// Blocks that a new leader tells again.
    pub tail: u64,
    /// How long the syncer may take for a verdict.
    pub judge_within: Duration,
    /// Gossiped items that are remembered, to know copies.
    pub remember: NonZeroUsize,
    /// Others are looked for and dialled while fewer are connected.
    pub wanted_peers: usize,
    /// Time between two searches for others.
    pub discover_every: Duration,
    /// Time between two looks where the other members of the cluster are.
    pub meet_every: Duration,
}

impl Config {
    /// The usual behaviour of a node with this id on a chain with this signer.
    #[must_use]
    pub fn new(id: PeerId, signer: Signer) -> Self {
        Self {
            id,
            seeds: vec![],
            blocked: BTreeSet::new(),
            signer,
            peers: peers::Config::default(),
            range: range::Config::default(),
            max_fetches: 16,
            tail: 16,
            judge_within: Duration::from_secs(5),
            remember: NonZeroUsize::new(16_384).expect("not zero"),
            wanted_peers: 16,
            discover_every: Duration::from_secs(60),
            meet_every: Duration::from_secs(5),
        }
    }
}

/// Everything the actor says, and to whom.
#[derive(Clone, Debug, Default)]
pub struct Links {
    /// Judges what is gossiped; `None` on members, which take blocks from the log only.
    pub gossiped: Option<Recipient<Gossiped>>,
    /// Hear who comes and goes.
    pub peers: Vec<Recipient<PeerChanged>>,
    /// Knows where the other members of the cluster are; `None` on nodes that follow.
    pub members: Option<Recipient<MeetMembers>>,
}

/// What is outside of the actor.
pub struct Parts {
    /// Takes commands.
    pub network: Box<dyn Network>,
    /// What the network tells; bounded by the adapter.
    pub events: mpsc::Receiver<Event>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

/// What data that overtook their header may take in memory together.
const MAX_EARLY: usize = 16 << 20;
/// What items that the syncer judges may take in memory together; one is always let through.
const MAX_JUDGING: usize = 64 << 20;
/// How often what takes too long is looked for.
const TICK: Duration = Duration::from_millis(250);
/// How often scores move towards zero.
const AGE_EVERY: Duration = Duration::from_secs(10);

/// The peer-to-peer actor.
pub struct P2p {
    config: Config,
    links: Links,
    metrics: Metrics,
    world: World,
    network: Box<dyn Network>,
    events: Option<mpsc::Receiver<Event>>,
    peers: Peers,
    dialling: Dialling,
    intake: Intake,
    judge: Judge,
    library: Library,
    telling: Telling,
    fetches: Fetches,
    /// The newest term known.
    term: Term,
    /// Gossiped items that wait for a verdict of the syncer.
    judging: usize,
    /// What they take in memory.
    judging_bytes: usize,
    /// Data that overtook its header, on a member.
    early: Vec<Early>,
    listening: BTreeSet<String>,
    aged: Instant,
    discovered: Option<Instant>,
    met: Option<Instant>,
    /// Forks that were told already, so that gossip cannot fill the log.
    forks: BTreeSet<baton_messages::types::Height>,
}

/// Whom a message came from.
#[derive(Clone)]
struct Sender {
    /// Who handed it to this node.
    forwarder: PeerId,
    /// Who made it, and signed that.
    publisher: PeerId,
}

/// Data that waits for its header.
struct Early {
    token: Token,
    from: Sender,
    item: Item,
    key: Key,
    since: Instant,
}

impl std::fmt::Debug for P2p {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("P2p").field("id", &self.config.id).finish_non_exhaustive()
    }
}

impl P2p {
    /// An actor over this network.
    #[must_use]
    pub fn new(
        config: Config,
        links: Links,
        metrics: Metrics,
        world: World,
        reader: Reader,
        parts: Parts,
    ) -> Self {
        let now = Instant::now();
        Self {
            network: parts.network,
            events: Some(parts.events),
            peers: Peers::new(config.peers.clone()),
            dialling: Dialling::new(&config.seeds, now),
            intake: Intake::new(reader.chain_id(), reader.initial_height(), config.remember),
            judge: Judge::new(reader.clone(), reader.genesis().proposer_address.clone()),
            library: Library::new(reader.clone(), config.signer.clone()),
            telling: Telling::new(reader.clone(), config.tail),
            fetches: Fetches::new(config.range, config.max_fetches, reader.chain_id()),
            term: Term(0),
            judging: 0,
            judging_bytes: 0,
            early: vec![],
            listening: BTreeSet::new(),
            aged: now,
            discovered: None,
            met: None,
            forks: BTreeSet::new(),
            config,
            links,
            metrics,
            world,
        }
    }

    /// Hands a command to the network. What it has no room for is lost, which every protocol
    /// here survives.
    fn tell(&mut self, command: Command) -> bool {
        let told = self.network.tell(command).is_ok();
        if !told {
            self.metrics.overloaded.inc();
        }
        told
    }

    /// Takes a deed into account, and bans who went too far.
    fn note(&mut self, peer: &PeerId, deed: Deed) {
        match self.peers.did(peer, deed, Instant::now()) {
            Consequence::None => {}
            Consequence::Banned(length) => {
                info!(%peer, seconds = length.as_secs(), "banned a peer");
                self.metrics.bans.inc();
                self.tell(Command::Ban(peer.clone()));
            }
        }
        self.metrics.banned.set(gauge(self.peers.banned(Instant::now())));
    }

    /// Keeps connected to the other members of the cluster: what the leader tells gets over them to
    /// whoever is not connected to the leader.
    fn meet_members(&mut self, now: Instant, ctx: &mut Context<Self>) {
        let Some(members) = &self.links.members else { return };
        if self.met.is_some_and(|at| now.duration_since(at) < self.config.meet_every) {
            return;
        }
        // Until something listens there is nothing to tell, and it is asked again soon.
        self.met = (!self.listening.is_empty()).then_some(now);
        let asked = members.send(MeetMembers { own: self.listening.iter().cloned().collect() });
        ctx.spawn(asked.timeout(self.config.meet_every).into_actor(self).map(|answer, this, _| {
            let Ok(addresses) = answer else { return };
            let peers = addresses.into_iter().filter_map(|address| {
                let peer = PeerId::from(address.rsplit_once("/p2p/")?.1);
                let fits = peer != this.config.id && !this.config.blocked.contains(&peer);
                fits.then_some((peer, address))
            });
            let peers: Vec<_> = peers.collect();
            this.dialling.meet(&peers, Instant::now());
            for (peer, _) in peers.iter().filter(|(peer, _)| this.peers.is_connected(peer)) {
                this.dialling.connected(peer);
            }
        }));
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        self.meet_members(now, ctx);
        for (peer, addresses) in self.dialling.due(now) {
            if !self.peers.is_banned(&peer, now) {
                self.tell(Command::Dial { peer, addresses });
            }
        }
        if now.duration_since(self.aged) >= AGE_EVERY {
            self.aged = now;
            for peer in self.peers.age(now) {
                if !self.config.blocked.contains(&peer) {
                    self.tell(Command::Unban(peer));
                }
            }
        }
        let due = self.discovered.is_none_or(|at| now.duration_since(at) >= self.config.discover_every);
        if due && self.peers.len() < self.config.wanted_peers {
            self.discovered = Some(now);
            self.tell(Command::Discover);
        }
        let within = self.config.judge_within;
        self.judge_early(|early| now.duration_since(early.since) >= within);
        self.expire_questions(now);
        self.ask_on();
    }

    fn on_event(&mut self, event: Event, ctx: &mut Context<Self>) {
        match event {
            Event::Listening(address) => {
                info!(%address, "p2p listens");
                self.listening.insert(address);
            }
            Event::NotListening(address) => {
                self.listening.remove(&address);
            }
            Event::Connected { peer, address, outbound } => self.on_connected(peer, address, outbound),
            Event::Disconnected(peer) => self.on_disconnected(peer),
            Event::Identified { peer, agent, addresses, serves } => {
                debug!(%peer, agent, serves, "identified a peer");
                if self.peers.identified(&peer, agent, addresses, serves) {
                    self.peer_changed(peer, true);
                    self.ask_on();
                }
            }
            Event::Subscribed { peer, service, on } => self.peers.subscribed(&peer, service, on),
            Event::DialFailed { peer, reason } => {
                if !self.peers.is_connected(&peer)
                    && let Some(pause) = self.dialling.failed(&peer, Instant::now())
                {
                    // Said once for as long as it lasts.
                    match pause == dialling::FIRST {
                        true => warn!(%peer, reason, "a peer of p2p.peers cannot be reached: trying again"),
                        false => debug!(%peer, reason, pause = pause.as_secs(), "still not reached"),
                    }
                }
            }
            Event::Discovered { peer } => self.on_discovered(peer),
            Event::Gossip { token, peer, publisher, service, data } => {
                let from = Sender { forwarder: peer, publisher };
                self.on_gossip(token, from, service, &data, ctx);
            }
            Event::Asked { token, peer, service, request } => self.on_asked(token, &peer, service, &request),
            Event::Answered { id, outcome, took } => {
                self.on_answered(id, outcome, took);
                self.ask_on();
            }
        }
    }

    fn on_connected(&mut self, peer: PeerId, address: String, outbound: bool) {
        let now = Instant::now();
        if self.config.blocked.contains(&peer) || self.peers.is_banned(&peer, now) {
            self.tell(Command::Ban(peer));
            return;
        }
        self.dialling.connected(&peer);
        if self.peers.connected(&peer, address.clone(), outbound, now) {
            debug!(%peer, address, outbound, "a peer connected");
        }
        self.metrics.peers.set(gauge(self.peers.len()));
    }

    fn on_disconnected(&mut self, peer: PeerId) {
        debug!(%peer, "a peer is gone");
        if self.dialling.failed(&peer, Instant::now()).is_some() {
            info!(%peer, "a configured peer is gone; it is dialled again");
        }
        if self.peers.disconnected(&peer) {
            self.peer_changed(peer, false);
        }
        self.metrics.peers.set(gauge(self.peers.len()));
    }

    fn on_discovered(&mut self, peer: PeerId) {
        let now = Instant::now();
        let unfit = peer == self.config.id
            || self.peers.is_connected(&peer)
            || self.dialling.knows(&peer)
            || self.config.blocked.contains(&peer)
            || self.peers.is_banned(&peer, now);
        if !unfit && self.peers.len() < self.config.wanted_peers {
            self.tell(Command::Dial { peer, addresses: vec![] });
        }
    }

    fn peer_changed(&self, peer: PeerId, connected: bool) {
        let serving = self.peers.serving();
        self.metrics.serving.set(gauge(serving));
        for hears in &self.links.peers {
            hears.do_send(PeerChanged { peer: peer.clone(), connected, serving });
        }
    }

    fn on_gossip(
        &mut self,
        token: Token,
        from: Sender,
        service: Service,
        data: &Bytes,
        ctx: &mut Context<Self>,
    ) {
        let peer = &from.forwarder;
        if !self.peers.may_gossip(peer, Instant::now()) {
            self.metrics.gossiped(service, "flood");
            self.note(peer, Deed::TooMuch);
            self.tell(Command::Judge { token, verdict: Verdict::Ignore });
            return;
        }
        if !self.peers.is_worth_a_look(peer, Instant::now()) {
            self.metrics.gossiped(service, "unseen");
            self.tell(Command::Judge { token, verdict: Verdict::Ignore });
            return;
        }
        if data.len() + ENVELOPE > MAX_PUBSUB_RPC {
            // ev-node's nodes would reset the stream if it were forwarded. Those that publish look
            // at no size, so nobody is to blame.
            debug!(%peer, bytes = data.len(), "a message is too large to be forwarded");
            return self.settle(token, peer, service, Verdict::Ignore);
        }
        let (item, key) = match self.intake.look(service, data, self.world.wall()) {
            Ok(fresh) => fresh,
            Err(stopped) => {
                debug!(%peer, service = metrics::name(service), ?stopped, "a message goes no further");
                return match stopped {
                    Stopped::Refused(_) => self.settle(token, peer, service, Verdict::Reject),
                    Stopped::Copy | Stopped::Early | Stopped::Forged(_) => {
                        self.settle_unseen(token, &from, service, stopped.verdict());
                    }
                };
            }
        };
        if let Item::Header(header) = &item {
            self.library.learn(&header.signed);
        }
        match self.links.gossiped.clone() {
            Some(judge) => self.begin_judging(judge, token, from, item, key, ctx),
            None => {
                let since = Instant::now();
                let came = (item.service() == Service::Headers).then(|| item.height());
                self.judge(Early { token, from, item, key, since });
                if let Some(height) = came {
                    self.judge_early(|early| early.item.height() == height);
                }
            }
        }
    }

    fn begin_judging(
        &mut self,
        judge: Recipient<Gossiped>,
        token: Token,
        from: Sender,
        item: Item,
        key: Key,
        ctx: &mut Context<Self>,
    ) {
        let weight = item.weight();
        if self.judging >= MAX_JUDGED || (self.judging > 0 && self.judging_bytes + weight > MAX_JUDGING) {
            self.intake.settled(key, Verdict::Ignore);
            return self.settle_unseen(token, &from, key.0, Verdict::Ignore);
        }
        self.judging += 1;
        self.judging_bytes += weight;
        self.metrics.judging.set(gauge(self.judging));
        let Sender { forwarder: peer, publisher } = from.clone();
        let verdict = judge.send(Gossiped { peer, publisher, item }).timeout(self.config.judge_within);
        ctx.spawn(verdict.into_actor(self).map(move |verdict, this, _| {
            this.judging_bytes -= weight;
            this.end_judging(token, &from, key, verdict);
        }));
    }

    fn end_judging(&mut self, token: Token, from: &Sender, key: Key, verdict: Result<Verdict, MailboxError>) {
        self.judging -= 1;
        self.metrics.judging.set(gauge(self.judging));
        let verdict = verdict.unwrap_or_else(|error| {
            debug!(%error, "no verdict in time");
            Verdict::Ignore
        });
        self.intake.settled(key, verdict);
        self.settle_unseen(token, from, key.0, verdict);
    }

    /// What ev-node's nodes forward without looking is held against who published it, not against
    /// who forwarded it. Publishers cost nothing, though: what comes that way is bounded.
    fn settle_unseen(&mut self, token: Token, from: &Sender, service: Service, verdict: Verdict) {
        let mut whose = &from.forwarder;
        if verdict == Verdict::Reject {
            self.peers.forwarded_forged(&from.forwarder, Instant::now());
            whose = &from.publisher;
        }
        self.settle(token, whose, service, verdict);
    }

    fn settle(&mut self, token: Token, peer: &PeerId, service: Service, verdict: Verdict) {
        self.metrics.gossiped(service, metrics::verdict(verdict));
        self.note(peer, Deed::Gossiped(verdict));
        self.tell(Command::Judge { token, verdict });
    }

    /// A member judges by its own store. Data may overtake its header, and then waits for it.
    fn judge(&mut self, early: Early) {
        let verdict = match self.judge.judge(&early.item) {
            Ok(Judgement::Verdict(verdict)) => verdict,
            Ok(Judgement::TooEarly) => {
                let held: usize = self.early.iter().map(|early| early.item.weight()).sum();
                let room = self.early.len() < MAX_JUDGED && held + early.item.weight() <= MAX_EARLY;
                if room && early.since.elapsed() < self.config.judge_within {
                    return self.early.push(early);
                }
                Verdict::Ignore
            }
            Ok(Judgement::Fork { height, one, other }) => {
                if self.forks.len() < 1024 && self.forks.insert(height) {
                    self.metrics.forks.inc();
                    let publisher = &early.from.publisher;
                    error!(%height, ours = %one, %other, %publisher, "two headers of one height are \
                        signed with the sequencer's key: find out who else holds it");
                }
                Verdict::Reject
            }
            Err(error) => {
                warn!(%error, "gossip cannot be judged");
                Verdict::Ignore
            }
        };
        self.intake.settled(early.key, verdict);
        self.settle_unseen(early.token, &early.from, early.key.0, verdict);
    }

    /// Looks again at the data that waits.
    fn judge_early(&mut self, which: impl Fn(&Early) -> bool) {
        let (again, still) = std::mem::take(&mut self.early).into_iter().partition(which);
        self.early = still;
        for early in again {
            self.judge(early);
        }
    }

    fn on_asked(&mut self, token: Token, peer: &PeerId, service: Service, request: &HeaderRequest) {
        let answer = match self.peers.may_ask(peer, Instant::now()) {
            true => self.library.answer(service, request).unwrap_or_else(|error| {
                warn!(%error, "the history cannot be read");
                None
            }),
            false => {
                self.note(peer, Deed::TooMuch);
                None
            }
        };
        let of = metrics::Of { service: metrics::name(service) };
        match &answer {
            Some(items) => self.metrics.served.get_or_create(&of).inc_by(items.len() as u64),
            None => self.metrics.refused.get_or_create(&of).inc(),
        };
        debug!(%peer, ?request, items = answer.as_ref().map(Vec::len), "a peer asks");
        self.tell(Command::Answer { token, answer });
    }

    fn view(&self) -> NetView {
        NetView {
            id: self.config.id.to_string(),
            listen_addresses: self.listening.iter().cloned().collect(),
            peers: self.peers.views(),
            waiting_for: self.dialling.missing(),
        }
    }
}

impl Actor for P2p {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let events = self.events.take().expect("it starts once");
        let events =
            stream::unfold(events, async |mut events| events.recv().await.map(|event| (event, events)));
        ctx.add_stream(events);
        for peer in self.config.blocked.clone() {
            self.tell(Command::Ban(peer));
        }
        self.tick(ctx);
        ctx.run_interval(TICK, Self::tick);
    }
}

impl StreamHandler<Event> for P2p {
    fn handle(&mut self, event: Event, ctx: &mut Context<Self>) {
        self.on_event(event, ctx);
    }

    /// Without a network the actor still answers: it has no peers.
    fn finished(&mut self, _: &mut Context<Self>) {
        warn!("the network adapter has ended");
    }
}

fn gauge(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Names questions.
#[derive(Debug, Default)]
struct Names(u64);

impl Names {
    const fn next(&mut self) -> AskId {
        self.0 += 1;
        AskId(self.0)
    }
}
