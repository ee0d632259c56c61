//! Commands to a running node: hand-off, pause, and the membership of its cluster.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::admin::protocol::{Answer, Change, Command, Kind, Refusal};
use crate::admin::{client, show};
use crate::cli::place::home;
use crate::config::cluster::{is_dialled, is_name};
use crate::exit::{ExitCode, ExitError};
use crate::home::Home;
use crate::logging::print;

/// Where the running node is.
#[derive(Clone, Debug, Default, Args)]
pub struct Running {
    /// The home directory of the running node [env: BATON_HOME] [default: ~/.baton].
    #[arg(long, value_name = "DIR")]
    pub home: Option<PathBuf>,
}

/// Arguments of `handoff`.
#[derive(Clone, Debug, Args)]
pub struct HandOffArgs {
    /// To whom [default: the voter that is fittest].
    #[arg(long, value_name = "NODE")]
    pub to: Option<String>,

    /// Where.
    #[command(flatten)]
    pub node: Running,
}

/// Arguments of `pause`.
#[derive(Clone, Debug, Args)]
pub struct PauseArgs {
    /// Why; for log, status and record.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,

    /// Where.
    #[command(flatten)]
    pub node: Running,
}

/// Arguments of `stop`.
#[derive(Clone, Debug, Args)]
pub struct StopArgs {
    /// Also when the chain stops without this node.
    #[arg(long)]
    pub force: bool,

    /// Where.
    #[command(flatten)]
    pub node: Running,
}

/// Arguments of `cluster`.
#[derive(Clone, Debug, Args)]
pub struct ClusterArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ClusterCommand,
}

/// What to do with the cluster.
#[derive(Clone, Debug, Subcommand)]
pub enum ClusterCommand {
    /// Show every member as this one sees it.
    Status {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// Where.
        #[command(flatten)]
        node: Running,
    },
    /// Add a running, empty node as a learner: it follows and does not vote.
    Add {
        /// Its name and cluster address.
        #[arg(value_name = "NODE@HOST:PORT")]
        member: String,
        /// How.
        #[command(flatten)]
        how: How,
    },
    /// Make learners voters, all in one step.
    Promote {
        /// Which; two at a time make three voters of one.
        #[arg(required = true, value_name = "NODE", num_args = 1..=6)]
        names: Vec<String>,
        /// How.
        #[command(flatten)]
        how: How,
    },
    /// Make a voter a learner.
    Demote {
        /// Which.
        #[arg(value_name = "NODE")]
        name: String,
        /// How.
        #[command(flatten)]
        how: How,
    },
    /// Remove a member for good.
    Remove {
        /// Which.
        #[arg(value_name = "NODE")]
        name: String,
        /// How.
        #[command(flatten)]
        how: How,
    },
    /// Put a learner in the place of a voter, which is removed, in one step.
    Replace {
        /// The voter.
        #[arg(value_name = "OLD")]
        old: String,
        /// The learner.
        #[arg(value_name = "NEW")]
        new: String,
        /// How.
        #[command(flatten)]
        how: How,
    },
}

/// How the membership is changed, and where.
#[derive(Clone, Debug, Default, Args)]
pub struct How {
    /// Only if the config version is still this one (see `cluster status`).
    #[arg(long, value_name = "N")]
    pub version: Option<u64>,

    /// Also with two voters, or with a member that is not level. Never overrides a quorum.
    #[arg(long)]
    pub force: bool,

    /// Where.
    #[command(flatten)]
    pub node: Running,
}

impl ClusterCommand {
    /// Uses a home that was said before the command, unless one was said after it.
    #[must_use]
    pub fn with_home(mut self, before: Option<PathBuf>) -> Self {
        let node = match &mut self {
            Self::Status { node, .. } => node,
            Self::Add { how, .. }
            | Self::Promote { how, .. }
            | Self::Demote { how, .. }
            | Self::Remove { how, .. }
            | Self::Replace { how, .. } => &mut how.node,
        };
        node.home = node.home.take().or(before);
        self
    }
}

/// `baton handoff`.
///
/// # Errors
///
/// When leadership stays where it is.
pub async fn hand_off(args: HandOffArgs) -> Result<(), ExitError> {
    match ask(&args.node, Command::HandOff { to: args.to }).await? {
        Answer::HandedOff { to, term } => print(&format!("{to} leads in term {term}\n")),
        other => Err(nonsense(&other)),
    }
}

/// `baton stop`.
///
/// # Errors
///
/// When the others cannot do without the node, or it does not answer.
pub async fn stop(args: StopArgs) -> Result<(), ExitError> {
    match ask(&args.node, Command::Stop { force: args.force }).await? {
        Answer::Stopping => print("stopped\n"),
        other => Err(nonsense(&other)),
    }
}

/// `baton pause`.
///
/// # Errors
///
/// When no leader has put it into the log.
pub async fn pause(args: PauseArgs) -> Result<(), ExitError> {
    match ask(&args.node, Command::Pause { reason: args.reason }).await? {
        Answer::Paused => print("paused, whoever leads; `baton resume` on any member goes on\n"),
        other => Err(nonsense(&other)),
    }
}

/// `baton resume`.
///
/// # Errors
///
/// When no leader has put it into the log.
pub async fn resume(node: Running) -> Result<(), ExitError> {
    match ask(&node, Command::Resume).await? {
        Answer::Resumed => print("resumed\n"),
        other => Err(nonsense(&other)),
    }
}

