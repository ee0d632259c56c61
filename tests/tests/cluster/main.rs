//! Clusters in virtual time: what they promise, and what happens when members go.

mod basics;
mod borrowed;
mod censored;
mod chaos;
mod da;
mod damage;
mod failover;
mod forced;
mod found;
mod gossip;
mod handoff;
mod leaving;
mod log;
mod membership;
mod pause;
mod reviewed;
mod settings;
mod transactions;
mod wire;
