//! How much of answers to peers may be in memory at a time.
//!
//! An answer stays until its peer has read it, or time is up: peers that ask for much and read
//! slowly would otherwise fill the memory, each stream with megabytes.

use std::collections::HashMap;
use std::hash::Hash;

use libp2p::PeerId;

/// Bytes of all answers.
const MOST: usize = 64 << 20;
/// Bytes of the answers to one peer: a few of the largest that are asked for together.
const MOST_OF_ONE: usize = 16 << 20;

/// The answers on their way.
#[derive(Debug)]
pub(super) struct Answering<K> {
    open: HashMap<K, (PeerId, usize)>,
    peers: HashMap<PeerId, usize>,
    bytes: usize,
}

impl<K> Default for Answering<K> {
    fn default() -> Self {
        Self { open: HashMap::new(), peers: HashMap::new(), bytes: 0 }
    }
}

impl<K: Eq + Hash> Answering<K> {
    /// An answer is to be sent. `false`: there is no room for it now.
    pub(super) fn begin(&mut self, key: K, peer: PeerId, bytes: usize) -> bool {
        let of_peer = self.peers.get(&peer).copied().unwrap_or_default();
        if self.bytes + bytes > MOST || of_peer + bytes > MOST_OF_ONE {
            return false;
        }
        self.end(&key);
        self.bytes += bytes;
        *self.peers.entry(peer).or_default() += bytes;
        self.open.insert(key, (peer, bytes));
        true
    }

    /// An answer was sent, or will not be.
    pub(super) fn end(&mut self, key: &K) {
        let Some((peer, bytes)) = self.open.remove(key) else { return };
        self.bytes -= bytes;
        if let Some(of_peer) = self.peers.get_mut(&peer) {
            *of_peer -= bytes;
            if *of_peer == 0 {
                self.peers.remove(&peer);
            }
        }
    }

    /// Bytes of all of them.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn one_peer_has_its_share_and_all_together_no_more_than_there_is() {
        let mut answering = Answering::default();
        let peers: Vec<PeerId> = (0..6).map(|_| PeerId::random()).collect();
        let mut taken = 0;
        for (number, peer) in peers.iter().enumerate() {
            for answer in 0..10 {
                taken += usize::from(answering.begin((number, answer), *peer, 4 * MIB));
            }
        }
        assert_eq!((taken, answering.bytes()), (16, MOST));
        assert!(!answering.begin((5, 99), peers[5], 1), "there is no room");
        answering.end(&(0, 0));
        answering.end(&(0, 0));
        assert_eq!(answering.bytes(), MOST - 4 * MIB);
        assert!(answering.begin((5, 0), peers[5], 4 * MIB), "what was read makes room for others");
        for number in 0..6 {
            (0..10).for_each(|answer| answering.end(&(number, answer)));
        }
        assert_eq!(answering.bytes(), 0);
        assert!(answering.open.is_empty() && answering.peers.is_empty());
    }
}
