//! What a node that follows a chain keeps beside the blocks: how far it has read DA, who signs the
//! chain's headers, and the evidence of two headers for one height.
//!
//! A store with a follow record has no log of its own: blocks come from outside, checked by the
//! syncer, which holds the `Writer`.

use std::sync::PoisonError;

use baton_messages::chain::{SignedHeader, Signer};
use baton_messages::codec::encode;
use baton_messages::command::{Command, Verdict};
use baton_messages::types::{DaHeight, Hash, Height, Timestamp};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::backend::{Backend, Batch, Direction, Family, StoreError};
use crate::jobs::Kind;
use crate::records::{decode, key_number, meta, number_key};
use crate::writer::Writer;

/// Where following stands. Written with the blocks, so that it is never ahead of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowRecord {
    /// Reading DA from here on again finds everything that is not recorded yet.
    pub cursor: DaHeight,
    /// Who signs the chain's headers; the key is empty before the first block.
    pub signer: Signer,
    /// Above this DA height headers need an envelope. A record of its own, which older versions leave
    /// alone; absent before an envelope was seen.
    #[serde(skip)]
    pub strict_from: Option<DaHeight>,
    /// Headers are kept and no bodies. A record of its own, too; chosen once.
    #[serde(skip)]
    pub headers_only: bool,
}

/// Two signed headers that cannot both be in one chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The height at which the chain forks.
    pub height: Height,
    /// The header that was here first.
    pub first: SignedHeader,
    /// Where the first came from.
    pub first_from: String,
    /// The other one.
    pub second: SignedHeader,
    /// Where the other one came from.
    pub second_from: String,
    /// When it was found, by this node's clock.
    pub found: Timestamp,
}

/// What the proposer has left out though it was forced through DA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// The first DA height of the epoch in which it was posted.
    pub from: DaHeight,
    /// The last DA height of that epoch.
    pub to: DaHeight,
    /// The block that came too late for it.
    pub height: Height,
    /// Where on DA that block is.
    pub da_height: DaHeight,
    /// How many transactions are missing.
    pub count: u64,
    /// The hashes of the first of them, at most [`MOST_EVIDENCE`].
    pub txs: Vec<Hash>,
    /// When it was found, by this node's clock.
    pub found: Timestamp,
}

/// Most pieces of evidence that are kept: one says it all, a thousand say no more.
pub const MOST_EVIDENCE: usize = 16;

/// Why a store cannot be used to follow a chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FollowError {
    /// It has a Raft log.
    #[error(
        "this store belongs to a node that produces blocks: set node.aggregator to true, or make another home for a \
         node that follows"
    )]
    HasLog,
    /// It has headers, and bodies are wanted.
    #[error(
        "this store belongs to a light node and holds headers only: set node.light to true, or make another home for a node \
         that follows whole blocks"
    )]
    HeadersOnly,
    /// It has bodies, and headers are wanted.
    #[error(
        "this store belongs to a node that follows whole blocks: set node.light to false, or make another home for a light \
         node"
    )]
    WholeBlocks,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn evidence_key(number: u8) -> Bytes {
    [meta::EVIDENCE, &[number]].concat().into()
}

/// All evidence in the store.
pub(crate) fn load_evidence(backend: &dyn Backend) -> Result<Vec<Evidence>, StoreError> {
    use std::ops::Bound;
    let (from, to) = (evidence_key(0), evidence_key(u8::MAX));
    let range = (Bound::Included(&from[..]), Bound::Included(&to[..]));
    let found = backend.scan(Family::Meta, range, Direction::Forward, MOST_EVIDENCE)?;
    found.iter().map(|(_, bytes)| decode("evidence", bytes)).collect()
}

/// What was left out, if anything was.
pub(crate) fn load_left_out(backend: &dyn Backend) -> Result<Option<LeftOut>, StoreError> {
    let found = backend.get(Family::Meta, meta::LEFT_OUT)?;
    found.map(|bytes| decode("what was left out", &bytes)).transpose()
}

/// The follow record; `None` in the store of a node that produces.
pub(crate) fn load(backend: &dyn Backend) -> Result<Option<FollowRecord>, StoreError> {
    let Some(bytes) = backend.get(Family::Meta, meta::FOLLOW)? else { return Ok(None) };
    let mut record: FollowRecord = decode("follow record", &bytes)?;
    if let Some(bytes) = backend.get(Family::Meta, meta::STRICT_FROM)? {
        record.strict_from = Some(DaHeight(key_number("strict_from", &bytes)?));
    }
    record.headers_only = backend.get(Family::Meta, meta::HEADERS_ONLY)?.is_some();
    Ok(Some(record))
}

pub(crate) fn put(batch: &mut Batch, record: &FollowRecord) {
    batch.put(Family::Meta, meta::FOLLOW, encode(record));
    if let Some(height) = record.strict_from {
        batch.put(Family::Meta, meta::STRICT_FROM, number_key(height.0));
    }
    if record.headers_only {
        batch.put(Family::Meta, meta::HEADERS_ONLY, Bytes::new());
    }
}

impl Writer {
    /// Makes this the store of a node that follows, or checks that it is one. Durable when it
    /// returns.
    ///
    /// # Errors
    ///
    /// `HasLog` when the store has a log or a membership, `HeadersOnly` when it is one of a light
    /// node; `Store` when the device fails.
    pub async fn begin_follow(&self, from: DaHeight) -> Result<FollowRecord, FollowError> {
        self.begin(from, false).await
    }

    /// As [`Writer::begin_follow`], for a node that follows headers only.
    ///
    /// # Errors
    ///
    /// `HasLog` when the store has a log or a membership, `WholeBlocks` when it is one of a node that
    /// follows blocks; `Store` when the device fails.
    pub async fn begin_follow_headers(&self, from: DaHeight) -> Result<FollowRecord, FollowError> {
        self.begin(from, true).await
    }

