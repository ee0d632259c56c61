//! The first look at gossip: what can be said of a message by itself.
//!
//! What passes is decoded, of this chain, new, not from the future, and a header is signed by the
//! key that it names. Copies are settled without another look.

use std::num::NonZeroUsize;
use std::sync::Arc;

use baton_messages::chain::{P2pData, P2pSignedHeader};
use baton_messages::p2p::{Item, Verdict};
use baton_messages::types::{Hash, Height, Timestamp};
use baton_messages::wire::WireError;
use baton_messages::wire::glance::Glance;
use baton_messages::wire::p2p::Service;
use baton_messages::wire::validate::{Invalid, MAX_P2P_DRIFT};
use lru::LruCache;

use super::answers::Carried;

/// Names what a message carries, whatever its hint says.
pub type Key = (Service, Hash);

/// What is known of an item that was seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    BeingJudged,
    Settled(Verdict),
    /// Refused by what every node sees.
    Refused,
}

/// Why a message goes no further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It was settled or is being judged; nobody is to blame for a copy.
    Copy,
    /// A clock is wrong, perhaps this node's.
    Early,
    /// It is refused, by what every node looks at before it forwards anything: whoever forwarded
    /// it saw it too.
    Refused(String),
    /// It is refused, by what nodes of ev-node forward unseen, such as a signature that does not
    /// verify: only who published it is to blame.
    Forged(String),
}

impl Stopped {
    /// What becomes of the message.
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        match self {
            Self::Copy | Self::Early => Verdict::Ignore,
            Self::Refused(_) | Self::Forged(_) => Verdict::Reject,
        }
    }
}

/// Looks at messages.
#[derive(Debug)]
pub struct Intake {
    chain_id: String,
    initial: Height,
    seen: LruCache<Key, Seen>,
}

impl Intake {
    /// For a chain that begins at a height, remembering so many items.
    #[must_use]
    pub fn new(chain_id: &str, initial: Height, remember: NonZeroUsize) -> Self {
        Self { chain_id: chain_id.to_owned(), initial, seen: LruCache::new(remember) }
    }

    /// Looks at a message. What passes counts as being judged until it is settled.
    ///
    /// # Errors
    ///
    /// Why it goes no further.
    pub fn look(&mut self, service: Service, bytes: &[u8], now: Timestamp) -> Result<(Item, Key), Stopped> {
        match service {
            Service::Headers => {
                let item: P2pSignedHeader = self.decode(bytes)?;
                let key = (service, Hash::of(&item.signed.encode()));
                self.is_new(key)?;
                let valid = item.signed.validate(now).map(|_| ());
                self.check(key, valid, item.signed.header.time, now)?;
                Ok((Item::Header(Arc::new(item)), key))
            }
            Service::Data => {
                let item: P2pData = self.decode(bytes)?;
                let key = (service, item.data.hash());
                self.is_new(key)?;
                let time = item.data.metadata.as_ref().map_or(Timestamp(0), |metadata| metadata.time);
                self.check(key, item.data.validate(now), time, now)?;
                Ok((Item::Data(Arc::new(item)), key))
            }
        }
    }

    fn decode<T: Carried>(&self, bytes: &[u8]) -> Result<T, Stopped> {
        let item = T::decode_item(bytes).map_err(|error| match error {
            WireError::Malformed { .. } if !self.is_forwarded(T::glance(bytes)) => {
                Stopped::Refused(error.to_string())
            }
            error => Stopped::Forged(error.to_string()),
        })?;
        // As in go-header: case makes no difference to the chain.
        if !item.chain_id().eq_ignore_ascii_case(&self.chain_id) {
            let shown: String = item.chain_id().chars().take(64).collect();
            return Err(Stopped::Refused(format!("it is of the chain {shown:?}")));
        }
        if item.height() < self.initial {
            let (height, initial) = (item.height(), self.initial);
            return Err(Stopped::Refused(format!("height {height} of a chain that begins at {initial}")));
        }
        Ok(item)
    }

