//! The crash model: the power goes between any two effects, and what was not synced is lost but
//! for a prefix. What the functions promise must hold whatever happens (P3, P4).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use baton_messages::command::Command;
use baton_messages::types::{Height, MemberId, Timestamp, Tip, Tx};
use baton_storage::memory::{Disk, Effect, EffectOutcome, Hook, Keep};
use baton_storage::raft_types::{Entry, Payload, Vote};
use baton_storage::verdict::{self, Decision};
use baton_storage::{LogStore, StateMachine, Store};
use bytes::Bytes;
use common::*;
use openraft::storage::{
    RaftLogReader, RaftLogStorage, RaftSnapshotBuilder, RaftStateMachine, StorageHelper,
};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Vote,
    Append {
        count: u8,
        variant: u8,
    },
    /// The last block once more, in a new entry.
    Repeat,
    Truncate {
        count: u8,
    },
    Apply {
        count: u8,
    },
    SaveCommitted,
    Snapshot,
    Purge,
    Enqueue {
        count: u8,
    },
    Dequeue {
        count: u8,
    },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        1 => Just(Op::Vote),
        5 => (1u8..4, 1u8..4).prop_map(|(count, variant)| Op::Append { count, variant }),
        1 => Just(Op::Repeat),
        2 => (1u8..4).prop_map(|count| Op::Truncate { count }),
        4 => (1u8..5).prop_map(|count| Op::Apply { count }),
        2 => Just(Op::SaveCommitted),
        1 => Just(Op::Snapshot),
        1 => Just(Op::Purge),
        2 => (0u8..3).prop_map(|count| Op::Enqueue { count }),
        1 => (1u8..3).prop_map(|count| Op::Dequeue { count }),
    ]
}

#[derive(Clone, Debug)]
struct Life {
    ops: Vec<Op>,
    power_off_at: usize,
    keep: usize,
}

fn life() -> impl Strategy<Value = Life> {
    (prop::collection::vec(op(), 1..25), 1usize..60, 0usize..6).prop_map(|(ops, power_off_at, keep)| Life {
        ops,
        power_off_at,
        keep,
    })
}

/// What must be true of the disk, and what may be.
#[derive(Default)]
struct Model {
    term: u64,
    /// The last vote that was acknowledged.
    vote: u64,
    /// What the log must hold: acknowledged and not removed since.
    log: BTreeMap<u64, Entry>,
    /// Everything that was ever appended: what a crash may bring back.
    ever: Vec<Entry>,
    /// The tip after each entry.
    tips: BTreeMap<u64, Tip>,
    /// The highest index that was ever committed; nothing up to it is truncated.
    committed: u64,
    purged: u64,
    queue: BTreeMap<u64, Tx>,
    /// Given out, acknowledged or not.
    numbers: BTreeSet<u64>,
    removed: BTreeSet<u64>,
}

impl Model {
    fn last(&self) -> u64 {
        self.log.last_key_value().map_or(self.purged, |(index, _)| *index)
    }

    fn tip(&self) -> Tip {
        self.tips.range(..=self.last()).next_back().map_or(Tip::default(), |(_, tip)| *tip)
    }

    fn after(tip: Tip, entry: &Entry) -> Tip {
        let Payload::Normal(Command::Block(block)) = &entry.payload else { return tip };
        let term = baton_messages::types::Term(entry.log_id.leader_id.term);
        match verdict::block(&genesis(), &tip, None, term, block) {
            Decision::Commit(next) => next,
            Decision::Standing(_) | Decision::Refuse(_) => tip,
        }
    }
}

struct Node {
    store: Store,
    log: LogStore,
    machine: StateMachine,
}

impl Node {
    fn on(store: Store) -> Self {
        Self { log: store.log(), machine: store.state_machine(nobody()), store }
    }

    fn applied(&self) -> u64 {
        self.store.reader().applied().map_or(0, |(index, _)| index.0)
    }
}

type Outcome = Result<(), String>;

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

async fn append_new(node: &mut Node, model: &mut Model, entries: Vec<Entry>) -> Outcome {
    model.ever.extend(entries.clone());
    append(&mut node.log, entries.clone()).await.map_err(text)?;
    for entry in entries {
        let tip = Model::after(model.tip(), &entry);
        model.tips.insert(entry.log_id.index, tip);
        model.log.insert(entry.log_id.index, entry);
    }
    Ok(())
}

