//! Watches the room on the store's file system, and keeps a reserve to get out of trouble with.
//!
//! Production stops at a mark well before the disk is full, and goes on with hysteresis (P9,
//! hazard S2). The reserve file is given up when even the mark did not help, so that the store
//! can still finish what it began.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Recipient};
use baton_messages::supervisor::DiskHealthChanged;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tracing::{error, info, warn};

/// Where and how much.
#[derive(Clone, Debug)]
pub struct Config {
    /// A directory on the file system to watch.
    pub directory: PathBuf,
    /// Production stops when fewer bytes are free.
    pub min_free: u64,
    /// Bytes held back in a file; zero for none.
    pub reserve: u64,
    /// How often to look.
    pub interval: Duration,
}

/// What the watch measures.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Free bytes.
    pub free: Gauge,
}

impl Metrics {
    /// Makes the metrics visible.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("disk_free_bytes", "Free bytes on the store's file system", self.free.clone());
    }
}

/// What follows from the room that is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Enough.
    Enough,
    /// Below the mark: nothing new.
    Low,
    /// Below half the mark: the reserve is needed.
    Critical,
}

/// Decides with hysteresis: what was low is enough again at one and a half marks.
#[must_use]
pub fn room(free: u64, min_free: u64, before: Room) -> Room {
    let enough = match before {
        Room::Enough => min_free,
        Room::Low | Room::Critical => enough_again(min_free),
    };
    if free >= enough {
        Room::Enough
    } else if free < min_free / 2 {
        Room::Critical
    } else {
        Room::Low
    }
}

const fn enough_again(min_free: u64) -> u64 {
    min_free.saturating_add(min_free / 2)
}

/// The watch.
#[derive(Debug)]
pub struct DiskWatch {
    config: Config,
    listeners: Vec<Recipient<DiskHealthChanged>>,
    metrics: Metrics,
    room: Room,
}

impl DiskWatch {
    /// A watch that begins when it is started.
    #[must_use]
    pub const fn new(config: Config, listeners: Vec<Recipient<DiskHealthChanged>>, metrics: Metrics) -> Self {
        Self { config, listeners, metrics, room: Room::Enough }
    }

    fn look(&mut self) {
        let free = match free_bytes(&self.config.directory) {
            Ok(free) => free,
            Err(error) => {
                let directory = self.config.directory.display();
                warn!(%error, %directory, "cannot see how much room there is");
                return;
            }
        };
        self.metrics.free.set(i64::try_from(free).unwrap_or(i64::MAX));
        let now = room(free, self.config.min_free, self.room);
        if now == Room::Critical {
            self.give_up_reserve();
        }
        if now != self.room {
            self.tell(now, free);
        }
        if now == Room::Enough {
            self.take_reserve(free);
        }
        self.room = now;
    }

    fn tell(&self, now: Room, free: u64) {
        let trouble = match now {
            Room::Enough => {
                info!(free, "there is room on the disk");
                None
            }
            Room::Low | Room::Critical => {
                error!(free, mark = self.config.min_free, "the disk is filling up");
                let (mark, enough) = (self.config.min_free, enough_again(self.config.min_free));
                Some(format!(
                    "{free} bytes are free; production stops below {mark} and goes on at {enough}: make room"
                ))
            }
        };
        for listener in &self.listeners {
            listener.do_send(DiskHealthChanged { trouble: trouble.clone() });
        }
    }

    fn reserve_file(&self) -> PathBuf {
        self.config.directory.join("reserve")
    }

    fn give_up_reserve(&self) {
        match fs::remove_file(self.reserve_file()) {
            Ok(()) => warn!("gave the reserve up"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => error!(%error, "cannot give the reserve up"),
        }
    }

    fn take_reserve(&self, free: u64) {
        let file = self.reserve_file();
        let wanted = self.config.reserve;
        if wanted == 0
            || file.exists()
            || free < wanted.saturating_add(self.config.min_free.saturating_mul(2))
        {
            return;
        }
        if let Err(error) = allocate(&file, wanted) {
            warn!(%error, "cannot hold a reserve");
            let _ = fs::remove_file(&file);
        }
    }
}

fn free_bytes(directory: &Path) -> io::Result<u64> {
    #[cfg(feature = "failpoints")]
    fail::fail_point!("disk.free", |bytes| {
        let bytes = bytes.expect("disk.free=return(BYTES) says how many");
        Ok(bytes.parse().expect("disk.free=return(BYTES) takes a number"))
    });
    let stat = rustix::fs::statvfs(directory)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn allocate(path: &Path, bytes: u64) -> io::Result<()> {
    let file = File::create(path)?;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes)?;
    Ok(())
}

impl Actor for DiskWatch {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.look();
        ctx.run_interval(self.config.interval, |this, _| this.look());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_comes_back_later_than_it_went() {
        assert_eq!(room(100, 100, Room::Enough), Room::Enough);
        assert_eq!(room(99, 100, Room::Enough), Room::Low);
        assert_eq!(room(149, 100, Room::Low), Room::Low);
        assert_eq!(room(150, 100, Room::Low), Room::Enough);
        assert_eq!(room(49, 100, Room::Low), Room::Critical);
    }

    #[test]
    fn the_reserve_is_taken_once_and_given_up() {
        let directory = tempfile::tempdir().expect("a directory");
        let config = Config {
            directory: directory.path().to_owned(),
            min_free: 0,
            reserve: 4096,
            interval: Duration::from_secs(1),
        };
        let watch = DiskWatch::new(config, vec![], Metrics::default());
        watch.take_reserve(u64::MAX);
        assert_eq!(fs::metadata(watch.reserve_file()).expect("taken").len(), 4096);
        watch.give_up_reserve();
        watch.give_up_reserve();
        assert!(!watch.reserve_file().exists());
    }
}
