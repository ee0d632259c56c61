//! The signer against crashes, old copies and everything it must not sign.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use actix::{Addr, Message};
use baton_messages::chain::{Data, Metadata};
use baton_messages::types::{StateRoot, Term, Tx};
use proptest::prelude::*;
use tokio::task::LocalSet;

use super::audit::{AuditIo, MemoryAudit};
use super::guard::GuardIo;
use super::key::{FileKey, KeyFailure};
use super::slot::{SLOT_BYTES, Slots, Verdict, judge};
use super::*;

const NO_BLOCKS: Progress = Progress { last_block: Height(0), last_signed: None };

fn grant(term: u64) -> Grant {
    Grant { term: Term(term) }
}

fn key() -> FileKey {
    FileKey::from_seed(&[7; 32])
}

/// A block of this height on top of another one; the root tells siblings apart.
fn block(height: u64, parent: Option<Hash>, root: u8) -> Arc<Block> {
    let metadata = Metadata {
        chain_id: "chain-1".into(),
        height: Height(height),
        time: Timestamp(height * 1000),
        last_data_hash: Bytes::new(),
    };
    let data = Data { metadata: Some(metadata), txs: vec![Tx(Bytes::from_static(b"tx"))] };
    let header = Header {
        height: Height(height),
        time: Timestamp(height * 1000),
        last_header_hash: parent.map(Hash::to_bytes).unwrap_or_default(),
        data_hash: data.commitment().to_bytes(),
        app_hash: StateRoot(Bytes::copy_from_slice(&[root; 32])).0,
        proposer_address: key().address().to_bytes(),
        chain_id: "chain-1".into(),
        ..Header::default()
    };
    Block::shared(header, data)
}

fn blocks(count: u64) -> Vec<Arc<Block>> {
    let mut chain: Vec<Arc<Block>> = vec![];
    for height in 1..=count {
        let parent = chain.last().map(|block| block.hash());
        chain.push(block(height, parent, 1));
    }
    chain
}

fn rebuilt(of: &Block, change: impl FnOnce(&mut Header, &mut Data)) -> Block {
    let (mut header, mut data) = (of.header().clone(), of.data().clone());
    change(&mut header, &mut data);
    Block::new(header, data)
}

fn signed_header(block: &Block, signature: Bytes) -> SignedHeader {
    let signer = chain::Signer::ed25519(&key().public());
    SignedHeader { header: block.header().clone(), signature, signer }
}

#[derive(Clone, Default)]
struct Bench {
    guard: MemoryGuard,
    audit: MemoryAudit,
}

impl Bench {
    fn config() -> Config {
        let chain = ChainId { name: "chain-1".into(), genesis: Hash::of(b"genesis") };
        Config { chain, initial_height: Height(1) }
    }

    fn parts(&self, key: impl Key) -> Parts {
        Parts {
            key: Box::new(key),
            guard: Box::new(self.guard.clone()),
            audit: Box::new(self.audit.clone()),
            now: Arc::new(|| Timestamp(1)),
            metrics: Metrics::default(),
        }
    }

    fn open(&self, progress: &Progress) -> Signer {
        Signer::open(Self::config(), self.parts(key()), progress)
    }

    fn at(&self, last_block: u64) -> Signer {
        self.open(&Progress { last_block: Height(last_block), last_signed: None })
    }

    /// Signs the chain's first blocks, then forgets everything that is not on disk.
    fn sign(&self, blocks: &[Arc<Block>]) -> Vec<Bytes> {
        let mut signer = self.open(&NO_BLOCKS);
        blocks.iter().map(|block| signer.sign_header(grant(1), block).unwrap()).collect()
    }

    /// Everything ever signed, by height.
    fn signed(&self) -> BTreeMap<Height, BTreeSet<Hash>> {
        let mut signed: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for line in self.audit.lines() {
            if let Event::Signed { height, hash, .. } = line.event {
                signed.entry(height).or_default().insert(hash);
            }
        }
        signed
    }

