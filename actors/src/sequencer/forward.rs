//! What a node that does not lead sends to the leader next, without the actor around it.
//!
//! Everything in the queue goes to the leader in order, one batch at a time; a batch that failed
//! is sent again before later ones, so nothing overtakes (hazard B7). What was sent stays in the
//! queue until a committed block holds it: the next leader gets all of it again (E23, B6). Of what
//! the leader has taken, one batch every few seconds is sent again: its receipts say whether the
//! engine has refused something for good, and a leader that lost it gets it back.

use std::time::Duration;

use baton_messages::cluster::ForwardError;
use baton_messages::types::{MemberId, Term, Tx};
use tokio::time::Instant;

use super::queue::Queue;

/// How transactions are forwarded.
#[derive(Clone, Debug)]
pub struct Config {
    /// Most transactions in a batch.
    pub max_txs: usize,
    /// Most bytes in a batch; one transaction in any case.
    pub max_bytes: usize,
    /// How long the leader may take to make a batch durable.
    pub reply_within: Duration,
    /// Pause between two batches that are sent again.
    pub again_after: Duration,
    /// The pause after a failure.
    pub first_pause: Duration,
    /// The longest pause after many.
    pub longest_pause: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_txs: 1_000,
            max_bytes: 1 << 20,
            reply_within: Duration::from_secs(5),
            again_after: Duration::from_secs(3),
            first_pause: Duration::from_millis(50),
            longest_pause: Duration::from_secs(2),
        }
    }
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Send this.
    Send(Batch),
    /// Ask again then.
    Wait(Instant),
    /// Ask again when something changes.
    Idle,
}

/// Transactions on their way to a leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// They are for the leader of this reign.
    reign: u64,
    /// Who that is: what comes before them was taken by nobody else, perhaps (B7).
    pub leader: MemberId,
    /// The number of the last one.
    last: u64,
    /// The leader has taken them before.
    pub repeated: bool,
    /// The transactions, in order.
    pub txs: Vec<Tx>,
}

/// The state of forwarding: a few numbers, whatever is in the queue.
#[derive(Debug)]
pub struct Forwarder {
    config: Config,
    /// Another member that leads.
    leader: Option<(Term, MemberId)>,
    /// Counts leaders, so that an answer of the one before says nothing.
    reign: u64,
    /// Everything below was taken by this leader.
    taken: u64,
    /// Where the next batch that is sent again begins.
    again: u64,
    /// When it may be sent.
    again_at: Option<Instant>,
    /// Below this number batches hold one transaction: the leader refused one of several.
    one_by_one: u64,
    in_flight: bool,
    failures: u32,
    not_before: Option<Instant>,
}

impl Forwarder {
    /// Nobody is known to lead.
    #[must_use]
    pub const fn new(config: Config) -> Self {
        Self {
            config,
            leader: None,
            reign: 0,
            taken: 0,
            again: 0,
            again_at: None,
            one_by_one: 0,
            in_flight: false,
            failures: 0,
            not_before: None,
        }
    }

    /// How long the leader may take for an answer.
    #[must_use]
    pub const fn reply_within(&self) -> Duration {
        self.config.reply_within
    }

    /// The number below which this leader has taken everything.
    #[must_use]
    pub const fn taken(&self) -> u64 {
        self.taken
    }

    /// Another member leads this term, or nobody does, or this node itself (`None`). Another
    /// leader gets everything from the beginning, at once.
    pub fn led_by(&mut self, term: Term, leader: Option<MemberId>) {
        let leader = leader.map(|id| (term, id));
        if self.leader == leader {
            return;
        }
        let (config, reign) = (self.config.clone(), self.reign + 1);
        *self = Self { leader, reign, ..Self::new(config) };
    }

    /// The queue's numbers mean something else: it was read again.
    pub fn start_over(&mut self) {
        let (config, leader, reign) = (self.config.clone(), self.leader, self.reign + 1);
        *self = Self { leader, reign, ..Self::new(config) };
    }

    /// What to do now. What is to be sent counts as on its way.
    pub fn next(&mut self, now: Instant, queue: &Queue) -> Next {
        let Some((_, leader)) = self.leader else { return Next::Idle };
        if self.in_flight || queue.is_empty() {
            return Next::Idle;
        }
        if let Some(at) = self.not_before
            && now < at
        {
            return Next::Wait(at);
        }
        let has_taken = queue.first_order().is_some_and(|first| first < self.taken);
        if has_taken && self.again_at.is_some_and(|at| at <= now) {
            let batch = self.batch(leader, queue, self.again, self.taken);
            // From the beginning again when the end was reached.
            if let Some(batch) = batch.or_else(|| self.batch(leader, queue, 0, self.taken)) {
                self.in_flight = true;
                return Next::Send(Batch { repeated: true, ..batch });
            }
        }
        match self.batch(leader, queue, self.taken, u64::MAX) {
            Some(batch) => {
                self.in_flight = true;
                Next::Send(batch)
            }
            None => self.again_at.map_or(Next::Idle, Next::Wait),
        }
    }

