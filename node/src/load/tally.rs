//! What became of the transactions, counted.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::load::target::Outcome;

/// The longest latency that is told apart, in microseconds: longer than any request may take.
const LONGEST: u64 = 120_000_000;

/// How far a node is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Transactions executed.
    pub executed: u64,
    /// Blocks.
    pub blocks: u64,
}

impl Counters {
    /// How far it came. A node that was restarted may count from zero again.
    pub fn between(before: Self, after: Self) -> Self {
        Self {
            executed: after.executed.saturating_sub(before.executed),
            blocks: after.blocks.saturating_sub(before.blocks),
        }
    }
}

/// Outcomes so far. Its size does not depend on how many there are.
#[derive(Clone, Debug)]
pub struct Tally {
    accepted: u64,
    committed: u64,
    executed: u64,
    failed: u64,
    again: u64,
    refused: BTreeMap<u16, u64>,
    latency: Histogram<u64>,
}

impl Default for Tally {
    fn default() -> Self {
        let latency =
            Histogram::new_with_max(LONGEST, 3).expect("three digits up to two minutes is a histogram");
        Self {
            accepted: 0,
            committed: 0,
            executed: 0,
            failed: 0,
            again: 0,
            refused: BTreeMap::new(),
            latency,
        }
    }
}

impl Tally {
    /// Counts one outcome. What was executed was also committed and accepted.
    pub fn record(&mut self, outcome: Outcome, latency: Duration) {
        match outcome {
            Outcome::Refused(status) => *self.refused.entry(status).or_default() += 1,
            Outcome::Failed => self.failed += 1,
            Outcome::Accepted | Outcome::Committed | Outcome::Executed => {
                self.accepted += 1;
                self.committed += u64::from(matches!(outcome, Outcome::Committed | Outcome::Executed));
                self.executed += u64::from(outcome == Outcome::Executed);
                self.latency.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(LONGEST));
            }
        }
    }

    /// Counts a transaction that one node did not take and the next one is given.
    pub fn posted_again(&mut self) {
        self.again += 1;
    }

    /// Writes what happened since `last`, a second ago.
    pub fn progress(&self, last: &Self, second: u64) -> String {
        let accepted = self.accepted - last.accepted;
        let refused = self.all_refused() - last.all_refused();
        let failed = self.failed - last.failed;
        let pushed_back = self.pushed_back() - last.pushed_back();
        format!(
            "{second:>4} s: {accepted} answered, {refused} refused ({pushed_back} back-pressure), {failed} failed; p99 so far {:.1} ms",
            millis(self.latency.value_at_quantile(0.99)),
        )
    }

    fn all_refused(&self) -> u64 {
        self.refused.values().sum()
    }

    fn pushed_back(&self) -> u64 {
        self.refused.get(&429).unwrap_or(&0) + self.refused.get(&503).unwrap_or(&0)
    }
}

/// The result of a run. Rates are per second, latencies in milliseconds; what was not observed is null.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// How long it took.
    pub seconds: f64,
    /// The seed that makes the same transactions.
    pub seed: u64,
    /// Transactions the node took.
    pub accepted: u64,
    /// Those per second.
    pub accepted_per_second: f64,
    /// Transactions seen committed per second (`--wait committed` or `executed`).
    pub committed_per_second: Option<f64>,
    /// Transactions executed per second: seen (`--wait executed`), or counted by the node.
    pub executed_per_second: Option<f64>,
    /// Refusals by HTTP status.
    pub refused: BTreeMap<u16, u64>,
    /// Refusals that mean "not now": 429 and 503.
    pub back_pressure: u64,
    /// Requests without an answer.
    pub failed: u64,
    /// Times a transaction was posted to another node, because one did not take it.
    pub posted_again: u64,
    /// Acknowledged transactions that were found in the chain at the end (`--verify`).
    pub verified: Option<u64>,
    /// Half of the answers came within this.
    pub p50_ms: f64,
    /// 99 of 100 answers came within this.
    pub p99_ms: f64,
    /// The slowest answer.
    pub max_ms: f64,
    /// Blocks per second.
    pub blocks_per_second: Option<f64>,
}

