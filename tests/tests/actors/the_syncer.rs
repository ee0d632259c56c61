//! The syncer above an engine that is a position.

use super::*;

/// An engine that is a position.
#[derive(Clone)]
struct Model(Rc<RefCell<EnginePosition>>);

struct Rig {
    stage: Stage,
    engine: Model,
    links: syncer::Links,
    executed: Probe<ExecuteBlock>,
    rolled_back: Probe<Rollback>,
    made_final: Probe<SetFinal>,
    followed: Probe<ExecutionFollowed>,
    trouble: Probe<ExecutionTrouble>,
}

impl Rig {
    fn new(blocks: u64) -> Self {
        let stage = Stage::new();
        stage.grow(blocks);
        Self::on(stage)
    }

    fn on(stage: Stage) -> Self {
        let engine = Model(Rc::default());
        engine.0.borrow_mut().root = root_of(Height(0));
        let (init_chain, _) = probe(|_: &InitChain| Ok(root_of(Height(0))));
        let at = engine.clone();
        let (position, _) = probe(move |_: &GetPosition| Ok(at.0.borrow().clone()));
        let at = engine.clone();
        let (execute, executed) = probe(move |asked: &ExecuteBlock| {
            let mut position = at.0.borrow_mut();
            let (height, hash) = (asked.block.height(), asked.block.hash());
            if height != position.height.next() {
                return Err(EngineError::NotNext { asked: height, at: position.height });
            }
            let root = root_of(height);
            position.height = height;
            position.hash = Some(hash);
            position.root = root.clone();
            Ok(Executed { height, hash, root, results: Arc::default() })
        });
        let (at, reader) = (engine.clone(), stage.reader());
        let (rollback, rolled_back) = probe(move |asked: &Rollback| {
            let mut position = at.0.borrow_mut();
            position.height = asked.height;
            position.hash = reader.hash(asked.height).expect("readable");
            position.root = root_of(asked.height);
            Ok(position.clone())
        });
        let (set_final, made_final) = probe(|_: &SetFinal| Ok(()));
        let (followed_link, followed) = probe(|_: &ExecutionFollowed| ());
        let (trouble_link, trouble) = probe(|_: &ExecutionTrouble| ());
        let links = syncer::Links {
            init_chain,
            position,
            execute,
            rollback,
            set_final,
            followed: vec![followed_link],
            trouble: trouble_link,
            source: None,
        };
        Self { stage, engine, links, executed, rolled_back, made_final, followed, trouble }
    }

    fn start(&self) -> Addr<Syncer> {
        let retry_after = Duration::from_millis(100);
        let backfill = syncer::backfill::Config::default();
        let config =
            syncer::Config { reply_within: REPLY, retry_after, log_every: 1_000, backfill, executes: true };
        let (links, reader) = (self.links.clone(), self.stage.reader());
        Syncer::new(config, links, syncer::Metrics::default(), reader).start()
    }

    fn heights(&self) -> Vec<u64> {
        self.executed.take().iter().map(|asked| asked.block.height().0).collect()
    }
}

#[test]
fn it_replays_what_the_engine_lacks_and_tells_how_far_it_is() {
    sim_run(1, || async {
        let rig = Rig::new(5);
        let _syncer = rig.start();
        pass(10).await;
        assert_eq!(rig.heights(), [1, 2, 3, 4, 5]);
        let last = rig.followed.take().pop().expect("told");
        assert_eq!(last, ExecutionFollowed { height: Height(5), root: root_of(Height(5)) });
    });
}

#[test]
fn an_engine_ahead_is_rolled_back_only_once_the_committed_tip_is_known() {
    sim_run(1, || async {
        let rig = Rig::new(5);
        *rig.engine.0.borrow_mut() =
            EnginePosition { height: Height(9), root: root_of(Height(9)), ..Default::default() };
        let syncer = rig.start();
        pass(1_000).await;
        assert_eq!(rig.rolled_back.count(), 0, "P5: what is ahead may be committed");
        let waits = rig.trouble.take();
        assert!(waits.iter().all(|trouble| !trouble.integrity && trouble.trouble.is_some()));
        assert!(!waits.is_empty());
        syncer.do_send(TermApplied { term: Term(1), tip: rig.stage.tip() });
        pass(200).await;
        assert_eq!(rig.rolled_back.take()[0].height, Height(5));
        assert_eq!(rig.trouble.take().pop().expect("told").trouble, None);
    });
}

