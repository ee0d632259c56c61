//! Real swarms on loopback.

use std::collections::BTreeSet;
use std::time::Duration;

use baton_actors::p2p::network::{AskFailure, AskId, Command, Event, Network};
use baton_actors::signer::key::FileKey;
use baton_messages::p2p::{PeerId, Verdict};
use baton_messages::types::Height;
use baton_messages::wire::exchange::{HeaderRequest, HeaderResponse};
use baton_messages::wire::p2p::{KAD_PROTOCOL, MAX_PUBSUB_RPC, Service};
use bytes::Bytes;
use futures::StreamExt;
use libp2p::swarm::SwarmEvent;
use libp2p::{SwarmBuilder, gossipsub, identify, noise, tcp, yamux};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::behaviour::{Behaviour, BehaviourEvent, topic};
use super::host::Host;
use super::{Config, Error, Metrics, open, peer_id};

/// One swarm, seen from where its actor would be.
struct Swarm {
    id: PeerId,
    address: String,
    network: Box<dyn Network>,
    events: mpsc::Receiver<Event>,
}

fn config() -> Config {
    let listen = "/ip4/127.0.0.1/tcp/0".parse().unwrap();
    Config { listen, peers: vec![], blocked: BTreeSet::new(), discovers: false, headers_only: false }
}

impl Swarm {
    async fn on(chain_id: &str, seed: u8) -> Self {
        Self::with(config(), chain_id, seed, Metrics::default()).await
    }

    async fn counted_by(chain_id: &str, seed: u8, metrics: Metrics) -> Self {
        Self::with(config(), chain_id, seed, metrics).await
    }

    async fn with(config: Config, chain_id: &str, seed: u8, metrics: Metrics) -> Self {
        let key = FileKey::from_seed(&[seed; 32]);
        let parts = open(&config, &key, chain_id, metrics).await.unwrap();
        let (network, events) = (parts.network, parts.events);
        let mut swarm = Self { id: peer_id(&key), address: String::new(), network, events };
        swarm.address = swarm
            .until(|event| match event {
                Event::Listening(address) => Some(address),
                _ => None,
            })
            .await;
        swarm
    }

    fn tell(&mut self, command: Command) {
        self.network.tell(command).unwrap();
    }

    async fn until<T>(&mut self, mut what: impl FnMut(Event) -> Option<T>) -> T {
        let waiting = async {
            loop {
                if let Some(found) = what(self.events.recv().await.expect("the swarm runs")) {
                    return found;
                }
            }
        };
        timeout(Duration::from_secs(60), waiting).await.expect("it happens within a minute")
    }

    /// Dials another one and waits until each knows that the other listens to gossip.
    async fn connect(&mut self, other: &mut Self) {
        self.dial(other);
        let (own, others) = (self.id.clone(), other.id.clone());
        for (one, with) in [(self, others), (other, own)] {
            let (mut serves_it, mut subscribed) = (None, 0);
            one.until(|event| {
                match event {
                    Event::Identified { peer, serves, .. } if peer == with => serves_it = Some(serves),
                    Event::Subscribed { peer, on: true, .. } if peer == with => subscribed += 1,
                    _ => {}
                }
                (serves_it == Some(true) && subscribed == 2).then_some(())
            })
            .await;
        }
    }

    fn dial(&mut self, other: &Self) {
        let (peer, addresses) = (other.id.clone(), vec![other.address.clone()]);
        self.tell(Command::Dial { peer, addresses });
    }

    async fn heard(&mut self, verdict: Verdict) -> (PeerId, Service, Bytes) {
        let (token, heard) = self
            .until(|event| match event {
                Event::Gossip { token, peer, service, data, .. } => Some((token, (peer, service, data))),
                _ => None,
            })
            .await;
        self.tell(Command::Judge { token, verdict });
        heard
    }

