//! A history as a person reads it: one line per event with a column per node, and a timeline.

mod timeline;
mod words;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};

use crate::cluster::{FULL, FULL_NAME};
use crate::history::{Broken, Event, EventKind, Form, History, Outcome};

pub use timeline::timeline;
use words::{deed_text, event_text};

/// Before the end everything is told, also what goes on all the time.
const CLOSE_MS: u64 = 150;

/// The width of a node's column.
const COLUMN: usize = 14;

/// What happened, one line per event, a column per node. What goes on all the time is told in
/// short until shortly before the promise was broken.
#[must_use]
pub fn story(history: &History, outcome: &Outcome) -> String {
    let nodes = nodes(history, outcome);
    let mut text = headline(history, outcome);
    let _ = write!(text, "{:>9}", "ms");
    for node in &nodes {
        let _ = write!(text, "  {:<width$}", node_name(*node), width = COLUMN - 2);
    }
    text.push('\n');
    let close = outcome.broken.as_ref().map_or(u64::MAX, |broken| broken.at_ms.saturating_sub(CLOSE_MS));
    let mut routine = Routine::default();
    for event in &outcome.events {
        if event.at_ms < close && is_routine(&event.what) {
            routine.take(event);
            continue;
        }
        routine.tell(&mut text);
        let column = event.node.and_then(|node| nodes.iter().position(|known| *known == node));
        line(&mut text, event.at_ms, column, &event_text(&event.what));
    }
    routine.tell(&mut text);
    if let Some(broken) = &outcome.broken {
        line(&mut text, broken.at_ms, None, &format!("BROKEN {}", named(broken)));
    }
    text
}

fn headline(history: &History, outcome: &Outcome) -> String {
    let shape = &history.shape;
    let mut text = format!(
        "seed {}: {} voters, {} learners{}{}{}, a block every {} ms, {} deeds in {} ms, trace {:.16}\n",
        history.seed,
        shape.voters,
        shape.learners,
        if shape.witness { ", the last voter a witness" } else { "" },
        match shape.full.map(|full| (full.sources.peers, full.sources.da)) {
            None => "",
            Some((true, true)) => ", a full node over peers and DA",
            Some((_, false)) => ", a full node over peers",
            Some((false, true)) => ", a full node over DA",
        },
        if shape.full.is_some_and(|full| full.light) { " (light)" } else { "" },
        shape.block_time_ms,
        history.deeds.len(),
        history.span_ms,
        outcome.trace.to_string(),
    );
    match &outcome.broken {
        Some(broken) => {
            let _ = writeln!(text, "broken after {} ms: {}", broken.at_ms, named(broken));
        }
        None => text.push_str("no promise was broken\n"),
    }
    text
}

/// The promise and what was seen, which may begin with it.
fn named(broken: &Broken) -> String {
    match broken.text.starts_with(&broken.promise) {
        true => broken.text.clone(),
        false => format!("{}: {}", broken.promise, broken.text),
    }
}

fn line(text: &mut String, at_ms: u64, column: Option<usize>, what: &str) {
    let indent = column.map_or(0, |column| column * COLUMN);
    let mark = if column.is_some() { "" } else { "-- " };
    let _ = writeln!(text, "{at_ms:>9}  {:indent$}{mark}{what}", "");
}

/// Which nodes there are, those that join on the way too, and the full node.
fn nodes(history: &History, outcome: &Outcome) -> Vec<usize> {
    let members = outcome.events.iter().filter_map(|event| event.node).filter(|node| *node != FULL);
    let seen = members.max().map_or(0, |last| last + 1);
    let members = 0..seen.max(history.shape.voters + history.shape.learners);
    members.chain(history.shape.full.map(|_| FULL)).collect()
}

/// What a node is called.
fn node_name(node: usize) -> String {
    if node == FULL { FULL_NAME.to_owned() } else { format!("n{node}") }
}

