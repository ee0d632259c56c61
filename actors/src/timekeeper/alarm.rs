//! When a clock that is off is worth a person's time.

use std::time::Duration;

/// Looks in a row that must agree before anything is said.
const LOOKS: u32 = 3;
/// After so many more looks it is said again.
const REPEAT: u32 = 60;

/// What is off, and by how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Off {
    /// This node's clock jumped ahead; block times lag behind it.
    HeldBack(Duration),
    /// The times of blocks are ahead of this node's clock.
    ChainAhead(Duration),
    /// The times of blocks are behind this node's clock.
    ChainBehind(Duration),
}

impl Off {
    const fn by(self) -> Duration {
        match self {
            Self::HeldBack(by) | Self::ChainAhead(by) | Self::ChainBehind(by) => by,
        }
    }
}

/// What to say after a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Say {
    /// Nothing new.
    Nothing,
    /// It is off. The first time it counts as an alarm.
    Off {
        /// What is off.
        off: Off,
        /// It was not said before.
        first: bool,
    },
    /// It is as it should be again.
    Over,
}

/// Turns looks into something said once, and again from time to time.
#[derive(Clone, Copy, Debug)]
pub struct Alarm {
    limit: Duration,
    raised: bool,
    looks: u32,
}

impl Alarm {
    /// An alarm for what is off by more than this.
    #[must_use]
    pub const fn new(limit: Duration) -> Self {
        Self { limit, raised: false, looks: 0 }
    }

    /// Looks again. It ends below half the limit, so that it does not flap.
    pub fn look(&mut self, off: Option<Off>) -> Say {
        let enough = if self.raised { self.limit / 2 } else { self.limit };
        let Some(off) = off.filter(|off| off.by() > enough) else {
            self.looks = 0;
            return if std::mem::take(&mut self.raised) { Say::Over } else { Say::Nothing };
        };
        self.looks += 1;
        let due = if self.raised { REPEAT } else { LOOKS };
        if self.looks < due {
            return Say::Nothing;
        }
        self.looks = 0;
        Say::Off { off, first: !std::mem::replace(&mut self.raised, true) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    fn ahead(seconds: u64) -> Option<Off> {
        Some(Off::ChainAhead(Duration::from_secs(seconds)))
    }

    #[test]
    fn what_passes_is_not_said() {
        let mut alarm = Alarm::new(LIMIT);
        for _ in 0..100 {
            assert_eq!(alarm.look(ahead(6)), Say::Nothing);
            assert_eq!(alarm.look(ahead(6)), Say::Nothing);
            assert_eq!(alarm.look(ahead(5)), Say::Nothing);
        }
    }

    #[test]
    fn what_stays_is_said_once_and_again_after_a_minute_of_looks() {
        let mut alarm = Alarm::new(LIMIT);
        let said: Vec<_> = (0..2 + 60 * 2 + 1).map(|_| alarm.look(ahead(6))).collect();
        let off = Off::ChainAhead(Duration::from_secs(6));
        assert_eq!(said[2], Say::Off { off, first: true });
        assert_eq!(said[62], Say::Off { off, first: false });
        assert_eq!(said[122], Say::Off { off, first: false });
        assert_eq!(said.iter().filter(|said| **said != Say::Nothing).count(), 3);
    }

    #[test]
    fn it_is_over_below_half_the_limit_only() {
        let mut alarm = Alarm::new(LIMIT);
        for _ in 0..3 {
            alarm.look(ahead(6));
        }
        assert_eq!(alarm.look(ahead(4)), Say::Nothing);
        assert_eq!(alarm.look(ahead(2)), Say::Over);
        assert_eq!(alarm.look(None), Say::Nothing);
    }
}
