//! The key-value app's own pool, for chains that feed the sequencer through the reaper.

use std::collections::{BTreeMap, VecDeque};

use baton_messages::sequencer::{Receipt, SubmitError};
use baton_messages::types::{Hash, Height, Place, Tx};

/// Bounds of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most transactions.
    pub txs: usize,
    /// Most bytes of all transactions.
    pub bytes: usize,
    /// Most bytes of one transaction.
    pub tx_bytes: usize,
    /// A transaction that is in none of so many blocks is dropped: the sequencer has
    /// refused it, as a duplicate from before a restart for example.
    pub max_age: u64,
    /// Places of so many executed transactions are remembered, to answer duplicates.
    pub remembered: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { txs: 100_000, bytes: 64 << 20, tx_bytes: 1 << 20, max_age: 1_000, remembered: 100_000 }
    }
}

struct Entry {
    tx: Tx,
    since: Height,
}

/// Transactions in order of arrival. In memory only: a crash empties it.
pub(super) struct Pool {
    limits: Limits,
    next: u64,
    entries: BTreeMap<u64, Entry>,
    numbers: BTreeMap<Hash, u64>,
    bytes: usize,
    places: BTreeMap<Hash, Place>,
    order: VecDeque<Hash>,
    height: Height,
}

impl Pool {
    pub(super) fn new(limits: Limits, height: Height) -> Self {
        Self {
            limits,
            next: 0,
            entries: BTreeMap::new(),
            numbers: BTreeMap::new(),
            bytes: 0,
            places: BTreeMap::new(),
            order: VecDeque::new(),
            height,
        }
    }

    /// Takes all or none.
    pub(super) fn submit(&mut self, txs: Vec<Tx>) -> Result<Vec<Receipt>, SubmitError> {
        let mut receipts = Vec::with_capacity(txs.len());
        let mut fresh: BTreeMap<Hash, Tx> = BTreeMap::new();
        let mut order = Vec::new();
        for tx in txs {
            if tx.0.is_empty() {
                return Err(SubmitError::Empty);
            }
            if tx.0.len() > self.limits.tx_bytes {
                return Err(SubmitError::TooLarge { bytes: tx.0.len(), limit: self.limits.tx_bytes });
            }
            let hash = tx.hash();
            if let Some(place) = self.places.get(&hash) {
                receipts.push(Receipt::InChain(hash, *place));
                continue;
            }
            receipts.push(Receipt::Queued(hash));
            if !self.numbers.contains_key(&hash) && fresh.insert(hash, tx).is_none() {
                order.push(hash);
            }
        }
        let bytes: usize = fresh.values().map(|tx| tx.0.len()).sum();
        if self.entries.len() + fresh.len() > self.limits.txs || self.bytes + bytes > self.limits.bytes {
            return Err(SubmitError::QueueFull { txs: self.entries.len(), bytes: self.bytes });
        }
        self.bytes += bytes;
        for hash in order {
            let tx = fresh.remove(&hash).expect("each hash is in the order once");
            self.entries.insert(self.next, Entry { tx, since: self.height });
            self.numbers.insert(hash, self.next);
            self.next += 1;
        }
        Ok(receipts)
    }

