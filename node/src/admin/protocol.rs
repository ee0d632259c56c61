//! What goes over the admin socket: one JSON object per line and direction.

use baton_messages::cluster::{ChangeError, HandOffError, LeaderHint, MemberChange, StopRefused};
use serde::{Deserialize, Serialize};

use crate::admin::status::Status;

/// The version of the protocol. A request of another version is refused with this one's number.
pub const VERSION: u32 = 1;

/// The longest line, in bytes.
pub const LONGEST: usize = 64 << 10;

/// A line from the operator's command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The version of the protocol.
    pub v: u32,
    /// What is asked for.
    pub command: Command,
}

/// What an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// What the node knows of the cluster.
    Status,
    /// Give leadership to this voter, or to the best one.
    HandOff {
        /// To whom.
        to: Option<String>,
    },
    /// Stop producing, on whoever leads.
    Pause {
        /// Why.
        reason: String,
    },
    /// Produce again.
    Resume,
    /// Stop this node, when the others can do without it.
    Stop {
        /// Also when they cannot.
        #[serde(default)]
        force: bool,
    },
    /// Change the membership.
    Change {
        /// How.
        change: Change,
        /// The config version the operator has seen.
        #[serde(default)]
        version: Option<u64>,
        /// Two voters, or a member that is not level, are meant.
        #[serde(default)]
        force: bool,
    },
}

/// A change of the membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Change {
    /// Add a learner.
    Add {
        /// Its name.
        name: String,
        /// Its address.
        address: String,
    },
    /// Make learners voters.
    Promote {
        /// Which.
        names: Vec<String>,
    },
    /// Make a voter a learner.
    Demote {
        /// Which.
        name: String,
    },
    /// Remove a member.
    Remove {
        /// Which.
        name: String,
    },
    /// Put a learner in a voter's place.
    Replace {
        /// The voter.
        old: String,
        /// The learner.
        new: String,
    },
}

impl From<Change> for MemberChange {
    fn from(change: Change) -> Self {
        match change {
            Change::Add { name, address } => Self::Add { name, address },
            Change::Promote { names } => Self::Promote(names),
            Change::Demote { name } => Self::Demote(name),
            Change::Remove { name } => Self::Remove(name),
            Change::Replace { old, new } => Self::Replace { old, new },
        }
    }
}

impl Command {
    /// Whether it changes anything: then it is put on record.
    #[must_use]
    pub const fn is_mutating(&self) -> bool {
        !matches!(self, Self::Status)
    }

    /// The command in words, for the record: `promote node2 node3 (version 7)`.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Status => "status".to_owned(),
            Self::HandOff { to: None } => "handoff".to_owned(),
            Self::HandOff { to: Some(to) } => format!("handoff to {to}"),
            Self::Pause { reason } if reason.is_empty() => "pause".to_owned(),
            Self::Pause { reason } => format!("pause: {reason}"),
            Self::Resume => "resume".to_owned(),
            Self::Stop { force: false } => "stop".to_owned(),
            Self::Stop { force: true } => "stop by force".to_owned(),
            Self::Change { change, version, force } => {
                let change = match change {
                    Change::Add { name, address } => format!("add {name}@{address}"),
                    Change::Promote { names } => format!("promote {}", names.join(" ")),
                    Change::Demote { name } => format!("demote {name}"),
                    Change::Remove { name } => format!("remove {name}"),
                    Change::Replace { old, new } => format!("replace {old} {new}"),
                };
                let version = version.map(|version| format!(" (version {version})")).unwrap_or_default();
                let force = if *force { " by force" } else { "" };
                format!("{change}{version}{force}")
            }
        }
    }
}

/// A line from the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// The version of the protocol.
    pub v: u32,
    /// What became of the request.
    pub answer: Answer,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// What the node knows.
    Status(Box<Status>),
    /// Somebody else leads now.
    HandedOff {
        /// Who.
        to: String,
        /// The new term.
        term: u64,
    },
    /// Nothing is produced from now on.
    Paused,
    /// Production goes on.
    Resumed,
    /// The node hands over and stops; the connection ends when it has.
    Stopping,
    /// The membership was changed.
    Changed {
        /// The config version now.
        version: u64,
    },
    /// It was not done.
    Refused(Refusal),
}

impl Answer {
    /// The outcome in words, for the record.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Status(_) => "answered".to_owned(),
            Self::HandedOff { to, term } => format!("handed over to {to} in term {term}"),
            Self::Paused => "paused".to_owned(),
            Self::Resumed => "resumed".to_owned(),
            Self::Stopping => "stopping".to_owned(),
            Self::Changed { version } => format!("changed: version {version}"),
            Self::Refused(refusal) => format!("refused: {}", refusal.message),
        }
    }
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The kind, for programs.
    pub kind: Kind,
    /// The reason and what to do, for people.
    pub message: String,
    /// Whom to ask instead, when that is known.
    #[serde(default)]
    pub leader: Option<LeaderHint>,
}

