//! Following a chain from outside: pieces of blocks from DA and peers come in, are put in order, and
//! enter the store one block after the other, each checked against the chain so far and against the
//! root that this node's own engine computed.
//!
//! Only a node without Raft does this: there the syncer holds the `Writer`. What is not in the
//! store yet is in memory only; the cursor on DA, written with the blocks, says from where it is
//! found again.

use std::sync::Arc;
use std::time::Duration;

use actix::{
    ActorFutureExt, AsyncContext, Context, Handler, MessageResult, Recipient, ResponseFuture, WrapFuture,
};
use baton_messages::chain::{Block, Data, SignedHeader};
use baton_messages::command::{BlockEntry, Command, ForcedPosition, HeaderSignature, Lane, Verdict};
use baton_messages::follow::{
    Candidate, DaHint, DaRead, ForkFound, GetSyncView, Judged, Offer, Origin, Piece, SyncView, Taken,
};
use baton_messages::mutation::{Mutation, planted};
use baton_messages::p2p::{Offence, PeerId, ReportPeer};
use baton_messages::raft::Applied;
use baton_messages::types::{DaHeight, Height, StateRoot, Term, Timestamp, Tip};
use baton_messages::wire::validate::{Invalid, NotNext};
use baton_storage::{Evidence, FollowError, FollowRecord, Store, StoreError, Writer};
use bytes::Bytes;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::candidates::{Candidates, Kept, Limits, Ready, is_empty, links};
use super::catch_up::{CatchUp, Change, Glance};
use super::inclusion::Inclusion;
use super::{Error, Syncer, forced, rules};
use crate::world::World;

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
}

/// What is said of data that are not those of their height.
const FOREIGN: &str = "the header of its height commits to other data";
/// What is said of data of the next height that do not follow those of the tip.
const UNLINKED: &str = "the data do not name those of the last block";

impl Default for Config {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            most_unincluded: 200_000,
            log_every: Duration::from_secs(5),
            reopen_after: Duration::from_millis(500),
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

/// Where a block came from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Source {
    /// `da` or `p2p`.
    pub source: &'static str,
}

/// Why a piece was not kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Refused {
    /// `invalid`, `no_room`, `future`, `foreign`.
    pub reason: &'static str,
}

/// What is counted.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Blocks that entered the store, by where their header came from.
    pub blocks: Family<Source, Counter>,
    /// Pieces that were not kept.
    pub refused: Family<Refused, Counter>,
    /// Pieces that wait.
    pub pending: Gauge,
    /// Bytes of the data that wait.
    pub pending_bytes: Gauge,
    /// The highest header of the proposer that was seen.
    pub highest: Gauge,
    /// From here DA would be read after a restart.
    pub cursor: Gauge,
    /// Blocks that are known to be missing.
    pub blocks_left: Gauge,
    /// DA blocks that are not read.
    pub da_left: Gauge,
    /// Seconds until the node is level, at the rate of late; -1 when that is not known.
    pub seconds_left: Gauge,
    /// Pairs of headers that cannot both be in one chain. Anything but zero needs a person.
    pub forks: Gauge,
    /// Transactions that the proposer left out though they were forced. Anything but zero needs a
    /// person.
    pub left_out: Counter,
}

impl Metrics {
    /// Makes the metrics visible.
    pub fn register(&self, registry: &mut Registry) {
        registry.sub_registry_with_prefix("sequencer").register(
            "forced_inclusion_txs_malicious",
            "Forced transactions that the proposer left out",
            self.left_out.clone(),
        );
        let registry = registry.sub_registry_with_prefix("sync");
        registry.register("blocks_synchronized", "Blocks that entered the store", self.blocks.clone());
        registry.register("refused", "Headers and data that were not kept", self.refused.clone());
        registry.register("pending", "Headers and data that wait for their turn", self.pending.clone());
        registry.register("pending_bytes", "Bytes of the data that wait", self.pending_bytes.clone());
        registry.register("highest", "Highest header of the proposer that was seen", self.highest.clone());
        registry.register("da_cursor", "Where reading DA begins after a restart", self.cursor.clone());
        registry.register("blocks_left", "Blocks known to be missing", self.blocks_left.clone());
        registry.register("da_left", "DA blocks not read yet", self.da_left.clone());
        registry.register(
            "seconds_left",
            "Estimated time until level; -1: not known",
            self.seconds_left.clone(),
        );
        registry.register("forks", "Pairs of headers that cannot both be in one chain", self.forks.clone());
    }

