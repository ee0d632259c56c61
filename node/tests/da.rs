//! The DA client against the dev DA layer, and against servers that misbehave.

#![allow(clippy::unwrap_used, reason = "what is not as expected fails the test")]

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix::Actor;
use axum::Router;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use baton::dev_da::{DevDaConfig, bind};
use baton_actors::da::celestia::{AuthToken, Celestia, Config, DaEvent};
use baton_actors::da::{self, Da, DaLayer, Proof};
use baton_messages::da::{Blob, DaError, GetBlobs, GetDaHead, Namespace, SubmitBlobs, blob_commitment};
use baton_messages::types::{DaHeight, Grant, Hash, Term};
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, LocalSet};

/// A running dev DA layer that makes blocks only when something is submitted.
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

    fn client(&self, scheme: &str) -> Celestia {
        Celestia::new(Config::at(format!("{scheme}://{}/rpc", self.address))).unwrap()
    }
}

fn quiet() -> DevDaConfig {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    DevDaConfig { listen, block_time: Duration::from_secs(3600), ..DevDaConfig::default() }
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

fn namespace(byte: u8) -> Namespace {
    let mut bytes = [0; 29];
    bytes[19..].fill(byte);
    Namespace(bytes)
}

fn blob(namespace_byte: u8, data: &'static [u8]) -> Blob {
    Blob { namespace: namespace(namespace_byte), data: Bytes::from_static(data) }
}

#[tokio::test]
async fn blobs_come_back_as_they_were_submitted() {
    for scheme in ["http", "ws"] {
        let server = run(quiet()).await;
        let client = server.client(scheme);
        let blobs = [blob(1, b"one"), blob(2, b"two"), blob(1, b"three")];
        assert_eq!(client.submit(&blobs).await, Ok(DaHeight(1)), "{scheme}");
        assert_eq!(client.submit(&[]).await, Ok(DaHeight(2)));

        let both = [namespace(1), namespace(2)];
        assert_eq!(client.get_all(DaHeight(1), &both).await.unwrap(), blobs);
        let own = client.get_all(DaHeight(1), &both[..1]).await.unwrap();
        assert_eq!(own, [blobs[0].clone(), blobs[2].clone()]);
        assert_eq!(client.get_all(DaHeight(1), &[]).await.unwrap(), []);
        assert_eq!(client.get_all(DaHeight(2), &both).await.unwrap(), [], "an empty height is no error");
        assert_eq!(client.get_all(DaHeight(0), &both).await.unwrap(), []);
        let future = client.get_all(DaHeight(3), &both).await;
        assert!(matches!(future, Err(DaError::FromTheFuture(_))), "{future:?}");

        let commitment = blob_commitment(&namespace(2), b"two");
        assert_eq!(client.get(DaHeight(1), namespace(2), commitment).await, Ok(Some(blobs[1].clone())));
        assert_eq!(client.get(DaHeight(1), namespace(1), commitment).await, Ok(None));
        let proof = client.proof(DaHeight(1), namespace(2), commitment).await.unwrap().unwrap();
        assert_eq!(client.included(DaHeight(1), namespace(2), &proof, commitment).await, Ok(true));
        let other = Proof(serde_json::Value::Null);
        assert_eq!(client.included(DaHeight(1), namespace(2), &other, Hash([9; 32])).await, Ok(false));
        server.stop().await;
    }
}

#[tokio::test]
async fn heads_have_heights_and_rising_times() {
    for scheme in ["http", "ws"] {
        let server = run(quiet()).await;
        let client = server.client(scheme);
        assert_eq!(client.head().await.unwrap().height, DaHeight(0));
        client.submit(&[blob(1, b"one")]).await.unwrap();
        client.submit(&[blob(1, b"two")]).await.unwrap();
        let (first, second) = (client.header(DaHeight(1)).await.unwrap(), client.head().await.unwrap());
        assert_eq!((first.height, second.height), (DaHeight(1), DaHeight(2)));
        assert!(first.time < second.time && first.time.0 > 1_600_000_000_000_000_000);
        assert!(matches!(client.header(DaHeight(3)).await, Err(DaError::FromTheFuture(_))));
        server.stop().await;
    }
}

#[tokio::test]
async fn a_blob_of_five_mebibytes_goes_through_and_one_over_the_limit_does_not() {
    for scheme in ["http", "ws"] {
        let server = run(quiet()).await;
        let client = server.client(scheme);
        let large = Blob { namespace: namespace(1), data: vec![7; 5 << 20].into() };
        assert_eq!(client.submit(std::slice::from_ref(&large)).await, Ok(DaHeight(1)), "{scheme}");
        assert!(client.get_all(DaHeight(1), &[namespace(1)]).await.unwrap() == [large.clone()]);
        let over = Blob { namespace: namespace(1), data: vec![7; (7 << 20) + 1].into() };
        let refused = client.submit(&[large, over]).await;
        assert!(matches!(refused, Err(DaError::TooBig(_))), "{refused:?}");
        assert_eq!(client.head().await.unwrap().height, DaHeight(1), "nothing of it was stored");
        server.stop().await;
    }
}

#[tokio::test]
async fn a_subscription_tells_of_every_block_and_ends_with_the_server() {
    let server = run(quiet()).await;
    let client = server.client("ws");
    let mut subscription = client.subscribe(namespace(1)).await.unwrap();
    let blobs = vec![blob(1, b"one")];
    client.submit(&blobs).await.unwrap();
    client.submit(&[blob(2, b"not mine")]).await.unwrap();
    let first = subscription.next().await.unwrap().unwrap();
    assert_eq!(first, DaEvent { height: DaHeight(1), blobs, time: None });
    let second = subscription.next().await.unwrap().unwrap();
    assert_eq!(second, DaEvent { height: DaHeight(2), blobs: vec![], time: None });
    server.stop().await;
    assert!(subscription.next().await.is_none());
}

#[tokio::test]
async fn a_subscription_over_http_is_refused_with_advice() {
    let server = run(quiet()).await;
    let refused = server.client("http").subscribe(namespace(1)).await.err().unwrap();
    assert!(refused.to_string().contains("ws://"), "{refused}");
    server.stop().await;
}

#[tokio::test]
async fn a_client_survives_a_restart_of_the_server_and_finds_its_blobs() {
    for scheme in ["http", "ws"] {
        let home = tempfile::tempdir().unwrap();
        let with_home = |listen: Option<SocketAddr>| {
            let home = Some(Path::to_owned(home.path()));
            DevDaConfig { home, listen: listen.unwrap_or(quiet().listen), ..quiet() }
        };
        let server = run(with_home(None)).await;
        let client = server.client(scheme);
        client.submit(&[blob(1, b"one")]).await.unwrap();
        let address = server.address;
        server.stop().await;
        let away = client.head().await;
        assert!(matches!(away, Err(DaError::Unavailable(_))), "{away:?}");
        let server = run(with_home(Some(address))).await;
        assert_eq!(client.get_all(DaHeight(1), &[namespace(1)]).await.unwrap(), [blob(1, b"one")]);
        assert_eq!(client.submit(&[blob(1, b"two")]).await, Ok(DaHeight(2)));
        server.stop().await;
    }
}

#[tokio::test]
async fn the_actor_puts_blobs_on_the_dev_da_layer() {
    let local = async {
        let server = run(quiet()).await;
        let layer = Rc::new(server.client("ws"));
        let da = Da::new(layer, da::Config::default(), da::Metrics::default()).start();
        let grant = Grant { term: Term(1) };
        let submit = SubmitBlobs { grant, blobs: vec![blob(1, b"one")] };
        assert_eq!(da.send(submit).await.unwrap(), Ok(DaHeight(1)));
        let read = GetBlobs { height: DaHeight(1), namespaces: vec![namespace(1)] };
        assert_eq!(da.send(read).await.unwrap(), Ok(vec![blob(1, b"one")]));
        assert_eq!(da.send(GetDaHead).await.unwrap().unwrap().height, DaHeight(1));
        server.stop().await;
    };
    LocalSet::new().run_until(local).await;
}

/// Serves both ways of asking with one handler each; returns `host:port`.
async fn misbehaving<S, H, P>(mut on_socket: S, mut on_post: P) -> String
where
    S: FnMut(WebSocketUpgrade, HeaderMap) -> H + Clone + Send + Sync + 'static,
    H: Into<axum::response::Response>,
    P: FnMut(HeaderMap) -> (StatusCode, String) + Clone + Send + Sync + 'static,
{
    type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;
    let handler = async move |upgrade: Upgrade, headers: HeaderMap| match upgrade {
        Ok(upgrade) => on_socket(upgrade, headers).into(),
        Err(_) => on_post(headers).into_response(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app: Router = Router::new().fallback(handler);
    tokio::spawn(async move { axum::serve(listener, app).await });
    address.to_string()
}

const HEAD: &str = r#"{"id":1,"jsonrpc":"2.0","result":{"height":"5"}}"#;

fn head_by_post(_: HeaderMap) -> (StatusCode, String) {
    (StatusCode::OK, HEAD.to_owned())
}

#[tokio::test]
async fn without_a_web_socket_the_client_asks_over_http() {
    let refuse = |_: WebSocketUpgrade, _: HeaderMap| StatusCode::FORBIDDEN.into_response();
    let address = misbehaving(refuse, head_by_post).await;
    let client = Celestia::new(Config::at(format!("ws://{address}"))).unwrap();
    assert_eq!(client.head().await.unwrap().height, DaHeight(5));
    assert_eq!(client.head().await.unwrap().height, DaHeight(5));
}

#[tokio::test]
async fn a_submission_whose_connection_breaks_is_not_sent_twice_and_a_read_is() {
    let posts = Arc::new(AtomicUsize::new(0));
    let hang_up = |upgrade: WebSocketUpgrade, _: HeaderMap| {
        upgrade.on_upgrade(
            async |mut socket: WebSocket| {
                while !matches!(socket.recv().await, Some(Ok(Message::Text(_))) | None) {}
            },
        )
    };
    let count = posts.clone();
    let counted = move |headers: HeaderMap| {
        count.fetch_add(1, Ordering::SeqCst);
        head_by_post(headers)
    };
    let address = misbehaving(hang_up, counted).await;
    let client = Celestia::new(Config::at(format!("ws://{address}"))).unwrap();
    let lost = client.submit(&[blob(1, b"one")]).await;
    assert!(matches!(lost, Err(DaError::Unavailable(_))), "{lost:?}");
    assert_eq!(posts.load(Ordering::SeqCst), 0);
    let client = Celestia::new(Config::at(format!("ws://{address}"))).unwrap();
    assert_eq!(client.head().await.unwrap().height, DaHeight(5));
    assert_eq!(posts.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn the_token_is_sent_over_both_ways() {
    let has_token =
        |headers: &HeaderMap| headers.get("authorization").is_some_and(|value| value == "Bearer t0ken");
    let socket = move |upgrade: WebSocketUpgrade, headers: HeaderMap| {
        if !has_token(&headers) {
            return StatusCode::UNAUTHORIZED.into_response();
        }
        upgrade.on_upgrade(async |mut socket: WebSocket| {
            while let Some(Ok(message)) = socket.recv().await {
                if matches!(message, Message::Text(_)) {
                    let _ = socket.send(Message::text(HEAD.replace("\"5\"", "\"6\""))).await;
                }
            }
        })
    };
    let post = move |headers: HeaderMap| {
        if has_token(&headers) { head_by_post(headers) } else { (StatusCode::UNAUTHORIZED, String::new()) }
    };
    let address = misbehaving(socket, post).await;
    for (scheme, height) in [("http", 5), ("ws", 6)] {
        let mut config = Config::at(format!("{scheme}://{address}"));
        let refused = Celestia::new(config.clone()).unwrap().head().await.unwrap_err().to_string();
        assert!(refused.contains("token"), "{refused}");
        config.auth_token = Some(AuthToken::new("t0ken"));
        assert_eq!(Celestia::new(config).unwrap().head().await.unwrap().height, DaHeight(height));
    }
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for scheme in ["http", "ws"] {
        let mut config = Config::at(format!("{scheme}://{}", silent.local_addr().unwrap()));
        config.request_timeout = Duration::from_millis(20);
        let late = Celestia::new(config).unwrap().head().await;
        assert!(matches!(late, Err(DaError::Unavailable(_))), "{late:?}");
    }
}

#[tokio::test]
async fn garbage_and_endless_answers_are_errors() {
    let refuse = |_: WebSocketUpgrade, _: HeaderMap| StatusCode::FORBIDDEN.into_response();
    let garbage = |_: HeaderMap| (StatusCode::OK, "<html>".repeat(100));
    let address = misbehaving(refuse, garbage).await;
    let mut config = Config::at(format!("http://{address}"));
    let error = Celestia::new(config.clone()).unwrap().head().await;
    assert!(matches!(error, Err(DaError::Other(_))), "{error:?}");
    config.max_answer = 100;
    let error = Celestia::new(config).unwrap().head().await.unwrap_err();
    assert!(error.to_string().contains("over 100 bytes"), "{error}");
}

/// The futures of the client can be dropped at any time: nothing is lost but the answer.
#[tokio::test]
async fn a_call_that_is_given_up_does_not_disturb_the_next() {
    let mut config = quiet();
    config.latency = Duration::from_millis(20);
    let server = run(config).await;
    let client = server.client("ws");
    client.head().await.unwrap();
    for _ in 0..3 {
        let mut call = std::pin::pin!(client.head());
        std::future::poll_fn(|context| {
            assert!(call.as_mut().poll(context).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
    }
    assert_eq!(client.submit(&[blob(1, b"one")]).await, Ok(DaHeight(1)));
    server.stop().await;
}
