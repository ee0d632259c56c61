//! One actor among probes: what it says, in which order, and what it never does.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, Context, Recipient};
use baton_actors::child::{self, Child};
use baton_actors::executor::{self, Executor};
use baton_actors::reaper::{self, Reaper};
use baton_actors::sequencer::{self, Sequencer};
use baton_actors::supervisor::{self, Producer, Supervisor};
use baton_actors::syncer::{self, Syncer};
use baton_actors::world::{Clock, World};
use baton_messages::chain::Block;
use baton_messages::command::{Command, Lane, Refusal, Submitted};
use baton_messages::engine::{
    BlockExecuted, EngineError, EnginePosition, ExecuteBlock, Executed, FilterStatus, FilterTxs, GetPosition,
    InitChain, PendingTxs, Rollback, SetFinal, TxResult,
};
use baton_messages::executor::ProductionChanged;
use baton_messages::raft::{
    Applied, LeadershipChanged, ProposeBlock, ProposeError, Record, Settle, TermApplied,
};
use baton_messages::sequencer::{
    AwaitError, AwaitTx, AwaitTxs, Batch, DropTxs, Level, NextBatch, Outcome, Receipt, SubmitError, SubmitTxs,
};
use baton_messages::signer::{CheckGuard, SignError, SignHeader};
use baton_messages::supervisor::{GetSupervisorView, IntegrityStop, Shutdown};
use baton_messages::syncer::{ExecutionFollowed, ExecutionTrouble};
use baton_messages::types::{DaHeight, Hash, Height, Role, StateRoot, Term, Timestamp, Tip, Tx};
use baton_storage::memory::{Disk, EffectOutcome, Keep};
use bytes::Bytes;
use sim::{GRANT, Probe, Stage, probe, root_of, sim_run, tx};

const REPLY: Duration = Duration::from_secs(5);

async fn pass(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

/// A clock that stands still.
struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp(1_700_000_000_000_000_000)
    }
}

fn world() -> World {
    World::new(Arc::new(Still), 1)
}

mod executor_tests {
    use super::*;

    /// An executor among probes that do their duty, and what they heard.
    struct Rig {
        stage: Stage,
        links: executor::Links,
        config: executor::Config,
        proposed: Probe<ProposeBlock>,
        executed: Probe<ExecuteBlock>,
        signed: Probe<SignHeader>,
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
            let (propose, proposed) =
                probe(move |asked: &ProposeBlock| Ok(committing.committed(&asked.block)));
            let recording = stage.clone();
            let (record, _) = probe(move |asked: &Record| {
                recording.apply(asked.command.clone());
                Ok(())
            });
            let (check_guard, _) = probe(|_: &CheckGuard| Ok(()));
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
                check_guard,
                sign,
                settle,
                production,
                integrity_stop,
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
            Self { stage, links, config, proposed, executed, signed, dropped, paused, alarms }
        }

        fn start(&self) -> Child {
            let metrics = executor::Metrics::default();
            let proposer = self.stage.signer().address;
            let (config, links, reader) = (self.config.clone(), self.links.clone(), self.stage.reader());
            child::spawn("executor", |_| {
                Executor::new(config, links, metrics, world(), reader, GRANT, proposer)
            })
            .1
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
            let heights: Vec<u64> =
                proposed.take().iter().map(|proposal| proposal.block.height().0).collect();
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
            let _executor = rig.start();
            pass(10).await;
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
            let why = pauses.iter().filter_map(|change| change.pause.as_deref()).last();
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
}

/// Waits for ever.
struct NeverAnswers;

impl Actor for NeverAnswers {
    type Context = Context<Self>;
}

impl actix::Handler<AwaitTxs> for NeverAnswers {
    type Result = actix::ResponseFuture<()>;

    fn handle(&mut self, _: AwaitTxs, _: &mut Context<Self>) -> Self::Result {
        Box::pin(std::future::pending())
    }
}

mod sequencer_tests {
    use super::*;

    fn start(stage: &Stage, config: sequencer::Config) -> Addr<Sequencer> {
        Sequencer::new(config, sequencer::Metrics::default(), stage.reader(), stage.store.queue()).start()
    }

    fn small() -> sequencer::Config {
        sequencer::Config {
            max_txs: 3,
            max_bytes: 1_000,
            max_tx_bytes: 20,
            replay_window: 4,
            max_waiting: 2,
            longest_wait: REPLY,
        }
    }

