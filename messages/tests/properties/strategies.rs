//! Values of every type. What the wire normalises (an empty legacy triple, a signer without a
//! key) is made in its normal form.

use std::sync::Arc;

use baton_messages::chain::{
    Block, DaHeaderEnvelope, Data, Header, LegacyHeaderFields, Metadata, P2pData, P2pSignedHeader,
    SignedData, SignedHeader, Signer, State, Version,
};
use baton_messages::command::{
    BlockEntry, Command, DaProgress, ForcedPosition, HeaderSignature, Lane, Refusal, Submitted, Verdict,
};
use baton_messages::engine::TxResult;
use baton_messages::genesis::Genesis;
use baton_messages::types::{DaHeight, Hash, Height, Member, Place, Term, Timestamp, Tip, Tx};
use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::Index;

pub fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) }
}

/// Numbers of every encoded length.
fn number() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0..64_u32).prop_map(|(number, shift)| number >> shift)
}

fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..=max).prop_map(Bytes::from)
}

fn height() -> impl Strategy<Value = Height> {
    number().prop_map(Height)
}

fn time() -> impl Strategy<Value = Timestamp> {
    number().prop_map(Timestamp)
}

fn hash() -> impl Strategy<Value = Hash> {
    any::<[u8; 32]>().prop_map(Hash)
}

fn version() -> impl Strategy<Value = Version> {
    (number(), number()).prop_map(|(block, app)| Version { block, app })
}

fn legacy() -> impl Strategy<Value = Option<LegacyHeaderFields>> {
    option::of([bytes(40), bytes(40), bytes(1024)]).prop_map(|fields| {
        fields
            .map(|[last_commit_hash, consensus_hash, last_results_hash]| LegacyHeaderFields {
                last_commit_hash,
                consensus_hash,
                last_results_hash,
            })
            .filter(|legacy| *legacy != LegacyHeaderFields::default())
    })
}

pub fn header() -> impl Strategy<Value = Header> {
    let hashes = [bytes(40), bytes(40), bytes(40), bytes(40), bytes(40)];
    (version(), height(), time(), hashes, ".{0,30}", legacy()).prop_map(
        |(version, height, time, hashes, chain_id, legacy)| {
            let [last_header_hash, data_hash, app_hash, proposer_address, validator_hash] = hashes;
            Header {
                version,
                height,
                time,
                last_header_hash,
                data_hash,
                app_hash,
                proposer_address,
                validator_hash,
                chain_id,
                legacy,
            }
        },
    )
}

fn signer() -> impl Strategy<Value = Signer> {
    let key = any::<[u8; 32]>().prop_map(|seed| {
        let key = ed25519_dalek::SigningKey::from_bytes(&seed);
        Signer::ed25519(key.verifying_key().as_bytes())
    });
    // The address is not the decoder's business.
    let odd = (key.clone(), bytes(40)).prop_map(|(signer, address)| Signer { address, ..signer });
    prop_oneof![Just(Signer::default()), key, odd]
}

pub fn signed_header() -> impl Strategy<Value = SignedHeader> {
    (header(), bytes(70), signer()).prop_map(|(header, signature, signer)| SignedHeader {
        header,
        signature,
        signer,
    })
}

pub fn envelope() -> impl Strategy<Value = DaHeaderEnvelope> {
    (signed_header(), bytes(70))
        .prop_map(|(signed, envelope_signature)| DaHeaderEnvelope { signed, envelope_signature })
}

pub fn p2p_header() -> impl Strategy<Value = P2pSignedHeader> {
    (signed_header(), number())
        .prop_map(|(signed, da_height_hint)| P2pSignedHeader { signed, da_height_hint })
}

fn metadata() -> impl Strategy<Value = Metadata> {
    (".{0,30}", height(), time(), bytes(40)).prop_map(|(chain_id, height, time, last_data_hash)| Metadata {
        chain_id,
        height,
        time,
        last_data_hash,
    })
}

pub fn data() -> impl Strategy<Value = Data> {
    (option::of(metadata()), vec(bytes(300).prop_map(Tx), 0..6))
        .prop_map(|(metadata, txs)| Data { metadata, txs })
}

pub fn p2p_data() -> impl Strategy<Value = P2pData> {
    (data(), number()).prop_map(|(data, da_height_hint)| P2pData { data, da_height_hint })
}

pub fn signed_data() -> impl Strategy<Value = SignedData> {
    (data(), bytes(70), signer()).prop_map(|(data, signature, signer)| SignedData { data, signature, signer })
}

pub fn state() -> impl Strategy<Value = State> {
    let heights = (height(), height(), number());
    (version(), ".{0,30}", heights, option::of(time()), [bytes(40), bytes(40), bytes(40)]).prop_map(
        |(version, chain_id, (initial_height, last_block_height, da_height), last_block_time, hashes)| {
            let [app_hash, last_header_hash, next_proposer_address] = hashes;
            State {
                version,
                chain_id,
                initial_height,
                last_block_height,
                last_block_time,
                da_height,
                app_hash,
                last_header_hash,
                next_proposer_address,
            }
        },
    )
}

