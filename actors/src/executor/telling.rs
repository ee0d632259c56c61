//! Which blocks may be told to the network: those that are signed and executed here (P10), in
//! the order of heights.

use std::collections::BTreeMap;
use std::sync::Arc;

use baton_messages::chain::Block;
use baton_messages::types::Height;
use bytes::Bytes;

/// What is signed, or executed, and not yet both.
#[derive(Debug, Default)]
pub(super) struct Telling {
    executed: Height,
    signed: BTreeMap<Height, (Arc<Block>, Bytes)>,
}

impl Telling {
    /// Everything up to a height is executed here. What may be told now.
    pub(super) fn executed(&mut self, height: Height) -> Vec<(Arc<Block>, Bytes)> {
        self.executed = self.executed.max(height);
        let later = self.signed.split_off(&self.executed.next());
        std::mem::replace(&mut self.signed, later).into_values().collect()
    }

    /// A block is signed. What may be told now.
    pub(super) fn signed(&mut self, block: Arc<Block>, signature: Bytes) -> Vec<(Arc<Block>, Bytes)> {
        self.signed.insert(block.height(), (block, signature));
        self.executed(self.executed)
    }
}

#[cfg(test)]
mod tests {
    use baton_messages::chain::{Data, Header};

    use super::*;

    fn block(height: u64) -> Arc<Block> {
        Block::shared(Header { height: Height(height), ..Header::default() }, Data::default())
    }

    fn heights(told: &[(Arc<Block>, Bytes)]) -> Vec<u64> {
        told.iter().map(|(block, _)| block.height().0).collect()
    }

    #[test]
    fn a_block_is_told_once_when_it_is_both_signed_and_executed() {
        let mut telling = Telling::default();
        assert_eq!(heights(&telling.executed(Height(2))), [0; 0]);
        assert_eq!(heights(&telling.signed(block(1), Bytes::new())), [1]);
        assert_eq!(heights(&telling.signed(block(3), Bytes::new())), [0; 0]);
        assert_eq!(heights(&telling.signed(block(4), Bytes::new())), [0; 0]);
        assert_eq!(heights(&telling.executed(Height(4))), [3, 4]);
        assert_eq!(heights(&telling.executed(Height(5))), [0; 0]);
    }
}
