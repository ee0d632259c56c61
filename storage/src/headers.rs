//! The writer's entrance of a light node: headers with their signatures, and no bodies.
//!
//! It is the same compare-and-set on the tip, on the same records, without what only a body can
//! show. Every body up to the tip is missing then, and readers see it so.

use std::sync::{Arc, PoisonError};

use baton_messages::chain::SignedHeader;
use baton_messages::codec::encode;
use baton_messages::types::{Hash, LogIndex, Term, Tip};
use fail::fail_point;

use crate::backend::{Batch, Family, StoreError};
use crate::chain::all_missing;
use crate::follow::{self, FollowRecord};
use crate::records::{HeaderRecord, meta, number_key};
use crate::verdict::{self, Decision};
use crate::writer::{AppliedEvent, Writer, put_signature};

impl Writer {
    /// Continues a chain of headers with these, each with its hash; all of them or none. Their
    /// signatures must have been verified.
    ///
    /// One batch with the follow record, visible when this returns and not synced, as
    /// [`Writer::follow`]: what a crash takes back is asked for again.
    ///
    /// # Errors
    ///
    /// `Corrupt` when one does not continue the chain here, or whole blocks are kept here; otherwise
    /// when the device failed. Then nothing is applied.
    pub fn follow_headers(
        &self,
        headers: &[(Arc<SignedHeader>, Hash)],
        record: &FollowRecord,
    ) -> Result<Tip, StoreError> {
        let inner = &*self.inner;
        let turn = inner.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let tips = self.write_headers(headers, record).inspect_err(|error| inner.jobs.report(error))?;
        drop(turn);
        let tip = inner.chain.read().unwrap_or_else(PoisonError::into_inner).tip();
        let blocks = tips.into_iter().map(|tip| (LogIndex(0), tip)).collect();
        (self.notify)(AppliedEvent { tip, index: LogIndex(0), term: Term(0), blocks, refused: vec![] });
        Ok(tip)
    }

    fn write_headers(
        &self,
        headers: &[(Arc<SignedHeader>, Hash)],
        record: &FollowRecord,
    ) -> Result<Vec<Tip>, StoreError> {
        let inner = &*self.inner;
        if let Some(trouble) = inner.jobs.trouble() {
            return Err(trouble);
        }
        let mut applied = {
            let chain = inner.chain.read().unwrap_or_else(PoisonError::into_inner);
            if !record.headers_only || !chain.follow.as_ref().is_some_and(|follow| follow.headers_only) {
                return Err(StoreError::Corrupt("headers alone are not for a store of whole blocks".into()));
            }
            chain.applied
        };
        let (mut batch, mut tips) = (Batch::default(), Vec::with_capacity(headers.len()));
        for (signed, hash) in headers {
            let header = &signed.header;
            let tip = match verdict::followed_header(&inner.genesis, &applied.tip, header, *hash) {
                Decision::Commit(tip) | Decision::Standing(tip) => tip,
                Decision::Refuse(refusal) => {
                    let reason =
                        format!("header {} does not continue {}: {refusal:?}", header.height, applied.tip);
                    return Err(StoreError::Corrupt(reason));
                }
            };
            let kept = HeaderRecord { hash: *hash, header: header.clone() };
            batch.put(Family::Headers, number_key(tip.height.0), encode(&kept));
            batch.put(Family::Index, hash.to_bytes(), encode(&tip));
            put_signature(&mut batch, tip.height, *hash, signed.signature.clone());
            applied.tip = tip;
            tips.push(tip);
        }
        batch.put(Family::Meta, meta::APPLIED, encode(&applied));
        follow::put(&mut batch, record);
        fail_point!("storage.before_follow");
        inner.backend.write(batch)?;
        fail_point!("storage.after_follow");
        let mut chain = self.chain();
        chain.applied = applied;
        chain.follow = Some(record.clone());
        chain.missing = all_missing(&inner.genesis, applied.tip.height);
        Ok(tips)
    }
}
