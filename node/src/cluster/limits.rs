//! How much connections may carry and how long things may take.

use std::time::Duration;

use baton_actors::raft::transport::Class;
use baton_messages::codec::MAX_ENCODED;

/// Limits of one class of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassLimits {
    /// The largest request and answer, bytes.
    pub bytes: usize,
    /// Calls under way on one connection.
    pub in_flight: usize,
    /// Calls to one member that wait for others to end; further ones fail at once.
    pub waiting: usize,
    /// When nothing at all came for so long although something should have, the connection is
    /// given up. Half-way a ping goes out, so that slow work at the other end is no silence.
    pub silence: Duration,
}

/// Limits of the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of [`Class::Urgent`].
    pub urgent: ClassLimits,
    /// Of [`Class::Append`].
    pub append: ClassLimits,
    /// Of [`Class::Bulk`].
    pub bulk: ClassLimits,
    /// To connect, looking up the name included.
    pub connect: Duration,
    /// From the connection to the end of the handshake.
    pub handshake: Duration,
    /// Connections of others at once, those in their handshake included.
    pub connections: usize,
    /// Of them from one address; of IPv6 a network of 64 bits is one.
    pub per_address: usize,
    /// Of them in their handshake; then the oldest one makes room.
    pub handshakes: usize,
    /// Of those from one address.
    pub handshakes_per_address: usize,
    /// An idle connection is tried after so long, and given up by the side that was dialled after
    /// three times that without a word.
    pub idle: Duration,
    /// A frame that is not sent within this ends the connection.
    pub stall: Duration,
    /// A member that was not called for so long is forgotten, with its connection.
    pub forget: Duration,
}

impl Limits {
    /// Of entries, history and snapshots: whatever can be decoded. It follows from no setting. What a chain
    /// holds was made with the settings of others or of earlier, and forced transactions may be larger than
    /// `block.max_bytes`: a block over the limit of one member would never reach it, and one over the
    /// limits of all would end the chain.
    const LARGEST: usize = MAX_ENCODED;
    /// So many bytes of a call count as one of those that are under way on a connection.
    const UNIT: usize = 16 << 20;

    /// How many of the calls under way on a connection this one counts as: what all of them hold
    /// together is bounded, too.
    #[must_use]
    pub fn weight(bytes: usize, in_flight: usize) -> usize {
        (bytes / Self::UNIT + 1).min(in_flight.max(1))
    }
}

impl Default for Limits {
    fn default() -> Self {
        let class = |bytes, in_flight, waiting, silence| ClassLimits {
            bytes,
            in_flight,
            waiting,
            silence: Duration::from_millis(silence),
        };
        Self {
            urgent: class(64 << 10, 64, 256, 1_000),
            append: class(Self::LARGEST, 8, 32, 3_000),
            bulk: class(Self::LARGEST, 16, 64, 3_000),
            connect: Duration::from_secs(1),
            handshake: Duration::from_secs(2),
            connections: 256,
            per_address: 128,
            handshakes: 64,
            // Five members on one machine that all come at once: three connections of each.
            handshakes_per_address: 16,
            idle: Duration::from_secs(5),
            stall: Duration::from_secs(30),
            forget: Duration::from_secs(3600),
        }
    }
}

impl Limits {
    /// The limits of a class.
    #[must_use]
    pub const fn of(&self, class: Class) -> ClassLimits {
        match class {
            Class::Urgent => self.urgent,
            Class::Append => self.append,
            Class::Bulk => self.bulk,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_calls_count_as_several_and_never_as_more_than_there_is_room_for() {
        assert_eq!([0, 1 << 20, (16 << 20) - 1].map(|bytes| Limits::weight(bytes, 8)), [1, 1, 1]);
        assert_eq!([16 << 20, 47 << 20, 64 << 20].map(|bytes| Limits::weight(bytes, 8)), [2, 3, 5]);
        assert_eq!(Limits::weight(64 << 20, 2), 2, "it is answered all the same");
        assert_eq!(Limits::weight(64 << 20, 0), 1);
    }
}
