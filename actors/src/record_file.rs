//! Lines at the end of a file that is put aside when it has grown.
//!
//! A line is whole or cut off, never mixed with another: one write each. What was written
//! survives the end of the process, not a power cut.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// When a file is put aside, and how many of those are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Bytes after which the file is put aside as `.1`; the one before becomes `.2`.
    pub max_bytes: u64,
    /// Files that are kept put aside; the oldest is removed.
    pub keep: u32,
}

impl Rotation {
    /// The file is never put aside.
    pub const NEVER: Self = Self { max_bytes: u64::MAX, keep: 1 };
}

/// A file to which lines are appended.
#[derive(Debug)]
pub struct RecordFile {
    path: PathBuf,
    rotation: Rotation,
    file: File,
    /// The file ends inside a line: a crash or a full disk cut it off.
    torn: bool,
}

impl RecordFile {
    /// Opens the file, or makes it (mode 0600).
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn open(path: &Path, rotation: Rotation) -> io::Result<Self> {
        let (file, torn) = open(path)?;
        Ok(Self { path: path.to_path_buf(), rotation, file, torn })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends lines, each ending in a line feed. They survive the end of the process when this
    /// returns.
    ///
    /// # Errors
    ///
    /// When the system refuses; then the last line may be cut off.
    pub fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        // Others may append too: the length is the system's to know.
        let length = self.file.metadata()?.len();
        if length > 0 && length.saturating_add(lines.len() as u64) > self.rotation.max_bytes {
            self.put_aside()?;
        }
        let mut bytes = if self.torn { b"\n".to_vec() } else { vec![] };
        bytes.extend_from_slice(lines);
        // Cut off until proven whole; one call, so that lines of two processes never mix.
        self.torn = true;
        self.file.write_all(&bytes)?;
        self.torn = false;
        Ok(())
    }

    fn put_aside(&mut self) -> io::Result<()> {
        for number in (1..self.rotation.keep).rev() {
            move_if_there(&numbered(&self.path, number), &numbered(&self.path, number + 1))?;
        }
        move_if_there(&self.path, &numbered(&self.path, 1))?;
        (self.file, self.torn) = open(&self.path)?;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<(File, bool)> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    let mut last = [b'\n'];
    if file.metadata()?.len() > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    Ok((file, last != [b'\n']))
}

/// The name of a file that was put aside.
#[must_use]
pub fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

fn move_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        moved => moved,
    }
}

/// Reads at most `limit` bytes from the end of a file, from the beginning of a line on. Nothing
/// when there is no file.
///
/// # Errors
///
/// When the file cannot be read.
pub fn tail(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    let from = length.saturating_sub(limit);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = vec![];
    file.take(limit).read_to_end(&mut bytes)?;
    if from > 0 {
        let line = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
        bytes.drain(..line);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record.jsonl");
        (directory, path)
    }

    #[test]
    fn a_file_that_has_grown_is_put_aside_and_the_oldest_goes() {
        let (_directory, path) = place();
        let mut file = RecordFile::open(&path, Rotation { max_bytes: 8, keep: 2 }).unwrap();
        for line in ["one\n", "two\n", "three\n", "four\n", "longer than it may be\n", "six\n"] {
            file.append(line.as_bytes()).unwrap();
        }
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        assert_eq!(read(&path), "six\n");
        assert_eq!(read(&numbered(&path, 1)), "longer than it may be\n");
        assert_eq!(read(&numbered(&path, 2)), "four\n");
        assert!(!numbered(&path, 3).exists());
    }

    #[test]
    fn a_line_that_was_cut_off_is_ended_before_the_next() {
        let (_directory, path) = place();
        fs::write(&path, "whole\ncut o").unwrap();
        RecordFile::open(&path, Rotation::NEVER).unwrap().append(b"next\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole\ncut o\nnext\n");
    }

    #[test]
    fn a_tail_begins_with_a_line() {
        let (_directory, path) = place();
        assert_eq!(tail(&path, 10).unwrap(), b"");
        fs::write(&path, "first\nsecond\nthird\n").unwrap();
        assert_eq!(tail(&path, 10).unwrap(), b"third\n");
        assert_eq!(tail(&path, 100).unwrap(), b"first\nsecond\nthird\n");
        assert_eq!(tail(&path, 3).unwrap(), b"");
    }
}
