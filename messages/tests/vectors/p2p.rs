//! Identifiers, exchange frames and pubsub messages.

use baton_messages::types::{Hash, Height};
use baton_messages::wire::exchange::{Framed, HeaderRequest, HeaderResponse, frame, split_frame};
use baton_messages::wire::p2p::{KAD_PROTOCOL, PUBSUB_PROTOCOL, Service, rendezvous_key};
use ed25519_dalek::Signer as _;
use prost::Message;

use crate::keys::{p2p_key, peer_id};
use crate::{Vector, bytes, text};

/// Multibase base32: `b`, then lower case without padding.
fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let digits = bits.chunks(5).map(|five| {
        let value = (0..5).fold(0, |sum, bit| sum * 2 + usize::from(five.get(bit).copied().unwrap_or(0)));
        char::from(ALPHABET[value])
    });
    std::iter::once('b').chain(digits).collect()
}

pub fn identifiers(vector: Vector) {
    let chain = text(vector.input("chain_id"));
    let expect = |key: &str, value: &str| assert_eq!(value, text(vector.output(key)));
    expect("header_exchange_protocol", &Service::Headers.exchange_protocol(chain));
    expect("data_exchange_protocol", &Service::Data.exchange_protocol(chain));
    expect("header_topic", &Service::Headers.topic(chain));
    expect("data_topic", &Service::Data.topic(chain));
    expect("pubsub_protocol", PUBSUB_PROTOCOL);
    expect("kad_protocol", KAD_PROTOCOL);
    let key = rendezvous_key(chain);
    assert_eq!(key[..], vector.out_bytes("dht_provider_key"));
    // CID version 1, raw.
    expect("dht_cid", &base32(&[&[0x01, 0x55], &key[..]].concat()));
}

pub fn exchange_frames(vector: Vector) {
    let block_2 = Vector::named("header-block-2").out_hash("header_hash");
    let requests = [
        ("request_head", HeaderRequest::Head),
        ("request_height_2", HeaderRequest::Range { from: Height(2), amount: 1 }),
        ("request_range_2_64", HeaderRequest::Range { from: Height(2), amount: 64 }),
        ("request_by_hash_block_2", HeaderRequest::by_hash(block_2)),
    ];
    for (key, request) in requests {
        let bytes = vector.out_bytes(key);
        assert_eq!(request.to_frame(), bytes);
        let Framed { message, rest } = split_frame(&bytes).unwrap().unwrap();
        assert_eq!((HeaderRequest::decode(message), rest), (Ok(request), &[][..]));
    }
    let item = Vector::named("signed-header-block-2").out_bytes("p2p_header_hint_0");
    let responses = [
        ("response_not_found", HeaderResponse::not_found()),
        ("response_ok_block_2_header_hint_0", HeaderResponse::item(item)),
    ];
    for (key, response) in responses {
        let bytes = vector.out_bytes(key);
        assert_eq!(response.to_frame(), bytes);
        let Framed { message, rest } = split_frame(&bytes).unwrap().unwrap();
        assert_eq!((HeaderResponse::decode(message), rest), (Ok(response), &[][..]));
    }
}

/// libp2p's pubsub message (wire section 6.3).
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PubsubMessage {
    #[prost(bytes = "vec", optional, tag = "1")]
    pub from: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "2")]
    pub data: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "3")]
    pub seqno: Option<Vec<u8>>,
    #[prost(string, optional, tag = "4")]
    pub topic: Option<String>,
    #[prost(bytes = "vec", optional, tag = "5")]
    pub signature: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Subscription {
    #[prost(bool, optional, tag = "1")]
    subscribe: Option<bool>,
    #[prost(string, optional, tag = "2")]
    topic: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Rpc {
    #[prost(message, repeated, tag = "1")]
    subscriptions: Vec<Subscription>,
    #[prost(message, repeated, tag = "2")]
    publish: Vec<PubsubMessage>,
}

pub fn pubsub_message(vector: Vector) {
    let key = p2p_key();
    let topic = Service::Headers.topic("evolve-test");
    assert_eq!(topic, text(vector.input("topic")));
    let data = Vector::named("signed-header-block-2").out_bytes("p2p_header_hint_0");
    let seqno = bytes(vector.input("seqno")).to_vec();
    let unsigned = PubsubMessage {
        from: Some(peer_id(&key)),
        data: Some(data.to_vec()),
        seqno: Some(seqno.clone()),
        topic: Some(topic.clone()),
        signature: None,
    };
    let payload = [b"libp2p-pubsub:".to_vec(), unsigned.encode_to_vec()].concat();
    assert_eq!(Hash::of(&payload), vector.out_hash("signed_payload_sha256"));
    let signature = key.sign(&payload).to_bytes().to_vec();
    assert_eq!(signature, vector.out_bytes("signature"));

    let message = PubsubMessage { signature: Some(signature), ..unsigned };
    assert_eq!(message.encode_to_vec(), vector.out_bytes("message"));
    let publish = Rpc { subscriptions: vec![], publish: vec![message] };
    assert_eq!(frame(&publish.encode_to_vec()), vector.out_bytes("rpc_frame"));
    assert_eq!([peer_id(&key), seqno].concat(), vector.out_bytes("message_id"));

    let subscription = Subscription { subscribe: Some(true), topic: Some(topic) };
    let subscribe = Rpc { subscriptions: vec![subscription], publish: vec![] };
    assert_eq!(frame(&subscribe.encode_to_vec()), vector.out_bytes("subscribe_rpc_frame_minimal"));
}
