//! Whether the chain may be taken over: everything that speaks against it, and what an operator
//! does about it. Pure; what is known comes in as facts.

use std::fmt;
use std::path::PathBuf;

use baton_messages::types::{Hash, Height};

/// What somebody who was asked knows of the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// There is nobody to ask; why.
    Nobody(String),
    /// It does not answer, or not in time.
    Silent(String),
    /// The highest header of the proposer that it has, with its hash; `None`: none.
    Highest(Option<(Height, Hash)>),
}

/// What is known when an operator asks to take the chain over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The height the operator says.
    pub height: Height,
    /// The hash the operator says.
    pub hash: Option<Hash>,
    /// The last block of this store.
    pub tip: (Height, Hash),
    /// A database of the old sequencer that a process has open.
    pub in_use: Option<PathBuf>,
    /// Where something answers as the old sequencer did.
    pub answers: Option<String>,
    /// The old sequencer's key, where it still is.
    pub key: Option<PathBuf>,
    /// The others, by name.
    pub others: Vec<(&'static str, Seen)>,
}

/// What the operator takes upon himself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waived {
    /// The old home keeps its key.
    pub key_stays: bool,
    /// Go on although somebody does not answer.
    pub silence: bool,
}

/// Why the chain is not taken over. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The old sequencer's database is open.
    InUse(PathBuf),
    /// Something answers where the old sequencer did.
    Answers(String),
    /// The old sequencer could be started again by mistake.
    KeyStays(PathBuf),
    /// The store does not reach the height.
    Behind {
        /// Where it ends.
        tip: Height,
        /// The height the operator says.
        height: Height,
    },
    /// The store goes beyond the height.
    Ahead {
        /// Where it ends.
        tip: Height,
        /// The height the operator says.
        height: Height,
    },
    /// The store's block is another.
    OtherHash {
        /// The height.
        height: Height,
        /// The store's.
        here: Hash,
        /// The operator's.
        said: Hash,
    },
    /// Somebody knows a later block.
    Later {
        /// Who.
        who: &'static str,
        /// Its height.
        later: Height,
        /// The height the operator says.
        height: Height,
    },
    /// Somebody knows another block at that height.
    Sibling {
        /// Who.
        who: &'static str,
        /// The height.
        height: Height,
        /// Their hash.
        theirs: Hash,
        /// The store's.
        here: Hash,
    },
    /// Somebody does not answer.
    Silent {
        /// Who.
        who: &'static str,
        /// What was heard instead.
        why: String,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the chain is not taken over, nothing was changed: ")?;
        match self {
            Self::InUse(path) => write!(
                f,
                "a process has the old sequencer's database {} open; stop the old sequencer for good first",
                path.display()
            ),
            Self::Answers(address) => write!(
                f,
                "something answers at {address}, where the old sequencer did; stop it for good first, or say --old-rpc with \
                 its right address"
            ),
            Self::KeyStays(path) => write!(
                f,
                "the old sequencer's key is still at {0}, and whoever starts it again forks the chain; move it away \
                 (`mv {0} {0}.retired`) and disable the old service, or say --old-key-stays",
                path.display()
            ),
            Self::Behind { tip, height } => write!(
                f,
                "the last block here is at height {tip}, the old sequencer's at height {height}; start this node again so \
                 that it follows to there. What is neither on DA nor with a peer is in the old home only: start that one as \
                 a full node (node.aggregator false), from which this node gets it"
            ),
            Self::Ahead { tip, height } => write!(
                f,
                "the last block here is at height {tip}, above {height}: the old sequencer went on. Make sure that it has \
                 stopped for good, and say the height of its last block"
            ),
            Self::OtherHash { height, here, said } => write!(
                f,
                "the block here at height {height} is {here}, not {said}: find out which chain is right"
            ),
            Self::Later { who, later, height } => write!(
                f,
                "{who} has a block of this chain at height {later}, above {height}; start this node again so that it follows \
                 to there, and say the height of the last block"
            ),
            Self::Sibling { who, height, theirs, here } => write!(
                f,
                "{who} has another block at height {height}: {theirs}, not {here}. The key has signed two chains: stop \
                 everything that has it and find out which one is right"
            ),
            Self::Silent { who, why } => write!(
                f,
                "{who} does not say whether there are later blocks: {why}. Try again when it does, or say --unreachable-ok \
                 when you are certain that there are none"
            ),
        }
    }
}

/// Judges. What could not be looked at, and is no reason to refuse, comes back in words.
///
/// # Errors
///
/// The first thing that speaks against it, the gravest first.
pub fn judge(facts: &Facts, waived: Waived) -> Result<Vec<String>, Refusal> {
    if let Some(path) = &facts.in_use {
        return Err(Refusal::InUse(path.clone()));
    }
    if let Some(address) = &facts.answers {
        return Err(Refusal::Answers(address.clone()));
    }
    let (height, (tip, here)) = (facts.height, facts.tip);
    for (who, seen) in facts.others() {
        if let Seen::Highest(Some((theirs, hash))) = seen
            && *theirs == tip
            && *hash != here
        {
            return Err(Refusal::Sibling { who, height: tip, theirs: *hash, here });
        }
    }
    if tip > height {
        return Err(Refusal::Ahead { tip, height });
    }
    if let Some((who, later)) = facts.later() {
        return Err(Refusal::Later { who, later, height });
    }
    if tip < height {
        return Err(Refusal::Behind { tip, height });
    }
    if let Some(said) = facts.hash.filter(|said| *said != here) {
        return Err(Refusal::OtherHash { height, here, said });
    }
    let mut notes = vec![];
    for (who, seen) in facts.others() {
        match seen {
            Seen::Silent(why) if waived.silence => notes.push(format!("{who} was not asked: {why}")),
            Seen::Silent(why) => return Err(Refusal::Silent { who, why: why.clone() }),
            Seen::Nobody(why) => notes.push(format!("{who} was not asked: {why}")),
            Seen::Highest(_) => {}
        }
    }
    match &facts.key {
        Some(path) if !waived.key_stays => return Err(Refusal::KeyStays(path.clone())),
        Some(path) => notes.push(format!(
            "the old sequencer's key stays at {}: whoever starts it again forks the chain",
            path.display()
        )),
        None => {}
    }
    Ok(notes)
}

