//! The status board of a node that follows: it has an observer and a syncer to ask.

use std::time::Duration;

use actix::{Actor, Context, Handler, Recipient, ResponseFuture};
use baton_messages::follow::{FollowView, GetObserverView, GetSyncView};
use baton_messages::status::{GetNodeStatus, NodeStatus};
use baton_storage::Store;

use super::ask;

/// What the board says beside the answers.
#[derive(Clone, Debug)]
pub struct Config {
    /// For each actor's answer; they are asked at the same time.
    pub reply_within: Duration,
    /// What is followed: `full`, `da`, `p2p` or `light`.
    pub mode: &'static str,
    /// Most blocks that a node that is ready lags behind.
    pub max_behind: u64,
    /// Most seconds since the last block of a node that is ready; zero: not looked at.
    pub readiness_window: u64,
}

/// The board.
#[derive(Debug)]
pub struct Board {
    config: Config,
    observer: Recipient<GetObserverView>,
    sync: Recipient<GetSyncView>,
    store: Store,
}

impl Board {
    /// A board that asks these actors and reads this store.
    #[must_use]
    pub const fn new(
        config: Config,
        observer: Recipient<GetObserverView>,
        sync: Recipient<GetSyncView>,
        store: Store,
    ) -> Self {
        Self { config, observer, sync, store }
    }
}

impl Actor for Board {
    type Context = Context<Self>;
}

impl Handler<GetNodeStatus> for Board {
    type Result = ResponseFuture<NodeStatus>;

    fn handle(&mut self, _: GetNodeStatus, _: &mut Context<Self>) -> Self::Result {
        let reader = self.store.reader();
        let (tip, da) = (reader.tip(), reader.da_progress());
        let store_trouble = self.store.trouble().map(|trouble| trouble.to_string());
        let (observer, sync, config) = (self.observer.clone(), self.sync.clone(), self.config.clone());
        Box::pin(async move {
            let (observer, sync) = futures::join!(
                ask("observer", &observer, GetObserverView, config.reply_within),
                ask("syncer", &sync, GetSyncView, config.reply_within),
            );
            let Config { mode, max_behind, readiness_window, .. } = config;
            let follow = Some(FollowView { mode, observer, sync, max_behind, readiness_window });
            NodeStatus { tip, da, store_trouble, follow, ..NodeStatus::default() }
        })
    }
}