    fn expect_refusal(&self, progress: &Progress, reason: &str) {
        let mut signer = self.open(progress);
        let refusal = signer.view().refusal.expect("the guard is refused");
        assert!(refusal.contains(reason), "{refusal}");
        for block in blocks(6) {
            let Err(SignError::Refused(refusal) | SignError::Contradiction(refusal)) =
                signer.sign_header(grant(9), &block)
            else {
                panic!("block {} was not refused", block.height());
            };
            assert!(refusal.contains(reason), "{refusal}");
        }
    }
}

#[test]
fn the_signer_can_move_to_an_arbiter_of_its_own() {
    const fn assert_send<T: Send>() {}
    assert_send::<Signer>();
}

/// A key that looks at the guard before it signs.
struct Watching(FileKey, MemoryGuard, Arc<Block>);

impl Key for Watching {
    fn public(&self) -> [u8; 32] {
        self.0.public()
    }

    fn sign(&self, message: &[u8]) -> Result<Bytes, KeyFailure> {
        let Verdict::Rules { record, .. } = judge(&self.1.slots()) else { panic!("there is no guard") };
        assert_eq!((record.height, record.hash, record.term), (self.2.height(), self.2.hash(), Term(4)));
        self.0.sign(message)
    }
}

#[test]
fn the_guard_is_on_disk_before_the_key_is_asked() {
    let bench = Bench::default();
    let first = blocks(1).remove(0);
    let watching = Watching(key(), bench.guard.clone(), first.clone());
    let mut signer = Signer::open(Bench::config(), bench.parts(watching), &NO_BLOCKS);
    assert!(signer.sign_header(grant(4), &first).is_ok());
}

#[test]
fn the_same_header_gets_the_same_signature_also_after_a_restart() {
    let (bench, chain) = (Bench::default(), blocks(3));
    let signatures = bench.sign(&chain);
    let mut signer = bench.at(3);
    assert_eq!(signer.sign_header(grant(2), &chain[2]), Ok(signatures[2].clone()));
    assert_eq!(signer.sign_header(grant(2), &chain[2]), Ok(signatures[2].clone()));
    assert!(signer.verifies(&chain[2].header().encode(), &signatures[2]));
}

#[test]
fn another_header_of_a_guarded_height_is_never_signed() {
    let (bench, chain) = (Bench::default(), blocks(2));
    let mut signer = bench.open(&NO_BLOCKS);
    signer.sign_header(grant(1), &chain[0]).unwrap();
    signer.sign_header(grant(1), &chain[1]).unwrap();
    let sibling = block(2, Some(chain[0].hash()), 2);
    for mut signer in [signer, bench.at(2)] {
        let refused = signer.sign_header(grant(5), &sibling).unwrap_err();
        let (guarded, asked) = (chain[1].hash(), sibling.hash());
        assert_eq!(refused, SignError::DoubleSign { height: Height(2), guarded, asked });
    }
}

#[test]
fn heights_are_signed_one_after_the_other() {
    let (bench, chain) = (Bench::default(), blocks(5));
    bench.sign(&chain[..3]);
    let mut signer = bench.at(5);
    let (below, gap) = (signer.sign_header(grant(1), &chain[1]), signer.sign_header(grant(1), &chain[4]));
    assert_eq!(below, Err(SignError::BelowGuard { asked: Height(2), guarded: Height(3) }));
    assert_eq!(gap, Err(SignError::Gap { asked: Height(5), guarded: Height(3) }));
    assert!(signer.sign_header(grant(1), &chain[3]).is_ok());
}

#[test]
fn a_header_that_does_not_follow_the_guarded_one_is_not_signed() {
    let (bench, chain) = (Bench::default(), blocks(2));
    bench.sign(&chain);
    let stranger = block(3, Some(Hash::of(b"another branch")), 1);
    assert!(matches!(bench.at(3).sign_header(grant(1), &stranger), Err(SignError::Invalid(_))));
}

