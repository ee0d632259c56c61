//! Whether the others still take this node for a member.
//!
//! Who is removed hears nothing of it: the entry that says so goes to those who stay. But every
//! heartbeat interval it tells the others how it is, and is denied as a stranger. A leader that is heard
//! knows better than any other member, which may lag the entry that *added* this node.

use std::collections::BTreeMap;
use std::time::Duration;

use baton_messages::mutation::{Mutation, planted};
use baton_messages::types::MemberId;
use tokio::time::Instant;

/// What the others said last.
#[derive(Debug, Default)]
pub struct Outside {
    /// Those whose last answer was that this node is a stranger, their names and when they said so.
    denied: BTreeMap<MemberId, (String, Instant)>,
}

impl Outside {
    /// A member has answered; `denied`: it takes this node for a stranger.
    pub fn answered(&mut self, by: MemberId, name: &str, denied: bool, now: Instant) {
        if denied && !planted(Mutation::DeafToDenial) {
            self.denied.insert(by, (name.to_owned(), now));
        } else {
            self.denied.remove(&by);
        }
    }

    /// Forgets what others than these said.
    pub fn retain(&mut self, is_member: impl Fn(MemberId) -> bool) {
        self.denied.retain(|member, _| is_member(*member));
    }

    /// Who says that this node is no member, when that is to be believed: the leader that was heard
    /// last has said it since, or no leader was heard for the longest election time-out.
    #[must_use]
    pub fn by(&self, led_by: Option<(MemberId, Instant)>, now: Instant, longest: Duration) -> Option<&str> {
        let is_believed = |(member, (_, said)): &(&MemberId, &(String, Instant))| match led_by {
            None => true,
            Some((leader, heard)) => {
                *said > heard && (**member == leader || now.saturating_duration_since(heard) >= longest)
            }
        };
        self.denied.iter().find(is_believed).map(|(_, (name, _))| name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEADER: MemberId = MemberId(1);
    const OTHER: MemberId = MemberId(2);
    const LONGEST: Duration = Duration::from_millis(250);

    fn at(since: Instant, millis: u64) -> Instant {
        since + Duration::from_millis(millis)
    }

    #[test]
    fn the_leader_is_believed_at_once_and_anybody_else_when_no_leader_is_heard() {
        let start = Instant::now();
        let heard = Some((LEADER, start));
        let mut outside = Outside::default();
        outside.answered(OTHER, "other", true, at(start, 10));
        assert_eq!(outside.by(heard, at(start, 249), LONGEST), None, "it may lag what added this node");
        assert_eq!(outside.by(heard, at(start, 250), LONGEST), Some("other"));
        assert_eq!(outside.by(None, at(start, 10), LONGEST), Some("other"), "no leader since the start");
        outside.answered(LEADER, "leader", true, at(start, 20));
        assert_eq!(outside.by(heard, at(start, 20), LONGEST), Some("leader"));
    }

    #[test]
    fn a_leader_that_is_heard_later_takes_it_back() {
        let start = Instant::now();
        let mut outside = Outside::default();
        outside.answered(LEADER, "leader", true, start);
        outside.answered(OTHER, "other", true, start);
        let heard = Some((LEADER, at(start, 5)));
        assert_eq!(outside.by(heard, at(start, 5), LONGEST), None);
        assert_eq!(outside.by(heard, at(start, 900), LONGEST), None, "what was said before it spoke is old");
        assert_eq!(outside.by(Some((OTHER, at(start, 5))), at(start, 6), LONGEST), None, "another leader");
    }

    #[test]
    fn who_answers_again_or_is_no_member_any_more_says_nothing() {
        let start = Instant::now();
        let mut outside = Outside::default();
        outside.answered(OTHER, "other", true, start);
        outside.answered(OTHER, "other", false, start);
        assert_eq!(outside.by(None, start, LONGEST), None);
        outside.answered(OTHER, "other", true, start);
        outside.retain(|member| member != OTHER);
        assert_eq!(outside.by(None, start, LONGEST), None);
    }
}
