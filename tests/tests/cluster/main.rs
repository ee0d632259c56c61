//! Clusters in virtual time: what they promise, and what happens when members go.

mod basics;
mod borrowed;
mod chaos;
mod damage;
mod failover;
mod gossip;
mod handoff;
mod log;
mod membership;
mod pause;
mod reviewed;
mod transactions;
mod wire;
