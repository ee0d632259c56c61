//! When configured peers are dialled again.
//!
//! The pause doubles from one to thirty seconds while a peer cannot be reached, as in ev-node.

use std::collections::BTreeMap;
use std::time::Duration;

use baton_messages::p2p::PeerId;
use tokio::time::Instant;

/// The first pause.
pub(super) const FIRST: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(30);
/// A dial that is not heard of again is over.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
enum State {
    Connected,
    Dialling { since: Instant },
    Waiting { until: Instant },
}

#[derive(Clone, Debug)]
struct Seed {
    addresses: Vec<String>,
    failures: u32,
    state: State,
    /// A member of this node's cluster, and in no configuration.
    met: bool,
}

/// The configured peers.
#[derive(Clone, Debug, Default)]
pub struct Dialling {
    seeds: BTreeMap<PeerId, Seed>,
}

impl Dialling {
    /// Peers that are to be dialled at once, each with one of its addresses; a peer may have
    /// several.
    #[must_use]
    pub fn new(peers: &[(PeerId, String)], now: Instant) -> Self {
        let mut seeds: BTreeMap<PeerId, Seed> = BTreeMap::new();
        for (peer, address) in peers {
            let fresh =
                || Seed { addresses: vec![], failures: 0, state: State::Waiting { until: now }, met: false };
            seeds.entry(peer.clone()).or_insert_with(fresh).addresses.push(address.clone());
        }
        Self { seeds }
    }

    /// Also keeps connected to these, each with its one address, and no more to those of an earlier
    /// time that are not among them. Who was configured stays as it was.
    pub fn meet(&mut self, peers: &[(PeerId, String)], now: Instant) {
        self.seeds.retain(|peer, seed| !seed.met || peers.iter().any(|(met, _)| met == peer));
        for (peer, address) in peers {
            let addresses = vec![address.clone()];
            match self.seeds.get_mut(peer) {
                Some(seed) if seed.met => seed.addresses = addresses,
                Some(_) => {}
                None => {
                    let state = State::Waiting { until: now };
                    self.seeds.insert(peer.clone(), Seed { addresses, failures: 0, state, met: true });
                }
            }
        }
    }

    /// Whom to dial now, and where. They count as being dialled then.
    pub fn due(&mut self, now: Instant) -> Vec<(PeerId, Vec<String>)> {
        let mut due = vec![];
        for (peer, seed) in &mut self.seeds {
            let is_due = match seed.state {
                State::Connected => false,
                State::Dialling { since } => since + PATIENCE <= now,
                State::Waiting { until } => until <= now,
            };
            if is_due {
                seed.state = State::Dialling { since: now };
                due.push((peer.clone(), seed.addresses.clone()));
            }
        }
        due
    }

    /// A peer is connected.
    pub fn connected(&mut self, peer: &PeerId) {
        if let Some(seed) = self.seeds.get_mut(peer) {
            seed.failures = 0;
            seed.state = State::Connected;
        }
    }

    /// A peer is gone, or cannot be reached. Returns the pause for a configured one.
    pub fn failed(&mut self, peer: &PeerId, now: Instant) -> Option<Duration> {
        let seed = self.seeds.get_mut(peer)?;
        let pause = (FIRST * 2u32.pow(seed.failures.min(5))).min(LONGEST);
        seed.failures += 1;
        seed.state = State::Waiting { until: now + pause };
        Some(pause)
    }

    /// Whether it is a configured peer.
    #[must_use]
    pub fn knows(&self, peer: &PeerId) -> bool {
        self.seeds.contains_key(peer)
    }

    /// Those that are not connected.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let missing = self.seeds.iter().filter(|(_, seed)| !matches!(seed.state, State::Connected));
        missing.flat_map(|(_, seed)| seed.addresses.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_that_are_met_are_dialled_where_they_are_now_and_forgotten_with_the_membership() {
        let now = Instant::now();
        let (a, b) = (PeerId::from("a"), PeerId::from("b"));
        let at = |peer: &PeerId, port: u16| (peer.clone(), format!("/ip4/1.2.3.4/tcp/{port}/p2p/{peer}"));
        let mut dialling = Dialling::new(&[at(&a, 1)], now);
        dialling.meet(&[at(&a, 9), at(&b, 2)], now);
        let due = dialling.due(now);
        assert_eq!(due, [(a.clone(), vec![at(&a, 1).1]), (b.clone(), vec![at(&b, 2).1])], "as configured");
        dialling.connected(&b);
        dialling.meet(&[at(&b, 3)], now);
        assert!(dialling.due(now).is_empty(), "it is connected");
        let pause = dialling.failed(&b, now).expect("it is known");
        assert_eq!(dialling.due(now + pause), [(b.clone(), vec![at(&b, 3).1])]);
        dialling.meet(&[], now);
        assert!(dialling.knows(&a) && !dialling.knows(&b));
    }

    #[test]
    fn the_pauses_double_and_begin_anew_after_a_connection() {
        let now = Instant::now();
        let a = PeerId::from("a");
        let mut dialling = Dialling::new(&[(a.clone(), "/ip4/1.2.3.4/tcp/1/p2p/a".to_owned())], now);
        assert_eq!(dialling.due(now).len(), 1);
        assert_eq!(dialling.due(now), [], "it is being dialled");
        let mut pauses = vec![];
        let mut at = now;
        for _ in 0..7 {
            let pause = dialling.failed(&a, at).expect("it is configured");
            assert_eq!(dialling.due(at), []);
            at += pause;
            assert_eq!(dialling.due(at).len(), 1);
            pauses.push(pause.as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        dialling.connected(&a);
        assert_eq!(dialling.missing(), Vec::<String>::new());
        assert_eq!(dialling.failed(&a, at), Some(FIRST));
        assert_eq!(dialling.missing().len(), 1);
    }

    #[test]
    fn a_dial_that_is_forgotten_is_repeated_and_strangers_are_not_dialled() {
        let now = Instant::now();
        let a = PeerId::from("a");
        let mut dialling = Dialling::new(&[(a, "/ip4/1.2.3.4/tcp/1/p2p/a".to_owned())], now);
        assert_eq!(dialling.due(now).len(), 1);
        assert_eq!(dialling.due(now + PATIENCE).len(), 1);
        assert_eq!(dialling.failed(&PeerId::from("b"), now), None);
    }
}
