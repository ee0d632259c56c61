//! JSON-RPC over one WebSocket connection, with go-jsonrpc's subscriptions (wire section 5.1).
//!
//! The connection is dialled when a call needs it. It counts as alive while anything comes in,
//! pings included: go-jsonrpc pings but does not answer pings, so pongs are never waited for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use baton_messages::da::DaError;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, interval, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};
use tracing::{debug, info, warn};

use crate::da::rpc;

/// How long opening the connection may take.
const DIAL_WITHIN: Duration = Duration::from_secs(5);
/// The pause before the second dial; it doubles up to the longest.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// ev-node's pause between attempts to get back from HTTP to WebSocket.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Both sides ping this often.
const PING_EVERY: Duration = Duration::from_secs(5);
/// A connection on which nothing comes in for so long is dead.
const LONGEST_SILENCE: Duration = Duration::from_secs(30);
/// Requests that wait for being written. Callers wait when it is full.
const OUTBOX: usize = 16;
/// Events a slow subscriber may be behind; then it loses the newest.
const EVENTS: usize = 16;

/// Why a call has no answer.
#[derive(Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// The request was not sent. It is safe to send it another way.
    NotSent(String),
    /// The connection ended under it. The request may have been carried out.
    Lost(String),
}

/// A connection that comes back.
pub struct Socket {
    url: Url,
    authorization: Option<HeaderValue>,
    max_message: usize,
    state: tokio::sync::Mutex<Dialler>,
}

#[derive(Default)]
struct Dialler {
    outbox: Option<mpsc::Sender<Outgoing>>,
    failures: u32,
    not_before: Option<Instant>,
}

enum Outgoing {
    Request { id: u64, text: Utf8Bytes, waiter: Waiter },
    Cancel { id: u64 },
}

enum Waiter {
    Call(oneshot::Sender<Utf8Bytes>),
    Subscription(oneshot::Sender<Result<mpsc::Receiver<Utf8Bytes>, Utf8Bytes>>),
}

impl Waiter {
    fn is_closed(&self) -> bool {
        match self {
            Self::Call(waiter) => waiter.is_closed(),
            Self::Subscription(waiter) => waiter.is_closed(),
        }
    }
}

/// A stream of pushed values, as the texts of whole frames. It ends with the connection.
/// A reader that is too slow loses values.
pub struct Channel {
    id: u64,
    values: mpsc::Receiver<Utf8Bytes>,
    outbox: mpsc::Sender<Outgoing>,
}

impl Channel {
    /// The next frame; `None` when the server or the connection ended the stream.
    pub async fn next(&mut self) -> Option<Utf8Bytes> {
        self.values.recv().await
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // A hint: a full outbox only means that the server goes on until it is told with the next event.
        let _ = self.outbox.try_send(Outgoing::Cancel { id: self.id });
    }
}

impl Socket {
    /// A connection to this address, not dialled yet.
    pub fn new(url: Url, authorization: Option<HeaderValue>, max_message: usize) -> Self {
        Self { url, authorization, max_message, state: tokio::sync::Mutex::default() }
    }

    /// Sends a request and waits for the frame that answers it.
    pub async fn call(&self, id: u64, text: Utf8Bytes) -> Result<Utf8Bytes, NoAnswer> {
        let outbox = self.connected().await?;
        let (waiter, answer) = oneshot::channel();
        send(&outbox, Outgoing::Request { id, text, waiter: Waiter::Call(waiter) }).await?;
        answer.await.map_err(|_| NoAnswer::Lost("the connection ended".to_owned()))
    }

