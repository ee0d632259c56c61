//! The syncer follows the chain and keeps the engine level with it.
//!
//! After a start it replays what the engine lacks, or rolls the engine back where it is ahead;
//! afterwards every applied block is executed here, on every member. It compares the engine's
//! root with the next header's before it goes on (P5). On a leader the executor asks for the
//! same executions; the engine answers both.
//!
//! After a snapshot block bodies are missing: it fetches them from other members first. A witness
//! has no engine; there it does only that.
//!
//! On a node that is no member of a cluster it holds the `Writer`, and lets in what was found on DA
//! and among peers (`follow`). A light node has no engine either: there headers are let in.

pub mod backfill;
pub mod candidates;
pub mod catch_up;
pub mod follow;
pub mod forced;
mod gossip;
pub mod inclusion;
pub mod rules;
mod signatures;

use std::sync::Arc;
use std::time::Duration;

use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, MailboxError, Recipient, ResponseFuture,
    SpawnHandle, WrapFuture,
};
use baton_messages::chain::Block;
use baton_messages::engine::{
    EngineError, EnginePosition, ExecuteBlock, Executed, GetPosition, InitChain, Rollback, SetFinal,
};
use baton_messages::raft::{Applied, TermApplied};
use baton_messages::supervisor::Shutdown;
use baton_messages::syncer::{ExecutionFollowed, ExecutionTrouble};
use baton_messages::types::{Height, StateRoot};
use baton_storage::Reader;
use baton_storage::backend::StoreError;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::oneshot;
use tracing::{debug, error, info, warn};

use crate::quiet::Quiet;

/// How the syncer behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long an answer of the engine may take.
    pub reply_within: Duration,
    /// The pause after a failure that may pass.
    pub retry_after: Duration,
    /// Progress of a replay is logged every so many blocks.
    pub log_every: u64,
    /// How missing bodies are fetched.
    pub backfill: backfill::Config,
    /// There is an engine to lead. Without one, on a witness, only bodies are fetched, and on a light
    /// node headers are let in.
    pub executes: bool,
}

/// Everything the syncer says, and to whom.
#[derive(Clone, Debug)]
pub struct Links {
    /// Prepares the state before the first block.
    pub init_chain: Recipient<InitChain>,
    /// Says where the engine is.
    pub position: Recipient<GetPosition>,
    /// Executes a committed block.
    pub execute: Recipient<ExecuteBlock>,
    /// Takes the engine back.
    pub rollback: Recipient<Rollback>,
    /// Makes an included block final.
    pub set_final: Recipient<SetFinal>,
    /// Hears how far execution is.
    pub followed: Vec<Recipient<ExecutionFollowed>>,
    /// Hears what keeps execution from going on.
    pub trouble: Recipient<ExecutionTrouble>,
    /// Where missing bodies come from; `None` where this node is all there is.
    pub source: Option<backfill::Source>,
}

/// What the syncer counts.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Last executed height.
    pub height: Gauge,
    /// Last height made final.
    pub final_height: Gauge,
    /// Blocks executed here, by whoever asked first.
    pub executed: Counter,
    /// Attempts that failed.
    pub failures: Counter,
    /// Missing bodies.
    pub backfill: backfill::Metrics,
}

impl Metrics {
    /// Makes the metrics visible.
    pub fn register(&self, registry: &mut Registry) {
        let sequencer = registry.sub_registry_with_prefix("sequencer");
        sequencer.register("height", "Last executed height", self.height.clone());
        sequencer.register("da_inclusion_height", "Last height made final", self.final_height.clone());
        let execution = registry.sub_registry_with_prefix("execution");
        execution.register("blocks", "Blocks the engine was led through", self.executed.clone());
        execution.register("failures", "Attempts that failed", self.failures.clone());
        self.backfill.register(registry);
    }
}

/// Why execution does not go on.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("no reply from the engine: {0}")]
    NoReply(#[from] MailboxError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "the engine's state root after height {height} is {own}, the chain says {chain}: \
         roll the engine back or restore it, then start again"
    )]
    OtherRoot { height: Height, own: StateRoot, chain: StateRoot },
    #[error(
        "the engine's state root after height {height} changed from {before} to {now}: \
         restore the engine, then start again"
    )]
    ChangedRoot { height: Height, before: StateRoot, now: StateRoot },
    #[error(
        "the engine was told to go back to height {asked}, said it had, and is at {now}: \
         restore the engine from before height {asked}, then start again"
    )]
    NotRolledBack { asked: Height, now: Height },
    #[error("the engine is at height {engine}, ahead of the chain at {tip}; waiting for the committed tip")]
    Ahead { engine: Height, tip: Height },
    #[error("bodies are missing: {left} left, block {height} is the next to execute")]
    NoBody { height: Height, left: u64 },
    #[error(
        "the chain forks below height {height}: {reason}; find out which chain is the right one, then start with an empty store"
    )]
    OtherParent { height: Height, reason: String },
}

