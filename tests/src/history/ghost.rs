//! What a producer asks for that should be gone, or has lost its way: nothing may come of it.
//!
//! A message may be late, a stopped process may wake up, and an executor may have a bug. Whoever
//! is asked must refuse by itself: Raft and apply, the guard, the DA adapter (I5, P1, P2).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use baton_actors::executor::build;
use baton_messages::chain::{Block, Data, Header};
use baton_messages::da::{GetBlobs, Namespace, SubmitBlobs};
use baton_messages::engine::GetPosition;
use baton_messages::raft::{ProposeBlock, ProposeError};
use baton_messages::signer::{GetSignerView, SignHeader};
use baton_messages::supervisor::GetSupervisorView;
use baton_messages::types::{Grant, Hash, Term, Timestamp};
use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;
use crate::node::Node;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ghost {
    /// To commit another block at the height of the tip.
    Sibling,
    /// To commit a block that bears its parent's time.
    EqualTime,
    /// To commit a block on a parent that is not the tip.
    OtherParent,
    /// To commit a block under a grant of an older term.
    OldGrant,
    /// To sign another header of the height that was signed last.
    SignSibling,
    /// To sign under a grant of an older term.
    SignOldGrant,
    /// To post blobs under a grant of an older term.
    PostOldGrant,
}

impl Ghost {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Sibling,
        Self::EqualTime,
        Self::OtherParent,
        Self::OldGrant,
        Self::SignSibling,
        Self::SignOldGrant,
        Self::PostOldGrant,
    ];

    /// Whether an entry may come to apply, which refuses it.
    const fn may_be_appended(self) -> bool {
        matches!(self, Self::Sibling | Self::EqualTime | Self::OtherParent)
    }
}

/// No answer takes longer.
const WITHIN: Duration = Duration::from_secs(5);

/// Everything that was asked for, and what must not have come of it.
#[derive(Default)]
pub(super) struct Ghosts {
    /// By node: how many entries apply may refuse.
    asked: BTreeMap<usize, u64>,
    /// By node: how many it has refused in this life, and in all.
    refused: BTreeMap<usize, (u64, u64)>,
    broken: Rc<RefCell<Option<String>>>,
}

impl Ghosts {
    /// Asks a node that runs.
    pub(super) fn ask(&mut self, cluster: &mut Cluster, index: usize, ghost: Ghost) {
        if ghost.may_be_appended() {
            *self.asked.entry(index).or_default() += 1;
        }
        let broken = self.broken.clone();
        drop(cluster.begin(index, move |node| async move {
            if let Some(text) = ask(&node, ghost).await {
                broken.borrow_mut().get_or_insert(text);
            }
        }));
    }

    /// Nothing came of anything, and apply refuses nothing but that: what a producer with a grant
    /// proposes extends the tip, because it knows all that is committed (E2, E14, A6).
    pub(super) fn check(&mut self, cluster: &Cluster) {
        if let Some(text) = self.broken.borrow_mut().take() {
            panic!("{text}");
        }
        for index in cluster.up() {
            let Some(node) = cluster.running(index) else { continue };
            let now = node.metrics().raft.refused.get();
            let (before, all) = self.refused.entry(index).or_default();
            *all += now.checked_sub(*before).unwrap_or(now);
            *before = now;
            let asked = self.asked.get(&index).copied().unwrap_or_default();
            assert!(
                *all <= asked,
                "E2: n{index} proposed a block that apply refused: it did not know the tip"
            );
        }
    }
}

