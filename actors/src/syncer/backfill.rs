//! Bodies that are missing after a snapshot: fetched from other members, downwards from the head.
//!
//! Each block's hash is the parent hash of the one above it, so nobody can give a wrong one: what
//! does not link is thrown away and asked of somebody else. What is still missing is on disk; a
//! restart goes on where it was.

use std::sync::Arc;
use std::time::Duration;

use actix::{ActorFutureExt, AsyncContext, Context, MailboxError, Recipient, WrapFuture};
use baton_messages::chain::{Block, Signer};
use baton_messages::cluster::{FetchBlocks, FetchError, FetchedBlock};
use baton_messages::types::{Hash, Height};
use baton_storage::{Backfill, BackfillError, Filler, Reader, StoreError, verdict};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{Syncer, signatures};

/// How missing bodies are fetched.
#[derive(Clone, Debug)]
pub struct Config {
    /// Most bytes of blocks that are asked for at a time.
    pub max_bytes: usize,
    /// How long an answer may take.
    pub reply_within: Duration,
    /// The pause after a failure; it doubles with every one that follows.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
    /// Progress is logged that often.
    pub log_every: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_bytes: 1 << 20,
            reply_within: Duration::from_secs(10),
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(5),
            log_every: Duration::from_secs(5),
        }
    }
}

/// What is fetched from, and where it goes.
#[derive(Clone, Debug)]
pub struct Source {
    /// Asks other members: Raft.
    pub fetch: Recipient<FetchBlocks>,
    /// Takes what they give.
    pub filler: Filler,
    /// Who signs the chain's headers.
    pub signer: Signer,
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Cause {
    /// One word.
    pub cause: &'static str,
}

/// What is counted.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Bodies that are missing.
    pub left: Gauge,
    /// Bodies filled in.
    pub blocks: Counter,
    /// Attempts that failed, by cause.
    pub failures: Family<Cause, Counter>,
}

impl Metrics {
    /// Makes the metrics visible.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("backfill");
        registry.register("left", "Block bodies that are missing", self.left.clone());
        registry.register("blocks", "Block bodies filled in", self.blocks.clone());
        registry.register("failures", "Attempts that failed, by cause", self.failures.clone());
    }
}

/// Why bodies were not filled in.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("no reply from raft: {0}")]
    NoReply(#[from] MailboxError),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("what came for block {0} is another one: it was thrown away")]
    Other(Height),
    #[error("block {0} came without a signature that verifies")]
    Unsigned(Height),
    #[error(transparent)]
    Backfill(#[from] BackfillError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Error {
    const fn cause(&self) -> &'static str {
        match self {
            Self::NoReply(_) => "no_reply",
            Self::Fetch(_) => "nobody_has_it",
            Self::Other(_)
            | Self::Unsigned(_)
            | Self::Backfill(
                BackfillError::NotLinked { .. } | BackfillError::Contradiction(_) | BackfillError::Complete,
            ) => "other_block",
            Self::Backfill(BackfillError::Store(_)) | Self::Store(_) => "store",
        }
    }

    /// What is stored contradicts what is committed: a person is needed.
    pub(super) const fn is_integrity(&self) -> bool {
        matches!(
            self,
            Self::Backfill(BackfillError::Store(StoreError::Corrupt(_)))
                | Self::Store(StoreError::Corrupt(_))
        )
    }
}

/// Where filling in is.
#[derive(Debug, Default)]
pub(super) struct State {
    busy: bool,
    failures: u32,
    progress: Option<Progress>,
}

/// When it began, and how much was left then and when it was logged last.
#[derive(Clone, Copy, Debug)]
struct Progress {
    since: Instant,
    left: u64,
    logged: Instant,
}

impl Progress {
    /// Blocks in a second so far, and how long the rest takes at that rate.
    fn rate(&self, left: u64, now: Instant) -> (f64, Option<Duration>) {
        let spent = now.duration_since(self.since).as_secs_f64();
        let done = u32::try_from(self.left.saturating_sub(left)).unwrap_or(u32::MAX);
        if done == 0 || spent <= 0.0 {
            return (0.0, None);
        }
        let rate = f64::from(done) / spent;
        let rest = u32::try_from(left).map_or(f64::MAX, f64::from) / rate;
        (rate, Duration::try_from_secs_f64(rest).ok())
    }
}

/// How many bodies are missing.
pub(super) fn left(reader: &Reader) -> u64 {
    reader.gaps().iter().map(|(first, last)| last.0.saturating_sub(first.0) + 1).sum()
}

