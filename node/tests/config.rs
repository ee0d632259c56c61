//! The configuration: ev-node's files as they are, precedence, and what is refused.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use baton::config::table::{KEYS, find};
use baton::config::{Config, ConfigError, Env, First, Flags, Warning, config_file};
use baton_actors::da_submitter::batching::Strategy;
use baton_messages::genesis::Genesis;

const EVNODE: &str = include_str!("data/evnode.yaml");

struct Home(tempfile::TempDir);

impl Home {
    fn with(yaml: &str) -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir(home.path().join("config")).unwrap();
        std::fs::write(home.file(), yaml).unwrap();
        home
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn file(&self) -> PathBuf {
        config_file(self.path())
    }

    fn load(
        &self,
        flags: &[(&'static str, &str)],
        env: &[(&str, &str)],
    ) -> Result<(Config, Vec<Warning>), ConfigError> {
        let flags = Flags(flags.iter().map(|(key, value)| (*key, (*value).to_owned())).collect());
        let env = Env(env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect());
        Config::load(self.path(), &flags, &env)
    }

    fn refusal(&self, flags: &[(&'static str, &str)]) -> String {
        self.load(flags, &[]).unwrap_err().to_string()
    }
}

fn aggregator() -> Home {
    Home::with("node:\n  aggregator: true\n")
}

#[test]
fn a_file_of_ev_node_loads_as_it_is() {
    let (config, warnings) = Home::with(EVNODE).load(&[], &[]).unwrap();
    assert_eq!(config.node.block_time, Duration::from_secs(1));
    assert_eq!(config.node.lazy_block_interval, Duration::from_secs(60));
    assert_eq!(config.node.max_pending, 100_000);
    assert_eq!(config.da.address, "http://localhost:7980");
    assert_eq!((&*config.da.namespace, &*config.da.data_namespace), ("kE3vB9xQzL", "kE3vB9xQzL"));
    assert_eq!(config.rpc.address, "127.0.0.1:7331");
    assert!(config.metrics.is_none());
    assert_eq!((config.da.batching.strategy, config.da.batching.min_items), (Strategy::Time, 1));
    assert_eq!(config.da.batching.max_delay, config.da.block_time, "zero is ev-node's word for that");
    assert_eq!((config.da.batching.enough_bytes, config.da.batching.most_waiting), (4_194_304, 50_000));
    assert!(warnings.is_empty(), "its own defaults mean here what they mean there: {warnings:?}");
}

#[test]
fn the_file_of_ev_node_has_every_key_that_is_not_flag_only() {
    let yaml: serde_yaml_ng::Value = serde_yaml_ng::from_str(EVNODE).unwrap();
    let flag_only = ["clear_cache", "da.start_height", "signer.passphrase_file"];
    for key in KEYS.iter().filter(|key| key.is_evnode() && !flag_only.contains(&key.name)) {
        let found = key.name.split('.').try_fold(&yaml, |at, part| at.get(part));
        assert!(found.is_some(), "{}", key.name);
    }
}

#[test]
fn a_genesis_of_ev_node_loads_as_it_is() {
    let genesis = Genesis::from_json(include_str!("data/genesis.json")).unwrap();
    assert_eq!(genesis.chain_id, "ev-test");
    assert_eq!(genesis.start_time.0 % 1_000_000_000, 123_456_789);
    assert_eq!(genesis.proposer_address.len(), 32);
}

#[test]
fn flags_win_over_environment_over_file_over_default() {
    let home = Home::with("node:\n  aggregator: true\n  block_time: 2s\n");
    let env = [("BATON_NODE_BLOCK_TIME", "3s")];
    let time = |flags: &[(&'static str, &str)], env: &[(&str, &str)]| {
        home.load(flags, env).unwrap().0.node.block_time
    };
    assert_eq!(time(&[("node.block_time", "4s")], &env), Duration::from_secs(4));
    assert_eq!(time(&[], &env), Duration::from_secs(3));
    assert_eq!(time(&[], &[]), Duration::from_secs(2));
    assert_eq!(aggregator().load(&[], &[]).unwrap().0.node.block_time, Duration::from_secs(1));
}

#[test]
fn a_refusal_names_key_value_rule_and_source() {
    let home = Home::with("node:\n  aggregator: true\n\n  block_time: soon\n");
    let said = home.refusal(&[]);
    for part in ["node.block_time", "\"soon\"", "evnode.yaml:4", "duration like"] {
        assert!(said.contains(part), "{said}");
    }
    let said = aggregator().refusal(&[("node.block_time", "0")]);
    assert!(said.contains("flag --node.block_time") && said.contains("more than zero"), "{said}");
    let said = aggregator().load(&[], &[("BATON_RPC_ADDRESS", "x")]).unwrap_err().to_string();
    assert!(said.contains("environment variable BATON_RPC_ADDRESS") && said.contains("host:port"), "{said}");
}

#[test]
fn a_bad_value_is_refused_also_when_another_source_overrides_it() {
    let home = Home::with("node:\n  aggregator: true\n  block_time: soon\n");
    assert!(home.load(&[("node.block_time", "1s")], &[]).is_err());
}

#[test]
fn certificates_are_set_together_or_not_at_all() {
    let tls = |keys: &[(&'static str, &str)]| aggregator().load(keys, &[]);
    let (ca, cert, key) = ("raft.tls.ca", "raft.tls.cert", "raft.tls.key");
    let home = aggregator();
    let (config, _) =
        home.load(&[(ca, "config/ca.pem"), (cert, "/etc/n1.pem"), (key, "n1.key")], &[]).unwrap();
    let files = config.raft.tls.files().unwrap().unwrap();
    assert_eq!(files.ca, home.path().join("config/ca.pem"));
    assert_eq!(files.cert, Path::new("/etc/n1.pem"));
    let said = tls(&[(ca, "a"), (key, "b")]).unwrap_err().to_string();
    assert!(said.contains("raft.tls.cert is not set"), "{said}");
    let both = [(ca, "a"), (cert, "b"), (key, "c"), ("raft.tls.insecure_loopback", "true")];
    let said = tls(&both).unwrap_err().to_string();
    assert!(said.contains("raft.tls.insecure_loopback") && said.contains("exclude each other"), "{said}");
    assert!(tls(&[]).unwrap().0.raft.tls.files().unwrap().is_none());
}

#[test]
fn unknown_keys_are_refused_wherever_they_are() {
    let typo = Home::with("node:\n  aggregator: true\n  blocktime: 1s\n");
    let said = typo.refusal(&[]);
    assert!(said.contains("node.blocktime") && said.contains("evnode.yaml:3"), "{said}");
    assert!(Home::with("nodes: 1\n").refusal(&[]).contains("unknown key nodes"));
    let said = aggregator().load(&[], &[("BATON_NODE_BLOCKTIME", "1s")]).unwrap_err().to_string();
    assert!(said.contains("BATON_NODE_BLOCKTIME"), "{said}");
    assert!(aggregator().load(&[], &[("BATON_DA_SERVICE_HOST", "10.0.0.1")]).is_ok());
}

#[test]
fn what_is_no_configuration_is_refused_and_says_where() {
    for (yaml, said) in [
        ("node: [", "is not YAML"),
        ("node:\n  aggregator: true\nnode:\n  light: false\n", "duplicate"),
        ("- a\n", "must hold keys and values"),
        ("node: 7\n", "must hold keys and values"),
        ("node:\n  block_time: [1s]\n", "must be a single value"),
        ("raft:\n  node_id: 1.50\n", "must be in quotes"),
        ("1: 2\n", "unknown key 1"),
        ("\u{0}", "is not YAML"),
    ] {
        let error = Home::with(yaml).refusal(&[]);
        assert!(error.contains(said) && error.contains("evnode.yaml"), "{yaml:?}: {error}");
    }
    let home = aggregator();
    std::fs::remove_file(home.file()).unwrap();
    assert!(home.refusal(&[]).contains("baton init"));
    std::fs::create_dir(home.file()).unwrap();
    assert!(home.refusal(&[]).contains("must be a file"));
}

#[test]
fn an_empty_value_means_that_nothing_was_said() {
    let home = Home::with("node:\n  aggregator: true\n  block_time:\nda:\n");
    assert_eq!(home.load(&[], &[]).unwrap().0.node.block_time, Duration::from_secs(1));
}

#[test]
fn what_is_not_supported_yet_is_refused() {
    for (key, value) in [
        ("node.promotable", "true"),
        ("node.based_sequencer", "true"),
        ("signer.signer_type", "kms"),
        ("pruning.pruning_mode", "all"),
    ] {
        let said = aggregator().refusal(&[(key, value)]);
        assert!(said.contains(key) && said.contains("not supported yet"), "{said}");
    }
}

#[test]
fn forced_transactions_have_a_namespace_of_their_own() {
    let forced = [("da.namespace", "n"), ("da.forced_inclusion_namespace", "forced")];
    let (config, warnings) = aggregator().load(&forced, &[]).unwrap();
    assert_eq!((config.da.forced_namespace.as_deref(), warnings.len()), (Some("forced"), 0));
    assert_eq!(aggregator().load(&[], &[]).unwrap().0.da.forced_namespace, None);
    for other in ["da.namespace", "da.data_namespace"] {
        let said = aggregator().refusal(&[
            ("da.namespace", "n"),
            (other, "same"),
            ("da.forced_inclusion_namespace", "same"),
        ]);
        assert!(said.contains("da.forced_inclusion_namespace") && said.contains(other), "{said}");
    }
}

#[test]
fn a_node_that_does_not_produce_follows_and_is_no_member_of_a_cluster() {
    let (config, warnings) = Home::with("").load(&[], &[]).unwrap();
    assert!(!config.node.aggregator && warnings.is_empty());
    assert!(config.check_start().unwrap_err().to_string().contains("da.address"));
    let da = [("da.address", "http://127.0.0.1:1"), ("da.namespace", "n")];
    let (config, _) = Home::with("").load(&da, &[]).unwrap();
    assert_eq!((config.check_start(), config.node.mode()), (Ok(()), "da"));
    for (key, value) in [("raft.enable", "true"), ("raft.witness", "true"), ("node.catchup_timeout", "1s")] {
        let said = Home::with("").refusal(&[(key, value), ("raft.raft_addr", "127.0.0.1:1")]);
        assert!(said.contains(key) && said.contains("node.aggregator"), "{said}");
    }
}

#[test]
fn a_light_node_needs_peers_or_da_has_no_app_and_produces_nothing() {
    let light = ("node.light", "true");
    let (config, warnings) = Home::with("").load(&[light], &[]).unwrap();
    assert_eq!((config.node.mode(), warnings.len(), config.kv.listen.as_ref()), ("light", 0, None));
    assert!(config.check_start().unwrap_err().to_string().contains("p2p.peers"));
    let peer =
        ("p2p.peers", "/ip4/10.0.0.1/tcp/7676/p2p/12D3KooWEgvA1RN4LTLYkoUKHfpuzGWZ4ymBpZLjBTj4TeQ1Lqbr");
    let da = [("da.address", "http://127.0.0.1:1"), ("da.namespace", "n")];
    for place in [&[peer][..], &da, &[peer, da[0], da[1]]] {
        let (config, _) = Home::with("").load(&[&[light], place].concat(), &[]).unwrap();
        assert_eq!((config.check_start(), config.node.mode()), (Ok(()), "light"), "{place:?}");
    }
    let said = aggregator().refusal(&[light]);
    assert!(said.contains("node.light") && said.contains("node.aggregator"), "{said}");
    for other in ["raft.enable", "raft.witness"] {
        let said = Home::with("").refusal(&[light, (other, "true"), ("raft.raft_addr", "127.0.0.1:1")]);
        assert!(said.contains(other) && said.contains("node.aggregator"), "{said}");
    }
}

#[test]
fn the_raft_settings_of_ev_node_make_a_member_and_say_nothing_while_raft_is_off() {
    let ev_node = [
        ("raft.enable", "true"),
        ("raft.node_id", "node1"),
        ("raft.raft_addr", "10.0.0.1:5001"),
        ("raft.peers", "node2@10.0.0.2:5001,node3@10.0.0.3:5001"),
        ("raft.tls.ca", "ca.pem"),
        ("raft.tls.cert", "node.pem"),
        ("raft.tls.key", "node.key"),
    ];
    let (config, warnings) = aggregator().load(&ev_node, &[]).unwrap();
    assert_eq!(warnings, []);
    let cluster = config.raft.cluster.unwrap();
    assert_eq!((&*cluster.listen, &*cluster.advertise), ("10.0.0.1:5001", "10.0.0.1:5001"));
    let First::Peers(peers) = cluster.first else { panic!("the list was lost") };
    assert_eq!(peers.iter().map(|peer| &*peer.name).collect::<Vec<_>>(), ["node1", "node2", "node3"]);

    let (config, warnings) = aggregator().load(&ev_node[1..], &[]).unwrap();
    assert_eq!((config.raft.cluster, warnings), (None, vec![]));
}

#[test]
fn every_ignored_key_warns_when_it_is_changed() {
    use baton::config::key::Treatment;
    use baton::config::value::Kind;
    for key in KEYS.iter().filter(|key| matches!(key.treatment, Treatment::Ignored(_))) {
        let changed = match key.kind {
            Kind::Bool => "true",
            Kind::Duration => "7s",
            Kind::Count | Kind::Bytes => "7",
            Kind::Fraction => "0.7",
            Kind::Text | Kind::List if key.name == "da.batching_strategy" => "size",
            Kind::Text | Kind::List => "else",
        };
        let mut flags = vec![(key.name, changed)];
        flags.extend(key.when.map(|other| (other, "true")));
        let (_, warnings) = aggregator().load(&flags, &[]).unwrap();
        assert!(warnings.iter().any(|warning| warning.said.key == key.name), "{}", key.name);
    }
    assert_eq!(aggregator().load(&[], &[]).unwrap().1, []);
}

#[test]
fn peers_are_addresses_that_end_in_an_id() {
    const ID: &str = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5";
    let two = format!("/ip4/1.2.3.4/tcp/1/p2p/{ID}, /dns4/a.example/tcp/2/p2p/{ID}");
    let (config, warnings) = aggregator().load(&[("p2p.peers", &two)], &[]).unwrap();
    assert_eq!(warnings, []);
    let network = baton::p2p::Config::of(&config.p2p).unwrap().expect("it is on");
    assert_eq!(network.peers.len(), 2);
    for wrong in ["x", "/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.4/tcp/1/p2p/x"] {
        let (config, _) = aggregator().load(&[("p2p.peers", wrong)], &[]).unwrap();
        let error = baton::p2p::Config::of(&config.p2p).unwrap_err().to_string();
        assert!(error.contains("p2p.peers") && error.contains(wrong), "{error}");
    }
}

#[test]
fn an_empty_listen_address_turns_the_network_off() {
    let (config, _) = aggregator().load(&[("p2p.listen_address", "")], &[]).unwrap();
    assert!(baton::p2p::Config::of(&config.p2p).unwrap().is_none());
}

#[test]
fn peers_are_blocked_as_in_ev_node() {
    const ONE: &str = "/ip4/1.2.3.4/tcp/1/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5";
    const OTHER: &str = "/ip4/1.2.3.4/tcp/1/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
    let both = format!("{ONE},{OTHER}");
    let blocked = |flags: &[(&'static str, &str)]| {
        let (config, _) = aggregator().load(flags, &[]).unwrap();
        baton::p2p::Config::of(&config.p2p).unwrap().expect("it is on").blocked.len()
    };
    assert_eq!(blocked(&[("p2p.blocked_peers", &both)]), 0, "the gater is off");
    let on = ("p2p.disable_connection_gater", "false");
    assert_eq!(blocked(&[("p2p.blocked_peers", &both), on]), 2);
    assert_eq!(blocked(&[("p2p.blocked_peers", &both), ("p2p.allowed_peers", ONE), on]), 1);
}

#[test]
fn election_times_follow_from_ev_nodes_and_keep_their_relations() {
    let millis = |flags: &[(&'static str, &str)]| {
        let raft = aggregator().load(flags, &[]).unwrap().0.raft;
        [raft.heartbeat_interval, raft.election_timeout_min, raft.election_timeout_max]
            .map(|time| time.as_millis())
    };
    assert_eq!(millis(&[]), [50, 150, 250]);
    assert_eq!(millis(&[("raft.heartbeat_timeout", "350ms")]), [70, 210, 350]);
    assert_eq!(millis(&[("raft.heartbeat_timeout", "150ms")]), [30, 90, 150]);
    assert_eq!(millis(&[("raft.heartbeat_interval", "70ms")]), [70, 150, 250]);
    for (key, value, said) in [
        ("raft.heartbeat_interval", "150ms", "longer than the heartbeat interval"),
        ("raft.heartbeat_interval", "90ms", "three heartbeat intervals"),
        ("raft.election_timeout_min", "250ms", "longer than the shortest"),
        ("raft.election_timeout_max", "150ms", "longer than the shortest"),
        ("raft.heartbeat_timeout", "4ms", "less than 1ms"),
    ] {
        let error = aggregator().refusal(&[(key, value)]);
        assert!(error.contains(said) && error.contains("raft."), "{error}");
    }
}

/// A lease that ends before the next heartbeat: the leader gives up although nothing is wrong.
#[test]
fn hashicorp_raft_652_a_lease_is_longer_than_three_heartbeats_or_refused() {
    let flags = |lease| [("raft.heartbeat_interval", "50ms"), ("raft.election_timeout_min", "60ms"), lease];
    let error = aggregator().refusal(&flags(("raft.election_timeout_max", "150ms")));
    assert!(error.contains("more than three heartbeat intervals"), "{error}");
    assert!(aggregator().load(&flags(("raft.election_timeout_max", "151ms")), &[]).is_ok());
}

#[test]
fn values_that_do_not_go_together_are_refused_and_both_are_named() {
    for (flags, parts) in [
        (
            &[("node.lazy_mode", "true"), ("node.lazy_block_interval", "1s")][..],
            ["node.lazy_block_interval", "node.block_time"],
        ),
        (&[("block.max_bytes", "5MiB")], ["block.max_bytes", "da.max_blob_bytes"]),
        (
            &[("block.max_bytes", "50331649"), ("da.max_blob_bytes", "64MiB")],
            ["block.max_bytes", "at most 50331648"],
        ),
        (&[("kv.listen", "127.0.0.1:7331")], ["kv.listen", "rpc.address"]),
        (
            &[("raft.enable", "true"), ("raft.raft_addr", "h:1"), ("node.catchup_timeout", "3s")],
            ["node.catchup_timeout", "raft.enable"],
        ),
        (&[("raft.enable", "true"), ("raft.raft_addr", "127.0.0.1:7331")], ["raft.raft_addr", "rpc.address"]),
    ] {
        let said = aggregator().refusal(flags);
        assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    }
}

#[test]
fn a_secret_is_in_no_error_and_no_listing() {
    let home = Home::with("node:\n  aggregator: true\nda:\n  auth_token: [hunter2]\n");
    assert!(!home.refusal(&[]).contains("hunter2"));
    let (config, _) = aggregator().load(&[("da.auth_token", "hunter2")], &[]).unwrap();
    assert_eq!(config.da.auth_token.as_ref().unwrap().reveal(), "hunter2");
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn a_start_says_what_it_needs() {
    let needs = |flags: &[(&'static str, &str)]| {
        aggregator().load(flags, &[]).unwrap().0.check_start().map_err(|error| error.to_string())
    };
    assert!(needs(&[]).unwrap_err().contains("da.address"));
    let da = ("da.address", "http://127.0.0.1:1");
    assert!(needs(&[da]).unwrap_err().contains("da.namespace"));
    assert!(needs(&[da, ("da.namespace", "n")]).unwrap_err().contains("signer.passphrase_file"));
    assert_eq!(needs(&[da, ("da.namespace", "n"), ("signer.passphrase_file", "/p")]), Ok(()));
}

#[test]
fn names_become_variables() {
    assert_eq!(find("node.block_time").unwrap().env(), "BATON_NODE_BLOCK_TIME");
    assert_eq!(find("signer.kms.aws.key_id").unwrap().env(), "BATON_SIGNER_KMS_AWS_KEY_ID");
}

#[test]
fn more_blobs_than_may_wait_are_no_batch() {
    let home = Home::with(
        "node:\n  aggregator: true\n  max_pending_headers_and_data: 10\nda:\n  batching_strategy: time\n  batch_min_items: 6\n",
    );
    let refusal = home.refusal(&[]);
    assert!(refusal.contains("da.batch_min_items") && refusal.contains("max_pending"), "{refusal}");
    assert!(home.load(&[("da.batch_min_items", "5")], &[]).is_ok());
}
