use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};

use baton_messages::chain::{Data, Header};
use baton_messages::types::Timestamp;
use baton_storage::backend::Direction;
use baton_storage::memory::{Disk, Effect, EffectOutcome, Hook, Keep, Memory};
use baton_storage::rocks::Rocks;
use futures::FutureExt;
use proptest::prelude::*;

use super::*;

/// A platter that loses what was not synced, and what is done to it.
#[derive(Default)]
struct Rig {
    disk: Disk,
    reads: Arc<AtomicUsize>,
}

/// A process' view of the platter that counts how often it reads one key.
struct Counted {
    store: Memory,
    reads: Arc<AtomicUsize>,
}

impl Rig {
    fn attach(&self) -> Arc<dyn Backend> {
        Arc::new(Counted { store: self.disk.attach(), reads: Arc::clone(&self.reads) })
    }

    fn sync(&self) {
        self.attach().sync().unwrap();
    }

    fn entries(&self, family: Family) -> Vec<(Bytes, Bytes)> {
        let all = (Bound::Unbounded, Bound::Unbounded);
        self.attach().scan(family, all, Direction::Forward, usize::MAX).unwrap()
    }

    /// Lets every write fail, or none.
    fn fail(&self, error: Option<StoreError>) {
        let hook: Option<Hook> =
            error.map(|error| -> Hook { Arc::new(move |_: Effect| EffectOutcome::Fail(error.clone())) });
        self.disk.set_hook(hook);
    }

    fn take_reads(&self) -> usize {
        self.reads.swap(0, Ordering::Relaxed)
    }

    fn change(&self, batch: Batch) {
        self.attach().write(batch).unwrap();
    }
}

impl Backend for Counted {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.store.get(family, key)
    }

    fn scan(
        &self,
        family: Family,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.store.scan(family, range, direction, limit)
    }

    fn write(&self, batch: Batch) -> Result<(), StoreError> {
        self.store.write(batch)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.store.sync()
    }
}

fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("the key-value app never waits")
}

fn genesis() -> InitChain {
    InitChain { time: Timestamp(1), initial_height: Height(1), chain_id: "kv".into() }
}

fn started(rig: &Rig, config: Config) -> Kv {
    let mut kv = Kv::open(rig.attach(), config).unwrap();
    now(kv.init_chain(genesis())).unwrap();
    kv
}

fn kv() -> (Rig, Kv) {
    let rig = Rig::default();
    let kv = started(&rig, Config::default());
    (rig, kv)
}

fn tx(bytes: &[u8]) -> Tx {
    Tx(Bytes::copy_from_slice(bytes))
}

fn block(height: u64, txs: Vec<Tx>) -> Arc<Block> {
    let header = Header { height: Height(height), chain_id: "kv".into(), ..Header::default() };
    let data = Data { metadata: None, txs };
    let header = Header { data_hash: data.commitment().to_bytes(), ..header };
    Block::shared(header, data)
}

fn texts(height: u64, txs: &[&str]) -> Arc<Block> {
    block(height, txs.iter().map(|text| tx(text.as_bytes())).collect())
}

fn run(kv: &mut Kv, block: &Arc<Block>) -> Executed {
    now(kv.execute_block(Arc::clone(block))).unwrap()
}

fn position(kv: &mut Kv) -> EnginePosition {
    now(kv.position()).unwrap()
}

/// The root as ADR 0004 defines it, from nothing but the map.
fn root_of(map: &BTreeMap<Bytes, Bytes>) -> StateRoot {
    fn node(leaves: &[(String, Hash)], depth: usize) -> Vec<u8> {
        let (mut leaf_bits, mut branch_bits, mut body) = (0_u16, 0_u16, vec![]);
        for (nibble, digit) in "0123456789abcdef".bytes().enumerate() {
            let below: Vec<_> =
                leaves.iter().filter(|leaf| leaf.0.as_bytes()[depth] == digit).cloned().collect();
            match &below[..] {
                [] => {}
                [(key, value)] => {
                    leaf_bits |= 1 << nibble;
                    body.extend(hex::decode(key).unwrap());
                    body.extend(value.0);
                }
                more => {
                    branch_bits |= 1 << nibble;
                    body.extend(Hash::of(&node(more, depth + 1)).0);
                }
            }
        }
        [&leaf_bits.to_be_bytes()[..], &branch_bits.to_be_bytes(), &body].concat()
    }
    let mut leaves: Vec<_> =
        map.iter().map(|(key, value)| (Hash::of(key).to_string(), Hash::of(value))).collect();
    leaves.sort();
    StateRoot(Bytes::copy_from_slice(&Hash::of(&node(&leaves, 0)).0))
}

