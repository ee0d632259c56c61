//! Asks a node everything that ev-node's Rust client can ask, and prints the answers as JSON in the
//! shape of the node's own JSON API, so that they can be compared.
//!
//!     ev-client-probe <rpc url> <height> <header hash in hex> <metadata key>

use std::error::Error;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ev_client::{Client, ClientError, P2PClient, SignerClient, StoreClient, v1};
use serde_json::{Map, Value, json};

type Failure = Box<dyn Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [url, height, hash, key] = &args[..] else {
        return Err("usage: ev-client-probe <rpc url> <height> <header hash> <metadata key>".into());
    };
    let (height, hash) = (height.parse()?, unhex(hash)?);
    let client = Client::connect(url.clone()).await?;
    let mut answers = Map::new();
    ask_store(&mut answers, &StoreClient::new(&client), height, hash, key).await?;
    // The other two ways to connect.
    let built = Client::builder().endpoint(url.clone()).timeout(Duration::from_secs(10)).build().await?;
    ask_network(&mut answers, &P2PClient::new(&built)).await?;
    let configured = Client::connect_with_config(url.clone(), |endpoint| endpoint.tcp_nodelay(true)).await?;
    ask_about_itself(&mut answers, &configured).await?;
    let signer = SignerClient::new(&client);
    answers.insert("sign".to_owned(), refused(signer.sign(vec![1]).await));
    answers.insert("public key".to_owned(), refused(signer.get_public_key().await));
    println!("{}", Value::Object(answers));
    Ok(())
}

async fn ask_store(
    answers: &mut Map<String, Value>,
    store: &StoreClient,
    height: u64,
    hash: Vec<u8>,
    key: &str,
) -> Result<(), Failure> {
    let whole = |answer: v1::GetBlockResponse| {
        object([
            ("block", answer.block.map_or(Value::Null, block)),
            ("headerDaHeight", number(answer.header_da_height)),
            ("dataDaHeight", number(answer.data_da_height)),
        ])
    };
    let by_height = whole(store.get_block_full_by_height(height).await?);
    let by_hash = whole(store.get_block_full_by_hash(hash.clone()).await?);
    let alone = store.get_block_by_height(height).await?.map_or(Value::Null, block);
    if alone != by_height["block"] || store.get_block_by_hash(hash).await?.map(block) != Some(alone) {
        return Err("the short answers are not the full ones".into());
    }
    answers.insert("block".to_owned(), by_height);
    answers.insert("block by hash".to_owned(), by_hash);
    answers.insert("no block".to_owned(), refused(store.get_block_by_height(u64::MAX).await));
    answers.insert("state".to_owned(), store.get_state_full().await?.state.map_or(Value::Null, state));
    if store.get_state().await?.is_none() {
        return Err("the short answer has no state".into());
    }
    let value = store.get_metadata(key.to_owned()).await?;
    if store.get_metadata_full(key.to_owned()).await?.value != value {
        return Err("the short answer is not the full one".into());
    }
    answers.insert("metadata".to_owned(), bytes(&value));
    answers.insert("no metadata".to_owned(), refused(store.get_metadata("none".to_owned()).await));
    Ok(())
}

async fn ask_network(answers: &mut Map<String, Value>, p2p: &P2PClient) -> Result<(), Failure> {
    let peers = p2p.get_peer_info_response().await?.peers;
    if p2p.get_peer_info().await? != peers || p2p.peer_count().await? != peers.len() {
        return Err("the short answers are not the full one".into());
    }
    let peer = |peer: v1::PeerInfo| object([("id", peer.id.into()), ("address", peer.address.into())]);
    answers.insert("peers".to_owned(), peers.into_iter().map(peer).collect());
    let net = p2p.get_net_info_response().await?.net_info.unwrap_or_default();
    if p2p.get_net_info().await? != net {
        return Err("the short answer is not the full one".into());
    }
    let info = object([
        ("id", net.id.into()),
        ("listenAddresses", net.listen_addresses.into()),
        ("connectedPeers", net.connected_peers.into()),
    ]);
    answers.insert("net info".to_owned(), info);
    Ok(())
}

