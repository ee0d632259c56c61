//! How the process ends: a code for the service manager, and a last line for a person.

use std::fmt;

use baton_messages::engine::EngineError;
use baton_storage::{OpenError, StoreError};

use crate::cluster::ListenError;
use crate::cluster::security::SecurityError;
use crate::config::ConfigError;
use crate::dev_da::DevDaError;
use crate::genesis;
use crate::keys::KeysError;

/// The exit codes. `contrib/baton.service` acts on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// A clean stop, SIGTERM and SIGINT included.
    Clean = 0,
    /// Something else failed.
    Other = 1,
    /// The command line is wrong.
    Usage = 64,
    /// What is stored, signed or agreed contradicts itself. Do not restart; a person is needed.
    Integrity = 70,
    /// It may work later: a port is taken, the store is in use, the disk is full.
    RetryLater = 75,
    /// The configuration, the genesis or the key is refused. Restarting changes nothing.
    Config = 78,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

/// Why the process ends before it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExitError {
    /// The code.
    pub code: ExitCode,
    /// The cause and the remedy, in one line: the last on stderr.
    pub message: String,
}

impl ExitError {
    /// An end with any code.
    #[must_use]
    pub fn new(code: ExitCode, message: impl fmt::Display) -> Self {
        Self { code, message: one_line(&message.to_string()) }
    }

    /// The command line is wrong.
    #[must_use]
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::new(ExitCode::Usage, message)
    }

    /// The configuration, the genesis or the key is refused.
    #[must_use]
    pub fn config(message: impl fmt::Display) -> Self {
        Self::new(ExitCode::Config, message)
    }

    /// What is stored contradicts itself.
    #[must_use]
    pub fn integrity(message: impl fmt::Display) -> Self {
        Self::new(ExitCode::Integrity, message)
    }

    /// It may work later.
    #[must_use]
    pub fn retry_later(message: impl fmt::Display) -> Self {
        Self::new(ExitCode::RetryLater, message)
    }

    /// Something else.
    #[must_use]
    pub fn other(message: impl fmt::Display) -> Self {
        Self::new(ExitCode::Other, message)
    }
}

impl From<ConfigError> for ExitError {
    fn from(error: ConfigError) -> Self {
        Self::config(error)
    }
}

impl From<genesis::Error> for ExitError {
    fn from(error: genesis::Error) -> Self {
        Self::config(error)
    }
}

impl From<KeysError> for ExitError {
    fn from(error: KeysError) -> Self {
        let code = match &error {
            KeysError::KeyFile(_)
            | KeysError::File(_)
            | KeysError::NotAKey
            | KeysError::NodeKey { .. }
            | KeysError::Refused(_) => ExitCode::Config,
            KeysError::Confirm(_) => ExitCode::Usage,
            // Another process has the guard, or the disk is full.
            KeysError::Guard(_) | KeysError::Audit(_) => ExitCode::RetryLater,
            KeysError::Stdin(_) | KeysError::GuardInOrder { .. } => ExitCode::Other,
        };
        Self::new(code, error)
    }
}

impl From<OpenError> for ExitError {
    fn from(error: OpenError) -> Self {
        let code = match &error {
            OpenError::NotInitialised(_)
            | OpenError::AlreadyInitialised(_)
            | OpenError::OtherChain { .. }
            | OpenError::NewerFormat { .. } => ExitCode::Config,
            OpenError::InUse(_) | OpenError::Io(_) => ExitCode::RetryLater,
            OpenError::Damaged(_) | OpenError::NewerEntries(_) => ExitCode::Integrity,
        };
        Self::new(code, error)
    }
}

impl From<ListenError> for ExitError {
    fn from(error: ListenError) -> Self {
        let code = match &error {
            ListenError::Tls(_) | ListenError::Lives(_) | ListenError::Plaintext(_) => ExitCode::Config,
            ListenError::Taken { .. } | ListenError::Refused { .. } => ExitCode::RetryLater,
        };
        Self::new(code, error)
    }
}

impl From<SecurityError> for ExitError {
    fn from(error: SecurityError) -> Self {
        Self::config(error)
    }
}

impl From<StoreError> for ExitError {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::Io(_) | StoreError::Full(_) => ExitCode::RetryLater,
            StoreError::Corrupt(_) | StoreError::Newer(_) => ExitCode::Integrity,
        };
        Self::new(code, error)
    }
}

impl From<EngineError> for ExitError {
    fn from(error: EngineError) -> Self {
        let code = match &error {
            EngineError::Unavailable(_) => ExitCode::RetryLater,
            EngineError::NotNext { .. } | EngineError::CannotRollBack { .. } => ExitCode::Other,
            EngineError::OtherBlock { .. } | EngineError::Poison { .. } | EngineError::Corrupt(_) => {
                ExitCode::Integrity
            }
        };
        Self::new(code, error)
    }
}

impl From<DevDaError> for ExitError {
    fn from(error: DevDaError) -> Self {
        let code = match &error {
            DevDaError::Config { .. } => ExitCode::Usage,
            DevDaError::Listen { .. } | DevDaError::Store { .. } | DevDaError::InUse { .. } => {
                ExitCode::RetryLater
            }
            DevDaError::NotOurs { .. } => ExitCode::Config,
            DevDaError::Damaged { .. } => ExitCode::Integrity,
        };
        Self::new(code, error)
    }
}

/// Lines of causes become one, so that the last line on stderr says everything.
fn one_line(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_several_lines_becomes_one() {
        assert_eq!(ExitError::other("a\n  b\n\nc\n").message, "a b c");
    }
}
