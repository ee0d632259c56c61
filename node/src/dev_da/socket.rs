//! One WebSocket connection to the dev DA layer: calls, subscriptions, keepalive.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::ws::{Message, WebSocket};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};
use tracing::debug;

use super::rpc::{Request, RpcError, response};
use super::store::NewBlock;
use super::{Shared, answer, methods};

/// Both sides ping this often.
const PING_EVERY: Duration = Duration::from_secs(5);
/// A peer that says nothing, not even ping or pong, or takes nothing for so long is gone.
const LONGEST_SILENCE: Duration = Duration::from_secs(30);
/// Frames that wait for being written.
const OUTBOX: usize = 16;
/// Calls of one connection under way; more are read later.
const CALLS: usize = 32;
/// Subscriptions of one connection.
const SUBSCRIPTIONS: usize = 64;

/// Serves a connection until it ends.
pub async fn serve(socket: WebSocket, shared: Arc<Shared>) {
    let (sink, stream) = socket.split();
    let (out, outbox) = mpsc::channel(OUTBOX);
    let connection = Connection {
        shared: shared.clone(),
        out,
        calls: Arc::new(Semaphore::new(CALLS)),
        tasks: JoinSet::new(),
        subscriptions: BTreeMap::new(),
        channels: 0,
    };
    tokio::select! {
        biased;
        () = shared.stopped() => {}
        () = write(sink, outbox) => {}
        () = connection.read(stream) => {}
    }
    debug!("a WebSocket connection ended");
}

async fn write(mut sink: SplitSink<WebSocket, Message>, mut outbox: mpsc::Receiver<Message>) {
    let mut pings = interval(PING_EVERY);
    loop {
        let message = tokio::select! {
            biased;
            _ = pings.tick() => Message::Ping(Bytes::new()),
            message = outbox.recv() => match message {
                Some(message) => message,
                None => return,
            },
        };
        if !matches!(timeout(LONGEST_SILENCE, sink.send(message)).await, Ok(Ok(()))) {
            return;
        }
    }
}

struct Connection {
    shared: Arc<Shared>,
    out: mpsc::Sender<Message>,
    calls: Arc<Semaphore>,
    tasks: JoinSet<()>,
    /// What ends a subscription, by the id of the request that started it.
    subscriptions: BTreeMap<String, oneshot::Sender<()>>,
    channels: u64,
}

impl Connection {
    async fn read(mut self, mut stream: SplitStream<WebSocket>) {
        // Pings are answered by the WebSocket library.
        while let Ok(Some(Ok(message))) = timeout(LONGEST_SILENCE, stream.next()).await {
            let open = match message {
                Message::Text(text) => self.take(text.into()).await,
                Message::Binary(bytes) => self.take(bytes).await,
                Message::Ping(_) | Message::Pong(_) => true,
                Message::Close(_) => false,
            };
            if !open {
                return;
            }
            while self.tasks.try_join_next().is_some() {}
        }
    }

    /// Starts what a frame asks for. Returns whether the connection goes on.
    async fn take(&mut self, text: Bytes) -> bool {
        let request = match Request::read(&text) {
            Ok(request) => request,
            Err(error) => return send(&self.out, response(None, &Err(error))).await,
        };
        match request.method.as_str() {
            "xrpc.cancel" => {
                self.cancel(&request);
                true
            }
            "blob.Subscribe" => self.subscribe(&request).await,
            _ => {
                let calls = Arc::clone(&self.calls);
                let permit = calls.acquire_owned().await.expect("the semaphore is never closed");
                let (shared, out) = (self.shared.clone(), self.out.clone());
                self.tasks.spawn(async move {
                    let (id, answer) = answer(&shared, text).await;
                    if id.is_some() {
                        send(&out, response(id.as_ref(), &answer)).await;
                    }
                    drop(permit);
                });
                true
            }
        }
    }

    /// An ordinary call is not taken back: its answer comes anyway.
    fn cancel(&mut self, request: &Request<'_>) {
        if let Ok((id,)) = request.params::<(Value,)>(1) {
            // Dropping the sender is the sign.
            self.subscriptions.remove(&id.to_string());
        }
    }

    async fn subscribe(&mut self, request: &Request<'_>) -> bool {
        self.subscriptions.retain(|_, end| !end.is_closed());
        let key = request.id.as_ref().map(Value::to_string);
        let opened = match (request.namespace(), key) {
            (Err(error), _) => Err(error),
            (Ok(_), None) => Err(RpcError::invalid_request("invalid request: a subscription needs an id")),
            (Ok(_), Some(_)) if self.subscriptions.len() >= SUBSCRIPTIONS => {
                Err(RpcError::application("too many subscriptions on this connection"))
            }
            (Ok(namespace), Some(key)) => Ok((namespace, key)),
        };
        let (namespace, key) = match opened {
            Ok(opened) => opened,
            Err(error) => return send(&self.out, response(request.id.as_ref(), &Err(error))).await,
        };
        self.channels += 1;
        let channel = self.channels;
        // From here on no block is missed; the answer goes out before the first event.
        let blocks = self.shared.store.subscribe();
        let (end, ended) = oneshot::channel();
        self.subscriptions.insert(key, end);
        let answered = send(&self.out, response(request.id.as_ref(), &Ok(channel.to_string()))).await;
        let (shared, out) = (self.shared.clone(), self.out.clone());
        self.tasks.spawn(push(shared, blocks, namespace, channel, out, ended));
        answered
    }
}

/// Tells a subscriber about every block. One that is too slow loses the oldest events.
async fn push(
    shared: Arc<Shared>,
    mut blocks: broadcast::Receiver<NewBlock>,
    namespace: [u8; 29],
    channel: u64,
    out: mpsc::Sender<Message>,
    mut ended: oneshot::Receiver<()>,
) {
    loop {
        let block = tokio::select! {
            biased;
            _ = &mut ended => break,
            block = blocks.recv() => block,
        };
        match block {
            Ok(block) => {
                let store = shared.clone();
                let event = shared.off_thread(move || methods::event(&store.store, &block, namespace)).await;
                let text =
                    format!(r#"{{"jsonrpc":"2.0","method":"xrpc.ch.val","params":[{channel},{event}]}}"#);
                if !send(&out, text).await {
                    return;
                }
            }
            Err(RecvError::Lagged(lost)) => debug!(lost, "a slow subscriber lost events"),
            Err(RecvError::Closed) => break,
        }
    }
    send(&out, format!(r#"{{"jsonrpc":"2.0","method":"xrpc.ch.close","params":[{channel}]}}"#)).await;
}

async fn send(out: &mpsc::Sender<Message>, text: String) -> bool {
    out.send(Message::text(text)).await.is_ok()
}
