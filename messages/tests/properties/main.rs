//! Properties of every decoder: what is encoded decodes to the same, and no input panics.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

#[path = "../../fuzz/exercise.rs"]
mod exercise;
mod strategies;

use std::fmt::Debug;
use std::path::Path;

use baton_messages::chain::{P2pData, P2pSignedHeader};
use baton_messages::codec;
use baton_messages::wire::exchange::HeaderResponse;
use proptest::collection::vec;
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use strategies::{
    block, command, da_progress, data, envelope, genesis, header, member, mutation, p2p_data, p2p_header,
    place, signed_data, signed_header, state, tip, tx_result, verdict,
};

fn stored<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let bytes = codec::encode(value);
    assert_eq!(codec::decode::<T>(&bytes).as_ref(), Ok(value));
    let longer = [bytes.as_slice(), &[0]].concat();
    assert!(codec::decode::<T>(&longer).is_err(), "trailing bytes are an error");
    assert!(codec::decode::<T>(&bytes[..bytes.len() - 1]).is_err(), "missing bytes are an error");
}

macro_rules! on_the_wire_and_in_the_store {
    ($($name:ident: $strategy:expr, $type:ident;)*) => {
        proptest! {
            #![proptest_config(strategies::config())]
            $(#[test]
            fn $name(value in $strategy) {
                prop_assert_eq!(baton_messages::chain::$type::decode(&value.encode()), Ok(value.clone()));
                stored(&value);
            })*
        }
    };
}

on_the_wire_and_in_the_store! {
    a_header_decodes_to_what_was_encoded: header(), Header;
    a_signed_header_decodes_to_what_was_encoded: signed_header(), SignedHeader;
    an_envelope_decodes_to_what_was_encoded: envelope(), DaHeaderEnvelope;
    a_gossiped_header_decodes_to_what_was_encoded: p2p_header(), P2pSignedHeader;
    data_decodes_to_what_was_encoded: data(), Data;
    gossiped_data_decodes_to_what_was_encoded: p2p_data(), P2pData;
    signed_data_decodes_to_what_was_encoded: signed_data(), SignedData;
    a_state_decodes_to_what_was_encoded: state(), State;
}

macro_rules! in_the_store {
    ($($name:ident: $strategy:expr;)*) => {
        proptest! {
            #![proptest_config(strategies::config())]
            $(#[test]
            fn $name(value in $strategy) {
                stored(&value);
            })*
        }
    };
}

in_the_store! {
    a_block_is_read_as_it_was_stored: block();
    a_command_is_read_as_it_was_stored: command();
    a_verdict_is_read_as_it_was_stored: verdict();
    da_progress_is_read_as_it_was_stored: da_progress();
    a_tip_is_read_as_it_was_stored: tip();
    a_member_is_read_as_it_was_stored: member();
    a_place_is_read_as_it_was_stored: place();
    a_result_is_read_as_it_was_stored: tx_result();
    a_genesis_is_read_as_it_was_stored: genesis();
}

proptest! {
    #![proptest_config(strategies::config())]

    #[test]
    fn a_genesis_file_is_read_as_it_was_written(value in genesis()) {
        let text = value.to_json().unwrap();
        prop_assert_eq!(baton_messages::genesis::Genesis::from_json(&text), Ok(value));
    }

    #[test]
    fn the_hashes_of_data_are_of_its_encoding(value in data()) {
        let hash = |data: &baton_messages::chain::Data| {
            baton_messages::types::Hash::of(&[&[0], data.encode().as_slice()].concat())
        };
        prop_assert_eq!(value.hash(), hash(&value));
        let bare = baton_messages::chain::Data { metadata: None, txs: value.txs.clone() };
        prop_assert_eq!(value.commitment(), hash(&bare));
    }

    #[test]
    fn arbitrary_bytes_panic_nowhere(bytes in vec(any::<u8>(), 0..600)) {
        exercise::wire(&bytes);
        exercise::codec(&bytes);
        exercise::text(&bytes);
        exercise::exchange(&bytes);
        exercise::gossip(&bytes);
        // Past the version byte.
        exercise::codec(&[&[codec::FORMAT_VERSION], bytes.as_slice()].concat());
    }

    #[test]
    fn damaged_messages_panic_nowhere(value in envelope(), data in signed_data(), damage in mutation()) {
        exercise::wire(&damage.applied_to(value.encode()));
        exercise::wire(&damage.applied_to(data.encode()));
        let header = P2pSignedHeader { signed: value.signed, da_height_hint: 7 }.encode();
        let data = P2pData { data: data.data, da_height_hint: 0 }.encode();
        let frame = |item: &[u8]| HeaderResponse::item(item.to_vec().into()).to_frame();
        exercise::exchange(&damage.applied_to([frame(&header), frame(&data), frame(&header)].concat()));
        let length = u16::try_from(header.len()).unwrap_or(u16::MAX).to_le_bytes();
        exercise::gossip(&damage.applied_to([&length[..], &header, &data].concat()));
    }

    #[test]
    fn damaged_values_panic_nowhere(command in command(), block in block(), damage in mutation()) {
        exercise::codec(&damage.applied_to(codec::encode(&command)));
        exercise::codec(&damage.applied_to(codec::encode(&block)));
    }

    #[test]
    fn damaged_files_panic_nowhere(genesis in genesis(), damage in mutation()) {
        exercise::text(&damage.applied_to(genesis.to_json().unwrap().into_bytes()));
    }
}

type Exercise = fn(&[u8]);

/// The fuzz targets; their corpora have the same names.
const TARGETS: [(&str, Exercise); 5] = [
    ("wire", exercise::wire),
    ("codec", exercise::codec),
    ("text", exercise::text),
    ("exchange", exercise::exchange),
    ("gossip", exercise::gossip),
];

#[test]
fn the_corpus_panics_nowhere() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (target, exercise) in TARGETS {
        let inputs = std::fs::read_dir(corpus.join(target)).unwrap();
        let mut count = 0;
        for input in inputs {
            let path = input.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            let outcome = std::panic::catch_unwind(|| exercise(&bytes));
            assert!(outcome.is_ok(), "{} breaks {target}; see above", path.display());
            count += 1;
        }
        assert!(count >= 10, "the corpus of {target} is gone");
    }
}
