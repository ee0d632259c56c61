//! ev-node's services over Connect, quirks included.

use std::io::{Read, Write};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use baton_messages::engine::EnginePosition;
use baton_messages::types::{Height, StateRoot, Tip};
use baton_messages::wire::rpc::{GetBlockRequest, GetBlockResponse, Identifier};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use prost::Message;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::node::{Setup, blocks, index_hash, log, root, signature, signer};

fn base64(bytes: impl AsRef<[u8]>) -> Value {
    json!(STANDARD.encode(bytes))
}

/// The height in the answer to `GetBlock`.
fn height(answer: &Value) -> &Value {
    &answer["block"]["header"]["header"]["height"]
}

#[tokio::test]
async fn a_block_is_answered_as_ev_node_answers_it() {
    Setup::new(log())
        .run(async |node| {
            let (status, answer) = node.json("StoreService/GetBlock", json!({"height": "2"})).await;
            let [first, second, _] = &blocks()[..] else { panic!("three blocks") };
            let expected = json!({
                "block": {
                    "header": {
                        "header": {
                            "version": {},
                            "height": "2",
                            "time": "1735787047123456789",
                            "lastHeaderHash": base64(first.hash().0),
                            "dataHash": base64(second.data().commitment().0),
                            "appHash": base64("root 1"),
                            "proposerAddress": base64(signer().address),
                            "chainId": "test-chain",
                        },
                        "signature": base64(signature(second).signature),
                        "signer": { "address": base64(signer().address), "pubKey": base64(signer().pub_key) },
                    },
                    "data": {
                        "metadata": {
                            "chainId": "test-chain",
                            "height": "2",
                            "time": "1735787047123456789",
                            "lastDataHash": base64(first.data().hash().0),
                        },
                        "txs": [base64("a=b")],
                    },
                },
                "headerDaHeight": "7",
                "dataDaHeight": "8",
            });
            assert_eq!((status, answer), (200, expected));
        })
        .await;
}

#[tokio::test]
async fn the_newest_block_is_the_newest_signed_one() {
    Setup::new(log())
        .run(async |node| {
            let (status, answer) = node.json("StoreService/GetBlock", json!({"height": "0"})).await;
            assert_eq!((status, height(&answer)), (200, &json!("2")));
            let (status, answer) = node.json("StoreService/GetBlock", json!({"height": "3"})).await;
            assert_eq!((status, &answer["code"]), (500, &json!("internal")));
        })
        .await;
    let log = log().into_iter().chain([baton_messages::command::Command::Signature(signature(&blocks()[2]))]);
    Setup::new(log.collect())
        .run(async |node| {
            let (status, answer) = node.json("StoreService/GetBlock", json!({"height": 0})).await;
            assert_eq!((status, height(&answer)), (200, &json!("3")));
            assert_eq!(answer["headerDaHeight"], Value::Null, "not included yet: {answer}");
        })
        .await;
}

#[tokio::test]
async fn a_block_is_found_by_its_hash_and_by_the_hash_of_ev_nodes_index() {
    Setup::new(log())
        .run(async |node| {
            let second = &blocks()[1];
            for hash in [second.hash(), index_hash(second)] {
                let (status, answer) =
                    node.json("StoreService/GetBlock", json!({"hash": base64(hash.0)})).await;
                assert_eq!((status, height(&answer)), (200, &json!("2")));
            }
            for hash in [base64([9; 32]), base64([9; 31]), json!("")] {
                let (status, answer) = node.json("StoreService/GetBlock", json!({"hash": hash})).await;
                assert_eq!((status, &answer["code"]), (500, &json!("internal")));
            }
        })
        .await;
}

#[tokio::test]
async fn an_empty_blocks_data_is_where_its_header_is() {
    Setup::new(log())
        .run(async |node| {
            let (_, answer) = node.json("StoreService/GetBlock", json!({"height": "1"})).await;
            assert_eq!((&answer["headerDaHeight"], &answer["dataDaHeight"]), (&json!("7"), &json!("7")));
        })
        .await;
}

