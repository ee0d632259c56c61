//! The executor builds blocks, has them agreed on, and signs them.
//!
//! It lives under one grant. Blocks are serial: h is committed, then executed here and signed
//! beside that, then h+1 is built on the root. Nothing is executed or signed before it is
//! committed (P2, P5). A new executor reads the store and carries on from there; it keeps
//! nothing.

pub mod build;
mod building;
mod metrics;
mod pausing;
mod telling;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, MailboxError, Recipient, ResponseFuture,
    WrapFuture,
};
use baton_messages::chain::{Block, SignedHeader, Signer};
use baton_messages::command::{Command, ForcedPosition, HeaderSignature};
use baton_messages::engine::{EngineError, ExecuteBlock, Executed, FilterTxs, GetPosition};
use baton_messages::executor::ProductionChanged;
use baton_messages::forced::NextForced;
use baton_messages::mutation::{Mutation, planted};
use baton_messages::p2p::{NotPublished, PublishBlock, PublishTail};
use baton_messages::raft::{Committed, ProposeBlock, ProposeError, Record, Settle};
use baton_messages::sequencer::{AwaitTxs, DropTxs, NextBatch};
use baton_messages::signer::{CheckGuard, NoteSigned, SignError, SignHeader};
use baton_messages::supervisor::{IntegrityStop, StopProducing};
use baton_messages::types::{Grant, Height, StateRoot};
use baton_storage::Reader;
use baton_storage::backend::StoreError;
use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{Instrument, Span, debug, error, info, info_span, warn};

use crate::quiet::Quiet;
use crate::world::World;
use building::Building;
pub use metrics::{Metrics, Operation};
use telling::Telling;

/// How blocks are made.
#[derive(Clone, Debug)]
pub struct Config {
    /// Time between two blocks.
    pub block_time: Duration,
    /// Produce only when there are transactions, or after `lazy_interval`.
    pub lazy: bool,
    /// The longest time without a block in lazy mode.
    pub lazy_interval: Duration,
    /// Most transaction bytes in a block.
    pub max_bytes: usize,
    /// Production pauses while so many blocks are not on DA yet. Zero: no limit.
    pub max_da_backlog: u64,
    /// How long an answer may take before it counts as missing.
    pub reply_within: Duration,
    /// The pause after a failure.
    pub retry_after: Duration,
    /// A signature that no block has carried for so long gets a record of its own.
    pub record_signature_after: Duration,
}

/// Production pauses when more blocks than this wait for their signature.
const MAX_UNSIGNED: usize = 4;

/// Everything the executor says, and to whom.
#[derive(Clone, Debug)]
pub struct Links {
    /// Shows the next batch.
    pub next_batch: Recipient<NextBatch>,
    /// Says when there is something to sequence.
    pub await_txs: Recipient<AwaitTxs>,
    /// Forgets what can never be executed.
    pub drop_txs: Recipient<DropTxs>,
    /// Classifies a batch.
    pub filter: Recipient<FilterTxs>,
    /// Says where the engine is.
    pub position: Recipient<GetPosition>,
    /// Executes a committed block.
    pub execute: Recipient<ExecuteBlock>,
    /// Says when what was proposed before is decided.
    pub settle: Recipient<Settle>,
    /// Replicates a block.
    pub propose: Recipient<ProposeBlock>,
    /// Records a signature.
    pub record: Recipient<Record>,
    /// Moves the guard up to what other members have signed.
    pub note_signed: Recipient<NoteSigned>,
    /// Compares the guard with the chain before anything is signed.
    pub check_guard: Recipient<CheckGuard>,
    /// Signs a committed header.
    pub sign: Recipient<SignHeader>,
    /// Hears when production pauses and goes on.
    pub production: Recipient<ProductionChanged>,
    /// Ends the process when a person is needed.
    pub integrity_stop: Recipient<IntegrityStop>,
    /// Tells the network; `None` where this node is not part of one.
    pub publish: Option<Publish>,
    /// Shows what users force through DA; `None` where nobody can.
    pub inbox: Option<Inbox>,
}

