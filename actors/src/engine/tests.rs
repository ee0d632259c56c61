use std::cell::Cell;

use actix::{Addr, Handler};
use baton_messages::chain::{Data, Header};
use baton_messages::engine::{
    ExecuteBlock, GetExecutionInfo, GetPosition, PendingTxs, Prune, Rollback, SetFinal,
};
use baton_messages::sequencer::SubmitTxs;
use baton_messages::types::Hash;
use bytes::Bytes;
use prometheus_client::registry::Registry;
use tokio::sync::Notify;
use tokio::task::LocalSet;

use super::*;

/// An engine that does what the test says.
#[derive(Clone, Default)]
struct Script(Rc<Play>);

#[derive(Default)]
struct Play {
    /// Each call waits for a permit while this is set.
    hang: Cell<bool>,
    permit: Notify,
    /// What the next calls fail with.
    failures: RefCell<VecDeque<EngineError>>,
    /// Names of the calls, in order.
    calls: RefCell<Vec<&'static str>>,
    busy: Cell<bool>,
    height: Cell<Height>,
}

impl Script {
    async fn enter(&self, call: &'static str) -> Result<(), EngineError> {
        assert!(!self.0.busy.replace(true), "one call at a time");
        self.0.calls.borrow_mut().push(call);
        if self.0.hang.get() {
            self.0.permit.notified().await;
        }
        // Long enough for other requests to come in between.
        tokio::time::sleep(Duration::from_millis(10)).await;
        self.0.busy.set(false);
        self.0.failures.borrow_mut().pop_front().map_or(Ok(()), Err)
    }
}

#[async_trait(?Send)]
impl Execution for Script {
    async fn init_chain(&mut self, _: InitChain) -> Result<StateRoot, EngineError> {
        self.enter("init_chain").await?;
        Ok(StateRoot(Bytes::from_static(b"genesis")))
    }

    async fn pending_txs(&mut self, _: usize) -> Result<Vec<Tx>, EngineError> {
        self.enter("pending_txs").await?;
        Ok(vec![])
    }

    async fn filter_txs(&mut self, _: FilterTxs) -> Result<Vec<FilterStatus>, EngineError> {
        self.enter("filter_txs").await?;
        Ok(vec![FilterStatus::Ok])
    }

    async fn execute_block(&mut self, block: Arc<Block>) -> Result<Executed, EngineError> {
        self.enter("execute_block").await?;
        self.0.height.set(block.height());
        let results = block.txs().iter().map(|tx| TxResult::Applied(tx.0.clone())).collect();
        let root = StateRoot(block.hash().to_bytes());
        Ok(Executed { height: block.height(), hash: block.hash(), root, results: Arc::new(results) })
    }

    async fn set_final(&mut self, _: Height) -> Result<(), EngineError> {
        self.enter("set_final").await
    }

    async fn execution_info(&mut self) -> Result<ExecutionInfo, EngineError> {
        self.enter("execution_info").await?;
        Ok(ExecutionInfo { max_gas: 7 })
    }

    async fn position(&mut self) -> Result<EnginePosition, EngineError> {
        self.enter("position").await?;
        Ok(EnginePosition { height: self.0.height.get(), ..EnginePosition::default() })
    }

    async fn rollback(&mut self, height: Height) -> Result<EnginePosition, EngineError> {
        self.enter("rollback").await?;
        self.0.height.set(height);
        Ok(EnginePosition { height, ..EnginePosition::default() })
    }

    async fn prune(&mut self, _: Height) -> Result<(), EngineError> {
        self.enter("prune").await
    }
}

/// Writes down what the engine says.
#[derive(Clone, Default)]
struct Ears {
    executed: Rc<RefCell<Vec<Executed>>>,
    health: Rc<RefCell<Vec<Option<String>>>>,
}

impl Actor for Ears {
    type Context = Context<Self>;
}

impl Handler<BlockExecuted> for Ears {
    type Result = ();

    fn handle(&mut self, message: BlockExecuted, _: &mut Self::Context) {
        self.executed.borrow_mut().push(message.0);
    }
}

impl Handler<EngineHealthChanged> for Ears {
    type Result = ();

    fn handle(&mut self, message: EngineHealthChanged, _: &mut Self::Context) {
        self.health.borrow_mut().push(message.trouble);
    }
}

struct Stage {
    script: Script,
    ears: Ears,
    engine: Addr<Engine>,
    metrics: Metrics,
}

impl Stage {
    fn new() -> Self {
        let (script, ears, metrics) = (Script::default(), Ears::default(), Metrics::default());
        let heard = ears.clone().start();
        let links = Links { executed: vec![heard.clone().recipient()], health: heard.recipient() };
        let config = Config { call_timeout: Duration::from_secs(1), max_waiting: 4, results_kept: 2 };
        let engine = Engine::new(Box::new(script.clone()), config, links, metrics.clone()).start();
        Self { script, ears, engine, metrics }
    }