    async fn submit(to: &Addr<Sequencer>, texts: &[&str]) -> Result<Vec<Receipt>, SubmitError> {
        to.send(SubmitTxs { txs: texts.iter().map(|text| tx(text)).collect() }).await.expect("alive")
    }

    async fn batch(from: &Addr<Sequencer>, height: u64) -> Batch {
        from.send(NextBatch { height: Height(height), max_bytes: 1_000 }).await.expect("alive")
    }

    /// Commits what the sequencer shows, and tells it.
    async fn commit(stage: &Stage, to: &Addr<Sequencer>, texts: &[&str]) -> Arc<Block> {
        let block = stage.next_block(&root_of(stage.tip().height), texts);
        let tip = stage.committed(&block).tip;
        to.send(Applied { tip }).await.expect("alive");
        block
    }

    #[test]
    fn what_is_accepted_is_durable_when_the_answer_comes() {
        sim_run(1, || async {
            let stage = Stage::new();
            let sequencer = start(&stage, small());
            // Writes are seen, syncs are remembered: the answer must come after a sync.
            submit(&sequencer, &["a=1", "b=1"]).await.expect("accepted");
            stage.machine.disk.crash(Keep::None);
            let queued = stage.machine.open().queue().load().expect("readable");
            let queued: Vec<Tx> = queued.into_iter().map(|(_, tx)| tx).collect();
            assert_eq!(queued, [tx("a=1"), tx("b=1")], "P3: accepted and lost");
        });
    }

    #[test]
    fn what_cannot_be_made_durable_is_not_accepted() {
        sim_run(1, || async {
            let stage = Stage::new();
            let sequencer = start(&stage, small());
            let fail = |_| EffectOutcome::Fail(baton_storage::backend::StoreError::Io("scripted".to_owned()));
            stage.machine.disk.set_hook(Some(Arc::new(fail)));
            let refused = submit(&sequencer, &["a=1"]).await.expect_err("not durable");
            assert!(matches!(&refused, SubmitError::NotReady(why) if why.contains("scripted")), "{refused}");
            assert_eq!(batch(&sequencer, 1).await.txs, []);
        });
    }

    #[test]
    fn the_order_of_arrival_survives_a_restart_and_nothing_is_taken_by_showing_it() {
        sim_run(1, || async {
            let stage = Stage::new();
            let sequencer = start(&stage, small());
            submit(&sequencer, &["b=1", "a=1"]).await.expect("accepted");
            submit(&sequencer, &["c=1"]).await.expect("accepted");
            let shown = batch(&sequencer, 1).await;
            assert_eq!(shown, Batch { txs: ["b=1", "a=1", "c=1"].map(tx).to_vec(), current: true });
            assert_eq!(batch(&sequencer, 1).await, shown, "B3: shown, not taken");
            let again = start(&stage, small());
            assert_eq!(batch(&again, 1).await, shown);
        });
    }

    #[test]
    fn what_a_committed_block_holds_leaves_the_queue_and_is_answered_with_its_place() {
        sim_run(1, || async {
            let stage = Stage::new();
            let sequencer = start(&stage, small());
            submit(&sequencer, &["a=1", "b=1"]).await.expect("accepted");
            let block = commit(&stage, &sequencer, &["a=1"]).await;
            assert_eq!(batch(&sequencer, 2).await.txs, [tx("b=1")]);
            let receipts = submit(&sequencer, &["a=1", "b=1"]).await.expect("known");
            let Receipt::InChain(_, place) = receipts[0] else { panic!("P3: {receipts:?}") };
            assert_eq!((place.height, place.index, place.header_hash), (Height(1), 0, block.hash()));
            assert_eq!(receipts[1], Receipt::Queued(tx("b=1").hash()));
            assert_eq!(batch(&sequencer, 2).await.txs, [tx("b=1")], "a duplicate is not queued again");
            assert!(!batch(&sequencer, 3).await.current, "it has not seen height 2");
        });
    }

