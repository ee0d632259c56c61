//! Planted bugs, which show that the simulation finds what it looks for.
//!
//! A mutation changes one named line of production code. It exists under the feature `mutations`
//! only, which builds without debug assertions refuse; elsewhere [`planted`] is the constant
//! `false`, and nothing is left of it. Which one is planted is said per thread, so that simulated
//! runs with different ones go on beside each other. Production code asks [`planted`] and nobody
//! else does: no check, fake or fault may know.

#[cfg(all(feature = "mutations", not(debug_assertions)))]
compile_error!("`mutations` plants bugs: build without it, or with debug assertions (a test profile)");

use std::fmt;

macro_rules! mutations {
    ($($variant:ident: $name:literal, $hazard:literal, $place:literal, $change:literal;)*) => {
        /// A bug that can be planted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Mutation {
            $(#[doc = $change] $variant,)*
        }

        impl Mutation {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The hazards it brings back, as `docs/hazards.md` numbers them.
            #[must_use]
            pub const fn hazard(self) -> &'static str {
                match self { $(Self::$variant => $hazard,)* }
            }

            /// The file whose line it changes.
            #[must_use]
            pub const fn place(self) -> &'static str {
                match self { $(Self::$variant => $place,)* }
            }

            /// What the changed line does.
            #[must_use]
            pub const fn change(self) -> &'static str {
                match self { $(Self::$variant => $change,)* }
            }
        }
    };
}

mutations! {
    IgnoreVerdict: "ignore verdict", "E1, A1", "actors/src/raft/proposing.rs",
        "A block that apply refused is answered as committed.";
    LeadBeforeOwnEntry: "lead before own-term apply", "E2, A2", "actors/src/raft/telling.rs",
        "A leader is told that its term's first entry is applied before it is.";
    SpeakWhileDiskHangs: "heartbeat despite WAL hang", "E3, S1", "actors/src/supervisor/watchdog.rs",
        "A storage thread that does not come back from the disk is never reported.";
    KeepIdentity: "keep identity after wipe", "E4, A9", "messages/src/types.rs",
        "A member is who its place says, not who its storage is.";
    FormAlone: "form a cluster alone", "E4, A12", "actors/src/raft/bootstrap.rs",
        "An empty node forms a cluster by itself when a listed peer does not answer.";
    ExecuteBeforeCommit: "execute before commit", "E5, I9", "actors/src/executor.rs",
        "A block is executed when it is proposed.";
    SignBeforeCommit: "sign before commit", "A13, I3", "actors/src/executor.rs",
        "A header is signed when its block is proposed.";
    EqualTime: "equal time allowed", "E8, I6", "storage/src/verdict.rs",
        "A block may bear its parent's time.";
    FreeParent: "free parent pass", "E9, C2", "storage/src/verdict.rs",
        "The parent hash of a block is not compared with the tip.";
    Register: "register FSM", "E10, S4", "storage/src/writer.rs",
        "The store keeps the body of the newest block only.";
    ExitOnDemotion: "exit on demotion", "E11, S12", "actors/src/supervisor.rs",
        "The process ends when it stops its producers.";
    NoDaFence: "no DA fence", "E12, D1, I5", "actors/src/da.rs",
        "The DA adapter takes blobs under a grant of an older term.";
    NoGuardFence: "no guard fence", "I5, A5", "actors/src/signer/guard.rs",
        "The guard takes headers under a grant of an older term.";
    NoTermFence: "no term fence", "I5, A4", "actors/src/raft/proposing.rs",
        "A proposal goes to whoever leads, whatever the term of its grant.";
    NoDaReceipt: "DA receipt is lost", "E13, D3", "actors/src/da_submitter/posting.rs",
        "What DA has taken is not put on record.";
    BooleanLeadership: "boolean leadership", "E14, A3", "actors/src/supervisor/plan.rs",
        "A grant lasts while this node leads, in whichever term.";
    NoGuard: "no signer guard", "E17, I1", "actors/src/signer/guard.rs",
        "The guard lets another header of the guarded height be signed.";
    GuardAfterSignature: "guard after signature", "A14, I11", "actors/src/signer.rs",
        "The guard is written after the signature was made and recorded.";
    GuardWithoutSync: "guard without fsync", "A14, I11", "actors/src/signer.rs",
        "The guard is written and not synced.";
    HangingEngineIsWell: "hanging engine is healthy", "E18, S3", "actors/src/engine.rs",
        "A call to the engine that takes too long is not reported.";
    CommitWithoutQuorum: "commit at majority-1", "A22, B13", "actors/src/raft/network.rs",
        "A follower that does not answer an append counts as having it.";
    AckBeforeSync: "stale ack accepted", "B13, A10", "storage/src/log_store.rs",
        "An append is acknowledged before it is durable.";
    VoteWithoutSync: "drop vote fsync", "A10, I10", "storage/src/log_store.rs",
        "A vote is given before it is durable.";
    CutMatchingEntry: "append delete-then-write", "B12", "storage/src/log_store.rs",
        "Cutting the log takes the last entry that both logs have with it.";
    DrainEarly: "drain queue early", "B3, I4", "actors/src/sequencer/handlers.rs",
        "A batch leaves the queue when it is shown.";
    AcceptBeforeSync: "accept before durable", "E23, B2, I4", "storage/src/queue.rs",
        "A transaction is accepted before it is durable.";
    ForgetForwarded: "forget what was forwarded", "B2, B6, I4", "actors/src/sequencer.rs",
        "A follower forgets a transaction once a leader has taken it.";
    WindowFromTip: "window not rebuilt", "B4, B5, I4", "actors/src/sequencer.rs",
        "The replay window begins at the tip after a start.";
    RetryWithSibling: "retry with a sibling", "A6", "actors/src/executor.rs",
        "After an unknown outcome another block is built for the same height.";
    PostBeforeExecution: "post before execution", "P10, D2", "actors/src/da_submitter/posting.rs",
        "Blocks go to DA up to the tip, executed or not.";
    ActivateEarly: "activate too early", "A25", "actors/src/raft/tending.rs",
        "A new version of log entries begins once one voter knows it.";
    LocalForcedPosition: "local forced cursor", "E7, B8, B9, I8", "actors/src/inbox.rs",
        "The position of forced inclusion is this node's own, and moves when transactions are shown.";
    UnsignedHeaders: "headers unchecked", "C18, P1", "actors/src/checker.rs",
        "A node that follows takes the headers that peers give for signed.";
    CursorAhead: "cursor ahead of the store", "C18, L1", "actors/src/syncer/follow.rs",
        "A node that follows has read DA up to where it has read, also what it keeps in memory only.";
    LeadWithoutDa: "lead without DA", "S10, L3", "actors/src/supervisor/da.rs",
        "A leader that alone has lost DA never asks the others how far theirs is.";
    DeafToDenial: "deaf to denial", "B15, P3", "actors/src/raft/outside.rs",
        "A member that the others take for a stranger goes on accepting transactions.";
    HeadWithoutSync: "snapshot without fsync", "B11, B13", "storage/src/store.rs",
        "A snapshot counts as stored before it is durable.";
}