/// Asks, and says what promise was broken.
async fn ask(node: &Node, ghost: Ghost) -> Option<String> {
    let ports = node.ports();
    let grant = ports.supervisor.send(GetSupervisorView).timeout(WITHIN).await.ok()?.grant?;
    let old = Grant { term: Term(grant.term.0.saturating_sub(1)) };
    let reader = node.reader();
    let tip = reader.block(reader.tip().height).ok()??;
    match ghost {
        Ghost::Sibling => propose(node, grant, later(&tip)).await,
        Ghost::EqualTime => {
            let (mut header, mut data) = next(node, &tip).await?;
            at(&mut header, &mut data, tip.header().time);
            propose(node, grant, Block::new(header, data)).await
        }
        Ghost::OtherParent => {
            let (mut header, data) = next(node, &tip).await?;
            header.last_header_hash = Hash::of(b"nowhere").to_bytes();
            propose(node, grant, Block::new(header, data)).await
        }
        Ghost::OldGrant => propose(node, old, later(&tip)).await,
        Ghost::SignSibling => {
            let (height, hash) = ports.signer.view.send(GetSignerView).timeout(WITHIN).await.ok()?.guarded?;
            let block = reader.block(height).ok()??;
            if block.hash() != hash {
                return None;
            }
            let sign = SignHeader { grant, block: Arc::new(later(&block)) };
            let signed = ports.signer.sign.send(sign).timeout(WITHIN).await.ok()?;
            signed.ok().map(|_| format!("I1: another header of height {height} was signed"))
        }
        Ghost::SignOldGrant => {
            let (height, _) = ports.signer.view.send(GetSignerView).timeout(WITHIN).await.ok()?.guarded?;
            let block = reader.block(height).ok()??;
            let sign = |grant| {
                let sign = SignHeader { grant, block: block.clone() };
                ports.signer.sign.send(sign).timeout(WITHIN)
            };
            // Now the guard has seen the term.
            sign(grant).await.ok()?.ok()?;
            let signed = sign(old).await.ok()?;
            signed
                .ok()
                .map(|_| format!("I5: the guard signed for term {} after term {}", old.term, grant.term))
        }
        Ghost::PostOldGrant => {
            let height = reader.da_progress().da_height;
            let get = GetBlobs { height, namespaces: vec![Namespace::of("headers")] };
            let blobs = ports.da.get.send(get).timeout(WITHIN).await.ok()?.ok()?;
            if blobs.is_empty() {
                return None;
            }
            let post = |grant| {
                let submit = SubmitBlobs { grant, blobs: blobs.clone() };
                ports.da.submit.send(submit).timeout(WITHIN)
            };
            // The same bytes again do no harm. Now the adapter has seen the term.
            post(grant).await.ok()?.ok()?;
            let posted = post(old).await.ok()?;
            posted
                .ok()
                .map(|_| format!("I5: DA was given blobs for term {} after term {}", old.term, grant.term))
        }
    }
}

/// Proposes a block that must not be committed.
async fn propose(node: &Node, grant: Grant, block: Block) -> Option<String> {
    let reader = node.reader();
    let current = node.ports().supervisor.send(GetSupervisorView).timeout(WITHIN).await.ok()?.grant;
    let is_old = current.is_some_and(|current| grant.term < current.term);
    let (height, hash) = (block.height(), block.hash());
    let proposal = ProposeBlock { grant, block: Arc::new(block), tail: None, forced: reader.forced() };
    match node.ports().raft.propose.send(proposal).timeout(WITHIN).await.ok()? {
        Ok(_) if reader.hash(height).ok()? != Some(hash) => {
            Some(format!("I2: {hash} was said to be committed at height {height}, the chain holds another"))
        }
        Ok(_) | Err(ProposeError::Refused { .. }) if is_old => {
            Some(format!("I5: a block for term {} was appended in a later term", grant.term))
        }
        // What was committed is looked at like any other block.
        Ok(_) | Err(_) => None,
    }
}

/// The same block a nanosecond later: another one.
fn later(block: &Block) -> Block {
    let (mut header, mut data) = (block.header().clone(), block.data().clone());
    let time = header.time.next();
    at(&mut header, &mut data, time);
    Block::new(header, data)
}

fn at(header: &mut Header, data: &mut Data, time: Timestamp) {
    header.time = time;
    if let Some(metadata) = &mut data.metadata {
        metadata.time = time;
    }
    header.data_hash = data.commitment().to_bytes();
}

/// An empty block that could follow.
async fn next(node: &Node, tip: &Block) -> Option<(Header, Data)> {
    let position = node.ports().engine.position.send(GetPosition).timeout(WITHIN).await.ok()?.ok()?;
    let (genesis, proposer) = (node.reader().genesis(), &tip.header().proposer_address);
    let now = tip.header().time.next();
    let block = build::next_block(genesis, Some(tip), &position.root, proposer, now, vec![]);
    Some((block.header().clone(), block.data().clone()))
}
