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
    /// Blocks behind the highest of all nodes.
    pub lag: Option<u64>,
    /// The last block on the DA layer.
    pub included: Option<u64>,
    /// Transactions waiting.
    pub queue: Option<u64>,
    /// Milliseconds between two blocks when it took over last.
    pub failover: Option<u64>,
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
            ..Self::default()
        }
    }

    /// A row with nothing but a word about the process.
    pub fn of_other(name: &str, pid: Option<u32>, role: &str) -> Self {
        Self { name: name.to_owned(), role: role.to_owned(), pid, ..Self::default() }
    }
}

/// Fills in who is how far behind.
pub fn compare(rows: &mut [Row]) {
    let highest = rows.iter().filter_map(|row| row.height).max();
    for row in rows {
        row.lag = row.height.and_then(|height| Some(highest? - height));
    }
}

const COLUMNS: usize = 10;

const HEADINGS: [&str; COLUMNS] =
    ["NAME", "ROLE", "TERM", "HEIGHT", "EXECUTED", "LAG", "INCLUDED", "QUEUE", "FAILOVER", "PID"];

/// Writes the table, one string per line.
pub fn lines(rows: &[Row]) -> Vec<String> {
    let cells: Vec<[String; COLUMNS]> = rows.iter().map(cells).collect();
    let width = |column: usize| {
        let content = cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        content.max(HEADINGS[column].len())
    };
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
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

fn cells(row: &Row) -> [String; COLUMNS] {
    let number = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    [
        row.name.clone(),
        row.role.clone(),
        number(row.term),
        number(row.height),
        number(row.executed),
        number(row.lag),
        number(row.included),
        number(row.queue),
        row.failover.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms")),
        number(row.pid.map(u64::from)),
    ]
}

/// Names to the left, numbers to the right.
fn line(cells: &[String; COLUMNS], widths: &[usize; COLUMNS]) -> String {
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
    fn who_is_behind_is_seen_against_the_highest() {
        let at = |height| NodeView { height, ..NodeView::default() };
        let row = |height| Row::of_node("n", None, Some(&at(height)));
        let mut rows = [row(Some(9)), row(Some(7)), row(None)];
        compare(&mut rows);
        assert_eq!(rows.map(|row| row.lag), [Some(0), Some(2), None]);
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
