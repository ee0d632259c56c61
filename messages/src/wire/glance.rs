//! What ev-node sees in a gossiped message before it forwards it, however odd the bytes are.
//!
//! Go's decoder takes a known field with another wire type for an unknown one, follows groups
//! deeper, and takes any 32 bytes for an Ed25519 key. Such a message is refused here, but whoever
//! forwards it may be honest. Where it is not certain that ev-node refuses a message, it is read.

use std::collections::BTreeMap;

/// What ev-node looks at before it forwards a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Glance {
    /// The chain it says it belongs to.
    pub chain_id: String,
    /// The height it says it belongs to.
    pub height: u64,
    /// Its time.
    pub time: u64,
    /// Somebody claims it: data have no proposer, and need none.
    pub claimed: bool,
}

impl Glance {
    /// Reads a `P2PSignedHeader` as Go does; `None` when Go cannot.
    #[must_use]
    pub fn of_header(bytes: &[u8]) -> Option<Self> {
        let signed = Fields::read(bytes, &[(1, BYTES), (2, BYTES), (3, BYTES), (4, NUMBER)])?;
        let number = |tag| (tag, NUMBER);
        let text = |tag| (tag, BYTES);
        let known = [text(1), number(2), number(3), text(4), text(5), text(6), text(7), text(8), text(9)];
        let known = [&known[..], &[text(10), text(11), text(12)]].concat();
        let header = Fields::read(signed.bytes(1)?, &known)?;
        if let Some(version) = header.bytes(1) {
            Fields::read(version, &[(1, NUMBER), (2, NUMBER)])?;
        }
        let signer = Fields::read(signed.bytes(3).unwrap_or_default(), &[(1, BYTES), (2, BYTES)])?;
        let key = signer.bytes(2).unwrap_or_default();
        if !key.is_empty() && !may_be_key(key) {
            return None;
        }
        let claimed = !header.bytes(10).unwrap_or_default().is_empty();
        Some(Self { claimed, ..Self::of(&header, 12, 2, 3)? })
    }

    /// Reads a `P2PData` as Go does; `None` when Go cannot, or when it has no metadata.
    #[must_use]
    pub fn of_data(bytes: &[u8]) -> Option<Self> {
        let data = Fields::read(bytes, &[(1, BYTES), (2, BYTES), (3, NUMBER)])?;
        let metadata = Fields::read(data.bytes(1)?, &[(1, BYTES), (2, NUMBER), (3, NUMBER), (4, BYTES)])?;
        Some(Self { claimed: true, ..Self::of(&metadata, 1, 2, 3)? })
    }

    fn of(fields: &Fields, chain: u32, height: u32, time: u32) -> Option<Self> {
        let chain_id = String::from_utf8(fields.bytes(chain).unwrap_or_default().to_vec()).ok()?;
        Some(Self { chain_id, height: fields.number(height), time: fields.number(time), claimed: false })
    }
}

/// Whether Go may take it for libp2p's `PublicKey`.
fn may_be_key(bytes: &[u8]) -> bool {
    let Some(key) = Fields::read(bytes, &[(1, NUMBER), (2, BYTES)]) else { return false };
    match (key.numbers.get(&1), key.bytes(2)) {
        (Some(1), Some(raw)) => raw.len() == 32,
        (Some(0 | 2 | 3), Some(_)) => true,
        _ => false,
    }
}

/// A wire type.
type Wire = u8;

const NUMBER: Wire = 0;
const FIXED_64: Wire = 1;
const BYTES: Wire = 2;
const GROUP: Wire = 3;
const END_GROUP: Wire = 4;
const FIXED_32: Wire = 5;

/// The known fields of a message. The last number counts; all bytes of one field are joined, which
/// is how a sub-message that comes in parts is read.
#[derive(Default)]
struct Fields {
    numbers: BTreeMap<u32, u64>,
    texts: BTreeMap<u32, Vec<u8>>,
}

impl Fields {
    fn read(mut rest: &[u8], known: &[(u32, Wire)]) -> Option<Self> {
        let mut fields = Self::default();
        // Groups that are open; what is in them is unknown to every message here.
        let mut groups: Vec<u32> = vec![];
        while !rest.is_empty() {
            let key = varint(&mut rest)?;
            let tag = u32::try_from(key >> 3).ok().filter(|tag| (1..1 << 29).contains(tag))?;
            let wire = (key & 7) as Wire;
            let wanted = groups.is_empty() && known.contains(&(tag, wire));
            match wire {
                NUMBER => {
                    let number = varint(&mut rest)?;
                    if wanted {
                        fields.numbers.insert(tag, number);
                    }
                }
                BYTES => {
                    let length = usize::try_from(varint(&mut rest)?).ok()?;
                    let bytes = take(&mut rest, length)?;
                    if wanted {
                        fields.texts.entry(tag).or_default().extend_from_slice(bytes);
                    }
                }
                FIXED_64 => drop(take(&mut rest, 8)?),
                FIXED_32 => drop(take(&mut rest, 4)?),
                GROUP => groups.push(tag),
                END_GROUP if groups.pop() == Some(tag) => {}
                _ => return None,
            }
        }
        groups.is_empty().then_some(fields)
    }

