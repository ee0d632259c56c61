//! The command line: one binary, every command. Data goes to stdout, everything else to stderr.

pub mod args;
pub mod cluster;
pub mod force;
pub mod net_info;
pub mod place;
pub mod start;
pub mod tools;

use std::future::Future;
use std::io;

use clap::{CommandFactory, Parser};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::args::{Cli, Command, DaArgs, NodeArgs, StoreCommand};
use crate::config::{Env, Flags, Settings};
use crate::exit::{ExitCode, ExitError};
use crate::logging::{self, note, print};
use crate::{dev_da, devnet, import, init, load, run, store_tool, tls_tool};

/// The version of the program and, where the build knows it, of its source.
#[must_use]
pub fn version() -> String {
    let source = option_env!("BATON_GIT_SHA").map(|sha| format!(" ({sha})")).unwrap_or_default();
    format!("{}{source}", env!("CARGO_PKG_VERSION"))
}

/// Runs the process's command line; the last line on stderr names cause and remedy.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    match run(cli) {
        Ok(()) => ExitCode::Clean,
        Err(error) => {
            note(&format!("baton: {error}"));
            error.code
        }
    }
}

/// Help and version are no errors, whatever clap calls them.
fn refuse(error: &clap::Error) -> ExitCode {
    // Nobody reads any more: the code still tells.
    let _ = error.print();
    if !error.use_stderr() {
        return ExitCode::Clean;
    }
    let text = error.to_string();
    let cause = text.lines().find_map(|line| line.strip_prefix("error: ")).unwrap_or("a command is missing");
    note(&format!("baton: {cause}; run `baton --help`"));
    ExitCode::Usage
}

