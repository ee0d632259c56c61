//! The hash tree over the key-value state.
//!
//! A sparse tree with a fan-out of 16 over SHA-256 of the keys. A subtree with one key is a leaf
//! inside its parent, so there are as many levels as the number of keys needs. A node's
//! hash is SHA-256 of its stored bytes; its shape depends on the set of keys alone, so the root
//! is a function of the map, however the map came about. See ADR 0004.

use baton_messages::types::Hash;
use baton_storage::backend::{Backend, Batch, Family, StoreError};
use bytes::{BufMut, Bytes, BytesMut};

const FAN_OUT: usize = 16;
/// Levels a path can have: the nibbles of a SHA-256 digest.
const MAX_DEPTH: usize = 64;

/// A key's new value hash; `None` removes the key. Keys are hashes of keys.
pub(super) type Change = (Hash, Option<Hash>);

/// The root of the empty tree.
pub(super) fn empty_root() -> Hash {
    Node::default().hash()
}

/// Puts the changed nodes into the batch and returns the new root. Costs one read and one write
/// per node above a change. `changes` are sorted by key, each key once.
///
/// # Errors
///
/// `StoreError::Corrupt` when a stored node is not the one its parent names.
pub(super) fn update(
    backend: &dyn Backend,
    batch: &mut Batch,
    root: Hash,
    changes: &[Change],
) -> Result<Hash, StoreError> {
    assert!(changes.is_sorted_by(|a, b| a.0 < b.0), "changes are sorted by key, each key once");
    if changes.is_empty() {
        return Ok(root);
    }
    let mut update = Update { backend, batch };
    let path = Path::default();
    let node = if root == empty_root() { Node::default() } else { update.load(path, root)? };
    let node = update.apply(path, node, changes)?;
    Ok(update.store(path, &node))
}

/// What hangs below a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Child {
    /// The only key of its subtree.
    Leaf { key: Hash, value: Hash },
    /// A node of two keys or more, by hash.
    Branch(Hash),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    children: [Option<Child>; FAN_OUT],
}

impl Node {
    /// Two bit maps, of leaves and of branches, then the children in order.
    fn encode(&self) -> Bytes {
        let (mut leaves, mut branches) = (0_u16, 0_u16);
        let mut body = BytesMut::with_capacity(4 + FAN_OUT * 64);
        body.put_u32(0);
        for (nibble, child) in self.children.iter().enumerate() {
            match child {
                Some(Child::Leaf { key, value }) => {
                    leaves |= 1 << nibble;
                    body.put_slice(&key.0);
                    body.put_slice(&value.0);
                }
                Some(Child::Branch(hash)) => {
                    branches |= 1 << nibble;
                    body.put_slice(&hash.0);
                }
                None => {}
            }
        }
        body[..2].copy_from_slice(&leaves.to_be_bytes());
        body[2..4].copy_from_slice(&branches.to_be_bytes());
        body.freeze()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (leaves, rest) = bytes.split_first_chunk::<2>()?;
        let (branches, mut rest) = rest.split_first_chunk::<2>()?;
        let (leaves, branches) = (u16::from_be_bytes(*leaves), u16::from_be_bytes(*branches));
        if leaves & branches != 0 {
            return None;
        }
        let mut next = || {
            let (hash, after) = rest.split_first_chunk::<32>()?;
            rest = after;
            Some(Hash(*hash))
        };
        let mut node = Self::default();
        for (nibble, child) in node.children.iter_mut().enumerate() {
            if leaves >> nibble & 1 == 1 {
                *child = Some(Child::Leaf { key: next()?, value: next()? });
            } else if branches >> nibble & 1 == 1 {
                *child = Some(Child::Branch(next()?));
            }
        }
        rest.is_empty().then_some(node)
    }

    fn hash(&self) -> Hash {
        Hash::of(&self.encode())
    }
}

/// The position of a node: the first nibbles of all keys below it.
#[derive(Clone, Copy, Debug, Default)]
struct Path {
    depth: usize,
    prefix: [u8; 32],
}