    fn number(&self, tag: u32) -> u64 {
        self.numbers.get(&tag).copied().unwrap_or_default()
    }

    fn bytes(&self, tag: u32) -> Option<&[u8]> {
        self.texts.get(&tag).map(Vec::as_slice)
    }
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for place in 0..10u32 {
        let byte = *take(rest, 1)?.first()?;
        // The tenth byte has room for one bit.
        if place == 9 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::chain::{Data, Header, Metadata, P2pData, P2pSignedHeader, SignedHeader, Signer};
    use crate::types::{Height, Timestamp, Tx};
    use crate::wire::keys::PublicKey;

    fn header() -> P2pSignedHeader {
        let header = Header {
            height: Height(7),
            time: Timestamp(9),
            chain_id: "chain".to_owned(),
            proposer_address: Bytes::from_static(&[1; 32]),
            ..Header::default()
        };
        let key = SigningKey::from_bytes(&[3; 32]);
        let signer = Signer::ed25519(&key.verifying_key().to_bytes());
        let signed = SignedHeader { header, signature: Bytes::from_static(&[2; 64]), signer };
        P2pSignedHeader { signed, da_height_hint: 5 }
    }

    fn seen() -> Option<Glance> {
        Some(Glance { chain_id: "chain".to_owned(), height: 7, time: 9, claimed: true })
    }

    /// As decoded here, and as Go sees it.
    fn both(bytes: &[u8]) -> (bool, Option<Glance>) {
        (P2pSignedHeader::decode(bytes).is_ok(), Glance::of_header(bytes))
    }

    #[test]
    fn what_is_decoded_here_is_seen_the_same() {
        assert_eq!(both(&header().encode()), (true, seen()));
        let metadata = Metadata {
            chain_id: "chain".to_owned(),
            height: Height(7),
            time: Timestamp(9),
            last_data_hash: Bytes::new(),
        };
        let txs = vec![Tx(Bytes::new()), Tx(Bytes::from_static(b"a=1"))];
        let mut data = P2pData { data: Data { metadata: Some(metadata), txs }, da_height_hint: 0 };
        assert_eq!(Glance::of_data(&data.encode()), seen());
        data.data.metadata = None;
        assert_eq!(Glance::of_data(&data.encode()), None);
    }

    #[test]
    fn a_field_of_another_wire_type_is_unknown_to_go() {
        let bytes = header().encode();
        // The hint as bytes, as in an envelope for DA; the header's height as bytes.
        assert_eq!(both(&[&bytes[..], &[0x22, 2, 0xff, 0xff]].concat()), (false, seen()));
        assert_eq!(both(&[&bytes[..], &[0x0a, 3, 0x12, 1, 0]].concat()), (false, seen()));
        let groups = [vec![0x7b; 200], vec![0x7c; 200]].concat();
        assert_eq!(both(&[&bytes[..], &groups].concat()), (false, seen()));
    }

    #[test]
    fn go_takes_keys_that_are_no_points() {
        let mut bent = header();
        let key = |first: u8| [&[8, 1, 0x12, 0x20, first][..], &[0; 31]].concat();
        let none = (0..=255).map(key).find(|key| PublicKey::parse(key).is_err());
        bent.signed.signer.pub_key = none.expect("every other number is no point").into();
        assert_eq!(both(&bent.encode()), (false, seen()));
        for none in [&[8u8, 1, 0x12, 1, 7][..], &[8, 9, 0x12, 0], &[0x12, 1, 7], b"garbage"] {
            bent.signed.signer.pub_key = Bytes::copy_from_slice(none);
            assert_eq!(both(&bent.encode()), (false, None), "{none:?}");
        }
    }

    #[test]
    fn what_go_cannot_decode_either_is_not_seen() {
        let bytes = header().encode();
        for end in [&[0x22][..], &[0x22, 9, 1], &[0x7b], &[0x7c], &[0x06], &[0x00, 1], &[0xff; 11]] {
            assert_eq!(both(&[&bytes[..], end].concat()), (false, None), "{end:?}");
        }
        assert_eq!(Glance::of_header(b""), None, "there is no header");
        // The chain id of the header, once more and not UTF-8.
        assert_eq!(both(&[&bytes[..], &[0x0a, 3, 0x62, 1, 0xff]].concat()), (false, None));
    }
}
