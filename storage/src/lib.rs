//! Log, vote, blocks, chain state, queue and DA progress in one RocksDB and one WAL, and an
//! in-memory twin with a crash model.

pub mod backend;
pub mod raft_types;