    fn batch(&self, leader: MemberId, queue: &Queue, from: u64, below: u64) -> Option<Batch> {
        let one = queue.first_order_from(from).is_some_and(|first| first < self.one_by_one);
        let max_txs = if one { 1 } else { self.config.max_txs };
        let (last, txs) = queue.some(from, below, max_txs, self.config.max_bytes)?;
        Some(Batch { reign: self.reign, leader, last, repeated: false, txs })
    }

    /// The leader has taken a batch. `learned`: its receipts removed something from the queue.
    /// `false`: that leader leads no more.
    pub fn taken_over(&mut self, batch: &Batch, now: Instant, learned: bool) -> bool {
        if batch.reign != self.reign {
            return false;
        }
        self.in_flight = false;
        self.failures = 0;
        self.not_before = None;
        self.pass(batch, now, learned);
        true
    }

    /// The leader has not taken a batch. `chance` is between zero and one: members that failed
    /// together do not come back together (S20). `false`: that leader leads no more.
    pub fn failed(&mut self, batch: &Batch, error: &ForwardError, now: Instant, chance: f64) -> bool {
        if batch.reign != self.reign {
            return false;
        }
        self.in_flight = false;
        match error {
            ForwardError::NoLeader(_) | ForwardError::Full | ForwardError::TooOld { .. } => {
                self.failures += 1;
                let pause = self.config.first_pause * 2u32.pow(self.failures.min(16) - 1);
                let pause = pause.min(self.config.longest_pause);
                self.not_before = Some(now + pause.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0));
            }
            // Which one it is shows when each is sent alone.
            ForwardError::Refused(_) if batch.txs.len() > 1 => self.one_by_one = batch.last + 1,
            // It stays here: another leader may take it. The others do not wait for that.
            ForwardError::Refused(_) => self.pass(batch, now, false),
        }
        true
    }

    fn pass(&mut self, batch: &Batch, now: Instant, learned: bool) {
        if batch.repeated {
            self.again = batch.last + 1;
            // Where something was learned, more may be to learn at once.
            self.again_at = Some(if learned { now } else { now + self.config.again_after });
        } else {
            self.taken = batch.last + 1;
            if self.again_at.is_none() {
                self.again_at = Some(now + self.config.again_after);
            }
        }
    }
}

/// The word for a failure in metrics.
#[must_use]
pub const fn cause(error: &ForwardError) -> &'static str {
    match error {
        ForwardError::NoLeader(_) => "no_leader",
        ForwardError::Full => "full",
        ForwardError::TooOld { .. } => "too_old",
        ForwardError::Refused(_) => "refused",
    }
}

#[cfg(test)]
mod tests {
    use baton_messages::types::Height;
    use bytes::Bytes;

    use super::*;

    const LEADER: MemberId = MemberId(7);

    fn tx(text: &'static str) -> Tx {
        Tx(Bytes::from_static(text.as_bytes()))
    }

