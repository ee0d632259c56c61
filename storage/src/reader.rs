//! Reading the chain. Readers never wait for the storage thread.

use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLockReadGuard};

use baton_messages::chain::{Block, Header, SignedHeader, Signer};
use baton_messages::command::{DaProgress, ForcedPosition, Lane};
use baton_messages::genesis::Genesis;
use baton_messages::types::{DaHeight, Hash, Height, LogIndex, Member, MemberId, Term, Tip};
use bytes::Bytes;

use crate::backend::{Direction, Family, StoreError};
use crate::chain::{self, Chain};
use crate::follow::{Evidence, FollowRecord, LeftOut};
use crate::head::{Head, HeadError};
use crate::raft_types::{LogId, StoredMembership};
use crate::records::{RangeRecord, SignatureRecord, decode, meta, number_key, range_key};
use crate::store::Inner;

/// What was applied, as this node holds it. Cheap to clone.
///
/// Everything read here is applied and visible, not necessarily durable on this node: after a
/// crash it is applied again from the log (P4).
#[derive(Clone)]
pub struct Reader {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("tip", &self.tip()).finish_non_exhaustive()
    }
}

impl Reader {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    fn chain(&self) -> RwLockReadGuard<'_, Chain> {
        self.inner.chain.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last applied block.
    #[must_use]
    pub fn tip(&self) -> Tip {
        self.chain().tip()
    }

    /// The last applied log entry; `None` before the first.
    #[must_use]
    pub fn applied(&self) -> Option<(LogIndex, Term)> {
        self.chain().applied.log.map(|log| (LogIndex(log.index), Term(log.term)))
    }

    /// The applied membership.
    #[must_use]
    pub fn membership(&self) -> StoredMembership {
        self.chain().membership.clone()
    }

    /// Whether this store is or was a member of its cluster, by what is applied. One that was removed
    /// has belonged; one that a leader was at before anybody committed that has not.
    ///
    /// # Errors
    ///
    /// `StoreError` when the device fails.
    pub fn has_belonged(&self) -> Result<bool, StoreError> {
        if self.inner.is_named_by(&self.membership()) {
            return Ok(true);
        }
        let noted = self.inner.backend.get(Family::Meta, meta::BELONGED);
        Ok(self.inner.seen(noted)?.is_some())
    }

    /// A member, as applied.
    #[must_use]
    pub fn member(&self, id: MemberId) -> Option<Member> {
        self.chain().membership.membership().get_node(&id).cloned()
    }

    /// The last entry of the log, applied or not, durable or not; what votes compare. `None`
    /// before the first.
    #[must_use]
    pub fn last_log(&self) -> Option<(Term, LogIndex)> {
        self.inner.log.lock().last.map(|log| (Term(log.leader_id.term), LogIndex(log.index)))
    }

    /// The last entry that is on the disk for good: what this member may be trusted to have after
    /// the power went. `None` before the first.
    #[must_use]
    pub fn durable_log(&self) -> Option<(Term, LogIndex)> {
        self.inner.log.durable().map(|log| (Term(log.leader_id.term), LogIndex(log.index)))
    }

    /// Whether this member is the only voter, as applied: then it has signed everything itself.
    #[must_use]
    pub fn is_sole_voter(&self) -> bool {
        let own = MemberId::of(self.inner.identity.storage);
        let chain = self.chain();
        let mut voters = chain.membership.membership().voter_ids();
        voters.next() == Some(own) && voters.next().is_none()
    }

    /// Whether a snapshot can be installed here, as far as can be told without what is before it.
    /// One that covers no more than what is applied is not looked at: nobody installs it.
    ///
    /// # Errors
    ///
    /// `HeadError`: it contradicts itself, or what is committed here.
    pub fn check_head(&self, head: &Head) -> Result<(), HeadError> {
        let (tip, applied) = {
            let chain = self.chain();
            (chain.tip(), chain.applied.log.map(LogId::from))
        };
        if head.log_id() <= applied {
            return Ok(());
        }
        head.check(&self.inner.genesis, &tip)
    }

    /// The version of log entries in force.
    #[must_use]
    pub fn command_version(&self) -> u8 {
        self.chain().command_version
    }

    /// Why an operator has stopped production on whoever leads; `None` while nobody has.
    #[must_use]
    pub fn pause(&self) -> Option<Arc<str>> {
        self.chain().pause.clone()
    }

    /// How far the chain is on DA.
    #[must_use]
    pub fn da_progress(&self) -> DaProgress {
        self.chain().applied.da
    }

    /// The forced-inclusion position after the tip.
    #[must_use]
    pub fn forced(&self) -> ForcedPosition {
        self.chain().applied.forced
    }

    /// Where following stands; `None` in the store of a node that produces.
    #[must_use]
    pub fn follow(&self) -> Option<FollowRecord> {
        self.chain().follow.clone()
    }

    /// Whether only headers are kept here: the store of a light node.
    #[must_use]
    pub fn is_headers_only(&self) -> bool {
        self.chain().follow.as_ref().is_some_and(|follow| follow.headers_only)
    }

    /// The pairs of headers that cannot both be in one chain.
    #[must_use]
    pub fn evidence(&self) -> Vec<Evidence> {
        self.chain().evidence.clone()
    }

    /// What the proposer of the chain that is followed has left out, if anything was found.
    #[must_use]
    pub fn left_out(&self) -> Option<LeftOut> {
        self.chain().left_out.clone()
    }

