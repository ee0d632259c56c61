//! The DA retriever reads the chain from the data availability layer, for a node that follows.
//!
//! It reads height after height, several at a time while it is behind, and offers what it finds to
//! the syncer, in order. At the head it waits for the DA layer to announce a block, and where that
//! announces nothing it asks from time to time. It keeps nothing: where to begin is in the store,
//! and the syncer says when to go back.

pub mod decode;

use std::collections::BTreeSet;
use std::time::Duration;

use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, MailboxError, Recipient, SpawnHandle, WrapFuture,
};
use baton_messages::da::{AwaitDaBlock, Blob, DaError, GetBlobs, GetDaHead, Namespace};
use baton_messages::follow::{Candidate, DaHint, DaRead, Offer, Origin, Piece, RetrievalChanged};
use baton_messages::types::DaHeight;
use futures::StreamExt;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tracing::{debug, info, warn};

use decode::{Decoder, Found};

/// How DA is read.
#[derive(Clone, Debug)]
pub struct Config {
    /// The chain.
    pub chain_id: String,
    /// Whose blobs are wanted.
    pub proposer: bytes::Bytes,
    /// Where headers are.
    pub header_namespace: Namespace,
    /// Where data are; may be the same.
    pub data_namespace: Namespace,
    /// Where reading begins.
    pub from: DaHeight,
    /// Larger blobs are not looked at.
    pub max_blob: usize,
    /// DA heights that are read at the same time while the node is behind.
    pub in_flight: usize,
    /// DA heights that are read before anything else is looked at.
    pub together: u64,
    /// The DA layer's block time: the pause between two questions where nothing is announced, and
    /// the longest pause after a failure.
    pub da_block_time: Duration,
    /// How long one answer of the DA layer may take.
    pub reply_within: Duration,
    /// How long the syncer may keep an offer until it has room.
    pub taken_within: Duration,
}

/// Most hints that wait; more are dropped, the height comes up in its turn.
const MOST_HINTS: usize = 1024;
/// Hints further ahead of the known head than this are not believed.
const HINT_DRIFT: u64 = 200;
/// The first pause after a failure.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Without a word of the DA layer for so many block times the head is asked for.
const WATCHDOG: u32 = 3;

/// Everything the retriever says, and to whom.
#[derive(Clone, Debug)]
pub struct Links {
    /// Reads blobs.
    pub get: Recipient<GetBlobs>,
    /// Says how far DA is.
    pub head: Recipient<GetDaHead>,
    /// Announces DA blocks.
    pub announced: Recipient<AwaitDaBlock>,
    /// Takes what is found.
    pub offer: Recipient<Offer>,
    /// Hears whether DA can be read.
    pub state: Recipient<RetrievalChanged>,
}

/// What a blob was.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Kind {
    /// `header`, `data`, or why it is foreign.
    pub kind: &'static str,
}

/// What is counted.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// The next DA height to be read.
    pub next: Gauge,
    /// The newest DA height known.
    pub head: Gauge,
    /// DA heights that were read.
    pub heights: Counter,
    /// Blobs by what they were.
    pub blobs: Family<Kind, Counter>,
    /// Attempts that failed.
    pub failures: Counter,
    /// Times that reading went back for something that had had no room.
    pub rereads: Counter,
    /// Heights that were read before their turn.
    pub hints: Counter,
}

impl Metrics {
    /// Makes the metrics visible.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("da_retriever");
        registry.register("next", "The next DA height to be read", self.next.clone());
        registry.register("head", "The newest DA height known", self.head.clone());
        registry.register("heights", "DA heights read", self.heights.clone());
        registry.register("blobs", "Blobs read, by what they were", self.blobs.clone());
        registry.register("failures", "Attempts to read that failed", self.failures.clone());
        registry.register("rereads", "Times that reading went back", self.rereads.clone());
        registry.register("hints", "DA heights read before their turn", self.hints.clone());
    }
}

