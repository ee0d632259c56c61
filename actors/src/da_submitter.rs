//! The DA submitter puts the chain onto the data availability layer.
//!
//! It lives under one grant. Headers and data go in two independent lanes, each in height
//! order, one submission in flight per lane. What DA took is a log entry, so the next leader
//! carries on where this one stopped (P7, hazard E13); what it took without our knowing is
//! looked for there before it is sent again (hazards D3, D4). Only executed and signed blocks
//! are shown to it (P10).

pub mod batching;
pub mod posting;

use std::collections::BTreeMap;
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Recipient, WrapFuture};
use baton_messages::chain::Signer;
use baton_messages::command::Lane;
use baton_messages::da::{DaError, DaStateChanged, GetBlobs, GetDaHead, Namespace, SubmitBlobs};
use baton_messages::engine::GetPosition;
use baton_messages::raft::{Applied, Record};
use baton_messages::signer::{SignData, SignEnvelope};
use baton_messages::types::Grant;
use baton_storage::Reader;
use baton_storage::backend::StoreError;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::world::World;
use batching::{Batching, Pile, Reason, Strategy, Waiting};
use posting::{Error, Posted, Posting};

/// How blobs are posted.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where header envelopes go.
    pub header_namespace: Namespace,
    /// Where signed data goes.
    pub data_namespace: Namespace,
    /// Whose signatures the blobs carry.
    pub signer: Signer,
    /// When a lane posts.
    pub batching: Batching,
    /// Most bytes of all blobs of one submission.
    pub max_bytes: usize,
    /// Most blobs of one submission.
    pub max_blobs: usize,
    /// How often a lane looks for work.
    pub interval: Duration,
    /// The DA layer's block time: the longest pause between two tries.
    pub da_block_time: Duration,
    /// How long the DA layer may take for a submission.
    pub submit_within: Duration,
    /// How long other answers may take.
    pub reply_within: Duration,
    /// So many DA blocks are searched for blobs that may have been taken.
    pub search_depth: u64,
}

/// Everything the DA submitter says, and to whom.
#[derive(Clone, Debug)]
pub struct Links {
    /// Puts blobs on DA.
    pub submit: Recipient<SubmitBlobs>,
    /// Reads blobs from DA.
    pub get: Recipient<GetBlobs>,
    /// Says how far DA is.
    pub head: Recipient<GetDaHead>,
    /// Signs header envelopes.
    pub sign_envelope: Recipient<SignEnvelope>,
    /// Signs data.
    pub sign_data: Recipient<SignData>,
    /// Says how far the engine is.
    pub position: Recipient<GetPosition>,
    /// Records what DA took.
    pub record: Recipient<Record>,
    /// Hears how DA is.
    pub state: Recipient<DaStateChanged>,
}

/// The label of a failure.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FailureLabel {
    /// Why; ev-node's words where it has one.
    pub reason: &'static str,
}

/// The label of the decision to post.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BatchLabel {
    /// [`Reason::name`].
    pub reason: &'static str,
}

/// What the DA submitter counts; the names are ev-node's.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Headers and data not on DA yet, together.
    pub pending: Gauge,
    /// Submissions that were tried again.
    pub resends: Counter,
    /// Failures by reason.
    pub failures: Family<FailureLabel, Counter>,
    /// When the last failure of a reason was, seconds since the Unix epoch.
    pub last_failure: Family<FailureLabel, Gauge>,
    /// Blobs the DA layer took.
    pub blobs: Counter,
    /// Bytes the DA layer took.
    pub bytes: Counter,
    /// Blobs that were found on DA although their submission was not confirmed.
    pub found: Counter,
    /// Batches that were sent, by what made them due.
    pub batches: Family<BatchLabel, Counter>,
}

impl Metrics {
    /// Makes the metrics visible.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("sequencer");
        registry.register("da_submitter_pending_blobs", "Headers and data not on DA", self.pending.clone());
        registry.register("da_submitter_resends", "Submissions tried again", self.resends.clone());
        registry.register("da_submitter_failures", "Failed submissions", self.failures.clone());
        registry.register(
            "da_submitter_last_failure_timestamp",
            "Unix time of the last failure",
            self.last_failure.clone(),
        );
        registry.register("da_submitter_blobs", "Blobs the DA layer took", self.blobs.clone());
        registry.register("da_submitter_bytes", "Bytes the DA layer took", self.bytes.clone());
        registry.register("da_submitter_found", "Unconfirmed blobs found on DA", self.found.clone());
        registry.register("da_submitter_batches", "Batches by what made them due", self.batches.clone());
    }
}

/// Blocks counted in one look: a long backlog does not hold up the thread.
const COUNTED_AT_ONCE: usize = 256;

