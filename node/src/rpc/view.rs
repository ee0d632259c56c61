//! The store as the services see it: what is signed, and what is included on DA.

use std::fmt::Display;
use std::sync::Arc;

use baton_messages::chain::{Block, Header, SignedHeader, Signer};
use baton_messages::command::{DaProgress, Lane};
use baton_messages::types::{DaHeight, Hash, Height, Tip};
use baton_storage::{Reader, StoreError};
use connectrpc::ConnectError;

use super::index::Index;

/// An unsigned tail is at most the last block and the one before; further down something is wrong.
const UNSIGNED_TAIL: u64 = 1024;

/// The store during one call.
#[derive(Debug)]
pub(super) struct View {
    pub(super) reader: Reader,
    pub(super) signer: Signer,
}

impl View {
    pub(super) fn tip(&self) -> Tip {
        self.reader.tip()
    }

    pub(super) fn is_headers_only(&self) -> bool {
        self.reader.is_headers_only()
    }

    pub(super) fn da_progress(&self) -> DaProgress {
        self.reader.da_progress()
    }

    pub(super) fn header(&self, height: Height) -> Result<Option<Header>, ConnectError> {
        self.reader.header(height).map_err(failed)
    }

    pub(super) fn block(&self, height: Height) -> Result<Option<Arc<Block>>, ConnectError> {
        self.reader.block(height).map_err(failed)
    }

    pub(super) fn signed_header(&self, height: Height) -> Result<Option<SignedHeader>, ConnectError> {
        self.reader.signed_header(height, &self.signer).map_err(failed)
    }

    /// The newest block whose signature is recorded here.
    pub(super) fn newest_signed(&self) -> Result<Option<Height>, ConnectError> {
        let tip = self.tip().height.0;
        for height in (tip.saturating_sub(UNSIGNED_TAIL).max(1)..=tip).rev().map(Height) {
            if self.reader.signature(height).map_err(failed)?.is_some() {
                return Ok(Some(height));
            }
        }
        Ok(None)
    }

    /// By header hash at any height; by ev-node's hash of the signed header's bytes among the
    /// newest blocks.
    pub(super) fn height_of(&self, hash: Hash, index: &mut Index) -> Result<Option<Height>, ConnectError> {
        if let Some(height) = self.reader.height_of(&hash).map_err(failed)? {
            return Ok(Some(height));
        }
        let Some(newest) = self.newest_signed()? else { return Ok(None) };
        index.find(hash, newest, |height| {
            let signed = self.signed_header(height)?;
            Ok(signed.map(|signed| Hash::of(&signed.encode())))
        })
    }

    /// Where on DA the header and the data of a block are; nowhere before it is included. An
    /// empty block's data is where its header is, as in ev-node.
    pub(super) fn da_heights(
        &self,
        height: Height,
    ) -> Result<(Option<DaHeight>, Option<DaHeight>), ConnectError> {
        if height > self.da_progress().included {
            return Ok((None, None));
        }
        let Some(block) = self.block(height)? else { return Ok((None, None)) };
        let header = self.reader.da_height(Lane::Header, height).map_err(failed)?;
        if block.txs().is_empty() {
            return Ok((header, header));
        }
        Ok((header, self.reader.da_height(Lane::Data, height).map_err(failed)?))
    }
}

/// A store that fails may work again later; one that is damaged will not.
fn failed(error: StoreError) -> ConnectError {
    match error {
        StoreError::Io(_) | StoreError::Full(_) => ConnectError::unavailable(error.to_string()),
        StoreError::Corrupt(_) | StoreError::Newer(_) => retrieve(error),
    }
}

/// ev-node's answer for everything that is not found.
pub(super) fn retrieve(error: impl Display) -> ConnectError {
    ConnectError::internal(format!("failed to retrieve block data: {error}"))
}