/// Why reading does not go on.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("no reply from the {who}: {source}")]
    NoReply { who: &'static str, source: MailboxError },
    #[error(transparent)]
    Da(#[from] DaError),
}

/// What a round came to.
#[derive(Debug)]
enum Round {
    /// Everything below was read.
    Read { next: DaHeight, decoder: Decoder, reread: bool },
    /// Everything below was read; the DA node does not have what was said to be its head.
    Short { next: DaHeight, decoder: Decoder },
    /// The height of the hint was read.
    Hinted { decoder: Decoder },
    /// The DA layer announced this block.
    Announced(DaHeight),
    /// DA is that far.
    Head(DaHeight),
    /// The DA layer announces nothing.
    Silent,
}

/// The retriever.
#[derive(Debug)]
pub struct DaRetriever {
    config: Config,
    links: Links,
    metrics: Metrics,
    decoder: Decoder,
    next: DaHeight,
    /// The newest DA block known; `None` before DA has answered.
    head: Option<DaHeight>,
    hints: BTreeSet<DaHeight>,
    failures: u32,
    in_trouble: bool,
    /// A round is on its way.
    busy: bool,
    /// The timer of the next round.
    pause: Option<SpawnHandle>,
    /// The DA layer has been asked to announce blocks and does not.
    polls: bool,
}

impl DaRetriever {
    /// A retriever that begins when it is started.
    #[must_use]
    pub fn new(config: Config, links: Links, metrics: Metrics) -> Self {
        let decoder = Decoder::new(config.chain_id.clone(), config.proposer.clone(), config.max_blob);
        Self {
            // There is no DA block zero.
            next: config.from.max(DaHeight(1)),
            config,
            links,
            metrics,
            decoder,
            head: None,
            hints: BTreeSet::new(),
            failures: 0,
            in_trouble: false,
            busy: false,
            pause: None,
            polls: false,
        }
    }

    /// This retriever knows where the proposer began to sign envelopes.
    #[must_use]
    pub fn strict_from(mut self, height: Option<DaHeight>) -> Self {
        self.decoder = self.decoder.remember(height);
        self
    }

    fn begin_round(&mut self, ctx: &mut Context<Self>) {
        if self.busy {
            return;
        }
        if let Some(pause) = self.pause.take() {
            ctx.cancel_future(pause);
        }
        let reading = Reading {
            config: self.config.clone(),
            links: self.links.clone(),
            metrics: self.metrics.clone(),
            decoder: self.decoder.clone(),
        };
        let round: futures::future::LocalBoxFuture<'static, Result<Round, Error>> = match self.head {
            None => Box::pin(reading.head()),
            Some(head) => match self.hint(head) {
                Some(hint) => Box::pin(reading.hinted(hint)),
                None if self.next <= head => Box::pin(reading.read(self.next, head)),
                None if self.polls => Box::pin(reading.head()),
                None => Box::pin(reading.announced()),
            },
        };
        self.busy = true;
        ctx.spawn(round.into_actor(self).map(|round, this, ctx| this.end_round(round, ctx)));
    }

    /// The next hint that is not read in its turn anyway.
    fn hint(&mut self, head: DaHeight) -> Option<DaHeight> {
        while let Some(hint) = self.hints.pop_first() {
            let soon = hint.0 < self.next.0.saturating_add(self.config.together);
            if !soon && hint <= head {
                return Some(hint);
            }
        }
        None
    }

    fn end_round(&mut self, round: Result<Round, Error>, ctx: &mut Context<Self>) {
        self.busy = false;
        match round {
            Ok(Round::Read { next, decoder, reread }) => {
                self.follow_decoder(decoder);
                let waits = reread && next == self.next;
                if waits {
                    debug!(from = next.0, "waiting at a DA block");
                } else if reread {
                    info!(from = next.0, was = self.next.0, "reading DA again");
                }
                self.metrics.rereads.inc_by(u64::from(reread));
                self.next = next;
                self.end_of_trouble();
                match (reread, waits) {
                    (false, _) => self.begin_round(ctx),
                    // What has no room now has none at once either.
                    (true, false) => self.pause_for(FIRST_PAUSE, ctx),
                    (true, true) => {
                        // Meanwhile there is more.
                        self.head = None;
                        self.pause_for(self.config.da_block_time.max(FIRST_PAUSE), ctx);
                    }
                }
            }
            Ok(Round::Short { next, decoder }) => {
                self.follow_decoder(decoder);
                self.next = next;
                self.head = Some(DaHeight(next.0.saturating_sub(1)));
                self.end_of_trouble();
                self.pause_for(self.config.da_block_time, ctx);
            }
            Ok(Round::Hinted { decoder }) => {
                self.follow_decoder(decoder);
                self.metrics.hints.inc();
                self.end_of_trouble();
                self.begin_round(ctx);
            }
            Ok(Round::Announced(head)) => {
                self.head = Some(self.head.map_or(head, |known| known.max(head)));
                self.end_of_trouble();
                self.begin_round(ctx);
            }
            Ok(Round::Head(head)) => {
                let grew = self.head.is_none_or(|known| head > known);
                self.head = Some(self.head.map_or(head, |known| known.max(head)));
                self.end_of_trouble();
                match grew {
                    true => self.begin_round(ctx),
                    false => self.pause_for(self.config.da_block_time, ctx),
                }
            }
            Ok(Round::Silent) => {
                debug!("the DA layer announces nothing: asking for its head from time to time");
                self.polls = true;
                self.pause_for(self.config.da_block_time, ctx);
            }
            Err(error) => {
                self.failures += 1;
                self.metrics.failures.inc();
                let pause = FIRST_PAUSE * 2u32.pow(self.failures.min(16) - 1);
                let pause = pause.min(self.config.da_block_time.max(FIRST_PAUSE));
                if !std::mem::replace(&mut self.in_trouble, true) {
                    warn!(%error, next = self.next.0, "DA cannot be read");
                    self.links.state.do_send(RetrievalChanged { trouble: Some(error.to_string()) });
                } else {
                    debug!(%error, failures = self.failures, ?pause, "DA cannot be read yet");
                }
                // Whether it announces blocks may be known again when it is back.
                self.head = None;
                self.polls = false;
                self.pause_for(pause, ctx);
            }
        }
        self.show();
    }

    fn follow_decoder(&mut self, decoder: Decoder) {
        if let (Some(from), None) = (decoder.strict_from(), self.decoder.strict_from()) {
            info!(from = from.0, "the proposer signs envelopes: headers without one are not taken any more");
        }
        self.decoder = decoder;
    }

    fn pause_for(&mut self, pause: Duration, ctx: &mut Context<Self>) {
        let timer = ctx.run_later(pause, |this, ctx| {
            this.pause = None;
            this.begin_round(ctx);
        });
        self.pause = Some(timer);
    }

    fn end_of_trouble(&mut self) {
        self.failures = 0;
        if std::mem::take(&mut self.in_trouble) {
            info!("DA can be read again");
            self.links.state.do_send(RetrievalChanged { trouble: None });
        }
    }

    fn show(&self) {
        self.metrics.next.set(i64::try_from(self.next.0).unwrap_or(i64::MAX));
        let head = self.head.unwrap_or_default();
        self.metrics.head.set(i64::try_from(head.0).unwrap_or(i64::MAX));
    }
}

