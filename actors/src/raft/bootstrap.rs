//! How a node without a membership comes to one: the rules, without the network around them.
//!
//! An empty data directory never forms a cluster by itself (hazard E4). A listed peer that belongs
//! to a cluster is joined. Only if every listed peer answers, is empty and wants to form the same
//! cluster, the first of them by name makes it, with everybody's storage in the membership.

use std::collections::{BTreeMap, BTreeSet};

use baton_messages::mutation::{Mutation, planted};
use baton_messages::types::{Member, MemberId};
use uuid::Uuid;

use super::wire::Identity;

/// A node that is expected in a new cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Where its cluster transport is reached.
    pub address: String,
}

/// How a node without a membership comes to one. One that has a membership does nothing of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Bootstrap {
    /// It forms a cluster of one.
    #[default]
    Sole,
    /// It forms a cluster with these, or joins the one they have. The list may name it too.
    Peers(Vec<Peer>),
    /// It joins the cluster of whoever answers at one of these addresses.
    Join(Vec<String>),
}

impl Bootstrap {
    /// The names of those who form a cluster, this node's too, sorted; empty when none is formed.
    #[must_use]
    pub fn names(&self, own: &str) -> Vec<String> {
        match self {
            Self::Sole | Self::Join(_) => vec![],
            Self::Peers(peers) => {
                let listed = peers.iter().map(|peer| peer.name.clone());
                listed.chain([own.to_owned()]).collect::<BTreeSet<_>>().into_iter().collect()
            }
        }
    }

    /// Whom to ask first, by address: everybody listed but this node itself.
    #[must_use]
    pub fn addresses(&self, own: &Member) -> Vec<String> {
        let all: Vec<&str> = match self {
            Self::Sole => vec![],
            Self::Peers(peers) => {
                let others = peers.iter().filter(|peer| peer.name != own.name);
                others.map(|peer| peer.address.as_str()).collect()
            }
            Self::Join(addresses) => addresses.iter().map(String::as_str).collect(),
        };
        all.into_iter().filter(|address| *address != own.address).map(str::to_owned).collect()
    }
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make the cluster, with these voters.
    Initialise(BTreeMap<MemberId, Member>),
    /// Ask to join; at one of these addresses somebody belongs to a cluster.
    Join(Vec<String>),
    /// Wait, and ask again.
    Wait(String),
}

/// Decides what to do with the answers of those who were asked.
#[must_use]
pub fn decide(
    bootstrap: &Bootstrap,
    own: &Member,
    cluster: Option<Uuid>,
    answers: &BTreeMap<String, Result<Identity, String>>,
) -> Step {
    let mut found = vec![];
    let mut silent = vec![];
    for (address, answer) in answers {
        match answer {
            // Asked itself, under another name for its own address.
            Ok(identity) if identity.member.storage == own.storage => {}
            Ok(identity) => found.push((address, identity)),
            Err(reason) => silent.push(format!("{address} ({reason})")),
        }
    }
    let (joined, empty): (Vec<_>, Vec<_>) = found.into_iter().partition(|(_, identity)| identity.initialised);
    let (ours, others): (Vec<_>, Vec<_>) =
        joined.into_iter().partition(|(_, identity)| cluster.is_none() || identity.cluster == cluster);
    if !ours.is_empty() {
        return Step::Join(ours.into_iter().map(|(address, _)| address.clone()).collect());
    }
    if let Some((address, identity)) = others.first() {
        let other = identity.cluster.map_or_else(|| "none".to_owned(), |cluster| cluster.to_string());
        return Step::Wait(format!("{address} belongs to cluster {other}, this node to another one"));
    }
    if !silent.is_empty() {
        if planted(Mutation::FormAlone) {
            return Step::Initialise(BTreeMap::from([(MemberId::of(own.storage), own.clone())]));
        }
        return Step::Wait(format!("no answer from {}", silent.join(", ")));
    }
    match bootstrap {
        Bootstrap::Sole => Step::Initialise(BTreeMap::from([(MemberId::of(own.storage), own.clone())])),
        Bootstrap::Join(_) => Step::Wait("nobody who was asked belongs to a cluster yet".to_owned()),
        Bootstrap::Peers(peers) => form(bootstrap, peers, own, cluster, &empty),
    }
}

