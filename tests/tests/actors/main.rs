//! One actor among probes: what it says, in which order, and what it never does.

mod the_da_submitter;
mod the_executor;
mod the_inbox;
mod the_notary;
mod the_raft;
mod the_reaper;
mod the_sequencer;
mod the_supervisor;
mod the_syncer;
mod the_timekeeper;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, Context, Recipient};
use baton_actors::child::{self, Child};
use baton_actors::executor::{self, Executor};
use baton_actors::notary::{self, Notary};
use baton_actors::reaper::{self, Reaper};
use baton_actors::sequencer::{self, Sequencer};
use baton_actors::signer::key::{FileKey, Key};
use baton_actors::supervisor::{self, Producer, Supervisor};
use baton_actors::syncer::{self, Syncer};
use baton_actors::timekeeper::{self, Timekeeper};
use baton_actors::world::{Clock, World};
use baton_messages::chain::Block;
use baton_messages::cluster::{
    AskDa, Campaign, Condition, FetchBlocks, FetchError, FetchedBlock, ForwardError, ForwardTxs,
    ForwardedTxs, HandOff, HandOffError, HandedOff, Heartbeats, MemberTold, MembersChanged, PrepareStop,
    Stand, StopRefused, TellCondition, TransferError, TransferLeadership,
};
use baton_messages::command::{Command, Lane, Refusal, Submitted};
use baton_messages::da::DaStateChanged;
use baton_messages::engine::{
    BlockExecuted, EngineError, EngineHealthChanged, EnginePosition, ExecuteBlock, Executed, FilterStatus,
    FilterTxs, GetPosition, InitChain, PendingTxs, Rollback, SetFinal, TxResult,
};
use baton_messages::executor::ProductionChanged;
use baton_messages::raft::{
    Applied, LeadershipChanged, ProposeBlock, ProposeError, Record, Settle, TermApplied,
};
use baton_messages::sequencer::{
    AwaitError, AwaitTx, AwaitTxs, Batch, DropTxs, Level, NextBatch, Outcome, PostTxs, Posted, Receipt,
    SubmitError, SubmitTxs,
};
use baton_messages::signer::{CheckGuard, NoteSigned, SignError, SignHeader};
use baton_messages::supervisor::{
    GetSupervisorView, IntegrityStop, LeadershipAudited, Shutdown, StopProducing, SupervisorView,
};
use baton_messages::syncer::{ExecutionFollowed, ExecutionTrouble};
use baton_messages::types::{
    DaHeight, Hash, Height, Member, MemberId, Role, StateRoot, Term, Timestamp, Tip, Tx,
};
use baton_storage::Backfill;
use baton_storage::memory::{Disk, EffectOutcome, Keep};
use bytes::Bytes;
use rand::{RngExt, SeedableRng};
use sim::{GRANT, Probe, SimClock, Stage, probe, root_of, sim_run, tx};

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

/// The stage of a member that has three blocks of its own and a snapshot of ten, and its twin
/// that has all ten.
async fn with_a_gap() -> (Stage, Stage) {
    let (whole, stage) = (Stage::new(), Stage::new());
    whole.grow(10);
    stage.grow(3);
    install(&stage, &whole).await;
    (stage, whole)
}

/// A member goes on from a snapshot of another one.
async fn install(stage: &Stage, whole: &Stage) {
    let head = whole.store.writer(Box::new(|_| {})).build_head().expect("a snapshot");
    stage.store.writer(Box::new(|_| {})).install_head(head).await.expect("the same chain");
}

async fn fill(stage: &Stage, whole: &Stage, heights: std::ops::RangeInclusive<u64>) {
    let block = |height| whole.reader().block(Height(height)).expect("readable").expect("whole");
    let fill = |height| Backfill { block: block(height), signature: None, da: None };
    let blocks: Vec<Backfill> = heights.rev().map(fill).collect();
    stage.store.filler().backfill(&blocks).await.expect("the wanted blocks");
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
