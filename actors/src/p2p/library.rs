//! The server of the exchange: what peers ask for, out of the store.
//!
//! Only what is signed and known to be executed is given away (P10): up to what this node has
//! executed itself, or to the block before the tip, since whoever made the tip had executed it. A
//! light node has nothing but what the proposer gave away itself, and gives all of it.
//! Answers are gapless and bounded; a peer continues a short one.

use std::collections::HashMap;

use baton_messages::chain::{P2pData, P2pSignedHeader, SignedHeader, Signer};
use baton_messages::command::Lane;
use baton_messages::types::{Hash, Height};
use baton_messages::wire::exchange::{HeaderRequest, HeaderResponse, MAX_AMOUNT, MAX_MESSAGE};
use baton_messages::wire::p2p::Service;
use baton_storage::{Reader, StoreError};
use bytes::Bytes;

/// Bytes of one answer; one item is always given if a message can hold it.
const MAX_ANSWER: usize = 4 << 20;
/// A response around its body.
const RESPONSE_FRAME: usize = 16;
/// So far below the tip the newest signed block is looked for: the unsigned tail is short.
const UNSIGNED_TAIL: u64 = 64;
/// Data is found by its hash among so many of the newest blocks.
const FOUND_BY_HASH: u64 = 512;
/// Bodies that are read to look for data by its hash, for one question.
const READ_FOR_A_HASH: usize = 4;

/// The history that this node can give.
#[derive(Debug)]
pub struct Library {
    reader: Reader,
    /// Who signs; without a key until it is known.
    signer: Signer,
    /// What this node has executed.
    executed: Height,
    hashes: Hashes,
}

/// The hashes of the data of a run of the newest blocks. Each body is read for it once, and a few
/// for a question: a peer that asks for what nobody has costs no more than one that asks for what
/// is there.
#[derive(Debug, Default)]
struct Hashes {
    heights: HashMap<Hash, Height>,
    /// The blocks whose bodies were read, from the first to the last of them.
    read: Option<(Height, Height)>,
}

impl Hashes {
    /// The next body to read: new blocks first, then further down.
    fn next(&self, newest: Height, lowest: Height) -> Option<Height> {
        match self.read {
            Some((_, last)) if last < newest && newest.0 - last.0 <= FOUND_BY_HASH => Some(last.next()),
            Some((first, last)) if last >= newest => (first > lowest).then(|| first.previous()),
            _ => Some(newest),
        }
    }

    /// The data of a block have this hash.
    fn is(&mut self, hash: Hash, height: Height) {
        self.heights.insert(hash, height);
    }

    /// The body of a block was read.
    fn was_read(&mut self, height: Height) {
        self.read = match self.read {
            Some((first, last)) if height == last.next() => Some((first, height)),
            Some((first, last)) if height.next() == first => Some((height, last)),
            // The chain has gone on far from what was read.
            _ => Some((height, height)),
        };
        if self.heights.len() as u64 > 2 * FOUND_BY_HASH {
            let lowest = Height(height.0.saturating_sub(FOUND_BY_HASH));
            self.heights.retain(|_, known| *known >= lowest);
            self.read = self.read.map(|(first, last)| (first.max(lowest), last));
        }
    }
}

impl Library {
    /// A library over a store. The signer's key may be unknown.
    #[must_use]
    pub fn new(reader: Reader, signer: Signer) -> Self {
        Self { reader, signer, executed: Height(0), hashes: Hashes::default() }
    }

    /// This node has executed up to a height.
    pub fn executed(&mut self, height: Height) {
        // The engine may have been taken back; what was given away cannot be.
        self.executed = self.executed.max(height);
    }

    /// A valid header names the signer: where its key was unknown, it is known then.
    pub fn learn(&mut self, signed: &SignedHeader) {
        if self.signer.pub_key.is_empty()
            && signed.signer.address == self.reader.genesis().proposer_address
            && signed.header.proposer_address == signed.signer.address
        {
            self.signer = signed.signer.clone();
        }
    }

    /// A node that follows has noted who signs, also when no gossip has said so in this life.
    fn learn_from_store(&mut self) {
        if self.signer.pub_key.is_empty()
            && let Some(follow) = self.reader.follow().filter(|follow| !follow.signer.pub_key.is_empty())
        {
            self.signer = follow.signer;
        }
    }

    /// The newest height that can be given; `None` when there is none.
    ///
    /// # Errors
    ///
    /// `StoreError` when the store cannot be read.
    pub fn newest(&self) -> Result<Option<Height>, StoreError> {
        let (tip, headers_only) = (self.reader.tip().height, self.reader.is_headers_only());
        // What a node has followed was given away by the proposer (P10): who asks how far the chain is
        // may be about to sign the next height.
        let given = if self.reader.follow().is_some() { tip } else { self.executed };
        let mut height = given.max(tip.previous()).min(tip);
        let lowest = Height(height.0.saturating_sub(UNSIGNED_TAIL)).max(self.reader.initial_height());
        if self.signer.pub_key.is_empty() {
            return Ok(None);
        }
        while height >= lowest {
            if self.reader.signature(height)?.is_some()
                && (headers_only || self.reader.block(height)?.is_some())
            {
                return Ok(Some(height));
            }
            height = height.previous();
        }
        Ok(None)
    }

