//! Headers, data and state.

use baton_messages::chain::{
    Block, Data, Header, LegacyHeaderFields, Metadata, P2pData, P2pSignedHeader, SignedHeader, State, Version,
};
use baton_messages::types::{Hash, Height, StateRoot, Timestamp, Tx};
use bytes::Bytes;
use ed25519_dalek::Signer as _;
use serde_json::Value;

use crate::keys::{sequencer_key, sequencer_signer};
use crate::{Vector, bytes, number, text};

pub fn empty_commitment(vector: Vector) {
    empty_commitment_is(&vector.out_bytes("data_hash"));
}

pub fn empty_commitment_is(expected: &[u8]) {
    assert_eq!(Data::default().commitment().0[..], *expected);
    let metadata = Some(Metadata { height: Height(1), ..Metadata::default() });
    assert_eq!(Data { metadata, txs: vec![] }.commitment().0[..], *expected);
}

pub fn header_of(vector: Vector) -> Header {
    let input = |key: &str| bytes(vector.input(key));
    let legacy = &vector.0["inputs"]["legacy"];
    Header {
        version: Version {
            block: number(&vector.input("version")[0]),
            app: number(&vector.input("version")[1]),
        },
        height: Height(number(vector.input("height"))),
        time: Timestamp(number(vector.input("time"))),
        last_header_hash: input("last_header_hash"),
        data_hash: input("data_hash"),
        app_hash: input("app_hash"),
        proposer_address: input("proposer_address"),
        validator_hash: input("validator_hash"),
        chain_id: text(vector.input("chain_id")).to_owned(),
        legacy: legacy.is_object().then(|| LegacyHeaderFields {
            last_commit_hash: bytes(&legacy["last_commit_hash"]),
            consensus_hash: bytes(&legacy["consensus_hash"]),
            last_results_hash: bytes(&legacy["last_results_hash"]),
        }),
    }
}

pub fn header(vector: Vector) {
    let header = header_of(vector);
    let encoded = vector.out_bytes("header_proto");
    assert_eq!(header.encode(), encoded);
    assert_eq!(Header::decode(&encoded), Ok(header.clone()));
    assert_eq!(header.hash(), vector.out_hash("header_hash"));
    assert_eq!(Block::new(header.clone(), Data::default()).hash(), vector.out_hash("header_hash"));
    assert_eq!(header.is_legacy(), header.legacy.is_some());

    let outputs = &vector.0["outputs"];
    if outputs["signature"].is_string() {
        assert_eq!(sign(&encoded), bytes(&outputs["signature"]));
        signed_of(vector).verify_signature().unwrap();
    }
    if outputs["legacy_payload"].is_string() {
        assert_eq!(header.legacy_payload(), bytes(&outputs["legacy_payload"]));
        let legacy = SignedHeader { signature: sign(&header.legacy_payload()), ..signed_of_header(&header) };
        legacy.verify_signature().unwrap();
    }
    if outputs["slim_hash_not_used"].is_string() {
        assert_eq!(Hash::of(&encoded).0[..], bytes(&outputs["slim_hash_not_used"]));
    }
}

pub fn zero(vector: Vector) {
    assert_eq!(Header::default().encode(), vector.out_bytes("header_proto"));
    assert_eq!(Header::default().hash(), vector.out_hash("header_hash"));
    assert_eq!(SignedHeader::default().encode(), vector.out_bytes("signed_header_proto"));
}

pub fn slim_as_legacy(vector: Vector) {
    let header = header_of(Vector::named(text(vector.input("header"))));
    let payload = vector.out_bytes("legacy_payload");
    assert_eq!(header.legacy_payload(), payload);
    assert_eq!(header.signature_payloads(), [header.encode(), payload.to_vec()]);
}

pub fn sign(payload: &[u8]) -> Bytes {
    sequencer_key().sign(payload).to_bytes().to_vec().into()
}

fn signed_of_header(header: &Header) -> SignedHeader {
    SignedHeader { header: header.clone(), signature: sign(&header.encode()), signer: sequencer_signer() }
}

/// The signed header made of a header vector.
pub fn signed_of(vector: Vector) -> SignedHeader {
    signed_of_header(&header_of(vector))
}