/// Forced transactions.
#[derive(Clone, Debug)]
pub struct Inbox {
    /// Shows what comes next.
    pub next: Recipient<NextForced>,
    /// In lazy mode it is asked that often.
    pub every: Duration,
}

/// What is said to the network.
#[derive(Clone, Debug)]
pub struct Publish {
    /// Tells a block that is signed and executed.
    pub block: Recipient<PublishBlock>,
    /// Tells again what the leader before may not have told.
    pub tail: Recipient<PublishTail>,
}

/// Why a due block was not made, or what stands after it is not known yet.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No answer in time.
    #[error("no reply from the {who}: {source}")]
    NoReply {
        /// Who was asked.
        who: &'static str,
        /// What the mailbox says.
        source: MailboxError,
    },
    /// The sequencer has not taken the tip into account yet.
    #[error("the sequencer has not seen height {0} yet")]
    SequencerBehind(Height),
    /// The engine is not at the tip.
    #[error("the engine is at {engine}, the chain at {tip}")]
    EngineNotLevel {
        /// The engine's height.
        engine: Height,
        /// The chain's.
        tip: Height,
    },
    /// The engine refuses or fails.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The proposal has no success to report.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An epoch of DA may be due that cannot be read: no block leaves its transactions out.
    #[error("forced inclusion: {0}")]
    ForcedInclusion(String),
}

/// A block and the position of forced inclusion after it. They are proposed together, as often as
/// it takes.
#[derive(Clone, Debug)]
struct Proposal {
    block: Arc<Block>,
    forced: ForcedPosition,
}

/// The executor.
pub struct Executor {
    config: Config,
    links: Links,
    metrics: Metrics,
    world: World,
    reader: Reader,
    grant: Grant,
    /// Whose key signs; every header names its address.
    signer: Signer,
    /// State after a height, as the engine said last.
    executed: Option<(Height, StateRoot)>,
    /// What was said last about blocks that were not made.
    quiet: Quiet,
    /// A proposed block whose fate is not known: it is proposed again, never a sibling.
    in_doubt: Option<Proposal>,
    /// Blocks committed but not signed, oldest first.
    unsigned: VecDeque<Arc<Block>>,
    /// Signatures no log entry carries yet, oldest first.
    unrecorded: VecDeque<HeaderSignature>,
    /// The last height that was queued for signing, or is signed.
    queued_to: Height,
    /// The last block that this executor saw committed.
    committed_to: Height,
    signing: bool,
    /// Why the last attempt to sign failed.
    unsigned_because: Option<String>,
    recording: bool,
    /// When the next block is due; the cadence does not drift.
    slot: Instant,
    round_began: Instant,
    /// What is logged about a block carries its height and term.
    round: Span,
    /// The change of leadership that this grant came from. Its first block is a part of it, the
    /// others follow from it: one trace tells what a failover cost.
    failover: Span,
    last_block_at: Option<Instant>,
    pause: Option<String>,
    /// A block is due.
    due: bool,
    /// Between two rounds: nothing is on its way.
    resting: bool,
    /// Who wants no further block.
    stopping: Vec<oneshot::Sender<()>>,
    /// They were answered: nothing begins any more.
    closed: bool,
    /// What is signed or executed and not told yet.
    telling: Telling,
}

impl Executor {
    /// An executor for this grant, with this signer's key.
    #[must_use]
    pub fn new(
        config: Config,
        links: Links,
        metrics: Metrics,
        world: World,
        reader: Reader,
        grant: Grant,
        signer: Signer,
    ) -> Self {
        Self {
            config,
            links,
            metrics,
            world,
            reader,
            grant,
            signer,
            executed: None,
            quiet: Quiet::default(),
            in_doubt: None,
            unsigned: VecDeque::new(),
            unrecorded: VecDeque::new(),
            queued_to: Height(0),
            committed_to: Height(0),
            signing: false,
            unsigned_because: None,
            recording: false,
            slot: Instant::now(),
            round_began: Instant::now(),
            round: Span::none(),
            failover: Span::current(),
            last_block_at: None,
            pause: None,
            due: true,
            resting: true,
            stopping: Vec::new(),
            closed: false,
            telling: Telling::default(),
        }
    }

