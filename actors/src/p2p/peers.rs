//! Who is connected, what became of what they gave, and whom to ask next.
//!
//! A score is between -100 and 100 and moves towards zero with time. At -100 a peer is banned for
//! a while, longer each time. Nobody is banned for being slow or for having nothing: only for
//! what nobody honest sends.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use baton_messages::p2p::{PeerId, PeerView, Verdict};
use baton_messages::wire::p2p::Service;
use tokio::time::Instant;

/// The worst score; it bans.
pub const WORST: i32 = -100;
/// The best score.
pub const BEST: i32 = 100;

/// How peers are treated.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long the first ban lasts; it doubles with each further one.
    pub ban_for: Duration,
    /// The longest ban.
    pub longest_ban: Duration,
    /// Most bans that are remembered; the oldest is forgotten first.
    pub max_bans: usize,
    /// Gossiped messages that a peer may send per second.
    pub messages_per_second: u32,
    /// Gossiped messages that a peer may send at once.
    pub burst: u32,
    /// Forged messages of others that a peer may forward per second before nothing it gossips is
    /// looked at.
    pub forged_per_second: u32,
    /// As many of them at once.
    pub forged_burst: u32,
    /// Questions that may be open at one peer.
    pub asks_per_peer: usize,
    /// Questions of one peer that are answered per second.
    pub questions_per_second: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ban_for: Duration::from_secs(600),
            longest_ban: Duration::from_secs(6 * 3600),
            max_bans: 1024,
            // A header and data for each block, and blocks may come every millisecond.
            messages_per_second: 2000,
            burst: 4000,
            // Each costs two signatures to check. A node of ev-node forwards as many as it is given.
            forged_per_second: 20,
            forged_burst: 200,
            asks_per_peer: 4,
            questions_per_second: 100,
        }
    }
}

/// What a peer did, as far as its score goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// It gossiped something.
    Gossiped(Verdict),
    /// It gossiped more than it may, or asks more than it may.
    TooMuch,
    /// It gave items that were asked for.
    Served {
        /// Bytes of them.
        bytes: usize,
        /// From question to answer.
        took: Duration,
    },
    /// It said how far it is: no merit, or who only ever says that were never asked last.
    Told,
    /// It had nothing of what was asked for.
    HadNothing,
    /// It did not answer, or too slowly.
    Silent,
    /// It gave what nobody honest gives.
    Lied,
}

/// Allows so many per second, and some more at once.
#[derive(Clone, Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    fn take(&mut self, per_second: u32, burst: u32, now: Instant) -> bool {
        let enough = self.has(per_second, burst, now);
        if enough {
            self.left -= 1.0;
        }
        enough
    }

    fn has(&mut self, per_second: u32, burst: u32, now: Instant) -> bool {
        let gained = now.duration_since(self.at).as_secs_f64() * f64::from(per_second);
        self.at = now;
        self.left = (self.left + gained).min(f64::from(burst));
        self.left >= 1.0
    }
}

#[derive(Clone, Debug)]
struct Peer {
    addresses: BTreeSet<String>,
    outbound: bool,
    serves: bool,
    subscribed: BTreeSet<Service>,
    agent: String,
    score: i32,
    /// Questions that are open at it.
    open: usize,
    /// Bytes per millisecond, smoothed; none before the first answer.
    speed: Option<f64>,
    messages: Bucket,
    forged: Bucket,
    questions: Bucket,
}

#[derive(Clone, Copy, Debug)]
struct Ban {
    until: Instant,
    times: u32,
    lifted: bool,
}

/// What follows from a deed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// Nothing.
    None,
    /// Its connections are to be closed; it is banned for so long.
    Banned(Duration),
}

/// Addresses remembered of one peer.
const MAX_ADDRESSES: usize = 16;

/// The book of peers.
#[derive(Debug)]
pub struct Peers {
    config: Config,
    connected: BTreeMap<PeerId, Peer>,
    bans: BTreeMap<PeerId, Ban>,
}

impl Peers {
    /// An empty book.
    #[must_use]
    pub const fn new(config: Config) -> Self {
        Self { config, connected: BTreeMap::new(), bans: BTreeMap::new() }
    }