#[tokio::test]
async fn errors_have_the_codes_of_ev_node() {
    Setup::new(log())
        .run(async |node| {
            let cases = [
                ("StoreService/GetBlock", json!({"height": "9"}), 500, "internal"),
                ("StoreService/GetBlock", json!({}), 400, "invalid_argument"),
                ("StoreService/GetBlock", json!({"height": "-1"}), 400, "invalid_argument"),
                ("StoreService/GetBlock", json!({"height": "1", "hash": "AAAA"}), 400, "invalid_argument"),
                ("StoreService/GetBlock", json!([1]), 400, "invalid_argument"),
                ("StoreService/GetMetadata", json!({"key": "nothing"}), 404, "not_found"),
                ("StoreService/GetMetadata", json!({}), 404, "not_found"),
            ];
            for (method, request, http, code) in cases {
                let (status, answer) = node.json(method, request.clone()).await;
                assert_eq!((status, &answer["code"]), (http, &json!(code)), "{method} {request}: {answer}");
                assert!(answer["message"].as_str().is_some_and(|message| !message.is_empty()), "{answer}");
            }
        })
        .await;
    Setup::new(vec![])
        .run(async |node| {
            for method in ["GetBlock", "GetState", "GetGenesisDaHeight"] {
                let (status, answer) =
                    node.json(&format!("StoreService/{method}"), json!({"height": "0"})).await;
                assert_eq!((status, &answer["code"]), (404, &json!("not_found")), "{method}: {answer}");
            }
        })
        .await;
}

#[tokio::test]
async fn metadata_are_eight_bytes_little_endian() {
    Setup::new(log())
        .run(async |node| {
            let known = [
                ("d", 2_u64),
                ("gdh", 7),
                ("rhb/2/h", 7),
                ("rhb/2/d", 8),
                ("last-submitted-header-height", 2),
                ("last-submitted-data-height", 2),
            ];
            for (key, value) in known {
                let (status, answer) = node.json("StoreService/GetMetadata", json!({"key": key})).await;
                assert_eq!((status, answer), (200, json!({"value": base64(value.to_le_bytes())})), "{key}");
            }
            let (status, answer) = node.json("StoreService/GetMetadata", json!({"key": "rhb/3/h"})).await;
            assert_eq!(status, 404, "{answer}");
            let (status, answer) = node.json("StoreService/GetGenesisDaHeight", json!({})).await;
            assert_eq!((status, answer), (200, json!({"height": "7"})));
        })
        .await;
}

#[tokio::test]
async fn the_state_is_that_of_the_last_executed_block() {
    let state =
        |answer: &Value| (answer["state"]["lastBlockHeight"].clone(), answer["state"]["appHash"].clone());
    let mut setup = Setup::new(log());
    let Tip { height, hash, .. } = setup.store.reader().tip();
    setup.position =
        EnginePosition { height, hash: Some(hash), root: StateRoot(root(3)), final_height: Height(0) };
    setup
        .run(async |node| {
            let (status, answer) = node.json("StoreService/GetState", json!({})).await;
            assert_eq!((status, state(&answer)), (200, (json!("3"), base64("root 3"))));
            assert_eq!(answer["state"]["lastBlockTime"], json!("2025-01-02T03:04:08.123456789Z"));
            assert_eq!(answer["state"]["chainId"], json!("test-chain"));
            assert_eq!(answer["state"]["initialHeight"], json!("1"));
            assert_eq!(answer["state"]["daHeight"], json!("4"));
            assert_eq!(answer["state"]["lastHeaderHash"], Value::Null);
        })
        .await;
    Setup::new(log())
        .run(async |node| {
            let (_, answer) = node.json("StoreService/GetState", json!({})).await;
            assert_eq!(state(&answer), (json!("2"), base64("root 2")), "the engine is behind");
        })
        .await;
}

