//! `genesis.json` (wire section 7.3).

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use baton_messages::codec;
use baton_messages::genesis::{Genesis, GenesisError};
use baton_messages::types::{DaHeight, Height, Timestamp};
use bytes::Bytes;
use serde_json::{Value, json};

fn genesis() -> Genesis {
    Genesis {
        chain_id: "evolve-test".to_owned(),
        start_time: Timestamp(1_735_787_045_123_456_789),
        initial_height: Height(1),
        proposer_address: Bytes::from_static(&[7; 32]),
        da_start_height: DaHeight(3),
        da_epoch_forced_inclusion: 25,
    }
}

fn file() -> Value {
    json!({
        "chain_id": "evolve-test",
        "start_time": "2025-01-02T03:04:05.123456789Z",
        "initial_height": 1,
        "proposer_address": "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=",
        "da_start_height": 3,
        "da_epoch_forced_inclusion": 25
    })
}

fn with(key: &str, value: Value) -> Result<Genesis, GenesisError> {
    let mut file = file();
    file[key] = value;
    Genesis::from_json(&file.to_string())
}

fn without(key: &str) -> Result<Genesis, GenesisError> {
    let mut file = file();
    file.as_object_mut().unwrap().remove(key);
    Genesis::from_json(&file.to_string())
}

#[test]
fn the_file_is_read_to_the_nanosecond_and_written_back() {
    assert_eq!(Genesis::from_json(&file().to_string()), Ok(genesis()));
    let written: Value = serde_json::from_str(&genesis().to_json().unwrap()).unwrap();
    assert_eq!(written, file());
}

#[test]
fn a_start_time_with_an_offset_is_the_same_instant() {
    assert_eq!(with("start_time", json!("2025-01-02T05:04:05.123456789+02:00")), Ok(genesis()));
    assert_eq!(with("start_time", json!("2025-01-02T03:04:05Z")).unwrap().start_time.0 % 1_000_000_000, 0);
}

#[test]
fn older_files_without_da_keys_get_ev_nodes_defaults() {
    assert_eq!(without("da_epoch_forced_inclusion").unwrap().da_epoch_forced_inclusion, 50);
    assert_eq!(without("da_start_height").unwrap().da_start_height, DaHeight(0));
}

#[test]
fn a_missing_or_unknown_key_is_refused_by_name() {
    for key in ["chain_id", "start_time", "initial_height"] {
        let Err(GenesisError::Malformed(reason)) = without(key) else { panic!("{key}") };
        assert!(reason.contains(key), "{reason}");
    }
    let Err(GenesisError::Malformed(reason)) = with("app_state", json!({})) else { panic!("read") };
    assert!(reason.contains("app_state"), "{reason}");
}

#[test]
fn a_genesis_without_a_proposer_says_so() {
    for none in [json!(null), json!("")] {
        assert_eq!(with("proposer_address", none), Err(GenesisError::NoProposer));
    }
}

#[test]
fn values_out_of_range_have_an_error_of_their_own() {
    assert_eq!(with("chain_id", json!("")), Err(GenesisError::NoChainId));
    assert_eq!(with("initial_height", json!(0)), Err(GenesisError::InitialHeight));
    assert_eq!(with("da_epoch_forced_inclusion", json!(0)), Err(GenesisError::Epoch));
    for time in [
        "0001-01-01T00:00:00Z",
        "1970-01-01T00:00:00Z",
        "2262-04-11T23:47:16.854775808Z",
        "9999-12-30T00:00:00Z",
    ] {
        assert!(matches!(with("start_time", json!(time)), Err(GenesisError::StartTime(_))), "{time}");
    }
    assert!(with("start_time", json!("2262-04-11T23:47:16.854775807Z")).is_ok());
    for (key, value) in [
        ("initial_height", json!("1")),
        ("initial_height", json!(-1)),
        ("proposer_address", json!("not base64")),
        ("start_time", json!("yesterday")),
        ("chain_id", json!(7)),
    ] {
        assert!(matches!(with(key, value.clone()), Err(GenesisError::Malformed(_))), "{key} {value}");
    }
}

#[test]
fn what_could_not_be_read_again_is_not_written() {
    let broken = Genesis { initial_height: Height(0), ..genesis() };
    assert_eq!(broken.to_json(), Err(GenesisError::InitialHeight));
}

#[test]
fn the_stored_form_keeps_every_value() {
    assert_eq!(codec::decode(&codec::encode(&genesis())), Ok(genesis()));
}

#[test]
fn another_value_is_another_chain() {
    let others = [
        Genesis { chain_id: "other".to_owned(), ..genesis() },
        Genesis { start_time: Timestamp(1), ..genesis() },
        Genesis { initial_height: Height(2), ..genesis() },
        Genesis { proposer_address: Bytes::from_static(&[8; 32]), ..genesis() },
        Genesis { da_start_height: DaHeight(4), ..genesis() },
        Genesis { da_epoch_forced_inclusion: 26, ..genesis() },
    ];
    for other in others {
        assert_ne!(other.hash(), genesis().hash(), "{other:?}");
    }
}