    #[test]
    fn the_replay_window_is_the_same_after_a_restart() {
        sim_run(1, || async {
            let stage = Stage::new();
            stage.grow(6);
            let sequencer = start(&stage, small());
            for height in 3..=6 {
                let receipts = submit(&sequencer, &[&format!("k{height}=v")]).await.expect("known");
                let in_chain = |place: &baton_messages::types::Place| place.height == Height(height);
                assert!(matches!(&receipts[..], [Receipt::InChain(_, place)] if in_chain(place)));
            }
            assert_eq!(batch(&sequencer, 7).await.txs, []);
        });
    }

    #[test]
    fn a_full_queue_and_impossible_transactions_are_refused_whole() {
        sim_run(1, || async {
            let stage = Stage::new();
            let sequencer = start(&stage, small());
            submit(&sequencer, &["a=1", "b=1"]).await.expect("accepted");
            let full = submit(&sequencer, &["c=1", "d=1"]).await;
            assert_eq!(full, Err(SubmitError::QueueFull { txs: 2, bytes: 6 }));
            let large = submit(&sequencer, &["c=1", &"x".repeat(21)]).await;
            assert_eq!(large, Err(SubmitError::TooLarge { bytes: 21, limit: 20 }));
            assert_eq!(submit(&sequencer, &["c=1", ""]).await, Err(SubmitError::Empty));
            assert_eq!(batch(&sequencer, 1).await.txs.len(), 2, "all or nothing");
            submit(&sequencer, &["a=1", "b=1"]).await.expect("what is known needs no room");
            submit(&sequencer, &["c=1"]).await.expect("there is room for one");
        });
    }

    #[test]
    fn a_dropped_transaction_leaves_the_queue_and_who_waits_hears_why() {
        sim_run(1, || async {
            let stage = Stage::new();
            let sequencer = start(&stage, small());
            submit(&sequencer, &["a=1", "b=1"]).await.expect("accepted");
            let hash = tx("a=1").hash();
            let waiting = sequencer.send(AwaitTx { hash, level: Level::Committed });
            let waiting = tokio::task::spawn_local(waiting);
            pass(1).await;
            let reason = "invalid".to_owned();
            sequencer.send(DropTxs { hashes: vec![hash], reason }).await.expect("alive");
            let heard = waiting.await.expect("answered").expect("alive");
            assert_eq!(heard, Err(AwaitError::Dropped("invalid".to_owned())));
            assert_eq!(batch(&sequencer, 1).await.txs, [tx("b=1")]);
            let again = start(&stage, small());
            assert_eq!(batch(&again, 1).await.txs, [tx("b=1")]);
        });
    }

    #[test]
    fn who_waits_hears_of_commitment_and_of_the_result() {
        sim_run(1, || async {
            let stage = Stage::new();
            let sequencer = start(&stage, small());
            submit(&sequencer, &["a=1"]).await.expect("accepted");
            let hash = tx("a=1").hash();
            let wait = |level| tokio::task::spawn_local(sequencer.send(AwaitTx { hash, level }));
            let (committed, executed) = (wait(Level::Committed), wait(Level::Executed));
            pass(1).await;
            let too_many = sequencer.send(AwaitTx { hash, level: Level::Executed }).await.expect("alive");
            assert_eq!(too_many, Err(AwaitError::TooMany(2)));
            let block = commit(&stage, &sequencer, &["a=1"]).await;
            let Outcome { place, result } =
                committed.await.expect("done").expect("alive").expect("committed");
            assert_eq!((place.height, result), (Height(1), None));
            assert!(!executed.is_finished(), "not executed yet");
            let results = Arc::new(vec![TxResult::Applied(Bytes::from_static(b"ok"))]);
            let (height, hash) = (block.height(), block.hash());
            let done = Executed { height, hash, root: root_of(height), results: results.clone() };
            sequencer.send(BlockExecuted(done)).await.expect("alive");
            let outcome = executed.await.expect("done").expect("alive").expect("executed");
            assert_eq!(outcome.result, Some(results[0].clone()));
            let unknown = AwaitTx { hash: Hash::of(b"?"), level: Level::Committed };
            assert_eq!(sequencer.send(unknown).await.expect("alive"), Err(AwaitError::Unknown));
        });
    }
}

mod syncer_tests {
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
                followed: followed_link,
                trouble: trouble_link,
            };
            Self { stage, engine, links, executed, rolled_back, made_final, followed, trouble }
        }

        fn start(&self) -> Addr<Syncer> {
            let retry_after = Duration::from_millis(100);
            let config = syncer::Config { reply_within: REPLY, retry_after, log_every: 1_000 };
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
}

