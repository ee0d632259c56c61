//! The reaper moves transactions from the engine's own pool to the sequencer.
//!
//! It runs while this node leads. It keeps nothing: what it has not handed over is still in
//! the pool and comes up again in the next round, and so does what it has; the sequencer knows
//! what it holds.

use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, MailboxError, Recipient, WrapFuture};
use baton_messages::engine::{EngineError, PendingTxs};
use baton_messages::sequencer::{SubmitError, SubmitTxs};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tracing::{debug, warn};

/// How the reaper behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Pause between two rounds (ev-node's `node.scrape_interval`).
    pub interval: Duration,
    /// The longest pause after failures.
    pub longest_pause: Duration,
    /// How long an answer may take.
    pub reply_within: Duration,
    /// Bytes taken in one round.
    pub max_bytes: usize,
}

/// Everything the reaper says, and to whom.
#[derive(Clone, Debug)]
pub struct Links {
    /// Lists what waits in the pool.
    pub pending_txs: Recipient<PendingTxs>,
    /// Takes what was listed.
    pub submit_txs: Recipient<SubmitTxs>,
}

/// What the reaper counts.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Transactions handed over, again and again while they are pending.
    pub moved: Counter,
    /// Rounds that failed.
    pub failures: Counter,
}

impl Metrics {
    /// Makes the metrics visible.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("reaper");
        registry.register("moved", "Transactions handed to the sequencer", self.moved.clone());
        registry.register("failures", "Rounds that failed", self.failures.clone());
    }
}

/// Why a round moved nothing.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("no reply from the engine: {0}")]
    NoEngine(MailboxError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("no reply from the sequencer to {count} transactions: {source}")]
    NoSequencer { count: usize, source: MailboxError },
    #[error(transparent)]
    Refused(#[from] SubmitError),
}

/// The reaper.
#[derive(Debug)]
pub struct Reaper {
    config: Config,
    links: Links,
    metrics: Metrics,
    failures: u32,
}

impl Reaper {
    /// A reaper that begins when it is started.
    #[must_use]
    pub const fn new(config: Config, links: Links, metrics: Metrics) -> Self {
        Self { config, links, metrics, failures: 0 }
    }

    fn begin_round(&mut self, ctx: &mut Context<Self>) {
        let round = reap(self.links.clone(), self.config.clone());
        ctx.wait(round.into_actor(self).map(|moved, this, ctx| this.end_round(moved, ctx)));
    }

    fn end_round(&mut self, moved: Result<usize, Error>, ctx: &mut Context<Self>) {
        let pause = match moved {
            Ok(count) => {
                debug!(count, "moved transactions");
                self.metrics.moved.inc_by(count as u64);
                self.failures = 0;
                self.config.interval
            }
            Err(error) => {
                self.failures += 1;
                self.metrics.failures.inc();
                warn!(%error, failures = self.failures, "moved no transactions");
                backoff(&self.config, self.failures)
            }
        };
        ctx.run_later(pause, Self::begin_round);
    }
}

impl Actor for Reaper {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.begin_round(ctx);
    }
}

/// Asks for what is pending and hands it on. Returns how many there were.
async fn reap(links: Links, config: Config) -> Result<usize, Error> {
    let pending = links.pending_txs.send(PendingTxs { max_bytes: config.max_bytes });
    let txs = pending.timeout(config.reply_within).await.map_err(Error::NoEngine)??;
    if txs.is_empty() {
        return Ok(0);
    }
    let count = txs.len();
    let submit = links.submit_txs.send(SubmitTxs { txs }).timeout(config.reply_within);
    submit.await.map_err(|source| Error::NoSequencer { count, source })??;
    Ok(count)
}

/// Doubles with every failure (ev-node: the interval times 2^min(n,5), at most 30 s).
fn backoff(config: &Config, failures: u32) -> Duration {
    (config.interval * 2u32.pow(failures.min(5))).min(config.longest_pause)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config {
            interval: Duration::from_secs(1),
            longest_pause: Duration::from_secs(30),
            reply_within: Duration::from_secs(5),
            max_bytes: 1 << 20,
        }
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let pauses: Vec<u64> = (1..8).map(|failures| backoff(&config(), failures).as_secs()).collect();
        assert_eq!(pauses, [2, 4, 8, 16, 30, 30, 30]);
    }
}
