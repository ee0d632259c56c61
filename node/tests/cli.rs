//! The binary: what each command leaves behind, says, and ends with.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use baton::genesis;
use baton::home::Home;
use baton_storage::{Completion, OpenOptions, Store};

const DA: &str = "--da.address=http://127.0.0.1:1";

fn baton(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
    command.args(args).env_clear().stdin(Stdio::null());
    command
}

/// Runs a command; returns its code, stdout, and the last line of stderr.
fn run(args: &[&str]) -> (i32, String, String) {
    told(&baton(args).output().unwrap())
}

fn told(output: &Output) -> (i32, String, String) {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(!stderr.contains("panicked"), "{stderr}");
    let last = stderr.lines().last().unwrap_or_default().to_owned();
    (output.status.code().unwrap(), String::from_utf8(output.stdout.clone()).unwrap(), last)
}

struct Node {
    dir: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let node = Self { dir };
        node.write("passphrase", "secret\n");
        node
    }

    fn made() -> Self {
        let node = Self::new();
        let (code, _, said) = node.init(&[]);
        assert_eq!(code, 0, "{said}");
        node
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn home(&self) -> Home {
        Home::new(self.dir.path().join("home"))
    }

    fn run(&self, args: &[&str]) -> (i32, String, String) {
        let home = self.home().root().display().to_string();
        run(&[args, &["--home", &home]].concat())
    }

    fn init(&self, args: &[&str]) -> (i32, String, String) {
        let passphrase = self.dir.path().join("passphrase").display().to_string();
        self.run(
            &[&["init", "--insecure-fast-kdf", "--evnode.signer.passphrase_file", &passphrase], args]
                .concat(),
        )
    }

    fn start(&self, args: &[&str]) -> (i32, String, String) {
        self.run(&[&["start", DA], args].concat())
    }

    fn open_store(&self) -> Store {
        let home = self.home();
        let genesis = genesis::load(&home.genesis()).unwrap();
        let chain_id = genesis.chain_id.clone();
        Store::open(OpenOptions { path: home.store(), chain_id, genesis, completion: Completion::Thread })
            .unwrap()
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn replace(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
fn help_and_version_are_no_errors_and_a_wrong_command_line_is_64() {
    for args in [&["--help"][..], &["--version"], &["version"], &["start", "-h"], &["init", "--help"]] {
        assert_eq!(run(args).0, 0, "{args:?}");
    }
    for args in
        [&[][..], &["jump"], &["start", "--speed"], &["rollback", "--height", "x"], &["da", "--listen", "x"]]
    {
        let (code, stdout, said) = run(args);
        assert_eq!((code, &*stdout), (64, ""), "{args:?}");
        assert!(said.starts_with("baton: "), "{said}");
    }
}

#[test]
fn force_names_what_it_needs_and_posts_nothing_without_it() {
    let node = Node::new();
    let home = node.home().root().display().to_string();
    let refused = |args: &[&str], code: i32, part: &str| {
        let (ended, stdout, said) = run(&[&["force", "--home", &home], args].concat());
        assert_eq!((ended, &*stdout), (code, ""), "{said}");
        assert!(said.contains(part), "{said}");
    };
    let namespace = "--da.forced_inclusion_namespace=forced";
    refused(&["a=1", DA], 78, "da.forced_inclusion_namespace");
    refused(&["a=1", namespace], 78, "da.address");
    refused(&[namespace, DA], 64, "required");
    refused(&["", namespace, DA], 64, "empty");
    refused(&["a=1", namespace, DA], 75, "twice");
}

#[test]
fn init_makes_a_home_that_only_its_owner_reads_and_refuses_a_second_time() {
    let node = Node::new();
    let (code, stdout, _) = node.init(&["--chain_id", "one", "--evnode.node.block_time=250ms"]);
    assert_eq!((code, stdout.trim()), (0, &*node.home().root().display().to_string()));
    let home = node.home();
    for file in [home.config(), home.genesis(), home.node_key(), home.signer(), home.guard()] {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    assert_eq!(genesis::load(&home.genesis()).unwrap().chain_id, "one");
    let yaml = fs::read_to_string(home.config()).unwrap();
    assert!(yaml.contains("block_time: 250ms") && yaml.contains("# Time between two blocks."), "{yaml}");
    let (code, _, said) = node.init(&[]);
    assert_eq!(code, 78);
    assert!(said.contains("already"), "{said}");
}

#[test]
fn an_init_that_was_cut_short_is_resumed() {
    let node = Node::made();
    let home = node.home();
    let (config, guard) = (fs::read(home.config()).unwrap(), fs::read(home.guard()).unwrap());
    let key = fs::read(home.signer()).unwrap();
    fs::remove_dir_all(home.data()).unwrap();
    fs::remove_file(home.node_key()).unwrap();
    assert_eq!(node.init(&[]).0, 0);
    assert_eq!(fs::read(home.config()).unwrap(), config);
    assert_eq!(fs::read(home.guard()).unwrap(), guard);
    assert_eq!(fs::read(home.signer()).unwrap(), key);
    assert!(home.node_key().exists() && home.store().exists());
}

#[test]
fn init_keeps_a_genesis_and_refuses_one_of_another_key() {
    let node = Node::made();
    let home = node.home();
    fs::remove_dir_all(home.data()).unwrap();
    let (code, _, said) = node.init(&["--chain_id", "other"]);
    assert_eq!(code, 78, "{said}");
    fs::write(home.genesis(), include_str!("data/genesis.json")).unwrap();
    let (code, _, said) = node.init(&[]);
    assert_eq!(code, 78);
    assert!(said.contains("proposer_address"), "{said}");
    assert!(!home.store().exists());
}

#[test]
fn init_without_a_passphrase_makes_nothing() {
    let node = Node::new();
    let (code, _, said) = node.run(&["init"]);
    assert_eq!(code, 78);
    assert!(said.contains("signer.passphrase_file"), "{said}");
    assert!(!node.home().root().exists());
}

#[test]
fn a_start_refuses_with_78_and_opens_nothing() {
    let node = Node::made();
    let home = node.home();
    let refused = |args: &[&str], part: &str| {
        let (code, _, said) = node.start(args);
        assert_eq!(code, 78, "{said}");
        assert!(said.contains(part), "{said}");
    };
    refused(&["--node.block_time", "never"], "node.block_time");
    refused(&["--evnode.node.light"], "node.light");
    refused(&["--da.address="], "da.address");
    refused(&["--signer.passphrase_file", "/nowhere"], "/nowhere");
    let wrong = node.write("wrong", "wrong\n").display().to_string();
    refused(&["--signer.passphrase_file", &wrong], "passphrase");
    fs::set_permissions(&wrong, fs::Permissions::from_mode(0o644)).unwrap();
    refused(&["--signer.passphrase_file", &wrong], "wrong");

    let genesis = fs::read(home.genesis()).unwrap();
    fs::write(home.genesis(), include_str!("data/genesis.json")).unwrap();
    refused(&[], "proposer_address");
    fs::write(home.genesis(), "{").unwrap();
    refused(&[], "genesis.json");
    fs::remove_file(home.genesis()).unwrap();
    refused(&[], "genesis.json");
    fs::write(home.genesis(), genesis).unwrap();

    fs::write(home.signer(), "{}").unwrap();
    refused(&[], "signer.json");
    fs::remove_file(home.signer()).unwrap();
    refused(&[], "signer.json");
    replace(&home.config(), "block_time: 1s", "blocktime: 1s");
    refused(&[], "blocktime");
    fs::remove_file(home.config()).unwrap();
    refused(&[], "baton init");
    assert!(node.open_store().identity().boot == 2, "a refused start has opened the store");
}

#[test]
fn config_show_names_every_source_and_hides_secrets() {
    let node = Node::made();
    let home = node.home().root().display().to_string();
    let mut command = baton(&["config", "show", "--home", &home, "--da.auth_token", "hunter2"]);
    let (code, stdout, _) = told(&command.env("BATON_DA_BLOCK_TIME", "3s").output().unwrap());
    assert_eq!(code, 0);
    assert!(!stdout.contains("hunter2"));
    let line = |key: &str| stdout.lines().find(|line| line.starts_with(key)).unwrap();
    assert!(line("da.auth_token:").ends_with("# flag --da.auth_token"));
    assert!(line("da.block_time:").contains("\"3s\" # environment variable BATON_DA_BLOCK_TIME"));
    assert!(line("node.aggregator:").contains("evnode.yaml:"));
    assert!(line("clear_cache:").ends_with("# default"));
    let (_, documented, _) = run(&["config", "reference"]);
    assert!(documented.starts_with("# Settings"));
}

#[test]
fn config_check_finds_what_a_start_would_refuse() {
    let node = Node::made();
    let (code, _, said) = node.run(&["config", "check"]);
    assert_eq!(code, 78);
    assert!(said.contains("da.address"), "{said}");
    let (code, stdout, _) = node.run(&["config", "check", DA]);
    assert_eq!(code, 0, "{stdout}");
    fs::remove_file(node.home().signer()).unwrap();
    assert_eq!(node.run(&["config", "check", DA]).0, 78);
}

#[test]
fn a_generated_chain_is_whole_and_the_engine_can_be_taken_back() {
    let node = Node::made();
    let (code, _, said) = node.run(&["store", "generate", "--blocks", "300", "--txs", "3"]);
    assert_eq!(code, 0, "{said}");
    let (code, stdout, _) = node.run(&["store", "inspect"]);
    assert_eq!(code, 0);
    let view: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&view["tip"]["height"], &view["engine_height"]), (&300.into(), &300.into()));
    assert_eq!((&view["tip"]["signed"], &view["missing"]), (&true.into(), &serde_json::Value::Null));
    let (_, guard, _) = node.run(&["keys", "guard"]);
    assert!(guard.contains("height 300"), "{guard}");

    let (code, stdout, _) = node.run(&["rollback", "--height", "290"]);
    assert_eq!(code, 0);
    assert!(stdout.contains("290") && stdout.contains("the next start"), "{stdout}");
    let (_, stdout, _) = node.run(&["store", "inspect"]);
    let view: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&view["tip"]["height"], &view["engine_height"]), (&300.into(), &290.into()));

    let (code, _, said) = node.run(&["rollback", "--height", "400"]);
    assert_eq!(code, 1, "{said}");
    let (code, _, said) = node.run(&["store", "generate", "--blocks", "1"]);
    assert_eq!(code, 78, "{said}");
    verify(&node);
}

