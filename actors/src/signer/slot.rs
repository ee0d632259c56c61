//! The two slots of the guard, and which of them rules.
//!
//! A write goes to the slot that does not rule. A crash can only tear the slot being written,
//! and a torn slot was never answered for: nothing was signed on its strength. So one damaged
//! slot leaves the decision to the other, and two are damage that needs a person.

use baton_messages::types::{Hash, Height, Term};
use bytes::Bytes;

/// The size of a slot: one page, so that writing one never rewrites the other.
pub const SLOT_BYTES: usize = 4096;
/// The most bytes a chain id may have to fit.
pub const MAX_CHAIN_ID: usize = SLOT_BYTES - CHAIN_AT;

const MAGIC: [u8; 8] = *b"BTNGUARD";
const VERSION: u32 = 1;
/// The longest signature that is kept; Ed25519 has 64 bytes.
const MAX_SIGNATURE: usize = 128;

// Offsets: magic, checksum over everything after it, version, then the record.
const SUM_AT: usize = 8;
const VERSION_AT: usize = 12;
const SEQUENCE_AT: usize = 16;
const HEIGHT_AT: usize = 24;
const TERM_AT: usize = 32;
const GENESIS_AT: usize = 40;
const HASH_AT: usize = 72;
const SIGNATURE_AT: usize = 104;
const CHAIN_LENGTH_AT: usize = SIGNATURE_AT + 1 + MAX_SIGNATURE;
const CHAIN_AT: usize = CHAIN_LENGTH_AT + 2;

/// Which chain a guard is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainId {
    /// The chain's name.
    pub name: String,
    /// The hash of its genesis.
    pub genesis: Hash,
}

/// What a slot holds: the last header this key was about to sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Counts the writes; decides which slot rules.
    pub sequence: u64,
    /// The chain.
    pub chain: ChainId,
    /// The guarded height; below the initial height when nothing was signed yet.
    pub height: Height,
    /// The guarded header; zeroes when nothing was signed yet.
    pub hash: Hash,
    /// The newest term that was granted.
    pub term: Term,
    /// The signature, where it was known when the record was written.
    pub signature: Option<Bytes>,
}

impl Record {
    /// Which slot this record goes to.
    #[must_use]
    pub const fn slot(&self) -> usize {
        (self.sequence % 2) as usize
    }

    /// The slot's bytes.
    ///
    /// # Panics
    ///
    /// When the chain id is longer than `MAX_CHAIN_ID`, which is checked when a guard is opened.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut slot = vec![0; SLOT_BYTES];
        slot[..SUM_AT].copy_from_slice(&MAGIC);
        slot[VERSION_AT..SEQUENCE_AT].copy_from_slice(&VERSION.to_le_bytes());
        slot[SEQUENCE_AT..HEIGHT_AT].copy_from_slice(&self.sequence.to_le_bytes());
        slot[HEIGHT_AT..TERM_AT].copy_from_slice(&self.height.0.to_le_bytes());
        slot[TERM_AT..GENESIS_AT].copy_from_slice(&self.term.0.to_le_bytes());
        slot[GENESIS_AT..HASH_AT].copy_from_slice(&self.chain.genesis.0);
        slot[HASH_AT..SIGNATURE_AT].copy_from_slice(&self.hash.0);
        if let Some(signature) = self.signature.as_ref().filter(|bytes| bytes.len() <= MAX_SIGNATURE) {
            slot[SIGNATURE_AT] = u8::try_from(signature.len()).expect("the length was just checked");
            slot[SIGNATURE_AT + 1..][..signature.len()].copy_from_slice(signature);
        }
        let name = self.chain.name.as_bytes();
        let length = u16::try_from(name.len()).expect("the chain id was checked when the guard was opened");
        slot[CHAIN_LENGTH_AT..CHAIN_AT].copy_from_slice(&length.to_le_bytes());
        slot[CHAIN_AT..][..name.len()].copy_from_slice(name);
        let sum = checksum(&slot);
        slot[SUM_AT..VERSION_AT].copy_from_slice(&sum.to_le_bytes());
        slot
    }
}

fn checksum(slot: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&slot[..SUM_AT]);
    hasher.update(&slot[VERSION_AT..]);
    hasher.finalize()
}

fn array<const N: usize>(slot: &[u8], at: usize) -> [u8; N] {
    slot[at..at + N].try_into().expect("the offsets lie inside a slot")
}