#[test]
fn another_root_is_named_with_its_height_and_nothing_more_is_executed() {
    sim_run(1, || async {
        let rig = Rig::new(5);
        let wrong = StateRoot(Bytes::from_static(&[7; 32]));
        let hash = rig.stage.reader().hash(Height(2)).expect("readable");
        *rig.engine.0.borrow_mut() =
            EnginePosition { height: Height(2), hash, root: wrong.clone(), final_height: Height(0) };
        let _syncer = rig.start();
        pass(1_000).await;
        assert_eq!(rig.executed.count(), 0);
        let told = rig.trouble.take().remove(0);
        let text = told.trouble.expect("why");
        assert!(told.integrity, "a person is needed");
        let right = root_of(Height(2)).to_string();
        assert!(text.contains("height 2") && text.contains(&wrong.to_string()) && text.contains(&right));
    });
}

#[test]
fn another_block_at_the_same_height_is_taken_back_and_ours_executed() {
    sim_run(1, || async {
        let rig = Rig::new(5);
        *rig.engine.0.borrow_mut() = EnginePosition {
            height: Height(3),
            hash: Some(Hash::of(b"other")),
            root: root_of(Height(3)),
            final_height: Height(0),
        };
        let _syncer = rig.start();
        pass(10).await;
        assert_eq!(rig.rolled_back.take()[0].height, Height(2));
        assert_eq!(rig.heights(), [3, 4, 5]);
    });
}

#[test]
fn executions_that_an_idle_engine_lost_are_noticed_and_repeated() {
    sim_run(1, || async {
        let rig = Rig::new(5);
        let _syncer = rig.start();
        pass(10).await;
        let _ = rig.heights();
        let hash = rig.stage.reader().hash(Height(2)).expect("readable");
        *rig.engine.0.borrow_mut() =
            EnginePosition { height: Height(2), hash, root: root_of(Height(2)), final_height: Height(0) };
        pass(3_000).await;
        assert_eq!(rig.heights(), [3, 4, 5]);
    });
}

#[test]
fn only_what_is_included_and_executed_is_made_final() {
    sim_run(1, || async {
        let rig = Rig::new(5);
        for lane in [Lane::Header, Lane::Data] {
            let (from, to, da_height) = (Height(1), Height(3), DaHeight(7));
            rig.stage.apply(Command::Submitted(Submitted { lane, from, to, da_height }));
        }
        let syncer = rig.start();
        pass(10).await;
        assert_eq!(rig.made_final.count(), 0, "on DA, but not recorded as included");
        rig.stage.apply(Command::Included(Height(3)));
        syncer.do_send(Applied { tip: rig.stage.tip() });
        pass(10).await;
        let finals: Vec<Height> = rig.made_final.take().iter().map(|made| made.height).collect();
        assert_eq!(finals, [Height(3)]);
    });
}

/// Answers with blocks of a whole chain, so many at a time.
fn serve(
    whole: &Stage,
    at_a_time: u64,
) -> impl FnMut(&FetchBlocks) -> Result<Vec<FetchedBlock>, FetchError> + use<> {
    let reader = whole.reader();
    move |asked| {
        let block = |height| reader.block(Height(height)).expect("readable").expect("whole");
        assert_eq!(block(asked.from.0).hash(), asked.hash, "it asks for what is committed");
        let lowest = asked.down_to.0.max((asked.from.0 + 1).saturating_sub(at_a_time));
        let fetched = |height| FetchedBlock { block: block(height), signature: None, da: None };
        Ok((lowest..=asked.from.0).rev().map(fetched).collect())
    }
}

impl Rig {
    /// A member with a snapshot, whose peers answer by this function.
    fn fetching(
        stage: Stage,
        answer: impl FnMut(&FetchBlocks) -> Result<Vec<FetchedBlock>, FetchError> + 'static,
    ) -> (Self, Probe<FetchBlocks>) {
        let (fetch, asked) = probe(answer);
        let (filler, signer) = (stage.store.filler(), stage.signer());
        let mut rig = Self::on(stage);
        rig.links.source = Some(syncer::backfill::Source { fetch, filler, signer });
        (rig, asked)
    }
}

#[test]
fn missing_bodies_are_fetched_downwards_and_then_executed_upwards() {
    sim_run(1, || async {
        let (stage, whole) = with_a_gap().await;
        let (rig, asked) = Rig::fetching(stage, serve(&whole, 3));
        let _syncer = rig.start();
        pass(500).await;
        let asked: Vec<(u64, u64)> =
            asked.take().iter().map(|asked| (asked.from.0, asked.down_to.0)).collect();
        assert_eq!(asked, [(10, 4), (7, 4), (4, 4)]);
        assert_eq!(rig.heights(), (1..=10).collect::<Vec<_>>());
        assert_eq!(rig.stage.reader().gaps(), []);
    });
}

