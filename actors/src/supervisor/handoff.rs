//! Giving leadership to another voter, step by step.
//!
//! The target must be level while this node still produces; then the producers finish their last
//! block, the target shows that it has it, and only then Raft is asked. Up to there every failure
//! ends where it began: this node goes on in the same term (hazards F2, F3, F4). Afterwards there is
//! no second attempt for the same order (F1).

use std::time::Duration;

use baton_messages::cluster::{Condition, HandOffError, HandedOff, TransferError};
use baton_messages::types::{MemberId, Term};

use super::peers::{Moment, Position, Times};

/// Entries by which a target may be behind when the producers are stopped: it has them before
/// the last block is executed.
const NEARLY: u64 = 64;

/// Why leadership is given away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// An operator asked.
    Operator,
    /// The node is shutting down.
    Shutdown,
    /// The node leads and is not fit to produce.
    Unfit,
    /// The node leads, and its DA layer does not answer.
    Da,
}

impl Why {
    /// The word in logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Shutdown => "shutdown",
            Self::Unfit => "unfit",
            Self::Da => "da",
        }
    }
}

/// What the actor does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Let the producers finish their last block and stop them.
    Close,
    /// Ask Raft.
    Transfer {
        /// The term this node leads.
        term: Term,
        /// To whom.
        to: MemberId,
    },
    /// It is over. `Aborted` and `NotLeader` mean that nothing was done.
    End(Result<HandedOff, HandOffError>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Until the target is nearly level; this node produces.
    Level,
    /// Until the producers have stopped.
    Closing,
    /// Until the target shows that it has everything.
    Matching,
    /// Until Raft answers.
    Transferring,
}

/// The world at the moment of a decision.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The moment.
    pub now: Moment,
    /// The term this node leads, if it does.
    pub leads: Option<Term>,
    /// Producers run.
    pub producing: bool,
    /// Its log and chain.
    pub position: Position,
    /// What the target told lately, or why it cannot take over.
    pub target: Result<&'a Condition, &'a str>,
}

/// One hand-over.
#[derive(Clone, Debug)]
pub struct HandOver {
    /// To whom.
    pub to: MemberId,
    /// Its name.
    pub name: String,
    /// The term that is given away.
    pub term: Term,
    /// Why.
    pub why: Why,
    times: Times,
    step: Step,
    /// When it gives up, up to the transfer.
    deadline: Moment,
    /// Raft refused a moment ago: it is not asked again before this.
    rests_until: Moment,
}

impl HandOver {
    /// A hand-over that begins now and gives up after `within`, unless Raft was asked by then.
    #[must_use]
    pub fn new(
        to: (MemberId, String),
        term: Term,
        why: Why,
        times: Times,
        now: Moment,
        within: Duration,
    ) -> Self {
        let (to, name) = to;
        Self { to, name, term, why, times, step: Step::Level, deadline: now + within, rests_until: now }
    }

    /// What it waits for, for status and log.
    #[must_use]
    pub fn waits_for(&self) -> String {
        let Self { name, .. } = self;
        match self.step {
            Step::Level => format!("waiting until {name} is level"),
            Step::Closing => "waiting for the end of the last block".to_owned(),
            Step::Matching => format!("waiting until {name} has the last block"),
            Step::Transferring => format!("waiting until {name} leads"),
        }
    }

    /// Whether Raft was asked: there is no way back by ourselves.
    #[must_use]
    pub fn is_transferring(&self) -> bool {
        self.step == Step::Transferring
    }

    /// Looks again.
    pub fn look(&mut self, view: &View<'_>) -> Vec<Action> {
        if self.step == Step::Transferring {
            return vec![];
        }
        if view.leads != Some(self.term) {
            return self.abort(format!("this node no longer leads term {}", self.term));
        }
        let target = match view.target {
            Ok(target) => target,
            Err(reason) => return self.abort(format!("{} cannot take over: {reason}", self.name)),
        };
        if view.now >= self.deadline {
            return self.abort(format!("gave up {}", self.waits_for()));
        }
        match self.step {
            Step::Level | Step::Matching if !is_nearly_level(&view.position, target) => vec![],
            // Also one that began without producers, when they started meanwhile.
            Step::Level | Step::Matching if view.producing => {
                self.step = Step::Closing;
                vec![Action::Close]
            }
            Step::Level | Step::Matching => self.match_last(view, target),
            Step::Closing | Step::Transferring => vec![],
        }
    }

    /// The producers have stopped; not all of them had finished when `finished` is false.
    pub fn closed(&mut self, finished: bool, now: Moment) -> Vec<Action> {
        if self.step != Step::Closing {
            return vec![];
        }
        if !finished && self.why != Why::Unfit {
            return self.abort("the last block was not decided in time".to_owned());
        }
        self.step = Step::Matching;
        // From here on nothing is produced: not for long.
        self.deadline = self.deadline.min(now + self.times.election_max * 2);
        vec![]
    }