impl Error {
    /// A person is needed; a restart would not help.
    const fn is_integrity(&self) -> bool {
        match self {
            Self::OtherRoot { .. }
            | Self::ChangedRoot { .. }
            | Self::OtherParent { .. }
            | Self::NotRolledBack { .. } => true,
            Self::Engine(error) => {
                matches!(error, EngineError::Corrupt(_) | EngineError::CannotRollBack { .. })
            }
            Self::Store(error) => matches!(error, StoreError::Corrupt(_)),
            Self::NoReply(_) | Self::Ahead { .. } | Self::NoBody { .. } => false,
        }
    }
}

/// The engine is looked at when nothing was asked of it for one to two times so many pauses.
const LOOK_EVERY: u32 = 4;
/// How often a node that follows shows and writes how far it is.
const TEND_EVERY: Duration = Duration::from_secs(1);

/// What one step came to.
enum Step {
    /// The engine is known to stand here, on the store's chain.
    At(EnginePosition),
    /// A block was executed.
    Executed(Executed),
    /// Heights up to this one are final.
    Final(Height),
    /// The engine is where it was, or further.
    Looked,
}

/// The syncer.
#[derive(Debug)]
pub struct Syncer {
    config: Config,
    links: Links,
    metrics: Metrics,
    reader: Reader,
    /// Where the engine is, once it was compared with the store.
    position: Option<(Height, StateRoot)>,
    /// How far execution is as others have heard it.
    told: Height,
    final_height: Height,
    /// The tip is known to be all that was committed before this process started.
    tip_is_known: bool,
    /// Nothing was asked of the engine since it was looked at last.
    idle: bool,
    /// The engine may stand elsewhere than it did: look before the next block.
    look: bool,
    busy: bool,
    in_trouble: bool,
    /// What was said last about it.
    quiet: Quiet,
    /// Filling in missing bodies.
    fill: backfill::State,
    /// A signature that was passed over is being asked for.
    mending: bool,
    /// How many were.
    mendings: u32,
    /// The timer of the next attempt after a failure.
    retry: Option<SpawnHandle>,
    /// Following a chain from outside, where there is no Raft.
    follow: Option<follow::Following>,
    /// Nothing more is begun; who wants to know when the last step has ended.
    closing: Option<Vec<oneshot::Sender<()>>>,
}

impl Syncer {
    /// A syncer that begins when it is started.
    #[must_use]
    pub fn new(config: Config, links: Links, metrics: Metrics, reader: Reader) -> Self {
        Self {
            config,
            links,
            metrics,
            reader,
            position: None,
            told: Height(0),
            final_height: Height(0),
            tip_is_known: false,
            idle: false,
            look: false,
            busy: false,
            in_trouble: false,
            quiet: Quiet::default(),
            fill: backfill::State::default(),
            mending: false,
            mendings: 0,
            retry: None,
            follow: None,
            closing: None,
        }
    }

    /// Does the next thing that is due, one at a time.
    fn begin_step(&mut self, ctx: &mut Context<Self>) {
        if self.busy || self.closing.is_some() {
            return;
        }
        if !self.config.executes {
            return self.enter_headers(ctx);
        }
        if !self.enter_next(ctx) {
            return;
        }
        let tip = self.reader.tip().height;
        let included = self.reader.da_progress().included;
        let engine = Engine {
            links: self.links.clone(),
            reader: self.reader.clone(),
            reply_within: self.config.reply_within,
            tip_is_known: self.tip_is_known,
        };
        let step: futures::future::LocalBoxFuture<'static, Result<Step, Error>> = match self.position.clone()
        {
            None => Box::pin(engine.locate()),
            Some((at, root)) if self.look => Box::pin(engine.look(at, root)),
            Some((at, root)) if at < tip => Box::pin(engine.execute_after(at, root)),
            Some((at, _)) if self.final_height < included.min(at) => {
                Box::pin(engine.make_final(included.min(at)))
            }
            Some(_) => return,
        };
        self.busy = true;
        self.idle = false;
        self.look = false;
        ctx.spawn(step.into_actor(self).map(|step, this, ctx| this.end_step(step, ctx)));
        self.begin_preparing(ctx);
    }

