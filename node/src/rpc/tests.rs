//! The HTTP side over real sockets on loopback.

mod grpc;
mod limits;
mod node;
mod plain;
mod services;