    fn match_last(&mut self, view: &View<'_>, target: &Condition) -> Vec<Action> {
        self.step = Step::Matching;
        let has_all = view.position.is_matched_by(target) && target.tip >= view.position.tip;
        if !has_all || target.executed < target.tip || view.now < self.rests_until {
            return vec![];
        }
        self.step = Step::Transferring;
        vec![Action::Transfer { term: self.term, to: self.to }]
    }

    /// How long it rests when Raft has not heard yet that the target has everything.
    #[must_use]
    pub fn rest(&self) -> Duration {
        (self.times.heartbeat / 10).max(Duration::from_millis(1))
    }

    /// Raft answered; `None`: it did not in time.
    pub fn transferred(
        &mut self,
        now: Moment,
        answer: Option<Result<(Term, MemberId), TransferError>>,
        name: impl Fn(MemberId) -> String,
    ) -> Vec<Action> {
        let failed = |reason: String| vec![Action::End(Err(HandOffError::Failed(reason)))];
        match answer {
            Some(Ok((term, leader))) => vec![Action::End(Ok(HandedOff { to: name(leader), term }))],
            // Something was appended after the target told how it is, or its acknowledgement is on
            // its way: it comes.
            Some(Err(TransferError::Behind { .. })) => {
                self.step = Step::Matching;
                self.rests_until = now + self.rest();
                vec![]
            }
            Some(Err(error @ (TransferError::NotLeader(_) | TransferError::Target(_)))) => {
                self.abort(error.to_string())
            }
            Some(Err(error @ (TransferError::NoSuccessor(_) | TransferError::Stopped(_)))) => {
                failed(error.to_string())
            }
            None => failed("raft does not answer".to_owned()),
        }
    }

    fn abort(&self, reason: String) -> Vec<Action> {
        vec![Action::End(Err(HandOffError::Aborted(reason)))]
    }
}

fn is_nearly_level(position: &Position, target: &Condition) -> bool {
    let (_, last) = position.last_log;
    last.0.saturating_sub(target.last_log.0) <= NEARLY
}

#[cfg(test)]
mod tests {
    use baton_messages::types::{Height, LogIndex};

    use super::super::peers::tests::{at, fit, position};
    use super::*;

    const TERM: Term = Term(1);
    const TRANSFER: Action = Action::Transfer { term: TERM, to: MemberId(2) };

    fn hand_over(why: Why) -> HandOver {
        let to = (MemberId(2), "two".to_owned());
        HandOver::new(to, TERM, why, Times::default(), at(0), Duration::from_secs(5))
    }

