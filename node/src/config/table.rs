//! Every setting: the keys of ev-node (features section 1.5.1) and what becomes of them, and our
//! own. Parsing, flags, environment and documentation are made from this table.

use baton_messages::codec::MAX_BLOCK_BYTES;

use crate::config::key::Key;
use crate::config::value::Kind::{Bool, Bytes, Count, Duration, Fraction, List, Text};
use crate::config::value::Rule;

const NO_GO: &str = "there is no Go runtime to profile";
const NO_TRACING: &str = "spans are not exported yet";
const ONLY_FULL_NODES: &str =
    "only full nodes use it; an aggregator's readiness follows its role and its engine";
const NO_KMS: &str = "it configures a KMS signer, and only the file signer is supported yet";
const NO_PRUNING: &str = "pruning is not supported yet";

/// All keys, in the order of the documentation.
pub const KEYS: &[Key] = &[
    Key::same("db_path", Text, "data").rule(Rule::NotEmpty).doc("Directory of the store, inside the home unless absolute."),
    Key::ignored("clear_cache", Bool, "false", "there is no cache to clear: what was submitted and included is in the log")
        .doc("Forget at start what is known about DA inclusion."),
    // node
    Key::same("node.aggregator", Bool, "false")
        .doc("Produce blocks; otherwise follow a chain. `baton init` writes `true` unless told otherwise."),
    Key::unsupported("node.promotable", Bool, "false", &["false"], "proposer rotation is not supported yet")
        .doc("A full node that produces once the chain names it as proposer."),
    Key::unsupported("node.based_sequencer", Bool, "false", &["false"], "based sequencing is not supported yet")
        .doc("Take transactions only from DA."),
    Key::same("node.light", Bool, "false")
        .doc("Follow headers only, from peers and, where `da.address` is set, from DA too: no engine, no blocks, nothing final. For good: a home holds headers or blocks."),
    Key::same("node.block_time", Duration, "1s").rule(Rule::Positive).doc("Time between two blocks."),
    Key::translated(
        "node.max_pending_headers_and_data",
        Count,
        "0",
        "0 (no limit in ev-node) means 100000: everything that queues has a bound",
    )
    .doc("Most blocks that wait for DA. Beyond it, production pauses until some are included."),
    Key::same("node.lazy_mode", Bool, "false").doc("Make a block only when there are transactions or the lazy interval is over."),
    Key::same("node.lazy_block_interval", Duration, "60s")
        .rule(Rule::Positive)
        .doc("Longest time between two blocks in lazy mode; more than `node.block_time`."),
    Key::same("node.scrape_interval", Duration, "1s")
        .rule(Rule::Positive)
        .doc("Time between two looks into the pool of an engine that has one."),
    Key::own("node.max_clock_drift", Duration, "5s")
        .doc("How far this node's clock may jump ahead at once, or differ from the times of blocks. Beyond it, block times follow the clock at most twice as fast as time passes, and a metric and the log say so; `0s`: never."),
    Key::translated(
        "node.catchup_timeout",
        Duration,
        "0s",
        "no time-out makes it produce: after it the log and `/health/ready` say what it waits for, and it follows on (`docs/guides/full-node.md`)",
    )
    .doc("Above zero: a node that produces alone, and whose store belongs to no cluster yet, follows its chain from DA and peers first, and produces once it holds everything that any of them shows. For a machine that was restored with its key."),
    Key::translated("node.readiness_window_seconds", Count, "15", ONLY_FULL_NODES)
        .doc("Most seconds since the last block of a full node that is ready."),
    Key::translated("node.readiness_max_blocks_behind", Count, "15", ONLY_FULL_NODES)
        .doc("Most blocks that a full node that is ready lags behind."),
    // da
    Key::same("da.address", Text, "").rule(Rule::Url).doc("JSON-RPC endpoint of the DA node. Needed at start."),
    Key::same("da.auth_token", Text, "").secret().doc("Bearer token for the DA node. Prefer the environment to a flag."),
    Key::same("da.submit_options", Text, "").rule(Rule::Json).doc("JSON object merged into the options of each submission."),
    Key::same("da.signing_addresses", List, "")
        .doc("Accounts of the DA node that pay, used in turn; one that is refused rests. Empty: the DA node chooses."),
    Key::own("da.submits_per_account", Count, "1")
        .rule(Rule::Positive)
        .doc("Submissions that each of `da.signing_addresses` may have under way: an account numbers its transactions, and more than one at a time get out of order on most DA nodes."),
    Key::same("da.namespace", Text, "")
        .doc("Namespace of header blobs, the same on every node of a chain. `baton init` writes a random one. Needed at start."),
    Key::same("da.data_namespace", Text, "").doc("Namespace of data blobs; empty: `da.namespace`."),
    Key::same("da.forced_inclusion_namespace", Text, "")
        .doc("Namespace in which users post transactions that no sequencer can leave out, the same on every node of a chain and another than the two above; empty: nobody can."),
    Key::same("da.block_time", Duration, "6s").rule(Rule::Positive).doc("Block time of the DA layer: the unit of polling and back-off."),
    Key::ignored("da.mempool_ttl", Count, "0", "ev-node does not use it either").doc("Declared, never used."),
    Key::ignored(
        "da.max_submit_attempts",
        Count,
        "30",
        "blobs are submitted until they are included; the back-off is bounded, the attempts are not",
    )
    .doc("Attempts per round."),
    Key::same("da.request_timeout", Duration, "60s").rule(Rule::Positive).doc("Longest time for one call to the DA node."),
    Key::translated(
        "da.batching_strategy",
        Text,
        "immediate",
        "the default is `immediate`, not `time`: blobs gather anyway while a submission is on its way. At half of \
         `node.max_pending_headers_and_data` a batch goes out whatever the strategy",
    )
    .rule(Rule::OneOf(&["immediate", "size", "time", "adaptive"]))
    .doc("When headers, and when data, are posted: at once, at so many bytes, at a time after the last submission, or at either."),
    Key::same("da.batch_size_threshold", Fraction, "0.8")
        .rule(Rule::Share)
        .doc("Share of `da.max_blob_bytes` that `size` and `adaptive` wait for; 0 means 0.8."),
    Key::same("da.batch_max_delay", Duration, "0s")
        .doc("How long `time` and `adaptive` wait after the last submission; 0: `da.block_time`. A new leader posts at once."),
    Key::same("da.batch_min_items", Count, "1").doc("Fewest blobs of a batch of `size`, `time` and `adaptive`; 0 means 1."),
    Key::translated("da.start_height", Count, "0", "a node that follows begins at the highest of it, the `da_start_height` of the genesis, and where it was")
        .doc("Where to start reading DA."),
    Key::own("da.max_blob_bytes", Bytes, "5242880")
        .rule(Rule::AtLeast(131_072))
        .doc("Largest blob, and largest sum of blobs in one submission, that the DA layer takes, the same on every member. A forced transaction may have 64 KiB less, and never more than 48 MiB: larger ones are skipped."),
    Key::own("da.max_response_bytes", Bytes, "67108864")
        .rule(Rule::AtLeast(1_048_576))
        .doc("Longest answer read from the DA node."),
    // p2p
    Key::same("p2p.listen_address", Text, "/ip4/0.0.0.0/tcp/7676").rule(Rule::MultiaddrOrOff).doc("Where peers reach this node: `/ip4/<address>/tcp/<port>`. Empty: neither gossip nor exchange."),
    Key::same("p2p.peers", List, "").doc("Peers to dial, and to dial again when they are gone, as multiaddrs that end in `/p2p/<id>`."),
    Key::same("p2p.blocked_peers", List, "").doc("Peers with which nothing is exchanged, written as `p2p.peers`; only while `p2p.disable_connection_gater` is false, as in ev-node."),
    Key::same("p2p.allowed_peers", List, "").doc("Peers that are not blocked though `p2p.blocked_peers` names them, as in ev-node: others are let in all the same."),
    Key::same("p2p.disable_connection_gater", Bool, "true").doc("Do not enforce the two lists above."),
    // rpc
    Key::same("rpc.address", Text, "127.0.0.1:7331").rule(Rule::Listen).doc("Address of RPC, health, `/raft/node` and `/metrics`."),
    Key::own("rpc.advertise", Text, "").rule(Rule::ListenOrOff).doc("Where clients reach `rpc.address`, for the answers of other members that name the leader; empty: as bound, a wildcard with the host of `raft.advertise`."),
    Key::ignored("rpc.enable_da_visualization", Bool, "false", "there is no DA page yet").doc("Serve `/da`."),
    // kv
    Key::own("kv.listen", Text, "127.0.0.1:9090")
        .rule(Rule::ListenOrOff)
        .doc("Address of the key-value engine's HTTP; empty: off. Also `--kv-endpoint`, as ev-node's testapp has it."),
    Key::own("kv.advertise", Text, "").rule(Rule::ListenOrOff).doc("Where clients reach `kv.listen`, as `rpc.advertise`."),
    // engine
    Key::own("engine.kind", Text, "kv").rule(Rule::OneOf(&["kv"])).doc("The execution engine: `kv`, the embedded key-value app."),
    Key::own("engine.kv_roots", Text, "tree").rule(Rule::OneOf(&["tree", "testapp"])).doc("What the state roots of `kv` are, the same on every node of a chain: `tree`, 32 bytes whatever the size of the state, or `testapp`, as ev-node's testapp computes them, which grow with the state: for chains that ev-node's testapp began or follows."),
    Key::own("engine.kv_pool", Bool, "false").doc("`kv` keeps what is posted to this node in a pool of its own, as engines with a mempool do, and the leader's reaper brings it to the sequencer every `node.scrape_interval`. The pool is in memory, as that of ev-node's testapp: what is in no block yet is lost with the process, so `wait=accepted` is refused, and a node that does not lead takes nothing. The limits are those of `queue`."),
    Key::own("engine.call_timeout", Duration, "10s").rule(Rule::Positive).doc("How long one call to the engine may take before the node counts it as away."),
    // queue, sequencer, block
    Key::own("queue.max_txs", Count, "100000").rule(Rule::Positive).doc("Most transactions in the queue. Beyond it, submissions are answered with 429."),
    Key::own("queue.max_bytes", Bytes, "67108864").rule(Rule::Positive).doc("Most bytes in the queue. Beyond it, submissions are answered with 429."),
    Key::own("queue.max_waiting", Count, "10000").rule(Rule::Positive).doc("Most requests that wait for their transaction to be committed or executed."),
    Key::own("sequencer.replay_window", Count, "1000").rule(Rule::Positive).doc("Blocks in which a transaction sent again is recognised and not run twice."),
    Key::own("block.max_bytes", Bytes, "4194304")
        .rule(Rule::Between(1024, MAX_BLOCK_BYTES as u64))
        .doc("Most bytes of transactions in a block; at least 64 KiB less than `da.max_blob_bytes`. Members read blocks of any size that may be set here, whatever they have set."),
    // disk
    Key::own("disk.min_free", Bytes, "268435456").doc("Free space on the store's file system below which production stops, before damage."),
    // audit
    Key::own("audit.path", Text, "audit.jsonl").rule(Rule::NotEmpty).doc("The record of every signature, inside the home unless absolute."),
    Key::own("audit.events_path", Text, "audit-events.jsonl").rule(Rule::NotEmpty).doc("The record of every committed block, change of leadership or membership, command of an operator and refused handshake, inside the home unless absolute."),
    Key::own("audit.max_bytes", Bytes, "67108864").rule(Rule::AtLeast(65_536)).doc("Size at which a record is put aside as `.1`, `.2` and so on, and begun anew."),
    Key::own("audit.keep", Count, "8").rule(Rule::Positive).doc("Most files of each record that are kept put aside; the oldest is removed."),
    // instrumentation
    Key::translated(
        "instrumentation.prometheus",
        Bool,
        "false",
        "`/metrics` is always served at `rpc.address`; `true` serves it at `instrumentation.prometheus_listen_addr` too",
    )
    .doc("Serve metrics."),
    Key::same("instrumentation.prometheus_listen_addr", Text, ":26660").rule(Rule::Listen).doc("Address of metrics."),
    Key::same("instrumentation.max_open_connections", Count, "3").rule(Rule::Positive).doc("Most scrapes at a time at that address."),
    Key::same("instrumentation.namespace", Text, "evnode").rule(Rule::NotEmpty).doc("First part of the names of metrics that ev-node has too."),
    Key::ignored("instrumentation.pprof", Bool, "false", NO_GO).doc("Serve profiles."),
    Key::ignored("instrumentation.pprof_listen_addr", Text, ":6060", NO_GO).doc("Address of profiles."),
    Key::ignored("instrumentation.tracing", Bool, "false", NO_TRACING).doc("Export spans."),
    Key::ignored("instrumentation.tracing_endpoint", Text, "localhost:4318", NO_TRACING).doc("Where spans go."),
    Key::ignored("instrumentation.tracing_service_name", Text, "ev-node", NO_TRACING).doc("The service in spans."),
    Key::ignored("instrumentation.tracing_sample_rate", Fraction, "0.1", NO_TRACING).rule(Rule::Share).doc("Share of spans."),
    // log
    Key::translated("log.level", Text, "info", "`fatal` and `panic` mean `error`, `disabled` means `off`; directives like `info,openraft=warn` are taken too")
        .rule(Rule::LogLevel)
        .doc("What is logged to stderr."),
    Key::same("log.format", Text, "text").rule(Rule::OneOf(&["text", "json"])).doc("`text` or `json`."),
    Key::ignored("log.trace", Bool, "false", "ev-node's logger ignores it too").doc("Stack traces in logs."),
    Key::own("log.filter", Text, "").rule(Rule::LogFilter).doc("Directives per module, after those of `log.level`: `openraft=warn,baton::rpc=debug`."),
    // signer
    Key::unsupported("signer.signer_type", Text, "file", &["file"], "only the file signer is supported yet").doc("`file` or `kms`."),
    Key::same("signer.signer_path", Text, "config").rule(Rule::NotEmpty).doc("Directory of `signer.json` and of the double-sign guard, inside the home unless absolute."),
    Key::same("signer.passphrase_file", Text, "").doc("File with the passphrase of `signer.json`, readable by its owner only; `-` is stdin. Needed at start."),
    Key::ignored("signer.kms.provider", Text, "", NO_KMS).doc("`aws` or `gcp`."),
    Key::ignored("signer.kms.aws.key_id", Text, "", NO_KMS).doc("AWS key."),
    Key::ignored("signer.kms.aws.region", Text, "", NO_KMS).doc("AWS region."),
    Key::ignored("signer.kms.aws.profile", Text, "", NO_KMS).doc("AWS profile."),
    Key::ignored("signer.kms.aws.timeout", Duration, "10s", NO_KMS).doc("Longest time for one call."),
    Key::ignored("signer.kms.aws.max_retries", Count, "3", NO_KMS).doc("Retries of one call."),
    Key::ignored("signer.kms.gcp.key_name", Text, "", NO_KMS).doc("GCP key version."),
    Key::ignored("signer.kms.gcp.credentials_file", Text, "", NO_KMS).doc("GCP credentials."),
    Key::ignored("signer.kms.gcp.timeout", Duration, "10s", NO_KMS).doc("Longest time for one call."),
    Key::ignored("signer.kms.gcp.max_retries", Count, "3", NO_KMS).doc("Retries of one call."),
    // raft
    Key::translated("raft.enable", Bool, "false", "Raft always runs: a single node is a cluster of one voter. `true` opens `raft.raft_addr` to the other members")
        .doc("Be a member of a cluster of several. `raft.join` and `raft.witness` imply it."),
    Key::same("raft.node_id", Text, "").doc("The node's name in the cluster, unique there and the name in its certificate; empty: `baton`."),
    Key::translated("raft.raft_addr", Text, "", "a wildcard (`0.0.0.0`, `[::]`, `:5001`) may be bound, which ev-node refuses: then `raft.advertise` says what the others dial")
        .rule(Rule::ListenOrOff)
        .doc("Address of the cluster transport. Needed with `raft.peers`, `raft.join` and `raft.witness`; without it nobody can be added to this node."),
    Key::own("raft.advertise", Text, "").rule(Rule::ListenOrOff).doc("Address under which the other members reach `raft.raft_addr`; empty: `raft.raft_addr`."),
    Key::ignored("raft.raft_dir", Text, "", "the log is in the node's store, under `db_path`").when("raft.enable").doc("Directory of Raft's files."),
    Key::ignored("raft.bootstrap", Bool, "false", "`baton init` bootstraps; ev-node ignores it too").when("raft.enable").doc("Form a cluster."),
    Key::translated(
        "raft.peers",
        List,
        "",
        "with or without this node itself; used once, by a node that belongs to no cluster: it asks all of them, joins the cluster of whoever \
         has one, and otherwise forms one with them when all are there and none has",
    )
    .doc("The first members, `id@host:port`. Says nothing while `raft.enable` is `false`."),
    Key::own("raft.dial", List, "").doc("Where this node dials members, `id@host:port`, instead of where the membership has them: for a site that sees the others under addresses of its own."),
    Key::own("raft.join", List, "").doc("Members of a cluster to join as a learner, `host:port`. Used once, by a node that belongs to no cluster. Also `--join`."),
    Key::own("raft.witness", Bool, "false").doc("Vote and keep the log, without engine, key and DA: for a site with two machines. Also `--witness`."),
    Key::ignored("raft.snap_count", Count, "3", "a snapshot is the head of the store, not a file; there is nothing to keep several of")
        .when("raft.enable")
        .doc("Snapshots to keep."),
    Key::ignored("raft.send_timeout", Duration, "200ms", "in ev-node it bounds only how long a proposal may wait to be queued; here one proposal is in flight")
        .when("raft.enable")
        .doc("Longest wait to queue a proposal."),
    Key::translated(
        "raft.heartbeat_timeout",
        Duration,
        "250ms",
        "`raft.election_timeout_max` = this, `raft.election_timeout_min` = 3/5 of it, `raft.heartbeat_interval` = 1/5 of it, where those are not set",
    )
    .rule(Rule::Positive)
    .doc("How long a follower waits for the leader (default of ev-node: `350ms`)."),
    Key::ignored("raft.leader_lease_timeout", Duration, "175ms", "the leader's lease is `raft.election_timeout_max`").when("raft.enable").doc("How long a leader leads without a quorum."),
    Key::ignored("raft.election_timeout", Duration, "1000ms", "a candidate waits as long as a follower").when("raft.enable").doc("How long a candidate waits for votes."),
    Key::translated("raft.snapshot_threshold", Count, "500", "0 means 8192, as in ev-node's Raft library").doc("Log entries after which a snapshot is taken."),
    Key::translated("raft.trailing_logs", Count, "200", "0 means 10240, as in ev-node's Raft library").doc("Log entries kept after a snapshot."),
    Key::own("raft.heartbeat_interval", Duration, "0s").doc("Time between two heartbeats; 0: from `raft.heartbeat_timeout`."),
    Key::own("raft.election_timeout_min", Duration, "0s").doc("Shortest election time-out, more than the heartbeat interval; 0: from `raft.heartbeat_timeout`."),
    Key::own("raft.election_timeout_max", Duration, "0s").doc("Longest election time-out and the leader's lease, more than the shortest and more than 3 heartbeat intervals; 0: from `raft.heartbeat_timeout`."),
    // raft.tls
    Key::own("raft.tls.ca", Text, "").doc("Certificates of the authorities that sign nodes of the cluster, a PEM file inside the home unless absolute. Read again when it changes, as the two below."),
    Key::own("raft.tls.cert", Text, "").doc("This node's certificate, with `raft.node_id` among its DNS names."),
    Key::own("raft.tls.key", Text, "").doc("The key of that certificate; a file that only its owner can read."),
    Key::own("raft.tls.insecure_loopback", Bool, "false").doc("Speak to other members without TLS. Refused when any address of the cluster is not a loopback address."),
    // pruning
    Key::unsupported("pruning.pruning_mode", Text, "disabled", &["disabled"], NO_PRUNING).doc("`disabled`, `all` or `metadata`."),
    Key::ignored("pruning.pruning_keep_recent", Count, "100000", NO_PRUNING).doc("Blocks to keep."),
    Key::ignored("pruning.pruning_interval", Duration, "15m", NO_PRUNING).doc("Time between two rounds."),
];