#[cfg(not(feature = "repository"))]
async fn ask_about_itself(answers: &mut Map<String, Value>, client: &Client) -> Result<(), Failure> {
    let health = ev_client::HealthClient::new(client);
    if !health.is_healthy().await? || health.get_health().await?.status() != health.livez().await? {
        return Err("it is not healthy".into());
    }
    answers.insert("health".to_owned(), health.livez().await?.as_str_name().into());
    Ok(())
}

#[cfg(feature = "repository")]
async fn ask_about_itself(answers: &mut Map<String, Value>, client: &Client) -> Result<(), Failure> {
    let config = ev_client::ConfigClient::new(client);
    let namespaces = config.get_namespace().await?;
    let [headers, data] = [config.get_header_namespace().await?, config.get_data_namespace().await?];
    if (&headers, &data) != (&namespaces.header_namespace, &namespaces.data_namespace) {
        return Err("the short answers are not the full one".into());
    }
    let namespaces = object([("headerNamespace", headers.into()), ("dataNamespace", data.into())]);
    answers.insert("namespaces".to_owned(), namespaces);
    let signer = config.get_signer_info().await?;
    answers.insert("signer".to_owned(), object([("address", bytes(&signer.address))]));
    Ok(())
}

fn block(block: v1::Block) -> Value {
    let signed = block.header.unwrap_or_default();
    let signer = signed.signer.unwrap_or_default();
    let header = object([
        ("header", signed.header.map_or(Value::Null, header)),
        ("signature", bytes(&signed.signature)),
        ("signer", object([("address", bytes(&signer.address)), ("pubKey", bytes(&signer.pub_key))])),
    ]);
    let data = block.data.unwrap_or_default();
    let metadata = data.metadata.unwrap_or_default();
    let metadata = object([
        ("chainId", metadata.chain_id.into()),
        ("height", number(metadata.height)),
        ("time", number(metadata.time)),
        ("lastDataHash", bytes(&metadata.last_data_hash)),
    ]);
    let txs: Value = data.txs.iter().map(|tx| Value::String(BASE64_STANDARD.encode(tx))).collect();
    object([("header", header), ("data", object([("metadata", metadata), ("txs", txs)]))])
}

fn header(header: v1::Header) -> Value {
    object([
        ("version", header.version.map_or(Value::Null, version)),
        ("height", number(header.height)),
        ("time", number(header.time)),
        ("lastHeaderHash", bytes(&header.last_header_hash)),
        ("dataHash", bytes(&header.data_hash)),
        ("appHash", bytes(&header.app_hash)),
        ("proposerAddress", bytes(&header.proposer_address)),
        ("validatorHash", bytes(&header.validator_hash)),
        ("chainId", header.chain_id.into()),
    ])
}

fn version(version: v1::Version) -> Value {
    json!(object([("block", number(version.block)), ("app", number(version.app))]))
}

/// The fields of a state that the client on crates.io has, too.
fn state(state: v1::State) -> Value {
    let time = state.last_block_time.unwrap_or_default();
    object([
        ("version", state.version.map_or(Value::Null, version)),
        ("chainId", state.chain_id.into()),
        ("initialHeight", number(state.initial_height)),
        ("lastBlockHeight", number(state.last_block_height)),
        ("lastBlockSeconds", time.seconds.into()),
        ("daHeight", number(state.da_height)),
        ("appHash", bytes(&state.app_hash)),
    ])
}

/// The code of an error that is expected.
fn refused<T>(answer: Result<T, ClientError>) -> Value {
    match answer {
        Ok(_) => Value::Null,
        Err(ClientError::Rpc(status)) => format!("{:?}", status.code()).into(),
        Err(other) => other.to_string().into(),
    }
}

/// An object without what protojson leaves out: zero, and nothing.
fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let is_set = |value: &Value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    };
    let fields = fields.into_iter().filter(|(_, value)| is_set(value));
    Value::Object(fields.map(|(name, value)| (name.to_owned(), value)).collect())
}

fn number(number: u64) -> Value {
    if number == 0 { Value::Null } else { number.to_string().into() }
}

fn bytes(bytes: &[u8]) -> Value {
    BASE64_STANDARD.encode(bytes).into()
}

fn unhex(text: &str) -> Result<Vec<u8>, Failure> {
    let digits = |at: usize| text.get(at..at + 2).ok_or("an odd number of digits");
    (0..text.len()).step_by(2).map(|at| Ok(u8::from_str_radix(digits(at)?, 16)?)).collect()
}
