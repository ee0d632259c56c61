//! The socket with actors behind it that answer as told.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::{Actor, Context, Handler};
use baton_messages::cluster::{
    ChangeError, ChangeMembers, CommandAudited, HandOff, HandOffError, HandedOff, LeaderHint, MemberChange,
    Pause, PrepareStop, Resume, StopRefused,
};
use baton_messages::status::{GetNodeStatus, NodeChanged, NodeStatus};
use baton_messages::types::{LogIndex, Role, Term};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Notify, oneshot};
use tokio::task::LocalSet;

use super::answer::{Desk, Links, Patience};
use super::protocol::{Answer, Change, Command, Kind, LONGEST, Refusal};
use super::status::tests::node_status;
use super::{Admin, Config, Metrics, client};

/// What the parts of the node heard, in words.
type Heard = Arc<Mutex<Vec<String>>>;

/// All parts of the node at once.
struct Parts {
    heard: Heard,
    status: NodeStatus,
    hand_off: Result<HandedOff, HandOffError>,
    change: Result<LogIndex, ChangeError>,
    stop: Result<(), StopRefused>,
}

impl Parts {
    fn hears(&self, words: String) {
        self.heard.lock().unwrap().push(words);
    }
}

impl Actor for Parts {
    type Context = Context<Self>;
}

impl Handler<GetNodeStatus> for Parts {
    type Result = actix::MessageResult<GetNodeStatus>;

    fn handle(&mut self, _: GetNodeStatus, _: &mut Context<Self>) -> Self::Result {
        actix::MessageResult(self.status.clone())
    }
}

impl Handler<NodeChanged> for Parts {
    type Result = ();

    fn handle(&mut self, _: NodeChanged, _: &mut Context<Self>) {}
}

impl Handler<HandOff> for Parts {
    type Result = Result<HandedOff, HandOffError>;

    fn handle(&mut self, message: HandOff, _: &mut Context<Self>) -> Self::Result {
        self.hears(format!("hand off to {:?}", message.to));
        self.hand_off.clone()
    }
}

impl Handler<Pause> for Parts {
    type Result = Result<LogIndex, ChangeError>;

    fn handle(&mut self, message: Pause, _: &mut Context<Self>) -> Self::Result {
        self.hears(format!("pause {}", message.reason));
        self.change.clone()
    }
}

impl Handler<Resume> for Parts {
    type Result = Result<LogIndex, ChangeError>;

    fn handle(&mut self, _: Resume, _: &mut Context<Self>) -> Self::Result {
        self.hears("resume".to_owned());
        self.change.clone()
    }
}

impl Handler<PrepareStop> for Parts {
    type Result = Result<(), StopRefused>;

    fn handle(&mut self, message: PrepareStop, _: &mut Context<Self>) -> Self::Result {
        self.hears(format!("prepare to stop {}", message.force));
        if message.force { Ok(()) } else { self.stop.clone() }
    }
}

impl Handler<ChangeMembers> for Parts {
    type Result = Result<LogIndex, ChangeError>;

    fn handle(&mut self, message: ChangeMembers, _: &mut Context<Self>) -> Self::Result {
        self.hears(format!("{:?} {:?} {}", message.change, message.version, message.force));
        self.change.clone()
    }
}

impl Handler<CommandAudited> for Parts {
    type Result = ();

    fn handle(&mut self, message: CommandAudited, _: &mut Context<Self>) {
        self.hears(format!("record: {} by {}: {}", message.command, message.uid, message.outcome));
    }
}

/// A served socket.
struct Site {
    directory: TempDir,
    path: PathBuf,
    heard: Heard,
    stop: Arc<Notify>,
    close: Option<oneshot::Sender<()>>,
    served: tokio::task::JoinHandle<()>,
}

fn parts() -> Parts {
    Parts {
        heard: Heard::default(),
        status: node_status(),
        hand_off: Ok(HandedOff { to: "n2".to_owned(), term: Term(4) }),
        change: Ok(LogIndex(9)),
        stop: Err(StopRefused::NoQuorum { left: 1, voters: 3, quorum: 2 }),
    }
}