#[test]
fn a_term_that_is_over_signs_nothing() {
    let (bench, chain) = (Bench::default(), blocks(3));
    let mut signer = bench.open(&NO_BLOCKS);
    signer.sign_header(grant(4), &chain[0]).unwrap();
    assert_eq!(signer.sign_header(grant(3), &chain[1]), Err(SignError::StaleGrant { asked: 3, seen: 4 }));
    // Also when the newer term only asked for what was there.
    signer.sign_header(grant(6), &chain[0]).unwrap();
    assert!(matches!(signer.sign_header(grant(5), &chain[1]), Err(SignError::StaleGrant { .. })));
    signer.sign_header(grant(6), &chain[1]).unwrap();
    let reopened = bench.at(3).sign_header(grant(5), &chain[2]);
    assert_eq!(reopened, Err(SignError::StaleGrant { asked: 5, seen: 6 }));
}

#[test]
fn power_lost_at_any_effect_leaves_the_same_header_signable_and_no_other() {
    let chain = blocks(3);
    for (effect, may_switch) in [("guard.write", true), ("guard.tear", true), ("guard.written", false)] {
        let mut bench = Bench::default();
        bench.sign(&chain[..2]);
        bench.guard = bench.guard.restart(Arc::new(move |at| at != effect));
        let lost = bench.at(3).sign_header(grant(1), &chain[2]);
        assert!(matches!(lost, Err(SignError::Guard(_))), "{effect}");
        assert!(!bench.signed().contains_key(&Height(3)), "{effect}: nothing was signed");

        bench.guard = bench.guard.restart(Arc::new(|_| true));
        let sibling = block(3, Some(chain[1].hash()), 2);
        let after = bench.clone().at(3).sign_header(grant(1), if may_switch { &chain[2] } else { &sibling });
        assert_eq!(after.is_ok(), may_switch, "{effect}: {after:?}");
        assert!(bench.at(3).sign_header(grant(1), &chain[2]).is_ok(), "{effect}");
    }
}

#[test]
fn power_lost_while_the_first_guard_is_made_leaves_a_chain_that_can_start() {
    for effect in ["guard.write", "guard.tear", "guard.written"] {
        let mut bench =
            Bench { guard: MemoryGuard::new(Arc::new(move |at| at != effect)), ..Bench::default() };
        assert!(bench.open(&NO_BLOCKS).view().refusal.is_some());
        bench.guard = bench.guard.restart(Arc::new(|_| true));
        assert!(bench.open(&NO_BLOCKS).sign_header(grant(1), &blocks(1)[0]).is_ok());
    }
}

#[test]
fn a_missing_guard_with_a_chain_needs_an_operator() {
    let progress = Progress { last_block: Height(5), last_signed: None };
    Bench::default().expect_refusal(&progress, "baton keys guard-from-committed");
    assert_eq!(Bench::default().guard.slots(), Slots::Missing);
}

#[test]
fn a_damaged_guard_needs_an_operator_even_without_a_chain() {
    let bench = Bench::default();
    bench.guard.replace(Slots::Present([vec![1; SLOT_BYTES], vec![]]));
    bench.expect_refusal(&NO_BLOCKS, "damaged");
    bench.expect_refusal(&Progress { last_block: Height(5), last_signed: None }, "damaged");
}

#[test]
fn an_older_guard_than_the_log_needs_an_operator() {
    let (bench, chain) = (Bench::default(), blocks(5));
    bench.sign(&chain[..2]);
    let old = bench.guard.slots();
    bench.at(5).sign_header(grant(1), &chain[2]).unwrap();
    bench.guard.replace(old);
    let last_signed = Some((Height(3), chain[2].hash()));
    bench.expect_refusal(&Progress { last_block: Height(5), last_signed }, "old copy");
}

