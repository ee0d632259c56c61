//! What a node of a devnet says about itself.

use std::time::Duration;

use serde_json::{Value, json};

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
    /// The term of the entry that carried it.
    pub tip_term: Option<u64>,
    /// The last executed block.
    pub executed: Option<u64>,
    /// The last block on the DA layer.
    pub included: Option<u64>,
    /// Transactions waiting.
    pub queue: Option<u64>,
    /// It does what its role asks for.
    pub ready: Option<bool>,
    /// Why not.
    pub reasons: Vec<String>,
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

    /// The time of a block by its header, nanoseconds.
    pub async fn time_of(&self, member: &Member, height: u64) -> Option<u64> {
        let url = format!("{}/evnode.v1.StoreService/GetBlock", http_url(member.ports.rpc));
        let answer =
            self.client.post(url).json(&json!({ "height": height.to_string() })).send().await.ok()?;
        time(&answer.json().await.ok()?)
    }
}

/// Reads a status. A part that did not answer the node in time is null there, and nothing here.
pub fn view(status: &Value) -> NodeView {
    let number = |pointer: &str| status.pointer(pointer).and_then(Value::as_u64);
    let role = status.pointer("/raft/role").and_then(Value::as_str).unwrap_or("unknown");
    let reasons = status.pointer("/reasons").and_then(Value::as_array).cloned().unwrap_or_default();
    NodeView {
        role: role.to_lowercase(),
        term: number("/raft/term"),
        height: number("/tip/height"),
        tip_term: number("/tip/term"),
        executed: number("/supervisor/executed"),
        included: number("/da/included"),
        queue: number("/queue/txs"),
        ready: status.pointer("/ready").and_then(Value::as_bool),
        reasons: reasons.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
    }
}

/// Protobuf's JSON writes 64-bit numbers as strings.
fn time(block: &Value) -> Option<u64> {
    block.pointer("/block/header/header/time")?.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_and_what_is_missing_is_nothing() {
        let status = json!({
            "ready": false, "reasons": ["not producing: DA backlog"],
            "tip": { "height": 9, "term": 2 }, "da": { "included": 4 }, "supervisor": { "executed": 8 },
            "raft": { "role": "Leader", "term": 2 }, "queue": null,
        });
        let wanted = NodeView {
            role: "leader".to_owned(),
            term: Some(2),
            height: Some(9),
            tip_term: Some(2),
            executed: Some(8),
            included: Some(4),
            queue: None,
            ready: Some(false),
            reasons: vec!["not producing: DA backlog".to_owned()],
        };
        assert_eq!(view(&status), wanted);
    }

    #[test]
    fn the_time_of_a_block_is_in_its_header() {
        let block = json!({ "block": { "header": { "header": { "time": "1735787047123456789" } } } });
        assert_eq!(time(&block), Some(1_735_787_047_123_456_789));
        assert_eq!(time(&json!({ "code": "internal" })), None);
    }

    #[test]
    fn an_answer_that_is_no_status_is_an_unknown_role() {
        assert_eq!(view(&json!([])).role, "unknown");
    }
}
