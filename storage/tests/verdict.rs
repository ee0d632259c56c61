//! Apply is a compare-and-set on the tip: every rule, and properties over random logs (P1, P5).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use baton_messages::chain::{Block, Data, Header, Metadata};
use baton_messages::command::{
    BlockEntry, Command, DaProgress, FORCED_VERSION, ForcedPosition, HeaderSignature, Lane, Refusal,
    Submitted, Verdict,
};
use baton_messages::genesis::Genesis;
use baton_messages::types::{DaHeight, Hash, Height, Term, Timestamp, Tip, Tx};
use baton_storage::memory::Disk;
use baton_storage::raft_types::Entry;
use baton_storage::verdict::{self, Decision, WINDOW};
use bytes::Bytes;
use common::*;
use proptest::prelude::*;

const TERM: Term = Term(4);

fn tip() -> Tip {
    Tip { height: Height(7), hash: Hash([3; 32]), time: Timestamp(5_000), term: Term(3) }
}

fn changed(change: impl FnOnce(&mut Header, &mut Data)) -> BlockEntry {
    let good = next_block(&tip(), &[b"one"]);
    let (mut header, mut data) = (good.header().clone(), good.data().clone());
    change(&mut header, &mut data);
    block_entry(TERM.0, &Block::shared(header, data))
}

fn decide(entry: &BlockEntry) -> Decision {
    verdict::block(&genesis(), &tip(), None, TERM, entry)
}

#[test]
fn the_block_after_the_tip_is_committed_in_the_term_of_its_log_entry() {
    let entry = changed(|_, _| {});
    assert_eq!(decide(&entry), Decision::Commit(tip_of(&entry.block, 4)));
}

#[test]
fn every_deviation_is_refused_by_its_own_rule() {
    let cases: Vec<(Refusal, BlockEntry)> = vec![
        (Refusal::Chain, changed(|header, _| header.chain_id = "another".into())),
        (Refusal::Height, changed(|header, _| header.height = Height(7))),
        (Refusal::Height, changed(|header, _| header.height = Height(9))),
        (Refusal::Height, changed(|header, _| header.height = Height(0))),
        (Refusal::Parent, changed(|header, _| header.last_header_hash = Bytes::from_static(&[4; 32]))),
        (Refusal::Parent, changed(|header, _| header.last_header_hash = Bytes::new())),
        (Refusal::Parent, changed(|header, _| header.last_header_hash = Bytes::from_static(&[3; 31]))),
        (Refusal::Time, changed(|header, _| header.time = Timestamp(5_000))),
        (Refusal::Time, changed(|header, _| header.time = Timestamp(4_999))),
        (Refusal::Time, changed(|header, _| header.time = Timestamp(1 << 63))),
        (Refusal::Data, changed(|header, _| header.data_hash = Bytes::new())),
        (Refusal::Data, changed(|_, data| data.txs.push(Tx(Bytes::from_static(b"smuggled"))))),
        (Refusal::Data, changed(|_, data| data.metadata = None)),
        (Refusal::Data, changed(|_, data| metadata(data).height = Height(1))),
        (Refusal::Data, changed(|_, data| metadata(data).chain_id = "another".into())),
        (Refusal::Data, changed(|_, data| metadata(data).time = Timestamp(1))),
    ];
    for (refusal, entry) in cases {
        assert_eq!(decide(&entry), Decision::Refuse(refusal), "{:?}", entry.block.header());
    }
}

fn metadata(data: &mut Data) -> &mut Metadata {
    data.metadata.as_mut().unwrap()
}

#[test]
fn a_block_in_another_term_than_its_grants_is_refused_whatever_else_is_right() {
    let mut entry = changed(|_, _| {});
    for term in [3, 5] {
        entry.term = Term(term);
        assert_eq!(decide(&entry), Decision::Refuse(Refusal::Term));
    }
}

#[test]
fn a_time_later_by_one_nanosecond_is_late_enough() {
    let entry = changed(|header, data| {
        header.time = Timestamp(5_001);
        metadata(data).time = Timestamp(5_001);
    });
    assert_eq!(decide(&entry), Decision::Commit(tip_of(&entry.block, 4)));
}

