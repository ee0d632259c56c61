//! What a node of a devnet says about itself.

use std::time::Duration;

use serde_json::Value;

use crate::devnet::plan::{Member, http_url};

/// How long a node may take to answer before the table says so.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// The part of a node's status that the table shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// Its role in the cluster.
    pub role: String,
    /// The Raft term.
    pub term: Option<u64>,
    /// The last block.
    pub height: Option<u64>,
    /// The last executed block.
    pub executed: Option<u64>,
    /// The last block on the DA layer.
    pub included: Option<u64>,
    /// Transactions waiting.
    pub queue: Option<u64>,
}

/// Asks nodes how they are.
#[derive(Clone, Debug)]
pub struct Probe {
    client: reqwest::Client,
}

impl Probe {
    /// Makes a client that does not wait long.
    pub fn new() -> reqwest::Result<Self> {
        Ok(Self { client: reqwest::Client::builder().timeout(ANSWER_WITHIN).no_proxy().build()? })
    }

    /// Asks a node for its status. Nothing: it did not answer in time, or not with JSON.
    pub async fn ask(&self, member: &Member) -> Option<NodeView> {
        let url = format!("{}/status", http_url(member.ports.rpc));
        let answer = self.client.get(url).send().await.ok()?;
        Some(view(&answer.json().await.ok()?))
    }
}

/// Reads a status. A part that a node does not know is missing or null there, and here.
pub fn view(status: &Value) -> NodeView {
    let number = |pointer: &str| status.pointer(pointer).and_then(Value::as_u64);
    let role = status.pointer("/raft/role").and_then(Value::as_str).unwrap_or("unknown");
    NodeView {
        role: role.to_owned(),
        term: number("/raft/term"),
        height: number("/height"),
        executed: number("/executed"),
        included: number("/included"),
        queue: number("/queue/txs"),
    }
}
