//! Many histories: in chunks that can be taken up again, on several threads, with what they
//! reached and broke.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::history::{Coverage, Form, History, Outcome};

/// Seeds that are run, or not, as a whole.
pub const CHUNK: u64 = 25;

/// A seed that broke a promise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Which.
    pub seed: u64,
    /// The promise.
    pub promise: String,
    /// What was seen.
    pub text: String,
}

/// What a range of seeds came to so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Seeds that were run.
    pub seeds: u64,
    /// Their virtual time, milliseconds.
    pub virtual_ms: u64,
    /// The processor time they took, milliseconds.
    pub cpu_ms: u64,
    /// The situations that were reached.
    pub coverage: Coverage,
    /// The seeds that broke a promise.
    pub failures: Vec<Failure>,
}

impl Tally {
    fn add(&mut self, seed: u64, outcome: &Outcome) {
        self.seeds += 1;
        self.virtual_ms += millis(outcome.virtual_time);
        self.coverage.merge(&outcome.coverage);
        if let Some(broken) = &outcome.broken {
            let (promise, text) = (broken.promise.clone(), broken.text.clone());
            self.failures.push(Failure { seed, promise, text });
        }
    }

    fn merge(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.virtual_ms += other.virtual_ms;
        self.cpu_ms += other.cpu_ms;
        self.coverage.merge(&other.coverage);
        self.failures.extend(other.failures);
        self.failures.sort_by_key(|failure| failure.seed);
    }

    /// Virtual seconds per second of one core.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.virtual_ms as f64 / self.cpu_ms.max(1) as f64
    }

    /// The virtual time of all of them, in hours.
    #[must_use]
    pub fn virtual_hours(&self) -> f64 {
        self.virtual_ms as f64 / 3_600_000.0
    }
}

/// The processor time of this process so far, milliseconds.
#[must_use]
pub fn processor_ms() -> u64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = text.rsplit(')').next().unwrap_or_default();
    // The state is a letter; utime and stime are the 12th and 13th word after the name, in
    // hundredths of a second.
    let words = after_name.split_whitespace().skip(11).take(2);
    words.filter_map(|word| word.parse::<u64>().ok()).sum::<u64>() * 10
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A range of seeds of one version, with what is done of it. It is a file between two runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Campaign {
    /// The version that runs: results of several versions are not added up.
    pub commit: String,
    /// Of how many members the clusters are.
    #[serde(default)]
    pub form: Form,
    /// The seeds.
    pub seeds: Range<u64>,
    /// The chunks that are done, by their first seed.
    done: BTreeMap<u64, u64>,
    /// What they came to.
    pub tally: Tally,
}

/// Why a campaign cannot be taken up again.
#[derive(Debug, thiserror::Error)]
pub enum CampaignError {
    /// The file cannot be read or written.
    #[error("{0}: {1}; name another file with --state")]
    Io(String, std::io::Error),
    /// It is no campaign.
    #[error("{0} does not hold a campaign ({1}); name another file with --state, or remove it")]
    Format(String, serde_json::Error),
    /// It is another one.
    #[error(
        "{path} is about seeds {found:?} of clusters of {form}, version {commit}; name another file with --state, or remove it"
    )]
    Other {
        /// The file.
        path: String,
        /// Its seeds.
        found: Range<u64>,
        /// Of how many members its clusters are.
        form: Form,
        /// Its version.
        commit: String,
    },
}

impl Campaign {
    /// One of which nothing is done.
    #[must_use]
    pub fn new(commit: &str, form: Form, seeds: Range<u64>) -> Self {
        Self { commit: commit.to_owned(), form, seeds, done: BTreeMap::new(), tally: Tally::default() }
    }