#[tokio::test]
async fn the_stores_for_peers_and_the_configuration_are_answered() {
    Setup::new(log())
        .run(async |node| {
            let (_, answer) = node.json("StoreService/GetP2PStoreInfo", json!({})).await;
            let [headers, data] = answer["stores"].as_array().map(Vec::as_slice).unwrap_or_default() else {
                panic!("not two stores: {answer}")
            };
            assert_eq!((&headers["label"], &data["label"]), (&json!("Header Store"), &json!("Data Store")));
            assert_eq!((&headers["height"], &headers["head"]["height"]), (&json!("2"), &json!("2")));
            assert_eq!((&headers["tail"]["height"], &data["tail"]["height"]), (&json!("1"), &json!("1")));
            assert_eq!(headers["head"]["hash"], base64(blocks()[1].hash().0));
            assert_eq!(data["head"]["hash"], base64(blocks()[1].data().hash().0));

            let (_, answer) = node.json("ConfigService/GetNamespace", json!({})).await;
            let namespace = |byte: &str| json!(format!("0x{}", byte.repeat(29)));
            assert_eq!(answer, json!({"headerNamespace": namespace("01"), "dataNamespace": namespace("02")}));
            let (_, answer) = node.json("ConfigService/GetSignerInfo", json!({})).await;
            assert_eq!(answer, json!({"address": base64(signer().address)}));
        })
        .await;
}

#[tokio::test]
async fn connect_proto_says_the_same_as_connect_json() {
    Setup::new(log())
        .run(async |node| {
            let request = GetBlockRequest { identifier: Some(Identifier::Height(2)) }.encode_to_vec();
            let (status, body) = node.post("StoreService/GetBlock", "application/proto", request).await;
            let answer = GetBlockResponse::decode(&body[..]).unwrap();
            let (_, json) = node.json("StoreService/GetBlock", json!({"height": "2"})).await;
            assert_eq!((status, serde_json::to_value(answer).unwrap()), (200, json));

            let (status, body) = node.post("StoreService/GetBlock", "application/proto", vec![0xff]).await;
            let error: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!((status, &error["code"]), (400, &json!("invalid_argument")));
        })
        .await;
}

#[tokio::test]
async fn requests_and_answers_may_be_compressed() {
    let big = |log: &mut Vec<_>| {
        if let Some(baton_messages::command::Command::Block(entry)) = log.get_mut(1) {
            let block = &entry.block;
            let mut data = block.data().clone();
            data.txs = vec![baton_messages::types::Tx(vec![b'a'; 100_000].into())];
            let header = baton_messages::chain::Header {
                data_hash: data.commitment().to_bytes(),
                ..block.header().clone()
            };
            entry.block = baton_messages::chain::Block::shared(header, data);
            let signed = baton_messages::command::Command::Signature(signature(&entry.block));
            log.truncate(2);
            log.push(signed);
        }
    };
    let mut log = log();
    big(&mut log);
    Setup::new(log)
        .run(async |node| {
            let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
            gzip.write_all(br#"{"height":"2"}"#).unwrap();
            let request = reqwest::Client::new()
                .post(node.url("/evnode.v1.StoreService/GetBlock"))
                .header("content-type", "application/json")
                .header("content-encoding", "gzip")
                .header("accept-encoding", "gzip")
                .body(gzip.finish().unwrap());
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["content-encoding"], "gzip");
            let body = response.bytes().await.unwrap();
            let mut text = String::new();
            GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap();
            assert!(body.len() < 10_000 && text.len() > 100_000, "{} of {}", body.len(), text.len());
            let answer: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(height(&answer), &json!("2"));
        })
        .await;
}