    /// What an executor before this one proposed may still be on its way: first it is decided.
    fn begin_settling(&mut self, ctx: &mut Context<Self>) {
        let settled = self.links.settle.send(Settle).timeout(self.config.reply_within).into_actor(self);
        ctx.spawn(settled.map(|reply, this, ctx| match reply {
            Ok(()) => this.begin_guard_check(ctx),
            Err(error) => {
                warn!(%error, "raft has not decided an earlier proposal");
                this.pause(Some(format!("an earlier proposal is not decided: {error}")), true);
                ctx.run_later(this.config.retry_after, Self::begin_settling);
            }
        }));
    }

    /// Everything committed is applied here: the guard can be compared with it (P2). Where others
    /// vote they may have signed since this member led: their signatures are in the log, and the
    /// guard is moved up to the last one first.
    fn begin_guard_check(&mut self, ctx: &mut Context<Self>) {
        let last_signed = match self.find_unsigned() {
            Ok(last_signed) => last_signed,
            Err(error) => return self.end_in_failed_check(&error.to_string(), ctx),
        };
        let others_sign = !self.reader.is_sole_voter();
        let note = last_signed.clone().filter(|_| others_sign);
        let note = note.map(|signed| self.links.note_signed.send(NoteSigned { signed: Arc::new(signed) }));
        let last_signed = last_signed.map(|signed| (signed.header.height, signed.header.hash()));
        let check = CheckGuard { last_block: self.reader.tip().height, last_signed };
        let (check_guard, within) = (self.links.check_guard.clone(), self.config.reply_within);
        // An earlier proposal may have been committed since the grant, and is told by nobody before it
        // is executed here (P10).
        let position = self.links.position.send(GetPosition).timeout(within);
        let checking = async move {
            if let Some(note) = note {
                // A refusal that lasts is also the answer to the next question, with the reason.
                match note.timeout(within).await? {
                    Err(error) if is_for_a_person(&error) => return Ok(Err(error)),
                    Err(error) => warn!(%error, "the guard does not follow"),
                    Ok(()) => {}
                }
            }
            let checked = check_guard.send(check).timeout(within).await?;
            Ok::<_, MailboxError>(checked.and(Ok(position.await?)))
        };
        ctx.spawn(checking.into_actor(self).map(|reply, this, ctx| match reply {
            Ok(Ok(Err(error))) => this.end_in_failed_check(&error.to_string(), ctx),
            Ok(Ok(Ok(position))) => {
                this.telling.executed(position.height);
                this.begin_telling_tail(ctx);
                this.begin_signing(ctx);
                this.begin_first_round(ctx);
            }
            Ok(Err(error)) if is_for_a_person(&error) => {
                error!(%error, "the guard refuses");
                this.links.integrity_stop.do_send(IntegrityStop { reason: error.to_string() });
            }
            Ok(Err(refusal)) => this.end_in_failed_check(&refusal.to_string(), ctx),
            Err(error) => this.end_in_failed_check(&error.to_string(), ctx),
        }));
    }

    fn end_in_failed_check(&mut self, error: &str, ctx: &mut Context<Self>) {
        warn!(%error, "the guard does not let this node sign");
        self.pause(Some(error.to_owned()), true);
        ctx.run_later(self.config.retry_after * 8, Self::begin_guard_check);
    }

    /// The unsigned tail of earlier reigns is signed before anything else. Returns the last
    /// header whose signature is recorded.
    fn find_unsigned(&mut self) -> Result<Option<SignedHeader>, StoreError> {
        self.unsigned.clear();
        let tip = self.reader.tip().height;
        // Below the chain's first block there is none to sign.
        self.queued_to = tip.max(self.reader.initial_height().previous());
        self.committed_to = tip;
        let mut height = tip;
        while height >= self.reader.initial_height() {
            if let Some(signed) = self.reader.signed_header(height, &self.signer)? {
                return Ok(Some(signed));
            }
            let Some(block) = self.reader.block(height)? else { break };
            info!(height = height.0, "not signed yet");
            self.unsigned.push_front(block);
            height = height.previous();
        }
        Ok(None)
    }

