//! What is refused, rule by rule (wire sections 2.5, 3, 4.4 and 6.3).

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::time::Duration;

use baton_messages::chain::{
    Block, DaHeaderEnvelope, Data, Header, Metadata, P2pSignedHeader, SignedData, SignedHeader, Signer, State,
};
use baton_messages::genesis::Genesis;
use baton_messages::types::{DaHeight, Hash, Height, StateRoot, Timestamp, Tx};
use baton_messages::wire::WireError;
use baton_messages::wire::keys::{KeyError, KeyType, PublicKey};
use baton_messages::wire::validate::{EnvelopeKind, Invalid, MAX_DRIFT, MAX_P2P_DRIFT, NotNext, Payload};
use bytes::Bytes;
use ed25519_dalek::{Signer as _, SigningKey};

const NOW: Timestamp = Timestamp(1_735_787_045_000_000_000);

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn signer(seed: u8) -> Signer {
    Signer::ed25519(key(seed).verifying_key().as_bytes())
}

fn sign(seed: u8, payload: &[u8]) -> Bytes {
    key(seed).sign(payload).to_bytes().to_vec().into()
}

fn genesis() -> Genesis {
    Genesis {
        chain_id: "chain".to_owned(),
        start_time: NOW,
        initial_height: Height(1),
        proposer_address: signer(1).address,
        da_start_height: DaHeight(3),
        da_epoch_forced_inclusion: 50,
    }
}

fn root(name: &'static str) -> StateRoot {
    StateRoot(Bytes::from_static(name.as_bytes()))
}

fn first_data() -> Data {
    let metadata =
        Metadata { chain_id: "chain".to_owned(), height: Height(1), time: NOW, last_data_hash: Bytes::new() };
    Data { metadata: Some(metadata), txs: vec![Tx(Bytes::from_static(b"a=1"))] }
}

fn first() -> Header {
    Header {
        height: Height(1),
        time: NOW,
        data_hash: first_data().commitment().to_bytes(),
        app_hash: root("genesis").0,
        proposer_address: signer(1).address,
        chain_id: "chain".to_owned(),
        ..Header::default()
    }
}

fn second() -> Header {
    Header {
        height: Height(2),
        time: NOW.next(),
        last_header_hash: first().hash().to_bytes(),
        app_hash: root("one").0,
        ..first()
    }
}

fn signed(header: Header) -> SignedHeader {
    SignedHeader { signature: sign(1, &header.encode()), signer: signer(1), header }
}

fn after_first() -> State {
    let block = Block::new(first(), first_data());
    State::before_first(&genesis(), &root("genesis")).after(&block, &root("one"), &Bytes::new())
}

#[test]
fn a_signed_header_of_the_proposer_is_valid() {
    signed(first()).validate(NOW).unwrap();
}

#[test]
fn a_header_needs_a_proposer() {
    let header = Header { proposer_address: Bytes::new(), ..first() };
    assert_eq!(header.validate(NOW), Err(Invalid::NoProposer));
}

#[test]
fn a_time_is_neither_zero_nor_negative_to_ev_node_nor_far_ahead() {
    let at = |time| Header { time, ..first() }.validate(NOW);
    assert_eq!(at(Timestamp(0)), Err(Invalid::Time(Timestamp(0))));
    for time in [1 << 63, u64::MAX] {
        assert_eq!(at(Timestamp(time)), Err(Invalid::Time(Timestamp(time))));
    }
    assert_eq!(at(NOW.plus(MAX_DRIFT)), Ok(()));
    let late = NOW.plus(MAX_DRIFT).next();
    assert_eq!(at(late), Err(Invalid::FromTheFuture { time: late, now: NOW, limit: MAX_DRIFT }));
}

#[test]
fn an_unsigned_header_and_one_without_a_key_are_refused() {
    let unsigned = SignedHeader { signature: Bytes::new(), ..signed(first()) };
    assert_eq!(unsigned.validate(NOW), Err(Invalid::NoSignature));
    let keyless = SignedHeader { signer: Signer::default(), ..signed(first()) };
    assert_eq!(keyless.validate(NOW), Err(Invalid::Key(KeyError::Missing)));
}

#[test]
fn an_address_that_is_not_the_keys_is_refused() {
    let mut odd = signed(first());
    odd.signer.address = signer(2).address;
    assert!(matches!(odd.validate(NOW), Err(Invalid::Address { .. })));
}

#[test]
fn a_header_signed_by_another_than_its_proposer_is_refused() {
    let header = first();
    let other = SignedHeader { signature: sign(2, &header.encode()), signer: signer(2), header };
    assert!(matches!(other.validate(NOW), Err(Invalid::Proposer { .. })));
}

