//! Saying the same thing over and over, without filling the log.

use std::time::Duration;

use tokio::time::Instant;

/// How often the same reason is worth a line.
const EVERY: Duration = Duration::from_secs(60);

/// What was said last: a reason is said when it is another one, and then once a minute.
#[derive(Clone, Debug, Default)]
pub struct Quiet(Option<(String, Instant)>);

impl Quiet {
    /// Whether this reason is to be said now.
    pub fn says(&mut self, reason: &str) -> bool {
        let now = Instant::now();
        let due = self.0.as_ref().is_none_or(|(said, at)| said != reason || now.duration_since(*at) >= EVERY);
        if due {
            self.0 = Some((reason.to_owned(), now));
        }
        due
    }

    /// It is over: the same reason is news again.
    pub fn is_over(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reason_is_said_when_it_changes_and_once_a_minute() {
        let mut quiet = Quiet::default();
        let mut said = 0;
        for _ in 0..480 {
            said += u32::from(quiet.says("no quorum"));
            tokio::time::advance(Duration::from_millis(250)).await;
        }
        assert_eq!(said, 2, "two minutes");
        assert!(quiet.says("the engine is away") && quiet.says("no quorum"));
        assert!(!quiet.says("no quorum"));
        quiet.is_over();
        assert!(quiet.says("no quorum"));
    }
}