    /// The cadence goes on across a change of leader: the first block is due one block time after
    /// the last one's header says, and at once when that is over. Clocks that differ delay it by
    /// one block time at the most.
    fn begin_first_round(&mut self, ctx: &mut Context<Self>) {
        let tip = self.reader.tip();
        let mut wait = Duration::ZERO;
        if tip.height >= self.reader.initial_height() {
            let now = self.world.now();
            let due = tip.time.plus(self.config.block_time);
            wait = Duration::from_nanos(due.0.saturating_sub(now.0)).min(self.config.block_time);
            let age = Duration::from_nanos(now.0.saturating_sub(tip.time.0));
            self.last_block_at = Instant::now().checked_sub(age);
        }
        self.slot = Instant::now() + wait;
        match wait.is_zero() && self.stopping.is_empty() {
            true => self.begin_round(ctx),
            false => self.rest(wait, ctx),
        }
    }

    /// Ends a round. The next one begins after a pause, unless no further block is wanted; a block in
    /// doubt is decided even then.
    fn rest(&mut self, pause: Duration, ctx: &mut Context<Self>) {
        self.resting = true;
        if !self.stopping.is_empty() && self.in_doubt.is_none() {
            return self.close();
        }
        if pause.is_zero() {
            // A timer of zero would wait for the next millisecond.
            let others_first = tokio::task::yield_now().into_actor(self);
            ctx.spawn(others_first.map(|(), this, ctx| this.begin_round(ctx)));
        } else {
            ctx.run_later(pause, Self::begin_round);
        }
    }

    fn close(&mut self) {
        self.closed = true;
        for stopped in self.stopping.drain(..) {
            let _ = stopped.send(());
        }
    }

    fn begin_round(&mut self, ctx: &mut Context<Self>) {
        if self.closed {
            return;
        }
        self.resting = false;
        self.round_began = Instant::now();
        if let Some(reason) = self.reader.pause() {
            return self.begin_paused_round(&reason, ctx);
        }
        if let Some(proposal) = self.in_doubt.clone() {
            return self.begin_proposal(proposal, ctx);
        }
        if let Some((reason, due)) = self.reason_to_wait() {
            self.pause(Some(reason), due);
            return self.rest(self.config.retry_after, ctx);
        }
        let building = Building {
            config: self.config.clone(),
            links: self.links.clone(),
            world: self.world.clone(),
            reader: self.reader.clone(),
            proposer: self.signer.address.clone(),
            executed: self.executed.clone(),
            may_be_empty: !self.config.lazy || self.idle_for() >= self.config.lazy_interval,
        };
        let height = self.reader.tip().height.next().max(self.reader.initial_height());
        self.round = match self.last_block_at {
            None => info_span!(parent: &self.failover, "block", height = height.0, term = self.grant.term.0),
            Some(_) => info_span!(parent: None, "block", height = height.0, term = self.grant.term.0),
        };
        if self.last_block_at.is_some() {
            self.round.follows_from(&self.failover);
        }
        let building = building.next_block().instrument(self.round.clone()).into_actor(self);
        ctx.spawn(building.map(|built, this, ctx| this.end_building(built, ctx)));
    }

    /// Why no block is made now, and whether another leader might make one.
    fn reason_to_wait(&self) -> Option<(String, bool)> {
        if self.unsigned.len() > MAX_UNSIGNED {
            let reason = self.unsigned_because.as_deref().unwrap_or("the signer is slow");
            return Some((format!("{} blocks are not signed: {reason}", self.unsigned.len()), true));
        }
        let tip = self.reader.tip().height;
        let backlog = tip.0.saturating_sub(self.reader.da_progress().included.0);
        let limit = self.config.max_da_backlog;
        if limit > 0 && backlog >= limit {
            let reason = format!("{backlog} blocks wait for the DA layer, the limit is {limit}");
            return Some((reason, false));
        }
        let start = self.reader.genesis().start_time;
        if tip < self.reader.initial_height() && self.world.now() < start {
            return Some((format!("the genesis time {start} ns is not reached"), false));
        }
        None
    }