/// Every block follows from the one before and is signed by the chain's key.
fn verify(node: &Node) {
    let store = node.open_store();
    let reader = store.reader();
    let public = baton_actors::signer::key_file::read_public(&node.home().signer()).unwrap();
    let signer = baton_messages::chain::Signer::ed25519(&public);
    let mut before: Option<baton_messages::chain::SignedHeader> = None;
    for height in (1..=300).map(baton_messages::types::Height) {
        let block = reader.block(height).unwrap().unwrap();
        let signed = reader.signed_header(height, &signer).unwrap().unwrap();
        signed.validate(baton_messages::types::Timestamp(u64::MAX / 4)).unwrap();
        signed.header.validate_data(block.data()).unwrap();
        if let Some(before) = &before {
            assert_eq!(signed.header.last_header_hash, before.header.hash().to_bytes());
            assert!(signed.header.time > before.header.time);
        }
        before = Some(signed);
    }
    store.close();
}

#[test]
fn a_store_in_use_is_75_and_a_damaged_one_70() {
    let node = Node::made();
    let store = node.open_store();
    for args in [&["store", "inspect"][..], &["rollback"], &["unsafe-clean", "--yes"]] {
        let (code, _, said) = node.run(args);
        assert_eq!(code, 75, "{args:?}: {said}");
        assert!(said.contains("in use"), "{said}");
    }
    store.close();
    drop(store);
    assert_eq!(node.run(&["store", "inspect"]).0, 0);

    let manifest = fs::read_dir(node.home().store()).unwrap().map(|entry| entry.unwrap().path());
    let manifest = manifest.into_iter().find(|path| path.to_string_lossy().contains("MANIFEST")).unwrap();
    fs::write(manifest, "garbage in place of what was there").unwrap();
    let (code, _, said) = node.run(&["store", "inspect"]);
    assert_eq!(code, 70, "{said}");
    assert!(said.contains("damaged"), "{said}");
}

