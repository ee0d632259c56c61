//! Garbage on every port and in every field of a running node.

use std::time::Duration;

use baton::rpc::Limits;
use baton::rpc::serve::raise_open_files;
use baton_messages::da::Namespace;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use sim::process::{Child, Footprint, Site, free_ports};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const GET_BLOCK: &str = "/evnode.v1.StoreService/GetBlock";
const GET_METADATA: &str = "/evnode.v1.StoreService/GetMetadata";
const JSON: &str = "content-type: application/json\r\n";
const PROTO: &str = "content-type: application/proto\r\n";
const GRPC_WEB: &str = "content-type: application/grpc-web\r\n";

/// For an answer that must come.
const ANSWER: Duration = Duration::from_secs(20);
/// After which nothing more is expected of what need not be answered.
const SILENCE: Duration = Duration::from_millis(200);

/// Method, path, headers, body, the status, and a part of the answer.
type RpcCall<'a> = (&'a str, &'a str, &'a str, &'a [u8], u16, &'a str);

/// A node with all its ports.
struct Target {
    site: Site,
    node: Child,
    metrics: String,
}

impl Target {
    async fn new() -> Self {
        let metrics = format!("127.0.0.1:{}", free_ports(1));
        let flags = [
            "--node.block_time",
            "200ms",
            "--instrumentation.prometheus=true",
            "--instrumentation.prometheus_listen_addr",
            &metrics,
            "--instrumentation.max_open_connections",
            "200",
        ];
        let site = Site::new(&flags).await;
        let node = site.started().await;
        Self { site, node, metrics }
    }

    fn rpc(&self) -> String {
        address(&self.site.rpc_url())
    }

    fn kv(&self) -> String {
        address(&self.site.kv_url())
    }

    fn da(&self) -> String {
        address(&self.site.da_url())
    }

    fn ports(&self) -> [String; 4] {
        [self.rpc(), self.kv(), self.metrics.clone(), self.da()]
    }

    /// The node makes blocks and takes transactions, DA takes blobs, and nothing panicked.
    async fn check(self) {
        self.site.until("readiness", || async { self.site.unready().await.is_empty() }).await;
        let (code, answer) = self.site.post("after=all", "executed").await;
        assert_eq!(code, 200, "{answer}");
        self.site.drain().await;
        assert_eq!(self.node.terminate().await, Some(0));
        let log = std::fs::read_to_string(self.site.log()).expect("a log");
        assert!(!log.contains("panicked"), "{log}");
    }
}

fn address(url: &str) -> String {
    url.trim_start_matches("http://").to_owned()
}

/// Sends bytes and reads what is answered, until the other side closes or has been silent for so
/// long.
async fn talk(address: &str, bytes: &[u8], patience: Duration) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.expect("the port is open");
    // The other side may have heard enough.
    let _ = timeout(Duration::from_secs(5), stream.write_all(bytes)).await;
    let mut answer = vec![];
    let mut chunk = vec![0; 1 << 16];
    while let Ok(Ok(count @ 1..)) = timeout(patience, stream.read(&mut chunk)).await {
        answer.extend_from_slice(&chunk[..count]);
    }
    answer
}

/// The status of an answer in HTTP/1.1; `None` when there is none.
fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    std::str::from_utf8(line).ok()?.parse().ok()
}

async fn ask(address: &str, method: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\ncontent-length: {length}\r\n"
    );
    talk(address, &[head.as_bytes(), headers.as_bytes(), b"\r\n", body].concat(), ANSWER).await
}

/// Bytes that look like nothing, the same ones for the same seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// What is no HTTP at all, or no more than its beginning.
fn noises(seed: u64) -> Vec<Vec<u8>> {
    let many_headers: String = (0..2_000).map(|number| format!("h{number}: x\r\n")).collect();
    vec![
        vec![],
        noise(seed, 1),
        noise(seed + 1, 3_000),
        [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(), &noise(seed + 2, 500)].concat(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"GET /\xff\xfe HTTP/1.1\r\n\r\n".to_vec(),
        b"POST /tx HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n".to_vec(),
        b"POST /tx HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcdef".to_vec(),
        b"POST /tx HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffffff\r\n"
            .to_vec(),
        b"POST /tx HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab".to_vec(),
        [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &noise(seed + 3, 300)].concat(),
        // HTTP/2 frames: a length that lies, a stream nobody opened, settings without sense.
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\x01\x05\x00\x00\x00\x01".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x04\0\0\0\0\0\x07abcd".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06\x04\0\0\0\0\0\0\x05\xff\xff\xff\xff".to_vec(),
        format!("GET / HTTP/1.1\r\n{many_headers}\r\n").into_bytes(),
        format!("GET / HTTP/1.1\r\nx: {}", "a".repeat(200_000)).into_bytes(),
        format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100_000)).into_bytes(),
    ]
}

