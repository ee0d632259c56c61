//! The seam to the network: what the actor tells the adapter, and what it hears from it.
//!
//! The adapter moves bytes and keeps connections; it decides nothing that depends on the chain.
//! The node's is a libp2p swarm, the simulation's is a network in virtual time.

use std::time::Duration;

use baton_messages::p2p::{PeerId, Verdict};
use baton_messages::wire::exchange::{HeaderRequest, HeaderResponse};
use baton_messages::wire::p2p::Service;
use bytes::Bytes;

/// Bytes of a whole answer, at the most; what is over it is cut at an item, and one item is
/// always let through.
pub const MAX_ANSWER: usize = 16 << 20;

/// Names a question of this node while it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId(pub u64);

/// Names a message or a question of a peer until it is answered. The adapter keeps a bounded
/// number of them; a token that it has let go is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// Takes what the actor wants done. It never waits.
pub trait Network: Send + 'static {
    /// Hands a command over.
    ///
    /// # Errors
    ///
    /// `Overloaded` when the adapter has too much to do; nothing of the command was done.
    fn tell(&mut self, command: Command) -> Result<(), Overloaded>;
}

/// The adapter has too many commands waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the network adapter is overloaded")]
pub struct Overloaded;

/// What the actor wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Gossip these encoded messages in this order, each of a size that peers take.
    Publish(Vec<(Service, Bytes)>),
    /// Forward a gossiped message or not; every [`Event::Gossip`] gets one.
    Judge {
        /// Which.
        token: Token,
        /// What becomes of it.
        verdict: Verdict,
    },
    /// Ask a connected peer; an [`Event::Answered`] follows.
    Ask {
        /// Names the question.
        id: AskId,
        /// Whom.
        peer: PeerId,
        /// For headers or data.
        service: Service,
        /// For which.
        request: HeaderRequest,
    },
    /// Answer a peer; every [`Event::Asked`] gets one.
    Answer {
        /// Which question.
        token: Token,
        /// In order; `None` resets the stream.
        answer: Option<Vec<HeaderResponse>>,
    },
    /// Connect to a peer, unless it is connected.
    Dial {
        /// Whom.
        peer: PeerId,
        /// Where, as multiaddrs; none: where it was found.
        addresses: Vec<String>,
    },
    /// Close all connections to a peer, and refuse new ones while it is banned.
    Ban(PeerId),
    /// Let a banned peer connect again.
    Unban(PeerId),
    /// Look for others on the same chain.
    Discover,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AskFailure {
    /// It does not speak the protocol.
    Unsupported,
    /// It closed or reset the stream before the answer, or the connection ended.
    Closed,
    /// It took too long.
    Timeout,
    /// What it sent is no frame, or too large a one.
    Malformed(String),
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// This node can be reached at an address, ending in `/p2p/<id>`.
    Listening(String),
    /// It cannot any more.
    NotListening(String),
    /// A peer is connected; told once however many connections there are.
    Connected {
        /// Who.
        peer: PeerId,
        /// Where it is.
        address: String,
        /// This node dialled.
        outbound: bool,
    },
    /// No connection to a peer is left.
    Disconnected(PeerId),
    /// A peer said what it is; may come again.
    Identified {
        /// Who.
        peer: PeerId,
        /// The program it says to be, at most 64 bytes.
        agent: String,
        /// Where it says to listen, at most 16.
        addresses: Vec<String>,
        /// It speaks this chain's exchange protocols.
        serves: bool,
    },
    /// A peer subscribed to a topic of this chain, or unsubscribed.
    Subscribed {
        /// Who.
        peer: PeerId,
        /// Headers or data.
        service: Service,
        /// It subscribed.
        on: bool,
    },
    /// A dial came to nothing.
    DialFailed {
        /// Whom.
        peer: PeerId,
        /// Why.
        reason: String,
    },
    /// A peer said in the DHT that it is on this chain.
    Discovered {
        /// Who.
        peer: PeerId,
    },
    /// A gossiped message with a valid signature of its publisher.
    Gossip {
        /// Names it.
        token: Token,
        /// Who forwarded it.
        peer: PeerId,
        /// Who published it: its signature is checked. Maybe nobody who is connected.
        publisher: PeerId,
        /// Headers or data.
        service: Service,
        /// The payload.
        data: Bytes,
    },
    /// A peer asks for items.
    Asked {
        /// Names the question.
        token: Token,
        /// Who.
        peer: PeerId,
        /// Headers or data.
        service: Service,
        /// For which.
        request: HeaderRequest,
    },
    /// A question of this node is answered, or will not be.
    Answered {
        /// Which.
        id: AskId,
        /// The responses in order; fewer than the peer sent when [`MAX_ANSWER`] was reached.
        outcome: Result<Vec<HeaderResponse>, AskFailure>,
        /// Time from the question to the end of the answer.
        took: Duration,
    },
}
