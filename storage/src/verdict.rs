//! What apply decides about an entry: a compare-and-set on the tip (P1, hazard E1).
//!
//! Everything here is a pure function of the log so far: no disk, no clock, no engine (P5).
//! The same entry in the same place of the log gets the same verdict on every member, for ever.

use baton_messages::chain::{Block, Header};
use baton_messages::command::{
    BlockEntry, DaProgress, ForcedPosition, HeaderSignature, Lane, Refusal, Submitted, Verdict,
};
use baton_messages::genesis::Genesis;
use baton_messages::mutation::{Mutation, planted};
use baton_messages::types::{Hash, Height, Term, Tip};

/// How far below the tip a block is still recognised as standing already, and a signature's
/// hash checked. The places in this window are part of snapshots, so every member knows them.
pub const WINDOW: u64 = 256;

/// Times from here on are negative for ev-node (wire section 10).
const END_OF_TIME: u64 = 1 << 63;

/// What becomes of a block entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It extends the chain and is the tip now.
    Commit(Tip),
    /// The same block stands already: its place.
    Standing(Tip),
    /// It does not enter the chain.
    Refuse(Refusal),
}

/// Whether a height lies in the window below the tip.
#[must_use]
pub const fn in_window(tip: Height, height: Height) -> bool {
    height.0 <= tip.0 && tip.0 - height.0 < WINDOW
}

/// Decides about a block entry.
///
/// `log_term` is the term of the log entry that carries it; `standing` is the place of a block
/// with this very hash in the window below the tip, if there is one.
#[must_use]
pub fn block(
    genesis: &Genesis,
    tip: &Tip,
    standing: Option<Tip>,
    log_term: Term,
    entry: &BlockEntry,
) -> Decision {
    decide(genesis, tip, standing, log_term, entry, TimeRule::Rises)
}

/// What of a decision stands, given the position of forced inclusion before the block and the one
/// that comes with it: it never goes back, or transactions would be forced twice (hazard E7).
#[must_use]
pub fn forced(decision: Decision, before: ForcedPosition, after: ForcedPosition) -> Decision {
    match decision {
        Decision::Commit(_) if after < before => Decision::Refuse(Refusal::OutOfOrder),
        decision => decision,
    }
}

/// As [`block`], for a block of a chain that is followed: it may have the time of the one before,
/// as ev-node allows it.
#[must_use]
pub fn followed(
    genesis: &Genesis,
    tip: &Tip,
    standing: Option<Tip>,
    log_term: Term,
    entry: &BlockEntry,
) -> Decision {
    decide(genesis, tip, standing, log_term, entry, TimeRule::MayRest)
}

/// As [`followed`], for a header without its data: of a chain of which only headers are kept.
#[must_use]
pub fn followed_header(genesis: &Genesis, tip: &Tip, header: &Header, hash: Hash) -> Decision {
    match refusal_of_header(genesis, tip, header, TimeRule::MayRest) {
        None => Decision::Commit(Tip { height: header.height, hash, time: header.time, term: Term(0) }),
        Some(refusal) => Decision::Refuse(refusal),
    }
}

/// What the time of a block must do after the one before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TimeRule {
    Rises,
    MayRest,
}

fn decide(
    genesis: &Genesis,
    tip: &Tip,
    standing: Option<Tip>,
    log_term: Term,
    entry: &BlockEntry,
    rule: TimeRule,
) -> Decision {
    match refusal(genesis, tip, log_term, entry, rule) {
        None => Decision::Commit(Tip {
            height: entry.block.height(),
            hash: entry.block.hash(),
            time: entry.block.header().time,
            term: log_term,
        }),
        Some(refusal) => standing.map_or(Decision::Refuse(refusal), Decision::Standing),
    }
}

fn refusal(
    genesis: &Genesis,
    tip: &Tip,
    log_term: Term,
    entry: &BlockEntry,
    rule: TimeRule,
) -> Option<Refusal> {
    if entry.term != log_term {
        return Some(Refusal::Term);
    }
    let of_header = refusal_of_header(genesis, tip, entry.block.header(), rule);
    of_header.or_else(|| (!agrees_with_itself(&entry.block)).then_some(Refusal::Data))
}