    fn view(now: u64, target: &Condition) -> View<'_> {
        View { now: at(now), leads: Some(TERM), producing: true, position: position(100), target: Ok(target) }
    }

    fn aborted(actions: &[Action]) -> &str {
        match actions {
            [Action::End(Err(HandOffError::Aborted(reason)))] => reason,
            actions => panic!("not aborted: {actions:?}"),
        }
    }

    /// A hand-over whose producers have stopped at 10 ms.
    fn closed() -> HandOver {
        let mut hand_over = hand_over(Why::Operator);
        assert_eq!(hand_over.look(&view(0, &fit(2, 100))), [Action::Close]);
        assert_eq!(hand_over.closed(true, at(10)), []);
        hand_over
    }

    fn named(id: MemberId) -> String {
        format!("member {}", id.0)
    }

    #[test]
    fn production_goes_on_until_the_target_is_nearly_level() {
        let mut hand_over = hand_over(Why::Operator);
        assert_eq!(hand_over.look(&view(0, &fit(2, 30))), []);
        assert_eq!(hand_over.waits_for(), "waiting until two is level");
        assert_eq!(hand_over.look(&view(90, &fit(2, 40))), [Action::Close]);
        assert_eq!(hand_over.look(&view(120, &fit(2, 100))), [], "once");
    }

    #[test]
    fn raft_is_asked_only_when_the_target_shows_the_last_block_executed() {
        let mut hand_over = closed();
        let mut look = |target: Condition| hand_over.look(&View { producing: false, ..view(20, &target) });
        assert_eq!(look(fit(2, 99)), [], "F2: it lacks an entry");
        let behind = Condition { executed: Height(99), ..fit(2, 100) };
        assert_eq!(look(behind), [], "F2: it has not executed it");
        assert_eq!(look(fit(2, 100)), [TRANSFER]);
        assert_eq!(look(fit(2, 100)), [], "F1: never a second time");
        let answer = Some(Ok((Term(2), MemberId(2))));
        let done = HandedOff { to: "member 2".to_owned(), term: Term(2) };
        assert_eq!(hand_over.transferred(at(25), answer, named), [Action::End(Ok(done))]);
    }

    #[test]
    fn an_entry_that_came_in_between_is_waited_for() {
        let mut hand_over = closed();
        let target = fit(2, 100);
        let stopped = View { producing: false, ..view(20, &target) };
        assert_eq!(hand_over.look(&stopped), [TRANSFER]);
        let behind = TransferError::Behind { last: LogIndex(101), matched: LogIndex(100) };
        assert_eq!(hand_over.transferred(at(20), Some(Err(behind)), named), []);
        let grown = View { position: position(101), ..stopped };
        assert_eq!(hand_over.look(&grown), []);
        let target = fit(2, 101);
        let at_once = View { target: Ok(&target), ..grown };
        assert_eq!(hand_over.look(&at_once), [], "raft is not asked in a loop");
        assert_eq!(hand_over.look(&View { now: at(23), ..at_once }), [TRANSFER]);
    }

    #[test]
    fn a_target_that_fails_at_any_step_before_the_transfer_aborts_cleanly() {
        let gone = View { target: Err("it is not heard"), ..view(20, &Condition::default()) };
        assert!(aborted(&hand_over(Why::Operator).look(&gone)).contains("two cannot take over"));
        let mut closing = hand_over(Why::Operator);
        closing.look(&view(0, &fit(2, 100)));
        assert!(aborted(&closing.look(&gone)).contains("not heard"));
        assert!(aborted(&closed().look(&gone)).contains("not heard"));
    }

    #[test]
    fn it_does_not_wait_for_ever() {
        let mut hand_over = hand_over(Why::Operator);
        assert_eq!(hand_over.look(&view(4_999, &fit(2, 0))), []);
        assert!(aborted(&hand_over.look(&view(5_000, &fit(2, 0)))).contains("is level"));
        // Without production even less: two of the longest election time-outs.
        let mut closed = closed();
        let behind = fit(2, 99);
        assert_eq!(closed.look(&View { producing: false, ..view(309, &behind) }), []);
        assert!(
            aborted(&closed.look(&View { producing: false, ..view(310, &behind) })).contains("last block")
        );
    }

    #[test]
    fn a_last_block_that_is_not_decided_aborts_unless_the_node_is_unfit_anyway() {
        for (why, goes_on) in
            [(Why::Operator, false), (Why::Shutdown, false), (Why::Unfit, true), (Why::Da, false)]
        {
            let mut hand_over = hand_over(why);
            assert_eq!(hand_over.look(&view(0, &fit(2, 100))), [Action::Close]);
            let actions = hand_over.closed(false, at(10));
            assert_eq!(actions.is_empty(), goes_on, "{actions:?}");
        }
    }

    #[test]
    fn losing_leadership_before_the_transfer_ends_it() {
        let target = fit(2, 100);
        let lost = View { leads: Some(Term(2)), ..view(0, &target) };
        assert!(aborted(&hand_over(Why::Operator).look(&lost)).contains("no longer leads term 1"));
    }

    #[test]
    fn what_raft_answers_decides_whether_anything_was_done() {
        let ask = |answer| {
            let (mut hand_over, target) = (closed(), fit(2, 100));
            assert_eq!(hand_over.look(&View { producing: false, ..view(20, &target) }), [TRANSFER]);
            hand_over.transferred(at(25), answer, named)
        };
        aborted(&ask(Some(Err(TransferError::NotLeader(TERM)))));
        aborted(&ask(Some(Err(TransferError::Target("gone".to_owned())))));
        let uncertain = [
            Some(Err(TransferError::NoSuccessor(300))),
            Some(Err(TransferError::Stopped("fatal".to_owned()))),
            None,
        ];
        for answer in uncertain {
            assert!(matches!(&ask(answer)[..], [Action::End(Err(HandOffError::Failed(_)))]));
        }
    }

    #[test]
    fn a_caretaker_has_no_producers_to_stop() {
        let mut hand_over = hand_over(Why::Unfit);
        let target = fit(2, 100);
        assert_eq!(hand_over.look(&View { producing: false, ..view(0, &target) }), [TRANSFER]);
    }

    #[test]
    fn producers_that_start_while_it_waits_are_stopped_first() {
        let mut hand_over = hand_over(Why::Unfit);
        let behind = fit(2, 99);
        assert_eq!(hand_over.look(&View { producing: false, ..view(0, &behind) }), []);
        let target = fit(2, 100);
        assert_eq!(hand_over.look(&view(30, &target)), [Action::Close]);
    }
}
