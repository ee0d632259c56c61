//! Records what a running node of ev-node gossips and answers, byte for byte, for the vectors of the
//! messages crate (`messages/tests/vectors/evnode-frames.json`). docs/interop.md says how.
#![allow(clippy::print_stdout, reason = "what it prints is what it is for")]

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use baton_messages::types::Height;
use baton_messages::wire::exchange::HeaderRequest;
use baton_messages::wire::p2p::Service;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::gossipsub::{
    self, DataTransform, MessageAuthenticity, RawMessage, TopicHash, WhitelistSubscriptionFilter,
};
use libp2p::request_response::{self, Message as Spoken, ProtocolSupport};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, StreamProtocol, Swarm, SwarmBuilder, identify, noise, tcp, yamux};
use prost::Message;
use tokio::time::timeout;

use super::behaviour::{protocol, services, topic};

/// Gossiped messages of each service that are kept.
const KEPT: usize = 6;

/// Frames as they are.
#[derive(Clone, Copy, Debug, Default)]
struct Raw;

impl request_response::Codec for Raw {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, _: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        Err(io::Error::other("it answers nothing"))
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, stream: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        let mut all = vec![];
        stream.read_to_end(&mut all).await?;
        Ok(all)
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, stream: &mut T, frame: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        stream.write_all(&frame).await?;
        stream.flush().await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, _: &mut T, _: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        Err(io::Error::other("it answers nothing"))
    }
}

/// libp2p's pubsub message, as Go encodes it.
#[derive(Clone, PartialEq, Eq, Message)]
struct PubsubMessage {
    #[prost(bytes = "vec", optional, tag = "1")]
    from: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "2")]
    data: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "3")]
    seqno: Option<Vec<u8>>,
    #[prost(string, optional, tag = "4")]
    topic: Option<String>,
    #[prost(bytes = "vec", optional, tag = "5")]
    signature: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "6")]
    key: Option<Vec<u8>>,
}

/// Keeps every message whose signature was right.
#[derive(Clone, Default)]
struct Keep(Arc<Mutex<Vec<PubsubMessage>>>);

impl DataTransform for Keep {
    fn inbound_transform(&self, raw: RawMessage) -> io::Result<gossipsub::Message> {
        let RawMessage { source, data, sequence_number, topic, signature, key, .. } = raw;
        self.0.lock().unwrap().push(PubsubMessage {
            from: source.map(|source| source.to_bytes()),
            data: Some(data.clone()),
            seqno: sequence_number.map(|number| number.to_be_bytes().to_vec()),
            topic: Some(topic.to_string()),
            signature,
            key,
        });
        Ok(gossipsub::Message { source, data, sequence_number, topic })
    }

    fn outbound_transform(&self, _: &TopicHash, data: Vec<u8>) -> io::Result<Vec<u8>> {
        Ok(data)
    }
}

#[derive(NetworkBehaviour)]
struct Listener {
    identify: identify::Behaviour,
    gossip: gossipsub::Behaviour<Keep, WhitelistSubscriptionFilter>,
    headers: request_response::Behaviour<Raw>,
    data: request_response::Behaviour<Raw>,
}

fn listener(chain: &str, keep: &Keep) -> Swarm<Listener> {
    let topics: Vec<_> = services(false).iter().map(|service| topic(*service, chain)).collect();
    let raw = |service| {
        let protocols = [(protocol(service, chain).unwrap(), ProtocolSupport::Outbound)];
        request_response::Behaviour::<Raw>::new(protocols, request_response::Config::default())
    };
    let builder = SwarmBuilder::with_new_identity().with_tokio();
    let builder = builder.with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default);
    let behaviour = |key: &libp2p::identity::Keypair| {
        let config = gossipsub::ConfigBuilder::default()
            .support_floodsub()
            .max_transmit_size(6 << 20)
            .build()
            .unwrap();
        let signed = MessageAuthenticity::Signed(key.clone());
        let filter = WhitelistSubscriptionFilter(topics.iter().map(|topic| topic.hash()).collect());
        let gossip = gossipsub::Behaviour::new_with_subscription_filter_and_transform;
        let mut gossip = gossip(signed, config, filter, keep.clone()).unwrap();
        for topic in &topics {
            gossip.subscribe(topic).unwrap();
        }
        let identify = identify::Config::new("ipfs/0.1.0".to_owned(), key.public());
        Listener {
            identify: identify::Behaviour::new(identify),
            gossip,
            headers: raw(Service::Headers),
            data: raw(Service::Data),
        }
    };
    builder.unwrap().with_behaviour(behaviour).unwrap().build()
}

#[tokio::test]
#[ignore = "by hand: it listens to a node that runs"]
async fn a_running_node_is_recorded() {
    let address: Multiaddr =
        std::env::var("BATON_RECORD").expect("BATON_RECORD is an address").parse().unwrap();
    let chain = std::env::var("BATON_RECORD_CHAIN").expect("BATON_RECORD_CHAIN is a chain");
    let keep = Keep::default();
    let mut swarm = listener(&chain, &keep);
    swarm.dial(address).unwrap();
    let requests = [
        HeaderRequest::Head,
        HeaderRequest::Range { from: Height(1), amount: 3 },
        HeaderRequest::Range { from: Height(1 << 40), amount: 1 },
    ];
    let mut open = vec![];
    let (mut answers, mut asked) = (vec![], false);
    let recording = async {
        while answers.len() < 2 * requests.len() || keep.0.lock().unwrap().len() < 2 * KEPT {
            let event = swarm.select_next_some().await;
            let SwarmEvent::Behaviour(event) = event else { continue };
            match event {
                ListenerEvent::Identify(identify::Event::Received { peer_id, .. }) if !asked => {
                    asked = true;
                    for request in &requests {
                        let frame = request.to_frame();
                        let behaviour = swarm.behaviour_mut();
                        let of_headers = behaviour.headers.send_request(&peer_id, frame.clone());
                        let of_data = behaviour.data.send_request(&peer_id, frame.clone());
                        open.push(("headers", of_headers, frame.clone()));
                        open.push(("data", of_data, frame));
                    }
                }
                ListenerEvent::Headers(request_response::Event::Message { message, .. }) => {
                    answers.extend(answer("headers", &open, message));
                }
                ListenerEvent::Data(request_response::Event::Message { message, .. }) => {
                    answers.extend(answer("data", &open, message));
                }
                _ => {}
            }
        }
    };
    timeout(Duration::from_secs(120), recording).await.expect("a node that runs says something");
    let kept = keep.0.lock().unwrap();
    for message in kept.iter() {
        println!("RECORDED gossip {}", hex::encode(message.encode_to_vec()));
    }
    for (service, frame, answer) in answers {
        println!("RECORDED exchange {service} {} {}", hex::encode(frame), hex::encode(answer));
    }
}

type Open = (&'static str, request_response::OutboundRequestId, Vec<u8>);

/// The frames of a question and its answer.
fn answer(
    service: &'static str,
    open: &[Open],
    message: Spoken<Vec<u8>, Vec<u8>>,
) -> Option<(&'static str, Vec<u8>, Vec<u8>)> {
    let Spoken::Response { request_id, response } = message else { return None };
    let asked = open.iter().find(|(of, id, _)| (*of, *id) == (service, request_id));
    asked.map(|(_, _, frame)| (service, frame.clone(), response))
}
