//! `baton load`: posts transactions to a node, or to any of several, and measures what becomes
//! of them.
//!
//! Each connection has one request in flight, so the load has a bound of its own: against a node
//! that is slow it waits, it never piles up. With several nodes a transaction that one did not
//! take is posted to the next one until somebody does; that is safe, a chain takes it once.
#![allow(clippy::disallowed_methods, reason = "a client of a running node, outside of the simulation")]

pub mod pace;
pub mod tally;
pub mod target;
pub mod verify;

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Args as ClapArgs;
use futures::future::join_all;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::exit::{ExitCode, ExitError};
use crate::load::pace::Pace;
use crate::load::tally::{Counters, Summary, Tally};
use crate::load::target::{Outcome, Target, Wait};
use crate::load::verify::Numbers;

/// How long a connection rests after the node said that it is full, at first and at most.
const REST: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(320));

/// How long the end waits for requests in flight.
const DRAIN: Duration = Duration::from_secs(10);

/// Posts transactions to a node's `POST /tx`, at a rate or as fast as it takes them.
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    /// The key-value app of the node. Several, with commas or by repetition: of each node of a cluster;
    /// what one does not take is posted to the next.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:27011", value_delimiter = ',')]
    pub url: Vec<String>,

    /// The RPC of a node, where its height is read [default: blocks are counted by the app].
    #[arg(long, value_name = "URL")]
    pub rpc: Option<String>,

    /// Transactions per second; as many as it takes if left out.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub rate: Option<u64>,

    /// How long.
    #[arg(long = "for", value_name = "D", default_value = "10s", value_parser = humantime::parse_duration)]
    pub run_for: Duration,

    /// How many requests are in flight at most.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub connections: u32,

    /// Bytes per transaction.
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(48..=16_777_216))]
    pub size: u32,

    /// What each request waits for.
    #[arg(long, value_enum, default_value_t = Wait::None)]
    pub wait: Wait,

    /// Makes the transactions; the same seed makes the same ones, which a chain takes once [default: random].
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,

    /// Look every transaction up at the end that was acknowledged, and fail if one is missing.
    #[arg(long)]
    pub verify: bool,

    /// Write the summary to stdout as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address that is none.
    #[error("{flag} {value}: {reason}")]
    Url {
        /// The flag.
        flag: &'static str,
        /// What was given.
        value: String,
        /// What is wrong.
        reason: String,
    },
    /// No HTTP client.
    #[error("cannot make an HTTP client: {0}")]
    Client(reqwest::Error),
    /// The node does not answer.
    #[error("{url} does not answer: {source}; is the node running with --kv-endpoint?")]
    NoAnswer {
        /// The address asked.
        url: String,
        /// What the client says.
        source: reqwest::Error,
    },
    /// Transactions are not in the chain that a node has acknowledged.
    #[error("{missing} of {acknowledged} acknowledged transactions are missing, such as {example}")]
    Lost {
        /// How many.
        missing: u64,
        /// Of how many.
        acknowledged: u64,
        /// The key of one.
        example: String,
    },
    /// Stdout is closed.
    #[error("cannot write the summary: {0}")]
    Output(#[from] io::Error),
}

impl From<Error> for ExitError {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Url { .. } => ExitCode::Usage,
            Error::NoAnswer { .. } => ExitCode::RetryLater,
            Error::Lost { .. } => ExitCode::Integrity,
            Error::Client(_) | Error::Output(_) => ExitCode::Other,
        };
        Self::new(code, error)
    }
}

/// Posts for the time asked for, or until Ctrl-C, and prints a summary.
pub async fn run(args: Args) -> Result<(), ExitError> {
    let (summary, lost) = post(&args).await?;
    let text = match args.json {
        true => serde_json::to_string(&summary).expect("numbers are written as JSON") + "\n",
        false => summary.to_string(),
    };
    io::stdout().write_all(text.as_bytes()).map_err(Error::Output)?;
    lost.map_or(Ok(()), |lost| Err(lost.into()))
}

