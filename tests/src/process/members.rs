//! The members of one cluster as real processes on the loopback address, behind links that can be
//! cut, with a DA server and clients.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use baton::home::Home;
use baton_messages::genesis::Genesis;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use super::child::{Child, baton, free_ports};
use super::da_scan::{self, NAMESPACES};
use super::link::{Link, Weather};
use super::namespaces::Namespaces;
use super::verify::{Found, check_guard, verify_all};
use crate::client::Oracle;

/// Ports from one member to the next: RPC, key-value app, cluster.
const PORTS: u16 = 3;

/// How a cluster is made.
#[derive(Clone, Debug)]
pub struct Wish {
    /// How many first members.
    pub first: usize,
    /// How many homes are made beside them, for members that join later.
    pub later: usize,
    /// Which of all are witnesses.
    pub witnesses: Vec<usize>,
    /// Put a link between each two of them, so that it can be cut.
    pub links: bool,
    /// They prove to each other who they are, with certificates of one authority.
    pub tls: bool,
    /// Each of the members lives on a machine of its own, as far as the network goes.
    pub apart: Option<Arc<Namespaces>>,
    /// The version of the program that makes the homes and that all run first, when it is another one.
    pub program: Option<PathBuf>,
    /// Flags for every node, after all others.
    pub flags: Vec<String>,
}

impl Wish {
    /// So many members that are told of each other, and these flags.
    #[must_use]
    pub fn of(first: usize, flags: &[&str]) -> Self {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Self {
            first,
            later: 0,
            witnesses: vec![],
            links: false,
            tls: false,
            apart: None,
            program: None,
            flags,
        }
    }
}

/// One member: its home and its process.
#[derive(Debug)]
struct One {
    name: String,
    home: Home,
    child: Option<Child>,
    /// Its links to the others, by their number.
    links: Vec<Option<Link>>,
    /// Flags of its own.
    flags: Vec<String>,
    /// The program it runs, when it is another version.
    program: Option<PathBuf>,
    /// Another port for the cluster than its own.
    moved_to: Option<u16>,
}

/// A cluster of processes.
#[derive(Debug)]
pub struct Members {
    directory: Option<TempDir>,
    wish: Wish,
    members: Vec<One>,
    /// What the clients were told.
    pub oracle: Oracle,
    da: Option<Child>,
    port: u16,
    http: reqwest::Client,
}

