//! The bytes of every stored and sent type. A change here is a change of the format: it needs a
//! new `codec::FORMAT_VERSION`, a migration and a line in the changelog.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod values;

use std::fmt::Debug;

use baton_messages::chain::{Block, Data};
use baton_messages::codec::{self, CodecError};
use baton_messages::command::{Command, Lane, Refusal, Submitted, Verdict};
use baton_messages::engine::TxResult;
use baton_messages::types::{DaHeight, Height, MemberId, Role, StateRoot};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

fn golden<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T, expected: &str) {
    assert_eq!(hex::encode(codec::encode(value)), expected, "{value:?}");
    assert_eq!(codec::decode(&hex::decode(expected).unwrap()).as_ref(), Ok(value));
}

#[test]
fn chain_types_keep_their_bytes() {
    golden(
        &values::header(),
        "\
         0101fb2c0102fd16c9e9311fc11618046c617374046461746104726f6f740870726f706f73657200\
         05636861696e00",
    );
    golden(
        &values::legacy_header(),
        "\
         0101fb2c0102fd16c9e9311fc11618046c617374046461746104726f6f740870726f706f73657200\
         05636861696e0106636f6d6d69740007726573756c7473",
    );
    golden(&values::data(), "010105636861696e02fd16c9e9311fc11618066265666f726502096b65793d76616c756500");
    golden(
        &values::block(),
        "\
         0101fb2c0102fd16c9e9311fc11618046c617374046461746104726f6f740870726f706f73657200\
         05636861696e000105636861696e02fd16c9e9311fc11618066265666f726502096b65793d76616c\
         756500",
    );
    golden(&values::signer(), "010761646472657373036b6579");
    golden(
        &values::signed_header(),
        "\
         0101fb2c0102fd16c9e9311fc11618046c617374046461746104726f6f740870726f706f73657200\
         05636861696e00097369676e61747572650761646472657373036b6579",
    );
    golden(
        &values::signed_data(),
        "\
         010105636861696e02fd16c9e9311fc11618066265666f726502096b65793d76616c756500097369\
         676e61747572650761646472657373036b6579",
    );
    golden(
        &values::envelope(),
        "\
         0101fb2c0102fd16c9e9311fc11618046c617374046461746104726f6f740870726f706f73657200\
         05636861696e00097369676e61747572650761646472657373036b657908656e76656c6f7065",
    );
    golden(
        &values::p2p_header(),
        "\
         0101fb2c0102fd16c9e9311fc11618046c617374046461746104726f6f740870726f706f73657200\
         05636861696e00097369676e61747572650761646472657373036b657907",
    );
    golden(
        &values::p2p_data(),
        "010105636861696e02fd16c9e9311fc11618066265666f726502096b65793d76616c75650007",
    );
    golden(
        &values::state(),
        "\
         01000005636861696e010201fd16c9e9311fc116180704726f6f74066865616465720870726f706f\
         736572",
    );
    golden(&values::genesis(), "0105636861696efd16c9e9311fc11618010870726f706f7365720332");
}

#[test]
fn commands_keep_their_bytes() {
    golden(
        &values::entry(),
        "\
         010501fb2c0102fd16c9e9311fc11618046c617374046461746104726f6f740870726f706f736572\
         0005636861696e000105636861696e02fd16c9e9311fc11618066265666f726502096b65793d7661\
         6c7565000101aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa0973\
         69676e61747572650809",
    );
    golden(
        &Command::Block(values::entry()),
        "\
         01000501fb2c0102fd16c9e9311fc11618046c617374046461746104726f6f740870726f706f7365\
         720005636861696e000105636861696e02fd16c9e9311fc11618066265666f726502096b65793d76\
         616c7565000101aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa09\
         7369676e61747572650809",
    );
    golden(
        &Command::Signature(values::signature()),
        "\
         010101aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa097369676e\
         6174757265",
    );
    let submitted = |lane| Submitted { lane, from: Height(3), to: Height(300), da_height: DaHeight(70_000) };
    golden(&Command::Submitted(submitted(Lane::Header)), "01020003fb2c01fc70110100");
    golden(&Command::Submitted(submitted(Lane::Data)), "01020103fb2c01fc70110100");
    golden(&Command::Included(Height(9)), "010309");
    golden(&Command::Activate(2), "010402");
    golden(&Command::Pause(None), "010500");
    golden(&Command::Pause(Some("da".to_owned())), "010501026461");
}

