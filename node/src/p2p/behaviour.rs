//! What the swarm speaks: gossip as ev-node has it, both exchanges, identify, ping, the DHT.

use std::collections::BTreeMap;
use std::time::Duration;

use baton_actors::p2p::network::Token;
use baton_messages::p2p::Verdict;
use baton_messages::wire::p2p::{KAD_PROTOCOL, MAX_PUBSUB_RPC, Service};
use libp2p::gossipsub::{
    self, IdentTopic, IdentityTransform, MessageAcceptance, MessageAuthenticity, MessageId, ValidationMode,
    WhitelistSubscriptionFilter,
};
use libp2p::identity::Keypair;
use libp2p::kad::store::{MemoryStore, MemoryStoreConfig};
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{StreamProtocol, allow_block_list, connection_limits, identify, kad, ping, request_response};

use super::codec::Codec;

/// Any answer, ours or a peer's, is over after this.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Streams of one exchange and one connection at a time.
const MAX_STREAMS: usize = 16;
/// What may come in at once: the reader may hold a whole message and the beginning of the next.
const MAX_RECEIVED: usize = MAX_PUBSUB_RPC + (1 << 20);
/// Messages that wait for one peer at the most; older ones than this many seconds are dropped.
const QUEUE: usize = 256;
const QUEUE_FOR: Duration = Duration::from_secs(5);
/// A message that comes again within this is a copy. Four times as short as in Go: every message with
/// a signature is remembered, and a peer may send many thousand a second. What was judged before is
/// known again by what it holds, for longer.
const REMEMBER: Duration = Duration::from_secs(30);
/// Connections: ev-node keeps up to 192.
const MAX_INCOMING: u32 = 96;
const MAX_OUTGOING: u32 = 64;

/// All protocols of the swarm.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) limits: connection_limits::Behaviour,
    pub(super) blocked: allow_block_list::Behaviour<allow_block_list::BlockedPeers>,
    pub(super) identify: identify::Behaviour,
    pub(super) ping: ping::Behaviour,
    pub(super) gossip: Gossip,
    pub(super) headers: request_response::Behaviour<Codec>,
    pub(super) data: Toggle<request_response::Behaviour<Codec>>,
    pub(super) kad: Toggle<kad::Behaviour<MemoryStore>>,
}

/// Gossip about this chain only: what topics peers subscribe to is remembered, and they may subscribe
/// to any number.
pub(super) type Gossip = gossipsub::Behaviour<IdentityTransform, WhitelistSubscriptionFilter>;

/// The services of a node, in the order in which their messages are published.
pub(super) const fn services(headers_only: bool) -> &'static [Service] {
    match headers_only {
        true => &[Service::Headers],
        false => &[Service::Headers, Service::Data],
    }
}

/// The identity of a message as Go computes it: the raw publisher id, then the raw number.
fn message_id(message: &gossipsub::Message) -> MessageId {
    let mut id = message.source.map(|source| source.to_bytes()).unwrap_or_default();
    id.extend_from_slice(&message.sequence_number.unwrap_or_default().to_be_bytes());
    MessageId::from(id)
}

fn gossip(chain_id: &str, keypair: &Keypair, services: &[Service]) -> Result<Gossip, String> {
    let config = gossipsub::ConfigBuilder::default()
        .support_floodsub()
        .validation_mode(ValidationMode::Strict)
        .validate_messages()
        .message_id_fn(message_id)
        .max_transmit_size(MAX_RECEIVED)
        .duplicate_cache_time(REMEMBER)
        .connection_handler_queue_len(QUEUE)
        .publish_queue_duration(QUEUE_FOR)
        .forward_queue_duration(QUEUE_FOR)
        .build()
        .map_err(|error| error.to_string())?;
    let authenticity = MessageAuthenticity::Signed(keypair.clone());
    let topics = services.iter().map(|service| topic(*service, chain_id).hash());
    let topics = WhitelistSubscriptionFilter(topics.collect());
    let made = Gossip::new_with_subscription_filter(authenticity, config, topics);
    let mut gossip = made.map_err(ToOwned::to_owned)?;
    for service in services {
        gossip.subscribe(&topic(*service, chain_id)).map_err(|error| error.to_string())?;
    }
    Ok(gossip)
}

/// The topic of a service.
pub(super) fn topic(service: Service, chain_id: &str) -> IdentTopic {
    IdentTopic::new(service.topic(chain_id))
}

fn exchange(service: Service, chain_id: &str) -> Result<request_response::Behaviour<Codec>, String> {
    let config = request_response::Config::default()
        .with_request_timeout(ANSWER_WITHIN)
        .with_max_concurrent_streams(MAX_STREAMS);
    let both_ways = request_response::ProtocolSupport::Full;
    Ok(request_response::Behaviour::with_codec(Codec, [(protocol(service, chain_id)?, both_ways)], config))
}

/// The exchange protocol of a service.
pub(super) fn protocol(service: Service, chain_id: &str) -> Result<StreamProtocol, String> {
    StreamProtocol::try_from_owned(service.exchange_protocol(chain_id)).map_err(|error| error.to_string())
}

