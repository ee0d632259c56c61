use std::path::Path;

use futures::{SinkExt, StreamExt};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

use super::*;

/// A running server that only makes blocks when something is submitted.
struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap();
    }
}

fn quiet(home: Option<&Path>) -> DevDaConfig {
    DevDaConfig {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        home: home.map(Path::to_owned),
        block_time: Duration::from_secs(3600),
        ..DevDaConfig::default()
    }
}

async fn run(config: DevDaConfig) -> Running {
    let server = bind(config).await.unwrap();
    let address = server.local_addr();
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(server.serve(async {
        let _ = stopped.await;
    }));
    Running { address, stop, task }
}

/// Posts a text and returns status and answer.
async fn post(address: SocketAddr, body: impl Into<reqwest::Body>) -> (u16, Value) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let response = client.post(format!("http://{address}/any/path")).body(body).send().await.unwrap();
    let status = response.status().as_u16();
    (status, response.json().await.unwrap())
}

async fn ask(address: SocketAddr, method: &str, params: Value) -> Value {
    let request = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params});
    let (status, answer) = post(address, request.to_string()).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!((&answer["id"], &answer["jsonrpc"]), (&json!(7), &json!("2.0")));
    answer
}

async fn fails(address: SocketAddr, method: &str, params: Value) -> String {
    let answer = ask(address, method, params).await;
    assert_eq!(answer["error"]["code"], 1, "{answer}");
    answer["error"]["message"].as_str().unwrap().to_owned()
}

/// base64 of 19 zeroes and ten bytes `0x01`.
const NAMESPACE: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAEBAQEBAQEBAQE=";
/// base64 of 19 zeroes and ten bytes `0x02`.
const OTHER: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAICAgICAgICAgI=";

fn blob(namespace: &str, data: &str) -> Value {
    json!({"namespace": namespace, "data": data, "share_version": 0, "commitment": null, "index": -1})
}

