//! Blobs, namespaces, commitments and epochs.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use baton_messages::chain::{DaHeaderEnvelope, SignedData};
use baton_messages::da::{Blob, Namespace, blob_commitment};
use baton_messages::epoch::Epoch;
use baton_messages::types::DaHeight;
use baton_messages::wire::validate::EnvelopeKind;
use bytes::Bytes;
use serde_json::json;

use crate::headers::{data_of, sign, signed_of};
use crate::keys::sequencer_signer;
use crate::{Vector, bytes, number, text};

fn check_blob(vector: Vector, data: Vec<u8>) {
    let blob = Blob { namespace: Namespace::of(text(vector.input("namespace_string"))), data: data.into() };
    assert_eq!(blob.data, vector.out_bytes("blob"));
    assert_eq!(blob.data.len() as u64, number(vector.output("blob_len")));
    assert_eq!(blob.namespace.0[..], vector.out_bytes("namespace"));
    assert_eq!(blob.commitment(), vector.out_hash("commitment"));
    let submitted = json!({
        "namespace": blob.namespace.to_base64(),
        "data": STANDARD.encode(&blob.data),
        "share_version": 0,
        "commitment": STANDARD.encode(blob.commitment().0),
        "index": -1,
    });
    assert_eq!(submitted, *vector.output("submit_json_blob"));
}

pub fn header_blob(vector: Vector) {
    let header = Vector::named(text(vector.input("signed_header"))).input("header");
    let signed = signed_of(Vector::named(text(header)));
    let envelope_signature = sign(&signed.encode());
    assert_eq!(envelope_signature, vector.out_bytes("envelope_signature"));
    let envelope = DaHeaderEnvelope { signed, envelope_signature };
    assert_eq!(envelope.verify(true), Ok(EnvelopeKind::Signed));
    assert_eq!(DaHeaderEnvelope::decode(&vector.out_bytes("blob")), Ok(envelope.clone()));

    let id = [&7_u64.to_le_bytes()[..], &vector.out_bytes("commitment")].concat();
    assert_eq!(id, vector.out_bytes("id_at_da_height_7"));
    check_blob(vector, envelope.encode());
}

pub fn data_blob(vector: Vector) {
    let data = data_of(Vector::named(text(vector.input("data"))));
    let signature = sign(&data.encode());
    assert_eq!(signature, vector.out_bytes("signature"));
    let signed = SignedData { data, signature, signer: sequencer_signer() };
    signed.verify().unwrap();
    assert_eq!(SignedData::decode(&vector.out_bytes("blob")), Ok(signed.clone()));
    check_blob(vector, signed.encode());
}

pub fn namespace(vector: Vector) {
    let namespace = Namespace::of(text(vector.input("namespace_string")));
    assert_eq!(namespace.0[..], vector.out_bytes("namespace"));
    assert_eq!(namespace.to_base64(), text(vector.output("base64")));
    assert_eq!(namespace.to_string(), text(vector.output("hex_string")));
    assert_eq!(Namespace::from_base64(&namespace.to_base64()), Some(namespace));
}

pub fn namespace_structure(rules: &str) {
    assert_eq!(rules, "29 bytes, byte0 = 0, bytes 1..18 zero");
    for name in ["", "evolve-headers", "0x00"] {
        assert_eq!(Namespace::of(name).0[..19], [0; 19]);
    }
}

pub fn commitment(vector: Vector) {
    let length = usize::try_from(number(vector.input("len"))).unwrap();
    let data: Vec<u8> = if vector.id() == "commitment-len-50000" {
        (0..=250).cycle().take(length).collect()
    } else {
        vec![u8::try_from(number(vector.input("first_byte"))).unwrap(); length]
    };
    let namespace = Namespace(bytes(vector.input("namespace")).as_ref().try_into().unwrap());
    assert_eq!(blob_commitment(&namespace, &data), vector.out_hash("commitment"));
}

/// go-square's test constant. It joins the two roots without the prefixes of RFC 6962, so
/// it pins shares and roots; here the whole commitment differs and its parts are rebuilt.
pub fn two_shares(expected: &[u8]) {
    use sha2::{Digest, Sha256};
    let mut namespace = [0; 29];
    namespace[19..].fill(1);
    let first = [&namespace[..], &[1], &960_u32.to_be_bytes(), &[0xff; 478]].concat();
    let second = [&namespace[..], &[0], &[0xff; 482]].concat();
    let roots = [first, second].map(|share| {
        let digest = Sha256::new_with_prefix([0]).chain_update(namespace).chain_update(share).finalize();
        [&namespace[..], &namespace[..], &digest[..]].concat()
    });
    let joined = roots.iter().flat_map(Sha256::digest).collect::<Vec<u8>>();
    assert_eq!(Sha256::digest(joined)[..], *expected);

    let leaves = roots.map(|root| Sha256::new_with_prefix([0]).chain_update(root).finalize());
    let whole = Sha256::new_with_prefix([1]).chain_update(leaves[0]).chain_update(leaves[1]).finalize();
    assert_eq!(blob_commitment(&Namespace(namespace), &[0xff; 960]).0[..], whole[..]);
}

pub fn celestia_sample(expected: &str) {
    let namespace = Namespace::from_base64("AAAAAAAAAAAAAAAAAAAAAAAAAAAADCBNOWAP3dM=").unwrap();
    let data = Bytes::from(STANDARD.decode("8fIMqAB+kQo7+LLmHaDya8oH73hxem6lQWX1").unwrap());
    assert_eq!(STANDARD.encode(Blob { namespace, data }.commitment().0), expected);
}

pub fn epochs(vector: Vector) {
    for case in vector.output("cases").as_array().unwrap() {
        let [height, start, size] = [0, 1, 2].map(|index| number(&case["in"][index]));
        let epoch = Epoch::of(DaHeight(height), DaHeight(start), size);
        let [start, end, number] = [0, 1, 2].map(|index| number(&case["out"][index]));
        assert_eq!(epoch, Epoch { number, start: DaHeight(start), end: DaHeight(end) }, "{case}");
    }
}