    fn end_step(&mut self, step: Result<Step, Error>, ctx: &mut Context<Self>) {
        self.busy = false;
        if let Some(closing) = &mut self.closing {
            for waiting in closing.drain(..) {
                // Whoever asked may have given up.
                let _ = waiting.send(());
            }
            return;
        }
        match step {
            Ok(Step::At(position)) => {
                info!(height = position.height.0, root = %position.root, "the engine is on the chain");
                self.final_height = position.final_height;
                self.followed(position.height, position.root);
            }
            Ok(Step::Executed(executed)) => {
                debug!(height = executed.height.0, root = %executed.root, "executed");
                self.metrics.executed.inc();
                self.log_replay(executed.height);
                self.followed(executed.height, executed.root);
            }
            Ok(Step::Final(height)) => {
                debug!(height = height.0, "final");
                self.final_height = height;
                self.metrics.final_height.set(i64::try_from(height.0).unwrap_or(i64::MAX));
            }
            Ok(Step::Looked) => {}
            Err(error) => {
                self.end_in_trouble(&error);
                let retry = ctx.run_later(self.config.retry_after, |this, ctx| {
                    this.retry = None;
                    this.begin_step(ctx);
                });
                self.retry = Some(retry);
                return;
            }
        }
        self.end_of_trouble();
        self.begin_step(ctx);
        self.make_room();
    }

    /// Looks where the engine is when nothing else would tell: it may have been restarted and
    /// lost its last executions, or be in a trouble that has passed.
    fn look_after_engine(&mut self, ctx: &mut Context<Self>) {
        // A snapshot came without a hint.
        self.begin_fill(ctx);
        if std::mem::replace(&mut self.idle, true) && !self.in_trouble {
            self.begin_look(ctx);
        }
    }

    /// Every body is here: what waited for them goes on at once.
    fn bodies_are_here(&mut self, ctx: &mut Context<Self>) {
        if let Some(retry) = self.retry.take() {
            ctx.cancel_future(retry);
            self.begin_step(ctx);
        }
    }

    /// What was filled in does not meet what is here.
    fn end_in_damage(&mut self, error: &backfill::Error) {
        error!(%error, "block bodies cannot be filled in");
        let height = self.position.as_ref().map_or(Height(0), |(height, _)| *height).next();
        let trouble = Some(error.to_string());
        self.in_trouble = true;
        self.links.trouble.do_send(ExecutionTrouble { height, trouble, integrity: true });
    }

    fn begin_look(&mut self, ctx: &mut Context<Self>) {
        self.look = true;
        self.begin_step(ctx);
    }

    fn followed(&mut self, height: Height, root: StateRoot) {
        self.metrics.height.set(i64::try_from(height.0).unwrap_or(i64::MAX));
        self.position = Some((height, root.clone()));
        if !self.follow.as_ref().is_none_or(|follow| follow.tells_of(height)) {
            return;
        }
        self.tell(height, &root);
    }

    fn tell(&mut self, height: Height, root: &StateRoot) {
        self.told = height;
        for link in &self.links.followed {
            link.do_send(ExecutionFollowed { height, root: root.clone() });
        }
    }

    /// Others hear how far execution is, where that was left for later and nothing comes later.
    fn tell_the_rest(&mut self) {
        if let Some((height, root)) = self.position.clone()
            && height != self.told
        {
            self.tell(height, &root);
        }
    }

    fn log_replay(&self, height: Height) {
        let left = self.reader.tip().height.0.saturating_sub(height.0);
        if left > 0 && height.0.is_multiple_of(self.config.log_every) {
            info!(height = height.0, left, "replaying blocks");
        }
    }

    fn end_in_trouble(&mut self, error: &Error) {
        self.metrics.failures.inc();
        let height = self.position.as_ref().map_or(Height(0), |(height, _)| *height).next();
        let integrity = error.is_integrity();
        match error {
            _ if integrity => error!(%error, "execution cannot go on"),
            // Who fetches them says how far that is.
            Error::NoBody { .. } if self.in_trouble => debug!(%error, "execution waits"),
            _ if self.quiet.says(&error.to_string()) => warn!(%error, "execution waits"),
            _ => debug!(%error, "execution waits"),
        }
        // The engine may have lost its last executions: look again where it is.
        if !integrity {
            self.position = None;
        }
        self.in_trouble = true;
        let trouble = Some(error.to_string());
        self.links.trouble.do_send(ExecutionTrouble { height, trouble, integrity });
    }

    fn end_of_trouble(&mut self) {
        if std::mem::take(&mut self.in_trouble) {
            self.quiet.is_over();
            let height = self.position.as_ref().map_or(Height(0), |(height, _)| *height);
            self.links.trouble.do_send(ExecutionTrouble { height, trouble: None, integrity: false });
        }
    }
}

impl Actor for Syncer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.begin_fill(ctx);
        self.begin_step(ctx);
        ctx.run_interval(self.config.retry_after * LOOK_EVERY, Self::look_after_engine);
        ctx.run_interval(self.config.backfill.longest_pause, Self::begin_mending);
        if self.follow.is_some() {
            ctx.run_interval(TEND_EVERY, Self::tend);
        }
    }
}