    /// A peer is connected. False when it was before.
    pub fn connected(&mut self, peer: &PeerId, address: String, outbound: bool, now: Instant) -> bool {
        if let Some(known) = self.connected.get_mut(peer) {
            known.add([address]);
            return false;
        }
        let bucket = |burst: u32| Bucket { left: f64::from(burst), at: now };
        let fresh = Peer {
            addresses: BTreeSet::from([address]),
            outbound,
            serves: false,
            subscribed: BTreeSet::new(),
            agent: String::new(),
            score: 0,
            open: 0,
            speed: None,
            messages: bucket(self.config.burst),
            forged: bucket(self.config.forged_burst),
            questions: bucket(self.config.questions_per_second),
        };
        self.connected.insert(peer.clone(), fresh);
        true
    }

    /// A peer is gone. True when it served this chain.
    pub fn disconnected(&mut self, peer: &PeerId) -> bool {
        self.connected.remove(peer).is_some_and(|peer| peer.serves)
    }

    /// A peer said what it is. True when it serves this chain and did not say so before.
    pub fn identified(&mut self, peer: &PeerId, agent: String, addresses: Vec<String>, serves: bool) -> bool {
        let Some(known) = self.connected.get_mut(peer) else { return false };
        known.agent = agent;
        known.add(addresses);
        let news = serves && !known.serves;
        known.serves = serves;
        news
    }

    /// A peer turned out not to speak the exchange protocols.
    pub fn does_not_serve(&mut self, peer: &PeerId) {
        if let Some(known) = self.connected.get_mut(peer) {
            known.serves = false;
        }
    }

    /// A peer subscribed to a topic, or unsubscribed.
    pub fn subscribed(&mut self, peer: &PeerId, service: Service, on: bool) {
        let Some(known) = self.connected.get_mut(peer) else { return };
        if on {
            known.subscribed.insert(service);
        } else {
            known.subscribed.remove(&service);
        }
    }

    /// Whether a peer may gossip another message now.
    pub fn may_gossip(&mut self, peer: &PeerId, now: Instant) -> bool {
        let Config { messages_per_second, burst, .. } = self.config;
        let known = self.connected.get_mut(peer);
        known.is_some_and(|peer| peer.messages.take(messages_per_second, burst, now))
    }

    /// Whether what a peer gossips is worth looking at: it did not forward too much that was forged.
    /// That is no deed of its own, since ev-node's nodes cannot see it.
    pub fn is_worth_a_look(&mut self, peer: &PeerId, now: Instant) -> bool {
        let Config { forged_per_second, forged_burst, .. } = self.config;
        let known = self.connected.get_mut(peer);
        known.is_some_and(|peer| peer.forged.has(forged_per_second, forged_burst, now))
    }

    /// A peer forwarded something that was forged.
    pub fn forwarded_forged(&mut self, peer: &PeerId, now: Instant) {
        let Config { forged_per_second, forged_burst, .. } = self.config;
        if let Some(known) = self.connected.get_mut(peer) {
            known.forged.take(forged_per_second, forged_burst, now);
        }
    }

    /// Whether another question of a peer is answered now.
    pub fn may_ask(&mut self, peer: &PeerId, now: Instant) -> bool {
        let per_second = self.config.questions_per_second;
        let known = self.connected.get_mut(peer);
        known.is_some_and(|peer| peer.questions.take(per_second, per_second, now))
    }

    /// Takes a deed into account. Of a peer that is banned nothing more is noted: what it did before
    /// may be looked at after it was banned, and is paid for already.
    pub fn did(&mut self, peer: &PeerId, deed: Deed, now: Instant) -> Consequence {
        if self.is_banned(peer, now) {
            return Consequence::None;
        }
        let Some(known) = self.connected.get_mut(peer) else {
            // A liar that was faster to leave is banned all the same.
            return if deed == Deed::Lied { self.ban(peer, now) } else { Consequence::None };
        };
        // What may be nobody's fault makes a peer the last choice, and never bans it.
        let harmless = |change: i32, score: i32| (score + change).max(score.min(WORST / 2));
        known.score = match deed {
            Deed::Gossiped(Verdict::Accept) => known.score + 1,
            Deed::Gossiped(Verdict::Ignore) | Deed::Told => known.score,
            Deed::Gossiped(Verdict::Reject) => known.score - 25,
            Deed::TooMuch => harmless(-1, known.score),
            Deed::Served { bytes, took } => {
                let millis = (took.as_secs_f64() * 1000.0).max(0.1);
                let speed = bytes as f64 / millis;
                known.speed = Some(known.speed.map_or(speed, |before| before * 0.75 + speed * 0.25));
                known.score + 2
            }
            Deed::HadNothing => harmless(-2, known.score),
            Deed::Silent => {
                known.speed = known.speed.map(|speed| speed / 2.0);
                harmless(-5, known.score)
            }
            Deed::Lied => WORST,
        }
        .clamp(WORST, BEST);
        if known.score == WORST { self.ban(peer, now) } else { Consequence::None }
    }

