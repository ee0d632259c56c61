//! Telling people who was turned away: counted always, told once a minute.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::cluster::hello::{Cause, Refusal};
use crate::cluster::metrics::{By, Metrics};

/// How long the same refusal of the same node is only counted.
const QUIET: Duration = Duration::from_secs(60);
/// The most nodes and causes that are told apart; beyond it all are one.
const MOST: usize = 256;

/// A handshake that failed for a reason a person should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Who refused: this node, or the other.
    pub by: By,
    /// Why, in a word. [`Cause::Closed`] never comes here.
    pub cause: Cause,
    /// Why, in a sentence.
    pub reason: String,
    /// The address at the other end.
    pub address: String,
    /// What the other is called, when it said so.
    pub name: Option<String>,
    /// Its storage, when it said so.
    pub storage: Option<Uuid>,
    /// How often the same happened since it was told last.
    pub repeated: u64,
}

/// Hears of refusals, at most once a minute of each; for the audit record.
pub type Audit = Arc<dyn Fn(Refused) + Send + Sync>;

/// Counts refusals and tells of them.
pub(super) struct Refusals {
    told: Mutex<Told>,
    audit: Option<Audit>,
    metrics: Metrics,
}

impl fmt::Debug for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refusals").finish_non_exhaustive()
    }
}

/// Who is refused, as far as it is known.
#[derive(Clone, Debug, Default)]
pub(super) struct Who {
    pub(super) address: String,
    pub(super) name: Option<String>,
    pub(super) storage: Option<Uuid>,
}

impl Refusals {
    pub(super) fn new(audit: Option<Audit>, metrics: Metrics) -> Self {
        Self { told: Mutex::default(), audit, metrics }
    }

    /// It happened.
    pub(super) fn note(&self, by: By, refusal: &Refusal, who: Who) {
        let cause = refusal.cause;
        self.metrics.refused(by, cause);
        let (name, storage) = (who.name.as_deref().unwrap_or("a stranger"), who.storage);
        if !cause.is_telling() {
            debug!(by = by.name(), cause = cause.name(), reason = %refusal.reason, address = %who.address, name,
                "a handshake failed");
            return;
        }
        // A stranger has a new port each time; its host is what stays. Those without a name are one:
        // they would fill the record, and what is in it is put aside when it is long.
        let host = who.address.rsplit_once(':').map_or(&*who.address, |(host, _)| host);
        let key = match &who.name {
            Some(name) => format!("{} {} {host} {name}", by.name(), cause.name()),
            None => format!("{} {}", by.name(), cause.name()),
        };
        let noted = self.told.lock().unwrap_or_else(PoisonError::into_inner).note(Instant::now(), key);
        let Some(repeated) = noted else {
            debug!(by = by.name(), cause = cause.name(), reason = %refusal.reason, address = %who.address, name,
                "refused again in the cluster handshake");
            return;
        };
        warn!(by = by.name(), cause = cause.name(), reason = %refusal.reason, address = %who.address, name,
            storage = storage.map(tracing::field::display), repeated, "refused in the cluster handshake");
        // Anybody can fill the places for handshakes; that is no news of a member.
        if let Some(audit) = self.audit.as_ref().filter(|_| cause != Cause::Full) {
            audit(Refused {
                by,
                cause,
                reason: refusal.reason.clone(),
                address: who.address,
                name: who.name,
                storage,
                repeated,
            });
        }
    }
}

/// What was told when, and how often it happened since.
#[derive(Debug, Default)]
struct Told(BTreeMap<String, (Instant, u64)>);

impl Told {
    /// How often it happened untold, when it is to be told now.
    fn note(&mut self, now: Instant, key: String) -> Option<u64> {
        if self.0.len() >= MOST {
            self.0.retain(|_, (at, _)| now.saturating_duration_since(*at) < QUIET);
        }
        let key = if self.0.len() >= MOST && !self.0.contains_key(&key) { String::new() } else { key };
        match self.0.get_mut(&key) {
            Some((at, untold)) if now.saturating_duration_since(*at) < QUIET => {
                *untold += 1;
                None
            }
            Some(entry) => {
                let untold = entry.1;
                *entry = (now, 0);
                Some(untold)
            }
            None => {
                self.0.insert(key, (now, 0));
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_same_refusal_is_told_once_a_minute_with_how_often_it_was() {
        let mut told = Told::default();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(told.note(start, "a".to_owned()), Some(0));
        assert_eq!(told.note(start, "b".to_owned()), Some(0), "another one is told at once");
        assert_eq!(told.note(after(1), "a".to_owned()), None);
        assert_eq!(told.note(after(59), "a".to_owned()), None);
        assert_eq!(told.note(after(60), "a".to_owned()), Some(2));
        assert_eq!(told.note(after(61), "a".to_owned()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_without_a_name_take_one_line_a_minute_in_the_record() {
        let lines: Arc<Mutex<Vec<Refused>>> = Arc::default();
        let record = lines.clone();
        let audit: Audit = Arc::new(move |refused| record.lock().unwrap().push(refused));
        let refusals = Refusals::new(Some(audit), Metrics::default());
        let refusal = Refusal::new(Cause::Certificate, "its certificate is not accepted");
        let note = |address: String, name: Option<&str>| {
            let who = Who { address, name: name.map(str::to_owned), storage: None };
            refusals.note(By::Us, &refusal, who);
        };
        for host in 0..=255 {
            note(format!("10.0.0.{host}:7"), None);
        }
        assert_eq!(lines.lock().unwrap().len(), 1);
        note("10.0.0.1:7".to_owned(), Some("n1"));
        note("10.0.0.2:7".to_owned(), Some("n2"));
        assert_eq!(lines.lock().unwrap().len(), 3, "members are told apart");
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_without_number_do_not_fill_the_memory() {
        let mut told = Told::default();
        let now = Instant::now();
        let said = (0..10_000).filter(|number| told.note(now, number.to_string()).is_some()).count();
        assert_eq!(said, MOST + 1);
        assert!(told.0.len() <= MOST + 1);
        told.note(now + QUIET, "later".to_owned());
        assert_eq!(told.0.len(), 1);
    }
}
