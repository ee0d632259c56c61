//! The journal records what happened, one JSON object per line: every committed block, every
//! change of leadership and of the membership, every command of an operator, every connection
//! that was turned away. On a node that follows: every block that it took, and every fork.
//!
//! It is for people and for comparing members after an incident; nothing in the node depends on
//! it. A line survives the end of the process. Blocks that were applied while nothing was
//! recorded, in an earlier life or with the mailbox full, are read from the store and follow
//! without the place in the log.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use actix::{Actor, Context, Handler};
use baton_messages::cluster::{CommandAudited, HandshakeRefused, MembersChanged};
use baton_messages::follow::ForkFound;
use baton_messages::raft::{Applied, BlocksApplied};
use baton_messages::supervisor::LeadershipAudited;
use baton_messages::types::{Hash, Height, LogIndex, MemberId, Term, Timestamp, Tip};
use baton_storage::Reader;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use tracing::{error, warn};

use crate::record_file::{RecordFile, Rotation, numbered, tail};
use crate::signer::audit::{hex_hash, rfc3339};

/// Most blocks that are read from the store to fill a gap in the record.
const FILLED: u64 = 1_000;

/// Bytes at the end of the record in which the last block is looked for.
const LOOKED_AT: u64 = 1 << 20;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When it was recorded; RFC 3339 in the file.
    #[serde(with = "rfc3339")]
    pub time: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A block was committed, and applied here.
    Block {
        /// Its height.
        height: Height,
        /// The hash of its header.
        #[serde(with = "hex_hash")]
        hash: Hash,
        /// The term of the entry that carried it, unless it was recorded later.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        term: Option<Term>,
        /// The index of that entry, unless it was recorded later.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        index: Option<LogIndex>,
    },
    /// Blocks that were committed and not recorded one by one.
    Unrecorded {
        /// The first.
        from: Height,
        /// The last.
        to: Height,
    },
    /// Somebody leads a term that was not known here before.
    Leadership {
        /// The term.
        term: Term,
        /// Who leads, by name where it is known, else by id.
        leader: String,
        /// Why it is another one: `start`, `hand-off`, `silent` or `lost`.
        cause: String,
    },
    /// The membership in force is another.
    Members {
        /// The config version.
        version: LogIndex,
        /// A change is on its way.
        joint: bool,
        /// Voters by name.
        voters: Vec<String>,
        /// Learners by name.
        learners: Vec<String>,
    },
    /// An operator asked for something.
    Command {
        /// What.
        command: String,
        /// Whose process.
        uid: u32,
        /// Which process.
        pid: Option<i32>,
        /// What became of it.
        outcome: String,
    },
    /// A connection of the cluster transport was turned away.
    HandshakeRefused {
        /// From where.
        address: String,
        /// The name it gave.
        name: String,
        /// In one word.
        cause: String,
        /// What was wrong.
        reason: String,
    },
    /// The proposer signed two chains, as a node that follows has seen.
    Fork {
        /// Where they part.
        height: Height,
        /// Which two, and where they came from.
        reason: String,
    },
}

/// What the journal counts.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Lines written.
    pub lines: Counter,
    /// Lines that could not be written.
    pub failed: Counter,
    /// Blocks that were recorded later, from the store.
    pub filled: Counter,
}

impl Metrics {
    /// Makes the metrics visible.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("journal");
        registry.register("lines", "Lines of the record of events", self.lines.clone());
        registry.register("failed", "Lines that could not be written", self.failed.clone());
        registry.register("filled", "Blocks recorded later, from the store", self.filled.clone());
    }
}

/// The wall clock, for the times of lines.
pub type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The journal. It writes to a file, so it belongs on a thread of its own.
pub struct Journal {
    file: RecordFile,
    reader: Reader,
    now: Now,
    metrics: Metrics,
    /// The last block in the record.
    recorded: Height,
    names: BTreeMap<MemberId, String>,
    members: Option<MembersChanged>,
    failing: bool,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("recorded", &self.recorded).finish_non_exhaustive()
    }
}

impl Journal {
    /// Opens the record and finds the last block in it.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened or read.
    pub fn open(
        path: &Path,
        rotation: Rotation,
        reader: Reader,
        now: Now,
        metrics: Metrics,
    ) -> std::io::Result<Self> {
        let recorded = last_recorded(path)?.unwrap_or_else(|| {
            // A record that begins now does not repeat the chain from its first block.
            reader.tip().height.max(reader.initial_height().previous())
        });
        let file = RecordFile::open(path, rotation)?;
        let (names, members) = (BTreeMap::new(), None);
        Ok(Self { file, reader, now, metrics, recorded, names, members, failing: false })
    }

