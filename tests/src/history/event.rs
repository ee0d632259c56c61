//! What happened, one line each.

use serde::{Deserialize, Serialize};

use super::What;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, virtual milliseconds since the start.
    pub at_ms: u64,
    /// To which node; `None`: to the cluster.
    pub node: Option<usize>,
    /// What.
    pub what: EventKind,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // The fields say what they are.
pub enum EventKind {
    /// Something was done to the cluster.
    Done { what: What },
    /// What was done to the cluster is over.
    Over { what: What },
    /// A node started; its how-many-th life this is.
    Started { boot: u64 },
    /// A node ended.
    Ended { reason: String },
    /// A node was promised a vote.
    Voted { term: u64, candidate: Option<usize> },
    /// A node leads.
    Leads { term: u64 },
    /// A node follows a leader.
    Follows { term: u64, leader: Option<usize> },
    /// A node may produce.
    Granted { term: u64 },
    /// A node may not produce any more.
    GrantEnded { term: u64 },
    /// A block was applied for the first time anywhere.
    Committed { height: u64, term: u64, hash: String, txs: usize },
    /// A node has applied blocks up to here.
    Applied { height: u64 },
    /// A header was signed.
    Signed { height: u64, term: u64 },
    /// An engine has executed up to here.
    Executed { height: u64 },
    /// Blobs up to here were put on DA.
    Posted { height: u64 },
    /// The log says that DA holds everything up to here.
    Included { height: u64 },
    /// A node went on from a snapshot.
    Installed { height: u64 },
    /// A node, or a part of it, refused something: `guard`, `da`, `verdict`, `raft`, `life`.
    Refused { by: String, text: String },
    /// A hand-off was answered.
    HandedOff { ok: bool, text: String },
    /// A full node that was behind is not any more.
    Level { height: u64 },
    /// A node asks for a person.
    Alarm { text: String },
    /// A node's store is in trouble, or out of it.
    Trouble { text: Option<String> },
    /// Nothing more is done; the cluster must come to rest.
    RestBegins,
    /// It has.
    RestEnds,
}
