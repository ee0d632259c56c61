//! From a bare connection to one whose ends know each other.
//!
//! ```text
//! dialler   hello ─────▶
//!                 ◀───── hello | refused
//!           welcome | refused ─────▶          calls may follow the welcome at once
//! ```

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use baton_actors::raft::transport::Class;
use baton_messages::types::Member;
use futures::StreamExt;
use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio_rustls::TlsStream;
use tokio_util::codec::FramedRead;
use uuid::Uuid;

use crate::cluster::certificates::read_certificate;
use crate::cluster::conversation::{Conversation, Counted, Pulse, Reader, Wire, Writer};
use crate::cluster::frame::{Frame, FrameError, Frames, HELLO};
use crate::cluster::gate::{Admission, Gate};
use crate::cluster::hello::{Cause, Expected, Hello, Refusal};
use crate::cluster::limits::Limits;
use crate::cluster::metrics::By;
use crate::cluster::refusals::Who;
use crate::cluster::tls;

/// After a refusal, for it to arrive: closing at once could overtake it.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes that are read after TLS failed, and thrown away.
const MOST_AFTER_ALERT: u64 = 64 << 10;

/// A handshake that failed.
pub(super) enum Failure {
    /// One side refused.
    Refused(By, Refusal, Option<Parting>),
    /// The connection broke.
    Broken(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match tls::trouble(&error) {
            Some((by, refusal)) => Self::Refused(by, refusal, None),
            None => Self::Broken(error.to_string()),
        }
    }
}

impl From<FrameError> for Failure {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Io(error) => error.into(),
            FrameError::TooLarge { .. } => {
                let reason = format!("{error}: block.max_bytes must be the same on every member");
                Self::Refused(By::Us, Refusal::new(Cause::TooLarge, reason), None)
            }
            FrameError::Malformed => {
                Self::Refused(By::Us, Refusal::new(Cause::Malformed, error.to_string()), None)
            }
        }
    }
}

/// What no member would say in a handshake: anybody scans ports.
fn of_a_stranger(error: FrameError) -> Failure {
    match error {
        FrameError::Io(error) => error.into(),
        FrameError::TooLarge { .. } | FrameError::Malformed => {
            Failure::Refused(By::Us, Refusal::new(Cause::Malformed, error.to_string()), None)
        }
    }
}

/// What is left to do on a refused connection: the refusal must arrive, and closing a connection
/// with unread bytes could overtake it.
pub(super) type Parting = BoxFuture<'static, ()>;

/// Tells the other side and waits a little for it to close.
async fn part(mut reader: Reader, mut writer: Writer, refusal: Refusal) {
    let said = async {
        refusal.frame().write(&mut writer).await?;
        writer.shutdown().await?;
        while let Some(Ok(_)) = reader.next().await {}
        Ok::<_, io::Error>(())
    };
    // Whoever does not listen learns no reason.
    let _ = tokio::time::timeout(LINGER, said).await;
}

/// TLS failed: its alert is on the way already.
async fn part_in_tls(mut stream: impl Wire) {
    let said = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut (&mut stream).take(MOST_AFTER_ALERT), &mut tokio::io::sink()).await
    };
    let _ = tokio::time::timeout(LINGER, said).await;
}

fn failed_in_tls<S: Wire + 'static>((error, stream): (io::Error, S)) -> Failure {
    match Failure::from(error) {
        Failure::Refused(by, refusal, _) => {
            Failure::Refused(by, refusal, Some(Box::pin(part_in_tls(stream))))
        }
        broken @ Failure::Broken(_) => broken,
    }
}

/// One handshake under way.
pub(super) struct Handshake<'a> {
    pub(super) gate: &'a Arc<Gate>,
    pub(super) limits: &'a Limits,
    /// What is known of the other so far.
    pub(super) who: &'a mut Who,
}

struct Halves {
    reader: Reader,
    writer: Writer,
    pulse: Arc<Pulse>,
    /// The names in the other's certificate; `None` without TLS.
    certified: Option<Vec<String>>,
}

impl Halves {
    fn of(wire: Box<dyn Wire>, certified: Option<Vec<String>>) -> Self {
        let pulse = Pulse::new();
        let (read, write) = split(wire);
        Self {
            reader: FramedRead::new(Counted::new(read, pulse.clone()), Frames::up_to(HELLO)),
            writer: Counted::new(write, pulse.clone()),
            pulse,
            certified,
        }
    }

    fn refuse(self, refusal: Refusal) -> Failure {
        let parting = part(self.reader, self.writer, refusal.clone());
        Failure::Refused(By::Us, refusal, Some(Box::pin(parting)))
    }

    async fn next(&mut self) -> Result<Frame, Failure> {
        match self.reader.next().await {
            Some(frame) => match frame.map_err(of_a_stranger)? {
                Frame::Refused(text) => Err(Failure::Refused(By::Them, Refusal::told(&text), None)),
                frame => Ok(frame),
            },
            None => Err(Failure::Broken("closed by the other end in the handshake".to_owned())),
        }
    }

    async fn hello(&mut self) -> Result<Result<Hello, Refusal>, Failure> {
        Ok(match self.next().await.map_err(hint)? {
            Frame::Hello { version, body } => Hello::read(version, &body),
            _ => Err(Refusal::new(Cause::Malformed, "the first frame must be a hello")),
        })
    }
}