    fn record(&mut self, events: Vec<Event>) {
        let mut bytes = vec![];
        let (time, count) = ((self.now)(), events.len() as u64);
        for event in events {
            let line = Line { time, event };
            if let Err(error) = serde_json::to_writer(&mut bytes, &line) {
                error!(%error, ?line, "cannot be written as JSON");
                continue;
            }
            bytes.push(b'\n');
        }
        match self.file.append(&bytes) {
            Ok(()) => {
                self.failing = false;
                self.metrics.lines.inc_by(count);
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    warn!(%error, path = %self.file.path().display(), "events are not recorded");
                }
                self.metrics.failed.inc_by(count);
            }
        }
    }

    /// Lines for blocks between the last recorded one and this one, exclusively.
    fn gap(&self, next: Height) -> Vec<Event> {
        let first = self.recorded.next();
        if next <= first {
            return vec![];
        }
        let unrecorded = |to| Event::Unrecorded { from: first, to };
        if next.0 - first.0 > FILLED {
            return vec![unrecorded(next.previous())];
        }
        let mut events = vec![];
        for height in (first.0..next.0).map(Height) {
            match self.reader.hash(height) {
                Ok(Some(hash)) => events.push(Event::Block { height, hash, term: None, index: None }),
                // After a snapshot headers are missing, too.
                Ok(None) | Err(_) => return vec![unrecorded(next.previous())],
            }
        }
        self.metrics.filled.inc_by(events.len() as u64);
        events
    }

    fn fill(&mut self, next: Height) {
        let events = self.gap(next);
        if !events.is_empty() {
            self.record(events);
            self.recorded = next.previous();
        }
    }

    fn blocks(&mut self, blocks: Vec<(LogIndex, Tip)>) {
        let mut events = vec![];
        for (index, tip) in blocks {
            // A block that was proposed twice is committed once.
            if tip.height <= self.recorded {
                continue;
            }
            events.extend(self.gap(tip.height));
            self.recorded = tip.height;
            let (term, index) = (Some(tip.term), Some(index));
            events.push(Event::Block { height: tip.height, hash: tip.hash, term, index });
        }
        if !events.is_empty() {
            self.record(events);
        }
    }
}