#[test]
fn unsafe_clean_says_what_it_costs_and_never_removes_the_guard() {
    let node = Node::made();
    assert_eq!(node.run(&["store", "generate", "--blocks", "2"]).0, 0);
    let home = node.home();
    let guard = fs::read(home.guard()).unwrap();
    let (code, _, said) = node.run(&["unsafe-clean"]);
    assert_eq!(code, 64);
    assert!(said.contains("--yes"), "{said}");
    assert!(home.store().exists());
    assert_eq!(node.run(&["unsafe-clean", "--yes"]).0, 0);
    assert!(!home.store().exists());
    assert_eq!(fs::read(home.guard()).unwrap(), guard);
    // The new store is empty, and the guard still knows better.
    assert_eq!(node.init(&[]).0, 0);
    assert_eq!(fs::read(home.guard()).unwrap(), guard);
}

#[test]
fn a_home_that_is_said_counts_before_the_environment_wherever_it_is_said() {
    let (said, named) = (Node::made(), Node::made());
    let home = |node: &Node| node.home().root().display().to_string();
    let ask = |args: &[&str]| told(&baton(args).env("BATON_HOME", home(&named)).output().unwrap());
    let (code, _, told) = ask(&["--home", &home(&said), "unsafe-clean", "--yes"]);
    assert_eq!(code, 0, "{told}");
    assert!(!said.home().store().exists() && named.home().store().exists());
    assert_eq!(said.init(&[]).0, 0);
    assert_eq!(ask(&["unsafe-clean", "--yes", "--home", &home(&said)]).0, 0);
    assert!(!said.home().store().exists() && named.home().store().exists());
    assert_eq!(ask(&["unsafe-clean", "--yes"]).0, 0);
    assert!(!named.home().store().exists());
    for command in [&["da"][..], &["devnet"], &["version"]] {
        let (code, _, told) = run(&[&["--home", "/nowhere"], command].concat());
        assert_eq!((code, told.contains("--home")), (64, true), "{command:?}: {told}");
    }
    let (code, _, told) = told_with_home("", &["keys", "show"]);
    assert_eq!((code, told.contains("BATON_HOME is empty")), (64, true), "{told}");
}

