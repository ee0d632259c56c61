//! Each actor of a node, swapped for another before it starts. `docs/simulation.md` shows these.

use std::time::Duration;

use actix::{Actor, Context};
use baton::wiring::{DaPorts, EnginePorts, RaftPorts, SequencerPorts, SignerPorts, Wiring, producer};
use baton_actors::signer::audit::Event;
use baton_messages::cluster::{ForwardError, ForwardedTxs};
use baton_messages::da::{DaError, DaHead, GetBlobs, GetDaHead, SubmitBlobs};
use baton_messages::engine::{
    EngineError, EnginePosition, ExecuteBlock, Executed, FilterStatus, FilterTxs, GetPosition, InitChain,
    PendingTxs, Rollback, SetFinal,
};
use baton_messages::raft::{GetRaftView, ProposeBlock, ProposeError, RaftView, Record, Settle};
use baton_messages::sequencer::{
    AwaitError, AwaitTx, AwaitTxs, Batch, DropTxs, GetQueueView, Level, NextBatch, PostTxs, QueueView,
    SubmitError, SubmitTxs,
};
use baton_messages::signer::{
    CheckGuard, GetSignerView, NoteSigned, SignData, SignEnvelope, SignError, SignHeader, SignerView,
};
use baton_messages::types::{Height, StateRoot, Term};
use bytes::Bytes;
use sim::{Machine, Node, Plan, Power, check_chain, probe, sim_run, tx};

/// A producer that does nothing.
struct Idle;

impl Actor for Idle {
    type Context = Context<Self>;
}

fn node(machine: &Machine, adjust: impl Fn(&mut Wiring) + 'static) -> Node {
    Node::start(&Plan { adjust: Some(Box::new(adjust)), ..Plan::on(machine.clone(), Power::default()) })
}

async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[test]
fn the_executor() {
    sim_run(1, || async {
        let machine = Machine::new(1);
        let node = node(&machine, |wiring| wiring.executor = Some(producer("idle", |_| Idle)));
        node.submit("a=1").await.expect("accepted without anybody to produce");
        seconds(10).await;
        assert_eq!(node.tip().height, Height(0));
        assert!(node.supervisor().await.grant.is_some(), "it leads all the same");
    });
}

#[test]
fn the_reaper() {
    sim_run(1, || async {
        let machine = Machine::new(1);
        let node = node(&machine, |wiring| wiring.reaper = Some(producer("idle", |_| Idle)));
        node.submit_and_wait("a=1", Level::Executed).await.expect("the sequencer has its own intake");
        node.drain().await;
        check_chain(&machine);
    });
}

#[test]
fn the_da_submitter() {
    sim_run(1, || async {
        let machine = Machine::new(1);
        let node = node(&machine, |wiring| wiring.da_submitter = Some(producer("idle", |_| Idle)));
        seconds(30).await;
        assert_eq!(node.tip().height, Height(100), "production pauses at the backlog");
        assert_eq!(machine.ledger.blobs(), 0);
    });
}

#[test]
fn the_engine() {
    sim_run(1, || async {
        let machine = Machine::new(1);
        let node = node(&machine, |wiring| {
            let nowhere =
                || EnginePosition { root: StateRoot(Bytes::from_static(&[1; 32])), ..Default::default() };
            wiring.engine = Some(EnginePorts {
                init_chain: probe(move |_: &InitChain| Ok(nowhere().root)).0,
                position: probe(move |_: &GetPosition| Ok(nowhere())).0,
                pending_txs: probe(|_: &PendingTxs| Ok(vec![])).0,
                filter: probe(|asked: &FilterTxs| Ok(vec![FilterStatus::Ok; asked.txs.len()])).0,
                execute: probe(|asked: &ExecuteBlock| -> Result<Executed, _> {
                    let height = asked.block.height();
                    Err(EngineError::Poison { height, index: None, reason: "not mine".to_owned() })
                })
                .0,
                rollback: probe(move |_: &Rollback| Ok(nowhere())).0,
                set_final: probe(|_: &SetFinal| Ok(())).0,
                pool: None,
            });
        });
        seconds(10).await;
        assert_eq!(node.tip().height, Height(1), "nothing is built on what cannot be executed");
        assert_eq!(machine.ledger.blobs(), 0, "P10");
    });
}