/// What the transactions make of a map, read the simple way.
fn model(map: &mut BTreeMap<Bytes, Bytes>, block: &Block) {
    for tx in block.txs() {
        let text = std::str::from_utf8(&tx.0).unwrap();
        if let Some((key, value)) = text.split_once('=')
            && !key.trim().is_empty()
        {
            map.insert(key.trim().to_owned().into(), value.trim().to_owned().into());
        }
    }
}

#[test]
fn the_root_of_known_states_stays_what_it_is() {
    let (_, mut kv) = kv();
    let genesis = now(kv.init_chain(genesis())).unwrap();
    assert_eq!(genesis.to_string(), "df3f619804a92fdb4057192dc43dd748ea778adc52bc498ce80524c014b81119");
    assert_eq!(genesis, root_of(&BTreeMap::new()));
    let executed = run(&mut kv, &texts(1, &["a=1", "b=2", "c="]));
    assert_eq!(executed.root.to_string(), "77cdaeaedcfb8e9c43d71ddd1bebc88d9b9f7555d31b9940edb8b47afa634883");
}

#[test]
fn invalid_transactions_are_skipped_and_say_why() {
    let (_, mut kv) = kv();
    let executed = run(&mut kv, &texts(1, &["a=1", "hello", "", "=x", " a = 2 "]));
    let skipped = |reason: &str| TxResult::Skipped(reason.into());
    let applied = TxResult::Applied(Bytes::new());
    let expected =
        [applied.clone(), skipped("not key=value"), skipped("empty"), skipped("empty key"), applied];
    assert_eq!(executed.results[..], expected);
    let view = kv.view();
    assert_eq!(view.get(b"a").unwrap(), Some(Bytes::from_static(b"2")));
    assert_eq!(view.stats().unwrap(), Stats { height: Height(1), blocks: 1, txs: 2 });
}

#[test]
fn the_same_block_is_answered_again_and_another_one_refused() {
    let (_, mut kv) = kv();
    let first = texts(1, &["a=1"]);
    let executed = run(&mut kv, &first);
    let again = run(&mut kv, &first);
    assert_eq!((again.height, again.hash, again.root), (executed.height, executed.hash, executed.root));
    let other = texts(1, &["a=2"]);
    let refused = EngineError::OtherBlock { height: Height(1), executed: first.hash(), asked: other.hash() };
    assert_eq!(now(kv.execute_block(other)), Err(refused));
    let gap = EngineError::NotNext { asked: Height(3), at: Height(1) };
    assert_eq!(now(kv.execute_block(texts(3, &[]))), Err(gap));
    let before = EngineError::NotNext { asked: Height(0), at: Height(1) };
    assert_eq!(now(kv.execute_block(texts(0, &[]))), Err(before));
    assert_eq!(position(&mut kv).height, Height(1));
}

#[test]
fn nothing_runs_before_the_chain_is_initialised_and_another_chain_is_refused() {
    let rig = Rig::default();
    let mut kv = Kv::open(rig.attach(), Config::default()).unwrap();
    assert_eq!(position(&mut kv), EnginePosition::default());
    assert!(matches!(now(kv.execute_block(texts(1, &[]))), Err(EngineError::Unavailable(_))));
    let root = now(kv.init_chain(genesis())).unwrap();
    run(&mut kv, &texts(1, &["a=1"]));
    assert_eq!(now(kv.init_chain(genesis())), Ok(root), "the root before the first block");
    let mut kv = started(&rig, Config::default());
    let other = InitChain { chain_id: "other".into(), ..genesis() };
    assert!(matches!(now(kv.init_chain(other)), Err(EngineError::Corrupt(_))));
}

#[test]
fn a_chain_may_begin_at_any_height() {
    let rig = Rig::default();
    let mut kv = Kv::open(rig.attach(), Config::default()).unwrap();
    now(kv.init_chain(InitChain { initial_height: Height(7), ..genesis() })).unwrap();
    assert_eq!(position(&mut kv).height, Height(6));
    run(&mut kv, &texts(7, &["a=1"]));
    assert_eq!(now(kv.rollback(Height(6))).unwrap().hash, None);
    let refused = EngineError::CannotRollBack { asked: Height(5), oldest: Height(6) };
    assert_eq!(now(kv.rollback(Height(5))), Err(refused));
}

