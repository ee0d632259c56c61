//! Building the next block: asking sequencer and engine, without touching the executor.

use baton_messages::chain::Block;
use baton_messages::engine::{EnginePosition, FilterTxs, GetPosition};
use baton_messages::sequencer::{DropTxs, NextBatch};
use baton_messages::types::{Height, StateRoot, Tx};
use baton_storage::Reader;
use bytes::Bytes;

use super::{Config, Error, Links, build};
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
    pub(super) async fn next_block(self) -> Result<Option<Block>, Error> {
        let tip = self.reader.tip();
        let parent = match tip.height < self.reader.initial_height() {
            true => None,
            false => self.reader.block(tip.height)?,
        };
        let height = parent.as_ref().map_or(self.reader.initial_height(), |parent| parent.height().next());
        let root = self.root_before(height).await?;
        let txs = self.batch(height).await?;
        if txs.is_empty() && !self.may_be_empty {
            return Ok(None);
        }
        let genesis = self.reader.genesis();
        let now = self.world.now();
        Ok(Some(build::next_block(genesis, parent.as_deref(), &root, &self.proposer, now, txs)))
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

    async fn batch(&self, height: Height) -> Result<Vec<Tx>, Error> {
        let reply_within = self.config.reply_within;
        let show = NextBatch { height, max_bytes: self.config.max_bytes };
        let batch = self.links.next_batch.send(show).timeout(reply_within).await;
        let batch = batch.map_err(|source| Error::NoReply { who: "sequencer", source })?;
        if !batch.current {
            return Err(Error::SequencerBehind(height.previous()));
        }
        if batch.txs.is_empty() {
            return Ok(batch.txs);
        }
        let filter = FilterTxs { txs: batch.txs.clone(), max_bytes: self.config.max_bytes, forced: false };
        let statuses = self.links.filter.send(filter).timeout(reply_within).await;
        let statuses = statuses.map_err(|source| Error::NoReply { who: "engine", source })??;
        let filtered = build::filtered(batch.txs, &statuses);
        if !filtered.remove.is_empty() {
            let drop = DropTxs { hashes: filtered.remove, reason: "invalid for the engine".to_owned() };
            let dropped = self.links.drop_txs.send(drop).timeout(reply_within).await;
            dropped.map_err(|source| Error::NoReply { who: "sequencer", source })?;
        }
        Ok(filtered.take)
    }
}
