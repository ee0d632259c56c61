//! Opening a store: what is refused, and how it says so.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use baton_messages::chain::{Header, SignedHeader};
use baton_messages::types::{DaHeight, Height, Timestamp, Tx};
use baton_storage::memory::{Disk, Keep};
use baton_storage::{
    Backend, Batch, Completion, Evidence, Family, FollowRecord, OpenError, OpenOptions, Store, StoreError,
};
use bytes::Bytes;
use common::*;
use uuid::Uuid;

fn on_disk(directory: &tempfile::TempDir) -> OpenOptions {
    OpenOptions { path: directory.path().join("store"), ..options(Completion::Thread) }
}

#[test]
fn an_empty_directory_is_not_a_store_and_stays_empty() {
    let directory = tempfile::tempdir().unwrap();
    let options = on_disk(&directory);
    let error = Store::open(options.clone()).unwrap_err();
    assert_eq!(error, OpenError::NotInitialised(options.path.clone()));
    assert!(error.to_string().contains("baton init"), "{error}");
    assert!(!options.path.exists());
    assert!(matches!(Store::in_memory(&Disk::new(), options), Err(OpenError::NotInitialised(_))));
}

#[test]
fn a_store_is_made_once() {
    let directory = tempfile::tempdir().unwrap();
    let options = on_disk(&directory);
    Store::create(options.clone(), STORAGE).unwrap().close();
    let again = Store::create(options.clone(), Uuid::nil()).unwrap_err();
    assert_eq!(again, OpenError::AlreadyInitialised(options.path.clone()));
    assert_eq!(Store::open(options).unwrap().identity().storage, STORAGE);
}

#[test]
fn the_boot_counter_rises_with_every_opening_and_the_rest_stays() {
    let disk = Disk::new();
    let first = create(&disk).identity();
    assert_eq!((first.boot, first.storage, first.chain_id.as_str()), (1, STORAGE, CHAIN));
    assert_eq!(first.genesis_hash, genesis().hash());
    disk.crash(Keep::None);
    assert_eq!(reopen(&disk).identity().boot, 2);
    disk.crash(Keep::None);
    let third = reopen(&disk).identity();
    assert_eq!(third, baton_storage::Identity { boot: 3, ..first });
}

#[test]
fn the_store_of_another_chain_is_refused_and_left_alone() {
    let disk = Disk::new();
    create(&disk);
    let writes = disk.writes();
    let mut other = options(Completion::Inline);
    other.chain_id = "other-chain".into();
    other.genesis.chain_id = "other-chain".into();
    let error = Store::in_memory(&disk, other).unwrap_err();
    assert!(
        matches!(&error, OpenError::OtherChain { found, wanted }
        if found.contains(CHAIN) && wanted.contains("other-chain")),
        "{error}"
    );
    let mut other = options(Completion::Inline);
    other.genesis.start_time = Timestamp(1_001);
    assert!(matches!(Store::in_memory(&disk, other), Err(OpenError::OtherChain { .. })));
    assert_eq!(disk.writes(), writes);
}

#[test]
fn a_newer_format_is_refused() {
    let disk = Disk::new();
    create(&disk);
    let mut batch = Batch::default();
    batch.put(Family::Meta, &b"format"[..], &[0, 0, 0, 9][..]);
    disk.attach().write(batch).unwrap();
    let error = Store::in_memory(&disk, options(Completion::Inline)).unwrap_err();
    assert_eq!(error, OpenError::NewerFormat { found: 9, known: 1 });
}

#[test]
fn what_cannot_be_read_is_damage() {
    for (key, value) in [("identity", "\u{1}x"), ("format", "abc"), ("applied", "zzz"), ("vote", "\u{7}")] {
        let disk = Disk::new();
        create(&disk);
        let mut batch = Batch::default();
        batch.put(Family::Meta, key.as_bytes(), value.as_bytes());
        disk.attach().write(batch).unwrap();
        let error = Store::in_memory(&disk, options(Completion::Inline)).unwrap_err();
        assert!(matches!(error, OpenError::Damaged(_)), "{key}: {error}");
    }
}

#[test]
fn a_store_that_lost_headers_is_damaged() {
    let disk = Disk::new();
    let store = create(&disk);
    let chain = blocks(2);
    store.writer(nobody()).import(&[entry(1, 1, &chain[0]), entry(1, 2, &chain[1])]).unwrap();
    let mut batch = Batch::default();
    batch.delete(Family::Headers, 2u64.to_be_bytes().to_vec());
    store.backend().write(batch).unwrap();
    let error = Store::in_memory(&disk, options(Completion::Inline)).unwrap_err();
    assert!(matches!(error, OpenError::Damaged(_)), "{error}");
}

