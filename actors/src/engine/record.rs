//! The answers to the last blocks, for whoever asks again: executor and syncer both do.

use std::collections::BTreeMap;

use baton_messages::engine::{EngineError, Executed};
use baton_messages::types::{Hash, Height};

/// Which block is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub height: Height,
    pub hash: Hash,
}

/// A bounded window of answers, consecutive in height.
#[derive(Debug)]
pub(super) struct Record {
    keep: usize,
    answers: BTreeMap<Height, Executed>,
}

impl Record {
    /// Keeps the answers to so many blocks, at least one.
    pub(super) fn new(keep: usize) -> Self {
        Self { keep: keep.max(1), answers: BTreeMap::new() }
    }

    /// The recorded answer; `None` when the engine has to be asked.
    pub(super) fn answer(&self, asked: Asked) -> Option<Result<Executed, EngineError>> {
        let known = self.answers.get(&asked.height)?;
        if known.hash == asked.hash {
            return Some(Ok(known.clone()));
        }
        let Asked { height, hash } = asked;
        Some(Err(EngineError::OtherBlock { height, executed: known.hash, asked: hash }))
    }

    /// Adds an answer and forgets the oldest ones.
    pub(super) fn push(&mut self, executed: Executed) {
        self.answers.insert(executed.height, executed);
        while self.answers.len() > self.keep {
            self.answers.pop_first();
        }
    }

    /// Forgets everything above a height.
    pub(super) fn keep_to(&mut self, height: Height) {
        self.answers.split_off(&height.next());
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.answers.clear();
    }
}
