//! The RPC messages in JSON, as protojson reads and writes them (wire section 7.2).

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use baton_messages::chain::{Data, Header, Metadata, SignedHeader, Signer, State};
use baton_messages::da::Namespace;
use baton_messages::types::{DaHeight, Hash, Height, Timestamp, Tx};
use baton_messages::wire::proto;
use baton_messages::wire::rpc::{
    Empty, GetBlockRequest, GetBlockResponse, GetGenesisDaHeightResponse, GetMetadataResponse,
    GetNamespaceResponse, GetNetInfoResponse, GetP2pStoreInfoResponse, GetStateResponse, Identifier, NetInfo,
    P2pStoreEntry, P2pStoreSnapshot,
};
use bytes::Bytes;
use prost::Message;
use serde_json::{Value, from_value, json, to_value};

fn example() -> GetBlockResponse {
    let header = Header {
        height: Height(2),
        time: Timestamp(1_735_787_046_123_456_790),
        last_header_hash: Bytes::from_static(&[1; 3]),
        chain_id: "evolve-test".to_owned(),
        ..Header::default()
    };
    let signed = SignedHeader {
        header,
        signature: Bytes::from_static(&[0xff; 2]),
        signer: Signer { address: Bytes::from_static(b"a"), pub_key: Bytes::from_static(b"k") },
    };
    let data = Data {
        metadata: Some(Metadata { height: Height(2), ..Metadata::default() }),
        txs: vec![Tx(Bytes::from_static(b"key=value")), Tx(Bytes::new())],
    };
    GetBlockResponse::of(&signed, &data, Some(DaHeight(7)), None)
}

fn example_json() -> Value {
    json!({
        "block": {
            "header": {
                "header": {
                    "version": {},
                    "height": "2",
                    "time": "1735787046123456790",
                    "lastHeaderHash": "AQEB",
                    "chainId": "evolve-test"
                },
                "signature": "//8=",
                "signer": { "address": "YQ==", "pubKey": "aw==" }
            },
            "data": { "metadata": { "height": "2" }, "txs": ["a2V5PXZhbHVl", ""] }
        },
        "headerDaHeight": "7"
    })
}

#[test]
fn a_block_is_written_with_strings_for_numbers_and_without_zeroes() {
    assert_eq!(to_value(example()).unwrap(), example_json());
}

#[test]
fn what_is_written_is_read_again() {
    assert_eq!(from_value::<GetBlockResponse>(example_json()).unwrap(), example());
}

#[test]
fn both_spellings_numbers_nulls_and_unknown_fields_are_read() {
    let loose = json!({
        "block": {
            "header": {
                "header": {
                    "version": { "block": null, "app": 0 },
                    "height": 2,
                    "time": "1735787046123456790",
                    "last_header_hash": "AQEB",
                    "chain_id": "evolve-test",
                    "data_hash": null
                },
                "signature": "__8",
                "signer": { "address": "YQ", "pub_key": "aw==" },
                "novelty": [1, { "a": "b" }]
            },
            "data": { "metadata": { "height": 2.0, "chainId": null }, "txs": ["a2V5PXZhbHVl", ""] }
        },
        "header_da_height": 7,
        "dataDaHeight": null
    });
    assert_eq!(from_value::<GetBlockResponse>(loose).unwrap(), example());
}

#[test]
fn numbers_out_of_range_and_broken_base64_are_refused() {
    for bad in [
        json!("-1"),
        json!(-1),
        json!(1.5),
        json!("18446744073709551616"),
        json!("x"),
        json!({}),
        json!(true),
    ] {
        assert!(from_value::<GetGenesisDaHeightResponse>(json!({ "height": bad.clone() })).is_err(), "{bad}");
    }
    for bad in [json!("a"), json!("!!!!"), json!(1), json!([1])] {
        assert!(from_value::<GetMetadataResponse>(json!({ "value": bad.clone() })).is_err(), "{bad}");
    }
}

#[test]
fn a_block_is_asked_for_by_height_or_by_hash_but_not_by_both() {
    let read = |text| from_value::<GetBlockRequest>(text).map(|request| request.identifier);
    assert_eq!(read(json!({ "height": "0" })).unwrap(), Some(Identifier::Height(0)));
    assert_eq!(read(json!({ "height": 5 })).unwrap(), Some(Identifier::Height(5)));
    assert_eq!(
        read(json!({ "hash": "AQID" })).unwrap(),
        Some(Identifier::Hash(Bytes::from_static(&[1, 2, 3])))
    );
    assert_eq!(read(json!({})).unwrap(), None);
    assert!(read(json!({ "height": "1", "hash": "AQID" })).is_err());
    let latest = GetBlockRequest { identifier: Some(Identifier::Height(0)) };
    assert_eq!(to_value(&latest).unwrap(), json!({ "height": "0" }));
    assert_eq!(latest.encode_to_vec(), [0x08, 0x00]);
    assert_eq!(GetBlockRequest::decode(&[0x08, 0x00][..]).unwrap(), latest);
}

