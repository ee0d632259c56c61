use tokio::io::{DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::*;

/// The client's side of a connection in memory, and the server's.
struct Connected {
    outbox: mpsc::Sender<Outgoing>,
    server: WebSocketStream<DuplexStream>,
    task: JoinHandle<()>,
}

async fn connected() -> Connected {
    let (client, server) = duplex(1 << 16);
    let client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    let server = WebSocketStream::from_raw_socket(server, Role::Server, None).await;
    let (outbox, requests) = mpsc::channel(OUTBOX);
    let task = tokio::spawn(run(client, requests));
    Connected { outbox, server, task }
}

impl Connected {
    /// A call that has reached the server.
    async fn call(&mut self, id: u64) -> oneshot::Receiver<Utf8Bytes> {
        let (waiter, answer) = oneshot::channel();
        let text = format!("request {id}").into();
        let request = Outgoing::Request { id, text, waiter: Waiter::Call(waiter) };
        assert!(self.outbox.send(request).await.is_ok());
        assert_eq!(self.hear().await, format!("request {id}"));
        answer
    }

    async fn subscribe(&mut self, id: u64, channel: u64) -> Channel {
        let (waiter, answer) = oneshot::channel();
        let request =
            Outgoing::Request { id, text: "subscribe".into(), waiter: Waiter::Subscription(waiter) };
        assert!(self.outbox.send(request).await.is_ok());
        assert_eq!(self.hear().await, "subscribe");
        self.say(&format!(r#"{{"id":{id},"jsonrpc":"2.0","result":{channel}}}"#)).await;
        let values = answer.await.unwrap().unwrap();
        Channel { id, values, outbox: self.outbox.clone() }
    }

    async fn say(&mut self, text: &str) {
        self.server.send(Message::text(text)).await.unwrap();
    }

    /// The next text the client says.
    async fn hear(&mut self) -> String {
        loop {
            if let Message::Text(text) = self.server.next().await.unwrap().unwrap() {
                return text.to_string();
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_pings_but_never_answers_pings_is_alive() {
    let mut connected = connected().await;
    for _ in 0..24 {
        sleep(PING_EVERY).await;
        // Nothing is read, so no ping of the client is answered.
        connected.server.send(Message::Ping(bytes::Bytes::new())).await.unwrap();
    }
    assert!(!connected.task.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_is_gone_after_half_a_minute() {
    let mut connected = connected().await;
    let answer = connected.call(1).await;
    let started = Instant::now();
    assert!(answer.await.is_err(), "whoever waits learns that the connection ended");
    assert_eq!(started.elapsed(), LONGEST_SILENCE);
    connected.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn answers_find_the_calls_they_belong_to_in_any_order() {
    let mut connected = connected().await;
    let (first, second, third) = (connected.call(1).await, connected.call(2).await, connected.call(3).await);
    drop(second);
    for answer in [r#"{"id":3}"#, r#"{"id":2}"#, r#"{"id":9}"#, r#"{"id":null}"#, r#"{"id":1}"#] {
        connected.say(answer).await;
    }
    assert_eq!(first.await.unwrap(), r#"{"id":1}"#);
    assert_eq!(third.await.unwrap(), r#"{"id":3}"#);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_json_rpc_ends_the_connection() {
    let mut connected = connected().await;
    let answer = connected.call(1).await;
    connected.say("<html>").await;
    assert!(answer.await.is_err());
    connected.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_hears_its_own_channel_until_it_is_closed() {
    let mut connected = connected().await;
    let mut own = connected.subscribe(1, 5).await;
    let mut other = connected.subscribe(2, 6).await;
    let value =
        |channel: u64| format!(r#"{{"jsonrpc":"2.0","method":"xrpc.ch.val","params":[{channel},7]}}"#);
    for channel in [5, 6, 99] {
        connected.say(&value(channel)).await;
    }
    assert_eq!(own.next().await.unwrap(), value(5));
    connected.say(r#"{"jsonrpc":"2.0","method":"xrpc.ch.close","params":[5]}"#).await;
    assert_eq!(own.next().await, None);
    assert_eq!(other.next().await.unwrap(), value(6));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_subscription_is_cancelled_by_the_id_of_its_request() {
    let mut connected = connected().await;
    drop(connected.subscribe(41, 5).await);
    assert_eq!(connected.hear().await, cancellation(41));
}

#[tokio::test(start_paused = true)]
async fn a_slow_subscriber_loses_the_newest_events_and_nobody_else_waits() {
    let mut connected = connected().await;
    let mut slow = connected.subscribe(1, 5).await;
    for value in 0..2 * EVENTS {
        connected.say(&format!(r#"{{"method":"xrpc.ch.val","params":[5,{value}]}}"#)).await;
    }
    let answer = connected.call(2).await;
    connected.say(r#"{"id":2}"#).await;
    assert!(answer.await.is_ok());
    connected.say(r#"{"method":"xrpc.ch.close","params":[5]}"#).await;
    let mut heard = 0;
    while slow.next().await.is_some() {
        heard += 1;
    }
    assert_eq!(heard, EVENTS);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_nobody_needs_ends() {
    let Connected { outbox, server, task } = connected().await;
    drop(outbox);
    task.await.unwrap();
    drop(server);
}
