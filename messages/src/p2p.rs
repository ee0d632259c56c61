//! The conversation with the peer-to-peer actor: gossip, exchange, peers.
//!
//! Gossip comes in as a question: the verdict says whether it is forwarded and how its sender is
//! scored. Ranges are asked for and come with the peer that gave each item, so that whoever
//! checks them can report it. The same history is served to others from the store.

use std::fmt;
use std::sync::Arc;

use actix::Message;
use bytes::Bytes;

use crate::chain::{Block, P2pData, P2pSignedHeader, SignedHeader};
use crate::types::{Grant, Hash, Height, Term};
use crate::wire::p2p::Service;

/// Most items that [`FetchHeaders`] and [`FetchData`] ask for. They are split into requests of at
/// most [`crate::wire::exchange::MAX_AMOUNT`] over several peers.
pub const MAX_FETCH: u64 = 1024;
/// Most answers to a [`FetchHead`].
pub const MAX_HEADS: usize = 4;

/// Identifies a peer: its libp2p id in base58. At most [`PeerId::MAX_LEN`] bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub Arc<str>);

impl PeerId {
    /// The longest text of an id; the multihash has at most 42 bytes.
    pub const MAX_LEN: usize = 64;
}

impl From<&str> for PeerId {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A header or data, as gossip and exchange carry it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A signed header and where it may be on DA.
    Header(Arc<P2pSignedHeader>),
    /// The data of a block and where it may be on DA.
    Data(Arc<P2pData>),
}

impl Item {
    /// Which service carries it.
    #[must_use]
    pub const fn service(&self) -> Service {
        match self {
            Self::Header(_) => Service::Headers,
            Self::Data(_) => Service::Data,
        }
    }

    /// What it takes in memory, about.
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            Self::Header(header) => header.signed.weight(),
            Self::Data(data) => data.data.weight(),
        }
    }

    /// The height it says it belongs to; zero for data without metadata.
    #[must_use]
    pub fn height(&self) -> Height {
        match self {
            Self::Header(header) => header.signed.header.height,
            Self::Data(data) => data.data.metadata.as_ref().map_or(Height(0), |metadata| metadata.height),
        }
    }
}

/// Tell the network about a block: its header, then its data.
///
/// The executor says it of a block that is committed, signed and executed here (P10), in the
/// order of heights. The first one of a grant lets the blocks before it be told again: the leader
/// before may not have come to it. Replies when the messages are handed to the network, which
/// keeps nothing for peers that come later: they ask.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), NotPublished>")]
pub struct PublishBlock {
    /// The term in which the caller may produce.
    pub grant: Grant,
    /// The header with its signature.
    pub signed: Arc<SignedHeader>,
    /// The block with the same header.
    pub block: Arc<Block>,
}

/// Tell the newest blocks again that are signed and executed here.
///
/// The executor says it when its grant begins: what the leader before made may not have been
/// told (hazard of a failover between commit and gossip).
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), NotPublished>")]
pub struct PublishTail {
    /// The term in which the caller may produce.
    pub grant: Grant,
}

/// Why a block was not told. It stays in the store, where peers can ask for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotPublished {
    /// The grant is over: another term has begun.
    #[error("not published: the grant is of term {}, the node is in term {term}", grant.term)]
    StaleGrant {
        /// The caller's grant.
        grant: Grant,
        /// The newest term known here.
        term: Term,
    },
    /// A message is larger than peers take; the block travels by exchange only.
    #[error("not gossiped: {bytes} bytes, peers take {limit}; it is served on request")]
    TooLarge {
        /// Bytes of the larger message.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Another block stands at its height here, or none: nothing that is not committed is told (P1).
    #[error("not published: height {height} is not committed here with the hash {hash}")]
    NotCommitted {
        /// The height.
        height: Height,
        /// The block's hash.
        hash: Hash,
    },
    /// The network took none of it.
    #[error("not published: {0}")]
    Network(String),
}

/// What is to become of a gossiped item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is as it should be and new: forward it, and think well of its sender.
    Accept,
    /// It is known, old, or cannot be judged yet: do not forward it, nobody is to blame.
    Ignore,
    /// Nobody honest sends it: do not forward it, and lower the sender's score.
    Reject,
}

/// Judge an item that a peer gossiped.
///
/// The actor asks the syncer. The item is decoded, of this chain, not seen before and not too far in the future;
/// a header's signature fits the key that it names, which may be anybody's. The proposer, the
/// order and what else the chain knows are the syncer's to check. Answer soon: at most
/// [`MAX_JUDGED`] questions are open, what comes beyond is ignored, and so is one without an
/// answer after a few seconds. Headers come before their data from an honest publisher, but
/// messages may overtake each other.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Verdict")]
pub struct Gossiped {
    /// Who forwarded it to this node: not necessarily who published it.
    pub peer: PeerId,
    /// Who published it, and is to blame for what nodes of ev-node forward unseen.
    pub publisher: PeerId,
    /// What it is; its encoding has at most [`crate::wire::p2p::MAX_PUBSUB_RPC`] bytes.
    pub item: Item,
}

/// Most [`Gossiped`] questions that are open at a time.
pub const MAX_JUDGED: usize = 64;

