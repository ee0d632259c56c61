//! The guard as a small file beside the key.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::files::{self, Overwrite};
use super::guard::{GuardIo, GuardStore};
use super::slot::{SLOT_BYTES, Slots};

/// Two slots at fixed offsets of one file, locked against other processes.
///
/// The room is taken when the file is made, so a full disk does not stop a write later.
#[derive(Debug)]
pub struct FileGuard {
    path: PathBuf,
    file: Option<File>,
    // Held for as long as the guard is open. It has a file of its own, because the guard's
    // own file is replaced when it is made anew.
    lock: File,
}

impl Drop for FileGuard {
    /// Closing alone would not do: a child process that is being started holds a copy of the
    /// descriptor, and with it the lock, until it runs its own program.
    fn drop(&mut self) {
        let _ = self.lock.unlock();
    }
}

impl FileGuard {
    /// Opens the guard with this name, whether it is there or not, and locks it.
    ///
    /// # Errors
    ///
    /// `GuardIo` when another process has it open or the directory cannot be written.
    pub fn open(path: &Path) -> Result<Self, GuardIo> {
        files::create_directory(files::parent(path)).map_err(|error| GuardIo(error.to_string()))?;
        let mut lock_path = path.as_os_str().to_owned();
        lock_path.push(".lock");
        let lock_path = PathBuf::from(lock_path);
        let mut options = OpenOptions::new();
        let lock = options.write(true).create(true).truncate(false).mode(0o600).open(&lock_path);
        let lock = lock.map_err(|error| failure("open", &lock_path, &error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_path_buf(), file: None, lock }),
            Err(TryLockError::WouldBlock) => {
                let place = path.display();
                Err(GuardIo(format!("the guard {place} is in use by another process; stop that one first")))
            }
            Err(TryLockError::Error(error)) => Err(failure("lock", &lock_path, &error)),
        }
    }

    /// What is in a guard, without the lock: to look at one that is in use. A slot that is
    /// being written may look torn.
    ///
    /// # Errors
    ///
    /// `GuardIo` when the file cannot be read.
    pub fn peek(path: &Path) -> Result<Slots, GuardIo> {
        let bytes = match files::read_public(path, 2 * SLOT_BYTES as u64) {
            Ok(bytes) => bytes,
            Err(files::FileError::Missing { .. }) => return Ok(Slots::Missing),
            // Not a guard as it was made: neither part of it is to be trusted.
            Err(files::FileError::TooLarge { .. }) => vec![],
            Err(error) => return Err(GuardIo(error.to_string())),
        };
        let (first, second) = bytes.split_at(bytes.len().min(SLOT_BYTES));
        Ok(Slots::Present([first.to_vec(), second.to_vec()]))
    }
}

fn failure(action: &str, path: &Path, error: &std::io::Error) -> GuardIo {
    GuardIo(format!("cannot {action} {}: {error}", path.display()))
}

impl GuardStore for FileGuard {
    fn read(&mut self) -> Result<Slots, GuardIo> {
        self.file = match OpenOptions::new().read(true).write(true).open(&self.path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(failure("open", &self.path, &error)),
        };
        if self.file.is_none() {
            return Ok(Slots::Missing);
        }
        Self::peek(&self.path)
    }

    fn write(&mut self, slot: usize, bytes: &[u8]) -> Result<(), GuardIo> {
        let Some(file) = &self.file else {
            return Err(GuardIo(format!("the guard {} is not open", self.path.display())));
        };
        let named = file.metadata().map_err(|error| failure("examine", &self.path, &error))?;
        if named.nlink() == 0 {
            return Err(GuardIo(format!("the guard {} was removed or replaced", self.path.display())));
        }
        fail::fail_point!("guard.write_failed", |_| Err(GuardIo("failpoint guard.write_failed".into())));
        let offset = (slot * SLOT_BYTES) as u64;
        file.write_all_at(bytes, offset).map_err(|error| failure("write", &self.path, &error))
    }

    fn sync(&mut self) -> Result<(), GuardIo> {
        let Some(file) = &self.file else {
            return Err(GuardIo(format!("the guard {} is not open", self.path.display())));
        };
        fail::fail_point!("guard.before_sync");
        // The size never changes, so the data is all there is to sync.
        file.sync_data().map_err(|error| failure("sync", &self.path, &error))
    }

    fn create(&mut self, slot: &[u8]) -> Result<(), GuardIo> {
        let mut bytes = slot.to_vec();
        bytes.resize(2 * SLOT_BYTES, 0);
        files::write_private(&self.path, &bytes, Overwrite::Replace)
            .map_err(|error| GuardIo(error.to_string()))?;
        let reopened = OpenOptions::new().read(true).write(true).open(&self.path);
        self.file = Some(reopened.map_err(|error| failure("open", &self.path, &error))?);
        Ok(())
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::super::slot::tests::record;
    use super::super::slot::{Verdict, judge};
    use super::*;

    fn ruling(guard: &mut FileGuard) -> u64 {
        match judge(&guard.read().unwrap()) {
            Verdict::Rules { record, torn: None } => record.height.0,
            other => panic!("nothing rules: {other:?}"),
        }
    }

    #[test]
    fn what_was_written_is_there_after_opening_again() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("config/guard");
        let mut guard = FileGuard::open(&path).unwrap();
        assert_eq!(guard.read(), Ok(Slots::Missing));
        guard.create(&record(0, 4).encode()).unwrap();
        for (sequence, height) in [(1, 5), (2, 6), (3, 7)] {
            guard.write(record(sequence, height).slot(), &record(sequence, height).encode()).unwrap();
            assert_eq!(ruling(&mut guard), height);
        }
        drop(guard);
        assert_eq!(ruling(&mut FileGuard::open(&path).unwrap()), 7);
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!((metadata.len(), metadata.mode() & 0o777), (2 * SLOT_BYTES as u64, 0o600));
    }

    #[test]
    fn a_second_process_is_kept_out() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("guard");
        let first = FileGuard::open(&path).unwrap();
        let refused = FileGuard::open(&path).unwrap_err();
        assert!(refused.to_string().contains("in use by another process"), "{refused}");
        drop(first);
        assert!(FileGuard::open(&path).is_ok());
    }

    #[test]
    fn a_guard_that_was_removed_while_it_was_open_takes_no_more_writes() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("guard");
        let mut guard = FileGuard::open(&path).unwrap();
        guard.create(&record(0, 4).encode()).unwrap();
        std::fs::remove_file(&path).unwrap();
        let refused = guard.write(1, &record(1, 5).encode()).unwrap_err();
        assert!(refused.to_string().contains("was removed"), "{refused}");
    }

    #[test]
    fn a_file_of_another_size_is_damage() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("guard");
        let mut guard = FileGuard::open(&path).unwrap();
        for content in [vec![], vec![1; 100], vec![0; 2 * SLOT_BYTES + 1]] {
            std::fs::write(&path, content).unwrap();
            assert!(matches!(judge(&guard.read().unwrap()), Verdict::Damaged(_)));
        }
    }
}
