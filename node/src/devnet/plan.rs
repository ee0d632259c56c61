//! What a devnet consists of: names, ports, files and command lines. Nothing here touches the
//! machine.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

/// How many ports lie between two processes of a devnet.
const PORTS_PER_PROCESS: u16 = 10;

/// The namespace a devnet publishes to. Any will do: its DA server is its own.
pub const NAMESPACE: &str = "baton-devnet";

/// The chain id of a devnet.
pub const CHAIN_ID: &str = "baton-devnet";

/// What a process of a devnet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The dev DA server.
    Da,
    /// A node of the chain.
    Node,
}

/// Where a process listens. Everything is on the loopback address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// RPC, health and metrics of a node; JSON-RPC of the DA server.
    pub rpc: u16,
    /// The key-value app's HTTP.
    pub kv: Option<u16>,
    /// Set aside for P2P.
    pub p2p: Option<u16>,
    /// The cluster transport.
    pub raft: Option<u16>,
}

impl Ports {
    /// Every port with what it is for.
    pub fn all(&self) -> Vec<(&'static str, u16)> {
        let rest = [("kv", self.kv), ("p2p", self.p2p), ("raft", self.raft)];
        let rest = rest.into_iter().filter_map(|(what, port)| Some((what, port?)));
        std::iter::once(("rpc", self.rpc)).chain(rest).collect()
    }

    /// The ports on which somebody answers once the process has started.
    pub fn served(&self) -> Vec<u16> {
        std::iter::once(self.rpc).chain(self.kv).collect()
    }
}

/// One process of a devnet: how it is started and where it is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// `da`, `node1`, `node2`, …
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Where it listens.
    pub ports: Ports,
    /// Its own directory.
    pub home: PathBuf,
    /// Its log file.
    pub log: PathBuf,
    /// The arguments it is started with.
    pub args: Vec<String>,
    /// How a node's home is made; empty for the DA server.
    pub init: Vec<String>,
    /// Whose key a node takes over, with its passphrase: the home of the first one. `None` for
    /// that one itself.
    pub key_of: Option<PathBuf>,
    /// Where its certificate is, and the authority's; `None` without TLS.
    pub tls: Option<TlsPlace>,
}

/// Where the certificates of a node are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsPlace {
    /// The directory of the authority, shared by all.
    pub authority: PathBuf,
    /// The directory of the node's own certificate.
    pub own: PathBuf,
}

impl Member {
    /// The command line that starts this process, to be pasted into a shell.
    pub fn command_line(&self, executable: &Path) -> String {
        command_line(executable, &self.args)
    }

    /// The file that holds the passphrase of a node's key.
    pub fn passphrase(&self) -> PathBuf {
        passphrase_file(&self.home)
    }
}

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Wish {
    /// How many nodes.
    pub nodes: u16,
    /// Where everything is kept. Absolute, so that a printed command works anywhere.
    pub home: PathBuf,
    /// The first port.
    pub base_port: u16,
    /// Time between two blocks of the chain.
    pub block_time: Duration,
    /// Time between two blocks of the DA server.
    pub da_block_time: Duration,
    /// Encrypt what the nodes say to each other.
    pub tls: bool,
    /// Flags for every node, as given.
    pub node_flags: Vec<String>,
}

/// The port layout does not fit below 65536.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "--base-port {base} leaves no room for {nodes} node(s): the last port would be above 65535; choose a lower one"
)]
pub struct NoRoom {
    base: u16,
    nodes: u16,
}

/// Returns the ports of the DA server and of each node.
///
/// The DA server has the base port; node `i`, counted from one, has `base + 10 i` for RPC and the
/// three after it for the key-value app, P2P and Raft.
pub fn ports(base: u16, nodes: u16) -> Result<(Ports, Vec<Ports>), NoRoom> {
    let node = |number: u16| {
        let rpc = number.checked_mul(PORTS_PER_PROCESS)?.checked_add(base)?;
        rpc.checked_add(3)?;
        Some(Ports { rpc, kv: Some(rpc + 1), p2p: Some(rpc + 2), raft: Some(rpc + 3) })
    };
    let da = Ports { rpc: base, kv: None, p2p: None, raft: None };
    let nodes_ports: Option<Vec<_>> = (1..=nodes).map(node).collect();
    Ok((da, nodes_ports.ok_or(NoRoom { base, nodes })?))
}

/// Returns the members of a devnet, the DA server first: the order in which they start.
pub fn members(wish: &Wish) -> Result<Vec<Member>, NoRoom> {
    let (da_ports, node_ports) = ports(wish.base_port, wish.nodes)?;
    let da = da_member(wish, da_ports);
    let peers =
        node_ports.iter().zip(1..).map(|(ports, number)| format!("{}@{}", name(number), raft(*ports)));
    let peers: Vec<_> = peers.collect();
    let shared = Shared { wish, da_url: http_url(da.ports.rpc), peers: peers.join(",") };
    let nodes = node_ports.into_iter().zip(1..).map(|(ports, number)| node_member(&shared, ports, number));
    Ok(std::iter::once(da.clone()).chain(nodes).collect())
}