mod reaper_tests {
    use super::*;

    fn config() -> reaper::Config {
        reaper::Config {
            interval: Duration::from_secs(1),
            longest_pause: Duration::from_secs(8),
            reply_within: REPLY,
            max_bytes: 1_000,
        }
    }

    fn start(pending_txs: Recipient<PendingTxs>, submit_txs: Recipient<SubmitTxs>) -> Child {
        let links = reaper::Links { pending_txs, submit_txs };
        child::spawn("reaper", |_| Reaper::new(config(), links, reaper::Metrics::default())).1
    }

    #[test]
    fn it_hands_over_what_is_pending_in_order_and_again_while_it_is() {
        sim_run(1, || async {
            let (pending, asked) = probe(|_: &PendingTxs| Ok(vec![tx("b=1"), tx("a=1")]));
            let (submit, submitted) = probe(|_: &SubmitTxs| Ok(vec![]));
            let _reaper = start(pending, submit);
            pass(2_500).await;
            let submitted = submitted.take();
            assert_eq!(submitted.len(), 3);
            assert!(submitted.iter().all(|round| round.txs == [tx("b=1"), tx("a=1")]));
            assert!(asked.take().iter().all(|asked| asked.max_bytes == 1_000));
        });
    }

    #[test]
    fn an_empty_pool_is_not_worth_a_message_and_a_full_queue_is_given_time() {
        sim_run(1, || async {
            let full = Rc::new(Cell::new(false));
            let is_full = full.clone();
            let (pending, asked) = probe(move |_: &PendingTxs| match is_full.get() {
                true => Ok(vec![tx("a=1")]),
                false => Ok(vec![]),
            });
            let (submit, submitted) = probe(|_: &SubmitTxs| Err(SubmitError::QueueFull { txs: 1, bytes: 1 }));
            let _reaper = start(pending, submit);
            pass(3_500).await;
            assert_eq!((asked.take().len(), submitted.count()), (4, 0));
            full.set(true);
            pass(60_000).await;
            assert!((8..=10).contains(&submitted.count()), "pauses double: {}", submitted.count());
        });
    }
}

mod da_submitter_tests {
    use baton_actors::da_submitter::{self, DaSubmitter};
    use baton_messages::da::{
        Blob, DaError, DaHead, DaStateChanged, GetBlobs, GetDaHead, Namespace, SubmitBlobs,
    };
    use baton_messages::signer::{SignData, SignEnvelope};

    use super::*;

    /// A submitter above a chain of executed and signed blocks, and a DA layer that is a list.
    struct Rig {
        stage: Stage,
        links: da_submitter::Links,
        executed: Rc<Cell<u64>>,
        on_da: Rc<RefCell<Vec<Vec<Blob>>>>,
        /// In the order in which DA was asked: "look" or the number of blobs.
        asked: Rc<RefCell<Vec<(Duration, String)>>>,
        state: Probe<DaStateChanged>,
    }

    fn headers() -> Namespace {
        Namespace::of("headers")
    }

    impl Rig {
        fn new(blocks: u64, signed: u64, executed: u64) -> Self {
            let stage = Stage::new();
            stage.grow(blocks);
            (1..=signed).for_each(|height| stage.sign(height));
            let executed = Rc::new(Cell::new(executed));
            let on_da: Rc<RefCell<Vec<Vec<Blob>>>> = Rc::default();
            let asked: Rc<RefCell<Vec<(Duration, String)>>> = Rc::default();
            let began = tokio::time::Instant::now();
            let (taken, log) = (on_da.clone(), asked.clone());
            let (submit, _) = probe(move |asked: &SubmitBlobs| {
                if asked.blobs[0].namespace == headers() {
                    log.borrow_mut().push((began.elapsed(), asked.blobs.len().to_string()));
                }
                taken.borrow_mut().push(asked.blobs.clone());
                Ok(DaHeight(taken.borrow().len() as u64))
            });
            let holds = on_da.clone();
            let (get, _) = probe(move |asked: &GetBlobs| {
                let index = usize::try_from(asked.height.0).expect("small") - 1;
                let held = holds.borrow().get(index).cloned().unwrap_or_default();
                Ok(held.into_iter().filter(|blob| asked.namespaces.contains(&blob.namespace)).collect())
            });
            let (holds, log) = (on_da.clone(), asked.clone());
            let (head, _) = probe(move |_: &GetDaHead| {
                log.borrow_mut().push((began.elapsed(), "look".to_owned()));
                Ok(DaHead { height: DaHeight(holds.borrow().len() as u64), ..Default::default() })
            });
            let signature = || Ok(Bytes::from(vec![8; 64]));
            let at = executed.clone();
            let (position, _) = probe(move |_: &GetPosition| {
                let height = Height(at.get());
                Ok(EnginePosition { height, root: root_of(height), ..Default::default() })
            });
            let recording = stage.clone();
            let (record, _) = probe(move |asked: &Record| {
                recording.apply(asked.command.clone());
                Ok(())
            });
            let (state_link, state) = probe(|_: &DaStateChanged| ());
            let links = da_submitter::Links {
                submit,
                get,
                head,
                sign_envelope: probe(move |_: &SignEnvelope| signature()).0,
                sign_data: probe(move |_: &SignData| signature()).0,
                position,
                record,
                state: state_link,
            };
            Self { stage, links, executed, on_da, asked, state }
        }

