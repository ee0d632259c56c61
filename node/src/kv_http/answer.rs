//! What the API says, byte for byte as ev-node's testapp where that has the route.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use baton_messages::cluster::LeaderHint;
use baton_messages::engine::TxResult;
use baton_messages::sequencer::Outcome;
use baton_messages::types::{Hash, Height, Place};
use bytes::Bytes;
use serde::Serialize;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const BINARY: HeaderValue = HeaderValue::from_static("application/octet-stream");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NO_SNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// The height below which an accepted transaction is in no block.
const SINCE: HeaderName = HeaderName::from_static("baton-since");
/// The leader's name.
const LEADER: HeaderName = HeaderName::from_static("baton-leader");
/// The term it leads.
const TERM: HeaderName = HeaderName::from_static("baton-term");

/// How far a transaction came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Answer {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    header_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Effect>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leader: Option<Leader>,
}

/// Who leads, for clients of a node that cannot answer by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Leader {
    id: String,
    name: String,
    address: String,
    rpc: String,
    intake: String,
    term: u64,
}

/// What the transaction did. Without one the engine no longer knows: it ran before a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Effect {
    /// The engine's answer, in hex.
    Applied(String),
    /// Why it did nothing.
    Skipped(String),
}

/// The counters, named as testapp does.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Stats {
    pub injected_txs: u64,
    pub executed_txs: u64,
    pub blocks_produced: u64,
}

impl Answer {
    pub(super) fn new(status: &'static str, hash: Hash) -> Self {
        Self { hash: Some(hash.to_string()), ..Self::nameless(status) }
    }

    pub(super) const fn nameless(status: &'static str) -> Self {
        Self {
            status,
            hash: None,
            height: None,
            index: None,
            header_hash: None,
            result: None,
            reason: None,
            since: None,
            leader: None,
        }
    }

    pub(super) fn accepted(hash: Hash, since: Height) -> Self {
        Self { since: Some(since.0), ..Self::new("accepted", hash) }
    }

    pub(super) fn committed(hash: Hash, place: Place) -> Self {
        Self {
            height: Some(place.height.0),
            index: Some(place.index),
            header_hash: Some(place.header_hash.to_string()),
            ..Self::new("committed", hash)
        }
    }

    pub(super) fn executed(hash: Hash, outcome: Outcome) -> Self {
        let result = outcome.result.map(|result| match result {
            TxResult::Applied(bytes) => Effect::Applied(hex::encode(bytes)),
            TxResult::Skipped(reason) => Effect::Skipped(reason),
        });
        Self { status: "executed", result, ..Self::committed(hash, outcome.place) }
    }

    pub(super) fn because(self, reason: String) -> Self {
        Self { reason: Some(reason), ..self }
    }

    pub(super) fn led_by(self, leader: Option<LeaderHint>) -> Self {
        let leader = leader.map(|hint| Leader {
            id: hint.id.to_string(),
            name: hint.name,
            address: hint.address,
            rpc: hint.rpc,
            intake: hint.intake,
            term: hint.term.0,
        });
        Self { leader, ..self }
    }

    pub(super) fn respond(&self, status: StatusCode) -> Response {
        let mut response = json_line(self);
        *response.status_mut() = status;
        if let Some(since) = self.since {
            response.headers_mut().insert(SINCE, since.into());
        }
        if let Some(leader) = &self.leader {
            response.headers_mut().insert(TERM, leader.term.into());
            // A name that no header can hold is in the body.
            if let Ok(name) = HeaderValue::from_str(&leader.name) {
                response.headers_mut().insert(LEADER, name);
            }
        }
        response
    }
}

/// The plain answer of `POST /tx`, as testapp's, and the height to name in a repetition.
pub(super) fn accepted(since: Height) -> Response {
    let mut response = text(StatusCode::ACCEPTED, "Transaction accepted");
    response.headers_mut().insert(SINCE, since.0.into());
    response
}

/// A refusal with its reason, as JSON.
pub(super) fn refusal(status: StatusCode, word: &'static str, reason: impl Into<String>) -> Response {
    Answer::nameless(word).because(reason.into()).respond(status)
}

/// Plain text.
pub(super) fn text(status: StatusCode, text: &'static str) -> Response {
    (status, [(header::CONTENT_TYPE, TEXT)], text).into_response()
}

/// An error as Go's `http.Error` writes it: with a line feed.
pub(super) fn error_text(status: StatusCode, text: &'static str) -> Response {
    let headers = [(header::CONTENT_TYPE, TEXT), (header::X_CONTENT_TYPE_OPTIONS, NO_SNIFF)];
    (status, headers, format!("{text}\n")).into_response()
}

/// A stored value. Browsers must not take it for a page: anybody can store one.
pub(super) fn value(bytes: Bytes) -> Response {
    let content = if std::str::from_utf8(&bytes).is_ok() { TEXT } else { BINARY };
    let headers = [(header::CONTENT_TYPE, content), (header::X_CONTENT_TYPE_OPTIONS, NO_SNIFF)];
    (headers, bytes).into_response()
}

/// JSON as Go's encoder writes it: with a line feed.
pub(super) fn json_line(value: &impl Serialize) -> Response {
    let mut body = serde_json::to_vec(value).expect("strings, numbers and maps with string keys serialise");
    body.push(b'\n');
    ([(header::CONTENT_TYPE, JSON)], body).into_response()
}
