//! What a client can and cannot take from the listener.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};

use crate::rpc::serve::{BindError, Limits, Listener, Metrics};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: node\r\n\r\n";
const HALF_A_REQUEST: &[u8] = b"GET / HTTP/1.1\r\nx: ";

/// Serves a router while `client` runs, then stops; returns what the client did.
async fn with<T, F: Future<Output = T>>(
    limits: Limits,
    router: Router,
    client: impl FnOnce(SocketAddr) -> F,
) -> T {
    let listener = Listener::bind("127.0.0.1:0", limits, Metrics::default()).await.unwrap();
    let address = listener.local_addr();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(listener.serve(router, async {
        let _ = stopped.await;
    }));
    let did = client(address).await;
    drop(stop);
    server.await.unwrap();
    did
}

fn greeting() -> Router {
    Router::new().route("/", get(async || "hello"))
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

/// Everything the server says until it closes the connection, however it does so.
async fn said(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let mut chunk = [0; 1024];
    while let Ok(count) = stream.read(&mut chunk).await
        && count > 0
    {
        all.extend_from_slice(&chunk[..count]);
    }
    String::from_utf8_lossy(&all).into_owned()
}

async fn answered(address: SocketAddr) -> bool {
    match reqwest::get(format!("http://{address}/")).await {
        Ok(response) => response.status() == 200 && response.text().await.is_ok_and(|text| text == "hello"),
        Err(_) => false,
    }
}

#[tokio::test]
async fn a_connection_too_many_is_told_so_and_there_is_room_again_later() {
    let limits = Limits { connections: 1, ..Limits::default() };
    with(limits, greeting(), async |address| {
        let first = connect(address).await;
        let refusal = said(&mut connect(address).await).await;
        assert!(refusal.starts_with("HTTP/1.1 503 "), "{refusal}");
        assert!(refusal.ends_with("\r\n\r\ntoo many connections\n"), "{refusal}");
        drop(first);
        while !answered(address).await {}
    })
    .await;
}

#[tokio::test]
async fn many_clients_may_come_at_once() {
    let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let clients = most.trim().parse::<usize>().unwrap().min(500);
    // It is not even served yet.
    let listener = Listener::bind("127.0.0.1:0", Limits::default(), Metrics::default()).await.unwrap();
    let address = listener.local_addr();
    let mut waiting = vec![];
    for _ in 0..clients {
        let connected = tokio::time::timeout(Duration::from_secs(5), TcpStream::connect(address)).await;
        waiting.push(connected.expect("room to wait in").unwrap());
    }
}

#[tokio::test]
async fn a_client_that_trickles_its_header_is_cut_off() {
    let limits = Limits { first_request: Duration::from_millis(200), ..Limits::default() };
    with(limits, greeting(), async |address| {
        let (mut reader, mut writer) = connect(address).await.into_split();
        let trickle = async {
            let mut next = HALF_A_REQUEST.iter().chain(std::iter::repeat(&b'a'));
            while writer.write_all(&[*next.next().unwrap()]).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let mut end = [0; 16];
        tokio::select! {
            () = trickle => {}
            end = reader.read(&mut end) => assert!(matches!(end, Ok(0) | Err(_)), "it was answered: {end:?}"),
        }
        assert!(answered(address).await);
    })
    .await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let limits = Limits { idle: Duration::from_millis(100), ..Limits::default() };
    let slow = async || {
        tokio::time::sleep(Duration::from_millis(500)).await;
        "slow"
    };
    with(limits, Router::new().route("/", get(slow)), async |address| {
        let mut stream = connect(address).await;
        stream.write_all(REQUEST).await.unwrap();
        let said = said(&mut stream).await;
        assert!(said.starts_with("HTTP/1.1 200 ") && said.ends_with("slow"), "{said}");
    })
    .await;
}

#[tokio::test]
async fn a_connection_serves_many_requests() {
    let limits = Limits { first_request: Duration::from_millis(300), ..Limits::default() };
    with(limits, greeting(), async |address| {
        let mut stream = connect(address).await;
        for _ in 0..10 {
            stream.write_all(REQUEST).await.unwrap();
            let mut seen = Vec::new();
            while !seen.ends_with(b"hello") {
                seen.push(stream.read_u8().await.unwrap());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn garbage_on_the_port_does_no_harm() {
    with(
        Limits { first_request: Duration::from_millis(200), ..Limits::default() },
        greeting(),
        async |address| {
            let long_header = [b"GET / HTTP/1.1\r\nx: ".as_slice(), &[b'a'; 200_000]].concat();
            let garbage: [&[u8]; 8] = [
                b"",
                b"\0\0\0\0\0\0\0\0",
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS client says hello",
                b"GET / HTTP/9.9\r\n\r\n",
                b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
                b"GET /\xff\xfe HTTP/1.1\r\n\r\n",
                &long_header,
            ];
            for bytes in garbage {
                let mut stream = connect(address).await;
                let _ = stream.write_all(bytes).await;
                let answer = said(&mut stream).await;
                assert!(!answer.starts_with("HTTP/1.1 200"), "{bytes:?} was answered: {answer}");
                assert!(answered(address).await, "after {:?}", &bytes[..bytes.len().min(40)]);
            }
        },
    )
    .await;
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let first = Listener::bind("127.0.0.1:0", Limits::default(), Metrics::default()).await.unwrap();
    let address = first.local_addr().to_string();
    let error = Listener::bind(&address, Limits::default(), Metrics::default()).await.unwrap_err();
    assert!(matches!(&error, BindError::Taken { address: named } if *named == address), "{error}");
    assert!(error.to_string().contains(&address), "{error}");
    let error = Listener::bind("127.0.0.1", Limits::default(), Metrics::default()).await.unwrap_err();
    assert!(matches!(error, BindError::Refused { .. }), "{error}");
}

/// Asks on HTTP/2 with a window of nothing: whatever is answered stays unread here.
async fn ask_and_read_nothing(address: SocketAddr, streams: u32) -> TcpStream {
    let mut stream = connect(address).await;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // SETTINGS: INITIAL_WINDOW_SIZE is 0.
    bytes.extend([0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0]);
    for number in 0..streams {
        // HEADERS, ended: GET, http, /, and an authority.
        let block = [0x82, 0x86, 0x84, 0x01, 0x01, b'n'];
        bytes.extend([0, 0, 6, 1, 5]);
        bytes.extend((1 + 2 * number).to_be_bytes());
        bytes.extend(block);
    }
    stream.write_all(&bytes).await.unwrap();
    stream
}

#[tokio::test]
async fn answers_that_strangers_leave_unread_become_nobody_elses_503() {
    const LARGE: usize = 1 << 20;
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let large = {
        let asked = asked.clone();
        move || async move {
            asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            vec![b'x'; LARGE]
        }
    };
    let router = Router::new().route("/", get(large)).route("/health", get(async || "hello"));
    let limits = Limits { answers: 4 * LARGE, idle: Duration::from_millis(1500), ..Limits::default() };
    with(limits, router, async |address| {
        let mut strangers = vec![];
        for _ in 0..6 {
            strangers.push(ask_and_read_nothing(address, 3).await);
        }
        while asked.load(std::sync::atomic::Ordering::SeqCst) < 18 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let health = reqwest::get(format!("http://{address}/health")).await.unwrap();
        assert_eq!(health.status(), 200, "{}", health.text().await.unwrap());
        let full = reqwest::get(format!("http://{address}/")).await.unwrap();
        assert_eq!(full.status(), 503, "large ones have an end");
        // Further requests do not keep a connection that reads nothing.
        let (mut reader, mut writer) = strangers.remove(0).into_split();
        let asking = async {
            let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
            while writer.write_all(&ping).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let ended = async { while reader.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {} };
        let ended = tokio::time::timeout(Duration::from_secs(20), async {
            tokio::select! { () = asking => {}, () = ended => {} }
        });
        assert!(ended.await.is_ok(), "it is still open");
    })
    .await;
}

#[tokio::test]
async fn a_stop_lets_the_request_under_way_end() {
    let (began, may_end) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = {
        let (began, may_end) = (Arc::clone(&began), Arc::clone(&may_end));
        move || async move {
            began.notify_one();
            may_end.notified().await;
            "done"
        }
    };
    let listener = Listener::bind("127.0.0.1:0", Limits::default(), Metrics::default()).await.unwrap();
    let address = listener.local_addr();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(listener.serve(Router::new().route("/", get(slow)), async {
        let _ = stopped.await;
    }));
    let request = tokio::spawn(reqwest::get(format!("http://{address}/")));
    began.notified().await;
    drop(stop);
    while TcpStream::connect(address).await.is_ok() {}
    may_end.notify_one();
    assert_eq!(request.await.unwrap().unwrap().text().await.unwrap(), "done");
    server.await.unwrap();
}

#[test]
fn connections_leave_files_for_the_store() {
    let of = |open_files| Limits::default().within(open_files).connections;
    assert_eq!((of(u64::MAX), of(20_000), of(4_096)), (1024, 1024, 1024));
    assert_eq!((of(1_024), of(256), of(0)), (64, 16, 16));
}
