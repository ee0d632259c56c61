//! The status board answers what the node's condition is, in every role and without a quorum.
//!
//! It asks the actors and the store each time, but once for all who ask within a moment: strangers
//! who ask without end cost the actors next to nothing. An actor that does not answer
//! in time is a part that is missing, never a question that hangs (P8).

pub mod following;

use std::fmt;
use std::time::Duration;

use actix::{Actor, Context, Handler, Message, Recipient, ResponseFuture};
use baton_messages::cluster::GetCluster;
use baton_messages::raft::GetRaftView;
use baton_messages::sequencer::GetQueueView;
use baton_messages::signer::GetSignerView;
use baton_messages::status::{GetNodeStatus, NodeChanged, NodeStatus};
use baton_messages::supervisor::GetSupervisorView;
use baton_storage::Store;
use futures::FutureExt;
use futures::future::{LocalBoxFuture, Shared};
use tokio::time::Instant;
use tracing::debug;

/// Who asks within this gets the answer that was begun for the first.
const SHARED_FOR: Duration = Duration::from_millis(25);

/// How patient the board is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// For each actor's answer; they are asked at the same time.
    pub reply_within: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { reply_within: Duration::from_secs(1) }
    }
}

/// Whom the board asks.
#[derive(Clone, Debug)]
pub struct Links {
    /// Raft.
    pub raft_view: Recipient<GetRaftView>,
    /// The supervisor.
    pub supervisor_view: Recipient<GetSupervisorView>,
    /// The sequencer.
    pub queue_view: Recipient<GetQueueView>,
    /// The signer; a witness has none.
    pub signer_view: Option<Recipient<GetSignerView>>,
    /// Raft again, for the cluster.
    pub cluster_view: Option<Recipient<GetCluster>>,
}

/// The status board.
pub struct Board {
    config: Config,
    links: Links,
    store: Store,
    /// The answer that is under way or was given last, and when it was begun.
    last: Option<(Instant, Shared<LocalBoxFuture<'static, NodeStatus>>)>,
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Board").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Board {
    /// A board that asks these actors and reads this store.
    #[must_use]
    pub fn new(config: Config, links: Links, store: Store) -> Self {
        Self { config, links, store, last: None }
    }
}

impl Actor for Board {
    type Context = Context<Self>;
}

impl Handler<GetNodeStatus> for Board {
    type Result = ResponseFuture<NodeStatus>;

    fn handle(&mut self, _: GetNodeStatus, _: &mut Self::Context) -> Self::Result {
        let now = Instant::now();
        if let Some((_, answer)) = self.last.as_ref().filter(|(at, _)| now.duration_since(*at) < SHARED_FOR) {
            return Box::pin(answer.clone());
        }
        // All three are in memory: the board does not wait for a disk.
        let reader = self.store.reader();
        let (tip, da) = (reader.tip(), reader.da_progress());
        let store_trouble = self.store.trouble().map(|trouble| trouble.to_string());
        let Links { raft_view, supervisor_view, queue_view, signer_view, cluster_view } = self.links.clone();
        let within = self.config.reply_within;
        let answer = async move {
            let signer = async {
                match signer_view {
                    Some(signer_view) => ask("signer", &signer_view, GetSignerView, within).await,
                    None => None,
                }
            };
            let cluster = async {
                match cluster_view {
                    Some(cluster_view) => ask("raft", &cluster_view, GetCluster, within).await,
                    None => None,
                }
            };
            let (raft, supervisor, queue, signer, cluster) = futures::join!(
                ask("raft", &raft_view, GetRaftView, within),
                ask("supervisor", &supervisor_view, GetSupervisorView, within),
                ask("sequencer", &queue_view, GetQueueView, within),
                signer,
                cluster,
            );
            NodeStatus { tip, da, store_trouble, raft, supervisor, queue, signer, cluster, follow: None }
        };
        let answer = answer.boxed_local().shared();
        self.last = Some((now, answer.clone()));
        Box::pin(answer)
    }
}

impl Handler<NodeChanged> for Board {
    type Result = ();

