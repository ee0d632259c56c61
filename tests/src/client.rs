//! What the clients were told, and whether the chain keeps it.

use std::collections::{BTreeMap, BTreeSet};
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

/// Everything about one transaction.
#[derive(Debug)]
struct Attempt {
    tx: Tx,
    ack: Ack,
    /// The nodes that said it is in their durable queue.
    accepted_by: BTreeSet<usize>,
    /// It was handed in more than once: any of them may be the one that stands.
    repeated: bool,
}

#[derive(Debug, Default)]
struct Memory {
    attempts: BTreeMap<Hash, Attempt>,
    /// What one client handed in at one node in one of its lives, each after the one before was
    /// accepted.
    sittings: BTreeMap<u64, (usize, Vec<Hash>)>,
    /// The places that clients were told, in the order of telling.
    places: Vec<Place>,
}

impl Memory {
    fn attempt(&mut self, tx: &Tx) -> &mut Attempt {
        let fresh =
            || Attempt { tx: tx.clone(), ack: Ack::Unknown, accepted_by: BTreeSet::new(), repeated: false };
        self.attempts.entry(tx.hash()).or_insert_with(fresh)
    }
}

/// Remembers every attempt of every client.
#[derive(Clone, Debug, Default)]
pub struct Oracle(Arc<Mutex<Memory>>);

impl Oracle {
    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client is about to send this.
    pub fn attempt(&self, tx: &Tx) {
        self.lock().attempt(tx);
    }

    /// A client was told this.
    ///
    /// # Panics
    ///
    /// When it contradicts what a client was told before.
    pub fn told(&self, tx: &Tx, ack: Ack) {
        self.told_by(0, tx, ack);
    }

    /// As `told`, by this node.
    ///
    /// # Panics
    ///
    /// As `told`.
    pub fn told_by(&self, node: usize, tx: &Tx, ack: Ack) {
        let mut memory = self.lock();
        let attempt = memory.attempt(tx);
        if let (Ack::Committed(before), Ack::Committed(now)) = (attempt.ack, ack) {
            assert_eq!(before, now, "P3: a transaction was said to be committed in two places");
        }
        if ack == Ack::Accepted {
            attempt.accepted_by.insert(node);
        }
        if !matches!(attempt.ack, Ack::Committed(_)) {
            attempt.ack = ack;
        }
        if let Ack::Committed(place) = ack {
            memory.places.push(place);
        }
    }

    /// A client hands this in once more.
    pub fn repeats(&self, tx: &Tx) {
        self.lock().attempt(tx).repeated = true;
    }

    /// A client has handed this in at a node, after everything of the same sitting was accepted.
    pub fn sat(&self, sitting: u64, node: usize, tx: &Tx) {
        self.lock().sittings.entry(sitting).or_insert((node, vec![])).1.push(tx.hash());
    }

    /// A node's disk is lost, and its queue with it: what only this node had accepted may be gone.
    pub fn lost(&self, node: usize) {
        let mut memory = self.lock();
        for attempt in memory.attempts.values_mut() {
            attempt.accepted_by.remove(&node);
            if attempt.ack == Ack::Accepted && attempt.accepted_by.is_empty() {
                attempt.ack = Ack::Unknown;
            }
        }
        memory.sittings.retain(|_, (at, _)| *at != node);
    }

    /// The places that clients were told, after the first so many.
    #[must_use]
    pub fn places_since(&self, seen: usize) -> Vec<Place> {
        self.lock().places.get(seen..).unwrap_or_default().to_vec()
    }

    /// Everything and what was told.
    #[must_use]
    pub fn all(&self) -> Vec<(Tx, Ack)> {
        self.lock().attempts.values().map(|attempt| (attempt.tx.clone(), attempt.ack)).collect()
    }

    /// Compares with the chain: where each transaction stands, how often, in which order.
    ///
    /// # Panics
    ///
    /// When a promise is broken.
    pub fn check(&self, places: &BTreeMap<Hash, Vec<Place>>) {
        let memory = self.lock();
        for hash in places.keys() {
            assert!(memory.attempts.contains_key(hash), "P3: the chain holds {hash}, nobody sent it");
        }
        for (hash, Attempt { tx, ack, .. }) in &memory.attempts {
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
        for (node, sitting) in memory.sittings.values() {
            let once = |hash: &&Hash| memory.attempts.get(*hash).is_some_and(|attempt| !attempt.repeated);
            let stand = |hash: &Hash| Some((places.get(hash)?.first()?, &memory.attempts.get(hash)?.tx));
            let stand: Vec<(&Place, &Tx)> = sitting.iter().filter(once).filter_map(stand).collect();
            for pair in stand.windows(2) {
                let [(before, first), (after, second)] = pair else { continue };
                assert!(
                    (before.height, before.index) < (after.height, after.index),
                    "B7: n{node} accepted {first:?} before {second:?}, and it stands behind it: {before:?}, {after:?}"
                );
            }
        }
    }
}