#[test]
fn a_signature_over_something_else_does_not_verify() {
    let forged = SignedHeader { header: second(), ..signed(first()) };
    assert_eq!(forged.validate(NOW), Err(Invalid::Key(KeyError::Mismatch)));
    for length in [0, 1, 63, 65] {
        let odd = SignedHeader { signature: vec![7; length].into(), ..signed(first()) };
        assert_eq!(odd.verify_signature(), Err(Invalid::Key(KeyError::Mismatch)), "{length} bytes");
    }
}

#[test]
fn a_signature_over_the_legacy_payload_or_an_applications_own_is_taken() {
    let legacy = SignedHeader { signature: sign(1, &first().legacy_payload()), ..signed(first()) };
    assert_eq!(legacy.verify_signature(), Ok(Payload::Legacy));
    let own = SignedHeader { signature: sign(1, b"vote"), ..signed(first()) };
    assert_eq!(own.verify_signature(), Err(Invalid::Key(KeyError::Mismatch)));
    assert_eq!(own.verify_signature_with(Some(b"vote")), Ok(Payload::Custom));
    assert_eq!(signed(first()).verify_signature_with(Some(b"vote")), Ok(Payload::Wire));
}

/// Hazard H21.
#[test]
fn a_header_of_old_chains_and_its_twin_have_one_payload_and_two_hashes() {
    let twin = first().twin().expect("zeros for what is absent");
    assert!(twin.is_legacy() && twin.hash() != first().hash());
    assert_eq!((twin.legacy_payload(), twin.twin()), (first().legacy_payload(), Some(first())));
    let signed = SignedHeader { signature: sign(1, &first().legacy_payload()), ..signed(first()) };
    let other = SignedHeader { header: twin.clone(), ..signed.clone() };
    assert_eq!(other.verify_signature(), signed.verify_signature());
    let mut alone = twin;
    alone.legacy.as_mut().expect("legacy").last_commit_hash = vec![1; 32].into();
    assert_eq!(alone.twin(), None);
}

#[test]
fn other_kinds_of_keys_parse_by_their_structure_and_say_that_they_are_not_checked() {
    let encoded = |kind: u8, raw: &[u8]| [&[8, kind, 0x12, u8::try_from(raw.len()).unwrap()], raw].concat();
    let good: [(u8, KeyType, &[u8]); 4] = [
        (2, KeyType::Secp256k1, &[2; 33]),
        (2, KeyType::Secp256k1, &[4; 65]),
        (0, KeyType::Rsa, &[0x30, 3, 1, 2, 3]),
        (3, KeyType::Ecdsa, &[0x30, 0x81, 2, 1, 2]),
    ];
    for (kind, key_type, raw) in good {
        let key = PublicKey::parse(&encoded(kind, raw)).unwrap();
        assert_eq!(key.key_type, key_type);
        assert_eq!(key.verify(b"", &[0; 64]), Err(KeyError::Unsupported(key_type)));
    }
    let not_a_point = (0..=u8::MAX).find(|byte| PublicKey::parse(&encoded(1, &[*byte; 32])).is_err());
    assert!(not_a_point.is_some(), "half of all values are no point of the curve");
    let bad: [(u8, &[u8]); 8] = [
        (1, &[1; 31]),
        (1, &[]),
        (2, &[5; 33]),
        (2, &[2; 32]),
        (0, &[0x31, 0]),
        (0, &[0x30, 4, 1]),
        (3, &[0x30, 0x85, 0, 0, 0, 0, 0]),
        (9, &[1; 32]),
    ];
    for (kind, raw) in bad {
        assert!(PublicKey::parse(&encoded(kind, raw)).is_err(), "{kind} {raw:?}");
    }
    for missing in [&[][..], &[8, 1], &[0x12, 0]] {
        assert!(PublicKey::parse(missing).is_err(), "both fields are required");
    }
}

/// No signature covers the key in a header: anybody could make a true header as large as they like.
#[test]
fn a_key_has_one_encoding_and_a_header_with_bytes_around_its_key_is_refused() {
    let whole = signer(1).pub_key;
    let padding = [&[0x1a, 0x80, 0x80, 0x40][..], &vec![0; 1 << 20]].concat();
    let padded = [
        [&whole[..], &padding].concat(),
        [&whole[..], &[0x1a, 0]].concat(),
        [&padding[..], &whole[..]].concat(),
        // The type as a longer varint, the fields in another order, the key twice.
        [&[8, 0x81, 0][..], &whole[2..]].concat(),
        [&whole[2..], &whole[..2]].concat(),
        [&whole[..], &whole[2..]].concat(),
        // What no kind of key needs.
        [&[8, 0, 0x12, 0x84, 0x10, 0x30, 0x82, 0x08, 0][..], &[0; 2048]].concat(),
    ];
    for pub_key in padded {
        let length = pub_key.len();
        assert_eq!(PublicKey::parse(&pub_key), Err(KeyError::Padded(length)), "{length} bytes");
        let mut odd = signed(first());
        odd.signer.pub_key = pub_key.into();
        assert_eq!(odd.validate(NOW), Err(Invalid::Key(KeyError::Padded(length))));
        let decoded = P2pSignedHeader::decode(&P2pSignedHeader { signed: odd, da_height_hint: 0 }.encode());
        assert!(matches!(decoded, Err(WireError::Excessive { .. })), "{length} bytes");
    }
}

