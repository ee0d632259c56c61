//! The sequencer holds what this node has accepted until it is in a committed block.
//!
//! Transactions are on disk before they are *accepted* (P3). The executor is shown the next
//! batch and takes nothing; what leaves the queue leaves it because a committed block holds it
//! (hazard B3). The replay window answers for what the last blocks hold.

pub mod queue;
pub mod waiters;
pub mod window;

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::time::Duration;

use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, MessageResult, ResponseFuture, WrapFuture,
};
use baton_messages::engine::BlockExecuted;
use baton_messages::raft::Applied;
use baton_messages::sequencer::{
    AwaitError, AwaitTx, AwaitTxs, Batch, DropTxs, GetQueueView, Level, NextBatch, Outcome, QueueView,
    Receipt, SubmitError, SubmitTxs,
};
use baton_messages::supervisor::DiskHealthChanged;
use baton_messages::types::{Hash, Height, Tx};
use baton_storage::backend::StoreError;
use baton_storage::{QueueStore, Reader};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::oneshot;
use tracing::{debug, error, info, warn};

use queue::Queue;
use waiters::Waiters;
use window::Window;

/// How the sequencer behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Most transactions in the queue.
    pub max_txs: usize,
    /// Most bytes in the queue.
    pub max_bytes: usize,
    /// Most bytes of one transaction: what fits into a block.
    pub max_tx_bytes: usize,
    /// Blocks in the replay window.
    pub replay_window: usize,
    /// Most requests that wait for an outcome.
    pub max_waiting: usize,
    /// The longest that a request waits.
    pub longest_wait: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_txs: 100_000,
            max_bytes: 64 << 20,
            max_tx_bytes: 1 << 20,
            replay_window: 1_000,
            max_waiting: 10_000,
            longest_wait: Duration::from_secs(120),
        }
    }
}

/// What the sequencer counts.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Transactions waiting.
    pub txs: Gauge,
    /// Bytes waiting.
    pub bytes: Gauge,
    /// Requests waiting for an outcome.
    pub waiting: Gauge,
    /// Transactions accepted.
    pub accepted: Counter,
    /// Transactions that were known already.
    pub duplicates: Counter,
    /// Submissions refused because the queue was full.
    pub refused_full: Counter,
    /// Transactions the engine will never take.
    pub dropped: Counter,
}

impl Metrics {
    /// Makes the metrics visible.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("queue");
        registry.register("txs", "Transactions waiting to be sequenced", self.txs.clone());
        registry.register("bytes", "Bytes waiting to be sequenced", self.bytes.clone());
        registry.register("waiting", "Requests waiting for an outcome", self.waiting.clone());
        registry.register("accepted", "Transactions accepted", self.accepted.clone());
        registry.register("duplicates", "Submitted transactions that were known", self.duplicates.clone());
        registry.register("refused_full", "Submissions refused, queue full", self.refused_full.clone());
        registry.register("dropped", "Transactions the engine refused for good", self.dropped.clone());
    }
}

/// A submission that waits for the disk.
struct Submission {
    txs: Vec<(Hash, Tx)>,
    reply: oneshot::Sender<Result<Vec<Receipt>, SubmitError>>,
}

/// The sequencer.
pub struct Sequencer {
    config: Config,
    metrics: Metrics,
    reader: Reader,
    store: QueueStore,
    queue: Queue,
    window: Window,
    waiters: Waiters,
    /// The last height that queue and window have taken into account.
    seen: Height,
    incoming: Vec<Submission>,
    incoming_txs: usize,
    incoming_bytes: usize,
    appending: bool,
    refused: lru::LruCache<Hash, String>,
    idle: Vec<oneshot::Sender<()>>,
    /// The store's generation that the queue was read in; `None` when it was not yet.
    generation: Option<u64>,
    /// Why the queue or the chain cannot be read.
    trouble: Option<String>,
    /// What the disk watch says.
    disk_trouble: Option<String>,
}

impl Sequencer {
    /// A sequencer over this store's queue. It reads queue and window when it starts.
    #[must_use]
    pub fn new(config: Config, metrics: Metrics, reader: Reader, store: QueueStore) -> Self {
        let window = Window::new(config.replay_window, window::MAX_TXS);
        let remembered = NonZeroUsize::new(10_000).expect("not zero");
        Self {
            config,
            metrics,
            reader,
            store,
            queue: Queue::default(),
            window,
            waiters: Waiters::default(),
            seen: Height::default(),
            incoming: Vec::new(),
            incoming_txs: 0,
            incoming_bytes: 0,
            appending: false,
            refused: lru::LruCache::new(remembered),
            idle: Vec::new(),
            generation: None,
            trouble: None,
            disk_trouble: None,
        }
    }

