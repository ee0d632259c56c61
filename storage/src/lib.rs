//! Log, vote, blocks, chain state, queue and DA progress in one RocksDB and one WAL, and an
//! in-memory twin with a crash model.
//!
//! A block enters through the [`Writer`] and nowhere else. What is durable when a function
//! returns is said at the function.

pub mod backend;
mod chain;
mod filler;
pub mod follow;
pub mod head;
mod headers;
mod jobs;
mod log;
mod log_store;
pub mod memory;
pub mod migrate;
mod queue;
pub mod raft_types;
mod reader;
mod records;
pub mod rocks;
pub mod runtime;
mod state_machine;
mod stats;
mod store;
mod takeover;
pub mod verdict;
mod writer;

pub use backend::{Backend, Batch, Direction, Family, StoreError};
pub use filler::Filler;
pub use follow::{Evidence, FollowError, FollowRecord, LeftOut, MOST_EVIDENCE};
pub use head::{Head, HeadError};
pub use jobs::Completion;
pub use log_store::LogStore;
pub use queue::QueueStore;
pub use raft_types::TypeConfig;
pub use reader::Reader;
pub use records::{LogIdRecord, MembersRecord, VoteRecord};
pub use runtime::Runtime;
pub use state_machine::{Snapshot, StateMachine};
pub use stats::Stats;
pub use store::{ClusterError, Identity, OpenError, OpenOptions, Store};
pub use takeover::TakeOverError;
pub use writer::{AppliedEvent, Backfill, BackfillError, Notify, Writer};
