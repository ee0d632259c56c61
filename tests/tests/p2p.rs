//! The peer-to-peer actor in virtual time: what it tells, whom it believes, what it gives away, and
//! what hostile peers get out of it.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr};
use baton_actors::p2p::network::AskFailure;
use baton_actors::p2p::{Config, Links, Metrics, P2p};
use baton_actors::world::{Clock, World};
use baton_messages::chain::{Block, LegacyHeaderFields, P2pData, P2pSignedHeader, SignedHeader};
use baton_messages::command::{Command, HeaderSignature};
use baton_messages::p2p::{
    FetchByHash, FetchData, FetchError, FetchHead, FetchHeaders, GetNetInfo, Gossiped, Item, NotPublished,
    Offence, PeerChanged, PeerId, PublishBlock, PublishTail, ReportPeer, Verdict,
};
use baton_messages::raft::LeadershipChanged;
use baton_messages::types::{Grant, Height, Role, Term, Timestamp, Tx};
use baton_messages::wire::exchange::{HeaderRequest, HeaderResponse};
use baton_messages::wire::p2p::{MAX_PUBSUB_RPC, MAX_TXS, Service};
use bytes::Bytes;
use sim::{GRANT, P2pNet, Probe, SimClock, Stage, probe, root_of, seeds, sim_run};
use tokio::time::Instant;

const NOW: Timestamp = Timestamp(1_700_000_100_000_000_000);

/// A node: its chain, which it signs for real, and the actor over it.
struct Node {
    stage: Stage,
    p2p: Addr<P2p>,
    metrics: Metrics,
    gossiped: Probe<Gossiped>,
    changes: Probe<PeerChanged>,
}

fn world() -> World {
    let clock: Arc<dyn Clock> = Arc::new(SimClock::showing(NOW));
    World::new(clock, 1)
}

impl Node {
    /// A member, which judges by its own store.
    fn member(net: &P2pNet, id: &str, blocks: u64) -> Self {
        Self::start(net, id, blocks, false, |config| config)
    }

    /// A node whose syncer accepts everything that reaches it.
    fn follower(net: &P2pNet, id: &str) -> Self {
        Self::start(net, id, 0, true, |config| config)
    }

    fn start(
        net: &P2pNet,
        id: &str,
        blocks: u64,
        follows: bool,
        adjust: impl FnOnce(Config) -> Config,
    ) -> Self {
        let stage = Stage::new();
        for _ in 0..blocks {
            grow(&stage);
        }
        let (gossiped_link, gossiped) = probe(|_: &Gossiped| Verdict::Accept);
        let (changes_link, changes) = probe(|_: &PeerChanged| ());
        let links =
            Links { gossiped: follows.then_some(gossiped_link), peers: vec![changes_link], members: None };
        let mut config = Config::new(PeerId::from(id), stage.signer());
        config.discover_every = Duration::from_secs(3600);
        let metrics = Metrics::default();
        let parts = net.join(id);
        let p2p = P2p::new(adjust(config), links, metrics.clone(), world(), stage.reader(), parts).start();
        Self { stage, p2p, metrics, gossiped, changes }
    }

    fn signed(&self, height: u64) -> SignedHeader {
        signed(&self.stage, height)
    }

    fn publish(&self, grant: Grant, height: u64) -> PublishBlock {
        let block = block(&self.stage, height);
        PublishBlock { grant, signed: Arc::new(self.signed(height)), block }
    }
}

fn block(stage: &Stage, height: u64) -> Arc<Block> {
    stage.reader().block(Height(height)).expect("readable").expect("committed")
}

fn signed(stage: &Stage, height: u64) -> SignedHeader {
    stage.reader().signed_header(Height(height), &stage.signer()).expect("readable").expect("signed")
}

/// One block more, with its real signature.
fn grow(stage: &Stage) {
    stage.grow(1);
    let block = block(stage, stage.tip().height.0);
    let signature = stage.machine.sign(&block.header().encode());
    stage.apply(Command::Signature(HeaderSignature {
        height: block.height(),
        hash: block.hash(),
        signature,
    }));
}

fn header_item(stage: &Stage, height: u64) -> P2pSignedHeader {
    P2pSignedHeader { signed: signed(stage, height), da_height_hint: 0 }
}

fn data_item(stage: &Stage, height: u64) -> P2pData {
    P2pData { data: block(stage, height).data().clone(), da_height_hint: 0 }
}

