//! What the tests share: a genesis, blocks on top of each other, entries, a store in memory.
#![allow(dead_code, clippy::unwrap_used, reason = "each test file uses its part, and fails by panicking")]

use std::sync::{Arc, Mutex};

use baton_messages::chain::{Block, Data, Header, Metadata};
use baton_messages::command::{BlockEntry, Command, ForcedPosition, HeaderSignature};
use baton_messages::genesis::Genesis;
use baton_messages::types::{DaHeight, Height, Term, Timestamp, Tip, Tx};
use baton_storage::memory::Disk;
use baton_storage::raft_types::{Entry, Payload, log_id};
use baton_storage::{AppliedEvent, Completion, LogStore, Notify, OpenOptions, Store, TypeConfig};
use bytes::Bytes;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use uuid::Uuid;

pub const CHAIN: &str = "test-chain";
pub const STORAGE: Uuid = Uuid::from_u128(0x0123_4567_89ab_cdef_0011_2233_4455_6677);

pub fn genesis() -> Genesis {
    Genesis {
        chain_id: CHAIN.into(),
        start_time: Timestamp(1_000),
        initial_height: Height(1),
        proposer_address: Bytes::from_static(&[7; 32]),
        da_start_height: DaHeight(0),
        da_epoch_forced_inclusion: 1,
    }
}

pub fn options(completion: Completion) -> OpenOptions {
    OpenOptions { path: "memory".into(), chain_id: CHAIN.into(), genesis: genesis(), completion }
}

pub fn nobody() -> Notify {
    Box::new(|_| {})
}

/// A notifier that keeps what it is told.
pub fn listener() -> (Notify, Arc<Mutex<Vec<AppliedEvent>>>) {
    let heard = Arc::new(Mutex::new(vec![]));
    let told = heard.clone();
    (Box::new(move |event| told.lock().unwrap().push(event)), heard)
}

pub fn create(disk: &Disk) -> Store {
    Store::create_in_memory(disk, options(Completion::Inline), STORAGE).unwrap()
}

pub fn reopen(disk: &Disk) -> Store {
    Store::in_memory(disk, options(Completion::Inline)).unwrap()
}

/// The block after a tip, holding some transactions.
pub fn next_block(tip: &Tip, txs: &[&'static [u8]]) -> Arc<Block> {
    block_at(tip, Timestamp(if tip.height.0 == 0 { 1_000 } else { tip.time.0 + 10 }), txs)
}

pub fn block_at(tip: &Tip, time: Timestamp, txs: &[&'static [u8]]) -> Arc<Block> {
    let first = tip.height.0 == 0;
    let height = tip.height.next();
    let metadata = Metadata { chain_id: CHAIN.into(), height, time, last_data_hash: Bytes::new() };
    let txs = txs.iter().map(|tx| Tx(Bytes::from_static(tx))).collect();
    let data = Data { metadata: Some(metadata), txs };
    let header = Header {
        height,
        time,
        last_header_hash: if first { Bytes::new() } else { tip.hash.to_bytes() },
        data_hash: data.commitment().to_bytes(),
        app_hash: Bytes::from_static(&[1; 32]),
        proposer_address: genesis().proposer_address,
        chain_id: CHAIN.into(),
        ..Header::default()
    };
    Block::shared(header, data)
}

pub fn tip_of(block: &Block, term: u64) -> Tip {
    Tip { height: block.height(), hash: block.hash(), time: block.header().time, term: Term(term) }
}

/// A chain of so many blocks, from the first.
pub fn blocks(count: u64) -> Vec<Arc<Block>> {
    let mut tip = Tip::default();
    let mut blocks = vec![];
    for _ in 0..count {
        let block = next_block(&tip, &[b"a transaction", b"another"]);
        tip = tip_of(&block, 1);
        blocks.push(block);
    }
    blocks
}

pub fn block_entry(term: u64, block: &Arc<Block>) -> BlockEntry {
    BlockEntry { term: Term(term), block: block.clone(), tail: None, forced: ForcedPosition::default() }
}

pub fn normal(term: u64, index: u64, command: Command) -> Entry {
    Entry { log_id: log_id(term, index), payload: Payload::Normal(command) }
}

pub fn entry(term: u64, index: u64, block: &Arc<Block>) -> Entry {
    normal(term, index, Command::Block(block_entry(term, block)))
}

pub fn blank(term: u64, index: u64) -> Entry {
    Entry { log_id: log_id(term, index), payload: Payload::Blank }
}

pub fn signature(block: &Block) -> HeaderSignature {
    HeaderSignature { height: block.height(), hash: block.hash(), signature: Bytes::from(vec![9; 64]) }
}

/// Appends and waits until it is durable.
pub async fn append(log: &mut LogStore, entries: Vec<Entry>) -> Result<(), std::io::Error> {
    let (sender, receiver) = TypeConfig::oneshot();
    log.append(entries, IOFlushed::signal(sender)).await?;
    receiver.await.expect("the callback is called")
}
