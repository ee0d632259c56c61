//! When this node may produce: the supervisor's rules, without the actor around them.
//!
//! A grant needs leadership, the first own entry of the term applied, everything below
//! executed, and an eligible node (P6). One grant per term makes flaps harmless (hazard E14).
//! Some troubles do not end a grant: they are told to the others, and a fit one takes over.

use std::collections::BTreeMap;

use baton_messages::mutation::{Mutation, planted};
use baton_messages::types::{Grant, Height, Role, Term};

/// A part whose trouble makes this node ineligible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Raft and its store.
    Raft,
    /// The execution engine.
    Engine,
    /// Following execution.
    Execution,
    /// The disk.
    Disk,
    /// The storage thread.
    Storage,
    /// The bodies of old blocks.
    Bodies,
    /// The last block of the chain that this one goes on with.
    Takeover,
    /// The key and its guard, when a person is needed.
    Signer,
    /// The guard refuses; it may heal while the node produces.
    Guard,
    /// Blocks that are due are not made.
    Progress,
    /// Settings in which members must agree.
    Settings,
    /// It is a witness.
    Witness,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Raft,
        Self::Engine,
        Self::Execution,
        Self::Disk,
        Self::Storage,
        Self::Bodies,
        Self::Takeover,
        Self::Signer,
        Self::Guard,
        Self::Progress,
        Self::Settings,
        Self::Witness,
    ];

    /// The word in logs, metrics and status.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raft => "raft",
            Self::Engine => "engine",
            Self::Execution => "execution",
            Self::Disk => "disk",
            Self::Storage => "storage",
            Self::Bodies => "bodies",
            Self::Takeover => "takeover",
            Self::Signer => "signer",
            Self::Guard => "guard",
            Self::Progress => "progress",
            Self::Settings => "settings",
            Self::Witness => "witness",
        }
    }

    /// Whether its trouble ends a grant. The others are reasons to give leadership to somebody
    /// better, and no reason to make no blocks while there is nobody better.
    const fn ends_grant(self) -> bool {
        !matches!(self, Self::Guard | Self::Progress | Self::Settings)
    }
}

/// What the actor does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start all producers under this grant.
    StartProducers(Grant),
    /// Stop them; the reason goes into log, metric and status.
    StopProducers(String),
}

/// Execution may lag the tip by this many blocks before a node may not produce. It may again once
/// it is level.
const BACKLOG_TO_STOP: u64 = 2;

/// What is known, and what follows from it.
#[derive(Debug, Default)]
pub struct Plan {
    term: Term,
    role: Role,
    term_applied: Option<Term>,
    tip: Height,
    executed: Option<Height>,
    lagging: bool,
    troubles: BTreeMap<Part, String>,
    /// Why an operator has stopped production. It is no trouble of this node, and no end of a grant:
    /// it makes no blocks, and everything that follows from those there are goes on (P7).
    pause: Option<String>,
    grant: Option<Grant>,
    /// The producers of the last grant are not gone yet: nothing starts beside them.
    stopping: bool,
    /// Leadership is being given away: no grant until that has failed.
    handing_over: Option<String>,
    /// Leadership of this term was given away, or may have been: no grant in it any more.
    given_away: Option<Term>,
    closing: bool,
}

impl Plan {
    /// Nothing is known yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The grant in force.
    #[must_use]
    pub const fn grant(&self) -> Option<Grant> {
        self.grant
    }

    /// The last executed height.
    #[must_use]
    pub fn executed(&self) -> Height {
        self.executed.unwrap_or_default()
    }

    /// What this node is, in which term.
    #[must_use]
    pub const fn role(&self) -> (Term, Role) {
        (self.term, self.role)
    }

    /// The last applied height.
    #[must_use]
    pub const fn tip(&self) -> Height {
        self.tip
    }