impl Members {
    /// Makes the homes and starts the DA server; no node yet.
    ///
    /// # Panics
    ///
    /// When something does not work; that is true of all functions here.
    pub async fn new(wish: Wish) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut file = fs::OpenOptions::new();
        let file = file.write(true).create_new(true).mode(0o600).open(directory.path().join("passphrase"));
        writeln!(file.expect("a new file"), "a passphrase for tests").expect("a line is written");
        let count = wish.first + wish.later;
        let members = (0..count).map(|number| One {
            name: format!("n{number}"),
            home: Home::new(directory.path().join(format!("n{number}"))),
            child: None,
            links: vec![],
            flags: vec![],
            program: wish.program.clone(),
            moved_to: None,
        });
        let http = reqwest::Client::builder().timeout(Duration::from_secs(5)).build();
        let mut site = Self {
            members: members.collect(),
            oracle: Oracle::default(),
            da: None,
            port: free_ports(1 + u16::try_from(count).expect("few") * PORTS),
            http: http.expect("an HTTP client"),
            directory: Some(directory),
            wish,
        };
        if site.wish.links {
            site.make_links().await;
        }
        if site.wish.tls {
            site.certify("ca").await;
        }
        for number in 0..count {
            site.init(number).await;
        }
        site.start_da().await;
        site
    }

    async fn make_links(&mut self) {
        for from in 0..self.members.len() {
            let mut links = vec![];
            for to in 0..self.members.len() {
                let target = self.cluster_socket(to);
                links.push(if from == to { None } else { Some(Link::to(target).await) });
            }
            self.members[from].links = links;
        }
    }

    /// Makes an authority and a certificate of it for every member.
    pub async fn certify(&self, authority: &str) {
        let authority = show(&self.root().join(authority));
        self.run(&["tls", "ca", "--out", &authority]).await;
        for one in &self.members {
            let directory = show(&self.tls_directory(&one.name));
            let _none = fs::remove_dir_all(&directory);
            self.run(&["tls", "node", &one.name, "--ca", &authority, "--out", &directory]).await;
        }
    }

    /// Gives a member a certificate of another authority, from its next start on.
    pub async fn certify_elsewhere(&self, number: usize) {
        let authority = show(&self.root().join("another-ca"));
        self.run(&["tls", "ca", "--out", &authority]).await;
        let name = &self.members[number].name;
        let directory = self.tls_directory(name);
        fs::remove_dir_all(&directory).expect("it had one");
        self.run(&["tls", "node", name, "--ca", &authority, "--out", &show(&directory)]).await;
    }

    /// Gives a member a certificate of the cluster's authority again.
    pub async fn recertify(&self, number: usize) {
        let (authority, name) = (show(&self.root().join("ca")), &self.members[number].name);
        let directory = self.tls_directory(name);
        fs::remove_dir_all(&directory).expect("it had one");
        self.run(&["tls", "node", name, "--ca", &authority, "--out", &show(&directory)]).await;
    }

    fn tls_directory(&self, name: &str) -> PathBuf {
        self.root().join(format!("{name}-tls"))
    }

    async fn run(&self, words: &[&str]) {
        let args: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        let mut ran = Child::start(words[0], &args, &[], &self.root().join("commands-log"));
        let ended = ran.ended(Duration::from_secs(60)).await;
        assert!(ended.is_some_and(|status| status.success()), "{words:?}");
    }

    async fn init(&self, number: usize) {
        let first = &self.members[0].home;
        let mut args = self.args("init", number);
        args.push("--insecure-fast-kdf".to_owned());
        if number == 0 {
            args.extend(["--chain_id", "chaos"].map(str::to_owned));
        } else {
            args.extend(["--member".to_owned(), "--genesis".to_owned(), show(&first.genesis())]);
            if !self.is_witness(number) {
                args.extend(["--signer-from".to_owned(), show(&first.root().join("config"))]);
            }
        }
        let program = self.members[number].program.clone().unwrap_or_else(baton);
        let mut init = Child::of(&program, "init", &args, &[], &self.log(number));
        let init = init.ended(Duration::from_secs(60)).await;
        assert!(init.is_some_and(|status| status.success()), "{}", self.tail(number));
    }

    /// Makes the home of a member anew, as on a new disk: another storage, another guard.
    pub async fn replace_disk(&mut self, number: usize) {
        assert!(self.members[number].child.is_none(), "it runs");
        fs::remove_dir_all(self.members[number].home.root()).expect("the old home is there");
        self.init(number).await;
    }

    /// Makes the home of a member anew with genesis and key of the first one, as the home of a chain's
    /// only node: what nobody should do.
    pub async fn found_alone(&mut self, number: usize) {
        let (first, home) = (self.members[0].home.clone(), self.members[number].home.clone());
        fs::remove_dir_all(home.root()).expect("the old home is there");
        fs::create_dir_all(home.genesis().parent().expect("it is in a directory")).expect("a directory");
        fs::copy(first.genesis(), home.genesis()).expect("the genesis is there");
        fs::copy(first.signer(), home.signer()).expect("the key is there");
        let mut args = self.args("init", number);
        args.push("--insecure-fast-kdf".to_owned());
        let init = Child::start("init", &args, &[], &self.log(number)).ended(Duration::from_secs(60)).await;
        assert!(init.is_some_and(|status| status.success()), "{}", self.tail(number));
    }

    /// Carries the home of a member that does not run to another place.
    pub fn move_home(&mut self, number: usize, to: &Path) {
        assert!(self.members[number].child.is_none(), "it runs");
        let from = self.members[number].home.root().to_owned();
        let copied = std::process::Command::new("cp").arg("-a").arg(&from).arg(to).status();
        assert!(copied.is_ok_and(|status| status.success()), "{} to {}", from.display(), to.display());
        fs::remove_dir_all(from).expect("it was copied");
        self.members[number].home = Home::new(to);
    }

    /// Ends the DA server; it keeps its blocks.
    pub async fn end_da(&mut self) {
        self.da.take().expect("it runs").kill().await;
    }

    /// Starts the DA server.
    pub async fn start_da(&mut self) {
        let listen = self.address_of_da().to_string();
        let home = show(&self.root().join("da"));
        let args = ["da", "--listen", &listen, "--block-time", "1s", "--home", &home];
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        self.da = Some(Child::start("da", &args, &[], &self.root().join("da-log")));
        let url = self.da_url();
        self.until("the DA server", || async { self.http.get(&url).send().await.is_ok() }).await;
    }

    fn root(&self) -> &Path {
        self.directory.as_ref().expect("there is one until the end").path()
    }

    fn address_of_da(&self) -> SocketAddr {
        SocketAddr::from((self.host(None), self.port))
    }

    /// Where a member is; `None`: where clients and DA are.
    fn host(&self, number: Option<usize>) -> Ipv4Addr {
        let apart = self.wish.apart.as_ref();
        apart.map_or(Ipv4Addr::LOCALHOST, |_| number.map_or_else(Namespaces::hub, Namespaces::address))
    }

    /// The DA server.
    #[must_use]
    pub fn da_url(&self) -> String {
        format!("http://{}", self.address_of_da())
    }

    fn address(&self, number: usize, offset: u16) -> SocketAddr {
        let host = self.host(Some(number));
        let number = u16::try_from(number).expect("few");
        SocketAddr::from((host, self.port + 1 + number * PORTS + offset))
    }

    fn is_witness(&self, number: usize) -> bool {
        self.wish.witnesses.contains(&number)
    }

    /// How many there are, those who join later too.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.members.len()
    }

    /// The name of a member.
    #[must_use]
    pub fn name(&self, number: usize) -> &str {
        &self.members[number].name
    }

    /// Where the cluster reaches a member.
    #[must_use]
    pub fn cluster_address(&self, number: usize) -> String {
        self.cluster_socket(number).to_string()
    }

    fn cluster_socket(&self, number: usize) -> SocketAddr {
        let mut address = self.address(number, 2);
        if let Some(port) = self.members[number].moved_to {
            address.set_port(port);
        }
        address
    }

    /// Another address for the cluster, from the next start of this member on.
    pub fn move_to_another_port(&mut self, number: usize) {
        self.members[number].moved_to = Some(free_ports(1));
    }

    /// The home of a member.
    #[must_use]
    pub fn home(&self, number: usize) -> &Home {
        &self.members[number].home
    }

    /// The URL of a member's key-value app.
    #[must_use]
    pub fn kv_url(&self, number: usize) -> String {
        format!("http://{}", self.address(number, 1))
    }

    /// The URLs of all members that take transactions.
    #[must_use]
    pub fn kv_urls(&self) -> Vec<String> {
        (0..self.count())
            .filter(|number| !self.is_witness(*number))
            .map(|number| self.kv_url(number))
            .collect()
    }

    /// The URL of a member's RPC, health and status.
    #[must_use]
    pub fn rpc_url(&self, number: usize) -> String {
        format!("http://{}", self.address(number, 0))
    }

    /// The log of a member; every life adds to it.
    #[must_use]
    pub fn log(&self, number: usize) -> PathBuf {
        self.root().join(format!("n{number}-log"))
    }

    /// The last lines of a member's log.
    #[must_use]
    pub fn tail(&self, number: usize) -> String {
        let log = fs::read(self.log(number)).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    fn tails(&self) -> String {
        (0..self.count()).map(|number| format!("--- n{number}\n{}\n", self.tail(number))).collect()
    }

    fn args(&self, command: &str, number: usize) -> Vec<String> {
        let one = &self.members[number];
        let peers = (0..self.wish.first).map(|peer| format!("n{peer}@{}", self.cluster_address(peer)));
        let peers: Vec<String> = peers.collect();
        let mut flags = vec![
            ("--home", show(one.home.root())),
            ("--evnode.p2p.listen_address", "/ip4/127.0.0.1/tcp/0".to_owned()),
            ("--evnode.rpc.address", self.address(number, 0).to_string()),
            ("--evnode.raft.node_id", one.name.clone()),
            ("--evnode.raft.raft_addr", self.cluster_address(number)),
        ];
        // A witness needs no DA layer and no namespaces, and is configured as the page about settings says.
        if !self.is_witness(number) {
            flags.push(("--evnode.da.address", self.da_url()));
            flags.push(("--evnode.da.namespace", NAMESPACES[0].to_owned()));
            flags.push(("--evnode.da.data_namespace", NAMESPACES[1].to_owned()));
            flags.push(("--kv-endpoint", self.address(number, 1).to_string()));
            flags.push(("--evnode.signer.passphrase_file", show(&self.root().join("passphrase"))));
        }
        if number >= self.wish.first {
            flags.push(("--raft.join", self.address(0, 2).to_string()));
        } else if self.wish.first > 1 {
            flags.push(("--evnode.raft.peers", peers.join(",")));
        }
        let links = one.links.iter().enumerate().filter_map(|(to, link)| Some((to, link.as_ref()?)));
        let dial: Vec<String> = links.map(|(to, link)| format!("n{to}@{}", link.address())).collect();
        if !dial.is_empty() {
            flags.push(("--raft.dial", dial.join(",")));
        }
        let mut args = vec![command.to_owned()];
        args.extend(flags.into_iter().flat_map(|(name, value)| [name.to_owned(), value]));
        args.push("--evnode.raft.enable".to_owned());
        if self.wish.tls {
            let directory = self.tls_directory(&one.name);
            let files = [("ca", "ca.pem"), ("cert", "node.pem"), ("key", "node.key")];
            let flags = files.map(|(flag, file)| [format!("--raft.tls.{flag}"), show(&directory.join(file))]);
            args.extend(flags.into_iter().flatten());
        } else {
            args.push("--raft.tls.insecure_loopback".to_owned());
        }
        if self.is_witness(number) {
            args.push("--witness".to_owned());
        }
        args.extend(self.wish.flags.iter().cloned());
        args.extend(one.flags.iter().cloned());
        args
    }

    /// Flags of one member, from its next start on.
    pub fn set_flags(&mut self, number: usize, flags: &[&str]) {
        self.members[number].flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    }

    /// Which version of the program a member runs from its next start on; `None` is the one under test.
    pub fn set_program(&mut self, number: usize, program: Option<&Path>) {
        self.members[number].program = program.map(Path::to_owned);
    }

    /// Starts a member with these variables in its environment, and does not wait for it.
    pub fn start(&mut self, number: usize, env: &[(&str, String)]) {
        assert!(self.members[number].child.is_none(), "{} runs", self.members[number].name);
        let args = self.args("start", number);
        let program = self.members[number].program.clone().unwrap_or_else(baton);
        let (program, args) = match &self.wish.apart {
            Some(apart) => apart.inside(number, &program, args),
            None => (program, args),
        };
        let child = Child::of(&program, &self.members[number].name, &args, env, &self.log(number));
        self.members[number].child = Some(child);
    }

    /// Starts all first members and waits until one leads and blocks are made.
    pub async fn start_all(&mut self) {
        for number in 0..self.wish.first {
            self.start(number, &[]);
        }
        self.leader().await;
        let height = self.height().await;
        self.reach(height + 2).await;
    }

    /// Whether its process was started and not taken away since.
    #[must_use]
    pub fn is_up(&self, number: usize) -> bool {
        self.members[number].child.is_some()
    }

    /// Sends a member a signal.
    pub fn signal(&self, number: usize, signal: Signal) {
        self.members[number].child.as_ref().expect("it runs").signal(signal);
    }

    /// `kill -9`.
    pub async fn kill(&mut self, number: usize) {
        self.members[number].child.take().expect("it runs").kill().await;
        if !self.is_witness(number) {
            check_guard(&self.members[number].home);
        }
    }

    /// SIGTERM; must end with code 0.
    pub async fn terminate(&mut self, number: usize) {
        let code = self.members[number].child.take().expect("it runs").terminate().await;
        assert_eq!(code, Some(0), "{}", self.tail(number));
    }

    /// Waits for the end of a member and gives its exit code.
    pub async fn ended(&mut self, number: usize, within: Duration) -> Option<i32> {
        let mut child = self.members[number].child.take().expect("it runs");
        let ended = child.ended(within).await;
        ended.unwrap_or_else(|| panic!("n{number} does not end:\n{}", self.tail(number))).code()
    }

    /// Changes the weather of the link from one member to another.
    pub fn weather(&self, from: usize, to: usize, weather: Weather) {
        self.members[from].links[to].as_ref().expect("there is a link").set(weather);
    }

    /// Cuts a member off from all others, or lets it back.
    pub fn isolate(&self, number: usize, weather: Weather) {
        for other in (0..self.count()).filter(|other| *other != number) {
            self.weather(number, other, weather);
            self.weather(other, number, weather);
        }
    }

    /// Runs a command of the program for the home of a member; returns its code and output.
    pub async fn command(&self, number: usize, words: &[&str]) -> (Option<i32>, String) {
        let home = show(self.members[number].home.root());
        let mut command = tokio::process::Command::new(baton());
        command.args(words).args(["--home", &home]).kill_on_drop(true);
        let output = timeout(Duration::from_secs(60), command.output()).await;
        let output = output.expect("commands end").expect("the program runs");
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code(), text)
    }

    /// A JSON answer of a member.
    pub async fn get(&self, number: usize, path: &str) -> Option<Value> {
        let url = format!("{}{path}", self.rpc_url(number));
        self.http.get(url).send().await.ok()?.json().await.ok()
    }

    /// The status code and body of an answer.
    pub async fn answer(&self, number: usize, path: &str) -> Option<(u16, String)> {
        let answer = self.http.get(format!("{}{path}", self.rpc_url(number))).send().await.ok()?;
        let code = answer.status().as_u16();
        Some((code, answer.text().await.unwrap_or_default()))
    }

    /// What a member says of itself in `/status`.
    pub async fn status(&self, number: usize) -> Option<Value> {
        self.get(number, "/status").await
    }

    /// Who holds a grant now, among those that answer.
    pub async fn granted(&self) -> Option<usize> {
        for number in (0..self.count()).filter(|number| self.is_up(*number)) {
            let asked = timeout(Duration::from_millis(500), self.status(number)).await;
            let Ok(Some(status)) = asked else { continue };
            let leads = status["raft"]["role"] == "leader" && status["supervisor"]["grant"].is_u64();
            if leads && status["supervisor"]["pause"].is_null() {
                return Some(number);
            }
        }
        None
    }

    /// Waits until somebody leads and produces, and says who.
    pub async fn leader(&self) -> usize {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(leader) = self.granted().await {
                return leader;
            }
            assert!(Instant::now() < deadline, "nobody leads for a minute:\n{}", self.tails());
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// The highest tip of all that answer.
    pub async fn height(&self) -> u64 {
        let mut height = 0;
        for number in (0..self.count()).filter(|number| self.is_up(*number)) {
            if let Ok(Some(status)) = timeout(Duration::from_millis(500), self.status(number)).await {
                height = height.max(status["tip"]["height"].as_u64().unwrap_or(0));
            }
        }
        height
    }

    /// The tip of one member; zero when it does not answer.
    pub async fn height_of(&self, number: usize) -> u64 {
        self.status(number).await.and_then(|status| status["tip"]["height"].as_u64()).unwrap_or(0)
    }

    /// Waits until somebody has this height.
    pub async fn reach(&self, height: u64) {
        self.until("a height", || async { self.height().await >= height }).await;
    }

    /// Waits until something holds.
    pub async fn until<F: Future<Output = bool>>(&self, what: &str, holds: impl Fn() -> F) {
        let deadline = Instant::now() + Duration::from_secs(90);
        while !holds().await {
            assert!(Instant::now() < deadline, "waited 90 s for {what}:\n{}", self.tails());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until every member that runs has applied everything, no queue holds anything, and
    /// every block up to now is on DA and recorded as included.
    pub async fn drain(&self) {
        let goal = self.height().await + 1;
        self.until("empty queues, level members, everything on DA", || async {
            for number in (0..self.count()).filter(|number| self.is_up(*number)) {
                let Some(status) = self.status(number).await else { return false };
                let included = status["da"]["included"].as_u64().is_some_and(|height| height >= goal);
                let level = status["tip"]["height"].as_u64().is_some_and(|height| height >= goal);
                if status["queue"]["txs"] != 0 || !included || !level {
                    return false;
                }
            }
            true
        })
        .await;
    }

    /// Drains, stops every member, and checks everything that is left (P1, P2, P3, P7).
    pub async fn verify(&mut self) -> Found {
        self.drain().await;
        for number in 0..self.count() {
            if self.is_up(number) {
                self.terminate(number).await;
            }
        }
        let on_da = da_scan::on_da(&self.http, &self.da_url()).await;
        let homes: Vec<Home> = self.members.iter().map(|one| one.home.clone()).collect();
        let keyed = (0..self.count()).filter(|number| !self.is_witness(*number));
        keyed.for_each(|number| check_guard(&homes[number]));
        verify_all(&homes, &self.genesis(), &self.oracle, &on_da)
    }

    fn genesis(&self) -> Genesis {
        baton::genesis::load(&self.members[0].home.genesis()).expect("init made one")
    }
}

impl Drop for Members {
    /// What a failed test leaves is kept to be looked at.
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(directory) = self.directory.take()
        {
            eprintln!("kept {}", directory.keep().display());
        }
    }
}

fn show(path: &Path) -> String {
    path.display().to_string()
}