#[tokio::test]
async fn bad_calls_get_a_clear_answer_and_harm_nobody() {
    let mut setup = Setup::new(log());
    setup.limits.body = 1000;
    setup
        .run(async |node| {
            let block = "StoreService/GetBlock";
            let (status, _) = node.post(block, "text/plain", b"{}".to_vec()).await;
            assert_eq!(status, 415);
            let (status, body) = node.post(block, "application/json", vec![]).await;
            assert_eq!(status, 400, "{}", String::from_utf8_lossy(&body));
            let (status, body) = node.post(block, "application/json", vec![b' '; 1001]).await;
            assert_eq!(status, 429, "{}", String::from_utf8_lossy(&body));
            let bomb = {
                let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
                gzip.write_all(&[b' '; 100_000]).unwrap();
                gzip.finish().unwrap()
            };
            assert!(bomb.len() < 1000);
            let request = reqwest::Client::new().post(node.url("/evnode.v1.StoreService/GetBlock"));
            let request = request
                .header("content-type", "application/json")
                .header("content-encoding", "gzip")
                .body(bomb);
            assert_eq!(request.send().await.unwrap().status(), 429);
            let (status, _) = node.post("StoreService/Nothing", "application/json", b"{}".to_vec()).await;
            assert_eq!(status, 404);
            assert_eq!(node.get("/evnode.v1.StoreService/GetBlock").await.0, 405);
            let (status, answer) = node.json(block, json!({"height": "2"})).await;
            assert_eq!((status, height(&answer)), (200, &json!("2")));
        })
        .await;
}

#[tokio::test]
async fn a_call_too_many_is_turned_away() {
    let mut setup = Setup::new(log());
    setup.limits.calls = 0;
    setup
        .run(async |node| {
            let (status, answer) = node.json("StoreService/GetBlock", json!({"height": "2"})).await;
            assert_eq!((status, &answer["code"]), (503, &json!("unavailable")), "{answer}");
            assert_eq!(node.get("/health/live").await.0, 200);
        })
        .await;
}

#[tokio::test]
async fn a_store_that_fails_is_unavailable_and_the_rest_answers() {
    let setup = Setup::new(log());
    let store = setup.store.clone();
    setup
        .run(async |node| {
            store.close();
            for (method, request) in
                [("GetBlock", json!({"height": "2"})), ("GetMetadata", json!({"key": "gdh"}))]
            {
                let (status, answer) = node.json(&format!("StoreService/{method}"), request).await;
                assert_eq!((status, &answer["code"]), (503, &json!("unavailable")), "{method}: {answer}");
            }
            assert_eq!(node.json("ConfigService/GetSignerInfo", json!({})).await.0, 200);
            assert_eq!(node.get("/health/live").await.0, 200);
            assert_eq!(node.get("/metrics").await.0, 200);
        })
        .await;
}

#[tokio::test]
async fn a_body_that_never_ends_is_given_up() {
    let mut setup = Setup::new(log());
    setup.limits.request = Duration::from_millis(200);
    setup
        .run(async |node| {
            let mut stream = TcpStream::connect(node.address).await.unwrap();
            let head = "POST /evnode.v1.StoreService/GetBlock HTTP/1.1\r\nhost: node\r\n\
                content-type: application/json\r\ncontent-length: 100\r\n\r\n{";
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut answer = [0; 13];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"HTTP/1.1 504 ");
        })
        .await;
}

#[tokio::test]
async fn calls_that_trickle_in_hold_up_nobody() {
    let mut setup = Setup::new(log());
    setup.limits.calls = 1;
    setup
        .run(async |node| {
            let head = "POST /evnode.v1.StoreService/GetBlock HTTP/1.1\r\nhost: node\r\n\
                content-type: application/json\r\ncontent-length: 100\r\n\r\n{";
            let mut slow = vec![];
            for _ in 0..10 {
                let mut stream = TcpStream::connect(node.address).await.unwrap();
                stream.write_all(head.as_bytes()).await.unwrap();
                slow.push(stream);
            }
            let (status, answer) = node.json("StoreService/GetBlock", json!({"height": "2"})).await;
            assert_eq!(status, 200, "{answer}");
        })
        .await;
}

#[tokio::test]
async fn an_error_does_not_repeat_at_length_what_it_was_sent() {
    Setup::new(log())
        .run(async |node| {
            let (status, answer) =
                node.json("StoreService/GetMetadata", json!({"key": "k".repeat(100_000)})).await;
            assert_eq!(status, 404, "{answer}");
            assert!(answer.to_string().len() < 200, "{answer}");
        })
        .await;
}