fn run(cli: Cli) -> Result<(), ExitError> {
    let before = cli.home;
    refuse_home(before.is_some(), &cli.command)?;
    let with_home = |mut args: NodeArgs| {
        args.home = args.home.or(before.clone());
        args
    };
    match cli.command {
        Command::Init(mut args) => {
            args.node = with_home(args.node);
            init::run(&args)
        }
        Command::Import(mut args) => {
            args.node = with_home(args.node);
            import::run(&args)
        }
        Command::Start(args) => run::run(start::prepare(&with_home(*args))?),
        Command::Handoff(mut args) => {
            args.node.home = args.node.home.or(before);
            ask(cluster::hand_off(args))
        }
        Command::Stop(mut args) => {
            args.node.home = args.node.home.or(before);
            ask(cluster::stop(args))
        }
        Command::Pause(mut args) => {
            args.node.home = args.node.home.or(before);
            ask(cluster::pause(args))
        }
        Command::Resume(mut node) => {
            node.home = node.home.or(before);
            ask(cluster::resume(node))
        }
        Command::NetInfo(mut args) => {
            args.node = with_home(args.node);
            ask(net_info::run(*args))
        }
        Command::Force(mut args) => {
            args.node = with_home(args.node);
            ask(force::run(*args))
        }
        Command::Cluster(args) => ask(cluster::cluster(args.command.with_home(before))),
        Command::Da(args) => serve_da(args),
        Command::Devnet(args) => {
            log_from_env()?;
            block_on(devnet::run(args))
        }
        Command::Load(args) => {
            log_from_env()?;
            block_on(load::run(args))
        }
        Command::Version => print(&format!("baton {}\n", version())),
        Command::Keys(args) => tools::keys(args.command.map_node(&with_home)),
        Command::Config(args) => tools::config(args.command.map_node(&with_home)),
        Command::Store(args) => match args.command {
            StoreCommand::Inspect(args) => tools::inspect(&with_home(*args)),
            StoreCommand::Generate(mut args) => {
                args.node = with_home(args.node);
                store_tool::run_generate(&args)
            }
        },
        Command::Tls(args) => tls_tool::run(&args.command),
        Command::Rollback(mut args) => {
            args.node = with_home(args.node);
            tools::rollback(&args)
        }
        Command::UnsafeClean(mut args) => {
            args.node = with_home(args.node);
            tools::unsafe_clean(&args)
        }
        Command::Completions { shell } => {
            let mut script = vec![];
            clap_complete::generate(shell, &mut Cli::command(), "baton", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
    }
}

/// A home that is said before a command which takes none, or means another directory by it, would
/// be ignored silently.
fn refuse_home(said: bool, command: &Command) -> Result<(), ExitError> {
    let name = match command {
        Command::Da(_) => "da",
        Command::Devnet(_) => "devnet",
        Command::Load(_) => "load",
        Command::Version => "version",
        Command::Tls(_) => "tls",
        Command::Completions { .. } => "completions",
        Command::Init(_)
        | Command::Import(_)
        | Command::NetInfo(_)
        | Command::Force(_)
        | Command::Start(_)
        | Command::Handoff(_)
        | Command::Stop(_)
        | Command::Pause(_)
        | Command::Resume(_)
        | Command::Cluster(_)
        | Command::Keys(_)
        | Command::Config(_)
        | Command::Store(_)
        | Command::Rollback(_)
        | Command::UnsafeClean(_) => return Ok(()),
    };
    match said {
        true => Err(ExitError::usage(format!(
            "`{name}` takes no --home before it; `baton {name} --help` says what it takes"
        ))),
        false => Ok(()),
    }
}

/// Commands without a home log as the environment says.
fn log_from_env() -> Result<(), ExitError> {
    let env = Env::of_process();
    let about_logs = env.0.into_iter().filter(|(name, _)| name.starts_with("BATON_LOG_")).collect();
    let settings = Settings::gather(None, &Flags::default(), &Env(about_logs))?;
    logging::start(&settings.log())
}

fn serve_da(args: DaArgs) -> Result<(), ExitError> {
    log_from_env()?;
    block_on(async {
        let stop = stop_signal()?;
        let server = dev_da::bind(args.into()).await?;
        server.serve(stop).await;
        Ok(())
    })
}

/// SIGTERM or SIGINT.
fn stop_signal() -> Result<impl Future<Output = ()>, ExitError> {
    let failed = |error: io::Error| ExitError::other(format!("cannot listen for signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    Ok(async move {
        tokio::select! {
            biased;
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// A question to a running node; it needs no more than this thread.
fn ask(question: impl Future<Output = Result<(), ExitError>>) -> Result<(), ExitError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| ExitError::other(format!("cannot start a runtime: {error}")))?;
    runtime.block_on(question)
}

fn block_on(work: impl Future<Output = Result<(), ExitError>>) -> Result<(), ExitError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| ExitError::other(format!("cannot start a runtime: {error}")))?;
    runtime.block_on(work)
}

#[cfg(test)]
mod tests {
    use baton_actors::signer::guard::Refusal;
    use baton_messages::types::Height;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    fn flags(words: &[&str]) -> Flags {
        let words = ["baton", "start"].iter().chain(words);
        match Cli::try_parse_from(words).unwrap().command {
            Command::Start(args) => args.flags,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_flag_has_three_names_and_the_last_one_counts() {
        for name in ["--node.block_time", "--evnode.node.block_time", "--rollkit.node.block_time"] {
            assert_eq!(flags(&[name, "3s"]).0["node.block_time"], "3s");
        }
        let twice = flags(&["--evnode.node.block_time", "3s", "--node.block_time=4s"]);
        assert_eq!(twice.0["node.block_time"], "4s");
        assert_eq!(flags(&["--kv-endpoint", "127.0.0.1:1"]).0["kv.listen"], "127.0.0.1:1");
        let joins = flags(&["--join", "10.0.0.1:5001", "--witness"]);
        assert_eq!((&*joins.0["raft.join"], &*joins.0["raft.witness"]), ("10.0.0.1:5001", "true"));
    }

    #[test]
    fn a_switch_without_a_value_means_yes() {
        let given = flags(&["--evnode.node.aggregator", "--node.lazy_mode=false"]);
        assert_eq!((&*given.0["node.aggregator"], &*given.0["node.lazy_mode"]), ("true", "false"));
    }

    #[test]
    fn other_names_of_start_are_taken() {
        for name in ["start", "node", "run"] {
            let cli = Cli::try_parse_from(["baton", "--home", "/h", name]).unwrap();
            assert!(matches!(cli.command, Command::Start(_)), "{name}");
            assert_eq!(cli.home.as_deref(), Some(std::path::Path::new("/h")));
        }
    }
    #[test]
    fn the_command_that_a_refusing_guard_advises_exists() {
        let advice = Refusal::Missing(Height(1)).to_string();
        let command = advice.split('`').nth(1).expect("a command in backticks");
        let cli = Cli::try_parse_from(command.split(' ')).unwrap();
        assert!(matches!(cli.command, Command::Keys(_)), "{command}");
    }
}
