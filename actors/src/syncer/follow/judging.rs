//! What becomes of a header or of data that somebody offers.

use std::sync::Arc;

use actix::Context;
use baton_messages::chain::{Data, SignedHeader};
use baton_messages::command::Lane;
use baton_messages::follow::{Candidate, Judged, Origin, Piece};
use baton_messages::types::{DaHeight, Height, Timestamp};
use baton_messages::wire::validate::Payload;
use baton_storage::{Evidence, StoreError};

use super::super::candidates::{Kept, is_empty, links};
use super::super::{Error, Syncer, rules};
use super::{Following, UNLINKED};

/// What is said of data that are not those of their height.
const FOREIGN: &str = "the header of its height commits to other data";

impl Following {
    /// Judges one piece.
    fn judge_one(
        &mut self,
        candidate: Candidate,
        now: Timestamp,
    ) -> Result<(Judged, Option<Evidence>), StoreError> {
        let Candidate { piece, origin } = candidate;
        match piece {
            Piece::Header(signed) => self.judge_header(signed, false, origin, now),
            Piece::Checked(signed) => self.judge_header(signed, true, origin, now),
            // Where only headers are kept, nobody asks for data.
            Piece::Data(_) if self.is_headers_only() => Ok((Judged::Ignored, None)),
            Piece::Data(data) => Ok((self.judge_data(data, origin, now)?, None)),
        }
    }

    fn judge_header(
        &mut self,
        signed: Arc<SignedHeader>,
        checked: bool,
        origin: Origin,
        now: Timestamp,
    ) -> Result<(Judged, Option<Evidence>), StoreError> {
        let (height, hash) = (signed.header.height, signed.header.hash());
        let reader = self.store.reader();
        let tip = reader.tip().height;
        let standing = if height <= tip { reader.hash(height)? } else { None };
        let known = standing == Some(hash) || self.candidates.knows(height, hash);
        // Anybody may write a true header with a signature that is none: that is not on DA.
        if known
            && origin.da().is_some()
            && let Err(wrong) = signed.verify_signer()
        {
            self.metrics.refuse("invalid");
            return Ok((Judged::Invalid(wrong.to_string()), None));
        }
        if standing == Some(hash) {
            if let Some(da) = origin.da() {
                self.included(Lane::Header, height, da, is_empty(&signed.header.data_hash));
            }
            return Ok((Judged::Known, None));
        }
        let payload = match (known, checked) {
            (true, _) => Ok(Payload::Wire),
            (false, true) => rules::of_chain(reader.genesis(), &signed.header).map(|()| Payload::Wire),
            (false, false) => rules::header(reader.genesis(), &signed, now),
        };
        let payload = match payload {
            Ok(payload) => payload,
            // Of another header than that of the chain no time will make the right one.
            Err(wrong) if wrong.may_pass() && standing.is_some() => Payload::Wire,
            Err(wrong) if wrong.may_pass() => {
                self.metrics.refuse("future");
                // The proposer has signed it: the chain is that far.
                self.future = self.future.max(height);
                self.candidates.not_yet(height, signed.header.time, &origin);
                return Ok((Judged::Ignored, None));
            }
            Err(wrong) => {
                self.metrics.refuse("invalid");
                return Ok((Judged::Invalid(wrong.to_string()), None));
            }
        };
        let evidence = |first: SignedHeader, first_from: String| Evidence {
            height,
            first,
            first_from,
            second: SignedHeader::clone(&signed),
            second_from: origin.to_string(),
            found: now,
        };
        if standing.is_some() {
            let first = reader.signed_header(height, &self.record.signer)?;
            let first =
                first.ok_or_else(|| StoreError::Corrupt(format!("block {height} has no signature")))?;
            if first.signature == signed.signature {
                return Ok((self.twin(), None));
            }
            return Ok((Judged::Fork, Some(evidence(first, "the chain here".to_owned()))));
        }
        self.highest = self.highest.max(height);
        Ok(match self.candidates.header(self.floor(), signed.clone(), hash, origin.clone()) {
            Kept::New => {
                if payload == Payload::Legacy {
                    self.candidates.may_have_a_twin(height);
                }
                (Judged::New, None)
            }
            Kept::Known => (Judged::Known, None),
            Kept::Dropped | Kept::Foreign => {
                self.metrics.refuse("no_room");
                (Judged::Ignored, None)
            }
            Kept::Twin => (self.twin(), None),
            Kept::Fork(first, from) => {
                (Judged::Fork, Some(evidence(SignedHeader::clone(&first), from.to_string())))
            }
        })
    }