impl Path {
    fn child(mut self, nibble: usize) -> Self {
        let shift = if self.depth.is_multiple_of(2) { 4 } else { 0 };
        self.prefix[self.depth / 2] |= u8::try_from(nibble << shift).expect("a nibble fits into a byte");
        self.depth += 1;
        self
    }

    /// The nibble of a key below this path.
    fn nibble(&self, key: &Hash) -> usize {
        let byte = key.0[self.depth / 2];
        usize::from(if self.depth.is_multiple_of(2) { byte >> 4 } else { byte & 0x0f })
    }

    /// The depth, then the prefix: nodes of a level lie side by side.
    fn stored(&self) -> Bytes {
        let mut key = BytesMut::with_capacity(33);
        key.put_u8(u8::try_from(self.depth).expect("at most 64 levels"));
        key.put_slice(&self.prefix[..self.depth.div_ceil(2)]);
        key.freeze()
    }
}

struct Update<'a> {
    backend: &'a dyn Backend,
    batch: &'a mut Batch,
}

impl Update<'_> {
    fn load(&self, path: Path, expected: Hash) -> Result<Node, StoreError> {
        let place = || format!("tree node {}", hex::encode(path.stored()));
        let bytes = self.backend.get(Family::KvTree, &path.stored())?;
        let bytes = bytes.ok_or_else(|| StoreError::Corrupt(format!("{} is missing", place())))?;
        if Hash::of(&bytes) != expected {
            return Err(StoreError::Corrupt(format!("{} does not have its hash", place())));
        }
        Node::decode(&bytes).ok_or_else(|| StoreError::Corrupt(format!("{} is malformed", place())))
    }

    fn store(&mut self, path: Path, node: &Node) -> Hash {
        let bytes = node.encode();
        let hash = Hash::of(&bytes);
        self.batch.put(Family::KvTree, path.stored(), bytes);
        hash
    }

    /// Applies changes below a node; writes its descendants but not the node.
    fn apply(&mut self, path: Path, mut node: Node, changes: &[Change]) -> Result<Node, StoreError> {
        assert!(path.depth < MAX_DEPTH, "different keys differ in a nibble");
        for group in changes.chunk_by(|a, b| path.nibble(&a.0) == path.nibble(&b.0)) {
            let nibble = path.nibble(&group[0].0);
            let child = node.children[nibble].take();
            node.children[nibble] = self.apply_child(path.child(nibble), child, group)?;
        }
        Ok(node)
    }

    fn apply_child(
        &mut self,
        path: Path,
        child: Option<Child>,
        changes: &[Change],
    ) -> Result<Option<Child>, StoreError> {
        let node = match child {
            Some(Child::Branch(hash)) => self.load(path, hash)?,
            None | Some(Child::Leaf { .. }) => return self.build_child(path, child, changes),
        };
        let node = self.apply(path, node, changes)?;
        let mut children = node.children.iter().flatten();
        let only = match (children.next(), children.next()) {
            (None, _) => None,
            (Some(leaf @ Child::Leaf { .. }), None) => Some(*leaf),
            (Some(_), _) => return Ok(Some(Child::Branch(self.store(path, &node)))),
        };
        // Fewer than two keys are left: they move up into the parent.
        self.batch.delete(Family::KvTree, path.stored());
        Ok(only)
    }

    /// Makes a subtree out of at most one key before and the changes.
    fn build_child(
        &mut self,
        path: Path,
        before: Option<Child>,
        changes: &[Change],
    ) -> Result<Option<Child>, StoreError> {
        let mut leaves: Vec<Change> = changes.iter().filter(|change| change.1.is_some()).copied().collect();
        if let Some(Child::Leaf { key, value }) = before
            && changes.binary_search_by_key(&key, |change| change.0).is_err()
        {
            let at = leaves.partition_point(|leaf| leaf.0 < key);
            leaves.insert(at, (key, Some(value)));
        }
        match leaves[..] {
            [] => Ok(None),
            [(key, Some(value))] => Ok(Some(Child::Leaf { key, value })),
            _ => {
                let node = self.apply(path, Node::default(), &leaves)?;
                Ok(Some(Child::Branch(self.store(path, &node))))
            }
        }
    }
}
