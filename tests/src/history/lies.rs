//! What hostile peers give to a full node instead of the chain, and what anybody may write onto DA.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use baton_actors::p2p::network::AskFailure;
use baton_messages::chain::{DaHeaderEnvelope, Header, P2pData, P2pSignedHeader, SignedHeader, Signer};
use baton_messages::da::{Blob, Namespace};
use baton_messages::types::{Height, Timestamp, Tx};
use baton_messages::wire::exchange::{HeaderRequest, HeaderResponse};
use baton_messages::wire::p2p::Service;
use baton_storage::Reader;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::node::Machine;

/// How a peer lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lie {
    /// The true newest header and, when it is asked for a range, headers of the chain up to the last one:
    /// that is another one with the signature of the true one.
    Forged,
    /// The same, signed by another key in the proposer's name.
    OtherKey,
    /// True headers, and more transactions than they commit to.
    OtherData,
    /// A chain that is far longer than it is; nothing of it is there.
    Ahead,
    /// Bytes that are nothing.
    Garbage,
    /// The newest header, and none of those before it.
    Withheld,
    /// No answers.
    Silent,
    /// Far more than was asked for.
    TooMuch,
}

impl Lie {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Forged,
        Self::OtherKey,
        Self::OtherData,
        Self::Ahead,
        Self::Garbage,
        Self::Withheld,
        Self::Silent,
        Self::TooMuch,
    ];
}

/// Heights by which a chain is said to be longer than it is.
const AHEAD: u64 = 1_000;
/// An answer takes so long: liars are quicker than honest peers.
const ANSWERS_IN: Duration = Duration::from_millis(1);

/// The chain as liars know it. Clones are the same.
#[derive(Clone)]
pub(super) struct Told {
    known: Arc<Mutex<Known>>,
    /// Whose key liars have.
    stranger: Machine,
}

struct Known {
    headers: BTreeMap<u64, SignedHeader>,
    data: BTreeMap<u64, P2pData>,
}

