//! What a producer of an older term still wants, and what nobody agreed on: asked for on purpose,
//! because the real producers rarely are that late.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use baton_actors::executor::build;
use baton_actors::signer::audit::Event as Audit;
use baton_messages::chain::{Block, Data, Header};
use baton_messages::da::{DaError, SubmitBlobs};
use baton_messages::engine::GetPosition;
use baton_messages::raft::{ProposeBlock, ProposeError};
use baton_messages::signer::{SignError, SignHeader};
use baton_messages::types::{Grant, Hash, Term, Timestamp};

use super::Situation;
use super::drive::Drive;
use crate::cluster::Cluster;
use crate::node::Node;

/// What one sink answered: the situation it shows, or what is wrong with it.
type Answer = Result<Option<Situation>, String>;
/// Sinks that were asked, and what they answered.
pub(super) type Asked = Rc<RefCell<Option<Vec<Answer>>>>;

const WITHIN: Duration = Duration::from_secs(5);

/// A block that nobody agreed on: as this one, a moment later.
fn sibling(block: &Block) -> Arc<Block> {
    let (header, data) = (block.header().clone(), block.data().clone());
    at(Timestamp(header.time.0 + 1), header, data)
}

fn at(time: Timestamp, mut header: Header, mut data: Data) -> Arc<Block> {
    header.time = time;
    if let Some(metadata) = &mut data.metadata {
        metadata.time = time;
    }
    header.data_hash = data.commitment().to_bytes();
    Block::shared(header, data)
}

/// Two blocks that could follow the tip, but for their parent's time and for another parent.
async fn almost_next(node: &Node) -> Option<[Arc<Block>; 2]> {
    let reader = node.reader();
    let tip = reader.block(reader.tip().height).ok()??;
    let position = node.ports().engine.position.send(GetPosition).timeout(WITHIN).await.ok()?.ok()?;
    let (proposer, time) = (&tip.header().proposer_address, tip.header().time);
    let next = build::next_block(reader.genesis(), Some(&tip), &position.root, proposer, time, vec![]);
    let (header, data) = (next.header().clone(), next.data().clone());
    let elsewhere = Header { last_header_hash: Hash::of(b"nowhere").to_bytes(), ..header.clone() };
    Some([at(time, header, data.clone()), Block::shared(elsewhere, data)])
}

/// Entries that apply refused. What a producer with a grant proposes extends the tip, because it
/// knows everything that is committed (E2, E14, A6): only what was asked for here is refused.
#[derive(Default)]
pub(super) struct Refusals {
    /// By node: how many may be refused.
    asked: BTreeMap<usize, u64>,
    /// By node: how many were in this life, and in all.
    refused: BTreeMap<usize, (u64, u64)>,
}

impl Refusals {
    pub(super) fn check(&mut self, cluster: &Cluster) {
        for index in cluster.up() {
            let Some(metrics) = cluster.host(index).metrics() else { continue };
            let now = metrics.raft.refused.get();
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

/// Entries of one question that apply may refuse.
const REFUSED: u64 = 3;

impl Drive {
    /// Asks the sinks of a node that leads. `None`: it does not lead long enough.
    pub(super) fn ask_sinks(&mut self, leader: usize) -> Option<()> {
        let host = self.cluster.host(leader);
        let term = host.vote().map(|vote| vote.leader_id.term)?;
        let da = host.da()?;
        let lines = host.machine().audit.lines();
        let signed = lines.iter().rev().find_map(|line| match line.event {
            Audit::Signed { height, term, .. } => Some((height, term)),
            _ => None,
        });
        // It has signed under this term, in this life: its guard has seen it.
        let seen = self.cluster.signed_under(leader);
        let (height, _) = signed.filter(|(_, under)| *under == seen && seen.0 == term && term > 1)?;
        let block = self.cluster.reader(leader).block(height).ok().flatten()?;
        let (old, now) = (Grant { term: Term(term - 1) }, Grant { term: Term(term) });
        let other = sibling(&block);
        let asked = self.cluster.begin(leader, move |node| async move {
            let mut answers: Vec<Answer> = vec![];
            let signer = &node.ports().signer.sign;
            let late = signer.send(SignHeader { grant: old, block: block.clone() }).timeout(WITHIN).await;
            answers.push(match late {
                Ok(Ok(_)) => Err(format!("I5: the guard signed under term {} after {term}", term - 1)),
                Ok(Err(SignError::StaleGrant { .. })) => Ok(Some(Situation::GuardFenced)),
                _ => Ok(None),
            });
            let twice = signer.send(SignHeader { grant: now, block: other.clone() }).timeout(WITHIN).await;
            answers.push(match twice {
                Ok(Ok(_)) => Err(format!("I1: a second header of {height} was signed")),
                Ok(Err(SignError::DoubleSign { .. })) => Ok(Some(Situation::GuardRefused)),
                _ => Ok(None),
            });
            let seen = da.submit.send(SubmitBlobs { grant: now, blobs: vec![] }).timeout(WITHIN).await;
            let late = da.submit.send(SubmitBlobs { grant: old, blobs: vec![] }).timeout(WITHIN).await;
            answers.push(match (seen, late) {
                (Ok(_), Ok(Ok(_))) => Err(format!("I5: DA took blobs of term {} after {term}", term - 1)),
                (_, Ok(Err(DaError::StaleGrant(_)))) => Ok(Some(Situation::DaFenced)),
                _ => Ok(None),
            });
            let propose = &node.ports().raft.propose;
            let forced = node.reader().forced();
            let proposal = |grant, block| ProposeBlock { grant, block, tail: None, forced };
            let late = propose.send(proposal(old, block.clone())).timeout(WITHIN).await;
            answers.push(match late {
                Ok(Ok(_) | Err(ProposeError::Refused { .. })) => {
                    Err(format!("I5: Raft appended a proposal of term {} in {term}", term - 1))
                }
                Ok(Err(ProposeError::NotLeader { .. })) => Ok(Some(Situation::RaftFenced)),
                _ => Ok(None),
            });
            let other = propose.send(proposal(now, other)).timeout(WITHIN).await;
            answers.push(match other {
                Ok(Ok(committed)) => {
                    Err(format!("I2: a sibling of {height} is said to be {}", committed.tip))
                }
                _ => Ok(None),
            });
            // What apply lets pass is looked at like any other block.
            for almost in almost_next(&node).await.into_iter().flatten() {
                let _ = propose.send(proposal(now, almost)).timeout(WITHIN).await;
            }
            answers
        });
        *self.refusals.asked.entry(leader).or_default() += REFUSED;
        self.asked.push(asked);
        Some(())
    }

    pub(super) fn sink_answers(&mut self) {
        let mut answered = vec![];
        self.asked.retain(|asked| match asked.borrow_mut().take() {
            Some(answers) => {
                answered.extend(answers);
                false
            }
            None => true,
        });
        for answer in answered {
            match answer {
                Ok(Some(situation)) => self.reached(situation),
                Ok(None) => {}
                Err(wrong) => panic!("{wrong}"),
            }
        }
    }
}
