//! Feeds arbitrary bytes to `exercise::gossip`.
#![no_main]

#[path = "../exercise.rs"]
#[allow(dead_code, reason = "each target uses one function")]
mod exercise;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| exercise::gossip(bytes));