/// Why a slot says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Unreadable {
    /// Never written, or torn.
    Damaged(&'static str),
    /// Whole, but of a version that is not known here.
    Newer(u32),
}

fn decode(slot: &[u8]) -> Result<Record, Unreadable> {
    if slot.len() != SLOT_BYTES {
        return Err(Unreadable::Damaged("it is cut short"));
    }
    if slot.iter().all(|byte| *byte == 0) {
        return Err(Unreadable::Damaged("it is empty"));
    }
    if slot[..SUM_AT] != MAGIC {
        return Err(Unreadable::Damaged("it does not begin like a guard"));
    }
    if array(slot, SUM_AT) != checksum(slot).to_le_bytes() {
        return Err(Unreadable::Damaged("its checksum is wrong"));
    }
    let version = u32::from_le_bytes(array(slot, VERSION_AT));
    if version != VERSION {
        return Err(Unreadable::Newer(version));
    }
    let signature = match usize::from(slot[SIGNATURE_AT]) {
        0 => None,
        length if length <= MAX_SIGNATURE => {
            Some(Bytes::copy_from_slice(&slot[SIGNATURE_AT + 1..][..length]))
        }
        _ => return Err(Unreadable::Damaged("its signature is too long")),
    };
    let length = usize::from(u16::from_le_bytes(array(slot, CHAIN_LENGTH_AT)));
    let name = slot.get(CHAIN_AT..CHAIN_AT + length).and_then(|bytes| std::str::from_utf8(bytes).ok());
    Ok(Record {
        sequence: u64::from_le_bytes(array(slot, SEQUENCE_AT)),
        chain: ChainId {
            name: name.ok_or(Unreadable::Damaged("its chain id is not text"))?.to_owned(),
            genesis: Hash(array(slot, GENESIS_AT)),
        },
        height: Height(u64::from_le_bytes(array(slot, HEIGHT_AT))),
        hash: Hash(array(slot, HASH_AT)),
        term: Term(u64::from_le_bytes(array(slot, TERM_AT))),
        signature,
    })
}

/// The bytes of a guard as they are on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slots {
    /// There is no guard.
    Missing,
    /// Both slots; shorter than `SLOT_BYTES` where the file is.
    Present([Vec<u8>; 2]),
}

/// What the slots say together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is no guard.
    Missing,
    /// This record rules.
    Rules {
        /// The newest whole record.
        record: Box<Record>,
        /// What is wrong with the other slot; nothing is when it was never written.
        torn: Option<&'static str>,
    },
    /// A newer version of the program wrote the guard.
    Newer(u32),
    /// Neither slot can be trusted.
    Damaged(String),
}