/// How many of these blocks, from the front, are the wanted one and its ancestors down to a height,
/// each with the data that its header and the block above say.
fn linked(
    blocks: &[FetchedBlock],
    wanted: (Height, Hash),
    down_to: Height,
    above: Option<Arc<Block>>,
) -> usize {
    let (mut wanted, mut above) = (Some(wanted), above);
    let fits = |fetched: &&FetchedBlock| {
        let block = &fetched.block;
        let Some((height, hash)) = wanted else { return false };
        let fits = block.height() == height && block.hash() == hash && height >= down_to;
        let parent = <[u8; 32]>::try_from(&block.header().last_header_hash[..]).ok();
        wanted = parent.filter(|_| height > down_to).map(|parent| (height.previous(), Hash(parent)));
        let agrees = above.as_ref().is_none_or(|above| verdict::agrees_with_above(block, above));
        above = Some(block.clone());
        fits && agrees && verdict::agrees_with_itself(block)
    };
    blocks.iter().take_while(fits).count()
}

impl Syncer {
    /// Fetches the next bodies that are missing, one request at a time.
    pub(super) fn begin_fill(&mut self, ctx: &mut Context<Self>) {
        let Some(source) = self.links.source.clone() else { return };
        if self.fill.busy {
            return;
        }
        let gaps = self.reader.gaps();
        let Some((down_to, _)) = gaps.last().copied() else { return self.end_of_gaps() };
        let now = Instant::now();
        let left = left(&self.reader);
        self.metrics.backfill.left.set(i64::try_from(left).unwrap_or(i64::MAX));
        if self.fill.progress.is_none() {
            info!(left, "block bodies are missing: fetching them from other members");
            self.fill.progress = Some(Progress { since: now, left, logged: now });
        }
        self.fill.busy = true;
        let (reader, config) = (self.reader.clone(), self.config.backfill.clone());
        let filled = fill(source, reader, config, down_to, self.fill.failures);
        ctx.spawn(filled.into_actor(self).map(|filled, this, ctx| this.end_fill(filled, ctx)));
    }

    fn end_fill(&mut self, filled: Result<usize, Error>, ctx: &mut Context<Self>) {
        self.fill.busy = false;
        match filled {
            Ok(count) => {
                self.fill.failures = 0;
                self.metrics.backfill.blocks.inc_by(count as u64);
                self.log_fill();
                self.begin_fill(ctx);
            }
            Err(error) => {
                self.fill.failures += 1;
                self.metrics.backfill.failures.get_or_create(&Cause { cause: error.cause() }).inc();
                if error.is_integrity() {
                    return self.end_in_damage(&error);
                }
                let config = &self.config.backfill;
                let pause = config.first_pause * 2u32.pow(self.fill.failures.min(16) - 1);
                let pause = pause.min(config.longest_pause);
                warn!(%error, failures = self.fill.failures, ?pause, "filled in no block bodies");
                self.fill.busy = true;
                ctx.run_later(pause, |this, ctx| {
                    this.fill.busy = false;
                    this.begin_fill(ctx);
                });
            }
        }
        if left(&self.reader) == 0 {
            self.bodies_are_here(ctx);
        }
    }

    fn log_fill(&mut self) {
        let (left, now) = (left(&self.reader), Instant::now());
        let Some(progress) = &mut self.fill.progress else { return };
        let (rate, rest) = progress.rate(left, now);
        if now.duration_since(progress.logged) >= self.config.backfill.log_every {
            progress.logged = now;
            let rest = rest.map_or(0, |rest| rest.as_secs());
            info!(left, blocks_per_second = rate.round(), seconds_left = rest, "filling in block bodies");
        } else {
            debug!(left, "filled in block bodies");
        }
    }

    fn end_of_gaps(&mut self) {
        self.metrics.backfill.left.set(0);
        if let Some(progress) = self.fill.progress.take() {
            let (rate, _) = progress.rate(0, Instant::now());
            info!(blocks = progress.left, blocks_per_second = rate.round(), "every block body is here");
        }
    }
}

/// One request and what comes of it: how many blocks were filled in.
async fn fill(
    source: Source,
    reader: Reader,
    config: Config,
    down_to: Height,
    attempt: u32,
) -> Result<usize, Error> {
    let Some((from, hash)) = reader.missing()? else { return Ok(0) };
    let asked = FetchBlocks { from, hash, max_bytes: config.max_bytes, down_to, attempt };
    let mut blocks = source.fetch.send(asked).timeout(config.reply_within).await??;
    let above = reader.block(from.next())?;
    blocks.truncate(linked(&blocks, (from, hash), down_to, above));
    if blocks.is_empty() {
        return Err(Error::Other(from));
    }
    let fill = |FetchedBlock { block, signature, da }: FetchedBlock| {
        let signature = signature.filter(|signature| signatures::fits(&source, block.header(), signature));
        Backfill { block, signature, da }
    };
    let blocks: Vec<Backfill> = blocks.into_iter().map(fill).collect();
    source.filler.backfill(&blocks).await?;
    Ok(blocks.len())
}