    /// Whether ev-node's nodes forward a message that cannot be decoded here: they saw this of it.
    fn is_forwarded(&self, glance: Option<Glance>) -> bool {
        glance.is_some_and(|glance| {
            glance.chain_id.eq_ignore_ascii_case(&self.chain_id)
                && glance.height >= self.initial.0
                && glance.time != 0
                && glance.claimed
        })
    }

    fn is_new(&mut self, key: Key) -> Result<(), Stopped> {
        match self.seen.get(&key) {
            None => Ok(()),
            Some(Seen::Refused) => Err(Stopped::Refused("it was refused before".to_owned())),
            Some(Seen::Settled(Verdict::Reject)) => Err(Stopped::Forged("it was refused before".to_owned())),
            Some(Seen::BeingJudged | Seen::Settled(_)) => Err(Stopped::Copy),
        }
    }

    fn check(
        &mut self,
        key: Key,
        valid: Result<(), Invalid>,
        time: Timestamp,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        match valid {
            Err(Invalid::FromTheFuture { .. }) => return Err(Stopped::Early),
            Err(error) if is_basic(&error) => {
                self.seen.put(key, Seen::Refused);
                return Err(Stopped::Refused(error.to_string()));
            }
            Err(error) => {
                self.seen.put(key, Seen::Settled(Verdict::Reject));
                return Err(Stopped::Forged(error.to_string()));
            }
            Ok(()) if time > now.plus(MAX_P2P_DRIFT) => return Err(Stopped::Early),
            Ok(()) => {}
        }
        self.seen.put(key, Seen::BeingJudged);
        Ok(())
    }

    /// An item was judged. What could not be judged yet is looked at again when it comes again.
    pub fn settled(&mut self, key: Key, verdict: Verdict) {
        match verdict {
            Verdict::Accept | Verdict::Reject => self.seen.put(key, Seen::Settled(verdict)),
            Verdict::Ignore => self.seen.pop(&key),
        };
    }
}

/// Whether ev-node looks for it before it forwards a message (wire section 6.3): not for the
/// signer and the signature.
const fn is_basic(invalid: &Invalid) -> bool {
    matches!(
        invalid,
        Invalid::NoProposer
            | Invalid::Time(_)
            | Invalid::NoMetadata
            | Invalid::NoChain
            | Invalid::NoHeight
            | Invalid::Chain { .. }
    )
}

