//! Full nodes in virtual time: they follow what a node or a cluster puts on DA, whatever else lies
//! there and whenever their power goes off.

use std::sync::Arc;
use std::time::Duration;

use baton_actors::signer::key::Key;
use baton_actors::syncer::candidates::Limits;
use baton_messages::chain::{
    Block, DaHeaderEnvelope, Data, Header, LegacyHeaderFields, Metadata, SignedData, SignedHeader, Signer,
};
use baton_messages::da::{Blob, Namespace};
use baton_messages::follow::{Candidate, DaRead, Judged, Offer, Origin, Piece, Taken};
use baton_messages::p2p::{Gossiped, Item, PeerId, Verdict};
use baton_messages::types::{DaHeight, Height, StateRoot, Timestamp, Tx};
use baton_storage::memory::Keep;
use bytes::Bytes;
use sim::{
    Cut, FollowPlan, FollowingNode, Machine, Neighbours, Node, Plan, Power, check_chain, check_follows,
    listed_seeds, root_of, sim_run,
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

fn included(machine: &Machine) -> Height {
    machine.open().reader().da_progress().included
}

/// Follows until the height is here.
fn follow(plan: FollowPlan, height: Height) {
    sim_run(3, move || async move {
        let node = FollowingNode::start(&plan).await.expect("the power stays on");
        node.reach(height).await;
        assert_eq!(node.alarms(), [""; 0]);
        assert_eq!(node.observer().await.reasons, [""; 0]);
    });
}

#[test]
fn a_full_node_follows_a_node_while_it_produces() {
    let machine = Machine::new(2);
    let second = machine.another(1);
    let (producer, follower) = (machine.clone(), second.clone());
    sim_run(2, move || async move {
        let node = Node::start(&Plan::on(producer, Power::default()));
        let full = FollowingNode::start(&FollowPlan::on(follower, Power::default())).await.expect("on");
        for number in 0..20 {
            node.submit(&format!("k{number}=v")).await.expect("accepted");
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        node.drain().await;
        full.reach(node.reader().da_progress().included).await;
        assert_eq!(full.alarms(), [""; 0]);
    });
    check_follows(&second, &machine);
}

#[test]
fn power_lost_at_any_effect_of_a_full_node_loses_no_block_and_makes_up_none() {
    let machine = produced(5, 30);
    let goal = included(&machine);
    let whole = Power::default();
    let (plan, power) = (FollowPlan::on(machine.another(1), whole.clone()), whole.clone());
    follow(plan, goal);
    let effects = power.effects();
    assert!(effects > 60, "{effects}");
    let test = "power_lost_at_any_effect_of_a_full_node_loses_no_block_and_makes_up_none";
    listed_seeds(test, effects.min(80), |seed| {
        let follower = machine.another(2);
        let cut = Power::new(Cut::AtEffect(1 + seed * effects / effects.min(80)));
        let plan = FollowPlan::on(follower.clone(), cut.clone());
        sim_run(seed, move || async move {
            if let Some(node) = FollowingNode::start(&plan).await {
                node.reach(goal).await;
            }
        });
        cut.cut();
        follower.lose_power(if seed % 2 == 0 { Keep::None } else { Keep::All });
        follow(FollowPlan::on(follower.clone(), Power::default()), goal);
        check_follows(&follower, &machine);
    });
}

#[test]
fn little_room_makes_a_full_node_slow_and_not_wrong() {
    let machine = produced(7, 60);
    let goal = included(&machine);
    let follower = machine.another(1);
    let limits = Limits { ahead: 4, bytes: 3_000, per_height: 2 };
    follow(FollowPlan { limits, ..FollowPlan::on(follower.clone(), Power::default()) }, goal);
    check_follows(&follower, &machine);
}

fn blob(namespace: &str, data: Vec<u8>) -> Blob {
    Blob { namespace: Namespace::of(namespace), data: data.into() }
}

/// An envelope over a header, signed by the key of a machine.
fn envelope(machine: &Machine, header: Header) -> Blob {
    let key = machine.key();
    let [payload, _] = header.signature_payloads();
    let signature = key.sign(&payload).expect("it signs");
    let signed = SignedHeader { header, signature, signer: machine.signer() };
    let envelope_signature = key.sign(&signed.encode()).expect("it signs");
    blob("headers", DaHeaderEnvelope { signed, envelope_signature }.encode())
}

fn block(machine: &Machine, height: u64) -> Arc<Block> {
    machine.open().reader().block(Height(height)).expect("readable").expect("there")
}

#[test]
fn what_strangers_write_into_the_namespaces_changes_nothing() {
    let machine = produced(11, 12);
    let stranger = Machine::new(12);
    let goal = included(&machine);
    // Before everything else: garbage, foreign signatures, the proposer's name with another's key.
    let real = block(&machine, 3);
    let forged = Header { proposer_address: stranger.signer().address, ..real.header().clone() };
    let borrowed = Header { time: Timestamp(real.header().time.0 + 1), ..real.header().clone() };
    let mut wrong_key = envelope(&stranger, borrowed.clone());
    let data = Data { txs: vec![Tx(Bytes::from_static(b"evil=1"))], metadata: real.data().metadata.clone() };
    let signature = stranger.key().sign(&data.encode()).expect("it signs");
    let foreign_data =
        SignedData { data: data.clone(), signature: signature.clone(), signer: stranger.signer() };
    let claimed = SignedData {
        data,
        signature,
        signer: Signer { address: machine.signer().address, ..stranger.signer() },
    };
    wrong_key.namespace = Namespace::of("headers");
    let hostile = vec![
        blob("headers", vec![0xff; 300]),
        blob("data", b"k=v".to_vec()),
        envelope(&stranger, forged),
        wrong_key,
        blob("data", foreign_data.encode()),
        blob("data", claimed.encode()),
    ];
    machine.ledger.prepend(hostile);
    let follower = machine.another(1);
    follow(FollowPlan::on(follower.clone(), Power::default()), goal);
    check_follows(&follower, &machine);
}

/// The proposer's name and a time that comes in a year, written by anybody: read again until then,
/// it would be all that is ever read.
#[test]
fn a_header_from_the_future_that_nobody_signed_keeps_nobody_from_reading_da() {
    let machine = produced(12, 12);
    let goal = included(&machine);
    let year = Duration::from_secs(365 * 24 * 3600);
    let forged = |height| {
        let header = block(&machine, height).header().clone();
        let header = Header { time: header.time.plus(year), ..header };
        let signature = Bytes::from_static(&[7; 64]);
        // Without an envelope: there was none so far.
        blob("headers", SignedHeader { header, signature, signer: machine.signer() }.encode())
    };
    machine.ledger.prepend(vec![forged(1), forged(2), forged(9)]);
    let follower = machine.another(1);
    let plan = FollowPlan::on(follower.clone(), Power::default());
    sim_run(3, move || async move {
        let node = FollowingNode::start(&plan).await.expect("on");
        node.reach(goal).await;
        assert_eq!(node.metrics.retriever.rereads.get(), 0);
    });
    check_follows(&follower, &machine);
    // The envelopes that came then are remembered: what is written without one is foreign.
    let strict_from = follower.open().reader().follow().expect("it follows").strict_from;
    assert!(strict_from.is_some_and(|from| from > DaHeight(1)), "{strict_from:?}");
}

/// Judges what is offered as from DA or from peers, without either.
async fn offer(node: &FollowingNode, pieces: Vec<(Piece, Origin)>, read: Option<DaRead>) -> Taken {
    let candidates = pieces.into_iter().map(|(piece, origin)| Candidate { piece, origin }).collect();
    node.wired.offer.send(Offer { candidates, read }).await.expect("the syncer lives")
}

fn header_of(peers: &Neighbours, height: u64) -> Piece {
    Piece::Header(Arc::new(peers.header(Height(height)).signed))
}

fn data_of(peers: &Neighbours, height: u64) -> Piece {
    Piece::Data(Arc::new(peers.data(Height(height)).data))
}

/// Peers give all blocks up to a height.
async fn give(node: &FollowingNode, peers: &Neighbours, up_to: u64) {
    for height in 1..=up_to {
        let pieces = [header_of(peers, height), data_of(peers, height)];
        offer(node, pieces.map(|piece| (piece, peer("honest"))).into(), None).await;
    }
}

fn peer(name: &str) -> Origin {
    Origin::Peer(name.into())
}

#[test]
fn a_true_header_with_a_signature_that_is_none_is_not_on_da() {
    let machine = produced(14, 12);
    let plan = FollowPlan { reads_da: false, ..FollowPlan::on(machine.another(1), Power::default()) };
    let source = machine.clone();
    sim_run(1, move || async move {
        let peers = Neighbours::of(source.open().reader(), source.signer(), None);
        let node = FollowingNode::start(&plan).await.expect("on");
        let read = |next| Some(DaRead { next: DaHeight(next), head: DaHeight(99), strict_from: None });
        let on_da =
            |signed: SignedHeader, at| vec![(Piece::Header(Arc::new(signed)), Origin::Da(DaHeight(at)))];
        // One that is included with its header.
        let empty = (1..10).find(|height| peers.data(Height(*height)).data.txs.is_empty());
        let height = empty.expect("two of three are empty");
        for height in 1..height {
            let pieces = [header_of(&peers, height), data_of(&peers, height)];
            offer(&node, pieces.map(|piece| (piece, Origin::Da(DaHeight(2)))).into(), read(3)).await;
        }
        let below = Height(height - 1);
        node.until("those below", |node| node.reader().da_progress().included == below).await;
        let first = peers.header(Height(height)).signed;
        let none = |signed: &SignedHeader| {
            let signature = Bytes::from_static(&[7; 64]);
            SignedHeader { signature, ..signed.clone() }
        };
        // While it waits, and when it is in the chain.
        let second = peers.header(Height(height + 1)).signed;
        offer(&node, vec![(header_of(&peers, height + 1), peer("honest"))], None).await;
        let taken = offer(&node, on_da(none(&second), 4), read(5)).await;
        assert!(matches!(taken.judged[0], Judged::Invalid(_)), "{taken:?}");
        offer(&node, vec![(header_of(&peers, height), peer("honest"))], None).await;
        node.until("the block", |node| node.tip().height >= Height(height)).await;
        let taken = offer(&node, on_da(none(&first), 5), read(6)).await;
        assert!(matches!(taken.judged[0], Judged::Invalid(_)), "{taken:?}");
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(node.reader().da_progress().included, below);
        let taken = offer(&node, on_da(first, 6), read(7)).await;
        assert_eq!(taken.judged, [Judged::Known]);
        node.until("inclusion", |node| node.reader().da_progress().included >= Height(height)).await;
    });
}

/// The right transactions after made-up ones: nothing but the block before tells them apart.
#[test]
fn data_that_peers_made_up_stop_a_follower_at_no_height() {
    let machine = produced(15, 12);
    let plan = FollowPlan { reads_da: false, ..FollowPlan::on(machine.another(1), Power::default()) };
    let source = machine.clone();
    sim_run(1, move || async move {
        let peers = Neighbours::of(source.open().reader(), source.signer(), None);
        let node = FollowingNode::start(&plan).await.expect("on");
        let with_txs = (3..10).find(|height| !peers.data(Height(*height)).data.txs.is_empty());
        let height = with_txs.expect("there are transactions");
        let made_up = |liar: usize| {
            let mut data = peers.data(Height(height)).data;
            let metadata = data.metadata.as_mut().expect("it has some");
            metadata.last_data_hash = vec![liar as u8; 32].into();
            vec![(Piece::Data(Arc::new(data)), peer(&format!("liar {liar}")))]
        };
        for liar in 0..8 {
            let taken = offer(&node, made_up(liar), None).await;
            let expected = if liar < 4 { Judged::Unproven } else { Judged::Ignored };
            assert_eq!(taken.judged, [expected]);
        }
        for height in 1..height {
            let pieces = [header_of(&peers, height), data_of(&peers, height)];
            offer(&node, pieces.map(|piece| (piece, peer("honest"))).into(), None).await;
        }
        node.until("the blocks before", |node| node.tip().height >= Height(height - 1)).await;
        let taken = offer(&node, made_up(9), None).await;
        assert!(matches!(taken.judged[0], Judged::Invalid(_)), "it shows now: {taken:?}");
        let pieces = [header_of(&peers, height), data_of(&peers, height)];
        let taken = offer(&node, pieces.map(|piece| (piece, peer("honest"))).into(), None).await;
        assert_eq!(taken.judged, [Judged::New, Judged::New]);
        node.until("the block", |node| node.tip().height >= Height(height)).await;
    });
}

/// Peers and DA offer at the same time: only who reads DA can go back.
#[test]
fn the_order_to_read_again_waits_for_who_reads() {
    let machine = produced(16, 12);
    let limits = Limits { ahead: 4, ..Limits::default() };
    let on = FollowPlan::on(machine.another(1), Power::default());
    let plan = FollowPlan { reads_da: false, limits, ..on };
    let source = machine.clone();
    sim_run(1, move || async move {
        let peers = Neighbours::of(source.open().reader(), source.signer(), None);
        let node = FollowingNode::start(&plan).await.expect("on");
        let read = |next| Some(DaRead { next: DaHeight(next), head: DaHeight(99), strict_from: None });
        let far = vec![(header_of(&peers, 6), Origin::Da(DaHeight(7)))];
        let taken = offer(&node, far, read(8)).await;
        assert_eq!((taken.judged, taken.reread), (vec![Judged::Ignored], None));
        give(&node, &peers, 5).await;
        node.until("the blocks before", |node| node.tip().height >= Height(5)).await;
        assert_eq!(offer(&node, vec![], None).await.reread, None, "a peer's blocks are not on DA");
        assert_eq!(offer(&node, vec![], read(9)).await.reread, Some(DaHeight(7)));
        // Until it comes again, a crash must not pass over it.
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(node.reader().follow().expect("it follows").cursor, DaHeight(7));
        // Who was told may not have listened any more: it is said until somebody reads there.
        assert_eq!(offer(&node, vec![], read(9)).await.reread, Some(DaHeight(7)));
        assert_eq!(offer(&node, vec![], read(8)).await.reread, None, "7 was read again");
        assert_eq!(offer(&node, vec![], read(9)).await.reread, None, "once");
    });
}

/// A hint shows what lies far ahead, and something of it is wanted: what lies before it is not read yet.
#[test]
fn what_a_hint_shows_passes_over_nothing_that_was_not_read() {
    let machine = produced(16, 12);
    let limits = Limits { ahead: 4, ..Limits::default() };
    for early in [false, true] {
        let on = FollowPlan::on(machine.another(1 + usize::from(early)), Power::default());
        let plan = FollowPlan { reads_da: false, limits, ..on };
        let source = machine.clone();
        sim_run(1, move || async move {
            let peers = Neighbours::of(source.open().reader(), source.signer(), None);
            let node = FollowingNode::start(&plan).await.expect("on");
            let read = |next| Some(DaRead { next: DaHeight(next), head: DaHeight(99), strict_from: None });
            let mut far = peers.header(Height(6)).signed;
            if early {
                // A minute and a bit: the clock here is behind.
                far.header.time = node.wired.reader.genesis().start_time.plus(Duration::from_secs(65));
                far.signature = source.sign(&far.header.encode());
            }
            let hinted = vec![(Piece::Header(Arc::new(far)), Origin::Da(DaHeight(50)))];
            assert_eq!(offer(&node, hinted, None).await.judged, [Judged::Ignored], "too far, or too early");
            give(&node, &peers, 5).await;
            node.until("the blocks before", |node| node.tip().height >= Height(5)).await;
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert_eq!(offer(&node, vec![], read(9)).await.reread, None, "10 to 49 were not read");
            assert_eq!(node.reader().follow().expect("it follows").cursor, DaHeight(9));
            assert_eq!(offer(&node, vec![], read(51)).await.reread, None, "it came in its turn");
        });
    }
}

/// A clock that is set back finds the chain's own blocks in the future: that they are on DA counts all the same.
#[test]
fn what_is_in_the_chain_is_seen_on_da_whatever_the_clock_says() {
    let machine = produced(16, 12);
    let plan = FollowPlan { reads_da: false, ..FollowPlan::on(machine.another(1), Power::default()) };
    let source = machine.clone();
    sim_run(1, move || async move {
        let peers = Neighbours::of(source.open().reader(), source.signer(), None);
        let node = FollowingNode::start(&plan).await.expect("on");
        let late = |height| {
            let mut data = peers.data(Height(height)).data;
            let metadata = data.metadata.as_mut().expect("it has some");
            metadata.time = metadata.time.plus(Duration::from_secs(3600));
            vec![(Piece::Data(Arc::new(data)), Origin::Da(DaHeight(7)))]
        };
        let early = (1..=6).find(|height| !peers.data(Height(*height)).data.txs.is_empty()).expect("one has");
        assert_eq!(offer(&node, late(early), None).await.judged, [Judged::Ignored], "it is not there yet");
        give(&node, &peers, 6).await;
        node.until("the blocks", |node| node.tip().height >= Height(6)).await;
        assert_eq!(offer(&node, late(early), None).await.judged, [Judged::Known]);
    });
}

/// No time makes a second header of a height the chain's.
#[test]
fn a_second_header_of_the_future_for_a_height_of_the_chain_is_a_fork() {
    let machine = produced(16, 12);
    let plan = FollowPlan { reads_da: false, ..FollowPlan::on(machine.another(1), Power::default()) };
    let source = machine.clone();
    sim_run(1, move || async move {
        let peers = Neighbours::of(source.open().reader(), source.signer(), None);
        let node = FollowingNode::start(&plan).await.expect("on");
        give(&node, &peers, 6).await;
        node.until("the blocks", |node| node.tip().height >= Height(6)).await;
        let mut second = peers.header(Height(4)).signed;
        second.header.time = second.header.time.plus(Duration::from_secs(3600));
        second.signature = source.sign(&second.header.encode());
        let piece = vec![(Piece::Header(Arc::new(second)), Origin::Da(DaHeight(7)))];
        assert_eq!(offer(&node, piece, None).await.judged, [Judged::Fork]);
        node.until("the evidence", |node| node.reader().evidence().len() == 1).await;
        assert_eq!(node.reader().evidence()[0].height, Height(4));
    });
}

/// While DA is read, which may take hours, the last block is told all the same: a sequencer that is restored from
/// this node, or that waits for its own execution, would lack it.
#[test]
fn the_last_block_that_is_known_is_told_also_while_catching_up() {
    let machine = produced(17, 12);
    let plan = FollowPlan { reads_da: false, ..FollowPlan::on(machine.another(1), Power::default()) };
    let source = machine.clone();
    sim_run(1, move || async move {
        let peers = Neighbours::of(source.open().reader(), source.signer(), None);
        let node = FollowingNode::start(&plan).await.expect("on");
        let unread = DaRead { next: DaHeight(3), head: DaHeight(9_999), strict_from: None };
        offer(&node, vec![], Some(unread)).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(node.sync().await.catch_up.is_some(), "DA is unread");
        give(&node, &peers, 7).await;
        node.until("the blocks", |node| node.tip().height == Height(7)).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(node.observer().await.executed, Height(7));
    });
}

/// A header that carries legacy fields, or could, has a twin: the same payload, and so the same signature, under
/// another hash. Anybody can make one, and nobody has signed twice.
#[test]
fn another_encoding_of_a_signed_header_is_no_second_header() {
    let machine = produced(19, 12);
    let plan = FollowPlan { reads_da: false, ..FollowPlan::on(machine.another(1), Power::default()) };
    let source = machine.clone();
    sim_run(1, move || async move {
        let peers = Neighbours::of(source.open().reader(), source.signer(), None);
        let node = FollowingNode::start(&plan).await.expect("on");
        let mut signed = peers.header(Height(9)).signed;
        signed.signature = source.sign(&signed.header.legacy_payload());
        let mut twin = signed.clone();
        let zeros = Bytes::from_static(&[0; 32]);
        twin.header.legacy = Some(LegacyHeaderFields { consensus_hash: zeros, ..Default::default() });
        assert_ne!(signed.header.hash(), twin.header.hash());
        let piece = |signed: SignedHeader| vec![(Piece::Header(Arc::new(signed)), peer("one"))];
        assert_eq!(offer(&node, piece(signed), None).await.judged, [Judged::New]);
        assert_eq!(offer(&node, piece(twin), None).await.judged, [Judged::Ignored]);
        assert_eq!((node.observer().await.fork, node.reader().evidence().len()), (None, 0));
    });
}

/// Anybody may give the twin first. It waits until the next header, which names its parent.
#[test]
fn the_header_above_says_in_which_encoding_the_one_below_is_the_chains() {
    let machine = produced(19, 12);
    for (number, light) in [(1, false), (2, true)] {
        let plan = FollowPlan::on(machine.another(number), Power::default());
        let plan = FollowPlan { reads_da: false, light, ..plan };
        let source = machine.clone();
        sim_run(1, move || async move {
            let peers = Neighbours::of(source.open().reader(), source.signer(), None);
            let node = FollowingNode::start(&plan).await.expect("on");
            give(&node, &peers, 8).await;
            node.until("height 8", |node| node.tip().height == Height(8)).await;
            let mut twin = peers.header(Height(9)).signed;
            twin.signature = source.sign(&twin.header.legacy_payload());
            let header = twin.header.twin().expect("there is another");
            let right = SignedHeader { header, ..twin.clone() };
            let mut above = peers.header(Height(10)).signed;
            above.header.last_header_hash = right.header.hash().to_bytes();
            above.signature = source.sign(&above.header.encode());
            let piece = |signed: &SignedHeader| vec![(Piece::Header(Arc::new(signed.clone())), peer("one"))];
            assert_eq!(offer(&node, piece(&twin), None).await.judged, [Judged::New]);
            assert_eq!(offer(&node, piece(&right), None).await.judged, [Judged::Ignored]);
            for height in 9..=10 {
                offer(&node, vec![(data_of(&peers, height), peer("one"))], None).await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(node.tip().height, Height(8), "nothing says yet which of the two it is");
            assert_eq!(offer(&node, piece(&above), None).await.judged, [Judged::New]);
            node.until("height 10", |node| node.tip().height == Height(10)).await;
            assert_eq!(node.reader().hash(Height(9)), Ok(Some(right.header.hash())));
            assert_eq!((node.alarms(), node.reader().evidence().len()), (vec![], 0));
        });
    }
}

/// A chain that goes on with another's heights.
#[test]
fn a_chain_whose_first_height_is_far_up_is_followed_from_there() {
    let mut machine = Machine::new(18);
    machine.genesis.initial_height = Height(10_000);
    let made = machine.clone();
    sim_run(18, move || async move {
        let node = Node::start(&Plan::on(made, Power::default()));
        node.submit("k=v").await.expect("accepted");
        node.reach(10_006).await;
        node.drain().await;
    });
    let goal = included(&machine);
    assert!(goal >= Height(10_006));
    let follower = machine.another(1);
    follow(FollowPlan::on(follower.clone(), Power::default()), goal);
    check_follows(&follower, &machine);
    let source = machine.clone();
    let plan = FollowPlan { reads_da: false, ..FollowPlan::on(machine.another(2), Power::default()) };
    sim_run(2, move || async move {
        let peers = Neighbours::of(source.open().reader(), source.signer(), None);
        let plan = FollowPlan { peers: Some(peers.start_here()), ..plan };
        let node = FollowingNode::start(&plan).await.expect("on");
        node.until("the chain", |node| node.tip().height >= goal).await;
    });
}

#[test]
fn two_headers_of_the_proposer_for_one_height_are_kept_told_and_stop_finality() {
    let machine = produced(13, 20);
    let real = block(&machine, 7);
    let sibling = Header { time: Timestamp(real.header().time.0 + 1), ..real.header().clone() };
    machine.ledger.append(vec![envelope(&machine, sibling.clone())]);
    let (follower, height) = (machine.another(1), included(&machine));
    let plan = FollowPlan::on(follower.clone(), Power::default());
    sim_run(1, move || async move {
        let node = FollowingNode::start(&plan).await.expect("on");
        node.until("evidence", |node| node.reader().evidence().len() == 1).await;
        let evidence = node.reader().evidence().remove(0);
        assert_eq!((evidence.height, evidence.second.header), (Height(7), sibling));
        let fork = node.observer().await.fork.expect("it is told");
        assert!(fork.contains("signed two chains") && fork.contains("height 7"), "{fork}");
        assert_eq!(node.metrics.follow.forks.get(), 1);
        assert_eq!(node.alarms(), [""; 0], "the node stays up");
        node.until("the rest of the chain", |node| node.tip().height >= height).await;
    });
    // It is known after a restart, and what comes afterwards is followed and not final.
    let later = follower.clone();
    let before = later.open().reader().da_progress().included;
    sim_run(2, move || async move {
        let node = FollowingNode::start(&FollowPlan::on(later, Power::default())).await.expect("on");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(node.observer().await.fork.is_some());
        assert_eq!(node.reader().da_progress().included, before);
    });
    assert_eq!(follower.open().reader().evidence().len(), 1);
}

#[test]
fn a_sibling_that_comes_first_stops_finality_below_it() {
    let machine = produced(17, 20);
    let real = block(&machine, 7);
    let sibling = Header { time: Timestamp(real.header().time.0 + 1), ..real.header().clone() };
    machine.ledger.prepend(vec![envelope(&machine, sibling)]);
    let follower = machine.another(1);
    let plan = FollowPlan::on(follower.clone(), Power::default());
    sim_run(1, move || async move {
        let node = FollowingNode::start(&plan).await.expect("on");
        node.until("evidence", |node| node.reader().evidence().len() == 1).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let included = node.reader().da_progress().included;
        assert!(included < Height(7), "nothing from the fork on is final: {included}");
    });
}

#[test]
fn a_chain_with_another_state_root_is_not_followed_further_and_a_person_is_asked() {
    let machine = Machine::new(19);
    let genesis = machine.genesis.clone();
    let metadata = Metadata {
        chain_id: genesis.chain_id.clone(),
        height: Height(1),
        time: genesis.start_time,
        last_data_hash: Bytes::new(),
    };
    let data = Data { metadata: Some(metadata), txs: vec![] };
    let StateRoot(app_hash) = root_of(Height(9));
    let header = Header {
        height: Height(1),
        time: genesis.start_time,
        data_hash: data.commitment().to_bytes(),
        app_hash,
        proposer_address: genesis.proposer_address.clone(),
        chain_id: genesis.chain_id,
        ..Header::default()
    };
    machine.ledger.append(vec![envelope(&machine, header)]);
    let plan = FollowPlan::on(machine.another(1), Power::default());
    sim_run(1, move || async move {
        let node = FollowingNode::start(&plan).await.expect("on");
        node.until("an alarm", |node| !node.alarms().is_empty()).await;
        assert!(node.alarms()[0].contains("state root"), "{:?}", node.alarms());
        assert_eq!(node.tip().height, Height(0), "a wrong root never enters the store");
    });
}

#[test]
fn halves_in_any_order_at_any_place_of_da_make_the_same_chain() {
    let machine = produced(23, 18);
    let goal = included(&machine);
    for order in 0..4 {
        let follower = machine.another(order);
        let shuffled = follower.beside(machine.ledger.shuffled(order as u64));
        follow(FollowPlan::on(shuffled.clone(), Power::default()), goal);
        check_follows(&shuffled, &machine);
    }
}

#[test]
fn da_that_is_away_is_said_and_following_goes_on_when_it_is_back() {
    let machine = produced(29, 12);
    let goal = included(&machine);
    let follower = machine.another(1);
    let (plan, ledger) = (FollowPlan::on(follower.clone(), Power::default()), machine.ledger.clone());
    sim_run(1, move || async move {
        ledger.set_away(true);
        let node = FollowingNode::start(&plan).await.expect("on");
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(node.observer().await.da_trouble.is_some_and(|trouble| trouble.contains("away")));
        ledger.set_away(false);
        node.reach(goal).await;
        assert_eq!(node.observer().await.da_trouble, None);
    });
    check_follows(&follower, &machine);
}

#[test]
fn a_full_node_follows_peers_alone_and_reports_who_lies() {
    for lies in [None, Some(5)] {
        let machine = produced(31, 60);
        let follower = machine.another(1);
        let (source, node) = (machine.clone(), follower.clone());
        sim_run(1, move || async move {
            let peers = Neighbours::of(source.open().reader(), source.signer(), lies);
            let goal = source.open().reader().tip().height.previous();
            let plan = FollowPlan {
                reads_da: false,
                peers: Some(peers.start_here()),
                ..FollowPlan::on(node, Power::default())
            };
            let node = FollowingNode::start(&plan).await.expect("on");
            node.until("the chain", |node| node.tip().height >= goal).await;
            assert_eq!(node.alarms(), [""; 0]);
            let reported = peers.reported();
            assert_eq!(reported.is_empty(), lies.is_none());
            assert!(reported.iter().all(|report| report.peer == PeerId::from("liar")), "{reported:?}");
            assert_eq!(node.reader().da_progress().included, Height(0), "nobody has said what is on DA");
        });
        check_follows(&follower, &machine);
    }
}

#[test]
fn gossip_is_spread_only_when_it_is_new_and_right() {
    let machine = produced(37, 12);
    let plan = FollowPlan { reads_da: false, ..FollowPlan::on(machine.another(1), Power::default()) };
    let source = machine.clone();
    sim_run(1, move || async move {
        let peers = Neighbours::of(source.open().reader(), source.signer(), None);
        let node = FollowingNode::start(&plan).await.expect("on");
        let judge = |item: Item| {
            let (peer, publisher) = (PeerId::from("p"), PeerId::from("p"));
            let gossiped = Gossiped { peer, publisher, item };
            let judge = node.wired.gossiped.clone();
            async move { judge.send(gossiped).await.expect("the syncer lives") }
        };
        let with_txs = (1..10).map(Height).find(|height| !peers.data(*height).data.txs.is_empty());
        let height = with_txs.expect("there are transactions");
        let data = || Item::Data(Arc::new(peers.data(height)));
        let header = || Item::Header(Arc::new(peers.header(height)));
        assert_eq!(judge(data()).await, Verdict::Ignore, "anybody may have made it up");
        assert_eq!(judge(header()).await, Verdict::Accept);
        assert_eq!(judge(header()).await, Verdict::Ignore, "it is known");
        let mut forged = peers.header(height);
        forged.signed.header.time = forged.signed.header.time.next();
        assert_eq!(judge(Item::Header(Arc::new(forged))).await, Verdict::Reject);
        let mut foreign = peers.data(height);
        foreign.data.txs.push(Tx(Bytes::from_static(b"evil=1")));
        assert_eq!(judge(Item::Data(Arc::new(foreign))).await, Verdict::Reject);
        // What comes in order enters the chain at once.
        for height in (1..=height.0).map(Height) {
            judge(Item::Header(Arc::new(peers.header(height)))).await;
            judge(Item::Data(Arc::new(peers.data(height)))).await;
        }
        node.until("the blocks", |node| node.tip().height >= height).await;
    });
}

#[test]
fn peers_bring_blocks_and_da_says_that_they_are_included() {
    let machine = produced(41, 30);
    let goal = included(&machine);
    let follower = machine.another(1);
    let (source, node) = (machine.clone(), follower.clone());
    sim_run(1, move || async move {
        let peers = Neighbours::of(source.open().reader(), source.signer(), None);
        source.ledger.set_away(true);
        let plan = FollowPlan { peers: Some(peers.start_here()), ..FollowPlan::on(node, Power::default()) };
        let node = FollowingNode::start(&plan).await.expect("on");
        let newest = source.open().reader().tip().height.previous();
        node.until("the chain", |node| node.tip().height >= newest).await;
        assert_eq!(node.reader().da_progress().included, Height(0));
        source.ledger.set_away(false);
        node.reach(goal).await;
        assert_eq!(node.observer().await.fork, None);
    });
    check_follows(&follower, &machine);
}
