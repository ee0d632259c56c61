//! Raft as the executor and the submitter meet it: verdicts are answers.

use baton::wiring::producer;
use baton_messages::types::Grant;
use sim::{Machine, Node, Plan, Power};

use super::*;

/// A producer that does nothing: the test is the executor.
struct Idle;

impl Actor for Idle {
    type Context = Context<Self>;
}

async fn leader() -> (Node, Grant) {
    let adjust: sim::Adjust = Box::new(|wiring| wiring.executor = Some(producer("idle", |_| Idle)));
    let machine = Machine::new(1);
    let node = Node::start(&Plan { adjust: Some(adjust), ..Plan::on(machine, Power::default()) });
    pass(2_000).await;
    let grant = node.supervisor().await.grant.expect("a sole voter leads");
    (node, grant)
}

async fn propose(node: &Node, grant: Grant, block: Arc<Block>) -> Result<Tip, ProposeError> {
    let proposal = ProposeBlock { grant, block, tail: None, forced: Default::default() };
    let reply = node.ports().raft.propose.send(proposal).await.expect("raft answers");
    reply.map(|committed| committed.tip)
}

/// A chain like the node's, on which the test builds its blocks.
fn blocks() -> (Stage, Arc<Block>, Arc<Block>) {
    let stage = Stage::new();
    let one = stage.next_block(&root_of(Height(0)), &["one=1"]);
    let other = stage.next_block(&root_of(Height(0)), &["other=1"]);
    (stage, one, other)
}

#[test]
fn a_sibling_is_refused_with_the_tip_and_the_same_bytes_are_committed_again() {
    sim_run(1, || async {
        let (node, grant) = leader().await;
        let (_stage, one, other) = blocks();
        let tip = propose(&node, grant, one.clone()).await.expect("committed");
        assert_eq!((tip.height, tip.hash), (Height(1), one.hash()));
        let refused = propose(&node, grant, other).await;
        assert_eq!(refused, Err(ProposeError::Refused { refusal: Refusal::Height, tip }), "P1");
        assert_eq!(propose(&node, grant, one).await, Ok(tip));
        assert_eq!(node.tip(), tip);
    });
}

#[test]
fn a_block_at_the_time_of_its_parent_is_refused() {
    sim_run(1, || async {
        let (node, grant) = leader().await;
        let (stage, one, _) = blocks();
        propose(&node, grant, one.clone()).await.expect("committed");
        stage.committed(&one);
        let next = stage.next_block(&root_of(Height(1)), &[]);
        let (mut header, mut data) = (next.header().clone(), next.data().clone());
        header.time = one.header().time;
        data.metadata.as_mut().expect("there").time = header.time;
        let refused = propose(&node, grant, Block::shared(header, data)).await;
        assert!(matches!(refused, Err(ProposeError::Refused { refusal: Refusal::Time, .. })), "E8");
        propose(&node, grant, next).await.expect("committed");
    });
}

#[test]
fn a_grant_of_another_term_is_refused_before_the_append() {
    sim_run(1, || async {
        let (node, grant) = leader().await;
        let (_stage, one, _) = blocks();
        for term in [grant.term.0 - 1, grant.term.0 + 1] {
            let stale = Grant { term: Term(term) };
            let before = node.ports().raft.view.send(baton_messages::raft::GetRaftView).await;
            let refused = propose(&node, stale, one.clone()).await;
            assert!(matches!(refused, Err(ProposeError::NotLeader { .. })), "{refused:?}");
            let after = node.ports().raft.view.send(baton_messages::raft::GetRaftView).await;
            assert_eq!(after.expect("alive").last_log, before.expect("alive").last_log);
        }
        assert_eq!(node.tip().height, Height(0));
    });
}