async fn pass(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

/// Answers as an honest peer with this chain.
fn honest(stage: &Stage, service: Service, request: &HeaderRequest) -> Vec<HeaderResponse> {
    let newest = stage.tip().height.0;
    let (from, count) = match request {
        HeaderRequest::Head => (newest, 1),
        HeaderRequest::Range { from, amount } => (from.0, *amount),
        HeaderRequest::ByHash(_) => return vec![HeaderResponse::not_found()],
    };
    let item = |height| match service {
        Service::Headers => header_item(stage, height).encode(),
        Service::Data => data_item(stage, height).encode(),
    };
    let items: Vec<_> = (from..from + count)
        .filter(|height| *height <= newest)
        .map(|height| HeaderResponse::item(item(height).into()))
        .collect();
    if items.is_empty() { vec![HeaderResponse::not_found()] } else { items }
}

/// The answers of an honest peer, computed before: scripts are not bound to a thread.
fn library(
    stage: &Stage,
    up_to: u64,
) -> impl Fn(Service, &HeaderRequest) -> Vec<HeaderResponse> + Send + 'static {
    let all = |service| {
        let request = HeaderRequest::Range { from: Height(1), amount: up_to };
        honest(stage, service, &request)
    };
    let (headers, data) = (all(Service::Headers), all(Service::Data));
    move |service, request| {
        let all = match service {
            Service::Headers => &headers,
            Service::Data => &data,
        };
        let HeaderRequest::Range { from, amount } = request else {
            return all.last().cloned().into_iter().collect();
        };
        let skip = usize::try_from(from.0 - 1).expect("small");
        let items: Vec<_> =
            all.iter().skip(skip).take(usize::try_from(*amount).expect("small")).cloned().collect();
        if items.is_empty() { vec![HeaderResponse::not_found()] } else { items }
    }
}

#[test]
fn a_block_is_told_header_first_and_only_once_it_stands() {
    sim_run(1, || async {
        let net = P2pNet::new(1);
        let leader = Node::member(&net, "leader", 3);
        let told = leader.p2p.send(leader.publish(GRANT, 3)).await.expect("it runs");
        assert_eq!(told, Ok(()));
        pass(10).await;
        let published = net.published();
        // The two before may not have been told by the leader before.
        let heights: Vec<_> = published
            .iter()
            .map(|(_, service, bytes)| match service {
                Service::Headers => {
                    ("header", P2pSignedHeader::decode(bytes).expect("ours").signed.header.height.0)
                }
                Service::Data => {
                    ("data", P2pData::decode(bytes).expect("ours").data.metadata.expect("has").height.0)
                }
            })
            .collect();
        assert_eq!(
            heights,
            [("header", 1), ("data", 1), ("header", 2), ("data", 2), ("header", 3), ("data", 3)]
        );

        let other = leader.stage.next_block(&root_of(Height(3)), &["not=committed"]);
        let foreign = PublishBlock { grant: GRANT, signed: Arc::new(leader.signed(3)), block: other };
        let refused = leader.p2p.send(foreign).await.expect("it runs");
        assert!(matches!(refused, Err(NotPublished::NotCommitted { height: Height(4), .. })));
        pass(10).await;
        assert_eq!(net.published(), []);
    });
}

#[test]
fn a_leader_of_an_old_term_tells_nothing() {
    sim_run(2, || async {
        let net = P2pNet::new(2);
        let node = Node::member(&net, "node", 2);
        let changed = LeadershipChanged { term: Term(5), role: Role::Follower, leader: None };
        node.p2p.send(changed).await.expect("it runs");
        let old = Grant { term: Term(4) };
        let told = node.p2p.send(node.publish(old, 2)).await.expect("it runs");
        assert_eq!(told, Err(NotPublished::StaleGrant { grant: old, term: Term(5) }));
        let tail = node.p2p.send(PublishTail { grant: old }).await.expect("it runs");
        assert_eq!(tail, Err(NotPublished::StaleGrant { grant: old, term: Term(5) }));
        pass(10).await;
        assert_eq!(net.published(), []);
        assert_eq!(
            node.p2p.send(PublishTail { grant: Grant { term: Term(5) } }).await.expect("it runs"),
            Ok(())
        );
        pass(10).await;
        assert_eq!(net.published().len(), 2, "height 1: that 2 was executed is not known");
    });
}

