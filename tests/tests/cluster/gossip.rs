//! What an observer of all gossip hears of a cluster.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use baton_actors::p2p;
use baton_messages::chain::{P2pData, P2pSignedHeader};
use baton_messages::p2p::PeerId;
use baton_messages::types::{Hash, Height};
use baton_messages::wire::p2p::Service;
use baton_storage::memory::Keep;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sim::{Cluster, ClusterPlan, P2pNet, cluster_run, listed_seeds, name};

/// A cluster whose members gossip here.
fn gossiping(net: &P2pNet) -> ClusterPlan {
    let net = net.clone();
    let adjust = move |index: usize, wiring: &mut baton::wiring::Wiring| {
        let (id, signer) = (name(index), wiring.settings.da_submitter.signer.clone());
        wiring.parts.p2p = Some(net.join(&id));
        wiring.settings.p2p = Some(p2p::Config::new(PeerId::from(&*id), signer));
    };
    ClusterPlan { adjust: Some(Rc::new(adjust)), ..ClusterPlan::default() }
}

/// What anybody who hears everything has heard, whoever told it and however often.
#[derive(Debug, Default)]
struct Observer {
    headers: BTreeMap<Height, (Hash, PeerId)>,
    data: BTreeMap<Height, Hash>,
    messages: usize,
}

impl Observer {
    fn listen(&mut self, net: &P2pNet) {
        for (from, service, bytes) in net.published() {
            self.messages += 1;
            match service {
                Service::Headers => {
                    let signed = P2pSignedHeader::decode(&bytes).expect("members tell headers").signed;
                    signed.verify_signature().expect("P2: only what is signed is told");
                    let (height, hash) = (signed.header.height, signed.header.hash());
                    let (before, by) = self.headers.entry(height).or_insert((hash, from.clone()));
                    assert_eq!(*before, hash, "P1: {by} and {from} told two headers of height {height}");
                }
                Service::Data => {
                    let data = P2pData::decode(&bytes).expect("members tell data").data;
                    let height = data.metadata.as_ref().expect("they say of which height").height;
                    assert!(
                        self.headers.contains_key(&height),
                        "{from} told data {height} before the header"
                    );
                    let before = *self.data.entry(height).or_insert(data.hash());
                    assert_eq!(before, data.hash(), "P1: {from} told other data of height {height}");
                }
            }
        }
    }
}

#[test]
fn an_observer_of_all_gossip_sees_one_header_per_height_during_twenty_leader_kills() {
    listed_seeds("gossip::twenty_leader_kills", 3, |seed| {
        cluster_run(seed, |seed| {
            let (net, mut observer) = (P2pNet::new(seed), Observer::default());
            let mut chance = StdRng::seed_from_u64(seed);
            let mut cluster = Cluster::start_with(3, seed, gossiping(&net));
            for round in 0..20 {
                let leader = cluster.wait_for_leader();
                let height = cluster.heights().into_iter().max().expect("three").0;
                cluster.reach(height + 2);
                cluster.submit(leader, &format!("r{round}=v"));
                // At any moment of a block: proposed, committed, signed, told or not.
                cluster.pass(Duration::from_millis(chance.random_range(0..250)));
                let leader = cluster.leader().unwrap_or(leader);
                match round % 3 {
                    0 => cluster.crash(leader, Keep::None),
                    1 => cluster.crash(leader, Keep::Prefix(chance.random_range(0..4))),
                    _ => cluster.kill(leader),
                }
                observer.listen(&net);
                cluster.until("another leader", |cluster| cluster.leader().is_some_and(|now| now != leader));
                observer.listen(&net);
                cluster.pass(Duration::from_millis(chance.random_range(0..400)));
                cluster.restart(leader);
            }
            let height = cluster.heights().into_iter().max().expect("three").0;
            cluster.reach_everywhere(height + 5);
            observer.listen(&net);

            // What was told is the chain, and nothing of it was left out by those who died.
            let reader = cluster.reader(0);
            let last = *observer.headers.last_key_value().expect("blocks were told").0;
            assert!(last.0 > 60, "the chain has grown to {last} only");
            for height in (1..=last.0).map(Height) {
                let hash = reader.hash(height).expect("readable").expect("P1: told, so it is committed");
                let told = observer.headers.get(&height).map(|(hash, _)| *hash);
                assert_eq!(told, Some(hash), "P10: height {height} as it was told");
                assert!(observer.data.contains_key(&height), "data of height {height} were not told");
            }
            assert!(
                observer.messages as u64 > 2 * last.0,
                "new leaders tell again what may not have been told"
            );
            cluster.come_to_rest();
        });
    });
}