    /// What comes first, as long as it fits. Nothing is taken.
    pub(super) fn pending(&self, max_bytes: usize) -> Vec<Tx> {
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            bytes += entry.tx.0.len();
            bytes <= max_bytes
        };
        self.entries.values().take_while(fits).map(|entry| entry.tx.clone()).collect()
    }

    /// Forgets what is in a committed block, and what has waited for too long.
    pub(super) fn executed(&mut self, height: Height, header_hash: Hash, txs: &[Tx]) {
        self.height = height;
        for (index, tx) in (0_u32..).zip(txs) {
            let hash = tx.hash();
            if let Some(number) = self.numbers.remove(&hash) {
                self.remove(number);
            }
            if self.places.insert(hash, Place { height, index, header_hash }).is_none() {
                self.order.push_back(hash);
            }
        }
        while self.order.len() > self.limits.remembered
            && let Some(oldest) = self.order.pop_front()
        {
            self.places.remove(&oldest);
        }
        while let Some((number, entry)) = self.entries.first_key_value()
            && entry.since.0.saturating_add(self.limits.max_age) < height.0
        {
            let (number, hash) = (*number, entry.tx.hash());
            self.numbers.remove(&hash);
            self.remove(number);
        }
    }

    /// Places above a height are places no more.
    pub(super) fn rolled_back(&mut self, height: Height) {
        self.height = height;
        self.places.retain(|_, place| place.height <= height);
        let places = &self.places;
        self.order.retain(|hash| places.contains_key(hash));
    }

    fn remove(&mut self, number: u64) {
        if let Some(entry) = self.entries.remove(&number) {
            self.bytes -= entry.tx.0.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn tx(text: &'static str) -> Tx {
        Tx(Bytes::from_static(text.as_bytes()))
    }

    fn pool() -> Pool {
        Pool::new(Limits { txs: 3, bytes: 12, tx_bytes: 6, max_age: 2, remembered: 2 }, Height(0))
    }

    #[test]
    fn what_is_listed_stays_until_it_is_in_a_block() {
        let mut pool = pool();
        pool.submit(vec![tx("b=1"), tx("a=1"), tx("b=1")]).unwrap();
        assert_eq!(pool.pending(100), [tx("b=1"), tx("a=1")], "in order of arrival, each once");
        assert_eq!(pool.pending(5), [tx("b=1")]);
        pool.executed(Height(1), Hash::of(b"1"), &[tx("b=1")]);
        assert_eq!(pool.pending(100), [tx("a=1")]);
    }

    #[test]
    fn a_duplicate_is_answered_with_the_place_of_the_first_until_it_is_taken_back() {
        let mut pool = pool();
        pool.executed(Height(1), Hash::of(b"1"), &[tx("a=1"), tx("b=1")]);
        let place = Place { height: Height(1), index: 1, header_hash: Hash::of(b"1") };
        let receipt = Receipt::InChain(tx("b=1").hash(), place);
        assert_eq!(pool.submit(vec![tx("b=1")]), Ok(vec![receipt]));
        pool.rolled_back(Height(0));
        assert_eq!(pool.submit(vec![tx("b=1")]), Ok(vec![Receipt::Queued(tx("b=1").hash())]));
    }

    #[test]
    fn a_full_pool_takes_all_or_nothing() {
        let mut pool = pool();
        pool.submit(vec![tx("a=1"), tx("b=1")]).unwrap();
        let full = SubmitError::QueueFull { txs: 2, bytes: 6 };
        assert_eq!(pool.submit(vec![tx("c=1"), tx("d=1")]), Err(full.clone()));
        assert_eq!(pool.pending(100).len(), 2);
        pool.submit(vec![tx("c=1")]).unwrap();
        assert_eq!(pool.submit(vec![tx("d=1")]), Err(SubmitError::QueueFull { txs: 3, bytes: 9 }));
        pool.executed(Height(1), Hash::of(b"1"), &[tx("a=1"), tx("b=1"), tx("c=1")]);
        assert_eq!(pool.submit(vec![tx("d=12345")]), Err(SubmitError::TooLarge { bytes: 7, limit: 6 }));
        assert_eq!(pool.submit(vec![tx("d=1"), tx("")]), Err(SubmitError::Empty));
        pool.submit(vec![tx("d=1234"), tx("e=1234")]).unwrap();
        assert_eq!(pool.submit(vec![tx("f=1")]), Err(SubmitError::QueueFull { txs: 2, bytes: 12 }));
    }

    #[test]
    fn what_no_block_takes_is_dropped_and_memory_has_a_bound() {
        let mut pool = pool();
        pool.submit(vec![tx("a=1")]).unwrap();
        for height in 1..=2 {
            pool.executed(Height(height), Hash::default(), &[]);
        }
        assert_eq!(pool.pending(100).len(), 1);
        let block = [tx("x=1"), tx("x=2"), tx("x=3")];
        pool.executed(Height(3), Hash::default(), &block);
        assert_eq!(pool.pending(100), []);
        assert_eq!((pool.places.len(), pool.order.len(), pool.bytes), (2, 2, 0));
    }
}
