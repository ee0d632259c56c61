//! Following a chain from outside: pieces of blocks from DA and peers come in, are put in order, and
//! enter the store one block after the other, each checked against the chain so far and against the
//! root that this node's own engine computed.
//!
//! Only a node without Raft does this: there the syncer holds the `Writer`. What is not in the
//! store yet is in memory only; the cursor on DA, written with the blocks, says from where it is
//! found again.

pub mod forks;
mod headers;
mod judging;
mod metrics;

use std::sync::Arc;
use std::time::Duration;

use actix::{
    ActorFutureExt, AsyncContext, Context, Handler, MessageResult, Recipient, ResponseFuture, WrapFuture,
};
use baton_messages::chain::{Block, Data, SignedHeader};
use baton_messages::command::{BlockEntry, Command, ForcedPosition, HeaderSignature, Lane, Verdict};
use baton_messages::follow::{DaHint, DaRead, ForkFound, GetSyncView, Offer, Origin, SyncView, Taken};
use baton_messages::mutation::{Mutation, planted};
use baton_messages::p2p::{Offence, PeerId, ReportPeer};
use baton_messages::raft::Applied;
use baton_messages::types::{DaHeight, Height, StateRoot, Term, Timestamp, Tip};
use baton_messages::wire::validate::{Invalid, MAX_DRIFT, NotNext};
use baton_storage::{FollowError, FollowRecord, Store, StoreError, Writer};
use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::candidates::{Candidates, Limits, Ready};
use super::catch_up::{CatchUp, Change, Glance};
use super::inclusion::Inclusion;
use super::{Error, Syncer, forced, rules};
use crate::world::World;

pub use metrics::{Metrics, Refused, Source};

/// How a chain is followed.
#[derive(Clone, Debug)]
pub struct Config {
    /// How much may wait.
    pub limits: Limits,
    /// Heights in the chain that were seen on DA and wait for those below them; a bound.
    pub most_unincluded: usize,
    /// Progress of a catch-up is logged that often.
    pub log_every: Duration,
    /// The store is opened again so long after it failed.
    pub reopen_after: Duration,
    /// Headers are kept and no data: a light node.
    pub headers_only: bool,
}

/// What is said of data of the next height that do not follow those of the tip.
const UNLINKED: &str = "the data do not name those of the last block";

impl Default for Config {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            most_unincluded: 200_000,
            log_every: Duration::from_secs(5),
            reopen_after: Duration::from_millis(500),
            headers_only: false,
        }
    }
}

/// What following says, and to whom.
#[derive(Clone, Debug)]
pub struct Links {
    /// Hear that a block entered the store.
    pub applied: Vec<Recipient<Applied>>,
    /// Hear that the proposer signed two chains.
    pub forks: Vec<Recipient<ForkFound>>,
    /// Hears where on DA blocks may be, as peers say; `None` where DA is not followed.
    pub hint: Option<Recipient<DaHint>>,
    /// Hears who gave what was of no use; `None` where only DA is followed.
    pub report: Option<Recipient<ReportPeer>>,
}

/// A following node's part of the syncer.
pub struct Following {
    config: Config,
    links: Links,
    metrics: Metrics,
    world: World,
    store: Store,
    writer: Writer,
    record: FollowRecord,
    candidates: Candidates,
    inclusion: Inclusion,
    catch_up: CatchUp,
    read: Option<DaRead>,
    highest: Height,
    /// The highest header that is right but for its time, which has not come by the clock here.
    future: Height,
    /// Nothing from this height on may become final.
    forked_at: Option<Height>,
    /// The hash of the data of the tip.
    last_data: Option<(Height, Bytes)>,
    /// The block after the one that is being executed, as far as it can be checked before that.
    prepared: Option<Prepared>,
    /// Read DA again from here: what was found above is lost, or had no room, or came too early.
    restart: Option<DaHeight>,
    /// Offers that wait until there is room.
    waiting: Vec<Waiting>,
    /// The last block in the store that others have heard of.
    told: Height,
    began: Instant,
    logged: Instant,
    reopening: bool,
    /// Whether everything forced is in the chain; `None` where nobody asks.
    pub(super) check: Option<forced::Check>,
}