#[test]
fn a_directory_is_in_use_until_its_store_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let options = on_disk(&directory);
    let store = Store::create(options.clone(), STORAGE).unwrap();
    let (reader, backend) = (store.reader(), store.backend());
    assert_eq!(Store::open(options.clone()).unwrap_err(), OpenError::InUse(options.path.clone()));
    store.close();
    let next = Store::open(options).unwrap();
    assert_eq!(next.identity().boot, 2);
    // Handles of the closed store are dead, not dangerous.
    assert!(matches!(backend.get(Family::Meta, b"boot"), Err(StoreError::Io(_))));
    assert_eq!(reader.tip(), next.reader().tip());
}

#[test]
fn a_file_in_the_way_is_an_error_and_not_a_panic() {
    let directory = tempfile::tempdir().unwrap();
    let options = on_disk(&directory);
    std::fs::write(&options.path, "in the way").unwrap();
    assert!(matches!(Store::create(options, STORAGE), Err(OpenError::Io(_))));
}

#[test]
fn a_damaged_file_is_damage() {
    let directory = tempfile::tempdir().unwrap();
    let options = on_disk(&directory);
    Store::create(options.clone(), STORAGE).unwrap().close();
    let manifest = std::fs::read_to_string(options.path.join("CURRENT")).unwrap();
    std::fs::write(options.path.join(manifest.trim()), "garbage where the manifest was").unwrap();
    let error = Store::open(options).unwrap_err();
    assert!(matches!(error, OpenError::Damaged(_)), "{error}");
}

#[test]
fn free_space_is_known_on_a_disk_only() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::create(on_disk(&directory), STORAGE).unwrap();
    assert!(store.free_space().unwrap().is_some_and(|free| free > 0));
    assert_eq!(create(&Disk::new()).free_space().unwrap(), None);
}

#[tokio::test]
async fn everything_synced_is_there_after_a_restart_of_rocksdb() {
    let directory = tempfile::tempdir().unwrap();
    let options = on_disk(&directory);
    let store = Store::create(options.clone(), STORAGE).unwrap();
    let chain = blocks(3);
    let entries = (1..).zip(&chain).map(|(index, block)| entry(1, index, block)).collect::<Vec<_>>();
    append(&mut store.log(), entries.clone()).await.unwrap();
    store.writer(nobody()).commit(&entries).unwrap();
    let numbers = store.queue().append(vec![Tx(Bytes::from_static(b"waiting"))], Height(0)).await.unwrap();
    assert_eq!(numbers, [0]);
    store.close();

    let store = Store::open(options).unwrap();
    let reader = store.reader();
    assert_eq!(reader.tip(), tip_of(&chain[2], 1));
    for block in &chain {
        assert_eq!(reader.block(block.height()).unwrap().as_ref(), Some(block));
        assert_eq!(reader.height_of(&block.hash()).unwrap(), Some(block.height()));
    }
    assert_eq!(store.queue().load().unwrap(), [(0, Tx(Bytes::from_static(b"waiting")))]);
}

/// Found in one answer, all of them are kept at once, while the storage thread is at the first.
#[tokio::test]
async fn evidence_that_comes_at_once_is_kept_whole_and_so_is_where_envelopes_began() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::create(on_disk(&directory), STORAGE).unwrap();
    let writer = store.writer(nobody());
    writer.begin_follow(DaHeight(1)).await.unwrap();
    let evidence = |height: u64| {
        let header = Header { height: Height(height), ..Header::default() };
        let first = SignedHeader { header, ..SignedHeader::default() };
        let second = SignedHeader { signature: vec![1].into(), ..first.clone() };
        let (first_from, second_from) = ("here".to_owned(), "there".to_owned());
        Evidence { height: Height(height), first, first_from, second, second_from, found: Timestamp(1) }
    };
    let heights = [9, 7, 8, 7];
    let kept = heights.map(|height| writer.keep_evidence(evidence(height)));
    for kept in futures::future::join_all(kept).await {
        kept.unwrap();
    }
    let record = FollowRecord { strict_from: Some(DaHeight(5)), ..store.reader().follow().unwrap() };
    writer.follow(&[], &record).unwrap();
    store.close();
    let store = Store::open(on_disk(&directory)).unwrap();
    let heights: Vec<_> = store.reader().evidence().iter().map(|evidence| evidence.height.0).collect();
    assert_eq!(heights, [9, 7, 8], "the same twice is kept once");
    assert_eq!(store.reader().follow(), Some(record));
}