#[cfg(test)]
mod tests {
    use baton_messages::chain::{Data, Header, Metadata};
    use baton_messages::types::Tx;
    use bytes::Bytes;

    use super::*;

    /// Blocks on top of each other, the newest first.
    fn chain(heights: std::ops::RangeInclusive<u64>) -> Vec<FetchedBlock> {
        let (mut blocks, mut parent, mut last_data_hash) = (Vec::new(), Hash::of(b"below"), Bytes::new());
        for height in heights {
            let height = Height(height);
            let metadata = Some(Metadata { height, last_data_hash, ..Metadata::default() });
            let data = Data { metadata, txs: vec![Tx(Bytes::from_static(b"a=1"))] };
            let (last_header_hash, data_hash) = (parent.to_bytes(), data.commitment().to_bytes());
            let header = Header { height, last_header_hash, data_hash, ..Header::default() };
            let block = Arc::new(Block::new(header, data));
            parent = block.hash();
            last_data_hash = block.data().hash().to_bytes();
            blocks.insert(0, FetchedBlock { block, signature: None, da: None });
        }
        blocks
    }

    #[test]
    fn only_the_wanted_block_and_its_ancestors_are_taken() {
        let blocks = chain(3..=7);
        let wanted = (Height(7), blocks[0].block.hash());
        assert_eq!(linked(&blocks, wanted, Height(1), None), 5);
        assert_eq!(linked(&blocks, wanted, Height(6), None), 2, "nobody asked for what is below");
        assert_eq!(linked(&blocks, (Height(7), Hash::of(b"other")), Height(1), None), 0);
        assert_eq!(linked(&blocks, (Height(6), blocks[1].block.hash()), Height(1), None), 0);
        let mut skips = blocks.clone();
        skips.remove(2);
        assert_eq!(linked(&skips, wanted, Height(1), None), 2);
        let mut forged = blocks;
        forged[1] = chain(6..=6).remove(0);
        assert_eq!(linked(&forged, wanted, Height(1), None), 1, "what is before the forged one is good");
        let mut hollow = forged;
        hollow[0].block = Arc::new(Block::new(hollow[0].block.header().clone(), Data::default()));
        assert_eq!(linked(&hollow, wanted, Height(1), None), 0, "the right header over other data");
        assert_eq!(linked(&[], wanted, Height(1), None), 0);
    }

    /// What the metadata say of the parent is in no header: another body under the right hash.
    #[test]
    fn a_body_with_other_metadata_than_the_block_above_names_is_not_taken() {
        let blocks = chain(3..=7);
        let wanted = (Height(6), blocks[1].block.hash());
        let above = Some(blocks[0].block.clone());
        let mut below = blocks[1..].to_vec();
        let linked = |below: &[FetchedBlock], above| super::linked(below, wanted, Height(1), above);
        assert_eq!(linked(&below, above.clone()), 4);
        for forged in [0, 2] {
            let mut blocks = below.clone();
            let block = &blocks[forged].block;
            let metadata = block.data().metadata.clone().expect("it has some");
            let metadata = Metadata { last_data_hash: Bytes::from_static(&[1; 32]), ..metadata };
            let data = Data { metadata: Some(metadata), txs: block.txs().to_vec() };
            let body = Arc::new(Block::new(block.header().clone(), data));
            assert_eq!(body.hash(), block.hash(), "the header is the same");
            blocks[forged].block = body;
            assert_eq!(linked(&blocks, above.clone()), forged);
        }
        below.truncate(1);
        assert_eq!(linked(&below, None), 1, "nothing is known of what is above");
    }

    #[tokio::test(start_paused = true)]
    async fn the_rest_is_estimated_from_the_rate_so_far() {
        let since = Instant::now();
        let progress = Progress { since, left: 1_000, logged: since };
        let now = since + Duration::from_secs(2);
        assert_eq!(progress.rate(1_000, now), (0.0, None));
        assert_eq!(progress.rate(800, now), (100.0, Some(Duration::from_secs(8))));
        assert_eq!(progress.rate(0, now), (500.0, Some(Duration::ZERO)));
        assert_eq!(progress.rate(0, since), (0.0, None), "nothing is known yet");
    }

    #[test]
    fn every_failure_has_a_word_and_only_a_damaged_store_needs_a_person() {
        let other = Error::Other(Height(3));
        assert_eq!((other.cause(), other.is_integrity()), ("other_block", false));
        let nobody = Error::Fetch(FetchError::Nobody(Height(3)));
        assert_eq!((nobody.cause(), nobody.is_integrity()), ("nobody_has_it", false));
        let damaged = Error::Store(StoreError::Corrupt("bits".to_owned()));
        assert_eq!((damaged.cause(), damaged.is_integrity()), ("store", true));
    }
}
