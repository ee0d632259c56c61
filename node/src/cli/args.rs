//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::cli::cluster::{ClusterArgs, HandOffArgs, PauseArgs, Running, StopArgs};
use crate::cli::force::ForceArgs;
use crate::cli::net_info::NetInfoArgs;
use crate::config::Flags;
use crate::dev_da::DevDaConfig;
use crate::{devnet, load};

/// A highly available sequencer node.
#[derive(Clone, Debug, Parser)]
#[command(name = "baton", version = crate::cli::version(), arg_required_else_help = true)]
pub struct Cli {
    /// The home directory, before the command instead of after it.
    #[arg(long = "home", id = "home_before", value_name = "DIR", hide = true)]
    pub home: Option<PathBuf>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Where the node is, and its settings.
#[derive(Clone, Debug, Args)]
pub struct NodeArgs {
    /// The home directory [env: BATON_HOME] [default: ~/.baton].
    #[arg(long, value_name = "DIR")]
    pub home: Option<PathBuf>,

    /// Settings.
    #[command(flatten)]
    pub flags: Flags,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Make a home: configuration, keys, genesis, guard and store, a cluster of one.
    Init(Box<InitArgs>),
    /// Go on with the chain of a single ev-node sequencer: make a home from its home that follows
    /// the chain, and take the chain over once that sequencer has stopped.
    Import(Box<ImportArgs>),
    /// Run the node.
    #[command(aliases = ["node", "run"])]
    Start(Box<NodeArgs>),
    /// Give leadership to another voter without missing a block.
    Handoff(HandOffArgs),
    /// Stop a running node, unless the chain would stop without it.
    Stop(StopArgs),
    /// Stop producing blocks, whoever leads, until `resume`.
    Pause(PauseArgs),
    /// Produce blocks again.
    Resume(Running),
    /// Show the peer-to-peer network as a running node sees it.
    NetInfo(Box<NetInfoArgs>),
    /// Put transactions on DA, where no sequencer can leave them out.
    Force(Box<ForceArgs>),
    /// Look at the cluster of a running node, and change its membership.
    Cluster(ClusterArgs),
    /// Run a dev DA server that speaks Celestia's JSON-RPC.
    Da(DaArgs),
    /// Start a dev DA server and nodes as child processes.
    Devnet(devnet::Args),
    /// Post transactions and measure.
    Load(load::Args),
    /// Print the version.
    Version,
    /// Look at, export and import keys, and look at and set the double-sign guard.
    Keys(KeysArgs),
    /// Show, check and document the configuration.
    Config(ConfigArgs),
    /// Look at the store of a stopped node, or fill it for tests.
    Store(StoreArgs),
    /// Make certificates for a cluster: an authority, and one for each node.
    Tls(TlsArgs),
    /// Take the engine of a stopped node back; the next start replays the blocks.
    Rollback(Box<RollbackArgs>),
    /// Remove the store of a stopped node. The guard stays.
    UnsafeClean(Box<CleanArgs>),
    /// Print a script that completes commands in a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// Arguments of `init`.
#[derive(Clone, Debug, Args)]
pub struct InitArgs {
    /// The name of a new chain.
    #[arg(long = "chain_id", alias = "chain-id", value_name = "NAME")]
    pub chain_id: Option<String>,

    /// Make a member of a cluster of several: with the genesis and the key of the chain, and a
    /// store that never forms a cluster by itself.
    #[arg(long)]
    pub member: bool,

    /// Take the genesis from this file.
    #[arg(long, value_name = "FILE")]
    pub genesis: Option<PathBuf>,

    /// Take the key (`signer.json`) from this directory, a home or a `config` in it. The
    /// double-sign guard is never taken along: each machine has its own.
    #[arg(long, value_name = "DIR")]
    pub signer_from: Option<PathBuf>,

    /// Derive the key of `signer.json` without effort. It protects nothing: for tests.
    #[arg(long, hide = true)]
    pub insecure_fast_kdf: bool,

    /// Where, and settings for the new configuration.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// Arguments of `import`.
#[derive(Clone, Debug, Args)]
pub struct ImportArgs {
    /// The home of the old sequencer. Nothing of it is changed.
    #[arg(long, value_name = "EVNODE_HOME")]
    pub from: Option<PathBuf>,

    /// Take the chain over. The old sequencer must have stopped for good.
    #[arg(long, requires = "at")]
    pub finish: bool,

    /// The height of the old sequencer's last block.
    #[arg(long, value_name = "HEIGHT", requires = "finish")]
    pub at: Option<u64>,

    /// The header hash of that block, to be compared.
    #[arg(long, value_name = "HEX", requires = "finish")]
    pub hash: Option<String>,

    /// Where the old sequencer's RPC is reached [default: `rpc.address` of its configuration]. Nothing
    /// may answer there any more when the chain is taken over.
    #[arg(long, value_name = "HOST:PORT")]
    pub old_rpc: Option<String>,

    /// The old home keeps its key; it is certain that nobody starts it again.
    #[arg(long, requires = "finish")]
    pub old_key_stays: bool,

    /// Go on although the DA layer, or the old sequencer's machine, does not say whether there are later blocks.
    #[arg(long, requires = "finish")]
    pub unreachable_ok: bool,

    /// Where, and settings for the new configuration.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// Arguments of `da`.
#[derive(Clone, Debug, Args)]
pub struct DaArgs {
    /// Where it listens.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7980")]
    pub listen: SocketAddr,

    /// The directory of the block file; without one everything is forgotten at the end.
    #[arg(long, value_name = "DIR")]
    pub home: Option<PathBuf>,

