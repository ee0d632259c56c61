use std::cell::RefCell;
use std::rc::Rc;

use actix::{Actor, Context, Handler, ResponseFuture};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use baton_actors::engine::Execution;
use baton_actors::engine::kv::{self, Kv};
use baton_messages::chain::{Block, Data, Header};
use baton_messages::cluster::ClusterView;
use baton_messages::engine::{InitChain, TxResult};
use baton_messages::sequencer::Outcome;
use baton_messages::types::{MemberId, Place, Term, Timestamp};
use baton_storage::memory::Disk;
use serde_json::{Value, json};
use tokio::task::LocalSet;
use tower::ServiceExt;

use super::*;

type Submitted = Result<Posted, SubmitError>;
type Awaited = Result<Outcome, AwaitError>;
/// The height that accepted transactions are in no block up to.
const SINCE: Height = Height(5);

type Script<M, T> = Box<dyn Fn(&M) -> Option<T>>;

/// Answers for the sequencer, and writes down what it was handed. `None` is no answer ever.
struct Sequencer {
    submit: Script<PostTxs, Submitted>,
    await_tx: Script<AwaitTx, Awaited>,
    handed: Rc<RefCell<Vec<Vec<u8>>>>,
    since: Rc<RefCell<Vec<Option<Height>>>>,
    leader: Rc<RefCell<Option<LeaderHint>>>,
}

impl Actor for Sequencer {
    type Context = Context<Self>;
}

fn reply<T: 'static>(answer: Option<T>) -> ResponseFuture<T> {
    Box::pin(async move {
        match answer {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    })
}

impl Handler<PostTxs> for Sequencer {
    type Result = ResponseFuture<Submitted>;

    fn handle(&mut self, message: PostTxs, _: &mut Self::Context) -> Self::Result {
        self.since.borrow_mut().push(message.since);
        let answer = (self.submit)(&message);
        if let Some(Ok(_)) = answer {
            self.handed.borrow_mut().extend(message.txs.iter().map(|tx| tx.0.to_vec()));
        }
        reply(answer)
    }
}

impl Handler<GetCluster> for Sequencer {
    type Result = ResponseFuture<ClusterView>;

    fn handle(&mut self, _: GetCluster, _: &mut Self::Context) -> Self::Result {
        let leader = self.leader.borrow().clone();
        reply(Some(ClusterView { leader, ..ClusterView::default() }))
    }
}

impl Handler<AwaitTx> for Sequencer {
    type Result = ResponseFuture<Awaited>;

    fn handle(&mut self, message: AwaitTx, _: &mut Self::Context) -> Self::Result {
        reply((self.await_tx)(&message))
    }
}

/// The API over a sequencer that says what the test wants and a state of one block.
struct Stage {
    router: Router,
    handed: Rc<RefCell<Vec<Vec<u8>>>>,
    since: Rc<RefCell<Vec<Option<Height>>>>,
    leader: Rc<RefCell<Option<LeaderHint>>>,
}

fn place() -> Place {
    Place { height: Height(7), index: 3, header_hash: Hash::of(b"header") }
}

fn queued(message: &PostTxs) -> Option<Submitted> {
    let receipts = message.txs.iter().map(|tx| Receipt::Queued(tx.hash())).collect();
    Some(Ok(Posted { receipts, since: SINCE }))
}

fn applied(_: &AwaitTx) -> Option<Awaited> {
    Some(Ok(Outcome { place: place(), result: Some(TxResult::Applied(Bytes::from_static(b"ok"))) }))
}

