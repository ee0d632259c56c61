//! The node that gets the transactions.

use std::time::Duration;

use clap::ValueEnum;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::{Client, Url};
use serde::Deserialize;

use crate::load::tally::Counters;
use crate::load::{Args, Error};

/// How long one request may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// How long the node may take to say how far it is.
const COUNT_WITHIN: Duration = Duration::from_secs(5);

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Wait {
    /// The plain answer of the app, without JSON.
    None,
    /// The transaction is in the node's durable queue.
    Accepted,
    /// It is in a committed block.
    Committed,
    /// Its block was executed.
    Executed,
}

/// What became of one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// In the node's durable queue.
    Accepted,
    /// In a committed block.
    Committed,
    /// Executed.
    Executed,
    /// Refused, with this status.
    Refused(u16),
    /// No answer: it may or may not be in the chain.
    Failed,
}

/// The node under load.
#[derive(Clone, Debug)]
pub struct Target {
    client: Client,
    tx: Url,
    stats: Url,
    status: Option<Url>,
    wait: Wait,
    seed: u64,
    size: usize,
}

/// The app's counters, as `GET /stats` names them.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Stats {
    executed_txs: u64,
    blocks_produced: u64,
}

impl Target {
    /// Checks the addresses and makes a client that keeps its connections.
    pub fn new(args: &Args, seed: u64) -> Result<Self, Error> {
        let kv = base("--url", &args.url)?;
        let mut tx = join(&kv, "tx");
        let wait = match args.wait {
            Wait::None => None,
            Wait::Accepted => Some("accepted"),
            Wait::Committed => Some("committed"),
            Wait::Executed => Some("executed"),
        };
        if let Some(wait) = wait {
            tx.query_pairs_mut().append_pair("wait", wait);
        }
        let status = args.rpc.as_deref().map(|rpc| base("--rpc", rpc)).transpose()?;
        let client = Client::builder()
            .pool_max_idle_per_host(usize::try_from(args.connections).unwrap_or(usize::MAX))
            .timeout(ANSWER_WITHIN)
            .no_proxy()
            .build()
            .map_err(Error::Client)?;
        let (stats, status) = (join(&kv, "stats"), status.map(|rpc| join(&rpc, "status")));
        Ok(Self { client, tx, stats, status, wait: args.wait, seed, size: args.size as usize })
    }

    /// Posts one transaction and says what became of it.
    pub async fn post(&self, number: u64) -> Outcome {
        let request = self.client.post(self.tx.clone()).body(transaction(self.seed, number, self.size));
        let Ok(response) = request.send().await else { return Outcome::Failed };
        let status = response.status();
        // The connection is used again only once the body was read.
        if response.bytes().await.is_err() {
            return Outcome::Failed;
        }
        if !status.is_success() {
            return Outcome::Refused(status.as_u16());
        }
        match self.wait {
            Wait::None | Wait::Accepted => Outcome::Accepted,
            Wait::Committed => Outcome::Committed,
            Wait::Executed => Outcome::Executed,
        }
    }

    /// Asks how far the node is.
    pub async fn counters(&self) -> Result<Counters, Error> {
        let stats: Stats = self.get(&self.stats).await?;
        let height = match &self.status {
            Some(status) => crate::devnet::probe::view(&self.get(status).await?).height,
            None => None,
        };
        Ok(Counters { executed: stats.executed_txs, blocks: height.unwrap_or(stats.blocks_produced) })
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, url: &Url) -> Result<T, Error> {
        let response = self.client.get(url.clone()).timeout(COUNT_WITHIN).send().await;
        let answer = async { response?.error_for_status()?.json().await };
        answer.await.map_err(|source| Error::NoAnswer { url: url.to_string(), source })
    }
}

/// Makes transaction `number` of a seed: `key=value` as the app wants it, `size` bytes, never the
/// same twice.
fn transaction(seed: u64, number: u64, size: usize) -> Vec<u8> {
    let mut tx = format!("load-{seed:016x}-{number:x}=").into_bytes();
    let mut chance = StdRng::seed_from_u64(seed ^ number.rotate_left(32));
    while tx.len() < size {
        tx.push(chance.random_range(b'a'..=b'z'));
    }
    tx
}

fn base(flag: &'static str, value: &str) -> Result<Url, Error> {
    let refused = |reason: String| Error::Url { flag, value: value.to_owned(), reason };
    let url = Url::parse(value).map_err(|error| refused(format!("{error}; write http://HOST:PORT")))?;
    match url.scheme() {
        "http" if url.has_host() => Ok(url),
        _ => Err(refused("not an http:// address".to_owned())),
    }
}

fn join(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/{path}", base.path().trim_end_matches('/')));
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_the_same_transactions_again_and_no_two_alike() {
        assert_eq!(transaction(7, 1, 100), transaction(7, 1, 100));
        assert_ne!(transaction(7, 1, 100), transaction(7, 2, 100));
        assert_ne!(transaction(7, 1, 100), transaction(8, 1, 100));
    }

    #[test]
    fn a_transaction_has_a_key_a_value_and_the_size_asked_for() {
        let tx = transaction(u64::MAX, u64::MAX, 48);
        assert_eq!(tx.len(), 48);
        let text = String::from_utf8(tx).unwrap();
        let (key, value) = text.split_once('=').unwrap();
        assert!(!key.is_empty() && !value.is_empty());
    }

    #[test]
    fn an_address_that_is_none_is_refused_with_its_flag() {
        for bad in ["127.0.0.1:1", "ftp://127.0.0.1", "https://127.0.0.1", ""] {
            assert!(base("--url", bad).unwrap_err().to_string().starts_with("--url"), "{bad}");
        }
        assert_eq!(
            join(&base("--url", "http://127.0.0.1:1/").unwrap(), "tx").as_str(),
            "http://127.0.0.1:1/tx"
        );
    }
}
