//! The configuration: ev-node's `evnode.yaml` as it is, and settings of our own.
//!
//! Everything is checked before anything is opened. An error names key, value, rule and source.

pub mod cluster;
pub mod flags;
pub mod key;
pub mod reference;
pub mod rules;
pub mod settings;
pub mod table;
pub mod template;
pub mod value;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use baton_actors::da_submitter::batching::Batching;
use baton_actors::engine::kv::Roots;
use zeroize::Zeroizing;

use crate::cluster::security::TlsSettings;
use crate::home::Home;

pub use crate::config::cluster::{Cluster, First, Peer};
pub use crate::config::settings::{Env, Flags, Settings, Source};

/// What the node is told to do. Made by [`Config::load`], so every rule holds.
#[derive(Clone, Debug)]
pub struct Config {
    /// The home and where its files are (`db_path`, `signer.signer_path`, `audit.path`).
    pub files: Home,
    /// Block production.
    pub node: Node,
    /// The DA layer.
    pub da: Da,
    /// Gossip and exchange.
    pub p2p: P2p,
    /// RPC, health and metrics.
    pub rpc: Rpc,
    /// HTTP of the key-value engine.
    pub kv: Kv,
    /// The execution engine.
    pub engine: Engine,
    /// The queue of the sequencer.
    pub queue: Queue,
    /// Blocks of the replay window (`sequencer.replay_window`).
    pub replay_window: u64,
    /// Most bytes of transactions in a block (`block.max_bytes`).
    pub max_block_bytes: usize,
    /// The records of what was signed and of what happened.
    pub audit: Audit,
    /// Free bytes below which production stops (`disk.min_free`).
    pub min_free_disk: u64,
    /// Metrics at an address of their own; `None` unless `instrumentation.prometheus`.
    pub metrics: Option<Metrics>,
    /// First part of the names of ev-node's metrics.
    pub metrics_namespace: String,
    /// Logging.
    pub log: Log,
    /// File with the passphrase of the key; `-` is stdin.
    pub passphrase_file: Option<PathBuf>,
    /// Consensus.
    pub raft: Raft,
    /// Every value and who said it.
    pub settings: Settings,
}

/// Block production, and what a node that follows does instead.
#[derive(Clone, Debug)]
pub struct Node {
    /// It produces blocks, alone or in a cluster; otherwise it follows a chain.
    pub aggregator: bool,
    /// It follows headers only.
    pub light: bool,
    /// Follow the chain before producing where the store belongs to no cluster, and say so with more
    /// weight after this time; `None`: begin.
    pub catch_up: Option<Duration>,
    /// Most blocks that a node that follows and is ready lags behind.
    pub readiness_max_behind: u64,
    /// Most seconds since the last block of a node that follows and is ready; zero: not looked at.
    pub readiness_window: u64,
    /// A node that follows has a DA layer to read.
    pub reads_da: bool,
    /// A node that follows has peers to ask.
    pub asks_peers: bool,
    /// Time between two blocks.
    pub block_time: Duration,
    /// Most blocks that wait for DA; never zero.
    pub max_pending: u64,
    /// Make blocks only for transactions.
    pub lazy_mode: bool,
    /// Longest time between two blocks in lazy mode.
    pub lazy_block_interval: Duration,
    /// Time between two rounds of the reaper.
    pub scrape_interval: Duration,
    /// How far clocks may differ before block times are held back; `Duration::MAX` is off.
    pub max_clock_drift: Duration,
}

impl Node {
    /// What the node does, in a word: `sequencer`, or what it follows.
    #[must_use]
    pub const fn mode(&self) -> &'static str {
        match (self.aggregator, self.reads_da, self.asks_peers) {
            (false, _, _) if self.light => "light",
            (true, _, _) => "sequencer",
            (false, true, true) => "full",
            (false, true, false) => "da",
            (false, false, _) => "p2p",
        }
    }
}