    async fn begin(&self, from: DaHeight, headers_only: bool) -> Result<FollowRecord, FollowError> {
        let inner = &*self.inner;
        if let Some(record) = self.follow_record() {
            return match (record.headers_only, headers_only) {
                (true, false) => Err(FollowError::HeadersOnly),
                (false, true) => Err(FollowError::WholeBlocks),
                (true, true) | (false, false) => Ok(record),
            };
        }
        let has_log = {
            let chain = inner.chain.read().unwrap_or_else(PoisonError::into_inner);
            chain.applied.log.is_some() || chain.membership.log_id().is_some()
        };
        if has_log || inner.log.lock().last.is_some() {
            return Err(FollowError::HasLog);
        }
        let record = FollowRecord { cursor: from, headers_only, ..FollowRecord::default() };
        let mut batch = Batch::default();
        put(&mut batch, &record);
        inner.jobs.run(Kind::Other, batch, true).await?;
        inner.chain.write().unwrap_or_else(PoisonError::into_inner).follow = Some(record.clone());
        Ok(record)
    }

    fn follow_record(&self) -> Option<FollowRecord> {
        self.inner.chain.read().unwrap_or_else(PoisonError::into_inner).follow.clone()
    }

    /// Applies what was found outside: a block with its signature, and what DA holds of the chain.
    ///
    /// One batch with the follow record, visible when this returns and not synced: what a crash
    /// takes back is read again from where the record that survives says. A block may have the
    /// time of the one before: ev-node allows that.
    ///
    /// # Errors
    ///
    /// `StoreError` when the device failed; then nothing is applied.
    pub fn follow(&self, commands: &[Command], record: &FollowRecord) -> Result<Vec<Verdict>, StoreError> {
        self.apply_followed(commands, record)
    }

    /// Keeps two headers for one height. Durable when it returns. What is kept already, or over the
    /// bound, changes nothing.
    ///
    /// # Errors
    ///
    /// `StoreError` when the device fails.
    pub async fn keep_evidence(&self, evidence: Evidence) -> Result<(), StoreError> {
        let inner = &*self.inner;
        // One after the other: each has a number of its own, also when several are kept at once.
        let _repair = inner.repair.lock().await;
        let number = {
            let chain = inner.chain.read().unwrap_or_else(PoisonError::into_inner);
            let known = |kept: &Evidence| kept.first == evidence.first && kept.second == evidence.second;
            if chain.evidence.len() >= MOST_EVIDENCE || chain.evidence.iter().any(known) {
                return Ok(());
            }
            chain.evidence.len()
        };
        let mut batch = Batch::default();
        let number = u8::try_from(number).unwrap_or(u8::MAX);
        batch.put(Family::Meta, evidence_key(number), encode(&evidence));
        inner.jobs.run(Kind::Other, batch, true).await?;
        inner.chain.write().unwrap_or_else(PoisonError::into_inner).evidence.push(evidence);
        Ok(())
    }
}

impl Writer {
    /// Keeps what the proposer has left out. Durable when it returns; the first finding stays.
    ///
    /// # Errors
    ///
    /// `StoreError` when the device fails.
    pub async fn keep_left_out(&self, left_out: LeftOut) -> Result<(), StoreError> {
        let inner = &*self.inner;
        if inner.chain.read().unwrap_or_else(PoisonError::into_inner).left_out.is_some() {
            return Ok(());
        }
        let mut batch = Batch::default();
        batch.put(Family::Meta, Bytes::from_static(meta::LEFT_OUT), encode(&left_out));
        inner.jobs.run(Kind::Other, batch, true).await?;
        inner.chain.write().unwrap_or_else(PoisonError::into_inner).left_out = Some(left_out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use baton_messages::chain::Header;

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// A change here is a change of the store's format: it needs a migration step.
    #[test]
    fn what_a_following_node_keeps_has_fixed_bytes() {
        let signer = Signer { address: Bytes::from_static(&[1, 2]), pub_key: Bytes::from_static(&[3]) };
        let record = FollowRecord { cursor: DaHeight(7), signer: signer.clone(), ..FollowRecord::default() };
        let bytes = encode(&record);
        assert_eq!(hex(&bytes), "01070201020103");
        assert_eq!(decode::<FollowRecord>("golden", &bytes), Ok(record));

        let header = Header { height: Height(9), chain_id: "c".into(), ..Header::default() };
        let first = SignedHeader { header, signature: Bytes::from_static(&[5]), signer };
        let second = SignedHeader { signature: Bytes::from_static(&[6]), ..first.clone() };
        let evidence = Evidence {
            height: Height(9),
            first,
            first_from: "a".into(),
            second,
            second_from: "b".into(),
            found: Timestamp(4),
        };
        let bytes = encode(&evidence);
        let signed = |signature: &str| format!("000009000000000000016300{signature}0201020103");
        let golden = format!("0109{}0161{}016204", signed("0105"), signed("0106"));
        assert_eq!(hex(&bytes), golden);
        assert_eq!(decode::<Evidence>("golden", &bytes), Ok(evidence));

        let left_out = LeftOut {
            from: DaHeight(5),
            to: DaHeight(8),
            height: Height(9),
            da_height: DaHeight(13),
            count: 2,
            txs: vec![Hash([7; 32])],
            found: Timestamp(4),
        };
        let bytes = encode(&left_out);
        assert_eq!(hex(&bytes), format!("010508090d0201{}04", "07".repeat(32)));
        assert_eq!(decode::<LeftOut>("golden", &bytes), Ok(left_out));
    }
}
