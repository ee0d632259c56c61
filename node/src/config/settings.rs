//! Where values come from: flags over environment over file over default.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_yaml_ng::Value as Yaml;

use crate::config::key::Key;
use crate::config::table::{KEYS, find, is_section};
use crate::config::value::{Kind, Value};
use crate::config::{ConfigError, Log, Said};
use crate::home::Home;

/// The longest configuration file that is read, in bytes.
const LONGEST_FILE: u64 = 1 << 20;

/// Values given as flags, by the name of the key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub BTreeMap<&'static str, String>);

/// The environment variables that may be meant for this program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Env(pub BTreeMap<String, String>);

impl Env {
    /// The variables of this process that start with `BATON_`. Bytes that are no UTF-8 become
    /// replacement characters, which no rule lets through where they matter.
    #[must_use]
    pub fn of_process() -> Self {
        let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        let all = std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value)));
        Self(all.filter(|(name, _)| name.starts_with("BATON_")).collect())
    }
}

/// Who said a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody.
    Default,
    /// The configuration file.
    File {
        /// Its path.
        path: PathBuf,
        /// The line, where it could be found.
        line: Option<usize>,
    },
    /// An environment variable.
    Env(String),
    /// A flag.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: Some(line) } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag --{name}"),
        }
    }
}

/// The value of one key and who said it.
#[derive(Clone)]
pub struct Setting {
    /// The key.
    pub key: &'static Key,
    /// The value.
    pub value: Value,
    /// Who said it.
    pub source: Source,
}

impl Setting {
    /// The value as it may be shown.
    #[must_use]
    pub fn shown(&self) -> String {
        redacted(self.key, &self.value.to_string())
    }

    /// The value and who said it, for messages.
    #[must_use]
    pub fn said(&self) -> Said {
        Said { key: self.key.name, value: self.shown(), source: self.source.clone() }
    }
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {:?} ({})", self.key.name, self.shown(), self.source)
    }
}