/// The key with this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Whether some key lies below this path.
#[must_use]
pub fn is_section(path: &str) -> bool {
    KEYS.iter().any(|key| key.name.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::key::Treatment;

    #[test]
    fn every_default_keeps_its_own_rule() {
        for key in KEYS {
            assert!(key.read(key.default).is_ok(), "{}", key.name);
            assert!(!key.doc.is_empty() && key.doc.ends_with('.'), "{}", key.name);
            assert!(key.when.is_none_or(|other| find(other).is_some()), "{}", key.name);
        }
    }

    #[test]
    fn no_two_keys_share_a_name_or_a_variable() {
        let names: BTreeSet<_> = KEYS.iter().map(|key| key.name).collect();
        let variables: BTreeSet<_> = KEYS.iter().map(Key::env).collect();
        assert_eq!((names.len(), variables.len()), (KEYS.len(), KEYS.len()));
    }

    #[test]
    fn every_key_of_ev_node_has_a_treatment_and_we_invented_none() {
        let list = include_str!("../../tests/evnode-keys.txt");
        let listed = list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let listed: BTreeSet<_> = listed.collect();
        let treated: BTreeSet<_> = KEYS.iter().filter(|key| key.is_evnode()).map(|key| key.name).collect();
        assert_eq!(listed.difference(&treated).collect::<Vec<_>>(), Vec::<&&str>::new(), "have no treatment");
        assert_eq!(treated.difference(&listed).collect::<Vec<_>>(), Vec::<&&str>::new(), "are not ev-node's");
        assert!(listed.len() > 70);
    }

    #[test]
    fn what_is_accepted_can_be_read() {
        for key in KEYS {
            if let Treatment::Unsupported(accepted, _) = key.treatment {
                assert!(accepted.iter().all(|text| key.read(text).is_ok()), "{}", key.name);
            }
        }
    }
}