    /// The signed header at a height, and where it is on DA.
    ///
    /// # Errors
    ///
    /// `StoreError` when the store cannot be read.
    pub fn header(&self, height: Height) -> Result<Option<P2pSignedHeader>, StoreError> {
        let Some(signed) = self.reader.signed_header(height, &self.signer)? else { return Ok(None) };
        Ok(Some(P2pSignedHeader { signed, da_height_hint: self.hint(Lane::Header, height)? }))
    }

    /// The data at a height, and where it is on DA.
    ///
    /// # Errors
    ///
    /// `StoreError` when the store cannot be read.
    pub fn data(&self, height: Height) -> Result<Option<P2pData>, StoreError> {
        let Some(block) = self.reader.block(height)? else { return Ok(None) };
        let data = block.data().clone();
        Ok(Some(P2pData { data, da_height_hint: self.hint(Lane::Data, height)? }))
    }

    fn hint(&self, lane: Lane, height: Height) -> Result<u64, StoreError> {
        Ok(self.reader.da_height(lane, height)?.map_or(0, |height| height.0))
    }

    /// Answers a question; `None` resets the stream, as ev-node does it.
    ///
    /// # Errors
    ///
    /// `StoreError` when the store cannot be read.
    pub fn answer(
        &mut self,
        service: Service,
        request: &HeaderRequest,
    ) -> Result<Option<Vec<HeaderResponse>>, StoreError> {
        self.learn_from_store();
        let Some(newest) = self.newest()? else { return Ok(None) };
        match request {
            HeaderRequest::Head => self.range(service, newest, newest).map(Some),
            HeaderRequest::Range { from, amount } => {
                let last = from.0.checked_add(*amount).and_then(|end| end.checked_sub(1));
                match last {
                    Some(last) if (1..=MAX_AMOUNT).contains(amount) => {
                        self.range(service, *from, newest.min(Height(last))).map(Some)
                    }
                    _ => Ok(None),
                }
            }
            HeaderRequest::ByHash(hash) => {
                let found = match <[u8; 32]>::try_from(&hash[..]) {
                    Ok(hash) => self.height_of(service, Hash(hash), newest)?,
                    Err(_) => None,
                };
                match found {
                    Some(height) if height <= newest => self.range(service, height, height).map(Some),
                    _ => Ok(Some(vec![HeaderResponse::not_found()])),
                }
            }
        }
    }

    fn range(&self, service: Service, from: Height, last: Height) -> Result<Vec<HeaderResponse>, StoreError> {
        let (mut responses, mut bytes, mut height) = (vec![], 0, from);
        while height <= last {
            let item = match service {
                Service::Headers => self.header(height)?.map(|header| header.encode()),
                Service::Data => self.data(height)?.map(|data| data.encode()),
            };
            let Some(item) = item.filter(|item| item.len() + RESPONSE_FRAME <= MAX_MESSAGE) else { break };
            if bytes > 0 && bytes + item.len() > MAX_ANSWER {
                break;
            }
            bytes += item.len();
            responses.push(HeaderResponse::item(Bytes::from(item)));
            height = height.next();
        }
        if responses.is_empty() {
            responses.push(HeaderResponse::not_found());
        }
        Ok(responses)
    }

    fn height_of(
        &mut self,
        service: Service,
        hash: Hash,
        newest: Height,
    ) -> Result<Option<Height>, StoreError> {
        if service == Service::Headers {
            return self.reader.height_of(&hash);
        }
        let lowest = Height(newest.0.saturating_sub(FOUND_BY_HASH)).max(self.reader.initial_height());
        let mut left = READ_FOR_A_HASH;
        loop {
            if let Some(height) = self.hashes.heights.get(&hash) {
                return Ok(Some(*height));
            }
            let Some(next) = self.hashes.next(newest, lowest).filter(|_| left > 0) else { return Ok(None) };
            left -= 1;
            let Some(block) = self.reader.block(next)? else { return Ok(None) };
            self.hashes.is(block.data().hash(), next);
            // The hash of a block's data stands in the data of the block after it, too.
            if let Some(metadata) = &block.data().metadata
                && let Ok(before) = <[u8; 32]>::try_from(&metadata.last_data_hash[..])
            {
                self.hashes.is(Hash(before), next.previous());
            }
            self.hashes.was_read(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_body_is_read_once_the_new_ones_first() {
        let mut hashes = Hashes::default();
        let read = |hashes: &mut Hashes, newest, times| {
            let read = |_| {
                let next = hashes.next(Height(newest), Height(1))?;
                hashes.is(Hash::of(&next.0.to_be_bytes()), next);
                hashes.was_read(next);
                Some(next.0)
            };
            (0..times).filter_map(read).collect::<Vec<u64>>()
        };
        assert_eq!(read(&mut hashes, 10, 3), [10, 9, 8]);
        assert_eq!(read(&mut hashes, 12, 4), [11, 12, 7, 6]);
        assert_eq!(read(&mut hashes, 12, 9), [5, 4, 3, 2, 1]);
        assert_eq!(read(&mut hashes, 12, 9), [] as [u64; 0]);
        assert_eq!(read(&mut hashes, 10_000, 2), [10_000, 9_999], "what lies between is of no interest");
        for newest in 10_001..20_000 {
            read(&mut hashes, newest, 1);
        }
        assert!(hashes.heights.len() as u64 <= 2 * FOUND_BY_HASH + 1, "{}", hashes.heights.len());
    }
}