async fn run(node: &mut Node, model: &mut Model, op: &Op) -> Outcome {
    match op {
        Op::Vote => {
            model.term += 1;
            node.log.save_vote(&Vote::new(model.term, MemberId(1))).await.map_err(text)?;
            model.vote = model.term;
        }
        Op::Append { count, variant } => {
            let mut tip = model.tip();
            let first = model.last() + 1;
            let mut entries = vec![];
            for index in first..first + u64::from(*count) {
                let time = if tip.height == Height(0) { 1_000 } else { tip.time.0 + u64::from(*variant) };
                let block = block_at(&tip, Timestamp(time), &[b"tx"]);
                tip = tip_of(&block, model.term);
                entries.push(entry(model.term, index, &block));
            }
            append_new(node, model, entries).await?;
        }
        Op::Repeat => {
            let again = model.log.values().rev().find_map(|entry| match &entry.payload {
                Payload::Normal(Command::Block(block)) => Some(block.block.clone()),
                _ => None,
            });
            let entry = match again {
                Some(block) => entry(model.term, model.last() + 1, &block),
                None => blank(model.term, model.last() + 1),
            };
            append_new(node, model, vec![entry]).await?;
        }
        Op::Truncate { count } => {
            let floor = model.committed.max(model.purged);
            let to = model.last().saturating_sub(u64::from(*count)).max(floor);
            let last = model.log.get(&to).map(|entry| entry.log_id);
            if to == 0 || last.is_some() {
                model.log.split_off(&(to + 1));
                model.tips.split_off(&(to + 1));
                node.log.truncate_after(last).await.map_err(text)?;
            }
        }
        Op::Apply { count } => {
            let applied = node.applied();
            let to = (applied + u64::from(*count)).min(model.last());
            if to > applied {
                let entries = node.log.try_get_log_entries(applied + 1..=to).await.map_err(text)?;
                assert_eq!(entries.len() as u64, to - applied);
                model.committed = model.committed.max(to);
                let stream = futures::stream::iter(entries.into_iter().map(|entry| Ok((entry, None))));
                node.machine.apply(stream).await.map_err(text)?;
                assert_eq!(node.store.reader().tip(), model.tips[&to]);
            }
        }
        Op::SaveCommitted => {
            if let Some(entry) = model.log.get(&model.committed) {
                node.log.save_committed(Some(entry.log_id)).await.map_err(text)?;
            }
        }
        Op::Snapshot => {
            node.machine.build_snapshot().await.map_err(text)?;
        }
        Op::Purge => {
            let covered = node.machine.get_current_snapshot().await.map_err(text)?;
            if let Some(last) = covered.and_then(|snapshot| snapshot.meta.last_log_id)
                && last.index > model.purged
            {
                model.purged = last.index;
                model.log = model.log.split_off(&(last.index + 1));
                node.log.purge(last).await.map_err(text)?;
            }
        }
        Op::Enqueue { count } => {
            let txs: Vec<Tx> = (0..*count).map(|byte| Tx(Bytes::from(vec![byte; 3]))).collect();
            let numbers = node.store.queue().append(txs.clone(), Height(0)).await.map_err(text)?;
            for (number, tx) in numbers.into_iter().zip(txs) {
                assert!(model.numbers.last().is_none_or(|last| *last < number), "numbers rise for ever");
                model.numbers.insert(number);
                model.queue.insert(number, tx);
            }
        }
        Op::Dequeue { count } => {
            let gone: Vec<u64> = model.queue.keys().take(usize::from(*count)).copied().collect();
            model.queue.retain(|number, _| !gone.contains(number));
            model.removed.extend(&gone);
            node.store.queue().remove(&gone);
        }
    }
    Ok(())
}

/// Checks what is on the disk after a crash, and makes the model follow it.
async fn check(node: &mut Node, model: &mut Model) {
    let vote = node.log.read_vote().await.unwrap();
    assert!(vote.map_or(0, |vote| vote.leader_id.term) >= model.vote, "a vote never regresses");

    let survivors = node.log.try_get_log_entries(..).await.unwrap();
    let by_index: BTreeMap<u64, &Entry> = survivors.iter().map(|entry| (entry.log_id.index, entry)).collect();
    for (index, entry) in &model.log {
        assert_eq!(by_index.get(index), Some(&entry), "an acknowledged entry survives");
    }
    for entry in &survivors {
        assert!(model.ever.contains(entry), "nothing is in the log that was not appended");
    }
    let state = node.log.get_log_state().await.unwrap();
    let (last, purged) = (state.last_log_id.map_or(0, |id| id.index), state.last_purged_log_id);
    assert!(purged.map_or(0, |id| id.index) <= model.purged);
    assert!(node.applied() <= last, "a surviving apply implies its log entry");
    assert!(node.applied() <= model.committed);
    assert!(purged.map_or(0, |id| id.index) <= node.applied(), "what is purged is applied");

    let reader = node.store.reader();
    let tip = model.tips.get(&node.applied()).copied().unwrap_or_default();
    assert_eq!(reader.tip(), tip, "the applied state is that of the applied entry");
    for height in 1..=tip.height.0 {
        let block = reader.block(Height(height)).unwrap().expect("a committed block keeps its body");
        assert_eq!(reader.height_of(&block.hash()).unwrap(), Some(Height(height)));
    }

    let queued: BTreeMap<u64, Tx> = node.store.queue().load().unwrap().into_iter().collect();
    for (number, tx) in &model.queue {
        assert_eq!(queued.get(number), Some(tx), "an accepted transaction survives");
    }
    // Both lives of a lost tail: it may be back, and so may what was removed.
    model.numbers.extend(queued.keys());
    model.queue = queued;

    model.purged = purged.map_or(0, |id| id.index);
    model.log = survivors.into_iter().map(|entry| (entry.log_id.index, entry)).collect();
    let base = model.committed.max(model.purged);
    model.tips.split_off(&(base + 1));
    for (index, entry) in model.log.range(base + 1..) {
        let tip = model.tips.range(..index).next_back().map_or(Tip::default(), |(_, tip)| *tip);
        model.tips.insert(*index, Model::after(tip, entry));
    }
}