#[test]
fn a_state_leaves_its_last_header_hash_out_and_writes_times_as_text() {
    let mut state = State { last_header_hash: Bytes::from_static(&[9; 32]), ..State::default() };
    let json = |state: &State| to_value(GetStateResponse::of(state)).unwrap()["state"].clone();
    assert_eq!(json(&state), json!({ "version": {}, "lastBlockTime": "0001-01-01T00:00:00Z" }));
    for (nanos, text) in [
        (0, "1970-01-01T00:00:00Z"),
        (1_735_787_045_000_000_000, "2025-01-02T03:04:05Z"),
        (1_735_787_045_120_000_000, "2025-01-02T03:04:05.120Z"),
        (1_735_787_045_123_400_000, "2025-01-02T03:04:05.123400Z"),
        (1_735_787_045_123_456_789, "2025-01-02T03:04:05.123456789Z"),
    ] {
        state.last_block_time = Some(Timestamp(nanos));
        assert_eq!(json(&state)["lastBlockTime"], text);
        let read: GetStateResponse = from_value(json!({ "state": { "lastBlockTime": text } })).unwrap();
        assert_eq!(read.state.unwrap().last_block_time.unwrap().to_time(), Ok(Some(Timestamp(nanos))));
    }
    let zero: proto::Timestamp = from_value(json!("0001-01-01T00:00:00Z")).unwrap();
    assert_eq!(zero.to_time(), Ok(None));
    let offset: proto::Timestamp = from_value(json!("2025-01-02T04:04:05+01:00")).unwrap();
    assert_eq!(offset.seconds, 1_735_787_045);
    for bad in ["2025-01-02", "", "2025-01-02T03:04:05"] {
        assert!(from_value::<proto::Timestamp>(json!(bad)).is_err(), "{bad}");
    }
}

#[test]
fn the_other_answers_have_protojson_names_and_their_field_numbers() {
    assert_eq!(to_value(Empty {}).unwrap(), json!({}));
    assert_eq!(from_value::<Empty>(json!({ "ignored": 1 })).unwrap(), Empty {});
    assert_eq!(GetGenesisDaHeightResponse { height: 5 }.encode_to_vec(), [0x18, 5]);

    let namespaces = GetNamespaceResponse::of(Namespace::of("h"), Namespace::of("d"));
    let json = to_value(&namespaces).unwrap();
    assert_eq!(json["headerNamespace"].as_str().unwrap().len(), 60);
    assert!(json["dataNamespace"].as_str().unwrap().starts_with("0x00"));

    let net_info = NetInfo { id: "i".into(), listen_addresses: vec!["a".into()], connected_peers: vec![] };
    let net = GetNetInfoResponse { net_info: Some(net_info) };
    assert_eq!(to_value(&net).unwrap(), json!({ "netInfo": { "id": "i", "listenAddresses": ["a"] } }));
    let snake = json!({ "net_info": { "id": "i", "listen_addresses": ["a"], "connected_peers": null } });
    assert_eq!(from_value::<GetNetInfoResponse>(snake).unwrap(), net);

    let entry = P2pStoreEntry::of(Height(3), Hash([1; 32]), Timestamp(0));
    let store = P2pStoreSnapshot {
        label: "Header Store".into(),
        height: 3,
        head: Some(entry.clone()),
        tail: Some(entry),
    };
    let bytes = store.encode_to_vec();
    assert_eq!(P2pStoreSnapshot::decode(bytes.as_slice()).unwrap(), store);
    let head = bytes.iter().position(|byte| *byte == 0x22).unwrap();
    assert_eq!(bytes[head + 2 + usize::from(bytes[head + 1])], 0x32, "head is field 4 and tail field 6");
    let stores = GetP2pStoreInfoResponse { stores: vec![store] };
    assert_eq!(to_value(&stores).unwrap()["stores"][0]["head"]["time"], "1970-01-01T00:00:00Z");
}

#[test]
fn an_answer_is_the_same_in_protobuf() {
    let answer = example();
    assert_eq!(GetBlockResponse::decode(answer.encode_to_vec().as_slice()).unwrap(), answer);
    let signed: SignedHeader = SignedHeader { signer: Signer::default(), ..SignedHeader::default() };
    let block = GetBlockResponse::of(&signed, &Data::default(), None, None);
    assert_eq!(block.encode_to_vec(), hex::decode("0a0a0a060a020a001a001200").unwrap());
}
