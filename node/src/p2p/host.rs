//! The loop between the swarm and the actor.
//!
//! The swarm runs in a task of its own. Commands and events go through bounded channels: while the
//! actor is behind, gossip is ignored first, then the swarm waits, and so do the peers.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::time::Duration;

use baton_actors::p2p::network::{AskFailure, AskId, Command, Event, Network, Overloaded, Token};
use baton_messages::p2p::{PeerId as Peer, Verdict};
use baton_messages::wire::exchange::HeaderResponse;
use baton_messages::wire::p2p::{KAD_PROTOCOL, Service, rendezvous_key};
use futures::StreamExt;
use libp2p::gossipsub::{self, MessageId, PublishError, TopicHash};
use libp2p::kad::store::RecordStore;
use libp2p::kad::{self, InboundRequest, QueryResult, RecordKey};
use libp2p::multiaddr::Protocol;
use libp2p::request_response::{self, InboundRequestId, OutboundFailure, OutboundRequestId, ResponseChannel};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, identify};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::answering::Answering;
use super::behaviour::{Behaviour, BehaviourEvent, Tokens, acceptance, oldest_of_too_many, protocol, topic};
use super::waiting::Waiting;
use crate::p2p::peer_of;

/// Commands that wait for the swarm at the most.
pub(super) const COMMANDS: usize = 1024;
/// Events that wait for the actor at the most.
pub(super) const EVENTS: usize = 1024;
/// Gossip is ignored when fewer places for events are left.
const GOSSIP_LEAVES: usize = EVENTS / 2;
/// Addresses of one peer that are taken.
const MAX_ADDRESSES: usize = 16;
/// The longest name of a program that is taken.
const MAX_AGENT: usize = 64;

/// What the adapter counts.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Messages handed to at least one peer.
    pub published: Counter,
    /// Messages that no peer took.
    pub unpublished: Counter,
    /// Gossip that was ignored because the actor was behind.
    pub shed: Counter,
    /// Bytes of gossip that wait for the actor.
    pub waiting_bytes: Gauge,
    /// Bytes of answers on their way to peers.
    pub answering_bytes: Gauge,
    /// Answers for which there was no room.
    pub unanswered: Counter,
    /// Messages and questions that were forgotten because the actor never came back on them.
    pub forgotten: Counter,
}

impl Metrics {
    /// Makes the metrics visible.
    pub fn register(&self, registry: &mut Registry) {
        let p2p = registry.sub_registry_with_prefix("p2p");
        p2p.register("published_messages", "Messages handed to a peer or more", self.published.clone());
        p2p.register("unpublished_messages", "Messages that no peer took", self.unpublished.clone());
        p2p.register("shed_messages", "Gossip ignored because the node was behind", self.shed.clone());
        let waiting = self.waiting_bytes.clone();
        p2p.register("waiting_gossip_bytes", "Bytes of gossip that wait for the node", waiting);
        let answering = self.answering_bytes.clone();
        p2p.register("answering_bytes", "Bytes of answers on their way to peers", answering);
        p2p.register(
            "unanswered",
            "Answers to peers that were dropped for lack of room",
            self.unanswered.clone(),
        );
        p2p.register("forgotten", "Messages and questions that were never judged", self.forgotten.clone());
    }
}

/// The actor's end of the commands.
#[derive(Debug)]
pub(super) struct Handle(pub(super) mpsc::Sender<Command>);

impl Network for Handle {
    fn tell(&mut self, command: Command) -> Result<(), Overloaded> {
        self.0.try_send(command).map_err(|_| Overloaded)
    }
}

/// A question of a peer that waits for the actor's answer.
struct Question {
    service: Service,
    id: InboundRequestId,
    peer: PeerId,
    channel: ResponseChannel<Vec<HeaderResponse>>,
}

/// The loop.
pub(super) struct Host {
    pub(super) swarm: Swarm<Behaviour>,
    pub(super) chain_id: String,
    services: &'static [Service],
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) metrics: Metrics,
    /// What must not be lost and found no place.
    backlog: VecDeque<Event>,
    topics: BTreeMap<TopicHash, Service>,
    tokens: Tokens,
    gossip: BTreeMap<Token, (MessageId, PeerId)>,
    waiting: Waiting,
    asked: BTreeMap<Token, Question>,
    /// Answers on their way: who reads slowly keeps them in memory.
    answering: Answering<(Service, InboundRequestId)>,
    asks: HashMap<(Service, OutboundRequestId), (AskId, Instant)>,
}

