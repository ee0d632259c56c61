//! Keys, addresses and peer ids.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use baton_messages::chain::Signer;
use baton_messages::types::Hash;
use baton_messages::wire::keys::{KeyType, PublicKey};
use ed25519_dalek::SigningKey;
use serde_json::json;

use crate::{Vector, bytes, text};

fn key_of(id: &str) -> SigningKey {
    let seed = bytes(Vector::named(id).input("ed25519_seed"));
    SigningKey::from_bytes(seed.as_ref().try_into().unwrap())
}

pub fn sequencer_key() -> SigningKey {
    key_of("keys-ed25519-sequencer")
}

pub fn sequencer_signer() -> Signer {
    Signer::ed25519(sequencer_key().verifying_key().as_bytes())
}

pub fn p2p_key() -> SigningKey {
    key_of("keys-ed25519-p2p")
}

/// The identity multihash of the public key.
pub fn peer_id(key: &SigningKey) -> Vec<u8> {
    let signer = Signer::ed25519(key.verifying_key().as_bytes());
    [&[0x00, 0x24], signer.pub_key.as_ref()].concat()
}

/// Base58 with Bitcoin's alphabet; peer ids begin with a zero byte, which is a `1`.
fn base58(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
    let mut digits = Vec::new();
    for byte in bytes {
        let mut carry = usize::from(*byte);
        for digit in &mut digits {
            carry += *digit * 256;
            *digit = carry % 58;
            carry /= 58;
        }
        while carry > 0 {
            digits.push(carry % 58);
            carry /= 58;
        }
    }
    let zeroes = bytes.iter().take_while(|byte| **byte == 0).map(|_| 0);
    zeroes.chain(digits.into_iter().rev()).map(|digit| char::from(ALPHABET[digit])).collect()
}

fn check_peer_id(vector: Vector, key: &SigningKey) {
    assert_eq!(peer_id(key), vector.out_bytes("peer_id_bytes"));
    assert_eq!(base58(&peer_id(key)), text(vector.output("peer_id")));
}

pub fn sequencer(vector: Vector) {
    let key = key_of(vector.id());
    let raw = vector.out_bytes("raw_public_key");
    assert_eq!(key.verifying_key().as_bytes()[..], raw);
    let signer = Signer::ed25519(key.verifying_key().as_bytes());
    assert_eq!(signer.pub_key, vector.out_bytes("libp2p_pubkey_proto"));
    assert_eq!(signer.address, vector.out_bytes("address"));
    assert_eq!(signer.public_key(), Ok(PublicKey { key_type: KeyType::Ed25519, raw: raw.clone() }));
    assert_eq!(signer.raw_key(), Ok(raw));
    check_peer_id(vector, &key);
}

pub fn p2p(vector: Vector) {
    let key = key_of(vector.id());
    let raw = vector.out_bytes("raw_public_key");
    assert_eq!(key.verifying_key().as_bytes()[..], raw);
    check_peer_id(vector, &key);
    let file = json!({
        "priv_key": STANDARD.encode(key.to_keypair_bytes()),
        "pub_key": STANDARD.encode(&raw),
    });
    assert_eq!(file, *vector.output("node_key_json"));
    assert_eq!(Hash::of(&raw), vector.out_hash("p2p_info_id"));
}

pub fn secp256k1(vector: Vector) {
    let raw = vector.out_bytes("raw_public_key");
    let key = PublicKey::parse(&vector.out_bytes("libp2p_pubkey_proto")).unwrap();
    assert_eq!(key, PublicKey { key_type: KeyType::Secp256k1, raw: raw.clone() });
    assert_eq!(Hash::of(&raw), vector.out_hash("address"));
}
