//! What makes a peer's answer acceptable.
//!
//! An answer is a gapless run of items from the first height that was asked for, of this chain and
//! linked to each other. Whoever gives anything else is lying, or is on another chain, which is
//! as useless. Signatures and what the chain's state says are checked later, where the state is.

use std::sync::Arc;

use baton_messages::chain::{P2pData, P2pSignedHeader};
use baton_messages::types::{Hash, Height, Timestamp};
use baton_messages::wire::WireError;
use baton_messages::wire::exchange::{HeaderResponse, Status};
use baton_messages::wire::glance::Glance;
use baton_messages::wire::validate::{Invalid, MAX_DRIFT};

use super::network::MAX_ANSWER;

/// Something that gossip and exchange carry.
pub trait Carried: Sized {
    /// Decodes it.
    ///
    /// # Errors
    ///
    /// `WireError` on malformed input.
    fn decode_item(bytes: &[u8]) -> Result<Self, WireError>;

    /// What ev-node sees of it before it forwards it; `None` when it cannot decode it.
    fn glance(bytes: &[u8]) -> Option<Glance>;

    /// The height it says it belongs to; zero when it says none.
    fn height(&self) -> Height;

    /// The chain it says it belongs to.
    fn chain_id(&self) -> &str;

    /// Its hash, by which it can be asked for.
    fn item_hash(&self) -> Hash;

    /// What it takes in memory, about.
    fn weight(&self) -> usize;

    /// Checks it alone; of a header not the signature.
    ///
    /// # Errors
    ///
    /// The first rule that is broken.
    fn check(&self, now: Timestamp) -> Result<(), Invalid>;

    /// Checks that it comes after another one.
    ///
    /// # Errors
    ///
    /// The first rule that is broken.
    fn check_after(&self, before: &Self, now: Timestamp) -> Result<(), Invalid>;
}

impl Carried for P2pSignedHeader {
    fn decode_item(bytes: &[u8]) -> Result<Self, WireError> {
        Self::decode(bytes)
    }

    fn glance(bytes: &[u8]) -> Option<Glance> {
        Glance::of_header(bytes)
    }

    fn height(&self) -> Height {
        self.signed.header.height
    }

    fn chain_id(&self) -> &str {
        &self.signed.header.chain_id
    }

    fn item_hash(&self) -> Hash {
        self.signed.header.hash()
    }

    fn weight(&self) -> usize {
        self.signed.weight()
    }

    fn check(&self, now: Timestamp) -> Result<(), Invalid> {
        self.signed.header.validate(now)
    }

    fn check_after(&self, before: &Self, now: Timestamp) -> Result<(), Invalid> {
        self.signed.header.verify_after(&before.signed.header, now)
    }
}

impl Carried for P2pData {
    fn decode_item(bytes: &[u8]) -> Result<Self, WireError> {
        Self::decode_from_peer(bytes)
    }

    fn glance(bytes: &[u8]) -> Option<Glance> {
        Glance::of_data(bytes)
    }

    fn height(&self) -> Height {
        self.data.metadata.as_ref().map_or(Height(0), |metadata| metadata.height)
    }

    fn chain_id(&self) -> &str {
        self.data.metadata.as_ref().map_or("", |metadata| &metadata.chain_id)
    }

    fn item_hash(&self) -> Hash {
        self.data.hash()
    }

    fn weight(&self) -> usize {
        self.data.weight()
    }

    fn check(&self, now: Timestamp) -> Result<(), Invalid> {
        self.data.validate(now)
    }

    fn check_after(&self, before: &Self, now: Timestamp) -> Result<(), Invalid> {
        self.data.verify_after(&before.data, now)
    }
}

/// Why an answer is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// More items than were asked for.
    #[error("{found} items, {asked} were asked for")]
    TooMany {
        /// So many came.
        found: usize,
        /// So many were asked for.
        asked: u64,
    },
    /// A status that nobody sends, or items after the end.
    #[error("a response with a status or at a place where nobody honest has it")]
    Status,
    /// An item that cannot be decoded.
    #[error(transparent)]
    Malformed(#[from] WireError),
    /// An item of another height than was asked for.
    #[error("an item of height {found}, {expected} was asked for")]
    Height {
        /// What came.
        found: Height,
        /// What was asked for.
        expected: Height,
    },
    /// An item of another chain.
    #[error("an item of the chain {0:?}")]
    Chain(String),
    /// An item with another hash than was asked for.
    #[error("an item with the hash {found}, {expected} was asked for")]
    Hash {
        /// What came.
        found: Hash,
        /// What was asked for.
        expected: String,
    },
    /// An item that breaks a rule.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

impl Wrong {
    /// Clocks may differ without anybody lying.
    #[must_use]
    pub const fn is_excusable(&self) -> bool {
        matches!(self, Self::Invalid(Invalid::FromTheFuture { .. }))
    }
}

/// What was asked for, as far as it decides about the answer.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The chain.
    pub chain_id: &'a str,
    /// This node's clock.
    pub now: Timestamp,
}