fn form(
    bootstrap: &Bootstrap,
    peers: &[Peer],
    own: &Member,
    cluster: Option<Uuid>,
    empty: &[(&String, &Identity)],
) -> Step {
    let names = bootstrap.names(&own.name);
    let mut members = BTreeMap::from([(own.name.clone(), own.clone())]);
    for (address, identity) in empty {
        let name = &identity.member.name;
        if identity.forming != names {
            return Step::Wait(format!(
                "{address} ({name}) wants a cluster of {:?}, this node of {names:?}: make the lists agree",
                identity.forming
            ));
        }
        if identity.cluster.is_some() && identity.cluster != cluster {
            return Step::Wait(format!("{address} ({name}) was promised to a cluster already"));
        }
        let listed = peers.iter().find(|peer| peer.name == *name);
        let address = listed.map_or_else(|| (*address).clone(), |peer| peer.address.clone());
        let member = Member { address, ..identity.member.clone() };
        if members.insert(name.clone(), member).is_some() {
            return Step::Wait(format!("two nodes are called {name}"));
        }
    }
    let there: Vec<String> = members.keys().cloned().collect();
    if there != names {
        let missing: Vec<_> = names.iter().filter(|name| !members.contains_key(*name)).collect();
        return Step::Wait(format!("{missing:?} answer nowhere: check names and addresses"));
    }
    let all_storages: BTreeSet<_> = members.values().map(|member| member.storage).collect();
    if all_storages.len() < members.len() {
        return Step::Wait("two nodes have the same storage: one is a copy".to_owned());
    }
    match names.first() {
        Some(first) if *first == own.name => Step::Initialise(
            members.into_values().map(|member| (MemberId::of(member.storage), member)).collect(),
        ),
        Some(first) => Step::Wait(format!("everybody is there: {first} makes the cluster")),
        None => Step::Wait("nobody is listed".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str) -> Member {
        let storage = Uuid::from_u64_pair(name.bytes().map(u64::from).sum(), 0);
        Member { name: name.into(), address: format!("{name}:1"), storage, witness: false }
    }

    fn peers(names: &[&str]) -> Bootstrap {
        let peer = |name: &&str| Peer { name: (*name).to_owned(), address: format!("{name}:1") };
        Bootstrap::Peers(names.iter().map(peer).collect())
    }

    fn empty(name: &str) -> Result<Identity, String> {
        let forming = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
        Ok(Identity { member: member(name), forming, ..Identity::default() })
    }

    fn step(own: &str, answers: &[(&str, Result<Identity, String>)]) -> Step {
        let answers = answers.iter().map(|(name, answer)| (format!("{name}:1"), answer.clone())).collect();
        decide(&peers(&["a", "b", "c"]), &member(own), None, &answers)
    }

    #[test]
    fn the_first_by_name_makes_the_cluster_when_everybody_is_empty_and_agrees() {
        let answers = [("b", empty("b")), ("c", empty("c"))];
        let all = ["a", "b", "c"].map(|name| (MemberId::of(member(name).storage), member(name)));
        assert_eq!(step("a", &answers), Step::Initialise(all.into()));
        let Step::Wait(reason) = step("b", &[("a", empty("a")), ("c", empty("c"))]) else { panic!("waits") };
        assert!(reason.contains("a makes the cluster"), "{reason}");
    }

    #[test]
    fn a_list_with_or_without_this_node_means_the_same() {
        for listed in [&["a", "b", "c"][..], &["b", "c"]] {
            assert_eq!(peers(listed).names("a"), ["a", "b", "c"]);
            assert_eq!(peers(listed).addresses(&member("a")), ["b:1", "c:1"]);
        }
    }

    #[test]
    fn one_that_does_not_answer_is_waited_for() {
        let Step::Wait(reason) = step("a", &[("b", empty("b")), ("c", Err("unreachable".into()))]) else {
            panic!("waits")
        };
        assert!(reason.contains("c:1 (unreachable)"), "{reason}");
    }

    #[test]
    fn a_peer_with_a_cluster_is_joined_although_another_does_not_answer() {
        let mut joined = empty("b").expect("is one");
        joined.initialised = true;
        joined.cluster = Some(Uuid::from_u128(1));
        let answers = [("b", Ok(joined)), ("c", Err("unreachable".into()))];
        assert_eq!(step("a", &answers), Step::Join(vec!["b:1".into()]));
    }

    #[test]
    fn lists_that_disagree_and_names_that_are_not_there_form_nothing() {
        let mut other = empty("c").expect("is one");
        other.forming = vec!["c".into()];
        let Step::Wait(reason) = step("a", &[("b", empty("b")), ("c", Ok(other))]) else { panic!("waits") };
        assert!(reason.contains("make the lists agree"), "{reason}");
        let Step::Wait(reason) = step("a", &[("b", empty("b")), ("c", empty("b"))]) else { panic!("waits") };
        assert!(reason.contains("two nodes are called b"), "{reason}");
        let Step::Wait(reason) = step("a", &[("b", empty("b"))]) else { panic!("waits") };
        assert!(reason.contains("[\"c\"] answer nowhere"), "{reason}");
    }

    #[test]
    fn a_copied_disk_forms_nothing() {
        let mut copy = empty("c").expect("is one");
        copy.member.storage = member("b").storage;
        let Step::Wait(reason) = step("a", &[("b", empty("b")), ("c", Ok(copy))]) else { panic!("waits") };
        assert!(reason.contains("a copy"), "{reason}");
    }

    #[test]
    fn a_store_of_one_cluster_never_joins_another() {
        let mut joined = empty("b").expect("is one");
        joined.initialised = true;
        joined.cluster = Some(Uuid::from_u128(1));
        let answers = BTreeMap::from([("b:1".to_owned(), Ok(joined))]);
        let ours = Some(Uuid::from_u128(2));
        let Step::Wait(reason) = decide(&peers(&["a", "b"]), &member("a"), ours, &answers) else {
            panic!("waits")
        };
        assert!(reason.contains("another one"), "{reason}");
    }

    #[test]
    fn who_only_joins_never_forms() {
        let join = Bootstrap::Join(vec!["b:1".into()]);
        let answers = BTreeMap::from([("b:1".to_owned(), empty("b"))]);
        assert!(matches!(decide(&join, &member("a"), None, &answers), Step::Wait(_)));
    }

    #[test]
    fn a_sole_node_forms_a_cluster_of_one() {
        let own = member("a");
        let members = BTreeMap::from([(MemberId::of(own.storage), own.clone())]);
        assert_eq!(decide(&Bootstrap::Sole, &own, None, &BTreeMap::new()), Step::Initialise(members));
    }
}