#[test]
fn the_first_block_stands_at_the_initial_height_at_genesis_time_on_nothing() {
    let mut genesis = genesis();
    let first = next_block(&Tip::default(), &[]);
    let good = block_entry(1, &first);
    let decide = |genesis: &Genesis, entry: &BlockEntry| {
        verdict::block(genesis, &Tip::default(), None, Term(1), entry)
    };
    assert_eq!(decide(&genesis, &good), Decision::Commit(tip_of(&first, 1)));

    let late = block_entry(1, &block_at(&Tip::default(), Timestamp(1_001), &[]));
    assert_eq!(decide(&genesis, &late), Decision::Refuse(Refusal::Time));
    let mut header = first.header().clone();
    header.last_header_hash = Bytes::from_static(&[0; 32]);
    let with_parent = block_entry(1, &Block::shared(header, first.data().clone()));
    assert_eq!(decide(&genesis, &with_parent), Decision::Refuse(Refusal::Parent));
    genesis.initial_height = Height(5);
    assert_eq!(decide(&genesis, &good), Decision::Refuse(Refusal::Height));
    let fifth = block_at(&Tip { height: Height(4), ..Tip::default() }, Timestamp(1_000), &[]);
    let mut header = fifth.header().clone();
    header.last_header_hash = Bytes::new();
    let fifth = Block::shared(header, fifth.data().clone());
    assert_eq!(decide(&genesis, &block_entry(1, &fifth)), Decision::Commit(tip_of(&fifth, 1)));
}

#[test]
fn a_block_that_stands_already_is_committed_with_its_own_place() {
    let entry = changed(|header, _| header.height = Height(6));
    let place = tip_of(&entry.block, 2);
    let decision = verdict::block(&genesis(), &tip(), Some(place), TERM, &entry);
    assert_eq!(decision, Decision::Standing(place));
}

#[test]
fn a_position_of_forced_inclusion_never_goes_back() {
    let at = |da_height, tx_index| ForcedPosition { da_height: DaHeight(da_height), tx_index };
    let entry = changed(|_, _| {});
    let commit = decide(&entry);
    for (before, after) in [(at(5, 2), at(5, 2)), (at(5, 2), at(5, 3)), (at(5, 2), at(9, 0))] {
        assert_eq!(verdict::forced(commit, before, after), commit);
    }
    for (before, after) in [(at(5, 2), at(5, 1)), (at(5, 2), at(4, 9)), (at(5, 0), at(0, 0))] {
        assert_eq!(verdict::forced(commit, before, after), Decision::Refuse(Refusal::OutOfOrder));
    }
    let standing = Decision::Standing(tip_of(&entry.block, 2));
    assert_eq!(verdict::forced(standing, at(5, 2), at(0, 0)), standing, "it stands, whatever is said now");
}

#[test]
fn the_position_is_compared_once_every_voter_can() {
    for (version, refused) in [(FORCED_VERSION - 1, false), (FORCED_VERSION, true)] {
        let store = create(&Disk::new());
        let chain = blocks(2);
        let forced = |da_height| ForcedPosition { da_height: DaHeight(da_height), tx_index: 0 };
        let block = |block: &Arc<Block>, position| BlockEntry { forced: position, ..block_entry(1, block) };
        let entries = [
            normal(1, 1, Command::Activate(version)),
            normal(1, 2, Command::Block(block(&chain[0], forced(9)))),
            normal(1, 3, Command::Block(block(&chain[1], forced(8)))),
        ];
        store.writer(nobody()).commit(&entries).unwrap();
        let expected = if refused { (Height(1), forced(9)) } else { (Height(2), forced(8)) };
        assert_eq!((store.reader().tip().height, store.reader().forced()), expected);
    }
}

fn signature_of(height: u64, hash: Hash) -> HeaderSignature {
    HeaderSignature { height: Height(height), hash, signature: Bytes::from_static(&[1; 64]) }
}

#[test]
fn a_signature_is_recorded_for_a_committed_header_only() {
    let tip = tip();
    let refused = Verdict::Refused(Refusal::OutOfOrder, tip);
    let own = signature_of(7, tip.hash);
    assert_eq!(verdict::signature(&tip, Some(tip), &own), Verdict::Recorded);
    assert_eq!(verdict::signature(&tip, None, &own), refused);
    assert_eq!(verdict::signature(&tip, Some(tip), &signature_of(6, tip.hash)), refused);
    assert_eq!(verdict::signature(&tip, Some(tip), &signature_of(8, tip.hash)), refused);
    let far = Tip { height: Height(7 + WINDOW), ..tip };
    assert_eq!(verdict::signature(&far, None, &own), Verdict::Recorded);
    let none = signature_of(0, tip.hash);
    assert_eq!(verdict::signature(&far, None, &none), Verdict::Refused(Refusal::OutOfOrder, far));
}