/// The DA layer.
#[derive(Clone, Debug)]
pub struct Da {
    /// A node that follows reads from here on, if that is above where the chain begins.
    pub start_height: u64,
    /// JSON-RPC endpoint; empty is refused at start.
    pub address: String,
    /// Bearer token.
    pub auth_token: Option<Secret>,
    /// JSON object merged into the options of each submission; empty: none.
    pub submit_options: String,
    /// Accounts used in turn.
    pub signing_addresses: Vec<String>,
    /// Submissions that each of these accounts may have under way.
    pub submits_per_account: usize,
    /// When blobs are posted.
    pub batching: Batching,
    /// The text from which the namespace of headers is made.
    pub namespace: String,
    /// The text from which the namespace of data is made; `namespace` when none was given.
    pub data_namespace: String,
    /// The text from which the namespace of forced transactions is made; `None` where nobody can
    /// force any.
    pub forced_namespace: Option<String>,
    /// Unit of polling and back-off.
    pub block_time: Duration,
    /// Longest time for one call.
    pub request_timeout: Duration,
    /// Largest blob, and largest sum of blobs in one submission.
    pub max_blob_bytes: usize,
    /// Longest answer read.
    pub max_response_bytes: usize,
}

/// Gossip and exchange.
#[derive(Clone, Debug)]
pub struct P2p {
    /// Where peers reach this node; empty: the network is off.
    pub listen_address: String,
    /// Seeds.
    pub peers: Vec<String>,
    /// Peers to refuse.
    pub blocked_peers: Vec<String>,
    /// Peers to allow.
    pub allowed_peers: Vec<String>,
    /// Do not enforce the lists.
    pub disable_connection_gater: bool,
}

/// RPC, health and metrics.
#[derive(Clone, Debug)]
pub struct Rpc {
    /// `host:port` to bind.
    pub address: String,
    /// Where clients reach it, `host:port`.
    pub advertise: String,
}

/// HTTP of the key-value engine.
#[derive(Clone, Debug)]
pub struct Kv {
    /// `host:port` to bind; `None` is off. A witness has none.
    pub listen: Option<String>,
    /// Where clients reach it, `host:port`; empty when it is off.
    pub advertise: String,
}

/// The records of what was signed and of what happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audit {
    /// Bytes at which a record is put aside and begun anew.
    pub max_bytes: u64,
    /// Files of each that are kept put aside.
    pub keep: u32,
}

/// The kinds of engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// The embedded key-value app.
    Kv,
}

/// The execution engine.
#[derive(Clone, Debug)]
pub struct Engine {
    /// Which one.
    pub kind: EngineKind,
    /// What the key-value app's state roots are.
    pub kv_roots: Roots,
    /// Whether the key-value app keeps a pool of its own, in memory.
    pub kv_pool: bool,
    /// How long one call may take.
    pub call_timeout: Duration,
}

/// The queue of the sequencer.
#[derive(Clone, Debug)]
pub struct Queue {
    /// Most transactions.
    pub max_txs: usize,
    /// Most bytes.
    pub max_bytes: usize,
    /// Most bytes of one transaction: what fits into a block and into the queue.
    pub max_tx_bytes: usize,
    /// Most requests that wait for an outcome.
    pub max_waiting: usize,
}

/// Metrics at an address of their own.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// `host:port` to bind.
    pub address: String,
    /// Most scrapes at a time.
    pub max_connections: usize,
}

/// Logging.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// A level of ev-node, or directives.
    pub level: String,
    /// JSON instead of text.
    pub json: bool,
    /// Directives per module; empty: none.
    pub filter: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), json: false, filter: String::new() }
    }
}

/// Consensus. The relations between the times hold: interval < min < max, max > 3 intervals.
#[derive(Clone, Debug)]
pub struct Raft {
    /// The node's name in the cluster.
    pub node_id: String,
    /// How the other members are reached and found; `None`: there are none, and none can be added.
    pub cluster: Option<Cluster>,
    /// It votes and has neither engine nor key.
    pub witness: bool,
    /// Time between two heartbeats.
    pub heartbeat_interval: Duration,
    /// Shortest election time-out.
    pub election_timeout_min: Duration,
    /// Longest election time-out and the leader's lease.
    pub election_timeout_max: Duration,
    /// Log entries after which a snapshot is taken.
    pub snapshot_threshold: u64,
    /// Log entries kept after a snapshot.
    pub trailing_logs: u64,
    /// Certificates (`raft.tls`).
    pub tls: TlsSettings,
}

/// Text that is neither shown nor left in memory.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// The text.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Something was accepted but has no effect, or not the one it has in ev-node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// What was said, by whom.
    pub said: Said,
    /// Why it has no effect.
    pub text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has no effect: {}", self.said, self.text)
    }
}

/// A value and who said it, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The key.
    pub key: &'static str,
    /// The value as it may be shown.
    pub value: String,
    /// Who said it.
    pub source: Source,
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {:?} ({})", self.key, self.value, self.source)
    }
}