#[test]
fn a_signer_with_a_broken_key_spoils_the_message_it_is_in() {
    let mut odd = signed(first());
    odd.signer.pub_key = Bytes::from_static(&[8, 1]);
    assert!(SignedHeader::decode(&odd.encode()).is_err());
}

#[test]
fn the_next_block_continues_the_state() {
    let before = State::before_first(&genesis(), &root("genesis"));
    before.validate_next(&first()).unwrap();
    after_first().validate_next(&second()).unwrap();
    let same_time = Header { time: NOW, ..second() };
    after_first().validate_next(&same_time).unwrap();
}

#[test]
fn a_first_block_stands_at_the_initial_height() {
    let before = State::before_first(&genesis(), &root("genesis"));
    let odd = Header { height: Height(2), ..first() };
    assert_eq!(before.validate_next(&odd), Err(NotNext::Height { found: Height(2), expected: Height(1) }));
}

#[test]
fn what_does_not_continue_the_state_is_named_and_only_link_and_root_are_grave() {
    type Grave = bool;
    let cases: [(Header, &str, Grave); 6] = [
        (Header { proposer_address: signer(2).address, ..second() }, "proposer", false),
        (Header { chain_id: "other".to_owned(), ..second() }, "chain", false),
        (Header { height: Height(3), ..second() }, "height", false),
        (Header { time: Timestamp(NOW.0 - 1), ..second() }, "time", false),
        (Header { last_header_hash: Hash([1; 32]).to_bytes(), ..second() }, "links", true),
        (Header { app_hash: root("other").0, ..second() }, "state root", true),
    ];
    for (header, name, grave) in cases {
        // The second time too: no wrong link is let through once, as ev-node does.
        for _ in 0..2 {
            let error = after_first().validate_next(&header).unwrap_err();
            assert!(error.to_string().contains(name), "{name}: {error}");
            assert_eq!(error.is_integrity(), grave, "{name}");
        }
    }
}

#[test]
fn the_engine_may_name_the_next_proposer() {
    let block = Block::new(first(), first_data());
    let before = State::before_first(&genesis(), &root("genesis"));
    assert_eq!(before.next_proposer_address, signer(1).address);
    let rotated = before.after(&block, &root("one"), &signer(2).address);
    assert_eq!(rotated.next_proposer_address, signer(2).address);
    assert!(matches!(rotated.validate_next(&second()), Err(NotNext::Proposer { .. })));
    let unknown = State { next_proposer_address: Bytes::new(), ..before };
    let learned = unknown.after(&block, &root("one"), &Bytes::new());
    assert_eq!(learned.next_proposer_address, first().proposer_address);
    assert_eq!(learned.last_header_hash, first().hash().to_bytes());
    assert_eq!((learned.last_block_height, learned.last_block_time), (Height(1), Some(NOW)));
}

#[test]
fn data_belongs_to_its_header() {
    first().validate_data(&first_data()).unwrap();
    first().validate_data(&Data { metadata: None, ..first_data() }).unwrap();
    let with = |change: fn(&mut Metadata)| {
        let mut data = first_data();
        change(data.metadata.as_mut().unwrap());
        first().validate_data(&data)
    };
    assert_eq!(with(|m| m.chain_id.push('x')), Err(Invalid::Metadata { field: "chain id" }));
    assert_eq!(with(|m| m.height = Height(2)), Err(Invalid::Metadata { field: "height" }));
    assert_eq!(with(|m| m.time = m.time.next()), Err(Invalid::Metadata { field: "time" }));
    assert_eq!(with(|m| m.last_data_hash = Bytes::from_static(b"x")), Ok(()), "not checked here");
    let other = Data { txs: vec![], ..first_data() };
    assert!(matches!(first().validate_data(&other), Err(Invalid::Commitment { .. })));
    let uncommitted = Header { data_hash: Bytes::new(), ..first() };
    assert!(matches!(uncommitted.validate_data(&first_data()), Err(Invalid::Commitment { .. })));
}

