//! The store on a real disk: one RocksDB, one write-ahead log, never disabled (P4).

use std::ops::{Bound, Deref};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use fail::fail_point;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode,
    Error, ErrorKind, IteratorMode, Options, ReadOptions, WriteBatch, WriteOptions,
};

use crate::backend::{Backend, Batch, Direction, Family, Operation, StoreError};
use crate::memory::is_empty;

const MIB: usize = 1 << 20;
/// Values from this size on lie in blob files: compaction does not copy block bodies around.
const BLOB_FROM: u64 = 4 * 1024;

/// A RocksDB directory.
pub struct Rocks {
    /// `None` once closed, and while it is being opened again. Nothing slow happens under this lock:
    /// readers are on threads that must go on.
    db: RwLock<Option<Arc<DB>>>,
    /// Read while the database is used, which takes as long as the device does. Whoever lets go of the
    /// database takes it out first, so that nobody comes anew, and then waits here for those who use it.
    in_use: RwLock<()>,
    /// One at a time lets go of it or takes it.
    turn: Mutex<()>,
    /// Closed for ever.
    closed: AtomicBool,
    path: PathBuf,
    /// Changes only while `db` is locked for writing.
    generation: AtomicU64,
}

impl std::fmt::Debug for Rocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rocks").finish_non_exhaustive()
    }
}

impl Rocks {
    /// Opens a directory and takes its lock; makes what is missing.
    ///
    /// # Errors
    ///
    /// `Io` also when another process has the directory open (see `is_lock_error`).
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let db = RwLock::new(Some(Arc::new(open(path)?)));
        Ok(Self {
            db,
            in_use: RwLock::default(),
            turn: Mutex::default(),
            closed: AtomicBool::default(),
            path: path.to_owned(),
            generation: AtomicU64::default(),
        })
    }

    /// Whether a directory holds a database at all.
    #[must_use]
    pub fn exists(path: &Path) -> bool {
        path.join("CURRENT").exists()
    }

    /// The database, for one use.
    fn db(&self) -> Result<InUse<'_>, StoreError> {
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
        let db_here = db.as_ref().ok_or_else(|| self.gone())?.clone();
        // Nobody waits for this lock while there is a database to use.
        let until_here = self.in_use.read().unwrap_or_else(PoisonError::into_inner);
        Ok(InUse { db: db_here, _until_here: until_here })
    }

    /// Why there is none.
    fn gone(&self) -> StoreError {
        match self.closed.load(Ordering::Relaxed) {
            true => StoreError::Io("the store is closed".into()),
            false => StoreError::reopening(),
        }
    }

    /// Lets go of the database; its lock is released when this returns.
    fn let_go(&self) {
        let before = self.db.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(db) = before {
            drop(self.in_use.write().unwrap_or_else(PoisonError::into_inner));
            db.cancel_all_background_work(true);
        }
    }
}

/// The database while somebody uses it.
struct InUse<'a> {
    // Dropped before the lock is released: the last one out closes it.
    db: Arc<DB>,
    _until_here: RwLockReadGuard<'a, ()>,
}

impl Deref for InUse<'_> {
    type Target = DB;

    fn deref(&self) -> &DB {
        &self.db
    }
}

fn open(path: &Path) -> Result<DB, StoreError> {
    let cache = Cache::new_lru_cache(16 * MIB);
    let families = Family::ALL
        .into_iter()
        .map(|family| ColumnFamilyDescriptor::new(family.name(), family_options(family, &cache)));
    DB::open_cf_descriptors(&options(), path, families).map_err(|error| store_error(&error))
}

fn options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // After a power cut the surviving writes are a prefix of all writes: what P4 builds on.
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_manual_wal_flush(false);
    options.set_max_total_wal_size(128 * MIB as u64);
    options.set_db_write_buffer_size(48 * MIB);
    options.set_max_open_files(512);
    options.set_max_background_jobs(2);
    options.set_keep_log_file_num(4);
    options.set_max_log_file_size(4 * MIB);
    options
}

