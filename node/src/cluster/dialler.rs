//! The task behind a link: it dials when there is a call, and talks until the connection ends.

use std::sync::Arc;
use std::time::Duration;

use baton_actors::raft::transport::{CallError, Caller, Class};
use baton_messages::types::Member;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, timeout};
use tracing::{debug, info};

use crate::cluster::Shared;
use crate::cluster::backoff::Backoff;
use crate::cluster::conversation::{Conversation, Item, Owned, write_all};
use crate::cluster::frame::Frame;
use crate::cluster::handshake::{Failure, Handshake, plaintext_refusal};
use crate::cluster::hello::{Cause, Refusal};
use crate::cluster::limits::ClassLimits;
use crate::cluster::link::{Pending, Request, describe};
use crate::cluster::metrics::{By, Metrics};
use crate::cluster::net::Net;
use crate::cluster::refusals::Who;

/// Frames besides calls that may wait to be sent.
const SPARE: usize = 8;

/// The task of a link.
pub(super) struct Dialler<N: Net> {
    pub(super) shared: Arc<Shared<N>>,
    pub(super) member: Member,
    pub(super) class: Class,
    pub(super) limits: ClassLimits,
    pub(super) pending: Pending,
}

/// The next call, once there is room to send it: until then calls wait where their callers can
/// give them up.
async fn next<'a>(
    out: &'a mpsc::Sender<Item<()>>,
    requests: &mut mpsc::Receiver<Request>,
) -> Option<(Request, mpsc::Permit<'a, Item<()>>)> {
    match out.reserve().await {
        Ok(room) => requests.recv().await.map(|request| (request, room)),
        // The writer has ended, and says why itself.
        Err(_) => std::future::pending().await,
    }
}

/// How a connection ended.
struct Ended {
    reason: String,
    refusal: Option<Refusal>,
    /// Something came after the handshake: it was a connection worth the name.
    heard: bool,
}

impl<N: Net> Dialler<N> {
    /// Dials when there is a call and talks, until the transport closes or nobody calls any more.
    pub(super) async fn run(self, mut requests: mpsc::Receiver<Request>) {
        let mut backoff = Backoff::default();
        let mut down = CallError::Unreachable(format!("{} was not dialled yet", describe(&self.member)));
        let mut was_up = true;
        loop {
            let received = tokio::select! {
                biased;
                () = self.shared.gate.closing.cancelled() => break,
                received = timeout(self.shared.limits.forget, requests.recv()) => received,
            };
            let Ok(Some(first)) = received else { break };
            if first.waiting.answer.is_closed() {
                continue;
            }
            if !backoff.may_dial(Instant::now(), self.class == Class::Urgent) {
                first.waiting.fail(&down);
                continue;
            }
            let dialled = tokio::select! {
                biased;
                () = self.shared.gate.closing.cancelled() => break,
                dialled = self.dial() => dialled,
            };
            match dialled {
                Ok(conversation) => {
                    debug!(to = %describe(&self.member), class = self.class.name(), "connected");
                    was_up = true;
                    let ended = self.talk(conversation, first, &mut requests).await;
                    down = match &ended.refusal {
                        Some(refusal) => CallError::Refused(refusal.to_string()),
                        None => {
                            CallError::Unreachable(format!("{}: {}", describe(&self.member), ended.reason))
                        }
                    };
                    info!(to = %describe(&self.member), class = self.class.name(), reason = %ended.reason,
                        "the connection to a member ended");
                    self.pending.fail(&down);
                    match ended.heard && ended.refusal.is_none() {
                        true => backoff.succeeded(),
                        false => backoff.failed(Instant::now(), self.shared.chance()),
                    }
                }
                Err(error) => {
                    match was_up {
                        true => info!(class = self.class.name(), %error, "cannot connect to a member"),
                        false => debug!(class = self.class.name(), %error, "cannot connect to a member"),
                    }
                    was_up = false;
                    self.shared.gate.metrics.failed_dial(self.class);
                    backoff.failed(Instant::now(), self.shared.chance());
                    down = error;
                    first.waiting.fail(&down);
                    while let Ok(request) = requests.try_recv() {
                        request.waiting.fail(&down);
                    }
                }
            }
        }
        // Whoever asks from now on makes another link.
        requests.close();
        let closed =
            CallError::Unreachable(format!("the connection to {} was closed", describe(&self.member)));
        while let Ok(request) = requests.try_recv() {
            request.waiting.fail(&closed);
        }
    }

