//! Watches the room on the store's file system, and keeps a reserve to get out of trouble with.
//!
//! Production stops at a mark well before the disk is full, and goes on with hysteresis (P9,
//! hazard S2). The reserve file is given up when even the mark did not help, so that the store
//! can still finish what it began.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use actix::{
    Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, MessageResult, Recipient,
    WrapFuture,
};
use actix_rt::Arbiter;
use baton_actors::quiet::Quiet;
use baton_messages::supervisor::DiskHealthChanged;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::time::Instant;
use tracing::{error, info, warn};

/// A look that takes so long is reported.
const HANGS_AFTER: Duration = Duration::from_secs(5);

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

/// Looks at the disk once. The caller waits on a thread of its own: on a mount that hangs it takes
/// as long as that lasts.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Option<(Room, u64)>")]
struct Look;

/// Touches the file system.
#[derive(Debug)]
struct Prober {
    config: Config,
    metrics: Metrics,
    room: Room,
    quiet: Quiet,
}

impl Prober {
    fn new(config: Config, metrics: Metrics) -> Self {
        Self { config, metrics, room: Room::Enough, quiet: Quiet::default() }
    }

    /// How much room there is, and how many bytes; `None` when nobody can say.
    fn look(&mut self) -> Option<(Room, u64)> {
        let free = match free_bytes(&self.config.directory) {
            Ok(free) => free,
            Err(error) => {
                if self.quiet.says(&error.to_string()) {
                    let directory = self.config.directory.display();
                    warn!(%error, %directory, "cannot see how much room there is");
                }
                return None;
            }
        };
        self.metrics.free.set(i64::try_from(free).unwrap_or(i64::MAX));
        self.room = room(free, self.config.min_free, self.room);
        match self.room {
            Room::Critical => self.give_up_reserve(),
            Room::Enough => self.take_reserve(free),
            Room::Low => {}
        }
        Some((self.room, free))
    }

    fn reserve_file(&self) -> PathBuf {
        self.config.directory.join("reserve")
    }