/// What all nodes are told alike.
struct Shared<'a> {
    wish: &'a Wish,
    da_url: String,
    peers: String,
}

fn name(number: u16) -> String {
    format!("node{number}")
}

fn raft(ports: Ports) -> SocketAddr {
    loopback(ports.raft.expect("a node has a port for the cluster"))
}

fn da_member(wish: &Wish, ports: Ports) -> Member {
    let home = wish.home.join("da");
    let args = vec![
        "da".to_owned(),
        "--listen".to_owned(),
        loopback(ports.rpc).to_string(),
        "--home".to_owned(),
        home.display().to_string(),
        "--block-time".to_owned(),
        duration(wish.da_block_time),
    ];
    Member {
        name: "da".to_owned(),
        role: Role::Da,
        ports,
        log: home.join("log"),
        home,
        args,
        init: vec![],
        key_of: None,
        tls: None,
    }
}

fn node_member(shared: &Shared<'_>, ports: Ports, number: u16) -> Member {
    let Shared { wish, da_url, peers } = shared;
    let (name, home) = (name(number), wish.home.join(name(number)));
    let tls = wish.tls.then(|| TlsPlace { authority: wish.home.join("tls"), own: home.join("tls") });
    let kv = ports.kv.expect("a node has a port for the key-value app");
    let mut flags = vec![
        ("--home", home.display().to_string()),
        ("--evnode.da.address", da_url.clone()),
        ("--evnode.da.namespace", NAMESPACE.to_owned()),
        ("--evnode.da.block_time", duration(wish.da_block_time)),
        ("--evnode.node.block_time", duration(wish.block_time)),
        ("--evnode.rpc.address", loopback(ports.rpc).to_string()),
        ("--evnode.p2p.listen_address", multiaddr(ports.p2p)),
        ("--kv-endpoint", loopback(kv).to_string()),
        ("--evnode.signer.passphrase_file", passphrase_file(&home).display().to_string()),
        ("--evnode.raft.node_id", name.clone()),
        ("--evnode.raft.raft_addr", raft(ports).to_string()),
    ];
    // Alone it forms a cluster of one, to which others can be added.
    if wish.nodes > 1 {
        flags.push(("--evnode.raft.peers", peers.clone()));
    }
    if let Some(TlsPlace { own, .. }) = &tls {
        let files =
            [("--raft.tls.ca", "ca.pem"), ("--raft.tls.cert", "node.pem"), ("--raft.tls.key", "node.key")];
        flags.extend(files.map(|(flag, file)| (flag, own.join(file).display().to_string())));
    }
    let mut args: Vec<String> =
        ["start", "--evnode.node.aggregator", "--evnode.raft.enable"].map(str::to_owned).into();
    if tls.is_none() {
        args.push("--raft.tls.insecure_loopback".to_owned());
    }
    args.extend(flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]));
    args.extend(wish.node_flags.iter().cloned());
    let key_of = (number > 1).then(|| wish.home.join(self::name(1)));
    let init = init_args(&home, key_of.as_deref());
    Member { name, role: Role::Node, ports, log: home.join("log"), home, args, init, key_of, tls }
}

/// The first node begins the chain, the others take genesis and key from it.
fn init_args(home: &Path, key_of: Option<&Path>) -> Vec<String> {
    let text = |path: PathBuf| path.display().to_string();
    let mut args = vec![
        "init".to_owned(),
        // The passphrase lies beside the key: a slow derivation would protect nothing.
        "--insecure-fast-kdf".to_owned(),
        "--home".to_owned(),
        home.display().to_string(),
        "--evnode.node.aggregator".to_owned(),
        "--evnode.da.namespace".to_owned(),
        NAMESPACE.to_owned(),
        "--evnode.signer.passphrase_file".to_owned(),
        text(passphrase_file(home)),
    ];
    match key_of {
        None => args.extend(["--chain_id".to_owned(), CHAIN_ID.to_owned()]),
        Some(first) => args.extend([
            "--member".to_owned(),
            "--genesis".to_owned(),
            text(first.join("config/genesis.json")),
            "--signer-from".to_owned(),
            text(first.join("config")),
        ]),
    }
    args
}

/// Returns the URL of a loopback port.
pub fn http_url(port: u16) -> String {
    format!("http://{}", loopback(port))
}

/// Returns the multiaddr of a loopback port; without one P2P is off.
fn multiaddr(port: Option<u16>) -> String {
    port.map(|port| format!("/ip4/127.0.0.1/tcp/{port}")).unwrap_or_default()
}

