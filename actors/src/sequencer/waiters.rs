//! Who waits for which transaction, without the actor around it.

use std::collections::{BTreeMap, HashMap, VecDeque};

use baton_messages::engine::TxResult;
use baton_messages::sequencer::{AwaitError, Level, Outcome, Results};
use baton_messages::types::{Hash, Height, Place};
use tokio::sync::oneshot;

type Reply = oneshot::Sender<Result<Outcome, AwaitError>>;

/// Results of so many blocks are kept for those who ask a little later.
const KEPT_RESULTS: usize = 64;

/// Requests that wait, and the results of the last blocks.
#[derive(Debug, Default)]
pub struct Waiters {
    for_commit: HashMap<Hash, Vec<(Level, Reply)>>,
    for_execution: BTreeMap<Height, Vec<(Place, Reply)>>,
    results: VecDeque<(Height, Results)>,
    executed: Height,
    count: usize,
}

impl Waiters {
    /// How many requests wait.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether nobody waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Waits for a transaction that is not in the chain yet.
    pub fn wait_for_commit(&mut self, hash: Hash, level: Level, reply: Reply) {
        self.count += 1;
        self.for_commit.entry(hash).or_default().push((level, reply));
    }

    /// Waits for the execution of a transaction in the chain, or answers if that is past.
    pub fn wait_for_execution(&mut self, place: Place, reply: Reply) {
        if self.is_executed(place.height) {
            let _ = reply.send(Ok(Outcome { place, result: self.result(place) }));
            return;
        }
        self.count += 1;
        self.for_execution.entry(place.height).or_default().push((place, reply));
    }

    /// A transaction is in a committed block.
    pub fn committed(&mut self, hash: &Hash, place: Place) {
        for (level, reply) in self.for_commit.remove(hash).unwrap_or_default() {
            self.count -= 1;
            match level {
                Level::Committed => {
                    let _ = reply.send(Ok(Outcome { place, result: None }));
                }
                Level::Executed => self.wait_for_execution(place, reply),
            }
        }
    }

    /// The engine will never take a transaction.
    pub fn dropped(&mut self, hash: &Hash, reason: &str) {
        for (_, reply) in self.for_commit.remove(hash).unwrap_or_default() {
            self.count -= 1;
            let _ = reply.send(Err(AwaitError::Dropped(reason.to_owned())));
        }
    }

    /// The engine has executed everything up to here, whoever saw the results.
    pub fn followed(&mut self, height: Height) {
        self.executed(height, Results::default());
    }

    /// Whether a block is executed.
    #[must_use]
    pub fn is_executed(&self, height: Height) -> bool {
        height <= self.executed
    }

    /// A block is executed.
    pub fn executed(&mut self, height: Height, results: Results) {
        self.executed = self.executed.max(height);
        if !results.is_empty() {
            self.results.push_back((height, results));
        }
        while self.results.len() > KEPT_RESULTS {
            self.results.pop_front();
        }
        let later = self.for_execution.split_off(&height.next());
        let due = std::mem::replace(&mut self.for_execution, later);
        for (place, reply) in due.into_values().flatten() {
            self.count -= 1;
            let _ = reply.send(Ok(Outcome { place, result: self.result(place) }));
        }
    }

    /// Forgets those who gave up.
    pub fn forget_absent(&mut self) {
        for waiting in self.for_commit.values_mut() {
            waiting.retain(|(_, reply)| !reply.is_closed());
        }
        self.for_commit.retain(|_, waiting| !waiting.is_empty());
        for waiting in self.for_execution.values_mut() {
            waiting.retain(|(_, reply)| !reply.is_closed());
        }
        self.for_execution.retain(|_, waiting| !waiting.is_empty());
        self.count = self.for_commit.values().map(Vec::len).sum::<usize>()
            + self.for_execution.values().map(Vec::len).sum::<usize>();
    }

    fn result(&self, place: Place) -> Option<TxResult> {
        let (_, results) = self.results.iter().rev().find(|(height, _)| *height == place.height)?;
        results.get(usize::try_from(place.index).ok()?).cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;

    fn place(height: u64) -> Place {
        Place { height: Height(height), index: 0, header_hash: Hash::of(b"block") }
    }

    fn results() -> Results {
        Arc::new(vec![TxResult::Applied(Bytes::from_static(b"ok"))])
    }

    #[test]
    fn who_waits_for_execution_gets_the_result() {
        let mut waiters = Waiters::default();
        let (reply, mut outcome) = oneshot::channel();
        waiters.wait_for_commit(Hash::of(b"tx"), Level::Executed, reply);
        waiters.committed(&Hash::of(b"tx"), place(3));
        assert!(outcome.try_recv().is_err());
        assert_eq!(waiters.len(), 1);
        waiters.executed(Height(3), results());
        let outcome = outcome.try_recv().expect("answered").expect("executed");
        assert_eq!(outcome.result, Some(results()[0].clone()));
        assert!(waiters.is_empty());
    }

    #[test]
    fn who_asks_after_the_fact_is_answered_at_once() {
        let mut waiters = Waiters::default();
        waiters.executed(Height(3), results());
        let (reply, mut outcome) = oneshot::channel();
        waiters.wait_for_execution(place(3), reply);
        assert!(outcome.try_recv().expect("answered").expect("executed").result.is_some());
    }

    #[test]
    fn what_was_executed_before_a_restart_is_executed() {
        let mut waiters = Waiters::default();
        let (early, mut outcome) = oneshot::channel();
        waiters.wait_for_execution(place(3), early);
        waiters.followed(Height(5));
        assert_eq!(outcome.try_recv().expect("answered").expect("executed").result, None);
        let (late, mut outcome) = oneshot::channel();
        waiters.wait_for_execution(place(5), late);
        assert_eq!(outcome.try_recv().expect("answered").expect("executed").place, place(5));
    }

    #[test]
    fn who_gave_up_is_forgotten() {
        let mut waiters = Waiters::default();
        let (reply, outcome) = oneshot::channel();
        waiters.wait_for_commit(Hash::of(b"tx"), Level::Committed, reply);
        drop(outcome);
        waiters.forget_absent();
        assert!(waiters.is_empty());
    }
}