    fn ban(&mut self, peer: &PeerId, now: Instant) -> Consequence {
        let times = self.bans.get(peer).map_or(0, |ban| ban.times);
        let length = self.config.ban_for.saturating_mul(1 << times.min(16)).min(self.config.longest_ban);
        if self.bans.len() >= self.config.max_bans && !self.bans.contains_key(peer) {
            let first = self.bans.iter().min_by_key(|(_, ban)| ban.until).map(|(peer, _)| peer.clone());
            self.bans.remove(&first.unwrap_or_else(|| peer.clone()));
        }
        self.bans.insert(peer.clone(), Ban { until: now + length, times: times + 1, lifted: false });
        Consequence::Banned(length)
    }

    /// Whether a peer is banned now.
    #[must_use]
    pub fn is_banned(&self, peer: &PeerId, now: Instant) -> bool {
        self.bans.get(peer).is_some_and(|ban| ban.until > now)
    }

    /// Moves scores towards zero, once in a while. Returns whose bans are over.
    pub fn age(&mut self, now: Instant) -> Vec<PeerId> {
        for peer in self.connected.values_mut() {
            peer.score -= peer.score.signum() * (peer.score.abs() / 16).max(1).min(peer.score.abs());
        }
        let mut over = vec![];
        for (peer, ban) in &mut self.bans {
            if ban.until <= now && !ban.lifted {
                ban.lifted = true;
                over.push(peer.clone());
            }
        }
        // Remembered as long again, so that the next ban is a longer one.
        self.bans.retain(|_, ban| ban.until + self.config.longest_ban > now);
        over
    }

    /// A question to a peer is on its way.
    pub fn asked(&mut self, peer: &PeerId) {
        if let Some(known) = self.connected.get_mut(peer) {
            known.open += 1;
        }
    }

    /// A question to a peer is over.
    pub fn answered(&mut self, peer: &PeerId) {
        if let Some(known) = self.connected.get_mut(peer) {
            known.open = known.open.saturating_sub(1);
        }
    }

    /// The peers that serve this chain and how many more questions each may be asked now. The
    /// best come first: by score, then by speed with what is open there already. A peer that was
    /// not tried yet comes before those that are slow.
    #[must_use]
    pub fn to_ask(&self) -> Vec<(PeerId, usize)> {
        let mut fit: Vec<(&PeerId, &Peer)> = self.connected.iter().filter(|(_, peer)| peer.serves).collect();
        let rank = |peer: &Peer| {
            let speed = peer.speed.unwrap_or(1000.0) / (peer.open + 1) as f64;
            // Scores differ by what they mean, not by how often.
            (peer.score < -20, speed)
        };
        fit.sort_by(|(_, one), (_, other)| {
            let ((one_bad, one_speed), (other_bad, other_speed)) = (rank(one), rank(other));
            one_bad.cmp(&other_bad).then(other_speed.total_cmp(&one_speed))
        });
        let room = |peer: &Peer| self.config.asks_per_peer.saturating_sub(peer.open);
        fit.into_iter().map(|(id, peer)| (id.clone(), room(peer))).collect()
    }

    /// How many serve this chain.
    #[must_use]
    pub fn serving(&self) -> usize {
        self.connected.values().filter(|peer| peer.serves).count()
    }

    /// How many are connected.
    #[must_use]
    pub fn len(&self) -> usize {
        self.connected.len()
    }

