//! Replication and sequencer records, and formats that belong to executors.

use baton_messages::types::{Hash, Tx};
use baton_messages::wire::records::{Batch, RaftBlockState, SequencerDaCheckpoint};
use prost::Message;
use serde_json::{Value, json};

use crate::headers::{data_of, signed_of, txs};
use crate::{Vector, number, text};

pub fn raft_block_state(vector: Vector) {
    let height = number(vector.input("block"));
    let signed = signed_of(Vector::named(&format!("header-block-{height}")));
    let entry = RaftBlockState {
        height,
        last_submitted_da_header_height: number(vector.input("last_submitted_da_header_height")),
        last_submitted_da_data_height: number(vector.input("last_submitted_da_data_height")),
        hash: signed.header.hash().to_bytes(),
        timestamp: signed.header.time.0,
        header: signed.encode().into(),
        data: data_of(Vector::named(&format!("data-block-{height}"))).encode().into(),
    };
    let encoded = entry.encode_to_vec();
    assert_eq!(encoded, vector.out_bytes("raft_block_state_proto"));
    assert_eq!(Hash::of(&encoded), vector.out_hash("sha256"));
    assert_eq!(RaftBlockState::decode(encoded.as_slice()), Ok(entry));
}

pub fn checkpoint(vector: Vector) {
    let checkpoint = SequencerDaCheckpoint { da_height: 9, tx_index: 3 };
    assert_eq!(checkpoint.encode_to_vec(), vector.out_bytes("proto"));
    assert_eq!(SequencerDaCheckpoint::decode(vector.out_bytes("proto")), Ok(checkpoint));
}

pub fn batch(vector: Vector) {
    let txs = txs(vector.input("txs"));
    let batch = Batch::from(txs.as_slice());
    assert_eq!(batch.encode_to_vec(), vector.out_bytes("batch_proto"));
    assert_eq!(Batch::decode(vector.out_bytes("batch_proto")), Ok(batch.clone()));
    assert_eq!(batch.hash(), vector.out_hash("batch_hash"));
    assert_eq!(Batch::default().hash(), vector.out_hash("empty_batch_hash"));
}

/// `TxBatch` of the removed gRPC executor (wire section 7).
#[derive(Clone, PartialEq, Eq, Message)]
struct TxBatch {
    #[prost(bytes = "vec", tag = "1")]
    data: Vec<u8>,
    #[prost(uint32, repeated, tag = "2")]
    tx_sizes: Vec<u32>,
}

pub fn tx_batch(vector: Vector) {
    let txs = txs(vector.input("txs"));
    let batch = TxBatch {
        data: txs.iter().flat_map(|tx| tx.0.iter().copied()).collect(),
        tx_sizes: txs.iter().map(|tx| u32::try_from(tx.0.len()).unwrap()).collect(),
    };
    assert_eq!(batch.encode_to_vec(), vector.out_bytes("tx_batch_proto"));
}

/// The attributes of wire section 8.3.
fn attributes(height: u64, time_ns: u64, gas_limit: u64, fee_recipient: &str, txs: &[Tx]) -> Value {
    let zero = format!("0x{}", "0".repeat(64));
    let txs = txs.iter().filter(|tx| !tx.0.is_empty());
    json!({
        "timestamp": time_ns / 1_000_000_000,
        "prevRandao": format!("0x{height:064x}"),
        "suggestedFeeRecipient": fee_recipient,
        "withdrawals": [],
        "parentBeaconBlockRoot": zero,
        "transactions": txs.map(|tx| format!("0x{}", hex::encode(&tx.0))).collect::<Vec<_>>(),
        "gasLimit": gas_limit,
    })
}

pub fn payload_attributes(vector: Vector) {
    let height = number(vector.input("height"));
    let built = attributes(
        height,
        number(vector.input("time_ns")),
        number(vector.input("parent_gas_limit")),
        text(vector.input("fee_recipient")),
        &txs(vector.input("txs")),
    );
    assert_eq!(built, *vector.output("attributes_v3"));
    assert_eq!(json!({ "slotNumber": format!("0x{height:x}") }), *vector.output("extra_v4"));
}
