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
    /// Set aside for Raft.
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
    let da_url = http_url(da.ports.rpc);
    let nodes =
        node_ports.into_iter().zip(1..).map(|(ports, number)| node_member(wish, ports, number, &da_url));
    Ok(std::iter::once(da.clone()).chain(nodes).collect())
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
    Member { name: "da".to_owned(), role: Role::Da, ports, log: home.join("log"), home, args }
}

fn node_member(wish: &Wish, ports: Ports, number: u16, da_url: &str) -> Member {
    let name = format!("node{number}");
    let home = wish.home.join(&name);
    let kv = ports.kv.expect("a node has a port for the key-value app");
    let flags = [
        ("--home", home.display().to_string()),
        ("--evnode.da.address", da_url.to_owned()),
        ("--evnode.da.namespace", NAMESPACE.to_owned()),
        ("--evnode.da.block_time", duration(wish.da_block_time)),
        ("--evnode.node.block_time", duration(wish.block_time)),
        ("--evnode.rpc.address", loopback(ports.rpc).to_string()),
        ("--kv-endpoint", loopback(kv).to_string()),
        ("--evnode.signer.passphrase_file", passphrase_file(&home).display().to_string()),
    ];
    let mut args = vec!["start".to_owned(), "--evnode.node.aggregator".to_owned()];
    args.extend(flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]));
    args.extend(wish.node_flags.iter().cloned());
    Member { name, role: Role::Node, ports, log: home.join("log"), home, args }
}

/// Returns the URL of a loopback port.
pub fn http_url(port: u16) -> String {
    format!("http://{}", loopback(port))
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

fn passphrase_file(home: &Path) -> PathBuf {
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