impl Mutation {
    /// The one with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|mutation| mutation.name() == name)
    }
}

impl fmt::Display for Mutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether this bug is planted. Never, in a build without `mutations`.
#[cfg(not(feature = "mutations"))]
#[inline(always)]
#[must_use]
pub const fn planted(_: Mutation) -> bool {
    false
}

#[cfg(feature = "mutations")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Mutation>> = const { std::cell::Cell::new(None) };
}

/// Whether this bug is planted on this thread.
#[cfg(feature = "mutations")]
#[must_use]
pub fn planted(mutation: Mutation) -> bool {
    PLANTED.get() == Some(mutation)
}

/// Plants a bug on this thread, or removes it.
#[cfg(feature = "mutations")]
pub fn plant(mutation: Option<Mutation>) {
    PLANTED.set(mutation);
}

/// Gives a new thread what is planted on this one: the returned function is called there.
pub fn inherit() -> impl FnOnce() + Send + 'static {
    #[cfg(feature = "mutations")]
    let planted = PLANTED.get();
    move || {
        #[cfg(feature = "mutations")]
        plant(planted);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_mutation_has_a_name_of_its_own_and_a_line_in_the_file_it_names() {
        let names: BTreeSet<_> = Mutation::ALL.iter().map(|mutation| mutation.name()).collect();
        assert_eq!(names.len(), Mutation::ALL.len());
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
        for mutation in Mutation::ALL {
            let text = std::fs::read_to_string(root.join(mutation.place())).expect("the file is there");
            let line = format!("planted(Mutation::{mutation:?})");
            assert_eq!(text.matches(&line).count(), 1, "{} asks once for {line}", mutation.place());
            assert_eq!(Mutation::named(mutation.name()), Some(*mutation));
        }
    }

    #[test]
    fn no_check_and_no_fake_knows_what_is_planted() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
        let mut directories = vec![root.join("tests/src"), root.join("tests/tests")];
        let mut read = 0;
        while let Some(directory) = directories.pop() {
            for found in std::fs::read_dir(directory).expect("readable") {
                let path = found.expect("readable").path();
                if path.is_dir() {
                    directories.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let text = std::fs::read_to_string(&path).expect("readable");
                    assert!(!text.contains("planted("), "{} asks for a mutation", path.display());
                    read += 1;
                }
            }
        }
        assert!(read > 10, "{read} files were read");
    }

    #[test]
    fn nothing_is_planted_unless_somebody_plants_it() {
        assert!(Mutation::ALL.iter().all(|mutation| !planted(*mutation)));
    }

    #[cfg(feature = "mutations")]
    #[test]
    fn what_is_planted_on_a_thread_stays_there() {
        plant(Some(Mutation::EqualTime));
        assert!(planted(Mutation::EqualTime) && !planted(Mutation::FreeParent));
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(!planted(Mutation::EqualTime)));
            let inherit = inherit();
            scope.spawn(move || {
                inherit();
                assert!(planted(Mutation::EqualTime));
            });
        });
        plant(None);
        assert!(!planted(Mutation::EqualTime));
    }
}