/// Where one of the two lanes stands.
#[derive(Debug)]
struct Progress {
    busy: bool,
    failures: u32,
    /// Blobs per submission; halved when DA finds one too big, doubled when it takes one.
    max_blobs: usize,
    /// DA may hold more than the log says: look before sending.
    look_first: bool,
    /// What waits, counted so far. Stays empty when nothing waits.
    pile: Pile,
    /// When this producer posted last.
    last: Option<Instant>,
    /// A batch is due and not all of it is on DA.
    due: bool,
}

/// The DA submitter.
#[derive(Debug)]
pub struct DaSubmitter {
    config: Config,
    links: Links,
    metrics: Metrics,
    world: World,
    reader: Reader,
    grant: Grant,
    lanes: BTreeMap<Lane, Progress>,
    trouble: Option<String>,
}

impl DaSubmitter {
    /// A submitter for this grant.
    #[must_use]
    pub fn new(
        config: Config,
        links: Links,
        metrics: Metrics,
        world: World,
        reader: Reader,
        grant: Grant,
    ) -> Self {
        let progress = || Progress {
            busy: false,
            failures: 0,
            max_blobs: config.max_blobs,
            look_first: true,
            pile: Pile::default(),
            last: None,
            due: false,
        };
        let lanes = BTreeMap::from([(Lane::Header, progress()), (Lane::Data, progress())]);
        Self { config, links, metrics, world, reader, grant, lanes, trouble: None }
    }

    fn look_for_work(&mut self, ctx: &mut Context<Self>) {
        let tip = self.reader.tip().height.0;
        let progress = self.reader.da_progress();
        let pending = tip.saturating_sub(progress.headers.0) + tip.saturating_sub(progress.data.0);
        self.metrics.pending.set(i64::try_from(pending).unwrap_or(i64::MAX));
        for lane in [Lane::Header, Lane::Data] {
            self.begin_posting(lane, ctx);
        }
    }

    fn lane(&mut self, lane: Lane) -> &mut Progress {
        self.lanes.get_mut(&lane).expect("both lanes are there from the beginning")
    }

    /// Whether the lane posts now: a batch that is due goes out whole, else the strategy says.
    fn is_due(&mut self, lane: Lane) -> Result<bool, StoreError> {
        if self.lane(lane).due {
            return Ok(true);
        }
        let waiting = self.waiting(lane)?;
        let Some(reason) = self.config.batching.verdict(&waiting) else { return Ok(false) };
        debug!(%lane, reason = reason.name(), ?waiting, "a batch is due");
        if reason != Reason::Immediate {
            self.metrics.batches.get_or_create(&BatchLabel { reason: reason.name() }).inc();
        }
        self.lane(lane).due = true;
        Ok(true)
    }

    /// What waits in a lane. Counts a bounded number of further blocks.
    fn waiting(&mut self, lane: Lane) -> Result<Waiting, StoreError> {
        let before_first = self.reader.initial_height().previous();
        let progress = self.reader.da_progress();
        let (done, other) = match lane {
            Lane::Header => (progress.headers, progress.data),
            Lane::Data => (progress.data, progress.headers),
        };
        let (done, tip) = (done.max(before_first), self.reader.tip().height);
        let mut pile = std::mem::take(&mut self.lane(lane).pile);
        let mut height = pile.settle(done);
        if self.config.batching.strategy != Strategy::Immediate {
            for _ in 0..COUNTED_AT_ONCE {
                // What is not signed cannot go out yet.
                if height > tip || self.reader.signature(height)?.is_none() {
                    break;
                }
                let size = match lane {
                    Lane::Header => self.reader.header(height)?.map(|header| header.encode().len()),
                    Lane::Data => self
                        .reader
                        .block(height)?
                        .and_then(|block| (!block.txs().is_empty()).then(|| block.tx_bytes())),
                };
                pile.count(height, size);
                height = height.next();
            }
        }
        let (blobs, bytes) = pile.waiting();
        self.lane(lane).pile = pile;
        let since_last = self.lane(lane).last.map(|last| last.elapsed());
        let heights = tip.0.saturating_sub(done.0);
        let paused = self.reader.pause().is_some();
        Ok(Waiting { heights, blobs, bytes, since_last, behind: other > done, paused })
    }

