//! Forced transactions in the order of DA: what was read and is not taken yet.
//!
//! An epoch is shown once its last DA height exists, as in ev-node. A position counts all
//! transactions of an epoch, also those that are skipped: it means the same whatever the limits of
//! the node that reads it.

use std::collections::VecDeque;

use baton_messages::command::ForcedPosition;
use baton_messages::epoch::{Epoch, Epochs};
use baton_messages::forced::{Forced, ForcedTx};
use baton_messages::types::{DaHeight, Tx};
use bytes::Bytes;

/// What was read from DA and is not taken yet.
#[derive(Debug)]
pub struct Stream {
    epochs: Epochs,
    /// The first transaction that is kept comes after this position.
    base: ForcedPosition,
    /// The next DA height to be read.
    next: DaHeight,
    /// Transactions of its epoch that were read.
    read: u64,
    /// Larger ones are skipped.
    max_tx: usize,
    txs: VecDeque<ForcedTx>,
    bytes: usize,
}

impl Stream {
    /// A stream that begins at a position. Transactions over so many bytes are skipped.
    #[must_use]
    pub fn new(epochs: Epochs, from: ForcedPosition, max_tx: usize) -> Self {
        let base = epochs.position(from);
        let start = epochs.at(base.da_height).start;
        // There is no DA block zero.
        let next = start.max(DaHeight(1));
        Self { epochs, base, next, read: 0, max_tx, txs: VecDeque::new(), bytes: 0 }
    }

    /// The next DA height to be read.
    #[must_use]
    pub const fn next(&self) -> DaHeight {
        self.next
    }

