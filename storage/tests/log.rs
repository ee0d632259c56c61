//! The log on the store: bodies, the tail, the storage thread and its errors.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use baton_messages::chain::Block;
use baton_messages::command::{Command, Refusal, Verdict};
use baton_messages::types::{Height, MemberId, Timestamp, Tip, Tx};
use baton_storage::memory::{Disk, Effect, EffectOutcome, Hook, Keep};
use baton_storage::raft_types::{Vote, log_id};
use baton_storage::{Completion, Direction, Family, LogStore, Store, StoreError};
use bytes::Bytes;
use common::*;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage, RaftStateMachine};
use openraft::type_config::TypeConfigExt;
use tokio::task::yield_now;

fn bodies(store: &Store) -> usize {
    let all = (Bound::Unbounded, Bound::Unbounded);
    store.backend().scan(Family::Bodies, all, Direction::Forward, usize::MAX).unwrap().len()
}

fn apply(store: &Store, entries: &[baton_storage::raft_types::Entry]) -> Vec<Verdict> {
    store.writer(nobody()).commit(entries).unwrap()
}

#[tokio::test]
async fn a_block_proposed_twice_has_one_body_and_keeps_it_to_the_last_entry() {
    let store = create(&Disk::new());
    let mut log = store.log();
    let block = &blocks(1)[0];
    append(&mut log, vec![blank(1, 0), entry(1, 1, block), entry(2, 2, block)]).await.unwrap();
    append(&mut log, vec![entry(3, 3, block)]).await.unwrap();
    assert_eq!(bodies(&store), 1);
    log.truncate_after(Some(log_id(1, 1))).await.unwrap();
    assert_eq!(bodies(&store), 1);
    assert_eq!(log.try_get_log_entries(..).await.unwrap(), [blank(1, 0), entry(1, 1, block)]);
    log.truncate_after(Some(log_id(1, 0))).await.unwrap();
    assert_eq!(bodies(&store), 0);
}

#[tokio::test]
async fn truncation_keeps_the_body_of_a_committed_block() {
    let disk = Disk::new();
    let store = create(&disk);
    let mut log = store.log();
    let block = &blocks(1)[0];
    let first = entry(1, 0, block);
    append(&mut log, vec![first.clone()]).await.unwrap();
    apply(&store, &[first]);
    log.purge(log_id(1, 0)).await.unwrap();
    append(&mut log, vec![entry(2, 1, block)]).await.unwrap();
    let writes = disk.writes();
    log.truncate_after(Some(log_id(1, 0))).await.unwrap();
    assert_eq!(disk.writes(), writes + 1);
    assert_eq!(store.reader().block(block.height()).unwrap().as_ref(), Some(block));
}

#[tokio::test]
async fn a_purge_takes_the_bodies_of_refused_blocks_only() {
    let disk = Disk::new();
    let store = create(&disk);
    let mut log = store.log();
    let good = next_block(&Tip::default(), &[b"good"]);
    let late = next_block(&Tip::default(), &[b"late"]);
    let entries = vec![entry(1, 0, &good), entry(1, 1, &late), blank(1, 2)];
    append(&mut log, entries.clone()).await.unwrap();
    let tip = tip_of(&good, 1);
    let verdicts = [Verdict::Committed(tip), Verdict::Refused(Refusal::Height, tip), Verdict::Internal];
    assert_eq!(apply(&store, &entries), verdicts);
    assert_eq!(bodies(&store), 2, "a follower may still need the refused entry");
    // Also when the entries are on the disk alone.
    disk.crash(Keep::All);
    let store = reopen(&disk);
    let mut log = store.log();
    log.purge(log_id(1, 1)).await.unwrap();
    assert_eq!(bodies(&store), 1);
    assert_eq!(store.reader().block(good.height()).unwrap(), Some(good));
    assert_eq!(log.try_get_log_entries(..).await.unwrap(), [blank(1, 2)]);
}

