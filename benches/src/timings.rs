//! What the executor measured, read from its metrics.

use std::ops::Sub;
use std::time::Duration;

use baton_actors::executor;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

const PRODUCTION: executor::Operation = executor::Operation { operation: "block_production" };

/// Time spent in the parts of block production, added up over the blocks made so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timings {
    /// Blocks made.
    pub blocks: u64,
    /// Seconds from asking for a batch to the executed block.
    pub production: f64,
    /// Seconds from proposing to committed.
    pub commit: f64,
    /// Seconds from asking the engine to its answer.
    pub execution: f64,
    /// Seconds for guard and signature, beside the execution.
    pub signing: f64,
}

impl Timings {
    /// What these metrics show now.
    ///
    /// # Panics
    ///
    /// When the executor no longer has one of these metrics.
    #[must_use]
    pub fn of(metrics: &executor::Metrics) -> Self {
        // A family shows what was asked for at least once.
        drop(metrics.operations.get_or_create(&PRODUCTION));
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).expect("a string takes every line");
        let shown = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("no metric {name}"))
        };
        let seconds = |name: &str| shown(name).parse().expect("a sum is a number");
        Self {
            blocks: shown(r#"sequencer_operation_duration_seconds_count{operation="block_production"}"#)
                .parse()
                .expect("a count is a number"),
            production: seconds(r#"sequencer_operation_duration_seconds_sum{operation="block_production"}"#),
            commit: seconds("sequencer_block_commit_seconds_sum"),
            execution: seconds("sequencer_block_execution_seconds_sum"),
            signing: seconds("sequencer_block_signing_seconds_sum"),
        }
    }

    /// Blocks per second if committing and executing were all there is: 1/(commit + execute).
    #[must_use]
    pub fn ceiling(&self) -> f64 {
        self.blocks as f64 / (self.commit + self.execution)
    }

    /// Blocks per second over a span of time.
    #[must_use]
    pub fn rate(&self, elapsed: Duration) -> f64 {
        self.blocks as f64 / elapsed.as_secs_f64()
    }
}

impl Sub for Timings {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            blocks: self.blocks - earlier.blocks,
            production: self.production - earlier.production,
            commit: self.commit - earlier.commit,
            execution: self.execution - earlier.execution,
            signing: self.signing - earlier.signing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_counts_commit_and_execution_only() {
        let metrics = executor::Metrics::default();
        let before = Timings::of(&metrics);
        for _ in 0..4 {
            metrics.operations.get_or_create(&PRODUCTION).observe(1.0);
            metrics.commit.observe(0.25);
            metrics.execution.observe(0.15);
            metrics.signing.observe(3.0);
        }
        let spent = Timings::of(&metrics) - before;
        assert!((spent.ceiling() - 2.5).abs() < 1e-9, "{spent:?}");
        assert!((spent.rate(Duration::from_secs(8)) - 0.5).abs() < 1e-9, "{spent:?}");
    }
}
