//! Every golden vector of ev-node's wire, by its id.
//!
//! `CHECKS` says which function checks which entry; an entry without a check, and a check
//! without an entry, fail. Most checks build a value from the vector's inputs and compare what
//! this crate makes of it. What belongs to others is checked by small encoders in this test:
//! peer ids, node keys and the CID (`keys`, `p2p`), pubsub messages (`p2p::pubsub_message`), the
//! removed gRPC executor's batches (`other::tx_batch`) and EVM payload attributes
//! (`other::payload_attributes`). Of the secp256k1 key the encoding and the address are checked,
//! not the point's derivation. The dev EVM genesis is another program's output; only its shape is.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod da;
mod frames;
mod headers;
mod keys;
mod live;
mod other;
mod p2p;
mod tolerance;

use std::collections::BTreeSet;
use std::sync::LazyLock;

use baton_messages::types::Hash;
use bytes::Bytes;
use serde_json::Value;

static FILE: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("evnode-vectors.json")).unwrap());

/// An entry of the file.
#[derive(Clone, Copy)]
struct Vector(&'static Value);

impl Vector {
    fn all() -> impl Iterator<Item = Self> {
        FILE["vectors"].as_array().unwrap().iter().map(Self)
    }

    fn named(id: &str) -> Self {
        Self::all().find(|vector| vector.id() == id).unwrap_or_else(|| panic!("no vector {id}"))
    }

    fn id(self) -> &'static str {
        self.0["id"].as_str().unwrap()
    }

    fn input(self, key: &str) -> &'static Value {
        present(&self.0["inputs"][key], key)
    }

    fn output(self, key: &str) -> &'static Value {
        present(&self.0["outputs"][key], key)
    }

    fn out_bytes(self, key: &str) -> Bytes {
        bytes(self.output(key))
    }

    fn out_hash(self, key: &str) -> Hash {
        Hash(self.out_bytes(key).as_ref().try_into().unwrap())
    }
}

fn present(value: &'static Value, key: &str) -> &'static Value {
    assert!(!value.is_null(), "no value {key}");
    value
}

/// A value of lower-case hex.
fn bytes(value: &Value) -> Bytes {
    hex::decode(text(value)).unwrap().into()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a string: {value}"))
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("not a number: {value}"))
}

type Check = fn(Vector);

const CHECKS: &[(&str, Check)] = &[
    ("keys-ed25519-sequencer", keys::sequencer),
    ("keys-ed25519-p2p", keys::p2p),
    ("keys-secp256k1", keys::secp256k1),
    ("data-empty-commitment", headers::empty_commitment),
    ("header-block-1", headers::header),
    ("header-block-2", headers::header),
    ("header-all-fields", headers::header),
    ("header-minimal", headers::header),
    ("header-zero", headers::zero),
    ("header-legacy-full", headers::header),
    ("header-legacy-consensus-only", headers::header),
    ("header-slim-as-legacy-payload", headers::slim_as_legacy),
    ("signed-header-block-1", headers::signed_header),
    ("signed-header-block-2", headers::signed_header),
    ("data-block-1", headers::data),
    ("data-block-2", headers::data),
    ("state-after-block-2", headers::state_after),
    ("state-zero", headers::state_zero),
    ("da-header-blob-block-1", da::header_blob),
    ("da-header-blob-block-2", da::header_blob),
    ("da-data-blob-block-2", da::data_blob),
    ("namespace:rollkit-headers", da::namespace),
    ("namespace:rollkit-data", da::namespace),
    ("namespace:evolve-headers", da::namespace),
    ("namespace:evolve-data", da::namespace),
    ("namespace:evolve-forced", da::namespace),
    ("namespace:<empty>", da::namespace),
    ("namespace:0x0000000000000000000000000000000000000000000000000000746573743031", da::namespace),
    ("commitment-len-1", da::commitment),
    ("commitment-len-478", da::commitment),
    ("commitment-len-479", da::commitment),
    ("commitment-len-50000", da::commitment),
    ("epochs", da::epochs),
    ("raft-block-state", other::raft_block_state),
    ("sequencer-checkpoint", other::checkpoint),
    ("batch", other::batch),
    ("grpc-executor-tx-batch", other::tx_batch),
    ("evm-payload-attributes", other::payload_attributes),
    ("p2p-identifiers", p2p::identifiers),
    ("header-exchange-frames", p2p::exchange_frames),
    ("floodsub-header-message", p2p::pubsub_message),
    ("decode-cases", tolerance::decode_cases),
];

#[test]
fn every_vector_has_a_check_and_every_check_a_vector() {
    let vectors: BTreeSet<&str> = Vector::all().map(Vector::id).collect();
    let checks: BTreeSet<&str> = CHECKS.iter().map(|(id, _)| *id).collect();
    assert_eq!(vectors, checks);
    assert_eq!(Vector::all().count(), CHECKS.len(), "no id twice");
}

#[test]
fn every_vector_holds() {
    for (id, check) in CHECKS {
        let outcome = std::panic::catch_unwind(|| check(Vector::named(id)));
        assert!(outcome.is_ok(), "vector {id} does not hold; see above");
    }
}

#[test]
fn every_constant_of_the_upstream_tests_holds() {
    for constant in FILE["constants_from_upstream_tests"].as_array().unwrap() {
        let value = &constant["value"];
        match text(&constant["what"]) {
            "data_hash of an empty block" => headers::empty_commitment_is(&bytes(value)),
            "serialized length of header-all-fields" => {
                let header = headers::header_of(Vector::named("header-all-fields"));
                assert_eq!(header.encode().len() as u64, number(value));
            }
            what if what.starts_with("SHA-256 of empty input") => {
                assert_eq!(Hash::of(b"").0[..], bytes(&value[0]));
                assert_eq!(Hash::of(b"hello").0[..], bytes(&value[1]));
            }
            what if what.starts_with("two-share commitment") => da::two_shares(&bytes(value)),
            what if what.starts_with("blob commitment (base64)") => da::celestia_sample(text(value)),
            what if what.starts_with("dev EVM genesis") => {
                // Another program's hashes; the state root is the application hash of block 1.
                let root = text(&value["state_root"]).trim_start_matches("0x");
                assert_eq!(root, text(Vector::named("header-block-1").input("app_hash")));
                assert_eq!(text(&value["hash"]).len(), 66);
            }
            "namespace structural rules" => da::namespace_structure(text(value)),
            what if what.starts_with("first signed SignedHeader") => {
                assert_eq!(baton_messages::chain::SignedHeader::default().encode(), bytes(value));
            }
            other => panic!("no check for the constant: {other}"),
        }
    }
}