impl Handler<Applied> for Syncer {
    type Result = ();

    fn handle(&mut self, _: Applied, ctx: &mut Context<Self>) {
        self.begin_fill(ctx);
        if !self.in_trouble {
            self.begin_step(ctx);
        }
    }
}

impl Handler<Shutdown> for Syncer {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Shutdown, _: &mut Context<Self>) -> Self::Result {
        let closing = self.closing.get_or_insert_default();
        if !self.busy {
            return Box::pin(std::future::ready(()));
        }
        let (ended, end) = oneshot::channel();
        closing.push(ended);
        Box::pin(async move {
            // A syncer that is gone has ended too.
            let _ = end.await;
        })
    }
}

impl Handler<TermApplied> for Syncer {
    type Result = ();

    fn handle(&mut self, _: TermApplied, ctx: &mut Context<Self>) {
        self.tip_is_known = true;
        if !self.in_trouble {
            // The store may have been opened again, and an engine in it have lost executions.
            self.begin_look(ctx);
        }
    }
}

/// The questions to the engine, so that the actor is untouched while they are asked.
struct Engine {
    links: Links,
    reader: Reader,
    reply_within: Duration,
    tip_is_known: bool,
}

impl Engine {
    /// Finds out where the engine is and takes it back to the store's chain if it is off it.
    async fn locate(self) -> Result<Step, Error> {
        let genesis = self.reader.genesis();
        let init = InitChain {
            time: genesis.start_time,
            initial_height: genesis.initial_height,
            chain_id: genesis.chain_id.clone(),
        };
        self.links.init_chain.send(init).timeout(self.reply_within).await??;
        let mut position = self.links.position.send(GetPosition).timeout(self.reply_within).await??;
        loop {
            // Before the first block the engine stands below it, which may be far up.
            let tip = self.reader.tip().height.max(genesis.initial_height.previous());
            if position.height > tip {
                if !self.tip_is_known {
                    return Err(Error::Ahead { engine: position.height, tip });
                }
                warn!(engine = position.height.0, tip = tip.0, "the engine is ahead: rolling it back");
                position = self.roll_back(tip).await?;
                continue;
            }
            if position.height < genesis.initial_height {
                break;
            }
            let ours = self.reader.hash(position.height)?;
            if position.hash.is_none() || position.hash == ours {
                break;
            }
            if ours.is_none() {
                // Its header comes with its body.
                return Err(Error::NoBody { height: position.height, left: backfill::left(&self.reader) });
            }
            warn!(height = position.height.0, "the engine executed another block: rolling it back");
            position = self.roll_back(position.height.previous()).await?;
        }
        Ok(Step::At(position))
    }

    /// Compares the engine with where it was; starts over when it is elsewhere.
    async fn look(self, at: Height, root: StateRoot) -> Result<Step, Error> {
        let position = self.links.position.send(GetPosition).timeout(self.reply_within).await??;
        // The executor may have led it on meanwhile.
        if position.height > at || (position.height == at && position.root == root) {
            return Ok(Step::Looked);
        }
        let ours = self.reader.header(at)?.map(|header| header.hash());
        let same_block = position.height == at && (position.hash.is_none() || position.hash == ours);
        if same_block && at >= self.reader.initial_height() {
            return Err(Error::ChangedRoot { height: at, before: root, now: position.root });
        }
        // It has lost executions, or even that the chain has begun.
        warn!(was = at.0, now = position.height.0, "the engine is elsewhere");
        self.locate().await
    }

    /// Takes the engine back, and looks where it says it is then (hazard C6).
    async fn roll_back(&self, height: Height) -> Result<EnginePosition, Error> {
        let back = self.links.rollback.send(Rollback { height }).timeout(self.reply_within).await??;
        if back.height > height {
            return Err(Error::NotRolledBack { asked: height, now: back.height });
        }
        Ok(back)
    }

    async fn execute_after(self, at: Height, root: StateRoot) -> Result<Step, Error> {
        let at = at.max(self.reader.initial_height().previous());
        let next = at.next();
        let missing = || Error::NoBody { height: next, left: backfill::left(&self.reader) };
        let block: Arc<Block> = self.reader.block(next)?.ok_or_else(missing)?;
        let chain = StateRoot(block.header().app_hash.clone());
        if chain != root {
            return Err(Error::OtherRoot { height: at, own: root, chain });
        }
        let execute = self.links.execute.send(ExecuteBlock { block }).timeout(self.reply_within);
        Ok(Step::Executed(execute.await??))
    }

    async fn make_final(self, height: Height) -> Result<Step, Error> {
        self.links.set_final.send(SetFinal { height }).timeout(self.reply_within).await??;
        Ok(Step::Final(height))
    }
}
