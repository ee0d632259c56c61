//! How much of the log is kept: the rule, without the log around it.
//!
//! Bodies of committed blocks stay in the store when the log is purged; what a purge takes away is
//! the short way to catch up. So nothing is purged that a member which answers still needs, and
//! nothing before a majority of voters has the blocks complete: a history that only a minority
//! holds must be served from the log for as long as there is one.

use baton_messages::types::Height;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// At least so many entries behind the last snapshot.
    pub entries: u64,
    /// Records (without bodies) of more bytes than this are purged, also when they are fewer
    /// entries than that.
    pub bytes: u64,
}

/// A member, as far as the log is concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// It votes.
    pub voter: bool,
    /// The last index in its log; `None`: it has not been heard for long.
    pub last_log: Option<u64>,
    /// From here to its tip it has every body.
    pub first_body: Height,
    /// Its tip.
    pub tip: Height,
}

/// What is known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Situation {
    /// The last purged index; zero: none.
    pub purged: u64,
    /// The last index.
    pub last: u64,
    /// The last index in a snapshot; nothing after it can be purged.
    pub snapshot: u64,
    /// How many entries at the end have records within the limit of bytes.
    pub newest_within: u64,
    /// The lowest block in the log.
    pub lowest_block: Option<Height>,
    /// The tip here.
    pub tip: Height,
    /// Every member, this one too.
    pub members: Vec<Holder>,
}

/// A member that is slow keeps entries for itself up to so many times the usual number; then it
/// gets a snapshot, or the log of everybody grows without end.
const PATIENCE: u64 = 8;

/// The index up to which the log may be purged now, if that is worth doing.
#[must_use]
pub fn purge_to(limits: &Limits, now: &Situation) -> Option<u64> {
    if !is_complete_on_a_majority(now) {
        return None;
    }
    let by_entries = now.snapshot.saturating_sub(limits.entries);
    let by_bytes = now.last.saturating_sub(now.newest_within);
    let wanted = by_entries.max(by_bytes);
    let needed = now.members.iter().filter_map(|member| member.last_log).min().unwrap_or(wanted);
    let patience = now.last.saturating_sub(limits.entries.saturating_mul(PATIENCE));
    let to = wanted.min(needed.max(patience)).min(now.snapshot);
    // Small steps are not worth a write each.
    let worth = (limits.entries / 4).max(1);
    (to >= now.purged.saturating_add(worth)).then_some(to)
}

fn is_complete_on_a_majority(now: &Situation) -> bool {
    let Some(lowest) = now.lowest_block else { return true };
    let voters = now.members.iter().filter(|member| member.voter);
    let complete = |member: &&Holder| {
        member.last_log.is_some()
            && member.first_body <= lowest
            && member.tip.0.saturating_add(LAG) >= now.tip.0
    };
    let (all, good) = (voters.clone().count(), voters.filter(complete).count());
    good > all / 2
}

/// A voter may lag the tip by this many blocks and still count as complete: what it lacks is at
/// the end of the log, far from what is purged.
const LAG: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { entries: 100, bytes: 1 << 20 };

    fn voter(last_log: u64) -> Holder {
        Holder { voter: true, last_log: Some(last_log), first_body: Height(1), tip: Height(last_log) }
    }

    fn situation(members: Vec<Holder>) -> Situation {
        Situation {
            purged: 0,
            last: 1000,
            snapshot: 950,
            newest_within: 1000,
            lowest_block: Some(Height(1)),
            tip: Height(1000),
            members,
        }
    }

    #[test]
    fn entries_behind_the_snapshot_are_kept() {
        assert_eq!(purge_to(&LIMITS, &situation(vec![voter(1000)])), Some(850));
    }

    #[test]
    fn a_log_of_too_many_bytes_is_purged_further_but_never_beyond_the_snapshot() {
        let mut now = situation(vec![voter(1000)]);
        now.newest_within = 80;
        assert_eq!(purge_to(&LIMITS, &now), Some(920));
        now.newest_within = 10;
        assert_eq!(purge_to(&LIMITS, &now), Some(950));
    }

    #[test]
    fn what_a_member_that_answers_still_needs_stays() {
        let learner = Holder { voter: false, last_log: Some(400), first_body: Height(1), tip: Height(400) };
        let mut now = situation(vec![voter(1000), voter(1000), voter(1000), learner]);
        assert_eq!(purge_to(&LIMITS, &now), Some(400));
        now.members[3].last_log = None;
        assert_eq!(purge_to(&LIMITS, &now), Some(850), "who is gone is not waited for");
        now.members[3].last_log = Some(10);
        assert_eq!(purge_to(&LIMITS, &now), Some(200), "patience has an end");
    }

    #[test]
    fn nothing_is_purged_before_a_majority_of_voters_has_the_bodies() {
        let hollow = Holder { first_body: Height(900), ..voter(1000) };
        let lost = Holder { last_log: None, ..voter(1000) };
        assert_eq!(purge_to(&LIMITS, &situation(vec![voter(1000), hollow, hollow])), None);
        assert_eq!(purge_to(&LIMITS, &situation(vec![voter(1000), lost, hollow])), None);
        assert_eq!(purge_to(&LIMITS, &situation(vec![voter(1000), voter(1000), hollow])), Some(850));
        let behind = Holder { tip: Height(500), ..voter(1000) };
        assert_eq!(purge_to(&LIMITS, &situation(vec![voter(1000), behind, hollow])), None);
    }

    /// What a member tells of itself may be anything.
    #[test]
    fn a_tip_at_the_end_of_the_numbers_is_no_overflow() {
        let odd = Holder { tip: Height(u64::MAX), ..voter(1000) };
        assert_eq!(purge_to(&LIMITS, &situation(vec![voter(1000), odd, voter(1000)])), Some(850));
    }

    #[test]
    fn small_steps_wait() {
        let mut now = situation(vec![voter(1000)]);
        now.purged = 840;
        assert_eq!(purge_to(&LIMITS, &now), None);
        now.purged = 820;
        assert_eq!(purge_to(&LIMITS, &now), Some(850));
    }
}