#[test]
fn what_no_replay_makes_right_is_told_apart_from_what_may_heal() {
    let (bench, chain) = (Bench::default(), blocks(2));
    bench.sign(&chain);
    let check = |last_block, last_signed| {
        bench.open(&NO_BLOCKS).check(&Progress { last_block: Height(last_block), last_signed })
    };
    let sibling = Some((Height(2), Hash::of(b"a sibling")));
    assert!(matches!(check(2, sibling), Err(SignError::Contradiction(_))));
    let newer = Some((Height(3), Hash::of(b"newer")));
    assert!(matches!(check(3, newer), Err(SignError::Refused(_))));
    assert!(matches!(check(1, None), Err(SignError::Refused(_))));
}

#[test]
fn a_guard_ahead_of_the_store_refuses_until_the_store_has_caught_up() {
    let (bench, chain) = (Bench::default(), blocks(4));
    bench.sign(&chain[..3]);
    let mut signer = bench.open(&NO_BLOCKS);
    assert!(signer.view().refusal.is_some_and(|why| why.contains("the store ends at height 0")));
    for block in &chain[..2] {
        assert!(matches!(signer.sign_header(grant(1), block), Err(SignError::Refused(_))));
    }
    assert!(signer.sign_header(grant(1), &chain[2]).is_ok(), "the store has what the guard holds");
    assert_eq!(signer.view().refusal, None);

    let mut signer = bench.at(2);
    assert!(signer.view().refusal.is_some());
    assert!(signer.check(&Progress { last_block: Height(2), last_signed: None }).is_err());
    assert_eq!(signer.check(&Progress { last_block: Height(3), last_signed: None }), Ok(()));
    assert_eq!(signer.view().refusal, None);
    assert!(signer.sign_header(grant(1), &chain[3]).is_ok());
}

#[test]
fn a_guard_behind_by_the_unsigned_tail_is_a_normal_restart() {
    let (bench, chain) = (Bench::default(), blocks(5));
    bench.sign(&chain[..3]);
    let last_signed = Some((Height(2), chain[1].hash()));
    let mut signer = bench.open(&Progress { last_block: Height(5), last_signed });
    for block in &chain[2..] {
        assert!(signer.sign_header(grant(2), block).is_ok());
    }
}

#[test]
fn a_guard_that_contradicts_the_log_refuses() {
    let (bench, chain) = (Bench::default(), blocks(2));
    bench.sign(&chain);
    let last_signed = Some((Height(2), Hash::of(b"another")));
    bench.expect_refusal(&Progress { last_block: Height(2), last_signed }, "two headers of one height");
}

#[test]
fn a_guard_of_another_chain_or_genesis_refuses() {
    let (bench, chain) = (Bench::default(), blocks(2));
    bench.sign(&chain);
    let mut other_name = Bench::config();
    other_name.chain.name = "chain-2".into();
    let mut other_genesis = Bench::config();
    other_genesis.chain.genesis = Hash::of(b"another genesis");
    for config in [other_name, other_genesis] {
        let progress = Progress { last_block: Height(2), last_signed: None };
        let signer = Signer::open(config, bench.parts(key()), &progress);
        assert!(signer.view().refusal.expect("refused").contains("a key signs for one chain"));
    }
}

#[test]
fn only_headers_of_this_chain_and_key_are_signed() {
    let first = blocks(1).remove(0);
    let other_chain = rebuilt(&first, |header, _| header.chain_id = "chain-2".into());
    let other_key = rebuilt(&first, |header, _| header.proposer_address = Hash::of(b"x").to_bytes());
    for stranger in [other_chain, other_key] {
        let bench = Bench::default();
        let mut signer = bench.open(&NO_BLOCKS);
        assert!(matches!(signer.sign_header(grant(1), &stranger), Err(SignError::Invalid(_))));
        assert_eq!(signer.view().guarded, None, "the guard did not move");
        assert!(matches!(signer.sign_data(&stranger), Err(SignError::Invalid(_))));
    }
}

