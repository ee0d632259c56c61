//! What the clients were told, and whether the chain keeps it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use baton_messages::types::{Hash, Place, Tx};

/// The strongest thing a client was told about a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// Nothing: it may be in the chain or not.
    Unknown,
    /// It is in a durable queue.
    Accepted,
    /// It is in the chain, here.
    Committed(Place),
}

/// Remembers every attempt of every client.
#[derive(Clone, Debug, Default)]
pub struct Oracle(Arc<Mutex<BTreeMap<Hash, (Tx, Ack)>>>);

impl Oracle {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Hash, (Tx, Ack)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client is about to send this.
    pub fn attempt(&self, tx: &Tx) {
        self.lock().entry(tx.hash()).or_insert_with(|| (tx.clone(), Ack::Unknown));
    }

    /// A client was told this.
    ///
    /// # Panics
    ///
    /// When it contradicts what a client was told before.
    pub fn told(&self, tx: &Tx, ack: Ack) {
        let mut all = self.lock();
        let entry = all.entry(tx.hash()).or_insert_with(|| (tx.clone(), Ack::Unknown));
        if let (Ack::Committed(before), Ack::Committed(now)) = (entry.1, ack) {
            assert_eq!(before, now, "P3: a transaction was said to be committed in two places");
        }
        if !matches!(entry.1, Ack::Committed(_)) {
            entry.1 = ack;
        }
    }

    /// Everything and what was told.
    #[must_use]
    pub fn all(&self) -> Vec<(Tx, Ack)> {
        self.lock().values().cloned().collect()
    }

    /// Compares with the chain: where each transaction stands, how often.
    ///
    /// # Panics
    ///
    /// When a promise is broken.
    pub fn check(&self, places: &BTreeMap<Hash, Vec<Place>>) {
        let all = self.lock();
        for hash in places.keys() {
            assert!(all.contains_key(hash), "a phantom: the chain holds {hash}, nobody sent it");
        }
        for (hash, (tx, ack)) in all.iter() {
            let found = places.get(hash).map_or(&[][..], Vec::as_slice);
            assert!(found.len() <= 1, "P3: {tx:?} is in the chain {} times: {found:?}", found.len());
            match ack {
                Ack::Unknown => {}
                Ack::Accepted => assert_eq!(found.len(), 1, "P3: {tx:?} was accepted and is lost"),
                Ack::Committed(place) => {
                    assert_eq!(found, [*place], "P3: {tx:?} was said to be committed elsewhere");
                }
            }
        }
    }
}