impl Site {
    fn of(parts: Parts, adjust: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let mut config = Config { line_within: Duration::from_millis(300), ..Config::new(path.clone()) };
        adjust(&mut config);
        let heard = parts.heard.clone();
        let address = parts.start();
        let stop = Arc::new(Notify::new());
        let links = Links {
            node_status: address.clone().recipient(),
            changed: address.clone().recipient(),
            hand_off: address.clone().recipient(),
            pause: address.clone().recipient(),
            resume: address.clone().recipient(),
            prepare_stop: address.clone().recipient(),
            stop: stop.clone(),
            change: address.clone().recipient(),
            journal: Some(address.recipient()),
        };
        let desk = Desk { node: "n1".to_owned(), links, patience: Patience::default() };
        let (close, closed) = oneshot::channel();
        let admin = Admin::bind(config, Metrics::default()).unwrap();
        let served = tokio::spawn(admin.serve(desk, async {
            let _ = closed.await;
        }));
        Self { directory, path, heard, stop, close: Some(close), served }
    }

    async fn ask(&self, command: Command) -> Answer {
        client::ask(self.directory.path(), &self.path, command).await.unwrap()
    }

    async fn refusal(&self, command: Command) -> Refusal {
        match self.ask(command).await {
            Answer::Refused(refusal) => refusal,
            other => panic!("{other:?}"),
        }
    }

    /// Sends bytes and reads until the other end closes or is silent.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = UnixStream::connect(&self.path).await.unwrap();
        let _may_be_closed = stream.write_all(bytes).await;
        let mut answer = vec![];
        let _ = tokio::time::timeout(Duration::from_secs(2), stream.read_to_end(&mut answer)).await;
        String::from_utf8(answer).unwrap()
    }

    /// What was heard since the last time.
    fn heard(&self) -> Vec<String> {
        std::mem::take(&mut *self.heard.lock().unwrap())
    }
}

fn run<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async { test().await });
}

fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[test]
fn commands_reach_their_part_and_every_change_is_on_record() {
    run(|| async {
        let site = Site::of(parts(), |_| {});
        let Answer::Status(status) = site.ask(Command::Status).await else { panic!("no status") };
        assert_eq!((status.node.as_str(), status.members.len()), ("n1", 3));
        assert_eq!(site.heard(), [""; 0], "a look is not on record");

        let to = Some("n2".to_owned());
        let handed = site.ask(Command::HandOff { to }).await;
        assert_eq!(handed, Answer::HandedOff { to: "n2".to_owned(), term: 4 });
        assert_eq!(site.ask(Command::Pause { reason: String::new() }).await, Answer::Paused);
        assert_eq!(site.ask(Command::Resume).await, Answer::Resumed);
        let change = Change::Promote { names: vec!["n2".to_owned(), "n3".to_owned()] };
        let change = Command::Change { change, version: Some(4), force: true };
        assert_eq!(site.ask(change).await, Answer::Changed { version: 9 });
        let promote = MemberChange::Promote(vec!["n2".to_owned(), "n3".to_owned()]);
        let uid = uid();
        assert_eq!(
            site.heard(),
            [
                format!("record: handoff to n2 by {uid}: asked"),
                "hand off to Some(\"n2\")".to_owned(),
                format!("record: handoff to n2 by {uid}: handed over to n2 in term 4"),
                format!("record: pause by {uid}: asked"),
                "pause an operator asked for it".to_owned(),
                format!("record: pause by {uid}: paused"),
                format!("record: resume by {uid}: asked"),
                "resume".to_owned(),
                format!("record: resume by {uid}: resumed"),
                format!("record: promote n2 n3 (version 4) by force by {uid}: asked"),
                format!("{promote:?} Some(LogIndex(4)) true"),
                format!("record: promote n2 n3 (version 4) by force by {uid}: changed: version 9"),
            ]
        );
    });
}

#[test]
fn who_does_not_lead_says_whom_to_ask() {
    run(|| async {
        let leader = LeaderHint { name: "n2".to_owned(), rpc: "h2:7331".to_owned(), ..LeaderHint::default() };
        let mut parts = parts();
        let raft = parts.status.raft.as_mut().unwrap();
        raft.role = Role::Follower;
        raft.leader.as_mut().unwrap().1.name = "n2".to_owned();
        parts.change = Err(ChangeError::NotLeader(Some(leader.clone())));
        parts.hand_off = Err(HandOffError::NotLeader(Some(leader)));
        let site = Site::of(parts, |_| {});
        let remove = Change::Remove { name: "n3".to_owned() };
        for command in [
            Command::Change { change: remove, version: None, force: false },
            Command::HandOff { to: None },
            Command::Pause { reason: "maintenance".to_owned() },
            Command::Resume,
        ] {
            let refusal = site.refusal(command).await;
            assert_eq!(refusal.kind, Kind::NotLeader);
            assert!(refusal.message.contains("n2"), "{}", refusal.message);
            assert_eq!(refusal.leader.unwrap().name, "n2");
        }
    });
}

