//! The places for connections of others, so that strangers cannot keep members out.
//!
//! A connection that has not finished its handshake is anybody's, and holds its place only until
//! somebody else needs it: the oldest one of the same network goes first, then the oldest of all. Whoever is a
//! member is through within a few round trips; whoever says nothing makes room.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::cluster::limits::Limits;

/// The places for connections of others.
#[derive(Clone, Debug)]
pub(super) struct Places(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    connections: usize,
    per_network: usize,
    handshakes: usize,
    handshakes_per_network: usize,
    next: u64,
    open: usize,
    by_network: BTreeMap<IpAddr, usize>,
    /// Connections in their handshake, the oldest first.
    greeting: BTreeMap<u64, (IpAddr, CancellationToken)>,
}

/// A place of a connection; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    network: IpAddr,
    number: u64,
    /// Cancelled when somebody else needs the place. Not after the handshake.
    pub(super) needed: CancellationToken,
}

/// Whose address it is: one host can have all addresses of an IPv6 network of 64 bits.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
    }
}

impl Places {
    pub(super) fn new(limits: &Limits) -> Self {
        Self(Arc::new(Mutex::new(State {
            connections: limits.connections,
            per_network: limits.per_address,
            handshakes: limits.handshakes.max(1),
            handshakes_per_network: limits.handshakes_per_address.max(1),
            next: 0,
            open: 0,
            by_network: BTreeMap::new(),
            greeting: BTreeMap::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection in its handshake; an older one may have to go for it.
    pub(super) fn take(&self, address: IpAddr) -> Result<Place, &'static str> {
        let network = network(address);
        let mut state = self.state();
        let same = state.greeting.iter().filter(|(_, (of, _))| *of == network);
        let same: Vec<u64> = same.map(|(number, _)| *number).collect();
        if let Some(oldest) = same.first().filter(|_| same.len() >= state.handshakes_per_network) {
            state.end(*oldest);
        } else if state.greeting.len() >= state.handshakes {
            let oldest = state.greeting.keys().next().copied();
            oldest.into_iter().for_each(|number| state.end(number));
        }
        if state.open >= state.connections {
            return Err("too many connections");
        }
        if state.by_network.get(&network).is_some_and(|count| *count >= state.per_network) {
            return Err("too many connections from one address");
        }
        let (number, needed) = (state.next, CancellationToken::new());
        state.next += 1;
        state.open += 1;
        *state.by_network.entry(network).or_default() += 1;
        state.greeting.insert(number, (network, needed.clone()));
        drop(state);
        Ok(Place { places: self.clone(), network, number, needed })
    }
}

impl State {
    fn end(&mut self, number: u64) {
        if let Some((network, needed)) = self.greeting.remove(&number) {
            needed.cancel();
            self.give_back(network);
        }
    }

    fn give_back(&mut self, network: IpAddr) {
        self.open -= 1;
        if let Some(count) = self.by_network.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                self.by_network.remove(&network);
            }
        }
    }
}

impl Place {
    /// The handshake is over: the place is kept until the connection ends.
    pub(super) fn keep(&self) {
        self.places.state().greeting.remove(&self.number);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.places.state();
        state.greeting.remove(&self.number);
        // Whoever had to make room has given it back then.
        if !self.needed.is_cancelled() {
            state.give_back(self.network);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Places {
        Places::new(&Limits {
            connections: 20,
            per_address: 8,
            handshakes: 6,
            handshakes_per_address: 3,
            ..Limits::default()
        })
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn over(places: &[Place]) -> Vec<bool> {
        places.iter().map(|place| place.needed.is_cancelled()).collect()
    }

    #[test]
    fn one_address_has_few_places_for_handshakes_and_its_own_oldest_goes_first() {
        let places = places();
        let other = places.take(address("10.0.0.2")).unwrap();
        let all: Vec<_> = (0..4).map(|_| places.take(address("10.0.0.1")).unwrap()).collect();
        assert_eq!(over(&all), [true, false, false, false]);
        assert!(!other.needed.is_cancelled());
    }

    #[test]
    fn when_all_places_for_handshakes_are_taken_the_oldest_of_all_makes_room() {
        let places = places();
        let all: Vec<_> =
            (1..=7).map(|host| places.take(address(&format!("10.0.0.{host}"))).unwrap()).collect();
        assert_eq!(over(&all), [true, false, false, false, false, false, false]);
    }

    #[test]
    fn whoever_has_finished_its_handshake_keeps_its_place() {
        let places = places();
        let member = places.take(address("10.0.0.1")).unwrap();
        member.keep();
        let others: Vec<_> = (0..5).map(|_| places.take(address("10.0.0.1")).unwrap()).collect();
        assert!(!member.needed.is_cancelled());
        assert_eq!(over(&others), [true, true, false, false, false]);
    }

    #[test]
    fn connections_have_an_end_too_and_come_back() {
        let places = places();
        let mut open = vec![];
        for _ in 0..8 {
            let place = places.take(address("10.0.0.1")).unwrap();
            place.keep();
            open.push(place);
        }
        assert!(places.take(address("10.0.0.1")).is_err());
        assert!(places.take(address("::ffff:10.0.0.1")).is_err(), "the same address in another dress");
        open.pop();
        assert!(places.take(address("10.0.0.1")).is_ok());
    }

    #[test]
    fn who_makes_room_takes_none_while_it_goes() {
        let places = places();
        let all: Vec<_> = (0..100).map(|_| places.take(address("10.0.0.1")).unwrap()).collect();
        assert_eq!(places.state().open, 3);
        drop(all);
        let state = places.state();
        assert_eq!((state.open, state.by_network.len()), (0, 0));
    }

    #[test]
    fn all_addresses_of_an_ipv6_network_are_one() {
        assert_eq!(network(address("2001:db8::1")), network(address("2001:db8::ffff:1:2:3")));
        assert_ne!(network(address("2001:db8::1")), network(address("2001:db8:0:1::1")));
    }
}
