//! The sequencer on a store of its own.

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
        let Outcome { place, result } = committed.await.expect("done").expect("alive").expect("committed");
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
