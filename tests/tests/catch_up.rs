//! A sequencer that lost its machine and not its key, in virtual time: it goes on with its chain, and
//! signs no height a second time.

use std::sync::Arc;
use std::time::Duration;

use baton::catch_up::plan::Plan as Rules;
use baton::catch_up::{CatchUp, Links};
use baton_actors::signer::MemoryGuard;
use baton_actors::signer::audit::Event;
use baton_actors::signer::guard::{Guard, GuardStore};
use baton_actors::signer::slot::ChainId;
use baton_actors::world::World;
use baton_messages::follow::{Candidate, Offer, Origin, Piece};
use baton_messages::types::{Hash, Height, Member, Term};
use sim::{
    FollowPlan, FollowingNode, Machine, Neighbours, Node, Plan, Power, SimClock, check_chain, sim_run,
};
use tokio::time::timeout;
use uuid::Uuid;

const QUIET: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(30);
/// The term in which the key has signed last.
const SIGNED_IN: Term = Term(7);

/// A machine whose node made so many blocks and has stopped.
fn produced(seed: u64, blocks: u64) -> Machine {
    let machine = Machine::new(seed);
    let made = machine.clone();
    sim_run(seed, move || async move {
        let node = Node::start(&Plan::on(made, Power::default()));
        node.submit("a=1").await.expect("accepted");
        node.reach(blocks).await;
        node.drain().await;
    });
    check_chain(&machine);
    machine
}

fn catch_up(node: &FollowingNode, guard: &MemoryGuard) -> CatchUp<MemoryGuard> {
    CatchUp {
        plan: Rules::new(QUIET, PATIENCE),
        links: Links {
            observer: node.wired.observer.clone(),
            sync: node.wired.sync.clone(),
            heads: node.wired.heads.clone(),
            waits: node.wired.waits.clone(),
        },
        reader: node.reader(),
        guard: guard.clone(),
        world: World::new(Arc::new(SimClock::showing(node.reader().genesis().start_time)), 1),
    }
}

/// What `baton start` does once the chain may be gone on with. The guard outlived its store: the key has signed
/// in terms above those with which a cluster begins.
async fn take_over(machine: &Machine, (height, hash): (Height, Hash)) {
    let chain = ChainId { name: machine.genesis.chain_id.clone(), genesis: machine.genesis.hash() };
    let guard = Guard::at(&chain, height, hash, SIGNED_IN).expect("a chain's name");
    machine.guard.clone().create(&guard.record().encode()).expect("the disk works");
    let member = Member { name: "a".to_owned(), storage: machine.storage, ..Member::default() };
    let writer = machine.open().writer(Box::new(|_| {}));
    let taken = writer.take_over(height, hash, member, Uuid::from_u128(7), SIGNED_IN).await;
    taken.expect("all of it is there");
}

#[test]
fn a_restored_sequencer_goes_on_after_the_last_block_that_anybody_shows() {
    let old = produced(71, 20);
    let restored = old.another(1);
    let (source, machine) = (old.clone(), restored.clone());
    let last = sim_run(1, move || async move {
        let peers = Neighbours::of(source.open().reader(), source.signer(), None);
        let plan = FollowPlan {
            peers: Some(peers.start_here()),
            ..FollowPlan::on(machine.clone(), Power::default())
        };
        let node = FollowingNode::start(&plan).await.expect("on");
        let last = timeout(Duration::from_secs(120), catch_up(&node, &machine.guard).done()).await;
        let last = last.expect("everything is there");
        assert_eq!(node.observer().await.fork, None);
        last
    });
    let theirs = old.open().reader();
    assert_eq!(theirs.hash(last.0).expect("readable"), Some(last.1));
    assert!(last.0 >= theirs.da_progress().included, "nothing that DA holds is left out");
    let machine = restored.clone();
    sim_run(2, move || async move { take_over(&machine, last).await });
    let machine = restored.clone();
    sim_run(3, move || async move {
        let node = Node::start(&Plan::on(machine, Power::default()));
        node.submit("b=2").await.expect("accepted");
        node.reach(last.0.0 + 10).await;
        node.drain().await;
    });
    let ours = restored.open().reader();
    for height in (1..=last.0.0).map(Height) {
        assert_eq!(ours.hash(height).expect("readable"), theirs.hash(height).expect("readable"), "P1");
    }
    assert!(ours.tip().height.0 >= last.0.0 + 10);
    for line in restored.audit.lines() {
        if let Event::Signed { height, .. } = line.event {
            assert!(height > last.0, "P2: {height} was shown, and is signed again");
        }
    }
    for (height, hash) in restored.ledger.headers() {
        assert_eq!(ours.hash(height).expect("readable"), Some(hash), "P7: one chain is on DA");
    }
    assert!(restored.ledger.headers().contains_key(&last.0.next()), "and goes on there");
}

