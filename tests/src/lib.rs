//! Simulation library: probes, strict fakes, and nodes in virtual time.

mod skip;

pub use skip::skip;