    fn idle_for(&self) -> Duration {
        self.last_block_at.map_or(Duration::MAX, |at| at.elapsed())
    }

    fn end_building(&mut self, built: Result<Option<Proposal>, Error>, ctx: &mut Context<Self>) {
        let _in_round = self.round.clone().entered();
        if let Some(reason) = self.reader.pause() {
            // It came while the block was built, which took nothing from anybody.
            return self.begin_paused_round(&reason, ctx);
        }
        match built {
            Ok(Some(proposal)) => {
                self.pause(self.pause.clone(), true);
                self.begin_proposal(proposal, ctx);
            }
            Ok(None) => {
                self.pause(None, false);
                self.begin_waiting(ctx);
            }
            Err(Error::SequencerBehind(_)) => self.rest(Duration::from_millis(1), ctx),
            // Another leader reads the same DA layer.
            Err(error @ Error::ForcedInclusion(_)) => {
                self.pause(Some(error.to_string()), false);
                self.rest(self.config.retry_after, ctx);
            }
            Err(error) => self.end_in_failure(&error, ctx),
        }
    }

    fn begin_proposal(&mut self, proposal: Proposal, ctx: &mut Context<Self>) {
        let Proposal { block, forced } = &proposal;
        self.forget_recorded();
        if planted(Mutation::ExecuteBeforeCommit) {
            self.links.execute.do_send(ExecuteBlock { block: block.clone() });
        }
        if planted(Mutation::SignBeforeCommit) {
            self.links.sign.do_send(SignHeader { grant: self.grant, block: block.clone() });
        }
        fail::fail_point!("executor.before_propose");
        let propose = ProposeBlock {
            grant: self.grant,
            block: block.clone(),
            tail: self.unrecorded.front().cloned(),
            forced: *forced,
        };
        let began = Instant::now();
        let proposed = self.links.propose.send(propose).timeout(self.config.reply_within).into_actor(self);
        ctx.spawn(proposed.map(move |reply, this, ctx| {
            this.metrics.commit.observe(began.elapsed().as_secs_f64());
            this.end_proposal(&proposal, reply, ctx);
        }));
    }

    fn end_proposal(
        &mut self,
        proposal: &Proposal,
        reply: Result<Result<Committed, ProposeError>, MailboxError>,
        ctx: &mut Context<Self>,
    ) {
        let _in_round = self.round.clone().entered();
        let failure = match reply {
            Ok(Ok(_)) => return self.committed(&proposal.block, ctx),
            // Nothing was appended now. A block in doubt from before stays in doubt.
            Ok(Err(error @ (ProposeError::NotLeader { .. } | ProposeError::NoQuorum))) => {
                Error::Propose(error)
            }
            // The log says what stands at that height.
            Ok(Err(error @ ProposeError::Refused { .. })) => {
                self.in_doubt = None;
                self.executed = None;
                Error::Propose(error)
            }
            Ok(Err(error @ (ProposeError::Unknown(_) | ProposeError::Stopped(_)))) => {
                self.doubt(proposal);
                Error::Propose(error)
            }
            Err(source) => {
                self.doubt(proposal);
                Error::NoReply { who: "raft", source }
            }
        };
        self.end_in_failure(&failure, ctx);
    }

    /// Nobody knows whether it is committed: the same bytes again or none, never a sibling (A6).
    fn doubt(&mut self, proposal: &Proposal) {
        self.metrics.unknown.inc();
        self.in_doubt = (!planted(Mutation::RetryWithSibling)).then(|| proposal.clone());
    }

