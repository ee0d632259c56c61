//! Runs histories of simulated clusters: many of them, one again, the shortest one that still
//! fails, and all of them with planted bugs.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::{Args, Parser, Subcommand};
use sim::campaign::Campaign;
use sim::history::{History, Outcome};
use sim::{shrink, story};

/// A simulated cluster makes and drops messages all the time: with this allocator it needs 7 % less
/// processor time than with that of libc.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Histories of simulated clusters, from seeds.
#[derive(Parser)]
#[command(name = "sim")]
struct Cli {
    #[command(subcommand)]
    command: Task,
    /// Where stories and timelines of failed seeds are written.
    #[arg(long, global = true, default_value = "target/sim")]
    out: PathBuf,
}

#[derive(Subcommand)]
enum Task {
    /// Run a range of seeds; what is done is kept, and the same command goes on with the rest.
    Run(Run),
    /// Run one seed, tell its story and draw its timeline.
    Replay(One),
    /// Find the shortest history that breaks the promise that a seed breaks.
    Shrink(One),
    /// Print the digest of each history: the same everywhere.
    Traces(Traces),
    /// Plant each bug, and look for it in the seeds that everything runs on.
    Mutations(Mutations),
}

#[derive(Args)]
struct Run {
    /// The seeds, such as 0..1000; a number means so many from 0 on.
    #[arg(long, default_value = "0..1000", value_parser = range)]
    seeds: Range<u64>,
    /// Threads; one per core if not said.
    #[arg(long, default_value_t = cores())]
    threads: usize,
    /// The file that keeps what is done.
    #[arg(long)]
    state: Option<PathBuf>,
    /// Append seeds that fail to this list (tests/seeds.txt).
    #[arg(long)]
    record: Option<PathBuf>,
}

#[derive(Args)]
struct One {
    /// The seed.
    seed: u64,
    /// With this bug planted.
    #[arg(long)]
    mutation: Option<String>,
    /// Show what the nodes log, such as `info` or `baton_actors::raft=debug`.
    #[arg(long)]
    log: Option<String>,
    /// The history in a file, as `shrink` writes it, instead of the seed's own.
    #[arg(long)]
    history: Option<PathBuf>,
}

#[derive(Args)]
struct Traces {
    /// The seeds, such as 0..20.
    #[arg(long, default_value = "0..20", value_parser = range)]
    seeds: Range<u64>,
}

#[derive(Args)]
struct Mutations {
    /// The seeds to look in.
    #[arg(long, default_value = "0..200", value_parser = range)]
    seeds: Range<u64>,
    /// Threads; one per core if not said.
    #[arg(long, default_value_t = cores())]
    threads: usize,
    /// Only these, by name; all of them if none is named.
    names: Vec<String>,
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let number =
        |text: &str| text.trim().replace('_', "").parse::<u64>().map_err(|error| format!("{text}: {error}"));
    match text.split_once("..") {
        Some((from, to)) => Ok(number(from)?..number(to)?),
        None => Ok(0..number(text)?),
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let ended = match cli.command {
        Task::Run(run) => run_many(&run, &cli.out),
        Task::Replay(one) => replay(&one, &cli.out),
        Task::Shrink(one) => shrink_one(&one, &cli.out),
        Task::Traces(traces) => {
            for seed in traces.seeds {
                println!("{seed} {}", History::of(seed).run().trace);
            }
            Ok(true)
        }
        Task::Mutations(mutations) => hunt(&mutations),
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(2)
        }
    }
}

/// The version that runs; with `-dirty` when it is not what is committed.
fn version() -> String {
    let described = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]).output();
    match described {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Ok(_) | Err(_) => "unknown".to_owned(),
    }
}

fn run_many(run: &Run, out: &Path) -> anyhow::Result<bool> {
    let state = run
        .state
        .clone()
        .unwrap_or_else(|| out.join(format!("seeds-{}-{}.json", run.seeds.start, run.seeds.end)));
    if let Some(directory) = state.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let mut campaign = Campaign::take_up(&state, &version(), run.seeds.clone())?;
    let failed = |history: &History, outcome: &Outcome| {
        eprint!("{}", story::failure(history, outcome, out));
        if let Some(list) = &run.record {
            let line = story::regression_line(history, outcome);
            if let Err(error) = append(list, &line) {
                eprintln!("cannot append to {}: {error}", list.display());
            }
        }
    };
    let total = run.seeds.end - run.seeds.start;
    campaign.run(run.threads, failed, |campaign| {
        let tally = &campaign.tally;
        eprintln!(
            "{} of {total} seeds, {:.1} virtual hours, {:.0}x per core, {} failed",
            tally.seeds,
            tally.virtual_hours(),
            tally.rate(),
            tally.failures.len()
        );
        campaign.keep(&state)
    })?;
    print!("{campaign}");
    Ok(campaign.tally.failures.is_empty())
}

