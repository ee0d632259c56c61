//! Who is at the other end, and whether it may stay.

use std::fmt;

use baton_actors::raft::transport::{Caller, Class};
use baton_messages::codec;
use baton_messages::types::{Hash, MemberId};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::cluster::frame::{Frame, HELLO};

/// The version of the protocol: of frames, hellos and what is in calls.
pub const PROTOCOL: u16 = 1;

/// What both sides say first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The chain's name.
    pub chain_id: String,
    /// The hash of the chain's genesis.
    pub genesis: Hash,
    /// The cluster, when it belongs to one already.
    pub cluster: Option<Uuid>,
    /// The node's name.
    pub name: String,
    /// The UUID of its storage.
    pub storage: Uuid,
    /// How often that storage was opened: the number of its life.
    pub boot: u64,
    /// Random, of this process: tells apart two processes that live the same life.
    pub run: Uuid,
    /// What the connection is for; the dialler decides.
    pub class: u8,
}

impl Hello {
    /// As a frame.
    #[must_use]
    pub fn frame(&self) -> Frame {
        Frame::Hello { version: PROTOCOL, body: codec::encode(self).into() }
    }

    /// Reads what the other side sent first.
    ///
    /// # Errors
    ///
    /// Why it cannot stay.
    pub fn read(version: u16, body: &Bytes) -> Result<Self, Refusal> {
        if version != PROTOCOL {
            return Err(Refusal::new(
                Cause::Version,
                format!(
                    "protocol version {version} is not known to this version of baton, which speaks {PROTOCOL}"
                ),
            ));
        }
        codec::decode_within::<Self, HELLO>(body)
            .map_err(|error| Refusal::new(Cause::Malformed, format!("no hello: {error}")))
    }

    /// What the class is, if it is one.
    #[must_use]
    pub fn class(&self) -> Option<Class> {
        Class::ALL.into_iter().find(|class| class_number(*class) == self.class)
    }

    /// As the answering side knows it.
    #[must_use]
    pub fn caller(&self) -> Caller {
        Caller {
            id: MemberId::of(self.storage),
            name: self.name.clone(),
            storage: self.storage,
            boot: self.boot,
            cluster: self.cluster,
        }
    }
}

/// The number of a class on the wire.
pub(super) const fn class_number(class: Class) -> u8 {
    match class {
        Class::Urgent => 1,
        Class::Append => 2,
        Class::Bulk => 3,
    }
}

/// Why somebody is turned away; the label of the counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// It speaks another version of the protocol.
    Version,
    /// It is of another chain or another genesis.
    Chain,
    /// It belongs to another cluster.
    Cluster,
    /// It is called other than expected, or than its certificate says.
    Name,
    /// Its certificate is not accepted, or ours not by it.
    Certificate,
    /// It has another storage than the member that was called.
    Storage,
    /// It is this very process.
    Itself,
    /// Another process lives the same life: a copied disk.
    Clone,
    /// A newer life of its storage was seen: a restored or copied disk.
    OlderBoot,
    /// Too many different storages were seen.
    TooMany,
    /// Without TLS from or to another machine.
    Plaintext,
    /// A member sent a frame over the limit: `block.max_bytes` differs.
    TooLarge,
    /// Not this protocol.
    Malformed,
    /// It did not finish the handshake in time.
    Slow,
    /// It closed the connection in the handshake.
    Closed,
    /// There are too many connections.
    Full,
    /// The other side named a cause that this version does not know.
    Other,
}

impl Cause {
    const ALL: [Self; 17] = [
        Self::Version,
        Self::Chain,
        Self::Cluster,
        Self::Name,
        Self::Certificate,
        Self::Storage,
        Self::Itself,
        Self::Clone,
        Self::OlderBoot,
        Self::TooMany,
        Self::Plaintext,
        Self::TooLarge,
        Self::Malformed,
        Self::Slow,
        Self::Closed,
        Self::Full,
        Self::Other,
    ];

    /// The word in logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Chain => "chain",
            Self::Cluster => "cluster",
            Self::Name => "name",
            Self::Certificate => "certificate",
            Self::Storage => "storage",
            Self::Itself => "itself",
            Self::Clone => "clone",
            Self::OlderBoot => "older_boot",
            Self::TooMany => "too_many",
            Self::Plaintext => "plaintext",
            Self::TooLarge => "too_large",
            Self::Malformed => "malformed",
            Self::Slow => "slow",
            Self::Closed => "closed",
            Self::Full => "full",
            Self::Other => "other",
        }
    }

    /// Whether a person should know: not what any scanner of ports brings about.
    #[must_use]
    pub const fn is_telling(self) -> bool {
        !matches!(self, Self::Malformed | Self::Slow | Self::Closed)
    }
}

