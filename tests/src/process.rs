//! Real processes: a node and its DA server, clients that remember what they were told, and the
//! checks on what is left when everything has come to rest.
//!
//! The simulation covers every interleaving it can think of; this covers the binary as it is
//! delivered: its signals, files, ports, exit codes and the operating system under it.
#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

use std::time::Duration;

mod child;
mod da_scan;
mod devnet;
mod evnode;
mod follower;
mod footprint;
mod link;
mod load;
mod members;
mod namespaces;
mod places;
mod scrape;
mod site;
mod stalls;
mod verify;

pub use child::{Child, baton, free_ports};
pub use devnet::{Devnet, pid};
pub use evnode::{EvNode, peer_address};
pub use follower::{Follower, hashes};
pub use footprint::Footprint;
pub use link::{Link, Weather};
pub use load::Load;
pub use members::{Members, Wish};
pub use namespaces::{Apart, Namespaces};
pub use places::fail_points;
pub use scrape::Scrape;
pub use site::Site;
pub use stalls::Stalls;
pub use verify::{Found, check_guard, verify, verify_all};

/// Settings of a cluster on a fast local network: blocks, DA, heartbeats, elections.
pub const TIMES: [&str; 10] = [
    "--evnode.node.block_time",
    "100ms",
    "--evnode.da.block_time",
    "1s",
    "--raft.heartbeat_interval",
    "50ms",
    "--raft.election_timeout_min",
    "150ms",
    "--raft.election_timeout_max",
    "250ms",
];

/// A gap between blocks may be so long on a machine that does not stall: far above what is usual,
/// which the long runs report.
pub const COARSE: Duration = Duration::from_secs(5);
