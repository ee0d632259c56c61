//! Building the next block: asking sequencer and engine, without touching the executor.

use std::sync::Arc;

use baton_messages::command::{FORCED_VERSION, ForcedPosition};
use baton_messages::engine::{EnginePosition, FilterTxs, GetPosition};
use baton_messages::forced::{Forced, NextForced};
use baton_messages::sequencer::{DropTxs, NextBatch};
use baton_messages::types::{Height, StateRoot, Tx};
use baton_storage::Reader;
use bytes::Bytes;
use tracing::warn;

use super::{Config, Error, Links, Proposal, build};
use crate::world::World;

/// Everything the next block is built from, so that the actor is untouched while it is built.
pub(super) struct Building {
    pub(super) config: Config,
    pub(super) links: Links,
    pub(super) world: World,
    pub(super) reader: Reader,
    pub(super) proposer: Bytes,
    pub(super) executed: Option<(Height, StateRoot)>,
    pub(super) may_be_empty: bool,
}

impl Building {
    /// The block after the tip, or nothing when there is nothing to put into one.
    pub(super) async fn next_block(self) -> Result<Option<Proposal>, Error> {
        let tip = self.reader.tip();
        let parent = match tip.height < self.reader.initial_height() {
            true => None,
            false => self.reader.block(tip.height)?,
        };
        let height = parent.as_ref().map_or(self.reader.initial_height(), |parent| parent.height().next());
        let root = self.root_before(height).await?;
        let Batch { txs, forced } = self.batch(height).await?;
        if txs.is_empty() && !self.may_be_empty {
            return Ok(None);
        }
        let genesis = self.reader.genesis();
        let now = self.world.now();
        let block = build::next_block(genesis, parent.as_deref(), &root, &self.proposer, now, txs);
        Ok(Some(Proposal { block: Arc::new(block), forced }))
    }

    async fn root_before(&self, height: Height) -> Result<StateRoot, Error> {
        if let Some((at, root)) = &self.executed
            && at.next() == height
        {
            return Ok(root.clone());
        }
        let position = self.links.position.send(GetPosition).timeout(self.config.reply_within);
        let position: EnginePosition =
            position.await.map_err(|source| Error::NoReply { who: "engine", source })??;
        if position.height.next() != height {
            return Err(Error::EngineNotLevel { engine: position.height, tip: height.previous() });
        }
        Ok(position.root)
    }

    /// What goes into the block, and the position of forced inclusion after it: forced transactions
    /// first, then what is queued.
    async fn batch(&self, height: Height) -> Result<Batch, Error> {
        let forced = self.forced().await?;
        let reply_within = self.config.reply_within;
        let bytes: usize = forced.txs.iter().map(|forced| forced.tx.0.len()).sum();
        let max_bytes = self.config.max_bytes.max(bytes);
        let show = NextBatch { height, max_bytes: max_bytes - bytes };
        let batch = self.links.next_batch.send(show).timeout(reply_within).await;
        let batch = batch.map_err(|source| Error::NoReply { who: "sequencer", source })?;
        if !batch.current {
            return Err(Error::SequencerBehind(height.previous()));
        }
        if let (Some(reason), true) = (&forced.behind, forced.txs.is_empty()) {
            return Err(Error::ForcedInclusion(reason.clone()));
        }
        let queued = if forced.behind.is_some() { vec![] } else { batch.txs };
        let txs = build::batch(&forced, queued);
        if txs.is_empty() {
            return Ok(Batch { txs, forced: forced.end });
        }
        let filter = FilterTxs { txs: txs.clone(), max_bytes, forced: forced.txs.len() };
        let statuses = self.links.filter.send(filter).timeout(reply_within).await;
        let statuses = statuses.map_err(|source| Error::NoReply { who: "engine", source })??;
        let filtered = build::filtered(txs, &statuses, forced.txs.len());
        if filtered.forced_out > 0 {
            warn!(txs = filtered.forced_out, "the engine refused forced transactions for good");
        }
        if !filtered.remove.is_empty() {
            let drop = DropTxs { hashes: filtered.remove, reason: "invalid for the engine".to_owned() };
            let dropped = self.links.drop_txs.send(drop).timeout(reply_within).await;
            dropped.map_err(|source| Error::NoReply { who: "sequencer", source })?;
        }
        Ok(Batch { txs: filtered.take, forced: forced.after(filtered.forced) })
    }

    /// What is forced next. The position stays where it is while nobody reads forced transactions
    /// here, or a voter is of a version that would build blocks without them.
    async fn forced(&self) -> Result<Forced, Error> {
        let in_force = self.reader.command_version() >= FORCED_VERSION;
        let Some(inbox) = self.links.inbox.as_ref().filter(|_| in_force) else {
            let position = self.reader.forced();
            return Ok(Forced { from: position, end: position, ..Forced::default() });
        };
        let show = NextForced { max_bytes: self.config.max_bytes };
        let forced = inbox.next.send(show).timeout(self.config.reply_within).await;
        forced.map_err(|source| Error::NoReply { who: "inbox", source })
    }
}

/// What goes into a block.
struct Batch {
    txs: Vec<Tx>,
    forced: ForcedPosition,
}
