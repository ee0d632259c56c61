//! The DA submitter above a chain and a DA layer that is a list.

use baton_actors::da_submitter::batching::{Batching, Strategy};
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
    batching: Batching,
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
        Self { stage, links, executed, on_da, asked, state, batching: Batching::default() }
    }

    fn start(&self) -> Child {
        let config = da_submitter::Config {
            header_namespace: headers(),
            data_namespace: Namespace::of("data"),
            signer: self.stage.signer(),
            batching: self.batching,
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
        child::spawn("da submitter", |_| DaSubmitter::new(config, links, metrics, world(), reader, GRANT)).1
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

    /// More blocks, signed and executed.
    fn grow(&self, blocks: u64) {
        let tip = self.stage.reader().tip().height.0;
        self.stage.grow(blocks);
        (tip + 1..=tip + blocks).for_each(|height| self.stage.sign(height));
        self.executed.set(tip + blocks);
    }

    /// When headers were posted, in milliseconds, and how many at a time.
    fn posted(&self) -> Vec<(u128, String)> {
        let asked = self.asked.borrow();
        let posts = asked.iter().filter(|(_, what)| what != "look");
        posts.map(|(at, what)| (at.as_millis(), what.clone())).collect()
    }

    /// All that is on DA, in the order of its bytes.
    fn bytes_on_da(&self) -> Vec<Bytes> {
        let mut all: Vec<Bytes> =
            self.on_da.borrow().iter().flatten().map(|blob| blob.data.clone()).collect();
        all.sort();
        all
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

#[test]
fn a_batch_waits_for_its_delay_and_goes_out_whole() {
    sim_run(1, || async {
        let mut rig = Rig::new(5, 5, 5);
        rig.batching =
            Batching { strategy: Strategy::Time, max_delay: Duration::from_secs(3), ..Batching::default() };
        let _submitter = rig.start();
        pass(1_000).await;
        assert_eq!(rig.posted(), [(0, "5".to_owned())], "a new leader waits for nothing");
        // More than one submission holds.
        rig.grow(20);
        pass(1_500).await;
        assert_eq!(rig.posted().len(), 1, "the delay is not over");
        pass(1_000).await;
        let posted = rig.posted();
        assert_eq!(posted.len(), 3, "{posted:?}");
        assert!((3_000..3_200).contains(&posted[1].0), "{posted:?}");
        assert_eq!([&*posted[1].1, &*posted[2].1], ["16", "4"], "a limit of one submission is no delay");
        assert_eq!(rig.stage.reader().da_progress().included, Height(25));
    });
}

#[test]
fn a_small_batch_goes_out_before_production_pauses_for_it() {
    sim_run(1, || async {
        let mut rig = Rig::new(5, 5, 5);
        rig.batching = Batching {
            strategy: Strategy::Size,
            enough_bytes: 1 << 30,
            most_waiting: 8,
            ..Batching::default()
        };
        let _submitter = rig.start();
        pass(60_000).await;
        assert_eq!(rig.header_blobs(), 0, "not enough bytes, however long it takes");
        rig.grow(3);
        pass(200).await;
        assert_eq!(rig.header_blobs(), 8, "D12: half of what may wait goes out");
        assert_eq!(rig.stage.reader().da_progress().included, Height(8), "both lanes");
    });
}

#[test]
fn the_last_blocks_before_a_pause_go_out_whatever_the_strategy_says() {
    sim_run(1, || async {
        for strategy in [Strategy::Size, Strategy::Time, Strategy::Adaptive] {
            let mut rig = Rig::new(5, 5, 5);
            let max_delay = Duration::from_secs(3_600);
            rig.batching =
                Batching { strategy, enough_bytes: 1 << 30, max_delay, min_items: 6, ..Batching::default() };
            let _submitter = rig.start();
            pass(5_000).await;
            assert_eq!(rig.header_blobs(), 0, "{strategy:?}");
            rig.stage.apply(Command::Pause(Some("a look".to_owned())));
            pass(5_000).await;
            assert_eq!(rig.stage.reader().da_progress().included, Height(5), "P7: {strategy:?}");
        }
    });
}

#[test]
fn the_bytes_on_da_do_not_depend_on_who_posts_how() {
    sim_run(1, || async {
        let post = |batching: Batching| async move {
            let mut rig = Rig::new(40, 40, 40);
            rig.batching = batching;
            let _submitter = rig.start();
            pass(20_000).await;
            assert_eq!(rig.stage.reader().da_progress().included, Height(40), "{batching:?}");
            (rig.bytes_on_da(), rig.on_da.borrow().len())
        };
        let (expected, _) = post(Batching::default()).await;
        for strategy in [Strategy::Size, Strategy::Time, Strategy::Adaptive] {
            let batching =
                Batching { strategy, enough_bytes: 2_000, most_waiting: 40, ..Batching::default() };
            assert_eq!(post(batching).await.0, expected, "P7: {strategy:?}");
        }
    });
}