#[cfg(test)]
mod tests {
    use baton_messages::chain::{Data, Header, Metadata, SignedHeader, Signer};
    use bytes::Bytes;
    use ed25519_dalek::{Signer as _, SigningKey};

    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000_000_000);

    fn header(chain_id: &str, time: Timestamp, hint: u64) -> P2pSignedHeader {
        let key = SigningKey::from_bytes(&[3; 32]);
        let signer = Signer::ed25519(&key.verifying_key().to_bytes());
        let header = Header {
            height: Height(7),
            time,
            chain_id: chain_id.to_owned(),
            proposer_address: signer.address.clone(),
            ..Header::default()
        };
        let signature = key.sign(&header.encode()).to_bytes();
        let signed = SignedHeader { header, signature: Bytes::copy_from_slice(&signature), signer };
        P2pSignedHeader { signed, da_height_hint: hint }
    }

    fn intake() -> Intake {
        Intake::new("chain", Height(3), NonZeroUsize::new(10).expect("not zero"))
    }

    fn look(intake: &mut Intake, header: &P2pSignedHeader) -> Result<Key, Stopped> {
        intake.look(Service::Headers, &header.encode(), NOW).map(|(_, key)| key)
    }

    #[test]
    fn a_copy_goes_no_further_whatever_its_hint_says() {
        let mut intake = intake();
        let key = look(&mut intake, &header("chain", NOW, 0)).expect("it is new");
        assert_eq!(look(&mut intake, &header("chain", NOW, 5)), Err(Stopped::Copy));
        intake.settled(key, Verdict::Accept);
        assert_eq!(look(&mut intake, &header("chain", NOW, 5)), Err(Stopped::Copy));
        intake.settled(key, Verdict::Ignore);
        assert_eq!(look(&mut intake, &header("chain", NOW, 5)), Ok(key), "it is looked at again");
        intake.settled(key, Verdict::Reject);
        assert!(matches!(look(&mut intake, &header("chain", NOW, 0)), Err(Stopped::Forged(_))));
    }

    #[test]
    fn garbage_foreign_chains_and_forged_signatures_are_refused() {
        let mut intake = intake();
        let garbage = intake.look(Service::Headers, b"garbage", NOW);
        assert!(matches!(garbage, Err(Stopped::Refused(_))));
        assert!(matches!(look(&mut intake, &header("other", NOW, 0)), Err(Stopped::Refused(_))));
        let mut forged = header("chain", NOW, 0);
        forged.signed.header.validator_hash = Bytes::from_static(b"forged");
        assert!(matches!(look(&mut intake, &forged), Err(Stopped::Forged(_))));
        let mut stolen = header("chain", NOW, 0);
        stolen.signed.signer.address = Bytes::from_static(&[9; 32]);
        assert!(matches!(look(&mut intake, &stolen), Err(Stopped::Forged(_))));
        let mut nobodys = header("chain", NOW, 0);
        nobodys.signed.header.proposer_address = Bytes::new();
        for _ in 0..2 {
            assert!(matches!(look(&mut intake, &nobodys), Err(Stopped::Refused(_))), "ev-node sees it too");
        }
        let mut padded = header("chain", NOW, 0);
        padded.signed.signer.pub_key = [&padded.signed.signer.pub_key[..], &[0x1a, 0]].concat().into();
        assert!(matches!(look(&mut intake, &padded), Err(Stopped::Forged(_))));
    }

    #[test]
    fn what_go_takes_for_unknown_fields_is_not_held_against_who_forwards_it() {
        let mut intake = intake();
        let whole = header("chain", NOW, 0).encode();
        // The hint as bytes, which Go skips.
        let odd = [&whole[..], &[0x22, 2, 1, 1]].concat();
        let refused = intake.look(Service::Headers, &odd, NOW);
        assert!(matches!(refused, Err(Stopped::Forged(_))), "{refused:?}");
        // Of another chain, or cut off, Go would not have let it through either.
        let foreign = [&header("other", NOW, 0).encode()[..], &[0x22, 2, 1, 1]].concat();
        for garbage in [&foreign[..], &odd[..odd.len() - 1]] {
            let refused = intake.look(Service::Headers, garbage, NOW);
            assert!(matches!(refused, Err(Stopped::Refused(_))), "{refused:?}");
        }
    }

    #[test]
    fn nobody_honest_forwards_what_lies_before_the_chain_begins() {
        let mut intake = intake();
        let mut before = header("chain", NOW, 0);
        before.signed.header.height = Height(2);
        assert!(matches!(look(&mut intake, &before), Err(Stopped::Refused(_))));
    }

    #[test]
    fn a_message_from_the_future_is_ignored_and_may_come_again() {
        let mut intake = intake();
        let early = header("chain", NOW.plus(MAX_P2P_DRIFT).next(), 0);
        assert_eq!(look(&mut intake, &early), Err(Stopped::Early));
        let later = intake.look(Service::Headers, &early.encode(), NOW.next());
        assert!(later.is_ok());
        assert_eq!(look(&mut intake, &header("chain", NOW.plus(MAX_P2P_DRIFT * 10), 0)), Err(Stopped::Early));
    }

    #[test]
    fn data_without_metadata_is_refused() {
        let mut intake = intake();
        let mut data = P2pData::default();
        assert!(matches!(intake.look(Service::Data, &data.encode(), NOW), Err(Stopped::Refused(_))));
        let metadata = Metadata {
            chain_id: "chain".to_owned(),
            height: Height(7),
            time: NOW,
            last_data_hash: Bytes::new(),
        };
        data.data = Data { metadata: Some(metadata), txs: vec![] };
        assert!(intake.look(Service::Data, &data.encode(), NOW).is_ok());
        assert_eq!(intake.look(Service::Data, &data.encode(), NOW).map(|_| ()), Err(Stopped::Copy));
    }
}