#[test]
fn an_envelope_is_signed_only_around_an_own_guarded_header() {
    let (bench, chain) = (Bench::default(), blocks(3));
    let signatures = bench.sign(&chain[..2]);
    let mut signer = bench.at(3);
    let own = signed_header(&chain[1], signatures[1].clone());
    let envelope = signer.sign_envelope(&own).unwrap();
    assert!(signer.verifies(&own.encode(), &envelope));
    assert!(signer.sign_envelope(&signed_header(&chain[0], signatures[0].clone())).is_ok());

    let forged = signed_header(&chain[1], signatures[0].clone());
    let mut foreign = own.clone();
    foreign.signer = chain::Signer::ed25519(&FileKey::from_seed(&[8; 32]).public());
    let above = signed_header(&chain[2], key().sign(&chain[2].header().encode()).unwrap());
    let sibling = block(2, Some(chain[0].hash()), 2);
    let double = signed_header(&sibling, key().sign(&sibling.header().encode()).unwrap());
    for refused in [forged, foreign] {
        assert!(matches!(signer.sign_envelope(&refused), Err(SignError::Invalid(_))));
    }
    assert!(matches!(signer.sign_envelope(&above), Err(SignError::NotFollowed { .. })));
    assert!(matches!(signer.sign_envelope(&double), Err(SignError::DoubleSign { .. })));
}

#[test]
fn data_is_signed_only_when_its_header_commits_to_it_and_is_guarded() {
    let (bench, chain) = (Bench::default(), blocks(3));
    bench.sign(&chain[..2]);
    let mut signer = bench.at(3);
    let signature = signer.sign_data(&chain[1]).unwrap();
    assert!(signer.verifies(&chain[1].data().encode(), &signature));

    let other_txs = rebuilt(&chain[1], |_, data| data.txs.clear());
    let other_time =
        rebuilt(&chain[1], |_, data| data.metadata.as_mut().expect("it is there").time = Timestamp(1));
    let no_metadata = rebuilt(&chain[1], |_, data| data.metadata = None);
    for refused in [&other_txs, &other_time, &no_metadata] {
        assert!(matches!(signer.sign_data(refused), Err(SignError::Invalid(_))));
    }
    assert!(matches!(signer.sign_data(&chain[2]), Err(SignError::NotFollowed { .. })));
    let sibling = block(2, Some(chain[0].hash()), 2);
    assert!(matches!(signer.sign_data(&sibling), Err(SignError::DoubleSign { .. })));
}

#[test]
fn a_signature_from_the_log_moves_the_guard_and_nothing_else_does() {
    let (bench, chain) = (Bench::default(), blocks(9));
    let mut signer = bench.open(&NO_BLOCKS);
    let elsewhere = signed_header(&chain[6], key().sign(&chain[6].header().encode()).unwrap());
    let mut forged = elsewhere.clone();
    forged.header.app_hash = Bytes::from_static(b"forged");
    assert!(matches!(signer.note_signed(&forged), Err(SignError::Invalid(_))));
    assert_eq!(signer.view().guarded, None);

    assert_eq!(signer.note_signed(&elsewhere), Ok(()));
    for mut signer in [signer, bench.at(9)] {
        assert_eq!(signer.view().guarded, Some((Height(7), chain[6].hash())));
        assert!(matches!(signer.sign_header(grant(1), &chain[5]), Err(SignError::BelowGuard { .. })));
        assert_eq!(signer.sign_header(grant(1), &chain[6]), Ok(elsewhere.signature.clone()));
    }
    let mut signer = bench.at(9);
    assert!(signer.sign_header(grant(1), &chain[7]).is_ok());
    assert_eq!(signer.note_signed(&elsewhere), Ok(()), "an older signature is no news");
    assert_eq!(signer.view().guarded, Some((Height(8), chain[7].hash())));
    let sibling = block(8, Some(chain[6].hash()), 2);
    let double = signed_header(&sibling, key().sign(&sibling.header().encode()).unwrap());
    assert!(matches!(signer.note_signed(&double), Err(SignError::DoubleSign { .. })));
}

