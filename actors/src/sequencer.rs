//! The sequencer holds what this node has accepted until it is in a committed block.
//!
//! Transactions are on disk before they are *accepted* (P3). The executor is shown the next
//! batch and takes nothing; what leaves the queue leaves it because a committed block holds it
//! (hazard B3). The replay window answers for what the last blocks hold. A node that does not lead
//! forwards what it holds to the leader, and again to each new one (E23).
//!
//! It looks at every block, one after the other: what is still in the queue is in none of them.
//! The height it has looked up to goes with everything it forwards, and is on disk with the queue
//! for the next start. Where bodies are missing it waits for them.

pub mod forward;
mod handlers;
mod intake;
pub mod metrics;
pub mod queue;
pub mod refusals;
pub mod waiters;
pub mod window;

use std::time::Duration;

use actix::{ActorFutureExt, AsyncContext, Context, MailboxError, Recipient, SpawnHandle, WrapFuture};
use baton_messages::cluster::{ForwardError, ForwardTxs};
use baton_messages::mutation::{Mutation, planted};
use baton_messages::sequencer::Receipt;
use baton_messages::types::{Hash, Height};
use baton_storage::backend::StoreError;
use baton_storage::{QueueStore, Reader};
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use crate::world::World;
use forward::{Forwarder, Next};
use intake::Submission;
pub use metrics::Metrics;
use queue::Queue;
use refusals::Refusals;
use waiters::Waiters;
use window::Window;

/// So many blocks are taken into account in one turn: the thread is for others too.
const TURN: u64 = 256;

/// No more bytes of blocks in one turn: each is decoded and hashed.
const TURN_BYTES: usize = 4 << 20;

/// The pause between two turns.
const BETWEEN_TURNS: Duration = Duration::from_millis(1);

/// How often it looks after what nobody tells.
const TICK: Duration = Duration::from_secs(1);

/// Most requests that wait for a transaction to sequence; the executor has one.
const MAX_IDLE: usize = 64;

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
    /// How transactions are forwarded.
    pub forward: forward::Config,
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
            forward: forward::Config::default(),
        }
    }
}

/// Everything the sequencer says, and to whom.
#[derive(Clone, Debug, Default)]
pub struct Links {
    /// Takes transactions to the leader: Raft. `None` where this node is all there is.
    pub forward: Option<Recipient<ForwardTxs>>,
}

/// The sequencer.
pub struct Sequencer {
    config: Config,
    links: Links,
    metrics: Metrics,
    generator: StdRng,
    reader: Reader,
    store: QueueStore,
    queue: Queue,
    window: Window,
    waiters: Waiters,
    /// The last height that queue and window have taken into account: nothing in the queue is in
    /// a block up to here.
    seen: Height,
    /// Up to where the disk says so.
    noted: Height,
    incoming: Vec<Submission>,
    incoming_txs: usize,
    incoming_bytes: usize,
    appending: bool,
    refusals: Refusals,
    idle: Vec<oneshot::Sender<()>>,
    /// This node leads: what is in the queue goes into its blocks.
    leads: bool,
    forwarder: Forwarder,
    /// When forwarding goes on, and its timer.
    forward_at: Option<(Instant, SpawnHandle)>,
    /// The timer of the next turn of catching up.
    next_turn: Option<SpawnHandle>,
    /// The store's generation that the queue was read in; `None` when it was not yet.
    generation: Option<u64>,
    /// Why the queue or the chain cannot be read.
    trouble: Option<String>,
    /// What the disk watch says.
    disk_trouble: Option<String>,
    /// A member that says this node is none: nobody would take what is accepted here.
    stranger_to: Option<String>,
}

impl Sequencer {
    /// A sequencer over this store's queue. It reads queue and window when it starts.
    #[must_use]
    pub fn new(
        config: Config,
        links: Links,
        metrics: Metrics,
        world: &World,
        reader: Reader,
        store: QueueStore,
    ) -> Self {
        let window = Window::new(config.replay_window, window::MAX_TXS);
        let forwarder = Forwarder::new(config.forward.clone());
        Self {
            config,
            links,
            metrics,
            generator: world.generator("sequencer"),
            reader,
            store,
            queue: Queue::default(),
            window,
            waiters: Waiters::default(),
            seen: Height::default(),
            noted: Height::default(),
            incoming: Vec::new(),
            incoming_txs: 0,
            incoming_bytes: 0,
            appending: false,
            refusals: Refusals::default(),
            idle: Vec::new(),
            leads: false,
            forwarder,
            forward_at: None,
            next_turn: None,
            generation: None,
            trouble: None,
            disk_trouble: None,
            stranger_to: None,
        }
    }

