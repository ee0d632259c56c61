//! Small private files: read only when nobody else can, written whole or not at all.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Why a file was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// There is no such file.
    #[error("{} does not exist", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// There is a file already, and it is not to be replaced.
    #[error("{} exists already and is not overwritten without --force", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// It is a directory or a device.
    #[error("{} is not a file", path.display())]
    NotAFile {
        /// What is there.
        path: PathBuf,
    },
    /// Others may read or write the file.
    #[error(
        "{} may be read or written by others (mode {mode:04o}); it holds a secret; run: chmod 600 '{}'",
        path.display(),
        path.display()
    )]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file belongs to another user.
    #[error(
        "{} belongs to user {owner}, this process runs as user {user}; run: chown {user} '{}'",
        path.display(),
        path.display()
    )]
    Owner {
        /// The file.
        path: PathBuf,
        /// The owner's user id.
        owner: u32,
        /// This process' user id.
        user: u32,
    },
    /// The file is larger than anything it could rightly hold.
    #[error("{} is larger than {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The most that is read.
        limit: u64,
    },
    /// The system refuses.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
}

impl FileError {
    fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        let path = path.to_path_buf();
        if source.kind() == std::io::ErrorKind::NotFound {
            return Self::Missing { path };
        }
        Self::Io { action, path, source }
    }
}

/// What happens to a file that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overwrite {
    /// It stays and the write is refused.
    Refuse,
    /// It is replaced, atomically.
    Replace,
}

/// Reads a file that only its owner can read. The buffer is wiped when it is dropped.
///
/// Links are followed; the checks are made on what is read, not on its name.
///
/// # Errors
///
/// `FileError` when the file is missing, readable or writable by others, owned by another
/// user than this process' or root, or longer than `limit` bytes.
pub fn read_private(path: &Path, limit: u64) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let file = File::open(path).map_err(|source| FileError::io("open", path, source))?;
    check_private(path, &file)?;
    read_limited(path, file, limit)
}

/// Reads a file that may be read by anybody.
///
/// # Errors
///
/// `FileError` when the file is missing or longer than `limit` bytes.
pub fn read_public(path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    let file = File::open(path).map_err(|source| FileError::io("open", path, source))?;
    read_limited(path, file, limit).map(|mut bytes| std::mem::take(&mut *bytes))
}

fn read_limited(path: &Path, file: File, limit: u64) -> Result<Zeroizing<Vec<u8>>, FileError> {
    // Room for everything at once: a vector that grows leaves copies of a secret behind.
    let length = file.metadata().map_or(0, |metadata| metadata.len()).min(limit);
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 1));
    let mut bounded = file.take(limit + 1);
    bounded.read_to_end(&mut bytes).map_err(|source| FileError::io("read", path, source))?;
    if bytes.len() as u64 > limit {
        return Err(FileError::TooLarge { path: path.to_path_buf(), limit });
    }
    Ok(bytes)
}

fn check_private(path: &Path, file: &File) -> Result<(), FileError> {
    let metadata = file.metadata().map_err(|source| FileError::io("examine", path, source))?;
    if metadata.is_dir() {
        return Err(FileError::NotAFile { path: path.to_path_buf() });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(FileError::Permissions { path: path.to_path_buf(), mode });
    }
    check_owner(path, metadata.uid(), rustix::process::geteuid().as_raw())
}

fn check_owner(path: &Path, owner: u32, user: u32) -> Result<(), FileError> {
    // What root gives out (a mounted secret, for example) root could read anyway.
    if owner == user || owner == 0 {
        return Ok(());
    }
    Err(FileError::Owner { path: path.to_path_buf(), owner, user })
}

/// Writes a file with mode 0600, whole or not at all; missing directories are made (0700).
/// Durable when it returns, its name included.
///
/// # Errors
///
/// `FileError` when the file exists and must stay, or the system refuses. Then what was
/// there before is untouched.
pub fn write_private(path: &Path, bytes: &[u8], overwrite: Overwrite) -> Result<(), FileError> {
    let directory = parent(path);
    create_directory(directory)?;
    // Mode 0600 is tempfile's default.
    let mut temporary =
        tempfile::NamedTempFile::new_in(directory).map_err(|source| FileError::io("create", path, source))?;
    temporary.write_all(bytes).map_err(|source| FileError::io("write", path, source))?;
    temporary.as_file().sync_all().map_err(|source| FileError::io("sync", path, source))?;
    match overwrite {
        Overwrite::Replace => temporary.persist(path),
        Overwrite::Refuse => temporary.persist_noclobber(path),
    }
    .map_err(|refused| match refused.error.kind() {
        std::io::ErrorKind::AlreadyExists => FileError::Exists { path: path.to_path_buf() },
        _ => FileError::io("rename a new file to", path, refused.error),
    })?;
    sync_directory(directory)
}

/// The directory a file is in.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes a directory that only its owner can enter, with everything above it.
///
/// # Errors
///
/// `FileError` when the system refuses.
pub fn create_directory(directory: &Path) -> Result<(), FileError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|source| FileError::io("create the directory", directory, source))
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(directory: &Path) -> Result<(), FileError> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|source| FileError::io("sync the directory", directory, source))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn chmod(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_written_file_is_private_and_can_be_read_back() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("config/secret");
        write_private(&path, b"abc", Overwrite::Refuse).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(std::fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o7777, 0o700);
        assert_eq!(*read_private(&path, 3).unwrap(), b"abc");
    }

    #[test]
    fn a_file_others_can_read_is_refused_with_the_command_that_helps() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("secret");
        for mode in [0o640, 0o604, 0o660, 0o644, 0o610, 0o602] {
            std::fs::write(&path, "abc").unwrap();
            chmod(&path, mode);
            let refused = read_private(&path, 10).unwrap_err();
            assert!(matches!(refused, FileError::Permissions { mode: seen, .. } if seen == mode));
            assert!(refused.to_string().contains(&format!("chmod 600 '{}'", path.display())), "{refused}");
        }
        chmod(&path, 0o400);
        assert_eq!(*read_private(&path, 10).unwrap(), b"abc");
    }

    #[test]
    fn a_file_of_another_user_is_refused_unless_it_is_roots() {
        let path = Path::new("/keys/secret");
        let refused = check_owner(path, 1001, 1000).unwrap_err();
        assert!(refused.to_string().contains("chown 1000 '/keys/secret'"), "{refused}");
        assert!(check_owner(path, 1000, 1000).is_ok());
        assert!(check_owner(path, 0, 1000).is_ok());
        assert!(check_owner(path, 1000, 0).is_err(), "root does not trust a user's file");
    }

    #[test]
    fn what_must_stay_stays() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("secret");
        write_private(&path, b"old", Overwrite::Refuse).unwrap();
        assert!(matches!(write_private(&path, b"new", Overwrite::Refuse), Err(FileError::Exists { .. })));
        assert_eq!(*read_private(&path, 10).unwrap(), b"old");
        write_private(&path, b"new", Overwrite::Replace).unwrap();
        assert_eq!(*read_private(&path, 10).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn missing_long_and_wrong_files_are_named() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("secret");
        assert!(matches!(read_private(&path, 10), Err(FileError::Missing { .. })));
        write_private(&path, b"abcd", Overwrite::Refuse).unwrap();
        assert!(matches!(read_private(&path, 3), Err(FileError::TooLarge { limit: 3, .. })));
        chmod(home.path(), 0o700);
        assert!(matches!(read_private(home.path(), 3), Err(FileError::NotAFile { .. })));
    }
}
