//! `baton init --member`, and commands to a node that does not run.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use baton::home::Home;

/// Runs the binary; returns its code, stdout, and all of stderr.
fn run(args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
    let output = command.args(args).env_clear().stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let stderr = text(output.stderr);
    assert!(!stderr.contains("panicked"), "{stderr}");
    (output.status.code().unwrap(), text(output.stdout), stderr)
}

/// A directory with a passphrase, and homes in it.
struct Site(tempfile::TempDir);

impl Site {
    fn new() -> Self {
        let site = Self(tempfile::tempdir().unwrap());
        fs::write(site.passphrase(), "secret\n").unwrap();
        fs::set_permissions(site.passphrase(), fs::Permissions::from_mode(0o600)).unwrap();
        site
    }

    fn passphrase(&self) -> PathBuf {
        self.0.path().join("passphrase")
    }

    fn home(&self, name: &str) -> Home {
        Home::new(self.0.path().join(name))
    }

    fn init(&self, name: &str, more: &[&str]) -> (i32, String, String) {
        let home = self.home(name).root().display().to_string();
        run(&[&["init", "--insecure-fast-kdf", "--home", &home], more].concat())
    }

    /// The first node of a chain.
    fn first(&self) -> Home {
        let passphrase = self.passphrase().display().to_string();
        let (code, _, said) =
            self.init("first", &["--signer.passphrase_file", &passphrase, "--chain_id", "one"]);
        assert_eq!(code, 0, "{said}");
        self.home("first")
    }

    /// A member of the first one's chain.
    fn member(&self, name: &str, more: &[&str]) -> (i32, String, String) {
        let first = self.home("first");
        let (genesis, signer) = (show(&first.genesis()), show(&first.root().join("config")));
        let passphrase = show(&self.passphrase());
        let taken = ["--genesis", &genesis, "--signer-from", &signer];
        let own = ["--signer.passphrase_file", &passphrase, "--da.namespace", "ns", "--raft.node_id", name];
        self.init(name, &[&["--member"], &taken[..], &own[..], more].concat())
    }
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

const JOIN: [&str; 5] =
    ["--raft.raft_addr", "127.0.0.1:5002", "--join", "127.0.0.1:5001", "--raft.tls.insecure_loopback"];

#[test]
fn a_member_takes_genesis_and_key_and_never_the_guard() {
    let site = Site::new();
    let first = site.first();
    fs::write(first.guard(), b"what the first machine signed").unwrap();
    let (code, _, said) = site.member("second", &JOIN);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("guard") && said.contains("stays there"), "{said}");
    let second = site.home("second");
    assert_eq!(fs::read(second.genesis()).unwrap(), fs::read(first.genesis()).unwrap());
    assert_eq!(fs::read(second.signer()).unwrap(), fs::read(first.signer()).unwrap());
    assert_eq!(fs::metadata(second.signer()).unwrap().permissions().mode() & 0o777, 0o600);
    assert_ne!(fs::read(second.guard()).unwrap(), fs::read(first.guard()).unwrap());
    assert_ne!(fs::read(second.node_key()).unwrap(), fs::read(first.node_key()).unwrap());
    assert!(second.store().exists() && second.member_mark().exists());
    let yaml = fs::read_to_string(second.config()).unwrap();
    assert!(yaml.contains(r#"join: ["127.0.0.1:5001"]"#) && yaml.contains(r#"node_id: "second""#), "{yaml}");
}

#[test]
fn a_member_that_was_told_of_nobody_does_not_form_a_cluster_alone() {
    let site = Site::new();
    site.first();
    assert_eq!(site.member("second", &[]).0, 0);
    let home = show(site.home("second").root());
    let (code, _, said) = run(&["start", "--home", &home, "--da.address", "http://127.0.0.1:1"]);
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("--join") && said.contains("raft.peers"), "{said}");
}

#[test]
fn what_a_member_lacks_is_named_and_nothing_is_made() {
    let site = Site::new();
    let first = site.first();
    let (genesis, config) = (show(&first.genesis()), show(&first.root().join("config")));
    let passphrase = show(&site.passphrase());
    let key = ["--signer.passphrase_file", &passphrase];
    let all = [&["--member", "--genesis", &genesis, "--signer-from", &config], &key[..]].concat();
    for (args, said) in [
        ([&["--member"], &key[..]].concat(), "--genesis FILE"),
        ([&["--member", "--genesis", &genesis], &key[..]].concat(), "--signer-from DIR"),
        (all.clone(), "da.namespace"),
        ([&all[..], &["--da.namespace", "n", "--witness", "--join", "h:1"]].concat(), "raft.raft_addr"),
        (vec!["--witness", "--join", "h:1", "--raft.raft_addr", "h:2", "--raft.node_id", "w"], "--member"),
    ] {
        let (code, _, stderr) = site.init("none", &args);
        assert!(matches!(code, 64 | 78), "{args:?}: {stderr}");
        assert!(stderr.contains(said), "{args:?}: {stderr}");
        assert!(!site.home("none").root().exists(), "{args:?}");
    }
    let nowhere = show(site.0.path());
    let (code, _, stderr) =
        site.init("none", &[&all[..], &["--da.namespace", "n", "--signer-from", &nowhere]].concat());
    assert_ne!(code, 0);
    assert!(stderr.contains("signer"), "{stderr}");
}

#[test]
fn a_witness_has_no_key_and_no_guard() {
    let site = Site::new();
    let genesis = show(&site.first().genesis());
    let own = ["--member", "--genesis", &genesis, "--witness", "--raft.node_id", "w"];
    let (code, _, said) = site.init("w", &[&own[..], &JOIN[..]].concat());
    assert_eq!(code, 0, "{said}");
    let home = site.home("w");
    assert!(home.store().exists() && !home.signer().exists() && !home.guard().exists());
    let (code, _, said) = run(&["config", "check", "--home", &show(home.root())]);
    assert_eq!(code, 0, "{said}");
}

#[test]
fn commands_to_a_node_that_does_not_run_say_so_with_75() {
    let site = Site::new();
    let home = show(site.first().root());
    for command in [
        &["handoff"][..],
        &["handoff", "--to", "b"],
        &["pause", "--reason", "r"],
        &["resume"],
        &["cluster", "status", "--json"],
        &["cluster", "add", "b@10.0.0.2:5001"],
        &["cluster", "promote", "b", "c", "--version", "3", "--force"],
        &["cluster", "demote", "b"],
        &["cluster", "remove", "b"],
        &["cluster", "replace", "b", "d"],
    ] {
        let (code, stdout, said) = run(&[command, &["--home", &home]].concat());
        assert_eq!((code, &*stdout), (75, ""), "{command:?}: {said}");
        assert!(said.contains("no node runs with the home") && said.contains(&home), "{said}");
    }
    assert_eq!(run(&["cluster", "add", "b", "--home", &home]).0, 64);
    assert_eq!(run(&["cluster", "promote", "--home", &home]).0, 64);
}