fn power_off_at(effect: usize) -> Hook {
    let seen = AtomicUsize::new(0);
    Arc::new(move |_: Effect| {
        if seen.fetch_add(1, Ordering::Relaxed) + 1 == effect {
            EffectOutcome::PowerOff
        } else {
            EffectOutcome::Continue
        }
    })
}

async fn live(lives: Vec<Life>) {
    let disk = Disk::new();
    let mut model = Model { term: 1, ..Model::default() };
    // openraft's logs begin at zero.
    let first = blank(1, 0);
    append(&mut create(&disk).log(), vec![first.clone()]).await.unwrap();
    model.tips.insert(0, Tip::default());
    model.ever.push(first.clone());
    model.log.insert(0, first);
    for (life, boot) in lives.into_iter().zip(2..) {
        let mut node = Node::on(reopen(&disk));
        assert_eq!(node.store.identity().boot, boot);
        check(&mut node, &mut model).await;
        // openraft can start from whatever is there.
        let mut start = StorageHelper::new(&mut node.log, &mut node.machine).with_id(MemberId(1));
        start.get_initial_state().await.unwrap();
        model.purged = node.log.get_log_state().await.unwrap().last_purged_log_id.map_or(0, |id| id.index);

        // A new leader's term; entries of the old one are told apart by it.
        model.term += 1;
        disk.set_hook(Some(power_off_at(life.power_off_at)));
        for op in &life.ops {
            let outcome = run(&mut node, &mut model, op).await;
            if disk.powered_off() {
                break;
            }
            outcome.unwrap();
        }
        disk.set_hook(None);
        disk.crash(Keep::Prefix(life.keep));
    }
    let mut node = Node::on(reopen(&disk));
    check(&mut node, &mut model).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn promises_hold_through_any_number_of_crashes(lives in prop::collection::vec(life(), 1..6)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(live(lives));
    }
}

/// The model above must be able to see a broken promise: here is one.
#[tokio::test]
async fn a_lost_apply_is_applied_again_from_the_log() {
    let disk = Disk::new();
    let store = create(&disk);
    let chain = blocks(2);
    let log = vec![entry(1, 1, &chain[0]), entry(1, 2, &chain[1])];
    append(&mut store.log(), log.clone()).await.unwrap();
    store.writer(nobody()).commit(&log).unwrap();
    assert_eq!((store.reader().tip(), disk.unsynced()), (tip_of(&chain[1], 1), 1));
    disk.crash(Keep::None);
    let store = reopen(&disk);
    assert_eq!(store.reader().tip(), Tip::default());
    assert_eq!(store.log().try_get_log_entries(1..3).await.unwrap(), log);
    store.writer(nobody()).commit(&log).unwrap();
    assert_eq!(store.reader().tip(), tip_of(&chain[1], 1));
}

#[tokio::test]
async fn an_append_that_was_not_synced_is_not_acknowledged() {
    let disk = Disk::new();
    let store = create(&disk);
    for effect in [Effect::BeforeWrite, Effect::AfterWrite, Effect::BeforeSync, Effect::AfterSync] {
        let hook: Hook =
            Arc::new(
                move |now| if now == effect { EffectOutcome::PowerOff } else { EffectOutcome::Continue },
            );
        disk.crash(Keep::None);
        let store = reopen(&disk);
        disk.set_hook(Some(hook));
        let error = append(&mut store.log(), vec![entry(1, 1, &blocks(1)[0])]).await.unwrap_err();
        assert!(error.to_string().contains("power off"), "{error}");
        disk.set_hook(None);
        disk.crash(Keep::None);
        let mut log = reopen(&disk).log();
        let survived = log.try_get_log_entries(..).await.unwrap().len();
        assert_eq!(survived, usize::from(effect == Effect::AfterSync), "{effect:?}");
        log.truncate_after(None).await.unwrap();
    }
    assert!(store.trouble().is_none());
    let error = store.log().save_vote(&Vote::new(1, MemberId(1))).await.unwrap_err();
    assert!(error.to_string().contains("power off"), "a process from before the crash is dead: {error}");
}
