//! The inbox reads what users have put on DA themselves, epoch after epoch, and shows the executor
//! what comes next.
//!
//! Where forced inclusion stands is in the log, with the block that moved it: the inbox of every
//! member reads on from there, so that whoever leads next goes on exactly where the last one was
//! (hazards E7, I8). What cannot be read is never passed over. A block may leave out an epoch that
//! has ended for half a length of an epoch, so that it comes to DA before full nodes miss
//! something; from then on there are no blocks without forced transactions until the epoch is read.

pub mod stream;

use std::time::Duration;

use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, MailboxError, MessageResult, Recipient,
    SpawnHandle, WrapFuture,
};
use baton_messages::command::ForcedPosition;
use baton_messages::da::{DaError, DaHead, GetBlobs, GetDaHead, Namespace};
use baton_messages::epoch::Epochs;
use baton_messages::forced::{Forced, NextForced};
use baton_messages::mutation::{Mutation, planted};
use baton_messages::types::DaHeight;
use baton_storage::Reader;
use bytes::Bytes;
use futures::StreamExt;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use stream::Stream;

/// How forced transactions are read.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where they are.
    pub namespace: Namespace,
    /// Larger ones are skipped: no block with one of them would fit into a blob.
    pub max_tx_bytes: usize,
    /// Reading rests while so many bytes wait.
    pub max_bytes: usize,
    /// Reading rests while so many transactions wait.
    pub max_txs: usize,
    /// The DA layer's block time: the pause between two questions for its head, and the unit in
    /// which its height is estimated while it does not answer.
    pub da_block_time: Duration,
    /// How long one answer of the DA layer may take.
    pub reply_within: Duration,
}

/// DA heights that are read at the same time.
const IN_FLIGHT: usize = 4;
/// DA heights that are read before anything else is looked at.
const TOGETHER: u64 = 32;
/// The first pause after a failure.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Everything the inbox says, and to whom.
#[derive(Clone, Debug)]
pub struct Links {
    /// Reads blobs.
    pub get: Recipient<GetBlobs>,
    /// Says how far DA is.
    pub head: Recipient<GetDaHead>,
}

/// What is counted.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// The DA height of the position in the log.
    pub position: Gauge,
    /// The next DA height to be read.
    pub next: Gauge,
    /// The newest DA height known.
    pub head: Gauge,
    /// Transactions that were read and are in no block.
    pub waiting: Gauge,
    /// Their bytes.
    pub waiting_bytes: Gauge,
    /// Transactions that were skipped because they are too large.
    pub skipped: Counter,
    /// Attempts to read that failed.
    pub failures: Counter,
    /// One while epochs may have ended that are not read: blocks hold forced transactions only.
    pub behind: Gauge,
}

impl Metrics {
    /// Makes the metrics visible.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("forced_inclusion");
        registry.register("position", "DA height up to which blocks hold everything", self.position.clone());
        registry.register("next", "The next DA height to be read", self.next.clone());
        registry.register("da_head", "The newest DA height known", self.head.clone());
        registry.register("waiting", "Forced transactions in no block yet", self.waiting.clone());
        registry.register("waiting_bytes", "Bytes of the same", self.waiting_bytes.clone());
        registry.register("skipped", "Forced transactions too large for a block", self.skipped.clone());
        registry.register(
            "failures",
            "Attempts to read forced transactions that failed",
            self.failures.clone(),
        );
        registry.register("behind", "1 while an epoch is due that is not read", self.behind.clone());
    }
}