    /// Nobody is connected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.connected.is_empty()
    }

    /// Whether a peer is connected.
    #[must_use]
    pub fn is_connected(&self, peer: &PeerId) -> bool {
        self.connected.contains_key(peer)
    }

    /// How many are banned now.
    #[must_use]
    pub fn banned(&self, now: Instant) -> usize {
        self.bans.values().filter(|ban| ban.until > now).count()
    }

    /// The score of a connected peer.
    #[must_use]
    pub fn score(&self, peer: &PeerId) -> Option<i32> {
        self.connected.get(peer).map(|peer| peer.score)
    }

    /// Everybody that is connected, by id.
    #[must_use]
    pub fn views(&self) -> Vec<PeerView> {
        let view = |(id, peer): (&PeerId, &Peer)| PeerView {
            id: id.clone(),
            addresses: peer.addresses.iter().cloned().collect(),
            outbound: peer.outbound,
            serves: peer.serves,
            subscribed: !peer.subscribed.is_empty(),
            score: peer.score,
            agent: peer.agent.clone(),
        };
        self.connected.iter().map(view).collect()
    }
}

impl Peer {
    fn add(&mut self, addresses: impl IntoIterator<Item = String>) {
        for address in addresses {
            if self.addresses.len() < MAX_ADDRESSES {
                self.addresses.insert(address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book(names: &[&str]) -> (Peers, Instant) {
        let now = Instant::now();
        let mut peers = Peers::new(Config::default());
        for name in names {
            let peer = PeerId::from(*name);
            assert!(peers.connected(&peer, "/ip4/127.0.0.1/tcp/1".to_owned(), true, now));
            assert!(peers.identified(&peer, "test".to_owned(), vec![], true));
        }
        (peers, now)
    }

    fn order(peers: &Peers) -> Vec<String> {
        let fit = peers.to_ask().into_iter().filter(|(_, room)| *room > 0);
        fit.map(|(peer, _)| peer.to_string()).collect()
    }

    #[test]
    fn a_liar_is_banned_at_once_and_longer_each_time() {
        let (mut peers, now) = book(&["a"]);
        let a = PeerId::from("a");
        let first = Duration::from_secs(600);
        assert_eq!(peers.did(&a, Deed::Lied, now), Consequence::Banned(first));
        assert!(peers.is_banned(&a, now + first / 2));
        assert_eq!(peers.age(now + first / 2), []);
        assert_eq!(peers.age(now + first), std::slice::from_ref(&a));
        assert_eq!(peers.age(now + first), [], "it is let in once");
        peers.disconnected(&a);
        let later = now + first;
        assert_eq!(peers.did(&a, Deed::Lied, later), Consequence::Banned(first * 2));
    }

    #[test]
    fn who_forwards_much_that_is_forged_is_looked_at_less_and_blamed_for_nothing() {
        let (mut peers, now) = book(&["a", "b"]);
        let (a, b) = (PeerId::from("a"), PeerId::from("b"));
        for _ in 0..200 {
            assert!(peers.is_worth_a_look(&a, now));
            peers.forwarded_forged(&a, now);
        }
        assert!(!peers.is_worth_a_look(&a, now));
        assert!(peers.is_worth_a_look(&b, now), "others are heard");
        assert_eq!(peers.score(&a), Some(0));
        let later = now + Duration::from_secs(1);
        let looks = (0..100).filter(|_| {
            let look = peers.is_worth_a_look(&a, later);
            peers.forwarded_forged(&a, later);
            look
        });
        assert_eq!(looks.count(), 20);
    }

    #[test]
    fn what_a_peer_did_before_it_was_banned_makes_the_ban_no_longer() {
        let (mut peers, now) = book(&["a"]);
        let a = PeerId::from("a");
        let first = Duration::from_secs(600);
        assert_eq!(peers.did(&a, Deed::Lied, now), Consequence::Banned(first));
        for _ in 0..100 {
            assert_eq!(peers.did(&a, Deed::Gossiped(Verdict::Reject), now), Consequence::None);
            assert_eq!(peers.did(&a, Deed::Lied, now), Consequence::None);
        }
        peers.disconnected(&a);
        assert_eq!(peers.did(&a, Deed::Lied, now), Consequence::None);
        assert!(!peers.is_banned(&a, now + first));
        assert_eq!(peers.did(&a, Deed::Lied, now + first), Consequence::Banned(first * 2));
    }

    #[test]
    fn a_few_rejected_messages_ban_and_time_forgives_fewer() {
        let (mut peers, now) = book(&["a", "b"]);
        let (a, b) = (PeerId::from("a"), PeerId::from("b"));
        let rejected = Deed::Gossiped(Verdict::Reject);
        for _ in 0..3 {
            assert_eq!(peers.did(&a, rejected, now), Consequence::None);
        }
        assert!(matches!(peers.did(&a, rejected, now), Consequence::Banned(_)));
        for _ in 0..3 {
            peers.did(&b, rejected, now);
        }
        for _ in 0..60 {
            peers.age(now);
        }
        assert_eq!(peers.score(&b), Some(0));
    }

    #[test]
    fn nobody_is_banned_for_silence_or_haste_or_for_having_nothing() {
        let (mut peers, now) = book(&["a", "b"]);
        let a = PeerId::from("a");
        for _ in 0..1000 {
            assert_eq!(peers.did(&a, Deed::Silent, now), Consequence::None);
            assert_eq!(peers.did(&a, Deed::HadNothing, now), Consequence::None);
            assert_eq!(peers.did(&a, Deed::TooMuch, now), Consequence::None);
        }
        assert_eq!(order(&peers), ["b", "a"], "it is asked last");
    }

    #[test]
    fn who_tells_of_blocks_and_has_none_of_them_comes_to_be_asked_last() {
        let (mut peers, now) = book(&["a", "b"]);
        let (a, b) = (PeerId::from("a"), PeerId::from("b"));
        let served = |millis| Deed::Served { bytes: 100_000, took: Duration::from_millis(millis) };
        peers.did(&a, served(1), now);
        peers.did(&b, served(1000), now);
        assert_eq!(order(&peers), ["a", "b"]);
        for _ in 0..20 {
            peers.did(&a, Deed::Told, now);
            peers.did(&a, Deed::HadNothing, now);
        }
        assert_eq!(order(&peers), ["b", "a"]);
    }

    #[test]
    fn the_fast_are_asked_first_and_nobody_too_much() {
        let (mut peers, now) = book(&["fast", "slow"]);
        let (fast, slow) = (PeerId::from("fast"), PeerId::from("slow"));
        let served = |millis| Deed::Served { bytes: 100_000, took: Duration::from_millis(millis) };
        peers.did(&fast, served(10), now);
        peers.did(&slow, served(1000), now);
        assert_eq!(order(&peers), ["fast", "slow"]);
        for _ in 0..Config::default().asks_per_peer {
            peers.asked(&fast);
        }
        assert_eq!(order(&peers), ["slow"]);
        peers.answered(&fast);
        assert_eq!(order(&peers), ["fast", "slow"]);
        peers.does_not_serve(&fast);
        assert_eq!(order(&peers), ["slow"]);
    }

    #[test]
    fn a_flood_is_let_through_up_to_the_burst_and_then_at_the_rate() {
        let (mut peers, now) = book(&["a"]);
        let a = PeerId::from("a");
        let Config { burst, messages_per_second, .. } = Config::default();
        let passed = (0..burst * 2).filter(|_| peers.may_gossip(&a, now)).count();
        assert_eq!(passed, burst as usize);
        let later = now + Duration::from_secs(1);
        let passed = (0..burst).filter(|_| peers.may_gossip(&a, later)).count();
        assert_eq!(passed, messages_per_second as usize);
        assert!(!peers.may_gossip(&PeerId::from("stranger"), now));
    }

    #[test]
    fn the_memory_of_bans_is_bounded() {
        let (mut peers, now) = book(&[]);
        for number in 0..5000u32 {
            let peer = PeerId::from(&*format!("peer {number}"));
            peers.did(&peer, Deed::Lied, now + Duration::from_millis(u64::from(number)));
        }
        assert_eq!(peers.bans.len(), Config::default().max_bans);
        let newest = PeerId::from("peer 4999");
        assert!(peers.is_banned(&newest, now + Duration::from_secs(5)));
    }
}