    fn ask(&mut self, id: u64, peer: &PeerId, service: Service, request: HeaderRequest) {
        self.tell(Command::Ask { id: AskId(id), peer: peer.clone(), service, request });
    }

    async fn answered(&mut self) -> (AskId, Result<Vec<HeaderResponse>, AskFailure>) {
        self.until(|event| match event {
            Event::Answered { id, outcome, .. } => Some((id, outcome)),
            _ => None,
        })
        .await
    }

    async fn answer(&mut self, answer: Option<Vec<HeaderResponse>>) -> (Service, HeaderRequest) {
        let (token, asked) = self
            .until(|event| match event {
                Event::Asked { token, service, request, .. } => Some((token, (service, request))),
                _ => None,
            })
            .await;
        self.tell(Command::Answer { token, answer });
        asked
    }
}

/// Two hosts that have headers only serve each other; one that has both sees neither as fit to be asked.
#[tokio::test]
async fn a_host_of_headers_hears_serves_and_asks_for_no_data() {
    let light =
        |seed| Swarm::with(Config { headers_only: true, ..config() }, "chain", seed, Metrics::default());
    let (mut one, mut other, mut whole) = (light(21).await, light(22).await, Swarm::on("chain", 23).await);
    one.dial(&other);
    one.dial(&whole);
    let serves = |peer: PeerId| {
        move |event| match event {
            Event::Identified { peer: who, serves, .. } if who == peer => Some(serves),
            _ => None,
        }
    };
    let (own, others, wholes) = (one.id.clone(), other.id.clone(), whole.id.clone());
    assert!(other.until(serves(own.clone())).await, "its headers are all that this one wants");
    assert!(!whole.until(serves(own.clone())).await, "it has no data");
    let mut subscribed = vec![];
    let both = one.until(|event| {
        if let Event::Subscribed { peer, service, on: true } = event {
            subscribed.push((peer, service));
        }
        (subscribed.len() == 2).then(|| subscribed.clone())
    });
    let mut both = both.await;
    both.sort();
    let mut expected = vec![(others.clone(), Service::Headers), (wholes, Service::Headers)];
    expected.sort();
    assert_eq!(both, expected, "of topics that it has not it hears nothing");
    // Whoever asks it for data learns that it speaks no such protocol, and so does it itself.
    whole.ask(1, &own, Service::Data, HeaderRequest::Head);
    assert_eq!(whole.answered().await, (AskId(1), Err(AskFailure::Unsupported)));
    one.ask(2, &others, Service::Data, HeaderRequest::Head);
    assert_eq!(one.answered().await, (AskId(2), Err(AskFailure::Unsupported)));
    one.ask(3, &others, Service::Headers, HeaderRequest::Head);
    let items = vec![HeaderResponse::item(Bytes::from_static(b"a header"))];
    assert_eq!(other.answer(Some(items.clone())).await, (Service::Headers, HeaderRequest::Head));
    assert_eq!(one.answered().await, (AskId(3), Ok(items)));
}

fn headers(text: &'static [u8]) -> (Service, Bytes) {
    (Service::Headers, Bytes::from_static(text))
}

#[tokio::test]
async fn gossip_goes_on_where_it_was_accepted_and_in_order() {
    let (mut one, mut middle, mut last) =
        (Swarm::on("c", 1).await, Swarm::on("c", 2).await, Swarm::on("c", 3).await);
    one.connect(&mut middle).await;
    middle.connect(&mut last).await;
    let data = (Service::Data, Bytes::from_static(b"its data"));
    one.tell(Command::Publish(vec![headers(b"refused"), headers(b"a header"), data.clone()]));
    for verdict in [Verdict::Reject, Verdict::Accept, Verdict::Accept] {
        assert_eq!(middle.heard(verdict).await.0, one.id);
    }
    let (from, service, bytes) = last.heard(Verdict::Accept).await;
    assert_eq!((from, (service, bytes)), (middle.id.clone(), headers(b"a header")));
    let (_, service, bytes) = last.heard(Verdict::Accept).await;
    assert_eq!((service, bytes), data);
}

