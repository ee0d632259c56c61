//! Who leads, and who took over from whom: put together from what the nodes say.

use crate::devnet::probe::NodeView;

/// A change of leadership whose gap can be looked up in the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenOver {
    /// Who led before.
    pub from: String,
    /// Who leads now.
    pub to: String,
    /// In which term.
    pub term: u64,
    /// The last height that was seen of the old leader.
    pub last: u64,
    /// A height of the new one. It is signed: one more was made after it.
    pub first: u64,
}

/// What is known of the leader.
#[derive(Clone, Debug, Default)]
pub struct Succession {
    /// The newest leader, and its term.
    leader: Option<(String, u64)>,
    /// Who led when the last block before the change was made; `None`: nothing changed.
    before: Option<String>,
    /// The highest height of an older term than the leader's, or of it while nothing changed.
    last: u64,
    /// The first height of the new term that was seen.
    first: Option<u64>,
}

impl Succession {
    /// Takes what a node says of itself. Returns a change once the new leader has made two blocks:
    /// a block is served when its signature is in the log, which the next one carries.
    pub fn see(&mut self, name: &str, view: &NodeView) -> Option<TakenOver> {
        let known = self.leader.as_ref().map_or(0, |(_, term)| *term);
        if let Some(term) = view.term.filter(|term| view.role == "leader" && *term > known) {
            let before = self.leader.replace((name.to_owned(), term));
            // The same node again is a gap, too; who led when the last block was made counts.
            self.before = self.before.take().or(before.map(|(name, _)| name));
            self.first = None;
        }
        let (to, term) = self.leader.clone()?;
        let (height, of_term) = (view.height?, view.tip_term?);
        let Some(from) = &self.before else {
            // Of a newer term: another node already follows a leader that was not seen yet.
            if of_term <= term {
                self.last = self.last.max(height);
            }
            return None;
        };
        if of_term < term {
            self.last = self.last.max(height);
            return None;
        }
        let first = *self.first.get_or_insert(height);
        if height <= first {
            return None;
        }
        let taken = TakenOver { from: from.clone(), to, term, last: self.last, first };
        (self.before, self.first, self.last) = (None, None, height);
        Some(taken)
    }
}

/// The longest time between two of these blocks in milliseconds, and the height of the later one.
pub fn longest(times: &[(u64, u64)]) -> Option<(u64, u64)> {
    let gaps = times.windows(2).map(|pair| (pair[1].1.saturating_sub(pair[0].1) / 1_000_000, pair[1].0));
    gaps.max_by_key(|(gap, _)| *gap)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(role: &str, term: u64, height: u64, tip_term: u64) -> NodeView {
        NodeView {
            role: role.to_owned(),
            term: Some(term),
            height: Some(height),
            tip_term: Some(tip_term),
            ..NodeView::default()
        }
    }

    #[test]
    fn a_change_is_told_once_the_new_leader_has_made_a_block() {
        let mut succession = Succession::default();
        assert_eq!(succession.see("a", &view("leader", 1, 5, 1)), None);
        assert_eq!(succession.see("b", &view("follower", 1, 6, 1)), None);
        assert_eq!(succession.see("b", &view("leader", 2, 7, 1)), None, "no block of its own yet");
        assert_eq!(succession.see("c", &view("follower", 2, 9, 2)), None, "it is not signed yet");
        let taken = succession.see("c", &view("follower", 2, 10, 2)).unwrap();
        let wanted = TakenOver { from: "a".to_owned(), to: "b".to_owned(), term: 2, last: 7, first: 9 };
        assert_eq!(taken, wanted);
        assert_eq!(succession.see("b", &view("leader", 2, 11, 2)), None, "told once");
    }

    #[test]
    fn a_follower_that_is_seen_before_the_new_leader_does_not_hide_the_gap() {
        let mut succession = Succession::default();
        assert_eq!(succession.see("b", &view("leader", 1, 5, 1)), None);
        assert_eq!(succession.see("a", &view("follower", 2, 7, 2)), None);
        assert_eq!(succession.see("b", &view("follower", 2, 7, 2)), None);
        assert_eq!(succession.see("c", &view("leader", 2, 7, 2)), None);
        let taken = succession.see("a", &view("follower", 2, 9, 2)).unwrap();
        assert_eq!((&*taken.from, &*taken.to, taken.last, taken.first), ("b", "c", 5, 7));
    }

    #[test]
    fn a_leader_that_made_nothing_is_passed_over() {
        let mut succession = Succession::default();
        succession.see("a", &view("leader", 1, 5, 1));
        assert_eq!(succession.see("b", &view("leader", 2, 5, 1)), None);
        assert_eq!(succession.see("c", &view("leader", 3, 5, 1)), None);
        assert_eq!(succession.see("c", &view("leader", 3, 6, 3)), None);
        let taken = succession.see("c", &view("leader", 3, 8, 3)).unwrap();
        assert_eq!((&*taken.from, &*taken.to, taken.last, taken.first), ("a", "c", 5, 6));
    }

    #[test]
    fn an_old_leader_that_does_not_know_yet_changes_nothing() {
        let mut succession = Succession::default();
        succession.see("a", &view("leader", 1, 5, 1));
        succession.see("b", &view("leader", 2, 6, 2));
        assert_eq!(succession.see("a", &view("leader", 1, 5, 1)), None);
        assert_eq!(succession.leader, Some(("b".to_owned(), 2)));
    }

    #[test]
    fn the_gap_is_the_longest_between_two_blocks() {
        let times = [(7, 100_000_000), (8, 200_000_000), (9, 640_000_000), (10, 740_000_000)];
        assert_eq!(longest(&times), Some((440, 9)));
        assert_eq!(longest(&times[..1]), None);
    }
}