    async fn execute(&self, block: &Arc<Block>) -> Result<Executed, EngineError> {
        self.engine.send(ExecuteBlock { block: Arc::clone(block) }).await.unwrap()
    }

    async fn position(&self) -> Result<EnginePosition, EngineError> {
        self.engine.send(GetPosition).await.unwrap()
    }

    fn calls(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.script.0.calls.borrow_mut())
    }

    fn health(&self) -> Vec<Option<String>> {
        self.ears.health.borrow().clone()
    }

    fn heard(&self) -> Vec<Height> {
        self.ears.executed.borrow().iter().map(|executed| executed.height).collect()
    }
}

fn block(height: u64, text: &'static str) -> Arc<Block> {
    let header = Header {
        height: Height(height),
        data_hash: Hash::of(text.as_bytes()).to_bytes(),
        ..Header::default()
    };
    Block::shared(header, Data { metadata: None, txs: vec![Tx(Bytes::from_static(text.as_bytes()))] })
}

fn unavailable<T>(answer: &Result<T, EngineError>) -> bool {
    matches!(answer, Err(EngineError::Unavailable(_)))
}

async fn local(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn calls_run_one_at_a_time_in_the_order_of_asking() {
    local(async {
        let stage = Stage::new();
        let (first, second, third) = (block(1, "a"), block(2, "b"), stage.position());
        let (one, two, position) = tokio::join!(stage.execute(&first), stage.execute(&second), third);
        assert_eq!((one.unwrap().height, two.unwrap().height), (Height(1), Height(2)));
        assert_eq!(position.unwrap().height, Height(2));
        assert_eq!(stage.calls(), ["execute_block", "execute_block", "position"]);
        assert_eq!(stage.heard(), [Height(1), Height(2)]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn executor_and_syncer_get_the_same_answer_to_one_execution() {
    local(async {
        let stage = Stage::new();
        let first = block(1, "a");
        let (one, two) = tokio::join!(stage.execute(&first), stage.execute(&first));
        assert_eq!(one, two);
        assert_eq!(one.unwrap().results[..], [TxResult::Applied(Bytes::from_static(b"a"))]);
        assert_eq!(stage.calls(), ["execute_block"]);
        assert_eq!(stage.heard(), [Height(1)], "told once");
        let other = block(1, "b");
        let refused =
            EngineError::OtherBlock { height: Height(1), executed: first.hash(), asked: other.hash() };
        assert_eq!(stage.execute(&other).await, Err(refused));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn only_the_last_answers_are_kept_and_a_rollback_forgets_them() {
    local(async {
        let stage = Stage::new();
        let blocks = [block(1, "a"), block(2, "b"), block(3, "c")];
        for block in &blocks {
            stage.execute(block).await.unwrap();
        }
        stage.calls();
        stage.execute(&blocks[1]).await.unwrap();
        assert_eq!(stage.calls(), [""; 0], "from memory");
        stage.execute(&blocks[0]).await.unwrap();
        assert_eq!(stage.calls(), ["execute_block"], "the engine decides");
        let back = stage.engine.send(Rollback { height: Height(2) }).await.unwrap().unwrap();
        assert_eq!(back.height, Height(2));
        let other = block(3, "d");
        assert_eq!(stage.execute(&other).await.unwrap().hash, other.hash());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_hanging_call_is_reported_refused_and_recovered_from() {
    local(async {
        let stage = Stage::new();
        stage.script.0.hang.set(true);
        let first = block(1, "a");
        let (executed, waiting) = tokio::join!(stage.execute(&first), stage.position());
        assert!(unavailable(&executed) && unavailable(&waiting), "{executed:?} {waiting:?}");
        let trouble = "the engine has not answered execute_block for 1s".to_owned();
        assert_eq!(stage.health(), [Some(trouble.clone())]);
        assert_eq!(stage.metrics.healthy.get(), 0);

        assert_eq!(stage.position().await, Err(EngineError::Unavailable(trouble)), "at once");
        assert_eq!(stage.calls(), ["execute_block"], "nothing was queued");

        stage.script.0.hang.set(false);
        stage.script.0.permit.notify_one();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(stage.health().last(), Some(&None));
        assert_eq!(stage.heard(), [Height(1)], "the late execution counts");
        assert_eq!(stage.execute(&first).await.unwrap().hash, first.hash());
        assert_eq!(stage.calls(), [""; 0], "and is not repeated");
        assert_eq!(stage.metrics.healthy.get(), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn more_requests_than_the_limit_are_refused() {
    local(async {
        let stage = Stage::new();
        let answers = futures::future::join_all((0..8).map(|_| stage.position())).await;
        let refused = answers.iter().filter(|answer| unavailable(answer)).count();
        assert_eq!(refused, 3, "one runs, four wait");
        assert_eq!(stage.metrics.refused.get(), 3);
        assert_eq!(stage.calls().len(), 5);
        assert_eq!(stage.health(), [], "being busy is not being ill");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_poison_block_is_told_until_it_is_taken_back() {
    local(async {
        let stage = Stage::new();
        let first = block(1, "a");
        let poison =
            EngineError::Poison { height: Height(1), index: Some(0), reason: "divides by zero".into() };
        stage.script.0.failures.borrow_mut().push_back(poison.clone());
        assert_eq!(stage.execute(&first).await, Err(poison.clone()));
        stage.position().await.unwrap();
        assert_eq!(stage.health(), [Some(poison.to_string())], "other calls do not cure it");
        assert_eq!(stage.heard(), []);
        stage.engine.send(Rollback { height: Height(0) }).await.unwrap().unwrap();
        assert_eq!(stage.health().last(), Some(&None));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_away_is_reported_until_it_answers() {
    local(async {
        let stage = Stage::new();
        let away = EngineError::Unavailable("connection refused".into());
        stage.script.0.failures.borrow_mut().extend([away.clone(), away.clone()]);
        assert_eq!(stage.position().await, Err(away.clone()));
        assert_eq!(stage.position().await, Err(away.clone()));
        stage.position().await.unwrap();
        assert_eq!(stage.health(), [Some(away.to_string()), None]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn every_request_reaches_the_engine() {
    local(async {
        let Stage { engine, script, .. } = Stage::new();
        let genesis = InitChain {
            time: baton_messages::types::Timestamp(1),
            initial_height: Height(1),
            chain_id: "chain".into(),
        };
        let root = engine.send(genesis).await.unwrap().unwrap();
        assert_eq!(root, StateRoot(Bytes::from_static(b"genesis")));
        assert_eq!(engine.send(PendingTxs { max_bytes: 1 }).await.unwrap(), Ok(vec![]));
        let filter =
            |count| FilterTxs { txs: vec![Tx(Bytes::from_static(b"a")); count], max_bytes: 10, forced: 0 };
        assert_eq!(engine.send(filter(1)).await.unwrap(), Ok(vec![FilterStatus::Ok]));
        assert!(unavailable(&engine.send(filter(2)).await.unwrap()), "one status for two transactions");
        assert_eq!(engine.send(GetExecutionInfo).await.unwrap(), Ok(ExecutionInfo { max_gas: 7 }));
        assert_eq!(engine.send(SetFinal { height: Height(1) }).await.unwrap(), Ok(()));
        assert_eq!(engine.send(Prune { height: Height(1) }).await.unwrap(), Ok(()));
        let submitted = engine.send(SubmitTxs { txs: vec![] }).await.unwrap();
        assert!(matches!(submitted, Err(SubmitError::NotReady(_))), "it has no pool");
        let calls = ["init_chain", "pending_txs", "filter_txs", "filter_txs", "execution_info", "set_final"];
        assert_eq!(script.0.calls.borrow()[..6], calls);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_receiver_with_a_full_mailbox_still_learns_of_every_block() {
    /// Holds its mailbox shut for a while after each message.
    #[derive(Default)]
    struct Slow(Rc<RefCell<Vec<Height>>>);

    impl Actor for Slow {
        type Context = Context<Self>;

        fn started(&mut self, ctx: &mut Self::Context) {
            ctx.set_mailbox_capacity(1);
        }
    }

    impl Handler<BlockExecuted> for Slow {
        type Result = ();

        fn handle(&mut self, message: BlockExecuted, ctx: &mut Self::Context) {
            self.0.borrow_mut().push(message.0.height);
            ctx.wait(tokio::time::sleep(Duration::from_millis(50)).into_actor(self));
        }
    }

    local(async {
        let heights = Rc::new(RefCell::new(vec![]));
        let slow = Slow(Rc::clone(&heights)).start();
        let health = Ears::default().start().recipient();
        let links = Links { executed: vec![slow.recipient()], health };
        let script = Box::new(Script::default());
        let config = Config { call_timeout: Duration::from_secs(5), ..Config::default() };
        let engine = Engine::new(script, config, links, Metrics::default()).start();
        for height in 1..=12 {
            engine.send(ExecuteBlock { block: block(height, "a") }).await.unwrap().unwrap();
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let mut heights = heights.borrow().clone();
        heights.sort_unstable();
        assert_eq!(heights, (1..=12).map(Height).collect::<Vec<_>>());
    })
    .await;
}

#[test]
fn every_metric_is_registered_once_under_the_engine() {
    let mut registry = Registry::default();
    Metrics::default().register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(text.contains("engine_execute_seconds_bucket"), "{text}");
    assert!(text.contains("engine_healthy 1"), "{text}");
    let helps: Vec<&str> = text.lines().filter(|line| line.starts_with("# HELP")).collect();
    assert_eq!(helps.len(), 9);
    assert!(helps.iter().all(|help| help.starts_with("# HELP engine_")));
}
