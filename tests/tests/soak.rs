//! Memory under more load than a node can take; `scripts/soak.sh` is the long run of the same.
#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use sim::process::{baton, free_ports};
use tokio::process::Command;
use tokio::time::timeout;

/// Runs the script. The queue is small, so that it is full within seconds.
async fn soak(settings: &[(&str, &str)]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/soak.sh");
    let port = free_ports(14).to_string();
    let mut command = Command::new(script);
    command.env("BATON_BIN", baton()).env("SOAK_PORT", port).env("BATON_QUEUE_MAX_TXS", "5000");
    command.envs(settings.iter().copied()).kill_on_drop(true);
    let output = timeout(Duration::from_secs(180), command.output()).await;
    let output = output.expect("it ends by itself").expect("the script can be started");
    println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    output
}

#[tokio::test]
async fn memory_does_not_grow_under_overload() {
    // Larger transactions fill caches and write buffers sooner.
    let load = [("SOAK_BLOCK_BYTES", "400000"), ("SOAK_TX_BYTES", "4000")];
    // A small queue is full long before the base, also on a slow machine: what grows after that
    // is not what waits.
    let window = [
        ("SOAK_SECONDS", "75"),
        ("SOAK_BASE", "30"),
        ("SOAK_PERCENT", "125"),
        ("SOAK_QUEUE_BYTES", "8388608"),
    ];
    assert!(soak(&[load.as_slice(), &window].concat()).await.status.success());
}

#[tokio::test]
async fn the_run_fails_above_the_ceiling() {
    let output = soak(&[("SOAK_SECONDS", "20"), ("SOAK_BASE", "10"), ("SOAK_CEILING", "1")]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("above the ceiling"));
}