    /// The time between empty blocks.
    #[arg(long, value_name = "D", default_value = "1s", value_parser = humantime::parse_duration)]
    pub block_time: Duration,

    /// The largest blob.
    #[arg(long, value_name = "BYTES", default_value_t = 7 << 20)]
    pub max_blob_size: usize,

    /// The mean delay of each request.
    #[arg(long, value_name = "D", default_value = "0s", value_parser = humantime::parse_duration)]
    pub latency: Duration,

    /// The share of requests that fail, from 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub error_rate: f64,

    /// Delays and failures are the same for the same seed and order of requests.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
}

impl From<DaArgs> for DevDaConfig {
    fn from(args: DaArgs) -> Self {
        let DaArgs { listen, home, block_time, max_blob_size, latency, error_rate, seed } = args;
        Self { listen, home, block_time, max_blob_size, latency, error_rate, seed }
    }
}

/// Arguments of `keys`.
#[derive(Clone, Debug, Args)]
pub struct KeysArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: KeysCommand,
}

/// What to do with keys.
#[derive(Clone, Debug, Subcommand)]
pub enum KeysCommand {
    /// Print address and public key of the sequencer's key.
    Show(Box<NodeArgs>),
    /// Print the private key in hex. Put on record.
    Export(Box<NodeArgs>),
    /// Encrypt a private key in hex and put it in place. Put on record.
    Import {
        /// A file that only its owner can read; `-` is stdin.
        file: PathBuf,
        /// Replace a key that is there.
        #[arg(long)]
        force: bool,
        /// Where.
        #[command(flatten)]
        node: Box<NodeArgs>,
    },
    /// Print what the double-sign guard holds.
    Guard(Box<NodeArgs>),
    /// Set the guard of a stopped node from its store, after it was lost or damaged.
    GuardFromCommitted {
        /// Do it, having read what it means.
        #[arg(long)]
        yes: bool,
        /// Where.
        #[command(flatten)]
        node: Box<NodeArgs>,
    },
}

/// Arguments of `config`.
#[derive(Clone, Debug, Args)]
pub struct ConfigArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// What to do with the configuration.
#[derive(Clone, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print every value and who said it, without secrets.
    Show(Box<NodeArgs>),
    /// Check configuration, genesis and key files as a start would, and open nothing.
    Check(Box<NodeArgs>),
    /// Print the documentation of all settings, as in docs/config.md.
    Reference,
}

/// Arguments of `store`.
#[derive(Clone, Debug, Args)]
pub struct StoreArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: StoreCommand,
}

/// What to do with the store.
#[derive(Clone, Debug, Subcommand)]
pub enum StoreCommand {
    /// Print what the store holds, as JSON.
    Inspect(Box<NodeArgs>),
    /// Fill a new store with a long valid chain, signed and executed, for tests.
    Generate(Box<GenerateArgs>),
}

/// Arguments of `store generate`.
#[derive(Clone, Debug, Args)]
pub struct GenerateArgs {
    /// How many blocks.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub blocks: u64,

    /// Transactions per block.
    #[arg(long, value_name = "M", default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub txs: u32,

    /// Bytes of a transaction, at least; shorter ones are filled up.
    #[arg(long, value_name = "B", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=65_536))]
    pub tx_bytes: u32,

    /// Where.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// Arguments of `tls`.
#[derive(Clone, Debug, Args)]
pub struct TlsArgs {
    /// What to make.
    #[command(subcommand)]
    pub command: TlsCommand,
}

/// What to make for TLS in a cluster.
#[derive(Clone, Debug, Subcommand)]
pub enum TlsCommand {
    /// Make an authority: a certificate that every node gets, and the key that signs nodes.
    Ca {
        /// The directory for ca.pem and ca.key.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// How long it is good for.
        #[arg(long, value_name = "N", default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,
    },
    /// Make a certificate and a key for one node.
    Node {
        /// The node's name, `raft.node_id`.
        name: String,
        /// The directory of the authority.
        #[arg(long, value_name = "DIR")]
        ca: PathBuf,
        /// The directory for ca.pem, node.pem and node.key.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Another name or an IP address of the node's host; may be repeated. Members know each
        /// other by the node's name alone.
        #[arg(long, value_name = "HOST")]
        address: Vec<String>,
        /// How long it is good for, at most as long as the authority.
        #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,
    },
}

/// Arguments of `rollback`.
#[derive(Clone, Debug, Args)]
pub struct RollbackArgs {
    /// The height to stand at afterwards [default: one below].
    #[arg(long, value_name = "HEIGHT")]
    pub height: Option<u64>,

    /// Where.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// Arguments of `unsafe-clean`.
#[derive(Clone, Debug, Args)]
pub struct CleanArgs {
    /// Do it, having read what it costs.
    #[arg(long)]
    pub yes: bool,

    /// Where.
    #[command(flatten)]
    pub node: NodeArgs,
}

impl KeysCommand {
    /// Changes where it works.
    #[must_use]
    pub fn map_node(mut self, change: &dyn Fn(NodeArgs) -> NodeArgs) -> Self {
        let (Self::Show(node)
        | Self::Export(node)
        | Self::Guard(node)
        | Self::Import { node, .. }
        | Self::GuardFromCommitted { node, .. }) = &mut self;
        **node = change((**node).clone());
        self
    }
}

impl ConfigCommand {
    /// Changes where it works.
    #[must_use]
    pub fn map_node(mut self, change: &dyn Fn(NodeArgs) -> NodeArgs) -> Self {
        if let Self::Show(node) | Self::Check(node) = &mut self {
            **node = change((**node).clone());
        }
        self
    }
}
