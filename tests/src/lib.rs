//! Simulation library for Baton: a whole node in one thread, on virtual time, from one seed.

mod da;
mod power;
mod probe;
mod run;
mod skip;

pub use da::{FakeDa, Ledger};
pub use power::{Cut, Power};
pub use probe::{Probe, probe};
pub use run::{SimClock, seeds, sim_run};
pub use skip::skip;