/// The kinds of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The request cannot be read, or is of another version.
    BadRequest,
    /// The user at the other end may not.
    Forbidden,
    /// Too many requests at a time, or too slow.
    Busy,
    /// Another member leads, or nobody.
    NotLeader,
    /// The membership has changed since the operator looked.
    Version,
    /// The same kind of thing is on its way.
    InProgress,
    /// It is against a rule, or nobody is fit. Nothing was changed.
    Refused,
    /// It was begun and given up. Nothing was changed.
    Aborted,
    /// The outcome is not known. Look at the status.
    Unconfirmed,
    /// A part of the node does not answer.
    Unavailable,
}

impl Refusal {
    /// A refusal without a leader to ask.
    pub fn new(kind: Kind, message: impl ToString) -> Self {
        Self { kind, message: message.to_string(), leader: None }
    }
}

impl From<ChangeError> for Refusal {
    fn from(error: ChangeError) -> Self {
        let kind = match &error {
            ChangeError::NotLeader(_) => Kind::NotLeader,
            ChangeError::Version { .. } => Kind::Version,
            ChangeError::InProgress => Kind::InProgress,
            ChangeError::Refused(_) => Kind::Refused,
            ChangeError::Unconfirmed(_) => Kind::Unconfirmed,
        };
        let message = error.to_string();
        let leader = match error {
            ChangeError::NotLeader(leader) => leader,
            _ => None,
        };
        Self { kind, message, leader }
    }
}

impl From<StopRefused> for Refusal {
    fn from(refused: StopRefused) -> Self {
        Self::new(Kind::Refused, format!("{refused}; wait, or stop it all the same with --force"))
    }
}

impl From<HandOffError> for Refusal {
    fn from(error: HandOffError) -> Self {
        let kind = match &error {
            HandOffError::NotLeader(_) => Kind::NotLeader,
            HandOffError::NoTarget(_) => Kind::Refused,
            HandOffError::InProgress => Kind::InProgress,
            HandOffError::Aborted(_) => Kind::Aborted,
            HandOffError::Failed(_) => Kind::Unconfirmed,
        };
        let message = error.to_string();
        let leader = match error {
            HandOffError::NotLeader(leader) => leader,
            _ => None,
        };
        Self { kind, message, leader }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_look_as_documented() {
        let command = |command| serde_json::to_string(&Request { v: VERSION, command }).unwrap();
        assert_eq!(command(Command::Status), r#"{"v":1,"command":"status"}"#);
        let to = Some("node2".to_owned());
        assert_eq!(command(Command::HandOff { to }), r#"{"v":1,"command":{"hand_off":{"to":"node2"}}}"#);
        let change = Change::Promote { names: vec!["b".to_owned(), "c".to_owned()] };
        assert_eq!(
            command(Command::Change { change, version: Some(7), force: false }),
            r#"{"v":1,"command":{"change":{"change":{"promote":{"names":["b","c"]}},"version":7,"force":false}}}"#
        );
        assert_eq!(command(Command::Stop { force: true }), r#"{"v":1,"command":{"stop":{"force":true}}}"#);
        let answer = Answer::Refused(Refusal::new(Kind::NotLeader, "ask n2"));
        assert_eq!(
            serde_json::to_string(&Response { v: VERSION, answer }).unwrap(),
            r#"{"v":1,"answer":{"refused":{"kind":"not_leader","message":"ask n2","leader":null}}}"#
        );
    }

    #[test]
    fn a_request_with_words_nobody_knows_is_refused() {
        for line in [
            r#"{"v":1,"command":"reboot"}"#,
            r#"{"v":1,"command":"status","more":1}"#,
            r#"{"v":1,"command":{"pause":{"reason":"x","for":"1h"}}}"#,
            r#"{"command":"status"}"#,
            "[]",
            "",
        ] {
            assert!(serde_json::from_str::<Request>(line).is_err(), "{line}");
        }
        let short = r#"{"v":1,"command":{"change":{"change":{"remove":{"name":"b"}}}}}"#;
        assert!(serde_json::from_str::<Request>(short).is_ok());
    }

    #[test]
    fn the_record_says_everything_that_was_asked() {
        let change = Change::Replace { old: "b".to_owned(), new: "d".to_owned() };
        let command = Command::Change { change, version: Some(7), force: true };
        assert_eq!(command.words(), "replace b d (version 7) by force");
    }

    #[test]
    fn who_should_be_asked_is_part_of_the_refusal() {
        let leader = LeaderHint { name: "node2".to_owned(), ..LeaderHint::default() };
        for refusal in [
            Refusal::from(ChangeError::NotLeader(Some(leader.clone()))),
            Refusal::from(HandOffError::NotLeader(Some(leader.clone()))),
        ] {
            assert_eq!((refusal.kind, refusal.leader.as_ref()), (Kind::NotLeader, Some(&leader)));
            assert!(refusal.message.contains("ask node2"), "{}", refusal.message);
        }
    }
}
