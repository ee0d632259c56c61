//! Real processes: a node and its DA server, clients that remember what they were told, and the
//! checks on what is left when everything has come to rest.
//!
//! The simulation covers every interleaving it can think of; this covers the binary as it is
//! delivered: its signals, files, ports, exit codes and the operating system under it.
#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

mod child;
mod da_scan;
mod devnet;
mod follower;
mod footprint;
mod link;
mod load;
mod members;
mod places;
mod scrape;
mod site;
mod verify;

pub use child::{Child, baton, free_ports};
pub use devnet::{Devnet, pid};
pub use follower::{Follower, hashes};
pub use footprint::Footprint;
pub use link::{Link, Weather};
pub use load::Load;
pub use members::{Members, Stalls, Wish};
pub use places::fail_points;
pub use scrape::Scrape;
pub use site::Site;
pub use verify::{Found, check_guard, verify, verify_all};
