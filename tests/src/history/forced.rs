//! Users who force transactions through DA: each must be in the chain once, in the order of DA (E7).

use std::collections::{BTreeMap, BTreeSet};

use baton_messages::da::{Blob, Namespace};
use baton_messages::types::{Hash, Height, Tx};
use baton_storage::Reader;
use bytes::Bytes;

use crate::cluster::Cluster;

/// DA blocks per epoch: here DA makes one for each submission, up to twenty in a second.
pub(super) const EPOCH: u64 = 20;

/// All users of a history.
pub(super) struct Users {
    every_ms: u64,
    next_ms: u64,
    posted: Vec<Hash>,
    /// What was found in the chain, up to a height.
    found: BTreeSet<Hash>,
    looked: Height,
}

impl Users {
    /// Users who post that often; zero: never.
    pub(super) fn new(every_ms: u64) -> Self {
        let next_ms = if every_ms == 0 { u64::MAX } else { every_ms };
        Self { every_ms, next_ms, posted: vec![], found: BTreeSet::new(), looked: Height(0) }
    }

    /// When somebody posts next.
    pub(super) const fn next_ms(&self) -> u64 {
        self.next_ms
    }

    /// Nobody posts any more.
    pub(super) const fn end(&mut self) {
        self.next_ms = u64::MAX;
    }

    pub(super) fn step(&mut self, now_ms: u64, cluster: &Cluster) {
        if now_ms < self.next_ms {
            return;
        }
        self.next_ms = now_ms + self.every_ms;
        let machine = cluster.machine(0);
        let tx = Tx(Bytes::from(format!("f{}=v{now_ms}", self.posted.len())));
        // The oracle panics when it is in the chain twice.
        machine.oracle.attempt(&tx);
        self.posted.push(tx.hash());
        machine.ledger.append(vec![Blob { namespace: Namespace::of("forced"), data: tx.0 }]);
    }

    /// Whether everything is in this chain.
    ///
    /// # Panics
    ///
    /// When something is there twice, or not in the order of DA.
    pub(super) fn are_in(&mut self, reader: &Reader) -> bool {
        let order: BTreeMap<Hash, usize> =
            self.posted.iter().enumerate().map(|(index, hash)| (*hash, index)).collect();
        while self.looked < reader.tip().height {
            let Ok(Some(block)) = reader.block(self.looked.next()) else { break };
            self.looked = self.looked.next();
            for hash in block.txs().iter().map(Tx::hash) {
                let Some(index) = order.get(&hash) else { continue };
                let at = self.looked;
                assert!(self.found.insert(hash), "E7: {hash} was forced once and stands twice, also at {at}");
                let next = self.found.len() - 1;
                assert!(*index == next, "E7: forced transaction {index} stands at {at} instead of {next}");
            }
        }
        self.found.len() == self.posted.len()
    }
}
