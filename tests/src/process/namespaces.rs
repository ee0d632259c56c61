//! Machines of their own for members, as far as the network goes: network namespaces, each with one
//! line to a bridge on which clients and the DA server are.
//!
//! Everything is inside a namespace that the test makes for itself: nothing of it is seen outside,
//! and all of it is gone with the last process in it.

use std::net::Ipv4Addr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Says to the test that it was started again inside.
const INSIDE: &str = "BATON_INSIDE_NAMESPACES";

/// Runs a test again in network and mount namespaces of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Apart {
    /// The caller is inside and goes on.
    Inside,
    /// The test ran inside and has passed, or this machine does not allow it: the caller returns.
    Done,
}

impl Apart {
    /// Starts the test of this name again, inside; skips it where the machine does not allow that.
    ///
    /// # Panics
    ///
    /// When the test fails inside.
    #[must_use]
    pub fn of(test: &str) -> Self {
        if std::env::var_os(INSIDE).is_some() {
            return Self::Inside;
        }
        if let Err(reason) = is_allowed() {
            crate::skip(test.rsplit("::").next().unwrap_or(test), "network-namespaces", &reason);
            return Self::Done;
        }
        let program = std::env::current_exe().expect("a test knows its own path");
        let mut again = Command::new("unshare");
        let again = again.args(["--net", "--mount", "--"]).arg(program);
        let again = again.args([test, "--exact", "--nocapture"]).env(INSIDE, "1");
        let output = again.stdin(Stdio::null()).output().expect("unshare was there a moment ago");
        print!("{}", String::from_utf8_lossy(&output.stdout));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "inside namespaces, signal {:?}: {said}", output.status.signal());
        let ran = String::from_utf8_lossy(&output.stdout);
        assert!(ran.contains("1 passed"), "no test has this name: {test}\n{ran}");
        Self::Done
    }
}

/// Whether this machine lets a test make namespaces, lines and a bridge.
fn is_allowed() -> Result<(), String> {
    let script =
        "ip link add v0 type veth peer name v1 && ip link add b0 type bridge && mount -t tmpfs none /mnt";
    let tried = Command::new("unshare").args(["--net", "--mount", "sh", "-c", script]).output();
    match tried {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().replace('\n', " ")),
        Err(error) => Err(format!("unshare: {error}")),
    }
}

/// A namespace for each member.
#[derive(Debug)]
pub struct Namespaces {
    /// A process in each that does nothing but hold it.
    holders: Vec<Child>,
}

impl Namespaces {
    /// Makes so many, in the namespace of the caller, which must be one of its own.
    ///
    /// # Panics
    ///
    /// When the caller is not [`Apart::Inside`], or the system refuses.
    #[must_use]
    pub fn new(count: usize) -> Self {
        assert!(std::env::var_os(INSIDE).is_some(), "the network of the machine is not touched");
        sh("ip link set lo up && ip link add br0 type bridge && ip link set br0 up");
        sh(&format!("ip addr add {}/24 dev br0", Self::hub()));
        let mut made = Self { holders: vec![] };
        for number in 0..count {
            let holder = Command::new("unshare").args(["--net", "sleep", "infinity"]).spawn();
            made.holders.push(holder.expect("unshare was there a moment ago"));
            let pid = made.holders[number].id();
            // It is in its own namespace once it sleeps.
            until(|| {
                std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n")
            });
            sh(&format!("ip link add line{number} type veth peer name eth0 netns {pid}"));
            sh(&format!("ip link set line{number} master br0 up"));
            made.within(number, &format!("ip addr add {}/24 dev eth0", Self::address(number)));
            made.within(number, "ip link set lo up && ip link set eth0 up");
        }
        made
    }

    /// Where clients and DA are.
    #[must_use]
    pub const fn hub() -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, 1)
    }

    /// Where a member is.
    ///
    /// # Panics
    ///
    /// When there are more than a hundred.
    #[must_use]
    pub fn address(number: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, 100 + u8::try_from(number).expect("few"))
    }

    /// The command that runs a program with these arguments where a member is.
    #[must_use]
    pub fn inside(&self, number: usize, program: &Path, args: Vec<String>) -> (PathBuf, Vec<String>) {
        let pid = self.holders[number].id().to_string();
        let words = ["--target".to_owned(), pid, "--net".to_owned(), "--".to_owned()];
        let words = words.into_iter().chain([program.display().to_string()]).chain(args);
        (PathBuf::from("nsenter"), words.collect())
    }

    /// Runs a line of shell where a member is.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub fn within(&self, number: usize, line: &str) {
        sh(&format!("nsenter --target {} --net sh -c '{line}'", self.holders[number].id()));
    }

    /// What one member sends to another is thrown away from now on.
    pub fn silence(&self, from: usize, to: usize) {
        self.within(from, &format!("ip route add blackhole {}/32", Self::address(to)));
    }

    /// It arrives again.
    pub fn hear(&self, from: usize, to: usize) {
        self.within(from, &format!("ip route del blackhole {}/32", Self::address(to)));
    }

    /// The line of a member carries so much and no more.
    pub fn narrow(&self, number: usize, kilobits: u32) {
        let queue = format!("rate {kilobits}kbit burst 16k latency 300ms");
        self.within(number, &format!("tc qdisc add dev eth0 root tbf {queue}"));
    }

    /// The line of a member is as wide, fast and safe as before.
    pub fn clear(&self, number: usize) {
        self.within(number, "tc qdisc del dev eth0 root");
    }

    /// What a member sends comes late and is sometimes lost. `false`: the kernel has no `netem`.
    #[must_use]
    pub fn delay(&self, number: usize, milliseconds: u32, percent_lost: u32) -> bool {
        let queue = format!("tc qdisc add dev eth0 root netem delay {milliseconds}ms loss {percent_lost}%");
        let pid = self.holders[number].id().to_string();
        let mut tried = Command::new("nsenter");
        let tried =
            tried.args(["--target", &pid, "--net", "sh", "-c", &queue]).stderr(Stdio::null()).status();
        tried.is_ok_and(|status| status.success())
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for holder in &mut self.holders {
            let _gone = holder.kill();
            let _reaped = holder.wait();
        }
    }
}

fn sh(line: &str) {
    let output = Command::new("sh").arg("-c").arg(line).output().expect("there is a shell");
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

fn until(holds: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !holds() {
        assert!(began.elapsed() < std::time::Duration::from_secs(10), "waited ten seconds");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}
