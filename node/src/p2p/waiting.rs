//! How much gossip may wait for the actor.
//!
//! A message counts while its payload is in memory, whoever holds it. Nobody's messages take all the
//! room: whoever floods is ignored first, and the others are heard.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use libp2p::PeerId;
use prometheus_client::metrics::gauge::Gauge;

/// Bytes of all messages that wait.
const MOST: usize = 32 << 20;
/// Bytes of those that one peer forwarded; more than the largest message.
const MOST_OF_ONE: usize = 8 << 20;
/// How many of them.
const MESSAGES_OF_ONE: usize = 256;
/// Peers of whom nothing waits are forgotten when there are so many.
const PEERS: usize = 128;

/// What somebody has waiting.
#[derive(Debug, Default)]
struct Share {
    messages: AtomicUsize,
    bytes: AtomicUsize,
}

impl Share {
    fn has_room(&self, messages: usize, bytes: usize, more: usize) -> bool {
        let waiting = self.bytes.load(Ordering::Relaxed);
        self.messages.load(Ordering::Relaxed) < messages && (waiting == 0 || waiting + more <= bytes)
    }

    fn add(&self, bytes: usize) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn remove(&self, bytes: usize) {
        self.messages.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A payload that gives its room back when it is dropped.
struct Held {
    payload: Vec<u8>,
    all: Arc<Share>,
    of_peer: Arc<Share>,
    gauge: Gauge,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.payload
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let bytes = self.payload.len();
        self.all.remove(bytes);
        self.of_peer.remove(bytes);
        self.gauge.dec_by(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

/// The messages that wait.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    all: Arc<Share>,
    peers: HashMap<PeerId, Arc<Share>>,
    gauge: Gauge,
}

impl Waiting {
    /// Nothing waits; the gauge shows the bytes that do.
    pub(super) fn shown_by(gauge: Gauge) -> Self {
        Self { gauge, ..Self::default() }
    }

    /// Takes a message that a peer forwarded. `None`: there is no room for it now.
    pub(super) fn take(&mut self, peer: PeerId, payload: Vec<u8>) -> Option<Bytes> {
        let bytes = payload.len();
        if self.peers.len() >= PEERS && !self.peers.contains_key(&peer) {
            self.peers.retain(|_, share| share.messages.load(Ordering::Relaxed) > 0);
        }
        let of_peer = Arc::clone(self.peers.entry(peer).or_default());
        // How many there are of all is bounded by the places for events.
        let room = self.all.has_room(usize::MAX, MOST, bytes)
            && of_peer.has_room(MESSAGES_OF_ONE, MOST_OF_ONE, bytes);
        if !room {
            return None;
        }
        let all = Arc::clone(&self.all);
        all.add(bytes);
        of_peer.add(bytes);
        self.gauge.inc_by(i64::try_from(bytes).unwrap_or(i64::MAX));
        Some(Bytes::from_owner(Held { payload, all, of_peer, gauge: self.gauge.clone() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn what_waits_is_bounded_by_bytes_and_nobody_takes_all_the_room() {
        let mut waiting = Waiting::default();
        let peers: Vec<PeerId> = (0..6).map(|_| PeerId::random()).collect();
        let taken: Vec<Vec<Bytes>> = peers
            .iter()
            .map(|peer| (0..20).filter_map(|_| waiting.take(*peer, vec![7; MIB])).collect())
            .collect();
        assert_eq!(taken.iter().map(Vec::len).collect::<Vec<_>>(), [8, 8, 8, 8, 0, 0]);
        assert_eq!(waiting.gauge.get(), 32 << 20);
        assert_eq!(taken[3][7], vec![7; MIB], "it is what came");
        let copy = taken[0][0].clone();
        drop(taken);
        assert_eq!(waiting.gauge.get(), 1 << 20, "somebody still holds one");
        assert!(waiting.take(peers[5], vec![7; 6 * MIB]).is_some(), "what was looked at makes room");
        drop(copy);
        assert_eq!((waiting.gauge.get(), waiting.all.messages.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn small_messages_of_one_peer_are_bounded_in_number_and_the_largest_finds_a_place() {
        let mut waiting = Waiting::default();
        let (one, other) = (PeerId::random(), PeerId::random());
        let taken: Vec<Bytes> = (0..1000).filter_map(|_| waiting.take(one, vec![1])).collect();
        assert_eq!(taken.len(), MESSAGES_OF_ONE);
        assert!(waiting.take(other, vec![1; 9 * MIB]).is_some(), "one is always let through");
    }

    #[test]
    fn peers_of_whom_nothing_waits_are_forgotten() {
        let mut waiting = Waiting::default();
        let held = waiting.take(PeerId::random(), vec![1]);
        for _ in 0..10 * PEERS {
            assert!(waiting.take(PeerId::random(), vec![1]).is_some());
        }
        assert!(waiting.peers.len() <= PEERS, "{}", waiting.peers.len());
        drop(held);
    }
}