/// What goes on all the time.
const fn is_routine(what: &EventKind) -> bool {
    matches!(
        what,
        EventKind::Committed { .. }
            | EventKind::Applied { .. }
            | EventKind::Signed { .. }
            | EventKind::Executed { .. }
            | EventKind::Posted { .. }
            | EventKind::Included { .. }
    )
}

/// Routine between two lines.
#[derive(Default)]
struct Routine {
    at_ms: u64,
    blocks: Option<(u64, u64)>,
    txs: usize,
    applied: BTreeMap<usize, u64>,
    included: Option<u64>,
}

impl Routine {
    fn take(&mut self, event: &Event) {
        self.at_ms = event.at_ms;
        match (&event.what, event.node) {
            (EventKind::Committed { height, txs, .. }, _) => {
                let (first, last) = self.blocks.unwrap_or((*height, *height));
                self.blocks = Some((first.min(*height), last.max(*height)));
                self.txs += txs;
            }
            (EventKind::Applied { height }, Some(node)) => {
                self.applied.insert(node, *height);
            }
            (EventKind::Included { height }, _) => self.included = Some(*height),
            _ => {}
        }
    }

    fn tell(&mut self, text: &mut String) {
        let Self { at_ms, blocks, txs, applied, included } = std::mem::take(self);
        let mut parts = vec![];
        match blocks {
            Some((first, last)) if first == last => parts.push(format!("block {first}")),
            Some((first, last)) => parts.push(format!("blocks {first} to {last}")),
            None => {}
        }
        if txs > 0 {
            parts.push(format!("{txs} transactions"));
        }
        if !applied.is_empty() {
            let applied = applied.iter().map(|(node, height)| format!("{} {height}", node_name(*node)));
            let applied: Vec<String> = applied.collect();
            parts.push(format!("applied: {}", applied.join(", ")));
        }
        if let Some(height) = included {
            parts.push(format!("on DA to {height}"));
        }
        if !parts.is_empty() {
            line(text, at_ms, None, &parts.join("; "));
        }
    }
}

/// The deeds, one line each: what a shrunken history comes down to.
#[must_use]
pub fn deeds(history: &History) -> String {
    let mut text = String::new();
    for deed in &history.deeds {
        let _ = writeln!(text, "{:>9}  {}", deed.at_ms, deed_text(&deed.what));
    }
    text
}

/// Writes story and timeline into a directory, as `seed-N.txt` and `seed-N.svg` (`seed-5-N` for
/// clusters of five), and returns their paths.
///
/// # Errors
///
/// When they cannot be written.
pub fn write(history: &History, outcome: &Outcome, directory: &Path) -> io::Result<(PathBuf, PathBuf)> {
    std::fs::create_dir_all(directory)?;
    let path = |extension: &str| directory.join(format!("{}.{extension}", file_name(history)));
    let (txt, svg) = (path("txt"), path("svg"));
    std::fs::write(&txt, story(history, outcome))?;
    std::fs::write(&svg, timeline(history, outcome))?;
    Ok((txt, svg))
}

/// The name of the files about a history, without an extension.
#[must_use]
pub fn file_name(history: &History) -> String {
    match history.form {
        Form::USUAL => format!("seed-{}", history.seed),
        form => format!("seed-{form}-{}", history.seed),
    }
}

/// What a failed seed prints: the broken promise, the one command that replays it, where story
/// and timeline are, and the line for the list of regressions.
#[must_use]
pub fn failure(history: &History, outcome: &Outcome, directory: &Path) -> String {
    let seed = history.seed;
    let Some(broken) = &outcome.broken else { return format!("seed {seed}: no promise was broken\n") };
    let mut text = format!("seed {seed} broke a promise after {} ms: {}\n", broken.at_ms, named(broken));
    let _ = writeln!(text, "  replay it:       {}", replay_command(history));
    match write(history, outcome, directory) {
        Ok((story, timeline)) => {
            let _ = writeln!(text, "  story, timeline: {} {}", story.display(), timeline.display());
        }
        Err(error) => {
            let _ = writeln!(text, "  story, timeline: not written to {}: {error}", directory.display());
        }
    }
    let _ = writeln!(text, "  tests/seeds.txt: {}", regression_line(history, outcome));
    text
}