#[test]
fn what_a_leader_tells_reaches_a_follower_through_another_member() {
    seeds(0..5, |seed| {
        sim_run(seed, move || async move {
            let net = P2pNet::new(seed);
            let leader = Node::member(&net, "leader", 5);
            let _member = Node::member(&net, "member", 3);
            let follower = Node::follower(&net, "follower");
            net.connect("leader", "member");
            net.connect("member", "follower");
            pass(100).await;
            for height in 1..=5 {
                assert_eq!(leader.p2p.send(leader.publish(GRANT, height)).await.expect("it runs"), Ok(()));
                pass(100).await;
            }
            pass(1000).await;
            let heard: Vec<_> = follower
                .gossiped
                .take()
                .iter()
                .map(|heard| (heard.item.service(), heard.item.height().0))
                .collect();
            for height in 1..=5 {
                assert!(heard.contains(&(Service::Headers, height)), "{height}: {heard:?}");
                assert!(heard.contains(&(Service::Data, height)), "{height}: {heard:?}");
            }
            assert_eq!(heard.len(), 10, "nothing comes twice: {heard:?}");
            assert_eq!(net.bans(), []);
        });
    });
}

#[test]
fn a_range_comes_from_several_peers_and_is_whole() {
    seeds(0..5, |seed| {
        sim_run(seed, move || async move {
            let net = P2pNet::new(seed);
            let chain = Stage::new();
            (0..300).for_each(|_| grow(&chain));
            for name in ["a", "b", "c"] {
                let answers = library(&chain, 300);
                net.script(name, move |service, request| {
                    Some((Duration::from_millis(30), Ok(answers(service, request))))
                });
            }
            let follower = Node::follower(&net, "follower");
            for name in ["a", "b", "c"] {
                net.connect("follower", name);
            }
            pass(100).await;
            assert_eq!(follower.changes.take().last().map(|change| change.serving), Some(3));
            let asked = follower.p2p.send(FetchHeaders { from: Height(1), count: 1000 });
            let headers = asked.await.expect("it runs").expect("there are peers");
            let heights: Vec<_> = headers.iter().map(|given| given.item.signed.header.height.0).collect();
            assert_eq!(heights, (1..=300).collect::<Vec<_>>());
            let mut givers: Vec<_> = headers.iter().map(|given| given.peer.to_string()).collect();
            givers.dedup();
            assert!(givers.len() > 2, "{givers:?}");
            let asked = follower.p2p.send(FetchData { from: Height(250), count: 20 });
            let data = asked.await.expect("it runs").expect("there are peers");
            assert_eq!(data.len(), 20);
            let head = follower.p2p.send(FetchHead).await.expect("it runs").expect("there are peers");
            assert_eq!(head[0].item.signed.header.height, Height(300));
        });
    });
}