fn append(list: &Path, line: &str) -> std::io::Result<()> {
    use std::io::Write;
    let before = std::fs::read_to_string(list)?;
    if before.lines().any(|known| known.split_whitespace().take(2).eq(line.split_whitespace().take(2))) {
        return Ok(());
    }
    writeln!(std::fs::OpenOptions::new().append(true).open(list)?, "{line}")
}

fn chosen(one: &One) -> anyhow::Result<History> {
    plant(one.mutation.as_deref())?;
    match &one.history {
        Some(path) => Ok(serde_json::from_str(&std::fs::read_to_string(path)?)?),
        None => Ok(History::of(one.seed)),
    }
}

fn replay(one: &One, out: &Path) -> anyhow::Result<bool> {
    let history = chosen(one)?;
    if let Some(filter) = &one.log {
        let filter = tracing_subscriber::EnvFilter::try_new(filter)?;
        tracing_subscriber::fmt().with_env_filter(filter).without_time().with_writer(std::io::stderr).init();
    }
    let outcome = history.run();
    print!("{}", story::story(&history, &outcome));
    let (told, drawn) = story::write(&history, &outcome, out)?;
    println!("written: {} {}", told.display(), drawn.display());
    if outcome.broken.is_some() {
        println!("tests/seeds.txt: {}", story::regression_line(&history, &outcome));
    }
    Ok(outcome.broken.is_none())
}

fn shrink_one(one: &One, out: &Path) -> anyhow::Result<bool> {
    let history = chosen(one)?;
    let Some((shortest, outcome)) = shrink::shrink(&history, |line| eprintln!("{line}")) else {
        println!("seed {} breaks no promise", history.seed);
        return Ok(true);
    };
    print!("{}", story::story(&shortest, &outcome));
    println!("{} of {} deeds are needed:", shortest.deeds.len(), history.deeds.len());
    print!("{}", story::deeds(&shortest));
    let (told, drawn) = story::write(&shortest, &outcome, out)?;
    let kept = out.join(format!("seed-{}.json", shortest.seed));
    std::fs::write(&kept, serde_json::to_string_pretty(&shortest)?)?;
    println!("written: {} {} {}", told.display(), drawn.display(), kept.display());
    Ok(false)
}

#[cfg(feature = "mutations")]
fn mutation(name: &str) -> anyhow::Result<baton_messages::mutation::Mutation> {
    use baton_messages::mutation::Mutation;
    let names = || Mutation::ALL.iter().map(|mutation| mutation.name()).collect::<Vec<_>>().join(", ");
    Mutation::named(name)
        .ok_or_else(|| anyhow::anyhow!("there is no mutation {name:?}; there are {}", names()))
}

#[cfg(feature = "mutations")]
fn plant(name: Option<&str>) -> anyhow::Result<()> {
    baton_messages::mutation::plant(name.map(mutation).transpose()?);
    Ok(())
}

#[cfg(not(feature = "mutations"))]
fn plant(name: Option<&str>) -> anyhow::Result<()> {
    anyhow::ensure!(name.is_none(), "this program was built without the feature `mutations`");
    Ok(())
}

#[cfg(feature = "mutations")]
fn hunt(asked: &Mutations) -> anyhow::Result<bool> {
    use baton_messages::mutation::Mutation;
    use sim::mutants;
    let mutations = match asked.names.is_empty() {
        true => Mutation::ALL.to_vec(),
        false => asked.names.iter().map(|name| mutation(name)).collect::<Result<_, _>>()?,
    };
    let hunts = mutants::hunt_all(&mutations, &asked.seeds, asked.threads, |hunt| match &hunt.found {
        Some((seed, broken)) => {
            let text = broken.text.lines().next().unwrap_or_default();
            eprintln!("{}: seed {seed}: {}: {text}", hunt.mutation, broken.promise);
        }
        None => eprintln!("{}: not found", hunt.mutation),
    });
    print!("{}", mutants::table(&hunts));
    Ok(hunts.iter().all(|hunt| hunt.found.is_some()))
}

#[cfg(not(feature = "mutations"))]
fn hunt(_: &Mutations) -> anyhow::Result<bool> {
    anyhow::bail!("this program was built without the feature `mutations`")
}