/// An item and the peer that gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given<T> {
    /// Who gave it.
    pub peer: PeerId,
    /// The item.
    pub item: Arc<T>,
}

/// Items of ascending heights without a gap, beginning with the first that was asked for.
/// Fewer than were asked for, but never none.
///
/// Checked by the actor: decodable, of this chain, of the expected heights, linked within what one
/// peer gave in one answer. Everything else is the caller's to check; see [`ReportPeer`].
pub type Fetched<T> = Vec<Given<T>>;

/// The members of a cluster are each other's peers. Says where this one's network is reached, and the
/// reply is where those of the other members are, as they said: multiaddresses that end in
/// `/p2p/<id>`, of at most [`MAX_ADDRESS`] bytes. The peer-to-peer actor asks Raft every few seconds.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "Vec<String>")]
pub struct MeetMembers {
    /// Where this node listens.
    pub own: Vec<String>,
}

/// Most bytes of an address that members tell each other.
pub const MAX_ADDRESS: usize = 256;

/// Ask peers for the headers from a height upwards.
///
/// Replies within a minute. Ranges of 64 are asked for from several peers at once; a peer that is
/// slow, or whose answer is wrong, is replaced by another one, and the answer ends where nobody
/// had more. The total of an answer is bounded by [`MAX_FETCHED_BYTES`].
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Fetched<P2pSignedHeader>, FetchError>")]
pub struct FetchHeaders {
    /// The first height, not zero.
    pub from: Height,
    /// How many; more than [`MAX_FETCH`] are cut to it.
    pub count: u64,
}

/// Ask peers for the data of the blocks from a height upwards; as [`FetchHeaders`].
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Fetched<P2pData>, FetchError>")]
pub struct FetchData {
    /// The first height, not zero.
    pub from: Height,
    /// How many; more than [`MAX_FETCH`] are cut to it.
    pub count: u64,
}

/// Bytes of encoded items in one answer to [`FetchHeaders`] or [`FetchData`], at the most. One
/// item is always let through.
pub const MAX_FETCHED_BYTES: usize = 64 << 20;

/// Ask up to [`MAX_HEADS`] peers for the newest header they have.
///
/// Replies with what came within a few seconds, highest first; an answer is as far checked as a
/// [`Gossiped`] one. A head is a hint: the range up to it is the proof.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Fetched<P2pSignedHeader>, FetchError>")]
pub struct FetchHead;

/// Ask peers, one after the other, for the item with this hash: a header's hash, or
/// [`crate::chain::Data::hash`].
///
/// The answer has that hash. Peers that run ev-node know hashes of their newest blocks only.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(PeerId, Item), FetchError>")]
pub struct FetchByHash {
    /// Headers or data.
    pub service: Service,
    /// The hash, 32 bytes.
    pub hash: Bytes,
}

/// Why nothing was fetched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// No peer is connected that serves this chain and is fit to be asked; wait for
    /// [`PeerChanged`].
    #[error("no peer to ask")]
    NoPeers,
    /// Peers answered, and none of them has it.
    #[error("none of {asked} peers has it")]
    NotFound {
        /// How many were asked.
        asked: usize,
    },
    /// Too many requests are on their way; ask again when one is answered.
    #[error("{limit} requests are on their way")]
    Busy {
        /// The limit.
        limit: usize,
    },
    /// Those that were asked failed or were too slow.
    #[error("peers did not give it: {0}")]
    Failed(String),
}

/// What a peer did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offence {
    /// It gave something that nobody honest gives: the connection is closed, and none is taken
    /// from it or made to it for a while.
    Lie,
    /// What it gave was of no use, which may be nobody's fault: it is asked after others.
    Useless,
}

/// A peer gave something that turned out wrong. A hint: nothing is answered.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct ReportPeer {
    /// Who.
    pub peer: PeerId,
    /// How bad it is.
    pub offence: Offence,
    /// What it was, for the log; at most a few hundred bytes.
    pub reason: String,
}

/// A peer that speaks this chain's protocols came, or a connected peer went. A hint: ask.
///
/// The actor tells the gatherer, which asks at once instead of after a pause.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct PeerChanged {
    /// Who.
    pub peer: PeerId,
    /// It came.
    pub connected: bool,
    /// How many are connected now and serve this chain.
    pub serving: usize,
}

/// Ask for this node's place in the network.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "NetView")]
pub struct GetNetInfo;

/// This node in the network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetView {
    /// Its peer id.
    pub id: String,
    /// Its addresses, each ending in `/p2p/<id>`.
    pub listen_addresses: Vec<String>,
    /// Who is connected, by id.
    pub peers: Vec<PeerView>,
    /// Those that are configured, not connected and dialled again and again.
    pub waiting_for: Vec<String>,
}

/// A connected peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerView {
    /// Its id.
    pub id: PeerId,
    /// Addresses at which it is reached or says to listen.
    pub addresses: Vec<String>,
    /// This node dialled it.
    pub outbound: bool,
    /// It speaks this chain's exchange protocols.
    pub serves: bool,
    /// It subscribed to this chain's gossip.
    pub subscribed: bool,
    /// From -100 to 100; it begins with 0 and is dropped at -100.
    pub score: i32,
    /// The program it says to be.
    pub agent: String,
}
