//! What settings mean together: treatments, contradictions, and the typed configuration.

use std::path::Path;
use std::time::Duration;

use baton_actors::da_submitter::batching::{Batching, Strategy};
use baton_actors::engine::kv::Roots;
use zeroize::Zeroizing;

use crate::cluster::security::{SecurityError, TlsSettings};
use crate::config::cluster::{self, advertised};
use crate::config::key::Treatment;
use crate::config::settings::{Setting, Settings};
use crate::config::{
    Audit, Config, ConfigError, Da, Engine, EngineKind, Kv, Metrics, Node, P2p, Queue, Raft, Rpc, Secret,
    Source, Warning,
};

/// Blocks that may wait for DA when nobody says how many.
const DEFAULT_BACKLOG: u64 = 100_000;

/// The most that the encoding of a block adds to a transaction.
pub const TX_FRAME: usize = 16;

/// Bytes of a blob that are not transactions.
pub(crate) const BLOB_OVERHEAD: usize = 64 << 10;

/// Applies every rule.
pub(super) fn build(home: &Path, settings: Settings) -> Result<(Config, Vec<Warning>), ConfigError> {
    let warnings = treat(&settings)?;
    cluster::check(&settings)?;
    let config = typed(home, settings);
    check(&config)?;
    Ok((config, warnings))
}

/// Refuses what is not supported and lists what has no effect.
fn treat(settings: &Settings) -> Result<Vec<Warning>, ConfigError> {
    let mut warnings = vec![];
    for setting in settings.iter() {
        let key = setting.key;
        if key.when.is_some_and(|other| !settings.bool(other)) {
            continue;
        }
        match key.treatment {
            Treatment::Unsupported(accepted, why) => {
                if !accepted.iter().any(|text| key.read(text).as_ref() == Ok(&setting.value)) {
                    return Err(ConfigError::NotSupported {
                        key: key.name,
                        value: setting.shown(),
                        from: setting.source.clone(),
                        why,
                    });
                }
            }
            Treatment::Ignored(why) if setting.value != key.default_value() => {
                warnings.push(warning(setting, why));
            }
            Treatment::Ignored(_) | Treatment::Own | Treatment::Same | Treatment::Translated(_) => {}
        }
    }
    let own = ["raft.heartbeat_interval", "raft.election_timeout_min", "raft.election_timeout_max"];
    let heartbeat_timeout = settings.get("raft.heartbeat_timeout");
    let overridden = own.iter().all(|name| !settings.duration(name).is_zero());
    if overridden && heartbeat_timeout.source != Source::Default {
        warnings.push(warning(heartbeat_timeout, "all three Raft times are set"));
    }
    Ok(warnings)
}

fn warning(setting: &Setting, why: &str) -> Warning {
    Warning { said: setting.said(), text: why.to_owned() }
}

