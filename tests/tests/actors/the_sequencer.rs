//! The sequencer on a store of its own.

use super::*;

fn start(stage: &Stage, config: sequencer::Config) -> Addr<Sequencer> {
    start_linked(stage, config, sequencer::Links::default())
}

fn start_linked(stage: &Stage, config: sequencer::Config, links: sequencer::Links) -> Addr<Sequencer> {
    let (metrics, reader, store) = (sequencer::Metrics::default(), stage.reader(), stage.store.queue());
    Sequencer::new(config, links, metrics, &world(), reader, store).start()
}

fn small() -> sequencer::Config {
    sequencer::Config {
        max_txs: 3,
        max_bytes: 1_000,
        max_tx_bytes: 20,
        replay_window: 4,
        max_waiting: 2,
        longest_wait: REPLY,
        forward: sequencer::forward::Config::default(),
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
fn what_was_executed_before_a_restart_is_executed_and_takes_no_place_among_those_who_wait() {
    sim_run(1, || async {
        let stage = Stage::new();
        let first = start(&stage, small());
        submit(&first, &["a=1"]).await.expect("accepted");
        commit(&stage, &first, &["a=1"]).await;
        drop(first);
        let sequencer = start(&stage, small());
        submit(&sequencer, &["b=2"]).await.expect("accepted");
        let wait = |text: &str| AwaitTx { hash: tx(text).hash(), level: Level::Executed };
        let early = tokio::task::spawn_local(sequencer.send(wait("a=1")));
        let other = tokio::task::spawn_local(sequencer.send(wait("b=2")));
        pass(1).await;
        assert!(!early.is_finished(), "nobody has said where the engine is");
        assert_eq!(sequencer.send(wait("b=2")).await.expect("alive"), Err(AwaitError::TooMany(2)));
        let followed = ExecutionFollowed { height: Height(1), root: root_of(Height(1)) };
        sequencer.send(followed).await.expect("alive");
        let outcome = early.await.expect("done").expect("alive").expect("executed");
        assert_eq!((outcome.place.height, outcome.result), (Height(1), None));
        let another = tokio::task::spawn_local(sequencer.send(wait("b=2")));
        pass(1).await;
        let late = sequencer.send(wait("a=1")).await.expect("alive").expect("known, so it need not wait");
        assert_eq!(late.place.height, Height(1));
        assert!(!other.is_finished() && !another.is_finished());
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

const LEADER: MemberId = MemberId(9);

async fn post(to: &Addr<Sequencer>, text: &str, since: u64) -> Result<Posted, SubmitError> {
    to.send(PostTxs { txs: vec![tx(text)], since: Some(Height(since)) }).await.expect("alive")
}

async fn forwarded(to: &Addr<Sequencer>, texts: &[&str], checked: u64) -> Result<Vec<Receipt>, ForwardError> {
    let txs = texts.iter().map(|text| tx(text)).collect();
    to.send(ForwardedTxs { from: MemberId(5), txs, checked: Height(checked) }).await.expect("alive")
}

/// A sequencer whose leader answers by a function, and what the leader was sent.
fn follower(
    stage: &Stage,
    config: sequencer::Config,
    answer: impl FnMut(&ForwardTxs) -> Result<Vec<Receipt>, ForwardError> + 'static,
) -> (Addr<Sequencer>, Probe<ForwardTxs>) {
    let (forward, sent) = probe(answer);
    let follower = start_linked(stage, config, sequencer::Links { forward: Some(forward) });
    (follower, sent)
}

fn takes(asked: &ForwardTxs) -> Result<Vec<Receipt>, ForwardError> {
    Ok(asked.txs.iter().map(|tx| Receipt::Queued(tx.hash())).collect())
}

fn led_by(to: &Addr<Sequencer>, term: u64, leader: Option<MemberId>) {
    to.do_send(LeadershipChanged { term: Term(term), role: Role::Follower, leader });
}

fn texts(sent: &[ForwardTxs]) -> Vec<Vec<String>> {
    let text = |tx: &Tx| String::from_utf8(tx.0.to_vec()).expect("a text");
    sent.iter().map(|asked| asked.txs.iter().map(text).collect()).collect()
}

#[test]
fn what_was_posted_first_before_the_window_is_refused_and_not_run_twice() {
    sim_run(1, || async {
        let stage = Stage::new();
        let sequencer = start(&stage, small());
        let since = post(&sequencer, "a=1", 0).await.expect("accepted").since;
        assert_eq!(since, Height(0));
        commit(&stage, &sequencer, &["a=1"]).await;
        stage.grow(3);
        let Receipt::InChain(_, place) = post(&sequencer, "a=1", 0).await.expect("known").receipts[0] else {
            panic!("P3: it is in the window");
        };
        assert_eq!(place.height, Height(1));
        stage.grow(1);
        sequencer.send(Applied { tip: stage.tip() }).await.expect("alive");
        let refused = post(&sequencer, "a=1", since.0).await;
        let too_old = SubmitError::TooOld { since: Height(0), window: Height(2) };
        assert_eq!(refused, Err(too_old), "P3: nobody knows here any more, and it was in block 1");
        assert_eq!(post(&sequencer, "b=1", 0).await.expect_err("nor of this one"), refused.unwrap_err());
        let posted = post(&sequencer, "b=1", 1).await.expect("block 1 was looked at by its sender");
        assert_eq!(posted, Posted { receipts: vec![Receipt::Queued(tx("b=1").hash())], since: Height(5) });
        post(&sequencer, "b=1", 0).await.expect("what is queued is known, however old it is");
        post(&sequencer, "c=1", u64::MAX).await.expect("from a node that is ahead of this one");
        assert_eq!(batch(&sequencer, 6).await.txs, [tx("b=1"), tx("c=1")]);
    });
}

#[test]
fn a_queue_that_slept_for_longer_than_the_window_is_checked_before_it_is_shown() {
    sim_run(1, || async {
        let stage = Stage::new();
        let sequencer = start(&stage, small());
        submit(&sequencer, &["a=1", "b=1"]).await.expect("accepted");
        drop(sequencer);
        pass(10).await;
        stage.committed(&stage.next_block(&root_of(Height(0)), &["a=1"]));
        stage.grow(8);
        let again = start(&stage, small());
        assert_eq!(batch(&again, 10).await, Batch { txs: vec![tx("b=1")], current: true }, "P3: run twice");
        assert_eq!(stage.store.queue().checked(), Ok(Some(Height(9))), "the next start begins here");
    });
}

#[test]
fn a_store_from_before_the_checked_height_is_read_as_it_was() {
    sim_run(1, || async {
        let stage = Stage::new();
        stage.grow(9);
        let backend = stage.store.backend();
        let mut batch_of_old = baton_storage::Batch::default();
        let value = baton_messages::codec::encode(&tx("a=1"));
        batch_of_old.put(baton_storage::Family::Queue, Bytes::copy_from_slice(&0u64.to_be_bytes()), value);
        backend.write(batch_of_old).expect("no hook");
        assert_eq!(stage.store.queue().checked(), Ok(None));
        let sequencer = start(&stage, small());
        assert_eq!(batch(&sequencer, 10).await, Batch { txs: vec![tx("a=1")], current: true });
    });
}

#[test]
fn a_node_that_does_not_lead_forwards_in_order_and_keeps_it_until_a_block_holds_it() {
    sim_run(1, || async {
        let stage = Stage::new();
        stage.grow(2);
        let (sequencer, sent) = follower(&stage, small(), takes);
        submit(&sequencer, &["a=1", "b=1"]).await.expect("accepted without a leader");
        pass(10_000).await;
        assert_eq!(sent.count(), 0, "nobody leads");
        led_by(&sequencer, 1, Some(LEADER));
        pass(1).await;
        submit(&sequencer, &["c=1"]).await.expect("accepted");
        pass(1).await;
        let batches = sent.take();
        assert_eq!(texts(&batches), [vec!["a=1", "b=1"], vec!["c=1"]]);
        assert!(batches.iter().all(|batch| batch.checked == Height(2)), "it has looked at two blocks");
        let hash = tx("a=1").hash();
        let waiting = tokio::task::spawn_local(sequencer.send(AwaitTx { hash, level: Level::Committed }));
        assert_eq!(batch(&sequencer, 3).await.txs.len(), 3, "E23: it is kept");
        commit(&stage, &sequencer, &["a=1", "b=1", "c=1"]).await;
        let outcome = waiting.await.expect("done").expect("alive").expect("its own chain says so");
        assert_eq!(outcome.place.height, Height(3));
        pass(10_000).await;
        assert_eq!(sent.count(), 0, "and gone once a block holds it");
    });
}

#[test]
fn every_new_leader_gets_everything_again_and_a_leader_forwards_nothing() {
    sim_run(1, || async {
        let stage = Stage::new();
        let (sequencer, sent) = follower(&stage, small(), takes);
        led_by(&sequencer, 1, Some(LEADER));
        submit(&sequencer, &["a=1"]).await.expect("accepted");
        submit(&sequencer, &["b=1"]).await.expect("accepted");
        pass(1).await;
        assert_eq!(texts(&sent.take()), [["a=1"], ["b=1"]]);
        led_by(&sequencer, 2, None);
        pass(10_000).await;
        assert_eq!(sent.count(), 0);
        led_by(&sequencer, 2, Some(MemberId(8)));
        pass(1).await;
        assert_eq!(texts(&sent.take()), [["a=1", "b=1"]], "B6: at once, in order");
        let role = Role::Leader;
        sequencer.do_send(LeadershipChanged { term: Term(3), role, leader: Some(MemberId(1)) });
        submit(&sequencer, &["c=1"]).await.expect("accepted");
        pass(10_000).await;
        assert_eq!(sent.count(), 0, "it puts them into blocks itself");
        assert_eq!(batch(&sequencer, 1).await.txs.len(), 3);
    });
}

#[test]
fn a_batch_that_failed_comes_before_later_ones_and_after_a_pause() {
    sim_run(1, || async {
        let stage = Stage::new();
        let mut failures = 3;
        let config = sequencer::Config {
            forward: sequencer::forward::Config { max_txs: 1, ..Default::default() },
            ..small()
        };
        let (sequencer, sent) = follower(&stage, config, move |asked| {
            failures -= 1;
            match failures {
                2 => Err(ForwardError::Full),
                1 => Err(ForwardError::NoLeader("it went away".to_owned())),
                0 => Err(ForwardError::TooOld { checked: Height(0), window: Height(4) }),
                _ => takes(asked),
            }
        });
        led_by(&sequencer, 1, Some(LEADER));
        submit(&sequencer, &["a=1"]).await.expect("accepted");
        pass(1).await;
        submit(&sequencer, &["b=1"]).await.expect("accepted");
        pass(1).await;
        assert_eq!(texts(&sent.take()), [["a=1"]], "not again before the pause is over");
        pass(1_000).await;
        assert_eq!(texts(&sent.take()), [["a=1"], ["a=1"], ["a=1"], ["b=1"]], "B7");
    });
}

#[test]
fn what_the_leaders_engine_refused_is_dropped_here_and_who_waits_hears_why() {
    sim_run(1, || async {
        let stage = Stage::new();
        let mut asks = 0;
        let (sequencer, sent) = follower(&stage, small(), move |asked| {
            asks += 1;
            let refuses = |tx: &Tx| asks > 1 && *tx == super::tx("a=1");
            let receipt = |tx: &Tx| match refuses(tx) {
                true => Receipt::Dropped(tx.hash(), "no money".to_owned()),
                false => Receipt::Queued(tx.hash()),
            };
            Ok(asked.txs.iter().map(receipt).collect())
        });
        led_by(&sequencer, 1, Some(LEADER));
        submit(&sequencer, &["a=1", "b=1"]).await.expect("accepted");
        pass(1).await;
        let hash = tx("a=1").hash();
        let waiting = tokio::task::spawn_local(sequencer.send(AwaitTx { hash, level: Level::Executed }));
        assert_eq!(sent.take().len(), 1);
        pass(3_100).await;
        let heard = waiting.await.expect("answered").expect("alive");
        assert_eq!(heard, Err(AwaitError::Dropped("no money".to_owned())));
        assert_eq!(batch(&sequencer, 1).await.txs, [tx("b=1")]);
        assert_eq!(texts(&sent.take())[0], ["a=1", "b=1"], "it was sent again to learn that");
        let again = start(&stage, small());
        assert_eq!(batch(&again, 1).await.txs, [tx("b=1")], "gone from the disk too");
    });
}

#[test]
fn what_one_leader_refuses_to_queue_is_kept_for_another_and_holds_up_nobody() {
    sim_run(1, || async {
        let stage = Stage::new();
        let (sequencer, sent) = follower(&stage, small(), |asked| {
            if asked.txs.contains(&tx("b=1")) {
                return Err(ForwardError::Refused("too large here".to_owned()));
            }
            takes(asked)
        });
        submit(&sequencer, &["a=1", "b=1", "c=1"]).await.expect("accepted");
        led_by(&sequencer, 1, Some(LEADER));
        pass(100).await;
        assert_eq!(texts(&sent.take()), [vec!["a=1", "b=1", "c=1"], vec!["a=1"], vec!["b=1"], vec!["c=1"]]);
        assert_eq!(batch(&sequencer, 1).await.txs.len(), 3, "P3: accepted is kept");
    });
}

#[test]
fn what_is_forwarded_here_is_durable_when_it_is_answered_and_known_once() {
    sim_run(1, || async {
        let stage = Stage::new();
        let sequencer = start(&stage, small());
        commit(&stage, &sequencer, &["a=1"]).await;
        let receipts =
            forwarded(&sequencer, &["a=1", "b=1", "c=1"], 0).await.expect("the window reaches down");
        assert!(matches!(receipts[0], Receipt::InChain(_, place) if place.height == Height(1)), "B5");
        let hashes = ["b=1", "c=1"].map(|text| tx(text).hash());
        assert_eq!(receipts[1..], hashes.map(Receipt::Queued));
        let again = forwarded(&sequencer, &["c=1", "b=1"], 1).await.expect("known");
        assert_eq!(again, [Receipt::Queued(hashes[1]), Receipt::Queued(hashes[0])]);
        stage.machine.disk.crash(Keep::None);
        let queued = stage.machine.open().queue().load().expect("readable");
        let queued: Vec<Tx> = queued.into_iter().map(|(_, tx)| tx).collect();
        assert_eq!(queued, [tx("b=1"), tx("c=1")], "B6: in the order of their sender, once");
        let full = forwarded(&sequencer, &["d=1", "e=1"], 1).await;
        assert_eq!(full, Err(ForwardError::Full));
        let refused = forwarded(&sequencer, &[&"x".repeat(21)], 1).await;
        assert!(matches!(refused, Err(ForwardError::Refused(why)) if why.contains("21 bytes")));
    });
}

#[test]
fn what_a_member_has_not_looked_for_up_to_the_window_is_not_taken_from_it() {
    sim_run(1, || async {
        let stage = Stage::new();
        stage.grow(6);
        let sequencer = start(&stage, small());
        let too_old = ForwardError::TooOld { checked: Height(1), window: Height(3) };
        assert_eq!(forwarded(&sequencer, &["k1=v"], 1).await, Err(too_old), "P3: it is in block 1");
        assert_eq!(batch(&sequencer, 7).await.txs, []);
        let receipts = forwarded(&sequencer, &["a=1"], 2).await.expect("from block 3 on this node looks");
        assert_eq!(receipts, [Receipt::Queued(tx("a=1").hash())]);
    });
}

#[test]
fn a_refusal_of_the_engine_is_told_to_a_member_once_and_the_next_attempt_is_queued() {
    sim_run(1, || async {
        let stage = Stage::new();
        let sequencer = start(&stage, small());
        let hash = tx("a=1").hash();
        forwarded(&sequencer, &["a=1", "b=1"], 0).await.expect("taken");
        sequencer.send(DropTxs { hashes: vec![hash], reason: "no money".to_owned() }).await.expect("alive");
        let receipts = forwarded(&sequencer, &["a=1", "b=1"], 0).await.expect("taken");
        let queued = Receipt::Queued(tx("b=1").hash());
        assert_eq!(receipts, [Receipt::Dropped(hash, "no money".to_owned()), queued]);
        assert_eq!(batch(&sequencer, 1).await.txs, [tx("b=1")]);
        let receipts = forwarded(&sequencer, &["a=1"], 0).await.expect("taken");
        assert_eq!(receipts, [Receipt::Queued(hash)], "it may have money by now");
    });
}

#[test]
fn what_waits_over_a_gap_is_checked_up_to_the_gap_only_until_its_bodies_are_here() {
    sim_run(1, || async {
        let (stage, whole) = with_a_gap().await;
        let numbers = stage.store.queue().append(vec![tx("k5=v"), tx("a=1")], Height(3)).await;
        assert_eq!(numbers, Ok(vec![0, 1]));
        let (sequencer, sent) = follower(&stage, small(), takes);
        led_by(&sequencer, 1, Some(LEADER));
        pass(1).await;
        assert_eq!(sent.take()[0].checked, Height(3), "P3: block 5 was not looked at yet");
        assert!(!batch(&sequencer, 11).await.current);
        fill(&stage, &whole, 6..=10).await;
        pass(2_000).await;
        assert!(!batch(&sequencer, 11).await.current, "the window's blocks are here, the others are not");
        fill(&stage, &whole, 4..=5).await;
        pass(2_000).await;
        assert_eq!(batch(&sequencer, 11).await, Batch { txs: vec![tx("a=1")], current: true });
        let _ = sent.take();
        led_by(&sequencer, 2, Some(LEADER));
        pass(1).await;
        assert_eq!(texts(&sent.take()), [["a=1"]]);
    });
}

#[test]
fn a_member_with_nothing_queued_needs_the_bodies_of_the_window_only() {
    sim_run(1, || async {
        let (whole, stage) = (Stage::new(), Stage::new());
        whole.grow(10);
        stage.grow(3);
        let (sequencer, sent) = follower(&stage, small(), takes);
        assert!(batch(&sequencer, 4).await.current);
        install(&stage, &whole).await;
        assert!(!batch(&sequencer, 11).await.current);
        fill(&stage, &whole, 7..=10).await;
        pass(2_000).await;
        assert!(batch(&sequencer, 11).await.current);
        let receipts = submit(&sequencer, &["k7=v", "a=1"]).await.expect("accepted");
        assert!(matches!(receipts[0], Receipt::InChain(_, place) if place.height == Height(7)));
        led_by(&sequencer, 1, Some(LEADER));
        pass(1).await;
        assert_eq!(sent.take()[0].checked, Height(10));
    });
}

#[test]
fn a_long_history_is_taken_into_account_in_turns() {
    sim_run(1, || async {
        let stage = Stage::new();
        let sequencer = start(&stage, small());
        submit(&sequencer, &["a=1"]).await.expect("accepted");
        stage.grow(700);
        let tip = stage.tip();
        sequencer.send(Applied { tip }).await.expect("alive");
        assert!(!batch(&sequencer, 701).await.current, "others had their turn meanwhile");
        pass(10).await;
        assert_eq!(batch(&sequencer, 701).await, Batch { txs: vec![tx("a=1")], current: true });
    });
}
