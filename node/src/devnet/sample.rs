//! One transaction, followed from the node to the DA layer: what `make run` shows first.

use std::time::Duration;

use reqwest::Client;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::devnet::plan::{Member, http_url};
use crate::devnet::report::Detail;

/// How long the transaction may take to be executed.
const EXECUTED_WITHIN: Duration = Duration::from_secs(60);

/// How often the node is asked whether the block is on the DA layer, and for how many times.
const ASK: (Duration, u32) = (Duration::from_millis(500), 240);

/// The transaction.
const SAMPLE: &str = "hello=world";

/// Why the sample says nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The node does not answer.
    #[error("no answer: {0}")]
    NoAnswer(#[from] reqwest::Error),
    /// The node refused it.
    #[error("refused with {status}: {body}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What the node says.
        body: String,
    },
    /// The answer lacks what it should hold.
    #[error("the answer has no height: {0}")]
    NoHeight(String),
    /// It takes too long.
    #[error("block {0} did not reach the DA layer in time")]
    NotIncluded(u64),
}

/// Posts the sample to a node and waits until its block is on the DA layer.
pub async fn follow(node: Member) -> Result<Detail, Error> {
    let kv = http_url(node.ports.kv.expect("a node has a port for the key-value app"));
    let client = Client::builder().no_proxy().timeout(EXECUTED_WITHIN).build()?;
    let answer = client.post(format!("{kv}/tx?wait=executed")).body(SAMPLE).send().await?;
    let status = answer.status();
    let body = answer.text().await?;
    if !status.is_success() {
        return Err(Error::Refused { status: status.as_u16(), body });
    }
    let height = height(&body).ok_or(Error::NoHeight(body))?;
    let da_height = da_height(&client, &node, height).await?;
    let curl = format!("curl -X POST --data 'key=value' '{kv}/tx?wait=executed'");
    Ok(Detail::Sample { tx: SAMPLE, height, da_height, curl })
}

/// Waits until a block's header and data are on the DA layer.
async fn da_height(client: &Client, node: &Member, height: u64) -> Result<u64, Error> {
    let url = format!("{}/evnode.v1.StoreService/GetBlock", http_url(node.ports.rpc));
    for _ in 0..ASK.1 {
        let answer = client.post(&url).json(&json!({ "height": height.to_string() })).send().await?;
        if let Some(da_height) = answer.json().await.ok().as_ref().and_then(later_da_height) {
            return Ok(da_height);
        }
        sleep(ASK.0).await;
    }
    Err(Error::NotIncluded(height))
}

fn height(body: &str) -> Option<u64> {
    number(serde_json::from_str::<Value>(body).ok()?.get("height")?)
}

/// A block without transactions has no data of its own on the DA layer; this one has both. The
/// later of the two is where the block is complete.
fn later_da_height(block: &Value) -> Option<u64> {
    let of = |field: &str| block.get(field).and_then(number).filter(|height| *height > 0);
    Some(of("headerDaHeight")?.max(of("dataDaHeight")?))
}

/// Protobuf's JSON writes 64-bit numbers as strings.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_on_the_da_layer_once_header_and_data_are() {
        assert_eq!(later_da_height(&json!({ "block": {} })), None);
        assert_eq!(later_da_height(&json!({ "headerDaHeight": "7" })), None);
        assert_eq!(later_da_height(&json!({ "headerDaHeight": "7", "dataDaHeight": "0" })), None);
        assert_eq!(later_da_height(&json!({ "headerDaHeight": "7", "dataDaHeight": "9" })), Some(9));
    }

    #[test]
    fn the_height_is_read_from_the_answer() {
        assert_eq!(height(r#"{"height":3,"index":0}"#), Some(3));
        assert_eq!(height("Transaction accepted"), None);
    }
}
