//! How the store of a node that followed a chain becomes that of a cluster of one voter, in which
//! the chain goes on.
//!
//! One batch: before it the store follows, after it it is the cluster's. The blocks stay where
//! they are; the state machine begins at the tip, as from a snapshot that stands where the log
//! begins. Members that join later get that snapshot and fill in the bodies, as always.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use baton_messages::codec::encode;
use baton_messages::types::{Hash, Height, Member, MemberId, Term};
use uuid::Uuid;

use crate::backend::{Batch, Family, StoreError};
use crate::chain;
use crate::head::Head;
use crate::jobs::Kind;
use crate::raft_types::{Membership, StoredMembership, log_id};
use crate::records::{LogIdRecord, MembershipRecord, VoteRecord, meta};
use crate::writer::Writer;

/// Why a store does not become a cluster's. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TakeOverError {
    /// It does not follow a chain.
    #[error("this store does not follow a chain: there is nothing to take over")]
    NotFollowing,
    /// It has a log or a vote already.
    #[error("this store has a Raft log already")]
    HasLog,
    /// It ends elsewhere.
    #[error("the last block here is {hash} at height {height}, not {wanted} at height {wanted_height}")]
    OtherTip {
        /// The height of the last block.
        height: Height,
        /// Its hash.
        hash: Hash,
        /// The height it should have.
        wanted_height: Height,
        /// The hash it should have.
        wanted: Hash,
    },
    /// The proposer signed two chains.
    #[error("two headers for height {0} are known: find out which chain is right first")]
    Forked(Height),
    /// A block is not here.
    #[error("the block at height {0} is not here yet")]
    Missing(Height),
    /// The last block's signature is not here.
    #[error("the signature of the last block, at height {0}, is not here")]
    Unsigned(Height),
    /// The members contradict each other.
    #[error("no membership: {0}")]
    Membership(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Writer {
    /// Ends following at this block: from here on the store belongs to a cluster whose only voter
    /// is `member`. Durable when it returns, and done whole or not at all. The store must be
    /// reopened afterwards, before anything else is done with it.
    ///
    /// `seen` is the highest term the member's guard has signed in: the cluster's terms begin above it,
    /// because the guard refuses older ones (P2).
    ///
    /// # Errors
    ///
    /// `TakeOverError`, saying what is not as it must be.
    pub async fn take_over(
        &self,
        height: Height,
        hash: Hash,
        member: Member,
        cluster: Uuid,
        seen: Term,
    ) -> Result<(), TakeOverError> {
        let inner = &*self.inner;
        let _repair = inner.repair.lock().await;
        let batch = self.take_over_batch(height, hash, member, cluster, seen)?;
        Ok(inner.jobs.run(Kind::Other, batch, true).await?)
    }

    fn take_over_batch(
        &self,
        height: Height,
        hash: Hash,
        member: Member,
        cluster: Uuid,
        seen: Term,
    ) -> Result<Batch, TakeOverError> {
        let inner = &*self.inner;
        let _turn = inner.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let here = inner.chain.read().unwrap_or_else(PoisonError::into_inner).clone();
        {
            let log = inner.log.lock();
            if log.last.is_some() || log.vote.is_some() || here.applied.log.is_some() {
                return Err(TakeOverError::HasLog);
            }
        }
        if here.follow.is_none() {
            return Err(TakeOverError::NotFollowing);
        }
        let tip = here.applied.tip;
        if (tip.height, tip.hash) != (height, hash) || height == Height(0) {
            let (wanted_height, wanted) = (height, hash);
            return Err(TakeOverError::OtherTip {
                height: tip.height,
                hash: tip.hash,
                wanted_height,
                wanted,
            });
        }
        if let Some(height) = here.evidence.iter().map(|evidence| evidence.height).min() {
            return Err(TakeOverError::Forked(height));
        }
        if let Some((first, _)) = here.missing.first() {
            return Err(TakeOverError::Missing(*first));
        }
        if inner.backend.get(Family::Signatures, &crate::records::number_key(height.0))?.is_none() {
            return Err(TakeOverError::Unsigned(height));
        }
        // As the first entry of a log that is made by initialising.
        let first = log_id(0, 0);
        let id = MemberId::of(member.storage);
        let membership = Membership::new(vec![[id].into()], BTreeMap::from([(id, member)]))
            .map_err(|error| TakeOverError::Membership(error.to_string()))?;
        let membership = StoredMembership::new(Some(first), membership);
        let mut applied = here.applied;
        applied.log = Some(LogIdRecord::from(first));
        let head = Head {
            genesis_hash: inner.identity.genesis_hash,
            log: applied.log,
            membership: MembershipRecord::from(&membership),
            header: chain::header(&*inner.backend, height)?.map(|record| record.header),
            tip,
            window: chain::window(&*inner.backend, tip, None)?,
            da: applied.da,
            forced: applied.forced,
            replay_horizon: inner.genesis.initial_height,
            command_version: here.command_version,
            pause: None,
        };
        let mut batch = Batch::default();
        batch.delete(Family::Meta, meta::FOLLOW);
        batch.delete(Family::Meta, meta::STRICT_FROM);
        batch.put(Family::Meta, meta::CLUSTER, encode(&cluster));
        batch.put(Family::Meta, meta::MEMBERSHIP, encode(&head.membership));
        batch.put(Family::Meta, meta::APPLIED, encode(&applied));
        batch.put(Family::Meta, meta::PURGED, encode(&LogIdRecord::from(first)));
        batch.put(Family::Meta, meta::SNAPSHOT, head.encode());
        if seen > Term(0) {
            // As one that stood in that term, and was not elected.
            let vote = VoteRecord { term: seen.0, voted_for: id, committed: false };
            batch.put(Family::Meta, meta::VOTE, encode(&vote));
        }
        Ok(batch)
    }
}
