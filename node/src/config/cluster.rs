//! The settings of a cluster of several: who the others are, how they reach this node, how it
//! finds them first.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::rules::{bindable, contradiction};
use crate::config::settings::Settings;
use crate::config::{ConfigError, Source};

/// How a member reaches the others, and they it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// `host:port` to bind.
    pub listen: String,
    /// `host:port` that the others dial.
    pub advertise: String,
    /// What a node does that belongs to no cluster yet.
    pub first: First,
    /// Where this node dials members, by name, instead of where the membership has them.
    pub dial: BTreeMap<String, String>,
}

impl Cluster {
    /// Every address that is bound or dialled.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        let others: Vec<&str> = match &self.first {
            First::Alone => vec![],
            First::Peers(peers) => peers.iter().map(|peer| peer.address.as_str()).collect(),
            First::Join(addresses) => addresses.iter().map(String::as_str).collect(),
        };
        let dialled = self.dial.values().map(String::as_str);
        [self.listen.as_str(), self.advertise.as_str()].into_iter().chain(others).chain(dialled)
    }
}

/// What a node does that belongs to no cluster yet. Says nothing to one that does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum First {
    /// Form a cluster of one. Others are added to it.
    Alone,
    /// Form one with these, itself among them, or join the one that some of them have.
    Peers(Vec<Peer>),
    /// Join the cluster of whoever answers at one of these addresses.
    Join(Vec<String>),
}

/// One of the first members.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Where it is reached, `host:port`.
    pub address: String,
}

/// Whether the settings ask for a cluster of several.
pub(super) fn is_wanted(s: &Settings) -> bool {
    s.bool("raft.enable") || s.bool("raft.witness") || !s.list("raft.join").is_empty()
}

/// The cluster's part, when it is wanted and an address is given. [`check`] comes first.
pub(super) fn typed(s: &Settings) -> Option<Cluster> {
    let listen = s.text("raft.raft_addr");
    if !is_wanted(s) || listen.is_empty() {
        return None;
    }
    let advertise = advertise(s);
    let join = s.list("raft.join");
    let first = match peers(s) {
        Ok(_) if !join.is_empty() => First::Join(join),
        Ok(mut peers) if !peers.is_empty() => {
            let own = Peer { name: s.node_id(), address: advertise.clone() };
            if !peers.iter().any(|peer| peer.name == own.name) {
                peers.push(own);
            }
            peers.sort();
            First::Peers(peers)
        }
        Ok(_) | Err(_) => First::Alone,
    };
    let dial = entries(s, "raft.dial").unwrap_or_default();
    let dial = dial.into_iter().map(|Peer { name, address }| (name, address)).collect();
    Some(Cluster { listen: bindable(listen), advertise, first, dial })
}

/// Refuses what cannot be a member.
pub(super) fn check(s: &Settings) -> Result<(), ConfigError> {
    if !is_wanted(s) {
        return Ok(());
    }
    for member in ["raft.enable", "raft.witness"] {
        if s.bool(member) && !s.bool("node.aggregator") {
            let rule =
                "a member of a cluster produces blocks: set node.aggregator to true, or leave the other out";
            return Err(contradiction(s, member, "node.aggregator", rule));
        }
    }
    let enable = s.get("raft.enable");
    let implied_by = ["raft.join", "raft.witness"]
        .into_iter()
        .find(|key| s.get(key).value != s.get(key).key.default_value());
    // A file says it because all settings are in it; a flag means it.
    let meant = matches!(enable.source, Source::Flag(_) | Source::Env(_));
    if let Some(key) = implied_by.filter(|_| meant && !s.bool("raft.enable")) {
        return Err(contradiction(s, key, "raft.enable", "it belongs to a member of a cluster"));
    }
    let others = ["raft.peers", "raft.join"].into_iter().filter(|key| !s.list(key).is_empty());
    let others: Vec<_> = others.collect();
    if let [peers, join] = others[..] {
        let rule = "a node forms a cluster with its peers or joins one that exists: say one of them";
        return Err(contradiction(s, peers, join, rule));
    }
    if s.bool("raft.witness") && others.is_empty() {
        return Err(ConfigError::NotSet {
            key: "raft.join",
            rule: "a witness never makes blocks, so it belongs to others: say raft.join or raft.peers",
        });
    }
    if s.text("raft.raft_addr").is_empty() {
        if others.is_empty() {
            return Ok(());
        }
        return Err(ConfigError::NotSet {
            key: "raft.raft_addr",
            rule: "a member of a cluster needs an address for the others, like 10.0.0.1:5001",
        });
    }
    check_name(s)?;
    check_advertised(s)?;
    for address in s.list("raft.join") {
        if !is_dialled(&address) {
            return Err(bad(s, "raft.join", &format!("{address:?} must be host:port, like 10.0.0.1:5001")));
        }
    }
    entries(s, "raft.dial").map_err(|rule| bad(s, "raft.dial", &rule))?;
    let peers = peers(s).map_err(|rule| bad(s, "raft.peers", &rule))?;
    check_own_entry(s, &peers)
}

