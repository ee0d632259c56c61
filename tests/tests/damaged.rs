//! Files that are damaged, cut short or of another chain: a start is refused with the documented
//! code and a last line that names the file, and nothing on disk has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use baton_actors::signer::audit::{self, Event};
use sim::process::Site;

const WITHIN: Duration = Duration::from_secs(30);
/// Configuration, genesis or key refused.
const REFUSED: i32 = 78;
/// What is stored contradicts itself.
const INTEGRITY: i32 = 70;

/// Every file below a directory.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.is_file() {
            let bytes = fs::read(&path).expect("a file");
            found.insert(path, bytes);
        }
    }
    found
}

/// Writes what was there or something else, readable by its owner only.
fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("the file can be written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("its owner");
}

/// Starts the node, which must end by itself: its code, and its last line.
async fn ended(site: &Site, what: &str) -> (i32, String) {
    let mut node = site.start(&[]);
    let status =
        node.ended(WITHIN).await.unwrap_or_else(|| panic!("{what}: the node runs:\n{}", site.tail()));
    let tail = site.tail();
    assert!(!tail.contains("panicked"), "{what}: {tail}");
    let last = tail.lines().last().unwrap_or_default().to_owned();
    (status.code().unwrap_or_else(|| panic!("{what}: {status}")), last)
}

/// Starts the node with a damaged file, and again with the whole one in place.
async fn refused(site: &Site, path: &Path, damaged: &[u8], what: &str) -> String {
    let whole = fs::read(path).expect("the file");
    write(path, damaged);
    let before = files(site.home.root());
    let (code, last) = ended(site, what).await;
    assert_eq!(code, REFUSED, "{what}: {last}");
    assert!(last.starts_with("baton: ") && last.contains(&path.display().to_string()), "{what}: {last}");
    // RocksDB writes a log of its own whenever it is opened.
    let mut after = files(site.home.root());
    after.retain(|file, _| before.contains_key(file));
    let changed: Vec<_> = before.iter().filter(|(file, bytes)| after.get(*file) != Some(*bytes)).collect();
    let changed: BTreeSet<_> = changed
        .into_iter()
        .map(|(file, _)| file)
        .filter(|file| !file.starts_with(site.home.store()))
        .collect();
    assert!(changed.is_empty(), "{what}: changed {changed:?}");
    write(path, &whole);
    last
}

/// A site whose node has made some blocks and was stopped.
async fn with_blocks() -> Site {
    let site = Site::new(&["--node.block_time", "50ms"]).await;
    let node = site.started().await;
    let (code, answer) = site.post("before=damage", "executed").await;
    assert_eq!(code, 200, "{answer}");
    assert_eq!(node.terminate().await, Some(0));
    site
}