        fn start(&self) -> Child {
            let config = da_submitter::Config {
                header_namespace: headers(),
                data_namespace: Namespace::of("data"),
                signer: self.stage.signer(),
                max_bytes: 100_000,
                max_blobs: 16,
                interval: Duration::from_millis(100),
                da_block_time: Duration::from_secs(2),
                submit_within: REPLY,
                reply_within: REPLY,
                search_depth: 100,
            };
            let (links, metrics, reader) =
                (self.links.clone(), da_submitter::Metrics::default(), self.stage.reader());
            child::spawn("da submitter", |_| DaSubmitter::new(config, links, metrics, world(), reader, GRANT))
                .1
        }

        /// Submissions are refused by this function first; `None` lets them through.
        fn refuse(&mut self, refusal: impl Fn(&SubmitBlobs) -> Option<DaError> + 'static) {
            let (inner, log, began) = (self.on_da.clone(), self.asked.clone(), tokio::time::Instant::now());
            self.links.submit = probe(move |asked: &SubmitBlobs| {
                if asked.blobs[0].namespace == headers() {
                    log.borrow_mut().push((began.elapsed(), asked.blobs.len().to_string()));
                }
                if let Some(error) = refusal(asked) {
                    return Err(error);
                }
                inner.borrow_mut().push(asked.blobs.clone());
                Ok(DaHeight(inner.borrow().len() as u64))
            })
            .0;
        }

        fn header_blobs(&self) -> usize {
            self.on_da.borrow().iter().flatten().filter(|blob| blob.namespace == headers()).count()
        }
    }

    #[test]
    fn only_executed_and_signed_blocks_are_posted() {
        sim_run(1, || async {
            let rig = Rig::new(10, 8, 5);
            let _submitter = rig.start();
            pass(1_000).await;
            assert_eq!(rig.header_blobs(), 5, "P10: not above what is executed");
            rig.executed.set(10);
            pass(1_000).await;
            assert_eq!(rig.header_blobs(), 8, "not above what is signed");
            assert_eq!(rig.stage.reader().da_progress().included, Height(8));
        });
    }

    #[test]
    fn too_big_is_halved_until_it_fits() {
        sim_run(1, || async {
            let mut rig = Rig::new(20, 20, 20);
            rig.refuse(|asked| (asked.blobs.len() > 3).then(|| DaError::TooBig("scripted".to_owned())));
            let _submitter = rig.start();
            pass(10_000).await;
            let sizes: Vec<String> = rig.asked.borrow().iter().map(|(_, what)| what.clone()).collect();
            let sizes: Vec<&str> = sizes.iter().map(String::as_str).filter(|what| *what != "look").collect();
            assert_eq!(sizes[..4], ["16", "8", "4", "2"]);
            assert_eq!(rig.header_blobs(), 20, "each once");
            assert_eq!(rig.stage.reader().da_progress().included, Height(20));
            assert_eq!(rig.state.take().pop().expect("told").trouble, None);
        });
    }