    /// Reads the queue when it was not read yet, and when the store was opened again: a failed
    /// append may be on disk and removals may be undone. What stayed there unnoticed would come
    /// back after a restart, perhaps when the replay window has gone on. Says whether it did.
    ///
    /// The window is built anew from where the queue was checked to, however long ago that was.
    fn load(&mut self) -> Result<bool, StoreError> {
        let generation = self.store.generation();
        if self.generation == Some(generation) {
            return Ok(false);
        }
        let checked = self.store.checked()?;
        let (now, mut queue, mut obsolete) = (Instant::now(), Queue::default(), Vec::new());
        for (order, tx) in self.store.load()? {
            if !queue.insert(order, tx.hash(), tx, now) {
                obsolete.push(order);
            }
        }
        self.store.remove(&obsolete);
        let begin = self.window_start();
        self.seen = match checked {
            Some(checked) if !queue.is_empty() => {
                begin.min(checked).max(self.reader.initial_height().previous())
            }
            Some(_) | None => begin,
        };
        self.noted = checked.unwrap_or_default();
        self.window = Window::new(self.config.replay_window, window::MAX_TXS);
        self.queue = queue;
        self.forwarder.start_over();
        self.generation = Some(generation);
        info!(txs = self.queue.len(), checked = self.noted.0, from = self.seen.next().0, "read the queue");
        Ok(true)
    }

    /// The replay window begins so many blocks before the tip, after this one.
    fn window_start(&self) -> Height {
        let window = u64::try_from(self.config.replay_window).unwrap_or(u64::MAX);
        let window = if planted(Mutation::WindowFromTip) { 0 } else { window };
        let before = self.reader.tip().height.0.saturating_sub(window);
        Height(before).max(self.reader.initial_height().previous())
    }

    /// The first height whose transactions are remembered.
    fn window_begins(&self) -> Height {
        self.window.first().unwrap_or_else(|| self.seen.next())
    }

    /// Where nothing is queued, nothing needs the blocks below the window: a new member need not
    /// wait for all of their bodies.
    fn leap(&mut self) {
        let start = self.window_start();
        if start > self.seen && self.queue.is_empty() && self.incoming.is_empty() && !self.appending {
            debug!(from = self.seen.0, to = start.0, "nothing is queued: the window begins anew");
            self.seen = start;
            self.window = Window::new(self.config.replay_window, window::MAX_TXS);
        }
    }

    /// Takes blocks up to the tip into account, so many in one turn: what they hold leaves the
    /// queue. Says whether there are more.
    fn catch_up(&mut self) -> Result<bool, StoreError> {
        // The window at a start is read at once.
        let window = u64::try_from(self.config.replay_window).unwrap_or(u64::MAX);
        let turn = if self.load()? { TURN.saturating_add(window) } else { TURN };
        self.leap();
        let tip = self.reader.tip().height;
        let end = tip.0.min(self.seen.0.saturating_add(turn));
        let mut bytes = 0;
        while self.seen.0 < end && bytes < TURN_BYTES {
            let Some(block) = self.reader.block(self.seen.next())? else {
                debug!(height = self.seen.next().0, "the block's body is not here yet");
                self.gauge();
                return Ok(false);
            };
            bytes += block.tx_bytes();
            let mut done = Vec::new();
            for (hash, place) in self.window.push(&block) {
                done.extend(self.queue.remove(&hash));
                self.waiters.committed(&hash, place);
            }
            fail::fail_point!("sequencer.before_remove");
            self.store.remove(&done);
            self.seen = self.seen.next();
        }
        // What is being appended may be in a block that was seen meanwhile.
        if self.seen > self.noted && !self.queue.is_empty() && !self.appending {
            self.store.note_checked(self.seen);
            self.noted = self.seen;
        }
        self.gauge();
        Ok(self.seen < tip)
    }

    fn catch_up_or_report(&mut self, ctx: &mut Context<Self>) {
        match self.catch_up() {
            Ok(more) => {
                if self.trouble.take().is_some() {
                    info!("reads queue and chain again");
                }
                if more && self.next_turn.is_none() {
                    let turn = ctx.run_later(BETWEEN_TURNS, |this, ctx| {
                        this.next_turn = None;
                        this.catch_up_or_report(ctx);
                    });
                    self.next_turn = Some(turn);
                }
            }
            Err(error) => {
                error!(%error, "cannot read queue and chain");
                self.trouble = Some(error.to_string());
            }
        }
    }

    /// Once a second: whatever nobody tells.
    fn tick(&mut self, ctx: &mut Context<Self>) {
        // Missing bodies come without a hint.
        if self.trouble.is_some() || self.seen < self.reader.tip().height {
            self.catch_up_or_report(ctx);
        }
        self.waiters.forget_absent();
        self.idle.retain(|waiting| !waiting.is_closed());
        let oldest = self.queue.oldest().map_or(0, |since| since.elapsed().as_secs());
        self.metrics.oldest.set(i64::try_from(oldest).unwrap_or(i64::MAX));
        let left = if self.leads { 0 } else { self.queue.count_from(self.forwarder.taken()) };
        self.metrics.to_forward.set(i64::try_from(left).unwrap_or(i64::MAX));
        self.gauge();
    }