impl Expected<'_> {
    /// Checks a range: at most `amount` items from a height upwards. None when the peer has none;
    /// fewer than came when they would take more memory than [`MAX_ANSWER`], or when the time of
    /// those above has not come by the clock here: a leader's clock may have been ahead, or this one
    /// may be behind, and what is below is wanted all the same (hazard H22).
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn range<T: Carried>(
        &self,
        from: Height,
        amount: u64,
        responses: &[HeaderResponse],
    ) -> Result<Vec<Arc<T>>, Wrong> {
        let found = responses.len();
        if found as u64 > amount {
            return Err(Wrong::TooMany { found, asked: amount });
        }
        let mut items: Vec<Arc<T>> = Vec::with_capacity(found);
        let mut weight = 0;
        for (response, height) in responses.iter().zip(from.0..) {
            let item = match self.one::<T>(response) {
                Err(early) if early.is_excusable() && !items.is_empty() => return Ok(items),
                item => item?,
            };
            let Some(item) = item else {
                // Where there is nothing, nothing follows.
                return if items.len() + 1 == found { Ok(items) } else { Err(Wrong::Status) };
            };
            let expected = Height(height);
            if item.height() != expected {
                return Err(Wrong::Height { found: item.height(), expected });
            }
            if let Some(before) = items.last() {
                // How far ahead it may be was looked at already, with the limit that blocks have:
                // that of gossip is a tighter one, and peers keep what others took by the wider.
                item.check_after(before, self.now.plus(MAX_DRIFT))?;
                // Many small transactions are more here than on the wire: a short answer, then.
                if weight + item.weight() > MAX_ANSWER {
                    return Ok(items);
                }
            }
            weight += item.weight();
            items.push(Arc::new(item));
        }
        Ok(items)
    }

    /// Checks what a peer takes for the end of the chain, with its signature; `None` when it has no
    /// header. One whose time has not come by the clock here is taken too: it says how far the chain
    /// is, and is looked at again as a block (hazard H22).
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn head(&self, responses: &[HeaderResponse]) -> Result<Option<P2pSignedHeader>, Wrong> {
        let Some(head) = alone(responses)?.map(|response| self.decode::<P2pSignedHeader>(response)) else {
            return Ok(None);
        };
        let Some(head) = head? else { return Ok(None) };
        match head.signed.validate(self.now) {
            Ok(_) | Err(Invalid::FromTheFuture { .. }) => Ok(Some(head)),
            Err(wrong) => Err(wrong.into()),
        }
    }

    /// Checks a single item of any height; `None` when the peer has none.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn single<T: Carried>(&self, responses: &[HeaderResponse]) -> Result<Option<T>, Wrong> {
        let Some(response) = alone(responses)? else { return Ok(None) };
        self.one(response)
    }

    /// Checks a single item with a known hash; `None` when the peer has none.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn with_hash<T: Carried>(
        &self,
        hash: &[u8],
        responses: &[HeaderResponse],
    ) -> Result<Option<T>, Wrong> {
        let Some(item) = self.single::<T>(responses)? else { return Ok(None) };
        let found = item.item_hash();
        if found.0 != *hash {
            return Err(Wrong::Hash { found, expected: hex::encode(hash) });
        }
        Ok(Some(item))
    }

    fn one<T: Carried>(&self, response: &HeaderResponse) -> Result<Option<T>, Wrong> {
        let Some(item) = self.decode::<T>(response)? else { return Ok(None) };
        item.check(self.now)?;
        Ok(Some(item))
    }

    fn decode<T: Carried>(&self, response: &HeaderResponse) -> Result<Option<T>, Wrong> {
        match response.status {
            Status::Ok => {}
            Status::NotFound => return Ok(None),
            Status::Invalid => return Err(Wrong::Status),
        }
        let item = T::decode_item(&response.body)?;
        // As in go-header: case makes no difference to the chain.
        if !item.chain_id().eq_ignore_ascii_case(self.chain_id) {
            return Err(Wrong::Chain(item.chain_id().chars().take(64).collect()));
        }
        Ok(Some(item))
    }
}

