//! What a running ev-node sent, byte for byte: the pubsub messages it gossiped, the frames of its
//! exchange, what its RPC answered, and its blobs on DA (`docs/interop.md` says how they were recorded).

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use baton_messages::chain::{DaHeaderEnvelope, P2pData, P2pSignedHeader, SignedData};
use baton_messages::da::{Blob, Namespace};
use baton_messages::types::{Height, Timestamp};
use baton_messages::wire::exchange::{Framed, HeaderRequest, HeaderResponse, Status, split_frame};
use baton_messages::wire::p2p::Service;
use baton_messages::wire::rpc::{GetBlockResponse, GetStateResponse};
use baton_messages::wire::validate::EnvelopeKind;
use bytes::Bytes;
use ed25519_dalek::{Signature, Verifier, VerifyingKey};
use prost::Message;
use serde_json::Value;

use crate::p2p::PubsubMessage;
use crate::{bytes, text};

static FILE: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("evnode-frames.json")).unwrap());

/// Long after they were made.
const NOW: Timestamp = Timestamp(1 << 62);

fn chain() -> &'static str {
    text(&FILE["chain_id"])
}

/// Checks what a peer would, and gives the height.
fn check_item(service: Service, payload: &[u8]) -> Height {
    match service {
        Service::Headers => {
            let item = P2pSignedHeader::decode(payload).unwrap();
            assert_eq!(item.encode(), payload);
            item.signed.validate(NOW).unwrap();
            assert_eq!(item.signed.header.chain_id, chain());
            item.signed.header.height
        }
        Service::Data => {
            let item = P2pData::decode_from_peer(payload).unwrap();
            assert_eq!(item.encode(), payload);
            item.data.validate(NOW).unwrap();
            item.data.metadata.unwrap().height
        }
    }
}

#[test]
fn the_pubsub_messages_of_a_running_ev_node_are_signed_and_encoded_as_expected() {
    let mut told = vec![];
    for message in FILE["gossip"].as_array().unwrap() {
        let encoded = bytes(message);
        let message = PubsubMessage::decode(&encoded[..]).unwrap();
        assert_eq!(message.encode_to_vec(), encoded);
        let unsigned = PubsubMessage { signature: None, ..message.clone() };
        let payload = [b"libp2p-pubsub:".to_vec(), unsigned.encode_to_vec()].concat();
        // The peer id holds the key: an identity multihash of libp2p's encoding of it.
        let from = message.from.unwrap();
        let key = from.strip_prefix(&[0, 36, 8, 1, 18, 32]).unwrap();
        let key = VerifyingKey::from_bytes(key.try_into().unwrap()).unwrap();
        let signature = Signature::from_slice(&message.signature.unwrap()).unwrap();
        key.verify(&payload, &signature).unwrap();
        assert_eq!(message.seqno.unwrap().len(), 8);
        let topic = message.topic.unwrap();
        let services = [Service::Headers, Service::Data];
        let service = services.into_iter().find(|service| service.topic(chain()) == topic).unwrap();
        told.push((service, check_item(service, &message.data.unwrap())));
    }
    let (headers, data): (Vec<_>, Vec<_>) =
        told.iter().partition(|(service, _)| *service == Service::Headers);
    assert!(headers.len() >= 4 && data.len() >= 4, "{told:?}");
    for (_, height) in data {
        let place = |service| told.iter().position(|item| *item == (service, height));
        // The recording may have begun between the two.
        assert!(place(Service::Headers) < place(Service::Data), "the header of {height} comes first");
    }
}