fn names(blobs: &Value) -> Vec<&str> {
    blobs.as_array().unwrap().iter().map(|blob| blob["data"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn every_submission_makes_a_block_that_can_be_read_back() {
    let server = run(quiet(None)).await;
    let at = server.address;
    let blobs = json!([blob(NAMESPACE, "AQ=="), blob(OTHER, "Ag=="), blob(NAMESPACE, "Aw==")]);
    assert_eq!(ask(at, "blob.Submit", json!([blobs, {}])).await["result"], 1);
    assert_eq!(ask(at, "blob.Submit", json!([[], {"gas_price": 0.1}])).await["result"], 2);

    let all = ask(at, "blob.GetAll", json!([1, []])).await;
    assert_eq!(names(&all["result"]), ["AQ==", "Ag==", "Aw=="]);
    let own = ask(at, "blob.GetAll", json!([1, [NAMESPACE]])).await;
    assert_eq!(names(&own["result"]), ["AQ==", "Aw=="]);
    let third = own["result"][1].clone();
    assert!(third.get("signer").is_none(), "ev-node refuses an empty signer: {third}");
    let params = json!([1, NAMESPACE, third["commitment"]]);
    assert_eq!(ask(at, "blob.Get", params.clone()).await["result"], third);
    assert_eq!(ask(at, "blob.GetProof", params.clone()).await["result"], json!([]));
    assert_eq!(ask(at, "blob.GetCommitmentProof", params).await["result"], json!({}));
    let params = json!([1, NAMESPACE, [], third["commitment"]]);
    assert_eq!(ask(at, "blob.Included", params).await["result"], true);
    let params = json!([1, OTHER, [], third["commitment"]]);
    assert_eq!(ask(at, "blob.Included", params).await["result"], false);
    server.stop().await;
}

#[tokio::test]
async fn what_is_not_there_is_told_apart_from_what_is_not_there_yet() {
    let server = run(quiet(None)).await;
    let at = server.address;
    assert_eq!(ask(at, "blob.Submit", json!([[blob(NAMESPACE, "AQ==")], {}])).await["result"], 1);
    let nothing = "blob: not found";
    assert_eq!(fails(at, "blob.GetAll", json!([0, [NAMESPACE]])).await, nothing);
    assert_eq!(fails(at, "blob.GetAll", json!([1, [OTHER]])).await, nothing);
    let commitment = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    assert_eq!(fails(at, "blob.Get", json!([1, NAMESPACE, commitment])).await, nothing);
    let later = "given height is from the future";
    assert_eq!(fails(at, "blob.GetAll", json!([2, [NAMESPACE]])).await, later);
    assert_eq!(fails(at, "blob.Get", json!([2, NAMESPACE, commitment])).await, later);
    assert_eq!(fails(at, "header.GetByHeight", json!([2])).await, later);
    server.stop().await;
}

#[tokio::test]
async fn headers_look_like_those_of_local_da() {
    let server = run(quiet(None)).await;
    let at = server.address;
    let start = ask(at, "header.NetworkHead", json!([])).await;
    assert!(start["result"].get("height").is_none());
    assert!(!start["result"]["time"].as_str().unwrap().starts_with("0001"), "{start}");
    ask(at, "blob.Submit", json!([[], {}])).await;
    let head = ask(at, "header.NetworkHead", json!([])).await["result"].clone();
    assert_eq!(head["height"], "1");
    assert_eq!(head["header"], json!({"chain_id": "", "height": 0, "time": "0001-01-01T00:00:00Z"}));
    assert_eq!(head["commit"], json!({"height": 0}));
    assert_eq!(head["dah"], json!({"row_roots": null, "column_roots": null}));
    assert_eq!(head["chain_id"], "local-da");
    head["time"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert_eq!(ask(at, "header.LocalHead", Value::Null).await["result"], head);
    assert_eq!(ask(at, "header.GetByHeight", json!([1])).await["result"], head);
    server.stop().await;
}

#[tokio::test]
async fn a_submission_with_one_bad_blob_stores_nothing() {
    let mut config = quiet(None);
    config.max_blob_size = 2;
    let server = run(config).await;
    let at = server.address;
    let with = |bad: Value| json!([[blob(NAMESPACE, "AQ=="), bad], {}]);
    assert_eq!(fails(at, "blob.Submit", with(blob(NAMESPACE, "AQID"))).await, "blob: over size limit");
    assert!(fails(at, "blob.Submit", with(blob(NAMESPACE, ""))).await.contains("empty"));
    let reserved = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    assert!(fails(at, "blob.Submit", with(blob(reserved, "AQ=="))).await.contains("namespace"));
    let mut wrong = blob(NAMESPACE, "AQ==");
    wrong["commitment"] = json!("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    assert!(fails(at, "blob.Submit", with(wrong)).await.contains("commitment"));
    let mut signed = blob(NAMESPACE, "AQ==");
    signed["share_version"] = json!(1);
    assert!(fails(at, "blob.Submit", with(signed)).await.contains("signer"));
    assert!(ask(at, "header.NetworkHead", json!([])).await["result"].get("height").is_none());
    server.stop().await;
}

#[tokio::test]
async fn garbage_gets_a_json_rpc_error() {
    let server = run(quiet(None)).await;
    let at = server.address;
    for (body, status, code) in [
        (&b""[..], 400, -32600),
        (b"\xff\x00\xfe", 500, -32700),
        (b"{", 500, -32700),
        (b"[]", 400, -32600),
        (b"{}", 500, -32601),
        (br#"{"id":1,"method":"no.such","params":[]}"#, 500, -32601),
        (br#"{"id":1,"method":"blob.Subscribe","params":["AA=="]}"#, 500, -32601),
        (br#"{"id":1,"method":"blob.GetAll","params":[1]}"#, 500, -32602),
        (br#"{"id":1,"method":"blob.GetAll","params":["x",[]]}"#, 500, -32700),
        (br#"{"id":1,"method":"blob.GetAll","params":[-1,[]]}"#, 500, -32700),
        (br#"{"id":1,"method":"blob.Submit","params":[[{"namespace":"AA=="}],{}]}"#, 500, -32700),
    ] {
        let (found, answer) = post(at, body.to_vec()).await;
        assert_eq!((found, &answer["error"]["code"]), (status, &json!(code)), "{answer}");
    }
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(&[0x16, 3, 1, 0, 0, 13, 10, 13, 10]).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 400"));
    assert_eq!(ask(at, "blob.Submit", json!([[], {}])).await["result"], 1, "it still works");
    server.stop().await;
}

#[tokio::test]
async fn a_request_over_the_limit_is_refused() {
    let server = run(quiet(None)).await;
    let (status, answer) = post(server.address, vec![b' '; MAX_REQUEST + 1]).await;
    assert_eq!((status, &answer["error"]["code"]), (413, &json!(-32600)));
    server.stop().await;
}

#[tokio::test]
async fn a_socket_takes_calls_garbage_and_pings_and_does_not_wait_for_pongs() {
    let server = run(quiet(None)).await;
    let (mut socket, _) =
        tokio_tungstenite::connect_async(format!("ws://{}/x", server.address)).await.unwrap();
    for (request, answer) in [
        (r#"{"id":1,"method":"blob.Submit","params":[[],{}]}"#, r#"{"id":1,"jsonrpc":"2.0","result":1}"#),
        ("garbage", "-32700"),
        (r#"{"id":"two","method":"x","params":[]}"#, r#""id":"two""#),
        (r#"{"method":"xrpc.cancel","params":[99]}"#, ""),
        (r#"{"method":"xrpc.cancel"}"#, ""),
        (r#"{"id":3,"method":"blob.Subscribe","params":[]}"#, "-32602"),
    ] {
        socket.send(Message::text(request)).await.unwrap();
        if !answer.is_empty() {
            let text = next_text(&mut socket).await;
            assert!(text.contains(answer), "{request}: {text}");
        }
    }
    socket.send(Message::Ping(Bytes::from_static(b"hello"))).await.unwrap();
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Pong(payload) => break assert_eq!(payload, "hello"),
            Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
    server.stop().await;
}

async fn next_text<S>(socket: &mut S) -> String
where
    S: StreamExt<Item = Result<Message, tokio_tungstenite::tungstenite::Error>> + Unpin,
{
    loop {
        match socket.next().await.expect("the connection stays open").unwrap() {
            Message::Text(text) => return text.to_string(),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn every_subscription_hears_of_every_block_until_it_is_cancelled() {
    let server = run(quiet(None)).await;
    let at = server.address;
    let (mut socket, _) = tokio_tungstenite::connect_async(format!("ws://{at}")).await.unwrap();
    for (id, namespace) in [(10, NAMESPACE), (11, OTHER)] {
        let request = json!({"id": id, "method": "blob.Subscribe", "params": [namespace]});
        socket.send(Message::text(request.to_string())).await.unwrap();
        let expected = format!(r#"{{"id":{id},"jsonrpc":"2.0","result":{}}}"#, id - 9);
        assert_eq!(next_text(&mut socket).await, expected);
    }
    ask(at, "blob.Submit", json!([[blob(NAMESPACE, "AQ==")], {}])).await;
    let mut events = [next_text(&mut socket).await, next_text(&mut socket).await];
    events.sort();
    assert_eq!(
        events[1],
        r#"{"jsonrpc":"2.0","method":"xrpc.ch.val","params":[2,{"blobs":null,"height":1}]}"#
    );
    let first: Value = serde_json::from_str(&events[0]).unwrap();
    assert_eq!((&first["params"][0], &first["params"][1]["height"]), (&json!(1), &json!(1)));
    assert_eq!(names(&first["params"][1]["blobs"]), ["AQ=="]);

    let cancel = r#"{"jsonrpc":"2.0","method":"xrpc.cancel","params":[10]}"#;
    socket.send(Message::text(cancel)).await.unwrap();
    let closed = r#"{"jsonrpc":"2.0","method":"xrpc.ch.close","params":[1]}"#;
    assert_eq!(next_text(&mut socket).await, closed);
    ask(at, "blob.Submit", json!([[], {}])).await;
    let second = r#"{"jsonrpc":"2.0","method":"xrpc.ch.val","params":[2,{"blobs":null,"height":2}]}"#;
    assert_eq!(next_text(&mut socket).await, second);
    server.stop().await;
}

#[tokio::test]
async fn empty_blocks_come_with_the_time() {
    let mut config = quiet(None);
    config.block_time = Duration::from_millis(1);
    let server = run(config).await;
    let (mut socket, _) = tokio_tungstenite::connect_async(format!("ws://{}", server.address)).await.unwrap();
    let request = json!({"id": 1, "method": "blob.Subscribe", "params": [NAMESPACE]});
    socket.send(Message::text(request.to_string())).await.unwrap();
    next_text(&mut socket).await;
    let mut heights = Vec::new();
    for _ in 0..5 {
        let event: Value = serde_json::from_str(&next_text(&mut socket).await).unwrap();
        assert_eq!(event["params"][1]["blobs"], Value::Null);
        heights.push(event["params"][1]["height"].as_u64().unwrap());
    }
    assert!(heights.is_sorted() && heights[0] < heights[4], "{heights:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_restart_keeps_blobs_and_height() {
    let home = tempfile::tempdir().unwrap();
    let server = run(quiet(Some(home.path()))).await;
    ask(server.address, "blob.Submit", json!([[blob(NAMESPACE, "AQ==")], {}])).await;
    let head = ask(server.address, "header.NetworkHead", json!([])).await;
    let in_use = bind(quiet(Some(home.path()))).await.err().unwrap();
    assert!(matches!(in_use, DevDaError::InUse { .. }), "{in_use}");
    server.stop().await;

    let server = run(quiet(Some(home.path()))).await;
    assert_eq!(ask(server.address, "header.NetworkHead", json!([])).await, head);
    let blobs = ask(server.address, "blob.GetAll", json!([1, [NAMESPACE]])).await;
    assert_eq!(names(&blobs["result"]), ["AQ=="]);
    assert_eq!(ask(server.address, "blob.Submit", json!([[], {}])).await["result"], 2);
    server.stop().await;
}

#[tokio::test]
async fn ordered_failures_are_in_celestias_words_and_some_blobs_are_stored_nevertheless() {
    let mut config = quiet(None);
    config.error_rate = 1.0;
    let server = bind(config).await.unwrap();
    let shared = server.shared.clone();
    let task = tokio::spawn(server.serve(std::future::pending()));
    let mut words = std::collections::BTreeSet::new();
    let request = json!({"id": 1, "method": "blob.Submit", "params": [[blob(NAMESPACE, "AQ==")], {}]});
    for _ in 0..64 {
        let text = Bytes::from(request.to_string());
        words.insert(answer(&shared, text).await.1.unwrap_err().message);
    }
    let expected = [
        "context deadline exceeded",
        "incorrect account sequence",
        "timed out waiting for tx to be included in a block",
        "tx already in mempool",
    ];
    assert_eq!(words.into_iter().collect::<Vec<_>>(), expected);
    assert!((1..63).contains(&shared.store.height()), "{} of 64", shared.store.height());
    task.abort();
}

#[tokio::test]
async fn settings_that_make_no_sense_and_a_taken_port_are_refused() {
    type Change = fn(&mut DevDaConfig);
    let refused: [(&str, Change); 5] = [
        ("error-rate", |config| config.error_rate = 1.5),
        ("error-rate", |config| config.error_rate = f64::NAN),
        ("block-time", |config| config.block_time = Duration::ZERO),
        ("max-blob-size", |config| config.max_blob_size = 0),
        ("latency", |config| config.latency = Duration::MAX),
    ];
    for (expected, change) in refused {
        let mut config = quiet(None);
        change(&mut config);
        let error = bind(config).await.err().unwrap();
        assert!(matches!(error, DevDaError::Config { key, .. } if key == expected), "{error}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = quiet(None);
    config.listen = taken.local_addr().unwrap();
    let error = bind(config).await.err().unwrap().to_string();
    assert!(error.contains(&taken.local_addr().unwrap().to_string()), "{error}");
}