impl Actor for DaRetriever {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        info!(from = self.next.0, "reading the chain from DA");
        self.begin_round(ctx);
    }
}

impl Handler<DaHint> for DaRetriever {
    type Result = ();

    /// A hint costs a request at most: those far ahead, or over the bound, are not believed.
    fn handle(&mut self, DaHint(height): DaHint, _: &mut Context<Self>) {
        let Some(head) = self.head else { return };
        if height >= self.next
            && height.0 <= head.0.saturating_add(HINT_DRIFT)
            && self.hints.len() < MOST_HINTS
        {
            self.hints.insert(height);
        }
    }
}

/// The questions of one round, so that the actor is untouched while they are asked.
struct Reading {
    config: Config,
    links: Links,
    metrics: Metrics,
    decoder: Decoder,
}

impl Reading {
    async fn head(self) -> Result<Round, Error> {
        let head = self.links.head.send(GetDaHead).timeout(self.config.reply_within).await;
        let head = head.map_err(|source| Error::NoReply { who: "DA layer", source })??;
        Ok(Round::Head(head.height))
    }

    /// Waits for the next DA block, as the DA layer announces it.
    async fn announced(self) -> Result<Round, Error> {
        let within = self.config.da_block_time * WATCHDOG;
        let wait = AwaitDaBlock { namespace: self.config.header_namespace, within };
        let announced = self.links.announced.send(wait).timeout(within + self.config.reply_within).await;
        match announced.map_err(|source| Error::NoReply { who: "DA layer", source })? {
            Ok(head) => Ok(Round::Announced(head.height)),
            Err(DaError::Other(_)) => Ok(Round::Silent),
            // Nothing for so long: perhaps the subscription is dead and DA is not.
            Err(_) => self.head().await,
        }
    }