/// An offer that waits until there is room for more.
struct Waiting {
    /// It comes from reading DA in order: only that can go back.
    reads: bool,
    told: oneshot::Sender<Option<DaHeight>>,
}

impl std::fmt::Debug for Following {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Following").field("record", &self.record).finish_non_exhaustive()
    }
}

impl Following {
    /// Makes a store one of a following node, or goes on in it.
    ///
    /// # Errors
    ///
    /// `FollowError` when the store belongs to a node of another kind, or fails.
    pub async fn begin(
        config: Config,
        links: Links,
        metrics: Metrics,
        world: World,
        store: Store,
    ) -> Result<Self, FollowError> {
        let writer = store.writer(Box::new(|_| {}));
        let reader = store.reader();
        let from = reader.genesis().da_start_height;
        let record = match config.headers_only {
            true => writer.begin_follow_headers(from).await?,
            false => writer.begin_follow(from).await?,
        };
        let forked_at = reader.evidence().iter().map(|evidence| evidence.height).min();
        let now = Instant::now();
        metrics.forks.set(i64::try_from(reader.evidence().len()).unwrap_or(i64::MAX));
        metrics.seconds_left.set(-1);
        Ok(Self {
            candidates: Candidates::new(config.limits),
            inclusion: Inclusion::new(config.most_unincluded),
            config,
            links,
            metrics,
            world,
            store,
            writer,
            record,
            catch_up: CatchUp::default(),
            read: None,
            highest: reader.tip().height,
            future: Height(0),
            forked_at,
            last_data: None,
            prepared: None,
            restart: None,
            waiting: vec![],
            told: reader.tip().height,
            began: now,
            logged: now,
            reopening: false,
            check: None,
        })
    }

