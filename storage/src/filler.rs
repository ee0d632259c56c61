//! The writer's entrance for missing bodies, and nothing else of it.

use baton_messages::command::HeaderSignature;

use crate::writer::{Backfill, BackfillError, Writer};

/// Fills in the bodies of blocks that are committed already. For the syncer of a cluster member,
/// where the Raft state machine holds the `Writer`: both are the same one with the same locks, and
/// this handle can neither commit nor install a head.
#[derive(Clone, Debug)]
pub struct Filler {
    writer: Writer,
}

impl Filler {
    pub(crate) const fn new(writer: Writer) -> Self {
        Self { writer }
    }

    /// As `Writer::backfill`: downwards from the head, each block by its hash, all of them or
    /// none, durable when it returns.
    ///
    /// # Errors
    ///
    /// `BackfillError` when a block is not the wanted one or the store fails.
    pub async fn backfill(&self, blocks: &[Backfill]) -> Result<(), BackfillError> {
        self.writer.backfill(blocks).await.map(|_| ())
    }

    /// As `Writer::note_signature`: for a committed header, durable when it returns.
    ///
    /// # Errors
    ///
    /// `BackfillError` when it is for another header or the store fails.
    pub async fn sign(&self, signature: &HeaderSignature) -> Result<(), BackfillError> {
        self.writer.note_signature(signature).await
    }
}
