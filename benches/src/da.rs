//! A DA layer that is no bottleneck: it takes everything at once and keeps nothing.

use std::cell::Cell;

use async_trait::async_trait;
use baton_actors::da::{DaLayer, Proof};
use baton_messages::da::{Blob, DaError, DaHead, Namespace};
use baton_messages::types::{DaHeight, Hash, Timestamp};

/// Takes everything at once and keeps nothing.
#[derive(Debug, Default)]
pub struct Accepting(Cell<u64>);

#[async_trait(?Send)]
impl DaLayer for Accepting {
    async fn submit(&self, _: &[Blob]) -> Result<DaHeight, DaError> {
        self.0.set(self.0.get() + 1);
        Ok(DaHeight(self.0.get()))
    }

    async fn get_all(&self, _: DaHeight, _: &[Namespace]) -> Result<Vec<Blob>, DaError> {
        Ok(vec![])
    }

    async fn get(&self, _: DaHeight, _: Namespace, _: Hash) -> Result<Option<Blob>, DaError> {
        Ok(None)
    }

    async fn proof(&self, _: DaHeight, _: Namespace, _: Hash) -> Result<Option<Proof>, DaError> {
        Ok(None)
    }

    async fn included(&self, _: DaHeight, _: Namespace, _: &Proof, _: Hash) -> Result<bool, DaError> {
        Ok(false)
    }

    async fn head(&self) -> Result<DaHead, DaError> {
        Ok(DaHead { height: DaHeight(self.0.get()), time: Timestamp(0) })
    }

    async fn header(&self, height: DaHeight) -> Result<DaHead, DaError> {
        Ok(DaHead { height, time: Timestamp(0) })
    }
}
