//! An operator's pause, on its way into the log.
//!
//! The leader records it, whichever member was asked: every leader after it finds it applied and
//! gives no grant, until the entry that lifts it.

use std::sync::Arc;

use actix::{Context, Handler, ResponseFuture};
use baton_messages::cluster::{ChangeError, Pause, Resume};
use baton_messages::command::{Command, MAX_PAUSE_REASON, PAUSE_VERSION, Verdict};
use baton_messages::raft::ProposeError;
use baton_messages::types::{LogIndex, Term};
use tokio::time::timeout;

use super::Raft;
use super::change;
use super::proposing::write;
use super::shared::Shared;
use super::transport::{CallError, Class};
use super::wire::{Answer, Request};

impl Handler<Pause> for Raft {
    type Result = ResponseFuture<Result<LogIndex, ChangeError>>;

    fn handle(&mut self, message: Pause, _: &mut Context<Self>) -> Self::Result {
        let shared = self.shared.clone();
        Box::pin(async move { ask(&shared, Some(message.reason)).await })
    }
}

impl Handler<Resume> for Raft {
    type Result = ResponseFuture<Result<LogIndex, ChangeError>>;

    fn handle(&mut self, _: Resume, _: &mut Context<Self>) -> Self::Result {
        let shared = self.shared.clone();
        Box::pin(async move { ask(&shared, None).await })
    }
}

/// Records it here, or asks the leader to.
async fn ask(shared: &Arc<Shared>, reason: Option<String>) -> Result<LogIndex, ChangeError> {
    let elsewhere = shared.leader().filter(|(_, hint)| hint.id != shared.id());
    let Some((leader, hint)) = elsewhere else { return record(shared, reason).await };
    // The leader gives up first.
    let within = shared.times.question * 2;
    match shared.ask(leader, Class::Bulk, &Request::Pause { reason }, within).await {
        Ok(Answer::Pause(recorded)) => recorded,
        Ok(other) => Err(ChangeError::Unconfirmed(format!("{} answered {other:?}", hint.name))),
        Err(error @ (CallError::Denied(_) | CallError::Refused(_) | CallError::TooLarge { .. })) => {
            Err(ChangeError::Refused(format!("{}: {error}", hint.name)))
        }
        Err(error @ (CallError::Unreachable(_) | CallError::TimedOut(_))) => {
            Err(ChangeError::Unconfirmed(format!("{}: {error}", hint.name)))
        }
    }
}

/// Puts it into the log of the cluster that this node leads.
pub(super) async fn record(shared: &Arc<Shared>, reason: Option<String>) -> Result<LogIndex, ChangeError> {
    let (raft, view) = change::leading(shared)?;
    let reader = shared.reader();
    check(reason.as_deref(), reader.pause().as_deref(), reader.command_version())
        .map_err(ChangeError::Refused)?;
    let within = shared.times.question;
    match timeout(within, write(raft, Term(view.current_term), Command::Pause(reason))).await {
        Ok(Ok((index, Verdict::Recorded))) => Ok(index),
        Ok(Ok((index, verdict))) => Err(ChangeError::Unconfirmed(format!("entry {index} became {verdict}"))),
        Ok(Err(ProposeError::NotLeader { .. })) => Err(ChangeError::NotLeader(shared.hint())),
        Ok(Err(error)) => Err(ChangeError::Unconfirmed(error.to_string())),
        Err(_) => Err(ChangeError::Unconfirmed(format!("no quorum has taken it within {within:?}"))),
    }
}

/// Whether it may be put into the log now.
fn check(asked: Option<&str>, now: Option<&str>, in_force: u8) -> Result<(), String> {
    if in_force < PAUSE_VERSION {
        return Err(format!(
            "a pause is an entry of version {PAUSE_VERSION} and entries of version {in_force} are in force: \
             they follow a moment after every voter runs a version of baton that knows them"
        ));
    }
    match asked {
        Some(reason) if reason.len() > MAX_PAUSE_REASON => {
            Err(format!("the reason is longer than {MAX_PAUSE_REASON} bytes"))
        }
        None if now.is_none() => Err("production is not paused".to_owned()),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_waits_until_every_voter_knows_such_entries() {
        let refused = check(Some("da"), None, PAUSE_VERSION - 1).expect_err("somebody could not apply it");
        assert!(refused.contains("every voter"), "{refused}");
        assert_eq!(check(Some("da"), None, PAUSE_VERSION), Ok(()));
        assert_eq!(check(Some("da"), Some("before"), PAUSE_VERSION), Ok(()), "another reason");
    }

    #[test]
    fn nothing_is_lifted_that_is_not_there() {
        assert!(check(None, None, PAUSE_VERSION).is_err());
        assert_eq!(check(None, Some("da"), PAUSE_VERSION), Ok(()));
    }

    #[test]
    fn a_reason_is_bounded_wherever_it_comes_from() {
        let long = "x".repeat(MAX_PAUSE_REASON + 1);
        assert!(check(Some(&long), None, PAUSE_VERSION).is_err());
        assert_eq!(check(Some(&long[1..]), None, PAUSE_VERSION), Ok(()));
    }
}
