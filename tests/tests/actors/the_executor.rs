//! The executor among probes.

use baton_messages::command::{FORCED_VERSION, ForcedPosition};
use baton_messages::forced::{Forced, ForcedTx, NextForced};
use baton_messages::p2p::{PublishBlock, PublishTail};

use super::*;

/// An executor among probes that do their duty, and what they heard.
struct Rig {
    stage: Stage,
    links: executor::Links,
    config: executor::Config,
    proposed: Probe<ProposeBlock>,
    executed: Probe<ExecuteBlock>,
    signed: Probe<SignHeader>,
    noted: Probe<NoteSigned>,
    dropped: Probe<DropTxs>,
    paused: Probe<ProductionChanged>,
    alarms: Probe<IntegrityStop>,
}

impl Rig {
    fn new() -> Self {
        let stage = Stage::new();
        let at = Rc::new(RefCell::new(EnginePosition { root: root_of(Height(0)), ..Default::default() }));
        let (next_batch, _) = probe(|_: &NextBatch| Batch { txs: vec![], current: true });
        let (await_txs, _) = probe(|_: &AwaitTxs| ());
        let (drop_txs, dropped) = probe(|_: &DropTxs| ());
        let (filter, _) = probe(|asked: &FilterTxs| Ok(vec![FilterStatus::Ok; asked.txs.len()]));
        let position_of = at.clone();
        let (position, _) = probe(move |_: &GetPosition| Ok(position_of.borrow().clone()));
        let reader = stage.reader();
        let (execute, executed) = probe(move |asked: &ExecuteBlock| {
            let (height, hash) = (asked.block.height(), asked.block.hash());
            assert_eq!(reader.hash(height), Ok(Some(hash)), "P5: executed before it was committed");
            let root = root_of(height);
            *at.borrow_mut() =
                EnginePosition { height, hash: Some(hash), root: root.clone(), ..Default::default() };
            Ok(Executed { height, hash, root, results: Arc::default() })
        });
        let committing = stage.clone();
        let (propose, proposed) = probe(move |asked: &ProposeBlock| Ok(committing.committed(&asked.block)));
        let recording = stage.clone();
        let (record, _) = probe(move |asked: &Record| {
            recording.apply(asked.command.clone());
            Ok(())
        });
        let (check_guard, _) = probe(|_: &CheckGuard| Ok(()));
        let (note_signed, noted) = probe(|_: &NoteSigned| Ok(()));
        let reader = stage.reader();
        let (sign, signed) = probe(move |asked: &SignHeader| {
            let (height, hash) = (asked.block.height(), asked.block.hash());
            assert_eq!(reader.hash(height), Ok(Some(hash)), "P2: signed before it was committed");
            Ok(Bytes::from(vec![9; 64]))
        });
        let (settle, _) = probe(|_: &Settle| ());
        let (production, paused) = probe(|_: &ProductionChanged| ());
        let (integrity_stop, alarms) = probe(|_: &IntegrityStop| ());
        let links = executor::Links {
            next_batch,
            await_txs,
            drop_txs,
            filter,
            position,
            execute,
            propose,
            record,
            note_signed,
            check_guard,
            sign,
            settle,
            production,
            integrity_stop,
            publish: None,
            inbox: None,
        };
        let config = executor::Config {
            block_time: Duration::from_millis(100),
            lazy: false,
            lazy_interval: Duration::from_secs(10),
            max_bytes: 1_000,
            max_da_backlog: 0,
            reply_within: REPLY,
            retry_after: Duration::from_millis(100),
            record_signature_after: Duration::from_millis(300),
        };
        Self { stage, links, config, proposed, executed, signed, noted, dropped, paused, alarms }
    }

    fn start(&self) -> Child {
        self.start_at(world()).1
    }

    fn start_at(&self, world: World) -> (Addr<Executor>, Child) {
        let metrics = executor::Metrics::default();
        let signer = self.stage.signer();
        let (config, links, reader) = (self.config.clone(), self.links.clone(), self.stage.reader());
        child::spawn("executor", |_| Executor::new(config, links, metrics, world, reader, GRANT, signer))
    }
}

#[test]
fn it_proposes_the_next_batch_on_top_of_the_last_root() {
    sim_run(1, || async {
        let mut rig = Rig::new();
        rig.links.next_batch = probe(|asked: &NextBatch| Batch {
            txs: vec![tx(&format!("h{}=v", asked.height))],
            current: true,
        })
        .0;
        let _executor = rig.start();
        pass(1_000).await;
        let proposed = rig.proposed.take();
        assert!(proposed.len() > 5);
        for (index, proposal) in proposed.iter().enumerate() {
            let height = Height(index as u64 + 1);
            let header = proposal.block.header();
            assert_eq!(header.height, height);
            assert_eq!(header.app_hash, root_of(height.previous()).0);
            assert_eq!(proposal.block.txs(), [tx(&format!("h{height}=v"))]);
            assert_eq!(proposal.grant, GRANT);
        }
        assert!(rig.signed.count() + 1 >= proposed.len(), "each is signed once it is committed");
    });
}