/// Decides which slot rules.
#[must_use]
pub fn judge(slots: &Slots) -> Verdict {
    let Slots::Present(bytes) = slots else { return Verdict::Missing };
    let decoded = [decode(&bytes[0]), decode(&bytes[1])];
    for slot in &decoded {
        if let Err(Unreadable::Newer(version)) = slot {
            return Verdict::Newer(*version);
        }
    }
    for (index, slot) in decoded.iter().enumerate() {
        if slot.as_ref().is_ok_and(|record| record.slot() != index) {
            return Verdict::Damaged(format!("slot {index} holds what belongs into the other"));
        }
    }
    match decoded {
        [Ok(first), Ok(second)] => {
            let (older, newer) =
                if first.sequence < second.sequence { (first, second) } else { (second, first) };
            if older.sequence + 1 != newer.sequence || older.chain != newer.chain {
                return Verdict::Damaged("its slots do not follow each other".into());
            }
            if older.height > newer.height || older.term > newer.term {
                return Verdict::Damaged("its slots contradict each other".into());
            }
            if older.height == newer.height && older.hash != newer.hash {
                return Verdict::Damaged("its slots hold two headers of one height".into());
            }
            Verdict::Rules { record: Box::new(newer), torn: None }
        }
        [Ok(record), Err(Unreadable::Damaged(reason))] | [Err(Unreadable::Damaged(reason)), Ok(record)] => {
            let torn = (record.sequence > 0 || reason != "it is empty").then_some(reason);
            Verdict::Rules { record: Box::new(record), torn }
        }
        [Err(first), Err(second)] => {
            Verdict::Damaged(format!("slot 0: {first:?}, slot 1: {second:?}").to_lowercase())
        }
        [Ok(_), Err(Unreadable::Newer(version))] | [Err(Unreadable::Newer(version)), Ok(_)] => {
            Verdict::Newer(version)
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn record(sequence: u64, height: u64) -> Record {
        Record {
            sequence,
            chain: ChainId { name: "chain-1".into(), genesis: Hash::of(b"genesis") },
            height: Height(height),
            hash: Hash::of(&height.to_be_bytes()),
            term: Term(3),
            signature: None,
        }
    }

    fn present(slots: [Vec<u8>; 2]) -> Slots {
        Slots::Present(slots)
    }

    fn rules(slots: &Slots) -> Record {
        match judge(slots) {
            Verdict::Rules { record, .. } => *record,
            other => panic!("no slot rules: {other:?}"),
        }
    }

    #[test]
    fn the_bytes_of_a_slot_stay_what_they_are() {
        let mut record = record(5, 8);
        record.signature = Some(Bytes::from_static(&[0xab; 64]));
        let bytes = record.encode();
        assert_eq!(bytes.len(), SLOT_BYTES);
        assert_eq!(
            Hash::of(&bytes).to_string(),
            "a6f3713fe03e72720d14f4aca037e4b9478abea55f8a1ed239f7c99b2f30a1cb"
        );
        assert_eq!(decode(&bytes), Ok(record));
    }

    #[test]
    fn the_newer_slot_rules() {
        assert_eq!(rules(&present([record(6, 9).encode(), record(5, 8).encode()])), record(6, 9));
        assert_eq!(rules(&present([record(6, 9).encode(), record(7, 10).encode()])), record(7, 10));
    }

    #[test]
    fn slots_that_contradict_each_other_are_damage() {
        let mut sibling = record(7, 9);
        sibling.hash = Hash::of(b"another");
        let mut other_chain = record(7, 10);
        other_chain.chain.name = "chain-2".into();
        let mut earlier_term = record(7, 10);
        earlier_term.term = Term(2);
        for newer in [record(9, 10), record(7, 8), sibling, other_chain, earlier_term] {
            let verdict = judge(&present([record(6, 9).encode(), newer.encode()]));
            assert!(matches!(verdict, Verdict::Damaged(_)), "{verdict:?}");
        }
        let swapped = judge(&present([record(7, 10).encode(), record(6, 9).encode()]));
        assert!(matches!(swapped, Verdict::Damaged(_)), "{swapped:?}");
    }

    #[test]
    fn two_torn_empty_or_short_slots_are_damage() {
        for slot in [vec![], vec![0; SLOT_BYTES], vec![7; SLOT_BYTES], record(6, 9).encode()[..4000].to_vec()]
        {
            let verdict = judge(&present([slot.clone(), slot]));
            assert!(matches!(verdict, Verdict::Damaged(_)), "{verdict:?}");
        }
    }

    #[test]
    fn a_slot_of_a_newer_version_is_not_overruled_by_an_older_one() {
        let mut newer = record(7, 10).encode();
        newer[VERSION_AT] = 2;
        let sum = checksum(&newer);
        newer[SUM_AT..VERSION_AT].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(judge(&present([record(6, 9).encode(), newer])), Verdict::Newer(2));
    }

    proptest! {
        #[test]
        fn a_slot_torn_anywhere_leaves_the_rule_to_the_other(cut in 0..SLOT_BYTES, zeroed: bool) {
            let (older, ruling) = (record(5, 8), record(6, 9));
            // Slot 1 is being overwritten: a prefix of the new bytes over the old ones, or over zeroes.
            let next = record(7, 10).encode();
            let mut torn = if zeroed { vec![0; SLOT_BYTES] } else { older.encode() };
            torn[..cut].copy_from_slice(&next[..cut]);
            let seen = rules(&present([ruling.encode(), torn.clone()]));
            // The rest of a slot is zeroes: once everything else is there the write is whole.
            prop_assert_eq!(seen, if torn == next { record(7, 10) } else { ruling });
        }

        #[test]
        fn no_changed_byte_goes_unnoticed(at in 0..SLOT_BYTES, flip in 1..=255_u8) {
            let mut changed = record(7, 10).encode();
            changed[at] ^= flip;
            prop_assert_eq!(rules(&present([record(6, 9).encode(), changed])), record(6, 9));
        }

        #[test]
        fn arbitrary_bytes_never_rule_and_never_panic(
            first in proptest::collection::vec(any::<u8>(), 0..=SLOT_BYTES),
            second in proptest::collection::vec(any::<u8>(), 0..=SLOT_BYTES),
        ) {
            prop_assert!(matches!(judge(&present([first, second])), Verdict::Damaged(_)));
        }
    }
}
