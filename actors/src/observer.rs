//! The observer knows how a node that follows a chain is, and ends it when a person is needed.
//!
//! It takes the supervisor's place where there is nothing to lead: engine, disk, syncer and
//! retriever tell it what goes wrong, health and status ask it.

use std::collections::BTreeMap;

use actix::{Actor, Context, Handler, MessageResult, Recipient};
use baton_messages::engine::{BlockExecuted, EngineHealthChanged};
use baton_messages::follow::{
    ForcedLeftOut, ForkFound, GetObserverView, ObserverView, ProductionWaits, RetrievalChanged,
};
use baton_messages::supervisor::{DiskHealthChanged, IntegrityStop};
use baton_messages::syncer::{ExecutionFollowed, ExecutionTrouble};
use baton_messages::types::Height;
use tracing::{error, info, warn};

/// Whom the observer tells.
#[derive(Clone, Debug)]
pub struct Links {
    /// Ends the process when a person is needed.
    pub integrity_stop: Recipient<IntegrityStop>,
}

/// What may be in trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Engine,
    Execution,
    Disk,
}

/// The observer.
#[derive(Debug)]
pub struct Observer {
    links: Links,
    executed: Height,
    troubles: BTreeMap<Part, String>,
    da_trouble: Option<String>,
    fork: Option<String>,
    left_out: Option<String>,
    waits: Vec<String>,
}

impl Observer {
    /// An observer of a healthy node; `fork` and `left_out` are what is known from an earlier life.
    #[must_use]
    pub const fn new(links: Links, fork: Option<String>, left_out: Option<String>) -> Self {
        Self {
            links,
            executed: Height(0),
            troubles: BTreeMap::new(),
            da_trouble: None,
            fork,
            left_out,
            waits: vec![],
        }
    }

    fn health(&mut self, part: Part, trouble: Option<String>) {
        match trouble {
            Some(trouble) => {
                if self.troubles.get(&part) != Some(&trouble) {
                    warn!(?part, %trouble, "in trouble");
                }
                self.troubles.insert(part, trouble);
            }
            None => {
                if self.troubles.remove(&part).is_some() {
                    info!(?part, "healthy");
                }
            }
        }
    }
}

impl Actor for Observer {
    type Context = Context<Self>;
}

impl Handler<ExecutionFollowed> for Observer {
    type Result = ();

    fn handle(&mut self, message: ExecutionFollowed, _: &mut Context<Self>) {
        self.executed = message.height;
    }
}

impl Handler<ExecutionTrouble> for Observer {
    type Result = ();

    fn handle(&mut self, message: ExecutionTrouble, _: &mut Context<Self>) {
        if message.integrity {
            let reason = message.trouble.clone().unwrap_or_default();
            error!(height = message.height.0, %reason, "a person is needed");
            self.links.integrity_stop.do_send(IntegrityStop { reason });
        }
        self.health(Part::Execution, message.trouble);
    }
}

impl Handler<EngineHealthChanged> for Observer {
    type Result = ();

    fn handle(&mut self, message: EngineHealthChanged, _: &mut Context<Self>) {
        self.health(Part::Engine, message.trouble);
    }
}

impl Handler<BlockExecuted> for Observer {
    type Result = ();

    /// The syncer says the same, compared with the chain.
    fn handle(&mut self, _: BlockExecuted, _: &mut Context<Self>) {}
}

impl Handler<DiskHealthChanged> for Observer {
    type Result = ();

    fn handle(&mut self, message: DiskHealthChanged, _: &mut Context<Self>) {
        self.health(Part::Disk, message.trouble);
    }
}

impl Handler<RetrievalChanged> for Observer {
    type Result = ();

    fn handle(&mut self, message: RetrievalChanged, _: &mut Context<Self>) {
        self.da_trouble = message.trouble;
    }
}

impl Handler<ForkFound> for Observer {
    type Result = ();

    /// The chain goes on, because one of the two is right and stopping helps nobody; but the node is
    /// not ready any more, and nothing from there on becomes final.
    fn handle(&mut self, message: ForkFound, _: &mut Context<Self>) {
        self.fork.get_or_insert(message.reason);
    }
}

impl Handler<ForcedLeftOut> for Observer {
    type Result = ();

    /// The node answers what it knows, and takes no block of that proposer any more.
    fn handle(&mut self, message: ForcedLeftOut, _: &mut Context<Self>) {
        self.left_out.get_or_insert(message.reason);
    }
}

impl Handler<ProductionWaits> for Observer {
    type Result = ();

    fn handle(&mut self, message: ProductionWaits, _: &mut Context<Self>) {
        self.waits = message.reasons;
    }
}

impl Handler<GetObserverView> for Observer {
    type Result = MessageResult<GetObserverView>;

    fn handle(&mut self, _: GetObserverView, _: &mut Context<Self>) -> Self::Result {
        MessageResult(ObserverView {
            executed: self.executed,
            reasons: self.troubles.values().chain(&self.fork).chain(&self.left_out).cloned().collect(),
            da_trouble: self.da_trouble.clone(),
            fork: self.fork.clone(),
            left_out: self.left_out.clone(),
            waits: self.waits.clone(),
        })
    }
}