    /// The block is committed: it may be signed and executed now, and not before (P2, P5).
    fn committed(&mut self, block: &Arc<Block>, ctx: &mut Context<Self>) {
        self.in_doubt = None;
        self.last_block_at = Some(self.round_began);
        self.count(block);
        self.forget_recorded();
        self.committed_to = block.height();
        self.queue_for_signing();
        fail::fail_point!("executor.after_commit_before_execute");
        self.begin_signing(ctx);
        let began = Instant::now();
        let execute = ExecuteBlock { block: block.clone() };
        let executed = self.links.execute.send(execute).timeout(self.config.reply_within).into_actor(self);
        ctx.spawn(executed.map(move |reply, this, ctx| {
            this.metrics.execution.observe(began.elapsed().as_secs_f64());
            this.end_execution(reply, ctx);
        }));
    }

    /// Heights are signed without a gap, also when one of them came from somebody else. One that
    /// cannot be read now is read again at the next tick.
    fn queue_for_signing(&mut self) {
        while self.queued_to < self.committed_to {
            let height = self.queued_to.next();
            match self.reader.block(height) {
                Ok(Some(block)) => self.unsigned.push_back(block),
                Ok(None) => return warn!(height = height.0, "a committed block is not here: not signed yet"),
                Err(error) => return warn!(%error, height = height.0, "not signed yet"),
            }
            self.queued_to = height;
        }
    }

    fn end_execution(
        &mut self,
        reply: Result<Result<Executed, EngineError>, MailboxError>,
        ctx: &mut Context<Self>,
    ) {
        let _in_round = self.round.clone().entered();
        match reply {
            Ok(Ok(executed)) => {
                fail::fail_point!("executor.after_execute");
                info!(height = executed.height.0, root = %executed.root, "made a block");
                let ready = self.telling.executed(executed.height);
                self.begin_telling(ready, ctx);
                self.executed = Some((executed.height, executed.root));
                let production = Operation { operation: "block_production" };
                let took = self.round_began.elapsed().as_secs_f64();
                self.metrics.operations.get_or_create(&production).observe(took);
                if self.reader.pause().is_none() {
                    self.pause(None, true);
                }
                self.end_round(ctx);
            }
            // The block stands; the next round waits until the engine is level with it.
            Ok(Err(error)) => self.end_in_failure(&Error::Engine(error), ctx),
            Err(source) => self.end_in_failure(&Error::NoReply { who: "engine", source }, ctx),
        }
    }

    /// The next round begins in the next slot.
    fn end_round(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        self.slot = (self.slot + self.config.block_time).max(now);
        self.rest(self.slot - now, ctx);
    }

    fn end_in_failure(&mut self, error: &Error, ctx: &mut Context<Self>) {
        self.metrics.failures.inc();
        self.executed = None;
        let reason = error.to_string();
        match self.quiet.says(&reason) {
            true => warn!(%error, "made no block"),
            false => debug!(%error, "made no block"),
        }
        self.pause(Some(reason), true);
        self.rest(self.config.retry_after, ctx);
    }

    fn count(&mut self, block: &Block) {
        let gauge = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        self.quiet.is_over();
        self.metrics.blocks.inc();
        self.metrics.txs.inc_by(gauge(block.txs().len()));
        self.metrics.txs_per_block.observe(block.txs().len() as f64);
        self.metrics.last_txs.set(gauge(block.txs().len()));
        self.metrics.last_bytes.set(gauge(block.tx_bytes()));
        self.metrics.last_height.set(i64::try_from(block.height().0).unwrap_or(i64::MAX));
    }

    /// Lazy mode: the next round begins when there are transactions, or when it must.
    fn begin_waiting(&mut self, ctx: &mut Context<Self>) {
        self.resting = true;
        if !self.stopping.is_empty() {
            return self.close();
        }
        let idle = self.idle_for();
        let at_most = self.config.lazy_interval.saturating_sub(idle);
        let every = self.links.inbox.as_ref().map_or(Duration::MAX, |inbox| inbox.every);
        let at_most = at_most.min(every).max(Duration::from_millis(1));
        let available = self.links.await_txs.send(AwaitTxs).timeout(at_most);
        // A batch that stays empty although something waits must not make this spin.
        let not_before = self.config.block_time.saturating_sub(idle).max(Duration::from_millis(5));
        let waiting = async move {
            let _ = available.await;
            tokio::time::sleep(not_before).await;
        };
        ctx.spawn(waiting.into_actor(self).map(|(), this, ctx| this.begin_round(ctx)));
    }