pub fn signed_header(vector: Vector) {
    let signed = signed_of(Vector::named(text(vector.input("header"))));
    let encoded = vector.out_bytes("signed_header_proto");
    assert_eq!(signed.encode(), encoded);
    assert_eq!(SignedHeader::decode(&encoded), Ok(signed.clone()));
    signed.validate(signed.header.time).unwrap();

    let index = Hash::of(&signed.encode());
    assert_eq!(index, vector.out_hash("store_index_hash"));
    assert_eq!(format!("/i/{}", index.to_string().to_uppercase()), text(vector.output("store_index_key")));

    for (hint, key) in [(0, "p2p_header_hint_0"), (42, "p2p_header_hint_42")] {
        let message = P2pSignedHeader { signed: signed.clone(), da_height_hint: hint };
        assert_eq!(message.encode(), vector.out_bytes(key));
        assert_eq!(P2pSignedHeader::decode(&vector.out_bytes(key)), Ok(message));
        assert_eq!(SignedHeader::decode(&vector.out_bytes(key)), Ok(signed.clone()));
    }
}

pub fn txs(list: &Value) -> Vec<Tx> {
    list.as_array().unwrap().iter().map(|tx| Tx(bytes(tx))).collect()
}

pub fn data_of(vector: Vector) -> Data {
    let metadata = vector.input("metadata");
    let metadata = Metadata {
        chain_id: text(&metadata["chain_id"]).to_owned(),
        height: Height(number(&metadata["height"])),
        time: Timestamp(number(&metadata["time"])),
        last_data_hash: bytes(&metadata["last_data_hash"]),
    };
    Data { metadata: Some(metadata), txs: txs(vector.input("txs")) }
}

pub fn data(vector: Vector) {
    let data = data_of(vector);
    let encoded = vector.out_bytes("data_proto");
    assert_eq!(data.encode(), encoded);
    assert_eq!(Data::decode(&encoded), Ok(data.clone()));
    assert_eq!(data.hash(), vector.out_hash("data_hash"));
    assert_eq!(data.commitment(), vector.out_hash("da_commitment"));
    header_of(Vector::named(&vector.id().replace("data", "header"))).validate_data(&data).unwrap();

    for (hint, key) in [(0, "p2p_data_hint_0"), (42, "p2p_data_hint_42")] {
        let message = P2pData { data: data.clone(), da_height_hint: hint };
        assert_eq!(message.encode(), vector.out_bytes(key));
        assert_eq!(P2pData::decode(&vector.out_bytes(key)), Ok(message));
        assert_eq!(Data::decode(&vector.out_bytes(key)), Ok(data.clone()));
    }
}

pub fn state_after(vector: Vector) {
    let time = vector.input("time");
    let state = State {
        version: Version::default(),
        chain_id: text(vector.input("chain_id")).to_owned(),
        initial_height: Height(number(vector.input("initial_height"))),
        last_block_height: Height(number(vector.input("last_block_height"))),
        last_block_time: Some(Timestamp(number(&time[0]) * 1_000_000_000 + number(&time[1]))),
        da_height: number(vector.input("da_height")),
        app_hash: bytes(vector.input("app_hash")),
        last_header_hash: bytes(vector.input("last_header_hash")),
        next_proposer_address: bytes(vector.input("next_proposer")),
    };
    assert_eq!(state.encode(), vector.out_bytes("state_proto"));
    assert_eq!(State::decode(&vector.out_bytes("state_proto")), Ok(state.clone()));

    let [first, second] = ["1", "2"].map(|n| {
        let header = header_of(Vector::named(&format!("header-block-{n}")));
        Block::new(header, data_of(Vector::named(&format!("data-block-{n}"))))
    });
    let genesis = State {
        last_block_height: Height(0),
        last_block_time: None,
        app_hash: first.header().app_hash.clone(),
        last_header_hash: Bytes::new(),
        ..state.clone()
    };
    genesis.validate_next(first.header()).unwrap();
    let between = genesis.after(&first, &StateRoot(second.header().app_hash.clone()), &Bytes::new());
    between.validate_next(second.header()).unwrap();
    assert_eq!(between.after(&second, &StateRoot(state.app_hash.clone()), &Bytes::new()), state);
}

pub fn state_zero(vector: Vector) {
    assert_eq!(State::default().encode(), vector.out_bytes("state_proto"));
    assert_eq!(State::decode(&vector.out_bytes("state_proto")), Ok(State::default()));
}
