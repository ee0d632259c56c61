//! Which situations histories reach: a batch that never comes to one of them tests less than it
//! seems to.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A situation that a batch of histories must have been in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Situation {
    /// A crash after a commit and before its signature.
    CrashBetweenCommitAndSign,
    /// A crash after a signature and before its blob is on DA.
    CrashBetweenSignAndDa,
    /// A crash after a blob is on DA and before the log says so.
    CrashBetweenDaAndRecord,
    /// A crash that tore the guard's slot.
    TornGuard,
    /// A crash that left a part of a write.
    TornWrite,
    /// A crash that lost writes.
    LostWrites,
    /// A proposal whose outcome was unknown, and which was committed.
    UnknownCommitted,
    /// A proposal whose outcome was unknown, and which never was.
    UnknownNever,
    /// A leader lost leadership and had it again within a tenth of a second.
    Flap,
    /// A leader whose tip was two or more blocks behind when it was elected.
    LeaderBehind,
    /// A member went on from a snapshot.
    SnapshotInstalled,
    /// The guard refused a second header for a height.
    GuardRefused,
    /// The guard refused a producer of an older term.
    GuardFenced,
    /// The DA adapter refused a producer of an older term.
    DaFenced,
    /// Raft refused a producer of an older term.
    RaftFenced,
    /// Apply refused an entry.
    VerdictRefused,
    /// Raft refused a proposal of the executor before it was appended.
    ProposalRefused,
    /// The DA layer took blobs and said it did not.
    FalseError,
    /// A hand-off succeeded.
    HandedOff,
    /// A hand-off was aborted.
    HandOffAborted,
    /// A leader was cut off with a minority.
    LeaderInMinority,
    /// A damaged record was refused loudly.
    DamageRefused,
    /// An older copy of a disk was refused.
    OldDiskRefused,
    /// A disk was full, and had room again.
    DiskFull,
    /// A disk hung.
    DiskHung,
    /// A node slept longer than an election takes.
    Slept,
    /// The power went off everywhere at once.
    Blackout,
    /// No node heard any other for longer than an election takes.
    Apart,
    /// The membership changed.
    MembersChanged,
    /// A newer version of entries came into force.
    VersionRaised,
    /// Clocks ran at different rates.
    ClocksApart,
    /// A full node that was behind came level, mostly by what peers gave.
    FullFromPeers,
    /// A full node that was behind came level, mostly by what is on DA.
    FullFromDa,
    /// A full node came level that had lost blocks in a crash.
    FullAfterLoss,
    /// A full node refused what a peer gave.
    FullRefused,
    /// A full node banned a peer.
    FullBanned,
    /// A full node found that something forced was left out.
    FullStopped,
    /// A full node's store was opened again after a failure, and had lost blocks.
    FullReopened,
    /// A light node that was behind came level.
    LightLevel,
    /// A leader that alone had lost DA was succeeded by one that had not.
    DaSucceeded,
    /// A member that was removed and ran on refused what clients posted.
    RemovedRefused,
}

impl Situation {
    /// All of them.
    pub const ALL: [Self; 41] = [
        Self::CrashBetweenCommitAndSign,
        Self::CrashBetweenSignAndDa,
        Self::CrashBetweenDaAndRecord,
        Self::TornGuard,
        Self::TornWrite,
        Self::LostWrites,
        Self::UnknownCommitted,
        Self::UnknownNever,
        Self::Flap,
        Self::LeaderBehind,
        Self::SnapshotInstalled,
        Self::GuardRefused,
        Self::GuardFenced,
        Self::DaFenced,
        Self::RaftFenced,
        Self::VerdictRefused,
        Self::ProposalRefused,
        Self::FalseError,
        Self::HandedOff,
        Self::HandOffAborted,
        Self::LeaderInMinority,
        Self::DamageRefused,
        Self::OldDiskRefused,
        Self::DiskFull,
        Self::DiskHung,
        Self::Slept,
        Self::Blackout,
        Self::Apart,
        Self::MembersChanged,
        Self::VersionRaised,
        Self::ClocksApart,
        Self::FullFromPeers,
        Self::FullFromDa,
        Self::FullAfterLoss,
        Self::FullRefused,
        Self::FullBanned,
        Self::FullStopped,
        Self::FullReopened,
        Self::LightLevel,
        Self::DaSucceeded,
        Self::RemovedRefused,
    ];
}

