//! `baton net-info`: a running node's place in the peer-to-peer network, asked over its RPC as
//! ev-node's command of that name does it.

use std::fmt::Write as _;
use std::time::Duration;

use baton_messages::wire::rpc::{GetNetInfoResponse, GetPeerInfoResponse, NetInfo, PeerInfo};
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cli::args::NodeArgs;
use crate::cli::place::Place;
use crate::config::value::reachable;
use crate::exit::ExitError;
use crate::logging::print;

/// How the answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Arguments of `net-info`.
#[derive(Clone, Debug, Args)]
pub struct NetInfoArgs {
    /// How to write it.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,

    /// Where the node is, and its settings; `rpc.address` is asked.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// The longest wait for the node.
const WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug, Serialize)]
struct Shown<'a> {
    node_id: &'a str,
    listen_addresses: &'a [String],
    peers: Vec<ShownPeer<'a>>,
}

#[derive(Debug, Serialize)]
struct ShownPeer<'a> {
    id: &'a str,
    address: &'a str,
}

/// Asks and prints.
///
/// # Errors
///
/// When the node does not answer or its network is off.
pub async fn run(args: NetInfoArgs) -> Result<(), ExitError> {
    let address = Place::of(&args.node)?.settings.text("rpc.address");
    let base = format!("http://{}", reachable(&address));
    let info: GetNetInfoResponse = call(&base, "GetNetInfo").await?;
    let peers: GetPeerInfoResponse = call(&base, "GetPeerInfo").await?;
    let info = info.net_info.unwrap_or_default();
    print(&match args.output {
        Output::Text => text(&info, &peers.peers),
        Output::Json => json(&info, &peers.peers),
    })
}

async fn call<A: DeserializeOwned>(base: &str, method: &str) -> Result<A, ExitError> {
    let failed = |reason: String| ExitError::retry_later(format!("{base}: {reason}"));
    let client = reqwest::Client::builder().timeout(WITHIN).build().map_err(ExitError::other)?;
    let url = format!("{base}/evnode.v1.P2PService/{method}");
    let sent = client.post(url).json(&serde_json::json!({})).send().await;
    let answer = sent.map_err(|error| failed(format!("{error}; is the node running?")))?;
    if !answer.status().is_success() {
        let reason = answer.text().await.unwrap_or_default();
        return Err(failed(reason.chars().take(500).collect()));
    }
    answer.json().await.map_err(|error| failed(format!("no answer of this service: {error}")))
}

fn json(info: &NetInfo, peers: &[PeerInfo]) -> String {
    let peers = peers.iter().map(|peer| ShownPeer { id: &peer.id, address: &peer.address }).collect();
    let shown = Shown { node_id: &info.id, listen_addresses: &info.listen_addresses, peers };
    serde_json::to_string_pretty(&shown).expect("texts are valid JSON") + "\n"
}

fn text(info: &NetInfo, peers: &[PeerInfo]) -> String {
    let mut text = format!("node id: {}\n", info.id);
    for address in &info.listen_addresses {
        let _ = writeln!(text, "listens: {address}");
    }
    let _ = writeln!(text, "connected peers: {}", peers.len());
    for peer in peers {
        let _ = writeln!(text, "  {}", peer.address);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_has_the_fields_of_ev_node() {
        let info = NetInfo {
            id: "12D3".to_owned(),
            listen_addresses: vec!["/ip4/1.2.3.4/tcp/1/p2p/12D3".to_owned()],
            connected_peers: vec![],
        };
        let peers = [PeerInfo { id: "12D4".to_owned(), address: "{12D4: [/ip4/1.2.3.5/tcp/1]}".to_owned() }];
        let value: serde_json::Value = serde_json::from_str(&json(&info, &peers)).unwrap();
        let wanted = serde_json::json!({
            "node_id": "12D3",
            "listen_addresses": ["/ip4/1.2.3.4/tcp/1/p2p/12D3"],
            "peers": [{"id": "12D4", "address": "{12D4: [/ip4/1.2.3.5/tcp/1]}"}],
        });
        assert_eq!(value, wanted);
        assert!(text(&info, &peers).contains("connected peers: 1\n  {12D4: [/ip4/1.2.3.5/tcp/1]}"));
    }
}