    fn pause(&mut self, pause: Option<String>, due: bool) {
        if self.pause == pause && self.due == due {
            return;
        }
        match &pause {
            _ if self.pause == pause => {}
            Some(reason) => warn!(%reason, "production pauses"),
            None => info!("production goes on"),
        }
        self.pause.clone_from(&pause);
        self.due = due;
        self.links.production.do_send(ProductionChanged { term: self.grant.term, pause, due });
    }

    fn begin_signing(&mut self, ctx: &mut Context<Self>) {
        // The guard knows the last signed height only: after a crash no other may be signed and
        // not recorded.
        if self.signing || !self.unrecorded.is_empty() {
            return;
        }
        let Some(block) = self.unsigned.front().cloned() else { return };
        self.signing = true;
        let started = Instant::now();
        let sign = self.links.sign.send(SignHeader { grant: self.grant, block: block.clone() });
        let signed = sign.timeout(self.config.reply_within).into_actor(self);
        ctx.spawn(signed.map(move |reply, this, ctx| {
            this.metrics.signing.observe(started.elapsed().as_secs_f64());
            this.end_signing(block, reply, ctx);
        }));
    }

    fn end_signing(
        &mut self,
        block: Arc<Block>,
        reply: Result<Result<Bytes, SignError>, MailboxError>,
        ctx: &mut Context<Self>,
    ) {
        self.signing = false;
        match reply {
            Ok(Ok(signature)) => {
                debug!(height = block.height().0, "signed");
                self.unsigned.pop_front();
                self.unsigned_because = None;
                let (height, hash) = (block.height(), block.hash());
                let ready = self.telling.signed(block, signature.clone());
                self.begin_telling(ready, ctx);
                self.unrecorded.push_back(HeaderSignature { height, hash, signature });
                self.begin_recording(ctx);
            }
            // Another leader has signed since, and the guard follows the chain: nothing is left to do.
            Ok(Err(error @ (SignError::BelowGuard { .. } | SignError::Gap { .. })))
                if matches!(self.reader.signature(block.height()), Ok(Some(_))) =>
            {
                info!(%error, height = block.height().0, "signed by another leader");
                self.unsigned.pop_front();
                self.unsigned_because = None;
                self.begin_signing(ctx);
            }
            Ok(Err(error)) if is_for_a_person(&error) => {
                error!(%error, "the guard refuses");
                self.links.integrity_stop.do_send(IntegrityStop { reason: error.to_string() });
            }
            Ok(Err(error)) => self.end_unsigned(&block, &error.to_string(), ctx),
            Err(error) => self.end_unsigned(&block, &format!("no reply from the signer: {error}"), ctx),
        }
    }

    /// What is lost on the way to the network can be asked for there.
    fn begin_telling(&self, ready: Vec<(Arc<Block>, Bytes)>, ctx: &mut Context<Self>) {
        let Some(publish) = &self.links.publish else { return };
        for (block, signature) in ready {
            let (header, signer) = (block.header().clone(), self.signer.clone());
            let signed = Arc::new(SignedHeader { header, signature, signer });
            let told = publish.block.send(PublishBlock { grant: self.grant, signed, block });
            let told = told.timeout(self.config.reply_within).into_actor(self);
            ctx.spawn(told.map(|reply, _, _| end_telling(reply)));
        }
    }

    fn begin_telling_tail(&self, ctx: &mut Context<Self>) {
        let Some(publish) = &self.links.publish else { return };
        let told = publish.tail.send(PublishTail { grant: self.grant });
        let told = told.timeout(self.config.reply_within).into_actor(self);
        ctx.spawn(told.map(|reply, _, _| end_telling(reply)));
    }