    async fn hinted(mut self, height: DaHeight) -> Result<Round, Error> {
        let blobs = self.blobs(height).await?;
        let candidates = self.decode(height, blobs);
        self.offer(Offer { candidates, read: None }).await?;
        Ok(Round::Hinted { decoder: self.decoder })
    }

    /// Reads up to the head, or as much as belongs together, and offers it in order.
    async fn read(mut self, from: DaHeight, head: DaHeight) -> Result<Round, Error> {
        let last = head.0.min(from.0.saturating_add(self.config.together - 1));
        let (links, config) = (self.links.clone(), self.config.clone());
        let ask = move |height| {
            let (links, config) = (links.clone(), config.clone());
            async move { ask(&links, &config, DaHeight(height)).await.map(|blobs| (DaHeight(height), blobs)) }
        };
        let mut all = futures::stream::iter(from.0..=last).map(ask).buffered(self.config.in_flight);
        let mut next = from;
        while let Some(answer) = all.next().await {
            let (height, blobs) = match answer {
                Ok(answer) => answer,
                // The head was another node's.
                Err(Error::Da(DaError::FromTheFuture(_))) => {
                    return Ok(Round::Short { next, decoder: self.decoder });
                }
                Err(error) => return Err(error),
            };
            let candidates = self.decode(height, blobs);
            next = DaHeight(height.0 + 1);
            self.metrics.heights.inc();
            let read = Some(DaRead { next, head, strict_from: self.decoder.strict_from() });
            if let Some(reread) = self.offer(Offer { candidates, read }).await? {
                return Ok(Round::Read { next: reread, decoder: self.decoder, reread: true });
            }
        }
        Ok(Round::Read { next, decoder: self.decoder, reread: false })
    }

    async fn blobs(&self, height: DaHeight) -> Result<Vec<Blob>, Error> {
        ask(&self.links, &self.config, height).await
    }

    fn decode(&mut self, height: DaHeight, blobs: Vec<Blob>) -> Vec<Candidate> {
        let mut candidates = vec![];
        for blob in blobs {
            let kind = match self.decoder.read(height, &blob) {
                Found::Piece(piece) => {
                    let kind = match &piece {
                        Piece::Header(_) | Piece::Checked(_) => "header",
                        Piece::Data(_) => "data",
                    };
                    candidates.push(Candidate { piece, origin: Origin::Da(height) });
                    kind
                }
                Found::Foreign(why) => {
                    debug!(da_height = height.0, bytes = blob.data.len(), why, "a blob of somebody else");
                    why
                }
            };
            self.metrics.blobs.get_or_create(&Kind { kind }).inc();
        }
        candidates
    }

    async fn offer(&self, offer: Offer) -> Result<Option<DaHeight>, Error> {
        let taken = self.links.offer.send(offer).timeout(self.config.taken_within).await;
        Ok(taken.map_err(|source| Error::NoReply { who: "syncer", source })?.reread)
    }
}

/// Everything of interest at a DA height.
async fn ask(links: &Links, config: &Config, height: DaHeight) -> Result<Vec<Blob>, Error> {
    let mut namespaces = vec![config.header_namespace];
    if config.data_namespace != config.header_namespace {
        namespaces.push(config.data_namespace);
    }
    let blobs = links.get.send(GetBlobs { height, namespaces }).timeout(config.reply_within).await;
    Ok(blobs.map_err(|source| Error::NoReply { who: "DA layer", source })??)
}
