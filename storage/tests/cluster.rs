//! What the store knows for a cluster: which one, versions of entries, how much log there is.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use baton_messages::command::{COMMAND_VERSION, Command, Verdict};
use baton_messages::types::Height;
use baton_storage::memory::{Disk, Keep};
use baton_storage::raft_types::log_id;
use baton_storage::{ClusterError, Completion, Head, HeadError, OpenError, Store, StoreError};
use common::*;
use openraft::storage::RaftLogStorage;
use uuid::Uuid;

#[tokio::test]
async fn a_store_belongs_to_one_cluster_for_ever() {
    let disk = Disk::new();
    let store = create(&disk);
    assert_eq!(store.cluster(), None);
    let (ours, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
    store.join_cluster(ours).await.unwrap();
    store.join_cluster(ours).await.unwrap();
    disk.crash(Keep::None);
    let store = reopen(&disk);
    assert_eq!(store.cluster(), Some(ours), "it is durable");
    let refused = store.join_cluster(other).await;
    assert_eq!(refused, Err(ClusterError::Other { here: ours, asked: other }));
    store.reopen().await.unwrap();
    assert_eq!(store.cluster(), Some(ours));
}

#[tokio::test]
async fn a_store_that_fails_belongs_to_no_cluster() {
    let disk = Disk::new();
    let store = create(&disk);
    disk.crash(Keep::None);
    let failed = store.join_cluster(Uuid::from_u128(1)).await;
    assert!(matches!(failed, Err(ClusterError::Store(_))), "{failed:?}");
    assert_eq!(store.cluster(), None);
}

#[test]
fn an_activation_is_applied_by_who_knows_it_and_stops_who_does_not() {
    let disk = Disk::new();
    let store = create(&disk);
    let newer = COMMAND_VERSION + 1;
    let activate = [normal(1, 1, Command::Activate(newer))];
    let stopped = store.writer(nobody()).commit(&activate);
    let Err(StoreError::Newer(reason)) = stopped else { panic!("{stopped:?}") };
    assert!(reason.contains("install the newer version"), "{reason}");
    assert_eq!(store.reader().applied(), None, "nothing of it is applied");

    disk.crash(Keep::None);
    let store = reopen(&disk);
    store.pretend_to_know(newer);
    let again = [normal(1, 1, Command::Activate(newer)), normal(1, 2, Command::Activate(COMMAND_VERSION))];
    assert_eq!(store.writer(nobody()).commit(&again), Ok(vec![Verdict::Recorded; 2]));
    assert_eq!(store.reader().command_version(), newer, "it never goes back");

    let refused = Store::in_memory(&disk, options(Completion::Inline)).map(drop);
    assert!(
        matches!(&refused, Err(OpenError::NewerEntries(_))),
        "an older version does not open it: {refused:?}"
    );
    let reader = Store::in_memory_knowing(&disk, options(Completion::Inline), newer).unwrap().reader();
    assert_eq!(reader.command_version(), newer);
}

#[tokio::test]
async fn a_snapshot_carries_the_version_and_is_refused_by_who_does_not_know_it() {
    let newer = COMMAND_VERSION + 1;
    let leader = create(&Disk::new());
    let plain = leader.writer(nobody()).build_head().unwrap();
    assert_eq!(baton_messages::codec::encode(&plain), plain.encode(), "the first version has its old bytes");
    leader.pretend_to_know(newer);
    leader.writer(nobody()).commit(&[normal(1, 1, Command::Activate(newer))]).unwrap();
    let head = leader.writer(nobody()).build_head().unwrap();
    let sent = Head::decode(&head.encode()).unwrap();
    assert_eq!(sent, head);

    let older = create(&Disk::new());
    let refused = older.writer(nobody()).install_head(sent.clone()).await;
    assert!(matches!(refused, Err(HeadError::Store(StoreError::Newer(_)))), "{refused:?}");

    let disk = Disk::new();
    let follower = create(&disk);
    follower.pretend_to_know(newer);
    follower.writer(nobody()).install_head(sent).await.unwrap();
    disk.crash(Keep::None);
    let follower = Store::in_memory_knowing(&disk, options(Completion::Inline), newer).unwrap();
    assert_eq!(follower.reader().command_version(), newer);
    assert_eq!(follower.writer(nobody()).current_head().unwrap(), Some(head));
}

#[tokio::test]
async fn a_pause_is_kept_through_restarts_and_snapshots_until_it_is_lifted() {
    let paused = |reason: &str| Command::Pause(Some(reason.to_owned()));
    let disk = Disk::new();
    let store = create(&disk);
    let entries = [normal(1, 1, Command::Activate(COMMAND_VERSION)), normal(1, 2, paused("da"))];
    assert_eq!(store.writer(nobody()).commit(&entries), Ok(vec![Verdict::Recorded; 2]));
    assert_eq!(store.reader().pause().as_deref(), Some("da"));
    let head = store.writer(nobody()).build_head().unwrap();
    disk.crash(Keep::All);
    let store = reopen(&disk);
    assert_eq!(store.reader().pause().as_deref(), Some("da"), "it is part of what is stored");

    let other = Disk::new();
    let follower = create(&other);
    let sent = Head::decode(&head.encode()).unwrap();
    assert_eq!(sent, head);
    follower.writer(nobody()).install_head(sent).await.unwrap();
    assert_eq!(follower.reader().pause().as_deref(), Some("da"), "a snapshot carries it");

    store
        .writer(nobody())
        .commit(&[normal(1, 3, paused("again")), normal(1, 4, Command::Pause(None))])
        .unwrap();
    assert_eq!(store.reader().pause(), None);
    let lifted = store.writer(nobody()).build_head().unwrap();
    follower.writer(nobody()).install_head(Head::decode(&lifted.encode()).unwrap()).await.unwrap();
    assert_eq!(follower.reader().pause(), None, "and its end");
    other.crash(Keep::None);
    assert_eq!(reopen(&other).reader().pause(), None);
}

#[tokio::test]
async fn the_bytes_of_the_newest_entries_are_known_whatever_happened_to_the_log() {
    let disk = Disk::new();
    let store = create(&disk);
    let mut log = store.log();
    let chain = blocks(6);
    let entries: Vec<_> = (1..).zip(&chain).map(|(index, block)| entry(1, index, block)).collect();
    append(&mut log, vec![blank(1, 0)]).await.unwrap();
    append(&mut log, entries.clone()).await.unwrap();
    assert_eq!(log.newest_within(u64::MAX), (0, 7));
    assert_eq!(log.newest_within(0), (0, 0));
    let (_, some) = log.newest_within(500);
    assert!(some > 0 && some < 7, "{some}");
    assert_eq!(log.lowest_block(), Some(Height(1)));

    log.truncate_after(Some(log_id(1, 4))).await.unwrap();
    assert_eq!(log.newest_within(u64::MAX), (0, 5));
    append(&mut log, vec![entry(2, 5, &chain[4])]).await.unwrap();
    assert_eq!(log.newest_within(u64::MAX), (0, 6));
    log.purge(log_id(1, 2)).await.unwrap();
    assert_eq!(log.newest_within(u64::MAX), (2, 3));
    assert_eq!(log.lowest_block(), Some(Height(3)));
    let (_, before) = log.newest_within(500);

    drop((log, store));
    let mut log = reopen(&disk).log();
    assert_eq!(log.newest_within(u64::MAX), (2, 3));
    assert_eq!(log.newest_within(500), (2, before));
    log.purge(log_id(2, 5)).await.unwrap();
    assert_eq!(log.newest_within(u64::MAX), (5, 0));
    assert_eq!(log.lowest_block(), None);
}
