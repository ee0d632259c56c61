//! The disk fills up, and there is room again; all of it real processes.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sim::process::{Load, Site, verify};

const BLOCKS: [&str; 4] = ["--node.block_time", "50ms", "--da.block_time", "300ms"];

fn load(site: &Site) -> Load {
    Load::start(&site.kv_url(), &site.oracle, 2, Duration::from_millis(10))
}

/// The disk watch looks once a second. For some looks it is told that next to nothing is free.
#[tokio::test(flavor = "multi_thread")]
async fn production_stops_before_the_disk_is_full_and_goes_on_when_there_is_room() {
    let site = Site::new(&BLOCKS).await;
    let low = "disk.free=4*off->8*return(100000)->off".to_owned();
    let node = site.start(&[("FAILPOINTS", low)]);
    site.until("readiness", || async { site.unready().await.is_empty() }).await;
    let load = load(&site);
    let low = || async { site.unready().await.contains("100000 bytes are free") };
    site.until("the disk to be low", low).await;
    site.until("an end of production", || async {
        site.status().await.is_some_and(|status| status["supervisor"]["grant"].is_null())
    })
    .await;
    let height = site.height().await;
    let (code, answer) = site.post("while-the-disk-is-low=1", "accepted").await;
    assert_eq!(code, 503, "{answer}");
    assert!(answer.contains("not_ready") && answer.contains("100000 bytes are free"), "{answer}");
    let scrape = site.scrape().await;
    assert_eq!(scrape.value("evnode_disk_free_bytes"), Some(100_000.0));
    assert_eq!(
        (scrape.value("evnode_node_ready"), scrape.value("evnode_node_eligible")),
        (Some(0.0), Some(0.0))
    );
    assert_eq!(site.height().await, height, "a block was made on a disk without room");
    assert!(low().await, "the test was too slow to see it");

    site.until("readiness", || async { site.unready().await.is_empty() }).await;
    site.until("blocks", || async { site.height().await > height + 5 }).await;
    load.stop().await;
    site.drain().await;
    assert_eq!(node.terminate().await, Some(0));
    let found = verify(&site).await;
    assert!(found.acknowledged > 0, "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_whose_writes_fail_for_want_of_room_is_opened_again_and_loses_nothing() {
    let site = Site::new(&BLOCKS).await;
    let full = "storage.full=100*off->1*return->150*off->3*return->off".to_owned();
    let node = site.start(&[("FAILPOINTS", full)]);
    let load = load(&site);
    site.until("a store that was opened again, and again", || async {
        site.status().await.is_some()
            && site.scrape().await.value("evnode_raft_reopened_total").is_some_and(|count| count >= 2.0)
            && site.unready().await.is_empty()
    })
    .await;
    let height = site.height().await;
    site.until("blocks", || async { site.height().await > height + 5 }).await;
    let acknowledged = load.acknowledged();
    site.until("transactions", || async { load.acknowledged() > acknowledged + 5 }).await;
    load.stop().await;
    site.drain().await;
    assert_eq!(node.terminate().await, Some(0));
    let found = verify(&site).await;
    assert!(found.acknowledged > 0, "{found:?}");
}

/// A small file system of its own; unmounted when dropped.
struct Small(tempfile::TempDir);

impl Small {
    fn mount() -> Result<Self, String> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=160m", "tmpfs"]).arg(directory.path());
        match mount.output() {
            Ok(output) if output.status.success() => Ok(Self(directory)),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().replace('\n', " ")),
            Err(error) => Err(error.to_string()),
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(self.path()).expect("a file system");
        stat.f_bavail * stat.f_frsize
    }

    /// Fills it up to so many bytes that stay free.
    fn fill(&self, leave: u64) -> PathBuf {
        let path = self.path().join("filler");
        let mut file = File::options().create(true).append(true).open(&path).expect("a file");
        let piece = vec![7; 64 << 10];
        while self.free() > leave {
            let length = usize::try_from(self.free() - leave).unwrap_or(usize::MAX).min(piece.len());
            if file.write_all(&piece[..length]).is_err() {
                break;
            }
        }
        path
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.path()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} is still mounted", self.path().display());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_that_is_really_full_stops_production_and_loses_nothing() {
    let small = match Small::mount() {
        Ok(small) => small,
        Err(reason) => {
            return sim::skip(
                "a_file_system_that_is_really_full_stops_production_and_loses_nothing",
                "mount",
                &reason,
            );
        }
    };
    let data = small.path().join("data").display().to_string();
    let flags = [&BLOCKS[..], &["--db_path", &data, "--disk.min_free", "16777216"]].concat();
    let mut site = Site::new(&flags).await;
    site.home = site.home.clone().with_db_path(&data);
    let node = site.started().await;
    let load = load(&site);
    site.drain().await;
    let reserve = Path::new(&data).join("reserve");
    site.until("a reserve", || async { reserve.exists() }).await;

    // Below the mark: production stops.
    let filler = small.fill(12 << 20);
    site.until("the disk to be low", || async { site.unready().await.contains("bytes are free") }).await;
    let (code, answer) = site.post("while-the-disk-is-low=1", "accepted").await;
    assert_eq!(code, 503, "{answer}");
    assert!(answer.contains("bytes are free"), "{answer}");
    // Not one byte left: the reserve is given up; that gone too, the node lives and says why.
    small.fill(0);
    site.until("no reserve", || async { !reserve.exists() }).await;
    small.fill(0);
    site.until("the disk to be low again", || async {
        small.free() == 0 && site.unready().await.contains("bytes are free")
    })
    .await;
    let height = site.height().await;
    for number in 0..20 {
        let (code, answer) = site.post(&format!("while-the-disk-is-full={number}"), "accepted").await;
        assert_eq!(code, 503, "{answer}");
        assert!(site.unready().await.contains("bytes are free"));
    }
    assert_eq!(site.height().await, height, "a block was made on a full disk");

    fs::remove_file(filler).expect("the filler goes");
    site.until("readiness", || async { site.unready().await.is_empty() }).await;
    site.until("blocks", || async { site.height().await > height + 5 }).await;
    load.stop().await;
    site.drain().await;
    assert_eq!(node.terminate().await, Some(0));
    let found = verify(&site).await;
    assert!(found.acknowledged > 0, "{found:?}");
}