/// Somebody is turned away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why, in a word.
    pub cause: Cause,
    /// Why, in a sentence.
    pub reason: String,
}

impl Refusal {
    /// A refusal.
    #[must_use]
    pub fn new(cause: Cause, reason: impl Into<String>) -> Self {
        Self { cause, reason: reason.into() }
    }

    /// As the other side is told: text in every version of the protocol.
    #[must_use]
    pub fn frame(&self) -> Frame {
        Frame::Refused(format!("{}: {}", self.cause.name(), self.reason))
    }

    /// What the other side told.
    #[must_use]
    pub fn told(text: &str) -> Self {
        let known = text.split_once(": ").and_then(|(word, reason)| {
            let cause = Cause::ALL.into_iter().find(|cause| cause.name() == word)?;
            Some(Self::new(cause, reason))
        });
        known.unwrap_or_else(|| Self::new(Cause::Other, text))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// Whom a hello is compared with.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// This node.
    pub own: &'a Hello,
    /// The names in the other's certificate; `None` without TLS.
    pub certified: Option<&'a [String]>,
    /// The name of the member that was dialled; empty: any.
    pub name: &'a str,
    /// The storage of the member that was dialled; nil: any.
    pub storage: Uuid,
}

impl Expected<'_> {
    /// Checks everything that needs no memory of earlier lives.
    ///
    /// # Errors
    ///
    /// Why the other cannot stay.
    pub fn check(&self, peer: &Hello) -> Result<(), Refusal> {
        let own = self.own;
        let refuse = |cause, reason| Err(Refusal::new(cause, reason));
        if let Some(names) = self.certified
            && !names.iter().any(|name| name.eq_ignore_ascii_case(&peer.name))
        {
            let reason =
                format!("it calls itself {:?}, its certificate is for {}", peer.name, names.join(", "));
            return refuse(Cause::Name, reason);
        }
        if peer.chain_id != own.chain_id {
            let reason = format!("it is of chain {:?}, this node of {:?}", peer.chain_id, own.chain_id);
            return refuse(Cause::Chain, reason);
        }
        if peer.genesis != own.genesis {
            let reason = format!("its genesis is {}, this node's {}", peer.genesis, own.genesis);
            return refuse(Cause::Chain, reason);
        }
        if peer.storage == own.storage {
            return match peer.run == own.run {
                true => refuse(Cause::Itself, "the address leads back to the node itself".to_owned()),
                false => refuse(
                    Cause::Clone,
                    format!(
                        "{} and {} run on copies of one storage, {}: stop one and wipe its copy",
                        own.name, peer.name, own.storage
                    ),
                ),
            };
        }
        if let (Some(theirs), Some(ours)) = (peer.cluster, own.cluster)
            && theirs != ours
        {
            return refuse(Cause::Cluster, format!("it belongs to cluster {theirs}, this node to {ours}"));
        }
        if peer.name.eq_ignore_ascii_case(&own.name) {
            let reason = format!("both nodes are called {:?}: give each a raft.node_id of its own", own.name);
            return refuse(Cause::Name, reason);
        }
        if !self.name.is_empty() && !peer.name.eq_ignore_ascii_case(self.name) {
            return refuse(Cause::Name, format!("{:?} was called, {:?} answers", self.name, peer.name));
        }
        if !self.storage.is_nil() && peer.storage != self.storage {
            let reason = format!(
                "the member's storage is {}, there is {}: a wiped or exchanged disk is another member",
                self.storage, peer.storage
            );
            return refuse(Cause::Storage, reason);
        }
        if peer.class != own.class {
            return refuse(Cause::Malformed, "the class of a connection does not change".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, RngExt, SeedableRng};

    use super::*;

    fn hello(number: u128) -> Hello {
        Hello {
            chain_id: "chain".to_owned(),
            genesis: Hash::of(b"genesis"),
            cluster: Some(Uuid::from_u128(7)),
            name: format!("n{number}"),
            storage: Uuid::from_u128(number),
            boot: 3,
            run: Uuid::from_u128(1000 + number),
            class: 1,
        }
    }

    fn judged(change: impl FnOnce(&mut Hello)) -> Option<Cause> {
        let mut peer = hello(2);
        change(&mut peer);
        let names = ["n2".to_owned(), "n1".to_owned()];
        let expected =
            Expected { own: &hello(1), certified: Some(&names), name: "n2", storage: Uuid::from_u128(2) };
        expected.check(&peer).err().map(|refusal| refusal.cause)
    }

    #[test]
    fn each_difference_is_refused_for_its_own_reason() {
        assert_eq!(judged(|_| ()), None);
        assert_eq!(judged(|peer| peer.name = "N2".to_owned()), None, "names of hosts have no case");
        assert_eq!(judged(|peer| peer.cluster = None), None, "it has not joined yet");
        assert_eq!(judged(|peer| peer.boot = 1), None, "lives are judged elsewhere");
        assert_eq!(judged(|peer| peer.chain_id = "other".to_owned()), Some(Cause::Chain));
        assert_eq!(judged(|peer| peer.genesis = Hash::of(b"other")), Some(Cause::Chain));
        assert_eq!(judged(|peer| peer.cluster = Some(Uuid::from_u128(8))), Some(Cause::Cluster));
        assert_eq!(judged(|peer| peer.name = "n3".to_owned()), Some(Cause::Name), "not in the certificate");
        assert_eq!(judged(|peer| peer.name = "n1".to_owned()), Some(Cause::Name), "our own name");
        assert_eq!(judged(|peer| peer.storage = Uuid::from_u128(3)), Some(Cause::Storage));
        assert_eq!(judged(|peer| peer.storage = Uuid::from_u128(1)), Some(Cause::Clone));
        assert_eq!(judged(|peer| *peer = Hello { name: "n1".to_owned(), ..hello(1) }), Some(Cause::Itself));
        assert_eq!(judged(|peer| peer.class = 2), Some(Cause::Malformed));
    }

    #[test]
    fn another_name_than_the_called_one_is_refused_also_when_it_is_certified() {
        let expected = Expected { own: &hello(1), certified: None, name: "n3", storage: Uuid::nil() };
        assert_eq!(expected.check(&hello(2)).unwrap_err().cause, Cause::Name);
        let anybody = Expected { name: "", ..expected };
        assert_eq!(anybody.check(&hello(2)), Ok(()));
    }

    #[test]
    fn a_refusal_is_understood_at_the_other_end_also_of_an_unknown_kind() {
        for cause in Cause::ALL {
            let refusal = Refusal::new(cause, "the reason: this");
            let Frame::Refused(text) = refusal.frame() else { panic!("a refusal is a refusal") };
            assert_eq!(Refusal::told(&text), refusal);
        }
        assert_eq!(Refusal::told("newer: reason"), Refusal::new(Cause::Other, "newer: reason"));
        assert_eq!(Refusal::told(""), Refusal::new(Cause::Other, ""));
    }

    #[test]
    fn a_hello_has_a_fixed_form() {
        let Frame::Hello { version, body } = hello(2).frame() else { panic!("a hello is a hello") };
        assert_eq!(Hello::read(version, &body), Ok(hello(2)));
        let golden = "01".to_owned()
            + "05636861696e"
            + &Hash::of(b"genesis").to_string()
            + "011000000000000000000000000000000007"
            + "026e32"
            + "1000000000000000000000000000000002"
            + "03"
            + "10000000000000000000000000000003ea"
            + "01";
        assert_eq!(hex::encode(&body), golden);
        assert_eq!(Hello::read(2, &body).unwrap_err().cause, Cause::Version);
    }

    #[test]
    fn whatever_comes_reading_a_hello_does_not_panic() {
        let Frame::Hello { body, .. } = hello(2).frame() else { panic!("a hello is a hello") };
        let mut chance = StdRng::seed_from_u64(5);
        for round in 0..20_000 {
            let mut bytes = body.to_vec();
            if round % 2 == 0 {
                bytes.truncate(chance.random_range(0..bytes.len()));
            }
            for _ in 0..chance.random_range(0..4) {
                if !bytes.is_empty() {
                    let at = chance.random_range(0..bytes.len());
                    bytes[at] = chance.random();
                }
            }
            if round % 10 == 0 {
                chance.fill_bytes(&mut bytes);
            }
            let _ = Hello::read(PROTOCOL, &bytes.into());
        }
    }
}