    /// Checks forced inclusion, and takes no block of a proposer who was found to leave something
    /// out, also in an earlier life.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn checking(mut self, config: forced::Config, links: forced::Links) -> Result<Self, StoreError> {
        let reader = self.store.reader();
        if let Some(left_out) = reader.left_out() {
            self.count_left_out(left_out.count);
        }
        self.check = Some(forced::Check::new(config, links, &reader)?);
        Ok(self)
    }

    pub(super) fn count_left_out(&self, txs: u64) {
        self.metrics.left_out.inc_by(txs);
    }

    pub(super) fn writer(&self) -> Writer {
        self.writer.clone()
    }

    pub(super) fn wall(&self) -> Timestamp {
        self.world.wall()
    }

    /// From where DA is read.
    #[must_use]
    pub const fn cursor(&self) -> DaHeight {
        self.record.cursor
    }

    /// Where on DA the proposer began to sign envelopes, when that was seen.
    #[must_use]
    pub const fn strict_from(&self) -> Option<DaHeight> {
        self.record.strict_from
    }

    /// Who hears where on DA blocks may be.
    pub(super) const fn hint(&self) -> Option<&Recipient<DaHint>> {
        self.links.hint.as_ref()
    }

    fn tip(&self) -> Tip {
        self.store.reader().tip()
    }

    /// The hash of the data of the tip, which the data of the next block name.
    fn last_data_hash(&mut self) -> Result<Bytes, StoreError> {
        let tip = self.tip().height;
        if let Some((height, hash)) = &self.last_data
            && *height == tip
        {
            return Ok(hash.clone());
        }
        let block = self.store.reader().block(tip)?;
        let hash = block.map(|block| block.data().hash().to_bytes()).unwrap_or_default();
        self.last_data = Some((tip, hash.clone()));
        Ok(hash)
    }

    /// What DA is known to hold, up to the tip and below a fork.
    fn inclusions(&mut self, tip: Height) -> Vec<Command> {
        let up_to = self.forked_at.map_or(tip, |fork| tip.min(fork.previous()));
        let progress = self.store.reader().da_progress();
        let up_to = match &mut self.check {
            Some(check) => check.up_to(&self.inclusion, progress.included, up_to),
            None => up_to,
        };
        self.inclusion.take(&progress, up_to)
    }

    /// The record as it is right now.
    fn note(&mut self) -> FollowRecord {
        if let Some(read) = self.read {
            let unrecorded = self.candidates.lowest_da().into_iter().chain(self.inclusion.lowest_da());
            let unrecorded = unrecorded.chain(self.restart).min();
            let unrecorded = unrecorded.filter(|_| !planted(Mutation::CursorAhead));
            self.record.cursor = unrecorded.map_or(read.next, |lowest| lowest.min(read.next));
            self.record.strict_from = self.record.strict_from.into_iter().chain(read.strict_from).min();
        }
        self.metrics.cursor.set(i64::try_from(self.record.cursor.0).unwrap_or(i64::MAX));
        self.record.clone()
    }

    /// Writes what DA is known to hold, and how far it was read, when either changed.
    fn record_progress(&mut self) -> Result<(), StoreError> {
        let commands = self.inclusions(self.tip().height);
        let before = self.record.clone();
        let record = self.note();
        if commands.is_empty() && record == before {
            return Ok(());
        }
        self.writer.follow(&commands, &record).map(|_| ())
    }

    /// The block after the tip, when both halves are here.
    fn next(&mut self) -> Result<Option<Ready>, StoreError> {
        let next = self.next_height();
        if !self.candidates.settle(next) {
            return Ok(None);
        }
        let last = self.last_data_hash()?;
        Ok(self.candidates.ready(next, &last))
    }

    /// The height below the next one: of the tip, or of what comes before the first block.
    fn floor(&self) -> Height {
        self.next_height().previous()
    }

    fn next_height(&self) -> Height {
        let reader = self.store.reader();
        match reader.tip().height {
            Height(0) => reader.initial_height(),
            tip => tip.next(),
        }
    }

    /// Lets the next block into the store, if it is here and right. `root` is the engine's after
    /// the tip.
    fn enter(&mut self, root: &StateRoot) -> Result<Option<Tip>, Stop> {
        let Some(ready) = self.next()? else { return Ok(None) };
        let header = &ready.signed.header;
        let height = header.height;
        let tip = self.tip();
        match rules::next(self.store.reader().genesis(), &tip, root, header) {
            Ok(()) => {}
            Err(not_next @ NotNext::Parent { .. }) => {
                let (second, from) = (ready.signed, ready.from);
                return Err(Stop::Parent { second, from, tip, reason: not_next.to_string() });
            }
            Err(NotNext::StateRoot { .. }) => {
                let chain = StateRoot(header.app_hash.clone());
                return Err(Stop::Root { height: tip.height, own: root.clone(), chain });
            }
            Err(not_next) => {
                warn!(%not_next, height = height.0, from = %ready.from, "a header is not the next one: dropped");
                self.metrics.refuse("invalid");
                self.candidates.reject(height);
                return Ok(None);
            }
        }
        let prepared = self.prepared.take().filter(|prepared| prepared.is_of(&ready));
        let prepared = prepared.map_or_else(|| Prepared::of(&ready), Ok);
        let Prepared { block, last_data, .. } = match prepared {
            Ok(prepared) => prepared,
            Err(wrong) => {
                self.reject(&ready, &wrong);
                return Ok(None);
            }
        };
        let empty = ready.data.txs.is_empty();
        let signature =
            HeaderSignature { height, hash: ready.hash, signature: ready.signed.signature.clone() };
        let entry =
            BlockEntry { term: Term(0), block, tail: Some(signature), forced: ForcedPosition::default() };
        if self.record.signer.pub_key.is_empty() {
            self.record.signer = ready.signed.signer.clone();
        }
        let places = [(Lane::Header, ready.header_da), (Lane::Data, ready.data_da)];
        for (lane, at) in places {
            if let Some(at) = at.filter(|_| lane == Lane::Header || !empty) {
                self.inclusion.saw(lane, height, at, empty);
            }
        }
        self.candidates.passed(height);
        let mut commands = vec![Command::Block(entry)];
        commands.extend(self.inclusions(height));
        let record = self.note();
        let verdicts = self.writer.follow(&commands, &record)?;
        match verdicts.first() {
            Some(Verdict::Committed(tip)) => {
                self.drop_unlinked(height.next(), &last_data);
                self.last_data = Some((height, last_data));
                let source = if ready.from.da().is_some() { "da" } else { "p2p" };
                self.metrics.blocks.get_or_create(&Source { source }).inc();
                // How a catch-up goes is said as a whole.
                match self.catch_up.is_on() {
                    true => debug!(height = height.0, hash = %ready.hash, from = %ready.from, "followed"),
                    false => {
                        info!(height = height.0, hash = %ready.hash, txs = ready.data.txs.len(), from = %ready.from, "followed");
                    }
                }
                Ok(Some(*tip))
            }
            Some(verdict) => Err(Stop::Store(StoreError::Corrupt(format!("block {height} was {verdict}")))),
            None => Err(Stop::Store(StoreError::Corrupt("no verdict about a block".to_owned()))),
        }
    }

    /// The data do not belong to their header.
    fn reject(&mut self, ready: &Ready, wrong: &Invalid) {
        let height = ready.signed.header.height;
        warn!(%wrong, height = height.0, from = %ready.data_from, "data do not belong to their header: dropped");
        self.metrics.refuse("foreign");
        match ready.data.txs.is_empty() {
            // The data were made from the header: that is wrong then.
            true => self.candidates.reject(height),
            false => self.candidates.reject_data(height, &ready.data_from),
        }
    }

    /// Looks at the next block while the engine executes the one before.
    fn prepare(&mut self) {
        if let Ok(Some(ready)) = self.next() {
            // What is wrong with it is said when its turn comes.
            self.prepared = Prepared::of(&ready).ok();
        }
    }

    /// Whether others hear of a block: of every one, or of every so many while there are so many, and of
    /// the last that is known.
    pub(super) const fn tells_of(&self, height: Height) -> bool {
        !self.catch_up.is_on() || height.0.is_multiple_of(TOLD_TOGETHER) || height.0 >= self.highest.0
    }

    /// A block, or a header, entered the store.
    fn entered(&mut self, tip: Tip, tell: bool) {
        if self.catch_up.is_on() && tip.height >= self.highest {
            self.look_at_catch_up(Glance::Meanwhile);
        }
        if tell {
            self.tell(tip);
        }
    }

    fn tell(&mut self, tip: Tip) {
        self.told = tip.height;
        for link in &self.links.applied {
            link.do_send(Applied { tip });
        }
    }

    /// Nothing more comes that others would hear of together with the last blocks.
    fn tell_the_rest(&mut self) -> bool {
        let level = !self.catch_up.is_on();
        let tip = self.tip();
        if level && tip.height > self.told {
            self.tell(tip);
        }
        level
    }

    /// The next block's data can be told apart from what peers made up, now that the tip is known.
    fn drop_unlinked(&mut self, height: Height, last_data: &Bytes) {
        for origin in self.candidates.drop_unlinked(height, last_data) {
            self.metrics.refuse("foreign");
            if let (Origin::Peer(peer), Some(report)) = (origin, &self.links.report) {
                // It may be another's that an honest node has kept for true.
                let (peer, offence, reason) = (PeerId(peer), Offence::Useless, UNLINKED.to_owned());
                report.do_send(ReportPeer { peer, offence, reason });
            }
        }
    }

    fn show(&self) {
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.metrics.pending.set(whole(self.candidates.len() as u64));
        self.metrics.pending_bytes.set(whole(self.candidates.bytes() as u64));
        self.metrics.highest.set(whole(self.highest.0));
        let view = self.catch_up.view();
        self.metrics.blocks_left.set(whole(view.map_or(0, |view| view.blocks_left)));
        self.metrics.da_left.set(whole(view.map_or(0, |view| view.da_left)));
        let seconds = view.map_or(Some(0), |view| view.seconds_left);
        self.metrics.seconds_left.set(seconds.map_or(-1, whole));
    }

    /// Looks how catching up goes, and says so.
    fn look_at_catch_up(&mut self, glance: Glance) {
        let now = Instant::now();
        let tip = self.tip().height;
        let since = now.duration_since(self.began);
        match self.catch_up.look(glance, since, (tip, self.highest), self.read) {
            Change::None => {}
            Change::Began => {
                self.logged = now;
                let view = self.catch_up.view().unwrap_or_default();
                info!(tip = tip.0, blocks_left = view.blocks_left, da_left = view.da_left, "catching up");
            }
            Change::Done(blocks, spent) => {
                let blocks_per_second = Change::rate(blocks, spent);
                info!(tip = tip.0, blocks, ?spent, blocks_per_second, "caught up");
            }
        }
        if let Some(view) = self.catch_up.view()
            && now.duration_since(self.logged) >= self.config.log_every
        {
            self.logged = now;
            info!(
                tip = tip.0,
                blocks_left = view.blocks_left,
                da_left = view.da_left,
                blocks_per_second = view.milliblocks_per_second / 1000,
                seconds_left = view.seconds_left,
                "catching up"
            );
        }
        self.show();
    }

    /// Everything that waits is forgotten, and read again.
    fn start_over(&mut self) {
        self.candidates = Candidates::new(self.config.limits);
        self.inclusion = Inclusion::new(self.config.most_unincluded);
        self.last_data = None;
        self.prepared = None;
        self.record = self.store.reader().follow().unwrap_or_else(|| self.record.clone());
        self.restart = Some(self.record.cursor);
        self.read = None;
        if let Some(check) = &mut self.check
            && let Err(error) = check.start_over(&self.store.reader())
        {
            warn!(%error, "forced inclusion is judged on from where it was");
        }
    }

    /// Looks whether something must be read again. All that lies above comes again with it.
    ///
    /// Where the next block came before its time, its time is waited for; but not while halves of blocks
    /// that are in the chain lie further on: those would not become final meanwhile (hazard H22).
    fn look_back(&mut self) {
        let (tip, now) = (self.floor(), self.world.wall());
        let reader = self.store.reader();
        let included = reader.da_progress().included.max(reader.initial_height().previous());
        let nothing_above = self.is_headers_only() || included >= tip;
        let early = self.candidates.reread_early(tip, nothing_above, now.plus(MAX_DRIFT));
        let wanted = self.candidates.reread(tip).into_iter().chain(early).chain(self.inclusion.reread());
        // Hints show what lies ahead: that is read when its turn comes, and nothing before it is passed over.
        let behind = |from: &DaHeight| self.read.is_none_or(|read| *from < read.next);
        self.restart = wanted.filter(behind).chain(self.restart).min();
        // What was read above is forgotten until it comes again: a crash meanwhile must not pass over it.
        if let (Some(read), Some(from)) = (&mut self.read, self.restart) {
            read.next = read.next.min(from);
        }
    }

    /// DA was read up to here. Who is to read again from further down is told so until it has.
    fn has_read(&mut self, read: DaRead) {
        self.restart.take_if(|from| read.next.0 <= from.0.saturating_add(1));
        if self.restart.is_none() {
            self.read = Some(read);
        }
    }

    fn release(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let (reading, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|waiting| waiting.reads);
        for waiting in others {
            // Who offered may have given up.
            let _ = waiting.told.send(None);
        }
        if !reading.is_empty() {
            self.look_back();
        }
        for waiting in reading {
            // Also to those who do not listen any more: nobody can tell.
            let _ = waiting.told.send(self.restart);
        }
    }
}

