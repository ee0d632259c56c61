//! The actors of Baton and their engine, DA and signer adapters.
//!
//! One file per actor; no actor imports another. They talk only by typed messages from
//! `baton-messages`, through `actix::Recipient`s that the node's wiring hands them.

pub mod checker;
pub mod child;
pub mod da;
pub mod da_retriever;
pub mod da_submitter;
pub mod engine;
pub mod executor;
pub mod gatherer;
pub mod inbox;
pub mod journal;
pub mod notary;
pub mod observer;
pub mod p2p;
pub mod quiet;
pub mod raft;
pub mod reaper;
pub mod record_file;
pub mod sequencer;
pub mod signer;
pub mod supervisor;
pub mod syncer;
pub mod timekeeper;
pub mod world;
