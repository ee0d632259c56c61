//! The nodes that get the transactions.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clap::ValueEnum;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
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

impl Outcome {
    /// It says "not now" or nothing, and may be another one later, or elsewhere.
    #[must_use]
    pub const fn is_passing(self) -> bool {
        matches!(self, Self::Refused(429 | 503 | 504) | Self::Failed)
    }
}

/// The pages of one node.
#[derive(Clone, Debug)]
struct Node {
    tx: Url,
    stats: Url,
    kv: Url,
}

/// The nodes under load.
#[derive(Debug)]
pub struct Target {
    client: Client,
    nodes: Vec<Node>,
    /// Which one is asked now.
    now: AtomicUsize,
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
        let wait = match args.wait {
            Wait::None => None,
            Wait::Accepted => Some("accepted"),
            Wait::Committed => Some("committed"),
            Wait::Executed => Some("executed"),
        };
        let node = |url: &String| -> Result<Node, Error> {
            let base = base("--url", url)?;
            let mut tx = join(&base, "tx");
            if let Some(wait) = wait {
                tx.query_pairs_mut().append_pair("wait", wait);
            }
            Ok(Node { tx, stats: join(&base, "stats"), kv: join(&base, "kv") })
        };
        let nodes = args.url.iter().map(node).collect::<Result<Vec<_>, _>>()?;
        let status = args.rpc.as_deref().map(|rpc| base("--rpc", rpc)).transpose()?;
        let client = Client::builder()
            .pool_max_idle_per_host(usize::try_from(args.connections).unwrap_or(usize::MAX))
            .timeout(ANSWER_WITHIN)
            .no_proxy()
            .build()
            .map_err(Error::Client)?;
        let status = status.map(|rpc| join(&rpc, "status"));
        let (wait, size, now) = (args.wait, args.size as usize, AtomicUsize::new(0));
        Ok(Self { client, nodes, now, status, wait, seed, size })
    }

    /// Whether there is no other node to ask.
    pub fn is_single(&self) -> bool {
        self.nodes.len() == 1
    }

    /// From now on the next node is asked, unless somebody else turned away from this one already.
    pub fn turn_from(&self, asked: usize) {
        let next = (asked + 1) % self.nodes.len();
        let _turned = self.now.compare_exchange(asked, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Posts one transaction to the node of the moment and says what became of it, and which node
    /// was asked.
    pub async fn post(&self, number: u64) -> (Outcome, usize) {
        let asked = self.now.load(Ordering::Relaxed);
        (self.post_to(&self.nodes[asked], number).await, asked)
    }

    async fn post_to(&self, node: &Node, number: u64) -> Outcome {
        let request = self.client.post(node.tx.clone()).body(transaction(self.seed, number, self.size));
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

    /// Whether a node has the transaction in its state. `None`: none of them says.
    pub async fn has(&self, number: u64) -> Option<bool> {
        for _ in &self.nodes {
            let asked = self.now.load(Ordering::Relaxed);
            let mut url = self.nodes[asked].kv.clone();
            url.query_pairs_mut().append_pair("key", &key(self.seed, number));
            let answer = self.client.get(url).timeout(COUNT_WITHIN).send().await;
            match answer.map(|answer| answer.status().as_u16()) {
                Ok(200) => return Some(true),
                Ok(404) => return Some(false),
                Ok(_) | Err(_) => self.turn_from(asked),
            }
        }
        None
    }

    /// Asks how far the nodes are: the first that answers.
    pub async fn counters(&self) -> Result<Counters, Error> {
        let mut stats = Err(None);
        for node in &self.nodes {
            match self.get::<Stats>(&node.stats).await {
                Ok(found) => {
                    stats = Ok(found);
                    break;
                }
                Err(error) => stats = Err(Some(error)),
            }
        }
        let stats = stats.map_err(|error| error.expect("there is one node at least"))?;
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

/// The key of transaction `number` of a seed.
pub fn key(seed: u64, number: u64) -> String {
    format!("load-{seed:016x}-{number:x}")
}

/// Makes transaction `number` of a seed: `key=value` as the app wants it, `size` bytes, never the
/// same twice.
fn transaction(seed: u64, number: u64, size: usize) -> Vec<u8> {
    let mut tx = key(seed, number).into_bytes();
    tx.push(b'=');
    let head = tx.len();
    tx.resize(size.max(head), 0);
    // All of it at once: a draw for each byte costs more than the rest of the load.
    StdRng::seed_from_u64(seed ^ number.rotate_left(32)).fill_bytes(&mut tx[head..]);
    tx[head..].iter_mut().for_each(|byte| *byte = b'a' + *byte % 16);
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