    async fn dial(&self) -> Result<Conversation, CallError> {
        let Shared { net, gate, limits, .. } = &*self.shared;
        let member = &self.member;
        let to = describe(member);
        let unreachable = |reason: String| CallError::Unreachable(format!("{to}: {reason}"));
        let connected = timeout(limits.connect, net.connect(&member.address)).await;
        let (stream, address) = match connected {
            Ok(Ok(connected)) => connected,
            Ok(Err(error)) => return Err(unreachable(error.to_string())),
            Err(_) => return Err(unreachable(format!("no connection within {:?}", limits.connect))),
        };
        let mut who = Who {
            address: address.to_string(),
            name: Some(member.name.clone()).filter(|name| !name.is_empty()),
            storage: None,
        };
        let refused = |by, refusal: Refusal, who| {
            gate.refusals.note(by, &refusal, who);
            match by {
                By::Us => CallError::Refused(format!("{to}: {refusal}")),
                By::Them => CallError::Refused(format!("{to} refuses this node: {refusal}")),
            }
        };
        if gate.tls.is_none() && !net.is_private(address) {
            return Err(refused(By::Us, plaintext_refusal(address), who));
        }
        let handshake = Handshake { gate, limits, who: &mut who }.dial(stream, member, self.class);
        match timeout(limits.handshake, handshake).await {
            Ok(Ok(conversation)) => Ok(conversation),
            Ok(Err(Failure::Refused(by, refusal, parting))) => {
                if let Some(parting) = parting {
                    self.shared.runtime.spawn(parting);
                }
                Err(refused(by, refusal, who))
            }
            Ok(Err(Failure::Broken(reason))) => {
                gate.metrics.refused(By::Them, Cause::Closed);
                Err(unreachable(reason))
            }
            Err(_) => {
                gate.metrics.refused(By::Them, Cause::Slow);
                Err(unreachable(format!("no handshake within {:?}", limits.handshake)))
            }
        }
    }

