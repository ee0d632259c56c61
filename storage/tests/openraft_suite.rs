//! openraft's own suite for logs and state machines, on both stores.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use baton_storage::memory::Disk;
use baton_storage::{Completion, LogStore, StateMachine, Store, TypeConfig};
use common::{STORAGE, nobody, options};
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;

struct OnRocks(Completion);

impl StoreBuilder<TypeConfig, LogStore, StateMachine, (TempDir, Store)> for OnRocks {
    async fn build(&self) -> Result<((TempDir, Store), LogStore, StateMachine), StorageError<TypeConfig>> {
        let directory = tempfile::tempdir().unwrap();
        let mut options = options(self.0);
        options.path = directory.path().join("store");
        let store = Store::create(options, STORAGE).unwrap();
        let (log, machine) = (store.log(), store.state_machine(nobody()));
        Ok(((directory, store), log, machine))
    }
}

struct InMemory(Completion);

impl StoreBuilder<TypeConfig, LogStore, StateMachine> for InMemory {
    async fn build(&self) -> Result<((), LogStore, StateMachine), StorageError<TypeConfig>> {
        let store = Store::create_in_memory(&Disk::new(), options(self.0), STORAGE).unwrap();
        Ok(((), store.log(), store.state_machine(nobody())))
    }
}

#[tokio::test]
async fn openrafts_suite_passes_on_rocksdb_with_the_storage_thread() {
    Suite::test_all(OnRocks(Completion::Thread)).await.unwrap();
}

#[tokio::test]
async fn openrafts_suite_passes_on_rocksdb_inline() {
    Suite::test_all(OnRocks(Completion::Inline)).await.unwrap();
}

#[tokio::test]
async fn openrafts_suite_passes_in_memory_inline() {
    Suite::test_all(InMemory(Completion::Inline)).await.unwrap();
}

#[tokio::test]
async fn openrafts_suite_passes_in_memory_with_the_storage_thread() {
    Suite::test_all(InMemory(Completion::Thread)).await.unwrap();
}
