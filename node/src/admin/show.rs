//! The cluster as a table on a terminal.

use std::fmt::Write;

use baton_messages::types::Role;

use crate::admin::status::{Line, SILENT_MS, Status};

const HEADINGS: [&str; 9] =
    ["NAME", "ROLE", "ADDRESS", "ELIGIBLE", "HEIGHT", "EXECUTED", "LAG", "MATCHED", "HEARD"];

/// Columns that hold words, not numbers.
const WORDS: usize = 4;

/// The whole page: one line about the cluster, a table, and what is not in order.
#[must_use]
pub fn page(status: &Status) -> String {
    let mut page = head(status);
    if !status.members.is_empty() {
        page.push('\n');
        page.push_str(&table(&status.members));
    }
    let notes = notes(status);
    if !notes.is_empty() {
        page.push('\n');
        notes.iter().for_each(|note| page.push_str(&format!("{note}\n")));
    }
    page
}

fn head(status: &Status) -> String {
    let cluster = status.cluster.as_deref().unwrap_or("none yet");
    let joint = if status.joint { ", being changed" } else { "" };
    let mut head = format!("cluster  {cluster}   config version {}{joint}\n", status.version);
    let term = status.term.map_or_else(|| "-".to_owned(), |term| term.to_string());
    let leader = match &status.leader {
        Some(leader) => {
            let rpc = Some(&leader.rpc).filter(|rpc| !rpc.is_empty());
            let rpc = rpc.map(|rpc| format!(", rpc {rpc}")).unwrap_or_default();
            format!("{} at {}{rpc}", leader.name, or_dash(&leader.address))
        }
        None => "none is known".to_owned(),
    };
    let _ = writeln!(head, "leader   {leader}   term {term}");
    let _ = writeln!(head, "asked    {}", status.node);
    head
}