#[test]
fn verdicts_keep_their_bytes() {
    golden(
        &Verdict::Committed(values::tip()),
        "\
         010002bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbfd16c9e931\
         1fc1161805",
    );
    golden(&Verdict::Recorded, "0102");
    golden(&Verdict::Internal, "0103");
    // Every refusal by its number; the tip after it is the one of the verdict above.
    let refusals = [
        (Refusal::Height, 0),
        (Refusal::Parent, 1),
        (Refusal::Time, 2),
        (Refusal::Term, 3),
        (Refusal::Chain, 4),
        (Refusal::Data, 5),
        (Refusal::OutOfOrder, 6),
    ];
    for (refusal, number) in refusals {
        let bytes = codec::encode(&Verdict::Refused(refusal, values::tip()));
        assert_eq!(bytes[..3], [codec::FORMAT_VERSION, 1, number], "{refusal:?}");
        assert_eq!(bytes[3..], codec::encode(&values::tip())[1..]);
    }
}

#[test]
fn the_small_types_keep_their_bytes() {
    golden(
        &values::tip(),
        "\
         0102bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbfd16c9e9311f\
         c1161805",
    );
    golden(&values::da_progress(), "01040302fbe803");
    golden(&values::member(), "0101610b3132372e302e302e313a31100123456789abcdef0123456789abcdef01");
    golden(
        &values::place(),
        "0102fc70110100cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc",
    );
    golden(&MemberId(0x0123_4567_89ab_cdef), "01fdefcdab8967452301");
    golden(&StateRoot(Bytes::from_static(b"root")), "0104726f6f74");
    golden(&TxResult::Applied(Bytes::from_static(b"answer")), "010006616e73776572");
    golden(&TxResult::Skipped("reason".to_owned()), "010106726561736f6e");
    for (role, number) in [(Role::Learner, 0), (Role::Follower, 1), (Role::Candidate, 2), (Role::Leader, 3)] {
        assert_eq!(codec::encode(&role), [codec::FORMAT_VERSION, number]);
    }
}

#[test]
fn another_version_is_named() {
    assert_eq!(codec::decode::<Height>(&[0, 1]), Err(CodecError::Version(0)));
    assert_eq!(codec::decode::<Height>(&[2, 1]), Err(CodecError::Version(2)));
    assert_eq!(codec::decode::<Height>(&[1, 1]), Ok(Height(1)));
}

#[test]
fn no_bytes_missing_bytes_and_bytes_too_many_are_malformed() {
    for bytes in [&[][..], &[1], &[1, 1, 0], &[1, 0xfb]] {
        assert!(matches!(codec::decode::<Height>(bytes), Err(CodecError::Malformed(_))), "{bytes:?}");
    }
}

#[test]
fn a_length_above_the_limit_is_refused_before_anything_is_reserved() {
    let length = u64::MAX.to_le_bytes();
    let hostile = [&[codec::FORMAT_VERSION, 253], &length[..]].concat();
    assert!(matches!(codec::decode::<Bytes>(&hostile), Err(CodecError::Malformed(_))));
    let above = u32::try_from(codec::MAX_ENCODED + 1).unwrap().to_le_bytes();
    let hostile = [&[codec::FORMAT_VERSION, 252], &above[..]].concat();
    assert!(matches!(codec::decode::<Bytes>(&hostile), Err(CodecError::Malformed(_))));
}

#[test]
fn a_block_is_as_long_as_its_parts_because_the_hash_is_not_stored() {
    let parts = codec::encode(&(values::header(), values::data()));
    assert_eq!(codec::encode(&values::block()), parts);
    let other = Block::new(values::legacy_header(), Data::default());
    let read: Block = codec::decode(&codec::encode(&other)).unwrap();
    assert_eq!(read.hash(), values::legacy_header().hash());
}