#[test]
fn only_so_many_blocks_can_be_taken_back() {
    let rig = Rig::default();
    let mut kv = started(&rig, Config { undo_blocks: 3, ..Config::default() });
    for height in 1..=10 {
        run(&mut kv, &texts(height, &[&format!("k={height}")]));
    }
    assert_eq!(rig.entries(Family::KvUndo).len(), 3);
    let refused = EngineError::CannotRollBack { asked: Height(6), oldest: Height(7) };
    assert_eq!(now(kv.rollback(Height(6))), Err(refused));
    now(kv.prune(Height(9))).unwrap();
    let refused = EngineError::CannotRollBack { asked: Height(8), oldest: Height(9) };
    assert_eq!(now(kv.rollback(Height(8))), Err(refused));
    assert_eq!(now(kv.rollback(Height(9))).unwrap().height, Height(9));
    assert_eq!(kv.view().get(b"k").unwrap(), Some(Bytes::from_static(b"9")));
    now(kv.prune(Height(100))).unwrap();
    assert_eq!(rig.entries(Family::KvUndo), [], "nothing is kept above the head either");
    run(&mut kv, &texts(10, &[]));
    assert_eq!(now(kv.rollback(Height(9))).unwrap().height, Height(9));
}

#[test]
fn a_state_taken_back_leaves_nothing_behind() {
    let (rig, mut kv) = kv();
    let tree = rig.entries(Family::KvTree);
    let many: Vec<String> = (0..200).map(|key| format!("k{key}=v")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    run(&mut kv, &texts(1, &many));
    run(&mut kv, &texts(2, &["k1=w", "x=y"]));
    let height = now(kv.rollback(Height(0))).unwrap().height;
    assert_eq!(height, Height(0));
    assert_eq!(rig.entries(Family::KvState), []);
    assert_eq!(rig.entries(Family::KvUndo), []);
    let left: Vec<_> = rig.entries(Family::KvTree).into_iter().filter(|node| !tree.contains(node)).collect();
    assert_eq!(left.len(), 1, "only the root node, which is empty");
    assert_eq!(position(&mut kv).root, root_of(&BTreeMap::new()));
}

#[test]
fn final_heights_never_rise_above_what_is_executed_nor_fall() {
    let (_, mut kv) = kv();
    run(&mut kv, &texts(1, &[]));
    run(&mut kv, &texts(2, &[]));
    let early = EngineError::NotNext { asked: Height(3), at: Height(2) };
    assert_eq!(now(kv.set_final(Height(3))), Err(early));
    now(kv.set_final(Height(2))).unwrap();
    now(kv.set_final(Height(1))).unwrap();
    assert_eq!(position(&mut kv).final_height, Height(2));
    assert_eq!(now(kv.rollback(Height(1))).unwrap().final_height, Height(1));
}

#[test]
fn the_filter_keeps_the_order_and_postpones_what_does_not_fit() {
    use FilterStatus::{Ok, Postpone, Remove};
    let (_, mut kv) = kv();
    let txs = [&b""[..], b"a=1", b"hello", b"a=12345", b"a=2", b"a=123456789"].map(tx).to_vec();
    let request = FilterTxs { txs, max_bytes: 10, forced: 0 };
    assert_eq!(now(kv.filter_txs(request)).unwrap(), [Remove, Ok, Ok, Postpone, Postpone, Remove]);
}

/// As in ev-node: whoever judged a proposer otherwise would accuse it.
#[test]
fn where_roots_are_testapps_nobody_is_forced_to_take_what_is_no_assignment() {
    use FilterStatus::{Ok, Remove};
    let txs = [&b"a=1"[..], b"hello", b" = key", b"b=2", b"hello"].map(tx).to_vec();
    let filter = |roots| {
        let rig = Rig::default();
        let mut kv = Kv::open(rig.attach(), Config { roots, ..Config::default() }).unwrap();
        now(kv.filter_txs(FilterTxs { txs: txs.clone(), max_bytes: 100, forced: 4 })).unwrap()
    };
    assert_eq!(filter(Roots::Testapp), [Ok, Remove, Remove, Ok, Ok], "what was accepted has its place");
    assert_eq!(filter(Roots::Tree), [Ok; 5]);
}

#[test]
fn a_block_costs_what_it_changes_and_not_what_is_there() {
    let (rig, mut kv) = kv();
    let many: Vec<Tx> = (0..20_000).map(|key| tx(format!("k{key}=v").as_bytes())).collect();
    run(&mut kv, &block(1, many));
    rig.take_reads();
    run(&mut kv, &texts(2, &["k1=w"]));
    let reads = rig.take_reads();
    assert!(reads <= 1 + 8, "{reads} reads: the old value and one node per level");
    run(&mut kv, &texts(3, &["k1=w", "k2=v"]));
    assert_eq!(rig.take_reads(), 2, "what does not change costs no more than looking");
}

#[test]
fn a_damaged_tree_is_noticed() {
    let (rig, mut kv) = kv();
    run(&mut kv, &texts(1, &["a=1"]));
    let (key, value) = rig.entries(Family::KvTree).remove(0);
    let mut batch = Batch::default();
    let mut damaged = value.to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    batch.put(Family::KvTree, key.clone(), damaged);
    rig.change(batch);
    assert!(matches!(now(kv.execute_block(texts(2, &["a=2"]))), Err(EngineError::Corrupt(_))));
    let mut batch = Batch::default();
    batch.delete(Family::KvTree, key);
    rig.change(batch);
    assert!(matches!(now(kv.execute_block(texts(2, &["a=2"]))), Err(EngineError::Corrupt(_))));
}

#[test]
fn a_block_is_one_write_and_no_sync() {
    let (rig, mut kv) = kv();
    rig.sync();
    let (writes, syncs) = (rig.disk.writes(), rig.disk.syncs());
    for height in 1..=3 {
        run(&mut kv, &texts(height, &["a=1", "b=2", "no assignment"]));
    }
    assert_eq!((rig.disk.writes() - writes, rig.disk.syncs() - syncs), (3, 0));
    now(kv.rollback(Height(1))).unwrap();
    assert_eq!(rig.disk.writes() - writes, 5, "each block that is taken back is one, too");
}

#[test]
fn rocksdb_and_its_twin_have_the_same_states() {
    let directory = tempfile::tempdir().unwrap();
    let rig = Rig::default();
    let config = Config { undo_blocks: 2, ..Config::default() };
    let rocks: Arc<dyn Backend> = Arc::new(Rocks::open(directory.path()).unwrap());
    let mut on_rocks = Kv::open(Arc::clone(&rocks), config).unwrap();
    now(on_rocks.init_chain(genesis())).unwrap();
    let mut twin = started(&rig, config);
    for height in 1..=6_u64 {
        let txs = (0..40).map(|key| tx(format!("k{}={height}", key * height % 97).as_bytes())).collect();
        let next = block(height, txs);
        assert_eq!(run(&mut on_rocks, &next), run(&mut twin, &next));
    }
    assert_eq!(now(on_rocks.rollback(Height(4))), now(twin.rollback(Height(4))));
    for kv in [&mut on_rocks, &mut twin] {
        now(kv.prune(Height(4))).unwrap();
    }
    for family in [Family::KvState, Family::KvTree, Family::KvUndo, Family::KvMeta] {
        let all = (Bound::Unbounded, Bound::Unbounded);
        assert_eq!(rocks.scan(family, all, Direction::Forward, 10_000).unwrap(), rig.entries(family));
    }
}

#[test]
fn a_full_disk_changes_nothing_and_passes() {
    let (rig, mut kv) = kv();
    rig.fail(Some(StoreError::Full("no room".into())));
    let next = texts(1, &["a=1"]);
    assert!(matches!(now(kv.execute_block(Arc::clone(&next))), Err(EngineError::Unavailable(_))));
    assert_eq!(position(&mut kv).height, Height(0));
    rig.fail(None);
    assert_eq!(run(&mut kv, &next).height, Height(1));
}

#[test]
fn a_write_that_failed_but_is_there_is_noticed() {
    let (rig, mut kv) = kv();
    let fail = |effect| match effect {
        Effect::AfterWrite => EffectOutcome::Fail(StoreError::Io("timed out".into())),
        _ => EffectOutcome::Continue,
    };
    rig.disk.set_hook(Some(Arc::new(fail)));
    let first = texts(1, &["a=1"]);
    assert!(matches!(now(kv.execute_block(Arc::clone(&first))), Err(EngineError::Unavailable(_))));
    rig.disk.set_hook(None);
    assert_eq!(run(&mut kv, &first).hash, first.hash());
    run(&mut kv, &texts(2, &["a=2"]));
    let map = BTreeMap::from([(Bytes::from_static(b"a"), Bytes::from_static(b"2"))]);
    assert_eq!(position(&mut kv).root, root_of(&map));
}

#[test]
fn the_pool_feeds_the_reaper_until_the_block_is_executed() {
    let rig = Rig::default();
    let mut kv = started(&rig, Config { pool: Some(PoolLimits::default()), ..Config::default() });
    now(kv.submit_txs(vec![tx(b"a=1"), tx(b"b=2")])).unwrap();
    assert_eq!(now(kv.pending_txs(100)).unwrap().len(), 2);
    run(&mut kv, &texts(1, &["a=1"]));
    assert_eq!(now(kv.pending_txs(100)).unwrap(), [tx(b"b=2")]);
    let (_, mut without) = self::kv();
    assert!(matches!(now(without.submit_txs(vec![tx(b"a=1")])), Err(SubmitError::NotReady(_))));
    assert_eq!(now(without.pending_txs(100)), Ok(vec![]));
}

#[test]
fn the_view_lists_the_state_up_to_its_limits() {
    let (_, mut kv) = kv();
    let many: Vec<Tx> = (0..600).map(|key| tx(format!("k{key:03}=v").as_bytes())).collect();
    run(&mut kv, &block(1, many));
    let view = kv.view();
    let all = view.all(1_000, 1 << 20).unwrap();
    assert_eq!((all.entries.len(), all.truncated), (600, false));
    assert_eq!(all.entries[599], (Bytes::from_static(b"k599"), Bytes::from_static(b"v")));
    let some = view.all(300, 1 << 20).unwrap();
    assert_eq!((some.entries.len(), some.truncated), (300, true));
    let exact = view.all(600, 600 * 5).unwrap();
    assert_eq!((exact.entries.len(), exact.truncated), (600, false));
    let small = view.all(1_000, 12).unwrap();
    assert_eq!((small.entries.len(), small.truncated), (2, true));
}

#[derive(Clone, Debug)]
enum Step {
    Execute(Vec<(u8, u8)>),
    Rollback(u8),
    Sync,
    Crash(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec((0..60_u8, 0..4_u8), 0..24).prop_map(Step::Execute),
        2 => any::<u8>().prop_map(Step::Rollback),
        1 => Just(Step::Sync),
        1 => (0..8_usize).prop_map(Step::Crash),
    ]
}

proptest! {
    /// Blocks, rollbacks and crashes in any order: the state is always that of the blocks up to
    /// the position, and so is the root.
    #[test]
    fn the_root_is_a_function_of_the_blocks(steps in prop::collection::vec(step(), 1..40)) {
        let (rig, mut kv) = kv();
        rig.sync();
        let mut chain: Vec<Arc<Block>> = vec![];
        for step in steps {
            match step {
                Step::Execute(sets) => {
                    let text = |(key, value): (u8, u8)| match value {
                        0 => format!("no assignment {key}"),
                        value => format!("key {key} = {value}"),
                    };
                    let txs = sets.into_iter().map(|set| tx(text(set).as_bytes())).collect();
                    let next = block(chain.len() as u64 + 1, txs);
                    run(&mut kv, &next);
                    chain.push(next);
                }
                Step::Rollback(to) => {
                    let to = usize::from(to) % (chain.len() + 1);
                    now(kv.rollback(Height(to as u64))).unwrap();
                    chain.truncate(to);
                }
                Step::Sync => rig.sync(),
                Step::Crash(keep) => {
                    let before = position(&mut kv).height;
                    let blocks = chain.clone();
                    rig.disk.crash(Keep::Prefix(keep));
                    kv = started(&rig, Config::default());
                    // The position is one the engine was in; what is missing is replayed.
                    let at = position(&mut kv);
                    if let Some(survivor) = at.height.0.checked_sub(1).and_then(|i| blocks.get(i as usize))
                        && at.hash == Some(survivor.hash())
                    {
                        for missing in &blocks[at.height.0 as usize..] {
                            run(&mut kv, missing);
                        }
                        prop_assert_eq!(position(&mut kv).height, before);
                    } else {
                        now(kv.rollback(Height(0))).unwrap();
                        chain.iter().for_each(|block| drop(run(&mut kv, block)));
                    }
                }
            }
            let mut map = BTreeMap::new();
            chain.iter().for_each(|block| model(&mut map, block));
            let at = position(&mut kv);
            prop_assert_eq!(at.height, Height(chain.len() as u64));
            prop_assert_eq!(at.hash, chain.last().map(|block| block.hash()));
            prop_assert_eq!(at.root, root_of(&map));
            let stored: BTreeMap<Bytes, Bytes> = rig.entries(Family::KvState).into_iter().collect();
            prop_assert_eq!(stored, map);
        }
    }
}
