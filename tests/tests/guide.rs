//! The guide of a cluster: what it tells operators to type is typed here.
#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

use std::path::Path;
use std::process::{Command, Stdio};

use sim::process::{baton, free_ports};

#[test]
fn the_commands_of_the_guide_make_a_cluster_that_survives_a_failover() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let output = Command::new(root.join("scripts/check-guide.sh"))
        .env("BATON_BIN", baton())
        .env("BASE_PORT", free_ports(72).to_string())
        .stdin(Stdio::null())
        .output()
        .expect("bash is there");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("cluster  "),
        "nobody looked at the cluster: {said}"
    );
}
