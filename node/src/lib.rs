//! Configuration, wiring, and the adapters to the outside world.

pub mod admin;
pub mod body;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod dev_da;
pub mod devnet;
pub mod disk;
pub mod exit;
pub mod failpoints;
pub mod genesis;
pub mod home;
pub mod init;
pub mod keys;
pub mod kv_http;
pub mod load;
pub mod logging;
pub mod memory;
pub mod metrics;
pub mod rpc;
pub mod run;
pub mod status;
pub mod store_tool;
pub mod tls_tool;
pub mod wiring;
pub mod witness;
