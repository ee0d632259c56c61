//! What becomes of a command: asked of the supervisor or of Raft, and put on record.

use std::sync::Arc;
use std::time::Duration;

use actix::{Message, Recipient};
use baton_messages::cluster::{ChangeMembers, CommandAudited, HandOff, Pause, PrepareStop, Resume};
use baton_messages::status::{GetNodeStatus, NodeChanged};
use baton_messages::types::LogIndex;
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::admin::protocol::{Answer, Change, Command, Kind, Refusal};
use crate::admin::status::status;

/// The longest text an operator gives as a reason, and the longest name or address.
const LONGEST_TEXT: usize = 256;

/// Most names in one command.
const MOST_NAMES: usize = 16;

/// The outcome on record of a command that is about to be carried out.
const ASKED: &str = "asked";

/// Whom the admin socket asks.
#[derive(Clone, Debug)]
pub struct Links {
    /// The status board.
    pub node_status: Recipient<GetNodeStatus>,
    /// The status board, told that a command has changed the node.
    pub changed: Recipient<NodeChanged>,
    /// The supervisor.
    pub hand_off: Recipient<HandOff>,
    /// Raft.
    pub pause: Recipient<Pause>,
    /// Raft.
    pub resume: Recipient<Resume>,
    /// The supervisor.
    pub prepare_stop: Recipient<PrepareStop>,
    /// Ends the process as SIGTERM does.
    pub stop: Arc<Notify>,
    /// Raft.
    pub change: Recipient<ChangeMembers>,
    /// The journal, which puts what was changed on record.
    pub journal: Option<Recipient<CommandAudited>>,
}

/// How long parts of the node may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For a look.
    pub look: Duration,
    /// For a hand-off, a pause or a change of the membership. They bound themselves; this is for
    /// parts that are stuck.
    pub change: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { look: Duration::from_secs(3), change: Duration::from_secs(60) }
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The user of the process.
    pub uid: u32,
    /// The process, where the system says it.
    pub pid: Option<i32>,
}

/// Answers commands.
#[derive(Clone, Debug)]
pub struct Desk {
    /// The name of the node.
    pub node: String,
    /// Whom to ask.
    pub links: Links,
    /// For how long.
    pub patience: Patience,
}

impl Desk {
    /// Carries a command out. What could change anything is put on record before, so that a node
    /// that ends meanwhile has said who asked for what, and after, with what became of it.
    pub async fn answer(&self, command: Command, peer: Peer) -> Answer {
        let (words, mutating) = (command.words(), command.is_mutating());
        if mutating {
            self.put_on_record(&words, peer, ASKED).await;
        }
        let answer = match bounded(&command) {
            Ok(()) => self.carry_out(command).await.unwrap_or_else(Answer::Refused),
            Err(refusal) => Answer::Refused(refusal),
        };
        if mutating {
            // Before the answer: who has it and looks sees what it did.
            self.links.changed.do_send(NodeChanged);
            self.put_on_record(&words, peer, &answer.words()).await;
        }
        answer
    }

    /// Somebody was turned away who may not ask anything.
    pub async fn turned_away(&self, peer: Peer, why: &str) {
        self.put_on_record("connect", peer, &format!("refused: {why}")).await;
    }

    async fn put_on_record(&self, command: &str, peer: Peer, outcome: &str) {
        let Peer { uid, pid } = peer;
        info!(command, uid, pid, outcome, "an operator's command");
        let line = CommandAudited { command: command.to_owned(), uid, pid, outcome: outcome.to_owned() };
        let Some(journal) = &self.links.journal else { return };
        if let Err(error) = journal.send(line).timeout(self.patience.look).await {
            warn!(command, %error, "the command is in the log but not in the record of events");
        }
    }

    async fn carry_out(&self, command: Command) -> Result<Answer, Refusal> {
        let Links { node_status, hand_off, pause, resume, prepare_stop, change, .. } = &self.links;
        let Patience { look, change: long } = self.patience;
        match command {
            Command::Status => {
                let found = ask("the status board", node_status, GetNodeStatus, look).await?;
                Ok(Answer::Status(Box::new(status(&self.node, &found))))
            }
            Command::HandOff { to } => {
                let message = HandOff { to, reason: "an operator asked for it".to_owned() };
                let handed = ask("the supervisor", hand_off, message, long).await??;
                Ok(Answer::HandedOff { to: handed.to, term: handed.term.0 })
            }
            Command::Pause { reason } => {
                let reason = match reason.is_empty() {
                    true => "an operator asked for it".to_owned(),
                    false => reason,
                };
                ask("raft", pause, Pause { reason }, long).await??;
                Ok(Answer::Paused)
            }
            Command::Resume => {
                ask("raft", resume, Resume, long).await??;
                Ok(Answer::Resumed)
            }
            Command::Stop { force } => {
                let spared = ask("the supervisor", prepare_stop, PrepareStop { force }, look).await;
                match spared {
                    Ok(spared) => spared?,
                    // Who is forced to stop is not asked how it is.
                    Err(silent) if !force => return Err(silent),
                    Err(_) => {}
                }
                Ok(Answer::Stopping)
            }
            Command::Change { change: what, version, force } => {
                let version = version.map(LogIndex);
                let message = ChangeMembers { change: what.into(), version, force };
                let version = ask("raft", change, message, long).await??.0;
                Ok(Answer::Changed { version })
            }
        }
    }
}

async fn ask<M>(who: &str, link: &Recipient<M>, question: M, within: Duration) -> Result<M::Result, Refusal>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    link.send(question).timeout(within).await.map_err(|error| {
        let message = format!("{who} does not answer within {within:?} ({error}); look at the status");
        Refusal::new(Kind::Unavailable, message)
    })
}

/// Texts go into records and into Raft's log.
fn bounded(command: &Command) -> Result<(), Refusal> {
    let texts: Vec<&String> = match command {
        Command::Status | Command::Resume | Command::Stop { .. } => vec![],
        Command::HandOff { to } => to.iter().collect(),
        Command::Pause { reason } => vec![reason],
        Command::Change { change, .. } => match change {
            Change::Add { name, address } => vec![name, address],
            Change::Promote { names } => names.iter().collect(),
            Change::Demote { name } | Change::Remove { name } => vec![name],
            Change::Replace { old, new } => vec![old, new],
        },
    };
    if texts.len() > MOST_NAMES {
        return Err(Refusal::new(Kind::BadRequest, format!("more than {MOST_NAMES} names")));
    }
    match texts.iter().find(|text| text.len() > LONGEST_TEXT) {
        Some(_) => {
            let message = format!("a name, address or reason is longer than {LONGEST_TEXT} bytes");
            Err(Refusal::new(Kind::BadRequest, message))
        }
        None => Ok(()),
    }
}
