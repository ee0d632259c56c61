//! What a block holds, as a function of its parent and its batch.

use std::collections::BTreeSet;

use baton_messages::chain::{Block, Data, Header, Metadata};
use baton_messages::engine::FilterStatus;
use baton_messages::forced::Forced;
use baton_messages::genesis::Genesis;
use baton_messages::types::{Hash, StateRoot, Timestamp, Tx};
use bytes::Bytes;

/// The one place where a block's time is decided (hazard E8): the genesis time for the first
/// block, then the clock, but always later than the parent.
#[must_use]
pub fn time_after(genesis: &Genesis, parent: Option<&Block>, now: Timestamp) -> Timestamp {
    parent.map_or(genesis.start_time, |parent| now.max(parent.header().time.next()))
}

/// The block after `parent`; the first of the chain when there is none.
#[must_use]
pub fn next_block(
    genesis: &Genesis,
    parent: Option<&Block>,
    root: &StateRoot,
    proposer: &Bytes,
    now: Timestamp,
    txs: Vec<Tx>,
) -> Block {
    let height = parent.map_or(genesis.initial_height, |parent| parent.height().next());
    let time = time_after(genesis, parent, now);
    let last_data_hash = parent.map_or_else(Bytes::new, |parent| parent.data().hash().to_bytes());
    let metadata = Metadata { chain_id: genesis.chain_id.clone(), height, time, last_data_hash };
    let data = Data { metadata: Some(metadata), txs };
    let header = Header {
        height,
        time,
        last_header_hash: parent.map_or_else(Bytes::new, |parent| parent.hash().to_bytes()),
        data_hash: data.commitment().to_bytes(),
        app_hash: root.0.clone(),
        proposer_address: proposer.clone(),
        chain_id: genesis.chain_id.clone(),
        ..Header::default()
    };
    Block::new(header, data)
}

/// A batch after the engine has looked at it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Filtered {
    /// What goes into the block, in order.
    pub take: Vec<Tx>,
    /// What never will; forced transactions are not among them.
    pub remove: Vec<Hash>,
    /// How many forced transactions are done with: they are in the block, or never will be in one.
    pub forced: usize,
    /// How many of them never will be.
    pub forced_out: usize,
}

/// Forced transactions, then what is queued; what is among both is forced.
#[must_use]
pub fn batch(forced: &Forced, queued: Vec<Tx>) -> Vec<Tx> {
    let forced: Vec<Tx> = forced.txs.iter().map(|forced| forced.tx.clone()).collect();
    let own: BTreeSet<Hash> = forced.iter().map(Tx::hash).collect();
    let queued = queued.into_iter().filter(|tx| own.is_empty() || !own.contains(&tx.hash()));
    forced.iter().cloned().chain(queued).collect()
}

/// Applies the engine's verdicts; the first so many transactions are forced. The first postponed
/// one ends the batch: nothing overtakes it.
#[must_use]
pub fn filtered(txs: Vec<Tx>, statuses: &[FilterStatus], forced: usize) -> Filtered {
    let mut result = Filtered::default();
    for (index, (tx, status)) in txs.into_iter().zip(statuses).enumerate() {
        let is_forced = index < forced;
        match status {
            FilterStatus::Ok => result.take.push(tx),
            FilterStatus::Remove if is_forced => result.forced_out += 1,
            FilterStatus::Remove => result.remove.push(tx.hash()),
            FilterStatus::Postpone => break,
        }
        result.forced += usize::from(is_forced);
    }
    result
}

#[cfg(test)]
mod tests {
    use baton_messages::command::ForcedPosition;
    use baton_messages::forced::ForcedTx;
    use baton_messages::types::{DaHeight, Height};

    use super::*;

    fn genesis() -> Genesis {
        Genesis {
            chain_id: "test".to_owned(),
            start_time: Timestamp(1_000),
            initial_height: Height(1),
            proposer_address: Bytes::from_static(b"proposer"),
            da_start_height: DaHeight(0),
            da_epoch_forced_inclusion: 50,
        }
    }

    fn block(parent: Option<&Block>, now: u64) -> Block {
        let root = StateRoot(Bytes::from_static(b"root"));
        next_block(&genesis(), parent, &root, &Bytes::from_static(b"proposer"), Timestamp(now), vec![])
    }

    #[test]
    fn the_first_block_bears_the_genesis_time_and_no_parent() {
        let first = block(None, 77);
        assert_eq!(first.header().time, Timestamp(1_000));
        assert_eq!(first.height(), Height(1));
        assert!(first.header().last_header_hash.is_empty());
    }

    #[test]
    fn time_rises_strictly_even_when_the_clock_does_not() {
        let first = block(None, 0);
        let second = block(Some(&first), 5);
        assert_eq!(second.header().time, Timestamp(1_001));
        assert_eq!(second.header().last_header_hash, first.hash().to_bytes());
        let third = block(Some(&second), 9_000);
        assert_eq!(third.header().time, Timestamp(9_000));
    }

    #[test]
    fn nothing_overtakes_a_postponed_transaction() {
        let tx = |byte: u8| Tx(Bytes::copy_from_slice(&[byte]));
        let statuses = [FilterStatus::Ok, FilterStatus::Remove, FilterStatus::Postpone, FilterStatus::Ok];
        let result = filtered(vec![tx(1), tx(2), tx(3), tx(4)], &statuses, 0);
        let expected = Filtered { take: vec![tx(1)], remove: vec![tx(2).hash()], ..Filtered::default() };
        assert_eq!(result, expected);
        let forced = filtered(vec![tx(1), tx(2), tx(3), tx(4)], &statuses, 3);
        let expected = Filtered { take: vec![tx(1)], forced: 2, forced_out: 1, ..Filtered::default() };
        assert_eq!(forced, expected, "the position stays before the postponed one");
    }

    #[test]
    fn forced_transactions_come_first_and_are_in_the_block_once() {
        let tx = |byte: u8| Tx(Bytes::copy_from_slice(&[byte]));
        let shown = |byte| ForcedTx { tx: tx(byte), after: ForcedPosition::default() };
        let forced = Forced { txs: vec![shown(1), shown(2), shown(1)], ..Forced::default() };
        assert_eq!(batch(&forced, vec![tx(3), tx(2), tx(4)]), [1, 2, 1, 3, 4].map(tx));
        assert_eq!(batch(&Forced::default(), vec![tx(3), tx(3)]), [3, 3].map(tx));
    }
}
