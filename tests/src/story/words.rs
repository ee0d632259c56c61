//! Events and deeds in words.

use serde::Serialize;
use serde_json::Value;

use crate::history::{EventKind, What};

/// What happened, in a few words.
pub(super) fn event_text(what: &EventKind) -> String {
    match what {
        EventKind::Done { what } => deed_text(what),
        EventKind::Over { what } => format!("over: {}", deed_text(what)),
        EventKind::Started { boot } => format!("started, life {boot}"),
        EventKind::Ended { reason } => format!("ended: {reason}"),
        EventKind::Voted { term, candidate: Some(node) } => format!("votes for n{node} in term {term}"),
        EventKind::Leads { term } => format!("LEADS term {term}"),
        EventKind::Follows { term, leader: Some(node) } => format!("follows n{node} in term {term}"),
        EventKind::Follows { term, leader: None } => format!("is in term {term}"),
        EventKind::Granted { term } => format!("granted {term}"),
        EventKind::GrantEnded { term } => format!("grant {term} ends"),
        EventKind::Committed { height, term, hash, txs } => {
            format!("block {height} of term {term}: {hash:.8}, {txs} transactions")
        }
        EventKind::Applied { height } => format!("applied {height}"),
        EventKind::Signed { height, term } => format!("signed {height} in term {term}"),
        EventKind::Executed { height } => format!("executed {height}"),
        EventKind::Posted { height } => format!("posted {height}"),
        EventKind::Included { height } => format!("on DA to {height}"),
        EventKind::Installed { height } => format!("snapshot at {height}"),
        EventKind::Level { height } => format!("level at {height}"),
        EventKind::Refused { by, text } => format!("refused by {by}: {text}"),
        EventKind::HandedOff { ok, text } => {
            format!("hand-off {}: {text}", if *ok { "done" } else { "failed" })
        }
        EventKind::Alarm { text } => format!("ALARM {text}"),
        EventKind::Trouble { text: Some(text) } => format!("trouble: {text}"),
        EventKind::Trouble { text: None } => "out of trouble".to_owned(),
        EventKind::RestBegins => "nothing more is done: rest".to_owned(),
        EventKind::RestEnds => "at rest, everything holds".to_owned(),
        #[allow(unreachable_patterns)] // Kinds that are added are told by their names.
        other => plain(other),
    }
}

/// What was done, in a few words.
pub(super) fn deed_text(what: &What) -> String {
    plain(what)
}

/// The name of a deed alone.
pub(super) fn deed_name(what: &What) -> String {
    match serde_json::to_value(what) {
        Ok(Value::String(name)) => spaced(&name),
        Ok(Value::Object(fields)) => fields.keys().next().map_or_else(String::new, |name| spaced(name)),
        _ => String::new(),
    }
}

/// How long a deed lasts, as it says itself; nothing for one that is over at once.
pub(super) fn lasts_ms(what: &What) -> u64 {
    let Ok(Value::Object(fields)) = serde_json::to_value(what) else { return 0 };
    let inner = fields.values().next().and_then(Value::as_object);
    // What is done to a full node is one deeper.
    let inner = match inner.map(|inner| (inner.len(), inner.values().next())) {
        Some((1, Some(Value::Object(deeper)))) => Some(deeper),
        _ => inner,
    };
    let lasts = inner.and_then(|inner| inner.get("for_ms").or_else(|| inner.get("down_ms")));
    lasts.and_then(Value::as_u64).unwrap_or_default()
}

/// Plain data in words: `crash node leader, left nothing, down 300 ms`.
fn plain(data: &impl Serialize) -> String {
    match serde_json::to_value(data) {
        Ok(Value::Object(fields)) if fields.len() == 1 => {
            let (name, inner) = fields.iter().next().expect("there is one");
            format!("{} {}", spaced(name), value(inner)).trim_end().to_owned()
        }
        Ok(other) => value(&other),
        Err(error) => error.to_string(),
    }
}

fn spaced(name: &str) -> String {
    name.replace('_', " ")
}

fn value(of: &Value) -> String {
    match of {
        Value::Object(fields) => {
            let words = fields.iter().map(|(name, of)| match (name.as_str(), of) {
                ("node", Value::Number(number)) => format!("n{number}"),
                ("node", of) => value(of),
                (name, Value::Number(number)) if name.ends_with("_ms") => {
                    format!("{} {number} ms", spaced(name.trim_end_matches("_ms")))
                }
                (name, of) => format!("{} {}", spaced(name), value(of)),
            });
            words.collect::<Vec<_>>().join(", ")
        }
        Value::Array(items) => items.iter().map(value).collect::<Vec<_>>().join(" and "),
        Value::String(text) => spaced(text),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{DiskFault, Left, Who};

    #[test]
    fn deeds_are_told_in_plain_words() {
        let crash = What::Crash { node: Who::Leader, left: Left::Prefix(2), down_ms: 300 };
        assert_eq!(deed_text(&crash), "crash down 300 ms, left prefix 2, leader");
        assert_eq!((deed_name(&crash), lasts_ms(&crash)), ("crash".to_owned(), 300));
        let disk = What::Disk { node: Who::Node(1), fault: DiskFault::Slow(20), for_ms: 70 };
        assert_eq!(deed_text(&disk), "disk fault slow 20, for 70 ms, n1");
        assert_eq!((deed_text(&What::Join), lasts_ms(&What::Join)), ("join".to_owned(), 0));
    }
}
