//! The guides: what they tell operators to type is typed here.
#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

use std::path::Path;
use std::process::{Command, Stdio};

use sim::process::{EvNode, baton, free_ports};
use sim::skip;

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

#[test]
fn the_commands_of_the_guide_move_a_chain_from_ev_node_to_a_cluster() {
    let check = "the_commands_of_the_guide_move_a_chain_from_ev_node_to_a_cluster";
    if EvNode::program().is_none() {
        return skip(check, "ev-node", "BATON_EVNODE does not name ev-node's testapp");
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let output = Command::new(root.join("scripts/check-migration.sh"))
        .env("BATON_BIN", baton())
        .env("BASE_PORT", free_ports(40).to_string())
        .stdin(Stdio::null())
        .output()
        .expect("bash is there");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("move the chain"), "{said}");
}