fn typed(home: &Path, settings: Settings) -> Config {
    let s = &settings;
    let optional = |name: &str| Some(s.text(name)).filter(|text| !text.is_empty());
    let namespace = s.text("da.namespace");
    let max_block_bytes = s.size("block.max_bytes");
    let max_queue_bytes = s.size("queue.max_bytes");
    let rpc = bindable(s.text("rpc.address"));
    let without_engine = s.bool("raft.witness") || s.bool("node.light");
    let kv = optional("kv.listen").filter(|_| !without_engine).map(bindable);
    Config {
        files: s.files(home),
        node: Node {
            aggregator: s.bool("node.aggregator"),
            light: s.bool("node.light"),
            catch_up: Some(s.duration("node.catchup_timeout")).filter(|timeout| !timeout.is_zero()),
            readiness_max_behind: s.number("node.readiness_max_blocks_behind"),
            readiness_window: s.number("node.readiness_window_seconds"),
            reads_da: !s.text("da.address").is_empty(),
            asks_peers: !s.list("p2p.peers").is_empty(),
            block_time: s.duration("node.block_time"),
            max_pending: backlog(s),
            lazy_mode: s.bool("node.lazy_mode"),
            lazy_block_interval: s.duration("node.lazy_block_interval"),
            scrape_interval: s.duration("node.scrape_interval"),
            max_clock_drift: Some(s.duration("node.max_clock_drift"))
                .filter(|drift| !drift.is_zero())
                .unwrap_or(Duration::MAX),
        },
        da: Da {
            start_height: s.number("da.start_height"),
            address: s.text("da.address"),
            auth_token: optional("da.auth_token").map(|text| Secret(Zeroizing::new(text))),
            submit_options: s.text("da.submit_options"),
            signing_addresses: s.list("da.signing_addresses"),
            submits_per_account: s.size("da.submits_per_account"),
            batching: batching(s),
            forced_namespace: optional("da.forced_inclusion_namespace"),
            data_namespace: optional("da.data_namespace").unwrap_or_else(|| namespace.clone()),
            namespace,
            block_time: s.duration("da.block_time"),
            request_timeout: s.duration("da.request_timeout"),
            max_blob_bytes: s.size("da.max_blob_bytes"),
            max_response_bytes: s.size("da.max_response_bytes"),
        },
        p2p: P2p {
            listen_address: s.text("p2p.listen_address"),
            peers: s.list("p2p.peers"),
            blocked_peers: s.list("p2p.blocked_peers"),
            allowed_peers: s.list("p2p.allowed_peers"),
            disable_connection_gater: s.bool("p2p.disable_connection_gater"),
        },
        rpc: Rpc { advertise: advertised(s, "rpc.advertise", &rpc), address: rpc },
        kv: Kv {
            advertise: kv.as_ref().map(|kv| advertised(s, "kv.advertise", kv)).unwrap_or_default(),
            listen: kv,
        },
        engine: Engine {
            kind: EngineKind::Kv,
            kv_roots: roots(s),
            kv_pool: s.bool("engine.kv_pool"),
            call_timeout: s.duration("engine.call_timeout"),
        },
        queue: Queue {
            max_txs: s.size("queue.max_txs"),
            max_bytes: max_queue_bytes,
            // A transaction must fit into a block with its frame.
            max_tx_bytes: max_block_bytes.saturating_sub(TX_FRAME).min(max_queue_bytes),
            max_waiting: s.size("queue.max_waiting"),
        },
        replay_window: s.number("sequencer.replay_window"),
        max_block_bytes,
        audit: Audit {
            max_bytes: s.number("audit.max_bytes"),
            keep: u32::try_from(s.number("audit.keep")).unwrap_or(u32::MAX),
        },
        min_free_disk: s.number("disk.min_free"),
        metrics: s.bool("instrumentation.prometheus").then(|| Metrics {
            address: bindable(s.text("instrumentation.prometheus_listen_addr")),
            max_connections: s.size("instrumentation.max_open_connections"),
        }),
        metrics_namespace: s.text("instrumentation.namespace"),
        log: s.log(),
        passphrase_file: s.passphrase_file(),
        raft: raft(s, home),
        settings,
    }
}

/// A value of the table that the rule has let through.
fn roots(s: &Settings) -> Roots {
    match s.text("engine.kv_roots").as_str() {
        "testapp" => Roots::Testapp,
        _ => Roots::Tree,
    }
}

fn batching(s: &Settings) -> Batching {
    let share = match s.fraction("da.batch_size_threshold") {
        // ev-node's words for "as usual".
        share if share <= 0.0 => 0.8,
        share => share,
    };
    let delay = s.duration("da.batch_max_delay");
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    // A share of a size is a size, and close is close enough.
    let enough_bytes = (s.size("da.max_blob_bytes") as f64 * share) as usize;
    Batching {
        strategy: match s.text("da.batching_strategy").as_str() {
            "size" => Strategy::Size,
            "time" => Strategy::Time,
            "adaptive" => Strategy::Adaptive,
            _ => Strategy::Immediate,
        },
        enough_bytes,
        max_delay: if delay.is_zero() { s.duration("da.block_time") } else { delay },
        min_items: s.size("da.batch_min_items").max(1),
        most_waiting: (backlog(s) / 2).max(1),
    }
}

/// Blocks that may wait for DA before production pauses.
fn backlog(s: &Settings) -> u64 {
    or(s.number("node.max_pending_headers_and_data"), DEFAULT_BACKLOG)
}