    /// The height of the chain's first block.
    #[must_use]
    pub fn initial_height(&self) -> Height {
        self.inner.genesis.initial_height
    }

    /// What the chain begins with.
    #[must_use]
    pub fn genesis(&self) -> &Genesis {
        &self.inner.genesis
    }

    /// The chain's name.
    #[must_use]
    pub fn chain_id(&self) -> &str {
        &self.inner.genesis.chain_id
    }

    /// The lowest height from which on every body up to the tip is here. Above the tip when
    /// even the tip's body is missing.
    #[must_use]
    pub fn first_height_with_body(&self) -> Height {
        self.chain().missing.last().map_or(self.initial_height(), |(_, last)| last.next())
    }

    /// The next block to fetch for `Writer::backfill`, downwards: its height and hash.
    ///
    /// # Errors
    ///
    /// `StoreError` when the device fails or the data is damaged.
    pub fn missing(&self) -> Result<Option<(Height, Hash)>, StoreError> {
        let Some((_, height)) = self.chain().missing.last().copied() else { return Ok(None) };
        self.inner.seen(chain::wanted_hash(&*self.inner.backend, height)).map(|hash| Some((height, hash)))
    }

    /// The ranges of committed heights, both ends inclusive and ascending, whose bodies are missing.
    #[must_use]
    pub fn gaps(&self) -> Vec<(Height, Height)> {
        self.chain().missing.clone()
    }

    /// The committed header at a height.
    ///
    /// # Errors
    ///
    /// `StoreError` when the device fails or the data is damaged.
    pub fn header(&self, height: Height) -> Result<Option<Header>, StoreError> {
        if let Some(block) = self.chain().recent.get(height) {
            return Ok(Some(block.header().clone()));
        }
        let found = self.inner.seen(chain::header(&*self.inner.backend, height))?;
        Ok(found.map(|record| record.header))
    }

    /// The hash of the committed header at a height.
    ///
    /// # Errors
    ///
    /// `StoreError` when the device fails or the data is damaged.
    pub fn hash(&self, height: Height) -> Result<Option<Hash>, StoreError> {
        if let Some(block) = self.chain().recent.get(height) {
            return Ok(Some(block.hash()));
        }
        let found = self.inner.seen(chain::header(&*self.inner.backend, height))?;
        Ok(found.map(|record| record.hash))
    }

    /// The committed block at a height; `None` above the tip and where the body is missing.
    ///
    /// # Errors
    ///
    /// `StoreError` when the device fails or the data is damaged.
    pub fn block(&self, height: Height) -> Result<Option<Arc<Block>>, StoreError> {
        if let Some(block) = self.chain().recent.get(height) {
            return Ok(Some(block.clone()));
        }
        self.inner.seen(chain::block(&*self.inner.backend, height))
    }

    /// The signature of the committed header at a height, once it is known here.
    ///
    /// # Errors
    ///
    /// `StoreError` when the device fails or the data is damaged.
    pub fn signature(&self, height: Height) -> Result<Option<Bytes>, StoreError> {
        let found = self.inner.seen(self.inner.backend.get(Family::Signatures, &number_key(height.0)))?;
        let Some(bytes) = found else { return Ok(None) };
        let record: SignatureRecord = self.inner.seen(decode("signature", &bytes))?;
        // A signature that came before its header may be for another one.
        let fits = self.hash(height)?.is_some_and(|hash| hash == record.hash);
        Ok(fits.then_some(record.signature))
    }

    /// The signed header at a height, once its signature is known here. `signer` is the
    /// chain's proposer.
    ///
    /// # Errors
    ///
    /// `StoreError` when the device fails or the data is damaged.
    pub fn signed_header(&self, height: Height, signer: &Signer) -> Result<Option<SignedHeader>, StoreError> {
        let Some(signature) = self.signature(height)? else { return Ok(None) };
        let header = self.header(height)?;
        Ok(header.map(|header| SignedHeader { header, signature, signer: signer.clone() }))
    }

    /// The height of the committed block with a header hash.
    ///
    /// # Errors
    ///
    /// `StoreError` when the device fails or the data is damaged.
    pub fn height_of(&self, hash: &Hash) -> Result<Option<Height>, StoreError> {
        let found = self.inner.seen(chain::place(&*self.inner.backend, *hash))?;
        Ok(found.map(|place| place.height))
    }

    /// Where on DA a height's blob of one lane is, as recorded in the log.
    ///
    /// # Errors
    ///
    /// `StoreError` when the device fails or the data is damaged.
    pub fn da_height(&self, lane: Lane, height: Height) -> Result<Option<DaHeight>, StoreError> {
        let (from, to) = (range_key(lane, height), range_key(lane, Height(u64::MAX)));
        let range = (Bound::Included(&from[..]), Bound::Included(&to[..]));
        let found =
            self.inner.seen(self.inner.backend.scan(Family::DaHeights, range, Direction::Forward, 1))?;
        let Some((_, bytes)) = found.first() else { return Ok(None) };
        let record: RangeRecord = self.inner.seen(decode("range on DA", bytes))?;
        Ok((record.from <= height).then_some(record.da_height))
    }

    /// Where on DA a height's header and data are, once both are recorded.
    ///
    /// # Errors
    ///
    /// `StoreError` when the device fails or the data is damaged.
    pub fn da_heights(&self, height: Height) -> Result<Option<(DaHeight, DaHeight)>, StoreError> {
        let header = self.da_height(Lane::Header, height)?;
        let data = self.da_height(Lane::Data, height)?;
        Ok(header.zip(data))
    }
}
