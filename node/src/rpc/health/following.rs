//! Health and condition of a node that follows a chain.

use std::time::Duration;

use baton_messages::follow::FollowView;
use baton_messages::status::NodeStatus;
use baton_messages::types::Timestamp;
use serde_json::{Value, json};

/// Why a node that follows is not ready; empty is ready: it executes, is near the newest header it
/// has seen, and that is not old (features section 7.3).
pub(super) fn unready(status: &NodeStatus, follow: &FollowView, now: Timestamp) -> Vec<String> {
    let mut reasons = vec![];
    match &follow.observer {
        None => reasons.push("the observer does not answer".to_owned()),
        Some(observer) => {
            reasons.extend(observer.reasons.iter().cloned());
            reasons.extend(not_producing(follow, &observer.waits));
            if let (Some(trouble), "da") = (&observer.da_trouble, follow.mode) {
                reasons.push(format!("the DA layer cannot be read: {trouble}"));
            }
        }
    }
    let Some(sync) = &follow.sync else {
        reasons.push("the syncer does not answer".to_owned());
        return reasons;
    };
    let behind = sync.highest.0.saturating_sub(status.tip.height.0);
    if behind > follow.max_behind {
        reasons.push(format!("{behind} blocks behind: {} of {}", status.tip.height, sync.highest));
    }
    let age = Duration::from_nanos(now.0.saturating_sub(status.tip.time.0));
    let limit = Duration::from_secs(follow.readiness_window);
    if status.tip.height.0 > 0 && !limit.is_zero() && age > limit {
        let age = humantime::format_duration(Duration::from_secs(age.as_secs()));
        reasons.push(format!("the last block is {age} old"));
    }
    reasons
}

/// The part of `/status` about following.
pub(super) fn status(follow: &FollowView) -> Value {
    json!({
        "mode": follow.mode,
        "executed": executed(follow),
        "reasons": follow.observer.as_ref().map(|observer| &observer.reasons),
        "waits": follow.observer.as_ref().map(|observer| &observer.waits),
        "da_trouble": follow.observer.as_ref().and_then(|observer| observer.da_trouble.as_ref()),
        "fork": follow.observer.as_ref().and_then(|observer| observer.fork.as_ref()),
        "highest": follow.sync.as_ref().map(|sync| sync.highest.0),
        "pending": follow.sync.as_ref().map(|sync| sync.pending),
        "pending_bytes": follow.sync.as_ref().map(|sync| sync.pending_bytes),
        "evidence": follow.sync.as_ref().map(|sync| sync.evidence),
        "da_next": follow.sync.as_ref().and_then(|sync| sync.read).map(|read| read.next.0),
        "da_head": follow.sync.as_ref().and_then(|sync| sync.read).map(|read| read.head.0),
        "catch_up": follow.sync.as_ref().and_then(|sync| sync.catch_up).map(|left| json!({
            "blocks_left": left.blocks_left,
            "da_left": left.da_left,
            "blocks_per_second": thousandths(left.milliblocks_per_second),
            "seconds_left": left.seconds_left,
        })),
    })
}

/// Why a sequencer that catches up does not produce; nothing of any other node.
fn not_producing(follow: &FollowView, waits: &[String]) -> Vec<String> {
    match (follow.mode, waits) {
        ("catch-up", []) => vec!["produces nothing yet: it looks how far the chain is".to_owned()],
        ("catch-up", waits) => waits.iter().map(|wait| format!("produces nothing yet: {wait}")).collect(),
        _ => vec![],
    }
}

/// How far the engine is; nothing where there is none.
pub(super) fn executed(follow: &FollowView) -> Option<u64> {
    let observer = follow.observer.as_ref().filter(|_| follow.mode != "light");
    observer.map(|observer| observer.executed.0)
}

fn thousandths(number: u64) -> f64 {
    u32::try_from(number).map_or(f64::from(u32::MAX), f64::from) / 1000.0
}

#[cfg(test)]
mod tests {
    use baton_messages::follow::{ObserverView, SyncView};
    use baton_messages::types::{Height, Tip};

    use super::*;

    const NOW: Timestamp = Timestamp(100_000_000_000);

    fn follow() -> FollowView {
        FollowView {
            mode: "da",
            observer: Some(ObserverView { executed: Height(7), ..ObserverView::default() }),
            sync: Some(SyncView { highest: Height(9), ..SyncView::default() }),
            max_behind: 3,
            readiness_window: 10,
        }
    }

    fn reasons(follow: &FollowView) -> Vec<String> {
        let tip = Tip { height: Height(7), time: Timestamp(NOW.0 - 9_000_000_000), ..Tip::default() };
        let status = NodeStatus { tip, ..NodeStatus::default() };
        unready(&status, follow, NOW)
    }

    #[test]
    fn a_node_near_the_newest_header_is_ready() {
        assert_eq!(reasons(&follow()), [""; 0]);
    }

    #[test]
    fn a_node_that_lags_or_whose_chain_stands_still_says_so() {
        let lags = FollowView { max_behind: 1, ..follow() };
        assert_eq!(reasons(&lags), ["2 blocks behind: 7 of 9"]);
        let stands = FollowView { readiness_window: 8, ..follow() };
        assert_eq!(reasons(&stands), ["the last block is 9s old"]);
        assert_eq!(reasons(&FollowView { readiness_window: 0, ..follow() }), [""; 0]);
    }

    #[test]
    fn da_trouble_matters_to_who_has_nothing_else_and_a_fork_to_everybody() {
        let mut trouble = follow();
        trouble.observer =
            Some(ObserverView { da_trouble: Some("away".to_owned()), ..ObserverView::default() });
        assert_eq!(reasons(&trouble), ["the DA layer cannot be read: away"]);
        trouble.mode = "full";
        assert_eq!(reasons(&trouble), [""; 0]);
        let mut fork = follow();
        fork.observer =
            Some(ObserverView { reasons: vec!["two chains".to_owned()], ..ObserverView::default() });
        assert_eq!(reasons(&fork), ["two chains"]);
    }

    #[test]
    fn a_sequencer_that_catches_up_is_not_ready_and_says_what_it_waits_for() {
        let mut catches_up = FollowView { mode: "catch-up", ..follow() };
        assert_eq!(reasons(&catches_up).len(), 1, "also before it has looked");
        let waits = vec!["a peer has block 9, the last one here is 7".to_owned()];
        catches_up.observer = Some(ObserverView { waits, ..ObserverView::default() });
        let said = reasons(&catches_up);
        assert_eq!(said, ["produces nothing yet: a peer has block 9, the last one here is 7"]);
    }

    #[test]
    fn parts_that_do_not_answer_are_named_on_a_following_node_too() {
        let silent = FollowView { observer: None, sync: None, ..follow() };
        assert_eq!(reasons(&silent), ["the observer does not answer", "the syncer does not answer"]);
    }
}