#[test]
fn a_member_that_gives_other_blocks_is_refused_by_hash_and_somebody_is_asked_again() {
    sim_run(1, || async {
        let (stage, whole) = with_a_gap().await;
        let other = Stage::new();
        for _ in 0..10 {
            other.committed(&other.next_block(&root_of(other.tip().height), &["forged=1"]));
        }
        let (mut honest, mut asks) = (serve(&whole, 4), 0);
        let forged = other.reader();
        let (rig, asked) = Rig::fetching(stage, move |asked| {
            asks += 1;
            let mut blocks = honest(asked)?;
            let forged_at = match asks {
                1 => 0,
                2 => 2,
                _ => return Ok(blocks),
            };
            for fetched in &mut blocks[forged_at..] {
                fetched.block = forged.block(fetched.block.height()).expect("readable").expect("forged");
            }
            Ok(blocks)
        });
        let syncer = rig.start();
        pass(1_000).await;
        let asked: Vec<(u64, u32)> = asked.take().iter().map(|asked| (asked.from.0, asked.attempt)).collect();
        let expected = [(10, 0), (10, 1), (8, 0), (4, 0)];
        assert_eq!(asked, expected, "the good part is taken, for the rest somebody else is asked");
        assert_eq!(rig.heights(), (1..=10).collect::<Vec<_>>());
        assert_eq!(rig.stage.tip(), whole.tip());
        assert!(rig.trouble.take().iter().all(|told| !told.integrity), "it is not this node that is damaged");
        drop(syncer);
    });
}

#[test]
fn filling_in_goes_on_after_a_restart_and_says_how_much_is_left() {
    sim_run(1, || async {
        let (stage, whole) = with_a_gap().await;
        let (mut answer, mut asks) = (serve(&whole, 2), 0);
        let (rig, asked) = Rig::fetching(stage.clone(), move |asked| {
            asks += 1;
            if asks > 2 { Err(FetchError::Nobody(asked.from)) } else { answer(asked) }
        });
        let syncer = rig.start();
        pass(5_000).await;
        assert_eq!(rig.heights(), [1, 2, 3], "what has its body is executed meanwhile");
        let told = rig.trouble.take().pop().expect("told");
        assert!(!told.integrity);
        let why = told.trouble.expect("why");
        assert_eq!(why, "bodies are missing: 3 left, block 4 is the next to execute");
        let tries = asked.take().len();
        assert!((5..=10).contains(&tries), "the pauses grow: {tries} tries");
        drop(syncer);
        pass(10).await;
        let (again, asked) = Rig::fetching(stage, serve(&whole, 2));
        *again.engine.0.borrow_mut() = rig.engine.0.borrow().clone();
        let _syncer = again.start();
        pass(500).await;
        assert_eq!(asked.take()[0].from, Height(6));
        assert_eq!(again.heights(), (4..=10).collect::<Vec<_>>());
    });
}

#[test]
fn an_engine_over_a_gap_is_not_taken_back_before_its_header_is_known() {
    sim_run(1, || async {
        let (stage, whole) = with_a_gap().await;
        let (rig, _) = Rig::fetching(stage, |asked| Err(FetchError::Nobody(asked.from)));
        let hash = whole.reader().hash(Height(7)).expect("readable");
        let (height, root, final_height) = (Height(7), root_of(Height(7)), Height(0));
        *rig.engine.0.borrow_mut() = EnginePosition { height, hash, root, final_height };
        let _syncer = rig.start();
        pass(1_000).await;
        assert_eq!(rig.rolled_back.count(), 0);
        assert!(rig.trouble.take().iter().any(|told| told.trouble.is_some() && !told.integrity));
    });
}

/// It was in the log before the snapshot, and who gave the block had not applied it yet. The key is
/// that of the stage's machine.
#[test]
fn a_signature_that_a_snapshot_passed_over_is_asked_for_and_no_forged_one_is_taken() {
    sim_run(1, || async {
        let stage = Stage::new();
        stage.grow(4);
        stage.sign(2);
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&1_u64.to_le_bytes());
        let key = FileKey::from_seed(&seed);
        let reader = stage.reader();
        let mut asks = 0;
        let (rig, asked) = Rig::fetching(stage, move |asked| {
            asks += 1;
            let block = reader.block(asked.from).expect("readable").expect("committed");
            let signature = match asks {
                1 => None,
                2 => Some(Bytes::from(vec![9; 64])),
                _ => Some(key.sign(&block.header().encode()).expect("a key in memory")),
            };
            Ok(vec![FetchedBlock { block, signature, da: None }])
        });
        let _syncer = rig.start();
        pass(11_000).await;
        assert_eq!(asked.count(), 2);
        assert_eq!(rig.stage.reader().signature(Height(1)), Ok(None), "a forged one");
        pass(5_000).await;
        assert!(rig.stage.reader().signature(Height(1)).expect("readable").is_some());
        pass(20_000).await;
        assert_eq!(asked.count(), 3, "the third block has none yet, and none above it");
        let asked: Vec<u64> = asked.take().iter().map(|asked| asked.from.0).collect();
        assert_eq!(asked, [1, 1, 1]);
    });
}