    /// Bytes that are kept.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Transactions that are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.txs.len()
    }

    /// Whether none is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.txs.is_empty()
    }

    /// Takes in what lies at the next DA height. Returns how many transactions were too large.
    pub fn push(&mut self, blobs: impl IntoIterator<Item = Bytes>) -> u64 {
        let epoch = self.epochs.at(self.next);
        let mut skipped = 0;
        for blob in blobs.into_iter().filter(|blob| !blob.is_empty()) {
            self.read += 1;
            let after = ForcedPosition { da_height: epoch.start, tx_index: self.read };
            if after <= self.base {
                continue;
            }
            if blob.len() > self.max_tx {
                skipped += 1;
                continue;
            }
            self.bytes += blob.len();
            self.txs.push_back(ForcedTx { tx: Tx(blob), after });
        }
        if self.next >= epoch.end {
            self.read = 0;
        }
        self.next = DaHeight(self.next.0 + 1);
        skipped
    }

    /// The log says that everything up to a position was taken. `false`: the stream begins anew,
    /// because the position is not one that it has read up to.
    pub fn taken(&mut self, position: ForcedPosition) -> bool {
        let position = self.epochs.position(position);
        if position < self.base || position > self.reached() {
            *self = Self::new(self.epochs, position, self.max_tx);
            return false;
        }
        while let Some(first) = self.txs.front().filter(|tx| tx.after <= position) {
            self.bytes -= first.tx.0.len();
            self.txs.pop_front();
        }
        self.base = position;
        true
    }

    /// The position up to which everything was read.
    fn reached(&self) -> ForcedPosition {
        let start = self.epochs.at(self.next).start;
        ForcedPosition { da_height: start, tx_index: self.read }.max(self.base)
    }

    /// What comes next, when DA is that far: of epochs that have ended, as much as fits, but one
    /// transaction at the least.
    #[must_use]
    pub fn show(&self, head: DaHeight, max_bytes: usize) -> Forced {
        let ended = |at: ForcedPosition| self.epochs.at(at.da_height).end <= head;
        let mut bytes = 0;
        let mut txs = vec![];
        for tx in self.txs.iter().take_while(|tx| ended(tx.after)) {
            bytes += tx.tx.0.len();
            if bytes > max_bytes && !txs.is_empty() {
                break;
            }
            txs.push(tx.clone());
        }
        let all = self.txs.get(txs.len()).is_none_or(|next| !ended(next.after));
        let end = match (all, txs.last()) {
            (false, last) => last.map_or(self.base, |last| last.after),
            (true, _) if ended(self.reached()) => self.reached(),
            // Nothing of the epoch that goes on is taken, also when more was read than this head has: it
            // is that of a node that is behind.
            (true, _) => {
                let open = self.epochs.at(DaHeight(head.0.saturating_add(1))).start;
                let da_height = open.min(self.reached().da_height);
                ForcedPosition { da_height, tx_index: 0 }.max(self.base)
            }
        };
        Forced { from: self.base, txs, end, behind: None }
    }

    /// The first epoch of which something is not read, or not over, when DA is that far.
    #[must_use]
    pub fn waits_for(&self, head: DaHeight) -> Epoch {
        let next = if self.next <= head { self.next } else { DaHeight(head.0 + 1) };
        self.epochs.at(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCHS: Epochs = Epochs::new(DaHeight(10), 3);

    const fn at(da_height: u64, tx_index: u64) -> ForcedPosition {
        ForcedPosition { da_height: DaHeight(da_height), tx_index }
    }

    fn blob(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn shown(forced: &Forced) -> Vec<&str> {
        forced.txs.iter().map(|tx| std::str::from_utf8(&tx.tx.0).unwrap()).collect()
    }

    fn two_epochs() -> Stream {
        let mut stream = Stream::new(EPOCHS, at(0, 0), 10);
        assert_eq!(stream.next(), DaHeight(10));
        stream.push([blob("a"), blob(""), blob("bb")]);
        stream.push([]);
        assert_eq!(stream.push([blob("far too large"), blob("c")]), 1);
        stream.push([blob("d")]);
        stream
    }

    #[test]
    fn an_epoch_is_shown_when_its_last_height_exists_and_in_the_order_of_da() {
        let stream = two_epochs();
        let early = stream.show(DaHeight(11), 100);
        assert_eq!((shown(&early), early.end), (vec![], at(10, 0)));
        let first = stream.show(DaHeight(12), 100);
        assert_eq!((shown(&first), first.end), (vec!["a", "bb", "c"], at(13, 0)));
        assert_eq!(first.txs[2].after, at(10, 4), "what is too large is counted");
        let second = stream.show(DaHeight(15), 100);
        assert_eq!((shown(&second), second.end), (vec!["a", "bb", "c", "d"], at(13, 1)), "read up to here");
    }

    #[test]
    fn what_does_not_fit_spills_over_and_nothing_overtakes_it() {
        let mut stream = two_epochs();
        let first = stream.show(DaHeight(12), 3);
        assert_eq!((shown(&first), first.end), (vec!["a", "bb"], at(10, 2)));
        assert!(stream.taken(first.end));
        let rest = stream.show(DaHeight(12), 3);
        assert_eq!((shown(&rest), rest.end), (vec!["c"], at(13, 0)));
        assert_eq!(shown(&stream.show(DaHeight(12), 0)), ["c"], "a large one goes alone");
    }

    #[test]
    fn a_new_reader_goes_on_exactly_where_the_log_says() {
        for (position, expected) in [
            (at(0, 0), vec!["a", "bb", "c", "d"]),
            (at(10, 1), vec!["bb", "c", "d"]),
            (at(10, 2), vec!["c", "d"]),
            (at(10, 4), vec!["d"]),
            (at(13, 0), vec!["d"]),
            (at(13, 1), vec![]),
        ] {
            let mut stream = Stream::new(EPOCHS, position, 10);
            let blobs = |height| match height {
                10 => vec![blob("a"), blob("bb")],
                12 => vec![blob("far too large"), blob("c")],
                13 => vec![blob("d")],
                _ => vec![],
            };
            while stream.next() < DaHeight(16) {
                stream.push(blobs(stream.next().0));
            }
            let forced = stream.show(DaHeight(15), 100);
            assert_eq!((shown(&forced), forced.end), (expected, at(16, 0)), "from {position:?}");
        }
    }

    #[test]
    fn what_is_taken_leaves_and_a_position_beyond_what_was_read_begins_anew() {
        let mut stream = two_epochs();
        assert!(stream.taken(at(10, 4)));
        assert_eq!((stream.len(), stream.bytes()), (1, 1));
        assert!(stream.taken(at(13, 0)));
        assert!(!stream.taken(at(22, 5)), "somebody else has read further");
        assert_eq!((stream.next(), stream.is_empty()), (DaHeight(22), true));
        assert!(!stream.taken(at(13, 0)), "the store was put back");
        assert_eq!(stream.next(), DaHeight(13));
    }

    #[test]
    fn it_waits_for_the_first_epoch_that_is_not_read_or_not_over() {
        let stream = two_epochs();
        assert_eq!(stream.next(), DaHeight(14));
        assert_eq!(stream.waits_for(DaHeight(20)).end, DaHeight(15), "not read");
        assert_eq!(stream.waits_for(DaHeight(13)).end, DaHeight(15), "not over");
        assert_eq!(stream.waits_for(DaHeight(11)).end, DaHeight(12), "another DA node is not that far");
    }

    #[test]
    fn a_chain_that_begins_at_da_height_zero_reads_from_one() {
        let stream = Stream::new(Epochs::new(DaHeight(0), 2), at(0, 0), 10);
        assert_eq!(stream.next(), DaHeight(1));
        assert_eq!(stream.waits_for(DaHeight(1)).end, DaHeight(1));
    }
}
