//! One value of every stored or sent type.

use std::sync::Arc;

use baton_messages::chain::{
    Block, DaHeaderEnvelope, Data, Header, LegacyHeaderFields, Metadata, P2pData, P2pSignedHeader,
    SignedData, SignedHeader, Signer, State, Version,
};
use baton_messages::command::{BlockEntry, DaProgress, ForcedPosition, HeaderSignature};
use baton_messages::genesis::Genesis;
use baton_messages::types::{DaHeight, Hash, Height, Member, Place, Term, Timestamp, Tip, Tx};
use bytes::Bytes;

const TIME: Timestamp = Timestamp(1_735_787_046_123_456_790);

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

pub fn header() -> Header {
    Header {
        version: Version { block: 1, app: 300 },
        height: Height(2),
        time: TIME,
        last_header_hash: bytes("last"),
        data_hash: bytes("data"),
        app_hash: bytes("root"),
        proposer_address: bytes("proposer"),
        validator_hash: bytes(""),
        chain_id: "chain".to_owned(),
        legacy: None,
    }
}

pub fn legacy_header() -> Header {
    let legacy = LegacyHeaderFields {
        last_commit_hash: bytes("commit"),
        consensus_hash: bytes(""),
        last_results_hash: bytes("results"),
    };
    Header { legacy: Some(legacy), ..header() }
}

pub fn data() -> Data {
    let metadata = Metadata {
        chain_id: "chain".to_owned(),
        height: Height(2),
        time: TIME,
        last_data_hash: bytes("before"),
    };
    Data { metadata: Some(metadata), txs: vec![Tx(bytes("key=value")), Tx(bytes(""))] }
}

pub fn block() -> Block {
    Block::new(header(), data())
}

pub fn signer() -> Signer {
    Signer { address: bytes("address"), pub_key: bytes("key") }
}

pub fn signed_header() -> SignedHeader {
    SignedHeader { header: header(), signature: bytes("signature"), signer: signer() }
}

pub fn signed_data() -> SignedData {
    SignedData { data: data(), signature: bytes("signature"), signer: signer() }
}

pub fn envelope() -> DaHeaderEnvelope {
    DaHeaderEnvelope { signed: signed_header(), envelope_signature: bytes("envelope") }
}

pub fn p2p_header() -> P2pSignedHeader {
    P2pSignedHeader { signed: signed_header(), da_height_hint: 7 }
}

pub fn p2p_data() -> P2pData {
    P2pData { data: data(), da_height_hint: 7 }
}

pub fn state() -> State {
    State {
        version: Version::default(),
        chain_id: "chain".to_owned(),
        initial_height: Height(1),
        last_block_height: Height(2),
        last_block_time: Some(TIME),
        da_height: 7,
        app_hash: bytes("root"),
        last_header_hash: bytes("header"),
        next_proposer_address: bytes("proposer"),
    }
}

pub fn signature() -> HeaderSignature {
    HeaderSignature { height: Height(1), hash: Hash([0xaa; 32]), signature: bytes("signature") }
}

pub fn entry() -> BlockEntry {
    BlockEntry {
        term: Term(5),
        block: Arc::new(block()),
        tail: Some(signature()),
        forced: ForcedPosition { da_height: DaHeight(8), tx_index: 9 },
    }
}

pub fn tip() -> Tip {
    Tip { height: Height(2), hash: Hash([0xbb; 32]), time: TIME, term: Term(5) }
}

pub fn da_progress() -> DaProgress {
    DaProgress { headers: Height(4), data: Height(3), included: Height(2), da_height: DaHeight(1000) }
}

pub fn member() -> Member {
    Member {
        name: "a".to_owned(),
        address: "127.0.0.1:1".to_owned(),
        storage: uuid::Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
        witness: true,
    }
}

pub fn place() -> Place {
    Place { height: Height(2), index: 70_000, header_hash: Hash([0xcc; 32]) }
}

pub fn genesis() -> Genesis {
    Genesis {
        chain_id: "chain".to_owned(),
        start_time: TIME,
        initial_height: Height(1),
        proposer_address: bytes("proposer"),
        da_start_height: DaHeight(3),
        da_epoch_forced_inclusion: 50,
    }
}