#[test]
fn a_range_on_da_continues_its_lane_exactly() {
    let da = DaProgress { headers: Height(3), data: Height(2), included: Height(1), da_height: DaHeight(50) };
    let range =
        |lane, from, to, at| Submitted { lane, from: Height(from), to: Height(to), da_height: DaHeight(at) };
    let decide = |range| verdict::submitted(&tip(), &da, Height(1), &range);
    let refused = (Verdict::Refused(Refusal::OutOfOrder, tip()), None);

    let headers = DaProgress { headers: Height(7), da_height: DaHeight(60), ..da };
    assert_eq!(decide(range(Lane::Header, 4, 7, 60)), (Verdict::Recorded, Some(headers)));
    let data = DaProgress { data: Height(3), ..da };
    assert_eq!(decide(range(Lane::Data, 3, 3, 40)), (Verdict::Recorded, Some(data)));
    assert_eq!(decide(range(Lane::Header, 1, 3, 60)), (Verdict::Recorded, None));
    assert_eq!(decide(range(Lane::Header, 3, 3, 60)), (Verdict::Recorded, None));
    assert_eq!(decide(range(Lane::Header, 3, 4, 60)), refused);
    assert_eq!(decide(range(Lane::Header, 5, 6, 60)), refused);
    assert_eq!(decide(range(Lane::Header, 4, 8, 60)), refused);
    assert_eq!(decide(range(Lane::Header, 5, 4, 60)), refused);
    assert_eq!(decide(range(Lane::Header, 0, 3, 60)), refused);
}

#[test]
fn inclusion_rises_and_waits_for_both_lanes() {
    let da = DaProgress { headers: Height(6), data: Height(4), included: Height(2), da_height: DaHeight(9) };
    let decide = |height| verdict::included(&tip(), &da, Height(height));
    assert_eq!(decide(4), (Verdict::Recorded, Some(DaProgress { included: Height(4), ..da })));
    assert_eq!(decide(2), (Verdict::Recorded, None));
    assert_eq!(decide(0), (Verdict::Recorded, None));
    assert_eq!(decide(5), (Verdict::Refused(Refusal::OutOfOrder, tip()), None));
}

/// What a random log is made of: mostly plausible entries, many of them stale or repeated.
#[derive(Clone, Debug)]
enum Step {
    /// A block on the tip, or on one so far below it; variants differ in time.
    Block {
        back: usize,
        variant: u64,
        stale_term: bool,
        tail: bool,
    },
    /// The same block again.
    Repeat {
        back: usize,
    },
    Signature {
        back: usize,
        wrong: bool,
    },
    Submitted {
        lane: bool,
        skip: u64,
        length: u64,
    },
    Included {
        ahead: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (prop_oneof![4 => Just(0usize), 1 => 1usize..4], 0u64..3, prop::bool::weighted(0.1), any::<bool>())
            .prop_map(|(back, variant, stale_term, tail)| Step::Block { back, variant, stale_term, tail }),
        1 => (0usize..4).prop_map(|back| Step::Repeat { back }),
        1 => (0usize..4, any::<bool>()).prop_map(|(back, wrong)| Step::Signature { back, wrong }),
        2 => (any::<bool>(), prop_oneof![4 => Just(1u64), 1 => 0u64..3], 0u64..3)
            .prop_map(|(lane, skip, length)| Step::Submitted { lane, skip, length }),
        1 => (0u64..3).prop_map(|ahead| Step::Included { ahead }),
    ]
}

