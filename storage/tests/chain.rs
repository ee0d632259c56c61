//! What the chain remembers: blocks, signatures, DA positions, snapshots and backfill.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;

use baton_messages::chain::{Block, Signer};
use baton_messages::command::{BlockEntry, Command, ForcedPosition, Lane, Refusal, Submitted, Verdict};
use baton_messages::types::{DaHeight, Hash, Height, LogIndex, Member, MemberId, Term, Tip};
use baton_storage::memory::{Disk, Keep};
use baton_storage::raft_types::{Entry, Membership, Payload, log_id};
use baton_storage::verdict::WINDOW;
use baton_storage::{Backfill, BackfillError, Head, HeadError, Store};
use bytes::Bytes;
use common::*;
use openraft::storage::{RaftSnapshotBuilder, RaftStateMachine};

fn entries(chain: &[Arc<Block>]) -> Vec<Entry> {
    (1..).zip(chain).map(|(index, block)| entry(1, index, block)).collect()
}

/// A store with a chain of so many blocks.
fn grown(count: u64) -> (Disk, Store, Vec<Arc<Block>>) {
    let disk = Disk::new();
    let store = create(&disk);
    let chain = blocks(count);
    store.writer(nobody()).import(&entries(&chain)).unwrap();
    (disk, store, chain)
}

fn filling(block: &Arc<Block>) -> Backfill {
    Backfill { block: block.clone(), signature: None, da: None }
}

#[test]
fn a_block_entry_brings_the_signature_of_the_block_before() {
    let (_, store, chain) = grown(1);
    let reader = store.reader();
    let signer = Signer { address: Bytes::from_static(b"address"), pub_key: Bytes::from_static(b"key") };
    assert_eq!(reader.signature(Height(1)).unwrap(), None);
    assert_eq!(reader.signed_header(Height(1), &signer).unwrap(), None);

    let second = next_block(&reader.tip(), &[]);
    let forced = ForcedPosition { da_height: DaHeight(5), tx_index: 2 };
    let command = BlockEntry { tail: Some(signature(&chain[0])), forced, ..block_entry(1, &second) };
    store.writer(nobody()).import(&[normal(1, 2, Command::Block(command))]).unwrap();

    assert_eq!(reader.signature(Height(1)).unwrap(), Some(signature(&chain[0]).signature));
    let signed = reader.signed_header(Height(1), &signer).unwrap().unwrap();
    assert_eq!((&signed.header, signed.signer), (chain[0].header(), signer));
    assert_eq!(reader.signature(Height(2)).unwrap(), None);
    assert_eq!(reader.forced(), forced);
}

#[test]
fn a_signature_of_its_own_is_recorded_once_its_block_is_committed() {
    let (_, store, chain) = grown(2);
    let writer = store.writer(nobody());
    let record = |index, signature| normal(1, index, Command::Signature(signature));
    let mut wrong = signature(&chain[1]);
    wrong.hash = Hash([8; 32]);
    let refused = Verdict::Refused(Refusal::OutOfOrder, tip_of(&chain[1], 1));
    assert_eq!(writer.commit(&[record(3, wrong)]).unwrap(), [refused]);
    assert_eq!(store.reader().signature(Height(2)).unwrap(), None);
    assert_eq!(writer.commit(&[record(4, signature(&chain[1]))]).unwrap(), [Verdict::Recorded]);
    assert_eq!(store.reader().signature(Height(2)).unwrap(), Some(signature(&chain[1]).signature));
}

#[test]
fn a_late_signature_below_the_window_is_kept_if_it_fits_its_header() {
    let (_, store, chain) = grown(WINDOW + 2);
    let writer = store.writer(nobody());
    let mut wrong = signature(&chain[0]);
    wrong.hash = Hash([8; 32]);
    let record = |index, signature| normal(1, index, Command::Signature(signature));
    assert_eq!(writer.commit(&[record(WINDOW + 3, wrong)]).unwrap(), [Verdict::Recorded]);
    assert_eq!(store.reader().signature(Height(1)).unwrap(), None);
    assert_eq!(writer.commit(&[record(WINDOW + 4, signature(&chain[0]))]).unwrap(), [Verdict::Recorded]);
    assert_eq!(store.reader().signature(Height(1)).unwrap(), Some(signature(&chain[0]).signature));
}