    fn handle(&mut self, _: NodeChanged, _: &mut Self::Context) {
        self.last = None;
    }
}

async fn ask<M>(who: &'static str, link: &Recipient<M>, question: M, within: Duration) -> Option<M::Result>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    match link.send(question).timeout(within).await {
        Ok(answer) => Some(answer),
        Err(error) => {
            debug!(who, %error, "no answer for the status board");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use actix::MessageResult;
    use baton_messages::cluster::ClusterView;
    use baton_messages::raft::RaftView;
    use baton_messages::sequencer::QueueView;
    use baton_messages::signer::SignerView;
    use baton_messages::supervisor::SupervisorView;
    use baton_messages::types::{Height, LogIndex, Term};
    use baton_storage::memory::{Disk, options};
    use tokio::task::LocalSet;
    use uuid::Uuid;

    use super::*;

    /// Answers everything, or nothing ever.
    struct Actors {
        silent: bool,
    }

    impl Actor for Actors {
        type Context = Context<Self>;
    }

    impl Actors {
        fn answer<T: 'static>(&self, answer: T) -> ResponseFuture<T> {
            let silent = self.silent;
            Box::pin(async move {
                match silent {
                    true => futures::future::pending().await,
                    false => answer,
                }
            })
        }
    }

    macro_rules! answers {
        ($($question:ty => $answer:expr),* $(,)?) => {$(
            impl Handler<$question> for Actors {
                type Result = ResponseFuture<<$question as Message>::Result>;

                fn handle(&mut self, _: $question, _: &mut Self::Context) -> Self::Result {
                    self.answer($answer)
                }
            }
        )*};
    }

    answers! {
        GetRaftView => RaftView { term: Term(3), ..RaftView::default() },
        GetSupervisorView => SupervisorView { executed: Height(7), ..SupervisorView::default() },
        GetQueueView => QueueView { txs: 5, ..QueueView::default() },
        GetSignerView => SignerView::default(),
        GetCluster => ClusterView { version: LogIndex(4), ..ClusterView::default() },
    }

    fn store() -> Store {
        Store::create_in_memory(&Disk::new(), options("test-chain"), Uuid::from_u128(1)).unwrap()
    }

    /// What a board says, with a silent or a talking Raft among talking actors.
    async fn board_says(raft_is_silent: bool, store: Store) -> NodeStatus {
        let ask = async {
            let others = Actors { silent: false }.start();
            let links = Links {
                raft_view: Actors { silent: raft_is_silent }.start().recipient(),
                supervisor_view: others.clone().recipient(),
                queue_view: others.clone().recipient(),
                signer_view: Some(others.clone().recipient()),
                cluster_view: Some(others.recipient()),
            };
            Board::new(Config::default(), links, store).start().send(GetNodeStatus).await.unwrap()
        };
        LocalSet::new().run_until(ask).await
    }

    #[tokio::test(start_paused = true)]
    async fn the_board_says_what_the_actors_say() {
        let status = board_says(false, store()).await;
        assert_eq!(status.raft.map(|raft| raft.term), Some(Term(3)));
        assert_eq!(status.supervisor.map(|supervisor| supervisor.executed), Some(Height(7)));
        assert_eq!(status.queue.map(|queue| queue.txs), Some(5));
        assert_eq!(status.signer, Some(SignerView::default()));
        assert_eq!(status.cluster.map(|cluster| cluster.version), Some(LogIndex(4)));
        assert_eq!(status.store_trouble, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_actor_is_a_missing_part_and_no_more() {
        let status = board_says(true, store()).await;
        assert_eq!(status.raft, None);
        assert_eq!(status.supervisor.map(|supervisor| supervisor.executed), Some(Height(7)));
        assert_eq!(status.queue.map(|queue| queue.txs), Some(5));
    }

    /// Counts how often it is asked.
    struct Counting(Rc<Cell<u32>>);

    impl Actor for Counting {
        type Context = Context<Self>;
    }

    impl Handler<GetRaftView> for Counting {
        type Result = MessageResult<GetRaftView>;

        fn handle(&mut self, _: GetRaftView, _: &mut Self::Context) -> Self::Result {
            self.0.set(self.0.get() + 1);
            MessageResult(RaftView::default())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_who_ask_at_once_ask_the_actors_once() {
        let asked = Rc::new(Cell::new(0));
        let count = asked.clone();
        let all = async move {
            let others = Actors { silent: false }.start();
            let links = Links {
                raft_view: Counting(count).start().recipient(),
                supervisor_view: others.clone().recipient(),
                queue_view: others.clone().recipient(),
                signer_view: None,
                cluster_view: None,
            };
            let board = Board::new(Config::default(), links, store()).start();
            let asking = (0..1000).map(|_| board.send(GetNodeStatus));
            assert!(futures::future::join_all(asking).await.iter().all(Result::is_ok));
            tokio::time::sleep(SHARED_FOR).await;
            board.send(GetNodeStatus).await.unwrap();
            // Who asks after a command is not told what was before it.
            board.do_send(NodeChanged);
            board.send(GetNodeStatus).await.unwrap();
        };
        LocalSet::new().run_until(all).await;
        assert_eq!(asked.get(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_fails_is_trouble_beside_everything_else() {
        let store = store();
        store.close();
        let failed = store.reader().header(Height(1)).unwrap_err();
        let status = board_says(false, store).await;
        assert_eq!(status.store_trouble, Some(failed.to_string()));
        assert_eq!(status.raft.map(|raft| raft.term), Some(Term(3)));
    }
}
