//! The reaper between a pool and a queue.

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