/// The whole file with one bit flipped, at every so many bytes.
fn flipped(whole: &[u8], step: usize) -> impl Iterator<Item = (usize, Vec<u8>)> {
    (0..whole.len()).step_by(step).map(|at| {
        let mut bytes = whole.to_vec();
        bytes[at] ^= 1;
        (at, bytes)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_file_with_a_bit_flipped_or_cut_short_is_refused() {
    let site = with_blocks().await;
    let path = site.home.signer();
    let whole = fs::read(&path).expect("the key");
    for (at, damaged) in flipped(&whole, 5) {
        refused(&site, &path, &damaged, &format!("bit at {at} of {}", String::from_utf8_lossy(&whole))).await;
    }
    for length in [0, 1, whole.len() / 2, whole.len() - 1] {
        refused(&site, &path, &whole[..length], &format!("cut to {length}")).await;
    }
    refused(&site, &path, &vec![b' '; 1 << 20], "a megabyte of nothing").await;
    assert_eq!(site.started().await.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_genesis_with_a_bit_flipped_or_of_another_chain_is_refused() {
    let site = with_blocks().await;
    let path = site.home.genesis();
    let whole = fs::read(&path).expect("the genesis");
    for (at, damaged) in flipped(&whole, 7) {
        // A digit or a letter of another value is another chain than the one in the store; then
        // the last line names the store instead.
        let what = format!("bit at {at} of {}", String::from_utf8_lossy(&whole));
        let before = files(site.home.root().join("config").as_path());
        write(&path, &damaged);
        let (code, last) = ended(&site, &what).await;
        write(&path, &whole);
        assert_eq!(code, REFUSED, "{what}: {last}");
        assert!(last.contains("genesis"), "{what}: {last}");
        assert_eq!(files(site.home.root().join("config").as_path()), before, "{what}");
    }
    for length in [0, 1, whole.len() / 2, whole.len() - 3] {
        refused(&site, &path, &whole[..length], &format!("cut to {length}")).await;
    }
    refused(&site, &path, &vec![b'{'; 2 << 20], "two megabytes").await;
    refused(&site, &path, b"\xff\xfe{}", "no text").await;
    assert_eq!(site.started().await.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_makes_no_sense_is_refused() {
    let site = with_blocks().await;
    let path = site.home.config();
    let whole = fs::read(&path).expect("the configuration");
    let with = |more: &str| [&whole[..], b"\n", more.as_bytes()].concat();
    for (damaged, what) in [
        (b"\0\0\0\0".to_vec(), "zeroes"),
        (b"\xff\xfe\xfd".to_vec(), "no text"),
        (vec![b'#'; 2 << 20], "two megabytes"),
        (b"node: [".to_vec(), "an open list"),
        (b"- a\n- b\n".to_vec(), "a list"),
        (b"node: 7\n".to_vec(), "a number for a section"),
        (b"node:\n  block_time: {a: b}\n".to_vec(), "a map for a value"),
        (b"node:\n  block_time: -1s\n".to_vec(), "a negative time"),
        (b"node:\n  max_pending_headers_and_data: -1\n".to_vec(), "a negative number"),
        (b"node:\n  max_pending_headers_and_data: 99999999999999999999\n".to_vec(), "a huge number"),
        (b"a: &a [*a]\n".to_vec(), "an alias of itself"),
        (b"node: *nobody\n".to_vec(), "an alias of nobody"),
        (b"? [node]\n: 1\n".to_vec(), "a list as a key"),
        (with("node:\n  block_time: 2s\n"), "a section twice"),
        (with("\tnode"), "a tab"),
        ("a: ".repeat(10_000).into_bytes(), "deep nesting"),
        ("[".repeat(100_000).into_bytes(), "deeper nesting"),
    ] {
        refused(&site, &path, &damaged, what).await;
    }
    fs::remove_file(&path).expect("the file goes");
    fs::create_dir(&path).expect("a directory in its place");
    let (code, last) = ended(&site, "a directory").await;
    assert_eq!(code, REFUSED, "{last}");
    assert!(last.contains(&path.display().to_string()), "{last}");
    fs::remove_dir(&path).expect("it goes");
    write(&path, &whole);
    assert_eq!(site.started().await.terminate().await, Some(0));
}

/// What was ever signed, at most one header per height.
fn signed(site: &Site) -> usize {
    let (lines, _) = audit::read(&site.home.audit()).expect("the record");
    let mut hashes = BTreeMap::new();
    for line in lines {
        if let Event::Signed { height, hash, .. } = line.event {
            let before = hashes.insert(height, hash);
            assert!(before.is_none_or(|before| before == hash), "two headers of height {height} were signed");
        }
    }
    hashes.len()
}

/// What happens to a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// One bit of this byte is another.
    Flip(usize),
    /// Only so many bytes are left.
    Cut(usize),
}

impl Damage {
    fn of(self, whole: &[u8]) -> Vec<u8> {
        let mut bytes = whole.to_vec();
        match self {
            Self::Flip(at) => bytes[at] ^= 1,
            Self::Cut(length) => bytes.truncate(length),
        }
        bytes
    }
}

/// With a damaged guard the node either knows for sure where it was, or signs nothing, says why
/// and how to go on, and lives.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_guard_is_never_signed_past() {
    let site = with_blocks().await;
    let path = site.home.guard();
    let length = fs::read(&path).expect("the guard").len();
    let flips = (0..length).step_by(length / 16).map(Damage::Flip);
    let cuts = [0, 1, length / 2, length - 1].map(Damage::Cut);
    let (mut refused, mut went_on) = (0, 0);
    for damage in flips.chain(cuts) {
        // Where the node went on there are new blocks: the guard is read anew each time.
        let whole = fs::read(&path).expect("the guard");
        let fresh = damage.of(&whole);
        write(&path, &fresh);
        let before = signed(&site);
        let node = site.start(&[]);
        site.until("an answer", || async {
            let why = site.unready().await;
            why.is_empty() || why.contains("guard")
        })
        .await;
        let why = site.unready().await;
        if why.is_empty() {
            went_on += 1;
            assert_eq!(node.terminate().await, Some(0));
            assert!(signed(&site) >= before);
        } else {
            refused += 1;
            assert!(why.contains("guard-from-committed"), "no way out is named: {why}");
            assert_eq!(node.terminate().await, Some(0));
            assert_eq!(fs::read(&path).expect("the guard"), fresh, "a guard that was refused was changed");
            assert_eq!(signed(&site), before, "something was signed past a damaged guard");
            write(&path, &whole);
        }
    }
    assert!(refused > 0 && went_on > 0, "{refused} refused, {went_on} went on");
    fs::remove_file(&path).expect("the guard goes");
    let node = site.start(&[]);
    site.until("a refusal", || async { site.unready().await.contains("there is no guard") }).await;
    assert_eq!(node.terminate().await, Some(0));
    assert!(!path.exists(), "a guard was made up");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_of_another_chain_is_refused() {
    let (site, other) = (with_blocks().await, with_blocks().await);
    let (ours, theirs) = (site.home.data().to_owned(), other.home.data().to_owned());
    let aside = site.home.root().join("aside");
    fs::rename(&ours, &aside).expect("our store goes");
    copy(&theirs, &ours);
    let (code, last) = ended(&site, "another store").await;
    assert_eq!(code, REFUSED, "{last}");
    assert!(last.contains("chain"), "{last}");
    fs::remove_dir_all(&ours).expect("their store goes");
    fs::rename(&aside, &ours).expect("our store comes back");
    assert_eq!(site.started().await.terminate().await, Some(0));
}

fn copy(from: &Path, to: &Path) {
    for (file, bytes) in files(from) {
        let target = to.join(file.strip_prefix(from).expect("it is below"));
        fs::create_dir_all(target.parent().expect("a directory")).expect("a directory");
        write(&target, &bytes);
    }
}

/// A store that lost its end, or parts of it: the node ends with a clear code, or lives and signs
/// nothing twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_store_is_reported_and_never_signed_past() {
    let site = Site::new(&["--node.block_time", "20ms"]).await;
    let node = site.started().await;
    site.until("blocks", || async { site.height().await > 50 }).await;
    node.kill().await;
    // Every try begins with the same store, guard and record.
    let aside = tempfile::tempdir().expect("a temporary directory");
    copy(site.home.root(), aside.path());
    let store: Vec<PathBuf> = files(&site.home.store()).into_keys().collect();
    let name =
        |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let kinds = ["MANIFEST", "CURRENT", ".log", ".sst"];
    let (mut ends, mut lives) = (0, 0);
    for path in store.iter().filter(|path| kinds.iter().any(|kind| name(path).contains(kind))) {
        let whole = fs::read(path).expect("a file of the store");
        if whole.is_empty() {
            continue;
        }
        let mut flip = whole.clone();
        flip[whole.len() / 2] ^= 0x55;
        for damaged in [flip, whole[..whole.len() / 2].to_vec(), vec![]] {
            let what = format!("{} with {} of {} bytes", name(path), damaged.len(), whole.len());
            write(path, &damaged);
            let before = signed(&site);
            let mut node = site.start(&[]);
            let ended = tokio::select! {
                ended = node.ended(WITHIN) => ended,
                () = site.until("an answer", || async {
                    let why = site.unready().await;
                    why.is_empty() || why.contains("guard")
                }) => None,
            };
            match ended {
                Some(status) => {
                    ends += 1;
                    let last = site.tail().lines().last().unwrap_or_default().to_owned();
                    let code = status.code();
                    assert!([Some(INTEGRITY), Some(REFUSED)].contains(&code), "{what}: {status}: {last}");
                    assert!(last.starts_with("baton: "), "{what}: {last}");
                    assert_eq!(signed(&site), before, "{what}");
                }
                None => {
                    lives += 1;
                    let why = site.unready().await;
                    assert_eq!(node.terminate().await, Some(0), "{what}: {why}");
                }
            }
            // No header of a height was signed twice, whatever was lost.
            signed(&site);
            fs::remove_dir_all(site.home.root()).expect("everything goes");
            copy(aside.path(), site.home.root());
        }
    }
    assert!(ends > 0 && lives > 0, "{ends} ended, {lives} lived");
}
