//! Fetching one long range from several peers at once.
//!
//! The range is cut into pieces of what one question may ask for. Pieces are given to the best
//! peers, a bounded number at a time; a piece whose peer is slow is given to a second one as well,
//! and one whose peer had nothing to others, until a few have been tried. What is answered is the
//! run without a gap from the first height. Decides only; who asks and checks is the actor.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use baton_messages::p2p::{FetchError, Given, PeerId};
use baton_messages::types::Height;
use tokio::time::Instant;

use super::network::AskId;

/// How ranges are fetched.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Items in one question.
    pub piece: u64,
    /// Questions of one range that are open at a time.
    pub window: usize,
    /// A piece that takes longer is given to another peer too.
    pub slow_after: Duration,
    /// A question that takes longer is given up.
    pub answer_within: Duration,
    /// So many peers are tried for one piece.
    pub tries: usize,
    /// The whole range ends after this with what there is.
    pub end_after: Duration,
    /// Bytes of the whole answer, as it is in memory.
    pub max_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            piece: baton_messages::wire::exchange::MAX_AMOUNT,
            window: 8,
            slow_after: Duration::from_secs(2),
            answer_within: Duration::from_secs(8),
            tries: 4,
            end_after: Duration::from_secs(40),
            max_bytes: baton_messages::p2p::MAX_FETCHED_BYTES,
        }
    }
}

/// A question to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Its name.
    pub id: AskId,
    /// Whom.
    pub peer: PeerId,
    /// The first height.
    pub from: Height,
    /// How many.
    pub amount: u64,
}

#[derive(Debug)]
struct Piece<T> {
    from: Height,
    /// How many are still missing.
    left: u64,
    items: Vec<Given<T>>,
    /// Who had nothing, failed or lied since the last progress.
    tried: BTreeSet<PeerId>,
    /// Nobody has more of it.
    ended: bool,
}

#[derive(Clone, Debug)]
struct Open {
    piece: usize,
    peer: PeerId,
    /// Where the piece stood when it was asked for.
    from: Height,
    /// How many were asked for.
    amount: u64,
    since: Instant,
    /// Another peer was asked for the same.
    doubled: bool,
}

/// One range on its way.
#[derive(Debug)]
pub struct Range<T> {
    config: Config,
    pieces: Vec<Piece<T>>,
    open: BTreeMap<AskId, Open>,
    everybody: BTreeSet<PeerId>,
    bytes: usize,
    began: Instant,
    trouble: Option<String>,
}

impl<T> Range<T> {
    /// A range of at least one item from a height upwards.
    #[must_use]
    pub fn new(config: Config, from: Height, count: u64, now: Instant) -> Self {
        let mut pieces = vec![];
        let mut next = from.0;
        let end = from.0.saturating_add(count);
        while next < end {
            let left = config.piece.min(end - next);
            let (items, tried) = (vec![], BTreeSet::new());
            pieces.push(Piece { from: Height(next), left, items, tried, ended: false });
            next += left;
        }
        let (open, everybody) = (BTreeMap::new(), BTreeSet::new());
        Self { config, pieces, open, everybody, bytes: 0, began: now, trouble: None }
    }

    /// What to ask now. `peers` are those that serve, the best first, each with how many more
    /// questions it may be asked; `id` names a question.
    pub fn questions(
        &mut self,
        peers: &[(PeerId, usize)],
        now: Instant,
        mut id: impl FnMut() -> AskId,
    ) -> Vec<Question> {
        let mut questions = vec![];
        // How much each got in this round: the work is spread.
        let mut given: BTreeMap<PeerId, usize> = BTreeMap::new();
        while self.open.len() < self.config.window {
            let Some((piece, doubles)) = self.next_piece(now) else { break };
            let busy: BTreeSet<&PeerId> =
                self.open.values().filter(|open| open.piece == piece).map(|open| &open.peer).collect();
            let tried = &self.pieces[piece].tried;
            let fit = peers.iter().enumerate().map(|(rank, (peer, room))| {
                let given = given.get(peer).copied().unwrap_or(0);
                (given, rank, peer, *room)
            });
            let mut fit =
                fit.filter(|(.., peer, _)| !tried.contains(*peer) && !busy.contains(*peer)).peekable();
            let somebody = fit.peek().is_some();
            let best =
                fit.filter(|(given, .., room)| given < room).min_by_key(|(given, rank, ..)| (*given, *rank));
            let Some((.., peer, _)) = best else {
                match doubles {
                    // Those who could be asked have enough to do.
                    _ if somebody => break,
                    // There is nobody else: the slow one goes on.
                    Some(slow) => self.mark_doubled(slow),
                    None => self.end_piece(piece),
                }
                continue;
            };
            *given.entry(peer.clone()).or_default() += 1;
            if let Some(slow) = doubles {
                self.mark_doubled(slow);
            }
            let Piece { from, left, .. } = self.pieces[piece];
            let question = Question { id: id(), peer: peer.clone(), from, amount: left };
            let open = Open { piece, peer: peer.clone(), from, amount: left, since: now, doubled: false };
            self.open.insert(question.id, open);
            self.everybody.insert(peer.clone());
            questions.push(question);
        }
        questions
    }

