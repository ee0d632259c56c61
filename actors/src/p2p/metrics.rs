//! What the peer-to-peer actor counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use baton_messages::p2p::Verdict;
use baton_messages::wire::p2p::Service;

/// Headers or data, and what became of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Gossip {
    /// `headers` or `data`.
    pub service: &'static str,
    /// `accept`, `ignore`, `reject`, `flood`, or `unseen` of a peer that forwards much that is forged.
    pub verdict: &'static str,
}

/// Headers or data.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Of {
    /// `headers` or `data`.
    pub service: &'static str,
}

/// Questions and what became of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Question {
    /// `headers` or `data`.
    pub service: &'static str,
    /// `items`, `nothing`, `early` (its time has not come), `wrong`, `failed` or `refused`.
    pub outcome: &'static str,
}

/// What the actor counts.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Connected peers.
    pub peers: Gauge,
    /// Connected peers that serve this chain.
    pub serving: Gauge,
    /// Peers that are banned now.
    pub banned: Gauge,
    /// Bans so far.
    pub bans: Counter,
    /// Gossiped messages that came in.
    pub gossip: Family<Gossip, Counter>,
    /// Gossiped items that wait for their verdict.
    pub judging: Gauge,
    /// Blocks that were told.
    pub published: Counter,
    /// Messages that were too large to be told.
    pub too_large: Counter,
    /// The last height that was told.
    pub published_height: Gauge,
    /// Items given to peers.
    pub served: Family<Of, Counter>,
    /// Questions of peers that were not answered.
    pub refused: Family<Of, Counter>,
    /// Questions to peers.
    pub asked: Family<Question, Counter>,
    /// Items that came from peers on request.
    pub fetched: Family<Of, Counter>,
    /// Requests of other actors that are on their way.
    pub fetches: Gauge,
    /// Commands that the network adapter had no room for.
    pub overloaded: Counter,
    /// Two headers of one height by the sequencer's key. Anything but zero needs a person.
    pub forks: Counter,
}

impl Metrics {
    /// Makes the metrics visible.
    pub fn register(&self, registry: &mut Registry) {
        let p2p = registry.sub_registry_with_prefix("p2p");
        p2p.register("peers", "Connected peers", self.peers.clone());
        p2p.register("serving_peers", "Connected peers that serve this chain", self.serving.clone());
        p2p.register("banned_peers", "Peers that are banned now", self.banned.clone());
        p2p.register("bans", "Bans so far", self.bans.clone());
        p2p.register("gossip", "Gossiped messages that came in, by verdict", self.gossip.clone());
        p2p.register("judging", "Gossiped items that wait for their verdict", self.judging.clone());
        p2p.register("published_blocks", "Blocks that were gossiped", self.published.clone());
        p2p.register("too_large", "Messages that were too large to be gossiped", self.too_large.clone());
        p2p.register("published_height", "Last height that was gossiped", self.published_height.clone());
        p2p.register("served_items", "Headers and data given to peers on request", self.served.clone());
        p2p.register("refused_questions", "Questions of peers that were not answered", self.refused.clone());
        p2p.register("questions", "Questions to peers, by outcome", self.asked.clone());
        p2p.register("fetched_items", "Headers and data that peers gave on request", self.fetched.clone());
        p2p.register("fetches", "Requests for ranges, heads and hashes on their way", self.fetches.clone());
        p2p.register("overloaded", "Commands the network had no room for", self.overloaded.clone());
        p2p.register("forks", "Pairs of headers of one height by the sequencer's key", self.forks.clone());
    }

    pub(super) fn gossiped(&self, service: Service, verdict: &'static str) {
        self.gossip.get_or_create(&Gossip { service: name(service), verdict }).inc();
    }

    pub(super) fn asked(&self, service: Service, outcome: &'static str) {
        self.asked.get_or_create(&Question { service: name(service), outcome }).inc();
    }
}

/// The name of a service in labels and logs.
pub(super) const fn name(service: Service) -> &'static str {
    match service {
        Service::Headers => "headers",
        Service::Data => "data",
    }
}

/// The name of a verdict in labels and logs.
pub(super) const fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Accept => "accept",
        Verdict::Ignore => "ignore",
        Verdict::Reject => "reject",
    }
}