fn alone(responses: &[HeaderResponse]) -> Result<Option<&HeaderResponse>, Wrong> {
    match responses {
        [] => Ok(None),
        [response] => Ok(Some(response)),
        _ => Err(Wrong::TooMany { found: responses.len(), asked: 1 }),
    }
}

#[cfg(test)]
mod tests {
    use baton_messages::chain::{Data, Header, Metadata, SignedHeader, Signer};
    use baton_messages::types::Tx;
    use bytes::Bytes;
    use ed25519_dalek::{Signer as _, SigningKey};

    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000_000_000);
    const EXPECTED: Expected<'_> = Expected { chain_id: "chain", now: NOW };

    fn headers(count: u64) -> Vec<P2pSignedHeader> {
        let mut last_header_hash = Bytes::new();
        let header = |height| {
            let header = Header {
                height: Height(height),
                time: Timestamp(height),
                chain_id: "chain".to_owned(),
                proposer_address: Bytes::from_static(&[1; 32]),
                last_header_hash: last_header_hash.clone(),
                ..Header::default()
            };
            last_header_hash = header.hash().to_bytes();
            let signed = SignedHeader { header, ..SignedHeader::default() };
            P2pSignedHeader { signed, da_height_hint: 0 }
        };
        (1..=count).map(header).collect()
    }

    fn answer(headers: &[P2pSignedHeader]) -> Vec<HeaderResponse> {
        headers.iter().map(|header| HeaderResponse::item(header.encode().into())).collect()
    }

    fn range(from: u64, amount: u64, responses: &[HeaderResponse]) -> Result<usize, Wrong> {
        EXPECTED.range::<P2pSignedHeader>(Height(from), amount, responses).map(|items| items.len())
    }

    #[test]
    fn a_linked_run_from_the_first_height_is_taken_also_when_it_is_short() {
        let chain = answer(&headers(5));
        assert_eq!(range(2, 4, &chain[1..]), Ok(4));
        assert_eq!(range(2, 9, &chain[1..3]), Ok(2));
        assert_eq!(range(2, 4, &[]), Ok(0));
        assert_eq!(range(6, 4, &[HeaderResponse::not_found()]), Ok(0));
        let ended = [&chain[1..3], &[HeaderResponse::not_found()]].concat();
        assert_eq!(range(2, 4, &ended), Ok(2));
    }

    #[test]
    fn gaps_disorder_and_too_many_items_are_refused() {
        let chain = answer(&headers(5));
        let gap = [chain[0].clone(), chain[2].clone()];
        assert_eq!(range(1, 4, &gap), Err(Wrong::Height { found: Height(3), expected: Height(2) }));
        let disorder = [chain[1].clone(), chain[0].clone()];
        assert_eq!(range(1, 4, &disorder), Err(Wrong::Height { found: Height(2), expected: Height(1) }));
        assert_eq!(range(1, 4, &chain), Err(Wrong::TooMany { found: 5, asked: 4 }));
        let after_the_end = [&[HeaderResponse::not_found()], &chain[..1]].concat();
        assert_eq!(range(1, 4, &after_the_end), Err(Wrong::Status));
    }

    #[test]
    fn an_item_that_is_not_linked_to_the_one_before_is_refused() {
        let mut chain = headers(3);
        chain[1].signed.header.validator_hash = Bytes::from_static(b"another");
        assert!(matches!(range(1, 3, &answer(&chain)), Err(Wrong::Invalid(Invalid::Link { .. }))));
    }

    #[test]
    fn another_chain_an_unknown_status_and_garbage_are_refused() {
        let mut chain = headers(1);
        chain[0].signed.header.chain_id = "CHAIN".to_owned();
        assert_eq!(range(1, 1, &answer(&chain)), Ok(1));
        chain[0].signed.header.chain_id = "other".to_owned();
        assert_eq!(range(1, 1, &answer(&chain)), Err(Wrong::Chain("other".to_owned())));
        let unknown = HeaderResponse { status: Status::Invalid, body: Bytes::new() };
        assert_eq!(range(1, 1, &[unknown]), Err(Wrong::Status));
        let garbage = HeaderResponse::item(Bytes::from_static(b"garbage"));
        assert!(matches!(range(1, 1, &[garbage]), Err(Wrong::Malformed(_))));
    }

    #[test]
    fn a_clock_that_is_behind_is_no_lie_of_the_peer() {
        let mut chain = headers(1);
        chain[0].signed.header.time = Timestamp(NOW.0 + 61_000_000_000);
        assert!(range(1, 1, &answer(&chain)).is_err_and(|wrong| wrong.is_excusable()));
        chain[0].signed.header.time = Timestamp(u64::MAX);
        assert!(range(1, 1, &answer(&chain)).is_err_and(|wrong| !wrong.is_excusable()));
    }

    #[test]
    fn what_is_below_a_header_of_the_future_is_taken() {
        let mut chain = headers(5);
        let drift = u64::try_from(MAX_DRIFT.as_nanos()).expect("a minute");
        // The limit is that of blocks: peers took the third by it.
        for (header, ahead) in chain.iter_mut().skip(2).zip([drift, drift + 1, drift + 2]) {
            header.signed.header.time = Timestamp(NOW.0 + ahead);
        }
        for height in 3..=4 {
            let last_header_hash = chain[height - 1].signed.header.hash().to_bytes();
            chain[height].signed.header.last_header_hash = last_header_hash;
        }
        assert_eq!(range(1, 5, &answer(&chain)), Ok(3));
        assert!(range(4, 2, &answer(&chain[3..])).is_err_and(|wrong| wrong.is_excusable()));
    }

    #[test]
    fn a_head_of_the_future_says_how_far_the_chain_is_when_it_is_signed() {
        let key = SigningKey::from_bytes(&[3; 32]);
        let signer = Signer::ed25519(&key.verifying_key().to_bytes());
        let header = Header {
            height: Height(9),
            time: Timestamp(NOW.0 * 2),
            chain_id: "chain".to_owned(),
            proposer_address: signer.address.clone(),
            ..Header::default()
        };
        let [payload, _] = header.signature_payloads();
        let signature = Bytes::copy_from_slice(&key.sign(&payload).to_bytes());
        let mut head =
            P2pSignedHeader { signed: SignedHeader { header, signature, signer }, da_height_hint: 0 };
        assert_eq!(EXPECTED.head(&answer(&[head.clone()])), Ok(Some(head.clone())));
        assert_eq!(EXPECTED.head(&[]), Ok(None));
        head.signed.header.height = Height(10);
        let forged = EXPECTED.head(&answer(&[head]));
        assert!(forged.as_ref().is_err_and(|wrong| !wrong.is_excusable()), "{forged:?}");
    }

    #[test]
    fn an_item_has_the_hash_that_was_asked_for() {
        let metadata = Metadata {
            chain_id: "chain".to_owned(),
            height: Height(1),
            time: Timestamp(1),
            last_data_hash: Bytes::new(),
        };
        let data = P2pData { data: Data { metadata: Some(metadata), txs: vec![] }, da_height_hint: 0 };
        let responses = [HeaderResponse::item(data.encode().into())];
        let hash = data.item_hash();
        assert_eq!(EXPECTED.with_hash(&hash.0, &responses), Ok(Some(data)));
        let other = EXPECTED.with_hash::<P2pData>(&[7; 32], &responses);
        assert_eq!(other, Err(Wrong::Hash { found: hash, expected: "07".repeat(32) }));
        let none = EXPECTED.with_hash::<P2pData>(&hash.0, &[HeaderResponse::not_found()]);
        assert_eq!(none, Ok(None));
    }

    #[test]
    fn an_answer_of_many_small_transactions_is_cut_where_it_would_fill_the_memory() {
        let mut last_data_hash = Bytes::new();
        let mut data = |height| {
            let metadata = Metadata {
                chain_id: "chain".to_owned(),
                height: Height(height),
                time: Timestamp(height),
                last_data_hash: last_data_hash.clone(),
            };
            let data = Data { metadata: Some(metadata), txs: vec![Tx(Bytes::new()); 200_000] };
            last_data_hash = data.hash().to_bytes();
            HeaderResponse::item(P2pData { data, da_height_hint: 0 }.encode().into())
        };
        let responses: Vec<_> = (1..=5).map(&mut data).collect();
        let sent: usize = responses.iter().map(|response| response.body.len()).sum();
        assert!(sent < 3 << 20, "{sent} bytes came");
        let items = EXPECTED.range::<P2pData>(Height(1), 64, &responses).expect("they are right");
        assert_eq!(items.len(), 2, "two of them take 13 MB, three would take 19 MB");
    }
}