/// Names tell members apart, and certificates carry them.
fn check_name(s: &Settings) -> Result<(), ConfigError> {
    if s.text("raft.node_id").is_empty() && has_others(s) {
        return Err(ConfigError::NotSet {
            key: "raft.node_id",
            rule: "every member of a cluster needs a name of its own, like node1",
        });
    }
    if is_name(&s.node_id()) { Ok(()) } else { Err(bad(s, "raft.node_id", NAME)) }
}

fn has_others(s: &Settings) -> bool {
    !s.list("raft.peers").is_empty() || !s.list("raft.join").is_empty()
}

fn check_advertised(s: &Settings) -> Result<(), ConfigError> {
    if is_dialled(&advertise(s)) {
        return Ok(());
    }
    if s.text("raft.advertise").is_empty() {
        return Err(contradiction(
            s,
            "raft.raft_addr",
            "raft.advertise",
            "nobody can dial a wildcard or port 0: say in raft.advertise what the other members dial",
        ));
    }
    Err(bad(s, "raft.advertise", "must be the host:port that the other members dial, not a wildcard"))
}

/// The own name and the own address in the list belong together.
fn check_own_entry(s: &Settings, peers: &[Peer]) -> Result<(), ConfigError> {
    let (name, address) = (s.node_id(), advertise(s));
    for peer in peers {
        if peer.name.eq_ignore_ascii_case(&name) && peer.address != address {
            let rule = format!(
                "the list has this node at {}, it advertises {address}: correct one of them",
                peer.address
            );
            return Err(contradiction(s, "raft.peers", address_key(s), &rule));
        }
        if peer.address == address && !peer.name.eq_ignore_ascii_case(&name) {
            let rule = format!("the list calls this node's address {}: give it that name", peer.name);
            return Err(contradiction(s, "raft.peers", "raft.node_id", &rule));
        }
    }
    Ok(())
}

fn address_key(s: &Settings) -> &'static str {
    if s.text("raft.advertise").is_empty() { "raft.raft_addr" } else { "raft.advertise" }
}

/// What the others dial.
fn advertise(s: &Settings) -> String {
    let said = s.text("raft.advertise");
    if said.is_empty() { bindable(s.text("raft.raft_addr")) } else { said }
}

/// The list of first members as it was given.
fn peers(s: &Settings) -> Result<Vec<Peer>, String> {
    if !s.bool("raft.enable") && !s.bool("raft.witness") {
        return Ok(vec![]);
    }
    entries(s, "raft.peers")
}

/// A list of `name@host:port` whose names and addresses tell members apart.
fn entries(s: &Settings, key: &str) -> Result<Vec<Peer>, String> {
    let peers = s.list(key).iter().map(|entry| peer(entry)).collect::<Result<Vec<_>, _>>()?;
    let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    for peer in &peers {
        // Certificates know no case, and so do not tell such names apart.
        if !names.insert(peer.name.to_ascii_lowercase()) {
            return Err(format!("two members are called {}", peer.name));
        }
        if !addresses.insert(&peer.address) {
            return Err(format!("two members have the address {}", peer.address));
        }
    }
    Ok(peers)
}

const NAME: &str =
    "must be at most 63 letters, digits, dots, hyphens and underscores, a letter or digit first and last";

fn peer(entry: &str) -> Result<Peer, String> {
    let wrong = || format!("{entry:?} must be name@host:port, like node2@10.0.0.2:5001");
    let (name, address) = entry.split_once('@').ok_or_else(wrong)?;
    if !is_name(name) {
        return Err(format!("the name in {entry:?} {NAME}"));
    }
    if !is_dialled(address) {
        return Err(wrong());
    }
    Ok(Peer { name: name.to_owned(), address: address.to_owned() })
}

