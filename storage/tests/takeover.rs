//! How the store of a node that followed a chain becomes that of a cluster of one voter.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;

use baton_messages::chain::{Block, SignedHeader};
use baton_messages::command::{Command, Verdict};
use baton_messages::types::{DaHeight, Hash, Height, LogIndex, Member, MemberId, Term};
use baton_storage::memory::{Disk, Keep};
use baton_storage::raft_types::log_id;
use baton_storage::{Backfill, Completion, Evidence, FollowRecord, Store, TakeOverError};
use common::*;
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftStateMachine};
use uuid::Uuid;

const CLUSTER: Uuid = Uuid::from_u128(7);

fn record(cursor: u64) -> FollowRecord {
    FollowRecord { cursor: DaHeight(cursor), ..FollowRecord::default() }
}

/// A store that has followed a chain of so many blocks; the last one may lack its signature.
async fn followed(count: u64, last_is_signed: bool) -> (Disk, Store, Vec<Arc<Block>>) {
    let disk = Disk::new();
    let store = create(&disk);
    let writer = store.writer(nobody());
    writer.begin_follow(DaHeight(1)).await.unwrap();
    let chain = blocks(count);
    for (number, block) in (1..).zip(&chain) {
        let mut commands = vec![Command::Block(block_entry(0, block))];
        if number < count || last_is_signed {
            commands.push(Command::Signature(signature(block)));
        }
        let verdicts = writer.follow(&commands, &record(number)).unwrap();
        assert!(matches!(verdicts[0], Verdict::Committed(_)), "{verdicts:?}");
    }
    (disk, store, chain)
}

fn member() -> Member {
    Member { name: "a".into(), storage: STORAGE, ..Member::default() }
}

async fn take_over(store: &Store, block: &Block) -> Result<(), TakeOverError> {
    store.writer(nobody()).take_over(block.height(), block.hash(), member(), CLUSTER, Term(0)).await
}

#[tokio::test]
async fn a_store_that_followed_goes_on_as_that_of_a_sole_voter() {
    let (disk, store, chain) = followed(5, true).await;
    take_over(&store, &chain[4]).await.unwrap();
    // Durable, and whole.
    disk.crash(Keep::None);
    let store = reopen(&disk);
    let reader = store.reader();
    assert_eq!((reader.follow(), store.cluster()), (None, Some(CLUSTER)));
    assert_eq!(reader.tip().hash, chain[4].hash());
    assert_eq!(
        (reader.applied(), reader.last_log()),
        (Some((LogIndex(0), Term(0))), Some((Term(0), LogIndex(0))))
    );
    assert!(reader.is_sole_voter());
    assert_eq!(reader.membership().membership().voter_ids().collect::<Vec<_>>(), [MemberId::of(STORAGE)]);
    assert_eq!(reader.first_height_with_body(), Height(1), "nothing is missing");

    // The log begins after the block, and the chain goes on in it.
    let mut log = store.log();
    let state = log.get_log_state().await.unwrap();
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(log_id(0, 0)), Some(log_id(0, 0))));
    assert_eq!(log.read_vote().await.unwrap(), None);
    let next = next_block(&reader.tip(), &[b"next"]);
    append(&mut log, vec![entry(1, 1, &next)]).await.unwrap();
    let verdicts = store.writer(nobody()).commit(&[entry(1, 1, &next)]).unwrap();
    assert!(matches!(verdicts[0], Verdict::Committed(tip) if tip.height == Height(6)), "{verdicts:?}");
}

/// The guard is fenced by terms, and may outlive the store.
#[tokio::test]
async fn terms_begin_above_the_one_in_which_the_guard_signed_last() {
    let (disk, store, chain) = followed(5, true).await;
    let writer = store.writer(nobody());
    writer.take_over(Height(5), chain[4].hash(), member(), CLUSTER, Term(7)).await.unwrap();
    disk.crash(Keep::None);
    let vote = reopen(&disk).log().read_vote().await.unwrap().expect("one is there");
    assert_eq!((vote.leader_id.term, vote.committed), (7, false));
}

#[tokio::test]
async fn a_member_that_joins_gets_the_state_and_fills_in_the_old_chain() {
    let (disk, store, chain) = followed(5, true).await;
    take_over(&store, &chain[4]).await.unwrap();
    disk.crash(Keep::None);
    let store = reopen(&disk);
    let head = store.writer(nobody()).current_head().unwrap().expect("the state machine begins at one");
    assert_eq!(head.meta().unwrap().last_log_id, Some(log_id(0, 0)));
    assert!(store.state_machine(nobody()).get_current_snapshot().await.unwrap().is_some());

    let other = Disk::new();
    let joins = Store::create_in_memory(&other, options(Completion::Inline), Uuid::from_u128(9)).unwrap();
    let writer = joins.writer(nobody());
    writer.install_head(head).await.unwrap();
    let reader = joins.reader();
    assert_eq!((reader.tip().hash, reader.gaps()), (chain[4].hash(), vec![(Height(1), Height(5))]));
    let down = chain.iter().rev().map(|block| Backfill { block: block.clone(), signature: None, da: None });
    assert_eq!(writer.backfill(&down.collect::<Vec<_>>()).await.unwrap(), None);
    assert_eq!(reader.block(Height(1)).unwrap().unwrap().hash(), chain[0].hash());
}

#[tokio::test]
async fn power_that_is_lost_leaves_a_follower_or_a_cluster_and_nothing_between() {
    let (disk, store, chain) = followed(5, true).await;
    disk.crash(Keep::None);
    let failed = take_over(&store, &chain[4]).await;
    assert!(matches!(failed, Err(TakeOverError::Store(_))), "{failed:?}");
    let store = reopen(&disk);
    assert!(store.reader().follow().is_some());
    assert_eq!((store.cluster(), store.reader().applied()), (None, None));
}

#[tokio::test]
async fn only_the_last_block_of_a_chain_that_is_whole_is_taken_over() {
    let (_, store, chain) = followed(5, true).await;
    let refused = take_over(&store, &chain[3]).await;
    assert!(matches!(refused, Err(TakeOverError::OtherTip { .. })), "{refused:?}");
    let writer = store.writer(nobody());
    let refused = writer.take_over(Height(5), Hash([8; 32]), member(), CLUSTER, Term(0)).await;
    assert!(matches!(refused, Err(TakeOverError::OtherTip { .. })), "{refused:?}");

    let first = SignedHeader { header: chain[2].header().clone(), ..SignedHeader::default() };
    let evidence = Evidence {
        height: Height(3),
        second: first.clone(),
        first,
        first_from: "here".into(),
        second_from: "there".into(),
        found: chain[2].header().time,
    };
    writer.keep_evidence(evidence).await.unwrap();
    assert_eq!(take_over(&store, &chain[4]).await, Err(TakeOverError::Forked(Height(3))));

    let (_, store, chain) = followed(5, false).await;
    assert_eq!(take_over(&store, &chain[4]).await, Err(TakeOverError::Unsigned(Height(5))));
}

#[tokio::test]
async fn a_store_that_does_not_follow_or_has_a_log_is_left_alone() {
    let disk = Disk::new();
    let store = create(&disk);
    let chain = blocks(1);
    assert_eq!(take_over(&store, &chain[0]).await, Err(TakeOverError::NotFollowing));
    append(&mut store.log(), vec![entry(1, 0, &chain[0])]).await.unwrap();
    store.writer(nobody()).commit(&[entry(1, 0, &chain[0])]).unwrap();
    assert_eq!(take_over(&store, &chain[0]).await, Err(TakeOverError::HasLog));
}