impl Facts {
    fn others(&self) -> impl Iterator<Item = (&'static str, &Seen)> {
        self.others.iter().map(|(who, seen)| (*who, seen))
    }

    /// The highest block above the operator's height that somebody knows.
    fn later(&self) -> Option<(&'static str, Height)> {
        let known = self.others().filter_map(|(who, seen)| match seen {
            Seen::Highest(Some((theirs, _))) => Some((who, *theirs)),
            Seen::Highest(None) | Seen::Nobody(_) | Seen::Silent(_) => None,
        });
        known.filter(|(_, theirs)| *theirs > self.height).max_by_key(|(_, theirs)| *theirs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIP: Height = Height(100);

    fn here() -> Hash {
        Hash::of(b"tip")
    }

    fn facts() -> Facts {
        Facts {
            height: TIP,
            hash: Some(here()),
            tip: (TIP, here()),
            in_use: None,
            answers: None,
            key: None,
            others: vec![("DA", Seen::Highest(Some((TIP, here()))))],
        }
    }

    #[test]
    fn a_store_that_ends_where_the_old_chain_does_is_taken_over() {
        assert_eq!(judge(&facts(), Waived::default()), Ok(vec![]));
        let lower = vec![("DA", Seen::Highest(Some((Height(90), Hash::of(b"ninety")))))];
        assert_eq!(judge(&Facts { others: lower, ..facts() }, Waived::default()), Ok(vec![]));
        assert_eq!(judge(&Facts { hash: None, ..facts() }, Waived::default()), Ok(vec![]));
    }

    #[test]
    fn a_sequencer_that_lives_is_refused_whatever_is_waived() {
        let waived = Waived { key_stays: true, silence: true };
        let in_use = Facts { in_use: Some("/old/data/testapp".into()), ..facts() };
        assert!(matches!(judge(&in_use, waived), Err(Refusal::InUse(_))));
        let answers = Facts { answers: Some("127.0.0.1:7331".into()), ..facts() };
        assert!(matches!(judge(&answers, waived), Err(Refusal::Answers(_))));
    }

    #[test]
    fn another_height_than_the_stores_is_refused() {
        let behind = Facts { height: Height(101), ..facts() };
        assert_eq!(judge(&behind, Waived::default()), Err(Refusal::Behind { tip: TIP, height: Height(101) }));
        let ahead = Facts { height: Height(99), ..facts() };
        assert_eq!(judge(&ahead, Waived::default()), Err(Refusal::Ahead { tip: TIP, height: Height(99) }));
    }

    #[test]
    fn a_later_block_is_refused_whoever_knows_it() {
        let waived = Waived { key_stays: true, silence: true };
        let others = vec![
            ("DA", Seen::Highest(Some((Height(90), here())))),
            ("peers", Seen::Highest(Some((Height(101), here())))),
        ];
        let refused = judge(&Facts { others, ..facts() }, waived).unwrap_err();
        assert_eq!(refused, Refusal::Later { who: "peers", later: Height(101), height: TIP });
    }

    #[test]
    fn another_block_at_the_height_is_refused() {
        let other = Hash::of(b"other");
        let others = vec![("DA", Seen::Highest(Some((TIP, other))))];
        let refused = judge(&Facts { others, ..facts() }, Waived::default()).unwrap_err();
        assert!(matches!(refused, Refusal::Sibling { theirs, .. } if theirs == other), "{refused}");
        let said = Facts { hash: Some(other), ..facts() };
        assert!(matches!(judge(&said, Waived::default()), Err(Refusal::OtherHash { .. })));
    }

    #[test]
    fn silence_is_no_consent_unless_it_is_taken_for_it() {
        let silent = Facts { others: vec![("DA", Seen::Silent("refused".into()))], ..facts() };
        assert!(matches!(judge(&silent, Waived::default()), Err(Refusal::Silent { who: "DA", .. })));
        let notes = judge(&silent, Waived { silence: true, key_stays: false }).unwrap();
        assert!(notes[0].contains("DA was not asked"), "{notes:?}");
    }

    #[test]
    fn the_old_key_must_be_gone_or_its_staying_be_said() {
        let stays = Facts { key: Some("/old/config/signer.json".into()), ..facts() };
        let refused = judge(&stays, Waived::default()).unwrap_err();
        assert!(refused.to_string().contains("mv /old/config/signer.json"), "{refused}");
        let notes = judge(&stays, Waived { key_stays: true, silence: false }).unwrap();
        assert!(notes[0].contains("forks the chain"), "{notes:?}");
    }
}
