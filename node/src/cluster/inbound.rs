//! Connections of others: taken within limits, greeted, and answered.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use baton_actors::raft::transport::{Caller, Class};
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, timeout};
use tracing::{debug, warn};

use crate::cluster::Shared;
use crate::cluster::conversation::{Conversation, Item, Owned, write_all};
use crate::cluster::frame::Frame;
use crate::cluster::handshake::{Failure, Handshake, plaintext_refusal};
use crate::cluster::hello::{Cause, Refusal};
use crate::cluster::limits::Limits;
use crate::cluster::metrics::{By, Held, Metrics};
use crate::cluster::net::{Listen, Net};
use crate::cluster::places::{Place, Places};
use crate::cluster::refusals::Who;

/// Before accepting again after an error, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);
/// Frames besides answers that may wait to be sent.
const SPARE: usize = 8;

/// Accepts until the transport closes.
pub(super) async fn accept_all<N: Net>(shared: Arc<Shared<N>>, mut listener: N::Listener) {
    let places = Places::new(&shared.limits);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.gate.closing.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            // That one is gone; the next one has nothing to do with it.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => {
                warn!(%error, "cannot accept connections of members for a moment");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let refused = |refusal: &Refusal| {
            let who = Who { address: address.to_string(), ..Who::default() };
            shared.gate.refusals.note(By::Us, refusal, who);
        };
        if shared.gate.tls.is_none() && !shared.net.is_private(address) {
            refused(&plaintext_refusal(address));
            continue;
        }
        match places.take(address.ip()) {
            Ok(place) => {
                connections.spawn(converse(shared.clone(), stream, address, place));
            }
            Err(reason) => refused(&Refusal::new(Cause::Full, reason)),
        }
    }
    // Connections end by the same token; what is to be said to the others is said first.
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(Duration::from_secs(1), ended).await.is_err() {
        connections.shutdown().await;
    }
}

/// One connection, from its handshake to its end.
async fn converse<N: Net>(shared: Arc<Shared<N>>, stream: N::Stream, address: SocketAddr, place: Place) {
    let Shared { gate, limits, .. } = &*shared;
    let mut who = Who { address: address.to_string(), ..Who::default() };
    let handshake = Handshake { gate, limits, who: &mut who }.accept(stream);
    let greeted = tokio::select! {
        biased;
        () = gate.closing.cancelled() => return,
        greeted = timeout(limits.handshake, handshake) => greeted,
        () = place.needed.cancelled() => {
            let refusal = Refusal::new(Cause::Full, "too many handshakes: its place was given to a newer one");
            return gate.refusals.note(By::Us, &refusal, who);
        }
    };
    let (by, refusal, parting) = match greeted {
        Ok(Ok(conversation)) => {
            place.keep();
            return answer_all(shared, conversation).await;
        }
        Ok(Err(Failure::Refused(by, refusal, parting))) => (by, refusal, parting),
        Ok(Err(Failure::Broken(reason))) => (By::Them, Refusal::new(Cause::Closed, reason), None),
        Err(_) => {
            let reason = format!("no handshake within {:?}", limits.handshake);
            (By::Us, Refusal::new(Cause::Slow, reason), None)
        }
    };
    gate.refusals.note(by, &refusal, who);
    if let Some(parting) = parting {
        tokio::select! {
            biased;
            () = place.needed.cancelled() => {}
            () = parting => {}
        }
    }
}

/// A call being answered; counted while it lasts.
struct Served {
    _permit: OwnedSemaphorePermit,
    _counted: Held,
}

