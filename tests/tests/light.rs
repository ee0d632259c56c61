//! Light nodes in virtual time: they keep headers, believe nobody but the proposer's signature, and stop
//! when the proposer contradicts itself.

use std::sync::Arc;
use std::time::Duration;

use baton_actors::p2p;
use baton_actors::signer::key::Key;
use baton_actors::syncer::candidates::Limits;
use baton_messages::chain::{DaHeaderEnvelope, Header, SignedHeader};
use baton_messages::da::{Blob, Namespace};
use baton_messages::follow::{Candidate, Judged, Offer, Origin, Piece, Taken};
use baton_messages::p2p::{Gossiped, Item, PeerId, Verdict};
use baton_messages::types::{Height, Timestamp};
use baton_messages::wire::p2p::Service;
use baton_storage::Reader;
use baton_storage::memory::Keep;
use bytes::Bytes;
use sim::{
    Adjust, Cut, FollowPlan, FollowingNode, Machine, Neighbours, Node, P2pNet, Plan, Power, check_chain,
    listed_seeds, sim_run,
};

/// A machine whose node made so many blocks, with transactions in every third, all on DA.
fn produced(seed: u64, blocks: u64) -> Machine {
    let machine = Machine::new(seed);
    let made = machine.clone();
    sim_run(seed, move || async move {
        let node = Node::start(&Plan::on(made, Power::default()));
        for number in 0..blocks / 3 {
            node.submit(&format!("k{number}=v")).await.expect("accepted");
            node.reach(number * 3).await;
        }
        node.reach(blocks).await;
        node.drain().await;
    });
    check_chain(&machine);
    machine
}

/// A light node that nobody gives anything.
fn light(machine: &Machine) -> FollowPlan {
    FollowPlan { light: true, reads_da: false, ..FollowPlan::on(machine.clone(), Power::default()) }
}

/// The same headers, signed, at every height up to the tip, and no data at any.
fn check_headers(light: &Machine, producer: &Machine) -> Height {
    light.disk.set_hook(None);
    let (ours, theirs) = (light.open().reader(), producer.open().reader());
    assert!(ours.is_headers_only());
    let signer = ours.follow().expect("it follows").signer;
    for height in (ours.initial_height().0..=ours.tip().height.0).map(Height) {
        let signed =
            ours.signed_header(height, &signer).expect("readable").expect("no gap, every one signed");
        signed.verify_signature().expect("only signed headers are followed");
        assert_eq!(Some(signed.header.hash()), theirs.hash(height).expect("readable"), "P1: at {height}");
        assert_eq!(ours.block(height).expect("readable"), None, "a light node has no bodies");
    }
    assert_eq!(ours.evidence(), [], "nobody signed two chains");
    assert!(ours.da_progress().included < ours.initial_height(), "it says of nothing that it is final");
    ours.tip().height
}

fn newest_signed(reader: &Reader) -> Height {
    reader.tip().height.previous()
}

#[test]
fn a_light_node_follows_headers_from_peers_asks_for_no_data_and_reports_who_lies() {
    for lies in [None, Some(5)] {
        let machine = produced(51, 60);
        let follower = machine.another(1);
        let (source, node) = (machine.clone(), follower.clone());
        let goal = newest_signed(&machine.open().reader());
        sim_run(1, move || async move {
            let peers = Neighbours::of(source.open().reader(), source.signer(), lies);
            let plan = FollowPlan { peers: Some(peers.start_here()), ..light(&node) };
            let node = FollowingNode::start(&plan).await.expect("on");
            node.until("the chain", |node| node.tip().height >= goal).await;
            assert_eq!(node.alarms(), [""; 0]);
            assert_eq!(node.observer().await.reasons, [""; 0]);
            let reported = peers.reported();
            assert_eq!(reported.is_empty(), lies.is_none());
            assert!(reported.iter().all(|report| report.peer == PeerId::from("liar")), "{reported:?}");
            assert_eq!(node.metrics.gatherer.data.get(), 0, "nobody asks for data");
            assert!(node.metrics.gatherer.headers.get() >= goal.0);
        });
        assert_eq!(check_headers(&follower, &machine), goal);
    }
}