/// A value of every key.
#[derive(Clone, Debug)]
pub struct Settings(BTreeMap<&'static str, Setting>);

impl Settings {
    /// Reads all sources. Every value is checked, also one that another source overrides.
    ///
    /// # Errors
    ///
    /// `ConfigError` naming key, value, rule and source.
    pub fn gather(file: Option<&Path>, flags: &Flags, env: &Env) -> Result<Self, ConfigError> {
        let mut settings = Self::defaults();
        if let Some(path) = file {
            settings.add_file(path)?;
        }
        settings.add_env(env)?;
        for (name, text) in &flags.0 {
            let key = find(name).expect("flags are made from the table");
            settings.set(key, text, Source::Flag((*name).to_owned()))?;
        }
        Ok(settings)
    }

    fn defaults() -> Self {
        let default =
            |key: &'static Key| Setting { key, value: key.default_value(), source: Source::Default };
        Self(KEYS.iter().map(|key| (key.name, default(key))).collect())
    }

    fn set(&mut self, key: &'static Key, text: &str, source: Source) -> Result<(), ConfigError> {
        let value = key.read(text).map_err(|rule| ConfigError::BadValue {
            key: key.name.to_owned(),
            value: redacted(key, text),
            rule,
            from: source.clone(),
        })?;
        self.0.insert(key.name, Setting { key, value, source });
        Ok(())
    }

    fn add_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = read_file(path)?;
        let yaml: Yaml = serde_yaml_ng::from_str(&text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            line: error.location().map(|at| at.line()),
            reason: error.to_string(),
        })?;
        self.add_yaml(&File { path, text: &text }, "", &yaml)
    }

    fn add_yaml(&mut self, file: &File<'_>, at: &str, yaml: &Yaml) -> Result<(), ConfigError> {
        let entries = match yaml {
            Yaml::Null => return Ok(()),
            Yaml::Mapping(entries) => entries,
            _ => return Err(file.bad(at, &shown_yaml(yaml), "must hold keys and values")),
        };
        for (name, value) in entries {
            let Yaml::String(name) = name else {
                return Err(file.unknown(at, &shown_yaml(name)));
            };
            let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
            match find(&path) {
                Some(key) => self.add_yaml_value(file, key, value)?,
                None if is_section(&path) => self.add_yaml(file, &path, value)?,
                None => return Err(file.unknown("", &path)),
            }
        }
        Ok(())
    }

    fn add_yaml_value(
        &mut self,
        file: &File<'_>,
        key: &'static Key,
        value: &Yaml,
    ) -> Result<(), ConfigError> {
        // Nothing after the colon means that nothing was said.
        if value.is_null() {
            return Ok(());
        }
        match scalar(key, value) {
            Ok(text) => self.set(key, &text, file.source(key.name)),
            Err(rule) => Err(file.bad(key.name, &redacted(key, &shown_yaml(value)), rule)),
        }
    }

    fn add_env(&mut self, env: &Env) -> Result<(), ConfigError> {
        for (name, text) in &env.0 {
            match KEYS.iter().find(|key| key.env() == *name) {
                Some(key) => self.set(key, text, Source::Env(name.clone()))?,
                None if looks_like_a_key(name) => {
                    return Err(ConfigError::UnknownKey {
                        key: name.clone(),
                        from: Source::Env(name.clone()),
                    });
                }
                None => {}
            }
        }
        Ok(())
    }

    /// All settings, in the order of the table.
    pub fn iter(&self) -> impl Iterator<Item = &Setting> {
        KEYS.iter().map(|key| self.get(key.name))
    }

    /// The setting of a key.
    #[must_use]
    pub fn get(&self, name: &str) -> &Setting {
        self.0.get(name).unwrap_or_else(|| panic!("{name} is not in the table of settings"))
    }

    /// How to log; usable before the rest is checked.
    #[must_use]
    pub fn log(&self) -> Log {
        Log {
            level: self.text("log.level"),
            json: self.text("log.format") == "json",
            filter: self.text("log.filter"),
        }
    }

    /// Where the files of a home are.
    #[must_use]
    pub fn files(&self, home: &Path) -> Home {
        Home::new(home)
            .with_signer_path(self.text("signer.signer_path"))
            .with_db_path(self.text("db_path"))
            .with_audit_path(self.text("audit.path"))
            .with_events_path(self.text("audit.events_path"))
    }

    /// The node's name in the cluster.
    #[must_use]
    pub fn node_id(&self) -> String {
        Some(self.text("raft.node_id")).filter(|id| !id.is_empty()).unwrap_or_else(|| "baton".to_owned())
    }

    /// The file of the passphrase, where somebody said it.
    #[must_use]
    pub fn passphrase_file(&self) -> Option<PathBuf> {
        Some(self.text("signer.passphrase_file")).filter(|text| !text.is_empty()).map(PathBuf::from)
    }

    /// A switch of the table.
    #[must_use]
    pub fn bool(&self, name: &str) -> bool {
        matches!(self.get(name).value, Value::Bool(true))
    }

    /// Whether somebody said it.
    #[must_use]
    pub fn is_said(&self, name: &str) -> bool {
        self.get(name).source != Source::Default
    }

    pub(super) fn duration(&self, name: &str) -> Duration {
        match self.get(name).value {
            Value::Duration(value) => value,
            _ => unreachable!("{name} is a duration in the table"),
        }
    }

    pub(super) fn number(&self, name: &str) -> u64 {
        match self.get(name).value {
            Value::Number(value) => value,
            _ => unreachable!("{name} is a number in the table"),
        }
    }

    pub(super) fn size(&self, name: &str) -> usize {
        usize::try_from(self.number(name)).unwrap_or(usize::MAX)
    }

    pub(super) fn fraction(&self, name: &str) -> f64 {
        match self.get(name).value {
            Value::Fraction(value) => value,
            _ => unreachable!("{name} is a fraction in the table"),
        }
    }

    /// A text of the table, as it was said.
    #[must_use]
    pub fn text(&self, name: &str) -> String {
        match &self.get(name).value {
            Value::Text(value) => value.clone(),
            _ => unreachable!("{name} is text in the table"),
        }
    }

    pub(super) fn list(&self, name: &str) -> Vec<String> {
        match &self.get(name).value {
            Value::List(value) => value.clone(),
            _ => unreachable!("{name} is a list in the table"),
        }
    }
}

/// The file being read.
struct File<'a> {
    path: &'a Path,
    text: &'a str,
}