impl fmt::Display for Situation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CrashBetweenCommitAndSign => "crash between commit and signature",
            Self::CrashBetweenSignAndDa => "crash between signature and DA",
            Self::CrashBetweenDaAndRecord => "crash between DA and its record",
            Self::TornGuard => "torn guard",
            Self::TornWrite => "torn write",
            Self::LostWrites => "lost writes",
            Self::UnknownCommitted => "unknown proposal that was committed",
            Self::UnknownNever => "unknown proposal that never was",
            Self::Flap => "leadership lost and regained at once",
            Self::LeaderBehind => "new leader two or more behind",
            Self::SnapshotInstalled => "snapshot installed",
            Self::GuardRefused => "second header refused by the guard",
            Self::GuardFenced => "older term refused by the guard",
            Self::DaFenced => "older term refused by the DA adapter",
            Self::RaftFenced => "older term refused by Raft",
            Self::VerdictRefused => "refused by apply",
            Self::ProposalRefused => "refused before append",
            Self::FalseError => "false error of DA",
            Self::HandedOff => "handed off",
            Self::HandOffAborted => "hand-off aborted",
            Self::LeaderInMinority => "leader in the minority",
            Self::DamageRefused => "damage refused",
            Self::OldDiskRefused => "old disk refused",
            Self::DiskFull => "disk full",
            Self::DiskHung => "disk hung",
            Self::Slept => "node slept",
            Self::Blackout => "power lost everywhere",
            Self::Apart => "no node heard another",
            Self::MembersChanged => "membership changed",
            Self::VersionRaised => "newer entries in force",
            Self::ClocksApart => "clocks at different rates",
            Self::FullFromPeers => "full node caught up from peers",
            Self::FullFromDa => "full node caught up from DA",
            Self::FullAfterLoss => "full node caught up after losing blocks",
            Self::FullRefused => "full node refused what a peer gave",
            Self::FullBanned => "full node banned a peer",
            Self::FullStopped => "full node found something forced left out",
            Self::FullReopened => "full node's store reopened with less",
            Self::LightLevel => "light node caught up",
            Self::DaSucceeded => "leader without DA succeeded",
            Self::RemovedRefused => "removed member refused a client",
        })
    }
}

/// How often situations were reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage(BTreeMap<Situation, u64>);

impl Coverage {
    /// One more.
    pub fn reached(&mut self, situation: Situation) {
        *self.0.entry(situation).or_default() += 1;
    }

    /// How often a situation was reached.
    #[must_use]
    pub fn count(&self, situation: Situation) -> u64 {
        self.0.get(&situation).copied().unwrap_or_default()
    }

    /// Adds what another history reached.
    pub fn merge(&mut self, other: &Self) {
        for (situation, count) in &other.0 {
            *self.0.entry(*situation).or_default() += count;
        }
    }

    /// What was never reached.
    #[must_use]
    pub fn missing(&self) -> Vec<Situation> {
        Situation::ALL.into_iter().filter(|situation| self.count(*situation) == 0).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for situation in Situation::ALL {
            writeln!(f, "  {:<44} {:>8}", situation.to_string(), self.count(situation))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_reached_is_missing_until_any_history_has() {
        let (mut all, mut one) = (Coverage::default(), Coverage::default());
        assert_eq!(all.missing(), Situation::ALL);
        one.reached(Situation::Flap);
        one.reached(Situation::Flap);
        all.merge(&one);
        assert_eq!((all.count(Situation::Flap), all.missing().len()), (2, Situation::ALL.len() - 1));
    }
}
