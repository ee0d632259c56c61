//! The checker looks at signatures of headers, for a node that follows.
//!
//! A signature costs more than everything else about a header, so this has a thread of its own, beside
//! the syncer's. It knows nothing of the chain and keeps nothing.

use std::sync::Arc;

use actix::{Actor, Context, Handler, MessageResult};
use baton_messages::follow::CheckHeaders;

use crate::world::World;

/// The checker.
#[derive(Debug)]
pub struct Checker {
    world: World,
}

impl Checker {
    /// A checker with this clock.
    #[must_use]
    pub const fn new(world: World) -> Self {
        Self { world }
    }
}

impl Actor for Checker {
    type Context = Context<Self>;
}

impl Handler<CheckHeaders> for Checker {
    type Result = MessageResult<CheckHeaders>;

    fn handle(&mut self, message: CheckHeaders, _: &mut Context<Self>) -> Self::Result {
        let now = self.world.wall();
        MessageResult(message.0.iter().map(Arc::as_ref).map(|signed| signed.validate(now)).collect())
    }
}