    /// Tried again after a pause; until then nobody else tries.
    fn end_unsigned(&mut self, block: &Block, reason: &str, ctx: &mut Context<Self>) {
        warn!(reason, height = block.height().0, "not signed");
        self.unsigned_because = Some(reason.to_owned());
        self.signing = true;
        ctx.run_later(self.config.retry_after, |this, ctx| {
            this.signing = false;
            this.begin_signing(ctx);
        });
    }

    /// A block carries the oldest signature; what waits longer gets a record of its own.
    fn begin_recording(&mut self, ctx: &mut Context<Self>) {
        if self.closed {
            // Nothing is appended any more: whoever takes over has matched the last entry.
            return;
        }
        self.forget_recorded();
        self.queue_for_signing();
        self.begin_signing(ctx);
        let idle = self.last_block_at.is_none_or(|at| at.elapsed() >= self.config.record_signature_after);
        let due = !self.unsigned.is_empty() || idle;
        if self.recording || !due {
            return;
        }
        let Some(signature) = self.unrecorded.front().cloned() else { return };
        self.recording = true;
        let record = Record { grant: self.grant, command: Command::Signature(signature) };
        let recorded = self.links.record.send(record).timeout(self.config.reply_within).into_actor(self);
        ctx.spawn(recorded.map(|reply, this, ctx| {
            this.recording = false;
            match reply {
                Ok(Ok(())) => {
                    this.forget_recorded();
                    this.begin_signing(ctx);
                }
                Ok(Err(error)) => debug!(%error, "signature not recorded yet"),
                Err(error) => debug!(%error, "no reply from raft to a signature"),
            }
        }));
    }

    /// Drops what the log carries by now.
    fn forget_recorded(&mut self) {
        while let Some(first) = self.unrecorded.front() {
            if !matches!(self.reader.signature(first.height), Ok(Some(_))) {
                break;
            }
            self.unrecorded.pop_front();
        }
    }
}

impl Actor for Executor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let tick = (self.config.record_signature_after / 2).max(Duration::from_millis(1));
        ctx.run_interval(tick, Self::begin_recording);
        self.begin_settling(ctx);
    }
}

impl Handler<StopProducing> for Executor {
    type Result = ResponseFuture<()>;

    /// Between two blocks nothing is on its way. Close to the next block that one is still made, so
    /// that whoever takes over has most of a block time for it and misses no slot (L4).
    fn handle(&mut self, message: StopProducing, _: &mut Context<Self>) -> Self::Result {
        info!(reason = %message.reason, "the last block");
        let (stopped, done) = oneshot::channel();
        self.stopping.push(stopped);
        let until_next = self.slot.saturating_duration_since(Instant::now());
        let early = until_next * 2 >= self.config.block_time || self.pause.is_some() || !self.due;
        if self.closed || (self.resting && self.in_doubt.is_none() && early) {
            self.close();
        }
        Box::pin(async move {
            // The executor answers, or is dropped; there is nothing more to wait for.
            let _ = done.await;
        })
    }
}

fn end_telling(reply: Result<Result<(), NotPublished>, MailboxError>) {
    match reply {
        Ok(Ok(())) => {}
        Ok(Err(error @ NotPublished::StaleGrant { .. })) => debug!(%error, "not told"),
        Ok(Err(error)) => warn!(%error, "not told"),
        Err(error) => warn!(%error, "the network does not answer"),
    }
}

/// A guard that holds another header or another chain: no retry can help.
const fn is_for_a_person(error: &SignError) -> bool {
    match error {
        SignError::DoubleSign { .. }
        | SignError::BelowGuard { .. }
        | SignError::Gap { .. }
        | SignError::Contradiction(_) => true,
        SignError::Refused(_)
        | SignError::StaleGrant { .. }
        | SignError::Guard(_)
        | SignError::Invalid(_)
        | SignError::NotFollowed { .. }
        | SignError::Key(_) => false,
    }
}