/// A block whose data belong to its header; whether it is the next one is not known yet.
struct Prepared {
    signed: Arc<SignedHeader>,
    data: Arc<Data>,
    block: Arc<Block>,
    last_data: Bytes,
}

impl Prepared {
    fn of(ready: &Ready) -> Result<Self, Invalid> {
        let (signed, data) = (ready.signed.clone(), ready.data.clone());
        signed.header.validate_data(&data)?;
        let block = Block::shared(signed.header.clone(), Data::clone(&data));
        let last_data = data.hash().to_bytes();
        Ok(Self { signed, data, block, last_data })
    }

    fn is_of(&self, ready: &Ready) -> bool {
        // Data of an empty block are made anew each time.
        Arc::ptr_eq(&self.signed, &ready.signed) && self.data == ready.data
    }
}

/// Why no block enters any more.
#[derive(Debug)]
pub(super) enum Stop {
    /// The next header stands on another block than the tip.
    Parent { second: Arc<SignedHeader>, from: Origin, tip: Tip, reason: String },
    /// Its state root is not this node's.
    Root { height: Height, own: StateRoot, chain: StateRoot },
    /// The store failed.
    Store(StoreError),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Others hear of so many blocks together during a catch-up: each word wakes another thread.
const TOLD_TOGETHER: u64 = 32;
/// So many included blocks are made final together while there are blocks to execute.
const FINAL_TOGETHER: u64 = 64;

impl Syncer {
    /// This syncer follows a chain from outside.
    #[must_use]
    pub fn following(mut self, following: Following) -> Self {
        self.follow = Some(following);
        // What is in the store is all there is.
        self.tip_is_known = true;
        self
    }