/// Answers calls until the connection ends.
async fn answer_all<N: Net>(shared: Arc<Shared<N>>, conversation: Conversation) {
    let Conversation { mut reader, writer, mut peer, class, admission, pulse, address, said } = conversation;
    let Shared { gate, limits, .. } = &*shared;
    let in_flight = limits.of(class).in_flight.max(1);
    let _open = Metrics::gauge(&gate.metrics.connections, class, "in");
    let places = Arc::new(Semaphore::new(in_flight));
    let (out, items) = mpsc::channel::<Item<Served>>(in_flight + SPARE);
    let writing = write_all(writer, items, pulse.clone(), limits.stall, |_| true);
    let mut writing = Owned(tokio::spawn(writing));
    let mut calls = JoinSet::new();
    let mut cluster = gate.cluster_since(said);
    let mut tick = tokio::time::interval(limits.idle.max(Duration::from_millis(1)));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let refusal = loop {
        let frame = tokio::select! {
            biased;
            () = admission.ended.cancelled() => break admission.refusal(),
            _ = &mut writing.0 => break None,
            Some(_) = calls.join_next() => continue,
            frame = reader.next() => frame,
            Ok(()) = cluster.changed() => {
                let known = *cluster.borrow_and_update();
                if let Some(known) = known {
                    let _ = out.try_send(Item::bare(Frame::Belongs(known)));
                }
                continue;
            }
            _ = tick.tick() => {
                if pulse.quiet() >= limits.idle * 3 {
                    debug!(name = %peer.name, class = class.name(), "a member fell silent");
                    break None;
                }
                continue;
            }
        };
        match frame {
            Some(Ok(Frame::Call { id, within, body })) => {
                // Whoever asks for more than was agreed is not read until there is room.
                let weight = u32::try_from(Limits::weight(body.len(), in_flight)).unwrap_or(1);
                let permit = tokio::select! {
                    biased;
                    () = admission.ended.cancelled() => break admission.refusal(),
                    permit = Arc::clone(&places).acquire_many_owned(weight) => permit.ok(),
                };
                let Some(permit) = permit else { break None };
                let counted = Metrics::gauge(&gate.metrics.in_flight, class, "in");
                let served = Served { _permit: permit, _counted: counted };
                let within = Duration::from_millis(within.into());
                let answer = answer(shared.clone(), peer.clone(), class, within, body);
                let out = out.clone();
                calls.spawn(async move {
                    if let Some(answer) = answer.await {
                        let frame = match answer {
                            Ok(body) => Frame::Answer { id, body },
                            Err(reason) => Frame::Denied { id, reason },
                        };
                        // The connection has ended: nobody to answer.
                        let _ = out.send(Item::Frame(frame, Some(served))).await;
                    }
                });
            }
            Some(Ok(Frame::Ping)) => {
                let _ = out.try_send(Item::bare(Frame::Pong));
            }
            Some(Ok(Frame::Belongs(cluster))) => match shared.belongs(cluster, &mut peer) {
                Ok(()) => {}
                Err(refusal) => break Some(refusal),
            },
            Some(Ok(Frame::Refused(text))) => {
                gate.refusals.note(By::Them, &Refusal::told(&text), who(&peer, &address));
                break None;
            }
            Some(Ok(_)) => break Some(Refusal::new(Cause::Malformed, "only calls are expected here")),
            Some(Err(error)) => match Failure::from(error) {
                Failure::Refused(_, refusal, _) => break Some(refusal),
                Failure::Broken(reason) => {
                    debug!(name = %peer.name, class = class.name(), reason, "a member's connection broke");
                    break None;
                }
            },
            None => break None,
        }
    };
    // Nobody waits for what is still under way.
    drop(calls);
    if let Some(refusal) = refusal {
        gate.refusals.note(By::Us, &refusal, who(&peer, &address));
        let _ = out.try_send(Item::bare(refusal.frame()));
        drop(out);
        let _ = timeout(Duration::from_secs(1), &mut writing.0).await;
        let drained = async { while let Some(Ok(_)) = reader.next().await {} };
        let _ = timeout(Duration::from_secs(1), drained).await;
    }
}

fn who(peer: &Caller, address: &str) -> Who {
    Who { address: address.to_owned(), name: Some(peer.name.clone()), storage: Some(peer.storage) }
}

/// The answer to a call, or why there is none; `None` when nobody waits for it any more.
async fn answer<N: Net>(
    shared: Arc<Shared<N>>,
    peer: Caller,
    class: Class,
    within: Duration,
    body: Bytes,
) -> Option<Result<Bytes, String>> {
    let started = Instant::now();
    let limit = shared.limits.of(class).bytes;
    let name = peer.name.clone();
    let answered = match shared.serving() {
        Some(serve) => timeout(within, serve(peer, class, body)).await,
        None => Ok(Err("this node answers no calls now".to_owned())),
    };
    let (answer, outcome) = match answered {
        Ok(Ok(answer)) if answer.len() > limit => {
            let reason = format!("the answer of {} bytes is over the limit of {limit}", answer.len());
            (Some(Err(reason)), "denied")
        }
        Ok(Ok(answer)) => (Some(Ok(answer)), "answered"),
        Ok(Err(reason)) => (Some(Err(reason)), "denied"),
        Err(_) => {
            debug!(from = %name, class = class.name(), after = ?started.elapsed(), "a call was not answered in time");
            (None, "expired")
        }
    };
    shared.gate.metrics.served_as(class, outcome);
    answer
}