    /// One signature, two hashes: the same payload in two encodings, which anybody can make of a header
    /// that carries, or could carry, legacy fields (wire section 2.2). Nobody signed twice, so it is no fork.
    /// Which of the two is the chain's, the next header says.
    fn twin(&self) -> Judged {
        self.metrics.refuse("twin");
        Judged::Ignored
    }

    fn judge_data(&mut self, data: Arc<Data>, origin: Origin, now: Timestamp) -> Result<Judged, StoreError> {
        let reader = self.store.reader();
        let height = match rules::data(reader.genesis(), &data, now) {
            Ok(height) => height,
            Err(wrong) if wrong.may_pass() => {
                let metadata = data.metadata.as_ref();
                let ours = metadata.filter(|metadata| metadata.chain_id == reader.genesis().chain_id);
                match ours.map(|metadata| (metadata.height, metadata.time)) {
                    // The block is in the chain, by the clock of before: whose data they are is seen below.
                    Some((height, _)) if height <= reader.tip().height => height,
                    early => {
                        self.metrics.refuse("future");
                        if let Some((height, time)) = early {
                            self.candidates.not_yet(height, time, &origin);
                        }
                        return Ok(Judged::Ignored);
                    }
                }
            }
            Err(wrong) => {
                self.metrics.refuse("invalid");
                return Ok(Judged::Invalid(wrong.to_string()));
            }
        };
        let tip = reader.tip().height;
        let commitment = data.commitment();
        if height <= tip {
            let header = reader.header(height)?;
            let ours = header.is_some_and(|header| header.data_hash == commitment.0[..]);
            return Ok(match (ours, origin) {
                (true, Origin::Da(da)) => {
                    self.included(Lane::Data, height, da, false);
                    Judged::Known
                }
                (true, Origin::Peer(_)) => Judged::Known,
                (false, origin) => {
                    self.metrics.refuse("foreign");
                    match origin {
                        // Anybody may write there.
                        Origin::Da(_) => Judged::Ignored,
                        Origin::Peer(_) => Judged::Invalid(FOREIGN.to_owned()),
                    }
                }
            });
        }
        let proven = self.candidates.has_header(height);
        let tip = self.floor();
        if height == tip.next() && origin.da().is_none() && !links(&data, &self.last_data_hash()?) {
            self.metrics.refuse("foreign");
            return Ok(match data.txs.is_empty() {
                // Nodes of ev-node make such data up from the header.
                true => Judged::Ignored,
                false => Judged::Invalid(UNLINKED.to_owned()),
            });
        }
        Ok(match self.candidates.data(tip, height, data, commitment, origin) {
            Kept::New if !proven => Judged::Unproven,
            Kept::New => Judged::New,
            Kept::Known => Judged::Known,
            Kept::Foreign => {
                self.metrics.refuse("foreign");
                Judged::Invalid(FOREIGN.to_owned())
            }
            Kept::Dropped | Kept::Twin | Kept::Fork(..) => {
                self.metrics.refuse("no_room");
                Judged::Ignored
            }
        })
    }

    /// A half of a block in the chain was seen on DA. Where only headers are kept, nobody sees the
    /// other half, and nothing is said to be included.
    fn included(&mut self, lane: Lane, height: Height, at: DaHeight, empty: bool) {
        if self.is_headers_only() {
            return;
        }
        let included = self.store.reader().da_progress().included;
        if height > included && !self.inclusion.saw(lane, height, at, empty) {
            self.metrics.refuse("no_room");
        }
    }
}

impl Syncer {
    /// Judges pieces, in order.
    pub(in crate::syncer) fn judge(
        &mut self,
        candidates: Vec<Candidate>,
        ctx: &mut Context<Self>,
    ) -> Vec<Judged> {
        let mut judged = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            let Some(follow) = &mut self.follow else { break };
            let now = follow.world.wall();
            match follow.judge_one(candidate, now) {
                Ok((verdict, evidence)) => {
                    judged.push(verdict);
                    if let Some(evidence) = evidence {
                        self.keep(evidence, ctx);
                    }
                }
                Err(error) => {
                    judged.push(Judged::Ignored);
                    self.end_in_trouble(&Error::Store(error));
                    self.begin_reopen(ctx);
                }
            }
        }
        judged
    }
}