    /// Lets the next block into the store when the engine stands at the tip. `false`: that went
    /// wrong, and nothing more is to be done now.
    pub(super) fn enter_next(&mut self, ctx: &mut Context<Self>) -> bool {
        let Some((at, root)) = self.position.clone().filter(|_| self.follow.is_some()) else { return true };
        let included = self.reader.da_progress().included.min(at);
        let (tip, final_height) = (self.reader.tip().height, self.final_height);
        let Some(follow) = &mut self.follow else { return true };
        let finality_is_due = included.0.saturating_sub(final_height.0) >= FINAL_TOGETHER;
        if at < tip || finality_is_due || self.look || follow.reopening {
            return !follow.reopening;
        }
        if follow.check.as_ref().is_some_and(forced::Check::is_halted) {
            return true;
        }
        match follow.enter(&root) {
            Ok(Some(tip)) => {
                follow.entered(tip, follow.tells_of(tip.height));
                true
            }
            Ok(None) => true,
            Err(stop) => {
                self.end_entering(stop, ctx);
                false
            }
        }
    }

    /// Nothing enters any more, until whatever it is was mended.
    fn end_entering(&mut self, stop: Stop, ctx: &mut Context<Self>) {
        match stop {
            Stop::Root { height, own, chain } => {
                self.end_in_trouble(&Error::OtherRoot { height, own, chain });
            }
            Stop::Parent { second, from, tip, reason } => {
                self.end_at_fork(&second, &from, tip, reason, ctx);
            }
            Stop::Store(error) => {
                self.end_in_trouble(&Error::Store(error));
                self.begin_reopen(ctx);
            }
        }
    }

