//! The double-sign guard: which header may be signed (P2, hazards I1, A14, A15).
//!
//! It holds the last header the key was about to sign, and is on disk before the signature
//! exists. It decides; the signer writes and signs.

use std::fmt;

use baton_messages::mutation::{Mutation, planted};
use baton_messages::signer::SignError;
use baton_messages::types::{Grant, Hash, Height, Term};
use bytes::Bytes;

use super::slot::{self, ChainId, MAX_CHAIN_ID, Record, Slots, Verdict};

/// The guard's place was not read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct GuardIo(pub String);

/// Where the two slots are kept.
pub trait GuardStore: Send + 'static {
    /// What is there.
    ///
    /// # Errors
    ///
    /// `GuardIo` when it cannot be read.
    fn read(&mut self) -> Result<Slots, GuardIo>;

    /// Overwrites one slot (0 or 1). Durable after `sync`; a crash before that leaves any part of it.
    ///
    /// # Errors
    ///
    /// `GuardIo` when there is no guard or the device fails; then nothing may be signed.
    fn write(&mut self, slot: usize, bytes: &[u8]) -> Result<(), GuardIo>;

    /// Makes what was written durable.
    ///
    /// # Errors
    ///
    /// `GuardIo` when there is no guard or the device fails; then nothing may be signed.
    fn sync(&mut self) -> Result<(), GuardIo>;

    /// Puts a new guard in place of what is there: slot 0 with these bytes, slot 1 empty.
    /// Whole or not at all, and durable when it returns.
    ///
    /// # Errors
    ///
    /// `GuardIo` when the device fails; then what was there before is untouched.
    fn create(&mut self, slot: &[u8]) -> Result<(), GuardIo>;

    /// Where it is, for messages.
    fn place(&self) -> String;
}

/// What this node knows of the chain, to compare the guard with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The highest block this node holds, in the log or applied; zero before the first.
    pub last_block: Height,
    /// The highest block whose signature this member must have made itself: as the only voter the
    /// last one in the log, among others none.
    pub last_signed: Option<(Height, Hash)>,
}

/// Why a guard cannot be relied on. Each says what an operator does about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No guard, but a chain.
    #[error("there is no guard, but the chain has blocks up to height {0}; {RESOLVE}")]
    Missing(Height),
    /// The guard cannot be read or is not whole.
    #[error("the guard is damaged ({0}); {RESOLVE}")]
    Damaged(String),
    /// A newer program wrote it.
    #[error("the guard has format version {0}, this version of baton knows 1; run the newer version")]
    Newer(u32),
    /// It is for another chain.
    #[error(
        "the guard is for chain {guarded}, this node runs chain {chain}; a key signs for one chain: \
         use the right home or another key"
    )]
    OtherChain {
        /// The guard's chain.
        guarded: Named,
        /// The node's chain.
        chain: Named,
    },
    /// The log holds newer signatures of this key.
    #[error(
        "the guard is at height {guarded}, but this node signed up to height {signed}: \
         it is an old copy; {RESOLVE}"
    )]
    Older {
        /// Where the guard is.
        guarded: Height,
        /// Where the log is.
        signed: Height,
    },
    /// The guard holds another header than the log.
    #[error(
        "the guard holds {guarded} at height {height}, the log has a signature of {signed}: \
         two headers of one height; stop every node that has this key and find out which chain is right"
    )]
    Contradiction {
        /// The height of both.
        height: Height,
        /// The guard's header.
        guarded: Hash,
        /// The log's header.
        signed: Hash,
    },
    /// The store lacks what was signed.
    #[error(
        "the guard is at height {guarded}, but the store ends at height {last_block}: the store is an old \
         copy or was emptied; restore the newer store, or let the node catch up from its cluster; {RESOLVE}"
    )]
    Ahead {
        /// Where the guard is.
        guarded: Height,
        /// Where the store ends.
        last_block: Height,
    },
    /// The name does not fit into a slot.
    #[error("the chain id has {0} bytes, at most {MAX_CHAIN_ID} fit into a guard")]
    LongChainId(usize),
}

const RESOLVE: &str = "once it is certain that no other node uses this key and that the store holds the \
                       newest blocks, stop the node and run `baton keys guard-from-committed`";

/// A chain in a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named(ChainId);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} (genesis {:.8})", self.0.name, self.0.genesis.to_string())
    }
}

/// What to do with a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Write this record, tell the guard with `written`, and only then sign.
    Guard(Box<Record>),
    /// The guard holds this header already, but not its signature: sign (again).
    Sign,
    /// The signature of this header.
    AlreadySigned(Bytes),
    /// Do not sign.
    Refuse(SignError),
}

/// The last header the key was about to sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    record: Record,
    /// The newest term that was granted; at least the record's.
    seen: Term,
}

impl Guard {
    /// The guard of a chain on which nothing was signed.
    ///
    /// # Errors
    ///
    /// `LongChainId`.
    pub fn new(chain: &ChainId, initial_height: Height) -> Result<Self, Refusal> {
        Self::at(chain, initial_height.previous(), Hash::default(), Term(0))
    }

    /// The guard of a chain on which the key signed up to this header.
    ///
    /// # Errors
    ///
    /// `LongChainId`.
    pub fn at(chain: &ChainId, height: Height, hash: Hash, term: Term) -> Result<Self, Refusal> {
        if chain.name.len() > MAX_CHAIN_ID {
            return Err(Refusal::LongChainId(chain.name.len()));
        }
        let record = Record { sequence: 0, chain: chain.clone(), height, hash, term, signature: None };
        Ok(Self { record, seen: term })
    }

