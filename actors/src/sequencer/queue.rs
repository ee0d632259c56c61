//! What waits to be sequenced, in order of arrival, without the actor around it.

use std::collections::{BTreeMap, HashMap};

use baton_messages::types::{Hash, Tx};
use baton_messages::wire::p2p::MAX_TXS;
use tokio::time::Instant;

/// The queue's contents in memory; the disk holds the same.
#[derive(Debug, Default)]
pub struct Queue {
    by_order: BTreeMap<u64, (Tx, Instant)>,
    by_hash: HashMap<Hash, u64>,
    bytes: usize,
}

impl Queue {
    /// How many transactions wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_order.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_order.is_empty()
    }

    /// How many bytes wait.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether this transaction waits.
    #[must_use]
    pub fn contains(&self, hash: &Hash) -> bool {
        self.by_hash.contains_key(hash)
    }

    /// Under which number the disk has a transaction that waits.
    #[must_use]
    pub fn order(&self, hash: &Hash) -> Option<u64> {
        self.by_hash.get(hash).copied()
    }

    /// The number of the first transaction.
    #[must_use]
    pub fn first_order(&self) -> Option<u64> {
        self.by_order.keys().next().copied()
    }

    /// The number of the first transaction from this number on.
    #[must_use]
    pub fn first_order_from(&self, from: u64) -> Option<u64> {
        self.by_order.range(from..).next().map(|(order, _)| *order)
    }

    /// How many transactions have this number or a later one.
    #[must_use]
    pub fn count_from(&self, from: u64) -> usize {
        self.by_order.range(from..).count()
    }

    /// Since when the first one is here; since the start if it is older.
    #[must_use]
    pub fn oldest(&self) -> Option<Instant> {
        self.by_order.values().next().map(|(_, since)| *since)
    }

    /// Adds a transaction that is on disk. `false`: it was there already, under another number.
    pub fn insert(&mut self, order: u64, hash: Hash, tx: Tx, now: Instant) -> bool {
        if self.by_hash.contains_key(&hash) {
            return false;
        }
        self.bytes += tx.0.len();
        self.by_hash.insert(hash, order);
        self.by_order.insert(order, (tx, now));
        true
    }

    /// Takes a transaction out and says under which number the disk has it.
    pub fn remove(&mut self, hash: &Hash) -> Option<u64> {
        let order = self.by_hash.remove(hash)?;
        if let Some((tx, _)) = self.by_order.remove(&order) {
            self.bytes -= tx.0.len();
        }
        Some(order)
    }

    /// The first transactions whose encoding fits into so many bytes together, in order. A
    /// transaction that does not fit ends the batch: nothing overtakes it. There are never more
    /// than peers take of one block.
    #[must_use]
    pub fn first(&self, max_bytes: usize) -> Vec<Tx> {
        let mut room = max_bytes;
        self.by_order
            .values()
            .take(MAX_TXS)
            .map_while(|(tx, _)| {
                room = room.checked_sub(encoded_len(tx))?;
                Some(tx.clone())
            })
            .collect()
    }

    /// Some transactions in order, from one number to below another, bounded in count and bytes
    /// (one in any case), and the number of the last. `None` when there are none.
    #[must_use]
    pub fn some(&self, from: u64, below: u64, max_txs: usize, max_bytes: usize) -> Option<(u64, Vec<Tx>)> {
        let (mut room, mut last, mut txs) = (max_bytes, None, Vec::new());
        for (order, (tx, _)) in self.by_order.range(from..below.max(from)).take(max_txs.max(1)) {
            match room.checked_sub(tx.0.len()) {
                Some(left) => room = left,
                None if txs.is_empty() => room = 0,
                None => break,
            }
            last = Some(*order);
            txs.push(tx.clone());
        }
        last.map(|last| (last, txs))
    }
}

/// What a transaction takes in a block's encoding (field 2 of Data): a block of many small
/// ones must fit into a blob, too.
const fn encoded_len(tx: &Tx) -> usize {
    let bytes = tx.0.len();
    let significant_bits = (usize::BITS - (bytes | 1).leading_zeros()) as usize;
    1 + significant_bits.div_ceil(7) + bytes
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn tx(text: &'static str) -> Tx {
        Tx(Bytes::from_static(text.as_bytes()))
    }

    fn queue(texts: &[&'static str]) -> Queue {
        let mut queue = Queue::default();
        for (order, text) in texts.iter().enumerate() {
            assert!(queue.insert(order as u64, tx(text).hash(), tx(text), Instant::now()));
        }
        queue
    }

    #[test]
    fn shows_in_order_of_arrival_and_takes_nothing() {
        let queue = queue(&["a=1", "b=2"]);
        assert_eq!(queue.first(100), [tx("a=1"), tx("b=2")]);
        assert_eq!(queue.first(100), [tx("a=1"), tx("b=2")]);
        assert_eq!(queue.bytes(), 6);
    }

    #[test]
    fn a_batch_has_no_more_transactions_than_peers_take_of_one_block() {
        let mut queue = Queue::default();
        for order in 0..=MAX_TXS as u64 {
            let tx = Tx(Bytes::copy_from_slice(&order.to_be_bytes()));
            queue.insert(order, tx.hash(), tx, Instant::now());
        }
        assert_eq!(queue.len(), MAX_TXS + 1);
        assert_eq!(queue.first(usize::MAX).len(), MAX_TXS);
    }

    #[test]
    fn nothing_overtakes_a_transaction_that_does_not_fit() {
        let queue = queue(&["a=1", "b=2222", "c=3"]);
        assert_eq!(queue.first(8 + 4), [tx("a=1")]);
    }

    #[test]
    fn a_part_is_bounded_in_count_and_bytes_and_holds_one_in_any_case() {
        let queue = queue(&["a=1", "b=2222", "c=3"]);
        assert_eq!(queue.some(0, 9, 2, 100), Some((1, vec![tx("a=1"), tx("b=2222")])));
        assert_eq!(queue.some(0, 9, 9, 8), Some((0, vec![tx("a=1")])));
        assert_eq!(queue.some(1, 9, 9, 1), Some((1, vec![tx("b=2222")])));
        assert_eq!(queue.some(1, 2, 9, 100), Some((1, vec![tx("b=2222")])));
        assert_eq!(queue.some(3, 9, 9, 100), None);
        assert_eq!(queue.some(2, 1, 9, 100), None);
        assert_eq!((queue.count_from(1), queue.first_order_from(1)), (2, Some(1)));
    }

    #[test]
    fn a_transaction_counts_as_in_the_encoding_of_a_block() {
        for length in [1, 127, 128, 16_383, 16_384, 300_000] {
            let tx = Tx(Bytes::from(vec![7; length]));
            let data = baton_messages::chain::Data { metadata: None, txs: vec![tx.clone()] };
            assert_eq!(encoded_len(&tx), data.encode().len());
        }
    }

    #[test]
    fn the_same_transaction_waits_once() {
        let mut queue = queue(&["a=1"]);
        assert!(!queue.insert(9, tx("a=1").hash(), tx("a=1"), Instant::now()));
        assert_eq!(queue.remove(&tx("a=1").hash()), Some(0));
        assert_eq!(queue.remove(&tx("a=1").hash()), None);
        assert!(queue.is_empty());
        assert_eq!(queue.bytes(), 0);
    }
}