impl Host {
    pub(super) fn new(
        swarm: Swarm<Behaviour>,
        chain_id: String,
        services: &'static [Service],
        commands: mpsc::Receiver<Command>,
        events: mpsc::Sender<Event>,
        metrics: Metrics,
    ) -> Self {
        let topics = services.iter().map(|service| (topic(*service, &chain_id).hash(), *service)).collect();
        Self {
            swarm,
            chain_id,
            services,
            commands,
            events,
            waiting: Waiting::shown_by(metrics.waiting_bytes.clone()),
            metrics,
            backlog: VecDeque::new(),
            topics,
            tokens: Tokens::default(),
            gossip: BTreeMap::new(),
            asked: BTreeMap::new(),
            answering: Answering::default(),
            asks: HashMap::new(),
        }
    }

    /// Runs until the actor is gone.
    pub(super) async fn run(mut self) {
        let events = self.events.clone();
        loop {
            tokio::select! {
                biased;
                place = events.reserve(), if !self.backlog.is_empty() => {
                    let Ok(place) = place else { return };
                    if let Some(event) = self.backlog.pop_front() {
                        place.send(event);
                    }
                }
                command = self.commands.recv() => {
                    let Some(command) = command else { return };
                    self.obey(command);
                }
                event = self.swarm.select_next_some(), if self.backlog.is_empty() => self.hear(event),
            }
        }
    }

    fn say(&mut self, event: Event) {
        if !self.backlog.is_empty() {
            return self.backlog.push_back(event);
        }
        if let Err(mpsc::error::TrySendError::Full(event)) = self.events.try_send(event) {
            self.backlog.push_back(event);
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Publish(messages) => {
                for (service, data) in messages {
                    let topic = topic(service, &self.chain_id);
                    match self.swarm.behaviour_mut().gossip.publish(topic, data) {
                        Ok(_) => drop(self.metrics.published.inc()),
                        Err(error) => {
                            self.metrics.unpublished.inc();
                            match error {
                                PublishError::NoPeersSubscribedToTopic => debug!("nobody listens to gossip"),
                                error => warn!(%error, "a message was not published"),
                            }
                        }
                    }
                }
            }
            Command::Judge { token, verdict } => {
                if let Some((id, from)) = self.gossip.remove(&token) {
                    self.report(&id, &from, verdict);
                }
            }
            Command::Ask { id, peer, service, request } => {
                let connected = parse(&peer).filter(|peer| self.swarm.is_connected(peer));
                let exchange = self.swarm.behaviour_mut().exchange(service);
                let failure = match (connected, exchange) {
                    (Some(to), Some(exchange)) => {
                        let asked = exchange.send_request(&to, request);
                        self.asks.insert((service, asked), (id, Instant::now()));
                        return;
                    }
                    (_, None) => AskFailure::Unsupported,
                    (None, _) => AskFailure::Closed,
                };
                self.say(Event::Answered { id, outcome: Err(failure), took: Duration::ZERO });
            }
            Command::Answer { token, answer } => {
                if let Some(question) = self.asked.remove(&token) {
                    self.answer(question, answer.unwrap_or_default());
                }
            }
            Command::Dial { peer, addresses } => self.dial(&peer, &addresses),
            Command::Ban(peer) => {
                if let Some(peer) = parse(&peer) {
                    self.swarm.behaviour_mut().blocked.block_peer(peer);
                    if let Some(kad) = self.swarm.behaviour_mut().kad.as_mut() {
                        kad.remove_peer(&peer);
                    }
                    let _ = self.swarm.disconnect_peer_id(peer);
                }
            }
            Command::Unban(peer) => {
                if let Some(peer) = parse(&peer) {
                    self.swarm.behaviour_mut().blocked.unblock_peer(peer);
                }
            }
            Command::Discover => self.discover(),
        }
    }

    /// Sends an answer; without room for it the question is dropped, which ends its stream.
    fn answer(&mut self, question: Question, answer: Vec<HeaderResponse>) {
        let Question { service, id, peer, channel } = question;
        let bytes = answer.iter().map(|response| response.body.len()).sum();
        if !self.answering.begin((service, id), peer, bytes) {
            debug!(%peer, bytes, "an answer is dropped: too much is on its way already");
            self.metrics.unanswered.inc();
            return;
        }
        let exchange = self.swarm.behaviour_mut().exchange(service);
        let sent = exchange.is_some_and(|exchange| exchange.send_response(channel, answer).is_ok());
        if !sent {
            // The peer has given up meanwhile.
            self.answering.end(&(service, id));
        }
        self.show_answering();
    }

    fn end_answer(&mut self, service: Service, id: InboundRequestId) {
        self.answering.end(&(service, id));
        self.show_answering();
    }

    fn show_answering(&self) {
        self.metrics.answering_bytes.set(i64::try_from(self.answering.bytes()).unwrap_or(i64::MAX));
    }

