//! Real swarms on loopback.

use std::collections::BTreeSet;
use std::time::Duration;

use baton_actors::p2p::network::{AskFailure, AskId, Command, Event, Network};
use baton_actors::signer::key::FileKey;
use baton_messages::p2p::{PeerId, Verdict};
use baton_messages::types::Height;
use baton_messages::wire::exchange::{HeaderRequest, HeaderResponse};
use baton_messages::wire::p2p::{MAX_PUBSUB_RPC, Service};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;

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
        Self::with(config(), chain_id, seed).await
    }

    async fn with(config: Config, chain_id: &str, seed: u8) -> Self {
        let key = FileKey::from_seed(&[seed; 32]);
        let parts = open(&config, &key, chain_id, Metrics::default()).await.unwrap();
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
    let light = |seed| Swarm::with(Config { headers_only: true, ..config() }, "chain", seed);
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