/// Returns the loopback address with a port.
pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Quotes a command line so that a shell reads back exactly the same words.
pub fn command_line(executable: &Path, args: &[String]) -> String {
    let program = executable.display().to_string();
    let words = std::iter::once(program.as_str()).chain(args.iter().map(String::as_str));
    shlex::try_join(words).expect("an argument of a process holds no NUL byte")
}

/// The file that holds the passphrase of the key in a home.
pub fn passphrase_file(home: &Path) -> PathBuf {
    home.join("passphrase")
}

/// One number and one unit: both Go and humantime read that.
fn duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos.is_multiple_of(1_000_000) { format!("{}ms", nanos / 1_000_000) } else { format!("{nanos}ns") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish() -> Wish {
        Wish {
            nodes: 1,
            home: PathBuf::from("/tmp/it's a net"),
            base_port: 27000,
            block_time: Duration::from_millis(1500),
            da_block_time: Duration::from_secs(1),
            tls: false,
            node_flags: vec!["--evnode.log.level".to_owned(), "a $b".to_owned()],
        }
    }

    #[test]
    fn the_da_server_has_the_base_port_and_each_node_ten_of_its_own() {
        let (da, nodes) = ports(27000, 2).unwrap();
        assert_eq!(da.all(), [("rpc", 27000)]);
        assert_eq!(nodes[0].all(), [("rpc", 27010), ("kv", 27011), ("p2p", 27012), ("raft", 27013)]);
        assert_eq!(nodes[1].served(), [27020, 27021]);
    }

    #[test]
    fn a_base_port_too_high_is_refused() {
        assert!(ports(65522, 1).is_ok());
        assert_eq!(ports(65523, 1), Err(NoRoom { base: 65523, nodes: 1 }));
        assert_eq!(ports(1, u16::MAX), Err(NoRoom { base: 1, nodes: u16::MAX }));
    }

    #[test]
    fn a_printed_command_reads_back_as_the_same_words() {
        for member in members(&wish()).unwrap() {
            let line = member.command_line(Path::new("/opt/my tools/baton"));
            let words = shlex::split(&line).unwrap();
            assert_eq!(words[0], "/opt/my tools/baton");
            assert_eq!(words[1..], member.args);
            assert!(!line.contains('\n'));
        }
    }

    fn value<'a>(member: &'a Member, flag: &str) -> Option<&'a str> {
        let at = member.args.iter().position(|arg| arg == flag)?;
        member.args.get(at + 1).map(String::as_str)
    }

    #[test]
    fn several_nodes_name_each_other_and_one_can_grow() {
        let members = members(&Wish { nodes: 3, ..wish() }).unwrap();
        let peers = "node1@127.0.0.1:27013,node2@127.0.0.1:27023,node3@127.0.0.1:27033";
        for (member, number) in members[1..].iter().zip(1..) {
            assert_eq!(value(member, "--evnode.raft.peers"), Some(peers));
            assert_eq!(value(member, "--evnode.raft.node_id"), Some(&*format!("node{number}")));
        }
        let alone = &self::members(&wish()).unwrap()[1];
        assert_eq!(value(alone, "--evnode.raft.peers"), None);
        assert_eq!(value(alone, "--evnode.raft.raft_addr"), Some("127.0.0.1:27013"));
    }

    #[test]
    fn only_the_first_node_begins_a_chain_and_no_guard_is_taken_along() {
        let members = members(&Wish { nodes: 2, ..wish() }).unwrap();
        assert!(members[1].init.contains(&CHAIN_ID.to_owned()) && members[1].key_of.is_none());
        assert!(members[2].init.contains(&"--member".to_owned()));
        assert_eq!(members[2].key_of.as_deref(), Some(&*members[1].home));
        assert!(!members.iter().flat_map(|member| &member.init).any(|arg| arg.contains("guard")));
    }

    #[test]
    fn with_certificates_nothing_is_said_in_plaintext() {
        let members = members(&Wish { nodes: 2, tls: true, ..wish() }).unwrap();
        for member in &members[1..] {
            assert!(!member.args.contains(&"--raft.tls.insecure_loopback".to_owned()));
            let own = format!("/{}/tls/node.pem", member.name);
            assert!(value(member, "--raft.tls.cert").unwrap().ends_with(&own));
        }
    }

    #[test]
    fn node_flags_come_last_and_win() {
        let members = members(&wish()).unwrap();
        assert_eq!(members[1].args.last().unwrap(), "a $b");
        assert!(!members[0].args.contains(&"a $b".to_owned()));
    }

    #[test]
    fn durations_are_written_as_node_and_da_server_read_them() {
        for time in [Duration::from_millis(1500), Duration::from_secs(90_000), Duration::from_nanos(1)] {
            let word = duration(time);
            assert_eq!(humantime::parse_duration(&word).unwrap(), time);
            // Go has no days, and reads no spaces.
            assert!(word.ends_with("ms") || word.ends_with("ns"), "{word}");
        }
    }
}
