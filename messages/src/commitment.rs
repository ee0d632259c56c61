//! Celestia's share commitment of a blob (wire section 5.4).

use sha2::{Digest, Sha256};

use crate::da::Namespace;
use crate::types::Hash;

const SHARE: usize = 512;
const NAMESPACE: usize = 29;
/// What the first share holds of the data: namespace, info byte and length come before.
const FIRST: usize = SHARE - NAMESPACE - 1 - 4;
/// What every further share holds.
const NEXT: usize = SHARE - NAMESPACE - 1;
/// More shares than this many times the width make the subtrees wider.
const SUBTREE_ROOT_THRESHOLD: usize = 64;

/// A node of the namespaced Merkle tree: the least and the greatest namespace below it, and a
/// digest.
type NmtNode = [u8; 2 * NAMESPACE + 32];

/// The share commitment of a version-0 blob, which names it on DA (wire section 5.4).
///
/// The DA layer takes blobs below 4 GiB only, so the length always fits its field.
#[must_use]
pub fn blob_commitment(namespace: &Namespace, data: &[u8]) -> Hash {
    let shares = shares(namespace, data);
    let width = subtree_width(shares.len());
    let mut roots = Vec::with_capacity(shares.len().div_ceil(width));
    let mut rest = shares.as_slice();
    while !rest.is_empty() {
        // Full runs first, then descending powers of two.
        let run = width.min(1 << rest.len().ilog2());
        let (leaves, tail) = rest.split_at(run);
        roots.push(nmt_root(namespace, leaves));
        rest = tail;
    }
    merkle_root(&roots)
}

fn shares(namespace: &Namespace, data: &[u8]) -> Vec<[u8; SHARE]> {
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let (first, rest) = data.split_at(data.len().min(FIRST));
    let mut shares = Vec::with_capacity(1 + rest.len().div_ceil(NEXT));
    shares.push(share(namespace, 1, &length.to_be_bytes(), first));
    shares.extend(rest.chunks(NEXT).map(|chunk| share(namespace, 0, &[], chunk)));
    shares
}

fn share(namespace: &Namespace, info: u8, length: &[u8], data: &[u8]) -> [u8; SHARE] {
    let mut share = [0; SHARE];
    share[..NAMESPACE].copy_from_slice(&namespace.0);
    share[NAMESPACE] = info;
    let start = NAMESPACE + 1 + length.len();
    share[NAMESPACE + 1..start].copy_from_slice(length);
    share[start..start + data.len()].copy_from_slice(data);
    share
}

fn subtree_width(shares: usize) -> usize {
    let by_threshold = shares.div_ceil(SUBTREE_ROOT_THRESHOLD).next_power_of_two();
    let root = shares.isqrt();
    let side = if root * root == shares { root } else { root + 1 };
    by_threshold.min(side.next_power_of_two())
}

fn nmt_root(namespace: &Namespace, leaves: &[[u8; SHARE]]) -> NmtNode {
    if let [leaf] = leaves {
        let digest = Sha256::new_with_prefix([0]).chain_update(namespace.0).chain_update(leaf);
        return nmt_node(namespace, digest);
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    let digest = Sha256::new_with_prefix([1])
        .chain_update(nmt_root(namespace, left))
        .chain_update(nmt_root(namespace, right));
    nmt_node(namespace, digest)
}

/// All leaves of a blob have one namespace, so the least and the greatest are the same.
fn nmt_node(namespace: &Namespace, digest: Sha256) -> NmtNode {
    let mut node = [0; 2 * NAMESPACE + 32];
    node[..NAMESPACE].copy_from_slice(&namespace.0);
    node[NAMESPACE..2 * NAMESPACE].copy_from_slice(&namespace.0);
    node[2 * NAMESPACE..].copy_from_slice(&digest.finalize());
    node
}

/// The Merkle root of RFC 6962.
fn merkle_root(leaves: &[NmtNode]) -> Hash {
    if let [leaf] = leaves {
        return Hash(Sha256::new_with_prefix([0]).chain_update(leaf).finalize().into());
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    let digest =
        Sha256::new_with_prefix([1]).chain_update(merkle_root(left).0).chain_update(merkle_root(right).0);
    Hash(digest.finalize().into())
}

/// The largest power of two below the count.
const fn split(count: usize) -> usize {
    1 << (count - 1).ilog2()
}