impl Summary {
    /// Sums up what was counted here and, if it could be asked, by the node.
    pub fn new(tally: &Tally, took: Duration, seed: u64, node: Option<Counters>) -> Self {
        let seconds = took.as_secs_f64().max(f64::MIN_POSITIVE);
        let rate = |count: u64| count as f64 / seconds;
        let seen = |count: u64| (count > 0).then(|| rate(count));
        Self {
            seconds,
            seed,
            accepted: tally.accepted,
            accepted_per_second: rate(tally.accepted),
            committed_per_second: seen(tally.committed),
            executed_per_second: seen(tally.executed).or_else(|| node.map(|node| rate(node.executed))),
            refused: tally.refused.clone(),
            back_pressure: tally.pushed_back(),
            failed: tally.failed,
            posted_again: tally.again,
            verified: None,
            p50_ms: millis(tally.latency.value_at_quantile(0.5)),
            p99_ms: millis(tally.latency.value_at_quantile(0.99)),
            max_ms: millis(tally.latency.max()),
            blocks_per_second: node.map(|node| rate(node.blocks)),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let maybe =
            |rate: Option<f64>| rate.map_or_else(|| "not observed".to_owned(), |rate| format!("{rate:.1}"));
        let refused: Vec<_> =
            self.refused.iter().map(|(status, count)| format!("{status}: {count}")).collect();
        let refused = if refused.is_empty() { "none".to_owned() } else { refused.join(", ") };
        writeln!(out, "time        {:.1} s, seed {}", self.seconds, self.seed)?;
        writeln!(out, "accepted/s  {:.1} ({} in all)", self.accepted_per_second, self.accepted)?;
        writeln!(out, "committed/s {}", maybe(self.committed_per_second))?;
        writeln!(out, "executed/s  {}", maybe(self.executed_per_second))?;
        writeln!(
            out,
            "refused     {refused} (back-pressure: {}); no answer: {}; posted again: {}",
            self.back_pressure, self.failed, self.posted_again
        )?;
        if let Some(verified) = self.verified {
            writeln!(out, "verified    {verified} acknowledged transactions are in the chain")?;
        }
        writeln!(
            out,
            "latency     p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
            self.p50_ms, self.p99_ms, self.max_ms
        )?;
        writeln!(out, "blocks/s    {}", maybe(self.blocks_per_second))
    }
}

fn millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally() -> Tally {
        let mut tally = Tally::default();
        tally.record(Outcome::Executed, Duration::from_millis(2));
        tally.record(Outcome::Committed, Duration::from_millis(4));
        tally.record(Outcome::Refused(429), Duration::from_secs(9));
        tally.record(Outcome::Refused(400), Duration::from_secs(9));
        tally.record(Outcome::Failed, Duration::from_secs(9));
        tally
    }

    #[test]
    fn the_summary_tells_back_pressure_from_other_refusals() {
        let summary = Summary::new(&tally(), Duration::from_secs(2), 1, None);
        assert_eq!((summary.accepted, summary.back_pressure, summary.failed), (2, 1, 1));
        assert_eq!(summary.refused, BTreeMap::from([(400, 1), (429, 1)]));
        assert_eq!(summary.committed_per_second, Some(1.0));
        assert_eq!(summary.executed_per_second, Some(0.5));
        assert_eq!(summary.blocks_per_second, None);
    }

    #[test]
    fn only_answers_count_for_latency_and_an_endless_one_is_the_longest() {
        let mut tally = tally();
        assert!(Summary::new(&tally, Duration::from_secs(1), 1, None).max_ms < 5.0);
        tally.record(Outcome::Accepted, Duration::MAX);
        assert!(Summary::new(&tally, Duration::from_secs(1), 1, None).max_ms >= 119_000.0);
    }

    #[test]
    fn what_nobody_saw_is_taken_from_the_node() {
        let mut tally = Tally::default();
        tally.record(Outcome::Accepted, Duration::from_millis(1));
        let node =
            Counters::between(Counters { executed: 10, blocks: 5 }, Counters { executed: 30, blocks: 9 });
        let summary = Summary::new(&tally, Duration::from_secs(2), 1, Some(node));
        assert_eq!((summary.executed_per_second, summary.blocks_per_second), (Some(10.0), Some(2.0)));
        assert!(summary.to_string().contains("committed/s not observed"));
    }

    #[test]
    fn progress_is_what_the_last_second_brought() {
        let mut later = tally();
        later.record(Outcome::Accepted, Duration::from_millis(1));
        assert!(later.progress(&tally(), 3).starts_with("   3 s: 1 answered, 0 refused"));
    }
}
