//! Stdout of a devnet: lines and, on a terminal, the live table below them.

use std::io::{IsTerminal, Stdout, Write, stdout};

use jiff::Timestamp;
use serde::Serialize;

use crate::devnet::report::{Detail, Event, Listening, event_text, listening_text};
use crate::devnet::table::{self, Row};

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Json,
    Text,
    Terminal,
}

/// Writes what happens. Before the devnet is complete JSON events are held back, so that its
/// first lines are the processes.
#[derive(Debug)]
pub struct Printer<W: Write = Stdout> {
    out: W,
    style: Style,
    held: Option<Vec<String>>,
    table: Vec<String>,
    closed: bool,
}

impl Printer {
    /// Writes to stdout.
    pub fn new(json: bool) -> Self {
        let style = match json {
            true => Style::Json,
            false if stdout().is_terminal() => Style::Terminal,
            false => Style::Text,
        };
        Self::to(stdout(), style)
    }
}

impl<W: Write> Printer<W> {
    fn to(out: W, style: Style) -> Self {
        let held = (style == Style::Json).then(Vec::new);
        Self { out, style, held, table: vec![], closed: false }
    }

    /// Nobody reads what is written.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Tells that a process listens.
    pub fn listening(&mut self, listening: &Listening) {
        match self.style {
            Style::Json => self.line(&json(listening)),
            Style::Text | Style::Terminal => self.line(&listening_text(listening)),
        }
    }

    /// Tells what happened just now.
    pub fn event(&mut self, event: &'static str, name: &str, detail: Detail) {
        self.print(&Event { event, time: now(), name: name.to_owned(), detail });
    }

    /// Tells what happened.
    pub fn print(&mut self, event: &Event) {
        match (self.style, &mut self.held) {
            (Style::Json, Some(held)) => held.push(json(event)),
            (Style::Json, None) => self.line(&json(event)),
            (Style::Text | Style::Terminal, _) => self.line(&event_text(event)),
        }
    }

    /// Every process listens, or will not any more: nothing is held back from now on.
    pub fn release(&mut self) {
        for line in self.held.take().unwrap_or_default() {
            self.line(&line);
        }
    }

    /// Draws the table, when there is a terminal and something changed.
    pub fn table(&mut self, rows: impl FnOnce() -> Vec<Row>) {
        if self.style != Style::Terminal {
            return;
        }
        let lines = table::lines(&rows());
        if lines != self.table {
            let text = table::redraw(self.table.len(), &lines);
            self.write(&text);
            self.table = lines;
        }
    }

    /// Writes a line above the table.
    fn line(&mut self, line: &str) {
        let below = std::mem::take(&mut self.table);
        let clear = if below.is_empty() { String::new() } else { table::redraw(below.len(), &[]) };
        self.write(&format!("{clear}{line}\n"));
    }

    fn write(&mut self, text: &str) {
        let written = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
        self.closed |= written.is_err();
    }
}

/// The time, RFC 3339 in UTC with milliseconds.
#[allow(clippy::disallowed_methods, reason = "the devnet tells people when something happened")]
pub fn now() -> String {
    format!("{:.3}", Timestamp::now())
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("strings and numbers are written as JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devnet::plan::Role;

    fn listening() -> Listening {
        Listening {
            name: "da".to_owned(),
            role: Role::Da,
            pid: 4,
            rpc: "http://127.0.0.1:1".to_owned(),
            http: "http://127.0.0.1:1".to_owned(),
            kv: None,
            p2p: None,
            raft: None,
            home: "/n/da".to_owned(),
        }
    }

    fn lines(printer: Printer<Vec<u8>>) -> Vec<serde_json::Value> {
        let text = String::from_utf8(printer.out).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn json_starts_with_the_processes_and_loses_no_event() {
        let mut printer = Printer::to(vec![], Style::Json);
        printer.event("started", "da", Detail::Process { pid: 4, log: "/n/da/log".to_owned() });
        printer.listening(&listening());
        printer.release();
        printer.event("stopping", "devnet", Detail::Stop { reason: "interrupted" });
        let lines = lines(printer);
        assert_eq!(lines[0]["role"], "da");
        assert_eq!(lines[1]["event"], "started");
        assert_eq!(lines[2]["event"], "stopping");
    }

    #[test]
    fn a_line_takes_the_place_of_the_table_which_is_drawn_again_below() {
        let mut printer = Printer::to(vec![], Style::Terminal);
        let rows = || vec![Row::of_other("da", Some(4), "da")];
        printer.table(rows);
        printer.listening(&listening());
        printer.table(rows);
        let text = String::from_utf8(printer.out).unwrap();
        assert_eq!(text.matches("\x1b[2F\x1b[J").count(), 1);
        assert_eq!(text.matches("NAME").count(), 2);
    }

    #[test]
    fn the_same_table_is_not_drawn_twice() {
        let mut printer = Printer::to(vec![], Style::Terminal);
        let rows = || vec![Row::of_other("da", Some(4), "da")];
        printer.table(rows);
        printer.table(rows);
        assert_eq!(String::from_utf8(printer.out).unwrap().matches("NAME").count(), 1);
    }

    #[test]
    fn a_reader_that_went_away_is_noticed() {
        let mut printer = Printer::to(&mut [][..], Style::Text);
        printer.listening(&listening());
        assert!(printer.is_closed());
    }

    #[test]
    fn the_time_is_rfc_3339() {
        let now = now();
        assert!(now.parse::<Timestamp>().is_ok() && now.ends_with('Z'), "{now}");
    }
}