    /// The guard that the slots hold; `None` when there is none.
    ///
    /// # Errors
    ///
    /// `Refusal` when they are damaged, of a newer version, or of another chain.
    pub fn open(slots: &Slots, chain: &ChainId) -> Result<Option<Self>, Refusal> {
        let record = match slot::judge(slots) {
            Verdict::Missing => return Ok(None),
            Verdict::Newer(version) => return Err(Refusal::Newer(version)),
            Verdict::Damaged(reason) => return Err(Refusal::Damaged(reason)),
            Verdict::Rules { record, torn } => {
                if let Some(reason) = torn {
                    tracing::warn!(reason, height = record.height.0, "one slot of the guard is torn");
                }
                *record
            }
        };
        if record.chain != *chain {
            let (guarded, chain) = (Named(record.chain), Named(chain.clone()));
            return Err(Refusal::OtherChain { guarded, chain });
        }
        let seen = record.term;
        Ok(Some(Self { record, seen }))
    }

    /// Compares the guard with what the node knows. It may be behind the last block by the
    /// unsigned tail, but not behind a signature, and it is never ahead of the blocks (P2).
    ///
    /// # Errors
    ///
    /// `Refusal` when the guard or the store is an old copy.
    pub fn check(&self, progress: &Progress) -> Result<(), Refusal> {
        let guarded = self.record.height;
        if let Some((signed, hash)) = progress.last_signed {
            if guarded < signed {
                return Err(Refusal::Older { guarded, signed });
            }
            if guarded == signed && self.record.hash != hash {
                let guarded = self.record.hash;
                return Err(Refusal::Contradiction { height: signed, guarded, signed: hash });
            }
        }
        if self.guarded().is_some() && guarded > progress.last_block {
            return Err(Refusal::Ahead { guarded, last_block: progress.last_block });
        }
        Ok(())
    }

    /// What is in the slot, or goes into slot 0 of a new guard.
    #[must_use]
    pub const fn record(&self) -> &Record {
        &self.record
    }

    /// The last guarded header; `None` when nothing was signed.
    #[must_use]
    pub fn guarded(&self) -> Option<(Height, Hash)> {
        (self.record.hash != Hash::default()).then_some((self.record.height, self.record.hash))
    }

    /// Decides about a header.
    ///
    /// Once per height, one after the other, each on top of the one before, and never for a
    /// term that is over.
    #[must_use]
    pub fn authorize(&mut self, grant: Grant, height: Height, hash: Hash, parent: &[u8]) -> Decision {
        let (guarded, seen) = (self.record.height, self.seen);
        if grant.term < seen && !planted(Mutation::NoGuardFence) {
            return Decision::Refuse(SignError::StaleGrant { asked: grant.term.0, seen: seen.0 });
        }
        self.seen = grant.term;
        if height < guarded {
            return Decision::Refuse(SignError::BelowGuard { asked: height, guarded });
        }
        if height == guarded {
            return match &self.record.signature {
                _ if planted(Mutation::NoGuard) => {
                    Decision::Guard(Box::new(self.next(height, hash, seen, None)))
                }
                _ if hash != self.record.hash => {
                    let (guarded, asked) = (self.record.hash, hash);
                    Decision::Refuse(SignError::DoubleSign { height, guarded, asked })
                }
                Some(signature) => Decision::AlreadySigned(signature.clone()),
                None => Decision::Sign,
            };
        }
        if height != guarded.next() {
            return Decision::Refuse(SignError::Gap { asked: height, guarded });
        }
        if let Some((_, guarded)) = self.guarded()
            && parent != guarded.0
        {
            let parent = hex::encode(parent);
            return Decision::Refuse(SignError::Invalid(format!(
                "header {hash} of height {height} follows {parent}, the guard holds {guarded}"
            )));
        }
        Decision::Guard(Box::new(self.next(height, hash, grant.term, None)))
    }

    /// Decides about a header that carries a signature of this key, which was checked.
    ///
    /// # Errors
    ///
    /// `DoubleSign` when the guard holds another header at that height.
    pub fn note(&self, height: Height, hash: Hash, signature: &Bytes) -> Result<Option<Record>, SignError> {
        let guarded = self.record.height;
        if height == guarded && hash != self.record.hash {
            let guarded = self.record.hash;
            return Err(SignError::DoubleSign { height, guarded, asked: hash });
        }
        let newer = height > guarded;
        Ok(newer.then(|| self.next(height, hash, self.seen, Some(signature.clone()))))
    }

    fn next(&self, height: Height, hash: Hash, term: Term, signature: Option<Bytes>) -> Record {
        let sequence = self.record.sequence + 1;
        Record { sequence, chain: self.record.chain.clone(), height, hash, term, signature }
    }

    /// The record is on disk: it rules from here on.
    pub fn written(&mut self, record: Record) {
        self.record = record;
    }

    /// The guarded header was signed. Kept in memory, so that the same question gets the same
    /// bytes; not written, because a write that is not synced could tear both slots, and the
    /// key gives the same signature again.
    pub fn signed(&mut self, signature: Bytes) {
        self.record.signature = Some(signature);
    }
}
