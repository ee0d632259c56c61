//! Operators' commands to a running node, over a Unix socket in its home.
//!
//! One line of JSON asks, one line answers. No TCP port takes a command: whoever may use the
//! socket may read the key file beside it, so the socket is as safe as the home. It is readable
//! by its owner only, and the kernel says which user is at the other end.

pub mod answer;
pub mod client;
pub mod protocol;
pub mod show;
pub mod socket;
pub mod status;
#[cfg(test)]
mod tests;

pub use answer::Links;
pub use socket::{Admin, BindError, Config, Metrics};