/// What the connections share.
struct Shared {
    target: Target,
    acknowledged: Option<Mutex<Numbers>>,
    pace: Pace,
    next: AtomicU64,
    stop: AtomicBool,
    until: Instant,
    tally: Mutex<Tally>,
}

async fn post(args: &Args) -> Result<(Summary, Option<Error>), Error> {
    let seed = args.seed.unwrap_or_else(rand::random);
    let target = Target::new(args, seed)?;
    // Also the check that somebody is there.
    let before = target.counters().await?;
    let start = Instant::now();
    let shared = Arc::new(Shared {
        target,
        acknowledged: args.verify.then(Mutex::default),
        pace: Pace::new(args.rate),
        next: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        until: start + args.run_for,
        tally: Mutex::new(Tally::default()),
    });
    let connections = (0..args.connections).map(|_| tokio::spawn(connection(shared.clone(), start)));
    let connections: Vec<_> = connections.collect();
    let aborts: Vec<_> = connections.iter().map(tokio::task::JoinHandle::abort_handle).collect();

    tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => {}
        () = progress(&shared, start) => {}
    }
    let took = start.elapsed();
    shared.stop.store(true, Ordering::Relaxed);
    if timeout(DRAIN, join_all(connections)).await.is_err() {
        aborts.iter().for_each(tokio::task::AbortHandle::abort);
    }
    let after = shared.target.counters().await.ok();
    let tally = shared.tally.lock().expect("no connection panics with the tally").clone();
    let mut summary = Summary::new(&tally, took, seed, after.map(|after| Counters::between(before, after)));
    let Some(acknowledged) = &shared.acknowledged else { return Ok((summary, None)) };
    let numbers = acknowledged.lock().expect("no connection panics with the numbers").clone();
    let missing = verify::missing(&shared.target, &numbers, args.connections).await?;
    summary.verified = Some(numbers.len() - missing.len() as u64);
    let lost = missing.first().map(|number| Error::Lost {
        missing: missing.len() as u64,
        acknowledged: numbers.len(),
        example: target::key(seed, *number),
    });
    Ok((summary, lost))
}

/// One line per second on stderr, until the time is over.
async fn progress(shared: &Shared, start: Instant) {
    let mut last = Tally::default();
    for second in 1.. {
        let tick = start + Duration::from_secs(second);
        sleep_until(tick.min(shared.until)).await;
        let now = shared.tally.lock().expect("no connection panics with the tally").clone();
        eprintln!("{}", now.progress(&last, second));
        last = now;
        if tick >= shared.until {
            return;
        }
    }
}

/// Posts one transaction after the other.
async fn connection(shared: Arc<Shared>, start: Instant) {
    let mut rest = REST.0;
    loop {
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        let due = start + shared.pace.due(number);
        if due >= shared.until {
            return;
        }
        sleep_until(due).await;
        if shared.stop.load(Ordering::Relaxed) || Instant::now() >= shared.until {
            return;
        }
        let sent = Instant::now();
        let outcome = post_until_taken(&shared, number, &mut rest).await;
        let pushed_back = outcome.is_passing();
        if !pushed_back && let Some(numbers) = &shared.acknowledged {
            let taken = !matches!(outcome, Outcome::Refused(_));
            numbers.lock().expect("no connection panics with the numbers").note(number, taken);
        }
        shared.tally.lock().expect("no connection panics with the tally").record(outcome, sent.elapsed());
        if pushed_back {
            sleep(rest).await;
            rest = (rest * 2).min(REST.1);
        } else {
            rest = REST.0;
        }
    }
}