#[tokio::test]
async fn the_largest_message_that_ev_node_takes_is_carried() {
    let (mut one, mut other) = (Swarm::on("c", 1).await, Swarm::on("c", 2).await);
    one.connect(&mut other).await;
    let largest = Bytes::from(vec![7; MAX_PUBSUB_RPC - 1024]);
    one.tell(Command::Publish(vec![(Service::Data, largest.clone()), headers(b"after it")]));
    assert_eq!(other.heard(Verdict::Accept).await.2, largest);
    assert_eq!(other.heard(Verdict::Accept).await.2, headers(b"after it").1);
}

#[tokio::test]
async fn a_question_is_answered_reset_or_not_understood() {
    let (mut client, mut server) = (Swarm::on("c", 1).await, Swarm::on("c", 2).await);
    client.connect(&mut server).await;
    let request = HeaderRequest::Range { from: Height(7), amount: 3 };
    client.ask(1, &server.id, Service::Data, request.clone());
    let items = vec![HeaderResponse::item(Bytes::from(vec![1; 1 << 20])), HeaderResponse::not_found()];
    assert_eq!(server.answer(Some(items.clone())).await, (Service::Data, request));
    assert_eq!(client.answered().await, (AskId(1), Ok(items)));

    client.ask(2, &server.id, Service::Headers, HeaderRequest::Head);
    assert_eq!(server.answer(None).await, (Service::Headers, HeaderRequest::Head));
    assert_eq!(client.answered().await, (AskId(2), Err(AskFailure::Closed)));

    let mut foreign = Swarm::on("another", 3).await;
    client.dial(&foreign);
    let serves = client
        .until(|event| match event {
            Event::Identified { peer, serves, .. } if peer == foreign.id => Some(serves),
            _ => None,
        })
        .await;
    assert!(!serves);
    client.ask(3, &foreign.id, Service::Headers, HeaderRequest::Head);
    assert_eq!(client.answered().await, (AskId(3), Err(AskFailure::Unsupported)));
    client.ask(
        4,
        &PeerId::from("12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"),
        Service::Data,
        HeaderRequest::Head,
    );
    assert_eq!(client.answered().await, (AskId(4), Err(AskFailure::Closed)));
    foreign.tell(Command::Discover);
}

/// Peers that ask for much at once and take their time would have all of it kept for them.
#[tokio::test]
async fn answers_that_are_not_read_yet_are_bounded_and_what_was_read_makes_room() {
    let (mut client, mut server) = (Swarm::on("c", 1).await, Swarm::on("c", 2).await);
    client.connect(&mut server).await;
    let large = vec![HeaderResponse::item(Bytes::from(vec![1; 4 << 20]))];
    for round in 0..2u64 {
        let mut tokens = vec![];
        for id in 0..5 {
            client.ask(10 * round + id, &server.id, Service::Data, HeaderRequest::Head);
            let asked = server.until(|event| match event {
                Event::Asked { token, .. } => Some(token),
                _ => None,
            });
            tokens.push(asked.await);
        }
        for token in tokens {
            server.tell(Command::Answer { token, answer: Some(large.clone()) });
        }
        let mut outcomes = vec![];
        for _ in 0..5 {
            outcomes.push(client.answered().await.1);
        }
        let whole = outcomes.iter().filter(|outcome| outcome.as_ref() == Ok(&large)).count();
        let closed = outcomes.iter().filter(|outcome| **outcome == Err(AskFailure::Closed)).count();
        assert_eq!((whole, closed), (4, 1), "16 MiB for one peer, again once it has read them");
    }
}

