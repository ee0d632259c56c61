//! A node made of a store in memory and actors that say what a test wants.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use actix::{Actor, Context, Handler, MessageResult};
use baton_messages::chain::{Block, Data, Header, Metadata, Signer};
use baton_messages::command::{
    BlockEntry, Command, ForcedPosition, HeaderSignature, Lane, Submitted, Verdict,
};
use baton_messages::da::Namespace;
use baton_messages::engine::{EngineError, EnginePosition, GetPosition};
use baton_messages::genesis::Genesis;
use baton_messages::status::{GetNodeStatus, NodeStatus};
use baton_messages::types::{DaHeight, Hash, Height, Term, Timestamp, Tx};
use baton_storage::memory::Disk;
use baton_storage::raft_types::{Entry, Payload, log_id};
use baton_storage::{Completion, OpenOptions, Store};
use bytes::Bytes;
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use uuid::Uuid;

use crate::metrics;
use crate::rpc::{Chain, Condition, Limits, Metrics, Parts, Server};

/// The time of the genesis; every block is a second after the one before.
pub(super) const START: u64 = 1_735_787_046_123_456_789;
/// After the blocks of every test.
pub(super) const NOW: u64 = START + 10_000_000_000;
pub(super) const TERM: Term = Term(1);

/// Says what it was told to say.
struct Says {
    status: NodeStatus,
    position: EnginePosition,
}

impl Actor for Says {
    type Context = Context<Self>;
}

impl Handler<GetNodeStatus> for Says {
    type Result = MessageResult<GetNodeStatus>;

    fn handle(&mut self, _: GetNodeStatus, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.status.clone())
    }
}

impl Handler<GetPosition> for Says {
    type Result = Result<EnginePosition, EngineError>;

    fn handle(&mut self, _: GetPosition, _: &mut Self::Context) -> Self::Result {
        Ok(self.position.clone())
    }
}

/// What a node of a test is made of.
pub(super) struct Setup {
    pub(super) store: Store,
    pub(super) status: NodeStatus,
    pub(super) position: EnginePosition,
    pub(super) limits: Limits,
}

/// A node that answers.
pub(super) struct Node {
    pub(super) address: SocketAddr,
    pub(super) metrics: metrics::Metrics,
    http: reqwest::Client,
}

pub(super) fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

pub(super) fn signer() -> Signer {
    Signer::ed25519(key().verifying_key().as_bytes())
}

pub(super) fn genesis() -> Genesis {
    Genesis {
        chain_id: "test-chain".to_owned(),
        start_time: Timestamp(START),
        initial_height: Height(1),
        proposer_address: signer().address,
        da_start_height: DaHeight(4),
        da_epoch_forced_inclusion: 1,
    }
}

/// Three blocks; only the second has a transaction.
pub(super) fn blocks() -> Vec<Arc<Block>> {
    let mut blocks: Vec<Arc<Block>> = Vec::new();
    for height in 1..=3_u64 {
        let parent = blocks.last();
        let txs = if height == 2 { vec![Tx(Bytes::from_static(b"a=b"))] } else { vec![] };
        let time = Timestamp(START + (height - 1) * 1_000_000_000);
        let metadata = Metadata {
            chain_id: "test-chain".to_owned(),
            height: Height(height),
            time,
            last_data_hash: parent.map_or_else(Bytes::new, |parent| parent.data().hash().to_bytes()),
        };
        let data = Data { metadata: Some(metadata), txs };
        let header = Header {
            height: Height(height),
            time,
            last_header_hash: parent.map_or_else(Bytes::new, |parent| parent.hash().to_bytes()),
            data_hash: data.commitment().to_bytes(),
            app_hash: root(height - 1),
            proposer_address: signer().address,
            chain_id: "test-chain".to_owned(),
            ..Header::default()
        };
        blocks.push(Block::shared(header, data));
    }
    blocks
}

/// The state root after a height.
pub(super) fn root(height: u64) -> Bytes {
    Bytes::from(format!("root {height}"))
}

pub(super) fn signature(block: &Block) -> HeaderSignature {
    let signature = Bytes::copy_from_slice(&key().sign(&block.header().encode()).to_bytes());
    HeaderSignature { height: block.height(), hash: block.hash(), signature }
}