/// One honest peer among those who lie, are silent, or have nothing.
#[test]
fn one_honest_peer_among_hostile_ones_is_enough() {
    seeds(0..5, |seed| {
        sim_run(seed, move || async move {
            let net = P2pNet::new(seed);
            let chain = Stage::new();
            (0..200).for_each(|_| grow(&chain));
            let soon = Duration::from_millis(5);
            let answers = library(&chain, 200);
            net.script("honest", move |service, request| {
                Some((Duration::from_millis(200), Ok(answers(service, request))))
            });
            let garbage = HeaderResponse::item(Bytes::from_static(b"garbage"));
            net.script("garbage", move |_, _| Some((soon, Ok(vec![garbage.clone()]))));
            let answers = library(&chain, 200);
            net.script("gaps", move |service, request| {
                let mut items = answers(service, request);
                if items.len() > 2 {
                    items.remove(1);
                }
                Some((soon, Ok(items)))
            });
            let answers = library(&chain, 200);
            net.script("siblings", move |service, request| {
                let mut items = answers(service, request);
                if service == Service::Headers && items.len() > 1 {
                    let mut sibling = P2pSignedHeader::decode(&items[0].body).expect("a header");
                    sibling.signed.header.validator_hash = Bytes::from_static(b"sibling");
                    items[0] = HeaderResponse::item(sibling.encode().into());
                }
                Some((soon, Ok(items)))
            });
            let answers = library(&chain, 200);
            net.script("foreign", move |service, request| {
                let foreign = |item: &HeaderResponse| {
                    let mut header = P2pSignedHeader::decode(&item.body).unwrap_or_default();
                    header.signed.header.chain_id = "another".to_owned();
                    HeaderResponse::item(header.encode().into())
                };
                Some((soon, Ok(answers(service, request).iter().map(foreign).collect())))
            });
            net.script("silent", |_, _| None);
            net.script("nothing", move |_, _| Some((soon, Ok(vec![HeaderResponse::not_found()]))));
            net.script("broken", move |_, _| Some((soon, Err(AskFailure::Malformed("junk".to_owned())))));
            let hostile = ["garbage", "gaps", "siblings", "foreign", "silent", "nothing", "broken"];
            let follower = Node::follower(&net, "follower");
            for name in hostile.iter().chain(&["honest"]) {
                net.connect("follower", name);
            }
            pass(100).await;
            let mut next = 1;
            for _ in 0..40 {
                let asked = follower.p2p.send(FetchHeaders { from: Height(next), count: 200 }).await;
                if let Ok(Ok(headers)) = asked {
                    for given in headers {
                        // What one peer gives in one answer is linked: a sibling at its beginning shows
                        // to whoever knows the block before.
                        let header = &given.item.signed;
                        if header.validate(NOW).is_err() {
                            let reason = "a forged header".to_owned();
                            follower.p2p.do_send(ReportPeer {
                                peer: given.peer,
                                offence: Offence::Lie,
                                reason,
                            });
                            break;
                        }
                        assert_eq!(header.header.height, Height(next));
                        next += 1;
                    }
                }
                if next > 200 {
                    break;
                }
            }
            assert_eq!(next, 201, "the honest peer's chain is followed to its end");
            let banned: Vec<_> = net.bans().into_iter().map(|(_, whom)| whom.to_string()).collect();
            assert!(!banned.contains(&"honest".to_owned()), "{banned:?}");
            for liar in ["garbage", "gaps", "foreign", "broken"] {
                assert!(banned.contains(&liar.to_owned()), "{liar} is not among {banned:?}");
            }
            for harmless in ["silent", "nothing"] {
                assert!(!banned.contains(&harmless.to_owned()), "{harmless} is among {banned:?}");
            }
        });
    });
}

/// More than was asked for, of a chain that is right: it would be of no use, and asked for for ever.
#[test]
fn who_answers_with_more_than_was_asked_for_is_banned_and_somebody_else_asked() {
    sim_run(18, || async {
        let net = P2pNet::new(18);
        let chain = Stage::new();
        (0..64).for_each(|_| grow(&chain));
        let soon = Duration::from_millis(1);
        let answers = library(&chain, 64);
        net.script("greedy", move |service, _| {
            let all = HeaderRequest::Range { from: Height(1), amount: 64 };
            Some((soon, Ok(answers(service, &all))))
        });
        let answers = library(&chain, 64);
        net.script("honest", move |service, request| {
            Some((Duration::from_millis(500), Ok(answers(service, request))))
        });
        let follower = Node::follower(&net, "follower");
        net.connect("follower", "greedy");
        pass(100).await;
        let asked = follower.p2p.send(FetchHeaders { from: Height(1), count: 10 });
        pass(100).await;
        net.connect("follower", "honest");
        let refused = asked.await.expect("it runs");
        assert!(refused.is_err(), "nobody else was there");
        pass(50).await;
        let began = Instant::now();
        let asked = follower.p2p.send(FetchHeaders { from: Height(1), count: 10 });
        assert_eq!(asked.await.expect("it runs").expect("one is honest").len(), 10);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert_eq!(net.bans(), [(PeerId::from("follower"), PeerId::from("greedy"))]);
    });
}

#[test]
fn hostile_gossip_is_not_forwarded_and_its_sender_is_banned() {
    sim_run(3, || async {
        let net = P2pNet::new(3);
        let member = Node::member(&net, "member", 3);
        type Attack = fn(&Stage) -> (Service, Bytes);
        let attacks: [(&str, Attack); 4] = [
            ("garbage", |_| (Service::Headers, Bytes::from_static(b"garbage"))),
            ("foreign", |stage| {
                let mut header = header_item(stage, 2);
                header.signed.header.chain_id = "another".to_owned();
                (Service::Headers, header.encode().into())
            }),
            ("forger", |stage| {
                let mut header = header_item(stage, 2);
                header.signed.header.time = header.signed.header.time.next();
                (Service::Headers, header.encode().into())
            }),
            ("substitute", |stage| {
                let mut data = data_item(stage, 2);
                data.data.txs.push(sim::tx("stolen=1"));
                (Service::Data, data.encode().into())
            }),
        ];
        net.script("bystander", |_, _| None);
        net.connect("member", "bystander");
        for (name, attack) in attacks {
            net.script(name, |_, _| None);
            net.connect("member", name);
            pass(50).await;
            for _ in 0..4 {
                let (service, bytes) = attack(&member.stage);
                net.gossip(name, "member", service, bytes);
                pass(50).await;
            }
            let verdicts = net.verdicts();
            assert!(verdicts.len() >= 4, "{name}: {verdicts:?}");
            assert!(verdicts.iter().all(|(.., verdict)| *verdict == Verdict::Reject), "{name}: {verdicts:?}");
            assert!(net.bans().contains(&(PeerId::from("member"), PeerId::from(name))), "{name}");
        }
        // It still does what it is for.
        net.script("friend", |_, _| None);
        net.connect("member", "friend");
        pass(50).await;
        net.gossip("friend", "member", Service::Headers, header_item(&member.stage, 3).encode());
        pass(50).await;
        assert_eq!(net.verdicts(), [(PeerId::from("friend"), Service::Headers, Verdict::Accept)]);
    });
}

