//! The conversation about forced transactions: what users have put on DA themselves, so that no
//! sequencer can leave it out.
//!
//! The executor asks the inbox what comes next. Nothing is taken by being shown: the position goes
//! into the log with the block that holds the transactions, and only the log moves it (hazard E7).

use actix::Message;

use crate::command::ForcedPosition;
use crate::types::Tx;

/// Show the forced transactions that come next, in the order of DA. Nothing is taken.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Forced")]
pub struct NextForced {
    /// The most bytes; a transaction that is larger is shown alone.
    pub max_bytes: usize,
}

/// A forced transaction and the position once it is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForcedTx {
    /// The transaction: the bytes of its blob.
    pub tx: Tx,
    /// The position after it.
    pub after: ForcedPosition,
}

/// The forced transactions that come next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forced {
    /// The position before the first of them.
    pub from: ForcedPosition,
    /// The transactions, in order.
    pub txs: Vec<ForcedTx>,
    /// The position once all of them are taken: DA heights without any are passed too.
    pub end: ForcedPosition,
    /// Epochs behind these may have ended, and were not read: why. A block may hold forced
    /// transactions then, and nothing else; without any of them there is none.
    pub behind: Option<String>,
}

impl Forced {
    /// The position after the first so many of the shown transactions.
    #[must_use]
    pub fn after(&self, taken: usize) -> ForcedPosition {
        match taken.checked_sub(1) {
            _ if taken >= self.txs.len() => self.end,
            None => self.from,
            Some(last) => self.txs[last].after,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::types::DaHeight;

    const fn at(da_height: u64, tx_index: u64) -> ForcedPosition {
        ForcedPosition { da_height: DaHeight(da_height), tx_index }
    }

    #[test]
    fn the_position_moves_with_what_is_taken_and_no_further() {
        let tx = |index| ForcedTx { tx: Tx(Bytes::from_static(b"a=1")), after: at(10, index) };
        let shown = Forced { from: at(10, 0), txs: vec![tx(1), tx(3)], end: at(30, 0), behind: None };
        assert_eq!([0, 1, 2].map(|taken| shown.after(taken)), [at(10, 0), at(10, 1), at(30, 0)]);
        let nothing = Forced { txs: vec![], ..shown };
        assert_eq!(nothing.after(0), at(30, 0), "epochs without transactions are passed");
    }
}
