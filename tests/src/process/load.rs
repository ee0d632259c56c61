//! Clients of a node that dies and comes back: they try again, and remember what they were told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use baton_messages::types::{Hash, Height, Place, Tx};
use bytes::Bytes;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::client::{Ack, Oracle};

/// What a client waits for, in turn.
const WAITS: [&str; 5] = ["accepted", "committed", "accepted", "executed", "committed"];

/// Clients that post transactions, each one after the other, until they are stopped.
#[derive(Debug)]
pub struct Load {
    clients: JoinSet<()>,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
}

impl Load {
    /// Starts that many clients, each with a pause between two transactions. No two of a run post
    /// the same transaction.
    ///
    /// # Panics
    ///
    /// When there is no HTTP client.
    #[must_use]
    pub fn start(url: &str, oracle: &Oracle, clients: usize, pause: Duration) -> Self {
        Self::over(&[url.to_owned()], oracle, clients, pause)
    }

    /// As [`Load::start`], over several nodes: who gets no answer tries the next one.
    ///
    /// # Panics
    ///
    /// When there is no HTTP client.
    #[must_use]
    pub fn over(urls: &[String], oracle: &Oracle, clients: usize, pause: Duration) -> Self {
        // A connection to a process that was killed answers nothing.
        let http =
            reqwest::Client::builder().timeout(Duration::from_secs(8)).build().expect("an HTTP client");
        let (stop, acknowledged) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let mut running = JoinSet::new();
        for number in 0..clients {
            let client = Client {
                name: rand::random(),
                http: http.clone(),
                urls: urls.to_vec(),
                at: AtomicUsize::new(number),
                oracle: oracle.clone(),
                stop: stop.clone(),
                acknowledged: acknowledged.clone(),
            };
            running.spawn(client.run(pause));
        }
        Self { clients: running, stop, acknowledged }
    }

    /// How many transactions were acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Lets every client finish what it does.
    ///
    /// # Panics
    ///
    /// When a client was told something that contradicts what was told before.
    pub async fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("a client was told nonsense");
        }
    }
}

struct Client {
    name: u32,
    http: reqwest::Client,
    urls: Vec<String>,
    /// Which of them is asked.
    at: AtomicUsize,
    oracle: Oracle,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
}

impl Client {
    async fn run(self, pause: Duration) {
        for number in 0_usize.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let tx = Tx(Bytes::from(format!("{:x}/{number}={number}", self.name)));
            self.oracle.attempt(&tx);
            // Most are tried again until somebody answers: a block must not take them twice. The
            // others may be in the chain or not.
            let patient = number % 4 != 3;
            loop {
                if let Some(ack) = self.post(&tx, WAITS[number % WAITS.len()]).await {
                    self.oracle.told(&tx, ack);
                    self.acknowledged.fetch_add(1, Ordering::Relaxed);
                    break;
                }
                if !patient || self.stop.load(Ordering::Relaxed) {
                    break;
                }
                self.at.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_millis(10)).await;
            }
            sleep(pause).await;
        }
    }

    /// What the answer acknowledges; `None`: there was none, or it promises nothing.
    async fn post(&self, tx: &Tx, wait: &str) -> Option<Ack> {
        let at = self.at.load(Ordering::Relaxed) % self.urls.len();
        let url = format!("{}/tx?wait={wait}&timeout=5s", self.urls[at]);
        let answer = self.http.post(url).body(tx.0.clone()).send().await.ok()?;
        let code = answer.status().as_u16();
        let answer: Value = answer.json().await.ok()?;
        match answer["status"].as_str() {
            Some("accepted") => Some(Ack::Accepted),
            Some("committed" | "executed") => Some(Ack::Committed(place(&answer))),
            Some("full" | "not_ready" | "unknown") => None,
            _ => panic!("{code} {answer} for {tx:?}"),
        }
    }
}

fn place(answer: &Value) -> Place {
    let mut hash = [0; 32];
    let text = answer["header_hash"].as_str().expect("a place has a header hash");
    hex::decode_to_slice(text, &mut hash).expect("a hash is hex");
    let height = Height(answer["height"].as_u64().expect("a place has a height"));
    let index = answer["index"].as_u64().and_then(|index| u32::try_from(index).ok());
    Place { height, index: index.expect("a place has an index"), header_hash: Hash(hash) }
}