/// Turns steps into a log. It keeps a model of the chain to aim at.
fn log(steps: &[Step]) -> Vec<Entry> {
    let mut chain: Vec<(Arc<Block>, Tip)> = vec![];
    let mut da = DaProgress::default();
    let mut entries = vec![];
    for (index, step) in (1..).zip(steps) {
        let term = 1 + index / 8;
        let tip = |back: usize| chain.iter().rev().nth(back).map_or(Tip::default(), |(_, tip)| *tip);
        let command = match step {
            Step::Block { back, variant, stale_term, tail } => {
                let parent = tip(*back);
                let time = if parent.height == Height(0) { 1_000 } else { parent.time.0 + variant };
                let block = block_at(&parent, Timestamp(time), &[b"tx"]);
                let tail = chain.last().filter(|_| *tail).map(|(block, _)| signature(block));
                let good = *back == 0 && !stale_term && (*variant > 0 || chain.is_empty());
                if good {
                    let place = tip_of(&block, term);
                    chain.push((block.clone(), place));
                }
                let term = Term(if *stale_term { term - 1 } else { term });
                Command::Block(BlockEntry { term, block, tail, forced: ForcedPosition::default() })
            }
            Step::Repeat { back } => match chain.iter().rev().nth(*back) {
                Some((block, _)) => Command::Block(block_entry(term, block)),
                None => continue,
            },
            Step::Signature { back, wrong } => match chain.iter().rev().nth(*back) {
                Some((block, _)) => {
                    let mut signature = signature(block);
                    signature.hash = if *wrong { Hash([1; 32]) } else { signature.hash };
                    Command::Signature(signature)
                }
                None => continue,
            },
            Step::Submitted { lane, skip, length } => {
                let lane = if *lane { Lane::Header } else { Lane::Data };
                let progress = if lane == Lane::Header { da.headers } else { da.data };
                let from = Height(progress.0 + skip);
                let range = Submitted { lane, from, to: Height(from.0 + length), da_height: DaHeight(index) };
                da = verdict::submitted(&tip(0), &da, Height(1), &range).1.unwrap_or(da);
                Command::Submitted(range)
            }
            Step::Included { ahead } => {
                let height = Height(da.included.0 + ahead);
                da = verdict::included(&tip(0), &da, height).1.unwrap_or(da);
                Command::Included(height)
            }
        };
        entries.push(normal(term, index, command));
    }
    entries
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn at_most_one_block_stands_at_a_height_and_all_are_linked(steps in prop::collection::vec(step(), 1..60)) {
        let store = create(&Disk::new());
        let writer = store.writer(nobody());
        let reader = store.reader();
        let mut standing: BTreeMap<Height, Tip> = BTreeMap::new();
        for entry in log(&steps) {
            let before = reader.tip();
            let verdict = writer.import(std::slice::from_ref(&entry)).unwrap()[0];
            match verdict {
                Verdict::Committed(tip) => {
                    prop_assert_eq!(*standing.entry(tip.height).or_insert(tip), tip);
                }
                Verdict::Refused(_, tip) => prop_assert_eq!(tip, before, "a refusal changes nothing and says the tip"),
                Verdict::Recorded | Verdict::Internal => prop_assert_eq!(reader.tip(), before),
            }
        }
        let mut parent: Option<Header> = None;
        for (height, place) in &standing {
            let header = reader.header(*height).unwrap().unwrap();
            prop_assert_eq!(header.hash(), place.hash);
            prop_assert_eq!(reader.height_of(&place.hash).unwrap(), Some(*height));
            prop_assert_eq!(reader.block(*height).unwrap().unwrap().hash(), place.hash);
            if let Some(parent) = &parent {
                prop_assert_eq!(parent.height.next(), *height);
                prop_assert_eq!(&header.last_header_hash[..], &parent.hash().0[..]);
                prop_assert!(header.time > parent.time);
            }
            parent = Some(header);
        }
        prop_assert_eq!(parent.map_or(Height(0), |header| header.height), reader.tip().height);
    }

    #[test]
    fn verdicts_and_state_do_not_depend_on_how_the_log_is_cut_into_batches(
        steps in prop::collection::vec(step(), 1..60),
        cut in 1usize..9,
    ) {
        let entries = log(&steps);
        let run = |size: usize| {
            let store = create(&Disk::new());
            let writer = store.writer(nobody());
            let verdicts: Vec<Verdict> =
                entries.chunks(size).flat_map(|chunk| writer.import(chunk).unwrap()).collect();
            (verdicts, writer.build_head().unwrap())
        };
        prop_assert_eq!(run(1), run(cut));
    }
}
