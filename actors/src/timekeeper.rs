//! The timekeeper compares the chain's time with this node's clock (hazard A19).
//!
//! It runs on every node, whoever leads. It changes nothing in the chain: apply depends on the
//! log alone. It tells a person that a clock is wrong, and the world what live blocks say of the
//! time, so that a node whose clock is ahead from the start does not take the chain along when
//! it leads.

mod alarm;
mod following;

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler};
use baton_messages::raft::Applied;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use tracing::{info, warn};

use crate::world::World;
use alarm::{Alarm, Off, Say};
use following::Following;

/// Time between two looks; also what a jump can hide in at the most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the timekeeper measures.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// The chain's time less this node's, while blocks come as they are made.
    pub chain_offset: Gauge<f64, AtomicU64>,
    /// By how much block times lag behind this node's clock.
    pub held_back: Gauge<f64, AtomicU64>,
    /// Times something was off for long enough to be said.
    pub alarms: Counter,
}

impl Metrics {
    /// Makes the metrics visible.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("clock");
        let offset = "The chain's time less this node's, while blocks come as they are made";
        registry.register_with_unit("chain_offset", offset, Unit::Seconds, self.chain_offset.clone());
        let held_back = "How far block times lag behind this node's clock, because it jumped ahead";
        registry.register_with_unit("held_back", held_back, Unit::Seconds, self.held_back.clone());
        registry.register("alarms", "Times a clock was found to be off", self.alarms.clone());
    }
}

/// The timekeeper.
#[derive(Debug)]
pub struct Timekeeper {
    metrics: Metrics,
    world: World,
    following: Following,
    alarm: Alarm,
}

impl Timekeeper {
    /// A timekeeper that begins when it is started.
    #[must_use]
    pub fn new(metrics: Metrics, world: World) -> Self {
        let alarm = Alarm::new(world.limit());
        Self { metrics, world, following: Following::default(), alarm }
    }

    /// Asked often, so that the world sees a jump soon.
    fn look(&mut self, _: &mut Context<Self>) {
        let chain = self.following.time(self.world.elapsed());
        if let Some(chain) = chain {
            self.world.follow(chain);
        }
        let (wall, held_back) = (self.world.wall(), self.world.held_back());
        let ahead = chain.map(|chain| Duration::from_nanos(chain.0.saturating_sub(wall.0)));
        let behind = chain.map(|chain| Duration::from_nanos(wall.0.saturating_sub(chain.0)));
        self.metrics.held_back.set(held_back.as_secs_f64());
        let offset = ahead.unwrap_or_default().as_secs_f64() - behind.unwrap_or_default().as_secs_f64();
        self.metrics.chain_offset.set(offset);
        // Held back, a leader's own blocks are behind its clock: that is said already.
        let off = if held_back > Duration::ZERO {
            Some(Off::HeldBack(held_back + self.world.limit()))
        } else if ahead > behind {
            ahead.map(Off::ChainAhead)
        } else {
            behind.map(Off::ChainBehind)
        };
        self.say(off);
    }

    fn say(&mut self, off: Option<Off>) {
        match self.alarm.look(off) {
            Say::Nothing => {}
            Say::Over => info!("this node's clock and the chain's time agree again"),
            Say::Off { off, first } => {
                self.metrics.alarms.inc_by(u64::from(first));
                match off {
                    Off::HeldBack(by) => warn!(
                        seconds = by.as_secs_f64(),
                        "this node's clock is ahead: the times of its blocks follow it at most twice as fast \
                         as time passes. Correct the clock; if it is right, start the node again"
                    ),
                    Off::ChainAhead(by) => warn!(
                        seconds = by.as_secs_f64(),
                        "the times of blocks are ahead of this node's clock: correct this clock or the leader's"
                    ),
                    Off::ChainBehind(by) => warn!(
                        seconds = by.as_secs_f64(),
                        "the times of blocks are behind this node's clock: correct this clock or the leader's"
                    ),
                }
            }
        }
    }
}

impl Actor for Timekeeper {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.run_interval(LOOK_EVERY, Self::look);
    }
}

impl Handler<Applied> for Timekeeper {
    type Result = ();

    fn handle(&mut self, message: Applied, _: &mut Context<Self>) {
        if message.tip.height.0 > 0 {
            self.following.saw(message.tip.time, self.world.elapsed());
        }
    }
}