fn raft(s: &Settings, home: &Path) -> Raft {
    let patience = s.duration("raft.heartbeat_timeout");
    let or_share = |name: &str, fifths: u32| {
        let own = s.duration(name);
        if own.is_zero() { patience * fifths / 5 } else { own }
    };
    Raft {
        node_id: s.node_id(),
        cluster: cluster::typed(s),
        witness: s.bool("raft.witness"),
        heartbeat_interval: or_share("raft.heartbeat_interval", 1),
        election_timeout_min: or_share("raft.election_timeout_min", 3),
        election_timeout_max: or_share("raft.election_timeout_max", 5),
        snapshot_threshold: or(s.number("raft.snapshot_threshold"), 8192),
        trailing_logs: or(s.number("raft.trailing_logs"), 10_240),
        tls: tls(s, home),
    }
}

fn tls(s: &Settings, home: &Path) -> TlsSettings {
    let file = |name: &str| Some(s.text(name)).filter(|text| !text.is_empty()).map(|text| home.join(text));
    TlsSettings {
        ca: file("raft.tls.ca"),
        cert: file("raft.tls.cert"),
        key: file("raft.tls.key"),
        insecure_loopback: s.bool("raft.tls.insecure_loopback"),
    }
}

fn or(number: u64, instead_of_zero: u64) -> u64 {
    if number == 0 { instead_of_zero } else { number }
}

/// Go takes `:7331` for every address of the machine.
pub(super) fn bindable(address: String) -> String {
    if address.starts_with(':') { format!("0.0.0.0{address}") } else { address }
}

/// Refuses values that do not go together.
fn check(config: &Config) -> Result<(), ConfigError> {
    let s = &config.settings;
    if config.node.lazy_mode && config.node.lazy_block_interval <= config.node.block_time {
        let rule = "in lazy mode the interval must be longer than the block time";
        return Err(contradiction(s, "node.lazy_block_interval", "node.block_time", rule));
    }
    if config.node.aggregator && config.node.light {
        let rule = "a light node follows headers, and produces nothing";
        return Err(contradiction(s, "node.light", "node.aggregator", rule));
    }
    if !config.node.aggregator && !s.duration("node.catchup_timeout").is_zero() {
        let rule = "only a node that produces catches up before it does";
        return Err(contradiction(s, "node.catchup_timeout", "node.aggregator", rule));
    }
    if config.da.batching.strategy != Strategy::Immediate
        && config.da.batching.min_items as u64 > config.da.batching.most_waiting
    {
        let rule = "at half of the blocks that may wait for DA a batch goes out anyway: fewer items, or a longer backlog";
        return Err(contradiction(s, "da.batch_min_items", "node.max_pending_headers_and_data", rule));
    }
    for other in ["da.namespace", "da.data_namespace"] {
        if config.da.forced_namespace.as_ref().is_some_and(|forced| *forced == s.text(other)) {
            let rule = "forced transactions need a namespace of their own: anybody writes there";
            return Err(contradiction(s, "da.forced_inclusion_namespace", other, rule));
        }
    }
    check_raft(config)?;
    check_tls(config)?;
    if config.max_block_bytes.saturating_add(BLOB_OVERHEAD) > config.da.max_blob_bytes {
        let rule = "a block must fit into a blob: at least 64 KiB less";
        return Err(contradiction(s, "block.max_bytes", "da.max_blob_bytes", rule));
    }
    if config.raft.cluster.is_some() && !s.duration("node.catchup_timeout").is_zero() {
        let rule = "a cluster member catches up from the log";
        return Err(contradiction(s, "node.catchup_timeout", "raft.enable", rule));
    }
    check_catch_up(config)?;
    check_addresses(config)?;
    check_security(config)
}

/// What cannot be known after catching up, or be read twice.
fn check_catch_up(config: &Config) -> Result<(), ConfigError> {
    let s = &config.settings;
    if config.node.catch_up.is_none() {
        return Ok(());
    }
    if config.da.forced_namespace.is_some() {
        let rule = "where forced inclusion stands cannot be read off a chain: everything forced would be in it twice";
        return Err(contradiction(s, "node.catchup_timeout", "da.forced_inclusion_namespace", rule));
    }
    if config.passphrase_file.as_deref() == Some(Path::new("-")) {
        let rule = "the node starts anew once it has caught up, and stdin can be read once";
        return Err(contradiction(s, "node.catchup_timeout", "signer.passphrase_file", rule));
    }
    Ok(())
}