fn table(members: &[Line]) -> String {
    let rows: Vec<_> = members.iter().map(cells).collect();
    let widths: [usize; 9] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([HEADINGS[column].len()]).max().unwrap_or(0)
    });
    let line = |cells: &[String; 9]| {
        let padded = cells.iter().enumerate().map(|(column, cell)| {
            let width = widths[column];
            if column < WORDS { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    std::iter::once(line(&HEADINGS.map(str::to_owned))).chain(rows.iter().map(line)).collect()
}

fn cells(line: &Line) -> [String; 9] {
    let number = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    let eligible = match line.eligible {
        _ if line.told_ms_ago.is_some_and(|ms| ms > SILENT_MS) => "silent",
        _ if line.witness => "-",
        Some(true) if line.producing => "producing",
        Some(true) => "yes",
        Some(false) => "no",
        None => "unknown",
    };
    [
        line.name.clone(),
        line.role.clone(),
        or_dash(&line.address).to_owned(),
        eligible.to_owned(),
        number(line.height),
        if line.witness { "-".to_owned() } else { number(line.executed) },
        number(line.lag),
        number(line.matched),
        line.told_ms_ago.map_or_else(|| "never".to_owned(), |ms| format!("{ms} ms")),
    ]
}

fn notes(status: &Status) -> Vec<String> {
    let mut notes = vec![];
    notes.extend(status.waits_for.iter().map(|what| format!("{} waits: {what}", status.node)));
    if let Some(reason) = &status.paused {
        notes.push(format!("production is paused: {reason} (`baton resume` goes on)"));
    } else if let Some(pause) = status.pause.as_ref().filter(|_| status.role == Some(Role::Leader)) {
        notes.push(format!("{} produces nothing: {pause}", status.node));
    }
    for line in status.members.iter().filter(|line| !line.reasons.is_empty() && !line.witness) {
        notes.push(format!("{} may not produce: {}", line.name, line.reasons.join("; ")));
    }
    if status.members.is_empty() {
        notes
            .extend(status.reasons.iter().map(|reason| format!("{} may not produce: {reason}", status.node)));
    }
    let voters = status.members.iter().filter(|line| line.voter).count();
    match status.spare_voters {
        None if voters > 0 => {
            notes.push(format!("no quorum of the {voters} voters is heard: the chain stands"))
        }
        Some(0) if voters == 2 => notes.push("two voters: the loss of either stops the chain".to_owned()),
        Some(0) if voters > 2 => notes.push(format!(
            "a bare quorum of the {voters} voters is heard: the chain stops when one more of them does"
        )),
        Some(_) | None => {}
    }
    // A witness has no engine and no DA: its settings are other ones.
    let mut told = status.members.iter().filter(|line| !line.witness).filter_map(|line| line.config.as_ref());
    let first = told.next();
    if told.any(|config| Some(config) != first) {
        notes.push(
            "members differ in settings in which they must agree: compare `baton config show`".to_owned(),
        );
    }
    notes
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::status::{status, tests::node_status};

    #[test]
    fn the_page_says_who_leads_and_how_everybody_is() {
        let page = page(&status("n1", &node_status()));
        let wanted = "\
cluster  00000000-0000-0000-0000-000000000007   config version 4
leader   n1 at h1:5001, rpc h1:7331   term 3
asked    n1

NAME  ROLE     ADDRESS  ELIGIBLE   HEIGHT  EXECUTED  LAG  MATCHED  HEARD
n1    leader   h1:5001  producing       9         9    0       13   0 ms
n2    voter    h2:5001  yes             7         6    2       12  20 ms
n3    learner  h3:5001  unknown         -         -    -        -  never

two voters: the loss of either stops the chain
";
        assert_eq!(page, wanted);
    }

    #[test]
    fn what_is_not_in_order_is_named_below() {
        let mut status = status("n1", &node_status());
        status.pause = Some("engine: hangs".to_owned());
        status.spare_voters = None;
        status.members[1].eligible = Some(false);
        status.members[1].reasons = vec!["engine: hangs".to_owned(), "disk: full".to_owned()];
        status.members[1].config = Some("other".to_owned());
        let page = page(&status);
        for said in [
            "n1 produces nothing: engine: hangs",
            "no quorum of the 2 voters is heard",
            "n2 may not produce: engine: hangs; disk: full",
            "members differ in settings",
        ] {
            assert!(page.contains(said), "{page}");
        }
    }

    #[test]
    fn differing_settings_are_named_also_when_the_first_member_is_a_witness() {
        let mut status = status("n1", &node_status());
        let (first, second) = (status.members[0].clone(), status.members[1].clone());
        status.members = vec![first.clone(), first, second];
        status.members[0].witness = true;
        status.members[0].config = Some("of a witness".to_owned());
        assert!(!page(&status).contains("members differ in settings"), "a witness has other ones");
        status.members[2].config = Some("other".to_owned());
        assert!(page(&status).contains("members differ in settings"));
    }

    #[test]
    fn a_pause_and_a_bare_quorum_are_named() {
        let mut status = status("n1", &node_status());
        status.paused = Some("a look".to_owned());
        status.members[2].voter = true;
        status.spare_voters = Some(0);
        let page = page(&status);
        assert!(page.contains("production is paused: a look (`baton resume` goes on)"), "{page}");
        assert!(page.contains("a bare quorum of the 3 voters is heard"), "{page}");
    }

    #[test]
    fn a_dead_member_is_not_shown_as_it_was() {
        let mut status = status("n1", &node_status());
        status.members[1].producing = true;
        status.members[1].told_ms_ago = Some(5_000);
        let page = page(&status);
        let row = page.lines().find(|line| line.starts_with("n2")).unwrap();
        assert!(row.contains("silent") && !row.contains("producing"), "{row}");
    }

    #[test]
    fn a_node_without_a_cluster_has_a_page_too() {
        let status = Status { node: "n9".to_owned(), ..Status::default() };
        let page = page(&status);
        assert!(page.contains("none yet") && page.contains("none is known"), "{page}");
    }
}