    /// Sends a request whose answer is a stream.
    pub async fn subscribe(&self, id: u64, method: &str, text: Utf8Bytes) -> Result<Channel, DaError> {
        let unavailable = |error| match error {
            NoAnswer::NotSent(why) | NoAnswer::Lost(why) => DaError::Unavailable(why),
        };
        let outbox = self.connected().await.map_err(unavailable)?;
        let (waiter, answer) = oneshot::channel();
        let request = Outgoing::Request { id, text, waiter: Waiter::Subscription(waiter) };
        send(&outbox, request).await.map_err(unavailable)?;
        match answer.await {
            Ok(Ok(values)) => Ok(Channel { id, values, outbox }),
            Ok(Err(frame)) => {
                let error = rpc::response::<IgnoredAny>(method, frame.as_bytes()).err();
                Err(error.unwrap_or_else(|| DaError::Other(format!("{method} answered without a channel"))))
            }
            Err(_) => Err(DaError::Unavailable("the connection ended".to_owned())),
        }
    }

    /// The live connection, or a new one unless the last dial failed just now.
    async fn connected(&self) -> Result<mpsc::Sender<Outgoing>, NoAnswer> {
        let mut state = self.state.lock().await;
        if let Some(outbox) = state.outbox.as_ref().filter(|outbox| !outbox.is_closed()) {
            return Ok(outbox.clone());
        }
        state.outbox = None;
        if state.not_before.is_some_and(|instant| Instant::now() < instant) {
            return Err(NoAnswer::NotSent("not connected; waiting before the next attempt".to_owned()));
        }
        // Also after a success: a server that accepts and hangs up is not dialled in a loop.
        let pause = SHORTEST_PAUSE.saturating_mul(1 << state.failures.min(9)).min(LONGEST_PAUSE);
        match self.dial().await {
            Ok(stream) => {
                info!(url = %self.url.origin().ascii_serialization(), "connected to the DA layer");
                let (outbox, requests) = mpsc::channel(OUTBOX);
                tokio::spawn(run(stream, requests));
                state.outbox = Some(outbox.clone());
                state.failures = 0;
                state.not_before = Some(Instant::now() + SHORTEST_PAUSE);
                Ok(outbox)
            }
            Err(why) => {
                state.failures += 1;
                state.not_before = Some(Instant::now() + pause);
                warn!(%why, failures = state.failures, "no WebSocket connection to the DA layer");
                Err(NoAnswer::NotSent(why))
            }
        }
    }

    async fn dial(&self) -> Result<WebSocketStream<MaybeTlsStream<TcpStream>>, String> {
        let mut request = self.url.as_str().into_client_request().map_err(|error| error.to_string())?;
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        let limit = Some(self.max_message);
        let config = WebSocketConfig::default().max_message_size(limit).max_frame_size(limit);
        let dial = connect_async_with_config(request, Some(config), true);
        match timeout(DIAL_WITHIN, dial).await {
            Ok(Ok((stream, _))) => Ok(stream),
            Ok(Err(error)) => Err(rpc::shorten(&error.to_string())),
            Err(_) => Err(format!("no connection within {DIAL_WITHIN:?}")),
        }
    }
}

async fn send(outbox: &mpsc::Sender<Outgoing>, outgoing: Outgoing) -> Result<(), NoAnswer> {
    outbox.send(outgoing).await.map_err(|_| NoAnswer::NotSent("the connection ended".to_owned()))
}

/// What is under way on one connection.
#[derive(Default)]
struct Waiting {
    requests: BTreeMap<u64, Waiter>,
    channels: BTreeMap<u64, mpsc::Sender<Utf8Bytes>>,
}

/// Serves one connection until it ends or nobody needs it. Whoever still waits then sees its
/// channel closed.
async fn run<S>(stream: WebSocketStream<S>, requests: mpsc::Receiver<Outgoing>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (sink, stream) = stream.split();
    let waiting = Arc::new(Mutex::new(Waiting::default()));
    let why = tokio::select! {
        biased;
        why = read(stream, &waiting) => why,
        why = write(sink, requests, &waiting) => why,
    };
    debug!(%why, "the WebSocket connection to the DA layer ended");
}