/// Whether this can be a node's name: what a certificate carries as a DNS name.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let edge = |letter: Option<char>| letter.is_some_and(|letter| letter.is_ascii_alphanumeric());
    let inside = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_');
    let is_label = |label: &str| {
        label.chars().all(inside) && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= 63
        && text.split('.').all(is_label)
        && edge(text.chars().next())
        && edge(text.chars().last())
}

/// Whether somebody can dial this: a host that is no wildcard, and a port.
#[must_use]
pub fn is_dialled(address: &str) -> bool {
    crate::config::value::is_host_port(address) && !is_wildcard(address) && !address.ends_with(":0")
}

/// Whether an address stands for every address of the machine.
fn is_wildcard(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or("", |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.is_empty() || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_unspecified())
}

/// Where clients reach a server that is bound here: as said, or as bound; for a wildcard, the
/// host under which the other members reach this one.
pub(super) fn advertised(s: &Settings, key: &str, bound: &str) -> String {
    let said = s.text(key);
    if !said.is_empty() {
        return said;
    }
    let host = |address: &str| address.rsplit_once(':').map(|(host, _)| host.to_owned());
    let port = bound.rsplit_once(':').map_or("", |(_, port)| port);
    match host(&advertise(s)).filter(|_| is_wildcard(bound) && is_dialled(&advertise(s))) {
        Some(host) => format!("{host}:{port}"),
        None => bound.to_owned(),
    }
}