#[test]
fn a_node_that_is_needed_is_stopped_by_force_only_and_the_connection_ends_with_it() {
    run(|| async {
        let site = Site::of(parts(), |_| {});
        let refusal = site.refusal(Command::Stop { force: false }).await;
        assert_eq!(refusal.kind, Kind::Refused);
        assert!(refusal.message.contains("1 of 3 voters") && refusal.message.contains("--force"));
        let asked = tokio::time::timeout(Duration::from_millis(200), site.stop.notified());
        assert!(asked.await.is_err(), "it stops although it was refused");
        let line = b"{\"v\":1,\"command\":{\"stop\":{\"force\":true}}}\n";
        let mut stream = UnixStream::connect(&site.path).await.unwrap();
        stream.write_all(line).await.unwrap();
        site.stop.notified().await;
        let mut answer = vec![0; 64];
        let read = stream.read(&mut answer).await.unwrap();
        assert!(String::from_utf8_lossy(&answer[..read]).contains("stopping"));
        let end = tokio::time::timeout(Duration::from_millis(600), stream.read(&mut answer)).await;
        assert!(end.is_err(), "the connection ends before the node has");
    });
}

#[test]
fn another_user_is_turned_away_and_put_on_record() {
    run(|| async {
        let site = Site::of(parts(), |config| config.users = vec![u32::MAX]);
        assert!(site.raw(b"").await.contains("forbidden"));
        let heard = site.heard();
        assert!(heard.len() == 1 && heard[0].starts_with("record: connect by"), "{heard:?}");
    });
}

#[test]
fn the_socket_is_for_its_owner_and_gone_after_the_end() {
    run(|| async {
        let mut site = Site::of(parts(), |_| {});
        assert_eq!(std::fs::metadata(&site.path).unwrap().permissions().mode() & 0o777, 0o600);
        site.close.take().unwrap().send(()).unwrap();
        site.served.await.unwrap();
        assert!(!site.path.exists());
        let error = client::ask(site.directory.path(), &site.path, Command::Status).await.unwrap_err();
        assert!(error.to_string().contains("no node runs with the home"), "{error}");
    });
}

#[test]
fn a_socket_that_was_left_is_replaced_and_any_other_file_is_not() {
    run(|| async {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        drop(Admin::bind(Config::new(path.clone()), Metrics::default()).unwrap());
        assert!(path.exists(), "nobody took it away");
        drop(Admin::bind(Config::new(path.clone()), Metrics::default()).unwrap());
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "mine").unwrap();
        let error = Admin::bind(Config::new(path.clone()), Metrics::default()).unwrap_err();
        assert!(error.to_string().contains("no socket"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    });
}

#[test]
fn a_home_with_a_long_path_has_a_socket_too() {
    run(|| async {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let path = deep.join("admin.sock");
        let site = Site::of(parts(), |config| config.path = path.clone());
        let answer = client::ask(&deep, &path, Command::Status).await.unwrap();
        assert!(matches!(answer, Answer::Status(_)));
        drop(site);
    });
}

#[test]
fn what_is_no_request_is_refused_with_a_reason() {
    run(|| async {
        let site = Site::of(parts(), |_| {});
        for (line, said) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], "not a request"),
            (b"\xff\xfe\n", "not a request"),
            (b"{}\n", "version of the protocol"),
            (b"{\"v\":2,\"command\":\"status\"}\n", "this node has 1"),
            (b"{\"v\":1,\"command\":\"reboot\"}\n", "not a request"),
            (&[b'x'; LONGEST + 10], "at most"),
        ] {
            let answer = site.raw(line).await;
            assert!(answer.contains("bad_request") && answer.contains(said), "{answer}");
        }
        let long = Command::Pause { reason: "x".repeat(1000) };
        assert_eq!(site.refusal(long).await.kind, Kind::BadRequest);
        assert!(!site.heard().iter().any(|words| words.starts_with("pause")));
    });
}

#[test]
fn silence_and_crowds_are_bounded() {
    run(|| async {
        let site = Site::of(parts(), |config| config.connections = 2);
        let begun = tokio::time::Instant::now();
        assert_eq!(site.raw(b"{\"v\":1").await, "", "half a line is not waited for");
        assert!(begun.elapsed() < Duration::from_millis(1500));
        let _holders =
            [UnixStream::connect(&site.path).await.unwrap(), UnixStream::connect(&site.path).await.unwrap()];
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(site.raw(b"").await.contains("busy"));
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert!(matches!(site.ask(Command::Status).await, Answer::Status(_)), "places are given back");
    });
}