#[test]
fn the_exchange_of_a_running_ev_node_has_the_frames_that_are_expected() {
    let mut seen = vec![];
    for recorded in FILE["exchange"].as_array().unwrap() {
        let service = match text(&recorded["service"]) {
            "headers" => Service::Headers,
            _ => Service::Data,
        };
        let framed = bytes(&recorded["request"]);
        let request = HeaderRequest::decode(split_frame(&framed).unwrap().unwrap().message).unwrap();
        let answer = bytes(&recorded["response"]);
        let (mut rest, mut again, mut found) = (&answer[..], vec![], vec![]);
        while let Some(Framed { message, rest: after }) = split_frame(rest).unwrap() {
            let response = HeaderResponse::decode(message).unwrap();
            again.extend(response.to_frame());
            found.push(match response.status {
                Status::Ok => Some(check_item(service, &response.body)),
                status => {
                    assert_eq!((status, response.body.len()), (Status::NotFound, 0));
                    None
                }
            });
            rest = after;
        }
        assert!(rest.is_empty());
        assert_eq!(again, answer, "it is encoded as ev-node does");
        match &request {
            HeaderRequest::Head => assert!(matches!(found[..], [Some(_)]), "{found:?}"),
            HeaderRequest::Range { from: Height(1), amount: 3 } => {
                assert_eq!(found, [1, 2, 3].map(|height| Some(Height(height))));
            }
            _ => assert_eq!(found, [None], "nobody has block {request:?}"),
        }
        seen.push((text(&recorded["service"]), request));
    }
    assert_eq!(seen.len(), 6, "{seen:?}");
}

#[test]
fn the_rpc_of_a_running_ev_node_is_spoken_here_to_the_byte() {
    let blocks = FILE["blocks"].as_array().unwrap();
    assert!(blocks.len() >= 4);
    let mut with_txs = 0;
    for recorded in blocks {
        let encoded = bytes(&recorded["proto"]);
        let answer = GetBlockResponse::decode(&encoded[..]).unwrap();
        assert_eq!(answer.encode_to_vec(), encoded);
        assert_eq!(serde_json::to_value(&answer).unwrap(), recorded["json"]);
        assert_eq!(serde_json::from_value::<GetBlockResponse>(recorded["json"].clone()).unwrap(), answer);
        with_txs += u32::from(recorded["json"]["block"]["data"]["txs"].is_array());
    }
    assert!(with_txs > 0, "some of them have transactions");
    let encoded = bytes(&FILE["state"]["proto"]);
    let state = GetStateResponse::decode(&encoded[..]).unwrap();
    assert_eq!(state.encode_to_vec(), encoded);
    assert_eq!(serde_json::to_value(&state).unwrap(), FILE["state"]["json"]);
}

#[test]
fn the_blobs_of_a_running_ev_node_are_its_blocks_with_the_commitments_that_are_computed_here() {
    let namespace = Namespace::of(text(&FILE["namespace"]));
    let (mut headers, mut data) = (vec![], vec![]);
    for recorded in FILE["blobs"].as_array().unwrap() {
        assert_eq!(text(&recorded["namespace"]), namespace.to_base64());
        let blob = Blob { namespace, data: Bytes::from(STANDARD.decode(text(&recorded["data"])).unwrap()) };
        assert_eq!(STANDARD.encode(blob.commitment().0), text(&recorded["commitment"]));
        if let Ok(envelope) = DaHeaderEnvelope::decode(&blob.data) {
            assert_eq!(envelope.encode(), blob.data);
            assert_eq!(envelope.verify(true), Ok(EnvelopeKind::Signed));
            envelope.signed.validate(NOW).unwrap();
            headers.push(envelope.signed);
        } else {
            let signed = SignedData::decode(&blob.data).unwrap();
            assert_eq!(signed.encode(), blob.data);
            signed.verify().unwrap();
            data.push(signed.data);
        }
    }
    // They are the blocks that the RPC answered.
    for recorded in FILE["blocks"].as_array().unwrap() {
        let answer = GetBlockResponse::decode(&bytes(&recorded["proto"])[..]).unwrap();
        let block = answer.block.unwrap();
        let signed = block.header.unwrap();
        let header = headers.iter().find(|held| held.encode() == signed.encode_to_vec());
        let header = &header.unwrap_or_else(|| panic!("{} is on DA", recorded["json"])).header;
        let txs = block.data.unwrap().txs;
        if !txs.is_empty() {
            let held = data.iter().find(|data| data.commitment().0 == header.data_hash[..]).unwrap();
            assert_eq!(held.txs.iter().map(|tx| tx.0.clone()).collect::<Vec<_>>(), txs);
            header.validate_data(held).unwrap();
        }
    }
    assert!(!headers.is_empty() && !data.is_empty());
}