/// ev-node's nodes forward headers without looking at their signatures, and data without their
/// headers.
#[test]
fn who_forwards_what_ev_node_cannot_see_is_wrong_is_not_to_blame_and_its_publisher_is() {
    sim_run(16, || async {
        let net = P2pNet::new(16);
        let member = Node::member(&net, "member", 3);
        for name in ["relay", "forger"] {
            net.script(name, |_, _| None);
            net.connect("member", name);
        }
        pass(50).await;
        let mut forged = header_item(&member.stage, 2);
        forged.signed.header.validator_hash = Bytes::from_static(b"forged");
        let mut stolen = data_item(&member.stage, 2);
        stolen.data.txs.push(sim::tx("stolen=1"));
        let mut padded = header_item(&member.stage, 2);
        padded.signed.signer.pub_key = [&padded.signed.signer.pub_key[..], &[0x1a, 1, 0]].concat().into();
        let wrong = [
            (Service::Headers, forged.encode()),
            (Service::Data, stolen.encode()),
            (Service::Headers, padded.encode()),
            (Service::Headers, forged.encode()),
        ];
        for (service, bytes) in wrong.iter().cycle().take(20).cloned() {
            net.relay("stranger", "relay", "member", service, bytes);
            pass(20).await;
        }
        assert_eq!(net.verdicts().len(), 20);
        for (service, bytes) in wrong {
            net.relay("forger", "relay", "member", service, bytes);
            pass(50).await;
        }
        assert!(net.verdicts().iter().all(|(.., verdict)| *verdict == Verdict::Reject));
        assert_eq!(net.bans(), [(PeerId::from("member"), PeerId::from("forger"))]);
        let info = member.p2p.send(GetNetInfo).await.expect("it runs");
        assert_eq!(info.peers.iter().map(|peer| peer.score).collect::<Vec<_>>(), [0], "{info:?}");
        // What every node looks at before it forwards anything is the forwarder's fault.
        for _ in 0..4 {
            net.relay("stranger", "relay", "member", Service::Headers, Bytes::from_static(b"garbage"));
            pass(50).await;
        }
        assert!(net.bans().contains(&(PeerId::from("member"), PeerId::from("relay"))));
    });
}

/// A publisher is a key that anybody makes, so nobody is hurt by what is held against it.
#[test]
fn what_is_forged_under_ever_new_names_is_looked_at_a_bounded_number_of_times() {
    sim_run(18, || async {
        let net = P2pNet::new(18);
        let member = Node::member(&net, "member", 3);
        for name in ["relay", "friend"] {
            net.script(name, |_, _| None);
            net.connect("member", name);
        }
        pass(50).await;
        let forge = |number: u32| {
            let mut forged = header_item(&member.stage, 2);
            forged.signed.header.validator_hash = Bytes::copy_from_slice(&number.to_be_bytes());
            net.relay(&format!("name {number}"), "relay", "member", Service::Headers, forged.encode());
        };
        for number in 0..1_000 {
            forge(number);
        }
        pass(50).await;
        let verdicts = net.verdicts();
        let rejected = verdicts.iter().filter(|(.., verdict)| *verdict == Verdict::Reject).count();
        assert_eq!(verdicts.len(), 1_000);
        assert!((200..=202).contains(&rejected), "{rejected} were looked at");
        net.gossip("friend", "member", Service::Headers, header_item(&member.stage, 3).encode());
        pass(50).await;
        let accepted = (PeerId::from("friend"), Service::Headers, Verdict::Accept);
        assert_eq!(net.verdicts(), [accepted], "others are heard");
        // Whoever forwarded it may be a node of ev-node: it is not blamed, and heard again.
        let info = member.p2p.send(GetNetInfo).await.expect("it runs");
        assert!(info.peers.iter().all(|peer| peer.score >= 0), "{info:?}");
        assert_eq!(net.bans(), []);
        pass(1_000).await;
        net.gossip("relay", "member", Service::Data, data_item(&member.stage, 3).encode());
        pass(50).await;
        assert_eq!(net.verdicts(), [(PeerId::from("relay"), Service::Data, Verdict::Accept)]);
    });
}