impl File<'_> {
    fn source(&self, key: &str) -> Source {
        Source::File { path: self.path.to_owned(), line: line_of(self.text, key) }
    }

    fn bad(&self, key: &str, value: &str, rule: &str) -> ConfigError {
        let shown = if key.is_empty() { "the file" } else { key };
        ConfigError::BadValue {
            key: shown.to_owned(),
            value: value.to_owned(),
            rule: rule.to_owned(),
            from: self.source(key),
        }
    }

    fn unknown(&self, at: &str, name: &str) -> ConfigError {
        let key = if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
        ConfigError::UnknownKey { from: self.source(&key), key }
    }
}

fn read_file(path: &Path) -> Result<String, ConfigError> {
    let unreadable =
        |reason: String| ConfigError::Unreadable { path: path.to_owned(), what: "the configuration", reason };
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(ConfigError::Missing { path: path.to_owned(), what: "configuration" });
        }
        Err(error) => return Err(unreadable(error.to_string())),
    };
    if !metadata.is_file() || metadata.len() > LONGEST_FILE {
        return Err(unreadable(format!("it must be a file of at most {LONGEST_FILE} bytes")));
    }
    std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))
}

/// A YAML value as the text of a flag.
fn scalar(key: &Key, value: &Yaml) -> Result<String, &'static str> {
    match value {
        Yaml::Bool(value) => Ok(value.to_string()),
        // The digits of such a number are lost already; in quotes they are not.
        Yaml::Number(value) if value.is_f64() && key.kind != Kind::Fraction => {
            Err("must be in quotes, or a whole number")
        }
        Yaml::Number(value) => Ok(value.to_string()),
        Yaml::String(text) => Ok(text.clone()),
        Yaml::Sequence(items) if key.kind == Kind::List => {
            let items: Result<Vec<_>, _> = items.iter().map(|item| scalar(key, item)).collect();
            let items = items?;
            if items.iter().any(|item| item.contains(',')) {
                return Err("must be a list of texts without commas");
            }
            Ok(items.join(","))
        }
        Yaml::Null | Yaml::Sequence(_) | Yaml::Mapping(_) | Yaml::Tagged(_) => Err("must be a single value"),
    }
}

fn shown_yaml(yaml: &Yaml) -> String {
    let text = serde_yaml_ng::to_string(yaml).unwrap_or_default();
    text.trim().chars().take(80).collect::<String>().replace('\n', " ")
}

/// What errors, warnings and listings show of a value.
pub(super) fn redacted(key: &Key, text: &str) -> String {
    if key.secret && !text.is_empty() { "(secret)".to_owned() } else { text.to_owned() }
}

/// Whether a variable is a misspelt key. Orchestrators set variables of their own for services
/// called `baton…`; those are left alone.
fn looks_like_a_key(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("BATON_") else { return false };
    let foreign = rest.contains("_SERVICE_") || rest.ends_with("_PORT") || rest.contains("_PORT_");
    let section = rest.split_once('_').map(|(section, _)| section.to_lowercase());
    !foreign && section.is_some_and(|section| is_section(&section))
}

/// The line of a key in block-style YAML, counted from one.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let mut open: Vec<(usize, &str)> = vec![];
    for (number, line) in text.lines().enumerate() {
        let content = line.trim_start();
        let Some((name, _)) = content.split_once(':') else { continue };
        if content.starts_with(['#', '-']) {
            continue;
        }
        let indent = line.len() - content.len();
        open.retain(|(outer, _)| *outer < indent);
        open.push((indent, name.trim().trim_matches(['"', '\''])));
        if open.iter().map(|(_, name)| *name).eq(key.split('.')) {
            return Some(number + 1);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_on_its_line() {
        let text = "# log:\n#   level: x\nlog:\n  # how much\n  level: info\nnode:\n  level: 3\n";
        assert_eq!(line_of(text, "log.level"), Some(5));
        assert_eq!(line_of(text, "node.level"), Some(7));
        assert_eq!(line_of(text, "level"), None);
    }

    #[test]
    fn variables_of_an_orchestrator_are_left_alone() {
        for name in
            ["BATON_DA_SERVICE_HOST", "BATON_DA_PORT", "BATON_DA_PORT_80_TCP", "BATON_HOME", "BATON_X_Y"]
        {
            assert!(!looks_like_a_key(name), "{name}");
        }
        assert!(looks_like_a_key("BATON_NODE_BLOCKTIME"));
    }
}