    #[test]
    fn what_da_took_without_saying_so_is_found_and_not_sent_again() {
        sim_run(1, || async {
            let mut rig = Rig::new(5, 5, 5);
            let (first, taken) = (Cell::new(true), rig.on_da.clone());
            rig.refuse(move |asked| {
                let is_first = asked.blobs[0].namespace == headers() && first.replace(false);
                is_first.then(|| {
                    taken.borrow_mut().push(asked.blobs.clone());
                    DaError::Unavailable("the answer was lost".to_owned())
                })
            });
            let _submitter = rig.start();
            pass(5_000).await;
            assert_eq!(rig.header_blobs(), 5, "D4: sent twice");
            assert_eq!(rig.stage.reader().da_progress().included, Height(5));
            assert_eq!(rig.state.take().pop().expect("told").trouble, None, "the trouble is over");
        });
    }

    #[test]
    fn a_new_submitter_looks_before_it_sends() {
        sim_run(1, || async {
            let rig = Rig::new(5, 5, 5);
            let first = rig.start();
            pass(1_000).await;
            first.stop().await;
            // The same blocks on another store: what was recorded there is not known here.
            let mut again = Rig::new(5, 5, 5);
            again.on_da.borrow_mut().extend(rig.on_da.borrow().iter().cloned());
            again.refuse(|_| Some(DaError::AccountSequence("must not be asked".to_owned())));
            let _second = again.start();
            pass(1_000).await;
            assert_eq!(again.stage.reader().da_progress().included, Height(5));
            assert!(again.asked.borrow().iter().all(|(_, what)| what == "look"), "{:?}", again.asked);
        });
    }

    #[test]
    fn pauses_grow_up_to_the_da_block_time() {
        sim_run(1, || async {
            let mut rig = Rig::new(5, 5, 5);
            rig.refuse(|_| Some(DaError::AccountSequence("scripted".to_owned())));
            let _submitter = rig.start();
            pass(30_000).await;
            let asked = rig.asked.borrow();
            let times: Vec<Duration> =
                asked.iter().filter(|(_, what)| what != "look").map(|(at, _)| *at).collect();
            let pauses: Vec<u128> = times.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect();
            assert!(pauses.windows(2).all(|pair| pair[0] <= pair[1] + 5), "{pauses:?}");
            assert!(pauses.iter().all(|pause| (95..=2_005).contains(pause)), "{pauses:?}");
            assert!((1_990..=2_005).contains(pauses.last().expect("some")), "{pauses:?}");
            let told = rig.state.take();
            assert!(told.iter().any(|state| state.trouble.is_some()), "it says what is wrong");
        });
    }
}

mod supervisor_tests {
    use super::*;

    type Log = Rc<RefCell<Vec<String>>>;