    fn dial(&mut self, peer: &Peer, addresses: &[String]) {
        let Some(id) = parse(peer) else { return };
        let addresses: Vec<Multiaddr> = addresses.iter().filter_map(|address| address.parse().ok()).collect();
        let options = DialOpts::peer_id(id).condition(PeerCondition::DisconnectedAndNotDialing);
        let options = match addresses.is_empty() {
            true => options.build(),
            false => options.addresses(addresses).build(),
        };
        if let Err(error) = self.swarm.dial(options) {
            self.say(Event::DialFailed { peer: peer.clone(), reason: error.to_string() });
        }
    }

    /// Says in the DHT that this node is on the chain, and asks who else is.
    fn discover(&mut self) {
        let key = RecordKey::new(&rendezvous_key(&self.chain_id));
        let Some(kad) = self.swarm.behaviour_mut().kad.as_mut() else { return };
        // Nobody is known yet: whoever connects makes the next attempt succeed.
        if kad.bootstrap().is_err() {
            return;
        }
        if let Err(error) = kad.start_providing(key.clone()) {
            debug!(%error, "not announced in the DHT");
        }
        kad.get_providers(key);
    }

    fn report(&mut self, id: &MessageId, from: &PeerId, verdict: Verdict) {
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        gossip.report_message_validation_result(id, from, acceptance(verdict));
    }

