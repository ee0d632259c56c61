//! The blocks of the dev DA layer: one file that only grows.
//!
//! The file is a magic number and then one frame per block: length, CRC-32 of the payload (both
//! little-endian `u32`), payload. Block h is the h-th frame. Only the place of each frame is kept
//! in memory. A frame that a crash left unfinished is cut off when the file is opened; a damaged
//! frame before the last one is an error, because blobs behind it would be lost.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::broadcast;
use tracing::warn;

use super::DevDaError;
use super::frame::{self, StoredBlob};

const MAGIC: &[u8; 8] = b"batonDA1";
/// The file's name in the home directory.
const FILE: &str = "da-blocks";
/// Blocks a subscriber may be behind before it loses events, as local-da has it.
const EVENTS: usize = 64;

/// A block was added.
#[derive(Clone, Debug)]
pub struct NewBlock {
    /// Its height.
    pub height: u64,
    /// The namespaces of its blobs.
    pub namespaces: Vec<[u8; 29]>,
}

#[derive(Clone, Copy)]
struct Place {
    offset: u64,
    length: u32,
    empty: bool,
}

/// The blocks.
pub struct Store {
    file: File,
    path: PathBuf,
    /// Where the next frame goes. Held while a block is added, so heights are told in order.
    end: Mutex<u64>,
    places: RwLock<Vec<Place>>,
    blocks: broadcast::Sender<NewBlock>,
}

impl Drop for Store {
    /// Closing alone would not do: a child process that is being started holds a copy of the
    /// descriptor, and with it the lock, until it runs its own program.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

impl Store {
    /// Opens the file in a home directory, making both when they are missing. Without a home the
    /// blocks lie in a temporary file that is gone with the process.
    pub fn open(home: Option<&Path>) -> Result<Self, DevDaError> {
        let (path, temporary) = match home {
            Some(home) => (home.join(FILE), false),
            None => (std::env::temp_dir().join(format!("{FILE}-{}", uuid::Uuid::new_v4())), true),
        };
        let at = |source| DevDaError::Store { path: path.clone(), source };
        if let Some(home) = home {
            std::fs::create_dir_all(home).map_err(at)?;
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .create_new(temporary)
            .truncate(false)
            .open(&path)
            .map_err(at)?;
        if temporary {
            std::fs::remove_file(&path).map_err(at)?;
        }
        if file.try_lock().is_err() {
            return Err(DevDaError::InUse { path });
        }
        let (places, end) = read_places(&file, &path)?;
        if let Some(home) = home {
            File::open(home).and_then(|directory| directory.sync_all()).map_err(at)?;
        }
        let places = RwLock::new(places);
        Ok(Self { file, path, end: Mutex::new(end), places, blocks: broadcast::Sender::new(EVENTS) })
    }

    /// The height of the newest block; zero before the first.
    pub fn height(&self) -> u64 {
        self.places.read().unwrap_or_else(PoisonError::into_inner).len() as u64
    }

    /// Hears of every block from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<NewBlock> {
        self.blocks.subscribe()
    }

    /// Adds a block and returns its height. Blobs are on the disk when it returns; an empty
    /// block is only written, a crash of the machine may take it back.
    pub fn append(&self, now: u64, blobs: &[StoredBlob]) -> io::Result<u64> {
        let mut end = self.lock_end();
        let height = self.height() + 1;
        let newest = self.time(height - 1)?.unwrap_or(0);
        let frame = frame::encode(height, now.max(newest + 1), blobs)?;
        let written = self
            .file
            .write_all_at(&frame, *end)
            .and_then(|()| if blobs.is_empty() { Ok(()) } else { self.file.sync_data() });
        if let Err(error) = written {
            // What is half written would be in the way of the next frame only if this fails too,
            // and the next frame overwrites it.
            let _ = self.file.set_len(*end);
            return Err(error);
        }
        let length = u32::try_from(frame.len()).expect("the codec bounds frames far below 4 GiB");
        let place = Place { offset: *end, length, empty: blobs.is_empty() };
        self.places.write().unwrap_or_else(PoisonError::into_inner).push(place);
        *end += u64::from(length);
        let namespaces = blobs.iter().map(|blob| blob.namespace).collect();
        // Nobody may be subscribed.
        let _ = self.blocks.send(NewBlock { height, namespaces });
        Ok(height)
    }