/// The one command that runs a seed again.
#[must_use]
pub fn replay_command(history: &History) -> String {
    let seed = history.seed;
    match history.form {
        Form::USUAL => format!("make replay SEED={seed}"),
        form => format!("make replay SEED={seed} SHAPE={form}"),
    }
}

/// The test that runs histories, as `tests/seeds.txt` names it.
pub const HISTORIES: &str = "no_history_breaks_a_promise";

/// The name under which `tests/seeds.txt` lists histories of clusters of a form.
#[must_use]
pub fn listed_as(form: Form) -> String {
    match form {
        Form::USUAL => HISTORIES.to_owned(),
        form => format!("{HISTORIES}/{form}"),
    }
}

/// The line that keeps a seed in the list of regressions.
#[must_use]
pub fn regression_line(history: &History, outcome: &Outcome) -> String {
    let found = outcome.broken.as_ref().map_or_else(String::new, |broken| {
        let first = broken.text.lines().next().unwrap_or_default();
        format!(" {}", first.chars().take(120).collect::<String>())
    });
    format!("{} {}{found}", listed_as(history.form), history.seed)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use baton_messages::types::Hash;

    use super::*;
    use crate::history::Coverage;

    fn event(at_ms: u64, node: usize, what: EventKind) -> Event {
        Event { at_ms, node: Some(node), what }
    }

    fn outcome(events: Vec<Event>) -> Outcome {
        let broken = Broken { promise: "I2".to_owned(), at_ms: 900, text: "I2: two blocks".to_owned() };
        Outcome {
            broken: Some(broken),
            trace: Hash::default(),
            coverage: Coverage::default(),
            events,
            virtual_time: Duration::from_millis(900),
        }
    }

    fn committed(height: u64) -> EventKind {
        EventKind::Committed { height, term: 1, hash: "aa".to_owned(), txs: 2 }
    }

    #[test]
    fn what_goes_on_all_the_time_is_told_in_short_until_shortly_before_the_end() {
        let events = vec![
            event(100, 0, EventKind::Leads { term: 1 }),
            event(200, 0, committed(1)),
            event(210, 2, EventKind::Applied { height: 1 }),
            event(300, 0, committed(2)),
            event(400, 0, EventKind::Ended { reason: "crash".to_owned() }),
            event(800, 1, committed(3)),
        ];
        let told = story(&History::of(1), &outcome(events));
        assert!(told.contains("      300  -- blocks 1 to 2; 4 transactions; applied: n2 1\n"), "{told}");
        assert!(told.contains(&format!("      800  {:COLUMN$}block 3", "")), "{told}");
        assert!(told.contains("      400  ended: crash\n"), "{told}");
        assert!(told.ends_with("      900  -- BROKEN I2: two blocks\n"), "{told}");
    }

    #[test]
    fn a_failure_names_the_command_that_replays_it_and_the_line_for_the_list() {
        let directory = tempfile::tempdir().expect("a directory");
        let told = failure(&History::of(7), &outcome(vec![]), directory.path());
        assert!(told.contains("make replay SEED=7\n"), "{told}");
        assert!(told.contains(&format!("{HISTORIES} 7 I2: two blocks\n")), "{told}");
        let five = History::with("5".parse().expect("a form"), 7);
        let told = failure(&five, &outcome(vec![]), directory.path());
        assert!(told.contains("make replay SEED=7 SHAPE=5\n"), "{told}");
        assert!(told.contains(&format!("{HISTORIES}/5 7 I2: two blocks\n")), "{told}");
        assert!(directory.path().join("seed-7.svg").exists() && directory.path().join("seed-7.txt").exists());
    }
}