thread_local! {
    /// What was logged on this thread, when somebody wants to know.
    static LOGGED: std::cell::RefCell<Option<Vec<u8>>> = const { std::cell::RefCell::new(None) };
}

/// Keeps what is logged on threads that want it.
struct OfThisThread;

impl std::io::Write for OfThisThread {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOGGED.with_borrow_mut(|logged| logged.as_mut().map(|logged| logged.extend_from_slice(bytes)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_is_logged_about_a_block_names_its_height_and_term() {
    sim_run(1, || async {
        // One for all threads: those of single threads lose events while others come and go.
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(|| OfThisThread).finish();
        let _ = tracing::subscriber::set_global_default(subscriber);
        LOGGED.set(Some(vec![]));
        let rig = Rig::new();
        let _executor = rig.start();
        pass(1_000).await;
        let text = String::from_utf8(LOGGED.take().expect("set above")).expect("text");
        let made: Vec<_> = text.lines().filter(|line| line.contains("made a block")).collect();
        let term = GRANT.term.0;
        for (height, line) in (1..=3).zip(&made) {
            assert!(line.contains(&format!("block{{height={height} term={term}}}")), "{line}");
        }
        assert!(made.len() >= 3, "{text}");
    });
}

#[test]
fn time_rises_on_a_clock_that_stands_still() {
    sim_run(1, || async {
        let rig = Rig::new();
        let _executor = rig.start();
        pass(1_000).await;
        let times: Vec<Timestamp> =
            rig.proposed.take().iter().map(|proposal| proposal.block.header().time).collect();
        assert!(times.len() > 5);
        assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "E8: {times:?}");
    });
}

#[test]
fn nothing_is_signed_or_executed_while_the_outcome_is_unknown_and_the_same_bytes_follow() {
    sim_run(1, || async {
        let mut rig = Rig::new();
        let asked = Rc::new(Cell::new(0));
        let (committing, count) = (rig.stage.clone(), asked.clone());
        let (propose, proposed) = probe(move |proposal: &ProposeBlock| {
            count.set(count.get() + 1);
            match count.get() {
                1..=4 => Err(ProposeError::Unknown("scripted".to_owned())),
                5 => Err(ProposeError::NoQuorum),
                6 => Err(ProposeError::Stopped("scripted".to_owned())),
                _ => Ok(committing.committed(&proposal.block)),
            }
        });
        rig.links.propose = propose;
        // Whatever comes in meanwhile does not change the block in doubt.
        let number = Cell::new(0);
        rig.links.next_batch = probe(move |_: &NextBatch| {
            number.set(number.get() + 1);
            Batch { txs: vec![tx(&format!("n{}=v", number.get()))], current: true }
        })
        .0;
        let _executor = rig.start();
        pass(550).await;
        assert_eq!((rig.signed.count(), rig.executed.count()), (0, 0), "P2, P5: not committed");
        pass(500).await;
        let hashes: Vec<Hash> = proposed.take().iter().map(|proposal| proposal.block.hash()).collect();
        assert!(hashes.len() > 7);
        assert!(hashes[..7].iter().all(|hash| *hash == hashes[0]), "never a sibling");
        assert_ne!(hashes[7], hashes[0]);
        assert!(rig.paused.take().iter().any(|change| change.pause.is_some()), "it says why");
    });
}

#[test]
fn a_block_of_unknown_outcome_that_was_committed_is_in_the_chain_once() {
    sim_run(1, || async {
        let mut rig = Rig::new();
        let first = Cell::new(true);
        let committing = rig.stage.clone();
        let (propose, proposed) = probe(move |proposal: &ProposeBlock| {
            let committed = committing.committed(&proposal.block);
            match first.replace(false) {
                true => Err(ProposeError::Unknown("the answer was lost".to_owned())),
                false => Ok(committed),
            }
        });
        rig.links.propose = propose;
        let _executor = rig.start();
        pass(350).await;
        let heights: Vec<u64> = proposed.take().iter().map(|proposal| proposal.block.height().0).collect();
        assert_eq!(heights[..3], [1, 1, 2]);
        assert_eq!(rig.executed.take()[0].block.height(), Height(1));
    });
}

#[test]
fn a_refused_proposal_makes_it_learn_the_tip() {
    sim_run(1, || async {
        let mut rig = Rig::new();
        let stage = rig.stage.clone();
        let first = Cell::new(true);
        // Somebody else's block came first; the engine is led through it by the syncer.
        let (propose, proposed) = probe(move |proposal: &ProposeBlock| {
            if first.replace(false) {
                let other = stage.next_block(&root_of(Height(0)), &["other=1"]);
                let tip = stage.committed(&other).tip;
                return Err(ProposeError::Refused { refusal: Refusal::Parent, tip });
            }
            Ok(stage.committed(&proposal.block))
        });
        rig.links.propose = propose;
        let reader = rig.stage.reader();
        rig.links.position = probe(move |_: &GetPosition| {
            let Tip { height, .. } = reader.tip();
            Ok(EnginePosition { height, root: root_of(height), ..Default::default() })
        })
        .0;
        let _executor = rig.start();
        pass(350).await;
        let proposed = proposed.take();
        assert_eq!(proposed[0].block.height(), Height(1));
        assert_eq!(proposed[1].block.height(), Height(2));
        assert_eq!(proposed[1].block.header().app_hash, root_of(Height(1)).0);
        let tip = rig.stage.reader().hash(Height(1)).expect("readable").expect("there");
        assert_eq!(proposed[1].block.header().last_header_hash, tip.to_bytes());
        assert!(rig.signed.take().iter().all(|signed| signed.block.hash() != proposed[0].block.hash()));
    });
}

#[test]
fn a_stale_grant_gets_nothing_committed_signed_or_executed() {
    sim_run(1, || async {
        let mut rig = Rig::new();
        let (propose, proposed) = probe(|_: &ProposeBlock| {
            Err(ProposeError::NotLeader { term: Term(2), reason: "the term is over".to_owned() })
        });
        rig.links.propose = propose;
        let _executor = rig.start();
        pass(1_000).await;
        assert!(proposed.count() > 3, "it asks again: the supervisor stops it, not the refusal");
        assert_eq!((rig.signed.count(), rig.executed.count()), (0, 0));
        let said = rig.paused.take();
        assert!(said[0].pause.as_ref().is_some_and(|pause| pause.contains("term")), "{said:?}");
    });
}

#[test]
fn a_leader_without_a_quorum_makes_nothing_says_so_and_takes_it_back_when_there_is_one() {
    sim_run(1, || async {
        let mut rig = Rig::new();
        let (committing, quorum) = (rig.stage.clone(), Rc::new(Cell::new(false)));
        let there = quorum.clone();
        let (propose, proposed) = probe(move |proposal: &ProposeBlock| match there.get() {
            true => Ok(committing.committed(&proposal.block)),
            false => Err(ProposeError::NoQuorum),
        });
        rig.links.propose = propose;
        let _executor = rig.start();
        pass(1_000).await;
        assert!(proposed.count() > 3, "it asks again: a quorum may come back in the same term");
        assert_eq!((rig.signed.count(), rig.executed.count()), (0, 0));
        let said: Vec<_> = rig.paused.take().into_iter().map(|change| change.pause).collect();
        let [Some(why)] = &said[..] else { panic!("once, however often it was tried: {said:?}") };
        assert!(why.contains("no quorum acknowledges this leader"), "{why}");
        quorum.set(true);
        pass(500).await;
        assert_eq!(rig.paused.take().last().map(|change| change.pause.clone()), Some(None));
        assert!(rig.executed.count() > 0);
    });
}

#[test]
fn while_the_guard_refuses_nothing_is_proposed_and_it_says_why() {
    sim_run(1, || async {
        let mut rig = Rig::new();
        rig.links.check_guard =
            probe(|_: &CheckGuard| Err(SignError::Refused("the guard is missing".to_owned()))).0;
        let _executor = rig.start();
        pass(1_000).await;
        assert_eq!(rig.proposed.count(), 0);
        assert_eq!(rig.signed.count(), 0);
        let told = rig.paused.take();
        assert!(told[0].pause.as_ref().is_some_and(|pause| pause.contains("missing")));
    });
}

#[test]
fn what_was_proposed_before_is_decided_before_anything_is_looked_at() {
    sim_run(1, || async {
        let mut rig = Rig::new();
        // The block of an executor before this one commits while it is waited for.
        let (committing, signer) = (rig.stage.clone(), rig.stage.signer().address);
        rig.links.settle = probe(move |_: &Settle| {
            let genesis = committing.reader().genesis().clone();
            let root = root_of(Height(0));
            let now = Timestamp(0);
            let block = executor::build::next_block(&genesis, None, &root, &signer, now, vec![]);
            committing.committed(&Arc::new(block));
        })
        .0;
        let (block, told) = probe(|_: &PublishBlock| Ok(()));
        let (tail, _) = probe(|_: &PublishTail| Ok(()));
        rig.links.publish = Some(executor::Publish { block, tail });
        let _executor = rig.start();
        pass(10).await;
        assert_eq!(told.count(), 0, "P10: nobody hears of what this node has not executed");
        assert_eq!(rig.proposed.count(), 0, "the engine has not executed the block that was on its way");
        let signed = rig.signed.take();
        assert_eq!(signed[0].block.height(), Height(1), "its header is signed first");
        assert_eq!(rig.alarms.count(), 0);
    });
}

#[test]
fn a_signer_that_fails_pauses_production_and_recovers() {
    sim_run(1, || async {
        let mut rig = Rig::new();
        let fails = Rc::new(Cell::new(true));
        let failing = fails.clone();
        rig.links.sign = probe(move |_: &SignHeader| match failing.get() {
            true => Err(SignError::Guard("no space left".to_owned())),
            false => Ok(Bytes::from(vec![9; 64])),
        })
        .0;
        let _executor = rig.start();
        pass(5_000).await;
        let stuck = rig.proposed.take().len();
        assert!(stuck < 8, "{stuck} blocks without a signature");
        let pauses = rig.paused.take();
        let why = pauses.iter().filter_map(|change| change.pause.as_deref()).next_back();
        assert!(why.is_some_and(|why| why.contains("no space left")), "{why:?}");
        fails.set(false);
        pass(2_000).await;
        assert!(rig.proposed.count() > 10, "production goes on");
    });
}

#[test]
fn a_double_signature_needs_a_person() {
    sim_run(1, || async {
        let mut rig = Rig::new();
        rig.links.sign = probe(|asked: &SignHeader| {
            let (height, asked) = (asked.block.height(), asked.block.hash());
            Err(SignError::DoubleSign { height, guarded: Hash::of(b"other"), asked })
        })
        .0;
        let _executor = rig.start();
        pass(50).await;
        assert_eq!(rig.alarms.count(), 1);
    });
}

/// The next leader signs what this one left, the notary moves the guard up by what the log says, and
/// this one, which has not heard yet that it was deposed, asks for the height below.
#[test]
fn what_another_leader_has_signed_meanwhile_needs_no_person() {
    sim_run(1, || async {
        let mut rig = Rig::new();
        let stage = rig.stage.clone();
        rig.links.sign = probe(move |asked: &SignHeader| {
            let height = asked.block.height();
            if height != Height(1) {
                return Ok(Bytes::from(vec![9; 64]));
            }
            stage.sign(1);
            Err(SignError::BelowGuard { asked: height, guarded: height.next() })
        })
        .0;
        let _executor = rig.start();
        pass(1_000).await;
        assert_eq!(rig.alarms.count(), 0);
        assert!(rig.proposed.count() > 5, "it goes on");
        let signed = rig.stage.reader().signature(Height(3)).expect("readable");
        assert!(signed.is_some(), "and so does the signing");
    });
}

#[test]
fn below_the_guard_and_not_in_the_log_needs_a_person() {
    sim_run(1, || async {
        let mut rig = Rig::new();
        rig.links.sign = probe(|asked: &SignHeader| {
            let asked = asked.block.height();
            Err(SignError::BelowGuard { asked, guarded: asked.next() })
        })
        .0;
        let _executor = rig.start();
        pass(50).await;
        assert_eq!(rig.alarms.count(), 1);
    });
}

#[test]
fn the_unsigned_tail_of_earlier_reigns_is_signed_first_and_in_order() {
    sim_run(1, || async {
        let rig = Rig::new();
        rig.stage.grow(5);
        rig.stage.sign(2);
        let _executor = rig.start();
        pass(2_000).await;
        let heights: Vec<u64> = rig.signed.take().iter().map(|signed| signed.block.height().0).collect();
        assert_eq!(heights[..3], [3, 4, 5]);
    });
}

#[test]
fn in_lazy_mode_it_waits_for_transactions_or_the_longest_interval() {
    sim_run(1, || async {
        let mut rig = Rig::new();
        rig.config.lazy = true;
        rig.links.await_txs = NeverAnswers.start().recipient();
        let _executor = rig.start();
        pass(9_000).await;
        assert!(rig.proposed.count() <= 1, "{} blocks without transactions", rig.proposed.count());
        pass(30_000).await;
        assert!((3..=5).contains(&rig.proposed.count()), "{} blocks", rig.proposed.count());
    });
}

#[test]
fn the_engines_verdicts_decide_what_the_block_holds() {
    sim_run(1, || async {
        let mut rig = Rig::new();
        rig.links.next_batch = probe(|_: &NextBatch| {
            let txs = ["a=1", "removed=1", "b=1", "postponed=1", "c=1"].map(tx).to_vec();
            Batch { txs, current: true }
        })
        .0;
        rig.links.filter = probe(|asked: &FilterTxs| {
            let verdict = |tx: &Tx| match &tx.0[..1] {
                b"r" => FilterStatus::Remove,
                b"p" => FilterStatus::Postpone,
                _ => FilterStatus::Ok,
            };
            Ok(asked.txs.iter().map(verdict).collect())
        })
        .0;
        let _executor = rig.start();
        pass(50).await;
        let proposed = rig.proposed.take();
        assert_eq!(proposed[0].block.txs(), [tx("a=1"), tx("b=1")], "nothing overtakes the postponed");
        assert_eq!(rig.dropped.take()[0].hashes, [tx("removed=1").hash()]);
    });
}

#[test]
fn it_waits_for_a_sequencer_that_has_not_seen_the_tip() {
    sim_run(1, || async {
        let mut rig = Rig::new();
        let asked = Cell::new(0);
        rig.links.next_batch = probe(move |_: &NextBatch| {
            asked.set(asked.get() + 1);
            Batch { txs: vec![], current: asked.get() > 5 }
        })
        .0;
        let _executor = rig.start();
        pass(3).await;
        assert_eq!(rig.proposed.count(), 0, "B3: a batch that may repeat the last block is not proposed");
        pass(50).await;
        assert_eq!(rig.proposed.count(), 1);
    });
}

/// A clock that shows so many milliseconds more than the stage's blocks did when they were made.
fn clock_after_blocks(ms: u64) -> World {
    World::new(Arc::new(SimClock::showing(Timestamp(START.0 + ms * 1_000_000))), 1)
}

const START: Timestamp = Timestamp(1_700_000_000_000_000_000);

/// When the first block was proposed, in milliseconds, with a last header this long ago.
fn first_proposal_after(ago_ms: i64) -> u64 {
    sim_run(1, move || async move {
        let rig = Rig::new();
        rig.stage.grow(2);
        let shows = Timestamp(rig.stage.tip().time.0.saturating_add_signed(ago_ms * 1_000_000));
        let clock = World::new(Arc::new(SimClock::showing(shows)), 1);
        // The engine is level.
        let mut links = rig.links.clone();
        let reader = rig.stage.reader();
        links.position = probe(move |_: &GetPosition| {
            let Tip { height, .. } = reader.tip();
            Ok(EnginePosition { height, root: root_of(height), ..Default::default() })
        })
        .0;
        let rig = Rig { links, ..rig };
        let began = tokio::time::Instant::now();
        let _executor = rig.start_at(clock);
        while rig.proposed.count() == 0 {
            pass(1).await;
            assert!(began.elapsed() < Duration::from_secs(1), "no block within a second");
        }
        u64::try_from(began.elapsed().as_millis()).expect("short")
    })
}

#[test]
fn the_first_block_of_a_reign_is_due_one_block_time_after_the_last_ones_header() {
    for (ago, expected) in [(30, 70), (90, 10), (100, 0), (5_000, 0)] {
        let took = first_proposal_after(ago);
        assert!((expected..=expected + 4).contains(&took), "{ago} ms after the last: {took}, not {expected}");
    }
}

#[test]
fn a_clock_that_lags_delays_the_first_block_by_one_block_time_at_the_most() {
    let took = first_proposal_after(-3_600_000);
    assert!((100..=104).contains(&took), "A18: {took}");
}

#[test]
fn asked_to_stop_right_after_a_block_it_stops_at_once_and_proposes_nothing_more() {
    sim_run(1, || async {
        let rig = Rig::new();
        let (executor, _child) = rig.start_at(clock_after_blocks(0));
        pass(205).await;
        let made = rig.proposed.count();
        let began = tokio::time::Instant::now();
        let stop = StopProducing { reason: "scripted".to_owned() };
        executor.send(stop).timeout(REPLY).await.expect("between two blocks nothing is on its way");
        assert_eq!(began.elapsed(), Duration::ZERO);
        pass(1_000).await;
        assert_eq!(rig.proposed.count(), made);
        assert_eq!(rig.executed.count(), made);
    });
}

#[test]
fn asked_to_stop_shortly_before_a_block_it_makes_that_one_and_no_other() {
    sim_run(1, || async {
        let rig = Rig::new();
        let (executor, _child) = rig.start_at(clock_after_blocks(0));
        pass(270).await;
        let made = rig.proposed.count();
        let stop = StopProducing { reason: "scripted".to_owned() };
        executor.send(stop).timeout(REPLY).await.expect("it answers");
        assert_eq!(rig.proposed.count(), made + 1, "whoever takes over has most of a block time");
        assert_eq!(rig.executed.count(), made + 1, "the last block is executed");
        pass(1_000).await;
        assert_eq!(rig.proposed.count(), made + 1);
    });
}

#[test]
fn asked_to_stop_with_a_block_in_doubt_it_first_learns_its_fate() {
    sim_run(1, || async {
        let mut rig = Rig::new();
        let decided = Rc::new(Cell::new(false));
        let (committing, known) = (rig.stage.clone(), decided.clone());
        let (propose, proposed) = probe(move |asked: &ProposeBlock| match known.get() {
            true => Ok(committing.committed(&asked.block)),
            false => Err(ProposeError::Unknown("scripted".to_owned())),
        });
        rig.links.propose = propose;
        let (executor, _child) = rig.start_at(clock_after_blocks(0));
        pass(50).await;
        let stop = executor.send(StopProducing { reason: "scripted".to_owned() }).timeout(REPLY);
        let answered = Rc::new(Cell::new(false));
        let seen = answered.clone();
        tokio::task::spawn_local(async move {
            stop.await.expect("answered in the end");
            seen.set(true);
        });
        pass(1_000).await;
        assert!(!answered.get(), "F3: it may be in the chain or not");
        decided.set(true);
        pass(200).await;
        assert!(answered.get());
        let hashes: Vec<Hash> = proposed.take().iter().map(|asked| asked.block.hash()).collect();
        assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "A6: never a sibling");
        assert_eq!(rig.stage.tip().height, Height(1));
    });
}

#[test]
fn after_it_was_asked_to_stop_it_records_nothing() {
    sim_run(1, || async {
        let mut rig = Rig::new();
        let (record, recorded) = probe(|_: &Record| Ok(()));
        rig.links.record = record;
        let (executor, _child) = rig.start_at(clock_after_blocks(0));
        pass(205).await;
        let stop = StopProducing { reason: "scripted".to_owned() };
        executor.send(stop).timeout(REPLY).await.expect("it answers");
        let before = recorded.count();
        pass(2_000).await;
        assert_eq!(recorded.count(), before, "whoever takes over has matched the last entry");
    });
}

#[test]
fn among_other_voters_the_guard_hears_their_last_signature_before_it_is_compared() {
    sim_run(1, || async {
        let mut rig = Rig::new();
        rig.stage.grow(5);
        rig.stage.sign(3);
        let order: Rc<RefCell<Vec<String>>> = Rc::default();
        let (of_note, of_check) = (order.clone(), order.clone());
        rig.links.note_signed = probe(move |asked: &NoteSigned| {
            of_note.borrow_mut().push(format!("note {}", asked.signed.header.height));
            Ok(())
        })
        .0;
        rig.links.check_guard = probe(move |asked: &CheckGuard| {
            let signed = asked.last_signed.map(|(height, _)| height.0);
            of_check.borrow_mut().push(format!("check {signed:?}"));
            Ok(())
        })
        .0;
        let _executor = rig.start();
        pass(20).await;
        assert_eq!(*order.borrow(), ["note 3", "check Some(3)"]);
    });
}

#[test]
fn a_sole_voter_signed_everything_itself_and_its_guard_hears_nothing() {
    sim_run(1, || async {
        let rig = Rig::new();
        rig.stage.vote_alone();
        rig.stage.grow(5);
        rig.stage.sign(3);
        let _executor = rig.start();
        pass(20).await;
        assert_eq!(rig.noted.count(), 0, "A15: a guard that is behind is an old copy");
    });
}

fn paused(reason: Option<&str>) -> Command {
    Command::Pause(reason.map(str::to_owned))
}

#[test]
fn while_an_operator_wants_no_blocks_it_makes_none_and_signs_and_executes_those_there_are() {
    sim_run(1, || async {
        let mut rig = Rig::new();
        let fails = Rc::new(Cell::new(true));
        let failing = fails.clone();
        let (sign, signed) = probe(move |_: &SignHeader| match failing.get() {
            true => Err(SignError::Guard("no space left".to_owned())),
            false => Ok(Bytes::from(vec![9; 64])),
        });
        rig.links.sign = sign;
        let _executor = rig.start();
        pass(250).await;
        rig.stage.apply(paused(Some("a look")));
        pass(200).await;
        let (made, tip) = (rig.proposed.count(), rig.stage.tip());
        assert!(made > 2, "{made}");
        pass(3_000).await;
        assert_eq!((rig.proposed.count(), rig.stage.tip()), (made, tip), "an operator said no");
        assert_eq!(rig.executed.count(), made);
        let told = rig.paused.take().pop().expect("it says why");
        assert_eq!((told.pause.as_deref(), told.due), (Some("operator: paused: a look"), false));
        fails.set(false);
        pass(2_000).await;
        assert_eq!(signed.take().last().map(|asked| asked.block.height()), Some(tip.height));
        assert!(matches!(rig.stage.reader().signature(tip.height), Ok(Some(_))), "P7: it can go to DA");
        rig.stage.apply(paused(None));
        pass(500).await;
        assert!(rig.proposed.count() > made + 2, "it goes on by itself");
        assert_eq!(rig.paused.take().pop().map(|told| told.pause), Some(None));
    });
}

#[test]
fn a_pause_that_comes_while_a_block_is_built_comes_first() {
    sim_run(1, || async {
        let mut rig = Rig::new();
        let stage = rig.stage.clone();
        rig.links.next_batch = probe(move |asked: &NextBatch| {
            if asked.height == Height(3) && stage.reader().pause().is_none() {
                stage.apply(paused(Some("a look")));
            }
            Batch { txs: vec![], current: true }
        })
        .0;
        let _executor = rig.start();
        pass(2_000).await;
        assert_eq!(rig.stage.tip().height, Height(2));
    });
}

#[test]
fn a_block_in_doubt_waits_for_the_end_of_a_pause_and_is_the_same_then() {
    sim_run(1, || async {
        let mut rig = Rig::new();
        let (decided, stage) = (Rc::new(Cell::new(false)), rig.stage.clone());
        let known = decided.clone();
        let (propose, proposed) = probe(move |asked: &ProposeBlock| match known.get() {
            true => Ok(stage.committed(&asked.block)),
            false => Err(ProposeError::Unknown("scripted".to_owned())),
        });
        rig.links.propose = propose;
        let number = Cell::new(0);
        rig.links.next_batch = probe(move |_: &NextBatch| {
            number.set(number.get() + 1);
            Batch { txs: vec![tx(&format!("n{}=v", number.get()))], current: true }
        })
        .0;
        let (executor, _child) = rig.start_at(clock_after_blocks(0));
        pass(50).await;
        let before = proposed.take();
        rig.stage.apply(paused(Some("a look")));
        decided.set(true);
        pass(3_000).await;
        assert_eq!(proposed.count(), 0, "it would be a block that an operator does not want");
        assert_eq!((rig.signed.count(), rig.executed.count()), (0, 0));
        rig.stage.apply(paused(None));
        pass(150).await;
        let after = proposed.take();
        assert_eq!(after[0].block.hash(), before[0].block.hash(), "A6: never a sibling");
        drop(executor);
    });
}

#[test]
fn a_block_in_doubt_that_was_committed_before_a_pause_is_signed_and_executed_in_it() {
    sim_run(1, || async {
        let mut rig = Rig::new();
        let stage = rig.stage.clone();
        let (propose, proposed) = probe(move |asked: &ProposeBlock| {
            stage.committed(&asked.block);
            stage.apply(paused(Some("a look")));
            Err(ProposeError::Unknown("the answer was lost".to_owned()))
        });
        rig.links.propose = propose;
        let _executor = rig.start();
        pass(2_000).await;
        assert_eq!((proposed.count(), rig.executed.count(), rig.signed.count()), (1, 1, 1));
        assert_eq!(rig.stage.tip().height, Height(1));
        let told = rig.paused.take().pop().and_then(|told| told.pause);
        assert_eq!(told.as_deref(), Some("operator: paused: a look"));
    });
}

#[test]
fn asked_to_stop_in_a_pause_it_does_not_wait_for_a_block_that_nobody_wants() {
    sim_run(1, || async {
        let mut rig = Rig::new();
        let (propose, proposed) = probe(|_: &ProposeBlock| Err(ProposeError::Unknown("scripted".to_owned())));
        rig.links.propose = propose;
        let (executor, _child) = rig.start_at(clock_after_blocks(0));
        pass(50).await;
        rig.stage.apply(paused(Some("a look")));
        pass(200).await;
        let asked = proposed.count();
        let stop = StopProducing { reason: "scripted".to_owned() };
        executor.send(stop).timeout(REPLY).await.expect("what was on its way is decided");
        assert_eq!((proposed.count(), rig.stage.tip().height), (asked, Height(0)));
    });
}

/// An inbox that always shows the same, on a chain whose log can say the position.
fn with_forced(rig: &mut Rig, behind: Option<&str>, texts: &[&str]) {
    rig.stage.apply(Command::Activate(FORCED_VERSION));
    let at = |da_height, tx_index| ForcedPosition { da_height: DaHeight(da_height), tx_index };
    let forced = |(index, text): (usize, &&str)| ForcedTx { tx: tx(text), after: at(1, index as u64 + 1) };
    let shown = Forced {
        from: at(1, 0),
        txs: texts.iter().enumerate().map(forced).collect(),
        end: at(51, 0),
        behind: behind.map(str::to_owned),
    };
    let (next, _) = probe(move |_: &NextForced| shown.clone());
    rig.links.inbox = Some(executor::Inbox { next, every: Duration::from_secs(1) });
    rig.links.next_batch = probe(|_: &NextBatch| Batch { txs: vec![tx("q=1")], current: true }).0;
}

#[test]
fn forced_transactions_come_before_queued_ones_and_their_position_with_the_block() {
    sim_run(31, || async {
        let mut rig = Rig::new();
        with_forced(&mut rig, None, &["f=1", "q=1"]);
        let _executor = rig.start();
        pass(150).await;
        let first = &rig.proposed.take()[0];
        assert_eq!(first.block.txs(), [tx("f=1"), tx("q=1")], "what is queued too is there once");
        assert_eq!(first.forced, ForcedPosition { da_height: DaHeight(51), tx_index: 0 });
    });
}

#[test]
fn what_the_engine_postpones_keeps_the_position_before_it_and_what_it_refuses_is_passed() {
    sim_run(32, || async {
        let mut rig = Rig::new();
        with_forced(&mut rig, None, &["f=1", "bad", "f=2", "f=3"]);
        let verdicts = [FilterStatus::Ok, FilterStatus::Remove, FilterStatus::Ok, FilterStatus::Postpone];
        rig.links.filter = probe(move |asked: &FilterTxs| {
            assert_eq!(asked.forced, 4, "they are the first ones");
            Ok([verdicts.to_vec(), vec![FilterStatus::Ok; asked.txs.len() - 4]].concat())
        })
        .0;
        let _executor = rig.start();
        pass(150).await;
        let first = &rig.proposed.take()[0];
        assert_eq!(first.block.txs(), [tx("f=1"), tx("f=2")], "nothing overtakes the postponed one");
        assert_eq!(first.forced, ForcedPosition { da_height: DaHeight(1), tx_index: 3 });
        assert_eq!(rig.dropped.count(), 0, "the queue never had them");
    });
}

#[test]
fn a_block_in_doubt_is_proposed_again_with_the_position_it_had() {
    sim_run(33, || async {
        let mut rig = Rig::new();
        with_forced(&mut rig, None, &["f=1"]);
        let (committing, mut answers) = (rig.stage.clone(), 0);
        let (propose, proposed) = probe(move |asked: &ProposeBlock| {
            answers += 1;
            match answers {
                1 => Err(ProposeError::Unknown("scripted".to_owned())),
                _ => Ok(committing.committed(&asked.block)),
            }
        });
        rig.links.propose = propose;
        let _executor = rig.start();
        pass(400).await;
        let proposed = proposed.take();
        assert_eq!((&proposed[0].block, proposed[0].forced), (&proposed[1].block, proposed[1].forced));
        assert_eq!(proposed[0].forced.da_height, DaHeight(51));
    });
}

#[test]
fn while_an_epoch_may_be_due_blocks_hold_forced_transactions_or_there_is_none() {
    sim_run(34, || async {
        let mut rig = Rig::new();
        with_forced(&mut rig, Some("scripted"), &["f=1"]);
        let executor = rig.start();
        pass(150).await;
        assert_eq!(rig.proposed.take()[0].block.txs(), [tx("f=1")], "nothing queued");
        drop(executor);
        let mut rig = Rig::new();
        with_forced(&mut rig, Some("scripted"), &[]);
        let _executor = rig.start();
        pass(1_000).await;
        assert_eq!(rig.proposed.count(), 0);
        let paused = rig.paused.take();
        let said = paused.last().expect("it says why");
        assert!(said.pause.as_deref().is_some_and(|why| why.contains("scripted")) && !said.due, "{said:?}");
    });
}

#[test]
fn before_every_voter_knows_the_position_nothing_is_forced() {
    sim_run(35, || async {
        let mut rig = Rig::new();
        with_forced(&mut rig, None, &["f=1"]);
        let inbox = rig.links.inbox.take();
        let mut old = Rig::new();
        (old.links.inbox, old.links.next_batch) = (inbox, rig.links.next_batch.clone());
        let _executor = old.start();
        pass(150).await;
        let first = &old.proposed.take()[0];
        assert_eq!((first.block.txs(), first.forced), (&[tx("q=1")][..], ForcedPosition::default()));
    });
}