/// Only a damaged log could come to that; verdicts of other members would differ from then on.
#[tokio::test]
async fn no_entry_is_left_out_and_none_is_applied_twice() {
    for next in [0, 1, 3] {
        let store = create(&Disk::new());
        store.join_cluster(STORAGE).await.unwrap();
        let writer = store.writer(nobody());
        writer.commit(&[blank(1, 0), blank(1, 1)]).unwrap();
        let applied = writer.commit(&[blank(1, next)]);
        assert!(
            matches!(&applied, Err(StoreError::Corrupt(reason)) if reason.contains("where 2 follows")),
            "{applied:?}"
        );
        assert!(matches!(store.trouble(), Some(StoreError::Corrupt(_))));
        assert_eq!(store.reader().applied().map(|(index, _)| index.0), Some(1));
    }
    let store = create(&Disk::new());
    store.join_cluster(STORAGE).await.unwrap();
    assert!(store.writer(nobody()).commit(&[blank(1, 0), blank(1, 2)]).is_err(), "within a batch");
}

/// The header of a committed block whose body the log still has may not be here yet: what is filled
/// in at the same moment must not lose its body to the purge that follows the snapshot.
#[tokio::test]
async fn a_purge_after_a_snapshot_takes_no_body_that_may_be_committed() {
    let chain = blocks(5);
    let all: Vec<_> = (0..).zip(&chain).map(|(index, block)| entry(1, index, block)).collect();
    let leader = create(&Disk::new());
    leader.writer(nobody()).import(&all).unwrap();
    let head = leader.writer(nobody()).build_head().unwrap();
    let store = create(&Disk::new());
    let mut log = store.log();
    let other = block_at(&tip_of(&chain[0], 1), Timestamp(77), &[b"never committed"]);
    let last = tip_of(&chain[4], 1);
    let above = next_block(&last, &[b"above"]);
    let entries = [
        entry(1, 0, &chain[0]),
        entry(1, 1, &chain[1]),
        entry(1, 2, &other),
        entry(1, 3, &chain[4]),
        entry(1, 4, &above),
    ];
    append(&mut log, entries.to_vec()).await.unwrap();
    apply(&store, &entries[..1]);
    store.writer(nobody()).install_head(head).await.unwrap();
    log.purge(log_id(1, 4)).await.unwrap();
    let body = |block: &Arc<Block>| {
        let all = (Bound::Unbounded, Bound::Unbounded);
        let found = store.backend().scan(Family::Bodies, all, Direction::Forward, usize::MAX).unwrap();
        found.iter().any(|(key, _)| key.ends_with(&block.hash().0))
    };
    assert!(body(&chain[0]) && body(&chain[1]) && body(&chain[4]));
    assert!(body(&other), "nobody knows yet what stands at its height");
    assert!(!body(&above), "it is above the tip");
}

#[tokio::test]
async fn entries_read_the_same_from_memory_and_from_the_disk() {
    let disk = Disk::new();
    let store = create(&disk);
    let mut log = store.log();
    let chain = blocks(200);
    let mut entries = vec![blank(1, 0)];
    entries.extend((1..).zip(&chain).map(|(index, block)| entry(1, index, block)));
    entries.push(normal(1, 201, Command::Signature(signature(&chain[0]))));
    for chunk in entries.chunks(7) {
        append(&mut log, chunk.to_vec()).await.unwrap();
    }
    let ranges = [(0, 202), (0, 1), (5, 5), (63, 66), (150, 400), (201, 202), (300, 400)];
    let expected = |from: usize, to: usize| entries[from.min(202)..to.min(202)].to_vec();
    for (from, to) in ranges {
        assert_eq!(log.try_get_log_entries(from as u64..to as u64).await.unwrap(), expected(from, to));
    }
    disk.crash(Keep::None);
    let store = reopen(&disk);
    let mut log = store.log();
    for (from, to) in ranges {
        assert_eq!(log.try_get_log_entries(from as u64..to as u64).await.unwrap(), expected(from, to));
    }
    // Partly here, partly there.
    let next = blank(2, 202);
    append(&mut log, vec![next.clone()]).await.unwrap();
    let mut all = entries.clone();
    all.push(next);
    assert_eq!(log.try_get_log_entries(..).await.unwrap(), all);
}