fn refusal_of_header(genesis: &Genesis, tip: &Tip, header: &Header, rule: TimeRule) -> Option<Refusal> {
    let first = tip.height == Height(0);
    let next = if first { genesis.initial_height } else { tip.height.next() };
    let parent: &[u8] = if first { &[] } else { &tip.hash.0 };
    // Equal times are refused, here and by whoever builds blocks (hazard E8).
    let may_rest = rule == TimeRule::MayRest || planted(Mutation::EqualTime);
    let rests = may_rest && header.time == tip.time;
    let time_rises = if first { header.time == genesis.start_time } else { rests || header.time > tip.time };
    if header.chain_id != genesis.chain_id {
        Some(Refusal::Chain)
    } else if header.height != next {
        Some(Refusal::Height)
    } else if header.last_header_hash != parent && !planted(Mutation::FreeParent) {
        Some(Refusal::Parent)
    } else if !time_rises || header.time.0 >= END_OF_TIME {
        Some(Refusal::Time)
    } else {
        None
    }
}

/// Whether a block's data are what its header says.
#[must_use]
pub fn agrees_with_itself(block: &Block) -> bool {
    let header = block.header();
    let metadata_agrees = block.data().metadata.as_ref().is_some_and(|metadata| {
        metadata.chain_id == header.chain_id
            && metadata.height == header.height
            && metadata.time == header.time
    });
    metadata_agrees && header.data_hash == block.data().commitment().0[..]
}

/// Whether the data of a block are those that the block above names. Headers do not say what a
/// block's metadata holds, so two bodies may fit one header; only one of them was committed, and
/// blobs on DA hold it byte for byte (P7). A block that names nothing says nothing, and data without
/// transactions are never posted: nodes of ev-node that follow make those up, and differ.
///
/// No verdict of apply depends on it.
#[must_use]
pub fn agrees_with_above(block: &Block, above: &Block) -> bool {
    let metadata = above.data().metadata.as_ref();
    let named = metadata.map(|metadata| &metadata.last_data_hash).filter(|named| !named.is_empty());
    block.txs().is_empty() || named.is_none_or(|named| block.data().hash().0[..] == named[..])
}

/// Decides about a signature: it must be for a committed header.
///
/// `standing` is the place of a header with the signature's hash in the window below the tip.
/// Below the window every height is taken for committed: the store keeps the signature only if
/// it fits the header there.
#[must_use]
pub fn signature(tip: &Tip, standing: Option<Tip>, signature: &HeaderSignature) -> Verdict {
    let committed = if in_window(tip.height, signature.height) {
        standing.is_some_and(|place| place.height == signature.height)
    } else {
        signature.height > Height(0) && signature.height < tip.height
    };
    if committed { Verdict::Recorded } else { Verdict::Refused(Refusal::OutOfOrder, *tip) }
}

/// Decides about a range on DA: it continues its lane exactly, from the chain's first height on, or
/// lies in what is recorded.
///
/// Returns the new progress when there is any.
#[must_use]
pub fn submitted(
    tip: &Tip,
    da: &DaProgress,
    first: Height,
    range: &Submitted,
) -> (Verdict, Option<DaProgress>) {
    let refused = (Verdict::Refused(Refusal::OutOfOrder, *tip), None);
    let progress = match range.lane {
        Lane::Header => da.headers,
        Lane::Data => da.data,
    };
    if range.from > range.to || range.from == Height(0) || range.to > tip.height {
        return refused;
    }
    if range.to <= progress {
        return (Verdict::Recorded, None);
    }
    if range.from != progress.next().max(first) {
        return refused;
    }
    let mut next = DaProgress { da_height: da.da_height.max(range.da_height), ..*da };
    match range.lane {
        Lane::Header => next.headers = range.to,
        Lane::Data => next.data = range.to,
    }
    (Verdict::Recorded, Some(next))
}

/// Decides about an inclusion: it rises, and both lanes have come as far.
///
/// Returns the new progress when there is any.
#[must_use]
pub fn included(tip: &Tip, da: &DaProgress, height: Height) -> (Verdict, Option<DaProgress>) {
    if height <= da.included {
        (Verdict::Recorded, None)
    } else if height <= da.headers.min(da.data) {
        (Verdict::Recorded, Some(DaProgress { included: height, ..*da }))
    } else {
        (Verdict::Refused(Refusal::OutOfOrder, *tip), None)
    }
}