async fn view(txs: &[&'static [u8]]) -> View {
    let mut kv = Kv::open(Arc::new(Disk::new().attach()), kv::Config::default()).unwrap();
    let genesis = InitChain { time: Timestamp(1), initial_height: Height(1), chain_id: "kv".into() };
    kv.init_chain(genesis).await.unwrap();
    let txs = txs.iter().map(|tx| Tx(Bytes::from_static(tx))).collect();
    let header = Header { height: Height(1), ..Header::default() };
    kv.execute_block(Block::shared(header, Data { metadata: None, txs })).await.unwrap();
    kv.view()
}

impl Stage {
    async fn new(
        submit: impl Fn(&PostTxs) -> Option<Submitted> + 'static,
        await_tx: impl Fn(&AwaitTx) -> Option<Awaited> + 'static,
    ) -> Self {
        Self::taking(2, submit, await_tx).await
    }

    async fn taking(
        max_requests: usize,
        submit: impl Fn(&PostTxs) -> Option<Submitted> + 'static,
        await_tx: impl Fn(&AwaitTx) -> Option<Awaited> + 'static,
    ) -> Self {
        let (handed, since, leader) = (Rc::default(), Rc::default(), Rc::default());
        let sequencer = Sequencer {
            submit: Box::new(submit),
            await_tx: Box::new(await_tx),
            handed: Rc::clone(&handed),
            since: Rc::clone(&since),
            leader: Rc::clone(&leader),
        };
        let sequencer = sequencer.start();
        let api = KvHttp {
            post: sequencer.clone().recipient(),
            await_tx: sequencer.clone().recipient(),
            pooled: None,
            cluster: Some(sequencer.recipient()),
            view: view(&[b"b=<2>", b"a=1", b"empty=", b"a b/c=slash", b"\xff=\xfe", b"invalid"]).await,
            config: Config {
                max_tx_bytes: 16,
                max_batch_bytes: 32,
                max_entries: 4,
                max_requests,
                ..Config::default()
            },
            metrics: Metrics::default(),
        };
        Self { router: api.router(), handed, since, leader }
    }

    async fn usual() -> Self {
        Self::new(queued, applied).await
    }

    async fn send(&self, method: &str, uri: &str, body: impl Into<Body>) -> (u16, HeaderMap, Bytes) {
        let request = Request::builder().method(method).uri(uri).body(body.into()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        (parts.status.as_u16(), parts.headers, axum::body::to_bytes(body, 1 << 20).await.unwrap())
    }

    async fn text(&self, method: &str, uri: &str, body: &'static str) -> (u16, String) {
        let (status, headers, body) = self.send(method, uri, body).await;
        assert_eq!(headers[CONTENT_TYPE], "text/plain; charset=utf-8");
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn json(&self, method: &str, uri: &str, body: &'static str) -> (u16, Value) {
        let (status, headers, body) = self.send(method, uri, body).await;
        assert_eq!(headers[CONTENT_TYPE], "application/json");
        assert!(body.ends_with(b"\n"));
        (status, serde_json::from_slice(&body).unwrap())
    }
}

async fn local(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}

fn hash(text: &str) -> String {
    Hash::of(text.as_bytes()).to_string()
}

#[tokio::test(start_paused = true)]
async fn posting_answers_as_testapp_does() {
    local(async {
        let stage = Stage::usual().await;
        let answer = |status, text: &str| (status, text.to_owned());
        assert_eq!(stage.text("POST", "/tx", "s=v").await, answer(202, "Transaction accepted"));
        assert_eq!(stage.text("POST", "/tx", "").await, answer(400, "Empty transaction\n"));
        for method in ["GET", "PUT", "DELETE"] {
            assert_eq!(stage.text(method, "/tx", "s=v").await, answer(405, "Method not allowed\n"));
        }
        assert_eq!(stage.text("GET", "/tx/batch", "").await, answer(405, "Method not allowed\n"));
        assert_eq!(stage.text("POST", "/tx/batch", "").await, answer(400, "Empty body"));
        assert_eq!(stage.text("GET", "/other", "").await, answer(404, "404 page not found\n"));
        assert_eq!(*stage.handed.borrow(), [b"s=v"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_one_transaction_per_line() {
    local(async {
        let stage = Stage::usual().await;
        let (status, answer) = stage.json("POST", "/tx/batch", "a=1\n\nb=2\r\nc=3").await;
        assert_eq!((status, answer), (200, json!({ "accepted": 3, "since": 5 })));
        assert_eq!(*stage.handed.borrow(), [b"a=1", b"b=2", b"c=3"]);
        assert_eq!(stage.json("POST", "/tx/batch", "\n\n").await.1, json!({ "accepted": 0 }));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn binary_transactions_pass_as_they_are() {
    local(async {
        let stage = Stage::usual().await;
        let (status, _, _) = stage.send("POST", "/tx", &b"\x00\xff\n=\xfe"[..]).await;
        assert_eq!(status, 202);
        assert_eq!(*stage.handed.borrow(), [b"\x00\xff\n=\xfe"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn values_are_read_as_testapp_reads_them() {
    local(async {
        let stage = Stage::usual().await;
        let answer = |status, text: &str| (status, text.to_owned());
        assert_eq!(stage.text("GET", "/kv?key=a", "").await, answer(200, "1"));
        assert_eq!(stage.text("GET", "/kv?x=1&key=a+b%2Fc&key=a", "").await, answer(200, "slash"));
        assert_eq!(stage.text("GET", "/kv?key=empty", "").await, answer(200, ""));
        assert_eq!(stage.text("GET", "/kv?key=none", "").await, answer(404, "Key not found\n"));
        assert_eq!(stage.text("GET", "/kv?key=", "").await, answer(400, "Missing key parameter\n"));
        assert_eq!(stage.text("GET", "/kv", "").await, answer(400, "Missing key parameter\n"));
        assert_eq!(stage.text("POST", "/kv?key=a", "").await, answer(405, "Method not allowed\n"));
        let (status, headers, body) = stage.send("GET", "/kv?key=%FF", "").await;
        assert_eq!((status, &body[..]), (200, &b"\xfe"[..]));
        assert_eq!(headers[CONTENT_TYPE], "application/octet-stream");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_store_is_listed_up_to_a_limit_and_says_so() {
    local(async {
        let stage = Stage::usual().await;
        let (status, headers, body) = stage.send("GET", "/store", "").await;
        let listed: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(status, 200);
        assert_eq!(listed, json!({ "a": "1", "a b/c": "slash", "b": "<2>", "empty": "" }));
        assert_eq!(headers["baton-truncated"], "true");
        assert_eq!(stage.text("POST", "/store", "").await, (405, "Method not allowed\n".into()));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_counters_have_testapps_names() {
    local(async {
        let stage = Stage::usual().await;
        stage.text("POST", "/tx", "s=v").await;
        stage.json("POST", "/tx/batch", "a=1\nb=2").await;
        let (status, stats) = stage.json("GET", "/stats", "").await;
        let expected = json!({ "injected_txs": 3, "executed_txs": 5, "blocks_produced": 1 });
        assert_eq!((status, stats), (200, expected));
        assert_eq!(stage.text("POST", "/stats", "").await.0, 405);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn waiting_answers_how_far_the_transaction_came() {
    local(async {
        let stage = Stage::usual().await;
        let (status, accepted) = stage.json("POST", "/tx?wait=accepted", "s=v").await;
        assert_eq!((status, accepted), (202, json!({ "status": "accepted", "hash": hash("s=v"), "since": 5 })));

        let mut expected = json!({
            "status": "committed", "hash": hash("s=v"), "height": 7, "index": 3, "header_hash": hash("header"),
        });
        let (status, committed) = stage.json("POST", "/tx?wait=committed&timeout=5s", "s=v").await;
        assert_eq!((status, &committed), (200, &expected));

        expected["status"] = json!("executed");
        expected["result"] = json!({ "applied": hex::encode("ok") });
        let (status, executed) = stage.json("POST", "/tx?wait=executed", "s=v").await;
        assert_eq!((status, executed), (200, expected));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_skipped_transaction_says_why_and_a_forgotten_result_is_left_out() {
    local(async {
        let skipped = TxResult::Skipped("not key=value".into());
        let outcome = Outcome { place: place(), result: Some(skipped) };
        let stage = Stage::new(queued, move |_| Some(Ok(outcome.clone()))).await;
        let (status, executed) = stage.json("POST", "/tx?wait=executed", "hello").await;
        assert_eq!((status, &executed["result"]), (200, &json!({ "skipped": "not key=value" })));

        let stage = Stage::new(queued, |_| Some(Ok(Outcome { place: place(), result: None }))).await;
        let (_, executed) = stage.json("POST", "/tx?wait=executed", "hello").await;
        assert_eq!((&executed["status"], executed.get("result")), (&json!("executed"), None));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_is_answered_with_the_place_of_the_first() {
    local(async {
        let known = |message: &PostTxs| {
            let receipts = vec![Receipt::InChain(message.txs[0].hash(), place())];
            Some(Ok(Posted { receipts, since: SINCE }))
        };
        let stage = Stage::new(known, |_| None).await;
        for wait in ["accepted", "committed"] {
            let (status, answer) = stage.json("POST", &format!("/tx?wait={wait}"), "s=v").await;
            assert_eq!((status, &answer["status"], &answer["height"]), (200, &json!("committed"), &json!(7)));
        }
        assert_eq!(stage.text("POST", "/tx", "s=v").await.0, 202);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn each_refusal_has_its_status_and_says_why() {
    local(async {
        let cases = [
            (SubmitError::QueueFull { txs: 5, bytes: 50 }, 429, "full"),
            (SubmitError::NotReady("no leader".into()), 503, "not_ready"),
            (SubmitError::TooLarge { bytes: 12, limit: 10 }, 413, "too_large"),
        ];
        for (error, status, word) in cases {
            let reason = error.to_string();
            let stage = Stage::new(move |_| Some(Err(error.clone())), |_| None).await;
            for (uri, body) in [("/tx", "s=v"), ("/tx?wait=executed", "s=v"), ("/tx/batch", "s=v\ns=w")] {
                let answer = stage.json("POST", uri, body).await;
                assert_eq!(answer, (status, json!({ "status": word, "reason": reason })), "{uri}");
            }
            let (_, stats) = stage.json("GET", "/stats", "").await;
            assert_eq!(stats["injected_txs"], 0);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_body_over_the_limit_is_refused_and_not_cut_off() {
    local(async {
        let stage = Stage::usual().await;
        assert_eq!(stage.text("POST", "/tx", "a=12345678901234").await.0, 202);
        let (status, answer) = stage.json("POST", "/tx", "a=123456789012345").await;
        assert_eq!((status, &answer["status"]), (413, &json!("too_large")));
        let (status, _) = stage.json("POST", "/tx/batch", "a=123456789012345\nb=123456789012345").await;
        assert_eq!(status, 413);
        assert_eq!(stage.handed.borrow().len(), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_or_breaks_is_given_up() {
    local(async {
        let stage = Stage::usual().await;
        let endless = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        assert_eq!(stage.send("POST", "/tx", endless).await.0, 408);
        let broken =
            futures::stream::iter([Ok(Bytes::from_static(b"a=")), Err(std::io::Error::other("gone"))]);
        let (status, _, body) = stage.send("POST", "/tx", Body::from_stream(broken)).await;
        assert_eq!((status, &body[..]), (400, &b"Failed to read request body\n"[..]));
        assert_eq!(stage.handed.borrow().len(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_runs_out_says_that_the_transaction_stays_queued() {
    local(async {
        let stage = Stage::new(queued, |_| None).await;
        let (status, answer) = stage.json("POST", "/tx?wait=committed&timeout=5s", "s=v").await;
        let reason = "not committed within 5s; the transaction stays queued";
        assert_eq!(status, 504);
        let expected = json!({ "status": "accepted", "hash": hash("s=v"), "since": 5, "reason": reason });
        assert_eq!(answer, expected);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_answer_leaves_the_outcome_open() {
    local(async {
        let stage = Stage::new(|_| None, |_| None).await;
        let (status, answer) = stage.json("POST", "/tx", "s=v").await;
        assert_eq!((status, &answer["status"]), (504, &json!("unknown")));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_waited_for_says_why() {
    local(async {
        let cases = [
            (AwaitError::Dropped("too big".into()), 422, "dropped"),
            (AwaitError::Unknown, 404, "unknown"),
            (AwaitError::TooMany(9), 429, "accepted"),
        ];
        for (error, status, word) in cases {
            let stage = Stage::new(queued, move |_| Some(Err(error.clone()))).await;
            let (code, answer) = stage.json("POST", "/tx?wait=executed", "s=v").await;
            assert_eq!((code, &answer["status"]), (status, &json!(word)));
            assert!(answer["reason"].is_string());
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_repetition_names_the_height_of_the_first_answer() {
    local(async {
        let stage = Stage::usual().await;
        let (_, headers, _) = stage.send("POST", "/tx", "s=v").await;
        assert_eq!(headers["baton-since"], "5");
        stage.text("POST", "/tx?since=5", "s=v").await;
        stage.json("POST", "/tx/batch?since=4", "s=v\ns=w").await;
        assert_eq!(*stage.since.borrow(), [None, Some(Height(5)), Some(Height(4))]);
        for uri in ["/tx?since=-1", "/tx?since=now", "/tx/batch?since="] {
            let (status, answer) = stage.json("POST", uri, "s=v").await;
            assert_eq!((status, &answer["status"]), (400, &json!("invalid")), "{uri}");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_repetition_from_before_the_window_is_a_conflict_that_says_where_to_look() {
    local(async {
        let too_old = |_: &PostTxs| Some(Err(SubmitError::TooOld { since: Height(3), window: Height(9) }));
        let stage = Stage::new(too_old, |_| None).await;
        for uri in ["/tx?since=3", "/tx?wait=committed&since=3", "/tx/batch?since=3"] {
            let (status, answer) = stage.json("POST", uri, "s=v").await;
            assert_eq!((status, &answer["status"]), (409, &json!("too_old")), "{uri}");
            let reason = answer["reason"].as_str().unwrap();
            assert!(reason.contains("blocks from 4 to 8"), "{reason}");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn every_answer_that_is_not_final_says_who_leads() {
    local(async {
        let leader = LeaderHint {
            id: MemberId(0xab),
            name: "node2".into(),
            address: "10.0.0.2:5001".into(),
            rpc: "10.0.0.2:7331".into(),
            intake: "10.0.0.2:9090".into(),
            term: Term(7),
        };
        let expected = json!({
            "id": "00000000000000ab", "name": "node2", "address": "10.0.0.2:5001",
            "rpc": "10.0.0.2:7331", "intake": "10.0.0.2:9090", "term": 7,
        });
        let not_ready = |_: &PostTxs| Some(Err(SubmitError::NotReady("the disk is full".into())));
        let stages = [
            (Stage::new(not_ready, |_| None).await, "/tx", 503),
            (Stage::new(not_ready, |_| None).await, "/tx/batch", 503),
            (Stage::new(queued, |_| None).await, "/tx?wait=committed&timeout=1s", 504),
            (Stage::new(|_| None, |_| None).await, "/tx", 504),
        ];
        for (stage, uri, status) in stages {
            *stage.leader.borrow_mut() = Some(leader.clone());
            let (code, headers, body) = stage.send("POST", uri, "s=v").await;
            let answer: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!((code, &answer["leader"]), (status, &expected), "{uri}");
            assert_eq!(
                (&headers["baton-leader"], &headers["baton-term"]),
                (&"node2".parse().unwrap(), &"7".parse().unwrap())
            );
            *stage.leader.borrow_mut() = None;
            let (_, headers, body) = stage.send("POST", uri, "s=v").await;
            let answer: Value = serde_json::from_slice(&body).unwrap();
            assert!(answer.get("leader").is_none() && !headers.contains_key("baton-leader"), "{uri}");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nonsense_in_the_query_is_refused_before_anything_is_accepted() {
    local(async {
        let stage = Stage::usual().await;
        for query in ["wait=now", "wait=", "wait=committed&timeout=soon", "timeout=0s", "timeout=2m"] {
            let (status, answer) = stage.json("POST", &format!("/tx?{query}"), "s=v").await;
            assert_eq!((status, &answer["status"]), (400, &json!("invalid")), "{query}");
        }
        assert_eq!(stage.handed.borrow().len(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn more_requests_than_the_limit_are_refused() {
    local(async {
        let stage = Stage::new(queued, |_| None).await;
        let wait = || stage.json("POST", "/tx?wait=committed&timeout=5s", "s=v");
        let answers = futures::future::join_all([wait(), wait(), wait()]).await;
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.0).collect();
        assert_eq!(statuses, [504, 504, 429]);
        assert_eq!(answers[2].1["reason"], "too many requests at a time");
        assert_eq!(stage.text("POST", "/tx", "s=v").await.0, 202, "there is room again");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn listings_without_end_leave_room_for_transactions() {
    local(async {
        let stage = Stage::taking(20, queued, applied).await;
        let listings = (0..19).map(|_| stage.send("GET", "/store", ""));
        let listings = futures::future::join_all(listings);
        let (listed, posted) = futures::join!(listings, stage.send("POST", "/tx", "s=v"));
        let refused = listed.iter().filter(|(status, ..)| *status == 429).count();
        assert_eq!((refused, listed.len() - refused), (9, 10), "two at a time, and eight wait");
        assert_eq!(posted.0, 202);
    })
    .await;
}