#[tokio::test]
async fn more_entries_than_the_tail_holds_are_all_readable() {
    let store = create(&Disk::new());
    let mut log = store.log();
    for first in (0..3000).step_by(100) {
        append(&mut log, (first..first + 100).map(|index| blank(1, index)).collect()).await.unwrap();
    }
    let all = log.try_get_log_entries(..).await.unwrap();
    assert_eq!(all, (0..3000).map(|index| blank(1, index)).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_limited_read_returns_at_least_one_entry_and_not_all_of_a_large_range() {
    let store = create(&Disk::new());
    let mut log = store.log();
    let large: &'static [u8] = Box::leak(vec![1; 3 << 20].into_boxed_slice());
    let first = next_block(&Tip::default(), &[large]);
    let second = next_block(&tip_of(&first, 1), &[large]);
    append(&mut log, vec![entry(1, 0, &first), entry(1, 1, &second)]).await.unwrap();
    assert_eq!(log.limited_get_log_entries(0, 2).await.unwrap(), [entry(1, 0, &first)]);
    assert_eq!(log.limited_get_log_entries(1, 2).await.unwrap(), [entry(1, 1, &second)]);
}

#[tokio::test]
async fn a_log_entry_without_its_body_is_damage() {
    let disk = Disk::new();
    append(&mut create(&disk).log(), vec![entry(1, 0, &blocks(1)[0])]).await.unwrap();
    disk.crash(Keep::None);
    let store = reopen(&disk);
    let mut batch = baton_storage::Batch::default();
    batch.delete_range(Family::Bodies, &[0][..], &[255][..]);
    store.backend().write(batch).unwrap();
    assert!(store.log().try_get_log_entries(..).await.is_err());
    assert!(matches!(store.trouble(), Some(StoreError::Corrupt(_))));
}

#[tokio::test]
async fn an_error_sticks_until_the_store_is_opened_again() {
    for error in [StoreError::Io("cable".into()), StoreError::Full("disk".into())] {
        let disk = Disk::new();
        let store = create(&disk);
        let failing = error.clone();
        disk.set_hook(Some(Arc::new(move |effect| match effect {
            Effect::BeforeSync => EffectOutcome::Fail(failing.clone()),
            _ => EffectOutcome::Continue,
        })));
        let mut log = store.log();
        let told = append(&mut log, vec![blank(1, 0)]).await.unwrap_err();
        assert_eq!(told.to_string(), error.to_string());
        disk.set_hook(None);
        assert_eq!(store.trouble(), Some(error.clone()));
        assert!(append(&mut log, vec![blank(1, 1)]).await.is_err());
        assert!(log.save_vote(&Vote::new(1, MemberId(1))).await.is_err());
        assert_eq!(
            store.queue().append(vec![Tx(Bytes::from_static(b"x"))], Height(0)).await,
            Err(error.clone())
        );
        assert_eq!(store.writer(nobody()).commit(&[blank(1, 0)]), Err(error));
        store.close();
        let store = reopen(&disk);
        assert_eq!(store.trouble(), None);
        append(
            &mut store.log(),
            vec![blank(
                1,
                store.log().get_log_state().await.unwrap().last_log_id.map_or(0, |id| id.index + 1),
            )],
        )
        .await
        .unwrap();
    }
}

/// A store with its thread, and a disk that waits in every sync until it is let go.
struct Slow {
    disk: Disk,
    store: Store,
    syncing: Receiver<()>,
    go_on: Sender<()>,
}

impl Slow {
    fn new() -> Self {
        let disk = Disk::new();
        let store = Store::create_in_memory(&disk, options(Completion::Thread), STORAGE).unwrap();
        let (began, syncing) = channel();
        let (go_on, wait) = channel();
        let wait = Mutex::new(wait);
        let hook: Hook = Arc::new(move |effect| {
            if effect == Effect::BeforeSync {
                began.send(()).expect("the test listens");
                wait.lock().unwrap().recv().expect("the test lets the sync go on");
            }
            EffectOutcome::Continue
        });
        disk.set_hook(Some(hook));
        Self { disk, store, syncing, go_on }
    }

    fn let_go(&self) {
        self.go_on.send(()).unwrap();
    }
}

/// Appends without waiting; the order of completions ends up in `done`.
async fn start_append(
    log: &mut LogStore,
    index: u64,
    done: &Arc<Mutex<Vec<String>>>,
) -> tokio::task::JoinHandle<()> {
    let (sender, receiver) = baton_storage::TypeConfig::oneshot();
    log.append(vec![blank(1, index)], IOFlushed::signal(sender)).await.unwrap();
    let done = done.clone();
    tokio::spawn(async move {
        receiver.await.unwrap().unwrap();
        done.lock().unwrap().push(format!("append {index}"));
    })
}

#[tokio::test]
async fn jobs_that_wait_share_one_sync_and_keep_their_order() {
    let slow = Slow::new();
    let mut log = slow.store.log();
    let done = Arc::new(Mutex::new(vec![]));
    let mut waiting = vec![start_append(&mut log, 0, &done).await];
    slow.syncing.recv().unwrap();
    let before = slow.store.stats();
    for index in 1..=20 {
        waiting.push(start_append(&mut log, index, &done).await);
    }
    assert_eq!(log.try_get_log_entries(..).await.unwrap().len(), 21, "readable before it is written");
    let queue = slow.store.queue().append(vec![Tx(Bytes::from_static(b"accepted"))], Height(0));
    waiting.push(tokio::spawn(async move { assert_eq!(queue.await.unwrap(), [0]) }));
    let (mut voter, told) = (log.clone(), done.clone());
    waiting.push(tokio::spawn(async move {
        voter.save_vote(&Vote::new(5, MemberId(1))).await.unwrap();
        told.lock().unwrap().push("vote".to_owned());
    }));
    while slow.store.stats().queue_length < 22 {
        yield_now().await;
    }
    assert!(slow.store.stats().busy_since.is_some());

    slow.let_go();
    slow.syncing.recv().unwrap();
    // Everything is in the second group, the vote behind what was queued before it.
    assert_eq!(slow.store.stats().queue_length, 0);
    slow.let_go();
    for task in waiting {
        task.await.unwrap();
    }
    assert_eq!(slow.store.stats().fsyncs - before.fsyncs, 2);
    assert_eq!(slow.store.stats().jobs - before.jobs, 22);
    let done = done.lock().unwrap().clone();
    let mut expected: Vec<String> = (0..=20).map(|index| format!("append {index}")).collect();
    expected.push("vote".to_owned());
    assert_eq!(done, expected);
    slow.disk.set_hook(None);
}

#[tokio::test]
async fn an_apply_waits_until_its_entry_is_in_the_write_ahead_log() {
    let slow = Slow::new();
    let mut log = slow.store.log();
    let chain = blocks(1);
    let done = Arc::new(Mutex::new(vec![]));
    let first = start_append(&mut log, 0, &done).await;
    slow.syncing.recv().unwrap();
    // The thread is in a sync: this entry is in memory only.
    let (sender, flushed) = baton_storage::TypeConfig::oneshot();
    log.append(vec![entry(1, 1, &chain[0])], IOFlushed::signal(sender)).await.unwrap();
    let applied = Arc::new(AtomicBool::new(false));
    let (mut machine, flag) = (slow.store.state_machine(nobody()), applied.clone());
    let entries = vec![Ok((blank(1, 0), None)), Ok((entry(1, 1, &chain[0]), None))];
    let apply = tokio::spawn(async move {
        machine.apply(futures::stream::iter(entries)).await.unwrap();
        flag.store(true, Ordering::Relaxed);
    });
    for _ in 0..100 {
        yield_now().await;
    }
    assert!(!applied.load(Ordering::Relaxed), "it must not get ahead of its entry");

    slow.let_go();
    slow.syncing.recv().unwrap();
    // Written and not synced: a leader may apply now.
    apply.await.unwrap();
    assert_eq!(slow.store.reader().tip(), tip_of(&chain[0], 1));
    slow.let_go();
    flushed.await.unwrap().unwrap();
    first.await.unwrap();
    slow.disk.set_hook(None);
}

#[tokio::test]
async fn closing_finishes_what_is_queued_and_refuses_the_rest() {
    let disk = Disk::new();
    let store = Store::create_in_memory(&disk, options(Completion::Thread), STORAGE).unwrap();
    let mut log = store.log();
    let (sender, flushed) = baton_storage::TypeConfig::oneshot();
    log.append(vec![blank(1, 0)], IOFlushed::signal(sender)).await.unwrap();
    log.save_committed(Some(log_id(1, 0))).await.unwrap();
    let numbers = store.queue().append(vec![Tx(Bytes::from_static(b"gone"))], Height(0)).await.unwrap();
    store.queue().remove(&numbers);
    store.close();
    flushed.await.unwrap().unwrap();
    assert_eq!(disk.unsynced(), 0);
    assert!(append(&mut log, vec![blank(1, 1)]).await.is_err());
    assert!(store.queue().append(vec![Tx(Bytes::new())], Height(0)).await.is_err());
    store.close();

    let store = reopen(&disk);
    assert_eq!(store.log().read_committed().await.unwrap(), Some(log_id(1, 0)));
    assert_eq!(store.queue().load().unwrap(), []);
    let next = store.queue().append(vec![Tx(Bytes::from_static(b"next"))], Height(0)).await.unwrap();
    assert_eq!(next, [1], "a number is never given out twice, also when the queue was empty");
}

/// openraft goes on with what an append returned before it hears of its completion: it would apply
/// entries that nobody can read.
#[tokio::test]
async fn a_store_in_trouble_takes_no_entries_that_nobody_could_read() {
    let disk = Disk::new();
    let store = create(&disk);
    disk.set_hook(Some(Arc::new(|effect| match effect {
        Effect::BeforeWrite => EffectOutcome::Fail(StoreError::Full("disk".into())),
        _ => EffectOutcome::Continue,
    })));
    let mut log = store.log();
    let _ = append(&mut log, vec![blank(1, 0)]).await.unwrap_err();
    let (sender, _) = baton_storage::TypeConfig::oneshot();
    let told = log.append(vec![blank(1, 1)], IOFlushed::signal(sender)).await;
    assert_eq!(told.unwrap_err().to_string(), StoreError::Full("disk".into()).to_string());
    assert_eq!(log.try_get_log_entries(1..).await.unwrap(), []);
}

#[tokio::test]
async fn a_store_that_failed_works_again_in_place_and_holds_what_survived() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let options = baton_storage::OpenOptions { path, ..options(Completion::Thread) };
    let store = Store::create(options, STORAGE).unwrap();
    let (mut log, reader) = (store.log(), store.reader());
    let block = &blocks(1)[0];
    let first = entry(1, 0, block);
    append(&mut log, vec![first.clone()]).await.unwrap();
    apply(&store, std::slice::from_ref(&first));
    // Any damage a reader meets is trouble for the whole store.
    let mut batch = baton_storage::Batch::default();
    batch.put(Family::Signatures, 1u64.to_be_bytes().to_vec(), &b"nonsense"[..]);
    store.backend().write(batch).unwrap();
    assert!(reader.signature(block.height()).is_err());
    assert!(append(&mut log, vec![blank(1, 1)]).await.is_err());

    store.reopen().await.unwrap();
    assert_eq!(store.trouble(), None);
    assert_eq!(reader.tip(), tip_of(block, 1));
    append(&mut log, vec![blank(1, 1)]).await.unwrap();
    assert_eq!(log.try_get_log_entries(..).await.unwrap(), [first, blank(1, 1)]);
}

/// What others are told that a member has must survive the loss of power (hazard A11).
#[tokio::test]
async fn only_what_is_synced_counts_as_durable() {
    let slow = Slow::new();
    let (mut log, reader) = (slow.store.log(), slow.store.reader());
    let done = Arc::new(Mutex::new(vec![]));
    let durable = || reader.durable_log().map(|(_, index)| index.0);
    let first = start_append(&mut log, 0, &done).await;
    slow.syncing.recv().unwrap();
    assert_eq!((reader.last_log().map(|(_, index)| index.0), durable()), (Some(0), None));
    slow.let_go();
    first.await.unwrap();
    assert_eq!(durable(), Some(0));
    let second = start_append(&mut log, 1, &done).await;
    slow.syncing.recv().unwrap();
    assert_eq!((reader.last_log().map(|(_, index)| index.0), durable()), (Some(1), Some(0)));
    slow.let_go();
    second.await.unwrap();
    assert_eq!(durable(), Some(1));
    slow.disk.set_hook(None);
}
