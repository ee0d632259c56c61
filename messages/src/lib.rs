//! Chain types, wire formats and every message the actors of Baton exchange.
//!
//! Nouns and verbs, no logic: what an actor says and hears is here, what it does is in the
//! `actors` crate. One file per conversation.

pub mod chain;
pub mod cluster;
pub mod codec;
pub mod command;
mod commitment;
pub mod da;
pub mod engine;
pub mod epoch;
pub mod executor;
pub mod follow;
pub mod forced;
pub mod genesis;
pub mod mutation;
pub mod p2p;
pub mod raft;
pub mod sequencer;
pub mod signer;
pub mod status;
pub mod supervisor;
pub mod syncer;
pub mod types;
pub mod wire;
