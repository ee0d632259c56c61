//! Where a command works: the home, its files, and the settings that say where they are.

use std::path::{Path, PathBuf};

use baton_messages::genesis::Genesis;
use baton_storage::{Completion, OpenOptions, Store};

use crate::cli::args::NodeArgs;
use crate::config::{Env, Settings, config_file};
use crate::exit::ExitError;
use crate::home::Home;
use crate::{genesis, keys};

/// The home directory: `--home`, else `BATON_HOME`, else `~/.baton`. Absolute, so that messages
/// can be pasted.
///
/// # Errors
///
/// When one is empty, or nothing is said and there is no `HOME`.
pub fn home(said: Option<&Path>) -> Result<PathBuf, ExitError> {
    let environment = std::env::var_os("BATON_HOME");
    let home = chosen(said, environment.as_deref().map(Path::new), std::env::home_dir().as_deref())?;
    std::path::absolute(&home)
        .map_err(|error| ExitError::usage(format!("the home {}: {error}", home.display())))
}

fn chosen(
    said: Option<&Path>,
    environment: Option<&Path>,
    of_user: Option<&Path>,
) -> Result<PathBuf, ExitError> {
    let is_empty = |path: &&Path| path.as_os_str().is_empty();
    match (said, environment, of_user.filter(|path| !is_empty(path))) {
        (Some(home), ..) if is_empty(&home) => Err(ExitError::usage("--home is empty")),
        (Some(home), ..) => Ok(home.to_owned()),
        (None, Some(home), _) if is_empty(&home) => {
            Err(ExitError::usage("BATON_HOME is empty: unset it or name a directory"))
        }
        (None, Some(home), _) => Ok(home.to_owned()),
        (None, None, Some(home)) => Ok(home.join(".baton")),
        (None, None, None) => Err(ExitError::usage("there is no HOME; say --home DIR")),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_counts_before_the_environment_and_that_before_the_default() {
        let path = |text: &'static str| Some(Path::new(text));
        let home = |said, environment, of_user| chosen(said, environment, of_user).ok();
        assert_eq!(home(path("/b"), path("/a"), path("/u")), Some("/b".into()));
        assert_eq!(home(None, path("/a"), path("/u")), Some("/a".into()));
        assert_eq!(home(None, None, path("/u")), Some("/u/.baton".into()));
        assert_eq!(home(None, None, path("")), None);
        let empty = chosen(None, path(""), path("/u")).unwrap_err();
        assert!(empty.to_string().contains("BATON_HOME"), "{empty}");
        assert!(chosen(path(""), path("/a"), path("/u")).unwrap_err().to_string().contains("--home"));
    }
}
