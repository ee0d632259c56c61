//! A sequencer that was restored goes on with its chain, and begins no second one.
//!
//! Where `node.catchup_timeout` is set, a node that would produce and whose store belongs to no
//! cluster yet follows its chain first, from peers and DA. It produces once it holds everything
//! that any of them shows, nobody has made a block for a while, and nothing speaks against it
//! (`docs/adr/0017-catching-up-before-producing.md`). What must hold is in [`plan`].

pub mod plan;

use std::time::Duration;

use actix::Recipient;
use baton_actors::signer::guard::{Guard, GuardStore};
use baton_actors::signer::slot::ChainId;
use baton_actors::syncer::rules;
use baton_actors::world::World;
use baton_messages::follow::{GetObserverView, GetSyncView, ObserverView, ProductionWaits, SyncView};
use baton_messages::p2p::FetchHead;
use baton_messages::types::{Hash, Height};
use baton_storage::Reader;
use tokio::time::Instant;
use tracing::{error, info, warn};

use plan::{Guarded, Heads, Look, Plan, Seen};

/// Time between two looks.
const EVERY: Duration = Duration::from_millis(500);
/// For each answer.
const WITHIN: Duration = Duration::from_secs(10);
/// How often what is waited for is logged.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// Who is asked, and who is told.
#[derive(Clone, Debug)]
pub struct Links {
    /// How the node is.
    pub observer: Recipient<GetObserverView>,
    /// How following goes.
    pub sync: Recipient<GetSyncView>,
    /// How far peers are; `None` without a network.
    pub heads: Option<Recipient<FetchHead>>,
    /// Hears what production waits for.
    pub waits: Recipient<ProductionWaits>,
}

/// A sequencer that catches up.
#[derive(Debug)]
pub struct CatchUp<G> {
    /// When it may produce.
    pub plan: Plan,
    /// Who is asked.
    pub links: Links,
    /// What is here.
    pub reader: Reader,
    /// What the key was asked to sign.
    pub guard: G,
    /// The wall clock.
    pub world: World,
}

impl<G: GuardStore> CatchUp<G> {
    /// Looks until the chain may be gone on with, and tells what it waits for meanwhile. Returns the
    /// last block. A time-out changes what is said, and nothing else.
    pub async fn done(mut self) -> (Height, Hash) {
        let began = Instant::now();
        let (mut said, mut late) = (None::<(Instant, Vec<String>)>, false);
        loop {
            let seen = self.seen().await;
            let now = began.elapsed();
            let waits = match self.plan.look(now, &seen) {
                Look::Ready => {
                    info!(height = seen.tip.height.0, hash = %seen.tip.hash, took = ?now, "holds the whole chain");
                    return (seen.tip.height, seen.tip.hash);
                }
                Look::Waits(waits) => waits,
            };
            if self.plan.is_late(now) && !std::mem::replace(&mut late, true) {
                error!(
                    after = ?now, ?waits,
                    "node.catchup_timeout is over and this node produces nothing: it goes on when what it waits for \
                     comes, and `baton import --finish --at HEIGHT --unreachable-ok` takes a person's word instead"
                );
                said = Some((Instant::now(), waits.clone()));
            }
            if said.as_ref().is_none_or(|(at, before)| *before != waits && at.elapsed() >= SAY_EVERY) {
                warn!(tip = seen.tip.height.0, ?waits, "produces nothing yet");
                said = Some((Instant::now(), waits.clone()));
            }
            self.links.waits.do_send(ProductionWaits { reasons: waits });
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn seen(&mut self) -> Seen {
        let (observer, sync, peers) = futures::join!(
            self.links.observer.send(GetObserverView).timeout(WITHIN),
            self.links.sync.send(GetSyncView).timeout(WITHIN),
            self.peers(),
        );
        // After the answers: what has entered meanwhile is seen next time.
        let tip = self.reader.tip();
        let mut troubles = vec![];
        let observer = observer.unwrap_or_else(|error| {
            troubles.push(format!("the observer does not answer: {error}"));
            ObserverView::default()
        });
        troubles.extend(observer.reasons);
        let sync = sync.unwrap_or_else(|error| {
            troubles.push(format!("the syncer does not answer: {error}"));
            SyncView::default()
        });
        let da = match (observer.da_trouble, sync.read) {
            (Some(trouble), _) => Err(trouble),
            (None, None) => Err("it has not answered yet".to_owned()),
            (None, Some(read)) => Ok(read),
        };
        let signed = self.reader.signature(tip.height).map(|signature| signature.is_some());
        let signed = signed.unwrap_or_else(|error| {
            troubles.push(error.to_string());
            false
        });
        let (executed, highest) = (observer.executed, sync.highest);
        Seen { tip, signed, executed, highest, troubles, da, peers, guarded: self.guarded() }
    }

    /// What peers say of the chain's end: of headers that the proposer has signed, and of no others.
    async fn peers(&self) -> Result<Heads, String> {
        let Some(heads) = &self.links.heads else {
            return Err("p2p is off: p2p.listen_address is empty".to_owned());
        };
        let given = heads.send(FetchHead).timeout(WITHIN).await.map_err(|error| error.to_string())?;
        let (genesis, now) = (self.reader.genesis(), self.world.wall());
        let mut heads = Heads::default();
        for given in given.map_err(|error| error.to_string())? {
            let signed = &given.item.signed;
            // One from the future is signed all the same: this node's clock may be behind.
            if rules::header(genesis, signed, now).is_err_and(|wrong| !wrong.may_pass()) {
                continue;
            }
            let height = signed.header.height;
            heads.answered += 1;
            heads.highest = heads.highest.max(height);
            let here = self.reader.hash(height).map_err(|error| error.to_string())?;
            if here.is_some_and(|here| here != signed.header.hash()) {
                heads.differs = Some(height);
            }
        }
        Ok(heads)
    }

    fn guarded(&mut self) -> Result<Option<Guarded>, String> {
        let genesis = self.reader.genesis();
        let chain = ChainId { name: genesis.chain_id.clone(), genesis: genesis.hash() };
        let slots = self.guard.read().map_err(|error| error.to_string())?;
        let guard = Guard::open(&slots, &chain).map_err(|refusal| refusal.to_string())?;
        let Some(guard) = guard else { return Ok(None) };
        let (height, hash) = (guard.record().height, guard.record().hash);
        // One that was made with the home is below the first block.
        if height < genesis.initial_height {
            return Ok(None);
        }
        let here = self.reader.hash(height).map_err(|error| error.to_string())?;
        Ok(Some(Guarded { height, hash, here }))
    }
}