#[test]
fn a_guard_behind_the_signatures_of_other_members_follows_and_signs_the_next_header() {
    let (bench, chain) = (Bench::default(), blocks(9));
    bench.sign(&chain[..2]);
    // It led up to height 2; others signed up to 7 while it followed, was down, or both.
    let mut signer = bench.at(7);
    assert_eq!(signer.view().refusal, None);
    let last_signed = Some((Height(7), chain[6].hash()));
    let elsewhere = signed_header(&chain[6], key().sign(&chain[6].header().encode()).unwrap());
    assert_eq!(signer.note_signed(&elsewhere), Ok(()));
    assert_eq!(signer.check(&Progress { last_block: Height(8), last_signed }), Ok(()));
    assert!(signer.sign_header(grant(5), &chain[7]).is_ok());
    let noted = |line: &Line| matches!(line.event, Event::Noted { height: Height(7), .. });
    assert!(bench.audit.lines().iter().any(noted));
}

#[test]
fn a_refusal_for_being_behind_ends_when_the_log_shows_the_signatures() {
    let (bench, chain) = (Bench::default(), blocks(9));
    bench.sign(&chain[..2]);
    let mut signer = bench.at(9);
    let elsewhere = signed_header(&chain[6], key().sign(&chain[6].header().encode()).unwrap());
    // The guard could not be written for a while: the comparison found it behind.
    let progress = Progress { last_block: Height(9), last_signed: Some((Height(7), chain[6].hash())) };
    assert!(signer.check(&progress).is_err());
    assert_eq!(signer.note_signed(&elsewhere), Ok(()));
    assert_eq!(signer.check(&progress), Ok(()));
    assert!(signer.sign_header(grant(5), &chain[7]).is_ok());
}

#[test]
fn a_store_that_has_caught_up_with_the_guard_is_seen_by_the_signature_in_its_log() {
    let (bench, chain) = (Bench::default(), blocks(5));
    bench.sign(&chain[..3]);
    let mut signer = bench.at(1);
    assert!(signer.view().refusal.is_some(), "ahead of the store");
    let behind = signed_header(&chain[1], key().sign(&chain[1].header().encode()).unwrap());
    assert!(signer.note_signed(&behind).is_err(), "still ahead");
    let level = signed_header(&chain[2], key().sign(&chain[2].header().encode()).unwrap());
    assert_eq!(signer.note_signed(&level), Ok(()));
    assert_eq!(signer.view().refusal, None);
}

#[test]
fn no_signature_of_others_replaces_a_missing_damaged_or_contradicting_guard() {
    let chain = blocks(5);
    let elsewhere = signed_header(&chain[3], key().sign(&chain[3].header().encode()).unwrap());
    let missing = Bench::default();
    let damaged = Bench::default();
    damaged.guard.replace(Slots::Present([vec![1; SLOT_BYTES], vec![]]));
    for bench in [missing, damaged] {
        let before = bench.guard.slots();
        assert!(matches!(bench.at(5).note_signed(&elsewhere), Err(SignError::Refused(_))), "A15");
        assert_eq!(bench.guard.slots(), before);
    }
    let contradicting = Bench::default();
    contradicting.sign(&chain[..2]);
    let sibling = Some((Height(2), Hash::of(b"a sibling")));
    let mut signer = contradicting.open(&Progress { last_block: Height(5), last_signed: sibling });
    assert!(signer.note_signed(&elsewhere).is_err(), "two headers of a height need a person");
    assert_eq!(signer.view().guarded, Some((Height(2), chain[1].hash())));
}

/// A record, a guard and a key that fail while they are told to.
#[derive(Clone, Default)]
struct Failing(Arc<Mutex<bool>>);