fn check_raft(config: &Config) -> Result<(), ConfigError> {
    let raft = &config.raft;
    let (interval, min, max) =
        (raft.heartbeat_interval, raft.election_timeout_min, raft.election_timeout_max);
    let s = &config.settings;
    if min <= interval {
        let rule = format!(
            "the shortest election time-out ({min:?}) must be longer than the heartbeat interval ({interval:?})"
        );
        return Err(contradiction(s, "raft.election_timeout_min", "raft.heartbeat_interval", &rule));
    }
    if max <= min {
        let rule =
            format!("the longest election time-out ({max:?}) must be longer than the shortest ({min:?})");
        return Err(contradiction(s, "raft.election_timeout_max", "raft.election_timeout_min", &rule));
    }
    if max <= interval * 3 {
        let rule = format!(
            "the longest election time-out ({max:?}) must be more than three heartbeat intervals ({interval:?})"
        );
        return Err(contradiction(s, "raft.election_timeout_max", "raft.heartbeat_interval", &rule));
    }
    // Raft counts in whole milliseconds.
    if interval < Duration::from_millis(1) {
        let setting = s.get("raft.heartbeat_timeout");
        return Err(ConfigError::BadValue {
            key: setting.key.name.to_owned(),
            value: setting.shown(),
            rule: "leaves a heartbeat interval of less than 1ms".to_owned(),
            from: setting.source.clone(),
        });
    }
    Ok(())
}

fn check_tls(config: &Config) -> Result<(), ConfigError> {
    match config.raft.tls.files() {
        Ok(_) => Ok(()),
        Err(SecurityError::Incomplete(key)) => Err(ConfigError::NotSet {
            key,
            rule: "raft.tls.ca, raft.tls.cert and raft.tls.key are needed together",
        }),
        Err(error) => {
            let (flag, ca) = ("raft.tls.insecure_loopback", "raft.tls.ca");
            Err(contradiction(&config.settings, flag, ca, &error.to_string()))
        }
    }
}

/// A cluster is encrypted, or on one machine and says so.
fn check_security(config: &Config) -> Result<(), ConfigError> {
    let Some(cluster) = &config.raft.cluster else { return Ok(()) };
    match config.raft.tls.choose(cluster.addresses()) {
        Ok(_) => Ok(()),
        Err(error @ SecurityError::NotLoopback(_)) => {
            let (flag, address) = ("raft.tls.insecure_loopback", "raft.raft_addr");
            Err(contradiction(&config.settings, flag, address, &error.to_string()))
        }
        Err(_) => Err(ConfigError::NotSet {
            key: "raft.tls.ca",
            rule: "a cluster needs certificates: raft.tls.ca, raft.tls.cert and raft.tls.key (`baton tls ca` and `baton tls \
                   node` make them); raft.tls.insecure_loopback allows plaintext between loopback addresses",
        }),
    }
}

fn check_addresses(config: &Config) -> Result<(), ConfigError> {
    let metrics = config.metrics.as_ref().map(|metrics| metrics.address.as_str());
    let cluster = config.raft.cluster.as_ref().map(|cluster| cluster.listen.as_str());
    let all = [
        ("rpc.address", Some(config.rpc.address.as_str())),
        ("kv.listen", config.kv.listen.as_deref()),
        ("instrumentation.prometheus_listen_addr", metrics),
        ("raft.raft_addr", cluster),
    ];
    for (index, (key, address)) in all.iter().enumerate() {
        for (other, other_address) in &all[..index] {
            let same = address.is_some() && address == other_address;
            if same && !address.is_some_and(|address| address.ends_with(":0")) {
                let rule = "two servers cannot listen at one address";
                return Err(contradiction(&config.settings, key, other, rule));
            }
        }
    }
    Ok(())
}

pub(super) fn contradiction(settings: &Settings, key: &str, other: &str, rule: &str) -> ConfigError {
    let said = |key| Box::new(settings.get(key).said());
    ConfigError::Contradiction { one: said(key), other: said(other), rule: rule.to_owned() }
}
