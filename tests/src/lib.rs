//! Simulation library for Baton: a whole node in one thread, on virtual time, from one seed.
//!
//! The real actors, the real openraft and the real storage logic run inside; what is outside
//! of the process is replaced: the disk by one that loses what was not synced, the guard's file
//! by one that tears, the DA layer, the clock and the clients by fakes that are strict. The
//! power can go off between any two effects.
//!
//! ```
//! use sim::{Node, Plan, sim_run};
//! use std::time::Duration;
//!
//! sim_run(7, || async {
//!     let mut node = Node::start(&Plan::default());
//!     node.submit("a=1").await.expect("accepted");
//!     node.reach(3).await;
//!     assert!(node.tip().height.0 >= 3);
//! });
//! ```
//!
//! Any actor can be swapped for another before the node starts:
//!
//! ```
//! use actix::{Actor, Context};
//! use baton::wiring::producer;
//! use sim::{Node, Plan, sim_run};
//!
//! struct Idle;
//! impl Actor for Idle {
//!     type Context = Context<Self>;
//! }
//!
//! sim_run(7, || async {
//!     let adjust: sim::Adjust = Box::new(|wiring| wiring.executor = Some(producer("idle", |_| Idle)));
//!     let node = Node::start(&Plan { adjust: Some(adjust), ..Plan::default() });
//!     node.submit("a=1").await.expect("accepted, although nobody makes blocks");
//!     tokio::time::sleep(std::time::Duration::from_secs(5)).await;
//!     assert_eq!(node.tip().height.0, 0);
//! });
//! ```

pub mod campaign;
mod client;
mod cluster;
mod da;
mod engine;
mod following;
pub mod history;
#[cfg(feature = "mutations")]
pub mod mutants;
mod neighbours;
mod net;
mod node;
mod p2p_net;
mod power;
pub mod prelude;
mod probe;
pub mod process;
mod rate;
mod run;
pub mod shrink;
mod skip;
mod stage;
pub mod story;

pub use client::{Ack, Oracle};
pub use cluster::{AdjustNode, Cluster, ClusterPlan, HEARTBEAT, Way, address, cluster_run, member, name};
pub use da::{FakeDa, Ledger};
pub use engine::{CALLS, FakeEngine, Script};
pub use following::{FollowPlan, FollowingNode, check_follows};
pub use neighbours::Neighbours;
pub use net::{Net, SeenLives, Weather};
pub use node::{Adjust, MAX_CLOCK_DRIFT, Machine, MakeEngine, Node, Plan, check_chain, check_chains};
pub use p2p_net::{P2pNet, Peering, Script as PeerScript};
pub use power::{Cut, Power, Touched};
pub use probe::{Probe, probe};
pub use rate::Rate;
pub use run::{SimClock, listed, listed_seeds, seeds, sim_run};
pub use skip::skip;
pub use stage::{GRANT, Stage, root_of, tx};

/// The README's code compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}

/// What the page says about simulations compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../../docs/simulation.md")]
mod page {}