/// Nobody takes what comes; whoever sends it sends as much as it can.
#[tokio::test]
async fn gossip_that_nobody_takes_is_bounded_in_bytes_and_goes_on_once_it_is_taken() {
    let metrics = Metrics::default();
    let mut sender = Swarm::on("c", 1).await;
    let mut receiver = Swarm::counted_by("c", 2, metrics.clone()).await;
    sender.connect(&mut receiver).await;
    let large = Bytes::from(vec![7; 4 << 20]);
    let shed = async {
        while metrics.shed.get() < 3 {
            sender.tell(Command::Publish(vec![(Service::Data, large.clone())]));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(60), shed).await.expect("there is an end to what is kept");
    assert_eq!(metrics.waiting_bytes.get(), 8 << 20, "two of them, since all are of one peer");
    for _ in 0..2 {
        assert_eq!(receiver.heard(Verdict::Ignore).await.2, large);
    }
    assert_eq!(metrics.waiting_bytes.get(), 0);
    // What is on its way still may take the place of what comes now.
    let heard = async {
        loop {
            sender.tell(Command::Publish(vec![headers(b"after it")]));
            if receiver.heard(Verdict::Accept).await.2 == headers(b"after it").1 {
                return;
            }
        }
    };
    timeout(Duration::from_secs(60), heard).await.expect("it hears again");
}

/// A swarm that takes turns with another one, since nothing else drives it.
fn alone(seed: u8, discovers: bool) -> libp2p::Swarm<Behaviour> {
    let key = super::keypair(&FileKey::from_seed(&[seed; 32]));
    super::swarm("c", &key, discovers, super::behaviour::services(false)).unwrap()
}

#[tokio::test]
async fn topics_of_other_chains_are_not_remembered_however_many_a_peer_names() {
    let mut victim = alone(1, false);
    victim.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    let mut hostile = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|key| {
            let signed = gossipsub::MessageAuthenticity::Signed(key.clone());
            gossipsub::Behaviour::<gossipsub::IdentityTransform>::new(signed, gossipsub::Config::default())
                .unwrap()
        })
        .unwrap()
        .build();
    let (ours, peer) = (topic(Service::Data, "c"), *hostile.local_peer_id());
    let both = async {
        loop {
            tokio::select! {
                event = victim.select_next_some() => match event {
                    SwarmEvent::NewListenAddr { address, .. } => hostile.dial(address).unwrap(),
                    SwarmEvent::Behaviour(BehaviourEvent::Gossip(gossipsub::Event::Subscribed { topic, .. }))
                        if topic == ours.hash() => return,
                    _ => {}
                },
                event = hostile.select_next_some() => {
                    // It knows of the victim's topics, so the victim hears of its own.
                    if matches!(event, SwarmEvent::Behaviour(gossipsub::Event::Subscribed { .. })) {
                        for number in 0..1_000 {
                            let foreign = gossipsub::IdentTopic::new(format!("{number} of somebody else"));
                            hostile.behaviour_mut().subscribe(&foreign).unwrap();
                        }
                        hostile.behaviour_mut().subscribe(&ours).unwrap();
                    }
                }
            }
        }
    };
    timeout(Duration::from_secs(60), both).await.expect("it hears of our topic last");
    let known = victim.behaviour().gossip.all_peers().find(|(known, _)| **known == peer);
    assert_eq!(known.map(|(_, topics)| topics), Some(vec![&ours.hash()]));
}