    /// Whether producers of before are not gone yet.
    #[must_use]
    pub const fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// What is wrong with a part, as it was reported.
    #[must_use]
    pub fn trouble(&self, part: Part) -> Option<&str> {
        self.troubles.get(&part).map(String::as_str)
    }

    /// Why an operator has stopped production on whoever leads.
    #[must_use]
    pub fn pause(&self) -> Option<&str> {
        self.pause.as_deref()
    }

    /// Every part in trouble. They do not change while the trouble lasts.
    pub fn parts(&self) -> impl Iterator<Item = Part> + '_ {
        let waits =
            (self.executed.is_none() || self.lagging) && !self.troubles.contains_key(&Part::Execution);
        self.troubles.keys().copied().chain(waits.then_some(Part::Execution))
    }

    /// Every reason why this node should not lead; empty is eligible.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        self.all_reasons().map(|(_, reason)| reason).collect()
    }

    fn all_reasons(&self) -> impl Iterator<Item = (Part, String)> + '_ {
        let troubles =
            self.troubles.iter().map(|(part, trouble)| (*part, format!("{}: {trouble}", part.name())));
        let execution = match self.executed {
            None => Some("execution: the engine has not said yet where it is".to_owned()),
            Some(_) if self.lagging => {
                Some(format!("execution: more than {BACKLOG_TO_STOP} blocks behind the chain"))
            }
            Some(_) => None,
        };
        troubles.chain(execution.map(|reason| (Part::Execution, reason)))
    }

    /// The first reason why it may not produce.
    fn obstacle(&self) -> Option<String> {
        self.all_reasons().find(|(part, _)| part.ends_grant()).map(|(_, reason)| reason)
    }

    /// Why a leader makes no blocks: what its grant waits for, or who said so.
    #[must_use]
    pub fn waiting_for(&self) -> Option<String> {
        if self.grant.is_some() {
            return self.pause.as_deref().map(paused);
        }
        if self.role != Role::Leader {
            return Some("not the leader".to_owned());
        }
        if self.closing {
            return Some("shutting down".to_owned());
        }
        if let Some(reason) = self.obstacle() {
            return Some(reason);
        }
        if let Some(reason) = &self.handing_over {
            return Some(reason.clone());
        }
        if self.is_given_away() {
            return Some(format!("leadership of term {} was given away", self.term));
        }
        if self.stopping {
            return Some("the producers of before are still stopping".to_owned());
        }
        if self.term_applied != Some(self.term) {
            return Some(format!("the first entry of term {} is not applied yet", self.term));
        }
        Some(format!("execution is at {}, the chain at {}", self.executed(), self.tip))
    }

    /// Raft says who leads.
    pub fn leadership_changed(&mut self, term: Term, role: Role) -> Vec<Action> {
        self.term = term;
        self.role = role;
        self.decide()
    }

    /// The first own entry of a term is applied.
    pub fn term_applied(&mut self, term: Term, tip: Height) -> Vec<Action> {
        self.term_applied = Some(term);
        self.tip = self.tip.max(tip);
        self.decide()
    }

    /// The store grew.
    pub fn applied(&mut self, tip: Height) -> Vec<Action> {
        self.tip = self.tip.max(tip);
        self.decide()
    }

    /// The engine executed up to a height. After a rollback that is lower than before.
    pub fn executed_to(&mut self, height: Height) -> Vec<Action> {
        self.executed = Some(height);
        self.decide()
    }

    /// Leadership is being given away: the producers finish their last block, no others start.
    pub fn hand_over(&mut self, reason: String) {
        self.handing_over = Some(reason);
    }

    /// Raft is asked to transfer leadership of this term: there is no way back by ourselves.
    pub fn give_away(&mut self, term: Term) {
        self.given_away = Some(term);
    }

    /// Whether leadership of the term this node is in was given away, or may have been.
    #[must_use]
    pub fn is_given_away(&self) -> bool {
        self.given_away == Some(self.term)
    }

    /// The transfer did nothing: go on in the same term at once (hazard F4).
    pub fn keep(&mut self) -> Vec<Action> {
        self.given_away = None;
        self.handing_over = None;
        self.decide()
    }

    /// The hand-over is over, with or without a new leader.
    pub fn handed_over(&mut self) -> Vec<Action> {
        self.handing_over = None;
        self.decide()
    }

    /// The producers are being stopped for another reason than a rule of this plan.
    pub fn producers_stopping(&mut self) {
        self.stopping = true;
        self.grant = None;
    }

    /// The engine executed a block. On a leader the executor may be ahead of whoever follows; what
    /// the engine has is told only after it was found to be on the chain.
    pub fn block_executed(&mut self, height: Height) -> Vec<Action> {
        match self.executed {
            Some(executed) if executed < height => self.executed_to(height),
            Some(_) | None => vec![],
        }
    }

    /// A part is in trouble, or out of it.
    pub fn health_changed(&mut self, part: Part, trouble: Option<String>) -> Vec<Action> {
        match trouble {
            Some(trouble) => self.troubles.insert(part, trouble),
            None => self.troubles.remove(&part),
        };
        self.decide()
    }

    /// An operator has stopped production, or lets it go on. A grant is held and given all the same:
    /// the executor makes no block, and what is committed is still signed, told and brought to DA.
    pub fn pause_changed(&mut self, pause: Option<String>) {
        self.pause = pause;
    }

    /// No grant any more, whatever comes.
    pub fn close(&mut self) -> Vec<Action> {
        self.closing = true;
        self.decide()
    }

    /// The producers are gone, stopped or by themselves: the grant is void, and may be given again.
    pub fn producers_ended(&mut self) -> Vec<Action> {
        self.stopping = false;
        self.grant = None;
        self.decide()
    }

    fn backlog(&self) -> u64 {
        self.tip.0.saturating_sub(self.executed().0)
    }

    fn decide(&mut self) -> Vec<Action> {
        self.lagging = self.executed.is_some()
            && match self.lagging {
                true => self.backlog() > 0,
                false => self.backlog() > BACKLOG_TO_STOP,
            };
        match self.grant {
            Some(grant) => match self.objection(grant) {
                Some(reason) => {
                    self.producers_stopping();
                    vec![Action::StopProducers(reason)]
                }
                None => vec![],
            },
            None if self.may_start() => {
                let grant = Grant { term: self.term };
                self.grant = Some(grant);
                vec![Action::StartProducers(grant)]
            }
            None => vec![],
        }
    }

    fn objection(&self, grant: Grant) -> Option<String> {
        if self.closing {
            return Some("shutting down".to_owned());
        }
        if self.term != grant.term && !planted(Mutation::BooleanLeadership) {
            return Some(format!("term {} is over, this is term {}", grant.term, self.term));
        }
        if self.role != Role::Leader {
            return Some(format!("no longer the leader of term {}", grant.term));
        }
        self.obstacle()
    }

    fn may_start(&self) -> bool {
        !self.closing
            && !self.stopping
            && self.handing_over.is_none()
            && !self.is_given_away()
            && self.role == Role::Leader
            && self.term_applied == Some(self.term)
            && self.obstacle().is_none()
            && self.backlog() == 0
    }
}

