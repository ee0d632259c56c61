//! What a member of a cluster makes of gossip about its own chain.
//!
//! It takes blocks from the log only; gossip is forwarded for others. Its own store tells what is
//! right up to its tip, beyond it the sequencer's key does: two headers of one height by that key
//! are a fork, which nothing here ever makes and a person must hear of.

use std::collections::BTreeMap;

use baton_messages::chain::{P2pData, P2pSignedHeader};
use baton_messages::p2p::{Item, Verdict};
use baton_messages::types::{Hash, Height};
use baton_storage::{Reader, StoreError};
use bytes::Bytes;

/// What came of looking at an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// What becomes of it.
    Verdict(Verdict),
    /// Data whose header has not come yet.
    TooEarly,
    /// The sequencer's key signed two headers of one height.
    Fork {
        /// The height.
        height: Height,
        /// The header that stands here, or came first.
        one: Hash,
        /// The other.
        other: Hash,
    },
}

/// Old items are forwarded no more: so many heights below the tip.
const OLD: u64 = 64;
/// So far above the tip an item is taken: the member may be behind.
const AHEAD: u64 = 100_000;
/// Headers above the tip that are remembered, and heights of which something was forwarded.
const REMEMBERED: usize = 4096;
/// Different data of one height that are forwarded: while only their header is known, not their
/// whole metadata are.
const DATA_VARIANTS: u8 = 4;

/// What was forwarded of a height.
#[derive(Clone, Copy, Debug, Default)]
struct Forwarded {
    header: bool,
    data: u8,
}

/// The judge of a member.
#[derive(Debug)]
pub struct Judge {
    reader: Reader,
    /// Whose blocks they must be.
    proposer: Bytes,
    /// Headers above the tip by the sequencer's key: their hashes, and what their data must be.
    ahead: BTreeMap<Height, (Hash, Bytes)>,
    /// One message in is one message out to every peer: what came once is not forwarded in other
    /// words again.
    forwarded: BTreeMap<Height, Forwarded>,
}

impl Judge {
    /// A judge over a store whose chain this address proposes.
    #[must_use]
    pub const fn new(reader: Reader, proposer: Bytes) -> Self {
        Self { reader, proposer, ahead: BTreeMap::new(), forwarded: BTreeMap::new() }
    }

    /// Judges an item that was looked at by itself already.
    ///
    /// # Errors
    ///
    /// `StoreError` when the store cannot be read; nothing is known of the item then.
    pub fn judge(&mut self, item: &Item) -> Result<Judgement, StoreError> {
        let (height, tip) = (item.height(), self.reader.tip().height);
        if height < self.reader.initial_height() {
            return Ok(Judgement::Verdict(Verdict::Reject));
        }
        if height.0.saturating_add(OLD) < tip.0 || height.0 > tip.0.saturating_add(AHEAD) {
            return Ok(Judgement::Verdict(Verdict::Ignore));
        }
        match item {
            Item::Header(header) => self.header(header, height),
            Item::Data(data) => self.data(data, height),
        }
    }

    fn header(&mut self, item: &P2pSignedHeader, height: Height) -> Result<Judgement, StoreError> {
        let header = &item.signed.header;
        if header.proposer_address != self.proposer {
            return Ok(Judgement::Verdict(Verdict::Reject));
        }
        let other = header.hash();
        let known = match self.reader.hash(height)? {
            Some(hash) => Some(hash),
            None => self.ahead.get(&height).map(|(hash, _)| *hash),
        };
        match known {
            Some(one) if one != other => return Ok(Judgement::Fork { height, one, other }),
            Some(_) => {}
            None => {
                self.ahead.insert(height, (other, header.data_hash.clone()));
                self.forget();
            }
        }
        let forwarded = self.forwarded(height);
        let verdict = if forwarded.header { Verdict::Ignore } else { Verdict::Accept };
        forwarded.header = true;
        Ok(Judgement::Verdict(verdict))
    }

    /// What was forwarded of a height that is neither old nor far ahead.
    fn forwarded(&mut self, height: Height) -> &mut Forwarded {
        let oldest = Height(self.reader.tip().height.0.saturating_sub(OLD));
        self.forwarded = self.forwarded.split_off(&oldest);
        while self.forwarded.len() >= REMEMBERED && !self.forwarded.contains_key(&height) {
            self.forwarded.pop_last();
        }
        self.forwarded.entry(height).or_default()
    }

    /// What the tip has reached is in the store; of the rest the lowest are of use first.
    fn forget(&mut self) {
        let tip = self.reader.tip().height;
        self.ahead = self.ahead.split_off(&tip.next());
        while self.ahead.len() > REMEMBERED {
            self.ahead.pop_last();
        }
    }

    fn data(&mut self, item: &P2pData, height: Height) -> Result<Judgement, StoreError> {
        let fits = match (self.reader.block(height)?, self.ahead.get(&height)) {
            (Some(block), _) => block.data().hash() == item.data.hash(),
            (None, Some((_, commitment))) => item.data.commitment().0 == commitment[..],
            (None, None) => return Ok(Judgement::TooEarly),
        };
        if !fits {
            return Ok(Judgement::Verdict(Verdict::Reject));
        }
        let forwarded = self.forwarded(height);
        let verdict = if forwarded.data < DATA_VARIANTS { Verdict::Accept } else { Verdict::Ignore };
        forwarded.data = forwarded.data.saturating_add(1);
        Ok(Judgement::Verdict(verdict))
    }
}