    /// The next piece to ask for; with the question that is slow when it is asked for already.
    fn next_piece(&self, now: Instant) -> Option<(usize, Option<AskId>)> {
        let full = self.bytes >= self.config.max_bytes;
        for (number, piece) in self.pieces.iter().enumerate() {
            if piece.ended {
                // What comes after a gap is of no use.
                return None;
            }
            if piece.left == 0 {
                continue;
            }
            let mut open = self.open.iter().filter(|(_, open)| open.piece == number).peekable();
            if open.peek().is_none() {
                return (!full).then_some((number, None));
            }
            let slow = open.find(|(_, open)| !open.doubled && open.since + self.config.slow_after <= now);
            if let Some((id, _)) = slow {
                return Some((number, Some(*id)));
            }
        }
        None
    }

    fn mark_doubled(&mut self, id: AskId) {
        if let Some(open) = self.open.get_mut(&id) {
            open.doubled = true;
        }
    }

    fn end_piece(&mut self, piece: usize) {
        self.pieces[piece].ended = true;
    }

    /// Whom a question went to, from where on it asked, and for how many.
    #[must_use]
    pub fn asked(&self, id: AskId) -> Option<(PeerId, Height, u64)> {
        self.open.get(&id).map(|open| (open.peer.clone(), open.from, open.amount))
    }

    /// A question was answered with these items, none when the peer had nothing.
    pub fn answered(&mut self, id: AskId, items: Vec<Arc<T>>, bytes: usize) {
        let Some(Open { piece, peer, from, .. }) = self.open.remove(&id) else { return };
        let tries = self.config.tries;
        let piece = &mut self.pieces[piece];
        if items.is_empty() {
            piece.tried.insert(peer);
            piece.ended |= piece.left > 0 && piece.tried.len() >= tries;
            return;
        }
        // Another peer may have been faster with the first of them.
        let known = usize::try_from(piece.from.0 - from.0).unwrap_or(usize::MAX);
        let fresh = items.len().saturating_sub(known) as u64;
        if fresh == 0 || fresh > piece.left {
            // Of no use: others have their turn before it is asked for this again.
            piece.tried.insert(peer);
            piece.ended |= piece.left > 0 && piece.tried.len() >= tries;
            return;
        }
        let given = items.into_iter().skip(known).map(|item| Given { peer: peer.clone(), item });
        piece.items.extend(given);
        piece.from = Height(piece.from.0 + fresh);
        piece.left -= fresh;
        piece.ended = false;
        piece.tried.clear();
        self.bytes += bytes;
    }

    /// A question came to nothing: the peer failed, was too slow, or gave what it should not.
    pub fn failed(&mut self, id: AskId, reason: &str) {
        let Some(Open { piece, peer, .. }) = self.open.remove(&id) else { return };
        let tries = self.config.tries;
        let piece = &mut self.pieces[piece];
        piece.tried.insert(peer);
        piece.ended |= piece.left > 0 && piece.tried.len() >= tries;
        self.trouble = Some(reason.to_owned());
    }

    /// Questions that take too long, with their peers. They count as failed.
    pub fn expired(&mut self, now: Instant) -> Vec<(AskId, PeerId)> {
        let within = self.config.answer_within;
        let late = self.open.iter().filter(|(_, open)| open.since + within <= now);
        let late: Vec<_> = late.map(|(id, open)| (*id, open.peer.clone())).collect();
        for (id, _) in &late {
            self.failed(*id, "no answer in time");
        }
        late
    }

    /// The open questions.
    pub fn open(&self) -> impl Iterator<Item = (AskId, &PeerId)> {
        self.open.iter().map(|(id, open)| (*id, &open.peer))
    }

