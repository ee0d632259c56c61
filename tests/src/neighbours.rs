//! Peers of a following node, in place of the peer-to-peer actor: one that is honest and has a
//! machine's chain, and perhaps one that lies.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use actix::{Actor, Context, Handler, MessageResult};
use baton::following::PeerPorts;
use baton_messages::chain::{P2pData, P2pSignedHeader, Signer};
use baton_messages::p2p::{
    FetchData, FetchError, FetchHead, FetchHeaders, Fetched, Given, PeerId, ReportPeer,
};
use baton_messages::types::{Height, Tx};
use baton_storage::Reader;
use bytes::Bytes;

/// The peers.
#[derive(Clone)]
pub struct Neighbours {
    reader: Reader,
    signer: Signer,
    /// Every so many items come from one that lies, until it is reported.
    lies: Option<u64>,
    reported: Rc<RefCell<Vec<ReportPeer>>>,
}

impl Neighbours {
    /// Peers that have the chain of this store; every `lies`th item is wrong.
    #[must_use]
    pub fn of(reader: Reader, signer: Signer, lies: Option<u64>) -> Self {
        Self { reader, signer, lies, reported: Rc::default() }
    }

    /// Starts them.
    #[must_use]
    pub fn start_here(&self) -> PeerPorts {
        PeerPorts::of(&self.clone().start())
    }

    /// Who was reported, and why.
    #[must_use]
    pub fn reported(&self) -> Vec<ReportPeer> {
        self.reported.borrow().clone()
    }

    /// A header as it is gossiped.
    ///
    /// # Panics
    ///
    /// When the chain does not have it, signed.
    #[must_use]
    pub fn header(&self, height: Height) -> P2pSignedHeader {
        let signed = self.reader.signed_header(height, &self.signer).expect("readable").expect("signed");
        P2pSignedHeader { signed, da_height_hint: 0 }
    }

    /// Data as they are gossiped.
    ///
    /// # Panics
    ///
    /// When the chain does not have them.
    #[must_use]
    pub fn data(&self, height: Height) -> P2pData {
        let block = self.reader.block(height).expect("readable").expect("there");
        P2pData { data: block.data().clone(), da_height_hint: 0 }
    }

    fn lies_about(&self, height: u64) -> bool {
        self.reported.borrow().is_empty() && self.lies.is_some_and(|every| height.is_multiple_of(every))
    }

    fn range<T>(
        &self,
        from: Height,
        count: u64,
        item: impl Fn(Height) -> T,
        lie: impl Fn(T) -> T,
    ) -> Result<Fetched<T>, FetchError> {
        // The last block may not be signed yet.
        let last = self.reader.tip().height.previous().0.min(from.0 + count - 1);
        let given = (from.0..=last).map(|height| {
            let honest = item(Height(height));
            match self.lies_about(height) {
                true => Given { peer: PeerId::from("liar"), item: Arc::new(lie(honest)) },
                false => Given { peer: PeerId::from("honest"), item: Arc::new(honest) },
            }
        });
        let given: Fetched<T> = given.collect();
        if given.is_empty() { Err(FetchError::NotFound { asked: 2 }) } else { Ok(given) }
    }
}

impl Actor for Neighbours {
    type Context = Context<Self>;
}

impl Handler<FetchHead> for Neighbours {
    type Result = MessageResult<FetchHead>;

    fn handle(&mut self, _: FetchHead, _: &mut Context<Self>) -> Self::Result {
        let newest = self.reader.tip().height.previous();
        MessageResult(self.range(newest, 1, |height| self.header(height), |header| header))
    }
}

impl Handler<FetchHeaders> for Neighbours {
    type Result = MessageResult<FetchHeaders>;

    fn handle(&mut self, asked: FetchHeaders, _: &mut Context<Self>) -> Self::Result {
        let lie = |mut header: P2pSignedHeader| {
            header.signed.header.app_hash = Bytes::from_static(b"a lie");
            header
        };
        MessageResult(self.range(asked.from, asked.count, |height| self.header(height), lie))
    }
}

impl Handler<FetchData> for Neighbours {
    type Result = MessageResult<FetchData>;

    fn handle(&mut self, asked: FetchData, _: &mut Context<Self>) -> Self::Result {
        let lie = |mut data: P2pData| {
            data.data.txs.push(Tx(Bytes::from_static(b"evil=1")));
            data
        };
        MessageResult(self.range(asked.from, asked.count, |height| self.data(height), lie))
    }
}

impl Handler<ReportPeer> for Neighbours {
    type Result = ();

    fn handle(&mut self, report: ReportPeer, _: &mut Context<Self>) {
        self.reported.borrow_mut().push(report);
    }
}