impl Failing {
    fn fail(&self, fail: bool) {
        *self.0.lock().unwrap() = fail;
    }
}

impl Audit for Failing {
    fn record(&mut self, _: &Line) -> Result<(), AuditIo> {
        let full = AuditIo { path: "audit.jsonl".into(), reason: "no space left".into() };
        if *self.0.lock().unwrap() { Err(full) } else { Ok(()) }
    }
}

impl Key for Failing {
    fn public(&self) -> [u8; 32] {
        key().public()
    }

    fn sign(&self, message: &[u8]) -> Result<Bytes, KeyFailure> {
        // Away, it signs something else: as bad as no answer.
        if *self.0.lock().unwrap() { key().sign(b"something else") } else { key().sign(message) }
    }
}

#[test]
fn a_signature_that_cannot_be_recorded_does_not_leave() {
    let (bench, chain, audit) = (Bench::default(), blocks(1), Failing::default());
    let parts = Parts { audit: Box::new(audit.clone()), ..bench.parts(key()) };
    let mut signer = Signer::open(Bench::config(), parts, &NO_BLOCKS);
    audit.fail(true);
    for _ in 0..2 {
        assert!(matches!(signer.sign_header(grant(1), &chain[0]), Err(SignError::Guard(_))));
    }
    audit.fail(false);
    assert!(signer.sign_header(grant(1), &chain[0]).is_ok());
}

#[test]
fn a_signature_that_does_not_verify_does_not_leave() {
    let (bench, chain, failing) = (Bench::default(), blocks(1), Failing::default());
    let mut signer = Signer::open(Bench::config(), bench.parts(failing.clone()), &NO_BLOCKS);
    failing.fail(true);
    assert!(matches!(signer.sign_header(grant(1), &chain[0]), Err(SignError::Key(_))));
    assert_eq!(bench.signed(), BTreeMap::new());
    failing.fail(false);
    assert!(signer.sign_header(grant(1), &chain[0]).is_ok());
}

async fn ask<M>(signer: &Addr<Signer>, message: M) -> M::Result
where
    M: Message + Send + 'static,
    M::Result: Send,
    Signer: Handler<M>,
    <Signer as Actor>::Context: actix::dev::ToEnvelope<Signer, M>,
{
    signer.send(message).timeout(Duration::from_secs(1)).await.expect("the signer answers")
}