    /// Reads the queue when it was not read yet, and when the store was opened again: a failed
    /// append may be on disk and removals may be undone. What stayed there unnoticed would come
    /// back after a restart, perhaps when the replay window has gone on.
    fn load(&mut self) -> Result<(), StoreError> {
        let generation = self.store.generation();
        if self.generation == Some(generation) {
            return Ok(());
        }
        let (mut queue, mut obsolete) = (Queue::default(), Vec::new());
        for (order, tx) in self.store.load()? {
            let hash = tx.hash();
            if self.window.place(&hash).is_some() || !queue.insert(order, hash, tx) {
                obsolete.push(order);
            }
        }
        self.queue = queue;
        self.store.remove(&obsolete);
        self.generation = Some(generation);
        info!(txs = self.queue.len(), obsolete = obsolete.len(), "read the queue");
        Ok(())
    }

    /// The replay window begins so many blocks before the tip.
    fn begin_window(&mut self) {
        let tip = self.reader.tip().height;
        let window = self.config.replay_window as u64;
        let before = tip.0.saturating_sub(window).max(self.reader.initial_height().0 - 1);
        self.seen = Height(before);
    }

    /// Takes every block up to the tip into account: what it holds leaves the queue.
    fn catch_up(&mut self) -> Result<(), StoreError> {
        self.load()?;
        let tip = self.reader.tip().height;
        while self.seen < tip {
            let Some(block) = self.reader.block(self.seen.next())? else {
                warn!(height = self.seen.next().0, "the block's body is not here yet");
                break;
            };
            let mut done = Vec::new();
            for (hash, place) in self.window.push(&block) {
                done.extend(self.queue.remove(&hash));
                self.waiters.committed(&hash, place);
            }
            fail::fail_point!("sequencer.before_remove");
            self.store.remove(&done);
            self.seen = self.seen.next();
        }
        self.gauge();
        Ok(())
    }

    fn catch_up_or_report(&mut self) {
        match self.catch_up() {
            Ok(()) => {
                if self.trouble.take().is_some() {
                    info!("reads queue and chain again");
                }
            }
            Err(error) => {
                error!(%error, "cannot read queue and chain");
                self.trouble = Some(error.to_string());
            }
        }
    }

    fn gauge(&self) {
        let gauge = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        self.metrics.txs.set(gauge(self.queue.len()));
        self.metrics.bytes.set(gauge(self.queue.bytes()));
        self.metrics.waiting.set(gauge(self.waiters.len()));
    }

    fn check(&self, txs: &[(Hash, Tx)]) -> Result<(), SubmitError> {
        if let Some(trouble) = self.disk_trouble.as_ref().or(self.trouble.as_ref()) {
            return Err(SubmitError::NotReady(trouble.clone()));
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
        let all = self.queue.len() + self.incoming_txs;
        let all_bytes = self.queue.bytes() + self.incoming_bytes;
        if count > 0 && (all + count > self.config.max_txs || all_bytes + bytes > self.config.max_bytes) {
            return Err(SubmitError::QueueFull { txs: all, bytes: all_bytes });
        }
        Ok(())
    }

    fn is_known(&self, hash: &Hash) -> bool {
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
        self.incoming_bytes += txs.iter().map(|(_, tx)| tx.0.len()).sum::<usize>();
        let append = self.store.append(txs.iter().map(|(_, tx)| tx.clone()).collect());
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
        self.incoming_bytes -= txs.iter().map(|(_, tx)| tx.0.len()).sum::<usize>();
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
    }

    fn accept(&mut self, orders: &[u64], txs: Vec<(Hash, Tx)>, submissions: Vec<Submission>) {
        let mut obsolete = Vec::new();
        self.metrics.accepted.inc_by(txs.len() as u64);
        for (order, (hash, tx)) in orders.iter().zip(txs) {
            // A block may have brought it in the meantime.
            // Or it was read from the disk before its append was known to be durable.
            let is_new = self.window.place(&hash).is_none()
                && (self.queue.insert(*order, hash, tx) || self.queue.order(&hash) == Some(*order));
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
            let _ = submission.reply.send(Ok(receipts.collect()));
        }
        if !self.queue.is_empty() {
            for waiting in self.idle.drain(..) {
                let _ = waiting.send(());
            }
        }
        self.gauge();
    }
}

impl Actor for Sequencer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        // Bounded by the protocol: the queue's limits, one hint per block, the RPC's connections.
        ctx.set_mailbox_capacity(1024);
        self.begin_window();
        self.catch_up_or_report();
        info!(txs = self.queue.len(), height = self.seen.0, "read the queue and the replay window");
        ctx.run_interval(Duration::from_secs(1), |this, _| {
            if this.trouble.is_some() {
                this.catch_up_or_report();
            }
            this.waiters.forget_absent();
            this.idle.retain(|waiting| !waiting.is_closed());
            this.gauge();
        });
    }
}

impl Handler<SubmitTxs> for Sequencer {
    type Result = ResponseFuture<Result<Vec<Receipt>, SubmitError>>;