/// The log that leads to the three blocks: the third is not signed, the first two are on DA.
pub(super) fn log() -> Vec<Command> {
    let blocks = blocks();
    let entry = |index: usize| {
        let tail = index.checked_sub(1).map(|parent| signature(&blocks[parent]));
        Command::Block(BlockEntry {
            term: TERM,
            block: Arc::clone(&blocks[index]),
            tail,
            forced: ForcedPosition::default(),
        })
    };
    let submitted = |lane, from, to, da_height| {
        Command::Submitted(Submitted {
            lane,
            from: Height(from),
            to: Height(to),
            da_height: DaHeight(da_height),
        })
    };
    vec![
        entry(0),
        entry(1),
        entry(2),
        submitted(Lane::Header, 1, 2, 7),
        submitted(Lane::Data, 1, 2, 8),
        Command::Included(Height(2)),
    ]
}

impl Setup {
    /// A node with the three blocks, or with an empty store.
    pub(super) fn new(log: Vec<Command>) -> Self {
        let store = empty_store();
        apply(&store, log);
        let reader = store.reader();
        let status = NodeStatus { tip: reader.tip(), da: reader.da_progress(), ..NodeStatus::default() };
        Self { store, status, position: EnginePosition::default(), limits: Limits::default() }
    }

    /// The node answers while the test asks.
    pub(super) async fn run<F: Future<Output = ()>>(self, test: impl FnOnce(Node) -> F) {
        let Self { store, status, position, limits } = self;
        LocalSet::new()
            .run_until(async {
                let says = Says { status, position }.start();
                let now = Arc::new(|| Timestamp(NOW));
                let condition = Condition { node_status: says.clone().recipient(), now, stale_after: None };
                let counters = Metrics::default();
                let mut registry = metrics::Builder::new("test-chain", "evnode");
                counters.register(registry.registry());
                let metrics = registry.build(condition.clone(), store.clone());
                let chain = Chain {
                    store,
                    genesis: Arc::new(genesis()),
                    signer: signer(),
                    header_namespace: Namespace([1; 29]),
                    data_namespace: Namespace([2; 29]),
                    engine_position: Some(says.recipient()),
                };
                let parts = Parts {
                    node: "n1".to_owned(),
                    chain,
                    condition,
                    metrics: metrics.clone(),
                    counters,
                    limits,
                    net_info: None,
                };
                let server = Server::bind("127.0.0.1:0", parts).await.unwrap();
                let address = server.local_addr();
                let (stop, stopped) = oneshot::channel::<()>();
                let serving = tokio::spawn(server.serve(async {
                    let _ = stopped.await;
                }));
                test(Node { address, metrics, http: reqwest::Client::new() }).await;
                drop(stop);
                serving.await.unwrap();
            })
            .await;
    }
}

impl Node {
    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Status and body of a request without a body.
    pub(super) async fn ask(&self, method: reqwest::Method, path: &str) -> (u16, String) {
        let response = self.http.request(method, self.url(path)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    pub(super) async fn get(&self, path: &str) -> (u16, String) {
        self.ask(reqwest::Method::GET, path).await
    }

    /// A call with any body.
    pub(super) async fn post(&self, method: &str, content_type: &str, body: Vec<u8>) -> (u16, Vec<u8>) {
        let path = self.url(&format!("/evnode.v1.{method}"));
        let request = self.http.post(path).header("content-type", content_type).body(body);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.bytes().await.unwrap().to_vec())
    }

    /// A call in Connect JSON.
    pub(super) async fn json(&self, method: &str, request: Value) -> (u16, Value) {
        let (status, body) = self.post(method, "application/json", request.to_string().into_bytes()).await;
        (status, serde_json::from_slice(&body).unwrap_or_else(|_| json!(String::from_utf8_lossy(&body))))
    }
}

/// The hash under which ev-node's index has a block.
pub(super) fn index_hash(block: &Block) -> Hash {
    let signed = baton_messages::chain::SignedHeader {
        header: block.header().clone(),
        signature: signature(block).signature,
        signer: signer(),
    };
    Hash::of(&signed.encode())
}

/// A store in memory without blocks.
fn empty_store() -> Store {
    let options = OpenOptions {
        path: PathBuf::new(),
        chain_id: "test-chain".to_owned(),
        genesis: genesis(),
        completion: Completion::Inline,
    };
    Store::create_in_memory(&Disk::new(), options, Uuid::from_u128(1)).unwrap()
}

/// Applies a log from its beginning; everything in it must be taken.
fn apply(store: &Store, log: Vec<Command>) {
    let entry = |(index, command)| Entry { log_id: log_id(TERM.0, index), payload: Payload::Normal(command) };
    let entries: Vec<_> = (1..).zip(log).map(entry).collect();
    for verdict in store.writer(Box::new(|_| {})).import(&entries).unwrap() {
        assert!(matches!(verdict, Verdict::Committed(_) | Verdict::Recorded), "{verdict}");
    }
}
