//! What the engine has refused for good lately, without the actor around it.

use std::num::NonZeroUsize;

use baton_messages::types::Hash;

/// So many refusals are remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");

/// Most bytes of a reason.
const MAX_REASON: usize = 200;

/// Refused transactions and why.
#[derive(Debug)]
pub struct Refusals {
    by_hash: lru::LruCache<Hash, Refusal>,
}

#[derive(Debug)]
struct Refusal {
    reason: String,
    told: bool,
}

impl Default for Refusals {
    fn default() -> Self {
        Self { by_hash: lru::LruCache::new(REMEMBERED) }
    }
}

impl Refusals {
    /// The engine has refused a transaction.
    pub fn insert(&mut self, hash: Hash, reason: &str) {
        let ends = reason.char_indices().map(|(at, character)| at + character.len_utf8());
        let end = ends.take_while(|end| *end <= MAX_REASON).last().unwrap_or(0);
        let reason = reason[..end].to_owned();
        self.by_hash.put(hash, Refusal { reason, told: false });
    }

    /// Why a transaction was refused.
    pub fn reason(&mut self, hash: &Hash) -> Option<String> {
        self.by_hash.get(hash).map(|refusal| refusal.reason.clone())
    }

    /// Why a transaction was refused, once: a member that has it in its queue is told. When it
    /// comes again it is another attempt, or the answer was lost; the engine decides anew.
    pub fn tell(&mut self, hash: &Hash) -> Option<String> {
        let refusal = self.by_hash.get_mut(hash)?;
        (!std::mem::replace(&mut refusal.told, true)).then(|| refusal.reason.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_once_and_remembered() {
        let mut refusals = Refusals::default();
        let hash = Hash::of(b"tx");
        assert_eq!(refusals.tell(&hash), None);
        refusals.insert(hash, "no money");
        assert_eq!(refusals.tell(&hash).as_deref(), Some("no money"));
        assert_eq!(refusals.tell(&hash), None, "it is another attempt now");
        assert_eq!(refusals.reason(&hash).as_deref(), Some("no money"));
        refusals.insert(hash, "still no money");
        assert_eq!(refusals.tell(&hash).as_deref(), Some("still no money"));
    }

    #[test]
    fn reasons_are_bounded_and_cut_between_characters() {
        let mut refusals = Refusals::default();
        refusals.insert(Hash::of(b"tx"), &"ä".repeat(150).replacen('ä', "a", 1));
        let reason = refusals.reason(&Hash::of(b"tx")).expect("remembered");
        assert_eq!((reason.len(), reason.chars().count()), (199, 100));
    }
}