/// Why reading does not go on.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("no reply from the DA layer: {0}")]
    NoReply(#[from] MailboxError),
    #[error(transparent)]
    Da(#[from] DaError),
}

/// What a round came to.
#[derive(Debug)]
enum Round {
    /// What lies at these DA heights, in order; the first one that is not there ends it.
    Read(Vec<(DaHeight, Vec<Bytes>)>, Option<Error>),
    /// DA is that far.
    Head(DaHeight),
}

/// The inbox.
#[derive(Debug)]
pub struct Inbox {
    config: Config,
    links: Links,
    metrics: Metrics,
    reader: Reader,
    epochs: Epochs,
    stream: Stream,
    /// The position after what was shown last.
    shown: ForcedPosition,
    /// The newest DA block known, and when that was.
    head: Option<(DaHeight, Instant)>,
    /// What the DA layer says instead of answering.
    trouble: Option<String>,
    failures: u32,
    busy: bool,
    /// The timer of the next round.
    pause: Option<SpawnHandle>,
}

impl Inbox {
    /// An inbox that begins to read when it is started, where the log says.
    #[must_use]
    pub fn new(config: Config, links: Links, metrics: Metrics, reader: Reader) -> Self {
        let epochs = Epochs::of(reader.genesis());
        let stream = Stream::new(epochs, reader.forced(), config.max_tx_bytes);
        Self {
            config,
            links,
            metrics,
            epochs,
            stream,
            shown: ForcedPosition::default(),
            head: None,
            trouble: None,
            failures: 0,
            busy: false,
            pause: None,
            reader,
        }
    }

    /// The one position there is: the log's.
    fn position(&self) -> ForcedPosition {
        if planted(Mutation::LocalForcedPosition) { self.shown } else { self.reader.forced() }
    }

    /// What the log says was taken leaves.
    fn follow_log(&mut self) {
        let position = self.position();
        if !self.stream.taken(position) {
            info!(from = self.stream.next().0, "reading forced transactions from here on");
        }
    }

    /// DA heights that are there and find room; `None`: nothing to read.
    fn to_read(&self) -> Option<(DaHeight, DaHeight)> {
        let (head, _) = self.head?;
        let next = self.stream.next();
        let has_room = self.stream.bytes() < self.config.max_bytes && self.stream.len() < self.config.max_txs;
        let last = DaHeight(head.0.min(next.0.saturating_add(TOGETHER - 1)));
        (has_room && next <= head).then_some((next, last))
    }

    fn begin_round(&mut self, ctx: &mut Context<Self>) {
        if self.busy {
            return;
        }
        if let Some(pause) = self.pause.take() {
            ctx.cancel_future(pause);
        }
        self.follow_log();
        self.busy = true;
        let round: futures::future::LocalBoxFuture<'static, Result<Round, Error>> = match self.to_read() {
            Some((from, to)) => Box::pin(read(self.links.clone(), self.config.clone(), from, to)),
            None => Box::pin(ask_head(self.links.clone(), self.config.reply_within)),
        };
        ctx.spawn(round.into_actor(self).map(|round, this, ctx| this.end_round(round, ctx)));
    }

    fn end_round(&mut self, round: Result<Round, Error>, ctx: &mut Context<Self>) {
        self.busy = false;
        let error = match round {
            Ok(Round::Read(read, error)) => {
                for (height, blobs) in read {
                    // The log may have moved to elsewhere meanwhile.
                    if height == self.stream.next() {
                        self.take_in(height, blobs);
                    }
                }
                error
            }
            Ok(Round::Head(head)) => {
                self.head = Some((head, Instant::now()));
                None
            }
            Err(error) => Some(error),
        };
        match error {
            None => {
                self.end_of_trouble();
                let pause = if self.to_read().is_some() { Duration::ZERO } else { self.config.da_block_time };
                self.pause_for(pause, ctx);
            }
            // The head was another DA node's: this one does not have it.
            Some(Error::Da(DaError::FromTheFuture(_))) => {
                let last = DaHeight(self.stream.next().0.saturating_sub(1));
                self.head = self.head.map(|(_, at)| (last, at));
                self.pause_for(self.config.da_block_time, ctx);
            }
            Some(error) => self.end_in_failure(&error, ctx),
        }
        self.show();
    }

    fn take_in(&mut self, height: DaHeight, blobs: Vec<Bytes>) {
        let (count, skipped) = (blobs.len(), self.stream.push(blobs));
        if count > 0 {
            info!(da_height = height.0, blobs = count, "read forced transactions");
        }
        if skipped > 0 {
            let limit = self.config.max_tx_bytes;
            warn!(da_height = height.0, skipped, limit, "forced transactions fit into no block: skipped");
            self.metrics.skipped.inc_by(skipped);
        }
    }

    fn end_in_failure(&mut self, error: &Error, ctx: &mut Context<Self>) {
        self.failures += 1;
        self.metrics.failures.inc();
        let pause = FIRST_PAUSE * 2u32.pow(self.failures.min(16) - 1);
        let pause = pause.min(self.config.da_block_time.max(FIRST_PAUSE));
        if self.trouble.replace(error.to_string()).is_none() {
            warn!(%error, next = self.stream.next().0, "forced transactions cannot be read");
        } else {
            debug!(%error, failures = self.failures, ?pause, "forced transactions cannot be read yet");
        }
        self.pause_for(pause, ctx);
    }

    fn end_of_trouble(&mut self) {
        self.failures = 0;
        if self.trouble.take().is_some() {
            info!("forced transactions can be read again");
        }
    }

    fn pause_for(&mut self, pause: Duration, ctx: &mut Context<Self>) {
        let timer = ctx.run_later(pause, |this, ctx| {
            this.pause = None;
            this.begin_round(ctx);
        });
        self.pause = Some(timer);
    }

    /// Why an epoch may be due that is not read. While DA does not answer, its height is estimated
    /// by the time that has passed.
    fn behind(&self) -> Option<String> {
        let said = self.trouble.as_deref().map_or_else(String::new, |trouble| format!(" ({trouble})"));
        let Some((head, since)) = self.head else {
            return Some(format!("the DA layer has not said how far it is{said}"));
        };
        let passed = since.elapsed().as_nanos() / self.config.da_block_time.as_nanos().max(1);
        let estimated = head.0.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX));
        let epoch = self.stream.waits_for(head);
        let due = epoch.end.0.saturating_add(self.epochs.size() / 2);
        (estimated > due).then(|| {
            format!(
                "DA heights {} to {} may hold forced transactions and are not read; DA is at about {estimated}{said}",
                epoch.start, epoch.end
            )
        })
    }

    fn show(&self) {
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.metrics.position.set(whole(self.epochs.position(self.position()).da_height.0));
        self.metrics.next.set(whole(self.stream.next().0));
        self.metrics.head.set(whole(self.head.map_or(0, |(head, _)| head.0)));
        self.metrics.waiting.set(whole(self.stream.len() as u64));
        self.metrics.waiting_bytes.set(whole(self.stream.bytes() as u64));
        self.metrics.behind.set(i64::from(self.behind().is_some()));
    }
}