    fn refuse(&self, reason: &'static str) {
        self.refused.get_or_create(&Refused { reason }).inc();
    }
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
    /// Nothing from this height on may become final.
    forked_at: Option<Height>,
    /// The hash of the data of the tip.
    last_data: Option<(Height, Bytes)>,
    /// The block after the one that is being executed, as far as it can be checked before that.
    prepared: Option<Prepared>,
    /// Read DA again from here: what was found above is lost.
    restart: Option<DaHeight>,
    /// Offers that wait until there is room.
    waiting: Vec<Waiting>,
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
    /// `FollowError` when the store belongs to a node that produces, or fails.
    pub async fn begin(
        config: Config,
        links: Links,
        metrics: Metrics,
        world: World,
        store: Store,
    ) -> Result<Self, FollowError> {
        let writer = store.writer(Box::new(|_| {}));
        let reader = store.reader();
        let record = writer.begin_follow(reader.genesis().da_start_height).await?;
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
            forked_at,
            last_data: None,
            prepared: None,
            restart: None,
            waiting: vec![],
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

    /// Judges one piece.
    fn judge(
        &mut self,
        candidate: Candidate,
        now: Timestamp,
    ) -> Result<(Judged, Option<Evidence>), StoreError> {
        let Candidate { piece, origin } = candidate;
        match piece {
            Piece::Header(signed) => self.judge_header(signed, false, origin, now),
            Piece::Checked(signed) => self.judge_header(signed, true, origin, now),
            Piece::Data(data) => Ok((self.judge_data(data, origin, now)?, None)),
        }
    }

    fn judge_header(
        &mut self,
        signed: Arc<SignedHeader>,
        checked: bool,
        origin: Origin,
        now: Timestamp,
    ) -> Result<(Judged, Option<Evidence>), StoreError> {
        let (height, hash) = (signed.header.height, signed.header.hash());
        let reader = self.store.reader();
        let tip = reader.tip().height;
        let standing = if height <= tip { reader.hash(height)? } else { None };
        let known = standing == Some(hash) || self.candidates.knows(height, hash);
        // Anybody may write a true header with a signature that is none: that is not on DA.
        if known
            && origin.da().is_some()
            && let Err(wrong) = signed.verify_signer()
        {
            self.metrics.refuse("invalid");
            return Ok((Judged::Invalid(wrong.to_string()), None));
        }
        if standing == Some(hash) {
            if let Some(da) = origin.da() {
                self.included(Lane::Header, height, da, is_empty(&signed.header.data_hash));
            }
            return Ok((Judged::Known, None));
        }
        if !known
            && let Err(wrong) = match checked {
                true => rules::of_chain(reader.genesis(), &signed.header),
                false => rules::header(reader.genesis(), &signed, now),
            }
        {
            if wrong.may_pass() {
                self.metrics.refuse("future");
                self.candidates.drop_it(height, &origin);
                return Ok((Judged::Ignored, None));
            }
            self.metrics.refuse("invalid");
            return Ok((Judged::Invalid(wrong.to_string()), None));
        }
        let evidence = |first: SignedHeader, first_from: String| Evidence {
            height,
            first,
            first_from,
            second: SignedHeader::clone(&signed),
            second_from: origin.to_string(),
            found: now,
        };
        if standing.is_some() {
            let first = reader.signed_header(height, &self.record.signer)?;
            let first =
                first.ok_or_else(|| StoreError::Corrupt(format!("block {height} has no signature")))?;
            return Ok((Judged::Fork, Some(evidence(first, "the chain here".to_owned()))));
        }
        self.highest = self.highest.max(height);
        Ok(match self.candidates.header(self.floor(), signed.clone(), hash, origin.clone()) {
            Kept::New => (Judged::New, None),
            Kept::Known => (Judged::Known, None),
            Kept::Dropped | Kept::Foreign => {
                self.metrics.refuse("no_room");
                (Judged::Ignored, None)
            }
            Kept::Fork(first, from) => {
                (Judged::Fork, Some(evidence(SignedHeader::clone(&first), from.to_string())))
            }
        })
    }

    fn judge_data(&mut self, data: Arc<Data>, origin: Origin, now: Timestamp) -> Result<Judged, StoreError> {
        let reader = self.store.reader();
        let height = match rules::data(reader.genesis(), &data, now) {
            Ok(height) => height,
            Err(wrong) if wrong.may_pass() => {
                self.metrics.refuse("future");
                if let Some(metadata) = &data.metadata {
                    self.candidates.drop_it(metadata.height, &origin);
                }
                return Ok(Judged::Ignored);
            }
            Err(wrong) => {
                self.metrics.refuse("invalid");
                return Ok(Judged::Invalid(wrong.to_string()));
            }
        };
        let tip = reader.tip().height;
        let commitment = data.commitment();
        if height <= tip {
            let header = reader.header(height)?;
            let ours = header.is_some_and(|header| header.data_hash == commitment.0[..]);
            return Ok(match (ours, origin) {
                (true, Origin::Da(da)) => {
                    self.included(Lane::Data, height, da, false);
                    Judged::Known
                }
                (true, Origin::Peer(_)) => Judged::Known,
                (false, origin) => {
                    self.metrics.refuse("foreign");
                    match origin {
                        // Anybody may write there.
                        Origin::Da(_) => Judged::Ignored,
                        Origin::Peer(_) => Judged::Invalid(FOREIGN.to_owned()),
                    }
                }
            });
        }
        let proven = self.candidates.has_header(height);
        let tip = self.floor();
        if height == tip.next() && origin.da().is_none() && !links(&data, &self.last_data_hash()?) {
            self.metrics.refuse("foreign");
            return Ok(match data.txs.is_empty() {
                // Nodes of ev-node make such data up from the header.
                true => Judged::Ignored,
                false => Judged::Invalid(UNLINKED.to_owned()),
            });
        }
        Ok(match self.candidates.data(tip, height, data, commitment, origin) {
            Kept::New if !proven => Judged::Unproven,
            Kept::New => Judged::New,
            Kept::Known => Judged::Known,
            Kept::Foreign => {
                self.metrics.refuse("foreign");
                Judged::Invalid(FOREIGN.to_owned())
            }
            Kept::Dropped | Kept::Fork(..) => {
                self.metrics.refuse("no_room");
                Judged::Ignored
            }
        })
    }

    /// A half of a block in the chain was seen on DA.
    fn included(&mut self, lane: Lane, height: Height, at: DaHeight, empty: bool) {
        let included = self.store.reader().da_progress().included;
        if height > included && !self.inclusion.saw(lane, height, at, empty) {
            self.metrics.refuse("no_room");
        }
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
            let unrecorded = self.candidates.lowest_da().into_iter().chain(self.inclusion.lowest_da()).min();
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
                return Err(Stop::Parent { ready: Box::new(ready), tip, reason: not_next.to_string() });
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

    /// Whether others hear of a block: of every one, or of every so many while there are so many.
    pub(super) const fn tells_of(&self, height: Height) -> bool {
        !self.catch_up.is_on() || height.0.is_multiple_of(TOLD_TOGETHER)
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

    fn reread(&mut self) -> Option<DaHeight> {
        let tip = self.floor();
        self.restart.take().or_else(|| self.candidates.reread(tip))
    }

    fn release(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let (mut reading, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|waiting| waiting.reads);
        for waiting in others {
            // Who offered may have given up.
            let _ = waiting.told.send(None);
        }
        // What is to be read again stays so until it is told to somebody who reads and listens.
        reading.retain(|waiting| !waiting.told.is_closed());
        let mut reread = if reading.is_empty() { None } else { self.reread() };
        for waiting in reading {
            if let Err(untold) = waiting.told.send(reread.take()) {
                reread = untold;
            }
        }
        self.restart = self.restart.into_iter().chain(reread).min();
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
    Parent { ready: Box<Ready>, tip: Tip, reason: String },
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
                if follow.catch_up.is_on() && tip.height >= follow.highest {
                    follow.look_at_catch_up(Glance::Meanwhile);
                }
                if follow.tells_of(tip.height) {
                    for link in &follow.links.applied {
                        link.do_send(Applied { tip });
                    }
                }
                true
            }
            Ok(None) => true,
            Err(Stop::Root { height, own, chain }) => {
                self.end_in_trouble(&Error::OtherRoot { height, own, chain });
                false
            }
            Err(Stop::Parent { ready, tip, reason }) => {
                self.end_at_fork(&ready, tip, reason, ctx);
                false
            }
            Err(Stop::Store(error)) => {
                self.end_in_trouble(&Error::Store(error));
                self.begin_reopen(ctx);
                false
            }
        }
    }

    /// The proposer went on from another block than the one that stands here.
    fn end_at_fork(&mut self, ready: &Ready, tip: Tip, reason: String, ctx: &mut Context<Self>) {
        let Some(follow) = &mut self.follow else { return };
        let first = self.reader.signed_header(tip.height, &follow.record.signer);
        let first = first.ok().flatten().unwrap_or_default();
        let evidence = Evidence {
            height: tip.height,
            first,
            first_from: "the chain here".to_owned(),
            second: SignedHeader::clone(&ready.signed),
            second_from: ready.from.to_string(),
            found: follow.world.wall(),
        };
        self.keep(evidence, ctx);
        let height = ready.signed.header.height;
        self.end_in_trouble(&Error::OtherParent { height, reason });
    }

    /// Keeps evidence, stops finality below it, and tells.
    fn keep(&mut self, evidence: Evidence, ctx: &mut Context<Self>) {
        let Some(follow) = &mut self.follow else { return };
        let height = evidence.height;
        follow.forked_at = Some(follow.forked_at.map_or(height, |known| known.min(height)));
        let reason = format!(
            "the proposer signed two chains: {} ({}) and {} ({}) at heights {} and {}; nothing from height {height} on \
             becomes final here; find out which one is the chain's before you trust either",
            evidence.first.header.hash(),
            evidence.first_from,
            evidence.second.header.hash(),
            evidence.second_from,
            evidence.first.header.height,
            evidence.second.header.height,
        );
        error!(%reason, "a fork");
        let (writer, reader, metrics) = (follow.writer.clone(), self.reader.clone(), follow.metrics.clone());
        let (forks, told) = (follow.links.forks.clone(), ForkFound { height, reason });
        let kept = async move {
            let kept = writer.keep_evidence(evidence).await;
            metrics.forks.set(i64::try_from(reader.evidence().len()).unwrap_or(i64::MAX));
            // Told also when it cannot be kept: a person is needed more than ever then.
            for fork in &forks {
                fork.do_send(told.clone());
            }
            kept
        };
        ctx.spawn(kept.into_actor(self).map(|kept, _, _| {
            if let Err(error) = kept {
                warn!(%error, "evidence of a fork was not kept");
            }
        }));
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

    /// Judges pieces, in order.
    pub(super) fn judge(&mut self, candidates: Vec<Candidate>, ctx: &mut Context<Self>) -> Vec<Judged> {
        let mut judged = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            let Some(follow) = &mut self.follow else { break };
            let now = follow.world.wall();
            match follow.judge(candidate, now) {
                Ok((verdict, evidence)) => {
                    judged.push(verdict);
                    if let Some(evidence) = evidence {
                        self.keep(evidence, ctx);
                    }
                }
                Err(error) => {
                    judged.push(Judged::Ignored);
                    self.end_in_trouble(&Error::Store(error));
                    self.begin_reopen(ctx);
                }
            }
        }
        judged
    }
}

impl Handler<Offer> for Syncer {
    type Result = ResponseFuture<Taken>;

    fn handle(&mut self, offer: Offer, ctx: &mut Context<Self>) -> Self::Result {
        let Offer { candidates, read } = offer;
        let judged = self.judge(candidates, ctx);
        let reads = read.is_some();
        if let (Some(follow), Some(read)) = (&mut self.follow, read)
            && follow.restart.is_none()
        {
            follow.read = Some(read);
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
            highest: follow.highest.max(self.reader.tip().height),
            pending: follow.candidates.len(),
            pending_bytes: follow.candidates.bytes(),
            read: follow.read,
            catch_up: follow.catch_up.view(),
            evidence: self.reader.evidence().len(),
        })
    }
}