    fn handle(&mut self, message: SubmitTxs, ctx: &mut Context<Self>) -> Self::Result {
        let txs: Vec<(Hash, Tx)> = message.txs.into_iter().map(|tx| (tx.hash(), tx)).collect();
        if let Err(error) = self.check(&txs) {
            if matches!(error, SubmitError::QueueFull { .. }) {
                self.metrics.refused_full.inc();
            }
            return Box::pin(std::future::ready(Err(error)));
        }
        let known = txs.iter().filter(|(hash, _)| self.is_known(hash)).count();
        self.metrics.duplicates.inc_by(known as u64);
        self.incoming_txs += txs.len();
        self.incoming_bytes += txs.iter().map(|(_, tx)| tx.0.len()).sum::<usize>();
        let (reply, receipts) = oneshot::channel();
        self.incoming.push(Submission { txs, reply });
        self.begin_append(ctx);
        Box::pin(async move {
            receipts.await.unwrap_or_else(|_| Err(SubmitError::NotReady("the node is stopping".to_owned())))
        })
    }
}

impl Handler<NextBatch> for Sequencer {
    type Result = MessageResult<NextBatch>;

    fn handle(&mut self, message: NextBatch, _: &mut Context<Self>) -> Self::Result {
        self.catch_up_or_report();
        let current = self.seen.next() == message.height;
        let txs = if current { self.queue.first(message.max_bytes) } else { Vec::new() };
        debug!(height = message.height.0, txs = txs.len(), current, "showed the next batch");
        MessageResult(Batch { txs, current })
    }
}

impl Handler<AwaitTxs> for Sequencer {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: AwaitTxs, _: &mut Context<Self>) -> Self::Result {
        if !self.queue.is_empty() {
            return Box::pin(std::future::ready(()));
        }
        let (reply, available) = oneshot::channel();
        self.idle.push(reply);
        // Who asked may have given up; this future would hold its place for ever.
        let waiting = tokio::time::timeout(self.config.longest_wait, available);
        Box::pin(async move {
            let _ = waiting.await;
        })
    }
}

impl Handler<DropTxs> for Sequencer {
    type Result = ();

    fn handle(&mut self, message: DropTxs, _: &mut Context<Self>) {
        let mut orders = Vec::new();
        for hash in &message.hashes {
            warn!(%hash, reason = %message.reason, "the engine refused a transaction for good");
            orders.extend(self.queue.remove(hash));
            self.waiters.dropped(hash, &message.reason);
            self.refused.put(*hash, message.reason.clone());
            self.metrics.dropped.inc();
        }
        self.store.remove(&orders);
        self.gauge();
    }
}

impl Handler<Applied> for Sequencer {
    type Result = ();

    fn handle(&mut self, _: Applied, _: &mut Context<Self>) {
        self.catch_up_or_report();
    }
}

impl Handler<BlockExecuted> for Sequencer {
    type Result = ();

    fn handle(&mut self, message: BlockExecuted, _: &mut Context<Self>) {
        self.catch_up_or_report();
        self.waiters.executed(message.0.height, message.0.results);
        self.gauge();
    }
}

impl Handler<AwaitTx> for Sequencer {
    type Result = ResponseFuture<Result<Outcome, AwaitError>>;

    fn handle(&mut self, message: AwaitTx, _: &mut Context<Self>) -> Self::Result {
        let refuse = |error| -> Self::Result { Box::pin(std::future::ready(Err(error))) };
        if self.waiters.len() >= self.config.max_waiting {
            return refuse(AwaitError::TooMany(self.waiters.len()));
        }
        let (reply, outcome) = oneshot::channel();
        match (self.window.place(&message.hash), message.level) {
            (Some(place), Level::Committed) => {
                let _ = reply.send(Ok(Outcome { place, result: None }));
            }
            (Some(place), Level::Executed) => self.waiters.wait_for_execution(place, reply),
            (None, level) if self.queue.contains(&message.hash) => {
                self.waiters.wait_for_commit(message.hash, level, reply);
            }
            (None, _) => {
                return match self.refused.get(&message.hash) {
                    Some(reason) => refuse(AwaitError::Dropped(reason.clone())),
                    None => refuse(AwaitError::Unknown),
                };
            }
        }
        self.gauge();
        // Who asked may have given up; this future would hold its place for ever.
        let waiting = tokio::time::timeout(self.config.longest_wait, outcome);
        Box::pin(async move {
            match waiting.await {
                Ok(outcome) => outcome.unwrap_or(Err(AwaitError::Unknown)),
                Err(_) => Err(AwaitError::TooLong),
            }
        })
    }
}

impl Handler<DiskHealthChanged> for Sequencer {
    type Result = ();

    fn handle(&mut self, message: DiskHealthChanged, _: &mut Context<Self>) {
        self.disk_trouble = message.trouble;
    }
}

impl Handler<GetQueueView> for Sequencer {
    type Result = MessageResult<GetQueueView>;

    fn handle(&mut self, _: GetQueueView, _: &mut Context<Self>) -> Self::Result {
        MessageResult(QueueView {
            txs: self.queue.len(),
            bytes: self.queue.bytes(),
            max_txs: self.config.max_txs,
            max_bytes: self.config.max_bytes,
            waiting: self.waiters.len(),
            window: self.window.len(),
        })
    }
}
