//! Users who force transactions through DA: each must be in the chain once, in the order of DA (E7).

use std::collections::{BTreeMap, BTreeSet};

use baton_messages::da::{Blob, Namespace};
use baton_messages::epoch::Epoch;
use baton_messages::types::{DaHeight, Hash, Height, Tx};
use baton_storage::{LeftOut, Reader};
use bytes::Bytes;

use crate::cluster::Cluster;
use crate::da::Ledger;

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

/// What full nodes are to judge by ev-node's rule (wire section 4.6), from outside: everything forced in an
/// epoch is in the chain up to the last block that lies on DA within the epoch of grace after it.
pub(super) struct Rule {
    da_start: DaHeight,
    /// What was forced, and where on DA.
    forced: BTreeMap<Hash, DaHeight>,
    /// Where a transaction stands first.
    stands: BTreeMap<Hash, Height>,
    /// Where a block is whole on DA, at the earliest.
    places: BTreeMap<Height, DaHeight>,
}

impl Rule {
    pub(super) fn of(reader: &Reader, ledger: &Ledger, da_start: DaHeight) -> Self {
        let forced = ledger.places_of(Namespace::of("forced")).into_iter();
        let (mut stands, mut places) = (BTreeMap::new(), BTreeMap::new());
        let (headers, data) = (ledger.header_places(), ledger.data_places());
        for height in (reader.initial_height().0..=reader.tip().height.0).map(Height) {
            // A height that a snapshot covers and whose body is not here yet.
            let Ok(Some(block)) = reader.block(height) else { continue };
            for hash in block.txs().iter().map(Tx::hash) {
                stands.entry(hash).or_insert(height);
            }
            let own = headers.get(&height).copied();
            let whole = if block.txs().is_empty() { own } else { own.max(data.get(&height).copied()) };
            places.extend(whole.map(|at| (height, at)));
        }
        let forced = forced.map(|(data, at)| (Tx(data).hash(), at)).collect();
        Self { da_start, forced, stands, places }
    }

    fn epoch(&self, at: DaHeight) -> Epoch {
        Epoch::of(at, self.da_start, EPOCH)
    }

    /// Whether something that was forced there is missing up to this block, which is at a DA height
    /// beyond the grace.
    fn is_left_out(&self, tx: &Hash, height: Height, da: DaHeight) -> bool {
        let late = self.forced.get(tx).is_some_and(|at| da.0 > self.epoch(*at).end.0 + EPOCH);
        late && self.stands.get(tx).is_none_or(|stands| *stands > height)
    }

    /// # Panics
    ///
    /// When somebody found what the rule does not say.
    pub(super) fn check_found(&self, found: &LeftOut) {
        for tx in &found.txs {
            let epoch = self.forced.get(tx).map(|at| self.epoch(*at));
            let named = epoch.is_some_and(|epoch| (epoch.start, epoch.end) == (found.from, found.to));
            assert!(
                named && self.is_left_out(tx, found.height, found.da_height),
                "E7: a full node holds the proposer guilty of {tx}, which stands at {:?}: {found:?}",
                self.stands.get(tx)
            );
        }
        let at = self.places.get(&found.height);
        assert!(
            at.is_some_and(|at| *at <= found.da_height),
            "E7: block {} is not there: {found:?}",
            found.height
        );
    }

    /// # Panics
    ///
    /// When a block up to here, which somebody holds to be final, is one that leaves something out.
    pub(super) fn check_final(&self, up_to: Height) {
        for (height, at) in self.places.range(..=up_to) {
            let left_out = self.forced.keys().find(|tx| self.is_left_out(tx, *height, *at));
            assert!(
                left_out.is_none(),
                "E7: block {height}, at DA height {at}, leaves {left_out:?} out and is final"
            );
        }
    }
}