fn bad(s: &Settings, key: &str, rule: &str) -> ConfigError {
    let setting = s.get(key);
    ConfigError::BadValue {
        key: setting.key.name.to_owned(),
        value: setting.shown(),
        rule: rule.to_owned(),
        from: setting.source.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Env, Flags};

    fn load(given: &[(&'static str, &str)]) -> Result<Config, String> {
        let always = [
            ("node.aggregator", "true"),
            ("raft.tls.ca", "ca.pem"),
            ("raft.tls.cert", "node.pem"),
            ("raft.tls.key", "node.key"),
        ];
        let all = always.iter().chain(given).map(|(key, value)| (*key, (*value).to_owned()));
        let loaded = Config::without_file(std::path::Path::new("/h"), &Flags(all.collect()), &Env::default());
        loaded.map(|(config, _)| config).map_err(|error| error.to_string())
    }

    fn cluster(given: &[(&'static str, &str)]) -> Cluster {
        load(given).unwrap().raft.cluster.unwrap()
    }

    const MEMBER: [(&str, &str); 3] =
        [("raft.enable", "true"), ("raft.node_id", "a"), ("raft.raft_addr", "10.0.0.1:5001")];

    fn with(more: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
        MEMBER.iter().chain(more).copied().collect()
    }

    fn peer(name: &str, address: &str) -> Peer {
        Peer { name: name.to_owned(), address: address.to_owned() }
    }

    #[test]
    fn lists_with_and_without_the_node_itself_mean_the_same() {
        let without = cluster(&with(&[("raft.peers", "c@10.0.0.3:5001, b@10.0.0.2:5001")]));
        let all = "a@10.0.0.1:5001,b@10.0.0.2:5001,c@10.0.0.3:5001";
        assert_eq!(without, cluster(&with(&[("raft.peers", all)])));
        let peers =
            ["a", "b", "c"].into_iter().zip(1..).map(|(name, i)| peer(name, &format!("10.0.0.{i}:5001")));
        assert_eq!(without.first, First::Peers(peers.collect()));
    }

    #[test]
    fn a_member_without_others_is_a_cluster_of_one_that_can_grow() {
        assert_eq!(cluster(&MEMBER).first, First::Alone);
        assert_eq!(load(&[("raft.enable", "true")]).unwrap().raft.cluster, None);
        assert_eq!(load(&MEMBER[1..]).unwrap().raft.cluster, None, "it is not enabled");
    }

    #[test]
    fn a_wildcard_is_bound_and_something_else_is_advertised() {
        for bind in ["0.0.0.0:5001", "[::]:5001", ":5001", "10.0.0.1:0"] {
            let given = [("raft.enable", "true"), ("raft.node_id", "a"), ("raft.raft_addr", bind)];
            assert!(load(&given).unwrap_err().contains("raft.advertise"), "{bind}");
            let said = [&given[..], &[("raft.advertise", "a.example:5001")]].concat();
            assert_eq!(cluster(&said).advertise, "a.example:5001");
        }
        let said = with(&[("raft.advertise", "0.0.0.0:5001")]);
        assert!(load(&said).unwrap_err().contains("not a wildcard"));
    }

    #[test]
    fn clients_are_told_an_address_they_can_use() {
        let config = load(&with(&[("rpc.address", "0.0.0.0:7331"), ("kv.listen", ":9090")])).unwrap();
        assert_eq!((&*config.rpc.address, &*config.rpc.advertise), ("0.0.0.0:7331", "10.0.0.1:7331"));
        assert_eq!(config.kv.advertise, "10.0.0.1:9090");
        let config = load(&with(&[("rpc.advertise", "a.example:80"), ("kv.listen", "")])).unwrap();
        assert_eq!((&*config.rpc.advertise, &*config.kv.advertise), ("a.example:80", ""));
    }

    #[test]
    fn a_node_that_joins_needs_no_further_word_than_its_name_and_address() {
        let given = with(&[("raft.join", "10.0.0.2:5001,10.0.0.3:5001")]);
        assert_eq!(cluster(&given[1..]), cluster(&given));
        let First::Join(addresses) = cluster(&given).first else { panic!("{given:?}") };
        assert_eq!(addresses, ["10.0.0.2:5001", "10.0.0.3:5001"]);
    }

    #[test]
    fn a_witness_has_no_intake_and_needs_no_da_and_no_key() {
        let config = load(&with(&[("raft.witness", "true"), ("raft.join", "10.0.0.2:5001")])).unwrap();
        assert!(config.raft.witness && config.kv.listen.is_none());
        assert_eq!(config.check_start(), Ok(()));
    }

    #[test]
    fn a_cluster_without_certificates_is_on_one_machine_and_says_so() {
        let plain = [("raft.tls.ca", ""), ("raft.tls.cert", ""), ("raft.tls.key", "")];
        let local = [("raft.raft_addr", "127.0.0.1:5001"), ("raft.peers", "b@127.0.0.1:5002")];
        let error = load(&[&MEMBER[..], &plain, &local].concat()).unwrap_err();
        assert!(error.contains("raft.tls.ca") && error.contains("baton tls"), "{error}");
        let said = [&MEMBER[..], &plain, &local, &[("raft.tls.insecure_loopback", "true")]].concat();
        assert!(load(&said).is_ok());
        for (key, other) in [
            ("raft.peers", "b@10.0.0.2:5002"),
            ("raft.raft_addr", "0.0.0.0:5001"),
            ("raft.advertise", "a.example:5001"),
        ] {
            let mut said = said.clone();
            said.push((key, other));
            if key == "raft.raft_addr" {
                said.push(("raft.advertise", "127.0.0.1:5001"));
            }
            let error = load(&said).unwrap_err();
            assert!(error.contains("no loopback address"), "{key}: {error}");
        }
    }

    #[test]
    fn what_cannot_be_a_member_is_refused_naming_key_and_remedy() {
        let peers = ("raft.peers", "b@10.0.0.2:5001");
        for (given, said) in [
            (vec![("raft.enable", "true"), ("raft.node_id", "a"), peers], "raft.raft_addr is not set"),
            (
                vec![("raft.enable", "true"), ("raft.raft_addr", "10.0.0.1:1"), peers],
                "raft.node_id is not set",
            ),
            (with(&[("raft.node_id", "a b")]), "letters, digits"),
            (with(&[("raft.peers", "10.0.0.2:5001")]), "name@host:port"),
            (with(&[("raft.peers", "b@10.0.0.2")]), "name@host:port"),
            (with(&[("raft.peers", "b@0.0.0.0:5001")]), "name@host:port"),
            (with(&[("raft.peers", "b!@10.0.0.2:5001")]), "letters, digits"),
            (with(&[("raft.peers", "b@h:1,b@h:2")]), "two members are called b"),
            (with(&[("raft.peers", "b@h:1,c@h:1")]), "two members have the address h:1"),
            (with(&[("raft.peers", "b@10.0.0.1:5001")]), "calls this node's address b"),
            (with(&[("raft.peers", "a@10.0.0.9:5001")]), "it advertises 10.0.0.1:5001"),
            (with(&[("raft.join", "nowhere")]), "raft.join"),
            (with(&[peers, ("raft.join", "10.0.0.2:5001")]), "say one of them"),
            (with(&[("raft.witness", "true")]), "say raft.join or raft.peers"),
            (vec![("raft.enable", "false"), ("raft.join", "h:1")], "belongs to a member of a cluster"),
        ] {
            let error = load(&given).unwrap_err();
            assert!(error.contains(said), "{given:?}: {error}");
        }
    }
}
