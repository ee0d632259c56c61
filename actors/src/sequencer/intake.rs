//! How transactions come in: checked, on disk, then accepted.

use std::collections::HashSet;

use actix::{ActorFutureExt, AsyncContext, Context, ResponseFuture, WrapFuture};
use baton_messages::sequencer::{Posted, Receipt, SubmitError};
use baton_messages::types::{Hash, Height, Tx};
use baton_storage::backend::StoreError;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::error;

use super::Sequencer;

/// A submission that waits for the disk.
pub(super) struct Submission {
    txs: Vec<(Hash, Tx)>,
    reply: oneshot::Sender<Result<Posted, SubmitError>>,
}

impl Sequencer {
    /// Takes transactions into the queue, all or none. Answers when they are durable.
    pub(super) fn submit(
        &mut self,
        txs: Vec<Tx>,
        since: Option<Height>,
        ctx: &mut Context<Self>,
    ) -> ResponseFuture<Result<Posted, SubmitError>> {
        let txs: Vec<(Hash, Tx)> = txs.into_iter().map(|tx| (tx.hash(), tx)).collect();
        if let Err(error) = self.check(&txs, since) {
            match error {
                SubmitError::QueueFull { .. } => self.metrics.refused_full.inc(),
                SubmitError::TooOld { .. } => self.metrics.refused_old.inc(),
                SubmitError::TooLarge { .. } | SubmitError::Empty | SubmitError::NotReady(_) => 0,
            };
            return Box::pin(std::future::ready(Err(error)));
        }
        let known = txs.iter().filter(|(hash, _)| self.is_known(hash)).count();
        self.metrics.duplicates.inc_by(known as u64);
        self.incoming_txs += txs.len();
        self.incoming_bytes += bytes_of(&txs);
        let (reply, posted) = oneshot::channel();
        self.incoming.push(Submission { txs, reply });
        self.begin_append(ctx);
        Box::pin(async move {
            posted.await.unwrap_or_else(|_| Err(SubmitError::NotReady("the node is stopping".to_owned())))
        })
    }

    fn check(&self, txs: &[(Hash, Tx)], since: Option<Height>) -> Result<(), SubmitError> {
        if let Some(trouble) = self.disk_trouble.as_ref().or(self.trouble.as_ref()) {
            return Err(SubmitError::NotReady(trouble.clone()));
        }
        if let Some(member) = &self.stranger_to {
            return Err(SubmitError::NotReady(format!(
                "this node is no member of the cluster any more, says {member}, and nobody would take it: post to \
                 a member, or add this node again (`baton cluster add`)"
            )));
        }
        for (_, tx) in txs {
            if tx.0.is_empty() {
                return Err(SubmitError::Empty);
            }
            if tx.0.len() > self.config.max_tx_bytes {
                return Err(SubmitError::TooLarge { bytes: tx.0.len(), limit: self.config.max_tx_bytes });
            }
        }
        let new = txs.iter().filter(|(hash, _)| !self.is_known(hash));
        let (count, bytes) = new.fold((0, 0), |(count, bytes), (_, tx)| (count + 1, bytes + tx.0.len()));
        let window = self.window_begins();
        if let Some(since) = since
            && count > 0
            && since < window.previous()
        {
            return Err(SubmitError::TooOld { since, window });
        }
        let all = self.queue.len() + self.incoming_txs;
        let all_bytes = self.queue.bytes() + self.incoming_bytes;
        let is_over = all + count > self.config.max_txs || all_bytes + bytes > self.config.max_bytes;
        // What is known needs no room in the queue, but its request waits for the disk too.
        if (count > 0 && is_over) || self.incoming.len() >= self.config.max_waiting {
            return Err(SubmitError::QueueFull { txs: all, bytes: all_bytes });
        }
        Ok(())
    }

    pub(super) fn is_known(&self, hash: &Hash) -> bool {
        self.queue.contains(hash) || self.window.place(hash).is_some()
    }

    /// Everything that came in while the last append was on its way goes to disk together.
    fn begin_append(&mut self, ctx: &mut Context<Self>) {
        if self.appending || self.incoming.is_empty() {
            return;
        }
        self.appending = true;
        let submissions = std::mem::take(&mut self.incoming);
        self.incoming_txs = 0;
        self.incoming_bytes = 0;
        let mut fresh = HashSet::new();
        let txs: Vec<(Hash, Tx)> = submissions
            .iter()
            .flat_map(|submission| &submission.txs)
            .filter(|(hash, _)| !self.is_known(hash) && fresh.insert(*hash))
            .cloned()
            .collect();
        // Counted until they are in the queue proper.
        self.incoming_txs += txs.len();
        self.incoming_bytes += bytes_of(&txs);
        let append = self.store.append(txs.iter().map(|(_, tx)| tx.clone()).collect(), self.seen);
        let done = append.into_actor(self).map(move |orders, this, ctx| {
            this.end_append(orders, txs, submissions, ctx);
        });
        ctx.spawn(done);
    }

    fn end_append(
        &mut self,
        orders: Result<Vec<u64>, StoreError>,
        txs: Vec<(Hash, Tx)>,
        submissions: Vec<Submission>,
        ctx: &mut Context<Self>,
    ) {
        self.appending = false;
        self.incoming_txs -= txs.len();
        self.incoming_bytes -= bytes_of(&txs);
        match orders {
            Ok(orders) => {
                fail::fail_point!("sequencer.before_ack");
                self.accept(&orders, txs, submissions);
                fail::fail_point!("sequencer.after_ack");
            }
            Err(error) => {
                error!(%error, "cannot store transactions");
                for submission in submissions {
                    let _ = submission.reply.send(Err(SubmitError::NotReady(error.to_string())));
                }
            }
        }
        self.begin_append(ctx);
        self.begin_forward(ctx);
    }

    fn accept(&mut self, orders: &[u64], txs: Vec<(Hash, Tx)>, submissions: Vec<Submission>) {
        let (now, mut obsolete) = (Instant::now(), Vec::new());
        self.metrics.accepted.inc_by(txs.len() as u64);
        for (order, (hash, tx)) in orders.iter().zip(txs) {
            // A block may have brought it in the meantime.
            // Or it was read from the disk before its append was known to be durable.
            let is_new = self.window.place(&hash).is_none()
                && (self.queue.insert(*order, hash, tx, now) || self.queue.order(&hash) == Some(*order));
            if !is_new {
                obsolete.push(*order);
            }
        }
        self.store.remove(&obsolete);
        for submission in submissions {
            let receipts = submission.txs.iter().map(|(hash, _)| match self.window.place(hash) {
                Some(place) => Receipt::InChain(*hash, place),
                None => Receipt::Queued(*hash),
            });
            let _ = submission.reply.send(Ok(Posted { receipts: receipts.collect(), since: self.seen }));
        }
        if !self.queue.is_empty() {
            for waiting in self.idle.drain(..) {
                let _ = waiting.send(());
            }
        }
        self.gauge();
    }
}

fn bytes_of(txs: &[(Hash, Tx)]) -> usize {
    txs.iter().map(|(_, tx)| tx.0.len()).sum()
}
