use baton_messages::chain::{Data, Header, Metadata, Signer};
use baton_messages::da::Namespace;
use baton_messages::types::{Height, Timestamp, Tx};
use proptest::prelude::*;

use super::*;
use crate::signer::key::{FileKey, Key};

/// Where blobs lie.
const AT: DaHeight = DaHeight(7);

fn key(seed: u8) -> FileKey {
    FileKey::from_seed(&[seed; 32])
}

fn signer(seed: u8) -> Signer {
    Signer::ed25519(&key(seed).public())
}

fn decoder() -> Decoder {
    Decoder::new("c".to_owned(), signer(1).address, 1 << 20)
}

fn blob(data: Vec<u8>) -> Blob {
    Blob { namespace: Namespace::of("n"), data: data.into() }
}

fn signed_header(seed: u8) -> SignedHeader {
    let signer = signer(seed);
    let header = Header {
        height: Height(3),
        time: Timestamp(7),
        proposer_address: signer.address.clone(),
        chain_id: "c".to_owned(),
        ..Header::default()
    };
    let [payload, _] = header.signature_payloads();
    SignedHeader { signature: key(seed).sign(&payload).expect("it signs"), header, signer }
}

fn envelope(seed: u8) -> DaHeaderEnvelope {
    let signed = signed_header(seed);
    let envelope_signature = key(seed).sign(&signed.encode()).expect("it signs");
    DaHeaderEnvelope { signed, envelope_signature }
}

fn signed_data(seed: u8) -> SignedData {
    let metadata = Metadata {
        chain_id: "c".to_owned(),
        height: Height(3),
        time: Timestamp(7),
        last_data_hash: Bytes::new(),
    };
    let data = Data { metadata: Some(metadata), txs: vec![Tx(Bytes::from_static(b"a=1"))] };
    SignedData { signature: key(seed).sign(&data.encode()).expect("it signs"), data, signer: signer(seed) }
}

#[test]
fn envelopes_and_signed_data_of_the_proposer_are_found_in_either_namespace() {
    let mut decoder = decoder();
    let header = decoder.read(AT, &blob(envelope(1).encode()));
    assert_eq!(header, Found::Piece(Piece::Header(Arc::new(signed_header(1)))));
    let data = decoder.read(AT, &blob(signed_data(1).encode()));
    assert_eq!(data, Found::Piece(Piece::Data(Arc::new(signed_data(1).data))));
}

#[test]
fn plain_headers_are_taken_up_to_where_the_proposer_signs_an_envelope() {
    let mut decoder = decoder();
    let plain = blob(signed_header(1).encode());
    let is_taken = |decoder: &mut Decoder, at| match decoder.read(DaHeight(at), &plain) {
        Found::Piece(Piece::Header(_)) => true,
        found => {
            assert_eq!(found, Found::Foreign("envelope"));
            false
        }
    };
    assert!(is_taken(&mut decoder, 30));
    // An envelope of anybody else changes nothing.
    assert_eq!(decoder.read(AT, &blob(envelope(2).encode())), Found::Foreign("proposer"));
    assert_eq!(decoder.strict_from(), None);
    assert!(matches!(decoder.read(DaHeight(20), &blob(envelope(1).encode())), Found::Piece(_)));
    assert_eq!(decoder.strict_from(), Some(DaHeight(20)));
    assert!(!is_taken(&mut decoder, 21));
    assert!(is_taken(&mut decoder, 19), "what lies below may be read again");
    // Further on than it began, and, by a hint, before it was known.
    for (at, from) in [(40, 20), (15, 15)] {
        assert!(matches!(decoder.read(DaHeight(at), &blob(envelope(1).encode())), Found::Piece(_)));
        assert_eq!(decoder.strict_from(), Some(DaHeight(from)));
    }
    let mut remembers = super::tests::decoder().remember(decoder.strict_from());
    assert!(!is_taken(&mut remembers, 16) && is_taken(&mut remembers, 15));
}

#[test]
fn what_others_write_into_the_namespace_is_foreign_and_costs_nothing_more() {
    let mut decoder = decoder();
    let mut forged = envelope(1);
    forged.envelope_signature = key(2).sign(&forged.signed.encode()).expect("it signs");
    assert_eq!(decoder.read(AT, &blob(forged.encode())), Found::Foreign("envelope"));
    assert_eq!(decoder.read(AT, &blob(signed_data(2).encode())), Found::Foreign("proposer"));
    let mut claimed = signed_data(2);
    claimed.signer.address = signer(1).address;
    assert_eq!(decoder.read(AT, &blob(claimed.encode())), Found::Foreign("proposer"), "the key is another's");
    let mut changed = signed_data(1);
    changed.data.txs.push(Tx(Bytes::from_static(b"b=2")));
    assert_eq!(decoder.read(AT, &blob(changed.encode())), Found::Foreign("signature"));
    let mut elsewhere = envelope(1);
    elsewhere.signed.header.chain_id = "d".to_owned();
    elsewhere.envelope_signature = key(1).sign(&elsewhere.signed.encode()).expect("it signs");
    assert_eq!(decoder.read(AT, &blob(elsewhere.encode())), Found::Foreign("chain"));
    assert_eq!(decoder.read(AT, &blob(vec![7; 2 << 20])), Found::Foreign("size"));
    assert_eq!(decoder.read(AT, &blob(vec![])), Found::Foreign("size"));
    assert_eq!(decoder.read(AT, &blob(b"k=v".to_vec())), Found::Foreign("undecodable"));
}

proptest! {
    #[test]
    fn no_blob_makes_the_decoder_panic(data in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut decoder = decoder();
        prop_assert!(matches!(decoder.read(AT, &blob(data)), Found::Foreign(_)));
    }

    #[test]
    fn no_damaged_blob_of_the_proposer_makes_it_panic_or_is_taken_for_another(
        at in any::<prop::sample::Index>(),
        to in any::<u8>(),
        data in any::<bool>(),
    ) {
        let mut bytes = if data { signed_data(1).encode() } else { envelope(1).encode() };
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != to);
        bytes[at] = to;
        let taken = match decoder().read(AT, &blob(bytes)) {
            Found::Piece(Piece::Header(header) | Piece::Checked(header)) => *header == signed_header(1),
            Found::Piece(Piece::Data(data)) => *data == signed_data(1).data,
            Found::Foreign(_) => true,
        };
        // A damaged length or tag may hide a field; then the signature over the rest still holds
        // only for what the proposer signed.
        prop_assert!(taken || !data);
    }
}