fn family_options(family: Family, cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    // Filters and indices grow with the chain: in the cache they have its bound.
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_bloom_filter(10.0, false);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::Lz4);
    // What a flush frees at once, and what resident memory swings by under load (docs/chaos.md).
    options.set_write_buffer_size(8 * MIB);
    match family {
        Family::Bodies => {
            options.set_write_buffer_size(16 * MIB);
            options.set_enable_blob_files(true);
            options.set_min_blob_size(BLOB_FROM);
            options.set_blob_compression_type(DBCompressionType::Lz4);
            options.set_enable_blob_gc(true);
        }
        Family::KvState | Family::KvTree => options.set_write_buffer_size(16 * MIB),
        _ => {}
    }
    options
}

fn store_error(error: &Error) -> StoreError {
    let text = error.to_string();
    if text.contains("No space left") || text.contains("Disk quota exceeded") {
        return StoreError::Full(text);
    }
    match error.kind() {
        ErrorKind::Corruption | ErrorKind::InvalidArgument | ErrorKind::NotSupported => {
            StoreError::Corrupt(text)
        }
        _ => StoreError::Io(text),
    }
}

/// Whether an error says that the directory is open already, here or in another process.
#[must_use]
pub fn is_lock_error(error: &StoreError) -> bool {
    matches!(error, StoreError::Io(text) if text.contains("LOCK") && text.to_lowercase().contains("lock "))
}

fn family_handle(db: &DB, family: Family) -> &ColumnFamily {
    db.cf_handle(family.name()).expect("every family was opened with the database")
}

impl Backend for Rocks {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let db = self.db()?;
        let value = db.get_cf(family_handle(&db, family), key).map_err(|error| store_error(&error))?;
        Ok(value.map(Bytes::from))
    }

    fn scan(
        &self,
        family: Family,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let db = self.db()?;
        if is_empty(&range) {
            return Ok(vec![]);
        }
        let mut read = ReadOptions::default();
        match range.0 {
            Bound::Included(from) => read.set_iterate_lower_bound(from),
            Bound::Excluded(from) => read.set_iterate_lower_bound(successor(from)),
            Bound::Unbounded => {}
        }
        match range.1 {
            Bound::Included(to) => read.set_iterate_upper_bound(successor(to)),
            Bound::Excluded(to) => read.set_iterate_upper_bound(to),
            Bound::Unbounded => {}
        }
        let mode = match direction {
            Direction::Forward => IteratorMode::Start,
            Direction::Reverse => IteratorMode::End,
        };
        let mut found = Vec::new();
        for item in db.iterator_cf_opt(family_handle(&db, family), read, mode).take(limit) {
            let (key, value) = item.map_err(|error| store_error(&error))?;
            found.push((Bytes::from(key), Bytes::from(value)));
        }
        Ok(found)
    }

    fn write(&self, batch: Batch) -> Result<(), StoreError> {
        let db = self.db()?;
        if batch.only_in.is_some_and(|generation| generation != self.generation()) {
            return Err(StoreError::reopened());
        }
        let mut write = WriteBatch::default();
        for operation in batch.operations {
            match operation {
                Operation::Put(family, key, value) => write.put_cf(family_handle(&db, family), key, value),
                Operation::Delete(family, key) => write.delete_cf(family_handle(&db, family), key),
                Operation::DeleteRange(family, from, to) => {
                    write.delete_range_cf(family_handle(&db, family), from, to);
                }
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(false);
        options.disable_wal(false);
        db.write_opt(write, &options).map_err(|error| store_error(&error))
    }

    fn sync(&self) -> Result<(), StoreError> {
        let db = self.db()?;
        db.flush_wal(true).map_err(|error| store_error(&error))
    }

    /// The memory tables that the replay of the write-ahead log fills are flushed and synced by
    /// RocksDB: what is visible afterwards is durable, also when the sync before had failed.
    fn reopen(&self) -> Result<(), StoreError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if self.closed.load(Ordering::Relaxed) {
            return Err(self.gone());
        }
        self.let_go();
        fail_point!("storage.reopening");
        let opened = Arc::new(open(&self.path)?);
        let mut db = self.db.write().unwrap_or_else(PoisonError::into_inner);
        *db = Some(opened);
        self.generation.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    fn close(&self) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.closed.store(true, Ordering::Relaxed);
        self.let_go();
    }
}

