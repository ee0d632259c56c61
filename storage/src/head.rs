//! The snapshot: where a member goes on without the log before it.

use baton_messages::chain::Header;
use baton_messages::codec::{self, CodecError};
use baton_messages::command::{DaProgress, FIRST_COMMAND_VERSION, ForcedPosition};
use baton_messages::genesis::Genesis;
use baton_messages::types::{Hash, Height, Tip};
use serde::{Deserialize, Serialize};

use crate::backend::StoreError;
use crate::raft_types::{LogId, SnapshotMeta, StoredMembership};
use crate::records::{Applied, LogIdRecord, MembershipRecord};

/// A small snapshot of everything apply depends on. Block bodies are not in it: they are
/// fetched afterwards, downwards from the head, linked by hash.
///
/// It is stored and sent with `encode`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub(crate) genesis_hash: Hash,
    pub(crate) log: Option<LogIdRecord>,
    pub(crate) membership: MembershipRecord,
    /// The header of the tip; `None` before the first block.
    pub(crate) header: Option<Header>,
    pub(crate) tip: Tip,
    /// Places of the blocks in the window below the tip, so that verdicts agree.
    pub(crate) window: Vec<Tip>,
    pub(crate) da: DaProgress,
    pub(crate) forced: ForcedPosition,
    pub(crate) replay_horizon: Height,
    /// The version of log entries in force.
    #[serde(skip, default = "first_command_version")]
    pub(crate) command_version: u8,
    /// Why an operator has stopped production.
    #[serde(skip)]
    pub(crate) pause: Option<String>,
}

const fn first_command_version() -> u8 {
    FIRST_COMMAND_VERSION
}

/// The first byte of a head that says which version of log entries is in force. Heads of the
/// first version have no such byte: an older baton reads them until another one is activated.
const WITH_COMMAND_VERSION: u8 = 2;

/// The first byte of a head that also says that production is stopped. Only chains with entries of
/// version 2 have such heads.
const WITH_PAUSE: u8 = 3;

/// Why a head was not installed. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// It belongs to another chain.
    #[error("the snapshot belongs to a chain with genesis {found}, this one has {wanted}")]
    OtherChain {
        /// Whose it is.
        found: Hash,
        /// Whose it should be.
        wanted: Hash,
    },
    /// It contradicts itself, or what is committed here.
    #[error("the snapshot is not acceptable: {0}")]
    Contradiction(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Head {
    /// As it is stored and sent.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        if let Some(pause) = &self.pause {
            let mut bytes = vec![WITH_PAUSE, self.command_version];
            bytes.extend(codec::encode(&(pause, self)));
            return bytes;
        }
        if self.command_version == FIRST_COMMAND_VERSION {
            return codec::encode(self);
        }
        let mut bytes = vec![WITH_COMMAND_VERSION, self.command_version];
        bytes.extend(codec::encode(self));
        bytes
    }

    /// Reads what `encode` wrote.
    ///
    /// # Errors
    ///
    /// `CodecError` when the bytes are not a head.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        match bytes {
            [WITH_COMMAND_VERSION, version, head @ ..] => {
                Ok(Self { command_version: *version, ..codec::decode(head)? })
            }
            [WITH_PAUSE, version, head @ ..] => {
                let (pause, head): (String, Self) = codec::decode(head)?;
                Ok(Self { command_version: *version, pause: Some(pause), ..head })
            }
            _ => codec::decode(bytes),
        }
    }

    /// The last block it covers.
    #[must_use]
    pub const fn tip(&self) -> Tip {
        self.tip
    }

    /// The last log entry it covers.
    #[must_use]
    pub fn log_id(&self) -> Option<LogId> {
        self.log.map(Into::into)
    }

    /// The lowest height whose body the member that made it could serve then. Blocks below
    /// need not be fetched to rebuild the replay window.
    #[must_use]
    pub const fn replay_horizon(&self) -> Height {
        self.replay_horizon
    }

    /// What openraft knows of it.
    ///
    /// # Errors
    ///
    /// `Corrupt` when the membership contradicts itself.
    pub fn meta(&self) -> Result<SnapshotMeta, StoreError> {
        let last_membership = StoredMembership::try_from(self.membership.clone())?;
        Ok(SnapshotMeta { last_log_id: self.log_id(), last_membership })
    }

    pub(crate) fn applied(&self) -> Applied {
        Applied { log: self.log, tip: self.tip, da: self.da, forced: self.forced }
    }

    /// Checks everything that can be checked without the chain before it.
    pub(crate) fn check(&self, genesis: &Genesis, here: &Tip) -> Result<(), HeadError> {
        let wanted = genesis.hash();
        if self.genesis_hash != wanted {
            return Err(HeadError::OtherChain { found: self.genesis_hash, wanted });
        }
        let wrong = |reason: String| Err(HeadError::Contradiction(reason));
        match &self.header {
            None if self.tip != Tip::default() => return wrong("it has a tip, but no header".into()),
            Some(header) if header.hash() != self.tip.hash || header.height != self.tip.height => {
                return wrong(format!("its header is not that of its tip, {}", self.tip));
            }
            Some(header) if header.time != self.tip.time || header.chain_id != genesis.chain_id => {
                return wrong(format!("its header at {} has another time or chain", header.height));
            }
            None | Some(_) => {}
        }
        if self.tip.height < here.height || (self.tip.height == here.height && self.tip.hash != here.hash) {
            return wrong(format!("its tip is {}, but {here} is committed here", self.tip));
        }
        Ok(())
    }
}
