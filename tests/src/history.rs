//! Histories: everything that happens to a cluster, as data that follows from a seed.
//!
//! A [`History`] says what the cluster is like, and what is done to it when. Running it gives an
//! [`Outcome`]: the first promise that was broken, if any, what happened, and which situations
//! were reached. The deeds may be any part of what the seed gave: one that does not apply any
//! more, because an earlier one was left out, does nothing.
//!
//! ```
//! use sim::history::History;
//!
//! let outcome = History { span_ms: 3_000, ..History::of(7) }.run();
//! assert_eq!(outcome.broken, None);
//! ```

mod clients;
mod coverage;
mod deeds;
mod draw;
mod drive;
mod event;
mod forced;
mod form;
mod full;
mod lies;
mod operator;
pub(crate) mod panics;
mod rest;
mod sinks;
mod trials;

use std::time::Duration;

use baton_messages::types::Hash;
use serde::{Deserialize, Serialize};

use crate::net::Weather;

pub use crate::cluster::Sources;
pub use coverage::{Coverage, Situation};
pub use event::{Event, EventKind};
pub use form::{Form, NoForm};
pub use full::{FullDeed, FullNode};
pub use lies::Lie;

/// What a cluster is like, and what is done to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// What everything follows from that is not said here: delays, losses, time-outs, load.
    pub seed: u64,
    /// Of how many members the cluster was asked for.
    #[serde(default)]
    pub form: Form,
    /// What the cluster is like.
    pub shape: Shape,
    /// How long things are done to it, virtual milliseconds. Then they stop, and the cluster must
    /// come to rest.
    pub span_ms: u64,
    /// What is done, by time.
    pub deeds: Vec<Deed>,
}

/// What a cluster is like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Members that form it.
    pub voters: usize,
    /// Members that join as learners at the start.
    pub learners: usize,
    /// Whether the last voter has neither engine nor key.
    pub witness: bool,
    /// Voters that start as an older version of baton; the others know newer log entries too.
    /// Nobody does when it is empty.
    pub older: Vec<usize>,
    /// Time between two blocks.
    pub block_time_ms: u64,
    /// Log entries between two snapshots.
    pub snapshot_after: u64,
    /// Log entries kept behind a snapshot.
    pub keep_entries: u64,
    /// How the network is when nothing is done to it.
    pub weather: Storm,
    /// How long an fsync of the store takes, at the most.
    pub fsync_ms: u64,
    /// Clients that send one transaction after another.
    pub clients: usize,
    /// Time between two transactions of a client.
    pub client_ms: u64,
    /// Time between two transactions that users force through DA; zero: there is no forced inclusion.
    #[serde(default)]
    pub forced_ms: u64,
    /// By how much the clocks of each voter run faster than true time, parts per million; none: they are
    /// all right.
    #[serde(default)]
    pub rates_ppm: Vec<i64>,
    /// A full node beside it, if there is one.
    #[serde(default)]
    pub full: Option<FullNode>,
}

/// How messages travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Storm {
    /// The shortest way, milliseconds.
    pub min_ms: u64,
    /// The longest usual way.
    pub max_ms: u64,
    /// In a thousand, how many messages are lost.
    pub lost: u64,
    /// In a thousand, how many arrive twice.
    pub twice: u64,
    /// In a thousand, how many take far longer (log-normal): they are overtaken.
    pub late: u64,
}

/// Something that is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deed {
    /// When, virtual milliseconds since the start.
    pub at_ms: u64,
    /// What.
    pub what: What,
}

/// What can be done to a cluster. Nodes are numbered from zero; whoever leads is not a number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // The fields say what they are.
pub enum What {
    /// A node ends and starts again after a while.
    Crash { node: Who, left: Left, down_ms: u64 },
    /// A node ends instead of an effect to come (the so-and-so-many-th of these), and starts again.
    CrashAt { node: Who, among: Among, after: u64, left: Left, down_ms: u64 },
    /// The power goes off everywhere at once, and nodes are back one after the other, so much later
    /// each.
    Blackout { left: Left, down_ms: u64, apart_ms: u64 },
    /// No node hears any other: nobody can be elected, and who leads goes on when it is over.
    Apart { for_ms: u64 },
    /// Nodes are cut off from all others, both ways.
    Partition { away: Vec<Who>, for_ms: u64 },
    /// What one node sends to another is lost.
    CutOneWay { from: Who, to: Who, for_ms: u64 },
    /// What one node sends to another waits, and arrives all at once afterwards.
    Hold { from: Who, to: Who, for_ms: u64 },
    /// The network is like this for a while.
    Weather { storm: Storm, for_ms: u64 },
    /// A node does not run for a while (SIGSTOP).
    Freeze { node: Who, for_ms: u64 },
    /// A node's wall clock jumps.
    Clock { node: Who, by_ms: i64 },
    /// A node's disk misbehaves for a while.
    Disk { node: Who, fault: DiskFault, for_ms: u64 },
    /// A record on a node's disk is damaged while it is down; the node is set up anew afterwards.
    Flip { node: Who, pick: u64, down_ms: u64 },
    /// A node comes back with an empty disk, and is set up anew.
    Wipe { node: Who, down_ms: u64 },
    /// A node comes back with the disk it had when this copy was made, so long before.
    Restore { node: Who, age_ms: u64, down_ms: u64 },
    /// A copy of a node's disk is started on another machine, beside it (same identity twice).
    Twin { node: Who, for_ms: u64 },
    /// A node's engine misbehaves for a while.
    Engine { node: Who, fault: EngineFault, for_ms: u64 },
    /// The DA layer misbehaves for a while.
    Da { fault: DaFault, for_ms: u64 },
    /// A node does not reach DA for a while; the others do.
    DaOf { node: Who, for_ms: u64 },
    /// A machine more joins as a learner.
    Join,
    /// A learner becomes a voter.
    Promote { node: Who },
    /// A voter becomes a learner.
    Demote { node: Who },
    /// A member is removed.
    Remove { node: Who },
    /// Raft is told to move leadership.
    Transfer { to: Who },
    /// An operator hands leadership over.
    HandOff { to: Who },
    /// An operator stops production for a while.
    Pause { for_ms: u64 },
    /// A node is told to stop, ends when it has, and starts again: as the newest version.
    Upgrade { node: Who, down_ms: u64 },
    /// A single node of its own with the same key is started beside the cluster.
    Stray { for_ms: u64 },
    /// A node of another cluster of the same chain is named to the leader as one to add.
    WrongCluster { for_ms: u64 },
    /// Something is done to the full node beside the cluster.
    Full(FullDeed),
    /// At a node that leads, somebody wants what only a producer of an older term could want, and
    /// what nobody agreed on: every sink must refuse it.
    Stale,
}