/// Sends all the noise to a port; none of it is a success, and none is called the node's fault.
async fn make_noise(address: &str, seed: u64) {
    for bytes in noises(seed) {
        let answer = talk(address, &bytes, SILENCE).await;
        if let Some(status) = status(&answer) {
            let start = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
            assert!((400..500).contains(&status), "{address} answered {status} to {start:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn noise_on_every_port_does_no_harm_and_takes_nothing() {
    let target = Target::new().await;
    // The first rounds fill what is kept for later: buffers, tables, arenas.
    let round = async |seed: u64| {
        let ports = target.ports();
        futures::future::join_all(ports.iter().map(|port| make_noise(port, seed))).await;
    };
    for seed in 0..5 {
        round(seed).await;
    }
    let before = Footprint::of(target.node.pid());
    let da_before = Footprint::of(target.site.da().pid());
    for seed in 5..50 {
        round(seed).await;
    }
    target
        .site
        .until("all connections to be closed", || async {
            let (node, da) = (Footprint::of(target.node.pid()), Footprint::of(target.site.da().pid()));
            // The store opens a file now and then; three thousand connections would be seen.
            node.files <= before.files + 16 && da.files <= da_before.files + 4
        })
        .await;
    let (after, da_after) = (Footprint::of(target.node.pid()), Footprint::of(target.site.da().pid()));
    assert!(after.memory < before.memory + (24 << 20), "{before:?} became {after:?}");
    assert!(da_after.memory < da_before.memory + (24 << 20), "{da_before:?} became {da_after:?}");
    assert!(after.threads <= before.threads + 8, "{before:?} became {after:?}");
    target.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_calls_of_the_rpc_services_are_refused_by_name() {
    let target = Target::new().await;
    let rpc = target.rpc();
    let long_key = json!({ "key": "k".repeat(900_000) }).to_string();
    let too_long = json!({ "key": "k".repeat(2_000_000) }).to_string();
    let deep = "{\"a\":".repeat(100_000);
    let long_path = format!("/{}", "a".repeat(60_000));
    let calls: &[RpcCall<'_>] = &[
        ("DELETE", "/health/ready", "", b"", 405, "method not allowed"),
        ("POST", "/metrics", "", b"garbage", 405, "method not allowed"),
        ("GET", "/none", "", b"", 404, "not found"),
        ("GET", &long_path, "", b"", 404, "not found"),
        ("POST", GET_BLOCK, "content-type: text/plain\r\n", b"{}", 415, ""),
        ("POST", GET_BLOCK, "", b"{}", 415, ""),
        ("GET", GET_BLOCK, "", b"", 405, ""),
        ("POST", "/evnode.v1.StoreService/None", JSON, b"{}", 404, "unimplemented"),
        ("POST", GET_BLOCK, JSON, b"", 400, "invalid_argument"),
        ("POST", GET_BLOCK, JSON, b"{", 400, "invalid_argument"),
        ("POST", GET_BLOCK, JSON, b"[]", 400, "not a JSON object"),
        ("POST", GET_BLOCK, JSON, b"\xff\xfe", 400, "invalid_argument"),
        ("POST", GET_BLOCK, JSON, b"{}", 400, "identifier"),
        ("POST", GET_BLOCK, JSON, b"{\"height\":\"-1\"}", 400, "unsigned"),
        ("POST", GET_BLOCK, JSON, b"{\"height\":1.5}", 400, "unsigned"),
        ("POST", GET_BLOCK, JSON, b"{\"height\":1e300}", 400, "unsigned"),
        ("POST", GET_BLOCK, JSON, b"{\"height\":\"18446744073709551616\"}", 400, "unsigned"),
        ("POST", GET_BLOCK, JSON, b"{\"height\":\"1\",\"hash\":\"AA==\"}", 400, "exclude"),
        ("POST", GET_BLOCK, JSON, b"{\"hash\":\"!\"}", 400, "base64"),
        ("POST", GET_BLOCK, JSON, deep.as_bytes(), 400, "invalid_argument"),
        (
            "POST",
            GET_BLOCK,
            "content-type: application/json\r\ncontent-encoding: gzip\r\n",
            b"abc",
            400,
            "gzip",
        ),
        // ev-node says that a missing block is an internal error, and clients know it.
        ("POST", GET_BLOCK, JSON, b"{\"height\":\"18446744073709551615\"}", 500, "no block at height"),
        ("POST", GET_BLOCK, JSON, b"{\"hash\":\"AA==\"}", 500, "32 bytes"),
        ("POST", GET_METADATA, JSON, b"{\"key\":\"\\u0000\\ud800\"}", 400, "invalid_argument"),
        ("POST", GET_METADATA, JSON, b"{\"key\":\"\\u0000\\uffff\"}", 404, "no metadata"),
        ("POST", GET_METADATA, JSON, b"{\"key\":\"rhb/18446744073709551615/h\"}", 404, "no metadata"),
        ("POST", GET_METADATA, JSON, b"{\"key\":\"rhb/-1/h\"}", 404, "no metadata"),
        ("POST", GET_METADATA, JSON, long_key.as_bytes(), 404, "no metadata"),
        ("POST", GET_METADATA, JSON, too_long.as_bytes(), 429, "resource_exhausted"),
        ("POST", GET_BLOCK, PROTO, b"\xff\xff\xff\xff\xff", 400, "Protobuf"),
        ("POST", GET_BLOCK, PROTO, b"\x12\xff\xff\xff\xff\x0fabc", 400, "Protobuf"),
        ("POST", GET_BLOCK, PROTO, b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 400, "Protobuf"),
        // gRPC has its own status in a 200: 3 is a bad argument, 8 is too much.
        ("POST", GET_BLOCK, GRPC_WEB, b"\0\xff\xff\xff\xff\x01", 200, "grpc-status: 8"),
        ("POST", GET_BLOCK, GRPC_WEB, b"\0\0\0\0\x09\x08", 200, "grpc-status: 3"),
        ("POST", GET_BLOCK, GRPC_WEB, b"\0\0", 200, "grpc-status: 3"),
        ("POST", GET_BLOCK, GRPC_WEB, b"\0\0\0\0\x02\xff\xff", 200, "grpc-status: 3"),
        ("POST", GET_BLOCK, GRPC_WEB, b"\x01\0\0\0\x03abc", 200, "grpc-status: "),
    ];
    for (method, path, headers, body, wanted, part) in calls {
        let answer = ask(&rpc, method, path, headers, body).await;
        let what = format!("{method} {:.60} {headers:?} {:?}", path, &body[..body.len().min(60)]);
        let text = String::from_utf8_lossy(&answer);
        assert_eq!(status(&answer), Some(*wanted), "{what}: {text}");
        assert!(text.contains(part), "{what}: {text}");
        assert!(answer.len() < 2_000, "{what}: an error of {} bytes", answer.len());
    }
    for seed in 0..300 {
        let body = noise(seed, 1 + usize::try_from(seed).expect("small") % 200);
        for headers in [JSON, PROTO] {
            let answer = ask(&rpc, "POST", GET_METADATA, headers, &body).await;
            // By chance it may even be a request.
            assert!(
                matches!(status(&answer), Some(400 | 404)),
                "{body:?}: {}",
                String::from_utf8_lossy(&answer)
            );
        }
    }
    target.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_transactions_and_keys_are_refused_by_name() {
    let target = Target::new().await;
    let kv = target.kv();
    let largest = [b"k=".as_slice(), &vec![b'x'; 8 << 20]].concat();
    let batch = b"a\n".repeat(3_000_000);
    let many: Vec<u8> = (0..400_000).flat_map(|number: u32| format!("{number}=1\n").into_bytes()).collect();
    let long_key = format!("/kv?key={}", "k".repeat(50_000));
    let calls: &[(&str, &str, &[u8], u16, &str)] = &[
        ("POST", "/tx", b"", 400, "Empty transaction"),
        ("GET", "/tx", b"", 405, "Method not allowed"),
        ("POST", "/tx", &largest, 413, "too_large"),
        ("POST", "/tx?wait=never", b"a=1", 400, "invalid"),
        ("POST", "/tx?wait=%ff%zz", b"a=1", 400, "invalid"),
        ("POST", "/tx?wait=executed&wait=accepted", b"a=1", 400, "duplicate"),
        ("POST", "/tx?wait=executed&timeout=-5s", b"a=1", 400, "invalid"),
        ("POST", "/tx?wait=executed&timeout=0s", b"a=1", 400, "more than zero"),
        ("POST", "/tx?wait=executed&timeout=99999999999999999999s", b"a=1", 400, "invalid"),
        ("POST", "/tx?wait=executed&timeout=99999999years", b"a=1", 400, "invalid"),
        ("POST", "/tx?wait=executed", b"\0=\0", 200, "applied"),
        ("POST", "/tx?wait=executed", b"\xff\xfe=\xfd", 200, "applied"),
        ("POST", "/tx?wait=executed", b"no assignment", 200, "not key=value"),
        ("POST", "/tx?wait=executed", b"= no key", 200, "empty key"),
        ("POST", "/tx/batch", &batch, 413, "too_large"),
        ("POST", "/tx/batch", &many, 429, "full"),
        ("POST", "/tx/batch", b"\n\r\n\n", 200, "\"accepted\":0"),
        ("GET", "/kv", b"", 400, "Missing key"),
        ("GET", "/kv?key=%00", b"", 200, "\0"),
        ("GET", "/kv?key=%FF%FE", b"", 200, "\u{fffd}"),
        ("GET", "/kv?key=%zz%", b"", 404, "Key not found"),
        ("GET", &long_key, b"", 404, "Key not found"),
        ("POST", "/kv?key=a", b"", 405, "Method not allowed"),
        ("PATCH", "/store", b"", 405, "Method not allowed"),
        ("GET", "/../../etc/passwd", b"", 404, "not found"),
    ];
    for (method, path, body, wanted, part) in calls {
        let answer = ask(&kv, method, path, "", body).await;
        let text = String::from_utf8_lossy(&answer);
        assert_eq!(status(&answer), Some(*wanted), "{method} {path:.60}: {text}");
        assert!(text.contains(part), "{method} {path:.60}: {text}");
    }
    // The same transaction has one place, however often it is sent and by how many.
    let posts = futures::future::join_all((0..50).map(|_| target.site.post("the same=1", "committed"))).await;
    let places: std::collections::BTreeSet<(u16, String)> = posts.into_iter().collect();
    assert_eq!(places.len(), 1, "{places:?}");
    assert_eq!(places.first().map(|(code, _)| *code), Some(200), "{places:?}");
    target.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_to_the_dev_da_layer_are_refused_by_name() {
    let target = Target::new().await;
    let da = target.da();
    let namespace = Namespace::of("hostile").to_base64();
    let submit = |data: &str, more: &str| {
        format!(
            r#"{{"id":1,"method":"blob.Submit","params":[[{{"namespace":"{namespace}","data":"{data}"{more}}}],null]}}"#
        )
    };
    let call = |method: &str, params: &str| format!(r#"{{"id":1,"method":"{method}","params":{params}}}"#);
    let requests = [
        (String::new(), "empty"),
        ("{".to_owned(), "-32700"),
        ("[]".to_owned(), "-32600"),
        ("null".to_owned(), "-32600"),
        ("[".repeat(100_000), "-32700"),
        ("{\"a\":".repeat(100_000), "-32700"),
        (r#"{"id":{},"method":"x"}"#.to_owned(), "the id must be"),
        (call("none", "[]"), "not found"),
        (call("blob.Submit", "[]"), "-32602"),
        (call("blob.Submit", "[[{}],null]"), "namespace"),
        (call("blob.GetAll", "[-1,[]]"), "-32700"),
        (call("blob.GetAll", "[18446744073709551615,[]]"), "from the future"),
        (call("blob.GetAll", r#"[1,["!!"]]"#), "-32700"),
        (call("header.GetByHeight", "[1e99]"), "-32700"),
        (submit("", ""), "must not be empty"),
        (submit("AA==", r#","share_version":99"#), "share version"),
        (submit("AA==", r#","commitment":"AA==""#), "-32700"),
        (submit(&"A".repeat(12_000_000), ""), "over size limit"),
    ];
    for (request, part) in &requests {
        let answer = ask(&da, "POST", "/", "", request.as_bytes()).await;
        let text = String::from_utf8_lossy(&answer);
        assert!(text.contains("\"error\"") && text.contains(part), "{request:.80}: {text}");
    }
    // The same over WebSocket: garbage in frames, and frames that lie.
    let upgrade = "GET / HTTP/1.1\r\nhost: da\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    let frames: [&[u8]; 8] = [
        b"\x81\x83\0\0\0\0abc",
        b"\x82\x84\0\0\0\0\xff\xfe\xfd\xfc",
        b"\x81\x84\0\0\0\0\xff\xfe\xfd\xfc",
        b"\x81\x03abc",
        b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0",
        b"\x81\xff\0\0\0\0\x7f\xff\xff\xff\0\0\0\0abc",
        b"\xf1\x83\0\0\0\0abc",
        b"\x88\x81\0\0\0\0a",
    ];
    for frame in frames {
        let answer = talk(&da, &[upgrade.as_bytes(), frame].concat(), SILENCE).await;
        assert_eq!(status(&answer), Some(101), "{frame:?}");
    }
    for seed in 0..50 {
        talk(&da, &[upgrade.as_bytes(), &noise(seed, 200)].concat(), SILENCE).await;
    }
    target.check().await;
}

/// Opens that many connections, says half of something on each, and keeps them.
async fn open(address: &str, count: usize, half: &str) -> Vec<TcpStream> {
    let mut streams = vec![];
    for _ in 0..count {
        let mut stream = TcpStream::connect(address).await.expect("the port is open");
        stream.write_all(half.as_bytes()).await.expect("a few bytes");
        streams.push(stream);
    }
    streams
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_never_finish_hold_up_nobody_else() {
    // A node that is started with few files takes what it may have.
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(512), maximum: hard }).expect("a lower limit");
    let target = Target::new().await;
    let files = raise_open_files();
    target.site.drain().await;
    let scrape = target.site.scrape().await;
    assert!(scrape.value("process_max_fds").is_none_or(|most| most >= files as f64), "{files}");

    let body = "content-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    let halves = [
        format!("POST {GET_BLOCK} HTTP/1.1\r\nhost: x\r\n{body}"),
        format!("POST /tx HTTP/1.1\r\nhost: x\r\n{body}"),
        "GET /metrics HTT".to_owned(),
        format!("POST / HTTP/1.1\r\nhost: x\r\n{body}"),
    ];
    let mut slow = vec![];
    for (port, half) in target.ports().iter().zip(&halves) {
        slow.extend(open(port, 100, half).await);
    }
    let block = ask(&target.rpc(), "POST", GET_BLOCK, JSON, b"{\"height\":\"1\"}").await;
    assert_eq!(status(&block), Some(200), "{}", String::from_utf8_lossy(&block));
    let metrics = ask(&target.metrics, "GET", "/metrics", "", b"").await;
    assert_eq!(status(&metrics), Some(200));
    let head: Value = {
        let request = json!({"id": 1, "method": "header.LocalHead", "params": []}).to_string();
        let answer = ask(&target.da(), "POST", "/", JSON, request.as_bytes()).await;
        let at = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a body");
        serde_json::from_slice(&answer[at + 4..]).expect("JSON")
    };
    assert!(head["result"].is_object(), "{head}");
    let (code, answer) = target.site.post("among=slow ones", "executed").await;
    assert_eq!(code, 200, "{answer}");
    drop(slow);

    // One port is full: it says so, and the others do not notice.
    let limit = Limits::default().within(files).connections;
    let full = open(&target.rpc(), limit + 20, "GET /health").await;
    let refused = talk(&target.rpc(), b"", ANSWER).await;
    assert_eq!(status(&refused), Some(503), "{}", String::from_utf8_lossy(&refused));
    let (code, answer) = target.site.post("beside=a full port", "executed").await;
    assert_eq!(code, 200, "{answer}");
    drop(full);
    target.check().await;
}

/// `/store` and blocks are large: clients that ask for much and read nothing fill no memory.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_read_no_answers_take_a_bounded_amount_of_memory() {
    let target = Target::new().await;
    let value = "x".repeat(900_000);
    for number in 0..8 {
        let (code, answer) = target.site.post(&format!("large{number}={value}"), "executed").await;
        assert_eq!(code, 200, "{answer}");
    }
    target.site.drain().await;
    let whole = ask(&target.kv(), "GET", "/store", "", b"").await;
    assert!(status(&whole) == Some(200) && whole.len() > 7_000_000);
    let before = Footprint::of(target.node.pid());
    let unread = open(&target.kv(), 200, "GET /store HTTP/1.1\r\nhost: x\r\n\r\n").await;
    // All of it would be 1.4 GB. Answers of 128 MiB wait; one in the making takes a few times its
    // size, and the allocator keeps some.
    let most = before.memory + (600 << 20);
    for _ in 0..50 {
        let now = Footprint::of(target.node.pid());
        assert!(now.memory < most, "{before:?} became {now:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (code, answer) = target.site.post("beside=unread answers", "executed").await;
    assert_eq!(code, 200, "{answer}");
    drop(unread);
    target.check().await;
}
