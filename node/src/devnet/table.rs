//! The live table of a devnet on a terminal.

use crate::devnet::probe::NodeView;

/// One row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// The member.
    pub name: String,
    /// What it does, or what is wrong with it.
    pub role: String,
    /// The Raft term.
    pub term: Option<u64>,
    /// The last block.
    pub height: Option<u64>,
    /// The last executed block.
    pub executed: Option<u64>,
    /// The last block on the DA layer.
    pub included: Option<u64>,
    /// Transactions waiting.
    pub queue: Option<u64>,
    /// The process.
    pub pid: Option<u32>,
}

impl Row {
    /// A row of a node that runs; without a view it does not answer.
    pub fn of_node(name: &str, pid: Option<u32>, view: Option<&NodeView>) -> Self {
        let Some(view) = view else { return Self::of_other(name, pid, "no answer") };
        Self {
            name: name.to_owned(),
            role: view.role.clone(),
            term: view.term,
            height: view.height,
            executed: view.executed,
            included: view.included,
            queue: view.queue,
            pid,
        }
    }

    /// A row with nothing but a word about the process.
    pub fn of_other(name: &str, pid: Option<u32>, role: &str) -> Self {
        Self { name: name.to_owned(), role: role.to_owned(), pid, ..Self::default() }
    }
}

const HEADINGS: [&str; 8] = ["NAME", "ROLE", "TERM", "HEIGHT", "EXECUTED", "INCLUDED", "QUEUE", "PID"];

/// Writes the table, one string per line.
pub fn lines(rows: &[Row]) -> Vec<String> {
    let cells: Vec<[String; 8]> = rows.iter().map(cells).collect();
    let width = |column: usize| {
        let content = cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        content.max(HEADINGS[column].len())
    };
    let widths: [usize; 8] = std::array::from_fn(width);
    let heading = line(&HEADINGS.map(str::to_owned), &widths);
    std::iter::once(heading).chain(cells.iter().map(|row| line(row, &widths))).collect()
}

/// Returns what to print to put `lines` in the place of `before` lines printed earlier.
///
/// `\x1b[nF` goes up n lines, `\x1b[J` clears from there, so events printed in between push the
/// table down instead of being overwritten.
pub fn redraw(before: usize, lines: &[String]) -> String {
    let up = if before == 0 { String::new() } else { format!("\x1b[{before}F") };
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    format!("{up}\x1b[J{text}")
}

fn cells(row: &Row) -> [String; 8] {
    let number = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    [
        row.name.clone(),
        row.role.clone(),
        number(row.term),
        number(row.height),
        number(row.executed),
        number(row.included),
        number(row.queue),
        number(row.pid.map(u64::from)),
    ]
}

/// Names to the left, numbers to the right.
fn line(cells: &[String; 8], widths: &[usize; 8]) -> String {
    let pad = |(column, cell): (usize, &String)| {
        let width = widths[column];
        if column < 2 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
    };
    cells.iter().enumerate().map(pad).collect::<Vec<_>>().join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_whatever_is_in_them() {
        let view = NodeView {
            role: "leader".to_owned(),
            term: Some(1),
            height: Some(123_456_789),
            ..NodeView::default()
        };
        let rows = [Row::of_node("da", Some(4), None), Row::of_node("node1", Some(5), Some(&view))];
        let lines = lines(&rows);
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| line.chars().count() == lines[0].chars().count()), "{lines:#?}");
        assert!(lines[2].contains("123456789"));
    }

    #[test]
    fn a_node_that_does_not_answer_shows_no_old_numbers() {
        let row = Row::of_node("node1", Some(5), None);
        assert_eq!((row.role.as_str(), row.height, row.pid), ("no answer", None, Some(5)));
    }

    #[test]
    fn the_first_drawing_moves_nothing_up() {
        assert_eq!(redraw(0, &["a".to_owned()]), "\x1b[Ja\n");
        assert_eq!(redraw(2, &["a".to_owned()]), "\x1b[2F\x1b[Ja\n");
    }
}
