//! What a devnet says on stdout: one line per process and per event, for people or as JSON.
//! The JSON is described in `docs/devnet.md`; other programs rely on it.

use std::path::Path;

use serde::Serialize;

use crate::devnet::member_state::Ending;
use crate::devnet::plan::{Member, Role, http_url, loopback};

/// A process that listens. In JSON a line of its own, without `event`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listening {
    /// The member.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// The process.
    pub pid: u32,
    /// RPC.
    pub rpc: String,
    /// Health, metrics and the other plain HTTP pages.
    pub http: String,
    /// The key-value app.
    pub kv: Option<String>,
    /// The address set aside for P2P.
    pub p2p: Option<String>,
    /// The address of the cluster transport.
    pub raft: Option<String>,
    /// Its own directory.
    pub home: String,
}

impl Listening {
    /// Describes a member that listens.
    pub fn of(member: &Member, pid: u32) -> Self {
        let tcp = |port| format!("tcp://{}", loopback(port));
        Self {
            name: member.name.clone(),
            role: member.role,
            pid,
            rpc: http_url(member.ports.rpc),
            http: http_url(member.ports.rpc),
            kv: member.ports.kv.map(http_url),
            p2p: member.ports.p2p.map(tcp),
            raft: member.ports.raft.map(tcp),
            home: member.home.display().to_string(),
        }
    }
}

/// Something that happened. `name` is the member, or `devnet` for all of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// What happened.
    pub event: &'static str,
    /// When, RFC 3339 in UTC.
    pub time: String,
    /// To whom.
    pub name: String,
    /// What else there is to say.
    #[serde(flatten)]
    pub detail: Detail,
}

/// What there is to say about an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Detail {
    /// A home was made.
    Initialised {
        /// The directory.
        home: String,
    },
    /// A process was started, or came back.
    Process {
        /// The process.
        pid: u32,
        /// Its log file.
        log: String,
    },
    /// A process is gone.
    Ended {
        /// The process.
        pid: u32,
        /// How it ended.
        #[serde(flatten)]
        ending: Ending,
        /// The command line that starts it again.
        restart: String,
        /// Its log file.
        log: String,
        /// The last lines of its log.
        tail: Vec<String>,
    },
    /// A node changed its role or its term.
    Role {
        /// The role.
        role: String,
        /// The term.
        term: Option<u64>,
    },
    /// A node became ready, or is not ready any more.
    Ready {
        /// Why it is not; empty when it is.
        reasons: Vec<String>,
    },
    /// Another node leads, and has made its first block.
    Failover {
        /// Who led before.
        from: String,
        /// The new term.
        term: u64,
        /// The first height of that term, as far as it was seen.
        height: u64,
        /// The longest time between two blocks around the change, by the chain's own clock.
        gap_ms: u64,
    },
    /// The sample transaction is on the DA layer.
    Sample {
        /// The transaction.
        tx: &'static str,
        /// The height of its block.
        height: u64,
        /// Where the block is on the DA layer.
        da_height: u64,
        /// A command that posts another one.
        curl: String,
    },
    /// The sample transaction came to nothing.
    SampleFailed {
        /// Why.
        error: String,
    },
    /// The first sign that the chain moves.
    Block {
        /// The height.
        height: u64,
    },
    /// The devnet stops or has stopped.
    Stop {
        /// Why.
        reason: &'static str,
    },
}

impl Event {
    /// Says that a process is gone, and how to start it again.
    pub fn ended(
        time: String,
        member: &Member,
        executable: &Path,
        pid: u32,
        ending: Ending,
        tail: Vec<String>,
    ) -> Self {
        let detail = Detail::Ended {
            pid,
            ending,
            restart: member.command_line(executable),
            log: member.log.display().to_string(),
            tail,
        };
        Self { event: "exited", time, name: member.name.clone(), detail }
    }
}

/// Writes a listening process for people.
pub fn listening_text(listening: &Listening) -> String {
    let kv = listening.kv.as_ref().map(|url| format!("  kv {url}")).unwrap_or_default();
    format!("{} listens: pid {}  rpc {}{kv}", listening.name, listening.pid, listening.rpc)
}