    fn queue(texts: &[&'static str]) -> Queue {
        let mut queue = Queue::default();
        for (order, text) in texts.iter().enumerate() {
            assert!(queue.insert(order as u64, tx(text).hash(), tx(text), Instant::now()));
        }
        queue
    }

    fn forwarder(max_txs: usize) -> Forwarder {
        let mut forwarder = Forwarder::new(Config { max_txs, ..Config::default() });
        forwarder.led_by(Term(1), Some(LEADER));
        forwarder
    }

    fn sent(next: Next) -> Batch {
        match next {
            Next::Send(batch) => batch,
            Next::Wait(_) | Next::Idle => panic!("{next:?} instead of a batch"),
        }
    }

    fn texts(batch: &Batch) -> Vec<&str> {
        batch.txs.iter().map(|tx| std::str::from_utf8(&tx.0).expect("a text")).collect()
    }

    fn away() -> ForwardError {
        ForwardError::NoLeader("away".to_owned())
    }

    #[test]
    fn one_batch_is_on_its_way_and_the_next_begins_behind_it() {
        let (queue, mut forwarder, now) = (queue(&["a", "b", "c"]), forwarder(2), Instant::now());
        let first = sent(forwarder.next(now, &queue));
        assert_eq!(texts(&first), ["a", "b"]);
        assert_eq!(forwarder.next(now, &queue), Next::Idle);
        assert!(forwarder.taken_over(&first, now, false));
        let second = sent(forwarder.next(now, &queue));
        assert_eq!((texts(&second), second.repeated), (vec!["c"], false));
    }

    #[test]
    fn a_batch_that_failed_is_sent_again_before_later_ones_and_after_a_growing_pause() {
        let (queue, mut forwarder, mut now) = (queue(&["a", "b"]), forwarder(1), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let batch = sent(forwarder.next(now, &queue));
            assert_eq!(texts(&batch), ["a"], "nothing overtakes");
            assert!(forwarder.failed(&batch, &away(), now, 1.0));
            let Next::Wait(until) = forwarder.next(now, &queue) else { panic!("no pause") };
            pauses.push(until.duration_since(now).as_millis());
            now = until;
        }
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1_600, 2_000, 2_000]);
        let batch = sent(forwarder.next(now, &queue));
        assert!(forwarder.failed(&batch, &ForwardError::Full, now, 0.0));
        let Next::Wait(until) = forwarder.next(now, &queue) else { panic!("no pause") };
        assert_eq!(until.duration_since(now).as_millis(), 1_000, "chance takes up to half of it off");
    }

    #[test]
    fn another_leader_gets_everything_from_the_beginning_at_once() {
        let (queue, mut forwarder, now) = (queue(&["a", "b"]), forwarder(1), Instant::now());
        let first = sent(forwarder.next(now, &queue));
        assert!(forwarder.taken_over(&first, now, false));
        let late = sent(forwarder.next(now, &queue));
        forwarder.led_by(Term(2), None);
        assert_eq!(forwarder.next(now, &queue), Next::Idle, "nobody leads");
        forwarder.led_by(Term(2), Some(LEADER));
        assert_eq!(texts(&sent(forwarder.next(now, &queue))), ["a"], "the same leader in another term");
        assert!(!forwarder.taken_over(&late, now, false), "an answer of the term before");
        assert!(!forwarder.failed(&late, &away(), now, 1.0));
        assert_eq!(forwarder.taken(), 0);
    }

    #[test]
    fn what_was_taken_is_sent_again_batch_by_batch_and_never_ahead_of_what_was_not() {
        let (queue, mut forwarder, mut now) = (queue(&["a", "b", "c"]), forwarder(2), Instant::now());
        for _ in 0..2 {
            let batch = sent(forwarder.next(now, &queue));
            forwarder.taken_over(&batch, now, false);
        }
        let mut seen = Vec::new();
        for learned in [true, false, false] {
            if !seen.is_empty() && seen.len() != 1 {
                assert_eq!(forwarder.next(now, &queue), Next::Wait(now + forwarder.config.again_after));
            }
            if seen.len() != 1 {
                now += forwarder.config.again_after;
            }
            let batch = sent(forwarder.next(now, &queue));
            assert!(batch.repeated);
            seen.push(texts(&batch).concat());
            forwarder.taken_over(&batch, now, learned);
        }
        assert_eq!(seen, ["ab", "c", "ab"], "where something was learned it goes on at once");
    }

    #[test]
    fn a_refused_batch_is_taken_apart_and_only_the_refused_one_stays_behind() {
        let (queue, mut forwarder, now) = (queue(&["a", "b", "c", "d"]), forwarder(3), Instant::now());
        let refused = ForwardError::Refused("b is too large".to_owned());
        let batch = sent(forwarder.next(now, &queue));
        assert_eq!(texts(&batch), ["a", "b", "c"]);
        forwarder.failed(&batch, &refused, now, 1.0);
        for (text, taken) in [("a", true), ("b", false), ("c", true)] {
            let batch = sent(forwarder.next(now, &queue));
            assert_eq!(texts(&batch), [text]);
            if taken {
                forwarder.taken_over(&batch, now, false);
            } else {
                forwarder.failed(&batch, &refused, now, 1.0);
            }
        }
        assert_eq!(texts(&sent(forwarder.next(now, &queue))), ["d"]);
        assert!(queue.contains(&tx("b").hash()), "another leader may take it");
    }

    #[test]
    fn a_queue_that_was_read_again_is_sent_again() {
        let (queue, mut forwarder, now) = (queue(&["a"]), forwarder(1), Instant::now());
        let batch = sent(forwarder.next(now, &queue));
        forwarder.start_over();
        assert!(!forwarder.taken_over(&batch, now, false));
        assert_eq!(texts(&sent(forwarder.next(now, &queue))), ["a"]);
    }

    #[test]
    fn every_failure_has_a_word() {
        let too_old = ForwardError::TooOld { checked: Height(1), window: Height(9) };
        let errors = [away(), ForwardError::Full, too_old, ForwardError::Refused(String::new())];
        assert_eq!(errors.each_ref().map(cause), ["no_leader", "full", "too_old", "refused"]);
    }
}
