//! What happened, kept for who wants to know.

use crate::history::{Coverage, Event, EventKind, Situation};

/// Events and situations; nothing is kept until it is on.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    on: bool,
    /// The time of what is noted.
    pub(crate) now_ms: u64,
    events: Vec<Event>,
    coverage: Coverage,
}

impl Notes {
    pub(crate) fn begin(&mut self) {
        self.on = true;
    }

    pub(crate) const fn is_on(&self) -> bool {
        self.on
    }

    pub(crate) fn note(&mut self, node: Option<usize>, what: impl FnOnce() -> EventKind) {
        if self.on {
            self.events.push(Event { at_ms: self.now_ms, node, what: what() });
        }
    }

    pub(crate) fn reached(&mut self, situation: Situation) {
        if self.on {
            self.coverage.reached(situation);
        }
    }

    /// Takes everything.
    pub(crate) fn take(&mut self) -> (Vec<Event>, Coverage) {
        (std::mem::take(&mut self.events), std::mem::take(&mut self.coverage))
    }
}