/// ev-node's nodes publish without looking at the size, and reset the stream when more comes.
#[test]
fn a_message_without_room_for_its_envelope_is_not_forwarded_and_nobody_is_to_blame() {
    sim_run(17, || async {
        let net = P2pNet::new(17);
        let member = Node::member(&net, "member", 3);
        for name in ["peer", "bystander"] {
            net.script(name, |_, _| None);
            net.connect("member", name);
        }
        pass(50).await;
        let mut data = data_item(&member.stage, 3);
        let rest = data.encode().len() + 1000;
        data.data.txs.push(Tx(vec![0; MAX_PUBSUB_RPC - rest].into()));
        let whole = data.encode();
        assert!(whole.len() < MAX_PUBSUB_RPC);
        for bytes in [whole, vec![0; MAX_PUBSUB_RPC], vec![0; MAX_PUBSUB_RPC + 1]] {
            net.gossip("peer", "member", Service::Data, bytes);
            pass(50).await;
            assert_eq!(net.verdicts(), [(PeerId::from("peer"), Service::Data, Verdict::Ignore)]);
        }
        let info = member.p2p.send(GetNetInfo).await.expect("it runs");
        assert!(info.peers.iter().all(|peer| peer.score == 0), "{info:?}");
    });
}

#[test]
fn heights_and_places_at_the_end_of_all_numbers_are_as_good_as_any() {
    sim_run(19, || async {
        let net = P2pNet::new(19);
        let member = Node::member(&net, "member", 100);
        net.script("peer", |_, _| None);
        net.connect("member", "peer");
        pass(50).await;
        let mut data = data_item(&member.stage, 3);
        for height in [u64::MAX, u64::MAX - 1, u64::MAX - 64] {
            data.data.metadata.as_mut().expect("it has some").height = Height(height);
            data.da_height_hint = u64::MAX;
            net.gossip("peer", "member", Service::Data, data.encode());
            pass(50).await;
            assert_eq!(net.verdicts(), [(PeerId::from("peer"), Service::Data, Verdict::Ignore)]);
            let range = HeaderRequest::Range { from: Height(height), amount: 64 };
            net.ask("peer", "member", Service::Data, range);
        }
        pass(50).await;
        assert!(member.p2p.send(GetNetInfo).await.is_ok(), "it runs");
        assert_eq!(Height(u64::MAX).next(), Height(u64::MAX));
    });
}

#[test]
fn two_headers_of_one_height_by_the_sequencers_key_are_a_fork_that_a_person_hears_of() {
    sim_run(4, || async {
        let net = P2pNet::new(4);
        let member = Node::member(&net, "member", 3);
        net.script("peer", |_, _| None);
        net.connect("member", "peer");
        pass(50).await;
        let mut sibling = header_item(&member.stage, 3);
        sibling.signed.header.validator_hash = Bytes::from_static(b"sibling");
        sibling.signed.signature = member.stage.machine.sign(&sibling.signed.header.encode());
        net.gossip("peer", "member", Service::Headers, sibling.encode());
        pass(50).await;
        assert_eq!(net.verdicts(), [(PeerId::from("peer"), Service::Headers, Verdict::Reject)]);
        assert_eq!(member.metrics.forks.get(), 1);
    });
}

