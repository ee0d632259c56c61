//! What the benchmarks share: one node of real actors in real time, and what it is fed with.
//!
//! The node is wired as `baton start` wires it. What differs: the DA layer takes everything and
//! keeps nothing, there is no RPC, and blocks follow each other without a pause.

mod da;
pub mod feed;
pub mod node;
pub mod place;
mod timings;

pub use da::Accepting;
pub use timings::Timings;