#[test]
fn a_range_answers_for_every_height_in_it() {
    let (_, store, _) = grown(6);
    let (writer, reader) = (store.writer(nobody()), store.reader());
    let range = |index, lane, from, to, at| {
        let range = Submitted { lane, from: Height(from), to: Height(to), da_height: DaHeight(at) };
        normal(1, index, Command::Submitted(range))
    };
    let log = [
        range(7, Lane::Header, 1, 4, 100),
        range(8, Lane::Header, 5, 5, 101),
        range(9, Lane::Data, 1, 2, 102),
        normal(1, 10, Command::Included(Height(2))),
    ];
    assert_eq!(writer.commit(&log).unwrap(), [Verdict::Recorded; 4]);
    let header = |height| reader.da_height(Lane::Header, Height(height)).unwrap();
    let headers: Vec<_> = (0..=6).map(header).collect();
    let at = |height| Some(DaHeight(height));
    assert_eq!(headers, [None, at(100), at(100), at(100), at(100), at(101), None]);
    assert_eq!(reader.da_heights(Height(2)).unwrap(), Some((DaHeight(100), DaHeight(102))));
    assert_eq!(reader.da_heights(Height(3)).unwrap(), None);
    let progress = reader.da_progress();
    assert_eq!((progress.headers, progress.data, progress.included), (Height(5), Height(2), Height(2)));
    assert_eq!(progress.da_height, DaHeight(102));
}

#[test]
fn da_progress_begins_below_the_first_height() {
    let mut options = options(baton_storage::Completion::Inline);
    options.genesis.initial_height = Height(9);
    let store = Store::create_in_memory(&Disk::new(), options, STORAGE).unwrap();
    let progress = store.reader().da_progress();
    assert_eq!((progress.headers, progress.data, progress.included), (Height(8), Height(8), Height(8)));
    assert_eq!(store.reader().first_height_with_body(), Height(9));
}

#[test]
fn everybody_is_told_what_a_batch_came_to() {
    let store = create(&Disk::new());
    let (notify, heard) = listener();
    let writer = store.writer(notify);
    let chain = blocks(2);
    let log = [
        blank(1, 1),
        entry(1, 2, &chain[0]),
        entry(1, 3, &chain[1]),
        normal(1, 4, Command::Included(Height(2))),
    ];
    writer.import(&log).unwrap();
    let event = heard.lock().unwrap().pop().unwrap();
    assert_eq!(event.tip, tip_of(&chain[1], 1));
    assert_eq!((event.index, event.term), (LogIndex(4), Term(1)));
    assert_eq!(event.refused, [(LogIndex(4), Refusal::OutOfOrder)]);
    assert_eq!(store.reader().applied(), Some((LogIndex(4), Term(1))));
    assert!(heard.lock().unwrap().is_empty());
}

#[test]
fn the_state_is_the_same_after_a_restart() {
    let (disk, store, chain) = grown(5);
    let member = Member { name: "one".into(), ..Member::default() };
    let membership = Membership::from(std::collections::BTreeMap::from([(MemberId(1), member)]));
    let change = Entry { log_id: log_id(2, 6), payload: Payload::Membership(membership.clone()) };
    store.writer(nobody()).commit(&[change]).unwrap();
    let before = store.reader();
    disk.crash(Keep::All);
    let after = reopen(&disk).reader();
    assert_eq!(after.tip(), before.tip());
    assert_eq!(after.applied(), Some((LogIndex(6), Term(2))));
    assert_eq!(after.membership().membership(), &membership);
    assert_eq!(after.membership().log_id(), &Some(log_id(2, 6)));
    assert_eq!(after.block(Height(3)).unwrap().as_ref(), Some(&chain[2]));
    assert_eq!(after.block(Height(6)).unwrap(), None);
    assert_eq!(after.block(Height(0)).unwrap(), None);
}