fn told_with_home(home: &str, args: &[&str]) -> (i32, String, String) {
    told(&baton(args).env("BATON_HOME", home).output().unwrap())
}

#[test]
fn unsafe_clean_removes_nothing_when_nobody_knows_whether_the_store_is_in_use() {
    let node = Node::made();
    let lock = node.home().store().join("LOCK");
    let _ = fs::remove_file(&lock);
    fs::create_dir(&lock).unwrap();
    let (code, _, said) = node.run(&["unsafe-clean", "--yes"]);
    assert_eq!((code, said.contains("LOCK")), (1, true), "{said}");
    assert!(node.home().store().exists());
}

#[test]
fn certificates_that_others_would_refuse_are_refused_before_anything_is_opened() {
    let node = Node::made();
    let path = |name: &str| node.dir.path().join(name).display().to_string();
    assert_eq!(run(&["tls", "ca", "--out", &path("ca")]).0, 0);
    assert_eq!(run(&["tls", "node", "n2", "--ca", &path("ca"), "--out", &path("n2")]).0, 0);
    let files = ["ca.pem", "node.pem", "node.key"].map(|file| format!("{}/{file}", path("n2")));
    let raft = ["--raft.enable", "--raft.node_id", "n1", "--raft.raft_addr", "127.0.0.1:1"];
    let tls = ["--raft.tls.ca", &files[0], "--raft.tls.cert", &files[1], "--raft.tls.key", &files[2]];
    let args = [&[DA], &raft[..], &tls[..]].concat();
    let (code, _, checked) = node.run(&[&["config", "check"], &args[..]].concat());
    assert_eq!((code, checked.contains("is for n2")), (78, true), "{checked}");
    let store = node.open_store();
    let (code, _, said) = node.start(&args);
    assert_eq!((code, said.contains("is for n2")), (78, true), "not that the store is in use: {said}");
    store.close();
    let (code, _, said) = node.run(&[&["config", "check"], &args[..], &["--raft.node_id", "n2"]].concat());
    assert_eq!(code, 0, "{said}");
}

#[test]
fn what_is_no_socket_in_the_place_of_the_admin_socket_needs_a_person() {
    let node = Node::made();
    fs::write(node.home().admin_socket(), "somebody's file").unwrap();
    let (code, _, said) = node.start(&[]);
    assert_eq!((code, said.contains("no socket")), (78, true), "{said}");
}