    /// Says when it starts and when it is gone.
    struct Logging(&'static str, Log);

    impl Actor for Logging {
        type Context = Context<Self>;

        fn started(&mut self, _: &mut Context<Self>) {
            self.1.borrow_mut().push(format!("start {}", self.0));
        }
    }

    impl Drop for Logging {
        fn drop(&mut self) {
            self.1.borrow_mut().push(format!("gone {}", self.0));
        }
    }

    /// Ends by itself after a second.
    struct Mortal(Log);

    impl Actor for Mortal {
        type Context = Context<Self>;

        fn started(&mut self, ctx: &mut Context<Self>) {
            use actix::{ActorContext, AsyncContext};
            self.0.borrow_mut().push("start mortal".to_owned());
            ctx.run_later(Duration::from_secs(1), |_, ctx| ctx.stop());
        }
    }

    fn logging(name: &'static str, log: &Log) -> Producer {
        let log = log.clone();
        Producer::new(name, move |_| child::spawn(name, |_| Logging(name, log.clone())).1)
    }

    fn supervisor(producers: Vec<Producer>) -> (Addr<Supervisor>, Probe<IntegrityStop>) {
        let (integrity_stop, alarms) = probe(|_: &IntegrityStop| ());
        let links = supervisor::Links { integrity_stop };
        let metrics = supervisor::Metrics::default();
        (Supervisor::new(supervisor::Config::default(), links, metrics, producers).start(), alarms)
    }

    fn leads(term: u64) -> LeadershipChanged {
        LeadershipChanged { term: Term(term), role: Role::Leader, leader: None }
    }

    fn elect(supervisor: &Addr<Supervisor>, term: u64) {
        supervisor.do_send(leads(term));
        supervisor.do_send(ExecutionFollowed { height: Height(0), root: root_of(Height(0)) });
        supervisor.do_send(TermApplied { term: Term(term), tip: Tip::default() });
    }

    #[test]
    fn producers_start_in_order_once_the_first_entry_of_the_term_is_applied() {
        sim_run(1, || async {
            let log = Log::default();
            let (supervisor, _) = supervisor(vec![logging("last stage", &log), logging("first stage", &log)]);
            supervisor.do_send(leads(3));
            supervisor.do_send(ExecutionFollowed { height: Height(0), root: root_of(Height(0)) });
            pass(10).await;
            let view = supervisor.send(GetSupervisorView).await.expect("alive");
            assert_eq!((log.borrow().len(), view.grant), (0, None), "P5: its own entry is not applied");
            supervisor.do_send(TermApplied { term: Term(3), tip: Tip::default() });
            pass(10).await;
            assert_eq!(*log.borrow(), ["start last stage", "start first stage"]);
            let view = supervisor.send(GetSupervisorView).await.expect("alive");
            assert_eq!(view.grant.map(|grant| grant.term), Some(Term(3)));
        });
    }

    #[test]
    fn all_producers_of_a_term_are_gone_before_those_of_the_next_start() {
        sim_run(1, || async {
            let log = Log::default();
            let (supervisor, _) = supervisor(vec![logging("a", &log), logging("b", &log)]);
            elect(&supervisor, 1);
            pass(10).await;
            elect(&supervisor, 2);
            pass(10).await;
            let log = log.borrow();
            assert_eq!(log[..2], ["start a", "start b"]);
            assert!(log[2..4].iter().all(|line| line.starts_with("gone")), "{log:?}");
            assert_eq!(log[4..], ["start a", "start b"]);
        });
    }

    #[test]
    fn a_producer_that_dies_takes_the_others_with_it_and_all_start_again() {
        sim_run(1, || async {
            let log = Log::default();
            let mortal = log.clone();
            let dies = Producer::new("mortal", move |_| child::spawn("mortal", |_| Mortal(mortal.clone())).1);
            let (supervisor, _) = supervisor(vec![dies, logging("other", &log)]);
            elect(&supervisor, 1);
            pass(2_000).await;
            let expected = ["start mortal", "start other", "gone other", "start mortal", "start other"];
            assert_eq!(*log.borrow(), expected);
        });
    }

    #[test]
    fn shutdown_while_starting_leaves_nobody_behind_and_nobody_starts_after_it() {
        sim_run(1, || async {
            let log = Log::default();
            let (supervisor, alarms) = supervisor(vec![logging("a", &log), logging("b", &log)]);
            elect(&supervisor, 1);
            // Behind what starts them, before they ran for the first time.
            supervisor.send(Shutdown).await.expect("answered when they are gone");
            let started = log.borrow().iter().filter(|line| line.starts_with("start")).count();
            let gone = log.borrow().iter().filter(|line| line.starts_with("gone")).count();
            assert_eq!(gone, 2, "{started} started: {:?}", log.borrow());
            elect(&supervisor, 2);
            pass(2_000).await;
            assert_eq!(log.borrow().iter().filter(|line| line.starts_with("gone")).count(), 2);
            let view = supervisor.send(GetSupervisorView).await.expect("alive");
            assert_eq!(view.pause.as_deref(), Some("shutting down"));
            assert_eq!(alarms.count(), 0);
        });
    }

    #[test]
    fn an_integrity_error_of_execution_is_passed_on_and_stops_production() {
        sim_run(1, || async {
            let log = Log::default();
            let (supervisor, alarms) = supervisor(vec![logging("a", &log)]);
            elect(&supervisor, 1);
            let trouble = Some("roots differ".to_owned());
            supervisor.do_send(ExecutionTrouble { height: Height(1), trouble, integrity: true });
            pass(10).await;
            assert_eq!(*log.borrow(), ["start a", "gone a"]);
            assert_eq!(alarms.take()[0].reason, "roots differ");
        });
    }
}

/// Clones of a disk are the same disk: the stage's tests rely on it.
#[test]
fn a_stage_keeps_its_chain_on_its_disk() {
    let stage = Stage::new();
    stage.grow(3);
    let disk: Disk = stage.machine.disk.clone();
    drop(stage);
    assert!(disk.writes() > 3);
}