    /// Takes up what a file holds; begins when there is none.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or holds something else.
    pub fn take_up(path: &Path, commit: &str, form: Form, seeds: Range<u64>) -> Result<Self, CampaignError> {
        let name = || path.display().to_string();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::new(commit, form, seeds));
            }
            Err(error) => return Err(CampaignError::Io(name(), error)),
        };
        let found: Self =
            serde_json::from_str(&text).map_err(|error| CampaignError::Format(name(), error))?;
        if found.commit != commit || found.form != form || found.seeds != seeds {
            let Self { commit, form, seeds: found, .. } = found;
            return Err(CampaignError::Other { path: name(), found, form, commit });
        }
        Ok(found)
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn keep(&self, path: &Path) -> Result<(), CampaignError> {
        let failed = |error| CampaignError::Io(path.display().to_string(), error);
        let mut next = path.as_os_str().to_owned();
        next.push(".next");
        let text = serde_json::to_string(self)
            .map_err(|error| CampaignError::Format(path.display().to_string(), error))?;
        std::fs::write(&next, text).map_err(failed)?;
        std::fs::rename(&next, path).map_err(failed)
    }

    /// The chunks that are left.
    fn left(&self) -> Vec<Range<u64>> {
        let starts = self.seeds.clone().step_by(usize::try_from(CHUNK).unwrap_or(usize::MAX));
        let chunk = |start: u64| start..(start + CHUNK).min(self.seeds.end);
        starts.filter(|start| !self.done.contains_key(start)).map(chunk).collect()
    }

    /// Whether every seed was run.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.left().is_empty()
    }

    /// Runs what is left on so many threads. `told` hears of each chunk that is done, and may end
    /// the run by an error; `failed` of each seed that broke a promise.
    ///
    /// # Errors
    ///
    /// What `told` returns.
    #[allow(clippy::disallowed_methods)] // Each history has a thread of its own; these wait for them.
    pub fn run<E: Send>(
        &mut self,
        threads: usize,
        failed: impl Fn(&History, &Outcome) + Sync,
        mut told: impl FnMut(&Self) -> Result<(), E>,
    ) -> Result<(), E> {
        let (form, mut left) = (self.form, self.left());
        left.reverse();
        let left = Mutex::new(left);
        let next = || left.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let (sender, receiver) = std::sync::mpsc::channel();
        let mut cpu_ms = processor_ms();
        std::thread::scope(|scope| {
            for _ in 0..threads.max(1) {
                let (sender, next, failed) = (sender.clone(), &next, &failed);
                scope.spawn(move || {
                    while let Some(chunk) = next() {
                        let mut tally = Tally::default();
                        for seed in chunk.clone() {
                            let history = History::with(form, seed);
                            let outcome = history.run();
                            tally.add(seed, &outcome);
                            if outcome.broken.is_some() {
                                failed(&history, &outcome);
                            }
                        }
                        if sender.send((chunk, tally)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(sender);
            let mut ended = Ok(());
            for (chunk, tally) in receiver {
                self.done.insert(chunk.start, tally.seeds);
                self.tally.merge(tally);
                let before = std::mem::replace(&mut cpu_ms, processor_ms());
                self.tally.cpu_ms += cpu_ms - before;
                ended = told(self);
                if ended.is_err() {
                    left.lock().unwrap_or_else(PoisonError::into_inner).clear();
                    break;
                }
            }
            ended
        })
    }
}

impl fmt::Display for Campaign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { seeds, coverage, failures, .. } = &self.tally;
        writeln!(f, "version {}, clusters of {}", self.commit, self.form)?;
        writeln!(
            f,
            "{seeds} of {} seeds, {:.1} virtual hours, {:.0}x real time per core, {} broke a promise",
            self.seeds.end - self.seeds.start,
            self.tally.virtual_hours(),
            self.tally.rate(),
            failures.len()
        )?;
        for failure in failures {
            let text = failure.text.lines().next().unwrap_or_default();
            writeln!(f, "  seed {}: {}: {text}", failure.seed, failure.promise)?;
        }
        writeln!(f, "situations that were reached:")?;
        write!(f, "{coverage}")?;
        let missing = coverage.missing();
        if !missing.is_empty() {
            let names: Vec<String> = missing.iter().map(ToString::to_string).collect();
            writeln!(f, "never: {}", names.join(", "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_takes_processor_time() {
        let before = processor_ms();
        let mut hash = baton_messages::types::Hash::default();
        while processor_ms() < before + 20 {
            hash = baton_messages::types::Hash::of(&hash.0);
        }
    }

    #[test]
    fn what_is_kept_is_taken_up_and_not_run_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("campaign.json");
        let mut campaign = Campaign::take_up(&path, "v1", Form::USUAL, 0..60).expect("there is none");
        assert_eq!(campaign.left(), [0..25, 25..50, 50..60]);
        campaign.done.insert(25, 25);
        campaign.tally.seeds = 25;
        campaign.keep(&path).expect("writable");
        let again = Campaign::take_up(&path, "v1", Form::USUAL, 0..60).expect("the same");
        assert_eq!(again, campaign);
        assert_eq!(again.left(), [0..25, 50..60]);
        let other = Campaign::take_up(&path, "v2", Form::USUAL, 0..60).expect_err("another version");
        assert!(other.to_string().contains("clusters of 3, version v1"), "{other}");
        let other = Campaign::take_up(&path, "v1", Form::USUAL, 0..61).expect_err("other seeds");
        assert!(matches!(other, CampaignError::Other { .. }));
        let five = "5".parse().expect("a form");
        let other = Campaign::take_up(&path, "v1", five, 0..60).expect_err("another form");
        assert!(matches!(other, CampaignError::Other { .. }));
        std::fs::write(&path, "{").expect("writable");
        let damaged = Campaign::take_up(&path, "v1", Form::USUAL, 0..60).expect_err("no campaign");
        assert!(matches!(damaged, CampaignError::Format(..)));
    }

    #[test]
    fn every_seed_is_run_once_whatever_the_number_of_threads() {
        let mut campaign = Campaign::new("v1", Form::USUAL, 0..3);
        let mut told = 0;
        let ended = campaign.run(
            2,
            |_, _| {},
            |_| {
                told += 1;
                Ok::<(), ()>(())
            },
        );
        assert_eq!((ended, told, campaign.tally.seeds), (Ok(()), 1, 3));
        assert!(campaign.is_done() && campaign.tally.virtual_ms > 3 * 20_000);
        assert!(campaign.to_string().contains("3 of 3 seeds"), "{campaign}");
    }
}