/// Writes an event for people. Only an ending takes more than one line: its log and the command.
pub fn event_text(event: &Event) -> String {
    let name = &event.name;
    match &event.detail {
        Detail::Initialised { home } => format!("{name} has a new home: {home}"),
        Detail::Process { pid, log } if event.event == "restarted" => {
            format!("{name} is back: pid {pid} (it logs where it was started, not to {log})")
        }
        Detail::Process { pid, log } => format!("{name} starts: pid {pid}, log {log}"),
        Detail::Ended { pid, ending, restart, log, tail } => {
            let tail: String = tail.iter().map(|line| format!("    | {line}\n")).collect();
            let how = ending_text(*ending);
            format!(
                "{name} {how} (pid {pid}); the end of {log}:\n{tail}  start it again with:\n    {restart}"
            )
        }
        Detail::Role { role, term: Some(term) } => format!("{name} is {role} in term {term}"),
        Detail::Role { role, term: None } => format!("{name} is {role}"),
        Detail::Ready { reasons } if reasons.is_empty() => format!("{name} is ready"),
        Detail::Ready { reasons } => format!("{name} is not ready: {}", reasons.join("; ")),
        Detail::Failover { from, term, height, gap_ms } => {
            format!(
                "{name} took over from {from} in term {term}: {gap_ms} ms between two blocks, height {height}"
            )
        }
        Detail::Sample { tx, height, da_height, curl } => {
            format!(
                "{name} took {tx:?}: height {height}, DA height {da_height}; post your own with\n    {curl}"
            )
        }
        Detail::SampleFailed { error } => format!("{name}: the sample transaction came to nothing: {error}"),
        Detail::Block { height } => format!("{name} makes blocks: height {height}"),
        Detail::Stop { reason } if event.event == "stopped" => format!("{name} stopped: {reason}"),
        Detail::Stop { reason } => format!("{name} stops: {reason}"),
    }
}

fn ending_text(ending: Ending) -> String {
    match ending {
        Ending { signal: Some(signal), .. } => format!("was ended by signal {signal}"),
        Ending { code: Some(code), .. } => format!("exited with code {code}"),
        Ending { code: None, signal: None } => "is gone".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::json;

    use super::*;
    use crate::devnet::plan::Ports;

    fn node() -> Member {
        Member {
            name: "node1".to_owned(),
            role: Role::Node,
            ports: Ports { rpc: 27010, kv: Some(27011), p2p: Some(27012), raft: Some(27013) },
            home: PathBuf::from("/n/node1"),
            log: PathBuf::from("/n/node1/log"),
            args: vec!["start".to_owned(), "--home".to_owned(), "/n/my node".to_owned()],
            init: vec![],
            key_of: None,
            tls: None,
        }
    }

    #[test]
    fn a_node_that_listens_is_one_object_with_urls() {
        let line = serde_json::to_value(Listening::of(&node(), 5)).unwrap();
        let wanted = json!({
            "name": "node1", "role": "node", "pid": 5,
            "rpc": "http://127.0.0.1:27010", "http": "http://127.0.0.1:27010", "kv": "http://127.0.0.1:27011",
            "p2p": "tcp://127.0.0.1:27012", "raft": "tcp://127.0.0.1:27013", "home": "/n/node1",
        });
        assert_eq!(line, wanted);
    }

    #[test]
    fn the_da_server_has_the_same_fields_and_the_role_da() {
        let da = Member {
            role: Role::Da,
            ports: Ports { rpc: 27000, kv: None, p2p: None, raft: None },
            name: "da".to_owned(),
            ..node()
        };
        let line = serde_json::to_value(Listening::of(&da, 4)).unwrap();
        assert_eq!(line["role"], "da");
        assert_eq!(line.as_object().unwrap().len(), 9);
        assert_eq!(line["kv"], json!(null));
    }

    #[test]
    fn an_event_is_flat() {
        let ending = Ending { code: None, signal: Some(9) };
        let event =
            Event::ended("T".to_owned(), &node(), Path::new("/bin/baton"), 5, ending, vec!["x".to_owned()]);
        let wanted = json!({
            "event": "exited", "time": "T", "name": "node1", "pid": 5, "code": null, "signal": 9,
            "restart": "/bin/baton start --home '/n/my node'", "log": "/n/node1/log", "tail": ["x"],
        });
        assert_eq!(serde_json::to_value(event).unwrap(), wanted);
    }

    #[test]
    fn an_ending_shows_the_command_on_a_line_of_its_own() {
        let ending = Ending { code: Some(70), signal: None };
        let event = Event::ended("T".to_owned(), &node(), Path::new("/bin/baton"), 5, ending, vec![]);
        let text = event_text(&event);
        assert!(text.starts_with("node1 exited with code 70 (pid 5)"), "{text}");
        assert_eq!(text.lines().last().unwrap().trim(), "/bin/baton start --home '/n/my node'");
    }
}