async fn write<S>(
    mut sink: SplitSink<WebSocketStream<S>, Message>,
    mut requests: mpsc::Receiver<Outgoing>,
    waiting: &Mutex<Waiting>,
) -> String
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut pings = interval(PING_EVERY);
    loop {
        let message = tokio::select! {
            biased;
            _ = pings.tick() => Message::Ping(bytes::Bytes::new()),
            outgoing = requests.recv() => match outgoing {
                None => return "not needed any more".to_owned(),
                Some(Outgoing::Cancel { id }) => Message::text(cancellation(id)),
                Some(Outgoing::Request { id, text, waiter }) => {
                    let requests = &mut lock(waiting).requests;
                    // Callers that stopped waiting leave their place here.
                    requests.retain(|_, waiter| !waiter.is_closed());
                    requests.insert(id, waiter);
                    Message::Text(text)
                }
            },
        };
        if let Err(error) = sink.send(message).await {
            return error.to_string();
        }
    }
}

fn cancellation(id: u64) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"xrpc.cancel","params":[{id}]}}"#)
}

async fn read<S>(mut stream: SplitStream<WebSocketStream<S>>, waiting: &Mutex<Waiting>) -> String
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match timeout(LONGEST_SILENCE, stream.next()).await {
            Err(_) => return format!("nothing came in for {LONGEST_SILENCE:?}"),
            Ok(None | Some(Ok(Message::Close(_)))) => return "closed by the server".to_owned(),
            Ok(Some(Err(error))) => return error.to_string(),
            Ok(Some(Ok(Message::Text(text)))) => {
                if let Err(error) = take(text, &mut lock(waiting)) {
                    return format!("not JSON-RPC: {error}");
                }
            }
            Ok(Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_)))) => {}
        }
    }
}

/// Hands a frame to whoever waits for it.
fn take(text: Utf8Bytes, waiting: &mut Waiting) -> Result<(), serde_json::Error> {
    #[derive(Deserialize)]
    struct Frame {
        #[serde(default)]
        id: Option<u64>,
        #[serde(default)]
        method: Option<String>,
    }
    let frame: Frame = serde_json::from_str(&text)?;
    match (frame.method.as_deref(), frame.id) {
        (Some("xrpc.ch.val"), _) => take_value(text, waiting)?,
        (Some("xrpc.ch.close"), _) => {
            #[derive(Deserialize)]
            struct Close {
                params: (u64,),
            }
            let close: Close = serde_json::from_str(&text)?;
            waiting.channels.remove(&close.params.0);
        }
        (Some(method), _) => debug!(method, "the DA layer calls what nobody offers"),
        (None, Some(id)) => match waiting.requests.remove(&id) {
            Some(Waiter::Call(waiter)) => {
                let _ = waiter.send(text);
            }
            Some(Waiter::Subscription(waiter)) => {
                let opened = rpc::response::<u64>("subscribe", text.as_bytes()).map(|channel| {
                    let (values, receiver) = mpsc::channel(EVENTS);
                    waiting.channels.insert(channel, values);
                    receiver
                });
                let _ = waiter.send(opened.map_err(|_| text));
            }
            None => debug!(id, "an answer came too late"),
        },
        (None, None) => debug!("the DA layer answered something without an id"),
    }
    Ok(())
}

fn take_value(text: Utf8Bytes, waiting: &mut Waiting) -> Result<(), serde_json::Error> {
    #[derive(Deserialize)]
    struct Value {
        params: (u64, IgnoredAny),
    }
    let value: Value = serde_json::from_str(&text)?;
    let channel = value.params.0;
    match waiting.channels.get(&channel).map(|values| values.try_send(text)) {
        None | Some(Ok(())) => {}
        Some(Err(TrySendError::Full(_))) => warn!(channel, "a slow subscriber loses an event"),
        Some(Err(TrySendError::Closed(_))) => {
            waiting.channels.remove(&channel);
        }
    }
    Ok(())
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    // Nothing that can panic runs under the lock.
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