/// Each message that a member forwards goes to every peer: what came once does not go out again
/// because somebody says it in other words.
#[test]
fn a_header_is_forwarded_once_however_often_it_comes_in_other_words() {
    sim_run(14, || async {
        let net = P2pNet::new(14);
        let member = Node::member(&net, "member", 3);
        for name in ["peer", "padder"] {
            net.script(name, |_, _| None);
            net.connect("member", name);
        }
        pass(50).await;
        let mut old = header_item(&member.stage, 3).signed;
        old.header.height = Height(4);
        let legacy = old.header.legacy.insert(LegacyHeaderFields::default());
        legacy.last_commit_hash = Bytes::from_static(&[7; 32]);
        old.signature = member.stage.machine.sign(&old.header.legacy_payload());
        let mut same = old.clone();
        // What a missing one stands for: hash and signature are the same.
        same.header.legacy.as_mut().expect("it has them").consensus_hash = Bytes::from_static(&[0; 32]);
        assert_eq!(same.header.hash(), old.header.hash());
        let mut verdicts = vec![];
        for signed in [old.clone(), same] {
            let item = P2pSignedHeader { signed, da_height_hint: 0 };
            net.gossip("peer", "member", Service::Headers, item.encode());
            pass(50).await;
            verdicts.extend(net.verdicts().into_iter().map(|(.., verdict)| verdict));
        }
        assert_eq!(verdicts, [Verdict::Accept, Verdict::Ignore]);
        let mut padded = old;
        padded.signer.pub_key = [&padded.signer.pub_key[..], &[0x1a, 1, 0]].concat().into();
        let item = P2pSignedHeader { signed: padded, da_height_hint: 0 };
        net.gossip("padder", "member", Service::Headers, item.encode());
        pass(50).await;
        assert_eq!(net.verdicts(), [(PeerId::from("padder"), Service::Headers, Verdict::Reject)]);
    });
}

#[test]
fn data_that_wait_for_their_header_take_a_bounded_amount_of_memory() {
    sim_run(15, || async {
        let net = P2pNet::new(15);
        let member = Node::member(&net, "member", 3);
        net.script("peer", |_, _| None);
        net.connect("member", "peer");
        pass(50).await;
        let mut data = data_item(&member.stage, 3);
        data.data.txs = vec![Tx(Bytes::new()); MAX_TXS];
        for height in [4, 5, 6] {
            data.data.metadata.as_mut().expect("it has some").height = Height(height);
            net.gossip("peer", "member", Service::Data, data.encode());
            pass(50).await;
        }
        assert_eq!(net.verdicts().len(), 2, "one takes 8 MB: there is no room for two more");
        pass(6000).await;
        let verdicts = net.verdicts();
        assert_eq!(
            verdicts,
            [(PeerId::from("peer"), Service::Data, Verdict::Ignore)],
            "its header did not come"
        );
    });
}

#[test]
fn a_flood_is_ignored_beyond_the_rate_and_takes_nothing_from_others() {
    sim_run(5, || async {
        let net = P2pNet::new(5);
        let follower = Node::follower(&net, "follower");
        let chain = Stage::new();
        grow(&chain);
        for name in ["flood", "friend"] {
            net.script(name, |_, _| None);
            net.connect("follower", name);
        }
        pass(50).await;
        let bytes = Bytes::from(header_item(&chain, 1).encode());
        for _ in 0..12 {
            for _ in 0..900 {
                net.gossip("flood", "follower", Service::Headers, bytes.clone());
            }
            pass(50).await;
        }
        net.gossip("friend", "follower", Service::Data, data_item(&chain, 1).encode());
        pass(200).await;
        let heard = follower.gossiped.take();
        assert_eq!(heard.len(), 2, "copies are not asked about, and a friend is heard");
        let info = follower.p2p.send(GetNetInfo).await.expect("it runs");
        let score = |name: &str| info.peers.iter().find(|peer| &*peer.id.0 == name).expect("connected").score;
        assert!(score("flood") < 0 && score("friend") > 0, "{info:?}");
    });
}

#[test]
fn history_is_given_away_up_to_what_is_known_to_be_executed() {
    sim_run(6, || async {
        let net = P2pNet::new(6);
        let server = Node::member(&net, "server", 100);
        let follower = Node::follower(&net, "follower");
        net.connect("follower", "server");
        pass(100).await;
        let headers = follower.p2p.send(FetchHeaders { from: Height(1), count: 200 });
        let headers = headers.await.expect("it runs").expect("the server has them");
        assert_eq!(headers.len(), 99, "nobody here has executed the tip");
        let publish = server.publish(GRANT, 100);
        assert_eq!(server.p2p.send(publish).await.expect("it runs"), Ok(()));
        let head = follower.p2p.send(FetchHead).await.expect("it runs").expect("the server has it");
        assert_eq!(head[0].item.signed, server.signed(100));

        let hash = block(&server.stage, 7).hash().to_bytes();
        let by_hash = FetchByHash { service: Service::Headers, hash };
        let found = follower.p2p.send(by_hash).await.expect("it runs").expect("it is there");
        assert_eq!(found.1, Item::Header(Arc::new(header_item(&server.stage, 7))));
        for height in [99, 100] {
            let hash = block(&server.stage, height).data().hash().to_bytes();
            let found =
                follower.p2p.send(FetchByHash { service: Service::Data, hash }).await.expect("it runs");
            assert_eq!(found.expect("it is there").1.height(), Height(height));
        }
        let unknown = FetchByHash { service: Service::Data, hash: Bytes::from(vec![7; 32]) };
        let found = follower.p2p.send(unknown).await.expect("it runs");
        assert_eq!(found, Err(FetchError::NotFound { asked: 1 }));
    });
}