#[tokio::test]
async fn a_member_goes_on_from_a_snapshot_and_fills_in_bodies_downwards() {
    let (_, leader, chain) = grown(10);
    let head = leader.writer(nobody()).build_head().unwrap();
    let sent: Head = Head::decode(&head.encode()).unwrap();

    let disk = Disk::new();
    let store = create(&disk);
    let (writer, reader) = (store.writer(nobody()), store.reader());
    writer.import(&entries(&chain[..3])).unwrap();
    writer.install_head(sent).await.unwrap();
    disk.crash(Keep::None);
    let store = reopen(&disk);
    assert_eq!(store.reader().tip(), reader.tip(), "an installed head is durable");
    let (writer, reader) = (store.writer(nobody()), store.reader());
    assert_eq!(reader.tip(), tip_of(&chain[9], 1));
    assert_eq!(reader.first_height_with_body(), Height(11));
    assert_eq!(reader.missing().unwrap(), Some((Height(10), chain[9].hash())));
    assert_eq!(reader.header(Height(10)).unwrap().as_ref(), Some(chain[9].header()));
    assert_eq!(reader.block(Height(10)).unwrap(), None);
    assert_eq!(reader.block(Height(3)).unwrap().as_ref(), Some(&chain[2]));

    // The chain grows meanwhile.
    let eleventh = next_block(&reader.tip(), &[]);
    let verdict = writer.import(&[entry(1, 11, &eleventh)]).unwrap();
    assert_eq!(verdict, [Verdict::Committed(tip_of(&eleventh, 1))]);
    assert_eq!(reader.first_height_with_body(), Height(11));

    let mut tenth = filling(&chain[9]);
    tenth.signature = Some(signature(&chain[9]).signature);
    tenth.da = Some((DaHeight(70), DaHeight(71)));
    let next = writer.backfill(&[tenth, filling(&chain[8]), filling(&chain[7])]).await.unwrap();
    assert_eq!(next, Some((Height(7), chain[6].hash())));
    disk.crash(Keep::None);
    let store = reopen(&disk);
    let (writer, reader) = (store.writer(nobody()), store.reader());
    assert_eq!(reader.missing().unwrap(), next, "what was filled in is durable");
    assert_eq!(reader.first_height_with_body(), Height(8));
    assert_eq!(reader.signature(Height(10)).unwrap(), Some(signature(&chain[9]).signature));
    assert_eq!(reader.da_heights(Height(10)).unwrap(), Some((DaHeight(70), DaHeight(71))));

    let rest: Vec<Backfill> = chain[3..7].iter().rev().map(filling).collect();
    assert_eq!(writer.backfill(&rest).await.unwrap(), None);
    assert_eq!(reader.first_height_with_body(), Height(1));
    assert_eq!(reader.missing().unwrap(), None);
    for block in &chain {
        assert_eq!(reader.block(block.height()).unwrap().as_ref(), Some(block));
        assert_eq!(reader.height_of(&block.hash()).unwrap(), Some(block.height()));
    }
    assert_eq!(writer.backfill(&[filling(&chain[0])]).await, Err(BackfillError::Complete));
}

#[test]
fn a_store_remembers_that_it_belonged_to_its_cluster_after_it_was_removed() {
    let disk = Disk::new();
    let store = create(&disk);
    let named = |index, ids: &[MemberId]| {
        let members = ids.iter().map(|id| (*id, Member::default()));
        let membership = Membership::from(members.collect::<std::collections::BTreeMap<_, _>>());
        Entry { log_id: log_id(1, index), payload: Payload::Membership(membership) }
    };
    let own = MemberId::of(store.identity().storage);
    let other = MemberId(own.0 ^ 1);
    store.writer(nobody()).commit(&[named(1, &[other])]).unwrap();
    assert_eq!(store.reader().has_belonged(), Ok(false));
    // Both at once: it is named by none that is seen afterwards.
    store.writer(nobody()).commit(&[named(2, &[other, own]), named(3, &[other])]).unwrap();
    assert_eq!(store.reader().has_belonged(), Ok(true));
    disk.crash(Keep::All);
    assert_eq!(reopen(&disk).reader().has_belonged(), Ok(true));
}

#[tokio::test]
async fn what_is_said_to_rest_on_an_entry_survives_a_crash() {
    let (_, _, chain) = grown(3);
    let disk = Disk::new();
    let store = create(&disk);
    store.writer(nobody()).import(&entries(&chain)).unwrap();
    assert_eq!(disk.durably_applied(), 0, "applied, and not synced");
    assert_eq!(store.rests_on(log_id(1, 4)).await, Ok(false));
    assert_eq!(disk.durably_applied(), 0);
    assert_eq!(store.rests_on(log_id(1, 3)).await, Ok(true));
    disk.crash(Keep::None);
    assert_eq!(reopen(&disk).reader().tip(), tip_of(&chain[2], 1));
}

#[tokio::test]
async fn only_the_wanted_block_is_filled_in_and_all_of_a_call_or_none() {
    let (_, leader, chain) = grown(5);
    let head = leader.writer(nobody()).build_head().unwrap();
    let store = create(&Disk::new());
    let (writer, reader) = (store.writer(nobody()), store.reader());
    writer.install_head(head).await.unwrap();

    let other = block_at(&tip_of(&chain[3], 1), baton_messages::types::Timestamp(99_999), &[]);
    let wanted = (Height(5), chain[4].hash());
    let not_linked = |block: &Block, wanted: (Height, Hash)| BackfillError::NotLinked {
        height: block.height(),
        found: block.hash(),
        wanted_height: wanted.0,
        wanted: wanted.1,
    };
    assert_eq!(writer.backfill(&[filling(&other)]).await, Err(not_linked(&other, wanted)));
    assert_eq!(writer.backfill(&[filling(&chain[3])]).await, Err(not_linked(&chain[3], wanted)));
    let fourth = (Height(4), chain[3].hash());
    let skips = [filling(&chain[4]), filling(&chain[2])];
    assert_eq!(writer.backfill(&skips).await, Err(not_linked(&chain[2], fourth)));
    let mut data = chain[4].data().clone();
    data.txs.clear();
    let hollow = Block::shared(chain[4].header().clone(), data);
    assert_eq!(writer.backfill(&[filling(&hollow)]).await, Err(BackfillError::Contradiction(Height(5))));
    assert_eq!(reader.missing().unwrap(), Some(wanted));
    assert_eq!(reader.block(Height(5)).unwrap(), None);
}