/// Why a configuration is refused. Nothing was opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A file that must be there is not.
    #[error("there is no {what} at {}; run `baton init` or say another --home", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
        /// What it holds.
        what: &'static str,
    },
    /// A file cannot be read.
    #[error("{what} cannot be read from {}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What it holds.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// The file is not YAML.
    #[error("{}{} is not YAML: {reason}", path.display(), line.map(|line| format!(":{line}")).unwrap_or_default())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line.
        line: Option<usize>,
        /// What the parser says.
        reason: String,
    },
    /// Nobody knows the key.
    #[error("unknown key {key} ({from}); `baton config reference` lists all keys")]
    UnknownKey {
        /// The key.
        key: String,
        /// Who said it.
        from: Source,
    },
    /// A value breaks its rule.
    #[error("{key} = {value:?} ({from}): {rule}")]
    BadValue {
        /// The key.
        key: String,
        /// The value as it may be shown.
        value: String,
        /// The rule.
        rule: String,
        /// Who said it.
        from: Source,
    },
    /// Two values do not go together.
    #[error("{one} and {other}: {rule}")]
    Contradiction {
        /// One of them.
        one: Box<Said>,
        /// The other.
        other: Box<Said>,
        /// The rule between them.
        rule: String,
    },
    /// A value that ev-node takes and we do not yet.
    #[error("{key} = {value:?} ({from}) is not supported yet: {why}")]
    NotSupported {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// Who said it.
        from: Source,
        /// Why.
        why: &'static str,
    },
    /// A value that a start needs is not given.
    #[error("{key} is not set: {rule}")]
    NotSet {
        /// The key.
        key: &'static str,
        /// The rule.
        rule: &'static str,
    },
}

impl Config {
    /// Reads `<home>/config/evnode.yaml`, the environment and the flags, and checks everything
    /// that can be checked without opening anything else.
    ///
    /// # Errors
    ///
    /// `ConfigError` naming key, value, rule and source.
    pub fn load(home: &Path, flags: &Flags, env: &Env) -> Result<(Self, Vec<Warning>), ConfigError> {
        let settings = Settings::gather(Some(&config_file(home)), flags, env)?;
        rules::build(home, settings)
    }

    /// As `load`, with another home's file.
    ///
    /// # Errors
    ///
    /// `ConfigError` naming key, value, rule and source.
    pub fn load_file(
        file: &Path,
        home: &Path,
        flags: &Flags,
        env: &Env,
    ) -> Result<(Self, Vec<Warning>), ConfigError> {
        rules::build(home, Settings::gather(Some(file), flags, env)?)
    }

    /// What a new home gets: environment and flags over the defaults, without a file.
    ///
    /// # Errors
    ///
    /// `ConfigError` naming key, value, rule and source.
    pub fn without_file(home: &Path, flags: &Flags, env: &Env) -> Result<(Self, Vec<Warning>), ConfigError> {
        rules::build(home, Settings::gather(None, flags, env)?)
    }

    /// Checks what only a start needs: where DA is, which namespace, which passphrase. A witness
    /// needs none of it, a node that follows no passphrase.
    ///
    /// # Errors
    ///
    /// `ConfigError::NotSet` naming the key.
    pub fn check_start(&self) -> Result<(), ConfigError> {
        let not_set = |key, rule| Err(ConfigError::NotSet { key, rule });
        if self.raft.witness {
            return Ok(());
        }
        if !self.node.aggregator {
            if self.da.address.is_empty() && self.p2p.peers.is_empty() {
                return not_set(
                    "da.address",
                    "a node that follows a chain needs a DA node or p2p.peers to get it from",
                );
            }
            if self.da.namespace.is_empty() && !self.da.address.is_empty() {
                return not_set("da.namespace", "it must be that of the chain that is followed");
            }
            return Ok(());
        }
        if self.da.address.is_empty() {
            return not_set("da.address", "a node that produces blocks needs a DA node to publish them to");
        }
        if self.da.namespace.is_empty() {
            return not_set(
                "da.namespace",
                "it must be the same on every node of the chain, so there is no default",
            );
        }
        if self.passphrase_file.is_none() {
            return not_set("signer.passphrase_file", "a node that produces blocks needs its key");
        }
        Ok(())
    }
}

/// Where the configuration of a home is.
#[must_use]
pub fn config_file(home: &Path) -> PathBuf {
    home.join("config").join("evnode.yaml")
}
