//! What is known about one process of a devnet. A plain state machine: the loop tells it what
//! was seen, it says what happened.

use std::process::ExitStatus;

use serde::Serialize;

/// How a process ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ending {
    /// Its exit code, if it returned one.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

impl From<ExitStatus> for Ending {
    fn from(status: ExitStatus) -> Self {
        use std::os::unix::process::ExitStatusExt;
        Self { code: status.code(), signal: status.signal() }
    }
}

/// What one look at a process showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The child ended.
    pub ended: Option<Ending>,
    /// All its ports answer.
    pub listening: bool,
    /// The process with this member's command line, when it is not our child.
    pub stranger: Option<u32>,
}

/// What happened to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It listens. After a restart by hand `again` is set.
    Listens {
        /// The process.
        pid: u32,
        /// Somebody restarted it.
        again: bool,
    },
    /// It ended before it ever listened.
    NeverListened {
        /// The process.
        pid: u32,
        /// How.
        ending: Ending,
    },
    /// It listened once and is gone.
    Ended {
        /// The process.
        pid: u32,
        /// How. Unknown when somebody else started it.
        ending: Ending,
    },
}

/// One process as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Our child, which does not listen yet.
    Starting(u32),
    /// Our child, which listens.
    Up(u32),
    /// It listens, but somebody else started it.
    Adopted(u32),
    /// It is gone.
    Down,
}

impl State {
    /// The process, while there is one.
    pub fn pid(self) -> Option<u32> {
        match self {
            Self::Starting(pid) | Self::Up(pid) | Self::Adopted(pid) => Some(pid),
            Self::Down => None,
        }
    }

    /// Takes what was seen and returns what happened.
    pub fn see(&mut self, seen: Seen) -> Option<Change> {
        let (next, change) = match (*self, seen) {
            (Self::Starting(pid), Seen { ended: Some(ending), .. }) => {
                (Self::Down, Change::NeverListened { pid, ending })
            }
            (Self::Up(pid), Seen { ended: Some(ending), .. }) => (Self::Down, Change::Ended { pid, ending }),
            (Self::Starting(pid), Seen { listening: true, .. }) => {
                (Self::Up(pid), Change::Listens { pid, again: false })
            }
            // The ports alone say nothing about who has them.
            (Self::Down, Seen { listening: true, stranger: Some(pid), .. }) => {
                (Self::Adopted(pid), Change::Listens { pid, again: true })
            }
            // Killed and restarted between two looks: the end is reported now, the start next time.
            (Self::Adopted(pid), Seen { stranger, .. }) if stranger != Some(pid) => {
                (Self::Down, Change::Ended { pid, ending: Ending::default() })
            }
            _ => return None,
        };
        *self = next;
        Some(change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILLED: Ending = Ending { code: None, signal: Some(9) };

    fn ended() -> Seen {
        Seen { ended: Some(KILLED), ..Seen::default() }
    }

    fn stranger(pid: u32) -> Seen {
        Seen { listening: true, stranger: Some(pid), ..Seen::default() }
    }

    #[test]
    fn a_child_is_announced_once_when_it_listens() {
        let mut state = State::Starting(7);
        assert_eq!(state.see(Seen::default()), None);
        let listening = Seen { listening: true, ..Seen::default() };
        assert_eq!(state.see(listening), Some(Change::Listens { pid: 7, again: false }));
        assert_eq!(state.see(listening), None);
    }

    #[test]
    fn a_child_that_ends_before_it_listens_never_started() {
        let mut state = State::Starting(7);
        assert_eq!(state.see(ended()), Some(Change::NeverListened { pid: 7, ending: KILLED }));
        assert_eq!(state.pid(), None);
    }

    #[test]
    fn a_killed_child_is_reported_once_and_recognised_when_it_is_restarted() {
        let mut state = State::Up(7);
        assert_eq!(state.see(ended()), Some(Change::Ended { pid: 7, ending: KILLED }));
        assert_eq!(state.see(Seen::default()), None);
        assert_eq!(state.see(stranger(9)), Some(Change::Listens { pid: 9, again: true }));
        assert_eq!(state.see(stranger(9)), None);
        assert_eq!(state.pid(), Some(9));
    }

    #[test]
    fn ports_held_by_an_unknown_process_are_not_the_member() {
        let mut state = State::Down;
        assert_eq!(state.see(Seen { listening: true, ..Seen::default() }), None);
        assert_eq!(state, State::Down);
    }

    #[test]
    fn an_adopted_process_that_does_not_answer_for_a_moment_stays_adopted() {
        let mut state = State::Adopted(9);
        assert_eq!(state.see(Seen { listening: false, ..stranger(9) }), None);
    }

    #[test]
    fn an_adopted_process_is_lost_and_found_like_a_child() {
        let mut state = State::Adopted(9);
        let gone = Change::Ended { pid: 9, ending: Ending::default() };
        assert_eq!(state.see(stranger(11)), Some(gone));
        assert_eq!(state.see(stranger(11)), Some(Change::Listens { pid: 11, again: true }));
    }
}