#[tokio::test(start_paused = true)]
async fn the_actor_signs_refuses_and_keeps_the_record() {
    let (bench, chain) = (Bench::default(), blocks(3));
    let recorded = bench.audit.clone();
    LocalSet::new()
        .run_until(async move {
            let signer = bench.open(&NO_BLOCKS).start();
            let first = SignHeader { grant: grant(1), block: chain[0].clone() };
            let signature = ask(&signer, first).await.unwrap();
            let signed = Arc::new(signed_header(&chain[0], signature));
            ask(&signer, SignEnvelope { signed: signed.clone() }).await.unwrap();
            ask(&signer, NoteSigned { signed }).await.unwrap();
            ask(&signer, SignData { block: chain[0].clone() }).await.unwrap();
            for _ in 0..100 {
                let gap = SignHeader { grant: grant(1), block: chain[2].clone() };
                assert!(matches!(ask(&signer, gap).await, Err(SignError::Gap { .. })));
            }
            let checked = ask(&signer, CheckGuard { last_block: Height(1), last_signed: None }).await;
            assert_eq!(checked, Ok(()));
            let view = ask(&signer, GetSignerView).await;
            let guarded = Some((Height(1), chain[0].hash()));
            assert_eq!(
                view,
                SignerView { signer: chain::Signer::ed25519(&key().public()), guarded, refusal: None }
            );
        })
        .await;
    let events: Vec<_> = recorded.lines().into_iter().map(|line| line.event).collect();
    assert!(
        matches!(
            &events[..],
            [
                Event::GuardCreated { height: Height(0) },
                Event::Signed { height: Height(1), .. },
                Event::Refused { height: Height(3), .. },
            ]
        ),
        "{events:?}"
    );
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Ask for a header so far from the guard, this sibling, in a term so far from the last.
    Ask { ahead: i64, sibling: u8, term: i64 },
    /// The next guard write loses power here, after so many bytes.
    CutPower { effect: usize, tear: usize },
    /// Forget what is not on disk.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (-1_i64..=2, 0..3_u8, -1_i64..=1)
            .prop_map(|(ahead, sibling, term)| Step::Ask { ahead, sibling, term }),
        2 => (0..3_usize, 0..=SLOT_BYTES).prop_map(|(effect, tear)| Step::CutPower { effect, tear }),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn at_most_one_header_per_height_is_ever_signed(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut bench = Bench::default();
        let mut signer = bench.open(&NO_BLOCKS);
        let (mut answered, mut last_term) = (BTreeMap::<Height, (Hash, Bytes)>::new(), 1_i64);
        for step in steps {
            match step {
                Step::Ask { ahead, sibling, term } => {
                    let (guarded, parent) = signer.view().guarded.unzip();
                    let guarded = guarded.unwrap_or_default().0;
                    let height = guarded.saturating_add_signed(ahead).max(1);
                    let parent = if height == guarded + 1 { parent } else { Some(Hash::of(b"parent")) };
                    let asked = block(height, parent, sibling);
                    last_term = (last_term + term).max(1);
                    let grant = grant(last_term.unsigned_abs());
                    if let Ok(signature) = signer.sign_header(grant, &asked) {
                        let first = answered
                            .entry(asked.height())
                            .or_insert_with(|| (asked.hash(), signature.clone()));
                        prop_assert_eq!(&*first, &(asked.hash(), signature));
                    }
                }
                Step::CutPower { effect, tear } => {
                    let effect = ["guard.write", "guard.tear", "guard.written"][effect];
                    bench.guard = bench.guard.restart(Arc::new(move |at| at != effect));
                    bench.guard.tear_at(tear);
                }
                Step::Restart => bench.guard = bench.guard.restart(Arc::new(|_| true)),
            }
            if !matches!(step, Step::Ask { .. }) {
                signer = bench.at(u64::MAX);
                prop_assert_eq!(signer.view().refusal, None, "a crash needs no operator");
            }
        }
        for (height, hashes) in bench.signed() {
            prop_assert_eq!(hashes.len(), 1, "height {}", height);
        }
    }
}

/// A guard whose writes fail, or cannot be synced, without saying what is on disk.
struct Broken {
    guard: MemoryGuard,
    writes: bool,
}

impl GuardStore for Broken {
    fn read(&mut self) -> Result<Slots, GuardIo> {
        self.guard.read()
    }

    fn write(&mut self, slot: usize, bytes: &[u8]) -> Result<(), GuardIo> {
        match self.writes {
            true => self.guard.write(slot, bytes),
            false => Err(GuardIo("input/output error".into())),
        }
    }

    fn sync(&mut self) -> Result<(), GuardIo> {
        Err(GuardIo("input/output error".into()))
    }

    fn create(&mut self, slot: &[u8]) -> Result<(), GuardIo> {
        self.guard.create(slot)
    }

    fn place(&self) -> String {
        "broken".into()
    }
}

#[test]
fn a_guard_that_cannot_be_written_means_no_signature() {
    for writes in [false, true] {
        let (bench, chain) = (Bench::default(), blocks(1));
        let guard = Broken { guard: bench.guard.clone(), writes };
        let parts = Parts { guard: Box::new(guard), ..bench.parts(key()) };
        let mut signer = Signer::open(Bench::config(), parts, &NO_BLOCKS);
        assert!(matches!(signer.sign_header(grant(1), &chain[0]), Err(SignError::Guard(_))));
        assert_eq!((signer.view().guarded, bench.signed()), (None, BTreeMap::new()));
    }
}
