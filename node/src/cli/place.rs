//! Where a command works: the home, its files, and the settings that say where they are.

use std::path::{Path, PathBuf};

use baton_messages::genesis::Genesis;
use baton_storage::{Completion, OpenOptions, Store};

use crate::cli::args::NodeArgs;
use crate::config::{Env, Settings, config_file};
use crate::exit::ExitError;
use crate::home::Home;
use crate::{genesis, keys};

/// The home directory: said, or `~/.baton`. Absolute, so that messages can be pasted.
///
/// # Errors
///
/// When nothing is said and there is no `HOME`.
pub fn home(said: Option<&Path>) -> Result<PathBuf, ExitError> {
    let home = match said {
        Some(home) if home.as_os_str().is_empty() => return Err(ExitError::usage("--home is empty")),
        Some(home) => home.to_owned(),
        None => match std::env::home_dir() {
            Some(home) if !home.as_os_str().is_empty() => home.join(".baton"),
            _ => return Err(ExitError::usage("there is no HOME; say --home DIR")),
        },
    };
    std::path::absolute(&home)
        .map_err(|error| ExitError::usage(format!("--home {}: {error}", home.display())))
}

/// What a command on the files of a stopped node needs to know.
#[derive(Clone, Debug)]
pub struct Place {
    /// The files.
    pub files: Home,
    /// The settings; from the file only where there is one.
    pub settings: Settings,
}

impl Place {
    /// Reads the settings that say where files are. Tools work also where a start would be
    /// refused, so only what is said is checked, not what it means together.
    ///
    /// # Errors
    ///
    /// A value that breaks its rule, an unknown key, a file that cannot be read.
    pub fn of(args: &NodeArgs) -> Result<Self, ExitError> {
        let root = home(args.home.as_deref())?;
        let file = config_file(&root);
        let file = file.exists().then_some(file);
        let settings = Settings::gather(file.as_deref(), &args.flags, &Env::of_process())?;
        Ok(Self { files: settings.files(&root), settings })
    }

    /// The genesis.
    ///
    /// # Errors
    ///
    /// When it is missing or breaks a rule.
    pub fn genesis(&self) -> Result<Genesis, ExitError> {
        Ok(genesis::load(&self.files.genesis())?)
    }

    /// The file of the passphrase.
    ///
    /// # Errors
    ///
    /// When nobody said it.
    pub fn passphrase_file(&self) -> Result<PathBuf, ExitError> {
        self.settings.passphrase_file().ok_or_else(|| {
            ExitError::config(
                "signer.passphrase_file is not set: say --signer.passphrase_file FILE, or - for stdin",
            )
        })
    }

    /// Opens the store.
    ///
    /// # Errors
    ///
    /// As `Store::open`.
    pub fn open_store(&self, genesis: &Genesis) -> Result<Store, ExitError> {
        Ok(Store::open(open_options(&self.files, genesis))?)
    }

    /// Reads the passphrase and decrypts the key.
    ///
    /// # Errors
    ///
    /// When one is missing, open to others or wrong.
    pub fn key(&self) -> Result<baton_actors::signer::key::FileKey, ExitError> {
        let passphrase = keys::read_passphrase(&self.passphrase_file()?)?;
        Ok(keys::open(&self.files, &passphrase)?)
    }
}

/// How the store of a home is opened.
#[must_use]
pub fn open_options(files: &Home, genesis: &Genesis) -> OpenOptions {
    OpenOptions {
        path: files.store(),
        chain_id: genesis.chain_id.clone(),
        genesis: genesis.clone(),
        completion: Completion::Thread,
    }
}