/// The headers on DA, and nothing from where the data are.
#[test]
fn a_light_node_follows_headers_from_da_alone_while_they_are_posted() {
    let machine = Machine::new(52);
    let second = machine.another(1);
    let (producer, follower) = (machine.clone(), second.clone());
    sim_run(2, move || async move {
        let node = Node::start(&Plan::on(producer, Power::default()));
        let plan = FollowPlan { reads_da: true, ..light(&follower) };
        let light = FollowingNode::start(&plan).await.expect("on");
        for number in 0..20 {
            node.submit(&format!("k{number}=v")).await.expect("accepted");
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        node.drain().await;
        let goal = node.reader().da_progress().included;
        light.until("the headers", |light| light.tip().height >= goal).await;
        let next = light.sync().await.read.expect("it reads DA").next;
        let cursor = || light.reader().follow().expect("it follows").cursor;
        assert!(cursor().0 > 1 && cursor() <= next, "what was read is not read again: {:?}", cursor());
        assert_eq!(light.alarms(), [""; 0]);
    });
    assert!(check_headers(&second, &machine) >= Height(10));
}

#[test]
fn power_lost_at_any_effect_of_a_light_node_loses_no_header_and_makes_up_none() {
    let machine = produced(53, 60);
    let goal = newest_signed(&machine.open().reader());
    let run = move |source: Machine, plan: FollowPlan, seed: u64| {
        sim_run(seed, move || async move {
            let peers = Neighbours::of(source.open().reader(), source.signer(), None);
            let plan = FollowPlan { peers: Some(peers.start_here()), ..plan };
            if let Some(node) = FollowingNode::start(&plan).await {
                node.until("the chain", |node| node.tip().height >= goal).await;
            }
        });
    };
    let whole = Power::default();
    run(machine.clone(), FollowPlan { power: whole.clone(), ..light(&machine.another(1)) }, 3);
    let effects = whole.effects();
    assert!(effects >= 4, "{effects}");
    let test = "power_lost_at_any_effect_of_a_light_node_loses_no_header_and_makes_up_none";
    listed_seeds(test, effects, |seed| {
        let follower = machine.another(2);
        let cut = Power::new(Cut::AtEffect(1 + seed));
        run(machine.clone(), FollowPlan { power: cut.clone(), ..light(&follower) }, seed);
        cut.cut();
        follower.lose_power(if seed % 2 == 0 { Keep::None } else { Keep::All });
        run(machine.clone(), light(&follower), seed);
        assert_eq!(check_headers(&follower, &machine), goal);
    });
}

#[test]
fn little_room_and_a_first_height_far_up_make_a_light_node_slow_and_not_wrong() {
    let mut machine = Machine::new(54);
    machine.genesis.initial_height = Height(10_000);
    let made = machine.clone();
    sim_run(54, move || async move {
        let node = Node::start(&Plan::on(made, Power::default()));
        node.submit("k=v").await.expect("accepted");
        node.reach(10_030).await;
        node.drain().await;
    });
    let follower = machine.another(1);
    let (source, node) = (machine.clone(), follower.clone());
    let goal = newest_signed(&machine.open().reader());
    sim_run(2, move || async move {
        let peers = Neighbours::of(source.open().reader(), source.signer(), None);
        let limits = Limits { ahead: 4, bytes: 2_000, per_height: 2 };
        let plan = FollowPlan { peers: Some(peers.start_here()), limits, ..light(&node) };
        let node = FollowingNode::start(&plan).await.expect("on");
        node.until("the chain", |node| node.tip().height >= goal).await;
    });
    assert_eq!(check_headers(&follower, &machine), goal);
}

async fn offer(node: &FollowingNode, pieces: Vec<Piece>) -> Taken {
    let origin = Origin::Peer("peer".into());
    let candidates = pieces.into_iter().map(|piece| Candidate { piece, origin: origin.clone() }).collect();
    node.wired.offer.send(Offer { candidates, read: None }).await.expect("the syncer lives")
}

fn headers(peers: &Neighbours, heights: impl IntoIterator<Item = u64>) -> Vec<Piece> {
    heights.into_iter().map(|height| Piece::Header(Arc::new(peers.header(Height(height)).signed))).collect()
}

fn signed(machine: &Machine, header: Header) -> SignedHeader {
    let [payload, _] = header.signature_payloads();
    SignedHeader {
        header,
        signature: machine.key().sign(&payload).expect("it signs"),
        signer: machine.signer(),
    }
}

/// A header of the proposer that differs from the chain's at a height.
fn sibling(machine: &Machine, height: u64) -> SignedHeader {
    let reader = machine.open().reader();
    let real = reader.header(Height(height)).expect("readable").expect("there");
    signed(machine, Header { time: Timestamp(real.time.0 + 1), ..real })
}

async fn halted(node: &FollowingNode, at: u64, fork: u64) {
    let told = node.observer().await.fork.expect("it is told");
    let of = format!("height {fork}");
    assert!(told.contains("signed two chains") && told.contains(&of), "{told}");
    assert!(told.contains("no further header is taken"), "{told}");
    assert_eq!(node.observer().await.reasons, [told], "it is not ready any more");
    assert_eq!(node.alarms(), [""; 0], "and answers on");
    assert_eq!(node.tip().height, Height(at));
}

#[test]
fn two_headers_of_the_proposer_for_one_height_end_what_a_light_node_follows_also_after_a_restart() {
    let machine = produced(55, 20);
    let follower = machine.another(1);
    let (source, node) = (machine.clone(), light(&follower));
    sim_run(1, move || async move {
        let peers = Neighbours::of(source.open().reader(), source.signer(), None);
        let node = FollowingNode::start(&node).await.expect("on");
        offer(&node, headers(&peers, 1..=9)).await;
        assert_eq!(node.tip().height, Height(9));
        let other = sibling(&source, 7);
        let taken = offer(&node, vec![Piece::Header(Arc::new(other.clone()))]).await;
        assert_eq!(taken.judged, [Judged::Fork]);
        node.until("evidence", |node| node.reader().evidence().len() == 1).await;
        let evidence = node.reader().evidence().remove(0);
        let first = peers.header(Height(7)).signed;
        assert_eq!((evidence.height, evidence.first, evidence.second), (Height(7), first, other));
        assert_eq!(node.metrics.follow.forks.get(), 1);
        offer(&node, headers(&peers, 10..=15)).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        halted(&node, 9, 7).await;
    });
    let (source, plan) = (machine.clone(), light(&follower));
    sim_run(2, move || async move {
        let peers = Neighbours::of(source.open().reader(), source.signer(), None);
        let plan = FollowPlan { peers: Some(peers.start_here()), ..plan };
        let node = FollowingNode::start(&plan).await.expect("on");
        offer(&node, headers(&peers, 10..=15)).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        halted(&node, 9, 7).await;
    });
}

#[test]
fn two_headers_that_both_wait_are_a_fork_before_either_enters() {
    let machine = produced(56, 20);
    let (source, plan) = (machine.clone(), light(&machine.another(1)));
    sim_run(1, move || async move {
        let peers = Neighbours::of(source.open().reader(), source.signer(), None);
        let node = FollowingNode::start(&plan).await.expect("on");
        offer(&node, headers(&peers, 1..=4)).await;
        offer(&node, headers(&peers, [7])).await;
        let taken = offer(&node, vec![Piece::Header(Arc::new(sibling(&source, 7)))]).await;
        assert_eq!(taken.judged, [Judged::Fork]);
        node.until("evidence", |node| node.reader().evidence().len() == 1).await;
        offer(&node, headers(&peers, 5..=12)).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        halted(&node, 4, 7).await;
    });
}

#[test]
fn a_header_of_the_proposer_on_another_parent_is_evidence_of_two_chains() {
    let machine = produced(57, 20);
    let (source, plan) = (machine.clone(), light(&machine.another(1)));
    sim_run(1, move || async move {
        let peers = Neighbours::of(source.open().reader(), source.signer(), None);
        let node = FollowingNode::start(&plan).await.expect("on");
        offer(&node, headers(&peers, 1..=4)).await;
        let real = peers.header(Height(5)).signed.header;
        // Also with no parent at all: the first header alone has none.
        let elsewhere = Header { last_header_hash: Bytes::new(), ..real };
        offer(&node, vec![Piece::Header(Arc::new(signed(&source, elsewhere)))]).await;
        node.until("evidence", |node| node.reader().evidence().len() == 1).await;
        let evidence = node.reader().evidence().remove(0);
        assert_eq!((evidence.height, evidence.second.header.height), (Height(4), Height(5)));
        halted(&node, 4, 4).await;
    });
}

#[test]
fn what_is_not_the_proposers_or_goes_back_in_time_never_enters() {
    let machine = produced(58, 12);
    let stranger = Machine::new(59);
    let (source, plan) = (machine.clone(), light(&machine.another(1)));
    sim_run(1, move || async move {
        let peers = Neighbours::of(source.open().reader(), source.signer(), None);
        let node = FollowingNode::start(&plan).await.expect("on");
        offer(&node, headers(&peers, 1..=3)).await;
        let real = peers.header(Height(4)).signed;
        let forged = SignedHeader { signature: Bytes::from_static(&[7; 64]), ..real.clone() };
        let foreign =
            signed(&stranger, Header { proposer_address: stranger.signer().address, ..real.header.clone() });
        let elsewhere = signed(&source, Header { chain_id: "another".to_owned(), ..real.header.clone() });
        let wrong = [forged, foreign, elsewhere].map(|header| Piece::Header(Arc::new(header)));
        for judged in offer(&node, wrong.into()).await.judged {
            assert!(matches!(judged, Judged::Invalid(_)), "{judged:?}");
        }
        // The proposer itself may be wrong: its header is dropped, and does not stand in the way.
        let before = peers.header(Height(3)).signed.header.time;
        let late = signed(&source, Header { time: Timestamp(before.0 - 1), ..real.header.clone() });
        offer(&node, vec![Piece::Header(Arc::new(late))]).await;
        assert_eq!(node.tip().height, Height(3));
        let taken = offer(&node, vec![Piece::Header(Arc::new(real))]).await;
        assert_eq!((taken.judged, node.tip().height), (vec![Judged::New], Height(4)));
    });
}

#[test]
fn a_light_node_spreads_headers_that_are_new_and_right_and_no_data() {
    let machine = produced(60, 12);
    let (source, plan) = (machine.clone(), light(&machine.another(1)));
    sim_run(1, move || async move {
        let peers = Neighbours::of(source.open().reader(), source.signer(), None);
        let node = FollowingNode::start(&plan).await.expect("on");
        let judge = |item: Item| {
            let (peer, publisher) = (PeerId::from("p"), PeerId::from("p"));
            let judge = node.wired.gossiped.clone();
            async move { judge.send(Gossiped { peer, publisher, item }).await.expect("the syncer lives") }
        };
        let header = |height| Item::Header(Arc::new(peers.header(Height(height))));
        assert_eq!(judge(header(1)).await, Verdict::Accept);
        assert_eq!(judge(header(1)).await, Verdict::Ignore, "it is known");
        assert_eq!(judge(Item::Data(Arc::new(peers.data(Height(1))))).await, Verdict::Ignore);
        assert_eq!(judge(Item::Data(Arc::new(peers.data(Height(2))))).await, Verdict::Ignore);
        let mut forged = peers.header(Height(2));
        forged.signed.header.time = forged.signed.header.time.next();
        assert_eq!(judge(Item::Header(Arc::new(forged))).await, Verdict::Reject);
        assert_eq!(node.tip().height, Height(1), "what comes in order enters at once");
        assert_eq!(node.sync().await.pending, 0);
    });
}

/// A producer, a light node that knows it, and one that knows the other light node only.
#[test]
fn light_nodes_hear_gossip_and_serve_each_other_headers_over_the_network() {
    let machine = Machine::new(61);
    let (one, two) = (machine.another(1), machine.another(2));
    let (producer, first, second) = (machine.clone(), one.clone(), two.clone());
    sim_run(4, move || async move {
        let net = P2pNet::new(4);
        let (joined, signer) = (net.clone(), producer.signer());
        let adjust: Adjust = Box::new(move |wiring| {
            wiring.parts.p2p = Some(joined.join("producer"));
            wiring.settings.p2p = Some(p2p::Config::new(PeerId::from("producer"), signer.clone()));
        });
        let node = Node::start(&Plan { adjust: Some(adjust), ..Plan::on(producer, Power::default()) });
        node.submit("a=1").await.expect("accepted");
        node.reach(10).await;
        let start = async |machine: &Machine, name| {
            let plan = FollowPlan { network: Some((net.clone(), name)), ..light(machine) };
            FollowingNode::start(&plan).await.expect("on")
        };
        let near = start(&first, "near").await;
        net.connect("producer", "near");
        near.until("history", |near| near.tip().height >= Height(9)).await;
        // It comes later, and has nobody but a light node to ask.
        let far = start(&second, "far").await;
        net.connect("near", "far");
        far.until("history", |far| far.tip().height >= near.tip().height).await;
        assert!(far.metrics.gatherer.headers.get() >= 9, "the history was asked for");
        let _ = net.verdicts();
        let goal = Height(node.tip().height.0 + 20);
        far.until("what is made now", |far| far.tip().height >= goal).await;
        let spread = |(from, service, verdict): &(PeerId, Service, Verdict)| {
            from.0.as_ref() == "near" && *service == Service::Headers && *verdict == Verdict::Accept
        };
        let spread = net.verdicts().into_iter().filter(spread).count();
        assert!(spread >= 15, "new headers come by gossip, through a light node: {spread}");
        assert!(near.tip().height >= goal);
        assert_eq!(net.bans(), [], "nobody misbehaved");
        node.drain().await;
    });
    assert!(check_headers(&one, &machine) >= Height(29));
    assert!(check_headers(&two, &machine) >= Height(29));
}

#[test]
fn a_fork_on_da_ends_what_a_light_node_reads_there() {
    let machine = produced(62, 20);
    let other = sibling(&machine, 7);
    let envelope_signature = machine.key().sign(&other.encode()).expect("it signs");
    let data = DaHeaderEnvelope { signed: other, envelope_signature }.encode().into();
    machine.ledger.prepend(vec![Blob { namespace: Namespace::of("headers"), data }]);
    let plan = FollowPlan { reads_da: true, ..light(&machine.another(1)) };
    sim_run(1, move || async move {
        let node = FollowingNode::start(&plan).await.expect("on");
        node.until("evidence", |node| node.reader().evidence().len() == 1).await;
        let at = node.tip().height;
        assert!(at <= Height(7), "nothing goes beyond the fork: {at}");
        tokio::time::sleep(Duration::from_secs(5)).await;
        halted(&node, at.0, 7).await;
    });
}