/// A DHT server for the peers of this chain: of what strangers want stored only their being on
/// this chain is taken.
fn dht(keypair: &Keypair) -> kad::Behaviour<MemoryStore> {
    let mut config = kad::Config::new(StreamProtocol::new(KAD_PROTOCOL));
    config
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_provider_publication_interval(Some(Duration::from_secs(3600)))
        .set_query_timeout(Duration::from_secs(30));
    let store = MemoryStoreConfig {
        max_records: 0,
        max_provided_keys: 1,
        max_providers_per_key: 64,
        ..MemoryStoreConfig::default()
    };
    let id = keypair.public().to_peer_id();
    let mut kad = kad::Behaviour::with_config(id, MemoryStore::with_config(id, store), config);
    kad.set_mode(Some(kad::Mode::Server));
    kad
}

impl Behaviour {
    /// What a node of this chain with these services speaks.
    pub(super) fn new(
        chain_id: &str,
        keypair: &Keypair,
        discovers: bool,
        services: &[Service],
    ) -> Result<Self, String> {
        let data =
            services.contains(&Service::Data).then(|| exchange(Service::Data, chain_id)).transpose()?;
        let limits = connection_limits::ConnectionLimits::default()
            .with_max_pending_incoming(Some(64))
            .with_max_pending_outgoing(Some(64))
            .with_max_established_incoming(Some(MAX_INCOMING))
            .with_max_established_outgoing(Some(MAX_OUTGOING))
            .with_max_established_per_peer(Some(4));
        let identify = identify::Config::new("ipfs/0.1.0".to_owned(), keypair.public())
            .with_agent_version(format!("baton/{}", env!("CARGO_PKG_VERSION")));
        Ok(Self {
            limits: connection_limits::Behaviour::new(limits),
            blocked: allow_block_list::Behaviour::default(),
            identify: identify::Behaviour::new(identify),
            ping: ping::Behaviour::default(),
            gossip: gossip(chain_id, keypair, services)?,
            headers: exchange(Service::Headers, chain_id)?,
            data: Toggle::from(data),
            kad: Toggle::from(discovers.then(|| dht(keypair))),
        })
    }

    /// The exchange of a service; `None` where this node has not that service.
    pub(super) fn exchange(&mut self, service: Service) -> Option<&mut request_response::Behaviour<Codec>> {
        match service {
            Service::Headers => Some(&mut self.headers),
            Service::Data => self.data.as_mut(),
        }
    }
}

/// What the gossip protocol calls a verdict.
pub(super) const fn acceptance(verdict: Verdict) -> MessageAcceptance {
    match verdict {
        Verdict::Accept => MessageAcceptance::Accept,
        Verdict::Ignore => MessageAcceptance::Ignore,
        Verdict::Reject => MessageAcceptance::Reject,
    }
}

/// Names what waits for an answer of the actor.
#[derive(Debug, Default)]
pub(super) struct Tokens(u64);

impl Tokens {
    pub(super) const fn next(&mut self) -> Token {
        self.0 += 1;
        Token(self.0)
    }
}

/// Messages, and questions, that wait for the actor's word.
const MAX_TOKENS: usize = 1024;

/// Takes the oldest out when there are as many as may wait: a new one finds a place in any case,
/// however many words of the actor were lost.
pub(super) fn oldest_of_too_many<T>(waiting: &mut BTreeMap<Token, T>) -> Option<T> {
    let full = waiting.len() >= MAX_TOKENS;
    full.then(|| waiting.pop_first()).flatten().map(|(_, oldest)| oldest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_actor_that_were_lost_make_the_node_neither_deaf_nor_mute() {
        let (mut tokens, mut waiting, mut forgotten) = (Tokens::default(), BTreeMap::new(), vec![]);
        for number in 0..3 * MAX_TOKENS {
            forgotten.extend(oldest_of_too_many(&mut waiting));
            waiting.insert(tokens.next(), number);
        }
        assert_eq!(waiting.len(), MAX_TOKENS);
        assert_eq!(forgotten, (0..2 * MAX_TOKENS).collect::<Vec<_>>(), "the oldest, each once");
    }

    #[test]
    fn a_message_has_the_identity_that_go_computes() {
        let keypair = Keypair::ed25519_from_bytes([7; 32]).expect("32 bytes are a key");
        let source = keypair.public().to_peer_id();
        let message = gossipsub::Message {
            source: Some(source),
            data: vec![1],
            sequence_number: Some(0x0102),
            topic: topic(Service::Headers, "chain").hash(),
        };
        let id = [&source.to_bytes()[..], &[0, 0, 0, 0, 0, 0, 1, 2]].concat();
        assert_eq!(message_id(&message).0, id);
    }

    #[test]
    fn topics_and_protocols_are_those_of_the_chain() {
        assert_eq!(topic(Service::Data, "c").hash().as_str(), "/c-dataSync/header-sub/v0.0.1");
        let protocol = protocol(Service::Headers, "c").expect("it is a protocol");
        assert_eq!(protocol.as_ref(), "/c-headerSync/header-ex/v0.0.3");
    }
}