    fn give_up_reserve(&mut self) {
        match fs::remove_file(self.reserve_file()) {
            Ok(()) => warn!("gave the reserve up"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if self.quiet.says(&error.to_string()) => error!(%error, "cannot give the reserve up"),
            Err(_) => {}
        }
    }

    fn take_reserve(&mut self, free: u64) {
        let file = self.reserve_file();
        let wanted = self.config.reserve;
        if wanted == 0
            || file.exists()
            || free < wanted.saturating_add(self.config.min_free.saturating_mul(2))
        {
            return;
        }
        if let Err(error) = allocate(&file, wanted) {
            if self.quiet.says(&error.to_string()) {
                warn!(%error, "cannot hold a reserve");
            }
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

impl Actor for Prober {
    type Context = Context<Self>;
}

impl Handler<Look> for Prober {
    type Result = MessageResult<Look>;

    fn handle(&mut self, _: Look, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.look())
    }
}

/// The watch: tells what is seen, and that nothing is seen any more.
#[derive(Debug)]
pub struct DiskWatch {
    config: Config,
    prober: Recipient<Look>,
    listeners: Vec<Recipient<DiskHealthChanged>>,
    room: Room,
    /// Since when a look is under way.
    looking: Option<Instant>,
    hangs: bool,
}

impl DiskWatch {
    /// Begins to watch. The disk is touched on a thread of its own: what hangs there stops
    /// nothing else (hazard E3).
    pub fn start(
        config: Config,
        listeners: Vec<Recipient<DiskHealthChanged>>,
        metrics: Metrics,
    ) -> Addr<Self> {
        let told = config.clone();
        let prober = Prober::start_in_arbiter(&Arbiter::new().handle(), move |_| Prober::new(told, metrics));
        Self::over(config, prober.recipient(), listeners).start()
    }

    const fn over(
        config: Config,
        prober: Recipient<Look>,
        listeners: Vec<Recipient<DiskHealthChanged>>,
    ) -> Self {
        Self { config, prober, listeners, room: Room::Enough, looking: None, hangs: false }
    }

    fn begin_look(&mut self, ctx: &mut Context<Self>) {
        match self.looking {
            None => {
                self.looking = Some(Instant::now());
                // Without a time-out: it is back when it is back, and until then nobody asks again.
                let look = self.prober.send(Look).into_actor(self);
                ctx.spawn(look.map(|seen, this, _| this.end_look(seen.ok().flatten())));
            }
            Some(since) if since.elapsed() >= HANGS_AFTER && !self.hangs => {
                self.hangs = true;
                let directory = self.config.directory.display();
                error!(%directory, "the file system does not answer");
                self.tell(Some(format!(
                    "the file system of {directory} does not answer for {HANGS_AFTER:?}: look at its mount"
                )));
            }
            Some(_) => {}
        }
    }

    fn end_look(&mut self, seen: Option<(Room, u64)>) {
        self.looking = None;
        let hung = std::mem::take(&mut self.hangs);
        let (now, free) = match seen {
            Some(seen) => seen,
            None if hung => return self.tell(None),
            None => return,
        };
        if now != std::mem::replace(&mut self.room, now) || hung {
            let trouble = self.describe(now, free);
            self.tell(trouble);
        }
    }

    fn describe(&self, now: Room, free: u64) -> Option<String> {
        let (mark, enough) = (self.config.min_free, enough_again(self.config.min_free));
        match now {
            Room::Enough => {
                info!(free, "there is room on the disk");
                None
            }
            Room::Low | Room::Critical => {
                error!(free, mark, "the disk is filling up");
                Some(format!(
                    "{free} bytes are free; production stops below {mark} and goes on at {enough}: make room"
                ))
            }
        }
    }

    fn tell(&self, trouble: Option<String>) {
        for listener in &self.listeners {
            listener.do_send(DiskHealthChanged { trouble: trouble.clone() });
        }
    }
}

impl Actor for DiskWatch {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.begin_look(ctx);
        ctx.run_interval(self.config.interval, Self::begin_look);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use actix::ResponseFuture;

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
        let mut watch = Prober::new(config, Metrics::default());
        watch.take_reserve(u64::MAX);
        assert_eq!(fs::metadata(watch.reserve_file()).expect("taken").len(), 4096);
        watch.give_up_reserve();
        watch.give_up_reserve();
        assert!(!watch.reserve_file().exists());
    }

    /// A file system that answers after a while.
    struct Slow(Duration);

    impl Actor for Slow {
        type Context = Context<Self>;
    }

    impl Handler<Look> for Slow {
        type Result = ResponseFuture<Option<(Room, u64)>>;

        fn handle(&mut self, _: Look, _: &mut Context<Self>) -> Self::Result {
            let pause = std::mem::take(&mut self.0);
            Box::pin(async move {
                tokio::time::sleep(pause).await;
                Some((Room::Enough, 1000))
            })
        }
    }

    #[derive(Default)]
    struct Heard(Arc<Mutex<Vec<Option<String>>>>);

    impl Actor for Heard {
        type Context = Context<Self>;
    }

    impl Handler<DiskHealthChanged> for Heard {
        type Result = ();

        fn handle(&mut self, message: DiskHealthChanged, _: &mut Context<Self>) {
            self.0.lock().unwrap().push(message.trouble);
        }
    }

    #[actix::test]
    async fn a_mount_that_hangs_is_reported_once_and_that_it_is_back() {
        tokio::time::pause();
        let heard = Heard::default();
        let told = heard.0.clone();
        let config =
            Config { directory: "/data".into(), min_free: 100, reserve: 0, interval: Duration::from_secs(1) };
        let prober = Slow(Duration::from_secs(20)).start().recipient();
        let _watch = DiskWatch::over(config, prober, vec![heard.start().recipient()]).start();
        tokio::time::sleep(Duration::from_secs(15)).await;
        {
            let told = told.lock().unwrap();
            assert!(matches!(&told[..], [Some(trouble)] if trouble.contains("does not answer")), "{told:?}");
        }
        tokio::time::sleep(Duration::from_secs(15)).await;
        assert_eq!(told.lock().unwrap().last(), Some(&None));
        assert_eq!(told.lock().unwrap().len(), 2);
    }
}