    /// Opens the store again, and goes on from what survived.
    pub(super) fn begin_reopen(&mut self, ctx: &mut Context<Self>) {
        let Some(follow) = &mut self.follow else { return };
        if std::mem::replace(&mut follow.reopening, true) {
            return;
        }
        let (store, pause) = (follow.store.clone(), follow.config.reopen_after);
        let reopened = async move {
            tokio::time::sleep(pause).await;
            store.reopen().await
        };
        ctx.spawn(reopened.into_actor(self).map(|reopened, this, ctx| {
            let Some(follow) = &mut this.follow else { return };
            follow.reopening = false;
            match reopened {
                Ok(()) => {
                    info!("the store works again");
                    follow.start_over();
                    this.position = None;
                    this.begin_step(ctx);
                }
                Err(error) => {
                    warn!(%error, "the store does not open");
                    this.begin_reopen(ctx);
                }
            }
        }));
    }

    /// Something may have become possible: blocks, room, progress to write.
    pub(super) fn go_on(&mut self, ctx: &mut Context<Self>) {
        if !self.in_trouble {
            self.begin_step(ctx);
        }
        self.begin_judging(ctx);
        self.make_room();
    }

    /// The engine is busy: meanwhile the next block is looked at.
    pub(super) fn begin_preparing(&mut self, ctx: &mut Context<Self>) {
        if self.follow.is_none() {
            return;
        }
        // Behind the question to the engine, which is on its way by then.
        let asked = std::future::ready(()).into_actor(self);
        ctx.spawn(asked.map(|(), this, _| this.follow.as_mut().map_or((), Following::prepare)));
    }