/// A node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// By number.
    Node(usize),
    /// Whoever leads then.
    Leader,
    /// The so-and-so-many-th of those that do not lead then.
    Follower(usize),
}

/// What a crash leaves of writes that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Left {
    /// Everything: the process died, the machine did not.
    All,
    /// Nothing.
    Nothing,
    /// The first so many writes.
    Prefix(usize),
    /// The first so many, and a part of the next.
    Torn(usize),
}

/// Effects to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Among {
    /// Any of a node.
    All,
    /// Of its store.
    Disk,
    /// Of its guard: before a signature.
    Guard,
    /// Of its DA adapter: before a blob is there, and before the answer.
    Da,
}

/// How a disk misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskFault {
    /// No space is left.
    Full,
    /// Writes fail.
    Write,
    /// Syncs fail: nobody knows what is durable.
    Sync,
    /// A sync fails after it has happened.
    Synced,
    /// A write fails after it has happened.
    Written,
    /// A sync does not return.
    Hang,
    /// A sync takes so long.
    Slow(u64),
}

/// How an engine misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineFault {
    /// Every call takes so many milliseconds.
    Slow(u64),
    /// Calls do not return.
    Hang,
    /// Calls fail.
    Away,
    /// Its process ends and loses what it had not synced: it is behind.
    Lost,
}

/// How the DA layer misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DaFault {
    /// It does not answer.
    Away,
    /// It takes so many milliseconds more.
    Slow(u64),
    /// It takes what is submitted and answers with an error.
    FalseError,
    /// It includes what is submitted so many milliseconds later.
    Late(u64),
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken {
    /// The invariant or promise, such as `I2`; `panic` when a node ended, `progress` when nothing
    /// came any more.
    pub promise: String,
    /// When, virtual milliseconds.
    pub at_ms: u64,
    /// What was seen.
    pub text: String,
}

/// What running a history gave.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The promise that was broken.
    pub broken: Option<Broken>,
    /// A digest over everything that was sent, stored and seen, in order.
    pub trace: Hash,
    /// Which situations were reached how often.
    pub coverage: Coverage,
    /// What happened.
    pub events: Vec<Event>,
    /// How long it was, in virtual time.
    pub virtual_time: Duration,
}

impl Storm {
    pub(crate) const fn weather(&self) -> Weather {
        let Self { min_ms, max_ms, lost, twice, late } = *self;
        Weather { min_ms, max_ms, lost, twice, late }
    }
}

impl History {
    /// The history of a seed: three voters, twenty virtual seconds, and a mixture of faults that
    /// no other seed has.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        Self::with(Form::USUAL, seed)
    }

    /// The history of a seed in a cluster of another form. What is done to it, and when, differs
    /// from form to form.
    #[must_use]
    pub fn with(form: Form, seed: u64) -> Self {
        draw::history(seed, form)
    }

    /// A calm cluster of three to which nothing is done, for half of the usual time.
    #[must_use]
    pub fn calm(seed: u64) -> Self {
        let weather = Storm { min_ms: 0, max_ms: 2, lost: 0, twice: 0, late: 0 };
        let shape = Shape {
            voters: 3,
            learners: 0,
            witness: false,
            older: vec![],
            block_time_ms: 100,
            snapshot_after: 50,
            keep_entries: 20,
            weather,
            fsync_ms: 0,
            clients: 2,
            client_ms: 100,
            forced_ms: 0,
            full: None,
            rates_ppm: vec![],
        };
        Self { seed, form: Form::USUAL, shape, span_ms: 10_000, deeds: vec![] }
    }

    /// Runs it, in a thread of its own. Never panics and never hangs: a check that fails, a node
    /// that ends and a cluster that makes no progress are all in the outcome.
    #[must_use]
    pub fn run(&self) -> Outcome {
        drive::run(self)
    }
}