#[test]
fn gossiped_data_says_what_it_belongs_to() {
    first_data().validate(NOW).unwrap();
    let with = |change: fn(&mut Metadata)| {
        let mut data = first_data();
        change(data.metadata.as_mut().unwrap());
        data.validate(NOW)
    };
    assert_eq!(Data::default().validate(NOW), Err(Invalid::NoMetadata));
    assert_eq!(with(|m| m.chain_id.clear()), Err(Invalid::NoChain));
    assert_eq!(with(|m| m.height = Height(0)), Err(Invalid::NoHeight));
    assert_eq!(with(|m| m.time = Timestamp(0)), Err(Invalid::Time(Timestamp(0))));
    assert!(matches!(with(|m| m.time = m.time.plus(MAX_DRIFT * 2)), Err(Invalid::FromTheFuture { .. })));
}

#[test]
fn a_gossiped_header_comes_after_the_newest_known_one() {
    let verify = |header: Header| header.verify_after(&first(), NOW);
    assert_eq!(verify(second()), Ok(()));
    assert_eq!(verify(Header { chain_id: "CHAIN".to_owned(), ..second() }), Ok(()), "case does not matter");
    assert!(matches!(verify(Header { chain_id: "x".to_owned(), ..second() }), Err(Invalid::Chain { .. })));
    assert_eq!(verify(first()), Err(Invalid::Known { found: Height(1), known: Height(1) }));
    let early = Timestamp(NOW.0 - 1);
    assert_eq!(
        verify(Header { time: early, ..second() }),
        Err(Invalid::Backwards { found: early, known: NOW })
    );
    let late = NOW.plus(MAX_P2P_DRIFT + Duration::from_nanos(1));
    assert!(matches!(verify(Header { time: late, ..second() }), Err(Invalid::FromTheFuture { .. })));
    let unlinked = Header { last_header_hash: Bytes::new(), ..second() };
    assert!(matches!(verify(unlinked.clone()), Err(Invalid::Link { .. })));
    assert_eq!(verify(Header { height: Height(3), ..unlinked }), Ok(()), "only neighbours are linked");
}

#[test]
fn gossiped_data_links_to_the_data_before() {
    let mut next = first_data();
    let metadata = next.metadata.as_mut().unwrap();
    metadata.height = Height(2);
    metadata.last_data_hash = first_data().hash().to_bytes();
    assert_eq!(next.verify_after(&first_data(), NOW), Ok(()));
    // The commitment is not the link: the metadata counts.
    next.metadata.as_mut().unwrap().last_data_hash = first_data().commitment().to_bytes();
    assert!(matches!(next.verify_after(&first_data(), NOW), Err(Invalid::Link { .. })));
    assert_eq!(Data::default().verify_after(&first_data(), NOW), Err(Invalid::NoMetadata));
}

#[test]
fn an_envelope_is_signed_by_the_headers_signer_over_the_signed_header() {
    let signed = signed(first());
    let envelope = |signature| DaHeaderEnvelope { signed: signed.clone(), envelope_signature: signature };
    assert_eq!(envelope(sign(1, &signed.encode())).verify(true), Ok(EnvelopeKind::Signed));
    for wrong in [sign(2, &signed.encode()), sign(1, &signed.header.encode())] {
        assert_eq!(envelope(wrong).verify(false), Err(Invalid::Key(KeyError::Mismatch)));
    }
    assert_eq!(envelope(Bytes::new()).verify(false), Ok(EnvelopeKind::Plain));
    assert_eq!(envelope(Bytes::new()).verify(true), Err(Invalid::NoEnvelope));
    let mut keyless = envelope(sign(1, &signed.encode()));
    keyless.signed.signer = Signer::default();
    assert_eq!(keyless.verify(false), Err(Invalid::Key(KeyError::Missing)));
}

#[test]
fn a_data_blob_is_signed_over_data_with_metadata_by_any_key() {
    let data = first_data();
    let blob =
        |seed| SignedData { signature: sign(seed, &data.encode()), signer: signer(seed), data: data.clone() };
    assert_eq!((blob(1).verify(), blob(2).verify()), (Ok(()), Ok(())));
    let bare = Data { metadata: None, ..data.clone() };
    let partly = SignedData { signature: sign(1, &bare.encode()), ..blob(1) };
    assert_eq!(partly.verify(), Err(Invalid::Key(KeyError::Mismatch)));
    assert_eq!(SignedData { data: bare, ..blob(1) }.verify(), Err(Invalid::NoMetadata));
    let empty = Data { txs: vec![], ..data.clone() };
    assert_eq!(SignedData { data: empty, ..blob(1) }.verify(), Err(Invalid::NoTransactions));
    assert_eq!(SignedData { signature: Bytes::new(), ..blob(1) }.verify(), Err(Invalid::NoSignature));
}