impl Told {
    pub(super) fn new(seed: u64) -> Self {
        let known = Known { headers: BTreeMap::new(), data: BTreeMap::new() };
        Self { known: Arc::new(Mutex::new(known)), stranger: Machine::new(!seed) }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads on in the chain of a member.
    pub(super) fn learn(&self, reader: &Reader, signer: &Signer) {
        let mut known = self.known();
        let next = known.headers.last_key_value().map_or(1, |(height, _)| height + 1);
        for height in (next..=reader.tip().height.0).map(Height) {
            let signed = reader.signed_header(height, signer).ok().flatten();
            let (Some(signed), Ok(Some(block))) = (signed, reader.block(height)) else { continue };
            known.headers.insert(height.0, signed);
            known.data.insert(height.0, P2pData { data: block.data().clone(), da_height_hint: 0 });
        }
    }

    /// The stranger signs in the name of the proposer.
    fn sign(&self, header: Header, signer: &Signer) -> SignedHeader {
        let [payload, _] = header.signature_payloads();
        let signer = Signer { address: signer.address.clone(), ..self.stranger.signer() };
        SignedHeader { header, signature: self.stranger.sign(&payload), signer }
    }

    /// Another header in the place of a true one.
    fn other(&self, lie: Lie, signed: &SignedHeader) -> SignedHeader {
        let later = Timestamp(signed.header.time.0 + 1);
        let header = Header { time: later, ..signed.header.clone() };
        match lie {
            Lie::Forged => SignedHeader { header, ..signed.clone() },
            Lie::OtherKey => self.sign(header, &signed.signer),
            Lie::Ahead => {
                let height = Height(signed.header.height.0 + AHEAD);
                SignedHeader { header: Header { height, ..header }, ..signed.clone() }
            }
            _ => signed.clone(),
        }
    }

    /// A block after the newest one, which nobody has made.
    fn next(&self, lie: Lie) -> Option<SignedHeader> {
        let known = self.known();
        let (_, newest) = known.headers.last_key_value()?;
        let header = Header {
            height: newest.header.height.next(),
            time: newest.header.time.plus(Duration::from_millis(100)),
            last_header_hash: newest.header.hash().to_bytes(),
            ..newest.header.clone()
        };
        Some(match lie {
            Lie::OtherKey => self.sign(header, &newest.signer),
            _ => SignedHeader { header, ..newest.clone() },
        })
    }

    /// What a liar answers, and when; `None`: never.
    pub(super) fn answer(
        &self,
        lie: Lie,
        service: Service,
        request: &HeaderRequest,
    ) -> Option<(Duration, Result<Vec<HeaderResponse>, AskFailure>)> {
        if lie == Lie::Silent {
            return None;
        }
        let known = self.known();
        let newest = known.headers.last_key_value().map_or(0, |(height, _)| *height);
        let (from, amount) = match request {
            // Who lies here is asked nothing more.
            HeaderRequest::Head if lie == Lie::Forged => return answer_true(&known, service, newest),
            HeaderRequest::Head => (newest, 1),
            HeaderRequest::Range { .. } if matches!(lie, Lie::Withheld | Lie::Ahead) => {
                return Some((ANSWERS_IN, Ok(vec![HeaderResponse::not_found()])));
            }
            HeaderRequest::Range { from, amount } => (from.0, *amount),
            HeaderRequest::ByHash(_) => return Some((ANSWERS_IN, Ok(vec![HeaderResponse::not_found()]))),
        };
        let amount = if lie == Lie::TooMuch { amount.saturating_mul(3).saturating_add(3) } else { amount };
        let heights = from..from.saturating_add(amount.min(2_000));
        // A chain of headers hangs together up to the last one: that one is not the chain's.
        let last = newest.min(heights.end.saturating_sub(1));
        let items: Vec<HeaderResponse> = heights
            .filter_map(|height| {
                let item = match service {
                    _ if lie == Lie::Garbage => vec![0xff; 40],
                    Service::Headers => {
                        let lie = if height == last { lie } else { Lie::Withheld };
                        let signed = self.other(lie, known.headers.get(&height)?);
                        P2pSignedHeader { signed, da_height_hint: 0 }.encode()
                    }
                    Service::Data => other_data(lie, known.data.get(&height)?).encode(),
                };
                Some(HeaderResponse::item(item.into()))
            })
            .collect();
        let items = if items.is_empty() { vec![HeaderResponse::not_found()] } else { items };
        Some((ANSWERS_IN, Ok(items)))
    }

    /// What a liar gossips.
    pub(super) fn gossip(&self, lie: Lie) -> Vec<(Service, Bytes)> {
        let header = |signed| P2pSignedHeader { signed, da_height_hint: 0 }.encode();
        let mut gossip = vec![];
        match lie {
            Lie::OtherKey => {
                let next = self.next(lie);
                gossip.extend(next.map(|signed| (Service::Headers, header(signed))));
                let known = self.known();
                let newest = known.headers.last_key_value();
                gossip.extend(newest.map(|(_, signed)| (Service::Headers, header(self.other(lie, signed)))));
            }
            Lie::Ahead => {
                let known = self.known();
                let newest = known.headers.last_key_value();
                gossip.extend(newest.map(|(_, signed)| (Service::Headers, header(self.other(lie, signed)))));
            }
            Lie::OtherData => {
                let known = self.known();
                let newest = known.data.last_key_value();
                gossip.extend(newest.map(|(_, data)| (Service::Data, other_data(lie, data).encode())));
            }
            Lie::Garbage => {
                gossip.push((Service::Headers, vec![0xff; 40]));
                gossip.push((Service::Data, vec![0xff; 40]));
            }
            Lie::Forged | Lie::Withheld | Lie::Silent | Lie::TooMuch => {}
        }
        gossip.into_iter().map(|(service, bytes)| (service, bytes.into())).collect()
    }

    /// What anybody may write into the chain's namespaces.
    pub(super) fn scribbled(&self) -> Vec<Blob> {
        let blob = |namespace, data: Vec<u8>| Blob { namespace: Namespace::of(namespace), data: data.into() };
        let mut blobs = vec![blob("headers", vec![0xff; 60]), blob("data", vec![0xff; 60])];
        let next = [Lie::Forged, Lie::OtherKey].map(|lie| self.next(lie));
        let known = self.known();
        let newest = known.headers.last_key_value().map(|(_, signed)| self.other(Lie::Forged, signed));
        for signed in next.into_iter().chain([newest]).flatten() {
            let envelope_signature = self.stranger.sign(&signed.encode());
            blobs.push(blob("headers", signed.encode()));
            blobs.push(blob("headers", DaHeaderEnvelope { signed, envelope_signature }.encode()));
        }
        blobs
    }
}

/// The newest that there is, as it is.
fn answer_true(
    known: &Known,
    service: Service,
    newest: u64,
) -> Option<(Duration, Result<Vec<HeaderResponse>, AskFailure>)> {
    let item = match service {
        Service::Headers => known
            .headers
            .get(&newest)
            .map(|signed| P2pSignedHeader { signed: signed.clone(), da_height_hint: 0 }.encode()),
        Service::Data => known.data.get(&newest).map(P2pData::encode),
    };
    let answer = item.map_or_else(HeaderResponse::not_found, |item| HeaderResponse::item(item.into()));
    Some((ANSWERS_IN, Ok(vec![answer])))
}

/// Other data in the place of the true ones.
fn other_data(lie: Lie, data: &P2pData) -> P2pData {
    let mut data = data.clone();
    if lie == Lie::OtherData {
        data.data.txs.push(Tx(Bytes::from_static(b"evil=1")));
    }
    data
}