/// `baton cluster`.
///
/// # Errors
///
/// When nothing was changed, or nobody knows.
pub async fn cluster(command: ClusterCommand) -> Result<(), ExitError> {
    let (change, how) = match command {
        ClusterCommand::Status { json, node } => return status(&node, json).await,
        ClusterCommand::Add { member, how } => (added(&member)?, how),
        ClusterCommand::Promote { names, how } => (Change::Promote { names }, how),
        ClusterCommand::Demote { name, how } => (Change::Demote { name }, how),
        ClusterCommand::Remove { name, how } => (Change::Remove { name }, how),
        ClusterCommand::Replace { old, new, how } => (Change::Replace { old, new }, how),
    };
    let How { version, force, node } = how;
    match ask(&node, Command::Change { change, version, force }).await? {
        Answer::Changed { version } => print(&format!("done; the config version is {version}\n")),
        other => Err(nonsense(&other)),
    }
}

async fn status(node: &Running, json: bool) -> Result<(), ExitError> {
    let Answer::Status(status) = ask(node, Command::Status).await? else {
        return Err(ExitError::other("the node answered something else"));
    };
    match json {
        true => {
            print(&(serde_json::to_string_pretty(&status).expect("texts and numbers are valid JSON") + "\n"))
        }
        false => print(&show::page(&status)),
    }
}

fn added(member: &str) -> Result<Change, ExitError> {
    match member.split_once('@') {
        Some((name, address)) if is_name(name) && is_dialled(address) => {
            Ok(Change::Add { name: name.to_owned(), address: address.to_owned() })
        }
        _ => Err(ExitError::usage(format!("{member:?} must be NODE@HOST:PORT, like node2@10.0.0.2:5001"))),
    }
}

/// Asks the node; a refusal is an error with its exit code.
async fn ask(node: &Running, command: Command) -> Result<Answer, ExitError> {
    let root = home(node.home.as_deref())?;
    let socket = Home::new(&root).admin_socket();
    match client::ask(&root, &socket, command).await {
        Ok(Answer::Refused(refusal)) => Err(refused(&refusal)),
        Ok(answer) => Ok(answer),
        Err(error) => {
            let code = match &error {
                client::Error::NotRunning { .. } | client::Error::Broken(_) | client::Error::TimedOut(_) => {
                    ExitCode::RetryLater
                }
                client::Error::Forbidden { .. } => ExitCode::Usage,
                client::Error::OtherVersion(_) => ExitCode::Other,
            };
            Err(ExitError::new(code, error))
        }
    }
}

/// What to do about a refusal: 64, ask for something else; 75, again later or elsewhere; 1, look.
fn refused(refusal: &Refusal) -> ExitError {
    let code = match refusal.kind {
        Kind::BadRequest | Kind::Forbidden | Kind::Refused => ExitCode::Usage,
        Kind::Busy
        | Kind::NotLeader
        | Kind::Version
        | Kind::InProgress
        | Kind::Aborted
        | Kind::Unavailable => ExitCode::RetryLater,
        Kind::Unconfirmed => ExitCode::Other,
    };
    let whom = refusal.leader.as_ref().map(|leader| {
        let at = |what: &str, address: &str| match address {
            "" => String::new(),
            address => format!(", {what} {address}"),
        };
        let (cluster, rpc) = (at("cluster address", &leader.address), at("rpc", &leader.rpc));
        format!(": {} leads in term {}{cluster}{rpc}; run the command there", leader.name, leader.term)
    });
    ExitError::new(code, format!("{}{}", refusal.message, whom.unwrap_or_default()))
}

fn nonsense(answer: &Answer) -> ExitError {
    ExitError::other(format!("the node answered something else: {}", answer.words()))
}

#[cfg(test)]
mod tests {
    use baton_messages::cluster::LeaderHint;
    use baton_messages::types::Term;

    use super::*;

    #[test]
    fn a_refusal_says_where_to_run_the_command_instead() {
        let leader = LeaderHint {
            name: "node2".to_owned(),
            address: "10.0.0.2:5001".to_owned(),
            rpc: "10.0.0.2:7331".to_owned(),
            term: Term(7),
            ..LeaderHint::default()
        };
        let refusal =
            Refusal { leader: Some(leader), ..Refusal::new(Kind::NotLeader, "this node does not lead") };
        let error = refused(&refusal);
        assert_eq!(error.code, ExitCode::RetryLater);
        let said = "this node does not lead: node2 leads in term 7, cluster address 10.0.0.2:5001, \
                    rpc 10.0.0.2:7331; run the command there";
        assert_eq!(error.message, said);
        assert_eq!(refused(&Refusal::new(Kind::Refused, "two voters")).code, ExitCode::Usage);
        assert_eq!(refused(&Refusal::new(Kind::Unconfirmed, "no quorum")).code, ExitCode::Other);
    }

    #[test]
    fn a_member_to_add_has_a_name_and_an_address() {
        let wanted = Change::Add { name: "n4".to_owned(), address: "h4:5001".to_owned() };
        assert_eq!(added("n4@h4:5001").unwrap(), wanted);
        for bad in ["n4", "n4@", "@h:1", "n4@h", "n4@0.0.0.0:1", "n 4@h:1"] {
            assert_eq!(added(bad).unwrap_err().code, ExitCode::Usage, "{bad}");
        }
    }
}