#[tokio::test]
async fn a_peer_that_says_ever_new_addresses_fills_no_table() {
    let (_commands, commands) = mpsc::channel(1);
    let (events, mut heard) = mpsc::channel(1024);
    let mut host = Host::new(
        alone(1, true),
        "c".to_owned(),
        super::behaviour::services(false),
        commands,
        events,
        Metrics::default(),
    );
    let key = super::keypair(&FileKey::from_seed(&[2; 32])).public();
    let peer = key.to_peer_id();
    for round in 0..100u16 {
        let address = |number: u16| format!("/ip4/10.0.0.1/tcp/{}", 1 + 100 * round + number);
        let info = identify::Info {
            public_key: key.clone(),
            protocol_version: String::new(),
            agent_version: String::new(),
            listen_addrs: (0..20).map(|number| address(number).parse().unwrap()).collect(),
            protocols: vec![libp2p::StreamProtocol::new(KAD_PROTOCOL)],
            observed_addr: "/ip4/127.0.0.1/tcp/1".parse().unwrap(),
            signed_peer_record: None,
        };
        host.hear_identity(peer, info);
    }
    let kad = host.swarm.behaviour_mut().kad.as_mut().expect("it discovers");
    let bucket = kad.kbucket(peer).expect("it is another");
    let known: Vec<usize> = bucket.iter().map(|entry| entry.node.value.len()).collect();
    assert_eq!(known, [16]);
    assert!(matches!(heard.try_recv(), Ok(Event::Identified { addresses, .. }) if addresses.len() == 16));
}

#[tokio::test]
async fn a_banned_peer_is_let_go_and_not_let_in_again_until_it_is_forgiven() {
    let (mut one, mut other) = (Swarm::on("c", 1).await, Swarm::on("c", 2).await);
    one.connect(&mut other).await;
    one.tell(Command::Ban(other.id.clone()));
    let gone = |event| matches!(event, Event::Disconnected(_)).then_some(());
    one.until(gone).await;
    other.until(gone).await;
    other.dial(&one);
    // The connection is made and closed again, or the dial fails: in both cases it is over.
    other
        .until(|event| matches!(event, Event::Disconnected(_) | Event::DialFailed { .. }).then_some(()))
        .await;
    one.tell(Command::Unban(other.id.clone()));
    one.connect(&mut other).await;
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listen = format!("/ip4/127.0.0.1/tcp/{}", taken.local_addr().unwrap().port());
    let config = Config { listen: listen.parse().unwrap(), ..config() };
    let error = open(&config, &FileKey::from_seed(&[1; 32]), "c", Metrics::default()).await.unwrap_err();
    assert!(matches!(error, Error::Listen { .. }) && error.to_string().contains(&listen), "{error}");
    let udp = Config { listen: "/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap(), ..config };
    let error = open(&udp, &FileKey::from_seed(&[1; 32]), "c", Metrics::default()).await.unwrap_err();
    assert!(matches!(error, Error::Listen { .. }), "{error}");
}

#[tokio::test]
async fn nodes_of_a_chain_find_each_other_through_one_that_both_know() {
    async fn discovering(seed: u8) -> Swarm {
        let key = FileKey::from_seed(&[seed; 32]);
        let parts =
            open(&Config { discovers: true, ..config() }, &key, "c", Metrics::default()).await.unwrap();
        let mut swarm =
            Swarm { id: peer_id(&key), address: String::new(), network: parts.network, events: parts.events };
        swarm.address = swarm
            .until(|event| match event {
                Event::Listening(address) => Some(address),
                _ => None,
            })
            .await;
        swarm
    }
    let (mut one, mut middle, mut other) = (discovering(1).await, discovering(2).await, discovering(3).await);
    one.connect(&mut middle).await;
    other.connect(&mut middle).await;
    one.tell(Command::Discover);
    let looked_for = one.id.clone();
    let mut found = false;
    // Whoever looks before the other has announced itself looks again.
    for _ in 0..20 {
        other.tell(Command::Discover);
        let looking = other.until(|event| match event {
            Event::Discovered { peer } if peer == looked_for => Some(()),
            _ => None,
        });
        if timeout(Duration::from_secs(2), looking).await.is_ok() {
            found = true;
            break;
        }
    }
    assert!(found, "they do not find each other");
    other.tell(Command::Dial { peer: one.id.clone(), addresses: vec![] });
    one.until(|event| match event {
        Event::Connected { peer, .. } => (peer == other.id).then_some(()),
        _ => None,
    })
    .await;
}
