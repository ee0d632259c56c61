//! How the engine is doing, from what its calls returned.

use std::time::Duration;

use baton_messages::engine::EngineError;

/// Decides when there is something to report.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// A call has not returned in time.
    hung: Option<String>,
    /// The last call said "unavailable".
    unavailable: Option<String>,
    /// A block fails on every member; passes when a block was executed or taken back.
    poison: Option<String>,
    /// The engine's state is damaged; stays.
    corrupt: Option<String>,
    told: Option<String>,
}

impl Health {
    /// A call has been running for longer than the limit.
    pub(super) fn hangs(&mut self, call: &str, limit: Duration) {
        self.hung = Some(format!("the engine has not answered {call} for {limit:?}"));
    }

    /// What hangs, if something does.
    pub(super) fn hung(&self) -> Option<&str> {
        self.hung.as_deref()
    }

    /// A call returned, with or without an error.
    pub(super) fn answered(&mut self, error: Option<&EngineError>) {
        self.hung = None;
        self.unavailable = None;
        match error {
            Some(error @ EngineError::Unavailable(_)) => self.unavailable = Some(error.to_string()),
            Some(error @ EngineError::Poison { .. }) => self.poison = Some(error.to_string()),
            Some(error @ EngineError::Corrupt(_)) => self.corrupt = Some(error.to_string()),
            Some(
                EngineError::NotNext { .. }
                | EngineError::OtherBlock { .. }
                | EngineError::CannotRollBack { .. },
            )
            | None => {}
        }
    }

    /// A block was executed.
    pub(super) fn executed(&mut self) {
        self.poison = None;
    }

    /// Blocks were taken back.
    pub(super) fn rolled_back(&mut self) {
        self.poison = None;
    }

    /// The trouble to report, when it is not what was reported last.
    pub(super) fn changed(&mut self) -> Option<Option<String>> {
        let trouble = [&self.corrupt, &self.poison, &self.hung, &self.unavailable];
        let trouble = trouble.into_iter().flatten().next().cloned();
        if trouble == self.told {
            return None;
        }
        self.told.clone_from(&trouble);
        Some(trouble)
    }
}

#[cfg(test)]
mod tests {
    use baton_messages::types::Height;

    use super::*;

    #[test]
    fn the_same_trouble_is_reported_once_and_its_end_too() {
        let mut health = Health::default();
        assert_eq!(health.changed(), None);
        let away = EngineError::Unavailable("refused".into());
        health.answered(Some(&away));
        assert_eq!(health.changed(), Some(Some(away.to_string())));
        health.answered(Some(&away));
        assert_eq!(health.changed(), None);
        health.answered(None);
        assert_eq!(health.changed(), Some(None));
    }

    #[test]
    fn a_poison_block_is_trouble_until_a_block_is_executed() {
        let mut health = Health::default();
        let poison = EngineError::Poison { height: Height(3), index: Some(1), reason: "fails".into() };
        health.answered(Some(&poison));
        assert_eq!(health.changed(), Some(Some(poison.to_string())));
        health.answered(None);
        assert_eq!(health.changed(), None, "other answers do not change the block");
        health.executed();
        assert_eq!(health.changed(), Some(None));
    }

    #[test]
    fn damage_stays() {
        let mut health = Health::default();
        let damage = EngineError::Corrupt("a node is missing".into());
        health.answered(Some(&damage));
        assert_eq!(health.changed(), Some(Some(damage.to_string())));
        health.answered(None);
        health.executed();
        health.rolled_back();
        assert_eq!(health.changed(), None);
    }

    #[test]
    fn a_refusal_is_an_answer() {
        let mut health = Health::default();
        health.hangs("position", Duration::from_secs(1));
        assert!(health.changed().flatten().is_some());
        health.answered(Some(&EngineError::NotNext { asked: Height(3), at: Height(1) }));
        assert_eq!(health.changed(), Some(None));
    }
}