    /// Lets offers go on when there is room, or nothing to do that would make room.
    pub(super) fn make_room(&mut self) {
        let busy = self.busy && !self.in_trouble;
        let Some(follow) = &mut self.follow else { return };
        if !busy || !follow.candidates.is_full() {
            follow.release();
        }
    }

    /// Once a second: progress is shown, and written where no block carries it.
    pub(super) fn tend(&mut self, ctx: &mut Context<Self>) {
        let Some(follow) = &mut self.follow else { return };
        follow.look_at_catch_up(Glance::Now);
        if follow.tell_the_rest() {
            self.tell_the_rest();
        }
        self.write_progress(ctx);
        self.go_on(ctx);
    }

    pub(super) fn write_progress(&mut self, ctx: &mut Context<Self>) {
        let Some(follow) = &mut self.follow else { return };
        if follow.reopening {
            return;
        }
        if let Err(error) = follow.record_progress() {
            self.end_in_trouble(&Error::Store(error));
            self.begin_reopen(ctx);
        }
    }
}

impl Handler<Offer> for Syncer {
    type Result = ResponseFuture<Taken>;

    fn handle(&mut self, offer: Offer, ctx: &mut Context<Self>) -> Self::Result {
        let Offer { candidates, read } = offer;
        let judged = self.judge(candidates, ctx);
        let reads = read.is_some();
        if let (Some(follow), Some(read)) = (&mut self.follow, read) {
            follow.has_read(read);
        }
        if let Some(follow) = &mut self.follow {
            // Before anything of it gets in: it may all be in before the next look.
            follow.look_at_catch_up(Glance::Meanwhile);
        }
        self.write_progress(ctx);
        let (room, told) = oneshot::channel();
        let highest = self.follow.as_ref().map_or(Height(0), |follow| follow.highest);
        if let Some(follow) = &mut self.follow {
            follow.waiting.push(Waiting { reads, told: room });
        }
        self.go_on(ctx);
        Box::pin(async move {
            // The end of the syncer is no reason to read again.
            let reread = told.await.unwrap_or_default();
            Taken { judged, reread, highest }
        })
    }
}

impl Handler<GetSyncView> for Syncer {
    type Result = MessageResult<GetSyncView>;

    fn handle(&mut self, _: GetSyncView, _: &mut Context<Self>) -> Self::Result {
        let Some(follow) = &self.follow else { return MessageResult(SyncView::default()) };
        MessageResult(SyncView {
            highest: follow.highest.max(follow.future).max(self.reader.tip().height),
            pending: follow.candidates.len(),
            pending_bytes: follow.candidates.bytes(),
            read: follow.read,
            catch_up: follow.catch_up.view(),
            evidence: self.reader.evidence().len(),
        })
    }
}