/// What is read instead of a hello is mostly TLS, or its absence.
fn hint(failure: Failure) -> Failure {
    match failure {
        Failure::Refused(By::Us, Refusal { cause: Cause::Malformed, reason }, parting) => {
            let reason = format!("{reason}; is TLS set on one side only?");
            Failure::Refused(By::Us, Refusal::new(Cause::Malformed, reason), parting)
        }
        other => other,
    }
}

impl Handshake<'_> {
    /// From the side that dialled this member.
    pub(super) async fn dial<S: Wire + 'static>(
        self,
        stream: S,
        member: &Member,
        class: Class,
    ) -> Result<Conversation, Failure> {
        let mut halves = match &self.gate.tls {
            Some(tls) => {
                let connecting = tls.connector().connect(tls::server_name(&member.name), stream);
                secured(connecting.into_fallible().await.map_err(failed_in_tls)?.into())?
            }
            None => Halves::of(Box::new(stream), None),
        };
        let own = self.gate.hello(class);
        own.frame().write(&mut halves.writer).await?;
        let peer = match halves.hello().await? {
            Ok(peer) => peer,
            Err(refusal) => return Err(halves.refuse(refusal)),
        };
        self.who.name = Some(peer.name.clone());
        self.who.storage = Some(peer.storage);
        let expected = Expected {
            own: &own,
            certified: halves.certified.as_deref(),
            name: &member.name,
            storage: member.storage,
        };
        if let Err(refusal) = expected.check(&peer) {
            return Err(halves.refuse(refusal));
        }
        let admission = match self.gate.admit(&peer, &halves.pulse).await {
            Ok(admission) => admission,
            Err(refusal) => return Err(halves.refuse(refusal)),
        };
        Frame::Welcome.write(&mut halves.writer).await?;
        Ok(self.begin(halves, &peer, &own, admission))
    }

    /// From the side that was dialled.
    pub(super) async fn accept<S: Wire + 'static>(self, stream: S) -> Result<Conversation, Failure> {
        let mut halves = match &self.gate.tls {
            Some(tls) => {
                let accepting = tls.acceptor().accept(stream).into_fallible();
                secured(accepting.await.map_err(failed_in_tls)?.into())?
            }
            None => Halves::of(Box::new(stream), None),
        };
        let peer = match halves.hello().await? {
            Ok(peer) => peer,
            Err(refusal) => return Err(halves.refuse(refusal)),
        };
        self.who.name = Some(peer.name.clone());
        self.who.storage = Some(peer.storage);
        let Some(class) = peer.class() else {
            return Err(halves.refuse(Refusal::new(Cause::Malformed, "no such class of connections")));
        };
        let own = self.gate.hello(class);
        let expected =
            Expected { own: &own, certified: halves.certified.as_deref(), name: "", storage: Uuid::nil() };
        if let Err(refusal) = expected.check(&peer).and_then(|()| self.gate.judge(&peer)) {
            return Err(halves.refuse(refusal));
        }
        own.frame().write(&mut halves.writer).await?;
        match halves.next().await? {
            Frame::Welcome => {}
            _ => {
                return Err(halves.refuse(Refusal::new(Cause::Malformed, "a welcome must follow the hello")));
            }
        }
        match self.gate.admit(&peer, &halves.pulse).await {
            Ok(admission) => Ok(self.begin(halves, &peer, &own, admission)),
            Err(refusal) => Err(halves.refuse(refusal)),
        }
    }

    fn begin(&self, halves: Halves, peer: &Hello, own: &Hello, admission: Admission) -> Conversation {
        let Halves { mut reader, mut writer, pulse, .. } = halves;
        let class = own.class().expect("this node's hello names a class");
        *reader.decoder_mut() = Frames::up_to(self.limits.of(class).bytes);
        reader.get_mut().count = Some(self.gate.metrics.bytes(class, "in"));
        writer.count = Some(self.gate.metrics.bytes(class, "out"));
        let address = self.who.address.clone();
        Conversation {
            reader,
            writer,
            peer: peer.caller(),
            class,
            admission,
            pulse,
            address,
            said: own.cluster,
        }
    }
}

/// The names in the other's certificate.
fn secured<S: Wire + 'static>(stream: TlsStream<S>) -> Result<Halves, Failure> {
    let refused = |reason: String| Failure::Refused(By::Us, Refusal::new(Cause::Certificate, reason), None);
    let (_, session) = stream.get_ref();
    let certificate = session
        .peer_certificates()
        .and_then(|chain| chain.first())
        .ok_or_else(|| refused("it shows no certificate".to_owned()))?;
    let said = read_certificate(certificate)
        .map_err(|error| refused(format!("its certificate cannot be read: {error}")))?;
    Ok(Halves::of(Box::new(stream), Some(said.names)))
}

/// Whether plaintext with this address would be read by others.
pub(super) fn plaintext_refusal(address: SocketAddr) -> Refusal {
    let reason = format!(
        "{address} is not on this machine: without TLS only loopback addresses speak to each other; \
         set raft.tls.ca, raft.tls.cert and raft.tls.key"
    );
    Refusal::new(Cause::Plaintext, reason)
}