    /// Whether nothing more is to be expected.
    #[must_use]
    pub fn is_over(&self, now: Instant) -> bool {
        if self.began + self.config.end_after <= now {
            return true;
        }
        let first_gap = self.pieces.iter().position(|piece| piece.left > 0);
        let Some(gap) = first_gap else { return true };
        // A question for the piece at the gap, or room to ask one.
        let asked = self.open.values().any(|open| open.piece == gap);
        !asked && (self.pieces[gap].ended || self.bytes >= self.config.max_bytes)
    }

    /// The answer: the run from the first height on.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub fn end(self) -> Result<Vec<Given<T>>, FetchError> {
        let mut run = vec![];
        for piece in self.pieces {
            run.extend(piece.items);
            if piece.left > 0 {
                break;
            }
        }
        match (run.is_empty(), self.trouble) {
            (false, _) => Ok(run),
            (true, _) if self.everybody.is_empty() => Err(FetchError::NoPeers),
            (true, Some(trouble)) => Err(FetchError::Failed(trouble)),
            (true, None) => Err(FetchError::NotFound { asked: self.everybody.len() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(names: &[&str], room: usize) -> Vec<(PeerId, usize)> {
        names.iter().map(|name| (PeerId::from(*name), room)).collect()
    }

    struct Run {
        range: Range<u64>,
        next: u64,
        now: Instant,
    }

    impl Run {
        fn of(count: u64) -> Self {
            let now = Instant::now();
            let config = Config { piece: 10, window: 3, max_bytes: 1000, ..Config::default() };
            Self { range: Range::new(config, Height(1), count, now), next: 0, now }
        }

        fn ask(&mut self, names: &[&str]) -> Vec<Question> {
            self.ask_with_room(names, 4)
        }

        fn ask_with_room(&mut self, names: &[&str], room: usize) -> Vec<Question> {
            let next = &mut self.next;
            self.range.questions(&peers(names, room), self.now, || {
                *next += 1;
                AskId(*next)
            })
        }

        fn give(&mut self, question: &Question, count: u64) {
            let items = (question.from.0..question.from.0 + count).map(Arc::new).collect();
            self.range.answered(question.id, items, usize::try_from(count).expect("small"));
        }

        fn is_over(&self) -> bool {
            self.range.is_over(self.now)
        }

        fn end(self) -> Result<Vec<u64>, FetchError> {
            self.range.end().map(|given| given.into_iter().map(|given| *given.item).collect())
        }
    }

    fn spread(questions: &[Question]) -> Vec<(&str, u64, u64)> {
        questions.iter().map(|asked| (&*asked.peer.0, asked.from.0, asked.amount)).collect()
    }

    #[test]
    fn pieces_are_spread_over_the_peers_within_the_window() {
        let mut run = Run::of(45);
        let first = run.ask(&["a", "b"]);
        assert_eq!(spread(&first), [("a", 1, 10), ("b", 11, 10), ("a", 21, 10)]);
        assert_eq!(run.ask(&["a", "b"]), []);
        run.give(&first[1], 10);
        let second = run.ask(&["a", "b"]);
        assert_eq!(spread(&second), [("a", 31, 10)]);
        for question in [&first[0], &first[2], &second[0]] {
            run.give(question, 10);
        }
        assert!(!run.is_over());
        let last = run.ask(&["b"]);
        assert_eq!(spread(&last), [("b", 41, 5)]);
        run.give(&last[0], 5);
        assert!(run.is_over());
        assert_eq!(run.end(), Ok((1..=45).collect()));
    }

    #[test]
    fn a_short_answer_is_continued_where_it_ended() {
        let mut run = Run::of(10);
        let first = run.ask(&["a"]);
        run.give(&first[0], 4);
        assert!(!run.is_over());
        let second = run.ask(&["a"]);
        assert_eq!(spread(&second), [("a", 5, 6)]);
        run.give(&second[0], 0);
        assert_eq!(run.ask(&["a"]), [], "it has no more");
        assert!(run.is_over());
        assert_eq!(run.end(), Ok((1..=4).collect()));
    }

    #[test]
    fn a_slow_peer_is_replaced_and_whoever_is_first_counts() {
        let mut run = Run::of(10);
        let slow = run.ask(&["a", "b"]);
        run.now += Duration::from_secs(2);
        let fast = run.ask(&["a", "b"]);
        assert_eq!(spread(&fast), [("b", 1, 10)]);
        assert_eq!(run.ask(&["a", "b"]), [], "two are enough");
        run.give(&fast[0], 10);
        run.give(&slow[0], 10);
        assert!(run.is_over());
        assert_eq!(run.end(), Ok((1..=10).collect()));
    }

    #[test]
    fn what_overlaps_is_taken_once() {
        let mut run = Run::of(10);
        let slow = run.ask(&["a", "b"]);
        run.now += Duration::from_secs(2);
        let fast = run.ask(&["a", "b"]);
        run.give(&fast[0], 3);
        run.give(&slow[0], 7);
        let rest = run.ask(&["b"]);
        assert_eq!(spread(&rest), [("b", 8, 3)]);
        run.give(&rest[0], 3);
        assert_eq!(run.end(), Ok((1..=10).collect()));
    }

    #[test]
    fn who_gives_what_is_of_no_use_is_not_asked_for_it_again_at_once() {
        let mut run = Run::of(5);
        let asked = run.ask(&["a", "b"]);
        assert_eq!(spread(&asked), [("a", 1, 5)]);
        assert_eq!(run.range.asked(asked[0].id), Some((PeerId::from("a"), Height(1), 5)));
        run.give(&asked[0], 6);
        assert_eq!(spread(&run.ask(&["a", "b"])), [("b", 1, 5)]);
    }

    #[test]
    fn silence_ends_and_the_piece_goes_to_somebody_else() {
        let mut run = Run::of(10);
        run.ask(&["a"]);
        run.now += Duration::from_secs(8);
        assert_eq!(run.range.expired(run.now).len(), 1);
        assert_eq!(run.ask(&["a"]), [], "it had its chance");
        assert!(run.is_over());
        assert_eq!(run.end(), Err(FetchError::Failed("no answer in time".to_owned())));
    }

    #[test]
    fn a_gap_ends_the_answer_before_it() {
        let mut run = Run::of(30);
        let asked = run.ask(&["a", "b", "c"]);
        run.give(&asked[0], 10);
        run.give(&asked[2], 10);
        run.range.failed(asked[1].id, "lied");
        assert!(!run.is_over());
        let again = run.ask(&["a", "b"]);
        assert_eq!(spread(&again), [("a", 11, 10)]);
        run.give(&again[0], 0);
        assert_eq!(run.ask(&["a", "b"]), []);
        assert!(run.is_over());
        assert_eq!(run.end(), Ok((1..=10).collect()));
    }

    #[test]
    fn nobody_to_ask_and_nobody_who_has_it_are_told_apart() {
        let mut run = Run::of(10);
        assert_eq!(run.ask(&[]), []);
        assert!(run.is_over());
        assert_eq!(run.end(), Err(FetchError::NoPeers));
        let mut run = Run::of(10);
        for name in ["a", "b", "c", "d"] {
            let asked = run.ask(&[name]);
            run.give(&asked[0], 0);
        }
        assert!(run.is_over(), "four are enough");
        assert_eq!(run.end(), Err(FetchError::NotFound { asked: 4 }));
    }

    #[test]
    fn no_more_is_asked_for_when_the_bytes_are_used_up() {
        let mut run = Run::of(50);
        let asked = run.ask(&["a"]);
        assert_eq!(asked.len(), 3);
        let items = (1..=10).map(Arc::new).collect();
        run.range.answered(asked[0].id, items, 1000);
        assert_eq!(run.ask(&["a"]), []);
        run.give(&asked[1], 10);
        run.give(&asked[2], 10);
        assert!(run.is_over());
        assert_eq!(run.end(), Ok((1..=30).collect()));
    }

    #[test]
    fn whoever_is_busy_is_waited_for() {
        let mut run = Run::of(30);
        assert_eq!(run.ask_with_room(&["a"], 1).len(), 1);
        assert_eq!(run.ask_with_room(&["a"], 0), []);
        assert!(!run.is_over());
        assert_eq!(spread(&run.ask_with_room(&["a"], 1)), [("a", 11, 10)]);
    }

    #[test]
    fn it_ends_in_time_with_what_there_is() {
        let mut run = Run::of(20);
        let asked = run.ask(&["a"]);
        run.give(&asked[0], 10);
        run.now += Config::default().end_after;
        assert!(run.is_over());
        assert_eq!(run.end(), Ok((1..=10).collect()));
    }
}