#[test]
fn questions_that_nobody_honest_asks_are_reset() {
    sim_run(7, || async {
        let net = P2pNet::new(7);
        let server = Node::member(&net, "server", 10);
        net.script("peer", |_, _| None);
        net.connect("server", "peer");
        pass(50).await;
        for amount in [0, 65, u64::MAX] {
            let request = HeaderRequest::Range { from: Height(5), amount };
            net.ask("peer", "server", Service::Headers, request);
        }
        net.ask("peer", "server", Service::Data, HeaderRequest::Range { from: Height(u64::MAX), amount: 2 });
        net.ask("peer", "server", Service::Data, HeaderRequest::ByHash(Bytes::from_static(b"short")));
        pass(100).await;
        let refused =
            |service| server.metrics.refused.get_or_create(&baton_actors::p2p::metrics::Of { service }).get();
        assert_eq!((refused("headers"), refused("data")), (3, 1));
    });
}

#[test]
fn without_peers_and_with_too_many_requests_the_answer_says_so() {
    sim_run(8, || async {
        let net = P2pNet::new(8);
        let follower = Node::start(&net, "follower", 0, true, |config| Config { max_fetches: 2, ..config });
        let asked = || follower.p2p.send(FetchHeaders { from: Height(1), count: 10 });
        assert_eq!(asked().await.expect("it runs"), Err(FetchError::NoPeers));
        assert_eq!(follower.p2p.send(FetchHead).await.expect("it runs"), Err(FetchError::NoPeers));
        net.script("silent", |_, _| None);
        net.connect("follower", "silent");
        pass(50).await;
        let (one, two, three) = futures::join!(asked(), asked(), asked());
        let answers = [one, two, three].map(|answer| answer.expect("it runs"));
        assert_eq!(answers[2], Err(FetchError::Busy { limit: 2 }));
        assert!(
            answers[..2].iter().all(|answer| matches!(answer, Err(FetchError::Failed(_)))),
            "{answers:?}"
        );
    });
}

#[test]
fn a_configured_peer_is_dialled_until_it_is_there_and_again_when_it_is_gone() {
    sim_run(9, || async {
        let net = P2pNet::new(9);
        let seed = (PeerId::from("seed"), "/memory/1/p2p/seed".to_owned());
        let node = Node::start(&net, "node", 0, true, |config| Config { seeds: vec![seed], ..config });
        pass(10_000).await;
        let tries = net.dialled().len();
        assert!((3..=5).contains(&tries), "{tries} dials in ten seconds");
        let view = node.p2p.send(GetNetInfo).await.expect("it runs");
        assert_eq!(view.waiting_for, ["/memory/1/p2p/seed"]);
        net.script("seed", |_, _| None);
        pass(31_000).await;
        let view = node.p2p.send(GetNetInfo).await.expect("it runs");
        assert_eq!((view.peers.len(), view.waiting_for.len()), (1, 0));
        net.disconnect("node", "seed");
        pass(2_000).await;
        assert_eq!(node.p2p.send(GetNetInfo).await.expect("it runs").peers.len(), 1);
    });
}

#[test]
fn a_blocked_peer_is_turned_away() {
    sim_run(10, || async {
        let net = P2pNet::new(10);
        let blocked = [PeerId::from("bad")].into();
        let node = Node::start(&net, "node", 0, true, |config| Config { blocked, ..config });
        net.script("bad", |_, _| None);
        net.connect("node", "bad");
        pass(1000).await;
        assert_eq!(node.p2p.send(GetNetInfo).await.expect("it runs").peers, []);
        assert!(net.bans().contains(&(PeerId::from("node"), PeerId::from("bad"))));
    });
}