    fn begin_posting(&mut self, lane: Lane, ctx: &mut Context<Self>) {
        let (max_blobs, look_first) = match self.lane(lane) {
            Progress { busy: true, .. } => return,
            Progress { max_blobs, look_first, .. } => (*max_blobs, *look_first),
        };
        if !look_first {
            match self.is_due(lane) {
                Ok(true) => {}
                Ok(false) => {
                    // All there is was found on DA: a failure of before is over.
                    self.lane(lane).failures = 0;
                    return self.end_of_trouble();
                }
                Err(error) => return self.end_in_failure(lane, &error.into(), ctx),
            }
        }
        self.lane(lane).busy = true;
        let posting = Posting {
            config: self.config.clone(),
            links: self.links.clone(),
            reader: self.reader.clone(),
            grant: self.grant,
            lane,
            max_blobs,
        };
        let posted = async move {
            match look_first {
                true => posting.search().await,
                false => posting.post().await,
            }
        };
        ctx.spawn(posted.into_actor(self).map(move |posted, this, ctx| this.end_posting(lane, posted, ctx)));
    }

    fn end_posting(&mut self, lane: Lane, posted: Result<Posted, Error>, ctx: &mut Context<Self>) {
        match posted {
            Ok(Posted::Nothing) => {
                let progress = self.lane(lane);
                progress.busy = false;
                progress.due = false;
                // All there is was found on DA: a failure of before is over.
                progress.failures = 0;
                self.end_of_trouble();
            }
            Ok(Posted::Searched { found }) => {
                if found > 0 {
                    info!(%lane, found, "found blobs on DA that were not confirmed");
                    self.metrics.found.inc_by(found);
                }
                let progress = self.lane(lane);
                progress.busy = false;
                progress.look_first = false;
                self.begin_posting(lane, ctx);
            }
            Ok(Posted::Range { range, blobs, bytes, full }) => {
                info!(%lane, from = range.from.0, to = range.to.0, blobs, bytes, da_height = range.da_height.0,
                    "on DA");
                self.metrics.blobs.inc_by(blobs as u64);
                self.metrics.bytes.inc_by(bytes as u64);
                let most = self.config.max_blobs;
                let progress = self.lane(lane);
                progress.busy = false;
                progress.failures = 0;
                progress.due = full;
                progress.last = Some(Instant::now());
                progress.max_blobs = (progress.max_blobs * 2).min(most);
                self.end_of_trouble();
                self.begin_posting(lane, ctx);
            }
            Err(error) => self.end_in_failure(lane, &error, ctx),
        }
    }

    fn end_in_failure(&mut self, lane: Lane, error: &Error, ctx: &mut Context<Self>) {
        let label = FailureLabel { reason: error.reason() };
        self.metrics.failures.get_or_create(&label).inc();
        let seconds = i64::try_from(self.world.now().0 / 1_000_000_000).unwrap_or(i64::MAX);
        self.metrics.last_failure.get_or_create(&label).set(seconds);
        self.metrics.resends.inc();
        let (shortest, longest) = (Duration::from_millis(100), self.config.da_block_time);
        let progress = self.lane(lane);
        progress.busy = true;
        progress.failures += 1;
        let mut pause = (shortest * 2u32.pow(progress.failures.min(16) - 1)).min(longest.max(shortest));
        match error {
            Error::Da(DaError::TooBig(_)) if progress.max_blobs > 1 => {
                progress.max_blobs = (progress.max_blobs / 2).max(1);
                pause = Duration::ZERO;
            }
            Error::Da(DaError::AlreadyInMempool(_) | DaError::NotIncluded(_)) => {
                progress.look_first = true;
                pause = longest;
            }
            // DA may have taken it, or has and the log does not say so.
            Error::Da(DaError::Unavailable(_)) | Error::NoReply { .. } | Error::Record(_) => {
                progress.look_first = true;
            }
            Error::Da(_) | Error::Sign(_) | Error::Engine(_) | Error::Store(_) => {}
        }
        warn!(%lane, %error, failures = progress.failures, "posted nothing");
        self.tell(Some(error.to_string()));
        ctx.run_later(pause, move |this, ctx| {
            this.lane(lane).busy = false;
            this.begin_posting(lane, ctx);
        });
    }

    fn end_of_trouble(&mut self) {
        if self.lanes.values().all(|progress| progress.failures == 0) {
            self.tell(None);
        }
    }

    fn tell(&mut self, trouble: Option<String>) {
        if self.trouble != trouble {
            debug!(?trouble, "the state of DA changed");
            self.trouble.clone_from(&trouble);
            let included = self.reader.da_progress().included;
            self.links.state.do_send(DaStateChanged { trouble, included });
        }
    }
}

impl Actor for DaSubmitter {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        // Whatever an earlier producer said of DA is over.
        let included = self.reader.da_progress().included;
        self.links.state.do_send(DaStateChanged { trouble: None, included });
        self.look_for_work(ctx);
        ctx.run_interval(self.config.interval, Self::look_for_work);
    }
}

impl Handler<Applied> for DaSubmitter {
    type Result = ();

    fn handle(&mut self, _: Applied, ctx: &mut Context<Self>) {
        self.look_for_work(ctx);
    }
}