#[test]
fn the_signer() {
    sim_run(1, || async {
        let machine = Machine::new(1);
        let node = node(&machine, |wiring| {
            let refuse = || SignError::Key("no key today".to_owned());
            wiring.signer = Some(SignerPorts {
                check_guard: probe(|_: &CheckGuard| Ok(())).0,
                note_signed: probe(|_: &NoteSigned| Ok(())).0,
                sign: probe(move |_: &SignHeader| Err(refuse())).0,
                sign_envelope: probe(move |_: &SignEnvelope| Err(refuse())).0,
                sign_data: probe(move |_: &SignData| Err(refuse())).0,
                view: probe(|_: &GetSignerView| SignerView::default()).0,
            });
        });
        node.reach(3).await;
        seconds(5).await;
        assert!(node.tip().height < Height(10), "blocks without signatures do not pile up");
        assert!(node.supervisor().await.pause.expect("it says why").contains("no key today"));
        assert_eq!(machine.ledger.blobs(), 0, "what is not signed is not told");
        assert_eq!(node.reader().signature(Height(1)), Ok(None));
    });
}

#[test]
fn the_da_adapter() {
    sim_run(1, || async {
        let machine = Machine::new(1);
        let node = node(&machine, |wiring| {
            let busy = || DaError::AccountSequence("scripted".to_owned());
            wiring.da = Some(DaPorts {
                submit: probe(move |_: &SubmitBlobs| Err(busy())).0,
                get: probe(|_: &GetBlobs| Ok(vec![])).0,
                head: probe(|_: &GetDaHead| Ok(DaHead::default())).0,
            });
        });
        node.reach(10).await;
        let trouble = node.supervisor().await.da_trouble.expect("it says so");
        assert!(trouble.contains("account sequence"), "{trouble}");
    });
}

#[test]
fn the_sequencer() {
    sim_run(1, || async {
        let machine = Machine::new(1);
        let node = node(&machine, |wiring| {
            wiring.sequencer = Some(SequencerPorts {
                submit_txs: probe(|_: &SubmitTxs| Err(SubmitError::NotReady("closed".to_owned()))).0,
                post_txs: probe(|_: &PostTxs| Err(SubmitError::NotReady("closed".to_owned()))).0,
                forwarded: probe(|_: &ForwardedTxs| Err(ForwardError::Full)).0,
                next_batch: probe(|asked: &NextBatch| Batch {
                    txs: vec![tx(&format!("height={}", asked.height))],
                    current: true,
                })
                .0,
                await_txs: probe(|_: &AwaitTxs| ()).0,
                drop_txs: probe(|_: &DropTxs| ()).0,
                await_tx: probe(|_: &AwaitTx| Err(AwaitError::Unknown)).0,
                view: probe(|_: &GetQueueView| QueueView::default()).0,
            });
        });
        node.reach(3).await;
        let block = node.reader().block(Height(3)).expect("readable").expect("there");
        assert_eq!(block.txs(), [tx("height=3")]);
    });
}

#[test]
fn raft() {
    sim_run(1, || async {
        let machine = Machine::new(1);
        let node = node(&machine, |wiring| {
            let term = Term(9);
            let refuse = move || ProposeError::NotLeader { term, reason: "scripted".to_owned() };
            wiring.raft = Some(RaftPorts {
                propose: probe(move |_: &ProposeBlock| Err(refuse())).0,
                settle: probe(|_: &Settle| ()).0,
                record: probe(move |_: &Record| Err(refuse())).0,
                view: probe(|_: &GetRaftView| RaftView::default()).0,
            });
        });
        seconds(10).await;
        assert_eq!(node.tip().height, Height(0));
        let signed = |event: &Event| matches!(event, Event::Signed { .. });
        assert!(!machine.audit.lines().iter().any(|line| signed(&line.event)), "P2: signed without a commit");
        assert!(node.supervisor().await.pause.expect("it says why").contains("scripted"));
    });
}