#[tokio::test]
async fn a_backfill_that_does_not_meet_the_blocks_below_is_damage() {
    let (_, leader, chain) = grown(4);
    let head = leader.writer(nobody()).build_head().unwrap();
    let store = create(&Disk::new());
    let writer = store.writer(nobody());
    // Another first block, also at genesis time: a fork that must not be papered over.
    writer.import(&[entry(1, 1, &next_block(&Tip::default(), &[b"fork"]))]).unwrap();
    writer.install_head(head).await.unwrap();
    let fill: Vec<Backfill> = chain[1..].iter().rev().map(filling).collect();
    let error = writer.backfill(&fill).await.unwrap_err();
    assert!(matches!(error, BackfillError::Store(baton_storage::StoreError::Corrupt(_))), "{error}");
}

#[tokio::test]
async fn verdicts_agree_between_a_member_with_all_blocks_and_one_from_a_snapshot() {
    let (_, leader, chain) = grown(WINDOW + 10);
    let old = leader.writer(nobody());
    let head = old.build_head().unwrap();
    let store = create(&Disk::new());
    let new = store.writer(nobody());
    new.install_head(head).await.unwrap();
    // A third one, from the second one's snapshot: the window is handed on.
    let third = create(&Disk::new());
    let third = third.writer(nobody());
    third.install_head(new.build_head().unwrap()).await.unwrap();
    let last = WINDOW + 10;
    let mut index = last;
    for height in [1, 5, 10, 11, 12, last - 1, last] {
        let block = &chain[usize::try_from(height - 1).unwrap()];
        index += 2;
        for log in [entry(1, index - 1, block), normal(1, index, Command::Signature(signature(block)))] {
            let verdict = old.commit(std::slice::from_ref(&log)).unwrap();
            assert_eq!(new.commit(std::slice::from_ref(&log)).unwrap(), verdict, "height {height}");
            assert_eq!(third.commit(&[log]).unwrap(), verdict, "height {height}");
        }
    }
}

#[tokio::test]
async fn an_unacceptable_snapshot_changes_nothing() {
    let (_, store, chain) = grown(3);
    let writer = store.writer(nobody());
    let (_, behind, _) = grown(2);
    let error = writer.install_head(behind.writer(nobody()).build_head().unwrap()).await.unwrap_err();
    assert!(matches!(error, HeadError::Contradiction(_)), "{error}");

    let mut other = options(baton_storage::Completion::Inline);
    other.genesis.start_time = baton_messages::types::Timestamp(77);
    let other = Store::create_in_memory(&Disk::new(), other, STORAGE).unwrap();
    let error = writer.install_head(other.writer(nobody()).build_head().unwrap()).await.unwrap_err();
    assert!(matches!(error, HeadError::OtherChain { .. }), "{error}");
    assert_eq!(store.reader().tip(), tip_of(&chain[2], 1));
    assert_eq!(store.trouble(), None);
}

#[tokio::test]
async fn openrafts_snapshot_carries_the_head() {
    let (_, leader, chain) = grown(4);
    let mut machine = leader.state_machine(nobody());
    let snapshot = machine.build_snapshot().await.unwrap();
    assert_eq!(snapshot.meta.last_log_id, Some(log_id(1, 4)));
    assert_eq!(snapshot.snapshot.tip(), tip_of(&chain[3], 1));

    let follower = create(&Disk::new());
    let mut machine = follower.state_machine(nobody());
    let mut lies = snapshot.meta.clone();
    lies.last_log_id = Some(log_id(1, 5));
    assert!(machine.install_snapshot(&lies, snapshot.snapshot.clone()).await.is_err());
    assert!(machine.get_current_snapshot().await.unwrap().is_none());
    machine.install_snapshot(&snapshot.meta, snapshot.snapshot.clone()).await.unwrap();
    assert_eq!(follower.reader().tip(), tip_of(&chain[3], 1));
    assert_eq!(machine.get_current_snapshot().await.unwrap().unwrap().snapshot, snapshot.snapshot);
}
