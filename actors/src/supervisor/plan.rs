//! When this node may produce: the supervisor's rules, without the actor around them.
//!
//! A grant needs leadership, the first own entry of the term applied, everything below
//! executed, and an eligible node (P6). One grant per term makes flaps harmless (hazard E14).

use std::collections::BTreeMap;

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
    /// The key and its guard.
    Signer,
    /// An operator asked for it.
    Operator,
}

impl Part {
    /// The word in logs, metrics and status.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raft => "raft",
            Self::Engine => "engine",
            Self::Execution => "execution",
            Self::Disk => "disk",
            Self::Signer => "signer",
            Self::Operator => "operator",
        }
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

/// Execution may lag the tip by this many blocks before a producing node is stopped.
const BACKLOG_TO_STOP: u64 = 2;

/// What is known, and what follows from it.
#[derive(Debug, Default)]
pub struct Plan {
    term: Term,
    role: Role,
    term_applied: Option<Term>,
    tip: Height,
    executed: Option<Height>,
    troubles: BTreeMap<Part, String>,
    grant: Option<Grant>,
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

    /// Every reason why this node may not produce; empty is eligible.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let mut reasons: Vec<String> =
            self.troubles.iter().map(|(part, trouble)| format!("{}: {trouble}", part.name())).collect();
        match self.executed {
            None => reasons.push("execution: the engine has not said yet where it is".to_owned()),
            Some(executed) if self.backlog() > BACKLOG_TO_STOP => {
                reasons.push(format!("execution: at {executed}, the chain is at {}", self.tip));
            }
            Some(_) => {}
        }
        reasons
    }

    /// Why a leader has no grant: what it waits for.
    #[must_use]
    pub fn waiting_for(&self) -> Option<String> {
        if self.grant.is_some() {
            return None;
        }
        if self.role != Role::Leader {
            return Some("not the leader".to_owned());
        }
        if self.closing {
            return Some("shutting down".to_owned());
        }
        if let Some(reason) = self.reasons().into_iter().next() {
            return Some(reason);
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

    /// A part is in trouble, or out of it.
    pub fn health_changed(&mut self, part: Part, trouble: Option<String>) -> Vec<Action> {
        match trouble {
            Some(trouble) => self.troubles.insert(part, trouble),
            None => self.troubles.remove(&part),
        };
        self.decide()
    }

    /// No grant any more, whatever comes.
    pub fn close(&mut self) -> Vec<Action> {
        self.closing = true;
        self.decide()
    }

    /// A producer ended by itself: the grant is void, and may be given again.
    pub fn producers_ended(&mut self) -> Vec<Action> {
        self.grant = None;
        self.decide()
    }

    fn backlog(&self) -> u64 {
        self.tip.0.saturating_sub(self.executed().0)
    }

    fn decide(&mut self) -> Vec<Action> {
        match self.grant {
            Some(grant) => match self.objection(grant) {
                Some(reason) => {
                    self.grant = None;
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
        if self.term != grant.term {
            return Some(format!("term {} is over, this is term {}", grant.term, self.term));
        }
        if self.role != Role::Leader {
            return Some(format!("no longer the leader of term {}", grant.term));
        }
        self.reasons().into_iter().next()
    }

    fn may_start(&self) -> bool {
        !self.closing
            && self.role == Role::Leader
            && self.term_applied == Some(self.term)
            && self.reasons().is_empty()
            && self.backlog() == 0
    }
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
        assert_eq!(plan.term_applied(Term(3), Height(5)), [Action::StartProducers(Grant { term: Term(3) })]);
    }

    #[test]
    fn trouble_stops_production_and_its_end_starts_it_again() {
        for part in [Part::Raft, Part::Engine, Part::Execution, Part::Disk, Part::Signer, Part::Operator] {
            let mut plan = leading(1, 5);
            let actions = plan.health_changed(part, Some("broken".to_owned()));
            assert_eq!(actions, [Action::StopProducers(format!("{}: broken", part.name()))]);
            assert_eq!(plan.waiting_for(), Some(format!("{}: broken", part.name())));
            let actions = plan.health_changed(part, None);
            assert_eq!(actions, [Action::StartProducers(Grant { term: Term(1) })]);
        }
    }

    #[test]
    fn the_backlog_has_hysteresis() {
        let mut plan = leading(1, 5);
        assert_eq!(plan.applied(Height(7)), []);
        assert!(matches!(&plan.applied(Height(8))[..], [Action::StopProducers(_)]));
        assert_eq!(plan.executed_to(Height(6)), []);
        assert_eq!(plan.executed_to(Height(8)), [Action::StartProducers(Grant { term: Term(1) })]);
    }

    #[test]
    fn nothing_starts_once_the_node_is_closing() {
        let mut plan = leading(1, 5);
        assert!(matches!(&plan.close()[..], [Action::StopProducers(_)]));
        assert_eq!(plan.leadership_changed(Term(2), Role::Leader), []);
        assert_eq!(plan.term_applied(Term(2), Height(5)), []);
        assert_eq!(plan.waiting_for().as_deref(), Some("shutting down"));
    }
}