    /// The time of a block in nanoseconds since 1970; `None` when there is no such block.
    pub fn time(&self, height: u64) -> io::Result<Option<u64>> {
        let Some(place) = self.place(height) else { return Ok(None) };
        let mut start = [0; frame::START];
        self.file.read_exact_at(&mut start, place.offset)?;
        Ok(Some(frame::time(&start)))
    }

    /// The blobs of a block in the order of submission; none when there is no such block.
    pub fn blobs(&self, height: u64) -> io::Result<Vec<StoredBlob>> {
        let Some(place) = self.place(height).filter(|place| !place.empty) else { return Ok(Vec::new()) };
        let mut bytes = vec![0; place.length as usize];
        self.file.read_exact_at(&mut bytes, place.offset)?;
        frame::decode(&bytes).ok_or_else(|| {
            let words = format!("block {height} in {} is damaged", self.path.display());
            io::Error::new(io::ErrorKind::InvalidData, words)
        })
    }

    fn place(&self, height: u64) -> Option<Place> {
        let index = usize::try_from(height.checked_sub(1)?).ok()?;
        self.places.read().unwrap_or_else(PoisonError::into_inner).get(index).copied()
    }

    fn lock_end(&self) -> MutexGuard<'_, u64> {
        // The end only moves after everything that can fail.
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads where the frames are and cuts off an unfinished one.
fn read_places(file: &File, path: &Path) -> Result<(Vec<Place>, u64), DevDaError> {
    let at = |source| DevDaError::Store { path: path.to_owned(), source };
    let length = file.metadata().map_err(at)?.len();
    let mut reader = BufReader::new(file);
    let mut magic = Vec::new();
    reader.by_ref().take(MAGIC.len() as u64).read_to_end(&mut magic).map_err(at)?;
    if !MAGIC.starts_with(&magic) {
        return Err(DevDaError::NotOurs { path: path.to_owned() });
    }
    if magic.len() < MAGIC.len() {
        file.write_all_at(MAGIC, 0).and_then(|()| file.sync_all()).map_err(at)?;
        return Ok((Vec::new(), MAGIC.len() as u64));
    }
    let mut places = Vec::new();
    let mut end = MAGIC.len() as u64;
    while let Some(place) = next_place(&mut reader, end, places.len() as u64 + 1, length).map_err(at)? {
        end += u64::from(place.length);
        places.push(place);
    }
    if end < length {
        if is_followed_by_a_block(&mut reader, end, length).map_err(at)? {
            return Err(DevDaError::Damaged { path: path.to_owned(), offset: end });
        }
        let bytes = length - end;
        warn!(path = %path.display(), bytes, "cut off a block that was not completely written");
        file.set_len(end).and_then(|()| file.sync_all()).map_err(at)?;
    }
    Ok((places, end))
}

/// The frame at an offset, when there is a whole and undamaged one.
fn next_place(reader: &mut impl Read, offset: u64, height: u64, end: u64) -> io::Result<Option<Place>> {
    let Some(bytes) = read_frame(reader, end - offset)? else { return Ok(None) };
    let Some(empty) = frame::check(&bytes, Some(height)) else { return Ok(None) };
    let length = u32::try_from(bytes.len()).expect("the codec bounds frames far below 4 GiB");
    Ok(Some(Place { offset, length, empty }))
}

/// Whether a whole frame comes after the damaged one at an offset: then this is no torn end.
fn is_followed_by_a_block(reader: &mut (impl Read + Seek), offset: u64, end: u64) -> io::Result<bool> {
    reader.seek(SeekFrom::Start(offset))?;
    let Some(damaged) = read_frame(reader, end - offset)? else { return Ok(false) };
    let rest = end - offset - damaged.len() as u64;
    Ok(read_frame(reader, rest)?.is_some_and(|next| frame::check(&next, None).is_some()))
}

/// The bytes of the frame that comes next; `None` when its length makes no sense here.
fn read_frame(reader: &mut impl Read, available: u64) -> io::Result<Option<Vec<u8>>> {
    if available < frame::START as u64 {
        return Ok(None);
    }
    let mut bytes = vec![0; frame::START];
    reader.read_exact(&mut bytes)?;
    let Some(length) = frame::length(&bytes).filter(|length| *length as u64 <= available) else {
        return Ok(None);
    };
    bytes.resize(length, 0);
    reader.read_exact(&mut bytes[frame::START..])?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(byte: u8, length: usize) -> StoredBlob {
        let data = vec![byte; length];
        StoredBlob { namespace: [byte; 29], data, share_version: 0, commitment: [byte; 32], signer: None }
    }

    /// A store with a blob, an empty block and two blobs, closed again.
    fn three_blocks(home: &Path) -> PathBuf {
        let store = Store::open(Some(home)).unwrap();
        assert_eq!(store.append(100, &[blob(1, 10)]).unwrap(), 1);
        assert_eq!(store.append(50, &[]).unwrap(), 2);
        assert_eq!(store.append(200, &[blob(2, 20), blob(3, 30)]).unwrap(), 3);
        home.join(FILE)
    }

    #[test]
    fn blocks_are_there_after_a_restart() {
        let home = tempfile::tempdir().unwrap();
        three_blocks(home.path());
        let store = Store::open(Some(home.path())).unwrap();
        assert_eq!(store.height(), 3);
        assert_eq!(store.blobs(1).unwrap(), [blob(1, 10)]);
        assert_eq!(store.blobs(2).unwrap(), []);
        assert_eq!(store.blobs(3).unwrap(), [blob(2, 20), blob(3, 30)]);
        assert_eq!(store.blobs(4).unwrap(), []);
        assert_eq!(store.blobs(0).unwrap(), []);
        let times: Vec<Option<u64>> = (0..5).map(|height| store.time(height).unwrap()).collect();
        assert_eq!(
            times,
            [None, Some(100), Some(101), Some(200), None],
            "times rise also when the clock does not"
        );
        assert_eq!(store.append(0, &[]).unwrap(), 4);
    }

    #[test]
    fn a_block_that_was_cut_anywhere_is_dropped_and_the_others_stay() {
        let home = tempfile::tempdir().unwrap();
        let file = three_blocks(home.path());
        let whole = std::fs::read(&file).unwrap();
        let second = Store::open(Some(home.path())).unwrap().place(3).unwrap().offset;
        for end in usize::try_from(second).unwrap()..whole.len() {
            std::fs::write(&file, &whole[..end]).unwrap();
            let store = Store::open(Some(home.path())).unwrap();
            assert_eq!(store.height(), 2, "cut at {end}");
            assert_eq!(store.append(300, &[blob(4, 5)]).unwrap(), 3);
            drop(store);
            let store = Store::open(Some(home.path())).unwrap();
            assert_eq!((store.height(), store.blobs(3).unwrap()), (3, vec![blob(4, 5)]));
        }
    }

    #[test]
    fn a_tail_of_zeroes_or_noise_is_cut_off() {
        let home = tempfile::tempdir().unwrap();
        let file = three_blocks(home.path());
        let whole = std::fs::read(&file).unwrap();
        for tail in [vec![0; 100], vec![255; 100], vec![7; 3]] {
            std::fs::write(&file, [whole.clone(), tail].concat()).unwrap();
            assert_eq!(Store::open(Some(home.path())).unwrap().height(), 3);
            assert_eq!(std::fs::read(&file).unwrap(), whole);
        }
    }

    #[test]
    fn damage_before_the_last_block_is_an_error_and_nothing_is_cut() {
        let home = tempfile::tempdir().unwrap();
        let file = three_blocks(home.path());
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[MAGIC.len() + frame::START + 5] ^= 1;
        std::fs::write(&file, &bytes).unwrap();
        let error = Store::open(Some(home.path())).err().unwrap();
        assert!(matches!(error, DevDaError::Damaged { offset: 8, .. }), "{error}");
        assert_eq!(std::fs::read(&file).unwrap(), bytes);
    }

    #[test]
    fn a_file_of_something_else_and_a_home_in_use_are_refused() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join(FILE), b"something else").unwrap();
        assert!(matches!(Store::open(Some(home.path())), Err(DevDaError::NotOurs { .. })));
        let home = tempfile::tempdir().unwrap();
        let _first = Store::open(Some(home.path())).unwrap();
        assert!(matches!(Store::open(Some(home.path())), Err(DevDaError::InUse { .. })));
    }

    #[test]
    fn without_a_home_nothing_stays_behind() {
        let store = Store::open(None).unwrap();
        assert_eq!(store.append(1, &[blob(9, 9)]).unwrap(), 1);
        assert_eq!(store.blobs(1).unwrap(), [blob(9, 9)]);
        assert!(!store.path.exists());
    }
}