    /// Calls and answers until the connection ends.
    async fn talk(
        &self,
        conversation: Conversation,
        first: Request,
        requests: &mut mpsc::Receiver<Request>,
    ) -> Ended {
        let Conversation { mut reader, writer, mut peer, class, admission, pulse, said, .. } = conversation;
        let gate = &self.shared.gate;
        let _open = Metrics::gauge(&gate.metrics.connections, class, "out");
        // Room for every call under way, and for what is said besides.
        let (out, items) = mpsc::channel::<Item<()>>(self.limits.in_flight + SPARE);
        let pending = self.pending.clone();
        let is_wanted = move |id| pending.lock().contains_key(&id);
        let writing = write_all(writer, items, pulse.clone(), self.shared.limits.stall, is_wanted);
        let mut writing = Owned(tokio::spawn(writing));
        let mut cluster = gate.cluster_since(said);
        let mut tick = tokio::time::interval((self.limits.silence / 4).max(Duration::from_millis(1)));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = false;
        let mut called = Instant::now();
        if let Ok(room) = out.try_reserve() {
            self.begin(first, room);
        }
        let (reason, refusal) = loop {
            tokio::select! {
                biased;
                () = admission.ended.cancelled() => {
                    let refusal = admission.refusal();
                    let reason = refusal.as_ref().map_or("the node closes its connections", |refusal| &refusal.reason);
                    break (reason.to_owned(), refusal);
                }
                frame = reader.next() => {
                    let frame = match frame {
                        Some(Ok(frame)) => frame,
                        Some(Err(error)) => match Failure::from(error) {
                            Failure::Broken(reason) => break (reason, None),
                            Failure::Refused(by, refusal, _) => {
                                gate.refusals.note(by, &refusal, self.who(&peer));
                                break (refusal.reason.clone(), Some(refusal));
                            }
                        },
                        None => break ("closed by the other end".to_owned(), None),
                    };
                    heard |= !matches!(frame, Frame::Refused(_));
                    match self.hear(frame, &mut peer) {
                        Ok(()) => {}
                        Err((by, refusal)) => {
                            gate.refusals.note(by, &refusal, self.who(&peer));
                            if by == By::Us {
                                let _ = out.try_send(Item::bare(refusal.frame()));
                            }
                            break (refusal.reason.clone(), Some(refusal));
                        }
                    }
                    if !self.pending.is_empty() {
                        pulse.asked();
                    }
                }
                ended = &mut writing.0 => {
                    let reason = ended.ok().flatten().unwrap_or_else(|| "the connection was closed".to_owned());
                    break (reason, None);
                }
                request = next(&out, requests) => match request {
                    Some((request, room)) => {
                        called = Instant::now();
                        self.begin(request, room);
                    }
                    None => break ("the node closes its connections".to_owned(), None),
                },
                Ok(()) = cluster.changed() => {
                    let known = *cluster.borrow_and_update();
                    if let Some(known) = known {
                        let _ = out.try_send(Item::bare(Frame::Belongs(known)));
                    }
                }
                _ = tick.tick() => {
                    let silence = pulse.silence();
                    if silence >= self.limits.silence {
                        break (format!("nothing was heard for {silence:?}"), None);
                    }
                    if called.elapsed() >= self.shared.limits.forget {
                        break ("it was not used for long".to_owned(), None);
                    }
                    if silence >= self.limits.silence / 2 || pulse.quiet() >= self.shared.limits.idle {
                        let _ = out.try_send(Item::bare(Frame::Ping));
                    }
                }
            }
        };
        drop(out);
        // What is still to be said (a refusal) is said by a task of its own.
        if let Some(refusal) = &refusal {
            debug!(reason = %refusal.reason, "parting");
            self.shared.runtime.spawn(async move {
                let mut writing = writing;
                let _ = timeout(Duration::from_secs(1), &mut writing.0).await;
                drop(reader);
            });
        }
        Ended { reason, refusal, heard }
    }

    fn who(&self, peer: &Caller) -> Who {
        Who {
            address: self.member.address.clone(),
            name: Some(peer.name.clone()),
            storage: Some(peer.storage),
        }
    }

    /// Puts a call on its way.
    fn begin(&self, request: Request, room: mpsc::Permit<'_, Item<()>>) {
        let Request { id, body, deadline, waiting } = request;
        if waiting.answer.is_closed() {
            return;
        }
        self.pending.lock().insert(id, waiting);
        room.send(Item::Call { id, deadline, body });
    }

    fn hear(&self, frame: Frame, peer: &mut Caller) -> Result<(), (By, Refusal)> {
        match frame {
            Frame::Answer { id, body } => {
                if let Some(waiting) = self.pending.take(id) {
                    let _ = waiting.answer.send(Ok((peer.clone(), body)));
                }
            }
            Frame::Denied { id, reason } => {
                if let Some(waiting) = self.pending.take(id) {
                    waiting.fail(&CallError::Denied(reason));
                }
            }
            Frame::Pong => {}
            Frame::Belongs(cluster) => {
                self.shared.belongs(cluster, peer).map_err(|refusal| (By::Us, refusal))?
            }
            Frame::Refused(text) => return Err((By::Them, Refusal::told(&text))),
            Frame::Hello { .. } | Frame::Welcome | Frame::Call { .. } | Frame::Ping => {
                return Err((By::Us, Refusal::new(Cause::Malformed, "only answers are expected here")));
            }
        }
        Ok(())
    }
}