/// The smallest key greater than this one.
fn successor(key: &[u8]) -> Vec<u8> {
    let mut next = key.to_vec();
    next.push(0);
    next
}

#[cfg(all(test, feature = "failpoints"))]
#[allow(clippy::disallowed_methods, reason = "a thread beside the one that opens is what is shown")]
mod tests {
    use std::sync::mpsc::{RecvTimeoutError, channel};
    use std::time::Duration;

    use super::*;

    /// A place that is armed is armed for every test.
    static TURN: Mutex<()> = Mutex::new(());

    /// What a reader on another thread is told once there is no database.
    fn refused_elsewhere(rocks: &Arc<Rocks>) -> Result<StoreError, RecvTimeoutError> {
        let (tell, told) = channel();
        let rocks = rocks.clone();
        std::thread::spawn(move || {
            loop {
                match rocks.get(Family::Meta, b"key") {
                    Ok(_) => std::thread::yield_now(),
                    Err(refused) => return tell.send(refused),
                }
            }
        });
        told.recv_timeout(Duration::from_secs(10))
    }

    /// A device that hangs in a call, and a store that is opened again because of another failure.
    #[test]
    fn nobody_waits_for_a_store_that_waits_for_its_device() {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = tempfile::tempdir().expect("a directory");
        let rocks = Arc::new(Rocks::open(directory.path()).expect("it opens"));
        let hangs = rocks.db().expect("it is open");
        let opening = rocks.clone();
        let opening = std::thread::spawn(move || opening.reopen());
        let refused = refused_elsewhere(&rocks);
        assert_eq!(rocks.generation(), 0, "what has begun is finished before");
        drop(hangs);
        opening.join().expect("no panic").expect("it opens again");
        assert_eq!(refused.expect("P8: nobody waits"), StoreError::reopening());
        assert_eq!(rocks.generation(), 1);
    }

    /// Replaying a write-ahead log takes as long as it takes; the threads of the actors read meanwhile.
    #[test]
    fn nobody_waits_for_a_store_that_is_being_opened_again() {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = tempfile::tempdir().expect("a directory");
        let rocks = Arc::new(Rocks::open(directory.path()).expect("it opens"));
        let mut batch = Batch::default();
        batch.put(Family::Meta, &b"key"[..], &b"value"[..]);
        rocks.write(batch).expect("it takes writes");
        rocks.sync().expect("it syncs");
        let (arrived, here) = channel();
        let (go, on) = channel::<()>();
        let on = std::sync::Mutex::new(on);
        let pause = move || {
            let _ = arrived.send(());
            let _ = on.lock().expect("once").recv();
        };
        fail::cfg_callback("storage.reopening", pause).expect("the place can be armed");
        let opening = rocks.clone();
        let opening = std::thread::spawn(move || opening.reopen());
        here.recv().expect("it is being opened");
        let refused = refused_elsewhere(&rocks);
        go.send(()).expect("it waits");
        fail::remove("storage.reopening");
        opening.join().expect("no panic").expect("it opens again");
        assert_eq!(refused.expect("P8: nobody waits"), StoreError::reopening());
        assert_eq!(rocks.get(Family::Meta, b"key"), Ok(Some(Bytes::from_static(b"value"))));
        assert_eq!(rocks.generation(), 1);
        rocks.close();
        let closed = rocks.reopen().expect_err("closed for ever");
        assert!(!closed.is_reopening(), "{closed}");
    }
}