impl Actor for Inbox {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        info!(from = self.stream.next().0, namespace = %self.config.namespace, "reading forced transactions");
        self.begin_round(ctx);
    }
}

impl Handler<NextForced> for Inbox {
    type Result = MessageResult<NextForced>;

    fn handle(&mut self, message: NextForced, ctx: &mut Context<Self>) -> Self::Result {
        self.follow_log();
        let head = self.head.map_or(DaHeight(0), |(head, _)| head);
        let forced = Forced { behind: self.behind(), ..self.stream.show(head, message.max_bytes) };
        self.shown = forced.end;
        // What was taken has made room.
        if self.trouble.is_none() && self.to_read().is_some() {
            self.begin_round(ctx);
        }
        self.show();
        MessageResult(forced)
    }
}

async fn ask_head(links: Links, within: Duration) -> Result<Round, Error> {
    let DaHead { height, .. } = links.head.send(GetDaHead).timeout(within).await??;
    Ok(Round::Head(height))
}

/// Reads some DA heights, as far as they can be read.
async fn read(links: Links, config: Config, from: DaHeight, to: DaHeight) -> Result<Round, Error> {
    let ask = |height| {
        let get = GetBlobs { height: DaHeight(height), namespaces: vec![config.namespace] };
        let asked = links.get.send(get).timeout(config.reply_within);
        async move {
            let blobs = asked.await??;
            let own = blobs.into_iter().filter(|blob| blob.namespace == config.namespace);
            Ok((DaHeight(height), own.map(|blob| blob.data).collect()))
        }
    };
    let mut answers = futures::stream::iter(from.0..=to.0).map(ask).buffered(IN_FLIGHT);
    let (mut read, mut bytes) = (vec![], 0);
    while let Some(answer) = answers.next().await {
        let (height, blobs): (DaHeight, Vec<Bytes>) = match answer {
            Ok(answer) => answer,
            Err(error) => return Ok(Round::Read(read, Some(error))),
        };
        bytes += blobs.iter().map(Bytes::len).sum::<usize>();
        read.push((height, blobs));
        if bytes >= config.max_bytes {
            break;
        }
    }
    Ok(Round::Read(read, None))
}