/// For a virtual hour; what it said at the end.
fn never(seed: u64, start: impl FnOnce(&Machine, FollowPlan) -> FollowPlan + Send + 'static) -> Vec<String> {
    let old = produced(seed, 20);
    let machine = old.another(1);
    sim_run(1, move || async move {
        let plan = start(&old, FollowPlan::on(machine.clone(), Power::default()));
        let node = FollowingNode::start(&plan).await.expect("on");
        let done = timeout(Duration::from_secs(3600), catch_up(&node, &machine.guard).done()).await;
        assert!(done.is_err(), "P2: it must not produce, and would after {done:?}");
        node.observer().await.waits
    })
}

#[test]
fn without_a_peer_no_time_out_makes_it_produce() {
    let waits = never(72, |_, plan| plan);
    assert!(waits.len() == 1 && waits[0].contains("no peer says"), "{waits:?}");
}

#[test]
fn without_da_no_time_out_makes_it_produce() {
    let waits = never(73, |old, plan| {
        let peers = Neighbours::of(old.open().reader(), old.signer(), None);
        FollowPlan { reads_da: false, peers: Some(peers.start_here()), ..plan }
    });
    assert!(waits.len() == 1 && waits[0].contains("DA does not say"), "{waits:?}");
}

#[test]
fn a_block_that_was_signed_and_that_nobody_shows_is_waited_for() {
    let old = produced(74, 20);
    let machine = old.another(1);
    // The guard's file outlived the machine, and is ahead of everything that is left of the chain.
    let beyond = old.open().reader().tip().height.0 + 5;
    let chain = ChainId { name: old.genesis.chain_id.clone(), genesis: old.genesis.hash() };
    let guard = Guard::at(&chain, Height(beyond), Hash([9; 32]), Term(1)).expect("a chain's name");
    machine.guard.clone().create(&guard.record().encode()).expect("the disk works");
    sim_run(1, move || async move {
        let peers = Neighbours::of(old.open().reader(), old.signer(), None);
        let plan = FollowPlan {
            peers: Some(peers.start_here()),
            ..FollowPlan::on(machine.clone(), Power::default())
        };
        let node = FollowingNode::start(&plan).await.expect("on");
        let done = timeout(Duration::from_secs(3600), catch_up(&node, &machine.guard).done()).await;
        assert!(done.is_err(), "P2: {done:?}");
        let waits = node.observer().await.waits;
        assert!(waits.iter().any(|wait| wait.contains(&format!("block {beyond} was signed"))), "{waits:?}");
    });
}

/// The old sequencer is alive after all: its blocks come, and the new one stays behind them.
#[test]
fn as_long_as_somebody_makes_blocks_it_follows_them() {
    let old = Machine::new(75);
    let machine = old.another(1);
    sim_run(1, move || async move {
        let alive = Node::start(&Plan::on(old.clone(), Power::default()));
        alive.reach(5).await;
        let peers = Neighbours::of(alive.reader().clone(), old.signer(), None);
        let plan = FollowPlan {
            peers: Some(peers.start_here()),
            ..FollowPlan::on(machine.clone(), Power::default())
        };
        let node = FollowingNode::start(&plan).await.expect("on");
        let done = timeout(Duration::from_secs(120), catch_up(&node, &machine.guard).done()).await;
        assert!(done.is_err(), "two sequencers with one key: {done:?}");
        assert!(node.tip().height.0 > 500, "it follows meanwhile: {}", node.tip().height);
    });
}

/// A header from somewhere says that there is a block which nobody gives.
#[test]
fn a_header_without_its_block_is_waited_for() {
    let old = produced(76, 20);
    let machine = old.another(1);
    sim_run(1, move || async move {
        let reader = old.open().reader();
        let peers = Neighbours::of(reader.clone(), old.signer(), None);
        let plan = FollowPlan {
            peers: Some(peers.start_here()),
            ..FollowPlan::on(machine.clone(), Power::default())
        };
        let node = FollowingNode::start(&plan).await.expect("on");
        let newest = reader.tip().height;
        let real = peers.header(newest.previous()).signed;
        // Signed by the proposer, two blocks further on than anybody's chain.
        let header = baton_messages::chain::Header { height: Height(newest.0 + 2), ..real.header.clone() };
        let signature = old.sign(&header.encode());
        let signed = baton_messages::chain::SignedHeader { header, signature, signer: old.signer() };
        let candidate =
            Candidate { piece: Piece::Header(Arc::new(signed)), origin: Origin::Peer("p".into()) };
        let offer = Offer { candidates: vec![candidate], read: None };
        node.wired.offer.send(offer).await.expect("the syncer lives");
        let done = timeout(Duration::from_secs(600), catch_up(&node, &machine.guard).done()).await;
        assert!(done.is_err(), "P2: {done:?}");
        let waits = node.observer().await.waits;
        assert!(
            waits.iter().any(|wait| wait.contains(&format!("block {} was seen", newest.0 + 2))),
            "{waits:?}"
        );
    });
}