/// The highest block in the record, also when the file was put aside just before.
fn last_recorded(path: &Path) -> std::io::Result<Option<Height>> {
    for file in [path.to_path_buf(), numbered(path, 1)] {
        let found = heights(&tail(&file, LOOKED_AT)?).max();
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn heights(bytes: &[u8]) -> impl Iterator<Item = Height> {
    bytes.split(|byte| *byte == b'\n').filter_map(|line| match serde_json::from_slice::<Line>(line) {
        Ok(Line { event: Event::Block { height, .. } | Event::Unrecorded { to: height, .. }, .. }) => {
            Some(height)
        }
        Ok(_) | Err(_) => None,
    })
}

impl Actor for Journal {
    type Context = Context<Self>;

    /// What was applied and not recorded when the process ended.
    fn started(&mut self, _: &mut Context<Self>) {
        let tip = self.reader.tip().height;
        self.fill(tip.next());
    }
}

impl Handler<BlocksApplied> for Journal {
    type Result = ();

    fn handle(&mut self, message: BlocksApplied, _: &mut Context<Self>) {
        self.blocks(message.blocks);
    }
}

impl Handler<Applied> for Journal {
    type Result = ();

    /// Told by the syncer of a node that follows. Whatever was taken meanwhile is recorded with it: one
    /// that catches up takes blocks faster than lines are written.
    fn handle(&mut self, _: Applied, _: &mut Context<Self>) {
        let tip = self.reader.tip().height;
        self.fill(tip.next());
    }
}

impl Handler<ForkFound> for Journal {
    type Result = ();

    fn handle(&mut self, message: ForkFound, _: &mut Context<Self>) {
        let ForkFound { height, reason } = message;
        self.record(vec![Event::Fork { height, reason }]);
    }
}

impl Handler<LeadershipAudited> for Journal {
    type Result = ();

    fn handle(&mut self, message: LeadershipAudited, _: &mut Context<Self>) {
        let LeadershipAudited { term, leader, cause } = message;
        let leader = self.names.get(&leader).cloned().unwrap_or_else(|| leader.to_string());
        self.record(vec![Event::Leadership { term, leader, cause: cause.to_owned() }]);
    }
}

impl Handler<MembersChanged> for Journal {
    type Result = ();

    fn handle(&mut self, message: MembersChanged, _: &mut Context<Self>) {
        if self.members.as_ref() == Some(&message) {
            return;
        }
        let all = message.voters.iter().chain(&message.learners);
        self.names = all.map(|(id, member)| (*id, member.name.clone())).collect();
        let names = |members: &[(MemberId, baton_messages::types::Member)]| {
            members.iter().map(|(_, member)| member.name.clone()).collect()
        };
        let (voters, learners) = (names(&message.voters), names(&message.learners));
        let event = Event::Members { version: message.version, joint: message.joint, voters, learners };
        self.members = Some(message);
        self.record(vec![event]);
    }
}

impl Handler<CommandAudited> for Journal {
    type Result = ();

    fn handle(&mut self, message: CommandAudited, _: &mut Context<Self>) {
        let CommandAudited { command, uid, pid, outcome } = message;
        self.record(vec![Event::Command { command, uid, pid, outcome }]);
    }
}

impl Handler<HandshakeRefused> for Journal {
    type Result = ();

    fn handle(&mut self, message: HandshakeRefused, _: &mut Context<Self>) {
        let HandshakeRefused { address, name, cause, reason } = message;
        self.record(vec![Event::HandshakeRefused { address, name, cause, reason }]);
    }
}

/// Reads the lines of one file; what is not a line, for example one that was cut off, is left out.
///
/// # Errors
///
/// When the file cannot be read.
pub fn read(path: &Path) -> std::io::Result<Vec<Line>> {
    let bytes = tail(path, u64::MAX)?;
    Ok(bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
}

#[cfg(test)]
mod tests {
    use baton_messages::types::Member;
    use baton_storage::Store;
    use baton_storage::memory::{Disk, options};
    use uuid::Uuid;

    use super::*;

    fn reader() -> Reader {
        Store::create_in_memory(&Disk::new(), options("test-chain"), Uuid::from_u128(1)).unwrap().reader()
    }

    fn journal(path: &Path, rotation: Rotation) -> Journal {
        let now: Now = Arc::new(|| Timestamp(1_735_787_046_000_000_000));
        Journal::open(path, rotation, reader(), now, Metrics::default()).unwrap()
    }

    fn block(height: u64) -> (LogIndex, Tip) {
        let tip = Tip { height: Height(height), term: Term(2), hash: Hash([7; 32]), ..Tip::default() };
        (LogIndex(height + 10), tip)
    }

    fn recorded(height: u64) -> Event {
        let (index, tip) = block(height);
        Event::Block { height: tip.height, hash: tip.hash, term: Some(tip.term), index: Some(index) }
    }

    fn events(path: &Path) -> Vec<Event> {
        read(path).unwrap().into_iter().map(|line| line.event).collect()
    }

    #[test]
    fn a_line_looks_as_documented() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        journal(&path, Rotation::NEVER).blocks(vec![block(1)]);
        let text = std::fs::read_to_string(&path).unwrap();
        let seven = "07".repeat(32);
        let wanted = format!(
            r#"{{"time":"2025-01-02T03:04:06Z","event":"block","height":1,"hash":"{seven}","term":2,"index":11}}"#
        );
        assert_eq!(text, wanted + "\n");
    }

    #[test]
    fn a_block_has_one_line_over_all_lives() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        journal(&path, Rotation::NEVER).blocks(vec![block(1), block(2), block(2)]);
        journal(&path, Rotation::NEVER).blocks(vec![block(2), block(3)]);
        assert_eq!(events(&path), [recorded(1), recorded(2), recorded(3)]);
    }

    #[test]
    fn what_was_missed_and_cannot_be_read_any_more_is_one_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        let mut journal = journal(&path, Rotation::NEVER);
        journal.blocks(vec![block(1)]);
        journal.blocks(vec![block(5)]);
        let missed = Event::Unrecorded { from: Height(2), to: Height(4) };
        assert_eq!(events(&path), [recorded(1), missed, recorded(5)]);
    }

    #[test]
    fn the_record_goes_on_where_a_file_was_put_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        let rotation = Rotation { max_bytes: 200, keep: 3 };
        for height in 1..=5 {
            journal(&path, rotation).blocks((1..=height).map(block).collect());
        }
        let all = (0..=3).rev().flat_map(|number| match number {
            0 => events(&path),
            number => events(&numbered(&path, number)),
        });
        assert_eq!(all.collect::<Vec<_>>(), (2..=5).map(recorded).collect::<Vec<_>>());
    }

    #[test]
    fn what_a_node_that_follows_takes_is_recorded_without_a_place_in_a_log() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        let mut journal = journal(&path, Rotation::NEVER);
        let mut ctx = Context::new();
        journal.handle(Applied { tip: Tip::default() }, &mut ctx);
        assert_eq!(events(&path), [], "there is no block yet");
        let (height, reason) = (Height(7), "two headers".to_owned());
        journal.handle(ForkFound { height, reason: reason.clone() }, &mut ctx);
        assert_eq!(events(&path), [Event::Fork { height, reason }]);
    }

    #[test]
    fn leaders_and_members_have_names() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        let mut journal = journal(&path, Rotation::NEVER);
        let mut ctx = Context::new();
        let member = |id: u64| (MemberId(id), Member { name: format!("node{id}"), ..Member::default() });
        let members = MembersChanged {
            version: LogIndex(4),
            voters: vec![member(1), member(2)],
            learners: vec![member(3)],
            ..MembersChanged::default()
        };
        journal.handle(members.clone(), &mut ctx);
        journal.handle(members, &mut ctx);
        let leads = LeadershipAudited { term: Term(3), leader: MemberId(2), cause: "lost" };
        journal.handle(leads, &mut ctx);
        let names = |of: &[&str]| of.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let wanted = [
            Event::Members {
                version: LogIndex(4),
                joint: false,
                voters: names(&["node1", "node2"]),
                learners: names(&["node3"]),
            },
            Event::Leadership { term: Term(3), leader: "node2".to_owned(), cause: "lost".to_owned() },
        ];
        assert_eq!(events(&path), wanted);
    }
}
