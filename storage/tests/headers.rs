//! The store of a light node: headers with their signatures, no bodies.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;

use baton_messages::chain::{Block, Header, SignedHeader, Signer};
use baton_messages::types::{DaHeight, Hash, Height, Member, Term, Timestamp};
use baton_storage::memory::{Disk, Keep};
use baton_storage::{FollowError, FollowRecord, Store, StoreError, TakeOverError};
use bytes::Bytes;
use common::*;
use uuid::Uuid;

fn signer() -> Signer {
    Signer { address: Bytes::from_static(b"address"), pub_key: Bytes::from_static(b"key") }
}

fn record(cursor: u64) -> FollowRecord {
    FollowRecord { cursor: DaHeight(cursor), signer: signer(), headers_only: true, strict_from: None }
}

fn signed(header: Header) -> (Arc<SignedHeader>, Hash) {
    let hash = header.hash();
    let signature = Bytes::copy_from_slice(&hash.0);
    (Arc::new(SignedHeader { header, signature, signer: signer() }), hash)
}

fn headers(chain: &[Arc<Block>]) -> Vec<(Arc<SignedHeader>, Hash)> {
    chain.iter().map(|block| signed(block.header().clone())).collect()
}

async fn light(disk: &Disk) -> Store {
    let store = create(disk);
    store.writer(nobody()).begin_follow_headers(DaHeight(1)).await.unwrap();
    store
}

#[tokio::test]
async fn headers_are_kept_with_their_signatures_and_every_body_is_missing() {
    let disk = Disk::new();
    let store = light(&disk).await;
    let chain = blocks(5);
    let all = headers(&chain);
    let writer = store.writer(nobody());
    assert_eq!(writer.follow_headers(&all[..2], &record(3)).unwrap().height, Height(2));
    assert_eq!(writer.follow_headers(&all[2..], &record(4)).unwrap().hash, chain[4].hash());
    disk.crash(Keep::All);
    let store = reopen(&disk);
    let reader = store.reader();
    assert!(reader.is_headers_only());
    assert_eq!((reader.tip().hash, reader.follow()), (chain[4].hash(), Some(record(4))));
    for (block, (signed, hash)) in chain.iter().zip(&all) {
        let height = block.height();
        assert_eq!(reader.signed_header(height, &signer()).unwrap().as_ref(), Some(&**signed));
        assert_eq!(reader.height_of(hash).unwrap(), Some(height));
        assert_eq!(reader.block(height).unwrap(), None);
    }
    assert_eq!((reader.gaps(), reader.first_height_with_body()), (vec![(Height(1), Height(5))], Height(6)));
    let member = Member { name: "a".into(), storage: STORAGE, ..Member::default() };
    let taken = store
        .writer(nobody())
        .take_over(Height(5), chain[4].hash(), member, Uuid::from_u128(7), Term(0))
        .await;
    assert_eq!(taken, Err(TakeOverError::Missing(Height(1))), "a chain does not go on without its blocks");
}

#[tokio::test]
async fn a_header_that_does_not_continue_the_chain_is_refused_with_all_that_came_with_it() {
    let chain = blocks(4);
    let good = headers(&chain);
    let other = |change: &dyn Fn(&mut Header)| {
        let mut header = chain[2].header().clone();
        change(&mut header);
        signed(header)
    };
    for wrong in [
        other(&|header| header.last_header_hash = Bytes::from_static(&[9; 32])),
        other(&|header| header.last_header_hash = Bytes::new()),
        other(&|header| header.time = Timestamp(chain[1].header().time.0 - 1)),
        other(&|header| header.chain_id = "another".to_owned()),
        other(&|header| header.height = Height(4)),
    ] {
        let store = light(&Disk::new()).await;
        let writer = store.writer(nobody());
        writer.follow_headers(&good[..1], &record(1)).unwrap();
        let refused = writer.follow_headers(&[good[1].clone(), wrong], &record(2));
        assert!(matches!(refused, Err(StoreError::Corrupt(_))), "{refused:?}");
        let reader = store.reader();
        assert_eq!((reader.tip().height, reader.follow()), (Height(1), Some(record(1))));
    }
    let store = light(&Disk::new()).await;
    let second_first = store.writer(nobody()).follow_headers(&good[1..2], &record(1));
    assert!(second_first.is_err(), "the first header stands at the initial height, on nothing");
}

#[tokio::test]
async fn a_store_holds_headers_or_blocks_for_good() {
    let disk = Disk::new();
    let store = light(&disk).await;
    assert_eq!(store.writer(nobody()).begin_follow(DaHeight(1)).await, Err(FollowError::HeadersOnly));
    disk.crash(Keep::None);
    let store = reopen(&disk);
    assert_eq!(store.writer(nobody()).begin_follow(DaHeight(1)).await, Err(FollowError::HeadersOnly));
    let again = store.writer(nobody()).begin_follow_headers(DaHeight(9)).await;
    assert_eq!(again.unwrap().cursor, DaHeight(1));

    let store = create(&Disk::new());
    let writer = store.writer(nobody());
    let whole = writer.begin_follow(DaHeight(1)).await.unwrap();
    assert_eq!(writer.begin_follow_headers(DaHeight(1)).await, Err(FollowError::WholeBlocks));
    let refused = writer.follow_headers(&headers(&blocks(1)), &whole);
    assert!(matches!(refused, Err(StoreError::Corrupt(_))), "{refused:?}");
}
