//! Everything that a DA server holds of a test's chain.

use baton_messages::da::Namespace;
use serde_json::Value;

/// Where headers and data go on DA.
pub(super) const NAMESPACES: [&str; 2] = ["chaos-headers", "chaos-data"];

/// Everything on DA in the order of DA: the blobs of headers, and those of data.
pub(super) async fn on_da(http: &reqwest::Client, url: &str) -> [Vec<Vec<u8>>; 2] {
    let head = call(http, url, "header.LocalHead", &serde_json::json!([])).await;
    let head = head["height"].as_str().and_then(|height| height.parse::<u64>().ok()).expect("DA has blocks");
    let mut found = [vec![], vec![]];
    for height in 1..=head {
        for (name, found) in NAMESPACES.iter().zip(&mut found) {
            let namespace = Namespace::of(name).to_base64();
            let blobs = call(http, url, "blob.GetAll", &serde_json::json!([height, [namespace]])).await;
            for blob in blobs.as_array().map_or(&[][..], Vec::as_slice) {
                let data = blob["data"].as_str().expect("a blob has data");
                found.push(base64::Engine::decode(&base64::prelude::BASE64_STANDARD, data).expect("base64"));
            }
        }
    }
    found
}

/// The result of a call to the DA server; null when it says that there is nothing.
async fn call(http: &reqwest::Client, url: &str, method: &str, params: &Value) -> Value {
    let request = serde_json::json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let answer = http.post(url).json(&request).send().await.expect("the DA server answers");
    let answer: Value = answer.json().await.expect("the answer is JSON");
    match &answer["error"]["message"] {
        Value::Null => answer["result"].clone(),
        Value::String(reason) if reason.contains("not found") => Value::Null,
        other => panic!("{method} {params}: {other}"),
    }
}