pub fn block() -> impl Strategy<Value = Block> {
    (header(), data()).prop_map(|(header, data)| Block::new(header, data))
}

fn header_signature() -> impl Strategy<Value = HeaderSignature> {
    (height(), hash(), bytes(64)).prop_map(|(height, hash, signature)| HeaderSignature {
        height,
        hash,
        signature,
    })
}

fn block_entry() -> impl Strategy<Value = BlockEntry> {
    (number(), block(), option::of(header_signature()), number(), number()).prop_map(
        |(term, block, tail, da_height, tx_index)| BlockEntry {
            term: Term(term),
            block: Arc::new(block),
            tail,
            forced: ForcedPosition { da_height: DaHeight(da_height), tx_index },
        },
    )
}

pub fn command() -> impl Strategy<Value = Command> {
    let lane = prop_oneof![Just(Lane::Header), Just(Lane::Data)];
    let submitted = (lane, height(), height(), number()).prop_map(|(lane, from, to, da_height)| Submitted {
        lane,
        from,
        to,
        da_height: DaHeight(da_height),
    });
    prop_oneof![
        block_entry().prop_map(Command::Block),
        header_signature().prop_map(Command::Signature),
        submitted.prop_map(Command::Submitted),
        height().prop_map(Command::Included),
        any::<u8>().prop_map(Command::Activate),
        any::<Option<String>>().prop_map(Command::Pause),
    ]
}

pub fn tip() -> impl Strategy<Value = Tip> {
    (height(), hash(), time(), number()).prop_map(|(height, hash, time, term)| Tip {
        height,
        hash,
        time,
        term: Term(term),
    })
}

pub fn verdict() -> impl Strategy<Value = Verdict> {
    use Refusal::{Chain, Data, Height, OutOfOrder, Parent, Term, Time};
    let refusal = proptest::sample::select(vec![Height, Parent, Time, Term, Chain, OutOfOrder, Data]);
    prop_oneof![
        tip().prop_map(Verdict::Committed),
        (refusal, tip()).prop_map(|(refusal, tip)| Verdict::Refused(refusal, tip)),
        Just(Verdict::Recorded),
        Just(Verdict::Internal),
    ]
}

pub fn da_progress() -> impl Strategy<Value = DaProgress> {
    (height(), height(), height(), number()).prop_map(|(headers, data, included, da_height)| DaProgress {
        headers,
        data,
        included,
        da_height: DaHeight(da_height),
    })
}

pub fn member() -> impl Strategy<Value = Member> {
    (".{0,20}", ".{0,30}", any::<u128>(), any::<bool>()).prop_map(|(name, address, storage, witness)| {
        Member { name, address, storage: uuid::Uuid::from_u128(storage), witness }
    })
}

pub fn place() -> impl Strategy<Value = Place> {
    (height(), any::<u32>(), hash()).prop_map(|(height, index, header_hash)| Place {
        height,
        index,
        header_hash,
    })
}

pub fn tx_result() -> impl Strategy<Value = TxResult> {
    prop_oneof![bytes(50).prop_map(TxResult::Applied), ".{0,50}".prop_map(TxResult::Skipped)]
}

pub fn genesis() -> impl Strategy<Value = Genesis> {
    let address = vec(any::<u8>(), 1..40);
    (".{1,30}", 1..1_u64 << 63, 1..u64::MAX, address, number(), 1..u64::MAX).prop_map(
        |(chain_id, start_time, initial_height, proposer_address, da_start_height, epoch)| Genesis {
            chain_id,
            start_time: Timestamp(start_time),
            initial_height: Height(initial_height),
            proposer_address: proposer_address.into(),
            da_start_height: DaHeight(da_start_height),
            da_epoch_forced_inclusion: epoch,
        },
    )
}

/// Damage to valid bytes.
#[derive(Clone, Debug)]
pub enum Mutation {
    /// One byte is another.
    Set(Index, u8),
    /// The end is missing.
    Cut(Index),
    /// Bytes come in between.
    Insert(Index, Vec<u8>),
    /// A part is there twice.
    Repeat(Index, Index),
}

pub fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        any::<Index>().prop_map(Mutation::Cut),
        (any::<Index>(), vec(any::<u8>(), 1..12)).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Mutation::Repeat(from, to)),
    ]
}

impl Mutation {
    pub fn applied_to(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        if bytes.is_empty() {
            return bytes;
        }
        let position = |index: &Index| index.index(bytes.len());
        match self {
            Self::Set(at, byte) => {
                let at = position(at);
                bytes[at] = *byte;
            }
            Self::Cut(at) => bytes.truncate(position(at)),
            Self::Insert(at, inserted) => {
                let at = position(at);
                bytes.splice(at..at, inserted.iter().copied());
            }
            Self::Repeat(from, to) => {
                let (from, to) = (position(from).min(position(to)), position(from).max(position(to)));
                let part = bytes[from..to].to_vec();
                bytes.splice(to..to, part);
            }
        }
        bytes
    }
}