    fn hear(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::NewListenAddr { address, .. } => {
                // What the DHT tells others about this node.
                self.swarm.add_external_address(address.clone());
                self.say(Event::Listening(self.with_id(address)));
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.swarm.remove_external_address(&address);
                self.say(Event::NotListening(self.with_id(address)));
            }
            SwarmEvent::ListenerClosed { reason, .. } => warn!(?reason, "p2p does not listen any more"),
            SwarmEvent::ListenerError { error, .. } => debug!(%error, "a connection was not taken"),
            SwarmEvent::ConnectionEstablished { peer_id, endpoint, num_established, .. }
                if num_established.get() == 1 =>
            {
                let address = endpoint.get_remote_address().to_string();
                let outbound = endpoint.is_dialer();
                self.say(Event::Connected { peer: peer_of(&peer_id), address, outbound });
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established, cause, .. } => {
                if let Some(ConnectionError::IO(error)) = &cause {
                    debug!(peer = %peer_id, %error, "a connection broke");
                }
                if num_established == 0 {
                    self.say(Event::Disconnected(peer_of(&peer_id)));
                }
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error, .. } => {
                self.say(Event::DialFailed { peer: peer_of(&peer), reason: error.to_string() });
            }
            SwarmEvent::Behaviour(event) => self.hear_behaviour(event),
            _ => {}
        }
    }

    fn with_id(&self, address: Multiaddr) -> String {
        address.with(Protocol::P2p(*self.swarm.local_peer_id())).to_string()
    }

    fn hear_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Gossip(event) => self.hear_gossip(event),
            BehaviourEvent::Headers(event) => self.hear_exchange(Service::Headers, event),
            BehaviourEvent::Data(event) => self.hear_exchange(Service::Data, event),
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
                self.hear_identity(peer_id, info);
            }
            BehaviourEvent::Kad(event) => self.hear_dht(event),
            BehaviourEvent::Limits(never) => match never {},
            BehaviourEvent::Blocked(never) => match never {},
            BehaviourEvent::Identify(_) | BehaviourEvent::Ping(_) => {}
        }
    }

    fn hear_gossip(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                let Some(service) = self.topics.get(&message.topic).copied() else { return };
                let full = self.events.capacity() < GOSSIP_LEAVES || !self.backlog.is_empty();
                let data = if full { None } else { self.waiting.take(propagation_source, message.data) };
                let Some(data) = data else {
                    self.metrics.shed.inc();
                    return self.report(&message_id, &propagation_source, Verdict::Ignore);
                };
                // The actor's word on the oldest was lost, or is late beyond any use.
                if let Some((id, from)) = oldest_of_too_many(&mut self.gossip) {
                    self.metrics.forgotten.inc();
                    self.report(&id, &from, Verdict::Ignore);
                }
                let token = self.tokens.next();
                self.gossip.insert(token, (message_id, propagation_source));
                let peer = peer_of(&propagation_source);
                // Messages are taken only with the signature of their source.
                let publisher = message.source.as_ref().map_or_else(|| peer.clone(), peer_of);
                self.say(Event::Gossip { token, peer, publisher, service, data });
            }
            gossipsub::Event::Subscribed { peer_id, topic } => self.hear_subscription(&peer_id, &topic, true),
            gossipsub::Event::Unsubscribed { peer_id, topic } => {
                self.hear_subscription(&peer_id, &topic, false);
            }
            gossipsub::Event::SlowPeer { peer_id, .. } => {
                debug!(peer = %peer_id, "a peer does not take messages as fast as they come");
            }
            _ => {}
        }
    }

    fn hear_subscription(&mut self, peer: &PeerId, topic: &TopicHash, on: bool) {
        if let Some(service) = self.topics.get(topic).copied() {
            self.say(Event::Subscribed { peer: peer_of(peer), service, on });
        }
    }

    fn hear_exchange(
        &mut self,
        service: Service,
        event: request_response::Event<baton_messages::wire::exchange::HeaderRequest, Vec<HeaderResponse>>,
    ) {
        match event {
            request_response::Event::Message { peer, message, .. } => match message {
                request_response::Message::Request { request_id: id, request, channel } => {
                    // Its dropped channel ends the stream.
                    if oldest_of_too_many(&mut self.asked).is_some() {
                        self.metrics.forgotten.inc();
                    }
                    let token = self.tokens.next();
                    self.asked.insert(token, Question { service, id, peer, channel });
                    self.say(Event::Asked { token, peer: peer_of(&peer), service, request });
                }
                request_response::Message::Response { request_id, response } => {
                    self.answered(service, request_id, Ok(response));
                }
            },
            request_response::Event::OutboundFailure { request_id, error, .. } => {
                self.answered(service, request_id, Err(failure(error)));
            }
            request_response::Event::InboundFailure { peer, request_id, error, .. } => {
                debug!(%peer, %error, "an answer did not get through");
                self.end_answer(service, request_id);
            }
            request_response::Event::ResponseSent { request_id, .. } => self.end_answer(service, request_id),
        }
    }

    fn answered(
        &mut self,
        service: Service,
        request: OutboundRequestId,
        outcome: Result<Vec<HeaderResponse>, AskFailure>,
    ) {
        if let Some((id, since)) = self.asks.remove(&(service, request)) {
            self.say(Event::Answered { id, outcome, took: since.elapsed() });
        }
    }

    pub(super) fn hear_identity(&mut self, peer: PeerId, info: identify::Info) {
        let speaks = |name: &str| info.protocols.iter().any(|protocol| protocol.as_ref() == name);
        let serves = self.services.iter().all(|service| {
            protocol(*service, &self.chain_id).is_ok_and(|protocol| speaks(protocol.as_ref()))
        });
        let addresses: Vec<Multiaddr> = info.listen_addrs.iter().take(MAX_ADDRESSES).cloned().collect();
        if speaks(KAD_PROTOCOL)
            && let Some(kad) = self.swarm.behaviour_mut().kad.as_mut()
        {
            // A peer may say every second where else it is.
            let known = kad.kbucket(peer).and_then(|bucket| {
                let entry = bucket.iter().find(|entry| *entry.node.key.preimage() == peer)?;
                Some(entry.node.value.len())
            });
            for address in addresses.iter().take(MAX_ADDRESSES.saturating_sub(known.unwrap_or_default())) {
                kad.add_address(&peer, address.clone());
            }
        }
        let agent = info.agent_version.chars().take(MAX_AGENT).collect();
        let addresses = addresses.iter().map(ToString::to_string).collect();
        self.say(Event::Identified { peer: peer_of(&peer), agent, addresses, serves });
    }

    fn hear_dht(&mut self, event: kad::Event) {
        match event {
            kad::Event::InboundRequest { request: InboundRequest::AddProvider { record: Some(record) } } => {
                if record.key == RecordKey::new(&rendezvous_key(&self.chain_id))
                    && let Some(kad) = self.swarm.behaviour_mut().kad.as_mut()
                    && let Err(error) = kad.store_mut().add_provider(record)
                {
                    debug!(%error, "a provider was not noted");
                }
            }
            kad::Event::OutboundQueryProgressed {
                result: QueryResult::GetProviders(Ok(kad::GetProvidersOk::FoundProviders { providers, .. })),
                ..
            } => {
                let own = *self.swarm.local_peer_id();
                for peer in providers.into_iter().filter(|peer| *peer != own) {
                    info!(%peer, "found a peer of this chain in the DHT");
                    self.say(Event::Discovered { peer: peer_of(&peer) });
                }
            }
            _ => {}
        }
    }
}

fn parse(peer: &Peer) -> Option<PeerId> {
    peer.0.parse().ok()
}

fn failure(error: OutboundFailure) -> AskFailure {
    match error {
        OutboundFailure::UnsupportedProtocols => AskFailure::Unsupported,
        OutboundFailure::Timeout => AskFailure::Timeout,
        OutboundFailure::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
            AskFailure::Malformed(error.to_string())
        }
        OutboundFailure::Io(_) | OutboundFailure::ConnectionClosed | OutboundFailure::DialFailure => {
            AskFailure::Closed
        }
    }
}
