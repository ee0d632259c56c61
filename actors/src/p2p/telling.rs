//! Telling the network about blocks.

use baton_messages::chain::{Block, P2pData, P2pSignedHeader, SignedHeader};
use baton_messages::p2p::NotPublished;
use baton_messages::types::{Grant, Height, Term};
use baton_messages::wire::p2p::{MAX_PUBSUB_RPC, Service};
use baton_storage::{Reader, StoreError};
use bytes::Bytes;

use super::library::Library;

/// Bytes that a pubsub message adds to its payload, and more.
pub(super) const ENVELOPE: usize = 1024;

/// Bytes after which no older block is told again.
const MAX_TAIL: usize = 8 << 20;

/// Messages to publish in this order, and the size of one that is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Messages {
    pub(super) messages: Vec<(Service, Bytes)>,
    pub(super) too_large: Option<usize>,
}

impl Messages {
    fn add(&mut self, service: Service, payload: Vec<u8>) {
        if payload.len() + ENVELOPE > MAX_PUBSUB_RPC {
            self.too_large = Some(payload.len() + ENVELOPE);
        } else {
            self.messages.push((service, payload.into()));
        }
    }
}

/// Which blocks are told when.
#[derive(Debug)]
pub(super) struct Telling {
    reader: Reader,
    /// So many blocks are told again.
    tail: u64,
    /// The tail was told in this term.
    told_in: Option<Term>,
}

impl Telling {
    pub(super) const fn new(reader: Reader, tail: u64) -> Self {
        Self { reader, tail, told_in: None }
    }

    /// Whether a grant holds in a term.
    pub(super) fn check_grant(grant: Grant, term: Term) -> Result<(), NotPublished> {
        if grant.term < term {
            return Err(NotPublished::StaleGrant { grant, term });
        }
        Ok(())
    }

    /// The header and then the data of a block that stands in the store.
    pub(super) fn block(&self, signed: &SignedHeader, block: &Block) -> Result<Messages, NotPublished> {
        let (height, hash) = (block.height(), block.hash());
        let stands = self.reader.hash(height).map_err(|error| NotPublished::Network(error.to_string()))?;
        if stands != Some(hash) || signed.header.hash() != hash {
            return Err(NotPublished::NotCommitted { height, hash });
        }
        let mut messages = Messages::default();
        // The place on DA is not known yet.
        let header = P2pSignedHeader { signed: signed.clone(), da_height_hint: 0 };
        messages.add(Service::Headers, header.encode());
        messages.add(Service::Data, P2pData { data: block.data().clone(), da_height_hint: 0 }.encode());
        Ok(messages)
    }

    /// Whether the tail is to be told before anything else in this grant; it is then.
    pub(super) fn is_tail_due(&mut self, grant: Grant) -> bool {
        self.told_in.replace(grant.term) != Some(grant.term)
    }

    /// The newest blocks below a height that can be given away, and the height of the last.
    pub(super) fn tail(
        &self,
        library: &Library,
        below: Option<Height>,
    ) -> Result<(Messages, Height), StoreError> {
        let mut messages = Messages::default();
        let Some(mut newest) = library.newest()? else { return Ok((messages, Height(0))) };
        newest = below.map_or(newest, |below| newest.min(below.previous()));
        let lowest = Height(newest.0.saturating_sub(self.tail - 1)).max(self.reader.initial_height());
        let (mut blocks, mut bytes, mut height) = (vec![], 0, newest);
        while height >= lowest && bytes < MAX_TAIL {
            if let (Some(header), Some(data)) = (library.header(height)?, library.data(height)?) {
                let (header, data) = (header.encode(), data.encode());
                bytes += header.len() + data.len();
                blocks.push((header, data));
            }
            height = height.previous();
        }
        for (header, data) in blocks.into_iter().rev() {
            messages.add(Service::Headers, header);
            messages.add(Service::Data, data);
        }
        Ok((messages, newest))
    }
}