#[test]
fn an_empty_data_directory_is_no_store() {
    let node = Node::made();
    fs::remove_dir_all(node.home().data()).unwrap();
    fs::create_dir_all(node.home().store()).unwrap();
    let (code, _, said) = node.run(&["store", "inspect"]);
    assert_eq!(code, 78);
    assert!(said.contains("baton init"), "{said}");
}

#[test]
fn keys_are_shown_and_exported_and_imported_without_a_secret_on_the_command_line() {
    let node = Node::made();
    let (code, shown, _) = node.run(&["keys", "show"]);
    assert_eq!(code, 0);
    let (code, hex, _) = node.run(&["keys", "export"]);
    assert_eq!((code, hex.trim().len()), (0, 128));
    let file = node.write("key.hex", &hex).display().to_string();
    let (code, _, said) = node.run(&["keys", "import", &file]);
    assert_eq!(code, 78, "{said}");
    let (code, again, _) = node.run(&["keys", "import", &file, "--force"]);
    assert_eq!((code, again), (0, shown));
    let (code, _, said) = node.run(&["keys", "guard-from-committed"]);
    assert_eq!(code, 1, "{said}");
}

#[test]
fn a_reader_who_has_gone_is_no_failure() {
    let mut child =
        baton(&["config", "reference"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let (code, _, said) = told(&child.wait_with_output().unwrap());
    assert_eq!((code, &*said), (0, ""));
}

#[test]
fn data_that_cannot_be_written_is_1() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let (code, _, said) = told(&baton(&["config", "reference"]).stdout(full).output().unwrap());
    assert_eq!(code, 1, "{said}");
    assert!(said.starts_with("baton: stdout cannot be written"), "{said}");
}

#[test]
fn logs_go_to_stderr_as_json_when_asked() {
    let node = Node::made();
    let home = node.home().root().display().to_string();
    let args = [
        "start",
        DA,
        "--home",
        &home,
        "--log.format",
        "json",
        "--clear_cache",
        "--signer.passphrase_file",
        "/nowhere",
    ];
    let output = baton(&args).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let first: serde_json::Value = serde_json::from_str(stderr.lines().next().unwrap()).unwrap();
    assert_eq!(first["level"], "WARN");
    assert!(first["message"].as_str().unwrap().contains("clear_cache"));
    assert!(output.stdout.is_empty());
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, script, _) = run(&["completions", shell]);
        assert_eq!(code, 0);
        assert!(script.contains("unsafe-clean") && script.contains("node.block_time"), "{shell}");
    }
}

#[test]
fn certificates_are_made_step_by_step_as_each_step_says() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name).display().to_string();
    let (ca, node) = (path("ca"), path("n1"));
    let (code, made, warned) = run(&["tls", "ca", "--out", &ca]);
    assert_eq!((code, warned.contains("keep it away")), (0, true), "{warned}");
    assert!(made.contains(&format!("baton tls node NAME --ca {ca}")), "{made}");
    let (code, made, _) = run(&["tls", "node", "n1", "--ca", &ca, "--out", &node, "--address", "10.0.0.7"]);
    assert_eq!(code, 0);
    for said in
        ["node_id: n1", "ca: config/tls/ca.pem", "cert: config/tls/node.pem", "key: config/tls/node.key"]
    {
        assert!(made.contains(said), "{made}");
    }
    let mode = fs::metadata(Path::new(&node).join("node.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (code, _, said) = run(&["tls", "node", "n1", "--ca", &ca, "--out", &node]);
    assert_eq!((code, said.contains("exists already")), (64, true), "{said}");
    let (code, _, said) = run(&["tls", "node", "n2", "--ca", &node, "--out", &path("n2")]);
    assert_eq!((code, said.contains("baton tls ca")), (78, true), "{said}");
}

#[test]
fn the_unit_file_does_not_restart_what_needs_a_person() {
    let unit = include_str!("../../contrib/baton.service");
    assert!(unit.contains("RestartPreventExitStatus=64 70 78\n") && unit.contains("Restart=on-failure\n"));
    assert!(unit.contains("LoadCredential=passphrase:") && unit.contains("TimeoutStopSec="));
}