/// Posts a transaction to one node after the other, until one takes it or the time is over.
async fn post_until_taken(shared: &Shared, number: u64, rest: &mut Duration) -> Outcome {
    loop {
        let (outcome, asked) = shared.target.post(number).await;
        if !outcome.is_passing() || shared.target.is_single() || shared.stop.load(Ordering::Relaxed) {
            return outcome;
        }
        shared.target.turn_from(asked);
        shared.tally.lock().expect("no connection panics with the tally").posted_again();
        sleep(*rest).await;
        *rest = (*rest * 2).min(REST.1);
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::{get, post as posted};
    use clap::Parser;
    use tokio::net::TcpListener;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn args(words: &[&str]) -> Args {
        Cli::try_parse_from(std::iter::once(&"load").chain(words)).unwrap().args
    }

    /// What a node that refuses every third transaction saw.
    #[derive(Default)]
    struct Node {
        posted: AtomicU64,
        now: AtomicU64,
        most: AtomicU64,
    }

    impl Node {
        async fn take(&self) -> StatusCode {
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            tokio::task::yield_now().await;
            self.now.fetch_sub(1, Ordering::SeqCst);
            match self.posted.fetch_add(1, Ordering::SeqCst) % 3 {
                0 => StatusCode::TOO_MANY_REQUESTS,
                _ => StatusCode::ACCEPTED,
            }
        }
    }

    async fn serve() -> (Arc<Node>, String) {
        let node = Arc::new(Node::default());
        let taking = node.clone();
        let tx = posted(move || {
            let node = taking.clone();
            async move { node.take().await }
        });
        let stats = get(|| async { r#"{"injected_txs":0,"executed_txs":0,"blocks_produced":0}"# });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().route("/tx", tx).route("/stats", stats);
        tokio::spawn(async move { axum::serve(listener, app).await });
        (node, url)
    }

    #[tokio::test]
    async fn every_request_is_counted_once_and_no_more_are_in_flight_than_connections() {
        let (node, url) = serve().await;
        let (summary, _) =
            post(&args(&["--url", &url, "--for", "300ms", "--connections", "3"])).await.unwrap();
        assert!(node.most.load(Ordering::SeqCst) <= 3);
        assert!(summary.accepted > 0 && summary.back_pressure > 0);
        assert_eq!(summary.accepted + summary.back_pressure, node.posted.load(Ordering::SeqCst));
        assert_eq!(summary.failed, 0);
    }

    #[tokio::test]
    async fn a_rate_is_never_exceeded() {
        let (node, url) = serve().await;
        post(&args(&["--url", &url, "--for", "500ms", "--rate", "20"])).await.unwrap();
        assert!((1..=10).contains(&node.posted.load(Ordering::SeqCst)));
    }

    #[tokio::test]
    async fn a_node_that_died_is_passed_over_and_every_transaction_is_taken_by_another() {
        let (node, url) = serve().await;
        let both = format!("http://127.0.0.1:1,{url}");
        let (summary, _) =
            post(&args(&["--url", &both, "--for", "300ms", "--connections", "2"])).await.unwrap();
        assert!(summary.accepted > 0 && summary.posted_again > 0);
        // A refusal that passes is no outcome while there is another node to ask.
        assert!(summary.back_pressure + summary.failed <= 2, "{summary:?}");
        assert!(node.posted.load(Ordering::SeqCst) >= summary.accepted);
    }

    #[tokio::test]
    async fn an_acknowledged_transaction_that_is_not_in_the_chain_is_a_failure() {
        let (_node, url) = serve().await;
        let (summary, lost) = post(&args(&["--url", &url, "--for", "200ms", "--verify"])).await.unwrap();
        assert_eq!(summary.verified, Some(0), "this node keeps nothing");
        let Some(Error::Lost { missing, acknowledged, .. }) = lost else { panic!("{lost:?}") };
        assert_eq!((missing, acknowledged), (summary.accepted, summary.accepted));
    }

    #[tokio::test]
    async fn a_node_that_is_not_there_is_named() {
        let error = post(&args(&["--url", "http://127.0.0.1:1"])).await.unwrap_err().to_string();
        assert!(error.contains("http://127.0.0.1:1/stats does not answer"), "{error}");
    }

    #[test]
    fn numbers_without_a_bound_are_refused() {
        for words in [["--connections", "0"], ["--rate", "0"], ["--size", "10"], ["--connections", "1000000"]]
        {
            let words = std::iter::once("load").chain(words);
            assert!(Cli::try_parse_from(words).is_err());
        }
    }
}
