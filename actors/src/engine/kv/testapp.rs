//! State roots as ev-node's testapp computes them (wire section 7.1): for chains that it began, or
//! whose full nodes run it.
//!
//! Every assignment is an entry `/height/<height>/<key>`, and the root is the text of all entries
//! in order, `<entry>:<value>;`. It grows with the chain and is held in memory: good for trying
//! things out beside ev-node, which is what testapp is for.

use std::collections::BTreeMap;
use std::ops::Bound;

use baton_messages::codec;
use baton_messages::types::{Hash, Height, StateRoot};
use baton_storage::backend::{Backend, Batch, Direction, Family, StoreError};
use bytes::{Bytes, BytesMut};

use super::tx::Assignment;

/// Entries read at once.
const PAGE: usize = 1024;

/// What an entry was before a block.
type Before = Vec<(Bytes, Option<Bytes>)>;

/// All entries.
#[derive(Clone, Debug, Default)]
pub(super) struct Testapp {
    entries: BTreeMap<Bytes, Bytes>,
}

/// The entry of a key that a block of this height sets: Go's datastore cleans it like a path.
fn entry(height: Height, key: &[u8]) -> Bytes {
    let mut parts: Vec<&[u8]> = vec![];
    let number = height.to_string();
    for part in std::iter::once(number.as_bytes()).chain(key.split(|byte| *byte == b'/')) {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let mut entry = BytesMut::from(&b"/height"[..]);
    for part in parts {
        entry.extend_from_slice(b"/");
        entry.extend_from_slice(part);
    }
    entry.freeze()
}

/// Entries begin with a slash, so this is none.
fn undo_key(height: Height) -> Bytes {
    [&[0xff], &height.0.to_be_bytes()[..]].concat().into()
}

impl Testapp {
    /// Reads all entries.
    pub(super) fn load(backend: &dyn Backend) -> Result<Self, StoreError> {
        let mut entries = BTreeMap::new();
        let mut from = Bound::Included(Bytes::from_static(b"/"));
        let to = Bound::Excluded(&b"0"[..]);
        loop {
            let page = {
                let from = match &from {
                    Bound::Included(key) => Bound::Included(&key[..]),
                    Bound::Excluded(key) => Bound::Excluded(&key[..]),
                    Bound::Unbounded => Bound::Unbounded,
                };
                backend.scan(Family::KvTree, (from, to), Direction::Forward, PAGE)?
            };
            let Some((last, _)) = page.last() else { return Ok(Self { entries }) };
            from = Bound::Excluded(last.clone());
            entries.extend(page);
        }
    }

    /// Adds what a block sets; in the batch, and here. Returns a hash that stands for the root.
    pub(super) fn execute(&mut self, batch: &mut Batch, height: Height, sets: &[Assignment]) -> Hash {
        let mut before: BTreeMap<Bytes, Option<Bytes>> = BTreeMap::new();
        for set in sets {
            let key = entry(height, &set.key);
            batch.put(Family::KvTree, key.clone(), set.value.clone());
            let old = self.entries.insert(key.clone(), set.value.clone());
            before.entry(key).or_insert(old);
        }
        if !before.is_empty() {
            let before: Before = before.into_iter().collect();
            batch.put(Family::KvTree, undo_key(height), codec::encode(&before));
        }
        self.hash()
    }

    /// Takes back what a block set; in the batch, and here.
    pub(super) fn step_back(
        &mut self,
        backend: &dyn Backend,
        batch: &mut Batch,
        height: Height,
    ) -> Result<Hash, StoreError> {
        let Some(bytes) = backend.get(Family::KvTree, &undo_key(height))? else { return Ok(self.hash()) };
        let before: Before = codec::decode(&bytes)
            .map_err(|error| StoreError::Corrupt(format!("the entries of height {height}: {error}")))?;
        for (key, old) in before {
            match old {
                Some(value) => {
                    batch.put(Family::KvTree, key.clone(), value.clone());
                    self.entries.insert(key, value);
                }
                None => {
                    batch.delete(Family::KvTree, key.clone());
                    self.entries.remove(&key);
                }
            }
        }
        batch.delete(Family::KvTree, undo_key(height));
        Ok(self.hash())
    }

    /// The state root: all of it.
    pub(super) fn root(&self) -> StateRoot {
        let size = self.entries.iter().map(|(key, value)| key.len() + value.len() + 2).sum();
        let mut root = BytesMut::with_capacity(size);
        for (key, value) in &self.entries {
            root.extend_from_slice(key);
            root.extend_from_slice(b":");
            root.extend_from_slice(value);
            root.extend_from_slice(b";");
        }
        StateRoot(root.freeze())
    }

    fn hash(&self) -> Hash {
        Hash::of(&self.root().0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use baton_storage::memory::Disk;

    use super::*;

    fn set(key: &'static str, value: &'static str) -> Assignment {
        Assignment { key: Bytes::from_static(key.as_bytes()), value: Bytes::from_static(value.as_bytes()) }
    }

    #[test]
    fn entries_are_cleaned_as_gos_datastore_does_it() {
        let clean = |key: &str| String::from_utf8(entry(Height(7), key.as_bytes()).to_vec()).expect("text");
        assert_eq!(clean("a"), "/height/7/a");
        assert_eq!(clean("/a//b/./c/"), "/height/7/a/b/c");
        assert_eq!(clean("a/../b"), "/height/7/b");
        assert_eq!(clean("../x"), "/height/x");
        assert_eq!(clean(".."), "/height");
    }

    #[test]
    fn the_root_is_the_text_of_all_entries_and_is_empty_at_first() {
        let mut app = Testapp::default();
        assert_eq!(app.root(), StateRoot::default());
        let mut batch = Batch::default();
        app.execute(&mut batch, Height(2), &[set("k", "1"), set("a", "2"), set("k", "3")]);
        app.execute(&mut batch, Height(10), &[set("k", "4")]);
        assert_eq!(&app.root().0[..], b"/height/10/k:4;/height/2/a:2;/height/2/k:3;");
    }

    #[test]
    fn entries_survive_in_the_store_and_are_taken_back() {
        let backend: Arc<dyn Backend> = Arc::new(Disk::new().attach());
        let mut app = Testapp::default();
        let mut root = vec![app.hash()];
        for height in 1..=3 {
            let mut batch = Batch::default();
            root.push(app.execute(&mut batch, Height(height), &[set("k", "v"), set("../shared", "w")]));
            backend.write(batch).expect("the memory takes it");
        }
        let mut again = Testapp::load(&*backend).expect("readable");
        assert_eq!(again.root(), app.root());
        for height in (1..=3).rev() {
            let mut batch = Batch::default();
            let back = again.step_back(&*backend, &mut batch, Height(height)).expect("readable");
            assert_eq!(back, root[usize::try_from(height - 1).expect("small")]);
            backend.write(batch).expect("the memory takes it");
        }
        assert_eq!(Testapp::load(&*backend).expect("readable").root(), StateRoot::default());
    }
}