    fn gauge(&self) {
        let gauge = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        self.metrics.txs.set(gauge(self.queue.len()));
        self.metrics.bytes.set(gauge(self.queue.bytes()));
        self.metrics.waiting.set(gauge(self.waiters.len()));
    }

    /// Transactions leave the queue because the engine will never take them.
    fn drop_txs<'a>(&mut self, refused: impl Iterator<Item = (Hash, &'a str)>) {
        let mut orders = Vec::new();
        for (hash, reason) in refused {
            orders.extend(self.queue.remove(&hash));
            self.waiters.dropped(&hash, reason);
            self.refusals.insert(hash, reason);
            self.metrics.dropped.inc();
        }
        self.store.remove(&orders);
        self.gauge();
    }

    /// Sends the leader what it has not taken yet, when it is time for that.
    fn begin_forward(&mut self, ctx: &mut Context<Self>) {
        let Some(forward) = self.links.forward.clone() else { return };
        match self.forwarder.next(Instant::now(), &self.queue) {
            Next::Idle => {}
            Next::Wait(at) => self.forward_at(at, ctx),
            Next::Send(batch) => {
                debug!(txs = batch.txs.len(), again = batch.repeated, "forwarding");
                let message = ForwardTxs { leader: batch.leader, txs: batch.txs.clone(), checked: self.seen };
                let answer = forward.send(message).timeout(self.config.forward.reply_within);
                let done = answer
                    .into_actor(self)
                    .map(move |answer, this, ctx| this.end_forward(&batch, answer, ctx));
                ctx.spawn(done);
            }
        }
    }

    /// One timer, for the earliest time.
    fn forward_at(&mut self, at: Instant, ctx: &mut Context<Self>) {
        match self.forward_at {
            Some((set, _)) if set <= at => return,
            Some((_, timer)) => {
                ctx.cancel_future(timer);
            }
            None => {}
        }
        let timer = ctx.run_later(at.saturating_duration_since(Instant::now()), |this, ctx| {
            this.forward_at = None;
            this.begin_forward(ctx);
        });
        self.forward_at = Some((at, timer));
    }

    fn end_forward(
        &mut self,
        batch: &forward::Batch,
        answer: Result<Result<Vec<Receipt>, ForwardError>, MailboxError>,
        ctx: &mut Context<Self>,
    ) {
        let answer = match answer {
            Ok(Ok(receipts)) if receipts.len() == batch.txs.len() => Ok(receipts),
            Ok(Ok(receipts)) => {
                let reason = format!("{} receipts for {} transactions", receipts.len(), batch.txs.len());
                Err(ForwardError::NoLeader(reason))
            }
            Ok(Err(error)) => Err(error),
            Err(error) => Err(ForwardError::NoLeader(format!("raft does not answer: {error}"))),
        };
        let now = Instant::now();
        match answer {
            Ok(receipts) => {
                let refused = receipts.iter().filter_map(|receipt| match receipt {
                    Receipt::Dropped(hash, reason) if self.queue.contains(hash) => {
                        Some((*hash, reason.as_str()))
                    }
                    Receipt::Dropped(..) | Receipt::Queued(_) | Receipt::InChain(..) => None,
                });
                let refused: Vec<(Hash, &str)> = refused.collect();
                if self.forwarder.taken_over(batch, now, !refused.is_empty()) {
                    if planted(Mutation::ForgetForwarded) {
                        let taken = batch.txs.iter().filter_map(|tx| self.queue.remove(&tx.hash()));
                        self.store.remove(&taken.collect::<Vec<u64>>());
                    }
                    let count =
                        if batch.repeated { &self.metrics.sent_again } else { &self.metrics.forwarded };
                    count.inc_by(receipts.len() as u64);
                    for (hash, reason) in &refused {
                        warn!(%hash, reason, "the leader's engine refused a transaction for good");
                    }
                    self.drop_txs(refused.into_iter());
                }
            }
            Err(error) => {
                let chance = self.generator.random::<f64>();
                if self.forwarder.failed(batch, &error, now, chance) {
                    let cause = metrics::Cause { cause: forward::cause(&error) };
                    self.metrics.forward_failures.get_or_create(&cause).inc();
                    debug!(%error, txs = batch.txs.len(), "not forwarded");
                    if matches!(error, ForwardError::Refused(_)) {
                        warn!(%error, "a transaction stays here: do the members agree on block.max_bytes?");
                    }
                }
            }
        }
        self.begin_forward(ctx);
    }
}