fn paused(reason: &str) -> String {
    format!("operator: paused: {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leading(term: u64, height: u64) -> Plan {
        let mut plan = Plan::new();
        assert_eq!(plan.leadership_changed(Term(term), Role::Leader), []);
        assert_eq!(plan.executed_to(Height(height)), []);
        let grant = Grant { term: Term(term) };
        assert_eq!(plan.term_applied(Term(term), Height(height)), [Action::StartProducers(grant)]);
        plan
    }

    #[test]
    fn a_leader_waits_for_its_own_entry_before_it_produces() {
        let plan = leading(3, 5);
        assert_eq!(plan.grant(), Some(Grant { term: Term(3) }));
    }

    #[test]
    fn a_leader_that_lags_catches_up_before_it_produces() {
        let mut plan = Plan::new();
        plan.leadership_changed(Term(1), Role::Leader);
        assert_eq!(plan.term_applied(Term(1), Height(5)), []);
        assert_eq!(plan.executed_to(Height(4)), []);
        assert_eq!(plan.executed_to(Height(5)), [Action::StartProducers(Grant { term: Term(1) })]);
    }

    #[test]
    fn an_entry_of_an_older_term_does_not_count() {
        let mut plan = Plan::new();
        plan.leadership_changed(Term(2), Role::Leader);
        plan.executed_to(Height(0));
        assert_eq!(plan.term_applied(Term(1), Height(0)), []);
        assert_eq!(plan.term_applied(Term(2), Height(0)), [Action::StartProducers(Grant { term: Term(2) })]);
    }

    #[test]
    fn a_new_term_ends_the_grant_even_when_the_role_is_the_same() {
        let mut plan = leading(1, 5);
        let actions = plan.leadership_changed(Term(3), Role::Leader);
        assert!(matches!(&actions[..], [Action::StopProducers(_)]));
        assert_eq!(plan.grant(), None);
        assert_eq!(plan.term_applied(Term(3), Height(5)), [], "those of term 1 are still there");
        assert_eq!(plan.producers_ended(), [Action::StartProducers(Grant { term: Term(3) })]);
    }

    #[test]
    fn trouble_stops_production_and_its_end_starts_it_again() {
        let parts = [Part::Raft, Part::Engine, Part::Execution, Part::Disk, Part::Signer];
        for part in parts.into_iter().chain([Part::Storage, Part::Bodies, Part::Takeover, Part::Witness]) {
            let mut plan = leading(1, 5);
            let actions = plan.health_changed(part, Some("broken".to_owned()));
            assert_eq!(actions, [Action::StopProducers(format!("{}: broken", part.name()))]);
            assert_eq!(plan.waiting_for(), Some(format!("{}: broken", part.name())));
            assert_eq!(plan.producers_ended(), []);
            let actions = plan.health_changed(part, None);
            assert_eq!(actions, [Action::StartProducers(Grant { term: Term(1) })]);
        }
    }

    #[test]
    fn an_operators_pause_ends_no_grant_and_makes_nobody_unfit() {
        let mut plan = leading(1, 5);
        let paused = "operator: paused: a look".to_owned();
        plan.pause_changed(Some("a look".to_owned()));
        assert_eq!(plan.applied(Height(5)), []);
        assert_eq!(plan.grant(), Some(Grant { term: Term(1) }), "what is committed has still to get to DA");
        assert_eq!((plan.waiting_for(), plan.reasons()), (Some(paused.clone()), vec![]));
        assert!(matches!(&plan.leadership_changed(Term(2), Role::Leader)[..], [Action::StopProducers(_)]));
        assert_eq!(plan.term_applied(Term(2), Height(5)), []);
        let next = Action::StartProducers(Grant { term: Term(2) });
        assert_eq!(plan.producers_ended(), [next], "the next leader has the same to do");
        assert_eq!(plan.waiting_for(), Some(paused));
        plan.pause_changed(None);
        assert_eq!((plan.grant(), plan.waiting_for()), (Some(Grant { term: Term(2) }), None));
    }

    #[test]
    fn a_paused_leader_in_trouble_says_what_its_grant_waits_for() {
        let mut plan = leading(1, 5);
        plan.pause_changed(Some("a look".to_owned()));
        let actions = plan.health_changed(Part::Engine, Some("away".to_owned()));
        assert_eq!(actions, [Action::StopProducers("engine: away".to_owned())]);
        assert_eq!(plan.waiting_for().as_deref(), Some("engine: away"));
        assert_eq!(plan.pause(), Some("a look"));
    }

    #[test]
    fn the_backlog_has_hysteresis() {
        let mut plan = leading(1, 5);
        assert_eq!(plan.applied(Height(7)), []);
        assert!(matches!(&plan.applied(Height(8))[..], [Action::StopProducers(_)]));
        assert_eq!(plan.producers_ended(), []);
        assert_eq!(plan.executed_to(Height(6)), []);
        assert!(!plan.reasons().is_empty(), "two behind is still behind for who fell back");
        assert_eq!(plan.executed_to(Height(8)), [Action::StartProducers(Grant { term: Term(1) })]);
    }

    #[test]
    fn what_the_executor_executed_counts_before_the_follower_says_so() {
        let mut plan = Plan::new();
        plan.leadership_changed(Term(1), Role::Leader);
        assert_eq!(plan.block_executed(Height(9)), [], "where the engine is was not found out yet");
        let mut plan = leading(1, 5);
        for height in 6..20 {
            assert_eq!(plan.applied(Height(height)), []);
            assert_eq!(plan.block_executed(Height(height)), []);
        }
        assert_eq!(plan.block_executed(Height(7)), []);
        assert_eq!(plan.executed(), Height(19));
    }

    #[test]
    fn nothing_starts_once_the_node_is_closing() {
        let mut plan = leading(1, 5);
        assert!(matches!(&plan.close()[..], [Action::StopProducers(_)]));
        assert_eq!(plan.leadership_changed(Term(2), Role::Leader), []);
        assert_eq!(plan.term_applied(Term(2), Height(5)), []);
        assert_eq!(plan.waiting_for().as_deref(), Some("shutting down"));
    }

    #[test]
    fn what_only_a_better_leader_could_heal_does_not_stop_production() {
        for part in [Part::Guard, Part::Progress, Part::Settings] {
            let mut plan = leading(1, 5);
            assert_eq!(plan.health_changed(part, Some("not well".to_owned())), []);
            assert_eq!(plan.reasons(), [format!("{}: not well", part.name())], "the others are told");
            assert_eq!(plan.parts().collect::<Vec<_>>(), [part]);
        }
    }

    #[test]
    fn reasons_do_not_change_while_a_trouble_lasts() {
        let mut plan = leading(1, 5);
        plan.applied(Height(8));
        let before = plan.reasons();
        plan.applied(Height(90));
        plan.executed_to(Height(40));
        assert_eq!(plan.reasons(), before);
    }

    #[test]
    fn a_hand_over_that_did_nothing_goes_on_in_the_same_term_at_once() {
        let mut plan = leading(1, 5);
        plan.hand_over("to two".to_owned());
        assert_eq!(plan.grant(), Some(Grant { term: Term(1) }), "the last block is being finished");
        assert_eq!(plan.producers_ended(), []);
        assert_eq!(plan.waiting_for().as_deref(), Some("to two"));
        plan.give_away(Term(1));
        assert_eq!(plan.applied(Height(5)), []);
        assert_eq!(plan.keep(), [Action::StartProducers(Grant { term: Term(1) })]);
    }

    #[test]
    fn leadership_that_may_have_been_given_away_is_never_used_again() {
        let mut plan = leading(1, 5);
        plan.hand_over("to two".to_owned());
        plan.producers_ended();
        plan.give_away(Term(1));
        assert_eq!(plan.handed_over(), []);
        assert_eq!(plan.leadership_changed(Term(1), Role::Leader), []);
        assert!(plan.waiting_for().is_some_and(|why| why.contains("given away")));
        plan.leadership_changed(Term(2), Role::Leader);
        assert_eq!(plan.term_applied(Term(2), Height(5)), [Action::StartProducers(Grant { term: Term(2) })]);
    }

    #[test]
    fn nothing_starts_beside_producers_that_are_still_stopping() {
        let mut plan = leading(1, 5);
        plan.producers_stopping();
        assert_eq!(plan.applied(Height(5)), []);
        assert_eq!(plan.executed_to(Height(5)), []);
        assert_eq!(plan.producers_ended(), [Action::StartProducers(Grant { term: Term(1) })]);
    }
}
