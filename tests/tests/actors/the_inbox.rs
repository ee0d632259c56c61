//! The inbox among probes: what it shows, and what it never passes over.

use baton_actors::inbox::{self, Inbox};
use baton_messages::command::{BlockEntry, ForcedPosition};
use baton_messages::da::{Blob, DaError, DaHead, GetBlobs, GetDaHead, Namespace};
use baton_messages::forced::{Forced, NextForced};

use super::*;

/// The DA layer by script: how far it is, what lies where, and which heights cannot be read.
#[derive(Clone, Default)]
struct Layer {
    head: Rc<Cell<u64>>,
    away: Rc<Cell<bool>>,
    unreadable: Rc<Cell<u64>>,
    blobs: Rc<RefCell<Vec<(u64, &'static str)>>>,
}

struct Rig {
    stage: Stage,
    layer: Layer,
    inbox: Addr<Inbox>,
    read: Probe<GetBlobs>,
    metrics: inbox::Metrics,
}

const NAMESPACE: &str = "forced";

impl Rig {
    /// An inbox on a chain with epochs of 50 DA heights, from one on.
    fn start(layer: Layer) -> Self {
        let stage = Stage::new();
        let from = layer.clone();
        let (get, read) = probe(move |asked: &GetBlobs| {
            let height = asked.height.0;
            if from.away.get() || from.unreadable.get() == height {
                return Err(DaError::Unavailable("scripted".to_owned()));
            }
            if height > from.head.get() {
                return Err(DaError::FromTheFuture(height.to_string()));
            }
            let namespace = Namespace::of(NAMESPACE);
            let all = from.blobs.borrow();
            let here = all.iter().filter(|(at, _)| *at == height);
            Ok(here.map(|(_, text)| Blob { namespace, data: tx(text).0 }).collect())
        });
        let from = layer.clone();
        let (head, _) = probe(move |_: &GetDaHead| match from.away.get() {
            true => Err(DaError::Unavailable("scripted".to_owned())),
            false => Ok(DaHead { height: DaHeight(from.head.get()), time: Timestamp(0) }),
        });
        let config = inbox::Config {
            namespace: Namespace::of(NAMESPACE),
            max_tx_bytes: 100,
            max_bytes: 1_000,
            max_txs: 100,
            da_block_time: Duration::from_secs(1),
            reply_within: REPLY,
        };
        let metrics = inbox::Metrics::default();
        let links = inbox::Links { get, head };
        let inbox = Inbox::new(config, links, metrics.clone(), stage.reader()).start();
        Self { stage, layer, inbox, read, metrics }
    }

    async fn next(&self) -> Forced {
        self.inbox.send(NextForced { max_bytes: 1_000 }).await.expect("the inbox answers")
    }

    /// A block that takes everything up to a position.
    fn take(&self, forced: ForcedPosition) {
        let block = self.stage.next_block(&root_of(self.stage.tip().height), &[]);
        let entry = BlockEntry { term: GRANT.term, block, tail: None, forced };
        self.stage.apply(Command::Block(entry));
    }
}

fn texts(forced: &Forced) -> Vec<String> {
    forced.txs.iter().map(|forced| String::from_utf8_lossy(&forced.tx.0).into_owned()).collect()
}

#[test]
fn it_shows_an_epoch_that_is_over_and_shows_it_again_until_the_log_says_that_it_was_taken() {
    sim_run(1, || async {
        let layer = Layer::default();
        layer.head.set(49);
        layer.blobs.borrow_mut().extend([(3, "a=1"), (3, "b=1"), (50, "c=1"), (51, "d=1")]);
        let rig = Rig::start(layer);
        pass(5_000).await;
        let early = rig.next().await;
        assert_eq!((texts(&early), early.behind), (vec![], None), "the epoch goes on");
        rig.layer.head.set(60);
        pass(5_000).await;
        for _ in 0..3 {
            let shown = rig.next().await;
            assert_eq!(
                (texts(&shown), &shown.behind),
                (vec!["a=1".into(), "b=1".into(), "c=1".into()], &None)
            );
            assert_eq!(shown.end, ForcedPosition { da_height: DaHeight(51), tx_index: 0 });
        }
        rig.take(rig.next().await.after(2));
        assert_eq!(texts(&rig.next().await), ["c=1"]);
        rig.take(rig.next().await.end);
        assert_eq!(texts(&rig.next().await), [""; 0]);
        let heights: Vec<u64> = rig.read.take().iter().map(|asked| asked.height.0).collect();
        assert_eq!(heights, (1..=60).collect::<Vec<_>>(), "each DA height is read once");
        assert_eq!(rig.metrics.position.get(), 51);
    });
}

#[test]
fn a_da_height_that_cannot_be_read_is_not_passed_over_and_is_due_in_half_an_epoch() {
    sim_run(2, || async {
        let layer = Layer::default();
        layer.head.set(55);
        layer.unreadable.set(7);
        layer.blobs.borrow_mut().extend([(6, "a=1"), (7, "b=1"), (8, "c=1")]);
        let rig = Rig::start(layer);
        pass(5_000).await;
        let shown = rig.next().await;
        assert_eq!(
            (texts(&shown), &shown.behind),
            (vec!["a=1".into()], &None),
            "what comes before it is shown"
        );
        assert!(shown.end.da_height <= DaHeight(7));
        rig.layer.head.set(80);
        // The head is not asked for while there is something to read: it is estimated.
        pass(25_000).await;
        let late = rig.next().await;
        assert!(late.behind.as_deref().is_some_and(|why| why.contains("scripted")), "{late:?}");
        assert_eq!(texts(&late), ["a=1"]);
        assert_eq!(rig.metrics.behind.get(), 1);
        rig.layer.unreadable.set(0);
        pass(5_000).await;
        let healed = rig.next().await;
        assert_eq!((texts(&healed), healed.behind), (vec!["a=1".into(), "b=1".into(), "c=1".into()], None));
    });
}

#[test]
fn while_the_da_layer_does_not_answer_its_height_is_estimated() {
    sim_run(3, || async {
        let layer = Layer::default();
        layer.head.set(45);
        let rig = Rig::start(layer);
        pass(2_000).await;
        rig.layer.away.set(true);
        pass(25_000).await;
        assert_eq!(rig.next().await.behind, None, "about 70: the epoch to 50 is over, and not due yet");
        pass(8_000).await;
        assert!(rig.next().await.behind.is_some(), "about 78");
        rig.layer.away.set(false);
        pass(3_000).await;
        assert_eq!(rig.next().await.behind, None, "it is at 45 still");
    });
}

#[test]
fn before_the_da_layer_has_answered_nothing_is_known_to_be_taken() {
    sim_run(4, || async {
        let layer = Layer::default();
        layer.away.set(true);
        let rig = Rig::start(layer);
        pass(3_000).await;
        assert!(rig.next().await.behind.is_some());
    });
}
